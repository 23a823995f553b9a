//! From the first playlist to the state: the choice of a level, and the playlist of that.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use url::Url;

use crate::abr::Estimator;
use crate::downloader::{Epoch, PeerHandle};
use crate::error::{Error, ErrorKind};
use crate::source::hls::config::{HlsConfig, Quality};
use crate::source::hls::decrypt::choose_key;
use crate::source::hls::ladder::levels::{Ladder, Load};
use crate::source::hls::ladder::steering::Steering;
use crate::source::hls::peer::live::{hold, next_part};
use crate::source::hls::peer::requests::{Loaded, load, parse_media, policy};
use crate::source::hls::playlist::{Context, MediaPlaylist, MultivariantPlaylist, Playlist};
use crate::source::hls::shared::Shared;
use crate::source::hls::state::{ResourceKey, State};
use crate::source::hls::timeline::Timeline;
use crate::source::hls::timeline::directives::Directives;
use crate::source::opening_limit::OpeningLimit;
use crate::types::Priority;

/// A server that has accepted the connection of a playlist, and does not answer, may take this part of
/// [`HlsConfig::read_timeout`](crate::hls::HlsConfig::read_timeout) until the next variant is tried, and that one the same part of what
/// is left. With half of it the first one, which is the best, has the most time, and however many follow, time is left for them.
const SHARE: u32 = 2;

/// Renditions that are tried in place of one that can't be opened, at most. Each costs a request.
const MOST_RENDITIONS_TRIED: usize = 8;

/// Looks at a media playlist and its URL.
type HasStart<'a> = dyn Fn(&Url, &Timeline) -> bool + 'a;

/// Where the playlists behind the first one come from.
pub(crate) struct Lists<'a> {
    /// Cancelled with the epoch.
    pub(crate) load: &'a dyn Fn(&Url, &Epoch) -> Result<Loaded, Error>,
    /// Above that of each load.
    pub(crate) epoch: &'a Epoch,
    /// Of stored ones: whether the segment at which playing would start is stored too. The network is not to be used.
    pub(crate) has_start: Option<&'a HasStart<'a>>,
}

/// Loads what the first playlist refers to, and makes the state.
pub(crate) fn open_with(
    shared: &Shared,
    peer: &PeerHandle,
    Loaded { bytes, url: from, age, began, throughput }: Loaded,
    lists: Lists<'_>,
) -> Result<State, Error> {
    let url = shared.request.url().expose().clone();
    let context = Context { url: &from, variables: shared.variables(), previous: None };
    let parsed = Playlist::parse_in(&bytes, context);
    let list = match parsed.map_err(|error| shared.locate(error.into()))? {
        Playlist::Media(list) => {
            let (list, from, began) = tune_in(shared, peer, lists.epoch, &url, (list, from, began), age);
            let first = (0, Timeline::new(list, from, Duration::ZERO));
            let config = shared.chosen_config();
            let estimator = remembered(&config, peer, throughput);
            let mut state = State::new(config, Ladder::single(url), None, first, estimator);
            state.set_first_load(Load { began, ended: Instant::now() });
            return Ok(state);
        }
        Playlist::Multivariant(list) => list,
    };
    open_levels(shared, peer, list, &from, &lists, throughput)
}

/// Opens one of the levels of a multivariant playlist that came from `from`.
fn open_levels(
    shared: &Shared,
    peer: &PeerHandle,
    mut list: MultivariantPlaylist,
    from: &Url,
    lists: &Lists<'_>,
    throughput: Option<f64>,
) -> Result<State, Error> {
    let mut ladder = Ladder::new(&list, from, policy(shared), shared.config.language.as_deref())?;
    // A stored playlist has no values of queries, without which a key can hardly be requested.
    if lists.has_start.is_none() {
        preload_keys(shared, peer, &list, from);
    }
    let steering = steering(shared, &list, from);
    // Before the first media playlist is parsed, which may import them.
    shared.set_variables(std::mem::take(&mut list.variables));
    let config = shared.chosen_config();
    let estimator = remembered(&config, peer, throughput);
    let load = |ladder: &Ladder, most: usize| {
        let bitrates = ladder.bitrates(ladder.first);
        let level = State::first_level(&config, &bitrates, &estimator, Instant::now());
        load_first(shared, peer, lists, ladder, steering.as_ref(), (level, most))
    };
    let mut left_out = ladder.left_out.take();
    let first = match load(&ladder, usize::MAX) {
        // What is stored of another rendition is not what the user hears if the network has this one.
        Err(error) if is_refusal(&error) && lists.has_start.is_none() && !ladder.renditions.is_empty() => {
            let name = ladder.renditions[ladder.first].name.clone();
            left_out.get_or_insert((name, error.clone()));
            let own_audio = || {
                list.variants.iter_mut().for_each(|variant| variant.audio = None);
                Ladder::new(&list, from, policy(shared), None).ok()
            };
            load_in_place_of_refused(&mut ladder, own_audio, error, load)?
        }
        first => first?,
    };
    // The media playlist is longer, and shows more.
    let estimator = remembered(&config, peer, first.throughput.or(throughput));
    let mut state = State::new(config, ladder, steering, (first.variant, first.timeline), estimator);
    state.set_first_load(Load { began: first.began, ended: Instant::now() });
    if let Some((name, error)) = left_out {
        log::warn!("the rendition {name:?} can't be opened: {error}");
        state.handle_rendition_failed(name, error);
    }
    Ok(state)
}

/// True if the server answers, and what it has can't be played: another rendition may be there. Where it can't be reached it would not.
fn is_refusal(error: &Error) -> bool {
    error.status().is_some() || !(error.is_retryable() || ends_opening(error))
}

/// True if the caller or its time limit has ended the opening.
fn ends_opening(error: &Error) -> bool {
    error.is_cancelled() || error.kind() == ErrorKind::TimedOut
}

/// Loads the playlist of another rendition than the first one of `ladder`, which is refused with `refusal`: of one in the same language,
/// of the variants with their `own_audio`, which they may have for clients that do not know renditions, or of one in another language.
fn load_in_place_of_refused(
    ladder: &mut Ladder,
    own_audio: impl FnOnce() -> Option<Ladder>,
    refusal: Error,
    load: impl Fn(&Ladder, usize) -> Result<First, Error>,
) -> Result<First, Error> {
    let language = ladder.renditions[ladder.first].language.clone();
    // A server that is busy has the rendition soon, and another language would be played to the end.
    let most = if refusal.is_retryable() { 0 } else { MOST_RENDITIONS_TRIED };
    let others = ladder.order.iter().copied().skip(1).take(most);
    let (same, other): (Vec<_>, Vec<_>) =
        others.partition(|other| language.is_some() && ladder.renditions[*other].language == language);
    let all = ladder.clone();
    let with_first = |first: usize| Some((all.starting_with(first), 1));
    let own_audio = || own_audio().map(|own| (own, usize::MAX));
    let ladders = same.into_iter().map(with_first).chain(std::iter::once_with(own_audio));
    for (other, most) in ladders.chain(other.into_iter().map(with_first)).flatten() {
        match load(&other, most) {
            Ok(first) => {
                *ladder = other;
                return Ok(first);
            }
            Err(error) if ends_opening(&error) => return Err(error),
            Err(_) => (),
        }
    }
    Err(refusal)
}

/// What is known of the network before the first segment: by the application, by the downloader, or by the arrival of a playlist,
/// which only shows that it is slow.
fn remembered(config: &HlsConfig, peer: &PeerHandle, shown: Option<f64>) -> Estimator {
    let (configured, most) = match &config.quality {
        Quality::Auto(config) => (config.throughput.map(|rate| rate as f64), config.start as f64),
        Quality::Fixed(_) | Quality::Custom(_) => (None, f64::INFINITY),
    };
    let (measured, _) = peer.waker().network();
    // The downloader counts bytes.
    let known = configured.or_else(|| measured.map(|rate| rate * 8.0));
    let known = known.or_else(|| shown.map(|rate| rate.min(most)));
    known.map_or_else(Estimator::default, Estimator::remembering)
}

/// The playlist of a level that was opened.
struct First {
    variant: usize,
    timeline: Timeline,
    /// When it was requested.
    began: Instant,
    /// What its arrival has shown of a slow network, in bits per second.
    throughput: Option<f64>,
}

/// Section 4.4.6.5: the keys that the media playlists will name arrive beside the first of these.
fn preload_keys(shared: &Shared, peer: &PeerHandle, list: &MultivariantPlaylist, base: &Url) {
    let usable = list
        .session_keys
        .iter()
        .filter(|key| choose_key(std::slice::from_ref(key)).is_ok_and(|chosen| chosen.is_some()));
    // A key that may not be requested is an error only if a segment needs it.
    let urls = usable.filter_map(|key| policy(shared).resolve(base, key.uri.expose()).ok());
    shared.preload(urls.map(ResourceKey::of_key));
    if !list.session_keys.is_empty() {
        peer.wake(Priority::High);
    }
}

fn steering(shared: &Shared, list: &MultivariantPlaylist, base: &Url) -> Option<Steering> {
    let tag = list.steering.as_ref()?;
    let url = policy(shared).resolve(base, tag.server.expose());
    let url = url.map_err(|error| log::warn!("content steering is not used: {error}")).ok()?;
    // Section 4.4.6.6: without an attribute, the pathway of the first variant.
    let pathway =
        tag.pathway.clone().or_else(|| list.variants.first().map(|variant| variant.pathway.clone()));
    Some(Steering::new(url, pathway.unwrap_or_else(|| ".".into()), Instant::now()))
}

/// Loads the playlist of the level `first`, or of the nearest of `most` levels whose playlist can be loaded.
fn load_first(
    shared: &Shared,
    peer: &PeerHandle,
    lists: &Lists<'_>,
    ladder: &Ladder,
    steering: Option<&Steering>,
    (first, most): (usize, usize),
) -> Result<First, Error> {
    let is_wanted = |index: &usize| ladder.variants[*index].rendition == ladder.first;
    let mut order: Vec<usize> = (0..ladder.variants.len()).filter(is_wanted).collect();
    // Section 7: the pathway comes before the level. Of two levels that are equally near, the lower one.
    order.sort_by_key(|index| {
        let variant = &ladder.variants[*index];
        let rank = steering.map_or(0, |steering| steering.rank(&variant.pathway));
        (rank, variant.level.abs_diff(first), variant.level)
    });
    if let Some(has_start) = lists.has_start {
        let allowed = shared.config.quality.allowed_levels(&ladder.bitrates(ladder.first));
        order.retain(|index| allowed.contains(&ladder.variants[*index].level));
        if let Some(best) = best_stored(shared, peer, lists, ladder, order.clone(), has_start) {
            return Ok(best);
        }
    }
    order.truncate(most);
    let mut failed = None;
    let mut patience = shared.config.read_timeout;
    for (index, variant) in order.iter().copied().enumerate() {
        let is_last = index + 1 == order.len();
        // The limit of the opening is enough for the last one.
        patience = patience.filter(|_| !is_last).map(|rest| rest / SHARE);
        match load_timeline(shared, peer, lists, ladder, variant, patience) {
            Ok(first) => return Ok(first),
            Err(error) if error.is_cancelled() => return Err(error),
            // The first error is that of the best variant.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed
        .unwrap_or_else(|| Error::new(ErrorKind::Unsupported, "no variant of the playlist can be used")))
}

/// The best level that has the segment at which playing starts, unless the user has fixed one: it needs no network.
fn best_stored(
    shared: &Shared,
    peer: &PeerHandle,
    lists: &Lists<'_>,
    ladder: &Ladder,
    mut order: Vec<usize>,
    has_start: &HasStart<'_>,
) -> Option<First> {
    if matches!(shared.config.quality, Quality::Fixed(_)) {
        return None;
    }
    order.sort_by_key(|index| Reverse(ladder.variants[*index].level));
    order.into_iter().find_map(|variant| {
        let first = load_timeline(shared, peer, lists, ladder, variant, None).ok()?;
        has_start(&ladder.variants[variant].url, &first.timeline).then_some(first)
    })
}

/// Loads a playlist, and gives it up if no bytes arrive for as long as `patience`.
fn load_timeline(
    shared: &Shared,
    peer: &PeerHandle,
    lists: &Lists<'_>,
    ladder: &Ladder,
    variant: usize,
    patience: Option<Duration>,
) -> Result<First, Error> {
    let url = &ladder.variants[variant].url;
    let epoch = lists.epoch.child();
    let loaded = OpeningLimit::of_epoch(peer, &epoch, patience).end((lists.load)(url, &epoch));
    let Loaded { bytes, url: from, age, began, throughput } =
        loaded.map_err(|error| error.with_url(url.as_str()))?;
    let list = parse_media(shared, &bytes, &from, None)?;
    let (list, from, began) = tune_in(shared, peer, lists.epoch, url, (list, from, began), age);
    Ok(First { variant, timeline: Timeline::new(list, from, Duration::ZERO), began, throughput })
}

/// Loads the current version of a low-latency playlist that comes from a cache (appendix C).
fn tune_in(
    shared: &Shared,
    peer: &PeerHandle,
    epoch: &Epoch,
    url: &Url,
    (list, from, began): (MediaPlaylist, Url, Instant),
    age: Duration,
) -> (MediaPlaylist, Url, Instant) {
    // A cache may answer with an old version, and playing would start too far from the live edge.
    let is_old = list.part_target.is_some_and(|part| age >= part);
    if !is_old || list.is_ended || !list.server_control.can_block_reload {
        return (list, from, began);
    }
    // The next part is there by now, so the server answers a request for it at once, with the current version.
    let directives = Directives { wait_for: Some(next_part(&list)), skips: false };
    let loaded = load(shared, peer, &directives.apply(url), |fetch| fetch.epoch(epoch).held(hold(&list)));
    let newer = loaded
        .and_then(|newer| Ok((parse_media(shared, &newer.bytes, &newer.url, None)?, newer.url, newer.began)));
    newer.unwrap_or_else(|error| {
        // The old version can be played, and is loaded again soon.
        log::debug!("the current version of a cached playlist can't be loaded: {error}");
        (list, from, began)
    })
}
