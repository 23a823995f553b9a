//! What playlists bring: those of other levels, new versions of live ones, and ones that can't be had.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::State;
use super::arrivals::EXCLUSION;
use super::slot::{Slot, SlotPhase};
use crate::error::Error;
use crate::source::hls::config::HlsConfig;
use crate::source::hls::event::HlsEvent;
use crate::source::hls::playlist::MediaPlaylist;
use crate::source::hls::section::Discontinuity;
use crate::source::hls::start::{hold_back, start_of};
use crate::source::hls::timeline::{Timeline, Version};

impl State {
    /// A playlist has arrived. True if it brings something new.
    pub(in super::super) fn handle_playlist(&mut self, level: usize, list: MediaPlaylist, url: Url) -> bool {
        // The thread of a live stream requests playlists too, and those are not counted.
        let mut number = u64::MAX;
        if self.wanted.is_some_and(|(wanted, _)| wanted == level) {
            self.wanted = None;
            number = self.requested;
        }
        let mut is_new = true;
        let timeline = match (&self.timelines[level], &self.timelines[self.level]) {
            (Some(own), _) => match own.compare(&list) {
                Version::Older => return false,
                Version::Restarted => return self.restart_playlist(level, list, url),
                Version::Newer { has_changed } => {
                    is_new = has_changed;
                    own.update(list, url)
                }
            },
            (None, Some(current)) => current.other(list, url),
            (None, None) => Timeline::new(list, url, self.cursor),
        };
        let is_fresh = |slot: &&mut Slot| {
            slot.level == level && slot.phase == SlotPhase::Reloading && slot.requested_before < number
        };
        for slot in self.slots.iter_mut().filter(is_fresh) {
            slot.phase = SlotPhase::Planned;
            if let Some(piece) = timeline.piece(slot.place) {
                slot.segment = piece.segment;
            }
        }
        self.timelines[level] = Some(timeline);
        self.commit();
        is_new
    }

    /// The server has started its playlist again (section 6.2.2 forbids it): what is fetched is played, and then it continues
    /// at the new live edge.
    pub(in super::super) fn restart_playlist(&mut self, level: usize, list: MediaPlaylist, url: Url) -> bool {
        let timeline = Timeline::new(list, url, self.cursor);
        if level == self.level {
            self.slots.retain(|slot| slot.phase != SlotPhase::Reloading);
            self.cursor = start_of(&timeline, &HlsConfig { start: None, ..self.config.clone() });
            self.follows = None;
            self.pending = Some(Discontinuity::Reset);
        }
        self.timelines[level] = Some(timeline);
        self.commit();
        true
    }

    /// A playlist can't be fetched or read.
    pub(in super::super) fn handle_playlist_failed(&mut self, level: usize, error: Error, now: Instant) {
        if self.wanted.is_some_and(|(wanted, _)| wanted == level) {
            self.wanted = None;
        }
        self.levels[level].excluded_until = now.checked_add(EXCLUSION);
        let waiting =
            self.slots.iter().find(|slot| slot.level == level && slot.phase == SlotPhase::Reloading);
        if let Some(slot) = waiting.map(|slot| slot.id) {
            self.handle_segment_failed(slot, error, now);
        } else if self.timelines[self.level].is_none() {
            self.error.get_or_insert(error);
        }
    }

    pub(in super::super) fn is_live(&self) -> bool {
        self.timelines[self.level].as_ref().is_some_and(|timeline| !timeline.list.is_ended)
    }

    pub(in super::super) fn timeline(&self) -> Option<&Timeline> {
        self.timelines[self.level].as_ref()
    }

    /// The playlist to load again: its level, URL and last version. `None` once it has ended.
    pub(in super::super) fn live_playlist(&self) -> Option<(usize, Url, Arc<MediaPlaylist>)> {
        let timeline = self.timelines[self.level].as_ref().filter(|timeline| !timeline.list.is_ended)?;
        Some((self.level, self.levels[self.level].url.clone(), Arc::clone(&timeline.list)))
    }

    /// The server does not write this playlist any more, as it seems: another level may be better (section 6.3.4).
    pub(in super::super) fn handle_stale(&mut self, level: usize, now: Instant) {
        self.levels[level].excluded_until = now.checked_add(EXCLUSION);
    }

    /// A live playlist could not be loaded again.
    pub(in super::super) fn handle_reload_failed(&mut self, level: usize, error: Error) {
        self.events.push(HlsEvent::PlaylistFailed { level, error });
    }

    /// No level has changed for too long.
    pub(in super::super) fn handle_stuck(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// Times that can be sought to.
    pub(in super::super) fn seekable(&self) -> Range<Duration> {
        let Some(timeline) = self.timeline() else { return Duration::ZERO..Duration::ZERO };
        let end = match timeline.list.is_ended {
            true => timeline.end(),
            false => timeline.edge().saturating_sub(hold_back(&timeline.list, &self.config)),
        };
        timeline.start()..end.max(timeline.start())
    }
}
