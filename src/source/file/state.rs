//! The state of a file while it is streamed: the positions of its readers, the pieces in flight, and its errors.
//!
//! Plain data behind one mutex. It is locked inside the storage's lock, never the other way round. Nothing here blocks,
//! does I/O or calls foreign code.

use std::ops::Range;
use std::time::Instant;

use slab::Slab;

use super::bisection::Hint;
#[cfg(feature = "cache")]
use super::cached::Cached;
use super::limits::Limits;
use super::mode::Mode;
use super::one_body::OneBody;
use super::outage::Outage;
use super::plan::{self, OPENING};
use super::pool::{self, ServerPool};
use super::reader_id::ReaderId;
use super::reader_view::{self, Piece, ReaderView};
use super::suffix::Suffix;
use super::upcoming::Upcoming;
use crate::cancel::CancelToken;
use crate::config::ReadAhead;
use crate::downloader::LentInterrupter;
use crate::media::{self, Bisected, FirstBytes, MediaInfo};
use crate::phase::{Facts, Phase};
use crate::source::StreamStats;
use crate::source::prefetch;
use crate::source::wait::{WaitReader, WaitState};
use crate::storage::RangeSet;
use crate::types::{Priority, RequestId};

/// A piece that was requested and has not ended.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) piece: Piece,
    pub(crate) priority: Priority,
    pub(crate) token: CancelToken,
    /// Known once the downloader has accepted it.
    pub(crate) request: Option<RequestId>,
    /// It is retried only while a reader waits for it.
    pub(crate) for_reader: bool,
}

/// How the file is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenCall {
    /// The caller of `open` is blocked, and gets at once the error that the host can't be reached.
    Blocked,
    /// In the background: the opening is requested without a waiting reader.
    Background,
    /// It was opened, or requested in the background. Only readers decide what is fetched.
    Over,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) readers: Slab<ReaderView>,
    /// Readers whose threads run fetches themselves, and what ends that.
    lent: Slab<(WaitReader, LentInterrupter)>,
    pub(crate) pieces: Slab<InFlight>,
    /// How the file is read, and what is known of it.
    pub(crate) mode: Mode,
    /// Ranges that were answered with the whole, one after another.
    pub(super) ignored_ranges: u32,
    /// The last range that a reader waited for was refused, by a server that has served ranges.
    pub(super) was_refused: bool,
    /// A piece was requested beside the opening. It is not requested again before the response head arrives.
    pub(super) requested_beside: bool,
    /// The request for the last bytes, beside the opening.
    pub(crate) suffix: Suffix,
    /// The body of a server without ranges, which a thread reads.
    pub(crate) one_body: OneBody,
    /// Why blocked calls end. It has ended if the file changed and nothing distinguishes its old bytes from its new ones, or
    /// if it was given up.
    pub(crate) waits: WaitState,
    /// Where a reader has used up half of what was stored ahead of it when fetching halted.
    pub(super) retry_at: Option<u64>,
    /// How long requests for what a reader waits for have failed.
    pub(super) outage: Outage,
    pub(crate) open_call: OpenCall,
    /// The file's first bytes, which show its type. Empty until it is clear that they are media and no HTML page.
    pub(crate) first: FirstBytes,
    /// What a decoder reads next, as far as the first bytes show it.
    pub(super) upcoming: Upcoming,
    /// How a decoder bisects, as far as the first bytes show it.
    hint: Option<Hint>,
    /// What the first bytes have shown, once most of them are dropped.
    pub(crate) media: Option<MediaInfo>,
    /// How far ahead to fetch, and what to keep.
    pub(crate) limits: Limits,
    /// Priority of the file's peer, by which the budget of memory is shared out.
    pub(crate) priority: Priority,
    pub(crate) stats: StreamStats,
    /// The servers behind the URL, by their entity tags.
    pub(crate) pool: ServerPool,
    /// The file's entry in the cache.
    #[cfg(feature = "cache")]
    pub(super) cached: Cached,
    /// A request was sent whose answer only confirms the entry. It is sent once.
    #[cfg(feature = "cache")]
    pub(super) was_asked_to_confirm: bool,
}

impl State {
    pub(crate) fn new(read_ahead: ReadAhead, behind: Option<u64>) -> Self {
        Self {
            readers: Slab::new(),
            lent: Slab::new(),
            pieces: Slab::new(),
            mode: Mode::Opening,
            ignored_ranges: 0,
            was_refused: false,
            retry_at: None,
            requested_beside: false,
            suffix: Suffix::Off,
            one_body: OneBody::default(),
            waits: WaitState::default(),
            outage: Outage::default(),
            open_call: OpenCall::Blocked,
            first: FirstBytes::default(),
            upcoming: Upcoming::default(),
            hint: None,
            media: None,
            limits: Limits::new(read_ahead, behind),
            priority: Priority::Low,
            stats: StreamStats::default(),
            pool: ServerPool::new(true),
            #[cfg(feature = "cache")]
            cached: Cached::default(),
            #[cfg(feature = "cache")]
            was_asked_to_confirm: false,
        }
    }

    /// Keeps what the first bytes have shown. Of the bytes only those are kept that a probe compares.
    pub(super) fn keep_media(&mut self, media: MediaInfo) {
        self.media = Some(media);
        self.first.shrink(pool::PROOF as usize);
    }

    /// Records that the stream is gone.
    pub(crate) fn close(&mut self, media: MediaInfo) {
        self.media = Some(media);
        self.first = FirstBytes::default();
        #[cfg(feature = "cache")]
        {
            self.cached = Cached::Off;
        }
    }

    /// Changes how far to read ahead.
    pub(crate) fn set_read_ahead(&mut self, read_ahead: ReadAhead) {
        // Only a waiting reader requests a failed opening again. Until then its error stays, which ends a download.
        if !self.mode.is_opening() {
            self.waits.restart();
        }
        self.limits.configure(read_ahead);
    }

    pub(crate) fn add_reader(&mut self) -> ReaderId {
        ReaderId { view: self.readers.insert(ReaderView::default()), waits: self.waits.add_reader() }
    }

    pub(crate) fn remove_reader(&mut self, reader: ReaderId) {
        self.readers.remove(reader.view);
        self.waits.remove_reader(reader.waits);
    }

    /// Records that the thread of `reader` may run a fetch itself, until [`end_lent`](Self::end_lent).
    pub(super) fn begin_lent(&mut self, reader: WaitReader, interrupter: LentInterrupter) -> usize {
        self.lent.insert((reader, interrupter))
    }

    pub(super) fn end_lent(&mut self, lent: usize) {
        self.lent.remove(lent);
    }

    /// What ends the fetches that the threads of `reader` run.
    pub(super) fn lent_of(&self, reader: WaitReader) -> Vec<LentInterrupter> {
        let own = self.lent.iter().filter(|(_, (of, _))| *of == reader);
        own.map(|(_, (_, interrupter))| interrupter.clone()).collect()
    }

    /// Records that `reader` wants the byte at `position` now.
    pub(crate) fn want(&mut self, reader: ReaderId, position: u64) {
        let view = &mut self.readers[reader.view];
        if view.position != position {
            view.jump(position, self.hint.as_ref());
        }
        view.waiting = true;
        self.waits.restart();
    }

    /// Records that `reader` has read `bytes` at `position`. Returns its sequential run before that.
    pub(crate) fn move_on(&mut self, reader: ReaderId, position: u64, bytes: u64) -> u64 {
        let view = &mut self.readers[reader.view];
        let mut run = view.run;
        if view.position != position {
            view.bisection.handle_jump(position, self.hint.as_ref());
            run = 0;
        }
        view.waiting = false;
        view.position = position + bytes;
        view.run = run + bytes;
        self.upcoming.handle_run(&(position - run..position + bytes));
        run
    }

    /// Records that a thread waits for all bytes of `range`, until the returned view is removed.
    pub(crate) fn want_all(&mut self, range: &Range<u64>) -> usize {
        self.waits.restart();
        self.readers.insert(ReaderView { position: range.start, until: range.end, ..ReaderView::default() })
    }

    pub(crate) fn len(&self) -> Option<u64> {
        self.mode.len()
    }

    /// The file has at least this many bytes. `None` until a response was accepted.
    pub(crate) fn promised(&self) -> Option<u64> {
        Some(self.mode.info()?.promised)
    }

    /// True if `position` is known to be behind the last byte.
    pub(crate) fn is_past_end(&self, position: u64) -> bool {
        let opens = |in_flight: &InFlight| in_flight.piece.next == 0;
        // Before the first bytes have shown what it is, the length may be that of a page with an error.
        let is_unclear = self.first.is_empty()
            && (self.one_body.is_running() || self.pieces.iter().any(|(_, piece)| opens(piece)));
        !is_unclear && self.len().is_some_and(|len| position >= len)
    }

    /// True if the one body is read from its start to its end: nothing is requested ahead of a reader.
    pub(crate) fn is_sequential(&self) -> bool {
        self.mode.is_sequential()
    }

    /// True if the opening is to be fetched without a waiting reader.
    pub(super) fn is_preload(&self) -> bool {
        self.open_call == OpenCall::Background
    }

    /// Records that the opening is requested. True if no reader waits for it.
    pub(crate) fn take_preload(&mut self) -> bool {
        let is_preload = self.is_preload();
        if is_preload {
            self.open_call = OpenCall::Over;
        }
        is_preload
    }

    /// True while the caller of `open` waits.
    pub(crate) fn is_opening(&self) -> bool {
        self.open_call == OpenCall::Blocked && self.first.is_empty()
    }

    /// True if a decoder bisects each time that it seeks in this file, as far as the first bytes show it.
    pub(crate) fn is_bisected(&self) -> bool {
        self.hint.as_ref().is_some_and(|hint| !hint.first.is_empty())
    }

    /// True if a reader waits for bytes, and may be foreseen to jump elsewhere next.
    pub(crate) fn may_jump(&self) -> bool {
        let may = |reader: &ReaderView| reader.waits() && reader.bisection.candidates().next().is_some();
        self.readers.iter().any(|(_, reader)| may(reader))
    }

    /// True if what is requested from `start` on is to be compared with bytes that are still on their way.
    pub(crate) fn awaits_overlap(&self, start: u64, available: &RangeSet) -> bool {
        let Some(before) = start.checked_sub(1).filter(|_| !self.has_validator()) else { return false };
        let brings = |piece: &Piece| piece.next <= before && before < piece.end;
        !available.contains(before) && self.pieces.iter().any(|(_, in_flight)| brings(&in_flight.piece))
    }

    /// Records that a piece was requested. Returns its key, and the tokens of those that it supersedes.
    pub(crate) fn add_piece(
        &mut self,
        range: &Range<u64>,
        priority: Priority,
        token: CancelToken,
        for_reader: bool,
    ) -> (usize, Vec<CancelToken>) {
        let mut superseded = Vec::new();
        for (_, in_flight) in &mut self.pieces {
            let Piece { next, end, .. } = in_flight.piece;
            if next <= range.start && range.start < end {
                // Already here, and not when the cancelled piece ends: the plan would wait for it until then.
                in_flight.piece.end = next;
                superseded.push(in_flight.token.clone());
            }
        }
        self.requested_beside |= self.mode.is_opening() && range.start > 0;
        let piece = Piece { next: range.start, end: range.end, retrying: None };
        (self.pieces.insert(InFlight { piece, priority, token, request: None, for_reader }), superseded)
    }

    /// True if a piece is farther ahead than any reader wants.
    pub(crate) fn is_too_far(&self, piece: &Piece) -> bool {
        // A download that is paused, and that no stream plays.
        if self.readers.is_empty() {
            return true;
        }
        let readers = || self.readers.iter().map(|(_, reader)| reader);
        !plan::is_upcoming(piece, self.upcoming.ranges())
            && !readers().any(|reader| reader_view::is_candidate(piece, reader))
            && plan::is_too_far(piece, readers(), self.limits.kept())
    }

    /// Keeps the file's first bytes, and what they show.
    pub(crate) fn add_first(&mut self, offset: u64, bytes: &[u8]) {
        let known = self.first.as_slice().len();
        self.first.add(offset, bytes);
        let Some(len) = self.len().filter(|_| self.mode.is_ranged()) else { return };
        if self.first.as_slice().len() > known {
            self.upcoming.set(media::upcoming(self.first.as_slice(), len));
            let hint = |bisected: Bisected| Hint { first: bisected.first, end: len, look: bisected.look };
            self.hint = media::bisected(self.first.as_slice(), len).map(hint);
        }
    }

    /// The file's phase, without regard to its readers' last reads.
    pub(crate) fn phase(&self, is_cancelled: bool, available: &RangeSet) -> Phase {
        let waits = |reader: &ReaderView| reader.urgent(available).is_some();
        // Pieces may still be listed after the end, but all of them were cancelled.
        let has_ended = self.waits.ended().is_some();
        let facts = Facts {
            is_cancelled,
            is_complete: self.len().is_some_and(|len| available.run_from(0) >= len),
            has_failed: self.waits.halted().is_some() || has_ended,
            is_known: !self.mode.is_opening(),
            is_retrying: self.is_retrying(available),
            is_urgent: self.readers.iter().any(|(_, reader)| waits(reader)),
            is_fetching: !has_ended && (!self.pieces.is_empty() || self.one_body.is_running()),
        };
        facts.phase()
    }

    /// True if a request has failed and is repeated: by its retry policy, or because a reader waits.
    pub(crate) fn is_retrying(&self, available: &RangeSet) -> bool {
        let is_retrying = |in_flight: &InFlight| in_flight.piece.retrying.is_some();
        let waits = |reader: &ReaderView| reader.urgent(available).is_some();
        self.pieces.iter().any(|(_, in_flight)| is_retrying(in_flight))
            || (self.waits.retrying().is_some() && self.readers.iter().any(|(_, reader)| waits(reader)))
    }

    /// How far the reader of a sequential body may go: `None` while it should wait.
    pub(crate) fn flow_control(&self, offset: u64, available: &RangeSet) -> Option<FlowControl> {
        let behind = |reader: &ReaderView| reader.urgent(available).is_some_and(|at| at < offset);
        if self.readers.iter().any(|(_, reader)| behind(reader)) {
            return Some(FlowControl::Restart);
        }
        let within = |reader: &ReaderView| {
            let prefetch_target =
                prefetch::target(self.limits.target(), reader.position, reader.run).max(OPENING);
            reader.waiting || offset < reader.position.saturating_add(prefetch_target).max(reader.until)
        };
        self.readers.iter().any(|(_, reader)| within(reader)).then_some(FlowControl::Go)
    }

    /// Records that a piece has received bytes. Only those of a piece that a reader waits for are progress to it: the
    /// piece that runs ahead of it is none.
    pub(crate) fn handle_progress(&mut self, key: usize) {
        let is_urgent = self.pieces.get(key).is_some_and(|in_flight| self.is_urgent(&in_flight.piece));
        if is_urgent {
            self.waits.progress(Instant::now());
        }
    }

    /// Records that bytes arrived. True if some reader may want them.
    pub(crate) fn take_in(&mut self, offset: u64, bytes: &[u8]) -> bool {
        self.add_first(offset, bytes);
        let bytes = bytes.len() as u64;
        let (now, end) = (Instant::now(), offset + bytes);
        // A body that is read again makes no progress before the place where it broke. A server that always breaks at the same
        // place would otherwise never be reported.
        let is_progress = !self.one_body.is_running() || self.one_body.handle_bytes(offset, end, now);
        if is_progress && self.one_body.is_running() {
            self.waits.progress(now);
        }
        let is_retrying = |in_flight: &InFlight| in_flight.piece.retrying.is_some();
        if is_progress {
            self.outage.end();
        }
        // While a piece is being retried its error stays, whatever the other pieces receive.
        if is_progress && !self.pieces.iter().any(|(_, in_flight)| is_retrying(in_flight)) {
            self.waits.recover();
        }
        self.stats.bytes_fetched += bytes;
        let is_wanted = self.is_wanted(&(offset..offset + bytes));
        if !is_wanted {
            self.stats.bytes_dropped += bytes;
        }
        is_wanted
    }
}

/// What the reader of a sequential body does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowControl {
    /// Reads on.
    Go,
    /// A reader waits for bytes before the body's position that are not stored: the body has to be requested again.
    Restart,
    /// The file is cancelled or gone.
    Leave,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_what_is_waited_for() {
        let mut state = State::new(ReadAhead::Bytes(8 << 20), Some(1 << 20));
        state.want_all(&(100..8 << 20));
        state.set_read_ahead(ReadAhead::Bytes(64 << 10));
        assert_eq!(state.windows().unwrap()[0], 0..8 << 20);
    }

    #[test]
    fn what_a_decoder_reads_next_is_kept() {
        let mut state = State::new(ReadAhead::Bytes(1 << 20), Some(1 << 20));
        let seek_table = 5_000_000..6_000_000;
        state.upcoming.set(Vec::from([seek_table.clone()]));
        assert!(state.windows().unwrap().contains(&seek_table));
    }
}
