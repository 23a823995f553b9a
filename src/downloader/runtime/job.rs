//! A fetch on its way: its target, and its state over all its attempts.
//!
//! ```text
//!             ┌────────── retry, in the schedule ◀──────────┐
//!             ▼                                             │
//!  Job ─▶ open: resolve, connect, head ─▶ body ─▶ sink ──▶ end: Done | Failed | Cancelled
//!                     │           │
//!                     │           └─ detached: the sink keeps the open body
//!                     └─ the caller's: execute returns the open body
//! ```

use std::sync::Arc;
use std::time::Instant;

use super::control::Control;
use super::handoff::Handoff;
use super::record::Record;
use super::retry_state::RetryState;
use crate::cancel::{CancelGuard, CancelReason, CancelToken};
use crate::client;
use crate::downloader::reply::Reply;
use crate::downloader::schedule::{FetchInfo, Origin};
use crate::downloader::sink::{GuardedSink, Outcome};
use crate::error::Error;

/// A fetch on its way, from its acceptance to its one end.
pub(crate) struct Job {
    pub(crate) token: CancelToken,
    pub(crate) record: Record,
    pub(crate) control: Arc<Control>,
    pub(crate) retry_state: RetryState,
    pub(crate) target: Target,
    /// Where its body may be handed to the reader of what the sink stores.
    pub(crate) handoff: Option<Arc<Handoff>>,
    /// False once no reader waits for its bytes. It is a prefetch from then on.
    pub(super) is_still_urgent: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    /// The open body, if it was preempted with it.
    pub(super) body: Option<Box<client::Response>>,
    /// Why it has left its last worker in the middle of an attempt, if it has.
    pub(super) pause: Option<Pause>,
    /// Takes the job out of the schedule when it is cancelled.
    pub(super) _on_cancel: CancelGuard,
}

/// Why a job was left in the middle of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    Preempted,
    /// The lent thread that ran it had its bytes.
    Left,
}

/// Where a body goes.
pub(crate) enum Target {
    /// To a sink, written by the worker.
    Sink(GuardedSink),
    /// To a caller that waits for the open body.
    Caller(Reply),
}

impl Job {
    pub(crate) fn fetch_info(&self) -> FetchInfo {
        FetchInfo { request: self.record.id, priority: self.control.priority(), origin: self.origin() }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin(self.retry_state.request().origin().key())
    }

    /// False if no reader waits for its bytes.
    pub(super) fn is_still_urgent(&self) -> bool {
        self.is_still_urgent.as_ref().is_none_or(|is_still_urgent| is_still_urgent())
    }

    /// True if it was preempted with its body open.
    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// The open body of a preempted job. Without it the job goes on from its offset on a new connection.
    pub(crate) fn take_body(&mut self) -> Option<Box<client::Response>> {
        self.body.take()
    }

    /// True if a peer gave it when it was asked.
    pub(super) fn is_pulled(&self) -> bool {
        matches!(self.target, Target::Sink(_))
    }

    /// True if ending this job calls foreign code.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.target, Target::Sink(_)) || self.retry_state.is_foreign()
    }

    /// Prepares the job for another attempt, and returns when that is due. `None` if there is none.
    pub(super) fn plan_retry(&mut self, result: &Result<(), Error>) -> Option<Instant> {
        let Err(error) = result else { return None };
        // A sink that detaches bodies gets one when another is closed. The caller of `execute` may hold all of them itself.
        let after = self.retry_state.plan_retry(error, &self.token, self.is_pulled())?;
        // From now, and not from the failure: the sink and the subscribers see the time that the schedule uses.
        let at = Instant::now() + after;
        if let Target::Sink(sink) = &mut self.target {
            if sink.retrying(error, at).is_err() {
                return None;
            }
            // The sink has cancelled it: without this, the log would say that it is retried.
            if self.token.is_cancelled() {
                return None;
            }
        }
        self.record.retry(error, after);
        Some(at)
    }

    /// The one end of a job whose body was not handed over.
    pub(crate) fn end(self, result: Result<(), Error>) {
        self.record.end(&result);
        // Events and the log say why it failed. To its owner, who cancelled it before the retry, it is cancelled.
        let would_retry = result.as_ref().is_err_and(Error::is_retryable);
        let cancelled = self.token.reason().filter(|_| would_retry);
        match (self.target, result) {
            (Target::Sink(sink), result) => {
                sink.finish(cancelled.map_or_else(|| Outcome::from(result), Outcome::Cancelled))
            }
            (Target::Caller(reply), Err(error)) => {
                reply.put(Err(cancelled.map_or(error, Error::cancelled)));
            }
            (Target::Caller(_), Ok(())) => unreachable!("a caller gets the open body"),
        }
    }

    /// Ends a job that was cancelled while it waited.
    pub(crate) fn end_cancelled(self, reason: CancelReason) {
        self.end(Err(Error::cancelled(reason)));
    }
}
