//! Decides which fetch runs next. Does no I/O and never reads the clock: the turn-taker brings it the facts and
//! carries out what it answers.
//!
//! Peers live in a slab. What waits is kept in two queues for each peer, one for each priority of a fetch, and the
//! peers that have something in a queue stand in the rotation of the queue's class:
//!
//! ```text
//!  class      peer  fetch   rotation: peers by turn       peer 7, queue High
//!  HighHigh   High  High    ─▶ 3 ─▶ 7 ─▶ 4                ─▶ #12 ─▶ pull ─▶ #15
//!  HighLow    High  Low     ─▶ 7
//!  LowHigh    Low   High
//!  LowLow     Low   Low     ─▶ 9 ─▶ 1
//! ```
//!
//! A *pull* is a peer's word that it has work of its own: when it comes up, the peer is asked for one fetch. Every
//! operation costs O(log n) at most, and a peer is looked at only when something about it changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use slab::Slab;

use super::fetch::{Priority, RequestId};

/// Names a peer; never reused for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerKey {
    index: usize,
    serial: u64,
}

/// Names a worker: its index.
pub(super) type WorkerId = usize;

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    /// Run this fetch.
    Run(RequestId),
    /// Ask this peer for one fetch, nothing below the priority, and run it.
    Ask(PeerKey, Priority),
}

/// What a peer answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A fetch of this priority, which the asking worker runs at once; and whether there may be more.
    Fetch { request: RequestId, priority: Priority, more: bool },
    /// Nothing as urgent as was asked for, until it is woken.
    Wait,
    /// It panicked, and is not asked again.
    Gone,
}

/// How much is where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Waiting fetches and pulls by class, in the order they are served in.
    pub(super) queued: [usize; 4],
    /// Fetches that wait for their next attempt.
    pub(super) retrying: usize,
    /// Workers that have an assignment.
    pub(super) busy: usize,
    /// Workers that have none.
    pub(super) idle: usize,
    /// Registered peers.
    pub(super) peers: usize,
}

/// The state machine. See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    peers: Slab<PeerState>,
    /// Peers that have something queued in the class, by turn; the lowest turn is next.
    rotations: [BTreeMap<u64, PeerKey>; 4],
    /// Where each waiting fetch is. A fetch is here or on a worker, never both.
    waiting: HashMap<RequestId, Place>,
    /// Fetches whose next attempt has a time; each is in `waiting` too.
    retries: BTreeSet<(Instant, RequestId)>,
    workers: Vec<Option<Busy>>,
    /// The workers that are `None` in `workers`; the last one to have become idle is the first to be taken.
    idle: Vec<WorkerId>,
    /// The workers that are busy with something of priority Low; at most `max_low`.
    low: usize,
    max_low: usize,
    queued: [usize; 4],
    next_turn: u64,
    next_serial: u64,
    next_place: i64,
}

#[derive(Debug)]
struct PeerState {
    serial: u64,
    priority: Priority,
    /// What waits, by place, for each priority of a fetch.
    queues: [BTreeMap<i64, Queued>; 2],
    /// The peer's turn in the rotation of each queue's class; some exactly where the queue is not empty.
    turns: [Option<u64>; 2],
    /// Its fetches that wait for their next attempt.
    retrying: BTreeSet<RequestId>,
    pull: Pull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    Fetch(RequestId),
    Pull,
}

/// Whether a peer has work of its own to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pull {
    /// It said that there is none, or nothing yet.
    Resting,
    /// `Queued::Pull` stands in the queue of this priority, at this place.
    Queued(Priority, i64),
    /// A worker is asking. What wakes it meanwhile is kept.
    Asking { woken: Option<Priority> },
    /// It panicked.
    Gone,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Queue { peer: PeerKey, priority: Priority, place: i64 },
    Retry { peer: PeerKey, priority: Priority, at: Instant },
}

/// What a worker is at.
#[derive(Clone, Copy, Debug)]
struct Busy {
    peer: PeerKey,
    priority: Priority,
    /// None while it asks the peer.
    request: Option<RequestId>,
}

fn class(peer: Priority, fetch: Priority) -> usize {
    2 * peer.rank() + fetch.rank()
}

impl Schedule {
    /// A schedule for `workers` idle workers, of which `reserved` take nothing of priority Low.
    pub(super) fn new(workers: usize, reserved: usize) -> Self {
        Self {
            peers: Slab::new(),
            rotations: Default::default(),
            waiting: HashMap::new(),
            retries: BTreeSet::new(),
            workers: vec![None; workers],
            idle: (0..workers).rev().collect(),
            low: 0,
            max_low: workers - reserved,
            queued: [0; 4],
            next_turn: 0,
            next_serial: 0,
            next_place: 0,
        }
    }

    /// Adds a peer that has nothing to do yet.
    pub(super) fn handle_registered(&mut self, priority: Priority) -> PeerKey {
        let serial = self.next_serial;
        self.next_serial += 1;
        let index = self.peers.insert(PeerState {
            serial,
            priority,
            queues: Default::default(),
            turns: [None; 2],
            retrying: BTreeSet::new(),
            pull: Pull::Resting,
        });
        PeerKey { index, serial }
    }

    /// Forgets a peer and returns what it had waiting. What it has on workers runs to its end.
    pub(super) fn handle_unregistered(&mut self, peer: PeerKey) -> Vec<RequestId> {
        if self.peer(peer).is_none() {
            return Vec::new();
        }
        let state = &self.peers[peer.index];
        let queued = state.queues.iter().flat_map(BTreeMap::values).filter_map(|queued| match queued {
            Queued::Fetch(request) => Some(*request),
            Queued::Pull => None,
        });
        let orphans: Vec<RequestId> = queued.chain(state.retrying.iter().copied()).collect();
        for request in &orphans {
            self.handle_cancelled(*request);
        }
        self.unqueue_pull(peer);
        self.peers.remove(peer.index);
        orphans
    }

    /// Takes in a fetch of `peer`. False if the peer is gone.
    pub(super) fn handle_submitted(&mut self, peer: PeerKey, request: RequestId, priority: Priority) -> bool {
        if self.peer(peer).is_none() {
            return false;
        }
        let place = self.last_place();
        self.enqueue(peer, priority, place, Queued::Fetch(request));
        self.waiting.insert(request, Place::Queue { peer, priority, place });
        true
    }

    /// Notes that `peer` has work of its own, the next piece of it of this priority.
    pub(super) fn handle_woken(&mut self, peer: PeerKey, priority: Priority) {
        let Some(state) = self.peer(peer) else { return };
        match &mut state.pull {
            Pull::Resting => self.queue_pull(peer, priority),
            Pull::Queued(queued, _) if *queued < priority => {
                self.unqueue_pull(peer);
                self.queue_pull(peer, priority);
            }
            Pull::Asking { woken } => *woken = (*woken).max(Some(priority)),
            Pull::Queued(..) | Pull::Gone => {}
        }
    }

    /// Notes what the peer that `worker` asked has answered. On anything but a fetch the worker is idle again.
    pub(super) fn handle_answered(&mut self, worker: WorkerId, answer: Answer) {
        let Some(Busy { peer, priority: asked, .. }) = self.workers[worker] else { return };
        let woken = match self.peer(peer).map(|state| &mut state.pull) {
            Some(pull @ Pull::Asking { .. }) => {
                let Pull::Asking { woken } = std::mem::replace(pull, Pull::Resting) else { return };
                woken
            }
            _ => None,
        };
        let again = match answer {
            Answer::Fetch { request, priority, more } => {
                self.set_busy(worker, Busy { peer, priority, request: Some(request) });
                woken.max(more.then_some(Priority::Low))
            }
            Answer::Wait => {
                self.handle_finished(worker);
                // Asked for awaited work only, it may still have other work.
                woken.max((asked == Priority::High).then_some(Priority::Low))
            }
            Answer::Gone => {
                self.handle_finished(worker);
                if let Some(state) = self.peer(peer) {
                    state.pull = Pull::Gone;
                }
                None
            }
        };
        if let Some(priority) = again {
            self.handle_woken(peer, priority);
        }
    }

    /// Notes that `worker` is done with what it had.
    pub(super) fn handle_finished(&mut self, worker: WorkerId) {
        if let Some(busy) = self.workers[worker].take() {
            self.low -= usize::from(busy.priority == Priority::Low);
            self.idle.push(worker);
        }
    }

    /// Notes that what `worker` ran is to be tried again at `at`, before what waits beside it. False if its peer is
    /// gone.
    pub(super) fn handle_retry(&mut self, worker: WorkerId, at: Instant) -> bool {
        let busy = self.workers[worker];
        self.handle_finished(worker);
        let Some(Busy { peer, priority, request: Some(request) }) = busy else { return false };
        let Some(state) = self.peer(peer) else { return false };
        state.retrying.insert(request);
        self.retries.insert((at, request));
        self.waiting.insert(request, Place::Retry { peer, priority, at });
        true
    }

    /// Drops a fetch that waits. False if it does not: it runs, or has ended.
    pub(super) fn handle_cancelled(&mut self, request: RequestId) -> bool {
        match self.waiting.remove(&request) {
            Some(Place::Queue { peer, priority, place }) => self.dequeue(peer, priority, place),
            Some(Place::Retry { peer, at, .. }) => {
                self.retries.remove(&(at, request));
                self.peers[peer.index].retrying.remove(&request);
            }
            None => return false,
        }
        true
    }

    /// Gives a peer another priority; what it has queued moves along.
    pub(super) fn set_priority(&mut self, peer: PeerKey, priority: Priority) {
        let Some(state) = self.peer(peer) else { return };
        if state.priority == priority {
            return;
        }
        let old = std::mem::replace(&mut state.priority, priority);
        for fetch in Priority::BOTH {
            let state = &self.peers[peer.index];
            let moved = state.queues[fetch.rank()].len();
            let Some(turn) = state.turns[fetch.rank()] else { continue };
            self.queued[class(old, fetch)] -= moved;
            self.queued[class(priority, fetch)] += moved;
            self.rotations[class(old, fetch)].remove(&turn);
            self.rotations[class(priority, fetch)].insert(turn, peer);
        }
    }

    /// Gives a fetch another priority, wherever it is: promoted to the front of its new queue, demoted to the back.
    pub(super) fn promote(&mut self, request: RequestId, priority: Priority) {
        match self.waiting.get(&request).copied() {
            Some(Place::Queue { peer, priority: old, place }) if old != priority => {
                self.dequeue(peer, old, place);
                let place = match priority {
                    Priority::High => self.front_place(peer, priority),
                    Priority::Low => self.last_place(),
                };
                self.enqueue(peer, priority, place, Queued::Fetch(request));
                self.waiting.insert(request, Place::Queue { peer, priority, place });
            }
            Some(Place::Retry { peer, at, .. }) => {
                self.waiting.insert(request, Place::Retry { peer, priority, at });
            }
            Some(Place::Queue { .. }) => {}
            None => {
                let running = |busy: &Busy| busy.request == Some(request);
                let worker = self.workers.iter().position(|busy| busy.as_ref().is_some_and(running));
                if let Some((worker, busy)) = worker.and_then(|worker| Some((worker, self.workers[worker]?)))
                {
                    self.set_busy(worker, Busy { priority, ..busy });
                }
            }
        }
    }

    /// The next thing to do and who does it, if there is something and somebody. Ask again until there is not.
    pub(super) fn poll_assignment(&mut self, now: Instant) -> Option<(WorkerId, Assignment)> {
        self.wake_retries(now);
        let worker = *self.idle.last()?;
        let low_allowed = self.low < self.max_low;
        let admissible = if low_allowed { Priority::Low } else { Priority::High };
        for peer_priority in Priority::BOTH {
            for fetch_priority in Priority::BOTH {
                if fetch_priority < admissible {
                    continue;
                }
                let Some((_, &peer)) = self.rotations[class(peer_priority, fetch_priority)].first_key_value()
                else {
                    continue;
                };
                let assignment = self.take_first(peer, fetch_priority, admissible);
                self.idle.pop();
                // Who is asked may answer with anything admissible: room for it is taken beforehand.
                let (priority, request) = match assignment {
                    Assignment::Run(request) => (fetch_priority, Some(request)),
                    Assignment::Ask(..) => (admissible, None),
                };
                self.low += usize::from(priority == Priority::Low);
                self.workers[worker] = Some(Busy { peer, priority, request });
                return Some((worker, assignment));
            }
        }
        None
    }

    /// When to poll again although nothing has happened.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Takes the idle workers out of service.
    pub(super) fn retire_idle(&mut self) -> impl Iterator<Item = WorkerId> + '_ {
        self.idle.drain(..)
    }

    /// How much is where. O(1).
    pub(super) fn counts(&self) -> Counts {
        Counts {
            queued: self.queued,
            retrying: self.retries.len(),
            busy: self.workers.len() - self.idle.len(),
            idle: self.idle.len(),
            peers: self.peers.len(),
        }
    }

    fn peer(&mut self, key: PeerKey) -> Option<&mut PeerState> {
        self.peers.get_mut(key.index).filter(|state| state.serial == key.serial)
    }

    fn set_busy(&mut self, worker: WorkerId, busy: Busy) {
        if let Some(old) = self.workers[worker].replace(busy) {
            self.low -= usize::from(old.priority == Priority::Low);
            self.low += usize::from(busy.priority == Priority::Low);
        }
    }

    fn last_place(&mut self) -> i64 {
        self.next_place += 1;
        self.next_place
    }

    fn front_place(&self, peer: PeerKey, priority: Priority) -> i64 {
        let queue = &self.peers[peer.index].queues[priority.rank()];
        queue.first_key_value().map_or(self.next_place, |(first, _)| *first) - 1
    }

    fn enqueue(&mut self, peer: PeerKey, priority: Priority, place: i64, queued: Queued) {
        let state = &mut self.peers[peer.index];
        let class = class(state.priority, priority);
        state.queues[priority.rank()].insert(place, queued);
        self.queued[class] += 1;
        if state.turns[priority.rank()].is_none() {
            state.turns[priority.rank()] = Some(self.next_turn);
            self.rotations[class].insert(self.next_turn, peer);
            self.next_turn += 1;
        }
    }

    fn dequeue(&mut self, peer: PeerKey, priority: Priority, place: i64) {
        let state = &mut self.peers[peer.index];
        let class = class(state.priority, priority);
        let queue = &mut state.queues[priority.rank()];
        queue.remove(&place);
        self.queued[class] -= 1;
        if queue.is_empty() {
            if let Some(turn) = state.turns[priority.rank()].take() {
                self.rotations[class].remove(&turn);
            }
        }
    }

    /// Takes the first thing of a queue that is not empty, and sends the peer to the end of the rotation.
    fn take_first(&mut self, peer: PeerKey, priority: Priority, admissible: Priority) -> Assignment {
        let state = &mut self.peers[peer.index];
        let class = class(state.priority, priority);
        let Some((_, queued)) = state.queues[priority.rank()].pop_first() else {
            unreachable!("a peer stands in a rotation only while its queue has something");
        };
        self.queued[class] -= 1;
        if let Some(turn) = state.turns[priority.rank()].take() {
            self.rotations[class].remove(&turn);
        }
        if !state.queues[priority.rank()].is_empty() {
            state.turns[priority.rank()] = Some(self.next_turn);
            self.rotations[class].insert(self.next_turn, peer);
            self.next_turn += 1;
        }
        match queued {
            Queued::Fetch(request) => {
                self.waiting.remove(&request);
                Assignment::Run(request)
            }
            Queued::Pull => {
                state.pull = Pull::Asking { woken: None };
                Assignment::Ask(peer, admissible)
            }
        }
    }

    fn queue_pull(&mut self, peer: PeerKey, priority: Priority) {
        let place = self.last_place();
        self.enqueue(peer, priority, place, Queued::Pull);
        self.peers[peer.index].pull = Pull::Queued(priority, place);
    }

    fn unqueue_pull(&mut self, peer: PeerKey) {
        if let Pull::Queued(priority, place) = self.peers[peer.index].pull {
            self.dequeue(peer, priority, place);
            self.peers[peer.index].pull = Pull::Resting;
        }
    }

    fn wake_retries(&mut self, now: Instant) {
        while let Some((at, request)) = self.retries.first().copied() {
            if at > now {
                return;
            }
            self.retries.remove(&(at, request));
            let Some(Place::Retry { peer, priority, .. }) = self.waiting.get(&request).copied() else {
                continue;
            };
            self.peers[peer.index].retrying.remove(&request);
            let place = self.front_place(peer, priority);
            self.enqueue(peer, priority, place, Queued::Fetch(request));
            self.waiting.insert(request, Place::Queue { peer, priority, place });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn request(number: u64) -> RequestId {
        RequestId::new(number).unwrap()
    }

    /// Submits fetches numbered as given and polls them all with one worker that is done at once.
    fn served(schedule: &mut Schedule) -> Vec<u64> {
        let now = Instant::now();
        let mut order = Vec::new();
        while let Some((worker, assignment)) = schedule.poll_assignment(now) {
            if let Assignment::Run(request) = assignment {
                order.push(request.get());
            }
            schedule.handle_finished(worker);
        }
        order
    }

    #[test]
    fn classes_are_served_in_their_order() {
        let mut schedule = Schedule::new(1, 0);
        let low = schedule.handle_registered(Priority::Low);
        let high = schedule.handle_registered(Priority::High);
        schedule.handle_submitted(low, request(4), Priority::Low);
        schedule.handle_submitted(low, request(3), Priority::High);
        schedule.handle_submitted(high, request(2), Priority::Low);
        schedule.handle_submitted(high, request(1), Priority::High);
        assert_eq!(served(&mut schedule), [1, 2, 3, 4]);
    }

    #[test]
    fn peers_take_turns_and_each_is_first_in_first_out() {
        let mut schedule = Schedule::new(1, 0);
        let [a, b] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
        for number in [1, 3, 5] {
            schedule.handle_submitted(a, request(number), Priority::High);
        }
        for number in [2, 4] {
            schedule.handle_submitted(b, request(number), Priority::High);
        }
        assert_eq!(served(&mut schedule), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_live_priority_moves_what_is_queued() {
        let mut schedule = Schedule::new(1, 0);
        let [a, b] = [(); 2].map(|()| schedule.handle_registered(Priority::Low));
        schedule.handle_submitted(a, request(2), Priority::High);
        schedule.handle_submitted(b, request(1), Priority::High);
        schedule.set_priority(b, Priority::High);
        assert_eq!(schedule.counts().queued, [1, 0, 1, 0]);
        assert_eq!(served(&mut schedule), [1, 2]);
    }

    #[test]
    fn a_promotion_goes_to_the_front_and_a_demotion_to_the_back() {
        let mut schedule = Schedule::new(1, 0);
        let peer = schedule.handle_registered(Priority::High);
        schedule.handle_submitted(peer, request(2), Priority::High);
        schedule.handle_submitted(peer, request(1), Priority::Low);
        schedule.handle_submitted(peer, request(3), Priority::Low);
        schedule.handle_submitted(peer, request(4), Priority::High);
        schedule.promote(request(1), Priority::High);
        schedule.promote(request(4), Priority::Low);
        assert_eq!(served(&mut schedule), [1, 2, 3, 4]);
    }

    #[test]
    fn a_reserved_worker_takes_awaited_work_only() {
        let mut schedule = Schedule::new(2, 1);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        for number in [1, 2] {
            schedule.handle_submitted(peer, request(number), Priority::Low);
        }
        assert!(schedule.poll_assignment(now).is_some());
        assert_eq!(schedule.poll_assignment(now), None);
        schedule.handle_submitted(peer, request(3), Priority::High);
        let (_, assignment) = schedule.poll_assignment(now).unwrap();
        assert_eq!(assignment, Assignment::Run(request(3)));
    }

    #[test]
    fn a_peer_is_asked_once_a_wake_and_not_again_after_wait() {
        let mut schedule = Schedule::new(1, 0);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        assert_eq!(schedule.poll_assignment(now), None);
        schedule.handle_woken(peer, Priority::Low);
        schedule.handle_woken(peer, Priority::Low);
        let (worker, assignment) = schedule.poll_assignment(now).unwrap();
        assert_eq!(assignment, Assignment::Ask(peer, Priority::Low));
        schedule.handle_answered(worker, Answer::Wait);
        assert_eq!(schedule.poll_assignment(now), None);
    }

    #[test]
    fn a_wake_during_the_question_is_kept() {
        let mut schedule = Schedule::new(1, 0);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        schedule.handle_woken(peer, Priority::Low);
        let (worker, _) = schedule.poll_assignment(now).unwrap();
        schedule.handle_woken(peer, Priority::High);
        schedule.handle_answered(worker, Answer::Wait);
        let (_, assignment) = schedule.poll_assignment(now).unwrap();
        assert_eq!(assignment, Assignment::Ask(peer, Priority::Low));
    }

    #[test]
    fn a_peer_with_more_is_asked_again_and_one_that_panicked_is_not() {
        let mut schedule = Schedule::new(2, 0);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        schedule.handle_woken(peer, Priority::High);
        let (first, _) = schedule.poll_assignment(now).unwrap();
        let answer = Answer::Fetch { request: request(1), priority: Priority::Low, more: true };
        schedule.handle_answered(first, answer);
        let (second, assignment) = schedule.poll_assignment(now).unwrap();
        assert!(matches!(assignment, Assignment::Ask(..)) && first != second);
        schedule.handle_answered(second, Answer::Gone);
        schedule.handle_woken(peer, Priority::High);
        assert_eq!(schedule.poll_assignment(now), None);
    }

    #[test]
    fn a_retry_waits_for_its_time_and_holds_no_worker() {
        let mut schedule = Schedule::new(1, 0);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        schedule.handle_submitted(peer, request(1), Priority::High);
        let (worker, _) = schedule.poll_assignment(now).unwrap();
        assert!(schedule.handle_retry(worker, later));
        assert_eq!(schedule.next_deadline(), Some(later));
        schedule.handle_submitted(peer, request(2), Priority::High);
        let (worker, assignment) = schedule.poll_assignment(now).unwrap();
        assert_eq!(assignment, Assignment::Run(request(2)));
        schedule.handle_finished(worker);
        assert_eq!(schedule.poll_assignment(now), None);
        let (_, assignment) = schedule.poll_assignment(later).unwrap();
        assert_eq!(assignment, Assignment::Run(request(1)));
    }

    #[test]
    fn what_a_peer_leaves_behind_is_returned_when_it_goes() {
        let mut schedule = Schedule::new(1, 0);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        schedule.handle_submitted(peer, request(1), Priority::High);
        let (worker, _) = schedule.poll_assignment(now).unwrap();
        schedule.handle_submitted(peer, request(2), Priority::Low);
        schedule.handle_woken(peer, Priority::Low);
        schedule.handle_retry(worker, now);
        let mut orphans = schedule.handle_unregistered(peer);
        orphans.sort();
        assert_eq!(orphans, [request(1), request(2)]);
        assert_eq!(schedule.counts(), Counts { idle: 1, ..Counts::default() });
        assert!(!schedule.handle_submitted(peer, request(3), Priority::High));
    }

    /// What may happen to a schedule. Numbers are taken modulo what there is.
    #[derive(Clone, Debug)]
    enum Step {
        Register(bool),
        Unregister(usize),
        Submit(usize, bool),
        Cancel(usize),
        Prioritise(usize, bool),
        Promote(usize, bool),
        Poll,
        Finish(usize),
        Retry(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            1 => any::<bool>().prop_map(Step::Register),
            1 => any::<usize>().prop_map(Step::Unregister),
            8 => any::<(usize, bool)>().prop_map(|(peer, high)| Step::Submit(peer, high)),
            2 => any::<usize>().prop_map(Step::Cancel),
            1 => any::<(usize, bool)>().prop_map(|(peer, high)| Step::Prioritise(peer, high)),
            2 => any::<(usize, bool)>().prop_map(|(fetch, high)| Step::Promote(fetch, high)),
            6 => Just(Step::Poll),
            5 => any::<usize>().prop_map(Step::Finish),
            1 => any::<usize>().prop_map(Step::Retry),
        ];
        proptest::collection::vec(step, 1..200)
    }

    fn priority(high: bool) -> Priority {
        if high { Priority::High } else { Priority::Low }
    }

    /// A schedule as plain as can be: a list that is searched from end to end.
    #[derive(Default)]
    struct Model {
        peers: Vec<(PeerKey, Priority, u64)>,
        /// Peer, fetch priority, place.
        waiting: Vec<(RequestId, PeerKey, Priority, i64)>,
        running: Vec<Option<(RequestId, PeerKey, Priority)>>,
        places: i64,
        turns: u64,
    }

    impl Model {
        fn class_of(&self, peer: PeerKey, fetch: Priority) -> usize {
            let found = self.peers.iter().find(|(key, ..)| *key == peer);
            class(found.unwrap().1, fetch)
        }

        /// The classes of what may run now.
        fn best_class(&self, max_low: usize) -> Option<usize> {
            let low =
                self.running.iter().flatten().filter(|(.., priority)| *priority == Priority::Low).count();
            let admissible = |fetch: Priority| fetch == Priority::High || low < max_low;
            self.waiting
                .iter()
                .filter(|(.., fetch, _)| admissible(*fetch))
                .map(|(_, peer, fetch, _)| self.class_of(*peer, *fetch))
                .min()
        }
    }

    proptest! {
        /// Against the model, after each step: the class served is the best there is, a peer's queue is served in order,
        /// limits hold, nothing is lost and nothing comes twice.
        #[test]
        fn the_schedule_agrees_with_a_plain_list(steps in steps(), workers in 1_usize..5, reserved in 0_usize..2) {
            let reserved = reserved.min(workers - 1);
            let mut schedule = Schedule::new(workers, reserved);
            let mut model = Model { running: vec![None; workers], ..Model::default() };
            let mut numbers = 0;
            let now = Instant::now();
            for step in steps {
                match step {
                    Step::Register(high) => {
                        let key = schedule.handle_registered(priority(high));
                        model.peers.push((key, priority(high), 0));
                    }
                    Step::Unregister(which) if !model.peers.is_empty() => {
                        let (key, ..) = model.peers.remove(which % model.peers.len());
                        let mut left: Vec<_> =
                            model.waiting.iter().filter(|fetch| fetch.1 == key).map(|fetch| fetch.0).collect();
                        model.waiting.retain(|fetch| fetch.1 != key);
                        let mut orphans = schedule.handle_unregistered(key);
                        left.sort();
                        orphans.sort();
                        prop_assert_eq!(orphans, left);
                    }
                    Step::Submit(which, high) if !model.peers.is_empty() => {
                        let (key, ..) = model.peers[which % model.peers.len()];
                        numbers += 1;
                        model.places += 1;
                        prop_assert!(schedule.handle_submitted(key, request(numbers), priority(high)));
                        model.waiting.push((request(numbers), key, priority(high), model.places));
                    }
                    Step::Cancel(which) if numbers > 0 => {
                        let id = request(1 + which as u64 % numbers);
                        let waits = model.waiting.iter().any(|fetch| fetch.0 == id);
                        model.waiting.retain(|fetch| fetch.0 != id);
                        prop_assert_eq!(schedule.handle_cancelled(id), waits);
                    }
                    Step::Prioritise(which, high) if !model.peers.is_empty() => {
                        let index = which % model.peers.len();
                        model.peers[index].1 = priority(high);
                        schedule.set_priority(model.peers[index].0, priority(high));
                    }
                    Step::Promote(which, high) if numbers > 0 => {
                        let id = request(1 + which as u64 % numbers);
                        schedule.promote(id, priority(high));
                        model.places += 1;
                        let (place, wanted) = (model.places, priority(high));
                        let first = model.waiting.iter().map(|fetch| fetch.3).min().unwrap_or(0) - 1;
                        for fetch in model.waiting.iter_mut().filter(|fetch| fetch.0 == id && fetch.2 != wanted) {
                            fetch.2 = wanted;
                            fetch.3 = if high { first } else { place };
                        }
                        for running in model.running.iter_mut().flatten().filter(|running| running.0 == id) {
                            running.2 = wanted;
                        }
                    }
                    Step::Poll => {
                        let idle = model.running.iter().any(Option::is_none);
                        let best = model.best_class(workers - reserved).filter(|_| idle);
                        match schedule.poll_assignment(now) {
                            None => prop_assert_eq!(best, None),
                            Some((worker, Assignment::Run(id))) => {
                                let index = model.waiting.iter().position(|fetch| fetch.0 == id);
                                prop_assert!(index.is_some(), "{id} ran without waiting");
                                let (_, peer, fetch, place) = model.waiting.remove(index.unwrap());
                                prop_assert_eq!(Some(model.class_of(peer, fetch)), best);
                                let earlier = model.waiting.iter().any(|other| {
                                    other.1 == peer && other.2 == fetch && other.3 < place
                                });
                                prop_assert!(!earlier, "{id} overtook its own queue");
                                // Fair: every equal peer with work had its turn since this one's last.
                                model.turns += 1;
                                let mine = model.peers.iter().position(|(key, ..)| *key == peer).unwrap();
                                model.peers[mine].2 = model.turns;
                                prop_assert!(model.running[worker].is_none());
                                model.running[worker] = Some((id, peer, fetch));
                            }
                            Some((_, Assignment::Ask(..))) => prop_assert!(false, "nobody was woken"),
                        }
                    }
                    Step::Finish(which) => {
                        let worker = which % workers;
                        model.running[worker] = None;
                        schedule.handle_finished(worker);
                    }
                    Step::Retry(which) => {
                        let worker = which % workers;
                        let Some((id, peer, fetch)) = model.running[worker].take() else { continue };
                        let stays = model.peers.iter().any(|(key, ..)| *key == peer);
                        prop_assert_eq!(schedule.handle_retry(worker, now), stays);
                        if stays {
                            let first = model.waiting.iter().map(|fetch| fetch.3).min().unwrap_or(0) - 1;
                            model.waiting.push((id, peer, fetch, first));
                            // Due at once: it takes its place now, as the model has it.
                            schedule.wake_retries(now);
                        }
                    }
                    _ => {}
                }
                let counts = schedule.counts();
                prop_assert_eq!(counts.queued.iter().sum::<usize>(), model.waiting.len());
                prop_assert_eq!(counts.busy, model.running.iter().flatten().count());
                prop_assert_eq!(counts.busy + counts.idle, workers);
            }
        }
    }
}
