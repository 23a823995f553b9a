//! A presentation that was opened from the cache, until its playlists have come from the network.

use std::time::Instant;

use super::State;
use super::needs::{Needs, ResourceKey};
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::unconfirmed::{Confirmation, Unconfirmed};
use crate::error::{Error, ErrorKind};
use crate::source::hls::config::Quality;

impl State {
    pub(crate) fn set_unconfirmed(&mut self, mut unconfirmed: Unconfirmed) {
        let last = self.bitrates.len() - 1;
        if matches!(self.config.quality, Quality::Fixed(level) if level.min(last) != self.level()) {
            (unconfirmed.is_held, unconfirmed.is_due) = (true, true);
        }
        self.unconfirmed = Some(unconfirmed);
    }

    /// True while nothing stored is played, because it is not of the level that the user has fixed.
    pub(super) fn is_held(&self) -> bool {
        self.unconfirmed.as_ref().is_some_and(|unconfirmed| unconfirmed.is_held)
    }

    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// The next playlist that has to be confirmed: `None` is the one that the caller has opened.
    pub(super) fn poll_confirmation(&mut self) -> Option<Option<usize>> {
        // Another playlist has come into view, by a choice of the user.
        let is_wanted = self.pending_playlist.is_some();
        let unconfirmed = self.unconfirmed.as_mut().filter(|unconfirmed| !unconfirmed.is_running)?;
        if !unconfirmed.is_due && !is_wanted {
            return None;
        }
        unconfirmed.is_running = true;
        Some(unconfirmed.has_ladder.then_some(self.variant))
    }

    /// A segment is not stored. True if it must not be requested by the URL that it was planned with, which a stored playlist has:
    /// it is planned again once its playlist has come. That may have happened since it was planned.
    pub(crate) fn handle_segment_missing(&mut self, id: u64) -> bool {
        let is_unconfirmed = self.is_unconfirmed();
        let Some(queued) = self.queued(id) else { return is_unconfirmed };
        if is_unconfirmed {
            queued.phase = SegmentPhase::Reloading;
            self.make_due();
            return true;
        }
        let is_renewed = queued.is_renewed;
        if is_renewed {
            self.plan_again(id);
        }
        is_renewed
    }

    /// A key or an initialization section is not stored. As for a segment, true if it must not be requested by its URL: the playlist
    /// may have another one for it.
    pub(crate) fn handle_resource_missing(&mut self, key: &ResourceKey) -> bool {
        let is_unconfirmed = self.is_unconfirmed();
        let needs = |queued: &&QueuedSegment| queued.needs.resources().any(|need| need == *key);
        if !is_unconfirmed && self.queue.iter().filter(needs).any(|queued| !queued.is_renewed) {
            return false;
        }
        let waiting: Vec<u64> = self.queue.iter().filter(needs).map(|queued| queued.id).collect();
        self.resources.remove(key);
        for id in waiting {
            if let Some(queued) = self.plan_again(id).filter(|_| is_unconfirmed) {
                queued.phase = SegmentPhase::Reloading;
            }
        }
        self.make_due();
        true
    }

    fn make_due(&mut self) {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.is_due = true;
        }
    }

    /// A playlist has come from the network.
    pub(crate) fn handle_confirmation(&mut self, confirmation: Confirmation) {
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        unconfirmed.is_running = false;
        match confirmation {
            Confirmation::Multivariant(ladder) => {
                unconfirmed.has_ladder = true;
                unconfirmed.is_due = true;
                self.ladder.take_urls(&ladder);
            }
            Confirmation::Media(list, url) => {
                self.unconfirmed = None;
                self.handle_playlist(self.variant, *list, url);
                self.renew_segments();
            }
            Confirmation::Changed(error) => {
                // Frames of the old version must not be played beside those of the new one.
                self.queue.clear();
                self.sections.buffers.clear();
                self.outdated = Some(error);
            }
        }
    }

    /// Gives the segments that were planned before the URLs of the playlist that has come.
    fn renew_segments(&mut self) {
        let Some(timeline) = &self.timelines[self.variant] else { return };
        for queued in self.queue.iter_mut().filter(|queued| queued.variant == self.variant) {
            let Some(timed) = timeline.segment_at(queued.position) else { continue };
            match queued.phase {
                SegmentPhase::Planned => (queued.segment, queued.needs) = (timed.segment, Needs::default()),
                SegmentPhase::Fetching => (queued.segment, queued.is_renewed) = (timed.segment, true),
                SegmentPhase::Reloading | SegmentPhase::Complete | SegmentPhase::Skipped => {}
            }
        }
    }

    /// A playlist has not come. What is stored is played on; what is missing is an error.
    pub(crate) fn handle_unconfirmed(&mut self, error: Error, now: Instant) {
        let is_missing = self.queue.iter().any(|queued| queued.phase == SegmentPhase::Reloading);
        if !is_missing && self.can_continue() {
            // A level that the user has chosen is not stored: the one in use is.
            self.pending_playlist = None;
        }
        let is_waiting = is_missing || self.pending_playlist.is_some();
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        (unconfirmed.is_running, unconfirmed.is_held) = (false, false);
        if is_waiting {
            let why = "what is missing in the cache can't be loaded";
            self.pause(Error::new(ErrorKind::NotCached, why).with_cause(error), now, true);
        } else {
            log::debug!("the presentation is played from the cache, unconfirmed: {error}");
            // As for a file: a stale one is asked for once.
            unconfirmed.is_due = false;
        }
    }
}
