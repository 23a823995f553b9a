//! Segments that can't be fetched: what is tried, how often, and what a reader learns.

use url::Url;

use super::tests::{End, FRAMES, Player, SEGMENTS, fast, list};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::source::hls::ladder::levels::{Load, MOST_VARIANTS};
use crate::source::hls::ladder::steering::Manifest;
use crate::source::hls::playlist::Playlist;

#[test]
fn the_error_of_an_outage_stays_until_bytes_arrive_and_no_reader_gets_it() {
    let mut player = Player::new(1);
    for _ in 0..20 {
        player.end_fetch(0, End::Broken(0, ErrorKind::Refused));
        player.read();
        assert_eq!(player.errors, 0);
        assert_eq!(player.state.last_error().map(Error::kind), Some(ErrorKind::Refused));
        assert!(player.state.facts().is_retrying);
        let pause = player.state.retry_at().map(|at| at - player.now);
        assert!(pause.is_none_or(|pause| pause <= Duration::from_secs(2)), "{pause:?}");
        player.now += Duration::from_secs(2);
        player.read();
    }
    player.end_fetch(0, End::Broken(1, ErrorKind::Unsupported));
    assert!(player.state.last_error().is_none() && !player.state.facts().is_retrying);
}

/// As with a network that shows its login page for a moment.
#[test]
fn a_segment_that_nothing_has_is_tried_again_while_much_is_buffered() {
    for kind in [ErrorKind::Status(404), ErrorKind::NotMedia] {
        let mut player = Player::new(1);
        while player.state.buffered() < Duration::from_secs(16) {
            player.end_fetch(0, End::Whole);
        }
        for _ in 0..20 {
            player.end_fetch(0, End::Broken(0, kind));
        }
        // The clock stands, so it is not the time that lets it be tried again.
        while player.state.buffered() > Duration::from_secs(8) {
            player.plan();
            assert!(player.running.is_empty(), "{:?}", player.running);
            player.read_frames(1);
        }
        player.plan();
        assert_ne!(player.segments(), 0, "half of what was buffered is left");
        while !player.read() {
            player.end_fetch(0, End::Whole);
            player.now += Duration::from_secs(1);
        }
        let all: Vec<u8> = (0..(SEGMENTS * FRAMES) as u8).collect();
        assert_eq!(player.played, all);
        let is_skip = |event: &HlsEvent| matches!(event, HlsEvent::Skipped { .. });
        assert!(!player.state.take_events().iter().any(is_skip), "{kind:?}");
    }
}

#[test]
fn a_segment_that_nothing_has_is_skipped_when_little_is_buffered() {
    let mut player = Player::new(1);
    while player.state.buffered() < Duration::from_secs(16) {
        player.end_fetch(0, End::Whole);
    }
    let (began, mut attempts) = (player.now, 0);
    let is_skip = |event: &HlsEvent| matches!(event, HlsEvent::Skipped { .. });
    while !player.state.take_events().iter().any(is_skip) {
        attempts += 1;
        assert!(attempts < 10, "it is never skipped");
        player.end_fetch(0, End::Broken(0, ErrorKind::NotMedia));
        if let Some(at) = player.state.retry_at() {
            let played = (at - player.now).as_secs_f64() / 0.5;
            player.now = at;
            player.read_frames(played as usize);
        }
    }
    assert!(player.now - began <= Duration::from_secs(16), "the reader does not run out of audio");
}

#[test]
fn a_live_playlist_that_does_not_change_is_an_error_unless_the_server_is_out() {
    let mut player = Player::new(1);
    let stuck = || Error::new(ErrorKind::TimedOut, "the playlist has not changed");
    player.state.handle_stuck(0, Error::new(ErrorKind::Refused, "as asked"), true, player.now);
    assert!(matches!(player.state.next_section(), SectionResult::Wait(_)));
    player.state.handle_stuck(0, stuck(), false, player.now);
    assert!(matches!(player.state.next_section(), SectionResult::Failed(_)));
}

#[test]
fn manifests_that_name_new_pathways_for_ever_fill_no_memory() {
    let url = Url::parse("http://host/l").unwrap();
    let timeline = Timeline::new(list(), url.clone(), Duration::ZERO);
    let steering = Steering::new(url.clone(), ".".into(), Instant::now());
    let first = (0, timeline);
    let ladder = Ladder::single(url.clone());
    let mut state = State::new(HlsConfig::default(), ladder, Some(steering), first, fast());
    // Enough for more than the ladder takes.
    for round in 0..200 {
        let clone = |index: u32| {
            format!(
                r#"{{"BASE-ID":".","ID":"{round}-{index}","URI-REPLACEMENT":{{"HOST":"h{index}.example"}}}}"#
            )
        };
        let clones: Vec<String> = (0..32).map(clone).collect();
        let text = format!(r#"{{"VERSION":1,"PATHWAY-CLONES":[{}]}}"#, clones.join(","));
        state.handle_steering(Manifest::parse(text.as_bytes()), &url, Instant::now());
    }
    assert_eq!(state.ladder.variants.len(), MOST_VARIANTS);
    assert_eq!(state.timelines.len(), MOST_VARIANTS);
}

impl Player {
    /// Segments that are requested now.
    pub(super) fn segments(&mut self) -> usize {
        self.plan();
        self.running.iter().filter(|planned| matches!(planned, Planned::Segment { .. })).count()
    }

    /// Ends all running fetches of segments with this error.
    fn refuse_segments(&mut self, kind: ErrorKind) {
        while let Some(which) =
            self.running.iter().position(|planned| matches!(planned, Planned::Segment { .. }))
        {
            self.end_running(which, End::Broken(0, kind));
        }
    }
}

#[test]
fn a_server_that_refuses_segments_is_asked_for_two_until_its_playlist_was_loaded_again() {
    for kind in [404, 410, 403].map(ErrorKind::Status) {
        let mut player = Player::new(1);
        for round in 0..3 {
            let mut requests = 0;
            loop {
                match player.segments() {
                    0 => break,
                    count => requests += count,
                }
                player.refuse_segments(kind);
            }
            assert!((1..=4).contains(&requests), "round {round}: {requests} requests");
            // After so many skipped segments the reader gets the error, and the next attempt comes after a delay.
            player.read();
            player.now += Duration::from_secs(2);
            player.read();
            player.plan();
            player.refuse_segments(kind);
            player.plan();
            assert_eq!(player.running.len(), 1, "the playlist is loaded again");
            player.end_running(0, End::Whole);
        }
    }
}

#[test]
fn a_segment_that_waits_for_its_playlist_does_not_stop_those_behind_it() {
    let mut player = Player::new(1);
    player.plan();
    player.end_running(0, End::Broken(0, ErrorKind::Status(404)));
    let is_playlist = |planned: &Planned| matches!(planned, Planned::Playlist { .. });
    for _ in 0..4 {
        assert!(player.segments() > 0, "the reader will need them");
        let which = player.running.iter().position(|planned| !is_playlist(planned)).unwrap();
        player.end_running(which, End::Whole);
    }
    player.plan();
    let which = player.running.iter().position(is_playlist).unwrap();
    player.end_running(which, End::Whole);
    for _ in 0..SEGMENTS {
        player.end_fetch(0, End::Whole);
    }
    player.read();
    assert_eq!(player.played.len() as u64, SEGMENTS * FRAMES);
}

pub(super) fn is_of(planned: &Planned, path: &str) -> bool {
    matches!(planned, Planned::Segment { url, .. } if url.path() == path)
}

#[test]
fn a_first_segment_that_was_skipped_is_not_requested_again() {
    let mut player = Player::new(1);
    player.plan();
    player.end_running(0, End::Broken(0, ErrorKind::Unsupported));
    for _ in 0..SEGMENTS {
        player.plan();
        assert!(!player.running.iter().any(|planned| is_of(planned, "/0")), "{:?}", player.running);
        player.end_running(0, End::Whole);
    }
    assert!(player.read());
    assert_eq!(player.played.first(), Some(&(FRAMES as u8)));
}

/// How many requests a server gets in a minute, each of which it answers within a millisecond, while the reader calls again after each
/// error. `has_lists` if it refuses segments only.
fn requests_of_a_minute(has_lists: bool) -> (u32, u32) {
    let segments: String = (0..1000).map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{segments}#EXT-X-ENDLIST\n");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    let mut player = Player::new(1);
    let url = Url::parse("http://host/l").unwrap();
    player.state.timelines[0] = has_lists.then(|| Timeline::new(list.clone(), url.clone(), Duration::ZERO));
    let refused = || Error::new(ErrorKind::Status(404), "as asked");
    let (end, mut requests, mut errors) = (player.now + Duration::from_secs(60), 0, 0);
    while player.now < end {
        player.plan();
        while let Some(planned) = player.running.pop() {
            requests += 1;
            player.now += Duration::from_millis(1);
            match planned {
                Planned::Segment { id, .. } => player.state.handle_segment_failed(id, refused(), player.now),
                Planned::Playlist { variant, url } if has_lists => {
                    player.state.handle_planned_playlist(variant, list.clone(), url, Load::at(player.now));
                }
                Planned::Playlist { variant, .. } => {
                    player.state.handle_playlist_failed(variant, refused(), player.now);
                }
                planned => panic!("{planned:?}"),
            }
            player.is_woken = true;
            player.plan();
        }
        match player.state.next_section() {
            SectionResult::Failed(_) => errors += 1,
            SectionResult::Wait(_) => {
                player.now = player.state.retry_at().expect("it waits for the next attempt");
            }
            SectionResult::End => break,
            result => panic!("{result:?}"),
        }
        player.state.take_wake(player.now);
        player.is_woken = true;
    }
    (requests, errors)
}

#[test]
fn a_reader_that_calls_again_after_each_error_causes_few_requests() {
    for has_lists in [false, true] {
        let (requests, errors) = requests_of_a_minute(has_lists);
        assert!(errors >= 30, "it is tried again: {errors} errors");
        assert!(requests <= 60 * 10, "{requests} requests in a minute, {errors} errors");
    }
}
