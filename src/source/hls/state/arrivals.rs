//! What segments bring, and what happens when they can't be had.

use std::time::{Duration, Instant};

use super::State;
use super::slot::SlotPhase;
use crate::error::Error;
use crate::source::hls::demux::Output;
use crate::source::hls::event::HlsEvent;
use crate::types::RequestId;

/// How long a level that failed is not used (Media3 excludes tracks for as long).
pub(super) const EXCLUSION: Duration = Duration::from_secs(60);

/// Segments that are skipped one after the other, before the error is returned to the reader.
const MOST_SKIPPED: u32 = 3;

/// How often a playlist is loaded again because of one segment: a URL may expire again before it is used.
const MOST_RELOADS: u32 = 3;

impl State {
    pub(in super::super) fn handle_accepted(&mut self, slot: u64, request: RequestId) {
        if let Some(slot) = self.slot(slot) {
            slot.request = Some(request);
        }
    }

    /// Takes frames of a segment. Leaves `output` empty. False if the segment is not needed any more.
    pub(in super::super) fn handle_frames(&mut self, slot: u64, output: &mut Output) -> bool {
        let slot = self.slot(slot);
        let is_needed = slot.is_some();
        if let Some(slot) = slot {
            slot.output.data.append(&mut output.data);
            slot.output.frames.append(&mut output.frames);
            slot.output.head.append(&mut output.head);
            slot.tail.append(&mut output.tail);
        }
        output.clear();
        self.commit();
        is_needed
    }

    /// All frames of a segment have come.
    pub(in super::super) fn handle_segment_complete(&mut self, slot: u64) {
        if let Some(slot) = self.slot(slot) {
            slot.phase = SlotPhase::Complete;
        }
        self.skipped = 0;
        self.commit();
    }

    /// A transfer has ended.
    pub(in super::super) fn handle_transfer(&mut self, bytes: u64, duration: Duration, ttfb: Duration) {
        self.estimator.handle_transfer(bytes, duration, ttfb);
    }

    /// A segment can't be fetched or read. In this order: its playlist is loaded again, because URLs expire; another level is
    /// used from here on; the segment is skipped. An error of the network stops fetching until a call has returned it.
    pub(in super::super) fn handle_segment_failed(&mut self, slot: u64, error: Error, now: Instant) {
        let requested = self.requested;
        let Some(slot) = self.slot(slot) else { return };
        (slot.request, slot.parked) = (None, None);
        slot.output.clear();
        slot.tail.clear();
        let (start, level) = (slot.start, slot.level);
        if error.is_cancelled() || (error.is_retryable() && error.status().is_none()) {
            slot.phase = SlotPhase::Planned;
            self.error.get_or_insert(error);
            return;
        }
        let is_expired = matches!(error.status(), Some(401 | 403 | 404 | 410));
        if is_expired && slot.reloads < MOST_RELOADS {
            slot.reloads += 1;
            slot.requested_before = requested;
            slot.phase = SlotPhase::Reloading;
            return;
        }
        self.levels[level].excluded_until = now.checked_add(EXCLUSION);
        if let Some(other) = self.nearest_usable(level, now) {
            self.restart_at(start, other);
            return;
        }
        self.skip(start, error);
    }

    /// Drops the slots from `start` on, and continues there with another level.
    pub(in super::super) fn restart_at(&mut self, start: Duration, level: usize) {
        self.slots.retain(|slot| slot.start < start);
        self.cursor = start;
        self.follows = self.slots.back().map(|slot| (slot.level, slot.next));
        if self.timelines[level].is_some() {
            self.switch(level);
        } else {
            self.wanted = Some((level, false));
        }
    }

    /// Fetches another level from the next slot on.
    pub(in super::super) fn switch(&mut self, to: usize) {
        let from = std::mem::replace(&mut self.level, to);
        if from != to {
            self.events.push(HlsEvent::Switched { from, to, at: self.cursor });
        }
    }

    pub(in super::super) fn skip(&mut self, start: Duration, error: Error) {
        self.skipped += 1;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.start == start) {
            slot.phase = SlotPhase::Skipped;
            let duration = slot.segment.duration;
            self.events.push(HlsEvent::Skipped { at: start, duration, error: error.clone() });
        }
        if self.skipped > MOST_SKIPPED {
            self.skipped = 0;
            self.error.get_or_insert(error);
        }
        self.commit();
    }
}
