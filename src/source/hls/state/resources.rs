//! Keys and initialization sections: which are there, and which are being fetched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use url::Url;

use super::arriving::STALLED;
use super::needs::{Loadable, Loading, Needs, ResourceKey};
use crate::types::{Priority, RequestId};

#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) known: HashMap<ResourceKey, Loadable>,
    /// URLs of the application for those that were refused.
    pub(super) fresh: HashMap<ResourceKey, Url>,
    /// Resources to request once more.
    pub(super) planned_again: Vec<ResourceKey>,
}

impl Resources {
    pub(super) fn ready(&self, key: &ResourceKey) -> Option<Arc<[u8]>> {
        match self.known.get(key)? {
            Loadable::Ready(bytes) => Some(Arc::clone(&bytes.0)),
            Loadable::Fetching(_) => None,
        }
    }

    pub(super) fn has_all(&self, needs: &Needs) -> bool {
        needs.resources().all(|key| matches!(self.known.get(&key), Some(Loadable::Ready(_))))
    }

    /// Notes that a resource is requested. False if it is there, or was requested before.
    pub(super) fn start(&mut self, key: &ResourceKey, priority: Priority, now: Instant) -> bool {
        let is_new = !self.known.contains_key(key);
        if is_new {
            self.restart(key.clone(), priority, now);
        }
        is_new
    }

    /// Notes that a resource is requested, or once more.
    pub(super) fn restart(&mut self, key: ResourceKey, priority: Priority, now: Instant) {
        self.known.insert(key, Loadable::Fetching(Loading::new(now, priority)));
    }

    pub(super) fn loading_mut(&mut self, key: &ResourceKey) -> Option<&mut Loading> {
        match self.known.get_mut(key)? {
            Loadable::Fetching(loading) => Some(loading),
            Loadable::Ready(_) => None,
        }
    }

    /// When a resource becomes silent, unless more of it arrives. `None` if it is not being fetched.
    pub(super) fn silent_at(&self, key: &ResourceKey) -> Option<Instant> {
        self.last_progress(key).map(|last| last + STALLED)
    }

    /// When something of a resource has arrived last, or when it was requested. `None` if it is not being fetched.
    pub(super) fn last_progress(&self, key: &ResourceKey) -> Option<Instant> {
        match self.known.get(key)? {
            Loadable::Fetching(loading) => Some(loading.last),
            Loadable::Ready(_) => None,
        }
    }

    /// True if nothing arrives of a resource that is being fetched.
    pub(super) fn is_silent(&self, key: &ResourceKey, now: Instant) -> bool {
        self.silent_at(key).is_some_and(|silent| silent <= now)
    }

    /// The request for one of these resources that has to become urgent, if there is one.
    pub(super) fn promote(&mut self, needs: &Needs) -> Option<RequestId> {
        needs.resources().find_map(|key| {
            let loading = self.loading_mut(&key).filter(|loading| loading.priority == Priority::Low)?;
            // Without a number it stays low until it has one, as a segment does.
            let request = loading.request?;
            loading.priority = Priority::High;
            Some(request)
        })
    }

    pub(super) fn remove(&mut self, key: &ResourceKey) {
        self.known.remove(key);
    }
}
