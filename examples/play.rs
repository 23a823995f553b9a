//! From a URL to decoded audio: streams, seeks and decodes, and prints statistics. See `--help`.

mod support;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::arguments::Arguments;
use support::demo::{Demo, FLAC, Reply};
use support::status_line::{StatusLine, bar};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::units::Time;
use windway::stream::Phase;
use windway::{Downloader, DownloaderConfig, Stream, StreamHandle};

type Failure = Box<dyn std::error::Error>;

const HELP: &str = "\
Streams and decodes a file, as fast as its bytes arrive, and prints statistics.

    cargo run --release --example play -- [URL] [--seek SECONDS]... [--out FILE.wav]

URL     a file with audio: FLAC, MP3, AAC, M4A, Ogg Vorbis, WAV, AIFF
--seek  decodes one second of audio, then seeks to this time; may be given several times
--out   writes the decoded audio to this file

Without a URL it starts a server on this machine, which answers after 40 ms and sends at a limited rate, and seeks twice.
RUST_LOG=windway=debug shows each request.

Exit code: 0 if all was decoded, 1 if not, 2 for wrong arguments, 130 after Ctrl-C.";

#[derive(Default)]
struct Options {
    url: Option<String>,
    seeks: Vec<f64>,
    out: Option<String>,
}

fn main() -> ExitCode {
    support::arguments::run(HELP, Options::parse, play)
}

impl Options {
    fn parse(mut arguments: Arguments) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seek" => options.seeks.push(arguments.decimal("seconds")?),
                "--out" => options.out = Some(arguments.value()?),
                _ => options.url = arguments.only_url(&options.url)?,
            }
        }
        Ok(options)
    }
}

fn play(mut options: Options) -> Result<ExitCode, Failure> {
    let url = match options.url.take() {
        Some(url) => url,
        None => {
            if options.seeks.is_empty() {
                options.seeks = vec![6.0, 2.5];
            }
            demo()?.url("/track.flac")
        }
    };
    let began = Instant::now();
    let downloader = Downloader::new(DownloaderConfig::default())?;
    let stream = downloader.open(&url)?;
    let handle = stream.handle();
    let interrupted = Arc::new(AtomicBool::new(false));
    ctrlc::set_handler({
        let (interrupted, handle) = (Arc::clone(&interrupted), handle.clone());
        move || {
            interrupted.store(true, Ordering::Release);
            // A blocked read returns at once.
            handle.cancel();
        }
    })?;

    println!("{url}: {}", describe(&stream));
    let heard = Arc::new(AtomicU64::new(0));
    let line = show(&handle, &heard);
    let result = Player::open(stream, options.out.as_deref(), heard)
        .and_then(|mut player| player.run(began, &options.seeks).map(|()| player));
    drop(line);
    match result {
        Ok(mut player) => player.summarise(&downloader, &handle)?,
        Err(_) if interrupted.load(Ordering::Acquire) => println!("interrupted"),
        // A decoder often hides the error of a read behind one of its own.
        Err(error) => return Err(handle.last_error().map_or(error, Into::into)),
    }
    Ok(if interrupted.load(Ordering::Acquire) { support::INTERRUPTED.into() } else { ExitCode::SUCCESS })
}

/// A server on this machine with a round-trip time of 40 ms, which sends at four times the bit rate of the track.
fn demo() -> Result<Demo, Failure> {
    let rate = FLAC.len() as u64 / 8 * 4;
    println!(
        "no URL: a server on this machine, which answers after 40 ms and sends {}/s",
        support::bytes(rate)
    );
    let demo = Demo::start(move |request| {
        Reply::file(request, FLAC, "audio/flac").delay(Duration::from_millis(40)).rate(rate)
    });
    Ok(demo?)
}

fn describe(stream: &Stream) -> String {
    let len = stream.len().map_or("of unknown length".into(), support::bytes);
    let info = stream.handle().media_info();
    let kind = info.container.map_or("of unknown kind".into(), |(container, _)| format!("{container:?}"));
    let seeks = if stream.is_seekable() { "seekable" } else { "not seekable" };
    format!("{kind}, {len}, {seeks}")
}

/// The line at the bottom: time, what is stored, rate, and what the stream is doing. `heard` is in milliseconds.
fn show(handle: &StreamHandle, heard: &Arc<AtomicU64>) -> StatusLine {
    let (handle, heard) = (handle.clone(), Arc::clone(heard));
    // Where the reader was last, and since when it has been there.
    let mut last = (0, Instant::now());
    StatusLine::start(move |columns| {
        let progress = handle.progress();
        let time = Duration::from_millis(heard.load(Ordering::Relaxed));
        if progress.position != last.0 {
            last = (progress.position, Instant::now());
        }
        let waits = matches!(progress.phase, Phase::Opening | Phase::Stalled | Phase::Retrying);
        let waited = if waits { last.1.elapsed().as_secs() } else { 0 };
        let state = match (progress.phase, progress.last_error) {
            (Phase::Retrying, Some(error)) => format!("reconnecting for {waited} s: {:?}", error.kind()),
            (Phase::Retrying, None) => format!("reconnecting for {waited} s"),
            _ if waited > 0 => format!("waiting {waited} s"),
            _ => progress
                .bandwidth
                .map_or(String::new(), |bandwidth| format!("{}/s", support::bytes(bandwidth as u64))),
        };
        let cells = columns.saturating_sub(state.chars().count() + 12).min(60);
        let len = progress.len.unwrap_or(progress.position + progress.buffered_ahead);
        let bar = bar(cells, len, progress.position, &progress.buffered);
        format!("{:>7} [{bar}] {state}", support::clock(time))
    })
}

/// A stream as symphonia's `MediaSource`. With the feature `symphonia`, [`Stream`] implements it itself, and this is not needed.
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
    /// Milliseconds of audio decoded, for the line at the bottom.
    heard: Arc<AtomicU64>,
    out: Option<WavWriter>,
    samples: Vec<f32>,
    /// Number of decoded frames.
    frames: u64,
    checksum: u64,
    first_sample: Option<Duration>,
    seeks: Vec<(f64, Duration)>,
}

impl Player {
    fn open(stream: Stream, out: Option<&str>, heard: Arc<AtomicU64>) -> Result<Self, Failure> {
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
            heard,
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
    fn run(&mut self, began: Instant, seeks: &[f64]) -> Result<(), Failure> {
        for seconds in seeks {
            let until = self.frames + u64::from(self.sample_rate);
            while self.frames < until && self.decode(began)? {}
            let sought = Instant::now();
            let time = Time::try_from_secs_f64(*seconds).ok_or("no such time")?;
            self.format.seek(SeekMode::Accurate, SeekTo::Time { time, track_id: Some(self.track) })?;
            self.decoder.reset();
            self.decode(began)?;
            self.seeks.push((*seconds, sought.elapsed()));
        }
        while self.decode(began)? {}
        Ok(())
    }

    /// Decodes one packet. False at the end.
    fn decode(&mut self, began: Instant) -> Result<bool, Failure> {
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
            let heard = 1000 * self.frames / u64::from(self.sample_rate.max(1));
            self.heard.store(heard, Ordering::Relaxed);
            return Ok(true);
        }
    }

    fn summarise(&mut self, downloader: &Downloader, handle: &StreamHandle) -> Result<(), Failure> {
        let (stats, totals) = (handle.stats(), downloader.stats());
        let seconds = self.frames as f64 / f64::from(self.sample_rate);
        println!("decoded          {seconds:.2} s, {} channels at {} Hz", self.channels, self.sample_rate);
        println!("first sample     {}", self.first_sample.map_or("none".into(), support::span));
        for (to, took) in &self.seeks {
            println!("seek to {to:>5.1} s  {}", support::span(*took));
        }
        println!("stalls           {}, {} in all", stats.stalls, support::span(stats.stalled));
        println!("requests         {}", totals.requests);
        println!("connections      {}", totals.connections_dialled);
        let (fetched, read) = (support::bytes(stats.bytes_fetched), support::bytes(stats.bytes_read));
        println!("fetched          {fetched} ({read} read)");
        println!("checksum         {:016x}", self.checksum);
        if let Some(out) = self.out.take() {
            println!("written          {}", out.finish(self.channels, self.sample_rate)?);
        }
        Ok(())
    }
}

const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;

/// FNV-1a over a sample's bytes.
fn fnv1a(sum: u64, sample: f32) -> u64 {
    sample.to_le_bytes().iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
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
