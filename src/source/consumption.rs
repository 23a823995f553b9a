//! The rate at which the readers of a stream consume its bytes. Reads no clock.
//!
//! Pauses do not count: after a pause a player continues at the same rate.

use std::time::{Duration, Instant};

/// Length of a span. The rate is the higher one of the last two spans, because a decoder's rate varies with the music, and is
/// higher while it fills its own buffers.
const SPAN: Duration = Duration::from_secs(15);

/// Minimum time over which a rate is measured, so that the first burst of reads is not taken for a rate.
const MIN_TIME: Duration = Duration::from_secs(1);

/// A longer time between two reads is a pause. Players read several times a second.
const PAUSE: Duration = Duration::from_secs(2);

/// Bytes read, divided by the time in which they were read.
#[derive(Debug, Default)]
pub(crate) struct Consumption {
    last_read: Option<Instant>,
    /// Time of the current span, without pauses.
    active: Duration,
    /// Bytes read in the current span.
    bytes: u64,
    /// Rate of the previous span, in bytes per second.
    previous: f64,
}

impl Consumption {
    /// Records that a reader took bytes.
    pub(crate) fn handle_read(&mut self, bytes: u64, now: Instant) {
        let since = self.last_read.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        // While a player is paused it reads nothing, and its rate must not fall because of that.
        self.active += since.min(PAUSE);
        self.last_read = Some(now);
        if self.active >= SPAN {
            self.previous = self.current();
            (self.active, self.bytes) = (Duration::ZERO, 0);
        }
        self.bytes += bytes;
    }

    /// Number of bytes that the readers consume in `time`. `None` before the first read.
    pub(crate) fn bytes_for(&self, time: Duration) -> Option<u64> {
        self.last_read.map(|_| (self.previous.max(self.current()) * time.as_secs_f64()) as u64)
    }

    fn current(&self) -> f64 {
        self.bytes as f64 / self.active.max(MIN_TIME).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Reads `rate` bytes a second for `seconds`, ten times a second.
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
