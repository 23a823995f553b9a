//! Segments that have arrived are kept, whether they were played or not: a seek to one of them requests nothing. They get a part of the
//! memory that the buffer leaves of [`HlsConfig::buffer_bytes`](crate::hls::HlsConfig::buffer_bytes).

use std::ops::Range;
use std::time::{Duration, Instant};

use super::State;
use super::kept_segments::{KeptSegment, Place, output_memory};
use super::queued_segment::{QueuedSegment, SegmentPhase};
use crate::source::hls::config::Quality;
use crate::source::hls::ladder::levels::VariantStream;
use crate::source::hls::timeline::TimedSegment;

/// At most this fraction of [`HlsConfig::buffer_bytes`](crate::hls::HlsConfig::buffer_bytes) is kept: by default a fourth of 64
/// MiB, which is a quarter of an hour at 128 kbit/s, and which a program with many streams can bear.
const KEPT_PART: usize = 4;

impl State {
    /// Keeps a segment that has arrived as a whole.
    pub(super) fn keep_segment(&mut self, id: u64) {
        let Some(queued) = self.queued(id) else { return };
        let Some(mut output) = queued.copy.take().filter(|copy| !copy.frames.is_empty()) else { return };
        output.shrink();
        let (place, segment) = (place_of(queued), queued.segment.clone());
        self.kept.insert(place, KeptSegment { segment, output });
    }

    /// Gives a segment what is kept of it. False if that is nothing.
    pub(super) fn fill(&self, queued: &mut QueuedSegment) -> bool {
        let Some(output) = self.kept.get(place_of(queued), &queued.segment) else { return false };
        queued.copy = None;
        queued.take(&mut output.clone());
        queued.phase = SegmentPhase::Complete;
        true
    }

    /// A variant of which the next segment is kept, if that may be played in the place of one of `chosen`: one of the same level, or of a
    /// better one that the user allows, if the level was chosen for the network.
    pub(super) fn kept_variant(&self, chosen: usize, now: Instant) -> Option<usize> {
        let wanted = self.ladder.variants[chosen].level;
        let highest = match &self.config.quality {
            quality @ Quality::Auto(_) => *quality.allowed_levels(self.bitrates.named()).end(),
            Quality::Fixed(_) | Quality::Custom(_) => wanted,
        };
        let may_play = |variant: &VariantStream| {
            variant.rendition == self.rendition && (wanted..=highest.max(wanted)).contains(&variant.level)
        };
        let variants = self.ladder.variants.iter().enumerate().filter(|(_, variant)| may_play(variant));
        let kept = variants.filter(|(index, _)| self.is_loaded(*index, now) && self.is_next_kept(*index));
        let nearest = kept.min_by_key(|(index, variant)| (variant.level, *index != chosen, *index));
        nearest.map(|(index, _)| index)
    }

    fn is_next_kept(&self, variant: usize) -> bool {
        let timed = |position| Some((position, self.timelines[variant].as_ref()?.segment_at(position)?));
        let next = self.position_in(variant).and_then(timed);
        next.is_some_and(|(position, TimedSegment { segment, start, .. })| {
            self.kept.get(Place { start, variant, position }, &segment).is_some()
        })
    }

    /// Continues after a seek with what is kept. The downloader would do it too, but only once a worker is free.
    pub(crate) fn continue_with_kept(&mut self, now: Instant) {
        let is_empty = self.queue.is_empty() && self.sections.buffers.is_empty();
        if is_empty && !self.kept.segments.is_empty() && self.is_confirmed() && !self.has_stopped() {
            self.extend(now);
        }
    }

    /// Drops segments as far as `room` bytes are too few for them, and those that have left a live playlist.
    pub(super) fn limit_segments(&mut self, room: usize) {
        let mut room = room.min(self.config.buffer_bytes / KEPT_PART);
        // Nothing is sought any more once the presentation is gone.
        if self.sections.handed == u64::MAX {
            room = 0;
        }
        // Those that arrive are ahead of the reader, and not whole: there is nothing to drop of them but all.
        let arriving = || self.queue.iter().chain(self.replacements.queued());
        let arriving: usize = arriving().filter_map(|queued| queued.copy.as_ref()).map(output_memory).sum();
        if arriving > room {
            let queued = self.queue.iter_mut().chain(self.replacements.queued_mut());
            queued.for_each(|queued| queued.copy = None);
        }
        if self.is_live() {
            self.kept.forget_before(self.seekable().start);
        }
        self.kept.limit(room.saturating_sub(arriving), self.reader_time());
    }

    /// Presentation times of what is kept and may be played at the level that the user wants.
    pub(super) fn kept_ranges(&self) -> impl Iterator<Item = Range<Duration>> {
        let fixed = self.fixed_level();
        let may_play = move |variant: &VariantStream| {
            variant.rendition == self.rendition && fixed.is_none_or(|level| variant.level == level)
        };
        let kept = self.kept.segments.iter();
        kept.filter(move |(place, _)| may_play(&self.ladder.variants[place.variant]))
            .map(|(place, kept)| place.start..place.start.saturating_add(kept.segment.duration))
    }
}

fn place_of(queued: &QueuedSegment) -> Place {
    Place { start: queued.start, variant: queued.variant, position: queued.position }
}
