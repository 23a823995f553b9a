//! Requests as the scripted origin reads them.

use std::io;

use super::wire::Wire;

/// A request, as the server saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number of its connection, from 0.
    pub connection: usize,
    /// Number of the request on its connection, from 0.
    pub on_connection: usize,
    /// Number of the request among all, from 0. Suffix requests do not count and have `usize::MAX`.
    pub number: usize,
    /// Number of earlier requests for the same path.
    pub again: usize,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// First byte of the requested range, and its last byte if there is one. `None` for an invalid range (RFC 9110, section
    /// 14.1.1).
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok());
        last.is_none_or(|last| first <= last).then_some((first, last))
    }

    /// Length of the requested suffix. Only a stream sends such a request, once, beside its opening.
    pub fn suffix(&self) -> Option<u64> {
        self.header("range")?.strip_prefix("bytes=-")?.parse().ok()
    }
}

/// The next request on a connection. `None` at its end.
pub(super) fn read_request(wire: &mut Wire<'_>, unread: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut buf = [0; 4096];
        let got = wire.receive(&mut buf)?;
        if got == 0 {
            return Ok(None);
        }
        unread.extend_from_slice(&buf[..got]);
    };
    let head = String::from_utf8_lossy(&unread[..end]).into_owned();
    unread.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, path) = (word(), word());
    let headers = super::header_fields(lines);
    Ok(Some(Request { connection: 0, on_connection: 0, number: 0, again: 0, method, path, headers }))
}
