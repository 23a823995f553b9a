//! Keys and initialization sections: which are there, and which are being fetched.

use std::collections::HashMap;
use std::sync::Arc;

use url::Url;

use super::needs::{Loadable, Needs, ResourceKey};

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
            Loadable::Fetching => None,
        }
    }

    pub(super) fn has_all(&self, needs: &Needs) -> bool {
        needs.resources().all(|key| matches!(self.known.get(&key), Some(Loadable::Ready(_))))
    }

    /// Notes that a resource is requested. False if it is there, or was requested before.
    pub(super) fn start(&mut self, key: &ResourceKey) -> bool {
        let is_new = !self.known.contains_key(key);
        if is_new {
            self.known.insert(key.clone(), Loadable::Fetching);
        }
        is_new
    }

    pub(super) fn remove(&mut self, key: &ResourceKey) {
        self.known.remove(key);
    }
}
