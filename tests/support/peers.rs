//! Peers and sinks for tests of the downloader without streams.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use windway::downloader::{Flow, Next, Outcome, Peer, PeerHandle, RequestId, ResponseHead, Sink};
use windway::{Downloader, DownloaderConfig, Error, Fetch, Priority, Response};

use super::Origin;
use super::content::assert_pattern;

/// A timeout that is longer than any test, so that a wait for it is a hang.
pub const NEVER: Duration = Duration::from_secs(3600);

/// A downloader whose default options are changed by `change`.
pub fn downloader(change: impl FnOnce(&mut DownloaderConfig)) -> Downloader {
    let mut config = DownloaderConfig::default();
    change(&mut config);
    Downloader::new(config).unwrap()
}

/// A downloader that trusts `origin`, has no silence timeout and does not retry. If a connection is silent, only a hedged request
/// over another one helps.
pub fn patient_downloader(origin: &Origin) -> Downloader {
    downloader(|config| {
        config.client.silence_timeout = NEVER;
        config.max_retries = 0;
        if origin.url("").starts_with("https") {
            config.client.extra_roots.push(origin.root_pem());
        }
    })
}

pub fn get(origin: &Origin, path: &str) -> Fetch {
    Fetch::get(&origin.url(path)).unwrap()
}

/// The whole body of a fetch.
pub fn read_all(peer: &PeerHandle, fetch: Fetch) -> Vec<u8> {
    let mut body = Vec::new();
    peer.execute(fetch).unwrap().read_to_end(&mut body).unwrap();
    body
}

/// A callback of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Accepted,
    ResponseHead,
    Detached,
    Write,
    Retrying,
    Finish,
}

impl At {
    pub const ALL: [Self; 6] =
        [Self::Accepted, Self::ResponseHead, Self::Detached, Self::Write, Self::Retrying, Self::Finish];
}

/// A sink that calls a closure in each of its callbacks, in `detached` with the body.
pub struct Calling<F> {
    detaches: bool,
    callback: F,
}

impl<F: FnMut(At, Option<Response>) + Send + 'static> Calling<F> {
    /// One that can be called `at` this callback: it detaches its body if that is `detached`.
    pub fn new(at: At, callback: F) -> Self {
        Self { detaches: at == At::Detached, callback }
    }
}

impl<F: FnMut(At, Option<Response>) + Send + 'static> Sink for Calling<F> {
    fn accepted(&mut self, _: RequestId) {
        (self.callback)(At::Accepted, None);
    }

    fn head(&mut self, _: &ResponseHead) -> Result<Flow, Error> {
        (self.callback)(At::ResponseHead, None);
        Ok(if self.detaches { Flow::Detach } else { Flow::Stream })
    }

    fn detached(mut self: Box<Self>, body: Response) {
        (self.callback)(At::Detached, Some(body));
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        (self.callback)(At::Write, None);
        Ok(())
    }

    fn retrying(&mut self, _: &Error, _: Instant) {
        (self.callback)(At::Retrying, None);
    }

    fn finish(mut self: Box<Self>, _: Outcome) {
        (self.callback)(At::Finish, None);
    }
}

/// The bytes and the outcome of a sink. Sent at its end.
#[derive(Debug)]
pub struct Got {
    /// Offset of the first byte, if there was one.
    pub start: Option<u64>,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

impl Got {
    /// Panics unless the fetch is done, and delivered exactly the bytes of the pattern in `range`.
    #[track_caller]
    pub fn assert_done(&self, range: Range<u64>) {
        assert!(matches!(self.outcome, Outcome::Done), "{:?}", self.outcome);
        assert_eq!(self.bytes.len() as u64, range.end - range.start);
        assert_pattern(range.start, &self.bytes);
    }
}

/// A sink that sends its bytes when it ends. Panics if a byte is missing or repeated.
pub struct Collect {
    /// `None` until the first bytes arrive.
    start: Option<u64>,
    bytes: Vec<u8>,
    ends: mpsc::Sender<Got>,
}

impl Collect {
    /// For a body that begins at `start`.
    pub fn new(start: u64, ends: &mpsc::Sender<Got>) -> Self {
        Self { start: Some(start), ..Self::from_first(ends) }
    }

    /// For a body that begins anywhere.
    pub fn from_first(ends: &mpsc::Sender<Got>) -> Self {
        Self { start: None, bytes: Vec::new(), ends: ends.clone() }
    }
}

impl Sink for Collect {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let start = *self.start.get_or_insert(offset);
        assert_eq!(offset, start + self.bytes.len() as u64, "out of order");
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        let Self { start, bytes, ends } = *self;
        // Fails if the test has ended.
        drop(ends.send(Got { start, bytes, outcome }));
    }
}

type Waiting = VecDeque<(Fetch, Box<dyn Sink>)>;

/// A peer that returns the fetches of a list.
#[derive(Clone, Default)]
pub struct List(Arc<Mutex<Waiting>>);

impl List {
    pub fn put(&self, fetch: Fetch, sink: impl Sink + 'static) {
        self.0.lock().unwrap().push_back((fetch, Box::new(sink)));
    }
}

impl List {
    /// Drops the fetches that are left. Returns their number.
    pub fn clear(&self) -> usize {
        let left = std::mem::take(&mut *self.0.lock().unwrap());
        left.len()
    }
}

impl Peer for List {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        let _ = admissible; // Tests with reserved workers give the fetches their priority.
        self.0.lock().unwrap().pop_front().map_or(Next::Wait, |(fetch, sink)| Next::fetch(fetch, sink))
    }
}

/// A sink for a body that begins at `start`, and the receiver of what it got.
pub fn collect(start: u64) -> (Collect, mpsc::Receiver<Got>) {
    let (ends, end) = mpsc::channel();
    (Collect::new(start, &ends), end)
}

/// Runs a fetch of a new peer into a sink for a body that begins at `start`. Blocks until it has ended.
pub fn fetch_by_peer(downloader: &Downloader, fetch: Fetch, start: u64) -> Got {
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (sink, end) = collect(start);
    list.put(fetch, sink);
    peer.wake(Priority::Low);
    end.recv().unwrap()
}
