//! What each attempt of a fetch keeps to: its retries, which responses it accepts, and what its times are measured for.

use std::sync::Arc;
use std::time::Duration;

use crate::client::{ResponseHead, Urgency};
use crate::error::Error;
use crate::foreign::Foreign;

/// The rules of a fetch, from its [`Fetch`](super::Fetch).
#[derive(Clone, Default)]
pub(super) struct Rules {
    /// `None` for `max_retries` of the downloader.
    pub(super) max_retries: Option<u32>,
    /// See [`Fetch::max_retry_delay`](super::Fetch::max_retry_delay).
    pub(super) max_retry_delay: Option<Duration>,
    pub(super) validate: Option<Validate>,
    pub(super) measured: Measured,
    pub(super) other_tags: OtherTags,
    /// See [`Fetch::without_if_range`](super::Fetch::without_if_range).
    pub(super) omits_if_range: bool,
    /// Of a live stream: whether its reader is about to run out of bytes. See [`Fetch::redial`](super::Fetch::redial).
    pub(super) redial: Option<Arc<dyn Urgency>>,
    /// See [`Fetch::fail_fast`](super::Fetch::fail_fast).
    pub(super) wait_limit: Option<Duration>,
    /// See [`Fetch::was_available`](super::Fetch::was_available).
    pub(super) was_available: bool,
    /// See [`Fetch::in_outage`](super::Fetch::in_outage).
    pub(super) in_outage: bool,
    /// See [`Fetch::dials_often`](super::Fetch::dials_often).
    pub(super) dials_often: bool,
    /// See [`Fetch::on_retry`](super::Fetch::on_retry).
    pub(super) on_retry: Option<OnRetry>,
}

/// Called with the error of an attempt that is followed by another one.
pub(super) type OnRetry = Arc<dyn Fn(&Error) + Send + Sync>;

/// Refuses a response before a byte of its body is read. Shared by the clones of a fetch.
pub(super) type Validate = Arc<Foreign<Box<CheckHead>>>;

pub(super) type CheckHead = dyn Fn(&ResponseHead) -> Result<(), Error> + Send + Sync;

/// What to do if the rest of a broken body has another entity tag, but the same length and date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OtherTags {
    /// The fetch fails with [`ErrorKind::Changed`](crate::ErrorKind::Changed).
    #[default]
    Change,
    /// The sink's `head` decides.
    AskSink,
}

/// What the time that a fetch waits for its server says about the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Measured {
    /// Its rate and its TTFB count for the peer and for the downloader.
    #[default]
    Fully,
    /// Its rate counts for the peer only: see [`Fetch::live`](super::Fetch::live).
    ForPeer,
    /// Nothing: see [`Fetch::held`](super::Fetch::held).
    Not,
}
