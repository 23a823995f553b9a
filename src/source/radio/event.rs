//! Events of a radio, each with its position in the audio.

use std::time::Duration;

use super::icy::RadioInfo;
use crate::error::Error;
use crate::safe_url::SafeUrl;

/// An event of a [`Radio`](crate::Radio).
///
/// Positions count bytes of audio since the radio's start. An event is published when its bytes arrive, which is before
/// they are heard: compare its position with [`RadioHandle::position`](crate::radio::RadioHandle::position), or use
/// [`now_playing`](crate::radio::RadioHandle::now_playing).
///
/// ```no_run
/// use windway::radio::RadioEvent;
///
/// # let radio = windway::Downloader::global()?.open_radio("http://example.com:8000/", Default::default())?;
/// for event in radio.handle().subscribe() {
///     match event {
///         RadioEvent::Reconnecting { error, after } => println!("{error}; reconnecting in {after:?}"),
///         RadioEvent::Ended { error, .. } => println!("ended: {error}"),
///         _ => {}
///     }
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RadioEvent {
    /// Audio arrives over a new connection.
    Connected {
        /// The station's description of itself.
        info: RadioInfo,
        /// Position of the connection's first byte.
        position: u64,
    },
    /// A new title begins. Repetitions of the same title are not published, but for the first title of each connection.
    Title {
        /// Position of the first byte that the title applies to.
        position: u64,
        /// The title, usually "Artist - Title"; `None` if the station cleared its title. Its
        /// [bytes](super::Title::title_bytes) are those of [`RadioHandle::title_at`](super::RadioHandle::title_at) this position.
        title: Option<String>,
        /// URL of the station or the cover. It may be text that is not a URL.
        url: Option<SafeUrl>,
    },
    /// A new connection begins here, and does not continue the audio before it. Audio is missing or repeated, and a
    /// frame is cut. The title is unknown from here on, until the new connection announces one.
    Discontinuity {
        /// Position of the new connection's first byte.
        position: u64,
    },
    /// The connection failed or could not be opened, and the radio reconnects. Stored bytes can still be read.
    Reconnecting {
        /// The error.
        error: Error,
        /// Delay until the next attempt.
        after: Duration,
    },
    /// The connection was closed because nothing was read for a long time. The next read opens a new one.
    Paused {
        /// Position of the next byte that would have been read.
        position: u64,
    },
    /// The reader continued after a long pause, and was moved to the live edge.
    Skipped {
        /// Position of the first skipped byte.
        from: u64,
        /// Position of the next byte that will be read.
        to: u64,
    },
    /// A read failed, and was neither interrupted nor cancelled. The radio continues; the next read retries.
    ReadFailed {
        /// Position of the byte that could not be read.
        position: u64,
        /// The error.
        error: Error,
    },
    /// The radio has ended permanently. This is the last event. Stored bytes can still be read.
    Ended {
        /// Position after the last received byte of audio.
        position: u64,
        /// The reason; [`Error::is_cancelled`] is true if the radio was dropped or cancelled.
        error: Error,
    },
    /// The URL leads to a file, and all of it has been received: the reads end after it. This is the last event.
    Complete {
        /// Position after the last byte.
        position: u64,
    },
    /// This subscriber was too slow and has lost events before the next one.
    Lagged {
        /// Number of lost events.
        lost: u64,
    },
}
