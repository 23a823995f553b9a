//! Where pieces end, so that all clients of a CDN request the same ranges. Pure.
//!
//! A cache in front of an origin stores slices of a file (nginx), the very ranges that were requested, or whole files. The
//! fewer different ranges clients request, the more often one of them finds what another one has fetched. Where a piece begins
//! is decided by its reader or by the piece before it, but where it ends is free. So pieces of more than 64 KiB end at multiples
//! of about their length, a power of two. Those that do not grow any more begin at multiples of their length, too:
//!
//! ```text
//!      jump                                                                      KiB
//!   ─────├─64─┤─64─┤────────┤────────────────┤────────────────────────────────┤──
//!       100  164  228      384              768                             1536
//! ```

use super::network::PIECE;

/// The unit of what caches store: the usual sizes of nginx' `slice` are powers of two up to 1 MiB.
pub(super) const BLOCK: u64 = 256 * 1024;

/// Where a piece of about `size` bytes ends that begins at `start`.
pub(super) fn piece_end(start: u64, size: u64) -> u64 {
    if size <= PIECE.start {
        // A reader that has jumped here has requested a range that no other client requests. Shorter, the piece could miss the
        // reader's last bytes by little; longer, the rest could be too long to keep its connection when the reader jumps again.
        return start.saturating_add(size);
    }
    if size > PIECE.end {
        // Each end of a long piece is a gap for its reader, so it may not become much shorter.
        let end = start.saturating_add(size);
        // Behind `start`, but for a server that claims that its file ends at the largest number there is.
        return Some(floor(end, BLOCK)).filter(|end| *end > start).unwrap_or(end);
    }
    let unit = nearest_power_of_two(size);
    let Some(boundary) = start.checked_next_multiple_of(unit) else { return u64::MAX };
    // Up to the boundary, unless the piece would become much shorter.
    if boundary - start >= unit / 4 * 3 { boundary } else { boundary.saturating_add(unit) }
}

/// Where read-ahead ends that goes up to `bytes` ahead of its reader, to `end`. Never behind it: what is outside of a window of
/// memory would be dropped, and requested again.
pub(super) fn target_end(end: u64, bytes: u64) -> u64 {
    // Of a smaller target the missing part would be more than a sixteenth.
    if bytes >= 16 * BLOCK { floor(end, BLOCK) } else { end }
}

fn floor(at: u64, unit: u64) -> u64 {
    at - at % unit
}

fn nearest_power_of_two(size: u64) -> u64 {
    let floor = 1 << size.ilog2();
    // The square root of two is nearly 7/5.
    if size / 7 >= floor / 5 { 2 * floor } else { floor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1024;

    proptest! {
        #[test]
        fn a_piece_is_about_as_long_as_it_should_be(start in 0..1_u64 << 40, size in 1_u64..64 << 20) {
            let len = piece_end(start, size) - start;
            prop_assert!(size / 2 <= len && len <= size / 2 * 5, "{len} of {size}");
        }

        #[test]
        fn from_the_third_piece_of_a_size_on_pieces_begin_at_multiples_of_their_length(start in 0..1_u64 << 40, size in 64 * KIB + 1..=PIECE.end) {
            let at = piece_end(piece_end(start, size), size);
            let len = piece_end(at, size) - at;
            prop_assert!(len.is_power_of_two() && at % len == 0, "{len} at {at}");
        }
    }

    #[test]
    fn pieces_that_grow_behind_a_jump_are_soon_those_of_all_clients() {
        let ends = |from: u64| {
            let (mut at, mut ends) = (from * KIB, Vec::new());
            while at < 2048 * KIB {
                at = piece_end(at, (at - from * KIB).max(64 * KIB));
                ends.push(at / KIB);
            }
            ends
        };
        assert_eq!(ends(100), [164, 228, 384, 768, 1536, 4096]);
        assert_eq!(ends(110), [174, 238, 384, 768, 1536, 3072]);
        assert_eq!(ends(256), [320, 384, 512, 768, 1536, 3072]);
    }

    #[test]
    fn long_pieces_and_read_ahead_end_at_blocks() {
        let long = 20 << 20;
        assert_eq!(piece_end(BLOCK, long), BLOCK + long);
        assert_eq!(piece_end(BLOCK + 1, long + 1), BLOCK + long);
        assert_eq!(target_end(long + 1, 16 * BLOCK), long);
        assert_eq!(target_end(long + 1, 15 * BLOCK), long + 1);
    }

    #[test]
    fn a_piece_may_end_at_the_largest_number() {
        for start in [u64::MAX - 1, u64::MAX - BLOCK, u64::MAX - 2 * PIECE.end] {
            for size in [1, PIECE.start + 1, PIECE.end, 2 * PIECE.end] {
                assert!(piece_end(start, size) > start, "{start} {size}");
            }
        }
    }
}
