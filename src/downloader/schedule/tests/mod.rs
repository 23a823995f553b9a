//! What the schedule decides, case by case.

use std::time::Duration;

use super::preemption::PREEMPTION_LIMIT;
use super::*;

mod aging;
mod classes;
mod lent;
mod origin_limit;
mod preemption;
mod pull;

fn request(number: u64) -> RequestId {
    RequestId::new(number).unwrap()
}

fn limits(workers: usize, reserved: usize) -> Limits {
    Limits {
        workers,
        reserved,
        max_per_origin: usize::MAX,
        prefetch_delay: Duration::ZERO,
        aging_threshold: Duration::from_secs(10),
        max_preempted: usize::MAX,
    }
}

fn new(workers: usize, reserved: usize) -> Schedule {
    Schedule::new(limits(workers, reserved))
}

/// At a chunk, long before a full turn.
const AT_CHUNK: Preemption = Preemption { has_body: true, had_share: false };

fn fetch_info(number: u64, priority: Priority) -> FetchInfo {
    FetchInfo { request: request(number), priority, origin: Origin(0) }
}

fn run(number: u64) -> Assignment {
    Assignment::Run { request: request(number), protected: false }
}

/// Runs all that is queued on a worker that finishes at once. Returns the order.
fn served(schedule: &mut Schedule) -> Vec<u64> {
    let now = Instant::now();
    let mut order = Vec::new();
    while let Some((worker, assignment)) = schedule.poll_assignment(now) {
        if let Assignment::Run { request, .. } = assignment {
            order.push(request.get());
        }
        schedule.handle_finished(worker, now);
    }
    order
}
