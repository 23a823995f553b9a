//! Decides when a request is hedged, and over which connection. Pure: no clock, no I/O.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::Over;
use super::urgency::Urgency;

/// Maximum number of hedged requests over new connections for one request. The pauses between them double, so the last one
/// starts after four delays. More would only add load to a server that is down.
const MAX_NEW: u32 = 3;

/// How a request is hedged.
#[derive(Clone)]
pub(crate) struct Hedging {
    /// Silence of the connection after which the request is hedged.
    pub(crate) delay: Duration,
    pub(crate) urgency: Arc<dyn Urgency>,
}

/// Decides when one request is hedged, and over which connection. Reads no clock.
#[derive(Debug)]
pub(super) struct HedgePolicy {
    pub(super) delay: Duration,
    /// A hedged request was sent over a proven connection.
    over_proven: bool,
    /// Number of hedged requests that were sent over new connections.
    over_new: u32,
    /// Silence of the first connection at which the next hedged request over a new connection may start.
    new_at: Duration,
}

/// What is known about a waiting request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Time for which its connection has been silent.
    pub(super) silence: Duration,
    /// Its connection has answered another request before.
    pub(super) is_reused: bool,
    /// Its connection is reused or preconnected: it may have died before the request was sent.
    pub(super) is_pooled: bool,
    pub(super) is_urgent: bool,
    /// The pool has an idle connection that has answered before.
    pub(super) has_proven: bool,
    /// The origin serves one connection at a time.
    pub(super) is_single_connection: bool,
}

impl HedgePolicy {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, over_proven: false, over_new: 0, new_at: delay }
    }

    /// The connection over which a hedged request is due now. `None` if none is due. [`poll`](Self::poll) must follow if it is
    /// sent.
    pub(super) fn due(&self, waiting: Waiting) -> Option<Over> {
        if self.may_use_proven(waiting) && waiting.has_proven && waiting.silence >= self.delay / 2 {
            return Some(Over::Proven);
        }
        self.new_at(waiting).is_some_and(|at| waiting.silence >= at).then_some(Over::New)
    }

    /// The connection over which to send a hedged request now. `None` if none is due.
    pub(super) fn poll(&mut self, waiting: Waiting) -> Option<Over> {
        let over = self.due(waiting)?;
        if over == Over::Proven {
            self.over_proven = true;
        } else {
            // Counted from now, even if this one is late: each attempt gets its whole time.
            self.new_at = waiting.silence + self.delay * 2_u32.pow(self.over_new);
            self.over_new += 1;
        }
        Some(over)
    }

    /// The silence at which to decide again. `None` if nothing follows unless the request becomes urgent.
    pub(super) fn next_silence(&self, waiting: Waiting) -> Option<Duration> {
        // A proven connection may become idle at any time. So poll in steps of half a delay. At least 1 ms: a delay of zero
        // would divide by zero.
        let half = (self.delay / 2).max(Duration::from_millis(1));
        let steps = u32::try_from(waiting.silence.as_nanos() / half.as_nanos()).unwrap_or(u32::MAX);
        let proven = self.may_use_proven(waiting).then(|| half.saturating_mul(steps.saturating_add(1)));
        proven.into_iter().chain(self.new_at(waiting)).min()
    }

    /// Records that another request took the proven connection first.
    pub(super) fn handle_proven_taken(&mut self) {
        self.over_proven = false;
    }

    /// If a proven connection answers although a new one does not, the server is alive but serves one connection at a time.
    fn may_use_proven(&self, waiting: Waiting) -> bool {
        !self.over_proven && !waiting.is_reused
    }

    fn new_at(&self, waiting: Waiting) -> Option<Duration> {
        // A prefetch on a new connection is not hedged: the connection can't have died in the pool, and a slow server needs no
        // more load.
        let most = match (waiting.is_urgent, waiting.is_pooled) {
            (true, _) => MAX_NEW,
            (false, true) => 1,
            (false, false) => 0,
        };
        // Such an origin would let another new connection wait as well.
        let is_useless = waiting.is_single_connection && !waiting.is_reused;
        (self.over_new < most && !is_useless).then_some(self.new_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(1);

    fn waiting(silence_ms: u64) -> Waiting {
        Waiting {
            silence: Duration::from_millis(silence_ms),
            is_reused: true,
            is_pooled: true,
            is_urgent: true,
            has_proven: true,
            is_single_connection: false,
        }
    }

    /// Runs the policy for a minute of silence. Returns what is sent, with the silence in milliseconds.
    fn run(change: impl Fn(Waiting) -> Waiting) -> Vec<(u128, Over)> {
        let mut policy = HedgePolicy::new(DELAY);
        let (mut sent, mut now) = (Vec::new(), Some(DELAY / 2));
        while let Some(silence) = now.filter(|now| *now < 60 * DELAY) {
            let waiting = change(Waiting { silence, ..waiting(0) });
            sent.extend(policy.poll(waiting).map(|over| (silence.as_millis(), over)));
            let next = policy.next_silence(waiting);
            assert!(next.is_none_or(|next| next > silence), "{next:?} after {silence:?}");
            now = next;
        }
        sent
    }

    #[test]
    fn an_urgent_request_gets_new_connections_at_growing_intervals() {
        let new = [(1000, Over::New), (2000, Over::New), (4000, Over::New)];
        assert_eq!(run(|it| it), new);
        let fresh = |it| Waiting { is_reused: false, is_pooled: false, has_proven: false, ..it };
        assert_eq!(run(fresh), new);
    }

    #[test]
    fn a_connection_that_never_answered_is_hedged_over_a_proven_one_first() {
        let ahead = |it| Waiting { is_reused: false, ..it };
        let sent = run(ahead);
        assert_eq!(sent[..2], [(500, Over::Proven), (1000, Over::New)]);
        // A connection that becomes idle later is used.
        let later = |it: Waiting| Waiting { has_proven: it.silence > 7 * DELAY, ..ahead(it) };
        assert_eq!(run(later).last(), Some(&(7500, Over::Proven)));
    }

    #[test]
    fn a_single_connection_origin_gets_no_second_new_connection() {
        let single_connection = |it| Waiting { is_reused: false, is_single_connection: true, ..it };
        assert_eq!(run(single_connection), [(500, Over::Proven)]);
        assert_eq!(run(|it| Waiting { is_single_connection: true, ..it }).len(), 3);
    }

    #[test]
    fn a_prefetch_is_hedged_once_and_only_if_its_connection_may_have_died_before() {
        assert_eq!(run(|it| Waiting { is_urgent: false, ..it }), [(1000, Over::New)]);
        let fresh =
            |it| Waiting { is_urgent: false, is_reused: false, is_pooled: false, has_proven: false, ..it };
        assert_eq!(run(fresh), []);
        let mut policy = HedgePolicy::new(DELAY);
        assert_eq!(policy.poll(fresh(waiting(5000))), None);
        // A reader has begun to wait for it.
        let urgent = Waiting { is_urgent: true, ..fresh(waiting(5000)) };
        assert_eq!(policy.poll(urgent), Some(Over::New));
        assert_eq!(policy.poll(urgent), None);
        assert_eq!(policy.new_at(urgent), Some(6 * DELAY));
    }
}
