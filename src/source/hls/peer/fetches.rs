//! Runs what the state plans: requests for the downloader, and the sinks that take their answers.

use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "cache")]
use crate::source::hls::cached::{BodyRecorder, ConfirmSink};
use url::Url;

use super::requests::request;
#[cfg(feature = "cache")]
use super::requests::{parse_media, sent_request};
use super::segment_sink::SegmentSink;
use super::sinks::{PlaylistSink, ResourceSink, SteeringSink};
use crate::client::Request;
use crate::downloader::{Fetch, Next, Peer, Sink};
use crate::error::Error;
use crate::source::hls::hook::RequestKind;
use crate::source::hls::shared::Shared;
use crate::source::hls::state::{Planned, ResourceKey};
use crate::source::hls::timeline::reload::LONGEST_DELAY;
#[cfg(feature = "cache")]
use crate::source::stored::SentRequest;
use crate::types::{ByteRange, Priority};

pub(crate) struct HlsPeer(pub(crate) Arc<Shared>);

impl Peer for HlsPeer {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        // A key that the application has, or that can't be requested, is no reason to leave the others: only the opening wakes the
        // downloader for them.
        while let Some(key) = self.0.take_preload() {
            if let Some((fetch, sink)) = self.prepare_resource(key, None, Priority::High) {
                return Next::fetch(fetch, sink);
            }
        }
        loop {
            let (is_metered, others) = self.0.link.surroundings();
            // Planning may skip a segment that can't be requested, which a reader waits for.
            let planned = self.0.store(|state| {
                state.set_network(is_metered, others);
                (state.plan(Instant::now(), admissible), state.demand(), state.is_failing())
            });
            let Some((planned, demand, is_failing)) = planned else { return Next::Wait };
            self.0.link.set_demand(demand);
            let Some(planned) = planned else { return Next::Wait };
            if let Some((fetch, sink)) = self.prepare(planned) {
                return Next::fetch(fetch.in_outage(is_failing), sink);
            }
        }
    }
}

type Prepared = (Fetch, Box<dyn Sink>);

impl HlsPeer {
    /// `None` if it can't be requested, which the state knows then, or if the cache has it.
    fn prepare(&self, planned: Planned) -> Option<Prepared> {
        let shared = &self.0;
        match planned {
            Planned::Playlist { variant, url } => self.prepare_playlist(variant, url),
            #[cfg(feature = "cache")]
            Planned::Confirm { url } => self.prepare_confirmation(url),
            #[cfg(feature = "cache")]
            Planned::Stored { variant, url } => {
                self.read_stored_playlist(variant, &url);
                None
            }
            Planned::Steering { url } => {
                let sink = SteeringSink::new(Arc::clone(shared), url);
                let request = request(shared, RequestKind::Steering, sink.url());
                fetch_or_fail(
                    request,
                    sink,
                    |sink, error| sink.end(Err(error)),
                    |fetch| fetch.priority(Priority::High),
                )
            }
            Planned::Resource { key, list, priority } => self.prepare_resource(key, list.as_ref(), priority),
            Planned::Segment { id, url, range, needs, list, priority } => {
                let sink = SegmentSink::new(Arc::clone(shared), id, url, *needs);
                let request = request(shared, RequestKind::Segment, sink.url());
                #[cfg(feature = "cache")]
                let sink = self.segment_from_cache(sink, id, &list, range, request.as_ref().ok())?;
                #[cfg(not(feature = "cache"))]
                let _ = list; // For the cache only.
                let epoch = shared.fetch_epoch(id)?;
                fetch_or_fail(
                    request,
                    sink,
                    |sink, error| sink.fail(error),
                    |fetch| ranged(fetch, range).priority(priority).epoch(&epoch),
                )
            }
        }
    }

    fn prepare_playlist(&self, variant: usize, url: Url) -> Option<Prepared> {
        let sink = PlaylistSink::new(Arc::clone(&self.0), variant, url);
        let request = request(&self.0, RequestKind::Playlist, sink.url());
        #[cfg(feature = "cache")]
        let sink = {
            let mut sink = sink;
            sink.set_sent_request(self.sent_request(request.as_ref().ok()));
            sink
        };
        let fail = |sink: &PlaylistSink, error| sink.fail(error);
        fetch_or_fail(request, sink, fail, |fetch| fetch.priority(Priority::High))
    }

    fn prepare_resource(&self, key: ResourceKey, list: Option<&Url>, priority: Priority) -> Option<Prepared> {
        let range = key.range;
        let sink = ResourceSink::new(Arc::clone(&self.0), key);
        if sink.kind() == RequestKind::Key {
            let hook = self.0.config.hook.as_ref();
            if let Some(bytes) = hook.and_then(|hook| hook.key(&sink.key().url)) {
                sink.serve(bytes);
                return None;
            }
        }
        let request = request(&self.0, sink.kind(), sink.url());
        #[cfg(feature = "cache")]
        let sink = self.resource_from_cache(sink, list, request.as_ref().ok())?;
        #[cfg(not(feature = "cache"))]
        let _ = list; // For the cache only.
        fetch_or_fail(
            request,
            sink,
            |sink, error| sink.fail(&error),
            |fetch| ranged(fetch, range).priority(priority),
        )
    }
}

#[cfg(feature = "cache")]
impl HlsPeer {
    fn sent_request(&self, request: Option<&Request>) -> SentRequest {
        let sent = self.0.link.waker().zip(request).map(|(waker, request)| sent_request(waker, request));
        sent.unwrap_or_default()
    }

    fn prepare_confirmation(&self, url: Option<Url>) -> Option<Prepared> {
        let url = url.unwrap_or_else(|| self.0.request.url().expose().clone());
        let mut sink = ConfirmSink::new(Arc::clone(&self.0), url);
        let request = request(&self.0, RequestKind::Playlist, sink.url());
        sink.set_sent_request(self.sent_request(request.as_ref().ok()));
        let fail = |sink: &ConfirmSink, error| sink.fail(error);
        // One retry: after a failure, what is stored is played unconfirmed, or the state asks again after a pause.
        fetch_or_fail(request, sink, fail, |fetch| fetch.priority(Priority::High).max_retries(1))
    }

    fn read_stored_playlist(&self, variant: usize, url: &Url) {
        let text = self.0.store.as_ref().and_then(|store| store.list(url));
        let list = text.and_then(|(text, _)| parse_media(&self.0, &text, url, None).ok());
        self.0.store(|state| state.handle_stored_playlist(variant, list.map(|list| (list, url.clone()))));
    }

    /// Takes a segment from the cache. Returns the sink if it has to be requested, and stores it then.
    fn segment_from_cache(
        &self,
        sink: SegmentSink,
        id: u64,
        list: &Url,
        range: Option<ByteRange>,
        request: Option<&Request>,
    ) -> Option<SegmentSink> {
        let Some(store) = &self.0.store else { return Some(sink) };
        let part = store.part(list, sink.url(), range, self.sent_request(request));
        if let Some(bytes) = part.as_ref().and_then(|part| store.read(part)) {
            sink.serve(range.map_or(0, |range| range.start), &bytes);
            return None;
        }
        // Until the playlist is confirmed nothing but playlists is requested.
        let is_refused = self.0.with(|state| state.handle_segment_missing(id)).unwrap_or_default();
        (!is_refused).then(|| sink.recorded_by(BodyRecorder::new(part)))
    }

    /// Takes an initialization section from the cache. Returns the sink if it, or a key, has to be requested.
    fn resource_from_cache(
        &self,
        sink: ResourceSink,
        list: Option<&Url>,
        request: Option<&Request>,
    ) -> Option<ResourceSink> {
        let Some(store) = &self.0.store else { return Some(sink) };
        // Keys are never stored.
        let list = list.filter(|_| sink.kind() == RequestKind::InitializationSection);
        let part =
            list.and_then(|list| store.part(list, sink.url(), sink.key().range, self.sent_request(request)));
        if let Some(bytes) = part.as_ref().and_then(|part| store.read(part)) {
            sink.serve(bytes);
            return None;
        }
        let is_refused = self.0.with(|state| state.handle_resource_missing(sink.key())).unwrap_or_default();
        (!is_refused).then(|| sink.recorded_by(BodyRecorder::new(part)))
    }
}

fn fetch_or_fail<S: Sink + 'static>(
    request: Result<Request, Error>,
    sink: S,
    fail: impl FnOnce(&S, Error),
    configure: impl FnOnce(Fetch) -> Fetch,
) -> Option<Prepared> {
    match request {
        Ok(request) => {
            let fetch = Fetch::new(request).max_retry_delay(LONGEST_DELAY);
            Some((configure(fetch), Box::new(sink)))
        }
        Err(error) => {
            fail(&sink, error);
            None
        }
    }
}

pub(crate) fn ranged(fetch: Fetch, range: Option<ByteRange>) -> Fetch {
    match range {
        // The whole resource would be taken for the bytes of the range.
        Some(range) => fetch.range(range).require_range(),
        None => fetch,
    }
}
