//! Origins that serve one connection at a time.
//!
//! Such an origin answers an urgent request only when the connection of a prefetch closes. So while urgent work of the origin is on a
//! worker, the origin is *reserved* for it: its prefetches are aborted, and blocked until no urgent work of it runs any more. No fetch
//! of it that waits keeps a body open.

use super::types::Origin;
use super::workers::Workers;
use crate::id_map::IdMap;
use crate::types::Priority;

/// The origins that are known to be like this, and whether each one is reserved. Most programs never meet one.
#[derive(Debug, Default)]
pub(super) struct SingleConnections(IdMap<Origin, bool>);

impl SingleConnections {
    pub(super) fn insert(&mut self, origin: Origin) {
        self.0.entry(origin).or_default();
    }

    /// An origin whose reservation begins, or ends, with what runs now. Returns each change once.
    pub(super) fn poll_change(&mut self, workers: &Workers) -> Option<(Origin, bool)> {
        if self.0.is_empty() {
            return None;
        }
        self.0.iter_mut().find_map(|(origin, is_reserved)| {
            let has_urgent = workers.runs(*origin, Priority::High);
            let has_changed = std::mem::replace(is_reserved, has_urgent) != has_urgent;
            has_changed.then_some((*origin, has_urgent))
        })
    }

    /// The origins that are reserved.
    pub(super) fn reserved(&self) -> impl Iterator<Item = Origin> + '_ {
        self.0.iter().filter(|(_, is_reserved)| **is_reserved).map(|(origin, _)| *origin)
    }
}
