//! Segments that arrive too slowly, or of which nothing arrives any more: one of a lower level may be there earlier.

use std::time::{Duration, Instant};

use super::State;
use super::arriving::{Arriving, bounded};
use super::needs::{ResourceKey, needs_of};
use super::network::SegmentTransfer;
use super::queued_segment::QueuedSegment;
use crate::abr::{Progress, Running, Snapshot};
use crate::source::hls::event::HlsEvent;
use crate::source::hls::ladder::levels::VariantStream;

impl State {
    /// The response headers of a segment have arrived.
    pub(crate) fn handle_segment_head(&mut self, id: u64, len: Option<u64>, now: Instant) {
        self.recovery.last_arrival = Some(now);
        let is_replacement = self.replacements.is(id);
        if let Some(queued) = self.queued(id) {
            let requested = queued.requested.take();
            let progress = Progress::new(now);
            queued.arriving = Some(Arriving { progress, checked: now, last: now, len, share: 1.0 });
            // A replacement may have waited for urgent fetches.
            if let Some(requested) = requested.filter(|_| !is_replacement) {
                self.network.last_wait = now.saturating_duration_since(requested.at);
            }
        }
    }

    /// A segment has this share of what all streams of the downloader have received since its response headers arrived.
    pub(crate) fn handle_share(&mut self, id: u64, share: f64) {
        if let Some(arriving) = self.queued(id).and_then(|queued| queued.arriving.as_mut()) {
            arriving.share = share;
        }
    }

    /// Bytes of a segment have arrived. True if it was abandoned for them, as by [`poll_late_segment`](Self::poll_late_segment). Of
    /// one that is not needed any more [`handle_frames`](Self::handle_frames) says so.
    pub(crate) fn handle_segment_bytes(&mut self, id: u64, bytes: u64, now: Instant) -> bool {
        self.note_arrival(false);
        let Some(queued) = self.queued(id) else { return false };
        queued.received += bytes;
        let Some(arriving) = &mut queued.arriving else { return false };
        arriving.last = now;
        now >= arriving.next_check() && self.check_segment(id, now)
    }

    /// Checks a segment that is due, also if nothing of it arrives. True if it was abandoned: then the fetches of which
    /// [`is_needed`](Self::is_needed) knows nothing have to be cancelled.
    pub(crate) fn poll_late_segment(&mut self, now: Instant) -> bool {
        let is_due = |queued: &&QueuedSegment| queued.next_check().is_some_and(|check| check <= now);
        let due: Vec<u64> = self.running().filter(is_due).map(|queued| queued.id).collect();
        due.into_iter().any(|id| self.check_segment(id, now))
    }

    /// What may be arriving.
    fn running(&self) -> impl Iterator<Item = &QueuedSegment> {
        self.queue.iter().chain(self.replacements.queued())
    }

    fn check_segment(&mut self, id: u64, now: Instant) -> bool {
        let known = self.running().find(|queued| queued.id == id);
        let Some(left) = known.map(|queued| self.missing_bytes(queued)) else { return false };
        let Some(queued) = self.queued(id) else { return false };
        let running = match (&mut queued.arriving, &mut queued.requested) {
            (Some(arriving), _) => {
                arriving.checked = now;
                arriving.progress.running(now, queued.received, left)
            }
            (None, Some(requested)) => {
                requested.handle_checked(now);
                // Without a recent throughput: a server that does not answer shows nothing of the network.
                Running::new(left, 0.0)
            }
            (None, None) => return false,
        };
        self.abandon(now, id, &running)
    }

    /// Bytes of a segment that have not arrived.
    pub(super) fn missing_bytes(&self, queued: &QueuedSegment) -> u64 {
        self.size_of(queued).saturating_sub(queued.received)
    }

    fn size_of(&self, queued: &QueuedSegment) -> u64 {
        // Without a `Content-Length` the bitrate of the level shows about how long it is.
        queued.announced_size().unwrap_or_else(|| {
            let bitrate = self.bitrates.get(self.ladder.variants[queued.variant].level);
            (bitrate as f64 * queued.segment.duration.as_secs_f64() / 8.0) as u64
        })
    }

    /// The initialization section of a segment, if nothing of it has arrived for as long as the segment itself may be silent.
    fn silent_init(&self, queued: &QueuedSegment, now: Instant) -> Option<ResourceKey> {
        let init = queued.needs.init.as_ref()?;
        let last = self.resources.last_progress(init)?;
        let patience = bounded(self.patience(queued.segment.duration));
        (now.saturating_duration_since(last) >= patience).then(|| init.clone())
    }

    /// The initialization section that a variant needs at this place, if its playlist is there.
    fn init_at(&self, variant: usize, place: Duration) -> Option<ResourceKey> {
        let timeline = self.timelines[variant].as_ref()?;
        let position = timeline.position_at(place);
        let segment = timeline.segment_at(position)?.segment;
        needs_of(&segment, position.sequence, &timeline.url, self.policy).ok()?.init
    }

    /// How long the response headers of a segment may take before the rule is asked.
    pub(super) fn patience(&self, duration: Duration) -> Duration {
        // A server that produces segments when they are requested takes its time for each.
        let usual = self.network.last_wait.saturating_mul(2);
        // At the start nothing plays: the first segment may take as long as it lasts.
        if self.is_starting { usual.max(duration) } else { usual }
    }

    /// When a blocked reader has something to check by [`poll_late_segment`](Self::poll_late_segment) or
    /// [`take_wake`](Self::take_wake), although nothing arrives.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        // Without a rule nothing is ever abandoned.
        let segments = self.running().filter(|_| self.abr.has_rule());
        segments.filter_map(QueuedSegment::next_check).chain(self.stalls()).min()
    }

    /// True if the frames of this segment are still needed.
    pub(crate) fn is_needed(&self, id: u64) -> bool {
        self.replacements.is(id) || self.queue.iter().any(|queued| queued.id == id)
    }

    /// Abandons a segment that is arriving if one of a lower level would arrive earlier. The lower level is used from here on.
    /// True if the segment was abandoned.
    pub(crate) fn abandon(&mut self, now: Instant, id: u64, running: &Running) -> bool {
        if self.replacements.is(id) {
            return !self.keeps_replacing(now, running);
        }
        let Some(queued) = self.queue.iter().find(|known| known.id == id) else { return false };
        let (start, duration) = (queued.start, queued.segment.duration);
        let silent = self.silent_init(queued, now);
        // Without the initialization section nothing of the segment can be played: it is as late as one of which nothing arrives.
        let stalled = Running::new(self.size_of(queued), 0.0);
        let running = if silent.is_some() { &stalled } else { running };
        let share = queued.arriving.filter(|_| silent.is_none()).map(|arriving| arriving.share);
        let is_sized = queued.has_frames && queued.announced_size().is_some();
        let level = self.ladder.variants[queued.variant].level;
        let bitrates = self.expected_bitrates();
        // With the duration of this segment: that of the playlist may be longer, and a level that is fast enough would seem too slow.
        let snapshot = self.network.snapshot(&bitrates, duration, &self.config);
        let buffered = self.ahead(start);
        let is_starting = self.is_starting;
        let snapshot = Snapshot { current: Some(level), buffered, is_starting, ..snapshot };
        // A rule of the application may return any level. Only a lower one can arrive earlier.
        let other = self.abr.ask("Abr::abandon", |rule| rule.abandon(now, &snapshot, running)).flatten();
        let other = other.map(|other| self.best_level(other)).filter(|other| *other < level);
        let lower = |variant: &VariantStream| variant.level < level;
        let other = other.and_then(|other| self.pick(other, now, lower));
        let needs_silent =
            |other: &usize| silent.is_some() && self.init_at(*other, start + duration / 2) == silent;
        let Some(other) = other.filter(|other| !needs_silent(other)) else { return false };
        if is_sized {
            self.handle_size(id);
        }
        if let Some(share) = share {
            let ttfb = self.network.estimator.ttfb();
            // It never ends as a transfer, but it has shown the rate of the network: count one second of it.
            let (bytes, body, wait) =
                ((running.throughput / 8.0) as u64, Duration::from_secs(1), Duration::ZERO);
            self.handle_transfer(SegmentTransfer { bytes, body, share, wait, ttfb });
        }
        self.events.push(HlsEvent::Abandoned { level, at: start });
        self.level_cap.handle_abandoned(self.ladder.variants[other].level, start, duration);
        self.restart_at(start, other, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::abr::Estimator;
    use crate::client::UriPolicy;
    use crate::source::hls::config::HlsConfig;
    use crate::source::hls::ladder::levels::Ladder;
    use crate::source::hls::playlist::Playlist;
    use crate::source::hls::state::Planned;
    use crate::source::hls::timeline::Timeline;
    use crate::types::Priority;

    /// Expected throughput after a segment was abandoned of which 100 kbit have arrived in a second.
    fn after_abandoned(share: f64) -> f64 {
        let url = Url::parse("http://host/l").unwrap();
        let parse = |text: &str| Playlist::parse(text.as_bytes(), url.as_str()).unwrap();
        let ladder = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000\na\n#EXT-X-STREAM-INF:BANDWIDTH=480000\nb\n";
        let Playlist::Multivariant(list) = parse(ladder) else { panic!("a ladder") };
        let ladder = Ladder::new(&list, &url, UriPolicy::default(), None).unwrap();
        let Playlist::Media(list) =
            parse("#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\na\n#EXT-X-ENDLIST\n")
        else {
            panic!("a media playlist")
        };
        let first = (1, Timeline::new(list, url, Duration::ZERO));
        let mut state = State::new(HlsConfig::default(), ladder, None, first, Estimator::default());
        let now = Instant::now();
        let Some(Planned::Segment { id, .. }) = state.plan(now, Priority::High) else { panic!("a segment") };
        state.handle_segment_head(id, Some(480_000), now);
        state.handle_share(id, share);
        assert!(state.handle_segment_bytes(id, 12_500, now + Duration::from_secs(1)), "it is abandoned");
        state.network.throughput().unwrap()
    }

    #[test]
    fn an_abandoned_segment_shows_the_network_and_not_the_share_that_it_had() {
        let [alone, shared] = [1.0, 0.25].map(after_abandoned);
        assert!(alone > 70_000.0 && (shared / alone - 4.0).abs() < 0.01, "{alone}, {shared}");
    }
}
