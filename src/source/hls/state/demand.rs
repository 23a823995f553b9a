//! What this stream needs of the network that it shares with other streams.

use super::State;
use super::network::{SegmentTransfer, rank};
use crate::abr::Demand;
use crate::source::hls::config::Quality;
use crate::source::hls::timeline::Timeline;
use crate::types::Priority;

impl State {
    /// Takes what only the downloader knows.
    pub(crate) fn set_network(&mut self, is_metered: bool, others: Vec<Demand>) {
        (self.network.is_metered, self.network.others) = (is_metered, others);
    }

    pub(crate) fn set_priority(&mut self, priority: Priority) {
        self.network.rank = rank(priority);
    }

    /// What this stream needs of the network.
    pub(crate) fn demand(&self) -> Demand {
        let (rank, bitrates) = (self.network.rank, self.bitrates.corrected());
        let is_fetched = |timeline: &Timeline| timeline.list.is_ended && self.cursor >= timeline.edge();
        if self.queue.is_empty() && self.timeline().is_some_and(is_fetched) {
            // All of it is fetched, so the others may have the whole bandwidth.
            return Demand::new(rank, 0.0);
        }
        match &self.config.quality {
            Quality::Fixed(index) => {
                let bitrate = bitrates[(*index).min(bitrates.len() - 1)];
                Demand::new(rank, bitrate as f64)
            }
            quality @ (Quality::Auto(_) | Quality::Custom(_)) => {
                let highest = *quality.allowed_levels(self.bitrates.named()).end();
                Demand::of_variants(rank, &bitrates[..=highest], self.network.throughput())
            }
        }
    }

    /// Expected throughput in bits per second.
    pub(crate) fn throughput(&self) -> Option<u64> {
        self.network.throughput().map(|rate| rate as u64)
    }

    /// A transfer has ended.
    pub(crate) fn handle_transfer(&mut self, transfer: SegmentTransfer) {
        self.network.handle_transfer(transfer);
    }
}
