//! Plays an HLS presentation without a sound card: decodes it at the speed at which it would be heard. The last line of the
//! terminal shows the position, the level, the buffer and the distance from live.
//!
//! cargo run --release --features hls-aes,symphonia --example hls -- [URL] [OPTIONS]
//!
//! Without a URL it plays a live stream of its own, with three levels, from an embedded server, for 10 s.

mod support;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use support::arguments::Arguments;
use support::demo::{Demo, LiveHls};
use support::status_line::StatusLine;
use support::{clock, span};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use windway::hls::{Hls, HlsConfig, HlsEvent, HlsHandle, Section};
use windway::{Downloader, DownloaderConfig};

const HELP: &str = "\
Plays an HLS presentation at the speed of a sound card, and shows position, level, buffer and distance from live.

    cargo run --release --features hls-aes,symphonia --example hls -- [URL] [OPTIONS]

--list          lists the renditions and the levels, and plays nothing
--rendition N   plays this rendition of the list
--language TAG  plays the rendition of this language, such as `de`
--seconds N     stops after N seconds

Without a URL it plays a live stream of its own for 10 seconds. RUST_LOG=windway=debug shows each request.

Exit code: 0 if it was played, 1 if not, 2 for wrong arguments.";

type Failure = Box<dyn std::error::Error>;

#[derive(Default)]
struct Options {
    url: Option<String>,
    lists: bool,
    rendition: Option<usize>,
    language: Option<String>,
    seconds: Option<u64>,
}

impl Options {
    fn parse(mut arguments: Arguments) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => options.lists = true,
                "--rendition" => options.rendition = Some(arguments.number()? as usize),
                "--language" => options.language = Some(arguments.value()?),
                "--seconds" => options.seconds = Some(arguments.number()?),
                _ => options.url = arguments.only_url(&options.url)?,
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    support::arguments::run(HELP, Options::parse, |options| run(options).map(|()| ExitCode::SUCCESS))
}

fn run(options: Options) -> Result<(), Failure> {
    let is_demo = options.url.is_none();
    let url = match options.url {
        Some(url) => url,
        None => {
            let live = LiveHls::new();
            Demo::start(move |request| live.answer(request))?.url("/live.m3u8")
        }
    };
    let limit = Duration::from_secs(options.seconds.unwrap_or(if is_demo { 10 } else { u64::MAX }));
    let downloader = Downloader::new(DownloaderConfig::default())?;
    let hls = downloader.open_hls(&url, HlsConfig::new().language(options.language))?;
    let handle = hls.handle();
    if let Some(rendition) = options.rendition {
        handle.select_rendition(rendition)?;
    }
    describe(&handle);
    if options.lists { Ok(()) } else { play(hls, limit) }
}

/// Prints what there is to choose from. `*` marks what is played.
fn describe(handle: &HlsHandle) {
    let window = handle.seekable();
    println!("{:?}, seekable from {} to {}", handle.kind(), clock(window.start), clock(window.end));
    for (index, rendition) in handle.renditions().iter().enumerate() {
        let mark = if index == handle.rendition() { '*' } else { ' ' };
        let language = rendition.language.as_deref().unwrap_or("no language");
        println!("{mark} rendition {index}: {} ({language})", rendition.name);
    }
    for (index, level) in handle.levels().iter().enumerate() {
        println!("  level {index}: {} kbit/s {}", level.bandwidth / 1000, level.codecs.join(", "));
    }
}

/// Decodes section after section. Samples are counted, and waited for as a sound card would take them.
fn play(mut hls: Hls, limit: Duration) -> Result<(), Failure> {
    let handle = hls.handle();
    let events = handle.subscribe();
    let line = StatusLine::start({
        let handle = handle.clone();
        move |_| state(&handle)
    });
    let (began, mut heard) = (Instant::now(), Duration::ZERO);
    while let Some(section) = hls.next_section()? {
        let info = section.info().clone();
        line.print(&format!(
            "{}, {} Hz, from {} on: {:?}",
            info.codec,
            info.sample_rate,
            clock(info.start),
            info.discontinuity
        ));
        let mut decoding = Decoding::open(section)?;
        while let Some(samples) = decoding.samples()? {
            heard += samples;
            thread::sleep(heard.saturating_sub(began.elapsed()));
            while let Some(event) = events.try_recv() {
                describe_event(&event).into_iter().for_each(|text| line.print(&text));
            }
            if heard >= limit {
                line.print(&state(&handle));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The line at the bottom.
fn state(handle: &HlsHandle) -> String {
    let now = handle.progress();
    let level = now.level;
    let rate = handle.levels().get(level).map_or(0, |level| level.bandwidth / 1000);
    let latency = now.latency.map_or(String::new(), |latency| format!(", {} behind live", span(latency)));
    let (position, buffered) = (clock(now.stream.position), span(now.stream.buffered_ahead));
    format!("{position}  level {level} ({rate} kbit/s), {buffered} buffered{latency}")
}

fn describe_event(event: &HlsEvent) -> Option<String> {
    Some(match event {
        HlsEvent::Switched { from, to, at } => format!("level {to} instead of {from} from {} on", clock(*at)),
        HlsEvent::Replaced { from, to, at } => {
            format!("the segment at {} is fetched again at level {to} instead of {from}", clock(*at))
        }
        HlsEvent::Abandoned { level, at } => format!("level {level} is too slow at {}", clock(*at)),
        HlsEvent::Skipped { at, error, .. } => format!("the segment at {} is skipped: {error}", clock(*at)),
        HlsEvent::PlaylistFailed { error, .. } => format!("a playlist can't be loaded: {error}"),
        _ => return None,
    })
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
