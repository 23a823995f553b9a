//! Opening: the first playlist, from the cache or from the network.

use url::Url;

use super::first_playlists::{Lists, open_with};
use super::hook::RequestKind;
use super::requests::{Loaded, load};
use super::shared::Shared;
use super::state::State;
use crate::downloader::PeerHandle;
use crate::error::Error;

/// Loads what is needed to start. Blocks.
pub(super) fn open(shared: &Shared, peer: &PeerHandle) -> Result<State, Error> {
    #[cfg(feature = "cache")]
    if let Some(state) = super::cached::open(shared, peer) {
        return Ok(state);
    }
    let url = shared.request.url().expose().clone();
    let loaded = load_or_refresh(shared, peer, &url)?;
    open_loaded(shared, peer, loaded)
}

/// As [`open`], with the first playlist.
pub(super) fn open_loaded(shared: &Shared, peer: &PeerHandle, loaded: Loaded) -> Result<State, Error> {
    let load = |url: &Url| load_or_refresh(shared, peer, url);
    open_with(shared, peer, loaded, Lists { load: &load, are_stored: false })
}

/// Loads a playlist, from a fresh URL of the application if it is refused.
fn load_or_refresh(shared: &Shared, peer: &PeerHandle, url: &Url) -> Result<Loaded, Error> {
    load(shared, peer, url, None).or_else(|error| {
        let hook = shared.config.hook.as_ref();
        match hook.and_then(|hook| hook.fresh_url(RequestKind::Playlist, url, &error)) {
            Some(fresh) => load(shared, peer, &fresh, None),
            None => Err(error),
        }
    })
}
