//! The watchdog thread: looks at the workers' signs of life, and says so when a transfer stands still.
//!
//! It sleeps while no worker is busy. A fetch that waits for its next attempt, a body in a caller's hands and one that was
//! set aside are on no worker, and never stand still.

use std::time::Instant;

use super::progress::Progress;
use super::scheduler::{Core, enter_own_thread};
use crate::config::HangPolicy;
use crate::event::Event;

/// Runs until the downloader has stopped.
pub(super) fn run(core: &Core) {
    enter_own_thread();
    let mut progress = Progress::new(core.config.hang_timeout);
    while let Some(running) = core.watch() {
        let now = Instant::now();
        progress.handle_running(running.iter().map(|control| (control.request, control.moved())));
        while let Some((request, silence)) = progress.poll_stalled(now) {
            let holders: Vec<String> = running.iter().map(|control| control.describe(now)).collect();
            log::error!("{request} has not moved for {silence:?}; on the workers: {}", holders.join(", "));
            core.bus.publish(&Event::Hang { request, silence });
            if core.config.hang_policy == HangPolicy::CancelStalled {
                running
                    .iter()
                    .filter(|control| control.request == request)
                    .for_each(|control| control.fail());
            }
        }
        core.wait_to_watch(progress.next_deadline(now));
    }
}
