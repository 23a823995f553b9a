//! Opening: the first playlist, from the cache or from the network.

use std::sync::Arc;

use url::Url;

use super::first_playlists::{Lists, open_with};
use crate::downloader::{Epoch, PeerHandle};
use crate::error::Error;
use crate::source::hls::hook::RequestKind;
use crate::source::hls::peer::requests::{Loaded, load};
use crate::source::hls::shared::Shared;
use crate::source::hls::state::State;

/// Loads what is needed to start, until `epoch` is cancelled. Blocks.
pub(crate) fn open(shared: &Arc<Shared>, peer: &PeerHandle, epoch: &Epoch) -> Result<State, Error> {
    #[cfg(feature = "cache")]
    if let Some(state) = crate::source::hls::cached::open(shared, peer, epoch) {
        return Ok(state);
    }
    let url = shared.request.url().expose().clone();
    let loaded = load_or_refresh(shared, peer, &url, epoch)?;
    open_loaded(shared, peer, epoch, loaded)
}

/// As [`open`], with the first playlist.
pub(crate) fn open_loaded(
    shared: &Arc<Shared>,
    peer: &PeerHandle,
    epoch: &Epoch,
    loaded: Loaded,
) -> Result<State, Error> {
    let load = |url: &Url, epoch: &Epoch| load_or_refresh(shared, peer, url, epoch);
    open_with(shared, peer, loaded, Lists { load: &load, epoch, has_start: None })
}

/// Loads a playlist, from a fresh URL of the application if it is refused.
fn load_or_refresh(
    shared: &Arc<Shared>,
    peer: &PeerHandle,
    url: &Url,
    epoch: &Epoch,
) -> Result<Loaded, Error> {
    let load = |url: &Url| {
        let retrying = Arc::clone(shared);
        load(shared, peer, url, |fetch| {
            let fetch = fetch.epoch(epoch).on_retry(move |error| retrying.set_retried(Some(error)));
            // As any opening: a host that can't be reached, as it is mistyped or away, is an error at once. The user may try again.
            fetch.fail_fast(shared.config.read_timeout)
        })
    };
    let loaded = load(url).or_else(|error| {
        let hook = shared.config.hook.as_ref();
        match hook.and_then(|hook| hook.fresh_url(RequestKind::Playlist, url, &error)) {
            Some(fresh) => load(&fresh),
            None => Err(error),
        }
    });
    shared.set_retried(None);
    loaded
}
