//! What a playlist depends on beside its text.

use std::collections::BTreeMap;

use url::Url;

use super::media::MediaPlaylist;

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
