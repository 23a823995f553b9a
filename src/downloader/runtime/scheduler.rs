//! The scheduler thread: applies the deadlines of the schedule, finds threads for tasks that are overdue, and relieves the watchdog. It
//! runs no foreign code, which could hold them up.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::message::Message;
use super::own_thread::enter_own_thread;

/// The scheduler thread. Returns when the downloader has stopped and its workers have ended.
pub(crate) fn run(core: &Arc<Core>) {
    enter_own_thread();
    loop {
        if core.is_over() {
            return;
        }
        for (worker, task) in core.tasks.take_overdue(Instant::now()) {
            core.post(Message::Unserved(worker, task));
        }
        core.relieve_watchdog(Instant::now());
        let alarm = core.with(|machine| machine.alarm);
        let next = [alarm, core.tasks.overdue(), core.relief_is_due()].into_iter().flatten().min();
        // A signal needs no message: whoever put it has changed one of these times, which the next round reads.
        if core.signal.take_until(next).is_none() && alarm.is_some_and(|alarm| alarm <= Instant::now()) {
            core.post(Message::Due);
        }
    }
}
