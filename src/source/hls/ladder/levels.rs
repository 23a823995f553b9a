//! Which media playlists can be played, at which rates, and on which servers.
//!
//! A *level* is one version of the audio, as the user sees it. A *variant* is a media playlist that has it: that of a variant
//! stream, with one of its renditions (section 4.4.6.2). Redundant variants (section 6.2.4) and the pathways of content steering
//! (section 7) have the same level. Variants of all renditions are in one list, so that their indices stay valid when the user
//! chooses another rendition.

use std::time::Instant;

use url::Url;

use crate::error::Error;

/// Media playlists that are considered, at most. Each variant has one for each rendition of its group, so a hostile list could
/// make millions.
pub(crate) const MOST_VARIANTS: usize = 4096;

/// One version of the audio, with its own media playlist.
///
/// [`HlsHandle`](crate::hls::HlsHandle) shows an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelInfo {
    /// Peak rate in bits per second, as the playlist gives it. 0 if it is unknown: there is only a media playlist, or the rate is
    /// missing. Levels of unknown rate are used only where the rate of no other is known.
    pub bandwidth: u64,
    /// Codecs as RFC 6381 names them.
    pub codecs: Vec<Box<str>>,
    /// Name of the rendition or of the variant.
    pub name: Option<Box<str>>,
    /// Language of the rendition.
    pub language: Option<Box<str>>,
}

/// An alternative version of the audio, such as a language.
///
/// [`HlsHandle::renditions`](crate::hls::HlsHandle::renditions) returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RenditionInfo {
    /// Name to show, in the language of `language`.
    pub name: Box<str>,
    /// Language as RFC 5646 writes it.
    pub language: Option<Box<str>>,
    /// To be played if the user has no preference.
    pub is_default: bool,
    /// For example `2` or `6/-/BINAURAL`.
    pub channels: Option<Box<str>>,
    /// Uniform type identifiers, separated by commas. `public.accessibility.describes-video` is an audio description.
    pub characteristics: Option<Box<str>>,
}

/// A media playlist that can be played: that of a variant stream, with one of its renditions.
#[derive(Clone, Debug)]
pub(crate) struct VariantStream {
    /// Index in the levels of its rendition.
    pub(crate) level: usize,
    pub(crate) rendition: usize,
    pub(crate) url: Url,
    /// Content steering pathway.
    pub(crate) pathway: Box<str>,
    /// `STABLE-VARIANT-ID` and `STABLE-RENDITION-ID`, for clones of pathways.
    pub(crate) stable: [Option<Box<str>>; 2],
    /// It failed, and is not used before this time.
    pub(crate) excluded_until: Option<Instant>,
    /// Its live playlist had not changed for some time when it was last loaded, so what it shows is old.
    pub(crate) is_stale: bool,
    /// It had not changed for so long that it is not written any more, as it seems.
    pub(crate) is_stuck: bool,
    /// When its server had last answered a request for its playlist, with the playlist or with a refusal.
    pub(crate) asked_at: Option<Instant>,
    /// The last load of its playlist. `None` again once another one is used instead.
    pub(crate) last_load: Option<Load>,
    /// When a load of its playlist had last brought something new.
    pub(crate) last_change: Option<Instant>,
    /// The application has given a fresh URL for its playlist, which has not come since.
    pub(crate) is_refreshed: bool,
}

/// When a playlist was loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// When it was requested. Section 6.3.4: the next load is due by this moment.
    pub(crate) began: Instant,
    /// When it had arrived.
    pub(crate) ended: Instant,
}

#[cfg(test)]
impl Load {
    /// One that took no time.
    pub(crate) fn at(now: Instant) -> Self {
        Self { began: now, ended: now }
    }
}

impl VariantStream {
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        self.excluded_until.is_none_or(|until| until <= now)
    }
}

/// All that can be played.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    /// Empty if the variants have no audio renditions.
    pub(crate) renditions: Vec<RenditionInfo>,
    /// Levels of each rendition, by ascending rate. At least one list; that of a rendition that can't be played is empty.
    pub(super) levels: Vec<Vec<LevelInfo>>,
    /// Never shrinks.
    pub(crate) variants: Vec<VariantStream>,
    /// The rendition to start with.
    pub(crate) first: usize,
    /// Renditions that can be played, by preference.
    pub(crate) order: Vec<usize>,
    /// Name of the rendition that is preferred to `first` and can't be played, and why.
    pub(crate) left_out: Option<(Box<str>, Error)>,
}

impl Ladder {
    /// The same, with another rendition to start with.
    pub(crate) fn starting_with(&self, first: usize) -> Self {
        Self { first, ..self.clone() }
    }

    /// The ladder of a single media playlist: one level.
    pub(crate) fn single(url: Url) -> Self {
        let info = LevelInfo { bandwidth: 0, codecs: Vec::new(), name: None, language: None };
        let variant = VariantStream {
            level: 0,
            rendition: 0,
            url,
            // Section 4.4.6.2: the pathway of a variant that names none.
            pathway: ".".into(),
            stable: [None, None],
            excluded_until: None,
            is_stale: false,
            is_stuck: false,
            asked_at: None,
            last_load: None,
            last_change: None,
            is_refreshed: false,
        };
        Self {
            renditions: Vec::new(),
            levels: vec![vec![info]],
            variants: vec![variant],
            first: 0,
            order: vec![0],
            left_out: None,
        }
    }

    /// Takes the URLs of a ladder that was made from the same text but for values of queries.
    #[cfg(feature = "cache")]
    pub(crate) fn take_urls(&mut self, other: &Self) {
        for (variant, other) in self.variants.iter_mut().zip(&other.variants) {
            variant.url = other.url.clone();
        }
    }

    pub(crate) fn levels(&self, rendition: usize) -> &[LevelInfo] {
        self.levels.get(rendition).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn bitrates(&self, rendition: usize) -> Vec<u64> {
        self.levels(rendition).iter().map(|level| level.bandwidth).collect()
    }
}
