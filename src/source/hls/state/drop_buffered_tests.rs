//! Whatever was buffered when it is dropped: each frame is played once, and the level that was chosen soon.

use proptest::prelude::*;
use url::Url;

use super::seek_tests::{levels, whole_or_broken};
use super::tests::{End, FRAMES, Player, SEGMENTS};
use super::*;
use crate::source::hls::playlist::Playlist;

/// Plays to the end. Nothing fails any more.
fn finish(player: &mut Player) {
    for _ in 0..10 * SEGMENTS {
        player.end_fetch(0, End::Whole);
        player.now += Duration::from_secs(7);
        if player.read() {
            break;
        }
    }
    assert_eq!(player.played, (0..(SEGMENTS * FRAMES) as u8).collect::<Vec<_>>());
}

/// As an application chooses a level.
fn choose(player: &mut Player, level: usize) -> Duration {
    player.state.set_quality(Quality::Fixed(level), player.now);
    player.is_woken = true;
    player.state.drop_buffered().unwrap()
}

/// Fetches until nothing more is.
fn fill(player: &mut Player) {
    player.plan();
    while !player.running.is_empty() {
        player.end_running(0, End::Whole);
        player.plan();
    }
}

#[test]
fn a_level_that_is_chosen_by_hand_is_heard_from_the_next_segment_on() {
    let mut player = levels(60);
    fill(&mut player);
    assert_eq!(player.state.buffered(), Duration::from_secs(24), "all of it");
    player.read_frames(5);
    let from = choose(&mut player, 2);
    assert_eq!(from, Duration::from_secs(4));
    assert_eq!(player.state.buffered(), from - player.state.reader_time() + Duration::from_millis(100));
    assert_eq!(player.state.replacements.bytes_dropped, 10 * FRAMES);
    let section = player.section;
    fill(&mut player);
    player.read_frames(20);
    assert_eq!(player.section, section, "the decoder goes on");
    assert_eq!(player.levels[..8], [0; 8]);
    assert_eq!(player.levels[8..], [2; 17]);
    finish(&mut player);
}

#[test]
fn a_level_whose_playlist_is_not_there_yet_is_waited_for() {
    let mut player = Player::new(2);
    fill(&mut player);
    player.read_frames(1);
    choose(&mut player, 1);
    player.plan();
    let [Planned::Playlist { variant: 1, .. }] = &player.running[..] else { panic!("{:?}", player.running) };
    finish(&mut player);
    assert_eq!(player.levels[..8], [0, 0, 0, 0, 1, 1, 1, 1]);
}

/// To the very position, to what was read, to what is placed and to what waits.
#[test]
fn a_seek_plays_the_level_that_was_chosen_by_hand_and_not_a_lower_one_that_is_buffered() {
    for target in [2500, 1000, 3000, 7000, 21_000] {
        let mut player = levels(60);
        fill(&mut player);
        player.read_frames(5);
        player.state.set_quality(Quality::Fixed(2), player.now);
        player.state.seek(Duration::from_millis(target)).unwrap();
        (player.section, player.is_woken) = (None, true);
        player.levels.clear();
        fill(&mut player);
        player.read_frames(4);
        assert_eq!(player.levels, [2; 4], "{target} ms");
        // What is buffered is of that level now.
        player.state.seek(Duration::from_millis(23_000)).unwrap();
        assert!(player.state.has_unread(), "nothing is fetched again");
    }
}

#[test]
fn a_seek_plays_what_is_buffered_if_it_is_of_a_better_level_than_the_chosen_one() {
    let mut player = levels(60);
    player.state.set_quality(Quality::Fixed(2), player.now);
    fill(&mut player);
    player.state.set_quality(Quality::Fixed(0), player.now);
    player.state.seek(Duration::from_secs(6)).unwrap();
    assert_eq!(player.state.buffered(), Duration::from_secs(18));
}

/// A place for a switch lies a little behind the end of a segment. The event names the place that the call has returned.
#[test]
fn the_event_of_the_switch_names_the_place_that_the_drop_has_returned() {
    let mut player = levels(60);
    fill(&mut player);
    player.read_frames(5);
    let from = choose(&mut player, 2);
    fill(&mut player);
    let switches = player.state.take_events().into_iter().filter_map(|event| match event {
        HlsEvent::Switched { to: 2, at, .. } => Some(at),
        _ => None,
    });
    assert_eq!(switches.collect::<Vec<_>>(), [from]);
}

#[test]
fn the_level_that_plays_is_that_of_what_was_read_until_something_is_read_after_a_seek() {
    let mut player = levels(60);
    fill(&mut player);
    player.read_frames(5);
    player.state.set_quality(Quality::Fixed(2), player.now);
    player.state.seek(player.state.reader_time()).unwrap();
    player.section = None;
    assert_eq!(player.state.playing_level(), 0, "nothing was read since");
    player.is_woken = true;
    fill(&mut player);
    assert_eq!(player.state.playing_level(), 0, "nothing was read since");
    player.read_frames(1);
    assert_eq!(player.state.playing_level(), 2);
}

#[test]
fn what_the_reader_needs_within_a_second_stays() {
    let mut player = levels(60);
    fill(&mut player);
    // Half a second before the end of the second segment.
    player.read_frames(7);
    assert_eq!(choose(&mut player, 1), Duration::from_secs(6));
    finish(&mut player);
    assert_eq!(player.levels[11..13], [0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(256), ..ProptestConfig::default() })]

    #[test]
    fn each_frame_is_played_once_whatever_is_dropped(
        steps in proptest::collection::vec(
            (0_usize..8, whole_or_broken(), 0_usize..8, proptest::option::of(0_usize..3)),
            0..60,
        ),
        is_mixed in any::<bool>(),
        buffer in 4_u64..40,
    ) {
        let mut player = levels(buffer);
        // A change to another format begins a section.
        player.foreign = if is_mixed { vec![1] } else { Vec::new() };
        for (which, end, read, level) in steps {
            player.end_fetch(which, end);
            player.read_frames(read);
            if let Some(level) = level {
                let (position, before) = (player.state.reader_time(), player.state.buffered());
                let from = choose(&mut player, level);
                prop_assert!(from <= position + before.max(Duration::from_secs(3)), "{from:?}");
                prop_assert_eq!(player.state.reader_time(), position);
            }
            player.now += Duration::from_secs(7);
        }
        finish(&mut player);
    }
}

/// A player of one level whose playlist has these segments.
fn listing(segments: &str) -> Player {
    let mut player = levels(60);
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{segments}#EXT-X-ENDLIST\n");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    let url = Url::parse("http://host/l").unwrap();
    player.state.timelines[0] = Some(Timeline::new(list, url, Duration::ZERO));
    player
}

#[test]
fn a_section_goes_on_where_the_ones_behind_it_are_dropped() {
    let gap = |index: u64| if index == 4 { "#EXT-X-GAP\n" } else { "" };
    let segments: String =
        (0..SEGMENTS).map(|index| format!("{}#EXTINF:2,\n{index}\n", gap(index))).collect();
    let mut player = listing(&segments);
    fill(&mut player);
    assert_eq!(player.state.sections.buffers.len(), 2);
    player.read_frames(1);
    // What follows has the format of the section that is read, and nothing is missing before it.
    assert_eq!(choose(&mut player, 0), Duration::from_secs(2));
    fill(&mut player);
    let section = player.section;
    player.read_frames(15);
    assert_eq!(player.section, section, "{:?}", player.state.sections.buffers);
    player.read_frames(1);
    let gap = player.state.sections.buffers.back().unwrap().info.discontinuity;
    assert_eq!(gap, Discontinuity::Gap(Duration::from_secs(2)));
}

#[test]
fn a_segment_that_is_shorter_than_what_levels_differ_by_is_fetched_again() {
    let length = |index: u64| if index == SEGMENTS - 1 { "0.05" } else { "2" };
    let segments: String =
        (0..SEGMENTS).map(|index| format!("#EXTINF:{},\n{index}\n", length(index))).collect();
    let mut player = listing(&segments);
    fill(&mut player);
    player.read_frames(41);
    assert_eq!(choose(&mut player, 0), Duration::from_secs(22));
    finish(&mut player);
}

#[test]
fn after_a_seek_back_the_level_is_heard_within_a_segment_too() {
    let mut player = levels(16);
    fill(&mut player);
    player.read_frames(12);
    fill(&mut player);
    // To what was read and is kept: nothing is fetched again.
    assert_eq!(player.state.seek(Duration::from_secs(3)).unwrap(), Duration::from_secs(2));
    assert!(player.state.buffered() > Duration::from_secs(16));
    assert_eq!(choose(&mut player, 1), Duration::from_secs(4));
    (player.played, player.levels) = ((0..4).collect(), Vec::new());
    finish(&mut player);
    assert_eq!(player.levels[..8], [0, 0, 0, 0, 1, 1, 1, 1]);
}
