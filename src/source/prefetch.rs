//! Decides how far ahead of a reader to prefetch, from how it has read so far. Pure; independent of URLs, pieces and storage.
//!
//! ```text
//!   jump     run: read in sequence      ahead: stored without a gap          prefetch target
//!    │▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓░░░░░░░░░░░░░░░░┊
//!                                   position
//! ```
//!
//! A *sequential run* is the number of bytes that a reader has read without a jump. The longer it is, the larger is the
//! prefetch target.

use std::ops::Range;

use crate::config::ReadAhead;

/// Minimum prefetch target, and size of the first piece after a jump, in bytes.
pub(crate) const FIRST_TARGET: u64 = 64 * 1024;

/// A reader that has read less than this after a jump may jump again, so only its first piece is fetched. A decoder that
/// searches reads one page or frame at each position. Further bytes would have to be read and dropped, or their connection would be
/// lost.
const MIN_RUN: u64 = FIRST_TARGET / 4;

/// After a run of this many bytes a reader is expected to continue: the target is the whole read-ahead.
const FULL_TARGET_RUN: u64 = 256 * 1024;

/// Bytes of target for each byte read from the start of the file. A reader that begins there usually continues, and bytes that
/// are stored early protect against a bad minute of the network. A program that only detects the format reads few bytes, so it
/// causes few.
const GROWTH_FROM_START: u64 = 256;

/// A streaming reader has at most this many bytes stored ahead, because it takes bytes as fast as they arrive.
pub(crate) const STREAMING_AHEAD: u64 = 1024 * 1024;

/// As [`STREAMING_AHEAD`], but at the start of a file. It is lower because a player then already has the rest of the opening
/// response ahead.
const STREAMING_AHEAD_AT_START: u64 = 128 * 1024;

/// The target of [`ReadAhead::Whole`] with windowed storage. The default of `FileConfig::read_ahead`.
const WINDOWED_TARGET: u64 = 16 << 20;

/// Minimum and maximum number of bytes of a run after which the target is computed again. The shorter the run and the target,
/// the sooner.
const REPLAN_STEP: Range<u64> = 16 * 1024..256 * 1024;

/// Number of bytes that should be stored ahead of a reader that has read `run` bytes in sequence up to `position`.
pub(crate) fn target(read_ahead: ReadAhead, position: u64, run: u64) -> u64 {
    let full = full_target(read_ahead);
    if run >= FULL_TARGET_RUN || read_ahead == ReadAhead::Whole {
        return full;
    }
    // A reader that started at 0 has read as many bytes as its position says.
    let has_jumped = run < position;
    if has_jumped && run < MIN_RUN {
        // Up to the end of the first piece only.
        return full.min(FIRST_TARGET - run);
    }
    let ahead = if has_jumped { run } else { run * GROWTH_FROM_START };
    full.min(FIRST_TARGET.max(ahead))
}

/// The target of a reader that continues.
pub(crate) fn full_target(read_ahead: ReadAhead) -> u64 {
    match read_ahead {
        ReadAhead::Bytes(bytes) => bytes,
        ReadAhead::Whole => u64::MAX,
    }
}

/// The read-ahead with windowed storage.
pub(crate) fn windowed(read_ahead: ReadAhead) -> ReadAhead {
    match read_ahead {
        ReadAhead::Whole => ReadAhead::Bytes(WINDOWED_TARGET),
        bytes => bytes,
    }
}

/// True if bytes should be prefetched: up to the target, and then again when less than half of it is left. `was_filling` is the
/// last result.
pub(crate) fn refill(was_filling: bool, ahead: u64, target: u64) -> bool {
    // In bursts, so that a mobile radio can sleep in between.
    ahead < if was_filling { target } else { target / 2 }
}

/// True if a reader with `ahead` bytes stored is a streaming reader. Any other reader has at least half of the target ahead,
/// since more is fetched then.
pub(crate) fn is_streaming(read_ahead: ReadAhead, ahead: u64) -> bool {
    let full = full_target(read_ahead);
    // A quarter, so that it can't be confused with a reader that waits for a refill, which has half of the target.
    full >= STREAMING_AHEAD && ahead <= STREAMING_AHEAD.min(full / 4)
}

/// True for a streaming reader that has read everything from the start up to `position`.
pub(crate) fn streams_from_start(position: u64, run: u64, ahead: u64) -> bool {
    run >= position && run >= FIRST_TARGET && ahead <= STREAMING_AHEAD_AT_START
}

/// True if a run of `run` bytes that grows by `bytes` changes enough to compute the target again. `limit` is the maximum of the
/// target.
pub(crate) fn is_look_due(run: u64, bytes: u64, limit: u64) -> bool {
    let most = run.min(limit) / 16;
    // Rounded to a power of two: a step that grows with each byte read would never be reached.
    let step = 1_u64 << most.clamp(REPLAN_STEP.start, REPLAN_STEP.end).ilog2();
    run == 0 || run / step != (run + bytes) / step
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const AHEAD: ReadAhead = ReadAhead::Bytes(16 * MIB);

    #[test]
    fn the_target_grows_faster_from_the_start_than_after_a_jump() {
        let target = |position, run| target(AHEAD, position, run);
        assert_eq!((target(0, 0), target(4096, 4096), target(65_536, 65_536)), (FIRST_TARGET, MIB, 16 * MIB));
        assert_eq!(
            (target(MIB, 0), target(MIB, 4096), target(MIB, 131_072)),
            (FIRST_TARGET, FIRST_TARGET - 4096, 131_072)
        );
        assert_eq!(target(MIB, FULL_TARGET_RUN), 16 * MIB);
    }

    #[test]
    fn prefetching_fills_to_the_target_and_pauses_until_half_is_left() {
        assert!(refill(true, 15 * MIB, 16 * MIB) && !refill(true, 16 * MIB, 16 * MIB));
        assert!(!refill(false, 9 * MIB, 16 * MIB) && refill(false, 8 * MIB - 1, 16 * MIB));
    }

    #[test]
    fn the_target_is_computed_again_as_the_run_grows() {
        for bytes in [1, 1000, 4096, 300_000] {
            let (mut run, mut last) = (0, 0);
            while run < 20 * MIB {
                if is_look_due(run, bytes, 16 * MIB) {
                    last = run;
                }
                run += bytes;
                assert!(run - last <= REPLAN_STEP.end + bytes, "{bytes}: {last}, {run}");
            }
        }
    }

    #[test]
    fn a_player_does_not_stream() {
        assert!(is_streaming(AHEAD, MIB) && !is_streaming(AHEAD, MIB + 1));
        assert!(!is_streaming(ReadAhead::Bytes(2 * MIB), MIB) && !is_streaming(ReadAhead::Bytes(MIB / 2), 0));
        assert!(streams_from_start(MIB, MIB, 0) && !streams_from_start(MIB, MIB, MIB));
        assert!(!streams_from_start(MIB, MIB - 1, 0) && !streams_from_start(4096, 4096, 0));
    }
}
