//! Time from an opening, and from a seek, to the first packet of symphonia, compared with the same file on disk.
//!
//! `cargo bench --bench first_sample -- [--rtt 0,20,40,80] [--minutes 4,60] [--cover no,yes] [--times 3] [--reads] [kinds..]`
//!
//! Without arguments: RTT 40 ms, 4 minutes, with and without a cover. Kinds are parts of names, as in the table. `--reads`
//! prints what symphonia reads, instead. `RUST_LOG=windway=debug` shows the requests. The link has no limit of its rate, but slow start: the first flight of a connection
//! is 10 segments, and each flight doubles.
//!
//! The target of an opening is (2 + d + f) RTT + 10 ms, that of a seek one round trip less, since a connection is ready:
//! d round trips depend on an answer before them, even if all that can be computed from known bytes is fetched in parallel; f
//! flights follow the first until the longest range that symphonia reads has arrived. d of a seek that bisects is counted from the
//! places that symphonia reads on disk (`reads.rs`).

#[path = "first_sample/files.rs"]
mod files;
#[path = "first_sample/flac.rs"]
mod flac;
mod measure;
#[path = "first_sample/picture.rs"]
mod picture;
#[path = "first_sample/reads.rs"]
mod reads;

use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use files::{Files, KINDS, Kind, Seek};
use measure::Quantiles;
use reads::{Reads, Recorder, flights};
use support::decoding::Source;
use support::link::{Link, LinkConfig};
use support::{Answer, Content, Origin, Request};
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::units::Time;
use windway::config::ReadAhead;
use windway::{Downloader, DownloaderConfig, FileConfig};

/// Small enough that the target of the seek is not stored before the seek.
const READ_AHEAD: u64 = 1 << 20;

/// Target of the seek, as a fraction of the duration.
const SEEK: f64 = 0.6;

/// Time that does not depend on the network.
const SPARE: Duration = Duration::from_millis(10);

struct Options {
    rtts: Vec<Duration>,
    minutes: Vec<u32>,
    covers: Vec<bool>,
    times: usize,
    reads: bool,
    kinds: Vec<String>,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Run {
    time: Duration,
    requests: usize,
    connections: usize,
    fetched: u64,
}

/// Bytes that have to be read, and the least cost of that.
struct Task<'a> {
    what: &'a str,
    reads: &'a Reads,
    on_disk: Duration,
    /// Round trips before the first byte can arrive.
    trips: u32,
    /// Dependent round trips after that.
    dependent: u32,
    /// Flights that follow the first one.
    flights: u32,
}

fn main() -> ExitCode {
    env_logger::init();
    let options = match options() {
        Ok(options) => options,
        Err(error) => return fail(&error),
    };
    let files = match Files::new() {
        Ok(files) => files,
        Err(error) => return fail(&error),
    };
    let mut missed = 0;
    for minutes in &options.minutes {
        for kind in KINDS.iter().filter(|kind| options.wants(kind)) {
            for has_cover in options.covers.iter().filter(|has_cover| !**has_cover || kind.has_cover()) {
                let path = match files.get(kind, *minutes, *has_cover) {
                    Ok(path) => path,
                    Err(error) => return fail(&error),
                };
                missed += compare(&options, kind, *minutes, &path);
            }
        }
    }
    println!("{missed} over their target");
    ExitCode::SUCCESS
}

fn fail(error: &str) -> ExitCode {
    eprintln!("first_sample: {error}");
    ExitCode::FAILURE
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        rtts: vec![Duration::from_millis(40)],
        minutes: vec![4],
        covers: vec![false, true],
        times: 3,
        reads: false,
        kinds: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut list = || args.next().ok_or_else(|| format!("{arg} needs a list"));
        let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
        match arg.as_str() {
            // cargo passes this argument to benches.
            "--bench" => {}
            "--rtt" => {
                let rtts: Result<Vec<u32>, String> = list()?.split(',').map(number).collect();
                options.rtts = rtts?.into_iter().map(|ms| Duration::from_millis(ms.into())).collect();
            }
            "--minutes" => options.minutes = list()?.split(',').map(number).collect::<Result<_, _>>()?,
            "--cover" => options.covers = list()?.split(',').map(|word| word == "yes").collect(),
            "--times" => options.times = number(&list()?)?.max(1) as usize,
            "--reads" => options.reads = true,
            kind => options.kinds.push(kind.to_owned()),
        }
    }
    Ok(options)
}

impl Options {
    fn wants(&self, kind: &Kind) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|name| kind.name.contains(name.as_str()))
    }
}

/// Opens a file with symphonia, and seeks in it.
struct Decoder<'s>(Box<dyn FormatReader + 's>);

impl<'s> Decoder<'s> {
    fn open(source: Box<dyn MediaSource + 's>, extension: &str) -> Self {
        let source = MediaSourceStream::new(source, Default::default());
        let mut hint = Hint::new();
        hint.with_extension(extension);
        let probe = symphonia::default::get_probe();
        let format = probe.probe(&hint, source, Default::default(), Default::default()).expect("a format");
        let mut decoder = Self(format);
        decoder.packet();
        decoder
    }

    fn packet(&mut self) {
        assert!(self.0.next_packet().expect("a packet").is_some(), "the file ended");
    }

    /// Coarse, as players seek: an accurate seek in MPEG audio reads the whole file up to the target.
    fn seek(&mut self, minutes: u32) {
        let seconds = f64::from(60 * minutes) * SEEK;
        let time = Time::try_from_secs_f64(seconds).expect("a time");
        let track_id = self.0.default_track(TrackType::Audio).map(|track| track.id);
        self.0.seek(SeekMode::Coarse, SeekTo::Time { time, track_id }).expect("a seek");
        self.packet();
    }
}

/// Measures one file over all round trips. Returns the number of missed targets.
fn compare(options: &Options, kind: &Kind, minutes: u32, path: &Path) -> usize {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let recorder = Recorder::new(path);
    let reads = recorder.reads();
    let mut decoder = Decoder::open(Box::new(recorder), extension);
    let opening = reads.take();
    decoder.seek(minutes);
    let seeking = reads.take();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    if options.reads {
        println!("{name} of {} bytes\n  opens  {opening}\n  seeks  {seeking}", opening.len());
        return 0;
    }
    let on_disk: Vec<[Duration; 2]> = (0..options.times).map(|_| on_disk(path, extension, minutes)).collect();
    let seeking = seeking.without(&opening);
    let direct = |reads: &Reads| flights(reads.longest());
    let (steps, seek_flights) = match kind.seek {
        Seek::Bisects => seeking.bisection(),
        Seek::Direct => (0, direct(&seeking)),
    };
    let median = |index: usize| Quantiles::new(on_disk.iter().map(|times| times[index]).collect()).at(0.5);
    let tasks = [
        Task {
            what: "open",
            reads: &opening,
            on_disk: median(0),
            trips: 2,
            dependent: kind.dependent,
            flights: direct(&opening),
        },
        Task {
            what: "seek",
            reads: &seeking,
            on_disk: median(1),
            trips: 1,
            dependent: steps,
            flights: seek_flights,
        },
    ];
    let content = Content::bytes(fs::read(path).expect("a file that was just made"));
    let mut missed = 0;
    for rtt in &options.rtts {
        let runs: Vec<[Run; 2]> =
            (0..options.times).map(|_| over(&content, *rtt, extension, minutes)).collect();
        for (index, task) in tasks.iter().enumerate() {
            let runs = runs.iter().map(|runs| runs[index]).collect();
            missed += usize::from(!print(&name, *rtt, task, runs));
        }
    }
    missed
}

fn on_disk(path: &Path, extension: &str, minutes: u32) -> [Duration; 2] {
    let file = File::open(path).expect("a file that was just made");
    let began = Instant::now();
    let mut decoder = Decoder::open(Box::new(file), extension);
    let opened = began.elapsed();
    let began = Instant::now();
    decoder.seek(minutes);
    [opened, began.elapsed()]
}

fn over(content: &Content, rtt: Duration, extension: &str, minutes: u32) -> [Run; 2] {
    let served = content.clone();
    let origin = Origin::start(move |request: &Request| Answer::file(request, &served));
    let link = Link::start(origin.address(), LinkConfig::with_rtt(rtt));
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let so_far = |began: Instant| {
        let log = origin.log();
        Run {
            time: began.elapsed(),
            requests: log.requests.len() + log.suffixes.len(),
            connections: link.connections(),
            fetched: link.delivered(),
        }
    };
    let began = Instant::now();
    let config = FileConfig::default().read_ahead(ReadAhead::Bytes(READ_AHEAD));
    let stream = downloader.open_with(&link.url(&format!("/a.{extension}")), config).expect("a stream");
    let mut decoder = Decoder::open(Box::new(Source { stream, most: usize::MAX }), extension);
    let opened = so_far(began);
    // Waits until prefetching has ended and the preconnected connection is open.
    thread::sleep(12 * rtt + Duration::from_millis(50));
    let began = Instant::now();
    let before = so_far(began);
    decoder.seek(minutes);
    [opened, so_far(began).since(before)]
}

impl Run {
    fn since(self, before: Self) -> Self {
        Self {
            time: self.time,
            requests: self.requests - before.requests,
            connections: self.connections - before.connections,
            fetched: self.fetched - before.fetched,
        }
    }
}

/// Prints a row. False if the target was missed.
fn print(name: &str, rtt: Duration, task: &Task<'_>, mut runs: Vec<Run>) -> bool {
    runs.sort_by_key(|run| run.time);
    let Run { time, requests, connections, fetched } = runs[(runs.len() - 1) / 2];
    let late = time.saturating_sub(task.on_disk);
    let target = rtt * (task.trips + task.dependent + task.flights) + SPARE;
    let is_met = late <= target;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let trips = if rtt.is_zero() { 0.0 } else { late.div_duration_f64(rtt) };
    println!(
        "{name:<26} rtt {rtt:>5.0?}  {what}  late {late:>6.0} ms  target {target:>5.0}  d {d} f {flights}  {trips:>5.2} RTT  \
         {requests:>3} requests {connections:>2} connections  {fetched:>8.1} kB for {read:>7.1}  {verdict}",
        what = task.what,
        late = ms(late),
        target = ms(target),
        d = task.dependent,
        flights = task.flights,
        fetched = fetched as f64 / 1e3,
        read = task.reads.bytes() as f64 / 1e3,
        verdict = if is_met { "" } else { "OVER" },
    );
    is_met
}
