//! Counters of a client: requests and connections.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a client, shared by its threads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    /// Connections of `dialled` that were preconnected.
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

/// How the connections over HTTP/3 are used, over all origins. Part of [`Stats`](crate::downloader::Stats).
///
/// ```
/// let downloader = windway::Downloader::new(windway::DownloaderConfig::default())?;
/// assert_eq!(downloader.stats().http3.connections_ready, 0);
/// # Ok::<(), windway::Error>(())
/// ```
#[cfg(feature = "http3")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Http3Stats {
    /// Connections whose handshake is complete, and that take new requests.
    pub connections_ready: usize,
    /// Request streams that are open on them. Each response has one until its last byte has arrived.
    pub streams_in_use: usize,
    /// Requests that wait for a stream, because the servers allow no more at present.
    pub streams_awaited: usize,
    /// Streams that the servers still allow, counted up to 128 for each connection. The last two of each connection are for
    /// urgent fetches.
    pub stream_credit: usize,
}
