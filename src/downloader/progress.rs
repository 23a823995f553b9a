//! Tells a transfer that stands still from one that moves. Reads no clock and holds no thread: the watchdog brings it the
//! signs of life.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::fetch::RequestId;

/// The running fetches and when each gave its last sign of life.
#[derive(Debug)]
pub(super) struct Progress {
    hang_timeout: Duration,
    running: HashMap<RequestId, Sign>,
}

#[derive(Clone, Copy, Debug)]
struct Sign {
    moved: Instant,
    /// Its standstill was told already.
    reported: bool,
}

impl Progress {
    pub(super) fn new(hang_timeout: Duration) -> Self {
        Self { hang_timeout, running: HashMap::new() }
    }

    /// Notes what runs now, and when each of it moved last. What is not among them has ended or waits, which is no
    /// standstill.
    pub(super) fn handle_running(&mut self, now_running: impl Iterator<Item = (RequestId, Instant)>) {
        let old = std::mem::take(&mut self.running);
        for (request, moved) in now_running {
            let reported = old.get(&request).is_some_and(|sign| sign.reported && sign.moved == moved);
            self.running.insert(request, Sign { moved, reported });
        }
    }

    /// A fetch that has stood still for too long, and for how long. Each standstill comes once.
    pub(super) fn poll_stalled(&mut self, now: Instant) -> Option<(RequestId, Duration)> {
        let limit = self.hang_timeout;
        let (request, sign) =
            self.running.iter_mut().find(|(_, sign)| !sign.reported && sign.moved + limit <= now)?;
        sign.reported = true;
        Some((*request, now - sign.moved))
    }

    /// When to look again; never, if nothing runs.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        // One that was reported may move again, and stand still again.
        let since = |sign: &Sign| if sign.reported { now } else { sign.moved };
        self.running.values().map(since).min().map(|since| since + self.hang_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn request(number: u64) -> RequestId {
        RequestId::new(number).unwrap()
    }

    #[test]
    fn a_standstill_is_told_once() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.handle_running([(request(1), start)].into_iter());
        assert_eq!(progress.next_deadline(start), Some(start + LIMIT));
        assert_eq!(progress.poll_stalled(start + LIMIT - Duration::from_millis(1)), None);
        assert_eq!(progress.poll_stalled(start + LIMIT), Some((request(1), LIMIT)));
        let later = start + 5 * LIMIT;
        progress.handle_running([(request(1), start)].into_iter());
        assert_eq!(progress.poll_stalled(later), None);
        assert_eq!(progress.next_deadline(later), Some(later + LIMIT));
    }

    #[test]
    fn one_that_moves_does_not_hide_one_that_does_not() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        let later = start + LIMIT;
        progress.handle_running([(request(1), later), (request(2), start)].into_iter());
        assert_eq!(progress.poll_stalled(later), Some((request(2), LIMIT)));
        assert_eq!(progress.poll_stalled(later), None);
    }

    #[test]
    fn one_that_moved_again_is_told_again() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.handle_running([(request(1), start)].into_iter());
        assert!(progress.poll_stalled(start + LIMIT).is_some());
        let moved = start + LIMIT;
        progress.handle_running([(request(1), moved)].into_iter());
        assert_eq!(progress.poll_stalled(moved + LIMIT), Some((request(1), LIMIT)));
    }

    #[test]
    fn nothing_running_is_nothing_to_look_at() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.handle_running([(request(1), start)].into_iter());
        progress.handle_running(std::iter::empty());
        assert_eq!((progress.next_deadline(start), progress.poll_stalled(start + LIMIT)), (None, None));
    }
}
