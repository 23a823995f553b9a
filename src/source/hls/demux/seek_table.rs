//! Tables for seeking that encoders of MP3 write in place of a first frame (Xing, Info, VBRI), and what LAME adds to them: how much
//! of the decoded audio is the encoder's.

use std::time::Duration;

use super::frame::{Gapless, nanoseconds};

/// Samples that every decoder of layer 3 adds at the beginning: 528 of its filter bank, and one (LAME's technical FAQ).
const DECODER_DELAY: u32 = 529;

/// A frame of layer 3 that holds a table for seeking instead of audio. A decoder takes its figures for those of everything that
/// follows, and drops audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SeekTable {
    /// Frames of audio behind it.
    frames: Option<u32>,
    /// Samples that the encoder has added at the beginning and at the end.
    added: Option<(u32, u32)>,
}

impl SeekTable {
    /// `None` for a frame of audio.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let (version, mode) = (frame.get(1)?, frame.get(3)?);
        // The table begins behind the side information of layer 3: 32, 17 or 9 bytes, by version and number of channels (ISO
        // 11172-3 and 13818-3).
        let side = match (version >> 3 & 3 == 3, mode >> 6 == 3) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        };
        let tag = |at: usize| frame.get(at..at + 4);
        if matches!(tag(4 + side), Some(b"Xing" | b"Info")) {
            return Some(Self::parse_xing(&frame[8 + side..]));
        }
        // VBRI lies 32 bytes behind the header, whatever the side information is.
        (tag(36) == Some(b"VBRI")).then(Self::default)
    }

    /// Reads what follows the name.
    fn parse_xing(table: &[u8]) -> Self {
        let number = |at: usize, len: usize| {
            let bytes = table.get(at..at + len)?;
            Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
        };
        let flags = number(0, 4).unwrap_or_default();
        let frames = number(4, 4).filter(|_| flags & 1 != 0);
        // Up to four fields come before LAME's extension, each if its bit is set: the numbers of frames and of bytes, a
        // table, and the quality.
        let fields = [(1, 4), (2, 4), (4, 100), (8, 4)];
        let behind: usize = fields.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, len)| len).sum();
        // LAME's extension: 21 bytes with its name and settings, then two numbers of 12 bits.
        let extension = 4 + behind;
        let is_lame =
            table.get(extension..).is_some_and(|name| name.starts_with(b"LAME") || name.starts_with(b"Lav"));
        let added = number(extension + 21, 3).filter(|added| is_lame && *added > 0);
        Self { frames, added: added.map(|added| (added >> 12, added & 0xfff)) }
    }

    /// What the encoder has added, if LAME's extension says so.
    pub(super) fn gapless(self, rate: u32) -> Option<Gapless> {
        let (before, behind) = self.added?;
        let time = |samples: u32| Duration::from_nanos(nanoseconds(samples.into(), rate));
        Some(Gapless {
            delay: time(before + DECODER_DELAY),
            padding: time(behind.saturating_sub(DECODER_DELAY)),
            frames: self.frames.unwrap_or_default().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of MPEG-1, stereo, with an Info table of 44 frames.
    fn frame(encoder: &[u8; 9], added: u32) -> Vec<u8> {
        let mut frame = vec![0xff, 0xfb, 0x90, 0x64];
        frame.resize(36, 0);
        frame.extend(b"Info\0\0\0\x0f");
        frame.extend(44_u32.to_be_bytes());
        frame.resize(frame.len() + 108, 0);
        frame.extend(encoder);
        frame.resize(frame.len() + 12, 0);
        frame.extend(&added.to_be_bytes()[1..]);
        frame.resize(417, 0);
        frame
    }

    #[test]
    fn lame_says_what_it_has_added() {
        let table = SeekTable::parse(&frame(b"Lavc59.37", 576 << 12 | 1578)).unwrap();
        let of = |samples: u64| Duration::from_nanos(nanoseconds(samples, 44_100));
        assert_eq!(table.gapless(44_100), Some(Gapless { delay: of(1105), padding: of(1049), frames: 44 }));
        // Nothing is known: another encoder, no figures, and every end of the frame.
        for frame in [frame(b"Gogo\0\0\0\0\0", 5), frame(b"LAME3.100", 0)] {
            assert_eq!(SeekTable::parse(&frame).unwrap().gapless(44_100), None);
        }
        let whole = frame(b"LAME3.100", 576 << 12 | 1578);
        for len in 0..whole.len() {
            let table = SeekTable::parse(&whole[..len]);
            assert_eq!(table.is_some(), len >= 40, "{len}");
        }
        assert_eq!(SeekTable::parse(&[0xff, 0xfb, 0x90, 0x64, 0, 0]), None);
    }
}
