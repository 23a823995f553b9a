//! What is known of the network, and of the other streams that use it.

use std::time::Duration;

use super::State;
use crate::abr::{AbrConfig, Demand, Estimator, Snapshot, share};
use crate::source::hls::config::{HlsConfig, Quality};
use crate::types::Priority;

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Of what all streams of the downloader get together.
    pub(super) estimator: Estimator,
    /// The user pays for the data: nothing is fetched twice.
    is_metered: bool,
    /// What the other streams need.
    others: Vec<Demand>,
    rank: u8,
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
    fn throughput(&self) -> Option<f64> {
        self.estimator.throughput().map(|total| share(total, self.rank, &self.others))
    }
}

impl State {
    /// Takes what only the downloader knows.
    pub(in super::super) fn set_network(&mut self, is_metered: bool, others: Vec<Demand>) {
        (self.network.is_metered, self.network.others) = (is_metered, others);
    }

    pub(in super::super) fn set_priority(&mut self, priority: Priority) {
        self.network.rank = rank(priority);
    }

    /// What this stream needs of the network.
    pub(in super::super) fn demand(&self) -> Demand {
        let (rank, bitrates) = (self.network.rank, &self.bitrates);
        let is_fetched =
            |timeline: &super::Timeline| timeline.list.is_ended && self.cursor >= timeline.edge();
        if self.slots.is_empty() && self.timeline().is_some_and(is_fetched) {
            return Demand::new(rank, 0.0);
        }
        match &self.config.quality {
            Quality::Fixed(index) => {
                let bitrate = bitrates[(*index).min(bitrates.len() - 1)];
                Demand::new(rank, bitrate as f64)
            }
            Quality::Auto(AbrConfig { at_most: Some(most), .. }) => {
                let allowed = bitrates.partition_point(|bitrate| bitrate <= most).max(1);
                Demand::of_variants(rank, &bitrates[..allowed], self.network.throughput())
            }
            Quality::Auto(_) | Quality::Custom(_) => {
                Demand::of_variants(rank, bitrates, self.network.throughput())
            }
        }
    }

    /// Expected throughput in bits per second.
    pub(in super::super) fn throughput(&self) -> Option<u64> {
        self.network.throughput().map(|rate| rate as u64)
    }

    /// A transfer has ended.
    pub(in super::super) fn handle_transfer(&mut self, bytes: u64, duration: Duration, ttfb: Duration) {
        self.network.estimator.handle_transfer(bytes, duration, ttfb);
    }
}

fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::Low => 0,
        Priority::High => 1,
    }
}
