//! Once the cause of a failure is gone, fetching goes on at once, and no reader learns of it that had audio.

use url::Url;

use super::playlist_tests::live;
use super::tests::{End, FRAMES, Player};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::source::hls::ladder::levels::Load;

/// Of a live stream that lists these segments.
fn live_player(segments: std::ops::Range<u64>, config: HlsConfig) -> Player {
    let mut player = Player::with(1, config);
    let url = Url::parse("http://host/l").unwrap();
    player.state.timelines[0] = Some(Timeline::new(live(segments, ""), url, Duration::ZERO));
    player.state.is_on_demand = false;
    player
}

fn fixed(level: usize) -> HlsConfig {
    HlsConfig { quality: Quality::Fixed(level), ..HlsConfig::default() }
}

fn reload(player: &mut Player, segments: std::ops::Range<u64>) {
    let url = Url::parse("http://host/l").unwrap();
    player.state.handle_playlist(0, live(segments, ""), url);
    player.is_woken = true;
}

fn stuck() -> Error {
    Error::new(ErrorKind::TimedOut, "the playlist has not changed")
}

fn skips(player: &mut Player) -> usize {
    let events = player.state.take_events();
    events.iter().filter(|event| matches!(event, HlsEvent::Skipped { .. })).count()
}

#[test]
fn a_live_playlist_that_changes_again_is_fetched_on_while_the_reader_has_audio() {
    let mut player = live_player(0..6, fixed(0));
    while player.segments() > 0 {
        player.end_running(0, End::Whole);
    }
    player.state.handle_stuck(0, stuck(), false, player.now);
    player.read_frames(1);
    assert_eq!(player.state.last_error().map(Error::kind), Some(ErrorKind::TimedOut));
    assert_eq!(player.errors, 0, "there is audio");
    reload(&mut player, 1..7);
    assert!(player.state.last_error().is_none() && !player.state.facts().has_failed);
    assert_eq!(player.segments(), 1);
    player.end_running(0, End::Whole);
    player.read();
    assert_eq!((player.played.len() as u64, player.errors), (7 * FRAMES, 0));
}

#[test]
fn a_live_playlist_that_can_not_be_loaded_is_behind_the_clock_and_shown_until_it_is_loaded() {
    let mut player = live_player(0..6, fixed(0));
    player.end_fetch(0, End::Whole);
    let latency = player.state.latency(player.now).unwrap();
    let refused = Error::new(ErrorKind::Refused, "refused");
    for seconds in [0, 2, 4] {
        player.state.handle_reload_retrying(&refused, player.now);
        let missed = Duration::from_secs(seconds);
        assert_eq!(player.state.latency(player.now), Some(latency + missed));
        // A server of segments may answer.
        player.end_fetch(0, End::Whole);
        assert!(player.state.facts().is_retrying && player.state.last_error().is_some());
        player.now += Duration::from_secs(2);
    }
    reload(&mut player, 0..6);
    assert!(!player.state.facts().is_retrying && player.state.last_error().is_none());
    assert_eq!(player.state.latency(player.now), Some(latency));
}

#[test]
fn a_reader_that_waits_for_what_is_not_listed_wakes_nothing_while_the_playlist_can_not_be_loaded() {
    let mut player = live_player(0..3, fixed(0));
    while player.segments() > 0 {
        player.end_running(0, End::Whole);
    }
    player.read();
    assert_eq!(player.played.len() as u64, 3 * FRAMES);
    let mut wakes = 0;
    for _ in 0..30 {
        let refused = Error::new(ErrorKind::Refused, "refused");
        player.state.handle_reload_failed(0, refused, player.now);
        // The failed reload wakes the downloader once, and each plan the reader.
        for _ in 0..10 {
            assert!(player.state.plan(player.now, Priority::Low).is_none(), "nothing is listed");
            wakes += usize::from(player.state.take_wake(player.now));
        }
        player.now += Duration::from_secs(2);
    }
    assert_eq!(wakes, 0, "in a minute");
    reload(&mut player, 0..4);
    assert_eq!(player.segments(), 1, "it is planned once it is listed");
}

#[test]
fn what_a_live_playlist_lists_is_fetched_although_it_does_not_change_any_more() {
    let mut player = live_player(0..10, HlsConfig { buffer: Duration::from_secs(4), ..fixed(0) });
    player.end_fetch(0, End::Whole);
    player.state.handle_stuck(0, stuck(), false, player.now);
    while (player.played.len() as u64) < 10 * FRAMES {
        assert_eq!(player.errors, 0, "after {} frames", player.played.len());
        player.end_fetch(0, End::Whole);
        player.read();
    }
    player.read();
    assert_eq!(player.errors, 1, "now nothing can be had");
}

/// A login page, and an origin whose segments are not where its playlist says.
#[test]
fn live_segments_that_nothing_has_for_some_seconds_are_played_by_a_reader_that_is_behind() {
    for kind in [ErrorKind::Status(404), ErrorKind::NotMedia] {
        let mut player = live_player(0..8, fixed(0));
        while player.segments() > 0 {
            player.end_running(0, End::Whole);
        }
        for round in 1..=8 {
            player.now += Duration::from_secs(2);
            player.read_frames(FRAMES as usize);
            reload(&mut player, round..8 + round);
            let mut requests = 0;
            loop {
                match player.segments() {
                    0 => break,
                    count => requests += count,
                }
                let end = if round <= 4 { End::Broken(0, kind) } else { End::Whole };
                player.end_running(0, end);
            }
            assert!(round > 4 || (1..=4).contains(&requests), "{kind:?}: {requests} in round {round}");
        }
        player.read();
        assert_eq!((skips(&mut player), player.errors), (0, 0), "{kind:?}");
        assert_eq!(player.played.len() as u64, 16 * FRAMES, "{kind:?}");
        assert!(player.state.last_error().is_none());
    }
}

#[test]
fn a_reader_with_audio_gets_no_error_of_segments_that_can_be_had_again() {
    for is_on_demand in [false, true] {
        let mut player = Player::new(1);
        if !is_on_demand {
            player = live_player(0..12, fixed(0));
        }
        (0..2).for_each(|_| player.end_fetch(0, End::Whole));
        // Nothing is read meanwhile.
        for _ in 0..40 {
            player.end_fetch(0, End::Broken(0, ErrorKind::NotMedia));
        }
        player.now += Duration::from_secs(20);
        for _ in 0..20 {
            player.read_frames(1);
            player.end_fetch(0, End::Whole);
        }
        player.read();
        assert_eq!(player.errors, 0, "on demand: {is_on_demand}");
        assert_eq!(player.played.last(), Some(&(12 * FRAMES as u8 - 1)), "on demand: {is_on_demand}");
    }
}

/// Level of the next segment that is requested.
fn next_level(player: &mut Player) -> usize {
    player.plan();
    while let Some(which) =
        player.running.iter().position(|planned| matches!(planned, Planned::Playlist { .. }))
    {
        player.end_running(which, End::Whole);
        player.plan();
    }
    let Player { running, state, .. } = player;
    // Fetches that are not needed any more run on.
    let mut variants = running.iter().filter_map(|planned| match planned {
        Planned::Segment { id, .. } => state.queued(*id).map(|queued| queued.variant),
        _ => None,
    });
    let variant = variants.next().expect("a segment is requested");
    drop(variants);
    state.ladder.variants[variant].level
}

#[test]
fn after_a_fault_of_all_levels_none_stays_excluded() {
    for kind in [ErrorKind::Status(404), ErrorKind::Status(503), ErrorKind::NotMedia] {
        let mut player = Player::with(3, fixed(2));
        for variant in 0..3 {
            let url = Url::parse("http://host/l").unwrap();
            player.state.handle_planned_playlist(variant, super::tests::list(), url, Load::at(player.now));
        }
        assert_eq!(next_level(&mut player), 2);
        (0..5).for_each(|_| player.end_fetch(0, End::Whole));
        for _ in 0..20 {
            player.end_fetch(0, End::Broken(0, kind));
        }
        player.now += Duration::from_secs(8);
        for _ in 0..4 {
            player.read_frames(1);
            next_level(&mut player);
            player.end_fetch(0, End::Whole);
        }
        player.read();
        assert_eq!(next_level(&mut player), 2, "{kind:?}");
    }
}

#[test]
fn a_choice_by_hand_lifts_the_exclusion_of_its_level() {
    let mut player = Player::with(3, fixed(2));
    for variant in 0..3 {
        let url = Url::parse("http://host/l").unwrap();
        player.state.handle_planned_playlist(variant, super::tests::list(), url, Load::at(player.now));
    }
    player.end_fetch(0, End::Broken(0, ErrorKind::NotMedia));
    assert_ne!(next_level(&mut player), 2);
    player.end_fetch(0, End::Whole);
    player.state.set_quality(Quality::Fixed(2), player.now);
    player.end_fetch(0, End::Whole);
    player.read();
    player.end_fetch(0, End::Whole);
    assert_eq!(next_level(&mut player), 2);
}
