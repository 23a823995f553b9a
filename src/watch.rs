//! [`Watch`]: looks at what a handle observes at an interval, for all kinds of handles.
//!
//! The thread that iterates is the only one that wakes. What it observes does nothing for it until its end, which
//! [`Ending::signal`] makes known.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::cancel::CancelGuard;

/// Returns progress at an interval: from [`StreamHandle::watch`](crate::StreamHandle::watch), and from `watch` of the handles of
/// downloads, radios and HLS presentations. The methods show examples.
///
/// `next` blocks the thread that calls it, which must not be one that runs a callback of windway. No other thread wakes for it. With
/// an interval of zero it does not block.
#[must_use = "it observes only when it is iterated"]
pub struct Watch<P> {
    look: Box<dyn Fn() -> Look<P> + Send>,
    every: Duration,
    state: WatchState,
    ending: Arc<Ending>,
    _on_cancel: Option<CancelGuard>,
}

/// What a look has shown.
pub(crate) struct Look<P> {
    pub(crate) progress: P,
    /// What is observed has ended: no other look shows anything new.
    pub(crate) is_last: bool,
}

#[derive(Clone, Copy, Debug)]
enum WatchState {
    New,
    /// The next look is due after the interval. At the last one, so many signals were given.
    Waiting(u64),
    Over,
}

/// Where threads wait for the end of something.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// Number of signals that were given.
    signals: Mutex<u64>,
    /// Notified by each signal.
    signalled: Condvar,
}

impl Ending {
    /// Lets all watches look at once. To be called after a change that may be the end.
    pub(crate) fn signal(&self) {
        *self.signals.lock() += 1;
        self.signalled.notify_all();
    }

    fn signals(&self) -> u64 {
        *self.signals.lock()
    }

    /// Blocks for `at_most`, or until there are other signals than `seen`. Returns the number of signals.
    fn wait(&self, seen: u64, at_most: Duration) -> u64 {
        // `None` is a time that the clock can't represent: it never comes.
        let deadline = Instant::now().checked_add(at_most);
        let mut signals = self.signals.lock();
        while *signals == seen {
            match deadline {
                None => self.signalled.wait(&mut signals),
                Some(deadline) if self.signalled.wait_until(&mut signals, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        *signals
    }
}

impl<P> Watch<P> {
    /// `on_cancel` is what gives a signal when the source is cancelled, if that does not happen by itself.
    pub(crate) fn new(
        look: impl Fn() -> Look<P> + Send + 'static,
        every: Duration,
        ending: &Arc<Ending>,
        on_cancel: Option<CancelGuard>,
    ) -> Self {
        let ending = Arc::clone(ending);
        Self { look: Box::new(look), every, state: WatchState::New, ending, _on_cancel: on_cancel }
    }
}

impl<P> Iterator for Watch<P> {
    type Item = P;

    fn next(&mut self) -> Option<P> {
        // Before the look: what ends in between gives another signal.
        let signals = match self.state {
            WatchState::New => self.ending.signals(),
            // What arrives does not end the wait: it arrives far more often than a window is drawn.
            WatchState::Waiting(seen) => self.ending.wait(seen, self.every),
            WatchState::Over => return None,
        };
        let Look { progress, is_last } = (self.look)();
        self.state = if is_last { WatchState::Over } else { WatchState::Waiting(signals) };
        Some(progress)
    }
}

impl<P> fmt::Debug for Watch<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("every", &self.every).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn an_end_between_the_look_and_the_wait_is_shown_at_once() {
        let (ending, looks) = (Arc::new(Ending::default()), AtomicU32::new(0));
        let ends = Arc::clone(&ending);
        let look = move || {
            let look = looks.fetch_add(1, Ordering::Relaxed);
            if look == 1 {
                // Too late for this look, and too early for the wait behind it.
                ends.signal();
            }
            Look { progress: look, is_last: look == 2 }
        };
        let mut watch = Watch::new(look, Duration::ZERO, &ending, None);
        assert_eq!((watch.next(), watch.next()), (Some(0), Some(1)));
        watch.every = LONG;
        assert_eq!((watch.next(), watch.next()), (Some(2), None));
    }

    #[test]
    fn a_signal_ends_the_wait_of_each_watch() {
        let ending = Arc::new(Ending::default());
        let watch = || {
            let looks = AtomicU32::new(0);
            let look = move || Look { progress: (), is_last: looks.fetch_add(1, Ordering::Relaxed) == 1 };
            let mut watch = Watch::new(look, LONG, &ending, None);
            watch.next();
            watch
        };
        let waiting = [watch(), watch()].map(|watch| thread::spawn(move || watch.count()));
        ending.signal();
        assert_eq!(waiting.map(|waiting| waiting.join().unwrap()), [1, 1]);
    }
}
