//! A segment to play, from the plan to its last frame.

use std::time::{Duration, Instant};

use url::Url;

use super::arriving::{Arriving, Requested};
use super::needs::{Needs, Undemuxed};
use super::section::Discontinuity;
use crate::source::hls::demux::{Frame, Gapless, Output};
use crate::source::hls::playlist::Segment;
use crate::source::hls::timeline::{PlaylistPosition, TimedSegment};
use crate::types::{Priority, RequestId};

/// A segment to play.
#[derive(Debug)]
pub(crate) struct QueuedSegment {
    pub(crate) id: u64,
    pub(crate) variant: usize,
    pub(crate) position: PlaylistPosition,
    /// What follows it in its playlist.
    pub(crate) next: PlaylistPosition,
    pub(crate) start: Duration,
    pub(crate) segment: Segment,
    pub(crate) needs: Needs,
    pub(crate) phase: SegmentPhase,
    pub(crate) request: Option<RequestId>,
    pub(crate) priority: Priority,
    /// Frames that wait for the segments before.
    pub(crate) output: Output,
    /// All that has arrived, to be kept. `None` if it is kept already, or if there is no room for it.
    pub(super) copy: Option<Output>,
    /// The beginning of a frame that ends in the next segment.
    pub(crate) tail: Vec<u8>,
    /// The end of that frame, if the next segment had arrived and was dropped.
    pub(super) dropped_head: Vec<u8>,
    /// What the encoder has added to the audio that begins with it, if it says so.
    pub(super) gapless: Option<Gapless>,
    /// How much of its last decoded audio the encoder has added.
    pub(super) padding: Duration,
    /// How often its playlist was loaded again because of it.
    pub(crate) reloads: u32,
    /// Playlists requested before it failed: what they bring may have expired as well.
    pub(crate) requested_before: u64,
    /// A URL from the application, in place of one that was refused, for the next attempt.
    pub(crate) fresh: Option<Url>,
    /// The application has given a fresh URL before.
    pub(crate) is_refreshed: bool,
    /// When it failed first.
    pub(crate) failing_since: Option<Instant>,
    /// It is fetched by a preload hint, and the server has not answered.
    pub(super) hint: Option<Hint>,
    /// Its playlist has come while it was fetched by URLs of the stored one.
    #[cfg(feature = "cache")]
    pub(crate) is_renewed: bool,
    pub(crate) undemuxed: Option<Undemuxed>,
    /// Why it does not continue what is played before it, if the plan knows.
    pub(super) discontinuity: Option<Discontinuity>,
    /// The server has it no more: it had left the window of a live playlist when it was skipped.
    pub(super) has_left: bool,
    /// Until its response headers arrive. `None` of a preload hint, which the server holds back until there is something to send.
    pub(super) requested: Option<Requested>,
    /// While its body arrives.
    pub(super) arriving: Option<Arriving>,
    /// Bytes that have arrived.
    pub(super) received: u64,
    /// It is a segment: frames of it have arrived.
    pub(super) has_frames: bool,
    /// Its size counts for the bitrate of its level.
    pub(super) is_counted: bool,
}

/// How far the playlist of a segment is that is fetched by a preload hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// It does not list the segment yet.
    Unlisted { is_answered: bool },
    /// It lists the segment, so the server should have answered.
    Listed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentPhase {
    Planned,
    Fetching,
    /// Waits until its playlist was loaded again.
    Reloading,
    Complete,
    /// Nothing of it will be played.
    Skipped,
}

impl QueuedSegment {
    /// A segment, or a part of one, of the playlist of a variant.
    pub(super) fn new(
        id: u64,
        variant: usize,
        position: PlaylistPosition,
        timed: TimedSegment,
        phase: SegmentPhase,
    ) -> Self {
        let TimedSegment { segment, start, next } = timed;
        Self {
            id,
            variant,
            position,
            next,
            start,
            segment,
            needs: Needs::default(),
            phase,
            request: None,
            priority: Priority::Low,
            output: Output::default(),
            copy: Some(Output::default()),
            received: 0,
            has_frames: false,
            is_counted: false,
            tail: Vec::new(),
            dropped_head: Vec::new(),
            gapless: None,
            padding: Duration::ZERO,
            reloads: 0,
            requested_before: 0,
            fresh: None,
            is_refreshed: false,
            failing_since: None,
            hint: None,
            #[cfg(feature = "cache")]
            is_renewed: false,
            undemuxed: None,
            discontinuity: None,
            has_left: false,
            requested: None,
            arriving: None,
        }
    }

    /// Where it ends in its playlist.
    pub(super) fn end(&self) -> Duration {
        self.start.saturating_add(self.segment.duration)
    }

    /// Its playlist does not list it yet.
    pub(crate) fn is_hinted(&self) -> bool {
        matches!(self.hint, Some(Hint::Unlisted { .. }))
    }

    /// Takes what has arrived. Leaves `output` empty.
    pub(super) fn take(&mut self, output: &mut Output) {
        self.has_frames |= !output.frames.is_empty();
        if let Some(copy) = &mut self.copy {
            copy.extend(output);
        }
        self.output.data.append(&mut output.data);
        self.output.frames.append(&mut output.frames);
        self.output.head.append(&mut output.head);
        self.tail.append(&mut output.tail);
        // The delay comes with the first frames and not again. The padding is known better with each call.
        (self.gapless, self.padding) = (self.gapless.or(output.gapless), output.padding);
        output.clear();
    }

    /// Memory of the frames that wait for preceding segments, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.output.data.len() + self.output.frames.len() * size_of::<Frame>()
    }

    /// When its progress has to be checked, while it is being fetched.
    pub(super) fn next_check(&self) -> Option<Instant> {
        let requested = self.requested.map(|requested| requested.check);
        let check = self.arriving.map(|arriving| arriving.next_check()).or(requested);
        check.filter(|_| self.phase == SegmentPhase::Fetching)
    }

    /// When something of it has arrived last, or when it was requested. `None` if it is not being fetched, and of a preload hint.
    pub(super) fn last_progress(&self) -> Option<Instant> {
        let requested = self.requested.map(|requested| requested.at);
        let last = self.arriving.map(|arriving| arriving.last).or(requested);
        last.filter(|_| self.phase == SegmentPhase::Fetching)
    }

    /// Drops what has arrived, to request it again.
    pub(crate) fn plan_again(&mut self) {
        // A fresh URL of the application is for one attempt only.
        (self.request, self.undemuxed, self.fresh) = (None, None, None);
        (self.requested, self.arriving) = (None, None);
        (self.hint, self.gapless, self.padding) = (None, None, Duration::ZERO);
        (self.received, self.has_frames, self.is_counted) = (0, false, false);
        self.output.clear();
        self.copy = Some(Output::default());
        self.tail.clear();
        self.phase = SegmentPhase::Planned;
    }
}
