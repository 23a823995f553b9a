//! The scheduler thread: applies the deadlines of the schedule, wakes threads for tasks that are overdue, and ends jobs whose user
//! code must not run on a caller's thread.

use std::time::Instant;

use super::core::Core;
use super::message::Message;
use super::own_thread::enter_own_thread;

/// The scheduler thread. Returns when the downloader has stopped and its workers have ended.
pub(crate) fn run(core: &Core) {
    enter_own_thread();
    loop {
        let ready = core.endings.lock().as_mut().map(std::mem::take);
        for ending in ready.into_iter().flatten() {
            ending.job.end_cancelled(ending.reason);
        }
        let (alarm, over) =
            core.with(|machine| (machine.alarm, machine.stopped && machine.workers_left == 0));
        if over {
            let mut endings = core.endings.lock();
            // One look and one step: what is pushed between the two would never be ended.
            if endings.as_ref().is_none_or(Vec::is_empty) {
                *endings = None;
                return;
            }
            continue;
        }
        core.tasks.wake_for_overdue(Instant::now());
        let next = alarm.into_iter().chain(core.tasks.overdue()).min();
        // A signal needs no message: whoever put it has changed the alarm, the endings or what is overdue, which the next round
        // reads.
        if core.signal.take_until(next).is_none() && alarm.is_some_and(|alarm| alarm <= Instant::now()) {
            core.post(Message::Due);
        }
    }
}
