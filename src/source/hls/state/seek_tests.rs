//! Seeks, also inside of what is buffered: whatever happens between them, the frames from the target on are played, each once.

use proptest::prelude::*;

use super::replace_tests::replacing;
use super::section::SectionBuffer;
use super::tests::{End, FRAMES, Player, SEGMENTS, frames, list};
use super::*;
use crate::abr::AbrConfig;
use crate::error::ErrorKind;
use crate::source::hls::demux::Output;
use crate::types::Priority;

/// Of a frame, and of a segment.
const FRAME: Duration = Duration::from_millis(500);
const SEGMENT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
enum Step {
    /// A running fetch ends.
    End(usize, End),
    /// So many frames are read, if they are there.
    Read(usize),
    /// In milliseconds.
    Seek(u64),
    /// The reader drops its section.
    Drop,
    Quality(usize),
}

/// How a fetch ends: each fifth one breaks.
pub(super) fn whole_or_broken() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Whole),
        1 => (0..FRAMES).prop_map(|after| End::Broken(after, ErrorKind::Disconnected)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..8, whole_or_broken()).prop_map(|(which, end)| Step::End(which, end)),
        3 => (0_usize..10).prop_map(Step::Read),
        3 => (0_u64..24_000).prop_map(Step::Seek),
        1 => Just(Step::Drop),
        1 => (0_usize..3).prop_map(Step::Quality),
    ]
}

/// A player, and what it should have played since the last seek.
struct Sought {
    player: Player,
    /// Target of the last seek, or the start.
    target: Duration,
    /// First frame since the last seek.
    first: u8,
    /// A section may begin inside of a segment, and is not sought to there.
    is_reopened: bool,
}

impl Sought {
    fn new(player: Player) -> Self {
        Self { player, target: Duration::ZERO, first: 0, is_reopened: false }
    }

    fn step(&mut self, step: Step) {
        let player = &mut self.player;
        match step {
            Step::End(which, end) => player.end_fetch(which, end),
            Step::Read(most) => drop(player.read_frames(most)),
            Step::Seek(millis) => self.seek(Duration::from_millis(millis)),
            Step::Drop => {
                // One of which nothing was read is skipped.
                let is_begun =
                    |section: &u64| player.state.section(*section).is_some_and(|known| known.is_begun());
                let dropped = player.section.take_if(|section| is_begun(section));
                self.is_reopened |= dropped.is_some();
                dropped.into_iter().for_each(|section| player.state.drop_section(section));
            }
            Step::Quality(level) => player.state.set_quality(Quality::Fixed(level), player.now),
        }
        self.player.now += Duration::from_secs(7);
        self.check();
    }

    fn seek(&mut self, target: Duration) {
        let state = &mut self.player.state;
        let (reader, end) = (state.reader_time(), state.reader_time() + state.buffered());
        let is_lower = state.is_better_wanted(target);
        let landed = state.seek(target).unwrap();
        let segment = SEGMENT * (target.as_millis() / SEGMENT.as_millis()) as u32;
        // A section may begin inside of a segment.
        let begins = |section: &SectionBuffer| section.info.start == landed && landed > segment;
        assert!(landed == segment || state.sections.buffers.front().is_some_and(begins), "{landed:?}");
        assert_eq!(state.reader_time(), target);
        if (reader..end).contains(&target) && !self.is_reopened && !is_lower {
            assert_eq!(target + state.buffered(), end, "nothing is fetched again");
        }
        let player = &mut self.player;
        player.played.clear();
        (player.section, player.is_woken) = (None, true);
        self.first = (landed.as_millis() / FRAME.as_millis()) as u8;
        self.target = target;
    }

    fn check(&mut self) {
        let player = &self.player;
        let expected: Vec<u8> = (self.first..).take(player.played.len()).collect();
        assert_eq!(player.played, expected);
        // Also those that were not handed out yet.
        for section in &player.state.sections.buffers {
            let info = &section.info;
            assert_eq!(info.start + info.skip, self.target.max(info.start), "{info:?}");
        }
    }

    /// Plays to the end, and nothing fails any more.
    fn finish(mut self) {
        for _ in 0..10 * SEGMENTS {
            self.player.end_fetch(0, End::Whole);
            self.player.now += Duration::from_secs(7);
            let is_over = self.player.read();
            self.check();
            if is_over {
                assert_eq!(u64::from(self.first) + self.player.played.len() as u64, SEGMENTS * FRAMES);
                return;
            }
        }
        panic!("playing ends: {:?}", self.player.state);
    }
}

pub(super) fn levels(buffer: u64) -> Player {
    let quality = Quality::Fixed(0);
    let mut player =
        Player::with(3, HlsConfig { quality, buffer: Duration::from_secs(buffer), ..HlsConfig::default() });
    for variant in 1..3 {
        let url = player.state.ladder.variants[variant].url.clone();
        player.state.handle_playlist(variant, list(), url);
    }
    player
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(256), ..ProptestConfig::default() })]

    #[test]
    fn after_any_seeks_each_frame_from_the_target_on_is_played_once(
        steps in proptest::collection::vec(step(), 0..80),
        is_mixed in any::<bool>(),
        buffer in 4_u64..40,
    ) {
        let mut player = levels(buffer);
        // A change to another format begins a section.
        player.foreign = if is_mixed { vec![1] } else { Vec::new() };
        let mut sought = Sought::new(player);
        steps.into_iter().for_each(|step| sought.step(step));
        sought.finish();
    }

    #[test]
    fn replacements_follow_their_sections_over_seeks(
        choices in proptest::collection::vec((0_usize..8, 0_usize..5), 0..40),
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut sought = Sought::new(replacing(choices));
        for step in steps {
            // The application keeps its rule.
            if !matches!(step, Step::Quality(_)) {
                sought.step(step);
            }
        }
        sought.finish();
    }
}

#[test]
fn a_seek_back_to_before_a_change_of_format_skips_nothing_after_the_change() {
    let mut player = levels(40);
    player.foreign = vec![1];
    player.state.seek(Duration::from_millis(5500)).unwrap();
    // One frame at level 0, up to 4.5 s, and the rest at level 1.
    player.end_fetch(0, End::Broken(1, ErrorKind::Unsupported));
    for _ in 0..4 {
        player.end_fetch(0, End::Whole);
    }
    let skips = |player: &Player| -> Vec<u128> {
        player.state.sections.buffers.iter().map(|section| section.info.skip.as_millis()).collect()
    };
    assert_eq!(skips(&player), [1500, 1000]);
    player.state.seek(Duration::from_millis(4200)).unwrap();
    assert_eq!(skips(&player), [200, 0]);
}

/// Frames of a whole segment, of 60 kB each.
fn large(segment: u64) -> Output {
    let mut output = frames(0, segment, 0..FRAMES);
    output.data = output.data.iter().flat_map(|byte| vec![*byte; 60_000]).collect();
    output.frames.iter_mut().for_each(|frame| frame.len = 60_000);
    output
}

#[test]
fn what_is_kept_for_seeks_back_fits_beside_what_is_buffered() {
    const MOST: usize = 1_500_000;
    let mut player =
        Player::with(1, HlsConfig { quality: Quality::Fixed(0), buffer_bytes: MOST, ..HlsConfig::default() });
    let (mut most_kept, mut kept_last) = (0, 0);
    let mut section = None;
    for round in 0..200 {
        player.is_woken = true;
        player.plan();
        for planned in std::mem::take(&mut player.running) {
            let Planned::Segment { id, url, .. } = planned else { panic!("{planned:?}") };
            let segment = url.path().trim_start_matches('/').parse().unwrap();
            let _ = player.state.handle_frames(id, &mut large(segment));
            player.state.handle_segment_complete(id);
        }
        let state = &player.state;
        let unread = state.buffered_bytes();
        let kept: usize = state.sections.buffers.iter().map(SectionBuffer::kept).sum();
        // A segment that was requested below the limit may exceed it.
        assert!(unread + kept + segments(state) <= MOST.max(unread), "{unread} and {kept}");
        (most_kept, kept_last) = (most_kept.max(kept), kept);
        match section {
            None => {
                if let SectionResult::Section(id, _) = player.state.next_section() {
                    section = Some(id);
                }
            }
            Some(id) if round % 3 == 0 => drop(player.state.read(id, &mut [0; 60_000])),
            Some(_) => {}
        }
    }
    assert!(most_kept > 200_000 && kept_last > 1_000_000, "{most_kept} {kept_last}");
    // All of it is there: 120 s of buffer keep 30 s.
    let requested = player.state.next_id;
    let reader = player.state.reader_time();
    player.state.seek(reader - Duration::from_secs(5)).unwrap();
    assert_eq!((player.state.next_id, player.state.is_finished()), (requested, true));
}

/// Memory of the segments that are kept, in bytes.
fn segments(state: &State) -> usize {
    state.kept.memory()
}

/// A player of sections of the segments 0 and 1, of 2, and of those from 3 on, and whose readers were dropped at the ends of the first two.
fn past_two_sections(buffer: u64) -> Player {
    let mut player = levels(buffer);
    player.foreign = vec![1];
    for level in [0, 1, 0, 0, 0] {
        player.state.set_quality(Quality::Fixed(level), player.now);
        player.is_woken = true;
        player.end_fetch(0, End::Whole);
    }
    for segments in [2, 1] {
        player.read_frames(segments * FRAMES as usize);
        player.state.drop_section(player.section.take().expect("a section"));
    }
    player
}

#[test]
fn a_seek_over_changes_of_format_whose_readers_were_dropped_at_their_ends_fetches_nothing_again() {
    for targets in [&[5][..], &[4], &[1, 0], &[3, 2]] {
        // A quarter is kept.
        let mut player = past_two_sections(40);
        player.running.clear();
        let requested = player.state.next_id;
        let end = player.state.reader_time() + player.state.buffered();
        for seconds in targets {
            let target = Duration::from_secs(*seconds);
            player.state.seek(target).unwrap();
            assert_eq!((target + player.state.buffered(), player.state.next_id), (end, requested));
            (player.section, player.played) = (None, Vec::new());
            // Up to the segment that arrives.
            player.read_frames(usize::MAX);
            let first = (seconds / 2 * FRAMES) as u8;
            assert_eq!(player.played, (first..5 * FRAMES as u8).collect::<Vec<_>>(), "from {seconds} s on");
        }
    }
}

#[test]
fn what_was_dropped_at_its_end_is_kept_no_longer_than_other_audio_that_was_read() {
    // Two seconds are kept.
    let mut player = past_two_sections(8);
    player.read_frames(FRAMES as usize);
    assert!(player.state.sections.buffers.iter().all(|section| section.end() > Duration::from_secs(4)));
    let mut sought = Sought { is_reopened: true, ..Sought::new(player) };
    sought.seek(Duration::from_secs(1));
    sought.finish();
}

#[test]
fn nothing_is_kept_for_the_handles_of_a_presentation_that_is_gone() {
    let kept =
        |player: &Player| -> usize { player.state.sections.buffers.iter().map(SectionBuffer::kept).sum() };
    let mut player = past_two_sections(40);
    assert!(kept(&player) > 0);
    player.state.drop_unread();
    assert_eq!(kept(&player), 0);
    let mut player = past_two_sections(40);
    player.read_frames(FRAMES as usize);
    let section = player.section.expect("the third section");
    player.state.drop_unread();
    player.state.close_section();
    player.state.drop_section(section);
    assert_eq!(kept(&player), 0);
}

#[test]
fn a_seek_in_the_buffer_does_not_end_an_outage() {
    let mut player = levels(40);
    for _ in 0..3 {
        player.end_fetch(0, End::Whole);
    }
    while player.state.retry_at().is_none() {
        player.end_fetch(0, End::Broken(0, ErrorKind::Disconnected));
    }
    player.state.seek(Duration::from_secs(1)).unwrap();
    assert!(player.state.plan(player.now, Priority::Low).is_none(), "the delay goes on");
    player.now = player.state.retry_at().expect("an outage");
    assert!(player.state.take_wake(player.now), "it is over");
    assert!(player.state.plan(player.now, Priority::Low).is_some());
}

#[test]
fn a_seek_out_of_the_buffer_is_tried_at_once_also_in_an_outage() {
    let mut player = levels(4);
    while player.state.retry_at().is_none() {
        player.end_fetch(0, End::Broken(0, ErrorKind::Disconnected));
    }
    player.state.seek(Duration::from_secs(20)).unwrap();
    assert!(player.state.plan(player.now, Priority::Low).is_some());
}

#[test]
fn a_seek_into_a_section_that_begins_inside_of_a_segment_fetches_nothing_again() {
    let mut player = levels(40);
    player.foreign = vec![1];
    player.state.seek(Duration::from_millis(4000)).unwrap();
    // One frame at level 0, up to 4.5 s, and the rest at level 1, in a section of its own.
    player.end_fetch(0, End::Broken(1, ErrorKind::Unsupported));
    for _ in 0..4 {
        player.end_fetch(0, End::Whole);
    }
    let buffered = player.state.buffered();
    let end = player.state.reader_time() + buffered;
    for millis in [4_500, 5_700] {
        let target = Duration::from_millis(millis);
        assert_eq!(player.state.seek(target).unwrap(), Duration::from_millis(4_500));
        assert_eq!(target + player.state.buffered(), end, "nothing is fetched again");
        let SectionResult::Section(_, info) = player.state.next_section() else { panic!("a section") };
        assert_eq!(info.start + info.skip, target);
    }
}

#[test]
fn a_section_that_was_handed_out_has_the_level_of_what_took_the_place_of_its_begin() {
    use std::io::Read;

    use crate::source::hls::reader::Section;
    use crate::source::hls::shared::Shared;

    let mut player = levels(40);
    player.end_fetch(0, End::Whole);
    let SectionResult::Section(id, info) = player.state.next_section() else { panic!("a section") };
    let shared = std::sync::Arc::new(Shared::new(
        crate::client::Request::get("http://host/l").unwrap(),
        HlsConfig::default(),
    ));
    let other = frames(2, 0, 0..FRAMES);
    let replaced =
        player.state.sections.buffers[0].replace((Duration::ZERO, SEGMENT), 2, &other.frames, &other.data);
    assert_eq!(replaced, Some(FRAMES as usize));
    shared.inner.lock().state = Some(player.state);
    let mut section = Section { shared, id, info, is_begun: false, alive: std::sync::Arc::default() };
    assert_eq!(section.info().level, 0);
    section.read_exact(&mut [0]).unwrap();
    assert_eq!(section.info().level, 2);
}

/// Lets all that is planned arrive. Returns the numbers and the levels of the segments among it.
fn arrive(player: &mut Player) -> Vec<(String, usize)> {
    let mut arrived = Vec::new();
    player.is_woken = true;
    player.plan();
    while let Some(planned) = player.running.first() {
        if let Planned::Segment { id, url, .. } = planned {
            let (id, path) = (*id, url.path().to_owned());
            let variant = player.state.queued(id).expect("it is needed").variant;
            arrived.push((path, player.state.ladder.variants[variant].level));
        }
        player.end_running(0, End::Whole);
        player.plan();
    }
    arrived
}

/// Seeks, and forgets what was fetched for the place before: it is cancelled.
fn scrub(player: &mut Player, target: Duration) {
    player.state.seek(target).unwrap();
    player.running.clear();
    (player.section, player.played) = (None, Vec::new());
}

#[test]
fn twenty_seeks_to_and_fro_fetch_no_segment_twice() {
    // Six seconds ahead of the reader.
    let mut player = levels(6);
    let mut fetched = Vec::new();
    for scrub_to in [23, 0, 14, 5, 22, 9, 17, 1, 12, 20, 3, 15, 7, 23, 2, 11, 19, 6, 13, 0] {
        scrub(&mut player, Duration::from_secs(scrub_to));
        fetched.extend(arrive(&mut player));
        player.read_frames(3);
        let first = (scrub_to / 2 * FRAMES) as u8;
        assert_eq!(player.played, [first, first + 1, first + 2], "from {scrub_to} s on");
        fetched.extend(arrive(&mut player));
    }
    fetched.sort();
    let before = fetched.len();
    fetched.dedup();
    assert_eq!((before, fetched.len()), (SEGMENTS as usize, SEGMENTS as usize), "{fetched:?}");
    // All of it is played from there.
    while !player.read() {
        player.is_woken = true;
        player.plan();
        assert!(player.running.is_empty(), "{:?}", player.running);
    }
    assert_eq!(player.played, (0..(SEGMENTS * FRAMES) as u8).collect::<Vec<_>>());
}

#[test]
fn after_a_change_by_hand_what_is_sought_again_is_of_the_level_that_was_chosen() {
    let level_at = |player: &mut Player, seconds| {
        scrub(player, Duration::from_secs(seconds));
        let fetched = arrive(player).len();
        player.levels.clear();
        player.read_frames(1);
        (player.levels[0], fetched)
    };
    let mut player = levels(6);
    assert_eq!(level_at(&mut player, 0), (0, 3));
    player.read_frames(5);
    player.state.set_quality(Quality::Fixed(1), player.now);
    // In the section that is being read, and elsewhere.
    assert_eq!(level_at(&mut player, 0), (1, 3));
    assert_eq!(level_at(&mut player, 12), (1, 3));
    assert_eq!(level_at(&mut player, 0), (1, 0));
    player.state.set_quality(Quality::Fixed(0), player.now);
    assert_eq!(level_at(&mut player, 12), (0, 3), "the user may want to spend less");
    assert_eq!(level_at(&mut player, 0), (0, 0));
    // A choice for the network takes the best that is there, and that the user allows.
    player.state.set_quality(Quality::Auto(AbrConfig { start: 1, ..AbrConfig::default() }), player.now);
    player.state.network.estimator = Estimator::default();
    player.state.network.estimator.handle_transfer(0, Duration::from_secs(1), Duration::ZERO);
    assert_eq!(level_at(&mut player, 12), (0, 0));
}

#[test]
fn what_was_fetched_at_a_better_level_is_played_while_the_network_is_slow() {
    let mut player = levels(6);
    player.state.set_quality(Quality::Fixed(2), player.now);
    arrive(&mut player);
    let [all, limited] = [AbrConfig::default(), AbrConfig { at_most: Some(2), ..AbrConfig::default() }];
    for (config, fetched) in [(all, 0), (limited, 3)] {
        scrub(&mut player, Duration::from_secs(12));
        player.state.set_quality(Quality::Auto(config), player.now);
        let slow = Estimator::remembering(0.1);
        player.state.network.estimator = slow;
        scrub(&mut player, Duration::ZERO);
        assert_eq!(arrive(&mut player).len(), fetched);
    }
}

#[test]
fn a_presentation_is_played_to_its_end_however_small_the_limit_of_its_memory_is() {
    for buffer_bytes in [200, 500, 1000, 2000] {
        let config = HlsConfig { quality: Quality::Fixed(0), buffer_bytes, ..HlsConfig::default() };
        let mut player = Player::with(1, config);
        for _ in 0..10 * SEGMENTS {
            arrive(&mut player);
            if player.read() {
                break;
            }
        }
        let played = (0..(SEGMENTS * FRAMES) as u8).collect::<Vec<_>>();
        assert_eq!(player.played, played, "{buffer_bytes} bytes");
    }
}

/// Seeks to each of the times in seconds, and reads so many frames there. At most `most` bytes are kept. Returns what was fetched.
fn seek_to_each(targets: &[(u64, usize)], most: usize) -> Vec<(String, usize)> {
    let config = HlsConfig {
        quality: Quality::Fixed(0),
        buffer: Duration::from_secs(6),
        buffer_bytes: most.max(1),
        ..HlsConfig::default()
    };
    let mut player = Player::with(1, config);
    let mut fetched = Vec::new();
    for (seconds, count) in targets {
        scrub(&mut player, Duration::from_secs(*seconds));
        for _ in 0..3 {
            fetched.extend(arrive(&mut player));
            let state = &player.state;
            let unread = state.buffered_bytes();
            let read: usize = state.sections.buffers.iter().map(SectionBuffer::kept).sum();
            assert!(unread + read + segments(state) <= most.max(unread), "{unread}, {read}");
            assert!(segments(state) <= most / 4);
            player.read_frames(count / 3);
        }
    }
    fetched
}

#[test]
fn segments_make_room_for_what_a_seek_back_makes_unread() {
    // Limits that are reached exactly before the last seek.
    seek_to_each(&[(8, 0), (11, 0), (16, 3), (8, 0)], 5900);
    seek_to_each(&[(1, 0), (6, 3), (0, 0)], 5706);
}

proptest! {
    #[test]
    fn whatever_is_kept_for_seeks_fits_into_the_limit_and_nothing_that_fits_is_fetched_twice(
        targets in proptest::collection::vec((0_u64..24, 0_usize..12), 1..20),
        most in 0_usize..240_000,
    ) {
        let mut fetched = seek_to_each(&targets, most);
        if most > 200_000 {
            let before = fetched.len();
            fetched.sort();
            fetched.dedup();
            prop_assert_eq!(fetched.len(), before);
        }
    }
}
