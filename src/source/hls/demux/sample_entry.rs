//! Sample entries of MP4: what the samples of a track are.

use std::sync::Arc;

use super::adts::AacConfig;
use super::boxes::{Reader, find};
use super::frame::Format;
use super::{matroska, ogg};
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;

/// What all audio sample entries have (ISO 14496-12, 12.2.3).
struct Fields<'a> {
    channels: u16,
    sample_rate: u32,
    /// The boxes behind these fields.
    extensions: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(entry: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(entry);
        // Six reserved bytes, and data_reference_index.
        reader.take(8)?;
        let version = reader.u16()?;
        // QuickTime's revision and vendor; reserved in MP4.
        reader.take(6)?;
        let channels = reader.u16()?;
        // samplesize, which compressed audio does not have, and two fields that are not used.
        reader.take(6)?;
        // A number with 16 bits behind the point. A rate above 65,535 Hz does not fit: codecs have it in a box of their own.
        let sample_rate = reader.u32()? >> 16;
        // QuickTime's second version of the entry has 16 bytes more.
        reader.take(if version == 1 { 16 } else { 0 })?;
        Some(Self { channels, sample_rate, extensions: reader.0 })
    }
}

/// What a sample entry says of the samples of its track.
pub(super) struct SampleEntry {
    pub(super) format: Format,
    /// How to make ADTS of them.
    pub(super) aac: Option<AacConfig>,
    /// Encoder delay of Opus, in samples at 48 kHz. Other codecs have it in an edit list only.
    pub(super) pre_skip: u16,
}

impl From<Format> for SampleEntry {
    fn from(format: Format) -> Self {
        Self { format, aac: None, pre_skip: 0 }
    }
}

/// Reads a sample entry (ISO 14496-12, 12.2.3).
pub(super) fn parse_entry(kind: &[u8; 4], entry: &[u8]) -> Result<SampleEntry, Error> {
    let unsupported = || {
        let name: String = kind.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_graphic).collect();
        Error::new(ErrorKind::Unsupported, format!("audio of the type {name} in MP4 is not supported"))
    };
    let Fields { channels, sample_rate, extensions } = Fields::read(entry).ok_or_else(unsupported)?;
    let format = |codec| Format { codec, sample_rate, channels, head: None };
    match kind {
        b"mp4a" => {
            // QuickTime has the box in another one.
            let esds = find(extensions, &[b"esds"]).or_else(|| find(extensions, &[b"wave", b"esds"]));
            parse_mp4a(esds.ok_or_else(unsupported)?, &format).ok_or_else(unsupported)
        }
        b"fLaC" => {
            let dfla = find(extensions, &[b"dfLa"]).ok_or_else(unsupported)?;
            Ok(parse_flac(dfla).ok_or_else(unsupported)?.into())
        }
        b"Opus" => {
            let head = find(extensions, &[b"dOps"]).and_then(ogg::head).ok_or_else(unsupported)?;
            let (channels, pages) = (head.channels, Some(Arc::from(head.pages)));
            // Decoders of Opus play at 48 kHz, whatever the source had.
            let format = Format { codec: AudioCodec::Opus, sample_rate: 48_000, channels, head: pages };
            Ok(SampleEntry { format, aac: None, pre_skip: head.pre_skip })
        }
        b"alac" => {
            // QuickTime has the box in another one.
            let alac = find(extensions, &[b"alac"]).or_else(|| find(extensions, &[b"wave", b"alac"]));
            Ok(alac.and_then(matroska::alac_format).ok_or_else(unsupported)?.into())
        }
        b".mp3" => Ok(format(AudioCodec::Mp3).into()),
        b"ac-3" => Ok(format(AudioCodec::Ac3).into()),
        b"ec-3" => Ok(format(AudioCodec::Eac3).into()),
        _ => Err(unsupported()),
    }
}

/// Reads the descriptors of an `esds` (ISO 14496-1, 7.2.6).
fn parse_mp4a(esds: &[u8], format: &dyn Fn(AudioCodec) -> Format) -> Option<SampleEntry> {
    let mut reader = Reader(esds.get(4..)?);
    let mut stream = Reader(descriptor(&mut reader, 3)?);
    stream.u16()?;
    let flags = stream.u8()?;
    // 7.2.6.5: streamDependenceFlag with dependsOn_ES_ID, URL_Flag with the length of a URL, OCRstreamFlag with OCR_ES_Id.
    stream.take(if flags & 0x80 != 0 { 2 } else { 0 })?;
    let url = if flags & 0x40 != 0 { usize::from(stream.u8()?) } else { 0 };
    stream.take(url + if flags & 0x20 != 0 { 2 } else { 0 })?;
    let mut decoder = Reader(descriptor(&mut stream, 4)?);
    // 7.2.6.6, objectTypeIndication: 0x69 and 0x6b are MPEG audio, 0x40 and 0x66 to 0x68 are AAC.
    match decoder.u8()? {
        0x69 | 0x6b => return Some(format(AudioCodec::Mp3).into()),
        0x40 | 0x66..=0x68 => {}
        _ => return None,
    }
    // The type of the stream, the size of its buffer, its maximum bitrate and its mean one.
    decoder.take(12)?;
    let config = AacConfig::parse(descriptor(&mut decoder, 5)?)?;
    Some(SampleEntry { format: config.format(), aac: Some(config), pre_skip: 0 })
}

/// The body of the next descriptor with this tag.
fn descriptor<'a>(reader: &mut Reader<'a>, wanted: u8) -> Option<&'a [u8]> {
    loop {
        let tag = reader.u8()?;
        let mut len = 0;
        // ISO/IEC 14496-1, 8.3.3: seven bits of the length in each byte, whose highest bit says that another one follows; four at
        // most.
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
    // 20 bits behind the sizes of blocks and frames, then three bits for the channels, less one.
    let sample_rate = (u32::from(info[10]) << 16 | u32::from(info[11]) << 8 | u32::from(info[12])) >> 4;
    let channels = u16::from(info[12] >> 1 & 7) + 1;
    // The count of samples and their checksum are those of the whole file. A section of it has others, so: unknown.
    info[13] &= 0xf0;
    info[14..].fill(0);
    // RFC 9639, section 8.1: the upper bit marks the last block of metadata. Others of the `dfLa` are left out.
    let head: Vec<u8> = b"fLaC\x80\x00\x00\x22".iter().chain(&info).copied().collect();
    Some(Format { codec: AudioCodec::Flac, sample_rate, channels, head: Some(Arc::from(head)) })
}
