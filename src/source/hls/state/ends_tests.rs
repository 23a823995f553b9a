//! A live origin whose levels end, stop or disappear one by one: what one of them has is played once, without a gap, to the last end.

use std::fmt::Write as _;
use std::ops::Range;

use proptest::prelude::*;
use url::Url;

use super::tests::fast;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;
use crate::source::hls::demux::{Format, Frame, Output};
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::{MediaPlaylist, Playlist};
use crate::source::hls::timeline::reload::Reload;
use crate::types::Priority;

/// Frames of a segment, which lasts for 2 s.
const FRAMES: usize = 4;

/// Segments that a playlist lists.
const WINDOW: usize = 10;

const FRAME: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Ended,
    /// The encoder is gone, and the playlist stays as it is.
    Stale,
    /// The playlist is gone.
    Missing,
}

/// What is listed of a level.
#[derive(Clone, Debug)]
struct Level {
    /// Segments, over all.
    segments: usize,
    last: Last,
    /// Segments that it lists later than the fastest level.
    behind: usize,
    /// Number of its first segment.
    base: usize,
    /// In these seconds its encoder writes nothing, and catches up then.
    stall: Range<u64>,
}

impl Level {
    /// Number of segments that would be listed so long after the start, if it went on.
    fn written(&self, passed: Duration) -> usize {
        let passed = if self.stall.contains(&passed.as_secs()) { self.stall.start } else { passed.as_secs() };
        WINDOW + passed as usize / 2 - self.behind
    }

    fn list(&self, level: usize, is_dated: bool, passed: Duration) -> Result<MediaPlaylist, Error> {
        let end = self.written(passed).min(self.segments);
        if self.written(passed) > self.segments && self.last == Last::Missing {
            return Err(Error::new(ErrorKind::Status(404), "gone"));
        }
        let first = end.saturating_sub(WINDOW);
        let mut text =
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{}\n", self.base + first);
        if is_dated {
            writeln!(
                text,
                "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:{:02}:{:02}Z",
                first * 2 / 60,
                first * 2 % 60
            )
            .unwrap();
        }
        (first..end).for_each(|index| writeln!(text, "#EXTINF:2,\n/{level}/{index}").unwrap());
        if end == self.segments && self.last == Last::Ended {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        match Playlist::parse(text.as_bytes(), "http://host/l") {
            Ok(Playlist::Media(list)) => Ok(list),
            other => panic!("{other:?}"),
        }
    }
}

fn segment(index: usize, level: usize) -> Output {
    let format = Format { codec: AudioCodec::Aac, sample_rate: 48_000, channels: 2, head: None };
    let mut output = Output::default();
    for number in index * FRAMES..(index + 1) * FRAMES {
        let time = i64::try_from((FRAME * number as u32).as_nanos()).ok();
        output.frames.push(Frame { time, duration: FRAME, len: 2, format: format.clone() });
        output.data.extend([number as u8, level as u8]);
    }
    output
}

/// A player, its live thread and its origin, in steps of a frame.
struct Scene {
    state: State,
    levels: Vec<Level>,
    is_dated: bool,
    /// In these seconds no playlist can be loaded.
    outage: Range<u64>,
    start: Instant,
    now: Instant,
    /// Of the variant in use.
    reload: (usize, Reload),
    section: Option<u64>,
    played: Vec<usize>,
    requests: usize,
    error: Option<Error>,
}

impl Scene {
    fn new(levels: Vec<Level>, first: usize, is_dated: bool) -> Self {
        let url = Url::parse("http://host/l").unwrap();
        let mut text = "#EXTM3U\n".to_owned();
        (0..levels.len())
            .for_each(|level| writeln!(text, "#EXT-X-STREAM-INF:BANDWIDTH={}\nl{level}", level + 1).unwrap());
        let Ok(Playlist::Multivariant(list)) = Playlist::parse(text.as_bytes(), "http://host/m") else {
            panic!("a multivariant playlist")
        };
        let ladder = Ladder::new(&list, &url, UriPolicy::default(), None).unwrap();
        let now = Instant::now();
        let list = levels[first].list(first, is_dated, Duration::ZERO).unwrap();
        let timeline = Timeline::new(list, url, Duration::ZERO);
        let config = HlsConfig { quality: Quality::Fixed(first), ..HlsConfig::default() };
        let mut state = State::new(config, ladder, None, (first, timeline), fast());
        state.set_first_load(Load::at(now));
        let reload = (first, Reload::after((now, now), now));
        Self {
            state,
            levels,
            is_dated,
            outage: 0..0,
            start: now,
            now,
            reload,
            section: None,
            played: Vec::new(),
            requests: 0,
            error: None,
        }
    }

    fn list(&self, variant: usize) -> Result<MediaPlaylist, Error> {
        let passed = self.now - self.start;
        if self.outage.contains(&passed.as_secs()) {
            return Err(Error::new(ErrorKind::Disconnected, "as asked"));
        }
        self.levels[variant].list(variant, self.is_dated, passed)
    }

    /// All that is asked for comes at once.
    fn fetch(&mut self) {
        for count in 0.. {
            assert!(count < 50, "a storm of requests");
            let Some(planned) = self.state.plan(self.now, Priority::Low) else { return };
            match planned {
                Planned::Playlist { variant, url } => {
                    self.requests += 1;
                    match self.list(variant) {
                        Ok(list) => {
                            self.state.handle_planned_playlist(variant, list, url, Load::at(self.now))
                        }
                        Err(error) => self.state.handle_playlist_failed(variant, error, self.now),
                    }
                }
                Planned::Segment { id, url, .. } => {
                    let mut path =
                        url.path().trim_start_matches('/').split('/').map(|part| part.parse().unwrap());
                    let (level, index) = (path.next().unwrap(), path.next().unwrap());
                    let _ = self.state.handle_frames(id, &mut segment(index, level));
                    self.state.handle_segment_complete(id);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What the thread of a live stream does, until nothing is due.
    fn load_again(&mut self) {
        while let Some((variant, _, list)) = self.state.live_playlist() {
            if self.reload.0 != variant {
                let load = self.state.last_load().unwrap();
                self.reload = (variant, Reload::after((load.began, load.ended), self.now));
            }
            if self.reload.1.due(&list) > self.now {
                return;
            }
            self.requests += 1;
            let url = Url::parse("http://host/l").unwrap();
            let mut failure = None;
            match self.list(variant) {
                Ok(list) => {
                    let has_changed =
                        self.state.handle_loaded_playlist(variant, list, url, Load::at(self.now));
                    self.reload.1.handle_loaded((self.now, self.now), has_changed);
                }
                Err(error) => {
                    self.state.handle_reload_failed(variant, error.clone(), self.now);
                    self.reload.1.handle_failed(self.now, None);
                    failure = Some(error);
                }
            }
            let is_outage = failure.as_ref().is_some_and(Error::is_retryable);
            if self.reload.1.is_stuck(&list) {
                let error = failure.unwrap_or_else(|| Error::new(ErrorKind::TimedOut, "stuck"));
                self.state.handle_stuck(variant, error, is_outage, self.now);
            } else if self.reload.1.is_stale(&list) {
                self.state.handle_stale(variant, is_outage, self.now);
            }
            self.fetch();
        }
    }

    /// Reads a frame. True at the end, and after an error.
    fn read(&mut self) -> bool {
        loop {
            let Some(section) = self.section else {
                match self.state.next_section() {
                    SectionResult::Section(id, _) => self.section = Some(id),
                    SectionResult::End => return true,
                    SectionResult::Wait(_) => return false,
                    SectionResult::Failed(error) => self.error = Some(error),
                }
                if self.error.is_some() {
                    return true;
                }
                continue;
            };
            let mut frame = [0; 2];
            match self.state.read(section, &mut frame) {
                ReadResult::Bytes(_) => {
                    let number = usize::from(frame[0]);
                    self.played.push(number);
                    return false;
                }
                ReadResult::End => self.section = None,
                ReadResult::Wait(_) => return false,
                ReadResult::Failed(error) => {
                    self.error = Some(error);
                    return true;
                }
            }
        }
    }

    fn play(&mut self) {
        for _ in 0..400 {
            self.fetch();
            self.load_again();
            self.state.take_wake(self.now);
            if self.read() {
                return;
            }
            self.now += FRAME;
        }
        panic!("it does not end: {:?}", self.played);
    }
}

fn level() -> impl Strategy<Value = Level> {
    let last = prop_oneof![2 => Just(Last::Ended), 1 => Just(Last::Stale), 1 => Just(Last::Missing)];
    let stall = (0..60_u64, 0..6_u64).prop_map(|(start, len)| start..start + len);
    (20_usize..50, last, 0_usize..2, stall).prop_map(|(segments, last, behind, stall)| Level {
        segments,
        last,
        behind,
        base: 0,
        stall,
    })
}

/// Plays what these levels have, and checks it.
fn check(levels: Vec<Level>, first: usize, is_dated: bool, outage: Range<u64>) {
    let first = first % levels.len();
    let mut scene = Scene::new(levels.clone(), first, is_dated);
    scene.outage = outage;
    scene.play();
    let last = *scene.played.last().unwrap();
    let expected: Vec<usize> = (scene.played[0]..=last).collect();
    assert_eq!(scene.played, expected, "repeated or lost");
    // The end of one that is missing may have been listed while another one was played.
    let listed = levels.iter().filter(|level| level.last != Last::Missing);
    let longest = listed.map(|level| level.segments).max().unwrap_or_default();
    let ends = levels.iter().any(|level| level.last == Last::Ended);
    assert_eq!(scene.error.is_none(), ends, "{:?}", scene.error);
    assert!(last + 1 >= longest * FRAMES, "{last}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_any_level_has_is_played_once_and_playing_ends_with_the_last_one(
        mut levels in proptest::collection::vec(level(), 1..=3),
        first in 0_usize..3,
    ) {
        (0..levels.len()).for_each(|level| levels[level].base = level * 1000);
        check(levels, first, true, 0..0);
    }

    #[test]
    fn levels_without_dates_that_end_one_by_one_are_played_to_the_last_end(
        mut levels in proptest::collection::vec(level(), 1..=3),
        first in 0_usize..3,
    ) {
        levels.iter_mut().for_each(|level| (level.last, level.stall) = (Last::Ended, 0..0));
        check(levels, first, false, 0..0);
    }
}

#[test]
fn a_level_that_is_not_written_any_more_is_left_for_one_that_goes_on_or_has_ended() {
    let level = |segments, last| Level { segments, last, behind: 0, base: 0, stall: 0..0 };
    for (stale, ended) in [(20, 22), (20, 40), (24, 20)] {
        check(vec![level(stale, Last::Stale), level(ended, Last::Ended)], 0, false, 0..0);
    }
}

#[test]
fn the_end_of_all_levels_costs_one_request_for_each_of_the_others() {
    let level = |base| Level { segments: 20, last: Last::Ended, behind: 0, base, stall: 0..0 };
    let mut single = Scene::new(vec![level(0)], 0, true);
    let mut scene = Scene::new(vec![level(0), level(500), level(0)], 1, true);
    single.play();
    scene.play();
    assert_eq!((scene.played.last(), scene.error.is_none()), (Some(&79), true));
    assert_eq!(scene.requests, single.requests + 2);
}

#[test]
fn a_level_that_paused_is_played_again_and_goes_on_behind_the_end_of_the_other() {
    let level = |segments, last, stall| Level { segments, last, behind: 0, base: 0, stall };
    // It is left for the other one, which ends long after that.
    let levels = vec![level(60, Last::Ended, 4..8), level(45, Last::Ended, 0..0)];
    check(levels, 0, true, 0..0);
    // In an outage at the end of the other one, and in one behind it.
    for outage in [18..26, 24..34, 40..50] {
        check(vec![level(20, Last::Ended, 0..0), level(50, Last::Ended, 0..0)], 0, true, outage);
    }
}
