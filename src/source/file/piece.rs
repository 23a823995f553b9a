//! The sink of one piece: checks its response and writes its body into storage.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptance::Accepted;
use super::network;
use super::overlap::Overlap;
use super::reader_view::Piece;
use super::sequential;
use super::shared::Shared;
use super::state::State;
use crate::buffer::Buffer;
use crate::client::ResponseHead;
use crate::config::FileConfig;
use crate::downloader::{Flow, Outcome, Response, Sink};
use crate::error::{Error, ErrorKind};
use crate::media::{FirstBytes, RECOGNIZABLE};
use crate::safe_url::SafeUrl;
use crate::source::radio::RadioInfo;
use crate::storage::RangeSet;
use crate::types::{Priority, RequestId};

/// The sink of one piece.
pub(crate) struct PieceSink {
    shared: Arc<Shared>,
    /// Its entry among the state's pieces, until `finish`.
    key: usize,
    /// The file's first bytes while it is not clear that they are media.
    unclear: Option<Vec<u8>>,
    /// The next piece was requested.
    has_requested_next: bool,
    /// If no validator proves that the piece belongs to the file: the stored bytes before it, which are requested again.
    overlap: Option<Overlap>,
    /// The bytes of `overlap` have been received, and are equal.
    has_joined: bool,
    /// In the same case: the stored bytes behind it, which are requested again.
    behind: Option<Overlap>,
    /// Its last byte, while none of `behind` has been received: a reader must not get from one version into another.
    last: Option<u8>,
    /// When the head of the running body was accepted. A `Changed` from then on is about its bytes, and not about its head.
    opened: Option<Instant>,
    /// The requested range, without the overlap; the whole file, if it goes from 0 to `u64::MAX`.
    range: Range<u64>,
    /// It was requested without the bytes before it, because a validator proves that it belongs to them.
    relies_on_validator: bool,
    /// Its response did not prove that it is of the same file: it is requested again, when that can be proved.
    is_unproved: bool,
    /// A head was accepted: there are bytes here.
    has_begun: bool,
    /// There is something to prefetch beside it.
    has_beside: bool,
    /// It was requested beside the opening: if it fails, the plan requests it again with what the opening has shown.
    is_beside: bool,
    /// Where it is requested first; once the response head is accepted, where that came from.
    target: Option<SafeUrl>,
}

impl PieceSink {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: usize,
        range: Range<u64>,
        [overlap, behind]: [Option<Overlap>; 2],
        has_beside: bool,
    ) -> Self {
        let start = range.start;
        let (is_first, is_beside, relies_on_validator, target) = {
            let state = shared.state.lock();
            let target = state.target().cloned();
            let relies = start > 0 && state.has_validator();
            (start == 0 && state.first.is_empty(), start > 0 && state.mode.is_opening(), relies, target)
        };
        Self {
            shared,
            key,
            unclear: is_first.then(Vec::new),
            has_requested_next: false,
            overlap,
            has_joined: false,
            behind,
            last: None,
            opened: None,
            range,
            relies_on_validator,
            is_unproved: false,
            has_begun: false,
            has_beside,
            is_beside,
            target,
        }
    }

    /// Where the piece is to be requested first, rather than at the file's own URL.
    pub(crate) fn target(&self) -> Option<&SafeUrl> {
        self.target.as_ref()
    }

    /// Records that these bytes are stored, and all before them. Requests the next piece when this one is about to end, and
    /// ends this one where no reader wants more.
    fn handle_stored(&mut self, stored: Range<u64>) {
        if stored.start < FirstBytes::MOST as u64 {
            // More first bytes may show what the decoder reads next, and how many connections it will need.
            self.shared.replan(Priority::Low);
            self.shared.keep_preconnected();
        }
        let mut state = self.shared.state.lock();
        state.handle_progress(self.key);
        let Some(in_flight) = state.pieces.get_mut(self.key) else { return };
        // A body that was resumed may begin again before what is stored.
        in_flight.piece.next = in_flight.piece.next.max(stored.end);
        in_flight.piece.retrying = None;
        let piece = in_flight.piece;
        let is_too_far = state.is_too_far(&piece);
        drop(state);
        let left = piece.end.saturating_sub(piece.next);
        if self.opened.is_some_and(|opened| self.is_too_long(left, opened.elapsed())) {
            return self.cut();
        }
        // Most chunks end here, without a look at the network.
        if !is_too_far && (self.has_requested_next || left > network::MAX_LEAD) {
            return;
        }
        let network = self.shared.network();
        if is_too_far && !network.ends_soon(left) {
            return self.cut();
        }
        if !self.has_requested_next && left <= network.pipeline_lead() {
            self.has_requested_next = true;
            self.shared.replan(Priority::Low);
        }
    }

    /// True if it has held its worker for too long, and another fetch waits for that.
    fn is_too_long(&self, left: u64, lasted: Duration) -> bool {
        // The network is looked up late, since this is called for each chunk.
        network::may_be_too_long(left, lasted)
            && self.shared.network().is_too_long(lasted)
            && self.is_in_the_way()
    }

    /// True if its worker can be freed for a fetch that waits for one only by a cut. A prefetch makes room with its body open, and
    /// continues it later without a request.
    fn is_in_the_way(&self) -> bool {
        let link = self.shared.link.get();
        if !link.is_some_and(|link| link.waker.is_this_worker_wanted()) {
            return false;
        }
        let state = self.shared.state.lock();
        state.pieces.get(self.key).is_some_and(|in_flight| state.is_urgent(&in_flight.piece))
    }

    fn cut(&self) {
        let mut state = self.shared.state.lock();
        let Some(in_flight) = state.pieces.get_mut(self.key) else { return };
        // Before the cancellation takes effect the plan already sees that this piece brings nothing more.
        in_flight.piece.end = in_flight.piece.next;
        let token = in_flight.token.clone();
        drop(state);
        token.cancel();
        // Now, and not when the reader has come to the end of what is stored: it would wait for the connect.
        self.shared.handle_cut();
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.shared.store(offset, bytes)?;
        // Not before the bytes are stored, or the plan would see them as missing in between.
        self.handle_stored(offset..offset + bytes.len() as u64);
        Ok(())
    }

    /// Compares those of `bytes` that lie behind the piece with the stored ones. Returns what may be stored by now.
    fn check_behind<'a>(&mut self, offset: u64, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let Some(behind) = &self.behind else { return Ok(bytes) };
        let within = usize::try_from(self.range.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        match bytes.split_at_checked(within) {
            None => Ok(bytes),
            Some((own, [])) => {
                // The last byte is held back until a byte behind it has proved equal: see `last`.
                let Some((last, own)) = own.split_last() else { return Ok(own) };
                self.last = Some(*last);
                Ok(own)
            }
            Some((own, repeated)) => {
                behind.compare(offset + own.len() as u64, repeated)?;
                self.store_last()?;
                Ok(own)
            }
        }
    }

    fn store_last(&mut self) -> Result<(), Error> {
        self.last.take().map_or(Ok(()), |last| self.store(self.range.end - 1, &[last]))
    }

    /// Stores the first bytes once they have shown that they are those of media. Until then they are held back.
    fn store_first(&mut self, mut held: Vec<u8>, bytes: &[u8], is_all: bool) -> Result<(), Error> {
        held.extend_from_slice(bytes);
        if held.len() < RECOGNIZABLE && !is_all {
            self.unclear = Some(held);
            return Ok(());
        }
        self.shared.accept_first(&held)?;
        self.store(0, &held)?;
        // The suffix may have arrived before. Only now is it clear that the file is media.
        self.shared.store_tail()?;
        // Readers may wait for bytes elsewhere, which could not be requested before the first bytes were accepted.
        self.shared.replan(Priority::High);
        Ok(())
    }
}

/// Fails if the body has titles in between its audio, although the file's configuration did not request them.
fn refuse_titles(head: &ResponseHead, config: &FileConfig) -> Result<(), Error> {
    let asks = config.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("icy-metadata"));
    if asks || head.header("icy-metaint").is_none() {
        return Ok(());
    }
    // They are not taken out as a radio's are: only the header shows that they are there, and if it is wrong audio would be taken
    // for titles. And they shift every offset, so that neither a seek nor a part would mean anything.
    let Some(interval) = RadioInfo::from_headers(head.headers()).metadata_interval else { return Ok(()) };
    let why = format!(
        "the server mixes titles into the audio (icy-metaint: {interval}); open it as a Radio, which takes them out"
    );
    Err(Error::new(ErrorKind::Encoded, why).with_url(head.url()))
}

impl PieceSink {
    /// Takes in the head, or refuses it.
    fn accept(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        if self.is_beside && !head.is_partial() {
            // Without ranges the body of the opening is read, and this one would be a second copy.
            return Err(Error::new(
                ErrorKind::RangeIgnored,
                "the server sent the whole file instead of a range",
            ));
        }
        refuse_titles(head, &shared.config)?;
        self.check_same(&mut state, head)?;
        // A response head is no progress: heads without a body could arrive forever.
        let flow = state.accept_part(head)?;
        if let Some(link) = shared.link.get().filter(|_| self.unclear.is_some()) {
            link.waker.record_ranges(&shared.request, flow == Flow::Stream);
        }
        // Only once the head is accepted, since the original URL may lead to a login page. And only if the piece was requested
        // elsewhere: another piece may have found meanwhile that this target fails.
        if self.target() != Some(head.url()) {
            state.adopt_target(head.url());
            self.target = Some(head.url().clone());
        }
        if flow == Flow::Detach {
            return Ok(Flow::Detach);
        }
        let Some(in_flight) = state.pieces.get_mut(self.key) else { return Ok(Flow::Stream) };
        in_flight.piece.retrying = None;
        if let Some(len) = head.body_len() {
            // RFC 9110, section 15.3.7: a part may be shorter than requested.
            in_flight.piece.end = in_flight.piece.end.min(head.start().saturating_add(len));
        }
        drop(state);
        self.opened = Some(Instant::now());
        self.has_begun = true;
        shared.keep_preconnected();
        Ok(Flow::Stream)
    }

    /// Fails if the response is of another file, or if nothing proves yet that it is of the same one.
    fn check_same(&mut self, state: &mut State, head: &ResponseHead) -> Result<(), Error> {
        let is_of_other_server = state.accept(head, self.range.start)? == Accepted::Unproved;
        let lacks_validator =
            self.relies_on_validator && !self.has_begun && head.is_partial() && !state.has_validator();
        let why = match (is_of_other_server, lacks_validator) {
            (true, _) => {
                "another server may have sent it, with an entity tag of its own: that is checked first"
            }
            (_, true) => {
                "the response does not repeat the validator: the piece is requested again with the bytes before it"
            }
            _ => return Ok(()),
        };
        self.is_unproved = true;
        Err(Error::new(ErrorKind::Refusal, why))
    }

    /// Stores what was held back because it was not clear whether it is media.
    fn store_unclear(&mut self, outcome: Outcome) -> Outcome {
        let held = self.unclear.take().filter(|held| !held.is_empty());
        match (held, outcome) {
            // All that there is: no more bytes arrive that could make it clear.
            (Some(held), Outcome::Done) => Outcome::from(self.store_first(held, &[], true)),
            (_, outcome) => outcome,
        }
    }

    /// Records how the piece ended. Returns the error if no read returns it.
    fn record_end(
        &self,
        state: &mut State,
        available: &RangeSet,
        piece: Option<Piece>,
        outcome: Outcome,
    ) -> Option<Error> {
        let is_urgent = piece.is_some_and(|piece| state.is_urgent(&piece));
        let error = match (outcome, piece) {
            (Outcome::Failed(error), _) => error,
            // The body ended right behind the overlap: there are no bytes behind what is stored.
            (Outcome::Done, Some(piece)) if self.has_joined && piece.next == self.range.start => {
                state.handle_nothing_more(&piece);
                return None;
            }
            (outcome, _) => return state.handle_end(outcome, is_urgent),
        };
        if self.is_beside || self.is_unproved {
            return None;
        }
        // A 416 is the end of the file only where no response has promised bytes there; else the server contradicts itself.
        let may_be_end = !self.has_begun && self.overlap.is_none();
        let is_end = may_be_end && piece.is_some_and(|piece| state.find_end(&error, &piece, available));
        if is_end || state.handle_refusal(&self.range, &error, is_urgent) {
            return None;
        }
        // No validator distinguishes the versions, so what is stored may already be of both.
        if self.opened.is_some() && error.kind() == ErrorKind::Changed && !state.has_validator() {
            return state.end_changed(error);
        }
        let unreturned = state.handle_end(Outcome::Failed(error), is_urgent);
        if let Some(piece) = piece {
            state.plan_retry(piece.next);
        }
        unreturned
    }
}

impl Sink for PieceSink {
    fn accepted(&mut self, request: RequestId) {
        let is_prefetch = match self.shared.state.lock().pieces.get_mut(self.key) {
            Some(in_flight) => {
                in_flight.request = Some(request);
                in_flight.priority == Priority::Low
            }
            None => false,
        };
        if is_prefetch {
            self.shared.promote_urgent();
        }
        // Only now, and by another worker: this one is about to take the ready connection, which no prefetch may take first.
        if let Some(link) = self.shared.link.get().filter(|_| self.has_beside) {
            link.waker.wake(Priority::Low);
        }
    }

    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        let flow = self.accept(head)?;
        // Before the first byte is stored: it would not get into an entry of the cache that is attached later.
        #[cfg(feature = "cache")]
        self.shared.handle_cache_head(head);
        Ok(flow)
    }

    fn detached(self: Box<Self>, body: Response) {
        let suffix = {
            let mut state = self.shared.state.lock();
            state.pieces.try_remove(self.key);
            state.one_body.begin();
            // Without ranges its bytes can't be used: the sequential body brings them.
            state.suffix.give_up()
        };
        if let Some(suffix) = suffix {
            suffix.cancel();
        }
        sequential::start(&self.shared, body);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let (mut offset, mut bytes) = (offset, bytes);
        if let Some(overlap) = &self.overlap {
            let is_past;
            (offset, bytes, is_past) = overlap.compare(offset, bytes)?;
            if is_past {
                self.overlap = None;
                self.has_joined = true;
            }
        }
        let bytes = self.check_behind(offset, bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        match self.unclear.take() {
            Some(held) => {
                let is_all = self.shared.len() == Some(offset + bytes.len() as u64);
                self.store_first(held, bytes, is_all)
            }
            None => self.store(offset, bytes),
        }
    }

    fn write_block(&mut self, offset: u64, block: &mut Buffer) -> Result<(), Error> {
        // Its bytes are compared or held back first, so their memory can't be passed on.
        if self.overlap.is_some() || self.behind.is_some() || self.unclear.is_some() {
            return self.write(offset, block);
        }
        let end = offset + block.len() as u64;
        self.shared.store_block(offset, block)?;
        self.handle_stored(offset..end);
        Ok(())
    }

    fn retrying(&mut self, error: &Error, next: Instant) {
        self.opened = None;
        let mut state = self.shared.state.lock();
        state.waits.retry(error.clone());
        // The target has sent no response head at all, and the client has gone on with the original URL.
        if error.kind() == ErrorKind::Silent {
            state.leave_target(self.target());
        }
        let opening = state.is_opening();
        let Some(in_flight) = state.pieces.get_mut(self.key) else { return };
        in_flight.piece.retrying = Some(in_flight.priority);
        let (piece, for_reader, token) = (in_flight.piece, in_flight.for_reader, in_flight.token.clone());
        let in_vain = for_reader && !state.is_urgent(&piece);
        if !self.is_beside && state.waits_for(&piece) {
            if let Some(given_up) = state.handle_outage(error, Instant::now(), next) {
                drop(state);
                return self.shared.finish_given_up(given_up, piece.next);
            }
        }
        // The reader would time out before the server wants the next request.
        let limit = self.shared.config.read_timeout;
        let is_too_long = error.retry_after().is_some_and(|asked| limit.is_some_and(|limit| asked > limit));
        if self.is_beside {
            // Not an error for the reader: it is optional, and the opening goes on without it.
        } else if opening && (error.is_unreachable() || is_too_long) {
            // Not published: the caller of `open` returns it.
            drop(state.fail(error.clone()));
        } else if in_vain {
            // The time until a reader waits again does not count.
            state.outage.end();
        } else {
            return;
        }
        drop(state);
        // Without the lock, since a cancellation runs callbacks.
        token.cancel();
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        let outcome = match self.store_unclear(outcome) {
            // The body is shorter than was requested, and ends with the piece. What is behind it proves nothing this time.
            Outcome::Done => Outcome::from(self.store_last()),
            outcome => outcome,
        };
        #[cfg(feature = "cache")]
        if let Outcome::Failed(error) = &outcome {
            if error.kind() == ErrorKind::Changed {
                self.shared.handle_changed(error);
            }
        }
        let unreturned = self.shared.resource.with_ranges(|available| {
            let mut state = self.shared.state.lock();
            if matches!(outcome, Outcome::Failed(_)) {
                // A range that fails would be planned again at once, so nothing more is fetched on a guess.
                state.upcoming.clear();
            }
            // A piece that became sequential was removed when its body was detached.
            let piece = state.pieces.try_remove(self.key).map(|in_flight| in_flight.piece);
            let missing = available.run_from(piece.map_or(self.range.start, |piece| piece.next));
            self.record_end(&mut state, available, piece, outcome).map(|error| (error, missing))
        });
        if let Some((error, position)) = unreturned {
            self.shared.report(error, position);
        }
        self.shared.resource.notify();
        self.shared.replan(Priority::Low);
    }
}
