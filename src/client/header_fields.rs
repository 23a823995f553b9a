//! Which header fields a caller may set, and the credentials in a URL. Pure.

use percent_encoding::percent_decode_str;
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Auth;
use crate::error::{Error, ErrorKind};
use crate::safe_url::HttpUrl;

/// Removes user and password from a URL. They are sent in the `Authorization` header, and only to the URL's origin.
pub(super) fn take_userinfo(url: &mut HttpUrl) -> Option<HeaderValue> {
    if !url.has_userinfo() {
        return None;
    }
    let (user, password) = {
        let url = url.expose();
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        (plain(url.username()), plain(url.password().unwrap_or_default()))
    };
    // Neither can fail: every http URL has a host.
    *url = url.edit(|url| {
        let removed = url.set_username("").and_then(|()| url.set_password(None));
        debug_assert!(removed.is_ok());
    });
    Auth::Basic { user, password }.header()
}

/// Header fields that a caller can't set. The comment above each group is the reason.
const RESERVED: [&str; 17] = [
    // They decide which bytes of which version are sent. The fetch sets them itself and checks the response against them.
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    // Positions in an encoded body are not positions in the resource.
    "accept-encoding",
    // They control the connection, which windway owns (RFC 9110, section 7.6.1).
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    // They frame a request body, and windway's requests have none.
    "content-length",
    "transfer-encoding",
    "expect",
    // The URL decides the host. Credentials for a proxy belong in the proxy's URL: here they would be sent to the origin.
    "host",
    "proxy-authorization",
];

/// Parses a header field that a caller sets.
pub(super) fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidInput, why);
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|cause| {
        // The name is not shown: callers sometimes pass a whole line such as "Authorization: Bearer .." as the name.
        wrong(format!("HTTP does not allow a header of this name ({} bytes)", name.len())).with_cause(cause)
    })?;
    // `HeaderName` is always in lower case, as `RESERVED` is.
    if RESERVED.contains(&parsed.as_str()) {
        return Err(wrong(format!(
            "the header {parsed} can't be set: windway sets it itself, or sends none"
        )));
    }
    let mut value = HeaderValue::from_str(value).map_err(|cause| {
        wrong(format!("HTTP does not allow the value of the header {parsed}")).with_cause(cause)
    })?;
    // Hides the value in every `Debug` output.
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Parses the header fields of the configuration field named `field`.
pub(super) fn parse_headers(field: &str, headers: &[(String, String)]) -> Result<HeaderMap, Error> {
    let mut parsed = HeaderMap::new();
    for (name, value) in headers {
        let (name, value) = parse_header(name, value)
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, format!("{field}: {error}")))?;
        parsed.append(name, value);
    }
    Ok(parsed)
}
