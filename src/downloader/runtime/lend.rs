//! A blocked reader lends its thread: while no worker is free, it runs its own urgent fetch (the caller-runs policy of thread
//! pools).
//!
//! The pool stays small, so that prefetches do not crowd the network. But urgent fetches would queue behind each other then: a
//! hundred readers that open a file each, or thirty whose servers are slow. Each of them has a thread that is blocked anyway.
//!
//! ```text
//!  blocked reader                              machine
//!  Core::lend ──────── Message::Lent ─────────▶ is no worker idle, and does urgent work of its peer wait?
//!      ▲ wakes ◀────── give: (worker, task) ──── yes: the work gets a worker number above those of the pool
//!  Lent::run: ask or attempt, at most while
//!  a reader waits for the bytes ── message ───▶ finished, retry, preempted: as from any worker
//! ```
//!
//! A fetch that is left when its reader has its bytes keeps its connection. It is queued as a prefetch, for a worker that becomes
//! idle, or for the same reader when it blocks again. Meanwhile the kernel receives what the server sends.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::control::Control;
use super::core::Core;
use super::message::{Message, Task};
use super::worker::run_task;
use crate::downloader::schedule::{PeerKey, WorkerId};

/// A thread that is lent, as the machine sees it.
pub(crate) struct LentThread {
    state: Mutex<State>,
    /// Wakes the thread, which is blocked on something of its owner's.
    wake: Box<dyn Fn() + Send + Sync>,
}

enum State {
    /// The machine may give it a task, once.
    Free,
    /// To be run, or to be given back.
    Given(WorkerId, Task),
    /// It has taken its task, or takes none any more.
    Closed,
}

impl LentThread {
    /// True if it still takes a task.
    pub(super) fn is_free(&self) -> bool {
        matches!(*self.state.lock(), State::Free)
    }

    /// Gives it a task to run as `worker`, and wakes it. Returns the task if the thread has gone on without one.
    pub(super) fn give(&self, worker: WorkerId, task: Task) -> Result<(), Task> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Free) {
            return Err(task);
        }
        *state = State::Given(worker, task);
        drop(state);
        (self.wake)();
        Ok(())
    }

    fn take(&self) -> Option<(WorkerId, Task)> {
        match std::mem::replace(&mut *self.state.lock(), State::Closed) {
            State::Given(worker, task) => Some((worker, task)),
            State::Free | State::Closed => None,
        }
    }
}

/// The current thread, lent to the downloader while it is blocked. Its drop ends that.
pub(crate) struct Lent {
    core: Arc<Core>,
    thread: Arc<LentThread>,
}

impl Lent {
    /// True if the current thread should call [`run`](Self::run).
    pub(crate) fn has_task(&self) -> bool {
        matches!(*self.thread.state.lock(), State::Given(..))
    }

    /// Runs the task, if there is one. Blocks on the network while a reader waits for the bytes, until `deadline` at most, and
    /// until the peer's lent threads are [interrupted](Message::Interrupted). `is_over` says that the thread has nothing to
    /// wait for any more; it is asked before each request.
    pub(crate) fn run(self, deadline: Option<Instant>, is_over: impl Fn() -> bool) {
        let Some((worker, mut task)) = self.thread.take() else { return };
        let mut chunk = Box::default();
        loop {
            if is_over() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return self.core.give_back(worker, task);
            }
            let control = match &task {
                Task::Run(job) => Some(Arc::clone(&job.control)),
                Task::Ask(_) | Task::Stop => None,
            };
            let alarm = deadline.zip(control).map(|(at, control)| self.abort_at(at, control));
            let Some(report) = run_task(&self.core, worker, task, &mut chunk) else { return };
            drop(alarm);
            match report.send(|message| self.core.report(worker, message)) {
                Some(next) => task = next,
                None => return,
            }
        }
    }

    fn abort_at(&self, deadline: Instant, control: Arc<Control>) -> crate::client::Alarm {
        self.core.client.call_at(deadline, move || control.abort())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((worker, task)) = self.thread.take() {
            self.core.give_back(worker, task);
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

impl Core {
    /// Lends the current thread for urgent work of `peer`. Does not block. `wake` is called, on any thread and without a lock,
    /// when there is a [task](Lent::has_task).
    pub(crate) fn lend(self: Arc<Self>, peer: PeerKey, wake: impl Fn() + Send + Sync + 'static) -> Lent {
        let thread = Arc::new(LentThread { state: Mutex::new(State::Free), wake: Box::new(wake) });
        self.post(Message::Lent(peer, Arc::downgrade(&thread)));
        Lent { core: self, thread }
    }

    /// Gives back what a lent thread has not run.
    pub(super) fn give_back(&self, worker: WorkerId, task: Task) {
        match task {
            Task::Run(job) => self.post(Message::Preempted(worker, job, false)),
            Task::Ask(_) => self.post(Message::NotAsked(worker)),
            Task::Stop => {}
        }
    }
}
