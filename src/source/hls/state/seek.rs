//! Seeks. Where the target lies in what is buffered, that stays, and nothing is fetched again:
//!
//! | the target lies in | what stays | what is dropped |
//! |---|---|---|
//! | a section, read or not | what is stored of it from that segment on, and all behind it | the sections before |
//! | the segment that arrives into the last section | the same | the sections before |
//! | a segment that has arrived, or arrives, behind that one | it, and all behind it | the sections, the segments before |
//! | something else | nothing | everything; segments that are [kept](super::kept) are not requested again |
//!
//! A section begins with a segment, or with a part of one, in any case, so that a decoder has the frames before the target that it
//! needs. If another section behind the target can't be read again from its begin, because its reader was dropped before its end or
//! has read more than is kept, everything is dropped.

use std::ops::Range;
use std::time::Duration;

use super::State;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::section::{Discontinuity, SectionBuffer};
use super::sections::Sections;
use crate::error::{Error, ErrorKind};
use crate::source::hls::ladder::levels::VariantStream;

/// What was read is kept for this part of [`HlsConfig::buffer`](crate::hls::HlsConfig::buffer): a listener seeks back by a few seconds,
/// and an application that has to use little memory has a short buffer.
const KEPT_PART: u32 = 4;

impl State {
    /// Continues at `target`. Returns the start of the segment there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`] if the playlist does not contain it, and it is not buffered.
    pub(crate) fn seek(&mut self, target: Duration) -> Result<Duration, Error> {
        let window = self.seekable();
        if target <= window.end && !self.is_better_wanted(target) {
            if let Some(start) = self.seek_in_buffer(target) {
                // Bytes of a chunk that was not read to its end count again after a seek back.
                self.limit_kept();
                return Ok(start);
            }
        }
        if target < window.start || target > window.end {
            return Err(out_of_window(target, window));
        }
        self.restart(target, Discontinuity::Seek);
        let timeline = self.timelines[self.variant].as_ref();
        let start = timeline.and_then(|timeline| timeline.start_of(timeline.sequence_at(target)));
        Ok(start.unwrap_or(target))
    }

    /// True if the target is buffered at a lower level than the one that the user has fixed.
    pub(super) fn is_better_wanted(&self, target: Duration) -> bool {
        let Some(wanted) = self.fixed_level() else { return false };
        let can_play = |variant: &VariantStream| {
            variant.rendition == self.rendition && variant.level == wanted && variant.excluded_until.is_none()
        };
        self.buffered_level(target).is_some_and(|level| level < wanted)
            && self.ladder.variants.iter().any(can_play)
    }

    /// Level of what is buffered at a presentation time.
    fn buffered_level(&self, time: Duration) -> Option<usize> {
        if let Some(section) = self.sections.buffers.iter().find(|section| section.end() > time) {
            return section.level_at(time);
        }
        let is_there = |queued: &&QueuedSegment| time < self.clock.presentation_time(queued.end());
        self.queue.iter().find(is_there).map(|queued| self.ladder.variants[queued.variant].level)
    }

    /// Continues at the live edge. Returns the start of the segment there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if it is not live: at its end nothing would be played.
    pub(crate) fn go_live(&mut self) -> Result<Duration, Error> {
        if !self.is_live() {
            return Err(Error::new(ErrorKind::Unsupported, "the presentation has an end, and no live edge"));
        }
        self.seek(self.seekable().end)
    }

    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`] if the application wants to start behind the end.
    pub(crate) fn check_start(&self) -> Result<(), Error> {
        let window = self.seekable();
        // A live stream starts at its edge then.
        let late = self.config.start.filter(|start| !self.is_live() && *start > window.end);
        late.map_or(Ok(()), |start| Err(out_of_window(start, window)))
    }

    /// Drops all that is buffered, and continues at `target`.
    pub(super) fn restart(&mut self, target: Duration, reason: Discontinuity) {
        self.queue.clear();
        self.discontinuity = None;
        self.drop_sections(reason);
        self.move_reader(target);
        self.cursor = target;
        self.forget_end();
        self.follows = None;
        self.is_starting = true;
        self.level_cap.clear();
        // Tried at once: something else may be there. In what is buffered the attempt that comes next is the same.
        self.recovery.outage = None;
        #[cfg(feature = "cache")]
        self.forget_offline();
    }

    /// Drops what is in sections. The next frame begins a section for this reason.
    fn drop_sections(&mut self, reason: Discontinuity) {
        self.sections.buffers.clear();
        self.sections.begins.clear();
        // Sections that were not handed out yet are gone.
        self.sections.handed = self.sections.next_id;
        self.clock.seek();
        (self.carried, self.sections.unjoined) = (None, None);
        self.sections.next_discontinuity = Some(reason);
        (self.sections.has_landed, self.sections.placed) = (false, None);
        self.replacements.clear();
    }

    /// Notes that the reader is at `target` now. The caller seeks again after an error, so fetching goes on.
    fn move_reader(&mut self, target: Duration) {
        self.sections.is_end_read = false;
        (self.sections.target, self.sections.reader_time) = (target, target);
        (self.recovery.error, self.recovery.stuck) = (None, None);
        (self.recovery.skipped, self.recovery.last_skip) = (0, None);
    }

    /// Continues at `target` with what is buffered. Returns the start of the segment there, or `None` if it is not buffered.
    fn seek_in_buffer(&mut self, target: Duration) -> Option<Duration> {
        self.seek_in_sections(target).or_else(|| self.seek_in_queue(target))
    }

    /// The same, in what was placed in sections, and in the segment that is being placed.
    fn seek_in_sections(&mut self, target: Duration) -> Option<Duration> {
        let last = self.sections.buffers.len().checked_sub(1)?;
        let known = self.sections.buffers.iter().position(|section| section.end() > target);
        let index = known.or_else(|| self.is_placed_into(target).then_some(last))?;
        let mut behind = self.sections.buffers.range(index + 1..);
        // Their readers may have begun, too. And one between them may be gone.
        let first = self.sections.buffers.get(index)?.id;
        if !behind.all(SectionBuffer::can_rewind)
            || self.sections.buffers.back()?.id - first != (last - index) as u64
        {
            return None;
        }
        let start = self.sections.buffers.get_mut(index)?.seek(target)?;
        self.sections.buffers.drain(..index);
        self.sections.buffers.iter_mut().skip(1).for_each(SectionBuffer::rewind);
        // Their old readers come to their ends, and they are handed out again.
        let Sections { buffers, next_id, handed, .. } = &mut self.sections;
        let first = buffers.front()?.id;
        let shift = *next_id - first;
        buffers.iter_mut().for_each(|section| section.id += shift);
        (*handed, *next_id) = (*next_id, *next_id + shift);
        self.replacements.renumber_sections(first, shift);
        self.move_reader(target);
        Some(start)
    }

    /// True if the rest of the segment that is being placed in the last section contains `target`.
    fn is_placed_into(&self, target: Duration) -> bool {
        // A segment that has failed since has another number.
        let placed = self.queue.front().filter(|queued| self.clock.is_placing(queued.id));
        let is_open = self.sections.buffers.back().is_some_and(|section| !section.is_closed);
        let is_in = |queued: &QueuedSegment| target < self.clock.presentation_time(queued.end());
        is_open && self.sections.next_discontinuity.is_none() && placed.is_some_and(is_in)
    }

    /// The same, in segments that have arrived, or arrive, and of which nothing was placed.
    fn seek_in_queue(&mut self, target: Duration) -> Option<Duration> {
        let index =
            self.queue.iter().position(|queued| target < self.clock.presentation_time(queued.end()))?;
        let queued = &self.queue[index];
        let (start, phase) = (queued.start, queued.phase);
        let is_whole = !queued.is_hinted() && !self.clock.is_placing(queued.id);
        let is_there = matches!(phase, SegmentPhase::Fetching | SegmentPhase::Complete);
        // By the playlist as well, which places a segment that is sought: what wrong durations add up to would lead into another one.
        let is_in = target >= self.clock.presentation_time(start) && (start..queued.end()).contains(&target);
        if !is_there || !is_whole || !is_in {
            return None;
        }
        self.queue.drain(..index);
        self.drop_sections(Discontinuity::Seek);
        self.move_reader(target);
        self.is_starting = phase != SegmentPhase::Complete;
        self.commit();
        Some(start)
    }

    /// How long audio is kept after it was read.
    pub(super) fn kept_for(&self) -> Duration {
        self.config.buffer / KEPT_PART
    }

    /// Drops audio that was read, as far as it has no room beside what was not.
    pub(super) fn limit_kept(&mut self) {
        let now = self.sections.reader_time;
        self.sections.buffers.iter_mut().for_each(|section| section.age(now));
        let mut room = self.config.buffer_bytes.saturating_sub(self.buffered_bytes());
        // The last sections are the nearest ones to the reader.
        for section in self.sections.buffers.iter_mut().rev() {
            section.limit_kept(room);
            room -= section.kept();
        }
        self.forget_sections();
        self.limit_segments(room);
    }

    /// True if segments are fetched, or may be: a seek has kept them.
    pub(crate) fn has_segments(&self) -> bool {
        !self.queue.is_empty() || self.replacements.is_running()
    }
}

pub(super) fn out_of_window(target: Duration, window: Range<Duration>) -> Error {
    let Range { start, end } = window;
    let why = format!("can't seek to {target:?}: the playlist contains {start:?} to {end:?}");
    Error::new(ErrorKind::OutOfWindow, why)
}
