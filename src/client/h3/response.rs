//! The response on a request stream (RFC 9114, section 4.1): interim heads, the head, the body, trailers.

use std::ops::Range;

use ureq::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::code::{Code, Violation};
use super::frame::{Frame, FrameReader, Place};
use super::qpack::{self, Field};
use crate::types::digits;

/// Most interim responses before the final one. Servers send one or two; a 102 a second for a minute is in order too.
const MAX_INTERIM: u32 = 64;

/// Status and header fields of a final response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// What the next bytes are.
#[derive(Debug)]
pub(crate) enum Part {
    Head(Head),
    /// This range of the input belongs to the body.
    Body(Range<usize>),
}

/// Reads one response, and checks that it is well-formed (RFC 9114, section 4.1.2).
#[derive(Debug)]
pub(crate) struct ResponseReader {
    frames: FrameReader,
    at: At,
    /// Content-Length, if it limits the body.
    announced: Option<u64>,
    received: u64,
    /// Maximum size of a head in bytes.
    max_head: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Number of interim heads before it.
    Head(u32),
    Body,
    /// Trailers were there, so nothing may follow.
    End,
}

impl ResponseReader {
    pub(crate) fn new(max_head: usize) -> Self {
        let frames = FrameReader::new(Place::Request(max_head));
        Self { frames, at: At::Head(0), announced: None, received: 0, max_head }
    }

    /// Reads from `input`, which continues the input of the last call. Returns how many bytes it has used, and what they are.
    /// Without a part all of `input` is used.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<(usize, Option<Part>), Violation> {
        let mut used = 0;
        loop {
            let (more, frame) = self.frames.next(&input[used..])?;
            let begin = used;
            used += more;
            match frame {
                None => return Ok((used, None)),
                Some(Frame::Data(range)) => {
                    self.handle_data(range.len() as u64)?;
                    return Ok((used, Some(Part::Body(begin + range.start..begin + range.end))));
                }
                Some(Frame::Headers(section)) => {
                    if let Some(head) = self.handle_section(&section)? {
                        return Ok((used, Some(Part::Head(head))));
                    }
                }
                // The reader of a request stream returns no others.
                Some(Frame::Settings(_) | Frame::GoAway(_)) => {}
            }
        }
    }

    /// Checks that the stream may end here.
    pub(crate) fn finish(&self) -> Result<(), Violation> {
        self.frames.finish()?;
        if let At::Head(_) = self.at {
            return Err(malformed("the stream ended before the response head"));
        }
        match self.announced {
            Some(announced) if announced != self.received => {
                Err(malformed("the body is shorter than its Content-Length"))
            }
            _ => Ok(()),
        }
    }

    /// True if the stream ended while more of the response was announced, or before its head.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(self.at, At::Head(_)) || self.announced.is_some_and(|announced| self.received < announced)
    }

    /// True if all bytes of the body that were announced are there.
    pub(crate) fn is_complete(&self) -> bool {
        // Before the head nothing is announced.
        self.announced == Some(self.received)
    }

    fn handle_data(&mut self, len: u64) -> Result<(), Violation> {
        if self.at != At::Body {
            return Err(Violation::new(
                Code::FRAME_UNEXPECTED,
                "body bytes before the head or after the trailers",
            ));
        }
        self.received = self.received.saturating_add(len);
        if self.announced.is_some_and(|announced| self.received > announced) {
            return Err(malformed("the body is longer than its Content-Length"));
        }
        Ok(())
    }

    /// The head in a HEADERS frame. `None` for trailers and interim heads.
    fn handle_section(&mut self, section: &[u8]) -> Result<Option<Head>, Violation> {
        let fields = qpack::decode(section, self.max_head)?;
        match self.at {
            At::End => Err(Violation::new(Code::FRAME_UNEXPECTED, "a head after the trailers")),
            At::Body => {
                let (status, _) = split(fields)?;
                if status.is_some() {
                    return Err(malformed("the trailers have a pseudo-header field"));
                }
                self.at = At::End;
                Ok(None)
            }
            At::Head(interim) => {
                let (status, headers) = split(fields)?;
                let status = status.ok_or_else(|| malformed("the response head has no :status"))?;
                // RFC 9114, section 4.5: there is no 101 in HTTP/3.
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(malformed("the server sent status 101, which HTTP/3 does not have"));
                }
                if !status.is_informational() {
                    self.announced = announced(status, &headers)?;
                    self.at = At::Body;
                    return Ok(Some(Head { status, headers }));
                }
                if interim == MAX_INTERIM {
                    return Err(Violation::new(
                        Code::EXCESSIVE_LOAD,
                        "the server sent too many interim responses",
                    ));
                }
                self.at = At::Head(interim + 1);
                Ok(None)
            }
        }
    }
}

const fn malformed(why: &'static str) -> Violation {
    Violation::new(Code::MESSAGE_ERROR, why)
}

/// Fields that control a connection of HTTP/1. RFC 9114, section 4.2: a message with one is malformed.
const OF_CONNECTIONS: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

/// The status, if there is one, and the header fields of a section.
fn split(fields: Vec<Field>) -> Result<(Option<StatusCode>, HeaderMap), Violation> {
    let (mut status, mut headers) = (None, HeaderMap::new());
    for (name, value) in fields {
        if name.first() == Some(&b':') {
            // RFC 9114, section 4.3: responses have one pseudo-header field, once, before the others.
            if name != b":status" || status.is_some() || !headers.is_empty() {
                return Err(malformed("a pseudo-header field is unknown, repeated or out of order"));
            }
            let parsed = StatusCode::from_bytes(&value).ok().filter(|status| status.as_u16() < 600);
            status = Some(parsed.ok_or_else(|| malformed(":status is no status"))?);
            continue;
        }
        // RFC 9114, section 4.2: names are in lower case.
        if name.iter().any(u8::is_ascii_uppercase) || OF_CONNECTIONS.contains(&&name[..]) {
            return Err(malformed("a header field is not allowed in HTTP/3"));
        }
        let name =
            HeaderName::from_bytes(&name).map_err(|_| malformed("a header field has an invalid name"))?;
        let value = HeaderValue::from_bytes(&value);
        let value = value.map_err(|_| malformed("a header field has an invalid value"))?;
        // Fails above 32,768 fields; `max_head` is reached earlier unless it is a megabyte.
        if headers.try_append(name, value).is_err() {
            return Err(Violation::new(Code::EXCESSIVE_LOAD, "the response head has too many fields"));
        }
    }
    Ok((status, headers))
}

/// The length that the body must have (RFC 9114, section 4.1.2).
fn announced(status: StatusCode, headers: &HeaderMap) -> Result<Option<u64>, Violation> {
    // RFC 9110, section 8.6: a 304 announces the length of the body that it does not have.
    if status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    let mut announced = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        // RFC 9110, section 8.6: a list that repeats one value has that value.
        for value in value.as_bytes().split(|byte| *byte == b',') {
            let len = std::str::from_utf8(value.trim_ascii()).ok().and_then(digits);
            if len.is_none() || announced.is_some_and(|before| Some(before) != len) {
                return Err(malformed("Content-Length is no length"));
            }
            announced = len;
        }
    }
    Ok(announced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::h3::frame::{DATA, HEADERS, put_frame};
    use proptest::prelude::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn section(fields: Fields<'_>) -> Vec<u8> {
        qpack::encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    enum Sent<'a> {
        Head(Fields<'a>),
        Data(&'a [u8]),
    }
    use Sent::{Data, Head as Fields_};

    fn stream(frames: &[Sent<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            match frame {
                Fields_(fields) => put_frame(&mut bytes, HEADERS, &section(fields)),
                Data(data) => put_frame(&mut bytes, DATA, data),
            }
        }
        bytes
    }

    fn read(bytes: &[u8], size: usize) -> Result<(u16, Vec<u8>), Violation> {
        let mut reader = ResponseReader::new(4096);
        let (mut status, mut len, mut body) = (0, None, Vec::new());
        for mut input in bytes.chunks(size) {
            loop {
                let (used, part) = reader.next(input)?;
                match part {
                    Some(Part::Head(head)) => {
                        status = head.status.as_u16();
                        len = head
                            .headers
                            .get("content-length")
                            .and_then(|len| len.to_str().ok()?.parse().ok());
                    }
                    Some(Part::Body(range)) => body.extend(&input[range]),
                    None => break,
                }
                input = &input[used..];
            }
        }
        reader.finish()?;
        // A 304 has the length of the content that it does not send.
        assert!(len.is_none_or(|len: usize| len == body.len()) || status == 304, "{len:?}");
        Ok((status, body))
    }

    fn code(frames: &[Sent<'_>]) -> Option<Code> {
        read(&stream(frames), 1000).err().map(|violation| violation.code)
    }

    const OK: Fields<'static> = &[(":status", "200")];

    #[test]
    fn interim_heads_and_trailers_are_passed_over() {
        let frames = [
            Fields_(&[(":status", "103"), ("link", "</a>")]),
            Fields_(&[(":status", "200"), ("content-length", "5")]),
            Data(b"ab"),
            Data(b""),
            Data(b"cde"),
            Fields_(&[("digest", "x")]),
        ];
        for size in [1, 2, 7, 1000] {
            assert_eq!(read(&stream(&frames), size).unwrap(), (200, b"abcde".to_vec()));
        }
    }

    #[test]
    fn frames_out_of_order_end_the_connection() {
        assert_eq!(code(&[Data(b"a")]), Some(Code::FRAME_UNEXPECTED));
        assert_eq!(code(&[Fields_(&[(":status", "103")]), Data(b"a")]), Some(Code::FRAME_UNEXPECTED));
        assert_eq!(code(&[Fields_(OK), Fields_(&[]), Data(b"a")]), Some(Code::FRAME_UNEXPECTED));
        assert_eq!(code(&[Fields_(OK), Fields_(&[]), Fields_(&[])]), Some(Code::FRAME_UNEXPECTED));
        assert!(Violation::new(Code::FRAME_UNEXPECTED, "").ends_connection());
    }

    #[test]
    fn a_malformed_response_ends_its_stream() {
        for fields in [
            &[][..],
            &[("etag", "a")],
            &[(":status", "200"), (":status", "200")],
            &[("etag", "a"), (":status", "200")],
            &[(":path", "/")],
            &[(":status", "101")],
            &[(":status", "2000")],
            &[(":status", "x")],
            &[(":status", "200"), ("Etag", "a")],
            &[(":status", "200"), ("connection", "close")],
            &[(":status", "200"), ("transfer-encoding", "chunked")],
            &[(":status", "200"), ("a b", "a")],
            &[(":status", "200"), ("a", "b\n")],
            &[(":status", "200"), ("content-length", "-1")],
            &[(":status", "200"), ("content-length", "+1")],
            &[(":status", "200"), ("content-length", "1, 2")],
        ] {
            assert_eq!(code(&[Fields_(fields)]), Some(Code::MESSAGE_ERROR), "{fields:?}");
        }
        assert_eq!(code(&[Fields_(OK), Fields_(OK)]), Some(Code::MESSAGE_ERROR));
        assert_eq!(code(&[Fields_(&[(":status", "103")])]), Some(Code::MESSAGE_ERROR));
        assert!(!Violation::new(Code::MESSAGE_ERROR, "").ends_connection());
    }

    #[test]
    fn the_body_has_its_content_length() {
        let five: Fields<'_> = &[(":status", "206"), ("content-length", "5")];
        assert_eq!(code(&[Fields_(five), Data(b"abcde")]), None);
        assert_eq!(code(&[Fields_(five), Data(b"abcd")]), Some(Code::MESSAGE_ERROR));
        assert_eq!(code(&[Fields_(five), Data(b"abcdef")]), Some(Code::MESSAGE_ERROR));
        assert_eq!(code(&[Fields_(&[(":status", "200"), ("content-length", "5, 5")]), Data(b"abcde")]), None);
        assert_eq!(code(&[Fields_(&[(":status", "304"), ("content-length", "5")])]), None);
    }

    #[test]
    fn endless_interim_heads_are_refused() {
        let interim: Vec<Sent<'_>> = (0..100).map(|_| Fields_(&[(":status", "103")])).collect();
        assert_eq!(code(&interim), Some(Code::EXCESSIVE_LOAD));
    }

    proptest! {
        #[test]
        fn mutated_responses_end_the_same_in_any_pieces(
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..5),
            size in 1..20usize,
        ) {
            let mut bytes = stream(&[
                Fields_(&[(":status", "103")]),
                Fields_(&[(":status", "200"), ("content-length", "10"), ("etag", "\"a\"")]),
                Data(b"abcde"),
                Data(b"fghij"),
                Fields_(&[("x", "y")]),
            ]);
            for (at, byte) in changes {
                let len = bytes.len();
                bytes[at % len] = byte;
            }
            let whole = read(&bytes, bytes.len());
            prop_assert_eq!(whole.clone(), read(&bytes, size));
            prop_assert!(whole.is_err() || whole.is_ok_and(|(status, _)| status >= 200));
        }
    }
}
