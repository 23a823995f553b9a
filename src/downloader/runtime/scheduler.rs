//! The scheduler thread: applies the deadlines of the schedule, and finds threads for tasks that are overdue. It runs no foreign
//! code, which could hold them up.

use std::time::Instant;

use super::core::Core;
use super::message::Message;
use super::own_thread::enter_own_thread;

/// The scheduler thread. Returns when the downloader has stopped and its workers have ended.
pub(crate) fn run(core: &Core) {
    enter_own_thread();
    loop {
        if core.is_over() {
            return;
        }
        for (worker, task) in core.tasks.take_overdue(Instant::now()) {
            core.post(Message::Unserved(worker, task));
        }
        let alarm = core.with(|machine| machine.alarm);
        let next = alarm.into_iter().chain(core.tasks.overdue()).min();
        // A signal needs no message: whoever put it has changed the alarm or what is overdue, which the next round reads.
        if core.signal.take_until(next).is_none() && alarm.is_some_and(|alarm| alarm <= Instant::now()) {
            core.post(Message::Due);
        }
    }
}
