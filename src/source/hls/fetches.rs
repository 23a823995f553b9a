//! Runs what the state plans: requests for the downloader, and the sinks that take their answers.

use std::sync::Arc;
use std::time::Instant;

use super::hook::RequestKind;
use super::requests::request;
use super::segment_sink::SegmentSink;
use super::shared::Shared;
use super::sinks::{PlaylistSink, ResourceSink, SteeringSink};
use super::state::{Planned, ResourceKey};
use crate::client::Request;
use crate::downloader::{Fetch, Next, Peer, Sink};
use crate::error::Error;
use crate::types::{ByteRange, Priority};

pub(super) struct HlsPeer(pub(super) Arc<Shared>);

impl Peer for HlsPeer {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        if let Some((fetch, sink)) =
            self.0.take_preload().and_then(|key| self.prepare_resource(key, Priority::High))
        {
            return Next::fetch(fetch, sink);
        }
        loop {
            let (is_metered, others) = self.0.surroundings();
            // Planning may skip a segment that can't be requested, which a reader waits for.
            let planned = self.0.store(|state| {
                state.set_network(is_metered, others);
                (state.plan(Instant::now(), admissible), state.demand())
            });
            let Some((planned, demand)) = planned else { return Next::Wait };
            self.0.set_demand(demand);
            let Some(planned) = planned else { return Next::Wait };
            if let Some((fetch, sink)) = self.prepare(planned) {
                return Next::fetch(fetch, sink);
            }
        }
    }
}

type Prepared = (Fetch, Box<dyn Sink>);

impl HlsPeer {
    /// `None` if it can't be requested, which the state knows then.
    fn prepare(&self, planned: Planned) -> Option<Prepared> {
        let shared = &self.0;
        match planned {
            Planned::Playlist { mirror, url } => {
                let sink = PlaylistSink::new(Arc::clone(shared), mirror, url);
                let request = request(shared, RequestKind::Playlist, sink.url());
                fetch_or_fail(
                    request,
                    sink,
                    |sink, error| sink.fail(error),
                    |fetch| fetch.priority(Priority::High),
                )
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
            Planned::Resource { key, priority } => self.prepare_resource(key, priority),
            Planned::Segment { slot, url, range, needs, priority } => {
                let sink = SegmentSink::new(Arc::clone(shared), slot, url, *needs);
                let epoch = shared.epoch()?;
                let request = request(shared, RequestKind::Segment, sink.url());
                fetch_or_fail(
                    request,
                    sink,
                    |sink, error| sink.fail(error),
                    |fetch| ranged(fetch, range).priority(priority).epoch(&epoch),
                )
            }
        }
    }

    fn prepare_resource(&self, key: ResourceKey, priority: Priority) -> Option<Prepared> {
        let range = key.range;
        let sink = ResourceSink::new(Arc::clone(&self.0), key);
        let request = request(&self.0, sink.kind(), sink.url());
        fetch_or_fail(
            request,
            sink,
            |sink, error| sink.fail(&error),
            |fetch| ranged(fetch, range).priority(priority),
        )
    }
}

fn fetch_or_fail<S: Sink + 'static>(
    request: Result<Request, Error>,
    sink: S,
    fail: impl FnOnce(&S, Error),
    configure: impl FnOnce(Fetch) -> Fetch,
) -> Option<Prepared> {
    match request {
        Ok(request) => Some((configure(Fetch::new(request)), Box::new(sink))),
        Err(error) => {
            fail(&sink, error);
            None
        }
    }
}

pub(super) fn ranged(fetch: Fetch, range: Option<ByteRange>) -> Fetch {
    match range {
        Some(range) => fetch.range(range).require_range(),
        None => fetch,
    }
}
