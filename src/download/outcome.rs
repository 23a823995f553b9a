//! How a download has ended: what its handles know once it is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::config::Progress;

/// How a download has ended. Outlives it.
pub(super) struct Outcome {
    /// The last progress, once the download has ended.
    last: Mutex<Progress>,
    /// Notified when the download has ended.
    ended: Condvar,
}

impl Outcome {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Progress::first()), ended: Condvar::new() })
    }

    /// Records the last progress of the download, which has ended.
    pub(super) fn record(&self, last: Progress) {
        let replaced = std::mem::replace(&mut *self.last.lock(), last);
        self.ended.notify_all();
        // Outside of the lock: an error may own a value of the application.
        drop(replaced);
    }

    pub(super) fn last(&self) -> Progress {
        self.last.lock().clone()
    }

    /// Blocks until the download has ended, for at most `limit`.
    pub(super) fn await_end(&self, limit: Duration) {
        let deadline = Instant::now().checked_add(limit);
        let mut last = self.last.lock();
        while !last.phase.is_over() {
            match deadline {
                Some(deadline) if self.ended.wait_until(&mut last, deadline).timed_out() => return,
                Some(_) => {}
                None => self.ended.wait(&mut last),
            }
        }
    }
}
