//! What a worker has to do.

use std::sync::Arc;

use parking_lot::Mutex;

use super::job::Job;
use crate::cancel::CancelToken;
use crate::downloader::peer::Peer;
use crate::downloader::stats::PeerStats;
use crate::foreign::Foreign;
use crate::types::Priority;

/// What a worker has to do.
pub(crate) enum Task {
    Run(Box<Job>),
    Ask(Question),
    Stop,
}

/// Which peer is to be asked for a fetch, and of which priority at least.
pub(crate) struct Question {
    pub(crate) entry: Arc<PeerEntry>,
    pub(crate) admissible: Priority,
}

/// What the machine keeps of a peer.
pub(crate) struct PeerEntry {
    /// Locked by the worker that asks. The schedule lets only one ask at a time.
    pub(crate) peer: Mutex<Foreign<Box<dyn Peer>>>,
    pub(crate) token: CancelToken,
    pub(crate) stats: Arc<PeerStats>,
}
