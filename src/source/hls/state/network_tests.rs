//! Playing on networks whose rate changes: the state as it is, on a link that its transfers share, in virtual time.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use url::Url;

use super::*;
use crate::abr::{Abr, Buffered, Hybrid, Running};
use crate::bandwidth::{Bandwidth, Sample};
use crate::media::AudioCodec;
use crate::source::hls::config::MakeAbr;
use crate::source::hls::demux::{Format, Frame, Output};
use crate::source::hls::playlist::{MediaPlaylist, Playlist};

/// Seconds of a step.
const STEP: f64 = 0.05;

/// Frames of a segment.
const FRAMES: u64 = 8;

/// What is played, and over what.
#[derive(Clone, Debug)]
struct Scene {
    bitrates: Vec<u64>,
    /// The playlist names this many times as much.
    lie: f64,
    /// Seconds of a segment.
    segment: f64,
    segments: u64,
    /// Seconds from a request to the first byte.
    latency: f64,
    /// Seconds and bits a second. Begins again at its end.
    trace: Vec<(f64, f64)>,
}

impl Scene {
    fn rate(&self, now: f64) -> f64 {
        let period: f64 = self.trace.iter().map(|step| step.0).sum();
        let mut left = now % period;
        let step = self.trace.iter().find(|(seconds, _)| {
            left -= seconds;
            left < 0.0
        });
        step.unwrap_or(&self.trace[0]).1
    }

    fn list(&self) -> MediaPlaylist {
        let segments: String =
            (0..self.segments).map(|index| format!("#EXTINF:{},\n{index}\n", self.segment)).collect();
        let target = self.segment.ceil();
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:{target}\n{segments}#EXT-X-ENDLIST\n");
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        list
    }

    fn state(&self, snapshots: Snapshots) -> State {
        let url = Url::parse("http://host/l").unwrap();
        let variants: String = self
            .bitrates
            .iter()
            .enumerate()
            .map(|(level, bitrate)| {
                let named = (*bitrate as f64 * self.lie) as u64;
                format!("#EXT-X-STREAM-INF:BANDWIDTH={named}\nl{level}\n")
            })
            .collect();
        let text = format!("#EXTM3U\n{variants}");
        let Ok(Playlist::Multivariant(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        let ladder = Ladder::new(&list, &url, UriPolicy::default(), None).unwrap();
        let config = HlsConfig {
            quality: Quality::Custom(MakeAbr::new(move || {
                Box::new(Recorded(Hybrid::default(), snapshots.clone()))
            })),
            ..HlsConfig::default()
        };
        let estimator = Estimator::default();
        let timeline = |url: &Url| Timeline::new(self.list(), url.clone(), Duration::ZERO);
        let first = State::first_level(&config, &ladder.bitrates(ladder.first), &estimator, Instant::now());
        let mut state = State::new(config, ladder, None, (first, timeline(&url)), estimator);
        for variant in 0..state.ladder.variants.len() {
            let url = state.ladder.variants[variant].url.clone();
            state.timelines[variant] = Some(timeline(&url));
        }
        state
    }
}

/// Seconds that were buffered at each choice, by what the rule was shown.
type Snapshots = Arc<Mutex<Vec<f64>>>;

struct Recorded(Hybrid, Snapshots);

impl Abr for Recorded {
    fn choose(&mut self, now: Instant, snapshot: &Snapshot<'_>) -> usize {
        self.1.lock().unwrap().push(snapshot.buffered.as_secs_f64());
        self.0.choose(now, snapshot)
    }

    fn abandon(&mut self, now: Instant, snapshot: &Snapshot<'_>, running: &Running) -> Option<usize> {
        self.0.abandon(now, snapshot, running)
    }

    fn replace(
        &mut self,
        now: Instant,
        snapshot: &Snapshot<'_>,
        buffered: &[Buffered],
    ) -> Option<(usize, usize)> {
        self.0.replace(now, snapshot, buffered)
    }

    fn handle_replaced(&mut self, id: u64) {
        self.0.handle_replaced(id);
    }

    fn keeps_replacing(&mut self, now: Instant, running: &Running, starts_in: Duration) -> bool {
        self.0.keeps_replacing(now, running, starts_in)
    }
}

struct Transfer {
    id: u64,
    level: usize,
    segment: u64,
    bytes: f64,
    received: f64,
    counted: u64,
    frames: u64,
    /// When its first byte arrives.
    first: f64,
    has_begun: bool,
}

impl Transfer {
    fn left(&self) -> f64 {
        self.bytes - self.received
    }
}

#[derive(Clone, Debug, Default)]
struct Figures {
    startup: f64,
    stalled: f64,
    levels: Vec<usize>,
    complete: u64,
    /// A choice was shown a larger buffer than there was.
    overstated: bool,
    wasted: f64,
}

struct Player<'a> {
    scene: &'a Scene,
    state: State,
    snapshots: Snapshots,
    start: Instant,
    now: f64,
    is_woken: bool,
    transfers: Vec<Transfer>,
    bandwidth: Bandwidth,
    section: Option<u64>,
    /// Seconds that were played, and frames that were read.
    played: f64,
    read: u64,
    has_started: bool,
    figures: Figures,
}

impl<'a> Player<'a> {
    fn new(scene: &'a Scene) -> Self {
        let snapshots = Snapshots::default();
        Self {
            scene,
            state: scene.state(snapshots.clone()),
            snapshots,
            start: Instant::now(),
            now: 0.0,
            is_woken: true,
            transfers: Vec::new(),
            bandwidth: Bandwidth::default(),
            section: None,
            played: 0.0,
            read: 0,
            has_started: false,
            figures: Figures::default(),
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn plan(&mut self) {
        let now = self.at(self.now);
        while std::mem::take(&mut self.is_woken) {
            while let Some(planned) = self.state.plan(now, Priority::Low) {
                let Planned::Segment { id, url, .. } = planned else {
                    unreachable!("all playlists are there")
                };
                self.check_choice();
                let segment = url.path().trim_start_matches('/').parse().unwrap();
                let variant = self.state.queued(id).unwrap().variant;
                let level = self.state.ladder.variants[variant].level;
                let bytes = (self.scene.bitrates[level] as f64 * self.scene.segment / 8.0).floor();
                let first = self.now + self.scene.latency;
                self.transfers.push(Transfer {
                    id,
                    level,
                    segment,
                    bytes,
                    received: 0.0,
                    counted: 0,
                    frames: 0,
                    first,
                    has_begun: false,
                });
            }
        }
    }

    /// Compares what the last choice was shown with the truth: what is buffered now, and what will be when the running transfers
    /// have ended.
    fn check_choice(&mut self) {
        let shown = self.snapshots.lock().unwrap().drain(..).next_back();
        let is_next = |transfer: &&Transfer| !self.state.replacements.is(transfer.id);
        let missing: f64 = self.transfers.iter().filter(is_next).map(|transfer| transfer.left() * 8.0).sum();
        let running = self.transfers.iter().filter(is_next).count();
        let read = self.read as f64 * self.scene.segment / FRAMES as f64;
        let arrived = self.figures.complete as f64 * self.scene.segment - read;
        let coming = running as f64 * self.scene.segment - missing / self.scene.rate(self.now);
        // The estimate is cautious.
        self.figures.overstated |= shown.is_some_and(|shown| shown > (arrived + coming).max(arrived) + 0.5);
    }

    fn receive(&mut self) {
        let (from, to) = (self.now, self.now + STEP);
        let mut active: Vec<&mut Transfer> =
            self.transfers.iter_mut().filter(|transfer| transfer.first <= from).collect();
        if active.is_empty() {
            return;
        }
        // TCP divides the link evenly. What one of them does not need goes to the others.
        active.sort_by(|one, other| one.left().total_cmp(&other.left()));
        let mut room = self.scene.rate(from) * STEP / 8.0;
        let count = active.len();
        for (index, transfer) in active.iter_mut().enumerate() {
            let got = transfer.left().min(room / (count - index) as f64);
            transfer.received += got;
            room -= got;
        }
        let all = self.scene.rate(from) * STEP / 8.0 - room;
        let ids: Vec<u64> = active.iter().map(|transfer| transfer.id).collect();
        let sample =
            Sample { from: self.at(from), to: self.at(to), bytes: all as usize, is_lower_bound: false };
        self.bandwidth.handle_sample(&sample);
        ids.into_iter().for_each(|id| self.deliver(id, to));
    }

    fn deliver(&mut self, id: u64, now: f64) {
        let at = self.at(now);
        let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.id == id) else { return };
        if !std::mem::replace(&mut transfer.has_begun, true) {
            self.state.handle_segment_head(id, Some(transfer.bytes as u64), at);
        }
        let count = (transfer.received + 0.01).min(transfer.bytes) as u64;
        let new = count - transfer.counted;
        transfer.counted = count;
        if self.state.handle_segment_bytes(id, new, at) {
            self.handle_abandoned();
            return;
        }
        self.is_woken |= self.state.take_wake(at);
        let frames = (count as f64 / transfer.bytes * FRAMES as f64) as u64;
        let mut output = self.scene.frames(transfer.level, transfer.segment, transfer.frames..frames);
        transfer.frames = frames;
        if self.state.handle_frames(id, &mut output).is_err() {
            self.figures.wasted += count as f64;
            self.transfers.retain(|transfer| transfer.id != id);
            return;
        }
        if count < transfer.bytes as u64 {
            return;
        }
        let seconds = Duration::from_secs_f64;
        let rate = self.bandwidth.rate();
        let body = rate.map_or(now - transfer.first, |rate| transfer.bytes / rate);
        let latency = seconds(self.scene.latency);
        self.state.handle_transfer(SegmentTransfer {
            bytes: count,
            body: seconds(body),
            share: 1.0,
            wait: latency,
            ttfb: latency,
        });
        // What replaces a segment makes the buffer no longer.
        self.figures.complete += u64::from(!self.state.replacements.is(id));
        self.state.handle_segment_complete(id);
        self.transfers.retain(|transfer| transfer.id != id);
        self.is_woken = true;
    }

    fn handle_abandoned(&mut self) {
        let state = &self.state;
        let (needed, abandoned): (Vec<_>, Vec<_>) = std::mem::take(&mut self.transfers)
            .into_iter()
            .partition(|transfer| state.is_needed(transfer.id));
        self.transfers = needed;
        self.figures.wasted += abandoned.iter().map(|transfer| transfer.received).sum::<f64>();
        self.is_woken = true;
    }

    /// Plays for a step. True at the end.
    fn play(&mut self) -> bool {
        let frame = self.scene.segment / FRAMES as f64;
        while self.read as f64 * frame <= self.played {
            let mut byte = [0];
            let result = match self.section {
                Some(section) => self.state.read(section, &mut byte),
                None => match self.state.next_section() {
                    SectionResult::Section(id, _) => {
                        self.section = Some(id);
                        continue;
                    }
                    SectionResult::End => return true,
                    SectionResult::Wait(request) => ReadResult::Wait(request),
                    SectionResult::Failed(error) => panic!("{error}"),
                },
            };
            self.is_woken |= self.state.take_wake(self.at(self.now));
            match result {
                ReadResult::Bytes(_) => {
                    self.has_started = true;
                    if self.read % FRAMES == 0 {
                        self.figures.levels.push(usize::from(byte[0]));
                    }
                    self.read += 1;
                }
                ReadResult::End => self.section = None,
                ReadResult::Wait(_) => {
                    if self.state.poll_late_segment(self.at(self.now)) {
                        self.handle_abandoned();
                    }
                    // Players buffer some audio before they start: until a segment is whole, silence is the start.
                    if self.has_started && !self.state.is_starting {
                        self.figures.stalled += STEP;
                    } else {
                        self.figures.startup += STEP;
                    }
                    return false;
                }
                ReadResult::Failed(error) => panic!("{error}"),
            }
        }
        self.played += STEP;
        false
    }
}

impl Scene {
    fn frames(&self, level: usize, segment: u64, range: std::ops::Range<u64>) -> Output {
        let format = Format { codec: AudioCodec::Aac, sample_rate: 48_000, channels: 2, head: None };
        let mut output = Output::default();
        let duration = self.segment / FRAMES as f64;
        for frame in range {
            let time = (segment as f64 * self.segment + frame as f64 * duration) * 1e9;
            let duration = Duration::from_secs_f64(duration);
            output.frames.push(Frame {
                time: Some(time.round() as i64),
                duration,
                len: 1,
                format: format.clone(),
            });
            output.data.push(level as u8);
        }
        output
    }

    fn play(&self) -> Figures {
        let mut player = Player::new(self);
        let most = self.segment * self.segments as f64 * 20.0;
        loop {
            player.plan();
            player.receive();
            player.now += STEP;
            if player.play() {
                break;
            }
            assert!(player.now < most, "playing ends: {:?}", player.figures);
        }
        player.figures
    }
}

#[test]
fn a_level_is_chosen_by_what_is_buffered_when_its_segment_is_requested() {
    let bitrates = vec![66_000, 134_000, 270_000, 989_000];
    for (segment, segments) in [(2.0, 60), (6.0, 30), (12.0, 15)] {
        // A network that sustains the third level, with dips.
        let trace = vec![(25.0, 450e3), (10.0, 150e3)];
        let scene = Scene { bitrates: bitrates.clone(), lie: 1.0, segment, segments, latency: 0.1, trace };
        let figures = scene.play();
        assert!(!figures.overstated, "{segment} s: {figures:?}");
        assert_eq!(figures.levels.len() as u64, segments);
    }
}

proptest! {
    /// All that was measured is the playlist of the level that most networks have.
    #[test]
    fn nothing_is_requested_of_a_level_that_the_network_is_known_not_to_carry(
        rate in 8e3..900e3_f64,
        segment in 1.0..12.0_f64,
    ) {
        let bitrates = vec![32_000, 64_000, 128_000, 256_000];
        let trace = vec![(60.0, rate)];
        let scene = Scene { bitrates, lie: 1.0, segment, segments: 10, latency: 0.1, trace };
        let mut state = scene.state(Snapshots::default());
        (0..3).for_each(|variant| state.timelines[variant] = None);
        prop_assert_eq!(state.level(), 3);
        state.network.estimator = Estimator::remembering(rate);
        let now = Instant::now();
        let planned: Vec<Planned> = std::iter::from_fn(|| state.plan(now, Priority::Low)).collect();
        for planned in &planned {
            match planned {
                Planned::Segment { .. } => prop_assert!(rate >= 256e3, "{rate}: {planned:?}"),
                Planned::Playlist { variant, .. } => prop_assert!(*variant < 3),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert!(!planned.is_empty());
    }
}

#[test]
fn a_segment_gets_the_network_until_it_is_nearly_whole() {
    // 20 % more than what is played: with two segments at the same time, neither would arrive as fast as it plays.
    let trace = vec![(60.0, 384e3)];
    let scene = Scene { bitrates: vec![320_000], lie: 1.0, segment: 6.0, segments: 10, latency: 0.1, trace };
    let figures = scene.play();
    assert!(figures.startup < 1.0 && figures.stalled == 0.0, "{figures:?}");
}

#[test]
fn a_distant_server_is_asked_for_two_segments_at_the_same_time() {
    // A request takes longer than a segment plays: only two at the same time arrive as fast as they play.
    let trace = vec![(60.0, 5e6)];
    let scene = Scene { bitrates: vec![64_000], lie: 1.0, segment: 1.0, segments: 60, latency: 1.2, trace };
    let figures = scene.play();
    assert!(figures.stalled < 4.0, "{figures:?}");
}

#[test]
fn bitrates_that_the_playlist_names_wrong_are_corrected_by_the_segments() {
    for (segment, segments) in [(2.0, 150), (6.0, 50)] {
        for rate in [110e3, 450e3] {
            let play = |lie: f64| {
                let trace = vec![(60.0, rate)];
                let bitrates = vec![66_000, 134_000, 270_000, 989_000];
                Scene { bitrates, lie, segment, segments, latency: 0.1, trace }.play()
            };
            let usual = |figures: &Figures| {
                let last = &figures.levels[figures.levels.len() / 2..];
                last.iter().sum::<usize>() as f64 / last.len() as f64
            };
            let right = play(1.0);
            for lie in [0.1, 0.3, 3.0, 10.0] {
                let figures = play(lie);
                let what = format!("{lie}, {segment} s, {rate} bit/s: {figures:?}");
                assert!(figures.stalled <= right.stalled + 1.0, "{what}");
                assert!(figures.startup <= right.startup + 3.0, "{what}, with the true ones {right:?}");
                let is_alike = (usual(&figures) - usual(&right)).abs() < 0.4;
                assert!(is_alike, "{what}, with the true ones {right:?}");
            }
        }
    }
}
