//! Playlists that arrive: those of other levels, new versions of live ones, and restarted ones.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::State;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::section::Discontinuity;
use crate::error::{Error, ErrorKind};
use crate::source::hls::config::HlsConfig;
use crate::source::hls::event::HlsEvent;
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::MediaPlaylist;
use crate::source::hls::timeline::start::{hold_back, start_of};
use crate::source::hls::timeline::{Timeline, Version};

impl State {
    /// A playlist that `plan` has requested has arrived.
    pub(crate) fn handle_planned_playlist(
        &mut self,
        variant: usize,
        list: MediaPlaylist,
        url: Url,
        load: Load,
    ) {
        if self.is_on_demand && !list.is_ended && self.timelines[variant].is_none() {
            // Nothing would load it again, so what it will list later would be missed. It may end soon, as the others did.
            let why = "the playlist has no end, unlike the one that was opened";
            let error = Error::new(ErrorKind::InvalidPlaylist, why).with_url(url.as_str());
            self.handle_playlist_failed(variant, error, load.ended);
        } else {
            self.handle_loaded_playlist(variant, list, url, load);
        }
    }

    /// A playlist was loaded from the server. True if it brings something new.
    pub(crate) fn handle_loaded_playlist(
        &mut self,
        variant: usize,
        list: MediaPlaylist,
        url: Url,
        load: Load,
    ) -> bool {
        // Before: it shows how much later than that of the variant in use it was loaded.
        self.ladder.variants[variant].last_load = Some(load);
        self.handle_asked(variant, load.ended);
        let is_new = self.handle_playlist(variant, list, url);
        if is_new {
            self.ladder.variants[variant].last_change = Some(load.ended);
        }
        is_new
    }

    /// A playlist has arrived. True if it brings something new.
    pub(crate) fn handle_playlist(&mut self, variant: usize, mut list: MediaPlaylist, url: Url) -> bool {
        // Section 4.4.3.4: nothing is added after the end. Without one it is an old version from a cache, or a server has lost it.
        list.is_ended |= self.timelines[variant].as_ref().is_some_and(|own| own.list.is_ended);
        self.ladder.variants[variant].is_refreshed = false;
        self.note_arrival(true);
        // The thread of a live stream requests playlists too, and those are not counted.
        let mut number = u64::MAX;
        if self.pending_playlist.is_some_and(|(wanted, _)| wanted == variant) {
            self.pending_playlist = None;
            number = self.requested;
        }
        let mut is_new = true;
        let timeline = match (&self.timelines[variant], &self.timelines[self.variant]) {
            (Some(own), _) => match own.compare(&list) {
                Version::Restarted if own.seems_restarted => {
                    return self.restart_playlist(variant, list, url);
                }
                // Once is no restart: behind some URLs there are several servers, which number their segments apart.
                version @ (Version::Older | Version::Restarted) => {
                    let seems_restarted = version == Version::Restarted;
                    let own = self.timelines[variant].as_mut();
                    own.into_iter().for_each(|own| own.seems_restarted = seems_restarted);
                    self.release(variant, number, None);
                    return false;
                }
                Version::Newer { has_changed } => {
                    is_new = has_changed;
                    own.update(list, url)
                }
            },
            (None, Some(current)) => current.other(list, url, self.later_than_own(variant)),
            (None, None) => Timeline::new(list, url, self.cursor),
        };
        if is_new {
            self.note_written(variant);
        }
        self.release(variant, number, Some(&timeline));
        self.check_hints(variant, &timeline);
        self.timelines[variant] = Some(timeline);
        self.handle_listed_sizes(variant);
        self.commit();
        is_new
    }

    /// The playlist of this variant has brought something new.
    fn note_written(&mut self, variant: usize) {
        let variant = &mut self.ladder.variants[variant];
        (variant.is_stale, variant.is_stuck) = (false, false);
        self.recovery.stuck = None;
    }

    /// How much later the playlist of this variant was loaded than that of the variant in use.
    fn later_than_own(&self, variant: usize) -> Duration {
        let ended = |variant: usize| Some(self.ladder.variants[variant].last_load?.ended);
        let own = &self.ladder.variants[self.variant];
        // What a playlist that is not written any more shows is as old as its last change.
        let own_time = if own.is_stale { own.last_change } else { ended(self.variant) };
        let both = ended(variant).zip(own_time);
        both.map_or(Duration::ZERO, |(other, own)| other.saturating_duration_since(own))
    }

    /// Requests segments again that have waited for a new version of their playlist.
    fn release(&mut self, variant: usize, number: u64, timeline: Option<&Timeline>) {
        let is_fresh = |queued: &&mut QueuedSegment| {
            queued.variant == variant
                && queued.phase == SegmentPhase::Reloading
                && queued.requested_before < number
        };
        for queued in self.queue.iter_mut().filter(is_fresh) {
            queued.phase = SegmentPhase::Planned;
            let listed = timeline.and_then(|timeline| timeline.segment_at(queued.position));
            if listed.as_ref().is_none_or(|timed| timed.segment.uri == queued.segment.uri) {
                // The URL is the same: one more attempt, and no more reloads.
                queued.reloads = u32::MAX;
            }
            if let Some(timed) = listed {
                queued.segment = timed.segment;
            }
        }
    }

    /// The server has started its playlist again (section 6.2.2 forbids it): what is fetched is played, and then it continues
    /// at the new live edge.
    pub(crate) fn restart_playlist(&mut self, variant: usize, list: MediaPlaylist, url: Url) -> bool {
        let timeline = Timeline::new(list, url, self.cursor);
        if variant == self.variant {
            // What waits for a reload has a number that names another segment now.
            self.retain_segments(|queued| queued.phase != SegmentPhase::Reloading && !queued.is_hinted());
            self.cursor = start_of(&timeline, &HlsConfig { start: None, ..self.config.clone() });
            self.follows = None;
            self.discontinuity = Some(Discontinuity::Reset);
        }
        // Its numbers name other segments now.
        self.kept.clear();
        self.timelines[variant] = Some(timeline);
        self.note_written(variant);
        self.commit();
        true
    }

    pub(crate) fn is_live(&self) -> bool {
        self.timelines[self.variant].as_ref().is_some_and(|timeline| !timeline.list.is_ended)
    }

    /// It is a low-latency stream.
    pub(crate) fn has_parts(&self) -> bool {
        self.timeline().is_some_and(|timeline| timeline.list.part_target.is_some())
    }

    pub(crate) fn timeline(&self) -> Option<&Timeline> {
        self.timelines[self.variant].as_ref()
    }

    /// True once no playlist will be loaded again.
    pub(crate) fn is_ended(&self) -> bool {
        // Where there are other levels one of them may be used that has not ended yet.
        !self.is_live() && self.ladder.variants.len() == 1
    }

    /// The playlist to load again: its variant, URL and last version. `None` once it has ended.
    pub(crate) fn live_playlist(&self) -> Option<(usize, Url, Arc<MediaPlaylist>)> {
        let timeline = self.timelines[self.variant].as_ref().filter(|timeline| !timeline.list.is_ended)?;
        Some((self.variant, self.ladder.variants[self.variant].url.clone(), Arc::clone(&timeline.list)))
    }

    /// The last load of the playlist of the variant in use.
    pub(crate) fn last_load(&self) -> Option<Load> {
        self.ladder.variants[self.variant].last_load
    }

    /// The playlist with which it was opened was loaded.
    pub(crate) fn set_first_load(&mut self, load: Load) {
        let own = &mut self.ladder.variants[self.variant];
        (own.last_load, own.last_change) = (Some(load), Some(load.ended));
    }

    /// Another rendition than the preferred one was opened.
    pub(crate) fn handle_rendition_failed(&mut self, name: Box<str>, error: Error) {
        self.events.push(HlsEvent::RenditionFailed { name, error });
    }

    /// Times that can be sought to.
    pub(crate) fn seekable(&self) -> Range<Duration> {
        let Some(timeline) = self.timeline() else { return Duration::ZERO..Duration::ZERO };
        let end = match timeline.list.is_ended {
            true => timeline.end(),
            // Section 6.3.3: closer to the live edge a reader would wait for each segment.
            false => timeline.edge().saturating_sub(hold_back(&timeline.list, &self.config)),
        };
        timeline.start()..end.max(timeline.start())
    }

    /// Duration of a presentation that has an end.
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.timeline().filter(|timeline| timeline.list.is_ended).map(Timeline::end)
    }

    /// Distance of the reader from the end of a live playlist, which moves on with the time while that can't be loaded. `None` for a
    /// presentation that has ended.
    pub(crate) fn latency(&self, now: Instant) -> Option<Duration> {
        let live = self.timeline().filter(|timeline| !timeline.list.is_ended)?;
        let missed = self.recovery.reload_fails_since.map(|since| now.saturating_duration_since(since));
        let edge = live.edge().saturating_add(missed.unwrap_or_default());
        Some(edge.saturating_sub(self.reader_time()))
    }
}
