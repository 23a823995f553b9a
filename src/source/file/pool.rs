//! Distinguishes a pool of servers that send different entity tags for one file from a file that changed. Does no I/O
//! and reads no clock.
//!
//! Backends behind one name often make tags from their own inode or date. A response with a different tag, but the same
//! length and date, is not accepted: its tag becomes a suspect. Small *probes*, each on its own connection, look for
//! one of two proofs that clear it:
//!
//! - An *earlier* tag comes back. A file that changed does not change back (A, B, A).
//! - Its servers send the same 4 KiB at the file's beginning, and at the stored bytes next to where they were to be joined.
//!
//! Only then are bodies with that tag accepted. Only probes count as evidence: the response head of a piece that was
//! requested before the suspect arrived may have been sent before a change, and arrive after it.

use crate::storage::RangeSet;
use std::ops::Range;

/// Bytes that are compared at each of the two places.
pub(crate) const PROOF: u64 = 4 * 1024;

/// Most probes for one tag. With 24, a server that gets every fourth request is met at least twice in 99 of 100 cases.
const MOST_PROBES: u32 = 24;

/// After this many probes without an earlier tag, no server has the old version any more: the file has changed.
const MOST_WITHOUT_RETURN: u32 = 8;

/// Tags that probes did not clear, and every other one is a change. There are servers that make a new tag for each
/// response: without a limit each would be probed, for as long as a reader waits.
const MOST_REJECTED: usize = 3;

/// Most responses in a row that are refused for their tag while nothing is stored to compare a probe with.
const MOST_REFUSED: u32 = 8;

/// What another tag means, on a response with the same length and date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TagStatus {
    /// Its tag was cleared.
    Same,
    /// Not to be taken, and requested again when the probes have shown whether they may be.
    Unproved,
    /// The file has changed.
    Changed,
}

/// What a probe compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The file's first bytes.
    Head,
    /// Stored bytes where the suspect's were to be joined.
    Join,
}

/// Result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// A server with an earlier tag answered.
    EarlierTag,
    /// The suspect's bytes, and whether they were the stored ones.
    Suspects(Proof, bool),
    /// Nothing that decides.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct ServerPool {
    /// Any other tag is a change.
    is_off: bool,
    /// Tags that were cleared.
    cleared: Vec<String>,
    /// Tags of a changed file.
    rejected: Vec<String>,
    /// An earlier tag has come back: there are several servers.
    is_proven: bool,
    /// Responses refused one after another while there was nothing to probe with.
    refused: u32,
    suspect: Option<Suspect>,
}

#[derive(Debug)]
struct Suspect {
    tag: String,
    /// Where its bytes were to be stored.
    start: u64,
    head_agrees: bool,
    join_agrees: bool,
    probes: u32,
    is_probing: bool,
}

impl ServerPool {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_off: !is_on,
            cleared: Vec::new(),
            rejected: Vec::new(),
            is_proven: false,
            refused: 0,
            suspect: None,
        }
    }

    /// What a response with another tag is, whose bytes were to be stored from `start` on. Probes need ranges, and the file's first
    /// bytes.
    pub(crate) fn check_tag(&mut self, tag: &str, start: u64, can_probe: bool) -> TagStatus {
        if self.cleared.iter().any(|cleared| cleared == tag) {
            return TagStatus::Same;
        }
        let is_rejected = self.rejected.iter().any(|rejected| rejected == tag);
        if self.is_off || is_rejected || self.rejected.len() >= MOST_REJECTED {
            return TagStatus::Changed;
        }
        if !can_probe {
            // Requested again, in the hope that the next response is from the server with the first tag.
            self.refused += 1;
            return if self.refused > MOST_REFUSED { TagStatus::Changed } else { TagStatus::Unproved };
        }
        // One suspect at a time. Another tag stays unproved until this one is decided.
        self.suspect.get_or_insert_with(|| Suspect {
            tag: tag.to_owned(),
            start,
            head_agrees: false,
            join_agrees: false,
            probes: 0,
            is_probing: false,
        });
        TagStatus::Unproved
    }

    /// Records that a response had the first tag.
    pub(crate) fn handle_first_tag(&mut self) {
        self.refused = 0;
    }

    pub(crate) fn has_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    pub(crate) fn is_probing(&self) -> bool {
        self.suspect.as_ref().is_some_and(|suspect| suspect.is_probing)
    }

    pub(crate) fn is_suspect(&self, tag: &str) -> bool {
        self.suspect.as_ref().is_some_and(|suspect| suspect.tag == tag)
    }

    pub(crate) fn is_cleared(&self, tag: &str) -> bool {
        self.cleared.iter().any(|cleared| cleared == tag)
    }

    /// The next probe, and the bytes that it requests, of which all are stored; `first` bytes are known of the file's
    /// beginning.
    pub(crate) fn poll_probe(&mut self, available: &RangeSet, first: u64) -> Option<(Proof, Range<u64>)> {
        let suspect = self.suspect.as_mut().filter(|suspect| !suspect.is_probing)?;
        let join = join(available, suspect.start).filter(|_| suspect.head_agrees && !suspect.join_agrees);
        // One probe at a time: each decides what the next one compares.
        suspect.is_probing = true;
        suspect.probes += 1;
        Some(match join {
            Some(join) => (Proof::Join, join),
            None => (Proof::Head, 0..PROOF.min(first)),
        })
    }

    /// Records how a probe ended. True if that cleared the suspect and is to be logged: the first time.
    pub(crate) fn handle_probed(&mut self, probed: Probed) -> bool {
        let Some(suspect) = &mut self.suspect else { return false };
        suspect.is_probing = false;
        let disagrees = matches!(probed, Probed::Suspects(_, false));
        match probed {
            Probed::EarlierTag => self.is_proven = true,
            Probed::Suspects(Proof::Head, agrees) => suspect.head_agrees |= agrees,
            Probed::Suspects(Proof::Join, agrees) => suspect.join_agrees |= agrees,
            Probed::Nothing => {}
        }
        let is_clear = self.is_proven && suspect.head_agrees && suspect.join_agrees;
        let most = if self.is_proven { MOST_PROBES } else { MOST_WITHOUT_RETURN };
        // Different bytes decide at once, whatever the tags are.
        let is_over = disagrees || suspect.probes >= most;
        if !is_clear && !is_over {
            return false;
        }
        let tags = if is_clear && !disagrees { &mut self.cleared } else { &mut self.rejected };
        tags.extend(self.suspect.take().map(|suspect| suspect.tag));
        is_clear && self.cleared.len() == 1
    }
}

/// The stored bytes next to `start`: those before it, or else those behind it.
fn join(available: &RangeSet, start: u64) -> Option<Range<u64>> {
    let is_enough = |run: &Range<u64>| run.end.saturating_sub(run.start) >= PROOF;
    let before = available.iter().map(|run| run.start..run.end.min(start)).filter(is_enough).last();
    before.map(|run| run.end - PROOF..run.end).or_else(|| {
        let behind = available.iter().map(|run| run.start.max(start)..run.end).find(is_enough);
        behind.map(|run| run.start..run.start + PROOF)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> RangeSet {
        let mut stored = RangeSet::default();
        stored.insert(0..100_000);
        stored
    }

    /// A pool that has met the tag B, and what its probes come to.
    fn after(probes: &[Probed]) -> (ServerPool, TagStatus) {
        let mut pool = ServerPool::new(true);
        assert_eq!(pool.check_tag("B", 100_000, true), TagStatus::Unproved);
        for probed in probes {
            assert!(pool.poll_probe(&stored(), 16_000).is_some());
            assert_eq!(pool.poll_probe(&stored(), 16_000), None);
            pool.handle_probed(*probed);
        }
        let status = pool.check_tag("B", 100_000, true);
        (pool, status)
    }

    const HEAD: Probed = Probed::Suspects(Proof::Head, true);
    const JOIN: Probed = Probed::Suspects(Proof::Join, true);

    #[test]
    fn a_tag_is_cleared_by_all_three_proofs_and_by_no_two() {
        for probes in [[Probed::EarlierTag, HEAD, JOIN], [HEAD, JOIN, Probed::EarlierTag]] {
            assert_eq!(after(&probes).1, TagStatus::Same);
        }
        for probes in [[Probed::EarlierTag, HEAD], [HEAD, JOIN], [Probed::EarlierTag, JOIN]] {
            assert_eq!(after(&probes).1, TagStatus::Unproved);
        }
    }

    #[test]
    fn other_bytes_are_a_change_whatever_else_was_seen() {
        for probes in [
            vec![Probed::Suspects(Proof::Head, false)],
            vec![Probed::EarlierTag, HEAD, Probed::Suspects(Proof::Join, false)],
        ] {
            assert_eq!(after(&probes).1, TagStatus::Changed);
        }
    }

    #[test]
    fn a_tag_that_stays_is_a_change() {
        let probes: Vec<Probed> = (0..MOST_WITHOUT_RETURN).map(|_| HEAD).collect();
        assert_eq!(after(&probes).1, TagStatus::Changed);
    }

    #[test]
    fn the_proofs_are_asked_for_one_after_the_other() {
        let mut pool = ServerPool::new(true);
        pool.check_tag("B", 50_000, true);
        assert_eq!(pool.poll_probe(&stored(), 16_000), Some((Proof::Head, 0..4096)));
        pool.handle_probed(HEAD);
        assert_eq!(pool.poll_probe(&stored(), 16_000), Some((Proof::Join, 45_904..50_000)));
        pool.handle_probed(JOIN);
        assert_eq!(pool.poll_probe(&stored(), 16_000), Some((Proof::Head, 0..4096)));
        assert!(pool.handle_probed(Probed::EarlierTag));
        assert_eq!(pool.poll_probe(&stored(), 16_000), None);
    }

    #[test]
    fn a_third_server_needs_its_own_proofs_but_no_second_return() {
        let (mut pool, _) = after(&[Probed::EarlierTag, HEAD, JOIN]);
        assert_eq!(pool.check_tag("C", 0, true), TagStatus::Unproved);
        pool.poll_probe(&stored(), 16_000);
        pool.handle_probed(HEAD);
        assert_eq!(pool.check_tag("C", 0, true), TagStatus::Unproved);
        pool.poll_probe(&stored(), 16_000);
        assert!(!pool.handle_probed(JOIN), "logged once");
        assert_eq!(pool.check_tag("C", 0, true), TagStatus::Same);
    }

    #[test]
    fn switched_off_any_other_tag_is_a_change() {
        assert_eq!(ServerPool::new(false).check_tag("B", 0, true), TagStatus::Changed);
    }

    #[test]
    fn what_can_not_be_probed_is_refused_so_often() {
        let mut pool = ServerPool::new(true);
        for _ in 0..MOST_REFUSED {
            assert_eq!(pool.check_tag("B", 0, false), TagStatus::Unproved);
        }
        assert_eq!(pool.check_tag("B", 0, false), TagStatus::Changed);
    }
}
