//! What a client has done: counts of requests and connections.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a client, shared by its threads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    /// Of those, the ones that were opened ahead.
    pub(crate) preconnected: AtomicU64,
    pub(crate) requests: AtomicU64,
}

/// What a client has done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientStats {
    pub(crate) requests: u64,
    pub(crate) dialled: u64,
    pub(crate) preconnected: u64,
    pub(crate) idle: usize,
}

impl Counters {
    /// The counts, beside so many idle connections.
    pub(super) fn stats(&self, idle: usize) -> ClientStats {
        ClientStats {
            requests: self.requests.load(Ordering::Relaxed),
            dialled: self.dialled.load(Ordering::Relaxed),
            preconnected: self.preconnected.load(Ordering::Relaxed),
            idle,
        }
    }
}
