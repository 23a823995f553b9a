//! The scheduler thread: applies the deadlines of the schedule, finds threads for tasks that wait too long, and relieves the watchdog. It
//! runs no foreign code, which could hold them up.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::message::Message;
use super::own_thread::enter_own_thread;
use super::watchdog;
use crate::thread;

/// The scheduler thread. Returns when the downloader has stopped and its workers have ended.
pub(crate) fn run(core: &Arc<Core>) {
    enter_own_thread();
    loop {
        if core.is_over() {
            return;
        }
        for (worker, task) in core.tasks.take_late(Instant::now()) {
            core.post(Message::Unserved(worker, task));
        }
        relieve_watchdog(core, Instant::now());
        let alarm = core.with(|machine| machine.alarm);
        let next = [alarm, core.tasks.next_deadline(), core.duty.next_deadline()].into_iter().flatten().min();
        // A signal needs no message: the thread that put it has changed one of these times, which the next round reads.
        if core.signal.take_until(next).is_none() && alarm.is_some_and(|alarm| alarm <= Instant::now()) {
            core.post(Message::Due);
        }
    }
}

/// Starts another watchdog thread if the one on duty is blocked in a foreign call.
fn relieve_watchdog(core: &Arc<Core>, now: Instant) {
    if !core.duty.poll_relief(now) {
        return;
    }
    let own = Arc::clone(core);
    let relief = move || {
        if let Some(shift) = own.duty.take_over() {
            watchdog::run(&own, shift);
        }
    };
    let started = thread::start("watchdog", relief).inspect_err(|error| {
        log::debug!("the watchdog waits for a callback: {error:?}");
        core.duty.handle_no_relief(now);
    });
    let mut reliefs = core.reliefs.lock();
    reliefs.retain(|relief| !relief.is_finished());
    reliefs.extend(started);
}
