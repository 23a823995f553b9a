//! Options of a queue.

use crate::config::FileConfig;
use crate::config::setters::setters;

/// Options of a [`Queue`](super::Queue).
///
/// ```
/// use windway::queue::QueueConfig;
///
/// let config = QueueConfig::new().prefetch_before(4 << 20);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueConfig {
    /// Options of the tracks that have a URL. Its headers are sent to tracks that [`Track::new`](super::Track::new) made, and
    /// to no track of a playlist, except those on the origin that the headers were sent to for the playlist itself.
    ///
    /// Its mirrors, and the key of its cache, are ignored, because both belong to one file: tracks are cached by their URLs.
    ///
    /// With [`ReadAhead::Whole`](crate::config::ReadAhead::Whole) all of the next track is prefetched, at low priority.
    pub file: FileConfig,
    /// The next track is prefetched when this many bytes of the current one are left to read, or once all that is left of it
    /// is stored. `None` prefetches no track. On a metered network no track is prefetched. Default: 1 MiB.
    pub prefetch_before: Option<u64>,
    /// Number of events stored for each subscriber. A subscriber that is slower loses the oldest ones. Default: 256.
    pub event_capacity: usize,
}

setters!(QueueConfig {
    file: FileConfig,
    event_capacity: usize,
} into {
    prefetch_before: Option<u64>,
});

impl Default for QueueConfig {
    fn default() -> Self {
        Self { file: FileConfig::default(), prefetch_before: Some(1 << 20), event_capacity: 256 }
    }
}
