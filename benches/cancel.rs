//! Time from a cancel to the return of the blocked call, in each state of a fetch.
//!
//! `cargo bench --bench cancel`. From just before the cancel to just after the return, on the thread that was blocked.
//! The first rows are the limit: what the machine needs for a shutdown and a wake-up.

mod measure;

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use measure::Quantiles;
use support::peers::{Collect, List};
use support::{Answer, Content, Origin};
use windway::downloader::{Epoch, PeerHandle};
use windway::event::Event;
use windway::{Downloader, DownloaderConfig, Fetch, Priority};

const TIMES: usize = 300;

fn main() {
    for settle in [1, 5, 20].map(Duration::from_millis) {
        let name = format!("raw socket, in recv for {settle:?}");
        report(&name, (0..TIMES).map(|_| raw_socket(settle)).collect());
    }
    for tls in [false, true] {
        let name = if tls { "https" } else { "http " };
        print(
            &format!("{name}, waiting for the head"),
            |_| {},
            tls,
            |answer| answer.latency_until_released(),
        );
        print(&format!("{name}, in a silent body"), |_| {}, tls, |answer| answer.stall_after(1000));
    }
    print(
        "http , queued behind a silent one",
        |config| config.max_concurrent = 1,
        false,
        |answer| answer.latency_until_released(),
    );
    report("http , a stream in a silent body", reading());
    report("http , waiting to be tried again", (0..TIMES).map(|_| retrying()).collect());
    report("http , preempted", (0..TIMES / 3).map(|_| preempted()).collect());
    report("in the TLS handshake", (0..TIMES).map(|_| connecting("https")).collect());
    report(
        "in connect, to an address that swallows",
        (0..TIMES / 3).map(|_| connecting("black hole")).collect(),
    );
}

fn report(name: &str, times: Vec<Duration>) {
    let times = Quantiles::new(times);
    println!("{name:<44} p50 {:>9.1?}  p99 {:>9.1?}", times.at(0.5), times.at(0.99));
}

fn print(
    name: &str,
    change: impl Fn(&mut DownloaderConfig),
    tls: bool,
    how: impl Fn(Answer) -> Answer + Copy + Send + Sync + 'static,
) {
    let content = Content::pattern(100_000);
    let handler = move |request: &support::Request| how(Answer::file(request, &content));
    let origin = if tls { Origin::start_tls(handler) } else { Origin::start(handler) };
    let mut config = DownloaderConfig::default();
    if tls {
        config.client.extra_roots.push(origin.root_pem());
    }
    change(&mut config);
    let queues = config.max_concurrent == 1;
    let downloader = Downloader::new(config).expect("sound options");
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    let blocker = queues.then(|| {
        let (peer, url) = (peer.clone(), origin.url("/first"));
        let blocked = thread::spawn(move || drop(peer.execute(Fetch::get(&url).expect("an URL"))));
        origin.wait_until("the first request", |log| log.requests.len() == 1);
        blocked
    });
    let times = (0..TIMES).map(|_| executing(&peer, &origin, queues)).collect();
    report(name, times);
    origin.release();
    drop(peer);
    downloader.stop();
    if let Some(blocker) = blocker {
        blocker.join().expect("no panic");
    }
}

/// The least that a cancel of a blocked socket costs on this machine: `shutdown`, and the wake-up of the thread that has
/// blocked in `recv` for `settle`. A processor that was idle for longer takes longer to wake up.
fn raw_socket(settle: Duration) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let socket = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let mut reader = socket.try_clone().expect("a second handle");
    let blocked = thread::spawn(move || {
        assert_eq!(reader.read(&mut [0]).expect("an end"), 0, "it was shut down");
        Instant::now()
    });
    thread::sleep(settle);
    let cancelled = Instant::now();
    socket.shutdown(Shutdown::Both).expect("a shutdown");
    blocked.join().expect("no panic") - cancelled
}

/// A caller of `execute`, or the reader of its body: `queued` for a worker, or when the server has sent what it sends.
fn executing(peer: &PeerHandle, origin: &Origin, queued: bool) -> Duration {
    let epoch = peer.epoch();
    let (events, before) = (peer.subscribe(), origin.log());
    let blocked = caller(peer, Fetch::get(&origin.url("/a")).expect("an URL").epoch(&epoch));
    if queued {
        while !matches!(events.recv(), Some(Event::Enqueued { .. })) {}
    } else {
        origin.wait_until("the request", |log| {
            log.requests.len() > before.requests.len() && (log.sent >= before.sent + 1000 || log.sent == 0)
        });
    }
    cancel(&epoch, blocked, Duration::from_millis(1))
}

/// The time from a cancel to the end of what is `blocked`, which has `settle` to block after its last event.
fn cancel(epoch: &Epoch, blocked: JoinHandle<Instant>, settle: Duration) -> Duration {
    // Nothing shows that a thread is blocked: its last event comes shortly before.
    thread::sleep(settle);
    let cancelled = Instant::now();
    epoch.cancel();
    blocked.join().expect("no panic") - cancelled
}

/// Executes `fetch` and reads its body, on a thread of its own. Returns when that failed.
fn caller(peer: &PeerHandle, fetch: Fetch) -> JoinHandle<Instant> {
    let peer = peer.clone();
    thread::spawn(move || {
        let read = peer.execute(fetch).map(|mut body| body.read_to_end(&mut Vec::new()));
        assert!(read.is_err() || read.is_ok_and(|read| read.is_err()), "it was cancelled");
        Instant::now()
    })
}

/// The reader of a stream, whose opening and suffix request both wait for a silent server.
fn reading() -> Vec<Duration> {
    let content = Content::pattern(8 << 20);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(1000));
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let times = (0..TIMES).map(|_| {
        let mut stream = downloader.open(&origin.url("/a")).expect("the first bytes");
        let handle = stream.handle();
        stream.read_exact(&mut [0; 1000]).expect("what was sent");
        let blocked = thread::spawn(move || {
            assert!(stream.read(&mut [0]).is_err(), "it was cancelled");
            Instant::now()
        });
        // Until it is blocked, and its last requests are answered.
        thread::sleep(Duration::from_millis(20));
        let cancelled = Instant::now();
        handle.cancel();
        blocked.join().expect("no panic") - cancelled
    });
    times.collect()
}

/// A fetch that waits for its next attempt and occupies no worker.
fn retrying() -> Duration {
    let origin = Origin::start(|_| Answer::status(503).header("Retry-After", "30"));
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    let (events, epoch) = (peer.subscribe(), peer.epoch());
    let fetch = Fetch::get(&origin.url("/a")).expect("an URL").epoch(&epoch);
    let blocked = caller(&peer, fetch);
    while !matches!(events.recv(), Some(Event::Retrying { .. })) {}
    cancel(&epoch, blocked, Duration::from_millis(1))
}

/// A prefetch that was preempted by an urgent fetch, up to `finish` of its sink.
fn preempted() -> Duration {
    let content = Content::pattern(8 << 20);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/prefetch" => Answer::file(request, &content).rate(1_000_000),
        _ => Answer::file(request, &content).latency_until_released(),
    });
    let mut config = DownloaderConfig::default();
    config.max_concurrent = 1;
    let downloader = Downloader::new(config).expect("sound options");
    let list = List::default();
    let prefetching = downloader.register(list.clone(), Priority::High).expect("a running downloader");
    let (events, epoch) = (prefetching.subscribe(), prefetching.epoch());
    let (ends, end) = mpsc::channel();
    list.put(Fetch::get(&origin.url("/prefetch")).expect("an URL").epoch(&epoch), Collect::new(0, &ends));
    prefetching.wake(Priority::Low);
    while !matches!(events.recv(), Some(Event::FirstByte { .. })) {}
    let urgent = downloader.register((), Priority::High).expect("a running downloader");
    let url = origin.url("/urgent");
    let blocked = thread::spawn(move || drop(urgent.execute(Fetch::get(&url).expect("an URL"))));
    while !matches!(events.recv(), Some(Event::Preempted { .. })) {}
    let cancelled = Instant::now();
    epoch.cancel();
    end.recv().expect("an end");
    let took = cancelled.elapsed();
    origin.release();
    downloader.stop();
    blocked.join().expect("no panic");
    took
}

/// In connect or in the handshake: an address that drops packets, or a listener that does not accept.
fn connecting(how: &str) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // TEST-NET-1 (RFC 5737): packets to it are dropped by most routers, and by hosts without a route at once.
    let url = if how == "https" { format!("https://{address}/a") } else { "http://192.0.2.1/a".into() };
    let mut config = DownloaderConfig::default();
    config.max_retries = u32::MAX;
    let downloader = Downloader::new(config).expect("sound options");
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    let (events, epoch) = (peer.subscribe(), peer.epoch());
    let fetch = Fetch::get(&url).expect("an URL").epoch(&epoch);
    let blocked = caller(&peer, fetch);
    while !matches!(events.recv(), Some(Event::Started { .. })) {}
    cancel(&epoch, blocked, Duration::from_millis(5))
}
