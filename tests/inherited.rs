//! Faults of windway's ancestor, one test for each: here are those that need a downloader and sockets. Other tests cover the rest:
//!
//! - strict priority without aging; a new priority that queued fetches do not get: `src/downloader/schedule/tests/`, and here;
//! - no peer is polled while all workers are busy; fetches that never end; a thread that owns the handle which would end it; a
//!   watchdog on the thread that it watches: `tests/downloader.rs`, and here;
//! - a 2xx body at the wrong offset: `tests/errors.rs`;
//! - throughput measured for each fetch alone: `src/bandwidth.rs`;
//! - retries without jitter and without `Retry-After`: `src/client/retry.rs`;
//! - a seek that waits for the end of a sequential body; a read that waits until its whole buffer is full: `tests/file.rs`;
//! - threads and descriptors that are left: `tests/lifecycle.rs`;
//! - a busy loop while all workers are busy: `tests/idle.rs`.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use support::peers::{List, collect, downloader, fetch_by_peer};
use support::{Answer, Content, Origin};
use windway::downloader::{CancelReason, Next, Outcome, Peer, Sink};
use windway::event::{Event, Subscriber};
use windway::{Error, ErrorKind, Fetch, Priority};

fn get(origin: &Origin, path: &str) -> Fetch {
    Fetch::get(&origin.url(path)).unwrap()
}

/// Blocks until an event is `wanted`. Returns it.
fn await_event(events: &Subscriber, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    std::iter::from_fn(|| events.recv()).find(|event| wanted(event)).unwrap()
}

/// Stalls every body after 1000 bytes, until it is released.
fn stalling() -> Origin {
    let content = Content::pattern(1_000_000);
    Origin::start(move |request| Answer::file(request, &content).stall_after(1000))
}

/// All fetches of all peers were taken into one batch, and urgent work waited for the batch.
#[test]
fn a_peer_is_polled_once_for_each_free_worker_and_never_ahead() {
    struct Endless(Arc<AtomicUsize>, Fetches);
    type Fetches = Arc<dyn Fn() -> Fetch + Send + Sync>;
    impl Peer for Endless {
        fn next_fetch(&mut self, _: Priority) -> Next {
            self.0.fetch_add(1, Ordering::SeqCst);
            Next::fetch((self.1)(), Box::new(collect(0).0))
        }
    }
    let origin = stalling();
    let url = origin.url("/a");
    let asked = Arc::new(AtomicUsize::new(0));
    let downloader = downloader(|config| {
        config.max_concurrent = 3;
        config.reserved = 0;
    });
    let fetch = move || Fetch::get(&url).unwrap();
    let peer = downloader.register(Endless(Arc::clone(&asked), Arc::new(fetch)), Priority::High).unwrap();
    peer.wake(Priority::Low);
    origin.wait_until("three bodies", |log| log.sent == 3000);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let mut urgent = peer.execute(get(&origin, "/urgent")).unwrap();
    assert_eq!(urgent.read(&mut [0; 10]).unwrap(), 10);
    origin.release();
}

/// Only the sleeping task could end the delay of prefetches.
#[test]
fn an_urgent_wake_ends_the_prefetch_delay_at_once() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| config.prefetch_delay = Duration::from_secs(3600));
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    assert!(peer.execute(get(&origin, "/first")).is_ok());
    list.put(get(&origin, "/low"), collect(0).0);
    peer.wake(Priority::Low);
    assert_eq!(downloader.stats().queued, [0, 1, 0, 0]);
    assert!(peer.execute(get(&origin, "/second")).is_ok());
    list.put(get(&origin, "/third"), collect(0).0);
    peer.wake(Priority::High);
    origin.wait_until("the prefetch after the urgent wake", |log| log.requests.len() >= 3);
}

/// Urgent work starved prefetches forever.
#[test]
fn a_prefetch_gets_a_worker_under_endless_urgent_fetches() {
    for workers in [1, 2, 3] {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| Answer::file(request, &content));
        let downloader = downloader(|config| {
            config.max_concurrent = workers;
            config.aging_threshold = Duration::from_millis(50);
        });
        let list = List::default();
        let peer = downloader.register(list.clone(), Priority::Low).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..2 * workers)
            .map(|_| {
                let urgent = downloader.register((), Priority::High).unwrap();
                let (url, done) = (origin.url("/urgent"), Arc::clone(&done));
                thread::spawn(move || {
                    while done.load(Ordering::SeqCst) == 0 {
                        urgent.execute(Fetch::get(&url).unwrap()).unwrap();
                    }
                })
            })
            .collect();
        let (sink, end) = collect(0);
        list.put(get(&origin, "/low"), sink);
        peer.wake(Priority::Low);
        assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
        done.store(1, Ordering::SeqCst);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    }
}

/// Each wake-up polled all peers.
#[test]
fn a_peer_that_was_not_woken_is_never_polled() {
    struct Counts(Arc<AtomicUsize>);
    impl Peer for Counts {
        fn next_fetch(&mut self, _: Priority) -> Next {
            self.0.fetch_add(1, Ordering::SeqCst);
            Next::Wait
        }
    }
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|_| ());
    let asked = Arc::new(AtomicUsize::new(0));
    let idle: Vec<_> =
        (0..100).map(|_| downloader.register(Counts(Arc::clone(&asked)), Priority::High).unwrap()).collect();
    let busy = downloader.register((), Priority::Low).unwrap();
    for _ in 0..20 {
        busy.execute(get(&origin, "/a")).unwrap();
    }
    assert_eq!((idle.len(), asked.load(Ordering::SeqCst)), (100, 0));
}

/// A bounded channel was emptied into an unbounded queue.
#[test]
fn the_capacity_of_a_peer_is_a_limit() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| Answer::file(request, &content).latency_until_released());
    let downloader = downloader(|config| config.peer_capacity = 2);
    let peer = downloader.register((), Priority::High).unwrap();
    let events = peer.subscribe();
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let (peer, fetch) = (peer.clone(), get(&origin, "/a"));
            thread::spawn(move || peer.execute(fetch).map(drop))
        })
        .collect();
    origin.wait_until("two requests", |log| log.requests.len() == 2);
    origin.release();
    callers.into_iter().for_each(|caller| caller.join().unwrap().unwrap());
    let (mut accepted, mut most) = (0, 0);
    for event in std::iter::from_fn(|| events.try_recv()) {
        match event {
            Event::Enqueued { .. } => accepted += 1,
            // The response head gives the place back.
            Event::FirstByte { .. } => accepted -= 1,
            _ => {}
        }
        most = most.max(accepted);
    }
    assert_eq!((accepted, most), (0, 2));
}

/// While all workers were busy no peer was polled, so none could report urgent work.
#[test]
fn a_peer_woken_for_urgent_work_is_polled_although_all_workers_are_busy() {
    let origin = stalling();
    let downloader = downloader(|config| {
        config.max_concurrent = 2;
        config.reserved = 0;
    });
    let prefetches = List::default();
    let urgent = List::default();
    let filling = downloader.register(prefetches.clone(), Priority::High).unwrap();
    let waiting = downloader.register(urgent.clone(), Priority::Low).unwrap();
    (0..2).for_each(|_| prefetches.put(get(&origin, "/prefetch"), collect(0).0));
    filling.wake(Priority::Low);
    origin.wait_until("two bodies", |log| log.sent == 2000);
    urgent.put(get(&origin, "/urgent").priority(Priority::High), collect(0).0);
    waiting.wake(Priority::High);
    origin.wait_until("the urgent one", |log| log.requests.iter().any(|request| request.path == "/urgent"));
    origin.release();
}

/// A silent body counted as one that had ended.
#[test]
fn a_silent_body_has_not_ended() {
    let origin = stalling();
    let downloader = downloader(|config| {
        config.client.silence_timeout = Duration::from_secs(1);
        config.max_retries = 0;
    });
    let got = fetch_by_peer(&downloader, get(&origin, "/a"), 0);
    assert!(matches!(&got.outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Silent), "{got:?}");
    assert_eq!(got.bytes.len(), 1000);
}

/// A full disk became an HTTP error, which was retried without success.
#[test]
fn an_error_of_a_sink_ends_its_fetch_and_is_not_retried() {
    struct Full(mpsc::Sender<Outcome>);
    impl Sink for Full {
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into())
        }
        fn finish(self: Box<Self>, outcome: Outcome) {
            self.0.send(outcome).unwrap();
        }
    }
    let origin = Origin::serving(Content::pattern(100_000));
    let list = List::default();
    let peer = downloader(|_| ()).register(list.clone(), Priority::High).unwrap();
    let (ends, end) = mpsc::channel();
    list.put(get(&origin, "/a"), Full(ends));
    peer.wake(Priority::Low);
    let Outcome::Failed(error) = end.recv().unwrap() else { panic!("it did not fail") };
    assert_eq!(error.kind(), ErrorKind::Io(std::io::ErrorKind::StorageFull));
    assert!(!error.is_retryable());
    assert_eq!(origin.log().requests.len(), 1);
}

/// Bodies read by their caller ignored a cancel and reported no end. Failed and cancelled ones reported no bytes.
#[test]
fn a_body_read_by_its_caller_is_cancelled_and_its_bytes_are_counted() {
    let origin = stalling();
    let downloader = downloader(|_| ());
    let peer = downloader.register((), Priority::High).unwrap();
    let (events, epoch) = (peer.subscribe(), peer.epoch());
    let mut response = peer.execute(get(&origin, "/a").epoch(&epoch)).unwrap();
    assert_eq!(downloader.stats().open_bodies, 1);
    let reader = thread::spawn(move || {
        let mut body = Vec::new();
        (Error::from(response.read_to_end(&mut body).unwrap_err()), body.len())
    });
    origin.wait_until("the beginning of the body", |log| log.sent == 1000);
    epoch.cancel();
    let (error, read) = reader.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled(CancelReason::Epoch));
    let end = await_event(&events, Event::is_end);
    assert!(
        matches!(end, Event::Cancelled { reason: CancelReason::Epoch, bytes, .. } if bytes == read as u64),
        "{end:?}"
    );
    let stats = downloader.stats();
    assert_eq!((stats.open_bodies, stats.totals.cancelled, stats.totals.bytes), (0, 1, read as u64));
    assert_eq!(peer.totals(), stats.totals);
}

/// A peer got its event bus after its registration, so the first events were lost.
#[test]
fn a_subscriber_from_before_the_first_wake_gets_the_first_event() {
    let origin = Origin::serving(Content::pattern(1000));
    let list = List::default();
    let (sink, end) = collect(0);
    list.put(get(&origin, "/a"), sink);
    let peer = downloader(|_| ()).register(list, Priority::High).unwrap();
    let events = peer.subscribe();
    peer.wake(Priority::High);
    end.recv().unwrap();
    assert!(matches!(events.recv(), Some(Event::Enqueued { request, .. }) if request.get() == 1));
}
