//! Take playlists, steering manifests, keys and initialization sections.

use std::sync::Arc;
use std::time::Instant;

use url::Url;

use super::hook::RequestKind;
use super::requests::{MOST_PLAYLIST, collect, final_url, gunzip, outcome_error, parse_media};
use super::segment_sink::unpark;
use super::shared::Shared;
use super::state::ResourceKey;
use super::steering::Manifest;
use crate::client::ResponseHead;
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::Error;

/// Bytes of a key or an initialization section, at most.
pub(super) const MOST_RESOURCE: usize = 4 << 20;

/// Bytes of a steering manifest, at most.
const MOST_MANIFEST: usize = 256 << 10;

/// Takes the playlist of a mirror.
pub(super) struct PlaylistSink {
    shared: Arc<Shared>,
    mirror: usize,
    url: Url,
    from: Option<Url>,
    bytes: Vec<u8>,
}

impl PlaylistSink {
    pub(super) fn new(shared: Arc<Shared>, mirror: usize, url: Url) -> Self {
        Self { shared, mirror, url, from: None, bytes: Vec::new() }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn fail(&self, error: Error) {
        let hook = self.shared.config.hook.as_ref();
        let fresh = hook.and_then(|hook| hook.fresh_url(RequestKind::Playlist, &self.url, &error));
        self.shared.change(|state| {
            if let Some(fresh) = fresh {
                state.set_playlist_url(self.mirror, fresh);
            }
            state.handle_playlist_failed(self.mirror, error, Instant::now());
        });
    }
}

impl Sink for PlaylistSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.from = Some(final_url(&self.shared, head, &self.url)?);
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        collect(&mut self.bytes, bytes, MOST_PLAYLIST)
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        let url = self.from.as_ref().unwrap_or(&self.url).clone();
        let bytes = std::mem::take(&mut self.bytes);
        let parsed = outcome_error(outcome).map_or_else(|| gunzip(bytes), Err);
        match parsed.and_then(|bytes| parse_media(&self.shared, &bytes, &url, None)) {
            Ok(list) => drop(self.shared.change(|state| state.handle_playlist(self.mirror, list, url))),
            Err(error) => self.fail(error),
        }
    }
}

/// Takes a steering manifest.
pub(super) struct SteeringSink {
    shared: Arc<Shared>,
    url: Url,
    from: Option<Url>,
    bytes: Vec<u8>,
}

impl SteeringSink {
    pub(super) fn new(shared: Arc<Shared>, url: Url) -> Self {
        Self { shared, url, from: None, bytes: Vec::new() }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn end(&self, manifest: Result<Manifest, Error>) {
        let from = self.from.as_ref().unwrap_or(&self.url);
        self.shared.change(|state| state.handle_steering(manifest, from, Instant::now()));
    }
}

impl Sink for SteeringSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.from = Some(final_url(&self.shared, head, &self.url)?);
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        collect(&mut self.bytes, bytes, MOST_MANIFEST)
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        let bytes = std::mem::take(&mut self.bytes);
        let bytes = outcome_error(outcome).map_or_else(|| gunzip(bytes), Err);
        self.end(bytes.and_then(|bytes| Manifest::parse(&bytes)));
    }
}

/// Takes a key or an initialization section.
pub(super) struct ResourceSink {
    shared: Arc<Shared>,
    key: ResourceKey,
    /// Where it is fetched from: a fresh URL of the application, or its own.
    url: Url,
    bytes: Vec<u8>,
}

impl ResourceSink {
    pub(super) fn new(shared: Arc<Shared>, key: ResourceKey) -> Self {
        let fresh = shared.with(|state| state.fresh_resource(&key)).flatten();
        let url = fresh.unwrap_or_else(|| key.url.clone());
        Self { shared, key, url, bytes: Vec::new() }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn kind(&self) -> RequestKind {
        self.key.kind
    }

    pub(super) fn fail(&self, error: &Error) {
        let hook = self.shared.config.hook.as_ref();
        let fresh = hook.and_then(|hook| hook.fresh_url(self.kind(), &self.url, error));
        self.shared.handle_resource_failed(&self.key, fresh, error);
    }
}

impl Sink for ResourceSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        final_url(&self.shared, head, &self.url)?;
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        collect(&mut self.bytes, bytes, MOST_RESOURCE)
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        if let Some(error) = outcome_error(outcome) {
            self.fail(&error);
            return;
        }
        let (key, bytes) = (self.key.clone(), std::mem::take(&mut self.bytes));
        for (slot, needs, parked) in self.shared.handle_resource(key, bytes) {
            unpark(&self.shared, slot, &needs, parked);
        }
    }
}
