//! A presentation that was opened from the cache, until its playlists have come from the network.

use std::time::Instant;

use super::State;
use super::needs::ResourceKey;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::unconfirmed::{Confirmation, Unconfirmed};
use crate::error::{Error, ErrorKind};

impl State {
    pub(crate) fn set_unconfirmed(&mut self, unconfirmed: Unconfirmed) {
        self.unconfirmed = Some(unconfirmed);
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

    /// A segment is not stored. It is planned again once its playlist has come.
    pub(crate) fn handle_segment_missing(&mut self, id: u64) {
        if let Some(queued) = self.queued(id) {
            queued.phase = SegmentPhase::Reloading;
        }
        self.make_due();
    }

    /// A key or an initialization section is not stored. What needs it is planned again once its playlist has come, which may
    /// have another URL for it.
    pub(crate) fn handle_resource_missing(&mut self, key: &ResourceKey) {
        self.resources.remove(key);
        let needs = |queued: &&QueuedSegment| queued.needs.resources().any(|need| need == *key);
        let missing: Vec<u64> = self.queue.iter().filter(needs).map(|queued| queued.id).collect();
        for id in missing {
            if let Some(queued) = self.plan_again(id) {
                queued.phase = SegmentPhase::Reloading;
            }
        }
        self.make_due();
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
            }
            Confirmation::Changed(error) => {
                // Frames of the old version must not be played beside those of the new one.
                self.queue.clear();
                self.sections.buffers.clear();
                self.outdated = Some(error);
            }
        }
    }

    /// A playlist has not come. What is stored is played on; what is missing is an error.
    pub(crate) fn handle_unconfirmed(&mut self, error: Error, now: Instant) {
        let is_waiting = self.pending_playlist.is_some()
            || self.queue.iter().any(|queued| queued.phase == SegmentPhase::Reloading);
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        unconfirmed.is_running = false;
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
