//! windway's choice, and what other players do, written from the description of their rules.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use windway::abr::{self, Abr, AbrConfig, Estimator, Hybrid, Progress, Running, Snapshot};

use super::simulator::{Buffered, Player, Transfer, Video, View};

/// windway: `Estimator` and `Hybrid`.
pub(crate) struct Windway {
    abr: Hybrid,
    estimator: Estimator,
    capacity: f64,
    start: Instant,
    /// Of the transfer that is running.
    progress: Option<Progress>,
}

impl Windway {
    pub(crate) fn new(capacity: f64, replaces: bool) -> Self {
        let mut config = AbrConfig::default();
        config.replaces = replaces;
        let abr = Hybrid::new(config);
        Self { abr, estimator: Estimator::default(), capacity, start: Instant::now(), progress: None }
    }

    fn at(&self, now: f64) -> Instant {
        self.start + Duration::from_secs_f64(now)
    }

    fn snapshot<'a>(&self, view: &View<'a>) -> Snapshot<'a> {
        let seconds = Duration::from_secs_f64;
        let mut snapshot =
            Snapshot::new(view.video.bitrates, seconds(view.video.segment), seconds(self.capacity));
        snapshot.current = view.current;
        snapshot.buffered = seconds(view.buffered);
        snapshot.throughput = self.estimator.throughput();
        snapshot.ttfb = self.estimator.ttfb();
        snapshot.is_starting = view.is_starting;
        snapshot
    }
}

impl Player for Windway {
    fn capacity(&self, _: &Video) -> f64 {
        self.capacity
    }

    fn choose(&mut self, view: &View<'_>) -> usize {
        let snapshot = self.snapshot(view);
        self.progress = None;
        self.abr.choose(self.at(view.now), &snapshot)
    }

    fn handle(&mut self, transfer: &Transfer, _: f64) {
        // As the library: by the rate of the last seconds, since the mean of a transfer hides that the network has changed.
        let seconds = Duration::from_secs_f64(transfer.bits / transfer.recent.max(1.0));
        let latency = Duration::from_secs_f64(transfer.latency);
        self.estimator.handle_transfer((transfer.bits / 8.0) as u64, seconds, latency);
    }

    fn abandon(&mut self, view: &View<'_>, left: f64, _: f64) -> Option<usize> {
        let (snapshot, now) = (self.snapshot(view), self.at(view.now));
        let received = view.current.map_or(0.0, |level| view.video.size(level, view.index) - left);
        // Asked for the first time half a second after the first byte.
        let progress = self.progress.get_or_insert_with(|| Progress::new(now - Duration::from_millis(500)));
        let running = progress.running(now, (received / 8.0) as u64, (left / 8.0) as u64);
        let other = self.abr.abandon(now, &snapshot, &running);
        if other.is_some() {
            self.progress = None;
        }
        other
    }

    fn replace(&mut self, view: &View<'_>, buffered: &[Buffered]) -> Option<(usize, usize)> {
        let snapshot = self.snapshot(view);
        let buffered: Vec<abr::Buffered> = buffered
            .iter()
            .map(|segment| {
                let starts_in = Duration::from_secs_f64(segment.starts_in);
                abr::Buffered::new(segment.id, segment.level, starts_in)
            })
            .collect();
        self.abr.replace(self.at(view.now), &snapshot, &buffered)
    }

    fn handle_replaced(&mut self, id: u64) {
        self.abr.handle_replaced(id);
    }

    fn keeps_replacing(&mut self, view: &View<'_>, left: f64, rate: f64, starts_in: f64) -> bool {
        let starts_in = Duration::from_secs_f64(starts_in.max(0.0));
        self.abr.keeps_replacing(self.at(view.now), &Running::new((left / 8.0) as u64, rate), starts_in)
    }
}

/// Always the lowest.
pub(crate) struct Lowest;

impl Player for Lowest {
    fn capacity(&self, _: &Video) -> f64 {
        120.0
    }

    fn choose(&mut self, _: &View<'_>) -> usize {
        0
    }

    fn handle(&mut self, _: &Transfer, _: f64) {}
}

/// An exponential average by time, corrected for its start.
#[derive(Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn add(&mut self, rate: f64, seconds: f64, half_life: f64) {
        let kept = 0.5_f64.powf(seconds / half_life);
        self.sum = self.sum * kept + rate * (1.0 - kept);
        self.weight = self.weight * kept + (1.0 - kept);
    }

    fn get(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

fn highest_below(video: &Video, rate: f64) -> usize {
    video.bitrates.partition_point(|bitrate| *bitrate as f64 <= rate).saturating_sub(1)
}

/// kithara alpha5: averages over 2 s and 10 s of the rate with the wait in it, divided by 1.5; up by a margin of 1.3 with 10 s
/// buffered, 30 s after the last change; down at once below 5 s; 2 MiB ahead.
#[derive(Default)]
pub(crate) struct Kithara {
    fast: Average,
    slow: Average,
    changed: f64,
}

impl Player for Kithara {
    fn capacity(&self, video: &Video) -> f64 {
        (2.0 * 1024.0 * 1024.0 * 8.0 / video.bitrates[video.bitrates.len() - 1] as f64)
            .max(2.0 * video.segment)
    }

    fn choose(&mut self, view: &View<'_>) -> usize {
        let Some(current) = view.current else { return 0 };
        let Some(rate) = self.fast.get().zip(self.slow.get()).map(|(fast, slow)| fast.min(slow) / 1.5) else {
            return current;
        };
        let wanted = highest_below(view.video, rate);
        let is_urgent = wanted < current && view.buffered <= 5.0;
        let is_up = wanted > current
            && view.buffered >= 10.0
            && rate >= view.video.bitrates[wanted] as f64 * 1.3 / 1.5;
        let may = view.now - self.changed >= 30.0;
        if is_urgent || (may && (is_up || wanted < current)) {
            self.changed = view.now;
            return wanted;
        }
        current
    }

    fn handle(&mut self, transfer: &Transfer, _: f64) {
        let seconds = transfer.seconds + transfer.latency;
        self.fast.add(transfer.bits / seconds, seconds, 2.0);
        self.slow.add(transfer.bits / seconds, seconds, 10.0);
    }
}

/// Media3: the weighted median of recent rates, of which 0.7 are used; up with 10 s buffered, down below 25 s; 50 s ahead.
#[derive(Default)]
pub(crate) struct Media3 {
    samples: VecDeque<(f64, f64)>,
}

impl Player for Media3 {
    fn capacity(&self, _: &Video) -> f64 {
        50.0
    }

    fn choose(&mut self, view: &View<'_>) -> usize {
        let rate = self.median().unwrap_or(1e6) * 0.7;
        let ideal = highest_below(view.video, rate);
        let Some(current) = view.current else { return ideal };
        let is_kept = (ideal > current && view.buffered < 10.0) || (ideal < current && view.buffered >= 25.0);
        if is_kept { current } else { ideal }
    }

    fn handle(&mut self, transfer: &Transfer, _: f64) {
        let seconds = transfer.seconds + transfer.latency;
        self.samples.push_back(((transfer.bits / 8.0).sqrt(), transfer.bits / seconds));
        while self.samples.iter().map(|sample| sample.0).sum::<f64>() > 2000.0 && self.samples.len() > 1 {
            self.samples.pop_front();
        }
    }
}

impl Media3 {
    fn median(&self) -> Option<f64> {
        let mut sorted: Vec<_> = self.samples.iter().copied().collect();
        sorted.sort_by(|one, other| one.1.total_cmp(&other.1));
        let half = sorted.iter().map(|sample| sample.0).sum::<f64>() / 2.0;
        let mut passed = 0.0;
        sorted
            .iter()
            .find(|sample| {
                passed += sample.0;
                passed >= half
            })
            .map(|sample| sample.1)
    }
}

/// hls.js: averages over 3 s and 9 s; 0.95 of them for the current level and below, 0.7 for higher ones; up to 30 s ahead; gives
/// up a segment that would starve the buffer.
#[derive(Default)]
pub(crate) struct HlsJs {
    fast: Average,
    slow: Average,
}

impl HlsJs {
    fn rate(&self) -> f64 {
        self.fast.get().zip(self.slow.get()).map_or(500e3, |(fast, slow)| fast.min(slow))
    }
}

impl Player for HlsJs {
    fn capacity(&self, _: &Video) -> f64 {
        30.0
    }

    fn choose(&mut self, view: &View<'_>) -> usize {
        let current = view.current.unwrap_or(0);
        let rate = self.rate();
        let fits = |level: &usize| {
            let factor = if *level > current { 0.7 } else { 0.95 };
            let bitrate = view.video.bitrates[*level] as f64;
            // What is buffered may be used up, at half of a segment for each.
            let fetch = bitrate * view.video.segment / rate;
            bitrate <= rate * factor || (*level <= current && fetch < view.buffered * 0.5)
        };
        (0..view.video.bitrates.len()).rev().find(fits).unwrap_or(0)
    }

    fn handle(&mut self, transfer: &Transfer, _: f64) {
        let seconds = transfer.seconds.max(0.05);
        self.fast.add(transfer.bits / seconds, seconds, 3.0);
        self.slow.add(transfer.bits / seconds, seconds, 9.0);
    }

    fn abandon(&mut self, view: &View<'_>, left: f64, rate: f64) -> Option<usize> {
        let current = view.current?;
        let wait = left / rate.max(1.0);
        if wait <= view.buffered || current == 0 {
            return None;
        }
        let fetch = |level: &usize| view.video.bits(*level) / (rate.max(1.0) * 0.8);
        let other = (0..current).rev().find(|level| fetch(level) < view.buffered).unwrap_or(0);
        (fetch(&other) < wait).then_some(other)
    }
}

/// BOLA-basic with a buffer of 60 s (Spiteri et al., "BOLA: Near-Optimal Bitrate Adaptation for Online Videos", 2016).
pub(crate) struct Bola;

impl Player for Bola {
    fn capacity(&self, _: &Video) -> f64 {
        60.0
    }

    fn choose(&mut self, view: &View<'_>) -> usize {
        let video = view.video;
        let last = video.bitrates.len() - 1;
        let utility = |level: usize| (video.bitrates[level] as f64 / video.bitrates[0] as f64).ln();
        let gamma = 5.0 / video.segment;
        let weight = (60.0 / video.segment - 1.0) / (utility(last) + gamma * video.segment);
        let buffered = view.buffered / video.segment;
        let value = |level: usize| {
            (weight * (utility(level) + gamma * video.segment) - buffered)
                / (video.bits(level) / video.bits(0))
        };
        (0..=last).max_by(|one, other| value(*one).total_cmp(&value(*other))).unwrap_or(0)
    }

    fn handle(&mut self, _: &Transfer, _: f64) {}
}
