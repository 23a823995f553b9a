//! From a URL to decoded audio: streams, seeks and decodes, and prints statistics.
//!
//! cargo run --release --example play [URL] [--seek SECONDS]... [--out FILE.wav]
//!
//! It decodes as fast as the bytes arrive: one second of audio before each seek, and to the end after the last one. Without
//! a URL it starts a server with a track, a round-trip time of 40 ms and a limited rate.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use support::{Answer, Content, Origin};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::units::Time;
use windway::{Downloader, DownloaderConfig, Stream, StreamHandle};

type Failure = Box<dyn std::error::Error>;

static TRACK: &[u8] = include_bytes!("../tests/data/track.flac");

const USAGE: &str = "usage: play [URL] [--seek SECONDS]... [--out FILE.wav]";

struct Options {
    url: Option<String>,
    seeks: Vec<f64>,
    out: Option<String>,
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
        let mut options = Self { url: None, seeks: Vec::new(), out: None };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--seek" => {
                    let value = value()?;
                    let seconds = value.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds));
                    options.seeks.push(seconds.ok_or(format!("--seek takes seconds, not {value:?}"))?);
                }
                "--out" => options.out = Some(value()?),
                _ if arg.starts_with('-') => return Err(format!("there is no option {arg}")),
                _ if options.url.is_some() => return Err("one URL at a time".into()),
                _ => options.url = Some(arg),
            }
        }
        Ok(options)
    }
}

/// Runs the program. False if Ctrl-C ended it.
fn play(mut options: Options) -> Result<bool, Failure> {
    // Lives until the end: its drop stops the server.
    let origin = options.url.is_none().then(embedded_origin);
    let url = match (&options.url, &origin) {
        (Some(url), _) => url.clone(),
        (None, Some(origin)) => origin.url("/track.flac"),
        (None, None) => unreachable!("without a URL there is an origin"),
    };
    if options.url.is_none() && options.seeks.is_empty() {
        options.seeks = vec![6.0, 2.5];
    }

    let began = Instant::now();
    let downloader = Downloader::new(DownloaderConfig::default())?;
    let stream = downloader.open(&url)?;
    let handle = stream.handle();
    let interrupted = Arc::new(AtomicBool::new(false));
    ctrlc::set_handler({
        let (interrupted, handle) = (Arc::clone(&interrupted), handle.clone());
        move || {
            interrupted.store(true, Ordering::Release);
            handle.cancel();
        }
    })?;

    println!("{url}: {}", describe(&stream));
    let mut player = Player::open(stream, options.out.as_deref())?;
    let mut line = StatusLine::new(downloader.clone(), handle.clone());
    let result = player.run(began, &options.seeks, &mut line);
    line.clear();
    let was_interrupted = interrupted.load(Ordering::Acquire);
    match result {
        Err(_) if was_interrupted => println!("interrupted"),
        other => other?,
    }
    player.summarise(&downloader, &handle)?;
    Ok(!was_interrupted)
}

/// A server on this machine with a round-trip time of 40 ms, which sends at four times the bit rate of the track.
fn embedded_origin() -> Origin {
    let content = Content::bytes(TRACK);
    let rate = TRACK.len() as u64 / 8 * 4;
    Origin::start_with_rtt(Duration::from_millis(40), move |asked| {
        Answer::file(asked, &content)
            .header("Content-Type", "audio/flac")
            .latency(Duration::from_millis(40))
            .rate(rate)
    })
}

fn describe(stream: &Stream) -> String {
    let len = stream.len().map_or("of unknown length".into(), |len| format!("{len} bytes"));
    let info = stream.handle().media_info();
    let kind = info.container.map_or("of unknown kind".into(), |(container, _)| format!("{container:?}"));
    let seeks = if stream.is_seekable() { "seekable" } else { "not seekable" };
    format!("{kind}, {len}, {seeks}")
}

/// A stream as symphonia's `MediaSource`. With the feature `symphonia`, [`Stream`] implements it itself.
struct Source(Stream);

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        self.0.is_seekable()
    }

    fn byte_len(&self) -> Option<u64> {
        self.0.len()
    }
}

struct Player {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    sample_rate: u32,
    channels: usize,
    out: Option<WavWriter>,
    samples: Vec<f32>,
    /// Number of decoded frames.
    frames: u64,
    checksum: u64,
    first_sample: Option<Duration>,
    seeks: Vec<(f64, Duration)>,
}

impl Player {
    fn open(stream: Stream, out: Option<&str>) -> Result<Self, Failure> {
        let mut hint = Hint::new();
        if let Some(extension) = stream.handle().media_info().extension() {
            hint.with_extension(extension);
        }
        let source = MediaSourceStream::new(Box::new(Source(stream)), Default::default());
        let probe = symphonia::default::get_probe();
        let format = probe.probe(&hint, source, Default::default(), Default::default())?;
        let track = format.default_track(TrackType::Audio).ok_or("the file has no audio track")?;
        let params = track.codec_params.as_ref().and_then(|params| params.audio());
        let params = params.ok_or("symphonia does not know the audio codec")?;
        let decoder =
            symphonia::default::get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default())?;
        Ok(Self {
            track: track.id,
            sample_rate: params.sample_rate.unwrap_or(44_100),
            channels: params.channels.as_ref().map_or(0, |channels| channels.count()),
            out: out.map(WavWriter::create).transpose()?,
            format,
            decoder,
            samples: Vec::new(),
            frames: 0,
            checksum: FNV_OFFSET,
            first_sample: None,
            seeks: Vec::new(),
        })
    }

    /// Decodes one second before each seek, and to the end after the last one.
    fn run(&mut self, began: Instant, seeks: &[f64], line: &mut StatusLine) -> Result<(), Failure> {
        for seconds in seeks {
            let until = self.frames + u64::from(self.sample_rate);
            while self.frames < until && self.decode(began, line)? {}
            let sought = Instant::now();
            let time = Time::try_from_secs_f64(*seconds).ok_or("no such time")?;
            self.format.seek(SeekMode::Accurate, SeekTo::Time { time, track_id: Some(self.track) })?;
            self.decoder.reset();
            self.decode(began, line)?;
            self.seeks.push((*seconds, sought.elapsed()));
        }
        while self.decode(began, line)? {}
        Ok(())
    }

    /// Decodes one packet. False at the end.
    fn decode(&mut self, began: Instant, line: &mut StatusLine) -> Result<bool, Failure> {
        loop {
            let Some(packet) = self.format.next_packet()? else { return Ok(false) };
            if packet.track_id != self.track {
                continue;
            }
            let audio = match self.decoder.decode(&packet) {
                Ok(audio) => audio,
                // A damaged packet is skipped, as players do.
                Err(SymphoniaError::DecodeError(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            if audio.frames() == 0 {
                continue;
            }
            self.channels = audio.spec().channels().count();
            self.sample_rate = audio.spec().rate();
            self.frames += audio.frames() as u64;
            audio.copy_to_vec_interleaved(&mut self.samples);
            self.first_sample.get_or_insert_with(|| began.elapsed());
            self.checksum = self.samples.iter().fold(self.checksum, |sum, sample| fnv1a(sum, *sample));
            if let Some(out) = &mut self.out {
                out.write(&self.samples)?;
            }
            line.update();
            return Ok(true);
        }
    }

    fn summarise(&mut self, downloader: &Downloader, handle: &StreamHandle) -> Result<(), Failure> {
        let (stats, totals) = (handle.stats(), downloader.stats());
        let seconds = self.frames as f64 / f64::from(self.sample_rate);
        println!("decoded          {seconds:.2} s, {} channels at {} Hz", self.channels, self.sample_rate);
        println!("first sample     {}", self.first_sample.map_or("none".into(), milliseconds));
        for (to, took) in &self.seeks {
            println!("seek to {to:>5.1} s  {}", milliseconds(*took));
        }
        println!("stalls           {}, {} in all", stats.stalls, milliseconds(stats.stalled));
        println!("requests         {}", totals.requests);
        println!("connections      {}", totals.connections_dialled);
        println!("bytes fetched    {} ({} read)", stats.bytes_fetched, stats.bytes_read);
        println!("checksum         {:016x}", self.checksum);
        if let Some(out) = self.out.take() {
            println!("written          {}", out.finish(self.channels, self.sample_rate)?);
        }
        Ok(())
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;

/// FNV-1a over a sample's bytes.
fn fnv1a(sum: u64, sample: f32) -> u64 {
    sample.to_le_bytes().iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Shows position, buffered ranges and rate on a terminal.
struct StatusLine {
    bar: Option<ProgressBar>,
    shown: Instant,
    downloader: Downloader,
    handle: StreamHandle,
}

impl StatusLine {
    const WIDTH: u64 = 40;

    fn new(downloader: Downloader, handle: StreamHandle) -> Self {
        let bar = io::stdout().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new_spinner().with_style(style)
        });
        Self { bar, shown: Instant::now(), downloader, handle }
    }

    fn update(&mut self) {
        let Some(bar) = &self.bar else { return };
        if self.shown.elapsed() < Duration::from_millis(50) {
            return;
        }
        self.shown = Instant::now();
        let rate = self.downloader.bandwidth().unwrap_or(0.0) / 1000.0;
        let stalls = self.handle.stats().stalls;
        let position = self.handle.position();
        bar.set_message(format!("{position:>10} [{}] {rate:.0} kB/s, {stalls} stalls", self.buffered()));
        bar.tick();
    }

    /// `━` is stored, `╸` is where the reader is.
    fn buffered(&self) -> String {
        let len = self.handle.len().unwrap_or(1).max(1);
        let stored = self.handle.buffered();
        let reader = self.handle.position() * Self::WIDTH / len;
        let cell = |cell: u64| {
            let (start, end) = (cell * len / Self::WIDTH, (cell + 1) * len / Self::WIDTH);
            let is_stored = stored.iter().any(|range| range.start < end && start < range.end);
            match (cell == reader, is_stored) {
                (true, _) => '╸',
                (false, true) => '━',
                (false, false) => ' ',
            }
        };
        (0..Self::WIDTH).map(cell).collect()
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes 16-bit PCM. `finish` writes the header again, with the final length.
struct WavWriter {
    path: String,
    file: BufWriter<File>,
    bytes: u32,
}

impl WavWriter {
    fn create(path: &str) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| format!("{path} can't be written: {error}"))?;
        let mut writer = Self { path: path.into(), file: BufWriter::new(file), bytes: 0 };
        writer.header(1, 44_100)?;
        Ok(writer)
    }

    fn write(&mut self, samples: &[f32]) -> io::Result<()> {
        for sample in samples {
            let value = (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16;
            self.file.write_all(&value.to_le_bytes())?;
        }
        self.bytes += 2 * samples.len() as u32;
        Ok(())
    }

    fn header(&mut self, channels: usize, rate: u32) -> io::Result<()> {
        let channels = channels.max(1) as u16;
        let file = &mut self.file;
        file.write_all(b"RIFF")?;
        file.write_all(&(36 + self.bytes).to_le_bytes())?;
        file.write_all(b"WAVEfmt \x10\0\0\0\x01\0")?;
        file.write_all(&channels.to_le_bytes())?;
        file.write_all(&rate.to_le_bytes())?;
        file.write_all(&(rate * 2 * u32::from(channels)).to_le_bytes())?;
        file.write_all(&(2 * channels).to_le_bytes())?;
        file.write_all(b"\x10\0data")?;
        file.write_all(&self.bytes.to_le_bytes())
    }

    fn finish(mut self, channels: usize, rate: u32) -> io::Result<String> {
        self.file.seek(SeekFrom::Start(0))?;
        self.header(channels, rate)?;
        self.file.flush()?;
        Ok(self.path)
    }
}
