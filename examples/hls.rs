//! An HLS presentation, decoded at the speed at which it would be heard: variant, buffer and latency in one line.
//!
//! cargo run --release --features hls-aes,symphonia --example hls [URL] [--seconds N]
//!
//! Without a URL it plays a live stream of its own, with three variants, from an embedded server, for 10 s.

mod support;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use support::demo::{Demo, LiveHls};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use windway::hls::{Hls, HlsConfig, HlsHandle, Section};
use windway::{Downloader, DownloaderConfig};

type Failure = Box<dyn std::error::Error>;

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
    let is_demo = url.is_none();
    let url = match url {
        Some(url) => url,
        None => {
            let live = LiveHls::new();
            Demo::start(move |request| live.answer(request))?.url("/live.m3u8")
        }
    };
    let limit = Duration::from_secs(seconds.unwrap_or(if is_demo { 10 } else { u64::MAX }));
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
        let mut decoding = Decoding::open(section)?;
        while let Some(samples) = decoding.samples()? {
            heard += samples;
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

/// The decoder of a section.
struct Decoding {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
}

impl Decoding {
    fn open(section: Section) -> Result<Self, SymphoniaError> {
        let source = MediaSourceStream::new(Box::new(section), Default::default());
        let probe = symphonia::default::get_probe();
        let format = probe.probe(&Default::default(), source, Default::default(), Default::default())?;
        let track = format.default_track(TrackType::Audio).ok_or(SymphoniaError::Unsupported("no audio"))?;
        let params = track.codec_params.as_ref().and_then(|params| params.audio());
        let params = params.ok_or(SymphoniaError::Unsupported("the audio codec"))?;
        let decoder =
            symphonia::default::get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default())?;
        Ok(Self { track: track.id, decoder, format })
    }

    /// Time that the samples of the next packet last. `None` at the end of the section.
    fn samples(&mut self) -> Result<Option<Duration>, SymphoniaError> {
        while let Some(packet) = self.format.next_packet()? {
            if packet.track_id != self.track {
                continue;
            }
            match self.decoder.decode(&packet) {
                Ok(audio) => {
                    let seconds = audio.frames() as f64 / f64::from(audio.spec().rate());
                    return Ok(Some(Duration::from_secs_f64(seconds)));
                }
                // A damaged packet is skipped, as players do.
                Err(SymphoniaError::DecodeError(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
