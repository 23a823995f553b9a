//! Adaptive bitrate: which variant to fetch next. Pure, and knows nothing of HTTP or HLS.
//!
//! ```text
//!   finished transfers ─▶ Estimator ─┐
//!   sizes of segments ──▶ Bitrates ──┤
//!   buffer, durations ───────────────┴─▶ Snapshot ─▶ Abr::choose ─▶ index of a variant
//! ```

mod bitrates;
mod estimator;
mod holes;
mod hybrid;
mod progress;
mod replacement;
mod share;

use std::time::{Duration, Instant};

pub use bitrates::Bitrates;
pub use estimator::Estimator;
pub use hybrid::Hybrid;
pub use progress::Progress;
pub use share::{Demand, gives_way, share};

use crate::config::setters::setters;

/// Options of the choice.
///
/// ```
/// let config = windway::abr::AbrConfig::new().at_most(320_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbrConfig {
    /// Highest rate to start with while nothing is known of the network, in bits per second. Default: 500 000, which most
    /// networks have, also if two streams share one; a playlist that arrives more slowly lowers it. Where it is too much all the
    /// same, the first segment is cancelled after half a second.
    pub start: u64,
    /// Throughput that an earlier session has measured, in bits per second. Default: none; then what the downloader has
    /// measured counts.
    pub throughput: Option<u64>,
    /// Lowest rate, in bits per second, as the playlist names it. Has no effect if no variant has so much. Default: none.
    pub at_least: Option<u64>,
    /// Highest rate, in bits per second, as the playlist names it. Has no effect if no variant has so little. Default: none.
    pub at_most: Option<u64>,
    /// Whether buffered segments of low quality are fetched again while the network has throughput to spare. That costs data;
    /// on a metered network it is never done. Default: true.
    pub replaces: bool,
}

setters!(AbrConfig {
    start: u64,
    replaces: bool,
} into {
    throughput: Option<u64>,
    at_least: Option<u64>,
    at_most: Option<u64>,
});

impl Default for AbrConfig {
    fn default() -> Self {
        Self { start: 500_000, throughput: None, at_least: None, at_most: None, replaces: true }
    }
}

/// All that a choice may depend on.
///
/// [`Abr`] shows an example.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Snapshot<'a> {
    /// What the variants are expected to need, in bits per second, ascending. Never empty. Until segments have arrived, that is
    /// what the playlist names; their sizes correct it, also for variants of which none has arrived. See [`Bitrates`].
    pub bitrates: &'a [u64],
    /// The same as the playlist names it. The limits of the user count for these.
    pub named: &'a [u64],
    /// Index of the variant of the last segment.
    pub current: Option<usize>,
    /// Audio that is buffered ahead of the reader, or will be when the segments that are being fetched have arrived.
    pub buffered: Duration,
    /// Audio that may be buffered.
    pub capacity: Duration,
    /// Duration of a segment.
    pub segment: Duration,
    /// Expected throughput, in bits per second: a cautious value. `None` if nothing was measured.
    pub throughput: Option<f64>,
    /// Time from a request to the first byte.
    pub ttfb: Duration,
    /// Highest bitrate, in bits per second, because streams of a higher rank need the rest of the network. Unlike
    /// `throughput` it holds for a full buffer too: TCP would give the stream more than its share, at their cost.
    pub limit: Option<f64>,
    /// No segment has arrived since the opening or the last seek: nothing plays, and a delay costs less than silence later.
    pub is_starting: bool,
    /// The user pays for the data.
    pub is_metered: bool,
}

impl<'a> Snapshot<'a> {
    /// A snapshot in which nothing was measured and nothing is buffered.
    pub fn new(bitrates: &'a [u64], segment: Duration, capacity: Duration) -> Self {
        Self {
            bitrates,
            named: bitrates,
            current: None,
            buffered: Duration::ZERO,
            capacity,
            segment,
            throughput: None,
            ttfb: Duration::ZERO,
            limit: None,
            is_starting: true,
            is_metered: false,
        }
    }

    /// Seconds of a segment.
    fn segment_seconds(&self) -> f64 {
        // A playlist may announce a duration of 0, and times are divided by this.
        self.segment.max(Duration::from_millis(100)).as_secs_f64()
    }

    /// Seconds from the request for a segment of this level to its last byte, at a throughput in bits per second.
    fn fetch_seconds(&self, level: usize, throughput: f64) -> f64 {
        let bits = self.bitrates[level] as f64 * self.segment_seconds();
        // A stalled transfer has a throughput of 0.
        self.ttfb.as_secs_f64() + bits / throughput.max(1.0)
    }
}

/// A segment that has arrived, and that the reader has not reached yet.
///
/// [`Abr::replace`] gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Buffered {
    /// Number of the segment. It stays the same while the segment is buffered, also when it is replaced.
    pub id: u64,
    /// Index of its variant.
    pub level: usize,
    /// Audio ahead of it: the time until the reader reaches it, if it reads at the speed of playing.
    pub starts_in: Duration,
}

impl Buffered {
    /// A segment of this variant, with this much audio ahead of it.
    pub fn new(id: u64, level: usize, starts_in: Duration) -> Self {
        Self { id, level, starts_in }
    }
}

/// A transfer that is running.
///
/// [`Abr::abandon`] gets it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Running {
    /// Bytes that are still missing.
    pub left: u64,
    /// Throughput of this transfer so far, in bits per second.
    pub throughput: f64,
    /// Throughput of the last few seconds, in bits per second. `None` if it has not run for so long.
    pub recent: Option<f64>,
}

impl Running {
    /// A transfer with this many bytes left, that has begun a short time ago. [`Progress`] makes one of a longer transfer.
    pub fn new(left: u64, throughput: f64) -> Self {
        Self { left, throughput, recent: None }
    }
}

/// Chooses variants.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use windway::abr::{Abr, Snapshot};
///
/// /// The highest variant that needs no more than half of the throughput.
/// struct Half;
///
/// impl Abr for Half {
///     fn choose(&mut self, _: Instant, snapshot: &Snapshot<'_>) -> usize {
///         let most = snapshot.throughput.unwrap_or(0.0) / 2.0;
///         snapshot.bitrates.partition_point(|bitrate| *bitrate as f64 <= most).saturating_sub(1)
///     }
/// }
///
/// let bitrates = [64_000, 128_000, 320_000];
/// let mut snapshot = Snapshot::new(&bitrates, Duration::from_secs(6), Duration::from_secs(30));
/// assert_eq!(Half.choose(Instant::now(), &snapshot), 0);
/// snapshot.throughput = Some(400_000.0);
/// assert_eq!(Half.choose(Instant::now(), &snapshot), 1);
/// ```
pub trait Abr: Send {
    /// Index of the variant to fetch the next segment of. An index that is too large is the last one.
    fn choose(&mut self, now: Instant, snapshot: &Snapshot<'_>) -> usize;

    /// A variant to fetch instead of the segment that is being fetched, if that would arrive too late. Called while the segment
    /// arrives; with a throughput of 0 if its response headers do not come for a while. Default: none.
    fn abandon(&mut self, now: Instant, snapshot: &Snapshot<'_>, running: &Running) -> Option<usize> {
        let _ = (now, snapshot, running); // Unused by default: most rules wait for the segment.
        None
    }

    /// Index of a segment of `buffered` to fetch again, and the variant to fetch it of. Called when a segment could be
    /// requested, with the segments in the order of playing. Default: none.
    ///
    /// What is buffered stays until the other one has arrived as a whole.
    fn replace(
        &mut self,
        now: Instant,
        snapshot: &Snapshot<'_>,
        buffered: &[Buffered],
    ) -> Option<(usize, usize)> {
        let _ = (now, snapshot, buffered); // Unused by default: most rules never fetch anything twice.
        None
    }

    /// What [`replace`](Self::replace) has chosen has arrived, and is in the place of the segment with this number. Not called of a
    /// replacement that could not be requested, has failed or came too late. Default: nothing.
    fn handle_replaced(&mut self, id: u64) {
        let _ = id; // For rules with a memory.
    }

    /// Whether to go on with a replacement, with `starts_in` of audio ahead of its segment. Default: while it arrives before.
    fn keeps_replacing(&mut self, now: Instant, running: &Running, starts_in: Duration) -> bool {
        let _ = now; // For rules with a memory.
        running.left as f64 * 8.0 < running.throughput * starts_in.as_secs_f64()
    }
}
