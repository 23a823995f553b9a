//! Whatever fails, and in whatever order fetches end: frames are played once, in order, and playing ends.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::media::AudioCodec;
use crate::source::hls::demux::{Format, Frame, Output};
use crate::source::hls::levels::MOST_MIRRORS;
use crate::source::hls::playlist::{MediaPlaylist, Playlist};
use crate::source::hls::steering::Manifest;

const SEGMENTS: u64 = 12;
const FRAMES: u64 = 4;

fn list() -> MediaPlaylist {
    let segments: String = (0..SEGMENTS).map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{segments}#EXT-X-ENDLIST\n");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
        panic!("a list")
    };
    list
}

/// Frames `range` of a segment, each with one byte that numbers it.
fn frames(segment: u64, range: std::ops::Range<u64>) -> Output {
    let format = Format { codec: AudioCodec::Aac, sample_rate: 48_000, channels: 2, head: None };
    let mut output = Output::default();
    for frame in range {
        let time = i64::try_from(segment * 2_000_000_000 + frame * 500_000_000).ok();
        let duration = Duration::from_millis(500);
        output.frames.push(Frame { time, duration, len: 1, format: format.clone() });
        output.data.push((segment * FRAMES + frame) as u8);
    }
    output
}

/// How a fetch ends.
#[derive(Clone, Copy, Debug)]
enum End {
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

struct Player {
    state: State,
    running: Vec<Planned>,
    now: Instant,
    played: Vec<u8>,
    section: Option<u64>,
    /// Errors that were returned to the reader.
    errors: usize,
}

impl Player {
    fn new(levels: usize) -> Self {
        let url = Url::parse("http://host/l").unwrap();
        let timeline = Timeline::new(list(), url.clone(), Duration::ZERO);
        let mut ladder = Ladder::single(url.clone());
        let variants: String =
            (0..levels).map(|level| format!("#EXT-X-STREAM-INF:BANDWIDTH={level}\nl{level}\n")).collect();
        let text = format!("#EXTM3U\n{variants}");
        if let Ok(Playlist::Multivariant(list)) = Playlist::parse(text.as_bytes(), "http://host/l") {
            ladder = Ladder::new(&list, &url, UriPolicy::default(), None).unwrap();
        }
        let config = HlsConfig { quality: Quality::Fixed(0), ..HlsConfig::default() };
        let state = State::new(config, ladder, None, (0, timeline), Estimator::default());
        Self { state, running: Vec::new(), now: Instant::now(), played: Vec::new(), section: None, errors: 0 }
    }

    /// Lets one of the running fetches end.
    fn end_fetch(&mut self, which: usize, end: End) {
        while let Some(planned) = self.state.plan(self.now, Priority::Low) {
            self.running.push(planned);
        }
        if self.running.is_empty() {
            return;
        }
        match self.running.swap_remove(which % self.running.len()) {
            Planned::Playlist { mirror, url } => match end {
                End::Whole => drop(self.state.handle_playlist(mirror, list(), url)),
                End::Broken(_, kind) => {
                    self.state.handle_playlist_failed(mirror, Error::new(kind, "as asked"), self.now)
                }
            },
            Planned::Segment { slot, url, .. } => {
                let segment = url.path().trim_start_matches('/').parse().unwrap();
                let arrived = if let End::Broken(after, _) = end { after } else { FRAMES };
                let _ = self.state.handle_frames(slot, &mut frames(segment, 0..arrived));
                match end {
                    End::Whole => self.state.handle_segment_complete(slot),
                    End::Broken(_, kind) => {
                        self.state.handle_segment_failed(slot, Error::new(kind, "as asked"), self.now)
                    }
                }
            }
            Planned::Resource { .. } | Planned::Steering { .. } => unreachable!("nothing is encrypted"),
        }
    }

    /// Reads what is there. True at the end.
    fn read(&mut self) -> bool {
        loop {
            if let Some(section) = self.section {
                let mut buf = [0; 3];
                match self.state.read(section, &mut buf) {
                    ReadResult::Bytes(got) => self.played.extend(&buf[..got]),
                    ReadResult::End => self.section = None,
                    ReadResult::Wait(_) => return false,
                    ReadResult::Failed(_) => self.errors += 1,
                }
                continue;
            }
            match self.state.next_section() {
                SectionResult::Section(id, _) => self.section = Some(id),
                SectionResult::End => return true,
                SectionResult::Wait(_) => return false,
                SectionResult::Failed(_) => self.errors += 1,
            }
        }
    }
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

#[test]
fn manifests_that_name_new_pathways_for_ever_fill_no_memory() {
    let url = Url::parse("http://host/l").unwrap();
    let timeline = Timeline::new(list(), url.clone(), Duration::ZERO);
    let steering = Steering::new(url.clone(), ".".into(), Instant::now());
    let first = (0, timeline);
    let ladder = Ladder::single(url.clone());
    let mut state = State::new(HlsConfig::default(), ladder, Some(steering), first, Estimator::default());
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
    assert_eq!(state.ladder.mirrors.len(), MOST_MIRRORS);
    assert_eq!(state.timelines.len(), MOST_MIRRORS);
}
