//! Counters of a client: requests and connections.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a client, shared by its threads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    /// Those of `dialled` that were preconnected.
    pub(crate) preconnected: AtomicU64,
    pub(crate) requests: AtomicU64,
}

/// Snapshot of a client's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientStats {
    pub(crate) requests: u64,
    pub(crate) dialled: u64,
    pub(crate) preconnected: u64,
    pub(crate) idle: usize,
}

impl Counters {
    /// A snapshot of the counters, with the given number of idle connections.
    pub(super) fn stats(&self, idle: usize) -> ClientStats {
        ClientStats {
            // Relaxed: no other memory depends on the counters, so they may be of slightly different times.
            requests: self.requests.load(Ordering::Relaxed),
            dialled: self.dialled.load(Ordering::Relaxed),
            preconnected: self.preconnected.load(Ordering::Relaxed),
            idle,
        }
    }
}
