//! Reading a whole file in sequence over a slow link, from the opening on, beside one GET by plain ureq.
//!
//! `cargo bench --bench cold -- [--mib 4,64] [--mbit 10,100,1000] [--rtt 10,40,100] [--times 5] [--whole]`
//!
//! Both start without a connection. The link has slow start and a bounded queue (`tests/support/link.rs`). The aim is 0.95 of the
//! speed of the GET for 64 MiB, and 0.90 for 4 MiB. `--whole` prefetches without a limit. Without arguments, 64 MiB over 10 Mbit/s
//! is left out, because it takes a minute each time. `RUST_LOG=windway=debug` shows the requests.

mod measure;

use std::io::Read;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use measure::Quantiles;
use support::link::{Link, LinkConfig};
use support::{Answer, Content, Origin, Request};
use windway::config::ReadAhead;
use windway::{Downloader, DownloaderConfig, FileConfig};

const MIB: u64 = 1 << 20;

struct Options {
    mib: Vec<u64>,
    mbit: Vec<u64>,
    rtt: Vec<u64>,
    times: usize,
    is_whole: bool,
    leaves_out: bool,
}

fn main() -> ExitCode {
    env_logger::init();
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("cold: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut missed = 0;
    for mib in &options.mib {
        for mbit in options.mbit.iter().filter(|mbit| !(options.leaves_out && *mib >= 64 && **mbit <= 10)) {
            for rtt in &options.rtt {
                missed += usize::from(!compare(&options, *mib, *mbit, *rtt));
            }
        }
    }
    println!("{missed} below their aim");
    ExitCode::SUCCESS
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        mib: vec![4, 64],
        mbit: vec![10, 100, 1000],
        rtt: vec![10, 40, 100],
        times: 5,
        is_whole: false,
        leaves_out: true,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut list = || {
            let text = args.next().ok_or_else(|| format!("{arg} needs a list"))?;
            let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
            text.split(',').map(number).collect::<Result<Vec<u64>, String>>()
        };
        match arg.as_str() {
            // cargo passes this argument to benches.
            "--bench" => continue,
            "--mib" => options.mib = list()?,
            "--mbit" => options.mbit = list()?,
            "--rtt" => options.rtt = list()?,
            "--times" => options.times = list()?[0].max(1) as usize,
            "--whole" => options.is_whole = true,
            other => return Err(format!("unknown: {other}")),
        }
        options.leaves_out = false;
    }
    Ok(options)
}

/// Prints a row. False if the aim was missed.
fn compare(options: &Options, mib: u64, mbit: u64, rtt: u64) -> bool {
    let len = mib * MIB;
    let config = LinkConfig::with_rate(Duration::from_millis(rtt), mbit as f64);
    let content = Content::pattern(len);
    let (mut ours, mut theirs, mut cost) = (Vec::new(), Vec::new(), (0, 0));
    for _ in 0..options.times {
        let served = content.clone();
        let origin = Origin::start(move |request: &Request| Answer::file(request, &served));
        let link = Link::start(origin.address(), config);
        ours.push(by_windway(&link, len, options.is_whole));
        let log = origin.log();
        cost = (log.requests.len() + log.suffixes.len(), link.connections());
        theirs.push(by_ureq(&link, len));
    }
    let (ours, theirs) = (Quantiles::new(ours).at(0.5), Quantiles::new(theirs).at(0.5));
    let ratio = theirs.div_duration_f64(ours);
    let is_met = ratio >= if mib >= 64 { 0.95 } else { 0.90 };
    println!(
        "{mib:>3} MiB {mbit:>5} Mbit/s rtt {rtt:>3} ms  windway {ours:>8.0?}  ureq {theirs:>8.0?}  ratio {ratio:.2}  \
         {requests:>3} requests {connections:>2} connections  {verdict}",
        requests = cost.0,
        connections = cost.1,
        verdict = if is_met { "" } else { "BELOW" },
    );
    is_met
}

fn by_windway(link: &Link, len: u64, is_whole: bool) -> Duration {
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let config = FileConfig::default();
    let config = if is_whole { config.read_ahead(ReadAhead::Whole) } else { config };
    let began = Instant::now();
    let stream = downloader.open_with(&link.url("/a"), config).expect("a stream");
    read_all(stream, len);
    began.elapsed()
}

fn by_ureq(link: &Link, len: u64) -> Duration {
    let began = Instant::now();
    let agent = ureq::Agent::new_with_defaults();
    let mut response = agent.get(link.url("/a")).call().expect("an answer");
    read_all(response.body_mut().with_config().limit(u64::MAX).reader(), len);
    began.elapsed()
}

fn read_all(mut from: impl Read, len: u64) {
    let mut buf = vec![0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let got = from.read(&mut buf).expect("bytes");
        assert_ne!(got, 0, "the file ended {left} bytes too early");
        left -= got as u64;
    }
}
