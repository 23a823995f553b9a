//! The idle connections to one origin, and what was learned of it. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::demand::Demand;

/// How many idle connections are kept, and for how long. One for each open stream is kept beyond the limits, up to [`MAX_HELD`];
/// others beyond them are kept for [`SURPLUS_AGE`]. Where a limit is zero none are kept at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) per_origin: usize,
    pub(crate) over_all: usize,
    /// Maximum idle time of a connection. Common servers close theirs after a minute.
    pub(crate) max_age: Duration,
}

/// Maximum idle time of connections beyond the limits. If many requests run at once, their connections become idle in bursts,
/// and each one that is closed after a burst has to be opened again for the next one.
pub(super) const SURPLUS_AGE: Duration = Duration::from_secs(2);

/// Maximum number of idle connections that are kept beyond the limits because streams are open. Programs with many more open
/// streams would reach the limit of open files of their process, often 1,024.
pub(super) const MAX_HELD: usize = 128;

#[derive(Debug)]
pub(super) struct OriginPool<C> {
    /// Idle connections, and since when. The one that has been idle longest comes first.
    pub(super) ready: VecDeque<(C, Instant)>,
    /// Whether more connections are wanted.
    pub(super) demand: Demand,
    /// New connections in a row that got no answer while a proven one did.
    pub(super) unanswered: u32,
    /// The origin serves one connection at a time: others wait until that one is closed. Never reset.
    pub(super) single_connection: Arc<AtomicBool>,
}

impl<C> OriginPool<C> {
    /// Removes and returns the connections that are too old, or too old for a surplus one.
    pub(super) fn expire(&mut self, now: Instant, limits: Limits) -> Vec<C> {
        let mut gone = Vec::new();
        while self.ready.front().is_some_and(|(_, since)| *since + self.max_age(limits) <= now) {
            gone.extend(self.ready.pop_front().map(|(connection, _)| connection));
        }
        gone
    }

    /// Maximum idle time of the oldest connection.
    pub(super) fn max_age(&self, limits: Limits) -> Duration {
        if self.has_surplus(limits) { limits.max_age.min(SURPLUS_AGE) } else { limits.max_age }
    }

    /// True if more connections are idle than the limit of this origin allows.
    pub(super) fn has_surplus(&self, limits: Limits) -> bool {
        // Streams whose connections are too slow to fill a buffer run empty together, and each needs its next piece at once: a
        // connection that was closed meanwhile costs its reader one round trip more.
        self.ready.len() > limits.per_origin.max(self.demand.holders())
    }

    /// True if more connections are idle than there are open streams.
    pub(super) fn exceeds_holders(&self) -> bool {
        self.ready.len() > self.demand.holders()
    }

    pub(super) fn lacks(&self, now: Instant, max_age: Duration) -> bool {
        // A second connection would only wait until the first one is closed.
        let is_useless = self.single_connection.load(Ordering::Relaxed);
        !is_useless && self.demand.is_unmet(self.ready.len(), max_age, now)
    }
}
