//! What the simulator knows of peers, fetches and workers.

use std::time::{Duration, Instant};

use proptest::test_runner::TestCaseError;

use super::super::{Origin, PROTECTED, PeerKey, WorkerId};
use crate::types::{Priority, RequestId};

/// What a step of a run returns: an error names the rule that does not hold.
pub(super) type Checked = Result<(), TestCaseError>;

pub(super) fn fail(why: &'static str) -> Checked {
    Err(TestCaseError::fail(why))
}

/// Servers that the fetches are from.
pub(super) const ORIGINS: usize = 4;

pub(super) const MICRO: Duration = Duration::from_micros(1);

/// Bytes of a chunk, and of a protected turn.
pub(super) const CHUNK: u64 = 32 * 1024;
pub(super) const SHARE: u64 = 256 * 1024;

/// A sequence that depends on its seed only (SplitMix64, Steele et al. 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn priority(&mut self) -> Priority {
        if self.chance(50) { Priority::High } else { Priority::Low }
    }

    pub(super) fn origin(&mut self) -> Origin {
        Origin(self.below(ORIGINS as u64))
    }

    /// More than zero, and up to this many milliseconds.
    pub(super) fn millis(&mut self, most: u64) -> Duration {
        MICRO * (1 + self.below(1000 * most)) as u32
    }

    /// One of them.
    pub(super) fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len() as u64) as usize])
    }
}

/// What happens at a time. Those with a worker name its turn, and nothing happens if that turn is over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// New urgent work.
    Urgent,
    /// A new prefetch.
    Prefetch,
    /// A reader of some peer blocks and lends its thread.
    Lend,
    /// A blocked reader of the peer continues, and takes its thread back if that has no task.
    Unlend(usize),
    /// A cancel, a change of priority, or a peer that comes or goes.
    Churn,
    /// The peer that the worker asks answers.
    Answer(WorkerId, u64),
    /// The worker gets a chunk of a prefetch, or the end of an urgent fetch.
    Chunk(WorkerId, u64),
    /// The connection is closed.
    Closed(WorkerId, u64),
    /// The thread that the worker lacked comes back.
    CameBack(WorkerId, u64),
    /// Nothing, but what is true by now is checked.
    Look,
}

pub(super) struct SimPeer {
    pub(super) key: PeerKey,
    pub(super) is_gone: bool,
    /// What it gives when it is asked.
    pub(super) plan: Vec<(Priority, Origin)>,
    /// The wakes since it was last asked.
    pub(super) woken: Option<Priority>,
    pub(super) is_asking: bool,
    /// Blocked readers that lend their thread and have no task.
    pub(super) lenders: u32,
    /// Since when it has announced prefetches, of which none was taken.
    pub(super) low_since: Option<Instant>,
    /// A fetch of it was blocked on its origin at the last look.
    pub(super) was_blocked: bool,
}

impl SimPeer {
    pub(super) fn has_low(&self) -> bool {
        self.plan.iter().any(|(priority, _)| *priority == Priority::Low)
    }

    /// True if it waits to be asked for urgent work.
    pub(super) fn has_urgent(&self) -> bool {
        self.woken == Some(Priority::High) && !self.is_asking && !self.is_gone
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SimFetch {
    pub(super) peer: usize,
    pub(super) priority: Priority,
    pub(super) origin: Origin,
    /// Chunks that are left.
    pub(super) chunks: u64,
    pub(super) is_preempted: bool,
    pub(super) is_running: bool,
    /// It waits, and keeps its connection.
    pub(super) has_body: bool,
    /// It was blocked since it was last queued.
    pub(super) was_blocked: bool,
    pub(super) retry: Option<Instant>,
    /// Since when it has waited for a full turn, if it is a prefetch.
    pub(super) waiting_since: Instant,
}

impl SimFetch {
    /// True if it is urgent and waits for a worker.
    pub(super) fn is_urgent_and_waits(&self, now: Instant) -> bool {
        self.priority == Priority::High && !self.is_running && self.retry.is_none_or(|at| at <= now)
    }
}

/// What a worker has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Identifies its turn.
    pub(super) turn: u64,
    pub(super) peer: usize,
    /// `None` while the peer is asked.
    pub(super) request: Option<RequestId>,
    /// While the peer is asked: the lowest priority that it may give.
    pub(super) admissible: Priority,
    pub(super) priority: Priority,
    pub(super) since: Instant,
    /// Since when it is urgent.
    pub(super) urgent_since: Option<Instant>,
    /// When it last got a chunk.
    pub(super) progressed: Instant,
    /// In this turn.
    pub(super) bytes: u64,
    pub(super) protected: bool,
    pub(super) is_aborted: bool,
    /// It can make no room: it was aborted, which takes effect late, or its thread is blocked.
    pub(super) is_stuck: bool,
    /// While the peer is asked: its wakes before.
    pub(super) woken: Option<Priority>,
    pub(super) waiting_since: Instant,
}

impl Work {
    pub(super) fn is_protected(&self, now: Instant) -> bool {
        self.protected && (self.request.is_none() || now < self.since + PROTECTED)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.request.is_some() && self.priority == Priority::High
    }
}

/// A prefetch that waits: in a queue, or announced by its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Item {
    Fetch(RequestId),
    Pull(usize),
}

/// How long a prefetch waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) waiting_since: Instant,
    /// When it had aged and was queued.
    pub(super) begin: Instant,
    /// How many were as old then. `None` until it has aged.
    pub(super) before: Option<u32>,
}
