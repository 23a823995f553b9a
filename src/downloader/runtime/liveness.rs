//! Tells standing still from moving and from having nothing to do. Reads no clock and holds no thread: the watchdog brings
//! it what it sees.

use std::time::{Duration, Instant};

use crate::downloader::schedule::WorkerId;

/// What is seen at one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// The last sign of life of what each worker has; `None` for a worker that has nothing.
    pub(crate) workers: Vec<Option<Instant>>,
    /// Work that may run waits although a worker is idle.
    pub(crate) overlooked: bool,
    /// Something waits, or is on a worker.
    pub(crate) pending: bool,
}

/// How something is getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// There is nothing to do.
    Idle,
    /// It gave a sign of life in time.
    Advanced,
    /// It has been silent for so long.
    Stalled(Duration),
}

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standstill {
    Worker(WorkerId, Duration),
    Queue(Duration),
}

/// What was seen, and what of it was told.
#[derive(Debug)]
pub(crate) struct Progress {
    hang_timeout: Duration,
    sight: Sight,
    /// Since when work was overlooked.
    overlooked_since: Option<Instant>,
    /// The sign of life after which each worker stood still and was told to.
    told: Vec<Option<Instant>>,
    /// The same of the queue.
    queue_told: Option<Instant>,
}

/// What a last sign of life says.
fn judge(moved: Option<Instant>, now: Instant, limit: Duration) -> Verdict {
    let Some(moved) = moved else { return Verdict::Idle };
    let silence = now.saturating_duration_since(moved);
    if silence < limit { Verdict::Advanced } else { Verdict::Stalled(silence) }
}

impl Progress {
    pub(crate) fn new(hang_timeout: Duration) -> Self {
        Self {
            hang_timeout,
            sight: Sight::default(),
            overlooked_since: None,
            told: Vec::new(),
            queue_told: None,
        }
    }

    pub(crate) fn handle_sight(&mut self, sight: Sight, now: Instant) {
        let since = self.overlooked_since.unwrap_or(now);
        self.overlooked_since = sight.overlooked.then_some(since);
        self.told.resize(sight.workers.len(), None);
        self.sight = sight;
    }

    /// What has stood still for too long. Each standstill comes once.
    pub(crate) fn poll_standstill(&mut self, now: Instant) -> Option<Standstill> {
        for (worker, moved) in self.sight.workers.iter().enumerate() {
            if let Verdict::Stalled(silence) = judge(*moved, now, self.hang_timeout) {
                if self.told[worker] != *moved {
                    self.told[worker] = *moved;
                    return Some(Standstill::Worker(worker, silence));
                }
            }
        }
        let Verdict::Stalled(silence) = judge(self.overlooked_since, now, self.hang_timeout) else {
            return None;
        };
        let is_new = self.queue_told != self.overlooked_since;
        self.queue_told = self.overlooked_since;
        is_new.then_some(Standstill::Queue(silence))
    }

    /// When to look again; never, if nothing is pending.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if !self.sight.pending {
            return None;
        }
        let workers = self.sight.workers.iter().zip(&self.told);
        // One that was told may move again, and stand still again.
        let since = workers.filter(|(moved, told)| moved != told).filter_map(|(moved, _)| *moved);
        Some(since.min().unwrap_or(now).min(now) + self.hang_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(1);

    fn sight(workers: &[Option<Instant>]) -> Sight {
        let pending = workers.iter().any(Option::is_some);
        Sight { workers: workers.to_vec(), overlooked: false, pending }
    }

    fn overlooked() -> Sight {
        Sight { workers: vec![None], overlooked: true, pending: true }
    }

    #[test]
    fn a_verdict_is_of_the_last_sign_of_life() {
        let start = Instant::now();
        let at = |moved, after| judge(moved, start + after, LIMIT);
        for after in [Duration::ZERO, LIMIT - SHORT, LIMIT, 10 * LIMIT] {
            assert_eq!(at(None, after), Verdict::Idle);
        }
        assert_eq!(at(Some(start), Duration::ZERO), Verdict::Advanced);
        assert_eq!(at(Some(start), LIMIT - SHORT), Verdict::Advanced);
        assert_eq!(at(Some(start), LIMIT), Verdict::Stalled(LIMIT));
        assert_eq!(at(Some(start), 10 * LIMIT), Verdict::Stalled(10 * LIMIT));
        // A sign of life that came after the clock was read.
        assert_eq!(at(Some(start + LIMIT), Duration::ZERO), Verdict::Advanced);
    }

    #[test]
    fn a_standstill_is_told_once() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.handle_sight(sight(&[Some(start)]), start);
        assert_eq!(progress.next_deadline(start), Some(start + LIMIT));
        assert_eq!(progress.poll_standstill(start + LIMIT - SHORT), None);
        assert_eq!(progress.poll_standstill(start + LIMIT), Some(Standstill::Worker(0, LIMIT)));
        let later = start + 5 * LIMIT;
        progress.handle_sight(sight(&[Some(start)]), later);
        assert_eq!(progress.poll_standstill(later), None);
        assert_eq!(progress.next_deadline(later), Some(later + LIMIT));
    }

    #[test]
    fn one_that_moves_does_not_hide_one_that_does_not() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        let later = start + LIMIT;
        progress.handle_sight(sight(&[Some(later), Some(start)]), later);
        assert_eq!(progress.poll_standstill(later), Some(Standstill::Worker(1, LIMIT)));
        assert_eq!(progress.poll_standstill(later), None);
    }

    #[test]
    fn one_that_moved_again_is_told_again() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.handle_sight(sight(&[Some(start)]), start);
        assert!(progress.poll_standstill(start + LIMIT).is_some());
        let moved = start + LIMIT;
        progress.handle_sight(sight(&[Some(moved)]), moved);
        assert_eq!(progress.poll_standstill(moved + LIMIT), Some(Standstill::Worker(0, LIMIT)));
    }

    #[test]
    fn nothing_pending_is_nothing_to_look_at() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.handle_sight(sight(&[Some(start)]), start);
        progress.handle_sight(sight(&[None]), start);
        assert_eq!((progress.next_deadline(start), progress.poll_standstill(start + LIMIT)), (None, None));
    }

    #[test]
    fn work_beside_an_idle_worker_is_told_once_if_it_stays() {
        let start = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.handle_sight(overlooked(), start);
        assert_eq!(progress.next_deadline(start), Some(start + LIMIT));
        assert_eq!(progress.poll_standstill(start + LIMIT - SHORT), None);
        progress.handle_sight(overlooked(), start + LIMIT);
        assert_eq!(progress.poll_standstill(start + LIMIT), Some(Standstill::Queue(LIMIT)));
        assert_eq!(progress.poll_standstill(start + LIMIT), None);
        let late = start + 2 * LIMIT;
        progress.handle_sight(sight(&[None]), late);
        progress.handle_sight(overlooked(), late);
        assert_eq!(progress.poll_standstill(late), None);
    }
}
