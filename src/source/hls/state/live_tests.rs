//! Whatever a live server lists, and whatever its readers do: no panic, no loop, no storm of requests, and once the server is sane
//! again, playing goes on to the end.

use std::fmt::Write as _;

use proptest::prelude::*;
use url::Url;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;
use crate::source::hls::demux::{Format, Frame, Output};
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::{MediaPlaylist, Playlist};
use crate::types::Priority;

/// A version of a playlist.
#[derive(Clone, Debug)]
struct Listed {
    first: u64,
    count: u64,
    target: &'static str,
    duration: &'static str,
    /// Tags before each segment.
    tags: &'static str,
    parts: u64,
    end: &'static str,
}

/// A hint at the part that the next version may list.
const NEXT_PART: &str = "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{next}\"\n";

fn listed() -> impl Strategy<Value = Listed> {
    let first = prop_oneof![4 => 0_u64..60, 1 => Just(u64::MAX - 20), 1 => any::<u64>()];
    let durations = ["2", "0", "0.000000001", "1000000000", "18446744073709551615"];
    let tags = [
        "",
        "",
        "#EXT-X-DISCONTINUITY\n",
        "#EXT-X-GAP\n",
        "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n",
        "#EXT-X-PROGRAM-DATE-TIME:9999-12-31T23:59:59Z\n",
        "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:00Z\n#EXT-X-MAP:URI=\"init\"\n",
        "#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n",
        "#EXT-X-BYTERANGE:10@18446744073709551600\n",
    ];
    let ends = ["", "", "", "#EXT-X-ENDLIST\n", "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"hint\"\n", NEXT_PART];
    (
        first,
        0_u64..8,
        proptest::sample::select(durations.to_vec()),
        proptest::sample::select(durations.to_vec()),
        proptest::sample::select(tags.to_vec()),
        0_u64..3,
        proptest::sample::select(ends.to_vec()),
    )
        .prop_map(|(first, count, target, duration, tags, parts, end)| Listed {
            first,
            count,
            target,
            duration,
            tags,
            parts,
            end,
        })
}

impl Listed {
    /// `None` if it is refused.
    fn parse(&self, can_end: bool) -> Option<MediaPlaylist> {
        let Self { first, count, target, duration, tags, parts, end } = self;
        let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
        if *parts > 0 || end.contains("HINT") {
            text.push_str("#EXT-X-PART-INF:PART-TARGET=1\n");
        }
        for index in 0..*count {
            let number = first.wrapping_add(index);
            write!(text, "{tags}#EXTINF:{duration},\ns{number}\n").unwrap();
        }
        for part in 0..*parts {
            writeln!(text, "#EXT-X-PART:DURATION=1,URI=\"p{}-{part}\"", first.wrapping_add(*count)).unwrap();
        }
        if can_end || !end.contains("ENDLIST") {
            let next = format!("p{}-{parts}", first.wrapping_add(*count));
            text.push_str(&end.replace("{next}", &next));
        }
        match Playlist::parse(text.as_bytes(), "http://host/l") {
            Ok(Playlist::Media(list)) => Some(list),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    List(usize, Listed),
    /// The next version of a playlist: it has one more part, or its last segment is whole, and it may hint at the next part.
    Grow(usize, bool, bool),
    ListFails(usize),
    /// Which of the running fetches ends, and how.
    End(usize, Option<ErrorKind>),
    /// What happens to the request for the hinted part.
    Hint(HintStep),
    Read(usize),
    /// A part of what can be sought to.
    Seek(f64),
    Quality(usize),
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum HintStep {
    /// The response headers come.
    Answer,
    /// Frames come, after the response headers.
    Frames,
    Whole,
    Fail,
}

fn hint_step() -> impl Strategy<Value = HintStep> {
    use HintStep::{Answer, Fail, Frames, Whole};
    proptest::sample::select(vec![Answer, Frames, Whole, Fail])
}

/// The request for a hinted part, which is held back until it is answered.
struct Held {
    id: u64,
    is_answered: bool,
    has_frames: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = [404, 403, 503].map(ErrorKind::Status).into_iter();
    let kinds: Vec<_> = kinds.chain([ErrorKind::Unsupported, ErrorKind::Disconnected]).collect();
    prop_oneof![
        6 => (0_usize..2, listed()).prop_map(|(variant, listed)| Step::List(variant, listed)),
        6 => (0_usize..2, any::<bool>(), any::<bool>()).prop_map(|(variant, is_whole, hints)| Step::Grow(variant, is_whole, hints)),
        1 => (0_usize..2).prop_map(Step::ListFails),
        6 => (0_usize..8).prop_map(|which| Step::End(which, None)),
        2 => (0_usize..8, proptest::sample::select(kinds)).prop_map(|(which, kind)| Step::End(which, Some(kind))),
        4 => hint_step().prop_map(Step::Hint),
        4 => (0_usize..30).prop_map(Step::Read),
        1 => (0.0..1.0_f64).prop_map(Step::Seek),
        1 => (0_usize..2).prop_map(Step::Quality),
        2 => prop_oneof![0_u64..10, Just(3 * 3600), Just(1_000_000_000)].prop_map(Step::Pass),
    ]
}

struct Listener {
    state: State,
    now: Instant,
    running: Vec<Planned>,
    hint: Option<Held>,
    /// Hinted parts that have arrived as a whole.
    arrived: u64,
    /// The last version of each playlist.
    listed: [Listed; 2],
    section: Option<u64>,
    read: u64,
}

impl Listener {
    fn new() -> Self {
        let url = Url::parse("http://host/l").unwrap();
        let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nl0\n#EXT-X-STREAM-INF:BANDWIDTH=2\nl1\n";
        let Ok(Playlist::Multivariant(levels)) = Playlist::parse(text.as_bytes(), "http://host/m") else {
            panic!("a multivariant playlist")
        };
        let ladder = Ladder::new(&levels, &url, UriPolicy::default(), None).unwrap();
        let first = (0, Timeline::new(sane(0, 4, "").parse(true).unwrap(), url, Duration::ZERO));
        let config = HlsConfig { quality: Quality::Fixed(0), ..HlsConfig::default() };
        let state = State::new(config, ladder, None, first, Estimator::default());
        Self {
            state,
            now: Instant::now(),
            running: Vec::new(),
            hint: None,
            arrived: 0,
            listed: [(); 2].map(|()| sane(0, 4, "")),
            section: None,
            read: 0,
        }
    }

    /// Asks for all that may be fetched now. Returns how much there is.
    fn plan(&mut self) -> usize {
        let before = self.running.len();
        while let Some(planned) = self.state.plan(self.now, Priority::Low) {
            self.running.push(planned);
            assert!(self.running.len() - before < 20, "it plans without an end: {:?}", self.running);
        }
        self.end_dropped_hint();
        // One request at a time: a thread waits for its answer.
        if self.hint.is_none() {
            if let Some(Hinted::Part(part)) = self.state.poll_hint(self.now) {
                self.hint = Some(Held { id: part.id, is_answered: false, has_frames: false });
            }
        }
        self.running.len() - before
    }

    /// Once it is dropped, its request is cancelled.
    fn end_dropped_hint(&mut self) {
        let state = &self.state;
        if self.hint.as_ref().is_some_and(|hint| !state.needs_hint(hint.id)) {
            self.fail_hint();
        }
    }

    fn fail_hint(&mut self) {
        if let Some(hint) = self.hint.take() {
            let error = Error::new(ErrorKind::Status(404), "no part");
            self.state.handle_hint_failed(hint.id, &error);
        }
    }

    fn step_hint(&mut self, step: HintStep) {
        let Some(hint) = &mut self.hint else { return };
        let id = hint.id;
        if matches!(step, HintStep::Fail) {
            return self.fail_hint();
        }
        if !std::mem::replace(&mut hint.is_answered, true) {
            self.state.handle_hint_answered(id);
        }
        if matches!(step, HintStep::Answer) {
            return;
        }
        if !std::mem::replace(&mut hint.has_frames, true)
            && self.state.handle_frames(id, &mut frames(7)).is_err()
        {
            // Its sink refuses the rest.
            return self.fail_hint();
        }
        if matches!(step, HintStep::Whole) {
            self.state.handle_segment_complete(id);
            self.hint = None;
            self.arrived += 1;
        }
    }

    fn end(&mut self, which: usize, kind: Option<ErrorKind>) {
        if self.running.is_empty() {
            return;
        }
        let planned = self.running.swap_remove(which % self.running.len());
        let error = kind.map(|kind| Error::new(kind, "as asked"));
        match (planned, error) {
            (Planned::Playlist { variant, url }, None) => {
                let list = sane(30, 6, "").parse(true).unwrap();
                self.state.handle_planned_playlist(variant, list, url, Load::at(self.now));
            }
            (Planned::Playlist { variant, .. }, Some(error)) => {
                self.state.handle_playlist_failed(variant, error, self.now);
            }
            (Planned::Segment { id, url, .. }, None) => {
                let number: u64 =
                    url.path().trim_matches(|char: char| !char.is_ascii_digit()).parse().unwrap_or(7);
                // A segment that is not needed any more refuses them.
                let _ = self.state.handle_frames(id, &mut frames(number % 1000));
                self.state.handle_segment_complete(id);
            }
            (Planned::Segment { id, .. }, Some(error)) => {
                self.state.handle_segment_failed(id, error, self.now)
            }
            (Planned::Resource { key, .. }, None) => drop(self.state.handle_resource(key, vec![0; 16])),
            (Planned::Resource { key, .. }, Some(error)) => {
                self.state.handle_resource_failed(&key, &error, self.now);
            }
            (planned, _) => unreachable!("{planned:?}"),
        }
    }

    /// True at the end.
    fn read(&mut self, most: usize) -> bool {
        for _ in 0..most {
            match self.section {
                Some(section) => match self.state.read(section, &mut [0; 3]) {
                    ReadResult::Bytes(got) => self.read += got as u64,
                    ReadResult::End => self.section = None,
                    ReadResult::Wait(_) => break,
                    ReadResult::Failed(_) => {}
                },
                None => match self.state.next_section() {
                    SectionResult::Section(id, _) => self.section = Some(id),
                    SectionResult::End => return true,
                    SectionResult::Wait(_) => break,
                    SectionResult::Failed(_) => {}
                },
            }
        }
        self.state.take_wake(self.now);
        false
    }

    fn list(&mut self, variant: usize, listed: Listed) {
        let Some(list) = listed.parse(false) else { return };
        self.listed[variant] = listed;
        let url = self.state.ladder.variants[variant].url.clone();
        self.state.handle_playlist(variant, list, url);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::List(variant, listed) => {
                // Nothing but a new playlist of the same server would follow an end.
                self.list(variant, listed);
            }
            Step::Grow(variant, is_whole, hints) => {
                let Listed { first, count, parts, .. } = self.listed[variant];
                let (count, parts) = if is_whole { (count + 1, 0) } else { (count, parts + 1) };
                let end = if hints { NEXT_PART } else { "" };
                self.list(variant, Listed { parts, ..sane(first, count, end) });
            }
            Step::ListFails(variant) => {
                let error = Error::new(ErrorKind::Status(503), "as asked");
                self.state.handle_reload_failed(variant, error, self.now);
            }
            Step::End(which, kind) => self.end(which, kind),
            Step::Hint(step) => self.step_hint(step),
            Step::Read(most) => drop(self.read(most)),
            Step::Seek(part) => {
                let window = self.state.seekable();
                let target = window.start + (window.end - window.start).mul_f64(part);
                self.state.seek(target).unwrap();
                self.section = None;
            }
            Step::Quality(level) => self.state.set_quality(Quality::Fixed(level), self.now),
            Step::Pass(seconds) => self.now += Duration::from_secs(seconds),
        }
        self.wake();
    }

    /// A blocked reader looks at the state after each plan. The two must not wake each other without an end.
    fn wake(&mut self) {
        let mut wakes = 0;
        while self.state.take_wake(self.now) {
            wakes += 1;
            assert!(
                self.plan() > 0 || wakes < 5,
                "the reader and the plan wake each other: {:?}",
                self.state
            );
        }
    }
}

fn sane(first: u64, count: u64, end: &'static str) -> Listed {
    Listed { first, count, target: "2", duration: "2", tags: "", parts: 0, end }
}

/// Four frames of half a second.
fn frames(segment: u64) -> Output {
    let format = Format { codec: AudioCodec::Aac, sample_rate: 48_000, channels: 2, head: None };
    let mut output = Output::default();
    for frame in 0..4 {
        let time = i64::try_from(segment * 2_000_000_000 + frame * 500_000_000).ok();
        let duration = Duration::from_millis(500);
        output.frames.push(Frame { time, duration, len: 1, format: format.clone() });
        output.data.push(segment as u8);
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(128), ..ProptestConfig::default() })]

    #[test]
    fn a_live_server_that_lists_anything_is_outlived(steps in proptest::collection::vec(step(), 0..60)) {
        let mut listener = Listener::new();
        for step in steps {
            listener.plan();
            listener.step(step);
            prop_assert!(listener.state.queue.len() < 100, "{:?}", listener.state.queue);
        }
        // From here on the server is sane: the window moves on, and then it ends. No request is held for so long.
        listener.now += Duration::from_secs(700);
        listener.fail_hint();
        let mut is_over = false;
        for round in 0..60 {
            let end = if round > 20 { "#EXT-X-ENDLIST\n" } else { "" };
            for variant in 0..2 {
                let url = listener.state.ladder.variants[variant].url.clone();
                let list = sane(100 + round.min(21), 6, end).parse(true).unwrap();
                listener.state.handle_playlist(variant, list, url);
            }
            for _ in 0..8 {
                listener.plan();
                listener.end(0, None);
                listener.now += Duration::from_secs(1);
                is_over |= listener.read(40);
            }
            if is_over {
                break;
            }
        }
        prop_assert!(is_over, "playing ends: {:?}", listener.state);
    }
}

#[test]
fn a_hinted_part_arrives_before_it_is_listed_and_what_follows_is_requested() {
    let mut listener = Listener::new();
    for _ in 0..12 {
        listener.plan();
        listener.step(Step::End(0, None));
    }
    listener.step(Step::Grow(0, false, true));
    for round in 1..4 {
        listener.plan();
        while !listener.running.is_empty() {
            listener.step(Step::End(0, None));
            listener.plan();
        }
        assert!(listener.hint.is_some(), "round {round}: {:?}", listener.state.queue);
        listener.step(Step::Hint(HintStep::Whole));
        assert_eq!(listener.arrived, round);
        listener.step(Step::Grow(0, false, true));
    }
}
