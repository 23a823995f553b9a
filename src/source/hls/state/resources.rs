//! Keys and initialization sections, and the segments that wait for them.

use std::sync::Arc;
use std::time::Instant;

use url::Url;

use super::State;
use super::needs::{KeyUse, Loadable, Needs, ResourceKey, Secret, Undemuxed};
use super::slot::{Slot, SlotPhase};
use crate::error::Error;
use crate::source::hls::decrypt::{Cipher, decrypt};
use crate::source::hls::pipeline::Pipeline;

/// Keys and initialization sections that are kept.
const MOST_RESOURCES: usize = 64;

impl State {
    /// Starts the pipeline of a segment, if all that it needs has arrived.
    pub(crate) fn pipeline(&self, needs: &Needs, position: u64) -> Result<Option<Pipeline>, Error> {
        let cipher = |key: &KeyUse| {
            let resource = ResourceKey::of_key(key.url.clone());
            let bytes = self.ready(&resource)?;
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
        let Some(bytes) = self.ready(init) else { return Ok(None) };
        let plain = match &init.key {
            Some(key) => match cipher(key) {
                Some(cipher) => decrypt(&cipher, &bytes)?,
                None => return Ok(None),
            },
            None => bytes.to_vec(),
        };
        Pipeline::new(segment_cipher.as_ref(), Some(&plain), position).map(Some)
    }

    pub(crate) fn ready(&self, key: &ResourceKey) -> Option<Arc<[u8]>> {
        match self.resources.get(key)? {
            Loadable::Ready(bytes) => Some(Arc::clone(&bytes.0)),
            Loadable::Fetching => None,
        }
    }

    /// A body has arrived that can't be read yet.
    pub(crate) fn handle_undemuxed(&mut self, slot: u64, undemuxed: Undemuxed) {
        if let Some(slot) = self.slot(slot) {
            slot.undemuxed = Some(undemuxed);
        }
    }

    /// Takes a blocked body back if all that it needs has arrived by now.
    pub(crate) fn take_undemuxed_if_ready(&mut self, slot: u64) -> Option<Undemuxed> {
        let needs = self.slot(slot)?.needs.clone();
        let is_ready = needs.resources().all(|key| self.ready(&key).is_some());
        if is_ready { self.slot(slot)?.undemuxed.take() } else { None }
    }

    /// A key or an initialization section has arrived. Returns the bodies that waited for it.
    pub(crate) fn handle_resource(
        &mut self,
        key: ResourceKey,
        bytes: Vec<u8>,
    ) -> Vec<(u64, Needs, Undemuxed)> {
        if self.resources.len() > MOST_RESOURCES {
            let slots = self.slots.iter().chain(self.replacements.slot());
            let used: Vec<ResourceKey> = slots.flat_map(|slot| slot.needs.resources()).collect();
            self.resources
                .retain(|key, loadable| matches!(loadable, Loadable::Fetching) || used.contains(key));
        }
        self.resources.insert(key, Loadable::Ready(Secret(Arc::from(bytes))));
        let undemuxed = |slot: &mut Slot| Some((slot.id, slot.needs.clone(), slot.undemuxed.take()?));
        self.slots.iter_mut().chain(self.replacements.slot_mut()).filter_map(undemuxed).collect()
    }

    /// A key or an initialization section can't be fetched: neither can the segments that need it.
    pub(crate) fn handle_resource_failed(&mut self, key: &ResourceKey, error: &Error, now: Instant) {
        self.resources.remove(key);
        let needs = |slot: &&Slot| {
            slot.phase == SlotPhase::Planned || slot.needs.resources().any(|need| need == *key)
        };
        if let Some(slot) = self.slots.iter().find(needs).map(|slot| slot.id) {
            self.handle_segment_failed(slot, error.clone(), now);
        }
    }

    /// The application has a fresh URL for a key or an initialization section that was refused. False if it had one before.
    pub(crate) fn handle_fresh_resource(&mut self, key: &ResourceKey, url: Url) -> bool {
        if self.fresh_resources.contains_key(key) || self.fresh_resources.len() == MOST_RESOURCES {
            return false;
        }
        self.fresh_resources.insert(key.clone(), url);
        self.planned_again.push(key.clone());
        true
    }

    /// Takes the keys that were loaded before playing began, and those that still are.
    pub(crate) fn set_preloaded(&mut self, loaded: Vec<(ResourceKey, Vec<u8>)>, running: Vec<ResourceKey>) {
        let loaded = loaded.into_iter().map(|(key, bytes)| (key, Loadable::Ready(Secret(Arc::from(bytes)))));
        self.resources.extend(running.into_iter().map(|key| (key, Loadable::Fetching)));
        self.resources.extend(loaded);
    }

    /// The URL that the application gave for this resource.
    pub(crate) fn fresh_resource(&self, key: &ResourceKey) -> Option<Url> {
        self.fresh_resources.get(key).cloned()
    }
}
