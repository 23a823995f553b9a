//! What the first bytes of a playlist show of a slow network, before any segment is requested.
//!
//! A server sends the first 14 KiB of a body without waiting for the client (RFC 6928), so the time between their packets is that of
//! the slowest link. Neither the wait for the response head nor later bytes show as much: both contain round trips, and would make a
//! fast and distant server seem slow.
//!
//! ```text
//!   request ── round trip, server ──▶ head, first packet · packet · packet · packet ┊ a round trip ┊ ...
//!                                     └───────── bytes and time that count ────────┘
//! ```
//!
//! Packets that arrive in one burst show nothing: then the network is fast, or the body short.

use std::time::{Duration, Instant};

/// Bytes of the body that arrive without a wait for the client: ten packets of 1,448 bytes, less a large response head.
pub(crate) const WINDOW: usize = 12 * 1024;

/// Least number of bytes behind the first read: those of a packet. Nagle's algorithm (RFC 896) holds back a rest that is smaller,
/// for a round trip.
const ENOUGH: u64 = 1448;

/// Least time that they take. What a busy machine or a wireless network delays is shorter.
const LEAST: Duration = Duration::from_millis(100);

/// The rate is believed to be this much lower, as that of a first segment: few packets have shown it.
const DOUBT: f64 = 1.3;

/// The reads of one body.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes {
    /// When the first read ended.
    began: Option<Instant>,
    all: usize,
    /// Bytes that were read since then, and until when.
    behind: u64,
    until: Option<Instant>,
}

impl FirstBytes {
    /// A read has brought `bytes`, at `now`.
    pub(crate) fn handle_read(&mut self, bytes: usize, now: Instant) {
        self.all = self.all.saturating_add(bytes);
        if self.began.is_none() {
            self.began = Some(now);
        } else if self.all <= WINDOW {
            (self.behind, self.until) = (self.behind + bytes as u64, Some(now));
        }
    }

    /// A cautious throughput, in bits per second. `None` of a fast network, and of a body that is too short to tell.
    pub(crate) fn throughput(&self) -> Option<f64> {
        let time = self.until?.saturating_duration_since(self.began?);
        let is_known = self.behind >= ENOUGH && time >= LEAST;
        is_known.then(|| self.behind as f64 * 8.0 / time.as_secs_f64() / DOUBT)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packets of a body of `len` bytes over a link of so many bits per second: number of bytes, and when they arrive. The window
    /// is doubled with each round trip.
    fn packets(len: usize, rate: f64, rtt: f64) -> Vec<(usize, f64)> {
        let (mut window, mut sent_at, mut in_window, mut at, mut left) = (10, rtt, 0, rtt, len);
        let mut packets = Vec::new();
        while left > 0 {
            if in_window == window {
                // Acknowledgements arrive a round trip after the packets were sent.
                (window, in_window, sent_at) = (window * 2, 0, sent_at + rtt);
            }
            let bytes = left.min(1448);
            at = f64::max(at, sent_at) + bytes as f64 * 8.0 / rate;
            packets.push((bytes, at));
            (in_window, left) = (in_window + 1, left - bytes);
        }
        packets
    }

    fn shown(packets: &[(usize, f64)]) -> Option<f64> {
        let start = Instant::now();
        let mut first = FirstBytes::default();
        packets
            .iter()
            .for_each(|(bytes, at)| first.handle_read(*bytes, start + Duration::from_secs_f64(*at)));
        first.throughput()
    }

    proptest! {
        #[test]
        fn a_slow_network_is_seen_and_never_taken_for_a_slower_one(
            len in 3000..200_000_usize,
            rate in 8e3..100e3_f64,
            rtt in 0.01..1.0_f64,
        ) {
            let shown = shown(&packets(len, rate, rtt)).unwrap();
            prop_assert!((rate / 1.31..=rate / 1.29).contains(&shown), "{shown} of {rate}");
        }

        /// Whatever the length of the playlist and the distance of the server.
        #[test]
        fn a_fast_network_is_never_taken_for_a_slow_one(
            len in 1..200_000_usize,
            rate in 1e6..1e9_f64,
            rtt in 0.0..2.0_f64,
        ) {
            prop_assert_eq!(shown(&packets(len, rate, rtt)), None);
        }

        #[test]
        fn a_rest_that_the_server_holds_back_for_a_round_trip_shows_nothing(
            full in 1..8_usize,
            rest in 1..1448_usize,
            rtt in 0.0..2.0_f64,
        ) {
            prop_assert_eq!(shown(&[(full * 1448, rtt), (rest, 2.0 * rtt + 0.2)]), None);
        }

        #[test]
        fn whatever_arrives_the_throughput_is_finite(
            reads in proptest::collection::vec((0..20_000_usize, 0..5_000_u64), 0..20),
        ) {
            let (mut first, mut now) = (FirstBytes::default(), Instant::now());
            for (bytes, ms) in reads {
                now += Duration::from_millis(ms);
                first.handle_read(bytes, now);
                prop_assert!(first.throughput().is_none_or(|rate| rate.is_finite() && rate > 0.0));
            }
        }
    }
}
