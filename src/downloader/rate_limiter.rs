//! How many bytes may be read now under `max_bandwidth`: a token bucket, kept as the one time at which it is full (the generic
//! cell rate algorithm). Pure: time is an argument.
//!
//! Over any time `t`, at most `rate * t + burst` bytes are taken. Prefetches leave half of the burst to urgent work, so urgent
//! work whose own rate is below the limit never waits because of bytes that prefetches took. Prefetches get what it leaves.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::buffer::BUFFER;
use crate::types::Priority;

/// The burst is as much as the rate allows in this time: a thread that the system wakes late, on a busy machine, loses nothing.
const BURST: Duration = Duration::from_millis(250);

/// Minimum burst, in bytes. About as many come along with a response head (10 segments, RFC 6928).
const MIN_BURST: u64 = 16 * 1024;

/// A share is as much as the rate allows in this time. A shorter one would wake a waiting thread more often.
const SHARE: Duration = Duration::from_millis(50);

/// Minimum share, in bytes: a system call for fewer costs more than it brings.
const MIN_SHARE: u64 = 1024;

/// A token bucket.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// Bytes a second.
    rate: NonZeroU64,
    /// When the bucket is full, if nothing is taken before. A time that has passed means that it is full.
    full_at: Instant,
}

impl RateLimiter {
    /// A limiter with a full bucket.
    pub(super) fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Sets another rate. What is left in the bucket stays, up to the new burst.
    pub(super) fn set_rate(&mut self, rate: NonZeroU64, now: Instant) {
        // Rounded up, so that no byte is allowed twice.
        let missing = self.bytes_in(self.full_at.saturating_duration_since(now)) + 1;
        let left = self.burst().saturating_sub(missing);
        self.rate = rate;
        self.full_at = now + self.time_for(self.burst().saturating_sub(left));
    }

    /// Takes the share of one read, which wants at most `wanted` bytes. Returns how many it may read, at least one, or the time
    /// at which to ask again.
    pub(super) fn take(&mut self, wanted: u64, priority: Priority, now: Instant) -> Result<u64, Instant> {
        let share = wanted.clamp(1, self.share());
        let kept = match priority {
            Priority::High => 0,
            // The other half of the bucket is left for urgent reads.
            Priority::Low => self.burst() / 2,
        };
        let after = self.full_at.max(now) + self.time_for(share);
        // A bucket that is empty now is full after the time of a burst. So `full_at` is never later than that.
        let latest = now + self.time_for(self.burst() - kept);
        if after > latest {
            return Err(now + (after - latest));
        }
        self.full_at = after;
        Ok(share)
    }

    /// Takes back bytes that a read was allowed and did not get.
    pub(super) fn give_back(&mut self, unused: u64) {
        // Rounded down: the rest of the share, which was read, still counts in full.
        let time = Duration::from_nanos(self.nanos_for(unused, u128::div_euclid));
        self.full_at = self.full_at.checked_sub(time).unwrap_or(self.full_at);
    }

    /// Maximum number of bytes that are taken at once after a pause.
    fn burst(&self) -> u64 {
        self.bytes_in(BURST).max(MIN_BURST)
    }

    /// Maximum number of bytes of one read.
    fn share(&self) -> u64 {
        self.bytes_in(SHARE).clamp(MIN_SHARE, BUFFER as u64)
    }

    /// Rounded down.
    fn bytes_in(&self, time: Duration) -> u64 {
        let bytes = u128::from(self.rate.get()) * time.as_nanos() / NANOS;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How long the rate needs for these bytes.
    fn time_for(&self, bytes: u64) -> Duration {
        // Rounded up, so that no sum of them is above the rate.
        Duration::from_nanos(self.nanos_for(bytes, u128::div_ceil))
    }

    fn nanos_for(&self, bytes: u64, divide: impl FnOnce(u128, u128) -> u128) -> u64 {
        let nanos = divide(u128::from(bytes) * NANOS, u128::from(self.rate.get()));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limiter(rate: u64, now: Instant) -> RateLimiter {
        RateLimiter::new(NonZeroU64::new(rate).unwrap(), now)
    }

    /// Takes a share, and lets the time pass that this has to wait.
    fn await_share(limiter: &mut RateLimiter, wanted: u64, priority: Priority, now: &mut Instant) -> u64 {
        loop {
            match limiter.take(wanted, priority, *now) {
                Ok(share) => return share,
                Err(at) => {
                    assert!(at > *now, "a wait that is over at once would never end");
                    *now = at;
                }
            }
        }
    }

    /// Rates from 1 byte to 16 GB a second, evenly over the orders of magnitude.
    fn rates() -> impl Strategy<Value = u64> {
        (0..=34_u32, 0..1000_u64).prop_map(|(log, part)| (1 << log) + (part << log) / 1000)
    }

    #[derive(Clone, Debug)]
    struct Read {
        pause: Duration,
        wanted: u64,
        /// Per mille of its share that it does not get.
        unused: u64,
        priority: Priority,
    }

    fn reads() -> impl Strategy<Value = Vec<Read>> {
        let pause = prop_oneof![Just(0), 0..200_000_u64, 0..5_000_000_u64];
        let unused = prop_oneof![3 => Just(0), 1 => 0..=1000_u64];
        let priority = prop_oneof![Just(Priority::High), Just(Priority::Low)];
        let read =
            (pause, 1..1_000_000_u64, unused, priority).prop_map(|(pause, wanted, unused, priority)| Read {
                pause: Duration::from_micros(pause),
                wanted,
                unused,
                priority,
            });
        proptest::collection::vec(read, 1..60)
    }

    proptest! {
        /// Whatever is asked, and whatever is given back.
        #[test]
        fn no_window_has_more_than_its_time_and_a_burst(rate in rates(), reads in reads()) {
            let mut now = Instant::now();
            let mut limiter = limiter(rate, now);
            let mut taken = Vec::new();
            for read in reads {
                now += read.pause;
                let share = await_share(&mut limiter, read.wanted, read.priority, &mut now);
                let unused = share * read.unused / 1000;
                limiter.give_back(unused);
                taken.push((now, share - unused));
            }
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (to, bytes) in &taken[first..] {
                    sum += bytes;
                    let allowed = limiter.bytes_in(*to - *from) + limiter.burst() + 1;
                    prop_assert!(sum <= allowed, "{sum} bytes in {:?}, allowed {allowed}", *to - *from);
                }
            }
        }

        /// A change of the rate allows no byte twice: what was left stays, but for what is beyond the new burst.
        #[test]
        fn a_change_of_the_rate_fills_no_bucket(rates in proptest::collection::vec(rates(), 2..20)) {
            let now = Instant::now();
            let mut limiter = limiter(rates[0], now);
            while limiter.take(u64::MAX, Priority::High, now).is_ok() {}
            let left = limiter.share();
            for rate in rates {
                limiter.set_rate(NonZeroU64::new(rate).unwrap(), now);
                let mut more = 0;
                while more < left && limiter.take(1, Priority::High, now).is_ok() {
                    more += 1;
                }
                prop_assert!(more < left.max(2), "{more} of {left}");
            }
        }

        /// Urgent work that keeps to the rate and half of the burst never waits, however greedy prefetches are.
        #[test]
        fn prefetches_do_not_delay_urgent_work(rate in rates(), reads in reads()) {
            let mut now = Instant::now();
            let mut limiter = limiter(rate, now);
            let mut own = RateLimiter::new(limiter.rate, now);
            for read in reads {
                now += read.pause;
                while limiter.take(read.wanted, Priority::Low, now).is_ok() {}
                // As a bucket of half the size would let it.
                if let Ok(share) = own.take(read.wanted, Priority::Low, now) {
                    prop_assert_eq!(limiter.take(share, Priority::High, now), Ok(share));
                }
            }
        }

        /// What urgent work leaves, prefetches get: the rate is used up.
        #[test]
        fn prefetches_get_what_urgent_work_leaves(rate in rates(), reads in reads()) {
            let start = Instant::now();
            let mut now = start;
            let mut limiter = limiter(rate, now);
            let mut taken = 0;
            for read in reads {
                taken += await_share(&mut limiter, read.wanted, read.priority, &mut now);
                taken += await_share(&mut limiter, u64::MAX, Priority::Low, &mut now);
            }
            // Each share costs a nanosecond more at most, by being rounded up.
            let lost = limiter.bytes_in(Duration::from_nanos(120)) + 1;
            let (taken, allowed) = (taken + lost, limiter.bytes_in(now - start));
            prop_assert!(taken >= allowed, "{taken} bytes of {allowed}");
        }
    }

    #[test]
    fn a_share_is_no_more_than_a_read_wants() {
        let now = Instant::now();
        let mut limiter = limiter(100_000, now);
        assert_eq!(limiter.take(10, Priority::High, now), Ok(10));
        assert_eq!(limiter.take(1 << 20, Priority::High, now), Ok(5000));
        assert_eq!(limiter.take(0, Priority::High, now), Ok(1));
    }

    #[test]
    fn a_pause_saves_no_more_than_a_burst() {
        let start = Instant::now();
        let mut limiter = limiter(1_000_000, start);
        let later = start + Duration::from_secs(3600);
        let shares = std::iter::from_fn(|| limiter.take(u64::MAX, Priority::High, later).ok());
        assert_eq!(shares.sum::<u64>(), 250_000);
        assert_eq!(limiter.take(1000, Priority::High, later), Err(later + Duration::from_millis(1)));
    }

    #[test]
    fn the_highest_rate_is_no_limit_and_the_lowest_one_has_a_burst() {
        let now = Instant::now();
        let mut fastest = limiter(u64::MAX, now);
        assert!((0..1000).all(|_| fastest.take(u64::MAX, Priority::Low, now) == Ok(BUFFER as u64)));
        let mut slowest = limiter(1, now);
        assert_eq!(
            std::iter::from_fn(|| slowest.take(u64::MAX, Priority::High, now).ok()).sum::<u64>(),
            MIN_BURST
        );
        assert_eq!(slowest.take(1, Priority::High, now), Err(now + Duration::from_secs(1)));
    }
}
