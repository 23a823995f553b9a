//! Boxes of an initialization section and of fragments (ISO 14496-12).

use std::sync::Arc;

use super::adts::AacConfig;
use super::frame::Format;
use super::ogg;
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;

/// The audio track of an initialization section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Track {
    id: u32,
    /// Ticks per second.
    pub(super) timescale: u32,
    pub(super) format: Format,
    /// How to make ADTS of its samples.
    pub(super) aac: Option<AacConfig>,
    /// Where presentation begins, in ticks of the media: the samples before are encoder delay.
    pub(super) presentation_start: i64,
    default_duration: u32,
    default_size: u32,
}

/// A sample, as a fragment announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// First byte, counted as the position of the `moof` is.
    pub(super) start: u64,
    pub(super) len: u32,
    pub(super) duration: u32,
}

/// The samples of one `moof`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Decode time of the first sample, in ticks.
    pub(super) start: Option<u64>,
    pub(super) samples: Vec<Sample>,
}

/// Samples of one `moof`, at most: an hour of audio has a tenth of that. A run without fields takes no bytes for a sample, so
/// a few bytes could announce billions.
const MOST_SAMPLES: usize = 1 << 20;

/// Reads big-endian numbers.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of up to eight bytes.
    fn number(&mut self, len: usize) -> Option<u64> {
        Some(self.take(len)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.number(4).map(|number| number as u32)
    }

    fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|number| number as u16)
    }

    fn u8(&mut self) -> Option<u8> {
        self.number(1).map(|number| number as u8)
    }

    /// Version and flags of a full box.
    fn version(&mut self) -> Option<(u8, u32)> {
        Some((self.u8()?, self.number(3)? as u32))
    }
}

/// The boxes that `bytes` consist of. Ends at the first one that is cut off.
fn boxes(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut reader = Reader(bytes);
    std::iter::from_fn(move || {
        let whole = reader.0.len() as u64;
        let size = reader.u32()?;
        let kind = reader.take(4)?.try_into().ok()?;
        let (size, header) = match size {
            0 => (whole, 8),
            1 => (reader.number(8)?, 16),
            size => (u64::from(size), 8),
        };
        let body = usize::try_from(size.checked_sub(header)?).ok()?;
        Some((kind, reader.take(body)?))
    })
}

/// The first box at the end of this path.
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |inside, wanted| {
        boxes(inside).find(|(kind, _)| kind == *wanted).map(|(_, body)| body)
    })
}

impl Track {
    /// The first audio track of an initialization section.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for a codec that is not supported, or if there is no audio track.
    pub(super) fn parse(init: &[u8]) -> Result<Self, Error> {
        let unsupported = |why: &str| Error::new(ErrorKind::Unsupported, why);
        let moov = find(init, &[b"moov"]);
        let moov = moov.ok_or_else(|| unsupported("the initialization section has no moov box"))?;
        let is_audio =
            |track: &[u8]| find(track, &[b"mdia", b"hdlr"]).and_then(|hdlr| hdlr.get(8..12)) == Some(b"soun");
        let mut tracks = boxes(moov).filter(|(kind, body)| kind == b"trak" && is_audio(body));
        let (_, trak) =
            tracks.next().ok_or_else(|| unsupported("the initialization section has no audio track"))?;
        let mut track = Self::parse_track(trak)?;
        track.read_defaults(moov);
        Ok(track)
    }

    fn parse_track(trak: &[u8]) -> Result<Self, Error> {
        let broken = || Error::new(ErrorKind::Unsupported, "the initialization section is damaged");
        let id = find(trak, &[b"tkhd"]).and_then(track_id).ok_or_else(broken)?;
        let timescale = find(trak, &[b"mdia", b"mdhd"]).and_then(timescale).ok_or_else(broken)?;
        let entries = find(trak, &[b"mdia", b"minf", b"stbl", b"stsd"]).ok_or_else(broken)?;
        let (kind, entry) = boxes(entries.get(8..).unwrap_or_default()).next().ok_or_else(broken)?;
        let (format, aac) = parse_entry(&kind, entry)?;
        let presentation_start = find(trak, &[b"edts", b"elst"]).and_then(first_edit).unwrap_or(0);
        Ok(Self { id, timescale, format, aac, presentation_start, default_duration: 0, default_size: 0 })
    }

    /// Defaults for the fragments of the track, from its `trex`.
    fn read_defaults(&mut self, moov: &[u8]) {
        let Some(mvex) = find(moov, &[b"mvex"]) else { return };
        for (_, trex) in boxes(mvex).filter(|(kind, _)| kind == b"trex") {
            let mut reader = Reader(trex);
            let mut read =
                || Some((reader.version()?, reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?));
            if let Some((_, id, _, duration, size)) = read() {
                if id == self.id {
                    (self.default_duration, self.default_size) = (duration, size);
                }
            }
        }
    }

    /// The samples that a `moof` at `position` announces for this track. `None` if it is damaged.
    pub(super) fn parse_fragment(&self, moof: &[u8], position: u64) -> Option<Fragment> {
        let mut fragment = Fragment::default();
        // 8.8.7.1: without a base of its own, data of the first track begins where the moof does, and data of others where
        // that of the track before ends.
        let mut next = position;
        let mut allowed = MOST_SAMPLES;
        for (_, traf) in boxes(moof).filter(|(kind, _)| kind == b"traf") {
            let header = TrackFragment::parse(find(traf, &[b"tfhd"])?)?;
            let base = header.base.unwrap_or(if header.is_base_moof { position } else { next });
            let is_ours = header.id == self.id;
            if is_ours && fragment.start.is_none() {
                fragment.start = find(traf, &[b"tfdt"]).and_then(decode_time);
            }
            let mut at = base;
            for (_, trun) in boxes(traf).filter(|(kind, _)| kind == b"trun") {
                let samples = self.parse_run(trun, &header, base, &mut at, &mut allowed)?;
                if is_ours {
                    fragment.samples.extend(samples);
                }
            }
            next = at;
        }
        Some(fragment)
    }

    /// The samples of a `trun` (8.8.8). `at` is where the run before ended.
    fn parse_run(
        &self,
        trun: &[u8],
        header: &TrackFragment,
        base: u64,
        at: &mut u64,
        allowed: &mut usize,
    ) -> Option<Vec<Sample>> {
        let mut reader = Reader(trun);
        let (_, flags) = reader.version()?;
        let count = reader.u32()? as usize;
        if flags & 0x01 != 0 {
            *at = base.checked_add_signed(i64::from(reader.u32()? as i32))?;
        }
        if flags & 0x04 != 0 {
            reader.u32()?;
        }
        let fields = (flags >> 8 & 15).count_ones() as usize;
        // A count whose fields do not fit into the box is damage. Without fields there is nothing to compare it with.
        if fields * 4 * count > reader.0.len() {
            return None;
        }
        *allowed = allowed.checked_sub(count)?;
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            let duration = if flags & 0x100 != 0 {
                reader.u32()?
            } else {
                header.duration.unwrap_or(self.default_duration)
            };
            let len =
                if flags & 0x200 != 0 { reader.u32()? } else { header.size.unwrap_or(self.default_size) };
            // Flags of the sample, and its composition offset, which audio does not have.
            reader.take(4 * (flags >> 10 & 3).count_ones() as usize)?;
            samples.push(Sample { start: *at, len, duration });
            *at = at.checked_add(u64::from(len))?;
        }
        Some(samples)
    }
}

/// A `tfhd` (8.8.7).
struct TrackFragment {
    id: u32,
    base: Option<u64>,
    is_base_moof: bool,
    duration: Option<u32>,
    size: Option<u32>,
}

impl TrackFragment {
    fn parse(tfhd: &[u8]) -> Option<Self> {
        let mut reader = Reader(tfhd);
        let (_, flags) = reader.version()?;
        let id = reader.u32()?;
        let base = if flags & 0x01 != 0 { Some(reader.number(8)?) } else { None };
        if flags & 0x02 != 0 {
            reader.u32()?;
        }
        let duration = if flags & 0x08 != 0 { Some(reader.u32()?) } else { None };
        let size = if flags & 0x10 != 0 { Some(reader.u32()?) } else { None };
        Some(Self { id, base, is_base_moof: flags & 0x2_0000 != 0, duration, size })
    }
}

/// Reads what follows two times, whose size depends on the version.
fn behind_times(full_box: &[u8]) -> Option<u32> {
    let mut reader = Reader(full_box);
    let (version, _) = reader.version()?;
    reader.take(if version == 1 { 16 } else { 8 })?;
    reader.u32()
}

fn track_id(tkhd: &[u8]) -> Option<u32> {
    behind_times(tkhd)
}

fn timescale(mdhd: &[u8]) -> Option<u32> {
    behind_times(mdhd).filter(|scale| *scale > 0)
}

fn decode_time(tfdt: &[u8]) -> Option<u64> {
    let mut reader = Reader(tfdt);
    let (version, _) = reader.version()?;
    reader.number(if version == 1 { 8 } else { 4 })
}

/// Media time of the first edit that is not empty (8.6.6).
fn first_edit(elst: &[u8]) -> Option<i64> {
    let mut reader = Reader(elst);
    let (version, _) = reader.version()?;
    for _ in 0..reader.u32()? {
        let time = if version == 1 {
            reader.take(8)?;
            reader.number(8)? as i64
        } else {
            reader.take(4)?;
            i64::from(reader.u32()? as i32)
        };
        reader.take(4)?;
        if time >= 0 {
            return Some(time);
        }
    }
    None
}

/// A sample entry (12.2.3): codec, rate, channels, and what a decoder needs.
fn parse_entry(kind: &[u8; 4], entry: &[u8]) -> Result<(Format, Option<AacConfig>), Error> {
    let unsupported = || {
        let name: String = kind.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_graphic).collect();
        Error::new(ErrorKind::Unsupported, format!("audio of the type {name} in MP4 is not supported"))
    };
    let read = || {
        let mut reader = Reader(entry);
        reader.take(8)?;
        let version = reader.u16()?;
        reader.take(6)?;
        let channels = reader.u16()?;
        reader.take(6)?;
        let rate = reader.u32()? >> 16;
        // QuickTime's second version of the entry has 16 bytes more.
        reader.take(if version == 1 { 16 } else { 0 })?;
        Some((channels, rate, reader.0))
    };
    let (channels, sample_rate, extensions) = read().ok_or_else(unsupported)?;
    let format = |codec| Format { codec, sample_rate, channels, head: None };
    match kind {
        b"mp4a" => {
            let esds = find(extensions, &[b"esds"]).or_else(|| find(extensions, &[b"wave", b"esds"]));
            parse_mp4a(esds.ok_or_else(unsupported)?, &format).ok_or_else(unsupported)
        }
        b"fLaC" => {
            let dfla = find(extensions, &[b"dfLa"]).ok_or_else(unsupported)?;
            Ok((parse_flac(dfla).ok_or_else(unsupported)?, None))
        }
        b"Opus" => {
            let (channels, head) =
                find(extensions, &[b"dOps"]).and_then(ogg::head).ok_or_else(unsupported)?;
            // Decoders of Opus play at 48 kHz, whatever the source had.
            let head = Some(Arc::from(head));
            Ok((Format { codec: AudioCodec::Opus, sample_rate: 48_000, channels, head }, None))
        }
        b".mp3" => Ok((format(AudioCodec::Mp3), None)),
        b"ac-3" => Ok((format(AudioCodec::Ac3), None)),
        b"ec-3" => Ok((format(AudioCodec::Eac3), None)),
        _ => Err(unsupported()),
    }
}

/// Reads the descriptors of an `esds` (ISO 14496-1, 7.2.6).
fn parse_mp4a(esds: &[u8], format: &dyn Fn(AudioCodec) -> Format) -> Option<(Format, Option<AacConfig>)> {
    let mut reader = Reader(esds.get(4..)?);
    let mut stream = Reader(descriptor(&mut reader, 3)?);
    stream.u16()?;
    let flags = stream.u8()?;
    stream.take(if flags & 0x80 != 0 { 2 } else { 0 })?;
    let url = if flags & 0x40 != 0 { usize::from(stream.u8()?) } else { 0 };
    stream.take(url + if flags & 0x20 != 0 { 2 } else { 0 })?;
    let mut decoder = Reader(descriptor(&mut stream, 4)?);
    match decoder.u8()? {
        0x69 | 0x6b => return Some((format(AudioCodec::Mp3), None)),
        0x40 | 0x66..=0x68 => {}
        _ => return None,
    }
    decoder.take(12)?;
    let config = AacConfig::parse(descriptor(&mut decoder, 5)?)?;
    let codec = if config.is_high_efficiency { AudioCodec::HeAac } else { AudioCodec::Aac };
    let (sample_rate, channels) = (config.sample_rate(), config.channel_count());
    Some((Format { codec, sample_rate, channels, head: None }, Some(config)))
}

/// The body of the next descriptor with this tag.
fn descriptor<'a>(reader: &mut Reader<'a>, wanted: u8) -> Option<&'a [u8]> {
    loop {
        let tag = reader.u8()?;
        let mut len = 0;
        for _ in 0..4 {
            let byte = reader.u8()?;
            len = len << 7 | usize::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = reader.take(len.min(reader.0.len()))?;
        if tag == wanted {
            return Some(body);
        }
    }
}

/// Makes the head of a native FLAC stream of a `dfLa`.
fn parse_flac(dfla: &[u8]) -> Option<Format> {
    let mut reader = Reader(dfla);
    reader.version()?;
    // Block type 0 is STREAMINFO, which comes first and has 34 bytes (RFC 9639, section 8.2).
    if reader.u8()? & 0x7f != 0 || reader.number(3)? != 34 {
        return None;
    }
    let mut info: [u8; 34] = reader.take(34)?.try_into().ok()?;
    let sample_rate = (u32::from(info[10]) << 16 | u32::from(info[11]) << 8 | u32::from(info[12])) >> 4;
    let channels = u16::from(info[12] >> 1 & 7) + 1;
    // The count of samples and their checksum are those of the whole file. A section of it has others, so: unknown.
    info[13] &= 0xf0;
    info[14..].fill(0);
    let head: Vec<u8> = b"fLaC\x80\x00\x00\x22".iter().chain(&info).copied().collect();
    Some(Format { codec: AudioCodec::Flac, sample_rate, channels, head: Some(Arc::from(head)) })
}
