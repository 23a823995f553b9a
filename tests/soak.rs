//! Readers with random seeks against servers that misbehave at random, for ten minutes: plain HTTP, TLS through a CONNECT proxy, and
//! a load balancer whose servers send different entity tags for the same bytes. Meanwhile prefetches age beside urgent fetches, and
//! the network changes, so that connections die silently.
//!
//! `cargo test --release --test soak -- --ignored --nocapture`. `WINDWAY_SEED` repeats a run, `WINDWAY_SECONDS` shortens it.

use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::content::assert_pattern;
use support::dice::Dice;
use support::proxy::Proxy;
use support::{Answer, Content, Origin, Request};
use windway::config::{ReadAhead, StorageConfig};
use windway::downloader::{Next, Outcome, Peer, Sink};
use windway::{
    ByteRange, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority, Stream,
};

const LEN: u64 = 40_000_000;

/// Longest time of a read: its own timeout and those of one attempt together.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(10);

/// Number of times that threads are counted and the network changes.
const LOOKS: u32 = 20;

fn misbehave(request: &Request, content: &Content, dice: &mut Dice) -> Answer {
    let good = Answer::file(request, content);
    let bytes = dice.roll(300_000);
    match dice.roll(40) {
        0 => good.close_after(bytes),
        1 => good.reset_after(bytes),
        2 => good.stall_after(bytes),
        3 => good.close_in_head(dice.roll(60) as usize),
        4 => good.reset_in_head(dice.roll(60) as usize),
        5 => good.stall_in_head(dice.roll(60) as usize),
        6 => good.split_head(1 + dice.roll(30) as usize),
        7 => Answer::status([408, 429, 500, 502, 503, 504][dice.roll(6) as usize]),
        8 => Answer::status(503).header("Retry-After", "1"),
        9 => good.chunked(),
        10 => good.cut_chunk_after(bytes),
        11 => good.extra_bytes(7),
        12 => good.close_when_idle(),
        13 => good.latency(Duration::from_millis(dice.roll(300))),
        14 => good.rate(200_000 + dice.roll(2_000_000)),
        15 => good.interim(103),
        16 => good.http10(),
        17 => Answer::whole(content).header("ETag", &content.etag()).close_after(bytes),
        18 => good.header("Content-Range", "bytes 278076-278075/278076"),
        19 => good.header("Content-Range", "bytes 5-10/40000000"),
        20 => Answer::whole(&Content::bytes(&b"<html><body>sorry</body></html>"[..])).with_status(502),
        _ => good,
    }
}

struct Figures {
    reads: AtomicU64,
    bytes: AtomicU64,
    seeks: AtomicU64,
    errors: AtomicU64,
    reopened: AtomicU64,
}

fn random_config(dice: &mut Dice) -> FileConfig {
    let mut config = FileConfig::default();
    config.read_timeout = Some(READ_TIMEOUT);
    config.behind = 100_000;
    config.read_ahead = [ReadAhead::Bytes(300_000), ReadAhead::Bytes(4 << 20)][dice.roll(2) as usize];
    config.storage = if dice.roll(2) == 0 { StorageConfig::Memory } else { StorageConfig::TempFile(None) };
    config
}

/// Reads and seeks until `over`. Panics at a wrong byte, or a read that takes too long.
fn read_on(downloader: &Downloader, url: &str, mut dice: Dice, over: &AtomicBool, figures: &Figures) {
    let mut buf = vec![0; 64 * 1024];
    let (mut stream, mut events): (Option<Stream>, _) = (None, None);
    while !over.load(Ordering::Relaxed) {
        let Some(open) = stream.as_mut() else {
            figures.reopened.fetch_add(1, Ordering::Relaxed);
            stream = downloader.open_with(url, random_config(&mut dice)).ok();
            events = stream.as_ref().map(|stream| stream.handle().subscribe());
            continue;
        };
        // As a player that works on the bytes.
        thread::sleep(Duration::from_micros(dice.roll(1000)));
        if dice.roll(2000) == 0 {
            stream = None;
            continue;
        }
        if dice.roll(20) == 0 {
            let target = dice.roll(LEN + 1000);
            open.seek(SeekFrom::Start(target)).expect("a seek within u64");
            figures.seeks.fetch_add(1, Ordering::Relaxed);
        }
        let position = open.stream_position().expect("a position");
        let len = 1 + dice.roll(buf.len() as u64) as usize;
        let began = Instant::now();
        let result = open.read(&mut buf[..len]);
        let took = began.elapsed();
        // A server that answered the first range with the whole file is read sequentially, which has no time limit.
        let is_in_time = took < READ_TIMEOUT + SLACK || !open.is_seekable();
        if !is_in_time {
            let handle = open.handle();
            let events: Vec<_> = std::iter::from_fn(|| events.as_ref()?.try_recv()).collect();
            let last = &events[events.len().saturating_sub(60)..];
            panic!(
                "a read at {position} took {took:?}, {:?}, {:?}, {:?}; the last events: {last:#?}",
                handle.phase(),
                handle.stats(),
                handle.buffered()
            );
        }
        figures.reads.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(0) => {
                assert!(position >= LEN, "an end at {position}");
                open.seek(SeekFrom::Start(dice.roll(LEN))).expect("a seek within u64");
            }
            Ok(got) => {
                assert_pattern(position, &buf[..got]);
                figures.bytes.fetch_add(got as u64, Ordering::Relaxed);
            }
            Err(error) => {
                figures.errors.fetch_add(1, Ordering::Relaxed);
                let error = Error::from(error);
                // Wrong responses of the server are typed errors. After an error that may pass the read is repeated.
                if !error.is_retryable() && error.kind() != ErrorKind::TimedOut || dice.roll(10) == 0 {
                    stream = None;
                }
            }
        }
    }
}

/// Number of windway's threads, and of open descriptors and resident KiB of this process.
fn census() -> [u64; 3] {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, |entries| entries.count() as u64);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let threads = names.filter(|name| name.starts_with("windway")).count() as u64;
    [threads, count("/proc/self/fd"), pages * 4]
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A server that misbehaves at random, deterministic for a seed.
fn random_server(seed: u64) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let content = Content::pattern(LEN);
    move |request| {
        let mut dice = Dice(seed ^ (request.number as u64).wrapping_mul(0x5851_f42d_4c95_7f2d));
        misbehave(request, &content, &mut dice)
    }
}

/// Two servers behind one address: the same bytes and date, but each sends an entity tag of its own. An `If-Range` with the tag of
/// the other server gets the whole file (RFC 9110, section 13.1.5).
fn balancer(seed: u64) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let content = Content::pattern(LEN);
    move |request| {
        let mut dice = Dice(seed ^ (request.number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let tag = if request.connection % 2 == 0 { "\"one\"" } else { "\"two\"" };
        let is_other = request.header("if-range").is_some_and(|wanted| wanted != tag);
        let answer = if is_other { Answer::whole(&content) } else { Answer::file(request, &content) };
        let answer = answer.header("ETag", tag).header("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT");
        if dice.roll(20) == 0 { answer.close_after(dice.roll(300_000)) } else { answer }
    }
}

/// Always has another prefetch, of a body that takes seconds, so that waiting prefetches age.
struct Prefetching {
    urls: Vec<String>,
    next: usize,
    ends: mpsc::Sender<Outcome>,
}

struct Discard {
    at: u64,
    ends: mpsc::Sender<Outcome>,
}

impl Peer for Prefetching {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        if admissible == Priority::High {
            return Next::Wait;
        }
        let url = &self.urls[self.next % self.urls.len()];
        self.next += 1;
        let start = (self.next as u64 * 1_000_003) % (LEN - 1_000_000);
        let fetch = Fetch::get(url).expect("a sound URL").range(ByteRange::new(start, start + 1_000_000));
        Next::fetch(fetch, Box::new(Discard { at: start, ends: self.ends.clone() }))
    }
}

impl Sink for Discard {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        assert_eq!(offset, self.at, "a prefetch goes on where it stopped");
        assert_pattern(offset, bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        // Fails if the test has ended.
        drop(self.ends.send(outcome));
    }
}

/// Figures of aged prefetches and urgent fetches beside each other.
#[derive(Debug, Default)]
struct Beside {
    urgent: u64,
    slowest: Duration,
    prefetched: u64,
    failed: u64,
}

/// Six prefetches of slow bodies for each worker, and an urgent fetch now and then. It may wait for one protected turn of each
/// worker, but never for queued prefetches.
fn urgent_beside_prefetches(seed: u64, over: &AtomicBool) -> Beside {
    let content = Content::pattern(LEN);
    let slow = Origin::start(move |request| Answer::file(request, &content).rate(300_000));
    let quick = Origin::serving(Content::pattern(1000));
    let mut config = DownloaderConfig::default();
    config.aging_threshold = Duration::from_secs(1);
    config.max_concurrent = 3;
    let downloader = Downloader::new(config).expect("sound options");
    let (ends, ended) = mpsc::channel();
    let peers: Vec<_> = (0..18)
        .map(|index| {
            let urls = vec![slow.url(&format!("/{index}"))];
            let peer = Prefetching { urls, next: index * 7, ends: ends.clone() };
            let handle = downloader.register(peer, Priority::Low).expect("not stopped");
            handle.wake(Priority::Low);
            handle
        })
        .collect();
    let caller = downloader.register((), Priority::High).expect("not stopped");
    let mut dice = Dice(seed);
    let mut beside = Beside::default();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(dice.roll(400)));
        let began = Instant::now();
        let fetch = Fetch::get(&quick.url("/")).expect("a sound URL");
        let mut response = caller.execute(fetch).expect("the quick server answers");
        let mut body = Vec::new();
        response.read_to_end(&mut body).expect("the quick server answers");
        assert_pattern(0, &body);
        beside.urgent += 1;
        beside.slowest = beside.slowest.max(began.elapsed());
        // A protected turn lasts a second. The rest is for a busy machine.
        assert!(beside.slowest < Duration::from_secs(10), "an urgent fetch took {:?}", beside.slowest);
    }
    drop(peers);
    downloader.stop();
    drop(ends);
    for outcome in ended {
        match outcome {
            Outcome::Done => beside.prefetched += 1,
            Outcome::Cancelled(_) => {}
            _ => beside.failed += 1,
        }
    }
    beside
}

#[test]
#[ignore = "takes ten minutes"]
fn ten_minutes_of_misbehaviour_cause_no_wrong_byte_no_hang_and_no_growth() {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = number("WINDWAY_SEED").unwrap_or(clock.as_nanos() as u64);
    let seconds = number("WINDWAY_SECONDS").unwrap_or(600);
    println!("WINDWAY_SEED={seed}, {seconds} s");
    let plain = Origin::start(random_server(seed));
    let tls = Origin::start_tls(random_server(seed ^ 1));
    let pool = Origin::start(balancer(seed ^ 2));
    let proxy = Proxy::start();
    let downloader = |change: &dyn Fn(&mut DownloaderConfig)| {
        let mut config = DownloaderConfig::default();
        config.client.silence_timeout = Duration::from_secs(2);
        change(&mut config);
        Downloader::new(config).expect("sound options")
    };
    let direct = downloader(&|_| ());
    let proxied = downloader(&|config| {
        config.client.proxy = Some(proxy.url());
        config.client.extra_roots = vec![tls.root_pem()];
    });
    let readers = [(&direct, &plain, 6), (&proxied, &tls, 3), (&direct, &pool, 3)];
    let over = AtomicBool::new(false);
    let figures = Arc::new(Figures {
        reads: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        seeks: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        reopened: AtomicU64::new(0),
    });
    let mut looks = Vec::new();
    let mut dice = Dice(seed ^ 3);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (downloader, origin, count) in readers {
            for reader in 0..count {
                let (figures, over) = (&figures, &over);
                let url = origin.url(&format!("/{reader}"));
                let dice = Dice(seed.wrapping_add(threads.len() as u64));
                threads.push(scope.spawn(move || read_on(downloader, &url, dice, over, figures)));
            }
        }
        let beside = scope.spawn(|| urgent_beside_prefetches(seed ^ 4, &over));
        for look in 0..LOOKS {
            thread::sleep(Duration::from_secs(seconds) / LOOKS);
            change_network([&plain, &tls, &pool], &direct, &mut dice);
            let counted = census();
            print_look(u64::from(look + 1) * seconds / u64::from(LOOKS), counted, &figures);
            println!("        {:?} and {:?}", direct.stats().totals, proxied.stats().totals);
            looks.push(counted);
            if threads.iter().any(|reader| reader.is_finished()) || beside.is_finished() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        println!("beside: {:?}", beside.join().expect("no urgent fetch was starved"));
    });
    assert_no_growth(&looks);
}

/// Open connections to one of the origins are dead from now on. The application may or may not learn of it.
fn change_network(origins: [&Origin; 3], downloader: &Downloader, dice: &mut Dice) {
    for origin in origins {
        origin.forget();
        // Dead for some seconds at least, so windway does not use these connections any more.
        origin.empty_black_hole();
    }
    origins[dice.roll(3) as usize].black_hole();
    if dice.roll(2) == 0 {
        downloader.network_changed();
    }
}

fn print_look(seconds: u64, [threads, descriptors, resident]: [u64; 3], figures: &Figures) {
    let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    println!(
        "{seconds:>4} s: {threads} threads, {descriptors} descriptors, {resident} KiB; {} reads, {} MB, {} seeks, {} errors, {} opened",
        count(&figures.reads),
        count(&figures.bytes) / 1_000_000,
        count(&figures.seeks),
        count(&figures.errors),
        count(&figures.reopened),
    );
}

fn assert_no_growth(looks: &[[u64; 3]]) {
    // After the first fifth all threads and buffers exist. Streams come and go, so there is some tolerance.
    let (early, last) = (looks[LOOKS as usize / 5], looks[looks.len() - 1]);
    for (what, (early, last)) in ["threads", "descriptors", "KiB"].iter().zip(early.iter().zip(&last)) {
        assert!(
            *last <= early * 3 / 2 + 20_000 * u64::from(*what == "KiB"),
            "{what} grew from {early} to {last}"
        );
    }
}
