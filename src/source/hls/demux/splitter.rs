//! Cuts a stream of bytes into frames of audio, and finds them again after junk or a loss.

use std::collections::VecDeque;
use std::time::Duration;

use super::frame::{Frame, Gapless, MediaTime, Output, nanoseconds};
use super::headers::{Family, Header, LOAS_HEADER};
use super::id3;
use super::latm::{LatmReader, Refusal};
use super::seek_table::SeekTable;
use super::smpb::Smpb;
use crate::media::AudioCodec;

/// What to do with the bytes at the cursor.
enum Step {
    Frame(Header),
    /// Bytes that are no frame.
    Skip(usize),
    /// The frames are elements of LATM.
    Latm,
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
    clock: Clock,
    /// Reads AAC out of frames that are elements of LATM.
    latm: Option<LatmReader>,
    has_output: bool,
    /// What a tag before the frames says.
    smpb: Option<Smpb>,
    /// What the encoder has added to them, and the frames so far.
    gapless: Option<(Gapless, u64)>,
    /// Bytes before the first frame.
    head: Vec<u8>,
}

/// Bytes of a frame, at most: the length of ADTS (aac_frame_length) has 13 bits (ISO 14496-3, annex 1.A). Other frames are shorter.
const LONGEST_FRAME: usize = 1 << 13;

/// Counts samples from the last known time, so that roundings do not add up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    base: Option<MediaTime>,
    samples: u64,
    sample_rate: u32,
}

impl Clock {
    /// The next frame begins at this time, if that is known.
    pub(super) fn set(&mut self, time: Option<MediaTime>) {
        if time.is_some() {
            *self = Self { base: time, samples: 0, sample_rate: self.sample_rate };
        }
    }

    fn now(&self) -> Option<MediaTime> {
        let passed = nanoseconds(self.samples, self.sample_rate) as MediaTime;
        // Times of a hostile stream may be anything.
        self.base.map(|base| base.saturating_add(passed))
    }

    /// The next frame, with its time.
    pub(super) fn frame(&mut self, header: Header) -> Frame {
        let rate = header.format.sample_rate;
        let time = self.now();
        if rate != self.sample_rate {
            *self = Self { base: time, samples: 0, sample_rate: rate };
        }
        self.samples += u64::from(header.samples);
        let duration = Duration::from_nanos(nanoseconds(u64::from(header.samples), rate));
        Frame { time, duration, len: header.len, format: header.format }
    }
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
            clock: Clock::default(),
            latm: (family == Family::Loas).then(LatmReader::default),
            has_output: false,
            smpb: None,
            gapless: None,
            head: Vec::new(),
        }
    }

    /// A splitter of frames that follow a tag.
    pub(super) fn behind_tag(family: Family, smpb: Option<Smpb>) -> Self {
        Self { smpb, ..Self::new(family) }
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
        // How much is missing is not known, so the next frame has no time before a packet brings one.
        self.clock = Clock::default();
        if let Some(latm) = &mut self.latm {
            latm.lose();
        }
    }

    /// Why elements of LATM could not be read.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.latm.as_ref().and_then(LatmReader::refusal)
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
        // Behind junk this may be anything that only looks like the beginning of a header. Half an element of LATM can't be joined
        // without its configuration.
        if self.is_locked && is_cut && self.latm.is_none() {
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
            // What precedes the first frame may be the end of one that the border of two segments has cut: `join` completes that
            // frame with it.
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
                Step::Latm => (self.family, self.latm) = (Family::Loas, Some(LatmReader::default())),
                Step::Wait => return,
            }
        }
    }

    fn next(&self, is_end: bool) -> Step {
        let rest = &self.buffer[self.at..];
        // A tag of ID3 may stand wherever a frame may begin.
        if rest.len() < self.family.header_len().max(id3::HEADER) && !is_end || self.skip > 0 {
            return Step::Wait;
        }
        if let Some(len) = id3::tag_len(rest) {
            return Step::Skip(len);
        }
        let Some(header) = self.family.parse(rest) else {
            return self.look_for_latm(rest, is_end).unwrap_or_else(|| self.skip_junk(rest));
        };
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

    /// LATM in a stream that should have ADTS: ffmpeg's muxer of HLS writes the wrong type into the tables.
    fn look_for_latm(&self, rest: &[u8], is_end: bool) -> Option<Step> {
        if self.family != Family::Adts || self.has_output {
            return None;
        }
        let header = Family::Loas.parse(rest)?;
        match rest.get(header.len..header.len + LOAS_HEADER) {
            Some(next) => Family::Loas.parse(next).map(|_| Step::Latm),
            None => (!is_end).then_some(Step::Wait),
        }
    }

    fn is_followed_by_frame(&self, header: &Header, behind: &[u8]) -> bool {
        // The end of the input, or of what was not lost.
        if behind.len() < self.family.header_len() || id3::tag_len(behind).is_some() {
            return true;
        }
        let next = self.family.parse(behind);
        next.is_some_and(|next| next.format.codec == header.format.codec)
    }

    /// Skips to the next byte that may begin a header.
    fn skip_junk(&self, rest: &[u8]) -> Step {
        if rest.is_empty() {
            return Step::Wait;
        }
        let first = self.family.first_byte();
        let next = rest[1..].iter().position(|byte| *byte == first || *byte == b'I');
        Step::Skip(next.map_or(rest.len(), |at| at + 1))
    }

    fn emit(&mut self, header: Header, output: &mut Output) {
        let mut mark = None;
        while let Some(&(_, time)) = self.marks.front().filter(|(from, _)| *from <= self.at) {
            mark = Some(time);
            self.marks.pop_front();
        }
        let from = self.at;
        self.at += header.len;
        self.is_locked = true;
        let is_first = !std::mem::replace(&mut self.has_output, true);
        if is_first {
            output.head = std::mem::take(&mut self.head);
        }
        let bytes = &self.buffer[from..self.at];
        if let Some(latm) = &mut self.latm {
            latm.push(bytes, mark);
            self.emit_latm(output);
            return;
        }
        self.clock.set(mark);
        if is_first && header.format.codec == AudioCodec::Mp3 {
            if let Some(table) = SeekTable::parse(bytes) {
                output.gapless = table.gapless(header.format.sample_rate);
                self.gapless = output.gapless.map(|gapless| (gapless, 0));
                // The table itself plays nothing, so its time is that of the frame behind it.
                return;
            }
        }
        if let Some(smpb) = self.smpb.take_if(|smpb| is_first && smpb.is_of(&header.format)) {
            output.gapless = Some(smpb.gapless(header.format.sample_rate));
            self.gapless = output.gapless.map(|gapless| (gapless, 0));
        }
        if let Some((gapless, frames)) = &mut self.gapless {
            *frames = frames.saturating_add(1);
            // Again for each frame: it is the padding of this segment only if that ends with as many frames as it counts.
            output.padding = if *frames == gapless.frames { gapless.padding } else { Duration::ZERO };
        }
        output.data.extend_from_slice(bytes);
        output.frames.push(self.clock.frame(header));
    }

    /// Adds the frames whose configuration is known.
    fn emit_latm(&mut self, output: &mut Output) {
        let Some(latm) = &mut self.latm else { return };
        while let Some(element) = latm.next() {
            for (index, raw) in element.raw.iter().enumerate() {
                let Some(adts) = element.aac.header(raw.len()) else { continue };
                let (len, format) = (adts.len() + raw.len(), element.aac.format());
                let header = Header { len, samples: 1024, format };
                self.clock.set(element.time.filter(|_| index == 0));
                output.data.extend_from_slice(&adts);
                output.data.extend_from_slice(raw);
                output.frames.push(self.clock.frame(header));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.buffer.len() + self.marks.len() * size_of::<(usize, MediaTime)>()
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.at);
        for (from, _) in &mut self.marks {
            *from = from.saturating_sub(self.at);
        }
        // If there are several times for the next frame, the last one counts.
        let is_past = |mark: Option<&(usize, MediaTime)>| mark.is_some_and(|(from, _)| *from == 0);
        while is_past(self.marks.get(1)) {
            self.marks.pop_front();
        }
        self.at = 0;
    }
}
