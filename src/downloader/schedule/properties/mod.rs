//! What holds of the schedule whatever happens: random runs in virtual time, checked against rules that do not repeat how the
//! schedule decides.
//!
//! The [simulator](sim) stands for the threads: workers that need a random time for each chunk, bodies that fall silent, retries,
//! readers that lend their threads, peers that come, go, are cancelled and answer badly, aborts that take effect late, cancels and
//! changes of priority. It jumps from one event, or deadline of the schedule, to the next. It keeps its own record of what it gave
//! to the schedule and what came back.
//!
//! [Checked](checks) after each step:
//!
//! - *Urgent work begins.* While urgent work waits and not all workers run urgent work, some of it begins within [`AT_ONCE`] if a
//!   worker has anything but a protected turn, and within [`PROTECTED`] and [`AT_ONCE`] in any case. An abort that takes effect late
//!   starts both times again.
//! - *Urgent work whose reader lends its thread begins at once*, whatever the workers run. It holds no worker. A lent thread runs
//!   urgent work of its own peer only, is never aborted for other work, and nothing else gets its index before it is back.
//! - *Urgent work has a single connection for itself.* While urgent work of an origin that serves one connection at a time is on a
//!   worker, no prefetch of it runs or keeps its body.
//! - *Prefetches begin.* One that has aged, with `k` others that are as old, begins within `k + 1` times [`PROTECTED`] plus the
//!   longest urgent turn; so does one that a peer has only announced, for whatever work the peer is woken meanwhile. A turn includes
//!   the time until the turn before it has made room: [`AT_ONCE`], or, because aged work aborts none, the longest silence of a
//!   running prefetch.
//! - *Nothing is lost, and nothing comes twice.* Every fetch ends exactly once, and nothing of it is left.
//! - *Deadlines lead to progress.* Nothing is possible before the next deadline. No deadline that has come is announced again. No
//!   more than a few pass in a row without effect.
//! - *No worker is idle beside admissible work*, and all limits hold.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

#[cfg(doc)]
use self::checks::AT_ONCE;
use self::scenario::scenarios;
use self::sim::Sim;
#[cfg(doc)]
use super::PROTECTED;

mod checks;
mod model;
mod scenario;
mod sim;
mod turns;

/// A number from the environment. The runs are the same each time, so that a failure shows a change and not bad luck;
/// `WINDWAY_SEED` tries others and `WINDWAY_CASES` more.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: number("WINDWAY_CASES").unwrap_or(40) as u32,
        max_shrink_iters: 200,
        rng_seed: RngSeed::Fixed(number("WINDWAY_SEED").unwrap_or(0)),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn urgent_work_begins_prefetches_begin_and_nothing_is_lost(scenario in scenarios()) {
        Sim::new(scenario).run()?;
    }
}
