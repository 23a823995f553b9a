//! Segments that arrive late, or of which nothing arrives.

use std::collections::HashMap;

use proptest::prelude::*;

use super::failure_tests::is_of;
use super::tests::{End, FRAMES, Player, SEGMENTS, list};
use super::*;
use crate::abr::{Abr, Running};
use crate::error::ErrorKind;
use crate::source::hls::config::MakeAbr;
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::Playlist;

/// Prefers the highest level, whatever was measured, and gives each segment of it up.
struct Insisting;

impl Abr for Insisting {
    fn choose(&mut self, _: Instant, snapshot: &Snapshot<'_>) -> usize {
        snapshot.bitrates.len() - 1
    }

    fn abandon(&mut self, _: Instant, snapshot: &Snapshot<'_>, _: &Running) -> Option<usize> {
        snapshot.current?.checked_sub(1)
    }
}

/// Prefers the highest level, and gives a segment up if nothing of it can be played yet and nothing arrives.
struct GivesUpSilence;

impl Abr for GivesUpSilence {
    fn choose(&mut self, now: Instant, snapshot: &Snapshot<'_>) -> usize {
        Insisting.choose(now, snapshot)
    }

    fn abandon(&mut self, now: Instant, snapshot: &Snapshot<'_>, running: &Running) -> Option<usize> {
        (running.throughput == 0.0).then(|| Insisting.abandon(now, snapshot, running)).flatten()
    }
}

proptest! {
    #[test]
    fn a_segment_that_was_abandoned_arrives_at_a_lower_level(
        steps in proptest::collection::vec((0_usize..8, any::<bool>()), 1..200),
    ) {
        let make = MakeAbr::new(|| Box::new(Insisting));
        let config = HlsConfig { quality: Quality::Custom(make), ..HlsConfig::default() };
        let mut player = Player::with(3, config);
        // Starts and levels of segments that have not arrived since.
        let mut abandoned: HashMap<Duration, usize> = HashMap::new();
        for (which, is_too_slow) in steps {
            let before = player.running.len();
            player.plan();
            for planned in &player.running[before..] {
                let Planned::Segment { id, .. } = planned else { continue };
                let Some(queued) = player.state.queue.iter().find(|known| known.id == *id) else { continue };
                let level = player.state.ladder.variants[queued.variant].level;
                prop_assert!(abandoned.get(&queued.start).is_none_or(|abandoned| level < *abandoned));
            }
            let which = which % player.running.len().max(1);
            let queued = match player.running.get(which) {
                Some(Planned::Segment { id, .. }) => player.state.queue.iter().find(|known| known.id == *id),
                _ => None,
            };
            let known = queued.map(|queued| (queued.id, queued.start, player.state.ladder.variants[queued.variant].level));
            match known {
                Some((id, start, level)) if is_too_slow && player.state.abandon(player.now, id, &Running::new(1_000_000, 8.0)) => {
                    abandoned.insert(start, level);
                    player.is_woken = true;
                    player.running.remove(which);
                }
                known => {
                    if let Some((_, start, _)) = known {
                        abandoned.remove(&start);
                    }
                    player.end_running(which, End::Whole);
                }
            }
        }
        for _ in 0..10 * SEGMENTS {
            player.end_fetch(0, End::Whole);
            player.read();
        }
        prop_assert_eq!(player.played, (0..(SEGMENTS * FRAMES) as u8).collect::<Vec<_>>());
    }
}

#[test]
fn a_segment_does_not_wait_for_one_that_plays_after_it() {
    let mut player = Player::new(1);
    player.plan();
    let Planned::Segment { id: later, .. } = player.running[1] else { panic!("two segments") };
    // A megabyte, at 8 kbit/s.
    player.state.network.estimator = Estimator::default();
    player.state.network.estimator.handle_transfer(1000, Duration::from_secs(1), Duration::from_millis(10));
    player.state.handle_segment_head(later, Some(1_000_000), player.now);
    player.end_running(0, End::Broken(0, ErrorKind::Status(404)));
    player.plan();
    let is_playlist = |planned: &Planned| matches!(planned, Planned::Playlist { .. });
    let playlist = player.running.iter().position(is_playlist).unwrap();
    player.end_running(playlist, End::Whole);
    player.plan();
    assert!(player.running.iter().any(|planned| is_of(planned, "/0")), "{:?}", player.running);
}

#[test]
fn a_segment_whose_response_does_not_come_does_not_keep_the_next_one_back() {
    let mut player = Player::new(1);
    // Nothing was measured, so the next segment waits for the first one.
    player.state.network.estimator = Estimator::default();
    let began = player.now;
    let after = |millis| began + Duration::from_millis(millis);
    assert_eq!(player.segments(), 1);
    assert!(!player.read() && !player.is_woken, "the reader blocks");
    assert_eq!(player.state.next_check(), Some(after(2000)), "it does not sleep for longer");
    for (millis, segments) in [(1999, 1), (2000, 2)] {
        player.now = after(millis);
        player.read();
        assert_eq!(player.segments(), segments, "after {millis} ms");
    }
    // Both are silent for that long: there is nothing left to wake up for.
    player.now = after(4000);
    player.read();
    assert_eq!((player.segments(), player.state.next_check()), (2, None));
}

#[test]
fn a_silent_segment_keeps_a_network_that_is_slower_than_it_plays() {
    // 48 and 77 kbit/s are expected, and 64 are needed.
    for (bytes, segments) in [(7_800, 1), (12_500, 2)] {
        let mut player = Player::new(1);
        player.state.bitrates = Bitrates::new(vec![64_000]);
        let mut estimator = Estimator::default();
        estimator.handle_transfer(bytes, Duration::from_secs(1), Duration::from_millis(100));
        player.state.network.estimator = estimator;
        assert_eq!(player.segments(), 1);
        let Planned::Segment { id, .. } = player.running[0] else { panic!("a segment") };
        player.state.handle_segment_head(id, Some(16_000), player.now);
        player.state.handle_segment_bytes(id, 1000, player.now);
        player.now += Duration::from_secs(9);
        assert!(!player.read(), "the reader blocks");
        assert_eq!(player.segments(), segments, "{:?}", player.state.network.throughput());
        // The connection is lost, and the rest comes over another one, alone.
        player.end_running(0, End::Broken(0, ErrorKind::Disconnected));
        player.now += Duration::from_secs(2);
        player.read();
        assert_eq!(player.segments(), segments);
        assert!(player.running.iter().any(|planned| is_of(planned, "/0")), "{:?}", player.running);
    }
}

#[test]
fn a_body_that_stalls_wakes_a_reader_at_a_fixed_level() {
    let mut player = Player::new(1);
    player.state.network.estimator = Estimator::default();
    assert_eq!(player.segments(), 1);
    let Planned::Segment { id, .. } = player.running[0] else { panic!("a segment") };
    player.now += Duration::from_secs(1);
    player.state.handle_segment_head(id, None, player.now);
    player.state.handle_segment_bytes(id, 10, player.now);
    player.read();
    let stall = player.now + Duration::from_secs(2);
    assert_eq!(player.state.next_check(), Some(stall));
    player.now = stall;
    player.read();
    assert_eq!(player.segments(), 2);
}

/// A player whose first segment is requested at the highest of three levels.
fn insisting() -> (Player, u64) {
    let make = MakeAbr::new(|| Box::new(Insisting));
    let mut player = Player::with(3, HlsConfig { quality: Quality::Custom(make), ..HlsConfig::default() });
    for variant in 1..3 {
        let url = player.state.ladder.variants[variant].url.clone();
        player.state.handle_planned_playlist(variant, list(), url, Load::at(player.now));
    }
    player.plan();
    let Planned::Segment { id, .. } = player.running[0] else { panic!("{:?}", player.running) };
    (player, id)
}

#[test]
fn a_segment_whose_response_does_not_come_is_abandoned_for_a_lower_level() {
    let (mut player, id) = insisting();
    player.now += Duration::from_millis(1999);
    assert!(!player.state.poll_late_segment(player.now), "it may take as long as it plays");
    player.now += Duration::from_millis(1);
    let rate = player.state.throughput();
    assert!(player.state.poll_late_segment(player.now));
    assert!(!player.state.is_needed(id));
    assert_eq!(player.state.throughput(), rate, "it shows nothing of the network");
    player.running.clear();
    player.is_woken = true;
    player.plan();
    let Some(Planned::Segment { id, .. }) = player.running.first() else { panic!("{:?}", player.running) };
    assert_eq!(player.state.queued(*id).map(|queued| queued.variant), Some(1));
}

#[test]
fn a_server_that_takes_its_time_for_each_segment_is_waited_for() {
    let (mut player, id) = insisting();
    player.now += Duration::from_millis(1900);
    player.state.handle_segment_head(id, None, player.now);
    player.end_running(0, End::Whole);
    player.running.clear();
    player.plan();
    let requested = player.now;
    let checks = player.state.queue.iter().filter_map(|queued| queued.next_check());
    // Twice what the last one has taken.
    assert_eq!(checks.max(), Some(requested + Duration::from_millis(3800)));
}

/// A player at the highest of three levels, whose segments need an initialization section each. The segment and the section are
/// requested.
fn insisting_with_init() -> (Player, u64, ResourceKey) {
    let (mut player, _) = insisting();
    player.state.set_quality(Quality::Custom(MakeAbr::new(|| Box::new(GivesUpSilence))), player.now);
    for variant in 0..3 {
        let text: String = (0..SEGMENTS).map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
        let text = format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"init{variant}\"\n{text}#EXT-X-ENDLIST\n"
        );
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        let url = player.state.ladder.variants[variant].url.clone();
        player.state.timelines[variant] = Some(Timeline::new(list, url, Duration::ZERO));
    }
    player.state.restart(Duration::ZERO, Discontinuity::Seek);
    player.running.clear();
    player.is_woken = true;
    player.plan();
    let [Planned::Resource { key, .. }, Planned::Segment { id, .. }] = &player.running[..] else {
        panic!("{:?}", player.running)
    };
    let (key, id) = (key.clone(), *id);
    (player, id, key)
}

#[test]
fn a_segment_whose_initialization_section_does_not_come_is_abandoned_for_a_lower_level() {
    let (mut player, id, key) = insisting_with_init();
    // The segment is there as a whole, and can't be read.
    player.state.handle_segment_head(id, Some(1000), player.now);
    player.state.handle_segment_bytes(id, 1000, player.now);
    player.state.handle_undemuxed(id, Undemuxed { url: key.url.clone(), raw: vec![1; 1000], position: 0 });
    player.now += Duration::from_millis(1900);
    assert!(!player.state.poll_late_segment(player.now), "it may take as long as a segment");
    player.now += Duration::from_millis(600);
    assert!(player.state.poll_late_segment(player.now));
    assert!(!player.state.is_needed(id));
    player.running.clear();
    player.is_woken = true;
    player.plan();
    let [Planned::Resource { key, .. }, Planned::Segment { id, .. }] = &player.running[..] else {
        panic!("{:?}", player.running)
    };
    assert!(key.url.path().ends_with("init1"), "{key:?}");
    assert_eq!(
        player.state.queue.iter().find(|queued| queued.id == *id).map(|queued| queued.variant),
        Some(1)
    );
}

#[test]
fn a_segment_is_not_abandoned_for_a_level_that_needs_the_same_initialization_section() {
    let (mut player, id, key) = insisting_with_init();
    let high = player.state.timelines[2].clone();
    let url = player.state.ladder.variants[2].url.clone();
    for variant in 0..2 {
        player.state.timelines[variant] = high.clone();
        player.state.ladder.variants[variant].url = url.clone();
    }
    player.state.handle_segment_head(id, Some(1000), player.now);
    player.state.handle_segment_bytes(id, 1000, player.now);
    player.state.handle_undemuxed(id, Undemuxed { url: key.url.clone(), raw: vec![1; 1000], position: 0 });
    player.now += Duration::from_secs(5);
    assert!(!player.state.poll_late_segment(player.now));
    assert!(player.state.is_needed(id));
}
