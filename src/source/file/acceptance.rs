//! What the responses of a file show, and whether they are of the same file: parts of two files are never joined.

use std::ops::Range;

use super::mode::Info;
use super::pool::{self, Probed, Proof, TagStatus};
use super::reader_view::Piece;
use super::state::{OpenCall, State};
use super::suffix::Tail;
use crate::client::ResponseHead;
use crate::client::representation::{self, Likeness};
use crate::config::ReadAhead;
use crate::downloader::Flow;
use crate::error::{Error, ErrorKind};
use crate::safe_url::SafeUrl;
use crate::storage::RangeSet;

/// A server that has served ranges may ignore this many in a row. With the next one it counts as a server without ranges.
const MAX_IGNORED_RANGES: u32 = 3;

/// What is done with a head that does not contradict the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    Taken,
    /// It may come from another server's copy of the file, which has to be proved before its body is stored.
    Unproved,
}

impl State {
    /// True if an answer's head proves that it is of the same file.
    pub(crate) fn has_validator(&self) -> bool {
        !self.mode.is_ranged() || self.mode.info().is_none_or(|info| info.has_validator)
    }

    /// Takes in what the first answer contains, or holds a later one against it: parts of two files are never joined.
    /// `start` is where the first byte would be stored.
    pub(crate) fn accept(&mut self, head: &ResponseHead, start: u64) -> Result<Accepted, Error> {
        self.stats.requests += 1;
        // `open` waits for the first byte, which an empty file does not have.
        if head.total() == Some(0) {
            return Err(Error::new(ErrorKind::Empty, "the file has no bytes").with_url(head.url()));
        }
        let is_ranged = self.mode.is_ranged();
        #[cfg(feature = "cache")]
        let is_unconfirmed = self.is_unconfirmed();
        let Some(info) = self.mode.info_mut() else {
            // The first accepted response defines the file, and there is nothing to compare it with.
            self.mode.open(head);
            return Ok(Accepted::Taken);
        };
        // A probe compares the file's first bytes. Before these are known nothing can be proved.
        let has_first = self.first.as_slice().len() as u64 >= pool::PROOF.min(info.len.unwrap_or(u64::MAX));
        match info.representation.compare(head) {
            Likeness::HtmlPage => return Err(representation::html_page(head)),
            Likeness::Changed(what) => return Err(representation::changed(head, what)),
            #[cfg(feature = "cache")]
            // The stored bytes may be old, so another tag means another version here, and no other server of a pool.
            Likeness::OtherTag(_) if is_unconfirmed => {
                return Err(representation::changed(head, "entity tag"));
            }
            Likeness::OtherTag(tag) => match self.pool.check_tag(&tag, start, is_ranged && has_first) {
                TagStatus::Same => {}
                TagStatus::Unproved => return Ok(Accepted::Unproved),
                TagStatus::Changed => return Err(representation::changed(head, "entity tag")),
            },
            Likeness::Confirmed => self.pool.handle_first_tag(),
            Likeness::Unconfirmed => info.has_validator = false,
        }
        // The length may have been found out without a response head that contains it.
        if matches!((info.len, head.total()), (Some(old), Some(new)) if old != new) {
            return Err(representation::changed(head, "length"));
        }
        if head.is_partial() {
            // Not from a 200 that came instead: `accept_part` may still refuse it.
            info.learn_total(head);
        }
        Ok(Accepted::Taken)
    }

    /// Records that a response head has the part that was requested, or the whole.
    pub(crate) fn accept_part(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        if head.is_partial() {
            self.ignored_ranges = 0;
            self.was_refused = false;
            // The server does serve ranges that do not begin at 0, so it refused the earlier one for another reason.
            if head.start() > 0 {
                self.mode.leave_whole();
            }
            if let (Some(info), Some(len)) = (self.mode.info_mut(), head.body_len()) {
                info.promised = info.promised.max(head.start().saturating_add(len));
                info.has_served_range |= head.start() > 0;
            }
            return Ok(Flow::Stream);
        }
        let has_served_ranges = self.mode.is_ranged();
        // A 200 with neither a length nor a validator may be another file, such as a login page.
        let is_unidentified = head.total().is_none() && head.validator().is_none();
        if has_served_ranges && is_unidentified {
            let why = "the server sent the whole file instead of a range, and nothing shows that it is the same file";
            return Err(Error::new(ErrorKind::Changed, why).with_url(head.url()));
        }
        // The response to the opening decides how the file is read, also if a 206 has arrived beside it.
        let is_opening = self.first.is_empty();
        let is_asked_for = self.mode.tries_whole();
        // Several servers may stand behind one name, and one of them may ignore ranges: another request may reach a better one.
        if has_served_ranges && !is_asked_for && !is_opening && self.ignored_ranges < MAX_IGNORED_RANGES {
            self.ignored_ranges += 1;
            let why = "the server sent the whole file instead of a range, although it had served ranges";
            return Err(Error::new(ErrorKind::RangeIgnored, why).with_url(head.url()));
        }
        // One body with all of it: a thread of the file reads it at the readers' pace.
        self.mode.make_sequential();
        Ok(Flow::Detach)
    }

    /// Records that the answer from `url` was taken: what is fetched from now on is requested there.
    pub(crate) fn adopt_target(&mut self, url: &SafeUrl) {
        if let Some(info) = self.mode.info_mut() {
            info.target = Some(url.clone());
        }
    }

    /// Records that a fetch that went to `target` first has failed: what is fetched from now on is requested at the
    /// original URL, which may lead elsewhere by now.
    pub(crate) fn leave_target(&mut self, target: Option<&SafeUrl>) {
        // Only if it is still this one: another piece may have found a newer target meanwhile.
        if let Some(info) = self.mode.info_mut().filter(|info| info.target.as_ref() == target) {
            info.target = None;
        }
    }

    pub(crate) fn target(&self) -> Option<&SafeUrl> {
        self.mode.info()?.target.as_ref()
    }

    /// Records why the request for `range` failed, for which a reader waits if it `is_urgent`. True if another request follows at
    /// once: for the range again, or for the whole. If the whole is refused too, its status is the file's failure.
    pub(crate) fn handle_refusal(&mut self, range: &Range<u64>, error: &Error, is_urgent: bool) -> bool {
        // This was the request without a range, so there is nothing else to try.
        if *range == (0..u64::MAX) {
            // A retryable error says nothing about the whole, which is requested again then.
            if !error.is_retryable() {
                self.mode.leave_whole();
            }
            return false;
        }
        // Where the length is not known, a piece may have been requested behind the end.
        let may_be_end =
            error.kind() == ErrorKind::Status(416) && self.mode.info().is_some_and(|info| info.len.is_none());
        // Some servers refuse ranges, or those that do not begin at 0, with a 403 or another status, also 404, and serve a request without
        // one. A file that is missing costs one request more. A 5xx is about the server, and not about the range.
        let is_refused = matches!(error.status(), Some(400..=499)) && !error.is_retryable() && !may_be_end;
        if is_refused && self.mode.info().is_some_and(|info| info.has_served_range) {
            // A login page of a network answers like this, or a CDN for a moment. The whole begins at 0: behind hours of audio, all of
            // them would come again. So it is requested only if a reader or a download waits, and the range is refused twice.
            let is_awaited = is_urgent || self.limits.configured() == ReadAhead::Whole;
            if !is_awaited || !std::mem::replace(&mut self.was_refused, true) {
                return is_awaited;
            }
            self.was_refused = false;
        }
        if is_refused {
            self.mode.try_whole();
            // An opening in the background goes on without a waiting reader.
            if self.mode.is_opening() && self.open_call == OpenCall::Over {
                self.open_call = OpenCall::Background;
            }
        }
        is_refused
    }

    /// Records the length of a file of unknown length, if this failure of a piece without a body means that it ends where the
    /// stored bytes do. True if it does.
    pub(crate) fn find_end(&mut self, error: &Error, piece: &Piece, available: &RangeSet) -> bool {
        let is_behind_end =
            error.kind() == ErrorKind::Status(416) && piece.next > 0 && available.contains(piece.next - 1);
        // RFC 9110, section 15.5.17: a 416 means that the range begins behind the end. It is not the end where a response has
        // promised more bytes (`Content-Range`, or its length) and broke off: then the server contradicts itself.
        let may_end = |info: &&mut Info| info.len.is_none() && piece.next >= info.promised;
        let Some(info) = self.mode.info_mut().filter(|info| is_behind_end && may_end(info)) else {
            return false;
        };
        info.len = Some(piece.next);
        true
    }

    /// Records that a response ended where the stored bytes do: of a file of unknown length, that is its end.
    pub(crate) fn handle_nothing_more(&mut self, piece: &Piece) {
        if let Some(info) = self.mode.info_mut() {
            info.len.get_or_insert(piece.next);
        }
    }

    /// The tail that has arrived, once the opening has shown what the file is. It is dropped if it is of another version
    /// of the file: what the opening shows counts.
    pub(crate) fn poll_tail(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.first.is_empty() {
            return None;
        }
        let Tail { head, bytes } = self.suffix.take_held()?;
        let is_ranged = self.mode.is_ranged();
        let info = self.mode.info_mut().filter(|info| is_ranged && info.is_of_same(&head, &self.pool));
        let Some(info) = info else {
            // `take_held` has left it in `Storing`, where the plan would wait for its bytes forever.
            self.suffix.stored();
            return None;
        };
        info.learn_total(&head);
        Some((head.start(), bytes))
    }

    /// The next probe, and what it requests.
    pub(crate) fn begin_probe(&mut self, available: &RangeSet) -> Option<(Proof, Range<u64>)> {
        self.pool.poll_probe(available, self.first.as_slice().len() as u64)
    }

    /// Copies the file's first bytes, as many as there are. Returns how many.
    pub(crate) fn copy_first(&self, buf: &mut [u8]) -> usize {
        let first = self.first.as_slice();
        let len = first.len().min(buf.len());
        buf[..len].copy_from_slice(&first[..len]);
        len
    }

    /// What the head of a probe's answer shows; of one with the suspect's tag the bytes have to be compared.
    pub(crate) fn read_probe(&mut self, head: &ResponseHead, proof: Proof) -> Probed {
        self.stats.requests += 1;
        let Some(info) = self.mode.info() else { return Probed::Nothing };
        match info.representation.compare(head) {
            Likeness::Confirmed => Probed::EarlierTag,
            Likeness::OtherTag(tag) if self.pool.is_cleared(&tag) => Probed::EarlierTag,
            Likeness::OtherTag(tag) if self.pool.is_suspect(&tag) && head.is_partial() => {
                Probed::Suspects(proof, false)
            }
            _ => Probed::Nothing,
        }
    }
}
