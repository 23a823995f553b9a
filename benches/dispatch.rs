//! The cost of a fetch in the downloader, and the delay of urgent fetches while all workers run prefetches.
//!
//! `cargo bench --bench dispatch` runs all, `cargo bench --bench dispatch -- eight` one of them: see `main`. The server runs in the same
//! process: its CPU time is in all figures alike.
//!
//! `-- alone WAY GETS` makes GETs of 1 KiB in one way only, for a profiler: `execute`, `pulled`, `batch`, `ureq`, one after another, and
//! `execute8`, `pulled8`, `batch8`, `ureq8`, eight at a time. The server runs in a process of its own, which is not profiled. The
//! difference between two numbers of GETs is free of what start and end cost:
//!
//! ```sh
//! for gets in 1000 3000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/deps/dispatch-* alone batch8 $gets; done
//! ```

mod measure;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use measure::{Quantiles, cpu, report};
use support::{Answer, Content, Origin};
use windway::downloader::{Next, Outcome, Peer, PeerHandle, Sink};
use windway::event::Event;
use windway::{Downloader, DownloaderConfig, Error, Fetch, Priority};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => ["nothing", "saturated", "single", "eight", "urgent", "aged"].into_iter().for_each(run),
        ["serve"] => serve(),
        ["alone", way, gets] => alone(way, gets.parse().expect("a number of GETs")),
        [what] => run(what),
        _ => panic!("unknown arguments"),
    }
}

fn run(what: &str) {
    match what {
        "nothing" => nothing_but_dispatch(),
        "saturated" => saturated(),
        "single" => one_after_another(),
        "eight" => eight_at_a_time(),
        "urgent" => urgent_beside_prefetches(),
        "aged" => urgent_beside_aged_prefetches(),
        _ => panic!("there is no {what}"),
    }
}

/// Serves 1 KiB at the URL that it prints, until its input ends.
fn serve() {
    let origin = Origin::serving(Content::pattern(1024));
    println!("{}", origin.url("/a"));
    std::io::stdin().read_to_end(&mut Vec::new()).expect("an input");
}

/// Makes GETs in one way, from a server in another process.
fn alone(way: &str, gets: usize) {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    let itself = std::env::current_exe().expect("the path of this program");
    let mut server = Command::new(itself);
    let server = server.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = server.spawn().expect("a server");
    let mut url = String::new();
    let output = server.stdout.take().expect("its output");
    std::io::BufReader::new(output).read_line(&mut url).expect("a line");
    let eight = Eight::new(url.trim());
    let before = (Instant::now(), cpu());
    match way {
        "ureq" => eight.by_ureq(1, gets),
        "ureq8" => eight.by_ureq(8, gets),
        "execute" => eight.by_execute(1, gets),
        "execute8" => eight.by_execute(8, gets),
        "batch" => (0..gets).for_each(|_| eight.by_batch(1)),
        "batch8" => eight.by_batch(gets),
        "pulled" => eight.by_waking(gets),
        "pulled8" => eight.by_pulled(gets),
        _ => panic!("there is no {way}"),
    }
    rate(way, gets, before.0, before.1);
    drop(server.stdin.take());
    server.wait().expect("its end");
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
    let (asks, request) = crossbeam_channel::bounded::<crossbeam_channel::Sender<()>>(32);
    let echo = thread::spawn(move || request.iter().for_each(|answer| answer.send(()).expect("a waiter")));
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
    for workers in [2, 6] {
        let mut config = DownloaderConfig::default();
        config.max_concurrent = workers;
        config.reserved = 0;
        let downloader = Downloader::without_network(config).expect("sound options");
        saturated_by_peers(&downloader, workers);
        saturated_by_callers(&downloader, workers);
    }
    [2, 6].into_iter().for_each(saturated_channel);
}

/// Fetches of each row.
const FETCHES: usize = 480_000;

fn saturated_by_peers(downloader: &Downloader, workers: usize) {
    const PEERS: usize = 64;
    let (all, end) = mpsc::channel();
    let ends = Arc::new(CountDown::new(FETCHES, all));
    let (began, cpu_before) = (Instant::now(), cpu());
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let plenty = Plenty { url: NOWHERE.into(), left: FETCHES / PEERS, ends: Arc::clone(&ends) };
            downloader.register(plenty, Priority::High).expect("a running downloader")
        })
        .collect();
    peers.iter().for_each(|peer| peer.wake(Priority::High));
    end.recv().expect("the last end");
    rate(&format!("saturated, {PEERS} pulled peers, {workers} workers"), FETCHES, began, cpu_before);
}

fn saturated_by_callers(downloader: &Downloader, workers: usize) {
    let (began, cpu_before) = (Instant::now(), cpu());
    thread::scope(|scope| {
        for _ in 0..workers {
            let peer = downloader.register((), Priority::High).expect("a running downloader");
            scope.spawn(move || {
                for _ in 0..FETCHES / workers {
                    peer.execute(Fetch::get(NOWHERE).expect("a URL")).expect("an answer");
                }
            });
        }
    });
    rate(&format!("saturated, {workers} callers of execute"), FETCHES, began, cpu_before);
}

fn saturated_channel(workers: usize) {
    let (began, cpu_before) = (Instant::now(), cpu());
    let (asks, request) = crossbeam_channel::bounded::<usize>(32);
    thread::scope(|scope| {
        for _ in 0..workers {
            let request = request.clone();
            scope.spawn(move || request.iter().for_each(drop));
        }
        (0..FETCHES).for_each(|job| asks.send(job).expect("a thread"));
        drop(asks);
    });
    rate(&format!("the floor: a bare channel, {workers} threads"), FETCHES, began, cpu_before);
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
}

fn middle(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// GETs of 1 KiB by ureq, and by each way through the downloader, whose limits let eight run at once.
struct Eight {
    url: String,
    agent: ureq::Agent,
    downloader: Downloader,
    peers: Vec<PeerHandle>,
}

impl Eight {
    fn new(url: &str) -> Self {
        let downloader = downloader(|config| {
            config.max_concurrent = 8;
            config.max_per_origin = 8;
            config.reserved = 0;
        });
        let peer = || downloader.register((), Priority::High).expect("a running downloader");
        let peers = (0..8).map(|_| peer()).collect();
        Self { url: url.to_owned(), agent: ureq::Agent::new_with_defaults(), downloader, peers }
    }

    fn fetch(&self) -> Fetch {
        Fetch::get(&self.url).expect("a URL")
    }

    fn by_ureq(&self, threads: usize, gets: usize) {
        let get = || {
            let mut response = self.agent.get(&self.url).call().expect("an answer");
            response.body_mut().read_to_vec().expect("a body");
        };
        thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(|| (0..gets / threads).for_each(|_| get()))));
        });
    }

    fn by_execute(&self, threads: usize, gets: usize) {
        let get = |peer: &PeerHandle| {
            let mut response = peer.execute(self.fetch()).expect("an answer");
            response.read_to_end(&mut Vec::with_capacity(1024)).expect("a body");
        };
        thread::scope(|scope| {
            for peer in &self.peers[..threads] {
                scope.spawn(move || (0..gets / threads).for_each(|_| get(peer)));
            }
        });
    }

    fn by_batch(&self, gets: usize) {
        let url = self.url.clone();
        for answer in self.peers[0].batch((0..gets).map(move |_| Fetch::get(&url).expect("a URL"))) {
            let mut answer = answer.expect("an answer");
            answer.read_to_end(&mut Vec::with_capacity(1024)).expect("a body");
        }
    }

    /// One after another, each after a wake of its own.
    fn by_waking(&self, gets: usize) {
        let (ends, end) = mpsc::channel();
        let pulled = self.downloader.register(Pulled { url: self.url.clone(), ends }, Priority::High);
        let pulled = pulled.expect("a running downloader");
        for _ in 0..gets {
            pulled.wake(Priority::High);
            end.recv().expect("an end");
        }
    }

    fn by_pulled(&self, gets: usize) {
        let (all, end) = mpsc::channel();
        let plenty = Plenty { url: self.url.clone(), left: gets, ends: Arc::new(CountDown::new(gets, all)) };
        let peer = self.downloader.register(plenty, Priority::High).expect("a running downloader");
        peer.wake(Priority::High);
        end.recv().expect("the last end");
    }
}

fn eight_at_a_time() {
    const GETS: usize = 2000;
    let origin = Origin::serving(Content::pattern(1024));
    let eight = Eight::new(&origin.url("/a"));
    let mut ratios = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let ureq = timed("1 KiB GET, 8 threads with plain ureq", GETS, || eight.by_ureq(8, GETS));
        let execute = timed("1 KiB GET, 8 threads with execute", GETS, || eight.by_execute(8, GETS));
        let batch = timed("1 KiB GET, batch, 8 workers", GETS, || eight.by_batch(GETS));
        let pulled = timed("1 KiB GET, pulled by 8 workers", GETS, || eight.by_pulled(GETS));
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
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/prefetch" => kind(Answer::file(request, &large)),
        _ => Answer::file(request, &small),
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
    origin.wait_until("prefetches on all workers", |log| log.requests.len() == workers - reserved);
    let urgent = downloader.register((), Priority::High).expect("a running downloader");
    let events = urgent.subscribe();
    let fetches = (0..workers).map(|_| Fetch::get(&origin.url("/urgent")).expect("a URL"));
    let answers: Vec<_> = urgent.batch(fetches.collect::<Vec<_>>()).collect();
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
    let origins: Vec<_> = (0..hosts).map(|_| origin_of_aged()).collect();
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
    if !preempt_all(&peer, &origins[0], 3 * AGING) {
        return vec![GIVE_UP; urgent];
    }
    let waits = urgent_waits(peer, &origins[0], urgent).unwrap_or(vec![GIVE_UP; urgent]);
    all.send(()).unwrap_or_default();
    timer.join().expect("no panic");
    waits
}

/// Slow for prefetches; urgent responses come when it is released.
fn origin_of_aged() -> Origin {
    let (large, small) = (Content::pattern(8 << 30), Content::pattern(1024));
    Origin::start(move |request| match request.path.as_str() {
        "/prefetch" => Answer::file(request, &large).rate(64 * 1024),
        "/short" => Answer::file(request, &small),
        _ => Answer::file(request, &small).latency_until_released(),
    })
}

/// Runs urgent work for this long, which preempts all prefetches, one after the other. False if it failed.
fn preempt_all(peer: &PeerHandle, origin: &Origin, time: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < time {
        let short = Fetch::get(&origin.url("/short")).expect("a URL");
        if peer.execute(short).is_err() {
            return false;
        }
    }
    true
}

/// How long each of this number of urgent fetches waits for its start. `None` if one is cancelled before.
fn urgent_waits(peer: PeerHandle, origin: &Origin, urgent: usize) -> Option<Vec<Duration>> {
    let (events, url) = (peer.subscribe(), origin.url("/urgent"));
    let caller = thread::spawn(move || {
        // All responses are taken, because the drop of a batch cancels the others.
        peer.batch((0..urgent).map(move |_| Fetch::get(&url).expect("a URL"))).count()
    });
    let started = std::iter::from_fn(|| events.recv()).filter_map(|event| match event {
        Event::Started { wait, .. } => Some(Some(wait)),
        Event::Cancelled { .. } => Some(None),
        _ => None,
    });
    let waits = started.take(urgent).collect();
    origin.release();
    caller.join().expect("no panic");
    waits
}
