//! Requests to be sent.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::alternates::Alternates;
use super::exchange::{Over, Reach};
use super::head::{ResponseHead, Validator};
use super::header_fields::{parse_header, parse_headers, take_userinfo};
use super::net::private::is_private;
use super::uri_policy::UriPolicy;
use crate::error::{Error, ErrorKind};
use crate::hook::{Hook, RequestKind};
use crate::origin::Origin;
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::types::ByteRange;

/// Longest silence limit of a long poll. Servers answer long polls within minutes; the limit keeps sums of durations from
/// overflowing.
const MAX_HOLD: Duration = Duration::from_secs(24 * 3600);

/// A GET request to be sent. Cheap to clone, because hedged requests share it.
#[derive(Clone)]
pub(crate) struct Request(Arc<Parts>);

#[derive(Clone)]
pub(crate) struct Parts {
    pub(super) url: HttpUrl,
    /// The remembered redirect target, which is requested first. Never equal to `url`.
    pub(super) shortcut: Option<HttpUrl>,
    pub(super) range: Option<ByteRange>,
    /// Requests this many bytes from the end. Never set together with `range`.
    pub(super) suffix: Option<u64>,
    pub(super) headers: HeaderMap,
    /// Header fields that are also sent to other origins after a redirect.
    pub(super) open_headers: HeaderMap,
    /// Header fields for one origin, beside `headers`, which are for that of `url`.
    pub(super) scoped: Option<(Origin, HeaderMap)>,
    /// Other places of the resource: mirrors, and a hook for fresh URLs.
    pub(super) alternates: Option<Arc<Alternates>>,
    pub(super) if_range: Option<Validator>,
    /// `If-None-Match` and `If-Modified-Since`. Not secret: the validators are those of a redirect's target.
    pub(super) conditions: HeaderMap,
    /// See [`known`](Request::known).
    known: Option<Known>,
    /// Which connection the request uses.
    pub(super) over: Over,
    requires_range: bool,
    /// See [`doubt_total`](Request::doubt_total).
    doubts_total: bool,
    /// Silence limit of a long poll, instead of the client's.
    held: Option<Duration>,
    /// The body may be compressed with gzip.
    pub(super) accepts_gzip: bool,
    pub(super) reach: Reach,
    /// See [`confine`](Request::confine).
    policy: Option<UriPolicy>,
}

/// What earlier responses have shown of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Origin of the last of them.
    pub(super) origin: Origin,
    /// Length in bytes, if known.
    pub(super) len: Option<u64>,
    /// It has at least this many bytes: responses have promised them.
    pub(super) promised: u64,
}

impl Request {
    pub(crate) fn get(url: &str) -> Result<Self, Error> {
        let mut url = HttpUrl::parse(url)?;
        let mut headers = HeaderMap::new();
        if let Some(authorization) = take_userinfo(&mut url) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        Ok(Self(Arc::new(Parts {
            url,
            shortcut: None,
            range: None,
            suffix: None,
            headers,
            open_headers: HeaderMap::new(),
            scoped: None,
            alternates: None,
            if_range: None,
            conditions: HeaderMap::new(),
            known: None,
            over: Over::Any,
            requires_range: false,
            doubts_total: false,
            held: None,
            accepts_gzip: false,
            reach: Reach::Any,
            policy: None,
        })))
    }

    fn parts(&mut self) -> &mut Parts {
        Arc::make_mut(&mut self.0)
    }

    /// Sends the request to the remembered redirect target `url` first, and to its own URL only if that fails.
    pub(crate) fn shortcut(mut self, url: &SafeUrl) -> Self {
        // A target equal to the URL would be requested twice if it fails.
        let shortcut = HttpUrl::of(url).filter(|shortcut| *shortcut != self.url);
        self.parts().shortcut = shortcut;
        self
    }

    pub(super) fn remembered_target(&self) -> Option<&HttpUrl> {
        self.shortcut.as_ref()
    }

    /// Remembers `url`, which has just answered, as the new target. Does nothing if the request has no remembered target.
    pub(crate) fn adopt_target(&mut self, url: &SafeUrl) {
        if self.shortcut.is_some() {
            let target = HttpUrl::of(url).filter(|target| *target != self.url);
            if target != self.shortcut {
                self.parts().shortcut = target;
            }
        }
    }

    /// Sends the request to its own URL, without a remembered target.
    pub(crate) fn forget_target(&mut self) {
        if self.shortcut.is_some() {
            self.parts().shortcut = None;
        }
    }

    /// The URL that is requested first: the remembered target, or else its own.
    pub(super) fn start(&self) -> &HttpUrl {
        self.shortcut.as_ref().unwrap_or(&self.url)
    }

    pub(crate) fn range(mut self, range: ByteRange) -> Self {
        self.parts().range = Some(range);
        self
    }

    /// Requests the last `bytes` bytes, or all if the resource has fewer (RFC 9110, section 14.1.2). The caller should accept
    /// only a 206: a server without suffix ranges sends the whole resource.
    pub(crate) fn suffix(mut self, bytes: u64) -> Self {
        let parts = self.parts();
        // Only one of both: they share the `Range` header field.
        (parts.range, parts.suffix) = (None, Some(bytes));
        self
    }

    /// Uses a new connection, even if the pool has one.
    pub(crate) fn over_new_connection(self) -> Self {
        self.over(Over::New)
    }

    /// Follows redirects only where `policy` allows: its URL was named by a playlist, which is input from a stranger.
    #[cfg(any(feature = "hls", feature = "queue"))]
    pub(crate) fn confine(mut self, policy: UriPolicy) -> Self {
        self.parts().policy = Some(policy);
        self
    }

    /// Fails if a redirect from `from` must not lead to `to`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forbidden`].
    pub(super) fn check_redirect(&self, from: &HttpUrl, to: &HttpUrl) -> Result<(), Error> {
        self.policy.map_or(Ok(()), |policy| policy.check(from.expose(), to.expose()))
    }

    pub(crate) fn set_range(&mut self, range: ByteRange) {
        let parts = self.parts();
        (parts.range, parts.suffix) = (Some(range), None);
    }

    /// Refuses a response with the whole resource instead of the range.
    pub(crate) fn require_range(&mut self) {
        self.parts().requires_range = true;
    }

    /// Ignores a resource length that equals the end of the range: some servers send the end of the part as the total. Use it
    /// if the resource is not known to end at the end of the range; then the caller requests further ranges until a part is
    /// shorter than requested or is refused.
    pub(crate) fn doubt_total(mut self) -> Self {
        self.parts().doubts_total = true;
        self
    }

    /// Says that the resource has been served before, from `url`, that it has `len` bytes, and at least `promised`. A 416 that
    /// does not fit in with that is [`ErrorKind::NotMedia`]: it is about the page of a network that wants a login.
    pub(crate) fn known(mut self, url: Option<&SafeUrl>, len: Option<u64>, promised: u64) -> Self {
        let url = url.and_then(HttpUrl::of);
        let origin = url.as_ref().unwrap_or(&self.url).origin().clone();
        self.parts().known = Some(Known { origin, len, promised });
        self
    }

    pub(super) fn what_is_known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// The resource length from a partial response. `None` if it is doubtful: see [`doubt_total`](Self::doubt_total).
    pub(super) fn believe(&self, total: Option<u64>) -> Option<u64> {
        // Some servers send the end of the part as the total.
        let end = self.range.map(|range| range.end).filter(|_| self.doubts_total);
        total.filter(|total| Some(*total) != end)
    }

    /// Fails if `head` is that of a whole resource although a range is required.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RangeIgnored`].
    pub(crate) fn check_range(&self, head: &ResponseHead) -> Result<(), Error> {
        if head.is_partial() { Ok(()) } else { self.check_whole_allowed() }
    }

    pub(super) fn check_whole_allowed(&self) -> Result<(), Error> {
        let Some(range) = self.range.filter(|_| self.requires_range) else { return Ok(()) };
        let error = Error::new(ErrorKind::RangeIgnored, "the server ignored the range, which is required");
        Err(error.with_url(&self.url).with_range(range))
    }

    /// Makes the request a long poll: the server may be silent for `limit`.
    pub(crate) fn hold(&mut self, limit: Duration) {
        self.parts().held = Some(limit.min(MAX_HOLD));
    }

    /// Allows the server to compress the body with gzip. Offsets and lengths are those of the compressed bytes then, so this
    /// is for whole bodies only.
    #[cfg(feature = "hls")]
    pub(crate) fn accept_gzip(mut self) -> Self {
        self.parts().accepts_gzip = true;
        self
    }

    /// Fails with [`ErrorKind::Forbidden`] instead of connecting to a private address, also if a name resolves to one or a
    /// redirect leads to one. Has no effect with a proxy, which looks names up itself.
    #[cfg(any(feature = "hls", feature = "queue"))]
    pub(crate) fn public_only(mut self) -> Self {
        self.parts().reach = Reach::Public;
        self
    }

    /// Fails with [`ErrorKind::Forbidden`] if a server at a public address redirects to a private one.
    #[cfg(feature = "hls")]
    pub(crate) fn no_descent(mut self) -> Self {
        self.parts().reach = Reach::NoDescent;
        self
    }

    #[cfg(all(test, feature = "hls"))]
    pub(crate) fn is_public_only(&self) -> bool {
        self.reach == Reach::Public
    }

    /// As it goes on after a redirect from a server at `peer`.
    pub(super) fn redirected_from(&self, peer: Option<IpAddr>) -> Self {
        let mut next = self.clone();
        if self.reach == Reach::NoDescent && peer.is_some_and(|peer| !is_private(peer)) {
            next.parts().reach = Reach::Public;
        }
        next
    }

    /// Silence limit of a long poll. `None` for other requests.
    pub(crate) fn held(&self) -> Option<Duration> {
        self.held
    }

    pub(super) fn over(mut self, over: Over) -> Self {
        self.parts().over = over;
        self
    }

    /// Requests the whole resource.
    pub(crate) fn set_whole(&mut self) {
        let parts = self.parts();
        (parts.range, parts.suffix) = (None, None);
    }

    /// Goes to other places if its own URL fails: to `mirrors`, and to URLs that `hook` gives. `field` is the name of
    /// the configuration.
    pub(crate) fn alternates(
        mut self,
        field: &str,
        kind: RequestKind,
        hook: Option<&Hook>,
        mirrors: &[String],
    ) -> Result<Self, Error> {
        let mirror = |text: &String| {
            HttpUrl::parse(text).map_err(|error| {
                let why = format!("{field}::mirrors has an entry that can't be requested");
                Error::new(ErrorKind::InvalidConfig, why).with_cause(error)
            })
        };
        let mirrors = mirrors.iter().map(mirror).collect::<Result<_, _>>()?;
        let alternates = Alternates::new(&self.url, kind, hook.cloned(), mirrors);
        self.parts().alternates = alternates.map(Arc::new);
        Ok(self)
    }

    /// Sets header fields that are only sent to `origin`.
    pub(super) fn set_scoped(&mut self, origin: &Origin, headers: HeaderMap) {
        self.parts().scoped = Some((origin.clone(), headers)).filter(|(_, headers)| !headers.is_empty());
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let (name, value) = parse_header(name, value)?;
        // Not replaced: a field may be sent several times (RFC 9110, section 5.3).
        self.parts().headers.append(name, value);
        Ok(self)
    }

    /// Adds the header fields of the configuration field named `field`.
    pub(crate) fn headers(mut self, field: &str, headers: &[(String, String)]) -> Result<Self, Error> {
        self.parts().headers.extend(parse_headers(field, headers)?);
        Ok(self)
    }

    /// Adds a header field that is not secret, so that it is also sent to other origins.
    pub(crate) fn open_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.parts().open_headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// Names of the header fields that the application has set, or its hook has given so far, in lower case.
    #[cfg(feature = "cache")]
    pub(super) fn header_names(&self) -> Vec<String> {
        let given = self.alternates.as_ref().map(|alternates| alternates.given()).unwrap_or_default();
        let own = self.headers.keys().chain(self.open_headers.keys()).map(|name| name.as_str().to_owned());
        own.chain(given).collect()
    }

    /// Requests the resource only if it has changed: sets `If-None-Match` or `If-Modified-Since`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if HTTP does not allow the value.
    pub(crate) fn set_condition(&mut self, name: &'static str, value: &str) -> Result<(), Error> {
        let wrong = |cause| {
            let why = format!("HTTP does not allow the value of the header {name}");
            Error::new(ErrorKind::InvalidInput, why).with_cause(cause)
        };
        let value = HeaderValue::from_str(value).map_err(wrong)?;
        self.parts().conditions.insert(HeaderName::from_static(name), value);
        Ok(())
    }

    /// Requests the rest of a body, whose beginning has answered the conditions.
    pub(crate) fn forget_conditions(&mut self) {
        if !self.conditions.is_empty() {
            self.parts().conditions.clear();
        }
    }

    pub(crate) fn set_if_range(&mut self, validator: Validator) {
        self.parts().if_range = Some(validator);
    }

    pub(crate) fn url(&self) -> &HttpUrl {
        &self.url
    }

    pub(crate) fn byte_range(&self) -> Option<ByteRange> {
        self.range
    }
}

impl Request {
    /// True if it has credentials of its own. Those of a hook are among [`header_names`](Self::header_names).
    #[cfg(feature = "cache")]
    pub(super) fn has_authorization(&self) -> bool {
        self.headers.contains_key(header::AUTHORIZATION)
    }

    /// Origin of the URL that is requested first.
    pub(crate) fn origin(&self) -> &Origin {
        self.start().origin()
    }
}

impl Deref for Request {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets, so only the names are shown.
        let headers: Vec<&HeaderName> = self.headers.keys().chain(self.open_headers.keys()).collect();
        f.debug_struct("Request")
            .field("url", &self.url)
            .field("range", &self.range)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

const NO_SCHEME: &str = "not a URL of http: \"https://\" is missing at its beginning";

impl HttpUrl {
    /// Parses `text` as an absolute http or https URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`].
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let url = SafeUrl::parsed(text).map_err(|cause| {
            let is_relative = cause == url::ParseError::RelativeUrlWithoutBase;
            let why = if is_relative { NO_SCHEME } else { "not a valid URL" };
            Error::new(ErrorKind::InvalidUrl, why).with_url(text).with_cause(cause)
        })?;
        Self::of(&url).ok_or_else(|| {
            // `host:8000/path` is a URL with the scheme `host` (RFC 3986, section 3.1).
            let is_port = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
            let has_port = text.split_once(':').is_some_and(|(_, rest)| is_port(rest));
            let why = if has_port { NO_SCHEME } else { "only http and https URLs are supported" };
            Error::new(ErrorKind::UnsupportedScheme, why).with_url(url)
        })
    }
}
