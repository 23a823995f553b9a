//! Which mirror to use, and what changes with it.

use std::time::{Duration, Instant};

use url::Url;

use super::State;
use super::section::Discontinuity;
use crate::error::{Error, ErrorKind};
use crate::safe_url::SafeUrl;
use crate::source::hls::event::HlsEvent;
use crate::source::hls::ladder::levels::{LevelInfo, MOST_MIRRORS, Mirror, RenditionInfo};
use crate::source::hls::ladder::steering::Manifest;

impl State {
    /// The level of the next segment.
    pub(crate) fn level(&self) -> usize {
        self.ladder.mirrors[self.mirror].level
    }

    /// True if the next segment is fetched from this mirror.
    pub(crate) fn is_used(&self, mirror: usize) -> bool {
        self.mirror == mirror
    }

    pub(crate) fn levels(&self) -> &[LevelInfo] {
        self.ladder.levels(self.rendition)
    }

    pub(crate) fn renditions(&self) -> &[RenditionInfo] {
        &self.ladder.renditions
    }

    pub(crate) fn rendition(&self) -> usize {
        self.rendition
    }

    /// The best usable mirror that `is_wanted`: first by the order of pathways, then by the distance of its level. A server
    /// that works is kept.
    pub(super) fn pick(
        &self,
        level: usize,
        now: Instant,
        is_wanted: impl Fn(&Mirror) -> bool,
    ) -> Option<usize> {
        let current = &self.ladder.mirrors[self.mirror];
        let usable = self.ladder.mirrors.iter().enumerate().filter(|(_, mirror)| {
            mirror.rendition == self.rendition && mirror.is_usable(now) && is_wanted(mirror)
        });
        let best = usable.min_by_key(|(index, mirror)| {
            let rank = self.steering.as_ref().map_or(0, |steering| steering.rank(&mirror.pathway));
            let is_other_server =
                (mirror.pathway != current.pathway, server(&mirror.url) != server(&current.url));
            // Of two levels that are equally near the lower one.
            let distance = (mirror.level.abs_diff(level), mirror.level);
            (rank, distance, *index != self.mirror, is_other_server, *index)
        });
        best.map(|(index, _)| index)
    }

    /// A mirror where none is usable: of those nearest to the level in use, the one that failed longest ago.
    pub(super) fn last_resort(&self) -> usize {
        let level = self.level();
        let mirrors = self.ladder.mirrors.iter().enumerate();
        let wanted = mirrors.filter(|(_, mirror)| mirror.rendition == self.rendition);
        let oldest = wanted.min_by_key(|(index, mirror)| {
            (mirror.level.abs_diff(level), mirror.excluded_until, *index != self.mirror)
        });
        oldest.map_or(self.mirror, |(index, _)| index)
    }

    /// Drops the segments from `start` on, and continues there with another mirror.
    pub(super) fn restart_at(&mut self, start: Duration, mirror: usize) {
        self.retain_segments(|queued| queued.start < start);
        self.cursor = start;
        self.follows = self.queue.back().map(|queued| (queued.mirror, queued.next));
        if self.is_loaded(mirror) {
            self.switch(mirror);
        } else {
            self.pending_playlist = Some((mirror, false));
        }
    }

    /// True if what the playlist of this mirror lists can be fetched now.
    pub(super) fn is_loaded(&self, mirror: usize) -> bool {
        let is_outdated = self.ladder.mirrors[mirror].is_outdated && mirror != self.mirror;
        self.timelines[mirror].is_some() && !is_outdated
    }

    /// Fetches from another mirror from the next segment on.
    pub(super) fn switch(&mut self, to: usize) {
        let from = std::mem::replace(&mut self.mirror, to);
        if from == to {
            return;
        }
        // Section 6.3.4: only the playlist in use is loaded again and again. Segments that the other one will list would be missed,
        // and if it has no more, nothing would load it.
        let is_live = self.timelines[from].as_ref().is_some_and(|timeline| !timeline.list.is_ended);
        self.ladder.mirrors[from].is_outdated = is_live;
        let (old, new) = (&self.ladder.mirrors[from], &self.ladder.mirrors[to]);
        let at = self.cursor;
        if (old.level, old.rendition) != (new.level, new.rendition) {
            self.events.push(HlsEvent::Switched { from: old.level, to: new.level, at });
        }
        if (&old.pathway, server(&old.url)) != (&new.pathway, server(&new.url)) {
            let (from, to) = (SafeUrl::from(old.url.as_str()), SafeUrl::from(new.url.as_str()));
            self.events.push(HlsEvent::ServerChanged { from, to, at });
        }
    }

    /// Continues with another rendition where the reader is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if there is no such rendition, or it can't be played.
    pub(crate) fn select_rendition(&mut self, rendition: usize) -> Result<(), Error> {
        if self.ladder.levels(rendition).is_empty() {
            let why = format!("there is no rendition {rendition} that can be played");
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        if rendition != self.rendition {
            self.rendition = rendition;
            self.bitrates = self.ladder.bitrates(rendition);
            self.pending_playlist = None;
            self.restart(self.reader_time, Discontinuity::Rendition);
        }
        Ok(())
    }

    /// The application has a fresh URL for a playlist.
    pub(crate) fn set_playlist_url(&mut self, mirror: usize, url: Url) {
        self.ladder.mirrors[mirror].url = url;
    }

    pub(super) fn poll_steering(&mut self, now: Instant) -> Option<Url> {
        let throughput = self.network.estimator.throughput();
        let pathway = &self.ladder.mirrors[self.mirror].pathway;
        self.steering.as_mut()?.poll(now, pathway, throughput)
    }

    /// A steering manifest has arrived from `from`, or its request has failed.
    pub(crate) fn handle_steering(&mut self, manifest: Result<Manifest, Error>, from: &Url, now: Instant) {
        let Some(steering) = &mut self.steering else { return };
        match manifest {
            Ok(manifest) => {
                let reload = manifest.reload(from).filter(|url| self.policy.check(from, url).is_ok());
                steering.handle_manifest(&manifest, reload, now);
                self.add_clones(&manifest, from);
            }
            Err(error) => {
                steering.handle_failed(&error, now);
                log::debug!("the steering manifest can't be had: {error}");
            }
        }
    }

    fn add_clones(&mut self, manifest: &Manifest, from: &Url) {
        for clone in &manifest.clones {
            let mirrors = &self.ladder.mirrors;
            let is_known = mirrors.iter().any(|mirror| mirror.pathway == clone.id);
            if is_known {
                continue;
            }
            // Each manifest may name new pathways, without end.
            let room = MOST_MIRRORS.saturating_sub(mirrors.len());
            let of_base = mirrors.iter().filter(|mirror| mirror.pathway == clone.base).take(room);
            let cloned: Vec<Mirror> = of_base
                .filter_map(|mirror| {
                    let url = clone.apply(&mirror.url, &mirror.stable)?;
                    self.policy.check(from, &url).ok()?;
                    Some(Mirror { url, pathway: clone.id.clone(), excluded_until: None, ..mirror.clone() })
                })
                .collect();
            self.timelines.extend(cloned.iter().map(|_| None));
            self.ladder.mirrors.extend(cloned);
        }
    }
}

/// The server of a URL.
pub(super) fn server(url: &Url) -> (Option<&str>, Option<u16>) {
    (url.host_str(), url.port_or_known_default())
}
