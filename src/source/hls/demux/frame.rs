//! What a demuxer finds: frames, their times, and what a decoder has to know of them.

use std::sync::Arc;
use std::time::Duration;

use crate::media::AudioCodec;

/// A timestamp of the media, in nanoseconds. Only differences have a meaning: where 0 lies is up to the muxer.
pub type MediaTime = i64;

/// What a decoder has to know before the first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Format {
    /// The codec.
    pub codec: AudioCodec,
    /// Samples per second of the core codec.
    pub sample_rate: u32,
    /// Channels of the core codec. 0 if only the frames contain the number.
    pub channels: u16,
    /// What precedes the first frame: for FLAC `fLaC` and the STREAMINFO block, for Opus the header pages of Ogg,
    /// for ALAC the beginning of a Matroska file.
    pub head: Option<Arc<[u8]>>,
}

/// One frame of audio. Its bytes follow those of the frame before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// When it begins. `None` if the segment has no time for it, or preceding packets were lost.
    pub time: Option<MediaTime>,
    /// How long it plays.
    pub duration: Duration,
    /// Bytes.
    pub len: usize,
    /// What it is.
    pub format: Format,
}

/// What an encoder has added to the audio that begins with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gapless {
    /// How much of the first decoded audio precedes that of the source.
    pub delay: Duration,
    /// How much of the last decoded audio follows that of the source.
    pub padding: Duration,
    /// Frames of all the audio. 0 if that is not known, and so where the padding lies.
    pub frames: u64,
}

/// Frames that a demuxer has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The bytes of all frames, concatenated.
    pub data: Vec<u8>,
    /// What the frames are.
    pub frames: Vec<Frame>,
    /// Bytes before the first frame of the segment: the end of a frame that begins in the segment before, if that was cut
    /// inside of a frame.
    pub head: Vec<u8>,
    /// The beginning of a frame whose rest is in the next segment.
    pub tail: Vec<u8>,
    /// What the encoder has added to the audio that begins here, if the segment says so in another way than by times before 0.
    pub gapless: Option<Gapless>,
    /// How much of the last decoded audio the encoder has added. Known at the end of the segment.
    pub padding: Duration,
}

impl Output {
    /// Forgets all frames, and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.frames.clear();
        self.head.clear();
        self.tail.clear();
        (self.gapless, self.padding) = (None, Duration::ZERO);
    }

    /// Appends a copy of what `other` has.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.data.extend_from_slice(&other.data);
        self.frames.extend_from_slice(&other.frames);
        self.head.extend_from_slice(&other.head);
        self.tail.extend_from_slice(&other.tail);
        // The delay comes with the first frames and not again. The padding is known better with each call.
        (self.gapless, self.padding) = (self.gapless.or(other.gapless), other.padding);
    }

    /// Frees memory that is not used.
    pub(crate) fn shrink(&mut self) {
        self.data.shrink_to_fit();
        self.frames.shrink_to_fit();
        self.head.shrink_to_fit();
        self.tail.shrink_to_fit();
    }
}

pub(super) fn nanoseconds(samples: u64, rate: u32) -> u64 {
    // In 128 bits: 64 would overflow after four days at 48 kHz. A damaged header may have no rate.
    (u128::from(samples) * 1_000_000_000 / u128::from(rate.max(1))) as u64
}
