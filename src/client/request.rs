//! What is asked of a server, and what its answer's head says.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

use super::range::ByteRange;
use crate::config::Auth;
use crate::error::{Error, ErrorKind};

/// A GET, yet to be sent.
#[derive(Clone)]
pub(crate) struct Request {
    pub(super) url: Url,
    /// Where redirects led last time, to be asked first. Never the URL itself.
    shortcut: Option<Url>,
    pub(super) range: Option<ByteRange>,
    pub(super) headers: HeaderMap,
    /// Those that other origins get too, where a redirect leads to one.
    pub(super) open_headers: HeaderMap,
    pub(super) if_range: Option<Validator>,
}

impl Request {
    pub(crate) fn get(url: &str) -> Result<Self, Error> {
        let mut url = parse_url(url)?;
        let mut headers = HeaderMap::new();
        if let Some(authorization) = take_userinfo(&mut url) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let open_headers = HeaderMap::new();
        Ok(Self { url, shortcut: None, range: None, headers, open_headers, if_range: None })
    }

    /// Goes to where redirects led last time, and to its own URL only if that does not serve any more.
    pub(crate) fn shortcut(mut self, url: &str) -> Result<Self, Error> {
        self.shortcut = Some(parse_url(url)?).filter(|shortcut| *shortcut != self.url);
        Ok(self)
    }

    pub(super) fn remembered_target(&self) -> Option<&Url> {
        self.shortcut.as_ref()
    }

    /// Of a request that goes to a remembered target first: goes to `url` first from now on, which has just served it.
    pub(crate) fn adopt_target(&mut self, url: &str) {
        if self.shortcut.is_some() {
            self.shortcut = parse_url(url).ok().filter(|target| *target != self.url);
        }
    }

    /// Goes to its own URL, wherever redirects led.
    pub(crate) fn forget_target(&mut self) {
        self.shortcut = None;
    }

    /// Where it goes first.
    pub(super) fn start(&self) -> &Url {
        self.shortcut.as_ref().unwrap_or(&self.url)
    }

    pub(crate) fn range(mut self, range: ByteRange) -> Self {
        self.range = Some(range);
        self
    }

    pub(crate) fn set_range(&mut self, range: ByteRange) {
        self.range = Some(range);
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

    /// A header that is no secret: it goes along to other origins.
    pub(crate) fn open_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.open_headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    pub(crate) fn set_if_range(&mut self, validator: Validator) {
        self.if_range = Some(validator);
    }

    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    pub(crate) fn byte_range(&self) -> Option<ByteRange> {
        self.range
    }
}

impl Request {
    /// Tells where it goes: scheme, host and port.
    pub(crate) fn origin_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.start().origin().hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold secrets.
        f.debug_struct("Request")
            .field("url", &self.url.as_str())
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Takes a user and a password out of an URL, so that no log and no error shows them.
fn take_userinfo(url: &mut Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (plain(url.username()), plain(url.password().unwrap_or_default()));
    // Both can be set on every http URL.
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    Auth::Basic { user, password }.header()
}

/// An URL that can be asked for.
pub(super) fn parse_url(text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).map_err(|cause| {
        Error::new(ErrorKind::InvalidUrl, "not a valid URL").with_url(text).with_cause(cause)
    })?;
    if !is_streamable(&url) {
        let why = format!("only http and https are streamed, not {}", url.scheme());
        return Err(Error::new(ErrorKind::UnsupportedScheme, why).with_url(text));
    }
    Ok(url)
}

pub(super) fn is_streamable(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

pub(super) fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let wrong = |what: &str| {
        Error::new(ErrorKind::InvalidInput, format!("HTTP does not allow the {what} of the header {name:?}"))
    };
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|cause| wrong("name").with_cause(cause))?;
    let value = HeaderValue::from_str(value).map_err(|cause| wrong("value").with_cause(cause))?;
    Ok((parsed, value))
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
pub struct Head {
    pub(super) status: u16,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) start: u64,
    pub(super) body_len: Option<u64>,
    pub(super) total: Option<u64>,
}

impl Head {
    /// 200, 206, or 203: a whole that a proxy has transformed.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The URL that answered, after redirects.
    pub fn url(&self) -> &str {
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

    /// True if the body is the part that was asked for; false if it is the whole.
    pub fn is_partial(&self) -> bool {
        self.status == 206
    }

    /// All headers, their values as they came.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
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

    /// True if this is of another representation than `validator`. Only like is held against like: Apache calls a tag weak
    /// until its file is a second old, and strong from then on.
    pub(crate) fn contradicts(&self, validator: &Validator) -> bool {
        match validator {
            Validator::ETag(old) => {
                self.header("etag").is_some_and(|new| new.strip_prefix("W/").unwrap_or(new) != old)
            }
            Validator::LastModified(old) => self.header("last-modified").is_some_and(|new| new != old),
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("status", &self.status)
            .field("url", &self.url)
            .field("start", &self.start)
            .field("body_len", &self.body_len)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
