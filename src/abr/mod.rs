//! Adaptive bitrate: which variant to fetch next. Pure, and knows nothing of HTTP or HLS.
//!
//! ```text
//!   finished transfers ─▶ Estimator ─┐
//!   buffer, variants, durations ─────┴─▶ Snapshot ─▶ Abr::choose ─▶ index of a variant
//! ```

mod estimator;
mod hybrid;

use std::time::{Duration, Instant};

pub use estimator::Estimator;
pub use hybrid::Hybrid;

/// Options of the choice.
///
/// ```
/// let mut config = windway::abr::AbrConfig::default();
/// config.at_most = Some(320_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbrConfig {
    /// Highest rate to start with while nothing is known of the network, in bits per second. Default: 150 000.
    pub start: u64,
    /// Throughput that an earlier session has measured, in bits per second. Default: none; then what the downloader has
    /// measured counts.
    pub throughput: Option<u64>,
    /// Lowest rate, in bits per second. Has no effect if no variant has so much. Default: none.
    pub at_least: Option<u64>,
    /// Highest rate, in bits per second. Has no effect if no variant has so little. Default: none.
    pub at_most: Option<u64>,
}

impl Default for AbrConfig {
    fn default() -> Self {
        Self { start: 150_000, throughput: None, at_least: None, at_most: None }
    }
}

/// All that a choice may depend on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Snapshot<'a> {
    /// Rates of the variants, in bits per second, ascending. Never empty.
    pub bitrates: &'a [u64],
    /// Index of the variant of the last segment.
    pub current: Option<usize>,
    /// Audio that is buffered ahead of the reader.
    pub buffered: Duration,
    /// Audio that may be buffered.
    pub capacity: Duration,
    /// Duration of a segment.
    pub segment: Duration,
    /// Expected throughput, in bits per second: a cautious value. `None` if nothing was measured.
    pub throughput: Option<f64>,
    /// Time from a request to the first byte.
    pub ttfb: Duration,
}

impl<'a> Snapshot<'a> {
    /// A snapshot in which nothing was measured and nothing is buffered.
    pub fn new(bitrates: &'a [u64], segment: Duration, capacity: Duration) -> Self {
        let (current, buffered, throughput, ttfb) = (None, Duration::ZERO, None, Duration::ZERO);
        Self { bitrates, current, buffered, capacity, segment, throughput, ttfb }
    }
}

/// A transfer that is running.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Running {
    /// Bytes that are still to come.
    pub left: u64,
    /// Throughput of this transfer so far, in bits per second.
    pub throughput: f64,
}

impl Running {
    /// A transfer with this many bytes left.
    pub fn new(left: u64, throughput: f64) -> Self {
        Self { left, throughput }
    }
}

/// Chooses variants.
pub trait Abr: Send {
    /// Index of the variant to fetch the next segment of. An index that is too large is the last one.
    fn choose(&mut self, now: Instant, snapshot: &Snapshot<'_>) -> usize;

    /// A variant to fetch instead of the segment that is being fetched, if that would arrive too late. Default: none.
    fn abandon(&mut self, now: Instant, snapshot: &Snapshot<'_>, running: &Running) -> Option<usize> {
        let _ = (now, snapshot, running); // Unused by default: most rules wait for the segment.
        None
    }
}
