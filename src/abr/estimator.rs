//! Expects the throughput of the next transfer from those that have finished.

use std::time::Duration;

/// Predictions to test before the estimate is trusted: as many as count in RobustMPC.
const TESTS: u32 = 5;

/// Seconds of transfers after which an older one counts half: for the fast and for the slow average.
const HALF_LIVES: [f64; 2] = [3.0, 15.0];

/// Over-prediction that counts, at most: after a hole in the network the estimate would otherwise stay low for minutes.
const MOST_DOUBT: f64 = 1.0;

/// What is left of an over-prediction with each later transfer. A drop has to be believed at once, but then the averages know of it, and
/// to doubt these as much would count it twice. Tuned on seeds 1 to 26 of `benches/abr`.
const DOUBT_KEPT: f64 = 0.5;

/// Over-prediction that is assumed after the first transfer. It shrinks with each prediction that is tested, up to [`TESTS`]:
/// one fast transfer does not show how much the network varies, and at the start nothing is buffered that would hide a mistake.
const UNTESTED: f64 = 0.3;

/// Seconds that a transfer counts for, whatever it took: a slow one must not outweigh the ones after it by its length, nor a
/// fast one be lost.
const COUNTED: (f64, f64) = (0.5, 2.0);

/// A cautious estimate: the lower of a fast and a slow average, divided by the worst recent over-prediction (as in
/// RobustMPC: Yin et al., "A Control-Theoretic Approach for Dynamic Adaptive Video Streaming over HTTP", SIGCOMM 2015; here an older
/// one counts less). The first transfers are doubted too.
///
/// ```
/// use std::time::Duration;
/// use windway::abr::Estimator;
///
/// let mut estimator = Estimator::default();
/// for _ in 0..6 {
///     estimator.handle_transfer(125_000, Duration::from_secs(1), Duration::from_millis(40));
/// }
/// assert_eq!(estimator.throughput().map(|rate| rate.round()), Some(1_000_000.0));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Estimator {
    /// Bits and seconds, weighted by age, for each half-life.
    averages: [(f64, f64); 2],
    /// How far a prediction was above the measured rate, as a share of that: the largest, of which older ones count less.
    over_prediction: f64,
    /// Predictions that were tested, up to [`TESTS`].
    tested: u32,
    ttfb: Option<Duration>,
    /// Throughput before the first transfer.
    remembered: Option<f64>,
}

impl Estimator {
    /// Starts with the throughput, in bits per second, that an earlier session has measured. It counts until the first
    /// transfer.
    ///
    /// ```
    /// assert_eq!(windway::abr::Estimator::remembering(2e6).throughput(), Some(2e6));
    /// ```
    pub fn remembering(throughput: f64) -> Self {
        Self {
            remembered: Some(throughput).filter(|rate| rate.is_finite() && *rate > 0.0),
            ..Self::default()
        }
    }

    /// Records a transfer of `bytes` that took `duration` from its first byte on. That byte arrived after `ttfb`.
    ///
    /// Bytes from a cache, and bytes that the server held back, must not be recorded.
    pub fn handle_transfer(&mut self, bytes: u64, duration: Duration, ttfb: Duration) {
        if bytes == 0 && duration.is_zero() {
            // An empty body. Where time has passed, 0 bytes show that the network brings nothing.
            return;
        }
        // A short body may arrive in one read: its duration is that of a copy, and may be 0.
        let (bits, seconds) = (bytes as f64 * 8.0, duration.as_secs_f64().max(0.000_1));
        if let Some(predicted) = self.plain() {
            let error = (predicted / (bits / seconds) - 1.0).max(0.0);
            self.over_prediction = error.min(MOST_DOUBT).max(self.over_prediction * DOUBT_KEPT);
            self.tested = (self.tested + 1).min(TESTS);
        }
        let counted = seconds.clamp(COUNTED.0, COUNTED.1);
        for ((sum, weight), half_life) in self.averages.iter_mut().zip(HALF_LIVES) {
            let kept = 0.5_f64.powf(counted / half_life);
            *sum = *sum * kept + bits / seconds * counted;
            *weight = *weight * kept + counted;
        }
        // A quarter of each new value: a single slow answer must not change it much.
        self.ttfb = Some(self.ttfb.map_or(ttfb, |known| known.saturating_mul(3).saturating_add(ttfb) / 4));
    }

    /// Expected throughput in bits per second. `None` before the first transfer.
    pub fn throughput(&self) -> Option<f64> {
        // The worst one and not their mean: a rate that is too high empties the buffer, one that is too low costs some quality.
        let worst = self.over_prediction.max(self.untested());
        self.plain().map(|rate| rate / (1.0 + worst))
    }

    /// Expected time to the first byte.
    pub fn ttfb(&self) -> Duration {
        self.ttfb.unwrap_or_default()
    }

    fn untested(&self) -> f64 {
        // An earlier session has tested what is remembered of it.
        if self.ttfb.is_none() {
            return 0.0;
        }
        UNTESTED * (1.0 - f64::from(self.tested) / f64::from(TESTS))
    }

    fn plain(&self) -> Option<f64> {
        let rates =
            self.averages.iter().filter(|(_, seconds)| *seconds > 0.0).map(|(bits, seconds)| bits / seconds);
        rates.reduce(f64::min).or(self.remembered)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(rates: &[f64]) -> f64 {
        let mut estimator = Estimator::default();
        for rate in rates {
            estimator.handle_transfer((rate / 8.0) as u64, Duration::from_secs(1), Duration::ZERO);
        }
        estimator.throughput().unwrap()
    }

    #[test]
    fn a_steady_network_is_known() {
        assert!((after(&[800_000.0; 10]) - 800_000.0).abs() < 1.0);
        assert_eq!(Estimator::default().throughput(), None);
    }

    #[test]
    fn an_estimate_is_doubted_until_predictions_were_tested() {
        let (once, later) = (after(&[800_000.0]), after(&[800_000.0; 3]));
        assert!(once < 650_000.0 && later > once && later < 790_000.0, "{once} {later}");
        // What an earlier session has measured was tested there.
        assert_eq!(Estimator::remembering(2e6).throughput(), Some(2e6));
    }

    #[test]
    fn nothing_in_no_time_shows_nothing() {
        let mut estimator = Estimator::default();
        let mut handle = |bytes| estimator.handle_transfer(bytes, Duration::ZERO, Duration::ZERO);
        (0..10).for_each(|_| handle(0));
        assert_eq!(estimator.throughput(), None);
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0..10_000_u64).prop_map(Duration::from_millis)
        ]
    }

    proptest! {
        #[test]
        fn no_transfer_makes_an_estimate_that_is_no_rate(
            transfers in proptest::collection::vec(
                (prop_oneof![Just(0), Just(u64::MAX), 0..10_000_000_u64], duration(), duration()),
                1..30,
            ),
        ) {
            let mut estimator = Estimator::default();
            for (bytes, duration, ttfb) in transfers {
                estimator.handle_transfer(bytes, duration, ttfb);
                prop_assert!(estimator.throughput().is_none_or(|rate| rate.is_finite() && rate >= 0.0));
            }
        }
    }

    #[test]
    fn a_drop_is_doubted_less_with_each_transfer() {
        let mut rates = vec![800_000.0; 20];
        rates.push(200_000.0);
        let first = after(&rates);
        rates.extend([800_000.0; 3]);
        // Since the drop was as short as one transfer. The averages alone are at 700 kbit/s.
        assert!(first < 400_000.0 && after(&rates) > 600_000.0, "{first} {}", after(&rates));
    }

    #[test]
    fn a_drop_is_believed_at_once_and_a_rise_is_not() {
        let mut rates = vec![800_000.0; 20];
        rates.push(200_000.0);
        assert!(after(&rates) < 400_000.0);
        let mut rates = vec![200_000.0; 20];
        rates.push(800_000.0);
        assert!(after(&rates) < 300_000.0);
    }
}
