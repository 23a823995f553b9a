//! Keys and initialization sections, and the segments that wait for them.

use std::sync::Arc;
use std::time::Instant;

use url::Url;

use super::State;
use super::needs::{KeyUse, Loadable, Needs, ResourceKey, Secret, Undemuxed};
use super::queued_segment::{QueuedSegment, SegmentPhase};
use crate::error::Error;
use crate::source::hls::decrypt::{Cipher, decrypt};
use crate::source::hls::pipeline::Pipeline;
use crate::types::{Priority, RequestId};

/// Keys and initialization sections that are kept.
const MOST_RESOURCES: usize = 64;

impl State {
    /// Starts the pipeline of a segment, if all that it needs has arrived.
    pub(crate) fn pipeline(&self, needs: &Needs, position: u64) -> Result<Option<Pipeline>, Error> {
        let cipher = |key: &KeyUse| {
            let resource = ResourceKey::of_key(key.url.clone());
            let bytes = self.resources.ready(&resource)?;
            Some(Cipher { method: key.method.clone(), key: bytes, iv: key.iv })
        };
        let segment_cipher = match &needs.key {
            Some(key) => match cipher(key) {
                Some(cipher) => Some(cipher),
                None => return Ok(None),
            },
            None => None,
        };
        let Some(init) = &needs.init else {
            return Pipeline::new(segment_cipher.as_ref(), None, position).map(Some);
        };
        let Some(bytes) = self.resources.ready(init) else { return Ok(None) };
        let plain = match &init.key {
            Some(key) => match cipher(key) {
                Some(cipher) => decrypt(&cipher, &bytes)?,
                None => return Ok(None),
            },
            None => bytes.to_vec(),
        };
        Pipeline::new(segment_cipher.as_ref(), Some(&plain), position).map(Some)
    }

    /// True if all that a segment needs first is there.
    pub(crate) fn has_resources(&self, needs: &Needs) -> bool {
        self.resources.has_all(needs)
    }

    /// A body has arrived that could not be read when it was tried. Returns it if all that it needs has arrived in the meantime.
    pub(crate) fn handle_undemuxed(&mut self, id: u64, undemuxed: Undemuxed) -> Option<Undemuxed> {
        let needs = self.queued(id)?.needs.clone();
        if self.resources.has_all(&needs) {
            return Some(undemuxed);
        }
        self.queued(id)?.undemuxed = Some(undemuxed);
        None
    }

    /// The downloader has taken the request for a key or an initialization section.
    pub(crate) fn handle_resource_accepted(&mut self, key: &ResourceKey, request: RequestId) {
        if let Some(loading) = self.resources.loading_mut(key) {
            loading.request = Some(request);
        }
    }

    /// Bytes of a key or an initialization section have arrived.
    pub(crate) fn handle_resource_bytes(&mut self, key: &ResourceKey, now: Instant) {
        if let Some(loading) = self.resources.loading_mut(key) {
            loading.last = now;
        }
    }

    /// A key or an initialization section has arrived. Returns the bodies that have all that they need now.
    pub(crate) fn handle_resource(
        &mut self,
        key: ResourceKey,
        bytes: Vec<u8>,
    ) -> Vec<(u64, Needs, Undemuxed)> {
        if self.resources.known.len() > MOST_RESOURCES {
            let queue = self.queue.iter().chain(self.replacements.queued());
            let used: Vec<ResourceKey> = queue.flat_map(|queued| queued.needs.resources()).collect();
            self.resources
                .known
                .retain(|key, loadable| matches!(loadable, Loadable::Fetching(_)) || used.contains(key));
        }
        self.resources.known.insert(key, Loadable::Ready(Secret(Arc::from(bytes))));
        // One that waits for something else must stay where it is: the thread that took it would have to put it back, and what it
        // waits for could arrive in between, and find no body.
        let resources = &self.resources;
        let undemuxed = |queued: &mut QueuedSegment| {
            let body = queued.undemuxed.take_if(|_| resources.has_all(&queued.needs))?;
            Some((queued.id, queued.needs.clone(), body))
        };
        self.queue.iter_mut().chain(self.replacements.queued_mut()).filter_map(undemuxed).collect()
    }

    /// A key or an initialization section can't be fetched: neither can the segments that need it.
    pub(crate) fn handle_resource_failed(&mut self, key: &ResourceKey, error: &Error, now: Instant) {
        self.resources.remove(key);
        // One that waits for its playlist has failed before: what that brings may need another resource.
        let needs = |queued: &&QueuedSegment| {
            queued.phase != SegmentPhase::Reloading && queued.needs.resources().any(|need| need == *key)
        };
        let failed: Vec<u64> = self.queue.iter().filter(needs).map(|queued| queued.id).collect();
        // The first one decides what is tried next. The others can't wait for this resource any more: they request it again.
        let Some((first, others)) = failed.split_first() else { return };
        for id in others {
            self.plan_again(*id);
        }
        self.handle_segment_failed(*first, error.clone(), now);
    }

    /// The application has a fresh URL for a key or an initialization section that was refused. False if it had one before.
    pub(crate) fn handle_fresh_resource(&mut self, key: &ResourceKey, url: Url) -> bool {
        if self.resources.fresh.contains_key(key) || self.resources.fresh.len() == MOST_RESOURCES {
            return false;
        }
        self.resources.fresh.insert(key.clone(), url);
        self.resources.planned_again.push(key.clone());
        true
    }

    /// Takes the keys that were loaded before playing began, and those that still are.
    pub(crate) fn set_preloaded(
        &mut self,
        loaded: Vec<(ResourceKey, Vec<u8>)>,
        running: Vec<ResourceKey>,
        now: Instant,
    ) {
        let loaded = loaded.into_iter().map(|(key, bytes)| (key, Loadable::Ready(Secret(Arc::from(bytes)))));
        running.into_iter().for_each(|key| self.resources.restart(key, Priority::High, now));
        self.resources.known.extend(loaded);
    }

    /// The URL that the application gave for this resource.
    pub(crate) fn fresh_resource(&self, key: &ResourceKey) -> Option<Url> {
        self.resources.fresh.get(key).cloned()
    }
}
