//! Position and read state of a stream, which its handles see, also after its drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::starvation::Starvation;
use crate::client::ResponseHead;
use crate::error::Error;
use crate::media::MediaInfo;
use crate::phase::Reads;
use crate::safe_url::SafeUrl;
use crate::source::{Source, StreamStats};
use crate::watch::Ending;

/// Position and read state of a stream. Written by the stream only; its handles read it.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    pub(super) position: AtomicU64,
    pub(super) reads: Mutex<Reads>,
    pub(super) starvation: Mutex<Starvation>,
    /// Set when the stream is dropped.
    pub(super) final_state: Mutex<Option<FinalState>>,
    /// Signalled when `final_state` is set, and when a source that is watched was cancelled.
    pub(super) ending: Arc<Ending>,
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
        // Before the final state, which makes handles rely on this alone. In the other order a watch would see the end in a
        // phase that is not the last.
        self.reads.lock().drop_reader();
        *self.final_state.lock() = Some(final_state);
        self.ending.signal();
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
