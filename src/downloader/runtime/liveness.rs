//! Distinguishes a stalled worker from one that makes progress or has no work. Reads no clock and owns no thread:
//! the watchdog passes in what it observes.

use std::time::{Duration, Instant};

use crate::downloader::schedule::WorkerId;

/// What the watchdog observes at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    /// When the task of each worker last progressed. `None` for a worker without a task.
    pub(crate) workers: Vec<Option<Instant>>,
    /// Work waits that an idle worker may run.
    pub(crate) overlooked: bool,
    /// Something waits for a worker or is on one.
    pub(crate) pending: bool,
}

/// Whether something progresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liveness {
    /// There is nothing to do.
    Idle,
    /// It progressed within the limit.
    Advanced,
    /// It has not progressed for this long.
    Stalled(Duration),
}

/// What is stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    Worker(WorkerId, Duration),
    Queue(Duration),
}

/// Finds stalled workers, and work that no idle worker takes, among what the watchdog observes. Reports each stall once.
#[derive(Debug)]
pub(crate) struct LivenessMonitor {
    hang_timeout: Duration,
    observation: Observation,
    /// Since when each observation was overlooked work.
    overlooked_since: Option<Instant>,
    /// For each worker the last progress before the stall that was reported.
    reported: Vec<Option<Instant>>,
    /// The `overlooked_since` that was reported.
    queue_reported: Option<Instant>,
}

/// What the time of the last progress shows.
fn classify(moved: Option<Instant>, now: Instant, limit: Duration) -> Liveness {
    let Some(moved) = moved else { return Liveness::Idle };
    let silence = now.saturating_duration_since(moved);
    if silence < limit { Liveness::Advanced } else { Liveness::Stalled(silence) }
}

impl LivenessMonitor {
    pub(crate) fn new(hang_timeout: Duration) -> Self {
        Self {
            hang_timeout,
            observation: Observation::default(),
            overlooked_since: None,
            reported: Vec::new(),
            queue_reported: None,
        }
    }

    pub(crate) fn handle_observation(&mut self, observation: Observation, now: Instant) {
        let since = self.overlooked_since.unwrap_or(now);
        self.overlooked_since = observation.overlooked.then_some(since);
        self.reported.resize(observation.workers.len(), None);
        self.observation = observation;
    }

    /// The next one that is stalled. Returns each stall once.
    pub(crate) fn poll_stalled(&mut self, now: Instant) -> Option<Stall> {
        for (worker, moved) in self.observation.workers.iter().enumerate() {
            if let Liveness::Stalled(silence) = classify(*moved, now, self.hang_timeout) {
                // Once for each silence: the time of the last progress identifies it.
                if self.reported[worker] != *moved {
                    self.reported[worker] = *moved;
                    return Some(Stall::Worker(worker, silence));
                }
            }
        }
        let Liveness::Stalled(silence) = classify(self.overlooked_since, now, self.hang_timeout) else {
            return None;
        };
        let is_new = self.queue_reported != self.overlooked_since;
        self.queue_reported = self.overlooked_since;
        is_new.then_some(Stall::Queue(silence))
    }

    /// When to observe again. `None` if nothing is pending.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if !self.observation.pending {
            return None;
        }
        let workers = self.observation.workers.iter().zip(&self.reported);
        // One that was reported is skipped: only its progress makes another report possible.
        let since = workers.filter(|(moved, reported)| moved != reported).filter_map(|(moved, _)| *moved);
        Some(since.min().unwrap_or(now).min(now) + self.hang_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(1);

    fn observation(workers: &[Option<Instant>]) -> Observation {
        let pending = workers.iter().any(Option::is_some);
        Observation { workers: workers.to_vec(), overlooked: false, pending }
    }

    fn overlooked() -> Observation {
        Observation { workers: vec![None], overlooked: true, pending: true }
    }

    #[test]
    fn the_last_progress_shows_whether_a_worker_is_stalled() {
        let start = Instant::now();
        let at = |moved, after| classify(moved, start + after, LIMIT);
        for after in [Duration::ZERO, LIMIT - SHORT, LIMIT, 10 * LIMIT] {
            assert_eq!(at(None, after), Liveness::Idle);
        }
        assert_eq!(at(Some(start), Duration::ZERO), Liveness::Advanced);
        assert_eq!(at(Some(start), LIMIT - SHORT), Liveness::Advanced);
        assert_eq!(at(Some(start), LIMIT), Liveness::Stalled(LIMIT));
        assert_eq!(at(Some(start), 10 * LIMIT), Liveness::Stalled(10 * LIMIT));
        // Progress after the clock was read.
        assert_eq!(at(Some(start + LIMIT), Duration::ZERO), Liveness::Advanced);
    }

    #[test]
    fn a_stall_is_reported_once() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        monitor.handle_observation(observation(&[Some(start)]), start);
        assert_eq!(monitor.next_deadline(start), Some(start + LIMIT));
        assert_eq!(monitor.poll_stalled(start + LIMIT - SHORT), None);
        assert_eq!(monitor.poll_stalled(start + LIMIT), Some(Stall::Worker(0, LIMIT)));
        let later = start + 5 * LIMIT;
        monitor.handle_observation(observation(&[Some(start)]), later);
        assert_eq!(monitor.poll_stalled(later), None);
        assert_eq!(monitor.next_deadline(later), Some(later + LIMIT));
    }

    #[test]
    fn a_worker_that_progresses_does_not_hide_one_that_is_stalled() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        let later = start + LIMIT;
        monitor.handle_observation(observation(&[Some(later), Some(start)]), later);
        assert_eq!(monitor.poll_stalled(later), Some(Stall::Worker(1, LIMIT)));
        assert_eq!(monitor.poll_stalled(later), None);
    }

    #[test]
    fn a_worker_that_progresses_and_stalls_again_is_reported_again() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        monitor.handle_observation(observation(&[Some(start)]), start);
        assert!(monitor.poll_stalled(start + LIMIT).is_some());
        let moved = start + LIMIT;
        monitor.handle_observation(observation(&[Some(moved)]), moved);
        assert_eq!(monitor.poll_stalled(moved + LIMIT), Some(Stall::Worker(0, LIMIT)));
    }

    #[test]
    fn without_pending_work_there_is_no_deadline() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        monitor.handle_observation(observation(&[Some(start)]), start);
        monitor.handle_observation(observation(&[None]), start);
        assert_eq!((monitor.next_deadline(start), monitor.poll_stalled(start + LIMIT)), (None, None));
    }

    #[test]
    fn work_that_stays_beside_an_idle_worker_is_reported_once() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        monitor.handle_observation(overlooked(), start);
        assert_eq!(monitor.next_deadline(start), Some(start + LIMIT));
        assert_eq!(monitor.poll_stalled(start + LIMIT - SHORT), None);
        monitor.handle_observation(overlooked(), start + LIMIT);
        assert_eq!(monitor.poll_stalled(start + LIMIT), Some(Stall::Queue(LIMIT)));
        assert_eq!(monitor.poll_stalled(start + LIMIT), None);
        let late = start + 2 * LIMIT;
        monitor.handle_observation(observation(&[None]), late);
        monitor.handle_observation(overlooked(), late);
        assert_eq!(monitor.poll_stalled(late), None);
    }
}
