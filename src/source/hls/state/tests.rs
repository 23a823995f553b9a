//! Whatever fails, and in whatever order fetches end: frames are played once, in order, and playing ends.

use proptest::prelude::*;
use url::Url;

use super::playlist_tests::live;
use super::queued_segment::SegmentPhase;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;
use crate::source::hls::demux::{Format, Frame, Output};
use crate::source::hls::ladder::levels::Load;
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

pub(super) fn end() -> impl Strategy<Value = End> {
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
    pub(super) levels: Vec<u8>,
    pub(super) section: Option<u64>,
    /// Errors that were returned to the reader, and the last one.
    pub(super) errors: usize,
    pub(super) error: Option<Error>,
}

impl Player {
    pub(super) fn new(levels: usize) -> Self {
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
    pub(super) fn end_running(&mut self, which: usize, end: End) {
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

    pub(super) fn fail(&mut self, error: Error) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(160), ..ProptestConfig::default() })]

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

#[test]
fn what_is_left_out_is_not_buffered() {
    let gap = |index: u64| if (3..8).contains(&index) { "#EXT-X-GAP\n" } else { "" };
    let segments: String =
        (0..SEGMENTS).map(|index| format!("{}#EXTINF:2,\n{index}\n", gap(index))).collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{segments}#EXT-X-ENDLIST\n");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    let mut player = Player::new(1);
    let url = Url::parse("http://host/l").unwrap();
    player.state.timelines[0] = Some(Timeline::new(list, url, Duration::ZERO));
    // Four segments follow the gap.
    for arrived in 1..=7 {
        player.end_fetch(0, End::Whole);
        player.plan();
        assert_eq!(player.state.buffered(), Duration::from_secs(2 * arrived), "{:?}", player.state.queue);
    }
    // Frames have half a second.
    for read in 1..=7 * FRAMES {
        player.read_frames(1);
        let left = Duration::from_millis(500) * (7 * FRAMES - read) as u32;
        assert_eq!(player.state.buffered(), left, "{:?}", player.played);
    }
}
