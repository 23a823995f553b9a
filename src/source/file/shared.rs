//! What the readers of a file, its peer and its sinks share: how a read blocks, and what it asks for.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[cfg(feature = "cache")]
use super::backing::Backing;
use super::network::Network;
use super::overlap::Overlap;
use super::plan::{self, Plan};
use super::pool::ServerPool;
use super::reader_view::ReaderView;
use super::state::State;
use crate::buffer::Buffer;
use crate::cancel::CancelReason;
use crate::client::{PreconnectGuard, Request};
use crate::config::{FileConfig, ReadAhead};
use crate::downloader::{BudgetShare, Buffering, Epoch, Handoff, Lent, Waker};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::media::{self, MediaInfo};
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::source::prefetch;
use crate::source::wait::{Begun, TimeLimit};
use crate::source::{Pending, StreamStats, TryRead};
use crate::storage::{Resource, TryStored};
use crate::types::{ByteRange, Priority};

/// Bytes by which a piece is held against what is stored before it, where nothing vouches for it.
const OVERLAP: u64 = 64;

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
    /// Where workers leave bodies to readers that wait for them.
    pub(super) handoff: Arc<Handoff>,
    /// Where the file is kept beyond the stream.
    #[cfg(feature = "cache")]
    pub(super) backing: Option<Backing>,
    /// Held while the entry is opened that the file is stored in.
    #[cfg(feature = "cache")]
    pub(super) attaching: Mutex<()>,
}

/// A connection that is kept ready, so that a seek costs one round trip.
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

/// Names one reader of a file.
pub(crate) type ReaderId = usize;

enum Wait {
    Ready,
    End,
    Failed(Error),
}

/// Why a blocked thread wakes.
enum Woken {
    Over(Wait),
    /// It is to run a fetch itself.
    ToRun,
}

impl Shared {
    pub(super) fn new(url: &str, config: FileConfig) -> Result<Self, Error> {
        let request = Request::get(url)?.headers("FileConfig::headers", &config.headers)?;
        let behind = config.storage.is_windowed().then_some(config.behind);
        let mut state = State::new(config.read_ahead, behind);
        state.pool = ServerPool::new(config.server_pools);
        state.priority = config.priority;
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
            handoff: Arc::new(Handoff::new(move || woken.notify())),
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
        if let Some(media) = &state.media {
            return media.clone();
        }
        let content_type = state.mode.info().and_then(|info| info.content_type.as_deref());
        MediaInfo::detect(content_type, self.request.url().expose().as_str(), state.first.as_slice())
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
        self.state.lock().readers.insert(ReaderView::default())
    }

    pub(crate) fn remove_reader(&self, reader: ReaderId) {
        self.state.lock().readers.remove(reader);
        self.resource.notify();
    }

    /// Drops what only a stream has a use for, whichever handles are left: the bytes, the connection that is kept
    /// ready. What is known of the file stays known.
    pub(super) fn close(&self) {
        let media = self.media_info();
        self.state.lock().close(media);
        self.resource.close();
        let preconnect = std::mem::replace(&mut *self.preconnect.lock(), Preconnect::Decided(None));
        drop(preconnect);
    }

    /// Ends all transfers permanently. Stored bytes stay readable.
    pub(crate) fn cancel(&self) {
        if let Some(link) = self.link.get() {
            link.epoch.cancel();
        }
    }

    /// Releases the reads that wait; until `resume` none waits.
    pub(crate) fn interrupt(&self) {
        let mut state = self.state.lock();
        state.waits.interrupt();
        drop(state);
        if let Some(link) = self.link.get() {
            link.waker.interrupt_lent();
        }
        self.resource.notify();
    }

    pub(crate) fn resume(&self) {
        self.state.lock().waits.resume();
    }

    /// Copies what is stored at `position`, without waiting.
    pub(crate) fn read_stored(
        &self,
        reader: ReaderId,
        position: u64,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let got = self.resource.read_at(position, buf).map_err(|error| self.locate(error, position))?;
        if got > 0 {
            self.advance(reader, position, got as u64);
        }
        Ok(got)
    }

    /// Reads at `position`: blocks until at least one byte is there, the end, or an error.
    pub(crate) fn read(&self, reader: ReaderId, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        if buf.is_empty() {
            return Ok(0);
        }
        Error::check_may_block("read").map_err(|error| self.locate(error, position))?;
        let (begun, interrupted) = {
            let state = self.state.lock();
            (state.waits.begin(), state.waits.is_interrupted())
        };
        loop {
            let got = self.read_stored(reader, position, buf)?;
            if got > 0 {
                return Ok(got);
            }
            if !interrupted && self.handoff.drive(position) {
                continue;
            }
            match self.await_byte(reader, position, begun) {
                Wait::Ready => {}
                Wait::End => return Ok(0),
                Wait::Failed(error) => return Err(self.locate(error, position)),
            }
        }
    }

    /// Copies what is there at `position`; where nothing is, asks for it and does not wait. `returned` are the
    /// failures of the file that this reader has returned.
    pub(crate) fn try_read(
        &self,
        reader: ReaderId,
        position: u64,
        buf: &mut [u8],
        returned: &mut Begun,
    ) -> Result<TryRead, Error> {
        if buf.is_empty() {
            return Ok(TryRead::Bytes(0));
        }
        let stored =
            self.resource.try_read_at(position, buf).map_err(|error| self.locate(error, position))?;
        if let TryStored::Bytes(got) = stored {
            self.advance(reader, position, got as u64);
            return Ok(TryRead::Bytes(got));
        }
        let pending = {
            if stored == TryStored::OnDisk {
                return Ok(TryRead::Pending(Pending::OnDisk));
            }
            let mut state = self.state.lock();
            if state.is_past_end(position) {
                return Ok(TryRead::End);
            }
            let now = state.waits.begin();
            let begun = now.after_failures_of(std::mem::replace(returned, now));
            if let Some(error) = state.waits.broken_off(begun, self.cancel_reason()) {
                return Err(self.locate(error, position));
            }
            state.want(reader, position);
            if state.waits.retrying().is_some() { Pending::Retrying } else { Pending::Fetching }
        };
        self.request_urgent();
        Ok(TryRead::Pending(pending))
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

    /// Bytes a second that the downloader achieves.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.network().rate
    }

    /// Changes how far ahead of its readers the file is fetched.
    pub(crate) fn set_read_ahead(&self, read_ahead: ReadAhead) -> Result<(), Error> {
        FileConfig { read_ahead, ..FileConfig::default() }.check()?;
        self.state.lock().set_read_ahead(read_ahead);
        self.replan(Priority::Low);
        Ok(())
    }

    /// Blocks until the length is known, reading on to the end if the server does not tell it.
    pub(crate) fn await_len(&self, reader: ReaderId) -> Result<u64, Error> {
        let begun = self.state.lock().waits.begin();
        loop {
            if let Some(len) = self.len() {
                return Ok(len);
            }
            Error::check_may_block("seek").map_err(|error| self.locate(error, u64::MAX))?;
            if let Wait::Failed(error) = self.await_byte(reader, u64::MAX, begun) {
                return Err(self.locate(error, u64::MAX));
            }
        }
    }

    /// Blocks until `bytes` are stored from `position` on, or all up to the end.
    pub(crate) fn wait_buffered(
        &self,
        position: u64,
        bytes: u64,
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        Error::check_may_block("waiting for bytes").map_err(|error| self.locate(error, position))?;
        let (begun, most) = {
            let state = self.state.lock();
            (state.waits.begin(), state.most_buffered())
        };
        if most.is_some_and(|most| bytes > most) {
            let why = format!("can't wait for {bytes} bytes: storage keeps fewer ahead of a reader");
            return Err(self.locate(Error::new(ErrorKind::InvalidInput, why), position));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let end = position.saturating_add(bytes);
        let waiter = self.state.lock().want_all(&(position..end));
        self.request_urgent();
        let ended = self.resource.wait(deadline, |view| {
            let state = self.state.lock();
            if view.ranges.run_from(position) >= end.min(state.len().unwrap_or(u64::MAX)) {
                return Some(Ok(()));
            }
            state.waits.broken_off(begun, self.cancel_reason()).map(Err)
        });
        let mut state = self.state.lock();
        state.readers.remove(waiter);
        let ended = ended.unwrap_or_else(|| Err(state.waits.wait_timed_out(timeout.unwrap_or_default())));
        drop(state);
        ended.map_err(|error| self.locate(error, position))
    }

    pub(super) fn await_opening(&self, reader: ReaderId) -> Result<(), Error> {
        // Not before the first bytes have shown that it is no page.
        let known = |state: &State| (!state.first.is_empty()).then_some(Wait::Ready);
        match self.wait_as(reader, 0, Begun::default(), known) {
            Wait::Failed(error) => Err(self.locate(error, 0)),
            _ => Ok(()),
        }
    }

    fn locate(&self, error: Error, position: u64) -> Error {
        let error = error.with_url(self.request.url());
        if position == u64::MAX { error } else { error.with_range(ByteRange::from_start(position)) }
    }

    /// Notes that a reader got bytes from storage, and asks for more when it is time.
    fn advance(&self, reader: ReaderId, position: u64, bytes: u64) {
        let mut state = self.state.lock();
        let read_ahead = state.limits.target();
        state.stats.bytes_read += bytes;
        state.limits.handle_read(bytes, Instant::now());
        let run = state.move_on(reader, position, bytes);
        if !prefetch::is_look_due(run, bytes, plan::prefetch_limit(read_ahead)) {
            return;
        }
        // A reader that continues needs it requested again before the reader gets there.
        if state.waits.halted().is_some_and(Error::is_retryable) && !state.is_sequential() {
            state.waits.restart();
        }
        let sequential = state.one_body.is_running();
        drop(state);
        self.request_memory();
        let windows = self.state.lock().windows();
        if let Some(windows) = windows {
            self.resource.evict(&windows);
        }
        if sequential {
            // The thread that reads the sequential body waits for readers to get on.
            self.resource.notify();
        }
        self.replan(Priority::Low);
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

    fn await_byte(&self, reader: ReaderId, position: u64, begun: Begun) -> Wait {
        self.wait_as(reader, position, begun, |state| state.is_past_end(position).then_some(Wait::End))
    }

    /// Blocks `reader` on the byte at `position`, until it is there, `or` says so, or it can't be waited for.
    fn wait_as(
        &self,
        reader: ReaderId,
        position: u64,
        begun: Begun,
        or: impl Fn(&State) -> Option<Wait>,
    ) -> Wait {
        let begun = {
            let mut state = self.state.lock();
            state.want(reader, position);
            begun.after_failures_of(state.waits.begin())
        };
        self.request_urgent();
        let began = Instant::now();
        let wait = self.block(position, begun, or);
        let mut state = self.state.lock();
        state.readers[reader].waiting = false;
        if !matches!(wait, Wait::End) {
            state.waits.add_stall(began.elapsed());
        }
        wait
    }

    /// Makes what is waited for come: clears its way, makes it urgent, and asks for what is not on its way.
    fn request_urgent(&self) {
        let Some(link) = self.link.get() else { return };
        let network = self.network();
        let (unwanted, urgent, may_jump) = self.resource.with_ranges(|ranges| {
            let mut state = self.state.lock();
            (state.unwanted(ranges, network), state.promote_urgent(ranges), state.may_jump())
        });
        for token in unwanted {
            token.cancel();
        }
        urgent.into_iter().for_each(|request| link.waker.promote(request, Priority::High));
        // A sequential body's thread may have to read on, or start again.
        self.resource.notify();
        // What is waited for may be on its way already, and where its reader jumps next is not.
        self.replan(if may_jump { Priority::Low } else { Priority::High });
    }

    fn block(&self, position: u64, begun: Begun, or: impl Fn(&State) -> Option<Wait>) -> Wait {
        let limit = TimeLimit::new(self.config.read_timeout, Instant::now());
        let ended = limit.block(|limit| {
            // While all workers are busy this thread does what one of them would do for it.
            let resource = Arc::clone(&self.resource);
            let lent = self.link.get().and_then(|link| link.waker.lend(move || resource.notify()));
            let woken = self.resource.wait(limit.deadline(), |view| {
                if view.ranges.contains(position) {
                    return Some(Woken::Over(Wait::Ready));
                }
                let state = self.state.lock();
                limit.extend(state.waits.last_progress());
                or(&state)
                    .or_else(|| state.waits.broken_off(begun, self.cancel_reason()).map(Wait::Failed))
                    .or_else(|| self.handoff.has(position).then_some(Wait::Ready))
                    .map(Woken::Over)
                    .or_else(|| lent.as_ref().is_some_and(Lent::has_task).then_some(Woken::ToRun))
            })?;
            match (woken, lent) {
                (Woken::Over(wait), _) => return Some(wait),
                (Woken::ToRun, Some(lent)) => lent.run(limit.deadline(), || {
                    self.state.lock().waits.broken_off(begun, self.cancel_reason()).is_some()
                }),
                (Woken::ToRun, None) => {}
            }
            None
        });
        ended.unwrap_or_else(|limit| Wait::Failed(self.state.lock().waits.read_timed_out(limit)))
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
        let (rate, ttfb) = self.link.get().map(|link| link.waker.network()).unwrap_or_default();
        let is_metered = self.link.get().is_some_and(|link| link.waker.is_metered());
        let single_connection = matches!(&*self.preconnect.lock(), Preconnect::Decided(Some(preconnect)) if preconnect.is_single_connection());
        Network { rate, ttfb, single_connection, is_metered }
    }

    /// Keeps a connection ready from now on, if there is more to come than the opening brings.
    pub(super) fn keep_preconnected(&self) {
        {
            let state = self.state.lock();
            // The connection of the suffix request is about to be the one that is ready.
            let has_more = state.mode.is_ranged() && state.len().is_none_or(|len| len > plan::OPENING);
            if state.suffix.is_running() || !has_more {
                return;
            }
        }
        self.preconnect();
    }

    /// Keeps a connection ready from now on.
    pub(super) fn preconnect(&self) {
        let target = self.state.lock().target().cloned();
        let mut preconnect = self.preconnect.lock();
        if let Preconnect::Undecided = *preconnect {
            let request = self.request(target.as_ref());
            *preconnect =
                Preconnect::Decided(self.link.get().and_then(|link| link.waker.keep_preconnected(&request)));
        }
    }

    /// The stored bytes before `start`, if nothing but they can tell that what is fetched from there on belongs to
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

    /// What goes to `target` first, if there is one.
    pub(super) fn request(&self, target: Option<&SafeUrl>) -> Request {
        let request = self.request.clone();
        match target {
            Some(target) => request.shortcut(target),
            None => request,
        }
    }

    /// Fails if these first bytes are those of a page; else notes them.
    pub(crate) fn refuse_html_page(&self, first: &[u8]) -> Result<(), Error> {
        let mut state = self.state.lock();
        let content_type = state.mode.info().and_then(|info| info.content_type.as_deref());
        if media::looks_like_html_page(content_type, first) {
            let what = content_type.unwrap_or("none").to_owned();
            let why = format!("the response is an HTML page or a list, not media (content type: {what})");
            // The next try may get something else: do not hold that against this answer.
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
        let is_wanted = self.state.lock().take_in(offset, bytes);
        if is_wanted { self.resource.write_at(offset, bytes) } else { Ok(()) }
    }

    /// As `store`, for a block whose memory may be kept.
    pub(super) fn store_block(&self, offset: u64, block: &mut Buffer) -> Result<(), Error> {
        let is_wanted = self.state.lock().take_in(offset, block);
        if is_wanted { self.resource.write_block(offset, block) } else { Ok(()) }
    }

    /// Stores the tail that has arrived, once the opening has shown what the file is.
    pub(crate) fn store_tail(&self) -> Result<(), Error> {
        let Some((start, bytes)) = self.state.lock().poll_tail() else { return Ok(()) };
        let stored = self.store(start, &bytes);
        self.state.lock().suffix.stored();
        stored
    }
}

impl Buffering for Shared {
    fn handle_reduced(&self) {
        let Some(share) = self.link.get().and_then(|link| link.share.as_ref()) else { return };
        let windows = {
            let mut state = self.state.lock();
            state.set_granted(share);
            state.granted_windows()
        };
        if let Some(windows) = windows {
            self.resource.evict(&windows);
        }
    }
}
