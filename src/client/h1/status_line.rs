//! Translates response heads that ureq does not accept.
//!
//! SHOUTcast servers send `ICY` in place of the HTTP version. There is no specification. Their heads also have line ends
//! without CR, spaces around header names, and lines that are not header fields. These are corrected or left out.
//!
//! In HTTP responses, interim responses are removed, because ureq refuses a 100 with header fields; folded fields are unfolded;
//! and a chunked HTTP/1.0 response becomes an HTTP/1.1 one. All other bytes pass unchanged.

use std::time::Instant;

use ureq::unversioned::transport::{Buffers, NextTimeout, Transport, time};

use super::head::{self, Extent};
use super::transport::carry;
use crate::error::{Error, ErrorKind};

const ICY: &[u8] = b"ICY ";
const HTTP: &[u8] = b"HTTP/1.";

/// Maximum length of all interim responses before the final one, in bytes. Four times the largest head that is allowed by
/// default.
const MAX_INTERIM: usize = 256 * 1024;

/// Translates the response heads of one connection.
#[derive(Debug, Default)]
pub(crate) struct HeadTranslator {
    /// A request was sent, and its response head is not classified yet.
    is_due: bool,
    /// Rest of the translated input that did not fit into the buffer yet.
    translated: Vec<u8>,
    /// Bytes that have come behind the head, if it passed as it is.
    behind_head: usize,
}

/// What the first bytes of a response are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadKind {
    /// Too few bytes to decide, or an incomplete head.
    Incomplete,
    /// A SHOUTcast head of this many bytes.
    Icy(usize),
    /// A complete HTTP/1 head.
    Http(Extent),
    /// Anything else.
    Other,
}

/// How far the head of a response is.
enum Progress {
    /// The head is translated, and waits to be delivered.
    Translated,
    /// The input goes to ureq as it is. If the head is complete, an end of the connection behind it is left to the next read,
    /// which returns it again.
    Passes { is_complete: bool },
    /// Too few bytes have arrived.
    NeedsMore,
}

impl HeadTranslator {
    /// Records that a request was sent, so a response head follows.
    pub(crate) fn expect(&mut self) {
        self.is_due = true;
    }

    /// Bytes that had come behind the head when it was complete.
    pub(crate) fn behind_head(&self) -> usize {
        self.behind_head
    }

    /// True if the response head was classified and all translated bytes were delivered.
    pub(crate) fn is_over(&self) -> bool {
        !self.is_due && self.translated.is_empty()
    }

    /// Waits for input as `transport` does, and translates a response head. Calls `first` to wait for the first bytes of a
    /// response.
    pub(crate) fn await_input(
        &mut self,
        transport: &mut dyn Transport,
        timeout: NextTimeout,
        first: impl FnOnce(&mut dyn Transport) -> Result<bool, ureq::Error>,
    ) -> Result<bool, ureq::Error> {
        if transport.buffers().input_append_buf().is_empty() {
            // ureq would take a read of 0 bytes for the end.
            return Err(too_large("the framing of the body is larger than the input buffer"));
        }
        if !self.translated.is_empty() {
            return Ok(self.deliver(transport));
        }
        if !self.is_due {
            return transport.await_input(timeout);
        }
        let (began, mut interim) = (Instant::now(), 0);
        // Behind the check for translated bytes: `first` records the first byte of an answer, and those came with an earlier
        // one.
        let mut received = first(transport)?;
        loop {
            match self.take_head(transport.buffers(), &mut interim)? {
                Progress::Translated => return Ok(self.deliver(transport)),
                Progress::Passes { is_complete } if received || is_complete => {
                    self.is_due = false;
                    return Ok(true);
                }
                Progress::NeedsMore if received => {
                    // What is left of the limit: a head that arrives one byte at a time would otherwise never time out.
                    received = transport.await_input(left(timeout, began)?)?;
                }
                Progress::NeedsMore | Progress::Passes { .. } => break,
            }
        }
        if !transport.buffers().input().is_empty() {
            let why = "the connection was closed within the response head";
            return Err(carry(Error::new(ErrorKind::Disconnected, why)));
        }
        self.is_due = false;
        Ok(false)
    }

    /// Removes interim responses from the input, and translates the head behind them if ureq would not accept it. `interim` is
    /// the length of all interim responses before.
    fn take_head(&mut self, buffers: &mut dyn Buffers, interim: &mut usize) -> Result<Progress, ureq::Error> {
        loop {
            match classify(buffers.input()) {
                HeadKind::Other => return Ok(Progress::Passes { is_complete: false }),
                HeadKind::Icy(len) => {
                    let http = icy_to_http(&buffers.input()[..len]);
                    self.translate(buffers, len, http);
                    return Ok(Progress::Translated);
                }
                HeadKind::Http(Extent { len, .. }) if head::is_interim(&buffers.input()[..len]) => {
                    *interim += len;
                    // An endless sequence of interim responses never reaches the limit of a single head.
                    if *interim > MAX_INTERIM {
                        return Err(too_large("the interim responses are larger than 256 KiB"));
                    }
                    buffers.input_consume(len);
                }
                HeadKind::Http(Extent { len, is_folded }) => {
                    let Some(converted) = convert(&buffers.input()[..len], is_folded) else {
                        self.behind_head = buffers.input().len() - len;
                        return Ok(Progress::Passes { is_complete: true });
                    };
                    self.translate(buffers, len, converted);
                    return Ok(Progress::Translated);
                }
                // ureq would take a read of 0 bytes for the end.
                HeadKind::Incomplete if buffers.input_append_buf().is_empty() => {
                    return Err(too_large("the response head is larger than the input buffer"));
                }
                HeadKind::Incomplete => return Ok(Progress::NeedsMore),
            }
        }
    }

    /// Takes all input and replaces its first `len` bytes, the head, by `head`.
    fn translate(&mut self, buffers: &mut dyn Buffers, len: usize, head: Vec<u8>) {
        self.is_due = false;
        self.translated = head;
        self.translated.extend_from_slice(&buffers.input()[len..]);
        let received = buffers.input().len();
        buffers.input_consume(received);
    }

    /// Copies translated bytes into the buffer as far as they fit: they may be longer than the input.
    fn deliver(&mut self, transport: &mut dyn Transport) -> bool {
        let buffers = transport.buffers();
        let room = buffers.input_append_buf();
        let fits = room.len().min(self.translated.len());
        room[..fits].copy_from_slice(&self.translated[..fits]);
        buffers.input_appended(fits);
        self.translated.drain(..fits);
        true
    }
}

fn too_large(what: &str) -> ureq::Error {
    carry(Error::new(ErrorKind::Protocol, what))
}

/// What is left of a limit that started at `began`.
fn left(timeout: NextTimeout, began: Instant) -> Result<NextTimeout, ureq::Error> {
    let time::Duration::Exact(limit) = timeout.after else { return Ok(timeout) };
    let left = limit.saturating_sub(began.elapsed());
    if left.is_zero() {
        return Err(ureq::Error::Timeout(timeout.reason));
    }
    Ok(NextTimeout { after: time::Duration::Exact(left), ..timeout })
}

fn classify(bytes: &[u8]) -> HeadKind {
    let is = |prefix: &[u8]| bytes.starts_with(prefix);
    if is(ICY) || is(HTTP) {
        return match head::complete(bytes) {
            Some(extent) if is(ICY) => HeadKind::Icy(extent.len),
            Some(extent) => HeadKind::Http(extent),
            None => HeadKind::Incomplete,
        };
    }
    if ICY.starts_with(bytes) || HTTP.starts_with(bytes) { HeadKind::Incomplete } else { HeadKind::Other }
}

/// Converts a complete HTTP/1 head that ureq refuses or misreads. `None` if no change is needed.
fn convert(head: &[u8], is_folded: bool) -> Option<Vec<u8>> {
    let unfolded = is_folded.then(|| head::unfold(head));
    head::chunked_1_0_as_1_1(unfolded.as_deref().unwrap_or(head)).or(unfolded)
}

/// Converts a complete SHOUTcast head to HTTP.
fn icy_to_http(head: &[u8]) -> Vec<u8> {
    let mut lines = head[ICY.len()..].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    // 1.0, in which a body without a length ends with the connection.
    let mut http = [b"HTTP/1.0 ", status(lines.next().unwrap_or_default()), b"\r\n"].concat();
    for (name, value) in lines.filter_map(parse_header) {
        http.extend_from_slice(name);
        http.extend_from_slice(b": ");
        // RFC 9110, section 5.5: CR, LF and NUL in a value are replaced by spaces. ureq refuses other control characters as well.
        http.extend(value.iter().map(|byte| if is_control(*byte) { b' ' } else { *byte }));
        http.extend_from_slice(b"\r\n");
    }
    http.extend_from_slice(b"\r\n");
    http
}

/// The HTTP status code for the rest of the line after `ICY`.
fn status(line: &[u8]) -> &[u8] {
    let code = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    match code {
        // SHOUTcast sends "401 Service Unavailable" while the source is offline, and "400 Server Full". Both are temporary.
        b"400" | b"401" => b"503",
        _ => code,
    }
}

fn parse_header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
    (!name.is_empty() && name.iter().all(is_in_name)).then_some((name, value))
}

/// Characters of a token (RFC 9110, section 5.6.2).
fn is_in_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use ureq::unversioned::transport::LazyBuffers;

    /// A connection that delivers `bytes` in reads of the lengths in `reads`, repeated, and then ends.
    #[derive(Debug)]
    struct Scripted {
        buffers: LazyBuffers,
        bytes: Vec<u8>,
        at: usize,
        reads: Vec<usize>,
        asked: usize,
    }

    impl Transport for Scripted {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), ureq::Error> {
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
            let room = self.buffers.input_append_buf();
            let most = self.reads[self.asked % self.reads.len()];
            let len = most.min(room.len()).min(self.bytes.len() - self.at);
            room[..len].copy_from_slice(&self.bytes[self.at..self.at + len]);
            self.buffers.input_appended(len);
            self.at += len;
            self.asked += 1;
            assert!(self.asked <= 2 * self.bytes.len() + 2, "it does not stop asking");
            Ok(len > 0)
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    /// The output for the input `bytes`, consumed in pieces of `most` bytes.
    fn pass(bytes: &[u8], reads: &[usize], room: usize, most: usize) -> Result<Vec<u8>, Error> {
        let buffers = LazyBuffers::new(room, room);
        let mut transport =
            Scripted { buffers, bytes: bytes.to_vec(), at: 0, reads: reads.to_vec(), asked: 0 };
        let mut translator = HeadTranslator::default();
        translator.expect();
        let mut out = Vec::new();
        loop {
            let timeout = NextTimeout::default();
            let received = translator
                .await_input(&mut transport, timeout, |transport| transport.await_input(timeout))
                .map_err(|error| Error::from_ureq(error, Duration::ZERO))?;
            let buffers = transport.buffers();
            while !buffers.input().is_empty() {
                let taken = buffers.input().len().min(most);
                out.extend_from_slice(&buffers.input()[..taken]);
                buffers.input_consume(taken);
            }
            if !received {
                assert!(translator.translated.is_empty());
                return Ok(out);
            }
        }
    }

    /// The expected output for a response that arrives in one read. `None` if it ends within the head.
    fn expected(bytes: &[u8]) -> Option<Vec<u8>> {
        match classify(bytes) {
            HeadKind::Icy(len) => Some([&icy_to_http(&bytes[..len]), &bytes[len..]].concat()),
            HeadKind::Http(Extent { len, .. }) if head::is_interim(&bytes[..len]) => expected(&bytes[len..]),
            HeadKind::Http(Extent { len, is_folded }) => {
                let converted = convert(&bytes[..len], is_folded).unwrap_or_else(|| bytes[..len].to_vec());
                Some([&converted, &bytes[len..]].concat())
            }
            HeadKind::Other => Some(bytes.to_vec()),
            HeadKind::Incomplete => bytes.is_empty().then(Vec::new),
        }
    }

    fn http(head: &[u8]) -> String {
        assert_eq!(classify(head), HeadKind::Icy(head.len()));
        String::from_utf8_lossy(&icy_to_http(head)).into_owned()
    }

    #[test]
    fn a_shoutcast_head_becomes_an_http_head() {
        let head = b"ICY 200 OK\r\nicy-notice1:<BR>This stream requires <a href=\"http://www.winamp.com/\">Winamp</a><BR>\
            \r\nicy-name:Radio: One\r\nicy-metaint:8192\r\n\r\n";
        let expected = "HTTP/1.0 200\r\nicy-notice1: <BR>This stream requires <a href=\"http://www.winamp.com/\">Winamp</a>\
            <BR>\r\nicy-name: Radio: One\r\nicy-metaint: 8192\r\n\r\n";
        assert_eq!(http(head), expected);
    }

    #[test]
    fn invalid_lines_are_corrected_or_left_out() {
        let head = b"ICY  200\n icy-name : a\x01b \nno header\nno name: x\n: x\nicy-br:\n\xFF: x\n\n";
        assert_eq!(http(head), "HTTP/1.0 200\r\nicy-name: a b\r\nicy-br: \r\n\r\n");
    }

    #[test]
    fn a_server_that_is_full_or_has_no_source_is_unavailable() {
        assert_eq!(http(b"ICY 401 Service Unavailable\r\n\r\n"), "HTTP/1.0 503\r\n\r\n");
        assert_eq!(http(b"ICY 400 Server Full\r\n\r\n"), "HTTP/1.0 503\r\n\r\n");
        assert_eq!(http(b"ICY 404 Resource Not Found\r\n\r\n"), "HTTP/1.0 404\r\n\r\n");
    }

    #[test]
    fn only_the_beginning_of_a_head_is_incomplete() {
        for cut in
            [&b""[..], b"I", b"ICY", b"ICY ", b"ICY 200 OK\r\na: b\r\n\r", b"H", b"HTTP/1.1 200 OK\r\n"]
        {
            assert_eq!(classify(cut), HeadKind::Incomplete);
        }
        for other in [&b"HX"[..], b"HTTP/2 200", b"ICX", b"ICYcle", b"\n"] {
            assert_eq!(classify(other), HeadKind::Other);
        }
    }

    #[test]
    fn a_head_without_an_end_is_an_error() {
        let endless = [b"ICY 200 OK\r\n".to_vec(), vec![b'x'; 5000]].concat();
        assert_eq!(pass(&endless, &[100], 1000, 1).unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(pass(&endless, &[100], 10_000, 1).unwrap_err().kind(), ErrorKind::Disconnected);
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "icy-(name|br|metaint) ?: ?[ -~]{0,20}\r?".prop_map(String::into_bytes),
            vec(any::<u8>(), 0..20),
        ]
    }

    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let first =
            prop_oneof!["ICY ?[0-9]{0,3}[ A-Z]{0,9}\r?", "HTTP/1.[01] (200|100|103|404) OK\r", "[ICY ]{0,6}"];
        (first, vec(line(), 0..6), vec(any::<u8>(), 0..300)).prop_map(|(first, lines, body)| {
            let mut bytes = first.into_bytes();
            for line in lines {
                bytes.push(b'\n');
                bytes.extend(line);
            }
            bytes.extend_from_slice(b"\n\r\n");
            bytes.extend(body);
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_response_in_any_reads_is_translated_or_unchanged(
            bytes in prop_oneof![answer(), vec(any::<u8>(), 0..200), vec(prop_oneof![Just(b'I'), Just(b'C'), Just(b'Y'), Just(b' '), Just(b'\n')], 0..30)],
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
            reads in vec(1..40_usize, 1..8),
            room in 600..2000_usize,
            most in 1..100_usize,
        ) {
            let bytes = if is_cut && !bytes.is_empty() { &bytes[..cut.index(bytes.len())] } else { &bytes };
            match expected(bytes) {
                Some(expected) => prop_assert_eq!(pass(bytes, &reads, room, most).unwrap(), expected),
                None => prop_assert_eq!(pass(bytes, &reads, room, most).unwrap_err().kind(), ErrorKind::Disconnected),
            }
        }

        /// Whatever a head contains, an HTTP parser accepts the translated header fields.
        #[test]
        fn a_translated_head_has_only_a_status_line_and_header_fields(lines in vec(line(), 0..8)) {
            let mut head = b"ICY 200 OK".to_vec();
            for line in &lines {
                head.push(b'\n');
                head.extend(line);
            }
            head.extend_from_slice(b"\n\n");
            let HeadKind::Icy(len) = classify(&head) else { panic!("a whole head") };
            let http = icy_to_http(&head[..len]);
            prop_assert!(http.ends_with(b"\r\n\r\n"));
            let mut lines = http[..http.len() - 4].split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
            prop_assert_eq!(lines.next(), Some(&b"HTTP/1.0 200"[..]));
            for line in lines {
                prop_assert!(parse_header(line).is_some() && !line.iter().copied().any(is_control), "{:?}", line);
            }
        }
    }
}
