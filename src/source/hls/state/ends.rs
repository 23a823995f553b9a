//! The end of a live presentation. Its levels are written apart, and an encoder that fails ends one of them, or leaves it as it is. So the
//! end of one level is none of the presentation: playing goes on at the nearest level that has more, and ends once each of the others
//! has ended, is not written any more, or can't be loaded. What was known of them before is not asked: a level that has failed or stood
//! still may go on by now, so each one is loaded once more. A network that is away ends nothing.

use std::time::Instant;

use super::State;
use crate::error::Error;

impl State {
    /// True if the end of one level is that of the presentation: there is no other, or it is on demand, where a request for each of the
    /// other playlists at the end of each track would show nothing new.
    pub(super) fn ends_at_once(&self) -> bool {
        self.is_on_demand || self.ladder.variants.len() == 1
    }

    /// True if the playlist of this variant has ended at the cursor, or before.
    pub(super) fn is_over(&self, variant: usize) -> bool {
        let timeline = self.timelines[variant].as_ref();
        timeline.is_some_and(|timeline| timeline.list.is_ended && self.cursor >= timeline.edge())
    }

    /// The best variant that may have more, where another level has ended at the cursor.
    pub(super) fn pick_going_on(&self, level: usize, now: Instant) -> Option<usize> {
        if self.ends_at_once() || !self.has_over() {
            return None;
        }
        let is_written = |index: usize| !self.is_over(index) && !self.ladder.variants[index].is_stuck;
        // One that was not asked since the end comes before what is known of it.
        let is_unasked = |index: usize| !self.is_over(index) && !self.was_asked_since_end(index);
        let usable = self
            .pick_index(level, now, |index| is_written(index) || is_unasked(index))
            .or_else(|| self.pick_of(level, is_unasked));
        // A load that fails excludes it, and the next one may not: another level that has ended is not better.
        let has_own =
            || is_written(self.variant) && self.ladder.variants[self.variant].rendition == self.rendition;
        usable.or_else(|| has_own().then_some(self.variant))
    }

    /// True if another level has ended at the cursor.
    fn has_over(&self) -> bool {
        (0..self.timelines.len()).any(|variant| self.is_over(variant))
    }

    /// False while no end is to be confirmed, too.
    fn was_asked_since_end(&self, variant: usize) -> bool {
        let asked = self.ladder.variants[variant].asked_at;
        self.end_reached.is_none_or(|end| asked.is_some_and(|asked| asked >= end))
    }

    /// The playlist of this variant has been loaded.
    pub(super) fn handle_asked(&mut self, variant: usize, now: Instant) {
        self.ladder.variants[variant].asked_at = Some(now);
        if self.end_reached.is_some() {
            // Why it was left before is over.
            self.ladder.variants[variant].excluded_until = None;
        }
    }

    /// The playlist of this variant can't be loaded. True if it has to be asked again before the end, because the network or a server
    /// is away.
    pub(super) fn handle_unloaded(&mut self, variant: usize, error: &Error, now: Instant) -> bool {
        let is_away = error.is_retryable();
        if !is_away {
            self.ladder.variants[variant].asked_at = Some(now);
        }
        is_away && self.end_reached.is_some()
    }

    /// The variant in use has no next segment. True if another one may have it; else notes the end, if this one has ended.
    pub(super) fn leaves_ended(&mut self, now: Instant) -> bool {
        if self.ends_at_once() || !self.is_over(self.variant) || self.is_end_confirmed {
            return false;
        }
        self.end_reached.get_or_insert(now);
        if self.pick_going_on(self.level(), now).is_some() {
            return true;
        }
        self.is_end_confirmed = true;
        self.commit();
        false
    }

    /// Audio follows, or another place is played: what has ended there is found out again.
    pub(super) fn forget_end(&mut self) {
        self.is_end_confirmed = false;
        self.end_reached = None;
    }
}
