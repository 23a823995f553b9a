//! The bytes of an answer: status line, header fields, chunks and trailers.

use std::ops::Range;

use super::answer::{Answer, Framing};

impl Answer {
    pub(super) fn head(&self) -> String {
        let reason = if self.version == "ICY" { "OK" } else { "whatever" };
        let mut head = format!("{} {} {reason}\r\n", self.version, self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        match self.framing {
            // A 304 has no body (RFC 9110, section 15.4.5), and most servers send no length of another one.
            Framing::Length if !has_length && self.status != 304 => {
                head.push_str(&format!("Content-Length: {}\r\n", self.part.end - self.part.start));
            }
            Framing::Close => head.push_str("Connection: close\r\n"),
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::Length => {}
        }
        head.push_str("\r\n");
        head
    }

    /// The heads of the interim responses.
    pub(super) fn interim_heads(&self) -> String {
        let head = |status: &u16| match status {
            103 => "HTTP/1.1 103 Early Hints\r\nLink: </cover.jpg>; rel=preload\r\n\r\n".into(),
            _ => format!("HTTP/1.1 {status} whatever\r\n\r\n"),
        };
        self.interim.iter().map(head).collect()
    }

    /// The bytes after the last chunk of content.
    pub(super) fn chunked_end(&self) -> Vec<u8> {
        let mut end = String::new();
        if self.extra_is_chunk {
            end.push_str(&format!("{:x}\r\n{}\r\n", self.extra, "x".repeat(self.extra)));
        }
        end.push_str("0\r\n");
        for (name, value) in &self.trailers {
            end.push_str(&format!("{name}: {value}\r\n"));
        }
        end.push_str("\r\n");
        let mut end = end.into_bytes();
        if !self.extra_is_chunk {
            self.append_extra(&mut end);
        }
        end
    }

    pub(super) fn append_extra(&self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.extra, b'x');
    }

    /// True if another response can follow on the same connection.
    pub(super) fn keeps_connection(&self) -> bool {
        let is_kept = self.headers.contains(&("Connection".into(), "keep-alive".into()));
        self.framing != Framing::Close && !self.closes_when_idle && (self.version == "HTTP/1.1" || is_kept)
    }
}

/// Appends a part of the body with its framing. A cut chunk announces one byte more than it has.
pub(super) fn append(out: &mut Vec<u8>, answer: &Answer, part: Range<u64>, is_cut: bool) {
    if answer.framing != Framing::Chunked {
        return answer.body.append(out, part);
    }
    let announced = part.end - part.start + u64::from(is_cut);
    if announced == 0 {
        return;
    }
    out.extend_from_slice(format!("{announced:x}\r\n").as_bytes());
    answer.body.append(out, part);
    if !is_cut {
        out.extend_from_slice(b"\r\n");
    }
}
