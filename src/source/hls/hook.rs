//! What an application may say about single requests.

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
}

/// Gives requests headers, and fresh URLs for those that a server refuses.
///
/// The methods run on worker threads, several at once, and must not block for long: the worker is lost to others meanwhile.
/// The [crate's documentation](crate) lists the calls that they may make. The result of one that panics is the default.
///
/// ```
/// use windway::hls::{Hook, HlsConfig, RequestHook, RequestKind};
///
/// struct Keys(String);
///
/// impl RequestHook for Keys {
///     fn headers(&self, kind: RequestKind, url: &str) -> Vec<(String, String)> {
///         let is_ours = kind == RequestKind::Key && url.starts_with("https://keys.example.com/");
///         if is_ours { vec![("authorization".into(), self.0.clone())] } else { Vec::new() }
///     }
/// }
///
/// let mut config = HlsConfig::default();
/// config.hook = Some(Hook::new(Keys("Bearer 1234".into())));
/// ```
pub trait RequestHook: Send + Sync {
    /// Headers for a request, beside [`HlsConfig::headers`](super::HlsConfig::headers). They are sent to the origin of `url`
    /// only, which may be any origin that the playlist names: check it before you send a secret. Default: none.
    fn headers(&self, kind: RequestKind, url: &str) -> Vec<(String, String)> {
        let _ = (kind, url); // Unused by default: most presentations need no headers.
        Vec::new()
    }

    /// A fresh URL in place of one for which the server has answered 401, 403 or 410. It is asked for once for each segment
    /// and key. Default: none; then the playlist is loaded again, and other variants are tried.
    fn fresh_url(&self, kind: RequestKind, url: &str, status: u16) -> Option<String> {
        let _ = (kind, url, status); // Unused by default: a reload of the playlist brings fresh URLs.
        None
    }
}

/// A [`RequestHook`], as a configuration holds it.
#[derive(Clone)]
pub struct Hook(Arc<Foreign<Box<dyn RequestHook>>>);

impl Hook {
    /// Keeps `hook`.
    pub fn new(hook: impl RequestHook + 'static) -> Self {
        Self(Arc::new(Foreign::new(Box::new(hook))))
    }

    pub(super) fn headers(&self, kind: RequestKind, url: &Url) -> Vec<(String, String)> {
        self.0
            .call_shared("RequestHook::headers", |hook| hook.headers(kind, url.as_str()))
            .unwrap_or_default()
    }

    /// A fresh URL for `url`, which was refused with `error`.
    pub(super) fn fresh_url(&self, kind: RequestKind, url: &Url, error: &Error) -> Option<Url> {
        let status = error.status().filter(|status| matches!(status, 401 | 403 | 410))?;
        let fresh =
            self.0.call_shared("RequestHook::fresh_url", |hook| hook.fresh_url(kind, url.as_str(), status));
        let fresh = fresh.ok().flatten()?;
        Url::parse(&fresh)
            .map_err(|cause| {
                let error = Error::new(ErrorKind::InvalidUrl, "RequestHook::fresh_url returned no URL");
                log::warn!("{}", error.with_cause(cause));
            })
            .ok()
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
