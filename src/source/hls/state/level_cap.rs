//! The levels that may be chosen after a segment was abandoned.
//!
//! The rule that chooses a level sees the throughput of the network. Where one level alone is slow (its server, or its files,
//! are not in the CDN's cache), the segments of the others arrive fast, so the rule would choose the slow level again at once.

use std::time::Duration;

/// The cap covers at most this many segments, as a power of two: 32 segments of 6 s are three minutes.
const MOST_DOUBLINGS: u32 = 5;

/// Bounds the levels of the segments from one that was abandoned on.
#[derive(Debug, Default)]
pub(super) struct LevelCap {
    /// Segments that start before this time have this level at most. A segment that was abandoned may be planned again after one
    /// that starts later was abandoned for a higher level: so the lower cap stays. No cap says less than another one, so there are
    /// at most as many as levels.
    caps: Vec<(Duration, usize)>,
    /// The level of the newest cap.
    level: usize,
    /// Segments abandoned since one of a level above the cap has arrived.
    abandoned: u32,
}

impl LevelCap {
    /// A segment that starts at `start` was abandoned for one of `level`. The cap covers that one. If it happens again, the cap
    /// covers twice as many segments each time.
    pub(super) fn handle_abandoned(&mut self, level: usize, start: Duration, duration: Duration) {
        let segments = 1 << self.abandoned.min(MOST_DOUBLINGS);
        self.abandoned = self.abandoned.saturating_add(1);
        // Two segments arrive at the same time: the later one may have been abandoned before.
        self.level = self.at(start).map_or(level, |most| most.min(level));
        // Segments of different levels start at slightly different times: without the half, rounding could add one.
        let until = start + duration * segments - duration / 2;
        self.caps.retain(|(known, most)| *known > until || *most < self.level);
        self.caps.push((until, self.level));
    }

    /// A segment of this level has arrived.
    pub(super) fn handle_arrived(&mut self, level: usize) {
        if level > self.level {
            self.abandoned = 0;
        }
    }

    /// Ends the cap, at a seek.
    pub(super) fn clear(&mut self) {
        // What was slow before may be fast now.
        *self = Self::default();
    }

    /// The highest level for a segment that starts at `start`, if it is capped.
    pub(super) fn at(&self, start: Duration) -> Option<usize> {
        self.caps.iter().filter(|(until, _)| start < *until).map(|(_, level)| *level).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_segment_abandoned_doubles_what_is_capped_until_one_arrives() {
        let second = Duration::from_secs;
        let mut cap = LevelCap::default();
        assert_eq!(cap.at(Duration::ZERO), None);
        cap.handle_abandoned(0, second(10), second(2));
        assert_eq!([8, 10, 12].map(|start| cap.at(second(start))), [Some(0), Some(0), None]);
        cap.handle_arrived(0);
        cap.handle_abandoned(0, second(12), second(2));
        assert_eq!([12, 14, 16].map(|start| cap.at(second(start))), [Some(0), Some(0), None]);
        cap.handle_arrived(1);
        cap.handle_abandoned(1, second(16), second(2));
        assert_eq!([16, 18].map(|start| cap.at(second(start))), [Some(1), None]);
        for _ in 0..100 {
            cap.handle_abandoned(0, second(20), second(2));
        }
        assert_eq!([20 + 63, 20 + 64].map(|start| cap.at(second(start))), [None, None]);
        assert_eq!(cap.at(second(20 + 62)), Some(0));
        cap.clear();
        assert_eq!(cap.at(second(20)), None);
    }
}
