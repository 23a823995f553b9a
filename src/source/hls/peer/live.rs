//! The thread `windway-hls`, one for each live stream: loads the playlist again until it ends.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use url::Url;

use super::requests::{Loaded, load, parse_media};
use crate::client::retry;
use crate::downloader::{Fetch, PeerHandle};
use crate::error::{Error, ErrorKind};
use crate::source::hls::hook::RequestKind;
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::playlist::MediaPlaylist;
use crate::source::hls::shared::Shared;
use crate::source::hls::timeline::directives::Directives;
use crate::source::hls::timeline::reload::Reload;
use crate::thread;

/// Shortest time limit of a held request: three target durations of 0.5 s would not cover a slow answer of a distant server.
const LEAST_HOLD: Duration = Duration::from_secs(3);

/// Longest one. A server may announce a target duration of years, and other levels have to be tried before.
const MOST_HOLD: Duration = Duration::from_secs(120);

/// Starts the thread. It ends when no playlist will be loaded again, or when the player is closed.
pub(crate) fn start(shared: &Arc<Shared>, peer: &PeerHandle) -> Result<JoinHandle<()>, Error> {
    let (shared, peer) = (Arc::clone(shared), peer.clone());
    thread::start("hls", move || run(&shared, &peer))
}

fn run(shared: &Arc<Shared>, peer: &PeerHandle) {
    let mut reload = first_reload(shared);
    let mut last = None;
    while let Some((variant, url, list)) = shared.live_playlist() {
        if last.replace(variant).is_some_and(|last| last != variant) {
            // From its own load on: this thread has slept until the last one was due.
            reload = first_reload(shared);
        }
        if !shared.sleep_until(reload.due(&list), reload.is_out().then_some(variant)) {
            return;
        }
        if shared.with(|state| state.is_used(variant)) == Some(false) {
            // Another variant is used since: its playlist is loaded, and not this one.
            continue;
        }
        let began = Instant::now();
        let directives = Directives {
            wait_for: reload.may_block(&list).then(|| next_part(&list)),
            skips: reload.may_skip(began, &list),
        };
        let set = |fetch: Fetch| fetch.in_outage(reload.is_out());
        let failure = match load_again(shared, peer, &url, &list, directives, &set) {
            Ok((list, url)) => {
                let ended = Instant::now();
                let load = Load { began, ended };
                let has_changed =
                    shared.change(|state| state.handle_loaded_playlist(variant, list, url, load));
                reload.handle_loaded((began, ended), has_changed == Some(true));
                None
            }
            // The presentation or its downloader has ended. Nothing cancels this request alone.
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                handle_failed(shared, variant, &url, error.clone());
                let retry_at = Instant::now() + retry::outage_delay(&error, retry::random());
                reload.handle_failed(began, Some(retry_at).filter(|_| error.is_retryable()));
                Some(error)
            }
        };
        let is_outage = failure.as_ref().is_some_and(Error::is_retryable);
        if let Some(why) = check_age(shared, &reload, (variant, &list), is_outage) {
            // A server that refuses the playlist has not shown that it is unchanged.
            let error = failure.unwrap_or(why).with_url(url.as_str());
            shared.change_if(|state| state.handle_stuck(variant, error, is_outage, Instant::now()));
        }
    }
}

/// The reloads of the variant in use, before the first one.
fn first_reload(shared: &Shared) -> Reload {
    let now = Instant::now();
    let load = shared.with(|state| state.last_load()).flatten();
    Reload::after(load.map_or((now, now), |load| (load.began, load.ended)), now)
}

/// Lets another variant be used if the playlist of this one has not changed for some time. Returns the error if it has not changed
/// for too long.
fn check_age(
    shared: &Shared,
    reload: &Reload,
    (variant, list): (usize, &MediaPlaylist),
    is_outage: bool,
) -> Option<Error> {
    if reload.is_stuck(list) {
        let seconds = Reload::stuck_after(list).as_secs_f64();
        let why = format!("the playlist has not changed for {seconds:.1} s");
        return Some(Error::new(ErrorKind::TimedOut, why));
    }
    if reload.is_stale(list) {
        shared.change_if(|state| state.handle_stale(variant, is_outage, Instant::now()));
    }
    None
}

fn handle_failed(shared: &Shared, variant: usize, url: &Url, error: Error) {
    let hook = shared.config.hook.as_ref();
    match hook.and_then(|hook| hook.fresh_url(RequestKind::Playlist, url, &error)) {
        Some(fresh) => drop(shared.with(|state| state.set_playlist_url(variant, fresh))),
        None => shared.change_if(|state| state.handle_reload_failed(variant, error, Instant::now())),
    }
}

/// How long a server may hold a request. Section 6.2.5.2: it gives up after three target durations.
pub(crate) fn hold(list: &MediaPlaylist) -> Duration {
    list.target_duration.saturating_mul(3).clamp(LEAST_HOLD, MOST_HOLD)
}

/// What the playlist will contain next.
pub(crate) fn next_part(list: &MediaPlaylist) -> (u64, Option<u64>) {
    // Section 6.2.5.2: parts are numbered from 0, so their number is the index of the next one.
    (list.end_sequence(), list.part_target.map(|_| list.parts.len() as u64))
}

fn load_again(
    shared: &Arc<Shared>,
    peer: &PeerHandle,
    url: &Url,
    previous: &MediaPlaylist,
    directives: Directives,
    configure: &dyn Fn(Fetch) -> Fetch,
) -> Result<(MediaPlaylist, Url), Error> {
    // Else the failure would be seen only when the last retry has failed.
    let retrying = Arc::clone(shared);
    let on_retry = move |error: &Error| {
        retrying.with(|state| state.handle_reload_retrying(error, Instant::now()));
    };
    let set = |fetch: Fetch| match directives.wait_for {
        Some(_) => configure(fetch).on_retry(on_retry).held(hold(previous)),
        None => configure(fetch).on_retry(on_retry),
    };
    let Loaded { bytes, url: from, .. } = load(shared, peer, &directives.apply(url), set)?;
    match parse_media(shared, &bytes, &from, Some(previous)) {
        Ok(list) => Ok((list, from)),
        // Section 6.3.7: an update that does not fit is replaced by the whole playlist.
        Err(_) if directives.skips => {
            // Without a wait: the server has answered, so it has the version that was waited for.
            load_again(shared, peer, url, previous, Directives { wait_for: None, skips: false }, configure)
        }
        Err(error) => Err(error),
    }
}
