//! The cost of a fetch in the downloader, and the delay of urgent fetches while all workers run prefetches.
//!
//! `cargo bench --bench dispatch`. The server runs in the same process: its CPU time is in all figures alike.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use measure::{Quantiles, cpu, report};
use support::{Answer, Content, Origin};
use windway::downloader::{Next, Outcome, Peer, Sink};
use windway::event::Event;
use windway::{Downloader, DownloaderConfig, Error, Fetch, Priority};

fn main() {
    nothing_but_dispatch();
    saturated();
    one_after_another();
    urgent_beside_prefetches();
    urgent_beside_aged_prefetches();
}

fn downloader(change: impl FnOnce(&mut DownloaderConfig)) -> Downloader {
    let mut config = DownloaderConfig::default();
    change(&mut config);
    Downloader::new(config).expect("sound options")
}

/// A URL for transports that fetch nothing.
const NOWHERE: &str = "http://nowhere.invalid/a";

/// One fetch after another with a transport that does nothing, from idle. Compared with the minimum: two wake-ups by channels.
fn nothing_but_dispatch() {
    let downloader = Downloader::without_network(DownloaderConfig::default()).expect("sound options");
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    report("no transport, execute", 20_000, || {
        peer.execute(Fetch::get(NOWHERE).expect("a URL")).expect("an answer");
    });
    let (ends, end) = mpsc::channel();
    let pulled = downloader.register(Pulled { url: NOWHERE.into(), ends }, Priority::High);
    let pulled = pulled.expect("a running downloader");
    report("no transport, woken and pulled by a worker", 20_000, || {
        pulled.wake(Priority::High);
        end.recv().expect("an end");
    });
    let (asks, asked) = crossbeam_channel::bounded::<crossbeam_channel::Sender<()>>(32);
    let echo = thread::spawn(move || asked.iter().for_each(|answer| answer.send(()).expect("a waiter")));
    report("the floor: to a thread and back, crossbeam", 20_000, || {
        let (answer, answered) = crossbeam_channel::bounded(1);
        asks.send(answer).expect("a thread");
        answered.recv().expect("an answer");
    });
    drop(asks);
    echo.join().expect("no panic");
}

/// Fetches a second with a transport that does nothing, while there are always more. Compared with a bare channel with as many
/// threads.
fn saturated() {
    const FETCHES: usize = 480_000;
    const PEERS: usize = 64;
    for workers in [2, 6] {
        let mut config = DownloaderConfig::default();
        config.max_concurrent = workers;
        config.reserved = 0;
        let downloader = Downloader::without_network(config).expect("sound options");
        let (all, end) = mpsc::channel();
        let ends = Arc::new(CountDown::new(FETCHES, all));
        let (began, cpu_before) = (Instant::now(), cpu());
        let peers: Vec<_> = (0..PEERS)
            .map(|_| {
                let (url, ends) = (NOWHERE.into(), Arc::clone(&ends));
                let plenty = Plenty { url, left: FETCHES / PEERS, ends };
                downloader.register(plenty, Priority::High).expect("a running downloader")
            })
            .collect();
        peers.iter().for_each(|peer| peer.wake(Priority::High));
        end.recv().expect("the last end");
        rate(&format!("saturated, {PEERS} pulled peers, {workers} workers"), FETCHES, began, cpu_before);
        let (began, cpu_before) = (Instant::now(), cpu());
        let callers: Vec<_> = (0..workers)
            .map(|_| {
                let peer = downloader.register((), Priority::High).expect("a running downloader");
                thread::spawn(move || {
                    for _ in 0..FETCHES / workers {
                        peer.execute(Fetch::get(NOWHERE).expect("a URL")).expect("an answer");
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
        rate(&format!("saturated, {workers} callers of execute"), FETCHES, began, cpu_before);
    }
    for workers in [2, 6] {
        let (began, cpu_before) = (Instant::now(), cpu());
        let (asks, asked) = crossbeam_channel::bounded::<usize>(32);
        let (all, end) = mpsc::channel();
        let ends = Arc::new(CountDown::new(FETCHES, all));
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                let (asked, ends) = (asked.clone(), Arc::clone(&ends));
                thread::spawn(move || asked.iter().for_each(|_| ends.count()))
            })
            .collect();
        let feeder = thread::spawn(move || (0..FETCHES).for_each(|job| asks.send(job).expect("a thread")));
        end.recv().expect("the last end");
        feeder.join().expect("no panic");
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        rate(&format!("the floor: a bare channel, {workers} threads"), FETCHES, began, cpu_before);
    }
}

fn rate(name: &str, fetches: usize, began: Instant, cpu_before: Duration) {
    let each = (cpu() - cpu_before) / fetches as u32;
    let rate = fetches as f64 / began.elapsed().as_secs_f64();
    println!("{name:<44} {rate:>9.0} a second  cpu {each:>9.1?}");
}

/// A peer with this number of urgent fetches.
struct Plenty {
    url: String,
    left: usize,
    ends: Arc<CountDown>,
}

/// Sends a message when this number of fetches has ended.
struct CountDown {
    left: AtomicUsize,
    all: Mutex<mpsc::Sender<()>>,
}

impl CountDown {
    fn new(left: usize, all: mpsc::Sender<()>) -> Self {
        Self { left: AtomicUsize::new(left), all: Mutex::new(all) }
    }

    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.lock().expect("no panic").send(()).expect("a waiter");
        }
    }
}

struct Counts(Arc<CountDown>);

impl Sink for Counts {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: Outcome) {
        self.0.count();
    }
}

impl Peer for Plenty {
    fn next_fetch(&mut self, _: Priority) -> Next {
        if self.left == 0 {
            return Next::Wait;
        }
        self.left -= 1;
        let fetch = Fetch::get(&self.url).expect("a URL").priority(Priority::High);
        Next::fetch(fetch, Box::new(Counts(Arc::clone(&self.ends))))
    }
}

/// Rounds of measurements that are compared with ureq. The median of the ratios is printed. The core on which the server's thread
/// runs makes a factor of up to eight, so the compared measurements alternate.
const ROUNDS: usize = 5;

/// One 1 KiB GET after another.
fn one_after_another() {
    const GETS: usize = 3000;
    let origin = Origin::serving(Content::pattern(1024));
    let url = origin.url("/a");
    let mut body = Vec::with_capacity(1024);
    let downloader = downloader(|_| ());
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    let (ends, end) = mpsc::channel();
    let pulled = downloader.register(Pulled { url: url.clone(), ends }, Priority::High);
    let pulled = pulled.expect("a running downloader");
    let mut ratios = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let agent = ureq::Agent::new_with_defaults();
        let (ureq, ureq_cpu) = report("1 KiB GET, plain ureq", GETS, || {
            body.clear();
            let mut response = agent.get(&url).call().expect("an answer");
            response.body_mut().as_reader().read_to_end(&mut body).expect("a body");
        });
        let (execute, execute_cpu) = report("1 KiB GET, execute", GETS, || {
            body.clear();
            let mut response = peer.execute(Fetch::get(&url).expect("a URL")).expect("an answer");
            response.read_to_end(&mut body).expect("a body");
        });
        let (pulled, _) = report("1 KiB GET, woken and pulled by a worker", GETS, || {
            pulled.wake(Priority::High);
            end.recv().expect("an end");
        });
        let each = [(execute, ureq), (execute_cpu, ureq_cpu), (pulled, ureq)];
        for (ratios, (time, of)) in ratios.iter_mut().zip(each) {
            ratios.push(time.as_secs_f64() / of.as_secs_f64());
        }
    }
    let [execute, cpu, pulled] = ratios.map(middle);
    println!(
        "1 KiB GET beside plain ureq: execute {execute:.2} (its thread's cpu {cpu:.2}), pulled {pulled:.2}"
    );
    eight_at_a_time(&url);
}

fn middle(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// GETs of 1 KiB, eight in parallel: by ureq, and by each way through the downloader.
fn eight_at_a_time(url: &str) {
    const GETS: usize = 2000;
    let shared = downloader(|config| {
        config.max_concurrent = 8;
        config.max_per_origin = 8;
        config.reserved = 0;
    });
    let agent = ureq::Agent::new_with_defaults();
    let by_ureq = || {
        let mut response = agent.get(url).call().expect("an answer");
        response.body_mut().read_to_vec().expect("a body");
    };
    let peers: Vec<_> =
        (0..8).map(|_| shared.register((), Priority::High).expect("a running downloader")).collect();
    let mut ratios = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let ureq = timed("1 KiB GET, 8 threads with plain ureq", GETS, || {
            thread::scope(|scope| {
                (0..8).for_each(|_| drop(scope.spawn(|| (0..GETS / 8).for_each(|_| by_ureq()))));
            });
        });
        let execute = timed("1 KiB GET, 8 threads with execute", GETS, || {
            thread::scope(|scope| {
                for peer in &peers {
                    scope.spawn(move || {
                        for _ in 0..GETS / 8 {
                            let fetch = Fetch::get(url).expect("a URL");
                            let mut response = peer.execute(fetch).expect("an answer");
                            response.read_to_end(&mut Vec::with_capacity(1024)).expect("a body");
                        }
                    });
                }
            });
        });
        let batch = timed("1 KiB GET, batch, 8 workers", GETS, || {
            let fetches = (0..GETS).map(|_| Fetch::get(url).expect("a URL")).collect();
            for answer in peers[0].batch(fetches) {
                let mut answer = answer.expect("an answer");
                answer.read_to_end(&mut Vec::with_capacity(1024)).expect("a body");
            }
        });
        let (all, end) = mpsc::channel();
        let ends = Arc::new(CountDown::new(GETS, all));
        let pulled = timed("1 KiB GET, pulled by 8 workers", GETS, || {
            let plenty = Plenty { url: url.to_owned(), left: GETS, ends: Arc::clone(&ends) };
            let peer = shared.register(plenty, Priority::High).expect("a running downloader");
            peer.wake(Priority::High);
            end.recv().expect("the last end");
        });
        // The first round opens connections and does not count.
        if round > 0 {
            for (ratios, time) in ratios.iter_mut().zip([execute, batch, pulled]) {
                ratios.push(ureq.as_secs_f64() / time.as_secs_f64());
            }
        }
    }
    let [execute, batch, pulled] = ratios.map(middle);
    println!("8 at a time, rate beside ureq's: execute {execute:.2}, batch {batch:.2}, pulled {pulled:.2}");
}

/// Runs `all`, which makes this number of fetches, and prints their rate. Returns the time that it took.
fn timed(name: &str, fetches: usize, all: impl FnOnce()) -> Duration {
    let (began, cpu_before) = (Instant::now(), cpu());
    all();
    let elapsed = began.elapsed();
    rate(name, fetches, began, cpu_before);
    elapsed
}

/// A peer with one fetch for each wake.
struct Pulled {
    url: String,
    ends: mpsc::Sender<()>,
}

impl Peer for Pulled {
    fn next_fetch(&mut self, _: Priority) -> Next {
        let fetch = Fetch::get(&self.url).expect("a URL").priority(Priority::High);
        Next::last(fetch, Box::new(Ends(self.ends.clone())))
    }
}

struct Ends(mpsc::Sender<()>);

impl Sink for Ends {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: Outcome) {
        // Fails if the bench has ended.
        self.0.send(()).unwrap_or_default();
    }
}

/// Changes a good response of the server.
type Kind = fn(Answer) -> Answer;

/// All workers run prefetches, then as many urgent fetches as workers are made at once: how long each waits for its start.
fn urgent_beside_prefetches() {
    const WORKERS: usize = 6;
    let kinds: [(&str, Kind); 3] = [
        ("fast", |answer| answer),
        ("16 KiB/s", |answer| answer.rate(16 * 1024)),
        ("silent", |answer| answer.stall_after(1000)),
    ];
    for (name, kind) in kinds {
        for reserved in [0, 1] {
            let waits = (0..50).flat_map(|_| start_waits(WORKERS, reserved, kind)).collect();
            let waits = Quantiles::new(waits);
            let (p50, p99) = (waits.at(0.5), waits.at(0.99));
            println!(
                "urgent beside prefetches, {name:<8}, {reserved} reserved start p50 {p50:>9.1?}  p99 {p99:>9.1?}"
            );
        }
    }
}

fn start_waits(workers: usize, reserved: usize, kind: Kind) -> Vec<Duration> {
    let large = Content::pattern(8 << 30);
    let small = Content::pattern(1024);
    let origin = Origin::start(move |asked| match asked.path.as_str() {
        "/prefetch" => kind(Answer::file(asked, &large)),
        _ => Answer::file(asked, &small),
    });
    let downloader = downloader(|config| {
        config.max_concurrent = workers;
        config.reserved = reserved;
        config.max_per_origin = workers;
    });
    let _prefetches: Vec<_> = (reserved..workers)
        .map(|_| {
            let peer = downloader.register(Prefetch(Some(origin.url("/prefetch"))), Priority::High);
            let peer = peer.expect("a running downloader");
            peer.wake(Priority::Low);
            peer
        })
        .collect();
    origin.wait_until("prefetches on all workers", |log| log.asked.len() == workers - reserved);
    let urgent = downloader.register((), Priority::High).expect("a running downloader");
    let events = urgent.subscribe();
    let fetches = (0..workers).map(|_| Fetch::get(&origin.url("/urgent")).expect("a URL"));
    let answers: Vec<_> = urgent.batch(fetches.collect()).collect();
    assert!(answers.iter().all(Result::is_ok));
    std::iter::from_fn(|| events.try_recv())
        .filter_map(|event| match event {
            Event::Started { wait, .. } => Some(wait),
            _ => None,
        })
        .collect()
}

/// A peer with one endless prefetch.
struct Prefetch(Option<String>);

impl Peer for Prefetch {
    fn next_fetch(&mut self, _: Priority) -> Next {
        let Some(url) = self.0.take() else { return Next::Wait };
        let (ends, _) = mpsc::channel();
        Next::last(Fetch::get(&url).expect("a URL"), Box::new(Ends(ends)))
    }
}

/// How long urgent fetches wait for their start beside more prefetches than workers, all of which were preempted and have aged. The
/// response heads are sent when all urgent fetches have started. A rate of 64 KiB/s gives each protected prefetch its whole second.
fn urgent_beside_aged_prefetches() {
    for (workers, hosts, prefetches, urgent) in [(1, 1, 12, 1), (6, 20, 80, 6)] {
        let mut waits = aged_waits(workers, hosts, prefetches, urgent);
        waits.sort();
        let name = format!("{urgent} urgent beside {prefetches} aged prefetches, {workers} workers");
        println!("{name:<54} start {waits:.1?}");
    }
}

fn aged_waits(workers: usize, hosts: usize, prefetches: usize, urgent: usize) -> Vec<Duration> {
    const AGING: Duration = Duration::from_secs(1);
    const GIVE_UP: Duration = Duration::from_secs(20);
    let (large, small) = (Content::pattern(8 << 30), Content::pattern(1024));
    let start = || {
        let (large, small) = (large.clone(), small.clone());
        Origin::start(move |asked| match asked.path.as_str() {
            "/prefetch" => Answer::file(asked, &large).rate(64 * 1024),
            "/short" => Answer::file(asked, &small),
            _ => Answer::file(asked, &small).latency_until_released(),
        })
    };
    let origins: Vec<_> = (0..hosts).map(|_| start()).collect();
    let downloader = downloader(|config| {
        config.max_concurrent = workers;
        config.max_per_origin = config.max_per_origin.max(prefetches / hosts);
        config.aging_threshold = AGING;
    });
    let _prefetches: Vec<_> = (0..prefetches)
        .map(|number| {
            let url = origins[number % hosts].url("/prefetch");
            let peer =
                downloader.register(Prefetch(Some(url)), Priority::High).expect("a running downloader");
            peer.wake(Priority::Low);
            peer
        })
        .collect();
    let give_up = downloader.clone();
    let (all, begun) = mpsc::channel();
    let timer = thread::spawn(move || match begun.recv_timeout(GIVE_UP) {
        Ok(()) => {}
        // Ends the wait for a start that does not happen.
        Err(_) => give_up.stop(),
    });
    let peer = downloader.register((), Priority::High).expect("a running downloader");
    // Urgent work preempts all prefetches, one after the other.
    let began = Instant::now();
    while began.elapsed() < 3 * AGING {
        let short = Fetch::get(&origins[0].url("/short")).expect("a URL");
        if peer.execute(short).is_err() {
            return vec![GIVE_UP; urgent];
        }
    }
    let (events, url) = (peer.subscribe(), origins[0].url("/urgent"));
    let caller = thread::spawn(move || {
        // All responses are taken, because the drop of a batch cancels the others.
        peer.batch((0..urgent).map(|_| Fetch::get(&url).expect("a URL")).collect()).count()
    });
    let started = std::iter::from_fn(|| events.recv()).filter_map(|event| match event {
        Event::Started { wait, .. } => Some(wait),
        Event::Cancelled { .. } => Some(GIVE_UP),
        _ => None,
    });
    let waits = started.take(urgent).collect();
    all.send(()).unwrap_or_default();
    timer.join().expect("no panic");
    origins[0].release();
    caller.join().expect("no panic");
    waits
}
