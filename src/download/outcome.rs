//! How a download has ended: what its handles know once it is gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::config::Progress;
use crate::error::Error;
use crate::watch::Ending;

/// How a download has ended. Outlives it.
pub(super) struct Outcome {
    /// Where the file is to be.
    pub(super) path: PathBuf,
    ended: Mutex<Ended>,
    /// Signalled when the download has ended.
    pub(super) ending: Arc<Ending>,
}

struct Ended {
    /// The last progress, once the download has ended.
    last: Progress,
    /// The length of the file, or why there is none. `None` while the download runs.
    end: Option<Result<u64, Error>>,
}

impl Outcome {
    pub(super) fn new(path: &Path) -> Arc<Self> {
        let ended = Mutex::new(Ended { last: Progress::first(), end: None });
        Arc::new(Self { path: path.to_owned(), ended, ending: Arc::default() })
    }

    /// Records the last progress of the download, and how it has ended.
    pub(super) fn record(&self, last: Progress, end: Result<u64, Error>) {
        let replaced = std::mem::replace(&mut *self.ended.lock(), Ended { last, end: Some(end) });
        self.ending.signal();
        // Outside of the lock: an error may own a value of the application.
        drop(replaced);
    }

    pub(super) fn last(&self) -> Progress {
        self.ended.lock().last.clone()
    }

    pub(super) fn end(&self) -> Option<Result<u64, Error>> {
        self.ended.lock().end.clone()
    }
}
