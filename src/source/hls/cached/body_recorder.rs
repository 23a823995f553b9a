//! Stores what a sink receives while it arrives.

use std::sync::atomic::Ordering;

use super::super::shared::Shared;
use super::store::{HlsStore, Part, Recorder};
use crate::client::ResponseHead;
use crate::error::Error;
use crate::event::Event;

/// Stores the body of one response, if it may be stored.
#[derive(Debug, Default)]
pub(crate) struct BodyRecorder {
    part: Option<Part>,
    /// Where the body begins in its resource.
    start: u64,
    recorder: Option<Recorder>,
}

impl BodyRecorder {
    pub(crate) fn new(part: Option<Part>) -> Self {
        Self { part, ..Self::default() }
    }

    /// Takes the head of the first response.
    pub(crate) fn handle_head(&mut self, shared: &Shared, head: &ResponseHead) {
        // Only the first response begins an entry: a retry continues the same body.
        let (Some(part), Some(store)) = (self.part.take(), &shared.store) else { return };
        self.start = head.start();
        match store.record(&part, head) {
            Ok(recorder) => self.recorder = recorder,
            Err(error) => self.stop(shared, store, error),
        }
    }

    /// Takes bytes of its resource.
    pub(crate) fn handle_bytes(&mut self, shared: &Shared, offset: u64, bytes: &[u8]) {
        let (Some(recorder), Some(store)) = (&self.recorder, &shared.store) else { return };
        // An entry has the body alone, also if that is a range of a larger resource.
        if let Err(error) = recorder.write(offset.saturating_sub(self.start), bytes) {
            self.stop(shared, store, error);
        }
    }

    /// The whole body has arrived.
    pub(crate) fn finish(&mut self, shared: &Shared) {
        if let (Some(recorder), Some(store)) = (self.recorder.take(), &shared.store) {
            recorder.finish(store);
        }
    }

    /// Reports once for each presentation that nothing more is stored.
    fn stop(&mut self, shared: &Shared, store: &HlsStore, error: Error) {
        self.recorder = None;
        // Relaxed: only a flag. Of two segments that fail at the same time one reports it.
        if store.is_full.swap(true, Ordering::Relaxed) {
            return;
        }
        let error = shared.locate(error);
        log::warn!("the rest of the presentation is not cached: {error}");
        if let Some(waker) = shared.link.waker() {
            waker.publish(&Event::CacheOff { error });
        }
    }
}
