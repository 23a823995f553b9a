//! Events, rates and counters: one set for each peer, and one for all peers together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pacer::Pacer;
use crate::bandwidth::{Bandwidth, RatesBy, Sample};
use crate::error::{Error, ErrorKind};
use crate::event::{Bus, Event};
use crate::origin::Origin;

/// Numbers of fetches by outcome, of responses and of bytes. From
/// [`PeerHandle::totals`](crate::downloader::PeerHandle::totals) and [`Stats::totals`](crate::downloader::Stats::totals).
///
/// ```no_run
/// # let peer = windway::Downloader::global()?.register((), Default::default())?;
/// let totals = peer.totals();
/// println!("{} of {} fetches failed", totals.failed, totals.completed + totals.failed + totals.cancelled);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Fetches whose whole body arrived.
    pub completed: u64,
    /// Fetches that failed after all retries.
    pub failed: u64,
    /// Fetches that were cancelled.
    pub cancelled: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// Responses that were accepted. A fetch that is retried, or redirected in mid-body, may have several.
    pub responses: u64,
    /// Bytes of bodies that arrived, including those of failed and cancelled fetches.
    pub bytes: u64,
}

/// Events, rates and totals of one peer's fetches, or of all fetches.
pub(super) struct PeerStats {
    pub(super) bus: Bus,
    counters: Mutex<Counters>,
    /// Bounds the rates.
    pacer: Arc<Pacer>,
}

struct Counters {
    bandwidth: Bandwidth,
    /// Rates by the origin that sent the bytes. Filled for all peers together only.
    origins: RatesBy<Origin>,
    totals: Totals,
    /// When the last bytes arrived, or when that was first asked for. `None` until then: the clock is not read for nothing.
    last_progress: Option<Instant>,
}

/// Number of origins whose bandwidth is kept: more than the origins of a playlist and its segments.
const ORIGINS: usize = 64;

impl PeerStats {
    pub(super) fn new(event_capacity: usize, pacer: &Arc<Pacer>) -> Self {
        let counters = Counters {
            bandwidth: Bandwidth::default(),
            origins: RatesBy::new(ORIGINS),
            totals: Totals::default(),
            last_progress: None,
        };
        Self { bus: Bus::new(event_capacity), counters: Mutex::new(counters), pacer: Arc::clone(pacer) }
    }

    /// What holds the reads of its bodies back.
    pub(super) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// `max_bandwidth` bounds the measured one, also right after it was set.
    fn bounded(&self, bandwidth: Option<f64>) -> Option<f64> {
        let most = self.pacer.limit().map_or(f64::INFINITY, |limit| limit.get() as f64);
        bandwidth.map(|bandwidth| bandwidth.min(most))
    }

    /// Records that a response head arrived, `ttfb` after its request was sent. `None` if that shows nothing about the network.
    pub(super) fn record_head(&self, ttfb: Option<Duration>) {
        let mut counters = self.counters.lock();
        counters.totals.responses += 1;
        if let Some(ttfb) = ttfb {
            counters.bandwidth.handle_head(ttfb);
        }
    }

    /// Records that `origin` sent bytes of a body. `sample` is the time that the read took, if it shows something about the
    /// network.
    pub(super) fn record_read(&self, bytes: usize, sample: Option<&Sample>, origin: Option<&Origin>) {
        let mut counters = self.counters.lock();
        counters.totals.bytes += bytes as u64;
        if let Some(last) = counters.last_progress.as_mut().filter(|_| bytes > 0) {
            *last = Instant::now();
        }
        let Some(sample) = sample else { return };
        counters.bandwidth.handle_sample(sample);
        if let Some(origin) = origin {
            counters.origins.handle_sample(origin, sample);
        }
    }

    /// When the last bytes arrived, from the first call on: that one returns the time of the call.
    pub(super) fn last_progress(&self) -> Instant {
        *self.counters.lock().last_progress.get_or_insert_with(Instant::now)
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

    /// In bytes a second. `None` until enough was transferred.
    pub(super) fn bandwidth(&self) -> Option<f64> {
        let measured = self.counters.lock().bandwidth.rate();
        self.bounded(measured)
    }

    /// That of `origin`, in bytes a second. `None` until enough was transferred.
    pub(super) fn bandwidth_of(&self, origin: &Origin) -> Option<f64> {
        let measured = self.counters.lock().origins.rate(origin);
        self.bounded(measured)
    }

    /// Weighted mean of the TTFB, in which recent requests count most.
    pub(super) fn ttfb(&self) -> Option<Duration> {
        self.counters.lock().bandwidth.ttfb()
    }

    /// Shortest recent TTFB: that of a request that waits for nothing but the network.
    pub(super) fn least_ttfb(&self) -> Option<Duration> {
        self.counters.lock().bandwidth.least_ttfb()
    }

    pub(super) fn totals(&self) -> Totals {
        self.counters.lock().totals
    }
}
