//! What is wrong with a playlist, and where.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// The reason why a playlist can't be used, with the line and the tag.
///
/// It is the [cause](std::error::Error::source) of an [`Error`] of kind [`ErrorKind::InvalidPlaylist`]. Shows names of
/// tags and attributes, and never a URI or a value: they may contain secrets.
///
/// ```
/// use windway::hls::{Playlist, PlaylistProblem};
///
/// let text = b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:x\n#EXTINF:6,\n0.ts\n";
/// let error = Playlist::parse(text, "http://host/a.m3u8").unwrap_err();
/// assert_eq!((error.line, error.tag.as_str()), (3, "EXT-X-MEDIA-SEQUENCE"));
/// assert_eq!(error.problem, PlaylistProblem::InvalidValue("media sequence number"));
/// assert_eq!(error.to_string(), "line 3, EXT-X-MEDIA-SEQUENCE: media sequence number has an invalid value");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaylistError {
    /// Number of the line, from 1. 0 if the error is about the playlist as a whole.
    pub line: usize,
    /// Name of the tag without the `#`. Empty if the line is a URI, or if the error is about the whole playlist.
    pub tag: String,
    /// What is wrong.
    pub problem: PlaylistProblem,
}

/// What is wrong with a playlist.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaylistProblem {
    /// The text does not begin with `#EXTM3U`.
    NotAPlaylist,
    /// The text is markup, such as the login page of a network.
    Markup,
    /// The text has tags of neither a media playlist nor a multivariant playlist.
    UnknownKind,
    /// The playlist has more bytes than this limit.
    TooLarge(usize),
    /// The playlist has more lines than this limit.
    TooManyLines(usize),
    /// The tag has more attributes than this limit.
    TooManyAttributes(usize),
    /// More keys than this limit apply to one segment.
    TooManyKeys(usize),
    /// The variables of the playlist expand to more bytes than this limit.
    ExpandsTooFar(usize),
    /// The line is not UTF-8.
    NotUtf8,
    /// The playlist has both segments and variants.
    MixedKinds,
    /// The attribute list has a syntax error.
    AttributeSyntax,
    /// The attribute occurs twice, with different values.
    DuplicateAttribute(String),
    /// The tag requires this attribute.
    MissingAttribute(&'static str),
    /// The attribute, or the named part of the value, can't be parsed.
    InvalidValue(&'static str),
    /// The tag requires an attribute that windway does not know. Such attributes begin with `REQ-`.
    UnknownRequirement(String),
    /// The playlist refers to a variable that it does not define.
    UndefinedVariable(String),
    /// The variable is defined twice.
    DuplicateVariable(String),
    /// The byte range has no offset, and the line before it is not a range of the same resource.
    NoOffset,
    /// A number exceeds 64 bits.
    Overflow,
    /// The URI has no `#EXTINF` before it, and no other URI has.
    UriWithoutTag,
    /// No URI line follows the tag, and no other has one.
    NoUri,
    /// The tag must stand before the first segment.
    AfterFirstSegment,
    /// An initialization section that is encrypted with AES-128 requires an explicit IV.
    MapWithoutIv,
    /// The update skips segments that are not in the previous playlist, or has others under the numbers of those that are.
    Unmergeable,
}

/// A name as an error shows it: on one line, and not longer than that.
struct Shown<'a>(&'a str);

/// Characters of a name that are shown.
const MOST_SHOWN: usize = 64;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(MOST_SHOWN).map(|(end, _)| end);
        write!(f, "{}", self.0[..end.unwrap_or(self.0.len())].escape_debug())?;
        if end.is_some() { f.write_str("…") } else { Ok(()) }
    }
}

impl PlaylistProblem {
    /// True if what is wrong concerns nothing but its tag.
    pub(super) fn is_of_one_tag(&self) -> bool {
        // Section 4.4.2.3: a playlist with an undefined variable must be refused. The limits guard memory, whichever tag meets them.
        !matches!(self, Self::MixedKinds | Self::UndefinedVariable(_) | Self::ExpandsTooFar(_))
    }
}

impl PlaylistError {
    pub(super) fn whole(problem: PlaylistProblem) -> Self {
        Self { line: 0, tag: String::new(), problem }
    }
}

impl fmt::Display for PlaylistProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPlaylist => f.write_str("not an HLS playlist: the text does not begin with #EXTM3U"),
            Self::Markup => f.write_str("not an HLS playlist but markup, such as a login page"),
            Self::UnknownKind => f.write_str(
                "not an HLS playlist: it has neither segments nor variants, nor a target duration",
            ),
            Self::TooLarge(limit) => write!(f, "the playlist is larger than {limit} bytes"),
            Self::TooManyLines(limit) => write!(f, "the playlist has more than {limit} lines"),
            Self::TooManyAttributes(limit) => write!(f, "more than {limit} attributes"),
            Self::TooManyKeys(limit) => write!(f, "more than {limit} keys of one segment"),
            Self::ExpandsTooFar(limit) => write!(f, "the variables expand to more than {limit} bytes"),
            Self::NotUtf8 => f.write_str("the line is not UTF-8"),
            Self::MixedKinds => {
                f.write_str("segments of a media playlist and variants of a multivariant playlist are mixed")
            }
            Self::AttributeSyntax => f.write_str("syntax error in the attribute list"),
            Self::DuplicateAttribute(name) => write!(f, "attribute {} occurs twice", Shown(name)),
            Self::MissingAttribute(name) => write!(f, "attribute {name} is missing"),
            Self::InvalidValue(name) => write!(f, "{name} has an invalid value"),
            Self::UnknownRequirement(name) => write!(f, "requires {}, which is not supported", Shown(name)),
            Self::UndefinedVariable(name) => write!(f, "variable {} is not defined", Shown(name)),
            Self::DuplicateVariable(name) => write!(f, "variable {} is defined twice", Shown(name)),
            Self::NoOffset => {
                f.write_str("the byte range has no offset and follows no range of the same resource")
            }
            Self::Overflow => f.write_str("a number exceeds 64 bits"),
            Self::UriWithoutTag => f.write_str("the URI has no tag before it"),
            Self::NoUri => f.write_str("no URI follows the tag"),
            Self::AfterFirstSegment => f.write_str("the tag must stand before the first segment"),
            Self::MapWithoutIv => f.write_str("the initialization section is encrypted, but has no IV"),
            Self::Unmergeable => {
                f.write_str("the update does not fit the previous playlist: it skips other segments")
            }
        }
    }
}

impl fmt::Display for PlaylistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.tag.as_str()) {
            (0, _) => write!(f, "{}", self.problem),
            (line, "") => write!(f, "line {line}: {}", self.problem),
            (line, tag) => write!(f, "line {line}, {tag}: {}", self.problem),
        }
    }
}

impl StdError for PlaylistError {}

impl From<PlaylistError> for Error {
    fn from(error: PlaylistError) -> Self {
        Self::new(ErrorKind::InvalidPlaylist, error.to_string()).with_cause(error)
    }
}
