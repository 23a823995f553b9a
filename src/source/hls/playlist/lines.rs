//! Splits a playlist into lines and names, and decides its kind by a table of tags.

use std::borrow::Cow;
use std::str;

use super::error::{PlaylistError, PlaylistProblem};

/// Bytes of a playlist, at most. An event of 24 h with parts of 1 s has about 10 MB.
pub(crate) const MOST_BYTES: usize = 16 << 20;

/// Lines of a playlist, at most: some eight times those of an event of 24 h with segments of 2 s and their dates.
pub(crate) const MOST_LINES: usize = 1_000_000;

/// Which playlists a tag belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Either,
    Media,
    Multivariant,
}

/// Every tag of section 4.4. Others are ignored (section 6.3.1).
const TAGS: [(&str, Kind); 33] = [
    ("EXT-X-VERSION", Kind::Either),
    ("EXT-X-INDEPENDENT-SEGMENTS", Kind::Either),
    ("EXT-X-START", Kind::Either),
    ("EXT-X-DEFINE", Kind::Either),
    ("EXT-X-TARGETDURATION", Kind::Media),
    ("EXT-X-MEDIA-SEQUENCE", Kind::Media),
    ("EXT-X-DISCONTINUITY-SEQUENCE", Kind::Media),
    ("EXT-X-ENDLIST", Kind::Media),
    ("EXT-X-PLAYLIST-TYPE", Kind::Media),
    ("EXT-X-I-FRAMES-ONLY", Kind::Media),
    ("EXT-X-PART-INF", Kind::Media),
    ("EXT-X-SERVER-CONTROL", Kind::Media),
    ("EXTINF", Kind::Media),
    ("EXT-X-BYTERANGE", Kind::Media),
    ("EXT-X-DISCONTINUITY", Kind::Media),
    ("EXT-X-KEY", Kind::Media),
    ("EXT-X-MAP", Kind::Media),
    ("EXT-X-PROGRAM-DATE-TIME", Kind::Media),
    ("EXT-X-GAP", Kind::Media),
    ("EXT-X-BITRATE", Kind::Media),
    ("EXT-X-PART", Kind::Media),
    ("EXT-X-DATERANGE", Kind::Media),
    ("EXT-X-SKIP", Kind::Media),
    ("EXT-X-PRELOAD-HINT", Kind::Media),
    ("EXT-X-RENDITION-REPORT", Kind::Media),
    // Removed by version 7 of the protocol (RFC 8216, section 7). Old servers still write it.
    ("EXT-X-ALLOW-CACHE", Kind::Media),
    ("EXT-X-MEDIA", Kind::Multivariant),
    ("EXT-X-STREAM-INF", Kind::Multivariant),
    ("EXT-X-I-FRAME-STREAM-INF", Kind::Multivariant),
    ("EXT-X-SESSION-DATA", Kind::Multivariant),
    ("EXT-X-SESSION-KEY", Kind::Multivariant),
    ("EXT-X-CONTENT-STEERING", Kind::Multivariant),
    // Not in the draft: an extension for the preview images of a video.
    ("EXT-X-IMAGE-STREAM-INF", Kind::Multivariant),
];

/// Tags that playing does without. One that is broken is left out, and the playlist is played: a title in another encoding or a
/// date without its id must not silence a station. A variant or rendition that is left out leaves the others.
const OPTIONAL: [&str; 14] = [
    "EXT-X-VERSION",
    // The longest segment gives its value.
    "EXT-X-TARGETDURATION",
    "EXT-X-START",
    "EXT-X-PART-INF",
    "EXT-X-SERVER-CONTROL",
    "EXT-X-PROGRAM-DATE-TIME",
    "EXT-X-DATERANGE",
    "EXT-X-PRELOAD-HINT",
    "EXT-X-RENDITION-REPORT",
    "EXT-X-MEDIA",
    "EXT-X-STREAM-INF",
    "EXT-X-SESSION-DATA",
    "EXT-X-SESSION-KEY",
    "EXT-X-CONTENT-STEERING",
];

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A tag of the table: its name without `#`, and what follows the colon.
    Tag(&'static str, Cow<'a, str>),
    Uri(&'a str),
}

/// The significant lines of a playlist: no comments, no blank lines, no unknown tags.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    /// The byte that ends a line.
    end: u8,
    /// Number of the last line, from 1.
    number: usize,
    tag: &'static str,
    left_out: LeftOut,
}

/// Lines that were left out, because they are broken.
#[derive(Default)]
struct LeftOut {
    count: usize,
    first: Option<PlaylistError>,
}

impl<'a> Lines<'a> {
    /// Checks the limits and the first line.
    pub(super) fn new(text: &'a [u8]) -> Result<Self, PlaylistError> {
        if text.len() > MOST_BYTES {
            return Err(PlaylistError::whole(PlaylistProblem::TooLarge(MOST_BYTES)));
        }
        // Section 4.1: there must be no byte order mark. Some servers send one all the same.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        // Section 4.4.1.1: `#EXTM3U` must be the first line. Some servers send blank lines before it.
        let blank = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        // Section 4.1: a line ends with a line feed. Some servers send carriage returns only, or a line feed behind the last one.
        let has_returns_only = text.contains(&b'\r') && !text.trim_ascii().contains(&b'\n');
        let end = if has_returns_only { b'\r' } else { b'\n' };
        let number = text[..blank].iter().filter(|byte| **byte == end).count();
        let rest = text[blank..].strip_prefix(b"#EXTM3U");
        let is_whole_word = |rest: &&[u8]| rest.first().is_none_or(u8::is_ascii_whitespace);
        match rest.filter(is_whole_word) {
            Some(rest) => {
                // Lists of stations have attributes behind the head.
                let behind = rest.iter().position(|byte| *byte == end).unwrap_or(rest.len());
                Ok(Self { rest: &rest[behind..], end, number, tag: "", left_out: LeftOut::default() })
            }
            None if text[blank..].starts_with(b"<") => Err(PlaylistError::whole(PlaylistProblem::Markup)),
            None => Err(PlaylistError::whole(PlaylistProblem::NotAPlaylist)),
        }
    }

    /// The kind of the playlist: that of its first segment or variant. Without any, that of the first tag that belongs to one kind
    /// only.
    pub(super) fn kind(&self) -> Result<Kind, PlaylistError> {
        let mut ahead = Lines { tag: "", left_out: LeftOut::default(), ..*self };
        let (mut first, mut stray) = (None, None);
        while let Some(line) = ahead.next()? {
            match line {
                // Section 4.1 refuses tags of both kinds. Many multivariant playlists begin with the head of a media playlist all the
                // same, and some media playlists have a session key. Other players ignore what is of the wrong kind.
                Line::Tag("EXTINF", _) => return Ok(Kind::Media),
                Line::Tag("EXT-X-STREAM-INF", _) => return Ok(Kind::Multivariant),
                Line::Tag(name, _) => {
                    first = first.or(Some(kind_of(name)).filter(|kind| *kind != Kind::Either))
                }
                Line::Uri(_) => stray = stray.or(Some(ahead.error(PlaylistProblem::UriWithoutTag))),
            }
        }
        first.ok_or_else(|| stray.unwrap_or_else(|| PlaylistError::whole(PlaylistProblem::UnknownKind)))
    }

    pub(super) fn next(&mut self) -> Result<Option<Line<'a>>, PlaylistError> {
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|byte| *byte == self.end).unwrap_or(self.rest.len());
            let (line, rest) = self.rest.split_at(end);
            self.rest = rest.get(1..).unwrap_or_default();
            // The end of the first line is passed here first, so the number is that of the line before.
            self.number += 1;
            if self.number > MOST_LINES {
                return Err(PlaylistError::whole(PlaylistProblem::TooManyLines(MOST_LINES)));
            }
            if let Some(line) = self.read(line.trim_ascii())? {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn read(&mut self, line: &'a [u8]) -> Result<Option<Line<'a>>, PlaylistError> {
        self.tag = "";
        let Some(tag) = line.strip_prefix(b"#") else {
            return if line.is_empty() { Ok(None) } else { self.text(line).map(|uri| Some(Line::Uri(uri))) };
        };
        let end = tag.iter().position(|byte| *byte == b':').unwrap_or(tag.len());
        let known = TAGS.iter().find(|(name, _)| name.as_bytes() == &tag[..end]);
        // Section 6.3.1: comments and unknown tags are ignored, also those that are not UTF-8.
        let Some((name, _)) = known else { return Ok(None) };
        self.tag = name;
        let value = tag.get(end + 1..).unwrap_or_default();
        // Section 4.1 demands UTF-8. Names and titles of old servers are not: of these, letters are lost.
        let is_lossy = *name == "EXTINF" || OPTIONAL.contains(name);
        let value = if is_lossy { String::from_utf8_lossy(value) } else { Cow::Borrowed(self.text(value)?) };
        Ok(Some(Line::Tag(name, value)))
    }

    fn text(&self, bytes: &'a [u8]) -> Result<&'a str, PlaylistError> {
        str::from_utf8(bytes).map_err(|_| self.error(PlaylistProblem::NotUtf8))
    }

    /// Ends the playlist with a problem of the line that was returned last, or leaves out the line.
    pub(super) fn check(&mut self, result: Result<(), PlaylistProblem>) -> Result<(), PlaylistError> {
        let Err(problem) = result else { return Ok(()) };
        // A line without a tag is no segment, and other players pass over it.
        let is_optional = OPTIONAL.contains(&self.tag) || problem == PlaylistProblem::UriWithoutTag;
        if !(problem.is_of_one_tag() && is_optional) {
            return Err(self.error(problem));
        }
        self.left_out.count += 1;
        if self.left_out.first.is_none() {
            self.left_out.first = Some(self.error(problem));
        }
        Ok(())
    }

    /// All lines were read: returns what was wrong with the first one that was left out.
    pub(super) fn finish(&mut self) -> Option<PlaylistError> {
        let LeftOut { count, first } = std::mem::take(&mut self.left_out);
        // Once for each playlist: a live one may have a thousand such lines, and be loaded every second.
        if let Some(error) = &first {
            log::debug!("{count} lines were left out of a playlist, the first one because of {error}");
        }
        first
    }

    /// An error of the line that was returned last.
    pub(super) fn error(&self, problem: PlaylistProblem) -> PlaylistError {
        PlaylistError { line: self.number, tag: self.tag.to_owned(), problem }
    }
}

/// True if the text begins as a playlist does.
#[cfg(feature = "cache")]
pub(crate) fn is_playlist(text: &[u8]) -> bool {
    Lines::new(text).is_ok()
}

/// True for the line of a tag in the table.
#[cfg(feature = "cache")]
pub(crate) fn has_known_tag(line: &str) -> bool {
    let tag = line.strip_prefix('#').and_then(|tag| tag.split(':').next());
    tag.is_some_and(|tag| TAGS.iter().any(|(name, _)| *name == tag.trim_end()))
}

fn kind_of(name: &str) -> Kind {
    TAGS.iter().find(|(known, _)| *known == name).map_or(Kind::Either, |(_, kind)| *kind)
}
