//! Drops what is buffered, so that a level that was chosen by hand is heard soon. What the reader is about to need stays, and what
//! follows joins it: the same section goes on, as at any change of the level.

use std::time::Duration;

use super::State;
use super::section::{Discontinuity, SectionBuffer};
use crate::error::Error;

/// At least this much audio stays: a request and the first bytes of its answer take no longer on most networks.
const LEAST: Duration = Duration::from_secs(1);

/// Another level may begin its segment a little later. Without this the segment before would be fetched again, and left out.
pub(super) const TOLERANCE: Duration = Duration::from_millis(100);

impl State {
    /// Drops the segments that are behind the reader by [`LEAST`] or more. Returns the presentation time from which on audio is fetched
    /// again, or for the first time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`](crate::ErrorKind::OutOfWindow) if the playlist has what is buffered no more.
    pub(crate) fn drop_buffered(&mut self) -> Result<Duration, Error> {
        // Of a section that was opened in advance something may be read, too.
        let begun = self.sections.buffers.iter().filter(|section| section.is_begun());
        let read = begun.map(SectionBuffer::reader_time).fold(self.reader_time(), Duration::max);
        let from = read.saturating_add(LEAST);
        let mut begins = self.sections.begins.iter().map(|begin| (begin.time, begin.start));
        let begin = begins.find(|(time, _)| *time >= from);
        let (time, start) = match begin.or_else(|| self.first_waiting(from)) {
            Some(found) => found,
            None => return Ok(self.clock.presentation_time(self.cursor)),
        };
        let window = self.seekable();
        if start < window.start {
            return Err(super::seek::out_of_window(time, window));
        }
        if begin.is_some() {
            self.cut_sections(time);
        } else {
            self.keep_shared(start);
        }
        let dropped: usize = self
            .queue
            .iter()
            .filter(|queued| queued.start >= start)
            .map(|queued| queued.output.data.len())
            .sum();
        self.replacements.bytes_dropped += dropped as u64;
        self.retain_segments(|queued| queued.start < start);
        self.replacements.clear();
        self.cursor = start.saturating_add(self.tolerance_at(start));
        // As after a seek: a level that the user has fixed is waited for, if its playlist is not there yet.
        self.follows = None;
        self.forget_end();
        #[cfg(feature = "cache")]
        self.forget_offline();
        Ok(time)
    }

    /// How far behind `start` the segment that begins there is looked for: inside of it, also if it is short, as the last one may be.
    fn tolerance_at(&self, start: Duration) -> Duration {
        let timed = self.timeline().and_then(|timeline| timeline.segment_at(timeline.position_at(start)));
        timed.map_or(TOLERANCE, |timed| TOLERANCE.min(timed.segment.duration / 2))
    }

    /// Presentation time and start in the playlist of the first segment from `from` on of which nothing was placed.
    fn first_waiting(&self, from: Duration) -> Option<(Duration, Duration)> {
        let waiting = self.queue.iter().filter(|queued| !self.clock.is_placing(queued.id));
        let times = waiting.map(|queued| (self.clock.presentation_time(queued.start), queued.start));
        times.into_iter().find(|(time, _)| *time >= from)
    }

    /// Takes the frames from `time` on, where a segment begins, out of the sections.
    fn cut_sections(&mut self, time: Duration) {
        let sections = &mut self.sections;
        let is_behind = |section: &&mut SectionBuffer| section.info.start >= time && !section.is_begun();
        let (mut reason, mut end) = (None, time);
        while let Some(section) = sections.buffers.back_mut().filter(is_behind) {
            // The number is given again only if no reader has it.
            if sections.handed <= section.id {
                sections.next_id = section.id;
            }
            reason = Some(section.info.discontinuity);
            self.replacements.bytes_dropped += section.len() as u64;
            sections.buffers.pop_back();
        }
        if let Some(section) = sections.buffers.back_mut() {
            let dropped = section.cut(time);
            self.replacements.bytes_dropped += dropped.unwrap_or_default() as u64;
            if dropped.is_some() {
                // What follows continues this section, and not the ones behind it.
                reason = section.is_closed.then_some(Discontinuity::Reopened);
                // Not the begin of what is dropped: that may lack a frame which another level has.
                end = section.end();
            }
        }
        // What was to follow is placed again, with its own reasons.
        sections.next_discontinuity = reason;
        let first = sections.begins.partition_point(|begin| begin.time < time);
        // What follows may continue the frame that what is dropped has not continued.
        self.carried = sections.begins.drain(first..).next().and_then(|begin| begin.unjoined);
        (sections.placed, sections.unjoined, self.discontinuity) = (None, None, None);
        self.clock.drop_from(end);
    }
}
