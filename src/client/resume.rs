//! Where a body that broke off goes on, and how to know that what comes is the same thing. Does no I/O.

use super::range::ByteRange;
use super::request::{Head, Validator};
use crate::error::{Error, ErrorKind};

/// Bytes asked for once more where no validator vouches for the joint.
const OVERLAP: usize = 64;

/// How far a body has come, and of what.
#[derive(Clone, Debug)]
pub(crate) struct Resume {
    /// The next byte that is new.
    offset: u64,
    total: Option<u64>,
    /// By which it is known again.
    validator: Option<Validator>,
    /// Good for `If-Range`.
    strong: Option<Validator>,
    /// It is a page. What is none does not go on with one: that is a login's or an error's.
    is_page: bool,
    /// The last bytes before `offset`, `OVERLAP` at most.
    tail: Vec<u8>,
}

fn is_page(head: &Head) -> bool {
    let html = "text/html";
    head.content_type()
        .and_then(|value| value.get(..html.len()))
        .is_some_and(|it| it.eq_ignore_ascii_case(html))
}

impl Resume {
    /// The body that begins with this head.
    pub(crate) fn begin(head: &Head) -> Self {
        Self {
            offset: head.start(),
            total: head.total(),
            validator: head.validator(),
            strong: head.strong_validator(),
            is_page: is_page(head),
            tail: Vec::new(),
        }
    }

    /// The next byte that is new.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// What vouches for the joint, if anything does.
    pub(crate) fn if_range(&self) -> Option<&Validator> {
        self.strong.as_ref()
    }

    /// What to ask for, up to `end`. Where nothing vouches for the joint, or the end is not known and may have been
    /// reached, it begins with bytes that are there already.
    pub(crate) fn range(&self, end: u64) -> ByteRange {
        let is_safe = self.strong.is_some() && self.total.is_some();
        let overlap = if is_safe { 0 } else { self.tail.len() as u64 };
        ByteRange::new(self.offset - overlap, end)
    }

    /// Never joins two representations: what came and what comes have to be parts of one.
    pub(crate) fn check(&self, head: &Head) -> Result<(), Error> {
        let changed = |what: &str| {
            let why = format!("the resource changed in mid-transfer: another {what}");
            Err(Error::new(ErrorKind::Changed, why).with_url(head.url()))
        };
        if is_page(head) && !self.is_page {
            let why = "a page came instead of the rest";
            return Err(Error::new(ErrorKind::NotMedia, why).with_url(head.url()));
        }
        if let (Some(old), Some(new)) = (self.total, head.total()) {
            if old != new {
                return changed("length");
            }
        }
        if self.validator.as_ref().is_some_and(|old| head.contradicts(old)) {
            return changed("entity tag or date");
        }
        let is_vouched_for = head.total().is_some() || head.validator().is_some();
        if !head.is_partial() && !is_vouched_for && (self.total.is_some() || self.validator.is_some()) {
            return changed("answer, with nothing that tells it is the same");
        }
        if head.start() > self.offset {
            let why = "the answer begins behind what was asked for";
            return Err(Error::new(ErrorKind::WrongRange, why).with_url(head.url()));
        }
        Ok(())
    }

    /// Notes that a body ended at `at`, which is where all ends that was to come.
    pub(crate) fn check_end(&self, at: u64) -> Result<(), Error> {
        if at >= self.offset {
            return Ok(());
        }
        let why =
            format!("the resource changed in mid-transfer: it ends at {at}, and {} had come", self.offset);
        Err(Error::new(ErrorKind::Changed, why))
    }

    /// Takes `bytes` that came from `at` on, and returns the new ones among them. Those that are there already have to be
    /// the same, as far as they are remembered.
    pub(crate) fn take<'a>(&mut self, at: u64, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let known = usize::try_from(self.offset.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        let (old, new) = bytes.split_at(known);
        self.compare(at, old)?;
        self.offset += new.len() as u64;
        let kept = OVERLAP.saturating_sub(new.len()).min(self.tail.len());
        self.tail.drain(..self.tail.len() - kept);
        self.tail.extend_from_slice(&new[new.len().saturating_sub(OVERLAP)..]);
        Ok(new)
    }

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
        let why = format!("the resource changed in mid-transfer: other bytes before {}", self.offset);
        Err(Error::new(ErrorKind::Changed, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fresh(start: u64) -> Resume {
        Resume { offset: start, total: None, validator: None, strong: None, is_page: false, tail: Vec::new() }
    }

    #[test]
    fn with_nothing_to_vouch_for_it_a_joint_overlaps() {
        let mut resume = fresh(100);
        assert_eq!(resume.range(500), ByteRange::new(100, 500));
        resume.take(100, &[7; 10]).unwrap();
        assert_eq!(resume.range(500), ByteRange::new(100, 500));
        resume.take(110, &[8; 100]).unwrap();
        assert_eq!(resume.range(500), ByteRange::new(210 - 64, 500));
        resume.strong = Some(Validator::ETag("\"a\"".into()));
        assert_eq!(resume.range(500), ByteRange::new(210 - 64, 500));
        resume.total = Some(1000);
        assert_eq!(resume.range(500), ByteRange::new(210, 500));
    }

    #[test]
    fn other_bytes_at_the_joint_are_a_change() {
        let mut resume = fresh(0);
        resume.take(0, b"the first part").unwrap();
        assert_eq!(resume.take(4, b"first part, and more").unwrap(), b", and more");
        let error = resume.take(4, b"other part, and more").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
    }

    proptest! {
        /// However a body breaks and is sent again, each byte is new once, in order; and a changed byte within the overlap
        /// is found.
        #[test]
        fn each_byte_is_new_once(
            body in proptest::collection::vec(any::<u8>(), 1..1000),
            breaks in proptest::collection::vec((0..1000_usize, 1..200_usize, any::<bool>()), 1..20),
        ) {
            let mut resume = fresh(0);
            let mut got = Vec::new();
            for (until, chunk, whole) in breaks {
                let until = until.min(body.len());
                let mut at = if whole { 0 } else { resume.range(u64::MAX).start as usize };
                while at < until {
                    let end = (at + chunk).min(until);
                    got.extend_from_slice(resume.take(at as u64, &body[at..end]).unwrap());
                    at = end;
                }
                prop_assert_eq!(&got[..], &body[..got.len()]);
                prop_assert_eq!(resume.offset() as usize, got.len());
            }
            if let Some(last) = got.last() {
                let at = got.len() as u64 - 1;
                prop_assert!(resume.take(at, &[!last]).is_err());
                prop_assert!(resume.take(at, &[*last]).unwrap().is_empty());
            }
        }
    }
}
