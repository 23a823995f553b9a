//! Counts the times in which a reader that must not block found no bytes. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::source::Pending;
use crate::source::progress::Starving;

/// The calls of `try_read` of one stream that found no bytes. Calls in a row count once.
#[derive(Debug, Default)]
pub(super) struct Starvation {
    count: u64,
    /// Total time of those that are over.
    total: Duration,
    /// When the one that lasts began, and what the last call said.
    lasting: Option<(Instant, Pending)>,
}

impl Starvation {
    /// Records that a call found no bytes.
    pub(super) fn handle_pending(&mut self, reason: Pending, now: Instant) {
        self.count += u64::from(self.lasting.is_none());
        let began = self.lasting.map_or(now, |(began, _)| began);
        self.lasting = Some((began, reason));
    }

    /// Records that a call found bytes, the end or an error, or that the reader went elsewhere.
    pub(super) fn handle_end(&mut self, now: Instant) {
        if let Some((began, _)) = self.lasting.take() {
            self.total += now.saturating_duration_since(began);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Time of all, with the one that lasts.
    pub(super) fn total(&self, now: Instant) -> Duration {
        self.total + self.current(now).map_or(Duration::ZERO, |starving| starving.duration)
    }

    pub(super) fn current(&self, now: Instant) -> Option<Starving> {
        let (began, reason) = self.lasting?;
        Some(Starving { reason, duration: now.saturating_duration_since(began) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_in_a_row_are_one_starvation() {
        let (mut starvation, start) = (Starvation::default(), Instant::now());
        starvation.handle_end(start);
        assert_eq!(
            (starvation.count(), starvation.total(start), starvation.current(start)),
            (0, Duration::ZERO, None)
        );
        starvation.handle_pending(Pending::Fetching, start);
        starvation.handle_pending(Pending::Retrying, start + SECOND);
        let starving = Starving { reason: Pending::Retrying, duration: 2 * SECOND };
        assert_eq!(starvation.current(start + 2 * SECOND), Some(starving));
        assert_eq!((starvation.count(), starvation.total(start + 2 * SECOND)), (1, 2 * SECOND));
        starvation.handle_end(start + 3 * SECOND);
        assert_eq!(starvation.current(start + 4 * SECOND), None);
        starvation.handle_pending(Pending::OnDisk, start + 10 * SECOND);
        starvation.handle_end(start + 11 * SECOND);
        assert_eq!((starvation.count(), starvation.total(start + 20 * SECOND)), (2, 4 * SECOND));
    }
}
