//! Decides when prefetches must wait until urgent work has been quiet. Reads no clock.

use std::time::{Duration, Instant};

/// Keeps Low work back for a while after each urgent dispatch.
#[derive(Debug)]
pub(crate) struct Throttle {
    quiet: Duration,
    /// The last time that urgent work was dispatched.
    last_urgent: Option<Instant>,
}

impl Throttle {
    /// Low work waits until urgent work was quiet for so long; zero is no throttle.
    pub(crate) fn new(quiet: Duration) -> Self {
        Self { quiet, last_urgent: None }
    }

    /// Notes that urgent work was dispatched: a quiet spell is over.
    pub(crate) fn handle_urgent(&mut self, now: Instant) {
        self.last_urgent = Some(now);
    }

    /// True if Low work may go: once the spell is long enough all of it may, until urgent work comes again.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.opens_at().is_none_or(|at| at <= now)
    }

    /// When Low work may go, unless urgent work comes first; `None` if it may at any time.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        self.last_urgent.filter(|_| !self.quiet.is_zero()).map(|last| last + self.quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(100);

    #[test]
    fn it_opens_once_for_a_quiet_spell_and_shuts_with_awaited_work() {
        let now = Instant::now();
        let mut throttle = Throttle::new(QUIET);
        assert!(throttle.is_open(now));
        throttle.handle_urgent(now);
        assert!(!throttle.is_open(now + QUIET / 2));
        throttle.handle_urgent(now + QUIET / 2);
        assert!(!throttle.is_open(now + QUIET));
        assert_eq!(throttle.opens_at(), Some(now + QUIET / 2 + QUIET));
        assert!(throttle.is_open(now + 2 * QUIET));
        assert!(throttle.is_open(now + 3 * QUIET));
    }

    #[test]
    fn without_a_quiet_time_it_is_always_open() {
        let now = Instant::now();
        let mut throttle = Throttle::new(Duration::ZERO);
        throttle.handle_urgent(now);
        assert!(throttle.is_open(now));
        assert_eq!(throttle.opens_at(), None);
    }
}
