//! Detects bodies below the minimum rate. Reads no clock: the caller passes the time that each read waited.

use std::time::Duration;

/// Measures the rate of a body over a window. Only the time in which a reader waited for bytes counts.
#[derive(Debug)]
pub(super) struct MinRateMonitor {
    /// Minimum number of bytes in a window.
    least: u64,
    window: Duration,
    waited: Duration,
    came: u64,
}

impl MinRateMonitor {
    /// `min_rate` is in bytes a second, over a `window` of waiting. 0 accepts any rate.
    pub(super) fn new(min_rate: u64, window: Duration) -> Self {
        let least = (min_rate as f64 * window.as_secs_f64()) as u64;
        Self { least, window, waited: Duration::ZERO, came: 0 }
    }

    /// Records a read of `bytes` that took `waited`. True if the window that ends now was below the minimum rate.
    pub(super) fn is_below(&mut self, bytes: usize, waited: Duration) -> bool {
        self.came += bytes as u64;
        self.waited += waited;
        if self.waited < self.window {
            return false;
        }
        let is_below = self.came < self.least;
        (self.waited, self.came) = (Duration::ZERO, 0);
        is_below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_a_second_is_a_trickle() {
        let mut min_rate = MinRateMonitor::new(128, 10 * SECOND);
        let told: Vec<bool> = (0..20).map(|_| min_rate.is_below(1, SECOND)).collect();
        assert_eq!(told.iter().position(|told| *told), Some(9));
        assert!(told[19]);
    }

    #[test]
    fn a_slow_body_and_one_that_nobody_waits_for_are_none() {
        let mut min_rate = MinRateMonitor::new(128, 10 * SECOND);
        assert!((0..100).all(|_| !min_rate.is_below(130, SECOND)));
        assert!((0..100).all(|_| !min_rate.is_below(1, Duration::ZERO)));
        let mut anything = MinRateMonitor::new(0, SECOND);
        assert!((0..100).all(|_| !anything.is_below(0, SECOND)));
    }
}
