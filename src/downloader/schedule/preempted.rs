//! The bodies of preempted fetches that stay open.

use crate::types::Priority;

/// Counts them. Each one keeps a connection that is not read, so that only some may stay open. The other fetches continue from
/// their offset on a new connection.
#[derive(Debug)]
pub(super) struct PreemptedBodies {
    open: usize,
    /// `max_preempted`.
    max: usize,
}

impl PreemptedBodies {
    pub(super) fn new(max: usize) -> Self {
        Self { open: 0, max }
    }

    /// Counts one more. False if it has to be closed, because enough others are open.
    pub(super) fn keep(&mut self, priority: Priority) -> bool {
        // An urgent one was promoted after its preemption was claimed. It continues at once, so it may exceed the limit.
        let may_keep = priority == Priority::High || self.open < self.max;
        self.open += usize::from(may_keep);
        may_keep
    }

    /// One of them is read again, or closed.
    pub(super) fn release(&mut self) {
        self.open -= 1;
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }
}
