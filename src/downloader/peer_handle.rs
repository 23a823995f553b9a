//! The handle of a registered peer: fetches by itself (`execute`, `batch`), wakes, priorities, cancellation.

use std::fmt;
use std::sync::{Arc, Weak};

use super::bodies::{OpenBodies, Progress};
use super::credits::{Credit, Credits};
use super::epoch::Epoch;
use super::fetch::Fetch;
use super::handle::Handle;
use super::reply::{Pending, Reply, WithoutRoom};
use super::response::{Response, open_body};
use super::schedule::PeerKey;
use super::stats::{PeerStats, Totals};
use super::waker::Waker;
use crate::buffer::Buffer;
use crate::cancel::{CancelGuard, CancelReason, CancelStage, CancelToken};
use crate::downloader::runtime::core::Core;
use crate::downloader::runtime::job::Target;
use crate::downloader::runtime::message::{Channel, Message};
use crate::downloader::runtime::one_shot::OneShot;
use crate::downloader::runtime::worker::run_job;
use crate::error::{Error, ErrorKind};
use crate::event::Subscriber;
use crate::foreign;
use crate::types::{Priority, RequestId};

/// Fetches for a registered peer, and controls it. Cheap to clone. The drop of the last clone cancels the peer's fetches
/// and frees the peer. A handle keeps the downloader running.
///
/// ```no_run
/// use windway::{Downloader, Fetch, Priority};
///
/// let peer = Downloader::global()?.register((), Priority::High)?;
/// let playlist = peer.execute(Fetch::get("https://example.com/list.m3u")?)?.text(1 << 20)?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct PeerHandle(Arc<Registration>);

/// A registered peer, until its last handle is dropped.
struct Registration {
    key: PeerKey,
    token: CancelToken,
    stats: Arc<PeerStats>,
    /// Gone once the scheduler has dropped the peer.
    channel: Weak<Channel>,
    credits: Arc<Credits>,
    /// Posts the cancellation to the machine: the peer must not be asked any more.
    on_cancel: Option<CancelGuard>,
    /// Last, so that the downloader stops after the peer is gone.
    downloader: Arc<Handle>,
}

impl PeerHandle {
    pub(super) fn new(
        downloader: Arc<Handle>,
        key: PeerKey,
        token: CancelToken,
        stats: Arc<PeerStats>,
        channel: Weak<Channel>,
    ) -> Self {
        let capacity = downloader.core().config.peer_capacity;
        let credits = Credits::new(capacity);
        let core = Arc::downgrade(downloader.core());
        let on_cancel = token.on_cancel(CancelStage::Report, move |_| {
            if let Some(core) = core.upgrade() {
                core.post(Message::PeerCancelled(key));
            }
        });
        let on_cancel = Some(on_cancel);
        Self(Arc::new(Registration { key, token, stats, channel, credits, on_cancel, downloader }))
    }

    /// The token of all its fetches.
    pub(crate) fn token(&self) -> &CancelToken {
        &self.0.token
    }

    fn core(&self) -> &Arc<Core> {
        self.0.downloader.core()
    }

    /// Fetches as urgent work. Blocks until the response head arrives; the caller then reads the body. If a worker is idle,
    /// the request is made on the calling thread in place of that worker, which saves two thread switches.
    ///
    /// # Errors
    ///
    /// The error of the last attempt, after all retries; [`Cancelled`](crate::ErrorKind::Cancelled);
    /// [`TooManyOpenBodies`](crate::ErrorKind::TooManyOpenBodies); [`WouldDeadlock`](crate::ErrorKind::WouldDeadlock) in a
    /// callback, but for the methods of a [`RequestHook`](crate::config::RequestHook): there the request is made on the calling
    /// thread at once, beside the workers and the limit of the origin; [`InvalidInput`](crate::ErrorKind::InvalidInput) for an
    /// epoch of another peer.
    pub fn execute(&self, fetch: Fetch) -> Result<Response, Error> {
        if foreign::in_hook() {
            return self.execute_in_hook(fetch);
        }
        self.check(&fetch)?;
        let token = fetch.epoch.as_ref().map_or(&self.0.token, Epoch::token);
        // So that no request is sent whose answer could not be kept. Checked again when the response head arrives.
        let credit = self.bodies().check_room().and_then(|()| self.0.credits.take(token));
        let credit = credit.map_err(|error| error.with_url(fetch.request.url()))?;
        if fetch.is_held() {
            return self.execute_held(fetch);
        }
        let (pending, request) = self.submit(fetch, credit, WithoutRoom::Fail);
        // The worker sleeps on: this thread, which would only wait for it, runs the job in its place.
        if let Some((worker, job)) = self.core().submit(self.0.key, request) {
            let done = run_job(self.core(), worker, job, &mut Buffer::default());
            done.send(|report| self.core().post(Message::FromWorker(worker, report)));
        }
        pending.wait()
    }

    /// Makes the request of a held fetch.
    fn execute_held(&self, fetch: Fetch) -> Result<Response, Error> {
        let url = fetch.request.url().clone();
        let response = fetch.check_hold().and_then(|()| self.execute_here(fetch));
        response.map_err(|error| error.with_url(&url))
    }

    /// Makes a request for a hook. All workers, and all slots of the origin, may be taken by fetches whose hooks wait for such
    /// requests, so it must wait for none of them.
    fn execute_in_hook(&self, fetch: Fetch) -> Result<Response, Error> {
        fetch.check_epoch(&self.0.token)?;
        let url = fetch.request.url().clone();
        // Not `take`: the credits may be held by fetches that wait for a worker.
        let full =
            || Error::new(ErrorKind::WouldDeadlock, "execute in a hook: the peer has its maximum of fetches");
        let credit = self.0.credits.try_take().ok_or_else(full);
        let response = credit.and_then(|_credit| {
            self.bodies().check_room()?;
            self.execute_here(fetch)
        });
        response.map_err(|error| error.with_url(&url))
    }

    /// Makes the request of a fetch on this thread. The schedule does not know the fetch, which neither has a worker nor waits
    /// for one.
    fn execute_here(&self, fetch: Fetch) -> Result<Response, Error> {
        let core = self.core();
        let token = fetch.epoch.as_ref().map_or(&self.0.token, Epoch::token).child(CancelReason::Fetch);
        let Fetch { request, rules, .. } = fetch;
        let (mut record, mut retry_state) = core.begin(&self.0.stats, request, Priority::High, rules);
        record.start();
        let opened = open_body(&mut record, &mut retry_state, &token);
        match opened.and_then(|body| Ok((body, self.bodies().open()?))) {
            Ok((body, open)) => {
                let mut response = Response::new(body, open, record, retry_state, token);
                response.keep(Arc::clone(&self.0) as _);
                Ok(response)
            }
            Err(error) => {
                record.end(&Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Maximum number of fetches without a response.
    pub(super) fn capacity(&self) -> usize {
        self.core().config.peer_capacity
    }

    /// Number of workers, which is how many fetches may run at once.
    pub(super) fn workers(&self) -> usize {
        self.core().config.max_concurrent
    }

    pub(super) fn bodies(&self) -> &Arc<OpenBodies> {
        &self.core().bodies
    }

    /// Number of fetches that may be submitted before a response arrives.
    pub(super) fn free_credits(&self) -> usize {
        self.0.credits.free()
    }

    pub(super) fn try_credit(&self) -> Option<Credit> {
        self.0.credits.try_take()
    }

    /// Puts a fetch of a batch, for which there is room, into the peer's channel. To be [announced](Self::announce).
    pub(super) fn enqueue(&self, fetch: Fetch, credit: Credit) -> Result<Pending, Error> {
        self.check(&fetch)?;
        fetch.check_not_held()?;
        Ok(self.submit(fetch, credit, WithoutRoom::Open).0)
    }

    /// Informs the machine that there are fetches in the peer's channel.
    pub(super) fn announce(&self) {
        self.core().post(Message::Submitted(self.0.key));
    }

    /// Sends a fetch of a batch. Blocks until there is room, or the fetch is cancelled. `stuck` is that of
    /// [`OpenBodies::await_room`].
    pub(super) fn send_patiently(
        &self,
        fetch: Fetch,
        stuck: &mut Option<Progress>,
    ) -> Result<Pending, Error> {
        self.check(&fetch)?;
        let url = fetch.request.url().clone();
        let token = fetch.epoch.as_ref().map_or(&self.0.token, Epoch::token);
        self.bodies().await_room(token, stuck).map_err(|error| error.with_url(&url))?;
        let credit = self.0.credits.take(token).map_err(|error| error.with_url(&url))?;
        let pending = self.enqueue(fetch, credit)?;
        self.announce();
        Ok(pending)
    }

    /// Fails if `fetch` can't be sent, or if this thread must not wait for it.
    fn check(&self, fetch: &Fetch) -> Result<(), Error> {
        Error::check_may_block("execute").map_err(|error| error.with_url(fetch.request.url()))?;
        fetch.check_epoch(&self.0.token)
    }

    /// Puts a fetch into the peer's channel. The caller still has to post it to the core.
    fn submit(&self, fetch: Fetch, credit: Credit, without_room: WithoutRoom) -> (Pending, RequestId) {
        let core = self.core();
        let slot = Arc::new(OneShot::default());
        let target = Target::Caller(Reply::new(&slot, credit, without_room));
        // Whatever priority the fetch had: its caller is blocked on it.
        let fetch = fetch.priority(Priority::High);
        let job = core.accept(&self.0.token, &self.0.stats, fetch, target);
        let (request, token) = (job.record.id, job.token.clone());
        match self.0.channel.upgrade() {
            Some(channel) => channel.send(job),
            // The downloader has stopped. The drop of the job answers its caller.
            None => drop(job),
        }
        (Pending::new(slot, token, Arc::clone(&self.0) as _), request)
    }

    /// Lets the downloader ask the peer for fetches. `priority` is that of the next one. Never blocks.
    pub fn wake(&self, priority: Priority) {
        self.core().post(Message::Woken(self.0.key, priority));
    }

    /// A handle that can wake the peer, and does not keep it alive.
    pub fn waker(&self) -> Waker {
        Waker::new(self.core(), self.0.key, &self.0.stats)
    }

    /// Changes the peer's priority relative to other peers. Also applies to its queued and running fetches.
    pub fn set_priority(&self, priority: Priority) {
        self.core().post(Message::Prioritised(self.0.key, priority));
    }

    /// Changes the priority of one fetch, which may be queued or running. A queued fetch that was
    /// raised is the next of the peer's fetches of its new priority; one that was lowered is the last of them.
    pub fn promote(&self, request: RequestId, priority: Priority) {
        self.core().post(Message::Promoted(request, priority));
    }

    /// A new epoch, which cancels the fetches that carry it and no others.
    pub fn epoch(&self) -> Epoch {
        Epoch::new(&self.0.token)
    }

    /// Cancels all fetches of the peer, including those that it submits later.
    pub fn cancel(&self) {
        self.0.token.cancel();
    }

    /// Subscribes to the events of this peer's fetches, from now on.
    pub fn subscribe(&self) -> Subscriber {
        self.0.stats.bus.subscribe()
    }

    /// Bandwidth of this peer's transfers together, in bytes a second, over the last seconds in which one of them waited for the
    /// network. `None` until enough was transferred. [`Downloader::bandwidth`](crate::Downloader::bandwidth) includes the
    /// other peers.
    pub fn bandwidth(&self) -> Option<f64> {
        self.0.stats.bandwidth()
    }

    /// Numbers of this peer's fetches by outcome, of responses and of bytes.
    pub fn totals(&self) -> Totals {
        self.0.stats.totals()
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerHandle").field("key", &self.0.key).finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Without its message to the machine: `unregister` makes the schedule forget the peer at once.
        self.on_cancel = None;
        self.token.cancel();
        self.downloader.core().unregister(self.key);
    }
}
