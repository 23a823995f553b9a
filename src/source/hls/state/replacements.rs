//! Which buffered segments can be replaced, and the replacement that is being fetched.

use std::collections::VecDeque;
use std::time::Duration;

use super::queued_segment::QueuedSegment;

#[derive(Debug, Default)]
pub(super) struct Replacements {
    /// Segments that are whole in their section, in the order of playing.
    pub(super) placed: VecDeque<PlacedSegment>,
    /// The segment whose frames are being placed.
    placing: Option<Placing>,
    pub(super) running: Option<Replacement>,
    /// The levels are not cut alike: no segment can be replaced.
    pub(super) is_impossible: bool,
    /// Bytes of audio that were fetched and are not played.
    pub(super) bytes_dropped: u64,
}

/// A segment in a section.
#[derive(Clone, Debug)]
pub(super) struct PlacedSegment {
    /// As it was queued.
    pub(super) id: u64,
    pub(super) section: u64,
    /// Presentation times of its first frame, and of the end of its last one.
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// As its playlist has them.
    pub(super) start: Duration,
    pub(super) duration: Duration,
    pub(super) discontinuity: u64,
    pub(super) variant: usize,
    /// It could not be replaced before.
    pub(super) is_final: bool,
}

#[derive(Debug)]
struct Placing {
    id: u64,
    section: Option<u64>,
    from: Duration,
    to: Duration,
    /// All of its frames are in one section, and none is shared with another segment.
    is_whole: bool,
}

#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) queued: QueuedSegment,
    pub(super) target: PlacedSegment,
}

impl Replacements {
    pub(super) fn queued(&self) -> Option<&QueuedSegment> {
        self.running.as_ref().map(|running| &running.queued)
    }

    pub(super) fn queued_mut(&mut self) -> Option<&mut QueuedSegment> {
        self.running.as_mut().map(|running| &mut running.queued)
    }

    pub(super) fn is(&self, id: u64) -> bool {
        self.queued().is_some_and(|own| own.id == id)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn memory(&self) -> usize {
        self.queued().map_or(0, QueuedSegment::memory)
    }

    /// Forgets what was buffered.
    pub(super) fn clear(&mut self) {
        self.bytes_dropped += self.queued().map_or(0, |queued| queued.output.data.len() as u64);
        (self.placing, self.running) = (None, None);
        self.placed.clear();
    }

    /// Sections from `first` on have other numbers, greater by `shift`. Those before are gone.
    pub(super) fn renumber_sections(&mut self, first: u64, shift: u64) {
        self.placed.retain(|segment| segment.section >= first);
        let running = self.running.iter_mut().map(|running| &mut running.target.section);
        let placing = self.placing.iter_mut().filter_map(|placing| placing.section.as_mut());
        let placed = self.placed.iter_mut().map(|segment| &mut segment.section);
        // One that is gone has a smaller number than any other, so it stays unknown.
        for section in placed.chain(running).chain(placing).filter(|section| **section >= first) {
            *section += shift;
        }
    }

    /// A frame of a segment was put into a section.
    pub(super) fn handle_frame(&mut self, id: u64, section: u64, from: Duration, to: Duration) {
        let placing = self.placing(id);
        if placing.section.is_none() {
            (placing.section, placing.from) = (Some(section), from);
        }
        placing.is_whole &= placing.section == Some(section);
        placing.to = to;
    }

    /// A frame of a segment was left out, or is shared with another segment.
    pub(super) fn handle_cut(&mut self, id: u64) {
        self.placing(id).is_whole = false;
    }

    fn placing(&mut self, id: u64) -> &mut Placing {
        let known = self.placing.take().filter(|placing| placing.id == id);
        let (from, to) = (Duration::ZERO, Duration::ZERO);
        self.placing.insert(known.unwrap_or(Placing { id, section: None, from, to, is_whole: true }))
    }

    /// All frames of a segment were placed.
    pub(super) fn handle_placed(&mut self, queued: &QueuedSegment) {
        let placing = self.placing.take().filter(|placing| placing.id == queued.id);
        // A tail is the beginning of a frame that the next segment ends.
        let Some(placing) = placing.filter(|placing| placing.is_whole && queued.tail.is_empty()) else {
            return;
        };
        let Some(section) = placing.section else { return };
        self.placed.push_back(PlacedSegment {
            id: queued.id,
            section,
            from: placing.from,
            to: placing.to,
            start: queued.start,
            duration: queued.segment.duration,
            discontinuity: queued.segment.discontinuity_sequence,
            variant: queued.variant,
            is_final: false,
        });
    }

    /// The segment with this number, if it can still be replaced.
    pub(super) fn placed_mut(&mut self, id: u64) -> Option<&mut PlacedSegment> {
        self.placed.iter_mut().find(|segment| segment.id == id)
    }

    /// Notes that this segment is not replaced.
    pub(super) fn keep(&mut self, id: u64) {
        self.placed_mut(id).into_iter().for_each(|segment| segment.is_final = true);
    }
}
