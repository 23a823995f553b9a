//! Decodes a radio station: prints each title when it is heard, and what happens to the connection. See `--help`.

mod support;

use std::io::{self, Read, Seek, SeekFrom};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::arguments::Arguments;
use support::demo::{Demo, MP3, MP3_RATE, Reply};
use support::status_line::StatusLine;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use windway::config::OnDiscontinuity;
use windway::radio::{RadioEvent, RadioHandle, Title};
use windway::stream::Phase;
use windway::{Downloader, DownloaderConfig, Radio, RadioConfig};

type Failure = Box<dyn std::error::Error>;

const HELP: &str = "\
Decodes a radio station at the speed of a sound card. Prints each title when it is heard, and what happens to the connection.

    cargo run --release --example radio -- [URL] [--seconds N]

URL        a station: Icecast, SHOUTcast, or any body without an end
--seconds  seconds of audio to play; until Ctrl-C if there is a URL, else 10

Without a URL it starts a station on this machine: its title changes, its connection breaks, and for a moment it is offline.
RUST_LOG=windway=debug shows each request.

Exit code: 0 after that many seconds, 1 if the station can't be played, 2 for wrong arguments, 130 after Ctrl-C.";

struct Options {
    url: Option<String>,
    /// `None` plays forever.
    seconds: Option<f64>,
}

fn main() -> ExitCode {
    support::arguments::run(HELP, Options::parse, play)
}

impl Options {
    fn parse(mut arguments: Arguments) -> Result<Self, String> {
        let mut options = Self { url: None, seconds: None };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seconds" => options.seconds = Some(arguments.decimal("seconds")?),
                _ => options.url = arguments.only_url(&options.url)?,
            }
        }
        if options.url.is_none() {
            options.seconds = options.seconds.or(Some(10.0));
        }
        Ok(options)
    }
}

fn play(options: Options) -> Result<ExitCode, Failure> {
    let url = match options.url {
        Some(url) => url,
        None => demo()?.url("/live"),
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
    // First: it ends the subscription, and so the thread of the display.
    drop(radio);
    drop(display);
    player.summarise(&handle);
    let was_interrupted = interrupted.load(Ordering::Acquire);
    match result {
        _ if was_interrupted => println!("interrupted"),
        other => other?,
    }
    Ok(if was_interrupted { support::INTERRUPTED.into() } else { ExitCode::SUCCESS })
}

/// A station on this machine. Its first connection breaks, and then its source is offline for a moment.
fn demo() -> io::Result<Demo> {
    println!("no URL: a station on this machine, whose connection breaks after five seconds of audio");
    let titles = &["The Example - Prelude", "The Example - Interlude", "The Example - Finale"];
    Demo::start(move |request| match request.number {
        0 => Reply::station(request, MP3, titles).rate(2 * MP3_RATE).break_after(5 * MP3_RATE),
        1 => Reply::text(404, "the source is offline\n".into()),
        _ => Reply::station(request, MP3, titles).rate(2 * MP3_RATE),
    })
}

/// A radio that a decoder borrows. With the feature `symphonia`, [`Radio`] is a `MediaSource` itself, for decoders that own it.
struct LentSource<'a>(&'a mut Radio);

impl Read for LentSource<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for LentSource<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl MediaSource for LentSource<'_> {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
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
            display.update(self.heard);
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
        println!("audio received   {}", support::bytes(stats.bytes_received));
        println!("waits            {}, {} in all", stats.stalls, support::span(stats.stalled));
    }
}

/// Prints titles and events, and shows at the bottom of a terminal what is buffered.
struct Display {
    handle: RadioHandle,
    title: Option<Title>,
    /// Milliseconds of audio decoded.
    heard: Arc<AtomicU64>,
    line: Arc<StatusLine>,
    /// Prints events also while the player waits for audio.
    printing: Option<JoinHandle<()>>,
}

impl Display {
    fn new(handle: &RadioHandle) -> Self {
        let heard = Arc::new(AtomicU64::new(0));
        let line = {
            let (handle, heard, mut waiting) = (handle.clone(), Arc::clone(&heard), None);
            Arc::new(StatusLine::start(move |columns| {
                let heard = Duration::from_millis(heard.load(Ordering::Relaxed));
                show(&handle, heard, columns, &mut waiting)
            }))
        };
        let printing = {
            let (handle, heard, line) = (handle.clone(), Arc::clone(&heard), Arc::clone(&line));
            let events = handle.subscribe();
            thread::spawn(move || {
                for event in events {
                    let heard = Duration::from_millis(heard.load(Ordering::Relaxed));
                    if let Some(text) = describe(&event, &handle) {
                        line.print(&format!("{} {text}", support::clock(heard)));
                    }
                }
            })
        };
        Self { handle: handle.clone(), title: None, heard, line, printing: Some(printing) }
    }

    fn update(&mut self, heard: Duration) {
        self.heard.store(heard.as_millis() as u64, Ordering::Relaxed);
        let playing = self.handle.now_playing();
        if playing != self.title {
            let title = playing.as_ref().and_then(|playing| playing.title.as_deref());
            self.line.print(&format!("♪ {}", title.unwrap_or("(no title)")));
            self.title = playing;
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(printing) = self.printing.take() {
            // Fails if the thread panicked, which has printed its message.
            let _ = printing.join();
        }
    }
}

/// What an event is to the listener. Titles are printed when they are heard.
fn describe(event: &RadioEvent, handle: &RadioHandle) -> Option<String> {
    Some(match event {
        RadioEvent::Connected { info, .. } => {
            let name = info.name.as_deref().unwrap_or("a station without a name");
            let bitrate = info.bitrate.map_or(String::new(), |bitrate| format!(", {bitrate} kbit/s"));
            let container = handle.media_info().container;
            let kind = container.map_or("unknown format".into(), |(container, _)| format!("{container:?}"));
            format!("connected to {name}: {kind}{bitrate}")
        }
        RadioEvent::Reconnecting { error, after } => {
            let (after, buffered) = (support::span(*after), support::bytes(handle.buffered_ahead()));
            format!("{error}; reconnecting in {after}, {buffered} buffered")
        }
        RadioEvent::Discontinuity { .. } => "what follows comes over another connection".into(),
        // By the end of the program.
        RadioEvent::Ended { error, .. } if error.is_cancelled() => return None,
        RadioEvent::Ended { error, .. } => format!("ended: {error}"),
        _ => return None,
    })
}

/// The line at the bottom. `waiting` is when the player began to wait for audio.
fn show(handle: &RadioHandle, heard: Duration, columns: usize, waiting: &mut Option<Instant>) -> String {
    let (now, stream) = (Instant::now(), handle.progress().stream);
    let (phase, buffered) = (stream.phase, stream.buffered_ahead);
    let waits = matches!(phase, Phase::Opening | Phase::Stalled) || phase == Phase::Retrying && buffered == 0;
    *waiting = waits.then(|| waiting.unwrap_or(now));
    let waited = waiting.map_or(0, |since| now.duration_since(since).as_secs());
    let state = match phase {
        Phase::Retrying => "reconnecting".to_owned(),
        _ if waited > 0 => format!("waiting {waited} s"),
        _ => String::new(),
    };
    let cells = (buffered / 8192).min(columns.saturating_sub(40) as u64) as usize;
    format!(
        "{:>7} {:>7} buffered {} {state}",
        support::clock(heard),
        support::bytes(buffered),
        "━".repeat(cells)
    )
}
