//! What waits for a worker: two queues for each peer, one for each priority of a fetch.
//!
//! The peers that have something in a queue are in the [rotation](Rotations) of the queue's class:
//!
//! ```text
//!  class      peer  fetch   rotation: peers in order      peer 7, queue High
//!  HighHigh   High  High    ─▶ 3 ─▶ 7 ─▶ 4                ─▶ #12 ─▶ pull ─▶ #15
//!  HighLow    High  Low     ─▶ 7
//!  LowHigh    Low   High
//!  LowLow     Low   Low     ─▶ 9 ─▶ 1
//! ```
//!
//! [`PeerQueues`] is what belongs to one peer. Only [`Queues`] changes it, so that rotations, counts and ages always agree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::aging::{Aging, QueuePlace};
use super::rotations::{Class, Position, Rotations};
use super::types::PeerKey;
use crate::types::{Priority, RequestId};

/// What waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    Fetch(RequestId),
    /// The peer has work of its own and waits to be asked for it. At most one for each peer, in one of its queues.
    Pull,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) queued: Queued,
    /// Since when it waits for a full turn: a prefetch, or the prefetches of a peer that has a pull in either queue. `None` for an
    /// urgent fetch, and for a pull for urgent work alone.
    pub(super) since: Option<Instant>,
}

/// Where the pull of a peer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PullPlace {
    pub(super) queue: Priority,
    /// See [`Entry::since`].
    pub(super) since: Option<Instant>,
}

/// The queues of one peer.
#[derive(Debug)]
pub(super) struct PeerQueues {
    peer: PeerKey,
    priority: Priority,
    /// By place; the lowest is first.
    entries: [BTreeMap<i64, Entry>; 2],
    /// The position of the peer in the class of each queue. `Some` exactly if the queue is not empty.
    positions: [Option<Position>; 2],
    /// Queue and place of the pull, if it is queued.
    pull: Option<(Priority, i64)>,
    is_lending: bool,
}

impl PeerQueues {
    pub(super) fn new(peer: PeerKey, priority: Priority) -> Self {
        Self {
            peer,
            priority,
            entries: Default::default(),
            positions: [None; 2],
            pull: None,
            is_lending: false,
        }
    }

    /// The priority of the peer.
    pub(super) fn priority(&self) -> Priority {
        self.priority
    }

    /// Urgent fetches first.
    pub(super) fn fetches(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.entries.iter().flat_map(BTreeMap::values).filter_map(|entry| match entry.queued {
            Queued::Fetch(request) => Some(request),
            Queued::Pull => None,
        })
    }

    fn class(&self, queue: Priority) -> Class {
        Class::new(self.priority, queue)
    }

    fn place(&self, queue: Priority, place: i64) -> QueuePlace {
        QueuePlace { peer: self.peer, queue, place }
    }
}

/// The order in which all peers are served.
#[derive(Debug)]
pub(super) struct Queues {
    rotations: Rotations,
    /// Entries by class.
    lens: [usize; Class::COUNT],
    /// The entries that have a `since`.
    aging: Aging,
    /// Peers whose queue of urgent work is not empty and that lend a thread.
    lendable: BTreeSet<PeerKey>,
    /// The last place that was given out at the back of a queue.
    last_place: i64,
}

impl Queues {
    pub(super) fn new(aging_threshold: Duration) -> Self {
        Self {
            rotations: Rotations::default(),
            lens: [0; Class::COUNT],
            aging: Aging::new(aging_threshold),
            lendable: BTreeSet::new(),
            last_place: 0,
        }
    }

    /// Queues a fetch, and returns its place. If it is a prefetch, it waits since `since`.
    pub(super) fn push_back(
        &mut self,
        peer: &mut PeerQueues,
        queue: Priority,
        request: RequestId,
        since: Instant,
    ) -> i64 {
        let place = self.back_place();
        self.insert_fetch(peer, queue, place, request, since);
        place
    }

    /// As [`push_back`](Self::push_back), but before all else in the queue.
    pub(super) fn push_front(
        &mut self,
        peer: &mut PeerQueues,
        queue: Priority,
        request: RequestId,
        since: Instant,
    ) -> i64 {
        let first = peer.entries[queue.rank()].first_key_value();
        // Numbers grow at the back and shrink at the front, so a place stays valid until its entry is taken out.
        let place = first.map_or(self.last_place, |(first, _)| *first) - 1;
        self.insert_fetch(peer, queue, place, request, since);
        place
    }

    /// Puts the pull of a peer where it belongs; `None` takes it out. It keeps its place if it is in that queue, and the age that it
    /// has there.
    pub(super) fn set_pull(&mut self, peer: &mut PeerQueues, wanted: Option<PullPlace>) {
        if let (Some((queue, place)), Some(wanted)) = (peer.pull, wanted) {
            if queue == wanted.queue {
                return self.set_pull_since(peer, queue, place, wanted.since);
            }
        }
        if let Some((queue, place)) = peer.pull {
            self.remove(peer, queue, place);
        }
        if let Some(PullPlace { queue, since }) = wanted {
            let place = self.back_place();
            self.insert(peer, queue, place, Entry { queued: Queued::Pull, since });
            peer.pull = Some((queue, place));
        }
    }

    fn set_pull_since(&mut self, peer: &mut PeerQueues, queue: Priority, place: i64, since: Option<Instant>) {
        let at = peer.place(queue, place);
        let Some(entry) = peer.entries[queue.rank()].get_mut(&place) else { return };
        // A time that it has stays: it is that of the oldest prefetch that the peer has announced.
        if let (None, Some(since)) = (entry.since, since) {
            entry.since = Some(since);
            self.aging.insert(since, at);
        }
    }

    /// Takes out the entry at `place`, or the first one, for a worker. Then the other peers of the class are served first.
    pub(super) fn pop(
        &mut self,
        peer: &mut PeerQueues,
        queue: Priority,
        place: Option<i64>,
    ) -> Option<Entry> {
        let first = || peer.entries[queue.rank()].first_key_value().map(|(place, _)| *place);
        let entry = self.remove(peer, queue, place.or_else(first)?)?;
        let class = peer.class(queue);
        if let Some(position) = &mut peer.positions[queue.rank()] {
            self.rotations.remove(class, *position);
            // Also if the queue has more for it: round robin serves one entry of a peer at a time.
            *position = self.rotations.push_back(class, peer.peer);
        }
        Some(entry)
    }

    /// Makes a peer the next one of a class, if it has something there.
    pub(super) fn move_to_front(&mut self, peer: &mut PeerQueues, queue: Priority) {
        let class = peer.class(queue);
        if let Some(position) = &mut peer.positions[queue.rank()] {
            self.rotations.remove(class, *position);
            *position = self.rotations.push_front(class, peer.peer);
        }
    }

    /// Takes out the entry at `place`.
    pub(super) fn remove(&mut self, peer: &mut PeerQueues, queue: Priority, place: i64) -> Option<Entry> {
        let class = peer.class(queue);
        let entries = &mut peer.entries[queue.rank()];
        let entry = entries.remove(&place)?;
        let is_empty = entries.is_empty();
        self.lens[class.index()] -= 1;
        if let Some(since) = entry.since {
            self.aging.remove(since, peer.place(queue, place));
        }
        if entry.queued == Queued::Pull {
            peer.pull = None;
        }
        if is_empty {
            let position = peer.positions[queue.rank()].take();
            position.and_then(|position| self.rotations.remove(class, position));
            self.update_lendable(peer);
        }
        Some(entry)
    }

    /// Gives a peer another priority. What it has queued keeps its order.
    pub(super) fn set_priority(&mut self, peer: &mut PeerQueues, priority: Priority) {
        let old = std::mem::replace(&mut peer.priority, priority);
        if old == priority {
            return;
        }
        for queue in Priority::BOTH {
            let (from, to) = (Class::new(old, queue), Class::new(priority, queue));
            let len = peer.entries[queue.rank()].len();
            self.lens[from.index()] -= len;
            self.lens[to.index()] += len;
            if let Some(position) = peer.positions[queue.rank()] {
                self.rotations.change_class(position, from, to);
            }
        }
    }

    /// Notes whether a peer lends a thread.
    pub(super) fn set_lending(&mut self, peer: &mut PeerQueues, is_lending: bool) {
        peer.is_lending = is_lending;
        self.update_lendable(peer);
    }

    /// The peer that is served next in a class.
    pub(super) fn first(&self, peer: Priority, fetch: Priority) -> Option<PeerKey> {
        self.rotations.first(Class::new(peer, fetch))
    }

    /// A peer that has urgent work queued and lends a thread.
    pub(super) fn first_lendable(&self) -> Option<PeerKey> {
        self.lendable.first().copied()
    }

    /// Entries by class, in the order in which the classes are served.
    pub(super) fn lens(&self) -> [usize; Class::COUNT] {
        self.lens
    }

    /// Entries of urgent work.
    pub(super) fn urgent(&self) -> usize {
        Priority::BOTH.map(|peer| self.len(peer, Priority::High)).iter().sum()
    }

    /// True if urgent work is queued that goes before the prefetches of a peer of this priority.
    pub(super) fn has_urgent_before_prefetches(&self, peer: Priority) -> bool {
        match peer {
            Priority::High => self.len(Priority::High, Priority::High) > 0,
            Priority::Low => self.urgent() > 0,
        }
    }

    pub(super) fn aging(&self) -> &Aging {
        &self.aging
    }

    fn len(&self, peer: Priority, fetch: Priority) -> usize {
        self.lens[Class::new(peer, fetch).index()]
    }

    fn back_place(&mut self) -> i64 {
        self.last_place += 1;
        self.last_place
    }

    fn insert_fetch(
        &mut self,
        peer: &mut PeerQueues,
        queue: Priority,
        place: i64,
        request: RequestId,
        since: Instant,
    ) {
        let since = (queue == Priority::Low).then_some(since);
        self.insert(peer, queue, place, Entry { queued: Queued::Fetch(request), since });
    }

    fn insert(&mut self, peer: &mut PeerQueues, queue: Priority, place: i64, entry: Entry) {
        let class = peer.class(queue);
        self.lens[class.index()] += 1;
        if let Some(since) = entry.since {
            self.aging.insert(since, peer.place(queue, place));
        }
        peer.entries[queue.rank()].insert(place, entry);
        if peer.positions[queue.rank()].is_none() {
            peer.positions[queue.rank()] = Some(self.rotations.push_back(class, peer.peer));
            self.update_lendable(peer);
        }
    }

    fn update_lendable(&mut self, peer: &PeerQueues) {
        if peer.is_lending && peer.positions[Priority::High.rank()].is_some() {
            self.lendable.insert(peer.peer);
        } else {
            self.lendable.remove(&peer.peer);
        }
    }
}
