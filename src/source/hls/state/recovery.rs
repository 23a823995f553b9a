//! What has failed, as far as it decides what is tried next.

use std::time::{Duration, Instant};

use crate::error::Error;

/// Fetching waits: no server can be reached, or what they answer is of no use.
#[derive(Debug)]
pub(super) struct Outage {
    /// When the next attempt is made, at the latest.
    pub(super) retry_at: Instant,
    /// If not zero, it is made as soon as no more audio than this is buffered: a reader may be faster than the clock.
    pub(super) rest: Duration,
    /// For a reader without audio. `None` if the error may pass: then the reader waits for the next attempt.
    pub(super) permanent: Option<Error>,
}

/// The error of the last attempt, while others follow.
#[derive(Debug)]
pub(super) struct Retrying {
    pub(super) error: Error,
    /// A playlist can't be loaded. Else something of a segment can't.
    pub(super) is_playlist: bool,
}

/// What has failed since something arrived, or since the last seek.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Segments that were skipped one after the other.
    pub(super) skipped: u32,
    /// Why the last of them was, until one arrives or a call has returned it.
    pub(super) last_skip: Option<Error>,
    /// Where the last segment that failed starts, and the variants that do not have it.
    pub(super) tried: Option<(Duration, Vec<usize>)>,
    /// Fetching has stopped with this error, until a call returns it. Of a live stream it has not stopped, unless it was cancelled.
    pub(super) error: Option<Error>,
    /// The live playlist does not change any more, until it does or a call has returned the error.
    pub(super) stuck: Option<Error>,
    /// Since something arrived each variant has failed, so what has failed is no variant.
    pub(super) is_all_excluded: bool,
    pub(super) outage: Option<Outage>,
    /// When the first load of a live playlist failed since the last one that did not.
    pub(super) reload_fails_since: Option<Instant>,
    /// Until bytes arrive.
    pub(super) retrying: Option<Retrying>,
    /// When a body has begun to arrive.
    pub(super) last_arrival: Option<Instant>,
    /// An outage has begun since a segment has arrived.
    pub(super) is_out: bool,
    pub(super) random: Random,
}

/// Random numbers for the delays between attempts. Not for secrets.
#[derive(Debug, Default)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn seed(&mut self, seed: u64) {
        self.0 = seed;
    }

    pub(super) fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
