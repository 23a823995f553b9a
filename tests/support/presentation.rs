//! Presentations of HLS for tests: numbered AAC frames in every container, and what was played of them.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use windway::hls::{Discontinuity, Hls, HlsConfig, Section};
use windway::{Downloader, DownloaderConfig};

use support::mux::{self, Entry, Ts, aac_frames, adts, fragment, id3};
use support::{Answer, Content, Origin, Request};

/// AAC frames in a segment of two seconds at 48 kHz.
pub const FRAMES: u64 = 94;

/// Exact duration of such a segment.
pub const SEGMENT: f64 = FRAMES as f64 * 1024.0 / 48_000.0;

pub fn open(origin: &Origin, path: &str, change: impl FnOnce(&mut HlsConfig)) -> Hls {
    let mut config = HlsConfig::default();
    config.read_timeout = Some(Duration::from_secs(60));
    change(&mut config);
    downloader().open_hls(&origin.url(path), config).unwrap()
}

pub fn downloader() -> Downloader {
    let mut config = DownloaderConfig::default();
    config.max_retries = 1;
    Downloader::new(config).unwrap()
}

/// Files by path. A query is ignored.
#[derive(Clone, Default)]
pub struct Site(pub HashMap<String, Content>);

impl Site {
    pub fn with(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.to_owned(), Content::bytes(bytes.into()));
        self
    }

    pub fn without(mut self, path: &str) -> Self {
        self.0.remove(path).expect("a file to remove");
        self
    }

    pub fn answer(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        self.0.get(path).map_or_else(|| Answer::status(404), |content| Answer::file(request, content))
    }

    pub fn serve(self) -> Origin {
        Origin::start(move |request| self.answer(request))
    }
}

/// A finished media playlist of these lines.
pub fn vod(lines: &str) -> String {
    format!("#EXTM3U\n#EXT-X-TARGETDURATION:3\n{lines}#EXT-X-ENDLIST\n")
}

pub fn extinf(uri: &str) -> String {
    format!("#EXTINF:{SEGMENT:.6},\n{uri}\n")
}

/// Frames of segment `index`, with ADTS headers.
pub fn segment_frames(index: u64) -> Vec<Vec<u8>> {
    aac_frames(index * FRAMES, FRAMES).iter().map(|frame| adts(frame, 3)).collect()
}

/// Time of the first frame of segment `index`, in units of 90 kHz.
pub fn ticks(index: u64) -> u64 {
    900_000 + index * FRAMES * 1920
}

pub fn packed(index: u64) -> Vec<u8> {
    [id3(ticks(index)), segment_frames(index).concat()].concat()
}

pub fn ts(index: u64) -> Vec<u8> {
    Ts::new(0x0f).segment(&segment_frames(index), ticks(index), 1920.0)
}

pub fn mp4(index: u64) -> Vec<u8> {
    fragment(&aac_frames(index * FRAMES, FRAMES), 480_000 + index * FRAMES * 1024)
}

pub fn all(section: &mut Section) -> Vec<u8> {
    let mut bytes = Vec::new();
    section.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Numbers of the AAC frames in a stream of ADTS.
pub fn numbers(mut bytes: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0], 0xff, "a frame begins here");
        let len = usize::from(bytes[3] & 3) << 11 | usize::from(bytes[4]) << 3 | usize::from(bytes[5] >> 5);
        numbers.push(u64::from_be_bytes(bytes[7..15].try_into().unwrap()));
        bytes = &bytes[len..];
    }
    numbers
}

/// Reads everything, as one list of frame numbers for each section.
pub fn play(hls: &mut Hls) -> Vec<(Discontinuity, Vec<u64>)> {
    let mut sections = Vec::new();
    while let Some(mut section) = hls.next_section().unwrap() {
        let frames = numbers(&all(&mut section));
        sections.push((section.info().discontinuity, frames));
    }
    sections
}

/// A presentation of `count` segments of each kind.
pub fn site(count: u64) -> Site {
    let list = |extension: &str, head: &str| {
        let lines: String = (0..count).map(|index| extinf(&format!("{index}.{extension}"))).collect();
        vod(&format!("{head}{lines}"))
    };
    let mut site = Site::default()
        .with("/aac.m3u8", list("aac", ""))
        .with("/ts.m3u8", list("ts", ""))
        .with("/mp4.m3u8", list("m4s", "#EXT-X-MAP:URI=\"init.mp4\"\n"))
        .with("/init.mp4", mux::init(&Entry::Aac(3), 48_000, 0));
    let mut whole = mux::init(&Entry::Aac(3), 48_000, 0);
    let mut ranges = format!("#EXT-X-MAP:URI=\"whole.mp4\",BYTERANGE=\"{}@0\"\n", whole.len());
    for index in 0..count {
        site = site
            .with(&format!("/{index}.aac"), packed(index))
            .with(&format!("/{index}.ts"), ts(index))
            .with(&format!("/{index}.m4s"), mp4(index));
        let bytes = mp4(index);
        ranges.push_str(&format!(
            "#EXT-X-BYTERANGE:{}@{}\n{}",
            bytes.len(),
            whole.len(),
            extinf("whole.mp4")
        ));
        whole.extend(bytes);
    }
    site.with("/ranges.m3u8", vod(&ranges)).with("/whole.mp4", whole)
}
