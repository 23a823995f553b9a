//! What goes into the schedule, and what comes out of it.

use std::time::Duration;

use crate::types::{Priority, RequestId};

/// Identifies a peer. A key of a peer that is gone never finds another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerKey {
    /// In the slab of the peers. A later peer may have the same.
    pub(super) index: usize,
    /// Given out once.
    pub(super) serial: u64,
}

impl PeerKey {
    /// The key of no peer: so many are never given out.
    pub(super) const NONE: Self = Self { index: usize::MAX, serial: u64::MAX };
}

/// The index of a worker. Lent threads have the indices after those of the pool.
pub(crate) type WorkerId = usize;

/// Identifies scheme, host and port of a fetch: a hash of them. Two origins with the same hash would share one limit, which
/// delays prefetches and breaks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(pub(crate) u64);

/// The limits of a schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Threads of the pool. At least 1.
    pub(crate) workers: usize,
    /// Workers that run no prefetch. Less than `workers`.
    pub(crate) reserved: usize,
    /// Prefetches of one origin that run or were preempted. At least 1.
    pub(crate) max_per_origin: usize,
    /// Delay after the last urgent fetch starts before a prefetch may start.
    pub(crate) prefetch_delay: Duration,
    /// A prefetch that has waited this long has aged: it runs before urgent work.
    pub(crate) aging_threshold: Duration,
    /// Preempted prefetches that keep their connection.
    pub(crate) max_preempted: usize,
}

impl Limits {
    /// Workers that may run a prefetch.
    pub(super) fn unreserved(&self) -> usize {
        self.workers - self.reserved
    }

    /// Workers that may be in a protected turn at the same time.
    pub(super) fn max_protected(&self) -> usize {
        // Half of the unreserved ones, so that urgent work finds others to preempt. At least 1, or prefetches would starve on a
        // small pool.
        (self.unreserved() / 2).max(1)
    }
}

/// What the schedule knows of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchInfo {
    pub(crate) request: RequestId,
    pub(crate) priority: Priority,
    pub(crate) origin: Origin,
}

/// What a worker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assignment {
    /// Run this fetch. If `protected`, it is not preempted at the beginning of its turn.
    Run { request: RequestId, protected: bool },
    /// Ask this peer for one fetch of at least the priority `admissible`.
    Ask { peer: PeerKey, admissible: Priority },
}

/// What a peer answered when it was asked for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This fetch. `more` if the peer may have others.
    Fetch { fetch_info: FetchInfo, more: bool },
    /// A fetch that has ended already: it was cancelled, or its sink refused it. `more` if the peer may have others.
    Ended { why: Fruitless, more: bool },
    /// Nothing of the priority that was asked for. The peer wakes the schedule when that changes.
    Wait,
    /// The peer panicked. It is never asked again.
    Gone,
}

/// Why asking a peer brought nothing, or next to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fruitless {
    Cancelled,
    /// The peer was woken while it was asked, and gave no fetch.
    Nothing,
    Failed,
    /// It brought some bytes, far fewer than were requested and than there are.
    Short,
    /// As `Short`, and hardly a byte.
    Tiny,
    /// It brought all that was requested, which is so little that it shows nothing of the server.
    Little,
}

/// What happens to the fetch that a peer gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The worker that asked runs it. `protected` as in [`Assignment::Run`].
    Run { protected: bool },
    /// It waits: for its origin, or until urgent work is served.
    Waits,
    /// The peer is gone, or gave nothing.
    Refused,
}

/// How a running fetch was preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preemption {
    /// Its body is open.
    pub(crate) has_body: bool,
    /// In this turn it got as many bytes as a protected turn may have.
    pub(crate) had_share: bool,
}

/// What happens to a preempted fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requeued {
    /// It waits. Its body stays open, if it has one.
    Kept,
    /// It waits. The caller closes its body, because enough others are kept open, or its origin serves one connection at a time.
    Aborted,
    /// Its peer is gone.
    Refused,
}

/// How much waits and runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Queued fetches and pulls by class, in the order in which the classes are served.
    pub(crate) queued: [usize; 4],
    /// Fetches that are blocked on the origin limit.
    pub(crate) blocked: usize,
    /// Fetches that wait for the time of their next attempt.
    pub(crate) retrying: usize,
    /// Preempted fetches whose body is open. They are counted where they wait, too.
    pub(crate) preempted: usize,
    /// Workers of the pool that have an assignment.
    pub(crate) running: usize,
    /// Workers of the pool that have none.
    pub(crate) idle: usize,
    /// Registered peers.
    pub(crate) peers: usize,
}

/// What runs next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) peer: PeerKey,
    pub(super) queue: Priority,
    /// Its place in the queue, if it was chosen by its age; then it may not be the first one. `None` for the first one.
    pub(super) aged: Option<i64>,
    pub(super) protected: bool,
}

impl Choice {
    /// What the peer is chosen for: its urgent work, or its prefetches. A pull in the queue for urgent work may be chosen by the age
    /// of the peer's prefetches.
    pub(super) fn serves(&self) -> Priority {
        if self.aged.is_some() { Priority::Low } else { self.queue }
    }
}
