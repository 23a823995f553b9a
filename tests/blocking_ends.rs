//! A sink whose `finish` blocks costs the thread that it blocks, and delays nothing else.

use std::collections::HashSet;
use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use support::peers::{At, Calling, NEVER, collect};
use support::{Answer, Content, Origin, PATIENCE, in_time};
use windway::downloader::{Next, Outcome, Peer, PeerHandle, Sink};
use windway::event::{Event, HangCause};
use windway::{Downloader, DownloaderConfig, Fetch, FileConfig, Priority};

/// A sink whose `finish` blocks until the test is over.
struct Blocking {
    is_blocked: mpsc::Receiver<()>,
    _go: mpsc::Sender<()>,
}

impl Blocking {
    fn new() -> (impl Sink + 'static, Self) {
        let ((blocks, is_blocked), (go, may_go)) = (mpsc::channel(), mpsc::channel::<()>());
        let sink = Calling::new(At::Finish, move |at, _| {
            if at == At::Finish {
                blocks.send(()).unwrap();
                // Fails when the test is over.
                may_go.recv().unwrap_or_default();
            }
        });
        (sink, Self { is_blocked, _go: go })
    }

    fn wait(&self) {
        self.is_blocked.recv_timeout(PATIENCE).unwrap();
    }
}

/// A downloader in which no fetch fails because its server is silent.
fn downloader(change: impl FnOnce(&mut DownloaderConfig)) -> Downloader {
    support::peers::downloader(|config| {
        config.client.silence_timeout = NEVER;
        change(config);
    })
}

/// A peer that gives one fetch. It is not asked again, which would take a worker.
struct One(Option<(Fetch, Box<dyn Sink>)>);

impl Peer for One {
    fn next_fetch(&mut self, _: Priority) -> Next {
        let Some((fetch, sink)) = self.0.take() else { return Next::Wait };
        Next::last(fetch, sink)
    }
}

/// Lets a new peer give a fetch.
fn give(
    downloader: &Downloader,
    origin: &Origin,
    path: &str,
    priority: Priority,
    sink: impl Sink + 'static,
) -> PeerHandle {
    let fetch = Fetch::get(&origin.url(path)).unwrap().priority(priority);
    let peer = downloader.register(One(Some((fetch, Box::new(sink)))), Priority::High).unwrap();
    peer.wake(priority);
    peer
}

/// Serves 1000 bytes. A path with "silent" gets half of them, and one with "held" waits to be released.
fn origin() -> Origin {
    let content = Content::pattern(1000);
    Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match request.path.as_str() {
            path if path.contains("silent") => answer.stall_after(500),
            path if path.contains("held") => answer.latency_until_released(),
            _ => answer,
        }
    })
}

#[test]
fn urgent_work_preempts_a_prefetch_although_a_thread_without_work_is_blocked() {
    let origin = origin();
    let downloader = downloader(|config| {
        config.max_concurrent = 2;
        config.reserved = 0;
    });
    let (sink, blocking) = Blocking::new();
    let _ends = give(&downloader, &origin, "/ends", Priority::Low, sink);
    blocking.wait();
    let _silent = give(&downloader, &origin, "/silent", Priority::Low, collect(0).0);
    origin.wait_until("the prefetch", |log| log.sent >= 1500);
    let (sink, end) = collect(0);
    let _urgent = give(&downloader, &origin, "/urgent", Priority::High, sink);
    end.recv_timeout(PATIENCE).unwrap().assert_done(0..1000);
}

#[test]
fn urgent_work_waits_for_no_end_of_the_fetch_whose_worker_it_got() {
    let [origin, other] = [(); 2].map(|()| origin());
    let downloader = downloader(|config| {
        config.max_concurrent = 2;
        config.reserved = 0;
    });
    let (sink, blocking) = Blocking::new();
    let _ends = give(&downloader, &origin, "/held", Priority::High, sink);
    let _held = give(&downloader, &other, "/held", Priority::High, collect(0).0);
    for origin in [&origin, &other] {
        origin.wait_until("a request", |log| log.requests.len() == 1);
    }
    // Queued, because both workers run urgent work.
    let (sink, end) = collect(0);
    let _urgent = give(&downloader, &origin, "/urgent", Priority::High, sink);
    origin.release();
    blocking.wait();
    // Now the other worker is free for what the first one got.
    other.release();
    end.recv_timeout(PATIENCE).unwrap().assert_done(0..1000);
}

#[test]
fn a_blocked_reader_runs_its_own_fetch_while_all_workers_are_blocked() {
    let origin = origin();
    let downloader = downloader(|config| config.max_concurrent = 1);
    let (sink, blocking) = Blocking::new();
    let _ends = give(&downloader, &origin, "/ends", Priority::High, sink);
    blocking.wait();
    let mut stream = downloader.open_later(&origin.url("/a"), FileConfig::default()).unwrap();
    let all = in_time("reading", move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    });
    assert_eq!(all.unwrap().len(), 1000);
}

#[test]
fn a_thread_that_was_blocked_takes_work_again() {
    let origin = origin();
    let downloader = downloader(|config| config.max_concurrent = 1);
    for _ in 0..3 {
        let (sink, blocking) = Blocking::new();
        let _ends = give(&downloader, &origin, "/ends", Priority::High, sink);
        blocking.wait();
        let (sink, end) = collect(0);
        let _urgent = give(&downloader, &origin, "/urgent", Priority::High, sink);
        // The queue has given the question back.
        support::poll_until("busy worker", || downloader.stats().busy_workers == 1);
        drop(blocking);
        end.recv_timeout(PATIENCE).unwrap().assert_done(0..1000);
        support::poll_until("idle worker", || downloader.stats().idle_workers == 1);
    }
}

#[test]
fn an_end_that_blocks_while_urgent_work_waits_is_reported_once() {
    let origin = origin();
    let downloader = downloader(|config| {
        config.max_concurrent = 1;
        config.hang_timeout = Duration::from_millis(50);
    });
    let events = downloader.subscribe();
    let (sink, blocking) = Blocking::new();
    let _ends = give(&downloader, &origin, "/ends", Priority::High, sink);
    blocking.wait();
    let (sink, end) = collect(0);
    let _urgent = give(&downloader, &origin, "/urgent", Priority::High, sink);
    // On a busy machine a fetch may be reported, too.
    while hang_of(events.recv_timeout(PATIENCE).unwrap()) != Some(HangCause::Finish) {}
    drop(blocking);
    end.recv_timeout(PATIENCE).unwrap().assert_done(0..1000);
    let later = std::iter::from_fn(|| events.try_recv()).filter_map(hang_of);
    assert_eq!(later.filter(|cause| *cause == HangCause::Finish).count(), 0);
}

fn hang_of(event: Event) -> Option<HangCause> {
    if let Event::Hang(hang) = event { Some(hang.cause) } else { None }
}

/// Queues a fetch that waits for the origin, so that no worker has it, and cancels it.
fn cancel_waiting(downloader: &Downloader, origin: &Origin, sink: impl Sink + 'static) {
    let before = downloader.stats().blocked;
    let peer = give(downloader, origin, "/waiting", Priority::Low, sink);
    support::poll_until("blocked prefetch", || downloader.stats().blocked == before + 1);
    peer.cancel();
}

#[test]
fn an_end_that_blocks_holds_neither_other_ends_nor_the_reports_of_hangs() {
    let origin = origin();
    let downloader = downloader(|config| {
        config.max_per_origin = 1;
        config.hang_timeout = Duration::from_millis(50);
    });
    let events = downloader.subscribe();
    // The limit of the origin is used up from here on.
    let _silent = give(&downloader, &origin, "/silent", Priority::Low, collect(0).0);
    origin.wait_until("the prefetch", |log| log.sent >= 500);
    let mut blocked = Vec::new();
    for _ in 0..3 {
        let (sink, blocking) = Blocking::new();
        cancel_waiting(&downloader, &origin, sink);
        blocking.wait();
        blocked.push(blocking);
    }
    let (sink, end) = collect(0);
    cancel_waiting(&downloader, &origin, sink);
    assert!(matches!(end.recv_timeout(PATIENCE).unwrap().outcome, Outcome::Cancelled(_)));
    // An urgent fetch that stalls while the ends are blocked, and not before.
    let _hangs = give(&downloader, &origin, "/silent", Priority::High, collect(0).0);
    let mut stalled = HashSet::new();
    while stalled.len() < 2 {
        if let Some(HangCause::Fetch(request)) = hang_of(events.recv_timeout(PATIENCE).expect("a hang")) {
            stalled.insert(request);
        }
    }
    drop(blocked);
    in_time("stop", move || downloader.stop());
}
