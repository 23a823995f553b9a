//! Which playlists are loaded, when, and which of them is believed.

use url::Url;

use super::tests::{End, FRAMES, Player, SEGMENTS, fast, list};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::{MediaPlaylist, Playlist};
use crate::types::Priority;

#[test]
fn s6_3_8_a_hinted_initialization_section_is_requested_once_and_is_that_of_the_next_segments() {
    let parse = |lines: &str| {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na\n{lines}");
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        list
    };
    let url = Url::parse("http://host/l").unwrap();
    let hinted = parse("#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"init\"\n");
    let timeline = Timeline::new(hinted, url.clone(), Duration::ZERO);
    let ladder = Ladder::single(url.clone());
    let first = (0, timeline);
    let mut state = State::new(HlsConfig::default(), ladder, None, first, fast());
    let now = Instant::now();
    let Some(Hinted::Map(key)) = state.poll_hint(now) else { panic!("the hint is used") };
    assert!(state.poll_hint(now).is_none(), "once");
    // A hint that can't be had costs nothing but its request.
    state.handle_hinted_map_failed(&key, &Error::new(ErrorKind::Status(404), "as asked"), now);
    assert!(state.poll_hint(now).is_none() && !state.resources.known.contains_key(&key));
    let next = parse("#EXT-X-MAP:URI=\"init\"\n#EXTINF:2,\nb\n");
    let needs = needs::needs_of(&next.segments[1], 1, &url, UriPolicy::default()).unwrap();
    assert_eq!(needs.init, Some(key));
}

/// The variants whose playlists are requested.
fn requested_playlists(planned: &[Planned]) -> Vec<usize> {
    let variant = |planned: &Planned| match planned {
        Planned::Playlist { variant, .. } => Some(*variant),
        _ => None,
    };
    planned.iter().filter_map(variant).collect()
}

/// A live playlist of two seconds a segment.
pub(super) fn live(segments: std::ops::Range<u64>, end: &str) -> MediaPlaylist {
    let first = segments.start;
    let segments: String = segments.map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}{end}");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    list
}

#[test]
fn s6_3_4_a_live_level_is_loaded_again_when_it_was_not_used_for_a_while() {
    let mut player = Player::new(2);
    let url = |level| Url::parse(&format!("http://host/l{level}")).unwrap();
    player.state.is_on_demand = false;
    player.state.timelines[0] = Some(Timeline::new(live(0..4, ""), url(0), Duration::ZERO));
    for (round, level) in [1, 0, 1].into_iter().enumerate() {
        // All that is listed is fetched before the next version of a playlist comes.
        for _ in 0..6 {
            player.end_fetch(0, End::Whole);
        }
        player.state.set_quality(Quality::Fixed(level), player.now);
        player.is_woken = true;
        player.plan();
        assert_eq!(requested_playlists(&player.running), [level], "round {round}");
        player.running.clear();
        let list = live(0..5 + round as u64, "");
        player.state.handle_planned_playlist(level, list, url(level), Load::at(player.now));
        player.is_woken = true;
        player.plan();
        assert_eq!((requested_playlists(&player.running), player.state.level()), (vec![], level));
    }
}

#[test]
fn s6_3_4_a_live_level_that_was_loaded_and_not_used_is_loaded_again_after_a_target_duration() {
    for (pause, again) in [(1900, vec![]), (2100, vec![1])] {
        let mut player = Player::new(2);
        let url = |level| Url::parse(&format!("http://host/l{level}")).unwrap();
        player.state.is_on_demand = false;
        player.state.timelines[0] = Some(Timeline::new(live(0..4, ""), url(0), Duration::ZERO));
        // All that is listed is fetched: what the other level lists by then is of no use.
        for _ in 0..6 {
            player.end_fetch(0, End::Whole);
        }
        let request = |player: &mut Player| {
            player.state.set_quality(Quality::Fixed(1), player.now);
            let planned = player.state.plan(player.now, Priority::Low);
            requested_playlists(planned.as_slice())
        };
        assert_eq!(request(&mut player), [1]);
        // The level is not wanted any more when its playlist arrives.
        player.state.set_quality(Quality::Fixed(0), player.now);
        player.state.handle_planned_playlist(1, live(0..4, ""), url(1), Load::at(player.now));
        player.now += Duration::from_millis(pause);
        assert_eq!(request(&mut player), again, "after {pause} ms");
    }
}

#[test]
fn a_playlist_that_has_ended_stays_ended() {
    let url = Url::parse("http://host/l").unwrap();
    let mut player = Player::new(1);
    player.state.handle_playlist(0, live(0..12, ""), url.clone());
    assert!(!player.state.is_live(), "no thread loads it again");
    // It may be longer than before.
    player.state.handle_playlist(0, live(0..14, ""), url);
    for _ in 0..20 {
        player.end_fetch(0, End::Whole);
    }
    assert!(player.read());
    assert_eq!(player.played.len() as u64, 14 * FRAMES);
}

#[test]
fn a_level_without_an_end_does_not_replace_one_that_has_ended() {
    let mut player = Player::new(2);
    player.state.set_quality(Quality::Fixed(1), player.now);
    player.plan();
    let is_playlist = |planned: &Planned| matches!(planned, Planned::Playlist { .. });
    let mut lists = 0;
    for _ in 0..40 {
        while let Some(which) = player.running.iter().position(is_playlist) {
            player.running.remove(which);
            let url = Url::parse("http://host/l1").unwrap();
            player.state.handle_planned_playlist(1, live(0..3, ""), url, Load::at(player.now));
            player.is_woken = true;
            player.plan();
            lists += 1;
        }
        player.end_fetch(0, End::Whole);
        player.now += Duration::from_secs(2);
        player.read();
        player.plan();
    }
    assert!(player.read());
    assert_eq!(player.played.len() as u64, SEGMENTS * FRAMES);
    assert!((1..4).contains(&lists), "{lists}");
}

#[test]
fn a_playlist_that_two_servers_with_other_numbers_serve_in_turn_is_played_from_one() {
    let url = Url::parse("http://host/l").unwrap();
    let mut player = Player::new(1);
    let at = |first: u64| live(first..first + 6, "");
    player.state.is_on_demand = false;
    player.state.timelines[0] = Some(Timeline::new(at(0), url.clone(), Duration::ZERO));
    player.end_fetch(0, End::Whole);
    // The other server is ahead, and is believed.
    for round in 0..20 {
        let list = if round % 2 == 0 { at(1000 + round / 2) } else { at(1 + round / 2) };
        player.state.handle_playlist(0, list, url.clone());
        let first = player.state.timeline().unwrap().list.media_sequence;
        assert_eq!(first, 1000 + round / 2, "round {round}");
    }
    assert!(!matches!(player.state.discontinuity, Some(Discontinuity::Reset)));
    // One that has started again is seen twice.
    player.state.handle_playlist(0, at(3), url.clone());
    player.state.handle_playlist(0, at(3), url);
    assert_eq!(player.state.timeline().unwrap().list.media_sequence, 3);
}

/// Longer than a variant is excluded.
const EXCLUDED: Duration = Duration::from_secs(600);

#[test]
fn s6_3_8_a_rendition_report_that_was_wrong_is_not_believed_again() {
    let mut player = Player::new(2);
    let url = |level| Url::parse(&format!("http://host/l{level}")).unwrap();
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n#EXTINF:2,\n0\n\
        #EXT-X-RENDITION-REPORT:URI=\"l1\",LAST-MSN=1000000\n";
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l0") else {
        panic!("a list")
    };
    player.state.timelines[0] = Some(Timeline::new(list, url(0), Duration::ZERO));
    let mut asked = Vec::new();
    for _ in 0..2 {
        player.state.set_quality(Quality::Fixed(1), player.now);
        player.is_woken = true;
        player.plan();
        asked.extend(player.running.drain(..).filter_map(|planned| match planned {
            Planned::Playlist { url, .. } => Some(url.query().map(str::to_owned)),
            _ => None,
        }));
        let error = Error::new(ErrorKind::Status(400), "too far ahead");
        player.state.handle_playlist_failed(1, error, player.now);
        player.now += EXCLUDED;
    }
    assert_eq!(asked, [Some("_HLS_msn=1000000".to_owned()), None]);
}

/// The same, of a live stream.
fn unended() -> MediaPlaylist {
    MediaPlaylist { is_ended: false, ..list() }
}

#[test]
fn a_live_stream_changes_to_a_level_though_each_segment_takes_longer_than_a_target_duration() {
    let mut player = Player::new(2);
    player.state.is_on_demand = false;
    player.state.timelines[0] =
        Some(Timeline::new(unended(), Url::parse("http://host/l").unwrap(), Duration::ZERO));
    player.end_fetch(0, End::Whole);
    player.state.set_quality(Quality::Fixed(1), player.now);
    let mut variants = Vec::new();
    for _ in 0..4 {
        player.is_woken = true;
        player.plan();
        let is_playlist = |planned: &Planned| matches!(planned, Planned::Playlist { .. });
        if let Some(index) = player.running.iter().position(is_playlist) {
            let Planned::Playlist { variant, url } = player.running.swap_remove(index) else { continue };
            player.state.handle_planned_playlist(variant, unended(), url, Load::at(player.now));
        }
        // A segment of 2 s arrives.
        player.now += Duration::from_millis(2500);
        if let Some(Planned::Segment { id, .. }) = player.running.first() {
            variants.push(player.state.queued(*id).unwrap().variant);
        }
        player.end_running(0, End::Whole);
        player.read();
    }
    assert_eq!(variants[2..], [1, 1], "{variants:?}");
}

#[test]
fn s6_3_4_reloads_count_from_the_beginning_of_a_load_and_freshness_from_its_end() {
    let mut player = Player::new(2);
    let url = Url::parse("http://host/l1").unwrap();
    player.state.is_on_demand = false;
    player.state.timelines[0] = Some(Timeline::new(live(0..4, ""), url.clone(), Duration::ZERO));
    for _ in 0..6 {
        player.end_fetch(0, End::Whole);
    }
    player.state.set_quality(Quality::Fixed(1), player.now);
    let began = player.now;
    player.now += Duration::from_secs(3);
    let load = Load { began, ended: player.now };
    player.state.handle_planned_playlist(1, live(0..4, ""), url, load);
    // Longer than its target duration: it would be loaded again and again.
    player.is_woken = true;
    player.plan();
    assert_eq!((requested_playlists(&player.running), player.state.level()), (vec![], 1));
    assert_eq!(player.state.last_load().map(|load| load.began), Some(began));
}

#[test]
fn s6_3_2_a_level_that_is_loaded_after_an_outage_continues_with_the_next_segment() {
    let mut player = Player::new(2);
    let url = |level| Url::parse(&format!("http://host/l{level}")).unwrap();
    player.state.is_on_demand = false;
    player.state.timelines[0] = Some(Timeline::new(live(0..6, ""), url(0), Duration::ZERO));
    player.state.handle_loaded_playlist(0, live(0..6, ""), url(0), Load::at(player.now));
    for _ in 0..6 {
        player.end_fetch(0, End::Whole);
    }
    // Meanwhile the server has added four segments, and the playlist in use was not loaded.
    player.now += Duration::from_secs(8);
    player.state.set_quality(Quality::Fixed(1), player.now);
    player.plan();
    assert_eq!(requested_playlists(&player.running), [1]);
    player.running.clear();
    player.state.handle_planned_playlist(1, live(4..10, ""), url(1), Load::at(player.now));
    player.is_woken = true;
    player.plan();
    let Some(Planned::Segment { url, .. }) = player.running.first() else { panic!("nothing is fetched") };
    assert_eq!(url.path(), "/6");
}
