//! The watchdog thread: checks the workers for progress and reports those that are stalled. It also ends the jobs that are
//! cancelled while they wait, because their user code must run neither on a caller's thread nor where others would wait for it.
//!
//! It sleeps while nothing is pending. A fetch that waits for its next attempt, a body handed to a caller and a preempted
//! body occupy no worker, so they are never reported as stalled.

use std::time::Instant;

use super::core::Core;
use super::duty::Shift;
use super::liveness::Stall;
use super::machine::Assigned;
use super::own_thread::enter_own_thread;
use crate::config::HangPolicy;
use crate::event::{Event, Hang, HangCause};

/// The thread with this shift. Returns when it is relieved, or the downloader has stopped and its workers have ended.
pub(super) fn run(core: &Core, shift: Shift) {
    enter_own_thread();
    loop {
        if !core.run_endings(shift) {
            return;
        }
        let Some((observation, assigned)) = core.watch() else {
            if core.close_endings() {
                return;
            }
            core.wait_to_watch(None);
            continue;
        };
        let now = Instant::now();
        core.liveness.lock().handle_observation(observation, now);
        loop {
            // One at a time, without the lock: the thread that relieves this one reports the others.
            let stalled = core.liveness.lock().poll_stalled(now);
            let Some(stall) = stalled else { break };
            if !core.on_duty(shift, || report(core, stall, &assigned, now)) {
                return;
            }
        }
        // Before the wait: while it exists, the subscribers of its peer wait for more events.
        drop(assigned);
        let deadline = core.liveness.lock().next_deadline(now);
        core.wait_to_watch(deadline);
    }
}

/// The first thread.
pub(crate) fn start(core: &Core) {
    run(core, Shift::FIRST);
}

fn report(core: &Core, stall: Stall, assigned: &[Option<Assigned>], now: Instant) {
    let holders: Vec<String> = assigned.iter().flatten().map(|assigned| assigned.describe(now)).collect();
    let (culprit, silence) = match stall {
        Stall::Worker(worker, silence) => (assigned[worker].as_ref(), silence),
        Stall::Queue(silence) => (None, silence),
    };
    let cause = culprit.map_or(HangCause::Queue, |assigned| match assigned {
        Assigned::Fetch(control) => HangCause::Fetch(control.request),
        Assigned::Asking { .. } => HangCause::Peer,
        Assigned::Blocked { .. } => HangCause::Finish,
    });
    let hang = Hang { cause, silence, holders };
    let event = Event::Hang(hang.clone());
    let ends = matches!(core.config.hang_policy, HangPolicy::CancelStalled);
    let is_stalled = match culprit {
        Some(Assigned::Fetch(control)) => control.report_stall(now - silence, &event, ends),
        _ => {
            core.stats.publish(&event);
            true
        }
    };
    if !is_stalled {
        return;
    }
    log::error!("{hang}");
    if let HangPolicy::Call(on_hang) = &core.config.hang_policy {
        on_hang.call(&hang);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::DownloaderConfig;
    use crate::downloader::Downloader;
    use crate::downloader::rules::Measured;
    use crate::downloader::runtime::control::Control;
    use crate::downloader::runtime::record::Record;
    use crate::types::{Priority, RequestId};

    const LONG: Duration = Duration::from_secs(60);

    /// The events when `happen` is called between the observation of a stalled fetch and its report.
    fn reported_after(happen: impl FnOnce(&Arc<Control>)) -> Vec<Event> {
        let config = DownloaderConfig { hang_policy: HangPolicy::CancelStalled, ..Default::default() };
        let downloader = Downloader::without_network(config).unwrap();
        let core = &downloader.0.core;
        let events = downloader.subscribe();
        let all_stats = [Arc::clone(&core.stats), Arc::clone(&core.stats)];
        let (request, now) = (RequestId::new(1).unwrap(), Instant::now());
        let control = Arc::new(Control::new(request, Priority::High, Measured::Fully, all_stats, now));
        let now = control.moved() + LONG;
        happen(&control);
        report(core, Stall::Worker(0, LONG), &[Some(Assigned::Fetch(Arc::clone(&control)))], now);
        std::iter::from_fn(|| events.try_recv()).collect()
    }

    fn has_hang(events: &[Event]) -> bool {
        events.iter().any(|event| matches!(event, Event::Hang(_)))
    }

    #[test]
    fn a_stall_is_reported() {
        assert!(has_hang(&reported_after(|_| ())));
    }

    #[test]
    fn nothing_is_reported_after_the_end() {
        let events = reported_after(|control| Record::new(Arc::clone(control), Instant::now()).end(&Ok(())));
        assert!(events.last().is_some_and(Event::is_end) && !has_hang(&events), "{events:?}");
    }

    #[test]
    fn a_fetch_that_max_bandwidth_holds_back_is_not_stalled() {
        assert!(!has_hang(&reported_after(|control| control.set_paced(true, control.moved()))));
    }

    #[test]
    fn a_fetch_that_has_progressed_since_it_was_observed_is_not_reported() {
        assert!(!has_hang(&reported_after(|control| control.advance_by(1, Instant::now()))));
    }
}
