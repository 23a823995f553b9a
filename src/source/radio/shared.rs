//! The state that a radio's reader, receiver and handles share, and the waits between them.
//!
//! ```text
//!   what blocks                    until                                  woken by
//!   reader (read, wait_buffered)   bytes are stored, or the radio ended   receiver: store, trim, ended · handles: interrupt, cancel
//!   receiver (flow_control)        the window has room                    reader: advance, seek
//!   receiver (await_reader)        the reader is back from its pause      reader: read, seek
//!   receiver (pause)               the delay before a reconnect is over   the clock · handles: cancel
//! ```
//!
//! All of them block on the condition variable of the storage.

use std::io::SeekFrom;
use std::ops::Range;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::description::Description;
use super::event::RadioEvent;
use super::icy::{IcyMetadata, RadioInfo};
use super::playlist::Playlist;
use super::progress::RadioProgress;
use super::titles::Title;
use super::window::Window;
use crate::client::{Request, ResponseHead, Urgency};
use crate::config::{RadioConfig, StorageConfig};
use crate::downloader::{Epoch, Waker};
use crate::error::{Error, ErrorKind};
use crate::event::{Bus, Subscriber};
use crate::media::{self, MediaInfo};
use crate::phase::{Facts, Phase, Reads};
use crate::safe_url::SafeUrl;
use crate::source::progress::Progress;
use crate::source::wait::{Begun, TimeLimit, WaitReader, WaitState};
use crate::storage::Resource;

#[derive(Debug)]
pub(crate) struct Shared {
    /// The request of each connection. Its URL has no password.
    pub(crate) request: Request,
    pub(crate) config: RadioConfig,
    /// Parent of the epochs of all connections.
    pub(crate) epoch: Epoch,
    opened: Instant,
    /// Knows the bandwidth of the radio's transfers.
    waker: Waker,
    resource: Resource,
    /// Locked inside the resource's lock, never around it: the conditions of waits lock it while the resource is locked, so
    /// the other order would deadlock.
    state: Mutex<State>,
    /// The only reader of the radio, in the `waits` of `state`.
    waiter: WaitReader,
    events: Bus<RadioEvent>,
}

#[derive(Debug)]
struct State {
    window: Window,
    description: Description,
    reader: Reader,
    /// The window was full since the connection began: what the server sends next is older than live.
    is_held_back: bool,
    /// The connection is to be replaced by one that begins live.
    wants_reconnect: bool,
    /// All of a file was received: reads end at the window's end.
    is_complete: bool,
    last_read: Instant,
    /// Why blocked calls end. `retrying` is set from a failed connection to the next byte.
    waits: WaitState,
    reads: Reads,
    /// Receives all events from the start on, until the first user takes it.
    subscriber: Option<Subscriber<RadioEvent>>,
    stats: RadioStats,
}

/// What the reader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// It reads stored bytes, now and then.
    Active,
    /// It has read everything that was stored, and is blocked.
    Blocked,
    /// It has not read for so long that the connection was closed. The receiver waits for it.
    Away,
    /// Its next read continues at the live edge.
    GoingLive,
}

/// Counters of a radio.
///
/// ```no_run
/// # let radio = windway::Downloader::global()?.open_radio("http://example.com:8000/", Default::default())?;
/// let stats = radio.handle().stats();
/// println!("{} connections, {} bytes", stats.connections, stats.bytes_received);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RadioStats {
    /// Connections that delivered audio.
    pub connections: u64,
    /// Bytes of audio received.
    pub bytes_received: u64,
    /// Reads that blocked.
    pub stalls: u64,
    /// Total time that reads were blocked.
    pub stalled: Duration,
}

/// What the receiver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowControl {
    /// Read up to this many bytes.
    Read(usize),
    /// Close the connection: the reader has been away for too long, or wants one that begins live.
    Close,
}

impl Shared {
    pub(crate) fn new(
        request: Request,
        config: RadioConfig,
        epoch: Epoch,
        waker: Waker,
    ) -> Result<Self, Error> {
        let events = Bus::of(config.event_capacity, |lost| RadioEvent::Lagged { lost });
        let mut waits = WaitState::default();
        let waiter = waits.add_reader();
        let state = State {
            window: Window::new(&config),
            description: Description::default(),
            reader: Reader::Active,
            is_held_back: false,
            wants_reconnect: false,
            is_complete: false,
            last_read: Instant::now(),
            waits,
            reads: Reads::default(),
            subscriber: Some(events.subscribe()),
            stats: RadioStats::default(),
        };
        let resource = Resource::new(&StorageConfig::Memory)?;
        let (opened, state) = (Instant::now(), Mutex::new(state));
        Ok(Self { request, config, epoch, opened, waker, resource, state, waiter, events })
    }

    pub(crate) fn url(&self) -> SafeUrl {
        self.request.url().into()
    }

    /// Makes all blocked threads check their conditions again. Returns true if there were any.
    pub(crate) fn notify(&self) -> bool {
        self.resource.notify()
    }
}

impl State {
    fn last_error(&self) -> Option<&Error> {
        self.reads.failure().or(self.waits.last_error()).or(self.reads.last_error())
    }

    fn is_end(&self, position: u64) -> bool {
        self.is_complete && position >= self.window.end()
    }
}

impl Urgency for Shared {
    /// True while the reader runs out of audio: then a silent connection is hedged by a second one.
    fn is_urgent(&self) -> bool {
        let state = self.state.lock();
        state.reader == Reader::Blocked || state.window.is_low()
    }
}

/// For the reader.
impl Shared {
    /// Blocks until at least one byte is stored, or no byte will come. Returns 0 at a discontinuity where reads end.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Result<usize, Error> {
        if buf.is_empty() {
            // Before all checks: `Read` allows an empty buffer, and 0 does not mean the end then.
            return Ok(0);
        }
        Error::check_may_block("read").map_err(|error| self.locate(error))?;
        // Unlocked before `read_some`, which takes the lock of the resource: that is the outer one.
        let begun = {
            let mut state = self.state.lock();
            state.reads.begin();
            state.waits.begin(self.waiter)
        };
        self.read_some(buf, begun).inspect_err(|error| self.record_failure(error))
    }

    /// Records for the phase that a read failed, and publishes it, unless the radio has ended: that was published.
    fn record_failure(&self, error: &Error) {
        let (is_news, position) = {
            let mut state = self.state.lock();
            (state.reads.fail(error) && state.waits.ended().is_none(), state.window.position())
        };
        if is_news {
            self.events.publish(&RadioEvent::ReadFailed { position, error: error.clone() });
        }
    }

    fn read_some(&self, buf: &mut [u8], begun: Begun) -> Result<usize, Error> {
        loop {
            let position = self.begin_read();
            // Without the lock of the state: the receiver stores the next bytes meanwhile.
            let got = self.resource.read_at(position, buf).map_err(|error| self.locate(error))?;
            if got > 0 {
                return Ok(self.advance(got));
            }
            if self.ends_at(position) {
                return Ok(0);
            }
            self.await_byte(position, begun).map_err(|error| self.locate(error))?;
        }
    }

    /// True if a file ends at `position`. Records for the phase that the reads have ended then.
    fn ends_at(&self, position: u64) -> bool {
        let mut state = self.state.lock();
        let is_end = state.is_end(position);
        if is_end {
            state.reads.end();
        }
        is_end
    }

    /// Position of this read: where the last one ended, or the live edge after a long pause and if that was asked for.
    fn begin_read(&self) -> u64 {
        let mut state = self.state.lock();
        state.last_read = Instant::now();
        let was = std::mem::replace(&mut state.reader, Reader::Active);
        let goes_live = matches!(was, Reader::Away | Reader::GoingLive);
        // After the end there is no live edge, so the reader gets all that is stored.
        if !goes_live || state.is_complete || self.epoch.is_cancelled() {
            return state.window.position();
        }
        let Range { start: from, end: to } = state.window.skip_to_live_edge();
        drop(state);
        // Without the lock: `notify` takes that of the resource, which is never taken inside this one.
        if from < to {
            self.events.publish(&RadioEvent::Skipped { from, to });
        }
        self.notify();
        to
    }

    /// Moves the reader over the bytes that were read, up to a discontinuity if reads end there. Returns their number.
    fn advance(&self, got: usize) -> usize {
        // Only after the bytes were read: a discontinuity is recorded before the bytes behind it are stored.
        let mut state = self.state.lock();
        let was_full = state.window.room().is_none();
        let taken = state.window.advance(got);
        let is_full = state.window.room().is_none();
        drop(state);
        if was_full && !is_full {
            // The receiver may be waiting for room.
            self.notify();
        }
        taken
    }

    fn await_byte(&self, position: u64, begun: Begun) -> Result<(), Error> {
        // Before the wait, not in it: `is_urgent` reads it from the thread that hedges a silent connection.
        self.state.lock().reader = Reader::Blocked;
        let began = Instant::now();
        let ended = TimeLimit::new(self.config.read_timeout, began).block(|limit| {
            self.resource.wait(limit.deadline(), |view| {
                if view.ranges.contains(position) {
                    return Some(Ok(()));
                }
                let state = self.state.lock();
                // Before the errors: a file that was received whole ends well, even if its radio was cancelled since.
                let ended = state.is_end(position).then_some(Ok(()));
                ended.or_else(|| state.waits.broken_off(begun, self.epoch.reason()).map(Err))
            })
        });
        let mut state = self.state.lock();
        state.reader = Reader::Active;
        state.waits.add_stall(began.elapsed());
        ended.unwrap_or_else(|limit| Err(state.waits.read_timed_out(limit)))
    }

    /// Moves the reader to a byte of the window, or to its end.
    pub(crate) fn seek(&self, to: SeekFrom) -> Result<u64, Error> {
        let mut state = self.state.lock();
        let target = state.window.seek(to).map_err(|error| self.locate(error))?;
        // After a long pause a seek asks for stored audio, not for the live edge.
        state.reader = Reader::Active;
        // A seek is a use as well: the pause after which the connection is closed begins again.
        state.last_read = Instant::now();
        drop(state);
        self.notify();
        Ok(target)
    }

    fn locate(&self, error: Error) -> Error {
        error.with_url(self.request.url())
    }
}

/// For the drop.
impl Shared {
    /// Drops the audio, also if handles are left. They keep what is known of the radio. To be called after the receiver
    /// has ended.
    pub(crate) fn close(&self) {
        let url = self.url();
        let mut state = self.state.lock();
        state.window.clear();
        state.description.close(&url);
        state.reads.drop_reader();
        drop(state);
        self.resource.close();
    }
}

/// For handles.
impl Shared {
    pub(crate) fn position(&self) -> u64 {
        self.state.lock().window.position()
    }

    pub(crate) fn window(&self) -> Range<u64> {
        self.state.lock().window.range()
    }

    pub(crate) fn buffered(&self) -> Vec<Range<u64>> {
        self.state.lock().window.buffered()
    }

    pub(crate) fn buffered_ahead(&self) -> u64 {
        self.state.lock().window.buffered_ahead()
    }

    pub(crate) fn wait_buffered(&self, bytes: u64, timeout: Option<Duration>) -> Result<(), Error> {
        Error::check_may_block("waiting for bytes").map_err(|error| self.locate(error))?;
        let (most, begun) = {
            let state = self.state.lock();
            (state.window.most_ahead(), state.waits.begin(self.waiter))
        };
        if bytes > most {
            let why = format!("can't wait for {bytes} bytes: the radio stores at most {most} ahead");
            return Err(self.locate(Error::new(ErrorKind::InvalidInput, why)));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let ended = self.resource.wait(deadline, |_| {
            let state = self.state.lock();
            // No more bytes follow in a file that was received whole, so the wait ends with fewer.
            if state.is_complete || state.window.buffered_ahead() >= bytes {
                return Some(Ok(()));
            }
            state.waits.broken_off(begun, self.epoch.reason()).map(Err)
        });
        let late = || self.state.lock().waits.wait_timed_out(timeout.unwrap_or_default());
        ended.unwrap_or_else(|| Err(late())).map_err(|error| self.locate(error))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase_of(&self.state.lock())
    }

    /// All under one lock, so that the figures agree.
    pub(crate) fn progress(&self) -> RadioProgress {
        // Before the lock: it takes locks of the downloader.
        let (bandwidth, elapsed) = (self.waker.network().0, self.opened.elapsed());
        let state = self.state.lock();
        let (window, stalls) = (&state.window, state.waits.stalls());
        let stream = Progress {
            position: window.position(),
            len: state.is_complete.then(|| window.end()),
            buffered: window.buffered(),
            buffered_ahead: window.buffered_ahead(),
            bandwidth,
            phase: self.phase_of(&state),
            stalls: stalls.count,
            stalled: stalls.time,
            starving: None,
            last_error: state.last_error().cloned(),
        };
        RadioProgress {
            stream,
            elapsed,
            title: window.title_at(window.position()).cloned(),
            reconnects: state.stats.connections.saturating_sub(1),
        }
    }

    fn phase_of(&self, state: &State) -> Phase {
        let is_ended = |cancelled: bool| state.waits.ended().is_some_and(|it| it.is_cancelled() == cancelled);
        let facts = Facts {
            is_cancelled: self.epoch.is_cancelled() || is_ended(true),
            is_complete: state.is_complete,
            has_failed: is_ended(false),
            is_known: state.stats.connections > 0,
            is_retrying: state.waits.retrying().is_some(),
            is_urgent: state.reader == Reader::Blocked && state.waits.ended().is_none(),
            is_fetching: state.waits.ended().is_none()
                && state.reader != Reader::Away
                && state.window.room().is_some(),
        };
        facts.phase().after(state.reads.last())
    }

    pub(crate) fn last_error(&self) -> Option<Error> {
        self.state.lock().last_error().cloned()
    }

    /// As [`window`](Self::window), unless the state is locked.
    pub(crate) fn try_window(&self) -> Option<Range<u64>> {
        // `Debug` may be called by a thread that holds the lock.
        self.state.try_lock().map(|state| state.window.range())
    }

    pub(crate) fn info(&self) -> Option<RadioInfo> {
        self.state.lock().description.info.clone()
    }

    pub(crate) fn media_info(&self) -> MediaInfo {
        self.state.lock().description.media_info(&self.url())
    }

    pub(crate) fn title_at(&self, position: u64) -> Option<Title> {
        self.state.lock().window.title_at(position).cloned()
    }

    pub(crate) fn now_playing(&self) -> Option<Title> {
        let state = self.state.lock();
        state.window.title_at(state.window.position()).cloned()
    }

    /// Lets the next read continue at the live edge.
    pub(crate) fn go_live(&self) {
        let mut state = self.state.lock();
        // One that is blocked has read all there is, and one that is away goes live anyway.
        if state.reader == Reader::Active {
            state.reader = Reader::GoingLive;
        }
        // The receiver may not have seen yet that the window is full.
        state.wants_reconnect |= state.is_held_back || state.window.room().is_none();
        drop(state);
        self.notify();
    }

    pub(crate) fn stats(&self) -> RadioStats {
        let state = self.state.lock();
        let stalls = state.waits.stalls();
        RadioStats { stalls: stalls.count, stalled: stalls.time, ..state.stats.clone() }
    }

    pub(crate) fn subscribe(&self) -> Subscriber<RadioEvent> {
        // Subscribed when the radio was made: the first connection may be made before the caller has the radio.
        let first = self.state.lock().subscriber.take();
        first.unwrap_or_else(|| self.events.subscribe())
    }

    pub(crate) fn pass_discontinuity(&self) -> bool {
        self.state.lock().window.pass_discontinuity()
    }

    pub(crate) fn interrupt(&self) {
        let mut state = self.state.lock();
        // Before `notify`, and unlocked for it: a thread that wakes has to find the interrupt.
        state.waits.interrupt(self.waiter);
        drop(state);
        self.notify();
    }

    pub(crate) fn resume(&self) {
        self.state.lock().waits.resume(self.waiter);
    }
}

/// For the receiver.
impl Shared {
    pub(crate) fn end(&self) -> u64 {
        self.state.lock().window.end()
    }

    /// True while the reader is blocked and nothing is stored for it.
    pub(crate) fn is_starved(&self) -> bool {
        self.state.lock().reader == Reader::Blocked
    }

    /// Blocks until there is room, or nothing was read for too long. `close_at` maps the time of the last read to the time
    /// at which the connection is to be closed, if ever.
    pub(crate) fn flow_control(
        &self,
        close_at: impl Fn(Instant) -> Option<Instant>,
    ) -> Result<FlowControl, Error> {
        let began = Instant::now();
        loop {
            // The pause begins when the window is full, and not with the last read before that.
            let idle_since = self.state.lock().last_read.max(began);
            let decided = self.resource.wait(close_at(idle_since), |_| {
                if let Some(reason) = self.epoch.reason() {
                    return Some(Err(Error::cancelled(reason)));
                }
                let mut state = self.state.lock();
                if std::mem::take(&mut state.wants_reconnect) {
                    return Some(Ok(FlowControl::Close));
                }
                let room = state.window.room();
                state.is_held_back |= room.is_none();
                room.map(|room| Ok(FlowControl::Read(room)))
            });
            if let Some(decided) = decided {
                return decided;
            }
            if let Some(position) = self.end_idle_connection(idle_since) {
                self.events.publish(&RadioEvent::Paused { position });
                return Ok(FlowControl::Close);
            }
        }
    }

    /// Declares the reader away, unless it has read since `idle_since`. Returns its position.
    fn end_idle_connection(&self, idle_since: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        // Decided under the lock that `begin_read` takes: a read that comes just now either is seen here, or finds the reader
        // away.
        // Small reads make no room, so the wait has not ended by them.
        if state.last_read > idle_since {
            return None;
        }
        state.reader = Reader::Away;
        Some(state.window.position())
    }

    /// Blocks until the reader is back from its pause.
    pub(crate) fn await_reader(&self) -> Result<(), Error> {
        self.block(None, |state| state.reader != Reader::Away)
    }

    /// Blocks for `time`, or until the radio is cancelled.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), Error> {
        self.block(Instant::now().checked_add(time), |_| false)
    }

    /// Blocks until `over`, or the deadline. Fails if the radio was cancelled.
    fn block(&self, deadline: Option<Instant>, over: impl Fn(&State) -> bool) -> Result<(), Error> {
        let ended = self.resource.wait(deadline, |_| match self.epoch.reason() {
            Some(reason) => Some(Err(Error::cancelled(reason))),
            None => over(&self.state.lock()).then_some(Ok(())),
        });
        ended.unwrap_or(Ok(()))
    }

    /// Fails if the response is a playlist or an HTML page, by its headers and its first bytes.
    pub(crate) fn refuse_document(&self, head: &ResponseHead, first: &[u8]) -> Result<(), Error> {
        let content_type = head.content_type();
        let playlist = Playlist::detect(content_type, first).map(|playlist| playlist.to_string());
        let other = || {
            let (what, announced) =
                (media::detect_other(content_type, first)?.name(), content_type.unwrap_or("none"));
            Some(format!("the response is {what}, not audio (content type: {announced})"))
        };
        let Some(why) = playlist.or_else(other) else { return Ok(()) };
        // The URL of the response: a redirect may have led to a login page on another host.
        Err(Error::new(ErrorKind::NotMedia, why).with_url(head.url()))
    }

    /// Describes the station by a response that has shown it, before the receiver goes on with that response. `audio` are its first
    /// bytes.
    pub(crate) fn describe(&self, head: &ResponseHead, info: &RadioInfo, audio: &[u8]) {
        let mut state = self.state.lock();
        let position = state.window.end();
        state.description = Description::of(head, info.clone(), position, audio);
    }

    /// Records that a connection delivers audio, from the window's end on. `audio` are its first bytes, which are not stored yet.
    pub(crate) fn connected(&self, head: &ResponseHead, info: &RadioInfo, audio: &[u8]) {
        let mut state = self.state.lock();
        let (position, is_discontinuity) = state.window.begin_connection();
        (state.is_held_back, state.wants_reconnect) = (false, false);
        // With the audio: the media must not be unknown until it is stored.
        state.description = Description::of(head, info.clone(), position, audio);
        state.stats.connections += 1;
        drop(state);
        self.events.publish(&RadioEvent::Connected { info: info.clone(), position });
        if is_discontinuity {
            self.events.publish(&RadioEvent::Discontinuity { position });
        }
    }

    /// Stores audio at the window's end.
    pub(crate) fn store(&self, audio: &[u8]) -> Result<(), Error> {
        // Only this thread stores audio, so the end does not move before the bytes are written.
        let position = self.end();
        // First the bytes, then the window: a reader that sees them in the window must find them.
        self.resource.write_at(position, audio)?;
        let mut state = self.state.lock();
        state.description.handle_audio(position, audio);
        state.window.append(position + audio.len() as u64);
        state.stats.bytes_received += audio.len() as u64;
        // Only audio counts as recovered. A station that answers and then sends nothing is still being retried.
        state.waits.recover();
        Ok(())
    }

    pub(crate) fn add_metadata(&self, position: u64, metadata: IcyMetadata) {
        let new = self.state.lock().window.add_metadata(position, metadata);
        if let Some(Title { position, title, url, .. }) = new {
            self.events.publish(&RadioEvent::Title { position, title, url });
        }
    }

    /// Removes what has left the window, and wakes the calls that wait for the window to grow.
    pub(crate) fn trim(&self) {
        // Released before `evict`, which takes the lock of the resource: that is the outer one.
        let freed = self.state.lock().window.trim();
        if let Some(start) = freed {
            let keep = start..u64::MAX;
            self.resource.evict(std::slice::from_ref(&keep));
        }
        // The write has woken the waiting calls before the window had grown, so they need another notification.
        self.notify();
    }

    pub(crate) fn reconnecting(&self, error: Error, after: Duration) {
        self.state.lock().waits.retry(error.clone());
        self.events.publish(&RadioEvent::Reconnecting { error, after });
    }

    /// Records that all of a file was received.
    pub(crate) fn completed(&self) {
        let position = {
            let mut state = self.state.lock();
            state.is_complete = true;
            state.window.end()
        };
        self.events.publish(&RadioEvent::Complete { position });
        // After the last event: subscribers receive it, and then learn that no more follow.
        self.events.close();
        self.notify();
    }

    /// Records that no more audio will arrive.
    pub(crate) fn ended(&self, error: Error) {
        let error = self.locate(error);
        let position = {
            let mut state = self.state.lock();
            state.waits.end(error.clone());
            state.window.end()
        };
        self.events.publish(&RadioEvent::Ended { position, error });
        self.events.close();
        self.notify();
    }
}
