//! The scheduler thread: applies the deadlines of the schedule, and ends jobs whose user code must not run on a caller's thread.

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
        // A signal needs no message: whoever put it has changed the alarm or the endings, which the next round reads.
        if core.signal.take_until(alarm).is_none() {
            core.post(Message::Due);
        }
    }
}
