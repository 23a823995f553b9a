//! From segments to sections: frames get their times and their place in what is read.

use std::time::{Duration, SystemTime};

use super::State;
use super::queued_segment::{QueuedSegment, SegmentPhase};
use super::section::{Discontinuity, PlacedFrame, SectionBuffer, SectionInfo};
use super::sections::CarriedFrame;
use crate::media::AudioCodec;
use crate::source::hls::demux::{Frame, Output, join};
use crate::source::hls::timeline::clock::Placement;

/// What places the frames of a segment in time.
#[derive(Clone, Copy, Debug)]
struct SegmentTime {
    id: u64,
    start: Duration,
    discontinuity: u64,
}

impl SegmentTime {
    fn of(queued: &QueuedSegment) -> Self {
        let discontinuity = queued.segment.discontinuity_sequence;
        Self { id: queued.id, start: queued.start, discontinuity }
    }
}

/// Whether a segment has the whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Own,
    /// The border of two segments cuts it.
    Shared,
}

/// How much of the audio from this frame on lies before the presentation, which begins at the media time 0.
fn encoder_delay(frame: &Frame, time: Duration) -> Duration {
    let before = frame.time.filter(|media| *media < 0 && time.is_zero());
    Duration::from_nanos(before.map_or(0, i64::unsigned_abs))
}

impl State {
    /// Moves the frames of the first segments into sections.
    pub(crate) fn commit(&mut self) {
        self.land_earlier();
        while let Some(queued) = self.queue.front_mut() {
            if queued.is_hinted() {
                // Its key and its initialization section are known once its playlist lists it.
                return;
            }
            let output = std::mem::take(&mut queued.output);
            let (reason, phase, start, end) =
                (queued.discontinuity.take(), queued.phase, queued.start, queued.end());
            if let Some(reason) = reason {
                self.note_discontinuity(reason, start);
            }
            if phase == SegmentPhase::Skipped {
                self.commit_gap();
                self.queue.pop_front();
                continue;
            }
            if !output.frames.is_empty() {
                self.place(&output);
            }
            // Frames of those behind it wait, however many have arrived: each is placed where the one before it ends.
            if phase != SegmentPhase::Complete {
                return;
            }
            self.place_shared_with_dropped();
            let Some(queued) = self.queue.pop_front() else { return };
            self.clock.end_segment(end);
            self.replacements.handle_placed(&queued);
            if let Some(section) = self.sections.buffers.back_mut().filter(|_| !queued.padding.is_zero()) {
                section.padding = queued.padding;
            }
            self.carried =
                Some((queued.variant, queued.next, queued.tail)).filter(|(_, _, tail)| !tail.is_empty());
        }
        if self.is_finished() {
            self.close_section();
        }
    }

    /// The next frame does not continue the last one for this reason. It plays at `until`, if what is missing before it is known.
    fn note_discontinuity(&mut self, reason: Discontinuity, until: Duration) {
        use Discontinuity::{Behind, Gap, Reopened, Seek};
        let target = self.sections.target;
        let known = self.sections.next_discontinuity.take();
        self.sections.next_discontinuity = Some(match (known, reason) {
            (None | Some(Reopened), reason) => reason,
            (Some(Gap(before)), Gap(missing)) => Gap(before.saturating_add(missing)),
            // What was skipped at the beginning of what has left the window, or behind it.
            (Some(Gap(before) | Behind(before)), Behind(missing)) | (Some(Behind(before)), Gap(missing)) => {
                Behind(before.saturating_add(missing))
            }
            (Some(Gap(_)), reason) => reason,
            // What was sought has left the window of a live playlist.
            (Some(Seek), Behind(_)) if until > target => Behind(until.saturating_sub(target)),
            // A seek, or a start, is the better reason: what is left out after it is not heard.
            (Some(better), _) => better,
        });
    }

    /// Leaves out the first segment.
    fn commit_gap(&mut self) {
        let Some(queued) = self.queue.front() else { return };
        let (missing, end, has_left) = (queued.segment.duration, queued.end(), queued.has_left);
        if self.sections.buffers.iter().all(|section| section.len() == 0) {
            // Nothing is left to read before the gap. Without this a gap that is longer than the buffer would fill it.
            self.sections.reader_time = self.sections.reader_time.max(end);
        }
        // What follows begins later than the target because of the gap: no segment before it is missing.
        self.sections.has_landed = true;
        self.close_section();
        self.clock.skip(end);
        let reason = if has_left { Discontinuity::Behind(missing) } else { Discontinuity::Gap(missing) };
        self.note_discontinuity(reason, end);
    }

    /// Puts frames of the first segment into the last section, or into a new one.
    fn place(&mut self, output: &Output) {
        let Some(queued) = self.queue.front() else { return };
        let at = SegmentTime::of(queued);
        self.clock.set_length(queued.segment.duration);
        if at.start.is_zero() {
            self.clock.begin(queued.gapless.map_or(Duration::ZERO, |gapless| gapless.delay));
        }
        if self.place_joined(&output.head) {
            // The time of the segment may be that of its first byte, which is inside of this frame.
            self.clock.follow();
        }
        let mut data = output.data.as_slice();
        for frame in &output.frames {
            let (bytes, rest) = data.split_at(frame.len);
            data = rest;
            self.place_frame(at, Share::Own, frame, bytes);
        }
    }

    /// Places the frame that ends with the `head` of the first segment, if the segment before has its beginning.
    fn place_joined(&mut self, head: &[u8]) -> bool {
        let joined = self.join(head);
        joined.is_some_and(|(frame, bytes)| self.place_shared(&frame, &bytes))
    }

    /// Places the frame that begins at the end of the first segment, if the one behind has arrived and was dropped.
    fn place_shared_with_dropped(&mut self) {
        let Some(queued) = self.queue.front_mut() else { return };
        if let Some((frame, bytes)) = join(&queued.tail, &std::mem::take(&mut queued.dropped_head)) {
            queued.tail.clear();
            self.place_shared(&frame, &bytes);
        }
    }

    /// Places a frame that the first segment shares with another one. Neither can be replaced then.
    fn place_shared(&mut self, frame: &Frame, bytes: &[u8]) -> bool {
        let Some(queued) = self.queue.front() else { return false };
        let at = SegmentTime::of(queued);
        self.place_frame(at, Share::Shared, frame, bytes);
        self.clock.handle_shared();
        self.replacements.handle_cut(at.id);
        true
    }

    /// The segments from `start` on are about to be dropped. Keeps the end of a frame that begins in the segment before: no segment of
    /// another level has it, and to the segment itself it is lost once it is requested again without the one before.
    pub(super) fn keep_shared(&mut self, start: Duration) {
        let Some(index) = self.queue.iter().position(|queued| queued.start >= start) else { return };
        let dropped = &mut self.queue[index];
        if dropped.output.head.is_empty() || dropped.discontinuity.is_some() {
            return;
        }
        let head = std::mem::take(&mut dropped.output.head);
        let place = (dropped.variant, dropped.position, dropped.segment.discontinuity_sequence);
        match index.checked_sub(1) {
            None => drop(self.place_joined(&head)),
            Some(before) => {
                let before = &mut self.queue[before];
                if (before.variant, before.next, before.segment.discontinuity_sequence) == place {
                    before.dropped_head = head;
                }
            }
        }
    }

    /// The frame that the first segment shares with the one before, if they were cut inside of a frame.
    fn join(&mut self, head: &[u8]) -> Option<(Frame, Vec<u8>)> {
        let carried = self.carried.take()?;
        let joined = self.join_with(&carried, head);
        if joined.is_none() {
            // Other segments may take the place of this one, and of those behind it.
            self.sections.unjoined = Some(carried);
        }
        joined
    }

    fn join_with(&self, (variant, position, tail): &CarriedFrame, head: &[u8]) -> Option<(Frame, Vec<u8>)> {
        // Another variant or another segment continues another frame.
        let queued =
            self.queue.front().filter(|queued| (queued.variant, queued.position) == (*variant, *position))?;
        let is_continued =
            self.sections.buffers.back()?.discontinuity_sequence == queued.segment.discontinuity_sequence;
        if is_continued { join(tail, head) } else { None }
    }

    fn place_frame(&mut self, at: SegmentTime, share: Share, frame: &Frame, bytes: &[u8]) {
        let SegmentTime { id, start, discontinuity } = at;
        let Placement::At(time) = self.clock.place(id, start, discontinuity, frame) else {
            self.replacements.handle_cut(id);
            return;
        };
        if self.needs_section(frame, discontinuity) {
            self.open_section(time, frame, discontinuity);
        }
        let level = self.placed_level();
        // What is dropped from the begin of a segment on may be requested at another level, which has no end of a shared frame.
        let begins_segment = share == Share::Own && self.sections.placed.replace(start) != Some(start);
        if begins_segment {
            self.sections.begin_segment(time, start);
        }
        if let Some(section) = self.sections.buffers.back_mut() {
            section.discontinuity_sequence = discontinuity;
            section.push(PlacedFrame { time, level, begins_segment, frame, bytes });
            self.replacements.handle_frame(id, section.id, time, time.saturating_add(frame.duration));
        }
    }

    /// True if the decoder of the last section can't continue with this frame.
    fn needs_section(&self, frame: &Frame, discontinuity: u64) -> bool {
        let Some(section) = self.sections.buffers.back().filter(|section| !section.is_closed) else {
            return true;
        };
        // Frames of ADTS, MP3 and AC-3 are independent of their place. Those of FLAC are numbered (RFC 9639, section 9.1.5).
        let is_numbered = frame.format.codec == AudioCodec::Flac;
        self.sections.next_discontinuity.is_some()
            || section.format != frame.format
            || (is_numbered && section.discontinuity_sequence != discontinuity)
    }

    fn open_section(&mut self, time: Duration, frame: &Frame, discontinuity_sequence: u64) {
        self.close_section();
        let reason = self.sections.next_discontinuity.take().unwrap_or(Discontinuity::Format);
        let reason = match reason {
            // By the media: the playlist may be wrong about the time, above all where another level goes on.
            Discontinuity::Behind(_) => Discontinuity::Behind(time.saturating_sub(self.end_of_placed())),
            reason => reason,
        };
        let level = self.placed_level();
        // A section begins with a segment, which may begin before the target of the seek. Where the format changes between the
        // two, so does the next one.
        let way = self.sections.target.saturating_sub(time);
        // A table of MP3 at the beginning of a later segment says nothing of that one.
        let gapless = self.queue.front().and_then(|queued| queued.gapless).filter(|_| time.is_zero());
        let delay = gapless.map_or(Duration::ZERO, |gapless| gapless.delay);
        let delay = delay.saturating_add(encoder_delay(frame, time));
        let info = SectionInfo {
            codec: frame.format.codec,
            sample_rate: frame.format.sample_rate,
            channels: frame.format.channels,
            start: time,
            skip: way.saturating_add(delay),
            discontinuity: reason,
            level,
            date_time: self.queue.front().and_then(|queued| self.date_time(queued)),
        };
        let mut section =
            SectionBuffer::new(self.sections.next_id, info, frame.format.clone(), discontinuity_sequence);
        (section.delay, section.kept_for) = (delay, self.kept_for());
        if let Some(gapless) = gapless {
            section.set_gapless(gapless);
        }
        self.sections.next_id += 1;
        self.sections.buffers.push_back(section);
    }

    /// Presentation time of the end of the last frame that was placed, or where playing starts.
    fn end_of_placed(&self) -> Duration {
        self.sections.buffers.back().map_or(self.sections.target, SectionBuffer::end)
    }

    /// The level of the segment whose frames are placed.
    fn placed_level(&self) -> usize {
        self.queue.front().map_or(self.level(), |queued| self.ladder.variants[queued.variant].level)
    }

    fn date_time(&self, queued: &QueuedSegment) -> Option<SystemTime> {
        let list = &self.timelines[queued.variant].as_ref()?.list;
        let index = usize::try_from(queued.position.sequence.checked_sub(list.media_sequence)?).ok()?;
        list.date_time_at(index)
    }

    pub(crate) fn close_section(&mut self) {
        if let Some(section) = self.sections.buffers.back_mut() {
            section.is_closed = true;
        }
    }

    /// Nothing more will be played.
    pub(crate) fn is_finished(&self) -> bool {
        self.queue.is_empty() && self.is_over(self.variant) && (self.ends_at_once() || self.is_end_confirmed)
    }
}
