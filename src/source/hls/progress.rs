//! What a user interface shows of a presentation.

use std::ops::Range;
use std::time::Duration;

use crate::source::progress::Progress;

/// The state of an HLS presentation at one moment, from [`HlsHandle::progress`](super::HlsHandle::progress).
///
/// [`HlsHandle::watch`](super::HlsHandle::watch) shows an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HlsProgress {
    /// What all kinds of sources have. Places are presentation times. The error is
    /// [`HlsHandle::last_error`](super::HlsHandle::last_error).
    pub stream: Progress<Duration>,
    /// Presentation times that can be sought to. Of a live stream they move on.
    pub seekable: Range<Duration>,
    /// As [`HlsHandle::latency`](super::HlsHandle::latency).
    pub latency: Option<Duration>,
    /// Index of the level that is being fetched.
    pub level: usize,
    /// Index of the level of the audio that was read last, as [`HlsHandle::playing_level`](super::HlsHandle::playing_level).
    pub playing_level: usize,
    /// Index of the rendition that is played. 0 if there is only one.
    pub rendition: usize,
}
