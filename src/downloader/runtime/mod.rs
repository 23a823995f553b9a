//! The threads of a downloader, and how they hand work to each other.
//!
//! ```text
//!  any thread ── post ──▶ combiner ─▶ machine: schedule, jobs ── task ──▶ worker 1..N, or a lent reader
//!                                        │                              │
//!                                        └─ deadline ─▶ scheduler       └─ transfer ─▶ sink
//!                                        └─ what runs ─▶ watchdog            └─ hand-off ─▶ reader
//! ```
//!
//! # Which thread wakes which
//!
//! No thread polls. Each sleeps on one thing, and the thread that changes what it waits for wakes it:
//!
//! | thread | sleeps on | woken by |
//! |---|---|---|
//! | thread of the pool | the queue of tasks | [`Core::act`](core::Core), which puts a task there |
//! | scheduler | the signal, until the machine's next deadline, or until a task or a call of the watchdog has taken too long | `act`: an earlier deadline, a task that waits for a busy thread, the stop; the watchdog, before it calls foreign code |
//! | watchdog | its signal, until its next look | `act`: work although nothing was watched, an ending to run, the stop |
//! | caller of `execute`, `batch` | the one-shot of its reply | the worker that has the response head, or drops the job |
//! | caller beyond `peer_capacity`, `max_open_bodies` | a condvar beside the count | the drop of a credit or of a body; cancellation |
//! | blocked reader | the condvar of its storage | a sink that writes; an offered transfer; a task for its lent thread |
//! | reader of a body under `max_bandwidth` | the condvar of the [pacer](super::pacer), the first one until its share is there | a reader that leaves; a new limit; urgent work; cancellation |
//! | worker that has offered a transfer | the condvar of the hand-off | the reader that gives it back; cancellation; 5 ms |
//!
//! # Why no wake-up is lost
//!
//! - *A message is posted while another thread applies messages.* The poster finds the machine locked and returns. The other
//!   thread looks for messages again after it has unlocked the machine, so it finds this one ([combiner]).
//! - *A value is put between the look and the sleep.* A one-shot looks and sleeps under one mutex, and keeps the value until it is
//!   taken. So a task or a signal that comes before its thread sleeps ends that sleep at once ([one_shot]).
//! - *A task is put after another thread has taken the one for which a thread was woken.* It wakes none, because the woken thread
//!   looks for a task. All is counted under the mutex under which that thread looks and falls asleep again ([task_queue]).
//! - *A task is put for a thread that has announced itself, and that thread blocks in a callback.* The first such task signals the
//!   scheduler thread, which looks after 2 ms and wakes another one. If none sleeps, the task goes back to the machine, and its
//!   worker counts as busy until the thread comes ([task_queue]).
//! - *An earlier deadline arises while the scheduler is on its way to sleep.* It reads the deadline with the machine locked. A
//!   later change finds the old deadline in the machine, sees that its own is earlier, and puts the
//!   signal, which is kept for a thread that does not sleep yet.
//! - *The answer to a message goes to another thread.* A worker that would sleep for its next task posts its message only after
//!   it has locked the machine, so no other thread applies it (`post_and_combine`).
//! - *Work arises when the watchdog has seen none.* The machine keeps `watched`. Only the watchdog clears it, in the look that
//!   finds nothing pending; the next message that leaves something pending sets it and puts the signal.
//! - *A transfer is offered to a reader that is about to block.* The reader leaves its position under the lock of the hand-off when
//!   it finds no offer; the worker looks for it under that lock. Then it notifies the storage, under whose lock the
//!   reader looks for an offer once more before it sleeps.
//! - *A task is given to a lent thread that goes on.* The thread closes itself under the lock under which a task is put. What is
//!   put before is found by the close and given back; what comes later is refused and given back by the thread that would have put it
//!   ([lend]).
//! - *A wait is cancelled between the look at the token and the sleep.* Each cancel hook takes the lock of the condvar that it
//!   notifies.
//!
//! # Which file uses which
//!
//! Each row uses the rows below it.
//!
//! | files | what they know |
//! |---|---|
//! | [scheduler], [watchdog], [worker], [lend] | a thread, and what it does |
//! | [attempt], [transfer], [accept] | a job and the core |
//! | [core] | the machine, and what wakes each thread |
//! | [machine] | the schedule, and the jobs and threads that its ids stand for |
//! | [message], [lent_thread], [task] | what threads send each other |
//! | [job] | one fetch on its way |
//! | [record], [retry_state], [control] | its reports, its attempts, its priority and progress |
//! | [handoff], [combiner], [one_shot], [task_queue], [preemption], [liveness], [duty], [own_thread] | nothing of jobs |

mod accept;
pub(crate) mod attempt;
pub(crate) mod combiner;
#[cfg(test)]
mod combiner_tests;
pub(crate) mod control;
pub(crate) mod core;
pub(crate) mod duty;
pub(crate) mod handoff;
pub(crate) mod job;
pub(crate) mod lend;
pub(crate) mod lent_thread;
pub(crate) mod liveness;
pub(crate) mod machine;
pub(crate) mod message;
pub(crate) mod one_shot;
pub(crate) mod own_thread;
pub(crate) mod preemption;
pub(crate) mod record;
pub(crate) mod retry_state;
pub(crate) mod scheduler;
pub(crate) mod task;
pub(crate) mod task_queue;
pub(crate) mod transfer;
pub(crate) mod watchdog;
pub(crate) mod worker;

/// The locks of [`combiner`], [`one_shot`] and [`task_queue`], which the model check replaces.
mod shim {
    pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
}
