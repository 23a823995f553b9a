//! What the readers of a file, its peer and its sinks share: how a read blocks, and what it requests.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;

#[cfg(feature = "cache")]
use super::backing::Backing;
use super::failure::GivenUp;
use super::network::Network;
use super::outage::Outage;
use super::overlap::Overlap;
use super::plan::{self, Plan};
use super::pool::ServerPool;
use super::reader_id::ReaderId;
use super::state::State;
use crate::buffer::Buffer;
use crate::cancel::{CancelGuard, CancelReason, CancelToken};
use crate::client::{PreconnectGuard, Request, ResponseHead};
use crate::config::{FileConfig, ReadAhead, RequestKind};
use crate::downloader::{BudgetShare, Buffering, Epoch, Handoff, LentInterrupter, Waker};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::media::{self, MediaInfo};
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::source::StreamStats;
use crate::storage::Resource;
use crate::types::{ByteRange, Priority};

/// Bytes before a piece that are requested again and compared with the stored ones, where no validator proves that the piece
/// belongs to them. They cost no round trip, and so many bytes of compressed audio are not equal by chance.
pub(super) const OVERLAP: u64 = 64;

/// Connections that are kept ready for a file whose decoder bisects. Each of its jumps requests three places at once
/// ([`bisection`](super::bisection)); the third one goes over the connection of the opening, which is idle by then.
const BISECTING_CONNECTIONS: usize = 2;

/// What the file's readers, its peer and its sinks share. Holds nothing that keeps the downloader alive.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What each piece's request is made from. Its URL has no user and no password.
    pub(super) request: Request,
    pub(super) config: FileConfig,
    pub(crate) resource: Arc<Resource>,
    /// Taken inside the resource's lock, never around it.
    pub(super) state: Mutex<State>,
    /// Set once, right after registration.
    pub(super) link: OnceLock<Link>,
    pub(super) sequential: Mutex<Option<JoinHandle<()>>>,
    pub(super) preconnect: Mutex<Preconnect>,
    /// Through which a worker leaves the rest of a body to a reader that waits for it, which then reads it on its own thread.
    pub(super) handoff: Arc<Handoff>,
    /// Where the file is kept beyond the stream.
    #[cfg(feature = "cache")]
    pub(super) backing: Option<Backing>,
    /// Held while the cache entry of the file is opened, so that two responses do not open two.
    #[cfg(feature = "cache")]
    pub(super) attaching: Mutex<()>,
}

/// Connections that are kept ready, so that a seek costs one round trip.
#[derive(Debug, Default)]
pub(super) enum Preconnect {
    /// It is not known yet whether there is more to come than the opening brings.
    #[default]
    Undecided,
    /// `None` behind a proxy, and once the stream is gone.
    Decided(Option<PreconnectGuard>),
}

/// The way to the downloader.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) waker: Waker,
    /// Above that of every piece.
    pub(super) epoch: Epoch,
    /// `None` where storage does not buffer in a window of memory.
    pub(super) share: Option<BudgetShare>,
}

impl Shared {
    /// Adds the headers of `config` to `request`.
    pub(super) fn new(request: Request, config: FileConfig) -> Result<Self, Error> {
        let request = request.headers("FileConfig::headers", &config.headers)?;
        let (hook, mirrors) = (config.hook.as_ref(), &config.mirrors);
        let request = request.alternates("FileConfig", RequestKind::File, hook, mirrors)?;
        let config = config.checked()?;
        let behind = config.storage.is_windowed().then_some(config.behind);
        let mut state = State::new(config.read_ahead, behind);
        state.pool = ServerPool::new(config.server_pools);
        state.priority = config.priority;
        state.outage = Outage::new(config.give_up);
        let resource = Arc::new(Resource::new(&config.storage)?);
        let woken = Arc::clone(&resource);
        #[cfg(feature = "cache")]
        let backing = config.cache.clone().map(Backing::Cache);
        Ok(Self {
            request,
            resource,
            state: Mutex::new(state),
            config,
            link: OnceLock::new(),
            sequential: Mutex::default(),
            preconnect: Mutex::default(),
            handoff: Arc::new(Handoff::new(move || {
                woken.notify();
            })),
            #[cfg(feature = "cache")]
            backing,
            #[cfg(feature = "cache")]
            attaching: Mutex::default(),
        })
    }

    pub(crate) fn url(&self) -> SafeUrl {
        self.request.url().into()
    }

    pub(crate) fn len(&self) -> Option<u64> {
        self.state.lock().len()
    }

    pub(crate) fn is_ranged(&self) -> bool {
        self.state.lock().mode.is_ranged()
    }

    /// What kind of media it is, as far as is known by now.
    pub(crate) fn media_info(&self) -> MediaInfo {
        let state = self.state.lock();
        state.media.clone().unwrap_or_else(|| self.detect(&state))
    }

    fn detect(&self, state: &State) -> MediaInfo {
        let content_type = state.mode.info().and_then(|info| info.content_type.as_deref());
        MediaInfo::detect(content_type, self.request.url().expose().as_str(), state.first.as_slice())
    }

    /// Head of the first response that was accepted, or what the cache has stored of it.
    pub(crate) fn response_head(&self) -> Option<ResponseHead> {
        self.state.lock().mode.info().map(|info| info.representation.head().clone())
    }

    pub(crate) fn stats(&self) -> StreamStats {
        let state = self.state.lock();
        let stalls = state.waits.stalls();
        StreamStats { stalls: stalls.count, stalled: stalls.time, ..state.stats.clone() }
    }

    pub(crate) fn buffered(&self) -> Vec<Range<u64>> {
        self.resource.with_ranges(|ranges| ranges.iter().collect())
    }

    pub(crate) fn is_stored(&self, position: u64) -> bool {
        self.resource.with_ranges(|ranges| ranges.contains(position))
    }

    pub(crate) fn add_reader(&self) -> ReaderId {
        self.state.lock().add_reader()
    }

    pub(crate) fn remove_reader(&self, reader: ReaderId) {
        {
            let mut state = self.state.lock();
            state.remove_reader(reader);
            self.set_hurry(&state);
        }
        self.resource.notify();
    }

    /// Drops what only a stream has a use for, whichever handles are left: the bytes, the connection that is kept
    /// ready. What is known of the file stays known.
    pub(super) fn close(&self) {
        // Determined from the first bytes, which are dropped next.
        let media = self.media_info();
        self.state.lock().close(media);
        self.resource.close();
        let preconnect = std::mem::replace(&mut *self.preconnect.lock(), Preconnect::Decided(None));
        // Without this lock: the drop of the guard takes that of the pool.
        drop(preconnect);
    }

    /// Ends all transfers permanently. Stored bytes stay readable.
    pub(crate) fn cancel(&self) {
        if let Some(link) = self.link.get() {
            link.epoch.cancel();
        }
    }

    /// Runs `hook` when all transfers were ended permanently.
    pub(crate) fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> Option<CancelGuard> {
        Some(self.link.get()?.epoch.on_cancel(hook))
    }

    /// Ends the calls of `reader` that wait with `Interrupted`. Until `resume` none of them waits.
    pub(crate) fn interrupt(&self, reader: ReaderId) {
        let mut state = self.state.lock();
        // Recorded before anything is woken: a thread that looks again must see it.
        state.waits.interrupt(reader.waits);
        self.set_hurry(&state);
        let lent = state.lent_of(reader.waits);
        drop(state);
        // Without the lock, since an abort runs callbacks.
        lent.iter().for_each(LentInterrupter::interrupt);
        self.resource.notify();
    }

    /// Lets the calls of `reader` wait again.
    pub(crate) fn resume(&self, reader: ReaderId) {
        let mut state = self.state.lock();
        state.waits.resume(reader.waits);
        self.set_hurry(&state);
    }

    /// As [`set_hurry`](Self::set_hurry), once the file is cancelled.
    pub(super) fn let_none_wait_for_disk(&self) {
        // Under the lock: a thread that has found no cancel just before must not clear it after this.
        let _state = self.state.lock();
        self.resource.set_interrupted(true);
    }

    /// Lets no thread wait for the disk while one is to return: it may be storing bytes just now.
    fn set_hurry(&self, state: &State) {
        self.resource.set_interrupted(state.waits.has_interrupted() || self.cancel_reason().is_some());
    }

    /// The file's phase, without regard to its readers' last reads.
    pub(crate) fn phase(&self) -> Phase {
        let is_cancelled = self.link.get().is_some_and(|link| link.epoch.is_cancelled());
        self.resource.with_ranges(|ranges| self.state.lock().phase(is_cancelled, ranges))
    }

    /// The error that stopped fetching, or that is being retried.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.state.lock().waits.last_error().cloned()
    }

    /// Publishes that a read, or all fetching, has failed.
    pub(crate) fn report(&self, error: Error, position: u64) {
        let error = self.locate(error, position);
        if let Some(link) = self.link.get() {
            link.waker.publish(&Event::StreamFailed { position, error });
        }
    }

    /// Cancels what is in flight after the file was given up, and publishes the error if no read returns it. Not under the
    /// lock.
    pub(super) fn finish_given_up(&self, given_up: GivenUp, position: u64) {
        given_up.tokens.iter().for_each(CancelToken::cancel);
        if let Some(error) = given_up.unreturned {
            self.report(error, position);
        }
        self.resource.notify();
    }

    /// Bytes a second that the downloader achieves.
    pub(crate) fn bandwidth(&self) -> Option<f64> {
        self.network().bandwidth
    }

    /// Changes how far ahead of its readers the file is fetched.
    pub(crate) fn set_read_ahead(&self, read_ahead: ReadAhead) -> Result<(), Error> {
        FileConfig { read_ahead, ..FileConfig::default() }.check()?;
        self.state.lock().set_read_ahead(read_ahead);
        // The thread of a sequential body may wait because enough was stored ahead of the readers.
        self.resource.notify();
        self.replan(Priority::Low);
        Ok(())
    }

    pub(super) fn locate(&self, error: Error, position: u64) -> Error {
        let error = error.with_url(self.request.url());
        if position == u64::MAX { error } else { error.with_range(ByteRange::from_start(position)) }
    }

    /// Requests memory for what the readers would like to have around them.
    pub(super) fn request_memory(&self) {
        let Some(share) = self.link.get().and_then(|link| link.share.as_ref()) else { return };
        let (wanted, priority) = {
            let state = self.state.lock();
            (state.wanted_memory(), state.priority)
        };
        share.request(wanted, priority);
        self.state.lock().set_granted(share);
    }

    pub(super) fn cancel_reason(&self) -> Option<CancelReason> {
        self.link.get()?.epoch.reason()
    }

    /// Wakes the peer if the plan has something for it.
    pub(super) fn replan(&self, admissible: Priority) {
        let Some(link) = self.link.get() else { return };
        let network = self.network();
        let plan = self.resource.with_ranges(|ranges| self.state.lock().plan(ranges, network, admissible));
        match plan {
            Plan::Fetch { priority, .. } => link.waker.wake(priority),
            Plan::Probe => link.waker.wake(Priority::High),
            Plan::Suffix => link.waker.wake(Priority::Low),
            #[cfg(feature = "cache")]
            Plan::Confirm => link.waker.wake(Priority::Low),
            Plan::Idle => {}
        }
    }

    /// What the network has shown.
    pub(super) fn network(&self) -> Network {
        let (bandwidth, ttfb) = self.link.get().map(|link| link.waker.network()).unwrap_or_default();
        let is_metered = self.link.get().is_some_and(|link| link.waker.is_metered());
        let single_connection = matches!(&*self.preconnect.lock(), Preconnect::Decided(Some(preconnect)) if preconnect.is_single_connection());
        Network { bandwidth, ttfb, single_connection, is_metered }
    }

    /// Keeps connections ready from now on, if there is more to come than the opening brings.
    pub(super) fn keep_preconnected(&self) {
        let is_undecided = matches!(*self.preconnect.lock(), Preconnect::Undecided);
        let is_bisected = {
            let state = self.state.lock();
            let has_more = state.mode.is_ranged() && state.len().is_none_or(|len| len > plan::OPENING);
            // The connection of the suffix request is about to be the one that is ready.
            if !has_more || (state.suffix.is_running() && is_undecided) {
                return;
            }
            state.is_bisected()
        };
        let is_metered = self.link.get().is_none_or(|link| link.waker.is_metered());
        self.preconnect(if is_bisected && !is_metered { BISECTING_CONNECTIONS } else { 1 });
    }

    /// The connection of a piece was closed in the middle of its body: the next piece needs one.
    pub(super) fn handle_cut(&self) {
        if let Preconnect::Decided(Some(guard)) = &*self.preconnect.lock() {
            guard.handle_cut();
        }
    }

    /// Keeps this many connections ready from now on.
    pub(super) fn preconnect(&self, ready: usize) {
        let target = self.state.lock().target().cloned();
        let mut preconnect = self.preconnect.lock();
        match &*preconnect {
            Preconnect::Decided(None) => return,
            Preconnect::Decided(Some(guard)) if guard.ready() == ready => return,
            Preconnect::Decided(Some(_)) | Preconnect::Undecided => {}
        }
        let request = self.request(target.as_ref());
        // The guard before it is dropped after the new one was made, so no connection is closed in between.
        *preconnect = Preconnect::Decided(
            self.link.get().and_then(|link| link.waker.keep_connections(&request, ready)),
        );
    }

    /// The stored bytes before `start`, if only they can show that what is fetched from there on belongs to
    /// them.
    pub(super) fn overlap(&self, start: u64) -> Option<Overlap> {
        if self.state.lock().has_validator() {
            return None;
        }
        let mut bytes = vec![0; OVERLAP.min(start) as usize];
        let from = start - bytes.len() as u64;
        let got = self.resource.read_at(from, &mut bytes).ok()?;
        (got > 0 && got == bytes.len()).then_some(Overlap { start: from, bytes })
    }

    /// The stored bytes from `end` on, if only they can show that what is fetched before them belongs to them.
    pub(super) fn overlap_behind(&self, end: u64) -> Option<Overlap> {
        let run_end = self.resource.with_ranges(|ranges| ranges.run_from(end));
        if run_end == end || self.state.lock().has_validator() {
            return None;
        }
        let mut bytes = vec![0; OVERLAP.min(run_end - end) as usize];
        let got = self.resource.read_at(end, &mut bytes).ok()?;
        bytes.truncate(got);
        (got > 0).then_some(Overlap { start: end, bytes })
    }

    /// A request that is sent to `target` first, if there is one, and else to the file's own URL.
    pub(super) fn request(&self, target: Option<&SafeUrl>) -> Request {
        let request = self.request.clone();
        match target {
            Some(target) => request.shortcut(target),
            None => request,
        }
    }

    /// Keeps these first bytes in the state, from which the format is detected. Fails if they are those of an HTML page or of another
    /// file that is no media.
    pub(crate) fn accept_first(&self, first: &[u8]) -> Result<(), Error> {
        let mut state = self.state.lock();
        let content_type = state.mode.info().and_then(|info| info.content_type.as_deref());
        if let Some(found) = media::detect_other(content_type, first) {
            let (what, advice, announced) = (found.name(), found.advice(), content_type.unwrap_or("none"));
            let why = format!("the response is {what}, not media (content type: {announced}){advice}");
            // The next attempt may get something else, which must not be compared with this response.
            state.mode.reopen();
            drop(state);
            #[cfg(feature = "cache")]
            self.leave_entry();
            return Err(Error::new(ErrorKind::NotMedia, why).with_url(self.url()));
        }
        state.add_first(0, first);
        drop(state);
        #[cfg(feature = "cache")]
        self.evict_other_versions();
        Ok(())
    }

    /// Stores bytes, or drops them if no reader's window holds them.
    pub(crate) fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let is_wanted = self.take_in(offset, bytes);
        if is_wanted { self.resource.store(offset, bytes) } else { Ok(()) }
    }

    /// As `store`, for a block whose memory may be kept.
    pub(super) fn store_block(&self, offset: u64, block: &mut Buffer) -> Result<(), Error> {
        let is_wanted = self.take_in(offset, block);
        if is_wanted { self.resource.write_block(offset, block) } else { Ok(()) }
    }

    /// Records that bytes arrived. True if a reader may want them.
    fn take_in(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        let is_wanted = state.take_in(offset, bytes);
        if state.first.is_full() && state.media.is_none() {
            // More bytes can't show more. A thousand open streams would keep 16 MiB of them beside what is stored.
            let media = self.detect(&state);
            state.keep_media(media);
        }
        is_wanted
    }

    /// Stores the tail that has arrived, once the opening has shown what the file is.
    pub(crate) fn store_tail(&self) -> Result<(), Error> {
        let Some((start, bytes)) = self.state.lock().poll_tail() else { return Ok(()) };
        // The suffix stays in `Storing` until its bytes are stored, so that no reader requests them again in between.
        let stored = self.store(start, &bytes);
        self.state.lock().suffix.stored();
        stored
    }
}

impl Buffering for Shared {
    fn handle_reduced(&self) {
        let Some(share) = self.link.get().and_then(|link| link.share.as_ref()) else { return };
        // On the thread of another stream: this one's reader may seek meanwhile, and get its bytes. If they were removed then, nothing
        // would request them again.
        self.resource.evict_outside(|| {
            let mut state = self.state.lock();
            state.set_granted(share);
            state.granted_windows()
        });
    }
}
