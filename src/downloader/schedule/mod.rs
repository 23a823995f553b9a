//! Decides which fetch runs next. Does no I/O and never reads the clock: the [core](super::runtime::core) passes messages and
//! the time in, and carries out what it answers.
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
//!
//! What is High for its peer is *urgent*, what is Low is a *prefetch*. How the two share the workers:
//!
//! 1. A free worker takes what is first in the order of the classes; a reserved one takes urgent work only.
//! 2. A prefetch has *aged* when its last full turn, or its arrival, is `aging_threshold` ago. The oldest goes before all classes.
//!    What a peer has announced ages from the announcement on, also while the peer is woken for urgent work.
//! 3. What goes first by its age is *protected*: urgent work does not interrupt it for [`PROTECTED`] or 256 KiB. At most half
//!    of the workers that are not reserved are in a protected turn at once, but at least one may be.
//! 4. After a protected turn was granted, and while a running prefetch is asked to preempt, urgent work that waits goes first,
//!    before all classes and ages: between two grants to aged work, waiting urgent work is served.
//! 5. Urgent work without a worker preempts a running prefetch that is not protected: the first that gets a chunk. After
//!    [`PREEMPTION_LIMIT`] the one that was silent longest is *aborted*: its connection is closed.
//! 6. Aged work without a worker, while no urgent work waits, preempts one as well, but aborts none: two slow ones would abort
//!    each other for ever, before either had its head.
//! 7. What was preempted goes on before the rest of its class, and keeps its age unless it had a full turn.
//! 8. A preempted body keeps its connection, but no more than `max_preempted` do: beyond it the connection is closed. The fetch
//!    goes on from its offset in either case.
//! 9. A peer is asked when a worker is there for its answer. A prefetch that it gives while urgent work waits, or to a question
//!    for urgent work only, waits in the queue, unless its turn is protected.
//! 10. A peer whose fetches bring nothing is asked again after a pause, which grows; it can cut that short by a wake.
//!
//! 11. Urgent work that finds no worker goes to a thread that a blocked reader of its peer lends ([`lent`]). Such a thread is not
//!     of the pool: no rule above counts it.
//!
//! Prefetches of one origin are limited; what a limit holds back is *blocked* beside the queues, so that work for other origins
//! overtakes it. Its age counts from when it is queued again.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use slab::Slab;

use self::throttle::Throttle;
use crate::types::{Priority, RequestId};

/// How long urgent work waits for a Low body to yield at its next chunk before one is closed.
const PREEMPTION_LIMIT: Duration = Duration::from_millis(5);

/// How long a prefetch that has aged keeps its worker at least, unless it had its share of bytes before.
pub(super) const PROTECTED: Duration = Duration::from_secs(1);

/// What fetches that bring nothing may cost, one after the other, before their peer is asked after a pause only: a thousand of
/// an epoch that is over, which a peer has to hand out before it comes to others, or some dead tracks of a playlist.
const FREE_COST: u32 = 1024;

/// What doubles the pause.
const DOUBLING_COST: u32 = 64;

/// The first pause, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// Names a peer; never reused for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerKey {
    index: usize,
    serial: u64,
}

/// Names a worker: its index.
pub(super) type WorkerId = usize;

/// Names where a fetch goes: scheme, host and port, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin(pub(super) u64);

/// What a schedule has to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) workers: usize,
    /// Workers that take nothing of priority Low; less than `workers`.
    pub(super) reserved: usize,
    /// Low fetches of one origin, running and preempted.
    pub(super) max_per_origin: usize,
    /// Low work waits so long after the last urgent dispatch.
    pub(super) prefetch_delay: Duration,
    /// Low work that has waited so long comes first.
    pub(super) aging_threshold: Duration,
    /// Preempted bodies that keep their connection.
    pub(super) max_preempted: usize,
}

impl Limits {
    /// Workers that may run a prefetch.
    fn unreserved(&self) -> usize {
        self.workers - self.reserved
    }

    /// Workers that may be in a protected turn at once.
    fn max_protected(&self) -> usize {
        (self.unreserved() / 2).max(1)
    }
}

/// A fetch, as far as the schedule cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FetchInfo {
    pub(super) request: RequestId,
    pub(super) priority: Priority,
    pub(super) origin: Origin,
}

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    /// Run this fetch; `protected` from yielding for a while.
    Run { request: RequestId, protected: bool },
    /// Ask this peer for one fetch, nothing below the priority, and run it.
    Ask { peer: PeerKey, admissible: Priority },
}

/// What a peer answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This, and whether there may be more.
    Fetch { fetch_info: FetchInfo, more: bool },
    /// A fetch that has ended already: it was cancelled, or its sink did not take it. And whether there may be more.
    Ended { why: Fruitless, more: bool },
    /// Nothing as urgent as was asked for, until it is woken.
    Wait,
    /// It panicked, and is not asked again.
    Gone,
}

/// Why a pulled fetch, or a question, brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fruitless {
    Cancelled,
    /// The peer was woken while it was asked, and gave no fetch.
    Nothing,
    /// It may have gone to a server, which should not be asked without end.
    Failed,
}

impl Fruitless {
    fn cost(self) -> u32 {
        match self {
            Self::Cancelled | Self::Nothing => 1,
            Self::Failed => 64,
        }
    }
}

/// What becomes of a peer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The worker that asked runs it; `protected` from yielding for a while.
    Run { protected: bool },
    /// It waits: for its origin, or until urgent work is served.
    Waits,
    /// The peer is gone, or had nothing to give.
    Refused,
}

/// How a fetch was preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preemption {
    /// It has an open body.
    pub(super) has_body: bool,
    /// It got as many bytes as a protected turn may have.
    pub(super) had_share: bool,
}

/// What becomes of a preempted fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requeued {
    /// It waits, and keeps the body that it has.
    Kept,
    /// It waits. Its body is to be closed: enough others keep theirs.
    Aborted,
    /// Its peer is gone.
    Refused,
}

/// How much is where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Waiting fetches and pulls by class, in the order they are served in.
    pub(super) queued: [usize; 4],
    /// Fetches that wait for others of their origin.
    pub(super) blocked: usize,
    /// Fetches that wait for their next attempt.
    pub(super) retrying: usize,
    /// Fetches that were preempted and keep their connection; counted in `queued` too.
    pub(super) preempted: usize,
    /// Workers that have an assignment.
    pub(super) running: usize,
    /// Workers that have none.
    pub(super) idle: usize,
    /// Registered peers.
    pub(super) peers: usize,
}

/// The state machine. See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    limits: Limits,
    peers: Slab<PeerState>,
    /// Peers that have something queued in the class, by turn; the lowest turn is next.
    rotations: [BTreeMap<i64, PeerKey>; 4],
    /// Where each waiting fetch is. A fetch is here or on a worker, never both.
    waiting: HashMap<RequestId, Waiting>,
    /// What is queued and has Low work to give, by its age: since when that has waited for a full turn.
    aging: BTreeSet<(Instant, PeerKey, Priority, i64)>,
    /// Peers that are asked again at a time.
    pauses: BTreeSet<(Instant, PeerKey)>,
    /// Fetches whose next attempt has a time; each is in `waiting` too.
    retries: BTreeSet<(Instant, RequestId)>,
    /// Low fetches by origin.
    origins: HashMap<Origin, OriginState>,
    workers: Vec<Option<Running>>,
    /// The workers that are `None` in `workers`; the last one to have become idle is the first to be taken.
    idle: Vec<WorkerId>,
    /// The workers that are busy with something of priority Low; more than allowed only after a demotion.
    low: usize,
    /// Peers that have urgent work queued, and a blocked reader that lends its thread.
    lent_ready: BTreeSet<PeerKey>,
    /// Numbers of lent threads that run nothing.
    free_lent: Vec<WorkerId>,
    queued: [usize; 4],
    preempted: usize,
    blocked: usize,
    throttle: Throttle,
    /// Since when urgent work has found no worker and running Low bodies could yield.
    preempting_since: Option<Instant>,
    /// Rule 4: urgent work that waits goes before all else. Urgent work that is served ends it.
    urgent_is_next: bool,
    next_turn: i64,
    first_turn: i64,
    next_serial: u64,
    next_place: i64,
}

#[derive(Debug)]
struct PeerState {
    serial: u64,
    priority: Priority,
    /// What waits, by place, for each priority of a fetch.
    queues: [BTreeMap<i64, Entry>; 2],
    /// The peer's turn in the rotation of each queue's class; some exactly where the queue is not empty.
    turns: [Option<i64>; 2],
    /// Its fetches that wait for their next attempt or for their origin.
    elsewhere: BTreeSet<RequestId>,
    /// How many of `elsewhere` wait for their origin. Such a peer is not asked for more Low work.
    blocked: usize,
    pull: Pull,
    /// Since when the Low work that it has announced has waited for a question. It goes on while the pull is in the High
    /// queue: else the prefetches of a peer that is woken for urgent work again and again would never age.
    low_since: Option<Instant>,
    /// What its fetches cost that brought nothing, since one did.
    cost: u32,
    /// A blocked reader of it lends its thread.
    is_lent: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    queued: Queued,
    /// Since when it has waited for a full turn: a Low fetch, or the Low work of a peer that has a pull in either queue.
    /// None of a High fetch, and of a pull for urgent work alone.
    since: Option<Instant>,
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
    /// It has Low work, and what it gave last waits for its origin.
    Blocked,
    /// It has work of this priority, and is asked for it at this time: what it gave last brought nothing.
    Paused(Instant, Priority),
    /// A worker is asking: in the turn of its urgent work, or of its Low work. What wakes it meanwhile is kept.
    Asking { turn: Priority, woken: Option<Priority> },
    /// It panicked, or was cancelled.
    Gone,
}

/// Where a fetch waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    peer: PeerKey,
    priority: Priority,
    origin: Origin,
    /// It has a place among the Low fetches of its origin: it got that of one that has left, or it was preempted.
    has_place: bool,
    /// It was preempted and its body is open. Counted in `preempted`, whatever its priority is by now.
    has_body: bool,
    at: Location,
}

#[derive(Clone, Copy, Debug)]
enum Location {
    Queue(i64),
    Retry(Instant),
    Blocked,
}

/// What a worker is at.
#[derive(Clone, Copy, Debug)]
struct Running {
    peer: PeerKey,
    priority: Priority,
    /// None while it asks the peer.
    fetch: Option<(RequestId, Origin)>,
    /// Its fetch is being closed for urgent work.
    aborted: bool,
    /// When it got what it has. What has just begun is not closed before it had its time to yield.
    since: Instant,
    /// Of what is Low: since when it has waited for a full turn, which this may become.
    age: Instant,
    /// Its turn is protected at the beginning.
    protected: bool,
}

/// What runs next.
#[derive(Clone, Copy, Debug)]
struct Choice {
    peer: PeerKey,
    priority: Priority,
    /// It is next by the age of its Low work; if so, its place in the queue, where it may not be the first.
    aged: Option<i64>,
    protected: bool,
}

#[derive(Debug, Default)]
struct OriginState {
    /// Low fetches running, preempted, or next: never 0.
    active: usize,
    /// Low fetches that wait for that to go down; none, while it is less than the limit.
    blocked: VecDeque<RequestId>,
}

impl Choice {
    /// Whose turn it is: that of urgent work, or of Low work.
    fn turn(&self) -> Priority {
        if self.aged.is_some() { Priority::Low } else { self.priority }
    }
}

fn class(peer: Priority, fetch: Priority) -> usize {
    2 * peer.rank() + fetch.rank()
}

impl Schedule {
    /// A schedule for idle workers.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            peers: Slab::new(),
            rotations: Default::default(),
            waiting: HashMap::new(),
            aging: BTreeSet::new(),
            pauses: BTreeSet::new(),
            retries: BTreeSet::new(),
            origins: HashMap::new(),
            workers: vec![None; limits.workers],
            idle: (0..limits.workers).rev().collect(),
            low: 0,
            lent_ready: BTreeSet::new(),
            free_lent: Vec::new(),
            queued: [0; 4],
            preempted: 0,
            blocked: 0,
            throttle: Throttle::new(limits.prefetch_delay),
            preempting_since: None,
            urgent_is_next: false,
            next_turn: 0,
            first_turn: 0,
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
            elsewhere: BTreeSet::new(),
            blocked: 0,
            pull: Pull::Resting,
            low_since: None,
            cost: 0,
            is_lent: false,
        });
        PeerKey { index, serial }
    }

    /// Forgets a peer and returns what it had waiting. What it has on workers runs to its end.
    pub(super) fn handle_unregistered(&mut self, peer: PeerKey, now: Instant) -> Vec<RequestId> {
        let Some(state) = self.peer(peer) else { return Vec::new() };
        let queued = state.queues.iter().flat_map(BTreeMap::values).filter_map(|entry| match entry.queued {
            Queued::Fetch(request) => Some(request),
            Queued::Pull => None,
        });
        let orphans: Vec<RequestId> = queued.chain(state.elsewhere.iter().copied()).collect();
        for request in &orphans {
            self.handle_cancelled(*request, now);
        }
        self.stop_asking(peer);
        self.peers.remove(peer.index);
        orphans
    }

    /// Takes in a fetch of `peer`. False if the peer is gone.
    pub(super) fn handle_submitted(&mut self, peer: PeerKey, fetch_info: FetchInfo, now: Instant) -> bool {
        if self.peer(peer).is_none() {
            return false;
        }
        let FetchInfo { request, priority, origin } = fetch_info;
        let at = self.last_place();
        self.enqueue(peer, priority, at, Queued::Fetch(request), now);
        self.waiting.insert(
            request,
            Waiting { peer, priority, origin, has_place: false, has_body: false, at: Location::Queue(at) },
        );
        true
    }

    /// Notes that `peer` was cancelled: it is not asked any more. What it has waiting is cancelled one by one.
    pub(super) fn handle_peer_cancelled(&mut self, peer: PeerKey) {
        if self.peer(peer).is_some() {
            self.stop_asking(peer);
        }
    }

    /// Notes that `peer` has work of its own, the next piece of it of this priority.
    pub(super) fn handle_woken(&mut self, peer: PeerKey, priority: Priority, now: Instant) {
        let Some(state) = self.peer(peer) else { return };
        let has_low = match state.pull {
            Pull::Blocked => priority == Priority::High,
            Pull::Asking { .. } | Pull::Gone => false,
            Pull::Resting | Pull::Queued(..) | Pull::Paused(..) => priority == Priority::Low,
        };
        if has_low {
            state.low_since.get_or_insert(now);
        }
        match &mut state.pull {
            Pull::Resting if priority == Priority::Low && state.blocked > 0 => {
                (state.pull, state.low_since) = (Pull::Blocked, None);
            }
            Pull::Blocked if priority == Priority::Low => {}
            Pull::Resting | Pull::Blocked => self.queue_pull(peer, priority, now),
            Pull::Paused(until, paused) => {
                let (pause, priority) = ((*until, peer), priority.max(*paused));
                self.pauses.remove(&pause);
                self.queue_pull(peer, priority, now);
            }
            Pull::Queued(queued, place) => {
                let (queue, place) = ((*queued).max(priority), *place);
                if queue > *queued {
                    self.unqueue_pull(peer);
                    self.queue_pull(peer, queue, now);
                } else {
                    self.note_age_of_pull(peer, queue, place);
                }
            }
            Pull::Asking { woken, .. } => *woken = (*woken).max(Some(priority)),
            Pull::Gone => {}
        }
    }

    /// Notes what the peer that `worker` asked has answered. Unless it is run, the worker is idle again.
    pub(super) fn handle_answered(&mut self, worker: WorkerId, answer: Answer, now: Instant) -> Admission {
        let Some(Running { peer, priority: asked, .. }) = self.workers[worker] else {
            return Admission::Refused;
        };
        let woken = self.end_question(peer, asked, answer);
        let (admission, more) = match answer {
            Answer::Fetch { fetch_info, more } => (self.run_or_queue(worker, peer, fetch_info, now), more),
            Answer::Ended { why, more } => {
                self.release(worker);
                self.count(peer, why);
                (Admission::Refused, more)
            }
            Answer::Wait => {
                self.release(worker);
                // Asked for urgent work only, it may still have other work.
                (Admission::Refused, asked == Priority::High)
            }
            Answer::Gone => {
                self.release(worker);
                if self.peer(peer).is_some() {
                    self.stop_asking(peer);
                }
                return Admission::Refused;
            }
        };
        if let Some(state) = self.peer(peer).filter(|_| more) {
            state.low_since.get_or_insert(now);
        }
        match woken {
            Some(priority) if answer == Answer::Wait => {
                // A peer may wake itself in each question, and would be asked without end.
                self.count(peer, Fruitless::Nothing);
                self.ask_again(peer, priority, now);
            }
            Some(priority) => self.handle_woken(peer, priority, now),
            None if more => self.ask_again(peer, Priority::Low, now),
            None => {}
        }
        admission
    }

    /// Notes that `worker` is done with what it had.
    pub(super) fn handle_finished(&mut self, worker: WorkerId, now: Instant) {
        let Some(Running { peer, priority, fetch: Some((_, origin)), .. }) = self.release(worker) else {
            return;
        };
        if let Some(state) = self.peer(peer) {
            state.cost = 0;
        }
        if priority == Priority::Low {
            self.leave_origin(origin, now);
        }
    }

    /// Notes that what `worker` had from a peer has ended without a byte.
    pub(super) fn handle_fruitless(&mut self, worker: WorkerId, why: Fruitless, now: Instant) {
        let Some(Running { peer, priority, fetch: Some((_, origin)), .. }) = self.release(worker) else {
            return;
        };
        self.count(peer, why);
        if priority == Priority::Low {
            self.leave_origin(origin, now);
        }
    }

    /// Notes that what `worker` ran is to be tried again at `at`, before what waits beside it. False if its peer is
    /// gone.
    pub(super) fn handle_retry(&mut self, worker: WorkerId, at: Instant, now: Instant) -> bool {
        let Some(Running { peer, priority, fetch: Some((request, origin)), .. }) = self.release(worker)
        else {
            return false;
        };
        if priority == Priority::Low {
            self.leave_origin(origin, now);
        }
        let Some(state) = self.peer(peer) else { return false };
        state.elsewhere.insert(request);
        self.retries.insert((at, request));
        self.waiting.insert(
            request,
            Waiting { peer, priority, origin, has_place: false, has_body: false, at: Location::Retry(at) },
        );
        true
    }

    /// Notes that what `worker` ran was preempted. It goes on before all else of its class.
    pub(super) fn handle_preempted(&mut self, worker: WorkerId, how: Preemption, now: Instant) -> Requeued {
        let Some(running @ Running { peer, priority, fetch: Some((request, origin)), .. }) =
            self.release(worker)
        else {
            return Requeued::Refused;
        };
        if self.peer(peer).is_none() {
            if priority == Priority::Low {
                self.leave_origin(origin, now);
            }
            return Requeued::Refused;
        }
        let at = self.front_place(peer, priority);
        let since = if how.had_share || running.had_full_turn(now) { now } else { running.age };
        self.enqueue(peer, priority, at, Queued::Fetch(request), since);
        self.move_to_front(peer, priority);
        // A fetch that was promoted meanwhile does not count for its origin, and goes on at once.
        let is_low = priority == Priority::Low;
        let keeps = how.has_body && (!is_low || self.preempted < self.limits.max_preempted);
        self.preempted += usize::from(keeps);
        let (at, has_place) = (Location::Queue(at), is_low);
        self.waiting.insert(request, Waiting { peer, priority, origin, has_place, has_body: keeps, at });
        if how.has_body && !keeps { Requeued::Aborted } else { Requeued::Kept }
    }

    /// Drops a fetch that waits. False if it does not: it runs, or has ended.
    pub(super) fn handle_cancelled(&mut self, request: RequestId, now: Instant) -> bool {
        let Some(place) = self.take_out(request, now) else { return false };
        self.leave_place(&place, now);
        self.unblock_pull(place.peer, now);
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
    pub(super) fn promote(&mut self, request: RequestId, priority: Priority, now: Instant) {
        match self.waiting.get(&request).copied() {
            None => self.promote_running(request, priority, now),
            Some(place) if place.priority == priority => {}
            Some(Waiting { at: Location::Retry(_), .. }) => {
                if let Some(place) = self.waiting.get_mut(&request) {
                    place.priority = priority;
                }
            }
            Some(_) => {
                let Some(place) = self.take_out(request, now) else { return };
                self.leave_place(&place, now);
                let Waiting { peer, has_body, .. } = place;
                // It keeps its body, which goes on counting.
                self.preempted += usize::from(has_body);
                let at = match priority {
                    Priority::High => self.front_place(peer, priority),
                    Priority::Low => self.last_place(),
                };
                self.enqueue(peer, priority, at, Queued::Fetch(request), now);
                let at = Location::Queue(at);
                self.waiting.insert(request, Waiting { priority, has_place: false, at, ..place });
                self.unblock_pull(peer, now);
            }
        }
    }

    /// The next thing to do and who does it, if there is something and somebody. Ask again until there is not.
    pub(super) fn poll_assignment(&mut self, now: Instant) -> Option<(WorkerId, Assignment)> {
        self.wake_retries(now);
        self.end_pauses(now);
        loop {
            let worker = *self.idle.last()?;
            let choice = self.choose(self.has_room(), now)?;
            let Some(assignment) = self.take(choice, worker, now) else { continue };
            self.idle.pop();
            if choice.turn() == Priority::High {
                self.throttle.handle_urgent(now);
                self.urgent_is_next = false;
            } else if choice.protected || self.urgent() > 0 {
                self.urgent_is_next = true;
            }
            return Some((worker, assignment));
        }
    }

    /// How many running Low bodies should yield at their next chunk. One in a protected turn counts, for it may have had its
    /// share of bytes, which only its worker knows.
    pub(super) fn poll_preemptions(&mut self, now: Instant) -> usize {
        let (wanted, open) = self.preemption_need(now);
        if wanted == 0 || open == 0 {
            self.preempting_since = None;
        } else {
            self.preempting_since.get_or_insert(now);
            self.urgent_is_next = true;
        }
        let wanted = wanted.max(usize::from(self.is_preempted_by_age(now)));
        // An urgent body may yield as well: if nobody waits for it any more, which only its worker can find out.
        wanted.min(self.pool().filter(|running| running.fetch.is_some() && !running.aborted).count())
    }

    /// A worker whose Low fetch is to be closed, because none has yielded in time: the one that moved longest ago. Ask
    /// again until there is none. `claimed` is how many are about to yield; `moved` returns when a worker's fetch progressed last.
    pub(super) fn poll_abort<M: Ord>(
        &mut self,
        now: Instant,
        claimed: usize,
        moved: impl Fn(WorkerId) -> M,
    ) -> Option<WorkerId> {
        let is_due = self.preempting_since.is_some_and(|since| since + PREEMPTION_LIMIT <= now);
        if !is_due || self.preemption_need(now).0 <= claimed {
            return None;
        }
        let had_its_time =
            |running: Running| running.is_preemptible(now) && running.since + PREEMPTION_LIMIT <= now;
        let worker = (0..self.workers.len())
            .filter(|worker| self.workers[*worker].is_some_and(had_its_time))
            .min_by_key(|worker| moved(*worker))?;
        if let Some(running) = &mut self.workers[worker] {
            running.aborted = true;
        }
        Some(worker)
    }

    /// When to poll again although nothing has happened, after all that is due at `now` was polled. What was due and
    /// could not be done waits for something to happen, and has no deadline.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let retry = self.retries.first().map(|(at, _)| *at);
        let pause = self.pauses.first().map(|(at, _)| *at);
        let running = || self.pool().filter(|running| running.is_interruptible());
        let abort = self.preempting_since.and_then(|pressed| {
            let open = running().filter(|running| running.is_preemptible(now));
            open.map(|running| running.since.max(pressed) + PREEMPTION_LIMIT).filter(|at| *at > now).min()
        });
        // Then urgent work may preempt, and other aged work may be protected.
        let is_waiting = self.urgent() > 0 && self.idle.is_empty() || self.has_aged(now);
        let protected =
            running().filter(|running| is_waiting && running.is_protected(now)).map(Running::full_turn);
        // With an idle worker Low work waits for the throttle only, or for room.
        let is_low_waiting = !self.aging.is_empty();
        let throttle = self.throttle.opens_at().filter(|_| is_low_waiting && !self.idle.is_empty());
        let aged = self.aging.first().map(|(since, ..)| *since + self.limits.aging_threshold);
        let aged = aged.filter(|_| throttle.is_some() || running().next().is_some());
        let due = [retry, pause, abort, throttle, aged].into_iter().flatten().chain(protected);
        due.filter(|at| *at > now).min()
    }

    /// Takes the idle workers out of service.
    pub(super) fn retire_idle(&mut self) -> impl Iterator<Item = WorkerId> + '_ {
        self.idle.drain(..)
    }

    /// True if something may run and a worker is idle, which polling leaves never so.
    pub(super) fn is_overlooking(&self, now: Instant) -> bool {
        !self.idle.is_empty() && self.choose(self.has_room(), now).is_some()
    }

    /// True if something waits for a worker.
    pub(super) fn has_queued(&self) -> bool {
        self.queued.iter().any(|queued| *queued > 0)
    }

    /// How much is where. O(1).
    pub(super) fn counts(&self) -> Counts {
        Counts {
            queued: self.queued,
            blocked: self.blocked,
            retrying: self.retries.len(),
            preempted: self.preempted,
            running: self.pool().count(),
            idle: self.idle.len(),
            peers: self.peers.len(),
        }
    }

    fn peer(&mut self, key: PeerKey) -> Option<&mut PeerState> {
        self.peers.get_mut(key.index).filter(|state| state.serial == key.serial)
    }

    /// True if a worker that is idle may take something of priority Low.
    fn has_room(&self) -> bool {
        self.low < self.limits.unreserved()
    }

    /// Urgent fetches and pulls that wait.
    fn urgent(&self) -> usize {
        self.queued[class(Priority::High, Priority::High)] + self.queued[class(Priority::Low, Priority::High)]
    }

    /// True if urgent work waits that comes before the prefetches of `peer`.
    fn is_before_low_of(&self, peer: PeerKey) -> bool {
        let priority = self.peers.get(peer.index).map_or(Priority::Low, |state| state.priority);
        self.queued.iter().take(class(priority, Priority::Low)).step_by(2).any(|queued| *queued > 0)
    }

    /// True if a prefetch that has aged waits.
    fn has_aged(&self, now: Instant) -> bool {
        self.aging.first().is_some_and(|(since, ..)| *since + self.limits.aging_threshold <= now)
    }

    /// True if one more turn may be protected.
    fn may_protect(&self, now: Instant) -> bool {
        let protected = self.pool().filter(|running| running.is_protected(now)).count();
        protected < self.limits.max_protected()
    }

    /// True if a running Low body should yield to one that has aged. Where urgent work waits, that has the say.
    fn is_preempted_by_age(&self, now: Instant) -> bool {
        self.urgent() == 0 && self.has_aged(now) && self.may_protect(now)
    }

    /// What is next. See the rules of the module.
    fn choose(&self, room: bool, now: Instant) -> Option<Choice> {
        let first = |peer, priority| {
            let (_, next) = self.rotations[class(peer, priority)].first_key_value()?;
            Some(Choice { peer: *next, priority, aged: None, protected: false })
        };
        let urgent = |peer| first(peer, Priority::High);
        if self.urgent_is_next && self.urgent() > 0 {
            return urgent(Priority::High).or_else(|| urgent(Priority::Low));
        }
        let aged = self.aging.first().filter(|_| room && self.has_aged(now));
        if let Some((_, peer, queue, place)) = aged {
            let protected = self.may_protect(now);
            if protected || self.urgent() == 0 {
                return Some(Choice { peer: *peer, priority: *queue, aged: Some(*place), protected });
            }
        }
        let low_allowed = room && self.throttle.is_open(now);
        let low = |peer| if low_allowed { first(peer, Priority::Low) } else { None };
        urgent(Priority::High)
            .or_else(|| low(Priority::High))
            .or_else(|| urgent(Priority::Low))
            .or_else(|| low(Priority::Low))
    }

    /// Takes what was chosen out of its queue, for `worker`. `None` if it has to wait for its origin after all.
    fn take(&mut self, choice: Choice, worker: WorkerId, now: Instant) -> Option<Assignment> {
        let Choice { peer, priority, protected, .. } = choice;
        let queue = &self.peers[peer.index].queues[priority.rank()];
        let (place, entry) = match choice.aged {
            Some(place) => (place, *queue.get(&place)?),
            None => queue.first_key_value().map(|(place, entry)| (*place, *entry))?,
        };
        self.dequeue(peer, priority, place);
        self.move_to_back(peer, priority);
        let Queued::Fetch(request) = entry.queued else {
            // Who is asked may answer with anything admissible: room for it is taken beforehand.
            let admissible =
                if self.has_room() && !self.is_lent(worker) { Priority::Low } else { Priority::High };
            let state = &mut self.peers[peer.index];
            state.pull = Pull::Asking { turn: choice.turn(), woken: None };
            let age = state.low_since.unwrap_or(now);
            self.occupy(worker, Running { age, protected, ..Running::asking(peer, admissible, now) });
            return Some(Assignment::Ask { peer, admissible });
        };
        let place = self.waiting.remove(&request)?;
        if priority == Priority::Low && !place.has_place && !self.enter_origin(place.origin) {
            self.block(request, place);
            return None;
        }
        self.preempted -= usize::from(place.has_body);
        // As Low work it has not waited yet.
        let age = entry.since.unwrap_or(now);
        let fetch = Some((request, place.origin));
        self.occupy(worker, Running { fetch, age, protected, ..Running::asking(peer, priority, now) });
        Some(Assignment::Run { request, protected })
    }

    /// Lets `worker` run what the peer that it asked has given, or queues that.
    fn run_or_queue(
        &mut self,
        worker: WorkerId,
        peer: PeerKey,
        fetch_info: FetchInfo,
        now: Instant,
    ) -> Admission {
        let FetchInfo { request, priority, origin } = fetch_info;
        let Some(asked) = self.workers[worker] else { return Admission::Refused };
        let is_low = priority == Priority::Low;
        let protected = is_low && asked.protected;
        // Urgent work of a class before this one waits for this worker, or the peer gave what only other workers may run.
        let is_before = !protected && self.is_before_low_of(peer) && self.preemption_need(now).0 > 0;
        let is_for_others = asked.priority == Priority::High && !self.has_room();
        let is_out_of_turn = is_low && (is_before || is_for_others || self.is_lent(worker));
        if !is_out_of_turn && (!is_low || self.enter_origin(origin)) {
            let fetch = Some((request, origin));
            let running =
                Running { fetch, age: asked.age, protected, ..Running::asking(peer, priority, now) };
            self.occupy(worker, running);
            return Admission::Run { protected };
        }
        self.release(worker);
        if self.peer(peer).is_none() {
            return Admission::Refused;
        }
        let place =
            Waiting { peer, priority, origin, has_place: false, has_body: false, at: Location::Blocked };
        if is_out_of_turn {
            let at = self.last_place();
            self.enqueue(peer, priority, at, Queued::Fetch(request), asked.age);
            self.waiting.insert(request, Waiting { at: Location::Queue(at), ..place });
        } else {
            self.block(request, place);
        }
        Admission::Waits
    }

    /// Makes `worker` busy with something, maybe in the place of something else.
    fn occupy(&mut self, worker: WorkerId, running: Running) {
        let old = self.workers[worker].replace(running);
        if self.is_lent(worker) {
            return;
        }
        self.low += usize::from(running.priority == Priority::Low);
        self.low -= usize::from(old.is_some_and(|old| old.priority == Priority::Low));
    }

    /// Makes `worker` idle.
    fn release(&mut self, worker: WorkerId) -> Option<Running> {
        let running = self.workers[worker].take()?;
        if self.is_lent(worker) {
            self.free_lent.push(worker);
            return Some(running);
        }
        self.low -= usize::from(running.priority == Priority::Low);
        self.idle.push(worker);
        Some(running)
    }

    fn promote_running(&mut self, request: RequestId, priority: Priority, now: Instant) {
        let is_it = |running: &Option<Running>| {
            running.is_some_and(|running| running.fetch.is_some_and(|(running, _)| running == request))
        };
        let Some(worker) = self.workers.iter().position(is_it) else { return };
        let Some(running @ Running { fetch: Some((_, origin)), .. }) = self.workers[worker] else { return };
        if running.priority == priority {
            return;
        }
        // As Low work it has not waited yet, and a protection was for what had.
        self.occupy(worker, Running { priority, age: now, protected: false, ..running });
        match priority {
            Priority::High => self.leave_origin(origin, now),
            // It runs already: the limit holds for those that come after it.
            Priority::Low => self.origins.entry(origin).or_default().active += 1,
        }
    }

    /// How many urgent fetches wait for a worker in vain, less those that get one by an abort; and how many Low
    /// bodies could yield.
    fn preemption_need(&self, now: Instant) -> (usize, usize) {
        let aborted = self.pool().filter(|running| running.aborted).count();
        let open = self.pool().filter(|running| running.is_preemptible(now)).count();
        (self.urgent().saturating_sub(aborted + self.idle.len()), open)
    }

    /// Counts one more Low fetch of an origin, if it may have one.
    fn enter_origin(&mut self, origin: Origin) -> bool {
        let state = self.origins.entry(origin).or_default();
        let may = state.active < self.limits.max_per_origin;
        state.active += usize::from(may);
        may
    }

    /// Counts one less, and gives the place to what waited for it. Not only queued, but with its place: else it would be
    /// passed by what comes later, and if it was cancelled, nobody would call those that wait behind it.
    fn leave_origin(&mut self, origin: Origin, now: Instant) {
        let Some(state) = self.origins.get_mut(&origin) else { return };
        state.active -= 1;
        // After a demotion more may be active than the limit allows.
        let next = if state.active < self.limits.max_per_origin { state.blocked.pop_front() } else { None };
        state.active += usize::from(next.is_some());
        if state.active == 0 {
            self.origins.remove(&origin);
        }
        let Some(request) = next else { return };
        let Some(waiting) = self.waiting.get(&request).copied() else { return };
        self.forget_blocked(request, waiting.peer, now);
        let at = self.front_place(waiting.peer, waiting.priority);
        self.enqueue(waiting.peer, waiting.priority, at, Queued::Fetch(request), now);
        self.waiting.insert(request, Waiting { at: Location::Queue(at), has_place: true, ..waiting });
        self.unblock_pull(waiting.peer, now);
    }

    /// Asks a peer for Low work again that was not asked because of what it had blocked, once it has nothing blocked any more:
    /// wherever that went.
    fn unblock_pull(&mut self, peer: PeerKey, now: Instant) {
        let state = &self.peers[peer.index];
        if state.blocked > 0 {
            return;
        }
        match state.pull {
            Pull::Blocked => self.queue_pull(peer, Priority::Low, now),
            Pull::Queued(queue, place) => self.note_age_of_pull(peer, queue, place),
            Pull::Resting | Pull::Paused(..) | Pull::Asking { .. } | Pull::Gone => {}
        }
    }

    /// Gives back what a fetch that waits has: of its origin, and of the bodies that may be kept.
    fn leave_place(&mut self, waiting: &Waiting, now: Instant) {
        self.preempted -= usize::from(waiting.has_body);
        if waiting.has_place {
            self.leave_origin(waiting.origin, now);
        }
    }

    fn block(&mut self, request: RequestId, place: Waiting) {
        self.origins.entry(place.origin).or_default().blocked.push_back(request);
        self.waiting.insert(request, Waiting { at: Location::Blocked, ..place });
        self.blocked += 1;
        let state = &mut self.peers[place.peer.index];
        state.elsewhere.insert(request);
        state.blocked += 1;
    }

    fn forget_blocked(&mut self, request: RequestId, peer: PeerKey, now: Instant) {
        self.blocked -= 1;
        let state = &mut self.peers[peer.index];
        state.elsewhere.remove(&request);
        state.blocked -= 1;
        // Until now it was not to be asked.
        if state.blocked == 0 && !matches!(state.pull, Pull::Queued(Priority::Low, _)) {
            state.low_since = state.low_since.map(|_| now);
        }
    }

    /// Takes a fetch from where it waits.
    fn take_out(&mut self, request: RequestId, now: Instant) -> Option<Waiting> {
        let place = self.waiting.remove(&request)?;
        match place.at {
            Location::Queue(at) => self.dequeue(place.peer, place.priority, at),
            Location::Retry(at) => {
                self.retries.remove(&(at, request));
                self.peers[place.peer.index].elsewhere.remove(&request);
            }
            Location::Blocked => {
                if let Some(state) = self.origins.get_mut(&place.origin) {
                    state.blocked.retain(|blocked| *blocked != request);
                }
                self.forget_blocked(request, place.peer, now);
            }
        }
        Some(place)
    }

    fn last_place(&mut self) -> i64 {
        self.next_place += 1;
        self.next_place
    }

    fn front_place(&self, peer: PeerKey, priority: Priority) -> i64 {
        let queue = &self.peers[peer.index].queues[priority.rank()];
        queue.first_key_value().map_or(self.next_place, |(first, _)| *first) - 1
    }

    fn enqueue(&mut self, peer: PeerKey, priority: Priority, place: i64, queued: Queued, since: Instant) {
        let state = &mut self.peers[peer.index];
        let class = class(state.priority, priority);
        let since = match queued {
            Queued::Pull => state.low_since.filter(|_| state.blocked == 0),
            Queued::Fetch(_) => Some(since).filter(|_| priority == Priority::Low),
        };
        state.queues[priority.rank()].insert(place, Entry { queued, since });
        self.queued[class] += 1;
        self.aging.extend(since.map(|since| (since, peer, priority, place)));
        if state.turns[priority.rank()].is_none() {
            state.turns[priority.rank()] = Some(self.next_turn);
            self.rotations[class].insert(self.next_turn, peer);
            self.next_turn += 1;
        }
        if state.is_lent && priority == Priority::High {
            self.lent_ready.insert(peer);
        }
    }

    fn dequeue(&mut self, peer: PeerKey, priority: Priority, place: i64) {
        let state = &mut self.peers[peer.index];
        let class = class(state.priority, priority);
        let queue = &mut state.queues[priority.rank()];
        let Some(entry) = queue.remove(&place) else { return };
        self.queued[class] -= 1;
        if let Some(since) = entry.since {
            self.aging.remove(&(since, peer, priority, place));
        }
        if queue.is_empty() {
            if let Some(turn) = state.turns[priority.rank()].take() {
                self.rotations[class].remove(&turn);
            }
            if priority == Priority::High {
                self.lent_ready.remove(&peer);
            }
        }
    }

    fn move_to_back(&mut self, peer: PeerKey, priority: Priority) {
        self.next_turn += 1;
        self.give_turn(peer, priority, self.next_turn - 1);
    }

    fn move_to_front(&mut self, peer: PeerKey, priority: Priority) {
        self.first_turn -= 1;
        self.give_turn(peer, priority, self.first_turn);
    }

    fn give_turn(&mut self, peer: PeerKey, priority: Priority, turn: i64) {
        let state = &mut self.peers[peer.index];
        let class = class(state.priority, priority);
        if let Some(old) = &mut state.turns[priority.rank()] {
            self.rotations[class].remove(old);
            self.rotations[class].insert(turn, peer);
            *old = turn;
        }
    }

    fn queue_pull(&mut self, peer: PeerKey, priority: Priority, now: Instant) {
        let place = self.last_place();
        if priority == Priority::Low {
            self.peers[peer.index].low_since.get_or_insert(now);
        }
        self.enqueue(peer, priority, place, Queued::Pull, now);
        self.peers[peer.index].pull = Pull::Queued(priority, place);
    }

    /// Lets a pull that is queued age from when the peer has announced Low work on.
    fn note_age_of_pull(&mut self, peer: PeerKey, queue: Priority, place: i64) {
        let state = &mut self.peers[peer.index];
        let Some(entry) = state.queues[queue.rank()].get_mut(&place) else { return };
        if let (None, Some(since), 0) = (entry.since, state.low_since, state.blocked) {
            entry.since = Some(since);
            self.aging.insert((since, peer, queue, place));
        }
    }

    fn unqueue_pull(&mut self, peer: PeerKey) {
        if let Pull::Queued(priority, place) = self.peers[peer.index].pull {
            self.dequeue(peer, priority, place);
            self.peers[peer.index].pull = Pull::Resting;
        }
    }

    /// Asks a peer that may have more work, the next piece of it of this priority: now or after a pause.
    fn ask_again(&mut self, peer: PeerKey, priority: Priority, now: Instant) {
        let Some(state) = self.peer(peer) else { return };
        let Some(cost) = state.cost.checked_sub(FREE_COST) else {
            return self.handle_woken(peer, priority, now);
        };
        if state.pull == Pull::Resting {
            let [first, longest] = PAUSES;
            let pause = first.saturating_mul(2_u32.saturating_pow(cost / DOUBLING_COST)).min(longest);
            state.pull = Pull::Paused(now + pause, priority);
            self.pauses.insert((now + pause, peer));
        }
    }

    fn count(&mut self, peer: PeerKey, why: Fruitless) {
        if let Some(state) = self.peer(peer) {
            state.cost = state.cost.saturating_add(why.cost());
        }
    }

    /// Records what an answer shows of the Low work that the peer has announced. Returns what woke the peer meanwhile.
    fn end_question(&mut self, peer: PeerKey, asked: Priority, answer: Answer) -> Option<Priority> {
        let state = self.peer(peer)?;
        let Pull::Asking { turn, woken } = state.pull else { return None };
        state.pull = Pull::Resting;
        let is_waiting = match answer {
            Answer::Fetch { fetch_info: FetchInfo { priority: Priority::Low, .. }, .. } => false,
            // A turn of its Low work is used up, also by urgent work, or by what has ended already: else a peer with a
            // thousand of these would be the oldest all the time, and keep the others back.
            Answer::Fetch { more, .. } | Answer::Ended { more, .. } => more && turn == Priority::High,
            Answer::Wait => asked == Priority::High,
            Answer::Gone => false,
        };
        state.low_since = state.low_since.filter(|_| is_waiting);
        woken
    }

    /// Never asks the peer again.
    fn stop_asking(&mut self, peer: PeerKey) {
        self.unqueue_pull(peer);
        if let Pull::Paused(until, _) = self.peers[peer.index].pull {
            self.pauses.remove(&(until, peer));
        }
        self.peers[peer.index].pull = Pull::Gone;
    }

    fn end_pauses(&mut self, now: Instant) {
        while let Some((until, peer)) = self.pauses.first().copied().filter(|(until, _)| *until <= now) {
            self.pauses.remove(&(until, peer));
            let Pull::Paused(_, priority) = self.peers[peer.index].pull else { continue };
            self.peers[peer.index].pull = Pull::Resting;
            self.handle_woken(peer, priority, now);
        }
    }

    fn wake_retries(&mut self, now: Instant) {
        while let Some((at, request)) = self.retries.first().copied() {
            if at > now {
                return;
            }
            self.retries.remove(&(at, request));
            let Some(place) = self.waiting.get(&request).copied() else { continue };
            self.peers[place.peer.index].elsewhere.remove(&request);
            let at = self.front_place(place.peer, place.priority);
            self.enqueue(place.peer, place.priority, at, Queued::Fetch(request), now);
            self.waiting.insert(request, Waiting { at: Location::Queue(at), ..place });
        }
    }
}

impl Running {
    fn asking(peer: PeerKey, priority: Priority, since: Instant) -> Self {
        Self { peer, priority, fetch: None, aborted: false, since, age: since, protected: false }
    }

    /// When it has had a full turn, unless it had its share of bytes before.
    fn full_turn(&self) -> Instant {
        self.since + PROTECTED
    }

    fn had_full_turn(&self, now: Instant) -> bool {
        self.full_turn() <= now
    }

    /// True while urgent work has to leave it alone. The answer to a question is protected from its beginning.
    fn is_protected(&self, now: Instant) -> bool {
        self.protected && (self.fetch.is_none() || !self.had_full_turn(now))
    }

    /// True if it runs a Low fetch that is not being closed.
    fn is_interruptible(&self) -> bool {
        self.priority == Priority::Low && self.fetch.is_some() && !self.aborted
    }

    /// True if it runs a Low fetch that urgent work may interrupt.
    fn is_preemptible(&self, now: Instant) -> bool {
        self.is_interruptible() && !self.is_protected(now)
    }
}

mod lent;
#[cfg(test)]
mod properties;
mod throttle;

#[cfg(test)]
mod tests;
