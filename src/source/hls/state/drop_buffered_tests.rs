//! Whatever was buffered when it is dropped: each frame is played once, and the level that was chosen soon.

use proptest::prelude::*;

use super::seek_tests::{levels, whole_or_broken};
use super::tests::{End, FRAMES, Player, SEGMENTS};
use super::*;

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
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

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
