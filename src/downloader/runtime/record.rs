//! What a fetch reports: its events, its times, what it counts in the statistics, and its one end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use crate::client;
use crate::downloader::fetch::{Measured, abandoned};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::types::RequestId;

/// What is reported about a fetch: its id, its times, and its one end.
pub(crate) struct Record {
    pub(crate) id: RequestId,
    /// Bytes of body that have arrived.
    pub(crate) received: u64,
    enqueued: Instant,
    started: Option<Instant>,
    pub(crate) control: Arc<Control>,
}

impl Record {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self { id: control.request, received: 0, enqueued: Instant::now(), started: None, control }
    }

    pub(crate) fn publish(&self, event: Event) {
        self.control.publish(&event);
    }

    /// Tells that the head of `body` has come, `ttfb` after it was asked for.
    pub(crate) fn record_head(&self, ttfb: Duration, body: &client::Response) {
        // The wait for a connection that did not answer says nothing of those that do, and would put off the next hedge.
        let own = ttfb.saturating_sub(body.lost());
        if self.control.measured != Measured::Not {
            self.control.all_stats.iter().for_each(|stats| stats.record_head(own));
        }
        let head = body.head();
        log::debug!("{}: {} after {ttfb:.1?}: {}, {}", self.id, head.status(), head.url(), head.extent());
        self.publish(Event::FirstByte { request: self.id, ttfb, status: head.status() });
    }

    /// Tells that it failed and will be tried again.
    pub(crate) fn retry(&self, error: &Error, after: Duration) {
        self.control.all_stats.iter().for_each(|stats| stats.record_retry());
        self.publish(Event::Retrying { request: self.id, error: error.clone(), after });
    }

    pub(crate) fn start(&mut self) {
        let now = Instant::now();
        self.started.get_or_insert(now);
        self.publish(Event::Started { request: self.id, wait: now - self.enqueued });
    }

    /// Publishes the end. Does nothing the second time.
    pub(crate) fn end(&self, result: &Result<(), Error>) {
        let Some(attempt) = self.control.end() else { return };
        // Here, and not with the last reference to the control: that may be dropped in a turn, and with the token may go
        // hooks of the user's.
        drop(attempt);
        self.control.all_stats.iter().for_each(|stats| stats.record_end(result));
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

/// Every fetch ends, also one that nobody has ended.
impl Drop for Record {
    fn drop(&mut self) {
        if !self.control.has_ended() {
            self.end(&Err(abandoned()));
        }
    }
}

/// A body on its way, as the accounts see it.
pub(crate) struct BodyMeter(Arc<Control>);

impl BodyMeter {
    pub(crate) fn new(control: &Arc<Control>) -> Self {
        Self(Arc::clone(control))
    }

    /// Counts what a read of `body` brought, and the time that it took.
    pub(crate) fn advance(&self, body: &mut client::Response, bytes: usize) {
        let measured = self.0.measured;
        let sample = body.take_sample().filter(|_| measured != Measured::Not);
        let [peer, all] = &self.0.all_stats;
        peer.record_read(bytes, sample.as_ref(), None);
        match sample.filter(|_| measured == Measured::Fully) {
            Some(sample) => all.record_read(bytes, Some(&sample), body.origin()),
            None => all.record_read(bytes, None, None),
        }
    }
}
