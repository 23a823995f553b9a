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
        if urgent <= workers.idle() {
            // Most of the time. Spares the look at each worker.
            self.since = None;
            return (0, false);
        }
        let missing = missing_workers(urgent, workers, now);
        let is_asking = missing > 0 && workers.pool().any(|(_, running)| running.is_preemptible(now));
        // Kept while it asks: each further urgent fetch would otherwise put the abort off by 5 ms.
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
        if !is_due || missing_workers(urgent, workers, now) <= claimed {
            return None;
        }
        // What has just begun has not had the time to reach a chunk.
        let is_abortable =
            |running: &Running| running.is_preemptible(now) && running.since + PREEMPTION_LIMIT <= now;
        let abortable = workers.pool().filter(|(_, running)| is_abortable(running));
        // The one that progressed longest ago is the least likely to reach a chunk soon, and has the fewest unread bytes to
        // lose.
        abortable.map(|(worker, _)| worker).min_by_key(|worker| progressed(*worker))
    }

    /// When the next connection may be closed.
    pub(super) fn next_deadline(&self, urgent: usize, workers: &Workers, now: Instant) -> Option<Instant> {
        // An aborted worker that is not idle in time no longer counts as leaving (`missing_workers`). From then on others are asked.
        let is_lacking = urgent > workers.idle();
        if self.since.is_none() && !is_lacking {
            return None;
        }
        let preemptible = workers.pool().filter(|(_, running)| running.is_preemptible(now));
        let since = |running: &Running| Some(running.since.max(self.since?) + PREEMPTION_LIMIT);
        let abort = preemptible.filter_map(|(_, running)| since(running));
        let late = workers.pool().filter_map(|(_, running)| running.aborted.filter(|_| is_lacking));
        abort.chain(late.map(|aborted| aborted + PREEMPTION_LIMIT)).filter(|at| *at > now).min()
    }
}

/// How many workers the queued urgent work lacks, beside those that are idle, or are about to be because of an abort.
pub(super) fn missing_workers(urgent: usize, workers: &Workers, now: Instant) -> usize {
    // Closing a connection ends all that a worker may be blocked on, except the user's sink. A worker that is not idle in time
    // is in such a sink: others have to make room.
    let is_leaving = |running: &Running| running.aborted.is_some_and(|at| now < at + PREEMPTION_LIMIT);
    let leaving = workers.pool().filter(|(_, running)| is_leaving(running)).count();
    urgent.saturating_sub(leaving + workers.idle())
}
