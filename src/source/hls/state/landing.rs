//! Where a seek lands. The target is looked for by the durations in the playlist, which may be wrong. The times in the media then show
//! that it is in a segment before.

use std::time::Duration;

use super::State;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::section::Discontinuity;
use crate::source::hls::timeline::PlaylistPosition;
use crate::source::hls::timeline::clock::Placement;

/// Segments that are fetched in addition, at most: a playlist whose durations are 0 would have all of them.
const MOST_EARLIER: usize = 4;

impl State {
    /// After a seek: if the first segment begins after the target, puts those before it in front of it. Once for each seek: without
    /// that, a segment that can't be had would be requested again and again.
    pub(super) fn land_earlier(&mut self) {
        let Some((late, start)) = self.lateness() else { return };
        self.sections.has_landed = true;
        // Until then nothing but playlists is requested, and without a server it would not come. Not made up for later: what has
        // arrived is read by then.
        if !self.is_confirmed() {
            return;
        }
        for _ in 0..MOST_EARLIER {
            let Some(earlier) = self.segment_before_first(start.saturating_sub(late)) else { return };
            self.queue.push_front(earlier);
        }
    }

    /// How much later than the target the first frame is, and the start of its segment in the playlist.
    fn lateness(&self) -> Option<(Duration, Duration)> {
        use Discontinuity::{Rendition, Seek, Start};
        let is_sought = matches!(self.sections.next_discontinuity, Some(Seek | Start | Rendition));
        let queued = self.queue.front().filter(|_| is_sought && !self.sections.has_landed)?;
        let first = queued.output.frames.first()?;
        let mut clock = self.clock.clone();
        clock.set_length(queued.segment.duration);
        let discontinuity = queued.segment.discontinuity_sequence;
        let Placement::At(time) = clock.place(queued.id, queued.start, discontinuity, first) else {
            return None;
        };
        let late = time.saturating_sub(self.sections.target);
        // Less than half a frame may come from rounded durations. That is not worth a request.
        (late > first.duration / 2).then_some((late, queued.start))
    }

    /// The segment before the first one, if that one starts after `target`.
    fn segment_before_first(&mut self, target: Duration) -> Option<QueuedSegment> {
        let first = self.queue.front().filter(|first| first.start > target && first.position.part == 0)?;
        let position = PlaylistPosition { sequence: first.position.sequence.checked_sub(1)?, part: 0 };
        let timed = self.timelines[first.variant].as_ref()?.segment_at(position)?;
        // Times of another discontinuity can't be compared.
        let is_near = timed.segment.discontinuity_sequence == first.segment.discontinuity_sequence;
        if !is_near || timed.segment.is_gap {
            return None;
        }
        self.next_id += 1;
        let (id, variant) = (self.next_id - 1, first.variant);
        let mut queued = QueuedSegment::new(id, variant, position, timed, SegmentPhase::Planned);
        self.fill(&mut queued);
        Some(queued)
    }
}
