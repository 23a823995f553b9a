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
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::control::Control;
use super::core::Core;
use super::lent_thread::LentThread;
use super::message::Message;
use super::task::Task;
use super::worker::run_task;
use crate::downloader::schedule::PeerKey;

/// The current thread, lent to the downloader while it is blocked. Its drop ends that.
pub(crate) struct Lent {
    core: Arc<Core>,
    thread: Arc<LentThread>,
}

impl Lent {
    /// True if the current thread should call [`run`](Self::run).
    pub(crate) fn has_task(&self) -> bool {
        self.thread.has_task()
    }

    /// For another thread, to end what the current one runs.
    pub(crate) fn interrupter(&self) -> LentInterrupter {
        LentInterrupter(Arc::downgrade(&self.thread))
    }

    /// Runs the task, if there is one. Blocks on the network while a reader waits for the bytes, until `deadline` at most, and
    /// until it is [interrupted](LentInterrupter). `is_over` means that the thread has nothing to wait for any more; it is asked
    /// before each request.
    pub(crate) fn run(self, deadline: Option<Instant>, is_over: impl Fn() -> bool) {
        let Some((worker, mut task)) = self.thread.take() else { return };
        let mut chunk = Box::default();
        loop {
            let control = match &task {
                Task::Run(job) => Some(Arc::clone(&job.control)),
                Task::Ask(_) | Task::Stop => None,
            };
            // Before the look: an interrupt from now on aborts the fetch, and the look finds an earlier one.
            self.thread.set_running(control.clone());
            if is_over() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.thread.set_running(None);
                return self.core.give_back(worker, task);
            }
            let alarm = deadline.zip(control).map(|(at, control)| self.abort_at(at, control));
            let done = run_task(&self.core, worker, task, &mut chunk);
            // Before the report: from then on another thread may run the fetch, which neither this deadline nor an interrupt of this
            // thread must abort.
            drop(alarm);
            self.thread.set_running(None);
            let Some(done) = done else { return };
            match done.send(|report| self.core.report(worker, report)) {
                // The fetch that the peer has given when it was asked.
                Some(next) => task = next,
                None => return,
            }
        }
    }

    fn abort_at(&self, deadline: Instant, control: Arc<Control>) -> crate::client::Alarm {
        self.core.client.call_at(deadline, move |_| {
            control.abort();
            None
        })
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

/// Ends what a lent thread runs, so that the thread returns. Keeps nothing alive.
#[derive(Clone)]
pub(crate) struct LentInterrupter(Weak<LentThread>);

impl LentInterrupter {
    /// Aborts the fetch that the thread runs. It is requested again, if it is still needed. Record first why
    /// [`run`](Lent::run) is over: the thread looks at that before its next fetch.
    pub(crate) fn interrupt(&self) {
        if let Some(thread) = self.0.upgrade() {
            thread.abort();
        }
    }
}

impl fmt::Debug for LentInterrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentInterrupter").finish_non_exhaustive()
    }
}

impl Core {
    /// Lends the current thread for urgent work of `peer`. Does not block. `wake` is called, on any thread and without a lock,
    /// when there is a [task](Lent::has_task).
    pub(crate) fn lend(self: Arc<Self>, peer: PeerKey, wake: impl Fn() + Send + Sync + 'static) -> Lent {
        let thread = Arc::new(LentThread::new(wake));
        // Weak: a reader that has its bytes drops its `Lent`, and the machine finds that out by the weak count.
        self.post(Message::Lent(peer, Arc::downgrade(&thread)));
        Lent { core: self, thread }
    }
}
