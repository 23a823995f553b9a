//! The state that all threads share: the [`Schedule`], the jobs that wait in it, and what each worker has. Applies messages and
//! says what has to be done; does none of it itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::control::Control;
use super::job::Job;
use super::lend::LentThread;
use super::message::{Asked, Channel, Message, PeerEntry, Task};
use crate::cancel::CancelReason;
use crate::client;
use crate::downloader::schedule::{
    Admission, Answer, Assignment, PeerKey, Preemption, Requeued, Schedule, WorkerId,
};
use crate::types::{Priority, RequestId};

/// The state behind the turnstile: the schedule, and what it speaks of.
pub(crate) struct Machine {
    pub(super) schedule: Schedule,
    pub(super) peers: HashMap<PeerKey, (Arc<PeerEntry>, Arc<Channel>)>,
    /// The jobs that wait, exactly those that wait in the schedule.
    pub(super) jobs: HashMap<RequestId, Box<Job>>,
    /// What each busy worker has, as far as others may have a say in it.
    pub(super) assigned: Vec<Option<Assigned>>,
    /// The threads that blocked readers of a peer lend, as far as they have no task. Some may have gone on without one.
    pub(super) lent: HashMap<PeerKey, Vec<Weak<LentThread>>>,
    /// Priorities given to fetches that are not known. One that a peer is about to give may be among them: its sink and the
    /// subscribers know its id first. Empty while no peer is being asked.
    pub(super) early: HashMap<RequestId, Priority>,
    /// When each fetch that was taken up is told as slow, unless it has ended. In the order of the times; the first one has
    /// not ended, as far as was known after the last turn.
    /// Weak, or a peer's events would go on until what began before its last fetch is slow.
    pub(super) slow: VecDeque<(Instant, Weak<Control>)>,
    /// When it is that long, it is looked through for others that have ended.
    pub(super) slow_most: usize,
    /// The watchdog looks again by itself. Else it sleeps until a worker gets something to do.
    pub(super) watched: bool,
    /// When the scheduler thread will wake by itself.
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
}

/// What is to be done after a turn.
#[derive(Default)]
pub(super) struct Actions {
    pub(super) tasks: Vec<(WorkerId, Task)>,
    /// Tasks for lent threads.
    pub(super) lent: Vec<(Arc<LentThread>, WorkerId, Task)>,
    pub(super) endings: Vec<Ending>,
    /// To be dropped outside the turn: foreign code.
    pub(super) peers: Vec<Arc<PeerEntry>>,
    /// To be dropped outside the turn: what wakes them is foreign here.
    pub(super) threads: Vec<Arc<LentThread>>,
    /// To be dropped outside the turn, for that closes a connection.
    pub(super) bodies: Vec<client::Response>,
    /// To be closed: none of them has yielded in time.
    pub(super) aborts: Vec<Arc<Control>>,
    pub(super) slow: Vec<Arc<Control>>,
    /// A fetch that runs has become urgent: it may be hedged now.
    pub(super) urgent: bool,
    pub(super) signal: bool,
    pub(super) watch: bool,
}

/// A job that ends without having run to its end.
pub(super) struct Ending {
    pub(super) job: Box<Job>,
    pub(super) reason: CancelReason,
}

impl Assigned {
    fn control(&self) -> Option<&Arc<Control>> {
        match self {
            Self::Fetch(control) => Some(control),
            Self::Asking { .. } => None,
        }
    }

    /// When it gave its last sign of life.
    pub(super) fn moved(&self) -> Instant {
        match self {
            Self::Fetch(control) => control.moved(),
            Self::Asking { since } => *since,
        }
    }

    /// What it is and how it is getting on.
    pub(crate) fn describe(&self, now: Instant) -> String {
        match self {
            Self::Fetch(control) => control.describe(now),
            Self::Asking { since } => {
                format!("a peer asked for work {:?} ago", now.saturating_duration_since(*since))
            }
        }
    }
}

impl Machine {
    pub(super) fn handle(&mut self, message: Message, now: Instant, actions: &mut Actions) {
        match message {
            Message::Submitted(peer) => self.drain(peer, now, actions),
            Message::Woken(peer, priority) => self.schedule.handle_woken(peer, priority, now),
            Message::NotAsked(worker) => {
                self.assigned[worker] = None;
                self.schedule.handle_not_asked(worker, now);
            }
            Message::Answered(worker, answer) => {
                self.assigned[worker] = None;
                self.schedule.handle_answered(worker, answer, now);
            }
            Message::Fetched(worker, job, more) => self.fetched(worker, job, more, now, actions),
            Message::Finished(worker) => {
                self.assigned[worker] = None;
                self.schedule.handle_finished(worker, now);
            }
            Message::Fruitless(worker, why) => {
                self.assigned[worker] = None;
                self.schedule.handle_fruitless(worker, why, now);
            }
            Message::Retry(worker, job, at) => {
                self.assigned[worker] = None;
                let kept = self.schedule.handle_retry(worker, at, now);
                self.keep(job, kept, now, actions);
            }
            Message::Preempted(worker, mut job, _) => {
                self.assigned[worker] = None;
                // A body that a reader has left is no preempted one, of which only some may stay open.
                let has_body = job.has_body() && !self.schedule.is_lent(worker);
                let how = Preemption { has_body, had_share: job.control.had_share() };
                let requeued = self.schedule.handle_preempted(worker, how, now);
                if requeued == Requeued::Aborted {
                    actions.bodies.extend(job.take_body().map(|body| *body));
                }
                self.keep(job, requeued != Requeued::Refused, now, actions);
            }
            Message::Cancelled(request) => {
                if self.schedule.handle_cancelled(request, now) {
                    self.end(request, actions);
                }
            }
            Message::PeerCancelled(peer) => self.schedule.handle_peer_cancelled(peer),
            Message::Prioritised(peer, priority) => self.schedule.set_priority(peer, priority),
            Message::Promoted(request, priority) => self.promote(request, priority, now, actions),
            Message::Lent(peer, thread) => self.lend(peer, thread),
            Message::Interrupted(peer) => {
                let lent = self.schedule.lent_workers_of(peer);
                let controls = lent.filter_map(|worker| self.assigned.get(worker)?.as_ref()?.control());
                actions.aborts.extend(controls.cloned());
            }
            Message::Due => self.alarm = None,
            Message::Stopped => {
                self.stopped = true;
                actions.signal = true;
                actions.watch = true;
                let waiting: Vec<RequestId> = self.jobs.keys().copied().collect();
                for request in waiting {
                    self.schedule.handle_cancelled(request, now);
                    self.end(request, actions);
                }
            }
            Message::Left => {
                self.workers_left -= 1;
                actions.signal = true;
            }
        }
    }

    /// A peer gave a fetch: the worker that asked runs it, or it waits.
    fn fetched(&mut self, worker: WorkerId, job: Box<Job>, more: bool, now: Instant, actions: &mut Actions) {
        self.assigned[worker] = None;
        if let Some(priority) = self.early.remove(&job.record.id) {
            job.control.set_priority(priority);
        }
        match self.schedule.handle_answered(worker, Answer::Fetch { fetch_info: job.fetch_info(), more }, now)
        {
            Admission::Run { protected } => {
                job.control.begin(protected);
                self.stand_up(worker, &job, now);
                actions.tasks.push((worker, Task::Run(job)));
            }
            Admission::Waits => self.keep(job, true, now, actions),
            Admission::Refused => self.keep(job, false, now, actions),
        }
    }

    /// Forgets a peer; what it had waiting ends.
    pub(super) fn unregister(&mut self, peer: PeerKey, now: Instant, actions: &mut Actions) {
        self.drain(peer, now, actions);
        self.lent.remove(&peer);
        for request in self.schedule.handle_unregistered(peer, now) {
            self.end(request, actions);
        }
        actions.peers.extend(self.peers.remove(&peer).map(|(entry, _)| entry));
    }

    /// Notes that `worker` runs `job` from now on.
    fn stand_up(&mut self, worker: WorkerId, job: &Job, now: Instant) {
        self.assigned[worker] = Some(Assigned::Fetch(Arc::clone(&job.control)));
        if job.control.take_up() {
            if self.slow.len() >= self.slow_most {
                // The first one runs on, and those behind it have ended, most of them.
                self.slow.retain(|(_, control)| control.strong_count() > 0);
                self.slow_most = 64.max(2 * self.slow.len());
            }
            self.slow.push_back((now + self.soft_timeout, Arc::downgrade(&job.control)));
        }
    }

    /// Tells of the fetches that have taken long.
    pub(super) fn tell_slow(&mut self, now: Instant, actions: &mut Actions) {
        while let Some((at, control)) = self.slow.front() {
            if *at > now && control.strong_count() > 0 {
                return;
            }
            let control = self.slow.pop_front().and_then(|(_, control)| control.upgrade());
            // One that has ended meanwhile publishes nothing, and is dropped outside the turn.
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
                    None if self.is_asking() => drop(self.early.insert(request, priority)),
                    None => {}
                }
            }
        }
    }

    /// True while a worker asks a peer.
    pub(super) fn is_asking(&self) -> bool {
        self.assigned.iter().flatten().any(|assigned| matches!(assigned, Assigned::Asking { .. }))
    }

    /// Takes in all that is in the peer's channel.
    fn drain(&mut self, peer: PeerKey, now: Instant, actions: &mut Actions) {
        let Some(channel) = self.peers.get(&peer).map(|(_, channel)| Arc::clone(channel)) else { return };
        for job in channel.take_all() {
            let accepted = !self.stopped && self.schedule.handle_submitted(peer, job.fetch_info(), now);
            self.keep(job, accepted, now, actions);
        }
    }

    /// Keeps a job that waits in the schedule. One that was cancelled before it got here, when there was nothing yet to
    /// take out, ends.
    fn keep(&mut self, job: Box<Job>, waits: bool, now: Instant, actions: &mut Actions) {
        let request = job.record.id;
        let reason = job.token.reason();
        self.jobs.insert(request, job);
        if waits && reason.is_none() && !self.stopped {
            return;
        }
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
        // Those that have gone on, or are about to. One that is being dropped is not dropped here: `wake` is its owner's.
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(thread);
        self.schedule.set_lent(peer, true);
    }

    /// Gives the urgent work that found no worker to the blocked readers of its peers.
    fn assign_lent(&mut self, now: Instant, actions: &mut Actions) {
        while let Some(peer) = self.schedule.next_lent() {
            let Some(thread) = self.lent.get_mut(&peer).and_then(Vec::pop) else {
                self.lent.remove(&peer);
                self.schedule.set_lent(peer, false);
                continue;
            };
            let Some(thread) = thread.upgrade() else { continue };
            if !thread.is_free() {
                actions.threads.push(thread);
                continue;
            }
            let Some((worker, assignment)) = self.schedule.assign_lent(peer, now) else {
                self.lent.entry(peer).or_default().push(Arc::downgrade(&thread));
                actions.threads.push(thread);
                continue;
            };
            self.assigned.resize(self.assigned.len().max(worker + 1), None);
            match self.task(worker, assignment, now) {
                Some(task) => actions.lent.push((thread, worker, task)),
                None => {
                    self.schedule.handle_finished(worker, now);
                    actions.threads.push(thread);
                }
            }
        }
    }

    /// Makes Low bodies yield to urgent work that found no worker. Returns how many should, at their next chunk; those
    /// that had time enough are closed. `preempting` of them are on their way.
    pub(super) fn preempt(&mut self, now: Instant, preempting: usize, actions: &mut Actions) -> usize {
        let assigned = &self.assigned;
        let moved = |worker: WorkerId| assigned[worker].as_ref().map(Assigned::moved);
        while let Some(worker) = self.schedule.poll_abort(now, preempting, moved) {
            actions.aborts.extend(assigned[worker].as_ref().and_then(Assigned::control).cloned());
        }
        self.schedule.poll_preemptions(now)
    }

    /// True if something is on a worker or waits for one.
    pub(super) fn is_pending(&self) -> bool {
        self.schedule.has_queued() || self.assigned.iter().any(Option::is_some)
    }

    pub(super) fn set_alarm(&mut self, now: Instant, actions: &mut Actions) {
        let slow = self.slow.front().map(|(at, _)| *at);
        let due = [self.schedule.next_deadline(now), slow].into_iter().flatten().min();
        if !self.stopped && due.is_some_and(|due| self.alarm.is_none_or(|alarm| due < alarm)) {
            self.alarm = due;
            actions.signal = true;
        }
    }

    fn task(&mut self, worker: WorkerId, assignment: Assignment, now: Instant) -> Option<Task> {
        match assignment {
            Assignment::Run { request, protected } => {
                let job = self.jobs.remove(&request)?;
                job.control.begin(protected);
                self.stand_up(worker, &job, now);
                Some(Task::Run(job))
            }
            Assignment::Ask { peer, admissible } => {
                let (entry, _) = self.peers.get(&peer)?;
                self.assigned[worker] = Some(Assigned::Asking { since: now });
                Some(Task::Ask(Asked { entry: Arc::clone(entry), admissible }))
            }
        }
    }
}
