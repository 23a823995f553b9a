//! The progress of a segment that is being fetched.

use std::time::{Duration, Instant};

use crate::abr::Progress;

/// A segment of which nothing arrives for this long does not use the network.
pub(super) const STALLED: Duration = Duration::from_secs(2);

/// How often a segment that arrives is compared with what a lower level would cost. Long enough for a first estimate of its
/// rate, and short beside the seconds that a segment plays.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The rule is asked after this long at the latest: a fetch that is silent for longer fails by itself.
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);

/// A request whose response headers have not arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requested {
    pub(super) at: Instant,
    /// When the rule is asked whether to wait longer.
    pub(super) check: Instant,
}

impl Requested {
    /// A request that may take `patience` until the rule is asked.
    pub(super) fn new(at: Instant, patience: Duration) -> Self {
        // A playlist may say that a segment lasts for years.
        Self { at, check: at + bounded(patience) }
    }

    /// The rule was asked at `now`, and waits.
    pub(super) fn handle_checked(&mut self, now: Instant) {
        self.check = now + CHECK_INTERVAL;
    }
}

/// Until the rule is asked about something that does not come.
pub(super) fn bounded(patience: Duration) -> Duration {
    patience.clamp(STALLED, LONGEST_PATIENCE)
}

/// What has arrived of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arriving {
    /// Since its response headers arrived.
    pub(super) progress: Progress,
    pub(super) checked: Instant,
    /// When bytes have arrived.
    pub(super) last: Instant,
    /// Bytes of the body, if the server has announced them.
    pub(super) len: Option<u64>,
    /// The part of all that the streams of the downloader have received since then.
    pub(super) share: f64,
}

impl Arriving {
    pub(super) fn next_check(&self) -> Instant {
        self.checked + CHECK_INTERVAL
    }
}
