//! Segments that are fetched again at a higher level while they are buffered. [`Abr::replace`](crate::abr::Abr::replace)
//! chooses them; this module fetches them and puts them in place.
//!
//! The frames of the old segment stay until the new one has arrived as a whole. It replaces them only if it has the same
//! frames: as many, as long, at the same times. So whatever happens, nothing is missing and no time changes.

use std::time::{Duration, Instant};

use super::State;
use super::arriving::Requested;
use super::needs::needs_of;
use super::planned::Planned;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::replacements::{PlacedSegment, Replacement};
use crate::abr::{Buffered, Running, Snapshot};
use crate::error::Error;
use crate::source::hls::demux::Output;
use crate::source::hls::event::HlsEvent;
use crate::source::hls::timeline::{PlaylistPosition, TimedSegment};
use crate::types::Priority;

/// A segment that plays sooner than this is never replaced, whatever the application chooses: a decoder that reads ahead may take
/// its bytes at any time.
const SOON: Duration = Duration::from_secs(2);

/// While less than this is buffered, no replacement runs: the next segments need the network.
const LEAST: Duration = Duration::from_secs(5);

/// Segments of two levels whose borders are further apart than this are not cut alike.
const NEAR: Duration = Duration::from_millis(100);

/// Why a replacement that has arrived is not used.
enum Unusable {
    TooLate,
    /// It has other frames.
    Different,
}

impl State {
    /// Bytes of audio that were fetched and are not played.
    pub(crate) fn bytes_dropped(&self) -> u64 {
        self.replacements.bytes_dropped
    }

    /// A buffered segment to fetch again, if the network has throughput to spare.
    pub(super) fn plan_replacement(&mut self, now: Instant) -> Option<Planned> {
        let soon = self.reader_time() + SOON;
        self.replacements.placed.retain(|segment| segment.from >= soon);
        let replacements = &self.replacements;
        let is_low = self.buffered() < LEAST;
        if replacements.is_running() || replacements.is_impossible || is_low || self.has_parts() {
            return None;
        }
        // The level that the rule has just chosen can be used once its playlist is there.
        if self.pending_playlist.is_some() {
            return None;
        }
        let candidates: Vec<PlacedSegment> =
            replacements.placed.iter().filter(|segment| !segment.is_final).cloned().collect();
        let (target, level) = self.choose_replacement(now, &candidates)?;
        let id = target.id;
        let planned = self.plan_replacement_of(target, level, now);
        if planned.is_none() {
            // The rule would make the same choice whenever it is asked.
            self.replacements.keep(id);
        }
        planned
    }

    fn choose_replacement(
        &mut self,
        now: Instant,
        candidates: &[PlacedSegment],
    ) -> Option<(PlacedSegment, usize)> {
        let level_of = |segment: &PlacedSegment| self.ladder.variants[segment.variant].level;
        let reader = self.reader_time();
        let buffered: Vec<Buffered> = candidates
            .iter()
            .map(|segment| Buffered::new(segment.id, level_of(segment), segment.from.saturating_sub(reader)))
            .collect();
        let ahead = self.buffered();
        let current = Some(self.level());
        let snapshot = self.network.snapshot(&self.bitrates, self.target_duration(), &self.config);
        let is_starting = self.is_starting;
        let snapshot = Snapshot { current, buffered: ahead, is_starting, ..snapshot };
        let (index, level) =
            self.abr.ask("Abr::replace", |rule| rule.replace(now, &snapshot, &buffered))??;
        // What an application chooses may be anything.
        let level = self.best_level(level).min(self.levels().len() - 1);
        let target = candidates.get(index)?;
        let is_better = level > self.ladder.variants[target.variant].level;
        is_better.then(|| (target.clone(), level))
    }

    /// `None` if the playlist of the level is not there, or its segments are not cut like those that are buffered.
    fn plan_replacement_of(&mut self, target: PlacedSegment, level: usize, now: Instant) -> Option<Planned> {
        let variant = self.pick(level, now, |variant| variant.level == level)?;
        let timeline = self.timelines[variant].as_ref()?;
        // By its middle: the borders of two levels may differ by a rounding.
        let position =
            PlaylistPosition { sequence: timeline.sequence_at(target.start + target.duration / 2), part: 0 };
        let timed = timeline.segment_at(position)?;
        let TimedSegment { segment, start, .. } = &timed;
        let is_alike = start.abs_diff(target.start) <= NEAR
            && segment.duration.abs_diff(target.duration) <= NEAR
            && segment.discontinuity_sequence == target.discontinuity;
        if !is_alike || segment.is_gap {
            return None;
        }
        let needs = needs_of(segment, position.sequence, &timeline.url, self.policy).ok()?;
        if needs.resources().any(|key| self.resources.ready(&key).is_none()) {
            return None;
        }
        let url = self.policy.resolve(&timeline.url, segment.uri.expose()).ok()?;
        let list = self.ladder.variants[variant].url.clone();
        let range = segment.byte_range;
        let mut queued = QueuedSegment::new(self.next_id, variant, position, timed, SegmentPhase::Fetching);
        queued.needs = needs.clone();
        queued.requested = Some(Requested::new(now, self.patience(queued.segment.duration)));
        let id = queued.id;
        self.next_id += 1;
        self.replacements.running = Some(Replacement { queued, target });
        Some(Planned::Segment { id, url, range, needs: Box::new(needs), list, priority: Priority::Low })
    }

    /// Whether the replacement that is arriving will be there in time.
    pub(super) fn keeps_replacing(&mut self, now: Instant, running: &Running) -> bool {
        let reader = self.reader_time();
        let Some(replacement) = &self.replacements.running else { return false };
        let starts_in = replacement.target.from.saturating_sub(reader);
        let keeps =
            self.abr.ask("Abr::keeps_replacing", |rule| rule.keeps_replacing(now, running, starts_in));
        let keeps = keeps.unwrap_or(false);
        if !keeps {
            self.give_up_replacement();
        }
        keeps
    }

    /// Drops the replacement once its segment plays soon, or the buffer is low. Its fetch ends when its next bytes arrive.
    pub(super) fn drop_late_replacement(&mut self) {
        let Some(replacement) = &self.replacements.running else { return };
        let is_late = replacement.target.from < self.reader_time() + SOON;
        if is_late || self.buffered() < LEAST {
            self.give_up_replacement();
        }
    }

    /// Drops the replacement if it is this segment, whose fetch has failed. False if it is another one.
    pub(super) fn fail_replacement(&mut self, id: u64, error: &Error) -> bool {
        let is_replacement = self.replacements.is(id);
        if is_replacement {
            log::debug!("a buffered segment could not be replaced: {error}");
            self.give_up_replacement();
        }
        is_replacement
    }

    fn give_up_replacement(&mut self) {
        if let Some(Replacement { queued, target }) = self.replacements.running.take() {
            self.replacements.bytes_dropped += queued.output.data.len() as u64;
            // Once: it would fail again, or be late again.
            self.replacements.keep(target.id);
        }
    }

    /// The replacement has arrived.
    pub(super) fn finish_replacement(&mut self) {
        let Some(Replacement { queued, target }) = self.replacements.running.take() else { return };
        let levels = &self.ladder.variants;
        let (from, to, at) = (levels[target.variant].level, levels[queued.variant].level, target.start);
        match self.put_in_place(&queued, &target) {
            Ok(old) => {
                self.replacements.bytes_dropped += old as u64;
                let placed = self.replacements.placed_mut(target.id);
                placed.into_iter().for_each(|segment| segment.variant = queued.variant);
                self.abr.ask("Abr::handle_replaced", |rule| rule.handle_replaced(target.id));
                self.events.push(HlsEvent::Replaced { from, to, at });
                self.limit_kept();
            }
            Err(why) => {
                self.replacements.bytes_dropped += queued.output.data.len() as u64;
                self.replacements.keep(target.id);
                self.replacements.is_impossible |= matches!(why, Unusable::Different);
            }
        }
    }

    /// Returns the length of what was replaced.
    fn put_in_place(&mut self, queued: &QueuedSegment, target: &PlacedSegment) -> Result<usize, Unusable> {
        let Output { data, frames, head, tail, .. } = &queued.output;
        if target.from < self.reader_time() + SOON {
            return Err(Unusable::TooLate);
        }
        let section = self.sections.buffers.iter_mut().find(|section| section.id == target.section);
        let section = section.ok_or(Unusable::TooLate)?;
        let first = frames.first().ok_or(Unusable::Different)?;
        // A frame that the border cuts has its other half in a neighbour, which stays.
        let is_shared = !head.is_empty() || !tail.is_empty() || !queued.tail.is_empty();
        if is_shared || frames.iter().any(|frame| frame.format != section.format) {
            return Err(Unusable::Different);
        }
        if let Some(media) = first.time {
            // Without a reference, as after a new discontinuity, its place can't be checked.
            let time =
                self.clock.time_of(media, target.start, target.discontinuity).ok_or(Unusable::TooLate)?;
            // Half a frame: the times of two encodings differ by roundings.
            if time.abs_diff(target.from) > first.duration / 2 {
                return Err(Unusable::Different);
            }
        }
        let level = self.ladder.variants[queued.variant].level;
        section.replace((target.from, target.to), level, frames, data).ok_or(Unusable::Different)
    }
}
