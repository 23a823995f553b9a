//! Requests a few stored bytes again, to learn whether servers with a different entity tag send the same bytes. See
//! [`pool`](super::pool).

use std::sync::Arc;

use super::pool::{Probed, Proof};
use super::shared::Shared;
use crate::client::ResponseHead;
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::{Error, ErrorKind};
use crate::types::Priority;

pub(crate) struct ProbeSink {
    shared: Arc<Shared>,
    proof: Proof,
    /// The stored bytes.
    stored: Vec<u8>,
    /// The received ones.
    received: Vec<u8>,
    /// What the response head shows, once it has arrived.
    seen: Probed,
}

impl ProbeSink {
    pub(crate) fn new(shared: Arc<Shared>, proof: Proof, stored: Vec<u8>) -> Self {
        Self { shared, proof, stored, received: Vec::new(), seen: Probed::Nothing }
    }
}

impl Sink for ProbeSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        // A retry has a response of its own, from its first byte.
        self.received.clear();
        self.seen = self.shared.state.lock().read_probe(head, self.proof);
        match self.seen {
            Probed::Suspects(..) => Ok(Flow::Stream),
            _ => Err(Error::new(ErrorKind::Refusal, "the head was all that was asked for")),
        }
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        self.received.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        let is_all = matches!(outcome, Outcome::Done) && self.received.len() == self.stored.len();
        let probed = match self.seen {
            Probed::Suspects(proof, _) if is_all => Probed::Suspects(proof, self.received == self.stored),
            Probed::Suspects(..) => Probed::Nothing,
            seen => seen,
        };
        let is_to_log = self.shared.state.lock().pool.handle_probed(probed);
        if is_to_log {
            let url = self.shared.url();
            log::warn!("servers behind {url} give the same file different entity tags: all are read from");
        }
        self.shared.resource.notify();
        self.shared.replan(Priority::Low);
    }
}
