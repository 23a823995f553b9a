//! A set of byte ranges: which bytes are stored.

use std::ops::Range;

/// Bytes by offset, as ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeSet(rangemap::RangeSet<u64>);

impl RangeSet {
    /// Adds bytes. Those that are there already stay.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        // `rangemap` panics for an empty range.
        if !range.is_empty() {
            self.0.insert(range);
        }
    }

    /// Takes bytes away.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.0.remove(range);
        }
    }

    /// True if the byte at `offset` is there.
    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.0.contains(&offset)
    }

    /// The end of the bytes that are there without a gap from `offset` on; `offset` if there is none.
    pub(crate) fn run_from(&self, offset: u64) -> u64 {
        self.0.get(&offset).map_or(offset, |range| range.end)
    }

    /// The first bytes in `within` that are missing.
    pub(crate) fn next_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        if within.is_empty() {
            return None;
        }
        self.0.gaps(&within).next()
    }

    /// All ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 64;

    proptest! {
        #[test]
        fn it_agrees_with_a_flag_for_each_byte(
            changes in proptest::collection::vec((any::<bool>(), 0..SIZE, 0..SIZE), 0..40),
            from in 0..SIZE,
            to in 0..SIZE,
        ) {
            let mut ranges = RangeSet::default();
            let mut flags = [false; SIZE as usize];
            for (adds, start, end) in changes {
                let range = start.min(end)..start.max(end);
                flags[range.start as usize..range.end as usize].fill(adds);
                if adds { ranges.insert(range) } else { ranges.remove(range) }
            }
            for (offset, flag) in flags.iter().enumerate() {
                prop_assert_eq!(ranges.contains(offset as u64), *flag);
                let run = flags[offset..].iter().take_while(|flag| **flag).count();
                prop_assert_eq!(ranges.run_from(offset as u64), (offset + run) as u64);
            }
            let within = from.min(to)..from.max(to);
            let window = &flags[within.start as usize..within.end as usize];
            let expected = window.iter().position(|flag| !flag).map(|first| {
                let len = window[first..].iter().take_while(|flag| !**flag).count();
                within.start + first as u64..within.start + (first + len) as u64
            });
            prop_assert_eq!(ranges.next_gap(within), expected);
        }
    }
}
