//! What a user interface shows of any source.

use std::ops::Range;
use std::time::Duration;

use super::Pending;
use crate::error::Error;
use crate::phase::Phase;

/// The state of a stream at one moment, from [`StreamHandle::progress`](crate::StreamHandle::progress).
///
/// Places are positions in bytes, of type `u64`. Those of an HLS presentation are presentation times, of type
/// [`Duration`]: [`HlsProgress`](crate::hls::HlsProgress) has this with what only HLS has, and
/// [`RadioProgress`](crate::radio::RadioProgress) that of a radio.
///
/// ```no_run
/// let stream = windway::open("https://example.com/episode.mp3")?;
/// let progress = stream.handle().progress();
/// if let Some(len) = progress.len {
///     println!("{} %, {} bytes ahead", 100 * progress.position / len, progress.buffered_ahead);
/// }
/// # Ok::<(), windway::Error>(())
/// ```
///
/// One function can show all kinds of sources:
///
/// ```
/// use windway::stream::{Phase, Progress};
///
/// fn status<P>(progress: &Progress<P>) -> &'static str {
///     match progress.phase {
///         Phase::Opening | Phase::Stalled => "buffering",
///         Phase::Retrying => "reconnecting",
///         Phase::Failed => "failed",
///         _ => "",
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress<P = u64> {
    /// Place of the next byte to be read.
    pub position: P,
    /// Length, if known. `None` while a presentation or a radio is live.
    pub len: Option<P>,
    /// Ranges that can be read at once, in ascending order.
    pub buffered: Vec<Range<P>>,
    /// How much can be read at once from `position` on.
    pub buffered_ahead: P,
    /// Measured bandwidth in bytes a second, as
    /// [`StreamHandle::bandwidth`](crate::StreamHandle::bandwidth). `None` until enough was transferred.
    pub bandwidth: Option<f64>,
    /// What the stream is doing.
    pub phase: Phase,
    /// Reads that blocked.
    pub stalls: u64,
    /// Total time that reads were blocked.
    pub stalled: Duration,
    /// Why [`Stream::try_read`](crate::Stream::try_read) finds no bytes now, and for how long it has found none. `None` from the handle
    /// of a radio or of an HLS presentation, whose reads block: a [`Stream`](crate::Stream) of a presentation says it by
    /// [`Stream::starving`](crate::Stream::starving).
    pub starving: Option<Starving>,
    /// The most recent error: see [`StreamHandle::last_error`](crate::StreamHandle::last_error).
    pub last_error: Option<Error>,
}

/// A reader finds no bytes: from [`Stream::starving`](crate::Stream::starving).
///
/// ```no_run
/// use std::time::Duration;
/// use windway::stream::Pending;
///
/// let stream = windway::open("https://example.com/episode.mp3")?;
/// if let Some(starving) = stream.starving().filter(|starving| starving.duration > Duration::from_secs(1)) {
///     println!("{}", if starving.reason == Pending::Retrying { "reconnecting" } else { "buffering" });
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Starving {
    /// Why the last call found none.
    pub reason: Pending,
    /// Time since the first call that found none.
    pub duration: Duration,
}
