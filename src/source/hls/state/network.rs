//! What is known of the network, and of the other streams that use it.

use std::time::Duration;

use crate::abr::{Demand, Estimator, Snapshot, share};
use crate::source::hls::config::HlsConfig;
use crate::types::Priority;

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Estimates what all streams of the downloader get together.
    pub(super) estimator: Estimator,
    /// The user pays for the data: nothing is fetched twice.
    pub(super) is_metered: bool,
    /// What the other streams need.
    pub(super) others: Vec<Demand>,
    pub(super) rank: u8,
}

impl Network {
    pub(super) fn new(estimator: Estimator, priority: Priority) -> Self {
        Self { estimator, rank: rank(priority), ..Self::default() }
    }

    /// What a choice is made from, without regard to a segment.
    pub(super) fn snapshot<'a>(
        &self,
        bitrates: &'a [u64],
        segment: Duration,
        config: &HlsConfig,
    ) -> Snapshot<'a> {
        let mut snapshot = Snapshot::new(bitrates, segment, config.buffer);
        snapshot.throughput = self.throughput();
        snapshot.limit =
            snapshot.throughput.filter(|_| self.others.iter().any(|other| other.rank > self.rank));
        snapshot.ttfb = self.estimator.ttfb();
        snapshot.is_metered = self.is_metered;
        snapshot
    }

    /// What this stream may expect, in bits per second.
    pub(super) fn throughput(&self) -> Option<f64> {
        self.estimator.throughput().map(|total| share(total, self.rank, &self.others))
    }
}

pub(super) fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::Low => 0,
        Priority::High => 1,
    }
}
