//! A URL whose kind is not known yet: one request, its first bytes, and the peer that the kind takes over.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::opening_limit::OpeningLimit;
use crate::cancel::{CancelGuard, CancelHandle};
use crate::client::{Request, ResponseHead};
use crate::downloader::{Downloader, Epoch, Fetch, Next, Peer, PeerHandle, Response};
use crate::error::{Error, ErrorKind};
use crate::media::FirstBytes;
use crate::types::{ByteRange, Priority};

/// Bytes that the first request asks for: as many as the opening of a file.
pub(crate) const OPENING: u64 = super::file::OPENING;

/// A response whose first bytes have been read, and all that what it turns out to be needs to go on with it.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) downloader: Downloader,
    /// The request for all of the resource, without the headers that only the opening has.
    pub(crate) request: Request,
    pub(crate) peer: PeerHandle,
    pub(crate) role: Role,
    /// Above everything that is fetched.
    pub(crate) epoch: Epoch,
    /// Epoch of the response alone.
    pub(crate) part: Epoch,
    pub(crate) response: Response,
    /// The first bytes of its body.
    pub(crate) first: Vec<u8>,
    /// Ends before what the URL leads to begins.
    pub(crate) limit: OpeningLimit,
    /// While it lives, the handle of the caller cancels the peer.
    pub(crate) on_cancel: Option<CancelGuard>,
}

/// What the peer of an opening fetches, once that is known.
#[derive(Clone, Default)]
pub(crate) struct Role(Arc<OnceLock<Mutex<Box<dyn Peer>>>>);

impl Role {
    /// Asks `peer` from now on. Called once.
    pub(crate) fn assign(&self, peer: impl Peer + 'static) {
        let assigned = self.0.set(Mutex::new(Box::new(peer)));
        debug_assert!(assigned.is_ok(), "a resource turns out to be one thing");
    }
}

impl Peer for Role {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        self.0.get().map_or(Next::Wait, |peer| peer.lock().next_fetch(admissible))
    }
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Role")
    }
}

impl Opening {
    /// Sends the request. Blocks until the response head has arrived.
    ///
    /// It asks for the range that a file opens with and, like a radio, for titles: each kind of server ignores what it does
    /// not know.
    ///
    /// A host that can't be reached, or that asks to wait for longer than `read_timeout`, is not asked again. If no bytes arrive
    /// for so long, this and the calls on the opening end.
    pub(crate) fn send(
        downloader: &Downloader,
        request: Request,
        read_timeout: Option<Duration>,
        cancel: Option<&CancelHandle>,
    ) -> Result<Self, Error> {
        let role = Role::default();
        let peer = downloader.register(role.clone(), Priority::High)?;
        let on_cancel = cancel.map(|cancel| cancel.cancels(peer.token()));
        let limit = OpeningLimit::new(&peer, read_timeout);
        let epoch = peer.epoch().child_as_peer();
        let part = epoch.child();
        let asking = request.clone().open_header("icy-metadata", "1");
        let ranged = asking.clone().range(ByteRange::new(0, OPENING)).doubt_total();
        let fetch = |request| Fetch::new(request).epoch(&part).fail_fast(read_timeout);
        let response = match peer.execute(fetch(ranged)) {
            // Some servers refuse ranges, and serve a request without one.
            Err(error) if error.may_refuse_range() => peer.execute(fetch(asking)),
            response => response,
        };
        let response = response.or_else(|error| limit.end(Err(error)))?;
        let downloader = downloader.clone();
        Ok(Self {
            downloader,
            request,
            peer,
            role,
            epoch,
            part,
            response,
            first: Vec::new(),
            limit,
            on_cancel,
        })
    }

    pub(crate) fn head(&self) -> &ResponseHead {
        self.response.head()
    }

    /// Reads first bytes until `decide` knows what it needs to. It gets the bytes, and whether there are no more; it has
    /// to decide when it is given [`FirstBytes::MOST`] bytes. Blocks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Empty`]; [`ErrorKind::TimedOut`]; those of [`Response::read_chunk`].
    pub(crate) fn read_first<T>(
        &mut self,
        decide: impl Fn(&ResponseHead, &[u8], bool) -> Option<T>,
    ) -> Result<T, Error> {
        let mut chunk = [0; 4096];
        loop {
            let room = chunk.len().min(FirstBytes::MOST - self.first.len());
            let read = self.response.read_chunk(&mut chunk[..room]);
            let got = read.or_else(|error| self.limit.end(Err(error)))?;
            self.first.extend_from_slice(&chunk[..got]);
            let is_all = got == 0 || self.response.is_received() || self.first.len() == FirstBytes::MOST;
            if self.first.is_empty() {
                let error = Error::new(ErrorKind::Empty, "the response has no bytes");
                return Err(error.with_url(self.head().url()));
            }
            if let Some(decided) = decide(self.response.head(), &self.first, is_all) {
                return Ok(decided);
            }
            debug_assert!(!is_all, "all first bytes leave it undecided");
        }
    }

    /// All of a document of at most `most` bytes, and the response head that it came with: not that of the opening, if the document
    /// had to be requested again. Blocks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`]; [`ErrorKind::TimedOut`]; those of [`Response::read_chunk`].
    #[cfg(any(feature = "hls", feature = "queue"))]
    pub(crate) fn read_document(mut self, most: usize) -> Result<(ResponseHead, Vec<u8>), Error> {
        let limit = std::mem::take(&mut self.limit);
        limit.end(self.read_to_end(most))
    }

    #[cfg(any(feature = "hls", feature = "queue"))]
    fn read_to_end(mut self, most: usize) -> Result<(ResponseHead, Vec<u8>), Error> {
        let head = self.head().clone();
        let is_cut = head.is_partial() && head.total().is_none_or(|total| total > OPENING);
        self.response.unread(&self.first);
        if !is_cut {
            return Ok((head, self.response.bytes(most)?));
        }
        // Rare: a document that is longer than the opening of a file.
        // Read to its end although it is cut: the connection is free for the second request then.
        let opened = self.response.bytes(most)?;
        if (opened.len() as u64) < OPENING {
            return Ok((head, opened));
        }
        let response = self.peer.execute(Fetch::new(self.request))?;
        Ok((response.head().clone(), response.bytes(most)?))
    }
}
