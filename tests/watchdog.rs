//! A stalled fetch is reported once, with what each worker runs. A slow or waiting one is not reported.

use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use support::peers::{List, collect, downloader};
use support::{Answer, Content, Origin};
use windway::config::{HangPolicy, ReadAhead};
use windway::downloader::{Next, Outcome, Peer};
use windway::event::{Event, Hang, HangCause, Subscriber};
use windway::{Fetch, FileConfig, Priority};

const HANG: Duration = Duration::from_millis(150);

/// Longer than a busy machine delays a transfer, for tests of transfers that are not stalled.
const LONG_HANG: Duration = Duration::from_secs(1);

fn hangs(events: &Subscriber) -> Vec<Hang> {
    let hang = |event| if let Event::Hang(hang) = event { Some(hang) } else { None };
    std::iter::from_fn(|| events.try_recv()).filter_map(hang).collect()
}

#[test]
fn a_callback_gets_the_fetch_and_its_thread() {
    let content = Content::pattern(100_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(500));
    let (reports, reported) = mpsc::channel();
    let downloader = downloader(|config| {
        config.hang_timeout = HANG;
        config.hang_policy = HangPolicy::on_hang(move |hang| {
            reports.send(hang.clone()).unwrap_or_default();
            panic!("a panic in the callback is harmless");
        });
    });
    let list = List::default();
    let (sink, end) = collect(0);
    list.put(Fetch::get(&origin.url("/a")).unwrap(), sink);
    let peer = downloader.register(list, Priority::High).unwrap();
    peer.wake(Priority::Low);
    let hang = reported.recv().unwrap();
    assert!(matches!(hang.cause, HangCause::Fetch(_)) && hang.silence >= HANG, "{hang:?}");
    assert_eq!(hang.holders.len(), 1);
    assert!(hang.to_string().contains("made no progress"), "{hang}");
    // The fetch was not interrupted, and continues.
    origin.release();
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
}

#[test]
fn a_peer_that_does_not_return_is_reported() {
    struct Blocks(mpsc::Receiver<()>);
    impl Peer for Blocks {
        fn next_fetch(&mut self, _: Priority) -> Next {
            // Ends when the test drops the sender.
            self.0.recv().unwrap_or_default();
            Next::Wait
        }
    }
    let downloader = downloader(|config| config.hang_timeout = HANG);
    let events = downloader.subscribe();
    let (release, blocked) = mpsc::channel();
    let peer = downloader.register(Blocks(blocked), Priority::High).unwrap();
    peer.wake(Priority::High);
    let hang = std::iter::from_fn(|| events.recv()).find_map(|event| match event {
        Event::Hang(hang) => Some(hang),
        _ => None,
    });
    assert_eq!(hang.unwrap().cause, HangCause::Peer);
    drop(release);
}

#[test]
fn a_running_transfer_does_not_hide_a_stalled_one() {
    let content = Content::pattern(300_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/silent" => Answer::file(request, &content).stall_after(500),
        _ => Answer::file(request, &content).rate(100_000),
    });
    let downloader = downloader(|config| config.hang_timeout = LONG_HANG);
    let start = |path: &str| {
        let list = List::default();
        let peer = downloader.register(list.clone(), Priority::High).unwrap();
        let events = peer.subscribe();
        let (sink, end) = collect(0);
        list.put(Fetch::get(&origin.url(path)).unwrap(), sink);
        peer.wake(Priority::Low);
        (peer, events, end)
    };
    let (_silent, events, _silent_end) = start("/silent");
    let (_moving, _, end) = start("/moving");
    assert!(std::iter::from_fn(|| events.recv()).any(|event| matches!(event, Event::Hang(_))));
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    // Reported once.
    assert!(hangs(&events).is_empty());
}

#[test]
fn a_slow_or_waiting_fetch_is_not_stalled() {
    let content = Content::pattern(300_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/busy" => Answer::status(503).header("Retry-After", "60"),
        "/moving" => Answer::file(request, &content).rate(100_000),
        "/sequential" => Answer::whole(&content),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader(|config| config.hang_timeout = LONG_HANG);
    let events = downloader.subscribe();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    // A retry with a delay of a minute.
    let (busy, _busy_end) = collect(0);
    list.put(Fetch::get(&origin.url("/busy")).unwrap(), busy);
    // A body that its caller does not read.
    let unread = peer.execute(Fetch::get(&origin.url("/unread")).unwrap()).unwrap();
    // A sequential source whose reader pauses.
    let mut config = FileConfig::default();
    config.read_ahead = ReadAhead::Bytes(10_000);
    let mut sequential = downloader.open_with(&origin.url("/sequential"), config).unwrap();
    sequential.read_exact(&mut [0; 100]).unwrap();
    // A transfer that takes three times as long as `hang_timeout`, and makes progress.
    let (moving, end) = collect(0);
    list.put(Fetch::get(&origin.url("/moving")).unwrap(), moving);
    peer.wake(Priority::Low);
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    assert!(hangs(&events).is_empty());
    drop((unread, sequential));
}
