//! The answer to a caller of `execute` or `batch`: a worker puts it, the caller waits for it.

use std::sync::Arc;

use super::bodies::{OpenBodies, OpenBody};
use super::credits::Credit;
use super::response::{KeepAlive, Response};
use super::runtime::one_shot::OneShot;
use super::runtime::record::abandoned;
use crate::cancel::CancelToken;
use crate::error::Error;

/// Where a response waits for its caller. Boxed, because it is moved several times on its way.
pub(super) type ReplySlot = OneShot<Result<Box<Response>, Error>>;

/// Where a worker puts the result for a caller of `execute` or `batch`, exactly once. Holds the fetch's credit until then.
pub(super) struct Reply {
    slot: Option<Arc<ReplySlot>>,
    credit: Option<Credit>,
    without_room: WithoutRoom,
}

/// What happens to a response that arrives while `max_open_bodies` are open.
#[derive(Clone, Copy, Debug)]
pub(super) enum WithoutRoom {
    /// It fails. For `execute`.
    Fail,
    /// Its body is opened anyway. For a batch, which sent the request while there was room, and waits for the response.
    Open,
}

impl Reply {
    pub(super) fn new(slot: &Arc<ReplySlot>, credit: Credit, without_room: WithoutRoom) -> Self {
        Self { slot: Some(Arc::clone(slot)), credit: Some(credit), without_room }
    }

    /// Counts the body of the response as open.
    pub(super) fn open(&self, bodies: &Arc<OpenBodies>) -> Result<OpenBody, Error> {
        match self.without_room {
            WithoutRoom::Fail => bodies.open(),
            WithoutRoom::Open => Ok(bodies.open_anyway()),
        }
    }

    pub(super) fn put(mut self, result: Result<Box<Response>, Error>) {
        self.answer(result);
    }

    fn answer(&mut self, result: Result<Box<Response>, Error>) {
        let Some(slot) = self.slot.take() else { return };
        // Before the caller continues: its next call may need the credit.
        self.credit = None;
        slot.put(result);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // A job that is dropped answers as well, or its caller would wait forever.
        if self.slot.is_some() {
            self.answer(Err(abandoned()));
        }
    }
}

/// A submitted fetch that has no response yet.
pub(super) struct Pending {
    slot: Arc<ReplySlot>,
    /// Of the fetch. `None` once its response was taken: until then the drop of this cancels the fetch.
    token: Option<CancelToken>,
    peer: KeepAlive,
}

impl Pending {
    /// The answer of the [`Reply`] that has the same `slot`. `token` is that of the fetch.
    pub(super) fn new(slot: Arc<ReplySlot>, token: CancelToken, peer: KeepAlive) -> Self {
        Self { slot, token: Some(token), peer }
    }

    /// Blocks until the response head arrives or the fetch fails.
    pub(super) fn wait(mut self) -> Result<Response, Error> {
        let answer = self.slot.take();
        // The response owns the fetch from now on, and its own drop ends it.
        self.token = None;
        let mut response = answer?;
        response.keep(Arc::clone(&self.peer));
        Ok(*response)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // No caller takes the response any more.
        if let Some(token) = self.token.take() {
            token.cancel();
        }
    }
}
