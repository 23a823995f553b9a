//! A presentation from the cache: what is requested, and what is played without its origin.

use proptest::prelude::*;
use url::Url;

use super::tests::{FRAMES, Player, fast, frames, list};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::source::hls::demux::Output;
use crate::source::hls::playlist::{MediaPlaylist, Playlist};
use crate::types::Priority;

/// A playlist of one level whose URLs have this query.
fn signed(query: &str) -> MediaPlaylist {
    let text = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"init{query}\"\n#EXTINF:2,\n0{query}\n#EXT-X-ENDLIST\n"
    );
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    list
}

fn stored(query: &str) -> State {
    let url = Url::parse("http://host/l").unwrap();
    let first = (0, Timeline::new(signed(query), url.clone(), Duration::ZERO));
    let ladder = Ladder::single(url);
    let mut state = State::new(HlsConfig::default(), ladder, None, first, fast());
    state.set_unconfirmed(Unconfirmed::new(true, false));
    state
}

fn confirm(state: &mut State) {
    let url = Url::parse("http://host/l").unwrap();
    state.handle_confirmation(Confirmation::Media(Box::new(signed("?token=1")), url));
}

fn requested(state: &mut State, now: Instant) -> Vec<String> {
    let planned = std::iter::from_fn(|| state.plan(now, Priority::Low));
    let url = |planned| match planned {
        Planned::Segment { url, .. } => Some(url.to_string()),
        Planned::Resource { key, .. } => Some(key.url.to_string()),
        _ => None,
    };
    planned.filter_map(url).collect()
}

#[test]
fn what_is_missing_is_never_requested_by_a_url_of_the_stored_playlist() {
    let now = Instant::now();
    let fresh = ["http://host/init?token=1", "http://host/0?token=1"];
    // The playlist comes before, or after what is missing was found to be.
    for is_late in [false, true] {
        let mut state = stored("?token");
        let mut planned = std::iter::from_fn(|| state.plan(now, Priority::Low)).collect::<Vec<_>>();
        planned.retain(|planned| !matches!(planned, Planned::Confirm { .. }));
        let [Planned::Resource { key, .. }, Planned::Segment { id, .. }] = &planned[..] else {
            panic!("{planned:?}")
        };
        if !is_late {
            confirm(&mut state);
        }
        assert!(state.handle_segment_missing(*id), "its URL is of no use");
        assert!(state.handle_resource_missing(key), "its URL is of no use");
        if is_late {
            confirm(&mut state);
        }
        assert_eq!(requested(&mut state, now), fresh);
    }
}

#[test]
fn what_was_planned_before_the_playlist_came_is_requested_by_its_urls() {
    let now = Instant::now();
    let mut state = stored("?token");
    state.extend(now);
    confirm(&mut state);
    assert_eq!(requested(&mut state, now), ["http://host/init?token=1", "http://host/0?token=1"]);
    let [queued] = &state.queue.iter().collect::<Vec<_>>()[..] else { panic!("{:?}", state.queue) };
    let (id, key) = (queued.id, queued.needs.init.clone().unwrap());
    assert!(!state.handle_segment_missing(id) && !state.handle_resource_missing(&key));
}

const LEVELS: &str = "#EXT-X-STREAM-INF:BANDWIDTH=1\nl0\n#EXT-X-STREAM-INF:BANDWIDTH=2\nl1\n";

/// A state of the first playlist of a multivariant one with these lines, which is stored and fresh.
fn fresh(lines: &str, level: usize) -> State {
    let url = Url::parse("http://host/l").unwrap();
    let first = (0, Timeline::new(list(), url, Duration::ZERO));
    let config = HlsConfig { quality: Quality::Fixed(level), ..HlsConfig::default() };
    let mut state = State::new(config, ladder(lines), None, first, fast());
    state.set_unconfirmed(Unconfirmed::new(false, true));
    state
}

fn ladder(lines: &str) -> Ladder {
    let text = format!("#EXTM3U\n{lines}");
    let Ok(Playlist::Multivariant(levels)) = Playlist::parse(text.as_bytes(), "http://host/m") else {
        panic!("a multivariant playlist")
    };
    Ladder::new(&levels, &Url::parse("http://host/m").unwrap(), UriPolicy::default(), None).unwrap()
}

fn kinds(state: &mut State, now: Instant) -> Vec<&'static str> {
    let planned = std::iter::from_fn(|| state.plan(now, Priority::Low));
    let kind = |planned| match planned {
        Planned::Confirm { .. } => "confirm",
        Planned::Stored { .. } => "stored playlist",
        Planned::Playlist { variant: 0, .. } => "playlist 0",
        Planned::Playlist { .. } => "playlist 1",
        Planned::Segment { .. } => "segment",
        Planned::Resource { .. } | Planned::Steering { .. } => "another",
    };
    planned.map(kind).collect()
}

fn confirm_all(state: &mut State, lines: &str, now: Instant) {
    state.handle_confirmation(Confirmation::Multivariant(ladder(lines)));
    assert_eq!(kinds(state, now)[0], "confirm");
    let url = Url::parse("http://host/l").unwrap();
    state.handle_confirmation(Confirmation::Media(Box::new(list()), url));
}

#[test]
fn a_fixed_level_that_is_not_stored_is_played_unless_it_can_not_be_had() {
    let now = Instant::now();
    let offline = || Error::new(ErrorKind::Disconnected, "no network");
    let mut state = fresh(LEVELS, 1);
    assert_eq!(kinds(&mut state, now), ["confirm"], "the stored level is not the wanted one");
    confirm_all(&mut state, LEVELS, now);
    assert_eq!(kinds(&mut state, now), ["playlist 1"]);
    let mut state = fresh(LEVELS, 1);
    assert_eq!(kinds(&mut state, now), ["confirm"]);
    state.handle_unconfirmed(offline());
    assert_eq!(kinds(&mut state, now), ["segment"; 2], "better than nothing");
    assert!(matches!(state.next_section(), SectionResult::Wait(_)));
    // The level that is stored needs no server.
    assert_eq!(kinds(&mut fresh(LEVELS, 0), now), ["segment"; 2]);
    assert_eq!(kinds(&mut fresh("#EXT-X-STREAM-INF:BANDWIDTH=1\nl0\n", 9), now), ["segment"; 2]);
}

#[test]
fn a_level_that_is_chosen_offline_does_not_stop_the_one_that_is_stored() {
    let now = Instant::now();
    let mut state = fresh(LEVELS, 0);
    assert_eq!(kinds(&mut state, now), ["segment"; 2]);
    state.set_quality(Quality::Fixed(1), now);
    assert_eq!(kinds(&mut state, now), ["confirm"]);
    state.handle_unconfirmed(Error::new(ErrorKind::Disconnected, "no network"));
    assert_eq!(kinds(&mut state, now), ["stored playlist"]);
    state.handle_stored_playlist(1, None);
    assert_eq!(kinds(&mut state, now), [""; 0]);
    assert!(matches!(state.next_section(), SectionResult::Wait(_)));
    let queued: Vec<u64> = state.queue.iter().map(|queued| queued.id).collect();
    queued.iter().for_each(|id| state.handle_segment_complete(*id));
    assert_eq!(kinds(&mut state, now), ["segment"; 2]);
}

#[test]
fn a_rendition_that_is_selected_is_never_replaced_by_the_stored_one() {
    let now = Instant::now();
    let lines = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"en\",DEFAULT=YES,URI=\"l0\"\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"de\",URI=\"l1\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"a\",CODECS=\"mp4a.40.2\"\nv\n";
    let mut state = fresh(lines, 0);
    assert_eq!(kinds(&mut state, now), ["segment"; 2]);
    state.select_rendition(1).unwrap();
    // The second plan confirms it: the first one finds that its playlist is missing.
    let planned = [kinds(&mut state, now), kinds(&mut state, now)].concat();
    assert_eq!(planned, ["confirm"]);
    state.handle_unconfirmed(Error::new(ErrorKind::Disconnected, "no network"));
    assert_eq!(kinds(&mut state, now), ["stored playlist"]);
    state.handle_stored_playlist(1, None);
    assert_eq!(kinds(&mut state, now), [""; 0]);
    assert!(matches!(state.next_section(), SectionResult::Failed(_)));
    state.select_rendition(0).unwrap();
    assert_eq!(kinds(&mut state, now), ["segment"; 2]);
    // One that is stored needs no server.
    state.select_rendition(1).unwrap();
    let planned = [kinds(&mut state, now), kinds(&mut state, now)].concat();
    assert_eq!(planned, ["confirm"]);
    state.handle_unconfirmed(Error::new(ErrorKind::Disconnected, "no network"));
    assert_eq!(kinds(&mut state, now), ["stored playlist"]);
    state.handle_stored_playlist(1, Some((list(), Url::parse("http://host/l1").unwrap())));
    assert_eq!(kinds(&mut state, now), ["segment"; 2]);
}

#[test]
fn a_rendition_that_is_selected_offline_is_looked_for_at_all_its_levels() {
    let now = Instant::now();
    let media = |group: &str, name: &str, uri: &str| {
        format!("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{group}\",NAME=\"{name}\",URI=\"{uri}\"\n")
    };
    let group = |group: &str, rate: u32| {
        let variant =
            format!("#EXT-X-STREAM-INF:BANDWIDTH={rate},AUDIO=\"{group}\",CODECS=\"mp4a.40.2\"\nv\n");
        let [en, de] = ["en", "de"].map(|name| media(group, name, &format!("{group}-{name}")));
        en + &de + &variant
    };
    let lines = group("a", 1) + &group("b", 2) + &group("c", 3);
    for stored in [None, Some("a-de"), Some("b-de"), Some("c-de")] {
        let mut state = fresh(&lines, 0);
        assert_eq!(kinds(&mut state, now), ["segment"; 2]);
        state.select_rendition(1).unwrap();
        assert_eq!([kinds(&mut state, now), kinds(&mut state, now)].concat(), ["confirm"]);
        state.handle_unconfirmed(Error::new(ErrorKind::Disconnected, "no network"));
        let mut asked = 0;
        while let Some(Planned::Stored { variant, url }) = state.plan(now, Priority::Low) {
            asked += 1;
            assert!(asked <= 3, "each level is looked for once");
            let is_stored = stored.is_some_and(|stored| url.path().ends_with(stored));
            state.handle_stored_playlist(variant, is_stored.then(|| (list(), url)));
        }
        let is_failed = matches!(state.next_section(), SectionResult::Failed(_));
        assert_eq!(is_failed, stored.is_none(), "{stored:?}");
        assert_eq!(state.queue.is_empty(), stored.is_none(), "{stored:?}");
    }
}

/// Seconds of the presentations below.
const LENGTH: u64 = 12;

/// A level that is stored: how long its segments are, in seconds, and which of them are there.
#[derive(Clone, Debug)]
struct StoredLevel {
    seconds: u64,
    segments: Vec<bool>,
    has_playlist: bool,
}

impl StoredLevel {
    fn list(&self) -> MediaPlaylist {
        let lines = (0..LENGTH / self.seconds).map(|index| format!("#EXTINF:{},\n{index}\n", self.seconds));
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{}#EXT-X-ENDLIST\n", lines.collect::<String>());
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        list
    }

    /// Whether the frame with this number is stored. A frame plays for half a second.
    fn has(&self, frame: u64) -> bool {
        self.has_playlist && self.segments[(frame / 2 / self.seconds) as usize]
    }

    fn frames(&self, level: usize, segment: u64) -> Output {
        let mut output = frames(level, 0, 0..0);
        for frame in segment * self.seconds * 2..(segment + 1) * self.seconds * 2 {
            let mut one = frames(level, frame / FRAMES, frame % FRAMES..frame % FRAMES + 1);
            output.frames.append(&mut one.frames);
            output.data.append(&mut one.data);
        }
        output
    }
}

fn stored_level() -> impl Strategy<Value = StoredLevel> {
    let seconds = proptest::sample::select(vec![1_u64, 2, 3, 4]);
    (seconds, proptest::collection::vec(proptest::bool::weighted(0.7), 12), proptest::bool::weighted(0.9))
        .prop_map(|(seconds, segments, has_playlist)| StoredLevel { seconds, segments, has_playlist })
}

/// Plays a presentation whose origin does not answer, up to the first error.
fn play_offline(levels: &[StoredLevel], first: usize, quality: Quality) -> Player {
    let lines: String = (0..levels.len())
        .map(|level| format!("#EXT-X-STREAM-INF:BANDWIDTH={}\nl{level}\n", level + 1))
        .collect();
    let url = Url::parse("http://host/l").unwrap();
    let timeline = (first, Timeline::new(levels[first].list(), url.clone(), Duration::ZERO));
    let mut player = Player::with(1, HlsConfig { quality, ..HlsConfig::default() });
    let config = player.state.config.clone();
    player.state = State::new(config, ladder(&lines), None, timeline, fast());
    player.state.set_unconfirmed(Unconfirmed::new(false, true));
    let mut asked = 0;
    for _ in 0..100 {
        while let Some(planned) = player.state.plan(player.now, Priority::Low) {
            match planned {
                Planned::Confirm { .. } => {
                    asked += 1;
                    assert!(asked <= 3, "the origin is asked again and again");
                    player.state.handle_unconfirmed(Error::new(ErrorKind::Disconnected, "no network"));
                }
                Planned::Stored { variant, .. } => {
                    let level = &levels[variant];
                    let list = level.has_playlist.then(|| (level.list(), url.clone()));
                    player.state.handle_stored_playlist(variant, list);
                }
                Planned::Segment { id, url, .. } => {
                    let variant = player.state.queued(id).unwrap().variant;
                    let segment = url.path().trim_start_matches('/').parse::<usize>().unwrap();
                    if levels[variant].segments[segment] {
                        let mut frames = levels[variant].frames(variant, segment as u64);
                        player.state.handle_frames(id, &mut frames).unwrap();
                        player.state.handle_segment_complete(id);
                    } else {
                        assert!(player.state.handle_segment_missing(id));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        if player.read() || player.errors > 0 {
            return player;
        }
    }
    panic!("it neither ends nor fails: {:?}", player.state);
}

/// The first frame that no level has.
fn first_hole(levels: &[StoredLevel]) -> Option<u64> {
    (0..LENGTH * 2).find(|frame| !levels.iter().any(|level| level.has(*frame)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(256), ..ProptestConfig::default() })]

    #[test]
    fn offline_only_levels_are_played_that_the_user_allows(
        mut levels in proptest::collection::vec(stored_level(), 1..5),
        (most, first) in (0_usize..4, 0_usize..4),
    ) {
        let most = most % levels.len();
        let first = first % (most + 1);
        levels[first].has_playlist = true;
        let config = crate::abr::AbrConfig { at_most: Some(most as u64 + 1), ..Default::default() };
        let Player { played, levels: of_frames, .. } = play_offline(&levels, first, Quality::Auto(config));
        let hole = first_hole(&levels[..=most]).unwrap_or(LENGTH * 2);
        prop_assert!(played.into_iter().map(u64::from).eq(0..hole));
        prop_assert!(of_frames.iter().all(|level| usize::from(*level) <= most), "{of_frames:?}");
    }

    #[test]
    fn offline_a_fixed_level_is_played_wherever_it_is_stored(
        mut levels in proptest::collection::vec(stored_level(), 1..5),
        fixed in 0_usize..4,
    ) {
        let fixed = fixed % levels.len();
        levels[fixed].has_playlist = true;
        let seconds = levels[fixed].seconds;
        levels.iter_mut().for_each(|level| level.seconds = seconds);
        let Player { levels: of_frames, .. } = play_offline(&levels, fixed, Quality::Fixed(fixed));
        prop_assert_eq!(of_frames.len() as u64, first_hole(&levels).unwrap_or(LENGTH * 2));
        for (frame, level) in (0_u64..).zip(of_frames) {
            prop_assert_eq!(usize::from(level) == fixed, levels[fixed].has(frame), "frame {}", frame);
        }
    }

    #[test]
    fn offline_each_segment_is_played_that_is_stored_at_some_level_up_to_the_first_hole(
        mut levels in proptest::collection::vec(stored_level(), 1..5),
        first in 0_usize..4,
    ) {
        let first = first % levels.len();
        // It was opened with that one.
        levels[first].has_playlist = true;
        let Player { played, levels: of_frames, error, .. } = play_offline(&levels, first, Quality::Auto(crate::abr::AbrConfig::default()));
        let hole = first_hole(&levels);
        let expected: Vec<u8> = (0..hole.unwrap_or(LENGTH * 2) as u8).collect();
        prop_assert_eq!(played, expected);
        prop_assert_eq!(hole.is_some(), error.is_some());
        if let Some(error) = error {
            prop_assert_eq!(error.kind(), ErrorKind::NotCached);
        }
        // Another level only where the last one ends, and then the best one that is stored.
        let numbered = (0_u64..).zip(&of_frames);
        for ((frame, level), (next, other)) in numbered.clone().zip(numbered.skip(1)) {
            if level != other {
                prop_assert!(!levels[usize::from(*level)].has(next), "{frame}: {of_frames:?}");
                let best = levels.iter().rposition(|level| level.has(next));
                prop_assert_eq!(best, Some(usize::from(*other)));
            }
        }
    }
}
