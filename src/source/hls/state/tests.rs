//! Whatever fails, and in whatever order fetches end: frames are played once, in order, and playing ends.

use std::collections::HashMap;

use proptest::prelude::*;
use url::Url;

use super::queued_segment::SegmentPhase;
use super::*;
use crate::abr::{Abr, Buffered, Running};
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;
use crate::source::hls::config::MakeAbr;
use crate::source::hls::demux::{Format, Frame, Output};
use crate::source::hls::ladder::levels::{Load, MOST_VARIANTS};
use crate::source::hls::ladder::steering::Manifest;
use crate::source::hls::playlist::{MediaPlaylist, Playlist};
use crate::types::{Priority, RequestId};

pub(super) const SEGMENTS: u64 = 12;
pub(super) const FRAMES: u64 = 4;

pub(super) fn list() -> MediaPlaylist {
    let segments: String = (0..SEGMENTS).map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{segments}#EXT-X-ENDLIST\n");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    list
}

/// Frames `range` of a segment, each with one byte: its number and, in the two highest bits, its level.
pub(super) fn frames(level: usize, segment: u64, range: std::ops::Range<u64>) -> Output {
    let format = Format { codec: AudioCodec::Aac, sample_rate: 48_000, channels: 2, head: None };
    let mut output = Output::default();
    for frame in range {
        let time = i64::try_from(segment * 2_000_000_000 + frame * 500_000_000).ok();
        let duration = Duration::from_millis(500);
        output.frames.push(Frame { time, duration, len: 1, format: format.clone() });
        output.data.push((segment * FRAMES + frame) as u8 | (level as u8) << 6);
    }
    output
}

/// Of a network so fast, and so far away, that a segment is requested as soon as the one before.
pub(super) fn fast() -> Estimator {
    let mut estimator = Estimator::default();
    estimator.handle_transfer(u64::from(u32::MAX), Duration::from_secs(1), Duration::from_secs(1));
    estimator
}

/// How a fetch ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Whole,
    /// After this many frames.
    Broken(u64, ErrorKind),
}

fn end() -> impl Strategy<Value = End> {
    let kinds =
        [ErrorKind::Status(404), ErrorKind::Status(503), ErrorKind::Unsupported, ErrorKind::Disconnected];
    prop_oneof![
        3 => Just(End::Whole),
        1 => (0..FRAMES, proptest::sample::select(kinds.to_vec())).prop_map(|(after, kind)| End::Broken(after, kind)),
    ]
}

pub(super) struct Player {
    pub(super) state: State,
    /// The downloader asks again: something has changed, or a reader has found that more may be fetched. Where neither says so
    /// nothing is planned, so a test hangs if a wake-up is lost.
    pub(super) is_woken: bool,
    pub(super) running: Vec<Planned>,
    pub(super) now: Instant,
    /// Levels whose audio has another sample rate than the lowest one.
    pub(super) foreign: Vec<usize>,
    /// Numbers of the frames that were read, and their levels.
    pub(super) played: Vec<u8>,
    levels: Vec<u8>,
    pub(super) section: Option<u64>,
    /// Errors that were returned to the reader, and the last one.
    errors: usize,
    error: Option<Error>,
}

impl Player {
    fn new(levels: usize) -> Self {
        Self::with(levels, HlsConfig { quality: Quality::Fixed(0), ..HlsConfig::default() })
    }

    pub(super) fn with(levels: usize, config: HlsConfig) -> Self {
        let url = Url::parse("http://host/l").unwrap();
        let timeline = Timeline::new(list(), url.clone(), Duration::ZERO);
        let mut ladder = Ladder::single(url.clone());
        let variants: String = (0..levels)
            .map(|level| format!("#EXT-X-STREAM-INF:BANDWIDTH={}\nl{level}\n", level + 1))
            .collect();
        let text = format!("#EXTM3U\n{variants}");
        if let Ok(Playlist::Multivariant(list)) = Playlist::parse(text.as_bytes(), "http://host/l") {
            ladder = Ladder::new(&list, &url, UriPolicy::default(), None).unwrap();
        }
        let state = State::new(config, ladder, None, (0, timeline), fast());
        Self {
            state,
            is_woken: true,
            running: Vec::new(),
            now: Instant::now(),
            foreign: Vec::new(),
            played: Vec::new(),
            levels: Vec::new(),
            section: None,
            errors: 0,
            error: None,
        }
    }

    pub(super) fn plan(&mut self) {
        while self.is_woken {
            match self.state.plan(self.now, Priority::Low) {
                Some(planned) => self.running.push(planned),
                None => self.is_woken = false,
            }
        }
    }

    /// Lets one of the running fetches end.
    pub(super) fn end_fetch(&mut self, which: usize, end: End) {
        self.plan();
        self.end_running(which, end);
    }

    /// As `end_fetch`, of those that were planned before.
    fn end_running(&mut self, which: usize, end: End) {
        if self.running.is_empty() {
            return;
        }
        self.is_woken = true;
        match self.running.swap_remove(which % self.running.len()) {
            Planned::Playlist { variant, url } => match end {
                End::Whole => self.state.handle_planned_playlist(variant, list(), url, Load::at(self.now)),
                End::Broken(_, kind) => {
                    self.state.handle_playlist_failed(variant, Error::new(kind, "as asked"), self.now)
                }
            },
            Planned::Segment { id, url, .. } => {
                let segment = url.path().trim_start_matches('/').parse().unwrap();
                let arrived = if let End::Broken(after, _) = end { after } else { FRAMES };
                let variant = self.state.queued(id).map_or(0, |queued| queued.variant);
                let level = self.state.ladder.variants[variant].level;
                let mut output = frames(level, segment, 0..arrived);
                if self.foreign.contains(&level) {
                    output.frames.iter_mut().for_each(|frame| frame.format.sample_rate = 44_100);
                }
                // A segment that is not needed any more refuses them.
                let _ = self.state.handle_frames(id, &mut output);
                match end {
                    End::Whole => self.state.handle_segment_complete(id),
                    End::Broken(_, kind) => {
                        self.state.handle_segment_failed(id, Error::new(kind, "as asked"), self.now)
                    }
                }
            }
            #[cfg(feature = "cache")]
            Planned::Confirm { .. } | Planned::Stored { .. } => {
                unreachable!("it was not opened from the cache")
            }
            Planned::Resource { .. } | Planned::Steering { .. } => unreachable!("nothing is encrypted"),
        }
    }

    fn fail(&mut self, error: Error) {
        self.errors += 1;
        self.error = Some(error);
    }

    /// Reads what is there. True at the end.
    pub(super) fn read(&mut self) -> bool {
        self.read_frames(usize::MAX)
    }

    pub(super) fn read_frames(&mut self, most: usize) -> bool {
        let end = self.played.len().saturating_add(most);
        while self.played.len() < end {
            if let Some(section) = self.section {
                let mut buf = [0; 3];
                let room = (end - self.played.len()).min(buf.len());
                let result = self.state.read(section, &mut buf[..room]);
                self.is_woken |= self.state.take_wake(self.now) || matches!(result, ReadResult::Failed(_));
                match result {
                    ReadResult::Bytes(got) => {
                        self.played.extend(buf[..got].iter().map(|byte| byte & 63));
                        self.levels.extend(buf[..got].iter().map(|byte| byte >> 6));
                        assert_eq!(self.state.playing_level(), usize::from(buf[got - 1] >> 6));
                    }
                    ReadResult::End => self.section = None,
                    ReadResult::Wait(_) => return false,
                    ReadResult::Failed(error) => self.fail(error),
                }
                continue;
            }
            let result = self.state.next_section();
            self.is_woken |= self.state.take_wake(self.now) || matches!(result, SectionResult::Failed(_));
            match result {
                SectionResult::Section(id, _) => self.section = Some(id),
                SectionResult::End => return true,
                SectionResult::Wait(_) => return false,
                SectionResult::Failed(error) => self.fail(error),
            }
        }
        false
    }
}

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
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_played_once_in_order_until_the_end(
        levels in 1_usize..4,
        ends in proptest::collection::vec((0_usize..8, end()), 0..60),
    ) {
        let mut player = Player::new(levels);
        let network_only =
            ends.iter().all(|(_, end)| matches!(end, End::Whole | End::Broken(_, ErrorKind::Disconnected)));
        for (which, end) in ends {
            player.end_fetch(which, end);
            player.now += Duration::from_secs(7);
            player.read();
        }
        // From here on nothing fails any more.
        for _ in 0..10 * SEGMENTS {
            player.end_fetch(0, End::Whole);
            player.now += Duration::from_secs(7);
            if player.read() {
                break;
            }
        }
        prop_assert!(player.read(), "playing ends: {:?}", player.state);
        prop_assert!(player.played.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", player.played);
        if network_only {
            prop_assert_eq!(player.played.len() as u64, SEGMENTS * FRAMES, "nothing is skipped because of the network");
        }
    }
}

proptest! {
    #[test]
    fn a_section_that_is_dropped_costs_no_frame_and_no_back_pressure(
        steps in proptest::collection::vec((0_usize..8, 0_usize..6, any::<bool>()), 0..60),
    ) {
        let buffer = Duration::from_secs(6);
        let mut player =
            Player::with(1, HlsConfig { quality: Quality::Fixed(0), buffer, ..HlsConfig::default() });
        for (which, read, drops) in steps {
            player.end_fetch(which, End::Whole);
            let before = player.played.len();
            player.read_frames(read);
            let position = player.state.reader_time();
            // One of which nothing was read is skipped.
            let drops = drops && player.played.len() > before;
            if let Some(section) = player.section.take_if(|_| drops) {
                player.state.drop_section(section);
            }
            prop_assert_eq!(player.state.reader_time(), position);
            prop_assert_eq!(position, Duration::from_millis(500) * player.played.len() as u32);
            player.plan();
            let ahead = player.state.cursor - position;
            prop_assert!(ahead < buffer + Duration::from_secs(2), "{ahead:?}");
        }
        for _ in 0..10 * SEGMENTS {
            player.end_fetch(0, End::Whole);
            if player.read() {
                break;
            }
        }
        prop_assert_eq!(player.played, (0..(SEGMENTS * FRAMES) as u8).collect::<Vec<_>>());
    }
}

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
fn the_rest_of_a_section_is_discarded_if_the_one_behind_it_was_handed_out() {
    let mut player = Player::new(1);
    player.end_fetch(0, End::Whole);
    player.read_frames(1);
    let old = player.section.take().unwrap();
    player.state.sections.next_discontinuity = Some(Discontinuity::Format);
    player.end_fetch(0, End::Whole);
    let SectionResult::Section(new, _) = player.state.next_section() else { panic!("a section") };
    assert!(matches!(player.state.read(old, &mut [0; 2]), ReadResult::Bytes(2)), "the old one is still read");
    player.state.drop_section(old);
    assert!(matches!(player.state.read(old, &mut [0; 2]), ReadResult::End));
    assert!(matches!(player.state.next_section(), SectionResult::Wait(_)), "{:?}", player.state.sections);
    let mut byte = [0];
    assert!(matches!(player.state.read(new, &mut byte), ReadResult::Bytes(1)) && byte == [4]);
}

#[test]
fn a_buffer_is_as_long_as_its_audio_whatever_the_playlist_says() {
    // Segments have two seconds.
    for says in ["2.5", "2", "1.5"] {
        let mut player = Player::with(
            1,
            HlsConfig { quality: Quality::Fixed(0), buffer: Duration::from_secs(6), ..HlsConfig::default() },
        );
        let segments: String = (0..SEGMENTS).map(|index| format!("#EXTINF:{says},\n{index}\n")).collect();
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:3\n{segments}#EXT-X-ENDLIST\n");
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        let url = Url::parse("http://host/l").unwrap();
        player.state.timelines[0] = Some(Timeline::new(list, url, Duration::ZERO));
        let mut fetched = 0;
        loop {
            player.plan();
            while !player.running.is_empty() {
                fetched += 1;
                player.end_running(0, End::Whole);
                player.plan();
            }
            if player.read_frames(1) {
                break;
            }
            let ahead = fetched * FRAMES - player.played.len() as u64;
            let is_all = fetched == SEGMENTS;
            assert!(is_all || ahead >= 5 * 2, "{says}: {ahead} frames ahead after {:?}", player.played);
            assert!(ahead <= (6 + 2 + 2) * 2, "{says}: {ahead} frames ahead after {:?}", player.played);
        }
        assert_eq!(player.played, (0..(SEGMENTS * FRAMES) as u8).collect::<Vec<_>>(), "{says}");
    }
}

#[test]
fn manifests_that_name_new_pathways_for_ever_fill_no_memory() {
    let url = Url::parse("http://host/l").unwrap();
    let timeline = Timeline::new(list(), url.clone(), Duration::ZERO);
    let steering = Steering::new(url.clone(), ".".into(), Instant::now());
    let first = (0, timeline);
    let ladder = Ladder::single(url.clone());
    let mut state = State::new(HlsConfig::default(), ladder, Some(steering), first, fast());
    for round in 0..1000 {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

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

/// A live playlist of four segments.
fn live_list(first: u64) -> MediaPlaylist {
    let segments: String = (first..first + 4).map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    list
}

#[test]
fn what_arrives_after_the_playlist_has_jumped_still_belongs_to_the_section_before() {
    // The window has moved on, or the server has started again.
    for (first, next, is_reset) in [(0, 6, false), (6, 0, true)] {
        let mut player = Player::new(1);
        let url = Url::parse("http://host/l").unwrap();
        let timeline = Timeline::new(live_list(first), url.clone(), Duration::ZERO);
        let ladder = Ladder::single(url.clone());
        let config = HlsConfig { start: Some(Duration::ZERO), ..HlsConfig::default() };
        player.state = State::new(config, ladder, None, (0, timeline), fast());
        let Some(Planned::Segment { id, .. }) = player.state.plan(player.now, Priority::Low) else {
            panic!("the first segment is planned")
        };
        player.state.handle_frames(id, &mut frames(0, first, 0..FRAMES - 1)).unwrap();
        player.state.handle_playlist(0, live_list(next), url.clone());
        player.state.handle_playlist(0, live_list(next), url);
        player.plan();
        player.state.handle_frames(id, &mut frames(0, first, FRAMES - 1..FRAMES)).unwrap();
        player.state.handle_segment_complete(id);
        for _ in 0..4 {
            player.end_fetch(0, End::Whole);
        }
        let mut sections = Vec::new();
        while let SectionResult::Section(id, info) = player.state.next_section() {
            let mut buf = [0; 64];
            let ReadResult::Bytes(len) = player.state.read(id, &mut buf) else {
                panic!("a section without frames")
            };
            sections.push((info.discontinuity, buf[..len].to_vec()));
        }
        let of_first: Vec<u8> = (first * FRAMES..(first + 1) * FRAMES).map(|frame| frame as u8).collect();
        assert_eq!(sections[0], (Discontinuity::Start, of_first));
        assert_eq!(sections[1].0 == Discontinuity::Reset, is_reset, "{sections:?}");
        assert_eq!(matches!(sections[1].0, Discontinuity::Behind(_)), !is_reset, "{sections:?}");
        // Three target durations before the end.
        assert_eq!(u64::from(sections[1].1[0]), (next + 1) * FRAMES);
    }
}

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
fn a_fetch_that_a_reader_waits_for_becomes_urgent_as_soon_as_it_has_a_number() {
    let mut player = Player::new(1);
    // The segment that plays at 12 s is not urgent when it is planned.
    for _ in 0..6 {
        player.end_fetch(0, End::Whole);
    }
    player.running.clear();
    let queued = player.state.queue.front().map(|queued| (queued.id, queued.phase, queued.priority));
    let Some((queued, SegmentPhase::Fetching, Priority::Low)) = queued else { panic!("{queued:?}") };
    assert!(!player.read(), "the reader waits");
    let request = RequestId::new(7).unwrap();
    player.state.handle_accepted(queued, request);
    let section = player.section.unwrap();
    let ReadResult::Wait(promoted) = player.state.read(section, &mut [0]) else { panic!("nothing has come") };
    assert_eq!(promoted, Some(request));
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
fn live(segments: std::ops::Range<u64>, end: &str) -> MediaPlaylist {
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

impl Player {
    /// Segments that are requested now.
    fn segments(&mut self) -> usize {
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
fn what_waits_for_a_worker_becomes_urgent_although_nothing_is_planned() {
    let buffer = Duration::from_secs(14);
    let mut player =
        Player::with(1, HlsConfig { quality: Quality::Fixed(0), buffer, ..HlsConfig::default() });
    for _ in 0..SEGMENTS {
        player.end_fetch(0, End::Whole);
    }
    assert!(player.running.is_empty() && !player.is_woken);
    let mut wakes = Vec::new();
    // No worker is free: the downloader does not ask.
    for _ in 0..3 * FRAMES {
        player.is_woken = false;
        player.read_frames(1);
        if player.is_woken {
            wakes.push((player.state.reader_time(), player.state.wake_priority()));
        }
    }
    let half = Duration::from_millis(500);
    assert_eq!(wakes, [(half, Priority::Low), (9 * half, Priority::High)]);
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

/// Longer than a variant is excluded.
const EXCLUDED: Duration = Duration::from_secs(600);

#[test]
fn a_jump_that_is_longer_than_the_buffer_is_urgent_once_all_is_read() {
    let url = Url::parse("http://host/l").unwrap();
    // The server starts again with a window of 400 s; or the reader was away, and the window has moved on by an hour.
    for (from, next) in [(1000, 0..200), (0, 1800..1806)] {
        let mut player = Player::new(1);
        player.state.timelines[0] =
            Some(Timeline::new(live(from..from + 4, ""), url.clone(), Duration::ZERO));
        for _ in 0..3 * FRAMES {
            player.plan();
            while let Some(Planned::Segment { id, .. }) = player.running.pop() {
                player.state.handle_frames(id, &mut frames(0, 0, 0..FRAMES)).unwrap();
                player.state.handle_segment_complete(id);
                player.is_woken = true;
            }
            player.read();
        }
        for _ in 0..2 {
            player.state.handle_playlist(0, live(next.clone(), ""), url.clone());
        }
        player.is_woken = true;
        player.plan();
        let [Planned::Segment { priority, .. }, ..] = &player.running[..] else {
            panic!("nothing is fetched: {:?}", player.running)
        };
        assert_eq!(*priority, Priority::High, "the reader waits for it");
        assert!(player.state.buffered() < Duration::from_secs(20));
    }
}

#[cfg(feature = "cache")]
mod from_the_cache {
    use super::*;

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
            let lines =
                (0..LENGTH / self.seconds).map(|index| format!("#EXTINF:{},\n{index}\n", self.seconds));
            let text =
                format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{}#EXT-X-ENDLIST\n", lines.collect::<String>());
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
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

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

fn is_of(planned: &Planned, path: &str) -> bool {
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
        assert!(requests <= 60 * 8, "{requests} requests in a minute, {errors} errors");
    }
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
