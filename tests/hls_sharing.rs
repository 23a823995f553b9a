//! HLS on slow networks: two streams of one downloader share one by their priorities, and a proxy holds segments back.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::collections::HashSet;
use std::io::Read;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use presentation::{FRAMES, SEGMENT, downloader, extinf, ticks, vod};
use support::link::{Link, LinkConfig};
use support::mux::{aac_frames, adts, id3};
use support::{Answer, Content, Origin, Request};
use windway::Downloader;
use windway::Priority;
use windway::hls::{HlsConfig, HlsHandle};

/// Bytes of an AAC frame at each level: 64, 262 and 787 kbit/s at 46.875 frames a second.
const SIZES: [usize; 3] = [170, 700, 2100];

/// Seconds that are played.
const PLAYED: f64 = 40.0;

fn segment(size: usize, index: u64) -> Vec<u8> {
    let pad = |mut frame: Vec<u8>| {
        frame.resize(size, 0);
        adts(&frame, 3)
    };
    let frames: Vec<u8> = aac_frames(index * FRAMES, FRAMES).into_iter().flat_map(pad).collect();
    [id3(ticks(index)), frames].concat()
}

fn answer(asked: &Request) -> Option<Answer> {
    let text = |text: String| Answer::whole(&Content::bytes(text.into_bytes()));
    if asked.path == "/master.m3u8" {
        let variant = |size: &usize| {
            let rate = (*size as f64 * 8.0 * 46.875) as u64;
            format!("#EXT-X-STREAM-INF:BANDWIDTH={rate},CODECS=\"mp4a.40.2\"\n{size}/list.m3u8\n")
        };
        return Some(text(format!("#EXTM3U\n{}", SIZES.iter().map(variant).collect::<String>())));
    }
    let (size, name) = asked.path.trim_start_matches('/').split_once('/')?;
    if name == "list.m3u8" {
        let lines: String = (0..60).map(|index| extinf(&format!("{index}.aac"))).collect();
        return Some(text(vod(&lines)));
    }
    let index = name.strip_suffix(".aac")?.parse().ok()?;
    Some(Answer::file(asked, &Content::bytes(segment(size.parse().ok()?, index))))
}

/// Plays at the speed of a sound card. Returns the mean level of what was fetched, and the time of stalls after the start.
fn play(downloader: &Downloader, url: &str, priority: Priority) -> (f64, Duration) {
    let mut config = HlsConfig::default();
    config.buffer = Duration::from_secs(20);
    config.priority = priority;
    let mut hls = downloader.open_hls(url, config).unwrap();
    let handle: HlsHandle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    let (mut levels, mut samples, mut stalled) = (0.0, 0.0, Duration::ZERO);
    let mut buf = vec![0; 8192];
    let mut began = Instant::now();
    while handle.position().as_secs_f64() < PLAYED {
        thread::sleep(handle.position().saturating_sub(began.elapsed()));
        let asked = Instant::now();
        if section.read(&mut buf).unwrap() == 0 {
            break;
        }
        // Bytes that are there are copied in much less.
        let waited = asked.elapsed();
        if waited > Duration::from_millis(100) {
            stalled += waited;
            began += waited;
        }
        levels += handle.level() as f64;
        samples += 1.0;
    }
    (levels / samples, stalled)
}

#[test]
#[ignore = "measures real time"]
fn the_stream_of_high_priority_gets_the_quality_that_it_would_have_alone() {
    let origin = Origin::start(|request| answer(request).unwrap_or_else(|| Answer::status(404)));
    let link = Link::start(origin.address(), LinkConfig::with_rate(Duration::from_millis(20), 1.25));
    let (downloader, url) = (downloader(), link.url("/master.m3u8"));
    let (high, low) = thread::scope(|scope| {
        let high = scope.spawn(|| play(&downloader, &url, Priority::High));
        let low = scope.spawn(|| play(&downloader, &url, Priority::Low));
        (high.join().unwrap(), low.join().unwrap())
    });
    println!("mean level and stalls of {SEGMENT:.0} s segments: high {high:.2?}, low {low:.2?}");
    assert!(high.0 > 1.5, "{high:?}");
    assert!(low.0 < 1.2, "787 kbit/s are what the other one needs: {low:?}");
}

#[test]
#[ignore = "measures real time"]
fn behind_a_proxy_that_holds_whole_segments_the_level_is_one_that_arrives_in_time() {
    // Bytes a second of the network behind the proxy: 400 kbit/s.
    const RATE: f64 = 50_000.0;
    // What the proxy has. It receives one segment at a time, and each once, also if it is requested again in the meantime.
    let held = Mutex::new(HashSet::new());
    let origin = Origin::start(move |request| {
        let size =
            request.path.trim_start_matches('/').split_once('/').and_then(|(size, _)| size.parse().ok());
        if let Some(size) = size.filter(|_: &f64| request.path.ends_with(".aac")) {
            let mut held = held.lock().unwrap();
            if held.insert(request.path.clone()) {
                thread::sleep(Duration::from_secs_f64(size * FRAMES as f64 / RATE));
            }
        }
        answer(request).unwrap_or_else(|| Answer::status(404))
    });
    let (level, stalled) = play(&downloader(), &origin.url("/master.m3u8"), Priority::High);
    println!("mean level {level:.2}, stalled {stalled:.2?}");
    assert!(level < 1.5, "787 kbit/s do not arrive in time: {level}");
    // Three segments of 787 kbit/s are chosen before the first one has arrived, and each takes twice as long as it plays.
    assert!(stalled < Duration::from_secs(10), "{stalled:?}");
}
