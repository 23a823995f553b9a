//! A presentation that was opened from the cache, until its playlists have come from the network.

use std::ops::ControlFlow;
use std::time::Instant;

use super::State;
use super::failures::{MOST_TRIED, is_refusal};
use super::needs::{Needs, ResourceKey};
use super::planned::Planned;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::unconfirmed::{Confirmation, Unconfirmed};
use crate::error::Error;
use crate::source::hls::config::Quality;

impl State {
    pub(crate) fn set_unconfirmed(&mut self, mut unconfirmed: Unconfirmed) {
        let last = self.levels().len() - 1;
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

    /// What a presentation from the cache does first. `Break` if nothing else may be planned now.
    pub(super) fn plan_from_cache(&mut self, now: Instant) -> ControlFlow<Option<Planned>> {
        if self.outdated.is_some() {
            return ControlFlow::Break(None);
        }
        if let Some(stored) = self.plan_offline(now) {
            return ControlFlow::Break(Some(stored));
        }
        // Again: a segment that is stored at no level has begun an outage.
        if self.is_out(now) {
            return ControlFlow::Break(None);
        }
        if let Some(variant) = self.poll_confirmation() {
            let url = variant.map(|variant| self.playlist_url(variant));
            return ControlFlow::Break(Some(Planned::Confirm { url }));
        }
        if self.is_held() { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
    }

    /// The next playlist that has to be confirmed: `None` is the one that the caller has opened.
    pub(super) fn poll_confirmation(&mut self) -> Option<Option<usize>> {
        // Another playlist has come into view, by a choice of the user.
        let is_wanted = self.pending_playlist.is_some() && self.offline().is_none();
        let variant = self.unchecked().or_else(|| self.unrefused()).unwrap_or(self.variant);
        let unconfirmed = self.unconfirmed.as_mut().filter(|unconfirmed| unconfirmed.running.is_none())?;
        if !unconfirmed.is_due && !is_wanted {
            return None;
        }
        unconfirmed.running = Some(variant);
        Some(unconfirmed.has_ladder.then_some(variant))
    }

    /// Once a playlist was loaded: a variant whose stored segments are played, and whose playlist was not. One level may be of
    /// another version than the others, and frames of two versions must not be played beside each other.
    fn unchecked(&self) -> Option<usize> {
        let unconfirmed = self.unconfirmed.as_ref().filter(|unconfirmed| !unconfirmed.loaded.is_empty())?;
        let has_begun =
            |queued: &&QueuedSegment| matches!(queued.phase, SegmentPhase::Fetching | SegmentPhase::Complete);
        let queued = self.queue.iter().filter(has_begun).map(|queued| queued.variant);
        let mut played = unconfirmed.taken.iter().copied().chain(queued);
        played
            .find(|variant| !unconfirmed.checked.contains(variant) && !unconfirmed.refused.contains(variant))
    }

    /// The variant in use, or the nearest one to it whose playlist the server may have. `None` if it has none.
    fn unrefused(&self) -> Option<usize> {
        let refused = &self.unconfirmed.as_ref()?.refused;
        if !refused.contains(&self.variant) {
            return Some(self.variant);
        }
        let variants = self.ladder.variants.iter().enumerate().filter(|(index, variant)| {
            variant.rendition == self.rendition && refused.len() < MOST_TRIED && !refused.contains(index)
        });
        let nearest =
            variants.min_by_key(|(_, variant)| (variant.level.abs_diff(self.level()), variant.level));
        nearest.map(|(index, _)| index)
    }

    /// A segment has come from the cache.
    pub(super) fn note_taken(&mut self, variant: usize) {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.taken.insert(variant);
        }
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
        let (variant, is_renewed) = (queued.variant, queued.is_renewed);
        if is_renewed {
            let is_listed = self.timelines[variant].is_some();
            if let Some(queued) = self.plan_again(id).filter(|_| !is_listed) {
                queued.phase = SegmentPhase::Reloading;
            }
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
        // While it can't be reached, the other levels are looked for it first.
        if let Some(unconfirmed) = self.unconfirmed.as_mut().filter(|known| known.offline.is_none()) {
            unconfirmed.is_due = true;
        }
    }

    /// A playlist has come from the network.
    pub(crate) fn handle_confirmation(&mut self, confirmation: Confirmation) {
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        let requested = unconfirmed.running.take();
        match confirmation {
            Confirmation::Multivariant(ladder) => {
                unconfirmed.has_ladder = true;
                unconfirmed.is_due = true;
                self.ladder.take_urls(&ladder);
            }
            Confirmation::Media(list, url) => {
                let variant = requested.unwrap_or(self.variant);
                unconfirmed.checked.insert(variant);
                unconfirmed.loaded.push((variant, *list, url));
                self.confirm_or_check();
            }
            Confirmation::Changed(error) => {
                // Frames of the old version must not be played beside those of the new one.
                self.queue.clear();
                self.sections.buffers.clear();
                self.outdated = Some(error);
            }
        }
    }

    /// Ends the confirmation, unless the playlist of another level that was played has to be loaded first.
    fn confirm_or_check(&mut self) {
        let is_checked = self.unchecked().is_none();
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        unconfirmed.is_due = true;
        if !is_checked {
            return;
        }
        let loaded = std::mem::take(&mut unconfirmed.loaded);
        self.unconfirmed = None;
        let Some(first) = loaded.first().map(|(variant, ..)| *variant) else { return };
        // The URLs of the other stored ones are of no use.
        for (index, timeline) in self.timelines.iter_mut().enumerate() {
            timeline.take_if(|_| !loaded.iter().any(|(variant, ..)| *variant == index));
        }
        self.switch(first);
        for (variant, list, url) in loaded {
            self.handle_playlist(variant, list, url);
        }
        self.renew_segments();
    }

    /// Gives the segments that were planned before the URLs of the playlist that has come. Those of other levels wait for theirs.
    fn renew_segments(&mut self) {
        for queued in &mut self.queue {
            let timeline = self.timelines[queued.variant].as_ref();
            let timed = timeline.and_then(|timeline| timeline.segment_at(queued.position));
            match (queued.phase, timed) {
                (SegmentPhase::Planned, Some(timed)) => {
                    (queued.segment, queued.needs) = (timed.segment, Needs::default());
                }
                (SegmentPhase::Planned, None) => queued.phase = SegmentPhase::Reloading,
                (SegmentPhase::Fetching, Some(timed)) => {
                    (queued.segment, queued.is_renewed) = (timed.segment, true);
                }
                (SegmentPhase::Fetching, None) => queued.is_renewed = true,
                (SegmentPhase::Reloading | SegmentPhase::Complete | SegmentPhase::Skipped, _) => {}
            }
        }
    }

    /// A playlist has not come. What is stored is played on. What is missing is looked for at the other levels.
    pub(crate) fn handle_unconfirmed(&mut self, error: Error) {
        let is_missing = self.queue.iter().any(|queued| queued.phase == SegmentPhase::Reloading);
        let is_waiting = is_missing || self.pending_playlist.is_some();
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        if let Some(variant) = unconfirmed.running.filter(|_| !unconfirmed.loaded.is_empty()) {
            // Nothing shows that this level has changed. That of the other one is of use.
            unconfirmed.running = None;
            unconfirmed.checked.insert(variant);
            self.confirm_or_check();
            return;
        }
        if is_waiting && is_refusal(&error) && self.refuse_running() {
            return;
        }
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        // The next attempt asks for all of them again.
        unconfirmed.refused.clear();
        (unconfirmed.running, unconfirmed.is_held) = (None, false);
        // As for a file: a stale one is asked for once.
        unconfirmed.is_due = false;
        if is_waiting {
            self.go_offline(error);
        } else {
            log::debug!("the presentation is played from the cache, unconfirmed: {error}");
        }
    }

    /// The server does not have the playlist that was asked for. True if another one is asked for next.
    fn refuse_running(&mut self) -> bool {
        // Of the multivariant playlist there is no other one.
        let unconfirmed = self.unconfirmed.as_mut().filter(|unconfirmed| unconfirmed.has_ladder);
        let Some((unconfirmed, variant)) =
            unconfirmed.and_then(|known| known.running.map(|running| (known, running)))
        else {
            return false;
        };
        unconfirmed.refused.insert(variant);
        let has_other = self.unrefused().is_some();
        if let Some(unconfirmed) = self.unconfirmed.as_mut().filter(|_| has_other) {
            (unconfirmed.running, unconfirmed.is_due) = (None, true);
        }
        has_other
    }
}
