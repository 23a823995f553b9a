//! What happens, told to whoever subscribed, by a bus that never blocks its publisher.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::cancel::CancelReason;
use crate::error::Error;
use crate::foreign::in_callback;
use crate::types::RequestId;

/// What happened to a fetch.
///
/// For each fetch, in this order: `Enqueued`, `Started`, `FirstByte`, any number of `Retrying` (each followed by another
/// `Started`) and `Preempted` (each followed by `Resumed`), one `Slow` if it takes long, and one of `Completed`, `Failed` and `Cancelled`. One that never started has `Enqueued` and an end only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It was accepted, or its peer asked for it.
    Enqueued {
        /// Which fetch.
        request: RequestId,
    },
    /// A worker took it up.
    Started {
        /// Which fetch.
        request: RequestId,
        /// How long it had waited.
        wait: Duration,
    },
    /// The head of the answer came, and is valid.
    FirstByte {
        /// Which fetch.
        request: RequestId,
        /// From the start to the head.
        ttfb: Duration,
        /// 200 or 206.
        status: u16,
    },
    /// It has run for longer than `soft_timeout`, head and body, and goes on. Comes once.
    Slow {
        /// Which fetch.
        request: RequestId,
    },
    /// Something has stood still for longer than `hang_timeout`. Once for each standstill.
    Hang(Hang),
    /// It made room for awaited work, or for a prefetch that had waited longer, and goes on later.
    Preempted {
        /// Which fetch.
        request: RequestId,
        /// Bytes of body that had come.
        bytes: u64,
    },
    /// It goes on after it was set aside.
    Resumed {
        /// Which fetch.
        request: RequestId,
    },
    /// It failed and will be tried again.
    Retrying {
        /// Which fetch.
        request: RequestId,
        /// What it failed of.
        error: Error,
        /// How long it will wait.
        after: Duration,
    },
    /// The whole body arrived.
    Completed {
        /// Which fetch.
        request: RequestId,
        /// Bytes of body.
        bytes: u64,
        /// From the first start to the end.
        duration: Duration,
        /// Bytes a second that all transfers together achieved lately; `None` until enough was seen.
        bandwidth: Option<f64>,
    },
    /// It failed for good.
    Failed {
        /// Which fetch.
        request: RequestId,
        /// Of what.
        error: Error,
        /// Bytes of body that had come.
        bytes: u64,
    },
    /// It was cancelled.
    Cancelled {
        /// Which fetch.
        request: RequestId,
        /// By whom.
        reason: CancelReason,
        /// Bytes of body that had come.
        bytes: u64,
    },
    /// A read of a [`Stream`](crate::Stream) failed, other than by being interrupted or cancelled; or fetching ended with this
    /// error while no read waited. The next read tries again.
    StreamFailed {
        /// The first byte that could not be had.
        position: u64,
        /// Why, with the URL.
        error: Error,
    },
    /// A peer panicked when it was asked for work. It is cancelled, and asked no more.
    PeerFailed {
        /// What happened, of kind `Panicked`.
        error: Error,
    },
    /// This subscriber was too slow: so many events before the next one are lost to it.
    Lagged {
        /// How many.
        lost: u64,
    },
}

impl Event {
    /// The fetch that it is about, if it is about one.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Enqueued { request }
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
                HangCause::Peer | HangCause::Queue => None,
            },
            Self::StreamFailed { .. } | Self::PeerFailed { .. } | Self::Lagged { .. } => None,
        }
    }

    /// True for the last event of a fetch.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }
}

/// A standstill, as the watchdog found it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hang {
    /// What stands still.
    pub cause: HangCause,
    /// Since its last sign of life.
    pub silence: Duration,
    /// What each busy worker has, in words.
    pub holders: Vec<String>,
}

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HangCause {
    /// A fetch on a worker: no byte and no other step.
    Fetch(RequestId),
    /// A peer that was asked for work and does not answer.
    Peer,
    /// Work that may run waits beside an idle worker: a fault of windway.
    Queue,
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            HangCause::Fetch(request) => write!(f, "fetch {request} has not moved")?,
            HangCause::Peer => write!(f, "a peer has not answered")?,
            HangCause::Queue => write!(f, "work has waited beside an idle worker")?,
        }
        write!(f, " for {:?}; on the workers: {}", self.silence, self.holders.join(", "))
    }
}

/// Hands each event to each subscriber.
pub(crate) struct Bus<E = Event>(Arc<Subscribers<E>>);

struct Subscribers<E> {
    /// Length of `queues`, so that publishing to nobody takes no lock.
    count: AtomicUsize,
    queues: Mutex<Queues<E>>,
    capacity: usize,
    /// Makes the event that tells how many were lost.
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
    /// Dropped from the front since the subscriber last looked.
    lost: u64,
    /// Nothing more will come.
    closed: bool,
}

impl Bus {
    /// A bus whose subscribers may lag `capacity` events behind.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::of(capacity, |lost| Event::Lagged { lost })
    }
}

impl<E> Bus<E> {
    /// As `new`, for events of another type; `lagged` makes the one that tells how many were lost.
    pub(crate) fn of(capacity: usize, lagged: fn(u64) -> E) -> Self {
        let queues = Mutex::new(Queues { open: Vec::new(), closed: false });
        Self(Arc::new(Subscribers { count: AtomicUsize::new(0), queues, capacity, lagged }))
    }

    /// Everything published from now on.
    pub(crate) fn subscribe(&self) -> Subscriber<E> {
        let mut queues = self.0.queues.lock();
        let backlog = Backlog { events: VecDeque::new(), lost: 0, closed: queues.closed };
        let lagged = self.0.lagged;
        let queue = Arc::new(Queue { backlog: Mutex::new(backlog), arrived: Condvar::new(), lagged });
        if !queues.closed {
            queues.open.push(Arc::clone(&queue));
        }
        self.0.count.store(queues.open.len(), Ordering::Release);
        Subscriber { queue, bus: Arc::downgrade(&self.0) }
    }

    /// Says that nothing more will be published, to those who subscribe later too.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl<E: Clone> Bus<E> {
    /// Tells everybody. Never waits for a subscriber.
    pub(crate) fn publish(&self, event: &E) {
        drop(self.push(event));
    }

    /// As [`publish`](Self::publish), for one who holds a lock. Returns what lagging subscribers lose by it, to be dropped
    /// without locks: an event's error may hold a user's value, whose drop may call back.
    #[must_use = "to be dropped where nothing is locked"]
    pub(crate) fn push(&self, event: &E) -> Vec<E> {
        let mut lost = Vec::new();
        if self.0.count.load(Ordering::Acquire) == 0 {
            return lost;
        }
        for queue in &self.0.queues.lock().open {
            let mut backlog = queue.backlog.lock();
            if backlog.events.len() >= self.0.capacity.max(1) {
                lost.extend(backlog.events.pop_front());
                backlog.lost += 1;
            }
            backlog.events.push_back(event.clone());
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
            queue.backlog.lock().closed = true;
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

/// Receives events: those of fetches, or another source's. One that lags loses the oldest and is told how many.
pub struct Subscriber<E = Event> {
    queue: Arc<Queue<E>>,
    bus: Weak<Subscribers<E>>,
}

impl<E> Subscriber<E> {
    /// The next event, if one is there. Never blocks.
    pub fn try_recv(&self) -> Option<E> {
        self.queue.next(&mut self.queue.backlog.lock())
    }

    /// The next event. Blocks until there is one; `None` once what it comes from is gone and all was received.
    ///
    /// In a callback of windway's it does not wait, as [`try_recv`](Self::try_recv): the event could be that of what calls
    /// back.
    pub fn recv(&self) -> Option<E> {
        if in_callback() {
            return self.try_recv();
        }
        let mut backlog = self.queue.backlog.lock();
        loop {
            match self.queue.next(&mut backlog) {
                Some(event) => return Some(event),
                None if backlog.closed => return None,
                None => self.queue.arrived.wait(&mut backlog),
            }
        }
    }

    /// As [`recv`](Self::recv), but blocks for `timeout` at most.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<E> {
        let deadline = Instant::now().checked_add(timeout).filter(|_| !in_callback());
        let Some(deadline) = deadline else { return self.recv() };
        let mut backlog = self.queue.backlog.lock();
        loop {
            match self.queue.next(&mut backlog) {
                Some(event) => return Some(event),
                None if backlog.closed => return None,
                None => {
                    if self.queue.arrived.wait_until(&mut backlog, deadline).timed_out() {
                        return self.queue.next(&mut backlog);
                    }
                }
            }
        }
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
        queues.open.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        bus.count.store(queues.open.len(), Ordering::Release);
    }
}

impl<E> fmt::Debug for Subscriber<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").finish_non_exhaustive()
    }
}

impl<E> Queue<E> {
    fn next(&self, backlog: &mut Backlog<E>) -> Option<E> {
        match std::mem::take(&mut backlog.lost) {
            0 => backlog.events.pop_front(),
            lost => Some((self.lagged)(lost)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enqueued(number: u64) -> Event {
        Event::Enqueued { request: RequestId::new(number).unwrap() }
    }

    #[test]
    fn a_lagging_subscriber_loses_the_oldest_and_is_told() {
        let bus = Bus::new(2);
        let subscriber = bus.subscribe();
        for number in 1..=5 {
            bus.publish(&enqueued(number));
        }
        assert!(matches!(subscriber.try_recv(), Some(Event::Lagged { lost: 3 })));
        let left: Vec<_> =
            std::iter::from_fn(|| subscriber.try_recv()).filter_map(|event| event.request()).collect();
        assert_eq!(left.iter().map(|request| request.get()).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn a_subscriber_is_released_when_the_bus_goes() {
        let bus = Bus::new(2);
        let subscriber = bus.subscribe();
        bus.publish(&enqueued(1));
        let waiter = std::thread::spawn(move || subscriber.count());
        drop(bus);
        assert_eq!(waiter.join().unwrap(), 1);
    }

    #[test]
    fn a_closed_bus_holds_nobody() {
        let bus = Bus::new(2);
        let subscriber = bus.subscribe();
        bus.publish(&enqueued(1));
        bus.close();
        bus.publish(&enqueued(2));
        assert_eq!(subscriber.count(), 1);
        assert_eq!(bus.subscribe().count(), 0);
    }

    #[test]
    fn a_dropped_subscriber_is_forgotten() {
        let bus = Bus::new(2);
        drop(bus.subscribe());
        assert_eq!(bus.0.count.load(Ordering::Acquire), 0);
        assert!(bus.0.queues.lock().open.is_empty());
    }
}
