//! The sink of the suffix request: holds its bytes until the opening has shown what the file is. See
//! [`suffix`](super::suffix).

use std::sync::Arc;

use super::shared::Shared;
use super::suffix::Tail;
use crate::client::ResponseHead;
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::{Error, ErrorKind};
use crate::types::{Priority, RequestId};

/// The sink of the suffix request.
pub(crate) struct SuffixSink {
    shared: Arc<Shared>,
    tail: Option<Tail>,
    /// The response had other bytes than the requested ones.
    is_refused: bool,
}

impl SuffixSink {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tail: None, is_refused: false }
    }
}

impl Sink for SuffixSink {
    fn accepted(&mut self, request: RequestId) {
        self.shared.state.lock().suffix.accepted(request);
        self.shared.promote_urgent();
    }

    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.shared.state.lock().stats.requests += 1;
        if !head.is_partial() {
            self.is_refused = true;
            return Err(Error::new(
                ErrorKind::Refusal,
                "the server sent the whole file instead of the last bytes",
            ));
        }
        self.tail = Some(Tail { head: head.clone(), bytes: Vec::new() });
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        if let Some(tail) = &mut self.tail {
            tail.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        let Self { shared, tail, is_refused } = *self;
        let is_done = matches!(outcome, Outcome::Done);
        if is_refused
            || matches!(&outcome, Outcome::Failed(error) if error.kind() == ErrorKind::WrongRange || error.may_refuse_range())
        {
            if let Some(link) = shared.link.get() {
                link.waker.record_suffix_refused(&shared.request);
            }
        }
        {
            let mut state = shared.state.lock();
            match tail.filter(|_| is_done) {
                Some(tail) => state.suffix.hold(tail),
                None => drop(state.suffix.give_up()),
            }
        }
        // If they did not arrive, a reader may be blocked on bytes that nothing fetches: `replan` requests them as a piece.
        let stored = shared.store_tail();
        if let Err(error) = stored {
            log::debug!("the last bytes of {} can't be stored: {error}", shared.url());
        }
        shared.keep_preconnected();
        shared.resource.notify();
        shared.replan(Priority::High);
    }
}
