//! The one body of a server without ranges: how far any reading of it has come, and when it is requested again.

use std::time::{Duration, Instant};

use crate::client::retry::Backoff;
use crate::error::Error;

#[derive(Debug, Default)]
pub(crate) struct OneBody {
    is_running: bool,
    /// One past the last byte that any reading has brought.
    best: u64,
    backoff: Backoff,
}

impl OneBody {
    /// Records that a thread reads the body.
    pub(crate) fn begin(&mut self) {
        self.is_running = true;
    }

    /// Records that the thread has ended.
    pub(crate) fn end(&mut self) {
        self.is_running = false;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.is_running
    }

    pub(crate) fn best(&self) -> u64 {
        self.best
    }

    /// Records bytes from `offset` up to `end`. True if that is further than any reading before.
    pub(crate) fn handle_bytes(&mut self, offset: u64, end: u64, now: Instant) -> bool {
        // A body that is read again from its start makes no progress before it gets to where the last one broke.
        if end <= self.best {
            return false;
        }
        self.backoff.handle_bytes(end - self.best.max(offset), now);
        self.best = end;
        true
    }

    /// The delay before the body is requested again after `error`. `random` is any number.
    pub(crate) fn handle_failure(&mut self, error: &Error, random: u64) -> Option<Duration> {
        // `FileConfig::give_up` and the time limits of the readers end it, not a number of attempts.
        self.backoff.handle_failure(error, u32::MAX, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_read_again_makes_progress_where_it_broke() {
        let (mut body, now) = (OneBody::default(), Instant::now());
        assert!(body.handle_bytes(0, 100, now));
        assert!(!body.handle_bytes(0, 60, now) && !body.handle_bytes(60, 100, now));
        assert!(body.handle_bytes(60, 101, now));
        assert_eq!(body.best(), 101);
    }
}
