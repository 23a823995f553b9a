//! What happens in a random run: how much work comes, how it behaves, and under which limits.

use std::time::Duration;

use proptest::prelude::*;

use super::super::Limits;

/// What happens in a run, and how often.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) limits: Limits,
    pub(super) seed: u64,
    /// How long new work comes. After that, what is left runs to its end.
    pub(super) length: Duration,
    /// Prefetches that are there from the beginning.
    pub(super) backlog: u64,
    /// Mean time between urgent fetches, in milliseconds.
    pub(super) urgent_every: u64,
    /// The longest urgent fetch, in milliseconds.
    pub(super) longest_urgent: u64,
    /// Mean time between readers that lend their thread, in milliseconds. 0 for never.
    pub(super) lend_every: u64,
    /// Mean time between new prefetches, in milliseconds.
    pub(super) prefetch_every: u64,
    /// Chunks of the longest prefetch.
    pub(super) chunks: u64,
    /// The longest time between two chunks, in milliseconds.
    pub(super) longest_gap: u64,
    /// Percentage of chunks that come after a long silence.
    pub(super) silent: u64,
    /// Percentage of aborts that take effect late, because the sink of the fetch blocks.
    pub(super) stuck: u64,
    /// Percentage of assignments that find no thread, because it is blocked in the end of a fetch.
    pub(super) blocked: u64,
    /// Mean time between cancels, changes of priority, and arrivals and departures of peers, in milliseconds. 0 for never.
    pub(super) churn_every: u64,
    /// Percentage of answers of peers that are fetches that have ended already.
    pub(super) dead: u64,
    /// Origins that serve one connection at a time.
    pub(super) single_connections: u64,
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

pub(super) fn scenarios() -> impl Strategy<Value = Scenario> {
    let lend_every = prop_oneof![Just(0_u64), 5..200_u64];
    let urgent = (prop_oneof![5..40_u64, 40..1000_u64], prop_oneof![1..50_u64, 50..400_u64], lend_every);
    let prefetch = (0..40_u64, 50..1000_u64, 1..400_u64, prop_oneof![1..10_u64, 10..100_u64]);
    let stuck = prop_oneof![3 => Just(0_u64), 1 => 1..100_u64];
    let dead = prop_oneof![3 => Just(10_u64), 1 => Just(100)];
    let silent = prop_oneof![Just(0_u64), 1..20_u64];
    let churn_every = prop_oneof![Just(0_u64), 10..500_u64];
    let single_connections = prop_oneof![2 => Just(0_u64), 1 => 1..4_u64];
    let blocked = prop_oneof![3 => Just(0_u64), 1 => 1..20_u64];
    let trouble = (silent, stuck, blocked, churn_every, dead, single_connections);
    (limits(), any::<u64>(), urgent, prefetch, trouble).prop_map(
        |(limits, seed, urgent, prefetch, trouble)| {
            let (silent, stuck, blocked, churn_every, dead, single_connections) = trouble;
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
                blocked,
                churn_every,
                dead,
                single_connections,
            }
        },
    )
}
