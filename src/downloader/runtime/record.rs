//! What a fetch reports: its events, its times, its statistics, and its one end.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::control::Control;
use crate::cancel::{CancelReason, CancelToken};
use crate::client::{self, Urgency};
use crate::downloader::pacer::Pacer;
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
    /// The record of a fetch that is accepted at `now`.
    pub(crate) fn new(control: Arc<Control>, now: Instant) -> Self {
        Self { id: control.request, received: 0, enqueued: now, started: None, control }
    }

    /// Publishes and logs `event`, which is made only if its subscribers or the log may want it.
    pub(crate) fn publish(&self, event: impl FnOnce() -> Event) {
        if self.control.is_observed() {
            self.control.publish(&event());
        }
    }

    /// Reports that the response head of `body` arrived, `ttfb` after the request was sent.
    pub(crate) fn record_head(&self, ttfb: Duration, body: &client::Response) {
        // Without the wait for a connection that never answered: it is not typical, and would delay the next hedged request.
        let own = ttfb.saturating_sub(body.waited_before());
        let sample = (self.control.measured != Measured::Not).then_some(own);
        self.control.all_stats.iter().for_each(|stats| stats.record_head(sample));
        let head = body.head();
        log::debug!("{}: {} after {ttfb:.1?}: {}, {}", self.id, head.status(), head.url(), head.extent());
        self.publish(|| Event::FirstByte { request: self.id, ttfb, status: head.status() });
    }

    /// Reports that it failed and is retried.
    pub(crate) fn retry(&self, error: &Error, after: Duration) {
        self.control.all_stats.iter().for_each(|stats| stats.record_retry());
        self.publish(|| Event::Retrying { request: self.id, error: error.clone(), after });
    }

    /// Reports that it starts on a worker.
    pub(crate) fn start(&mut self) {
        let now = Instant::now();
        // Of the first attempt only: the duration in `Completed` includes the retries.
        self.started.get_or_insert(now);
        self.publish(|| Event::Started { request: self.id, wait: now - self.enqueued });
    }

    /// Reports the end. Has no effect the second time.
    pub(crate) fn end(&self, result: &Result<(), Error>) {
        let Some(attempt) = self.control.end() else { return };
        // Here, and not with the last reference to the control, which may be dropped with the machine locked: the token may
        // own hooks that are user code.
        drop(attempt);
        // Before the event: a subscriber that asks for the counters when it receives the end finds this fetch counted.
        self.control.all_stats.iter().for_each(|stats| stats.record_end(result));
        let (request, bytes) = (self.id, self.received);
        self.publish(|| match result {
            Ok(()) => {
                let duration = self.started.unwrap_or(self.enqueued).elapsed();
                let [_, all] = &self.control.all_stats;
                Event::Completed { request, bytes, duration, bandwidth: all.bandwidth() }
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

/// Holds the reads of a body back as `max_bandwidth` asks, and counts its bytes in the statistics.
pub(crate) struct BodyMeter {
    control: Arc<Control>,
    measured: Measured,
    /// Bytes that the next read was allowed.
    share: usize,
}

impl BodyMeter {
    pub(crate) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), measured: control.measured, share: 0 }
    }

    /// The body has turned out to be a live stream: see [`Fetch::live`](crate::Fetch).
    pub(crate) fn make_live(&mut self) {
        self.measured = Measured::ForPeer;
    }

    fn pacer(&self) -> &Pacer {
        let [_, all] = &self.control.all_stats;
        all.pacer()
    }

    /// How many of `wanted` bytes of `body` may be read now. `None` if `max_bandwidth` allows none yet. Call
    /// [`advance`](Self::advance) after the read.
    pub(crate) fn try_admit(&mut self, body: &client::Response, wanted: usize) -> Option<usize> {
        let share = self.pacer().try_take(up_to_end(body, wanted), &*self.control)?;
        self.share = share;
        Some(share)
    }

    /// Blocks until [`try_admit`](Self::try_admit) would allow some. `None` if `token` is cancelled or `is_interrupted`, which is
    /// asked with a lock held, and again after each change of priorities and preemptions.
    pub(crate) fn await_share(
        &mut self,
        body: &mut client::Response,
        wanted: usize,
        token: &CancelToken,
        is_interrupted: impl Fn() -> bool,
    ) -> Option<usize> {
        let began = Instant::now();
        let [_, all] = &self.control.all_stats;
        let _on_cancel = token.wake_on_cancel({
            let all = Arc::clone(all);
            move || all.pacer().recheck()
        });
        self.control.set_paced(true, began);
        let urgency = Arc::clone(&self.control) as Arc<dyn Urgency>;
        let is_over = || token.is_cancelled() || is_interrupted();
        let share = self.pacer().wait(up_to_end(body, wanted), &urgency, is_over);
        self.control.set_paced(false, Instant::now());
        body.note_paced(began);
        self.share = share.unwrap_or(0);
        share
    }

    /// Counts the `bytes` of a read of `body`, and the time that the read took.
    pub(crate) fn advance(&mut self, body: &mut client::Response, bytes: usize) {
        let share = std::mem::take(&mut self.share);
        self.pacer().give_back(share.saturating_sub(bytes));
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

/// As many of `wanted` bytes as `body` may have, but at least one.
fn up_to_end(body: &client::Response, wanted: usize) -> usize {
    let left = body.end().map_or(u64::MAX, |end| end - body.position());
    usize::try_from(left).unwrap_or(usize::MAX).clamp(1, wanted.max(1))
}
