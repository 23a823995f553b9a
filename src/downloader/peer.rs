//! A peer: somebody who wants things fetched, by asking for them or by being asked.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use super::Handle;
use super::batch::Batch;
use super::bodies::{OpenBodies, Progress};
use super::epoch::Epoch;
use super::fetch::{Fetch, Sink};
use super::response::{Reply, Response, WithoutRoom, open_body};
use super::schedule::PeerKey;
use super::stats::{PeerStats, Totals};
use crate::cancel::{CancelGuard, CancelReason, CancelToken};
use crate::client::{PreconnectGuard, Request};
use crate::downloader::runtime::control::Control;
use crate::downloader::runtime::core::Core;
use crate::downloader::runtime::job::{Job, Target};
use crate::downloader::runtime::message::Message;
use crate::downloader::runtime::one_shot::OneShot;
use crate::downloader::runtime::record::Record;
use crate::downloader::runtime::retry_state::RetryState;
use crate::downloader::runtime::worker::run_job;
use crate::error::Error;
use crate::event::{Event, Subscriber};
use crate::types::{Priority, RequestId};

/// Somebody who knows what to fetch next, and says so when a worker is free.
///
/// Not asked before it was woken ([`PeerHandle::wake`]), nor after it said [`Next::Wait`] until it is woken again, nor once it
/// was cancelled. One whose fetches are cancelled or fail without a byte, a thousand or sixteen of them in a row, is asked after
/// a pause that grows up to 250 ms, until it is woken or one of them brings something.
pub trait Peer: Send {
    /// The next fetch; nothing below `admissible`, which the free worker may not run. Called on a worker thread, one call
    /// at a time. Must not block. A panic ends the peer, and no other: its fetches are
    /// cancelled, an [`Event::PeerFailed`] is published.
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

/// A peer that is never asked: all it wants goes through `execute` and `batch`.
impl Peer for () {
    fn next_fetch(&mut self, _: Priority) -> Next {
        Next::Wait
    }
}

/// The owner's end of a registered peer. Cheap to clone; when the last clone is dropped the peer's fetches are cancelled
/// and the peer is freed. Keeps the downloader running.
///
/// ```no_run
/// use std::io::Read;
/// use windway::{Downloader, DownloaderConfig, Fetch};
///
/// let downloader = Downloader::new(DownloaderConfig::default())?;
/// let peer = downloader.register((), Default::default())?;
/// let mut playlist = String::new();
/// peer.execute(Fetch::get("https://example.com/list.m3u")?)?.read_to_string(&mut playlist)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PeerHandle(Arc<Registration>);

/// A registered peer. Its drop is its end.
struct Registration {
    key: PeerKey,
    token: CancelToken,
    stats: Arc<PeerStats>,
    channel: Sender<Box<Job>>,
    credits: Arc<Credits>,
    /// Tells the schedule when the peer is cancelled: it is not asked any more.
    on_cancel: Option<CancelGuard>,
    /// Last, so that the downloader stops after the peer is gone.
    downloader: Arc<Handle>,
}

/// How many more fetches a peer may have accepted. A body in its caller's hands does not count: a caller that holds some
/// and asks for more would wait for itself.
struct Credits {
    left: Mutex<usize>,
    /// Notified when a credit comes back and when one who waits is cancelled.
    changed: Condvar,
}

/// One accepted fetch that has no answer yet.
pub(super) struct Credit(Arc<Credits>);

impl PeerHandle {
    pub(super) fn new(
        downloader: Arc<Handle>,
        key: PeerKey,
        token: CancelToken,
        stats: Arc<PeerStats>,
        channel: Sender<Box<Job>>,
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

    /// Fetches at once, as urgent work. Blocks until the head of the answer is there; the body is read by the caller.
    /// While a worker is idle the request is made on the calling thread, in that worker's place.
    ///
    /// # Errors
    ///
    /// What the fetch failed of, after its retries; [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled);
    /// [`ErrorKind::TooManyOpenBodies`](crate::ErrorKind::TooManyOpenBodies); [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) in a callback;
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an epoch of another peer.
    pub fn execute(&self, fetch: Fetch) -> Result<Response, Error> {
        self.check(&fetch)?;
        let url = fetch.request.url().clone();
        let token = fetch.epoch.as_ref().map_or(&self.0.token, Epoch::token);
        // Before a request is sent in vain, but decided again when its head comes.
        self.bodies().check_room().map_err(|error| error.with_url(&url))?;
        let credit = self.0.credits.take(token).map_err(|error| error.with_url(&url))?;
        if fetch.is_held() {
            return self.execute_held(fetch).map_err(|error| error.with_url(&url));
        }
        let (pending, request) = self.submit(fetch, credit, WithoutRoom::Fail);
        if let Some((worker, job)) = self.core().submit(self.0.key, request) {
            let message = run_job(self.core(), worker, job, &mut Box::default());
            self.core().post(message);
        }
        pending.wait()
    }

    /// Makes the request of a held fetch on this thread. The schedule does not know of it: it has no worker, and never waits
    /// for one.
    fn execute_held(&self, fetch: Fetch) -> Result<Response, Error> {
        fetch.check_hold()?;
        let core = self.core();
        let token = fetch.epoch.as_ref().map_or(&self.0.token, Epoch::token).child(CancelReason::Fetch);
        let all_stats = [Arc::clone(&self.0.stats), Arc::clone(&core.stats)];
        let fetch = fetch.priority(Priority::High);
        let control = Arc::new(Control::new(core.next_request(), &fetch, all_stats));
        let mut record = Record::new(Arc::clone(&control));
        record.publish(Event::Enqueued { request: record.id });
        let mut retry_state = RetryState::new(fetch, core.config.max_retries);
        record.start();
        let opened = open_body(core, &mut record, &mut retry_state, &token);
        match opened.and_then(|body| Ok((body, self.bodies().open()?))) {
            Ok((body, open)) => {
                Ok(Response::new(Arc::clone(core), body, open, record, retry_state, token).keep(self.clone()))
            }
            Err(error) => {
                record.end(&Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Fetches all of these side by side. The answers come in the order of the fetches, as they are asked for; each fails by
    /// itself, as [`execute`](Self::execute) does. Sends the first ones, and does not block; taking an answer does.
    ///
    /// ```no_run
    /// use std::io::Read;
    /// use windway::{Downloader, DownloaderConfig, Fetch};
    ///
    /// let downloader = Downloader::new(DownloaderConfig::default())?;
    /// let peer = downloader.register((), Default::default())?;
    /// let parts = (0..1000).map(|part| Fetch::get(&format!("https://example.com/{part}.ts")));
    /// for answer in peer.batch(parts.collect::<Result<_, _>>()?) {
    ///     let mut part = Vec::new();
    ///     answer?.read_to_end(&mut part)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&self, fetches: Vec<Fetch>) -> Batch {
        Batch::new(self.clone(), fetches)
    }

    /// How many fetches may be under way at once.
    pub(super) fn capacity(&self) -> usize {
        self.core().config.peer_capacity
    }

    pub(super) fn bodies(&self) -> &Arc<OpenBodies> {
        &self.core().bodies
    }

    pub(super) fn try_credit(&self) -> Option<Credit> {
        self.0.credits.try_take()
    }

    /// Sends a fetch of a batch, for which there is room.
    pub(super) fn send(&self, fetch: Fetch, credit: Credit) -> Result<Pending, Error> {
        self.check(&fetch)?;
        fetch.check_not_held()?;
        let (pending, _) = self.submit(fetch, credit, WithoutRoom::Open);
        self.core().post(Message::Submitted(self.0.key));
        Ok(pending)
    }

    /// As [`send`](Self::send), but blocks until there is room, or the fetch is cancelled. `stuck` is that of
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
        self.send(fetch, credit)
    }

    /// Fails where `fetch` can't be sent, or waited for, at all.
    fn check(&self, fetch: &Fetch) -> Result<(), Error> {
        Error::check_may_block("execute").map_err(|error| error.with_url(fetch.request.url()))?;
        fetch.check_epoch(&self.0.token)
    }

    /// Puts a fetch into the channel. The scheduler has to be told.
    fn submit(&self, fetch: Fetch, credit: Credit, without_room: WithoutRoom) -> (Pending, RequestId) {
        let core = self.core();
        let slot = Arc::new(OneShot::default());
        let target = Target::Caller(Reply::new(&slot, credit, without_room));
        let fetch = fetch.priority(Priority::High);
        let job = Box::new(Job::new(core, &self.0.token, &self.0.stats, fetch, target));
        let (request, token) = (job.record.id, job.token.clone());
        // It fails once the downloader is gone. A dropped job answers its caller itself.
        drop(self.0.channel.send(job));
        (Pending { slot, token: Some(token), peer: self.clone() }, request)
    }

    /// Says that the peer has work, its next piece of this urgency. Never blocks.
    pub fn wake(&self, priority: Priority) {
        self.core().post(Message::Woken(self.0.key, priority));
    }

    /// A way to wake the peer that does not keep it alive.
    pub fn waker(&self) -> Waker {
        let stats = Arc::downgrade(&self.0.stats);
        Waker { core: Arc::downgrade(self.core()), key: self.0.key, stats }
    }

    /// Gives the peer another priority beside other peers; what it has queued moves along.
    pub fn set_priority(&self, priority: Priority) {
        self.core().post(Message::Prioritised(self.0.key, priority));
    }

    /// Gives one fetch another priority: queued, it goes to the front of its new class, or to the back of a lower one.
    pub fn promote(&self, request: RequestId, priority: Priority) {
        self.core().post(Message::Promoted(request, priority));
    }

    /// A new epoch: its cancelling ends the fetches that carry it, and no others.
    pub fn epoch(&self) -> Epoch {
        Epoch::new(&self.0.token)
    }

    /// Cancels all the peer's fetches, now and for ever.
    pub fn cancel(&self) {
        self.0.token.cancel();
    }

    /// The events of this peer's fetches, from now on.
    pub fn subscribe(&self) -> Subscriber {
        self.0.stats.bus.subscribe()
    }

    /// Bytes a second that this peer's transfers achieve together, over the last seconds in which one of them waited for the
    /// network. `None` until enough was transferred. What the network can do is told by [`Downloader::bandwidth`](crate::Downloader::bandwidth).
    pub fn bandwidth(&self) -> Option<f64> {
        self.0.stats.rate()
    }

    /// How this peer's fetches ended.
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

/// Wakes a peer without keeping it, or the downloader, alive.
#[derive(Clone)]
pub struct Waker {
    core: Weak<Core>,
    key: PeerKey,
    /// The peer's own.
    stats: Weak<PeerStats>,
}

impl Waker {
    /// As [`PeerHandle::wake`]; does nothing once the peer or the downloader is gone.
    pub fn wake(&self, priority: Priority) {
        if let Some(core) = self.core.upgrade() {
            core.post(Message::Woken(self.key, priority));
        }
    }

    /// As [`PeerHandle::promote`]; does nothing once the peer or the downloader is gone.
    pub fn promote(&self, request: RequestId, priority: Priority) {
        if let Some(core) = self.core.upgrade() {
            core.post(Message::Promoted(request, priority));
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

    /// Keeps a connection to where `request` goes ready while the result lives.
    pub(crate) fn keep_preconnected(&self, request: &Request) -> Option<PreconnectGuard> {
        self.core.upgrade()?.client.keep_preconnected(request)
    }

    /// What the network has shown: bytes a second, and the time to a first byte. Of this peer's own transfers, which are all
    /// from where it fetches and may go further than others; until they have shown enough, of all of them together.
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

/// A submitted fetch, until its head is there.
pub(super) struct Pending {
    slot: Arc<OneShot<Result<Response, Error>>>,
    /// The fetch's own, until it was waited for: nobody else would take its answer.
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
    /// Blocks until a credit is free or `token`, of the peer or of an epoch of it, is cancelled.
    fn take(self: &Arc<Self>, token: &CancelToken) -> Result<Credit, Error> {
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
        // Under the lock, so that nobody is between the look at the token and the wait.
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
