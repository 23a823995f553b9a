//! For how long what a reader waits for has been retried without a byte. Pure; time is an argument.

use std::time::{Duration, Instant};

/// The time since the first failed attempt after the last byte, and its limit.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    /// See [`FileConfig::give_up`](crate::FileConfig::give_up).
    give_up: Option<Duration>,
    /// When the first attempt failed. `None` if bytes have arrived since, and while nothing is retried.
    since: Option<Instant>,
}

impl Outage {
    pub(crate) fn new(give_up: Option<Duration>) -> Self {
        Self { give_up, since: None }
    }

    /// Records that an attempt failed at `now`, and that the next one starts at `next`. Returns the limit if that is too late.
    pub(crate) fn handle_failure(&mut self, now: Instant, next: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        self.give_up.filter(|limit| next.saturating_duration_since(since) > *limit)
    }

    /// Records that bytes arrived, or that nothing is retried any more: the time without attempts does not count.
    pub(crate) fn end(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_limit_is_exceeded_if_the_next_attempt_would_start_after_it() {
        let (mut outage, now) = (Outage::new(Some(10 * SECOND)), Instant::now());
        assert_eq!(outage.handle_failure(now, now + SECOND), None);
        assert_eq!(outage.handle_failure(now + 9 * SECOND, now + 10 * SECOND), None);
        assert_eq!(outage.handle_failure(now + 9 * SECOND, now + 11 * SECOND), Some(10 * SECOND));
    }

    #[test]
    fn bytes_and_a_time_without_attempts_begin_it_anew() {
        let (mut outage, now) = (Outage::new(Some(10 * SECOND)), Instant::now());
        outage.handle_failure(now, now);
        outage.end();
        assert_eq!(outage.handle_failure(now + 60 * SECOND, now + 61 * SECOND), None);
    }

    #[test]
    fn without_a_limit_it_lasts_forever() {
        let (mut outage, now) = (Outage::new(None), Instant::now());
        outage.handle_failure(now, now);
        assert_eq!(outage.handle_failure(now + 100_000 * SECOND, now + 100_001 * SECOND), None);
    }
}
