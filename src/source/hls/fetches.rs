//! Runs what the state plans: requests for the downloader, and sinks that report what has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::demux::Output;
use super::pipeline::Pipeline;
use super::playlist::{Context, MediaPlaylist, Playlist};
use super::policy::UriPolicy;
use super::shared::Shared;
use super::state::{Needs, Parked, Planned, ResourceKey};
use crate::client::{Request, ResponseHead};
use crate::downloader::{Fetch, Flow, Next, Outcome, Peer, PeerHandle, Sink};
use crate::error::{Error, ErrorKind};
use crate::safe_url::HttpUrl;
use crate::types::{ByteRange, Priority, RequestId};

/// Bytes of a playlist, at most.
pub(super) const MOST_PLAYLIST: usize = 16 << 20;

/// Bytes of a key or an initialization section, at most.
const MOST_RESOURCE: usize = 4 << 20;

/// How often a segment that arrives is compared with what a lower level would cost.
const WATCHED: Duration = Duration::from_millis(500);

/// Bytes of a segment that are held while its key or its initialization section is missing.
const MOST_PARKED: usize = 64 << 20;

/// A request for `url`, with the user's headers if it goes to the origin that they are for.
pub(super) fn request(shared: &Shared, url: &Url) -> Result<Request, Error> {
    let request = Request::get(url.as_str())?;
    let is_own = url.origin() == shared.request.url().expose().origin();
    if is_own { request.headers("HlsConfig::headers", &shared.config.headers) } else { Ok(request) }
}

/// Where a response came from, after redirects, which must not lead where the playlist could not.
pub(super) fn final_url(shared: &Shared, head: &ResponseHead, requested: &Url) -> Result<Url, Error> {
    let url = HttpUrl::of(head.url()).map_or_else(|| requested.clone(), |url| url.expose().clone());
    policy(shared).check(requested, &url)?;
    Ok(url)
}

pub(super) fn policy(shared: &Shared) -> UriPolicy {
    UriPolicy { allow_http: shared.config.allow_http, allow_private: shared.config.allow_private }
}

/// Fetches a playlist on this thread. Blocks: with `hold`, the server may wait so long before it answers.
pub(super) fn load(
    shared: &Shared,
    peer: &PeerHandle,
    url: &Url,
    hold: Option<Duration>,
) -> Result<(Vec<u8>, Url), Error> {
    let mut fetch = Fetch::new(request(shared, url)?);
    if let Some(hold) = hold {
        fetch = fetch.held(hold);
    }
    let response = peer.execute(fetch)?;
    let from = final_url(shared, response.head(), url)?;
    Ok((response.bytes(MOST_PLAYLIST)?, from))
}

/// Parses a media playlist.
pub(super) fn parse_media(
    shared: &Shared,
    bytes: &[u8],
    url: &Url,
    previous: Option<&MediaPlaylist>,
) -> Result<MediaPlaylist, Error> {
    let variables = shared.variables();
    match Playlist::parse_in(bytes, Context { url, variables, previous }) {
        Ok(Playlist::Media(list)) => Ok(list),
        Ok(Playlist::Multivariant(_)) => {
            let why = "a multivariant playlist names another one as a media playlist";
            Err(Error::new(ErrorKind::InvalidPlaylist, why).with_url(url.as_str()))
        }
        Err(error) => Err(Error::from(error).with_url(url.as_str())),
    }
}

pub(super) struct HlsPeer(pub(super) Arc<Shared>);

impl Peer for HlsPeer {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        loop {
            // Planning may skip a segment that can't be requested, which a reader waits for.
            let planned = self.0.store(|state| state.plan(Instant::now(), admissible)).flatten();
            let Some(planned) = planned else { return Next::Wait };
            if let Some((fetch, sink)) = self.prepare(planned) {
                return Next::fetch(fetch, sink);
            }
        }
    }
}

impl HlsPeer {
    /// `None` if it can't be requested, which the state knows then.
    fn prepare(&self, planned: Planned) -> Option<(Fetch, Box<dyn Sink>)> {
        let shared = &self.0;
        match planned {
            Planned::Playlist { level, url } => {
                let sink =
                    PlaylistSink { shared: Arc::clone(shared), level, url, from: None, bytes: Vec::new() };
                match request(shared, &sink.url) {
                    Ok(request) => Some((Fetch::new(request).priority(Priority::High), Box::new(sink))),
                    Err(error) => {
                        sink.fail(error);
                        None
                    }
                }
            }
            Planned::Resource { key, priority } => {
                let sink = ResourceSink { shared: Arc::clone(shared), key, bytes: Vec::new() };
                match request(shared, &sink.key.url) {
                    Ok(request) => {
                        let fetch = ranged(Fetch::new(request), sink.key.range).priority(priority);
                        Some((fetch, Box::new(sink)))
                    }
                    Err(error) => {
                        sink.fail(&error);
                        None
                    }
                }
            }
            Planned::Segment { slot, url, range, needs, priority } => {
                let sink = SegmentSink::new(Arc::clone(shared), slot, url, *needs);
                let epoch = shared.epoch()?;
                match request(shared, &sink.url) {
                    Ok(request) => {
                        let fetch = ranged(Fetch::new(request), range).priority(priority).epoch(&epoch);
                        Some((fetch, Box::new(sink)))
                    }
                    Err(error) => {
                        sink.fail(error);
                        None
                    }
                }
            }
        }
    }
}

fn ranged(fetch: Fetch, range: Option<ByteRange>) -> Fetch {
    match range {
        Some(range) => fetch.range(range).require_range(),
        None => fetch,
    }
}

/// Adds `bytes`, unless there are more than `most`.
fn collect(bytes: &mut Vec<u8>, more: &[u8], most: usize) -> Result<(), Error> {
    if bytes.len() + more.len() > most {
        return Err(Error::new(ErrorKind::TooLarge, format!("the body is longer than {most} bytes")));
    }
    bytes.extend_from_slice(more);
    Ok(())
}

/// Takes the playlist of a level.
struct PlaylistSink {
    shared: Arc<Shared>,
    level: usize,
    url: Url,
    from: Option<Url>,
    bytes: Vec<u8>,
}

impl PlaylistSink {
    fn fail(&self, error: Error) {
        self.shared.change(|state| state.handle_playlist_failed(self.level, error, Instant::now()));
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

    fn finish(self: Box<Self>, outcome: Outcome) {
        let url = self.from.as_ref().unwrap_or(&self.url);
        let parsed = match outcome {
            Outcome::Done => parse_media(&self.shared, &self.bytes, url, None),
            Outcome::Failed(error) => Err(error),
            Outcome::Cancelled(reason) => Err(Error::cancelled(reason)),
        };
        match parsed {
            Ok(list) => {
                self.shared.change(|state| state.handle_playlist(self.level, list, url.clone()));
            }
            Err(error) => self.fail(error),
        }
    }
}

/// Takes a key or an initialization section.
struct ResourceSink {
    shared: Arc<Shared>,
    key: ResourceKey,
    bytes: Vec<u8>,
}

impl ResourceSink {
    fn fail(&self, error: &Error) {
        self.shared.change(|state| state.handle_resource_failed(&self.key, error, Instant::now()));
    }
}

impl Sink for ResourceSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        final_url(&self.shared, head, &self.key.url)?;
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        collect(&mut self.bytes, bytes, MOST_RESOURCE)
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        match outcome {
            Outcome::Done => {
                let (key, bytes) = (self.key.clone(), std::mem::take(&mut self.bytes));
                let waiting = self.shared.change(|state| state.handle_resource(key, bytes));
                for (slot, needs, parked) in waiting.unwrap_or_default() {
                    unpark(&self.shared, slot, &needs, parked);
                }
            }
            Outcome::Failed(error) => self.fail(&error),
            Outcome::Cancelled(reason) => self.fail(&Error::cancelled(reason)),
        }
    }
}

/// Reads a body that had to wait, if it has all that it needs by now.
fn unpark(shared: &Shared, slot: u64, needs: &Needs, parked: Parked) {
    let result = match shared.with(|state| state.pipeline(needs, parked.position)) {
        Some(Ok(Some(pipeline))) => read_whole(pipeline, &parked.raw),
        Some(Ok(None)) => {
            shared.with(|state| state.handle_parked(slot, parked));
            return;
        }
        Some(Err(error)) => Err(error),
        None => return,
    };
    shared.change(|state| match result {
        Ok(mut output) => {
            state.handle_frames(slot, &mut output);
            state.handle_segment_complete(slot);
        }
        Err(error) => state.handle_segment_failed(slot, error, Instant::now()),
    });
}

fn read_whole(mut pipeline: Pipeline, raw: &[u8]) -> Result<Output, Error> {
    let mut output = Output::default();
    pipeline.push(raw, &mut output)?;
    pipeline.finish(&mut output)?;
    Ok(output)
}

/// Takes a segment: decrypts it and takes the frames out while it arrives.
struct SegmentSink {
    shared: Arc<Shared>,
    slot: u64,
    url: Url,
    needs: Needs,
    /// Offset of the segment in its resource.
    position: u64,
    pipeline: Option<Pipeline>,
    /// The body, as long as there is no pipeline.
    raw: Vec<u8>,
    output: Output,
    received: u64,
    /// Bytes of the body, if the server has announced them.
    len: Option<u64>,
    began: Option<Instant>,
    /// When the progress was looked at last.
    watched: Option<Instant>,
}

impl SegmentSink {
    fn new(shared: Arc<Shared>, slot: u64, url: Url, needs: Needs) -> Self {
        Self {
            shared,
            slot,
            url,
            needs,
            position: 0,
            pipeline: None,
            raw: Vec::new(),
            output: Output::default(),
            received: 0,
            len: None,
            began: None,
            watched: None,
        }
    }

    fn fail(&self, error: Error) {
        self.shared.change(|state| state.handle_segment_failed(self.slot, error, Instant::now()));
    }

    /// Starts the pipeline once the key and the initialization section are there.
    fn begin(&mut self) -> Result<(), Error> {
        if self.pipeline.is_some() {
            return Ok(());
        }
        let pipeline = self.shared.with(|state| state.pipeline(&self.needs, self.position));
        if let Some(mut pipeline) = pipeline.transpose()?.flatten() {
            pipeline.push(&std::mem::take(&mut self.raw), &mut self.output)?;
            self.pipeline = Some(pipeline);
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), Error> {
        let is_empty = self.output.frames.is_empty() && self.output.tail.is_empty();
        if is_empty || self.shared.store_frames(self.slot, &mut self.output) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Refusal, "the segment is not needed any more"))
    }

    fn complete(&mut self) -> Result<(), Error> {
        self.begin()?;
        let Some(pipeline) = &mut self.pipeline else {
            let parked = Parked { raw: std::mem::take(&mut self.raw), position: self.position };
            // What it waits for may have come between the two looks: then nobody else reads the body.
            self.shared.with(|state| state.handle_parked(self.slot, parked));
            let parked = self.shared.with(|state| state.take_parked_if_ready(self.slot)).flatten();
            if let Some(parked) = parked {
                unpark(&self.shared, self.slot, &self.needs, parked);
            }
            return Ok(());
        };
        pipeline.finish(&mut self.output)?;
        self.deliver()?;
        self.shared.change(|state| state.handle_segment_complete(self.slot));
        Ok(())
    }

    /// Gives the segment up if it would arrive too late, and another level is faster.
    fn watch(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let (Some(began), Some(watched), Some(len)) = (self.began, self.watched, self.len) else {
            return Ok(());
        };
        if now.saturating_duration_since(watched) < WATCHED {
            return Ok(());
        }
        self.watched = Some(now);
        let left = len.saturating_sub(self.received);
        let rate = self.received as f64 / now.saturating_duration_since(began).as_secs_f64();
        match self.shared.change(|state| state.abandon(now, self.slot, left, rate)) {
            Some(true) => {
                Err(Error::new(ErrorKind::Refusal, "the segment arrives too late: a lower level replaces it"))
            }
            _ => Ok(()),
        }
    }

    /// Reports what the transfer has shown of the network.
    fn record_transfer(&self) {
        let (rate, ttfb) = self.shared.network();
        let Some(began) = self.began else { return };
        // Two segments that arrive at the same time share the network: the rate of both together counts.
        let duration = match rate {
            Some(rate) if rate > 0.0 => Duration::from_secs_f64(self.received as f64 / rate),
            _ => began.elapsed(),
        };
        let received = self.received;
        self.shared.with(|state| state.handle_transfer(received, duration, ttfb.unwrap_or_default()));
    }
}

impl Sink for SegmentSink {
    fn accepted(&mut self, request: RequestId) {
        self.shared.with(|state| state.handle_accepted(self.slot, request));
    }

    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        final_url(&self.shared, head, &self.url)?;
        if self.began.is_none() {
            self.position = head.start();
            self.len = head.body_len();
            self.began = Some(Instant::now());
            self.watched = self.began;
        }
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        self.received += bytes.len() as u64;
        self.begin()?;
        match &mut self.pipeline {
            Some(pipeline) => pipeline.push(bytes, &mut self.output)?,
            None => collect(&mut self.raw, bytes, MOST_PARKED)?,
        }
        self.deliver()?;
        self.watch()
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        match outcome {
            Outcome::Done => {
                self.record_transfer();
                if let Err(error) = self.complete() {
                    self.fail(error.with_url(self.url.as_str()));
                }
            }
            Outcome::Failed(error) => self.fail(error),
            Outcome::Cancelled(reason) => self.fail(Error::cancelled(reason)),
        }
    }
}
