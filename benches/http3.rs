//! HTTP/3 beside TLS over TCP, by the same code in the same run: round trips of opening and seeking, seeks of a stream, small
//! requests, a long body, a cancel, and what an idle connection costs.
//!
//! `cargo bench --features http3 --bench http3 -- [--rtt 60] [--seeks 100] [--mib 256] [--only bulk]`
//!
//! Servers and links run in the same process, so that CPU time is that of the calling thread and of `windway-quic`.

mod measure;

#[path = "../tests/support/h3/mod.rs"]
mod h3;

use std::io::{Read, Seek, SeekFrom};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h3::{Options, Pieces, Relay, Reply, Request, Server, data, head};
use measure::{Quantiles, report};
use support::link::{Link, LinkConfig};
use support::{Answer, Content, Origin};
use windway::config::Http3;
use windway::{ByteRange, ClientConfig, Downloader, DownloaderConfig, Fetch, Priority};

const LEN: u64 = 8 << 20;
const PIECE: usize = 64 * 1024;

/// One of the two protocols, with a link before its server.
struct Side {
    name: &'static str,
    downloader: Box<dyn Fn() -> Downloader>,
    url: String,
    /// Connections that the server has accepted.
    connections: Box<dyn Fn() -> usize>,
}

fn main() {
    let option = |name: &str, default: u64| {
        let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
        args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (rtt, seeks, mib) = (option("--rtt", 60), option("--seeks", 100), option("--mib", 256));
    let rtt = Duration::from_millis(rtt);
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1);
    let is_wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if is_wanted("latency") {
        with_sides(Some(rtt), |side| latency(side, rtt));
    }
    if is_wanted("seek") {
        with_sides(Some(rtt), |side| seek(side, seeks));
    }
    if is_wanted("small") {
        with_sides(None, small);
    }
    if is_wanted("bulk") {
        with_sides(None, |side| bulk(side, mib));
    }
    if is_wanted("cancel") {
        with_sides(None, cancel);
    }
    if is_wanted("idle") {
        idle();
    }
}

fn with_sides(rtt: Option<Duration>, mut measure: impl FnMut(&Side)) {
    let content = Content::pattern(LEN);
    let origin = Origin::start_tls(move |request| match request.path.as_str() {
        "/silent" => Answer::whole(&Content::pattern(LEN)).stall_after(100),
        "/small" => Answer::whole(&Content::pattern(1024)),
        path if path.starts_with("/bulk") => Answer::whole(&Content::pattern(path[5..].parse().unwrap_or(0))),
        _ => Answer::file(request, &content),
    });
    let root = origin.root_pem();
    let link = rtt.map(|rtt| Link::start(origin.address(), LinkConfig::with_rtt(rtt)));
    let address = link.as_ref().map_or(origin.address(), Link::address);
    let connections = Box::new(move || origin.log().connections);
    let downloader = move || start(ClientConfig::new().extra_roots([root.clone()]));
    let (name, url) = ("TLS over TCP", format!("https://{address}"));
    measure(&Side { name, downloader: Box::new(downloader), url, connections });
    drop(link);

    let server = serve();
    let relay = rtt.map(|rtt| Relay::start_with_rtt(server.address(), rtt));
    let url = relay.as_ref().map_or_else(|| server.url(""), |relay| relay.url(""));
    let (root, named) = (server.root_pem(), url.clone());
    let downloader = move || {
        let client = ClientConfig::new().extra_roots([root.clone()]);
        start(client.http3(Http3::Always(vec![named.clone()])))
    };
    let connections = Box::new(move || server.connections());
    measure(&Side { name: "HTTP/3", downloader: Box::new(downloader), url, connections });
}

fn start(client: ClientConfig) -> Downloader {
    Downloader::new(DownloaderConfig::new().client(client)).expect("a valid configuration")
}

/// A file server.
fn answer(request: &Request) -> Option<Pieces> {
    let path = request.path();
    let len = match path {
        "/silent" => return None,
        "/small" => 1024,
        _ => path.strip_prefix("/bulk").and_then(|len| len.parse().ok()).unwrap_or(LEN),
    };
    let range = request.field("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let Ok(first) = first.parse::<u64>() else {
            return Some((len - last.parse::<u64>().ok()?.min(len), len));
        };
        Some((first, last.parse().map_or(len, |last: u64| (last + 1).min(len))))
    });
    let (first, end) = range.unwrap_or((0, len));
    let (announced, part) = ((end - first).to_string(), format!("bytes {first}-{}/{len}", end - 1));
    let mut fields = vec![(":status", "206"), ("content-length", &announced), ("content-range", &part)];
    if range.is_none() {
        fields = vec![(":status", "200"), ("content-length", &announced)];
    }
    fields.extend([("etag", "\"1\""), ("accept-ranges", "bytes"), ("content-type", "audio/flac")]);
    let left = (end - first) as usize;
    if left < PIECE {
        return Some(Box::new(std::iter::once([head(&fields), data(&vec![0; left])].concat().into())));
    }
    let (whole, rest) = (Bytes::from(data(&vec![0; PIECE])), data(&vec![0; left % PIECE]));
    let wholes = std::iter::repeat_n(whole, left / PIECE);
    Some(Box::new(std::iter::once(head(&fields).into()).chain(wholes).chain([rest.into()])))
}

/// Sends 100 bytes of a longer body.
fn fall_silent(_: Request, reply: Reply) {
    let fields = [(":status", "200"), ("content-length", &LEN.to_string())];
    if reply.send([head(&fields), data(&[0; 100])].concat()).is_ok() {
        reply.await_stop();
    }
}

fn serve() -> Server {
    Server::start_with(Options { at_once: Some(Box::new(answer)), ..Options::default() }, fall_silent)
}

/// Cold open to the first 4 KiB, ten seeks, and a second opening by a downloader that has a ticket.
fn latency(side: &Side, rtt: Duration) {
    let in_rtts = |time: Duration| time.as_secs_f64() / rtt.as_secs_f64();
    let cold = (0..5).map(|_| {
        let downloader = (side.downloader)();
        let began = Instant::now();
        fetch(&downloader, &side.url, 0..4096);
        began.elapsed()
    });
    let cold = Quantiles::new(cold.collect());
    let downloader = (side.downloader)();
    fetch(&downloader, &side.url, 0..4096);
    let before = (side.connections)();
    let seeks = (1..=10).map(|number| {
        let began = Instant::now();
        fetch(&downloader, &side.url, number * 700_000..number * 700_000 + 4096);
        began.elapsed()
    });
    let seeks = Quantiles::new(seeks.collect());
    println!(
        "{:<14} cold open {:.2} RTT, requests p50 {:.2} max {:.2} RTT, {} more connections for ten",
        side.name,
        in_rtts(cold.at(0.5)),
        in_rtts(seeks.at(0.5)),
        in_rtts(seeks.at(1.0)),
        (side.connections)() - before,
    );
}

fn fetch(downloader: &Downloader, url: &str, range: std::ops::Range<u64>) {
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    let fetch =
        Fetch::get(&format!("{url}/file")).expect("a URL").range(ByteRange::new(range.start, range.end));
    let mut body = Vec::new();
    peer.execute(fetch).expect("a response").read_to_end(&mut body).expect("a body");
    assert_eq!(body.len() as u64, range.end - range.start);
}

/// Seeks of a stream, and then the whole file.
fn seek(side: &Side, seeks: u64) {
    let downloader = (side.downloader)();
    let began = Instant::now();
    let mut stream = downloader.open(&format!("{}/file.flac", side.url)).expect("a stream");
    let (mut buf, mut random) = (vec![0; 4096], 1_u64);
    for _ in 0..seeks {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        stream.seek(SeekFrom::Start((random >> 33) % (LEN - 4096))).expect("a seek");
        stream.read_exact(&mut buf).expect("bytes");
    }
    stream.seek(SeekFrom::Start(0)).expect("a seek");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the file");
    assert_eq!(all.len() as u64, LEN);
    let time = began.elapsed().as_secs_f64();
    println!(
        "{:<14} {seeks} seeks and the whole file {time:.2} s, {} connections",
        side.name,
        (side.connections)()
    );
}

fn small(side: &Side) {
    let downloader = (side.downloader)();
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    let url = format!("{}/small", side.url);
    let mut body = Vec::new();
    let quic = quic_cpu();
    let times = 10_000;
    report(&format!("{}: 1 KiB GET", side.name), times, || {
        body.clear();
        let response = peer.execute(Fetch::get(&url).expect("a URL"));
        response.expect("a response").read_to_end(&mut body).expect("a body");
    });
    println!(
        "{:<44} windway-quic {:?} a request",
        side.name,
        (quic_cpu() - quic) / (times + times / 10) as u32
    );
}

fn bulk(side: &Side, mib: u64) {
    let downloader = (side.downloader)();
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    let url = format!("{}/bulk{}", side.url, mib << 20);
    let mut buf = vec![0; PIECE];
    for _ in 0..3 {
        let (began, own, quic) = (Instant::now(), measure::thread_cpu(), quic_cpu());
        let mut response = peer.execute(Fetch::get(&url).expect("a URL")).expect("a response");
        let mut got = 0;
        loop {
            match response.read(&mut buf).expect("bytes") {
                0 => break,
                more => got += more as u64,
            }
        }
        assert_eq!(got, mib << 20);
        let (time, cpu) = (began.elapsed(), measure::thread_cpu() - own + (quic_cpu() - quic));
        let rate = got as f64 / time.as_secs_f64() / 1e6;
        println!(
            "{:<14} {mib} MiB: {rate:.0} MB/s, {:.2} ns of CPU a byte",
            side.name,
            cpu.as_nanos() as f64 / got as f64
        );
    }
}

/// From a cancel to the return of the blocked read.
fn cancel(side: &Side) {
    let downloader = (side.downloader)();
    let (mut times, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let peer = downloader.register((), Priority::High).expect("a running downloader");
        let epoch = peer.epoch();
        let fetch = Fetch::get(&format!("{}/silent", side.url)).expect("a URL").epoch(&epoch);
        let (ready, is_ready) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut response = peer.execute(fetch).expect("a response");
            response.read_exact(&mut [0; 100]).expect("bytes");
            ready.send(()).expect("a waiting test");
            response.read(&mut [0; 100]).expect_err("a cancelled read");
            Instant::now()
        });
        is_ready.recv().expect("a reader");
        // The reader blocks by then.
        thread::sleep(Duration::from_millis(2));
        let began = Instant::now();
        epoch.cancel();
        calls.push(began.elapsed());
        times.push(reader.join().expect("a reader") - began);
    }
    let (times, calls) = (Quantiles::new(times), Quantiles::new(calls));
    println!(
        "{:<14} cancel of a silent body p50 {:?}, p99 {:?}; the call p50 {:?}",
        side.name,
        times.at(0.5),
        times.at(0.99),
        calls.at(0.5)
    );
}

fn idle() {
    let server = serve();
    let client = ClientConfig::new().extra_roots([server.root_pem()]);
    let downloader = start(client.http3(Http3::Always(vec![server.url("")])));
    fetch(&downloader, &server.url(""), 0..10);
    // Delayed acknowledgements are over by then.
    thread::sleep(Duration::from_secs(1));
    let before = (quic_cpu(), quic_switches());
    thread::sleep(Duration::from_secs(5));
    let (cpu, switches) = (quic_cpu() - before.0, quic_switches() - before.1);
    println!("HTTP/3         idle for 5 s: windway-quic {cpu:?} of CPU, {switches} switches");
}

/// What `/proc` says about the threads `windway-quic`, in the given file.
fn of_quic(file: &str) -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let is_quic = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "windway-quic")
    };
    let paths = tasks.filter_map(|task| task.ok().map(|task| task.path()));
    paths
        .filter(|path| is_quic(path))
        .filter_map(|path| std::fs::read_to_string(path.join(file)).ok())
        .collect()
}

fn quic_cpu() -> Duration {
    let first = |stat: &String| stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
    Duration::from_nanos(of_quic("schedstat").iter().map(first).sum())
}

fn quic_switches() -> u64 {
    let switches = |status: &String| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    of_quic("status").iter().map(switches).sum()
}
