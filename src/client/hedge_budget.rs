//! How many hedged requests an origin gets, over all requests. Pure: no clock, no I/O.
//!
//! Each request has its own [policy](super::hedge_policy). If many requests wait at once because the server is overloaded, all
//! their policies together would multiply its load. So each origin has a token bucket, and a hedged request costs a token
//! (compare the throttling of retries and hedges in gRPC, proposal A6, and "The Tail at Scale", section on hedged requests).
//!
//! A server that is overloaded answers the first attempts before the hedged ones, so the bucket becomes empty. On broken
//! connections the hedged requests win. Each win pays for itself and for another hedged request, so as many follow as are needed.
//!
//! An origin that is frozen answers neither. Its readers would use what the bucket earns as long as they wait, so after a burst of
//! urgent hedges without any answer the origin gets one at a time, as a circuit breaker lets one request through.

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

/// Urgent hedges without any answer after which the origin gets them at [`PAUSE`] only.
const MAX_UNANSWERED: u32 = BURST;

/// Pause between two of those. Three times the silence limit of 10 s, after which every reader sends its request again. An
/// answer to that ends the pause.
const PAUSE: Duration = Duration::from_secs(30);

/// Hedges without an answer count this long.
const MEMORY: Duration = Duration::from_secs(60);

/// The token buckets of all origins.
#[derive(Debug, Default)]
pub(super) struct HedgeBudget {
    /// Buckets that were not full when the last token was taken, or that remember hedges without an answer. All other
    /// origins have a full one.
    buckets: HashMap<Origin, Bucket>,
}

/// A token bucket, kept as the time at which it is full: it holds [`BURST`] tokens less one for each [`REFILL`] until then.
#[derive(Debug)]
struct Bucket {
    full_at: Instant,
    /// Number of urgent hedges since the origin answered last, and the time of the last one.
    unanswered: Option<(u32, Instant)>,
}

impl HedgeBudget {
    /// Takes the token for a hedged request to `origin`. If there is none, returns when there may be one. Before that time one
    /// exists only after [`give_back`](Self::give_back), [`record_answer`](Self::record_answer) or
    /// [`record_win`](Self::record_win), or for an urgent request.
    pub(super) fn take(&mut self, origin: &Origin, is_urgent: bool, now: Instant) -> Result<(), Instant> {
        let left = if is_urgent { 0 } else { RESERVED };
        let bucket = self.buckets.get(origin);
        let full_at = bucket.map_or(now, |bucket| bucket.full_at.max(now)) + REFILL;
        let allowed = now + REFILL * (BURST - left);
        let at = now + full_at.saturating_duration_since(allowed);
        let at = at.max(bucket.filter(|_| is_urgent).and_then(Bucket::paused_until).unwrap_or(now));
        if at > now {
            return Err(at);
        }
        let unanswered = bucket.and_then(|bucket| bucket.unanswered_at(now));
        let unanswered =
            if is_urgent { Some((unanswered.map_or(1, |(count, _)| count + 1), now)) } else { unanswered };
        // Requests may lead to any number of origins, so the full ones are removed.
        self.buckets.retain(|_, bucket| bucket.full_at > now || bucket.unanswered_at(now).is_some());
        self.buckets.insert(origin.clone(), Bucket { full_at, unanswered });
        Ok(())
    }

    /// Returns the token of a hedged request that was not sent.
    pub(super) fn give_back(&mut self, origin: &Origin) {
        self.add(origin, 1);
        if let Some(unanswered) = self.buckets.get_mut(origin).and_then(|bucket| bucket.unanswered.as_mut()) {
            unanswered.0 = unanswered.0.saturating_sub(1);
        }
    }

    /// Records that `origin` answered a request, hedged or not. True if that ends a pause of its urgent hedges.
    pub(super) fn record_answer(&mut self, origin: &Origin) -> bool {
        let unanswered = self.buckets.get_mut(origin).and_then(|bucket| bucket.unanswered.take());
        unanswered.is_some_and(|(count, _)| count >= MAX_UNANSWERED)
    }

    /// Records that a hedged request to `origin` won.
    pub(super) fn record_win(&mut self, origin: &Origin) {
        self.add(origin, PER_WIN);
        self.record_answer(origin);
    }

    fn add(&mut self, origin: &Origin, tokens: u32) {
        if let Some(bucket) = self.buckets.get_mut(origin) {
            // A time in the past is a full bucket too. If it is too early to be expressed, the bucket is removed later.
            bucket.full_at = bucket.full_at.checked_sub(REFILL * tokens).unwrap_or(bucket.full_at);
        }
    }
}

impl Bucket {
    /// When an urgent hedge may be sent again, after too many without an answer.
    fn paused_until(&self) -> Option<Instant> {
        let (_, last) = self.unanswered.filter(|(count, _)| *count >= MAX_UNANSWERED)?;
        Some(last + PAUSE)
    }

    /// The hedges without an answer that still count at `now`.
    fn unanswered_at(&self, now: Instant) -> Option<(u32, Instant)> {
        self.unanswered.filter(|(_, last)| now.saturating_duration_since(*last) < MEMORY)
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
        Answer,
        Win,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0_u64..5000).prop_map(Step::Pass),
            6 => (any::<bool>(), 0_u16..3).prop_map(|(is_urgent, origin)| Step::Take { is_urgent, origin }),
            1 => Just(Step::GiveBack),
            1 => Just(Step::Answer),
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
                    Step::Answer => { budget.record_answer(&origin(0)); }
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
                    Step::Answer => { budget.record_answer(&origin(0)); }
                    Step::Win => budget.record_win(&origin(0)),
                }
            }
            if let Err(at) = budget.take(&origin(0), is_urgent, now) {
                prop_assert!(at > now && at <= now + PAUSE);
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

    /// Three for each attempt of one reader, which ends after the silence limit of 10 s.
    fn hedges_of_five_minutes(mut after_each: impl FnMut(&mut HedgeBudget)) -> usize {
        let (mut budget, start) = (HedgeBudget::default(), Instant::now());
        let delays = (0..30).flat_map(|attempt| [1, 2, 4].map(|delay| 10 * attempt + delay));
        let due = delays.map(|seconds| start + Duration::from_secs(seconds));
        let mut is_sent = |due| {
            let is_sent = budget.take(&origin(0), true, due).is_ok();
            if is_sent {
                after_each(&mut budget);
            }
            is_sent
        };
        due.filter(|due| is_sent(*due)).count()
    }

    #[test]
    fn an_origin_that_answers_nothing_gets_a_burst_and_then_two_hedges_a_minute() {
        let hedges = hedges_of_five_minutes(|_| ());
        assert!(hedges <= 8 + 10, "{hedges}");
        assert_eq!(hedges_of_five_minutes(|budget| _ = budget.record_answer(&origin(0))), 90);
    }

    #[test]
    fn an_origin_without_hedges_takes_no_memory_after_a_minute() {
        let (mut budget, mut now) = (HedgeBudget::default(), Instant::now());
        for port in 0..1000 {
            budget.take(&origin(port), true, now).expect("a full bucket");
            now += MEMORY / 4;
        }
        assert!(budget.buckets.len() <= 4, "{}", budget.buckets.len());
    }
}
