//! Segments whose borders cut frames, as byte splitters of MPEG-TS make them: each frame is played once, with its time.

use std::fmt::Write as _;

use proptest::prelude::*;
use url::Url;

use super::tests::{End, Player, fast};
use super::*;
use crate::error::Error;
use crate::source::hls::demux::{Frame, Output, join};
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::{MediaPlaylist, Playlist};
use crate::types::Priority;

const SEGMENTS: usize = 8;

/// Frames of a segment, which lasts for 2 s.
const FRAMES: usize = 94;

/// Length of a frame of ADTS, in bytes: its header, its number, its level.
const LEN: usize = 10;

fn adts(number: usize, level: usize) -> [u8; LEN] {
    // ISO 14496-3, section 1.A.2: AAC-LC of 48 kHz in stereo.
    [
        0xff,
        0xf1,
        0x4c,
        0x80,
        (LEN >> 3) as u8,
        ((LEN & 7) << 5) as u8 | 0x1f,
        0xfc,
        (number >> 8) as u8,
        number as u8,
        level as u8,
    ]
}

fn time(number: usize) -> Duration {
    Duration::from_nanos(number as u64 * 1024 * 1_000_000_000 / 48_000)
}

/// A segment of a level whose borders lie `cut` bytes behind the begin of a frame.
fn segment(index: usize, level: usize, cut: usize) -> Output {
    let mut output = Output::default();
    let (first, end) = (index * FRAMES, (index + 1) * FRAMES);
    let has_head = cut > 0 && index > 0;
    if has_head {
        output.head = adts(first, level)[cut..].to_vec();
    }
    for number in first + usize::from(has_head)..end {
        let bytes = adts(number, level);
        let (frame, bytes) = join(&bytes[..1], &bytes[1..]).unwrap();
        output.frames.push(Frame { time: i64::try_from(time(number).as_nanos()).ok(), ..frame });
        output.data.extend(bytes);
    }
    if index + 1 < SEGMENTS {
        output.tail = adts(end, level)[..cut].to_vec();
    }
    output
}

fn list() -> MediaPlaylist {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n".to_owned();
    (0..SEGMENTS)
        .for_each(|index| writeln!(text, "#EXTINF:{},\n{index}", time(FRAMES).as_secs_f64()).unwrap());
    text.push_str("#EXT-X-ENDLIST\n");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    list
}

struct Listener {
    state: State,
    now: Instant,
    running: Vec<Planned>,
    cuts: Vec<usize>,
    section: Option<u64>,
    bytes_read: u64,
    /// Numbers of the frames that were read, and their levels.
    played: Vec<(usize, usize)>,
}

impl Listener {
    fn new(cuts: Vec<usize>, buffer: u64) -> Self {
        let quality = Quality::Fixed(0);
        let config = HlsConfig { quality, buffer: Duration::from_secs(buffer), ..HlsConfig::default() };
        let mut state = Player::with(cuts.len(), config).state;
        state.network.estimator = fast();
        for variant in 0..cuts.len() {
            let url = Url::parse("http://host/l").unwrap();
            state.timelines[variant] = Some(Timeline::new(list(), url, Duration::ZERO));
        }
        let (running, played) = (Vec::new(), Vec::new());
        Self { state, now: Instant::now(), running, cuts, section: None, bytes_read: 0, played }
    }

    fn plan(&mut self) {
        while let Some(planned) = self.state.plan(self.now, Priority::Low) {
            self.running.push(planned);
        }
    }

    fn end_fetch(&mut self, which: usize, end: End) {
        self.plan();
        if self.running.is_empty() {
            return;
        }
        match self.running.swap_remove(which % self.running.len()) {
            Planned::Segment { id, url, .. } => {
                let Some(queued) = self.state.queued(id) else { return };
                let variant = queued.variant;
                let level = self.state.ladder.variants[variant].level;
                let index = url.path().trim_start_matches('/').parse().unwrap();
                let mut output = segment(index, level, self.cuts[level]);
                if let End::Broken(after, kind) = end {
                    let frames = (after as usize * FRAMES / 4).min(output.frames.len());
                    output.frames.truncate(frames);
                    output.data.truncate(frames * LEN);
                    output.tail.clear();
                    let _ = self.state.handle_frames(id, &mut output);
                    return self.state.handle_segment_failed(id, Error::new(kind, "as asked"), self.now);
                }
                let mut tail = Output { tail: std::mem::take(&mut output.tail), ..Output::default() };
                let _ = self.state.handle_frames(id, &mut output);
                let _ = self.state.handle_frames(id, &mut tail);
                self.state.handle_segment_complete(id);
            }
            Planned::Playlist { variant, url } => {
                self.state.handle_planned_playlist(variant, list(), url, Load::at(self.now));
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// Reads at most so many frames. True at the end.
    fn read(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some(section) = self.section else {
                match self.state.next_section() {
                    SectionResult::Section(id, _) => (self.section, self.bytes_read) = (Some(id), 0),
                    SectionResult::End => return true,
                    _ => return false,
                }
                continue;
            };
            let mut frame = [0; LEN];
            match self.state.read(section, &mut frame) {
                ReadResult::Bytes(got) => {
                    assert_eq!((got, &frame[..4]), (LEN, &adts(0, 0)[..4]), "a frame");
                    let (number, level) =
                        (usize::from(frame[7]) << 8 | usize::from(frame[8]), usize::from(frame[9]));
                    let known = self.state.section(section).and_then(|known| known.time_of(self.bytes_read));
                    assert!(known.unwrap().abs_diff(time(number)) < time(1) / 2, "{number} at {known:?}");
                    self.bytes_read += LEN as u64;
                    self.played.push((number, level));
                }
                ReadResult::End => self.section = None,
                _ => return false,
            }
        }
        false
    }

    fn choose(&mut self, level: usize) {
        self.state.set_quality(Quality::Fixed(level), self.now);
        self.state.drop_buffered().unwrap();
    }

    fn finish(&mut self) {
        for _ in 0..20 * SEGMENTS {
            self.end_fetch(0, End::Whole);
            self.now += Duration::from_secs(7);
            if self.read(usize::MAX) {
                return;
            }
        }
        panic!("it does not end");
    }

    /// Numbers of the frames that were left out, at most one at a change of level: no segment that was fetched has both halves of it.
    fn missing(&self) -> Vec<usize> {
        let pairs = self.played.windows(2);
        let jumps = pairs.filter(|pair| pair[1].0 != pair[0].0 + 1);
        jumps
            .map(|pair| {
                let ((last, old), (next, new)) = (pair[0], pair[1]);
                let is_border = next == last + 2 && (last + 1) % FRAMES == 0 && old != new;
                assert!(is_border, "{last} of level {old} precedes {next} of level {new}");
                last + 1
            })
            .collect()
    }
}

fn broken() -> impl Strategy<Value = End> {
    // After others a segment is skipped at last.
    let disconnected = (0_u64..4).prop_map(|after| End::Broken(after, crate::error::ErrorKind::Disconnected));
    prop_oneof![3 => Just(End::Whole), 1 => disconnected]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(128), ..ProptestConfig::default() })]

    #[test]
    fn each_frame_that_a_border_cuts_is_played_once_whatever_is_dropped(
        steps in proptest::collection::vec((0_usize..4, broken(), 0_usize..200, proptest::option::of(0_usize..3)), 0..40),
        cuts in proptest::collection::vec(0_usize..LEN, 1..=3),
        buffer in 4_u64..20,
    ) {
        let levels = cuts.len();
        let mut listener = Listener::new(cuts, buffer);
        for (which, end, read, level) in steps {
            listener.end_fetch(which, end);
            listener.read(read);
            if let Some(level) = level {
                listener.choose(level % levels);
            }
            listener.now += Duration::from_secs(7);
        }
        listener.finish();
        prop_assert_eq!(listener.played.first().map(|frame| frame.0), Some(0));
        prop_assert_eq!(listener.played.last().map(|frame| frame.0), Some(SEGMENTS * FRAMES - 1));
        let missing = listener.missing();
        prop_assert!(levels > 1 || missing.is_empty(), "{:?}", missing);
    }
}

#[test]
fn a_drop_of_what_is_buffered_keeps_a_frame_whose_halves_have_both_arrived() {
    for (fetched, read) in [(8, 10), (3, 10), (2, 10), (3, 60), (1, 10)] {
        let mut listener = Listener::new(vec![4, 7], 60);
        (0..fetched).for_each(|_| listener.end_fetch(0, End::Whole));
        listener.read(read);
        listener.choose(1);
        listener.finish();
        let expected: &[usize] = if fetched == 1 { &[FRAMES] } else { &[] };
        assert_eq!(listener.missing(), expected, "{fetched} segments, {read} frames read");
    }
}
