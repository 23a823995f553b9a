//! A peer that is asked for work: it decides what to fetch next.

use std::fmt;

use super::fetch::Fetch;
use super::sink::Sink;
use crate::types::Priority;

/// Decides what to fetch next, at the moment when a worker is free.
///
/// It is asked after [`PeerHandle::wake`](crate::downloader::PeerHandle::wake), and again until it returns [`Next::Wait`] or is
/// cancelled. If 16 of its fetches in a row fail, or 1000 are cancelled, without a byte received, it is asked after a pause.
/// The pause grows up to 250 ms, and ends when the peer is woken or a fetch receives a byte. If the server answers 16 of its fetches
/// in a row with less than 4 KiB of a larger range, it is asked for prefetches after such pauses only.
///
/// [`Next`] shows an example.
pub trait Peer: Send {
    /// The next fetch. It must not be less urgent than `admissible`: the free worker may not run it then. Called on a
    /// worker thread, one call at a time, and must not block. If it panics, the peer is cancelled and
    /// [`Event::PeerFailed`](crate::event::Event::PeerFailed) is published. Other peers are not affected.
    fn next_fetch(&mut self, admissible: Priority) -> Next;
}

/// What a [`Peer`] wants next.
///
/// ```
/// use windway::downloader::{Next, Outcome, Peer, Sink};
/// use windway::{Error, Fetch, Priority};
///
/// struct Discard;
///
/// impl Sink for Discard {
///     fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
///         Ok(())
///     }
///     fn finish(self: Box<Self>, _: Outcome) {}
/// }
///
/// struct Urls(Vec<Fetch>);
///
/// impl Peer for Urls {
///     fn next_fetch(&mut self, _: Priority) -> Next {
///         self.0.pop().map_or(Next::Wait, |fetch| Next::fetch(fetch, Box::new(Discard)))
///     }
/// }
/// ```
#[non_exhaustive]
pub enum Next {
    /// Runs this fetch.
    #[non_exhaustive]
    Fetch {
        /// The fetch.
        fetch: Fetch,
        /// Receives its body.
        sink: Box<dyn Sink>,
        /// The peer is asked again when another worker is free; otherwise not until it is woken.
        more: bool,
    },
    /// Nothing until the peer is woken.
    Wait,
}

impl Next {
    /// Runs this fetch. The peer may have more: it is asked again when another worker is free.
    pub fn fetch(fetch: Fetch, sink: Box<dyn Sink>) -> Self {
        Self::Fetch { fetch, sink, more: true }
    }

    /// Runs this fetch. The peer has no other one until it is woken.
    pub fn last(fetch: Fetch, sink: Box<dyn Sink>) -> Self {
        Self::Fetch { fetch, sink, more: false }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch { fetch, more, .. } => {
                f.debug_struct("Fetch").field("fetch", fetch).field("more", more).finish_non_exhaustive()
            }
            Self::Wait => f.write_str("Wait"),
        }
    }
}

/// A peer that is never asked. It fetches by `execute` and `batch` only.
impl Peer for () {
    fn next_fetch(&mut self, _: Priority) -> Next {
        Next::Wait
    }
}
