//! The bytes of an HTTP/1 response head: where it ends, its status, and the forms that ureq's parser does not accept.

use std::io::BufRead;
use std::time::Duration;

/// A whole response head may take this many times the silence limit. A server that sends a byte now and then never reaches the
/// silence limit, and would block a worker forever; a head in three packets, each lost once, still arrives in time.
const HEAD_SILENCES: u32 = 3;

/// The time limit of a whole response head whose server may be silent for `silence`.
pub(crate) fn limit(silence: Duration) -> Duration {
    silence.saturating_mul(HEAD_SILENCES)
}

/// A complete response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Length in bytes, including the empty line.
    pub(crate) len: usize,
    /// A field value is continued on the next line (RFC 9112, section 5.2).
    pub(crate) is_folded: bool,
}

/// The head at the beginning of `bytes`. `None` if it is not complete.
pub(crate) fn complete(bytes: &[u8]) -> Option<Extent> {
    let (mut is_folded, mut line) = (false, 0);
    loop {
        // Searched again from the start for each read: heads come in one or two packets.
        line += line_len(&bytes[line..])?;
        match bytes[line..] {
            // RFC 9112, section 2.2: a single LF may end a line too.
            [b'\n', ..] => return Some(Extent { len: line + 1, is_folded }),
            [b'\r', b'\n', ..] => return Some(Extent { len: line + 2, is_folded }),
            [b' ' | b'\t', ..] => is_folded = true,
            _ => {}
        }
    }
}

/// The length of the first line, with its end. `None` if it is not complete.
fn line_len(mut bytes: &[u8]) -> Option<usize> {
    let first = bytes;
    // Compares whole words, unlike a loop over the bytes.
    let len = bytes.skip_until(b'\n').ok()?;
    first[..len].ends_with(b"\n").then_some(len)
}

/// The status of an HTTP/1 head. `None` if it is not one.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let [minor, b' ', rest @ ..] = rest else { return None };
    let (code, after) = rest.split_at_checked(3)?;
    // The reason phrase may be missing, with the space before it.
    let is_code = code.iter().all(u8::is_ascii_digit) && matches!(after, [b' ' | b'\r' | b'\n', ..]);
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    // RFC 9110, section 15: no status code is below 100. Codes above 599 are not valid either, but servers send them.
    (minor.is_ascii_digit() && is_code && code >= 100).then_some(code)
}

/// True for an interim response, which precedes the final one (RFC 9110, section 15.2).
pub(crate) fn is_interim(head: &[u8]) -> bool {
    // Section 15.2.2: after a 101 the connection no longer speaks HTTP, so no final response follows.
    // The first digit is looked at first, because this is asked for each response.
    head.get(b"HTTP/1.1 ".len()) == Some(&b'1') && matches!(status(head), Some(100 | 102..=199))
}

/// Replaces line folding by spaces (RFC 9112, section 5.2). The length does not change.
pub(crate) fn unfold(head: &[u8]) -> Vec<u8> {
    let mut unfolded = head.to_vec();
    for at in 0..head.len() {
        if head[at] == b'\n' && matches!(head.get(at + 1), Some(b' ' | b'\t')) {
            unfolded[at] = b' ';
            if at > 0 && unfolded[at - 1] == b'\r' {
                unfolded[at - 1] = b' ';
            }
        }
    }
    unfolded
}

/// Turns an HTTP/1.0 head with a transfer coding into one of HTTP/1.1; `None` for all other heads.
pub(crate) fn chunked_1_0_as_1_1(head: &[u8]) -> Option<Vec<u8>> {
    // HTTP/1.0 has no transfer codings, so ureq would return the chunk sizes as content.
    let rest = head.strip_prefix(b"HTTP/1.0")?;
    let names = head.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').next());
    let has_coding =
        names.map(<[u8]>::trim_ascii).any(|name| name.eq_ignore_ascii_case(b"transfer-encoding"));
    let (line, fields) = rest.split_at(rest.iter().position(|byte| *byte == b'\n')? + 1);
    // RFC 9112, section 6.1: such framing is faulty, and the connection must be closed after it.
    has_coding.then(|| [b"HTTP/1.1", line, b"Connection: close\r\n", fields].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_empty_line() {
        for (bytes, len) in [
            (&b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\r\n\r\n"[..], Some(25)),
            (b"HTTP/1.1 200 OK\n\nbody", Some(17)),
            (b"HTTP/1.1 200 OK\r\n\nbody", Some(18)),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n", None),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n\r", None),
            (b"", None),
        ] {
            assert_eq!(complete(bytes).map(|head| head.len), len, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn only_the_status_of_http_1_is_parsed() {
        for (head, expected) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], Some(200)),
            (b"HTTP/1.0 407\r\n\r\n", Some(407)),
            (b"HTTP/1.1 103 \n\n", Some(103)),
            (b"HTTP/1.1 2000 OK\r\n\r\n", None),
            (b"HTTP/1.1 2x0 OK\r\n\r\n", None),
            (b"HTTP/1.1 +20 OK\r\n\r\n", None),
            (b"HTTP/1.1 099 OK\r\n\r\n", None),
            (b"HTTP/2 200 OK\r\n\r\n", None),
            (b"HTTP/1.1", None),
            (b"ICY 200 OK\r\n\r\n", None),
        ] {
            assert_eq!(status(head), expected, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn interim_responses_are_recognised() {
        let is_interim = |status: &str| is_interim(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
        assert!(is_interim("100 Continue") && is_interim("102") && is_interim("103 Early Hints"));
        assert!(!is_interim("101 Switching Protocols") && !is_interim("200 OK") && !is_interim("1000 OK"));
    }

    #[test]
    fn a_transfer_coding_makes_a_response_http_1_1() {
        let converted =
            |head: &str| chunked_1_0_as_1_1(head.as_bytes()).map(|head| String::from_utf8(head).unwrap());
        assert_eq!(
            converted("HTTP/1.0 200 OK\r\nA: b\r\ntransfer-Encoding: chunked\r\n\r\n").as_deref(),
            Some("HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\ntransfer-Encoding: chunked\r\n\r\n")
        );
        assert_eq!(converted("HTTP/1.0 200 OK\r\nA: Transfer-Encoding: chunked\r\n\r\n"), None);
        assert_eq!(converted("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), None);
    }

    #[test]
    fn folded_lines_are_joined() {
        let unfolded = |head: &str| {
            let is_folded = complete(head.as_bytes()).unwrap().is_folded;
            is_folded.then(|| String::from_utf8(unfold(head.as_bytes())).unwrap())
        };
        assert_eq!(unfolded("HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n"), None);
        assert_eq!(
            unfolded("HTTP/1.1 200 OK\r\nA: b\r\n c\n\td\r\n \r\nE: f\r\n\r\n").as_deref(),
            Some("HTTP/1.1 200 OK\r\nA: b   c \td   \r\nE: f\r\n\r\n")
        );
        // RFC 9112, section 2.2: a folded line after the status line belongs to no field. It is joined with the status line.
        assert_eq!(unfolded("HTTP/1.1 200 OK\n A: b\n\n").as_deref(), Some("HTTP/1.1 200 OK  A: b\n\n"));
    }
}
