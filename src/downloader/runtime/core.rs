//! Carries out what the [`Schedule`] decides: keeps the jobs that wait, gives the workers their tasks, and runs the scheduler
//! thread, which applies deadlines and ends jobs whose user code must not run on a caller's thread.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use super::combiner::{Combiner, OneShot};
use super::liveness::Observation;
use super::worker::{Control, Job};
use crate::cancel::{CancelReason, CancelToken};
use crate::client::{self, HttpClient};
use crate::config::DownloaderConfig;
use crate::downloader::bodies::OpenBodies;
use crate::downloader::peer::Peer;
use crate::downloader::schedule::{
    Admission, Answer, Assignment, Counts, Fruitless, Limits, PeerKey, Preemption, Requeued, Schedule,
    WorkerId,
};
use crate::downloader::stats::PeerStats;
use crate::foreign::{Foreign, in_callback};
use crate::types::{Priority, RequestId};

/// What all threads of a downloader share. Holds no handle whose drop would have to end them.
pub(crate) struct Core {
    pub(crate) config: DownloaderConfig,
    pub(crate) client: HttpClient,
    /// Of all peers together.
    pub(crate) stats: Arc<PeerStats>,
    /// Cancelled when the downloader stops; above all its peers' tokens.
    pub(crate) root: CancelToken,
    /// In the hands of callers and sinks.
    pub(crate) bodies: Arc<OpenBodies>,
    /// Low bodies that are to yield at their next chunk, and have not been found yet.
    preemptions: AtomicUsize,
    /// Low bodies that are about to yield: found, and the machine not told yet.
    preempting: AtomicUsize,
    next_request: AtomicU64,
    combiner: Combiner<Machine, Message>,
    /// Where each worker waits for its next task.
    slots: Vec<OneShot<Task>>,
    /// Wakes the scheduler thread.
    signal: OneShot<()>,
    /// Wakes the watchdog.
    watch_signal: OneShot<()>,
    /// Jobs that have ended and whose sinks are foreign: for the scheduler thread. `None` once that thread has ended.
    endings: Mutex<Option<Vec<Ending>>>,
}

/// What the machine is told.
pub(crate) enum Message {
    /// There is something in the peer's channel.
    Submitted(PeerKey),
    Woken(PeerKey, Priority),
    /// The peer that the worker asked gave nothing.
    Answered(WorkerId, Answer),
    /// The peer that the worker asked gave this, and maybe has more.
    Fetched(WorkerId, Box<Job>, bool),
    Finished(WorkerId),
    /// The worker's fetch was its peer's answer, and has ended without a byte.
    Fruitless(WorkerId, Fruitless),
    Retry(WorkerId, Box<Job>, Instant),
    /// The worker's Low fetch makes room for urgent work. True if it was found by `preemptions`.
    Preempted(WorkerId, Box<Job>, bool),
    Cancelled(RequestId),
    PeerCancelled(PeerKey),
    Prioritised(PeerKey, Priority),
    Promoted(RequestId, Priority),
    /// A deadline that the schedule announced has come.
    Due,
    Stopped,
    /// A worker has ended, after `Stopped`.
    Left,
}

/// What a worker is told.
pub(crate) enum Task {
    Run(Box<Job>),
    Ask(Asked),
    Stop,
}

/// A peer to be asked for a fetch.
pub(crate) struct Asked {
    pub(crate) entry: Arc<PeerEntry>,
    pub(crate) admissible: Priority,
}

/// What the machine keeps of a peer.
pub(crate) struct PeerEntry {
    /// Locked by the worker that asks. The schedule lets only one ask at a time.
    pub(crate) peer: Mutex<Foreign<Box<dyn Peer>>>,
    pub(crate) token: CancelToken,
    pub(crate) stats: Arc<PeerStats>,
}

/// The state behind the turnstile: the schedule, and what it speaks of.
pub(crate) struct Machine {
    schedule: Schedule,
    peers: HashMap<PeerKey, (Arc<PeerEntry>, Receiver<Box<Job>>)>,
    /// The jobs that wait, exactly those that wait in the schedule.
    jobs: HashMap<RequestId, Box<Job>>,
    /// What each busy worker has, as far as others may have a say in it.
    assigned: Vec<Option<Assigned>>,
    /// Priorities given to fetches that are not known. One that a peer is about to give may be among them: its sink and the
    /// subscribers know its id first. Empty while no peer is being asked.
    early: HashMap<RequestId, Priority>,
    /// When each fetch that was taken up is told as slow, unless it has ended. In the order of the times; the first one has
    /// not ended, as far as was known after the last turn.
    /// Weak, or a peer's events would go on until what began before its last fetch is slow.
    slow: VecDeque<(Instant, Weak<Control>)>,
    /// When it is that long, it is looked through for others that have ended.
    slow_most: usize,
    /// The watchdog looks again by itself. Else it sleeps until a worker gets something to do.
    watched: bool,
    /// When the scheduler thread will wake by itself.
    alarm: Option<Instant>,
    stopped: bool,
    workers_left: usize,
    soft_timeout: Duration,
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
struct Actions {
    tasks: Vec<(WorkerId, Task)>,
    endings: Vec<Ending>,
    /// To be dropped outside the turn: foreign code.
    peers: Vec<Arc<PeerEntry>>,
    /// To be dropped outside the turn, for that closes a connection.
    bodies: Vec<client::Response>,
    /// To be closed: none of them has yielded in time.
    aborts: Vec<Arc<Control>>,
    slow: Vec<Arc<Control>>,
    /// A fetch that runs has become urgent: it may be hedged now.
    urgent: bool,
    signal: bool,
    watch: bool,
}

/// A job that ends without having run to its end.
struct Ending {
    job: Box<Job>,
    reason: CancelReason,
}

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// True on windway's own threads.
pub(crate) fn on_own_thread() -> bool {
    IS_OURS.get()
}

/// Marks the current thread as one of windway's.
pub(crate) fn enter_own_thread() {
    IS_OURS.set(true);
}

impl Core {
    pub(crate) fn new(config: DownloaderConfig, client: HttpClient) -> Self {
        let workers = config.max_concurrent;
        Self {
            stats: Arc::new(PeerStats::new(config.event_capacity)),
            root: CancelToken::new(CancelReason::Shutdown),
            bodies: OpenBodies::new(config.max_open_bodies, config.client.silence_timeout),
            preemptions: AtomicUsize::new(0),
            preempting: AtomicUsize::new(0),
            next_request: AtomicU64::new(1),
            combiner: Combiner::new(Machine {
                schedule: Schedule::new(Limits {
                    workers,
                    reserved: config.effective_reserved(),
                    max_per_origin: config.max_per_origin,
                    prefetch_delay: config.prefetch_delay,
                    aging_threshold: config.aging_threshold,
                    max_preempted: config.effective_max_preempted(),
                }),
                assigned: (0..workers).map(|_| None).collect(),
                early: HashMap::new(),
                slow: VecDeque::new(),
                slow_most: 64,
                watched: false,
                peers: HashMap::new(),
                jobs: HashMap::new(),
                alarm: None,
                stopped: false,
                workers_left: workers,
                soft_timeout: config.soft_timeout,
            }),
            slots: (0..workers).map(|_| OneShot::default()).collect(),
            signal: OneShot::default(),
            watch_signal: OneShot::default(),
            endings: Mutex::new(Some(Vec::new())),
            config,
            client,
        }
    }

    pub(crate) fn next_request(&self) -> RequestId {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        RequestId::new(number).unwrap_or_else(|| unreachable!("starts at 1 and would need ages to wrap"))
    }

    /// Tells the machine `message` and carries out what follows. Never blocks on another thread.
    pub(crate) fn post(&self, message: Message) {
        self.combiner.post(
            message,
            |machine, messages| self.step(machine, messages),
            |actions| self.act(actions),
        );
    }

    fn step(&self, machine: &mut Machine, messages: &mut Vec<Message>) -> Actions {
        let mut actions = Actions::default();
        let now = Instant::now();
        for message in messages.drain(..) {
            if let Message::Preempted(.., true) = &message {
                self.preempting.fetch_sub(1, Ordering::AcqRel);
            }
            machine.handle(message, now, &mut actions);
        }
        self.decide(machine, now, &mut actions);
        actions
    }

    /// What follows from what the machine was told.
    fn decide(&self, machine: &mut Machine, now: Instant, actions: &mut Actions) {
        machine.tell_slow(now, actions);
        if !machine.early.is_empty() && !machine.is_asking() {
            // They were of fetches that have ended.
            machine.early.clear();
        }
        machine.assign(now, actions);
        let preempting = self.preempting.load(Ordering::Acquire);
        let wanted = machine.preempt(now, preempting, actions);
        self.preemptions.store(wanted.saturating_sub(preempting), Ordering::Release);
        machine.set_alarm(now, actions);
        if !machine.watched && machine.is_pending() {
            machine.watched = true;
            actions.watch = true;
        }
    }

    /// True if a running Low body is to yield.
    pub(crate) fn must_preempt(&self) -> bool {
        self.preemptions.load(Ordering::Relaxed) > 0
    }

    /// True if a running Low body is to yield, and the one that asks is taken for it.
    pub(crate) fn claim_preemption(&self) -> bool {
        self.preempting.fetch_add(1, Ordering::AcqRel);
        let claimed = self
            .preemptions
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |wanted| wanted.checked_sub(1))
            .is_ok();
        if !claimed {
            self.preempting.fetch_sub(1, Ordering::AcqRel);
        }
        claimed
    }

    /// Tells the machine that `request` lies in `peer`'s channel. If it was assigned to a worker at once, by this very
    /// thread, the caller gets it instead of the worker, to run it in that worker's place: the worker sleeps on, and two
    /// hand-offs are saved.
    pub(crate) fn submit(&self, peer: PeerKey, request: RequestId) -> Option<(WorkerId, Box<Job>)> {
        let mut claimed = None;
        let step = |machine: &mut Machine, messages: &mut Vec<Message>| self.step(machine, messages);
        self.combiner.post_and_combine(Message::Submitted(peer), step, |mut actions| {
            let is_own = |task: &Task| matches!(task, Task::Run(job) if job.record.id == request);
            if let Some(index) = actions.tasks.iter().position(|(_, task)| is_own(task)) {
                if let (worker, Task::Run(job)) = actions.tasks.swap_remove(index) {
                    claimed = Some((worker, job));
                }
            }
            self.act(actions);
        });
        claimed
    }

    /// Tells the machine what `worker` has to say, and returns the worker's next task. Blocks until there is one.
    pub(crate) fn next_task(&self, worker: WorkerId, message: Message) -> Task {
        let mut own = None;
        let step = |machine: &mut Machine, messages: &mut Vec<Message>| self.step(machine, messages);
        self.combiner.post_and_combine(message, step, |mut actions| {
            if let Some(index) = actions.tasks.iter().position(|(to, _)| *to == worker) {
                own = Some(actions.tasks.swap_remove(index).1);
            }
            self.act(actions);
        });
        own.unwrap_or_else(|| self.take_task(worker))
    }

    /// Adds a peer. `None` once the downloader has stopped.
    pub(crate) fn register(
        &self,
        entry: Arc<PeerEntry>,
        channel: Receiver<Box<Job>>,
        priority: Priority,
    ) -> Option<PeerKey> {
        self.with(|machine| {
            if machine.stopped {
                return None;
            }
            let key = machine.schedule.handle_registered(priority);
            machine.peers.insert(key, (entry, channel));
            Some(key)
        })
    }

    /// Frees a peer. It is gone when this returns, unless a worker is asking it just now.
    pub(crate) fn unregister(&self, peer: PeerKey) {
        let actions = self.with(|machine| {
            let (now, mut actions) = (Instant::now(), Actions::default());
            machine.unregister(peer, now, &mut actions);
            self.decide(machine, now, &mut actions);
            actions
        });
        self.act(actions);
    }

    /// Counts of what waits and what runs.
    pub(crate) fn counts(&self) -> Counts {
        self.with(|machine| machine.schedule.counts())
    }

    /// The next task of `worker`, which has nothing to say. Blocks until there is one.
    pub(crate) fn take_task(&self, worker: WorkerId) -> Task {
        self.slots[worker].take()
    }

    fn with<T>(&self, look: impl FnOnce(&mut Machine) -> T) -> T {
        let step = |machine: &mut Machine, messages: &mut Vec<Message>| self.step(machine, messages);
        self.combiner.with(look, step, |actions| self.act(actions))
    }

    fn act(&self, actions: Actions) {
        for (worker, task) in actions.tasks {
            self.slots[worker].put(task);
        }
        for control in actions.aborts {
            control.abort();
        }
        for control in actions.slow {
            control.tell_slow();
        }
        if actions.urgent {
            self.client.recheck_urgency();
        }
        if actions.watch {
            self.watch_signal.put(());
        }
        let mut signal = actions.signal;
        for ending in actions.endings {
            // Not within a callback: one that holds a lock of its user's would be called into by another that takes it.
            if !ending.job.is_foreign() || (on_own_thread() && !in_callback()) {
                ending.job.end_cancelled(ending.reason);
                continue;
            }
            let mut endings = self.endings.lock();
            match &mut *endings {
                Some(endings) => {
                    endings.push(ending);
                    signal = true;
                }
                None => {
                    // The downloader has stopped. Only the caller of `execute` or of a batch comes here, never in a callback,
                    // and would wait forever for a thread that has ended.
                    drop(endings);
                    ending.job.end_cancelled(ending.reason);
                }
            }
        }
        if signal {
            self.signal.put(());
        }
        drop((actions.peers, actions.bodies));
    }

    /// What the watchdog sees, and what the workers have. `None` once the downloader has stopped.
    pub(crate) fn watch(&self) -> Option<(Observation, Vec<Option<Assigned>>)> {
        let (observation, assigned) = self.with(|machine| {
            machine.watched = machine.is_pending();
            let overlooked = machine.schedule.is_overlooking(Instant::now());
            let observation = Observation { workers: Vec::new(), overlooked, pending: machine.watched };
            (!machine.stopped).then(|| (observation, machine.assigned.clone()))
        })?;
        let workers = assigned.iter().map(|assigned| assigned.as_ref().map(Assigned::moved)).collect();
        Some((Observation { workers, ..observation }, assigned))
    }

    /// Blocks the watchdog until `deadline`, or until something is to be done while nothing is watched.
    pub(crate) fn wait_to_watch(&self, deadline: Option<Instant>) {
        self.watch_signal.take_until(deadline);
    }

    /// The scheduler thread. Returns when the downloader has stopped and its workers have ended.
    pub(crate) fn run_scheduler(&self) {
        enter_own_thread();
        loop {
            let ready = self.endings.lock().as_mut().map(std::mem::take);
            for ending in ready.into_iter().flatten() {
                ending.job.end_cancelled(ending.reason);
            }
            let (alarm, over) =
                self.with(|machine| (machine.alarm, machine.stopped && machine.workers_left == 0));
            if over {
                let mut endings = self.endings.lock();
                // One look and one step: what is pushed between the two would never be ended.
                if endings.as_ref().is_none_or(Vec::is_empty) {
                    *endings = None;
                    return;
                }
                continue;
            }
            if self.signal.take_until(alarm).is_none() {
                self.post(Message::Due);
            }
        }
    }
}

impl Assigned {
    fn control(&self) -> Option<&Arc<Control>> {
        match self {
            Self::Fetch(control) => Some(control),
            Self::Asking { .. } => None,
        }
    }

    /// When it gave its last sign of life.
    fn moved(&self) -> Instant {
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
    fn handle(&mut self, message: Message, now: Instant, actions: &mut Actions) {
        match message {
            Message::Submitted(peer) => self.drain(peer, now, actions),
            Message::Woken(peer, priority) => self.schedule.handle_woken(peer, priority, now),
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
                let how = Preemption { has_body: job.has_body(), had_share: job.control.had_share() };
                let requeued = self.schedule.handle_preempted(worker, how, now);
                if requeued == Requeued::Aborted {
                    actions.bodies.extend(job.take_body());
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
    fn unregister(&mut self, peer: PeerKey, now: Instant, actions: &mut Actions) {
        self.drain(peer, now, actions);
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
    fn tell_slow(&mut self, now: Instant, actions: &mut Actions) {
        while let Some((at, control)) = self.slow.front() {
            if *at > now && control.strong_count() > 0 {
                return;
            }
            let control = self.slow.pop_front().and_then(|(_, control)| control.upgrade());
            // One that has ended meanwhile says nothing, and is dropped outside the turn.
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
    fn is_asking(&self) -> bool {
        self.assigned.iter().flatten().any(|assigned| matches!(assigned, Assigned::Asking { .. }))
    }

    /// Takes in all that is in the peer's channel.
    fn drain(&mut self, peer: PeerKey, now: Instant, actions: &mut Actions) {
        let Some((_, channel)) = self.peers.get(&peer) else { return };
        let submitted: Vec<Box<Job>> = channel.try_iter().collect();
        for job in submitted {
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

    fn assign(&mut self, now: Instant, actions: &mut Actions) {
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
    }

    /// Makes Low bodies yield to urgent work that found no worker. Returns how many should, at their next chunk; those
    /// that had time enough are closed. `preempting` of them are on their way.
    fn preempt(&mut self, now: Instant, preempting: usize, actions: &mut Actions) -> usize {
        let assigned = &self.assigned;
        let moved = |worker: WorkerId| assigned[worker].as_ref().map(Assigned::moved);
        while let Some(worker) = self.schedule.poll_abort(now, preempting, moved) {
            actions.aborts.extend(assigned[worker].as_ref().and_then(Assigned::control).cloned());
        }
        self.schedule.poll_preemptions(now)
    }

    /// True if something is on a worker or waits for one.
    fn is_pending(&self) -> bool {
        self.schedule.has_queued() || self.assigned.iter().any(Option::is_some)
    }

    fn set_alarm(&mut self, now: Instant, actions: &mut Actions) {
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

#[cfg(test)]
mod tests {
    use crate::config::DownloaderConfig;
    use crate::downloader::{Downloader, Fetch};
    use crate::types::Priority;

    #[test]
    fn what_callers_have_read_leaves_nothing_behind() {
        let downloader = Downloader::hollow(DownloaderConfig::default()).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        for _ in 0..1000 {
            drop(peer.execute(Fetch::get("http://example.com/").unwrap()).unwrap());
        }
        // The last one has ended since the last turn.
        let left = || downloader.0.core.with(|machine| machine.slow.len());
        assert!(left() <= 1);
        // Nor what comes behind one that runs on.
        let _open = peer.execute(Fetch::get("http://example.com/").unwrap()).unwrap();
        for _ in 0..1000 {
            drop(peer.execute(Fetch::get("http://example.com/").unwrap()).unwrap());
        }
        assert!(left() <= 64);
    }
}
