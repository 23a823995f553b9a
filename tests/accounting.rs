//! Whatever a random mixture of peers, servers, cancellations and limits does: each fetch ends once, its events come in order, and
//! the totals agree with the events, with the sinks and with each other. `WINDWAY_SEED` repeats a run, `WINDWAY_ROUNDS` makes more.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::content::assert_pattern;
use support::dice::Dice;
use support::{Answer, Content, Origin, Request, poll_until};
use windway::downloader::{
    Epoch, Flow, Next, Outcome, Peer, PeerHandle, RequestId, ResponseHead, Sink, Stats, Totals,
};
use windway::event::Event;
use windway::{ByteRange, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, Priority, Response};

const LEN: u64 = 400_000;

fn priority(dice: &mut Dice) -> Priority {
    if dice.roll(2) == 0 { Priority::High } else { Priority::Low }
}

fn server(seed: u64) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let content = Content::pattern(LEN);
    move |request| {
        let mut dice = Dice(seed ^ (request.number as u64).wrapping_mul(0x5851_f42d_4c95_7f2d));
        let good = Answer::file(request, &content);
        let bytes = dice.roll(100_000);
        match dice.roll(24) {
            0 => good.close_after(bytes),
            1 => good.reset_after(bytes),
            2 => good.stall_after(bytes),
            3 => good.reset_in_head(dice.roll(60) as usize),
            4 => Answer::status([404, 416, 429, 503][dice.roll(4) as usize]),
            5 => good.chunked(),
            6 => good.cut_chunk_after(bytes),
            7 => Answer::whole(&content).header("ETag", &content.etag()),
            8 => good.latency(Duration::from_millis(dice.roll(60))),
            9 => good.rate(500_000),
            10 => Answer::redirect(302, "/moved"),
            11 => good.close_when_idle(),
            12 => good.extra_bytes(9),
            _ => good,
        }
    }
}

/// What the sinks of all peers have seen.
#[derive(Default)]
struct Seen {
    fetches: HashMap<RequestId, SeenFetch>,
}

#[derive(Debug, Default)]
struct SeenFetch {
    /// Bytes that its sink took, or whoever read its detached body.
    bytes: u64,
    finished: Option<&'static str>,
    is_detached: bool,
}

type Shared = Arc<Mutex<Seen>>;

struct RandomSink {
    dice: Dice,
    seen: Shared,
    request: Option<RequestId>,
    next: Option<u64>,
    readers: Arc<AtomicUsize>,
}

impl RandomSink {
    fn with<T>(&self, change: impl FnOnce(&mut SeenFetch) -> T) -> T {
        let request = self.request.expect("accepted comes first");
        change(self.seen.lock().unwrap().fetches.entry(request).or_default())
    }

    /// Panics or fails now and then.
    fn refuse(&mut self, sides: u64) -> Result<(), Error> {
        match self.dice.roll(sides) {
            0 => panic!("a panic of a sink, for the test"),
            1 => Err(Error::new(ErrorKind::Storage, "refused by the sink, for the test")),
            _ => Ok(()),
        }
    }
}

impl Sink for RandomSink {
    fn accepted(&mut self, request: RequestId) {
        assert!(self.request.replace(request).is_none());
        self.with(|_| ());
    }

    fn head(&mut self, _: &ResponseHead) -> Result<Flow, Error> {
        self.refuse(80)?;
        Ok(if self.dice.roll(6) == 0 { Flow::Detach } else { Flow::Stream })
    }

    fn detached(mut self: Box<Self>, mut body: Response) {
        self.with(|fetch| fetch.is_detached = true);
        let most = self.dice.roll(2 * LEN);
        self.readers.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || {
            let got = read_some(&mut body, most);
            drop(body);
            self.with(|fetch| fetch.bytes += got);
            self.readers.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        assert_pattern(offset, bytes);
        if let Some(next) = self.next {
            assert_eq!(offset, next, "the bytes of a fetch follow each other");
        }
        self.refuse(200)?;
        self.next = Some(offset + bytes.len() as u64);
        self.with(|fetch| fetch.bytes += bytes.len() as u64);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Done => "completed",
            Outcome::Failed(_) => "failed",
            _ => "cancelled",
        };
        self.with(|fetch| assert!(fetch.finished.replace(outcome).is_none(), "finished twice"));
    }
}

fn read_some(body: &mut Response, most: u64) -> u64 {
    let (mut got, mut buf) = (0, [0; 30_000]);
    while got < most {
        match body.read(&mut buf) {
            Ok(0) | Err(_) => break,
            Ok(read) => got += read as u64,
        }
    }
    got
}

struct RandomPeer {
    dice: Dice,
    urls: Vec<String>,
    left: u32,
    epoch: Arc<Mutex<Option<Epoch>>>,
    seen: Shared,
    readers: Arc<AtomicUsize>,
}

fn random_fetch(dice: &mut Dice, urls: &[String], epoch: Option<&Epoch>) -> Fetch {
    let url = &urls[dice.roll(urls.len() as u64) as usize];
    let mut fetch = Fetch::get(url).unwrap().priority(priority(dice));
    let start = dice.roll(LEN + 10_000);
    fetch = match dice.roll(8) {
        0 => fetch,
        1 => fetch.range(ByteRange::new(start, start)),
        2 => fetch.range(ByteRange::from_start(start)),
        _ => fetch.range(ByteRange::new(start, start + 1 + dice.roll(100_000))),
    };
    if dice.roll(10) == 0 {
        fetch = fetch.require_range();
    }
    if dice.roll(10) == 0 {
        fetch = fetch.validate(|head| {
            if head.start() % 2 == 0 {
                Ok(())
            } else {
                Err(Error::new(ErrorKind::Changed, "an odd start, for the test"))
            }
        });
    }
    match epoch {
        Some(epoch) if dice.roll(2) == 0 => fetch.epoch(epoch),
        _ => fetch,
    }
}

impl Peer for RandomPeer {
    fn next_fetch(&mut self, _: Priority) -> Next {
        let Some(left) = self.left.checked_sub(1) else { return Next::Wait };
        self.left = left;
        if self.dice.roll(300) == 0 {
            panic!("a panic of a peer, for the test");
        }
        let epoch = self.epoch.lock().unwrap().clone();
        let fetch = random_fetch(&mut self.dice, &self.urls, epoch.as_ref());
        let sink = RandomSink {
            dice: Dice(self.dice.roll(u64::MAX)),
            seen: Arc::clone(&self.seen),
            request: None,
            next: None,
            readers: Arc::clone(&self.readers),
        };
        let more = self.dice.roll(4) != 0;
        if more { Next::fetch(fetch, Box::new(sink)) } else { Next::last(fetch, Box::new(sink)) }
    }
}

/// One peer: asked for fetches, and at the same time used by its owner.
fn drive(
    downloader: &Downloader,
    mut dice: Dice,
    urls: &[String],
    seen: &Shared,
    readers: &Arc<AtomicUsize>,
) -> PeerHandle {
    let epoch = Arc::new(Mutex::new(None));
    let peer = RandomPeer {
        dice: Dice(dice.roll(u64::MAX)),
        urls: urls.to_vec(),
        left: 60,
        epoch: Arc::clone(&epoch),
        seen: Arc::clone(seen),
        readers: Arc::clone(readers),
    };
    let handle = downloader.register(peer, priority(&mut dice)).unwrap();
    *epoch.lock().unwrap() = Some(handle.epoch());
    for _ in 0..60 {
        match dice.roll(14) {
            0..4 => handle.wake(priority(&mut dice)),
            4 => handle.set_priority(priority(&mut dice)),
            5 => {
                let next = handle.epoch();
                epoch.lock().unwrap().replace(next).unwrap().cancel();
            }
            6 => downloader
                .set_max_bandwidth([None, Some(2_000_000), Some(20_000_000)][dice.roll(3) as usize])
                .unwrap(),
            7 => downloader.set_metered(dice.roll(2) == 0),
            8 if dice.roll(6) == 0 => downloader.network_changed(),
            9 => {
                let fetches: Vec<_> =
                    (0..dice.roll(12)).map(|_| random_fetch(&mut dice, urls, None)).collect();
                let take = dice.roll(12) as usize;
                let responses = handle.batch(fetches).take(take);
                for response in responses {
                    let most = dice.roll(2 * LEN);
                    if let Ok(mut response) = response {
                        read_some(&mut response, most);
                    }
                }
            }
            10 => {
                let requests: Vec<_> = seen.lock().unwrap().fetches.keys().copied().take(50).collect();
                requests.into_iter().for_each(|request| handle.promote(request, priority(&mut dice)));
            }
            11 => thread::sleep(Duration::from_millis(dice.roll(20))),
            _ => {
                if let Ok(mut response) = handle.execute(random_fetch(&mut dice, urls, None)) {
                    read_some(&mut response, dice.roll(2 * LEN));
                }
            }
        }
    }
    if dice.roll(4) == 0 {
        handle.cancel();
    }
    handle
}

/// The events of a fetch.
#[derive(Debug, Default)]
struct Story {
    events: Vec<Event>,
}

impl Story {
    /// Adds the next event. Panics if it can't follow the ones before.
    fn follow(&mut self, event: Event) {
        let may_come_anywhere = |event: &Event| matches!(event, Event::Slow { .. } | Event::Hang(_));
        let last = self.events.iter().rev().find(|event| !may_come_anywhere(event));
        let is_next = last.is_none_or(|last| !last.is_end())
            && match (&event, last) {
                (Event::Enqueued { .. }, last) => last.is_none(),
                (_, None) => false,
                (Event::Started { .. }, Some(last)) => {
                    matches!(last, Event::Enqueued { .. } | Event::Retrying { .. })
                }
                (Event::FirstByte { .. }, Some(last)) => {
                    matches!(last, Event::Started { .. } | Event::Resumed { .. })
                }
                (Event::Preempted { .. } | Event::Retrying { .. }, Some(last)) => {
                    matches!(last, Event::Started { .. } | Event::FirstByte { .. } | Event::Resumed { .. })
                }
                (Event::Resumed { .. }, Some(last)) => matches!(last, Event::Preempted { .. }),
                (event, Some(_)) => may_come_anywhere(event) || event.is_end(),
            };
        assert!(is_next, "{event:?} after {:#?}", self.events);
        self.events.push(event);
    }

    /// How it ended, and the bytes that had arrived.
    fn end(&self) -> (&'static str, u64) {
        match self.events.iter().find(|event| event.is_end()) {
            Some(Event::Completed { bytes, .. }) => ("completed", *bytes),
            Some(Event::Failed { bytes, .. }) => ("failed", *bytes),
            Some(Event::Cancelled { bytes, .. }) => ("cancelled", *bytes),
            _ => panic!("it has not ended: {:#?}", self.events),
        }
    }
}

/// Blocks until `holds` for the statistics of `downloader`, which no event announces.
fn await_stats(downloader: &Downloader, what: &str, holds: impl Fn(&Stats) -> bool) {
    poll_until(what, || holds(&downloader.stats()));
}

fn is_quiet(stats: &Stats) -> bool {
    stats.busy_workers == 0 && stats.queued == [0; 4] && stats.retrying == 0 && stats.blocked == 0
}

fn random_config(dice: &mut Dice) -> DownloaderConfig {
    let mut config = DownloaderConfig::default();
    config.client.silence_timeout = Duration::from_millis(150);
    config.client.min_rate = 1000;
    config.max_concurrent = 1 + dice.roll(4) as usize;
    config.reserved = 0;
    config.max_per_origin = 1 + dice.roll(3) as usize;
    config.max_preempted = [None, Some(0), Some(1)][dice.roll(3) as usize];
    config.aging_threshold = Duration::from_millis(dice.roll(200));
    config.peer_capacity = 1 + dice.roll(6) as usize;
    config.max_open_bodies = 1 + dice.roll(6) as usize;
    config.max_retries = 2;
    config.soft_timeout = Duration::from_millis(50);
    // None may be lost.
    config.event_capacity = 1 << 20;
    config
}

fn sum<'a>(totals: impl Iterator<Item = &'a PeerHandle>) -> Totals {
    totals.map(PeerHandle::totals).fold(Totals::default(), |mut sum, totals| {
        sum.completed += totals.completed;
        sum.failed += totals.failed;
        sum.cancelled += totals.cancelled;
        sum.retries += totals.retries;
        sum.responses += totals.responses;
        sum.bytes += totals.bytes;
        sum
    })
}

/// Runs a random mixture, and returns what was counted after its end, with the events.
fn run(seed: u64, origins: &[Origin], seen: &Shared) -> (Totals, HashMap<RequestId, Story>) {
    let mut dice = Dice(seed);
    let downloader = Downloader::new(random_config(&mut dice)).unwrap();
    let events = downloader.subscribe();
    let urls: Vec<_> = origins.iter().flat_map(|origin| [origin.url("/a"), origin.url("/b")]).collect();
    let readers = Arc::new(AtomicUsize::new(0));
    let drivers: Vec<_> = (0..6)
        .map(|_| {
            let (downloader, dice, urls) = (downloader.clone(), Dice(dice.roll(u64::MAX)), urls.clone());
            let (seen, readers) = (Arc::clone(seen), Arc::clone(&readers));
            thread::spawn(move || drive(&downloader, dice, &urls, &seen, &readers))
        })
        .collect();
    let handles: Vec<_> = drivers.into_iter().map(|driver| driver.join().expect("no panic")).collect();
    // Half of the seeds wait for what is queued. The others cancel it.
    if dice.roll(2) == 0 {
        handles.iter().for_each(|peer| peer.wake(Priority::Low));
        await_stats(&downloader, "idle", is_quiet);
    }
    handles.iter().for_each(PeerHandle::cancel);
    await_stats(&downloader, "over", |stats| {
        let is_read = readers.load(Ordering::SeqCst) == 0;
        is_quiet(stats) && stats.preempted == 0 && stats.open_bodies == 0 && is_read
    });
    // The gauges fall before the sinks learn of the end. The stop waits for those too.
    downloader.stop();
    let of_peers = sum(handles.iter());
    drop(handles);
    let stats = downloader.stats();
    assert_eq!(stats.peers, 0);
    assert_eq!(of_peers, stats.totals, "of the peers, and of all");
    let mut stories: HashMap<RequestId, Story> = HashMap::new();
    for event in std::iter::from_fn(|| events.try_recv()) {
        assert!(!matches!(event, Event::Lagged { .. }));
        if let Some(request) = event.request() {
            stories.entry(request).or_default().follow(event);
        }
    }
    (stats.totals, stories)
}

fn check(seed: u64) {
    println!("seed {seed}");
    let origins = [Origin::start(server(seed)), Origin::start(server(seed ^ 1))];
    let seen = Shared::default();
    let (totals, stories) = run(seed, &origins, &seen);
    let count = |how: &str| stories.values().filter(|story| story.end().0 == how).count() as u64;
    assert_eq!(
        [count("completed"), count("failed"), count("cancelled")],
        [totals.completed, totals.failed, totals.cancelled]
    );
    let events = || stories.values().flat_map(|story| &story.events);
    let retries = events().filter(|event| matches!(event, Event::Retrying { .. })).count() as u64;
    let responses = events().filter(|event| matches!(event, Event::FirstByte { .. })).count() as u64;
    assert_eq!([retries, responses], [totals.retries, totals.responses]);
    for (request, fetch) in &seen.lock().unwrap().fetches {
        let story = &stories[request];
        let (end, bytes) = story.end();
        // `finish` is not called on a sink that detached its body.
        let finished = (!fetch.is_detached).then_some(end);
        assert_eq!((fetch.finished, fetch.bytes), (finished, bytes), "{request}: {story:#?}");
    }
    let in_events: u64 = stories.values().map(|story| story.end().1).sum();
    let sent: u64 = origins.iter().map(|origin| origin.log().sent).sum();
    // The totals have the bytes that were fetched again, too, and those that a sink refused.
    assert!(in_events <= totals.bytes && totals.bytes <= sent, "{in_events}, {totals:?}, {sent} sent");
}

#[test]
fn totals_events_and_sinks_agree_after_a_random_mixture() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("WINDWAY_SEED").unwrap_or(1);
    for seed in first..first + number("WINDWAY_ROUNDS").unwrap_or(2) {
        check(seed);
    }
}
