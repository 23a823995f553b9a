//! Which variant to use, and what changes with it.

use std::time::{Duration, Instant};

use url::Url;

use super::State;
use super::drop_buffered;
use super::section::Discontinuity;
use crate::abr::Bitrates;
use crate::error::{Error, ErrorKind};
use crate::safe_url::SafeUrl;
use crate::source::hls::config::Quality;
use crate::source::hls::event::HlsEvent;
use crate::source::hls::ladder::levels::{LevelInfo, MOST_VARIANTS, RenditionInfo, VariantStream};
use crate::source::hls::ladder::steering::Manifest;

/// A live playlist that was just loaded is used for at least this time. With a target duration of 0 it would be loaded again and again
/// before it is used.
const LEAST_FRESH: Duration = Duration::from_secs(1);

impl State {
    /// The level of the next segment.
    pub(crate) fn level(&self) -> usize {
        self.ladder.variants[self.variant].level
    }

    /// True if the next segment is fetched from this variant.
    pub(crate) fn is_used(&self, variant: usize) -> bool {
        self.variant == variant
    }

    /// The level that the user has fixed.
    pub(super) fn fixed_level(&self) -> Option<usize> {
        match &self.config.quality {
            Quality::Fixed(level) => Some((*level).min(self.levels().len() - 1)),
            Quality::Auto(_) | Quality::Custom(_) => None,
        }
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

    /// The best usable variant that `is_wanted`: first by the order of pathways, then by the distance of its level.
    pub(super) fn pick(
        &self,
        level: usize,
        now: Instant,
        is_wanted: impl Fn(&VariantStream) -> bool,
    ) -> Option<usize> {
        self.pick_index(level, now, |index| is_wanted(&self.ladder.variants[index]))
    }

    /// As `pick`, by the index of the variant.
    pub(super) fn pick_index(
        &self,
        level: usize,
        now: Instant,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.pick_of(level, |index| self.ladder.variants[index].is_usable(now) && is_wanted(index))
    }

    /// As `pick_index`, also of those that have failed.
    pub(super) fn pick_of(&self, level: usize, is_wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let current = &self.ladder.variants[self.variant];
        let variants = self.ladder.variants.iter().enumerate();
        let wanted =
            variants.filter(|(index, variant)| variant.rendition == self.rendition && is_wanted(*index));
        let best = wanted.min_by_key(|(index, variant)| {
            let rank = self.steering.as_ref().map_or(0, |steering| steering.rank(&variant.pathway));
            let is_other_server =
                (variant.pathway != current.pathway, server(&variant.url) != server(&current.url));
            // Of two levels that are equally near the lower one.
            let distance = (variant.level.abs_diff(level), variant.level);
            // The present server works, so it comes before others of the same level.
            (rank, distance, *index != self.variant, is_other_server, *index)
        });
        best.map(|(index, _)| index)
    }

    /// A variant where none is usable: of those nearest to the level in use, the one that failed longest ago.
    pub(super) fn last_resort(&self) -> usize {
        let level = self.level();
        let variants = self.ladder.variants.iter().enumerate();
        let wanted = variants.filter(|(_, variant)| variant.rendition == self.rendition);
        let oldest = wanted.min_by_key(|(index, variant)| {
            (variant.level.abs_diff(level), variant.excluded_until, *index != self.variant)
        });
        oldest.map_or(self.variant, |(index, _)| index)
    }

    /// Drops the segments from `start` on, and continues there with another variant.
    pub(super) fn restart_at(&mut self, start: Duration, variant: usize, now: Instant) {
        self.keep_shared(start);
        self.retain_segments(|queued| queued.start < start);
        self.cursor = start;
        self.follows = self.queue.back().map(|queued| (queued.variant, queued.next));
        if self.is_loaded(variant, now) {
            self.switch(variant);
        } else {
            self.pending_playlist = Some((variant, false));
        }
    }

    /// True if what the playlist of this variant lists can be fetched now.
    pub(super) fn is_loaded(&self, variant: usize, now: Instant) -> bool {
        let Some(timeline) = &self.timelines[variant] else { return false };
        if variant == self.variant || timeline.list.is_ended {
            return true;
        }
        // Section 6.3.4: only the playlist in use is loaded again and again. Segments that this one lists by now would be missed,
        // and if it has no more, nothing would load it.
        let fresh_for = timeline.list.target_duration.max(LEAST_FRESH);
        let Some(load) = self.ladder.variants[variant].last_load else { return false };
        // From its arrival on: one that takes longer to load than it is fresh would be loaded again and again before it is used.
        // One that lists the next segment is enough, however long the segment before has taken: once it is in use it is loaded again.
        timeline.edge() > self.cursor || now.saturating_duration_since(load.ended) < fresh_for
    }

    /// Fetches from another variant from the next segment on.
    pub(super) fn switch(&mut self, to: usize) {
        let from = std::mem::replace(&mut self.variant, to);
        if from == to {
            return;
        }
        self.drop_hinted();
        self.ladder.variants[from].last_load = None;
        let (old, new) = (&self.ladder.variants[from], &self.ladder.variants[to]);
        // A drop of what is buffered leaves the cursor a little behind the start of a segment.
        let timeline = self.timelines[from].as_ref();
        let at = timeline.and_then(|timeline| timeline.start_of(timeline.sequence_at(self.cursor)));
        let at = at.filter(|start| self.cursor.saturating_sub(*start) <= drop_buffered::TOLERANCE);
        let at = at.unwrap_or(self.cursor);
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
            self.bitrates = Bitrates::new(self.ladder.bitrates(rendition));
            self.limit_levels();
            (0..self.timelines.len()).for_each(|variant| self.handle_listed_sizes(variant));
            (self.pending_playlist, self.sections.level) = (None, None);
            self.restart(self.sections.reader_time, Discontinuity::Rendition);
        }
        Ok(())
    }

    /// The application has a fresh URL for a playlist.
    pub(crate) fn set_playlist_url(&mut self, variant: usize, url: Url) {
        self.ladder.variants[variant].url = url;
    }

    /// The application has a fresh URL for a playlist that `plan` has requested, and that was refused. False if it had one since the
    /// last time that the playlist came.
    pub(crate) fn handle_fresh_playlist(&mut self, variant: usize, url: Url) -> bool {
        if std::mem::replace(&mut self.ladder.variants[variant].is_refreshed, true) {
            return false;
        }
        self.set_playlist_url(variant, url);
        // Requested again. If another playlist is wanted by now, this one will be when a segment needs it.
        let pending = self.pending_playlist.as_mut().filter(|(wanted, _)| *wanted == variant);
        if let Some((_, is_fetching)) = pending {
            *is_fetching = false;
        }
        true
    }

    pub(super) fn poll_steering(&mut self, now: Instant) -> Option<Url> {
        let throughput = self.network.estimator.throughput();
        let pathway = &self.ladder.variants[self.variant].pathway;
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
                log::debug!("the steering manifest could not be fetched: {error}");
            }
        }
    }

    fn add_clones(&mut self, manifest: &Manifest, from: &Url) {
        for clone in &manifest.clones {
            let variants = &self.ladder.variants;
            let is_known = variants.iter().any(|variant| variant.pathway == clone.id);
            if is_known {
                continue;
            }
            // Each manifest may name new pathways, without end.
            let room = MOST_VARIANTS.saturating_sub(variants.len());
            let of_base = variants.iter().filter(|variant| variant.pathway == clone.base).take(room);
            let cloned: Vec<VariantStream> = of_base
                .filter_map(|variant| {
                    let url = clone.apply(&variant.url, &variant.stable)?;
                    self.policy.check(from, &url).ok()?;
                    Some(VariantStream {
                        url,
                        pathway: clone.id.clone(),
                        excluded_until: None,
                        is_stale: false,
                        last_load: None,
                        last_change: None,
                        is_refreshed: false,
                        ..variant.clone()
                    })
                })
                .collect();
            // One for each variant, by its index.
            self.timelines.extend(cloned.iter().map(|_| None));
            self.ladder.variants.extend(cloned);
        }
    }
}

/// The server of a URL.
pub(super) fn server(url: &Url) -> (Option<&str>, Option<u16>) {
    (url.host_str(), url.port_or_known_default())
}
