//! How a fetch resumes a broken body. Does no I/O.
//!
//! The first response promises a body: these bytes of this representation. Whatever later attempts deliver, the fetch delivers
//! the promised bytes, each once and in order, or ends with an error. Only this type decides that.
//!
//! ```text
//!   first response   [start ────────────── offset ······················ end)
//!   next attempt              [overlap │ new bytes ··········)  ends early: a break, resumed
//!   or a 200         [skipped ─────────│ new bytes ······················│ clipped
//! ```

use super::head::{ResponseHead, Validator};
use super::representation::{self, Likeness, Representation};
use crate::error::{Error, ErrorKind};
use crate::types::ByteRange;

/// Length of the overlap check: every attempt after a break fetches this many bytes again and compares them with those received
/// before.
///
/// The check is also made if the server repeats a strong validator: some servers keep an entity tag or a date although the file
/// changed (tags made from a size and a date in seconds, files replaced with their dates, caches that serve old heads with new
/// bodies). A break costs a round trip and two heads of several hundred bytes, so 64 more bytes can't be measured. Pieces of a
/// file that are requested separately are different: the neighbouring piece may not have arrived yet, and waiting for it would
/// end pipelining, so they rely on a strong validator that each response repeats.
const OVERLAP: usize = 64;

/// A fetch's body over all its attempts.
#[derive(Clone, Debug)]
pub(crate) struct Continuation {
    /// The requested range. `None` for the whole resource.
    requested: Option<ByteRange>,
    /// `None` until a response is accepted.
    begun: Option<Begun>,
    /// Accepts another entity tag with the same length and date. The caller checks each head itself.
    tolerates_other_tags: bool,
    /// The rest is requested unconditionally. [`check`](Self::check) and the overlap show whether it is the same representation.
    omits_if_range: bool,
}

#[derive(Clone, Debug)]
struct Begun {
    representation: Representation,
    /// Position of the next new byte. Never beyond `end`.
    offset: u64,
    /// End of the promised body. `None` until a response announces it: then the body ends where the resource ends.
    end: Option<u64>,
    /// The bytes before `offset`, for the overlap check.
    tail: Tail,
    /// The current body is a part of the resource, not the whole.
    is_partial: bool,
    /// The current body has delivered a new byte.
    has_advanced: bool,
}

/// The last bytes that were received, at most [`OVERLAP`]. Not on the heap: each fetch has one, most of them for one read.
#[derive(Clone, Debug)]
struct Tail {
    bytes: [u8; OVERLAP],
    len: usize,
}

impl Tail {
    fn empty() -> Self {
        Self { bytes: [0; OVERLAP], len: 0 }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Adds bytes that were received, and forgets as many of the others as it has to.
    fn extend(&mut self, new: &[u8]) {
        let new = &new[new.len().saturating_sub(OVERLAP)..];
        let kept = self.len.min(OVERLAP - new.len());
        self.bytes.copy_within(self.len - kept..self.len, 0);
        self.len = kept + new.len();
        self.bytes[kept..self.len].copy_from_slice(new);
    }

    /// Grows as if this number of bytes had been received.
    fn lengthen(&mut self, by: usize) {
        self.len = self.len.saturating_add(by).min(OVERLAP);
    }
}

impl Continuation {
    pub(crate) fn new(requested: Option<ByteRange>) -> Self {
        Self { requested, begun: None, tolerates_other_tags: false, omits_if_range: false }
    }

    /// Accepts responses with another entity tag but the same length and date. The caller has to check each head.
    pub(crate) fn tolerate_other_tags(&mut self) {
        self.tolerates_other_tags = true;
    }

    /// Requests the rest unconditionally.
    pub(crate) fn omit_if_range(&mut self) {
        self.omits_if_range = true;
    }

    /// Treats another entity tag as a change from now on: the caller no longer checks the heads.
    pub(crate) fn refuse_other_tags(&mut self) {
        self.tolerates_other_tags = false;
    }

    /// True if, according to `head`, the server can resume the body from any position.
    pub(crate) fn can_resume(&self, head: &ResponseHead) -> bool {
        // RFC 9110, section 14.1: the names of range units are case-insensitive.
        let has_ranges = head.header("accept-ranges").is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"));
        let has_end = self.begun.as_ref().is_some_and(|begun| begun.end.is_some());
        has_end && (head.is_partial() || has_ranges)
    }

    /// The state once all bytes before `position` have arrived. Use it to request the rest and to check the response head, not
    /// for the bytes: their overlap is not known.
    pub(crate) fn at(&self, position: u64) -> Option<Self> {
        let mut later = self.clone();
        // The caller does not see the head of a hedged request.
        later.refuse_other_tags();
        let begun = later.begun.as_mut()?;
        let come = usize::try_from(position.saturating_sub(begun.offset)).unwrap_or(usize::MAX);
        begun.offset = begun.offset.max(position);
        // Only the length of the tail matters here: it decides where the overlap begins.
        begun.tail.lengthen(come);
        Some(later)
    }

    /// The range that the next attempt requests. `None` until a response is accepted.
    pub(crate) fn range(&self) -> Option<ByteRange> {
        let begun = self.begun.as_ref()?;
        let start = begun.offset - begun.tail.len as u64;
        // If the body ends with the resource, request an open range: servers support that form best.
        let end = begun.end.filter(|end| begun.representation.total() != Some(*end));
        Some(ByteRange::new(start, end.unwrap_or(u64::MAX)))
    }

    /// The condition under which the next attempt requests the range.
    pub(crate) fn if_range(&self) -> Option<&Validator> {
        let begun = self.begun.as_ref().filter(|_| !self.omits_if_range)?;
        // RFC 9110, section 13.1.5: a weak entity tag must not be sent in `If-Range`.
        begun.representation.strong_validator()
    }

    /// Position of the next new byte. `None` until a response is accepted.
    pub(crate) fn offset(&self) -> Option<u64> {
        Some(self.begun.as_ref()?.offset)
    }

    /// True if all promised bytes have arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.end == Some(begun.offset))
    }

    /// True if the server has sent a part that ends before the requested range does (RFC 9110, section 15.3.7), and before the
    /// resource.
    pub(crate) fn is_short_part(&self) -> bool {
        let (Some(requested), Some(begun)) = (self.requested, &self.begun) else { return false };
        let ends_early = |total| begun.offset < total;
        begun.is_partial
            && begun.offset < requested.end
            && begun.representation.total().is_none_or(ends_early)
    }

    /// Fails if the response can't continue the body.
    pub(crate) fn check(&self, head: &ResponseHead) -> Result<(), Error> {
        let Some(begun) = &self.begun else { return Ok(()) };
        match begun.representation.compare(head) {
            Likeness::HtmlPage => return Err(representation::html_page(head)),
            Likeness::Changed(what) => return Err(representation::changed(head, what)),
            Likeness::OtherTag(_) if !self.tolerates_other_tags => {
                return Err(representation::changed(head, "entity tag"));
            }
            Likeness::OtherTag(_) | Likeness::Confirmed | Likeness::Unconfirmed => {}
        }
        // A 200 without length and validator may be another resource, for example a page of a proxy, and only the overlap of 64
        // bytes would be compared.
        if !head.is_partial() && begun.representation.is_known() && !Representation::of(head).is_known() {
            return Err(representation::changed(
                head,
                "response, which nothing identifies as the same resource",
            ));
        }
        if head.total().is_some_and(|total| total < begun.end.unwrap_or(begun.offset)) {
            return Err(representation::changed(head, "length"));
        }
        let wrong = |why: &str| Err(Error::new(ErrorKind::WrongRange, why).with_url(head.url()));
        if head.start() > begun.offset {
            return wrong("the response begins after the requested offset");
        }
        let end = head.body_len().map(|len| head.start().saturating_add(len));
        if head.is_partial() && matches!((end, begun.end), (Some(end), Some(promised)) if end > promised) {
            return wrong("the response ends after the end that the first response announced");
        }
        Ok(())
    }

    /// Records that the body of `head` is read from now on. The first head is the promise. Do not pass a refused head: the next
    /// attempt would resume a body that the caller did not accept.
    pub(crate) fn begin(&mut self, head: &ResponseHead) {
        let begun = self.begun.get_or_insert_with(|| Begun {
            representation: Representation::of(head),
            offset: head.start(),
            end: head.body_len().map(|len| head.start().saturating_add(len)),
            tail: Tail::empty(),
            is_partial: head.is_partial(),
            has_advanced: false,
        });
        // Later responses may contain the length that the first one did not.
        begun.representation.learn_total(head);
        if begun.end.is_none() {
            // The first response was the whole resource, without its length.
            begun.end = begun.representation.total();
        }
        begun.is_partial = head.is_partial();
        begun.has_advanced = false;
    }

    /// Takes `bytes` that begin at position `at`, and returns the new ones among them, none beyond the promised end. Fails if
    /// bytes that were received before differ, as far as the tail remembers them.
    pub(crate) fn take<'a>(&mut self, at: u64, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let Some(begun) = &mut self.begun else { return Ok(bytes) };
        let to_len = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        let known = to_len(begun.offset.saturating_sub(at)).min(bytes.len());
        let (old, new) = bytes.split_at(known);
        begun.compare(at, old)?;
        let room = to_len(begun.end.map_or(u64::MAX, |end| end - begun.offset));
        let new = &new[..new.len().min(room)];
        begun.offset += new.len() as u64;
        begun.has_advanced |= !new.is_empty();
        begun.tail.extend(new);
        Ok(new)
    }

    /// Checks that a body which ended at `at`, according to its framing, ended at the promised end. Otherwise fails: with
    /// [`ErrorKind::Truncated`] if another attempt may deliver the rest.
    pub(crate) fn check_end(&self, at: u64) -> Result<(), Error> {
        let Some(begun) = &self.begun else { return Ok(()) };
        let offset = begun.offset;
        if !begun.is_partial && at < offset {
            let why = format!(
                "the resource changed during the transfer: it ends at {at}, but {offset} bytes had been received"
            );
            return Err(Error::new(ErrorKind::Changed, why));
        }
        if let Some(end) = begun.end {
            let why = || format!("the body ended at {offset}, but the first response announced {end}");
            return if offset == end { Ok(()) } else { Err(Error::new(ErrorKind::Truncated, why())) };
        }
        // RFC 9110, section 15.3.7: a part may be shorter than requested, so the end of a part of unknown length does not prove
        // that the resource ends there. If it adds nothing after the known bytes, the resource does end there.
        if begun.is_partial && (begun.has_advanced || at < offset) {
            let why = format!("a part ended at {offset}, but no response said that the resource ends there");
            return Err(Error::new(ErrorKind::Truncated, why));
        }
        if self.is_doubtful_end() && self.requested.is_some_and(|requested| requested.start > 0) {
            let why = "the response is as long as the requested range, but its status says that it is the whole resource";
            return Err(Error::new(ErrorKind::WrongRange, why));
        }
        Ok(())
    }

    /// True if the body, which by its status is the whole resource of unknown length, has exactly the length of the requested
    /// range. It may be that range: some servers send it with status 200 instead of 206.
    pub(crate) fn is_doubtful_end(&self) -> bool {
        let Some(begun) = &self.begun else { return false };
        !begun.is_partial
            && begun.end.is_none()
            && self.requested.is_some_and(|requested| requested.len() == begun.offset)
    }
}

impl Begun {
    fn compare(&self, at: u64, old: &[u8]) -> Result<(), Error> {
        let tail_at = self.offset - self.tail.len as u64;
        let from = tail_at.max(at);
        let until = at + old.len() as u64;
        if from >= until {
            return Ok(());
        }
        // No overflow: both differences are at most `OVERLAP`, or the length of `old`.
        let received = &old[(from - at) as usize..];
        let expected = &self.tail.as_slice()[(from - tail_at) as usize..(until - tail_at) as usize];
        if received == expected {
            return Ok(());
        }
        let why =
            format!("the resource changed during the transfer: the bytes before {} differ", self.offset);
        Err(Error::new(ErrorKind::Changed, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A response head with these values.
    fn head(status: u16, part: std::ops::Range<u64>, total: Option<u64>) -> ResponseHead {
        ResponseHead::for_tests(status, part, total)
    }

    fn begun(status: u16, part: std::ops::Range<u64>, total: Option<u64>) -> Continuation {
        let mut continuation = Continuation::new(Some(ByteRange::new(part.start, part.end)));
        continuation.begin(&head(status, part, total));
        continuation
    }

    #[test]
    fn every_attempt_overlaps_the_received_bytes() {
        let mut continuation = begun(206, 100..500, Some(1000));
        assert_eq!(continuation.range(), Some(ByteRange::new(100, 500)));
        continuation.take(100, &[7; 10]).unwrap();
        assert_eq!(continuation.range(), Some(ByteRange::new(100, 500)));
        continuation.take(110, &[8; 100]).unwrap();
        assert_eq!(continuation.range(), Some(ByteRange::new(210 - 64, 500)));
    }

    #[test]
    fn the_rest_can_be_requested_while_the_body_is_read() {
        let mut continuation = begun(206, 100..500, Some(1000));
        let snapshot = continuation.clone();
        for bytes in [10, 20, 100, 200] {
            continuation.take(continuation.offset().unwrap(), &vec![7; bytes]).unwrap();
            let later = snapshot.at(continuation.offset().unwrap()).unwrap();
            assert_eq!(later.range(), continuation.range());
        }
    }

    #[test]
    fn other_bytes_in_the_overlap_are_a_change() {
        let mut continuation = begun(200, 0..100, Some(100));
        continuation.take(0, b"the first part").unwrap();
        assert_eq!(continuation.take(4, b"first part, and more").unwrap(), b", and more");
        let error = continuation.take(4, b"other part, and more").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
    }

    #[test]
    fn the_first_response_decides_the_end() {
        let mut continuation = begun(206, 100..200, Some(1000));
        continuation.take(100, &[1; 50]).unwrap();
        assert_eq!(continuation.check_end(150).unwrap_err().kind(), ErrorKind::Truncated);
        continuation.begin(&head(200, 0..1000, Some(1000)));
        assert_eq!(continuation.take(0, &[1; 1000]).unwrap(), [1; 50]);
        assert!(continuation.is_complete());
        assert!(continuation.check_end(1000).is_ok());
    }

    #[test]
    fn a_later_head_that_contradicts_the_promise_is_refused() {
        let mut continuation = begun(206, 100..200, None);
        continuation.take(100, &[1; 50]).unwrap();
        let kind = |head: &ResponseHead| continuation.check(head).err().map(|error| error.kind());
        assert_eq!(kind(&head(206, 100..200, None)), None);
        assert_eq!(kind(&head(206, 100..160, Some(200))), None);
        assert_eq!(kind(&head(200, 0..200, Some(200))), None);
        assert_eq!(kind(&head(206, 100..201, None)), Some(ErrorKind::WrongRange));
        assert_eq!(kind(&head(206, 151..200, None)), Some(ErrorKind::WrongRange));
        assert_eq!(kind(&head(206, 100..160, Some(199))), Some(ErrorKind::Changed));
        assert_eq!(kind(&head(200, 0..199, Some(199))), Some(ErrorKind::Changed));
    }

    #[test]
    fn a_total_is_learned_once() {
        let mut continuation = begun(206, 0..200, None);
        continuation.begin(&head(206, 0..200, Some(500)));
        let error = continuation.check(&head(206, 0..200, Some(501))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
    }

    proptest! {
        /// Whatever parts and wholes later attempts deliver, and wherever they break: each promised byte is delivered once, in
        /// order, none beyond the end, and the fetch is complete exactly when all have arrived.
        #[test]
        fn each_promised_byte_is_delivered_once(
            body in proptest::collection::vec(any::<u8>(), 1..1000),
            promise in (0..1000_usize, 1..1000_usize),
            has_total in any::<bool>(),
            attempts in proptest::collection::vec((0..1100_usize, 1..200_usize, any::<bool>(), any::<bool>()), 1..20),
        ) {
            let start = promise.0 % body.len();
            let end = (start + promise.1).min(body.len());
            let total = has_total.then_some(body.len() as u64);
            let mut continuation = begun(206, start as u64..end as u64, total);
            let mut got = Vec::new();
            for (until, chunk, is_whole, has_total) in attempts {
                if continuation.is_complete() {
                    break;
                }
                // A whole response without length and validator is refused.
                let total = (is_whole || has_total).then_some(body.len() as u64);
                let requested = continuation.range().unwrap();
                let from = if is_whole { 0 } else { requested.start as usize };
                let most = if is_whole { body.len() } else { requested.end.min(end as u64) as usize };
                let (status, announced) = if is_whole { (200, 0..most) } else { (206, from..most) };
                let head = head(status, announced.start as u64..announced.end as u64, total);
                continuation.check(&head).unwrap();
                continuation.begin(&head);
                let (mut at, until) = (from, until.clamp(from, most));
                while at < until {
                    let next = (at + chunk).min(until);
                    got.extend_from_slice(continuation.take(at as u64, &body[at..next]).unwrap());
                    at = next;
                }
                prop_assert_eq!(&got[..], &body[start..start + got.len()]);
                prop_assert_eq!(continuation.offset(), Some((start + got.len()) as u64));
                prop_assert_eq!(continuation.is_complete(), got.len() == end - start);
                if !is_whole {
                    prop_assert_eq!(continuation.check_end(at as u64).is_ok(), continuation.is_complete());
                }
            }
            if let Some(last) = got.last() {
                let at = (start + got.len()) as u64 - 1;
                prop_assert!(continuation.take(at, &[!last]).is_err());
                prop_assert!(continuation.take(at, &[*last]).unwrap().is_empty());
            }
        }
    }
}
