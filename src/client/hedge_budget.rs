//! How many hedged requests an origin gets, over all requests. Pure: no clock, no I/O.
//!
//! Each request has its own [policy](super::hedge_policy). If many requests wait at once because the server is overloaded, all
//! their policies together would multiply its load. So each origin has a token bucket, and a hedged request costs a token
//! (compare the throttling of retries and hedges in gRPC, proposal A6, and "The Tail at Scale", section on hedged requests).
//!
//! A server that is overloaded answers the first attempts before the hedged ones, so the bucket becomes empty. On broken
//! connections the hedged requests win. Each win pays for itself and for another hedged request, so as many follow as are needed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::origin::Origin;

/// Tokens of a full bucket. As many idle connections of an origin are kept by default, and after a change of network all of them
/// may be dead.
const BURST: u32 = 8;

/// Tokens that a prefetch leaves for urgent requests.
const RESERVED: u32 = BURST / 2;

/// Time in which a bucket earns a token. One reader that waits for a silent server uses three in the silence limit of 10 s.
const REFILL: Duration = Duration::from_secs(2);

/// Tokens for a hedged request that won: its own, and one more.
const PER_WIN: u32 = 2;

/// The token buckets of all origins.
#[derive(Debug, Default)]
pub(super) struct HedgeBudget {
    /// Buckets that were not full when the last token was taken. All other origins have a full one.
    buckets: HashMap<Origin, Bucket>,
}

/// A token bucket, kept as the time at which it is full: it holds [`BURST`] tokens less one for each [`REFILL`] until then.
#[derive(Debug)]
struct Bucket {
    full_at: Instant,
}

impl HedgeBudget {
    /// Takes the token for a hedged request to `origin`. If there is none, returns when there may be one. Before that time one
    /// exists only after [`give_back`](Self::give_back) or [`record_win`](Self::record_win), or for an urgent request.
    pub(super) fn take(&mut self, origin: &Origin, is_urgent: bool, now: Instant) -> Result<(), Instant> {
        let left = if is_urgent { 0 } else { RESERVED };
        let full_at = self.buckets.get(origin).map_or(now, |bucket| bucket.full_at.max(now));
        let full_at = full_at + REFILL;
        let allowed = now + REFILL * (BURST - left);
        if full_at > allowed {
            return Err(now + (full_at - allowed));
        }
        // Requests may lead to any number of origins, so the full ones are removed.
        self.buckets.retain(|_, bucket| bucket.full_at > now);
        self.buckets.insert(origin.clone(), Bucket { full_at });
        Ok(())
    }

    /// Returns the token of a hedged request that was not sent.
    pub(super) fn give_back(&mut self, origin: &Origin) {
        self.add(origin, 1);
    }

    /// Records that a hedged request to `origin` won.
    pub(super) fn record_win(&mut self, origin: &Origin) {
        self.add(origin, PER_WIN);
    }

    fn add(&mut self, origin: &Origin, tokens: u32) {
        if let Some(bucket) = self.buckets.get_mut(origin) {
            // A time in the past is a full bucket too. If it is too early to be expressed, the bucket is removed later.
            bucket.full_at = bucket.full_at.checked_sub(REFILL * tokens).unwrap_or(bucket.full_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Pass(u64),
        Take { is_urgent: bool, origin: u16 },
        GiveBack,
        Win,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0_u64..5000).prop_map(Step::Pass),
            6 => (any::<bool>(), 0_u16..3).prop_map(|(is_urgent, origin)| Step::Take { is_urgent, origin }),
            1 => Just(Step::GiveBack),
            1 => Just(Step::Win),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn origin(port: u16) -> Origin {
        Origin::of_canonical(&format!("http://host.test:{}/", 1000 + port)).expect("a canonical URL")
    }

    proptest! {
        /// In every period an origin gets no more than a full bucket, what the bucket earns in it, and what was returned.
        #[test]
        fn the_hedges_of_every_period_are_bounded(steps in steps()) {
            let (mut budget, mut now) = (HedgeBudget::default(), Instant::now());
            // Of the first origin: times of its tokens, and of those that were added.
            let (mut taken, mut added) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                    Step::Take { is_urgent, origin: 0 } => {
                        taken.extend(budget.take(&origin(0), is_urgent, now).ok().map(|()| now));
                    }
                    Step::Take { is_urgent, origin: other } => { let _ = budget.take(&origin(other), is_urgent, now); }
                    Step::GiveBack => {
                        budget.give_back(&origin(0));
                        added.push((now, 1));
                    }
                    Step::Win => {
                        budget.record_win(&origin(0));
                        added.push((now, PER_WIN));
                    }
                }
                prop_assert!(budget.buckets.len() <= 3);
            }
            for from in &taken {
                for to in taken.iter().filter(|to| *to >= from) {
                    let is_within = |at: &Instant| at >= from && at <= to;
                    let hedges = taken.iter().filter(|at| is_within(at)).count() as u128;
                    let returned: u32 = added.iter().filter(|(at, _)| is_within(at)).map(|(_, tokens)| tokens).sum();
                    let earned = (*to - *from).as_nanos() / REFILL.as_nanos();
                    prop_assert!(hedges <= u128::from(BURST + returned) + earned);
                }
            }
        }

        /// A refused request is admitted at the returned time if nothing else happens, and not earlier.
        #[test]
        fn a_refusal_returns_the_exact_time_of_the_next_token(steps in steps(), is_urgent: bool) {
            let (mut budget, mut now) = (HedgeBudget::default(), Instant::now());
            for step in steps {
                match step {
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                    Step::Take { is_urgent, .. } => { let _ = budget.take(&origin(0), is_urgent, now); }
                    Step::GiveBack => budget.give_back(&origin(0)),
                    Step::Win => budget.record_win(&origin(0)),
                }
            }
            if let Err(at) = budget.take(&origin(0), is_urgent, now) {
                prop_assert!(at > now && at <= now + REFILL * BURST);
                prop_assert_eq!(budget.take(&origin(0), is_urgent, at - Duration::from_nanos(1)), Err(at));
                prop_assert_eq!(budget.take(&origin(0), is_urgent, at), Ok(()));
            }
        }

        /// However many prefetches are hedged, urgent requests still get the reserved tokens.
        #[test]
        fn prefetches_leave_tokens_for_urgent_requests(pauses in prop::collection::vec(0_u64..1000, 0..100)) {
            let (mut budget, mut now) = (HedgeBudget::default(), Instant::now());
            for ms in pauses {
                now += Duration::from_millis(ms);
                let _ = budget.take(&origin(0), false, now);
            }
            for _ in 0..RESERVED {
                prop_assert_eq!(budget.take(&origin(0), true, now), Ok(()));
            }
        }

        /// If every hedged request wins, any number of them is sent.
        #[test]
        fn hedges_that_win_are_never_refused(urgent in prop::collection::vec(any::<bool>(), 0..100)) {
            let (mut budget, now) = (HedgeBudget::default(), Instant::now());
            for is_urgent in urgent {
                prop_assert_eq!(budget.take(&origin(0), is_urgent, now), Ok(()));
                budget.record_win(&origin(0));
            }
        }
    }

    #[test]
    fn an_origin_without_hedges_takes_no_memory() {
        let (mut budget, mut now) = (HedgeBudget::default(), Instant::now());
        for port in 0..1000 {
            budget.take(&origin(port), true, now).expect("a full bucket");
            now += REFILL / 4;
        }
        assert!(budget.buckets.len() <= 4, "{}", budget.buckets.len());
    }
}
