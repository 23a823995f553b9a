//! Peers and sinks for tests of the downloader by itself.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use windway::downloader::{Next, Outcome, Peer, PeerHandle, Sink};
use windway::{Downloader, DownloaderConfig, Error, Fetch, Priority};

use super::Origin;

/// Longer than any test: what has to wait for it hangs.
pub const NEVER: Duration = Duration::from_secs(3600);

/// A downloader with options that a test changes.
pub fn downloader(change: impl FnOnce(&mut DownloaderConfig)) -> Downloader {
    let mut config = DownloaderConfig::default();
    change(&mut config);
    Downloader::new(config).unwrap()
}

/// A downloader that trusts `origin`, waits for ever for what is silent and tries nothing again: where one connection is
/// mute, only another one beside it helps.
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

/// What a sink got, sent when it has ended.
#[derive(Debug)]
pub struct Got {
    /// Where the first byte lies, if one came.
    pub start: Option<u64>,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

/// Sends what it got when it ends. Panics if a byte is missing or comes twice.
pub struct Collect {
    /// `None` until the first bytes have told.
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
        // The test may have seen enough and gone.
        drop(ends.send(Got { start, bytes, outcome }));
    }
}

type Waiting = VecDeque<(Fetch, Box<dyn Sink>)>;

/// Hands out what is put into its list.
#[derive(Clone, Default)]
pub struct List(Arc<Mutex<Waiting>>);

impl List {
    pub fn put(&self, fetch: Fetch, sink: impl Sink + 'static) {
        self.0.lock().unwrap().push_back((fetch, Box::new(sink)));
    }
}

impl List {
    /// Drops what was not asked for, and tells how much it was.
    pub fn clear(&self) -> usize {
        let left = std::mem::take(&mut *self.0.lock().unwrap());
        left.len()
    }
}

impl Peer for List {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        let _ = admissible; // All in the list may run on any worker: tests with reserved workers say so.
        self.0.lock().unwrap().pop_front().map_or(Next::Wait, |(fetch, sink)| Next::fetch(fetch, sink))
    }
}

/// A sink for a body that begins at `start`, and where it tells its end.
pub fn collect(start: u64) -> (Collect, mpsc::Receiver<Got>) {
    let (ends, end) = mpsc::channel();
    (Collect::new(start, &ends), end)
}
