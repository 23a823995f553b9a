//! Take playlists, steering manifests, keys and initialization sections.

use std::sync::Arc;
use std::time::Instant;

use url::Url;

use super::requests::{MOST_PLAYLIST, collect, final_url, gunzip, outcome_error, parse_media};
use super::segment_sink::store_resource;
use crate::client::ResponseHead;
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::Error;
#[cfg(feature = "cache")]
use crate::source::hls::cached::BodyRecorder;
use crate::source::hls::hook::RequestKind;
use crate::source::hls::ladder::levels::Load;
use crate::source::hls::ladder::steering::Manifest;
use crate::source::hls::shared::Shared;
use crate::source::hls::state::ResourceKey;
#[cfg(feature = "cache")]
use crate::source::stored::SentRequest;
use crate::types::RequestId;

/// Bytes of a key or an initialization section, at most. The latter has about 1 KiB for audio; with a cover it may have some MiB.
pub(crate) const MOST_RESOURCE: usize = 4 << 20;

/// Bytes of a steering manifest, at most.
const MOST_MANIFEST: usize = 256 << 10;

/// Takes the playlist of a variant.
pub(crate) struct PlaylistSink {
    shared: Arc<Shared>,
    variant: usize,
    url: Url,
    from: Option<Url>,
    /// When it was requested: again after each attempt that has failed.
    began: Instant,
    bytes: Vec<u8>,
    /// What the cache has to know of the request and the response.
    #[cfg(feature = "cache")]
    exchange: (SentRequest, Option<ResponseHead>),
}

impl PlaylistSink {
    pub(crate) fn new(shared: Arc<Shared>, variant: usize, url: Url) -> Self {
        Self {
            shared,
            variant,
            url,
            from: None,
            began: Instant::now(),
            bytes: Vec::new(),
            #[cfg(feature = "cache")]
            exchange: Default::default(),
        }
    }

    #[cfg(feature = "cache")]
    pub(crate) fn set_sent_request(&mut self, sent: SentRequest) {
        self.exchange.0 = sent;
    }

    /// Stores the playlist in the cache, if it is on demand.
    #[cfg(feature = "cache")]
    fn keep(&self, text: &[u8]) {
        let (sent, head) = &self.exchange;
        if let (Some(store), Some(head), Some(from)) = (&self.shared.store, head, &self.from) {
            store.keep_list((&self.url, from), text, head, sent);
        }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn fail(&self, error: Error) {
        let hook = self.shared.config.hook.as_ref();
        // Before the state is locked: the hook is code of the application, and may block.
        let fresh = hook.and_then(|hook| hook.fresh_url(RequestKind::Playlist, &self.url, &error));
        self.shared.change(|state| {
            let is_taken = fresh.is_some_and(|fresh| state.handle_fresh_playlist(self.variant, fresh));
            if !is_taken {
                state.handle_playlist_failed(self.variant, error, Instant::now());
            }
        });
    }
}

impl Sink for PlaylistSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.from = Some(final_url(&self.shared, head, &self.url)?);
        #[cfg(feature = "cache")]
        {
            self.exchange.1 = Some(head.clone());
        }
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        collect(&mut self.bytes, bytes, MOST_PLAYLIST)
    }

    fn retrying(&mut self, error: &Error, at: Instant) {
        self.shared.with(|state| state.note_retrying(error, true));
        self.began = at;
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        // RFC 3986, section 5.1.3: URIs in it are relative to where redirects led.
        let url = self.from.as_ref().unwrap_or(&self.url).clone();
        let bytes = std::mem::take(&mut self.bytes);
        let parsed = outcome_error(outcome).map_or_else(|| gunzip(bytes), Err);
        #[cfg(feature = "cache")]
        if let Ok(text) = &parsed {
            self.keep(text);
        }
        match parsed.and_then(|bytes| parse_media(&self.shared, &bytes, &url, None)) {
            Ok(list) => {
                let load = Load { began: self.began, ended: Instant::now() };
                self.shared.change(|state| state.handle_planned_playlist(self.variant, list, url, load));
            }
            Err(error) => self.fail(error),
        }
    }
}

/// Takes a steering manifest.
pub(crate) struct SteeringSink {
    shared: Arc<Shared>,
    url: Url,
    from: Option<Url>,
    bytes: Vec<u8>,
}

impl SteeringSink {
    pub(crate) fn new(shared: Arc<Shared>, url: Url) -> Self {
        Self { shared, url, from: None, bytes: Vec::new() }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn end(&self, manifest: Result<Manifest, Error>) {
        // URIs in it are relative to where redirects led.
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
pub(crate) struct ResourceSink {
    shared: Arc<Shared>,
    key: ResourceKey,
    /// Where it is fetched from: a fresh URL of the application, or its own.
    url: Url,
    bytes: Vec<u8>,
    #[cfg(feature = "cache")]
    recorder: BodyRecorder,
}

impl ResourceSink {
    pub(crate) fn new(shared: Arc<Shared>, key: ResourceKey) -> Self {
        let fresh = shared.with(|state| state.fresh_resource(&key)).flatten();
        let url = fresh.unwrap_or_else(|| key.url.clone());
        Self {
            shared,
            key,
            url,
            bytes: Vec::new(),
            #[cfg(feature = "cache")]
            recorder: BodyRecorder::default(),
        }
    }

    /// Stores the initialization section in the cache, too.
    #[cfg(feature = "cache")]
    pub(crate) fn recorded_by(self, recorder: BodyRecorder) -> Self {
        Self { recorder, ..self }
    }

    pub(crate) fn key(&self) -> &ResourceKey {
        &self.key
    }

    /// Takes the whole resource.
    pub(crate) fn serve(&self, bytes: Vec<u8>) {
        store_resource(&self.shared, self.key.clone(), bytes);
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn kind(&self) -> RequestKind {
        self.key.kind
    }

    pub(crate) fn fail(&self, error: &Error) {
        let hook = self.shared.config.hook.as_ref();
        let fresh = hook.and_then(|hook| hook.fresh_url(self.kind(), &self.url, error));
        self.shared.handle_resource_failed(&self.key, fresh, error);
    }
}

impl Sink for ResourceSink {
    fn accepted(&mut self, request: RequestId) {
        // A reader that waits for it promotes it as soon as it has a number.
        self.shared.store(|state| state.handle_resource_accepted(&self.key, request));
    }

    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        final_url(&self.shared, head, &self.url)?;
        #[cfg(feature = "cache")]
        self.recorder.handle_head(&self.shared, head);
        Ok(Flow::Stream)
    }

    fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.shared.with(|state| state.handle_resource_bytes(&self.key, Instant::now()));
        #[cfg(feature = "cache")]
        self.recorder.handle_bytes(&self.shared, _offset, bytes);
        collect(&mut self.bytes, bytes, MOST_RESOURCE)
    }

    fn retrying(&mut self, error: &Error, _: Instant) {
        self.shared.with(|state| state.note_retrying(error, false));
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        if let Some(error) = outcome_error(outcome) {
            self.fail(&error);
            return;
        }
        #[cfg(feature = "cache")]
        self.recorder.finish(&self.shared);
        let bytes = std::mem::take(&mut self.bytes);
        self.serve(bytes);
    }
}
