//! A peer: a part of a program that fetches, by itself (`execute`, `batch`) or when it is asked (`Peer`).

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::batch::Batch;
use super::bodies::{OpenBodies, Progress};
use super::epoch::Epoch;
use super::fetch::Fetch;
use super::handle::Handle;
use super::origins::BesideOpening;
use super::response::{Reply, Response, WithoutRoom, open_body};
use super::schedule::PeerKey;
use super::sink::Sink;
use super::stats::{PeerStats, Totals};
use crate::cancel::{CancelGuard, CancelReason, CancelToken};
use crate::client::{PreconnectGuard, Request};
use crate::downloader::runtime::control::Control;
use crate::downloader::runtime::core::Core;
use crate::downloader::runtime::job::{Job, Target};
use crate::downloader::runtime::lend::Lent;
use crate::downloader::runtime::message::{Channel, Message};
use crate::downloader::runtime::one_shot::OneShot;
use crate::downloader::runtime::record::Record;
use crate::downloader::runtime::retry_state::RetryState;
use crate::downloader::runtime::worker::run_job;
use crate::error::Error;
use crate::event::{Event, Subscriber};
use crate::types::{Priority, RequestId};

/// Decides what to fetch next, at the moment when a worker is free.
///
/// It is asked after [`PeerHandle::wake`], and again until it returns [`Next::Wait`] or is cancelled. If 16 of its fetches
/// in a row fail, or 1000 are cancelled, without a byte received, it is asked after a pause. The pause grows up to 250 ms,
/// and ends when the peer is woken or a fetch receives a byte.
///
/// [`Next`] shows an example.
pub trait Peer: Send {
    /// The next fetch. It must not be less urgent than `admissible`: the free worker may not run it then. Called on a
    /// worker thread, one call at a time, and must not block. If it panics, the peer is cancelled and
    /// [`Event::PeerFailed`] is published. Other peers are not affected.
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
    /// Tells the schedule that the peer is cancelled and must not be asked any more.
    on_cancel: Option<CancelGuard>,
    /// Last, so that the downloader stops after the peer is gone.
    downloader: Arc<Handle>,
}

/// How many more fetches of a peer may wait for their response. Open bodies do not count: a caller that holds bodies and
/// asks for more would wait for itself.
struct Credits {
    left: Mutex<usize>,
    /// Notified when a credit comes back, and when a waiting call is cancelled.
    changed: Condvar,
}

/// Held by a fetch that has no response yet. Its drop gives the credit back.
pub(super) struct Credit(Arc<Credits>);

impl PeerHandle {
    pub(super) fn new(
        downloader: Arc<Handle>,
        key: PeerKey,
        token: CancelToken,
        stats: Arc<PeerStats>,
        channel: Weak<Channel>,
    ) -> Self {
        let capacity = downloader.core().config.peer_capacity;
        let credits = Arc::new(Credits { left: Mutex::new(capacity), changed: Condvar::new() });
        let core = Arc::downgrade(downloader.core());
        let on_cancel = token.on_cancel(move |_| {
            if let Some(core) = core.upgrade() {
                core.post(Message::PeerCancelled(key));
            }
        });
        let on_cancel = Some(on_cancel);
        Self(Arc::new(Registration { key, token, stats, channel, credits, on_cancel, downloader }))
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
    /// callback; [`InvalidInput`](crate::ErrorKind::InvalidInput) for an epoch of another peer.
    pub fn execute(&self, fetch: Fetch) -> Result<Response, Error> {
        self.check(&fetch)?;
        let url = fetch.request.url().clone();
        let token = fetch.epoch.as_ref().map_or(&self.0.token, Epoch::token);
        // So that no request is sent in vain. Checked again when the response head arrives.
        self.bodies().check_room().map_err(|error| error.with_url(&url))?;
        let credit = self.0.credits.take(token).map_err(|error| error.with_url(&url))?;
        if fetch.is_held() {
            return self.execute_held(fetch).map_err(|error| error.with_url(&url));
        }
        let (pending, request) = self.submit(fetch, credit, WithoutRoom::Fail);
        if let Some((worker, job)) = self.core().submit(self.0.key, request) {
            let report = run_job(self.core(), worker, job, &mut Box::default());
            report.send(|message| self.core().post(message));
        }
        pending.wait()
    }

    /// Makes the request of a held fetch on this thread. The schedule does not know the fetch, which neither has a worker nor
    /// waits for one.
    fn execute_held(&self, fetch: Fetch) -> Result<Response, Error> {
        fetch.check_hold()?;
        let core = self.core();
        let token = fetch.epoch.as_ref().map_or(&self.0.token, Epoch::token).child(CancelReason::Fetch);
        let all_stats = [Arc::clone(&self.0.stats), Arc::clone(&core.stats)];
        let now = Instant::now();
        let (request, measured) = (core.next_request(), fetch.rules.measured);
        let control = Arc::new(Control::new(request, Priority::High, measured, all_stats, now));
        let mut record = Record::new(Arc::clone(&control), now);
        record.publish(fetch.enqueued(record.id, Priority::High));
        let (client, max_retries) = (core.client.clone(), core.config.max_retries);
        let mut retry_state = RetryState::new(client, fetch.request, fetch.rules, max_retries);
        record.start();
        let opened = open_body(&mut record, &mut retry_state, &token);
        match opened.and_then(|body| Ok((body, self.bodies().open()?))) {
            Ok((body, open)) => Ok(Response::new(body, open, record, retry_state, token).keep(self.clone())),
            Err(error) => {
                record.end(&Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Runs all of these fetches at once, as far as workers and limits allow. The returned iterator yields the responses in
    /// the order of the fetches. Each fetch fails by itself, with the errors of [`execute`](Self::execute). This call does
    /// not block, but taking a response does.
    ///
    /// ```no_run
    /// use windway::{Downloader, Fetch, Priority};
    ///
    /// let peer = Downloader::global()?.register((), Priority::High)?;
    /// let parts = (0..1000).map(|part| Fetch::get(&format!("https://example.com/{part}.ts")));
    /// for response in peer.batch(parts.collect::<Result<_, _>>()?) {
    ///     let part = response?.bytes(16 << 20)?;
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn batch(&self, fetches: Vec<Fetch>) -> Batch {
        Batch::new(self.clone(), fetches)
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

    pub(super) fn try_credit(&self) -> Option<Credit> {
        self.0.credits.try_take()
    }

    /// Puts a fetch of a batch, for which there is room, into the peer's channel. To be [announced](Self::announce).
    pub(super) fn enqueue(&self, fetch: Fetch, credit: Credit) -> Result<Pending, Error> {
        self.check(&fetch)?;
        fetch.check_not_held()?;
        Ok(self.submit(fetch, credit, WithoutRoom::Open).0)
    }

    /// Tells the machine that there are fetches in the peer's channel.
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
        let fetch = fetch.priority(Priority::High);
        let job = Box::new(Job::new(core, &self.0.token, &self.0.stats, fetch, target));
        let (request, token) = (job.record.id, job.token.clone());
        match self.0.channel.upgrade() {
            Some(channel) => channel.send(job),
            // The downloader has stopped. The drop of the job answers its caller.
            None => drop(job),
        }
        (Pending { slot, token: Some(token), peer: self.clone() }, request)
    }

    /// Lets the downloader ask the peer for fetches. `priority` is that of the next one. Never blocks.
    pub fn wake(&self, priority: Priority) {
        self.core().post(Message::Woken(self.0.key, priority));
    }

    /// A handle that can wake the peer, and does not keep it alive.
    pub fn waker(&self) -> Waker {
        let stats = Arc::downgrade(&self.0.stats);
        Waker { core: Arc::downgrade(self.core()), key: self.0.key, stats }
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

    /// Rate of this peer's transfers together, in bytes a second, over the last seconds in which one of them waited for the
    /// network. `None` until enough was transferred. [`Downloader::bandwidth`](crate::Downloader::bandwidth) includes the
    /// other peers.
    pub fn bandwidth(&self) -> Option<f64> {
        self.0.stats.rate()
    }

    /// Numbers of this peer's fetches by outcome, and their bytes.
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
        // The schedule forgets the peer at once.
        self.on_cancel = None;
        self.token.cancel();
        self.downloader.core().unregister(self.key);
    }
}

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
    /// Of the peer.
    stats: Weak<PeerStats>,
}

impl Waker {
    /// As [`PeerHandle::wake`]. Does nothing once the peer or the downloader is gone.
    pub fn wake(&self, priority: Priority) {
        if let Some(core) = self.core.upgrade() {
            core.post(Message::Woken(self.key, priority));
        }
    }

    /// As [`PeerHandle::promote`]. Does nothing once the peer or the downloader is gone.
    pub fn promote(&self, request: RequestId, priority: Priority) {
        if let Some(core) = self.core.upgrade() {
            core.post(Message::Promoted(request, priority));
        }
    }

    /// Lends the current thread, which would otherwise block, to the peer's urgent fetches: see [`Lent`].
    pub(crate) fn lend(&self, wake: impl Fn() + Send + Sync + 'static) -> Option<Lent> {
        Some(self.core.upgrade()?.lend(self.key, wake))
    }

    /// Makes the threads that are lent to the peer return.
    pub(crate) fn interrupt_lent(&self) {
        if let Some(core) = self.core.upgrade() {
            core.post(Message::Interrupted(self.key));
        }
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

    /// True if `request` may go out with `Authorization`.
    #[cfg(feature = "cache")]
    pub(crate) fn is_authorized(&self, request: &Request) -> bool {
        self.core.upgrade().is_some_and(|core| core.client.is_authorized(request))
    }

    /// Records whether the origin answered the opening of a file with a range.
    pub(crate) fn note_ranges(&self, request: &Request, has_ranges: bool) {
        if let Some(core) = self.core.upgrade() {
            core.origins.note_ranges(request.origin().key(), has_ranges);
        }
    }

    /// Records that the origin does not serve suffix ranges.
    pub(crate) fn note_suffix_refused(&self, request: &Request) {
        if let Some(core) = self.core.upgrade() {
            core.origins.note_suffix_refused(request.origin().key());
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

    /// Keeps a connection to the origin of `request` ready while the guard lives.
    pub(crate) fn keep_preconnected(&self, request: &Request) -> Option<PreconnectGuard> {
        self.core.upgrade()?.client.keep_preconnected(request)
    }

    /// True if the network is metered.
    pub(crate) fn is_metered(&self) -> bool {
        self.core.upgrade().is_some_and(|core| core.is_metered())
    }

    /// Measured rate in bytes a second, and TTFB. Of this peer's transfers, whose origin may be further away than others; of
    /// all transfers until the peer has enough of its own.
    pub(crate) fn network(&self) -> (Option<f64>, Option<Duration>) {
        let Some(core) = self.core.upgrade() else { return (None, None) };
        let own = self.stats.upgrade();
        let rate = own.as_ref().and_then(|stats| stats.rate()).or_else(|| core.stats.rate());
        let ttfb = own.and_then(|stats| stats.least_ttfb()).or_else(|| core.stats.least_ttfb());
        (rate, ttfb)
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A submitted fetch that has no response yet.
pub(super) struct Pending {
    slot: Arc<OneShot<Result<Response, Error>>>,
    /// Of the fetch. `None` once its response was taken: until then the drop of this cancels the fetch.
    token: Option<CancelToken>,
    peer: PeerHandle,
}

impl Pending {
    pub(super) fn wait(mut self) -> Result<Response, Error> {
        let answer = self.slot.take();
        self.token = None;
        Ok(answer?.keep(self.peer.clone()))
    }

    pub(super) fn is_answered(&self) -> bool {
        self.slot.is_filled()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            token.cancel();
        }
    }
}

impl Credits {
    /// Blocks until a credit is free, or `token` is cancelled: the peer's, or that of an epoch of it.
    fn take(self: &Arc<Self>, token: &CancelToken) -> Result<Credit, Error> {
        if let Some(credit) = self.try_take() {
            return Ok(credit);
        }
        let credits = Arc::clone(self);
        let _on_cancel = token.on_cancel(move |_| credits.wake_all());
        let mut left = self.left.lock();
        while *left == 0 {
            if let Some(reason) = token.reason() {
                return Err(Error::cancelled(reason));
            }
            self.changed.wait(&mut left);
        }
        *left -= 1;
        Ok(Credit(Arc::clone(self)))
    }

    fn try_take(self: &Arc<Self>) -> Option<Credit> {
        let mut left = self.left.lock();
        *left = left.checked_sub(1)?;
        Some(Credit(Arc::clone(self)))
    }

    fn wake_all(&self) {
        // Under the lock: a thread between its check of the token and its wait would miss the notification.
        let _left = self.left.lock();
        self.changed.notify_all();
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        *self.0.left.lock() += 1;
        self.0.changed.notify_one();
    }
}
