//! The state that a queue, its handles and the source of its current track share.
//!
//! Nothing is opened, dropped or called under the lock: each method decides under it, then acts, then looks again whether
//! the result is still wanted.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use super::config::QueueConfig;
use super::event::QueueEvent;
use super::order::{Order, TrackId};
use super::skip::Skip;
use super::track::{Remote, Track};
use crate::config::FileConfig;
use crate::downloader::Downloader;
use crate::error::Error;
use crate::event::Bus;
use crate::source::file::{FileReader, HttpFile};
use crate::stream::StreamHandle;
use crate::types::Priority;

pub(super) struct Shared {
    /// Of the queue. Weak, since handles of a dropped queue must keep neither a downloader nor a cache.
    opener: Weak<Opener>,
    state: Mutex<State>,
    /// Notified when there may be a next track where there was none, and when the queue is closed.
    changed: Condvar,
    pub(super) events: Bus<QueueEvent>,
}

/// Opens tracks over HTTP.
pub(super) struct Opener {
    downloader: Downloader,
    pub(super) config: QueueConfig,
}

#[derive(Default)]
struct State {
    order: Order,
    /// The current track, once its source is known.
    active: Option<Active>,
    prefetch: Prefetch,
    /// The current track comes to its end: the next one is to be prefetched, whichever it is.
    is_end_near: bool,
    /// The queue was closed or dropped: it yields no more tracks.
    is_closed: bool,
}

struct Active {
    id: TrackId,
    skip: Skip,
    /// Of a track with a URL.
    file: Option<Arc<FileReader>>,
    /// Once it is open.
    stream: Option<StreamHandle>,
}

impl Active {
    /// Another reader of its bytes, if its track is `next` and all of them are stored.
    fn stored(&self, next: TrackId) -> Option<Arc<FileReader>> {
        let file = self.file.as_ref().filter(|file| self.id == next && file.is_whole())?;
        file.again().map(Arc::new)
    }
}

/// The prefetch of the next track.
#[derive(Default)]
enum Prefetch {
    #[default]
    None,
    /// A thread is about to request it.
    Begun(TrackId),
    /// Its beginning is being fetched, or is stored. Of a track that follows itself it may be another reader of the same file.
    Running(TrackId, Arc<FileReader>),
}

/// A prefetch that is to begin.
struct Due {
    id: TrackId,
    remote: Remote,
    priority: Priority,
}

/// The track that was taken from the queue, with what was prefetched of it.
pub(super) struct Taken {
    pub(super) id: TrackId,
    pub(super) track: Track,
    pub(super) prefetched: Option<Arc<FileReader>>,
}

impl Shared {
    pub(super) fn new(opener: &Arc<Opener>) -> Self {
        let events = Bus::of(opener.config.event_capacity, |lost| QueueEvent::Lagged { lost });
        Self { opener: Arc::downgrade(opener), state: Mutex::default(), changed: Condvar::new(), events }
    }

    /// Looks at the order.
    pub(super) fn with_order<T>(&self, look: impl FnOnce(&Order) -> T) -> T {
        look(&self.state.lock().order)
    }

    /// Changes the order. Ends the track that is not the current one any more, and its prefetch if another one is next.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Order) -> T) -> T {
        // Upgraded without the lock, as it is dropped: it may be the last reference to the downloader.
        let opener = self.opener.upgrade();
        let mut state = self.state.lock();
        let result = change(&mut state.order);
        let skipped = state.take_skipped();
        let outdated = state.take_outdated();
        // After a skip the player is about to ask for it, and after another one before that for the track behind it.
        let is_skip = skipped.is_some() || (outdated.is_some() && state.order.current().is_none());
        let due = opener.as_ref().and_then(|opener| state.poll_prefetch(opener, is_skip));
        drop(state);
        self.changed.notify_all();
        if let Some(skipped) = &skipped {
            // Without the lock: it wakes the reader, whose next step may lock the queue.
            skipped.skip.skip();
        }
        drop(outdated);
        // Without the lock, since a file is opened here.
        if let Some((opener, due)) = opener.zip(due) {
            let stored = skipped.and_then(|skipped| skipped.stored(due.id));
            self.begin_prefetch(&opener, due, stored);
        }
        result
    }

    /// The track `id` comes to its end: `position` is that of the next byte, and `is_end` if there is none. False if the next one is
    /// not prefetched yet: the network is metered, or the track follows itself, and is about to be stored whole.
    pub(super) fn handle_end_near(&self, id: TrackId, position: u64, is_end: bool) -> bool {
        // Of a queue that is being dropped nothing is prefetched.
        let Some(opener) = self.opener.upgrade() else { return true };
        let repeated = self.repeated(id);
        let stored = repeated.as_ref().filter(|file| file.is_whole()).and_then(|file| file.again());
        // Where the beginning is not stored any more, the whole never will be.
        let may_be_stored = || !is_end && repeated.is_some_and(|file| file.is_stored_to(Some(position)));
        if stored.is_none() && (opener.downloader.is_metered() || may_be_stored()) {
            return false;
        }
        let mut state = self.state.lock();
        state.is_end_near |= state.order.current() == Some(id);
        let due = state.poll_prefetch(&opener, stored.is_some());
        drop(state);
        if let Some(due) = due {
            let stored = stored.filter(|_| due.id == id).map(Arc::new);
            self.begin_prefetch(&opener, due, stored);
        }
        true
    }

    /// The file of the track `id`, if that is the current track and follows itself.
    fn repeated(&self, id: TrackId) -> Option<Arc<FileReader>> {
        let state = self.state.lock();
        let is_next = state.order.next().is_some_and(|(next, _)| *next == id);
        let active = state.active.as_ref().filter(|active| is_next && active.id == id)?;
        active.file.clone()
    }

    /// Takes the next track. `None` at the end of the queue, and of one that is closed.
    pub(super) fn take_next(&self) -> Option<Taken> {
        let mut state = self.state.lock();
        let ended = state.active.take();
        let taken = if state.is_closed { None } else { state.order.take_next() };
        let prefetch = std::mem::take(&mut state.prefetch);
        state.is_end_near = false;
        // Here, and not with `ended`: the handle of the last track may be the last reference to its file.
        drop(state);
        let (id, track) = taken?;
        let prefetched = match prefetch {
            Prefetch::Running(prefetched, file) if prefetched == id => Some(file),
            // One that has only begun is not waited for: its thread drops it, and the track is requested again, unless it follows
            // itself and has been stored whole since its player has looked.
            _ => ended.as_ref().and_then(|ended| ended.stored(id)),
        };
        Some(Taken { id, track, prefetched })
    }

    /// Blocks until there is a next track. False if the queue is closed.
    pub(super) fn wait_next(&self) -> bool {
        let mut state = self.state.lock();
        while !state.is_closed && state.order.next().is_none() {
            self.changed.wait(&mut state);
        }
        !state.is_closed
    }

    /// Notes where the current track comes from: a skip ends it from now on. False if it was skipped before.
    pub(super) fn handle_source(&self, id: TrackId, skip: &Skip, file: &Arc<FileReader>) -> bool {
        self.set_active(Active { id, skip: skip.clone(), file: Some(Arc::clone(file)), stream: None })
    }

    /// Notes that the current track is open. False if it was skipped meanwhile.
    pub(super) fn handle_opened(&self, id: TrackId, skip: &Skip, stream: StreamHandle) -> bool {
        self.set_active(Active { id, skip: skip.clone(), file: None, stream: Some(stream) })
    }

    fn set_active(&self, mut active: Active) -> bool {
        let mut state = self.state.lock();
        let is_current = state.order.current() == Some(active.id);
        let earlier = state.active.as_mut().filter(|earlier| earlier.id == active.id);
        active.file = active.file.or_else(|| earlier?.file.take());
        if is_current && active.stream.is_some() {
            state.order.handle_opened();
        }
        let replaced = if is_current { state.active.replace(active) } else { Some(active) };
        drop(state);
        // Without the lock, since the drop of a stream may join a thread.
        drop(replaced);
        is_current
    }

    /// Notes that a track could not be opened. False if it was skipped meanwhile.
    pub(super) fn handle_failed(&self, id: TrackId) -> bool {
        let mut state = self.state.lock();
        let is_current = state.order.current() == Some(id);
        let failed = if is_current { state.active.take() } else { None };
        if is_current {
            state.order.handle_failed();
        }
        drop(state);
        // Without the lock, as in `take_next`.
        drop(failed);
        is_current
    }

    /// The stream of the current track.
    pub(super) fn current_stream(&self) -> Option<StreamHandle> {
        self.state.lock().active.as_ref()?.stream.clone()
    }

    /// Ends the queue for good, and its prefetch. The current stream can be read on.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let dropped = (std::mem::take(&mut state.prefetch), state.active.take());
        drop(state);
        self.changed.notify_all();
        // Without the lock, as in `take_next`.
        drop(dropped);
        self.events.close();
    }

    /// Ends the current track, and the queue for good.
    pub(super) fn end(&self) {
        // First: the skip must not request the next track.
        self.state.lock().is_closed = true;
        self.change(|order| order.end_current());
        self.close();
    }

    /// Requests the track, unless all its bytes are `stored`.
    fn begin_prefetch(&self, opener: &Opener, due: Due, stored: Option<Arc<FileReader>>) {
        let Due { id, remote, priority } = due;
        let is_requested = stored.is_none();
        let opened = stored.map_or_else(|| opener.open_later(&remote, priority), Ok);
        let mut state = self.state.lock();
        // The lock was free while the request was made: the track may have been removed, or taken, since.
        let is_wanted = matches!(state.prefetch, Prefetch::Begun(begun) if begun == id);
        if is_wanted {
            state.prefetch = Prefetch::None;
        }
        let outdated = match opened {
            Ok(file) if is_wanted => {
                state.prefetch = Prefetch::Running(id, file);
                None
            }
            opened => Some(opened),
        };
        drop(state);
        match outdated {
            None if is_requested => self.events.publish(&QueueEvent::Prefetching { id }),
            None => {}
            // Not published: the error is returned when the track is taken.
            Some(Err(error)) => log::debug!("a track can't be prefetched: {error}"),
            Some(Ok(_)) => {}
        }
    }
}

impl Opener {
    pub(super) fn new(downloader: &Downloader, config: QueueConfig) -> Arc<Self> {
        Arc::new(Self { downloader: downloader.clone(), config })
    }

    /// Requests the beginning of a track. Does not block on the network.
    pub(super) fn open_later(&self, remote: &Remote, priority: Priority) -> Result<Arc<FileReader>, Error> {
        let mut config = FileConfig { priority, ..self.config.file.clone() };
        if !remote.gets_headers {
            config.headers = Vec::new();
        }
        // Both belong to one resource: another track would be played from them.
        config.mirrors = Vec::new();
        #[cfg(feature = "cache")]
        if let Some(cache) = &mut config.cache {
            cache.key = None;
        }
        let file = HttpFile::open_later(&self.downloader, remote.request()?, config)?;
        Ok(Arc::new(FileReader::new(file)))
    }
}

impl State {
    /// The next track, if it is time to prefetch it. It counts as begun.
    fn poll_prefetch(&mut self, opener: &Opener, is_no_guess: bool) -> Option<Due> {
        let is_wanted = opener.config.prefetch_before.is_some() && !opener.downloader.is_metered();
        // After a skip the player is about to open the track, on a metered network too. What is stored already costs nothing.
        let is_due = is_no_guess || (self.is_end_near && is_wanted);
        if !is_due || self.is_closed || !matches!(self.prefetch, Prefetch::None) {
            return None;
        }
        let (id, track) = self.order.next()?;
        let priority = if is_no_guess { opener.config.file.priority } else { Priority::Low };
        // A closure of the application is not called ahead: it may block, and this thread may be that of a reader.
        let due = Due { id: *id, remote: track.as_remote()?.clone(), priority };
        self.prefetch = Prefetch::Begun(due.id);
        Some(due)
    }

    /// The active track, if it is no longer the current one.
    fn take_skipped(&mut self) -> Option<Active> {
        let current = self.order.current();
        let skipped = self.active.take_if(|active| Some(active.id) != current);
        // The end was that of the skipped track.
        self.is_end_near &= skipped.is_none();
        skipped
    }

    /// The prefetch, if another track is next.
    fn take_outdated(&mut self) -> Option<Prefetch> {
        let next = self.order.next().map(|(id, _)| *id);
        match self.prefetch {
            Prefetch::Begun(id) | Prefetch::Running(id, _) if Some(id) != next => {
                Some(std::mem::take(&mut self.prefetch))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tracks, current) = self.with_order(|order| (order.tracks().len(), order.current()));
        f.debug_struct("Queue").field("tracks", &tracks).field("current", &current).finish_non_exhaustive()
    }
}
