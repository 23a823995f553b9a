//! Decodes a radio station: prints each title when it is heard, and what happens to the connection.
//!
//! cargo run --release --example radio [URL] [--seconds N]
//!
//! It decodes in real time and counts the samples. Ctrl-C ends it. Without a URL it starts a server with a station, for 10 s:
//! its title changes, its connection breaks, and for a moment its source is offline.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use support::decoding::LentSource;
use support::{Answer, Content, Origin, Station};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use windway::config::OnDiscontinuity;
use windway::event::Subscriber;
use windway::radio::{RadioEvent, RadioHandle, Title};
use windway::{Downloader, DownloaderConfig, Radio, RadioConfig};

type Failure = Box<dyn std::error::Error>;

static TRACK: &[u8] = include_bytes!("../tests/data/track.mp3");

/// Bit rate of the track, in bytes a second.
const TRACK_RATE: u64 = 12_000;

const USAGE: &str = "usage: radio [URL] [--seconds N]";

struct Options {
    url: Option<String>,
    /// `None` plays forever.
    seconds: Option<f64>,
}

fn main() -> ExitCode {
    env_logger::init();
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match play(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(130),
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { url: None, seconds: None };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => {
                    let value = args.next().ok_or("--seconds needs a value")?;
                    let seconds = value.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds));
                    options.seconds = Some(seconds.ok_or(format!("--seconds takes seconds, not {value:?}"))?);
                }
                _ if arg.starts_with('-') => return Err(format!("there is no option {arg}")),
                _ if options.url.is_some() => return Err("one URL at a time".into()),
                _ => options.url = Some(arg),
            }
        }
        if options.url.is_none() {
            options.seconds = options.seconds.or(Some(10.0));
        }
        Ok(options)
    }
}

/// Runs the program. False if Ctrl-C ended it.
fn play(options: Options) -> Result<bool, Failure> {
    // Lives until the end: its drop stops the server.
    let origin = options.url.is_none().then(embedded_station);
    let url = match (&options.url, &origin) {
        (Some(url), _) => url.clone(),
        (None, Some(origin)) => origin.url("/live"),
        (None, None) => unreachable!("without a URL there is an origin"),
    };
    let downloader = Downloader::new(DownloaderConfig::default())?;
    // Each connection gets its own decoder. This works for all formats.
    let mut config = RadioConfig::default();
    config.on_discontinuity = OnDiscontinuity::EndOfStream;
    let mut radio = downloader.open_radio(&url, config)?;
    let handle = radio.handle();
    let interrupted = Arc::new(AtomicBool::new(false));
    ctrlc::set_handler({
        let (interrupted, handle) = (Arc::clone(&interrupted), handle.clone());
        move || {
            interrupted.store(true, Ordering::Release);
            handle.cancel();
        }
    })?;

    println!("connecting to {url}");
    let mut display = Display::new(&handle);
    let mut player = Player::new(options.seconds);
    let result = player.run(&mut radio, &interrupted, &mut display);
    display.clear();
    player.summarise(&handle);
    let was_interrupted = interrupted.load(Ordering::Acquire);
    match result {
        _ if was_interrupted => println!("interrupted"),
        other => other?,
    }
    Ok(!was_interrupted)
}

/// A station on this machine that sends like Icecast. Its first connection breaks, and then its source is offline for a
/// moment.
fn embedded_station() -> Origin {
    let titles = vec!["Scripted Origin - Prelude", "Scripted Origin - Interlude", "Scripted Origin - Finale"];
    let station = Station { audio: Content::looped(TRACK), interval: 8192, every: 4, titles };
    Origin::start(move |asked| match asked.number {
        0 => Answer::station(asked, &station).rate(2 * TRACK_RATE).close_after(5 * TRACK_RATE),
        1 => Answer::status(404),
        _ => Answer::station(asked, &station).rate(2 * TRACK_RATE),
    })
}

struct Player {
    /// Seconds of audio to play. `None` plays forever.
    seconds: Option<f64>,
    began: Instant,
    heard: Duration,
    samples: Vec<f32>,
    frames: u64,
    damaged: u64,
    loudest: f32,
}

/// The decoder of the audio from one discontinuity to the next.
struct Part<'a> {
    format: Box<dyn FormatReader + 'a>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
}

impl<'a> Part<'a> {
    fn open(radio: &'a mut Radio) -> Result<Self, SymphoniaError> {
        let mut hint = Hint::new();
        if let Some(extension) = radio.handle().media_info().extension() {
            hint.with_extension(extension);
        }
        let source = MediaSourceStream::new(Box::new(LentSource(radio)), Default::default());
        let probe = symphonia::default::get_probe();
        let format = probe.probe(&hint, source, Default::default(), Default::default())?;
        let (track, decoder) = decoder(&*format)?;
        Ok(Self { format, decoder, track })
    }
}

fn decoder(format: &(dyn FormatReader + '_)) -> Result<(u32, Box<dyn AudioDecoder>), SymphoniaError> {
    let unknown = SymphoniaError::Unsupported("the audio codec");
    let Some(track) = format.default_track(TrackType::Audio) else { return Err(unknown) };
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let Some(params) = params else { return Err(unknown) };
    // A station may send whole files one after another. The length in the first one's tag is not that of the station.
    let options = AudioDecoderOptions::default().gapless(false);
    Ok((track.id, symphonia::default::get_codecs().make_audio_decoder(params, &options)?))
}

impl Player {
    fn new(seconds: Option<f64>) -> Self {
        Self {
            seconds,
            began: Instant::now(),
            heard: Duration::ZERO,
            samples: Vec::new(),
            frames: 0,
            damaged: 0,
            loudest: 0.0,
        }
    }

    fn is_done(&self) -> bool {
        self.seconds.is_some_and(|seconds| self.heard.as_secs_f64() >= seconds)
    }

    /// Decodes in real time, from discontinuity to discontinuity.
    fn run(
        &mut self,
        radio: &mut Radio,
        interrupted: &AtomicBool,
        display: &mut Display,
    ) -> Result<(), Failure> {
        let handle = radio.handle();
        while !self.is_done() && !interrupted.load(Ordering::Acquire) {
            // So that the content type is known, which the probe would otherwise have to guess.
            handle.wait_buffered(4096, None)?;
            let played = Part::open(radio).and_then(|mut part| self.play(&mut part, interrupted, display));
            match (played, handle.pass_discontinuity()) {
                (Ok(()), _) => {}
                // The discontinuity truncated a frame or the headers.
                (Err(_), true) => self.damaged += 1,
                (Err(error), false) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Plays up to the discontinuity, or until the requested seconds are over.
    fn play(
        &mut self,
        part: &mut Part<'_>,
        interrupted: &AtomicBool,
        display: &mut Display,
    ) -> Result<(), SymphoniaError> {
        while !self.is_done() && !interrupted.load(Ordering::Acquire) {
            let packet = match part.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(()),
                // Ogg starts a new stream, usually at a new title.
                Err(SymphoniaError::ResetRequired) => {
                    (part.track, part.decoder) = decoder(&*part.format)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if packet.track_id != part.track {
                continue;
            }
            match part.decoder.decode(&packet) {
                Ok(audio) if audio.frames() > 0 => {
                    self.frames += audio.frames() as u64;
                    self.heard +=
                        Duration::from_secs_f64(audio.frames() as f64 / f64::from(audio.spec().rate()));
                    audio.copy_to_vec_interleaved(&mut self.samples);
                }
                Ok(_) => continue,
                // A damaged packet is skipped, as players do.
                Err(SymphoniaError::DecodeError(_)) => {
                    self.damaged += 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.loudest =
                self.samples.iter().fold(self.loudest, |loudest, sample| loudest.max(sample.abs()));
            display.update();
            self.listen();
        }
        Ok(())
    }

    /// Waits for as long as a sound card would play.
    fn listen(&mut self) {
        let due = self.began + self.heard;
        let now = Instant::now();
        if due > now {
            thread::sleep(due - now);
        } else {
            // A sound card without samples is silent, and does not play faster later.
            self.began = now - self.heard;
        }
    }

    fn summarise(&self, handle: &RadioHandle) {
        let stats = handle.stats();
        println!("decoded          {:.2} s, {} frames", self.heard.as_secs_f64(), self.frames);
        println!("loudest sample   {:.3}", self.loudest);
        println!("damaged packets  {}", self.damaged);
        println!("connections      {}", stats.connections);
        println!("audio received   {} bytes", stats.bytes_received);
        println!("waits            {}, {:.1} s in all", stats.stalls, stats.stalled.as_secs_f64());
    }
}

/// Prints events, and shows the buffer on a terminal.
struct Display {
    handle: RadioHandle,
    events: Subscriber<RadioEvent>,
    title: Option<Title>,
    bar: Option<ProgressBar>,
    shown: Instant,
}

impl Display {
    fn new(handle: &RadioHandle) -> Self {
        let bar = io::stdout().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new_spinner().with_style(style)
        });
        Self { handle: handle.clone(), events: handle.subscribe(), title: None, bar, shown: Instant::now() }
    }

    fn update(&mut self) {
        while let Some(event) = self.events.try_recv() {
            self.print_event(&event);
        }
        let playing = self.handle.now_playing();
        if playing != self.title {
            let title = playing.as_ref().and_then(|playing| playing.title.as_deref());
            self.print(&format!("♪ {}", title.unwrap_or("(no title)")));
            self.title = playing;
        }
        self.show_buffer();
    }

    fn print_event(&self, event: &RadioEvent) {
        match event {
            RadioEvent::Connected { info, position } => {
                let name = info.name.as_deref().unwrap_or("a station without a name");
                let bitrate = info.bitrate.map_or(String::new(), |bitrate| format!(", {bitrate} kbit/s"));
                let container = self.handle.media_info().container;
                let kind =
                    container.map_or("unknown format".into(), |(container, _)| format!("{container:?}"));
                self.print(&format!("connected to {name} at byte {position}: {kind}{bitrate}"));
            }
            RadioEvent::Reconnecting { error, after } => {
                let buffered = self.handle.buffered_ahead();
                self.print(&format!("{error}; reconnecting in {after:.1?}, {buffered} bytes buffered"));
            }
            RadioEvent::Discontinuity { position } => {
                self.print(&format!("a discontinuity at byte {position}"))
            }
            RadioEvent::Ended { error, .. } => self.print(&format!("ended: {error}")),
            // `update` prints titles when they are heard.
            _ => {}
        }
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => println!("{line}"),
        }
    }

    fn show_buffer(&mut self) {
        let Some(bar) = &self.bar else { return };
        if self.shown.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.shown = Instant::now();
        let (position, buffered) = (self.handle.position(), self.handle.buffered_ahead());
        let cells = "━".repeat((buffered / 8192).min(60) as usize);
        bar.set_message(format!("{position:>10} {:>5} KiB ahead {cells}", buffered / 1024));
        bar.tick();
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
