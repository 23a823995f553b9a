//! What all threads of a downloader share: the machine behind its combiner, and what wakes each thread. Carries out what the
//! machine answers.

#[cfg(feature = "hls")]
use std::any::{Any, TypeId};
#[cfg(feature = "hls")]
use std::collections::HashMap;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::combiner::Combiner;
use super::duty::{Duty, Shift};
use super::job::Job;
use super::liveness::{LivenessMonitor, Observation};
use super::machine::{Actions, Assigned, Ending, Machine};
use super::message::{Channel, Message, Report};
use super::one_shot::OneShot;
use super::preemption::Preemptions;
use super::task::{PeerEntry, Task};
use super::task_queue::{Announced, TaskQueue};
use crate::cancel::{CancelReason, CancelToken};
use crate::client::HttpClient;
use crate::config::DownloaderConfig;
use crate::downloader::bodies::OpenBodies;
use crate::downloader::origins::Origins;
use crate::downloader::pacer::Pacer;
use crate::downloader::schedule::{Counts, Origin, PeerKey, WorkerId};
use crate::downloader::stats::PeerStats;
use crate::foreign::contain;
use crate::types::{Priority, RequestId};

/// What all threads of a downloader share. Holds no handle whose drop would have to end them.
pub(crate) struct Core {
    pub(crate) config: DownloaderConfig,
    pub(crate) client: HttpClient,
    /// Statistics of all peers together.
    pub(crate) stats: Arc<PeerStats>,
    /// Cancelled when the downloader stops; above all its peers' tokens.
    pub(crate) root: CancelToken,
    /// Response bodies in the hands of callers and sinks.
    pub(crate) bodies: Arc<OpenBodies>,
    /// What origins have shown about ranges.
    pub(crate) origins: Origins,
    /// See [`DownloaderConfig::max_bandwidth`].
    pub(crate) pacer: Arc<Pacer>,
    /// See [`DownloaderConfig::metered`].
    metered: AtomicBool,
    /// Values that peers share: one of each type.
    #[cfg(feature = "hls")]
    companions: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    /// An answer of an origin lets something start: without it answers need no message.
    has_unreachable: AtomicBool,
    /// For benches.
    #[cfg(feature = "bench")]
    pub(crate) never_lends: AtomicBool,
    pub(super) preemptions: Arc<Preemptions>,
    next_request: AtomicU64,
    combiner: Combiner<Machine, Message>,
    /// Tasks that no thread has taken yet.
    pub(super) tasks: TaskQueue<Task>,
    /// Wakes the scheduler thread.
    pub(super) signal: OneShot<()>,
    /// Wakes the watchdog.
    watch_signal: OneShot<()>,
    /// Jobs that have ended while they waited, and that are foreign: for the watchdog thread. `None` once that thread has ended.
    endings: Mutex<Option<VecDeque<Ending>>>,
    pub(super) duty: Duty,
    /// The threads that were started to take over the duty of the watchdog, for `stop` to join.
    pub(super) reliefs: Mutex<Vec<JoinHandle<()>>>,
    /// Shared by the threads that have had the duty, so that each stall is reported once.
    pub(super) liveness: Mutex<LivenessMonitor>,
}

impl Core {
    pub(crate) fn new(config: DownloaderConfig, client: HttpClient) -> Self {
        let workers = config.max_concurrent;
        let pacer = Arc::new(Pacer::new(config.max_bandwidth.and_then(NonZeroU64::new)));
        Self {
            stats: Arc::new(PeerStats::new(config.event_capacity, &pacer)),
            pacer,
            root: CancelToken::new(CancelReason::Shutdown),
            bodies: OpenBodies::new(config.max_open_bodies, config.client.silence_timeout),
            origins: Origins::default(),
            metered: AtomicBool::new(config.metered),
            has_unreachable: AtomicBool::new(false),
            #[cfg(feature = "hls")]
            companions: Mutex::default(),
            #[cfg(feature = "bench")]
            never_lends: AtomicBool::new(false),
            preemptions: Arc::default(),
            next_request: AtomicU64::new(1),
            combiner: Combiner::new(Machine::new(&config)),
            tasks: TaskQueue::new(workers),
            signal: OneShot::default(),
            watch_signal: OneShot::default(),
            endings: Mutex::new(Some(VecDeque::new())),
            duty: Duty::default(),
            reliefs: Mutex::default(),
            liveness: Mutex::new(LivenessMonitor::new(config.hang_timeout)),
            config,
            client,
        }
    }

    pub(crate) fn next_request(&self) -> RequestId {
        // Relaxed: ids only have to differ.
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        RequestId::new(number).unwrap_or_else(|| unreachable!("starts at 1 and would need ages to wrap"))
    }

    /// Has the machine apply `message`, and carries out what follows. Never blocks on another thread.
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
            machine.handle(message, now, &mut actions);
        }
        self.decide(machine, now, &mut actions);
        actions
    }

    /// An origin has answered: what could not connect to it is tried again.
    pub(super) fn handle_answer(&self, origin: Origin) {
        if self.has_unreachable.load(Ordering::Relaxed) {
            self.post(Message::Answered(origin));
        }
    }

    /// What follows from the messages to the machine.
    fn decide(&self, machine: &mut Machine, now: Instant, actions: &mut Actions) {
        machine.take_slow(now, actions);
        if !machine.early.is_empty() && !machine.is_asking() {
            // No peer is being asked, so no fetch with one of these ids is about to come: they have ended.
            machine.early.clear();
        }
        machine.assign(now, actions);
        self.has_unreachable.store(machine.schedule.has_unreachable(), Ordering::Relaxed);
        // After the assignment: only urgent work that found no worker preempts. `claimed` is read before the machine counts the
        // fetches that make room. A fetch that claims in between is asked for twice, which costs a chunk; in the other order
        // one preemption would be missing.
        let claimed = self.preemptions.claimed();
        let wanted = machine.preempt(now, claimed, actions);
        self.preemptions.set_wanted(wanted.saturating_sub(claimed));
        // Last, because all before it changes deadlines.
        machine.set_alarm(now, actions);
        if !machine.watched && machine.is_pending() {
            machine.watched = true;
            actions.watch = true;
        }
    }

    /// The value of this type that peers of the downloader share. Made at the first call.
    #[cfg(feature = "hls")]
    pub(crate) fn companion<T: Any + Default + Send + Sync>(&self) -> Option<Arc<T>> {
        let mut companions = self.companions.lock();
        let value = companions.entry(TypeId::of::<T>()).or_insert_with(|| Arc::<T>::default());
        Arc::clone(value).downcast().ok()
    }

    /// True if a fetch waits for a worker that others have.
    pub(crate) fn is_worker_wanted(&self) -> bool {
        self.preemptions.is_wanted()
    }

    pub(crate) fn is_metered(&self) -> bool {
        // Relaxed: no other memory depends on it.
        self.metered.load(Ordering::Relaxed)
    }

    pub(crate) fn set_metered(&self, metered: bool) {
        self.metered.store(metered, Ordering::Relaxed);
    }

    /// Announces that `request` lies in `peer`'s channel. If it was assigned to a worker at once, by this very thread, the caller
    /// gets it instead of the worker, to run it in that worker's place.
    pub(crate) fn submit(&self, peer: PeerKey, request: RequestId) -> Option<(WorkerId, Box<Job>)> {
        let mut claimed = None;
        let step = |machine: &mut Machine, messages: &mut Vec<Message>| self.step(machine, messages);
        self.combiner.post_and_combine(Message::Submitted(peer), step, |mut actions| {
            let is_own = |task: &Task| matches!(task, Task::Run(job) if job.record.id == request);
            if let Some(index) = actions.tasks.iter().position(|(_, task)| is_own(task)) {
                // The worker sleeps on, which saves two hand-offs between threads.
                if let (worker, Task::Run(job)) = actions.tasks.swap_remove(index) {
                    claimed = Some((worker, job));
                }
            }
            self.act(actions);
        });
        claimed
    }

    /// Posts what came of the task of `worker`. Returns its next task if there is one already.
    pub(super) fn report(&self, worker: WorkerId, report: Report) -> Option<Task> {
        let message = Message::FromWorker(worker, report);
        let mut own = None;
        let step = |machine: &mut Machine, messages: &mut Vec<Message>| self.step(machine, messages);
        self.combiner.post_and_combine(message, step, |mut actions| {
            if let Some(index) = actions.tasks.iter().position(|(to, _)| *to == worker) {
                own = Some(actions.tasks.swap_remove(index).1);
            }
            self.act(actions);
        });
        own
    }

    /// True if `worker` is a lent thread.
    pub(super) fn is_lent(&self, worker: WorkerId) -> bool {
        worker >= self.config.max_concurrent
    }

    /// Adds a peer. `None` once the downloader has stopped.
    pub(crate) fn register(
        &self,
        entry: Arc<PeerEntry>,
        channel: Arc<Channel>,
        priority: Priority,
    ) -> Option<PeerKey> {
        // Not a message: its answer, the key, is needed here.
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
        // Not a message, which another thread might apply later: a peer that is freed must not be asked any more.
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

    /// Gives back what a lent thread has not run.
    pub(super) fn give_back(&self, worker: WorkerId, task: Task) {
        match task {
            Task::Run(job) => {
                let report = Report::Preempted { job, claim: None };
                self.post(Message::FromWorker(worker, report));
            }
            Task::Ask(_) => self.post(Message::FromWorker(worker, Report::NotAsked)),
            Task::Stop => {}
        }
    }

    /// The next task of any worker, for the thread of the pool with this number. Blocks until there is one.
    pub(super) fn take_task(&self, thread: usize, announced: Announced) -> (WorkerId, Task) {
        self.tasks.take(thread, announced, || self.post(Message::CameBack))
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Machine) -> T) -> T {
        let step = |machine: &mut Machine, messages: &mut Vec<Message>| self.step(machine, messages);
        self.combiner.with(look, step, |actions| self.act(actions))
    }

    fn act(&self, actions: Actions) {
        let mut signal = actions.signal;
        // First, so that the threads wake while this one does the rest.
        for (worker, task) in actions.tasks {
            match self.tasks.put(worker, task) {
                Ok(is_deadline_changed) => signal |= is_deadline_changed,
                // Not without an end: at most once for each thread that is blocked.
                Err(task) => self.post(Message::Unserved(worker, task)),
            }
        }
        for (thread, worker, task) in actions.lent {
            if let Err(task) = thread.give(worker, task) {
                self.give_back(worker, task);
            }
        }
        for control in actions.aborts {
            control.abort();
        }
        for control in actions.slow {
            control.report_slow();
        }
        if actions.urgent {
            self.client.recheck_urgency();
        }
        if actions.urgent || self.preemptions.is_wanted() {
            // A prefetch that waits there may be urgent now, or has to give its worker to urgent work.
            self.pacer.recheck();
        }
        if signal {
            self.signal.put(());
        }
        let mut watch = actions.watch;
        for ending in actions.endings {
            watch |= self.end_or_defer(ending);
        }
        // After the tasks: the watchdog sleeps for `hang_timeout` from its look on, and has to see them.
        if watch {
            self.watch_signal.put(());
        }
        // Outside of the lock of the machine: their drops run code of peers and readers, and close connections.
        drop((actions.peers, actions.threads, actions.bodies));
    }

    /// Ends a job, here or on the watchdog thread. True if that thread has to do it.
    fn end_or_defer(&self, ending: Ending) -> bool {
        // Foreign code may block, and this thread may apply the messages of others: a worker has a task of its own to run, and the
        // deadlines wait for the scheduler thread. In a callback it may hold a lock of the application, too.
        if ending.job.is_foreign() {
            let mut endings = self.endings.lock();
            if let Some(endings) = &mut *endings {
                endings.push_back(ending);
                return true;
            }
            // The downloader has stopped. Only the caller of `execute` or of a batch comes here, never in a callback, and
            // would wait forever for a thread that has ended.
        }
        ending.job.end_cancelled(ending.reason);
        false
    }

    /// Ends the jobs that were deferred to the watchdog thread, which has this shift. False if it is relieved.
    pub(super) fn run_endings(&self, shift: Shift) -> bool {
        loop {
            // One at a time: if the end of this one blocks, another thread has to find the others.
            let next = self.endings.lock().as_mut().and_then(VecDeque::pop_front);
            let Some(Ending { job, reason }) = next else { return true };
            if !self.on_duty(shift, || job.end_cancelled(reason)) {
                return false;
            }
        }
    }

    /// Makes a foreign call on the watchdog thread. False if that thread was relieved, because the call took too long.
    pub(super) fn on_duty(&self, shift: Shift, call: impl FnOnce()) -> bool {
        if self.duty.enter(Instant::now()) {
            self.signal.put(());
        }
        // A logger may panic as well, and the watchdog would end.
        let _ = contain("a call of the watchdog", call);
        let is_on_duty = self.duty.leave(shift);
        if !is_on_duty {
            // Another one may be blocked, too, and could not be relieved before this one was back.
            self.signal.put(());
        }
        is_on_duty
    }

    /// The threads that were started to take over from the watchdog. None is added once the scheduler thread has ended.
    pub(crate) fn take_reliefs(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.reliefs.lock())
    }

    /// True if the downloader has stopped, its workers have ended, and no job waits for its end. Nothing is deferred from then on.
    pub(super) fn close_endings(&self) -> bool {
        if !self.is_over() {
            return false;
        }
        let mut endings = self.endings.lock();
        // One look and one step: what is pushed between the two would never be ended.
        let is_empty = endings.as_ref().is_none_or(VecDeque::is_empty);
        if is_empty {
            *endings = None;
        }
        is_empty
    }

    pub(super) fn is_over(&self) -> bool {
        self.with(|machine| machine.stopped && machine.workers_left == 0)
    }

    /// What the watchdog sees, and what the workers have. `None` once the downloader has stopped.
    pub(super) fn watch(&self) -> Option<(Observation, Vec<Option<Assigned>>)> {
        let (observation, assigned) = self.with(|machine| {
            machine.watched = machine.is_pending();
            let overlooked = machine.schedule.is_overlooking(Instant::now());
            let observation = Observation { workers: Vec::new(), overlooked, pending: machine.watched };
            (!machine.stopped).then(|| (observation, machine.assigned.clone()))
        })?;
        let workers = assigned.iter().map(|assigned| assigned.as_ref().map(Assigned::moved)).collect();
        Some((Observation { workers, ..observation }, assigned))
    }

    /// Blocks the watchdog until `deadline`, or until there is work while nothing is watched, or a job to be ended.
    pub(super) fn wait_to_watch(&self, deadline: Option<Instant>) {
        self.watch_signal.take_until(deadline);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::DownloaderConfig;
    use crate::downloader::{Downloader, Fetch};
    use crate::types::Priority;

    #[test]
    fn what_callers_have_read_leaves_nothing_behind() {
        let downloader = Downloader::without_network(DownloaderConfig::default()).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        for _ in 0..1000 {
            drop(peer.execute(Fetch::get("http://example.com/").unwrap()).unwrap());
        }
        // The last one has ended since messages were last applied.
        let left = || downloader.0.core.with(|machine| machine.slow.len());
        assert!(left() <= 1);
        // The same while one of them is still running.
        let _open = peer.execute(Fetch::get("http://example.com/").unwrap()).unwrap();
        for _ in 0..1000 {
            drop(peer.execute(Fetch::get("http://example.com/").unwrap()).unwrap());
        }
        assert!(left() <= 64);
    }
}
