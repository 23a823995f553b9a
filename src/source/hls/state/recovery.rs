//! A time in which nothing can be fetched.

use std::time::Instant;

use crate::error::Error;

/// No server can be reached.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) error: Error,
    pub(super) retry_at: Instant,
    /// A reader without audio gets the error. Else it waits for the next attempt.
    pub(super) is_reported: bool,
}
