//! Opening: the playlist, the choice of a level, and the playlist of that.

use std::time::Duration;

use url::Url;

use super::fetches::{load, parse_media, policy};
use super::levels::{Level, levels};
use super::playlist::{Context, Playlist};
use super::shared::Shared;
use super::state::State;
use super::timeline::Timeline;
use crate::downloader::PeerHandle;
use crate::error::Error;

/// Loads what is needed to start. Blocks.
pub(super) fn open(shared: &Shared, peer: &PeerHandle) -> Result<State, Error> {
    let url = shared.request.url().expose().clone();
    let (bytes, from) = load(shared, peer, &url, None)?;
    let context = Context { url: &from, variables: shared.variables(), previous: None };
    let parsed = Playlist::parse_in(&bytes, context);
    let list = match parsed.map_err(|error| shared.locate(error.into()))? {
        Playlist::Media(list) => {
            let timeline = Timeline::new(list, from, Duration::ZERO);
            return Ok(State::new(shared.config.clone(), vec![Level::single(url)], 0, timeline));
        }
        Playlist::Multivariant(list) => list,
    };
    let levels = levels(&list, &from, policy(shared), shared.config.language.as_deref())?;
    shared.set_variables(list.variables);
    let first = State::first_level(&shared.config, &levels);
    let (level, timeline) = load_first(shared, peer, &levels, first)?;
    Ok(State::new(shared.config.clone(), levels, level, timeline))
}

/// Loads the playlist of the first level, or of the nearest one that can be had.
fn load_first(
    shared: &Shared,
    peer: &PeerHandle,
    levels: &[Level],
    first: usize,
) -> Result<(usize, Timeline), Error> {
    let mut order: Vec<usize> = (0..levels.len()).collect();
    order.sort_by_key(|level| (level.abs_diff(first), *level));
    let mut failed = None;
    for level in order {
        match load_timeline(shared, peer, &levels[level].url) {
            Ok(timeline) => return Ok((level, timeline)),
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    // There is at least one level.
    Err(failed
        .unwrap_or_else(|| Error::new(crate::error::ErrorKind::Unsupported, "the playlist has no variants")))
}

fn load_timeline(shared: &Shared, peer: &PeerHandle, url: &Url) -> Result<Timeline, Error> {
    let (bytes, from) = load(shared, peer, url, None)?;
    let list = parse_media(shared, &bytes, &from, None)?;
    Ok(Timeline::new(list, from, Duration::ZERO))
}
