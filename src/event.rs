//! What happens to fetches, as [`Event`]s, and the [`Subscriber`] that receives them. Publishing never blocks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};

use crate::cancel::CancelReason;
use crate::error::Error;
use crate::foreign::in_callback;
use crate::safe_url::SafeUrl;
use crate::types::{ByteRange, Priority, RequestId};

/// What happened to a fetch, a stream or a peer.
///
/// The events of a fetch are, in this order: `Enqueued`; `Started`; `FirstByte`; any number of `Retrying`, each followed by
/// another `Started`, and of `Preempted`, each followed by `Resumed`; and one of `Completed`, `Failed` and `Cancelled`. In
/// between there may be one `Slow`. A fetch that was never started has `Enqueued` and its last event only.
///
/// ```no_run
/// use windway::event::Event;
///
/// let downloader = windway::Downloader::global()?;
/// for event in downloader.subscribe() {
///     match event {
///         Event::Retrying { request, error, after } => println!("{request}: {error}; retried in {after:?}"),
///         Event::Completed { request, bytes, duration, .. } => println!("{request}: {bytes} bytes in {duration:?}"),
///         _ => {}
///     }
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The fetch was accepted.
    Enqueued {
        /// The fetch.
        request: RequestId,
        /// What it fetches, before redirects.
        url: SafeUrl,
        /// The requested range. `None` for the whole resource, or a number of bytes at its end.
        range: Option<ByteRange>,
        /// Its priority now, relative to the other fetches of its peer. It may change.
        priority: Priority,
    },
    /// A worker, or the caller of `execute`, starts an attempt.
    Started {
        /// The fetch.
        request: RequestId,
        /// Time since the fetch was accepted.
        wait: Duration,
    },
    /// A valid response head arrived.
    FirstByte {
        /// The fetch.
        request: RequestId,
        /// Time from the start of the attempt to the response head.
        ttfb: Duration,
        /// HTTP status: 200, 203 or 206.
        status: u16,
    },
    /// The fetch has run for longer than `soft_timeout`. It continues. Published once.
    Slow {
        /// The fetch.
        request: RequestId,
    },
    /// Something has made no progress for `hang_timeout`. Published once for each stall.
    Hang(Hang),
    /// The fetch gave its worker to urgent work, or to a prefetch that has aged. It continues later.
    Preempted {
        /// The fetch.
        request: RequestId,
        /// Bytes of body that had arrived.
        bytes: u64,
    },
    /// The fetch continues after it was preempted.
    Resumed {
        /// The fetch.
        request: RequestId,
    },
    /// An attempt failed. The fetch is retried.
    Retrying {
        /// The fetch.
        request: RequestId,
        /// Why the attempt failed.
        error: Error,
        /// Delay before the next attempt.
        after: Duration,
    },
    /// The whole body arrived.
    Completed {
        /// The fetch.
        request: RequestId,
        /// Bytes of body.
        bytes: u64,
        /// Time from the first start to the end.
        duration: Duration,
        /// Bandwidth of all transfers together, in bytes a second: see [`Downloader::bandwidth`](crate::Downloader::bandwidth).
        bandwidth: Option<f64>,
    },
    /// The fetch failed, after all retries.
    Failed {
        /// The fetch.
        request: RequestId,
        /// Why it failed.
        error: Error,
        /// Bytes of body that had arrived.
        bytes: u64,
    },
    /// The fetch was cancelled.
    Cancelled {
        /// The fetch.
        request: RequestId,
        /// Why it was cancelled.
        reason: CancelReason,
        /// Bytes of body that had arrived.
        bytes: u64,
    },
    /// A read of a [`Stream`](crate::Stream) failed, but not because it was interrupted or cancelled; or fetching stopped
    /// with this error while no read was blocked. The next read retries.
    StreamFailed {
        /// Position of the first byte that is missing.
        position: u64,
        /// The error, with the URL.
        error: Error,
    },
    /// Nothing more of a stream's file is stored in the persistent cache: it can't be written, or has no room. The stream goes
    /// on, and what is stored already stays. Published once for each stream.
    CacheOff {
        /// The error, with the URL.
        error: Error,
    },
    /// A peer panicked when it was asked for a fetch. It was cancelled.
    PeerFailed {
        /// An error of the kind `Panicked`.
        error: Error,
    },
    /// This subscriber was too slow, and lost the events before the next one.
    Lagged {
        /// Number of events.
        lost: u64,
    },
}

impl Event {
    /// The fetch that the event is about, if any.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Enqueued { request, .. }
            | Self::Started { request, .. }
            | Self::FirstByte { request, .. }
            | Self::Slow { request }
            | Self::Preempted { request, .. }
            | Self::Resumed { request }
            | Self::Retrying { request, .. }
            | Self::Completed { request, .. }
            | Self::Failed { request, .. }
            | Self::Cancelled { request, .. } => Some(*request),
            Self::Hang(hang) => match hang.cause {
                HangCause::Fetch(request) => Some(request),
                HangCause::Peer | HangCause::Finish | HangCause::Queue => None,
            },
            Self::StreamFailed { .. }
            | Self::CacheOff { .. }
            | Self::PeerFailed { .. }
            | Self::Lagged { .. } => None,
        }
    }

    /// The level at which the event of a fetch is logged. `None`: another line of the log has it, and more.
    pub(crate) fn log_level(&self) -> Option<log::Level> {
        match self {
            // The line of the response head has the URL too; the watchdog logs what hangs.
            Self::FirstByte { .. } | Self::Hang(_) => None,
            Self::Enqueued { .. } | Self::Started { .. } => Some(log::Level::Trace),
            _ => Some(log::Level::Debug),
        }
    }

    /// True for the last event of a fetch: `Completed`, `Failed` or `Cancelled`.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }
}

/// One line for a log. Shows no password and no query value.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enqueued { request, url, range: Some(range), priority } => {
                write!(f, "{request} is queued at {priority:?} priority: {url}, bytes {range}")
            }
            Self::Enqueued { request, url, range: None, priority } => {
                write!(f, "{request} is queued at {priority:?} priority: {url}")
            }
            Self::Started { request, wait } => write!(f, "{request} starts, {wait:.1?} after it was queued"),
            Self::FirstByte { request, ttfb, status } => write!(f, "{request}: {status} after {ttfb:.1?}"),
            Self::Slow { request } => write!(f, "{request} is slow"),
            Self::Hang(hang) => hang.fmt(f),
            Self::Preempted { request, bytes } => write!(f, "{request} is preempted at {bytes} bytes"),
            Self::Resumed { request } => write!(f, "{request} continues"),
            Self::Retrying { request, error, after } => {
                write!(f, "{request} failed and is retried {}: {error}", In(*after))
            }
            Self::Completed { request, bytes, duration, .. } => {
                write!(f, "{request} is complete: {bytes} bytes in {duration:.1?}")
            }
            Self::Failed { request, error, bytes } => write!(f, "{request} failed at {bytes} bytes: {error}"),
            Self::Cancelled { request, reason, bytes } => {
                write!(f, "{request} is cancelled at {bytes} bytes: {reason}")
            }
            Self::StreamFailed { position, error } => write!(f, "no data for byte {position}: {error}"),
            Self::CacheOff { error } => write!(f, "the rest of a file is not cached: {error}"),
            Self::PeerFailed { error } => write!(f, "a peer failed: {error}"),
            Self::Lagged { lost } => write!(f, "{lost} events were lost"),
        }
    }
}

/// When the next attempt begins, as text for a log.
pub(crate) struct In(pub(crate) Duration);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { f.write_str("at once") } else { write!(f, "in {:.1?}", self.0) }
    }
}

/// A stall that the watchdog found. Its `Display` is one line for a log.
///
/// ```no_run
/// use windway::Downloader;
/// use windway::event::Event;
///
/// for event in Downloader::global()?.subscribe() {
///     if let Event::Hang(hang) = event {
///         log::error!("{hang}");
///     }
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hang {
    /// What makes no progress.
    pub cause: HangCause,
    /// Time since its last progress.
    pub silence: Duration,
    /// What each busy worker runs, as text.
    pub holders: Vec<String>,
}

/// What makes no progress.
///
/// ```
/// use windway::event::{Event, HangCause};
///
/// fn is_bug_of_windway(event: &Event) -> bool {
///     matches!(event, Event::Hang(hang) if hang.cause == HangCause::Queue)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HangCause {
    /// A fetch on a worker.
    Fetch(RequestId),
    /// A peer that was asked for a fetch and has not returned.
    Peer,
    /// A [`Sink::finish`](crate::downloader::Sink::finish) that has not returned, while other work waits for its thread.
    Finish,
    /// Work that may run, while a worker is idle. A bug of windway.
    Queue,
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            HangCause::Fetch(request) => write!(f, "fetch {request} made no progress")?,
            HangCause::Peer => write!(f, "a peer did not return a fetch")?,
            HangCause::Finish => write!(f, "a sink did not return from finish")?,
            HangCause::Queue => write!(f, "work waited while a worker was idle")?,
        }
        write!(f, " for {:?}; the workers run: {}", self.silence, self.holders.join(", "))
    }
}

/// Publishes each event to each subscriber.
pub(crate) struct Bus<E = Event>(Arc<Subscribers<E>>);

struct Subscribers<E> {
    /// Length of `queues`. Read without the lock, so that publishing without a subscriber takes none.
    count: AtomicUsize,
    queues: Mutex<Queues<E>>,
    capacity: usize,
    /// Makes the event with the number of lost events.
    lagged: fn(u64) -> E,
}

struct Queues<E> {
    open: Vec<Arc<Queue<E>>>,
    /// Nothing more will be published.
    closed: bool,
}

struct Queue<E> {
    backlog: Mutex<Backlog<E>>,
    /// Notified by `publish` and by the end of the bus.
    arrived: Condvar,
    lagged: fn(u64) -> E,
}

struct Backlog<E> {
    /// At most `capacity`.
    events: VecDeque<E>,
    /// Number of events dropped from the front since the subscriber last received one.
    lost: u64,
    /// Nothing more will be published.
    closed: bool,
    /// The channel of [`Subscriber::ready`], once it was asked for.
    signal: Option<(Sender<()>, Receiver<()>)>,
}

impl Bus {
    /// A bus that keeps up to `capacity` events for each subscriber.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::of(capacity, |lost| Event::Lagged { lost })
    }
}

impl<E> Bus<E> {
    /// As `new`, for events of another type. `lagged` makes the event with the number of lost events.
    pub(crate) fn of(capacity: usize, lagged: fn(u64) -> E) -> Self {
        let queues = Mutex::new(Queues { open: Vec::new(), closed: false });
        Self(Arc::new(Subscribers { count: AtomicUsize::new(0), queues, capacity, lagged }))
    }

    /// True if there is a subscriber.
    pub(crate) fn has_subscribers(&self) -> bool {
        // May miss a subscriber that is being added on another thread: the event counts as published before it subscribed.
        self.0.count.load(Ordering::Acquire) > 0
    }

    /// Subscribes to the events from now on.
    pub(crate) fn subscribe(&self) -> Subscriber<E> {
        // Under this lock: a bus that closes at the same time either sees the new queue, or this sees that it is closed.
        let mut queues = self.0.queues.lock();
        // Nothing is allocated for it yet: most subscribers keep up.
        let backlog = Backlog { events: VecDeque::new(), lost: 0, closed: queues.closed, signal: None };
        let lagged = self.0.lagged;
        let queue = Arc::new(Queue { backlog: Mutex::new(backlog), arrived: Condvar::new(), lagged });
        if !queues.closed {
            queues.open.push(Arc::clone(&queue));
        }
        // Still under the lock: two stores in the wrong order would leave a wrong count for good.
        self.0.count.store(queues.open.len(), Ordering::Release);
        Subscriber { queue, bus: Arc::downgrade(&self.0) }
    }

    /// Ends all subscriptions, and those that are made later.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl<E: Clone> Bus<E> {
    /// Publishes to all subscribers. Never waits for one.
    pub(crate) fn publish(&self, event: &E) {
        drop(self.push(event));
    }

    /// As [`publish`](Self::publish), for callers that hold a lock. Returns the events that subscribers lose by it. They must
    /// be dropped outside of the lock: an error may hold a user's value, whose drop may call windway.
    #[must_use = "drop this outside of all locks"]
    pub(crate) fn push(&self, event: &E) -> Vec<E> {
        let mut lost = Vec::new();
        if !self.has_subscribers() {
            return lost;
        }
        // Locks are taken in this order only: `queues`, then one `backlog`.
        for queue in &self.0.queues.lock().open {
            // Under both locks, so a clone must not run foreign code: an `Error` in an event is an `Arc`.
            lost.extend(queue.backlog.lock().push(event.clone(), self.0.capacity));
            // One event can be received by one thread only.
            queue.arrived.notify_one();
        }
        lost
    }
}

impl<E> Clone for Bus<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Subscribers<E> {
    fn close(&self) {
        let open = {
            let mut queues = self.queues.lock();
            queues.closed = true;
            std::mem::take(&mut queues.open)
        };
        self.count.store(0, Ordering::Release);
        for queue in open {
            queue.backlog.lock().close();
            queue.arrived.notify_all();
        }
    }
}

impl<E> Drop for Subscribers<E> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<E> fmt::Debug for Bus<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

/// Receives events: of the fetches of a downloader or a peer, or of a [`Radio`](crate::Radio). A subscriber that does not
/// keep up loses the oldest events, and receives how many: [`Event::Lagged`].
///
/// ```no_run
/// use windway::event::Event;
/// use windway::Downloader;
///
/// let downloader = Downloader::global()?;
/// let subscriber = downloader.subscribe();
/// std::thread::spawn(move || {
///     for event in subscriber {
///         if let Event::Failed { error, .. } = event {
///             eprintln!("{error}");
///         }
///     }
/// });
/// # Ok::<(), windway::Error>(())
/// ```
pub struct Subscriber<E = Event> {
    queue: Arc<Queue<E>>,
    /// Weak, because the drop of the bus ends the subscription.
    bus: Weak<Subscribers<E>>,
}

impl Subscriber {
    /// A subscriber that is closed from the beginning.
    pub(crate) fn closed() -> Self {
        let bus = Bus::new(1);
        bus.close();
        bus.subscribe()
    }
}

impl<E> Subscriber<E> {
    /// The next event, if there is one. Never blocks.
    pub fn try_recv(&self) -> Option<E> {
        self.queue.backlog.lock().next(self.queue.lagged)
    }

    /// The next event. Blocks until there is one. `None` once the source of the events is gone and all were received.
    ///
    /// In a callback it does not block, and returns what [`try_recv`](Self::try_recv) does: the event may be one that the
    /// callback's own thread publishes.
    pub fn recv(&self) -> Option<E> {
        self.recv_until(None)
    }

    /// As [`recv`](Self::recv), but blocks for at most `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<E> {
        // A timeout that an `Instant` can't represent is no limit.
        self.recv_until(Instant::now().checked_add(timeout))
    }

    /// As [`recv`](Self::recv), but blocks until `deadline` at most. [`is_closed`](Self::is_closed) shows whether `None`
    /// is the end.
    pub fn recv_deadline(&self, deadline: Instant) -> Option<E> {
        self.recv_until(Some(deadline))
    }

    fn recv_until(&self, deadline: Option<Instant>) -> Option<E> {
        if in_callback() {
            return self.try_recv();
        }
        let mut backlog = self.queue.backlog.lock();
        loop {
            match (backlog.next(self.queue.lagged), deadline) {
                (Some(event), _) => return Some(event),
                (None, _) if backlog.closed => return None,
                (None, None) => self.queue.arrived.wait(&mut backlog),
                (None, Some(deadline)) => {
                    if self.queue.arrived.wait_until(&mut backlog, deadline).timed_out() {
                        // An event may have come after the deadline, before this thread got the lock again.
                        return backlog.next(self.queue.lagged);
                    }
                }
            }
        }
    }

    /// True once no more events will be published: the downloader, peer or radio is gone. Events that were published
    /// before can still be received.
    pub fn is_closed(&self) -> bool {
        self.queue.backlog.lock().closed
    }

    /// A channel to select on together with others: it holds a message while an event can be received, and is
    /// disconnected once no more will come. After each message call [`try_recv`](Self::try_recv). A message may be left
    /// over from an event that was received otherwise.
    ///
    /// The channel is that of crossbeam-channel 0.5.
    ///
    /// ```no_run
    /// # let downloader = windway::Downloader::global()?;
    /// # let (_quit, quitting) = crossbeam_channel::bounded::<()>(0);
    /// let subscriber = downloader.subscribe();
    /// let ready = subscriber.ready();
    /// loop {
    ///     crossbeam_channel::select! {
    ///         recv(ready) -> signal => match subscriber.try_recv() {
    ///             Some(event) => println!("{event:?}"),
    ///             None if signal.is_err() => break,
    ///             None => {}
    ///         },
    ///         recv(quitting) -> _ => break,
    ///     }
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn ready(&self) -> Receiver<()> {
        let mut backlog = self.queue.backlog.lock();
        if backlog.closed {
            // Its sender is dropped, so the channel is disconnected.
            return crossbeam_channel::bounded(1).1;
        }
        let (_, receiver) = backlog.signal.get_or_insert_with(|| crossbeam_channel::bounded(1));
        let receiver = receiver.clone();
        backlog.update_signal();
        receiver
    }
}

impl<E> Iterator for Subscriber<E> {
    type Item = E;

    /// As [`Subscriber::recv`].
    fn next(&mut self) -> Option<E> {
        self.recv()
    }
}

impl<E> Drop for Subscriber<E> {
    fn drop(&mut self) {
        let Some(bus) = self.bus.upgrade() else { return };
        let mut queues = bus.queues.lock();
        // Drops a reference, not the events: `self.queue` keeps them until the lock is released. They may hold foreign values.
        queues.open.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        bus.count.store(queues.open.len(), Ordering::Release);
    }
}

impl<E> fmt::Debug for Subscriber<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").finish_non_exhaustive()
    }
}

impl<E> Backlog<E> {
    /// The next event; `lagged` makes the one that says how many were lost.
    fn next(&mut self, lagged: fn(u64) -> E) -> Option<E> {
        // The number of lost events comes first: they were older than all that are left.
        let event = match std::mem::take(&mut self.lost) {
            0 => self.events.pop_front(),
            lost => Some(lagged(lost)),
        };
        self.update_signal();
        event
    }

    /// Adds an event. Returns the oldest one if there were `capacity`.
    fn push(&mut self, event: E, capacity: usize) -> Option<E> {
        // A capacity of 0 counts as 1.
        let is_full = self.events.len() >= capacity.max(1);
        let lost = if is_full { self.events.pop_front() } else { None };
        self.lost += u64::from(lost.is_some());
        self.events.push_back(event);
        self.update_signal();
        lost
    }

    fn close(&mut self) {
        self.closed = true;
        // Disconnects the channel, so that a select on it wakes from now on.
        self.signal = None;
    }

    /// Makes the channel hold a message exactly while there is an event. Call it under the lock.
    fn update_signal(&self) {
        let Some((sender, receiver)) = &self.signal else { return };
        // The lock keeps this from removing a message that announces a newer event. Neither operation blocks.
        if self.events.is_empty() && self.lost == 0 {
            // Fails if the subscriber has received the message already.
            let _ = receiver.try_recv();
        } else {
            // Fails if the channel holds a message already.
            let _ = sender.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::TryRecvError;

    fn resumed(number: u64) -> Event {
        Event::Resumed { request: RequestId::new(number).unwrap() }
    }

    #[test]
    fn a_lagging_subscriber_loses_the_oldest_and_learns_how_many() {
        let bus = Bus::new(2);
        let subscriber = bus.subscribe();
        for number in 1..=5 {
            bus.publish(&resumed(number));
        }
        assert!(matches!(subscriber.try_recv(), Some(Event::Lagged { lost: 3 })));
        let left: Vec<_> =
            std::iter::from_fn(|| subscriber.try_recv()).filter_map(|event| event.request()).collect();
        assert_eq!(left.iter().map(|request| request.get()).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn a_blocked_subscriber_returns_when_the_bus_is_dropped() {
        let bus = Bus::new(2);
        let subscriber = bus.subscribe();
        bus.publish(&resumed(1));
        let waiter = std::thread::spawn(move || subscriber.count());
        drop(bus);
        assert_eq!(waiter.join().unwrap(), 1);
    }

    #[test]
    fn a_closed_bus_ends_old_and_new_subscriptions() {
        let bus = Bus::new(2);
        let subscriber = bus.subscribe();
        bus.publish(&resumed(1));
        bus.close();
        bus.publish(&resumed(2));
        assert_eq!(subscriber.count(), 1);
        assert_eq!(bus.subscribe().count(), 0);
    }

    #[test]
    fn the_channel_of_a_subscriber_holds_a_message_while_there_is_an_event() {
        let bus = Bus::new(2);
        let mut subscriber = bus.subscribe();
        bus.publish(&resumed(1));
        let ready = subscriber.ready();
        assert!(ready.try_recv().is_ok());
        assert!(subscriber.try_recv().is_some());
        assert_eq!(ready.try_recv(), Err(TryRecvError::Empty));
        // One message for two events: after the first one is received there is another message.
        bus.publish(&resumed(2));
        bus.publish(&resumed(3));
        assert!(ready.try_recv().is_ok());
        assert!(subscriber.try_recv().is_some());
        assert!(ready.try_recv().is_ok());
        // An event that is received without the channel leaves no message.
        bus.publish(&resumed(4));
        assert_eq!(subscriber.by_ref().take(2).count(), 2);
        assert_eq!(ready.try_recv(), Err(TryRecvError::Empty));
        bus.close();
        assert_eq!(ready.try_recv(), Err(TryRecvError::Disconnected));
        assert!(subscriber.is_closed() && subscriber.ready().recv().is_err());
    }

    #[test]
    fn a_wait_for_an_event_ends_at_its_deadline_or_with_the_bus() {
        let bus = Bus::new(2);
        let subscriber = bus.subscribe();
        assert!(subscriber.recv_deadline(Instant::now()).is_none());
        assert!(!subscriber.is_closed());
        bus.publish(&resumed(1));
        assert!(subscriber.recv_deadline(Instant::now()).is_some());
        let waiter = std::thread::spawn(move || {
            let event = subscriber.recv_deadline(Instant::now() + Duration::from_secs(3600));
            (event.is_none(), subscriber.is_closed())
        });
        drop(bus);
        assert_eq!(waiter.join().unwrap(), (true, true));
    }

    #[test]
    fn a_dropped_subscriber_is_removed_from_the_bus() {
        let bus = Bus::new(2);
        drop(bus.subscribe());
        assert_eq!(bus.0.count.load(Ordering::Acquire), 0);
        assert!(bus.0.queues.lock().open.is_empty());
    }
}
