//! The end of a track that another thread skips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::source::Source;

/// Ends a track, also while it is being opened or read.
#[derive(Clone)]
pub(super) struct Skip {
    is_skipped: Arc<AtomicBool>,
    source: Arc<dyn Source>,
}

impl Skip {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self { is_skipped: Arc::default(), source }
    }

    /// Lets reads return the end. Blocked ones do it at once.
    pub(super) fn skip(&self) {
        // First the flag, then the interrupt: a read that the interrupt ends looks at the flag to tell a skip from an
        // interrupt.
        self.is_skipped.store(true, Ordering::Release);
        self.source.interrupt();
    }

    pub(super) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    pub(super) fn is_skipped(&self) -> bool {
        self.is_skipped.load(Ordering::Acquire)
    }
}
