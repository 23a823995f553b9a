//! What the head of a response allows to store of its body.

use std::time::SystemTime;

use crate::cache::{Exchange, Header, KeyDigest, seconds};
use crate::client::ResponseHead;

/// What is known of a request whose response may be stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct SentRequest {
    /// Names, in lower case, of header fields that the application has added.
    pub(crate) added: Vec<String>,
    /// It may have gone out with `Authorization`.
    pub(crate) is_authorized: bool,
}

/// Looks at a response and its request as RFC 9111 does.
pub(crate) fn with_exchange<T>(
    head: &ResponseHead,
    sent: &SentRequest,
    look: impl FnOnce(&Exchange<'_>) -> T,
) -> T {
    let all = |name: &str| {
        let fields = head.headers().filter(|(field, _)| *field == name);
        // RFC 9110, section 5.3: several fields of one name are one list, in their order.
        fields.map(|(_, value)| String::from_utf8_lossy(value)).collect::<Vec<_>>().join(",")
    };
    look(&Exchange {
        cache_control: &all("cache-control"),
        vary: &all("vary"),
        expires: head.header("expires"),
        date: head.header("date"),
        age: head.header("age"),
        has_validator: head.strong_validator().is_some(),
        is_authorized: sent.is_authorized || sent.added.iter().any(|name| name == "authorization"),
        added: &sent.added,
    })
}

/// What an entry records of `len` bytes that come with `head`. `None` if it can't be written.
pub(crate) fn header_of(head: &ResponseHead, len: u64, key: KeyDigest, label: &str) -> Option<Header> {
    let field = |name: &str| head.header(name).unwrap_or_default().to_owned();
    let etag = field("etag");
    let header = Header {
        key,
        len,
        stored_at: seconds(SystemTime::now()),
        has_ranges: head.is_partial(),
        // A weak one proves nothing about the bytes (RFC 9110, section 8.8.1).
        etag: if etag.starts_with('"') { etag } else { String::new() },
        last_modified: field("last-modified"),
        date: field("date"),
        media_type: field("content-type"),
        label: label.to_owned(),
        part: String::new(),
    };
    header.encode().is_some().then_some(header)
}
