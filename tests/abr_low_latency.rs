//! The choice of bitrates for low-latency streams: parts of 0.33 to 1 s that appear as they are produced, and 1 to 3 s buffered.
//! In virtual time.

#![cfg(feature = "hls")]
#![allow(dead_code, reason = "the bench uses what the test does not")]

#[path = "../benches/abr/traces.rs"]
mod traces;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use traces::Trace;
use windway::abr::{Abr, AbrConfig, Estimator, Hybrid, Progress, Snapshot};

/// Seconds of a session.
const SESSION: f64 = 1800.0;

#[derive(Clone, Debug)]
struct Live {
    bitrates: Vec<u64>,
    /// Seconds of a part.
    part: f64,
    /// Seconds behind the live edge, at the start: what can be buffered.
    behind: f64,
    /// Seconds from a request to the first byte of a part that is there.
    latency: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    stalled: f64,
    switches: f64,
    /// Bits per second of what was played.
    mean: f64,
}

/// What chooses: windway, or always the lowest level.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Windway,
    Lowest,
}

/// Plays parts that are produced in real time: each is requested when the one before has arrived, and held by the server until it is
/// there. After a stall the player is further behind, and can buffer more.
fn play(live: &Live, trace: &Trace, rule: Rule) -> Figures {
    let start = Instant::now();
    let at = |now: f64| start + Duration::from_secs_f64(now);
    let seconds = Duration::from_secs_f64;
    let (mut abr, mut estimator) = (Hybrid::new(AbrConfig::default()), Estimator::default());
    // At time 0, the parts up to `behind` are there.
    let (mut now, mut buffered, mut last) = (0.0, 0.0_f64, None);
    let (mut figures, mut bits_played) = (Figures::default(), 0.0);
    let count = (SESSION / live.part) as usize;
    for part in 0..count {
        let mut snapshot = Snapshot::new(&live.bitrates, seconds(live.part), seconds(120.0));
        snapshot.current = last;
        snapshot.throughput = estimator.throughput();
        snapshot.ttfb = estimator.ttfb();
        snapshot.buffered = seconds(buffered);
        snapshot.is_starting = last.is_none();
        let mut level = if rule == Rule::Lowest { 0 } else { abr.choose(at(now), &snapshot) };
        let produced = (part as f64 + 1.0) * live.part - live.behind;
        let requested = now;
        let mut first = produced.max(now) + live.latency;
        let end = loop {
            let bits = live.bitrates[level] as f64 * live.part;
            let end = trace.arrival(first, bits);
            let mut progress = Progress::new(at(first));
            let mut checked = first + 0.5;
            let mut abandoned = None;
            while checked < end && rule == Rule::Windway && abandoned.is_none() {
                let received = trace.bits_between(first, checked);
                let running =
                    progress.running(at(checked), (received / 8.0) as u64, ((bits - received) / 8.0) as u64);
                snapshot.current = Some(level);
                snapshot.buffered = seconds((buffered - (checked - requested)).max(0.0));
                let other = abr.abandon(at(checked), &snapshot, &running).filter(|other| *other < level);
                abandoned = other.map(|other| (checked, other, received));
                checked += 0.5;
            }
            let (until, received) = abandoned.map_or((end, bits), |(until, _, received)| (until, received));
            estimator.handle_transfer((received / 8.0) as u64, seconds(until - first), seconds(live.latency));
            let Some((until, other, _)) = abandoned else { break end };
            (first, level) = (until + live.latency, other);
        };
        if last.is_some() {
            figures.stalled += (end - now - buffered).max(0.0);
        }
        buffered = if last.is_some() { (buffered - (end - now)).max(0.0) } else { 0.0 } + live.part;
        figures.switches += f64::from(u8::from(last.is_some_and(|last| last != level)));
        bits_played += live.bitrates[level] as f64 * live.part;
        (now, last) = (end, Some(level));
    }
    figures.mean = bits_played / SESSION;
    figures
}

fn live() -> impl Strategy<Value = Live> {
    let ladder = prop_oneof![
        Just(vec![48_000, 96_000, 192_000, 320_000]),
        Just(vec![66_000, 134_000, 270_000, 989_000]),
        Just(vec![64_000, 128_000]),
    ];
    (ladder, 0.33..1.0_f64, 1.0..3.0_f64, 0.01..0.15_f64).prop_map(|(bitrates, part, behind, latency)| Live {
        bitrates,
        part,
        behind: behind.max(2.0 * part),
        latency,
    })
}

fn explain(live: &Live, own: &Figures, lowest: &Figures) -> String {
    format!("{live:?}: {own:?}, the lowest {lowest:?}")
}

/// Steps of 0.5 to 30 s, of 80 kbit/s to 3.3 Mbit/s.
fn trace() -> impl Strategy<Value = Trace> {
    let step = (0.5..30.0_f64, 11.3..15.0_f64).prop_map(|(seconds, rate)| (seconds, rate.exp()));
    proptest::collection::vec(step, 2..40).prop_map(Trace::new)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_network_that_changes_stalls_little_longer_than_the_lowest_level_and_bounds_the_switches(
        (live, trace) in (live(), trace()),
    ) {
        let [own, lowest] = [Rule::Windway, Rule::Lowest].map(|rule| play(&live, &trace, rule));
        prop_assert!(own.switches <= 40.0 + 60.0 * SESSION / 3600.0, "{}", explain(&live, &own, &lowest));
        // A drop of the network is seen half a second after it: with 1 to 3 s buffered some of them are heard.
        let most = 1.1 * lowest.stalled + 0.007 * SESSION;
        prop_assert!(own.stalled <= most, "{}", explain(&live, &own, &lowest));
    }

    #[test]
    fn on_a_steady_network_the_level_stays(live in live(), rate in 1.5..20.0_f64) {
        let trace = Trace::new(vec![(100.0, live.bitrates[0] as f64 * rate / (1.0 - live.latency / live.part))]);
        let [own, lowest] = [Rule::Windway, Rule::Lowest].map(|rule| play(&live, &trace, rule));
        prop_assert!(own.switches <= 4.0, "{}", explain(&live, &own, &lowest));
        prop_assert!(own.stalled <= lowest.stalled + 0.5, "{}", explain(&live, &own, &lowest));
    }
}

#[test]
fn the_level_follows_a_network_that_has_more() {
    for bitrates in [[48_000, 96_000, 192_000, 320_000], [66_000, 134_000, 270_000, 989_000]] {
        for (part, behind) in [(0.33, 1.0), (0.33, 3.0), (1.0, 3.0)] {
            let live = Live { bitrates: bitrates.to_vec(), part, behind, latency: 0.05 };
            let trace = Trace::new(vec![(100.0, 3.0 * bitrates[3] as f64)]);
            let own = play(&live, &trace, Rule::Windway);
            assert!(own.mean > 0.98 * bitrates[3] as f64 && own.switches <= 2.0, "{live:?}: {own:?}");
        }
    }
}
