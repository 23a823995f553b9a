//! The registered peers, by keys that are never reused.

use std::collections::BTreeSet;

use slab::Slab;

use super::pull::Pull;
use super::queues::PeerQueues;
use super::types::PeerKey;
use crate::types::{Priority, RequestId};

/// What the schedule keeps for one peer.
#[derive(Debug)]
pub(super) struct Peer {
    key: PeerKey,
    pub(super) queues: PeerQueues,
    pub(super) pull: Pull,
    /// Its fetches that wait outside of the queues: for their next attempt, or for their origin.
    pub(super) elsewhere: BTreeSet<RequestId>,
}

impl Peer {
    /// All of its fetches that wait.
    pub(super) fn fetches(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.queues.fetches().chain(self.elsewhere.iter().copied())
    }
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    slab: Slab<Peer>,
    next_serial: u64,
}

impl Peers {
    pub(super) fn insert(&mut self, priority: Priority) -> PeerKey {
        let entry = self.slab.vacant_entry();
        let key = PeerKey { index: entry.key(), serial: self.next_serial };
        self.next_serial += 1;
        entry.insert(Peer {
            key,
            queues: PeerQueues::new(key, priority),
            pull: Pull::default(),
            elsewhere: BTreeSet::new(),
        });
        key
    }

    pub(super) fn get(&self, key: PeerKey) -> Option<&Peer> {
        // The slab reuses an index, and messages for the peer that had it before may still come.
        self.slab.get(key.index).filter(|peer| peer.key == key)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.slab.get_mut(key.index).filter(|peer| peer.key == key)
    }

    pub(super) fn remove(&mut self, key: PeerKey) {
        if self.get(key).is_some() {
            self.slab.remove(key.index);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_find_the_peer_that_took_the_place() {
        let mut peers = Peers::default();
        let first = peers.insert(Priority::High);
        peers.remove(first);
        let second = peers.insert(Priority::High);
        assert!(peers.get(first).is_none() && peers.get(second).is_some());
        peers.remove(first);
        assert_eq!(peers.len(), 1);
    }
}
