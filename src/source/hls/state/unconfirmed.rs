//! What a presentation that was opened from the cache still waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use url::Url;

use super::queued_segment::QueuedSegment;
use crate::error::Error;
use crate::source::hls::ladder::levels::Ladder;
use crate::source::hls::playlist::MediaPlaylist;

/// What is to be loaded before anything but playlists may be requested.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    /// The multivariant playlist was loaded, and is the same as the stored one.
    pub(super) has_ladder: bool,
    /// A playlist is stale, or something is missing that a playlist from the network would make available.
    pub(super) is_due: bool,
    /// The variant of the playlist that is being loaded, or the one in use if that is the multivariant playlist.
    pub(super) running: Option<usize>,
    /// Variants whose stored segments have been taken.
    pub(super) taken: BTreeSet<usize>,
    /// Variants whose playlists were loaded, or can't be.
    pub(super) checked: BTreeSet<usize>,
    /// Variants whose playlists the server does not have, of those that were asked for since the origin last failed.
    pub(super) refused: BTreeSet<usize>,
    /// Those that were loaded, the one in use first.
    pub(super) loaded: Vec<(usize, MediaPlaylist, Url)>,
    /// What is stored is of another level than the one that the user has fixed: it is played only if no playlist comes.
    pub(super) is_held: bool,
    /// No playlist could be loaded, and something is missing: the other levels are looked for it.
    pub(super) offline: Option<Offline>,
    /// Where the first segment that is not stored at every level starts.
    pub(super) hole: Option<Hole>,
}

impl Unconfirmed {
    pub(crate) fn new(is_stale: bool, is_multivariant: bool) -> Self {
        Self {
            has_ladder: !is_multivariant,
            is_due: is_stale,
            running: None,
            taken: BTreeSet::new(),
            checked: BTreeSet::new(),
            refused: BTreeSet::new(),
            loaded: Vec::new(),
            is_held: false,
            offline: None,
            hole: None,
        }
    }
}

/// Borders of two levels that are closer to each other than this, or than half a segment, are the same one: durations may be
/// rounded to seconds.
pub(super) const NEAR: Duration = Duration::from_millis(500);

/// The origin can't be reached: what is stored is all there is.
#[derive(Debug)]
pub(super) struct Offline {
    /// Why no playlist has come.
    pub(super) error: Error,
    /// Position of the hole for which the origin was asked.
    pub(super) asked_for: Option<Duration>,
    /// Variants whose playlists are not stored.
    pub(super) unstored: Vec<usize>,
    /// The variant whose stored playlist is being read.
    pub(super) reading: Option<usize>,
}

/// A segment that is not stored at some levels.
#[derive(Debug)]
pub(super) struct Hole {
    /// Presentation time of its beginning.
    pub(super) at: Duration,
    /// Variants that do not have it.
    pub(super) tried: Vec<usize>,
}

impl Hole {
    /// Levels need not have the same borders: it may lie inside of a segment of another level.
    pub(super) fn is_in(&self, queued: &QueuedSegment) -> bool {
        let duration = queued.segment.duration;
        queued.start <= self.at + NEAR.min(duration / 2) && self.at < queued.start + duration
    }
}

/// What a loaded playlist means for the one that was stored before.
#[derive(Debug)]
pub(crate) enum Confirmation {
    /// The same, with URLs that are valid now.
    Multivariant(Ladder),
    Media(Box<MediaPlaylist>, Url),
    Changed(Error),
}
