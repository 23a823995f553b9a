//! Plays several tracks without gaps: while one plays, the next one is opened and its start is fetched at low priority.
//! When it starts to play, its priority becomes high.
//!
//! cargo run --release --example queue [URL]...
//!
//! "Plays" means that it decodes at eight times the speed of a sound card, and reports the time for which the sound card
//! would have no samples. Without URLs it starts a server with three tracks, a round-trip time of 40 ms and a limited rate.

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::decoding::{Decoding, Source};
use support::{Answer, Content, Origin};
use windway::{Downloader, DownloaderConfig, Error, FileConfig, Priority, Stream, StreamHandle};

type Failure = Box<dyn std::error::Error>;

/// Playback speed, as a multiple of real time.
const SPEED: f64 = 8.0;

/// A track that is being opened, on its own thread because opening blocks.
struct Preload(JoinHandle<Result<Stream, Error>>);

impl Preload {
    fn begin(downloader: &Downloader, url: &str) -> Self {
        let (downloader, url) = (downloader.clone(), url.to_owned());
        let mut config = FileConfig::default();
        config.priority = Priority::Low;
        Self(thread::spawn(move || downloader.open_with(&url, config)))
    }

    /// The stream, with high priority from now on.
    fn take(self) -> Result<Stream, Failure> {
        let stream = self.0.join().map_err(|_| "the thread that opened a track panicked")??;
        stream.set_priority(Priority::High);
        Ok(stream)
    }
}

fn main() -> ExitCode {
    env_logger::init();
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let origin = urls.is_empty().then(embedded);
    let urls = match &origin {
        Some(origin) => ["/1.flac", "/2.mp3", "/3.ogg"].map(|path| origin.url(path)).into(),
        None => urls,
    };
    match play(&urls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embedded() -> Origin {
    let tracks: [(&str, &[u8]); 3] = [
        ("/1.flac", include_bytes!("../tests/data/track.flac")),
        ("/2.mp3", include_bytes!("../tests/data/track.mp3")),
        ("/3.ogg", include_bytes!("../tests/data/track.ogg")),
    ];
    let tracks = tracks.map(|(path, bytes)| (path, Content::bytes(bytes)));
    let rtt = Duration::from_millis(40);
    Origin::start_with_rtt(rtt, move |asked| match tracks.iter().find(|(path, _)| *path == asked.path) {
        Some((_, content)) => Answer::file(asked, content).latency(rtt).rate(400_000),
        None => Answer::status(404),
    })
}

fn play(urls: &[String]) -> Result<(), Failure> {
    let downloader = Downloader::new(DownloaderConfig::default())?;
    let mut next = urls.first().map(|url| Preload::begin(&downloader, url));
    let mut silent_since: Option<Instant> = None;
    for (index, url) in urls.iter().enumerate() {
        let Some(preload) = next.take() else { break };
        let stream = preload.take()?;
        let handle = stream.handle();
        let mut decoding = Decoding::open(Box::new(Source { stream, most: usize::MAX }));
        let first = decoding.samples()?;
        let gap = silent_since.map(|since| since.elapsed()).unwrap_or_default();
        next = urls.get(index + 1).map(|url| Preload::begin(&downloader, url));
        let (played, waited) = play_out(&mut decoding, first)?;
        silent_since = Some(Instant::now());
        report(url, &handle, gap, played, waited);
    }
    Ok(())
}

/// Decodes to the end at the playback speed. Returns the seconds of audio, and the time without samples.
fn play_out(decoding: &mut Decoding, first: Option<Vec<f32>>) -> Result<(f64, Duration), Failure> {
    let rate = decoding.samples_a_second();
    let mut due = Instant::now();
    let (mut played, mut waited) = (0.0, Duration::ZERO);
    let mut next = first;
    while let Some(samples) = next {
        let seconds = samples.len() as f64 / rate;
        played += seconds;
        due += Duration::from_secs_f64(seconds / SPEED);
        next = decoding.samples()?;
        match due.checked_duration_since(Instant::now()) {
            Some(early) => thread::sleep(early),
            None => {
                waited += due.elapsed();
                due = Instant::now();
            }
        }
    }
    Ok((played, waited))
}

fn report(url: &str, handle: &StreamHandle, gap: Duration, played: f64, waited: Duration) {
    let stats = handle.stats();
    let (gap, waited) = (gap.as_millis(), waited.as_millis());
    println!(
        "{url}: {played:.2} s of audio, {gap} ms after the one before, waited {waited} ms, {} requests, {} bytes",
        stats.requests, stats.bytes_fetched
    );
}
