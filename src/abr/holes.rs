//! How much audio to keep for the next hole of the network, by the holes that were seen.
//!
//! A train passes a tunnel every minute or two, and a crowded cell is slow for a minute at a time. The next hole is about as long as
//! those before it, and what is buffered has to outlast it.

use std::time::{Duration, Instant};

/// For so long after a hole the next one is expected.
const EXPECTED: Duration = Duration::from_secs(300);

/// Two sightings with less than this time between them are of the same hole. A transfer that replaces another shows nothing for its
/// first two seconds, and its request takes time.
const APART: Duration = Duration::from_secs(6);

/// A hole is seen this long after its begin: by the throughput of the last two to four seconds of a transfer.
const UNSEEN: Duration = Duration::from_secs(2);

/// What is kept after a short hole: a share of the capacity, at most this many seconds.
const LEAST: (f64, f64) = (0.3, 16.0);

/// What is kept after a long one, at most, as a share of the capacity: the rest is for quality.
const MOST: f64 = 0.5;

#[derive(Clone, Copy, Debug)]
struct Hole {
    began: Instant,
    seen: Instant,
}

impl Hole {
    fn length(self) -> Duration {
        self.seen.saturating_duration_since(self.began) + UNSEEN
    }

    fn is_recent(self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < EXPECTED
    }
}

/// The last hole, and the longest one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holes {
    last: Option<Hole>,
    longest: Option<Hole>,
}

impl Holes {
    /// The network is in a hole.
    pub(super) fn handle_hole(&mut self, now: Instant) {
        let same = self.last.filter(|last| now.saturating_duration_since(last.seen) < APART);
        let hole = Hole { began: same.map_or(now, |last| last.began), seen: now };
        self.last = Some(hole);
        let longer = self.longest.filter(|known| known.is_recent(now) && known.length() > hole.length());
        self.longest = longer.or(Some(hole));
    }

    /// Seconds of audio to keep for the next hole, of a buffer of `capacity` seconds. 0 if none is expected.
    pub(super) fn reserve(&self, now: Instant, capacity: f64) -> f64 {
        let recent = [self.last, self.longest].into_iter().flatten().filter(|hole| hole.is_recent(now));
        let longest = recent.map(Hole::length).max();
        longest.map_or(0.0, |longest| {
            longest.as_secs_f64().max((capacity * LEAST.0).min(LEAST.1)).min(capacity * MOST)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds to keep at `now`, after sightings at these seconds.
    fn reserve(seen: &[u64], now: u64) -> f64 {
        let began = Instant::now();
        let at = |second: &u64| began + Duration::from_secs(*second);
        let mut holes = Holes::default();
        seen.iter().for_each(|second| holes.handle_hole(at(second)));
        holes.reserve(at(&now), 120.0)
    }

    #[test]
    fn the_longest_recent_hole_is_what_is_kept_for_the_next_one() {
        assert_eq!(reserve(&[], 0), 0.0);
        assert_eq!(reserve(&[10], 10), 16.0, "a short one");
        assert_eq!(reserve(&[10, 15, 20, 25, 30], 30), 22.0);
        assert_eq!(reserve(&[10, 15, 20, 25, 30, 100], 200), 22.0, "a short one after a long one");
        assert_eq!(reserve(&[10, 15, 20, 25, 30, 100], 335), 16.0, "the long one is forgotten");
        assert_eq!(reserve(&[10, 15, 20, 25, 30, 100], 400), 0.0);
    }

    #[test]
    fn a_hole_that_lasts_never_takes_more_than_half_of_the_buffer() {
        let seen: Vec<u64> = (0..100).map(|index| 5 * index).collect();
        assert_eq!(reserve(&seen, 500), 60.0);
    }
}
