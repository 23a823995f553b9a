//! Which running prefetches make room for urgent work: by preemption at their next chunk, or by an abort.

use std::time::{Duration, Instant};

use super::types::WorkerId;
use super::workers::{Running, Workers};

/// How long urgent work waits for a running prefetch to reach its next chunk before the connection of one is closed. An active
/// connection brings a chunk within this time; what is slower is likely to be silent for much longer.
pub(super) const PREEMPTION_LIMIT: Duration = Duration::from_millis(5);

/// Urgent work that finds no worker, and since when running prefetches are asked to make room for it.
#[derive(Debug, Default)]
pub(super) struct Preemptor {
    /// `None` while none of them can be asked, or none has to be.
    since: Option<Instant>,
}

impl Preemptor {
    /// Updates what waits. `urgent` fetches are queued. Returns how many running prefetches should make room, and whether one
    /// can be asked now.
    pub(super) fn update(&mut self, urgent: usize, workers: &Workers, now: Instant) -> (usize, bool) {
        let missing = missing_workers(urgent, workers);
        let is_asking = missing > 0 && workers.pool().any(|(_, running)| running.is_preemptible(now));
        self.since = if is_asking { self.since.or(Some(now)) } else { None };
        (missing, is_asking)
    }

    /// The worker whose connection is closed, because none reached a chunk in time: the one that progressed longest ago. `claimed`
    /// of them have reached a chunk and are about to report it. `progressed` returns when a worker last progressed.
    pub(super) fn poll_abort<M: Ord>(
        &self,
        urgent: usize,
        claimed: usize,
        workers: &Workers,
        now: Instant,
        progressed: impl Fn(WorkerId) -> M,
    ) -> Option<WorkerId> {
        let is_due = self.since.is_some_and(|since| since + PREEMPTION_LIMIT <= now);
        if !is_due || missing_workers(urgent, workers) <= claimed {
            return None;
        }
        // What has just begun has not had the time to reach a chunk.
        let is_abortable =
            |running: &Running| running.is_preemptible(now) && running.since + PREEMPTION_LIMIT <= now;
        let abortable = workers.pool().filter(|(_, running)| is_abortable(running));
        abortable.map(|(worker, _)| worker).min_by_key(|worker| progressed(*worker))
    }

    /// When the next connection may be closed.
    pub(super) fn next_deadline(&self, workers: &Workers, now: Instant) -> Option<Instant> {
        let since = self.since?;
        let preemptible = workers.pool().filter(|(_, running)| running.is_preemptible(now));
        let due = preemptible.map(|(_, running)| running.since.max(since) + PREEMPTION_LIMIT);
        due.filter(|at| *at > now).min()
    }
}

/// How many workers the queued urgent work lacks, beside those that are idle or are about to be, by an abort.
pub(super) fn missing_workers(urgent: usize, workers: &Workers) -> usize {
    let aborted = workers.pool().filter(|(_, running)| running.is_aborted).count();
    urgent.saturating_sub(aborted + workers.idle())
}
