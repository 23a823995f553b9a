//! Replacements of buffered segments: nothing is lost, nothing changes its time, and none is fetched in vain.

use proptest::prelude::*;

use super::tests::{End, FRAMES, Player, SEGMENTS, end, frames, list};
use super::*;
use crate::abr::{Abr, Buffered, Running};
use crate::error::ErrorKind;
use crate::source::hls::config::MakeAbr;
use crate::source::hls::ladder::levels::Load;

/// Chooses the lowest level, and replaces as it is scripted, whatever that means for the buffer.
struct Scripted(Vec<(usize, usize)>);

impl Abr for Scripted {
    fn choose(&mut self, _: Instant, _: &Snapshot<'_>) -> usize {
        0
    }

    fn replace(&mut self, _: Instant, _: &Snapshot<'_>, buffered: &[Buffered]) -> Option<(usize, usize)> {
        if buffered.is_empty() { None } else { self.0.pop() }
    }

    fn keeps_replacing(&mut self, _: Instant, _: &Running, _: Duration) -> bool {
        true
    }
}

pub(super) fn replacing(choices: Vec<(usize, usize)>) -> Player {
    let make = MakeAbr::new(move || Box::new(Scripted(choices.clone())));
    let mut player = Player::with(3, HlsConfig { quality: Quality::Custom(make), ..HlsConfig::default() });
    for variant in 1..3 {
        let url = player.state.ladder.variants[variant].url.clone();
        player.state.handle_playlist(variant, list(), url);
    }
    player
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(160), ..ProptestConfig::default() })]

    #[test]
    fn replacements_lose_no_frame_and_never_touch_what_plays_soon(
        choices in proptest::collection::vec((0_usize..8, 0_usize..5), 0..40),
        steps in proptest::collection::vec((0_usize..8, end(), 0_usize..6), 0..80),
    ) {
        let mut player = replacing(choices);
        let mut wasted = 0;
        for (which, end, reads) in steps {
            player.plan();
            let which = which % player.running.len().max(1);
            let queued = match player.running.get(which) {
                Some(Planned::Segment { id, .. }) => *id,
                _ => u64::MAX,
            };
            let is_replacement = player.state.replacements.is(queued);
            // Whatever fails only fails for replacements: nothing else may depend on these.
            let end = if is_replacement { end } else { End::Whole };
            if is_replacement {
                wasted += if let End::Broken(after, _) = end { after } else { FRAMES };
            }
            let (buffered, reader) = (player.state.buffered(), player.state.reader_time());
            player.end_running(which, end);
            prop_assert!(player.state.buffered() >= buffered, "a replacement never shortens the buffer");
            for event in player.state.take_events() {
                if let HlsEvent::Replaced { from, to, at } = event {
                    prop_assert!(from < to && at >= reader + Duration::from_secs(2), "{event:?} at {reader:?}");
                }
            }
            prop_assert_eq!(player.state.bytes_dropped(), wasted, "what is fetched twice is counted");
            player.read_frames(reads);
        }
        for _ in 0..10 * SEGMENTS {
            player.end_fetch(0, End::Whole);
            if player.read() {
                break;
            }
        }
        let all: Vec<u8> = (0..(SEGMENTS * FRAMES) as u8).collect();
        prop_assert_eq!(player.played, all);
    }
}

#[test]
fn a_replaced_segment_is_read_at_its_new_level_and_at_the_same_times() {
    let mut player = replacing(vec![(1, 9), (1, 1), (0, 2)]);
    for _ in 0..4 * SEGMENTS {
        player.end_fetch(0, End::Whole);
    }
    let replaced: Vec<(usize, Duration)> = player
        .state
        .take_events()
        .iter()
        .filter_map(|event| match event {
            HlsEvent::Replaced { to, at, .. } => Some((*to, *at)),
            _ => None,
        })
        .collect();
    // The segment that plays at 0 s is too close to the reader.
    assert_eq!(replaced[0], (2, Duration::from_secs(2)));
    // A segment can be replaced again.
    assert_eq!(replaced[1..], [(1, Duration::from_secs(4)), (2, Duration::from_secs(4))]);
    player.read();
    let of_segment = |segment: usize| &player.levels[segment * FRAMES as usize..][..FRAMES as usize];
    assert_eq!(of_segment(0), [0; 4]);
    assert_eq!((of_segment(1), of_segment(2)), (&[2; 4][..], &[2; 4][..]));
    assert_eq!(player.played.len() as u64, SEGMENTS * FRAMES);
}

#[test]
fn a_level_with_other_frames_replaces_nothing() {
    let mut player = replacing(vec![(0, 2)]);
    let mut replacement = None;
    for _ in 0..4 * SEGMENTS {
        player.plan();
        let is_replacement = |planned: &Planned| match planned {
            Planned::Segment { id, .. } => player.state.replacements.is(*id),
            _ => false,
        };
        if let Some(Planned::Segment { id, .. }) =
            player.running.iter().find(|planned| is_replacement(planned))
        {
            replacement = Some(*id);
            break;
        }
        player.end_fetch(0, End::Whole);
    }
    let queued = replacement.expect("a replacement is planned");
    // Half a frame later than what is buffered.
    let mut output = frames(2, 1, 0..FRAMES);
    output.frames.iter_mut().for_each(|frame| frame.time = frame.time.map(|time| time + 300_000_000));
    player.state.handle_frames(queued, &mut output).unwrap();
    player.state.handle_segment_complete(queued);
    assert_eq!(player.state.bytes_dropped(), FRAMES);
    player.running.clear();
    assert!(player.state.take_events().iter().all(|event| !matches!(event, HlsEvent::Replaced { .. })));
}

/// Replaces the first segment that is buffered, and records which.
struct First(std::sync::Arc<std::sync::Mutex<Vec<Duration>>>);

impl Abr for First {
    fn choose(&mut self, _: Instant, _: &Snapshot<'_>) -> usize {
        0
    }

    fn replace(&mut self, _: Instant, _: &Snapshot<'_>, buffered: &[Buffered]) -> Option<(usize, usize)> {
        // The reader does not move.
        self.0.lock().unwrap().push(buffered.first()?.starts_in);
        Some((0, 1))
    }
}

#[test]
fn a_replacement_that_can_not_be_requested_is_chosen_once() {
    let chosen = std::sync::Arc::default();
    let own = std::sync::Arc::clone(&chosen);
    let make = MakeAbr::new(move || Box::new(First(std::sync::Arc::clone(&own))));
    // The playlist of the other level is not there.
    let mut player = Player::with(2, HlsConfig { quality: Quality::Custom(make), ..HlsConfig::default() });
    for _ in 0..2 * SEGMENTS {
        player.end_fetch(0, End::Whole);
    }
    let chosen = chosen.lock().unwrap();
    assert!(chosen.len() > 1 && chosen.windows(2).all(|pair| pair[0] < pair[1]), "{chosen:?}");
}

/// The segments that a rule has chosen to replace, and those that it was shown as replaced.
type Replaced = std::sync::Arc<std::sync::Mutex<[Vec<u64>; 2]>>;

/// Replaces the last segment that is buffered at the lowest level.
struct Watching(Replaced);

impl Abr for Watching {
    fn choose(&mut self, _: Instant, _: &Snapshot<'_>) -> usize {
        0
    }

    fn replace(&mut self, _: Instant, _: &Snapshot<'_>, buffered: &[Buffered]) -> Option<(usize, usize)> {
        let index = buffered.iter().rposition(|segment| segment.level == 0)?;
        self.0.lock().unwrap()[0].push(buffered[index].id);
        Some((index, 1))
    }

    fn handle_replaced(&mut self, id: u64) {
        self.0.lock().unwrap()[1].push(id);
    }

    fn keeps_replacing(&mut self, _: Instant, _: &Running, _: Duration) -> bool {
        true
    }
}

#[test]
fn a_rule_learns_of_the_replacements_that_have_arrived_and_of_no_others() {
    let replaced = Replaced::default();
    let own = std::sync::Arc::clone(&replaced);
    let make = MakeAbr::new(move || Box::new(Watching(std::sync::Arc::clone(&own))));
    let mut player = Player::with(2, HlsConfig { quality: Quality::Custom(make), ..HlsConfig::default() });
    let url = player.state.ladder.variants[1].url.clone();
    player.state.handle_planned_playlist(1, list(), url, Load::at(player.now));
    let (mut count, mut arrived) = (0, 0);
    for _ in 0..8 * SEGMENTS {
        player.plan();
        let is_replacement = |planned: &Planned| match planned {
            Planned::Segment { id, .. } => player.state.replacements.is(*id),
            _ => false,
        };
        let which = player.running.iter().position(is_replacement);
        count += u64::from(which.is_some());
        let fails = which.is_some() && count % 2 == 0;
        let end = if fails { End::Broken(1, ErrorKind::Status(404)) } else { End::Whole };
        player.end_running(which.unwrap_or(0), end);
        let is_replaced = |event: &HlsEvent| matches!(event, HlsEvent::Replaced { .. });
        arrived += player.state.take_events().iter().filter(|event| is_replaced(event)).count();
    }
    let [chosen, replaced] = &*replaced.lock().unwrap();
    assert!(arrived > 2 && chosen.len() > arrived, "{chosen:?} {replaced:?}");
    assert_eq!(replaced.len(), arrived);
    let every_other: Vec<u64> = chosen.iter().step_by(2).take(arrived).copied().collect();
    assert_eq!(*replaced, every_other);
}

#[test]
fn a_replacement_of_which_nothing_arrives_is_given_up_by_the_clock() {
    for has_head in [false, true] {
        let make = MakeAbr::new(|| Box::new(First(std::sync::Arc::default())));
        let mut player =
            Player::with(2, HlsConfig { quality: Quality::Custom(make), ..HlsConfig::default() });
        let url = player.state.ladder.variants[1].url.clone();
        player.state.handle_planned_playlist(1, list(), url, Load::at(player.now));
        for _ in 0..4 * SEGMENTS {
            player.plan();
            if player.state.replacements.is_running() {
                break;
            }
            player.end_running(0, End::Whole);
        }
        let id = player.state.replacements.queued().expect("a replacement").id;
        if has_head {
            player.state.handle_segment_head(id, Some(1000), player.now);
            player.state.handle_segment_bytes(id, 10, player.now);
        }
        // A reader that is blocked looks then.
        let check = player.state.next_check().expect("a time to look at it");
        let late = Duration::from_secs(10);
        assert!(check > player.now && check <= player.now + late, "{:?}", check - player.now);
        assert!(player.state.replacements.is_running());
        assert!(player.state.poll_late_segment(player.now + late), "its fetch is cancelled");
        assert!(!player.state.is_needed(id) && !player.state.replacements.is_running());
    }
}
