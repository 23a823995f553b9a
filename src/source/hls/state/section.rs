//! The audio of one decoder: the bytes that were fetched, and what they are.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::audio_bytes::AudioBytes;
use crate::media::{AudioCodec, ContainerFormat, HintSource, MediaInfo};
use crate::source::hls::demux::{Format, Frame, Framing, Gapless};

/// Times of bytes that were read are kept this long: a decoder and an output hold audio back.
pub(super) const KEPT: Duration = Duration::from_secs(60);

/// Frames whose times are kept after they were read, at most. Those of a minute are 9 000 if each has 6.7 ms.
const MOST_MARKS: usize = 1 << 16;

/// What a decoder and a player have to know of a section.
///
/// [`Section`](crate::hls::Section) shows an example.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SectionInfo {
    /// Codec of the audio.
    pub codec: AudioCodec,
    /// Samples per second of the core codec. HE-AAC plays at twice this rate.
    pub sample_rate: u32,
    /// Channels of the core codec. 0 if only the frames contain the number.
    pub channels: u16,
    /// Presentation time of the first frame.
    pub start: Duration,
    /// How much to drop from the beginning of the decoded audio: the distance from `start` to the target of a seek, and at the start
    /// of a presentation the encoder delay, if an edit list, the table of an MP3 or the comment `iTunSMPB` of AAC gives one. For the end see
    /// [`Section::padding`](crate::hls::Section::padding).
    pub skip: Duration,
    /// Why the section begins.
    pub discontinuity: Discontinuity,
    /// Index of the level of the first frame.
    pub level: usize,
    /// When the first frame was broadcast, if the playlist gives dates.
    pub date_time: Option<SystemTime>,
}

/// Why a section begins, and the decoder of the one before can't continue.
///
/// [`Section`](crate::hls::Section) shows an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discontinuity {
    /// It is the first one.
    Start,
    /// A seek, or a jump to the live edge.
    Seek,
    /// Another rendition was selected.
    Rendition,
    /// The codec, the rate or the channels change.
    Format,
    /// Audio of this length is missing: the playlist marks it as missing, or it can't be fetched.
    Gap(Duration),
    /// The reader was too slow or paused, or what was sought has left the window meanwhile: audio of this length is no longer available.
    Behind(Duration),
    /// The server started the playlist again.
    Reset,
    /// The last section was dropped before its end, or [`HlsHandle::drop_buffered`](crate::hls::HlsHandle::drop_buffered) has cut one
    /// whose pages or clusters are numbered. This one continues it with the first frame of which nothing was read.
    Reopened,
}

impl SectionInfo {
    /// The bytes as other parts of windway describe them: elementary audio, and a container for codecs that need one.
    pub fn media_info(&self) -> MediaInfo {
        let container = match self.codec {
            AudioCodec::Aac | AudioCodec::HeAac => Some(ContainerFormat::Adts),
            AudioCodec::Mp3 | AudioCodec::Mp2 => Some(ContainerFormat::Mp3),
            AudioCodec::Flac => Some(ContainerFormat::Flac),
            AudioCodec::Opus => Some(ContainerFormat::Ogg),
            AudioCodec::Alac => Some(ContainerFormat::Matroska),
            _ => None,
        };
        MediaInfo {
            codec: Some((self.codec, HintSource::MagicBytes)),
            container: container.map(|container| (container, HintSource::MagicBytes)),
        }
    }
}

/// A section as it is stored: frames are appended at one end, and their bytes are read from some frame on.
#[derive(Debug)]
pub(crate) struct SectionBuffer {
    pub(crate) id: u64,
    pub(crate) info: SectionInfo,
    pub(crate) format: Format,
    /// Discontinuity sequence number of the last frame.
    pub(crate) discontinuity_sequence: u64,
    /// All but the head, which each reader gets first.
    bytes: AudioBytes,
    /// Bytes of the head that the reader has read.
    head_read: usize,
    /// Where the reader has begun: the offset of a frame in `bytes`.
    begin: u64,
    /// The frames whose times are known, also those before `begin`.
    marks: VecDeque<Mark>,
    /// Audio of the frames whose marks were removed.
    unmarked: Duration,
    /// Audio of the frames before `begin`.
    before: Duration,
    /// How much of the decoded audio from the first frame on lies before the presentation.
    pub(super) delay: Duration,
    framing: Option<Framing>,
    /// How much of the last decoded audio the encoder has added, as far as the last whole segment says.
    pub(super) padding: Duration,
    /// Frames that are still missing of all those that the first segment announces, and what lies behind the last one.
    rest: Option<(u64, Duration)>,
    /// How long bytes are kept after they were read.
    pub(super) kept_for: Duration,
    /// Nothing more will be appended.
    pub(crate) is_closed: bool,
    /// Its reader was dropped: frames are counted, and their bytes are not kept.
    is_dropped: bool,
    /// Its reader was dropped at its end: what is kept is for seeks.
    is_released: bool,
}

/// Where a frame begins.
#[derive(Clone, Copy, Debug)]
struct Mark {
    offset: u64,
    time: Duration,
    end: Duration,
    level: u32,
    /// It is the first frame of a segment.
    begins_segment: bool,
}

impl Mark {
    fn duration(&self) -> Duration {
        self.end.saturating_sub(self.time)
    }
}

/// A frame whose place is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedFrame<'a> {
    pub(super) time: Duration,
    pub(super) level: usize,
    /// It is the first frame of its segment, at whatever level and after whatever failure.
    pub(super) begins_segment: bool,
    pub(super) frame: &'a Frame,
    pub(super) bytes: &'a [u8],
}

impl SectionBuffer {
    pub(crate) fn new(id: u64, info: SectionInfo, format: Format, discontinuity_sequence: u64) -> Self {
        let framing = Framing::of(format.codec);
        Self {
            id,
            info,
            format,
            discontinuity_sequence,
            bytes: AudioBytes::default(),
            head_read: 0,
            begin: 0,
            marks: VecDeque::new(),
            unmarked: Duration::ZERO,
            before: Duration::ZERO,
            delay: Duration::ZERO,
            framing,
            padding: Duration::ZERO,
            rest: None,
            kept_for: Duration::ZERO,
            is_closed: false,
            is_dropped: false,
            is_released: false,
        }
    }

    /// What the encoder has added to the audio that begins here.
    pub(super) fn set_gapless(&mut self, gapless: Gapless) {
        self.rest = Some((gapless.frames, gapless.padding)).filter(|(frames, _)| *frames > 0);
    }

    pub(super) fn push(&mut self, placed: PlacedFrame<'_>) {
        // What followed the last segment is in the middle now.
        self.padding = Duration::ZERO;
        // More frames than the first segment announces: then nothing is known of the last one.
        self.rest = self.rest.and_then(|(frames, padding)| Some((frames.checked_sub(1)?, padding)));
        match &mut self.framing {
            None => self.push_framed(placed),
            // What no decoder could play is left out.
            Some(framing) => {
                if let Some(framed) = framing.frame(placed.bytes, placed.frame.duration) {
                    self.push_framed(PlacedFrame { bytes: &framed, ..placed });
                }
            }
        }
    }

    fn push_framed(&mut self, placed: PlacedFrame<'_>) {
        let PlacedFrame { time, level, begins_segment, frame, bytes } = placed;
        let (offset, end) = (self.bytes.end(), time.saturating_add(frame.duration));
        // No presentation has as many levels.
        let level = u32::try_from(level).unwrap_or(u32::MAX);
        self.marks.push_back(Mark { offset, time, end, level, begins_segment });
        if self.is_dropped {
            self.bytes.skip(bytes.len());
            self.forget_read();
        } else {
            self.bytes.push(bytes);
        }
    }

    /// Puts these frames of another level in the place of those from one presentation time to another, which must be as many and as
    /// long, and not read yet. Returns the length of the old ones, or `None` if it can't be done.
    pub(crate) fn replace(
        &mut self,
        (from, to): (Duration, Duration),
        level: usize,
        frames: &[Frame],
        bytes: &[u8],
    ) -> Option<usize> {
        // Pages of Ogg are numbered (RFC 3533, section 6), and clusters of Matroska continue each other, so they can't be exchanged.
        if self.is_dropped || self.framing.is_some() || frames.is_empty() {
            return None;
        }
        let first = self.marks.partition_point(|mark| mark.time < from);
        let end = self.marks.partition_point(|mark| mark.time < to);
        let is_like = |(mark, frame): (&Mark, &Frame)| mark.duration() == frame.duration;
        let old = self.marks.range(first..end);
        // What was read must not change.
        let start = self.marks.get(first).filter(|mark| mark.offset >= self.bytes.position())?.offset;
        if old.len() != frames.len() || !old.zip(frames).all(is_like) {
            return None;
        }
        let behind = self.marks.get(end).map_or(self.bytes.end(), |mark| mark.offset);
        let level = u32::try_from(level).unwrap_or(u32::MAX);
        let mut offset = start;
        for (mark, frame) in self.marks.range_mut(first..end).zip(frames) {
            (mark.offset, mark.level) = (offset, level);
            offset += frame.len as u64;
        }
        for mark in self.marks.range_mut(end..) {
            // This order, because `offset - behind` is negative if the new frames are shorter.
            mark.offset = mark.offset - behind + offset;
        }
        if start == self.begin {
            self.info.level = level as usize;
        }
        self.bytes.replace((start, behind), bytes);
        Some((behind - start) as usize)
    }

    /// Drops the frames from `time` on, of which nothing was read, and takes others in their place. With a framing it ends there, because
    /// pages and clusters are numbered. Returns the bytes that it had of them, or `None` if there are none.
    pub(super) fn cut(&mut self, time: Duration) -> Option<usize> {
        let first = self.marks.partition_point(|mark| mark.time < time);
        let is_free = |mark: &&Mark| self.is_dropped || mark.offset >= self.bytes.position();
        let offset = self.marks.get(first).filter(is_free)?.offset;
        let (before, frames) = (self.bytes.unread(), self.marks.len() - first);
        self.marks.truncate(first);
        if !self.is_dropped {
            self.bytes.truncate(offset);
        }
        self.padding = Duration::ZERO;
        self.rest = self.rest.map(|(rest, padding)| (rest + frames as u64, padding));
        self.is_closed = self.framing.is_some();
        Some(before - self.bytes.unread())
    }

    /// Copies bytes that are there. 0 if there are none.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let rest = self.head().get(self.head_read..).unwrap_or_default();
        let of_head = rest.len().min(buf.len());
        buf[..of_head].copy_from_slice(&rest[..of_head]);
        self.head_read += of_head;
        let done = of_head + self.bytes.read(&mut buf[of_head..]);
        self.forget_read();
        done
    }

    /// What a decoder needs before the first frame. None once the reader was dropped.
    fn head(&self) -> &[u8] {
        self.format.head.as_deref().filter(|_| !self.is_dropped).unwrap_or_default()
    }

    /// How much of the decoded audio lies before the presentation time of the frame that the reader has begun with.
    pub(crate) fn delay(&self) -> Duration {
        self.delay.saturating_sub(self.before)
    }

    /// What the encoder has added at the end. `None` until that has arrived.
    pub(crate) fn padding(&self) -> Option<Duration> {
        let by_first =
            self.rest.filter(|(frames, _)| *frames == 0).map_or(Duration::ZERO, |(_, padding)| padding);
        self.is_closed.then_some(self.padding.max(by_first))
    }

    /// True once nothing of it can be asked for.
    pub(super) fn is_over(&self) -> bool {
        let is_empty = self.is_dropped || (self.is_released && self.bytes.kept() == 0);
        self.is_closed && is_empty
    }

    /// Number of bytes that the reader has read.
    pub(crate) fn position(&self) -> u64 {
        self.head_read as u64 + self.bytes.position() - self.begin
    }

    /// Bytes that were not read yet.
    pub(crate) fn len(&self) -> usize {
        self.head().len().saturating_sub(self.head_read) + self.bytes.unread()
    }

    /// Memory of what was not read yet, in bytes, with what is known of its frames.
    pub(crate) fn memory(&self) -> usize {
        // Not of the frames that were read: they stay for a while, and may be more than a small limit of the memory. Nothing would be
        // fetched any more.
        let unread = self.marks.len() - self.next_mark();
        self.len() + unread * size_of::<Mark>()
    }

    /// Memory of what was read and is kept, in bytes.
    pub(super) fn kept(&self) -> usize {
        self.bytes.kept()
    }

    /// Keeps at most so many bytes that were read.
    pub(super) fn limit_kept(&mut self, most: usize) {
        self.bytes.limit_kept(most);
    }

    /// Index of the next frame to read.
    fn next_mark(&self) -> usize {
        self.marks.partition_point(|mark| mark.offset < self.bytes.position())
    }

    /// Presentation time of the next byte to read: the end of what was read.
    pub(crate) fn reader_time(&self) -> Duration {
        let next = self.next_mark();
        match (self.marks.get(next), next.checked_sub(1).and_then(|last| self.marks.get(last))) {
            (Some(next), _) => next.time,
            (None, Some(last)) => last.end,
            (None, None) => self.info.start,
        }
    }

    /// Level of the frame that the last byte that was read belongs to.
    pub(super) fn level_read(&self) -> Option<usize> {
        let last = self.marks.get(self.next_mark().checked_sub(1)?)?;
        // What lies before was read by another reader.
        (last.offset >= self.begin).then_some(last.level as usize)
    }

    /// Presentation time of the frame that the byte at `offset` belongs to, counted from where the reader has begun.
    pub(crate) fn time_of(&self, offset: u64) -> Option<Duration> {
        let head = self.format.head.as_ref().map_or(0, |head| head.len()) as u64;
        let first = self.marks.partition_point(|mark| mark.offset < self.begin);
        // The head belongs to the first frame.
        let Some(offset) = offset.checked_sub(head).map(|offset| offset + self.begin) else {
            return self.marks.get(first).filter(|mark| mark.time == self.info.start).map(|mark| mark.time);
        };
        let behind = self.marks.partition_point(|mark| mark.offset <= offset);
        let index = behind.checked_sub(1).filter(|index| *index >= first)?;
        self.marks.get(index).map(|mark| mark.time)
    }

    /// Level of the frame that plays at a presentation time.
    pub(super) fn level_at(&self, time: Duration) -> Option<usize> {
        let behind = self.marks.partition_point(|mark| mark.time <= time);
        self.marks.get(behind.checked_sub(1)?).map(|mark| mark.level as usize)
    }

    /// Presentation time of the end of the last frame.
    pub(super) fn end(&self) -> Duration {
        self.marks.back().map_or(self.info.start, |mark| mark.end)
    }

    /// Presentation times of what is stored, also of what was read. `None` if that is nothing.
    pub(super) fn stored(&self) -> Option<Range<Duration>> {
        let first = self.marks.partition_point(|mark| mark.offset < self.bytes.start());
        let start = self.marks.get(first).filter(|_| !self.is_dropped)?.time;
        Some(start..self.end())
    }

    pub(crate) fn drop_reader(&mut self) {
        self.is_dropped = true;
        self.bytes.clear();
    }

    /// The reader was dropped. What it has read to its end is kept as long as what other readers have read.
    pub(super) fn release(&mut self) {
        let is_read = self.is_closed && self.is_begun() && self.len() == 0;
        if !is_read || self.is_dropped {
            return self.drop_reader();
        }
        self.is_released = true;
        self.bytes.close();
    }

    pub(super) fn is_released(&self) -> bool {
        self.is_released
    }

    /// A later section was read up to `now`: drops what is too old for a seek back.
    pub(super) fn age(&mut self, now: Duration) {
        if self.is_released {
            self.forget_before(now);
        }
    }

    /// True once something was read.
    pub(super) fn is_begun(&self) -> bool {
        self.position() > 0
    }

    /// Lets another reader begin, with the first frame of which nothing was read. False if that frame is not there.
    pub(super) fn reopen(&mut self) -> bool {
        if !self.is_begun() {
            return true;
        }
        let next = self.next_mark();
        if next == self.marks.len() {
            return false;
        }
        let passed = self.before_mark(next).saturating_sub(self.before);
        self.info.skip = self.info.skip.saturating_sub(passed);
        self.info.discontinuity = Discontinuity::Reopened;
        self.begin_at(next);
        true
    }

    /// Lets another reader begin, with the segment that contains `target`, as far as it is in this section. `None` if that is not
    /// stored from its first frame on.
    pub(super) fn seek(&mut self, target: Duration) -> Option<Duration> {
        let behind = self.marks.partition_point(|mark| mark.time <= target);
        let first = self.marks.range(..behind).rposition(|mark| mark.begins_segment);
        // A change of format inside of a segment: what lies before is in another section, and of no use to this decoder.
        let begins_inside = || (behind > 0 && self.unmarked.is_zero()).then_some(0);
        let first = first.or_else(begins_inside)?;
        let Mark { offset, time, .. } = *self.marks.get(first)?;
        if self.is_dropped || offset < self.bytes.start() {
            return None;
        }
        let delay = self.delay.saturating_sub(self.before_mark(first));
        self.info.skip = delay.saturating_add(target.saturating_sub(time));
        self.info.discontinuity = Discontinuity::Seek;
        self.begin_at(first);
        Some(time)
    }

    /// True if all of it is stored, and its reader has begun with its first frame.
    pub(super) fn can_rewind(&self) -> bool {
        // One that was reopened has forgotten why it began.
        let is_first = self.begin == 0 && self.info.discontinuity != Discontinuity::Reopened;
        !self.is_dropped && is_first && self.bytes.start() == 0 && self.unmarked.is_zero()
    }

    /// Lets another reader begin where the last one has begun.
    pub(super) fn rewind(&mut self) {
        // The target of the last seek may have been in it. That of the next one is before it.
        self.info.skip = self.delay;
        (self.head_read, self.is_released) = (0, false);
        self.bytes.seek(self.begin);
    }

    /// Audio of the frames before one of them.
    fn before_mark(&self, index: usize) -> Duration {
        self.unmarked + self.marks.range(..index).map(Mark::duration).sum::<Duration>()
    }

    /// Lets another reader begin with this frame.
    fn begin_at(&mut self, index: usize) {
        self.before = self.before_mark(index);
        let Some(Mark { offset, time, level, .. }) = self.marks.get(index).copied() else { return };
        let info = &mut self.info;
        info.date_time = info.date_time.and_then(|date| match time.checked_sub(info.start) {
            Some(later) => date.checked_add(later),
            None => date.checked_sub(info.start - time),
        });
        (info.start, info.level) = (time, level as usize);
        (self.begin, self.head_read, self.is_released) = (offset, 0, false);
        self.bytes.seek(offset);
        self.frame_again(index);
    }

    /// Pages and clusters are numbered from where the reader begins.
    fn frame_again(&mut self, first: usize) {
        let Some(mut framing) = Framing::of(self.format.codec) else { return };
        let marks = self.marks.range(first..);
        let ends = marks.clone().skip(1).map(|mark| mark.offset).chain([self.bytes.end()]);
        let mut frames = marks.zip(ends);
        // No frame lies in two chunks: those with a framing are never replaced.
        for mut rest in self.bytes.unread_mut() {
            while !rest.is_empty() {
                let Some((mark, end)) = frames.next() else { return };
                let len = ((end - mark.offset) as usize).min(rest.len());
                let (frame, more) = rest.split_at_mut(len);
                framing.number_again(frame, mark.duration());
                rest = more;
            }
        }
        self.framing = Some(framing);
    }

    fn forget_read(&mut self) {
        self.forget_before(self.reader_time());
    }

    /// Drops what was read too long before `now`.
    fn forget_before(&mut self, now: Duration) {
        let is_old = |mark: &Mark, kept: Duration| mark.end.saturating_add(kept) < now;
        // The first frame whose bytes are kept.
        let kept = self.marks.partition_point(|mark| {
            mark.offset < self.bytes.position() && is_old(mark, self.kept_for.min(KEPT))
        });
        let offset = self.marks.get(kept).map_or(self.bytes.position(), |mark| mark.offset);
        self.bytes.forget_before(offset.min(self.bytes.position()));
        while let Some(mark) = self.marks.front().filter(|mark| mark.offset < self.bytes.position()) {
            if !is_old(mark, KEPT) && self.marks.len() <= MOST_MARKS {
                break;
            }
            self.unmarked += mark.duration();
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    /// Frames of a segment.
    const SEGMENT: usize = 5;

    fn format() -> Format {
        Format { codec: AudioCodec::Aac, sample_rate: 48_000, channels: 2, head: None }
    }

    fn frame(len: usize) -> Frame {
        Frame { time: None, duration: FRAME, len, format: format() }
    }

    fn section() -> SectionBuffer {
        section_of(format())
    }

    fn section_of(format: Format) -> SectionBuffer {
        let info = SectionInfo {
            codec: format.codec,
            sample_rate: 48_000,
            channels: 2,
            start: Duration::ZERO,
            skip: FRAME * 3,
            discontinuity: Discontinuity::Start,
            level: 0,
            date_time: None,
        };
        SectionBuffer::new(0, info, format, 0)
    }

    /// Appends frame `index`.
    fn push(section: &mut SectionBuffer, index: usize, bytes: &[u8]) {
        let (time, frame) = (FRAME * index as u32, &frame(bytes.len()));
        section.push(PlacedFrame { time, level: 0, begins_segment: index % SEGMENT == 0, frame, bytes });
    }

    fn rest(section: &mut SectionBuffer) -> Vec<u8> {
        let mut bytes = vec![0; section.len()];
        section.read(&mut bytes);
        bytes
    }

    #[test]
    fn a_section_that_was_reopened_has_forgotten_why_it_began_and_is_not_rewound() {
        let mut section = section_of(Format { head: Some(vec![9; 42].into()), ..format() });
        push(&mut section, 0, &[1]);
        assert!(section.can_rewind());
        section.read(&mut [0; 10]);
        assert!(section.can_rewind() && section.reopen());
        assert_eq!(
            (section.info.discontinuity, section.info.start),
            (Discontinuity::Reopened, Duration::ZERO)
        );
        assert!(!section.can_rewind());
    }

    #[test]
    fn a_section_whose_first_frame_is_replaced_begins_with_the_new_level() {
        let mut section = section();
        (0..3).for_each(|index| push(&mut section, index, &[1]));
        let mut replace = |index: u32, level| {
            let range = (FRAME * index, FRAME * (index + 1));
            assert_eq!(section.replace(range, level, &[frame(2)], &[2, 2]), Some(1));
            section.info.level
        };
        assert_eq!([replace(1, 2), replace(0, 1)], [0, 1]);
    }

    proptest! {
        #[test]
        fn a_section_that_is_reopened_is_as_one_that_begins_with_the_next_frame(
            lens in proptest::collection::vec(1_usize..12_000, 1..30),
            (codec, head) in proptest::sample::select(vec![
                (AudioCodec::Aac, None), (AudioCodec::Flac, Some(42)), (AudioCodec::Opus, Some(80)),
                (AudioCodec::Alac, Some(200)),
            ]),
            (before, read) in (0.0..=1.0_f64, 0.0..1.0_f64),
        ) {
            let head = head.map(|len| vec![9; len].into());
            let format = Format { codec, sample_rate: 48_000, channels: 2, head };
            let (mut section, mut played) = (section_of(format.clone()), 0);
            let frames: Vec<Vec<u8>> = lens.iter().map(|len| vec![31 << 3; *len]).collect();
            let late = (frames.len() as f64 * before) as usize;
            let push = |section: &mut SectionBuffer, range: std::ops::Range<usize>| {
                range.for_each(|index| push(section, index, &frames[index]));
            };
            push(&mut section, 0..late.max(1));
            let mut first = 0;
            // Twice: a decoder may fail again.
            for _ in 0..2 {
                played = (section.len() as f64 * read) as usize;
                section.read(&mut vec![0; played]);
                first = (section.reader_time().as_nanos() / FRAME.as_nanos()) as usize;
                if !section.reopen() {
                    prop_assert_eq!(first, late.max(1), "all of it was read");
                    return Ok(());
                }
            }
            push(&mut section, late.max(1)..frames.len());
            let mut anew = section_of(format);
            push(&mut anew, first..frames.len());
            prop_assert_eq!(section.info.start, FRAME * first as u32);
            prop_assert_eq!(section.info.skip, FRAME * 3_u32.saturating_sub(first as u32));
            prop_assert_eq!(section.info.discontinuity == Discontinuity::Reopened, first > 0 || played > 0);
            prop_assert_eq!(section.time_of(0), Some(FRAME * first as u32));
            prop_assert!(rest(&mut section) == rest(&mut anew));
        }

        #[test]
        fn a_section_is_read_from_each_segment_that_is_stored_as_one_that_begins_there(
            lens in proptest::collection::vec(1_usize..12_000, 1..40),
            (codec, head) in proptest::sample::select(vec![
                (AudioCodec::Aac, None), (AudioCodec::Flac, Some(42)), (AudioCodec::Opus, Some(80)),
                (AudioCodec::Alac, Some(200)),
            ]),
            kept_for in 0_u32..40,
            most_kept in prop_oneof![0_usize..200_000, Just(usize::MAX)],
            steps in proptest::collection::vec((0.0..1.0_f64, proptest::option::of(0.0..1.0_f64)), 1..8),
        ) {
            let format = Format { codec, sample_rate: 48_000, channels: 2, head: head.map(|len| vec![9; len].into()) };
            let frames: Vec<Vec<u8>> = lens.iter().map(|len| vec![31 << 3; *len]).collect();
            let delay = FRAME * 7;
            let mut section = section_of(format.clone());
            (section.delay, section.kept_for) = (delay, FRAME * kept_for);
            frames.iter().enumerate().for_each(|(index, bytes)| push(&mut section, index, bytes));
            // How far it was ever read.
            let mut furthest = Duration::ZERO;
            for (read, target) in steps {
                let read = (section.len() as f64 * read) as usize;
                section.read(&mut vec![0; read]);
                section.limit_kept(most_kept);
                prop_assert!(section.kept() <= most_kept);
                furthest = furthest.max(section.reader_time());
                let Some(target) = target else {
                    section.reopen();
                    continue;
                };
                let target = (FRAME * frames.len() as u32).mul_f64(target);
                let first = (target.as_nanos() / FRAME.as_nanos()) as usize / SEGMENT * SEGMENT;
                let (time, next) = (FRAME * first as u32, section.reader_time());
                let Some(start) = section.seek(target) else {
                    prop_assert!(time < next, "what was not read is there");
                    let is_old = furthest - time > FRAME * kept_for;
                    prop_assert!(is_old || most_kept < usize::MAX, "{time:?}, read to {furthest:?}");
                    continue;
                };
                prop_assert_eq!((start, section.info.start), (time, time));
                prop_assert_eq!(section.info.skip, delay.saturating_sub(time) + (target - time));
                prop_assert_eq!((section.position(), section.reader_time()), (0, time));
                let mut anew = section_of(format.clone());
                anew.info.start = time;
                (first..frames.len()).for_each(|index| push(&mut anew, index, &frames[index]));
                let mut offset = 0;
                while offset <= section.len() as u64 {
                    prop_assert_eq!(section.time_of(offset), anew.time_of(offset));
                    offset += 1000;
                }
                let len = section.len();
                prop_assert!(rest(&mut section) == rest(&mut anew));
                prop_assert_eq!(section.position(), len as u64);
                furthest = section.reader_time();
                // Back, to go on from there.
                section.seek(target);
            }
        }

        #[test]
        fn frames_that_are_cut_are_as_if_they_had_not_been_appended(
            frames in proptest::collection::vec(1_usize..12_000, 1..30),
            others in proptest::collection::vec(1_usize..12_000, 0..10),
            (first, read) in (0_usize..30, 0.0..1.0_f64),
            codec in proptest::sample::select(vec![AudioCodec::Aac, AudioCodec::Opus]),
        ) {
            let mut section = section_of(Format { codec, ..format() });
            let mut anew = section_of(Format { codec, ..format() });
            let first = first % frames.len();
            // The first byte of Opus says one frame (RFC 6716, section 3.1).
            let bytes = |index: usize, len: usize| vec![(index << 2) as u8; len];
            frames.iter().enumerate().for_each(|(index, len)| push(&mut section, index, &bytes(index, *len)));
            frames[..first].iter().enumerate().for_each(|(index, len)| push(&mut anew, index, &bytes(index, *len)));
            let mut played = vec![0; (section.len() as f64 * read) as usize];
            prop_assert_eq!(section.read(&mut played), played.len());
            let whole = section.len();
            let cut = section.cut(FRAME * first as u32);
            if played.len() > anew.len() {
                prop_assert_eq!((cut, section.len()), (None, whole), "a frame that was read stays");
                return Ok(());
            }
            prop_assert_eq!(cut, Some(whole - section.len()));
            prop_assert_eq!(section.is_closed, codec == AudioCodec::Opus, "pages are numbered");
            if !section.is_closed {
                for (index, len) in others.iter().enumerate() {
                    push(&mut section, first + index, &bytes(100 + index, *len));
                    push(&mut anew, first + index, &bytes(100 + index, *len));
                }
            }
            let mut offset = 0;
            while offset < played.len() as u64 + 50_000 {
                prop_assert_eq!(section.time_of(offset), anew.time_of(offset));
                offset += 997;
            }
            prop_assert!([played, rest(&mut section)].concat() == rest(&mut anew), "other bytes");
        }

        #[test]
        fn replaced_frames_are_read_in_place_of_the_old_ones_and_no_other_byte_changes(
            old in proptest::collection::vec(1_usize..12_000, 1..30),
            new in proptest::collection::vec(1_usize..12_000, 30),
            (first, count) in (0_usize..30, 1_usize..30),
            read in 0.0..1.0_f64,
        ) {
            let mut section = section();
            let mut frames: Vec<Vec<u8>> =
                old.iter().enumerate().map(|(index, len)| vec![index as u8; *len]).collect();
            for (index, bytes) in frames.iter().enumerate() {
                push(&mut section, index, bytes);
            }
            let mut played = vec![0; (section.len() as f64 * read) as usize];
            prop_assert_eq!(section.read(&mut played), played.len());
            let first = first % frames.len();
            let end = (first + count).min(frames.len());
            let start: usize = old[..first].iter().sum();
            let replacing: Vec<Vec<u8>> = new[first..end].iter().map(|len| vec![200; *len]).collect();
            let headers: Vec<Frame> = replacing.iter().map(|bytes| frame(bytes.len())).collect();
            let range = (FRAME * first as u32, FRAME * end as u32);
            let replaced = section.replace(range, 1, &headers, &replacing.concat());
            if start >= played.len() {
                prop_assert_eq!(replaced, Some(old[first..end].iter().sum()));
                frames.splice(first..end, replacing);
            } else {
                prop_assert_eq!(replaced, None, "a frame that was read stays");
            }
            // As many frames are needed as there were.
            prop_assert_eq!(section.replace(range, 1, &[], &[]), None);
            prop_assert_eq!([played, rest(&mut section)].concat(), frames.concat());
            let mut offset = 0;
            for (index, bytes) in frames.iter().enumerate() {
                prop_assert_eq!(section.time_of(offset), Some(FRAME * index as u32));
                offset += bytes.len() as u64;
            }
        }
    }
}
