//! What the pool achieved: bytes over the time in which anything was transferred, all transfers together.
//!
//! Per-connection figures lie: of N transfers side by side each looks N times slower than the network is. Here time
//! counts once, however many transfers share it, and the wait for a head does not count.

use std::time::{Duration, Instant};

/// Bytes over busy time, older ones fading out.
#[derive(Debug, Default)]
pub(crate) struct Bandwidth {
    /// Bodies being received now.
    active: usize,
    /// From when on `active` is above zero and the time is not in `busy` yet.
    since: Option<Instant>,
    bytes: f64,
    busy: f64,
    heads: Heads,
}

/// The times of recent heads.
#[derive(Debug, Default)]
struct Heads {
    mean: Option<Duration>,
    /// The last ones, in any order.
    last: [Option<Duration>; 8],
    /// The shortest of those.
    least: Option<Duration>,
    count: usize,
}

/// Busy time after which what came before counts half.
const HALF_LIFE: f64 = 2.0;

/// Less than this says nothing.
const ENOUGH_BYTES: f64 = 16.0 * 1024.0;

impl Bandwidth {
    /// A head arrived, `ttfb` after its request was sent.
    pub(crate) fn handle_head(&mut self, ttfb: Duration) {
        let Heads { mean, last, least, count } = &mut self.heads;
        *mean = Some((mean.unwrap_or(ttfb) * 3 + ttfb) / 4);
        last[*count % last.len()] = Some(ttfb);
        *least = last.iter().flatten().min().copied();
        *count = count.wrapping_add(1);
    }

    /// A body begins to arrive.
    pub(crate) fn handle_body(&mut self, now: Instant) {
        if self.active == 0 {
            self.since = Some(now);
        }
        self.active += 1;
    }

    /// Some bytes of a body arrived.
    pub(crate) fn handle_bytes(&mut self, bytes: usize, now: Instant) {
        self.settle(now);
        self.bytes += bytes as f64;
    }

    /// A body ended.
    pub(crate) fn handle_end(&mut self, now: Instant) {
        self.settle(now);
        self.active = self.active.saturating_sub(1);
        if self.active == 0 {
            self.since = None;
        }
    }

    /// Bytes a second, once enough has been seen.
    pub(crate) fn rate(&self) -> Option<f64> {
        (self.bytes >= ENOUGH_BYTES && self.busy > 0.0).then(|| self.bytes / self.busy)
    }

    /// Time from request to head, the recent ones counting most.
    pub(crate) fn ttfb(&self) -> Option<Duration> {
        self.heads.mean
    }

    /// The shortest of the last few: the time that a request takes when no connection has to be made for it and nothing
    /// else, of ours least of all, is in its way.
    pub(crate) fn least_ttfb(&self) -> Option<Duration> {
        self.heads.least
    }

    fn settle(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        self.since = Some(now.max(since));
        self.busy += elapsed;
        // The sums fade alike, so the rate is that of the last few seconds.
        if self.busy > 2.0 * HALF_LIFE {
            self.bytes /= 2.0;
            self.busy /= 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_transfers_add_up() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bandwidth = Bandwidth::default();
        bandwidth.handle_body(at(0));
        bandwidth.handle_body(at(0));
        bandwidth.handle_bytes(50_000, at(500));
        bandwidth.handle_bytes(50_000, at(1000));
        assert_eq!(bandwidth.rate(), Some(100_000.0));
    }

    #[test]
    fn idle_time_does_not_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bandwidth = Bandwidth::default();
        for begin in [0, 60_000] {
            bandwidth.handle_body(at(begin));
            bandwidth.handle_bytes(100_000, at(begin + 1000));
            bandwidth.handle_end(at(begin + 1000));
        }
        assert_eq!(bandwidth.rate(), Some(100_000.0));
    }

    #[test]
    fn too_little_says_nothing() {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::default();
        bandwidth.handle_body(start);
        bandwidth.handle_bytes(1000, start + Duration::from_millis(1));
        assert_eq!(bandwidth.rate(), None);
    }

    #[test]
    fn a_slow_head_counts_in_the_mean_and_a_fast_one_for_a_while() {
        let ms = Duration::from_millis;
        let mut bandwidth = Bandwidth::default();
        assert_eq!((bandwidth.ttfb(), bandwidth.least_ttfb()), (None, None));
        bandwidth.handle_head(ms(80));
        bandwidth.handle_head(ms(40));
        assert_eq!((bandwidth.ttfb(), bandwidth.least_ttfb()), (Some(ms(70)), Some(ms(40))));
        for _ in 0..7 {
            bandwidth.handle_head(ms(100));
            assert_eq!(bandwidth.least_ttfb(), Some(ms(40)));
        }
        bandwidth.handle_head(ms(100));
        assert_eq!(bandwidth.least_ttfb(), Some(ms(100)));
    }
}
