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

/// The turn of a peer in a class. The lowest is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(i64);

/// The peers of each class, by turn. A turn is unique over all classes, so that it stays valid when a peer changes its class.
#[derive(Debug, Default)]
pub(super) struct Rotations {
    classes: [BTreeMap<Turn, PeerKey>; Class::COUNT],
    /// Above all turns that were given out.
    back: i64,
    /// Below or equal to all turns that were given out.
    front: i64,
}

impl Rotations {
    /// The peer whose turn is next.
    pub(super) fn first(&self, class: Class) -> Option<PeerKey> {
        self.classes[class.0].first_key_value().map(|(_, peer)| *peer)
    }

    pub(super) fn push_back(&mut self, class: Class, peer: PeerKey) -> Turn {
        let turn = Turn(self.back);
        self.back += 1;
        self.classes[class.0].insert(turn, peer);
        turn
    }

    pub(super) fn push_front(&mut self, class: Class, peer: PeerKey) -> Turn {
        self.front -= 1;
        let turn = Turn(self.front);
        self.classes[class.0].insert(turn, peer);
        turn
    }

    pub(super) fn remove(&mut self, class: Class, turn: Turn) -> Option<PeerKey> {
        self.classes[class.0].remove(&turn)
    }

    /// Moves a peer from one class to another one, where it keeps its turn.
    pub(super) fn change_class(&mut self, turn: Turn, from: Class, to: Class) {
        if let Some(peer) = self.remove(from, turn) {
            self.classes[to.0].insert(turn, peer);
        }
    }
}
