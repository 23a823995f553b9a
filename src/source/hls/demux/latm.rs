//! LATM in LOAS (ISO/IEC 14496-3, "Audio transport formats"): raw AAC out of the elements of an AudioSyncStream.
//!
//! One program with one layer, as broadcasts have it. An element may contain its configuration (StreamMuxConfig), or refer to the
//! last one, which a muxer sends every few frames only. A segment may begin in between, so what precedes the first configuration
//! of a segment is kept until that is there, and belongs to it.

use std::collections::VecDeque;
use std::fmt;

use super::adts::AacConfig;
use super::bits::Bits;
use super::frame::MediaTime;
use super::headers::LOAS_HEADER;

/// Bytes that are kept for a configuration, at most: those of two seconds at 1 Mbit/s.
const MOST_PENDING: usize = 256 * 1024;

/// What a StreamMuxConfig says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MuxConfig {
    aac: AacConfig,
    /// Frames of an element.
    frames: u32,
    /// Bits behind the frames that are no audio.
    other_bits: usize,
}

/// One element, with the time of the packet that it is the first one of.
#[derive(Debug)]
struct Element {
    time: Option<MediaTime>,
    bytes: Vec<u8>,
}

/// The frames of one element.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) time: Option<MediaTime>,
    pub(super) aac: AacConfig,
    /// Raw data of each frame.
    pub(super) raw: Vec<Vec<u8>>,
}

/// Reads the elements of one stream.
#[derive(Debug, Default)]
pub(super) struct LatmReader {
    config: Option<MuxConfig>,
    pending: VecDeque<Element>,
    pending_bytes: usize,
    refusal: Option<Refusal>,
}

/// Why a configuration can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// AAC of this object type, or in a form that ADTS has no words for.
    ObjectType(u32),
    /// Several programs or layers, or frames of a fixed length.
    Layout,
    /// There was none.
    Missing,
}

impl LatmReader {
    /// Takes the next element, with its header.
    pub(super) fn push(&mut self, element: &[u8], time: Option<MediaTime>) {
        self.pending_bytes += element.len();
        self.pending.push_back(Element { time, bytes: element[LOAS_HEADER..].to_vec() });
        if self.config.is_none() {
            self.config = self.read_config(element);
        }
        while self.config.is_none() && self.pending_bytes > MOST_PENDING {
            self.drop_first();
        }
    }

    fn read_config(&mut self, element: &[u8]) -> Option<MuxConfig> {
        let mut bits = Bits::new(&element[LOAS_HEADER..]);
        // useSameStreamMux: it refers to a configuration that has not come yet.
        if bits.flag()? {
            return None;
        }
        match MuxConfig::read(&mut bits)? {
            Ok(config) => Some(config),
            Err(refusal) => {
                self.refusal = Some(refusal);
                None
            }
        }
    }

    /// The frames of the next element whose configuration is known. Elements that are damaged have none.
    pub(super) fn next(&mut self) -> Option<Frames> {
        self.config?;
        let element = self.drop_first()?;
        let raw = self.read(&element.bytes).unwrap_or_default();
        let aac = self.config?.aac;
        Some(Frames { time: element.time, aac, raw })
    }

    fn drop_first(&mut self) -> Option<Element> {
        let element = self.pending.pop_front()?;
        // `push` has counted the header too, without keeping it.
        self.pending_bytes -= element.bytes.len() + LOAS_HEADER;
        Some(element)
    }

    /// Packets are missing: what was kept does not lie before the next element.
    pub(super) fn lose(&mut self) {
        // The configuration stays: most streams have one from the beginning to the end.
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// Why there is no frame, if elements have come, but no configuration that can be used.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let missing = (!self.pending.is_empty()).then_some(Refusal::Missing);
        self.refusal.or(missing).filter(|_| self.config.is_none())
    }

    /// AudioMuxElement.
    fn read(&mut self, element: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut bits = Bits::new(element);
        // useSameStreamMux
        if !bits.flag()? {
            // A configuration that can't be used is damage here: there was one that can.
            self.config = Some(MuxConfig::read(&mut bits)?.ok()?);
        }
        let config = self.config?;
        let mut frames = Vec::new();
        for _ in 0..config.frames {
            // PayloadLengthInfo: a byte of 255 continues.
            let mut len = 0;
            loop {
                let more = bits.take(8)? as usize;
                len += more;
                if more != 255 {
                    break;
                }
            }
            let mut raw = Vec::with_capacity(len.min(element.len()));
            bits.copy(len, &mut raw)?;
            frames.push(raw);
        }
        bits.skip(config.other_bits)?;
        Some(frames)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ObjectType(kind) => {
                write!(f, "audio of the object type {kind} in LATM is not supported, or not in this form")
            }
            Self::Layout => f.write_str(
                "LATM with several programs or layers, or without lengths of frames, is not supported",
            ),
            Self::Missing => f.write_str("the LATM of the segment has no configuration"),
        }
    }
}

impl MuxConfig {
    /// `None` if it is cut off.
    fn read(bits: &mut Bits<'_>) -> Option<Result<Self, Refusal>> {
        let is_version_1 = bits.flag()?;
        // audioMuxVersionA is for future use.
        if is_version_1 && bits.flag()? {
            return Some(Err(Refusal::Layout));
        }
        if is_version_1 {
            // taraBufferFullness
            value(bits)?;
        }
        let has_same_framing = bits.flag()?;
        let frames = bits.take(6)? + 1;
        let (programs, layers) = (bits.take(4)?, bits.take(3)?);
        if !has_same_framing || programs != 0 || layers != 0 {
            return Some(Err(Refusal::Layout));
        }
        let aac = match Self::read_aac(bits, is_version_1)? {
            Ok(aac) => aac,
            Err(object_type) => return Some(Err(Refusal::ObjectType(object_type))),
        };
        // frameLengthType 0: each frame has its length. latmBufferFullness follows.
        if bits.take(3)? != 0 {
            return Some(Err(Refusal::Layout));
        }
        bits.skip(8)?;
        let other_bits = if bits.flag()? { other_bits(bits, is_version_1)? } else { 0 };
        // crcCheckPresent, and the checksum of the configuration.
        if bits.flag()? {
            bits.skip(8)?;
        }
        Some(Ok(Self { aac, frames, other_bits }))
    }

    /// AudioSpecificConfig. In version 0 only its contents say how long it is.
    fn read_aac(bits: &mut Bits<'_>, is_version_1: bool) -> Option<Result<AacConfig, u32>> {
        if !is_version_1 {
            let object_type = AacConfig::object_type(bits);
            return Some(AacConfig::read(bits).ok_or(object_type?));
        }
        let len = value(bits)?;
        let mut inside = *bits;
        bits.skip(len)?;
        let object_type = AacConfig::object_type(&inside)?;
        let mut aac = AacConfig::read(&mut inside).filter(|_| inside.position() <= bits.position());
        // ISO 14496-3, 1.6.2.1: an extension is looked for where at least 16 bits are left.
        if let Some(aac) = aac.as_mut().filter(|_| inside.position() + 16 <= bits.position()) {
            aac.read_extension(&mut inside);
        }
        Some(aac.ok_or(object_type))
    }
}

/// LatmGetValue: a number of one to four bytes.
fn value(bits: &mut Bits<'_>) -> Option<usize> {
    let bytes = bits.take(2)? + 1;
    let mut value = 0;
    for _ in 0..bytes {
        value = value << 8 | bits.take(8)? as usize;
    }
    Some(value)
}

/// otherDataLenBits
fn other_bits(bits: &mut Bits<'_>, is_version_1: bool) -> Option<usize> {
    if is_version_1 {
        return value(bits);
    }
    let mut len = 0_usize;
    loop {
        let is_continued = bits.flag()?;
        len = len.checked_mul(256)?.checked_add(bits.take(8)? as usize)?;
        if !is_continued {
            return Some(len);
        }
    }
}
