//! What a fetch reports: its events, its times, its statistics, and its one end.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::control::Control;
use crate::cancel::CancelReason;
use crate::client;
use crate::downloader::rules::Measured;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::types::RequestId;

/// Reports what happens to a fetch.
pub(crate) struct Record {
    pub(crate) id: RequestId,
    /// Bytes of the body that have arrived.
    pub(crate) received: u64,
    enqueued: Instant,
    started: Option<Instant>,
    pub(crate) control: Arc<Control>,
}

impl Record {
    /// Of a fetch that is accepted at `now`.
    pub(crate) fn new(control: Arc<Control>, now: Instant) -> Self {
        Self { id: control.request, received: 0, enqueued: now, started: None, control }
    }

    pub(crate) fn publish(&self, event: Event) {
        self.control.publish(&event);
    }

    /// Reports that the response head of `body` arrived, `ttfb` after the request was sent.
    pub(crate) fn record_head(&self, ttfb: Duration, body: &client::Response) {
        // Without the wait for a connection that never answered: it is not typical, and would delay the next hedged request.
        let own = ttfb.saturating_sub(body.waited_before());
        if self.control.measured != Measured::Not {
            self.control.all_stats.iter().for_each(|stats| stats.record_head(own));
        }
        let head = body.head();
        log::debug!("{}: {} after {ttfb:.1?}: {}, {}", self.id, head.status(), head.url(), head.extent());
        self.publish(Event::FirstByte { request: self.id, ttfb, status: head.status() });
    }

    /// Reports that it failed and is retried.
    pub(crate) fn retry(&self, error: &Error, after: Duration) {
        self.control.all_stats.iter().for_each(|stats| stats.record_retry());
        self.publish(Event::Retrying { request: self.id, error: error.clone(), after });
    }

    /// Reports that it starts on a worker.
    pub(crate) fn start(&mut self) {
        let now = Instant::now();
        // Of the first attempt only: the duration in `Completed` includes the retries.
        self.started.get_or_insert(now);
        self.publish(Event::Started { request: self.id, wait: now - self.enqueued });
    }

    /// Reports the end. Has no effect the second time.
    pub(crate) fn end(&self, result: &Result<(), Error>) {
        let Some(attempt) = self.control.end() else { return };
        // Here, and not with the last reference to the control, which may be dropped with the machine locked: the token may
        // own hooks that are user code.
        drop(attempt);
        // Before the event: a subscriber that asks for the counters when it receives the end finds this fetch counted.
        self.control.all_stats.iter().for_each(|stats| stats.record_end(result));
        if !self.control.is_observed() {
            return;
        }
        let (request, bytes) = (self.id, self.received);
        self.publish(match result {
            Ok(()) => {
                let duration = self.started.unwrap_or(self.enqueued).elapsed();
                let [_, all] = &self.control.all_stats;
                Event::Completed { request, bytes, duration, bandwidth: all.rate() }
            }
            Err(error) => match error.kind() {
                ErrorKind::Cancelled(reason) => Event::Cancelled { request, reason, bytes },
                _ => Event::Failed { request, error: error.clone(), bytes },
            },
        });
    }
}

/// Every fetch ends, also one that is dropped in a panic.
impl Drop for Record {
    fn drop(&mut self) {
        if !self.control.has_ended() {
            // Without an end, a subscriber would wait forever for one.
            self.end(&Err(abandoned()));
        }
    }
}

/// The error of a fetch that was dropped before its end: the downloader is gone, or the thread that ran it panics.
pub(crate) fn abandoned() -> Error {
    if thread::panicking() {
        Error::new(ErrorKind::Panicked, "the thread that ran the fetch panicked")
    } else {
        Error::cancelled(CancelReason::Shutdown)
    }
}

/// Counts the bytes of a body in the statistics.
pub(crate) struct BodyMeter {
    control: Arc<Control>,
    measured: Measured,
}

impl BodyMeter {
    pub(crate) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), measured: control.measured }
    }

    /// The body has turned out to be a live stream: see [`Fetch::live`](crate::Fetch).
    pub(crate) fn make_live(&mut self) {
        self.measured = Measured::ForPeer;
    }

    /// Counts the `bytes` of a read of `body`, and the time that the read took.
    pub(crate) fn advance(&self, body: &mut client::Response, bytes: usize) {
        let measured = self.measured;
        let sample = body.take_sample().filter(|_| measured != Measured::Not);
        let [peer, all] = &self.control.all_stats;
        peer.record_read(bytes, sample.as_ref(), None);
        match sample.filter(|_| measured == Measured::Fully) {
            Some(sample) => all.record_read(bytes, Some(&sample), body.origin()),
            None => all.record_read(bytes, None, None),
        }
    }
}
