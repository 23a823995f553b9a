//! A presentation from the cache whose origin can't be reached: which of the stored levels is played.
//!
//! The level in use, as long as its next segment is stored; then the best one that has it, within what the user allows. Only the
//! first segment of the queue moves to another level: those behind it may be stored where it is found.

use std::cmp::Reverse;
use std::time::Instant;

use url::Url;

use super::State;
use super::planned::Planned;
use super::queued_segment::SegmentPhase;
use super::unconfirmed::{Hole, NEAR, Offline};
use crate::error::{Error, ErrorKind};
use crate::source::hls::playlist::MediaPlaylist;

impl State {
    pub(super) fn offline(&self) -> Option<&Offline> {
        self.unconfirmed.as_ref()?.offline.as_ref()
    }

    fn offline_mut(&mut self) -> Option<&mut Offline> {
        self.unconfirmed.as_mut()?.offline.as_mut()
    }

    fn hole(&self) -> Option<&Hole> {
        self.unconfirmed.as_ref()?.hole.as_ref()
    }

    /// The origin does not answer, and something is missing.
    pub(super) fn go_offline(&mut self, error: Error) {
        let is_hole = self.note_hole();
        let asked_for = self.hole().filter(|_| is_hole).map(|hole| hole.at);
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.offline = Some(Offline { error, asked_for, unstored: Vec::new(), reading: None });
        }
    }

    /// The origin is asked again for what is missing next: the user has chosen something else, and time has passed.
    pub(super) fn forget_offline(&mut self) {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            (unconfirmed.offline, unconfirmed.hole) = (None, None);
        }
    }

    /// Moves the first segment to another level if it is missing. Returns the stored playlist that has to be read first.
    pub(super) fn plan_offline(&mut self, now: Instant) -> Option<Planned> {
        if self.offline()?.reading.is_some() {
            return None;
        }
        let variant = if self.note_hole() { self.fill_hole(now) } else { self.chosen_by_user(now) }?;
        self.offline_mut()?.reading = Some(variant);
        Some(Planned::Stored { variant, url: self.ladder.variants[variant].url.clone() })
    }

    /// A stored playlist was read. `None` if it is not stored.
    pub(crate) fn handle_stored_playlist(&mut self, variant: usize, list: Option<(MediaPlaylist, Url)>) {
        // A seek may have ended this in the meantime.
        let Some(offline) = self.offline_mut() else { return };
        offline.reading = None;
        match list {
            Some((list, url)) => drop(self.handle_playlist(variant, list, url)),
            None => offline.unstored.push(variant),
        }
    }

    /// Notes that the first segment is missing at its level. False if it is not.
    fn note_hole(&mut self) -> bool {
        let front = self.queue.front().filter(|queued| queued.phase == SegmentPhase::Reloading);
        let (Some(queued), Some(unconfirmed)) = (front, &mut self.unconfirmed) else { return false };
        match &mut unconfirmed.hole {
            Some(hole) if hole.is_in(queued) => {
                if !hole.tried.contains(&queued.variant) {
                    hole.tried.push(queued.variant);
                }
            }
            hole => *hole = Some(Hole { at: queued.start, tried: vec![queued.variant] }),
        }
        true
    }

    /// Continues at the hole with the next variant that may have the segment. Returns one whose playlist has to be read first.
    fn fill_hole(&mut self, now: Instant) -> Option<usize> {
        match self.candidate() {
            Some(variant) if self.timelines[variant].is_none() => return Some(variant),
            Some(variant) => self.continue_with(variant),
            None => self.give_up_hole(now),
        }
        None
    }

    /// The best variant that may have the missing segment.
    fn candidate(&self) -> Option<usize> {
        let (hole, unstored) = (self.hole()?, &self.offline()?.unstored);
        let has_position = |variant: usize| {
            let Some(timeline) = &self.timelines[variant] else { return true };
            let timed = timeline.segment_at(timeline.position_from(hole.at));
            timed.is_some_and(|timed| !timed.segment.is_gap)
        };
        self.stored_order().into_iter().find(|variant| {
            !hole.tried.contains(variant) && !unstored.contains(variant) && has_position(*variant)
        })
    }

    /// Variants of the rendition that the user allows, the best one first.
    fn stored_order(&self) -> Vec<usize> {
        let allowed = self.config.quality.allowed_levels(self.bitrates.named());
        let fixed = self.fixed_level();
        let variants = self.ladder.variants.iter().enumerate();
        let mut order: Vec<(bool, Reverse<usize>, usize)> = variants
            .filter(|(_, variant)| variant.rendition == self.rendition && allowed.contains(&variant.level))
            .map(|(index, variant)| (fixed != Some(variant.level), Reverse(variant.level), index))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., index)| index).collect()
    }

    fn continue_with(&mut self, variant: usize) {
        let (Some(hole), Some(queued)) = (self.hole(), self.queue.front()) else { return };
        (self.cursor, self.follows) = (hole.at, Some((queued.variant, queued.position)));
        self.retain_segments(|_| false);
        self.switch(variant);
    }

    /// No level has the segment. The origin is asked for it, or was asked before.
    fn give_up_hole(&mut self, now: Instant) {
        let url = self.queue.front().and_then(|queued| {
            let base = &self.timelines[queued.variant].as_ref()?.url;
            self.policy.resolve(base, queued.segment.uri.expose()).ok()
        });
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        unconfirmed.is_due = true;
        let (Some(offline), Some(hole)) = (unconfirmed.offline.take(), &mut unconfirmed.hole) else { return };
        if offline.asked_for != Some(hole.at) {
            return;
        }
        // Another attempt looks at all levels again: another process may have stored it.
        hole.tried.clear();
        let why =
            format!("the segment at {:?} is not in the cache, and the playlist can't be loaded", hole.at);
        let mut error = Error::new(ErrorKind::NotCached, why).with_cause(offline.error);
        if let Some(url) = url {
            error = error.with_url(url.as_str());
        }
        self.pause(error, now, true);
    }

    /// The variant that the user has chosen, if its stored playlist was not looked for yet.
    fn chosen_by_user(&mut self, now: Instant) -> Option<usize> {
        let (variant, _) = self.pending_playlist?;
        if !self.offline()?.unstored.contains(&variant) {
            return Some(variant);
        }
        // A level that is not stored: the one in use is. Of another rendition the next level may be.
        let next = if self.can_continue() { None } else { self.choose_stored() };
        self.pending_playlist = next.map(|next| (next, false));
        if next.is_none() && !self.can_continue() {
            let offline = self.unconfirmed.as_mut()?.offline.take()?;
            let why = "no playlist of the rendition is in the cache, and none can be loaded";
            self.pause(Error::new(ErrorKind::NotCached, why).with_cause(offline.error), now, true);
        }
        next
    }

    /// The variant of the next segment while nothing but what is stored is played. `None` if that does not matter.
    pub(super) fn choose_stored(&self) -> Option<usize> {
        if !self.can_continue() {
            let unstored = &self.offline()?.unstored;
            return self.stored_order().into_iter().find(|variant| !unstored.contains(variant));
        }
        let is_tried = |variant: usize| {
            let near = NEAR.min(self.target_duration() / 2);
            let hole = self.hole().filter(|hole| hole.at.abs_diff(self.cursor) <= near);
            hole.is_some_and(|hole| hole.tried.contains(&variant))
        };
        // The level that the user has fixed is played wherever it is stored.
        let fixed = self.fixed_level().and_then(|level| {
            self.ladder.variants.iter().enumerate().position(|(index, variant)| {
                let is_wanted = variant.rendition == self.rendition && variant.level == level;
                is_wanted && self.timelines[index].is_some() && !is_tried(index)
            })
        });
        // Other levels may not be stored.
        Some(fixed.unwrap_or(self.variant))
    }
}
