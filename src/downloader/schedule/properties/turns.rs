//! What happens on the workers of the simulator.

use proptest::prelude::*;

use super::super::preemption::PREEMPTION_LIMIT;
use super::super::pull::{Pull, State};
use super::super::{Admission, Answer, Assignment, Fruitless, PROTECTED, Preemption, Requeued, WorkerId};
use super::model::{CHUNK, Checked, Event, Item, MICRO, SHARE, Work, fail};
use super::sim::Sim;
use crate::types::{Priority, RequestId};

impl Sim {
    pub(super) fn assign(&mut self, worker: WorkerId, assignment: Assignment) -> Checked {
        prop_assert!(self.workers[worker].is_none(), "a worker has two things at once");
        self.serial += 1;
        let mut work = Work {
            turn: self.serial,
            peer: 0,
            request: None,
            admissible: Priority::High,
            priority: Priority::Low,
            since: self.now,
            urgent_since: None,
            progressed: self.now,
            bytes: 0,
            protected: false,
            is_aborted: false,
            is_stuck: false,
            woken: None,
            waiting_since: self.now,
        };
        match assignment {
            Assignment::Ask { peer, admissible } => {
                work.peer = self.index(peer)?;
                (work.admissible, work.priority) = (admissible, admissible);
                self.ask(worker, work)
            }
            Assignment::Run { request, protected } => {
                let Some(fetch) = self.fetches.get(&request).copied() else {
                    return fail("one that has ended is run");
                };
                prop_assert!(!fetch.is_running, "one that runs is run");
                prop_assert!(fetch.retry.is_none_or(|at| at <= self.now), "it was to wait");
                (work.peer, work.waiting_since) = (fetch.peer, fetch.waiting_since);
                self.run_fetch(worker, request, protected, work)
            }
        }
    }

    fn ask(&mut self, worker: WorkerId, mut work: Work) -> Checked {
        let peer = work.peer;
        let state = &mut self.peers[peer];
        prop_assert!(!state.is_gone && !state.is_asking, "{peer} must not be asked now");
        state.is_asking = true;
        work.waiting_since = state.low_since.unwrap_or(self.now);
        work.woken = state.woken.take();
        if work.woken == Some(Priority::High) {
            self.urgent_begins(worker)?;
        } else {
            prop_assert!(!self.is_lent(worker), "a lent thread asks for prefetches");
            self.wait_is_over(Item::Pull(peer));
        }
        prop_assert!(!self.is_lent(worker) || work.admissible == Priority::High);
        // The schedule reports it in its answer only, but keeps the place free.
        work.protected = self.schedule.workers.get(worker).is_some_and(|running| running.protected);
        self.workers[worker] = Some(work);
        let after = MICRO * self.random.below(500) as u32;
        self.after(after, Event::Answer(worker, work.turn));
        Ok(())
    }

    fn run_fetch(&mut self, worker: WorkerId, request: RequestId, protected: bool, work: Work) -> Checked {
        self.wait_is_over(Item::Fetch(request));
        let Some(fetch) = self.fetches.get_mut(&request) else { return fail("it has ended") };
        (fetch.is_running, fetch.is_preempted, fetch.retry) = (true, false, None);
        fetch.has_body = false;
        let priority = fetch.priority;
        let is_urgent = priority == Priority::High;
        if is_urgent {
            prop_assert!(!protected);
            self.urgent_begins(worker)?;
        }
        let is_reserved = self.is_reserved(self.fetches[&request].origin);
        prop_assert!(is_urgent || !is_reserved, "a prefetch begins although its origin is reserved");
        prop_assert!(is_urgent || !self.is_lent(worker), "a lent thread runs a prefetch");
        self.serial += 1;
        self.workers[worker] = Some(Work {
            turn: self.serial,
            request: Some(request),
            priority,
            since: self.now,
            urgent_since: is_urgent.then_some(self.now),
            progressed: self.now,
            bytes: 0,
            protected,
            ..work
        });
        if protected {
            self.after(PROTECTED, Event::Look);
        }
        self.next_chunk(worker);
        Ok(())
    }

    fn next_chunk(&mut self, worker: WorkerId) {
        let Some(work) = self.workers[worker] else { return };
        let gap = match work.priority {
            Priority::High => self.random.millis(self.scenario.longest_urgent),
            Priority::Low if !self.is_ending && self.random.chance(self.scenario.silent) => {
                self.random.millis(3000)
            }
            Priority::Low => self.random.millis(self.scenario.longest_gap),
        };
        self.after(gap, Event::Chunk(worker, work.turn));
    }

    pub(super) fn abort(&mut self, worker: WorkerId) -> Checked {
        let request = self.workers[worker].and_then(|work| work.request);
        let origin = request.and_then(|request| self.fetches.get(&request)).map(|fetch| fetch.origin);
        let is_reserved = origin.is_some_and(|origin| self.is_reserved(origin));
        prop_assert!(is_reserved || !self.is_lent(worker), "a lent thread is aborted");
        let is_stuck = self.random.chance(self.scenario.stuck);
        let Some(work) = &mut self.workers[worker] else { return fail("an idle worker is aborted") };
        prop_assert!(!work.is_aborted && !work.is_urgent() && work.request.is_some());
        prop_assert!(is_reserved || !work.is_protected(self.now), "a protected turn is aborted");
        (work.is_aborted, work.is_stuck) = (true, is_stuck);
        let turn = work.turn;
        let after = if is_stuck {
            // Others are asked to make room only when this one has had its time. They may be in protected turns by then.
            self.stuck_until = self.now + PREEMPTION_LIMIT;
            self.urgent_could_begin = self.urgent_could_begin.map(|_| self.stuck_until);
            self.urgent_waits = self.urgent_waits.map(|_| self.stuck_until);
            self.random.millis(3000)
        } else {
            MICRO * self.random.below(500) as u32
        };
        self.after(after, Event::Closed(worker, turn));
        Ok(())
    }

    pub(super) fn answer(&mut self, worker: WorkerId) -> Checked {
        let Some(work) = self.workers[worker].take() else { return Ok(()) };
        let Work { peer, admissible, .. } = work;
        self.peers[peer].is_asking = false;
        if self.peers[peer].is_gone && self.random.chance(50) {
            let answer = Answer::Ended { why: Fruitless::Cancelled, more: true };
            self.schedule.handle_answered(worker, answer, self.now);
            return Ok(());
        }
        let plan = &self.peers[peer].plan;
        let urgent = plan.iter().position(|(priority, _)| *priority == Priority::High);
        let any = (!plan.is_empty()).then_some(0);
        // Some give what they were not asked for.
        let is_allowed = admissible == Priority::Low || self.random.chance(50);
        let Some(index) = urgent.or(any.filter(|_| is_allowed)) else {
            let has_more = self.peers[peer].has_low();
            self.schedule.handle_answered(worker, Answer::Wait, self.now);
            prop_assert!(!has_more || admissible == Priority::High);
            return Ok(());
        };
        self.answer_from_plan(worker, work, index)
    }

    fn answer_from_plan(&mut self, worker: WorkerId, work: Work, index: usize) -> Checked {
        let peer = work.peer;
        let (priority, origin) = self.peers[peer].plan.remove(index);
        let more = !self.peers[peer].plan.is_empty() || self.random.chance(20);
        let fetch_info = self.accept(peer, priority, origin);
        self.note_taken(peer, priority);
        if self.random.chance(self.scenario.dead) {
            self.schedule.handle_answered(worker, Answer::Ended { why: Fruitless::Failed, more }, self.now);
            return self.end(fetch_info.request);
        }
        if let Some(fetch) = self.fetches.get_mut(&fetch_info.request) {
            fetch.waiting_since = work.waiting_since;
        }
        match self.schedule.handle_answered(worker, Answer::Fetch { fetch_info, more }, self.now) {
            Admission::Run { protected } => {
                prop_assert!(priority == Priority::High || protected == work.protected);
                self.run_fetch(worker, fetch_info.request, protected, work)
            }
            Admission::Waits => Ok(()),
            Admission::Refused => {
                prop_assert!(self.peers[peer].is_gone);
                self.end(fetch_info.request)
            }
        }
    }

    /// Something was taken of what a peer had. In the turn of its prefetches it may give urgent work, or what has ended already: the
    /// prefetches that are left wait for another turn.
    fn note_taken(&mut self, peer: usize, priority: Priority) {
        let key = self.peers[peer].key;
        let pull = self.schedule.backlog.pull(key).map(Pull::state);
        let was_of_low = matches!(pull, Some(State::Asking { serves: Priority::Low, .. }));
        let state = &mut self.peers[peer];
        if priority == Priority::Low || was_of_low || !state.has_low() {
            state.low_since = state.has_low().then_some(self.now);
            self.wait_is_over(Item::Pull(peer));
        }
    }

    pub(super) fn chunk(&mut self, worker: WorkerId) -> Checked {
        let now = self.now;
        let Some(work) = &mut self.workers[worker] else { return Ok(()) };
        let Some(request) = work.request.filter(|_| !work.is_aborted) else { return Ok(()) };
        if work.priority == Priority::Low {
            self.longest_silence = self.longest_silence.max(now - work.progressed);
        }
        work.progressed = now;
        work.bytes += CHUNK;
        let work = *work;
        let is_left = self.is_lent(worker) && (work.priority == Priority::Low || self.random.chance(30));
        let Some(fetch) = self.fetches.get_mut(&request) else { return fail("it runs, and has ended") };
        if is_left && fetch.chunks > 1 {
            return self.left(worker, request);
        }
        fetch.chunks = if work.is_urgent() { 0 } else { fetch.chunks - 1 };
        if fetch.chunks == 0 {
            let fails = self.random.chance(10) && !self.is_ending;
            return if fails { self.retry(worker, request) } else { self.finish(worker, request) };
        }
        let is_protected = work.is_protected(now) && work.bytes < SHARE;
        if self.preemptions > 0 && !is_protected {
            self.preemptions -= 1;
            return self.preempted(worker, true);
        }
        self.next_chunk(worker);
        Ok(())
    }

    /// The reader that lends the thread has its bytes. The fetch is a prefetch from now on.
    fn left(&mut self, worker: WorkerId, request: RequestId) -> Checked {
        self.promote(request, Priority::Low);
        self.preempted(worker, true)
    }

    /// A reader has continued, and does not run the task that its thread got.
    pub(super) fn give_back(&mut self, worker: WorkerId) -> Checked {
        let Some(work) = self.workers[worker] else { return fail("there is nothing to give back") };
        if work.request.is_some() {
            // What a lent thread gives back may have an open body, which another thread has left.
            let has_body = self.is_lent(worker) && self.random.chance(30);
            return self.preempted(worker, has_body);
        }
        self.workers[worker] = None;
        let state = &mut self.peers[work.peer];
        (state.is_asking, state.woken) = (false, work.woken);
        self.schedule.handle_not_asked(worker, self.now);
        Ok(())
    }

    /// The thread that was to take the worker's task is blocked, and there is no other one.
    pub(super) fn unserved(&mut self, worker: WorkerId) -> Checked {
        self.give_back(worker)?;
        self.schedule.handle_blocked(worker, self.now);
        self.serial += 1;
        let (turn, now) = (self.serial, self.now);
        self.workers[worker] = Some(Work {
            turn,
            peer: 0,
            request: None,
            admissible: Priority::High,
            priority: Priority::High,
            since: now,
            urgent_since: Some(now),
            progressed: now,
            bytes: 0,
            protected: false,
            is_aborted: false,
            is_stuck: true,
            woken: None,
            waiting_since: now,
        });
        let after = self.random.millis(1000);
        self.after(after, Event::CameBack(worker, turn));
        Ok(())
    }

    pub(super) fn came_back(&mut self, worker: WorkerId) {
        self.end_urgent_time(worker);
        self.workers[worker] = None;
        self.schedule.handle_finished(worker, self.now);
    }

    pub(super) fn closed(&mut self, worker: WorkerId) -> Checked {
        let Some(work) = self.workers[worker] else { return Ok(()) };
        match work.request {
            // It came to its end by itself.
            Some(request) if self.random.chance(10) => self.finish(worker, request),
            _ => self.preempted(worker, false),
        }
    }

    fn leave(&mut self, worker: WorkerId) -> Option<Work> {
        self.end_urgent_time(worker);
        let work = self.workers[worker].take()?;
        if work.priority == Priority::Low {
            self.longest_silence = self.longest_silence.max(self.now - work.progressed);
        }
        if let Some(fetch) = work.request.and_then(|request| self.fetches.get_mut(&request)) {
            fetch.is_running = false;
        }
        Some(work)
    }

    /// The urgent turn of a worker of the pool is over, if it has one.
    pub(super) fn end_urgent_time(&mut self, worker: WorkerId) {
        let since = self.workers[worker].and_then(|work| work.urgent_since);
        if let Some(since) = since.filter(|_| !self.is_lent(worker)) {
            self.longest_urgent = self.longest_urgent.max(self.now - since);
        }
    }

    fn finish(&mut self, worker: WorkerId, request: RequestId) -> Checked {
        self.leave(worker);
        match self.random.below(4) {
            0 => self.schedule.handle_fruitless(worker, Fruitless::Failed, self.now),
            _ => self.schedule.handle_finished(worker, self.now),
        }
        self.end(request)
    }

    fn retry(&mut self, worker: WorkerId, request: RequestId) -> Checked {
        let Some(work) = self.leave(worker) else { return Ok(()) };
        let at = self.now + self.random.millis(1000);
        let is_kept = self.schedule.handle_retry(worker, at, self.now);
        prop_assert!(is_kept || self.peers[work.peer].is_gone);
        if !is_kept {
            return self.end(request);
        }
        if let Some(fetch) = self.fetches.get_mut(&request) {
            (fetch.chunks, fetch.retry) = (1 + fetch.chunks, Some(at));
        }
        Ok(())
    }

    pub(super) fn preempted(&mut self, worker: WorkerId, has_body: bool) -> Checked {
        let Some(work) = self.leave(worker) else { return Ok(()) };
        let Some(request) = work.request else { return Ok(()) };
        let had_share = work.bytes >= SHARE;
        let kept = self.schedule.counts().preempted;
        let had_full_turn = had_share || work.since + PROTECTED <= self.now;
        if let Some(fetch) = self.fetches.get_mut(&request) {
            fetch.waiting_since = if had_full_turn { self.now } else { work.waiting_since };
            fetch.is_preempted = work.priority == Priority::Low;
        }
        let is_reserved = self.fetches.get(&request).is_some_and(|fetch| self.is_reserved(fetch.origin));
        match self.schedule.handle_preempted(worker, Preemption { has_body, had_share }, self.now) {
            Requeued::Refused => {
                prop_assert!(self.peers[work.peer].is_gone);
                self.end(request)
            }
            Requeued::Aborted => {
                let is_full = kept >= self.scenario.limits.max_preempted && !self.is_lent(worker);
                prop_assert!(has_body && (is_full || is_reserved));
                Ok(())
            }
            Requeued::Kept => {
                if let Some(fetch) = self.fetches.get_mut(&request) {
                    fetch.has_body = has_body;
                }
                Ok(())
            }
        }
    }
}
