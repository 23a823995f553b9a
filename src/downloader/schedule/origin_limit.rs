//! How many prefetches of one origin may be active at once, and which ones are blocked on that.
//!
//! A server that gets many requests at once answers each of them slowly, and urgent work may need the same server.

use std::collections::BTreeMap;

use super::types::Origin;
use crate::id_map::{IdMap, IdSet};
use crate::types::RequestId;

/// A position among the blocked prefetches of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockedAt(u64);

/// The origins that have active or blocked prefetches, and no others.
#[derive(Debug)]
pub(super) struct OriginLimit {
    /// `max_per_origin`.
    max: usize,
    origins: IdMap<Origin, Active>,
    /// Origins of which no prefetch may become active.
    reserved: IdSet<Origin>,
    /// Blocked prefetches of all origins.
    blocked: usize,
    next: u64,
}

#[derive(Debug, Default)]
struct Active {
    /// Prefetches that run, were preempted, or got the place of one that left. More than the limit only after a demotion.
    active: usize,
    /// In the order of their arrival. Empty while one of them may become active.
    blocked: BTreeMap<BlockedAt, RequestId>,
}

impl OriginLimit {
    pub(super) fn new(max: usize) -> Self {
        Self { max, origins: IdMap::default(), reserved: IdSet::default(), blocked: 0, next: 0 }
    }

    /// Makes a prefetch of `origin` active. False if it has to be blocked, because enough others are.
    pub(super) fn try_enter(&mut self, origin: Origin) -> bool {
        let active = self.origins.get(&origin).map_or(0, |state| state.active);
        let may_enter = active < self.max && !self.is_reserved(origin);
        if may_enter {
            self.origins.entry(origin).or_default().active += 1;
        }
        may_enter
    }

    /// Counts a running fetch that becomes a prefetch. The limit holds only for those that come after it.
    pub(super) fn enter_running(&mut self, origin: Origin) {
        self.origins.entry(origin).or_default().active += 1;
    }

    /// Ends the activity of a prefetch. Then [`unblock`](Self::unblock) gives its place to another one.
    pub(super) fn leave(&mut self, origin: Origin) {
        if let Some(state) = self.origins.get_mut(&origin) {
            state.active -= 1;
            self.forget_unused(origin);
        }
    }

    /// The prefetch that was blocked longest, if one may become active. It is, from now on. Call until it returns `None`.
    pub(super) fn unblock(&mut self, origin: Origin) -> Option<RequestId> {
        let is_reserved = self.is_reserved(origin);
        let state = self.origins.get_mut(&origin).filter(|state| state.active < self.max && !is_reserved)?;
        let (_, request) = state.blocked.pop_first()?;
        // Here, and not when a worker is free for it: in between, later prefetches would pass the blocked ones, and if the first of
        // these was cancelled, nothing would unblock the others.
        state.active += 1;
        self.blocked -= 1;
        Some(request)
    }

    /// Reserves an origin for urgent work: no prefetch becomes active. Or ends that.
    pub(super) fn set_reserved(&mut self, origin: Origin, is_reserved: bool) {
        if is_reserved {
            self.reserved.insert(origin);
        } else {
            self.reserved.remove(&origin);
        }
    }

    pub(super) fn is_reserved(&self, origin: Origin) -> bool {
        // Most programs never meet such an origin, and this is asked for each prefetch.
        !self.reserved.is_empty() && self.reserved.contains(&origin)
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
            self.forget_unused(origin);
        }
    }

    fn forget_unused(&mut self, origin: Origin) {
        // A program that runs for months may meet any number of origins.
        if self.origins.get(&origin).is_some_and(|state| state.active == 0 && state.blocked.is_empty()) {
            self.origins.remove(&origin);
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

    fn leave(limit: &mut OriginLimit, origin: Origin) -> Option<RequestId> {
        limit.leave(origin);
        limit.unblock(origin)
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
        assert_eq!((limit.blocked(), limit.unblock(ORIGIN)), (2, None));
        assert_eq!(leave(&mut limit, ORIGIN), Some(request(3)));
        assert!(!limit.try_enter(ORIGIN));
        assert_eq!([(); 2].map(|()| leave(&mut limit, ORIGIN)), [Some(request(4)), None]);
        assert_eq!((leave(&mut limit, Origin(2)), limit.blocked(), limit.is_empty()), (None, 0, true));
    }

    #[test]
    fn after_a_demotion_none_is_unblocked_until_the_limit_holds_again() {
        let mut limit = OriginLimit::new(1);
        assert!(limit.try_enter(ORIGIN));
        limit.block(ORIGIN, request(2));
        limit.enter_running(ORIGIN);
        assert_eq!([(); 2].map(|()| leave(&mut limit, ORIGIN)), [None, Some(request(2))]);
    }

    #[test]
    fn of_a_reserved_origin_no_prefetch_becomes_active() {
        let mut limit = OriginLimit::new(2);
        limit.set_reserved(ORIGIN, true);
        assert!(!limit.try_enter(ORIGIN) && limit.is_empty());
        for number in 1..=3 {
            limit.block(ORIGIN, request(number));
        }
        assert_eq!(limit.unblock(ORIGIN), None);
        limit.set_reserved(ORIGIN, false);
        assert_eq!([(); 3].map(|()| limit.unblock(ORIGIN)), [Some(request(1)), Some(request(2)), None]);
    }
}
