//! Seeks in a live playlist whose window moves: no frame is wrong, lost or doubled, but for those that have left the window.

use proptest::prelude::*;
use url::Url;

use super::playlist_tests::live;
use super::section::SectionInfo;
use super::seek_tests::whole_or_broken;
use super::tests::{End, Player};
use super::*;
use crate::error::ErrorKind;
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::MediaPlaylist;

/// Of a frame, and of a segment.
const FRAME: Duration = Duration::from_millis(500);
const SEGMENT: Duration = Duration::from_secs(2);

/// Segments of the whole stream, and of a window.
const END: u64 = 16;
const WINDOW: u64 = 7;

const LEVELS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    /// A running fetch ends.
    End(usize, End),
    /// So many frames are read, if they are there.
    Read(usize),
    /// To this part of what can be sought to.
    Seek(f64),
    /// The server lists so many segments more, and as many less: more than one after an outage.
    Grow(u64),
    Quality(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..8, whole_or_broken()).prop_map(|(which, end)| Step::End(which, end)),
        3 => (0_usize..10).prop_map(Step::Read),
        2 => (0.0..=1.0).prop_map(Step::Seek),
        2 => Just(Step::Grow(1)),
        1 => (2..12_u64).prop_map(Step::Grow),
        1 => (0..LEVELS).prop_map(Step::Quality),
    ]
}

/// A live stream, and what its reader has got.
struct Live {
    player: Player,
    /// The last segment that the server lists, and 1.
    edge: u64,
    /// The section that is being read.
    section: Option<(u64, SectionInfo)>,
    /// Presentation time of the end of the last frame that was read, since the start or the last seek.
    end: Option<Duration>,
    /// Frames of the section that were read.
    read: u32,
    /// Target of a seek of which nothing was read.
    target: Option<Duration>,
    start: Duration,
}

impl Live {
    fn new(buffer: u64) -> Self {
        let buffer = Duration::from_secs(buffer);
        let mut player =
            Player::with(LEVELS, HlsConfig { quality: Quality::Fixed(0), buffer, ..HlsConfig::default() });
        let url = player.state.ladder.variants[0].url.clone();
        let timeline = Timeline::new(live(0..WINDOW, ""), url.clone(), Duration::ZERO);
        let start = start_of(&timeline, &player.state.config);
        (player.state.is_on_demand, player.state.timelines[0]) = (false, Some(timeline));
        (player.state.cursor, player.state.sections) = (start, Sections::new(start));
        player.state.set_first_load(Load::at(player.now));
        Self { player, edge: WINDOW, section: None, end: None, read: 0, target: None, start }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::End(which, end) => self.end_fetch(*which, *end),
            Step::Read(most) => drop(self.read(*most)),
            Step::Seek(part) => self.seek(*part),
            Step::Grow(segments) => self.grow(*segments),
            Step::Quality(level) => {
                self.player.state.set_quality(Quality::Fixed(*level), self.player.now);
                self.player.is_woken = true;
            }
        }
        self.player.now += Duration::from_secs(7);
    }

    fn grow(&mut self, segments: u64) {
        self.edge = (self.edge + segments).min(END);
        self.player.now += SEGMENT * segments as u32;
        // The thread of a live stream loads the playlist of the variant in use.
        let (variant, list) = (self.player.state.variant, self.listed());
        let url: Url = self.player.state.ladder.variants[variant].url.clone();
        self.player.state.handle_loaded_playlist(variant, list, url, Load::at(self.player.now));
        self.player.is_woken = true;
    }

    /// What the server lists now, of each level.
    fn listed(&self) -> MediaPlaylist {
        let end = if self.edge == END { "#EXT-X-ENDLIST\n" } else { "" };
        live(self.edge - WINDOW..self.edge, end)
    }

    fn end_fetch(&mut self, which: usize, end: End) {
        self.player.plan();
        let is_playlist = |planned: &Planned| matches!(planned, Planned::Playlist { .. });
        while let Some(index) = self.player.running.iter().position(is_playlist) {
            let Planned::Playlist { variant, url } = self.player.running.swap_remove(index) else { return };
            let list = self.listed();
            self.player.state.handle_planned_playlist(variant, list, url, Load::at(self.player.now));
            self.player.is_woken = true;
            self.player.plan();
        }
        if self.player.running.is_empty() {
            return;
        }
        // A server has a segment for as long as it lists it.
        let which = which % self.player.running.len();
        let Planned::Segment { url, .. } = &self.player.running[which] else { return };
        let number: u64 = url.path().trim_start_matches('/').parse().unwrap();
        let is_gone = number < self.edge - WINDOW;
        self.player.end_running(which, if is_gone { End::Broken(0, ErrorKind::Status(404)) } else { end });
    }

    fn seek(&mut self, part: f64) {
        let window = self.player.state.seekable();
        let target = window.start + (window.end - window.start).mul_f64(part);
        let landed = self.player.state.seek(target).unwrap();
        assert!(
            landed <= target && target < landed + SEGMENT || target == window.end,
            "{landed:?} {target:?}"
        );
        (self.section, self.end, self.read, self.target) = (None, None, 0, Some(target));
        self.player.is_woken = true;
    }

    /// Reads what is there. True at the end.
    fn read(&mut self, most: usize) -> bool {
        let mut left = most;
        while left > 0 {
            let state = &mut self.player.state;
            let Some((id, info)) = &self.section else {
                let result = state.next_section();
                self.player.is_woken |= state.take_wake(self.player.now);
                match result {
                    SectionResult::Section(id, info) => self.begin(id, info),
                    SectionResult::End => return true,
                    SectionResult::Wait(_) => return false,
                    SectionResult::Failed(error) => panic!("{error}"),
                }
                continue;
            };
            let mut byte = [0];
            let result = state.read(*id, &mut byte);
            self.player.is_woken |= state.take_wake(self.player.now);
            match result {
                ReadResult::Bytes(_) => {
                    let time = info.start + FRAME * self.read;
                    assert_eq!(Duration::from_millis(500) * u32::from(byte[0] & 63), time, "{info:?}");
                    (self.read, self.end) = (self.read + 1, Some(time + FRAME));
                    left -= 1;
                }
                ReadResult::End => self.section = None,
                ReadResult::Wait(_) => return false,
                ReadResult::Failed(error) => panic!("{error}"),
            }
        }
        false
    }

    fn begin(&mut self, id: u64, info: SectionInfo) {
        let sought = self.target.take();
        match (info.discontinuity, self.end) {
            (Discontinuity::Start, None) => {}
            (Discontinuity::Seek, None) => {
                let target = sought.expect("a seek");
                assert_eq!(info.start + info.skip, target, "{info:?}");
                assert!(target <= info.start + SEGMENT, "{target:?} {info:?}");
            }
            (Discontinuity::Behind(missing), Some(end)) => assert_eq!(info.start, end + missing, "{info:?}"),
            // The target, or the start, has left the window before its segment was requested.
            (Discontinuity::Behind(missing), None) => {
                let from = sought.unwrap_or(self.start);
                assert_eq!((info.start, info.skip), (from + missing, Duration::ZERO), "{info:?}");
            }
            (other, end) => panic!("{other:?} after {end:?}"),
        }
        (self.section, self.read) = (Some((id, info)), 0);
    }

    fn finish(mut self) {
        for _ in 0..20 * END {
            self.grow(1);
            self.end_fetch(0, End::Whole);
            self.player.now += Duration::from_secs(7);
            if self.read(usize::MAX) {
                assert_eq!(self.end, Some(SEGMENT * END as u32));
                return;
            }
        }
        panic!("playing ends: {:?}", self.player.state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(256), ..ProptestConfig::default() })]

    #[test]
    fn in_a_window_that_moves_each_frame_is_played_once_unless_it_has_left(
        steps in proptest::collection::vec(step(), 0..80),
        buffer in 4_u64..40,
    ) {
        let mut live = Live::new(buffer);
        steps.iter().for_each(|step| live.step(step));
        live.finish();
    }
}

#[test]
fn a_live_stream_keeps_what_it_lists_and_nothing_else() {
    let Live { mut player, .. } = Live::new(6);
    let url: Url = player.state.ladder.variants[0].url.clone();
    let mut section = None;
    for first in 0..1000 {
        player.state.handle_playlist(0, live(first..first + WINDOW, ""), url.clone());
        for _ in 0..3 {
            player.is_woken = true;
            player.end_fetch(0, End::Whole);
            if let SectionResult::Section(id, _) = player.state.next_section() {
                section = Some(id);
            }
            section.into_iter().for_each(|id| drop(player.state.read(id, &mut [0; 16])));
        }
        let starts: Vec<Duration> = player.state.kept.segments.keys().map(|place| place.start).collect();
        let window = player.state.seekable();
        assert!(starts.iter().all(|start| *start >= window.start), "{starts:?} {window:?}");
        assert!(first < WINDOW || starts.len() > 2, "{starts:?}");
    }
}
