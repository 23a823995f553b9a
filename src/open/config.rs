//! Options of `open_any`.

use std::fmt;

use crate::cancel::CancelHandle;
use crate::config::setters::setters;
use crate::config::{FileConfig, RadioConfig};
#[cfg(feature = "queue")]
use crate::queue::ListRules;
#[cfg(feature = "hls")]
use crate::source::hls::HlsConfig;

/// Options of [`Downloader::open_any_with`](crate::Downloader::open_any_with), for each kind of media.
///
/// `mirrors` and a key of the cache name one resource: the one that the opened URL leads to by itself. If the URL leads to a list
/// with one track, they are ignored for that track, which may be another one tomorrow.
///
/// ```
/// use windway::config::StorageConfig;
/// use windway::{FileConfig, OpenConfig};
///
/// let config = OpenConfig::new()
///     .file(FileConfig::new().storage(StorageConfig::TempFile(None)))
///     .headers([("x-station".into(), "7".into())]);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct OpenConfig {
    /// Options of a file. Its `read_timeout` also limits how long the opening blocks without progress until the kind of media is
    /// known, and for how long the server may ask to wait before the first request is repeated.
    pub file: FileConfig,
    /// Options of a station.
    pub radio: RadioConfig,
    /// Options of an HLS presentation.
    #[cfg(feature = "hls")]
    pub hls: HlsConfig,
    /// Where entries of lists of tracks may lead.
    #[cfg(feature = "queue")]
    pub lists: ListRules,
    /// Headers sent to the URL's origin, and to no other, with every request. Those of `file`, `radio` and `hls` are sent in
    /// addition, but not with the first request. Default: none.
    pub headers: Vec<(String, String)>,
    /// Cancels the opening from another thread, and not what it returns, which has a handle of its own. Default: none.
    pub cancel: Option<CancelHandle>,
}

setters!(OpenConfig {
    file: FileConfig,
    radio: RadioConfig,
} into {
    headers: Vec<(String, String)>,
    cancel: Option<CancelHandle>,
});

#[cfg(feature = "hls")]
impl OpenConfig {
    /// Sets [`hls`](Self#structfield.hls).
    #[must_use]
    pub fn hls(mut self, hls: HlsConfig) -> Self {
        self.hls = hls;
        self
    }
}

#[cfg(feature = "queue")]
impl OpenConfig {
    /// Sets [`lists`](Self#structfield.lists).
    #[must_use]
    pub fn lists(mut self, lists: ListRules) -> Self {
        self.lists = lists;
        self
    }
}

impl OpenConfig {
    /// Without all headers: for an origin that they are not meant for.
    pub(super) fn without_headers(mut self) -> Self {
        self.headers.clear();
        self.file.headers.clear();
        self.radio.headers.clear();
        #[cfg(feature = "hls")]
        self.hls.headers.clear();
        self
    }

    /// Without what names one resource: for another one.
    #[cfg(feature = "queue")]
    pub(super) fn without_names(mut self) -> Self {
        self.file.mirrors.clear();
        self.radio.mirrors.clear();
        #[cfg(feature = "cache")]
        {
            #[cfg(feature = "hls")]
            let caches = [&mut self.file.cache, &mut self.hls.cache];
            #[cfg(not(feature = "hls"))]
            let caches = [&mut self.file.cache];
            caches.into_iter().flatten().for_each(|cache| cache.key = None);
        }
        self
    }
}

// By hand, because values of headers must not be shown.
impl fmt::Debug for OpenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OpenConfig");
        shown.field("file", &self.file).field("radio", &self.radio);
        #[cfg(feature = "hls")]
        shown.field("hls", &self.hls);
        #[cfg(feature = "queue")]
        shown.field("lists", &self.lists);
        shown.field("cancel", &self.cancel);
        shown.field("headers", &format_args!("{} headers", self.headers.len())).finish_non_exhaustive()
    }
}
