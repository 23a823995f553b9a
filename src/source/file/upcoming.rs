//! What a decoder reads next of a file, as far as its first bytes show it ([`media::upcoming`](crate::media::upcoming)).
//! Storage keeps it until it was read. Pure.

use std::ops::Range;

#[derive(Debug, Default)]
pub(crate) struct Upcoming {
    ranges: Vec<Range<u64>>,
    /// What was removed because it was read.
    read: Vec<Range<u64>>,
}

impl Upcoming {
    /// Replaces the ranges by those that more first bytes have shown.
    pub(crate) fn set(&mut self, mut ranges: Vec<Range<u64>>) {
        // They show most ranges again. Those that were read may be evicted by now, and would be fetched a second time.
        ranges.retain(|range| !self.read.contains(range));
        self.ranges = ranges;
    }

    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Forgets the ranges, after a failure: only what a reader waits for is fetched again.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Records what a reader has read in sequence up to now. A range of which it has read the last half is removed.
    pub(crate) fn handle_run(&mut self, run: &Range<u64>) {
        // A decoder looks for a tag at a file's end before it reads the index there, so it comes back to a range of which it has
        // read little.
        let is_read = |range: &Range<u64>| {
            let half = range.start + (range.end - range.start) / 2;
            run.end >= range.end && half >= run.start
        };
        // This is called for each read, and must not allocate for most.
        if !self.ranges.iter().any(is_read) {
            return;
        }
        let (read, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ranges).into_iter().partition(|range| is_read(range));
        self.ranges = left;
        self.read.extend(read);
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests {
    use super::*;

    const INDEX: Range<u64> = 5_000_000..6_000_000;

    fn upcoming() -> Upcoming {
        let mut upcoming = Upcoming::default();
        upcoming.set(vec![INDEX]);
        upcoming
    }

    #[test]
    fn a_range_stays_until_it_was_read() {
        let mut upcoming = upcoming();
        // A tag at the end, the headers, and the index itself.
        for (run, left) in
            [(5_999_872..6_000_000, &[INDEX][..]), (0..300_000, &[INDEX]), (5_000_000..6_000_000, &[])]
        {
            upcoming.handle_run(&run);
            assert_eq!(upcoming.ranges(), left, "{run:?}");
        }
    }

    #[test]
    fn a_range_that_was_read_does_not_come_back() {
        let mut upcoming = upcoming();
        upcoming.handle_run(&INDEX);
        upcoming.set(vec![INDEX, 0..100]);
        assert_eq!(upcoming.ranges(), [0..100]);
    }
}
