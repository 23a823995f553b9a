//! Draws the requests of a session: a line for each, from the queue to its end, and what was buffered. See `--help`.

mod drawing;
mod recording;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Seek, SeekFrom};
use std::process::ExitCode;
use std::time::Duration;

use recording::{Recorder, Recording};
use support::arguments::Arguments;
use support::demo::{Demo, LiveHls, Reply};
use windway::config::{ReadAhead, StorageConfig};
use windway::{Downloader, DownloaderConfig, FileConfig, Media, Stream};

type Failure = Box<dyn std::error::Error>;

const HELP: &str = "\
Draws the requests of a session, as a picture and as text: when each was queued, answered, preempted, retried and complete, how many
bytes it brought, and how much was buffered meanwhile.

    cargo run --release --example waterfall -- [URL] [--out FILE.svg]
    cargo run --release --features hls --example waterfall -- --hls

URL    a file: it is read at the start, in the middle and near the end; with the feature hls also an HLS playlist, which is
       played for eight seconds
--hls  a live HLS stream of a server on this machine (feature hls)
--out  the file of the picture; waterfall.svg if not given

Without a URL it starts a server on this machine: 40 ms away, 2 MB/s for each response, and every ninth response breaks. Three other files
are downloaded meanwhile. There are only three workers, so that prefetches are preempted.

Exit code: 0 if the session could be drawn, 1 if not, 2 for wrong arguments.";

const RTT: Duration = Duration::from_millis(40);

static FILE: [u8; 12_000_000] = [0x77; 12_000_000];

struct Options {
    url: Option<String>,
    out: String,
    is_hls: bool,
}

impl Options {
    fn parse(mut arguments: Arguments) -> Result<Self, String> {
        let mut options = Self { url: None, out: "waterfall.svg".into(), is_hls: false };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--hls" if cfg!(feature = "hls") => options.is_hls = true,
                "--hls" => return Err("--hls needs --features hls".into()),
                "--out" => options.out = arguments.value()?,
                _ => options.url = arguments.only_url(&options.url)?,
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    support::arguments::run(HELP, Options::parse, draw)
}

fn draw(Options { url, out, is_hls }: Options) -> Result<ExitCode, Failure> {
    let recording = session(url, is_hls)?;
    print!("{}", drawing::text(&recording));
    std::fs::write(&out, drawing::svg(&recording))
        .map_err(|error| format!("{out} can't be written: {error}"))?;
    println!("the picture: {out}");
    Ok(ExitCode::SUCCESS)
}

fn session(url: Option<String>, is_hls: bool) -> Result<Recording, Failure> {
    let is_demo = url.is_none();
    let url = match url {
        Some(url) => url,
        None if is_hls => {
            let live = LiveHls::new();
            let demo = Demo::start(move |request| live.answer(request).delay(RTT).rate(60_000))?;
            demo.url("/live.m3u8")
        }
        None => demo()?.url("/episode.wav"),
    };
    let mut config = DownloaderConfig::default();
    if is_demo && !is_hls {
        // Prefetches use all workers, so that urgent work has to preempt them.
        (config.max_concurrent, config.reserved) = (3, 0);
    }
    let downloader = Downloader::new(config)?;
    let recorder = Recorder::start(&downloader, &url);
    let played = match downloader.open_any(&url)? {
        Media::File(stream) => read_file(&downloader, stream, &recorder, is_demo),
        #[cfg(feature = "hls")]
        Media::Hls(hls) => play_hls(hls, &recorder),
        other => Err(format!("only files and HLS can be drawn, and not {other:?}").into()),
    };
    downloader.stop();
    drop(downloader);
    // Also what failed is worth a picture.
    if let Err(error) = played {
        eprintln!("{error}");
    }
    recorder.finish()
}

/// 40 ms away, and each response at 2 MB/s. Every ninth response breaks.
fn demo() -> std::io::Result<Demo> {
    Demo::start(|request| {
        let reply = Reply::file(request, &FILE, "audio/wav").delay(RTT).rate(2_000_000);
        if request.number % 9 == 8 { reply.break_after(40_000) } else { reply }
    })
}

fn read_file(
    downloader: &Downloader,
    mut stream: Stream,
    recorder: &Recorder,
    is_demo: bool,
) -> Result<(), Failure> {
    let handle = stream.handle();
    recorder.sample(move || handle.buffered_ahead() as f64 / 1e6, "MB buffered ahead of the reader");
    // Downloads of other files, which need no reader.
    let url = stream.url().filter(|_| is_demo).map(|url| url.expose().to_owned());
    let others =
        url.iter().flat_map(|url| ["first", "second", "third"].map(|name| url.replace("episode", name)));
    let config = || FileConfig::new().read_ahead(ReadAhead::Whole).storage(StorageConfig::WholeMemory);
    let _others: Vec<Stream> =
        others.map(|url| downloader.open_later(&url, config())).collect::<Result<_, _>>()?;
    recorder.mark("reads the start");
    read_for(&mut stream, 600_000)?;
    let len = stream.len().unwrap_or(0);
    stream.seek(SeekFrom::Start(len / 2))?;
    recorder.mark("seeks to the middle");
    read_for(&mut stream, 300_000)?;
    stream.seek(SeekFrom::Start(len.saturating_sub(100_000)))?;
    recorder.mark("seeks near the end");
    read_for(&mut stream, 100_000)?;
    recorder.mark("is at the end");
    Ok(())
}

/// Reads so many bytes, or to the end, at 800 kB/s.
fn read_for(stream: &mut Stream, bytes: usize) -> std::io::Result<()> {
    let (mut buf, mut left) = ([0; 16_000], bytes);
    while left > 0 {
        let got = stream.read(&mut buf)?;
        if got == 0 {
            break;
        }
        left = left.saturating_sub(got);
        std::thread::sleep(Duration::from_secs_f64(got as f64 / 800_000.0));
    }
    Ok(())
}

/// Reads sections at the speed at which they would be heard.
#[cfg(feature = "hls")]
fn play_hls(mut hls: windway::hls::Hls, recorder: &Recorder) -> Result<(), Failure> {
    let handle = hls.handle();
    recorder.sample(
        {
            let handle = handle.clone();
            move || handle.buffered().as_secs_f64()
        },
        "seconds buffered",
    );
    recorder.mark("plays");
    let (began, start) = (std::time::Instant::now(), handle.position());
    while let Some(mut section) = hls.next_section()? {
        let mut buf = [0; 2048];
        while section.read(&mut buf)? > 0 {
            std::thread::sleep(handle.position().saturating_sub(start).saturating_sub(began.elapsed()));
            if began.elapsed() > Duration::from_secs(8) {
                recorder.mark("stops");
                return Ok(());
            }
        }
    }
    Ok(())
}
