//! Several fetches side by side, and their answers in order.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::{fmt, vec};

use super::bodies::Progress;
use super::fetch::Fetch;
use super::peer::{PeerHandle, Pending};
use super::response::Response;
use crate::error::Error;

/// The answers to a [`PeerHandle::batch`], in the order of its fetches.
///
/// Each is handed out with its body open. The next fetches are sent as earlier ones are answered and their bodies are closed,
/// so that a batch may have any length. [`next`](Iterator::next) blocks until the head of the next answer is there, or its
/// fetch has failed; [`PeerHandle::execute`] tells with what. Dropping it cancels the fetches that were not handed out.
///
/// Read, or drop, each body before you take many more. While `max_open_bodies` of the
/// [`DownloaderConfig`](crate::DownloaderConfig) are open, a batch waits for one to be closed. If for the client's
/// `silence_timeout` none is closed or read from, they are held by who waits for this batch: then the fetch fails with
/// [`ErrorKind::TooManyOpenBodies`](crate::ErrorKind::TooManyOpenBodies). So does whoever collects more answers than that.
#[must_use = "what is not handed out is cancelled when the batch is dropped"]
pub struct Batch {
    peer: PeerHandle,
    left: vec::IntoIter<Fetch>,
    /// Sent and not handed out, oldest first.
    pending: VecDeque<Result<Pending, Error>>,
    /// What had happened to the open bodies when this gave up waiting for room.
    stuck: Option<Progress>,
}

impl Batch {
    pub(super) fn new(peer: PeerHandle, fetches: Vec<Fetch>) -> Self {
        let mut batch = Self { peer, left: fetches.into_iter(), pending: VecDeque::new(), stuck: None };
        batch.send_ahead();
        batch
    }

    /// Sends what may be sent without waiting.
    fn send_ahead(&mut self) {
        let most = self.peer.capacity();
        let unanswered = self.pending.iter().flatten().filter(|pending| !pending.is_answered()).count();
        let mut room = self.peer.bodies().room().saturating_sub(unanswered);
        while room > 0 && self.pending.len() < most && self.left.len() > 0 {
            let Some(credit) = self.peer.try_credit() else { return };
            let Some(fetch) = self.left.next() else { return };
            self.pending.push_back(self.peer.send(fetch, credit));
            room -= 1;
        }
    }

    /// Sends one, and waits for room first.
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
                let fetch = self.left.next()?;
                self.send_next(fetch)
            }
        };
        Some(pending.and_then(Pending::wait))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.pending.len() + self.left.len();
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
