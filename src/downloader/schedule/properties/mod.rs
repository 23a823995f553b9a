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
//!   starts both times anew.
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

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use self::sim::Sim;
use super::*;

mod checks;
mod model;
mod sim;
mod turns;

/// Within this long urgent work begins if a worker can make room: the schedule's limit for a preemption, and what an answer of
/// a peer and the closing of a connection take here.
const AT_ONCE: Duration = Duration::from_millis(10);

type Checked = Result<(), TestCaseError>;

fn fail(why: &'static str) -> Checked {
    Err(TestCaseError::fail(why))
}

/// What happens in a run, and how often.
#[derive(Clone, Debug)]
struct Scenario {
    limits: Limits,
    seed: u64,
    /// How long new work comes. After that, what is left runs to its end.
    length: Duration,
    /// Prefetches that are there from the beginning.
    backlog: u64,
    /// Mean time between urgent fetches, in milliseconds.
    urgent_every: u64,
    /// The longest urgent fetch, in milliseconds.
    longest_urgent: u64,
    /// Mean time between readers that lend their thread, in milliseconds. 0 for never.
    lend_every: u64,
    /// Mean time between new prefetches, in milliseconds.
    prefetch_every: u64,
    /// Chunks of the longest prefetch.
    chunks: u64,
    /// The longest time between two chunks, in milliseconds.
    longest_gap: u64,
    /// Percentage of chunks that come after a long silence.
    silent: u64,
    /// Percentage of aborts that take effect late, because the sink of the fetch blocks.
    stuck: u64,
    /// Mean time between cancels, changes of priority, and arrivals and departures of peers, in milliseconds. 0 for never.
    churn_every: u64,
    /// Percentage of answers of peers that are fetches that have ended already.
    dead: u64,
    /// Origins that serve one connection at a time.
    single_connections: u64,
}

fn limits() -> impl Strategy<Value = Limits> {
    let prefetch_delay = prop_oneof![4 => Just(0_u64), 1 => Just(50)];
    (1..7_usize, 0..2_usize, 1..5_usize, prefetch_delay, 0..3_u64).prop_flat_map(
        |(workers, reserved, max_per_origin, prefetch_delay, aging_threshold)| {
            (0..2 * workers).prop_map(move |max_preempted| Limits {
                workers,
                reserved: reserved.min(workers - 1),
                max_per_origin,
                prefetch_delay: Duration::from_millis(prefetch_delay),
                aging_threshold: Duration::from_millis(500 * aging_threshold),
                max_preempted,
            })
        },
    )
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let lend_every = prop_oneof![Just(0_u64), 5..200_u64];
    let urgent = (prop_oneof![5..40_u64, 40..1000_u64], prop_oneof![1..50_u64, 50..400_u64], lend_every);
    let prefetch = (0..40_u64, 50..1000_u64, 1..400_u64, prop_oneof![1..10_u64, 10..100_u64]);
    let stuck = prop_oneof![3 => Just(0_u64), 1 => 1..100_u64];
    let dead = prop_oneof![3 => Just(10_u64), 1 => Just(100)];
    let silent = prop_oneof![Just(0_u64), 1..20_u64];
    let churn_every = prop_oneof![Just(0_u64), 10..500_u64];
    let single_connections = prop_oneof![2 => Just(0_u64), 1 => 1..4_u64];
    let trouble = (silent, stuck, churn_every, dead, single_connections);
    (limits(), any::<u64>(), urgent, prefetch, trouble).prop_map(
        |(limits, seed, urgent, prefetch, trouble)| {
            let (silent, stuck, churn_every, dead, single_connections) = trouble;
            let (urgent_every, longest_urgent, lend_every) = urgent;
            let (backlog, prefetch_every, chunks, longest_gap) = prefetch;
            Scenario {
                limits,
                seed,
                length: Duration::from_secs(6),
                backlog,
                urgent_every,
                longest_urgent,
                lend_every,
                prefetch_every,
                chunks,
                longest_gap,
                silent,
                stuck,
                churn_every,
                dead,
                single_connections,
            }
        },
    )
}

/// A number from the environment. The runs are the same each time, so that a failure shows a change and not bad luck;
/// `WINDWAY_SEED` tries others and `WINDWAY_CASES` more.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: number("WINDWAY_CASES").unwrap_or(60) as u32,
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
