//! Fragmented MP4 (section 3.1.2, ISO 14496-12): the samples of the audio track, as elementary frames.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::frame::{Frame, MediaTime, Output, nanoseconds};
use super::mp4_track::{Sample, Track};
use crate::error::{Error, ErrorKind};

/// Bytes of a box that has to be read as a whole, at most. A `moof` of an hour of audio has less than 2 MiB.
const LONGEST_BOX: u64 = 16 << 20;

/// Bytes of a sample, at most: FLAC at 192 kHz with 8 channels has less than 2 MiB.
const LONGEST_SAMPLE: u32 = 4 << 20;

/// Padding that is believed, at most: the last frame of Opus may have 120 ms, and encoders add less than two frames.
const MOST_PADDING: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Mp4Demuxer {
    /// `None` until the `moov` was read, if the segment contains it.
    track: Option<Arc<Track>>,
    /// Offset of the next byte in the resource.
    position: u64,
    state: State,
    /// Samples that the last `moof` announced and that have not been passed.
    samples: VecDeque<Sample>,
    /// Bytes of the first of them.
    partial: Vec<u8>,
    /// Decode time of the first of them, in ticks.
    time: Option<u64>,
    /// What decoders return of the last samples beyond their durations, in ticks.
    padding: u64,
    /// End of what a decoder returns, in ticks.
    decoded_end: Option<u64>,
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    /// A box that is read as a whole: its kind, the bytes, and how many are missing.
    Whole {
        kind: [u8; 4],
        start: u64,
        bytes: Vec<u8>,
        left: u64,
    },
    Media {
        left: u64,
    },
    Skip {
        left: u64,
    },
}

impl Mp4Demuxer {
    pub(super) fn new(track: Option<Arc<Track>>, position: u64) -> Self {
        let state = State::Header(Vec::new());
        Self {
            track,
            position,
            state,
            samples: VecDeque::new(),
            partial: Vec::new(),
            time: None,
            padding: 0,
            decoded_end: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest, output)?;
            self.position += taken as u64;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Takes some bytes. Returns how many.
    fn step(&mut self, bytes: &[u8], output: &mut Output) -> Result<usize, Error> {
        let available = |left: u64| usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        match &mut self.state {
            State::Header(header) => {
                let taken = bytes.len().min(header_len(header) - header.len());
                header.extend_from_slice(&bytes[..taken]);
                // A size of 1 lengthens the header.
                if header.len() == header_len(header) {
                    self.begin_box(taken)?;
                }
                Ok(taken)
            }
            State::Whole { bytes: body, left, .. } => {
                let taken = available(*left);
                body.extend_from_slice(&bytes[..taken]);
                *left -= taken as u64;
                if *left == 0 {
                    self.end_box()?;
                }
                Ok(taken)
            }
            State::Media { left } | State::Skip { left } => {
                let taken = available(*left);
                *left -= taken as u64;
                let is_done = *left == 0;
                if matches!(self.state, State::Media { .. }) {
                    self.handle_media(&bytes[..taken], output)?;
                }
                if is_done {
                    self.state = State::Header(Vec::new());
                }
                Ok(taken)
            }
        }
    }

    /// Decides what to do with the box whose header is complete. The header ends `taken` bytes after the position.
    fn begin_box(&mut self, taken: usize) -> Result<(), Error> {
        let State::Header(header) = &self.state else { return Ok(()) };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (len, kind) = (header.len() as u64, [header[4], header[5], header[6], header[7]]);
        let left = match number(&header[..4]) {
            // Size 0: the box reaches to the end (ISO/IEC 14496-12, section 4.2).
            0 => u64::MAX,
            1 => number(&header[8..]).checked_sub(len).ok_or_else(damaged)?,
            size => size.checked_sub(len).ok_or_else(damaged)?,
        };
        let start = (self.position + taken as u64).saturating_sub(len);
        self.state = match &kind {
            // No byte follows that would end this box.
            _ if left == 0 => State::Header(Vec::new()),
            b"mdat" => State::Media { left },
            // This refuses a box up to the end of the file too, whose length is not known.
            b"moov" | b"moof" if left > LONGEST_BOX => return Err(damaged()),
            // The box is parsed from its header on.
            b"moov" => State::Whole { kind, start, bytes: header.clone(), left },
            b"moof" => State::Whole { kind, start, bytes: Vec::new(), left },
            _ => State::Skip { left },
        };
        Ok(())
    }

    fn end_box(&mut self) -> Result<(), Error> {
        let State::Whole { kind, start, bytes, .. } =
            std::mem::replace(&mut self.state, State::Header(Vec::new()))
        else {
            return Ok(());
        };
        if &kind == b"moov" {
            self.track = Some(Arc::new(Track::parse(&bytes)?));
            return Ok(());
        }
        let track = self.track.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the segment is MP4 and has no initialization section")
        })?;
        let samples = track.parse_fragment(&bytes, start).ok_or_else(damaged)?;
        // Fragments of other tracks may lie between one of the audio and its data.
        if !samples.is_empty() {
            self.samples = samples.into();
            self.partial.clear();
        }
        Ok(())
    }

    /// Passes the samples that lie in `bytes`, which begin at the position.
    fn handle_media(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Error> {
        let (start, end) = (self.position, self.position + bytes.len() as u64);
        while let Some(sample) = self.samples.front().copied() {
            let from = sample.start + self.partial.len() as u64;
            let sample_end = sample.start + u64::from(sample.len);
            // An empty sample, or one whose beginning was not in any media data.
            if sample.len == 0 || from < start || sample.len > LONGEST_SAMPLE {
                self.drop_sample(sample);
                continue;
            }
            // The sample lies in the rest of this box, or in another `mdat`.
            if from >= end {
                break;
            }
            let part = &bytes[(from - start) as usize..(sample_end.min(end) - start) as usize];
            if sample_end > end {
                self.partial.extend_from_slice(part);
                break;
            }
            let partial = std::mem::take(&mut self.partial);
            self.emit(sample, &[&partial, part], output)?;
            // For its memory. The bytes in it are dropped with the sample.
            self.partial = partial;
            self.drop_sample(sample);
        }
        Ok(())
    }

    fn drop_sample(&mut self, sample: Sample) {
        self.samples.pop_front();
        self.partial.clear();
        // A sample that was not passed on counts too: those behind it keep their times.
        let time = sample.time.or(self.time);
        self.time = time.map(|time| time.saturating_add(u64::from(sample.duration)));
    }

    /// Ends the segment. A sample of MP4 is complete by its own bytes.
    pub(super) fn finish(&self, output: &mut Output) {
        let Some(track) = &self.track else { return };
        let by_edit = track.presentation_end.zip(self.decoded_end);
        let by_edit = by_edit.map_or(0, |(end, decoded)| decoded.saturating_sub(end));
        // ffmpeg shortens the last sample. Other muxers have an edit list with the duration of the presentation.
        let ticks = self.padding.max(by_edit);
        let padding = Duration::from_nanos(nanoseconds(ticks, track.timescale));
        // More is no padding, but a wrong edit list: some are of the first fragment only.
        output.padding = if padding <= MOST_PADDING { padding } else { Duration::ZERO };
    }

    /// Notes how much more than its duration a decoder returns of a sample.
    fn note_padding(&mut self, sample: Sample, time: Option<u64>, decoded: u64) {
        let more = decoded.saturating_sub(sample.duration.into());
        // Durations are rounded to a tick.
        self.padding = if more > 1 { self.padding.saturating_add(more) } else { 0 };
        self.decoded_end = time.map(|time| time.saturating_add(decoded));
    }

    fn emit(&mut self, sample: Sample, parts: &[&[u8]], output: &mut Output) -> Result<(), Error> {
        let Some(track) = self.track.clone() else { return Ok(()) };
        let raw = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut len = raw;
        if let Some(aac) = track.aac {
            let header = aac.header(raw).ok_or_else(damaged)?;
            output.data.extend_from_slice(&header);
            len += header.len();
        }
        let begin = output.data.len();
        parts.iter().for_each(|part| output.data.extend_from_slice(part));
        let decoded = track.decoded(&output.data[begin..]);
        let duration = Duration::from_nanos(nanoseconds(u64::from(sample.duration), track.timescale));
        // Without a time of its own a fragment continues the one before.
        let ticks = sample.time.or(self.time);
        self.note_padding(sample, ticks, decoded.unwrap_or(sample.duration.into()));
        let time = ticks.map(|ticks| media_time(ticks, &track));
        output.frames.push(Frame { time, duration, len, format: track.format.clone() });
        Ok(())
    }
}

/// Bytes of a box's header, by as many of them as are there.
fn header_len(header: &[u8]) -> usize {
    if header.starts_with(&[0, 0, 0, 1]) { 16 } else { 8 }
}

/// Presentation time of a sample that is decoded at `ticks`.
fn media_time(ticks: u64, track: &Track) -> MediaTime {
    let ticks = i128::from(ticks) - i128::from(track.presentation_start);
    let time = (ticks * 1_000_000_000).div_euclid(i128::from(track.timescale));
    // Saturating: a time that wrapped would be encoder delay.
    time.clamp(MediaTime::MIN.into(), MediaTime::MAX.into()) as MediaTime
}

fn damaged() -> Error {
    Error::new(ErrorKind::Unsupported, "the MP4 segment is damaged")
}
