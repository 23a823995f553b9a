//! The workers: what each of them runs, and which are idle.
//!
//! Lent threads are beside the pool. A lent thread has an index after those of the pool while it runs something, is never idle,
//! counts for no limit of the pool, and is never preempted or aborted for other work, because that would free no worker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::types::{FetchInfo, Limits, Origin, PeerKey, WorkerId};
use crate::types::{Priority, RequestId};

/// How long a prefetch that has aged keeps its worker, unless it gets its share of bytes earlier.
///
/// Long enough for a connection to get up to speed, and short enough that urgent work on a saturated pool waits 1 s at most.
pub(crate) const PROTECTED: Duration = Duration::from_secs(1);

/// What a worker runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) peer: PeerKey,
    /// Priority of the fetch, or the lowest that the peer may answer with.
    pub(super) priority: Priority,
    /// `None` while the worker asks the peer.
    pub(super) fetch: Option<(RequestId, Origin)>,
    /// When its connection was closed for urgent work.
    pub(super) aborted: Option<Instant>,
    /// When it got its worker.
    pub(super) since: Instant,
    /// Since when a prefetch has waited for a full turn, which this one may become.
    pub(super) waiting_since: Instant,
    /// Its turn is protected at the beginning.
    pub(super) protected: bool,
}

impl Running {
    /// What a worker has whose thread is blocked: nothing that could make room, nor takes the room of a prefetch.
    pub(super) fn blocked(now: Instant) -> Self {
        Self {
            peer: PeerKey::NONE,
            priority: Priority::High,
            fetch: None,
            aborted: None,
            since: now,
            waiting_since: now,
            protected: false,
        }
    }

    /// What it runs. `None` while it asks the peer.
    pub(super) fn fetch_info(&self) -> Option<FetchInfo> {
        let (request, origin) = self.fetch?;
        Some(FetchInfo { request, priority: self.priority, origin })
    }

    /// The end of a full turn, unless it gets its share of bytes earlier.
    pub(super) fn full_turn(&self) -> Instant {
        self.since + PROTECTED
    }

    pub(super) fn had_full_turn(&self, now: Instant) -> bool {
        self.full_turn() <= now
    }

    /// True while urgent work must not interrupt it.
    pub(super) fn is_protected(&self, now: Instant) -> bool {
        // While it asks its peer it is protected however long that takes, so that the fetch it gets still is.
        self.protected && (self.fetch.is_none() || !self.had_full_turn(now))
    }

    /// True if it is a prefetch that runs and is not being closed.
    pub(super) fn is_interruptible(&self) -> bool {
        self.priority == Priority::Low && self.fetch.is_some() && self.aborted.is_none()
    }

    /// True if urgent work may interrupt it now.
    pub(super) fn is_preemptible(&self, now: Instant) -> bool {
        self.is_interruptible() && !self.is_protected(now)
    }
}

#[derive(Debug)]
pub(super) struct Workers {
    /// Workers of the pool. Those behind are lent threads.
    pool: usize,
    unreserved: usize,
    max_protected: usize,
    /// No longer than the pool and the lent thread of the highest index: much looks at each of them.
    all: Vec<Option<Running>>,
    /// The workers of the pool that are `None` in `all`. The last one to become idle is the first to be used: its caches are warm.
    idle: Vec<WorkerId>,
    /// The same of the lent threads: indices to be used again, the lowest one first, so that `all` gets shorter again.
    free_lent: BTreeSet<WorkerId>,
    /// Workers of the pool that have something of priority Low. More than `unreserved` only after a demotion.
    low: usize,
}

impl Workers {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            pool: limits.workers,
            unreserved: limits.unreserved(),
            max_protected: limits.max_protected(),
            all: vec![None; limits.workers],
            // Reversed, so that worker 0 is used first.
            idle: (0..limits.workers).rev().collect(),
            free_lent: BTreeSet::new(),
            low: 0,
        }
    }

    /// The idle worker to be used next.
    pub(super) fn next_idle(&self) -> Option<WorkerId> {
        self.idle.last().copied()
    }

    /// The index that the next lent thread gets.
    pub(super) fn next_lent(&self) -> WorkerId {
        self.free_lent.first().copied().unwrap_or(self.all.len())
    }

    /// Gives `worker` something to run: the [next](Self::next_idle) idle one, the [next](Self::next_lent) lent one, or one whose
    /// last task this replaces.
    pub(super) fn occupy(&mut self, worker: WorkerId, running: Running) {
        if worker == self.all.len() {
            self.all.push(None);
            self.free_lent.insert(worker);
        }
        let old = self.all[worker].replace(running);
        if old.is_none() {
            let taken = if self.is_lent(worker) { self.free_lent.pop_first() } else { self.idle.pop() };
            debug_assert_eq!(taken, Some(worker), "not the worker that was next");
        }
        // After the replacement, with both counts: a worker that asked for Low and runs High frees a place.
        if !self.is_lent(worker) {
            self.low += usize::from(running.priority == Priority::Low);
            self.low -= usize::from(old.is_some_and(|old| old.priority == Priority::Low));
        }
    }

    /// Makes `worker` idle. Returns what it had.
    pub(super) fn release(&mut self, worker: WorkerId) -> Option<Running> {
        let running = self.all.get_mut(worker)?.take()?;
        if self.is_lent(worker) {
            self.free_lent.insert(worker);
            while self.all.len() > self.pool && self.all.last().is_some_and(Option::is_none) {
                self.all.pop();
                self.free_lent.remove(&self.all.len());
            }
        } else {
            self.low -= usize::from(running.priority == Priority::Low);
            self.idle.push(worker);
        }
        Some(running)
    }

    /// Notes that the connection of what `worker` runs is being closed.
    pub(super) fn set_aborted(&mut self, worker: WorkerId, now: Instant) {
        if let Some(Some(running)) = self.all.get_mut(worker) {
            running.aborted = Some(now);
        }
    }

    /// Takes the idle workers out of service.
    pub(super) fn retire_idle(&mut self) -> impl Iterator<Item = WorkerId> + '_ {
        self.idle.drain(..)
    }

    pub(super) fn get(&self, worker: WorkerId) -> Option<Running> {
        self.all.get(worker).copied().flatten()
    }

    /// The worker, of the pool or lent, that runs a fetch.
    pub(super) fn find(&self, request: RequestId) -> Option<(WorkerId, Running)> {
        let is_it = |running: &Running| running.fetch.is_some_and(|(running, _)| running == request);
        let mut busy =
            self.all.iter().enumerate().filter_map(|(worker, running)| Some((worker, (*running)?)));
        busy.find(|(_, running)| is_it(running))
    }

    /// True if a worker, of the pool or lent, runs a fetch of this origin and priority.
    pub(super) fn runs(&self, origin: Origin, priority: Priority) -> bool {
        let mut busy = self.all.iter().flatten();
        busy.any(|running| running.priority == priority && running.fetch.is_some_and(|(_, at)| at == origin))
    }

    /// A worker, of the pool or lent, that runs a prefetch of `origin` whose connection is not being closed.
    pub(super) fn prefetching(&self, origin: Origin) -> Option<WorkerId> {
        self.all.iter().position(|running| {
            running.is_some_and(|running| {
                running.is_interruptible() && running.fetch.is_some_and(|(_, at)| at == origin)
            })
        })
    }

    /// True if a worker that is idle may run a prefetch.
    pub(super) fn has_room(&self) -> bool {
        self.low < self.unreserved
    }

    /// True if one more turn may be protected.
    pub(super) fn may_protect(&self, now: Instant) -> bool {
        // Counted again, because a protection ends by time alone and no message announces that.
        self.pool().filter(|(_, running)| running.is_protected(now)).count() < self.max_protected
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// What the workers of the pool run.
    pub(super) fn pool(&self) -> impl Iterator<Item = (WorkerId, &Running)> {
        let pool = self.all.iter().take(self.pool).enumerate();
        pool.filter_map(|(worker, running)| Some((worker, running.as_ref()?)))
    }

    pub(super) fn is_lent(&self, worker: WorkerId) -> bool {
        worker >= self.pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_threads_that_have_ended_are_looked_at_no_more() {
        let limits = Limits {
            workers: 2,
            reserved: 0,
            max_per_origin: usize::MAX,
            prefetch_delay: Duration::ZERO,
            aging_threshold: Duration::MAX,
            max_preempted: 0,
        };
        let mut workers = Workers::new(limits);
        let lend = |workers: &mut Workers| {
            let worker = workers.next_lent();
            workers.occupy(worker, Running::blocked(Instant::now()));
            worker
        };
        let lent: Vec<WorkerId> = (0..1000).map(|_| lend(&mut workers)).collect();
        assert_eq!(lent, (2..1002).collect::<Vec<_>>());
        // All but one, which is in the middle.
        let all_released =
            lent.into_iter().filter(|worker| *worker != 7).all(|worker| workers.release(worker).is_some());
        assert!(all_released);
        assert_eq!((workers.all.len(), workers.free_lent.len()), (8, 5));
        assert_eq!([lend(&mut workers), lend(&mut workers)], [2, 3]);
        assert!([3, 7, 2].into_iter().all(|worker| workers.release(worker).is_some()));
        assert_eq!((workers.all.len(), workers.free_lent.len(), workers.idle()), (2, 0, 2));
        assert!(workers.get(7).is_none() && workers.release(7).is_none());
    }
}
