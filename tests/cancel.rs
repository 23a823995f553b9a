//! Cancelling: in each state of a fetch, by each call that cancels. Each fetch ends once, at once, with the reason.

use std::io::Read;
use std::sync::mpsc;
use std::thread;

use support::peers::{Got, List, collect};
use support::{Answer, Content, Origin, Request};
use windway::downloader::{CancelReason, Epoch, Outcome, PeerHandle};
use windway::event::{Event, Subscriber};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, Fetch, Priority};

/// State of the fetch when it is cancelled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Queued,
    AwaitingHead,
    InBody,
    Preempted,
    Retrying,
}

const STATES: [State; 5] =
    [State::Queued, State::AwaitingHead, State::InBody, State::Preempted, State::Retrying];

/// What cancels the fetch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Canceller {
    Epoch,
    Peer,
    LastHandle,
    Stop,
}

impl Canceller {
    const ALL: [Self; 4] = [Self::Epoch, Self::Peer, Self::LastHandle, Self::Stop];

    fn reason(self) -> CancelReason {
        match self {
            Self::Epoch => CancelReason::Epoch,
            Self::Peer | Self::LastHandle => CancelReason::Peer,
            Self::Stop => CancelReason::Shutdown,
        }
    }
}

fn answer(request: &Request) -> Answer {
    let content = Content::pattern(8 << 20);
    let answer = Answer::file(request, &content);
    match request.path.as_str() {
        "/head" => answer.latency_until_released(),
        "/body" => answer.stall_after(1000),
        "/prefetch" => answer.rate(2_000_000),
        _ => Answer::status(503).header("Retry-After", "60"),
    }
}

/// A fetch that stays in a state, and what keeps it there.
struct Held {
    origin: Origin,
    downloader: Downloader,
    peer: PeerHandle,
    epoch: Epoch,
    end: mpsc::Receiver<Got>,
    events: Subscriber,
    /// The thread whose fetch occupies the only worker.
    blocker: Option<thread::JoinHandle<()>>,
}

fn await_event(events: &Subscriber, wanted: fn(&Event) -> bool) {
    assert!(std::iter::from_fn(|| events.recv()).any(|event| wanted(&event)));
}

fn hold(state: State) -> Held {
    let origin = Origin::start(answer);
    let mut config = DownloaderConfig::default();
    config.max_concurrent = 1;
    let downloader = Downloader::new(config).unwrap();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (events, epoch) = (peer.subscribe(), peer.epoch());
    let block = || {
        let other = downloader.register((), Priority::High).unwrap();
        let fetch = Fetch::get(&origin.url("/head")).unwrap();
        thread::spawn(move || drop(other.execute(fetch)))
    };
    let blocked_first = (state == State::Queued).then(|| {
        let blocker = block();
        origin.wait_until("the blocker", |log| log.requests.len() == 1);
        blocker
    });
    let path = match state {
        State::AwaitingHead => "/head",
        State::InBody => "/body",
        State::Queued | State::Preempted => "/prefetch",
        State::Retrying => "/busy",
    };
    let (sink, end) = collect(0);
    let fetch = Fetch::get(&origin.url(path)).unwrap().epoch(&epoch);
    list.put(fetch, sink);
    peer.wake(Priority::Low);
    let blocked_later = match state {
        State::Queued => None,
        State::AwaitingHead => {
            origin.wait_until("the request", |log| log.requests.len() == 1);
            None
        }
        State::InBody => {
            origin.wait_until("the body", |log| log.sent == 1000);
            None
        }
        State::Retrying => {
            await_event(&events, |event| matches!(event, Event::Retrying { .. }));
            None
        }
        State::Preempted => {
            await_event(&events, |event| matches!(event, Event::FirstByte { .. }));
            let blocker = block();
            await_event(&events, |event| matches!(event, Event::Preempted { .. }));
            Some(blocker)
        }
    };
    let blocker = blocked_first.or(blocked_later);
    Held { origin, downloader, peer, epoch, end, events, blocker }
}

#[test]
fn a_fetch_cancelled_in_any_state_ends_once_with_the_reason() {
    for state in STATES {
        for canceller in Canceller::ALL {
            let Held { origin, downloader, peer, epoch, end, events, blocker } = hold(state);
            let mut kept = Some(peer);
            match canceller {
                Canceller::Epoch => epoch.cancel(),
                Canceller::Peer => kept.iter().for_each(PeerHandle::cancel),
                Canceller::LastHandle => kept = None,
                Canceller::Stop => downloader.stop(),
            }
            let case = format!("{state:?} by {canceller:?}");
            // The peer was not polled yet, so no fetch was accepted that could end. Its work is dropped with it.
            if state == State::Queued {
                drop((kept.take(), epoch));
                downloader.stop();
                assert!(end.recv().is_err(), "{case}");
                assert!(std::iter::from_fn(|| events.try_recv()).next().is_none(), "{case}");
            } else {
                let got = end.recv().unwrap();
                let Outcome::Cancelled(reason) = got.outcome else { panic!("{case}: {:?}", got.outcome) };
                assert_eq!(reason, canceller.reason(), "{case}");
                let ended = std::iter::from_fn(|| events.recv()).find(Event::is_end).unwrap();
                assert!(
                    matches!(ended, Event::Cancelled { reason, bytes, .. }
                        if reason == canceller.reason() && bytes == got.bytes.len() as u64),
                    "{case}: {ended:?}"
                );
                drop((kept, epoch));
                downloader.stop();
                assert!(end.recv().is_err(), "{case}: a second end");
                assert!(std::iter::from_fn(|| events.try_recv()).next().is_none(), "{case}");
            }
            origin.release();
            blocker.into_iter().for_each(|blocker| blocker.join().unwrap());
        }
    }
}

#[test]
fn a_caller_cancelled_in_any_state_returns_with_the_reason() {
    for canceller in Canceller::ALL {
        for path in ["/head", "/body", "/busy"] {
            let origin = Origin::start(answer);
            let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
            let peer = downloader.register((), Priority::High).unwrap();
            let (events, epoch) = (peer.subscribe(), peer.epoch());
            let fetch = Fetch::get(&origin.url(path)).unwrap().epoch(&epoch);
            // The last handle cannot be dropped while its own call runs. Its cancel() does the same.
            let caller = peer.clone();
            let blocked = thread::spawn(move || {
                let answer = caller.execute(fetch).and_then(|mut response| {
                    let read = response.read_to_end(&mut Vec::new());
                    read.map_err(Error::from)
                });
                answer.unwrap_err().kind()
            });
            match path {
                "/head" => origin.wait_until("the request", |log| log.requests.len() == 1),
                "/body" => origin.wait_until("the body", |log| log.sent == 1000),
                _ => await_event(&events, |event| matches!(event, Event::Retrying { .. })),
            }
            match canceller {
                Canceller::Epoch => epoch.cancel(),
                Canceller::Peer | Canceller::LastHandle => peer.cancel(),
                Canceller::Stop => downloader.stop(),
            }
            assert_eq!(
                blocked.join().unwrap(),
                ErrorKind::Cancelled(canceller.reason()),
                "{path} by {canceller:?}"
            );
        }
    }
}

#[test]
fn a_cancel_that_races_with_a_completion_ends_each_fetch_once() {
    let content = Content::pattern(2000);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let everything = peer.subscribe();
    let mut ends = Vec::new();
    for round in 0..300_u32 {
        let epoch = peer.epoch();
        let (sink, end) = collect(0);
        list.put(Fetch::get(&origin.url("/a")).unwrap().epoch(&epoch), sink);
        peer.wake(if round % 2 == 0 { Priority::High } else { Priority::Low });
        // A bit later each time: from before the peer is polled to after the end of the fetch.
        (0..round * 50).for_each(|_| std::hint::spin_loop());
        epoch.cancel();
        ends.push((end, epoch));
    }
    let ended = ends.iter().filter(|(end, _)| end.recv().is_ok()).count();
    assert_eq!(ended, 300);
    drop(peer);
    downloader.stop();
    assert!(ends.iter().all(|(end, _)| end.try_recv().is_err()));
    let published = std::iter::from_fn(|| everything.try_recv());
    let (mut begun, mut over) = (0, 0);
    for event in published {
        begun += u32::from(matches!(event, Event::Enqueued { .. }));
        over += u32::from(event.is_end());
    }
    assert_eq!(begun, over);
}

#[test]
fn a_cancelled_epoch_drops_all_its_queued_fetches_and_starts_none() {
    let origin = Origin::start(answer);
    let mut config = DownloaderConfig::default();
    config.max_concurrent = 1;
    let downloader = Downloader::new(config).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    let blocker = {
        let (peer, fetch) = (peer.clone(), Fetch::get(&origin.url("/head")).unwrap());
        thread::spawn(move || drop(peer.execute(fetch)))
    };
    origin.wait_until("the blocker", |log| log.requests.len() == 1);
    let (events, epoch) = (peer.subscribe(), peer.epoch());
    let queued: Vec<_> = (0..20)
        .map(|_| {
            let (peer, fetch) = (peer.clone(), Fetch::get(&origin.url("/body")).unwrap().epoch(&epoch));
            thread::spawn(move || peer.execute(fetch).unwrap_err().kind())
        })
        .collect();
    let is_enqueued = |event: &Event| matches!(event, Event::Enqueued { .. });
    assert_eq!(std::iter::from_fn(|| events.recv()).filter(is_enqueued).take(20).count(), 20);
    epoch.cancel();
    for caller in queued {
        assert_eq!(caller.join().unwrap(), ErrorKind::Cancelled(CancelReason::Epoch));
    }
    assert!(std::iter::from_fn(|| events.try_recv()).all(|event| !matches!(event, Event::Started { .. })));
    assert_eq!((origin.log().requests.len(), downloader.stats().totals.cancelled), (1, 20));
    origin.release();
    blocker.join().unwrap();
}

#[test]
fn a_fetch_with_the_epoch_of_another_peer_is_refused() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let other = downloader.register((), Priority::High).unwrap();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    // If the other peer belonged to another downloader, neither the fetch's own peer nor `stop` could cancel the fetch.
    let get = || Fetch::get(&origin.url("/a")).unwrap().epoch(&other.epoch());
    assert_eq!(peer.execute(get()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let (sink, end) = collect(0);
    list.put(get(), sink);
    peer.wake(Priority::High);
    let got = end.recv().unwrap();
    assert!(
        matches!(&got.outcome, Outcome::Failed(error) if error.kind() == ErrorKind::InvalidInput),
        "{got:?}"
    );
    assert_eq!(origin.log().requests.len(), 0);
}
