//! How many prefetches of one origin may be active at once, and which ones are blocked on that.
//!
//! A server that gets many requests at once answers each of them slowly, and urgent work may need the same server.

use std::collections::{BTreeMap, HashMap};

use super::types::Origin;
use crate::types::RequestId;

/// A position among the blocked prefetches of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockedAt(u64);

/// The origins that have prefetches, and no others.
#[derive(Debug)]
pub(super) struct OriginLimit {
    /// `max_per_origin`.
    max: usize,
    origins: HashMap<Origin, Active>,
    /// Blocked prefetches of all origins.
    blocked: usize,
    next: u64,
}

#[derive(Debug, Default)]
struct Active {
    /// Prefetches that run, were preempted, or got the place of one that left. Never 0. More than the limit only after a
    /// demotion.
    active: usize,
    /// In the order of their arrival. Empty while `active` is below the limit.
    blocked: BTreeMap<BlockedAt, RequestId>,
}

impl OriginLimit {
    pub(super) fn new(max: usize) -> Self {
        Self { max, origins: HashMap::new(), blocked: 0, next: 0 }
    }

    /// Makes a prefetch of `origin` active. False if it has to be blocked, because enough others are.
    pub(super) fn try_enter(&mut self, origin: Origin) -> bool {
        let state = self.origins.entry(origin).or_default();
        let may_enter = state.active < self.max;
        state.active += usize::from(may_enter);
        may_enter
    }

    /// Counts a running fetch that becomes a prefetch. The limit holds only for those that come after it.
    pub(super) fn enter_running(&mut self, origin: Origin) {
        self.origins.entry(origin).or_default().active += 1;
    }

    /// Ends the activity of a prefetch. Returns the blocked one that gets its place, and is active from now on.
    ///
    /// The place is given away here, and not when a worker is free for it: in between, later prefetches would pass those
    /// that are blocked, and if the first of these was cancelled, nothing would unblock the others.
    #[must_use]
    pub(super) fn leave(&mut self, origin: Origin) -> Option<RequestId> {
        let state = self.origins.get_mut(&origin)?;
        state.active -= 1;
        let next = if state.active < self.max { state.blocked.pop_first() } else { None };
        state.active += usize::from(next.is_some());
        if state.active == 0 {
            self.origins.remove(&origin);
        }
        self.blocked -= usize::from(next.is_some());
        next.map(|(_, request)| request)
    }

    /// Blocks a prefetch that could not [enter](Self::try_enter).
    pub(super) fn block(&mut self, origin: Origin, request: RequestId) -> BlockedAt {
        let at = BlockedAt(self.next);
        self.next += 1;
        self.origins.entry(origin).or_default().blocked.insert(at, request);
        self.blocked += 1;
        at
    }

    /// Forgets a blocked prefetch that does not wait any more.
    pub(super) fn forget(&mut self, origin: Origin, at: BlockedAt) {
        let state = self.origins.get_mut(&origin);
        if state.is_some_and(|state| state.blocked.remove(&at).is_some()) {
            self.blocked -= 1;
        }
    }

    pub(super) fn blocked(&self) -> usize {
        self.blocked
    }

    /// True if no origin has a prefetch.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin(1);

    fn request(number: u64) -> RequestId {
        RequestId::new(number).unwrap()
    }

    #[test]
    fn a_place_goes_to_the_blocked_one_that_came_first() {
        let mut limit = OriginLimit::new(1);
        assert!(limit.try_enter(ORIGIN) && limit.try_enter(Origin(2)));
        let places = [2, 3, 4].map(|number| {
            assert!(!limit.try_enter(ORIGIN));
            limit.block(ORIGIN, request(number))
        });
        limit.forget(ORIGIN, places[0]);
        assert_eq!(limit.blocked(), 2);
        assert_eq!(limit.leave(ORIGIN), Some(request(3)));
        assert!(!limit.try_enter(ORIGIN));
        assert_eq!([(); 2].map(|()| limit.leave(ORIGIN)), [Some(request(4)), None]);
        assert_eq!((limit.leave(Origin(2)), limit.blocked(), limit.is_empty()), (None, 0, true));
    }

    #[test]
    fn after_a_demotion_none_is_unblocked_until_the_limit_holds_again() {
        let mut limit = OriginLimit::new(1);
        assert!(limit.try_enter(ORIGIN));
        limit.block(ORIGIN, request(2));
        limit.enter_running(ORIGIN);
        assert_eq!([(); 2].map(|()| limit.leave(ORIGIN)), [None, Some(request(2))]);
    }
}
