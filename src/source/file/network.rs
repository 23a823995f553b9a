//! What the network has shown, and how much may be requested over it at once. Pure; reads no clock.

use std::ops::Range;
use std::time::Duration;

/// Bounds of a piece, which otherwise is what the network gives in `PIECE_TIME`.
pub(super) const PIECE: Range<u64> = 64 * 1024..4 * 1024 * 1024;

/// Target duration of a piece. At its end a piece shares the network with the next one, so pieces should not be shorter; a
/// longer one holds its worker longer.
const PIECE_TIME: Duration = Duration::from_millis(1500);

/// Bounds of a piece for a streaming reader, which requests no more at once than it has read: where bytes are taken
/// as they come, each end of a piece is a gap, and a new piece begins as slowly as its connection does.
pub(super) const STREAMING_PIECE: u64 = 64 * 1024 * 1024;

/// Longest time that a streaming piece may take near the server, since it occupies a worker.
const STREAMING_TIME: Duration = Duration::from_secs(4);

/// Far from the server a streaming piece may take this many round trips. Each next piece begins with a small congestion window:
/// up to six round trips pass before it fills the network and its queue. With 120 that loss is a twentieth.
const STREAMING_TRIPS: u32 = 120;

/// Upper bound of [`STREAMING_TRIPS`] in time.
const MAX_STREAMING_TIME: Duration = Duration::from_secs(12);

/// Bytes that a new connection sends before the first acknowledgement (RFC 6928): ten segments of 1,448. A network that
/// carries no more in a round trip is filled by them at once.
const INITIAL_WINDOW: u64 = 14_480;

/// The piece size until the network's bandwidth is known.
const UNKNOWN_PIECE: u64 = 512 * 1024;

/// Bounds of how far a reader waits for a running piece to get to it. The lower one keeps small jumps from costing a
/// connection each; on a slow network a larger one would cost seconds.
const JOIN_DISTANCE: Range<u64> = 8 * 1024..1024 * 1024;

/// The distance up to which a reader waits for a running piece until the network's bandwidth is known.
const UNKNOWN_JOIN_DISTANCE: u64 = 64 * 1024;

/// Rests of bodies up to this size are read to their end, so that their connections can be used again.
const SMALL_REMAINDER: u64 = 64 * 1024;

/// A delay of the opening up to this long is accepted: no listener notices it.
const UNNOTICED: Duration = Duration::from_millis(10);

/// Lower bound of the bytes that are left of a piece when the next one is requested.
const MIN_LEAD: u64 = 4 * 1024;

/// Upper bound of the same.
pub(super) const MAX_LEAD: u64 = PIECE.end;

/// What the network has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Network {
    /// Bytes a second.
    pub(crate) bandwidth: Option<f64>,
    /// Time from a request to its first byte.
    pub(crate) ttfb: Option<Duration>,
    /// The server answers one connection at a time.
    pub(crate) single_connection: bool,
    /// It is paid for by the byte: nothing is fetched on a guess.
    pub(crate) is_metered: bool,
}

impl Network {
    /// The largest piece.
    pub(super) fn piece(self) -> u64 {
        let piece = |bandwidth| (bandwidth * PIECE_TIME.as_secs_f64()) as u64;
        self.bandwidth.map_or(UNKNOWN_PIECE, piece).clamp(PIECE.start, PIECE.end)
    }

    /// The largest piece for a streaming reader.
    pub(super) fn streaming_piece(self) -> u64 {
        self.bandwidth
            .map_or(0, |bandwidth| (bandwidth * self.streaming_time().as_secs_f64()) as u64)
            .min(STREAMING_PIECE)
    }

    fn streaming_time(self) -> Duration {
        (self.ttfb.unwrap_or_default() * STREAMING_TRIPS).clamp(STREAMING_TIME, MAX_STREAMING_TIME)
    }

    /// True if a piece that has lasted this long may be cut for a fetch that needs its worker, if it [is long](may_be_too_long): the
    /// network was faster when it was requested, or others have come to share it.
    pub(super) fn is_too_long(self, lasted: Duration) -> bool {
        lasted >= 2 * self.streaming_time()
    }

    /// True if a new connection needs several round trips to fill the network, and a measured bandwidth may be that of
    /// such a beginning.
    pub(super) fn has_slow_start(self) -> bool {
        self.bandwidth.is_none() || self.in_one_ttfb() > 2 * INITIAL_WINDOW
    }

    /// What arrives in the time that a new request takes to its first byte.
    pub(super) fn in_one_ttfb(self) -> u64 {
        // Until one is measured: a round trip to another country and back, with some time for the server.
        let ttfb = self.ttfb.unwrap_or(Duration::from_millis(100));
        (self.bandwidth.unwrap_or(0.0) * ttfb.as_secs_f64()) as u64
    }

    /// True if two fetches beside an urgent one, of which a reader needs half of `look` bytes, cost less than the round trip
    /// that one of them saves: the three share the network.
    pub(super) fn foresees(self, look: u64) -> bool {
        let is_fast = self.bandwidth.is_none() || self.in_one_ttfb() >= look / 2;
        is_fast && !self.single_connection && !self.is_metered
    }

    /// True if `bytes` that are requested beside the opening of a file arrive while the opening waits for its window to grow, or
    /// nearly at once.
    pub(crate) fn can_share_opening(self, bytes: u64) -> bool {
        // Other bytes would delay the opening for longer than a later request for them takes.
        self.has_slow_start()
            || self.bandwidth.is_some_and(|bandwidth| bytes as f64 <= bandwidth * UNNOTICED.as_secs_f64())
    }

    /// True if what is `left` of a body arrives sooner than a new connection would be established.
    pub(crate) fn ends_soon(self, left: u64) -> bool {
        left <= self.bandwidth.map_or(SMALL_REMAINDER, |_| SMALL_REMAINDER.min(self.in_one_ttfb()))
    }

    /// The distance from a running piece up to which it is faster to wait for it than to send a new request.
    pub(super) fn join_distance(self) -> u64 {
        // A new request costs the time to its first byte, and the bytes of the abandoned piece that are already on their way.
        self.bandwidth.map_or(UNKNOWN_JOIN_DISTANCE, |_| {
            (2 * self.in_one_ttfb()).clamp(JOIN_DISTANCE.start, JOIN_DISTANCE.end)
        })
    }

    /// How much may be left of a piece when the next one is requested.
    pub(crate) fn pipeline_lead(self) -> u64 {
        if self.single_connection {
            return 0;
        }
        // Half as much again as a request takes when nothing is in its way, for one that is late. Not more than keeps the pipe
        // full: the two pieces share the network, so the one that is wanted sooner would come later.
        let lead = self.in_one_ttfb() / 2 * 3;
        self.bandwidth.map_or(PIECE.start, |_| lead.clamp(MIN_LEAD, self.piece()))
    }
}

/// True if a piece that has lasted this long, and has this much left, may be too long on some network.
pub(super) fn may_be_too_long(left: u64, lasted: Duration) -> bool {
    left > PIECE.end && lasted >= 2 * STREAMING_TIME
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn network(ttfb_ms: u64) -> Network {
        Network { bandwidth: Some(1e6), ttfb: Some(Duration::from_millis(ttfb_ms)), ..Network::default() }
    }

    #[test]
    fn a_piece_that_lasts_is_cut_if_it_is_long() {
        let long = 2 * STREAMING_TIME;
        assert!(may_be_too_long(PIECE.end + 1, long) && !may_be_too_long(PIECE.end, long));
        assert!(!may_be_too_long(64 * MIB, long / 2));
        assert!(network(30).is_too_long(long));
    }

    #[test]
    fn far_from_the_server_a_streaming_piece_lasts_longer() {
        let sizes = [10, 30, 80, 10_000].map(|ttfb| network(ttfb).streaming_piece());
        assert_eq!(sizes, [4_000_000, 4_000_000, 9_600_000, 12_000_000]);
        assert!(!network(100).is_too_long(2 * STREAMING_TIME));
    }
}
