//! Opens a presentation whose playlists are stored, without the network.

use std::cell::RefCell;

use url::Url;

use super::super::shared::Shared;
use super::super::state::{State, Unconfirmed};
use super::strip::is_multivariant;
use crate::cache::Use;
use crate::downloader::{Epoch, PeerHandle};
use crate::error::{Error, ErrorKind};
use crate::source::hls::opening::first_playlists::{Lists, open_with};
use crate::source::hls::peer::requests::{Loaded, policy};
use crate::source::hls::timeline::Timeline;
use crate::source::hls::timeline::start::start_of;
use crate::source::stored::SentRequest;

/// `None` if a playlist is missing, or must not be used before the server is asked.
pub(crate) fn open(shared: &Shared, peer: &PeerHandle, epoch: &Epoch) -> Option<State> {
    let store = shared.store.as_ref()?;
    let url = shared.request.url().expose();
    let (text, first_use) = store.list(url)?;
    let uses = RefCell::new(vec![first_use]);
    let load = |url: &Url, _: &Epoch| -> Result<Loaded, Error> {
        let missing = || Error::new(ErrorKind::NotCached, "the playlist is not in the cache");
        let (text, usable) = store.list(url).ok_or_else(missing)?;
        uses.borrow_mut().push(usable);
        Ok(Loaded::stored(text, url.clone()))
    };
    let has_start = |list: &Url, timeline: &Timeline| {
        let position = timeline.position_at(start_of(timeline, &shared.config));
        let part = timeline.segment_at(position).and_then(|timed| {
            let url = policy(shared).resolve(&timeline.url, timed.segment.uri.expose()).ok()?;
            store.part(list, &url, timed.segment.byte_range, SentRequest::default())
        });
        part.is_some_and(|part| store.has(&part))
    };
    let has_levels = is_multivariant(&text);
    let first = Loaded::stored(text, url.clone());
    let lists = Lists { load: &load, epoch, has_start: Some(&has_start) };
    let mut state = open_with(shared, peer, first, lists)
        .inspect_err(|error| log::debug!("a presentation can't be opened from the cache: {error}"))
        .ok()?;
    let is_stale = uses.into_inner().contains(&Use::Stale);
    state.set_unconfirmed(Unconfirmed::new(is_stale, has_levels));
    Some(state)
}
