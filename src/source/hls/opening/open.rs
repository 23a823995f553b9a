//! Opening: the first playlist, from the cache or from the network.

use url::Url;

use super::first_playlists::{Lists, open_with};
use crate::downloader::{Epoch, PeerHandle};
use crate::error::Error;
use crate::source::hls::hook::RequestKind;
use crate::source::hls::peer::requests::{Loaded, load};
use crate::source::hls::shared::Shared;
use crate::source::hls::state::State;

/// Loads what is needed to start. Blocks.
pub(crate) fn open(shared: &Shared, peer: &PeerHandle) -> Result<State, Error> {
    #[cfg(feature = "cache")]
    if let Some(state) = crate::source::hls::cached::open(shared, peer) {
        return Ok(state);
    }
    let url = shared.request.url().expose().clone();
    let loaded = load_or_refresh(shared, peer, &url, &peer.epoch())?;
    open_loaded(shared, peer, loaded)
}

/// As [`open`], with the first playlist.
pub(crate) fn open_loaded(shared: &Shared, peer: &PeerHandle, loaded: Loaded) -> Result<State, Error> {
    let load = |url: &Url, epoch: &Epoch| load_or_refresh(shared, peer, url, epoch);
    open_with(shared, peer, loaded, Lists { load: &load, has_start: None })
}

/// Loads a playlist, from a fresh URL of the application if it is refused.
fn load_or_refresh(shared: &Shared, peer: &PeerHandle, url: &Url, epoch: &Epoch) -> Result<Loaded, Error> {
    // As any opening: a host that can't be reached, as it is mistyped or away, is an error at once. The user may try again.
    let load =
        |url: &Url| load(shared, peer, url, |fetch| fetch.epoch(epoch).fail_fast(shared.config.read_timeout));
    load(url).or_else(|error| {
        let hook = shared.config.hook.as_ref();
        match hook.and_then(|hook| hook.fresh_url(RequestKind::Playlist, url, &error)) {
            Some(fresh) => load(&fresh),
            None => Err(error),
        }
    })
}
