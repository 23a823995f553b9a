//! Segments that have arrived, as frames, by their places in the playlists.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::source::hls::demux::{Frame, Output};
use crate::source::hls::playlist::Segment;
use crate::source::hls::timeline::PlaylistPosition;

/// Which segment it is, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) start: Duration,
    pub(super) variant: usize,
    pub(super) position: PlaylistPosition,
}

#[derive(Debug)]
pub(super) struct KeptSegment {
    pub(super) segment: Segment,
    pub(super) output: Output,
}

impl KeptSegment {
    fn memory(&self) -> usize {
        output_memory(&self.output) + self.segment.uri.expose().len() + size_of::<(Place, Self)>()
    }

    /// True if the playlist still has the same segment at its place. A query that changes is a token.
    fn is(&self, segment: &Segment) -> bool {
        let known = &self.segment;
        known.uri.path() == segment.uri.path()
            && (known.byte_range, known.duration, known.discontinuity_sequence)
                == (segment.byte_range, segment.duration, segment.discontinuity_sequence)
    }
}

#[derive(Debug, Default)]
pub(super) struct KeptSegments {
    pub(super) segments: BTreeMap<Place, KeptSegment>,
    /// Of all of them, in bytes.
    memory: usize,
}

impl KeptSegments {
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn insert(&mut self, place: Place, kept: KeptSegment) {
        self.memory += kept.memory();
        let old = self.segments.insert(place, kept);
        self.memory -= old.map_or(0, |old| old.memory());
    }

    pub(super) fn get(&self, place: Place, segment: &Segment) -> Option<&Output> {
        self.segments.get(&place).filter(|kept| kept.is(segment)).map(|kept| &kept.output)
    }

    /// Drops segments until they have at most so many bytes: those before `reader` first, and of both the farthest ones first.
    pub(super) fn limit(&mut self, most: usize, reader: Duration) {
        while self.memory > most {
            let first = self.segments.first_key_value();
            let is_behind = first
                .is_some_and(|(place, kept)| place.start.saturating_add(kept.segment.duration) <= reader);
            let dropped = if is_behind { self.segments.pop_first() } else { self.segments.pop_last() };
            let Some((_, dropped)) = dropped else { return };
            self.memory -= dropped.memory();
        }
    }

    /// Drops segments that begin before `start`.
    pub(super) fn forget_before(&mut self, start: Duration) {
        while let Some(first) = self.segments.first_entry().filter(|first| first.key().start < start) {
            self.memory -= first.remove().memory();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Memory of what has arrived of a segment, in bytes.
pub(super) fn output_memory(output: &Output) -> usize {
    let bytes = output.data.capacity() + output.head.capacity() + output.tail.capacity();
    bytes + output.frames.capacity() * size_of::<Frame>()
}
