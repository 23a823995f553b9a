//! How fast the readers of a stream take its bytes. Reads no clock.
//!
//! The rate is what a pause does not change: a player that was paused goes on as fast as before.

use std::time::{Duration, Instant};

/// The rate is that of the last two spans of this length, whichever is faster: what a decoder takes varies with the
/// music, and is more while it fills its own buffers.
const SPAN: Duration = Duration::from_secs(15);

/// Shortest time that a rate is measured over: a first burst is no rate.
const SHORTEST: Duration = Duration::from_secs(1);

/// A reader that comes back later than this has paused. Players read several times a second.
const PAUSE: Duration = Duration::from_secs(2);

/// Bytes that were read, over the time in which they were.
#[derive(Debug, Default)]
pub(crate) struct Consumption {
    last_read: Option<Instant>,
    /// Of the current span, without pauses.
    active: Duration,
    /// Bytes read in the current span.
    bytes: u64,
    /// Bytes per second of the span before.
    previous: f64,
}

impl Consumption {
    /// Records that a reader took bytes.
    pub(crate) fn handle_read(&mut self, bytes: u64, now: Instant) {
        let since = self.last_read.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.active += since.min(PAUSE);
        self.last_read = Some(now);
        if self.active >= SPAN {
            self.previous = self.current();
            (self.active, self.bytes) = (Duration::ZERO, 0);
        }
        self.bytes += bytes;
    }

    /// Bytes that last the readers for `time`. `None` before the first read.
    pub(crate) fn bytes_for(&self, time: Duration) -> Option<u64> {
        self.last_read.map(|_| (self.previous.max(self.current()) * time.as_secs_f64()) as u64)
    }

    fn current(&self) -> f64 {
        self.bytes as f64 / self.active.max(SHORTEST).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Reads `rate` bytes a second for so many seconds, ten times a second.
    fn play(consumption: &mut Consumption, now: &mut Instant, rate: u64, seconds: u64) {
        for _ in 0..seconds * 10 {
            *now += Duration::from_millis(100);
            consumption.handle_read(rate / 10, *now);
        }
    }

    fn minute(consumption: &Consumption) -> u64 {
        consumption.bytes_for(MINUTE).unwrap()
    }

    #[test]
    fn a_speech_file_soon_needs_little_for_a_minute() {
        let (mut consumption, mut now) = (Consumption::default(), Instant::now());
        assert_eq!(consumption.bytes_for(MINUTE), None);
        consumption.handle_read(64 * 1024, now);
        assert_eq!(minute(&consumption), 60 * 64 * 1024);
        play(&mut consumption, &mut now, 8000, 40);
        assert!((480_000..600_000).contains(&minute(&consumption)), "{}", minute(&consumption));
    }

    #[test]
    fn a_fast_reader_is_fast_from_its_first_bytes_on() {
        let (mut consumption, mut now) = (Consumption::default(), Instant::now());
        play(&mut consumption, &mut now, 10_000_000, 1);
        assert!(minute(&consumption) >= 500_000_000);
    }

    #[test]
    fn a_pause_does_not_change_the_rate() {
        let (mut consumption, mut now) = (Consumption::default(), Instant::now());
        play(&mut consumption, &mut now, 40_000, 60);
        now += Duration::from_secs(600);
        play(&mut consumption, &mut now, 40_000, 1);
        assert!((2_300_000..2_600_000).contains(&minute(&consumption)), "{}", minute(&consumption));
    }
}
