//! What has failed, as far as it decides what is tried next.

use std::time::{Duration, Instant};

use crate::error::Error;

/// No server can be reached.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) error: Error,
    pub(super) retry_at: Instant,
    /// A reader without audio gets the error. Else it waits for the next attempt.
    pub(super) is_reported: bool,
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
    /// Fetching has stopped with this error, until a call returns it.
    pub(super) error: Option<Error>,
    /// Fetching waits, because no server can be reached.
    pub(super) outage: Option<Outage>,
    /// When a body has begun to arrive.
    pub(super) last_arrival: Option<Instant>,
    /// Outages since something arrived.
    pub(super) outages: u32,
}
