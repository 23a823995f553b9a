//! Stream credit: which request may open one of the streams that the server still allows. Pure.
//!
//! To open a stream is local and sends nothing (RFC 9000, section 2), so streams that are open ahead save no time. What counts
//! is how many the server allows (`MAX_STREAMS`, section 4.6): when they are used up, a request waits until an earlier one has
//! ended and the server has said so, a round trip later. The last ones are therefore kept for urgent requests.
//!
//! quinn-proto does not show what is left. So the allowed streams are opened ahead, up to a limit, and used in the order of their
//! numbers: the server does not see those that were not used.

use std::collections::VecDeque;

/// Streams that only urgent requests may use. Two: what a seek needs, the piece at its position and the one behind it.
pub(super) const RESERVE: usize = 2;

/// Most streams that are counted. Servers allow 100 or 128 by default, and some allow more than can be held.
const MOST: usize = 128;

/// The streams that no request has yet. `S` is a stream.
#[derive(Debug)]
pub(super) struct Credit<S> {
    unused: VecDeque<S>,
}

impl<S> Credit<S> {
    pub(super) fn new() -> Self {
        Self { unused: VecDeque::new() }
    }

    /// Opens the streams that the server allows. `open` returns `None` when there are no more.
    pub(super) fn refill(&mut self, mut open: impl FnMut() -> Option<S>) {
        while self.unused.len() < MOST {
            let Some(stream) = open() else { return };
            self.unused.push_back(stream);
        }
    }

    /// Forgets all streams: the server has seen none of them.
    pub(super) fn clear(&mut self) {
        self.unused.clear();
    }

    /// Streams that are allowed, as far as they are counted.
    pub(super) fn left(&self) -> usize {
        self.unused.len()
    }

    /// A stream for a request. `in_use`: streams that other requests have; `is_awaited`: an urgent request waits for a stream.
    ///
    /// A prefetch gets none of the last [`RESERVE`]. If it is alone it gets one all the same.
    pub(super) fn take(&mut self, is_urgent: bool, in_use: usize, is_awaited: bool) -> Option<S> {
        // `in_use == 0`: a server may allow no more streams than the reserve, and prefetches would never run.
        let may_take = is_urgent || (!is_awaited && (in_use == 0 || self.unused.len() > RESERVE));
        if may_take { self.unused.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(allowed: u32) -> Credit<u32> {
        let (mut credit, mut numbers) = (Credit::new(), 0..allowed);
        credit.refill(|| numbers.next());
        credit
    }

    #[test]
    fn the_last_streams_are_for_urgent_requests() {
        let mut credit = credit(4);
        assert_eq!(credit.take(false, 0, false), Some(0));
        assert_eq!(credit.take(false, 1, false), Some(1));
        assert_eq!(credit.take(false, 2, false), None);
        assert_eq!(credit.take(true, 2, false), Some(2));
        assert_eq!(credit.take(true, 3, false), Some(3));
        assert_eq!(credit.take(true, 4, false), None);
    }

    #[test]
    fn a_prefetch_runs_alone_where_the_server_allows_less_than_the_reserve() {
        for allowed in 1..=2 {
            let mut credit = credit(allowed);
            assert_eq!(credit.take(false, 0, false), Some(0));
            assert_eq!(credit.take(false, 1, false), None);
        }
    }

    #[test]
    fn a_prefetch_never_overtakes_an_urgent_request() {
        assert_eq!(credit(1).take(false, 0, true), None);
        assert_eq!(credit(100).take(false, 0, true), None);
        assert_eq!(credit(1).take(true, 0, true), Some(0));
    }

    #[test]
    fn a_limit_without_end_is_counted_to_a_bound() {
        let mut credit = credit(u32::MAX);
        assert_eq!(credit.left(), MOST);
        credit.clear();
        assert_eq!(credit.left(), 0);
    }
}
