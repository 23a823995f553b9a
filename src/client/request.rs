//! Requests: what is asked of a server, and which header fields a caller may set.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::exchange::Over;
use super::head::{ResponseHead, Validator};
use crate::config::Auth;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::types::ByteRange;

/// Far beyond every long poll, and small enough for every sum of durations.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

/// A GET, yet to be sent. Cheap to clone: the threads that hedge it hold it too.
#[derive(Clone)]
pub(crate) struct Request(Arc<Parts>);

#[derive(Clone)]
pub(crate) struct Parts {
    pub(super) url: HttpUrl,
    /// Where redirects led last time, to be asked first. Never the URL itself.
    pub(super) shortcut: Option<HttpUrl>,
    pub(super) range: Option<ByteRange>,
    /// Asks for this many of the last bytes. Never beside `range`.
    pub(super) suffix: Option<u64>,
    pub(super) headers: HeaderMap,
    /// Those that other origins get too, where a redirect leads to one.
    pub(super) open_headers: HeaderMap,
    pub(super) if_range: Option<Validator>,
    /// Which connection it goes over.
    pub(super) over: Over,
    requires_range: bool,
    /// See [`doubt_total`](Request::doubt_total).
    doubts_total: bool,
    /// Limit on silence of a long poll, instead of the client's.
    held: Option<Duration>,
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
            if_range: None,
            over: Over::Any,
            requires_range: false,
            doubts_total: false,
            held: None,
        })))
    }

    fn parts(&mut self) -> &mut Parts {
        Arc::make_mut(&mut self.0)
    }

    /// Goes to where redirects led last time, and to its own URL only if that does not serve any more.
    pub(crate) fn shortcut(mut self, url: &SafeUrl) -> Self {
        let shortcut = HttpUrl::of(url).filter(|shortcut| *shortcut != self.url);
        self.parts().shortcut = shortcut;
        self
    }

    pub(super) fn remembered_target(&self) -> Option<&HttpUrl> {
        self.shortcut.as_ref()
    }

    /// Of a request that goes to a remembered target first: goes to `url` first from now on, which has just served it.
    pub(crate) fn adopt_target(&mut self, url: &SafeUrl) {
        if self.shortcut.is_some() {
            let target = HttpUrl::of(url).filter(|target| *target != self.url);
            if target != self.shortcut {
                self.parts().shortcut = target;
            }
        }
    }

    /// Goes to its own URL, wherever redirects led.
    pub(crate) fn forget_target(&mut self) {
        if self.shortcut.is_some() {
            self.parts().shortcut = None;
        }
    }

    /// Where it goes first.
    pub(super) fn start(&self) -> &HttpUrl {
        self.shortcut.as_ref().unwrap_or(&self.url)
    }

    pub(crate) fn range(mut self, range: ByteRange) -> Self {
        self.parts().range = Some(range);
        self
    }

    /// Asks for the last bytes, or for all if there are no more than these (RFC 9110, section 14.1.2). Only a 206 is
    /// of use: a server that does not know suffix ranges sends everything.
    pub(crate) fn suffix(mut self, bytes: u64) -> Self {
        let parts = self.parts();
        (parts.range, parts.suffix) = (None, Some(bytes));
        self
    }

    /// Dials a connection of its own.
    pub(crate) fn over_new_connection(self) -> Self {
        self.over(Over::New)
    }

    pub(crate) fn set_range(&mut self, range: ByteRange) {
        let parts = self.parts();
        (parts.range, parts.suffix) = (Some(range), None);
    }

    /// Takes no whole resource instead of the range.
    pub(crate) fn require_range(&mut self) {
        self.parts().requires_range = true;
    }

    /// Takes a length of the resource that ends where the range ends for no length: some servers send the end of the part as the
    /// total. For requests whose range does not end where the resource is known to end: where the length is not known, the
    /// asker asks on until a part is shorter than asked or is refused.
    pub(crate) fn doubt_total(mut self) -> Self {
        self.parts().doubts_total = true;
        self
    }

    /// The length of the resource that a part tells, as far as it is believed.
    pub(super) fn believe(&self, total: Option<u64>) -> Option<u64> {
        let end = self.range.map(|range| range.end).filter(|_| self.doubts_total);
        total.filter(|total| Some(*total) != end)
    }

    /// Fails if `head` is that of a whole resource, and a range is required.
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

    /// Makes it a long poll, whose server may be silent for `limit`.
    pub(crate) fn hold(&mut self, limit: Duration) {
        self.parts().held = Some(limit.min(LONGEST_HOLD));
    }

    /// The limit on silence of a long poll.
    pub(crate) fn held(&self) -> Option<Duration> {
        self.held
    }

    pub(super) fn over(mut self, over: Over) -> Self {
        self.parts().over = over;
        self
    }

    /// Asks for all there is.
    pub(crate) fn set_whole(&mut self) {
        let parts = self.parts();
        (parts.range, parts.suffix) = (None, None);
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let (name, value) = parse_header(name, value)?;
        self.parts().headers.append(name, value);
        Ok(self)
    }

    /// Those in a configuration's `field`.
    pub(crate) fn headers(mut self, field: &str, headers: &[(String, String)]) -> Result<Self, Error> {
        self.parts().headers.extend(parse_headers(field, headers)?);
        Ok(self)
    }

    /// A header that is no secret: it goes along to other origins.
    pub(crate) fn open_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.parts().open_headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
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
    /// Where it goes first.
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
        // Values may be secrets.
        let headers: Vec<&HeaderName> = self.headers.keys().chain(self.open_headers.keys()).collect();
        f.debug_struct("Request")
            .field("url", &self.url)
            .field("range", &self.range)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

/// Takes a user and a password out of a URL: they are sent as a header, to its origin.
fn take_userinfo(url: &mut HttpUrl) -> Option<HeaderValue> {
    if !url.expose_text().contains('@') {
        // Most have neither, and do without the parse that follows.
        return None;
    }
    let (user, password) = {
        let url = url.expose();
        if url.username().is_empty() && url.password().is_none() {
            return None;
        }
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        (plain(url.username()), plain(url.password().unwrap_or_default()))
    };
    // Both can be set on every http URL.
    *url = url.edit(|url| {
        let removed = url.set_username("").and_then(|()| url.set_password(None));
        debug_assert!(removed.is_ok());
    });
    Auth::Basic { user, password }.header()
}

/// Header fields that a caller can't set: windway sets them itself, or what they ask for would break what it promises.
/// Beside each group, why.
const RESERVED: [&str; 17] = [
    // Which bytes come, and of which version: the fetch says that, and its answer is held against it.
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    // Offsets of an encoded body mean nothing.
    "accept-encoding",
    // Of the connection, which is not the caller's (RFC 9110, section 7.6.1).
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    // They frame a request that has no body.
    "content-length",
    "transfer-encoding",
    "expect",
    // Where the request goes is in its URL; what a proxy gets is in the proxy's, and an origin would get it here.
    "host",
    "proxy-authorization",
];

/// A header that a caller may set.
pub(super) fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidInput, why);
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|cause| {
        // Not shown: whoever takes "Authorization: Bearer .." for a name has put a secret there.
        wrong(format!("HTTP does not allow a header of this name ({} bytes)", name.len())).with_cause(cause)
    })?;
    // Names are in lower case by now.
    if RESERVED.contains(&parsed.as_str()) {
        return Err(wrong(format!(
            "the header {parsed} can't be set: windway sets it itself, or sends none"
        )));
    }
    let mut value = HeaderValue::from_str(value).map_err(|cause| {
        wrong(format!("HTTP does not allow the value of the header {parsed}")).with_cause(cause)
    })?;
    // Nobody's `Debug` shows it.
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// The headers in a configuration's `field`.
pub(super) fn parse_headers(field: &str, headers: &[(String, String)]) -> Result<HeaderMap, Error> {
    let mut parsed = HeaderMap::new();
    for (name, value) in headers {
        let (name, value) = parse_header(name, value)
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, format!("{field}: {error}")))?;
        parsed.append(name, value);
    }
    Ok(parsed)
}

impl HttpUrl {
    /// The URL that `text` is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`].
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let url = SafeUrl::parsed(text).map_err(|cause| {
            Error::new(ErrorKind::InvalidUrl, "not a valid URL").with_url(text).with_cause(cause)
        })?;
        Self::of(&url).ok_or_else(|| {
            let why = "only http and https URLs are supported";
            Error::new(ErrorKind::UnsupportedScheme, why).with_url(url)
        })
    }
}
