//! Urgent work on lent threads: a blocked reader runs urgent work of its own peer while no worker is idle.
//!
//! A lent thread is a worker beside the pool: it has a number above those of the pool while it runs something, is never idle,
//! counts for no limit of the pool, and is never preempted or aborted for other work, since that would free no worker.

use std::time::Instant;

use super::{Assignment, Choice, PeerKey, Running, Schedule, WorkerId};
use crate::types::Priority;

impl Schedule {
    /// Notes whether a blocked reader of `peer` lends its thread.
    pub(in crate::downloader) fn set_lent(&mut self, peer: PeerKey, is_lent: bool) {
        let Some(state) = self.peer(peer) else { return };
        state.is_lent = is_lent;
        if is_lent && !state.queues[Priority::High.rank()].is_empty() {
            self.lent_ready.insert(peer);
        } else {
            self.lent_ready.remove(&peer);
        }
    }

    /// A peer that has urgent work for a lent thread. None while a worker is idle, which takes it. Ask after
    /// [`poll_assignment`](Self::poll_assignment).
    pub(in crate::downloader) fn next_lent(&self) -> Option<PeerKey> {
        if self.idle.is_empty() { self.lent_ready.first().copied() } else { None }
    }

    /// Gives the first urgent work of `peer` to a lent thread, as the worker that is returned.
    pub(in crate::downloader) fn assign_lent(
        &mut self,
        peer: PeerKey,
        now: Instant,
    ) -> Option<(WorkerId, Assignment)> {
        let worker = self.free_lent.pop().unwrap_or_else(|| {
            self.workers.push(None);
            self.workers.len() - 1
        });
        let choice = Choice { peer, priority: Priority::High, aged: None, protected: false };
        let Some(assignment) = self.take(choice, worker, now) else {
            self.free_lent.push(worker);
            return None;
        };
        self.throttle.handle_urgent(now);
        Some((worker, assignment))
    }

    /// The lent threads that run something of `peer`.
    pub(in crate::downloader) fn lent_workers_of(
        &self,
        peer: PeerKey,
    ) -> impl Iterator<Item = WorkerId> + '_ {
        let lent = self.workers.iter().enumerate().skip(self.limits.workers);
        lent.filter(move |(_, running)| running.is_some_and(|running| running.peer == peer))
            .map(|(worker, _)| worker)
    }

    /// True if `worker` is a lent thread.
    pub(in crate::downloader) fn is_lent(&self, worker: WorkerId) -> bool {
        worker >= self.limits.workers
    }

    /// What the workers of the pool have.
    pub(super) fn pool(&self) -> impl Iterator<Item = &Running> {
        self.workers.iter().take(self.limits.workers).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Answer, FetchInfo, Limits, Origin, Preemption, Requeued};
    use super::*;
    use crate::types::RequestId;

    fn new(workers: usize) -> Schedule {
        Schedule::new(Limits {
            workers,
            reserved: 0,
            max_per_origin: usize::MAX,
            prefetch_delay: Duration::ZERO,
            aging_threshold: Duration::from_secs(10),
            max_preempted: 0,
        })
    }

    fn submit(
        schedule: &mut Schedule,
        peer: PeerKey,
        number: u64,
        priority: Priority,
        now: Instant,
    ) -> RequestId {
        let request = RequestId::new(number).unwrap();
        schedule.handle_submitted(peer, FetchInfo { request, priority, origin: Origin(0) }, now);
        request
    }

    fn run(request: RequestId) -> Assignment {
        Assignment::Run { request, protected: false }
    }

    /// A schedule whose only worker runs something urgent, and a peer with a lent thread.
    fn saturated(now: Instant) -> (Schedule, PeerKey) {
        let mut schedule = new(1);
        let [busy, peer] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
        submit(&mut schedule, busy, 1, Priority::High, now);
        assert!(schedule.poll_assignment(now).is_some());
        schedule.set_lent(peer, true);
        (schedule, peer)
    }

    #[test]
    fn urgent_work_goes_to_a_lent_thread_only_while_no_worker_is_idle() {
        let now = Instant::now();
        let mut schedule = new(1);
        let peer = schedule.handle_registered(Priority::High);
        schedule.set_lent(peer, true);
        let [first, second] = [1, 2].map(|number| submit(&mut schedule, peer, number, Priority::High, now));
        assert_eq!(schedule.next_lent(), None);
        assert_eq!(schedule.poll_assignment(now), Some((0, run(first))));
        assert_eq!(schedule.next_lent(), Some(peer));
        assert_eq!(schedule.assign_lent(peer, now), Some((1, run(second))));
        assert_eq!(schedule.next_lent(), None);
        assert_eq!((schedule.counts().running, schedule.counts().idle), (1, 0));
    }

    #[test]
    fn prefetches_and_the_work_of_others_stay_with_the_pool() {
        let now = Instant::now();
        let (mut schedule, peer) = saturated(now);
        let other = schedule.handle_registered(Priority::High);
        submit(&mut schedule, peer, 2, Priority::Low, now);
        submit(&mut schedule, other, 3, Priority::High, now);
        assert_eq!(schedule.next_lent(), None);
        // Once somebody waits for it, it is urgent.
        schedule.promote(RequestId::new(2).unwrap(), Priority::High, now);
        assert_eq!(schedule.next_lent(), Some(peer));
    }

    #[test]
    fn a_peer_is_asked_for_urgent_work_alone_and_keeps_what_else_it_gives() {
        let now = Instant::now();
        let (mut schedule, peer) = saturated(now);
        schedule.handle_woken(peer, Priority::High, now);
        let (worker, assignment) = schedule.assign_lent(peer, now).unwrap();
        assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::High });
        let request = RequestId::new(2).unwrap();
        let fetch_info = FetchInfo { request, priority: Priority::Low, origin: Origin(0) };
        schedule.handle_answered(worker, Answer::Fetch { fetch_info, more: false }, now);
        assert_eq!(schedule.counts().queued, [0, 1, 0, 0]);
    }

    #[test]
    fn what_a_lent_thread_leaves_is_a_prefetch_and_frees_no_worker() {
        let now = Instant::now();
        let (mut schedule, peer) = saturated(now);
        let request = submit(&mut schedule, peer, 2, Priority::High, now);
        let (worker, _) = schedule.assign_lent(peer, now).unwrap();
        assert_eq!(schedule.lent_workers_of(peer).collect::<Vec<_>>(), [worker]);
        schedule.promote(request, Priority::Low, now);
        let how = Preemption { has_body: false, had_share: false };
        assert_eq!(schedule.handle_preempted(worker, how, now), Requeued::Kept);
        assert_eq!(schedule.poll_assignment(now), None);
        assert_eq!(schedule.counts().queued, [0, 1, 0, 0]);
        // The number is free again.
        schedule.promote(request, Priority::High, now);
        assert_eq!(schedule.assign_lent(peer, now), Some((worker, run(request))));
        schedule.handle_finished(worker, now);
        assert_eq!(schedule.counts().idle, 0);
        schedule.handle_finished(0, now);
        assert_eq!(schedule.counts().idle, 1);
    }
}
