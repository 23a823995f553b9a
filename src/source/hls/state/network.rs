//! What is known of the network, and of the other streams that use it.

use std::time::Duration;

use crate::abr::{Bitrates, Demand, Estimator, Snapshot, share};
use crate::source::hls::config::HlsConfig;
use crate::types::Priority;

/// A body that arrives in less than this fraction of the wait for its response head was held back on its way: virus scanners and
/// some proxies receive the whole of it first.
const HELD_BACK: u32 = 20;

/// The least share of the network that is believed: the streams count their bytes at slightly different times.
const LEAST_SHARE: f64 = 0.01;

/// What the transfer of a segment has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentTransfer {
    pub(crate) bytes: u64,
    /// Time in which the body arrived.
    pub(crate) body: Duration,
    /// The part of all that the streams of the downloader received in that time, from 0 to 1.
    pub(crate) share: f64,
    /// Time from the request to the response head.
    pub(crate) wait: Duration,
    /// Shortest time to the first byte of the last few requests.
    pub(crate) ttfb: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Estimates what all streams of the downloader get together.
    pub(super) estimator: Estimator,
    /// Estimates what this stream gets while it shares the network. TCP divides a link evenly among what is transferred, so a stream
    /// that may expect more gets it only once the others need less.
    own: Estimator,
    /// Shortest time to the first byte so far.
    latency: Option<Duration>,
    /// How long the response headers of the last segment took.
    pub(super) last_wait: Duration,
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
        bitrates: &'a Bitrates,
        segment: Duration,
        config: &HlsConfig,
    ) -> Snapshot<'a> {
        let mut snapshot = Snapshot::new(bitrates.corrected(), segment, config.buffer);
        snapshot.named = bitrates.named();
        let share = self.throughput();
        snapshot.throughput = share.map(|share| self.own_throughput().map_or(share, |own| own.min(share)));
        snapshot.limit = share.filter(|_| self.others.iter().any(|other| other.rank > self.rank));
        snapshot.ttfb = self.estimator.ttfb();
        snapshot.is_metered = self.is_metered;
        snapshot
    }

    pub(super) fn handle_transfer(&mut self, transfer: SegmentTransfer) {
        let SegmentTransfer { bytes, body, share, wait, ttfb } = transfer;
        self.own.handle_transfer(bytes, body, ttfb);
        let body = body.mul_f64(share.clamp(LEAST_SHARE, 1.0));
        let latency = self.latency.map_or(ttfb, |known| known.min(ttfb));
        self.latency = Some(latency);
        // Some of the last requests were for playlists, which are short: what these take longer is not latency.
        let held = wait.saturating_sub(latency);
        if held > body * HELD_BACK {
            // The body alone shows how near the proxy is. The network brought it during the wait.
            self.estimator.handle_transfer(bytes, held + body, latency);
        } else {
            self.estimator.handle_transfer(bytes, body, ttfb);
        }
    }

    /// What this stream gets beside the others, in bits per second. `None` if it is alone.
    fn own_throughput(&self) -> Option<f64> {
        let is_shared = self.others.iter().any(|other| other.bitrate > 0.0);
        self.own.throughput().filter(|_| is_shared)
    }

    /// What this stream may expect once the others have adapted, in bits per second. By this it states what it needs: if it stated
    /// what it gets, the others would take the rest.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected throughput after ten segments of 200 kB. The first request was for a playlist, and took 30 ms.
    fn after(body_ms: u64, wait_ms: u64, ttfb_ms: impl Fn(usize) -> u64) -> f64 {
        let mut network = Network::default();
        for index in 0..10 {
            let [body, wait, ttfb] = [body_ms, wait_ms, ttfb_ms(index)].map(Duration::from_millis);
            network.handle_transfer(SegmentTransfer { bytes: 200_000, body, share: 1.0, wait, ttfb });
        }
        network.throughput().unwrap()
    }

    #[test]
    fn a_body_that_a_proxy_holds_until_it_is_whole_shows_the_rate_of_the_network() {
        // After eight segments the playlist is forgotten.
        let rate = after(5, 4030, |index| if index < 7 { 30 } else { 4030 });
        assert!((rate - 400_000.0).abs() < 4_000.0, "{rate}");
    }

    #[test]
    fn latency_is_not_taken_for_the_rate_of_the_network() {
        // A satellite, and a server that thinks before it answers.
        for (body, wait) in [(80, 630), (10, 230)] {
            let rate = after(body, wait, |_| wait.min(600));
            assert!((rate - 1.6e6 / (body as f64 / 1e3)).abs() < 1e4, "{rate}");
        }
    }

    #[test]
    fn beside_others_a_stream_plans_with_no_more_than_it_gets() {
        let bitrates = Bitrates::new(vec![32_000, 64_000]);
        let mut network = Network { rank: 1, ..Network::default() };
        let [body, wait] = [4000, 30].map(Duration::from_millis);
        for _ in 0..10 {
            // A quarter of 400 kbit/s.
            network.handle_transfer(SegmentTransfer { bytes: 50_000, body, share: 0.25, wait, ttfb: wait });
        }
        let planned = |network: &Network| {
            let snapshot = network.snapshot(&bitrates, body, &HlsConfig::default());
            snapshot.throughput.unwrap().round()
        };
        assert_eq!(planned(&network), 400_000.0, "alone");
        network.others = vec![Demand::new(0, 0.0)];
        assert_eq!(planned(&network), 400_000.0, "the other one needs nothing more");
        network.others = vec![Demand::new(0, 64_000.0)];
        assert_eq!(planned(&network), 100_000.0);
        assert_eq!(network.throughput().unwrap().round(), 400_000.0, "it needs its share");
        network.others = vec![Demand::new(1, 350_000.0)];
        assert_eq!(planned(&network), 50_000.0, "less than it gets");
    }
}
