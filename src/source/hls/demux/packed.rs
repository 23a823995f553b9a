//! Packed audio: consecutive frames after an ID3 tag with the time (section 3.1.3).

use super::frame::{MediaTime, Output};
use super::headers::Family;
use super::id3;
use super::smpb::Smpb;
use super::splitter::Splitter;
use crate::error::{Error, ErrorKind};

/// A tag that is longer is skipped unread: it contains pictures. The tag with the time has 73 bytes.
const LONGEST_TAG: usize = 256 * 1024;

/// Bytes that decide whether a header begins here.
const LONGEST_HEADER: usize = 7;

/// Bytes that are searched for the first frame.
const LONGEST_JUNK: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct PackedDemuxer {
    /// Bytes before the first frame.
    first: Vec<u8>,
    /// No frame begins before this one of them.
    searched: usize,
    /// Bytes of a long tag that have not arrived yet.
    skip: usize,
    time: Option<MediaTime>,
    smpb: Option<Smpb>,
    splitter: Option<Splitter>,
}

impl PackedDemuxer {
    pub(super) fn push(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Error> {
        if let Some(splitter) = &mut self.splitter {
            splitter.push(bytes, None, output);
            return Ok(());
        }
        self.first.extend_from_slice(bytes);
        self.begin(false, output)
    }

    pub(super) fn finish(&mut self, output: &mut Output) -> Result<(), Error> {
        if self.splitter.is_none() {
            self.begin(true, output)?;
        }
        if let Some(splitter) = &mut self.splitter {
            splitter.finish(output);
        }
        Ok(())
    }

    /// Reads the tags, and finds out which frames follow.
    fn begin(&mut self, is_end: bool, output: &mut Output) -> Result<(), Error> {
        loop {
            let skipped = self.skip.min(self.first.len());
            self.first.drain(..skipped);
            self.skip -= skipped;
            if self.skip > 0 || (self.first.len() < id3::HEADER && !is_end) {
                return Ok(());
            }
            let Some(len) = id3::tag_len(&self.first) else { break };
            if self.first.len() < len.min(LONGEST_TAG) && !is_end {
                return Ok(());
            }
            let tag = self.first.get(..len);
            self.time = self.time.or(tag.and_then(id3::timestamp).map(ticks_to_time));
            self.smpb = self.smpb.or(tag.and_then(id3::smpb));
            self.skip = len;
        }
        let Some(family) = self.find_family(is_end)? else { return Ok(()) };
        let mut splitter = Splitter::behind_tag(family, self.smpb);
        splitter.push(&std::mem::take(&mut self.first), self.time, output);
        self.splitter = Some(splitter);
        Ok(())
    }

    fn find_family(&mut self, is_end: bool) -> Result<Option<Family>, Error> {
        // Junk is passed byte by byte. A header counts if another one follows it.
        let families = [Family::Adts, Family::Mpeg, Family::Ac3];
        for at in self.searched..self.first.len().min(LONGEST_JUNK) {
            // Not again for each chunk: a server that sends single bytes would cost seconds.
            self.searched = at;
            let rest = &self.first[at..];
            if rest.len() < LONGEST_HEADER && !is_end {
                return Ok(None);
            }
            for family in families {
                let Some(header) = family.parse(rest) else { continue };
                let Some(behind) = rest.get(header.len..header.len + family.header_len()) else {
                    if !is_end {
                        return Ok(None);
                    }
                    // A short segment may consist of one frame, which no other one follows.
                    if rest.len() >= header.len {
                        return Ok(Some(family));
                    }
                    continue;
                };
                if family.parse(behind).is_some() || behind.starts_with(b"ID3") {
                    return Ok(Some(family));
                }
            }
        }
        if is_end || self.first.len() >= LONGEST_JUNK {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the segment contains no frame of AAC, MP3 or AC-3",
            ));
        }
        Ok(None)
    }
}

/// Converts units of 90 kHz.
pub(super) fn ticks_to_time(ticks: u64) -> MediaTime {
    MediaTime::try_from(u128::from(ticks) * 1_000_000_000 / 90_000).unwrap_or(MediaTime::MAX)
}
