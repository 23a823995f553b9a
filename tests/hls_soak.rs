//! HLS for a long time: thousands of segments, and faults of every kind.
//!
//! `cargo test --test hls_soak --features hls-aes -- --ignored`. `WINDWAY_SOAK` is the number of seconds for each kind of
//! presentation, 30 by default.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use presentation::{downloader, extinf};
use support::mux::{Random, Ts, aac_frames, adts};
use support::{Answer, Content, Origin, Request};
use windway::ErrorKind;
use windway::hls::{Hls, HlsConfig};

/// AAC frames of a segment: 0.2133 s.
const SHORT: u64 = 10;

fn short_ts(index: u64) -> Vec<u8> {
    let frames: Vec<Vec<u8>> = aac_frames(index * SHORT, SHORT).iter().map(|frame| adts(frame, 3)).collect();
    Ts::new(0x0f).segment(&frames, (900_000 + index * SHORT * 1920) & ((1 << 33) - 1), 1920.0)
}

fn segment(request: &Request) -> Answer {
    let name = request.path.trim_start_matches('/').split('?').next().unwrap_or_default();
    match name.strip_suffix(".ts").and_then(|index| index.parse().ok()) {
        Some(index) => Answer::file(request, &Content::bytes(short_ts(index))),
        None => Answer::status(404),
    }
}

fn text(text: String) -> Answer {
    Answer::whole(&Content::bytes(text.into_bytes()))
}

/// Bytes of memory that the process has in use.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

/// How long some thread of the process was ready to run and had no processor, at most. Zero where the system does not count it.
fn starved() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let waited = tasks.filter_map(|task| {
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        times.split(' ').nth(1)?.parse().ok()
    });
    Duration::from_nanos(waited.max().unwrap_or_default())
}

/// Checks frames as they are read: each is a frame of the source, and comes later than the one before.
#[derive(Default)]
struct Listener {
    pending: Vec<u8>,
    last: Option<u64>,
    frames: u64,
}

impl Listener {
    /// Frames of a new section.
    fn restart(&mut self) {
        self.pending.clear();
    }

    fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(header) = self.pending.get(at..at + 15) {
            let len =
                usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5);
            let Some(frame) = self.pending.get(at..at + len) else { break };
            let number = u64::from_be_bytes(header[7..15].try_into().unwrap());
            assert!(frame == adts(&aac_frames(number, 1)[0], 3), "frame {number} is another one");
            assert!(self.last.is_none_or(|last| last < number), "{number} after {:?}", self.last);
            self.last = Some(number);
            self.frames += 1;
            at += len;
        }
        self.pending.drain(..at);
    }
}

/// Plays until `until`, or the end. Errors of the network are expected; the player goes on.
fn listen(hls: &mut Hls, listener: &mut Listener, until: Instant, mut each: impl FnMut()) -> u64 {
    let mut errors = 0;
    let began = Instant::now();
    let expected = |error: &windway::Error| {
        println!("after {:.1?}: {error}", began.elapsed());
        // While both servers fail, the playlist does not change.
        let is_stuck = error.to_string().contains("the playlist has not changed");
        let is_hang = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Panicked);
        assert!(!is_hang || is_stuck, "it hangs: {error}");
    };
    while Instant::now() < until {
        let mut section = match hls.next_section() {
            Ok(Some(section)) => section,
            Ok(None) => break,
            Err(error) => {
                expected(&error);
                errors += 1;
                continue;
            }
        };
        println!("after {:.1?}: {:?}", began.elapsed(), section.info().discontinuity);
        listener.restart();
        let mut buf = vec![0; 5000];
        while Instant::now() < until {
            match section.read(&mut buf) {
                Ok(0) => break,
                Ok(got) => listener.push(&buf[..got]),
                Err(error) => {
                    let error = error.get_ref().and_then(|error| error.downcast_ref::<windway::Error>());
                    expected(error.expect("an error of windway"));
                    errors += 1;
                }
            }
            each();
        }
    }
    errors
}

#[test]
#[ignore = "takes a minute"]
fn memory_does_not_grow_over_14_400_segments() {
    const SEGMENTS: u64 = 14_400;
    let lines: String = (0..SEGMENTS).map(|index| format!("#EXTINF:0.213333,\n{index}.ts\n")).collect();
    let list = presentation::vod(&lines);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/list.m3u8" => text(list.clone()),
        _ => segment(request),
    });
    let mut config = HlsConfig::default();
    config.buffer = Duration::from_secs(10);
    // A quarter of it keeps segments for seeks, and is full after a tenth.
    config.buffer_bytes = 4 << 20;
    let mut hls = downloader().open_hls(&origin.url("/list.m3u8"), config).unwrap();
    let mut listener = Listener::default();
    let (mut early, mut most) = (0, 0);
    let handle = hls.handle();
    listen(&mut hls, &mut listener, Instant::now() + Duration::from_secs(3600), || {
        origin.forget();
        let passed = handle.position().as_secs_f64() / (SEGMENTS as f64 * 0.213_333);
        let now = resident();
        if passed < 0.1 {
            early = early.max(now);
        }
        most = most.max(now);
    });
    assert_eq!(listener.frames, SEGMENTS * SHORT);
    println!("{} MiB after a tenth, {} MiB at most", early >> 20, most >> 20);
    assert!(most <= early + (8 << 20), "{early} {most}");
}

/// What a bad server does to a request.
fn fault(random: &mut Random, answer: Answer) -> Answer {
    match random.below(28) {
        0 => Answer::status(503),
        1 => Answer::status(404),
        2 => Answer::status(403),
        3 => Answer::status(500),
        4 => answer.reset_after(700),
        5 => answer.close_after(900),
        6 => answer.close_in_head(9),
        7 => answer.latency(Duration::from_millis(300)),
        8 => answer.no_length(),
        9 => answer.chunked(),
        10 => {
            Answer::whole(&Content::bytes(b"<html>sorry</html>".to_vec())).header("Content-Type", "text/html")
        }
        11 => Answer::whole(&Content::bytes(vec![0x47; 5000])),
        12 => Answer::raw(*b"nonsense\r\n\r\n"),
        13 => Answer::redirect(302, "/elsewhere"),
        14 => answer.header("Content-Encoding", "br"),
        15 => answer.chunks_of(200, Duration::from_millis(5)),
        // Cut, and nothing shows it; and longer than it says.
        16 => answer.no_length().close_after(900),
        17 => answer.extra_bytes(50),
        _ => answer,
    }
}

/// What a bad server sends instead of the new version of a live playlist.
fn list_fault(random: &mut Random, listed: impl Fn(u64) -> String) -> String {
    match random.below(16) {
        // Versions of some seconds ago.
        age @ 0..3 => listed(10 * age as u64),
        3 => "#EXTM3U\n#EXT-X-TARGETDURATION:1\n".to_owned(),
        4 => "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nlive.m3u8\n".to_owned(),
        _ => listed(0),
    }
}

/// A server whose answers are faulty now and then, never two requests for the same in a row for ever.
fn bad_server(seed: u64, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Origin {
    let random = Mutex::new(Random(seed));
    Origin::start(move |request| fault(&mut random.lock().unwrap(), answer(request)))
}

fn soak_time() -> Duration {
    let seconds = std::env::var("WINDWAY_SOAK").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Opens a presentation whose playlists may be faulty as well.
fn open_patiently(origin: &Origin, path: &str) -> Hls {
    let mut config = HlsConfig::default();
    config.buffer = Duration::from_secs(6);
    config.read_timeout = Some(Duration::from_secs(60));
    for _ in 0..50 {
        if let Ok(hls) = downloader().open_hls(&origin.url(path), config.clone()) {
            return hls;
        }
    }
    panic!("it can't be opened")
}

#[test]
#[ignore = "takes minutes"]
fn chaos_on_demand_makes_no_wrong_sample_and_no_hang() {
    let until = Instant::now() + soak_time();
    let (mut rounds, mut frames, mut errors) = (0, 0, 0);
    while Instant::now() < until {
        const SEGMENTS: u64 = 300;
        let lines: String = (0..SEGMENTS).map(|index| extinf(&format!("{index}.ts"))).collect();
        let lines = lines.replace(&format!("{:.6}", presentation::SEGMENT), "0.213333");
        let list = presentation::vod(&lines);
        let second = bad_server(rounds * 2 + 1, {
            let list = list.clone();
            move |request| if request.path.contains("m3u8") { text(list.clone()) } else { segment(request) }
        });
        let master = format!(
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nlist.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{}\n#EXT-X-STREAM-INF:BANDWIDTH=20\nhigh.m3u8\n",
            second.url("/list.m3u8")
        );
        let origin = bad_server(rounds * 2, move |request| match request.path.as_str() {
            "/master.m3u8" => text(master.clone()),
            path if path.contains("m3u8") => text(list.clone()),
            _ => segment(request),
        });
        let mut hls = open_patiently(&origin, "/master.m3u8");
        let mut listener = Listener::default();
        errors += listen(&mut hls, &mut listener, Instant::now() + Duration::from_secs(600), || ());
        assert!(listener.frames > SEGMENTS * SHORT / 2, "round {rounds}: only {} frames", listener.frames);
        frames += listener.frames;
        rounds += 1;
    }
    println!("{rounds} rounds, {frames} frames, {errors} errors, {} MiB", resident() >> 20);
}

#[test]
#[ignore = "takes minutes"]
fn chaos_live_makes_no_wrong_sample_and_no_hang() {
    let until = Instant::now() + soak_time();
    let began = Instant::now();
    let listed = move |age: u64| {
        // Segments of 0.2133 s in real time; the window is thirty of them.
        let end = 80 + (began.elapsed().as_secs_f64() / 0.213_333) as u64 - age;
        let lines: String = (end - 30..end).map(|index| format!("#EXTINF:0.213333,\n{index}.ts\n")).collect();
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{}\n{lines}", end - 30)
    };
    let random = Arc::new(Mutex::new(Random(9)));
    let answer = move |request: &Request| match request.path.contains("m3u8") {
        true => text(list_fault(&mut random.lock().unwrap(), listed)),
        false => segment(request),
    };
    let second = bad_server(8, answer.clone());
    let master = format!(
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nlive.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{}\n",
        second.url("/live.m3u8")
    );
    let origin = bad_server(7, move |request| match request.path.as_str() {
        "/master.m3u8" => text(master.clone()),
        _ => answer(request),
    });
    let mut hls = open_patiently(&origin, "/master.m3u8");
    let mut listener = Listener::default();
    let errors = listen(&mut hls, &mut listener, until, || origin.forget());
    let (passed, starved) = (began.elapsed(), starved());
    let produced = passed.as_secs_f64() * 48_000.0 / 1024.0;
    println!(
        "{} frames of {produced:.0} that were produced, {errors} errors, {} MiB, no processor for {starved:.1?}",
        listener.frames,
        resident() >> 20
    );
    // At nice 19 beside compilers a thread that loads the playlist waited for 30 s of 130: then a window of six seconds is lost.
    // A tenth is cut without a sign of it.
    let share = if starved < passed / 10 { 0.55 } else { 0.3 };
    assert!(listener.frames as f64 > produced * share, "most of the stream is played");
}
