//! How much a cache may hold: what it holds, when to look again, and which entries go.
//!
//! What the directory holds is counted by a scan, and from then on by what this process writes. After a sixteenth of the limit
//! it is scanned again, since other processes write and evict, too. No write waits for the first scan until as much is written.
//! [`Usage`] and [`victims`] are pure.

use std::collections::HashSet;

use super::directory::Found;

/// One sixteenth of the limit may be written between two scans, and is freed beyond need by an eviction. By so much each process
/// may exceed the limit, since it does not see what others write in between: 64 MiB of the default 1 GiB. A smaller part would
/// cost more scans, each of which looks at all entries.
const PART: u64 = 16;

/// Seconds by which the clock of a file server, or of another machine that shares the directory, may be ahead.
const CLOCK_SKEW: u64 = 3600;

/// How much is used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Bytes on disk, as of the last scan, and what this process has written since.
    used: u64,
    /// Bytes written since the last scan, or before the first one.
    since_scan: u64,
    /// What `used` may become, as of the last scan.
    most: u64,
    /// A scan has been made.
    is_scanned: bool,
}

/// The limits of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_bytes: u64,
    pub(crate) keep_free: u64,
}

impl Limits {
    pub(crate) fn part(self) -> u64 {
        self.max_bytes / PART
    }

    /// How many bytes the entries may have, if they have `used` now and the file system has room for `free` more.
    fn most(self, used: u64, free: Option<u64>) -> u64 {
        // What the entries have counts as free: it can be evicted.
        let room = free.map_or(u64::MAX, |free| (used.saturating_add(free)).saturating_sub(self.keep_free));
        self.max_bytes.min(room)
    }
}

impl Usage {
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn is_scanned(&self) -> bool {
        self.is_scanned
    }

    /// Counts `bytes` that are about to be written. False if the directory has to be scanned first.
    pub(crate) fn admit(&mut self, bytes: u64, limits: Limits) -> bool {
        let is_due = self.since_scan + bytes > limits.part();
        self.is_scanned && !is_due && self.admit_after_scan(bytes)
    }

    /// Counts `bytes` that are about to be written before the first scan. False if it must be waited for. `free` is the room of
    /// the file system now.
    pub(crate) fn admit_early(&mut self, bytes: u64, limits: Limits, free: Option<u64>) -> bool {
        let early = self.since_scan.saturating_add(bytes);
        // A file system that does not report how much is free counts as empty: `max_bytes` limits the cache all the same.
        let has_room = free.is_none_or(|free| free >= limits.keep_free.saturating_add(early));
        let is_admitted = !self.is_scanned && early <= limits.part() && has_room;
        if is_admitted {
            self.since_scan = early;
        }
        is_admitted
    }

    /// Bytes written since the last scan, or before the first one.
    pub(crate) fn since_scan(&self) -> u64 {
        self.since_scan
    }

    /// Counts `bytes` after a scan. False if there is no room for them.
    pub(crate) fn admit_after_scan(&mut self, bytes: u64) -> bool {
        if self.used.saturating_add(bytes) > self.most {
            return false;
        }
        self.used += bytes;
        self.since_scan += bytes;
        true
    }

    /// Takes in what a scan, and the eviction after it, have left, and how much is free. `before` is what
    /// [`since_scan`](Self::since_scan) returned when it began: it may not have seen what was written later.
    pub(crate) fn handle_scan(&mut self, used: u64, before: u64, limits: Limits, free: Option<u64>) {
        // Less than before if the usage was forgotten meanwhile.
        let since_scan = self.since_scan.saturating_sub(before);
        let most = limits.most(used, free);
        *self = Self { used: used.saturating_add(since_scan), since_scan, most, is_scanned: true };
    }
}

/// The entries to remove before `bytes` more are written, in the order in which to try them, and how many bytes they should free.
/// Entries of pinned keys are left out. `now` in seconds since 1970.
pub(crate) fn victims(
    mut found: Vec<Found>,
    pins: &HashSet<String>,
    bytes: u64,
    limits: Limits,
    free: Option<u64>,
    now: u64,
) -> (Vec<Found>, u64) {
    let used = found.iter().map(|found| found.bytes).sum::<u64>();
    let most = limits.most(used, free);
    if used.saturating_add(bytes) <= most {
        return (Vec::new(), 0);
    }
    // Some more, so that the next scan is not due at once.
    let low = most.saturating_sub(limits.part());
    found.retain(|found| !found.name.split_once('-').is_some_and(|(key, _)| pins.contains(key)));
    // One that was used in the future was used before the clock was set back. By its time it would stay until then, and each new
    // entry would be removed in its place.
    found.sort_by_key(|found| (found.used_at <= now + CLOCK_SKEW, found.used_at));
    (found, used.saturating_add(bytes).saturating_sub(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_bytes: 1600, keep_free: 500 };

    fn found(name: &str, bytes: u64, used_at: u64) -> Found {
        Found { name: format!("{name}-0"), bytes, used_at }
    }

    fn names(victims: &[Found]) -> Vec<&str> {
        victims.iter().map(|found| found.name.as_str()).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_pins_stay() {
        let entries = || vec![found("new", 500, 30), found("old", 500, 10), found("pinned", 600, 5)];
        let pins = HashSet::from(["pinned".to_owned()]);
        assert_eq!(victims(entries(), &pins, 0, LIMITS, None, 30), (Vec::new(), 0));
        let (first, bytes) = victims(entries(), &pins, 1, LIMITS, None, 30);
        assert_eq!((names(&first), bytes), (vec!["old-0", "new-0"], 101));
        // The disk is nearly full: of 2,000 bytes there are 500 to be left.
        let (_, bytes) = victims(entries(), &pins, 1, LIMITS, Some(400), 30);
        assert_eq!(bytes, 1601 - 1400);
    }

    #[test]
    fn what_was_used_before_the_clock_was_set_back_goes_first() {
        let now = 2 * CLOCK_SKEW;
        let entries = [("new", now), ("ahead", now + 60), ("later", 9 * now), ("late", 8 * now), ("old", 10)];
        let found = entries.map(|(name, used_at)| found(name, 500, used_at));
        let (first, _) = victims(found.into(), &HashSet::new(), 1, LIMITS, None, now);
        assert_eq!(names(&first), ["late-0", "later-0", "old-0", "new-0", "ahead-0"]);
    }

    #[test]
    fn a_scan_is_due_after_each_sixteenth_and_at_the_limit() {
        let mut usage = Usage::default();
        assert!(!usage.admit(1, LIMITS));
        usage.handle_scan(1000, 0, LIMITS, None);
        assert!(usage.admit(60, LIMITS) && usage.admit(40, LIMITS) && !usage.admit(1, LIMITS));
        assert_eq!(usage.used(), 1100);
        usage.handle_scan(1590, 100, LIMITS, None);
        assert!(usage.admit(10, LIMITS) && !usage.admit(1, LIMITS));
        assert!(!usage.admit_after_scan(1));
        usage.handle_scan(1000, 10, LIMITS, None);
        assert!(usage.admit_after_scan(600));
        // Ten bytes more than are to be left free.
        usage.handle_scan(1000, 600, LIMITS, Some(510));
        assert!(usage.admit(10, LIMITS) && !usage.admit(1, LIMITS));
    }

    #[test]
    fn a_sixteenth_is_written_before_the_first_scan() {
        let mut usage = Usage::default();
        assert!(usage.admit_early(60, LIMITS, Some(10_000)) && usage.admit_early(30, LIMITS, None));
        assert!(!usage.admit_early(11, LIMITS, None), "more than a sixteenth");
        assert!(!usage.admit_early(5, LIMITS, Some(590)), "less than is to be left free");
        // The scan began after 60 bytes, and has not seen the others.
        usage.handle_scan(1000, 60, LIMITS, None);
        assert_eq!((usage.used(), usage.since_scan()), (1030, 30));
        assert!(!usage.admit_early(1, LIMITS, None));
    }
}
