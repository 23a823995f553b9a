//! Session keys (section 4.4.6.5), which are loaded beside the first media playlist.

use std::collections::VecDeque;

use crate::source::hls::state::ResourceKey;

/// Keys that are loaded in advance, at most. Each takes a connection that the first playlist and segment may need.
const MOST: usize = 8;

/// Keys from the opening until a state takes them.
#[derive(Debug, Default)]
pub(crate) struct Preload {
    /// In the order of the playlist.
    queue: VecDeque<ResourceKey>,
    running: Vec<ResourceKey>,
    loaded: Vec<(ResourceKey, Vec<u8>)>,
}

impl Preload {
    pub(crate) fn add(&mut self, key: ResourceKey) {
        if self.queue.len() < MOST && !self.queue.contains(&key) {
            self.queue.push_back(key);
        }
    }

    /// The next key to load.
    pub(crate) fn poll(&mut self) -> Option<ResourceKey> {
        let key = self.queue.pop_front()?;
        self.running.push(key.clone());
        Some(key)
    }

    pub(crate) fn handle_loaded(&mut self, key: ResourceKey, bytes: Vec<u8>) {
        self.running.retain(|running| *running != key);
        self.loaded.push((key, bytes));
    }

    /// A key that can't be loaded is loaded again when a segment needs it.
    pub(crate) fn handle_failed(&mut self, key: &ResourceKey) {
        self.running.retain(|running| running != key);
    }

    /// Ends loading: the keys that are there, and those that still run.
    pub(crate) fn finish(&mut self) -> (Vec<(ResourceKey, Vec<u8>)>, Vec<ResourceKey>) {
        self.queue.clear();
        (std::mem::take(&mut self.loaded), std::mem::take(&mut self.running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keys_of_the_playlist_are_loaded_in_its_order() {
        let mut preload = Preload::default();
        let key = |number: usize| {
            ResourceKey::of_key(url::Url::parse(&format!("https://example.com/{number}")).unwrap())
        };
        (0..=MOST).for_each(|number| preload.add(key(number)));
        let loaded: Vec<_> = std::iter::from_fn(|| preload.poll()).collect();
        assert_eq!(loaded, (0..MOST).map(key).collect::<Vec<_>>());
    }
}
