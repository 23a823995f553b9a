//! The downloader without streams: peers, `execute`, `batch` and `next_fetch`, and how fetches end.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::dice::Dice;
use support::peers::{Collect, List, collect, downloader, fetch_by_peer, get};
use support::{Answer, Content, Origin, in_time};
use windway::config::HangPolicy;
use windway::downloader::{CancelReason, Flow, Next, Outcome, Peer, PeerHandle, ResponseHead, Sink};
use windway::event::Event;
use windway::{ByteRange, Error, ErrorKind, Fetch, Priority, Response};

#[test]
fn execute_returns_the_open_body() {
    let origin = Origin::serving(Content::pattern(1_000_000));
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let fetch = Fetch::get(&origin.url("/a")).unwrap().range(ByteRange::new(10, 500_010));
    let mut response = peer.execute(fetch).unwrap();
    assert_eq!((response.head().status(), response.head().total()), (206, Some(1_000_000)));
    let mut body = Vec::new();
    response.read_to_end(&mut body).unwrap();
    assert_eq!(body.len(), 500_000);
    assert_pattern(10, &body);
}

#[test]
fn a_batch_returns_responses_in_order_and_each_fetch_fails_by_itself() {
    let content = Content::pattern(100);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/3" => Answer::status(404),
        _ => Answer::file(request, &content),
    });
    let peer = downloader(|config| config.max_concurrent = 2).register((), Priority::High).unwrap();
    let fetches = (0..8).map(|number| {
        let fetch = Fetch::get(&origin.url(&format!("/{number}"))).unwrap();
        fetch.range(ByteRange::new(number, number + 1))
    });
    let answers = peer.batch(fetches.collect::<Vec<_>>());
    assert_eq!(answers.len(), 8);
    for (number, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(response) => assert_eq!(response.head().start(), number as u64),
            Err(error) => assert_eq!((number, error.status()), (3, Some(404))),
        }
    }
}

#[test]
fn a_woken_peer_is_asked_and_its_sink_receives_the_body() {
    let origin = Origin::serving(Content::pattern(1_000_000));
    let got = fetch_by_peer(
        &downloader(|_| ()),
        Fetch::get(&origin.url("/a")).unwrap().range(ByteRange::new(1000, 700_000)),
        1000,
    );
    got.assert_done(1_000..700_000);
}

#[test]
fn a_broken_body_continues_from_its_offset() {
    let content = Content::pattern(500_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        if request.number < 5 { answer.close_after(60_000) } else { answer }
    });
    let got = fetch_by_peer(&downloader(|_| ()), Fetch::get(&origin.url("/a")).unwrap(), 0);
    got.assert_done(0..500_000);
    let requests = origin.log().requests;
    assert_eq!(requests.len(), 6);
    // The last 64 bytes again, for the overlap check.
    assert_eq!(requests[1].range(), Some((59_936, None)));
    assert_eq!(requests[1].header("if-range"), Some("\"v1-500000\""));
}

#[test]
fn a_broken_body_without_ranges_is_requested_again_and_skipped_to_its_offset() {
    let content = Content::pattern(300_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::whole(&content);
        if request.number == 0 { answer.close_after(100_000) } else { answer }
    });
    let got = fetch_by_peer(&downloader(|_| ()), Fetch::get(&origin.url("/a")).unwrap(), 0);
    got.assert_done(0..300_000);
}

#[test]
fn a_changed_resource_is_never_joined_with_the_old_one() {
    let origin = Origin::start(|request| {
        let content = Content::pattern(500_000);
        let answer = Answer::file(request, &content);
        if request.number == 0 { answer.close_after(60_000) } else { answer.header("ETag", "\"v2\"") }
    });
    let got = fetch_by_peer(&downloader(|_| ()), Fetch::get(&origin.url("/a")).unwrap(), 0);
    assert!(matches!(&got.outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Changed));
    assert_eq!(got.bytes.len(), 60_000);
}

#[test]
fn a_transient_status_is_retried_and_a_permanent_one_is_not() {
    let content = Content::pattern(100);
    let origin = Origin::start(move |request| match (request.path.as_str(), request.number) {
        ("/busy", 0) => Answer::status(503).header("Retry-After", "0"),
        ("/busy", _) => Answer::file(request, &content),
        _ => Answer::status(404),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    assert!(peer.execute(Fetch::get(&origin.url("/busy")).unwrap()).is_ok());
    let error = peer.execute(Fetch::get(&origin.url("/gone")).unwrap()).unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert_eq!(origin.log().requests.len(), 3);
}

#[test]
fn events_follow_a_fetch_from_the_queue_to_its_one_end() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::status(503).header("Retry-After", "0"),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader(|_| ());
    let everything = downloader.subscribe();
    let peer = downloader.register((), Priority::High).unwrap();
    let own = peer.subscribe();
    let mut response = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let id = response.request_id();
    response.read_to_end(&mut Vec::new()).unwrap();
    drop(response);
    for subscriber in [everything, own] {
        let events: Vec<Event> = std::iter::from_fn(|| subscriber.try_recv()).collect();
        assert!(events.iter().all(|event| event.request() == Some(id)));
        assert!(
            matches!(
                events[..],
                [
                    Event::Enqueued { .. },
                    Event::Started { .. },
                    Event::Retrying { .. },
                    Event::Started { .. },
                    Event::FirstByte { status: 200, .. },
                    Event::Completed { bytes: 1000, .. },
                ]
            ),
            "{events:?}"
        );
    }
}

#[test]
fn cancelling_an_epoch_ends_its_fetches_and_no_others() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(1000));
    let list = List::default();
    let peer = downloader(|config| config.max_concurrent = 3).register(list.clone(), Priority::High).unwrap();
    let epoch = peer.epoch();
    let (sink, end) = collect(0);
    list.put(Fetch::get(&origin.url("/cancelled")).unwrap().epoch(&epoch), sink);
    let (sink, other_end) = collect(0);
    list.put(Fetch::get(&origin.url("/kept")).unwrap(), sink);
    peer.wake(Priority::High);
    origin.wait_until("two bodies", |log| log.sent == 2000);
    epoch.cancel();
    let got = end.recv().unwrap();
    assert!(matches!(got.outcome, Outcome::Cancelled(CancelReason::Epoch)), "{:?}", got.outcome);
    assert!(other_end.try_recv().is_err());
    drop(peer);
    let got = other_end.recv().unwrap();
    assert!(matches!(got.outcome, Outcome::Cancelled(CancelReason::Peer)), "{:?}", got.outcome);
}

#[test]
fn queued_fetches_of_a_cancelled_epoch_are_never_started() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).latency_until_released());
    let downloader = downloader(|config| config.max_concurrent = 1);
    let peer = downloader.register((), Priority::High).unwrap();
    let epoch = peer.epoch();
    let events = peer.subscribe();
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (peer, url, epoch) = (peer.clone(), origin.url("/a"), epoch.clone());
            thread::spawn(move || peer.execute(Fetch::get(&url).unwrap().epoch(&epoch)).unwrap_err())
        })
        .collect();
    assert_eq!(events.take_enqueued(3), 3);
    origin.wait_until("request", |log| log.requests.len() == 1);
    epoch.cancel();
    for caller in callers {
        assert_eq!(caller.join().unwrap().kind(), ErrorKind::Cancelled(CancelReason::Epoch));
    }
    assert_eq!(origin.log().requests.len(), 1);
}

trait TakeEnqueued {
    fn take_enqueued(&self, number: usize) -> usize;
}

impl TakeEnqueued for windway::event::Subscriber {
    /// Blocks until this number of fetches was accepted.
    fn take_enqueued(&self, number: usize) -> usize {
        let is_enqueued = |event: &Event| matches!(event, Event::Enqueued { .. });
        std::iter::from_fn(|| self.recv()).filter(is_enqueued).take(number).count()
    }
}

#[test]
fn a_sink_that_panics_fails_its_fetch_and_costs_no_worker() {
    struct Panics(mpsc::Sender<Outcome>);
    impl Sink for Panics {
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            panic!("as the test wants");
        }
        fn finish(self: Box<Self>, outcome: Outcome) {
            self.0.send(outcome).unwrap();
        }
    }
    let origin = Origin::serving(Content::pattern(1000));
    let list = List::default();
    let downloader = downloader(|config| config.max_concurrent = 1);
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (ends, end) = mpsc::channel();
    list.put(Fetch::get(&origin.url("/a")).unwrap(), Panics(ends));
    peer.wake(Priority::High);
    let outcome = end.recv().unwrap();
    assert!(matches!(&outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Panicked), "{outcome:?}");
    assert!(peer.execute(Fetch::get(&origin.url("/b")).unwrap()).is_ok());
}

#[test]
fn a_sink_may_refuse_a_response_head_before_a_byte_is_read() {
    struct Refuses(mpsc::Sender<Outcome>);
    impl Sink for Refuses {
        fn head(&mut self, _: &ResponseHead) -> Result<Flow, Error> {
            Err(Error::new(ErrorKind::Refusal, "not this one"))
        }
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            unreachable!("the head was refused");
        }
        fn finish(self: Box<Self>, outcome: Outcome) {
            self.0.send(outcome).unwrap();
        }
    }
    let origin = Origin::serving(Content::pattern(1000));
    let list = List::default();
    let peer = downloader(|_| ()).register(list.clone(), Priority::High).unwrap();
    let (ends, end) = mpsc::channel();
    list.put(Fetch::get(&origin.url("/a")).unwrap(), Refuses(ends));
    peer.wake(Priority::High);
    let outcome = end.recv().unwrap();
    assert!(matches!(&outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Refusal), "{outcome:?}");
}

#[test]
fn a_detached_body_holds_no_worker() {
    struct Detaches(mpsc::Sender<Response>);
    impl Sink for Detaches {
        fn head(&mut self, _: &ResponseHead) -> Result<Flow, Error> {
            Ok(Flow::Detach)
        }
        fn detached(self: Box<Self>, body: Response) {
            self.0.send(body).unwrap();
        }
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            unreachable!("the body was detached");
        }
        fn finish(self: Box<Self>, _: Outcome) {
            unreachable!("the body was detached");
        }
    }
    let origin = Origin::serving(Content::pattern(1000));
    let list = List::default();
    let downloader = downloader(|config| config.max_concurrent = 1);
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (bodies, body) = mpsc::channel();
    list.put(Fetch::get(&origin.url("/a")).unwrap(), Detaches(bodies));
    peer.wake(Priority::High);
    let mut body = body.recv().unwrap();
    assert!(peer.execute(Fetch::get(&origin.url("/b")).unwrap()).is_ok());
    assert_whole(&mut body, 1000);
}

#[test]
fn the_drop_of_the_last_handle_frees_the_peer() {
    struct Held(Arc<()>);
    impl Peer for Held {
        fn next_fetch(&mut self, _: Priority) -> Next {
            let _ = &self.0; // Held, not used.
            Next::Wait
        }
    }
    let downloader = downloader(|_| ());
    let held = Arc::new(());
    let peer = downloader.register(Held(Arc::clone(&held)), Priority::High).unwrap();
    let second = peer.clone();
    drop(peer);
    assert_eq!(Arc::strong_count(&held), 2);
    drop(second);
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(downloader.stats().peers, 0);
}

#[test]
fn too_many_open_bodies_fail_at_once() {
    let origin = Origin::serving(Content::pattern(1000));
    let peer = downloader(|config| config.max_open_bodies = 2).register((), Priority::High).unwrap();
    let get = || Fetch::get(&origin.url("/a")).unwrap();
    let first = peer.execute(get()).unwrap();
    let _second = peer.execute(get()).unwrap();
    assert_eq!(peer.execute(get()).unwrap_err().kind(), ErrorKind::TooManyOpenBodies);
    drop(first);
    assert!(peer.execute(get()).is_ok());
}

#[test]
fn a_batch_may_be_larger_than_the_peer_capacity() {
    let origin = Origin::serving(Content::pattern(1000));
    let peer = downloader(|config| config.peer_capacity = 2).register((), Priority::High).unwrap();
    let fetches = (0..50).map(|_| Fetch::get(&origin.url("/a")).unwrap());
    let answers: Vec<_> = peer.batch(fetches.collect::<Vec<_>>()).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 50);
    // All their bodies are open, and hold no credit.
    assert!(peer.execute(Fetch::get(&origin.url("/a")).unwrap()).is_ok());
}

#[test]
fn execute_in_a_callback_fails_instead_of_waiting_for_itself() {
    struct Nested(windway::downloader::PeerHandle, String, mpsc::Sender<Error>);
    impl Sink for Nested {
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            self.2.send(self.0.execute(Fetch::get(&self.1)?).unwrap_err()).unwrap();
            Ok(())
        }
        fn finish(self: Box<Self>, _: Outcome) {}
    }
    let origin = Origin::serving(Content::pattern(1000));
    let list = List::default();
    let downloader = downloader(|_| ());
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (errors, error) = mpsc::channel();
    list.put(Fetch::get(&origin.url("/a")).unwrap(), Nested(peer.clone(), origin.url("/b"), errors));
    peer.wake(Priority::High);
    assert_eq!(error.recv().unwrap().kind(), ErrorKind::WouldDeadlock);
}

#[test]
fn every_fetch_ends_once_when_the_downloader_stops() {
    let content = Content::pattern(300_000);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    for _ in 0..20 {
        let downloader = downloader(|config| config.max_concurrent = 3);
        let list = List::default();
        let (ends, end) = mpsc::channel();
        let peer = downloader.register(list.clone(), Priority::High).unwrap();
        for _ in 0..30 {
            let sink = Collect::new(0, &ends);
            list.put(Fetch::get(&origin.url("/a")).unwrap(), sink);
        }
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (peer, url) = (peer.clone(), origin.url("/b"));
                thread::spawn(move || while peer.execute(Fetch::get(&url).unwrap()).is_ok() {})
            })
            .collect();
        peer.wake(Priority::Low);
        end.recv().unwrap();
        downloader.stop();
        for caller in callers {
            caller.join().unwrap();
        }
        // Fetches that the list never returned are dropped with it, and have no end.
        let left = list.clear();
        drop((peer, downloader, list, ends));
        assert_eq!(end.iter().count() + 1 + left, 30);
    }
}

/// Starts six prefetches that occupy all workers, then as many urgent fetches as there are workers.
fn urgent_fetches_preempt(reserved: usize, prefetch: fn(Answer) -> Answer) {
    const WORKERS: u64 = 4;
    let content = Content::pattern(400_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/prefetch" if request.range().is_none_or(|(first, _)| first == 0) => {
            prefetch(Answer::file(request, &content))
        }
        _ => Answer::file(request, &content),
    });
    let downloader = downloader(|config| {
        config.max_concurrent = WORKERS as usize;
        config.reserved = reserved;
        config.max_per_origin = 100;
    });
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let events = peer.subscribe();
    let (ends, end) = mpsc::channel();
    let running = WORKERS - reserved as u64;
    for _ in 0..running {
        let sink = Collect::new(0, &ends);
        list.put(Fetch::get(&origin.url("/prefetch")).unwrap(), sink);
    }
    peer.wake(Priority::Low);
    origin.wait_until("prefetch body", |log| log.sent >= running * 1000);
    let urgent: Vec<Fetch> = (0..WORKERS).map(|_| Fetch::get(&origin.url("/urgent")).unwrap()).collect();
    for answer in peer.batch(urgent) {
        let mut body = Vec::new();
        answer.unwrap().read_to_end(&mut body).unwrap();
        assert_eq!(body.len(), 400_000);
    }
    // A reserved worker may have served them all. Without one, a prefetch had to be preempted.
    let is_preempted = |event: &Event| matches!(event, Event::Preempted { .. });
    assert!(reserved > 0 || std::iter::from_fn(|| events.try_recv()).any(|event| is_preempted(&event)));
    origin.release();
    for _ in 0..running {
        let got = end.recv().unwrap();
        got.assert_done(0..400_000);
    }
}

#[test]
fn urgent_fetches_preempt_slow_bodies() {
    for reserved in [0, 1] {
        urgent_fetches_preempt(reserved, |answer| answer.rate(1_000_000));
    }
}

#[test]
fn urgent_fetches_preempt_silent_bodies() {
    for reserved in [0, 1] {
        urgent_fetches_preempt(reserved, |answer| answer.stall_after(1000));
    }
}

#[test]
fn one_origin_does_not_take_all_workers() {
    let content = Content::pattern(10_000);
    let slow = Origin::start({
        let content = content.clone();
        move |request| Answer::file(request, &content).stall_after(1000)
    });
    let other = Origin::serving(content);
    let downloader = downloader(|config| {
        config.max_concurrent = 3;
        config.reserved = 0;
        config.max_per_origin = 2;
    });
    let peers = [(); 2].map(|()| {
        let list = List::default();
        (downloader.register(list.clone(), Priority::High).unwrap(), list)
    });
    for _ in 0..5 {
        peers[0].1.put(Fetch::get(&slow.url("/a")).unwrap(), collect(0).0);
    }
    peers[0].0.wake(Priority::Low);
    slow.wait_until("two bodies", |log| log.sent == 2000);
    let (sink, end) = collect(0);
    peers[1].1.put(Fetch::get(&other.url("/a")).unwrap(), sink);
    peers[1].0.wake(Priority::Low);
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    assert_eq!(slow.log().requests.len(), 2);
    assert_eq!(downloader.stats().blocked, 1);
}

#[test]
fn a_slow_fetch_is_reported_once_and_continues() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(500));
    let downloader = downloader(|config| config.soft_timeout = Duration::from_millis(50));
    let peer = downloader.register((), Priority::High).unwrap();
    let events = peer.subscribe();
    let mut response = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let is_slow = |event: &Event| matches!(event, Event::Slow { .. });
    let slow = std::iter::from_fn(|| events.recv()).find(is_slow).unwrap();
    assert_eq!(slow.request(), Some(response.request_id()));
    origin.release();
    assert_whole(&mut response, 1000);
    assert!(std::iter::from_fn(|| events.try_recv()).all(|event| !is_slow(&event)));
}

#[test]
fn a_stalled_fetch_is_reported_once_and_cancelled_if_configured() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/silent" => Answer::file(request, &content).stall_after(500),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader(|config| {
        config.hang_timeout = Duration::from_millis(100);
        config.hang_policy = HangPolicy::CancelStalled;
        config.max_concurrent = 1;
    });
    let events = downloader.subscribe();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (sink, end) = collect(0);
    list.put(Fetch::get(&origin.url("/silent")).unwrap(), sink);
    peer.wake(Priority::Low);
    let got = end.recv().unwrap();
    assert!(matches!(&got.outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Stalled), "{got:?}");
    assert!(peer.execute(Fetch::get(&origin.url("/other")).unwrap()).is_ok());
    let hangs = std::iter::from_fn(|| events.try_recv()).filter(|event| matches!(event, Event::Hang(_)));
    assert_eq!(hangs.count(), 1);
}

#[test]
fn a_refused_response_head_does_not_change_the_next_request() {
    /// Accepts partial responses only. Its error for a whole resource is retryable.
    struct Parts(Collect);
    impl Sink for Parts {
        fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
            if head.is_partial() {
                Ok(Flow::Stream)
            } else {
                Err(Error::new(ErrorKind::RangeIgnored, "the whole"))
            }
        }
        fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
            self.0.write(offset, bytes)
        }
        fn finish(self: Box<Self>, outcome: Outcome) {
            Box::new(self.0).finish(outcome);
        }
    }
    let content = Content::pattern(500_000);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::whole(&content).header("ETag", &content.etag()),
        _ => Answer::file(request, &content),
    });
    let list = List::default();
    let peer = downloader(|_| ()).register(list.clone(), Priority::High).unwrap();
    let (sink, end) = collect(200_000);
    list.put(Fetch::get(&origin.url("/a")).unwrap().range(ByteRange::new(200_000, 300_000)), Parts(sink));
    peer.wake(Priority::High);
    let got = end.recv().unwrap();
    assert!(matches!(got.outcome, Outcome::Done), "{:?}", got.outcome);
    assert_eq!(got.bytes.len(), 100_000);
    let ranges: Vec<_> = origin.log().requests.iter().map(|request| request.range()).collect();
    assert_eq!(ranges, [Some((200_000, Some(299_999))); 2]);
}

#[test]
fn a_body_is_complete_once_all_announced_bytes_were_read() {
    let origin = Origin::serving(Content::pattern(1000));
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let whole = Fetch::get(&origin.url("/a")).unwrap();
    let part = Fetch::get(&origin.url("/a")).unwrap().range(ByteRange::new(100, 200));
    for (fetch, len) in [(whole, 1000), (part, 100)] {
        let before = peer.totals();
        let mut response = peer.execute(fetch).unwrap();
        response.read_exact(&mut vec![0; len]).unwrap();
        // By the last read, and not by the drop: a caller may keep the response for long.
        assert_eq!(peer.totals().completed, before.completed + 1);
        assert_eq!(response.read(&mut [0; 10]).unwrap(), 0);
        drop(response);
        assert_eq!(peer.totals().cancelled, 0);
    }
    let mut response = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    response.read_exact(&mut vec![0; 999]).unwrap();
    drop(response);
    assert_eq!((peer.totals().completed, peer.totals().cancelled), (2, 1));
}

fn fetches(origin: &Origin, number: usize) -> Vec<Fetch> {
    (0..number).map(|_| Fetch::get(&origin.url("/a")).unwrap()).collect()
}

#[test]
fn a_batch_may_be_larger_than_the_number_of_open_bodies() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|_| ());
    let peer = downloader.register((), Priority::High).unwrap();
    let mut read = 0;
    for answer in peer.batch(fetches(&origin, 200)) {
        read += answer.unwrap().read_to_end(&mut Vec::new()).unwrap();
    }
    assert_eq!((read, downloader.stats().open_bodies), (200_000, 0));
}

/// Whatever becomes of a fetch and of its response, the next one gets its credit.
#[test]
fn no_credit_is_lost() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/held" => Answer::file(request, &content).latency_until_released(),
        "/missing" => Answer::status(404),
        "/broken" => Answer::file(request, &content).reset_in_head(10),
        _ => Answer::file(request, &content),
    });
    in_time("all fetches", move || {
        for capacity in [1, 3] {
            let downloader = downloader(|config| (config.peer_capacity, config.max_retries) = (capacity, 0));
            let peer = downloader.register((), Priority::High).unwrap();
            thread::scope(|scope| {
                for seed in 0..8 {
                    let (peer, origin) = (&peer, &origin);
                    scope.spawn(move || {
                        let mut dice = Dice(seed);
                        (0..150).for_each(|_| spend_a_credit(peer, origin, &mut dice));
                    });
                }
            });
            // As many as before wait for their response heads at once.
            let sent = origin.log().requests.len();
            thread::scope(|scope| {
                for _ in 0..capacity {
                    scope.spawn(|| peer.execute(get(&origin, "/held")).unwrap_err());
                }
                origin.wait_until("a request for each credit", |log| log.requests.len() == sent + capacity);
                peer.cancel();
            });
            assert_eq!(downloader.stats().open_bodies, 0);
        }
    });
}

/// Uses a credit in one of the ways in which it comes back.
fn spend_a_credit(peer: &PeerHandle, origin: &Origin, dice: &mut Dice) {
    match dice.roll(8) {
        0 => drop(peer.execute(get(origin, "/a"))),
        1 => assert_eq!(peer.execute(get(origin, "/a")).unwrap().bytes(1000).unwrap().len(), 1000),
        2 => drop(peer.execute(get(origin, ["/missing", "/broken"][dice.roll(2) as usize])).unwrap_err()),
        3 => {
            let panics = get(origin, "/a").validate(|_| panic!("as the test wants"));
            assert_eq!(peer.execute(panics).unwrap_err().kind(), ErrorKind::Panicked);
        }
        4 => {
            // Its credit, or its response, is awaited at this time, or has just come.
            let epoch = peer.epoch();
            let fetch = get(origin, "/a").epoch(&epoch);
            thread::scope(|scope| {
                scope.spawn(|| drop(peer.execute(fetch)));
                epoch.cancel();
            });
        }
        5 => {
            let response = peer.execute(get(origin, "/a")).unwrap();
            thread::scope(|scope| drop(scope.spawn(move || drop(response))));
        }
        6 => drop(peer.batch(fetches(origin, 5))),
        _ => {
            let mut batch = peer.batch(fetches(origin, 5));
            (0..dice.roll(4)).for_each(|_| drop(batch.next()));
        }
    }
}

/// A list that is paged: the next fetches are named by the response to another one.
#[test]
fn the_fetches_of_a_batch_may_be_made_by_other_fetches_of_its_peer() {
    for capacity in [1, 4] {
        let origin = Origin::serving(Content::pattern(1000));
        in_time("a batch", move || {
            let downloader = downloader(|config| config.peer_capacity = capacity);
            let peer = downloader.register((), Priority::High).unwrap();
            let own = peer.clone();
            let paged = fetches(&origin, 20).into_iter().inspect(move |fetch| {
                assert_eq!(own.execute(fetch.clone()).unwrap().bytes(1000).unwrap().len(), 1000);
            });
            assert_eq!(
                peer.batch(paged).map(|answer| answer.unwrap().bytes(1000).unwrap().len()).sum::<usize>(),
                20_000
            );
        });
    }
}

#[test]
fn the_fetches_of_a_batch_whose_iterator_panics_end() {
    let origin = Origin::serving(Content::pattern(1000));
    in_time("the ends", move || {
        let downloader = downloader(|config| config.peer_capacity = 4);
        let peer = downloader.register((), Priority::High).unwrap();
        let events = peer.subscribe();
        for good in 0..8 {
            let mut number = 0;
            let list = fetches(&origin, 10).into_iter().inspect(move |_| {
                assert_ne!(number, good, "as the test wants");
                number += 1;
            });
            let batch = AssertUnwindSafe(|| peer.batch(list).for_each(|answer| drop(answer.unwrap())));
            catch_unwind(batch).unwrap_err();
            let mut open = 0;
            while let Some(event) = if open == 0 { events.try_recv() } else { events.recv() } {
                open += i32::from(matches!(event, Event::Enqueued { .. })) - i32::from(event.is_end());
            }
            assert_eq!(open, 0);
        }
    });
}

#[test]
fn a_caller_that_waits_for_a_response_head_holds_no_open_body() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/held" => Answer::file(request, &content).latency_until_released(),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader(|config| config.max_open_bodies = 2);
    let peer = downloader.register((), Priority::High).unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let (peer, fetch) = (peer.clone(), Fetch::get(&origin.url("/held")).unwrap());
            thread::spawn(move || peer.execute(fetch).map(drop))
        })
        .collect();
    origin.wait_until("requests", |log| log.requests.len() == 4);
    assert_eq!(downloader.stats().open_bodies, 0);
    let first = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let _second = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let third = peer.execute(Fetch::get(&origin.url("/a")).unwrap());
    assert_eq!(third.unwrap_err().kind(), ErrorKind::TooManyOpenBodies);
    drop(first);
    downloader.stop();
    for caller in waiting {
        assert!(caller.join().unwrap().is_err_and(|error| error.is_cancelled()));
    }
}

#[test]
fn a_detached_body_counts_as_open() {
    struct Detaches(mpsc::Sender<Result<Response, Outcome>>);
    impl Sink for Detaches {
        fn head(&mut self, _: &ResponseHead) -> Result<Flow, Error> {
            Ok(Flow::Detach)
        }
        fn detached(self: Box<Self>, body: Response) {
            self.0.send(Ok(body)).unwrap();
        }
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            unreachable!("the body was detached");
        }
        fn finish(self: Box<Self>, outcome: Outcome) {
            self.0.send(Err(outcome)).unwrap();
        }
    }
    let origin = Origin::serving(Content::pattern(1000));
    let list = List::default();
    let downloader = downloader(|config| config.max_open_bodies = 1);
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (bodies, body) = mpsc::channel();
    let get = || Fetch::get(&origin.url("/a")).unwrap();
    list.put(get(), Detaches(bodies.clone()));
    peer.wake(Priority::High);
    let open = body.recv().unwrap().unwrap();
    assert_eq!(downloader.stats().open_bodies, 1);
    assert_eq!(peer.execute(get()).unwrap_err().kind(), ErrorKind::TooManyOpenBodies);
    list.put(get().max_retries(0), Detaches(bodies));
    peer.wake(Priority::High);
    let outcome = body.recv().unwrap().unwrap_err();
    assert!(matches!(&outcome, Outcome::Failed(error) if error.kind() == ErrorKind::TooManyOpenBodies));
    drop(open);
    assert!(peer.execute(get()).is_ok());
}

#[test]
fn a_batch_waits_until_other_callers_close_bodies() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| config.max_open_bodies = 1);
    let peer = downloader.register((), Priority::High).unwrap();
    for end in ["closed", "epoch", "peer", "stop"] {
        let holder = downloader.register((), Priority::High).unwrap();
        let held = holder.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
        let own = downloader.register((), Priority::High).unwrap();
        let epoch = own.epoch();
        let mut batch =
            own.batch(fetches(&origin, 1).into_iter().map(|fetch| fetch.epoch(&epoch)).collect::<Vec<_>>());
        let waits = thread::spawn(move || batch.next().unwrap().map(drop));
        let answer = |waits: thread::JoinHandle<_>| waits.join().unwrap();
        match end {
            "closed" => {
                drop(held);
                answer(waits).unwrap();
            }
            "epoch" => {
                epoch.cancel();
                assert_eq!(answer(waits).unwrap_err().kind(), ErrorKind::Cancelled(CancelReason::Epoch));
            }
            "peer" => {
                own.cancel();
                assert_eq!(answer(waits).unwrap_err().kind(), ErrorKind::Cancelled(CancelReason::Peer));
            }
            _ => {
                downloader.stop();
                assert_eq!(answer(waits).unwrap_err().kind(), ErrorKind::Cancelled(CancelReason::Shutdown));
            }
        }
    }
    assert!(peer.execute(Fetch::get(&origin.url("/a")).unwrap()).is_err());
}

#[test]
fn a_batch_leaves_room_for_the_responses_that_its_iterator_keeps() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| {
        config.max_open_bodies = 4;
        config.client.silence_timeout = Duration::from_millis(100);
    });
    let peer = downloader.register((), Priority::High).unwrap();
    let (own, kept) = (peer.clone(), Arc::new(Mutex::new(Vec::new())));
    let keeps = Arc::clone(&kept);
    let keeping = fetches(&origin, 4).into_iter().enumerate().map(move |(at, fetch)| {
        if at < 2 {
            keeps.lock().unwrap().push(own.execute(fetch.clone()).unwrap());
        }
        fetch
    });
    let answers: Vec<_> = peer.batch(keeping).collect();
    assert_eq!(kept.lock().unwrap().len(), 2);
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(Error::kind).err()).collect();
    let full = Some(ErrorKind::TooManyOpenBodies);
    assert_eq!(kinds, [None, None, full, full]);
}

#[test]
fn a_batch_whose_caller_holds_all_bodies_fails_instead_of_waiting_forever() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| {
        config.max_open_bodies = 2;
        config.client.silence_timeout = Duration::from_millis(100);
    });
    let peer = downloader.register((), Priority::High).unwrap();
    let answers: Vec<_> = peer.batch(fetches(&origin, 200)).collect();
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(Error::kind).err()).collect();
    assert_eq!(kinds[..2], [None, None]);
    assert!(kinds[2..].iter().all(|kind| *kind == Some(ErrorKind::TooManyOpenBodies)), "{kinds:?}");
    // Two batches of which each holds half of the bodies and waits for the other half.
    drop(answers);
    let both: Vec<_> = (0..2)
        .map(|_| {
            let (peer, fetches) = (peer.clone(), fetches(&origin, 3));
            thread::spawn(move || peer.batch(fetches).collect::<Vec<_>>())
        })
        .collect();
    for caller in both {
        let answers = caller.join().unwrap();
        assert!(answers.iter().flatten().count() <= 2);
    }
    assert_eq!(downloader.stats().open_bodies, 0);
    assert!(peer.execute(Fetch::get(&origin.url("/a")).unwrap()).is_ok());
}

#[test]
fn the_drop_of_a_batch_cancels_the_fetches_whose_responses_were_not_taken() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::file(request, &content),
        _ => Answer::file(request, &content).latency_until_released(),
    });
    let downloader = downloader(|config| config.max_concurrent = 1);
    let peer = downloader.register((), Priority::High).unwrap();
    let mut batch = peer.batch(fetches(&origin, 5));
    assert_eq!(batch.len(), 5);
    let first = batch.next().unwrap().unwrap();
    origin.wait_until("the second request", |log| log.requests.len() == 2);
    drop(batch);
    // The worker is free again, and no request of the other fetches is sent.
    drop(first);
    origin.release();
    peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    assert_eq!(origin.log().requests.len(), 3);
}

#[test]
fn a_body_is_read_as_bytes_or_text_up_to_a_limit() {
    let origin = Origin::start(|request| {
        let bytes = |bytes: &[u8]| Answer::whole(&Content::bytes(bytes));
        match request.path.as_str() {
            "/text" => bytes("\u{feff}#EXTM3U ü".as_bytes()),
            "/latin1" => bytes(b"caf\xe9"),
            "/unannounced" => bytes(b"0123456789").no_length(),
            _ => bytes(b"0123456789"),
        }
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let get = |path: &str| peer.execute(Fetch::get(&origin.url(path)).unwrap()).unwrap();
    assert_eq!(get("/text").text(100).unwrap(), "#EXTM3U ü");
    let error = get("/latin1").text(100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotText);
    assert!(error.to_string().contains("from byte 3 on"), "{error}");
    for path in ["/announced", "/unannounced"] {
        assert_eq!(get(path).bytes(10).unwrap(), b"0123456789");
        let error = get(path).bytes(9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("the limit is 9 bytes"), "{error}");
        assert!(error.url().is_some());
    }
    // Only the bytes that were not read yet count.
    let mut response = get("/announced");
    response.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(response.bytes(6).unwrap(), b"456789");
}

#[test]
fn all_headers_of_a_response_can_be_read() {
    let fields = "X-Twice: one\r\nX-Twice: two\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::start(move |_| Answer::raw(format!("HTTP/1.1 200 OK\r\n{fields}")));
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let response = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let named = |name: &str| response.head().headers().filter(|field| field.0 == name).count();
    assert_eq!((named("x-twice"), named("content-length"), named("X-Twice")), (2, 1, 0));
}

#[test]
fn a_clone_of_a_fetch_fetches_the_same_again() {
    let origin = Origin::serving(Content::pattern(1000));
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let (checked, checks) = mpsc::channel();
    let fetch = Fetch::get(&origin.url("/a")).unwrap().range(ByteRange::new(10, 20)).validate(move |head| {
        checked.send(head.start()).unwrap();
        Ok(())
    });
    for fetch in [fetch.clone(), fetch] {
        assert_pattern(10, &peer.execute(fetch).unwrap().bytes(10).unwrap());
    }
    assert_eq!(checks.iter().collect::<Vec<_>>(), [10, 10]);
}

#[test]
fn a_required_range_that_is_ignored_fails_before_the_body_is_read() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        // A 200 as long as the range may be the range or the whole resource.
        "/unclear" => Answer::whole(&Content::pattern(10)),
        "/whole" => Answer::whole(&content).stall_after(0),
        _ => Answer::file(request, &content),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let get = |path: &str| {
        let fetch = Fetch::get(&origin.url(path)).unwrap().max_retries(0);
        peer.execute(fetch.range(ByteRange::new(10, 20)).require_range())
    };
    for path in ["/unclear", "/whole"] {
        let error = get(path).unwrap_err();
        assert_eq!((error.kind(), error.range()), (ErrorKind::RangeIgnored, Some(ByteRange::new(10, 20))));
    }
    assert_eq!(origin.log().requests.len(), 2);
    assert_pattern(10, &get("/served").unwrap().bytes(10).unwrap());
}

#[test]
fn a_held_fetch_holds_no_worker_and_outlasts_the_silence_limit() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/held" | "/silent" => Answer::whole(&content).latency_until_released(),
        _ => Answer::whole(&content),
    });
    let downloader = downloader(|config| {
        config.max_concurrent = 1;
        config.max_retries = 0;
        config.soft_timeout = Duration::from_millis(1);
        config.client.silence_timeout = Duration::from_millis(50);
    });
    let peer = downloader.register((), Priority::High).unwrap();
    let events = downloader.subscribe();
    let get = |path: &str| Fetch::get(&origin.url(path)).unwrap();
    let held = get("/held").held(Duration::from_secs(3600));
    let caller = thread::spawn({
        let peer = peer.clone();
        move || peer.execute(held)
    });
    origin.wait_until("the held request", |log| log.requests.len() == 1);
    assert_eq!(downloader.stats().busy_workers, 0);
    // The only worker is free. Meanwhile another request fails after the silence limit.
    assert_eq!(peer.execute(get("/a")).unwrap().bytes(1000).unwrap().len(), 1000);
    assert_eq!(peer.execute(get("/silent")).unwrap_err().kind(), ErrorKind::Silent);
    origin.release();
    let response = caller.join().unwrap().unwrap();
    let id = response.request_id();
    assert_eq!(response.bytes(1000).unwrap().len(), 1000);
    let events = std::iter::from_fn(|| events.try_recv()).filter(|event| event.request() == Some(id));
    let events: Vec<Event> = events.collect();
    assert!(
        matches!(
            events[..],
            [
                Event::Enqueued { .. },
                Event::Started { .. },
                Event::FirstByte { status: 200, .. },
                Event::Completed { bytes: 1000, .. },
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn a_held_fetch_is_cancelled_with_its_epoch_and_retried_after_a_failure() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match (request.path.as_str(), request.again) {
        ("/busy", 0) => Answer::status(503).header("Retry-After", "0"),
        ("/busy", _) => Answer::whole(&content),
        _ => Answer::whole(&content).latency_until_released(),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let epoch = peer.epoch();
    let held = |path: &str| Fetch::get(&origin.url(path)).unwrap().held(Duration::from_secs(3600));
    peer.execute(held("/busy")).unwrap().bytes(1000).unwrap();
    let caller = thread::spawn({
        let (peer, fetch) = (peer.clone(), held("/a").epoch(&epoch));
        move || peer.execute(fetch)
    });
    origin.wait_until("the held request", |log| log.requests.len() == 3);
    epoch.cancel();
    let error = caller.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled(CancelReason::Epoch));
    assert_eq!(peer.totals().cancelled, 1);
}

#[test]
fn a_held_fetch_runs_by_execute_only() {
    let list = List::default();
    let peer = downloader(|_| ()).register(list.clone(), Priority::High).unwrap();
    let held = |limit| Fetch::get("http://127.0.0.1:1/").unwrap().held(limit);
    let minute = Duration::from_secs(60);
    let error = peer.batch(vec![held(minute)]).next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(peer.execute(held(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let (sink, end) = collect(0);
    list.put(held(minute), sink);
    peer.wake(Priority::High);
    let outcome = end.recv().unwrap().outcome;
    assert!(
        matches!(&outcome, Outcome::Failed(error) if error.kind() == ErrorKind::InvalidInput),
        "{outcome:?}"
    );
}

#[test]
fn what_has_not_changed_is_a_304_and_what_has_changed_is_read_to_its_end() {
    let content = Content::pattern(500_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content).header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT");
        match request.header("if-none-match").or(request.header("if-modified-since")) {
            // The length is that of the body that is not sent (RFC 9110, section 8.6).
            Some("W/\"v1\"" | "Tue, 14 Nov 2023 22:13:20 GMT") => {
                Answer::raw("HTTP/1.1 304 Not Modified\r\nETag: W/\"v1\"\r\nContent-Length: 500000\r\n\r\n")
            }
            // Broken once.
            Some(_) => answer.close_after(60_000),
            None => answer,
        }
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let fetch = || get(&origin, "/a").max_retries(1);
    for same in [
        fetch().if_none_match("W/\"v1\"").unwrap(),
        fetch().if_modified_since("Tue, 14 Nov 2023 22:13:20 GMT").unwrap(),
    ] {
        assert_eq!(peer.execute(same).unwrap_err().kind(), ErrorKind::Status(304));
    }
    let changed = fetch().if_none_match("\"v0\"").unwrap();
    assert_whole(&mut peer.execute(changed).unwrap(), 500_000);
    // The rest is requested without the condition, which the beginning has answered.
    let rest = origin.log().requests.pop().unwrap();
    assert!(rest.range().is_some() && rest.header("if-none-match").is_none());
    assert_eq!(fetch().if_none_match("\n").unwrap_err().kind(), ErrorKind::InvalidInput);
    // A server that sends a 304 by itself breaks HTTP.
    let wrong = Origin::start(|_| Answer::raw("HTTP/1.1 304 Not Modified\r\n\r\n"));
    assert_eq!(peer.execute(get(&wrong, "/a")).unwrap_err().kind(), ErrorKind::Protocol);
}
