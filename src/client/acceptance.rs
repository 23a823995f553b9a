//! Checks whether a response answers the request, and works out what its head means. Pure: no I/O.

use std::net::IpAddr;
use std::time::SystemTime;

use ureq::http::{HeaderMap, HeaderName, StatusCode, Version, header};

use super::h1::body::Framing;
use super::head::{Head, ResponseHead};
use super::range::{ContentRange, Meaning, check_partial, check_suffix, read_200};
use super::representation::is_html_type;
use super::request::{Known, Request};
use super::retry;
use crate::error::{Error, ErrorKind};
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::types::{ByteRange, digits};

/// What an accepted response contains.
pub(super) struct Accepted {
    /// Range of the body in the resource. `None` if the body is the whole resource.
    part: Option<ByteRange>,
    /// Length of the whole resource in bytes, if the response contains it and [`Request::believe`] accepts it.
    total: Option<u64>,
    /// Length of the body in bytes, if announced.
    len: Option<u64>,
    pub(super) framing: Framing,
}

/// Range of the body (`None`: the whole resource), and length of the whole resource if known.
type Extent = (Option<ByteRange>, Option<u64>);

/// The fields of a response head that describe its body.
struct Body<'a> {
    content_range: Option<&'a str>,
    /// Transfer codings, without `identity`.
    codings: Vec<&'a str>,
    /// Length in bytes, if announced.
    len: Option<u64>,
}

/// Checks a response head against `request`. `None` if it does not show whether the body is the requested range or the whole
/// resource.
///
/// # Errors
///
/// Says what is wrong with the response, or what its status means.
pub(super) fn accept(
    request: &Request,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<Option<Accepted>, Error> {
    let (status, body) = (status.as_u16(), Body::of(headers));
    check_status(request, status, headers, &body)?;
    check_coding(request, headers, &body)?;
    let Some((part, total)) = extent(request, status, &body)? else { return Ok(None) };
    let framing = Framing { by_length: body.len.is_some(), keeps_alive: keeps_alive(version, headers) };
    Ok(Some(Accepted { part, total, len: body.len, framing }))
}

impl Accepted {
    /// The head of the response, which came from `url`.
    pub(super) fn head(
        &self,
        request: &Request,
        url: &HttpUrl,
        status: StatusCode,
        headers: HeaderMap,
        peer: Option<IpAddr>,
    ) -> ResponseHead {
        ResponseHead::new(Head {
            status: status.as_u16(),
            peer,
            url: SafeUrl::from(url),
            headers,
            start: self.part.map_or(0, |part| part.start),
            body_len: self.part.map_or(self.len.or(self.total), |part| Some(part.len())),
            total: self.total,
            is_partial: self.part.is_some(),
            requested: request.range,
        })
    }
}

impl<'a> Body<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let codings = codings(headers);
        // RFC 9112, section 6.3: with a transfer coding, Content-Length is ignored.
        let length = text(headers, &header::CONTENT_LENGTH).filter(|_| codings.is_empty());
        let content_range = text(headers, &header::CONTENT_RANGE);
        Self { content_range, codings, len: length.and_then(parse_len) }
    }
}

fn check_status(request: &Request, status: u16, headers: &HeaderMap, body: &Body<'_>) -> Result<(), Error> {
    if status == 416 {
        if let Some(error) = contradiction(request.range, body.content_range) {
            return Err(error);
        }
    }
    // RFC 9110, section 15.3.4: a 203 is the origin's 200, transformed by a proxy.
    match status {
        200 | 203 | 206 => Ok(()),
        // RFC 9110, section 15.4.5: the answer to a condition.
        304 if !request.conditions.is_empty() => {
            Err(Error::new(ErrorKind::Status(304), "the resource has not changed (status 304)"))
        }
        _ => Err(refusal(status, headers)),
    }
}

/// Refuses encoded and multipart bodies: their offsets are not those of the resource.
fn check_coding(request: &Request, headers: &HeaderMap, body: &Body<'_>) -> Result<(), Error> {
    let encoding =
        text(headers, &header::CONTENT_ENCODING).map(str::trim).filter(|encoding| !encoding.is_empty());
    // RFC 9110, 8.4.1.3: x-gzip is gzip.
    let is_accepted = |encoding: &&str| {
        let is = |name: &str| encoding.eq_ignore_ascii_case(name);
        is("identity") || (request.accepts_gzip && (is("gzip") || is("x-gzip")))
    };
    if let Some(encoding) = encoding.filter(|encoding| !is_accepted(encoding)) {
        let why = format!("the body is encoded as {encoding}, which was not requested");
        return Err(Error::new(ErrorKind::Encoded, why));
    }
    if let Some(coding) = body.codings.iter().find(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        let why = format!("the body has the transfer coding {coding}, which was not requested");
        return Err(Error::new(ErrorKind::Encoded, why));
    }
    let content_type = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    // RFC 9110, section 15.3.7.2: a server must not send this type for a single range. Its boundaries and part headers are not
    // content.
    if media_type.eq_ignore_ascii_case("multipart/byteranges") {
        let why = "the body has several parts (multipart/byteranges), but one range was requested";
        return Err(Error::new(ErrorKind::WrongRange, why));
    }
    Ok(())
}

/// The range of the body, and the length of the whole resource. `None` if the head does not show whether the body is the range
/// or the whole.
fn extent(request: &Request, status: u16, body: &Body<'_>) -> Result<Option<Extent>, Error> {
    let wrong = |why: String| Error::new(ErrorKind::WrongRange, why);
    let (part, total) = match (status, request.range) {
        // RFC 9110, section 14.1.2: only the response shows where a suffix range begins.
        (206, None) if request.suffix.is_some() => {
            let suffix = request.suffix.unwrap_or_default();
            let (range, total) = check_suffix(suffix, body.content_range, body.len).map_err(wrong)?;
            (Some(range), total)
        }
        // Some caches and scripts send the whole resource as a 206 from its first byte to its last, though no range was
        // requested.
        (206, None) => match check_partial(ByteRange::from_start(0), body.content_range, body.len) {
            Ok((range, Some(total))) if range.end == total => (None, Some(total)),
            _ => return Err(wrong("the response is partial, but the whole resource was requested".into())),
        },
        (206, Some(requested)) => {
            let (range, total) = check_partial(requested, body.content_range, body.len).map_err(wrong)?;
            (Some(range), request.believe(total))
        }
        // RFC 9110, section 14.2: a server may ignore `Range` and send the whole resource.
        (_, Some(requested)) => match read_200(requested, body.content_range, body.len) {
            Meaning::Whole => (None, body.len),
            Meaning::Part { range, total } => (Some(range), request.believe(total)),
            Meaning::Unclear => return Ok(None),
        },
        _ => (None, body.len),
    };
    Ok(Some((part, total)))
}

/// True if the response can't be the answer to `request`, as far as its head shows. On a reused connection it is the answer to an
/// earlier request then, sent late or twice, and so would be all that follow on that connection.
pub(super) fn is_of_other_request(request: &Request, status: StatusCode, headers: &HeaderMap) -> bool {
    let known = request.what_is_known();
    let known_len = known.and_then(|known| known.len);
    let status = status.as_u16();
    if matches!(status, 200 | 203) && request.range.is_none() && known_len.is_none() {
        // Any length is as good as another. The rest of the head is not looked at, because this is asked for each small fetch.
        return false;
    }
    let body = Body::of(headers);
    let is_other_len =
        |total: Option<u64>| matches!((known_len, total), (Some(known), Some(total)) if known != total);
    match status {
        // RFC 9110, section 15.5.9: a server sends 408 when it closes an idle connection.
        408 => true,
        304 => request.conditions.is_empty(),
        416 => {
            let announced = match body.content_range.and_then(ContentRange::parse) {
                Some(ContentRange::Unsatisfied { total }) => total,
                _ => 0,
            };
            let least = known.map_or(0, |known| known.promised.max(known.len.unwrap_or(0)));
            match request.range {
                Some(range) => range.start < announced.max(least),
                None => request.suffix.is_none(),
            }
        }
        status @ (200 | 203 | 206) => match extent(request, status, &body) {
            // An HTML page of another length is that of a network which wants a login, and not late.
            Ok(Some((_, total))) => {
                is_other_len(total) && !is_html_type(text(headers, &header::CONTENT_TYPE))
            }
            Ok(None) | Err(_) => true,
        },
        _ => false,
    }
}

/// The error for a 416 whose length (RFC 9110, section 15.5.17) contradicts it: the requested range begins before that length.
fn contradiction(requested: Option<ByteRange>, content_range: Option<&str>) -> Option<Error> {
    let Some(ContentRange::Unsatisfied { total }) = content_range.and_then(ContentRange::parse) else {
        return None;
    };
    // RFC 9110, section 15.5.17: no range of an empty resource can be satisfied.
    if total == 0 {
        return Some(Error::new(ErrorKind::Empty, "the resource has no bytes"));
    }
    let requested = requested.filter(|requested| requested.start < total)?;
    let why = format!("the server refused the range {requested}, although it announced {total} bytes");
    Some(Error::new(ErrorKind::WrongRange, why).with_cause(Error::new(ErrorKind::Status(416), "status 416")))
}

/// The error for a response from `url` if it is a 416 that concerns another resource than the one that was served before. A
/// network that wants a login redirects every request, and the range may begin behind the end of its page. `first` is the URL
/// that was requested, before any redirect.
pub(super) fn intercepted(
    request: &Request,
    first: &HttpUrl,
    url: &HttpUrl,
    status: StatusCode,
    headers: &HeaderMap,
) -> Option<Error> {
    // A network can't answer for a server that has shown its certificate.
    let may_be = status == StatusCode::RANGE_NOT_SATISFIABLE && !first.origin().is_tls;
    let Known { origin, len, promised } = request.what_is_known().filter(|_| may_be)?;
    let is_redirected = first != url;
    let announced = match text(headers, &header::CONTENT_RANGE).and_then(ContentRange::parse) {
        Some(ContentRange::Unsatisfied { total }) => Some(total),
        _ => None,
    };
    let is_other = |announced| {
        // Without a redirect the earlier length may be the wrong one, unless there were bytes behind this one.
        announced < *promised || (is_redirected && len.is_some_and(|len| len != announced))
    };
    let why = match announced {
        Some(announced) if is_other(announced) => {
            format!("the server refused the range of another resource, which has {announced} bytes")
        }
        None if is_redirected && url.origin() != origin => {
            format!("the server refused the range after a redirect to {}", url.origin().host)
        }
        _ => return None,
    };
    let why = format!("{why}: the network may want a login");
    Some(Error::new(ErrorKind::NotMedia, why).with_url(url))
}

/// The value of a Content-Length.
fn parse_len(value: &str) -> Option<u64> {
    if let Some(len) = digits(value) {
        // Most heads have a single value, and this is asked for each response.
        return Some(len);
    }
    let mut lens = value.split(',').map(|len| digits(len.trim()));
    // RFC 9110, section 8.6: the field may come several times, or as a list, and is valid if all values are the same.
    let first = lens.next()??;
    lens.all(|len| len == Some(first)).then_some(first)
}

/// The transfer codings of a body, without `identity`.
fn codings(headers: &HeaderMap) -> Vec<&str> {
    let values =
        headers.get_all(header::TRANSFER_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let codings = values.flat_map(|value| value.split(',')).map(str::trim);
    codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).collect()
}

/// True if the body is announced to be at most `most` bytes long, or is chunked: the length of that is not announced, and most
/// are pages of a few kilobytes.
pub(super) fn is_short(headers: &HeaderMap, most: u64) -> bool {
    let body = Body::of(headers);
    let is_chunked = |coding: &&str| coding.eq_ignore_ascii_case("chunked");
    match body.len {
        Some(len) => len <= most,
        // RFC 9112, section 6.3: a body whose last coding is another one ends with its connection, whatever its Content-Length says.
        None => body.codings.last().is_some_and(is_chunked),
    }
}

/// True if the connection can be reused after this response (RFC 9112, section 9.3).
fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let has = |name: &str| {
        let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
        let mut options = values.flat_map(|value| value.split(',')).map(str::trim);
        options.any(|option| option.eq_ignore_ascii_case(name))
    };
    // `close` first, because it also counts beside `keep-alive`.
    !has("close") && (version == Version::HTTP_11 || has("keep-alive"))
}

fn refusal(status: u16, headers: &HeaderMap) -> Error {
    // For example 204, 300 or 304, which do not answer a GET without conditions.
    if status < 400 {
        return Error::new(
            ErrorKind::Protocol,
            format!("the server sent status {status}, which is no final response to a GET"),
        );
    }
    let challenges = if status == 401 { challenges(headers) } else { Vec::new() };
    let why = format!("the server sent status {status}{}", asked_for(challenges.iter().copied()));
    let mut error = Error::new(ErrorKind::Status(status), why);
    if !challenges.is_empty() {
        error = error.with_challenge(&challenges.join(", "));
    }
    let retry_after = text(headers, &header::RETRY_AFTER)
        .and_then(|value| retry::parse_retry_after(value, SystemTime::now()));
    match retry_after {
        Some(after) => error.with_retry_after(after),
        None => error,
    }
}

/// The fields that say how a request has to be authenticated (RFC 9110, section 11.6.1).
fn challenges(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect()
}

/// Authentication schemes that servers ask for (IANA, "HTTP Authentication Schemes"; NTLM is not registered).
const SCHEMES: [&str; 5] = ["Basic", "Bearer", "Digest", "Negotiate", "NTLM"];

/// The end of an error's text: the authentication schemes with which `challenges` begin. Only known ones, because no error shows
/// the value of a header field.
pub(super) fn asked_for<'a>(challenges: impl Iterator<Item = &'a str>) -> String {
    let names = challenges.filter_map(|challenge| challenge.split_whitespace().next());
    let known = |name: &str| SCHEMES.into_iter().find(|scheme| scheme.eq_ignore_ascii_case(name));
    let schemes: Vec<_> = names.filter_map(known).collect();
    if schemes.is_empty() { String::new() } else { format!(" and asks for {}", schemes.join(", ")) }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_short_if_its_end_can_be_found_soon() {
        let is_short = |fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            is_short(&fields.collect(), 10)
        };
        assert!(is_short(&[("content-length", "10")]) && !is_short(&[("content-length", "11")]));
        assert!(is_short(&[("transfer-encoding", "chunked"), ("content-length", "11")]));
        assert!(is_short(&[("transfer-encoding", "gzip, Chunked")]));
        assert!(!is_short(&[("transfer-encoding", "gzip"), ("content-length", "5")]));
        assert!(!is_short(&[]));
    }

    #[test]
    fn a_connection_is_kept_if_its_version_and_options_say_so() {
        let keeps = |version, connection: &[&'static str]| {
            let values = connection.iter().map(|value| (header::CONNECTION, value.parse().unwrap()));
            keeps_alive(version, &values.collect())
        };
        for (connection, by_http_11, by_http_10) in [
            (&[][..], true, false),
            (&["Keep-Alive"], true, true),
            (&["foo, keep-alive"], true, true),
            (&["close"], false, false),
            (&["foo, CLOSE"], false, false),
            (&["keep-alive, close"], false, false),
            (&["close", "keep-alive"], false, false),
            (&["closed"], true, false),
        ] {
            assert_eq!(keeps(Version::HTTP_11, connection), by_http_11, "HTTP/1.1 {connection:?}");
            assert_eq!(keeps(Version::HTTP_10, connection), by_http_10, "HTTP/1.0 {connection:?}");
        }
    }
}
