//! The state that a radio's reader, receiver and handles share: the window of stored audio, and what describes it.
//!
//! Offsets count bytes of audio since the radio's start. Bytes are added at the window's end and removed at its start.

use std::collections::VecDeque;
use std::io::SeekFrom;
use std::ops::Range;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::event::RadioEvent;
use super::icy::{IcyMetadata, RadioInfo};
use super::playlist::Playlist;
use super::titles::{Title, Titles};
use crate::client::{Request, ResponseHead, Urgency};
use crate::config::{OnDiscontinuity, RadioConfig, StorageConfig};
use crate::downloader::Epoch;
use crate::error::{Error, ErrorKind};
use crate::event::{Bus, Subscriber};
use crate::media::{self, FirstBytes, MediaInfo};
use crate::phase::{Facts, Phase, Reads};
use crate::safe_url::SafeUrl;
use crate::source::wait::{Begun, TimeLimit, WaitState};
use crate::storage::Resource;
use crate::types::ByteRange;

/// Bytes read from a body at once, at most.
pub(crate) const CHUNK: usize = 32 * 1024;

/// A buffer of fewer bytes runs low: four seconds at 128 kbit/s.
const LOW: u64 = 64 * 1024;

/// So many bytes have left the window, and their memory is taken back.
const TRIM: u64 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Shared {
    /// What is sent for each connection. Its URL shows no password.
    pub(crate) request: Request,
    pub(crate) config: RadioConfig,
    /// Above every connection's.
    pub(crate) epoch: Epoch,
    resource: Resource,
    /// Taken inside the resource's lock, never around it.
    state: Mutex<State>,
    events: Bus<RadioEvent>,
}

#[derive(Debug)]
struct State {
    /// The next byte to be read. Always in the window, or at its end.
    position: u64,
    /// The first byte of the window. Never goes back; all bytes from here to `end` are stored.
    start: u64,
    /// One past the last byte that was stored.
    end: u64,
    /// Before this byte all memory was taken back.
    trimmed: u64,
    /// Where a connection begins that is not the first one, as far as it lies in the window or at its end. Ascending.
    discontinuities: VecDeque<u64>,
    /// The discontinuity that was passed last, or the byte that was sought to: no read ends there.
    begun: u64,
    titles: Titles,
    /// What the station last said of itself.
    info: Option<RadioInfo>,
    content_type: Option<String>,
    /// Where the audio of the last connection begins, and its first bytes, for telling their type.
    connected_at: u64,
    first: FirstBytes,
    /// What they showed, once the radio and they are dropped.
    media: Option<MediaInfo>,
    /// The reader is blocked: all that was stored is read.
    waiting: bool,
    last_read: Instant,
    /// The connection was closed in a long pause. The receiver waits for the reader.
    let_go: bool,
    /// Why blocked calls end. It retries from a failed connection to the next byte.
    waits: WaitState,
    reads: Reads,
    /// Gets all events from the start on, until it is asked for.
    subscriber: Option<Subscriber<RadioEvent>>,
    stats: RadioStats,
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
    /// There is room for so many bytes.
    Read(usize),
    /// Nobody has read for so long that the connection is of no use any more.
    LetGo,
}

impl Shared {
    pub(crate) fn new(request: Request, config: RadioConfig, epoch: Epoch) -> Result<Self, Error> {
        let events = Bus::of(config.event_capacity, |lost| RadioEvent::Lagged { lost });
        let state = State {
            position: 0,
            start: 0,
            end: 0,
            trimmed: 0,
            discontinuities: VecDeque::new(),
            begun: 0,
            titles: Titles::default(),
            info: None,
            content_type: None,
            connected_at: 0,
            first: FirstBytes::default(),
            media: None,
            waiting: false,
            last_read: Instant::now(),
            let_go: false,
            waits: WaitState::default(),
            reads: Reads::default(),
            subscriber: Some(events.subscribe()),
            stats: RadioStats::default(),
        };
        let resource = Resource::new(&StorageConfig::Memory)?;
        Ok(Self { request, config, epoch, resource, state: Mutex::new(state), events })
    }

    pub(crate) fn url(&self) -> SafeUrl {
        self.request.url().into()
    }

    /// Lets everybody who waits look again.
    pub(crate) fn notify(&self) {
        self.resource.notify();
    }
}

impl Urgency for Shared {
    /// While its reader runs out of audio a silent connection is not waited for alone.
    fn is_urgent(&self) -> bool {
        let state = self.state.lock();
        state.waiting || state.end - state.position < LOW
    }
}

/// For the reader.
impl Shared {
    /// Blocks until at least one byte is there, or will not be. 0 says that a discontinuity was reached, where reads
    /// end.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Result<usize, Error> {
        if buf.is_empty() {
            return Ok(0);
        }
        Error::check_may_block("read").map_err(|error| self.locate(error))?;
        let begun = {
            let mut state = self.state.lock();
            state.reads.begin();
            state.waits.begin()
        };
        self.read_some(buf, begun).inspect_err(|error| self.note_failure(error))
    }

    /// Notes that a read has failed, for the phase, and publishes it, unless the radio's end was published.
    fn note_failure(&self, error: &Error) {
        let (is_news, position) = {
            let mut state = self.state.lock();
            (state.reads.fail(error) && state.waits.ended().is_none(), state.position)
        };
        if is_news {
            self.events.publish(&RadioEvent::ReadFailed { position, error: error.clone() });
        }
    }

    fn read_some(&self, buf: &mut [u8], begun: Begun) -> Result<usize, Error> {
        loop {
            let position = self.begin_read();
            let got = self.resource.read_at(position, buf).map_err(|error| self.locate(error))?;
            if got > 0 {
                return Ok(self.advance(got));
            }
            self.await_byte(position, begun).map_err(|error| self.locate(error))?;
        }
    }

    /// Where to read: where the last read ended, or at the live edge after a long pause.
    fn begin_read(&self) -> u64 {
        let mut state = self.state.lock();
        state.last_read = Instant::now();
        // After the end there is no live edge; what is stored is all there is.
        if !std::mem::take(&mut state.let_go) || self.epoch.is_cancelled() {
            return state.position;
        }
        let (from, to) = (state.position, state.end);
        state.position = to;
        drop(state);
        self.events.publish(&RadioEvent::Skipped { from, to });
        self.notify();
        to
    }

    /// Takes what was read, up to a discontinuity if reads end there. Returns how many bytes that is.
    fn advance(&self, got: usize) -> usize {
        let mut state = self.state.lock();
        // Asked after the bytes were read: a discontinuity is there before the bytes behind it are.
        let taken = match self.next_end(&state) {
            Some(end) => usize::try_from(end - state.position).map_or(got, |left| left.min(got)),
            None => got,
        };
        if taken == 0 {
            return 0;
        }
        let was_full = self.room(&state).is_none();
        state.position += taken as u64;
        // What is being stored just now may be read before `store` says that it is there.
        state.end = state.end.max(state.position);
        let is_full = self.room(&state).is_none();
        drop(state);
        if was_full && !is_full {
            // The receiver waits for room.
            self.notify();
        }
        taken
    }

    /// The discontinuity, from the reader's position on, at which a read ends.
    fn next_end(&self, state: &State) -> Option<u64> {
        if self.config.on_discontinuity != OnDiscontinuity::EndOfStream {
            return None;
        }
        let is_ahead =
            |discontinuity: &u64| *discontinuity >= state.position && *discontinuity != state.begun;
        state.discontinuities.iter().copied().find(is_ahead)
    }

    fn await_byte(&self, position: u64, begun: Begun) -> Result<(), Error> {
        self.state.lock().waiting = true;
        let began = Instant::now();
        let ended = TimeLimit::new(self.config.read_timeout, began).block(|limit| {
            self.resource.wait(limit.deadline(), |view| {
                if view.ranges.contains(position) {
                    return Some(Ok(()));
                }
                self.state.lock().waits.broken_off(begun, self.epoch.reason()).map(Err)
            })
        });
        let mut state = self.state.lock();
        state.waiting = false;
        state.waits.add_stall(began.elapsed());
        ended.unwrap_or_else(|limit| Err(state.waits.read_timed_out(limit)))
    }

    /// Goes to a byte of the window, or its end.
    pub(crate) fn seek(&self, to: SeekFrom) -> Result<u64, Error> {
        let mut state = self.state.lock();
        let window = window(&state);
        let target = match to {
            SeekFrom::Start(target) => Some(target),
            SeekFrom::Current(by) => state.position.checked_add_signed(by),
            SeekFrom::End(_) => {
                let why = "can't seek from the end: a radio has none";
                return Err(self.locate(Error::new(ErrorKind::InvalidInput, why)));
            }
        };
        let Some(target) = target.filter(|target| window.start <= *target && *target <= window.end) else {
            let Range { start, end } = window;
            let why = format!("the radio keeps bytes {start} to {end} only");
            return Err(
                self.locate(Error::new(ErrorKind::OutOfWindow, why).with_range(ByteRange::new(start, end)))
            );
        };
        state.position = target;
        // Who asks where it is has begun nothing.
        if to != SeekFrom::Current(0) {
            state.begun = target;
        }
        // Who seeks has come back from a pause, and wants what is stored.
        state.let_go = false;
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
    /// Drops the audio, whichever handles are left. What is known of the radio stays known. To be called once nothing
    /// receives any more.
    pub(crate) fn close(&self) {
        let media = self.media_info();
        let mut state = self.state.lock();
        let position = state.position;
        (state.start, state.end) = (position, position);
        state.reads.drop_reader();
        state.discontinuities.clear();
        state.titles.forget_before(position);
        state.first = FirstBytes::default();
        state.media = Some(media);
        drop(state);
        self.resource.close();
    }
}

/// For handles.
impl Shared {
    pub(crate) fn position(&self) -> u64 {
        self.state.lock().position
    }

    pub(crate) fn window(&self) -> Range<u64> {
        window(&self.state.lock())
    }

    pub(crate) fn buffered_ahead(&self) -> u64 {
        let state = self.state.lock();
        state.end - state.position
    }

    pub(crate) fn wait_buffered(&self, bytes: u64, timeout: Option<Duration>) -> Result<(), Error> {
        Error::check_may_block("waiting for bytes").map_err(|error| self.locate(error))?;
        let most = self.config.ahead - self.worth();
        if bytes > most {
            let why = format!("can't wait for {bytes} bytes: the radio stores at most {most} ahead");
            return Err(self.locate(Error::new(ErrorKind::InvalidInput, why)));
        }
        let begun = self.state.lock().waits.begin();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let ended = self.resource.wait(deadline, |_| {
            let state = self.state.lock();
            if state.end - state.position >= bytes {
                return Some(Ok(()));
            }
            state.waits.broken_off(begun, self.epoch.reason()).map(Err)
        });
        let late = || self.state.lock().waits.wait_timed_out(timeout.unwrap_or_default());
        ended.unwrap_or_else(|| Err(late())).map_err(|error| self.locate(error))
    }

    pub(crate) fn phase(&self) -> Phase {
        let state = self.state.lock();
        let is_ended = |cancelled: bool| state.waits.ended().is_some_and(|it| it.is_cancelled() == cancelled);
        let facts = Facts {
            is_cancelled: self.epoch.is_cancelled() || is_ended(true),
            is_complete: false,
            has_failed: is_ended(false),
            is_known: state.stats.connections > 0,
            is_retrying: state.waits.retrying().is_some(),
            is_urgent: state.waiting && state.waits.ended().is_none(),
            is_fetching: state.waits.ended().is_none() && !state.let_go && self.room(&state).is_some(),
        };
        facts.phase().after(state.reads.last())
    }

    pub(crate) fn last_error(&self) -> Option<Error> {
        let state = self.state.lock();
        let reads = &state.reads;
        reads.failure().or(state.waits.last_error()).or(reads.last_error()).cloned()
    }

    /// As [`window`](Self::window), unless the state is locked.
    pub(crate) fn try_window(&self) -> Option<Range<u64>> {
        self.state.try_lock().map(|state| window(&state))
    }

    pub(crate) fn info(&self) -> Option<RadioInfo> {
        self.state.lock().info.clone()
    }

    pub(crate) fn media_info(&self) -> MediaInfo {
        let state = self.state.lock();
        if let Some(media) = &state.media {
            return media.clone();
        }
        MediaInfo::detect(
            state.content_type.as_deref(),
            self.request.url().expose().as_str(),
            state.first.as_slice(),
        )
    }

    pub(crate) fn title_at(&self, position: u64) -> Option<Title> {
        self.state.lock().titles.at(position).cloned()
    }

    pub(crate) fn now_playing(&self) -> Option<Title> {
        let state = self.state.lock();
        state.titles.at(state.position).cloned()
    }

    pub(crate) fn stats(&self) -> RadioStats {
        let state = self.state.lock();
        let stalls = state.waits.stalls();
        RadioStats { stalls: stalls.count, stalled: stalls.time, ..state.stats.clone() }
    }

    pub(crate) fn subscribe(&self) -> Subscriber<RadioEvent> {
        let first = self.state.lock().subscriber.take();
        first.unwrap_or_else(|| self.events.subscribe())
    }

    pub(crate) fn pass_discontinuity(&self) -> bool {
        let mut state = self.state.lock();
        let is_at_end = self.next_end(&state) == Some(state.position);
        if is_at_end {
            state.begun = state.position;
        }
        is_at_end
    }

    pub(crate) fn interrupt(&self) {
        let mut state = self.state.lock();
        state.waits.interrupt();
        drop(state);
        self.notify();
    }

    pub(crate) fn resume(&self) {
        self.state.lock().waits.resume();
    }
}

/// For the receiver.
impl Shared {
    pub(crate) fn end(&self) -> u64 {
        self.state.lock().end
    }

    /// True while the reader has nothing left and waits.
    pub(crate) fn is_starved(&self) -> bool {
        self.state.lock().waiting
    }

    /// Blocks until there is room, or nothing was read for too long: until when is told by `let_go_at`, from the time
    /// on since when nothing was read.
    pub(crate) fn flow_control(
        &self,
        let_go_at: impl Fn(Instant) -> Option<Instant>,
    ) -> Result<FlowControl, Error> {
        let began = Instant::now();
        loop {
            let idle_since = self.state.lock().last_read.max(began);
            let decided = self.resource.wait(let_go_at(idle_since), |_| {
                if let Some(reason) = self.epoch.reason() {
                    return Some(Err(Error::cancelled(reason)));
                }
                self.room(&self.state.lock()).map(|room| Ok(FlowControl::Read(room)))
            });
            if let Some(decided) = decided {
                return decided;
            }
            let position = {
                let mut state = self.state.lock();
                // Small reads make no room, and are reads all the same.
                state.let_go = state.last_read <= idle_since;
                state.let_go.then_some(state.position)
            };
            if let Some(position) = position {
                self.events.publish(&RadioEvent::Paused { position });
                return Ok(FlowControl::LetGo);
            }
        }
    }

    /// How many bytes may come; `None` while it is not worth a read.
    fn room(&self, state: &State) -> Option<usize> {
        let room = self.config.ahead.saturating_sub(state.end - state.position);
        (room >= self.worth()).then(|| usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK))
    }

    /// How much room is worth a read.
    fn worth(&self) -> u64 {
        (self.config.ahead / 4).clamp(1, CHUNK as u64)
    }

    /// Blocks until the reader has come back from its pause.
    pub(crate) fn await_reader(&self) -> Result<(), Error> {
        self.block(None, |state| !state.let_go)
    }

    /// Blocks for this time.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), Error> {
        self.block(Instant::now().checked_add(time), |_| false)
    }

    /// Blocks until `over`, or the deadline. An error says that the radio was cancelled.
    fn block(&self, deadline: Option<Instant>, over: impl Fn(&State) -> bool) -> Result<(), Error> {
        let ended = self.resource.wait(deadline, |_| match self.epoch.reason() {
            Some(reason) => Some(Err(Error::cancelled(reason))),
            None => over(&self.state.lock()).then_some(Ok(())),
        });
        ended.unwrap_or(Ok(()))
    }

    /// Refuses what is no audio, by its head and its first bytes.
    pub(crate) fn refuse_html_page(&self, head: &ResponseHead, first: &[u8]) -> Result<(), Error> {
        let content_type = head.content_type();
        let why = match Playlist::detect(content_type, first) {
            Some(playlist) => playlist.to_string(),
            None if media::looks_like_html_page(content_type, first) => {
                let announced = content_type.unwrap_or("none");
                format!("the response is an HTML page, not audio (content type: {announced})")
            }
            None => return Ok(()),
        };
        Err(Error::new(ErrorKind::NotMedia, why).with_url(head.url()))
    }

    /// Notes that a connection brings audio, from the window's end on.
    pub(crate) fn connected(&self, head: &ResponseHead, info: RadioInfo) {
        let mut state = self.state.lock();
        let position = state.end;
        state.info = Some(info.clone());
        state.content_type = head.content_type().map(str::to_owned);
        state.connected_at = position;
        state.first = FirstBytes::default();
        state.stats.connections += 1;
        let is_discontinuity = position > 0;
        if is_discontinuity {
            state.discontinuities.push_back(position);
        }
        drop(state);
        self.events.publish(&RadioEvent::Connected { info, position });
        if is_discontinuity {
            self.events.publish(&RadioEvent::Discontinuity { position });
        }
    }

    /// Stores audio at the window's end.
    pub(crate) fn store(&self, audio: &[u8]) -> Result<(), Error> {
        let end = self.end();
        self.resource.write_at(end, audio)?;
        let mut state = self.state.lock();
        let offset = end - state.connected_at;
        state.first.add(offset, audio);
        state.end = end + audio.len() as u64;
        state.stats.bytes_received += audio.len() as u64;
        state.waits.recover();
        Ok(())
    }

    pub(crate) fn add_metadata(&self, position: u64, metadata: IcyMetadata) {
        let new = self.state.lock().titles.add(position, metadata);
        if let Some(Title { position, title, url }) = new {
            self.events.publish(&RadioEvent::Title { position, title, url });
        }
    }

    /// Drops what has left the window, and publishes what has arrived.
    pub(crate) fn trim(&self) {
        let mut state = self.state.lock();
        state.start = state.start.max(state.position.saturating_sub(self.config.behind));
        let start = state.start;
        state.titles.forget_before(start);
        while state.discontinuities.front().is_some_and(|discontinuity| *discontinuity < start) {
            state.discontinuities.pop_front();
        }
        let due = start - state.trimmed >= TRIM;
        if due {
            state.trimmed = start;
        }
        drop(state);
        if due {
            let keep = start..u64::MAX;
            self.resource.evict(std::slice::from_ref(&keep));
        }
        // Those who wait for the window to grow were woken by the store before it had.
        self.notify();
    }

    pub(crate) fn reconnecting(&self, error: Error, after: Duration) {
        self.state.lock().waits.retry(error.clone());
        self.events.publish(&RadioEvent::Reconnecting { error, after });
    }

    /// Notes that nothing more will come.
    pub(crate) fn ended(&self, error: Error) {
        let error = self.locate(error);
        let position = {
            let mut state = self.state.lock();
            state.waits.end(error.clone());
            state.end
        };
        self.events.publish(&RadioEvent::Ended { position, error });
        self.events.close();
        self.notify();
    }
}

fn window(state: &State) -> Range<u64> {
    state.start..state.end
}
