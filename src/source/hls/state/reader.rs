//! What readers ask: sections and their bytes.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::State;
use super::planned::{ReadResult, SectionResult};
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::section::{Discontinuity, SectionBuffer};
use super::sections::Sections;
use crate::error::Error;
use crate::phase::Facts;
use crate::types::{Priority, RequestId};

/// Audio that is less than this apart is one range: playlists and media give times that differ by roundings, and no frame is longer.
const JOINED: Duration = Duration::from_millis(100);

impl State {
    pub(crate) fn read(&mut self, section: u64, buf: &mut [u8]) -> ReadResult {
        #[cfg(feature = "cache")]
        if let Some(error) = &self.outdated {
            return ReadResult::Failed(error.clone());
        }
        // A seek has dropped it, so its decoder comes to its end.
        let Some(index) = self.sections.buffers.iter().position(|known| known.id == section) else {
            return ReadResult::End;
        };
        let buffer = &mut self.sections.buffers[index];
        let got = buffer.read(buf);
        let (time, level) = (buffer.reader_time(), buffer.level_read());
        if got > 0 {
            self.sections.reader_time = time;
            self.sections.level = level.or(self.sections.level);
            self.sections.bytes_read += got as u64;
            self.sections.is_end_read = false;
            self.limit_kept();
            return ReadResult::Bytes(got);
        }
        if self.sections.buffers[index].is_closed {
            let is_last = section + 1 == self.sections.next_id;
            self.sections.is_end_read |= is_last && self.is_finished();
            return ReadResult::End;
        }
        match self.take_error() {
            Some(error) => ReadResult::Failed(error),
            None => ReadResult::Wait(self.promote()),
        }
    }

    /// Bytes that readers have read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.sections.bytes_read
    }

    pub(crate) fn next_section(&mut self) -> SectionResult {
        #[cfg(feature = "cache")]
        if let Some(error) = &self.outdated {
            return SectionResult::Failed(error.clone());
        }
        let handed = self.sections.handed;
        if let Some(section) = self.sections.buffers.iter().find(|section| section.id >= handed) {
            self.sections.handed = section.id + 1;
            self.sections.is_end_read = false;
            return SectionResult::Section(section.id, section.info.clone());
        }
        if self.is_finished() {
            let unplayed = self.take_unplayed();
            self.sections.is_end_read = unplayed.is_none();
            return unplayed.map_or(SectionResult::End, SectionResult::Failed);
        }
        match self.take_error() {
            Some(error) => SectionResult::Failed(error),
            None => SectionResult::Wait(self.promote()),
        }
    }

    /// A reader has come to the end of the presentation, and has not sought since.
    pub(crate) fn has_ended(&self) -> bool {
        self.sections.is_end_read
    }

    /// Why nothing was played at all up to the end. Once: without it the presentation would seem to be empty.
    fn take_unplayed(&mut self) -> Option<Error> {
        use Discontinuity::{Rendition, Seek, Start};
        let is_unplayed = matches!(self.sections.next_discontinuity, Some(Start | Seek | Rendition));
        let error = self.recovery.last_skip.take().filter(|_| is_unplayed)?;
        self.recovery.error = None;
        Some(error)
    }

    /// The running fetch that a reader waits for, if it has to become urgent.
    pub(crate) fn promote(&mut self) -> Option<RequestId> {
        let queued = self.queue.front_mut()?;
        // Before the segment, which can't be read without it.
        if let Some(request) = self.resources.promote(&queued.needs) {
            return Some(request);
        }
        let queued = Some(queued).filter(|queued| queued.priority == Priority::Low)?;
        // Without a number it is not promoted yet, and must stay low until then: it is promoted only once.
        let request = queued.request?;
        queued.priority = Priority::High;
        Some(request)
    }

    /// The reader of a section has ended. What it has not read belongs to the next section, unless one behind it was handed out. If it
    /// has read nothing, the section is not wanted and is skipped: else a program that can't play it would get it again and again.
    pub(crate) fn drop_section(&mut self, id: u64) {
        // Nothing is sought any more once the presentation is gone.
        let is_over = self.sections.handed == u64::MAX;
        let Sections { buffers, handed, next_discontinuity, .. } = &mut self.sections;
        if let Some(section) = buffers.iter_mut().find(|known| known.id == id) {
            let continues = *handed == id + 1 && section.is_begun();
            if continues && section.reopen() {
                *handed = id;
            } else {
                // Before it is closed for another reason than its end: the next one continues it, and can't be sought back from.
                let is_kept = section.is_closed && !is_over;
                if continues && !section.is_closed {
                    // All that has arrived was read. Another decoder needs a head, and may need another format.
                    section.is_closed = true;
                    next_discontinuity.get_or_insert(Discontinuity::Reopened);
                }
                if is_kept { section.release() } else { section.drop_reader() }
            }
        }
        self.forget_sections();
    }

    /// No section will be handed out any more: frees what is stored for those. What was handed out can be read to its end.
    pub(crate) fn drop_unread(&mut self) {
        let handed = std::mem::replace(&mut self.sections.handed, u64::MAX);
        let is_unneeded = |section: &&mut SectionBuffer| section.id >= handed || section.is_released();
        let unneeded = self.sections.buffers.iter_mut().filter(is_unneeded);
        unneeded.for_each(SectionBuffer::drop_reader);
        self.kept.clear();
    }

    /// Forgets sections whose readers have ended, but the last one.
    pub(crate) fn forget_sections(&mut self) {
        let last = self.sections.buffers.back().map(|section| section.id);
        self.sections.buffers.retain(|section| !section.is_over() || Some(section.id) == last);
    }

    /// What the encoder has added at the end of the presentation. `None` until that has arrived.
    pub(crate) fn padding(&self) -> Option<Duration> {
        self.sections.buffers.back().filter(|_| self.is_finished())?.padding()
    }

    /// The level of the audio that was read last, or of what will be read first.
    pub(crate) fn playing_level(&self) -> usize {
        let next = || self.sections.buffers.front().map(|section| section.info.level);
        self.sections.level.or_else(next).unwrap_or(self.level())
    }

    pub(crate) fn reader_time(&self) -> Duration {
        self.sections.reader_time
    }

    /// Audio from what the reader needs next up to this place in the playlist, which is behind all that was placed.
    ///
    /// The playlist may be wrong about the lengths of segments: its error would add up to a buffer that seems always full, or empty. A
    /// reader that has read all is before whatever is left out between that and the next segment: with its own time, a jump that is
    /// longer than the buffer would look like a full one.
    pub(super) fn ahead(&self, place: Duration) -> Duration {
        let has_read_all = self.sections.buffers.iter().all(|section| section.len() == 0);
        let next = self.queue.front().map_or(self.cursor, |queued| queued.start);
        let next = if has_read_all { self.clock.presentation_time(next) } else { Duration::ZERO };
        let way = self.clock.presentation_time(place).saturating_sub(next.max(self.reader_time()));
        way.saturating_sub(self.left_out(place, has_read_all))
    }

    /// How much is left out between what the reader needs next and this place in the playlist: nothing of it plays.
    fn left_out(&self, place: Duration, has_read_all: bool) -> Duration {
        let reader = self.reader_time();
        let ahead = |section: &&SectionBuffer| !section.is_begun() && section.info.start > reader;
        let placed = self.sections.buffers.iter().filter(ahead).map(|section| section.info.discontinuity);
        // A reader that has read all is behind the last gap.
        let last = self.sections.next_discontinuity.filter(|_| !has_read_all);
        let queued = self.queue.iter().filter(|queued| queued.start < place);
        let skipped = queued.clone().filter(|queued| queued.phase == SegmentPhase::Skipped);
        let missing = placed.chain(last).chain(queued.filter_map(|queued| queued.discontinuity));
        let missing = missing.map(|discontinuity| match discontinuity {
            Discontinuity::Gap(missing) | Discontinuity::Behind(missing) => missing,
            _ => Duration::ZERO,
        });
        let sum = |sum: Duration, missing| sum.saturating_add(missing);
        missing.chain(skipped.map(|queued| queued.segment.duration)).fold(Duration::ZERO, sum)
    }

    /// End of what was fetched without a gap.
    pub(crate) fn buffered(&self) -> Duration {
        let end = self
            .queue
            .iter()
            .find(|queued| queued.phase != SegmentPhase::Complete)
            .map_or(self.cursor, |queued| queued.start);
        self.ahead(end)
    }

    /// Presentation times of the audio that is there: what was read and is kept, what was not read, and segments behind a missing one or
    /// before a seek.
    pub(crate) fn buffered_ranges(&self) -> Vec<Range<Duration>> {
        let placed = self.sections.buffers.iter().filter_map(SectionBuffer::stored);
        // What has arrived of a segment that still arrives is placed, or waits for those before it.
        let complete = self.queue.iter().filter(|queued| queued.phase == SegmentPhase::Complete);
        let time = |place| self.clock.presentation_time(place);
        let waiting = complete.map(|queued| time(queued.start)..time(queued.end()));
        let mut known: Vec<Range<Duration>> = placed.chain(waiting).chain(self.kept_ranges()).collect();
        known.sort_unstable_by_key(|range| (range.start, range.end));
        let mut ranges: Vec<Range<Duration>> = Vec::new();
        for range in known.into_iter().filter(|range| !range.is_empty()) {
            match ranges.last_mut().filter(|last| range.start <= last.end + JOINED) {
                Some(last) => last.end = last.end.max(range.end),
                None => ranges.push(range),
            }
        }
        ranges
    }

    /// What the phase of the presentation depends on, as far as the state knows it.
    pub(crate) fn facts(&self) -> Facts {
        let is_fetching =
            |queued: &QueuedSegment| matches!(queued.phase, SegmentPhase::Fetching | SegmentPhase::Reloading);
        Facts {
            is_known: true,
            is_complete: self.is_finished(),
            has_failed: self.failure().is_some(),
            is_retrying: self.recovery.retrying.is_some(),
            // After a wake-up the next fetch is about to begin: between two segments nothing else shows it.
            is_fetching: self.queue.iter().any(is_fetching)
                || self.pending_playlist.is_some()
                || self.woken.is_some(),
            ..Facts::default()
        }
    }

    /// The error that stopped fetching, or that is being retried.
    pub(crate) fn last_error(&self) -> Option<&Error> {
        let retrying = self.recovery.retrying.as_ref().map(|retrying| &retrying.error);
        self.failure().or(retrying)
    }

    pub(crate) fn section(&self, id: u64) -> Option<&SectionBuffer> {
        self.sections.buffers.iter().find(|section| section.id == id)
    }

    /// True once after an outage, once after the reader has made room, once the next segment may be requested, and once when what
    /// waits for a worker becomes urgent: a segment, or a wake-up that the downloader has not followed yet.
    pub(crate) fn take_wake(&mut self, now: Instant) -> bool {
        self.last_poll = self.last_poll.max(Some(now));
        let is_over = self.end_outage(now);
        let waiting = self.queue.iter().position(|queued| queued.phase == SegmentPhase::Planned);
        let may_fetch = |index| self.may_fetch(index, now);
        let has_room = self.is_idle && waiting.map_or_else(|| self.has_room(now), may_fetch);
        if has_room {
            self.is_idle = false;
        }
        let urgent = waiting.filter(|index| self.priority_of(*index) > self.queue[*index].priority);
        if let Some(index) = urgent {
            self.queue[index].priority = Priority::High;
        }
        let is_late = self.woken == Some(Priority::Low) && self.next_priority() == Priority::High;
        is_over || has_room || urgent.is_some() || is_late
    }
}
