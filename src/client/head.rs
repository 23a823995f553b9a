//! Heads of accepted responses, and the validators in them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::HeaderMap;
#[cfg(test)]
use ureq::http::{HeaderName, HeaderValue};

use crate::safe_url::SafeUrl;
use crate::types::ByteRange;

/// Identifies one version of a resource: two responses with the same validator have the same bytes.
///
/// ```no_run
/// use windway::downloader::Validator;
/// use windway::{ByteRange, Downloader, Fetch, Priority};
///
/// // Continues a download of an earlier run, if the file is still the same.
/// let tag = Validator::ETag("\"v1\"".into());
/// let rest = Fetch::get("https://example.com/a.flac")?.range(ByteRange::from_start(5000)).if_range(tag);
/// let response = Downloader::global()?.register((), Priority::High)?.execute(rest)?;
/// println!("continues at byte {}", response.head().start());
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validator {
    /// A strong entity tag, quotes included.
    ETag(String),
    /// The value of `Last-Modified`, as the server wrote it.
    LastModified(String),
}

impl Validator {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::ETag(text) | Self::LastModified(text) => text,
        }
    }
}

/// The head of a response that was checked against its request: status, header fields, and which bytes its body contains.
///
/// Cheap to clone.
///
/// ```no_run
/// # let peer = windway::Downloader::global()?.register((), Default::default())?;
/// let response = peer.execute(windway::Fetch::get("https://example.com/a.flac")?)?;
/// let head = response.head();
/// println!("{} from {}: {:?}, {:?} bytes", head.status(), head.url(), head.content_type(), head.total());
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct ResponseHead(Arc<Head>);

#[derive(Clone)]
pub(super) struct Head {
    pub(super) status: u16,
    /// The address that answered.
    pub(super) peer: Option<IpAddr>,
    pub(super) url: SafeUrl,
    pub(super) headers: HeaderMap,
    pub(super) start: u64,
    pub(super) body_len: Option<u64>,
    pub(super) total: Option<u64>,
    /// The body is a part of the resource, whatever the status is.
    pub(super) is_partial: bool,
    pub(super) requested: Option<ByteRange>,
}

/// What was kept of the head of a response, from which a file was stored.
#[cfg(feature = "cache")]
pub(crate) struct StoredHead<'a> {
    pub(crate) url: SafeUrl,
    pub(crate) len: u64,
    /// Names and values. An empty value is none.
    pub(crate) fields: [(&'static str, &'a str); 4],
}

impl ResponseHead {
    pub(super) fn new(head: Head) -> Self {
        Self(Arc::new(head))
    }

    /// A head of a part, with what was kept of one.
    #[cfg(feature = "cache")]
    pub(crate) fn stored(stored: StoredHead<'_>) -> Self {
        let valid = |(name, value): &(&'static str, &str)| {
            let value = ureq::http::HeaderValue::from_str(value).ok().filter(|value| !value.is_empty());
            Some((ureq::http::HeaderName::from_static(name), value?))
        };
        Self::new(Head {
            status: 206,
            peer: None,
            url: stored.url,
            headers: stored.fields.iter().filter_map(valid).collect(),
            start: 0,
            body_len: None,
            total: Some(stored.len),
            is_partial: true,
            requested: None,
        })
    }

    /// The range of the body and the length of the resource, for the log.
    pub(crate) fn extent(&self) -> String {
        let end = self.0.body_len.map_or(u64::MAX, |len| self.0.start.saturating_add(len));
        let total = self.0.total.map(|total| format!(" of {total}")).unwrap_or_default();
        format!("bytes {}{total}", ByteRange::new(self.0.start, end))
    }

    /// Status code: 200, 206, or 203, which is a 200 that a proxy has transformed.
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// The address that answered: that of the proxy, if there is one.
    #[cfg(any(feature = "hls", feature = "queue"))]
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.0.peer
    }

    /// The URL that answered, after redirects.
    pub fn url(&self) -> &SafeUrl {
        &self.0.url
    }

    /// Value of a header field, the first one if there are several. `None` if it is missing or not ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Position of the body's first byte in the resource. 0 if the server sends the whole, even if a range was requested.
    pub fn start(&self) -> u64 {
        self.0.start
    }

    /// Length of the body in bytes, if announced.
    pub fn body_len(&self) -> Option<u64> {
        self.0.body_len
    }

    /// Length of the whole resource in bytes, if the response contains it.
    pub fn total(&self) -> Option<u64> {
        self.0.total
    }

    /// True if the body is the requested part, or the beginning of it; false if it is the whole resource. Do not rely on the
    /// status instead: some servers send the part, with its `Content-Range`, as a 200.
    pub fn is_partial(&self) -> bool {
        self.0.is_partial
    }

    /// True if the body is a part that ends before the requested range, although the resource continues. A server may do that
    /// (RFC 9110, section 15.3.7); request the rest separately. If [`total`](Self::total) is unknown, this is also true if the
    /// resource may continue.
    pub fn is_shorter_than_asked(&self) -> bool {
        // A range may end beyond the resource: then the end of the resource counts.
        let wanted = self
            .0
            .requested
            .map_or(u64::MAX, |requested| requested.end)
            .min(self.0.total.unwrap_or(u64::MAX));
        let end = self.0.body_len.map_or(u64::MAX, |len| self.0.start.saturating_add(len));
        self.0.is_partial && end < wanted
    }

    /// All header fields, in no particular order: the name in lower case, and the value, which may contain bytes that are not
    /// ASCII. A field that was sent several times is returned several times.
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
        self.0.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    /// Value of `Content-Type`.
    pub fn content_type(&self) -> Option<&str> {
        self.header("content-type")
    }

    /// The strong entity tag, otherwise the value of `Last-Modified`, otherwise `None`.
    pub fn validator(&self) -> Option<Validator> {
        // Without weak tags, which begin with `W/`: they do not promise equal bytes (RFC 9110, section 8.8.1).
        let strong = self.header("etag").filter(|tag| tag.starts_with('"'));
        strong
            .map(|tag| Validator::ETag(tag.to_owned()))
            .or_else(|| self.header("last-modified").map(|date| Validator::LastModified(date.to_owned())))
    }

    /// A validator that is allowed in `If-Range`: a strong entity tag, otherwise a date that is sure to be of this version (RFC
    /// 9110, section 13.1.5).
    pub(crate) fn strong_validator(&self) -> Option<Validator> {
        let validator = self.validator()?;
        let Validator::LastModified(changed) = &validator else { return Some(validator) };
        let changed = httpdate::parse_http_date(changed).ok()?;
        let sent = httpdate::parse_http_date(self.header("date")?).ok()?;
        // RFC 9110, section 8.8.2.2: a date is strong if it is so much older than the response that no second change can have the
        // same date. RFC 7232, section 2.2.2, gives 60 s, which also cover clocks that differ.
        (sent >= changed + Duration::from_secs(60)).then_some(validator)
    }
}

/// An entity tag without the weak mark `W/` (RFC 9110, section 8.8.3).
pub(super) fn opaque_tag(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
impl ResponseHead {
    /// A head without header fields.
    pub(crate) fn for_tests(status: u16, part: std::ops::Range<u64>, total: Option<u64>) -> Self {
        Self::new(Head {
            peer: None,
            status,
            url: "http://host/a".into(),
            headers: HeaderMap::new(),
            start: part.start,
            body_len: Some(part.end - part.start),
            total,
            is_partial: status == 206,
            requested: None,
        })
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        Arc::make_mut(&mut self.0)
            .headers
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the header fields: their values may be secrets, such as cookies.
        f.debug_struct("ResponseHead")
            .field("status", &self.0.status)
            .field("url", &self.0.url)
            .field("start", &self.0.start)
            .field("body_len", &self.0.body_len)
            .field("total", &self.0.total)
            .field("peer", &self.0.peer)
            .finish_non_exhaustive()
    }
}
