//! What is checked after each step of a run, and at its end.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::pull::State;
use super::super::{Counts, Limits, Origin, PROTECTED, WorkerId};
use super::model::{Checked, Event, Item, ORIGINS, SimFetch, SimPeer, Wait, Work, fail};
use super::sim::Sim;
use crate::types::Priority;

/// Within this long urgent work begins if a worker can make room: the schedule's limit for a preemption, and what an answer of
/// a peer and the closing of a connection take here.
pub(super) const AT_ONCE: Duration = Duration::from_millis(10);

/// For what the simulator rounds.
const MILLI: Duration = Duration::from_millis(1);

impl Sim {
    /// What the workers of the pool have.
    fn pool(&self) -> impl Iterator<Item = Option<&Work>> {
        self.workers.iter().take(self.scenario.limits.workers).map(Option::as_ref)
    }

    pub(super) fn is_lent(&self, worker: WorkerId) -> bool {
        worker >= self.scenario.limits.workers
    }

    /// True if urgent work waits for a worker.
    fn has_urgent(&self) -> bool {
        let mut fetches = self.fetches.values();
        fetches.any(|fetch| fetch.is_urgent_and_waits(self.now)) || self.peers.iter().any(SimPeer::has_urgent)
    }

    pub(super) fn urgent_begins(&mut self, worker: WorkerId) -> Checked {
        self.check_urgent()?;
        self.last_urgent = Some(self.now);
        // Work on a lent thread is no progress for the urgent work that needs a worker.
        if !self.is_lent(worker) {
            (self.urgent_waits, self.urgent_could_begin) = (None, None);
        }
        Ok(())
    }

    fn check_urgent(&self) -> Checked {
        let since =
            |at: Option<Instant>| at.map_or(Duration::ZERO, |at| self.now.saturating_duration_since(at));
        let (at_most, at_once) = (since(self.urgent_waits), since(self.urgent_could_begin));
        prop_assert!(
            at_once <= AT_ONCE,
            "urgent work waited {at_once:?} beside a turn that is not protected"
        );
        prop_assert!(at_most <= PROTECTED + AT_ONCE, "urgent work waited {at_most:?} beside protected turns");
        Ok(())
    }

    /// Notes since when urgent work waits although not all workers run urgent work, and since when it does although a worker has
    /// anything but a protected turn. A worker whose abort takes effect late can make no room.
    fn note_urgent(&mut self) -> Checked {
        self.check_urgent()?;
        let is_other = |work: &Option<&Work>| !work.is_some_and(|work| work.is_urgent() || work.is_stuck);
        let is_free = |work: Option<&Work>| !work.is_some_and(|work| work.is_protected(self.now));
        let waits = self.has_urgent() && self.pool().any(|work| is_other(&work));
        let could = waits && self.pool().filter(is_other).any(is_free);
        let begin = self.now.max(self.stuck_until);
        self.urgent_waits = waits.then(|| self.urgent_waits.unwrap_or(begin));
        self.urgent_could_begin = could.then(|| self.urgent_could_begin.unwrap_or(begin));
        Ok(())
    }

    pub(super) fn note(&mut self) -> Checked {
        self.note_urgent()?;
        self.note_prefetches();
        Ok(())
    }

    /// Notes which prefetches wait in a queue, and which of them have aged.
    fn note_prefetches(&mut self) {
        let mut queued = self.queued_fetches();
        queued.extend(self.announced());
        // Both are in the order of `Item`.
        let is_there = |item: &Item| queued.binary_search_by_key(item, |(item, _)| *item).is_ok();
        self.waits.retain(|item, _| is_there(item));
        for (item, waiting_since) in queued {
            if self.waits.contains_key(&item) {
                continue;
            }
            let begin = self.now.max(waiting_since + self.scenario.limits.aging_threshold);
            self.waits.insert(item, Wait { waiting_since, begin, before: None });
            self.after(begin - self.now, Event::Look);
        }
        self.note_aged();
    }

    fn queued_fetches(&mut self) -> Vec<(Item, Instant)> {
        let backlog = &self.schedule.backlog;
        let mut queued = Vec::new();
        for (request, fetch) in &mut self.fetches {
            if !backlog.is_queued_prefetch(*request) {
                if backlog.is_blocked(*request) {
                    (fetch.was_blocked, fetch.is_preempted) = (true, false);
                }
                continue;
            }
            // It has not waited in the queue while it was blocked, or waited for its next attempt.
            let is_new = !self.waits.contains_key(&Item::Fetch(*request));
            if is_new && (std::mem::take(&mut fetch.was_blocked) || fetch.retry.take().is_some()) {
                fetch.waiting_since = self.now;
            }
            queued.push((Item::Fetch(*request), fetch.waiting_since));
        }
        queued
    }

    fn announced(&mut self) -> Vec<(Item, Instant)> {
        let mut queued = Vec::new();
        for (index, peer) in self.peers.iter_mut().enumerate().filter(|(_, peer)| !peer.is_gone) {
            let (Some(since), Some(pull)) = (&mut peer.low_since, self.schedule.backlog.pull(peer.key))
            else {
                continue;
            };
            // It has not waited in the queue while a fetch of the peer was blocked.
            if std::mem::replace(&mut peer.was_blocked, pull.has_blocked()) {
                *since = self.now;
            }
            let is_waiting =
                matches!(pull.state(), State::Queued(_) | State::Asking { serves: Priority::High, .. });
            if is_waiting && !pull.has_blocked() {
                queued.push((Item::Pull(index), *since));
            }
        }
        queued
    }

    /// Notes how many others are as old as each prefetch that has aged now.
    fn note_aged(&mut self) {
        let is_due = |wait: &Wait| wait.before.is_none() && wait.begin <= self.now;
        let due = self.waits.iter().filter(|(_, wait)| is_due(wait));
        let due: Vec<(Item, Instant)> = due.map(|(item, wait)| (*item, wait.waiting_since)).collect();
        for (item, waiting_since) in due {
            let queued = self
                .waits
                .iter()
                .filter(|(other, wait)| **other != item && wait.waiting_since <= waiting_since)
                .count();
            let running = self.workers.iter().flatten();
            let running =
                running.filter(|work| !work.is_urgent() && work.waiting_since <= waiting_since).count();
            if let Some(wait) = self.waits.get_mut(&item) {
                wait.before = Some((queued + running) as u32);
            }
        }
    }

    pub(super) fn wait_is_over(&mut self, item: Item) {
        if let Some(Wait { begin, before: Some(before), .. }) = self.waits.remove(&item) {
            self.waited.push((self.now - begin, before));
        }
    }

    /// Workers of the pool that have something of priority Low.
    fn low(&self) -> usize {
        self.pool().flatten().filter(|work| work.priority == Priority::Low).count()
    }

    /// Prefetches that run or were preempted, by origin.
    fn active(&self) -> [usize; ORIGINS] {
        let mut active = [0; ORIGINS];
        for fetch in self.fetches.values() {
            let is_active = fetch.priority == Priority::Low && (fetch.is_running || fetch.is_preempted);
            active[fetch.origin.0 as usize] += usize::from(is_active);
        }
        active
    }

    pub(super) fn check_limits(&self) -> Checked {
        let Limits { workers, reserved, max_preempted, max_per_origin, .. } = self.scenario.limits;
        let counts = self.schedule.counts();
        prop_assert!(counts.preempted <= max_preempted, "{counts:?}");
        let running = self.pool().flatten().count();
        prop_assert_eq!((counts.running, counts.idle), (running, workers - running));
        let protected = self.pool().flatten().filter(|work| work.is_protected(self.now)).count();
        let unreserved = workers - reserved;
        prop_assert!(protected <= (unreserved / 2).max(1), "{protected} turns are protected at once");
        // Only a demotion may pass these limits. A fetch that its reader leaves is demoted, too.
        if self.scenario.churn_every == 0 {
            prop_assert!(self.low() <= unreserved, "a prefetch has a reserved worker");
            if self.scenario.lend_every == 0 {
                prop_assert!(self.active().iter().all(|active| *active <= max_per_origin));
            }
        }
        Ok(())
    }

    /// No urgent work waits if its reader lends a thread.
    pub(super) fn check_lent(&self) -> Checked {
        for peer in self.peers.iter().filter(|peer| peer.lenders > 0 && !peer.is_gone) {
            prop_assert!(!peer.has_urgent(), "a peer is not asked although a reader lends its thread");
        }
        if self.peers.iter().all(|peer| peer.lenders == 0) {
            return Ok(());
        }
        for (request, fetch) in &self.fetches {
            let is_free = self.peers[fetch.peer].lenders > 0;
            let waits = is_free && fetch.is_urgent_and_waits(self.now);
            prop_assert!(!waits, "{request} is urgent and waits although a reader lends its thread");
        }
        Ok(())
    }

    /// True if the origin serves one connection at a time, and urgent work of it is on a worker.
    pub(super) fn is_reserved(&self, origin: Origin) -> bool {
        let is_urgent = |fetch: &SimFetch| fetch.is_running && fetch.priority == Priority::High;
        origin.0 < self.scenario.single_connections
            && self.fetches.values().any(|fetch| fetch.origin == origin && is_urgent(fetch))
    }

    /// [`is_reserved`](Self::is_reserved), by origin.
    fn reserved(&self) -> [bool; ORIGINS] {
        std::array::from_fn(|origin| self.is_reserved(Origin(origin as u64)))
    }

    /// No prefetch of a reserved origin has a connection.
    pub(super) fn check_single_connections(&self) -> Checked {
        let reserved = self.reserved();
        if !reserved.contains(&true) {
            return Ok(());
        }
        for work in
            self.workers.iter().flatten().filter(|work| work.priority == Priority::Low && !work.is_aborted)
        {
            let fetch = work.request.and_then(|request| self.fetches.get(&request));
            let is_reserved = fetch.is_some_and(|fetch| reserved[fetch.origin.0 as usize]);
            prop_assert!(!is_reserved, "a prefetch runs although its origin is reserved");
        }
        for (request, fetch) in self.fetches.iter().filter(|(_, fetch)| fetch.has_body) {
            let is_reserved = reserved[fetch.origin.0 as usize];
            prop_assert!(!is_reserved, "{request} keeps the connection of a reserved origin");
        }
        Ok(())
    }

    /// No worker is idle beside what it may run.
    pub(super) fn check_idle(&self) -> Checked {
        if self.pool().all(|work| work.is_some()) {
            return Ok(());
        }
        prop_assert!(!self.has_urgent(), "urgent work waits beside an idle worker");
        let Limits { workers, reserved, max_per_origin, prefetch_delay, .. } = self.scenario.limits;
        let is_throttled = self.last_urgent.is_some_and(|at| self.now < at + prefetch_delay);
        if self.low() >= workers - reserved || is_throttled {
            return Ok(());
        }
        let (reserved, active) = (self.reserved(), self.active());
        for (request, fetch) in self.fetches.iter().filter(|(_, fetch)| !fetch.is_running) {
            let origin = fetch.origin.0 as usize;
            let waits = fetch.retry.is_some_and(|at| at > self.now)
                || reserved[origin]
                || active[origin] >= max_per_origin && !fetch.is_preempted;
            prop_assert!(waits, "{request} waits beside an idle worker");
        }
        for peer in self.peers.iter().filter(|peer| !peer.is_gone && !peer.is_asking) {
            let is_held = self.fetches.values().any(|fetch| {
                self.peers[fetch.peer].key == peer.key && !fetch.is_running && !fetch.is_preempted
            });
            prop_assert!(peer.woken.is_none() || is_held, "a peer waits to be asked beside an idle worker");
        }
        Ok(())
    }

    pub(super) fn check_nothing_before(&mut self, next: Instant) -> Checked {
        let before = next - Duration::from_nanos(1);
        if before > self.now {
            prop_assert_eq!(self.schedule.poll_assignment(before), None, "work that no deadline announced");
            let aborted = self.schedule.poll_abort(before, 0, |worker| worker);
            prop_assert_eq!(aborted, None, "an abort that no deadline announced");
        }
        Ok(())
    }

    pub(super) fn check_end(&self) -> Checked {
        prop_assert!(self.fetches.is_empty(), "lost: {:?}", self.fetches);
        prop_assert_eq!(self.ended, self.accepted);
        let planned: Vec<_> = self.peers.iter().flat_map(|peer| &peer.plan).collect();
        prop_assert!(planned.is_empty(), "peers were not asked for {planned:?}");
        let counts = self.schedule.counts();
        let expected =
            Counts { idle: self.scenario.limits.workers, peers: counts.peers, ..Counts::default() };
        prop_assert_eq!(counts, expected);
        if self.workers.iter().any(Option::is_some) {
            return fail("a worker has something that has ended");
        }
        prop_assert!(self.schedule.backlog.is_empty(), "{:?}", self.schedule.backlog);
        self.waited.iter().try_for_each(|(waited, before)| self.check_wait(*waited, *before))
    }

    /// A prefetch waited for its own turn to begin, and for each turn before it.
    fn check_wait(&self, waited: Duration, before: u32) -> Checked {
        let room = AT_ONCE.max(self.longest_silence);
        let most = (PROTECTED + self.longest_urgent + room) * (before + 1) + MILLI;
        prop_assert!(
            waited <= most,
            "a prefetch waited {waited:?} with {before} before it; urgent turns took up to {:?}, silences {:?}",
            self.longest_urgent,
            self.longest_silence
        );
        Ok(())
    }
}
