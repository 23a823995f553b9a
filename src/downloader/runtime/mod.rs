//! The threads of a downloader, and how they hand work to each other.
//!
//! ```text
//!  any thread ── post ──▶ combiner ─▶ core: schedule, jobs ── task ──▶ worker 1..N
//!                                        │                              │
//!                                        └─ deadline ─▶ scheduler       └─ transfer ─▶ sink
//!                                        └─ what runs ─▶ watchdog            └─ hand-off ─▶ reader
//! ```
//!
//! Whoever has a message for the core posts it and, if nobody else is at it, applies all that are posted
//! ([combiner]): no thread is woken for it. A worker sleeps on its one-shot until it has a task. The scheduler thread sleeps
//! until the next deadline of the schedule. The watchdog sleeps while nothing runs.

pub(crate) mod attempt;
pub(crate) mod combiner;
pub(crate) mod control;
pub(crate) mod core;
pub(crate) mod handoff;
pub(crate) mod job;
pub(crate) mod liveness;
pub(crate) mod machine;
pub(crate) mod message;
pub(crate) mod one_shot;
pub(crate) mod own_thread;
pub(crate) mod record;
pub(crate) mod retry_state;
pub(crate) mod scheduler;
pub(crate) mod transfer;
pub(crate) mod watchdog;
pub(crate) mod worker;

/// The locks of [`combiner`] and [`one_shot`], which the model check replaces.
mod shim {
    pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
}
