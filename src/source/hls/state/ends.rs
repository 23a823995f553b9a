//! The end of a live presentation. Its levels are written apart, and an encoder that fails ends one of them, or leaves it as it is. So the
//! end of one level is none of the presentation: playing goes on at the nearest level that has more, and ends once each of the others
//! has ended, is stale, or can't be loaded.

use std::time::Instant;

use super::State;

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

    /// The best usable variant that may have more.
    pub(super) fn pick_going_on(&self, level: usize, now: Instant) -> Option<usize> {
        let may_go_on = |index: usize| !self.is_over(index) && !self.ladder.variants[index].is_stale;
        let usable = self.pick_index(level, now, may_go_on);
        // A load that fails excludes it, and the next one may not: another level that has ended is not better.
        let has_own =
            || may_go_on(self.variant) && self.ladder.variants[self.variant].rendition == self.rendition;
        usable.or_else(|| (self.has_over() && has_own()).then_some(self.variant))
    }

    /// True if another level has ended at the cursor.
    fn has_over(&self) -> bool {
        (0..self.timelines.len()).any(|variant| self.is_over(variant))
    }

    /// The variant in use has no next segment. True if another one may have it; else notes the end, if this one has ended.
    pub(super) fn leaves_ended(&mut self, now: Instant) -> bool {
        if self.ends_at_once() || !self.is_over(self.variant) || self.has_ended {
            return false;
        }
        if self.pick_going_on(self.level(), now).is_some() {
            return true;
        }
        self.has_ended = true;
        self.commit();
        false
    }
}
