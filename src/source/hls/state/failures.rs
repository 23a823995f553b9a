//! What happens when a fetch fails: another server, another level, another attempt, and at last a gap.
//!
//! | what failed | what is tried, in this order |
//! |---|---|
//! | the network | another server; the same again after a delay; if something else arrives, another level |
//! | the server (5xx) | another server; another level; the same again for [`SERVER_ERROR_LIMIT`]; skip the segment |
//! | the URL (401, 403, 404, 410) | a fresh one from the application, or from the playlist; another level; skip |
//! | the bytes | another variant or level; skip |
//!
//! Nothing is skipped while more than [`LEAST_BUFFERED`] is buffered: all of it is tried again first, each time that half of the buffer
//! has played, and of a live stream at least once in a target duration.

use std::time::{Duration, Instant};

use url::Url;

use super::State;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::recovery::{Outage, Retrying};
use super::variants::server;
use crate::client::retry;
use crate::error::Error;
use crate::source::hls::event::HlsEvent;
use crate::source::hls::ladder::levels::VariantStream;

/// How long a variant that failed is not used (Media3 excludes tracks for as long).
const EXCLUSION: Duration = Duration::from_secs(60);

/// How long a pathway that failed is not used while others are there. hls.js and Media3 take five minutes, which is long
/// for a server that was only restarted.
const PATHWAY_EXCLUSION: Duration = Duration::from_secs(120);

/// Segments that are skipped one after the other, before the error is returned to the reader: more is no fault of single files.
const MOST_SKIPPED: u32 = 3;

/// Variants that are tried for one segment, at most. Each costs a request, while a reader waits.
pub(super) const MOST_TRIED: usize = 8;

/// How often a playlist is loaded again because of one segment: a URL may expire again before it is used.
const MOST_RELOADS: u32 = 3;

/// Time for which a segment is requested again from a server that answers with 5xx, before the segment is skipped.
const SERVER_ERROR_LIMIT: Duration = Duration::from_secs(30);

/// With less audio than this before a segment that nothing has, the segment is skipped. With more there is time to try again: the
/// network may have shown its login page, or a server of a CDN may not have the segment yet.
const LEAST_BUFFERED: Duration = Duration::from_secs(5);

/// A segment that nothing has is not tried again before this, however little is buffered.
const LEAST_WAIT: Duration = Duration::from_millis(500);

/// What has failed, as far as that decides what to try next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Cancelled,
    Network,
    Server,
    /// The URL is not valid any more, or not yet.
    Url,
    Bytes,
}

impl Failure {
    fn of(error: &Error) -> Self {
        match error.status() {
            _ if error.is_cancelled() => Self::Cancelled,
            Some(401 | 403 | 404 | 410) => Self::Url,
            // 408 (RFC 9110, section 15.5.9), 425 (RFC 8470, section 5.2) and 429 (RFC 6585, section 4) ask to come later, as a 5xx
            // does.
            Some(408 | 425 | 429 | 500..=599) => Self::Server,
            None if error.is_retryable() => Self::Network,
            _ => Self::Bytes,
        }
    }
}

/// True if a server has answered, and another level may be there. For one that can't be reached it would not.
#[cfg(feature = "cache")]
pub(super) fn is_refusal(error: &Error) -> bool {
    !matches!(Failure::of(error), Failure::Cancelled | Failure::Network)
}

impl State {
    /// A segment can't be fetched or read.
    pub(crate) fn handle_segment_failed(&mut self, id: u64, error: Error, now: Instant) {
        if self.fail_replacement(id, &error) {
            return;
        }
        let requested = self.requested;
        if self.queued(id).is_some_and(|queued| queued.is_hinted()) {
            return self.handle_hint_failed(id, &error);
        }
        let Some(queued) = self.plan_again(id) else { return };
        let failing_since = *queued.failing_since.get_or_insert(now);
        let failing_for = now.saturating_duration_since(failing_since);
        let (id, variant) = (queued.id, queued.variant);
        match Failure::of(&error) {
            // It was no seek, which drops the segment first: the downloader has stopped, or the presentation was cancelled.
            Failure::Cancelled => drop(self.recovery.error.get_or_insert(error)),
            Failure::Url if queued.reloads < MOST_RELOADS => {
                queued.reloads += 1;
                queued.requested_before = requested;
                queued.phase = SegmentPhase::Reloading;
            }
            failure @ (Failure::Network | Failure::Server) if self.exclude_server(variant, failure, now) => {
                self.move_on(id, now);
            }
            Failure::Network => {
                // A server of keys may be silent while that of the segments answers.
                let is_alone = self.recovery.last_arrival.is_some_and(|arrival| arrival > failing_since);
                if is_alone {
                    self.exclude(variant, now, EXCLUSION);
                }
                if !(is_alone && self.move_on(id, now)) {
                    self.pause(error, now, false);
                }
            }
            Failure::Server => {
                self.exclude(variant, now, EXCLUSION);
                if self.move_on(id, now) {
                    return;
                }
                if failing_for < SERVER_ERROR_LIMIT {
                    self.pause(error, now, false);
                } else {
                    self.skip_unless_early(id, error, now);
                }
            }
            Failure::Url | Failure::Bytes => {
                self.exclude(variant, now, EXCLUSION);
                if !self.move_on(id, now) {
                    self.skip_unless_early(id, error, now);
                }
            }
        }
    }

    /// The application has a fresh URL for a segment that was refused. False if it had one before.
    pub(crate) fn handle_fresh_url(&mut self, id: u64, url: Url) -> bool {
        if self.queued(id).is_none_or(|queued| queued.is_refreshed) {
            return false;
        }
        if let Some(queued) = self.plan_again(id) {
            (queued.fresh, queued.is_refreshed) = (Some(url), true);
        }
        true
    }

    /// A playlist can't be fetched or read.
    pub(crate) fn handle_playlist_failed(&mut self, variant: usize, error: Error, now: Instant) {
        if self.pending_playlist.is_some_and(|(wanted, _)| wanted == variant) {
            self.pending_playlist = None;
        }
        self.exclude_after(variant, &error, now);
        let is_asked_again = self.handle_unloaded(variant, &error, now);
        self.events.push(HlsEvent::PlaylistFailed {
            level: self.ladder.variants[variant].level,
            error: error.clone(),
        });
        let waiting =
            |queued: &&QueuedSegment| queued.variant == variant && queued.phase == SegmentPhase::Reloading;
        if let Some(id) = self.queue.iter().find(waiting).map(|queued| queued.id) {
            self.handle_segment_failed(id, error, now);
        } else if is_asked_again || self.pick(self.level(), now, |_| true).is_none() && !self.can_continue() {
            // Each attempt would fail at once, and the next one begin.
            self.pause(error, now, true);
        }
    }

    /// A live playlist could not be loaded again. True if another variant can be used.
    pub(crate) fn handle_reload_failed(&mut self, variant: usize, error: Error, now: Instant) -> bool {
        self.exclude_after(variant, &error, now);
        self.handle_reload_retrying(&error, now);
        self.events.push(HlsEvent::PlaylistFailed { level: self.ladder.variants[variant].level, error });
        self.has_other(variant, now)
    }

    /// An attempt to load a live playlist again has failed, and another one follows.
    pub(crate) fn handle_reload_retrying(&mut self, error: &Error, now: Instant) {
        self.recovery.reload_fails_since.get_or_insert(now);
        self.note_retrying(error, true);
    }

    /// The server does not write this playlist any more, as it seems: another one may be better (section 6.3.4).
    /// `is_outage` if the server could not be reached, so it may have written it. True if there is another one.
    pub(crate) fn handle_stale(&mut self, variant: usize, is_outage: bool, now: Instant) -> bool {
        self.ladder.variants[variant].is_stale |= !is_outage;
        self.exclude(variant, now, EXCLUSION);
        self.has_other(variant, now)
    }

    /// A live playlist has not changed for too long. `is_outage` if the server could not be reached. True if another variant can be
    /// used, or if the error is for a reader.
    pub(crate) fn handle_stuck(
        &mut self,
        variant: usize,
        error: Error,
        is_outage: bool,
        now: Instant,
    ) -> bool {
        let stuck = &mut self.ladder.variants[variant];
        (stuck.is_stale, stuck.is_stuck) = (stuck.is_stale || !is_outage, stuck.is_stuck || !is_outage);
        self.exclude(variant, now, EXCLUSION);
        if !is_outage {
            self.lift_stale();
        }
        // In an outage a reader waits, as for a segment.
        if !is_outage && self.pick(self.level(), now, |_| true).is_none() {
            self.recovery.stuck.get_or_insert(error);
        }
        !is_outage || self.has_other(variant, now)
    }

    /// Levels that had paused for a moment may be written again: each is used once more before the error that one is not.
    fn lift_stale(&mut self) {
        let paused = self.ladder.variants.iter_mut().filter(|variant| variant.is_stale && !variant.is_stuck);
        paused.for_each(|variant| (variant.is_stale, variant.excluded_until) = (false, None));
    }

    /// True if there is something to use in place of this variant, although perhaps only one that had failed before.
    fn has_other(&self, variant: usize, now: Instant) -> bool {
        self.pick(self.level(), now, |_| true).is_some() || self.last_resort() != variant
    }

    /// The playlist of this variant can be continued with, if nothing better is there.
    pub(super) fn can_continue(&self) -> bool {
        self.timelines[self.variant].is_some()
            && self.ladder.variants[self.variant].rendition == self.rendition
    }

    /// Excludes the variants that share the cause of a playlist's error.
    fn exclude_after(&mut self, variant: usize, error: &Error, now: Instant) {
        let failure = Failure::of(error);
        let is_far = matches!(failure, Failure::Network | Failure::Server);
        if !(is_far && self.exclude_server(variant, failure, now)) {
            self.exclude(variant, now, EXCLUSION);
        }
    }

    fn exclude(&mut self, variant: usize, now: Instant, time: Duration) {
        self.ladder.variants[variant].excluded_until = now.checked_add(time);
        self.recovery.is_all_excluded |= self.pick(self.level(), now, |_| true).is_none();
    }

    /// A segment has arrived. If no variant had worked before, the fault was none of theirs, and it is over.
    pub(super) fn lift_exclusions(&mut self) {
        if std::mem::take(&mut self.recovery.is_all_excluded) {
            self.ladder.variants.iter_mut().for_each(|variant| variant.excluded_until = None);
        }
    }

    /// The user has chosen this level: it is tried now, whatever has failed before.
    pub(super) fn lift_exclusion_of(&mut self, level: usize, now: Instant) {
        let level = level.min(self.levels().len() - 1);
        // One of its servers may be usable. Then the others stay excluded.
        if self.pick(level, now, |variant| variant.level == level).is_none() {
            let rendition = self.rendition;
            let chosen = self.ladder.variants.iter_mut();
            let chosen = chosen.filter(|variant| (variant.level, variant.rendition) == (level, rendition));
            chosen.for_each(|variant| variant.excluded_until = None);
        }
    }

    /// Excludes all variants on the server of this one, if there are others. False if there are none.
    fn exclude_server(&mut self, variant: usize, failure: Failure, now: Instant) -> bool {
        let failed = self.ladder.variants[variant].clone();
        let is_same = |other: &VariantStream| {
            server(&other.url) == server(&failed.url)
                // A server that answers may be bad for one pathway only.
                && (failure == Failure::Network || other.pathway == failed.pathway)
        };
        if self.pick(failed.level, now, |other| !is_same(other)).is_none() {
            // Nothing would be gained: the network itself may be down.
            return false;
        }
        let time = if self.steering.is_some() { PATHWAY_EXCLUSION } else { EXCLUSION };
        let until = now.checked_add(time);
        for other in self.ladder.variants.iter_mut().filter(|other| is_same(other)) {
            other.excluded_until = until;
        }
        true
    }

    /// Fetches a segment that has failed from another variant. False if all variants were tried for it.
    fn move_on(&mut self, id: u64, now: Instant) -> bool {
        let Some(queued) = self.queued(id) else { return true };
        let (start, variant) = (queued.start, queued.variant);
        let level = self.ladder.variants[variant].level;
        self.note_tried(start, variant);
        let other = self.pick(level, now, |_| true).or_else(|| self.untried(level));
        let Some(other) = other else { return false };
        // What it was excluded for was another segment, or is over.
        self.ladder.variants[other].excluded_until = None;
        self.restart_at(start, other, now);
        true
    }

    /// Notes that the segment at `start` has failed from this variant.
    fn note_tried(&mut self, start: Duration, variant: usize) {
        // Levels need not have the same borders.
        let near = self.target_duration() / 2;
        match &mut self.recovery.tried {
            Some((at, tried)) if at.abs_diff(start) <= near => tried.push(variant),
            tried => *tried = Some((start, vec![variant])),
        }
    }

    /// An excluded variant that was not tried for the segment yet: better than a gap.
    fn untried(&self, level: usize) -> Option<usize> {
        let tried = self.recovery.tried.as_ref().map_or(&[][..], |(_, tried)| tried);
        if tried.len() >= MOST_TRIED {
            return None;
        }
        let mut variants = self.ladder.variants.iter().enumerate().collect::<Vec<_>>();
        variants.retain(|(index, variant)| variant.rendition == self.rendition && !tried.contains(index));
        let oldest = variants
            .into_iter()
            .min_by_key(|(_, variant)| (variant.level.abs_diff(level), variant.excluded_until));
        oldest.map(|(index, _)| index)
    }

    /// Nothing has this segment: skips it, or tries all again when half of what is buffered has played.
    fn skip_unless_early(&mut self, id: u64, error: Error, now: Instant) {
        let buffered = self.buffered();
        // More than these are no fault of single files: a reader that has audio need not learn of it before all was tried again.
        let is_last = self.recovery.skipped >= MOST_SKIPPED && self.has_unread();
        if !self.is_listed(id) || !is_last && buffered < LEAST_BUFFERED {
            return self.skip(id, error, now);
        }
        self.recovery.tried = None;
        if let Some(queued) = self.queued(id) {
            queued.reloads = 0;
            let variant = queued.variant;
            self.ladder.variants[variant].excluded_until = None;
        }
        self.note_retrying(&error, false);
        let mut wait = buffered / 2;
        if !self.is_on_demand {
            // It may leave its playlist meanwhile, and what is behind it waits as well.
            wait = wait.min(self.target_duration());
        }
        let wait = wait.max(LEAST_WAIT);
        let rest = buffered.saturating_sub(wait);
        self.recovery.outage = Some(Outage { retry_at: now + wait, rest, permanent: None });
    }

    /// There is audio that was not read.
    pub(super) fn has_unread(&self) -> bool {
        self.sections.buffers.iter().any(|section| section.len() > 0)
    }

    /// The playlist of this segment still lists it.
    fn is_listed(&self, id: u64) -> bool {
        let queued = self.queue.iter().find(|queued| queued.id == id);
        queued.is_some_and(|queued| {
            let timeline = self.timelines[queued.variant].as_ref();
            timeline.is_none_or(|timeline| queued.position.sequence >= timeline.list.media_sequence)
        })
    }

    fn skip(&mut self, id: u64, error: Error, now: Instant) {
        self.recovery.skipped += 1;
        self.recovery.last_skip = Some(error.clone());
        self.recovery.retrying = None;
        let has_left = !self.is_listed(id);
        if let Some(queued) = self.queued(id) {
            (queued.phase, queued.has_left) = (SegmentPhase::Skipped, has_left);
            let (at, duration) = (queued.start, queued.segment.duration);
            self.events.push(HlsEvent::Skipped { at, duration, error: error.clone() });
        }
        if self.recovery.skipped > MOST_SKIPPED {
            self.recovery.skipped = 0;
            // An application that calls again at once would get the next error after as many requests, as fast as the server answers.
            let retry_at = now + self.next_delay(&error);
            self.recovery.outage = Some(Outage { retry_at, rest: Duration::ZERO, permanent: None });
            self.recovery.error.get_or_insert(error);
        }
        self.commit();
    }

    /// Fetches nothing for a while. A reader without audio waits, unless the error is permanent.
    pub(super) fn pause(&mut self, error: Error, now: Instant, is_playlist: bool) {
        let retry_at = now + self.next_delay(&error);
        self.recovery.is_out |= error.is_retryable();
        self.note_retrying(&error, is_playlist);
        let permanent = Some(error).filter(|error| !error.is_retryable());
        self.recovery.outage = Some(Outage { retry_at, rest: Duration::ZERO, permanent });
    }

    /// Delay before the next attempt: as long as in any outage that a listener waits for.
    fn next_delay(&mut self, error: &Error) -> Duration {
        // A reader waits, so not for longer than this, whatever the server asks for.
        retry::outage_delay(error, self.recovery.random.next()).min(SERVER_ERROR_LIMIT)
    }

    /// True while attempts have failed and nothing has arrived since.
    pub(crate) fn is_failing(&self) -> bool {
        self.recovery.is_out
    }

    /// An attempt has failed, and another one follows.
    pub(crate) fn note_retrying(&mut self, error: &Error, is_playlist: bool) {
        if !error.is_cancelled() {
            self.recovery.retrying = Some(Retrying { error: error.clone(), is_playlist });
        }
    }

    /// A playlist, or a part of a segment, has arrived.
    pub(super) fn note_arrival(&mut self, is_playlist: bool) {
        let recovery = &mut self.recovery;
        recovery.reload_fails_since.take_if(|_| is_playlist);
        // What a live playlist lists may still arrive while it can't be loaded again.
        let is_over = !is_playlist && recovery.reload_fails_since.is_none();
        recovery.retrying.take_if(|retrying| is_over || retrying.is_playlist == is_playlist);
    }

    /// True during an outage.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        let Some(Outage { retry_at, rest, .. }) = self.recovery.outage.as_ref() else { return false };
        now < *retry_at && (rest.is_zero() || self.buffered() > *rest)
    }

    /// When fetching goes on after an outage.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.recovery.outage.as_ref().map(|outage| outage.retry_at)
    }

    /// True once after an outage.
    pub(super) fn end_outage(&mut self, now: Instant) -> bool {
        let is_over = self.recovery.outage.is_some() && !self.is_out(now);
        if is_over {
            self.recovery.outage = None;
        }
        is_over
    }

    /// Nothing is fetched until a call has returned the error. A live stream goes on by itself, as often as its playlist is loaded: what
    /// it does not fetch is lost. On demand an application that has paused would cost requests for nothing.
    pub(super) fn has_stopped(&self) -> bool {
        let error = self.recovery.error.as_ref();
        error.is_some_and(|error| self.is_on_demand || error.is_cancelled())
    }

    /// The error that a reader without audio gets.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.recovery.error.as_ref().or(self.recovery.stuck.as_ref())
    }

    /// A segment is fetched, or will be without a change of the playlist.
    fn is_coming(&self) -> bool {
        let is_coming =
            |queued: &QueuedSegment| matches!(queued.phase, SegmentPhase::Planned | SegmentPhase::Fetching);
        // A reader that is faster than the network has read all that was planned.
        let follows = self.follows.filter(|(variant, _)| *variant == self.variant);
        let is_listed = |position| self.timeline().is_some_and(|known| known.segment_at(position).is_some());
        self.queue.iter().any(is_coming)
            || self.recovery.stuck.is_some() && follows.is_some_and(|(_, position)| is_listed(position))
    }

    /// Returns the error that has stopped fetching, and lets it continue. The next attempt is made after the delay that began when
    /// the last one failed: an application may call again and again, whatever it gets.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        if self.has_stopped() || !self.is_coming() {
            let error = self.recovery.error.take().or_else(|| self.recovery.stuck.take());
            if error.is_some() {
                return error;
            }
        }
        self.recovery.outage.as_mut()?.permanent.take()
    }
}
