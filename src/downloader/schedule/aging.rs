//! Which queued prefetches have waited so long that they go first.
//!
//! The *age* of a prefetch is the time since it was queued, or since the end of its last full turn on a worker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::types::PeerKey;
use crate::types::Priority;

/// Where something waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePlace {
    pub(super) peer: PeerKey,
    /// Which of the two queues of the peer.
    pub(super) queue: Priority,
    /// Place in that queue.
    pub(super) place: i64,
}

/// What is queued and has a prefetch to give, the oldest first.
#[derive(Debug)]
pub(super) struct Aging {
    /// What is this old has *aged*.
    threshold: Duration,
    /// Each with the time since when it waits for a full turn. Sorted by it, so that only the first one has to be looked at. The place
    /// makes entries of the same time differ.
    entries: BTreeSet<(Instant, QueuePlace)>,
}

impl Aging {
    pub(super) fn new(threshold: Duration) -> Self {
        Self { threshold, entries: BTreeSet::new() }
    }

    pub(super) fn insert(&mut self, since: Instant, place: QueuePlace) {
        self.entries.insert((since, place));
    }

    pub(super) fn remove(&mut self, since: Instant, place: QueuePlace) {
        self.entries.remove(&(since, place));
    }

    /// The oldest one, if it has aged.
    pub(super) fn oldest_aged(&self, now: Instant) -> Option<QueuePlace> {
        let (since, place) = self.entries.first()?;
        (*since + self.threshold <= now).then_some(*place)
    }

    /// When the oldest one has aged. It may have already.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.entries.first().map(|(since, _)| *since + self.threshold)
    }

    /// True if no prefetch is queued or announced.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
