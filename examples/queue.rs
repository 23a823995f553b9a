//! Plays several tracks without gaps: see the text of `--help` below.
//!
//! "Plays" means that it decodes at the speed of a sound card and counts the time for which the card would have had no
//! samples: `output` is the place for a real one.

mod support;

use std::io::{self, BufRead};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use support::arguments::Arguments;
use support::demo::{Demo, FLAC, MP3, Reply};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use windway::queue::{Playing, Queue, QueueConfig, QueueEvent, QueueHandle, Repeat, Track};
use windway::{Downloader, Error, Media, Stream};

const HELP: &str = "\
Plays tracks one after the other, without gaps. The next one is opened before the current one has ended.

    cargo run --release --features queue,symphonia --example queue [--speed N] [URL]...

URL      a file, or a list: M3U, PLS, XSPF, ASX, the feed of a podcast
--speed  times the speed of a sound card; 1 if there are URLs

While it plays, type n and Enter for the next track, p for the previous one, r to repeat it or not,
q to quit.

Without a URL it serves three tracks from 40 ms away at a limited rate, and plays them at speed 4.

Exit code: 0 if all was played, 1 if a track could not be, 2 for wrong arguments.";

type Failure = Box<dyn std::error::Error>;

struct Options {
    urls: Vec<String>,
    speed: Option<f64>,
}

impl Options {
    fn parse(mut arguments: Arguments) -> Result<Self, String> {
        let mut options = Self { urls: Vec::new(), speed: None };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--speed" => options.speed = Some(arguments.decimal("a number above 0")?),
                _ => options.urls.push(arguments.url()?),
            }
        }
        if options.speed == Some(0.0) { Err("--speed takes a number above 0".into()) } else { Ok(options) }
    }
}

fn main() -> ExitCode {
    support::arguments::run(HELP, Options::parse, |Options { urls, speed }| {
        let speed = speed.unwrap_or(if urls.is_empty() { 4.0 } else { 1.0 });
        let urls = if urls.is_empty() { demo()? } else { urls };
        Ok(if run(&urls, speed)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// A server on this machine, which is 40 ms away and sends 400 kB/s. Returns the URLs of three tracks.
fn demo() -> io::Result<Vec<String>> {
    let demo = Demo::start(|request| {
        let reply = match request.path.split('?').next() {
            Some("/1.flac") => Reply::file(request, FLAC, "audio/flac"),
            _ => Reply::file(request, MP3, "audio/mpeg"),
        };
        reply.delay(Duration::from_millis(40)).rate(400_000)
    })?;
    Ok(["/1.flac", "/2.mp3", "/1.flac?again"].map(|path| demo.url(path)).into())
}

/// True if all was played.
fn run(urls: &[String], speed: f64) -> Result<bool, Failure> {
    let downloader = Downloader::global()?;
    let queue = Queue::new(&downloader, QueueConfig::new());
    for url in urls {
        queue.handle().extend(tracks(&downloader, url)?);
    }
    let handle = queue.handle();
    let keys = handle.clone();
    thread::spawn(move || obey_keys(&keys));
    let events = handle.subscribe();
    let mut output = Output { due: None, waited: Duration::ZERO, speed };
    let mut is_all = true;
    for next in queue {
        let played = match next {
            Ok(playing) => play(playing, &handle, &mut output),
            Err(error) => Err(error.into()),
        };
        for event in std::iter::from_fn(|| events.try_recv()) {
            if let QueueEvent::Prefetching { .. } = event {
                println!("    the next track was fetched meanwhile");
            }
        }
        if let Err(error) = played {
            is_all = false;
            eprintln!("    {error}");
        }
    }
    Ok(is_all)
}

/// A list is opened to see its tracks. All else is opened when its turn comes.
fn tracks(downloader: &Downloader, url: &str) -> Result<Vec<Track>, Error> {
    let lists = [".m3u", ".m3u8", ".pls", ".xspf", ".asx", ".xml", ".rss"];
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    if lists.iter().any(|end| path.ends_with(end)) {
        if let Media::Playlist(list) = downloader.open_any(url)? {
            list.refused().iter().for_each(|refused| eprintln!("left out: {refused}"));
            return Ok(list.into_tracks());
        }
    }
    Ok(vec![Track::new(url)?])
}

fn obey_keys(handle: &QueueHandle) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match line.trim() {
            "n" => handle.skip(),
            "q" => handle.clear(),
            "p" => drop(handle.previous()),
            "r" => handle.set_repeat(if handle.repeat() == Repeat::One { Repeat::Off } else { Repeat::One }),
            _ => println!("n: next, p: previous, r: repeat, q: quit"),
        }
    }
}

/// Decodes a track to its end, or until it is skipped.
fn play(playing: Playing, queue: &QueueHandle, output: &mut Output) -> Result<(), Failure> {
    let id = playing.id;
    let url = playing.track.url().map(|url| url.to_string());
    println!("{}", playing.track.title().or(url.as_deref()).unwrap_or("a track"));
    let handle = playing.stream.handle();
    let is_current = || queue.current() == Some(id);
    let played = decode(playing.stream, output, &is_current);
    let stats = handle.stats();
    println!("    {} requests, {} bytes", stats.requests, stats.bytes_fetched);
    // A decoder hides the error of a read behind one of its own.
    match (played, handle.last_error()) {
        // It was skipped: the decoder did not expect the end.
        _ if !is_current() => Ok(()),
        (Err(_), Some(error)) => Err(error.into()),
        (played, _) => Ok(played?),
    }
}

fn decode(stream: Stream, output: &mut Output, is_current: &dyn Fn() -> bool) -> Result<(), SymphoniaError> {
    let mut hint = Hint::new();
    if let Some(extension) = stream.handle().media_info().extension() {
        hint.with_extension(extension);
    }
    let source = MediaSourceStream::new(Box::new(stream), Default::default());
    let mut format =
        symphonia::default::get_probe().probe(&hint, source, Default::default(), Default::default())?;
    let (track, mut decoder) = decoder(&*format)?;
    let params = decoder.codec_params();
    let channels = params.channels.as_ref().map_or(1, |channels| channels.count());
    let rate = f64::from(params.sample_rate.unwrap_or(44_100)) * channels as f64;
    let mut samples: Vec<f32> = Vec::new();
    while let Some(packet) = format.next_packet()? {
        // The decoder has read up to 32 KiB ahead, which a skip does not take from it.
        if !is_current() {
            break;
        }
        if packet.track_id != track {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(audio) => audio.copy_to_vec_interleaved(&mut samples),
            // One damaged packet is passed over.
            Err(SymphoniaError::DecodeError(_)) => continue,
            Err(error) => return Err(error),
        }
        output.write(&samples, rate);
    }
    Ok(())
}

fn decoder(format: &dyn FormatReader) -> Result<(u32, Box<dyn AudioDecoder>), SymphoniaError> {
    let track = format.default_track(TrackType::Audio).ok_or(SymphoniaError::Unsupported("no audio"))?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params = params.ok_or(SymphoniaError::Unsupported("no codec"))?;
    let options = AudioDecoderOptions::default();
    Ok((track.id, symphonia::default::get_codecs().make_audio_decoder(params, &options)?))
}

/// What takes the samples of all tracks, as a sound card does: no track opens or closes it.
struct Output {
    /// When the samples that were written have been heard. `None` before the first.
    due: Option<Instant>,
    /// Time without samples.
    waited: Duration,
    speed: f64,
}

impl Output {
    /// `rate` is in samples a second. Blocks while enough is buffered.
    fn write(&mut self, samples: &[f32], rate: f64) {
        let now = Instant::now();
        if let Some(late) =
            self.due.and_then(|due| now.checked_duration_since(due)).filter(|late| !late.is_zero())
        {
            self.waited += late;
            println!("    {late:.1?} without samples, {:.1?} in all", self.waited);
        }
        let heard = Duration::from_secs_f64(samples.len() as f64 / rate / self.speed);
        let due = self.due.map_or(now, |due| due.max(now)) + heard;
        self.due = Some(due);
        // A buffer of 200 ms is what bridges the change from one decoder to the next.
        thread::sleep(due.saturating_duration_since(now).saturating_sub(Duration::from_millis(200)));
    }
}
