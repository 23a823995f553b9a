//! An answer whose body is open, in a caller's hands.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::peer::{Credit, PeerHandle};
use super::scheduler::Core;
use super::sync::Slot;
use super::worker::{Record, Transfer};
use crate::cancel::CancelReason;
use crate::client::{self, Head};
use crate::error::Error;

/// The answer to a fetch, with its body open: read it at your own pace; it holds no worker.
///
/// The fetch ends when the body was read to its end, fails, or the response is dropped. Reading blocks until a byte is
/// there; an [`io::Error`] from it carries an [`Error`]. Keeps its peer, and so the downloader, alive.
pub struct Response {
    body: client::Response,
    record: Record,
    /// Some until the end was published.
    transfer: Option<Transfer>,
    keeps: Option<Keeps>,
}

/// What an imperative response holds while it is open.
pub(super) struct Keeps {
    pub(super) _permit: BodyPermit,
    pub(super) _peer: PeerHandle,
}

impl Response {
    pub(super) fn new(body: client::Response, record: Record, ttfb: Duration) -> Self {
        let transfer = record.control.begin_body(ttfb);
        Self { body, record, transfer: Some(transfer), keeps: None }
    }

    pub(super) fn keep(mut self, keeps: Keeps) -> Self {
        self.keeps = Some(keeps);
        self
    }

    /// The head of the answer.
    pub fn head(&self) -> &Head {
        self.body.head()
    }

    /// The fetch's id, as events tell it.
    pub fn request_id(&self) -> super::RequestId {
        self.record.id
    }

    /// Offset in the resource of the next byte.
    pub fn position(&self) -> u64 {
        self.body.position()
    }

    /// Reads as [`Read::read`] does, with the error typed. 0 is the end of the whole body, never of a broken one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`](crate::ErrorKind::Disconnected) if the body broke off,
    /// [`ErrorKind::Silent`](crate::ErrorKind::Silent) if the server fell silent,
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn read_chunk(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let result = self.body.read_chunk(buf);
        match &result {
            Ok(0) if !buf.is_empty() => self.end(Ok(())),
            Ok(0) => {}
            Ok(bytes) => {
                self.record.received += *bytes as u64;
                if let Some(transfer) = &self.transfer {
                    transfer.advance(*bytes);
                }
            }
            Err(error) => self.end(Err(error.clone())),
        }
        result
    }

    fn end(&mut self, result: Result<(), Error>) {
        if self.transfer.take().is_none() {
            return;
        }
        self.record.end(&result);
        self.keeps = None;
    }
}

impl Read for Response {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_chunk(buf)?)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        self.end(Err(Error::cancelled(CancelReason::Fetch)));
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("request", &self.record.id)
            .field("head", self.head())
            .finish_non_exhaustive()
    }
}

/// The worker's end of an `execute`: answered exactly once. Holds the fetch's credit until then.
pub(super) struct Reply {
    slot: Option<Arc<Slot<Result<Response, Error>>>>,
    credit: Option<Credit>,
}

impl Reply {
    pub(super) fn new(slot: &Arc<Slot<Result<Response, Error>>>, credit: Credit) -> Self {
        Self { slot: Some(Arc::clone(slot)), credit: Some(credit) }
    }

    pub(super) fn put(mut self, result: Result<Response, Error>) {
        self.answer(result);
    }

    fn answer(&mut self, result: Result<Response, Error>) {
        let Some(slot) = self.slot.take() else { return };
        // Before the caller goes on, who may ask for more at once.
        self.credit = None;
        slot.put(result);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(Error::cancelled(CancelReason::Shutdown)));
    }
}

/// Leave to have one body open.
pub(super) struct BodyPermit(Arc<Core>);

impl BodyPermit {
    pub(super) fn take(core: &Arc<Core>) -> Option<Self> {
        let max = core.config.max_open_bodies;
        core.open_bodies
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < max).then_some(open + 1))
            .ok()
            .map(|_| Self(Arc::clone(core)))
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.0.open_bodies.fetch_sub(1, Ordering::AcqRel);
    }
}
