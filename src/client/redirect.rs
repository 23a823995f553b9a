//! Where answers lead. Pure.

use ureq::http::{HeaderMap, StatusCode, header};

use crate::error::{Error, ErrorKind};
use crate::safe_url::{HttpUrl, SafeUrl};

/// Where an answer from `from` redirects to, if it does (RFC 9110, section 15.4).
///
/// # Errors
///
/// [`ErrorKind::Redirect`] if it does not say where to; [`ErrorKind::UnsupportedScheme`].
pub(super) fn target(
    from: &HttpUrl,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<HttpUrl>, Error> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    // Many send what should be escaped as it is.
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

/// True if this error of a remembered target may be the target's alone, so that the original URL has to be asked: it is
/// gone, its signature has expired, its host is down or overloaded. Else the original URL would say the same.
pub(super) fn is_targets_own(error: &Error) -> bool {
    match error.kind() {
        // 408, 425 and 429 ask for patience, and 416 is about the bytes. An expired signature is a 400 with some stores.
        ErrorKind::Status(408 | 416 | 425 | 429) => false,
        ErrorKind::Status(_)
        | ErrorKind::HostNotFound
        | ErrorKind::ConnectTimedOut
        | ErrorKind::Refused
        | ErrorKind::Unreachable
        | ErrorKind::Tls
        | ErrorKind::Silent
        | ErrorKind::Disconnected
        | ErrorKind::Protocol
        | ErrorKind::Redirect
        | ErrorKind::UnsupportedScheme
        | ErrorKind::WrongRange
        | ErrorKind::Encoded => true,
        _ => false,
    }
}
