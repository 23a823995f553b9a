//! Recognises a reader that bisects, and foresees where it goes next. Pure; reads no clock.
//!
//! A decoder that seeks in a file without an index reads a little in the middle of what is left, learns which half has its
//! time, and goes on with that half. Each jump waits for the answer to the one before.
//!
//! ```text
//!    low             candidate            probe             candidate             high
//!     │──────────────────▒────────────────────▓─────────────────▒────────────────────│
//!                        ╰─────── step ───────╯╰────── step ─────╯
//! ```
//!
//! Wherever it goes from the probe is one step away, and the next step is half as long. So both candidates are fetched
//! while the reader waits for the probe, and two jumps cost one round trip. What that costs is bounded: two candidates of
//! [`MAX_LOOK`] bytes for each jump, [`LAST`] bytes for the last one, and each jump halves what is left.
//!
//! A reader is recognised by its first jump if the file's first bytes say where that goes, else by three jumps of which
//! each is half as long as the one before.

use std::ops::Range;

/// Bytes that a reader reads at each probe, if the file does not show it.
pub(crate) const DEFAULT_LOOK: u64 = 32 * 1024;

/// Upper bound of what it is assumed to read at each probe, whatever the file shows.
pub(crate) const MAX_LOOK: u64 = 64 * 1024;

/// When no more bytes than this are left, all of them are fetched side by side: all further jumps lead into them.
const LAST: u64 = 256 * 1024;

/// Middles are rounded down, and so are their distances.
const ROUNDING: u64 = 2;

/// What the file's first bytes show of a bisection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Where the first probe lies. It is not one place, since the start of the audio may not be known.
    pub(crate) first: Range<u64>,
    /// Where the bisected bytes end.
    pub(crate) end: u64,
    /// Bytes that the reader reads at each probe.
    pub(crate) look: u64,
}

/// The jumps of one reader, as far as they may be those of a bisection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bisection {
    /// Where the last jump went.
    probe: u64,
    /// How far from there the next one goes, if the reader bisects.
    step: u64,
    /// Bytes that the reader reads at each probe. 0 until it is recognised.
    look: u64,
}

impl Bisection {
    /// Records that the reader has jumped to `to`.
    pub(crate) fn handle_jump(&mut self, to: u64, hint: Option<&Hint>) {
        let distance = self.probe.abs_diff(to);
        // A step as short as the rounding would foresee any short jump.
        let is_foreseen = self.step > ROUNDING && distance.abs_diff(self.step) <= ROUNDING;
        let first = hint.filter(|hint| hint.first.contains(&to));
        let (step, look) = match first {
            _ if is_foreseen => (distance / 2, hint.map_or(DEFAULT_LOOK, |hint| hint.look)),
            Some(hint) => (hint.end.saturating_sub(to) / 2, hint.look),
            None => (distance / 2, 0),
        };
        *self = Self { probe: to, step, look: look.min(MAX_LOOK) };
    }

    /// True until all that is left has been fetched for the last jump.
    fn is_running(&self) -> bool {
        self.look > 0 && self.step >= self.look / 2
    }

    /// True if all that is left is to be fetched: two steps to each side.
    fn is_last(&self) -> bool {
        self.step <= LAST / 4
    }

    /// Bytes that the reader reads at each probe.
    pub(crate) fn look(&self) -> u64 {
        self.look
    }

    /// What the reader needs at its probe before it jumps again. `None` if it does not bisect, or has read on.
    pub(crate) fn at_probe(&self, position: u64) -> Option<Range<u64>> {
        let probe = self.probe..self.probe.saturating_add(self.look);
        Some(probe).filter(|probe| self.is_running() && probe.contains(&position))
    }

    /// Where the reader jumps next, and what is left around its probe if that is little.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let Self { probe, step, .. } = *self;
        let is_last = self.is_last();
        let len = if is_last { step.max(self.look) } else { self.look };
        let from = move |start: u64| {
            let start = start.saturating_sub(ROUNDING);
            start..start.saturating_add(len + 2 * ROUNDING)
        };
        // In the last step a candidate is as long as a step, so these four are all that is left: two steps to each side of the
        // probe.
        let starts = [
            probe.saturating_sub(step),
            probe.saturating_add(step),
            probe,
            probe.saturating_sub(step.saturating_mul(2)),
        ];
        let count = match (self.is_running(), is_last) {
            (false, _) => 0,
            (true, false) => 2,
            (true, true) => starts.len(),
        };
        starts.into_iter().take(count).map(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 31_100_000;

    fn hint() -> Hint {
        Hint { first: LEN / 2..LEN / 2 + 10_000, end: LEN, look: 14_000 }
    }

    /// Bisects for `target` as symphonia does, down to 16 KiB. Returns the probes.
    fn probes(start: u64, target: u64) -> Vec<u64> {
        let (mut low, mut high, mut probes) = (start, LEN, Vec::new());
        while high - low > 16 * 1024 {
            let middle = (low + high) / 2;
            probes.push(middle);
            if target < middle { high = middle } else { low = middle }
        }
        probes
    }

    fn has(ranges: &[Range<u64>], position: u64) -> bool {
        ranges.iter().any(|range| range.contains(&position))
    }

    #[test]
    fn each_jump_leads_to_a_candidate_of_the_one_before() {
        for target in (0..100).map(|share| 8_642 + share * (LEN - 8_642) / 100) {
            let mut bisection = Bisection::default();
            let (mut foreseen, mut bytes) = (Vec::new(), 0);
            for (index, probe) in probes(8_642, target).into_iter().enumerate() {
                assert!(index == 0 || has(&foreseen, probe), "probe {index} for {target}");
                bisection.handle_jump(probe, Some(&hint()));
                let candidates: Vec<Range<u64>> = bisection.candidates().collect();
                assert!(candidates.len() <= 4);
                bytes += candidates
                    .iter()
                    .filter(|range| !has(&foreseen, range.start))
                    .map(|range| range.end - range.start)
                    .sum::<u64>();
                foreseen.extend(candidates);
            }
            assert!(bytes < 2 * 14_010 * 8 + 2 * LAST, "{bytes}");
        }
    }

    #[test]
    fn without_a_hint_a_reader_is_recognised_by_its_third_jump() {
        let mut bisection = Bisection::default();
        for (index, probe) in probes(0, 20_000_000).into_iter().take(6).enumerate() {
            bisection.handle_jump(probe, None);
            // The first jump comes from the start of the file, which is what a bisection halves first.
            assert_eq!(bisection.candidates().count() > 0, index > 0, "{index}");
        }
    }

    #[test]
    fn other_jumps_are_no_bisection() {
        let mut bisection = Bisection::default();
        for to in [20_000_000, 5_000_000, 12_000_000, 12_000_000, 0, LEN - 160, 0] {
            bisection.handle_jump(to, Some(&hint()));
            assert_eq!((bisection.candidates().count(), bisection.at_probe(to)), (0, None), "{to}");
        }
    }

    #[test]
    fn a_jump_may_go_anywhere() {
        let mut bisection = Bisection::default();
        for to in [u64::MAX, u64::MAX / 2, u64::MAX / 4 * 3, u64::MAX, 0] {
            bisection.handle_jump(to, Some(&hint()));
            assert!(bisection.candidates().all(|range| range.start <= range.end), "{to}");
        }
    }

    #[test]
    fn a_reader_that_reads_on_at_its_probe_has_arrived() {
        let mut bisection = Bisection::default();
        let probe = LEN / 2 + 100;
        bisection.handle_jump(probe, Some(&hint()));
        assert_eq!(bisection.at_probe(probe + 1000), Some(probe..probe + 14_000));
        assert_eq!(bisection.at_probe(probe + 14_000), None);
        // To play from there, and then elsewhere.
        bisection.handle_jump(1_000_000, Some(&hint()));
        assert_eq!(bisection.at_probe(1_000_000), None);
    }
}
