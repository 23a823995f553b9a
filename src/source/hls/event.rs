//! What a player may want to show or log.

use std::time::Duration;

use crate::error::Error;
use crate::safe_url::SafeUrl;

/// What happened to an [`Hls`](super::Hls).
///
/// ```no_run
/// use windway::Downloader;
/// use windway::hls::{HlsConfig, HlsEvent};
///
/// let hls = Downloader::global()?.open_hls("https://example.com/main.m3u8", HlsConfig::default())?;
/// let events = hls.handle().subscribe();
/// std::thread::spawn(move || {
///     while let Some(event) = events.recv() {
///         if let HlsEvent::Skipped { at, duration, error } = event {
///             eprintln!("{duration:?} at {at:?} are skipped: {error}");
///         }
///     }
/// });
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HlsEvent {
    /// Segments of another level are fetched from a presentation time on.
    Switched {
        /// Index of the last level.
        from: usize,
        /// Index of the new level.
        to: usize,
        /// Presentation time of the first segment of the new level.
        at: Duration,
    },
    /// Segments are fetched from another server, or by another pathway, from a presentation time on: the last one failed, or
    /// content steering prefers the new one.
    ServerChanged {
        /// The media playlist on the last server.
        from: SafeUrl,
        /// The media playlist on the new server.
        to: SafeUrl,
        /// Presentation time of the first segment of the new server.
        at: Duration,
    },
    /// A segment would have arrived too late, and was abandoned for one of a lower level.
    Abandoned {
        /// Index of the level that was too slow.
        level: usize,
        /// Presentation time of the segment.
        at: Duration,
    },
    /// A buffered segment was fetched again at a higher level, because the network had throughput to spare.
    Replaced {
        /// Index of the level that was buffered.
        from: usize,
        /// Index of the level that will be played.
        to: usize,
        /// Presentation time of the segment.
        at: Duration,
    },
    /// A segment could not be fetched at any level, and is skipped.
    Skipped {
        /// Presentation time of the segment.
        at: Duration,
        /// How long it plays.
        duration: Duration,
        /// Why the last attempt failed.
        error: Error,
    },
    /// A playlist could not be loaded or parsed. It is tried again, or another level is used.
    PlaylistFailed {
        /// Index of the level.
        level: usize,
        /// Why.
        error: Error,
    },
    /// The rendition that is preferred could not be opened, and another one is played: see
    /// [`HlsHandle::rendition`](super::HlsHandle::rendition). Published once, when the presentation has opened: a subscriber of
    /// [`open_hls_later`](crate::Downloader::open_hls_later) gets it.
    RenditionFailed {
        /// Its name.
        name: Box<str>,
        /// Why.
        error: Error,
    },
    /// This subscriber was too slow: it does not get the events before the next one.
    Lagged {
        /// How many.
        lost: u64,
    },
}
