//! Splits a wait for body bytes into two parts. After the first part the silence is reported.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Handles a wait for body bytes that lasts long.
pub(super) trait OnSilence: Send + Sync {
    /// Called on the reading thread: no byte has arrived since `since`, and the reader continues to wait.
    fn handle_silence(self: Arc<Self>, since: Instant);
}

/// Length of the first part, and the handler of the silence.
pub(super) struct SilenceWatch {
    pub(super) after: Duration,
    pub(super) then: Weak<dyn OnSilence>,
}

impl SilenceWatch {
    /// Calls `wait` with `limit`, or twice, with the report between the two parts, if `limit` is longer than the first part.
    /// `is_timeout` is true for errors that mean that a wait has timed out.
    pub(super) fn wait<T, E>(
        &self,
        limit: Option<Duration>,
        is_timeout: impl Fn(&E) -> bool,
        mut wait: impl FnMut(Option<Duration>) -> Result<T, E>,
    ) -> Result<T, E> {
        if limit.is_some_and(|limit| limit <= self.after) {
            return wait(limit);
        }
        match wait(Some(self.after)) {
            Err(error) if is_timeout(&error) => {}
            result => return result,
        }
        if let Some(then) = self.then.upgrade() {
            // The first part has just timed out, so the silence began that long ago.
            let now = Instant::now();
            then.handle_silence(now.checked_sub(self.after).unwrap_or(now));
        }
        wait(limit.map(|limit| limit - self.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Reports(Mutex<u32>);

    impl OnSilence for Reports {
        fn handle_silence(self: Arc<Self>, _: Instant) {
            *self.0.lock() += 1;
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs a watch whose first `silent` waits time out. Returns the limit of each wait, and the number of reports.
    fn run(limit: Option<Duration>, silent: usize) -> (Vec<Option<Duration>>, u32) {
        let (reports, mut waits) = (Arc::new(Reports::default()), Vec::new());
        let then = Arc::downgrade(&reports) as Weak<dyn OnSilence>;
        let result = SilenceWatch { after: SECOND, then }.wait(
            limit,
            |_: &()| true,
            |limit| {
                waits.push(limit);
                if waits.len() > silent { Ok(()) } else { Err(()) }
            },
        );
        assert_eq!(result.is_ok(), silent < waits.len());
        let reports = *reports.0.lock();
        (waits, reports)
    }

    #[test]
    fn only_a_wait_that_lasts_is_reported() {
        let limit = Some(10 * SECOND);
        assert_eq!(run(limit, 0), (vec![Some(SECOND)], 0));
        assert_eq!(run(limit, 1), (vec![Some(SECOND), Some(9 * SECOND)], 1));
        assert_eq!(run(limit, 2), (vec![Some(SECOND), Some(9 * SECOND)], 1));
        assert_eq!(run(None, 1), (vec![Some(SECOND), None], 1));
    }

    #[test]
    fn a_limit_that_comes_first_ends_the_wait() {
        assert_eq!(run(Some(SECOND), 1), (vec![Some(SECOND)], 0));
    }
}
