//! What is told and counted: one account for each peer, and one for all of them together.

use std::time::Duration;

use parking_lot::Mutex;

use crate::bandwidth::{Bandwidth, RatesBy, Sample};
use crate::error::{Error, ErrorKind};
use crate::event::{Bus, Event};
use crate::origin::Origin;

/// How many fetches came to which end, and what they brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Fetches whose whole body arrived.
    pub completed: u64,
    /// Fetches that failed for good.
    pub failed: u64,
    /// Fetches that were cancelled.
    pub cancelled: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// Bytes of body that arrived, those of fetches that came to nothing included.
    pub bytes: u64,
}

/// The events, the throughput and the totals of some fetches.
#[derive(Debug)]
pub(super) struct PeerStats {
    pub(super) bus: Bus,
    counters: Mutex<Counters>,
}

#[derive(Debug)]
struct Counters {
    bandwidth: Bandwidth,
    /// Rates by the origin that sent the bytes. Kept of all peers together only.
    origins: RatesBy<Origin>,
    totals: Totals,
}

/// Origins whose rate is kept: more than a playlist and its segments come from.
const ORIGINS: usize = 64;

impl PeerStats {
    pub(super) fn new(event_capacity: usize) -> Self {
        let counters = Counters {
            bandwidth: Bandwidth::default(),
            origins: RatesBy::new(ORIGINS),
            totals: Totals::default(),
        };
        Self { bus: Bus::new(event_capacity), counters: Mutex::new(counters) }
    }

    /// A head arrived, `ttfb` after its request was sent.
    pub(super) fn record_head(&self, ttfb: Duration) {
        self.counters.lock().bandwidth.handle_head(ttfb);
    }

    /// Bytes of body arrived, and the read that brought them may have shown how fast the network is. `origin` sent them.
    pub(super) fn record_read(&self, bytes: usize, sample: Option<&Sample>, origin: Option<&Origin>) {
        let mut counters = self.counters.lock();
        counters.totals.bytes += bytes as u64;
        let Some(sample) = sample else { return };
        counters.bandwidth.handle_sample(sample);
        if let Some(origin) = origin {
            counters.origins.handle_sample(origin, sample);
        }
    }

    pub(super) fn record_retry(&self) {
        self.counters.lock().totals.retries += 1;
    }

    pub(super) fn record_end(&self, result: &Result<(), Error>) {
        let totals = &mut self.counters.lock().totals;
        match result.as_ref().map_err(Error::kind) {
            Ok(()) => totals.completed += 1,
            Err(ErrorKind::Cancelled(_)) => totals.cancelled += 1,
            Err(_) => totals.failed += 1,
        }
    }

    pub(super) fn publish(&self, event: &Event) {
        self.bus.publish(event);
    }

    /// Bytes a second, if enough has been seen.
    pub(super) fn rate(&self) -> Option<f64> {
        self.counters.lock().bandwidth.rate()
    }

    /// Bytes a second that came from `origin`, if enough has been seen.
    pub(super) fn rate_of(&self, origin: &Origin) -> Option<f64> {
        self.counters.lock().origins.rate(origin)
    }

    /// Time from request to head, the recent ones counting most.
    pub(super) fn ttfb(&self) -> Option<Duration> {
        self.counters.lock().bandwidth.ttfb()
    }

    /// Time from request to head where nothing is in the way.
    pub(super) fn least_ttfb(&self) -> Option<Duration> {
        self.counters.lock().bandwidth.least_ttfb()
    }

    pub(super) fn totals(&self) -> Totals {
        self.counters.lock().totals
    }
}
