//! Idle connections by origin: kept alive after a request, or preconnected. Pure: opens and closes nothing and reads no clock.
//! Connections that it no longer keeps are returned, so that the caller closes them outside its lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::demand::Demand;
use super::origin_pool::{Limits, MAX_HELD, OriginPool, SURPLUS_AGE};
use crate::id_map::IdMap;
use crate::origin::Origin;

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

    /// Records that a request to `origin`, which began at `began`, could not connect, or got no answer. Nothing is preconnected
    /// for a while, or until a new connection brings an answer.
    pub(crate) fn handle_failed(&mut self, origin: &Origin, began: Instant, now: Instant) {
        if let Some(origin_pool) = self.origins.get_mut(origin) {
            origin_pool.demand.handle_failed(began, now);
        }
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

    /// Records that a new connection to `origin` got an answer. True if connections may be preconnected again, which were not
    /// before.
    pub(crate) fn handle_answered(&mut self, origin: &Origin, now: Instant) -> bool {
        let Some(origin_pool) = self.origins.get_mut(origin) else { return false };
        origin_pool.unanswered = 0;
        origin_pool.demand.handle_answered(now)
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
        let origin_pool = self.origins.get(origin);
        origin_pool.is_some_and(|origin_pool| origin_pool.has_surplus(self.limits))
            || self.has_surplus_over_all()
    }

    fn has_surplus_over_all(&self) -> bool {
        let idle = self.idle();
        // In this order, because most programs never have more idle connections than the configured limit.
        idle > self.limits.over_all && idle > self.max_idle()
    }

    /// How many connections may be idle over all origins: the configured limit, or one for each open stream.
    fn max_idle(&self) -> usize {
        let holders = self.origins.values().map(|origin_pool| origin_pool.demand.holders());
        match self.limits.over_all {
            // Keep-alive is turned off.
            0 => 0,
            over_all => over_all.max(holders.sum::<usize>().min(MAX_HELD)),
        }
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

    /// Records that the connection of a holder was closed in the middle of a body. Another one is dialled, unless an idle one is left
    /// for each holder.
    pub(crate) fn handle_cut(&mut self, origin: &Origin) {
        if let Some(origin_pool) = self.origins.get_mut(origin) {
            origin_pool.demand.handle_cut();
        }
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
        // Each dial becomes an idle connection, and needs room among them.
        dialling < MAX_DIALS && self.idle() + dialling < self.max_idle()
    }

    /// The time at which each dial that is not slow yet becomes slow.
    fn prompt_dials(&self, now: Instant) -> impl Iterator<Item = Instant> + '_ {
        let dials = self.origins.values().flat_map(|origin_pool| origin_pool.demand.slow_at());
        dials.filter(move |slow_at| *slow_at > now)
    }

    /// Records the result of a dial. A dial that began on another network is ignored.
    pub(crate) fn handle_dialled(&mut self, dial: &Dial, opened: bool, now: Instant) {
        if let Some(origin_pool) = self.origins.get_mut(&dial.origin) {
            origin_pool.demand.handle_dialled(dial.id, opened, now);
        }
    }

    /// Next time at which there is work that no request causes: to [`expire`](Self::expire) old connections, or to start dials
    /// that wait until running ones are slow.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let max_age = self.limits.max_age;
        let expires = self.origins.values().filter_map(|origin_pool| {
            let (_, since) = origin_pool.ready.front()?;
            Some(*since + origin_pool.max_age(self.limits))
        });
        let surplus = self.surplus().map(|(_, since)| since + SURPLUS_AGE);
        let expires = expires.chain(surplus).min();
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
    pub(crate) fn change_network(&mut self, now: Instant) -> Vec<C> {
        for origin_pool in self.origins.values_mut() {
            origin_pool.demand.change_network(now);
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
        while let Some((origin, since)) = self.surplus() {
            if since + SURPLUS_AGE > now {
                break;
            }
            let origin = origin.clone();
            let oldest = self.origins.get_mut(&origin).and_then(|origin_pool| origin_pool.ready.pop_front());
            gone.extend(oldest.map(|(connection, _)| connection));
        }
        self.origins.retain(|_, origin_pool| {
            !origin_pool.ready.is_empty() || origin_pool.demand.is_in_use(max_age, now)
        });
        gone
    }

    /// If more connections are idle over all origins than may be: the origin of the one to close first, and since when that is
    /// idle. It is the oldest of its origin.
    fn surplus(&self) -> Option<(&Origin, Instant)> {
        if !self.has_surplus_over_all() {
            return None;
        }
        let oldest = self.origins.iter().filter_map(|(origin, origin_pool)| {
            let (_, since) = origin_pool.ready.front()?;
            // Those that no open stream needs go first, although others have been idle for longer.
            Some((!origin_pool.exceeds_holders(), *since, origin))
        });
        oldest.min_by_key(|(is_held, since, _)| (*is_held, *since)).map(|(_, since, origin)| (origin, since))
    }
}

#[cfg(test)]
mod tests;
