//! The audio track of an initialization section, and the samples that fragments announce for it (ISO 14496-12).

use super::adts::AacConfig;
use super::boxes::{Reader, boxes, find};
use super::frame::Format;
use super::headers::Family;
use super::ogg;
use super::sample_entry::{SampleEntry, parse_entry};
use super::smpb::Smpb;
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
    /// Where it ends, in ticks of the media, if the edit list has its duration: what follows is padding.
    pub(super) presentation_end: Option<u64>,
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
    /// Decode time in ticks, if the track fragment that it begins has one.
    pub(super) time: Option<u64>,
}

/// Samples of one `moof`, at most: an hour of audio has a tenth of that. A run without fields takes no bytes for a sample, so
/// a few bytes could announce billions.
const MOST_SAMPLES: usize = 1 << 20;

impl Track {
    /// The first audio track of an initialization section that can be played.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for a codec that is not supported, or if there is no audio track.
    pub(super) fn parse(init: &[u8]) -> Result<Self, Error> {
        let unsupported = |why: &str| Error::new(ErrorKind::Unsupported, why);
        let moov = find(init, &[b"moov"]);
        let moov = moov.ok_or_else(|| unsupported("the initialization section has no moov box"))?;
        // 8.4.3: handler_type lies behind the version, the flags and a reserved field.
        let is_audio =
            |track: &[u8]| find(track, &[b"mdia", b"hdlr"]).and_then(|hdlr| hdlr.get(8..12)) == Some(b"soun");
        let tracks = boxes(moov).filter(|(kind, body)| kind == b"trak" && is_audio(body));
        let mut refusal = unsupported("the initialization section has no audio track");
        for (_, trak) in tracks {
            match Self::parse_track(trak) {
                Ok(mut track) => {
                    track.read_end(trak, moov);
                    track.read_smpb(moov);
                    track.read_defaults(moov);
                    return Ok(track);
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn parse_track(trak: &[u8]) -> Result<Self, Error> {
        let broken = || Error::new(ErrorKind::Unsupported, "the initialization section is damaged");
        let id = find(trak, &[b"tkhd"]).and_then(track_id).ok_or_else(broken)?;
        let timescale = find(trak, &[b"mdia", b"mdhd"]).and_then(timescale).ok_or_else(broken)?;
        let entries = find(trak, &[b"mdia", b"minf", b"stbl", b"stsd"]).ok_or_else(broken)?;
        // 8.5.2: behind the version, the flags and the count. Only the first entry is read: a rendition has one.
        let (kind, entry) = boxes(entries.get(8..).unwrap_or_default()).next().ok_or_else(broken)?;
        let SampleEntry { format, aac, pre_skip } = parse_entry(&kind, entry)?;
        let edit = find(trak, &[b"edts", b"elst"]).and_then(first_edit).map_or(0, |edit| edit.time);
        // ffmpeg's muxer of HLS writes an edit list that does not count the pre-skip.
        let presentation_start = edit.max(i64::from(pre_skip) * i64::from(timescale) / 48_000);
        let rate = u64::from(format.sample_rate).max(1);
        let default_duration = aac.map_or(0, |_| (1024 * u64::from(timescale) / rate) as u32);
        Ok(Self {
            id,
            timescale,
            format,
            aac,
            presentation_start,
            presentation_end: None,
            default_duration,
            default_size: 0,
        })
    }

    /// The end of the presentation, from its edit list.
    fn read_end(&mut self, trak: &[u8], moov: &[u8]) {
        let edit = find(trak, &[b"edts", b"elst"]).and_then(first_edit);
        let movie = find(moov, &[b"mvhd"]).and_then(timescale);
        // 8.6.6.1: a duration of 0 lasts over all fragments, whose end is not known yet.
        let Some((edit, movie)) = edit.filter(|edit| edit.duration > 0).zip(movie) else { return };
        // In ticks of the movie, which may be milliseconds: rounded up, so that no audio counts as padding.
        let ticks =
            u128::from(edit.duration.saturating_add(1)) * u128::from(self.timescale) / u128::from(movie);
        let end = self.presentation_start.checked_add_unsigned(u64::try_from(ticks).unwrap_or(u64::MAX));
        self.presentation_end = end.and_then(|end| u64::try_from(end).ok());
    }

    /// What the encoder has added, from the metadata. An edit list is more exact: editors write it anew.
    fn read_smpb(&mut self, moov: &[u8]) {
        let smpb = Smpb::find(moov).filter(|smpb| smpb.is_of(&self.format) && self.presentation_start == 0);
        let Some(smpb) = smpb else { return };
        let rate = self.format.sample_rate.max(1);
        let ticks = |samples: u64| u128::from(samples) * u128::from(self.timescale) / u128::from(rate);
        let (start, end) = (i64::try_from(ticks(smpb.delay)), u64::try_from(ticks(smpb.end())));
        let Some((start, end)) = start.ok().zip(end.ok()) else { return };
        self.presentation_start = start;
        self.presentation_end = self.presentation_end.or(Some(end));
    }

    /// Ticks that a decoder returns of a sample. `None` for codecs whose frames say themselves how long they are.
    pub(super) fn decoded(&self, sample: &[u8]) -> Option<u64> {
        let header = |family: Family| family.parse(sample).map(|header| header.samples);
        let (samples, rate) = match self.format.codec {
            // Both figures are those of the core codec, whose rate the format has: SBR doubles them.
            AudioCodec::Aac | AudioCodec::HeAac => (1024, self.format.sample_rate),
            AudioCodec::Opus => (ogg::samples(sample)?, 48_000),
            AudioCodec::Mp3 => (header(Family::Mpeg)?, self.format.sample_rate),
            AudioCodec::Ac3 | AudioCodec::Eac3 => (header(Family::Ac3)?, self.format.sample_rate),
            _ => return None,
        };
        Some(u64::from(samples) * u64::from(self.timescale) / u64::from(rate.max(1)))
    }

    /// Defaults for the fragments of the track, from its `trex`.
    fn read_defaults(&mut self, moov: &[u8]) {
        let Some(mvex) = find(moov, &[b"mvex"]) else { return };
        for (_, trex) in boxes(mvex).filter(|(kind, _)| kind == b"trex") {
            let mut reader = Reader(trex);
            // 8.8.3: track_ID, and the defaults for the sample description, the duration and the size.
            let mut read =
                || Some((reader.version()?, reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?));
            if let Some((_, id, _, duration, size)) = read() {
                if id == self.id {
                    self.default_size = size;
                    // 0 if the fragments have durations, or no duration is given: then the codec's is used.
                    self.default_duration = if duration > 0 { duration } else { self.default_duration };
                }
            }
        }
    }

    /// The samples that a `moof` at `position` announces for this track. `None` if it is damaged.
    pub(super) fn parse_fragment(&self, moof: &[u8], position: u64) -> Option<Vec<Sample>> {
        let mut all = Vec::new();
        // 8.8.7.1: without a base of its own, data of the first track begins where the moof does, and data of others where
        // that of the track before ends.
        let mut next = position;
        let mut allowed = MOST_SAMPLES;
        for (_, traf) in boxes(moof).filter(|(kind, _)| kind == b"traf") {
            let header = TrackFragment::parse(find(traf, &[b"tfhd"])?)?;
            let base = header.base.unwrap_or(if header.is_base_moof { position } else { next });
            let is_ours = header.id == self.id;
            let first = all.len();
            let mut at = base;
            for (_, trun) in boxes(traf).filter(|(kind, _)| kind == b"trun") {
                let samples = self.parse_run(trun, &header, base, &mut at, &mut allowed)?;
                if is_ours {
                    all.extend(samples);
                }
            }
            next = at;
            // 8.8.12: the time is that of the first sample of the track fragment, and not of each run.
            if let Some(first) = all.get_mut(first) {
                first.time = find(traf, &[b"tfdt"]).and_then(decode_time);
            }
        }
        Some(all)
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
        // 8.8.8.1: each field is there if its bit is set. The flags of the first sample are passed over.
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
            samples.push(Sample { start: *at, len, duration, time: None });
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
        // 8.8.7.1: each field is there if its bit is set. The index of the sample description is passed over.
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

/// An entry of an edit list (8.6.6).
struct Edit {
    /// In ticks of the movie.
    duration: u64,
    /// In ticks of the media.
    time: i64,
}

/// The first edit that is not empty (8.6.6).
fn first_edit(elst: &[u8]) -> Option<Edit> {
    let mut reader = Reader(elst);
    let (version, _) = reader.version()?;
    for _ in 0..reader.u32()? {
        // segment_duration and media_time. An empty edit has a time of -1.
        let (duration, time) = if version == 1 {
            (reader.number(8)?, reader.number(8)? as i64)
        } else {
            (u64::from(reader.u32()?), i64::from(reader.u32()? as i32))
        };
        // media_rate.
        reader.take(4)?;
        if time >= 0 {
            return Some(Edit { duration, time });
        }
    }
    None
}
