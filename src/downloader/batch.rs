//! Several fetches at once, with their responses in order.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

use super::bodies::Progress;
use super::fetch::Fetch;
use super::peer_handle::PeerHandle;
use super::reply::Pending;
use super::response::Response;
use crate::error::Error;

/// The responses to the fetches of [`PeerHandle::batch`], in the order of the fetches.
///
/// [`next`](Iterator::next) blocks until the next response head arrives or its fetch fails, with an error as from
/// [`PeerHandle::execute`]. Each response has an open body. A batch may have any length: it sends the next fetches as
/// responses arrive and bodies are closed. Its drop cancels the fetches whose responses were not taken.
///
/// Read or drop each body before you take many more. While [`max_open_bodies`](crate::DownloaderConfig::max_open_bodies)
/// are open, the batch waits until one is closed. If none is read or closed for
/// [`silence_timeout`](crate::ClientConfig::silence_timeout), their holder may be the thread that waits here, so the fetch
/// fails with [`ErrorKind::TooManyOpenBodies`](crate::ErrorKind::TooManyOpenBodies). Collecting more responses than the
/// limit fails in the same way.
///
/// ```no_run
/// use windway::{Downloader, Fetch, Priority};
///
/// let peer = Downloader::global()?.register((), Priority::High)?;
/// let urls = ["https://example.com/1.ts", "https://example.com/2.ts"];
/// let fetches = urls.into_iter().map(Fetch::get).collect::<Result<Vec<_>, _>>()?;
/// for (url, response) in urls.iter().zip(peer.batch(fetches)) {
///     println!("{url}: {} bytes", response?.bytes(16 << 20)?.len());
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[must_use = "dropping the batch cancels the fetches whose responses were not taken"]
pub struct Batch {
    peer: PeerHandle,
    left: Box<dyn ExactSizeIterator<Item = Fetch> + Send>,
    /// Taken from `left` and not sent, oldest first.
    taken: VecDeque<Fetch>,
    /// Sent, with responses that were not taken, oldest first.
    pending: VecDeque<Result<Pending, Error>>,
    /// What had happened to the open bodies when the last wait for room failed. If it is the same, the next wait fails at
    /// once.
    stuck: Option<Progress>,
}

impl PeerHandle {
    /// Runs all of these fetches at once, as far as workers and limits allow. The returned iterator yields the responses in
    /// the order of the fetches. Each fetch fails by itself, with the errors of [`execute`](Self::execute). This call does
    /// not block, but taking a response does.
    ///
    /// The fetches are taken from `fetches` shortly before they are sent, on the calling thread, here and by the returned
    /// iterator. So those of a long batch need not be made before the first one is sent, and they may be made from responses
    /// of the same peer.
    ///
    /// ```no_run
    /// use windway::{Downloader, Fetch, Priority};
    ///
    /// let peer = Downloader::global()?.register((), Priority::High)?;
    /// let parts = (0..1000).map(|part| Fetch::get(&format!("https://example.com/{part}.ts")));
    /// for response in peer.batch(parts.collect::<Result<Vec<_>, _>>()?) {
    ///     let part = response?.bytes(16 << 20)?;
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn batch<I>(&self, fetches: I) -> Batch
    where
        I: IntoIterator<Item = Fetch>,
        I::IntoIter: ExactSizeIterator + Send + 'static,
    {
        // Fused, because `send_ahead` asks again after the end, in each further call of `next`.
        Batch::new(self.clone(), Box::new(fetches.into_iter().fuse()))
    }
}

impl Batch {
    fn new(peer: PeerHandle, left: Box<dyn ExactSizeIterator<Item = Fetch> + Send>) -> Self {
        let mut batch = Self { peer, left, taken: VecDeque::new(), pending: VecDeque::new(), stuck: None };
        batch.send_ahead();
        batch
    }

    /// Sends as many fetches as the limits allow now, if that is more than a few.
    fn send_ahead(&mut self) {
        let (most, room) = (self.peer.capacity(), self.room());
        // Many at a time, because workers that have run out of fetches sleep, and to wake them takes the caller longer than to
        // send a fetch. But before they run out.
        let enough = (most / 2).min(most.saturating_sub(self.peer.workers())).min(self.unsent()).max(1);
        if room < enough && !self.pending.is_empty() {
            return;
        }
        // All of them first: the iterator is the caller's. It may panic, and it may execute a fetch of this peer, for which it has to
        // find a credit. So it must find none in the hands of this batch, nor any in a fetch that the machine does not know of.
        let lacking = room.saturating_sub(self.taken.len());
        self.taken.extend(self.left.by_ref().take(lacking));
        let before = self.pending.len();
        // Again: the iterator may have kept responses, whose bodies are open.
        for _ in 0..self.room().min(self.taken.len()) {
            let Some(credit) = self.peer.try_credit() else { break };
            let Some(fetch) = self.taken.pop_front() else { break };
            self.pending.push_back(self.peer.enqueue(fetch, credit));
        }
        if self.pending.len() > before {
            self.peer.announce();
        }
    }

    /// Number of fetches that may be sent now.
    fn room(&self) -> usize {
        let free = self.peer.free_credits();
        let unanswered = self.peer.capacity() - free;
        // Each of them will open a body, for which there must be room when it arrives. What was answered and not taken has its own.
        self.peer.bodies().room().saturating_sub(unanswered).min(free)
    }

    /// Number of fetches that were not sent.
    fn unsent(&self) -> usize {
        self.taken.len() + self.left.len()
    }

    /// Waits for room, then sends one fetch.
    fn send_next(&mut self, fetch: Fetch) -> Result<Pending, Error> {
        self.peer.send_patiently(fetch, &mut self.stuck)
    }
}

impl Iterator for Batch {
    type Item = Result<Response, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.send_ahead();
        let pending = match self.pending.pop_front() {
            Some(pending) => pending,
            None => {
                let fetch = self.taken.pop_front().or_else(|| self.left.next())?;
                self.send_next(fetch)
            }
        };
        Some(pending.and_then(Pending::wait))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.pending.len() + self.unsent();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batch {}

impl FusedIterator for Batch {}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("left", &self.len()).finish_non_exhaustive()
    }
}
