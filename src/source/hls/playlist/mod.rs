//! Playlists: the text of a media or multivariant playlist, parsed. No I/O, no clock.
//!
//! ```text
//!   bytes ─▶ lines ─▶ tag table: which kind? ─┬─▶ media         ─▶ MediaPlaylist
//!                        attributes,          └─▶ multivariant  ─▶ MultivariantPlaylist
//!                        variables, dates
//! ```
//!
//! Section numbers refer to draft-pantos-hls-rfc8216bis-22. Where servers are known to break a rule in a way that does not
//! change the meaning, the parser accepts it; a comment names each such place.

mod attributes;
mod context;
mod date_time;
mod define;
mod error;
mod key;
mod lines;
mod media;
mod media_parser;
mod multivariant;
mod start;
mod uri;
mod values;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use url::Url;

use self::lines::{Kind, Lines};

pub(crate) use self::context::Context;
pub use self::error::{PlaylistError, PlaylistProblem};
pub use self::key::{Key, KeyMethod};
pub(crate) use self::lines::MOST_BYTES;
#[cfg(feature = "cache")]
pub(crate) use self::lines::{has_known_tag, is_playlist};
pub use self::media::{
    DateRange, Map, MediaPlaylist, Part, PlaylistType, PreloadHint, RenditionReport, Segment, ServerControl,
};
pub use self::multivariant::{
    ContentSteering, MediaType, MultivariantPlaylist, Rendition, SessionData, Variant,
};
pub use self::start::Start;
pub use self::uri::Uri;

/// A parsed HLS playlist.
///
/// ```
/// use windway::hls::Playlist;
///
/// let text = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=128000,CODECS=\"mp4a.40.2\"\naac/list.m3u8\n";
/// let Playlist::Multivariant(playlist) = Playlist::parse(text, "http://host/radio.m3u8")? else { panic!() };
/// assert_eq!(playlist.variants[0].bandwidth, 128_000);
/// # Ok::<(), windway::hls::PlaylistError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Playlist {
    /// A list of segments.
    Media(MediaPlaylist),
    /// A list of variants, each with its own media playlist.
    Multivariant(MultivariantPlaylist),
}

impl Playlist {
    /// Parses a playlist that was fetched from `url`, after redirects.
    ///
    /// # Errors
    ///
    /// A [`PlaylistError`], which names the line and the tag. Text of more than 16 MiB or 1 000 000 lines is refused.
    pub fn parse(text: &[u8], url: &str) -> Result<Self, PlaylistError> {
        let invalid = || PlaylistError::whole(PlaylistProblem::InvalidValue("URL of the playlist"));
        let url = Url::parse(url).map_err(|_| invalid())?;
        let variables = BTreeMap::new();
        Self::parse_in(text, Context { url: &url, variables: &variables, previous: None })
    }

    pub(crate) fn parse_in(text: &[u8], context: Context<'_>) -> Result<Self, PlaylistError> {
        let mut lines = Lines::new(text)?;
        match lines.kind()? {
            Kind::Multivariant => multivariant::parse(&mut lines, context).map(Self::Multivariant),
            _ => media_parser::parse(&mut lines, context).map(Self::Media),
        }
    }
}
