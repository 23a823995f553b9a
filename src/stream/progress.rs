//! What a user interface shows of a stream.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::cursor::Cursor;
use super::starvation::Starving;
use crate::cancel::CancelGuard;
use crate::error::Error;
use crate::phase::Phase;
use crate::source::Source;

/// The state of a stream at one moment, from [`StreamHandle::progress`](crate::StreamHandle::progress).
///
/// ```no_run
/// let stream = windway::open("https://example.com/episode.mp3")?;
/// let progress = stream.handle().progress();
/// if let Some(len) = progress.len {
///     println!("{} %, {} bytes ahead", 100 * progress.position / len, progress.buffered_ahead);
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Position of the next byte to be read.
    pub position: u64,
    /// Length in bytes, if known.
    pub len: Option<u64>,
    /// Ranges of the bytes that can be read at once, in ascending order.
    pub buffered: Vec<Range<u64>>,
    /// Number of bytes that can be read at once from `position` on.
    pub buffered_ahead: u64,
    /// Measured bandwidth in bytes a second, as
    /// [`StreamHandle::bandwidth`](crate::StreamHandle::bandwidth). `None` until enough was transferred.
    pub bandwidth: Option<f64>,
    /// What the stream is doing.
    pub phase: Phase,
    /// Reads that blocked.
    pub stalls: u64,
    /// Total time that reads were blocked.
    pub stalled: Duration,
    /// Why [`Stream::try_read`](crate::Stream::try_read) finds no bytes now, and for how long it has found none.
    pub starving: Option<Starving>,
    /// The most recent error: see [`StreamHandle::last_error`](crate::StreamHandle::last_error).
    pub last_error: Option<Error>,
}

/// Returns the [`Progress`] of a stream at an interval. [`StreamHandle::watch`](crate::StreamHandle::watch) shows an example.
pub struct Watch {
    look: Box<dyn Fn() -> Look + Send>,
    every: Duration,
    state: WatchState,
    cursor: Arc<Cursor>,
    /// The source was cancelled after the last look.
    cancelled: Arc<AtomicBool>,
    _on_cancel: Option<CancelGuard>,
}

/// A look at a stream.
pub(super) struct Look {
    pub(super) progress: Progress,
    /// The stream was dropped or cancelled: no other look shows anything new.
    pub(super) is_last: bool,
}

#[derive(Debug)]
enum WatchState {
    New,
    /// The next look is due after the interval.
    Waiting,
    Over,
}

impl Watch {
    /// Watches the stream of this `cursor`. Its `source` is `None` once it was dropped.
    pub(super) fn new(
        look: impl Fn() -> Look + Send + 'static,
        every: Duration,
        cursor: &Arc<Cursor>,
        source: Option<&dyn Source>,
    ) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        let hook = {
            let (cursor, cancelled) = (Arc::clone(cursor), Arc::clone(&cancelled));
            move || cursor.set_cancelled(&cancelled)
        };
        let on_cancel = source.and_then(|source| source.on_cancel(Box::new(hook)));
        Self {
            look: Box::new(look),
            every,
            state: WatchState::New,
            cursor: Arc::clone(cursor),
            cancelled,
            _on_cancel: on_cancel,
        }
    }
}

impl Iterator for Watch {
    type Item = Progress;

    fn next(&mut self) -> Option<Progress> {
        match self.state {
            WatchState::New => {}
            WatchState::Over => return None,
            // Bytes that arrive do not end the wait: they arrive far more often than a window is drawn.
            WatchState::Waiting => self.cursor.await_end(&self.cancelled, self.every),
        }
        let Look { progress, is_last } = (self.look)();
        self.state = if is_last { WatchState::Over } else { WatchState::Waiting };
        Some(progress)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("every", &self.every).finish_non_exhaustive()
    }
}
