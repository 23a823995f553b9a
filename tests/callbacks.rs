//! Every callback of windway combined with every blocking call. The crate's documentation has the same table.

use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use support::peers::{At, Calling, List, collect, downloader, read_all};
use support::{Answer, Content, Origin, PATIENCE, in_time};
use windway::config::{HangPolicy, Hook, RequestHook, RequestKind};
use windway::downloader::{Next, Peer, PeerHandle, ResponseHead, Sink};
use windway::{
    Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority, Radio, RadioConfig, Stream,
};

/// The callbacks of windway.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Callback {
    NextFetch,
    Sink(At),
    ValidateOnWorker,
    ValidateInExecute,
    ValidateInRead,
    OnCancel,
    OnHang,
    DropOfPeer,
    DropOfClosure,
}

const CALLBACKS: [Callback; 14] = [
    Callback::NextFetch,
    Callback::Sink(At::Accepted),
    Callback::Sink(At::ResponseHead),
    Callback::Sink(At::Detached),
    Callback::Sink(At::Write),
    Callback::Sink(At::Retrying),
    Callback::Sink(At::Finish),
    Callback::ValidateOnWorker,
    Callback::ValidateInExecute,
    Callback::ValidateInRead,
    Callback::OnCancel,
    Callback::OnHang,
    Callback::DropOfPeer,
    Callback::DropOfClosure,
];

/// What a callback does the first time it is called.
#[derive(Clone)]
struct Action(Arc<Mutex<Option<Once>>>);

type Once = Box<dyn FnOnce() + Send>;

impl Action {
    fn new(action: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(action)))))
    }

    fn run(&self) {
        // Outside of the lock: the action may cause another callback.
        let action = self.0.lock().unwrap().take();
        if let Some(action) = action {
            action();
        }
    }
}

/// Calls `action` when it is dropped.
struct RunsWhenDropped(Action);

impl Drop for RunsWhenDropped {
    fn drop(&mut self) {
        self.0.run();
    }
}

/// A sink that runs `action` in `callback`, if that is one of its own.
fn acting_sink(callback: Callback, action: Action) -> impl Sink + 'static {
    let wanted = if let Callback::Sink(at) = callback { Some(at) } else { None };
    Calling::new(wanted.unwrap_or(At::Finish), move |at, body| {
        if wanted == Some(at) {
            action.run();
        }
        // Allowed, because it waits for its own connection only. After a stop of the downloader it fails and does not hang.
        let mut all = Vec::new();
        match body.map(|mut body| body.read_to_end(&mut all)) {
            Some(Ok(_)) => assert_eq!(all.len(), 1000),
            Some(Err(error)) => assert!(Error::from(error).is_cancelled()),
            None => {}
        }
    })
}

struct ActingPeer(List, Action);

impl Peer for ActingPeer {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        self.1.run();
        self.0.next_fetch(admissible)
    }
}

fn answer(request: &support::Request) -> Answer {
    let content = Content::pattern(1000);
    match (request.path.as_str(), request.number) {
        ("/busy", 0) => Answer::status(503).header("Retry-After", "0"),
        ("/breaking", 0) => Answer::file(request, &content).close_after(100),
        ("/silent", _) => Answer::file(request, &content).stall_after(100),
        _ => Answer::file(request, &content),
    }
}

/// Calls `action` in `callback` of `downloader`, which has one worker. Some callbacks run on this thread.
fn call_in(callback: Callback, downloader: &Downloader, origin: &Origin, action: &Action) {
    let get = |path: &str| Fetch::get(&origin.url(path)).unwrap();
    let peer = || downloader.register((), Priority::High).unwrap();
    let list = List::default();
    let in_validate = action.clone();
    let validate = move |_: &ResponseHead| {
        in_validate.run();
        Ok(())
    };
    let fetch_by_peer = |fetch: Fetch| {
        list.put(fetch, acting_sink(callback, action.clone()));
        let peer = downloader.register(list.clone(), Priority::High).unwrap();
        peer.wake(Priority::High);
        kept().lock().unwrap().push(peer);
    };
    match callback {
        Callback::NextFetch => {
            let peer = downloader.register(ActingPeer(list, action.clone()), Priority::High).unwrap();
            peer.wake(Priority::High);
            kept().lock().unwrap().push(peer);
        }
        Callback::Sink(At::Retrying) => fetch_by_peer(get("/busy")),
        Callback::Sink(_) => fetch_by_peer(get("/a")),
        Callback::ValidateOnWorker => fetch_by_peer(get("/a").validate(validate)),
        Callback::ValidateInExecute => drop(peer().execute(get("/a").validate(validate))),
        Callback::ValidateInRead => read_with_second_head(&peer(), get("/breaking"), action.clone()),
        Callback::OnCancel => {
            let (epoch, action) = (peer().epoch(), action.clone());
            let _guard = epoch.on_cancel(move || action.run());
            epoch.cancel();
        }
        // `prepare` put the callback into the configuration.
        Callback::OnHang => fetch_by_peer(get("/silent")),
        Callback::DropOfPeer => {
            let acting = ActingPeer(list, action.clone());
            let dropped = Dropped(acting, RunsWhenDropped(action.clone()));
            drop(downloader.register(dropped, Priority::High).unwrap());
        }
        Callback::DropOfClosure => {
            let held = RunsWhenDropped(action.clone());
            fetch_by_peer(get("/a").validate(move |_| {
                let _ = &held; // Keeps it alive.
                Ok(())
            }));
        }
    }
}

/// Reads a body that breaks and is resumed. Its second response head is validated within a read.
fn read_with_second_head(peer: &PeerHandle, breaking: Fetch, action: Action) {
    let heads = AtomicUsize::new(0);
    let second = move |_: &ResponseHead| {
        if heads.fetch_add(1, Ordering::Relaxed) == 1 {
            action.run();
        }
        Ok(())
    };
    let mut body = peer.execute(breaking.validate(second)).unwrap();
    let _ = body.read_to_end(&mut Vec::new()); // Fails if the downloader was stopped in between.
}

/// A peer whose drop is a callback.
struct Dropped(ActingPeer, RunsWhenDropped);

impl Peer for Dropped {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        let _ = &self.1; // Keeps it alive.
        self.0.0.next_fetch(admissible)
    }
}

/// Handles that outlive the test that made them.
fn kept() -> &'static Mutex<Vec<PeerHandle>> {
    static KEPT: Mutex<Vec<PeerHandle>> = Mutex::new(Vec::new());
    &KEPT
}

/// A downloader with one worker and, if needed, the callback in its configuration.
fn prepare(callback: Callback, action: &Action) -> Downloader {
    downloader(|config| {
        config.max_concurrent = 1;
        if callback == Callback::OnHang {
            let action = action.clone();
            config.hang_timeout = Duration::from_millis(50);
            config.hang_policy = HangPolicy::on_hang(move |_| action.run());
        }
    })
}

/// Every call that may block and returns an error.
fn blocking_calls(
    origin: &Origin,
    peer: &PeerHandle,
    stream: &mut Stream,
    endless: &mut Stream,
    radio: &mut Radio,
) -> Vec<(&'static str, ErrorKind)> {
    let get = || Fetch::get(&origin.url("/nested")).unwrap();
    let kind = |result: Result<(), Error>| result.err().map_or(ErrorKind::Empty, |error| error.kind());
    let read = |result: std::io::Result<u64>| kind(result.map(drop).map_err(Error::from));
    let mut buf = [0; 10];
    vec![
        ("execute", kind(peer.execute(get()).map(drop))),
        ("batch", kind(peer.batch(vec![get()]).try_for_each(|answer| answer.map(drop)))),
        ("open", kind(windway::open(&origin.url("/nested")).map(drop))),
        ("Stream::read", read(stream.read(&mut buf).map(|got| got as u64))),
        ("Stream::seek", read(endless.seek(SeekFrom::End(0)))),
        ("StreamHandle::wait_buffered", kind(stream.handle().wait_buffered(10, None))),
        ("StreamHandle::wait_range", kind(stream.handle().wait_range(0..10, None))),
        ("Radio::read", read(radio.read(&mut buf).map(|got| got as u64))),
        ("RadioHandle::wait_buffered", kind(radio.handle().wait_buffered(10, None))),
    ]
}

#[test]
fn blocking_calls_fail_in_every_callback_and_others_work() {
    // The calls go to another downloader, which could answer all of them at once. The rule is the same for it.
    let content = Content::pattern(1000);
    let other_origin = Origin::start(move |request| match request.path.as_str() {
        "/endless" => Answer::whole(&content).no_length().stall_after(100),
        _ => Answer::file(request, &content),
    });
    for callback in CALLBACKS {
        let origin = Arc::new(Origin::start(answer));
        let other = Downloader::new(DownloaderConfig::default()).unwrap();
        let mut stream = other.open(&other_origin.url("/a")).unwrap();
        stream.handle().wait_buffered(1000, None).unwrap();
        let mut endless = other.open_later(&other_origin.url("/endless"), FileConfig::default()).unwrap();
        let mut radio = other.open_radio(&other_origin.url("/a"), RadioConfig::default()).unwrap();
        radio.handle().wait_buffered(1, None).unwrap();
        let (results, result) = mpsc::channel();
        let quiet = Downloader::new(DownloaderConfig::default()).unwrap().subscribe();
        let nested = other.register((), Priority::High).unwrap();
        let asked = Arc::clone(&origin);
        let action = Action::new(move || {
            let blocking = blocking_calls(&asked, &nested, &mut stream, &mut endless, &mut radio);
            // Here `None` means that there is no event now, not that the source of the events is gone.
            assert!(quiet.recv().is_none() && quiet.recv_timeout(Duration::MAX).is_none());
            // Calls that do not block, and drops that join a thread outside of callbacks.
            nested.wake(Priority::Low);
            nested.set_priority(Priority::Low);
            assert!(other.register((), Priority::High).is_ok());
            assert!(other.open_later(&asked.url("/a"), FileConfig::default()).is_ok());
            let mut buf = [0; 10];
            stream.seek(SeekFrom::Start(0)).unwrap();
            assert!(stream.try_read(&mut buf).is_ok());
            let _ = (other.stats(), other.subscribe(), nested.epoch());
            drop((stream, endless, radio, nested, other));
            results.send(blocking).unwrap();
        });
        let downloader = prepare(callback, &action);
        let (called, within) = (downloader.clone(), Arc::clone(&origin));
        in_time(&format!("{callback:?}"), move || call_in(callback, &called, &within, &action));
        let got = result.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{callback:?}: {error}"));
        for (call, kind) in got {
            assert_eq!(kind, ErrorKind::WouldDeadlock, "{call} in {callback:?}");
        }
        origin.release();
        in_time(&format!("stop after {callback:?}"), move || downloader.stop());
    }
}

/// Asks the server for a token before each request, and for a URL that is good.
struct Asking {
    peer: PeerHandle,
    origin: String,
}

impl Asking {
    fn ask(&self, path: &str) -> Result<String, Error> {
        self.peer.execute(Fetch::get(&format!("{}{path}", self.origin))?)?.text(100)
    }
}

impl RequestHook for Asking {
    fn headers(&self, _: RequestKind, _: &str) -> Vec<(String, String)> {
        let mut batch = self.peer.batch(vec![Fetch::get(&self.origin).unwrap()]);
        // A hook that panics gives no token, so the test would fail.
        for refused in [windway::open(&self.origin).map(drop), batch.try_for_each(|answer| answer.map(drop))]
        {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::WouldDeadlock);
        }
        vec![("x-token".into(), self.ask("/token").unwrap())]
    }

    fn fresh_url(&self, _: RequestKind, url: &str, _: u16) -> Option<String> {
        Some(format!("{url}?{}", self.ask("/query").unwrap()))
    }
}

#[test]
fn a_hook_requests_while_all_workers_wait_for_hooks() {
    let content = Content::pattern(1000);
    let text = |text: &str| Answer::whole(&Content::bytes(text.as_bytes().to_vec()));
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/token" => text("4711"),
        "/query" => text("good"),
        path if path.ends_with("?good") && request.header("x-token") == Some("4711") => {
            Answer::file(request, &content)
        }
        _ => Answer::status(403),
    });
    let downloader = downloader(|config| {
        config.max_concurrent = 1;
        config.max_per_origin = 1;
    });
    let peer = downloader.register((), Priority::High).unwrap();
    let mut streams: Vec<_> = (0..4)
        .map(|number| {
            let asking = Asking { peer: peer.clone(), origin: origin.url("") };
            let config = FileConfig::new().hook(Hook::new(asking));
            downloader.open_later(&origin.url(&format!("/{number}")), config).unwrap()
        })
        .collect();
    in_time("reading", move || {
        for stream in &mut streams {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 1000);
        }
    });
}

#[test]
fn stop_in_a_callback_does_not_wait_for_itself() {
    for callback in CALLBACKS {
        let origin = Arc::new(Origin::start(answer));
        let own: Arc<Mutex<Option<Downloader>>> = Arc::default();
        let (stops, stopped) = mpsc::channel();
        let action = Action::new({
            let own = Arc::clone(&own);
            move || {
                let downloader = own.lock().unwrap().clone().unwrap();
                downloader.stop();
                let refused = downloader.register((), Priority::High).unwrap_err();
                stops.send(refused.is_cancelled()).unwrap();
            }
        });
        // Locked until it is set: some callbacks run as soon as they are prepared.
        let mut set = own.lock().unwrap();
        let downloader = prepare(callback, &action);
        *set = Some(downloader.clone());
        drop(set);
        let (called, within) = (downloader.clone(), Arc::clone(&origin));
        in_time(&format!("{callback:?}"), move || call_in(callback, &called, &within, &action));
        assert_eq!(stopped.recv_timeout(PATIENCE), Ok(true), "{callback:?}");
        // Outside of callbacks stop() waits.
        let waits = downloader.clone();
        in_time(&format!("stop after {callback:?}"), move || waits.stop());
        assert_eq!(downloader.stats().busy_workers, 0, "{callback:?}");
        let last = own.lock().unwrap().take();
        drop((last, downloader));
    }
}

#[test]
fn a_callback_that_blocks_holds_no_other_fetch_while_a_worker_is_left() {
    for at in [At::Accepted, At::ResponseHead, At::Write, At::Finish] {
        let origin = Origin::serving(Content::pattern(1000));
        let downloader = downloader(|config| config.max_concurrent = 2);
        let list = List::default();
        let peer = downloader.register(list.clone(), Priority::High).unwrap();
        let ((blocks, is_blocked), (go, may_go)) = (mpsc::channel(), mpsc::channel::<()>());
        let sink = Calling::new(at, move |called, _| {
            if called == at {
                blocks.send(()).unwrap();
                // Fails when the test is over.
                may_go.recv().unwrap_or_default();
            }
        });
        list.put(Fetch::get(&origin.url("/blocking")).unwrap().priority(Priority::High), sink);
        peer.wake(Priority::High);
        is_blocked.recv_timeout(PATIENCE).unwrap();
        let (other, (sink, end)) = (List::default(), collect(0));
        other.put(Fetch::get(&origin.url("/other")).unwrap().priority(Priority::High), sink);
        let other = downloader.register(other, Priority::High).unwrap();
        // For urgent work: the blocked worker is the only one that may prefetch.
        other.wake(Priority::High);
        let got = end.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        got.assert_done(0..1000);
        drop(go);
    }
}

#[test]
fn the_end_of_a_cancelled_fetch_that_blocks_does_not_hold_the_retries_of_others() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match (request.path.as_str(), request.again) {
        ("/other", 0) => Answer::status(503),
        ("/running", _) => Answer::file(request, &content).stall_after(100),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader(|config| config.max_per_origin = 1);
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let ((blocks, is_blocked), (go, may_go)) = (mpsc::channel(), mpsc::channel::<()>());
    let (running, _end) = collect(0);
    list.put(Fetch::get(&origin.url("/running")).unwrap(), running);
    // Waits for the origin, so no worker has it when it is cancelled.
    let waiting = Calling::new(At::Finish, move |at, _| {
        if at == At::Finish {
            blocks.send(()).unwrap();
            // Fails when the test is over.
            may_go.recv().unwrap_or_default();
        }
    });
    list.put(Fetch::get(&origin.url("/waiting")).unwrap(), waiting);
    peer.wake(Priority::Low);
    origin.wait_until("the prefetch", |log| log.requests.len() == 1);
    peer.cancel();
    is_blocked.recv_timeout(PATIENCE).unwrap();
    let other = downloader.register((), Priority::High).unwrap();
    let fetch = Fetch::get(&origin.url("/other")).unwrap();
    let body = in_time("a retry", move || read_all(&other, fetch));
    assert_eq!(body.len(), 1000);
    drop(go);
}
