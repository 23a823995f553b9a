//! In which order the classes are served, and the peers within a class: round robin.

use std::collections::BTreeMap;

use super::types::PeerKey;
use crate::types::Priority;

/// The priority of a peer and that of a fetch, as the position in which the class is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class(usize);

impl Class {
    pub(super) const COUNT: usize = 4;

    pub(super) fn new(peer: Priority, fetch: Priority) -> Self {
        Self(2 * peer.rank() + fetch.rank())
    }

    pub(super) fn index(self) -> usize {
        self.0
    }
}

/// The position of a peer in the round robin of its class. The lowest is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(i64);

/// The peers of each class, by position. A position is unique over all classes, so that it stays valid when a peer changes its class.
#[derive(Debug, Default)]
pub(super) struct Rotations {
    classes: [BTreeMap<Position, PeerKey>; Class::COUNT],
    /// Above all positions that were given out.
    back: i64,
    /// Below or equal to all positions that were given out.
    front: i64,
}

impl Rotations {
    /// The peer that is served next.
    pub(super) fn first(&self, class: Class) -> Option<PeerKey> {
        self.classes[class.0].first_key_value().map(|(_, peer)| *peer)
    }

    pub(super) fn push_back(&mut self, class: Class, peer: PeerKey) -> Position {
        let position = Position(self.back);
        self.back += 1;
        self.classes[class.0].insert(position, peer);
        position
    }

    pub(super) fn push_front(&mut self, class: Class, peer: PeerKey) -> Position {
        self.front -= 1;
        let position = Position(self.front);
        self.classes[class.0].insert(position, peer);
        position
    }

    pub(super) fn remove(&mut self, class: Class, position: Position) -> Option<PeerKey> {
        self.classes[class.0].remove(&position)
    }

    /// Moves a peer from one class to another one, where it keeps its position.
    pub(super) fn change_class(&mut self, position: Position, from: Class, to: Class) {
        if let Some(peer) = self.remove(from, position) {
            self.classes[to.0].insert(position, peer);
        }
    }
}
