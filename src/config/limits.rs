//! The upper bound of durations.

use std::time::Duration;

/// Upper bound of all durations: adding a very large one to an `Instant` overflows, and sockets refuse it.
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn bound<const N: usize>(limits: [&mut Duration; N]) {
    limits.into_iter().for_each(|limit| *limit = YEAR.min(*limit));
}
