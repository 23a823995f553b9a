//! What connects a presentation with the downloader, from the opening on: wake-ups, epochs, and the network that it shares with
//! other streams.

use std::sync::OnceLock;
use std::time::Duration;

use super::group::{Group, Membership, Received};
use crate::abr::Demand;
use crate::cancel::{CancelGuard, CancelReason, CancelStage, CancelToken};
use crate::downloader::{Epoch, Totals, Waker};
use crate::types::{Priority, RequestId};

/// Does nothing before it is connected.
#[derive(Debug, Default)]
pub(super) struct Link {
    connected: OnceLock<Connected>,
    /// Of the peer, if the presentation is opened in the background: cancels the opening too.
    peer: OnceLock<CancelToken>,
}

#[derive(Debug)]
struct Connected {
    waker: Waker,
    /// Above the epochs between two seeks.
    epoch: Epoch,
    /// `None` if the downloader has stopped.
    membership: Option<Membership>,
    /// The last counters of the peer. Set before it is dropped.
    last_totals: OnceLock<Totals>,
}

impl Link {
    pub(super) fn connect(&self, waker: Waker, epoch: Epoch, demand: Demand) {
        let membership = waker.companion::<Group>().map(|group| Membership::join(group, demand));
        // Set once: a presentation is started once.
        let _ = self.connected.set(Connected { waker, epoch, membership, last_totals: OnceLock::new() });
    }

    /// An epoch for all segments until a seek to what is not buffered.
    pub(super) fn child_epoch(&self) -> Option<Epoch> {
        self.connected.get().map(|link| link.epoch.child())
    }

    /// Lets `cancel` end the opening, which needs no connection: before `connect`.
    pub(super) fn set_peer(&self, peer: &CancelToken) {
        // Set once: a presentation is opened once.
        let _ = self.peer.set(peer.clone());
    }

    /// Ends all transfers of segments, and an opening in the background.
    pub(super) fn cancel(&self) {
        if let Some(peer) = self.peer.get() {
            peer.cancel();
        }
        if let Some(link) = self.connected.get() {
            link.epoch.cancel();
        }
    }

    /// Runs `hook` when all transfers are stopped permanently.
    pub(super) fn on_cancel(&self, hook: Box<dyn FnOnce() + Send>) -> Option<CancelGuard> {
        match self.peer.get() {
            Some(peer) => Some(peer.on_cancel(CancelStage::Report, move |_| hook())),
            None => Some(self.connected.get()?.epoch.on_cancel(hook)),
        }
    }

    pub(super) fn cancelled(&self) -> Option<CancelReason> {
        let peer = self.peer.get().and_then(CancelToken::reason);
        peer.or_else(|| self.connected.get()?.epoch.reason())
    }

    pub(super) fn wake(&self, priority: Priority) {
        if let Some(link) = self.connected.get() {
            link.waker.wake(priority);
        }
    }

    /// What connects it with the downloader. `None` while it is being opened.
    #[cfg(feature = "cache")]
    pub(super) fn waker(&self) -> Option<&Waker> {
        self.connected.get().map(|link| &link.waker)
    }

    pub(super) fn promote(&self, request: RequestId) {
        if let Some(link) = self.connected.get() {
            link.waker.promote(request, Priority::High);
        }
    }

    /// Measured throughput in bytes a second, and the time to the first byte.
    pub(super) fn network(&self) -> (Option<f64>, Option<Duration>) {
        self.connected.get().map_or((None, None), |link| link.waker.network())
    }

    /// What only the downloader knows: whether the network is metered, and what other streams need of it.
    pub(super) fn surroundings(&self) -> (bool, Vec<Demand>) {
        let Some(link) = self.connected.get() else { return (false, Vec::new()) };
        (link.waker.is_metered(), link.membership.as_ref().map(Membership::others).unwrap_or_default())
    }

    pub(super) fn set_demand(&self, demand: Demand) {
        self.membership().into_iter().for_each(|membership| membership.set_demand(demand));
    }

    /// Counters of all transfers, those of the opening included.
    pub(super) fn totals(&self) -> Totals {
        let Some(link) = self.connected.get() else { return Totals::default() };
        link.waker.totals().or_else(|| link.last_totals.get().copied()).unwrap_or_default()
    }

    /// Keeps the counters for handles that outlive the peer.
    pub(super) fn keep_totals(&self) {
        if let Some((link, totals)) = self.connected.get().and_then(|link| Some((link, link.waker.totals()?)))
        {
            // Set once: a presentation is dropped once.
            let _ = link.last_totals.set(totals);
        }
    }

    /// Counts bytes of a segment, for the streams that share the network.
    pub(super) fn count_received(&self, bytes: u64) {
        self.membership().into_iter().for_each(|membership| membership.handle_received(bytes));
    }

    /// Bytes of segments that this stream and the others have received.
    pub(super) fn received(&self) -> Received {
        self.membership().map(Membership::received).unwrap_or_default()
    }

    fn membership(&self) -> Option<&Membership> {
        self.connected.get()?.membership.as_ref()
    }
}
