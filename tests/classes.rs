//! The order in which fetches run: priorities, turns of peers, promotion, preemption, limits, and late polling of peers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::peers::{At, Calling, Collect, Got, List, collect, downloader};
use support::{Answer, Content, Origin, in_time};
use windway::config::{ReadAhead, StorageConfig};
use windway::downloader::{
    CancelReason, Flow, Next, Outcome, Peer, PeerHandle, RequestId, ResponseHead, Sink, Waker,
};
use windway::event::{Event, Subscriber};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority};

/// A downloader with one worker, which is busy with a request whose response head does not arrive.
struct Held {
    origin: Origin,
    downloader: Downloader,
    blocker: JoinHandle<()>,
}

fn hold() -> Held {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        if request.path == "/first" { answer.latency_until_released() } else { answer }
    });
    let downloader = downloader(|config| config.max_concurrent = 1);
    let blocker = execute(&downloader.register((), Priority::High).unwrap(), &origin, "/first");
    origin.wait_until("the blocker", |log| log.requests.len() == 1);
    Held { origin, downloader, blocker }
}

/// Calls `execute` on a new thread.
fn execute(peer: &PeerHandle, origin: &Origin, path: &str) -> JoinHandle<()> {
    let (peer, fetch) = (peer.clone(), Fetch::get(&origin.url(path)).unwrap());
    thread::spawn(move || drop(peer.execute(fetch).unwrap()))
}

/// Path of the fetch that follows each queued one: when it is accepted, the one before it is in the schedule.
const MARKER: &str = "-marker";

/// Calls `execute` on a new thread, and blocks until the fetch is queued.
fn queue(peer: &PeerHandle, origin: &Origin, path: &str) -> (JoinHandle<()>, RequestId) {
    let (events, own) = (peer.subscribe(), peer.clone());
    let fetches = ["", MARKER].map(|end| Fetch::get(&origin.url(&format!("{path}{end}"))).unwrap());
    let caller = thread::spawn(move || {
        own.batch(fetches).for_each(|answer| drop(answer.unwrap()));
    });
    let enqueued = |event| if let Event::Enqueued { request, .. } = event { Some(request) } else { None };
    let mut requests = std::iter::from_fn(|| events.recv()).filter_map(enqueued);
    let (request, marker) = (requests.next(), requests.next());
    assert!(marker.is_some());
    (caller, request.unwrap())
}

impl Held {
    fn peer(&self, priority: Priority) -> PeerHandle {
        self.downloader.register((), priority).unwrap()
    }

    /// A peer of this priority with one prefetch.
    fn low(&self, priority: Priority, path: &str) -> (PeerHandle, mpsc::Receiver<support::peers::Got>) {
        let list = List::default();
        let (sink, end) = collect(0);
        list.put(Fetch::get(&self.origin.url(path)).unwrap(), sink);
        let peer = self.downloader.register(list, priority).unwrap();
        peer.wake(Priority::Low);
        (peer, end)
    }

    /// Lets the worker continue. Returns the requested paths, in order.
    fn served(self, callers: Vec<JoinHandle<()>>) -> Vec<String> {
        self.served_with_markers(callers).into_iter().filter(|path| !path.ends_with(MARKER)).collect()
    }

    fn served_with_markers(self, callers: Vec<JoinHandle<()>>) -> Vec<String> {
        self.origin.release();
        self.blocker.join().unwrap();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        self.origin.log().requests.into_iter().skip(1).map(|request| request.path).collect()
    }
}

#[test]
fn priorities_are_served_in_order() {
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
    // The first request of each fetch. The urgent fetch of the Low peer may preempt the prefetch of the High peer, which is then
    // requested again.
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
    // Each has three at least. The last markers may or may not be among them.
    let turns: String = served.iter().take(6).map(|path| &path[1..2]).collect();
    assert_eq!(turns, "ababab");
    for own in [["/a1", "/a2", "/a3"].as_slice(), &["/b1", "/b2"]] {
        let in_order: Vec<_> = served.iter().filter(|path| own.contains(&path.as_str())).collect();
        assert_eq!(in_order, own);
    }
}

#[test]
fn a_new_priority_of_a_peer_moves_its_queued_fetches() {
    let held = hold();
    let (a, b) = (held.peer(Priority::High), held.peer(Priority::Low));
    let order = [(&a, "/a1"), (&b, "/b1"), (&b, "/b2")];
    let callers = order.map(|(peer, path)| queue(peer, &held.origin, path).0);
    a.set_priority(Priority::Low);
    b.set_priority(Priority::High);
    assert_eq!(held.served(callers.into()), ["/b1", "/b2", "/a1"]);
}

#[test]
fn a_demoted_fetch_runs_last_and_a_promoted_one_first() {
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

/// Wakes itself within `next_fetch` three times, and then returns a fetch.
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
        self.fetch.take().map_or(Next::Wait, |(fetch, sink)| Next::last(fetch, sink))
    }
}

#[test]
fn a_wake_during_next_fetch_is_never_lost_and_a_waiting_peer_is_not_polled() {
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
    // The same workers run other work, for which the peer is not polled.
    let other = downloader.register((), Priority::High).unwrap();
    other.execute(Fetch::get(&origin.url("/b")).unwrap()).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[test]
fn a_peer_may_register_another_one_and_drop_the_last_handle_of_itself_when_it_is_asked() {
    struct Calls {
        own: mpsc::Receiver<PeerHandle>,
        downloader: Downloader,
        fetch: Fetch,
        ends: mpsc::Sender<Got>,
        registered: mpsc::Sender<PeerHandle>,
    }
    impl Peer for Calls {
        fn next_fetch(&mut self, admissible: Priority) -> Next {
            let own = self.own.recv().unwrap();
            let other = List::default();
            other.put(self.fetch.clone(), Collect::new(0, &self.ends));
            let registered = self.downloader.register(other, Priority::High).unwrap();
            registered.wake(admissible);
            own.wake(Priority::High);
            own.set_priority(Priority::Low);
            // With this handle the peer goes, in the middle of its own call.
            drop(own);
            self.registered.send(registered).unwrap();
            Next::fetch(self.fetch.clone(), Box::new(Collect::new(0, &self.ends)))
        }
    }
    let origin = Origin::serving(Content::pattern(1000));
    in_time("the ends", move || {
        let downloader = downloader(|config| config.max_concurrent = 1);
        let ((owns, own), (ends, end)) = (mpsc::channel(), mpsc::channel());
        let (registered, _registered) = mpsc::channel();
        let fetch = Fetch::get(&origin.url("/a")).unwrap();
        let calls = Calls { own, downloader: downloader.clone(), fetch, ends, registered };
        let peer = downloader.register(calls, Priority::High).unwrap();
        peer.wake(Priority::High);
        owns.send(peer).unwrap();
        let ends = [end.recv().unwrap(), end.recv().unwrap()];
        let (done, other): (Vec<_>, Vec<_>) =
            ends.iter().partition(|got| matches!(got.outcome, Outcome::Done));
        assert_eq!(done.len(), 1);
        assert!(matches!(other[0].outcome, Outcome::Cancelled(CancelReason::Peer)), "{other:?}");
        // Once the peer is dropped, no sender is left.
        assert!(end.recv().is_err());
    });
}

#[test]
fn a_peer_that_panics_ends_and_other_peers_go_on() {
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
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/busy" => Answer::status(503).header("Retry-After", "60"),
        _ => Answer::file(request, &content),
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
fn the_rates_of_parallel_transfers_add_up_for_each_peer() {
    const RATE: u64 = 1_000_000;
    let content = Content::pattern(500_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).rate(RATE));
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
    // Two parallel transfers are twice as fast as one. The bound leaves room for a slow machine.
    let all = downloader.bandwidth().unwrap();
    assert!(all > 0.9 * peers[0].0.bandwidth().unwrap(), "{all}");
    assert_eq!(downloader.stats().totals.completed, 2);
}

/// Prefetches one endless body and discards its bytes.
struct Endless(Option<Fetch>);

impl Peer for Endless {
    fn next_fetch(&mut self, _: Priority) -> Next {
        self.0.take().map_or(Next::Wait, |fetch| Next::last(fetch, Box::new(Discard)))
    }
}

struct Discard;

impl Sink for Discard {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: Outcome) {}
}

/// Sends prefetches at a rate at which a protected turn of 256 KiB takes a tenth of a second. Delays the response heads of urgent
/// fetches until it is released.
fn prefetched_from() -> Origin {
    let (endless, small) = (Content::pattern(8 << 30), Content::pattern(1000));
    Origin::start(move |request| match request.path.as_str() {
        "/prefetch" => Answer::file(request, &endless).rate(2_500_000),
        "/held" => Answer::file(request, &small).latency_until_released(),
        _ => Answer::file(request, &small),
    })
}

fn prefetch(downloader: &Downloader, origin: &Origin) -> PeerHandle {
    let fetch = Fetch::get(&origin.url("/prefetch")).unwrap();
    let peer = downloader.register(Endless(Some(fetch)), Priority::High).unwrap();
    peer.wake(Priority::Low);
    peer
}

/// Number of prefetches that got a worker after the `urgent` fetches of a peer were queued, and before the last of these started.
/// Gives up above `most`.
fn prefetches_before(events: &Subscriber, own: &Subscriber, urgent: usize, most: usize) -> usize {
    let (mut queued, mut ids, mut granted) = (false, Vec::new(), 0);
    let mut left = urgent;
    while left > 0 && granted <= most {
        let event = events.recv().unwrap();
        let enqueued = std::iter::from_fn(|| own.try_recv()).filter_map(|event| match event {
            Event::Enqueued { request, .. } => Some(request),
            _ => None,
        });
        ids.extend(enqueued);
        match event {
            Event::Enqueued { request, .. } if ids.contains(&request) => queued = true,
            Event::Started { request, .. } if ids.contains(&request) => left -= 1,
            Event::Started { .. } | Event::Resumed { .. } if queued => granted += 1,
            _ => {}
        }
    }
    granted
}

#[test]
fn an_urgent_fetch_waits_for_one_aged_prefetch_and_not_for_twelve() {
    let origin = prefetched_from();
    let downloader = downloader(|config| {
        config.max_concurrent = 1;
        config.max_per_origin = 12;
        config.aging_threshold = Duration::ZERO;
    });
    let events = downloader.subscribe();
    let _prefetches: Vec<_> = (0..12).map(|_| prefetch(&downloader, &origin)).collect();
    let urgent = downloader.register((), Priority::High).unwrap();
    for _ in 0..5 {
        let own = urgent.subscribe();
        let caller = execute(&urgent, &origin, "/urgent");
        let granted = prefetches_before(&events, &own, 1, 3);
        if granted > 3 {
            // Its caller could wait forever.
            downloader.stop();
        }
        assert!(granted <= 1, "{granted} prefetches went before an urgent fetch");
        caller.join().unwrap();
    }
}

#[test]
fn six_urgent_fetches_start_beside_eighty_aged_prefetches() {
    let origins: Vec<_> = (0..20).map(|_| prefetched_from()).collect();
    let downloader = downloader(|config| config.aging_threshold = Duration::ZERO);
    let events = downloader.subscribe();
    let _prefetches: Vec<_> =
        (0..80).map(|number| prefetch(&downloader, &origins[number % origins.len()])).collect();
    let urgent = downloader.register((), Priority::High).unwrap();
    let own = urgent.subscribe();
    let fetches: Vec<_> = (0..6).map(|_| Fetch::get(&origins[0].url("/held")).unwrap()).collect();
    let caller = thread::spawn(move || urgent.batch(fetches).into_iter().all(|answer| answer.is_ok()));
    let granted = prefetches_before(&events, &own, 6, 30);
    if granted > 30 {
        downloader.stop();
    }
    assert!(granted <= 7, "{granted} prefetches went before six urgent fetches");
    origins[0].release();
    assert!(caller.join().unwrap());
}

/// Counts how often it is polled. `give` makes what it returns.
struct Counting<F> {
    asked: Arc<AtomicUsize>,
    give: F,
}

impl<F: FnMut() -> Next + Send> Peer for Counting<F> {
    fn next_fetch(&mut self, _: Priority) -> Next {
        self.asked.fetch_add(1, Ordering::SeqCst);
        (self.give)()
    }
}

/// Registers and wakes a peer that always has another fetch; `give` makes what it returns of it.
fn counting(
    downloader: &Downloader,
    url: &str,
    change: impl Fn(Fetch) -> Next + Send + 'static,
) -> (PeerHandle, Arc<AtomicUsize>) {
    let (asked, url) = (Arc::new(AtomicUsize::new(0)), url.to_owned());
    let give = move || change(Fetch::get(&url).unwrap());
    let peer = Counting { asked: Arc::clone(&asked), give };
    (downloader.register(peer, Priority::High).unwrap(), asked)
}

/// Lets time pass: as much as a hundred fetches of another peer take.
fn pass_time(downloader: &Downloader, origin: &Origin) {
    let other = downloader.register((), Priority::High).unwrap();
    for _ in 0..100 {
        drop(other.execute(Fetch::get(&origin.url("/other")).unwrap()).unwrap());
    }
}

#[test]
fn a_cancelled_peer_is_not_polled_again() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|_| ());
    let events = downloader.subscribe();
    let (peer, asked) =
        counting(&downloader, &origin.url("/a"), |fetch| Next::fetch(fetch, Box::new(Discard)));
    peer.wake(Priority::Low);
    assert!(std::iter::from_fn(|| events.recv()).any(|event| event.is_end()));
    peer.cancel();
    let asked_before = asked.load(Ordering::SeqCst);
    peer.wake(Priority::High);
    pass_time(&downloader, &origin);
    // A worker may have been about to poll it.
    let asked_after = asked.load(Ordering::SeqCst) - asked_before;
    assert!(asked_after <= 1, "asked {asked_after} times after its cancellation");
}

#[test]
fn a_peer_whose_epoch_was_cancelled_is_not_polled_forever() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|_| ());
    let epoch = Arc::new(Mutex::new(None));
    let own = Arc::clone(&epoch);
    let (peer, asked) = counting(&downloader, &origin.url("/a"), move |fetch| {
        Next::fetch(fetch.epoch(own.lock().unwrap().as_ref().unwrap()), Box::new(Discard))
    });
    let over = peer.epoch();
    over.cancel();
    *epoch.lock().unwrap() = Some(over);
    peer.wake(Priority::Low);
    (0..20).for_each(|_| pass_time(&downloader, &origin));
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 1500, "asked {asked} times");
    // The peer is polled again as soon as it has a fetch.
    let events = peer.subscribe();
    *epoch.lock().unwrap() = Some(peer.epoch());
    peer.wake(Priority::Low);
    assert!(std::iter::from_fn(|| events.recv()).any(|event| matches!(event, Event::Completed { .. })));
}

#[test]
fn a_peer_whose_sinks_refuse_everything_does_not_send_requests_forever() {
    struct Refuses;
    impl Sink for Refuses {
        fn head(&mut self, _: &ResponseHead) -> Result<Flow, Error> {
            Err(Error::new(ErrorKind::InvalidInput, "as the test wants"))
        }

        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            Ok(())
        }

        fn finish(self: Box<Self>, _: Outcome) {}
    }
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|_| ());
    let (peer, asked) =
        counting(&downloader, &origin.url("/a"), |fetch| Next::fetch(fetch, Box::new(Refuses)));
    peer.wake(Priority::Low);
    (0..20).for_each(|_| pass_time(&downloader, &origin));
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 200, "asked {asked} times");
}

/// Runs a prefetch on the only worker and five urgent fetches beside it. Checks that the prefetch delivers its body whole, and
/// resumes after each preemption. Returns how often that was, and the number of requests for it.
fn preempt(change: fn(&mut DownloaderConfig)) -> (usize, usize) {
    let content = Content::pattern(3_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).rate(20_000_000));
    let downloader = downloader(|config| {
        config.max_concurrent = 1;
        change(config);
    });
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let events = peer.subscribe();
    let (sink, end) = collect(0);
    list.put(Fetch::get(&origin.url("/prefetch")).unwrap(), sink);
    peer.wake(Priority::Low);
    origin.wait_until("prefetch body", |log| log.sent > 10_000);
    for _ in 0..5 {
        drop(peer.execute(Fetch::get(&origin.url("/urgent")).unwrap()).unwrap());
    }
    let got = end.recv().unwrap();
    got.assert_done(0..3_000_000);
    let events: Vec<Event> = std::iter::from_fn(|| events.try_recv()).collect();
    let preempted = events.iter().filter(|event| matches!(event, Event::Preempted { .. })).count();
    let resumed = events.iter().filter(|event| matches!(event, Event::Resumed { .. })).count();
    assert!(preempted > 0 && preempted == resumed, "{events:?}");
    let requests = origin.log().requests.iter().filter(|request| request.path == "/prefetch").count();
    (resumed, requests)
}

#[test]
fn a_preempted_body_continues_without_a_lost_or_repeated_byte() {
    preempt(|config| config.reserved = 0);
}

#[test]
fn a_body_aborted_by_preemption_continues_without_a_lost_or_repeated_byte() {
    let (resumed, requests) = preempt(|config| config.max_preempted = Some(0));
    // Each time by a request of its own. An attempt may be preempted again before its request is sent, so the origin may
    // see fewer.
    assert!((2..=1 + resumed).contains(&requests), "{requests} requests, resumed {resumed} times");
}

#[test]
fn a_promoted_fetch_stays_urgent_when_it_is_retried() {
    let content = Content::pattern(400_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match (request.path.as_str(), request.again) {
            ("/promoted", 0) => answer.latency_until_released().close_after(1000),
            ("/promoted", _) => answer.chunks_of(500, Duration::from_millis(1)),
            ("/prefetch", _) => answer.stall_in_head(1),
            _ => answer,
        }
    });
    let downloader = downloader(|config| config.max_concurrent = 2);
    let low = |path| {
        let (list, (sink, end)) = (List::default(), collect(0));
        list.put(Fetch::get(&origin.url(path)).unwrap(), sink);
        let peer = downloader.register(list, Priority::High).unwrap();
        let events = peer.subscribe();
        peer.wake(Priority::Low);
        origin.wait_until(path, |log| log.requests.iter().any(|request| request.path == path));
        (peer, events, end)
    };
    let (peer, events, end) = low("/promoted");
    let request = events.recv().and_then(|event| event.request()).unwrap();
    peer.promote(request, Priority::High);
    origin.release();
    // The second attempt got its response head.
    let heads = std::iter::from_fn(|| events.recv()).filter(|event| matches!(event, Event::FirstByte { .. }));
    assert_eq!(heads.take(2).count(), 2);
    let _prefetch = low("/prefetch");
    // No worker is free. The prefetch has to be preempted, and not the promoted fetch, although that one ends a chunk much sooner.
    let caller = downloader.register((), Priority::High).unwrap();
    for _ in 0..10 {
        drop(caller.execute(Fetch::get(&origin.url("/urgent")).unwrap()).unwrap());
    }
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    let mut left = std::iter::from_fn(|| events.try_recv());
    assert!(!left.any(|event| matches!(event, Event::Preempted { .. })));
}

/// Promotes its fetch as soon as it knows the request ID.
struct PromotesItself {
    waker: Arc<Mutex<Option<Waker>>>,
    end: mpsc::Sender<Outcome>,
}

impl Sink for PromotesItself {
    fn accepted(&mut self, request: RequestId) {
        self.waker.lock().unwrap().as_ref().unwrap().promote(request, Priority::High);
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        self.end.send(outcome).unwrap();
    }
}

#[test]
fn a_fetch_promoted_when_it_is_accepted_is_urgent() {
    let content = Content::pattern(10_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        if request.path == "/first" { answer.stall_after(1000) } else { answer }
    });
    let downloader = downloader(|config| config.max_per_origin = 1);
    let (list, (first, _end)) = (List::default(), collect(0));
    list.put(Fetch::get(&origin.url("/first")).unwrap(), first);
    let waker = Arc::default();
    let (end, ended) = mpsc::channel();
    let promoted = PromotesItself { waker: Arc::clone(&waker), end };
    list.put(Fetch::get(&origin.url("/second")).unwrap(), promoted);
    let peer = downloader.register(list, Priority::High).unwrap();
    *waker.lock().unwrap() = Some(peer.waker());
    peer.wake(Priority::Low);
    // As a prefetch it would wait for the first fetch, which does not end.
    assert!(matches!(ended.recv_timeout(Duration::from_secs(60)), Ok(Outcome::Done)));
}

#[test]
fn a_worker_is_idle_before_the_end_of_its_fetch_is_reported() {
    let origin = Origin::serving(Content::pattern(100));
    let downloader = downloader(|_| ());
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let idle = downloader.stats().idle_workers;
    let (ends, end) = mpsc::channel();
    let observed = downloader.clone();
    let sink = Calling::new(At::Finish, move |at, _| {
        if at == At::Finish {
            ends.send(observed.stats().idle_workers).unwrap();
        }
    });
    list.put(Fetch::get(&origin.url("/")).unwrap().priority(Priority::High), sink);
    peer.wake(Priority::High);
    assert_eq!(end.recv_timeout(support::PATIENCE).unwrap(), idle);
}

/// A file whose body arrives for 30 s, so that its piece lasts longer than a piece is planned for.
fn slow_file() -> Origin {
    let content = Content::pattern(48 << 20);
    Origin::start(move |request| match request.path.as_str() {
        "/slow" => Answer::file(request, &content).rate(1_600_000),
        _ => Answer::file(request, &Content::pattern(1000)),
    })
}

/// Such a cut would cost a request and a connection, and frees a worker that nothing needs.
#[test]
fn a_long_body_is_not_cut_while_no_fetch_waits_for_its_worker() {
    let origin = slow_file();
    let downloader = downloader(|config| config.max_concurrent = 1);
    let config = FileConfig::default().read_ahead(ReadAhead::Whole).storage(StorageConfig::WholeMemory);
    let stream = downloader.open_with(&origin.url("/slow"), config).unwrap();
    // Twelve seconds of the body.
    stream.handle().wait_range(0..19_000_000, None).unwrap();
    let log = origin.log();
    let ranges: Vec<_> = log.requests.iter().filter_map(|request| request.header("range")).collect();
    assert_eq!(ranges.iter().filter(|range| !range.starts_with("bytes=-")).count(), 2, "{ranges:?}");
}

#[test]
fn a_long_body_gives_its_worker_to_an_urgent_fetch_although_a_caller_waits_for_all_of_it() {
    let origin = slow_file();
    let downloader = downloader(|config| config.max_concurrent = 1);
    let config = FileConfig::default().read_ahead(ReadAhead::Whole).storage(StorageConfig::WholeMemory);
    let stream = downloader.open_with(&origin.url("/slow"), config).unwrap();
    let (handle, waiting) = (stream.handle(), stream.handle());
    let len = stream.len().unwrap();
    let waits = thread::spawn(move || waiting.wait_range(0..len, None));
    handle.wait_range(0..2_000_000, None).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    execute(&peer, &origin, "/urgent").join().unwrap();
    assert!(handle.wait_range(0..len, Some(Duration::ZERO)).is_err(), "the body had not ended");
    handle.cancel();
    waits.join().unwrap().unwrap_err();
}
