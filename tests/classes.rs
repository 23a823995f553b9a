//! Who is served when: classes, turns, promotions, limits, and peers that are asked late.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use support::peers::{List, collect, downloader};
use support::{Answer, Content, Origin};
use windway::{
    Downloader, ErrorKind, Event, Fetch, Next, Outcome, Peer, PeerHandle, Priority, RequestId, Sink, Waker,
};

/// A downloader with one worker, which is held by a request whose head does not come.
struct Held {
    origin: Origin,
    downloader: Downloader,
    blocker: JoinHandle<()>,
}

fn hold() -> Held {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |asked| {
        let answer = Answer::file(asked, &content);
        if asked.path == "/first" { answer.latency_until_released() } else { answer }
    });
    let downloader = downloader(|config| config.max_concurrent = 1);
    let blocker = execute(&downloader.register((), Priority::High).unwrap(), &origin, "/first");
    origin.wait_until("the blocker", |log| log.asked.len() == 1);
    Held { origin, downloader, blocker }
}

/// Executes on a thread of its own.
fn execute(peer: &PeerHandle, origin: &Origin, path: &str) -> JoinHandle<()> {
    let (peer, fetch) = (peer.clone(), Fetch::get(&origin.url(path)).unwrap());
    thread::spawn(move || drop(peer.execute(fetch).unwrap()))
}

/// What is asked for behind each fetch that is queued: once it is accepted, the one before it is in the schedule.
const MARKER: &str = "-marker";

/// Asks for it on a thread of its own, and blocks until it is queued.
fn queue(peer: &PeerHandle, origin: &Origin, path: &str) -> (JoinHandle<()>, RequestId) {
    let (events, own) = (peer.subscribe(), peer.clone());
    let fetches = ["", MARKER].map(|end| Fetch::get(&origin.url(&format!("{path}{end}"))).unwrap());
    let caller = thread::spawn(move || {
        own.batch(fetches.into()).into_iter().for_each(|answer| drop(answer.unwrap()));
    });
    let enqueued = |event| if let Event::Enqueued { request } = event { Some(request) } else { None };
    let mut requests = std::iter::from_fn(|| events.recv()).filter_map(enqueued);
    let (request, marker) = (requests.next(), requests.next());
    assert!(marker.is_some());
    (caller, request.unwrap())
}

impl Held {
    fn peer(&self, priority: Priority) -> PeerHandle {
        self.downloader.register((), priority).unwrap()
    }

    /// A peer of this priority that has one Low fetch.
    fn low(&self, priority: Priority, path: &str) -> (PeerHandle, mpsc::Receiver<support::peers::Got>) {
        let list = List::default();
        let (sink, end) = collect(0);
        list.put(Fetch::get(&self.origin.url(path)).unwrap(), sink);
        let peer = self.downloader.register(list, priority).unwrap();
        peer.wake(Priority::Low);
        (peer, end)
    }

    /// Lets the worker go on, and returns what was asked for, in order.
    fn served(self, callers: Vec<JoinHandle<()>>) -> Vec<String> {
        self.served_with_markers(callers).into_iter().filter(|path| !path.ends_with(MARKER)).collect()
    }

    fn served_with_markers(self, callers: Vec<JoinHandle<()>>) -> Vec<String> {
        self.origin.release();
        self.blocker.join().unwrap();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        self.origin.log().asked.into_iter().skip(1).map(|asked| asked.path).collect()
    }
}

#[test]
fn classes_are_served_in_their_order() {
    let held = hold();
    let all = held.downloader.subscribe();
    let (low_low, last) = held.low(Priority::Low, "/low-low");
    let (low, high) = (held.peer(Priority::Low), held.peer(Priority::High));
    let (low_high, _) = queue(&low, &held.origin, "/low-high");
    let (high_low, end) = held.low(Priority::High, "/high-low");
    let (high_high, _) = queue(&high, &held.origin, "/high-high");
    let queued = held.downloader.stats().queued;
    assert!(queued.iter().all(|queued| *queued > 0), "{queued:?}");
    let own = [&high, &high_low, &low, &low_low].map(PeerHandle::subscribe);
    held.origin.release();
    assert!(matches!(last.recv().unwrap().outcome, Outcome::Done));
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    held.served(vec![low_high, high_high]);
    let started = |event| if let Event::Started { request, .. } = event { Some(request) } else { None };
    let own = own.map(|own| std::iter::from_fn(|| own.try_recv()).filter_map(started).collect::<Vec<_>>());
    // What each began with. The awaited one of the Low peer may interrupt the High peer's Low one, which begins again.
    let mut order = Vec::new();
    for request in std::iter::from_fn(|| all.try_recv()).filter_map(started) {
        let peer = own.iter().position(|own| own.contains(&request));
        order.extend(peer.filter(|peer| !order.contains(peer)));
    }
    assert_eq!(order, [0, 1, 2, 3]);
}

#[test]
fn peers_take_turns_and_each_is_first_in_first_out() {
    let held = hold();
    let (a, b) = (held.peer(Priority::High), held.peer(Priority::High));
    let order = [(&a, "/a1"), (&a, "/a2"), (&a, "/a3"), (&b, "/b1"), (&b, "/b2")];
    let callers = order.map(|(peer, path)| queue(peer, &held.origin, path).0);
    let served = held.served_with_markers(callers.into());
    // Both have three at least, whatever has become of the last markers.
    let turns: String = served.iter().take(6).map(|path| &path[1..2]).collect();
    assert_eq!(turns, "ababab");
    for own in [["/a1", "/a2", "/a3"].as_slice(), &["/b1", "/b2"]] {
        let in_order: Vec<_> = served.iter().filter(|path| own.contains(&path.as_str())).collect();
        assert_eq!(in_order, own);
    }
}

#[test]
fn a_peers_new_priority_moves_what_it_has_queued() {
    let held = hold();
    let (a, b) = (held.peer(Priority::High), held.peer(Priority::Low));
    let order = [(&a, "/a1"), (&b, "/b1"), (&b, "/b2")];
    let callers = order.map(|(peer, path)| queue(peer, &held.origin, path).0);
    a.set_priority(Priority::Low);
    b.set_priority(Priority::High);
    assert_eq!(held.served(callers.into()), ["/b1", "/b2", "/a1"]);
}

#[test]
fn one_that_is_demoted_goes_behind_and_promoted_again_in_front() {
    let held = hold();
    let peer = held.peer(Priority::High);
    let queued = ["/1", "/2", "/3"].map(|path| queue(&peer, &held.origin, path));
    let [first, _, third] = [0, 1, 2].map(|index| queued[index].1);
    peer.promote(first, Priority::Low);
    peer.promote(third, Priority::Low);
    peer.promote(third, Priority::High);
    let callers = queued.map(|(caller, _)| caller);
    assert_eq!(held.served(callers.into()), ["/3", "/2", "/1"]);
}

/// Wakes itself while it is asked, so many times, and then has a fetch.
struct WakesItself {
    waker: Arc<Mutex<Option<Waker>>>,
    asked: Arc<AtomicUsize>,
    fetch: Option<(Fetch, Box<dyn Sink>)>,
}

impl Peer for WakesItself {
    fn next_fetch(&mut self, _: Priority) -> Next {
        if self.asked.fetch_add(1, Ordering::SeqCst) < 3 {
            self.waker.lock().unwrap().iter().for_each(|waker| waker.wake(Priority::Low));
            return Next::Wait;
        }
        self.fetch.take().map_or(Next::Wait, |(fetch, sink)| Next::Last(fetch, sink))
    }
}

#[test]
fn a_wake_during_the_question_is_never_lost_and_wait_is_not_asked_again() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|_| ());
    let (waker, asked) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
    let (sink, end) = collect(0);
    let fetch = Some((Fetch::get(&origin.url("/a")).unwrap(), Box::new(sink) as Box<dyn Sink>));
    let peer = WakesItself { waker: Arc::clone(&waker), asked: Arc::clone(&asked), fetch };
    let peer = downloader.register(peer, Priority::High).unwrap();
    *waker.lock().unwrap() = Some(peer.waker());
    peer.wake(Priority::Low);
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    // Other work passes through the same workers, and the peer is not asked for it.
    let other = downloader.register((), Priority::High).unwrap();
    other.execute(Fetch::get(&origin.url("/b")).unwrap()).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[test]
fn a_peer_that_panics_ends_and_no_other() {
    struct Panics;
    impl Peer for Panics {
        fn next_fetch(&mut self, _: Priority) -> Next {
            panic!("as the test wants");
        }
    }
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| config.max_concurrent = 1);
    let (bad, good) = (downloader.register(Panics, Priority::High), downloader.register((), Priority::High));
    let (bad, good) = (bad.unwrap(), good.unwrap());
    let events = bad.subscribe();
    bad.wake(Priority::High);
    let failed = std::iter::from_fn(|| events.recv()).find_map(|event| match event {
        Event::PeerFailed { error } => Some(error),
        _ => None,
    });
    assert_eq!(failed.unwrap().kind(), ErrorKind::Panicked);
    assert!(good.execute(Fetch::get(&origin.url("/a")).unwrap()).is_ok());
    let refused = bad.execute(Fetch::get(&origin.url("/b")).unwrap()).unwrap_err();
    assert!(refused.is_cancelled());
}

#[test]
fn a_retry_waits_in_the_schedule_and_holds_no_worker() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |asked| match asked.path.as_str() {
        "/busy" => Answer::status(503).header("Retry-After", "60"),
        _ => Answer::file(asked, &content),
    });
    let downloader = downloader(|config| config.max_concurrent = 1);
    let list = List::default();
    let (sink, _end) = collect(0);
    list.put(Fetch::get(&origin.url("/busy")).unwrap(), sink);
    let waiting = downloader.register(list, Priority::High).unwrap();
    let events = waiting.subscribe();
    waiting.wake(Priority::Low);
    assert!(std::iter::from_fn(|| events.recv()).any(|event| matches!(event, Event::Retrying { .. })));
    let other = downloader.register((), Priority::High).unwrap();
    let response = other.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let stats = downloader.stats();
    assert_eq!((stats.retrying, stats.open_bodies, stats.peers), (1, 1, 2));
    assert_eq!(stats.totals.retries, 1);
    drop(response);
}

#[test]
fn throughput_adds_up_over_transfers_and_is_told_for_each_peer() {
    const RATE: u64 = 1_000_000;
    let content = Content::pattern(500_000);
    let origin = Origin::start(move |asked| Answer::file(asked, &content).rate(RATE));
    let downloader = downloader(|_| ());
    assert_eq!(downloader.bandwidth(), None);
    let peers: Vec<_> = (0..2)
        .map(|_| {
            let list = List::default();
            let (sink, end) = collect(0);
            list.put(Fetch::get(&origin.url("/a")).unwrap(), sink);
            let peer = downloader.register(list, Priority::High).unwrap();
            peer.wake(Priority::Low);
            (peer, end)
        })
        .collect();
    for (peer, end) in &peers {
        assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
        let own = peer.bandwidth().unwrap();
        assert!(own < 1.7 * RATE as f64, "{own}");
        assert_eq!(peer.totals().bytes, 500_000);
    }
    // Side by side they are twice as fast as one; the bound leaves a slow machine room.
    let all = downloader.bandwidth().unwrap();
    assert!(all > 0.9 * peers[0].0.bandwidth().unwrap(), "{all}");
    assert_eq!(downloader.stats().totals.completed, 2);
}
