//! The simulator: jumps from event to event, and does what the threads around a schedule do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Assignment, FetchInfo, Origin, PeerKey, Schedule, WorkerId};
use super::model::{Checked, Event, Item, MICRO, Random, SimFetch, SimPeer, Wait, Work, fail};
use super::scenario::Scenario;
use crate::types::{Priority, RequestId};

pub(super) struct Sim {
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    pub(super) schedule: Schedule,
    start: Instant,
    pub(super) now: Instant,
    /// By time, and in the order in which they were added.
    events: BTreeMap<(Instant, u64), Event>,
    /// Grows with every event and turn.
    pub(super) serial: u64,
    pub(super) peers: Vec<SimPeer>,
    /// Those that have not ended.
    pub(super) fetches: BTreeMap<RequestId, SimFetch>,
    pub(super) accepted: u64,
    pub(super) ended: u64,
    /// Those of the pool, and then lent threads.
    pub(super) workers: Vec<Option<Work>>,
    /// Prefetches that should make room at their next chunk.
    pub(super) preemptions: usize,
    pub(super) last_urgent: Option<Instant>,
    /// See [`note_urgent`](Self::note_urgent).
    pub(super) urgent_waits: Option<Instant>,
    pub(super) urgent_could_begin: Option<Instant>,
    /// Until then the schedule relies on an abort that takes effect late.
    pub(super) stuck_until: Instant,
    pub(super) waits: BTreeMap<Item, Wait>,
    pub(super) longest_urgent: Duration,
    pub(super) longest_silence: Duration,
    /// How long prefetches waited after they had aged, and how many were as old.
    pub(super) waited: Vec<(Duration, u32)>,
    /// Deadlines in a row that passed without effect.
    idle_deadlines: u32,
    /// Grows with everything that the schedule decides.
    decisions: u64,
    /// Nothing new comes any more.
    pub(super) is_ending: bool,
}

impl Sim {
    pub(super) fn new(scenario: Scenario) -> Self {
        let now = Instant::now();
        Self {
            random: Random(scenario.seed),
            schedule: Schedule::new(scenario.limits),
            start: now,
            now,
            events: BTreeMap::new(),
            serial: 0,
            peers: Vec::new(),
            fetches: BTreeMap::new(),
            accepted: 0,
            ended: 0,
            workers: vec![None; scenario.limits.workers],
            preemptions: 0,
            last_urgent: None,
            urgent_waits: None,
            urgent_could_begin: None,
            stuck_until: now,
            waits: BTreeMap::new(),
            longest_urgent: Duration::ZERO,
            longest_silence: Duration::ZERO,
            waited: Vec::new(),
            idle_deadlines: 0,
            decisions: 0,
            is_ending: false,
            scenario,
        }
    }

    /// Registers the first peers, and plans the first events.
    fn begin(&mut self) {
        for _ in 0..4 {
            self.register();
        }
        for origin in 0..self.scenario.single_connections {
            self.schedule.handle_single_connection(Origin(origin));
        }
        self.after(Duration::ZERO, Event::Urgent);
        self.after(Duration::ZERO, Event::Prefetch);
        for (every, event) in
            [(self.scenario.lend_every, Event::Lend), (self.scenario.churn_every, Event::Churn)]
        {
            if every > 0 {
                self.after(Duration::ZERO, event);
            }
        }
        for _ in 0..self.scenario.backlog {
            self.plan_prefetch();
        }
    }

    pub(super) fn after(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + after, self.serial), event);
    }

    /// Runs all events, and then what is left to its end.
    pub(super) fn run(mut self) -> Checked {
        self.begin();
        self.settle()?;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.schedule.next_deadline(self.now);
            let Some(next) = event.into_iter().chain(deadline).min() else { break };
            self.check_nothing_before(next)?;
            self.is_ending |= next > self.start + self.scenario.length;
            self.now = next;
            let before = (self.decisions, self.schedule.counts());
            if event == Some(next) {
                let Some((_, event)) = self.events.pop_first() else { break };
                if matches!(event, Event::Look) && deadline != Some(next) {
                    self.note()?;
                    continue;
                }
                self.handle(event)?;
                self.settle()?;
                self.idle_deadlines = 0;
            } else {
                self.settle()?;
                let has_effect = before != (self.decisions, self.schedule.counts());
                self.idle_deadlines = if has_effect { 0 } else { self.idle_deadlines + 1 };
                prop_assert!(self.idle_deadlines < 16, "deadlines pass and nothing comes of it");
            }
        }
        self.check_end()
    }

    /// All that can be done now, as the thread does that applies the messages.
    fn settle(&mut self) -> Checked {
        while let Some((worker, assignment)) = self.schedule.poll_assignment(self.now) {
            prop_assert!(worker < self.scenario.limits.workers, "a lent thread is taken for a worker");
            self.decisions += 1;
            self.assign(worker, assignment)?;
            if self.random.chance(self.scenario.blocked) {
                self.unserved(worker)?;
            }
        }
        self.settle_lent()?;
        let progressed: Vec<_> = self.workers.iter().map(|work| work.map(|work| work.progressed)).collect();
        while let Some(worker) = self.schedule.poll_abort(self.now, 0, |worker| progressed[worker]) {
            self.decisions += 1;
            self.abort(worker)?;
        }
        self.close_bodies();
        let preemptions = self.schedule.poll_preemptions(self.now);
        self.decisions += u64::from(preemptions != self.preemptions);
        self.preemptions = preemptions;
        let deadline = self.schedule.next_deadline(self.now);
        prop_assert!(deadline.is_none_or(|at| at > self.now), "a deadline that has come is announced again");
        prop_assert!(!self.schedule.is_overlooking(self.now));
        self.note()?;
        self.check_limits()?;
        self.check_lent()?;
        self.check_single_connections()?;
        self.check_idle()
    }

    /// Gives urgent work to lent threads. Some of their readers have continued without it, and give it back.
    fn settle_lent(&mut self) -> Checked {
        while let Some(key) = self.schedule.next_lent() {
            let peer = self.index(key)?;
            if self.peers[peer].lenders == 0 {
                self.schedule.set_lent(key, false);
                continue;
            }
            self.peers[peer].lenders -= 1;
            let assigned = self.schedule.assign_lent(key, self.now);
            let Some((worker, assignment)) = assigned else { return fail("no work for a lent thread") };
            prop_assert!(self.schedule.is_lent(worker) && worker >= self.scenario.limits.workers);
            self.workers.resize(self.workers.len().max(worker + 1), None);
            self.decisions += 1;
            self.assign(worker, assignment)?;
            prop_assert!(self.workers[worker].is_some_and(|work| work.peer == peer), "work of another peer");
            if self.random.chance(10) {
                self.give_back(worker)?;
            }
        }
        Ok(())
    }

    /// Closes the bodies of the fetches that wait for a reserved origin.
    fn close_bodies(&mut self) {
        let origins: Vec<_> = std::iter::from_fn(|| self.schedule.poll_reserved()).collect();
        if origins.is_empty() {
            return;
        }
        for (request, fetch) in &mut self.fetches {
            if origins.contains(&fetch.origin) && !fetch.is_running {
                fetch.has_body = false;
                self.schedule.handle_body_closed(*request);
            }
        }
    }

    pub(super) fn index(&self, key: PeerKey) -> Result<usize, TestCaseError> {
        let index = self.peers.iter().position(|peer| peer.key == key);
        index.ok_or_else(|| TestCaseError::fail("an unknown peer"))
    }

    fn handle(&mut self, event: Event) -> Checked {
        let Scenario { urgent_every, prefetch_every, lend_every, churn_every, .. } = self.scenario;
        match event {
            Event::Look => {}
            Event::Urgent | Event::Prefetch | Event::Lend | Event::Churn if self.is_ending => {}
            Event::Urgent => {
                let burst = if self.random.chance(10) { self.random.below(10) } else { 1 };
                for _ in 0..burst {
                    self.add_urgent()?;
                }
                self.again(urgent_every, Event::Urgent);
            }
            Event::Prefetch => {
                self.plan_prefetch();
                self.again(prefetch_every, Event::Prefetch);
            }
            Event::Lend => {
                self.lend();
                self.again(lend_every, Event::Lend);
            }
            Event::Unlend(peer) => self.peers[peer].lenders = self.peers[peer].lenders.saturating_sub(1),
            Event::Churn => {
                self.churn()?;
                self.again(churn_every, Event::Churn);
            }
            Event::Answer(worker, turn) if self.has(worker, turn) => self.answer(worker)?,
            Event::Chunk(worker, turn) if self.has(worker, turn) => self.chunk(worker)?,
            Event::Closed(worker, turn) if self.has(worker, turn) => self.closed(worker)?,
            Event::CameBack(worker, turn) if self.has(worker, turn) => self.came_back(worker),
            Event::Answer(..) | Event::Chunk(..) | Event::Closed(..) | Event::CameBack(..) => {}
        }
        Ok(())
    }

    fn again(&mut self, every: u64, event: Event) {
        let after = self.random.millis(2 * every);
        self.after(after, event);
    }

    fn has(&self, worker: WorkerId, turn: u64) -> bool {
        self.workers[worker].is_some_and(|work| work.turn == turn)
    }

    fn some_peer(&mut self) -> Option<usize> {
        let alive: Vec<_> = (0..self.peers.len()).filter(|peer| !self.peers[*peer].is_gone).collect();
        self.random.pick(&alive)
    }

    fn some_fetch(&mut self) -> Option<RequestId> {
        let all: Vec<_> = self.fetches.keys().copied().collect();
        self.random.pick(&all)
    }

    fn register(&mut self) {
        let priority = self.random.priority();
        let key = self.schedule.handle_registered(priority);
        self.peers.push(SimPeer {
            key,
            is_gone: false,
            plan: Vec::new(),
            woken: None,
            is_asking: false,
            lenders: 0,
            low_since: None,
            was_blocked: false,
        });
    }

    pub(super) fn accept(&mut self, peer: usize, priority: Priority, origin: Origin) -> FetchInfo {
        self.accepted += 1;
        let request = RequestId::new(self.accepted).unwrap();
        let fetch = SimFetch {
            peer,
            priority,
            origin,
            chunks: 1 + self.random.below(self.scenario.chunks),
            is_preempted: false,
            is_running: false,
            has_body: false,
            was_blocked: false,
            retry: None,
            waiting_since: self.now,
        };
        self.fetches.insert(request, fetch);
        FetchInfo { request, priority, origin }
    }

    fn add_urgent(&mut self) -> Checked {
        let Some(peer) = self.some_peer() else { return Ok(()) };
        let origin = self.random.origin();
        if self.random.chance(20) {
            // Some peers wake for urgent work and have only other work.
            if self.random.chance(70) {
                self.peers[peer].plan.push((Priority::High, origin));
            }
            self.wake(peer, Priority::High);
        } else {
            let (key, fetch_info) = (self.peers[peer].key, self.accept(peer, Priority::High, origin));
            if let Some(worker) = self.schedule.try_run(key, fetch_info, self.now) {
                self.decisions += 1;
                return self
                    .assign(worker, Assignment::Run { request: fetch_info.request, protected: false });
            }
            prop_assert!(self.schedule.handle_submitted(key, fetch_info, self.now));
        }
        Ok(())
    }

    fn plan_prefetch(&mut self) {
        let Some(peer) = self.some_peer() else { return };
        // A whole playlist, at times. The peer answers that there is more, and is asked again without another wake.
        let many = if self.random.chance(5) { 30 } else { 1 };
        for _ in 0..many {
            let origin = self.random.origin();
            self.peers[peer].plan.push((Priority::Low, origin));
        }
        self.wake(peer, Priority::Low);
    }

    pub(super) fn wake(&mut self, peer: usize, priority: Priority) {
        let state = &mut self.peers[peer];
        state.woken = state.woken.max(Some(priority));
        if state.has_low() {
            state.low_since.get_or_insert(self.now);
        }
        self.schedule.handle_woken(state.key, priority, self.now);
    }

    fn lend(&mut self) {
        let Some(peer) = self.some_peer() else { return };
        self.peers[peer].lenders += 1;
        self.schedule.set_lent(self.peers[peer].key, true);
        let after = self.random.millis(200);
        self.after(after, Event::Unlend(peer));
    }

    fn churn(&mut self) -> Checked {
        let (peer, fetch, priority) = (self.some_peer(), self.some_fetch(), self.random.priority());
        match (self.random.below(13), peer, fetch) {
            (0, ..) => {
                self.register();
                // Wakes of peers that are gone have no effect.
                for peer in self.peers.iter().filter(|peer| peer.is_gone) {
                    self.schedule.handle_woken(peer.key, priority, self.now);
                }
                Ok(())
            }
            (1, Some(peer), _) => self.unregister(peer),
            (2, Some(peer), _) => self.cancel_peer(peer),
            (3 | 4, Some(peer), _) => {
                self.schedule.set_priority(self.peers[peer].key, priority);
                Ok(())
            }
            (5..=7, _, Some(request)) => {
                self.promote(request, priority);
                Ok(())
            }
            (8, Some(peer), _) => self.interrupt(peer),
            (9.., _, Some(request)) => self.cancel(request),
            _ => Ok(()),
        }
    }

    pub(super) fn promote(&mut self, request: RequestId, priority: Priority) {
        self.schedule.promote(request, priority, self.now);
        let now = self.now;
        let Some(fetch) = self.fetches.get_mut(&request) else { return };
        if fetch.priority == priority {
            return;
        }
        fetch.priority = priority;
        if fetch.retry.is_none() && !fetch.is_running {
            fetch.is_preempted = false;
        }
        fetch.waiting_since = now;
        self.waits.remove(&Item::Fetch(request));
        let Some(worker) = self.worker_of(request) else { return };
        self.end_urgent_time(worker);
        if let Some(work) = &mut self.workers[worker] {
            (work.priority, work.protected, work.waiting_since) = (priority, false, now);
            work.urgent_since = (priority == Priority::High).then_some(now);
        }
    }

    pub(super) fn worker_of(&self, request: RequestId) -> Option<WorkerId> {
        self.workers.iter().position(|work| work.is_some_and(|work| work.request == Some(request)))
    }

    fn cancel(&mut self, request: RequestId) -> Checked {
        let Some(fetch) = self.fetches.get_mut(&request) else { return Ok(()) };
        let waited = self.schedule.handle_cancelled(request, self.now);
        prop_assert_eq!(waited, !fetch.is_running);
        if waited {
            return self.end(request);
        }
        // It notices soon.
        fetch.chunks = 1;
        if let Some(worker) = self.worker_of(request) {
            let turn = self.workers[worker].map_or(0, |work| work.turn);
            self.after(MICRO * 100, Event::Chunk(worker, turn));
        }
        Ok(())
    }

    /// Blocked readers of a peer stop waiting. What their threads run is given back.
    fn interrupt(&mut self, peer: usize) -> Checked {
        // A question is answered first.
        let runs = |work: Work| work.peer == peer && work.request.is_some();
        let lent = self.scenario.limits.workers..self.workers.len();
        let lent: Vec<_> = lent.filter(|worker| self.workers[*worker].is_some_and(runs)).collect();
        self.peers[peer].lenders = 0;
        lent.into_iter().try_for_each(|worker| self.preempted(worker, false))
    }

    fn waiting_of(&self, peer: usize) -> Vec<RequestId> {
        let waiting = self.fetches.iter().filter(|(_, fetch)| fetch.peer == peer && !fetch.is_running);
        waiting.map(|(request, _)| *request).collect()
    }

    fn unregister(&mut self, peer: usize) -> Checked {
        let mut orphans = self.schedule.handle_unregistered(self.peers[peer].key, self.now);
        orphans.sort();
        prop_assert_eq!(&orphans, &self.waiting_of(peer));
        self.forget(peer);
        orphans.into_iter().try_for_each(|request| self.end(request))
    }

    fn cancel_peer(&mut self, peer: usize) -> Checked {
        self.schedule.handle_peer_cancelled(self.peers[peer].key);
        self.forget(peer);
        self.waiting_of(peer).into_iter().try_for_each(|request| self.cancel(request))
    }

    fn forget(&mut self, peer: usize) {
        let state = &mut self.peers[peer];
        state.is_gone = true;
        state.woken = None;
        state.low_since = None;
        state.plan.clear();
        self.waits.remove(&Item::Pull(peer));
    }

    /// The one end of a fetch.
    pub(super) fn end(&mut self, request: RequestId) -> Checked {
        self.waits.remove(&Item::Fetch(request));
        self.ended += 1;
        prop_assert!(self.fetches.remove(&request).is_some(), "{request} ends twice");
        Ok(())
    }
}
