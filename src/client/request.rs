//! What is asked of a server, and what its answer's head says.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::exchange::Over;
use crate::config::Auth;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::types::ByteRange;

/// Far beyond every long poll, and small enough for every sum of durations.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

/// A GET, yet to be sent.
#[derive(Clone)]
pub(crate) struct Request {
    pub(super) url: HttpUrl,
    /// Where redirects led last time, to be asked first. Never the URL itself.
    shortcut: Option<HttpUrl>,
    pub(super) range: Option<ByteRange>,
    pub(super) headers: HeaderMap,
    /// Those that other origins get too, where a redirect leads to one.
    pub(super) open_headers: HeaderMap,
    pub(super) if_range: Option<Validator>,
    /// Which connection it goes over.
    pub(super) over: Over,
    requires_range: bool,
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
        Ok(Self {
            url,
            shortcut: None,
            range: None,
            headers,
            open_headers: HeaderMap::new(),
            if_range: None,
            over: Over::Any,
            requires_range: false,
            held: None,
        })
    }

    /// Goes to where redirects led last time, and to its own URL only if that does not serve any more.
    pub(crate) fn shortcut(mut self, url: &SafeUrl) -> Self {
        self.shortcut = HttpUrl::of(url).filter(|shortcut| *shortcut != self.url);
        self
    }

    pub(super) fn remembered_target(&self) -> Option<&HttpUrl> {
        self.shortcut.as_ref()
    }

    /// Of a request that goes to a remembered target first: goes to `url` first from now on, which has just served it.
    pub(crate) fn adopt_target(&mut self, url: &SafeUrl) {
        if self.shortcut.is_some() {
            self.shortcut = HttpUrl::of(url).filter(|target| *target != self.url);
        }
    }

    /// Goes to its own URL, wherever redirects led.
    pub(crate) fn forget_target(&mut self) {
        self.shortcut = None;
    }

    /// Where it goes first.
    pub(super) fn start(&self) -> &HttpUrl {
        self.shortcut.as_ref().unwrap_or(&self.url)
    }

    pub(crate) fn range(mut self, range: ByteRange) -> Self {
        self.range = Some(range);
        self
    }

    /// Dials a connection of its own.
    pub(crate) fn over_new_connection(self) -> Self {
        self.over(Over::New)
    }

    pub(crate) fn set_range(&mut self, range: ByteRange) {
        self.range = Some(range);
    }

    /// Takes no whole resource instead of the range.
    pub(crate) fn require_range(&mut self) {
        self.requires_range = true;
    }

    /// Fails if `head` is that of a whole resource, and a range is required.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RangeIgnored`].
    pub(crate) fn check_range(&self, head: &ResponseHead) -> Result<(), Error> {
        if head.is_partial { Ok(()) } else { self.check_whole_allowed() }
    }

    pub(super) fn check_whole_allowed(&self) -> Result<(), Error> {
        let Some(range) = self.range.filter(|_| self.requires_range) else { return Ok(()) };
        let error = Error::new(ErrorKind::RangeIgnored, "the server ignored the range, which is required");
        Err(error.with_url(&self.url).with_range(range))
    }

    /// Makes it a long poll, whose server may be silent for `limit`.
    pub(crate) fn hold(&mut self, limit: Duration) {
        self.held = Some(limit.min(LONGEST_HOLD));
    }

    /// The limit on silence of a long poll.
    pub(crate) fn held(&self) -> Option<Duration> {
        self.held
    }

    pub(super) fn over(self, over: Over) -> Self {
        Self { over, ..self }
    }

    /// Asks for all there is.
    pub(crate) fn set_whole(&mut self) {
        self.range = None;
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let (name, value) = parse_header(name, value)?;
        self.headers.append(name, value);
        Ok(self)
    }

    /// Those in a configuration's `field`.
    pub(crate) fn headers(mut self, field: &str, headers: &[(String, String)]) -> Result<Self, Error> {
        self.headers.extend(parse_headers(field, headers)?);
        Ok(self)
    }

    /// A header that is no secret: it goes along to other origins.
    pub(crate) fn open_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.open_headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    pub(crate) fn set_if_range(&mut self, validator: Validator) {
        self.if_range = Some(validator);
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

/// By what two answers are known to be of the same resource, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validator {
    /// A strong entity tag, quotes included.
    ETag(String),
    /// The date of the last change, as the server wrote it.
    LastModified(String),
}

impl Validator {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::ETag(text) | Self::LastModified(text) => text,
        }
    }
}

/// The head of an answer: valid, and an answer to what was asked.
#[derive(Clone)]
pub struct ResponseHead {
    pub(super) status: u16,
    pub(super) url: SafeUrl,
    pub(super) headers: HeaderMap,
    pub(super) start: u64,
    pub(super) body_len: Option<u64>,
    pub(super) total: Option<u64>,
    /// The body is a part, whatever the status says.
    pub(super) is_partial: bool,
    pub(super) asked: Option<ByteRange>,
}

impl ResponseHead {
    /// 200, 206, or 203: a whole that a proxy has transformed.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The URL that answered, after redirects.
    pub fn url(&self) -> &SafeUrl {
        &self.url
    }

    /// A header's value; the first one if there are several. `None` if it is not there or not ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Offset in the resource of the body's first byte. 0 if the server sends the whole, whatever was asked for.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes of body, if announced.
    pub fn body_len(&self) -> Option<u64> {
        self.body_len
    }

    /// Bytes of the whole resource, if told.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// True if the body is the part that was asked for, or its beginning; false if it is the whole. Tells more than the
    /// status: some servers send the part, and its `Content-Range`, with status 200.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// True if the body is a part that ends before the range does that was asked for, although the resource goes on there.
    /// A server may do that (RFC 9110, section 15.3.7.2); the rest has to be fetched by itself. Where the server does not
    /// tell [`total`](Self::total), true also if the resource may go on there.
    pub fn is_shorter_than_asked(&self) -> bool {
        let wanted = self.asked.map_or(u64::MAX, |asked| asked.end).min(self.total.unwrap_or(u64::MAX));
        let end = self.body_len.map_or(u64::MAX, |len| self.start.saturating_add(len));
        self.is_partial && end < wanted
    }

    /// All header fields, in no particular order: the name in lower case, and the value, which may hold bytes that are
    /// not ASCII. A field that was sent several times is returned several times.
    ///
    /// ```no_run
    /// # let peer = windway::Downloader::global()?.register((), Default::default())?;
    /// let response = peer.execute(windway::Fetch::get("https://example.com/a.mp3")?)?;
    /// for (name, value) in response.head().headers() {
    ///     println!("{name}: {}", String::from_utf8_lossy(value));
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    /// The content type.
    pub fn content_type(&self) -> Option<&str> {
        self.header("content-type")
    }

    /// The strong entity tag, else the date of the last change, else nothing.
    pub fn validator(&self) -> Option<Validator> {
        let strong = self.header("etag").filter(|tag| tag.starts_with('"'));
        strong
            .map(|tag| Validator::ETag(tag.to_owned()))
            .or_else(|| self.header("last-modified").map(|date| Validator::LastModified(date.to_owned())))
    }

    /// What `If-Range` may carry: a strong tag, else a date that is sure to be of this version: at least a minute before
    /// that of the answer (RFC 9110, sections 13.1.5 and 8.8.2.2; the minute is RFC 7232's).
    pub(crate) fn strong_validator(&self) -> Option<Validator> {
        let validator = self.validator()?;
        let Validator::LastModified(changed) = &validator else { return Some(validator) };
        let changed = httpdate::parse_http_date(changed).ok()?;
        let sent = httpdate::parse_http_date(self.header("date")?).ok()?;
        (sent >= changed + Duration::from_secs(60)).then_some(validator)
    }
}

/// An entity tag without the mark of a weak one (RFC 9110, section 8.8.3).
pub(super) fn opaque_tag(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
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
            let why = "only http and https are streamed";
            Error::new(ErrorKind::UnsupportedScheme, why).with_url(url)
        })
    }
}

#[cfg(test)]
impl ResponseHead {
    /// A head without header fields.
    pub(crate) fn for_tests(status: u16, part: std::ops::Range<u64>, total: Option<u64>) -> Self {
        Self {
            status,
            url: "http://host/a".into(),
            headers: HeaderMap::new(),
            start: part.start,
            body_len: Some(part.end - part.start),
            total,
            is_partial: status == 206,
            asked: None,
        }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("url", &self.url)
            .field("start", &self.start)
            .field("body_len", &self.body_len)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
