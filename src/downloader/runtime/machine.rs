//! The state that all threads share: the [`Schedule`], the jobs that wait in it, and what each worker has. Applies messages, and
//! returns [`Actions`] for its caller to carry out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::control::Control;
use super::job::Job;
use super::lent_thread::LentThread;
use super::message::{Channel, Message, Report};
use super::task::{PeerEntry, Question, Task};
use crate::cancel::CancelReason;
use crate::client;
use crate::config::DownloaderConfig;
use crate::downloader::schedule::{
    Admission, Answer, Assignment, Limits, Origin, PeerKey, Preemption, Requeued, Schedule, WorkerId,
};
use crate::id_map::IdMap;
use crate::types::{Priority, RequestId};

/// The list of times at which fetches become slow is not cleaned below this length: cleaning looks at each entry, and so it costs
/// one look for each fetch on average.
const MIN_SLOW_LIMIT: usize = 64;

/// Most priorities of unknown fetches that are kept. Nearly all are of fetches that have ended, and while one peer after the other
/// is asked, or one never answers, there is no time at which all could be forgotten.
const MAX_EARLY: usize = 1024;

/// The state behind the combiner: the schedule, and the jobs and threads that its ids stand for.
pub(crate) struct Machine {
    pub(super) schedule: Schedule,
    pub(super) peers: IdMap<PeerKey, (Arc<PeerEntry>, Arc<Channel>)>,
    /// The jobs that wait: exactly those that wait in the schedule.
    pub(super) jobs: IdMap<RequestId, Box<Job>>,
    /// What each worker runs. `None` if it is idle. No longer than the pool and the lent thread of the highest index.
    pub(super) assigned: Vec<Option<Assigned>>,
    /// Workers that count as busy because a thread of the pool is blocked where a fetch ends. Which thread it is does not matter.
    pub(super) blocked: Vec<WorkerId>,
    /// Threads that have come back before the message that they were missing.
    pub(super) came_back: usize,
    /// The threads without a task that blocked readers of a peer lend. Some of the readers may have continued.
    pub(super) lent: IdMap<PeerKey, Vec<Weak<LentThread>>>,
    /// Priorities that were set for unknown fetches. One of these may be a fetch that a peer is about to give: its sink and the
    /// subscribers know its id before the machine does. Empty while no peer is being asked, and never longer than [`MAX_EARLY`].
    pub(super) early: BTreeMap<RequestId, Priority>,
    /// When each fetch that has started is reported as slow, in the order of the times. The first one had not ended when the
    /// last message was applied.
    /// Weak: a strong reference would keep the peer's subscribers waiting for events after its last fetch.
    pub(super) slow: VecDeque<(Instant, Weak<Control>)>,
    /// At this length, fetches that have ended are removed from `slow`.
    pub(super) slow_limit: usize,
    /// The watchdog observes again by itself. Otherwise it sleeps until a worker gets a task.
    pub(super) watched: bool,
    /// When the scheduler thread wakes by itself.
    pub(super) alarm: Option<Instant>,
    pub(super) stopped: bool,
    pub(super) workers_left: usize,
    pub(super) soft_timeout: Duration,
}

/// What a worker has.
#[derive(Clone)]
pub(crate) enum Assigned {
    Fetch(Arc<Control>),
    /// A peer that has not answered yet.
    Asking {
        since: Instant,
    },
    /// Nothing, but a thread of the pool is blocked in the end of a fetch.
    Blocked {
        since: Instant,
    },
}

/// What has to be done after messages were applied, without the lock.
#[derive(Default)]
pub(super) struct Actions {
    pub(super) tasks: Vec<(WorkerId, Task)>,
    /// Tasks for lent threads.
    pub(super) lent: Vec<(Arc<LentThread>, WorkerId, Task)>,
    pub(super) endings: Vec<Ending>,
    /// To be dropped without the lock: they are user code.
    pub(super) peers: Vec<Arc<PeerEntry>>,
    /// To be dropped without the lock: the callback that wakes the thread belongs to the reader.
    pub(super) threads: Vec<Arc<LentThread>>,
    /// To be dropped without the lock: that closes a connection.
    pub(super) bodies: Vec<client::Response>,
    /// To be aborted: no prefetch made room in time.
    pub(super) aborts: Vec<Arc<Control>>,
    /// To be reported as slow.
    pub(super) slow: Vec<Arc<Control>>,
    /// A running fetch has become urgent: it may be hedged now.
    pub(super) urgent: bool,
    /// The scheduler thread has something to do.
    pub(super) signal: bool,
    /// The watchdog has something to observe.
    pub(super) watch: bool,
}

/// A job that is ended while it waits.
pub(super) struct Ending {
    pub(super) job: Box<Job>,
    pub(super) reason: CancelReason,
}

impl Assigned {
    fn control(&self) -> Option<&Arc<Control>> {
        match self {
            Self::Fetch(control) => Some(control),
            Self::Asking { .. } | Self::Blocked { .. } => None,
        }
    }

    /// The last time at which it progressed.
    pub(super) fn moved(&self) -> Instant {
        match self {
            Self::Fetch(control) => control.moved(),
            Self::Asking { since } | Self::Blocked { since } => *since,
        }
    }

    /// What it is, and how long it has been silent.
    pub(crate) fn describe(&self, now: Instant) -> String {
        match self {
            Self::Fetch(control) => control.describe(now),
            Self::Asking { since } => {
                format!("a peer asked for work {:?} ago", now.saturating_duration_since(*since))
            }
            Self::Blocked { since } => {
                format!("a fetch that ended {:?} ago", now.saturating_duration_since(*since))
            }
        }
    }
}

impl Machine {
    /// A machine with idle workers and no peers.
    pub(super) fn new(config: &DownloaderConfig) -> Self {
        let workers = config.max_concurrent;
        let limits = Limits {
            workers,
            reserved: config.effective_reserved(),
            max_per_origin: config.max_per_origin,
            prefetch_delay: config.prefetch_delay,
            aging_threshold: config.aging_threshold,
            max_preempted: config.effective_max_preempted(),
        };
        Self {
            schedule: Schedule::new(limits),
            assigned: vec![None; workers],
            blocked: Vec::new(),
            came_back: 0,
            early: BTreeMap::new(),
            lent: IdMap::default(),
            slow: VecDeque::new(),
            slow_limit: MIN_SLOW_LIMIT,
            watched: false,
            peers: IdMap::default(),
            jobs: IdMap::default(),
            alarm: None,
            stopped: false,
            workers_left: workers,
            soft_timeout: config.soft_timeout,
        }
    }

    pub(super) fn handle(&mut self, message: Message, now: Instant, actions: &mut Actions) {
        match message {
            Message::Submitted(peer) => self.take_submitted(peer, now, actions),
            Message::Woken(peer, priority) => self.schedule.handle_woken(peer, priority, now),
            Message::FromWorker(worker, report) => self.handle_report(worker, report, now, actions),
            Message::Answered(origin) => self.schedule.handle_answer(origin, now),
            Message::SingleConnection(origin) => self.schedule.handle_single_connection(origin),
            Message::Cancelled(request) => {
                if self.schedule.handle_cancelled(request, now) {
                    self.end(request, actions);
                }
            }
            Message::PeerCancelled(peer) => self.schedule.handle_peer_cancelled(peer),
            Message::Prioritised(peer, priority) => self.schedule.set_priority(peer, priority),
            Message::Promoted(request, priority) => self.promote(request, priority, now, actions),
            Message::Lent(peer, thread) => self.lend(peer, thread),
            Message::Unserved(worker, task) => self.handle_unserved(worker, task, now, actions),
            Message::CameBack => self.handle_came_back(now, actions),
            Message::Due => self.alarm = None,
            Message::Stopped => self.stop(now, actions),
            Message::Left => {
                self.workers_left -= 1;
                // Both threads end with the last worker.
                (actions.signal, actions.watch) = (true, true);
            }
        }
    }

    /// `worker` has nothing to do any more, unless the answer of the peer that it asked may run.
    fn handle_report(&mut self, worker: WorkerId, report: Report, now: Instant, actions: &mut Actions) {
        // Also if it gets another task below: for the watchdog, what it had is over.
        self.set_assigned(worker, None);
        match report {
            Report::NotAsked => self.schedule.handle_not_asked(worker, now),
            // Such an answer has no fetch, so there is none to admit.
            Report::Answered(answer) => drop(self.schedule.handle_answered(worker, answer, now)),
            Report::Fetched { job, more } => self.handle_fetched(worker, job, more, now, actions),
            Report::Finished => self.schedule.handle_finished(worker, now),
            Report::Fruitless(why) => self.schedule.handle_fruitless(worker, why, now),
            Report::Retry(job, at, on_answer) => {
                let kept = self.schedule.handle_retry(worker, at, now);
                on_answer.inspect(|soonest| self.schedule.start_on_answer(job.record.id, *soonest));
                self.keep(job, kept, now, actions);
            }
            Report::Preempted { job, claim } => {
                // From here on the schedule counts it among those that have made room, and it must not count twice.
                drop(claim);
                self.handle_preempted(worker, job, now, actions);
            }
        }
    }

    /// `worker` has no thread that could run `task`. It counts as busy from now on, so that urgent work preempts a prefetch or goes to
    /// a lent thread, as beside any other busy worker.
    fn handle_unserved(&mut self, worker: WorkerId, task: Task, now: Instant, actions: &mut Actions) {
        let is_retired = matches!(task, Task::Stop);
        match task {
            Task::Run(job) => self.handle_preempted(worker, job, now, actions),
            Task::Ask(_) => self.schedule.handle_not_asked(worker, now),
            Task::Stop => {}
        }
        self.set_assigned(worker, Some(Assigned::Blocked { since: now }));
        self.blocked.push(worker);
        // The schedule has no place for one that it has retired.
        if !is_retired {
            self.schedule.handle_blocked(worker, now);
        }
        // The thread that took the task out of the queue may post its message after the thread that was missing.
        if let Some(came_back) = self.came_back.checked_sub(1) {
            self.came_back = came_back;
            self.handle_came_back(now, actions);
        }
    }

    fn handle_came_back(&mut self, now: Instant, actions: &mut Actions) {
        let Some(worker) = self.blocked.pop() else {
            self.came_back += 1;
            return;
        };
        self.set_assigned(worker, None);
        if self.schedule.is_busy(worker) {
            // If the downloader has stopped meanwhile, the worker is retired like any other idle one.
            self.schedule.handle_finished(worker, now);
        } else {
            actions.tasks.push((worker, Task::Stop));
        }
    }

    fn handle_preempted(&mut self, worker: WorkerId, mut job: Box<Job>, now: Instant, actions: &mut Actions) {
        let how = Preemption { has_body: job.has_body(), had_share: job.control.had_share() };
        let requeued = self.schedule.handle_preempted(worker, how, now);
        if requeued == Requeued::Aborted {
            actions.bodies.extend(job.take_body().map(|body| *body));
        }
        self.keep(job, requeued != Requeued::Refused, now, actions);
    }

    /// A peer gave a fetch. The worker that asked runs it, or it waits.
    fn handle_fetched(
        &mut self,
        worker: WorkerId,
        job: Box<Job>,
        more: bool,
        now: Instant,
        actions: &mut Actions,
    ) {
        // It was promoted after the peer had given it, and before this report. Then neither the schedule nor `jobs` knew it.
        if let Some(priority) = self.early.remove(&job.record.id) {
            job.control.set_priority(priority);
        }
        match self.schedule.handle_answered(worker, Answer::Fetch { fetch_info: job.fetch_info(), more }, now)
        {
            Admission::Run { protected } => {
                actions.tasks.push((worker, self.run(worker, job, protected, now)));
            }
            Admission::Waits => self.keep(job, true, now, actions),
            Admission::Refused => self.keep(job, false, now, actions),
        }
    }

    /// Ends all that waits.
    fn stop(&mut self, now: Instant, actions: &mut Actions) {
        self.stopped = true;
        actions.signal = true;
        actions.watch = true;
        // What runs was cancelled with the root token, before this message.
        let waiting: Vec<RequestId> = self.jobs.keys().copied().collect();
        for request in waiting {
            self.schedule.handle_cancelled(request, now);
            self.end(request, actions);
        }
    }

    /// Removes a peer. Its fetches that wait end.
    pub(super) fn unregister(&mut self, peer: PeerKey, now: Instant, actions: &mut Actions) {
        // First: what is still in the channel would never be taken out, and its callers would wait forever.
        self.take_submitted(peer, now, actions);
        self.lent.remove(&peer);
        for request in self.schedule.handle_unregistered(peer, now) {
            self.end(request, actions);
        }
        actions.peers.extend(self.peers.remove(&peer).map(|(entry, _)| entry));
    }

    fn set_assigned(&mut self, worker: WorkerId, assigned: Option<Assigned>) {
        // The numbers of lent workers follow those of the pool.
        if worker >= self.assigned.len() {
            self.assigned.resize(worker + 1, None);
        }
        self.assigned[worker] = assigned;
        while self.assigned.last().is_some_and(Option::is_none)
            && self.schedule.is_lent(self.assigned.len() - 1)
        {
            self.assigned.pop();
        }
    }

    /// Records that `worker` runs `job` from now on.
    fn set_running(&mut self, worker: WorkerId, job: &Job, now: Instant) {
        self.set_assigned(worker, Some(Assigned::Fetch(Arc::clone(&job.control))));
        if job.control.mark_started() {
            if self.slow.len() >= self.slow_limit {
                // The first one still runs; most of those behind it have ended.
                self.slow.retain(|(_, control)| control.strong_count() > 0);
                self.slow_limit = MIN_SLOW_LIMIT.max(2 * self.slow.len());
            }
            self.slow.push_back((now + self.soft_timeout, Arc::downgrade(&job.control)));
        }
    }

    /// Takes out the fetches that are slow by now.
    pub(super) fn take_slow(&mut self, now: Instant, actions: &mut Actions) {
        // All have the same limit, so they are in the order of their times.
        while let Some((at, control)) = self.slow.front() {
            if *at > now && control.strong_count() > 0 {
                return;
            }
            let control = self.slow.pop_front().and_then(|(_, control)| control.upgrade());
            // One that has ended meanwhile publishes nothing, and is dropped without the lock.
            actions.slow.extend(control);
        }
    }

    fn promote(&mut self, request: RequestId, priority: Priority, now: Instant, actions: &mut Actions) {
        self.schedule.promote(request, priority, now);
        match self.jobs.get_mut(&request) {
            Some(job) => job.control.set_priority(priority),
            None => {
                let mut assigned = self.assigned.iter().flatten().filter_map(Assigned::control);
                match assigned.find(|control| control.request == request) {
                    Some(control) => {
                        control.set_priority(priority);
                        actions.urgent |= priority == Priority::High;
                    }
                    // A worker may have got it from its peer just now, and not have reported it yet.
                    None if self.is_asking() => self.promote_early(request, priority),
                    None => {}
                }
            }
        }
    }

    fn promote_early(&mut self, request: RequestId, priority: Priority) {
        self.early.insert(request, priority);
        if self.early.len() > MAX_EARLY {
            // The oldest fetch is the most likely to have ended.
            self.early.pop_first();
        }
    }

    /// True while a worker asks a peer.
    pub(super) fn is_asking(&self) -> bool {
        self.assigned.iter().flatten().any(|assigned| matches!(assigned, Assigned::Asking { .. }))
    }

    /// Takes all that is in the peer's channel.
    fn take_submitted(&mut self, peer: PeerKey, now: Instant, actions: &mut Actions) {
        let Some(channel) = self.peers.get(&peer).map(|(_, channel)| Arc::clone(channel)) else { return };
        for job in channel.take_all() {
            self.handle_submitted(peer, job, now, actions);
        }
    }

    /// Gives a fetch of `peer` to a worker, or queues it, or ends it if the peer is gone.
    fn handle_submitted(&mut self, peer: PeerKey, job: Box<Job>, now: Instant, actions: &mut Actions) {
        let fetch_info = job.fetch_info();
        let may_run = !self.stopped && !job.token.is_cancelled();
        let worker = if may_run { self.schedule.try_run(peer, fetch_info, now) } else { None };
        if let Some(worker) = worker {
            return actions.tasks.push((worker, self.run(worker, job, false, now)));
        }
        let accepted = !self.stopped && self.schedule.handle_submitted(peer, fetch_info, now);
        self.keep(job, accepted, now, actions);
    }

    /// The task to run `job`, which `worker` has from now on.
    fn run(&mut self, worker: WorkerId, job: Box<Job>, protected: bool, now: Instant) -> Task {
        job.control.begin(protected, now);
        self.set_running(worker, &job, now);
        Task::Run(job)
    }

    /// Keeps a job that waits in the schedule, if it `waits`. Ends one that does not, and one that was cancelled earlier.
    fn keep(&mut self, job: Box<Job>, waits: bool, now: Instant, actions: &mut Actions) {
        let request = job.record.id;
        let reason = job.token.reason();
        self.jobs.insert(request, job);
        if waits && reason.is_none() && !self.stopped {
            return;
        }
        // The cancel of a job that was cancelled earlier found nothing to take out.
        self.schedule.handle_cancelled(request, now);
        self.end(request, actions);
    }

    fn end(&mut self, request: RequestId, actions: &mut Actions) {
        let Some(job) = self.jobs.remove(&request) else { return };
        let gone = if self.stopped { CancelReason::Shutdown } else { CancelReason::Peer };
        let reason = job.token.reason().unwrap_or(gone);
        actions.endings.push(Ending { job, reason });
    }

    pub(super) fn assign(&mut self, now: Instant, actions: &mut Actions) {
        if self.stopped {
            actions.tasks.extend(self.schedule.retire_idle().map(|worker| (worker, Task::Stop)));
            return;
        }
        while let Some((worker, assignment)) = self.schedule.poll_assignment(now) {
            match self.task(worker, assignment, now) {
                Some(task) => actions.tasks.push((worker, task)),
                // Its job or its peer is gone: there is nothing to run.
                None => self.schedule.handle_finished(worker, now),
            }
        }
        self.assign_lent(now, actions);
    }

    fn lend(&mut self, peer: PeerKey, thread: Weak<LentThread>) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let threads = self.lent.entry(peer).or_default();
        // Forgets those whose reader has continued. By their weak count: an upgrade could make this the last reference, whose drop
        // runs code of the reader.
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(thread);
        self.schedule.set_lent(peer, true);
    }

    /// Gives urgent work that found no worker to threads that blocked readers of its peer lend.
    fn assign_lent(&mut self, now: Instant, actions: &mut Actions) {
        while let Some(peer) = self.schedule.next_lent() {
            let Some(thread) = self.lent.get_mut(&peer).and_then(Vec::pop) else {
                self.lent.remove(&peer);
                self.schedule.set_lent(peer, false);
                continue;
            };
            let Some(thread) = thread.upgrade() else { continue };
            if !thread.is_free() {
                // This may be the last reference, whose drop runs code of the reader: not under the lock of the machine.
                actions.threads.push(thread);
                continue;
            }
            // The schedule has named the peer because this work is queued, and urgent work is never blocked on its origin.
            let Some((worker, assignment)) = self.schedule.assign_lent(peer, now) else {
                debug_assert!(false, "no urgent work of the peer that has some");
                self.lent.entry(peer).or_default().push(Arc::downgrade(&thread));
                actions.threads.push(thread);
                return;
            };
            match self.task(worker, assignment, now) {
                Some(task) => actions.lent.push((thread, worker, task)),
                None => {
                    self.schedule.handle_finished(worker, now);
                    actions.threads.push(thread);
                }
            }
        }
    }

    /// Lets prefetches make room for urgent work that found no worker. Returns how many should at their next chunk, and aborts those
    /// that had enough time for that. `claimed` of them are about to make room.
    pub(super) fn preempt(&mut self, now: Instant, claimed: usize, actions: &mut Actions) -> usize {
        let assigned = &self.assigned;
        let get = |worker: WorkerId| assigned.get(worker).and_then(Option::as_ref);
        let moved = |worker: WorkerId| get(worker).map(Assigned::moved);
        // First: a worker that is freed by an abort is not asked for at a chunk.
        while let Some(worker) = self.schedule.poll_abort(now, claimed, moved) {
            actions.aborts.extend(get(worker).and_then(Assigned::control).cloned());
        }
        while let Some(origin) = self.schedule.poll_reserved() {
            self.close_bodies(origin, actions);
        }
        self.schedule.poll_preemptions(now)
    }

    /// Closes the open bodies of the fetches of an origin that wait.
    fn close_bodies(&mut self, origin: Origin, actions: &mut Actions) {
        // Also of those that were promoted meanwhile: they may wait for the very worker whose fetch waits for their connection.
        for (request, job) in self.jobs.iter_mut().filter(|(_, job)| job.origin() == origin) {
            if let Some(body) = job.take_body() {
                actions.bodies.push(*body);
                self.schedule.handle_body_closed(*request);
            }
        }
    }

    /// True if something is on a worker or waits for one.
    pub(super) fn is_pending(&self) -> bool {
        self.schedule.has_queued() || self.assigned.iter().any(Option::is_some)
    }

    /// Wakes the scheduler thread if the next deadline is earlier than the one that it knows.
    pub(super) fn set_alarm(&mut self, now: Instant, actions: &mut Actions) {
        let slow = self.slow.front().map(|(at, _)| *at);
        let due = [self.schedule.next_deadline(now), slow].into_iter().flatten().min();
        // A later time needs no wake-up: when the earlier one comes, the scheduler thread looks again.
        if !self.stopped && due.is_some_and(|due| self.alarm.is_none_or(|alarm| due < alarm)) {
            self.alarm = due;
            actions.signal = true;
        }
    }

    /// The task for an assignment. `None` if what it names is gone.
    fn task(&mut self, worker: WorkerId, assignment: Assignment, now: Instant) -> Option<Task> {
        match assignment {
            Assignment::Run { request, protected } => {
                let job = self.jobs.remove(&request)?;
                Some(self.run(worker, job, protected, now))
            }
            Assignment::Ask { peer, admissible } => {
                let (entry, _) = self.peers.get(&peer)?;
                let question = Question { entry: Arc::clone(entry), admissible };
                self.set_assigned(worker, Some(Assigned::Asking { since: now }));
                Some(Task::Ask(question))
            }
        }
    }
}
