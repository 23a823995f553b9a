//! How the bytes of a file are divided into blocks.

use std::ops::Range;

use crate::buffer::BUFFER;

/// Bytes in a block: what a worker reads at once, so that storage can keep its buffer as a block.
pub(super) const BLOCK: u64 = BUFFER as u64;

/// The part of some bytes that lies in one block.
pub(super) struct Part {
    pub(super) index: u64,
    /// Offset in the block.
    pub(super) within: u64,
    /// Where the part is among the bytes.
    pub(super) bytes: Range<usize>,
}

/// Cuts `len` bytes at `offset` at the borders of blocks.
pub(super) fn parts(offset: u64, len: usize) -> impl Iterator<Item = Part> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = at % BLOCK;
        let take = (len - done).min((BLOCK - within) as usize);
        done += take;
        Some(Part { index: at / BLOCK, within, bytes: done - take..done })
    })
}

/// The bytes that the block of this index holds.
pub(super) fn bytes_of(index: u64) -> Range<u64> {
    index * BLOCK..(index * BLOCK).saturating_add(BLOCK)
}

/// The indices of blocks that lie outside of all these windows.
pub(super) fn blocks_outside(windows: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut kept: Vec<Range<u64>> = windows
        .iter()
        .filter(|window| !window.is_empty())
        // Blocks are evicted as a whole, so one of which a window has a byte stays.
        .map(|window| window.start / BLOCK..window.end.div_ceil(BLOCK))
        .collect();
    kept.sort_by_key(|blocks| blocks.start);
    let mut gaps = Vec::with_capacity(kept.len() + 1);
    let mut from = 0;
    for blocks in kept {
        if from < blocks.start {
            gaps.push(from..blocks.start);
        }
        from = from.max(blocks.end);
    }
    gaps.push(from..u64::MAX);
    gaps
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of windows, some of one")]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_outside_of_all_windows_are_named() {
        let blocks = |range: Range<u64>| range.start * BLOCK..range.end * BLOCK;
        assert_eq!(blocks_outside(&[]), [0..u64::MAX]);
        assert_eq!(blocks_outside(&[0..1]), [1..u64::MAX]);
        let windows = [blocks(7..9), BLOCK + 1..BLOCK + 2, 3 * BLOCK - 1..4 * BLOCK + 1, blocks(3..4)];
        assert_eq!(blocks_outside(&windows), [0..1, 5..7, 9..u64::MAX]);
    }
}
