//! Bandwidth of the network: bytes divided by the time spent in blocking reads, over all transfers together.
//!
//! The rate of one connection is misleading: of N parallel transfers each seems N times slower than the network. Here each
//! moment counts once, however many transfers share it. The wait for a response head is measured separately, and time in which
//! a body is held back by its reader is left out, but not time in which `max_bandwidth` holds it back:
//!
//! ```text
//!  reads of one body     ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓                  ░░░░░░▓▓▓▓▓▓▓▓▓▓
//!                        blocked, or nearly   held back   │     blocked again: a sample from here on
//!                                                         bytes that had arrived in that time: no sample
//!  samples ── union over all bodies ──▶ [Bandwidth] of a peer, of an origin, of all
//! ```
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

/// Busy time after which older samples count half, in seconds.
const HALF_LIFE: f64 = 2.0;

/// Minimum number of bytes for a rate. Fewer arrive within the initial window of TCP (about 14 KiB, RFC 6928) and show only the
/// latency.
const ENOUGH_BYTES: f64 = 16.0 * 1024.0;

/// Minimum pause between two reads that counts as holding the body back. A shorter one is the cost of processing the bytes:
/// more bytes arrive in it, so it counts as transfer time.
const HELD_BACK: Duration = Duration::from_millis(1);

/// A read that lasts this long has waited: no byte was available when it began. A read of available bytes only copies them.
const WAITED: Duration = Duration::from_millis(1);

/// Maximum number of bytes that arrive while a body is held back. Linux grows a socket's buffer up to 6 MiB by default
/// (`net.ipv4.tcp_rmem`), but rarely for a socket that is not read.
const BACKLOG: usize = 4 * 1024 * 1024;

/// Maximum number of bytes that arrive together with a response head: the size of the client's input buffer.
const WITH_HEAD: usize = 64 * 1024;

/// Maximum number of separate busy intervals that are remembered. A read that began before the oldest of them is rare, because
/// a read ends with the next byte.
const MAX_INTERVALS: usize = 32;

/// Bandwidth sample of one read: `bytes` arrived between `from` and `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) bytes: usize,
    /// The network may have been faster: the time includes the wait for the response head.
    pub(crate) is_lower_bound: bool,
}

impl Sample {
    fn new(from: Instant, to: Instant, bytes: usize) -> Self {
        Self { from, to, bytes, is_lower_bound: false }
    }

    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.to.saturating_duration_since(self.from).as_secs_f64()
    }
}

/// Decides which reads of one body are bandwidth samples.
#[derive(Debug)]
pub(crate) struct ReadMeter {
    /// When the last read ended. The next sample begins there if the body was not held back.
    last_read_at: Option<Instant>,
    /// End of the last read, or of storing its bytes. Time after that is time in which the body is held back.
    taken_until: Option<Instant>,
    /// Maximum number of unread bytes that arrived while the body was not read.
    backlog: usize,
    /// Start of the wait before the next read, if `max_bandwidth` has held it back.
    paced_from: Option<Instant>,
    /// `max_bandwidth`, and not the network, sets the pace of the body: since it held a read back, no read has waited.
    is_paced: bool,
    /// Bytes of the body so far, if no read was a sample.
    unsampled: Option<usize>,
}

impl Default for ReadMeter {
    fn default() -> Self {
        Self {
            last_read_at: None,
            taken_until: None,
            backlog: WITH_HEAD,
            paced_from: None,
            is_paced: false,
            unsampled: Some(0),
        }
    }
}

impl ReadMeter {
    /// Records a read that returned `bytes`, or 0 if it timed out. Returns its sample, if it is one.
    pub(crate) fn handle_read(&mut self, began: Instant, ended: Instant, bytes: usize) -> Option<Sample> {
        let sample = self.sample(began, ended, bytes);
        self.unsampled = self.unsampled.filter(|_| sample.is_none()).map(|before| before + bytes);
        sample
    }

    /// Records that the body is complete, whose request was sent at `sent`. Returns a sample of all of it, if no read was one.
    pub(crate) fn handle_end(&mut self, sent: Instant) -> Option<Sample> {
        let bytes = self.unsampled.take().filter(|bytes| *bytes > 0)?;
        // A short body often arrives together with its head. Without this sample it would not show that the network is faster now.
        Some(Sample { is_lower_bound: true, ..Sample::new(sent, self.last_read_at?, bytes) })
    }

    fn sample(&mut self, began: Instant, ended: Instant, bytes: usize) -> Option<Sample> {
        let paced_from = self.paced_from.take();
        // Judged by when this read was wanted: until then the bytes of the last one were stored, or nothing was done.
        let asked = paced_from.unwrap_or(began);
        let is_held_back =
            self.taken_until.is_some_and(|until| asked.saturating_duration_since(until) >= HELD_BACK);
        let from = self.last_read_at.filter(|_| !is_held_back).unwrap_or(asked);
        (self.last_read_at, self.taken_until) = (Some(ended), Some(ended));
        if is_held_back {
            // All that the socket can have buffered in the meantime. Those bytes came at the speed of the pause, not of the
            // network.
            self.backlog = BACKLOG;
            self.is_paced = false;
        }
        self.is_paced |= paced_from.is_some();
        let was_in_backlog = self.backlog > 0;
        if ended.saturating_duration_since(began) >= WAITED {
            // The backlog was empty: all these bytes arrived during the read, or in the wait before it.
            self.backlog = 0;
            let is_paced = std::mem::replace(&mut self.is_paced, false);
            let from = if was_in_backlog && !is_paced { began } else { from };
            return Some(Sample::new(from, ended, bytes));
        }
        self.backlog = self.backlog.saturating_sub(bytes);
        // By the state before this read: a read that takes the last of the backlog mixes old bytes with new ones. The bytes of
        // a paced body may have arrived earlier, but they were not to be read faster.
        (self.is_paced || !was_in_backlog).then_some(Sample::new(from, ended, bytes))
    }

    /// When the last read ended.
    pub(crate) fn last_read_at(&self) -> Option<Instant> {
        self.last_read_at
    }

    /// Records that `max_bandwidth` has held the next read back since `began`.
    pub(crate) fn handle_paced(&mut self, began: Instant) {
        // This time counts, unlike that in which a reader holds a body back: the rate is what the limit leaves of the network.
        self.paced_from.get_or_insert(began);
    }

    /// Records that the bytes of the last read are stored. Time spent on that does not hold the body back.
    pub(crate) fn handle_stored(&mut self, now: Instant) {
        self.taken_until = Some(now);
    }
}

/// Bytes divided by busy time, in which older samples count less.
#[derive(Debug, Default)]
pub(crate) struct Bandwidth {
    bytes: f64,
    busy: f64,
    counted: Intervals,
    heads: Heads,
}

/// Busy time that was counted, so that each moment counts once.
#[derive(Debug, Default)]
struct Intervals {
    /// In ascending order, without overlaps.
    known: Vec<(Instant, Instant)>,
    /// All time before this is treated as counted.
    floor: Option<Instant>,
}

impl Intervals {
    /// Adds an interval. Returns the part of it that was not counted before.
    fn add(&mut self, from: Instant, to: Instant) -> Duration {
        let from = self.floor.map_or(from, |floor| from.max(floor));
        if to <= from {
            return Duration::ZERO;
        }
        // Intervals that only touch are joined too, so their number stays small.
        let first = self.known.partition_point(|(_, end)| *end < from);
        let behind = self.known.partition_point(|(start, _)| *start <= to);
        let touched = &self.known[first..behind];
        let known: Duration = touched.iter().map(|(start, end)| (*end).min(to) - (*start).max(from)).sum();
        let start = touched.first().map_or(from, |(start, _)| from.min(*start));
        let end = touched.last().map_or(to, |(_, end)| to.max(*end));
        self.known.splice(first..behind, [(start, end)]);
        if self.known.len() > MAX_INTERVALS {
            // The gaps before it are lost: a late read of that time counts as already counted.
            self.floor = Some(self.known.remove(0).1);
        }
        to - from - known
    }
}

/// Times to the response heads of recent requests.
#[derive(Debug, Default)]
struct Heads {
    mean: Option<Duration>,
    /// The last times, in any order.
    last: [Option<Duration>; 8],
    count: usize,
}

impl Bandwidth {
    /// Records a response head that arrived `ttfb` after its request was sent.
    pub(crate) fn handle_head(&mut self, ttfb: Duration) {
        let Heads { mean, last, count } = &mut self.heads;
        // An exponentially weighted mean, in which each new time has a quarter of the weight.
        *mean = Some((mean.unwrap_or(ttfb) * 3 + ttfb) / 4);
        last[*count % last.len()] = Some(ttfb);
        *count = count.wrapping_add(1);
    }

    /// Records a sample of any body. A lower bound counts only where it shows that the rate is too low.
    pub(crate) fn handle_sample(&mut self, sample: &Sample) {
        if sample.is_lower_bound && self.rate().is_none_or(|rate| sample.rate() <= rate) {
            return;
        }
        self.busy += self.counted.add(sample.from, sample.to).as_secs_f64();
        self.bytes += sample.bytes as f64;
        // Both sums are halved, so the rate does not jump and the last few seconds count most.
        if self.busy > 2.0 * HALF_LIFE {
            self.bytes /= 2.0;
            self.busy /= 2.0;
        }
    }

    /// Bandwidth in bytes a second. `None` until enough bytes have arrived.
    pub(crate) fn rate(&self) -> Option<f64> {
        (self.bytes >= ENOUGH_BYTES && self.busy > 0.0).then(|| self.bytes / self.busy)
    }

    /// Mean time from request to response head, in which recent ones count most.
    pub(crate) fn ttfb(&self) -> Option<Duration> {
        self.heads.mean
    }

    /// Shortest of the last few times: that of a request over an open connection, without other transfers in parallel.
    pub(crate) fn least_ttfb(&self) -> Option<Duration> {
        self.heads.last.iter().flatten().min().copied()
    }
}

/// Bandwidth by key, for the keys that were used last.
#[derive(Debug)]
pub(crate) struct RatesBy<K> {
    /// The key that was used last comes first. At most `most` entries.
    rates: Vec<(K, Bandwidth)>,
    most: usize,
}

impl<K: PartialEq + Clone> RatesBy<K> {
    pub(crate) fn new(most: usize) -> Self {
        Self { rates: Vec::new(), most }
    }

    pub(crate) fn handle_sample(&mut self, key: &K, sample: &Sample) {
        match self.rates.iter().position(|(known, _)| known == key) {
            // The order of last use, so that `truncate` below drops the key that was unused for longest.
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
        Sample::new(from, to, bytes)
    }

    /// Rate of samples whose busy time is within twice the half-life.
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
        // The order in which the reads end does not matter.
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
    fn too_few_bytes_give_no_rate() {
        let at = clock();
        assert_eq!(rate_of([sample(at(0), at(1), 1000)]), None);
    }

    #[test]
    fn a_read_that_waits_is_a_sample() {
        let at = clock();
        let mut meter = ReadMeter::default();
        assert_eq!(meter.handle_read(at(0), at(0), 14_000), None);
        assert_eq!(meter.handle_read(at(0), at(20), 10_000), Some(sample(at(0), at(20), 10_000)));
        assert_eq!(meter.handle_read(at(20), at(25), 10_000), Some(sample(at(20), at(25), 10_000)));
        // Storing the bytes does not hold the body back: more arrive in that time.
        meter.handle_stored(at(40));
        assert_eq!(meter.handle_read(at(40), at(40), 30_000), Some(sample(at(25), at(40), 30_000)));
    }

    #[test]
    fn bytes_that_arrived_while_a_body_was_held_back_are_no_sample() {
        let at = clock();
        let mut meter = ReadMeter::default();
        assert_eq!(meter.handle_read(at(0), at(20), 10_000), Some(sample(at(0), at(20), 10_000)));
        assert_eq!(meter.handle_read(at(5000), at(5000), 100_000), None);
        assert_eq!(meter.handle_read(at(5000), at(5000), 100_000), None);
        let waits = meter.handle_read(at(5000), at(5010), 10_000);
        assert_eq!(waits, Some(sample(at(5000), at(5010), 10_000)));
        // More than the system can have buffered has been read: the rest arrives from the network.
        assert_eq!(meter.handle_read(at(9000), at(9000), BACKLOG), None);
        assert_eq!(meter.handle_read(at(9000), at(9000), 1000), Some(sample(at(9000), at(9000), 1000)));
    }

    #[test]
    fn time_in_which_max_bandwidth_holds_a_body_back_counts() {
        let at = clock();
        let mut meter = ReadMeter::default();
        // The burst.
        assert_eq!(meter.handle_read(at(0), at(0), 16_000), None);
        for n in 0..3 {
            meter.handle_paced(at(50 * n));
            let read = meter.handle_read(at(50 * n + 50), at(50 * n + 50), 5000);
            assert_eq!(read, Some(sample(at(50 * n), at(50 * n + 50), 5000)));
        }
        // A share that is there already belongs to the wait before it, which the system had made too long.
        assert_eq!(meter.handle_read(at(150), at(150), 5000), Some(sample(at(150), at(150), 5000)));
        // A reader's pause does not count, also if the limit holds the body back after it.
        meter.handle_paced(at(1000));
        let read = meter.handle_read(at(1050), at(1050), 5000);
        assert_eq!(read, Some(sample(at(1000), at(1050), 5000)));
        assert_eq!(meter.handle_read(at(2000), at(2000), 5000), None);
        // Once a read waits, the network is slower than the limit.
        meter.handle_paced(at(2000));
        assert!(meter.handle_read(at(2010), at(2020), 5000).is_some());
        assert_eq!(meter.handle_read(at(9000), at(9000), 5000), None);
    }

    #[test]
    fn bytes_that_arrived_with_a_head_are_no_sample() {
        let at = clock();
        let mut meter = ReadMeter::default();
        assert_eq!(meter.handle_read(at(0), at(0), WITH_HEAD), None);
        assert!(meter.handle_read(at(0), at(0), 1000).is_some());
    }

    #[test]
    fn a_short_body_shows_that_the_network_is_faster_now_and_never_that_it_is_slower() {
        let at = clock();
        // All of it arrives together with the head.
        let get = |sent: u64, ttfb: u64| {
            let mut meter = ReadMeter::default();
            let arrived = at(sent + ttfb);
            assert_eq!(meter.handle_read(arrived, arrived, WITH_HEAD), None);
            let bound = meter.handle_end(at(sent)).unwrap();
            assert_eq!((bound.from, bound.to, bound.bytes), (at(sent), arrived, WITH_HEAD));
            assert_eq!(meter.handle_end(at(sent)), None);
            bound
        };
        let mut bandwidth = Bandwidth::default();
        bandwidth.handle_sample(&get(0, 10));
        assert_eq!(bandwidth.rate(), None, "a bound is no rate");
        bandwidth.handle_sample(&sample(at(1000), at(2000), 50_000));
        bandwidth.handle_sample(&get(3000, 2000));
        assert_eq!(bandwidth.rate(), Some(50_000.0));
        bandwidth.handle_sample(&get(6000, 10));
        let faster = bandwidth.rate().unwrap();
        assert!(faster > 100_000.0, "{faster}");
        // The rate of a body with samples is known.
        let mut meter = ReadMeter::default();
        assert!(meter.handle_read(at(0), at(20), 10_000).is_some());
        assert_eq!(meter.handle_end(at(0)), None);
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
        /// Each moment counts once, whatever the order in which the reads end.
        #[test]
        fn busy_time_is_the_union_of_the_reads(
            reads in proptest::collection::vec((0..200_u64, 0..50_u64), 1..30),
        ) {
            let at = clock();
            let mut intervals = Intervals::default();
            let mut is_busy = [false; 300];
            let mut counted = Duration::ZERO;
            for (from, len) in reads {
                counted += intervals.add(at(from), at(from + len));
                is_busy[from as usize..(from + len) as usize].fill(true);
            }
            let busy = is_busy.iter().filter(|busy| **busy).count() as u128;
            prop_assert_eq!(counted.as_millis(), busy);
            prop_assert!(intervals.known.windows(2).all(|two| two[0].1 < two[1].0));
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
