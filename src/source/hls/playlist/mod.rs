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
mod date_time;
mod error;
mod lines;
mod media;
mod multivariant;
mod uri;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use url::Url;

use self::lines::{Kind, Lines};

pub use error::{PlaylistError, PlaylistProblem};
pub use media::{
    DateRange, Key, KeyMethod, Map, MediaPlaylist, Part, PlaylistType, PreloadHint, RenditionReport, Segment,
    ServerControl,
};
pub use multivariant::{ContentSteering, MediaType, MultivariantPlaylist, Rendition, SessionData, Variant};
pub use uri::Uri;

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

/// Where playback should start (`EXT-X-START`, section 4.4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Start {
    /// Distance from the beginning, or from the end of the last segment.
    pub offset: Duration,
    /// The offset counts backwards from the end.
    pub is_from_end: bool,
    /// Samples of the segment before the offset should not be played.
    pub is_precise: bool,
}

/// What a playlist depends on beside its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// The URL that the playlist came from, after redirects.
    pub(crate) url: &'a Url,
    /// Variables of the multivariant playlist, for `EXT-X-DEFINE` with `IMPORT`.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// The previous version of a media playlist, for `EXT-X-SKIP`.
    pub(crate) previous: Option<&'a MediaPlaylist>,
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
            _ => media::parse(&mut lines, context).map(Self::Media),
        }
    }
}

impl MediaPlaylist {
    /// Presentation time of the beginning of the first segment at `date_time`, for playlists with dates.
    pub fn date_time_at(&self, index: usize) -> Option<SystemTime> {
        // Section 4.4.4.6: dates are extrapolated, backwards too, by the durations of the segments between.
        let dated = |(at, segment): (usize, &Segment)| segment.date_time.map(|date| (at, date));
        let between =
            |segments: &[Segment]| segments.iter().map(|segment| segment.duration).sum::<Duration>();
        let before = self.segments.get(..=index)?.iter().enumerate().rev().find_map(dated);
        if let Some((at, date)) = before {
            return date.checked_add(between(&self.segments[at..index]));
        }
        let (at, date) = self.segments.iter().enumerate().skip(index).find_map(dated)?;
        date.checked_sub(between(&self.segments[index..at]))
    }
}
