//! What a presentation that was opened from the cache still waits for.

use url::Url;

use super::offline::{Hole, Offline};
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
    /// The variant in use when the playlist was requested that is being loaded.
    pub(super) running: Option<usize>,
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
            is_held: false,
            offline: None,
            hole: None,
        }
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
