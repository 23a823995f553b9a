//! Decides which fetch runs next. Does no I/O and never reads the clock: the [machine](super::runtime::machine) passes messages and
//! the time in, and carries out what it answers.
//!
//! A fetch of priority High is *urgent*: a reader is blocked on it. One of priority Low is a *prefetch*. A *pull* stands for work
//! that a peer announced by a wake: when the pull comes up, the peer is asked for one fetch.
//!
//! # Which work goes first
//!
//! [`choice`] answers this for a free worker:
//!
//! 1. Urgent work, if a protected turn was granted before, if a prefetch has just left its worker, or if one is asked
//!    to make room.
//! 2. The oldest prefetch that has *aged*: it was queued, or had its last full turn, `aging_threshold` ago. A *turn* is the time from
//!    the start of a prefetch on a worker to its end or its preemption. This one is *protected*: urgent work does not preempt it for
//!    1 s or 256 KiB, which make the turn *full*. At most half of the unreserved workers are in a protected turn at once.
//! 3. The classes (peer, fetch): High/High, High/Low, Low/High, Low/Low. Round robin over the peers of a class; first in, first
//!    out within a peer. Prefetches need an unreserved worker, and `prefetch_delay` since the last urgent fetch began.
//!
//! Urgent work without a worker *preempts* a running prefetch that is not protected: the first one that reaches a chunk. After 5 ms
//! the one that has been silent longest is *aborted*: its connection is closed. If that frees no worker in time, because a sink
//! blocks, another one has to make room. Aged work preempts prefetches too, but only while
//! no urgent work waits, and it aborts none: two slow prefetches would abort each other forever. A preempted prefetch continues
//! before the rest of its class, and keeps its age unless it had a full turn. A peer that was asked may answer with a prefetch that
//! others go before; then that is queued.
//!
//! Urgent work that finds no worker also goes to a thread that a blocked reader of its peer *lends*. See [`workers`]. An origin that
//! serves one connection at a time is *reserved* while urgent work of it runs. See [`single_connection`].
//!
//! # What holds
//!
//! | guarantee | tested in |
//! |---|---|
//! | urgent work begins within 10 ms if a worker has anything but a protected turn, and within [`PROTECTED`] in any case | `properties` |
//! | urgent work whose reader lends its thread begins at once, and holds no worker | `properties` |
//! | an aged prefetch begins after a bounded time for each one that is as old | `properties` |
//! | between two protected turns, waiting urgent work is served | `tests::aging` |
//! | no prefetch keeps the connection of a reserved origin | `properties` |
//! | every fetch ends once; nothing of it is left | `properties` |
//! | no worker is idle beside work that it may run; all limits hold | `properties` |
//! | a deadline is announced for everything that time alone changes | `properties` |
//!
//! One thing does not hold: a prefetch whose server needs longer than [`PROTECTED`] for its response head gets its turns, but makes
//! no progress while urgent work takes all workers. Its request is aborted after that time, and its next turn begins with another
//! one. A longer protection would break the bound for urgent work, which may find no other worker to preempt.
//!
//! # Where each idea is
//!
//! | file | |
//! |---|---|
//! | [`choice`] | what a free worker runs, and whether it may run what a peer gave |
//! | [`backlog`] | all that waits, and where |
//! | [`queues`], [`rotations`] | what waits for a worker, and in which order |
//! | [`aging`] | which queued prefetches go first |
//! | [`pull`] | when a peer is asked for work |
//! | [`origin_limit`] | prefetches of one origin, and those that are blocked on the limit |
//! | [`single_connection`] | origins that serve one connection at a time |
//! | [`workers`] | what runs, what is idle, what is lent |
//! | [`preemption`], [`preempted`] | which running prefetches make room, and whose bodies stay open |
//! | [`throttle`] | when prefetches wait for urgent work to pause |
//!
//! Each operation costs O(log n) at most, plus a step for each worker. A peer is looked at only when something about it changes.

use std::time::Instant;

use self::backlog::Backlog;
use self::preemption::Preemptor;
use self::pull::Pull;
use self::single_connection::SingleConnections;
use self::throttle::Throttle;
use self::types::Choice;
use self::workers::{Running, Workers};
use crate::types::{Priority, RequestId};

mod aging;
mod backlog;
mod choice;
mod delay_queue;
mod origin_limit;
mod peers;
mod preempted;
mod preemption;
#[cfg(test)]
mod properties;
mod pull;
mod queues;
mod rotations;
mod single_connection;
#[cfg(test)]
mod tests;
mod throttle;
mod types;
mod workers;

pub(super) use self::types::{
    Admission, Answer, Assignment, Counts, FetchInfo, Fruitless, Limits, Origin, PeerKey, Preemption,
    Requeued, WorkerId,
};
pub(super) use self::workers::PROTECTED;

/// The state machine. See the [module](self).
#[derive(Debug)]
pub(super) struct Schedule {
    /// The fetches that wait. A fetch is here or on a worker, never both.
    backlog: Backlog,
    workers: Workers,
    preemptor: Preemptor,
    single_connections: SingleConnections,
    /// Reserved origins that were not polled yet.
    newly_reserved: Vec<Origin>,
    throttle: Throttle,
    /// Urgent work that waits goes before aged work. Ends when urgent work is served.
    urgent_is_next: bool,
}

impl Schedule {
    /// A schedule with idle workers and no peers.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            backlog: Backlog::new(limits),
            workers: Workers::new(limits),
            preemptor: Preemptor::default(),
            single_connections: SingleConnections::default(),
            newly_reserved: Vec::new(),
            throttle: Throttle::new(limits.prefetch_delay),
            urgent_is_next: false,
        }
    }

    /// Adds a peer that has nothing to do yet.
    pub(super) fn handle_registered(&mut self, priority: Priority) -> PeerKey {
        self.backlog.register(priority)
    }

    /// Removes a peer. Returns its fetches that waited. Those that run do so to their end.
    pub(super) fn handle_unregistered(&mut self, peer: PeerKey, now: Instant) -> Vec<RequestId> {
        self.backlog.unregister(peer, now)
    }

    /// Queues a fetch of `peer`. False if the peer is gone.
    pub(super) fn handle_submitted(&mut self, peer: PeerKey, fetch_info: FetchInfo, now: Instant) -> bool {
        self.backlog.push(peer, fetch_info, now)
    }

    /// Lets an idle worker run an urgent fetch of `peer` at once, if nothing is queued: queued, it would be assigned next. `None` if it
    /// has to be [queued](Self::handle_submitted).
    pub(super) fn try_run(&mut self, peer: PeerKey, fetch_info: FetchInfo, now: Instant) -> Option<WorkerId> {
        // First: a retry that is due came before this fetch.
        self.backlog.queue_due(now);
        let FetchInfo { request, priority, origin } = fetch_info;
        let worker = self.workers.next_idle().filter(|_| priority == Priority::High && !self.has_queued())?;
        self.backlog.priority(peer)?;
        let running = Running {
            peer,
            priority,
            fetch: Some((request, origin)),
            aborted: None,
            since: now,
            waiting_since: now,
            protected: false,
        };
        self.workers.occupy(worker, running);
        self.handle_urgent_begins(now);
        Some(worker)
    }

    fn handle_urgent_begins(&mut self, now: Instant) {
        self.throttle.handle_urgent(now);
        self.urgent_is_next = false;
    }

    /// `peer` was cancelled: it is never asked again. Its fetches that wait are cancelled one by one.
    pub(super) fn handle_peer_cancelled(&mut self, peer: PeerKey) {
        self.backlog.update_pull(peer, Pull::stop);
    }

    /// `peer` has work of its own. The next piece of it has this priority.
    pub(super) fn handle_woken(&mut self, peer: PeerKey, priority: Priority, now: Instant) {
        self.backlog.update_pull(peer, |pull| pull.handle_woken(priority, now));
    }

    /// The peer that `worker` asked has answered. The worker is idle again, unless it runs the answer.
    pub(super) fn handle_answered(&mut self, worker: WorkerId, answer: Answer, now: Instant) -> Admission {
        let Some(asking) = self.workers.get(worker) else { return Admission::Refused };
        // Before the pull is queued again: what the peer has given goes before what it gives next.
        let admission = if let Answer::Fetch { fetch_info, .. } = answer {
            self.admit(worker, asking, fetch_info, now)
        } else {
            self.workers.release(worker);
            Admission::Refused
        };
        self.backlog.update_pull(asking.peer, |pull| pull.handle_answered(asking.priority, answer, now));
        admission
    }

    /// `worker` did not ask the peer that it should ask, and is idle again.
    pub(super) fn handle_not_asked(&mut self, worker: WorkerId, now: Instant) {
        if let Some(asking) = self.workers.release(worker) {
            self.backlog.update_pull(asking.peer, |pull| pull.handle_not_asked(now));
        }
    }

    /// `worker`, which has just become idle, can run nothing: its thread is blocked. It counts as busy until it has
    /// [finished](Self::handle_finished).
    pub(super) fn handle_blocked(&mut self, worker: WorkerId, now: Instant) {
        self.workers.occupy(worker, Running::blocked(now));
    }

    /// `worker` has finished its fetch.
    pub(super) fn handle_finished(&mut self, worker: WorkerId, now: Instant) {
        if let Some((running, _)) = self.release(worker, now) {
            self.backlog.update_pull(running.peer, Pull::handle_fruitful);
        }
    }

    /// The fetch on `worker` was pulled from its peer and has brought next to nothing.
    pub(super) fn handle_fruitless(&mut self, worker: WorkerId, why: Fruitless, now: Instant) {
        if let Some((running, _)) = self.release(worker, now) {
            self.backlog.update_pull(running.peer, |pull| pull.handle_fruitless(why));
        }
    }

    /// The fetch on `worker` is retried at `at`, before other work of its peer. False if its peer is gone.
    pub(super) fn handle_retry(&mut self, worker: WorkerId, at: Instant, now: Instant) -> bool {
        let Some((running, fetch_info)) = self.release(worker, now) else { return false };
        self.backlog.delay(running.peer, fetch_info, at)
    }

    /// A fetch that is retried could not connect: an answer of its origin lets it start from `soonest` on.
    pub(super) fn start_on_answer(&mut self, request: RequestId, soonest: Instant) {
        self.backlog.start_on_answer(request, soonest);
    }

    /// An origin has answered, so what could not connect to it is tried again.
    pub(super) fn handle_answer(&mut self, origin: Origin, now: Instant) {
        self.backlog.handle_answer(origin, now);
    }

    /// True if an answer of an origin lets something start.
    pub(super) fn has_unreachable(&self) -> bool {
        self.backlog.has_unreachable()
    }

    /// The fetch on `worker` was preempted. It continues before the rest of its class.
    pub(super) fn handle_preempted(&mut self, worker: WorkerId, how: Preemption, now: Instant) -> Requeued {
        // Not `self.release`: a preempted prefetch may keep its connection, so it still counts at its origin.
        let Some(running) = self.workers.release(worker) else { return Requeued::Refused };
        self.handle_turn_over(&running);
        // An origin that was reserved for this fetch is not any more.
        self.update_reserved(now);
        let Some(fetch_info) = running.fetch_info() else { return Requeued::Refused };
        let had_turn = how.had_share || running.had_full_turn(now);
        // An age that was kept after a full turn would let one prefetch take the aged turns of all others.
        let since = if had_turn { now } else { running.waiting_since };
        // The body that a lent thread leaves is not counted as preempted: its reader is likely to continue it soon.
        let is_counted = how.has_body && !self.is_lent(worker);
        let requeued = self.backlog.requeue(running.peer, fetch_info, is_counted, since, now);
        // But neither may it stay open while the urgent work of its origin needs its connection.
        let must_close = how.has_body && self.backlog.is_reserved(fetch_info.origin);
        if requeued == Requeued::Kept && must_close { Requeued::Aborted } else { requeued }
    }

    /// Drops a fetch that waits. False if it does not wait: it runs, or has ended.
    pub(super) fn handle_cancelled(&mut self, request: RequestId, now: Instant) -> bool {
        self.backlog.cancel(request, now)
    }

    /// Gives a peer another priority. What it has queued changes its class.
    pub(super) fn set_priority(&mut self, peer: PeerKey, priority: Priority) {
        self.backlog.set_priority(peer, priority);
    }

    /// Gives a fetch another priority, wherever it is. A promoted one goes to the front of its new queue, a demoted one to the back.
    pub(super) fn promote(&mut self, request: RequestId, priority: Priority, now: Instant) {
        if !self.backlog.promote(request, priority, now) {
            self.promote_running(request, priority, now);
        }
    }

    /// `origin` serves one connection at a time.
    pub(super) fn handle_single_connection(&mut self, origin: Origin) {
        self.single_connections.insert(origin);
    }

    /// The open body of a fetch that waits was closed.
    pub(super) fn handle_body_closed(&mut self, request: RequestId) {
        self.backlog.close_body(request);
    }

    /// Notes whether a blocked reader of `peer` lends its thread.
    pub(super) fn set_lent(&mut self, peer: PeerKey, is_lent: bool) {
        self.backlog.set_lending(peer, is_lent);
    }

    /// The next thing to do, and the worker that does it. Call until it returns `None`.
    pub(super) fn poll_assignment(&mut self, now: Instant) -> Option<(WorkerId, Assignment)> {
        self.backlog.queue_due(now);
        self.update_reserved(now);
        loop {
            let worker = self.workers.next_idle()?;
            let choice = self.choose(now)?;
            // `None` if the limit of its origin blocks it. It then waits outside of the queues, so this loop ends: fewer are
            // queued each time.
            let Some(assignment) = self.take(choice, worker, now) else { continue };
            if choice.serves() == Priority::High {
                self.handle_urgent_begins(now);
            // Urgent work that waits goes before the next aged prefetch, so that it never waits for two protected turns.
            } else if choice.protected || self.backlog.queues().urgent() > 0 {
                self.urgent_is_next = true;
            }
            return Some((worker, assignment));
        }
    }

    /// A peer that has urgent work for a lent thread. `None` while a worker is idle, which takes that work. Call after
    /// [`poll_assignment`](Self::poll_assignment).
    pub(super) fn next_lent(&self) -> Option<PeerKey> {
        if self.workers.idle() > 0 { None } else { self.backlog.queues().first_lendable() }
    }

    /// Gives the first urgent work of `peer` to a lent thread. Returns the index that this thread has as a worker.
    pub(super) fn assign_lent(&mut self, peer: PeerKey, now: Instant) -> Option<(WorkerId, Assignment)> {
        // Not protected, and never aborted: it has no worker that others could need.
        let worker = self.workers.next_lent();
        let choice = Choice { peer, queue: Priority::High, aged: None, protected: false };
        let assignment = self.take(choice, worker, now)?;
        self.throttle.handle_urgent(now);
        Some((worker, assignment))
    }

    /// How many running prefetches should make room at their next chunk.
    pub(super) fn poll_preemptions(&mut self, now: Instant) -> usize {
        // Also if nothing is missing: the preemptor forgets since when it asks.
        let (missing, is_asking) = self.preemptor.update(self.backlog.queues().urgent(), &self.workers, now);
        // The worker that makes room is for this urgent work, and not for a prefetch that has aged meanwhile.
        self.urgent_is_next |= is_asking;
        let wanted = missing.max(usize::from(self.is_preempted_by_age(now)));
        if wanted == 0 {
            return 0;
        }
        // An urgent fetch may make room, too, if no reader waits for it any more, and one in a protected turn if it has had its
        // share of bytes. Only their workers know that.
        let may_make_room = |running: &Running| running.fetch.is_some() && running.aborted.is_none();
        wanted.min(self.workers.pool().filter(|(_, running)| may_make_room(running)).count())
    }

    /// An origin that is reserved for urgent work from now on, because it serves one connection at a time. The caller closes the open
    /// bodies of its fetches that wait. Call after [`poll_abort`](Self::poll_abort), until it returns `None`.
    pub(super) fn poll_reserved(&mut self) -> Option<Origin> {
        self.newly_reserved.pop()
    }

    /// A worker whose connection is to be closed: it prefetches from a reserved origin, or no running prefetch made room in time.
    /// Call until it returns `None`.
    /// `claimed` of them are about to make room; `progressed` returns when a worker last progressed.
    pub(super) fn poll_abort<M: Ord>(
        &mut self,
        now: Instant,
        claimed: usize,
        progressed: impl Fn(WorkerId) -> M,
    ) -> Option<WorkerId> {
        self.update_reserved(now);
        let urgent = self.backlog.queues().urgent();
        // First those of reserved origins: the urgent work that reserves them is on a worker already, and gets no answer before
        // their connections are closed.
        let prefetching =
            self.single_connections.reserved().find_map(|origin| self.workers.prefetching(origin));
        let worker = match prefetching {
            Some(worker) => worker,
            None => self.preemptor.poll_abort(urgent, claimed, &self.workers, now, progressed)?,
        };
        self.workers.set_aborted(worker, now);
        Some(worker)
    }

    /// When to poll again although nothing has happened. Call after all that is due at `now` was polled. Work that is due but has
    /// to wait has no deadline: the event that ends its wait causes a new poll.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let has_idle = self.workers.idle() > 0;
        let aging = self.backlog.queues().aging();
        // Aged work preempts one of these.
        let interruptible =
            || self.workers.pool().map(|(_, running)| running).filter(|it| it.is_interruptible());
        // At its end, urgent work may preempt it, or other aged work may be protected.
        let is_waiting = self.backlog.queues().urgent() > 0 && !has_idle || aging.oldest_aged(now).is_some();
        let protected = interruptible().filter(|running| running.is_protected(now)).map(Running::full_turn);
        let protected = if is_waiting { protected.filter(|at| *at > now).min() } else { None };
        // Beside an idle worker, a prefetch waits for the throttle, or for room.
        let throttle = self.throttle.opens_at().filter(|_| has_idle && !aging.is_empty());
        let aged = aging.next_deadline().filter(|_| throttle.is_some() || interruptible().next().is_some());
        let abort = self.preemptor.next_deadline(self.backlog.queues().urgent(), &self.workers, now);
        let due = [self.backlog.next_deadline(), abort, throttle, aged, protected];
        // A time that has passed had its chance in the polls. Returned again, it would keep the scheduler thread busy without
        // an end.
        due.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Takes the idle workers out of service.
    pub(super) fn retire_idle(&mut self) -> impl Iterator<Item = WorkerId> + '_ {
        self.workers.retire_idle()
    }

    /// True if something may run and a worker is idle. After polling this is always false.
    pub(super) fn is_overlooking(&self, now: Instant) -> bool {
        self.workers.idle() > 0 && self.choose(now).is_some()
    }

    /// True if something waits for a worker.
    pub(super) fn has_queued(&self) -> bool {
        self.backlog.queues().lens().iter().any(|len| *len > 0)
    }

    /// True if `worker` has something, or is [blocked](Self::handle_blocked).
    pub(super) fn is_busy(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some()
    }

    /// True if `worker` is a lent thread.
    pub(super) fn is_lent(&self, worker: WorkerId) -> bool {
        self.workers.is_lent(worker)
    }

    pub(super) fn counts(&self) -> Counts {
        let (running, idle) = (self.workers.pool().count(), self.workers.idle());
        Counts { running, idle, ..self.backlog.counts() }
    }

    fn update_reserved(&mut self, now: Instant) {
        while let Some((origin, is_reserved)) = self.single_connections.poll_change(&self.workers) {
            self.backlog.set_reserved(origin, is_reserved, now);
            self.newly_reserved.extend(Some(origin).filter(|_| is_reserved));
        }
    }

    /// Makes the worker of a fetch idle, and ends the activity of the fetch at its origin. `None` if it had no fetch.
    fn release(&mut self, worker: WorkerId, now: Instant) -> Option<(Running, FetchInfo)> {
        let running = self.workers.release(worker)?;
        self.handle_turn_over(&running);
        let fetch_info = running.fetch_info()?;
        if running.priority == Priority::Low {
            self.backlog.leave_origin(fetch_info.origin, now);
        }
        Some((running, fetch_info))
    }

    /// Urgent work that waited through the turn of a prefetch goes before the next one.
    fn handle_turn_over(&mut self, running: &Running) {
        let is_prefetch = running.priority == Priority::Low && running.fetch.is_some();
        // Even if other urgent work was served in between: otherwise it could wait for two protected turns.
        self.urgent_is_next |= is_prefetch && self.backlog.queues().urgent() > 0;
    }

    fn promote_running(&mut self, request: RequestId, priority: Priority, now: Instant) {
        let Some((worker, running)) = self.workers.find(request) else { return };
        let Running { fetch: Some((_, origin)), .. } = running else { return };
        if running.priority == priority {
            return;
        }
        // It has not waited as a prefetch yet, and the protection was for one that had.
        self.workers.occupy(worker, Running { priority, waiting_since: now, protected: false, ..running });
        match priority {
            Priority::High => self.backlog.leave_origin(origin, now),
            Priority::Low => self.backlog.enter_running(origin),
        }
    }

    /// True if a running prefetch should make room for one that has aged. Urgent work that waits goes before both.
    fn is_preempted_by_age(&self, now: Instant) -> bool {
        let has_aged = self.backlog.queues().aging().oldest_aged(now).is_some();
        self.backlog.queues().urgent() == 0 && has_aged && self.workers.may_protect(now)
    }
}
