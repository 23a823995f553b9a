//! The audio of one decoder: bytes that were fetched and not read yet, and what they are.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::media::{AudioCodec, ContainerFormat, HintSource, MediaInfo};
use crate::source::hls::demux::{Format, Frame, Framing, Gapless};

/// Times of bytes that were read are kept this long: a decoder and an output hold audio back.
const KEPT: Duration = Duration::from_secs(60);

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
    /// The reader was too slow or paused: audio of this length is no longer available.
    Behind(Duration),
    /// The server started the playlist again.
    Reset,
    /// The last section was dropped before its end. This one continues it with the first frame of which nothing was read.
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

/// A section as it is stored: frames are appended at one end, and bytes are read at the other.
#[derive(Debug)]
pub(crate) struct SectionBuffer {
    pub(crate) id: u64,
    pub(crate) info: SectionInfo,
    pub(crate) format: Format,
    /// Discontinuity sequence number of the last frame.
    pub(crate) discontinuity_sequence: u64,
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that were read.
    front: usize,
    /// Offset of the next byte to read, and of the next byte to be appended.
    read: u64,
    written: u64,
    marks: VecDeque<Mark>,
    /// Audio of the frames from the first one on whose marks were removed.
    unmarked: Duration,
    framing: Option<Framing>,
    /// How much of the last decoded audio the encoder has added, as far as the last whole segment says.
    pub(super) padding: Duration,
    /// Frames that are still missing of all those that the first segment announces, and what lies behind the last one.
    rest: Option<(u64, Duration)>,
    /// Nothing more will be appended.
    pub(crate) is_closed: bool,
    /// Its reader was dropped: frames are counted, and their bytes are not kept.
    is_dropped: bool,
}

/// Where a frame begins.
#[derive(Clone, Copy, Debug)]
struct Mark {
    offset: u64,
    time: Duration,
    end: Duration,
    level: usize,
}

impl Mark {
    fn duration(&self) -> Duration {
        self.end.saturating_sub(self.time)
    }
}

impl SectionBuffer {
    pub(crate) fn new(id: u64, info: SectionInfo, format: Format, discontinuity_sequence: u64) -> Self {
        let head = format.head.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
        let framing = Framing::of(format.codec);
        Self {
            id,
            info,
            format,
            discontinuity_sequence,
            written: head.len() as u64,
            chunks: VecDeque::from([head]),
            front: 0,
            read: 0,
            marks: VecDeque::new(),
            unmarked: Duration::ZERO,
            framing,
            padding: Duration::ZERO,
            rest: None,
            is_closed: false,
            is_dropped: false,
        }
    }

    /// What the encoder has added to the audio that begins here.
    pub(super) fn set_gapless(&mut self, gapless: Gapless) {
        self.rest = Some((gapless.frames, gapless.padding)).filter(|(frames, _)| *frames > 0);
    }

    pub(crate) fn push(&mut self, time: Duration, level: usize, frame: &Frame, bytes: &[u8]) {
        // What followed the last segment is in the middle now.
        self.padding = Duration::ZERO;
        // More frames than the first segment announces: then nothing is known of the last one.
        self.rest = self.rest.and_then(|(frames, padding)| Some((frames.checked_sub(1)?, padding)));
        match &mut self.framing {
            None => self.push_bytes(time, level, frame, bytes),
            // What no decoder could play is left out.
            Some(framing) => {
                if let Some(framed) = framing.frame(bytes, frame.duration) {
                    self.push_bytes(time, level, frame, &framed);
                }
            }
        }
    }

    fn push_bytes(&mut self, time: Duration, level: usize, frame: &Frame, bytes: &[u8]) {
        let end = time.saturating_add(frame.duration);
        self.marks.push_back(Mark { offset: self.written, time, end, level });
        self.written += bytes.len() as u64;
        if self.is_dropped {
            self.read = self.written;
            self.forget_read();
            return;
        }
        /// Frames are collected in chunks of about this size.
        const CHUNK: usize = 32 * 1024;
        match self.chunks.back_mut().filter(|chunk| chunk.len() + bytes.len() <= CHUNK) {
            Some(chunk) => chunk.extend_from_slice(bytes),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK.max(bytes.len()));
                chunk.extend_from_slice(bytes);
                self.chunks.push_back(chunk);
            }
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
        let start = self.marks.get(first).filter(|mark| mark.offset >= self.read)?.offset;
        if old.len() != frames.len() || !old.zip(frames).all(is_like) {
            return None;
        }
        let behind = self.marks.get(end).map_or(self.written, |mark| mark.offset);
        let mut offset = start;
        for (mark, frame) in self.marks.range_mut(first..end).zip(frames) {
            (mark.offset, mark.level) = (offset, level);
            offset += frame.len as u64;
        }
        for mark in self.marks.range_mut(end..) {
            // This order, because `offset - behind` is negative if the new frames are shorter.
            mark.offset = mark.offset - behind + offset;
        }
        self.written = self.written - behind + offset;
        self.splice(start, behind, bytes);
        Some((behind - start) as usize)
    }

    /// Puts `bytes` in the place of those from offset `start` to `end`.
    fn splice(&mut self, start: u64, end: u64, bytes: &[u8]) {
        let mut position = self.read - self.front as u64;
        let mut before = VecDeque::new();
        // Chunks are moved, and only the two at the ends are copied.
        while let Some(chunk) = self.chunks.pop_front() {
            let behind = position + chunk.len() as u64;
            if behind > start {
                before.push_back(chunk[..(start - position) as usize].to_vec());
                self.chunks.push_front(chunk);
                break;
            }
            position = behind;
            before.push_back(chunk);
        }
        before.push_back(bytes.to_vec());
        while let Some(mut chunk) = self.chunks.pop_front() {
            let behind = position + chunk.len() as u64;
            if behind > end {
                chunk.drain(..end.saturating_sub(position) as usize);
                before.push_back(chunk);
                break;
            }
            position = behind;
        }
        before.append(&mut self.chunks);
        before.retain(|chunk| !chunk.is_empty());
        self.chunks = before;
    }

    /// Copies bytes that are there. 0 if there are none.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(chunk) = self.chunks.front() else { break };
            let rest = &chunk[self.front..];
            let len = rest.len().min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&rest[..len]);
            done += len;
            self.front += len;
            if self.front == chunk.len() {
                // The last chunk may still grow, but its bytes were all read.
                self.chunks.pop_front();
                self.front = 0;
            }
        }
        self.read += done as u64;
        self.forget_read();
        done
    }

    /// What the encoder has added at the end. `None` until that has arrived.
    pub(crate) fn padding(&self) -> Option<Duration> {
        let by_first =
            self.rest.filter(|(frames, _)| *frames == 0).map_or(Duration::ZERO, |(_, padding)| padding);
        self.is_closed.then_some(self.padding.max(by_first))
    }

    /// True once nothing of it can be asked for.
    pub(super) fn is_over(&self) -> bool {
        self.is_closed && self.is_dropped
    }

    pub(crate) fn position(&self) -> u64 {
        self.read
    }

    /// Bytes that were not read yet.
    pub(crate) fn len(&self) -> usize {
        (self.written - self.read) as usize
    }

    /// Memory of what was not read yet, in bytes, with what is known of its frames.
    pub(crate) fn memory(&self) -> usize {
        self.len() + self.marks.len() * size_of::<Mark>()
    }

    /// Presentation time of the next byte to read: the end of what was read.
    pub(crate) fn reader_time(&self) -> Duration {
        let next = self.marks.partition_point(|mark| mark.offset < self.read);
        match (self.marks.get(next), next.checked_sub(1).and_then(|last| self.marks.get(last))) {
            (Some(next), _) => next.time,
            (None, Some(last)) => last.end,
            (None, None) => self.info.start,
        }
    }

    /// Level of the frame that the last byte that was read belongs to.
    pub(super) fn level_read(&self) -> Option<usize> {
        let next = self.marks.partition_point(|mark| mark.offset < self.read);
        Some(self.marks.get(next.checked_sub(1)?)?.level)
    }

    /// Presentation time of the frame that the byte at `offset` belongs to.
    pub(crate) fn time_of(&self, offset: u64) -> Option<Duration> {
        let behind = self.marks.partition_point(|mark| mark.offset <= offset);
        match behind.checked_sub(1) {
            Some(index) => self.marks.get(index).map(|mark| mark.time),
            // The head belongs to the first frame.
            None => self.marks.front().filter(|mark| mark.time == self.info.start).map(|mark| mark.time),
        }
    }

    pub(crate) fn drop_reader(&mut self) {
        self.is_dropped = true;
        self.chunks = VecDeque::new();
        self.front = 0;
        self.read = self.written;
    }

    /// True once something was read.
    pub(super) fn is_begun(&self) -> bool {
        self.read > 0
    }

    /// Lets another reader begin, with the first frame of which nothing was read. False if that frame is not there.
    pub(super) fn reopen(&mut self) -> bool {
        if self.read == 0 {
            return true;
        }
        let first = self.marks.partition_point(|mark| mark.offset < self.read);
        let Some(Mark { offset, time, level, .. }) = self.marks.get(first).copied() else { return false };
        // The rest of a frame is of no use without its beginning.
        self.read(&mut vec![0; (offset - self.read) as usize]);
        let first = self.marks.partition_point(|mark| mark.offset < offset);
        let played: Duration = self.marks.drain(..first).map(|mark| mark.duration()).sum();
        let info = &mut self.info;
        let passed = time.saturating_sub(info.start);
        info.date_time = info.date_time.and_then(|date| date.checked_add(passed));
        info.skip = info.skip.saturating_sub(self.unmarked + played);
        (info.start, info.level, info.discontinuity) = (time, level, Discontinuity::Reopened);
        self.unmarked = Duration::ZERO;
        self.begin_again();
        true
    }

    /// Puts a head before what was not read, and counts offsets from there.
    fn begin_again(&mut self) {
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.drain(..self.front);
        }
        self.front = 0;
        self.frame_again();
        let head = self.format.head.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
        for mark in &mut self.marks {
            mark.offset = mark.offset - self.read + head.len() as u64;
        }
        self.written = self.written - self.read + head.len() as u64;
        self.read = 0;
        self.chunks.push_front(head);
    }

    /// Pages and clusters are numbered from the start of the section.
    fn frame_again(&mut self) {
        let Some(mut framing) = Framing::of(self.format.codec) else { return };
        let ends = self.marks.iter().skip(1).map(|mark| mark.offset).chain([self.written]);
        let mut frames = self.marks.iter().zip(ends);
        // No frame lies in two chunks: those with a framing are never replaced.
        for chunk in &mut self.chunks {
            let mut rest = chunk.as_mut_slice();
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
        let now = self.reader_time();
        let is_old = |mark: &Mark| mark.end.saturating_add(KEPT) < now;
        while let Some(mark) = self.marks.front().filter(|mark| mark.offset < self.read) {
            if !is_old(mark) && self.marks.len() <= MOST_MARKS {
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

    fn rest(section: &mut SectionBuffer) -> Vec<u8> {
        let mut bytes = vec![0; section.len()];
        section.read(&mut bytes);
        bytes
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
                for index in range {
                    section.push(FRAME * index as u32, 0, &frame(lens[index]), &frames[index]);
                }
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
                section.push(FRAME * index as u32, 0, &frame(bytes.len()), bytes);
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
