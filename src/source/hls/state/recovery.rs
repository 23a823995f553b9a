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
    /// Outages since something arrived.
    pub(super) outages: u32,
}
