//! Position and read state of a stream, which its handles see, also after its drop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::starvation::Starvation;
use crate::client::ResponseHead;
use crate::error::Error;
use crate::media::MediaInfo;
use crate::phase::Reads;
use crate::safe_url::SafeUrl;
use crate::source::{Source, StreamStats};

/// Position and read state of a stream. Written by the stream only; its handles read it.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    pub(super) position: AtomicU64,
    pub(super) reads: Mutex<Reads>,
    pub(super) starvation: Mutex<Starvation>,
    /// Set when the stream is dropped.
    pub(super) final_state: Mutex<Option<FinalState>>,
    /// Notified when `final_state` is set, and when a source that is watched was cancelled.
    ended: Condvar,
}

/// What handles return after the stream was dropped. So they need not keep the source, which may hold many bytes.
#[derive(Clone, Debug)]
pub(super) struct FinalState {
    pub(super) len: Option<u64>,
    pub(super) url: Option<SafeUrl>,
    pub(super) error: Option<Error>,
    pub(super) stats: StreamStats,
    pub(super) media: MediaInfo,
    pub(super) head: Option<ResponseHead>,
    pub(super) bandwidth: Option<f64>,
}

impl Cursor {
    pub(super) fn position(&self) -> u64 {
        // Relaxed: only the stream writes it, and no other memory is read on the strength of it.
        self.position.load(Ordering::Relaxed)
    }

    /// `stats` of the source, with those of this stream's `try_read`.
    pub(super) fn complete(&self, stats: StreamStats) -> StreamStats {
        let starvation = self.starvation.lock();
        StreamStats { starvations: starvation.count(), starved: starvation.total(Instant::now()), ..stats }
    }

    /// Records that the stream is dropped.
    pub(super) fn end(&self, final_state: FinalState) {
        *self.final_state.lock() = Some(final_state);
        self.ended.notify_all();
    }

    /// Blocks for `at_most`, or until the stream was dropped or `cancelled` is set. Resets `cancelled`.
    pub(super) fn await_end(&self, cancelled: &AtomicBool, at_most: Duration) {
        // `None` is a time that the clock can't represent: it never comes.
        let deadline = Instant::now().checked_add(at_most);
        let mut final_state = self.final_state.lock();
        // Relaxed: it is read and written under this lock.
        while final_state.is_none() && !cancelled.swap(false, Ordering::Relaxed) {
            match deadline {
                None => self.ended.wait(&mut final_state),
                Some(deadline) if self.ended.wait_until(&mut final_state, deadline).timed_out() => return,
                Some(_) => {}
            }
        }
    }

    /// Sets `cancelled`, for which a thread may wait in [`await_end`](Self::await_end).
    pub(super) fn set_cancelled(&self, cancelled: &AtomicBool) {
        // Under the lock: a thread between its look and its wait would miss the notification.
        let _final_state = self.final_state.lock();
        cancelled.store(true, Ordering::Relaxed);
        self.ended.notify_all();
    }
}

impl FinalState {
    pub(super) fn of(source: &dyn Source) -> Self {
        Self {
            len: source.len(),
            url: source.url(),
            error: source.last_error(),
            stats: source.stats(),
            media: source.media_info(),
            head: source.response_head(),
            bandwidth: source.bandwidth(),
        }
    }
}
