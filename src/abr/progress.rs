//! The throughput of a transfer that is running: over all of it, and of its last few seconds.

use std::time::{Duration, Instant};

use super::Running;

/// The recent throughput is that of at least this time, and of at most twice this time. Long enough for the pauses of a healthy TCP
/// connection on a mobile network, and short beside the buffer.
const RECENT: Duration = Duration::from_secs(2);

/// What has arrived of a transfer so far.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use windway::abr::Progress;
///
/// let began = Instant::now();
/// let mut progress = Progress::new(began);
/// // A megabit in each of ten seconds, and then nothing.
/// for second in 1..=10 {
///     progress.running(began + Duration::from_secs(second), second * 125_000, 1_000_000);
/// }
/// for second in 11..=15 {
///     progress.running(began + Duration::from_secs(second), 1_250_000, 1_000_000);
/// }
/// let running = progress.running(began + Duration::from_secs(16), 1_250_000, 1_000_000);
/// assert_eq!((running.throughput, running.recent), (625_000.0, Some(0.0)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    began: Instant,
    /// When, and how many bytes had arrived. The second one is at least [`RECENT`] after the first, once the transfer is so old.
    marks: [(Instant, u64); 2],
}

impl Progress {
    /// A transfer whose first byte arrives at `began`.
    pub fn new(began: Instant) -> Self {
        Self { began, marks: [(began, 0); 2] }
    }

    /// The transfer at `now`, when `received` bytes have arrived and `left` are missing. To be called at least every second or
    /// so.
    pub fn running(&mut self, now: Instant, received: u64, left: u64) -> Running {
        let rate = |(since, before): (Instant, u64)| {
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            received.saturating_sub(before) as f64 * 8.0 / seconds.max(0.001)
        };
        let age = |(since, _): (Instant, u64)| now.saturating_duration_since(since);
        if age(self.marks[1]) >= RECENT {
            self.marks = [self.marks[1], (now, received)];
        }
        let recent = (age(self.marks[0]) >= RECENT).then(|| rate(self.marks[0]));
        Running { left, throughput: rate((self.began, 0)), recent }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_recent_throughput_forgets_what_is_older_than_four_seconds() {
        let began = Instant::now();
        let mut progress = Progress::new(began);
        let recents: Vec<_> = (1..=20)
            .map(|half| {
                // 1 Mbit/s for five seconds, and then nothing.
                let received = half.min(10) * 62_500;
                let now = began + Duration::from_millis(500 * half);
                progress.running(now, received, 0).recent
            })
            .collect();
        assert_eq!(recents[..3], [None; 3]);
        assert_eq!(recents[3..10], [Some(1_000_000.0); 7]);
        assert_eq!(recents[18], Some(0.0));
    }

    proptest! {
        #[test]
        fn whatever_arrives_the_rates_are_finite(
            steps in proptest::collection::vec((0_u64..5_000, any::<u64>(), any::<u64>()), 1..40),
        ) {
            let mut now = Instant::now();
            let mut progress = Progress::new(now);
            for (ms, received, left) in steps {
                let running = progress.running(now, received, left);
                prop_assert!(running.throughput.is_finite() && running.throughput >= 0.0);
                prop_assert!(running.recent.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
                now += Duration::from_millis(ms);
            }
        }
    }
}
