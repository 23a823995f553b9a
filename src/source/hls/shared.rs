//! The state behind its lock, and the threads that wait for its changes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use url::Url;

#[cfg(feature = "cache")]
use super::cached::HlsStore;
use super::config::{HlsConfig, Quality};
use super::demux::Output;
use super::event::HlsEvent;
use super::link::Link;
use super::opening::preload::Preload;
use super::pipeline::ArrivingBody;
use super::playlist::MediaPlaylist;
use super::progress::HlsProgress;
use super::state::{Hinted, Needs, ResourceKey, State, Undemuxed};
use crate::cancel::{CancelGuard, CancelReason};
use crate::client::{Request, is_private, retry};
use crate::downloader::{Epoch, Waker};
use crate::error::{Error, ErrorKind};
use crate::event::{Bus, Subscriber};
use crate::phase::{Facts, LastRead, Phase};
use crate::source::StreamStats;
use crate::source::progress::Progress;
use crate::source::wait::{Begun, WaitReader, WaitState};
use crate::types::Priority;
use crate::watch::Ending;

/// A segment whose first bytes arrive before its key or its initialization section.
#[derive(Clone)]
pub(super) struct WaitingSegment {
    pub(super) id: u64,
    /// Where it comes from.
    pub(super) url: Url,
    pub(super) needs: Needs,
    /// Offset of the segment in its resource.
    pub(super) position: u64,
    /// Locked before the state, never after it.
    pub(super) body: Arc<Mutex<ArrivingBody>>,
}

impl fmt::Debug for WaitingSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingSegment").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Events that are kept for a slow subscriber.
const EVENTS: usize = 256;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: HlsConfig,
    /// The URL that the caller gave. Shows no password.
    pub(super) request: Request,
    /// Variables of the multivariant playlist, which media playlists may import.
    variables: OnceLock<BTreeMap<String, String>>,
    /// The first playlist was sent by a public address.
    is_public: OnceLock<bool>,
    events: Bus<HlsEvent>,
    /// What the cache has of it.
    #[cfg(feature = "cache")]
    pub(super) store: Option<HlsStore>,
    pub(super) link: Link,
    pub(super) inner: Mutex<Inner>,
    /// The only reader of the presentation, in the `waits` of `inner`.
    pub(super) waiter: WaitReader,
    /// Notified after each change of the state, by the thread that made it.
    pub(super) changed: Condvar,
    /// Notified by `close`. Apart from `changed`, so that the reloading thread sleeps while audio arrives.
    closed: Condvar,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// `None` while it is being opened, and if that has failed.
    pub(super) state: Option<State>,
    /// Why an opening in the background has failed.
    unopened: Option<Error>,
    /// What the application has chosen while it is being opened.
    early: EarlyChoices,
    /// Epoch of all segments until a seek to what is not buffered.
    epoch: Option<Epoch>,
    /// Segments that are being fetched, and what cancels the fetch of each alone.
    fetches: Vec<(u64, Epoch)>,
    /// Segments whose fetches run, and that may wait for a resource.
    waiting: Vec<WaitingSegment>,
    /// The segment of the last preload hint, and what cancels its request.
    hint: Option<(u64, Epoch)>,
    /// Used while it is being opened.
    preload: Preload,
    pub(super) waits: WaitState,
    /// Calls that are blocked.
    pub(super) blocked: u32,
    pub(super) is_closed: bool,
}

/// Choices that count once there is a state. `None` for those of the configuration.
#[derive(Debug, Default)]
struct EarlyChoices {
    quality: Option<Quality>,
    priority: Option<Priority>,
}

impl EarlyChoices {
    fn apply(self, state: &mut State, now: Instant) {
        if let Some(priority) = self.priority {
            state.set_priority(priority);
        }
        if let Some(quality) = self.quality {
            state.set_quality(quality, now);
        }
    }
}

impl Inner {
    /// The error that stopped fetching or the opening, or that is being retried.
    fn last_error(&self) -> Option<&Error> {
        let error = self.state.as_ref().and_then(State::last_error).or(self.unopened.as_ref());
        error.or(self.waits.retrying())
    }

    /// The epochs of fetches whose segments are not needed any more.
    fn take_unneeded(&mut self) -> Vec<Epoch> {
        let Self { state: Some(state), fetches, hint, .. } = self else { return Vec::new() };
        let (needed, others): (Vec<_>, Vec<_>) =
            std::mem::take(fetches).into_iter().partition(|(id, _)| state.is_needed(*id));
        *fetches = needed;
        let hint = hint.take_if(|(id, _)| !state.needs_hint(*id));
        others.into_iter().chain(hint).map(|(_, epoch)| epoch).collect()
    }
}

impl Shared {
    pub(super) fn new(request: Request, config: HlsConfig) -> Self {
        let mut waits = WaitState::default();
        let waiter = waits.add_reader();
        let inner = Inner {
            state: None,
            unopened: None,
            early: EarlyChoices::default(),
            epoch: None,
            fetches: Vec::new(),
            waiting: Vec::new(),
            hint: None,
            preload: Preload::default(),
            waits,
            blocked: 0,
            is_closed: false,
        };
        let (variables, is_public, link) = (OnceLock::new(), OnceLock::new(), Link::default());
        let (inner, changed, closed) = (Mutex::new(inner), Condvar::new(), Condvar::new());
        let events = Bus::of(EVENTS, |lost| HlsEvent::Lagged { lost });
        #[cfg(feature = "cache")]
        let store = config.cache.clone().map(|uses| HlsStore::new(uses, request.url().expose()));
        Self {
            config,
            request,
            variables,
            is_public,
            events,
            #[cfg(feature = "cache")]
            store,
            link,
            inner,
            waiter,
            changed,
            closed,
        }
    }

    /// Notes the variables that media playlists may import.
    pub(super) fn set_variables(&self, variables: BTreeMap<String, String>) {
        // Twice only if a stored playlist was read first and is not used. That has none: one with variables is not stored.
        if !variables.is_empty() {
            let _ = self.variables.set(variables);
        }
    }

    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.variables.get().unwrap_or(&NONE)
    }

    /// Starts fetching.
    pub(super) fn start(&self, mut state: State, waker: Waker, epoch: Epoch) {
        let demand;
        {
            let mut inner = self.inner.lock();
            let (loaded, running) = inner.preload.finish();
            state.set_preloaded(loaded, running, Instant::now());
            state.seed(retry::random());
            std::mem::take(&mut inner.early).apply(&mut state, Instant::now());
            demand = state.demand();
            inner.state = Some(state);
            inner.epoch = Some(epoch.child());
            // Of a call that has waited for an opening in the background.
            inner.waits.progress(Instant::now());
        }
        // Connected after the state is set: a wake-up before that would find nothing to plan. What has changed in between could
        // not wake the peer, so the wake-up below does.
        self.link.connect(waker, epoch, demand);
        self.link.wake(Priority::High);
        self.changed.notify_all();
    }

    /// Notes that an opening in the background has failed. Calls return the error from now on.
    pub(super) fn fail_opening(&self, error: Error) {
        let begun = {
            let mut inner = self.inner.lock();
            inner.unopened = Some(error);
            // There are some if only a thread of a live stream could not be started.
            (inner.state.take(), inner.epoch.take())
        };
        // Outside of the lock: a cancel runs the ends of what it cancels, and a state may own code of the application.
        if let (_, Some(epoch)) = &begun {
            epoch.cancel();
        }
        drop(begun);
        self.changed.notify_all();
    }

    /// Notes with which error a playlist of the opening is being retried.
    pub(super) fn set_retried(&self, error: Option<&Error>) {
        let mut inner = self.inner.lock();
        match error {
            Some(error) => inner.waits.retry(error.clone()),
            None => inner.waits.recover(),
        }
    }

    /// The configuration with the choices of the application since.
    pub(super) fn chosen_config(&self) -> HlsConfig {
        let mut config = self.config.clone();
        let inner = self.inner.lock();
        config.quality = inner.early.quality.clone().unwrap_or(config.quality);
        config.priority = inner.early.priority.unwrap_or(config.priority);
        config
    }

    /// Changes how the level is chosen, also of what is being opened.
    pub(super) fn set_quality(&self, quality: Quality) {
        let mut inner = self.inner.lock();
        if inner.state.is_none() {
            let replaced = inner.early.quality.replace(quality);
            drop(inner);
            // Without the lock: it may own code of the application.
            drop(replaced);
            return;
        }
        drop(inner);
        self.change(|state| state.set_quality(quality, Instant::now()));
    }

    /// Changes the priority among the streams of the downloader, also of what is being opened.
    pub(super) fn set_priority(&self, priority: Priority) {
        {
            let mut inner = self.inner.lock();
            if inner.state.is_none() {
                inner.early.priority = Some(priority);
                return;
            }
        }
        self.change(|state| state.set_priority(priority));
    }

    /// Notes which address sent the first playlist: its URIs may lead to private addresses only if that is private itself.
    pub(super) fn note_peer(&self, peer: Option<IpAddr>) {
        // Set once: the URIs of the first playlist decide where later ones are loaded from.
        // Behind a proxy, which looks names up itself, the address is unknown. It counts as private: nothing is refused then.
        let _ = self.is_public.set(peer.is_some_and(|peer| !is_private(peer)));
    }

    /// Whether the first playlist was sent by a public address. `None` until it has arrived.
    pub(super) fn is_from_public(&self) -> Option<bool> {
        self.is_public.get().copied()
    }

    /// Loads these keys while it is being opened.
    pub(super) fn preload(&self, keys: impl Iterator<Item = ResourceKey>) {
        let mut inner = self.inner.lock();
        keys.for_each(|key| inner.preload.add(key));
    }

    pub(super) fn take_preload(&self) -> Option<ResourceKey> {
        self.inner.lock().preload.poll()
    }

    /// A key or an initialization section has arrived. Returns the bodies that waited for it.
    pub(super) fn handle_resource(&self, key: ResourceKey, bytes: Vec<u8>) -> Vec<(u64, Needs, Undemuxed)> {
        {
            let mut inner = self.inner.lock();
            if inner.state.is_none() {
                inner.preload.handle_loaded(key, bytes);
                return Vec::new();
            }
        }
        self.change(|state| state.handle_resource(key, bytes)).unwrap_or_default()
    }

    pub(super) fn handle_resource_failed(&self, key: &ResourceKey, fresh: Option<Url>, error: &Error) {
        {
            let mut inner = self.inner.lock();
            if inner.state.is_none() {
                inner.preload.handle_failed(key);
                return;
            }
        }
        self.change(|state| {
            let is_taken = fresh.is_some_and(|fresh| state.handle_fresh_resource(key, fresh));
            if !is_taken {
                state.handle_resource_failed(key, error, Instant::now());
            }
        });
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.inner.lock().epoch.clone()
    }

    /// The epoch of the fetch of one segment, which a seek cancels too. `None` if the segment is not needed any more.
    pub(super) fn fetch_epoch(&self, id: u64) -> Option<Epoch> {
        let mut inner = self.inner.lock();
        // A seek may have dropped it since it was planned, and has found no epoch to cancel.
        inner.state.as_ref().filter(|state| state.is_needed(id))?;
        let epoch = inner.epoch.as_ref()?.child();
        // An earlier attempt has ended.
        inner.fetches.retain(|(other, _)| *other != id);
        inner.fetches.push((id, epoch.clone()));
        Some(epoch)
    }

    /// The fetch of a segment has ended.
    pub(super) fn forget_fetch(&self, id: u64) {
        let mut inner = self.inner.lock();
        inner.fetches.retain(|(other, _)| *other != id);
        inner.waiting.retain(|other| other.id != id);
    }

    /// The segment waits for a resource. Called before the last look for that, so that its arrival is not missed.
    pub(super) fn add_waiting(&self, segment: WaitingSegment) {
        let mut inner = self.inner.lock();
        inner.waiting.retain(|other| other.id != segment.id);
        inner.waiting.push(segment);
    }

    /// Segments that have waited for what has arrived by now.
    pub(super) fn take_waiting(&self) -> Vec<WaitingSegment> {
        let mut inner = self.inner.lock();
        let Inner { state: Some(state), waiting, .. } = &mut *inner else { return Vec::new() };
        let (ready, others) =
            std::mem::take(waiting).into_iter().partition(|segment| state.has_resources(&segment.needs));
        *waiting = others;
        ready
    }

    /// A segment was abandoned: cancels its fetch, and those of the segments after it, and lets the downloader ask for the next.
    pub(super) fn handle_abandoned(&self) {
        let (abandoned, events, priority) = {
            let mut inner = self.inner.lock();
            let abandoned = inner.take_unneeded();
            let Some(state) = &mut inner.state else { return };
            (abandoned, state.take_events(), state.wake_priority())
        };
        // Outside of the lock: a cancel runs the ends of what it cancels.
        abandoned.iter().for_each(Epoch::cancel);
        self.cancel_dropped_hint();
        events.iter().for_each(|event| self.events.publish(event));
        self.changed.notify_all();
        self.link.wake(priority);
    }

    /// Looks at the state, or does nothing while it is being opened.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> Option<T> {
        let (result, events) = {
            let mut inner = self.inner.lock();
            let state = inner.state.as_mut()?;
            (look(state), state.take_events())
        };
        // Published without the lock: a subscriber that wakes may ask the state at once.
        events.iter().for_each(|event| self.events.publish(event));
        Some(result)
    }

    pub(super) fn subscribe(&self) -> Subscriber<HlsEvent> {
        self.events.subscribe()
    }

    /// Changes the state, wakes the threads that wait for it, and lets the downloader ask for the next fetch.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let changed = self.store(|state| (change(state), state.wake_priority()));
        let (changed, priority) = changed?;
        self.link.wake(priority);
        Some(changed)
    }

    /// As [`change`](Self::change), for a change that tells whether there is something to do or to read by it: a failure that repeats
    /// itself wakes nobody.
    pub(super) fn change_if(&self, change: impl FnOnce(&mut State) -> bool) {
        if self.with(change) == Some(true) {
            self.change(|_| ());
        }
    }

    /// Changes the state and wakes the threads that wait for it. For changes that need no other fetch.
    pub(super) fn store<T>(&self, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let changed = self.with(change);
        self.changed.notify_all();
        self.cancel_dropped_hint();
        changed
    }

    /// Stores frames that have arrived: the limits of blocked calls start again.
    pub(super) fn store_frames(&self, id: u64, output: &mut Output) -> Result<(), Error> {
        let stored = {
            let mut inner = self.inner.lock();
            inner.waits.progress(Instant::now());
            inner.state.as_mut().map_or_else(|| Err(closed()), |state| state.handle_frames(id, output))
        };
        self.changed.notify_all();
        stored
    }

    /// Continues at `target`, and cancels what is fetched and not needed there.
    pub(super) fn seek(&self, target: Duration) -> Result<Duration, Error> {
        self.restart(|state| state.seek(target))
    }

    /// Continues at the live edge.
    pub(super) fn go_live(&self) -> Result<Duration, Error> {
        self.restart(State::go_live)
    }

    /// Continues with another rendition.
    pub(super) fn select_rendition(&self, rendition: usize) -> Result<(), Error> {
        self.restart(|state| state.select_rendition(rendition))
    }

    /// Drops what is buffered, and fetches it again.
    pub(super) fn drop_buffered(&self) -> Result<Duration, Error> {
        self.restart(State::drop_buffered)
    }

    /// Changes what is fetched, and cancels what is not needed any more.
    fn restart<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let (landed, old) = {
            let mut inner = self.inner.lock();
            let is_closed = inner.is_closed;
            let unopened = inner.unopened.clone().unwrap_or_else(being_opened);
            let Some(state) = inner.state.as_mut().filter(|_| !is_closed) else {
                return Err(self.locate(if is_closed { closed() } else { unopened }));
            };
            // Under one lock with the new epoch: a fetch that is planned after the change must not be cancelled with the old ones.
            let landed = change(state).map_err(|error| self.locate(error))?;
            let old = if state.has_segments() {
                inner.take_unneeded()
            } else {
                let next = self.link.child_epoch();
                std::mem::replace(&mut inner.epoch, next).into_iter().collect()
            };
            inner.state.iter_mut().for_each(|state| state.continue_with_kept(Instant::now()));
            (landed, old)
        };
        // Outside of the lock: a cancel runs the ends of what it cancels.
        old.iter().for_each(Epoch::cancel);
        self.changed.notify_all();
        self.link.wake(Priority::High);
        Ok(landed)
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase_of(&self.inner.lock())
    }

    fn phase_of(&self, inner: &Inner) -> Phase {
        let is_cancelled = inner.is_closed || self.link.cancelled().is_some();
        let facts = inner.state.as_ref().map(State::facts).unwrap_or_default();
        let has_ended = inner.state.as_ref().is_some_and(State::has_ended);
        let last = if has_ended { LastRead::Ended } else { LastRead::Open };
        if inner.unopened.is_some() && !is_cancelled {
            return Phase::Failed;
        }
        Facts { is_cancelled, is_urgent: inner.blocked > 0, ..facts }.phase().after(last)
    }

    /// All under one lock, so that the figures agree.
    pub(super) fn progress(&self) -> HlsProgress {
        // Before the lock: it takes locks of the downloader, which are never taken inside of this one.
        let bandwidth = self.link.network().0;
        let inner = self.inner.lock();
        let (phase, stalls) = (self.phase_of(&inner), inner.waits.stalls());
        let state = inner.state.as_ref();
        let error = inner.last_error().filter(|error| !error.is_cancelled());
        let stream = Progress {
            position: state.map(State::reader_time).unwrap_or_default(),
            len: state.and_then(State::duration),
            buffered: state.map(State::buffered_ranges).unwrap_or_default(),
            buffered_ahead: state.map(State::buffered).unwrap_or_default(),
            bandwidth,
            phase,
            stalls: stalls.count,
            stalled: stalls.time,
            starving: None,
            last_error: error.cloned().map(|error| self.locate(error)),
        };
        HlsProgress {
            stream,
            seekable: state.map(State::seekable).unwrap_or_default(),
            latency: state.and_then(|state| state.latency(Instant::now())),
            level: state.map(State::level).unwrap_or_default(),
            playing_level: state.map(State::playing_level).unwrap_or_default(),
            rendition: state.map(State::rendition).unwrap_or_default(),
        }
    }

    /// Gives a signal once the phase is [`Phase::Closed`] for good.
    pub(super) fn signal_on_cancel(&self, ending: &Arc<Ending>) -> Option<CancelGuard> {
        let ending = Arc::clone(ending);
        self.link.on_cancel(Box::new(move || ending.signal()))
    }

    /// The error that stopped fetching, or that is being retried.
    pub(super) fn last_error(&self) -> Option<Error> {
        let inner = self.inner.lock();
        let error = inner.last_error().cloned();
        drop(inner);
        error.map(|error| self.locate(error))
    }

    pub(super) fn interrupt(&self) {
        self.inner.lock().waits.interrupt(self.waiter);
        self.changed.notify_all();
    }

    pub(super) fn resume(&self) {
        self.inner.lock().waits.resume(self.waiter);
    }

    pub(super) fn stats(&self) -> StreamStats {
        let totals = self.link.totals();
        let inner = self.inner.lock();
        let stalls = inner.waits.stalls();
        StreamStats {
            requests: totals.responses,
            bytes_fetched: totals.bytes,
            bytes_dropped: inner.state.as_ref().map_or(0, State::bytes_dropped),
            bytes_read: inner.state.as_ref().map_or(0, State::bytes_read),
            stalls: stalls.count,
            stalled: stalls.time,
            ..StreamStats::default()
        }
    }

    /// Ends all calls and transfers.
    pub(super) fn cancel(&self) {
        // Closed first: the reader does not wait until the sockets are closed.
        self.close();
        self.link.cancel();
    }

    pub(super) fn close(&self) {
        self.inner.lock().is_closed = true;
        self.changed.notify_all();
        self.closed.notify_all();
        self.events.close();
    }

    /// Blocks until `due`, or, if `failing` is a variant, until another one is used: its server may ask for a long wait. False once it
    /// is closed.
    pub(super) fn sleep_until(&self, due: Instant, failing: Option<usize>) -> bool {
        let mut inner = self.inner.lock();
        while !inner.is_closed {
            let is_used = |variant| inner.state.as_ref().is_none_or(|state| state.is_used(variant));
            let wake = match failing {
                Some(variant) if !is_used(variant) => return true,
                Some(_) => &self.changed,
                // While audio arrives, much changes that is nothing to this thread.
                None => &self.closed,
            };
            if wake.wait_until(&mut inner, due).timed_out() {
                return !inner.is_closed;
            }
        }
        false
    }

    /// Why a call on a presentation without a state has to end. `None` while it is being opened.
    pub(super) fn unopened(&self, inner: &Inner, begun: Begun) -> Option<Error> {
        let closed = inner.is_closed.then_some(CancelReason::Peer);
        let broken_off = inner.waits.broken_off(begun, self.link.cancelled().or(closed));
        broken_off.or_else(|| inner.unopened.clone())
    }

    /// Blocks until the playlist in use is one that has to be loaded again. `None` once there will be none.
    pub(super) fn live_playlist(&self) -> Option<(usize, Url, Arc<MediaPlaylist>)> {
        let mut inner = self.inner.lock();
        while !inner.is_closed {
            let state = inner.state.as_ref()?;
            match state.live_playlist() {
                Some(live) => return Some(live),
                None if state.is_ended() => return None,
                // The level in use has ended, and another one may not have: what switches to that one notifies.
                None => self.changed.wait(&mut inner),
            }
        }
        None
    }

    /// Blocks until there is something to request in advance. `None` once it is closed.
    pub(super) fn next_hint(&self) -> Option<Hinted> {
        let mut inner = self.inner.lock();
        while !inner.is_closed {
            let now = Instant::now();
            if let Some(hinted) = inner.state.as_mut().and_then(|state| state.poll_hint(now)) {
                return Some(hinted);
            }
            // Nothing notifies at the end of an outage, unless a reader is blocked.
            match inner.state.as_ref().and_then(State::retry_at).filter(|retry_at| *retry_at > now) {
                Some(retry_at) => {
                    self.changed.wait_until(&mut inner, retry_at);
                }
                None => self.changed.wait(&mut inner),
            }
        }
        None
    }

    /// The epoch of a hinted part, which a seek cancels too. `None` if the part is not needed any more.
    pub(super) fn hint_epoch(&self, id: u64) -> Option<Epoch> {
        let mut inner = self.inner.lock();
        // A new version of the playlist may have dropped it before this epoch was there to be cancelled: then the server would hold
        // a request that is of no use, and no other part is requested in the meantime.
        inner.state.as_ref().filter(|state| state.needs_hint(id))?;
        let epoch = inner.epoch.as_ref()?.child();
        inner.hint = Some((id, epoch.clone()));
        Some(epoch)
    }

    /// Section 6.3.8: cancels the request for a hinted part that is not needed any more: the playlist does not hint at it, or another
    /// level is used. The server may hold it for seconds, in which no other part is requested. Called after each change of the
    /// state, without its lock, as a cancel runs the ends of what it cancels. A downloader that asks what to fetch calls it, too: no
    /// fetch of the peer has this epoch, and the thread of the hints takes no lock of the downloader.
    fn cancel_dropped_hint(&self) {
        let dropped = {
            let mut inner = self.inner.lock();
            let Inner { state, hint, .. } = &mut *inner;
            hint.take_if(|(id, _)| state.as_ref().is_some_and(|state| !state.needs_hint(*id)))
        };
        if let Some((_, epoch)) = dropped {
            epoch.cancel();
        }
    }

    pub(super) fn locate(&self, error: Error) -> Error {
        error.with_url(self.request.url())
    }
}

/// There is nothing yet that could be sought or chosen.
fn being_opened() -> Error {
    Error::new(ErrorKind::OutOfWindow, "the presentation is being opened")
}

pub(super) fn closed() -> Error {
    Error::cancelled(CancelReason::Peer)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::abr::Estimator;
    use crate::client::UriPolicy;
    use crate::source::hls::ladder::levels::{Ladder, Load};
    use crate::source::hls::playlist::Playlist;
    use crate::source::hls::state::Planned;
    use crate::source::hls::timeline::Timeline;

    fn list(end: &str) -> MediaPlaylist {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na\n{end}");
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a media playlist")
        };
        list
    }

    #[test]
    fn variables_come_from_the_network_if_the_stored_playlist_is_not_used() {
        let shared = Shared::new(Request::get("http://host/l").unwrap(), HlsConfig::default());
        shared.set_variables(BTreeMap::new());
        shared.set_variables(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(shared.variables().len(), 1);
    }

    #[test]
    fn the_request_for_a_hint_is_cancelled_as_soon_as_another_level_is_used() {
        let url = Url::parse("http://host/l").unwrap();
        let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0\n#EXT-X-STREAM-INF:BANDWIDTH=2\n1\n";
        let Ok(Playlist::Multivariant(levels)) = Playlist::parse(text.as_bytes(), url.as_str()) else {
            panic!("a multivariant playlist")
        };
        let config = HlsConfig { quality: crate::hls::Quality::Fixed(0), ..HlsConfig::default() };
        let shared = Shared::new(Request::get(url.as_str()).unwrap(), config.clone());
        let ladder = Ladder::new(&levels, &url, UriPolicy::default(), None).unwrap();
        let hint = "#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"hint\"\n";
        let live = Timeline::new(list(hint), url.clone(), Duration::ZERO);
        let mut state = State::new(config, ladder, None, (0, live), Estimator::default());
        // All that is listed has arrived.
        let Some(Planned::Segment { id, .. }) = state.plan(Instant::now(), Priority::Low) else {
            panic!("a segment")
        };
        state.handle_segment_complete(id);
        shared.inner.lock().state = Some(state);
        let downloader = crate::Downloader::new(crate::DownloaderConfig::default()).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        shared.inner.lock().epoch = Some(peer.epoch());
        let Some(Hinted::Part(part)) = shared.next_hint() else { panic!("a part") };
        let epoch = shared.hint_epoch(part.id).unwrap();
        shared.change(|state| state.set_quality(crate::hls::Quality::Fixed(1), Instant::now()));
        assert!(!epoch.is_cancelled(), "the playlist of the other level is not there");
        shared.change(|state| state.handle_planned_playlist(1, list(hint), url, Load::at(Instant::now())));
        shared.store(|state| state.plan(Instant::now(), Priority::Low).map(drop));
        assert!(epoch.is_cancelled());
    }

    #[test]
    fn a_level_that_has_ended_does_not_end_the_reloads_of_another_one() {
        let url = Url::parse("http://host/l").unwrap();
        let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0\n#EXT-X-STREAM-INF:BANDWIDTH=2\n1\n";
        let Ok(Playlist::Multivariant(levels)) = Playlist::parse(text.as_bytes(), url.as_str()) else {
            panic!("a multivariant playlist")
        };
        let config = HlsConfig { quality: crate::hls::Quality::Fixed(1), ..HlsConfig::default() };
        let shared = Shared::new(Request::get(url.as_str()).unwrap(), config.clone());
        let ladder = Ladder::new(&levels, &url, UriPolicy::default(), None).unwrap();
        let live = Timeline::new(list(""), url.clone(), Duration::ZERO);
        let mut state = State::new(config, ladder, None, (0, live), Estimator::default());
        state.handle_playlist(0, list("#EXT-X-ENDLIST\n"), url.clone());
        shared.inner.lock().state = Some(state);
        thread::scope(|scope| {
            let reloads = scope.spawn(|| shared.live_playlist().map(|(level, ..)| level));
            shared.store(|state| {
                let now = Instant::now();
                state.handle_planned_playlist(1, list(""), url, Load::at(now));
                state.plan(now, Priority::Low).map(drop)
            });
            assert_eq!(reloads.join().unwrap(), Some(1));
        });
    }

    #[test]
    fn what_is_hinted_at_in_an_outage_is_requested_when_it_is_over_also_without_a_reader() {
        let url = Url::parse("http://host/l").unwrap();
        let shared = Shared::new(Request::get(url.as_str()).unwrap(), HlsConfig::default());
        let hint = "#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"map\"\n";
        let live = Timeline::new(list(hint), url.clone(), Duration::ZERO);
        let mut state =
            State::new(HlsConfig::default(), Ladder::single(url), None, (0, live), Estimator::default());
        let Some(Planned::Segment { id, .. }) = state.plan(Instant::now(), Priority::Low) else {
            panic!("a segment")
        };
        let lost = Error::new(ErrorKind::Disconnected, "for a test");
        state.handle_segment_failed(id, lost, Instant::now());
        assert!(state.poll_hint(Instant::now()).is_none(), "an outage has begun");
        shared.inner.lock().state = Some(state);
        let (sent, hinted) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sent.send(matches!(shared.next_hint(), Some(Hinted::Map(_)))));
            // Half a second, unless it hangs.
            let is_map = hinted.recv_timeout(Duration::from_secs(60));
            shared.close();
            assert_eq!(is_map, Ok(true));
        });
    }
}
