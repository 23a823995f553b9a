//! What is told and counted: one account for each peer, and one for all of them together.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bandwidth::Bandwidth;
use crate::error::{Error, ErrorKind};
use crate::event::{Bus, Event};

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
pub(super) struct Account {
    pub(super) bus: Bus,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    bandwidth: Bandwidth,
    totals: Totals,
}

impl Account {
    pub(super) fn new(event_capacity: usize) -> Self {
        Self { bus: Bus::new(event_capacity), books: Mutex::default() }
    }

    /// A head arrived, `ttfb` after its request was sent.
    pub(super) fn add_head(&self, ttfb: Duration) {
        self.books.lock().bandwidth.handle_head(ttfb);
    }

    pub(super) fn begin_body(&self, now: Instant) {
        self.books.lock().bandwidth.handle_body(now);
    }

    pub(super) fn add_bytes(&self, bytes: usize, now: Instant) {
        let mut books = self.books.lock();
        books.bandwidth.handle_bytes(bytes, now);
        books.totals.bytes += bytes as u64;
    }

    pub(super) fn end_body(&self, now: Instant) {
        self.books.lock().bandwidth.handle_end(now);
    }

    pub(super) fn add_retry(&self) {
        self.books.lock().totals.retries += 1;
    }

    pub(super) fn add_end(&self, result: &Result<(), Error>) {
        let totals = &mut self.books.lock().totals;
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
        self.books.lock().bandwidth.rate()
    }

    /// Time from request to head, the recent ones counting most.
    pub(super) fn ttfb(&self) -> Option<Duration> {
        self.books.lock().bandwidth.ttfb()
    }

    /// Time from request to head where nothing is in the way.
    pub(super) fn least_ttfb(&self) -> Option<Duration> {
        self.books.lock().bandwidth.least_ttfb()
    }

    pub(super) fn totals(&self) -> Totals {
        self.books.lock().totals
    }
}
