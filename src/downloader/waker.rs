//! What a peer's own parts may do with it: wake it, and ask about its network. Keeps nothing alive.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::origins::BesideOpening;
use super::schedule::PeerKey;
use super::stats::PeerStats;
use crate::client::{Alarm, PreconnectGuard, Request};
use crate::downloader::runtime::core::Core;
use crate::downloader::runtime::lend::Lent;
use crate::downloader::runtime::message::Message;
use crate::downloader::runtime::own_thread::on_own_thread;
use crate::event::Event;
use crate::types::{Priority, RequestId};

/// Wakes a peer. Keeps neither the peer nor the downloader alive.
///
/// ```no_run
/// use windway::{Downloader, Priority};
///
/// let handle = Downloader::global()?.register((), Priority::High)?;
/// let waker = handle.waker();
/// std::thread::spawn(move || waker.wake(Priority::Low));
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct Waker {
    core: Weak<Core>,
    key: PeerKey,
    /// Statistics of the peer.
    stats: Weak<PeerStats>,
}

impl Waker {
    /// A waker of the peer that `key` and `stats` belong to.
    pub(super) fn new(core: &Arc<Core>, key: PeerKey, stats: &Arc<PeerStats>) -> Self {
        Self { core: Arc::downgrade(core), key, stats: Arc::downgrade(stats) }
    }

    /// As [`PeerHandle::wake`](crate::downloader::PeerHandle::wake). Does nothing once the peer or the downloader is gone.
    pub fn wake(&self, priority: Priority) {
        if let Some(core) = self.core.upgrade() {
            core.post(Message::Woken(self.key, priority));
        }
    }

    /// As [`PeerHandle::promote`](crate::downloader::PeerHandle::promote). Does nothing once the peer or the downloader is gone.
    pub fn promote(&self, request: RequestId, priority: Priority) {
        if let Some(core) = self.core.upgrade() {
            core.post(Message::Promoted(request, priority));
        }
    }

    /// True if the current thread is a worker, and a fetch waits for one. Costs a load or two, so it may be called at a chunk.
    pub(crate) fn is_this_worker_wanted(&self) -> bool {
        on_own_thread() && self.core.upgrade().is_some_and(|core| core.is_worker_wanted())
    }

    /// Lends the current thread, which would otherwise block, to the peer's urgent fetches: see [`Lent`].
    pub(crate) fn lend(&self, wake: impl Fn() + Send + Sync + 'static) -> Option<Lent> {
        let core = self.core.upgrade()?;
        #[cfg(feature = "bench")]
        if core.never_lends.load(std::sync::atomic::Ordering::Relaxed) {
            return None;
        }
        Some(core.lend(self.key, wake))
    }

    /// What to request in addition while a file is opened. Nothing if the network is metered, or if the origin is known not to
    /// support it.
    pub(crate) fn beside_opening(&self, request: &Request) -> BesideOpening {
        match self.core.upgrade() {
            Some(core) if !core.is_metered() && !core.client.is_single_connection(request) => {
                core.origins.beside_opening(request.origin().key())
            }
            _ => BesideOpening::Nothing,
        }
    }

    /// Names, in lower case, of the header fields of `request` whose values the application chooses.
    #[cfg(feature = "cache")]
    pub(crate) fn header_names(&self, request: &Request) -> Vec<String> {
        self.core.upgrade().map(|core| core.client.header_names(request)).unwrap_or_default()
    }

    /// True if `request` may go out with `Authorization`.
    #[cfg(feature = "cache")]
    pub(crate) fn is_authorized(&self, request: &Request) -> bool {
        self.core.upgrade().is_some_and(|core| core.client.is_authorized(request))
    }

    /// Records whether the origin answered the opening of a file with a range.
    pub(crate) fn record_ranges(&self, request: &Request, has_ranges: bool) {
        if let Some(core) = self.core.upgrade() {
            core.origins.record_ranges(request.origin().key(), has_ranges);
        }
    }

    /// Records that the origin does not serve suffix ranges.
    pub(crate) fn record_suffix_refused(&self, request: &Request) {
        if let Some(core) = self.core.upgrade() {
            core.origins.record_suffix_refused(request.origin().key());
        }
    }

    /// Publishes `event` to the subscribers of the peer and of the downloader.
    pub(crate) fn publish(&self, event: &Event) {
        if let Some(stats) = self.stats.upgrade() {
            stats.publish(event);
        }
        if let Some(core) = self.core.upgrade() {
            core.stats.publish(event);
        }
    }

    /// When the last bytes of the peer arrived, from the first call on: that one returns the time of the call. `None` once the
    /// peer is gone.
    pub(crate) fn last_progress(&self) -> Option<Instant> {
        Some(self.stats.upgrade()?.last_progress())
    }

    /// Calls `call` with the time, at `at` and at each time that it returns, and maybe again after the last one, until the alarm
    /// is dropped. `call` must not block.
    pub(crate) fn call_at(
        &self,
        at: Instant,
        call: impl Fn(Instant) -> Option<Instant> + Send + Sync + 'static,
    ) -> Option<Alarm> {
        Some(self.core.upgrade()?.client.call_at(at, call))
    }

    /// Counters of the peer. `None` once it is gone.
    #[cfg(feature = "hls")]
    pub(crate) fn totals(&self) -> Option<super::Totals> {
        Some(self.stats.upgrade()?.totals())
    }

    /// Keeps a connection to the origin of `request` ready while the guard lives.
    #[cfg(feature = "hls")]
    pub(crate) fn keep_preconnected(&self, request: &Request) -> Option<PreconnectGuard> {
        self.keep_connections(request, 1)
    }

    /// Keeps this many connections to the origin of `request` ready while the guard lives.
    pub(crate) fn keep_connections(&self, request: &Request, ready: usize) -> Option<PreconnectGuard> {
        self.core.upgrade()?.client.keep_preconnected(request, ready)
    }

    /// The value of this type that all peers of the downloader share.
    #[cfg(feature = "hls")]
    pub(crate) fn companion<T: std::any::Any + Default + Send + Sync>(&self) -> Option<std::sync::Arc<T>> {
        self.core.upgrade()?.companion()
    }

    /// True if the network is metered.
    pub(crate) fn is_metered(&self) -> bool {
        self.core.upgrade().is_some_and(|core| core.is_metered())
    }

    /// Measured bandwidth in bytes a second, and TTFB. Of this peer's transfers, whose origin may be further away than others; of
    /// all transfers until the peer has enough of its own.
    pub(crate) fn network(&self) -> (Option<f64>, Option<Duration>) {
        let Some(core) = self.core.upgrade() else { return (None, None) };
        let own = self.stats.upgrade();
        let bandwidth = own.as_ref().and_then(|stats| stats.bandwidth()).or_else(|| core.stats.bandwidth());
        let ttfb = own.and_then(|stats| stats.least_ttfb()).or_else(|| core.stats.least_ttfb());
        (bandwidth, ttfb)
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("key", &self.key).finish_non_exhaustive()
    }
}
