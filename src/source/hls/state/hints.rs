//! Preload hints (section 4.4.5.3): the next part of a low-latency stream is requested before its playlist lists it.
//!
//! The server holds the request until the part is there. So the part arrives as soon as it is produced, and not a reload of
//! the playlist and a request later.

use std::sync::Arc;
use std::time::Instant;

use super::State;
use super::needs::{ResourceKey, needs_of};
use super::planned::{Hinted, HintedPart};
use super::queued_segment::{Hint, QueuedSegment, SegmentPhase};
use crate::error::Error;
use crate::source::hls::playlist::{Map, MediaPlaylist, PreloadHint, Segment};
use crate::source::hls::timeline::{PlaylistPosition, TimedSegment, Timeline};
use crate::types::Priority;

impl State {
    /// What to request now. Each hint is returned once.
    pub(crate) fn poll_hint(&mut self, now: Instant) -> Option<Hinted> {
        if self.has_stopped() || self.is_out(now) {
            return None;
        }
        let map = self.poll_hinted_map(now).map(Hinted::Map);
        map.or_else(|| self.poll_hinted_part(now).map(|part| Hinted::Part(Box::new(part))))
    }

    /// The initialization section that segments will soon need. It is the one of the first hint of its type (section 6.3.8).
    fn poll_hinted_map(&mut self, now: Instant) -> Option<ResourceKey> {
        let timeline = self.timelines[self.variant].as_ref()?;
        let hint = timeline.list.preload_hints.iter().find(|hint| hint.is_map)?;
        let next = timeline.list.incomplete.as_deref()?;
        // Section 4.4.4.4: a key applies to all that follows it, up to the next key.
        let map = Map { uri: hint.uri.clone(), byte_range: hint.byte_range, keys: next.keys.clone() };
        let segment = Segment { map: Some(Arc::new(map)), ..next.clone() };
        // The number matters for the initialization vector of a segment only: a MAP has an explicit one (section 4.4.4.5).
        let needs = needs_of(&segment, timeline.list.end_sequence(), &timeline.url, self.policy).ok()?;
        let key = needs.init.filter(|key| self.hinted_map.as_ref() != Some(key))?;
        self.hinted_map = Some(key.clone());
        self.resources.start(&key, Priority::High, now).then_some(key)
    }

    /// The request for a hinted initialization section has failed. Segments that need it request it again.
    pub(crate) fn handle_hinted_map_failed(&mut self, key: &ResourceKey, error: &Error, now: Instant) {
        let is_needed = self.queue.iter().any(|queued| queued.needs.resources().any(|need| need == *key));
        if is_needed {
            self.handle_resource_failed(key, error, now);
        } else {
            log::debug!("a hinted initialization section could not be fetched: {error}");
            self.resources.remove(key);
        }
    }

    /// The part to request now, if the reader has got to the live edge and the playlist hints at what follows.
    fn poll_hinted_part(&mut self, now: Instant) -> Option<HintedPart> {
        if self.queue.iter().any(QueuedSegment::is_hinted) {
            return None;
        }
        let is_waiting =
            |queued: &QueuedSegment| !matches!(queued.phase, SegmentPhase::Fetching | SegmentPhase::Complete);
        if self.queue.iter().any(is_waiting) || !self.ladder.variants[self.variant].is_usable(now) {
            return None;
        }
        let timeline = self.timelines[self.variant].as_ref()?;
        let (hinted, timed) = hinted_segment(timeline)?;
        // The position behind the last part of a segment is the next segment's first one, once the segment is complete.
        let (_, position) = self.follows.filter(|(variant, _)| *variant == self.variant)?;
        if timeline.normalize(position) != hinted || self.refused_hint == Some((self.variant, hinted)) {
            return None;
        }
        let needs = needs_of(&timed.segment, position.sequence, &timeline.url, self.policy).ok()?;
        // Without them the part could not be decoded when it arrives.
        if needs.resources().any(|key| self.resources.ready(&key).is_none()) {
            return None;
        }
        let url = self.policy.resolve(&timeline.url, timed.segment.uri.expose()).ok()?;
        let range = timed.segment.byte_range;
        self.cursor = timed.start + timed.segment.duration;
        self.follows = Some((self.variant, timed.next));
        self.push_segment(position, timed, SegmentPhase::Fetching);
        let queued = self.queue.back_mut()?;
        (queued.needs, queued.priority) = (needs.clone(), Priority::High);
        queued.hint = Some(Hint::Unlisted { is_answered: false });
        Some(HintedPart { id: queued.id, url, range, needs })
    }

    /// The request for a hinted part has failed, or the hint was wrong. What the playlist lists in its place is fetched as any
    /// other part.
    pub(crate) fn handle_hint_failed(&mut self, id: u64, error: &Error) {
        log::debug!("a preload hint was of no use: {error}");
        let Some(index) = self.queue.iter().position(|known| known.id == id) else { return };
        if !self.queue[index].is_hinted() {
            // Its playlist lists it by now.
            self.plan_again(id);
            return;
        }
        let queued = &self.queue[index];
        let timeline = self.timelines[queued.variant].as_ref();
        // Once: the same request would fail again at once.
        self.refused_hint = timeline.map(|timeline| (queued.variant, timeline.normalize(queued.position)));
        self.drop_hint(index);
        self.commit();
    }

    /// True if the part of a preload hint is still needed.
    pub(crate) fn needs_hint(&self, id: u64) -> bool {
        self.queue.iter().any(|known| known.id == id)
    }

    /// A new version of the playlist of `variant` lists what was hinted at, or something else.
    pub(super) fn check_hints(&mut self, variant: usize, timeline: &Timeline) {
        self.drop_unanswered_hint(variant);
        let is_of = |queued: &QueuedSegment| queued.is_hinted() && queued.variant == variant;
        let Some(index) = self.queue.iter().position(is_of) else { return };
        let queued = &mut self.queue[index];
        match timeline.segment_at(queued.position) {
            Some(timed) if is_same(&queued.segment, &timed.segment) => {
                let is_answered = queued.hint == Some(Hint::Unlisted { is_answered: true });
                queued.hint = (!is_answered).then_some(Hint::Listed);
                (queued.start, queued.next) = (timed.start, timed.next);
                queued.segment = timed.segment;
                // Nothing was planned behind it by its estimated duration. So the plan goes on at its real end.
                if index + 1 == self.queue.len() {
                    let queued = &self.queue[index];
                    (self.cursor, self.follows) =
                        (queued.start + queued.segment.duration, Some((queued.variant, queued.next)));
                }
                let queued = &self.queue[index];
                if queued.phase == SegmentPhase::Complete {
                    self.handle_size(queued.id);
                }
            }
            // Section 6.3.8: a hint that has vanished, or was replaced, is given up.
            None if hinted_segment(timeline)
                .is_some_and(|(_, timed)| is_same(&queued.segment, &timed.segment)) => {}
            _ => self.drop_hint(index),
        }
    }

    /// The server has begun to send the part of a hint.
    pub(crate) fn handle_hint_answered(&mut self, id: u64) {
        if let Some(queued) = self.queued(id) {
            let is_hinted = queued.is_hinted();
            queued.hint = is_hinted.then_some(Hint::Unlisted { is_answered: true });
        }
    }

    /// A part that an earlier version of the playlist lists already, and that the server still holds back, is fetched like any
    /// other: the request for the hint may have been lost.
    fn drop_unanswered_hint(&mut self, variant: usize) {
        let is_late =
            |queued: &&QueuedSegment| queued.variant == variant && queued.hint == Some(Hint::Listed);
        if let Some(id) = self.queue.iter().find(is_late).map(|queued| queued.id) {
            self.plan_again(id);
        }
    }

    /// Drops the part that was hinted at before another variant is used. Only the playlist in use is loaded again, so the other one
    /// would never list the part, and nothing after it would be played.
    pub(super) fn drop_hinted(&mut self) {
        if let Some(index) = self.queue.iter().position(|queued| queued.hint.is_some()) {
            self.drop_hint(index);
        }
    }

    /// Drops the segment of a hint and all behind it, and continues in its place.
    fn drop_hint(&mut self, index: usize) {
        let queued = &self.queue[index];
        let start = queued.start;
        (self.cursor, self.follows) = (start, Some((queued.variant, queued.position)));
        self.retain_segments(|queued| queued.start < start);
    }
}

/// The part that the playlist hints at: it follows the last one.
fn hinted_segment(timeline: &Timeline) -> Option<(PlaylistPosition, TimedSegment)> {
    let list: &MediaPlaylist = &timeline.list;
    let hint: &PreloadHint = list.preload_hints.iter().find(|hint| !hint.is_map)?;
    let position = PlaylistPosition { sequence: list.end_sequence(), part: list.parts.len() };
    let segment = Segment {
        uri: hint.uri.clone(),
        // A hint has no duration (section 4.4.5.3), and no part is longer than this one (section 4.4.4.9).
        duration: list.part_target?,
        byte_range: hint.byte_range,
        is_gap: false,
        parts: Vec::new(),
        ..list.incomplete.as_deref()?.clone()
    };
    let next = PlaylistPosition { part: position.part + 1, ..position };
    Some((position, TimedSegment { segment, start: timeline.edge(), next }))
}

/// A hint may leave the end of its range open.
fn is_same(hinted: &Segment, listed: &Segment) -> bool {
    let start = |segment: &Segment| segment.byte_range.map(|range| range.start);
    let is_decoded_alike = (&hinted.map, &hinted.keys) == (&listed.map, &listed.keys);
    hinted.uri == listed.uri && start(hinted) == start(listed) && is_decoded_alike
}
