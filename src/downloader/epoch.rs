//! Fetches of one peer that are cancelled together.

use std::fmt;

use crate::cancel::{CancelGuard, CancelReason, CancelStage, CancelToken};

/// Cancels some fetches of a peer together, for example those of a track, or those up to the next seek.
///
/// [`PeerHandle::epoch`](crate::downloader::PeerHandle::epoch) makes one. So the end of the peer and
/// [`Downloader::stop`](crate::Downloader::stop) cancel it too. Cheap to clone; the clones are the same epoch. Dropping it
/// cancels nothing.
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
    /// Of the peer. An ancestor of `token`.
    peer: CancelToken,
}

impl Epoch {
    /// An epoch of the peer whose token this is.
    pub(super) fn new(peer: &CancelToken) -> Self {
        Self { token: peer.child(CancelReason::Epoch), peer: peer.clone() }
    }

    /// An epoch inside this one. It is cancelled with this one, and can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child(CancelReason::Epoch), peer: self.peer.clone() }
    }

    /// As [`child`](Self::child), for all that a stream does: its cancel is recorded as that of the peer.
    pub(crate) fn child_as_peer(&self) -> Self {
        Self { token: self.token.child(CancelReason::Peer), peer: self.peer.clone() }
    }

    /// Cancels all fetches that carry this epoch or a child of it, including those that are submitted later. Runs the hooks of
    /// [`on_cancel`](Self::on_cancel) on this thread. Does not block on the network.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// True once this epoch, its peer or its downloader was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The reason of the first cancel. Not public: a program knows why it cancels, and errors and events give the reason for
    /// which a fetch ended.
    pub(crate) fn reason(&self) -> Option<CancelReason> {
        self.token.reason()
    }

    /// Runs `hook` when this epoch is cancelled, on the thread that cancels it. If it is already cancelled, runs `hook` now.
    /// A panic in it is caught and logged.
    ///
    /// The hook must not block: other fetches are cancelled only after it returns. Blocking calls of windway fail in it with
    /// [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock). The drop of the guard removes the hook, but does not
    /// wait for one that is running.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> CancelGuard {
        self.token.on_cancel(CancelStage::Report, |_| hook())
    }

    pub(crate) fn token(&self) -> &CancelToken {
        &self.token
    }

    /// True if it was made by the peer that `peer` is the token of.
    pub(super) fn is_of(&self, peer: &CancelToken) -> bool {
        self.peer.is_same(peer)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").field("reason", &self.reason()).finish_non_exhaustive()
    }
}
