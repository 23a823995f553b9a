//! The watchdog thread: looks at the workers' signs of life, and says so when something stands still.
//!
//! It sleeps while nothing is pending. A fetch that waits for its next attempt, a body in a caller's hands and one that was
//! set aside are on no worker, and never stand still.

use std::time::Instant;

use super::core::{Core, Held, enter_own_thread};
use super::liveness::{Progress, Standstill};
use crate::config::HangPolicy;
use crate::event::{Event, Hang, HangCause};

/// Runs until the downloader has stopped.
pub(crate) fn run(core: &Core) {
    enter_own_thread();
    let mut progress = Progress::new(core.config.hang_timeout);
    while let Some((sight, held)) = core.watch() {
        let now = Instant::now();
        progress.handle_sight(sight, now);
        while let Some(standstill) = progress.poll_standstill(now) {
            report(core, standstill, &held, now);
        }
        // Before the wait: what a worker has keeps the events of its peer open.
        drop(held);
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
    let event = Event::Hang(hang.clone());
    let ends = matches!(core.config.hang_policy, HangPolicy::CancelStalled);
    let stands_still = match culprit {
        Some(Held::Fetch(control)) => control.report_standstill(now - silence, &event, ends),
        _ => {
            core.account.publish(&event);
            true
        }
    };
    if !stands_still {
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
    use crate::downloader::runtime::worker::{Control, Record};
    use crate::downloader::{Downloader, Fetch, RequestId};

    const LONG: Duration = Duration::from_secs(60);

    /// What is published when a fetch that was seen to stand still is reported after something happened to it.
    fn reported_after(happen: impl FnOnce(&Arc<Control>)) -> Vec<Event> {
        let config = DownloaderConfig { hang_policy: HangPolicy::CancelStalled, ..Default::default() };
        let downloader = Downloader::hollow(config).unwrap();
        let core = &downloader.0.core;
        let events = downloader.subscribe();
        let accounts = [Arc::clone(&core.account), Arc::clone(&core.account)];
        let fetch = Fetch::get("http://host/a").unwrap();
        let control = Arc::new(Control::new(RequestId::new(1).unwrap(), &fetch, accounts));
        let now = control.moved() + LONG;
        happen(&control);
        report(core, Standstill::Worker(0, LONG), &[Some(Held::Fetch(Arc::clone(&control)))], now);
        std::iter::from_fn(|| events.try_recv()).collect()
    }

    fn has_hang(events: &[Event]) -> bool {
        events.iter().any(|event| matches!(event, Event::Hang(_)))
    }

    #[test]
    fn a_standstill_is_reported() {
        assert!(has_hang(&reported_after(|_| ())));
    }

    #[test]
    fn nothing_is_reported_after_the_end() {
        let events = reported_after(|control| Record::new(Arc::clone(control)).end(&Ok(())));
        assert!(events.last().is_some_and(Event::is_end) && !has_hang(&events), "{events:?}");
    }

    #[test]
    fn what_has_moved_since_it_was_seen_is_not_reported() {
        assert!(!has_hang(&reported_after(|control| control.advance_by(1))));
    }
}
