//! Idle connections by origin: kept alive after a request, or preconnected. Pure: opens and closes nothing and reads no clock.
//! Connections that it no longer keeps are returned, so that the caller closes them outside its lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::demand::Demand;
use crate::id_map::IdMap;
use crate::origin::Origin;

/// How many idle connections are kept, and for how long. Connections beyond the limits are kept for [`SURPLUS_AGE`], unless a
/// limit is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) per_origin: usize,
    pub(crate) over_all: usize,
    /// Maximum idle time of a connection. Common servers close theirs after a minute.
    pub(crate) max_age: Duration,
}

/// Maximum idle time of connections beyond the limits. If many requests run at once, their connections become idle in bursts,
/// and each one that is closed after a burst has to be opened again for the next one.
const SURPLUS_AGE: Duration = Duration::from_secs(2);

/// Maximum number of concurrent preconnects that are not slow. Each needs a thread. A dial takes one or two round trips, so two
/// at a time prepare a few origins within a second.
const MAX_PROMPT_DIALS: usize = 2;

/// Maximum number of concurrent preconnects, including slow ones. Only if this many origins drop all packets do they delay the
/// preconnects of others, for the connect timeout.
const MAX_DIALS: usize = 8;

/// The idle connections of all origins, and what is wanted for each.
#[derive(Debug)]
pub(crate) struct IdleConnections<C> {
    limits: Limits,
    origins: IdMap<Origin, OriginPool<C>>,
    /// Number of dials started so far. The id of the last one.
    dials: u64,
}

/// A connection to preconnect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) origin: Origin,
    id: u64,
}

#[derive(Debug)]
struct OriginPool<C> {
    /// Idle connections, and since when. The one that has been idle longest comes first.
    ready: VecDeque<(C, Instant)>,
    /// Whether more connections are wanted.
    demand: Demand,
    /// New connections in a row that got no answer while a proven one did.
    unanswered: u32,
    /// The origin serves one connection at a time: others wait until that one is closed. Never reset.
    single_connection: Arc<AtomicBool>,
}

/// After this many new connections without an answer, the origin counts as serving one connection at a time. A single one may
/// only have lost a packet.
const UNANSWERED: u32 = 2;

impl<C> IdleConnections<C> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, origins: IdMap::default(), dials: 0 }
    }

    fn origin_pool(&mut self, origin: &Origin, now: Instant) -> &mut OriginPool<C> {
        self.origins.entry(origin.clone()).or_insert_with(|| OriginPool {
            ready: VecDeque::new(),
            demand: Demand::new(now),
            unanswered: 0,
            single_connection: Arc::default(),
        })
    }

    /// Takes the connection to `origin` that became idle last and for which `is_wanted` is true. Also returns the connections
    /// that are too old.
    pub(crate) fn checkout(
        &mut self,
        origin: &Origin,
        is_wanted: impl Fn(&C) -> bool,
        now: Instant,
    ) -> (Option<C>, Vec<C>) {
        let limits = self.limits;
        let Some(origin_pool) = self.origins.get_mut(origin) else { return (None, Vec::new()) };
        // Old connections to other origins are closed at the deadline: checking all here would cost time in each request.
        let old = origin_pool.expire(now, limits);
        origin_pool.demand.handle_request(now);
        // The last one: the server has had the least time to close it.
        let last = origin_pool.ready.iter().rposition(|(connection, _)| is_wanted(connection));
        (last.and_then(|at| origin_pool.ready.remove(at)).map(|(connection, _)| connection), old)
    }

    /// True if an idle connection to `origin` satisfies `is_wanted`.
    pub(crate) fn has(&self, origin: &Origin, is_wanted: impl Fn(&C) -> bool) -> bool {
        self.origins
            .get(origin)
            .is_some_and(|origin_pool| origin_pool.ready.iter().any(|(connection, _)| is_wanted(connection)))
    }

    /// True if connections to `origin` should be ready.
    pub(crate) fn is_wanted(&self, origin: &Origin) -> bool {
        self.origins.get(origin).is_some_and(|origin_pool| origin_pool.demand.wanted() > 0)
    }

    /// True if `origin` is known to serve one connection at a time.
    pub(crate) fn is_single_connection(&self, origin: &Origin) -> bool {
        self.origins
            .get(origin)
            .is_some_and(|origin_pool| origin_pool.single_connection.load(Ordering::Relaxed))
    }

    /// Records that a new connection to `origin` got no answer while a proven one did. True if this shows that the origin
    /// serves one connection at a time, which was not known before.
    pub(crate) fn handle_unanswered(&mut self, origin: &Origin) -> bool {
        let Some(origin_pool) = self.origins.get_mut(origin) else { return false };
        origin_pool.unanswered += 1;
        // Equal, not at least: the caller logs it once.
        origin_pool.unanswered == UNANSWERED && !origin_pool.single_connection.swap(true, Ordering::Relaxed)
    }

    /// Records that a new connection to `origin` got an answer.
    pub(crate) fn handle_answered(&mut self, origin: &Origin) {
        if let Some(origin_pool) = self.origins.get_mut(origin) {
            origin_pool.unanswered = 0;
        }
    }

    /// Adds an idle connection. Returns the connections to close.
    pub(crate) fn put(&mut self, origin: &Origin, connection: C, now: Instant) -> Vec<C> {
        let limits = self.limits;
        // A limit of zero turns keep-alive off, so it gets no surplus either.
        if limits.per_origin == 0 || limits.over_all == 0 {
            return vec![connection];
        }
        let origin_pool = self.origin_pool(origin, now);
        let gone = origin_pool.expire(now, limits);
        origin_pool.ready.push_back((connection, now));
        gone
    }

    /// True if more connections are idle than the limits allow, to `origin` or in total.
    pub(crate) fn has_surplus(&self, origin: &Origin) -> bool {
        let ready = self.origins.get(origin).map_or(0, |origin_pool| origin_pool.ready.len());
        ready > self.limits.per_origin || self.idle() > self.limits.over_all
    }

    /// Sets the number of connections to `origin` that should be ready while it is in use.
    pub(crate) fn want(&mut self, origin: &Origin, ready: usize, now: Instant) {
        // More would be closed again as surplus.
        let ready = ready.min(self.limits.per_origin);
        self.origin_pool(origin, now).demand.want(ready, now);
    }

    /// Adds a holder that keeps `ready` connections to `origin` preconnected. Returns the flag that becomes true if the origin
    /// turns out to serve one connection at a time.
    pub(crate) fn keep_preconnected(
        &mut self,
        origin: &Origin,
        ready: usize,
        now: Instant,
    ) -> Arc<AtomicBool> {
        // More would be closed again as surplus.
        let ready = ready.min(self.limits.per_origin);
        let origin_pool = self.origin_pool(origin, now);
        origin_pool.demand.add_holder(ready, now);
        Arc::clone(&origin_pool.single_connection)
    }

    /// Removes a holder of `ready` connections.
    pub(crate) fn stop_preconnecting(&mut self, origin: &Origin, ready: usize) {
        let ready = ready.min(self.limits.per_origin);
        if let Some(origin_pool) = self.origins.get_mut(origin) {
            origin_pool.demand.remove_holder(ready);
        }
    }

    /// A connection to open now. Report its result to [`handle_dialled`](Self::handle_dialled).
    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<Dial> {
        let max_age = self.limits.max_age;
        if !self.has_room_to_dial() || self.prompt_dials(now).count() >= MAX_PROMPT_DIALS {
            return None;
        }
        let (origin, origin_pool) =
            self.origins.iter_mut().find(|(_, origin_pool)| origin_pool.lacks(now, max_age))?;
        self.dials += 1;
        origin_pool.demand.handle_dial(self.dials, now);
        Some(Dial { origin: origin.clone(), id: self.dials })
    }

    fn has_room_to_dial(&self) -> bool {
        let dialling: usize = self.origins.values().map(|origin_pool| origin_pool.demand.dials()).sum();
        dialling < MAX_DIALS && self.idle() + dialling < self.limits.over_all
    }

    /// The time at which each dial that is not slow yet becomes slow.
    fn prompt_dials(&self, now: Instant) -> impl Iterator<Item = Instant> + '_ {
        let dials = self.origins.values().flat_map(|origin_pool| origin_pool.demand.slow_at());
        dials.filter(move |slow_at| *slow_at > now)
    }

    /// Records the result of a dial. A dial that began on another network is ignored.
    pub(crate) fn handle_dialled(&mut self, dial: &Dial, opened: bool) {
        if let Some(origin_pool) = self.origins.get_mut(&dial.origin) {
            origin_pool.demand.handle_dialled(dial.id, opened);
        }
    }

    /// Next time at which there is work that no request causes: to [`expire`](Self::expire) old connections, or to start dials
    /// that wait until running ones are slow.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let max_age = self.limits.max_age;
        let surplus_age = if self.idle() > self.limits.over_all { SURPLUS_AGE } else { Duration::MAX };
        let expires = self.origins.values().filter_map(|origin_pool| {
            let (_, since) = origin_pool.ready.front()?;
            Some(*since + origin_pool.max_age(self.limits).min(surplus_age))
        });
        let expires = expires.min();
        let is_waiting = self.has_room_to_dial()
            && self.origins.values().any(|origin_pool| origin_pool.lacks(now, max_age));
        let dials = if is_waiting { self.prompt_dials(now).min() } else { None };
        expires.into_iter().chain(dials).min()
    }

    /// Records that `origin` seems to have refused a connection as one too many. Returns its idle connections, because they may
    /// occupy the slot of the one in use, and stops preconnecting for a while.
    pub(crate) fn handle_refused(&mut self, origin: &Origin, now: Instant) -> Vec<C> {
        self.origin_pool(origin, now).demand.handle_refused(now);
        self.clear(Some(origin))
    }

    /// Forgets what was learned on the old network. Returns all connections, which do not work on the new one.
    pub(crate) fn change_network(&mut self) -> Vec<C> {
        for origin_pool in self.origins.values_mut() {
            origin_pool.demand.change_network();
            origin_pool.unanswered = 0;
        }
        self.clear(None)
    }

    /// Removes and returns the connections to `origin` that became idle before `since`.
    pub(crate) fn clear_older(&mut self, origin: &Origin, since: Instant) -> Vec<C> {
        let Some(origin_pool) = self.origins.get_mut(origin) else { return Vec::new() };
        // `ready` is in the order in which the connections became idle.
        let younger = origin_pool.ready.partition_point(|(_, idle_since)| *idle_since < since);
        origin_pool.ready.drain(..younger).map(|(connection, _)| connection).collect()
    }

    /// Removes and returns the connections to `origin`, or all if it is `None`.
    pub(crate) fn clear(&mut self, origin: Option<&Origin>) -> Vec<C> {
        let origins = self.origins.iter_mut().filter(|(key, _)| origin.is_none_or(|origin| *key == origin));
        origins
            .flat_map(|(_, origin_pool)| origin_pool.ready.drain(..))
            .map(|(connection, _)| connection)
            .collect()
    }

    /// Number of idle connections to all origins.
    pub(crate) fn idle(&self) -> usize {
        self.origins.values().map(|origin_pool| origin_pool.ready.len()).sum()
    }

    /// Removes and returns the connections that are too old, and forgets unused origins.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<C> {
        let max_age = self.limits.max_age;
        let limits = self.limits;
        let old = self.origins.values_mut().flat_map(|origin_pool| origin_pool.expire(now, limits));
        let mut gone: Vec<C> = old.collect();
        while self.idle() > limits.over_all {
            let Some(surplus) = self.pop_surplus(now) else { break };
            gone.push(surplus);
        }
        self.origins.retain(|_, origin_pool| {
            !origin_pool.ready.is_empty() || origin_pool.demand.is_in_use(max_age, now)
        });
        gone
    }

    /// Removes the connection that has been idle longest, if it is older than [`SURPLUS_AGE`].
    fn pop_surplus(&mut self, now: Instant) -> Option<C> {
        let since = |origin_pool: &&mut OriginPool<C>| origin_pool.ready.front().map(|(_, since)| *since);
        let origins = self.origins.values_mut().filter(|origin_pool| !origin_pool.ready.is_empty());
        let oldest = origins.min_by_key(|origin_pool| since(origin_pool))?;
        if since(&oldest)? + SURPLUS_AGE > now {
            return None;
        }
        oldest.ready.pop_front().map(|(connection, _)| connection)
    }
}

impl<C> OriginPool<C> {
    /// Removes and returns the connections that are too old, or too old for a surplus one.
    fn expire(&mut self, now: Instant, limits: Limits) -> Vec<C> {
        let mut gone = Vec::new();
        while self.ready.front().is_some_and(|(_, since)| *since + self.max_age(limits) <= now) {
            gone.extend(self.ready.pop_front().map(|(connection, _)| connection));
        }
        gone
    }

    /// Maximum idle time of the oldest connection.
    fn max_age(&self, limits: Limits) -> Duration {
        let is_surplus = self.ready.len() > limits.per_origin;
        if is_surplus { limits.max_age.min(SURPLUS_AGE) } else { limits.max_age }
    }

    fn lacks(&self, now: Instant, max_age: Duration) -> bool {
        // A second connection would only wait until the first one is closed.
        let is_useless = self.single_connection.load(Ordering::Relaxed);
        !is_useless && self.demand.is_unmet(self.ready.len(), max_age, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::demand::{REFUSED, SLOW_DIAL};
    use super::*;

    const AGE: Duration = Duration::from_secs(45);

    fn idle() -> IdleConnections<u32> {
        IdleConnections::new(Limits { per_origin: 3, over_all: 4, max_age: AGE })
    }

    fn origin(host: &str) -> Origin {
        Origin::new(false, host, 80)
    }

    #[test]
    fn the_connection_that_became_idle_last_is_taken_and_old_ones_are_removed() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        assert_eq!(idle.checkout(&a, |_| true, now), (None, vec![]));
        idle.put(&a, 1, now);
        idle.put(&a, 2, now + AGE / 2);
        assert_eq!(idle.checkout(&a, |_| true, now + AGE), (Some(2), vec![1]));
        assert_eq!(idle.checkout(&a, |_| true, now + AGE), (None, vec![]));
    }

    #[test]
    fn limits_hold_for_each_origin_and_over_all() {
        let now = Instant::now();
        let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
        for connection in 1..=3 {
            assert_eq!(idle.put(&a, connection, now), []);
        }
        assert!(!idle.has_surplus(&a));
        // A surplus connection is closed if it is not used again for a while.
        assert_eq!(idle.put(&a, 4, now), []);
        assert!(idle.has_surplus(&a));
        assert_eq!(idle.next_deadline(now), Some(now + SURPLUS_AGE));
        assert_eq!(idle.expire(now), []);
        assert_eq!(idle.expire(now + SURPLUS_AGE), [1]);
        let now = now + SURPLUS_AGE;
        assert_eq!(idle.put(&b, 5, now), []);
        assert_eq!(idle.put(&b, 6, now), []);
        assert!(idle.has_surplus(&b));
        assert_eq!(idle.expire(now), [2]);
        assert_eq!((idle.idle(), idle.has_surplus(&b)), (4, false));
        assert_eq!(idle.next_deadline(now), Some(now - SURPLUS_AGE + AGE));
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        for (per_origin, over_all) in [(0, 4), (4, 0)] {
            let mut idle = IdleConnections::new(Limits { per_origin, over_all, max_age: AGE });
            assert_eq!(idle.put(&origin("a"), 1, Instant::now()), [1]);
        }
    }

    #[test]
    fn missing_connections_are_dialled_once_and_again_after_a_checkout() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        assert_eq!(idle.poll_dial(now), None);
        idle.want(&a, 2, now);
        let dials: Vec<Dial> = std::iter::from_fn(|| idle.poll_dial(now)).collect();
        assert!(dials.iter().all(|dial| dial.origin == a) && dials.len() == 2, "{dials:?}");
        for (connection, dial) in [1, 2].into_iter().zip(&dials) {
            idle.handle_dialled(dial, true);
            idle.put(&a, connection, now);
        }
        assert_eq!(idle.poll_dial(now), None);
        assert_eq!(idle.checkout(&a, |_| true, now), (Some(2), vec![]));
        assert_eq!(idle.poll_dial(now).map(|dial| dial.origin), Some(a));
    }

    #[test]
    fn nothing_is_dialled_for_an_origin_that_fails_or_is_unused() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        idle.keep_preconnected(&a, 1, now);
        let first = idle.poll_dial(now).unwrap();
        idle.handle_dialled(&first, false);
        assert_eq!(idle.poll_dial(now), None);
        idle.checkout(&a, |_| true, now + AGE / 2);
        assert_eq!(idle.poll_dial(now + 2 * AGE), None);
        let second = idle.poll_dial(now + AGE).unwrap();
        idle.handle_dialled(&second, true);
        idle.stop_preconnecting(&a, 1);
        assert_eq!(idle.poll_dial(now + AGE), None);
    }

    #[test]
    fn the_holder_that_needs_most_connections_decides() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        let dials = |idle: &mut IdleConnections<u32>| {
            let dials: Vec<Dial> = std::iter::from_fn(|| idle.poll_dial(now)).collect();
            dials.iter().for_each(|dial| idle.handle_dialled(dial, true));
            dials.len()
        };
        idle.keep_preconnected(&a, 1, now);
        idle.keep_preconnected(&a, 2, now);
        assert_eq!(dials(&mut idle), 2);
        idle.put(&a, 1, now);
        assert_eq!(dials(&mut idle), 1);
        idle.stop_preconnecting(&a, 2);
        assert_eq!(dials(&mut idle), 0);
        idle.checkout(&a, |_| true, now);
        assert_eq!(dials(&mut idle), 1);
        idle.stop_preconnecting(&a, 1);
        assert_eq!(dials(&mut idle), 0);
        // No more than may be idle: the others would be closed again.
        idle.keep_preconnected(&a, 100, now);
        assert_eq!(idle.origins[&a].demand.wanted(), 3);
    }

    #[test]
    fn nothing_is_dialled_for_an_origin_that_serves_one_connection_at_a_time() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        let single_connection = idle.keep_preconnected(&a, 1, now);
        assert!(!idle.handle_unanswered(&a));
        idle.handle_answered(&a);
        assert!(!idle.handle_unanswered(&a));
        let first = idle.poll_dial(now).unwrap();
        idle.handle_dialled(&first, true);
        assert!(idle.handle_unanswered(&a) && single_connection.load(Ordering::Relaxed));
        assert_eq!(idle.poll_dial(now), None);
        // An answer on a new connection proves nothing: no other connection was open then.
        idle.handle_answered(&a);
        assert!(idle.keep_preconnected(&a, 1, now).load(Ordering::Relaxed));
    }

    #[test]
    fn a_checkout_skips_connections_that_do_not_match() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        drop(idle.put(&a, 1, now));
        drop(idle.put(&a, 2, now));
        assert!(idle.has(&a, |connection| *connection == 1) && !idle.has(&a, |connection| *connection == 3));
        assert_eq!(idle.checkout(&a, |connection| *connection == 1, now).0, Some(1));
        assert_eq!(idle.checkout(&a, |connection| *connection == 1, now).0, None);
    }

    #[test]
    fn a_cleared_pool_returns_all_connections_and_is_filled_again() {
        let now = Instant::now();
        let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
        idle.want(&a, 1, now);
        idle.put(&a, 1, now);
        idle.put(&b, 2, now);
        assert_eq!(idle.clear(Some(&b)), [2]);
        assert_eq!(idle.clear(None), [1]);
        assert_eq!(idle.poll_dial(now).map(|dial| dial.origin), Some(a));
    }

    #[test]
    fn slow_dials_delay_no_other_origin_and_are_limited() {
        let now = Instant::now();
        let limits = Limits { per_origin: 3, over_all: 100, max_age: AGE };
        let mut idle = IdleConnections::<u32>::new(limits);
        (0..20).for_each(|host| drop(idle.keep_preconnected(&origin(&host.to_string()), 1, now)));
        let mut dialled = std::collections::HashSet::new();
        for step in 0..4 {
            let now = now + step * SLOW_DIAL;
            for _ in 0..MAX_PROMPT_DIALS {
                assert!(dialled.insert(idle.poll_dial(now).unwrap().origin), "one origin has two");
            }
            assert_eq!(idle.poll_dial(now), None);
            let next = (step < 3).then_some(now + SLOW_DIAL);
            assert_eq!(idle.next_deadline(now), next);
        }
        assert_eq!(idle.poll_dial(now + 10 * SLOW_DIAL), None);
        assert_eq!(dialled.len(), MAX_DIALS);
    }

    #[test]
    fn an_origin_whose_dial_is_slow_gets_no_second_one() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        idle.want(&a, 1, now);
        let first = idle.poll_dial(now).unwrap();
        idle.want(&a, 2, now);
        assert_eq!(idle.poll_dial(now + SLOW_DIAL), None);
        idle.handle_dialled(&first, true);
        assert!(idle.poll_dial(now + SLOW_DIAL).is_some());
    }

    #[test]
    fn a_changed_network_forgets_what_failed_and_what_is_being_dialled() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        idle.want(&a, 1, now);
        let failed = idle.poll_dial(now).unwrap();
        idle.handle_dialled(&failed, false);
        assert_eq!(idle.change_network(), []);
        let hanging = idle.poll_dial(now).unwrap();
        assert_eq!(idle.change_network(), []);
        let good = idle.poll_dial(now).unwrap();
        // The dial began on the old network.
        idle.handle_dialled(&hanging, false);
        idle.handle_dialled(&good, true);
        idle.put(&a, 1, now);
        assert_eq!(idle.checkout(&a, |_| true, now).0, Some(1));
        assert!(idle.poll_dial(now).is_some());
        idle.put(&a, 2, now);
        drop(idle.handle_refused(&a, now));
        drop(idle.change_network());
        assert!(idle.poll_dial(now).is_some());
    }

    #[test]
    fn an_origin_that_refuses_loses_its_idle_connections_and_is_not_preconnected_for_a_while() {
        let now = Instant::now();
        let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
        idle.keep_preconnected(&a, 1, now);
        idle.put(&a, 1, now);
        idle.put(&b, 2, now);
        assert_eq!(idle.handle_refused(&a, now), [1]);
        idle.checkout(&a, |_| true, now + REFUSED / 2);
        assert_eq!(idle.poll_dial(now + REFUSED / 2), None);
        idle.checkout(&a, |_| true, now + REFUSED);
        assert!(idle.poll_dial(now + REFUSED).is_some());
    }

    #[test]
    fn connections_that_became_idle_before_a_time_are_removed() {
        let now = Instant::now();
        let (mut idle, a) = (idle(), origin("a"));
        idle.put(&a, 1, now);
        idle.put(&a, 2, now + AGE / 4);
        assert_eq!(idle.clear_older(&a, now + AGE / 4), [1]);
        assert_eq!(idle.clear_older(&origin("b"), now), []);
        assert_eq!(idle.idle(), 1);
    }

    #[test]
    fn the_next_deadline_is_that_of_the_oldest() {
        let now = Instant::now();
        let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
        assert_eq!(idle.next_deadline(now), None);
        idle.put(&a, 1, now);
        idle.put(&b, 2, now + AGE / 2);
        assert_eq!(idle.next_deadline(now), Some(now + AGE));
        assert_eq!(idle.expire(now + AGE), [1]);
        assert_eq!(idle.next_deadline(now + AGE), Some(now + AGE / 2 + AGE));
    }
}
