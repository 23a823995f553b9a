//! The default choice: the highest variant with which the buffer lasts over a horizon.

use std::time::{Duration, Instant};

use super::{Abr, AbrConfig, Running, Situation};

/// How far ahead the current variant has to last.
const STAY: f64 = 20.0;

/// How far ahead a higher variant has to last. Longer than [`STAY`], so that the choice does not go to and fro.
const RISE: f64 = 60.0;

/// Audio that must stay buffered over the horizon, in seconds, once there was so much.
const RESERVE: f64 = 6.0;

/// A segment whose rest takes more than this share of the buffer is given up.
const ABANDON: f64 = 0.8;

/// Chooses the highest variant with which the buffer would last over a horizon at the expected throughput. A higher variant
/// has to last longer than the current one.
#[derive(Clone, Debug, Default)]
pub struct Horizon {
    config: AbrConfig,
}

impl Horizon {
    /// With these options.
    pub fn new(config: AbrConfig) -> Self {
        Self { config }
    }

    /// Indices of the lowest and the highest variant that are allowed.
    fn bounds(&self, bitrates: &[u64]) -> (usize, usize) {
        let last = bitrates.len().saturating_sub(1);
        let highest = match self.config.at_most {
            Some(most) => bitrates.partition_point(|rate| *rate <= most).saturating_sub(1),
            None => last,
        };
        let lowest = match self.config.at_least {
            Some(least) => bitrates.partition_point(|rate| *rate < least).min(last),
            None => 0,
        };
        // Where both can't be met, the upper bound counts: it may be what the user pays for.
        (lowest.min(highest), highest)
    }
}

impl Abr for Horizon {
    fn choose(&mut self, _: Instant, situation: &Situation<'_>) -> usize {
        let (lowest, highest) = self.bounds(situation.bitrates);
        let Some(throughput) = situation.throughput else {
            let start =
                situation.bitrates.partition_point(|rate| *rate <= self.config.start).saturating_sub(1);
            return situation.current.unwrap_or(start).clamp(lowest, highest);
        };
        let lasts = |level: &usize| {
            let horizon =
                if situation.current.is_some_and(|current| *level <= current) { STAY } else { RISE };
            lasts(situation, situation.bitrates[*level], throughput, horizon)
        };
        (lowest..=highest).rev().find(lasts).unwrap_or(lowest)
    }

    fn abandon(&mut self, _: Instant, situation: &Situation<'_>, running: &Running) -> Option<usize> {
        let current = situation.current?;
        let (lowest, _) = self.bounds(situation.bitrates);
        let left = running.left as f64 * 8.0 / running.throughput.max(1.0);
        let buffered = situation.buffered.as_secs_f64();
        if current <= lowest || left < buffered * ABANDON {
            return None;
        }
        // Worth it only if the other one, from its first byte on, arrives earlier.
        let time = |level: &usize| {
            let bits = situation.bitrates[*level] as f64 * situation.segment.as_secs_f64();
            situation.ttfb.as_secs_f64() + bits / running.throughput.max(1.0)
        };
        let better = (lowest..current).rev().find(|level| time(level) < left.min(buffered * ABANDON));
        better.or_else(|| Some(lowest).filter(|lowest| time(lowest) < left))
    }
}

/// True if the buffer stays above the reserve while segments of this rate are fetched one after the other.
fn lasts(situation: &Situation<'_>, bitrate: u64, throughput: f64, horizon: f64) -> bool {
    let segment = situation.segment.max(Duration::from_millis(100)).as_secs_f64();
    let fetch = situation.ttfb.as_secs_f64() + bitrate as f64 * segment / throughput.max(1.0);
    let capacity = situation.capacity.as_secs_f64();
    // Near the live edge there is no room for a reserve of its usual size.
    let reserve = RESERVE.min(capacity / 2.0);
    let mut buffered = situation.buffered.as_secs_f64();
    for _ in 0..(horizon / segment).ceil() as u32 {
        buffered -= fetch;
        // Below the reserve the buffer has to grow.
        if buffered < reserve && fetch > segment * 0.9 {
            return false;
        }
        buffered = buffered.max(0.0) + segment;
        if buffered >= capacity {
            return true;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BITRATES: [u64; 4] = [48_000, 96_000, 192_000, 320_000];

    fn choose(config: AbrConfig, current: Option<usize>, buffered: u64, throughput: Option<f64>) -> usize {
        let mut situation = Situation::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        situation.buffered = Duration::from_secs(buffered);
        (situation.current, situation.throughput) = (current, throughput);
        Horizon::new(config).choose(Instant::now(), &situation)
    }

    #[test]
    fn the_first_choice_is_modest() {
        assert_eq!(choose(AbrConfig::default(), None, 0, None), 1);
        assert_eq!(choose(AbrConfig { start: 1, ..Default::default() }, None, 0, None), 0);
    }

    #[test]
    fn a_fast_network_gets_the_best_and_a_slow_one_the_least() {
        assert_eq!(choose(AbrConfig::default(), Some(1), 10, Some(5e6)), 3);
        assert_eq!(choose(AbrConfig::default(), Some(3), 10, Some(60_000.0)), 0);
    }

    #[test]
    fn a_full_buffer_keeps_the_quality_over_a_dip() {
        assert_eq!(choose(AbrConfig::default(), Some(3), 100, Some(250_000.0)), 3);
        assert_eq!(choose(AbrConfig::default(), Some(3), 8, Some(250_000.0)), 2);
    }

    #[test]
    fn a_segment_that_would_starve_the_buffer_is_given_up() {
        let mut situation = Situation::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        (situation.current, situation.buffered) = (Some(3), Duration::from_secs(5));
        let mut abr = Horizon::default();
        let mut abandon = |left, rate| abr.abandon(Instant::now(), &situation, &Running::new(left, rate));
        assert_eq!(abandon(200_000, 100_000.0), Some(0));
        assert_eq!(abandon(20_000, 100_000.0), None);
        assert_eq!(abandon(200_000, 1_000_000.0), None);
    }

    proptest! {
        #[test]
        fn the_choice_is_within_bounds_and_more_is_never_worse(
            current in proptest::option::of(0_usize..4),
            buffered in 0_u64..120,
            throughput in 1e3..1e7_f64,
            least in proptest::option::of(1_u64..400_000),
            most in proptest::option::of(1_u64..400_000),
        ) {
            let config = AbrConfig { at_least: least, at_most: most, ..Default::default() };
            let chosen = choose(config.clone(), current, buffered, Some(throughput));
            prop_assert!(chosen < BITRATES.len());
            prop_assert!(most.is_none_or(|most| BITRATES[chosen] <= most || chosen == 0));
            let faster = choose(config.clone(), current, buffered, Some(throughput * 1.5));
            prop_assert!(faster >= chosen, "{faster} with more throughput, {chosen} with less");
            let fuller = choose(config, current, buffered + 10, Some(throughput));
            prop_assert!(fuller >= chosen, "{fuller} with more buffer, {chosen} with less");
        }
    }
}
