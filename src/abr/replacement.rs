//! Which buffered segment to fetch again at a higher quality.
//!
//! After a slow phase the buffer holds segments of low quality. While the network is faster than the best variant, the time
//! in which it would do nothing is enough to replace them. hls.js and Media3 drop the end of their buffer for that; here the
//! old segment stays until the new one is whole, so that nothing can be lost by it.

use std::time::Duration;

use super::{Buffered, Running, Snapshot};

/// A segment that plays sooner than this is not replaced: the reader may run ahead, and the network may fail.
const SOON: Duration = Duration::from_secs(10);

/// A segment is replaced only if that is expected to take at most this share of the time until it plays.
const MARGIN: f64 = 0.5;

/// A replacement goes on while it is expected to take at most this share of the time that is left. Above [`MARGIN`], so that
/// a small delay does not waste what has arrived.
const KEEP: f64 = 0.7;

/// Nothing is replaced while the buffer is below this share of its capacity, at most this many seconds.
const LEAST: (f64, f64) = (0.3, 20.0);

/// A replacement may take this share of a segment's duration. With a full buffer nothing else is to be done; before that the
/// rest fills the buffer.
const SPARE: (f64, f64) = (0.9, 0.7);

/// Index of a segment of `buffered` to fetch again, and its new level, at most `highest`.
pub(super) fn choose(
    snapshot: &Snapshot<'_>,
    highest: usize,
    buffered: &[Buffered],
) -> Option<(usize, usize)> {
    if snapshot.is_metered || snapshot.is_starting {
        return None;
    }
    let throughput = snapshot.throughput?;
    let segment = snapshot.segment_seconds();
    let (capacity, ahead) = (snapshot.capacity.as_secs_f64(), snapshot.buffered.as_secs_f64());
    if ahead < (capacity * LEAST.0).min(LEAST.1) {
        return None;
    }
    let fetch = |level: usize| snapshot.fetch_seconds(level, throughput);
    let is_full = ahead > capacity - segment;
    let spare = segment * if is_full { SPARE.0 } else { SPARE.1 };
    let target = (0..=highest).rev().find(|level| fetch(*level) <= spare)?;
    // The last one: what follows it is as good, so that the quality changes where it did before, only earlier. The first ones would
    // be passed by the reader meanwhile, and every other one would be replaced.
    let index = buffered.iter().rposition(|segment| {
        let is_in_time = fetch(target) <= segment.starts_in.as_secs_f64() * MARGIN;
        segment.level < target && segment.starts_in >= SOON && is_in_time
    })?;
    Some((index, target))
}

/// How many switches more there are if this segment has this level. What follows the last one has the level `current`.
pub(super) fn added_switches(
    buffered: &[Buffered],
    index: usize,
    target: usize,
    current: Option<usize>,
) -> u32 {
    let level_at = |index: usize| buffered.get(index).map(|segment| segment.level);
    let levels =
        [index.checked_sub(1).and_then(level_at), level_at(index + 1).or(current)].into_iter().flatten();
    let changes = |own: usize| levels.clone().filter(|level| *level != own).count() as u32;
    changes(target).saturating_sub(changes(buffered[index].level))
}

/// Whether a replacement is still expected to arrive long enough before it plays.
pub(super) fn keeps(running: &Running, starts_in: Duration) -> bool {
    let left = running.left as f64 * 8.0 / running.throughput.max(1.0);
    starts_in >= SOON / 2 && left <= starts_in.as_secs_f64() * KEEP
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BITRATES: [u64; 4] = [48_000, 96_000, 192_000, 320_000];

    fn snapshot(buffered: u64, throughput: f64) -> Snapshot<'static> {
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        snapshot.buffered = Duration::from_secs(buffered);
        (snapshot.throughput, snapshot.is_starting) = (Some(throughput), false);
        snapshot
    }

    /// Segments of 6 s that end with the buffer.
    fn segments(levels: &[usize], buffered: u64) -> Vec<Buffered> {
        let from = buffered.saturating_sub(6 * levels.len() as u64);
        let at = |(index, level): (usize, &usize)| {
            Buffered::new(index as u64, *level, Duration::from_secs(from + 6 * index as u64))
        };
        levels.iter().enumerate().map(at).collect()
    }

    #[test]
    fn spare_throughput_replaces_the_last_low_segment() {
        let buffered = segments(&[3, 0, 1, 3], 28);
        assert_eq!(choose(&snapshot(28, 4e6), 3, &buffered), Some((2, 3)));
        assert_eq!(choose(&snapshot(28, 4e6), 1, &buffered), Some((1, 1)));
        assert_eq!(choose(&snapshot(28, 330_000.0), 3, &buffered), Some((2, 2)));
        assert_eq!(choose(&snapshot(28, 4e6), 3, &segments(&[3, 0, 3, 3], 27)), None, "it plays within 10 s");
        assert_eq!(choose(&snapshot(28, 60_000.0), 3, &buffered), None);
    }

    #[test]
    fn a_metered_network_replaces_nothing() {
        let metered = Snapshot { is_metered: true, ..snapshot(60, 4e6) };
        assert_eq!(choose(&metered, 3, &segments(&[0; 8], 60)), None);
    }

    #[test]
    fn a_last_segment_that_gets_the_level_of_the_next_one_adds_no_switch() {
        let added = |levels: &[usize], target, current| {
            added_switches(&segments(levels, 60), levels.len() - 1, target, current)
        };
        assert_eq!(
            (added(&[1, 1], 3, Some(3)), added(&[1, 1], 3, Some(1)), added(&[1, 1], 3, None)),
            (0, 2, 1)
        );
    }

    proptest! {
        #[test]
        fn what_plays_soon_is_never_replaced_and_nothing_gets_worse(
            levels in proptest::collection::vec(0_usize..4, 0..20),
            buffered in 0_u64..130,
            throughput in 1e3..1e7_f64,
            highest in 0_usize..4,
        ) {
            let segments = segments(&levels, buffered);
            let snapshot = snapshot(buffered, throughput);
            if let Some((index, level)) = choose(&snapshot, highest, &segments) {
                prop_assert!(segments[index].level < level && level <= highest);
                prop_assert!(segments[index].starts_in >= SOON);
                // What is buffered outlasts it, if the network is as fast as expected.
                let bits = BITRATES[level] as f64 * 6.0;
                prop_assert!(bits / throughput <= buffered as f64 * MARGIN);
            }
        }
    }
}
