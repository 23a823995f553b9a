//! Keeps connections to an origin ready: idle ones in the pool, or the one of HTTP/3.

use std::fmt;

#[cfg(feature = "http3")]
use super::h3::keep_alive::KeepAlive;
use super::pool::preconnect::PoolGuard;

/// Keeps connections to an origin ready until it is dropped.
pub(crate) struct PreconnectGuard {
    /// How many were asked for. HTTP/3 has one for all requests.
    ready: usize,
    kept: Kept,
}

enum Kept {
    Pool(PoolGuard),
    #[cfg(feature = "http3")]
    Quic(KeepAlive),
}

impl PreconnectGuard {
    pub(super) fn of_pool(guard: PoolGuard, ready: usize) -> Self {
        Self { ready, kept: Kept::Pool(guard) }
    }

    #[cfg(feature = "http3")]
    pub(super) fn of_quic(guard: KeepAlive, ready: usize) -> Self {
        Self { ready, kept: Kept::Quic(guard) }
    }

    /// How many connections were asked for.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// The holder has closed its connection in the middle of a body. It will need one again.
    pub(crate) fn handle_cut(&self) {
        match &self.kept {
            Kept::Pool(guard) => guard.handle_cut(),
            // The end of a stream leaves its connection open.
            #[cfg(feature = "http3")]
            Kept::Quic(_) => {}
        }
    }

    /// True if the origin has turned out to serve one connection at a time.
    pub(crate) fn is_single_connection(&self) -> bool {
        match &self.kept {
            Kept::Pool(guard) => guard.is_single_connection(),
            // One is all that HTTP/3 needs.
            #[cfg(feature = "http3")]
            Kept::Quic(_) => false,
        }
    }
}

impl fmt::Debug for PreconnectGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kept {
            Kept::Pool(guard) => guard.fmt(f),
            #[cfg(feature = "http3")]
            Kept::Quic(guard) => guard.fmt(f),
        }
    }
}
