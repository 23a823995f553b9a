//! What a user interface shows of a radio.

use std::time::Duration;

use super::titles::Title;
use crate::source::progress::Progress;

/// The state of a radio at one moment, from [`RadioHandle::progress`](super::RadioHandle::progress).
///
/// [`RadioHandle::watch`](super::RadioHandle::watch) shows an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RadioProgress {
    /// What all kinds of sources have. Positions count bytes of audio since the radio's start. There is a length once all of a file
    /// was received that was opened as a radio. The error is [`RadioHandle::last_error`](super::RadioHandle::last_error).
    pub stream: Progress,
    /// Time since the radio was opened.
    pub elapsed: Duration,
    /// The title at the reader's position.
    pub title: Option<Title>,
    /// Connections that delivered audio, but for the first one.
    pub reconnects: u64,
}
