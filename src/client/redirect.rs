//! Where responses redirect to. Pure.

use ureq::http::{HeaderMap, StatusCode, header};

use crate::error::{Error, ErrorKind};
use crate::safe_url::{HttpUrl, SafeUrl};

/// The URL to which a response from `from` redirects. `None` if it is no redirect (RFC 9110, section 15.4).
///
/// # Errors
///
/// [`ErrorKind::Redirect`] if `Location` is missing or invalid; [`ErrorKind::UnsupportedScheme`] if it is no HTTP URL.
pub(super) fn target(
    from: &HttpUrl,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<HttpUrl>, Error> {
    // RFC 9110, section 15.4: not 300 (a choice), 304 (no other target) and 305 (deprecated).
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    // Read as UTF-8: many servers send unescaped characters, although RFC 9110, section 10.2.2, only allows a URI reference.
    let location = headers.get(header::LOCATION).map(|value| value.as_bytes());
    let Some(location) = location.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return Err(Error::new(ErrorKind::Redirect, format!("{from} redirects without a valid Location")));
    };
    let to = from.join(location).map_err(|cause| {
        let location = SafeUrl::from(location);
        Error::new(ErrorKind::Redirect, format!("{from} redirects to an invalid URL: {location}"))
            .with_cause(cause)
    })?;
    let Some(target) = HttpUrl::of(&to) else {
        let why = format!("{from} redirects to {to}, but only http and https are supported");
        return Err(Error::new(ErrorKind::UnsupportedScheme, why));
    };
    Ok(Some(target))
}

/// True if this error of a remembered target may concern the target alone, so that the original URL should be requested: the
/// target is gone, its signature has expired, its host is down or overloaded. Otherwise the original URL would fail in the same
/// way.
pub(super) fn is_targets_own(error: &Error) -> bool {
    match error.kind() {
        // A 304 answers a condition, 408, 425 and 429 ask the client to wait, and 416 is about the range. All others may be the
        // target's own: some object stores answer 400 if a signature has expired.
        ErrorKind::Status(304 | 408 | 416 | 425 | 429) => false,
        ErrorKind::Status(_)
        | ErrorKind::ProxyStatus(_)
        | ErrorKind::HostNotFound
        | ErrorKind::ConnectTimedOut
        | ErrorKind::Refused
        | ErrorKind::Unreachable
        | ErrorKind::Tls
        | ErrorKind::Silent
        | ErrorKind::Disconnected
        | ErrorKind::Protocol
        | ErrorKind::Redirect
        | ErrorKind::Forbidden
        | ErrorKind::UnsupportedScheme
        | ErrorKind::WrongRange
        | ErrorKind::Encoded => true,
        _ => false,
    }
}
