//! The thread `windway-hls`, one for each live stream: loads the playlist again until it ends.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use url::Url;

use super::fetches::{load, parse_media};
use super::playlist::MediaPlaylist;
use super::reload::Reload;
use super::shared::Shared;
use crate::downloader::PeerHandle;
use crate::error::{Error, ErrorKind};

/// Starts the thread. It ends with the playlist, or when the player is closed.
pub(super) fn start(shared: &Arc<Shared>, peer: &PeerHandle) -> Result<JoinHandle<()>, Error> {
    let (shared, peer) = (Arc::clone(shared), peer.clone());
    let named = thread::Builder::new().name("windway-hls".into());
    named.spawn(move || run(&shared, &peer)).map_err(|error| {
        Error::new(ErrorKind::Io(error.kind()), "a thread could not be started").with_cause(error)
    })
}

fn run(shared: &Shared, peer: &PeerHandle) {
    let mut reload = Reload::new(Instant::now());
    while let Some((level, url, list)) = shared.with(|state| state.live_playlist()).flatten() {
        if !shared.sleep_until(reload.due(&list)) {
            return;
        }
        let began = Instant::now();
        match load_again(shared, peer, &url, &list) {
            Ok((list, url)) => {
                let has_changed = shared.change(|state| state.handle_playlist(level, list, url));
                reload.handle_loaded(began, has_changed == Some(true));
            }
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                log::warn!("a live playlist can't be loaded: {error}");
                reload.handle_loaded(began, false);
            }
        }
        let now = Instant::now();
        if reload.is_stuck(now, &list) {
            let why = format!("the playlist has not changed for {:?}", list.target_duration.mul_f64(3.5));
            let error = Error::new(ErrorKind::TimedOut, why).with_url(url.as_str());
            shared.change(|state| state.handle_stuck(error));
        } else if reload.is_stale(now, &list) {
            shared.change(|state| state.handle_stale(level, now));
        }
    }
}

fn load_again(
    shared: &Shared,
    peer: &PeerHandle,
    url: &Url,
    previous: &MediaPlaylist,
) -> Result<(MediaPlaylist, Url), Error> {
    let (bytes, from) = load(shared, peer, url)?;
    let list = parse_media(shared, &bytes, &from, Some(previous))?;
    Ok((list, from))
}
