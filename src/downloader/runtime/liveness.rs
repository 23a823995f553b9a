//! Distinguishes a stalled worker from one that makes progress or has no work. Reads no clock and owns no thread:
//! the watchdog passes in its observations.

use std::time::{Duration, Instant};

use crate::downloader::schedule::WorkerId;

/// What is seen at one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    /// The last sign of life of what each worker has; `None` for a worker that has nothing.
    pub(crate) workers: Vec<Option<Instant>>,
    /// Work that may run waits although a worker is idle.
    pub(crate) overlooked: bool,
    /// Something waits, or is on a worker.
    pub(crate) pending: bool,
}

/// How something is getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liveness {
    /// There is nothing to do.
    Idle,
    /// It gave a sign of life in time.
    Advanced,
    /// It has been silent for so long.
    Stalled(Duration),
}

/// What is stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    Worker(WorkerId, Duration),
    Queue(Duration),
}

/// What was seen, and what of it was reported.
#[derive(Debug)]
pub(crate) struct LivenessMonitor {
    hang_timeout: Duration,
    observation: Observation,
    /// Since when work was overlooked.
    overlooked_since: Option<Instant>,
    /// The sign of life after which each worker was stalled and reported.
    told: Vec<Option<Instant>>,
    /// The same of the queue.
    queue_told: Option<Instant>,
}

/// What a last sign of life shows.
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
            told: Vec::new(),
            queue_told: None,
        }
    }

    pub(crate) fn handle_observation(&mut self, observation: Observation, now: Instant) {
        let since = self.overlooked_since.unwrap_or(now);
        self.overlooked_since = observation.overlooked.then_some(since);
        self.told.resize(observation.workers.len(), None);
        self.observation = observation;
    }

    /// What has stood still for too long. Each standstill comes once.
    pub(crate) fn poll_stalled(&mut self, now: Instant) -> Option<Stall> {
        for (worker, moved) in self.observation.workers.iter().enumerate() {
            if let Liveness::Stalled(silence) = classify(*moved, now, self.hang_timeout) {
                if self.told[worker] != *moved {
                    self.told[worker] = *moved;
                    return Some(Stall::Worker(worker, silence));
                }
            }
        }
        let Liveness::Stalled(silence) = classify(self.overlooked_since, now, self.hang_timeout) else {
            return None;
        };
        let is_new = self.queue_told != self.overlooked_since;
        self.queue_told = self.overlooked_since;
        is_new.then_some(Stall::Queue(silence))
    }

    /// When to look again; never, if nothing is pending.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if !self.observation.pending {
            return None;
        }
        let workers = self.observation.workers.iter().zip(&self.told);
        // One that was reported may progress again, and stall again.
        let since = workers.filter(|(moved, told)| moved != told).filter_map(|(moved, _)| *moved);
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
    fn a_verdict_is_of_the_last_sign_of_life() {
        let start = Instant::now();
        let at = |moved, after| classify(moved, start + after, LIMIT);
        for after in [Duration::ZERO, LIMIT - SHORT, LIMIT, 10 * LIMIT] {
            assert_eq!(at(None, after), Liveness::Idle);
        }
        assert_eq!(at(Some(start), Duration::ZERO), Liveness::Advanced);
        assert_eq!(at(Some(start), LIMIT - SHORT), Liveness::Advanced);
        assert_eq!(at(Some(start), LIMIT), Liveness::Stalled(LIMIT));
        assert_eq!(at(Some(start), 10 * LIMIT), Liveness::Stalled(10 * LIMIT));
        // A sign of life that came after the clock was read.
        assert_eq!(at(Some(start + LIMIT), Duration::ZERO), Liveness::Advanced);
    }

    #[test]
    fn a_standstill_is_told_once() {
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
    fn one_that_moves_does_not_hide_one_that_does_not() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        let later = start + LIMIT;
        monitor.handle_observation(observation(&[Some(later), Some(start)]), later);
        assert_eq!(monitor.poll_stalled(later), Some(Stall::Worker(1, LIMIT)));
        assert_eq!(monitor.poll_stalled(later), None);
    }

    #[test]
    fn one_that_moved_again_is_told_again() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        monitor.handle_observation(observation(&[Some(start)]), start);
        assert!(monitor.poll_stalled(start + LIMIT).is_some());
        let moved = start + LIMIT;
        monitor.handle_observation(observation(&[Some(moved)]), moved);
        assert_eq!(monitor.poll_stalled(moved + LIMIT), Some(Stall::Worker(0, LIMIT)));
    }

    #[test]
    fn nothing_pending_is_nothing_to_look_at() {
        let start = Instant::now();
        let mut monitor = LivenessMonitor::new(LIMIT);
        monitor.handle_observation(observation(&[Some(start)]), start);
        monitor.handle_observation(observation(&[None]), start);
        assert_eq!((monitor.next_deadline(start), monitor.poll_stalled(start + LIMIT)), (None, None));
    }

    #[test]
    fn work_beside_an_idle_worker_is_told_once_if_it_stays() {
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
