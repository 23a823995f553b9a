//! Where the head of an answer ends.

/// Length of the head that `bytes` begin with, the empty line included. `None` if it is not complete. A lone LF ends a line
/// too (RFC 9112, section 2.2).
pub(super) fn complete_len(bytes: &[u8]) -> Option<usize> {
    let line_ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    line_ends.into_iter().find_map(|next| match bytes[next..] {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

/// The status of a head of HTTP/1; `None` for what is no such head.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let [minor, b' ', rest @ ..] = rest else { return None };
    let (code, after) = rest.split_at_checked(3)?;
    // The reason may be missing, and with it the space.
    let is_code = code.iter().all(u8::is_ascii_digit) && matches!(after, [b' ' | b'\r' | b'\n', ..]);
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    (minor.is_ascii_digit() && is_code && code >= 100).then_some(code)
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
            assert_eq!(complete_len(bytes), len, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_status_of_http_1_alone_is_understood() {
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
}
