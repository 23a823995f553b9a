//! All that waits, and where: in a queue, blocked on the limit of its origin, or for the time of its next attempt.

use std::collections::BTreeMap;
use std::time::Instant;

use super::delay_queue::DelayQueue;
use super::origin_limit::{BlockedAt, OriginLimit};
use super::peers::Peers;
use super::preempted::PreemptedBodies;
use super::pull::Pull;
use super::queues::{Queued, Queues};
use super::types::{Counts, FetchInfo, Limits, Origin, PeerKey, Requeued};
use crate::id_map::IdMap;
use crate::types::{Priority, RequestId};

/// The peers, the fetches that wait, and the pulls.
#[derive(Debug)]
pub(super) struct Backlog {
    peers: Peers,
    queues: Queues,
    /// Each fetch that waits.
    waiting: IdMap<RequestId, Waiting>,
    /// The fetches that wait for the time of their next attempt.
    retries: DelayQueue<RequestId>,
    /// Those among them that could not connect, by their origins, and from when on an answer of the origin lets them start.
    unreachable: IdMap<Origin, BTreeMap<RequestId, Instant>>,
    /// Peers whose pull is paused.
    pauses: DelayQueue<PeerKey>,
    origins: OriginLimit,
    bodies: PreemptedBodies,
}

/// A fetch that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    peer: PeerKey,
    priority: Priority,
    origin: Origin,
    /// It counts for the limit of its origin: it was preempted, or got the place of one that left.
    is_active: bool,
    /// It was preempted and its body is open. It is counted in `bodies`, whatever its priority is now.
    has_body: bool,
    at: Location,
}

#[derive(Clone, Copy, Debug)]
enum Location {
    /// At this place in the queue of its priority.
    Queue(i64),
    Retry(Instant),
    Blocked(BlockedAt),
}

/// What was taken out for a worker.
#[derive(Clone, Copy, Debug)]
pub(super) enum Popped {
    /// The peer is to be asked.
    Pull,
    /// If it is a prefetch, it has waited for a full turn since `since`.
    Fetch { request: RequestId, origin: Origin, since: Option<Instant> },
    /// Nothing: it is blocked on the limit of its origin from now on.
    Blocked,
}

impl Backlog {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            peers: Peers::default(),
            queues: Queues::new(limits.aging_threshold),
            waiting: IdMap::default(),
            retries: DelayQueue::default(),
            unreachable: IdMap::default(),
            pauses: DelayQueue::default(),
            origins: OriginLimit::new(limits.max_per_origin),
            bodies: PreemptedBodies::new(limits.max_preempted),
        }
    }

    pub(super) fn register(&mut self, priority: Priority) -> PeerKey {
        self.peers.insert(priority)
    }

    /// Removes a peer. Returns its fetches that waited.
    pub(super) fn unregister(&mut self, peer: PeerKey, now: Instant) -> Vec<RequestId> {
        let Some(state) = self.peers.get(peer) else { return Vec::new() };
        let orphans: Vec<RequestId> = state.fetches().collect();
        for request in &orphans {
            self.cancel(*request, now);
        }
        // Its queues have to be empty before it goes: the rotations name it.
        self.update_pull(peer, Pull::stop);
        self.peers.remove(peer);
        orphans
    }

    /// Puts a fetch at the back of its queue. If it is a prefetch, it waits since `since`. False if its peer is gone.
    pub(super) fn push(&mut self, peer: PeerKey, fetch_info: FetchInfo, since: Instant) -> bool {
        let Some(state) = self.peers.get_mut(peer) else { return false };
        let FetchInfo { request, priority, .. } = fetch_info;
        let at = Location::Queue(self.queues.push_back(&mut state.queues, priority, request, since));
        self.waiting.insert(request, Waiting::new(peer, fetch_info, at));
        true
    }

    /// Lets a fetch wait until `at`. False if its peer is gone.
    pub(super) fn delay(&mut self, peer: PeerKey, fetch_info: FetchInfo, at: Instant) -> bool {
        let Some(state) = self.peers.get_mut(peer) else { return false };
        let request = fetch_info.request;
        // In no queue, and not active at its origin: a retry may be minutes away, and must not keep the place of another one.
        state.elsewhere.insert(request);
        self.retries.insert(at, request);
        self.waiting.insert(request, Waiting::new(peer, fetch_info, Location::Retry(at)));
        true
    }

    /// Lets a fetch that waits for its next attempt start at `soonest`, if its origin has answered by then.
    pub(super) fn start_on_answer(&mut self, request: RequestId, soonest: Instant) {
        if let Some(Waiting { origin, at: Location::Retry(_), .. }) = self.waiting.get(&request) {
            self.unreachable.entry(*origin).or_default().insert(request, soonest);
        }
    }

    /// An origin has answered.
    pub(super) fn handle_answer(&mut self, origin: Origin, now: Instant) {
        for (request, soonest) in self.unreachable.remove(&origin).unwrap_or_default() {
            let Some(waiting) = self.waiting.get_mut(&request) else { continue };
            let Location::Retry(at) = &mut waiting.at else { continue };
            self.retries.remove(*at, request);
            *at = soonest.max(now).min(*at);
            self.retries.insert(*at, request);
        }
    }

    /// True if an answer lets something start.
    pub(super) fn has_unreachable(&self) -> bool {
        !self.unreachable.is_empty()
    }

    fn forget_unreachable(&mut self, origin: Origin, request: RequestId) {
        let Some(requests) = self.unreachable.get_mut(&origin) else { return };
        requests.remove(&request);
        if requests.is_empty() {
            self.unreachable.remove(&origin);
        }
    }

    /// Puts a preempted fetch before the rest of its class. A prefetch stays active at its origin, and has waited since `since`. If
    /// the origin is reserved, it is blocked instead.
    pub(super) fn requeue(
        &mut self,
        peer: PeerKey,
        fetch_info: FetchInfo,
        has_body: bool,
        since: Instant,
        now: Instant,
    ) -> Requeued {
        let FetchInfo { request, priority, origin } = fetch_info;
        // An urgent fetch does not count at its origin. It is preempted only if it was promoted after its preemption was
        // claimed.
        let is_active = priority == Priority::Low;
        if is_active && (self.peers.get(peer).is_none() || self.origins.is_reserved(origin)) {
            // In both cases its place is free for another one. `block` finds out whether the peer is gone.
            self.leave_origin(origin, now);
            return match self.block(peer, fetch_info) {
                false => Requeued::Refused,
                true if has_body => Requeued::Aborted,
                true => Requeued::Kept,
            };
        }
        let Some(state) = self.peers.get_mut(peer) else { return Requeued::Refused };
        let at = Location::Queue(self.queues.push_front(&mut state.queues, priority, request, since));
        // The peer too, not only the fetch within its queue: otherwise the other peers of the class would come first.
        self.queues.move_to_front(&mut state.queues, priority);
        // Also of an urgent fetch: the one for which the origin is reserved gets no answer while this body is open.
        let may_keep = has_body && !self.origins.is_reserved(origin);
        let keeps_body = may_keep && self.bodies.keep(priority);
        let waiting = Waiting::new(peer, fetch_info, at);
        self.waiting.insert(request, Waiting { is_active, has_body: keeps_body, ..waiting });
        if has_body && !keeps_body { Requeued::Aborted } else { Requeued::Kept }
    }

    /// Lets a prefetch wait that could not [enter](Self::try_enter). False if its peer is gone.
    pub(super) fn block(&mut self, peer: PeerKey, fetch_info: FetchInfo) -> bool {
        let Some(at) = self.block_at(peer, fetch_info.request, fetch_info.origin) else { return false };
        self.waiting.insert(fetch_info.request, Waiting::new(peer, fetch_info, at));
        true
    }

    /// Takes out what is at `place` in a queue, or first in it, for a worker.
    pub(super) fn pop(&mut self, peer: PeerKey, queue: Priority, place: Option<i64>) -> Option<Popped> {
        let state = self.peers.get_mut(peer)?;
        let entry = self.queues.pop(&mut state.queues, queue, place)?;
        let Queued::Fetch(request) = entry.queued else { return Some(Popped::Pull) };
        let waiting = self.waiting.remove(&request)?;
        let Waiting { origin, is_active, has_body, .. } = waiting;
        // It got its place before the origin was reserved, and returns it: a prefetch that runs now would be aborted at once.
        if queue == Priority::Low && is_active && self.origins.is_reserved(origin) {
            self.origins.leave(origin);
            self.block_again(request, waiting);
            return Some(Popped::Blocked);
        }
        if queue == Priority::Low && !is_active && !self.origins.try_enter(origin) {
            self.block_again(request, waiting);
            return Some(Popped::Blocked);
        }
        if has_body {
            self.bodies.release();
        }
        Some(Popped::Fetch { request, origin, since: entry.since })
    }

    /// Closes the body of a fetch that waits.
    pub(super) fn close_body(&mut self, request: RequestId) {
        if let Some(waiting) = self.waiting.get_mut(&request) {
            if std::mem::take(&mut waiting.has_body) {
                self.bodies.release();
            }
        }
    }

    /// Drops a fetch. False if it does not wait.
    pub(super) fn cancel(&mut self, request: RequestId, now: Instant) -> bool {
        let Some(waiting) = self.take_out(request, now) else { return false };
        if waiting.has_body {
            self.bodies.release();
        }
        if waiting.is_active {
            self.leave_origin(waiting.origin, now);
        }
        true
    }

    /// Gives a fetch another priority: promoted to the front of its new queue, demoted to the back. False if it does not wait.
    pub(super) fn promote(&mut self, request: RequestId, priority: Priority, now: Instant) -> bool {
        match self.waiting.get_mut(&request) {
            None => return false,
            Some(waiting) if waiting.priority == priority => {}
            // In no queue, so only the priority changes: it decides the queue when the time of the retry comes.
            Some(Waiting { at: Location::Retry(_), priority: old, .. }) => *old = priority,
            Some(_) => self.change_queue(request, priority, now),
        }
        true
    }

    fn change_queue(&mut self, request: RequestId, priority: Priority, now: Instant) {
        let Some(waiting) = self.take_out(request, now) else { return };
        if waiting.is_active {
            self.leave_origin(waiting.origin, now);
        }
        let Some(state) = self.peers.get_mut(waiting.peer) else { return };
        let place = match priority {
            Priority::High => self.queues.push_front(&mut state.queues, priority, request, now),
            Priority::Low => self.queues.push_back(&mut state.queues, priority, request, now),
        };
        // It enters its origin anew when its turn comes. Its body stays open, and counts in `bodies` whatever its priority
        // is now.
        let at = Location::Queue(place);
        self.waiting.insert(request, Waiting { priority, is_active: false, at, ..waiting });
    }

    /// Gives a peer another priority. What it has queued changes its class.
    pub(super) fn set_priority(&mut self, peer: PeerKey, priority: Priority) {
        if let Some(state) = self.peers.get_mut(peer) {
            self.queues.set_priority(&mut state.queues, priority);
        }
    }

    /// Notes whether a peer lends a thread.
    pub(super) fn set_lending(&mut self, peer: PeerKey, is_lending: bool) {
        if let Some(state) = self.peers.get_mut(peer) {
            self.queues.set_lending(&mut state.queues, is_lending);
        }
    }

    /// Makes a prefetch active at its origin. False if enough others are.
    pub(super) fn try_enter(&mut self, origin: Origin) -> bool {
        self.origins.try_enter(origin)
    }

    /// Makes a running fetch active at its origin: it becomes a prefetch.
    pub(super) fn enter_running(&mut self, origin: Origin) {
        self.origins.enter_running(origin);
    }

    /// Ends the activity of a prefetch at its origin. The one that was blocked longest is queued, before all else of its peer.
    pub(super) fn leave_origin(&mut self, origin: Origin, now: Instant) {
        self.origins.leave(origin);
        self.unblock(origin, now);
    }

    /// Reserves an origin for urgent work: its prefetches are blocked. Or ends that.
    pub(super) fn set_reserved(&mut self, origin: Origin, is_reserved: bool, now: Instant) {
        self.origins.set_reserved(origin, is_reserved);
        self.unblock(origin, now);
    }

    pub(super) fn is_reserved(&self, origin: Origin) -> bool {
        self.origins.is_reserved(origin)
    }

    fn unblock(&mut self, origin: Origin, now: Instant) {
        // Several, if the limit was exceeded by demotions, or the origin was reserved.
        while let Some(request) = self.origins.unblock(origin) {
            self.queue_unblocked(request, now);
        }
    }

    fn queue_unblocked(&mut self, request: RequestId, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(&request) else { return };
        let Some(state) = self.peers.get_mut(waiting.peer) else { return };
        state.elsewhere.remove(&request);
        let place = self.queues.push_front(&mut state.queues, waiting.priority, request, now);
        // It waits since now. While it was blocked no worker could have served it, and as an aged one it would pass the others.
        (waiting.at, waiting.is_active) = (Location::Queue(place), true);
        let peer = waiting.peer;
        self.update_pull(peer, |pull| pull.handle_unblocked(now));
    }

    /// Queues what has waited for a time that has come.
    pub(super) fn queue_due(&mut self, now: Instant) {
        // To the front, since it was begun before the rest of its queue. It has not waited for a worker yet, so its age begins
        // now.
        while let Some(request) = self.retries.pop_due(now) {
            let Some(waiting) = self.waiting.get_mut(&request) else { continue };
            let Some(state) = self.peers.get_mut(waiting.peer) else { continue };
            state.elsewhere.remove(&request);
            let place = self.queues.push_front(&mut state.queues, waiting.priority, request, now);
            waiting.at = Location::Queue(place);
            let origin = waiting.origin;
            self.forget_unreachable(origin, request);
        }
        while let Some(peer) = self.pauses.pop_due(now) {
            self.update_pull(peer, |pull| pull.handle_time(now));
        }
    }

    /// When [`queue_due`](Self::queue_due) has something to queue.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.retries.next_deadline(), self.pauses.next_deadline()].into_iter().flatten().min()
    }

    /// Changes the pull of a peer, and puts it where it belongs after that: into a queue, or among the pauses.
    pub(super) fn update_pull<T>(&mut self, peer: PeerKey, change: impl FnOnce(&mut Pull) -> T) -> Option<T> {
        let state = self.peers.get_mut(peer)?;
        let before = state.pull.paused_until();
        let changed = change(&mut state.pull);
        let after = state.pull.paused_until();
        // The queue finds an entry by its time, so the old one has to be kept until here.
        if before != after {
            before.inspect(|at| self.pauses.remove(*at, peer));
            after.inspect(|at| self.pauses.insert(*at, peer));
        }
        self.queues.set_pull(&mut state.queues, state.pull.place());
        Some(changed)
    }

    /// The priority of a peer. `None` if it is gone.
    pub(super) fn priority(&self, peer: PeerKey) -> Option<Priority> {
        self.peers.get(peer).map(|state| state.queues.priority())
    }

    pub(super) fn queues(&self) -> &Queues {
        &self.queues
    }

    /// How much waits. What runs is not counted.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            queued: self.queues.lens(),
            blocked: self.origins.blocked(),
            retrying: self.retries.len(),
            preempted: self.bodies.open(),
            peers: self.peers.len(),
            ..Counts::default()
        }
    }

    /// Takes a fetch from where it waits. It stays active at its origin, and its body stays open.
    fn take_out(&mut self, request: RequestId, now: Instant) -> Option<Waiting> {
        let waiting = self.waiting.remove(&request)?;
        let state = self.peers.get_mut(waiting.peer)?;
        match waiting.at {
            Location::Queue(place) => {
                self.queues.remove(&mut state.queues, waiting.priority, place);
            }
            Location::Retry(at) => {
                state.elsewhere.remove(&request);
                self.retries.remove(at, request);
                self.forget_unreachable(waiting.origin, request);
            }
            Location::Blocked(at) => {
                state.elsewhere.remove(&request);
                self.origins.forget(waiting.origin, at);
                self.update_pull(waiting.peer, |pull| pull.handle_unblocked(now));
            }
        }
        Some(waiting)
    }

    fn block_again(&mut self, request: RequestId, waiting: Waiting) {
        if let Some(at) = self.block_at(waiting.peer, request, waiting.origin) {
            self.waiting.insert(request, Waiting { at, is_active: false, ..waiting });
        }
    }

    /// Blocks a fetch on its origin. `None` if its peer is gone.
    fn block_at(&mut self, peer: PeerKey, request: RequestId, origin: Origin) -> Option<Location> {
        let state = self.peers.get_mut(peer)?;
        state.elsewhere.insert(request);
        state.pull.handle_blocked();
        Some(Location::Blocked(self.origins.block(origin, request)))
    }
}

impl Waiting {
    /// A fetch without an open body, that is not active at its origin.
    fn new(peer: PeerKey, fetch_info: FetchInfo, at: Location) -> Self {
        let FetchInfo { priority, origin, .. } = fetch_info;
        Self { peer, priority, origin, is_active: false, has_body: false, at }
    }
}

/// What the properties look at.
#[cfg(test)]
impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.queues.aging().is_empty()
            && self.retries.len() + self.pauses.len() == 0
            && self.unreachable.is_empty()
            && self.origins.is_empty()
    }

    pub(super) fn is_blocked(&self, request: RequestId) -> bool {
        self.waiting.get(&request).is_some_and(|waiting| matches!(waiting.at, Location::Blocked(_)))
    }

    pub(super) fn is_queued_prefetch(&self, request: RequestId) -> bool {
        self.waiting.get(&request).is_some_and(|waiting| {
            waiting.priority == Priority::Low && matches!(waiting.at, Location::Queue(_))
        })
    }

    pub(super) fn pull(&self, peer: PeerKey) -> Option<&Pull> {
        self.peers.get(peer).map(|state| &state.pull)
    }
}
