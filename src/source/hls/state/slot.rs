//! A segment to play, from the plan to its last frame.

use std::time::{Duration, Instant};

use url::Url;

use super::needs::{Needs, Undemuxed};
use crate::source::hls::demux::{Frame, Output};
use crate::source::hls::playlist::Segment;
use crate::source::hls::section::Discontinuity;
use crate::source::hls::timeline::{Piece, Place};
use crate::types::{Priority, RequestId};

/// A segment to play.
#[derive(Debug)]
pub(in super::super) struct Slot {
    pub(in super::super) id: u64,
    pub(in super::super) mirror: usize,
    pub(in super::super) place: Place,
    /// What follows it in its playlist.
    pub(in super::super) next: Place,
    pub(in super::super) start: Duration,
    pub(in super::super) segment: Segment,
    pub(in super::super) needs: Needs,
    pub(in super::super) phase: SlotPhase,
    pub(in super::super) request: Option<RequestId>,
    pub(in super::super) priority: Priority,
    /// Frames that wait for the slots before.
    pub(in super::super) output: Output,
    /// The beginning of a frame that ends in the next slot.
    pub(in super::super) tail: Vec<u8>,
    /// How often its playlist was loaded again because of it.
    pub(in super::super) reloads: u32,
    /// Playlists requested before it failed: what they bring may have expired as well.
    pub(in super::super) requested_before: u64,
    /// A URL from the application, in place of one that was refused, for the next attempt.
    pub(in super::super) fresh: Option<Url>,
    /// The application has given a fresh URL before.
    pub(in super::super) is_refreshed: bool,
    /// When it failed first.
    pub(in super::super) failing_since: Option<Instant>,
    /// It is fetched by a preload hint: its playlist does not list it yet.
    pub(in super::super) is_hinted: bool,
    pub(in super::super) undemuxed: Option<Undemuxed>,
    /// Why it does not continue what is played before it, if the plan knows.
    pub(super) discontinuity: Option<Discontinuity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum SlotPhase {
    Planned,
    Fetching,
    /// Waits until its playlist was loaded again.
    Reloading,
    Complete,
    /// Nothing of it will be played.
    Skipped,
}

impl Slot {
    /// A slot for a piece of the playlist of a mirror.
    pub(super) fn new(id: u64, mirror: usize, place: Place, piece: Piece, phase: SlotPhase) -> Self {
        let Piece { segment, start, next } = piece;
        Self {
            id,
            mirror,
            place,
            next,
            start,
            segment,
            needs: Needs::default(),
            phase,
            request: None,
            priority: Priority::Low,
            output: Output::default(),
            tail: Vec::new(),
            reloads: 0,
            requested_before: 0,
            fresh: None,
            is_refreshed: false,
            failing_since: None,
            is_hinted: false,
            undemuxed: None,
            discontinuity: None,
        }
    }

    /// Memory of the frames that wait for preceding slots, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.output.data.len() + self.output.frames.len() * size_of::<Frame>()
    }

    /// Drops what has arrived, to request it again.
    pub(in super::super) fn plan_again(&mut self) {
        (self.request, self.undemuxed, self.fresh) = (None, None, None);
        self.output.clear();
        self.tail.clear();
        self.phase = SlotPhase::Planned;
    }
}
