//! What happens to a radio, told with the place in the audio where it happens.

use std::time::Duration;

use super::icy::RadioInfo;
use crate::error::Error;
use crate::safe_url::SafeUrl;

/// What happened to a [`Radio`](crate::Radio).
///
/// A position is a byte of audio, counted from the radio's start. Events come when the bytes come, which is before they
/// are heard: hold a position against [`RadioHandle::position`](crate::RadioHandle::position), or ask
/// [`now_playing`](crate::RadioHandle::now_playing).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RadioEvent {
    /// The station sends audio, over a new connection.
    Connected {
        /// What it says of itself.
        info: RadioInfo,
        /// The connection's first byte.
        position: u64,
    },
    /// A title begins to hold. One that is said again is not told again.
    Title {
        /// Where.
        position: u64,
        /// By custom "Artist - Title"; `None` if the station took its title back.
        title: Option<String>,
        /// Of the station, the cover or nothing that can be opened.
        url: Option<SafeUrl>,
    },
    /// What follows does not continue what went before: another connection. Audio is missing or comes twice, and a frame is
    /// cut.
    Discontinuity {
        /// The first byte that does not follow.
        position: u64,
    },
    /// The connection failed, or could not be made. What is stored plays on.
    Reconnecting {
        /// Of what.
        error: Error,
        /// How long until the next attempt.
        after: Duration,
    },
    /// Nothing was read for so long that the connection was let go. The next read makes a new one.
    Paused {
        /// The next byte that would have been read.
        position: u64,
    },
    /// The reader came back from a long pause, at the live edge.
    Skipped {
        /// The first byte it will not read.
        from: u64,
        /// The next byte it will read.
        to: u64,
    },
    /// A read failed, and was neither interrupted nor cancelled. The radio goes on; the next read tries again.
    ReadFailed {
        /// The byte that could not be had.
        position: u64,
        /// Of what.
        error: Error,
    },
    /// The radio has ended for good; the last event. What is stored stays readable.
    Ended {
        /// One past the last byte of audio that came.
        position: u64,
        /// Of what; [`Error::is_cancelled`] if that was wanted.
        error: Error,
    },
    /// This subscriber was too slow: so many events before the next one are lost to it.
    Lagged {
        /// How many.
        lost: u64,
    },
}
