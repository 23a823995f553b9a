//! Takes elementary audio out of segments: MPEG-TS, fragmented MP4 and packed audio. Streaming, no I/O, no clock.
//!
//! ```text
//!   bytes ─▶ sniff ─┬─▶ ts ────▶ payload of the audio PID ─┐
//!                   ├─▶ packed ─▶ behind the ID3 tag ──────┴─▶ splitter ─▶ frames
//!                   └─▶ mp4 ───▶ samples of the audio track ────────────▶ frames
//! ```
//!
//! Decoders get frames, and never containers: a decoder that reads concatenated MP4 or TS loses the configuration, the time
//! or the synchronisation where two segments meet. The result does not depend on how the input is cut into chunks.

mod adts;
mod bits;
mod boxes;
mod frame;
mod framing;
mod headers;
mod id3;
mod latm;
mod matroska;
mod mp4;
mod mp4_track;
mod ogg;
mod packed;
mod sample_entry;
mod seek_table;
mod smpb;
mod sniff;
mod splitter;
mod ts;
mod ts_tables;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::frame::nanoseconds;
use self::headers::Family;
use self::mp4::Mp4Demuxer;
use self::mp4_track::Track;
use self::packed::PackedDemuxer;
use self::sniff::Container;
use self::ts::TsDemuxer;
use crate::error::{Error, ErrorKind};

pub use self::frame::{Format, Frame, Gapless, MediaTime, Output};
pub(crate) use self::framing::Framing;

/// The frame that two segments share: `tail` ends the first one, `head` begins the second one. `None` if they do not fit.
pub(crate) fn join(tail: &[u8], head: &[u8]) -> Option<(Frame, Vec<u8>)> {
    let bytes = [tail, head].concat();
    // LATM is not among them: half of an element can't be read without its configuration, so the splitter keeps none.
    let families = [Family::Adts, Family::Mpeg, Family::Ac3];
    let header = families.into_iter().find_map(|family| family.parse(&bytes))?;
    if header.len != bytes.len() || tail.is_empty() {
        return None;
    }
    let duration = Duration::from_nanos(nanoseconds(u64::from(header.samples), header.format.sample_rate));
    Some((Frame { time: None, duration, len: header.len, format: header.format }, bytes))
}

/// Takes the audio out of one segment.
pub struct Demuxer {
    state: State,
    /// Offset of the segment in its resource.
    position: u64,
    track: Option<Arc<Track>>,
}

enum State {
    /// The first bytes, until their container is known.
    Sniffing(Vec<u8>),
    Ts(Box<TsDemuxer>),
    Mp4(Box<Mp4Demuxer>),
    Packed(Box<PackedDemuxer>),
}

impl Demuxer {
    /// A demuxer for a segment that begins at `position` of its resource.
    pub fn new(position: u64) -> Self {
        Self { state: State::Sniffing(Vec::new()), position, track: None }
    }

    /// As [`new`](Self::new), with an initialization section: that of an MP4 file, or tables of a transport stream.
    pub fn with_init(init: &[u8], position: u64) -> Result<Self, Error> {
        let mut demuxer = Self::new(position);
        if sniff::sniff(init, true) == Some(Container::Mp4) {
            demuxer.track = Some(Arc::new(Track::parse(init)?));
        } else {
            let mut tables = TsDemuxer::default();
            tables.push_tables(init)?;
            // Else the segments have their own tables, and are sniffed as without this section.
            if tables.has_tables() {
                demuxer.state = State::Ts(Box::new(tables));
            }
        }
        Ok(demuxer)
    }

    /// Takes the next bytes, and adds the frames that are complete by now to `output`.
    pub fn push(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Error> {
        match &mut self.state {
            State::Sniffing(first) => {
                first.extend_from_slice(bytes);
                match sniff::sniff(first, false) {
                    Some(container) => self.begin(container, output),
                    None => Ok(()),
                }
            }
            State::Ts(ts) => ts.push(bytes, output),
            State::Mp4(mp4) => mp4.push(bytes, output),
            State::Packed(packed) => packed.push(bytes, output),
        }
    }

    /// Ends the segment: adds frames that only the end completes. A frame that is cut off is dropped, because a decoder would
    /// take the bytes that follow it for its rest.
    pub fn finish(&mut self, output: &mut Output) -> Result<(), Error> {
        if let State::Sniffing(first) = &self.state {
            let container = sniff::sniff(first, true).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, "the segment is neither MPEG-TS nor MP4 nor packed audio")
            })?;
            self.begin(container, output)?;
        }
        match &mut self.state {
            State::Ts(ts) => ts.finish(output),
            State::Packed(packed) => packed.finish(output),
            State::Mp4(mp4) => {
                mp4.finish(output);
                Ok(())
            }
            State::Sniffing(_) => Ok(()),
        }
    }

    /// True if the segment marks its frames as encrypted: they have to be decrypted.
    pub(crate) fn is_sample_encrypted(&self) -> bool {
        matches!(&self.state, State::Ts(ts) if ts.is_sample_encrypted())
    }

    fn begin(&mut self, container: Container, output: &mut Output) -> Result<(), Error> {
        let state = match container {
            Container::Ts => State::Ts(Box::default()),
            Container::Mp4 => State::Mp4(Box::new(Mp4Demuxer::new(self.track.clone(), self.position))),
            Container::Packed => State::Packed(Box::default()),
        };
        match std::mem::replace(&mut self.state, state) {
            State::Sniffing(first) => self.push(&first, output),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Demuxer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Sniffing(_) => "Demuxer(unknown)",
            State::Ts(_) => "Demuxer(MPEG-TS)",
            State::Mp4(_) => "Demuxer(MP4)",
            State::Packed(_) => "Demuxer(packed audio)",
        })
    }
}
