//! What to fetch next.

#[cfg(feature = "cache")]
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::State;
use super::arriving::{Requested, STALLED};
use super::needs::{Needs, ResourceKey, needs_of};
use super::planned::Planned;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::section::{Discontinuity, SectionBuffer};
use crate::abr::Snapshot;
use crate::error::Error;
use crate::source::hls::config::{HlsConfig, Quality};
use crate::source::hls::timeline::directives::Directives;
use crate::source::hls::timeline::start::start_of;
use crate::source::hls::timeline::{PlaylistPosition, ROUNDED, TimedSegment, Timeline};
use crate::types::Priority;

/// A segment that the reader needs within this time is urgent: the time of a segment of 6 s, and of its request on a slow network.
const URGENT: Duration = Duration::from_secs(10);

/// Segments that are fetched at the same time: while one arrives, the next one's request is on its way.
const AT_ONCE: usize = 2;

/// A segment is requested while the rest of the one before arrives within this many times the TTFB, so that no pause is between the
/// two. As for pieces of a file: the times differ. Earlier it would take half of the network from a segment that plays before it,
/// and its level would be chosen by what was measured a segment ago.
const LEAD: f64 = 1.5;

impl State {
    /// The next fetch, if there is one that is urgent enough.
    pub(crate) fn plan(&mut self, now: Instant, admissible: Priority) -> Option<Planned> {
        self.woken = None;
        if self.has_stopped() || self.is_out(now) {
            return None;
        }
        #[cfg(feature = "cache")]
        if let ControlFlow::Break(planned) = self.plan_from_cache(now) {
            return planned;
        }
        if let Some(key) = self.resources.planned_again.pop() {
            self.resources.restart(key.clone(), Priority::High, now);
            return Some(Planned::Resource { key, list: None, priority: Priority::High });
        }
        self.drop_late_replacement();
        self.extend(now);
        // After `extend`: one playlist is loaded at a time, and what the next segment needs goes before what an expired URL
        // needs.
        self.want_reload();
        if let Some(playlist) = self.plan_playlist() {
            return Some(playlist);
        }
        self.plan_media(now, admissible)
    }

    /// The next segment, what it needs first, or a replacement; the steering manifest if no segment is to be fetched.
    fn plan_media(&mut self, now: Instant, admissible: Priority) -> Option<Planned> {
        let waiting = self.queue.iter().position(|queued| queued.phase == SegmentPhase::Planned);
        let may_fetch = self.may_fetch(waiting.unwrap_or(self.queue.len()), now);
        let is_calm = waiting.is_none_or(|index| self.priority_of(index) == Priority::Low);
        // Not while playlists come from the cache: then nothing is requested but what confirms them.
        if may_fetch && is_calm && admissible == Priority::Low && self.is_confirmed() {
            if let Some(replacement) = self.plan_replacement(now) {
                return Some(replacement);
            }
        }
        let Some(index) = waiting.filter(|_| may_fetch) else {
            // Behind the segments: at the start it would take the connection that is ready for one.
            let steering = if self.is_confirmed() { self.poll_steering(now) } else { None };
            // With room it waits for a playlist, whose arrival wakes the downloader. A blocked reader that did so would only cause the
            // next plan, and each plan wakes the reader.
            let lacks_room = waiting.is_some() || !self.has_room(now);
            self.is_idle = steering.is_none() && lacks_room;
            return steering.map(|url| Planned::Steering { url });
        };
        let priority = self.priority_of(index);
        if priority < admissible {
            return None;
        }
        match self.plan_segment(index, priority, now) {
            Ok(planned) => Some(planned),
            Err(error) => {
                let id = self.queue[index].id;
                self.handle_segment_failed(id, error, now);
                // Nothing was requested yet. It ends, because each failure moves the segment on, skips it or pauses.
                self.plan(now, admissible)
            }
        }
    }

    /// False while nothing but the playlists of the presentation may be requested.
    pub(super) fn is_confirmed(&self) -> bool {
        #[cfg(feature = "cache")]
        if self.is_unconfirmed() {
            return false;
        }
        true
    }

    fn plan_playlist(&mut self) -> Option<Planned> {
        let may_load = self.is_confirmed();
        let wanted = self.pending_playlist.as_mut().filter(|_| may_load);
        let Some((variant, is_fetching @ false)) = wanted else { return None };
        *is_fetching = true;
        self.requested += 1;
        let variant = *variant;
        Some(Planned::Playlist { variant, url: self.playlist_url(variant) })
    }

    /// True if the segment at `index` may be requested beside those that are being fetched.
    ///
    /// A segment that waits for its playlist counts like one that is being fetched, for those that play after it. So one file
    /// that is missing does not keep the reader waiting for what is behind it, and a server that refuses everything gets
    /// [`AT_ONCE`] requests for each time that its playlist is loaded.
    pub(super) fn may_fetch(&self, index: usize, now: Instant) -> bool {
        let mut running = self.fetching();
        let is_reloading = |queued: &&QueuedSegment| queued.phase == SegmentPhase::Reloading;
        let reloading = self.queue.iter().take(index).filter(is_reloading).count();
        // A key or an initialization section that a running segment waits for goes first: the next segment would take the
        // connection that is ready for it, and its answer would take a handshake longer. Not for one that is silent: its answer may not
        // come at all.
        let goes_first =
            |key: ResourceKey| self.resources.ready(&key).is_none() && !self.resources.is_silent(&key, now);
        let waits = |queued: &QueuedSegment| queued.needs.resources().any(goes_first);
        let at_once = self.fetching().count() + reloading + usize::from(self.replacements.is_running());
        // One attempt shows as much as two whether the server is back. What plays first makes it, also beside one that is silent.
        let is_needless = self.is_failing() && self.fetching_before(index).next().is_some();
        at_once < AT_ONCE
            && !is_needless
            && !running.any(waits)
            && self.is_arriving_soon(index, now)
            && !self.is_held_by_silence(index, now)
    }

    /// True if the segment at `index` needs a silent resource that a running segment waits for: it could not be read either, and
    /// would have to be requested again if the resource fails.
    fn is_held_by_silence(&self, index: usize, now: Instant) -> bool {
        let running = self.fetching().flat_map(|queued| queued.needs.resources());
        let mut silent = running.filter(|key| self.resources.is_silent(key, now)).peekable();
        if silent.peek().is_none() || index >= self.queue.len() {
            return false;
        }
        let needs = self.needs_at(index).unwrap_or_default();
        silent.any(|key| needs.resources().any(|needed| needed == key))
    }

    /// What the segment at `index` needs, by the playlist as it is now.
    fn needs_at(&self, index: usize) -> Result<Needs, Error> {
        let queued = &self.queue[index];
        needs_of(&queued.segment, queued.position.sequence, self.base_of(queued), self.policy)
    }

    /// What the URIs of a segment are relative to.
    fn base_of(&self, queued: &QueuedSegment) -> &Url {
        let timeline = self.timelines[queued.variant].as_ref();
        timeline.map_or(&self.ladder.variants[queued.variant].url, |timeline| &timeline.url)
    }

    /// True if the segments that play before the one at `index` leave the network to it, or will when its first byte arrives.
    fn is_arriving_soon(&self, index: usize, now: Instant) -> bool {
        let leaves_network = |queued: &QueuedSegment| {
            let last = queued.last_progress();
            last.is_some_and(|last| now.saturating_duration_since(last) >= STALLED)
                && !self.is_too_slow(queued)
        };
        if self.fetching_before(index).all(leaves_network) {
            return true;
        }
        let lead = self.network.estimator.ttfb().as_secs_f64() * LEAD;
        self.rest_of_fetching(index).is_some_and(|rest| rest.as_secs_f64() <= lead)
    }

    /// True if the network is slower than this segment plays. Then the reader waits for it, and it arrives with pauses by itself: what
    /// plays after it would take half of the network from it, or stand before it in the queue of a router.
    fn is_too_slow(&self, queued: &QueuedSegment) -> bool {
        self.is_slower_than(self.ladder.variants[queued.variant].level)
    }

    /// True if the network is known to be slower than segments of this level play.
    fn is_slower_than(&self, level: usize) -> bool {
        let bitrate = self.bitrates.get(level) as f64;
        self.network.throughput().is_some_and(|throughput| throughput < bitrate)
    }

    /// True if a variant is of a lower level than the one in use.
    fn is_below(&self, variant: usize) -> bool {
        self.ladder.variants[variant].level < self.level()
    }

    /// When segments of which nothing arrives, and what they wait for, leave the network to the next one. Only those that
    /// [`take_wake`](Self::take_wake) has not seen: a reader would not block for the others.
    pub(super) fn stalls(&self) -> impl Iterator<Item = Instant> {
        let stalls = self.fetching().filter_map(QueuedSegment::last_progress).map(|last| last + STALLED);
        let needed = self.fetching().flat_map(|queued| queued.needs.resources());
        let silences = needed.filter_map(|key| self.resources.silent_at(&key));
        stalls.chain(silences).filter(|stall| self.last_poll.is_none_or(|last| *stall > last))
    }

    /// Time until the segments before `index` that are being fetched have arrived. `None` if nothing was measured.
    fn rest_of_fetching(&self, index: usize) -> Option<Duration> {
        let bits =
            self.fetching_before(index).map(|queued| self.missing_bytes(queued) as f64 * 8.0).sum::<f64>();
        let seconds = bits / self.network.throughput()?.max(1.0);
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    pub(super) fn fetching(&self) -> impl Iterator<Item = &QueuedSegment> {
        self.fetching_before(self.queue.len())
    }

    fn fetching_before(&self, index: usize) -> impl Iterator<Item = &QueuedSegment> {
        self.queue
            .iter()
            .take(index)
            .filter(|queued| queued.phase == SegmentPhase::Fetching && !queued.is_hinted())
    }

    /// Where to load the first playlist of a variant from.
    pub(super) fn playlist_url(&self, variant: usize) -> Url {
        let url = &self.ladder.variants[variant].url;
        // What another playlist says of it may be wrong: after a failure it is asked without.
        let has_failed = self.ladder.variants[variant].excluded_until.is_some();
        match &self.timelines[self.variant] {
            Some(current) if !current.list.is_ended && !has_failed => {
                Directives::of_report(&current.list, &current.url, url).apply(url)
            }
            _ => url.clone(),
        }
    }

    /// Asks for the playlist of a segment that has expired.
    pub(crate) fn want_reload(&mut self) {
        let (variant, is_live) = (self.variant, self.is_live());
        // The playlist of a live level is loaded again anyway.
        let is_due = |queued: &&QueuedSegment| {
            queued.phase == SegmentPhase::Reloading && (!is_live || queued.variant != variant)
        };
        if self.pending_playlist.is_none() && self.is_confirmed() {
            self.pending_playlist = self.queue.iter().find(is_due).map(|queued| (queued.variant, false));
        }
    }

    pub(crate) fn priority_of(&self, index: usize) -> Priority {
        let is_urgent = self.ahead(self.queue[index].start) < URGENT;
        if is_urgent { Priority::High } else { Priority::Low }
    }

    /// The priority to wake the downloader with.
    pub(crate) fn wake_priority(&mut self) -> Priority {
        let priority = self.next_priority();
        self.woken = Some(priority);
        priority
    }

    /// The priority of what `plan` would return.
    pub(super) fn next_priority(&self) -> Priority {
        let waiting = self.queue.iter().position(|queued| queued.phase == SegmentPhase::Planned);
        match waiting {
            Some(index) => self.priority_of(index),
            None if self.pending_playlist.is_some() => Priority::High,
            None if self.ahead(self.cursor) < URGENT => Priority::High,
            None => Priority::Low,
        }
    }

    /// What a segment needs first: its key and its initialization section are requested before it, and arrive beside it.
    pub(crate) fn plan_segment(
        &mut self,
        index: usize,
        priority: Priority,
        now: Instant,
    ) -> Result<Planned, Error> {
        let queued = &self.queue[index];
        let needs = self.needs_at(index)?;
        let list = self.ladder.variants[queued.variant].url.clone();
        let url = match &queued.fresh {
            Some(fresh) => fresh.clone(),
            None => self.policy.resolve(self.base_of(queued), queued.segment.uri.expose())?,
        };
        // Known from here on: if one of them can't be fetched, this segment has failed.
        self.queue[index].needs = needs.clone();
        #[cfg(feature = "cache")]
        {
            self.queue[index].is_renewed = false;
        }
        for key in needs.resources() {
            if self.resources.start(&key, priority, now) {
                return Ok(Planned::Resource { key, list: Some(list), priority });
            }
        }
        let patience = self.patience(self.queue[index].segment.duration);
        let queued = &mut self.queue[index];
        queued.phase = SegmentPhase::Fetching;
        queued.requested = Some(Requested::new(now, patience));
        queued.priority = priority;
        let (id, range) = (queued.id, queued.segment.byte_range);
        Ok(Planned::Segment { id, url, range, needs: Box::new(needs), list, priority })
    }

    /// Adds segments until enough is planned.
    pub(crate) fn extend(&mut self, now: Instant) {
        while self.has_room(now) {
            let chosen = self.choose(now);
            let chosen = self.kept_variant(chosen, now).unwrap_or(chosen);
            if self.is_loaded(chosen, now) {
                self.switch(chosen);
            } else {
                self.pending_playlist.get_or_insert((chosen, false));
                // The segment was abandoned at the current level.
                if self.level_cap.at(self.cursor).is_some_and(|most| self.level() > most) {
                    return;
                }
                // Until its playlist is there, the last variant continues, unless it has failed or the user does not want it.
                let current = &self.ladder.variants[self.variant];
                if !current.is_usable(now)
                    || current.rendition != self.rendition
                    || self.is_over(self.variant)
                {
                    return;
                }
                // Nothing is played yet, and a segment of this level would arrive more slowly than it plays: it would be abandoned, and
                // what it has brought by then thrown away.
                if self.follows.is_none() && self.is_below(chosen) && self.is_slower_than(self.level()) {
                    return;
                }
                // Nothing is played yet, and the user has fixed another level: one of a cached playlist was opened.
                if self.follows.is_none() && self.fixed_level().is_some_and(|fixed| fixed != self.level()) {
                    return;
                }
            }
            if !self.add_segment() && !self.leaves_ended(now) {
                return;
            }
        }
    }

    pub(crate) fn has_room(&self, now: Instant) -> bool {
        let planned = self.queue.iter().filter(|queued| queued.phase == SegmentPhase::Planned).count();
        let ahead = self.ahead(self.cursor);
        let has_memory = ahead < self.capacity() && self.buffered_bytes() < self.config.buffer_bytes;
        // One at a time, and only when it can be requested, so that its level is chosen as late as possible.
        planned == 0 && has_memory && self.may_fetch(self.queue.len(), now)
    }

    /// The variant of the next segment.
    fn choose(&mut self, now: Instant) -> usize {
        #[cfg(feature = "cache")]
        if let Some(variant) = self.unconfirmed.as_ref().and_then(|_| self.choose_stored()) {
            return variant;
        }
        // There is none at the start and after a seek: nothing is buffered, so there is no level to stay at.
        let current = self.follows.map(|_| self.level());
        let bitrates = self.expected_bitrates();
        let snapshot = self.network.snapshot(&bitrates, self.target_duration(), &self.config);
        // A segment that is being fetched is buffered once it is there, and until then the buffer shrinks.
        let buffered = match self.rest_of_fetching(self.queue.len()) {
            Some(rest) => self.ahead(self.cursor).saturating_sub(rest),
            None => self.buffered(),
        };
        let is_starting = self.is_starting;
        let snapshot = Snapshot { current, buffered, is_starting, ..snapshot };
        let chosen = self.abr.ask("Abr::choose", |rule| rule.choose(now, &snapshot));
        let level = match (chosen, &self.config.quality) {
            (Some(level), _) => level,
            (None, Quality::Fixed(index)) => *index,
            (None, Quality::Auto(_) | Quality::Custom(_)) => self.level(),
        };
        let most = self.level_cap.at(self.cursor).unwrap_or(usize::MAX);
        let level = self.best_level(level).min(most).min(self.levels().len() - 1);
        self.pick_going_on(level, now)
            .or_else(|| self.pick(level, now, |_| true))
            .unwrap_or_else(|| self.last_resort())
    }

    pub(crate) fn target_duration(&self) -> Duration {
        self.timelines[self.variant].as_ref().map_or(Duration::ZERO, |timeline| timeline.list.target_duration)
    }

    /// Adds the segment that follows. False if there is none yet.
    pub(crate) fn add_segment(&mut self) -> bool {
        let Some(timeline) = &self.timelines[self.variant] else { return false };
        let list = Arc::clone(&timeline.list);
        let Some(mut position) = self.position_in(self.variant) else {
            // Behind the end of a finished playlist nothing follows. If it is another level that has ended here, the last section
            // ends.
            self.commit();
            return false;
        };
        let has_left = self.has_left(timeline, position);
        if has_left && self.follows.is_some() {
            // Without the start that the application has chosen: that was for the first segment.
            position =
                timeline.position_at(start_of(timeline, &HlsConfig { start: None, ..self.config.clone() }));
        }
        let Some(TimedSegment { segment, start, next }) = timeline.segment_at(position) else {
            if list.is_ended {
                // The levels end at slightly different times.
                self.cursor = self.cursor.max(timeline.edge());
                self.commit();
            }
            return false;
        };
        if has_left {
            self.note_behind(start.saturating_sub(self.cursor));
        }
        self.forget_end();
        self.cursor = start + segment.duration;
        self.follows = Some((self.variant, next));
        let phase = if segment.is_gap { SegmentPhase::Skipped } else { SegmentPhase::Planned };
        self.push_segment(position, TimedSegment { segment, start, next }, phase);
        self.commit();
        // It may have come from what is kept.
        self.limit_kept();
        true
    }

    /// True if what plays next has left the window of this playlist: the segment itself (section 6.3.5), what was sought, or after
    /// segments of another level the audio behind the last one.
    fn has_left(&self, timeline: &Timeline, position: PlaylistPosition) -> bool {
        let is_before = |tolerance| self.cursor.saturating_add(tolerance) < timeline.start();
        position.sequence < timeline.list.media_sequence
            || match self.follows {
                _ if self.is_on_demand => false,
                None => is_before(Duration::ZERO),
                // Nothing is missing where the numbers go on, whatever the dates say.
                Some((known, _)) if known == self.variant => false,
                // The playlists of two levels agree about the time but for roundings. A window moves by whole segments.
                Some(_) => is_before(timeline.first_length().min(ROUNDED * 2) / 2),
            }
    }

    /// Notes that so much audio is left out before the next segment.
    fn note_behind(&mut self, missing: Duration) {
        use Discontinuity::{Behind, Reset};
        self.discontinuity = Some(match self.discontinuity {
            // The segment that had to follow it was dropped, and has left the window, too.
            Some(Behind(before)) => Behind(before.saturating_add(missing)),
            Some(Reset) => Reset,
            _ => Behind(missing),
        });
    }

    /// The position of the next segment in the playlist of this variant. `None` if that has ended before.
    pub(super) fn position_in(&self, variant: usize) -> Option<PlaylistPosition> {
        let timeline = self.timelines[variant].as_ref()?;
        match self.follows {
            Some((known, position)) if known == variant => Some(position),
            _ if self.cursor >= timeline.edge() => None,
            Some(_) => Some(timeline.position_from(self.cursor)),
            None => Some(timeline.position_at(self.cursor)),
        }
    }

    /// Adds this segment of the current playlist, or this part of one.
    pub(super) fn push_segment(
        &mut self,
        position: PlaylistPosition,
        timed: TimedSegment,
        phase: SegmentPhase,
    ) {
        let mut queued = QueuedSegment::new(self.next_id, self.variant, position, timed, phase);
        queued.discontinuity = self.discontinuity.take();
        if phase == SegmentPhase::Planned && self.fill(&mut queued) {
            self.is_starting = false;
        }
        self.queue.push_back(queued);
        self.next_id += 1;
    }

    /// Drops the other segments.
    pub(super) fn retain_segments(&mut self, is_kept: impl Fn(&QueuedSegment) -> bool) {
        let discontinuity = &mut self.discontinuity;
        self.queue.retain_mut(|queued| {
            let is_kept = is_kept(queued);
            if !is_kept {
                // The segment that takes its place does not continue the one before either.
                *discontinuity = discontinuity.take().or(queued.discontinuity.take());
            }
            is_kept
        });
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        let sections: usize = self.sections.buffers.iter().map(SectionBuffer::memory).sum();
        let queued: usize = self.queue.iter().map(QueuedSegment::memory).sum();
        sections + queued + self.replacements.memory()
    }
}
