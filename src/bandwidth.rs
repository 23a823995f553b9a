//! How fast the network is: bytes over the time spent in blocking reads of it, all transfers together.
//!
//! Per-connection figures lie: of N transfers side by side each looks N times slower than the network is. Here time
//! counts once, however many transfers share it. The wait for a head is kept apart, and what holds a body back is left out:
//!
//! ```text
//!  reads of one body     ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓                  ░░░░░░▓▓▓▓▓▓▓▓▓▓
//!                        blocked, or nearly   held back   │     blocked again: from here on it is the network
//!                                                         bytes that had arrived meanwhile: no sample
//!  samples ── union over all bodies ──▶ [Bandwidth] of a peer, of an origin, of all
//! ```
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

/// Busy time after which what came before counts half.
const HALF_LIFE: f64 = 2.0;

/// Less than this says nothing.
const ENOUGH_BYTES: f64 = 16.0 * 1024.0;

/// A pause between two reads that is shorter is what taking the bytes costs; more arrive in it, and it counts as time of the
/// transfer. In a longer one the body is held back.
const HELD_BACK: Duration = Duration::from_millis(1);

/// A read that lasts so long has waited: nothing was there when it began. One of bytes that are there is a copy.
const WAITED: Duration = Duration::from_millis(1);

/// Bytes that may have arrived while a body was held back: Linux grows a socket's buffer up to 6 MiB by default
/// (`net.ipv4.tcp_rmem`), and seldom does for one that nobody reads.
const BACKLOG: usize = 4 * 1024 * 1024;

/// Bytes that may have arrived along with a head: what the client's buffer holds.
const WITH_HEAD: usize = 64 * 1024;

/// Stretches of busy time that are remembered one by one. Reads that began before the oldest of them are rare: a read ends
/// with the next byte.
const STRETCHES: usize = 32;

/// What a read showed of the network: these bytes came in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) bytes: usize,
}

/// Tells which reads of one body show something of the network, and what.
#[derive(Debug)]
pub(crate) struct ReadMeter {
    /// End of the last read, which is where the next sample begins if the body is not held back.
    read_until: Option<Instant>,
    /// Until when its reader has done nothing but to read it and to store what came.
    taken_until: Option<Instant>,
    /// Bytes to come that may have arrived while nobody read.
    backlog: usize,
}

impl Default for ReadMeter {
    fn default() -> Self {
        Self { read_until: None, taken_until: None, backlog: WITH_HEAD }
    }
}

impl ReadMeter {
    /// A read began and ended, and brought some bytes, or none before its limit.
    pub(crate) fn handle_read(&mut self, began: Instant, ended: Instant, bytes: usize) -> Option<Sample> {
        let is_held_back =
            self.taken_until.is_some_and(|until| began.saturating_duration_since(until) >= HELD_BACK);
        let from = self.read_until.filter(|_| !is_held_back).unwrap_or(began);
        (self.read_until, self.taken_until) = (Some(ended), Some(ended));
        if is_held_back {
            self.backlog = BACKLOG;
        }
        let was_in_backlog = self.backlog > 0;
        if ended.saturating_duration_since(began) >= WAITED {
            // Nothing was left: all that it brought came while it waited.
            self.backlog = 0;
            let from = if was_in_backlog { began } else { from };
            return Some(Sample { from, to: ended, bytes });
        }
        self.backlog = self.backlog.saturating_sub(bytes);
        (!was_in_backlog).then_some(Sample { from, to: ended, bytes })
    }

    /// What came was stored: that took as long as it took, and was no holding back.
    pub(crate) fn handle_stored(&mut self, now: Instant) {
        self.taken_until = Some(now);
    }
}

/// Bytes over busy time, older ones fading out.
#[derive(Debug, Default)]
pub(crate) struct Bandwidth {
    bytes: f64,
    busy: f64,
    counted: Stretches,
    heads: Heads,
}

/// Busy time that was counted: each moment once.
#[derive(Debug, Default)]
struct Stretches {
    /// In order, apart from each other.
    known: Vec<(Instant, Instant)>,
    /// All before this is taken for counted.
    floor: Option<Instant>,
}

impl Stretches {
    /// Adds a stretch. Returns how much of it is new.
    fn add(&mut self, from: Instant, to: Instant) -> Duration {
        let from = self.floor.map_or(from, |floor| from.max(floor));
        if to <= from {
            return Duration::ZERO;
        }
        let first = self.known.partition_point(|(_, end)| *end < from);
        let behind = self.known.partition_point(|(start, _)| *start <= to);
        let touched = &self.known[first..behind];
        let known: Duration = touched.iter().map(|(start, end)| (*end).min(to) - (*start).max(from)).sum();
        let start = touched.first().map_or(from, |(start, _)| from.min(*start));
        let end = touched.last().map_or(to, |(_, end)| to.max(*end));
        self.known.splice(first..behind, [(start, end)]);
        if self.known.len() > STRETCHES {
            self.floor = Some(self.known.remove(0).1);
        }
        to - from - known
    }
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

impl Bandwidth {
    /// A head arrived, `ttfb` after its request was sent.
    pub(crate) fn handle_head(&mut self, ttfb: Duration) {
        let Heads { mean, last, least, count } = &mut self.heads;
        *mean = Some((mean.unwrap_or(ttfb) * 3 + ttfb) / 4);
        last[*count % last.len()] = Some(ttfb);
        *least = last.iter().flatten().min().copied();
        *count = count.wrapping_add(1);
    }

    /// A read of some body showed this.
    pub(crate) fn handle_sample(&mut self, sample: &Sample) {
        self.busy += self.counted.add(sample.from, sample.to).as_secs_f64();
        self.bytes += sample.bytes as f64;
        // The sums fade alike, so the rate is that of the last few seconds.
        if self.busy > 2.0 * HALF_LIFE {
            self.bytes /= 2.0;
            self.busy /= 2.0;
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
}

/// Rates by a key, of the keys that were used last.
#[derive(Debug)]
pub(crate) struct RatesBy<K> {
    /// The one that was used last comes first. As many as may be at most.
    rates: Vec<(K, Bandwidth)>,
    most: usize,
}

impl<K: PartialEq + Clone> RatesBy<K> {
    pub(crate) fn new(most: usize) -> Self {
        Self { rates: Vec::new(), most }
    }

    pub(crate) fn handle_sample(&mut self, key: &K, sample: &Sample) {
        match self.rates.iter().position(|(known, _)| known == key) {
            Some(at) => self.rates[..=at].rotate_right(1),
            None => {
                self.rates.truncate(self.most - 1);
                self.rates.insert(0, (key.clone(), Bandwidth::default()));
            }
        }
        self.rates[0].1.handle_sample(sample);
    }

    pub(crate) fn rate(&self, key: &K) -> Option<f64> {
        self.rates.iter().find(|(known, _)| known == key)?.1.rate()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clock() -> impl Fn(u64) -> Instant + Copy {
        let start = Instant::now();
        move |ms| start + Duration::from_millis(ms)
    }

    fn sample(from: Instant, to: Instant, bytes: usize) -> Sample {
        Sample { from, to, bytes }
    }

    /// Of what comes within the sums' memory.
    fn rate_of(samples: impl IntoIterator<Item = Sample>) -> Option<f64> {
        let mut bandwidth = Bandwidth::default();
        samples.into_iter().for_each(|sample| bandwidth.handle_sample(&sample));
        bandwidth.rate()
    }

    #[test]
    fn parallel_transfers_add_up() {
        let at = clock();
        let rate = rate_of([sample(at(0), at(500), 50_000), sample(at(0), at(1000), 50_000)]);
        assert_eq!(rate, Some(100_000.0));
        // In whatever order their reads end.
        let rate = rate_of([
            sample(at(200), at(300), 50_000),
            sample(at(500), at(600), 50_000),
            sample(at(0), at(1000), 0),
        ]);
        assert_eq!(rate, Some(100_000.0));
    }

    #[test]
    fn idle_time_does_not_count() {
        let at = clock();
        let rate = rate_of([0, 60_000].map(|begin| sample(at(begin), at(begin + 1000), 100_000)));
        assert_eq!(rate, Some(100_000.0));
    }

    #[test]
    fn too_little_says_nothing() {
        let at = clock();
        assert_eq!(rate_of([sample(at(0), at(1), 1000)]), None);
    }

    #[test]
    fn a_read_that_waits_shows_what_came_while_it_waited() {
        let at = clock();
        let mut meter = ReadMeter::default();
        assert_eq!(meter.handle_read(at(0), at(0), 14_000), None);
        assert_eq!(meter.handle_read(at(0), at(20), 10_000), Some(sample(at(0), at(20), 10_000)));
        assert_eq!(meter.handle_read(at(20), at(25), 10_000), Some(sample(at(20), at(25), 10_000)));
        // Storing it is no holding back: more arrives in that time.
        meter.handle_stored(at(40));
        assert_eq!(meter.handle_read(at(40), at(40), 30_000), Some(sample(at(25), at(40), 30_000)));
    }

    #[test]
    fn what_arrived_while_a_body_was_held_back_shows_nothing() {
        let at = clock();
        let mut meter = ReadMeter::default();
        assert_eq!(meter.handle_read(at(0), at(20), 10_000), Some(sample(at(0), at(20), 10_000)));
        assert_eq!(meter.handle_read(at(5000), at(5000), 100_000), None);
        assert_eq!(meter.handle_read(at(5000), at(5000), 100_000), None);
        let waits = meter.handle_read(at(5000), at(5010), 10_000);
        assert_eq!(waits, Some(sample(at(5000), at(5010), 10_000)));
        // As much as the system can have kept has passed: what comes so fast is the network.
        assert_eq!(meter.handle_read(at(9000), at(9000), BACKLOG), None);
        assert_eq!(meter.handle_read(at(9000), at(9000), 1000), Some(sample(at(9000), at(9000), 1000)));
    }

    #[test]
    fn what_came_along_with_a_head_shows_nothing() {
        let at = clock();
        let mut meter = ReadMeter::default();
        assert_eq!(meter.handle_read(at(0), at(0), WITH_HEAD), None);
        assert!(meter.handle_read(at(0), at(0), 1000).is_some());
    }

    #[test]
    fn keys_that_were_not_used_for_long_are_forgotten() {
        let at = clock();
        let mut rates = RatesBy::new(3);
        for key in [1, 2, 3, 1, 4] {
            rates.handle_sample(&key, &sample(at(0), at(1000), 20_000 * key));
        }
        let known = [1, 2, 3, 4].map(|key| rates.rate(&key).is_some());
        assert_eq!(known, [true, false, true, true]);
    }

    proptest! {
        /// Each moment counts once, in whatever order the reads end.
        #[test]
        fn busy_time_is_the_union_of_the_reads(
            reads in proptest::collection::vec((0..200_u64, 0..50_u64), 1..30),
        ) {
            let at = clock();
            let mut stretches = Stretches::default();
            let mut is_busy = [false; 300];
            let mut counted = Duration::ZERO;
            for (from, len) in reads {
                counted += stretches.add(at(from), at(from + len));
                is_busy[from as usize..(from + len) as usize].fill(true);
            }
            let busy = is_busy.iter().filter(|busy| **busy).count() as u128;
            prop_assert_eq!(counted.as_millis(), busy);
            prop_assert!(stretches.known.windows(2).all(|two| two[0].1 < two[1].0));
        }
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
