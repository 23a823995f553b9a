//! Parsers of lists of tracks: M3U, PLS, XSPF, ASX, and feeds of podcasts. Pure.
//!
//! M3U and PLS are read by parsers of this crate: both are a few rules about lines, and the crates for them read UTF-8 only,
//! stop at the first line that they do not know, or do not know the line of an entry. XML is read by `quick-xml`, which
//! expands no entities but the five of XML, so that a short document can't become a long one.

mod date;
mod duration;
mod m3u;
mod pls;
mod xml;

use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind};
use crate::media::{self, ListFormat};

/// Maximum number of tracks in a list. The largest podcasts have a few thousand.
pub(super) const MOST_TRACKS: usize = 100_000;

/// A list as its text says it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) title: Option<String>,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line that names the location, from 1 on.
    pub(super) line: usize,
    /// A URL, or a reference that is relative to the list. Not empty.
    pub(super) location: String,
    pub(super) title: Option<String>,
    pub(super) duration: Option<Duration>,
    pub(super) id: Option<String>,
    pub(super) published: Option<SystemTime>,
    pub(super) media_type: Option<String>,
    /// Bytes of what the location leads to.
    pub(super) len: Option<u64>,
}

impl List {
    /// Reads a list in any of the encodings that [`media::decode`] knows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPlaylist`] with the line; [`ErrorKind::TooLarge`].
    pub(super) fn parse(format: ListFormat, bytes: &[u8]) -> Result<Self, Error> {
        let text = media::decode(bytes);
        match format {
            ListFormat::M3u => m3u::parse(&text),
            ListFormat::Pls => pls::parse(&text),
            ListFormat::Xspf => xml::parse(&text, &xml::XSPF),
            ListFormat::Asx => xml::parse(&text, &xml::ASX),
            ListFormat::Feed => xml::parse(&text, &xml::FEED),
        }
    }

    /// Adds an entry, unless its location is empty.
    fn add(&mut self, entry: Entry) -> Result<(), Error> {
        if entry.location.is_empty() {
            return Ok(());
        }
        if self.entries.len() >= MOST_TRACKS {
            let why = format!("line {}: the list has more than {MOST_TRACKS} tracks", entry.line);
            return Err(Error::new(ErrorKind::TooLarge, why));
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// The lines of an M3U or a PLS. Old lists end their lines with a carriage return alone.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(if text.contains('\n') { '\n' } else { '\r' })
}

/// `text` without the white space around it. `None` if nothing is left.
fn not_empty(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
