//! How an application changes single requests: headers, and fresh URLs.

use std::fmt;
use std::sync::Arc;

use url::Url;

use crate::error::{Error, ErrorKind};
use crate::foreign::Foreign;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// A multivariant or media playlist.
    Playlist,
    /// A key.
    Key,
    /// An initialization section.
    InitializationSection,
    /// A segment, or a part of one.
    Segment,
    /// A steering manifest.
    Steering,
    /// A file that is no playlist, or a range of it: [`FileConfig::hook`](crate::FileConfig::hook), or the hook of a download.
    File,
    /// A station: [`RadioConfig::hook`](crate::RadioConfig::hook).
    Station,
}

/// Gives requests headers, and fresh URLs for those that a server refuses.
///
/// The methods run on worker threads, several at once, and must not block for long: the worker is lost to others meanwhile. While all
/// workers are busy, a read that blocks calls them on its own thread. Until they return, neither its time limit nor an interrupt ends
/// that read.
///
/// They may request by [`PeerHandle::execute`](crate::downloader::PeerHandle::execute), which runs on their thread and waits for
/// no worker: the guide [`network`](crate::guide::network) shows it. The [crate's documentation](crate) lists the other calls that
/// they may make. The result of a method that panics is the default.
///
/// ```
/// use windway::FileConfig;
/// use windway::config::{Hook, RequestHook, RequestKind};
///
/// struct Account(String);
///
/// impl Account {
///     fn sign(&self, url: &str) -> String {
///         format!("{}?token={}", url.split('?').next().unwrap_or_default(), self.0)
///     }
/// }
///
/// impl RequestHook for Account {
///     fn headers(&self, _: RequestKind, url: &str) -> Vec<(String, String)> {
///         let is_ours = url.starts_with("https://media.example.com/");
///         if is_ours { vec![("authorization".into(), format!("Bearer {}", self.0))] } else { Vec::new() }
///     }
///
///     fn fresh_url(&self, _: RequestKind, url: &str, _: u16) -> Option<String> {
///         Some(self.sign(url))
///     }
/// }
///
/// let config = FileConfig::new().hook(Hook::new(Account("1234".into())));
/// ```
pub trait RequestHook: Send + Sync {
    /// Headers for a request, beside the `headers` of the configuration. They are sent to the origin of `url` only, which may be
    /// any origin that a playlist or a list of mirrors names: check it before you send a secret. It is called for each request,
    /// so a token that expires can be replaced in time. Default: none.
    fn headers(&self, kind: RequestKind, url: &str) -> Vec<(String, String)> {
        let _ = (kind, url); // Unused by default: most presentations need no headers.
        Vec::new()
    }

    /// Gives the application the `WWW-Authenticate` header of a response with status 401, which says how the server wants to be
    /// shown who asks: see [`Error::challenge`]. Called before [`fresh_url`](Self::fresh_url). If that returns `url` itself, the
    /// request is repeated, with new `headers`. The guide [`network`](crate::guide::network) answers digest authentication by
    /// it. Default: ignored.
    fn challenged(&self, kind: RequestKind, url: &str, challenge: &str) {
        let _ = (kind, url, challenge); // Unused by default: most credentials are shown without a challenge.
    }

    /// A fresh URL in place of one for which the server has answered 401, 403 or 410. It is asked for once for each segment,
    /// key, and request of a playlist, a file or a station, and replaces `url` from then on. What is stored is kept: the
    /// resource behind a fresh URL has to be the same. Default: none; then mirrors are tried, or the playlist is loaded again.
    fn fresh_url(&self, kind: RequestKind, url: &str, status: u16) -> Option<String> {
        let _ = (kind, url, status); // Unused by default: a reload of the playlist brings fresh URLs.
        None
    }

    /// A fresh URL in place of one that is about to expire, before a request to it. For files and stations; the URLs of HLS
    /// come from its playlists. Default: none; then `url` is requested.
    fn renewed_url(&self, kind: RequestKind, url: &str) -> Option<String> {
        let _ = (kind, url); // Unused by default: most URLs never expire.
        None
    }

    /// The key of HLS at `url`, if the application has it: then it is not requested. A playlist that comes from the cache has
    /// URLs without the values of their queries. Default: none.
    fn key(&self, url: &str) -> Option<Vec<u8>> {
        let _ = url; // Unused by default: keys are requested.
        None
    }
}

/// A [`RequestHook`], as a configuration holds it.
///
/// ```
/// use windway::FileConfig;
/// use windway::config::{Hook, RequestHook};
///
/// struct Nothing;
/// impl RequestHook for Nothing {}
///
/// let config = FileConfig::new().hook(Hook::new(Nothing));
/// ```
#[derive(Clone)]
pub struct Hook(Arc<Foreign<Box<dyn RequestHook>>>);

impl Hook {
    /// Keeps `hook`.
    pub fn new(hook: impl RequestHook + 'static) -> Self {
        Self(Arc::new(Foreign::new(Box::new(hook))))
    }

    pub(crate) fn headers(&self, kind: RequestKind, url: &Url) -> Vec<(String, String)> {
        self.0.call_hook("RequestHook::headers", |hook| hook.headers(kind, url.as_str())).unwrap_or_default()
    }

    /// The key at `url`, if the application has it.
    #[cfg(feature = "hls")]
    pub(crate) fn key(&self, url: &Url) -> Option<Vec<u8>> {
        self.0.call_hook("RequestHook::key", |hook| hook.key(url.as_str())).ok().flatten()
    }

    /// A fresh URL for `url`, which was refused with `error`.
    pub(crate) fn fresh_url(&self, kind: RequestKind, url: &Url, error: &Error) -> Option<Url> {
        let status = error.status().filter(|_| is_refusal(error))?;
        if let Some(challenge) = error.challenge() {
            let challenged = self
                .0
                .call_hook("RequestHook::challenged", |hook| hook.challenged(kind, url.as_str(), challenge));
            // A panic was logged. Without an answer to the challenge the server refuses the request again.
            let _ = challenged;
        }
        self.url_from("RequestHook::fresh_url", |hook| hook.fresh_url(kind, url.as_str(), status))
    }

    /// A fresh URL for `url`, which is about to expire.
    pub(crate) fn renewed_url(&self, kind: RequestKind, url: &Url) -> Option<Url> {
        self.url_from("RequestHook::renewed_url", |hook| hook.renewed_url(kind, url.as_str()))
    }

    fn url_from(&self, name: &str, call: impl FnOnce(&dyn RequestHook) -> Option<String>) -> Option<Url> {
        // A panic was logged, and counts as none.
        let url = self.0.call_hook(name, |hook| call(&**hook)).ok().flatten()?;
        Url::parse(&url)
            .map_err(|cause| {
                let error = Error::new(ErrorKind::InvalidUrl, format!("{name} returned no URL"));
                log::warn!("{}", error.with_cause(cause));
            })
            .ok()
    }
}

/// True for the answers to a URL or to credentials that have expired: 401, 403, 410.
pub(crate) fn is_refusal(error: &Error) -> bool {
    // Not 404: an expired signature is answered with 403 or 410, an expired session with 401. A missing file is missing under a
    // fresh URL too.
    matches!(error.status(), Some(401 | 403 | 410))
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
