//! How long prefetches wait after the last urgent fetch started, so that they do not compete with its first bytes.

use std::time::{Duration, Instant};

/// Holds prefetches back for a while after each urgent fetch starts.
#[derive(Debug)]
pub(super) struct Throttle {
    /// `prefetch_delay`. Zero is no throttle.
    delay: Duration,
    /// When the last urgent fetch started.
    last_urgent: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, last_urgent: None }
    }

    /// An urgent fetch starts.
    pub(super) fn handle_urgent(&mut self, now: Instant) {
        self.last_urgent = Some(now);
    }

    /// True if prefetches may start.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.opens_at().is_none_or(|at| at <= now)
    }

    /// When prefetches may start, if no urgent fetch starts before. `None` if they may at any time.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.last_urgent.filter(|_| !self.delay.is_zero()).map(|last| last + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    #[test]
    fn it_opens_after_the_delay_and_shuts_with_urgent_work() {
        let now = Instant::now();
        let mut throttle = Throttle::new(DELAY);
        assert!(throttle.is_open(now));
        throttle.handle_urgent(now);
        assert!(!throttle.is_open(now + DELAY / 2));
        throttle.handle_urgent(now + DELAY / 2);
        assert!(!throttle.is_open(now + DELAY));
        assert_eq!(throttle.opens_at(), Some(now + DELAY / 2 + DELAY));
        assert!(throttle.is_open(now + 2 * DELAY));
        assert!(throttle.is_open(now + 3 * DELAY));
    }

    #[test]
    fn without_a_delay_it_is_always_open() {
        let now = Instant::now();
        let mut throttle = Throttle::new(Duration::ZERO);
        throttle.handle_urgent(now);
        assert!(throttle.is_open(now));
        assert_eq!(throttle.opens_at(), None);
    }
}
