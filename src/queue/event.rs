//! What a queue reports.

use std::fmt;

use super::order::TrackId;
use crate::error::Error;

/// An event of a [`Queue`](super::Queue).
///
/// ```no_run
/// use windway::queue::{Queue, QueueConfig, QueueEvent};
///
/// let queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
/// let events = queue.handle().subscribe();
/// std::thread::spawn(move || {
///     for event in events {
///         if let QueueEvent::Failed { error, .. } = event {
///             eprintln!("skipped: {error}");
///         }
///     }
/// });
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QueueEvent {
    /// A track was opened, and is the current one.
    Started {
        /// The track.
        id: TrackId,
    },
    /// A track could not be opened. The queue goes on.
    Failed {
        /// The track.
        id: TrackId,
        /// The reason.
        error: Error,
    },
    /// The beginning of the next track is being fetched.
    Prefetching {
        /// The track.
        id: TrackId,
    },
    /// Tracks were added, removed or moved, or another [`Repeat`](super::Repeat) was set.
    Changed,
    /// There is no next track. Tracks that are added later are played by further calls of `next`, or by a call of `wait_next` that is
    /// blocked.
    Ended,
    /// This subscriber was too slow and has lost events before the next one.
    Lagged {
        /// Number of lost events.
        lost: u64,
    },
}

/// A track that could not be opened. Converts into its [`Error`].
///
/// ```no_run
/// # use windway::queue::{Queue, QueueConfig};
/// # let mut queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
/// if let Some(Err(failed)) = queue.next() {
///     queue.handle().remove(failed.id);
///     println!("{:?}", failed.error.kind());
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TrackError {
    /// The track.
    pub id: TrackId,
    /// The reason.
    pub error: Error,
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a track can't be opened: {}", self.error)
    }
}

impl std::error::Error for TrackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<TrackError> for Error {
    fn from(failed: TrackError) -> Self {
        failed.error
    }
}
