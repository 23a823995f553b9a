//! The watchdog thread: looks at the workers' signs of life, and says so when something stands still.
//!
//! It sleeps while nothing is pending. A fetch that waits for its next attempt, a body in a caller's hands and one that was
//! set aside are on no worker, and never stand still.

use std::time::Instant;

use super::progress::{Progress, Standstill};
use super::scheduler::{Core, Held, enter_own_thread};
use crate::config::HangPolicy;
use crate::event::{Event, Hang, HangCause};

/// Runs until the downloader has stopped.
pub(super) fn run(core: &Core) {
    enter_own_thread();
    let mut progress = Progress::new(core.config.hang_timeout);
    while let Some((sight, held)) = core.watch() {
        let now = Instant::now();
        progress.handle_sight(sight, now);
        while let Some(standstill) = progress.poll_standstill(now) {
            report(core, standstill, &held, now);
        }
        core.wait_to_watch(progress.next_deadline(now));
    }
}

fn report(core: &Core, standstill: Standstill, held: &[Option<Held>], now: Instant) {
    let holders: Vec<String> = held.iter().flatten().map(|held| held.describe(now)).collect();
    let (culprit, silence) = match standstill {
        Standstill::Worker(worker, silence) => (held[worker].as_ref(), silence),
        Standstill::Queue(silence) => (None, silence),
    };
    let cause = culprit.map_or(HangCause::Queue, |held| match held {
        Held::Fetch(control) => HangCause::Fetch(control.request),
        Held::Asking { .. } => HangCause::Peer,
    });
    let hang = Hang { cause, silence, holders };
    log::error!("{hang}");
    let event = Event::Hang(hang.clone());
    match culprit {
        Some(Held::Fetch(control)) => control.publish(&event),
        _ => core.account.publish(&event),
    }
    match (&core.config.hang_policy, culprit) {
        (HangPolicy::CancelStalled, Some(Held::Fetch(control))) => control.fail(),
        (HangPolicy::Call(on_hang), _) => {
            on_hang.call(&hang);
        }
        _ => {}
    }
}
