//! What waits for a time.

use std::collections::BTreeSet;
use std::time::Instant;

/// Values, each with the time at which it is due.
#[derive(Debug)]
pub(super) struct DelayQueue<T>(BTreeSet<(Instant, T)>);

impl<T> Default for DelayQueue<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Copy + Ord> DelayQueue<T> {
    pub(super) fn insert(&mut self, at: Instant, value: T) {
        self.0.insert((at, value));
    }

    pub(super) fn remove(&mut self, at: Instant, value: T) {
        self.0.remove(&(at, value));
    }

    /// Takes out a value that is due, the earliest first.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first().map(|(_, value)| value)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
