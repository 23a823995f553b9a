//! How a download has ended: what its handles know once it is gone.

use std::sync::Arc;

use parking_lot::Mutex;

use super::config::Progress;
use crate::watch::Ending;

/// How a download has ended. Outlives it.
pub(super) struct Outcome {
    /// The last progress, once the download has ended.
    last: Mutex<Progress>,
    /// Signalled when the download has ended.
    pub(super) ending: Arc<Ending>,
}

impl Outcome {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Progress::first()), ending: Arc::default() })
    }

    /// Records the last progress of the download, which has ended.
    pub(super) fn record(&self, last: Progress) {
        let replaced = std::mem::replace(&mut *self.last.lock(), last);
        self.ending.signal();
        // Outside of the lock: an error may own a value of the application.
        drop(replaced);
    }

    pub(super) fn last(&self) -> Progress {
        self.last.lock().clone()
    }
}
