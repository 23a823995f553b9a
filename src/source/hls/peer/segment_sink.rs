//! Takes segments: decrypts them and takes the frames out while they arrive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use url::Url;

use super::requests::{collect, final_url, outcome_error};
use crate::client::ResponseHead;
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::{Error, ErrorKind};
#[cfg(feature = "cache")]
use crate::source::hls::cached::BodyRecorder;
use crate::source::hls::demux::Output;
use crate::source::hls::group::Received;
use crate::source::hls::hook::RequestKind;
use crate::source::hls::pipeline::{ArrivingBody, Pipeline};
use crate::source::hls::shared::{Shared, WaitingSegment};
use crate::source::hls::state::{Needs, ResourceKey, SegmentTransfer, Undemuxed};
use crate::types::RequestId;

/// Bytes of a segment that are held while its key or its initialization section is missing: the default of
/// [`HlsConfig::buffer_bytes`](crate::hls::HlsConfig::buffer_bytes).
const MOST_WAITING: usize = 64 << 20;

/// Takes a segment: decrypts it and takes the frames out while it arrives.
pub(crate) struct SegmentSink {
    shared: Arc<Shared>,
    id: u64,
    url: Url,
    needs: Needs,
    /// Offset of the segment in its resource.
    position: u64,
    body: Arc<Mutex<ArrivingBody>>,
    received: u64,
    /// When it was requested, and what all streams had received then.
    asked: (Instant, Received),
    /// The same for its response head.
    began: Option<(Instant, Received)>,
    is_measured: bool,
    #[cfg(feature = "cache")]
    recorder: BodyRecorder,
}

impl SegmentSink {
    pub(crate) fn new(shared: Arc<Shared>, id: u64, url: Url, needs: Needs) -> Self {
        let asked = (Instant::now(), shared.link.received());
        Self {
            shared,
            id,
            url,
            needs,
            position: 0,
            body: Arc::default(),
            received: 0,
            asked,
            began: None,
            is_measured: true,
            #[cfg(feature = "cache")]
            recorder: BodyRecorder::default(),
        }
    }

    /// Stores the segment in the cache, too.
    #[cfg(feature = "cache")]
    pub(crate) fn recorded_by(self, recorder: BodyRecorder) -> Self {
        Self { recorder, ..self }
    }

    /// Takes a segment that is stored. `start` is its offset in its resource.
    #[cfg(feature = "cache")]
    pub(crate) fn serve(self, start: u64, bytes: &[u8]) {
        let mut sink = Self { position: start, ..self.unmeasured() };
        if let Err(error) = sink.write(start, bytes).and_then(|()| sink.complete()) {
            sink.fail(error);
        }
    }

    /// Its rate does not count.
    pub(crate) fn unmeasured(self) -> Self {
        Self { is_measured: false, ..self }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn fail(&self, error: Error) {
        fail(&self.shared, self.id, &self.url, error);
    }

    fn complete(&mut self) -> Result<(), Error> {
        // The body is unlocked before the state is changed: that lets the downloader run other ends, which may want it.
        let Some(undemuxed) = self.finish_body()? else {
            self.shared.change(|state| state.handle_segment_complete(self.id));
            return Ok(());
        };
        // The key may have arrived since `begin`. Then no other thread reads the body, so this one has to.
        let undemuxed = self.shared.with(|state| state.handle_undemuxed(self.id, undemuxed)).flatten();
        if let Some(undemuxed) = undemuxed {
            demux_now(&self.shared, self.id, &self.needs, &undemuxed);
        }
        Ok(())
    }

    /// Delivers the last frames, or returns the body if it can't be read yet.
    fn finish_body(&self) -> Result<Option<Undemuxed>, Error> {
        let mut body = self.body.lock();
        begin(&self.shared, &mut body, &self.needs, self.position)?;
        let ArrivingBody { pipeline, raw, output } = &mut *body;
        let Some(pipeline) = pipeline else {
            return Ok(Some(Undemuxed {
                url: self.url.clone(),
                raw: std::mem::take(raw),
                position: self.position,
            }));
        };
        pipeline.finish(output)?;
        deliver(&self.shared, self.id, output)?;
        Ok(None)
    }

    /// Counts bytes that have arrived.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refusal`] if the segment would arrive too late, and another level is faster.
    fn count(&mut self, bytes: u64) -> Result<(), Error> {
        self.received += bytes;
        self.shared.link.count_received(bytes);
        let now = Instant::now();
        let share = self.began.map(|(_, before)| self.shared.link.received().share_since(before));
        let counted = self.shared.with(|state| {
            share.into_iter().for_each(|share| state.handle_share(self.id, share));
            let is_abandoned = state.handle_segment_bytes(self.id, bytes, now);
            // The next segment is requested shortly before this one is whole.
            (is_abandoned, state.take_wake(now).then(|| state.wake_priority()))
        });
        let Some((is_abandoned, wake)) = counted else { return Ok(()) };
        wake.into_iter().for_each(|priority| self.shared.link.wake(priority));
        if is_abandoned {
            self.shared.handle_abandoned();
            return Err(Error::new(
                ErrorKind::Refusal,
                "the segment arrives too late: a lower level replaces it",
            ));
        }
        Ok(())
    }

    /// Reports what the transfer has shown of the network.
    fn record_transfer(&self) {
        let (rate, ttfb) = self.shared.link.network();
        let Some((began, before)) = self.began.filter(|_| self.is_measured) else { return };
        // Two segments that arrive at the same time share the network: the rate of both together counts, and so does what
        // other streams have received in the meantime.
        let received = self.shared.link.received();
        // By the measured rate where there is one, and not by the clock: that also runs while this sink decrypts and demuxes, and
        // holds the body back.
        let body = match rate {
            Some(rate) if rate > 0.0 => Duration::from_secs_f64(self.received as f64 / rate),
            _ => began.elapsed(),
        };
        // During the wait, the other segment of this stream has its share of the network too.
        let (asked, before_wait) = self.asked;
        let share_of_wait = received.share_of(self.received, before_wait).min(1.0);
        let transfer = SegmentTransfer {
            bytes: self.received,
            body,
            share: received.share_since(before),
            wait: began.saturating_duration_since(asked).mul_f64(share_of_wait),
            ttfb: ttfb.unwrap_or_default(),
        };
        self.shared.with(|state| state.handle_transfer(transfer));
    }
}

impl Sink for SegmentSink {
    fn accepted(&mut self, request: RequestId) {
        // A reader that waits for this segment promotes it as soon as it has a number.
        self.shared.store(|state| state.handle_accepted(self.id, request));
    }

    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        final_url(&self.shared, head, &self.url)?;
        // A retry continues the same body, so its offset and its times are those of the first response.
        if self.began.is_none() {
            self.position = head.start();
            let now = Instant::now();
            self.began = Some((now, self.shared.link.received()));
            if self.is_measured {
                // A blocked reader checks from now on whether the segment arrives in time.
                self.shared.store(|state| state.handle_segment_head(self.id, head.body_len(), now));
            }
            #[cfg(feature = "cache")]
            self.recorder.handle_head(&self.shared, head);
        }
        Ok(Flow::Stream)
    }

    fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), Error> {
        #[cfg(feature = "cache")]
        self.recorder.handle_bytes(&self.shared, _offset, bytes);
        // Counted before the work: a segment that was abandoned need not be decrypted.
        self.count(bytes.len() as u64)?;
        let mut body = self.body.lock();
        if body.pipeline.is_none() {
            let (url, needs, body) = (self.url.clone(), self.needs.clone(), Arc::clone(&self.body));
            self.shared.add_waiting(WaitingSegment {
                id: self.id,
                url,
                needs,
                position: self.position,
                body,
            });
        }
        begin(&self.shared, &mut body, &self.needs, self.position)?;
        let ArrivingBody { pipeline, raw, output } = &mut *body;
        match pipeline {
            Some(pipeline) => pipeline.push(bytes, output)?,
            None => collect(raw, bytes, MOST_WAITING)?,
        }
        deliver(&self.shared, self.id, output)
    }

    fn retrying(&mut self, error: &Error, at: Instant) {
        self.shared.with(|state| state.note_retrying(error, false));
        // The wait for the answer that failed shows nothing of the network.
        self.asked = (at, self.shared.link.received());
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        self.shared.forget_fetch(self.id);
        if let Some(error) = outcome_error(outcome) {
            self.fail(error);
            return;
        }
        #[cfg(feature = "cache")]
        self.recorder.finish(&self.shared);
        // Recorded before `complete`, which demuxes and waits for locks: that is no time of the network.
        self.record_transfer();
        if let Err(error) = self.complete() {
            self.fail(error);
        }
    }
}

/// A segment can't be fetched or read. Called without the lock of a body: it runs a hook of the application.
fn fail(shared: &Shared, id: u64, url: &Url, error: Error) {
    if shared.with(|state| state.is_needed(id)) == Some(false) {
        // It was abandoned: no URL is better than another.
        return;
    }
    // What fails after a cancel fails because of it, and shows nothing of the segment.
    let error = shared.link.cancelled().map_or_else(|| error.with_url(url.as_str()), Error::cancelled);
    // Before the state is locked: the hook is code of the application, and may block.
    let hook = shared.config.hook.as_ref();
    let fresh = hook.and_then(|hook| hook.fresh_url(RequestKind::Segment, url, &error));
    shared.change(|state| {
        let is_taken = fresh.is_some_and(|fresh| state.handle_fresh_url(id, fresh));
        if !is_taken {
            state.handle_segment_failed(id, error, Instant::now());
        }
    });
}

/// Starts the pipeline once the key and the initialization section are there.
fn begin(shared: &Shared, body: &mut ArrivingBody, needs: &Needs, position: u64) -> Result<(), Error> {
    if body.pipeline.is_some() {
        return Ok(());
    }
    let pipeline = shared.with(|state| state.pipeline(needs, position));
    pipeline.transpose()?.flatten().map_or(Ok(()), |pipeline| body.start(pipeline))
}

fn deliver(shared: &Shared, id: u64, output: &mut Output) -> Result<(), Error> {
    // A head and a delay come along with the first frame.
    let is_empty = output.frames.is_empty() && output.tail.is_empty() && output.padding.is_zero();
    if is_empty { Ok(()) } else { shared.store_frames(id, output) }
}

/// Stores a key or an initialization section, and reads the bodies that have waited for it.
pub(crate) fn store_resource(shared: &Shared, key: ResourceKey, bytes: Vec<u8>) {
    for (id, needs, undemuxed) in shared.handle_resource(key, bytes) {
        demux_now(shared, id, &needs, &undemuxed);
    }
    // What has arrived of them is not left to their next bytes: on a slow start these are a round trip away.
    for WaitingSegment { id, url, needs, position, body } in shared.take_waiting() {
        let read = {
            let mut body = body.lock();
            begin(shared, &mut body, &needs, position).and_then(|()| deliver(shared, id, &mut body.output))
        };
        if let Err(error) = read {
            fail(shared, id, &url, error);
        }
    }
}

/// Reads a body that had to wait, and has all that it needs now.
fn demux_now(shared: &Shared, id: u64, needs: &Needs, undemuxed: &Undemuxed) {
    let read = match shared.with(|state| state.pipeline(needs, undemuxed.position)) {
        Some(Ok(Some(pipeline))) => read_whole(pipeline, &undemuxed.raw),
        // What it needs was there when it was taken, and is kept as long as a segment needs it: the segment is gone.
        Some(Ok(None)) | None => return,
        Some(Err(error)) => Err(error),
    };
    let stored = read.and_then(|mut output| {
        let stored = shared
            .change(|state| state.handle_frames(id, &mut output).map(|()| state.handle_segment_complete(id)));
        stored.unwrap_or(Ok(()))
    });
    if let Err(error) = stored {
        fail(shared, id, &undemuxed.url, error);
    }
}

fn read_whole(mut pipeline: Pipeline, raw: &[u8]) -> Result<Output, Error> {
    let mut output = Output::default();
    pipeline.push(raw, &mut output)?;
    pipeline.finish(&mut output)?;
    Ok(output)
}

#[cfg(all(test, feature = "hls-aes"))]
mod tests {
    use super::*;
    use crate::abr::Estimator;
    use crate::client::Request;
    use crate::source::hls::config::HlsConfig;
    use crate::source::hls::event::HlsEvent;
    use crate::source::hls::ladder::levels::Ladder;
    use crate::source::hls::playlist::Playlist;
    use crate::source::hls::state::{Planned, State};
    use crate::source::hls::timeline::Timeline;
    use crate::types::Priority;

    /// A presentation of one encrypted segment, its key, and the sink of the segment.
    fn requested() -> (Arc<Shared>, ResourceKey, Box<SegmentSink>) {
        let url = Url::parse("http://host/l").unwrap();
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n#EXTINF:2,\na.aac\n#EXT-X-ENDLIST\n";
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), url.as_str()) else {
            panic!("a media playlist")
        };
        let shared = Arc::new(Shared::new(Request::get(url.as_str()).unwrap(), HlsConfig::default()));
        let first = (0, Timeline::new(list, url.clone(), Duration::ZERO));
        let mut state =
            State::new(HlsConfig::default(), Ladder::single(url), None, first, Estimator::default());
        let planned = [(); 2].map(|()| state.plan(Instant::now(), Priority::Low));
        shared.inner.lock().state = Some(state);
        let [Some(Planned::Resource { key, .. }), Some(Planned::Segment { id, url, needs, .. })] = planned
        else {
            panic!("{planned:?}")
        };
        let sink = SegmentSink::new(Arc::clone(&shared), id, url, *needs);
        (shared, key, Box::new(sink))
    }

    #[test]
    fn a_segment_that_fails_when_its_key_comes_has_its_url_in_the_error() {
        for is_whole in [false, true] {
            let (shared, key, mut sink) = requested();
            let events = shared.subscribe();
            sink.write(0, &[0; 64]).unwrap();
            if is_whole {
                sink.finish(Outcome::Done);
            }
            store_resource(&shared, key, b"no key".to_vec());
            let Some(HlsEvent::Skipped { error, .. }) = events.try_recv() else { panic!("it is skipped") };
            assert_eq!(
                error.url().map(ToString::to_string).as_deref(),
                Some("http://host/a.aac"),
                "{error:?}"
            );
        }
    }
}
