//! Limits of connections and requests over HTTP/3.

use std::time::Duration;

/// Longest time without a packet before a PING, on a connection that is kept alive. Servers close a connection that is idle for
/// 30 s or more, by default; a third of that leaves time for PINGs that are lost. Address translators keep a UDP flow for 30 s at
/// least, in most cases (RFC 9308, section 3.2).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Shortest such time. A server that ends idle connections sooner than three of them is not worth the packets: the connection
/// ends, and a request continues on another one.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_millis(250);

/// Bytes that a server may send before they are read: of one body, and of all bodies of a new connection. The second grows with
/// the largest number of streams, so the first bounds the memory of each. The first is a second at 32 Mbit/s, or 4 MB/s · 1 s; a
/// longer path at a higher rate is slowed down by it.
pub(crate) const WINDOWS: (u32, u32) = (4 * 1024 * 1024, 8 * 1024 * 1024);

/// Limits of connections and requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) silence: Duration,
    pub(crate) idle: Duration,
    /// Maximum number of idle connections.
    pub(crate) max_idle: usize,
    /// Maximum size of a response head in bytes.
    pub(crate) max_head: usize,
}

impl Limits {
    /// Time without a packet after which a PING keeps a connection alive.
    pub(crate) fn keep_alive(&self) -> Duration {
        KEEP_ALIVE.min(self.idle / 3)
    }

    /// As [`keep_alive`](Self::keep_alive), for the idle limit of a server.
    pub(crate) fn keep_alive_within(idle: Duration) -> Duration {
        KEEP_ALIVE.min(idle / 3).max(SHORTEST_KEEP_ALIVE)
    }
}
