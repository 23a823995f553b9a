//! How a broken body goes on. Does no I/O.
//!
//! The first response promises a body: these bytes, of this representation. Whatever later attempts bring, the fetch delivers
//! the promised bytes, each once and in order, or ends with an error. This type is the one owner of that promise.
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

/// Bytes that every attempt after a break fetches again, to be compared with those that came before it.
///
/// Also where the server repeats a strong validator: some keep an entity tag or a date over a change (tags made from a size
/// and a date in seconds, files replaced with their dates, caches that serve old heads with new bodies). A break has cost a
/// round trip and two heads of several hundred bytes, so 64 bytes more cost nothing that can be measured. Pieces of a file
/// that were requested apart are different: the neighbour may not have arrived yet, and waiting for it would end pipelining,
/// so they rely on a strong validator where each response repeats it.
const OVERLAP: usize = 64;

/// A fetch's body over all its attempts.
#[derive(Clone, Debug)]
pub(crate) struct Continuation {
    /// What was asked for.
    asked: Option<ByteRange>,
    /// `None` until a response was accepted.
    begun: Option<Begun>,
    /// Another entity tag beside the same length and date is left to the asker.
    tolerates_other_tags: bool,
}

#[derive(Clone, Debug)]
struct Begun {
    representation: Representation,
    /// The next byte that is new. Never beyond `end`.
    offset: u64,
    /// Where the promised body ends; `None` while no response told, which is the resource's end then.
    end: Option<u64>,
    /// The last bytes before `offset`, `OVERLAP` at most.
    tail: Vec<u8>,
    /// The body that is read now is a part, and not the whole.
    is_partial: bool,
    /// It has brought a new byte.
    has_advanced: bool,
}

impl Continuation {
    pub(crate) fn new(asked: Option<ByteRange>) -> Self {
        Self { asked, begun: None, tolerates_other_tags: false }
    }

    /// Leaves responses with another entity tag, but of the same length and date, to the asker, who has to judge each head.
    pub(crate) fn tolerate_other_tags(&mut self) {
        self.tolerates_other_tags = true;
    }

    /// Takes another entity tag for a change from now on, as nobody judges it.
    pub(crate) fn refuse_other_tags(&mut self) {
        self.tolerates_other_tags = false;
    }

    /// True if a body that begins with `head` can be gone on with from anywhere, as far as the server says.
    pub(crate) fn can_resume(&self, head: &ResponseHead) -> bool {
        let has_ranges = head.header("accept-ranges").is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"));
        let has_end = self.begun.as_ref().is_some_and(|begun| begun.end.is_some());
        has_end && (head.is_partial() || has_ranges)
    }

    /// As it is once all up to `position` has come; good for asking for the rest, and for looking at the head that answers,
    /// but not for its bytes.
    pub(crate) fn at(&self, position: u64) -> Option<Self> {
        let mut later = self.clone();
        // The asker does not see the head of a body that was faster than a silent one.
        later.refuse_other_tags();
        let begun = later.begun.as_mut()?;
        let come = usize::try_from(position.saturating_sub(begun.offset)).unwrap_or(usize::MAX);
        begun.offset = begun.offset.max(position);
        // What the bytes were does not matter, but how many are compared.
        begun.tail.resize(begun.tail.len().saturating_add(come).min(OVERLAP), 0);
        Some(later)
    }

    /// What the next attempt has to ask for; `None` before the first response was accepted.
    pub(crate) fn range(&self) -> Option<ByteRange> {
        let begun = self.begun.as_ref()?;
        let start = begun.offset - begun.tail.len() as u64;
        // Up to the end of the resource as most servers know it best.
        let end = begun.end.filter(|end| begun.representation.total() != Some(*end));
        Some(ByteRange::new(start, end.unwrap_or(u64::MAX)))
    }

    pub(crate) fn if_range(&self) -> Option<&Validator> {
        self.begun.as_ref()?.representation.strong_validator()
    }

    /// Offset of the next new byte, once a response was accepted.
    pub(crate) fn offset(&self) -> Option<u64> {
        Some(self.begun.as_ref()?.offset)
    }

    /// True if all promised bytes have come.
    pub(crate) fn is_complete(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.end == Some(begun.offset))
    }

    /// Fails unless the response can go on with what came before.
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

    /// Notes that the body behind `head` is read from now on. The first one is the promise. A head that was refused must not
    /// come here, or the next attempt would ask for what nobody wanted.
    pub(crate) fn begin(&mut self, head: &ResponseHead) {
        let begun = self.begun.get_or_insert_with(|| Begun {
            representation: Representation::of(head),
            offset: head.start(),
            end: head.body_len().map(|len| head.start().saturating_add(len)),
            tail: Vec::new(),
            is_partial: head.is_partial(),
            has_advanced: false,
        });
        begun.representation.learn_total(head);
        if begun.end.is_none() {
            // The first was the whole, and did not tell how long that is.
            begun.end = begun.representation.total();
        }
        begun.is_partial = head.is_partial();
        begun.has_advanced = false;
    }

    /// Takes `bytes` that came from `at` on, and returns the new ones among them, none beyond the promise. Those that had come
    /// already have to be the same, as far as they are remembered.
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
        let kept = OVERLAP.saturating_sub(new.len()).min(begun.tail.len());
        begun.tail.drain(..begun.tail.len() - kept);
        begun.tail.extend_from_slice(&new[new.len().saturating_sub(OVERLAP)..]);
        Ok(new)
    }

    /// Notes that a body ended at `at`, as its framing shows. Fails if that is not where all ends that was promised:
    /// with [`ErrorKind::Truncated`] if the rest may come yet.
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
        // A part of unknown length is no proof that the resource ends there (RFC 9110, section 15.3.7.2: it may be shorter
        // than asked), unless nothing follows the bytes that were there already.
        if begun.is_partial && (begun.has_advanced || at < offset) {
            let why = format!("a part ended at {offset}, and no response told that the resource ends there");
            return Err(Error::new(ErrorKind::Truncated, why));
        }
        if self.is_doubtful_end() && self.asked.is_some_and(|asked| asked.start > 0) {
            let why = "the response is as long as the requested range, but its status says that it is the whole resource";
            return Err(Error::new(ErrorKind::WrongRange, why));
        }
        Ok(())
    }

    /// True if a body that called itself the whole without telling its length, and ended here, is exactly as long as the range
    /// that was asked for. It may be that range: of a server that forgets status 206.
    pub(crate) fn is_doubtful_end(&self) -> bool {
        let Some(begun) = &self.begun else { return false };
        !begun.is_partial
            && begun.end.is_none()
            && self.asked.is_some_and(|asked| asked.len() == begun.offset)
    }
}

impl Begun {
    fn compare(&self, at: u64, old: &[u8]) -> Result<(), Error> {
        let tail_at = self.offset - self.tail.len() as u64;
        let from = tail_at.max(at);
        let until = at + old.len() as u64;
        if from >= until {
            return Ok(());
        }
        // Both lie within 64 bytes, or within what came at once.
        let came = &old[(from - at) as usize..];
        let there = &self.tail[(from - tail_at) as usize..(until - tail_at) as usize];
        if came == there {
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

    /// A head with these fields.
    fn head(status: u16, part: std::ops::Range<u64>, total: Option<u64>) -> ResponseHead {
        ResponseHead::for_tests(status, part, total)
    }

    fn begun(status: u16, part: std::ops::Range<u64>, total: Option<u64>) -> Continuation {
        let mut continuation = Continuation::new(Some(ByteRange::new(part.start, part.end)));
        continuation.begin(&head(status, part, total));
        continuation
    }

    #[test]
    fn every_resumption_overlaps_what_came() {
        let mut continuation = begun(206, 100..500, Some(1000));
        assert_eq!(continuation.range(), Some(ByteRange::new(100, 500)));
        continuation.take(100, &[7; 10]).unwrap();
        assert_eq!(continuation.range(), Some(ByteRange::new(100, 500)));
        continuation.take(110, &[8; 100]).unwrap();
        assert_eq!(continuation.range(), Some(ByteRange::new(210 - 64, 500)));
    }

    #[test]
    fn the_rest_can_be_asked_for_while_the_body_is_read() {
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
    fn the_first_promise_stands() {
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
        /// Whatever parts and wholes later attempts bring, and wherever they break: each promised byte comes once, in order,
        /// none beyond, and the fetch is complete exactly when all have come.
        #[test]
        fn each_promised_byte_comes_once(
            body in proptest::collection::vec(any::<u8>(), 1..1000),
            promise in (0..1000_usize, 1..1000_usize),
            tells_total in any::<bool>(),
            attempts in proptest::collection::vec((0..1100_usize, 1..200_usize, any::<bool>(), any::<bool>()), 1..20),
        ) {
            let start = promise.0 % body.len();
            let end = (start + promise.1).min(body.len());
            let total = tells_total.then_some(body.len() as u64);
            let mut continuation = begun(206, start as u64..end as u64, total);
            let mut got = Vec::new();
            for (until, chunk, is_whole, tells_total) in attempts {
                if continuation.is_complete() {
                    break;
                }
                // A whole response without length and validator is refused.
                let total = (is_whole || tells_total).then_some(body.len() as u64);
                let asked = continuation.range().unwrap();
                let from = if is_whole { 0 } else { asked.start as usize };
                let most = if is_whole { body.len() } else { asked.end.min(end as u64) as usize };
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
