//! The choice of bitrates when what it goes by is wrong: a remembered estimate of another network, and bitrates that lie. In the
//! simulator of `benches/abr`.

#![cfg(feature = "hls")]
#![allow(dead_code, reason = "the bench uses what the test does not")]

#[path = "../benches/abr/simulator.rs"]
mod simulator;
#[path = "../benches/abr/traces.rs"]
mod traces;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use simulator::{Figures, Player, Transfer, Video, View, simulate};
use traces::Trace;
use windway::abr::{Abr, AbrConfig, Bitrates, Estimator, Hybrid, Progress, Snapshot};

/// windway with a start of its own, and with other bitrates than those of the segments.
struct Misled {
    abr: Hybrid,
    estimator: Estimator,
    /// What the playlist names, and what the segments have shown.
    bitrates: Bitrates,
    start: Instant,
    progress: Option<Progress>,
    /// Level of the running transfer, whether its length is known, and seconds of its segment.
    running: (usize, bool, f64),
    /// Level that is fetched instead of it.
    next: Option<usize>,
    levels: Vec<usize>,
}

impl Misled {
    fn new(remembered: Option<f64>, named: Vec<u64>) -> Self {
        Self {
            abr: Hybrid::new(AbrConfig::default()),
            estimator: remembered.map(Estimator::remembering).unwrap_or_default(),
            bitrates: Bitrates::new(named),
            start: Instant::now(),
            progress: None,
            running: (0, false, 0.0),
            next: None,
            levels: Vec::new(),
        }
    }

    fn handle_length(&mut self, bits: f64) {
        let (level, is_known, segment) = &mut self.running;
        if !std::mem::replace(is_known, true) {
            self.bitrates.handle_segment(*level, (bits / 8.0) as u64, Duration::from_secs_f64(*segment));
        }
    }

    fn at(&self, now: f64) -> Instant {
        self.start + Duration::from_secs_f64(now)
    }

    fn snapshot(&self, view: &View<'_>) -> Snapshot<'_> {
        let seconds = Duration::from_secs_f64;
        let mut snapshot =
            Snapshot::new(self.bitrates.corrected(), seconds(view.video.segment), seconds(120.0));
        snapshot.named = self.bitrates.named();
        snapshot.current = view.current;
        snapshot.buffered = seconds(view.buffered);
        snapshot.throughput = self.estimator.throughput();
        snapshot.ttfb = self.estimator.ttfb();
        snapshot.is_starting = view.is_starting;
        snapshot
    }
}

impl Player for Misled {
    fn capacity(&self, _: &Video) -> f64 {
        120.0
    }

    fn choose(&mut self, view: &View<'_>) -> usize {
        let mut abr = std::mem::take(&mut self.abr);
        let level = abr.choose(self.at(view.now), &self.snapshot(view));
        let level = self.bitrates.best(level);
        (self.abr, self.progress) = (abr, None);
        self.running = (level, false, view.video.segment);
        self.levels.push(level);
        level
    }

    fn handle(&mut self, transfer: &Transfer, _: f64) {
        let [seconds, latency] = [transfer.seconds, transfer.latency].map(Duration::from_secs_f64);
        self.estimator.handle_transfer((transfer.bits / 8.0) as u64, seconds, latency);
        // One that is abandoned is known by then.
        self.handle_length(transfer.bits);
        if let Some(next) = self.next.take() {
            self.running = (next, false, self.running.2);
        }
    }

    fn abandon(&mut self, view: &View<'_>, left: f64, _: f64) -> Option<usize> {
        let now = self.at(view.now);
        // `Content-Length` shows the true length.
        let bits = view.current.map_or(0.0, |level| view.video.size(level, view.index));
        self.handle_length(bits);
        let received = bits - left;
        let progress = self.progress.get_or_insert_with(|| Progress::new(now - Duration::from_millis(500)));
        let running = progress.running(now, (received / 8.0) as u64, (left / 8.0) as u64);
        let mut abr = std::mem::take(&mut self.abr);
        let other = abr.abandon(now, &self.snapshot(view), &running);
        self.abr = abr;
        let other = other.map(|other| self.bitrates.best(other)).filter(|other| Some(*other) < view.current);
        if let Some(other) = other {
            self.progress = None;
            self.next = Some(other);
        }
        other
    }
}

const LADDERS: [&[u64]; 3] =
    [&[66_000, 134_000, 270_000, 989_000], &[48_000, 96_000, 192_000, 320_000], &[64_000, 128_000, 256_000]];

/// Ten minutes.
fn video() -> impl Strategy<Value = Video> {
    (0..LADDERS.len(), 2.0..10.0_f64, 0.02..0.3_f64).prop_map(|(ladder, segment, latency)| {
        let segments = (600.0 / segment) as usize;
        Video { bitrates: LADDERS[ladder], segment, segments, latency, sizes: &[] }
    })
}

/// A steady network, this many times as fast as the lowest level needs.
fn steady(video: &Video, factor: f64) -> (Trace, f64) {
    let rate = video.bitrates[0] as f64 * factor / (1.0 - video.latency / video.segment);
    (Trace::new(vec![(100.0, rate)]), rate)
}

fn play(video: &Video, trace: &Trace, remembered: Option<f64>, named: Vec<u64>) -> (Figures, Vec<usize>) {
    let mut player = Misled::new(remembered, named);
    let figures = simulate(video, trace, &mut player);
    (figures, player.levels)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_wrong_remembered_estimate_is_forgotten_within_eight_segments(
        video in video(),
        factor in 1.5..40.0_f64,
        wrong in prop_oneof![Just(0.1), Just(10.0), Just(0.01), Just(100.0)],
    ) {
        let (trace, rate) = steady(&video, factor);
        let named = video.bitrates.to_vec();
        let (right, right_levels) = play(&video, &trace, Some(rate), named.clone());
        let (figures, levels) = play(&video, &trace, Some(rate * wrong), named);
        prop_assert!(figures.stalled <= right.stalled + 0.5, "{figures:?}, with the true one {right:?}");
        // What the network sustains, with a margin.
        let sustained = video.bitrates.partition_point(|bitrate| *bitrate as f64 <= 0.5 * rate).saturating_sub(1);
        let reached = levels.iter().position(|level| *level >= sustained);
        prop_assert!(reached.is_some_and(|index| index < 8), "{levels:?}, with the true one {right_levels:?}");
    }

    #[test]
    fn bitrates_that_are_named_too_high_stall_no_longer_than_true_ones(
        video in video(),
        factor in 1.5..40.0_f64,
        lie in 1.0..10.0_f64,
    ) {
        let (trace, _) = steady(&video, factor);
        let (right, _) = play(&video, &trace, None, video.bitrates.to_vec());
        let named = video.bitrates.iter().map(|bitrate| (*bitrate as f64 * lie) as u64).collect();
        let (figures, _) = play(&video, &trace, None, named);
        prop_assert!(figures.stalled <= right.stalled + 0.5, "{figures:?}, with the true ones {right:?}");
    }

    #[test]
    fn bitrates_that_are_named_too_low_or_not_at_all_stall_hardly_longer_than_true_ones(
        video in video(),
        factor in 1.5..40.0_f64,
        lies in prop_oneof![
            Just(vec![0.1; 4]),
            Just(vec![0.0; 4]),
            proptest::collection::vec(0.1..10.0_f64, 4),
        ],
    ) {
        let (trace, _) = steady(&video, factor);
        let (right, _) = play(&video, &trace, None, video.bitrates.to_vec());
        // Sorted, as a ladder is.
        let mut named: Vec<u64> =
            video.bitrates.iter().zip(&lies).map(|(bitrate, lie)| (*bitrate as f64 * lie) as u64).collect();
        named.sort_unstable();
        let (figures, levels) = play(&video, &trace, None, named.clone());
        prop_assert!(levels.iter().all(|level| *level < video.bitrates.len()));
        prop_assert!(figures.stalled <= 2.0 * right.stalled + 1.0, "{named:?}: {figures:?} {levels:?}");
        prop_assert!(figures.switches <= 40.0 + (figures.media + figures.stalled) / 60.0, "{named:?}: {figures:?}");
    }

    #[test]
    fn bitrates_that_are_named_wrong_cost_little_quality(
        video in video(),
        factor in 1.5..40.0_f64,
        lie in -2.3..2.3_f64,
    ) {
        let (trace, _) = steady(&video, factor);
        let (right, _) = play(&video, &trace, None, video.bitrates.to_vec());
        let named = video.bitrates.iter().map(|bitrate| (*bitrate as f64 * lie.exp()) as u64).collect();
        let (figures, levels) = play(&video, &trace, None, named);
        // The first minutes have shown the truth.
        prop_assert!(figures.quality >= right.quality - 0.5, "{lie}: {figures:?}, with the true ones {right:?}, {levels:?}");
    }

    #[test]
    fn a_variable_bitrate_whose_mean_is_named_does_not_stall(
        video in video(),
        factor in 2.0..40.0_f64,
        sizes in proptest::collection::vec(0.5..1.5_f64, 60),
    ) {
        let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
        let sizes: Vec<f64> = sizes.iter().map(|size| size / mean).collect();
        let (trace, _) = steady(&video, factor);
        let video = Video { sizes: sizes.leak(), ..video };
        let (figures, levels) = play(&video, &trace, None, video.bitrates.to_vec());
        prop_assert!(figures.stalled == 0.0, "{figures:?} {levels:?}");
        prop_assert!(figures.switches <= 40.0, "{figures:?} {levels:?}");
    }
}
