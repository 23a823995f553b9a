//! Cuts a stream of bytes into frames of audio, and finds them again after junk or a loss.

use std::collections::VecDeque;
use std::time::Duration;

use super::frame::{Frame, MediaTime, Output};
use super::headers::{Family, Header, is_seek_table};
use super::id3;
use crate::media::AudioCodec;

/// What to do with the bytes at the cursor.
enum Step {
    Frame(Header),
    /// Bytes that are no frame.
    Skip(usize),
    /// Not enough bytes to decide.
    Wait,
}

#[derive(Debug)]
pub(super) struct Splitter {
    family: Family,
    /// Bytes that belong to no complete frame yet.
    buffer: Vec<u8>,
    /// Cursor in `buffer`.
    at: usize,
    /// Bytes to skip that have not arrived yet.
    skip: usize,
    /// The last bytes were a frame: the next header is believed without looking at the one behind it.
    is_locked: bool,
    /// Times of frames: of the first one that begins at this offset of `buffer` or behind it.
    marks: VecDeque<(usize, MediaTime)>,
    clock: Option<Clock>,
    has_output: bool,
    /// Bytes before the first frame.
    head: Vec<u8>,
}

/// Bytes of a frame, at most: the length of ADTS has 13 bits (ISO 14496-3, 1.A.2.2). Other frames are shorter.
const LONGEST_FRAME: usize = 1 << 13;

/// Counts samples from the last known time, so that roundings do not add up.
#[derive(Clone, Copy, Debug)]
struct Clock {
    base: MediaTime,
    samples: u64,
    sample_rate: u32,
}

impl Clock {
    fn now(&self) -> MediaTime {
        self.base + nanoseconds(self.samples, self.sample_rate) as MediaTime
    }
}

pub(super) fn nanoseconds(samples: u64, rate: u32) -> u64 {
    (u128::from(samples) * 1_000_000_000 / u128::from(rate.max(1))) as u64
}

impl Splitter {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            buffer: Vec::new(),
            at: 0,
            skip: 0,
            is_locked: false,
            marks: VecDeque::new(),
            clock: None,
            has_output: false,
            head: Vec::new(),
        }
    }

    /// Takes the next bytes. `time` is that of the first frame that begins in them.
    pub(super) fn push(&mut self, bytes: &[u8], time: Option<MediaTime>, output: &mut Output) {
        if let Some(time) = time {
            self.marks.push_back((self.buffer.len(), time));
        }
        self.buffer.extend_from_slice(bytes);
        self.split(false, output);
        self.compact();
    }

    /// Bytes before this point are missing: what is left of a frame is no frame.
    pub(super) fn lose(&mut self, output: &mut Output) {
        self.flush(output);
        self.is_locked = false;
        self.clock = None;
    }

    /// Ends the segment: what is left may be the beginning of a frame that ends in the next one.
    pub(super) fn finish(&mut self, output: &mut Output) {
        self.split(false, output);
        let rest = &self.buffer[self.at..];
        let is_cut = match self.family.parse(rest) {
            Some(header) => header.len > rest.len(),
            // Not even a header. Whether it is the beginning of one shows in the next segment.
            None => rest.len() < self.family.header_len(),
        };
        if self.is_locked && is_cut {
            output.tail = rest.to_vec();
        }
        self.flush(output);
    }

    /// Adds a frame that waited for the header behind it, and drops the rest.
    fn flush(&mut self, output: &mut Output) {
        self.split(true, output);
        self.buffer.clear();
        self.marks.clear();
        (self.at, self.skip) = (0, 0);
    }

    fn split(&mut self, is_end: bool, output: &mut Output) {
        loop {
            let skipped = self.skip.min(self.buffer.len() - self.at);
            if !self.has_output && self.head.len() + skipped <= LONGEST_FRAME {
                self.head.extend_from_slice(&self.buffer[self.at..self.at + skipped]);
            }
            self.at += skipped;
            self.skip -= skipped;
            match self.next(is_end) {
                Step::Frame(header) => self.emit(header, output),
                Step::Skip(bytes) => {
                    self.is_locked = false;
                    self.skip = bytes;
                }
                Step::Wait => return,
            }
        }
    }

    fn next(&self, is_end: bool) -> Step {
        let rest = &self.buffer[self.at..];
        if rest.len() < self.family.header_len().max(id3::HEADER) && !is_end || self.skip > 0 {
            return Step::Wait;
        }
        if let Some(len) = id3::tag_len(rest) {
            return Step::Skip(len);
        }
        let Some(header) = self.family.parse(rest) else { return self.skip_junk(rest) };
        if rest.len() < header.len {
            return if is_end { self.skip_junk(rest) } else { Step::Wait };
        }
        if self.is_locked {
            return Step::Frame(header);
        }
        let behind = &rest[header.len..];
        if behind.len() < self.family.header_len().max(id3::HEADER) && !is_end {
            return Step::Wait;
        }
        // A header of four bytes is found in any data. Two at the right distance are not.
        if self.is_followed_by_frame(&header, behind) { Step::Frame(header) } else { self.skip_junk(rest) }
    }

    fn is_followed_by_frame(&self, header: &Header, behind: &[u8]) -> bool {
        // The end of the input, or of what was not lost.
        if behind.len() < self.family.header_len() || id3::tag_len(behind).is_some() {
            return true;
        }
        let next = self.family.parse(behind);
        next.is_some_and(|next| next.format.codec == header.format.codec)
    }

    /// To the next byte that may begin a header.
    fn skip_junk(&self, rest: &[u8]) -> Step {
        if rest.is_empty() {
            return Step::Wait;
        }
        let first = self.family.first_byte();
        let next = rest[1..].iter().position(|byte| *byte == first || *byte == b'I');
        Step::Skip(next.map_or(rest.len(), |at| at + 1))
    }

    fn emit(&mut self, header: Header, output: &mut Output) {
        while let Some(&(_, base)) = self.marks.front().filter(|(from, _)| *from <= self.at) {
            self.clock = Some(Clock { base, samples: 0, sample_rate: header.format.sample_rate });
            self.marks.pop_front();
        }
        let bytes = &self.buffer[self.at..self.at + header.len];
        self.at += header.len;
        self.is_locked = true;
        let is_first = !std::mem::replace(&mut self.has_output, true);
        if is_first {
            output.head = std::mem::take(&mut self.head);
        }
        if is_first && header.format.codec == AudioCodec::Mp3 && is_seek_table(bytes) {
            return;
        }
        output.data.extend_from_slice(bytes);
        let time = self.clock.as_ref().map(Clock::now);
        let duration =
            Duration::from_nanos(nanoseconds(u64::from(header.samples), header.format.sample_rate));
        if let Some(clock) = &mut self.clock {
            if clock.sample_rate != header.format.sample_rate {
                *clock = Clock { base: clock.now(), samples: 0, sample_rate: header.format.sample_rate };
            }
            clock.samples += u64::from(header.samples);
        }
        output.frames.push(Frame { time, duration, len: header.len, format: header.format });
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.at);
        for (from, _) in &mut self.marks {
            *from = from.saturating_sub(self.at);
        }
        self.at = 0;
    }
}
