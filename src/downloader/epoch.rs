//! Fetches of one peer that are cancelled together.

use std::fmt;

use crate::cancel::{CancelGuard, CancelReason, CancelToken};

/// Some of a peer's fetches, to be cancelled together: those of a track, or those up to the next seek.
///
/// Only its peer makes one ([`PeerHandle::epoch`](crate::downloader::PeerHandle::epoch)), so what carries it is always within reach of
/// the peer's end and of [`Downloader::stop`](crate::Downloader::stop). Cheap to clone; the clones are the same epoch. It ends
/// only when it is cancelled: dropping it cancels nothing.
///
/// ```no_run
/// use windway::{Downloader, DownloaderConfig, Fetch};
///
/// let downloader = Downloader::new(DownloaderConfig::default())?;
/// let peer = downloader.register((), Default::default())?;
/// let track = peer.epoch();
/// let fetch = Fetch::get("https://example.com/a.flac")?.epoch(&track);
/// track.cancel();
/// assert!(peer.execute(fetch).is_err_and(|error| error.is_cancelled()));
/// assert!(track.is_cancelled());
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct Epoch {
    token: CancelToken,
    /// The token of the peer that it is of. Above `token`.
    peer: CancelToken,
}

impl Epoch {
    /// An epoch of the peer whose token this is.
    pub(super) fn new(peer: &CancelToken) -> Self {
        Self { token: peer.child(CancelReason::Epoch), peer: peer.clone() }
    }

    /// An epoch within this one: cancelled with it, and by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        self.child_as(CancelReason::Epoch)
    }

    /// As [`child`](Self::child), but its own cancel is recorded as `reason`.
    pub(crate) fn child_as(&self, reason: CancelReason) -> Self {
        Self { token: self.token.child(reason), peer: self.peer.clone() }
    }

    /// Cancels all fetches that carry this epoch or one within it, and those that will. Runs what was registered by
    /// [`on_cancel`](Self::on_cancel) on this thread. Does not block on the network.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// True once it was cancelled, by whomever.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The first reason for which it was cancelled. Not public: a program knows why it cancels, and errors and events say
    /// why a fetch ended.
    pub(crate) fn reason(&self) -> Option<CancelReason> {
        self.token.reason()
    }

    /// Runs `hook` when this epoch is cancelled, on the thread that cancels it, or now if it already is. A panic in it is
    /// caught and logged.
    ///
    /// The hook must not block: what else is to be cancelled waits for it. Blocking calls of windway's fail in it with
    /// [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock). Dropping the guard takes it back; a hook that is being
    /// run just then still ends.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> CancelGuard {
        self.token.on_cancel(|_| hook())
    }

    pub(crate) fn token(&self) -> &CancelToken {
        &self.token
    }

    /// True if it is of the peer whose token this is.
    pub(super) fn is_of(&self, peer: &CancelToken) -> bool {
        self.peer.is_same(peer)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").field("reason", &self.reason()).finish_non_exhaustive()
    }
}
