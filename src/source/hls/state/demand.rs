//! What this stream needs of the network that it shares with other streams.

use std::time::Duration;

use super::State;
use super::network::{SegmentTransfer, rank};
use crate::abr::{Demand, gives_way};
use crate::source::hls::config::Quality;
use crate::source::hls::timeline::Timeline;
use crate::types::Priority;

/// A stream with less audio than this lacks some: one or two segments. Less would be no help to one that depends on the others, and
/// they would not last for a segment of theirs.
const LITTLE: Duration = Duration::from_secs(12);

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
        if self.has_stopped() {
            // Until the error is read nothing is fetched.
            return Demand::new(rank, 0.0);
        }
        let is_fetched = |timeline: &Timeline| timeline.list.is_ended && self.cursor >= timeline.edge();
        if self.queue.is_empty() && self.timeline().is_some_and(is_fetched) {
            // All of it is fetched, so the others may have the whole bandwidth.
            return Demand::new(rank, 0.0);
        }
        let demand = match &self.config.quality {
            Quality::Fixed(index) => {
                let bitrate = bitrates[(*index).min(bitrates.len() - 1)];
                Demand::new(rank, bitrate as f64)
            }
            quality @ (Quality::Auto(_) | Quality::Custom(_)) => {
                let highest = *quality.allowed_levels(self.bitrates.named()).end();
                Demand::of_variants(rank, &bitrates[..=highest], self.network.throughput())
            }
        };
        // Not one that waits for a live playlist, or whose server does not answer: the network would not help it.
        let can_fetch = !self.queue.is_empty() && self.recovery.outage.is_none() && self.failure().is_none();
        Demand { lacks_audio: can_fetch && self.buffered() < LITTLE, ..demand }
    }

    /// How much audio is fetched ahead of the reader, at most.
    pub(super) fn capacity(&self) -> Duration {
        let others = &self.network.others;
        let total = self.network.estimator.throughput();
        // Asked often: the rest only if there is a reason.
        let total = total.filter(|_| others.iter().any(|other| other.lacks_audio));
        match total.filter(|total| gives_way(*total, &self.demand(), others)) {
            Some(_) => self.config.buffer.min(LITTLE + self.target_duration()),
            None => self.config.buffer,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::source::hls::state::tests::{End, Player};

    #[test]
    fn a_stream_buffers_little_while_one_that_depends_on_it_lacks_audio() {
        let mut player = Player::new(1);
        let total = player.state.network.estimator.throughput().unwrap();
        // More than an even part. The player has 24 s, in segments of 2 s.
        let mut other = Demand::new(1, 0.8 * total);
        for (lacks_audio, buffered) in [(true, 14), (false, 24)] {
            other.lacks_audio = lacks_audio;
            player.state.set_network(false, vec![other]);
            player.is_woken = true;
            for _ in 0..24 {
                player.end_fetch(0, End::Whole);
            }
            assert_eq!(player.state.buffered(), Duration::from_secs(buffered), "{other:?}");
        }
    }

    #[test]
    fn a_stream_lacks_audio_while_it_is_fetched_and_little_is_there() {
        let mut player = Player::new(1);
        assert!(!player.state.demand().lacks_audio, "nothing is requested");
        player.plan();
        assert!(player.state.demand().lacks_audio);
        (0..8).for_each(|_| player.end_fetch(0, End::Whole));
        assert!(!player.state.demand().lacks_audio, "{:?}", player.state.buffered());
    }

    #[test]
    fn a_stream_that_has_failed_leaves_the_network_to_the_others_until_it_is_read_again() {
        let mut player = Player::new(1);
        while player.state.failure().is_none() {
            assert!(player.state.demand().bitrate > 0.0);
            player.end_fetch(0, End::Broken(0, ErrorKind::Unsupported));
        }
        assert_eq!(player.state.demand(), Demand::new(1, 0.0));
        player.read();
        player.plan();
        assert!(player.errors > 0 && player.state.demand().bitrate > 0.0, "{:?}", player.state);
    }
}
