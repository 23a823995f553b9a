//! Delays the hedged requests of a body whose own connection has outlasted them. Pure: reads no clock.
//!
//! On a link that is slower than the media, TCP repairs each loss behind a full queue, and the body is silent for seconds although
//! its connection works. A hedged request brings nothing then: its bytes wait in the same queue, and take part of the link. So each
//! silence that the body's own connection ends beside a hedged request doubles the delay of the next ones. Where connections are
//! dead the hedged request wins, and nothing changes.

use std::time::{Duration, Instant};

/// The delay grows to four times its value: with the default of 1 s, a connection that has died is still replaced before half of
/// the silence limit of 10 s is over.
const MAX_DOUBLINGS: u32 = 2;

/// A lost hedged request counts this long. After half a minute of flow the link is another one.
const MEMORY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct HedgeBackoff {
    doublings: u32,
    /// When the last silence with a hedged request was ended by the body's own connection.
    lost: Option<Instant>,
}

impl HedgeBackoff {
    /// Records that the body's own connection delivered before a hedged request.
    pub(super) fn handle_lost(&mut self, now: Instant) {
        self.doublings = (self.current(now) + 1).min(MAX_DOUBLINGS);
        self.lost = Some(now);
    }

    /// The delay of a hedged request for which `delay` is configured.
    pub(super) fn delay(&self, delay: Duration, now: Instant) -> Duration {
        delay * 2_u32.pow(self.current(now))
    }

    fn current(&self, now: Instant) -> u32 {
        let counts = self.lost.is_some_and(|lost| now.saturating_duration_since(lost) < MEMORY);
        if counts { self.doublings } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(1);

    #[test]
    fn each_lost_hedge_doubles_the_delay_up_to_four_times() {
        let (mut backoff, now) = (HedgeBackoff::default(), Instant::now());
        let delays = [(); 4].map(|()| {
            let delay = backoff.delay(DELAY, now);
            backoff.handle_lost(now);
            delay.as_secs()
        });
        assert_eq!(delays, [1, 2, 4, 4]);
    }

    #[test]
    fn after_half_a_minute_it_is_forgotten() {
        let (mut backoff, now) = (HedgeBackoff::default(), Instant::now());
        backoff.handle_lost(now);
        backoff.handle_lost(now);
        let later = now + MEMORY;
        assert_eq!(backoff.delay(DELAY, later - Duration::from_nanos(1)), 4 * DELAY);
        assert_eq!(backoff.delay(DELAY, later), DELAY);
        backoff.handle_lost(later);
        assert_eq!(backoff.delay(DELAY, later), 2 * DELAY);
    }
}
