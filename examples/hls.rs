//! An HLS presentation, decoded at the speed at which it would be heard: variant, buffer and latency in one line.
//!
//! cargo run --release --features hls-aes,symphonia --example hls [URL] [--seconds N]
//!
//! Without a URL it plays a live stream of its own, with three variants, from an embedded server, for 10 s.

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use support::decoding::Decoding;
use support::{Answer, Asked, Content, Origin};
use windway::hls::{Hls, HlsConfig, HlsHandle};
use windway::{Downloader, DownloaderConfig};

type Failure = Box<dyn std::error::Error>;

static TRACK: &[u8] = include_bytes!("../tests/data/track.mp3");

/// Bytes in a second of the track.
const SECOND: usize = 12_000;

/// Segments in the window of the live stream.
const WINDOW: u64 = 12;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let (mut url, mut seconds) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = Some(arguments.next().ok_or("--seconds needs a number")?.parse()?),
            _ => url = Some(argument),
        }
    }
    let origin = if url.is_none() { Some(live_origin()) } else { None };
    let url = url.or_else(|| origin.as_ref().map(|origin| origin.url("/live.m3u8"))).unwrap_or_default();
    let limit = Duration::from_secs(seconds.unwrap_or(if origin.is_some() { 10 } else { u64::MAX }));
    let downloader = Downloader::new(DownloaderConfig::default())?;
    let hls = downloader.open_hls(&url, HlsConfig::default())?;
    play(hls, limit)
}

/// Decodes section after section. Samples are counted, and awaited as a sound card would take them.
fn play(mut hls: Hls, limit: Duration) -> Result<(), Failure> {
    let handle = hls.handle();
    println!(
        "{:?}, {} levels, {:?} can be sought to",
        handle.kind(),
        handle.levels().len(),
        handle.seekable()
    );
    let (began, mut heard, mut shown) = (Instant::now(), Duration::ZERO, 0);
    while let Some(section) = hls.next_section()? {
        let info = section.info().clone();
        println!(
            "{}, {} Hz, from {:?} on: {:?}",
            info.codec, info.sample_rate, info.start, info.discontinuity
        );
        let mut decoding = Decoding::try_open(Box::new(section))?;
        while let Some(samples) = decoding.samples()? {
            heard += Duration::from_secs_f64(samples.len() as f64 / decoding.samples_a_second());
            thread::sleep(heard.saturating_sub(began.elapsed()));
            if heard.as_secs() > shown {
                shown = heard.as_secs();
                show(&handle);
            }
            if heard >= limit {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn show(handle: &HlsHandle) {
    let level = handle.level();
    let bandwidth = handle.levels().get(level).map_or(0, |level| level.bandwidth);
    let latency =
        handle.latency().map_or(String::new(), |latency| format!(", {latency:.1?} behind the live edge"));
    let (position, buffered) = (handle.position(), handle.buffered());
    println!("{position:>8.1?}: level {level} ({bandwidth} bit/s), {buffered:.1?} buffered{latency}");
}

/// A live stream: the track over and over, in segments of a second.
fn live_origin() -> Origin {
    let began = Instant::now();
    Origin::start(move |asked| {
        let edge = WINDOW + began.elapsed().as_secs();
        answer(asked, edge).unwrap_or_else(|| Answer::status(404))
    })
}

fn answer(asked: &Asked, edge: u64) -> Option<Answer> {
    let text = |text: String| Answer::whole(&Content::bytes(text.into_bytes()));
    if asked.path == "/live.m3u8" {
        let variants = [64_000, 96_000, 128_000].map(|rate| {
            format!("#EXT-X-STREAM-INF:BANDWIDTH={rate},CODECS=\"mp4a.40.34\"\n/{rate}/list.m3u8\n")
        });
        return Some(text(format!("#EXTM3U\n{}", variants.concat())));
    }
    if asked.path.ends_with("list.m3u8") {
        let first = edge - WINDOW;
        let segments: String = (first..edge).map(|index| format!("#EXTINF:1,\n{index}.mp3\n")).collect();
        return Some(text(format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}"
        )));
    }
    let index: usize = asked.path.rsplit('/').next()?.strip_suffix(".mp3")?.parse().ok()?;
    let from = index % (TRACK.len() / SECOND) * SECOND;
    Some(Answer::whole(&Content::bytes(&TRACK[from..from + SECOND])))
}
