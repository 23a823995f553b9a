//! The progress of a segment that is being fetched.

use std::time::{Duration, Instant};

use crate::abr::Progress;

/// How often a segment that arrives is compared with what a lower level would cost. Long enough for a first estimate of its
/// rate, and short beside the seconds that a segment plays.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// What has arrived of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arriving {
    /// Since its response headers arrived.
    pub(super) progress: Progress,
    pub(super) checked: Instant,
    /// When bytes have arrived.
    pub(super) last: Instant,
    pub(super) received: u64,
    /// Bytes of the body, if the server has announced them.
    pub(super) len: Option<u64>,
}

impl Arriving {
    pub(super) fn next_check(&self) -> Instant {
        self.checked + CHECK_INTERVAL
    }
}
