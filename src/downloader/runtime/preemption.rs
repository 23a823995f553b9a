//! How a running prefetch makes room for urgent work, and whether it may have to.
//!
//! The schedule decides how many prefetches should make room. The bytes decide which ones: the first prefetches that get a chunk,
//! because a body can be left at a chunk without a loss. A thread that takes a step reads [`Preemptions`], which costs one load,
//! and the [`Turn`] of its fetch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::downloader::schedule::PROTECTED;
use crate::types::Priority;

/// Bytes after which a prefetch in a protected turn may be preempted, even if the time of its protection is not over. A fast
/// connection brings them in a few milliseconds, so urgent work waits that long and not for a second.
const PROTECTED_BYTES: u64 = 256 * 1024;

/// How many running fetches of the pool are to make room.
#[derive(Debug, Default)]
pub(crate) struct Preemptions {
    /// Fetches that have not been found yet.
    wanted: AtomicUsize,
    /// Fetches that were found and not reported to the machine yet.
    claimed: AtomicUsize,
}

impl Preemptions {
    /// True if a fetch that may be preempted should [claim](Self::claim) one.
    pub(super) fn is_wanted(&self) -> bool {
        // Relaxed: read at each chunk. A value that is seen one chunk late costs one chunk.
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Takes one preemption, if there is one left.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim> {
        // Before `wanted` goes down: in between the machine would see a need that no fetch meets, and ask for one more.
        self.claimed.fetch_add(1, Ordering::AcqRel);
        let claim = Claim(Arc::clone(self));
        let take = |wanted: usize| wanted.checked_sub(1);
        self.wanted.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok().then_some(claim)
    }

    /// How many are about to make room.
    pub(super) fn claimed(&self) -> usize {
        self.claimed.load(Ordering::Acquire)
    }

    /// Asks for this many more than are about to make room.
    pub(super) fn set_wanted(&self, more: usize) {
        self.wanted.store(more, Ordering::Release);
    }
}

/// A preemption that a fetch has claimed. Its drop, when the machine has recorded that the fetch makes room, ends that. A fetch
/// that panics on its way there drops it too: otherwise it would count for ever, and urgent work would get a worker less.
#[derive(Debug)]
pub(crate) struct Claim(Arc<Preemptions>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claimed.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The priority of a fetch, and its turn on a worker. The schedule decides both; this is what its worker and others see of it.
/// Only the machine changes it.
#[derive(Debug)]
pub(super) struct Turn {
    /// Over all attempts, wherever the fetch waits between them.
    priority: Priority,
    /// Until when it is not preempted, unless it had its share before.
    protected: Option<Instant>,
    /// The progress at which it had its share of bytes in this turn.
    share: u64,
}

impl Turn {
    pub(super) fn new(priority: Priority) -> Self {
        Self { priority, protected: None, share: PROTECTED_BYTES }
    }

    /// A turn begins at `now`, with this much progress made before.
    pub(super) fn begin(&mut self, protected: bool, progress: u64, now: Instant) {
        self.protected = protected.then_some(now + PROTECTED);
        self.share = progress + PROTECTED_BYTES;
    }

    pub(super) fn priority(&self) -> Priority {
        self.priority
    }

    pub(super) fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// True if urgent work may preempt it.
    pub(super) fn is_preemptible(&self, progress: u64, now: Instant) -> bool {
        let is_protected = self.protected.is_some_and(|until| now < until) && !self.had_share(progress);
        self.priority == Priority::Low && !is_protected
    }

    /// True if it had as many bytes in this turn as a protected one may have.
    pub(super) fn had_share(&self, progress: u64) -> bool {
        progress >= self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_preemption_is_claimed_once() {
        let preemptions = Arc::new(Preemptions::default());
        assert!(!preemptions.is_wanted() && preemptions.claim().is_none());
        preemptions.set_wanted(2);
        assert!(preemptions.is_wanted());
        let claims = [preemptions.claim().unwrap(), preemptions.claim().unwrap()];
        assert!(preemptions.claim().is_none());
        assert_eq!(preemptions.claimed(), 2);
        drop(claims);
        assert_eq!(preemptions.claimed(), 0);
    }

    #[test]
    fn a_protected_turn_ends_with_its_time_or_its_bytes() {
        let now = Instant::now();
        let mut turn = Turn::new(Priority::Low);
        assert!(turn.is_preemptible(0, now));
        turn.begin(true, 1000, now);
        assert!(!turn.is_preemptible(1000 + PROTECTED_BYTES - 1, now));
        assert!(turn.is_preemptible(1000 + PROTECTED_BYTES, now));
        assert!(turn.is_preemptible(1000, now + PROTECTED));
        turn.set_priority(Priority::High);
        assert!(!turn.is_preemptible(1000 + PROTECTED_BYTES, now + PROTECTED));
    }
}
