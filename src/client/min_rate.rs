//! Detects bodies below the minimum rate. Reads no clock: the caller passes the time that each read waited.

use std::fmt;
use std::time::Duration;

/// Measures the rate of a body over a window. Only the time in which a reader waited for bytes counts.
#[derive(Debug)]
pub(super) struct MinRateMonitor {
    /// In bytes a second.
    min_rate: u64,
    /// Minimum number of bytes in a window.
    least: u64,
    window: Duration,
    waited: Duration,
    received: u64,
}

impl MinRateMonitor {
    /// `min_rate` is in bytes a second, over a `window` of waiting. 0 accepts any rate.
    pub(super) fn new(min_rate: u64, window: Duration) -> Self {
        let least = (min_rate as f64 * window.as_secs_f64()) as u64;
        Self { min_rate, least, window, waited: Duration::ZERO, received: 0 }
    }

    /// Records a read of `bytes` that took `waited`. True if the window that ends now was below the minimum rate.
    pub(super) fn is_below(&mut self, bytes: usize, waited: Duration) -> bool {
        self.received += bytes as u64;
        self.waited += waited;
        // A shorter window would take a pause of the network for a slow server.
        if self.waited < self.window {
            return false;
        }
        let is_below = self.received < self.least;
        (self.waited, self.received) = (Duration::ZERO, 0);
        is_below
    }
}

/// The text of the error of a body that was too slow.
impl fmt::Display for MinRateMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min_rate, window, .. } = self;
        write!(f, "the body is too slow: less than {min_rate} bytes a second over {window:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_a_second_is_below_the_minimum_rate() {
        let mut min_rate = MinRateMonitor::new(128, 10 * SECOND);
        let below: Vec<bool> = (0..20).map(|_| min_rate.is_below(1, SECOND)).collect();
        assert_eq!(below.iter().position(|below| *below), Some(9));
        assert!(below[19]);
    }

    #[test]
    fn a_slow_body_and_one_without_a_waiting_reader_are_not_below_the_minimum_rate() {
        let mut min_rate = MinRateMonitor::new(128, 10 * SECOND);
        assert!((0..100).all(|_| !min_rate.is_below(130, SECOND)));
        assert!((0..100).all(|_| !min_rate.is_below(1, Duration::ZERO)));
        let mut anything = MinRateMonitor::new(0, SECOND);
        assert!((0..100).all(|_| !anything.is_below(0, SECOND)));
    }
}
