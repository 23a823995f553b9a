//! The comment `iTunSMPB` of AAC: what its encoder has added to the audio.

use std::time::Duration;

use super::boxes::{boxes, find};
use super::frame::{Format, Gapless, nanoseconds};
use crate::media::AudioCodec;

/// Samples per frame of AAC.
const FRAME: u64 = 1024;

/// Samples that are believed to be added, at most. Encoders of AAC add about three frames at each end.
const MOST_ADDED: u64 = 1 << 14;

/// Rates up to this one may be those of the core of HE-AAC (ISO 14496-3, section 4.6.18: the output has twice the rate).
const FASTEST_CORE: u32 = 24_000;

/// A comment that encoders of AAC write: how many samples of the decoded audio are not of the source. No specification has it; what the
/// delay is stands in the QuickTime File Format, appendix G.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Smpb {
    pub(super) delay: u64,
    padding: u64,
    /// Samples of the source.
    samples: u64,
}

impl Smpb {
    /// Name of the comment.
    pub(super) const NAME: &[u8] = b"iTunSMPB";

    /// Reads hexadecimal numbers with spaces in between: one that is always 0, what was added at the beginning and at the end, the
    /// samples of the source, and others.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut numbers = text.split_ascii_whitespace().map(|number| u64::from_str_radix(number, 16).ok());
        let mut next = || numbers.next().flatten();
        next()?;
        let (delay, padding, samples) = (next()?, next()?, next()?);
        let is_plausible = delay < MOST_ADDED && padding < MOST_ADDED && samples > 0;
        // More samples than that have no time in nanoseconds.
        (is_plausible && samples < 1 << 48).then_some(Self { delay, padding, samples })
    }

    /// The comment among the metadata of a movie.
    pub(super) fn find(moov: &[u8]) -> Option<Self> {
        let meta = find(moov, &[b"udta", b"meta"])?;
        // QuickTime's box has no version and flags.
        let ilst =
            meta.get(4..).and_then(|meta| find(meta, &[b"ilst"])).or_else(|| find(meta, &[b"ilst"]))?;
        let mut comments = boxes(ilst).filter(|(kind, _)| kind == b"----");
        // Version and flags precede the name. The type and the locale precede the text.
        let (_, comment) = comments.find(|(_, comment)| {
            find(comment, &[b"name"]).and_then(|name| name.get(4..)) == Some(Self::NAME)
        })?;
        Self::parse(find(comment, &[b"data"])?.get(8..)?)
    }

    /// Whether the numbers count samples of this format.
    pub(super) fn is_of(self, format: &Format) -> bool {
        // Of HE-AAC some encoders count samples of the core and others those of the output, and nothing says which.
        format.codec == AudioCodec::Aac && format.sample_rate > FASTEST_CORE
    }

    /// End of the source's samples in the decoded ones.
    pub(super) fn end(self) -> u64 {
        self.delay + self.samples
    }

    pub(super) fn gapless(self, rate: u32) -> Gapless {
        let all = self.end() + self.padding;
        let time = |samples| Duration::from_nanos(nanoseconds(samples, rate));
        let frames = if all % FRAME == 0 { all / FRAME } else { 0 };
        Gapless { delay: time(self.delay), padding: time(self.padding), frames }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_of_an_encoder_says_what_it_has_added() {
        // 2112 + 1033 + 8,090,551 samples are 7904 frames.
        let text = b" 00000000 00000840 00000409 00000000007B73B7 00000000 00000000 00000000 00000000";
        let smpb = Smpb::parse(text).unwrap();
        assert_eq!((smpb.delay, smpb.end()), (2112, 2112 + 8_090_551));
        let gapless = smpb.gapless(44_100);
        let of = |samples: u64| Duration::from_nanos(nanoseconds(samples, 44_100));
        assert_eq!(gapless, Gapless { delay: of(2112), padding: of(1033), frames: 7904 });
        let other = Smpb::parse(b"0 840 408 7B73B7").unwrap().gapless(44_100);
        assert_eq!(other.frames, 0, "no whole number of frames");
        for text in [
            &b""[..],
            b"0 840",
            b"0 840 409",
            b"0 4000 0 1",
            b"0 0 4000 1",
            b"0 0 0 0",
            b"x 0 0 1",
            b"0 0 0 -1",
            b"\xff",
        ] {
            assert_eq!(Smpb::parse(text), None, "{text:?}");
        }
        assert_eq!(Smpb::parse(b"0 0 0 FFFFFFFFFFFFFFFF"), None);
    }

    #[test]
    fn samples_of_high_efficiency_are_not_counted() {
        let smpb = Smpb::parse(b"0 840 409 7B73B7").unwrap();
        let format = |codec, sample_rate| Format { codec, sample_rate, channels: 2, head: None };
        assert!(smpb.is_of(&format(AudioCodec::Aac, 44_100)));
        for other in [(AudioCodec::HeAac, 32_000), (AudioCodec::Aac, 22_050), (AudioCodec::Mp3, 44_100)] {
            assert!(!smpb.is_of(&format(other.0, other.1)), "{other:?}");
        }
    }
}
