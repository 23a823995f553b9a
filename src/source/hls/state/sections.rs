//! The sections that readers have, or will have.

use std::collections::VecDeque;
use std::time::Duration;

use super::section::{Discontinuity, KEPT, SectionBuffer};
use crate::source::hls::timeline::PlaylistPosition;

/// The beginning of a frame that ends in the segment at this position of this variant.
pub(super) type CarriedFrame = (usize, PlaylistPosition, Vec<u8>);

/// Where a segment begins in a section.
#[derive(Debug)]
pub(super) struct SegmentBegin {
    /// Presentation time of its first frame.
    pub(super) time: Duration,
    /// Where it starts in its playlist.
    pub(super) start: Duration,
    /// The beginning of a frame of the segment before, if this one does not continue it.
    pub(super) unjoined: Option<CarriedFrame>,
}

#[derive(Debug)]
pub(super) struct Sections {
    /// Those that were not read to their ends, oldest first. The last one that was read stays, for the times of its bytes.
    pub(super) buffers: VecDeque<SectionBuffer>,
    /// Presentation times of the segments of which frames were placed, and their starts in the playlist. Those that no seek back can
    /// reach are removed.
    pub(super) begins: VecDeque<SegmentBegin>,
    /// The beginning of a frame of the last segment, which the next one does not continue.
    pub(super) unjoined: Option<CarriedFrame>,
    /// Number of the next one. No number that a reader has is given again.
    pub(super) next_id: u64,
    /// The next section to hand out.
    pub(super) handed: u64,
    /// Why the next frame that is placed begins a section.
    pub(super) next_discontinuity: Option<Discontinuity>,
    /// Target of the last seek.
    pub(super) target: Duration,
    /// Where the segment of the last frame that was placed starts in the playlist: after a failure, and at another level, it is the same.
    pub(super) placed: Option<Duration>,
    /// The segments before the first one that was fetched for `target` were considered, too.
    pub(super) has_landed: bool,
    /// Presentation time of the next byte to be read.
    pub(super) reader_time: Duration,
    /// Level of the audio that was read last. `None` if there was none since the start, or of this rendition.
    pub(super) level: Option<usize>,
    /// A reader has come to the end of the presentation, and has not sought since.
    pub(super) is_end_read: bool,
    /// Bytes that readers have read, of all sections.
    pub(super) bytes_read: u64,
}

impl Sections {
    /// Nothing is there yet. Playing starts at `start`.
    pub(super) fn new(start: Duration) -> Self {
        Self {
            buffers: VecDeque::new(),
            begins: VecDeque::new(),
            unjoined: None,
            next_id: 0,
            handed: 0,
            next_discontinuity: Some(Discontinuity::Start),
            target: start,
            placed: None,
            has_landed: false,
            reader_time: start,
            level: None,
            is_end_read: false,
            bytes_read: 0,
        }
    }

    /// The frame at `time` is the first one of the segment at `start`.
    pub(super) fn begin_segment(&mut self, time: Duration, start: Duration) {
        let kept = self.reader_time.saturating_sub(KEPT);
        while self.begins.front().is_some_and(|begin| begin.time < kept) {
            self.begins.pop_front();
        }
        self.begins.push_back(SegmentBegin { time, start, unjoined: self.unjoined.take() });
    }
}
