//! What holds of the choice of bitrates on any network, in the simulator of `benches/abr`.

#![cfg(feature = "hls")]
#![allow(dead_code, reason = "the bench uses what the test does not")]

#[path = "../benches/abr/players.rs"]
mod players;
#[path = "../benches/abr/simulator.rs"]
mod simulator;
#[path = "../benches/abr/traces.rs"]
mod traces;

use players::{Lowest, Windway};
use proptest::prelude::*;
use simulator::{Figures, Player, Video, simulate};
use traces::Trace;

/// An hour, on a ladder that may name a bitrate twice.
fn video() -> impl Strategy<Value = Video> {
    let bitrates = proptest::collection::vec(prop_oneof![24_000..1_500_000_u64, Just(64_000)], 2..9);
    (bitrates, 2.0..12.0_f64, 0.02..1.0_f64).prop_map(|(mut bitrates, segment, latency)| {
        bitrates.sort_unstable();
        let segments = (3600.0 / segment) as usize;
        Video { bitrates: bitrates.leak(), segment, segments, latency, sizes: &[] }
    })
}

fn capacity() -> impl Strategy<Value = f64> {
    prop_oneof![Just(30.0), Just(60.0), Just(120.0)]
}

/// Steps of 0.5 s to 2 minutes, of 10 kbit/s to 10 Mbit/s.
fn trace() -> impl Strategy<Value = Trace> {
    let step = (-0.7..4.8_f64, 9.2..16.1_f64).prop_map(|(seconds, rate)| (seconds.exp(), rate.exp()));
    proptest::collection::vec(step, 2..40).prop_map(Trace::new)
}

/// Figures, and hours from the start to the end.
fn play(video: &Video, trace: &Trace, player: &mut dyn Player) -> (Figures, f64) {
    let figures = simulate(video, trace, player);
    (figures, (figures.media + figures.stalled) / 3600.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_network_causes_more_than_100_switches_an_hour(
        (video, trace, capacity) in (video(), trace(), capacity()),
    ) {
        let (figures, hours) = play(&video, &trace, &mut Windway::new(capacity, true));
        // Those of the beginning count once, however long it lasts.
        let most = 40.0 + 60.0 * hours.max(1.0);
        prop_assert!(figures.switches <= most, "{figures:?} in {hours} h");
    }

    #[test]
    fn a_steady_network_that_has_more_than_the_second_level_stalls_no_longer_than_the_lowest(
        (video, factor, capacity) in (video(), 1.3..20.0_f64, capacity()),
    ) {
        // The wait for the first byte is no time of the transfer.
        let share = (1.0 - video.latency / video.segment).max(0.4);
        let trace = Trace::new(vec![(100.0, video.bitrates[1] as f64 * factor / share)]);
        let (own, _) = play(&video, &trace, &mut Windway::new(capacity, true));
        let (lowest, _) = play(&video, &trace, &mut Lowest);
        prop_assert!(own.stalled <= lowest.stalled + 0.5, "{own:?}, the lowest: {lowest:?}");
    }
}

#[test]
fn from_a_fast_network_to_a_slow_one_and_back_plays_without_a_stall() {
    let video = Video {
        bitrates: &[48_000, 96_000, 192_000, 320_000],
        segment: 6.0,
        segments: 600,
        latency: 0.1,
        sizes: &[],
    };
    let trace = Trace::new(vec![(300.0, 20e6), (300.0, 150e3)]);
    for capacity in [30.0, 60.0, 120.0] {
        let (figures, hours) = play(&video, &trace, &mut Windway::new(capacity, true));
        assert_eq!(figures.stalled, 0.0, "{capacity} s: {figures:?}");
        assert!(figures.switches / hours <= 100.0, "{capacity} s: {figures:?}");
        // Half of the time the network has plenty.
        assert!(figures.played / figures.media > 190_000.0, "{capacity} s: {figures:?}");
    }
}
