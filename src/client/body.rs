//! The body of an answer, read by blocking: every break is an error, and an end is the end.

use std::fmt;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::BodyReader;
use ureq::http::HeaderMap;

use super::exchange::Exchange;
use super::pace::Pace;
use super::request::{Head, Request};
use super::transport::read_into;
use super::{ByteRange, describe, describe_io};
use crate::cancel::{CancelGuard, CancelToken};
use crate::error::{Error, ErrorKind};

/// Who has such a buffer reads into it by a system call of its own; what goes into smaller ones is buffered by ureq.
const LARGE: usize = 16 * 1024;

/// An answer with its body open.
pub(crate) struct Response {
    head: Head,
    /// Owns the connection. `None` once it was let go of.
    body: Option<BodyReader<'static>>,
    /// Where the rest of the body comes from, once ureq has given out what it had buffered: straight into the asker's
    /// buffer, for a body that nothing but a length frames.
    direct: Option<Arc<TcpStream>>,
    /// It was read into a large buffer once. A small one since is the rest of such a one.
    is_read_large: bool,
    exchange: Arc<Exchange>,
    /// Offset in the resource of the next byte.
    position: u64,
    /// Bytes to come, if announced.
    left: Option<u64>,
    is_over: bool,
    framing: Framing,
    pace: Pace,
    url: String,
    range: Option<ByteRange>,
    _on_cancel: CancelGuard,
    /// What cancels this body, if nobody else holds on to it.
    token: Option<CancelToken>,
}

/// What is known of the way a body ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    /// Nothing but its announced bytes is sent.
    pub(super) by_length: bool,
    /// The connection serves other requests after it.
    pub(super) keeps_alive: bool,
}

impl Response {
    pub(super) fn new(
        head: Head,
        body: BodyReader<'static>,
        exchange: Arc<Exchange>,
        on_cancel: CancelGuard,
        pace: Pace,
        url: String,
        range: Option<ByteRange>,
    ) -> Self {
        let (position, left) = (head.start(), head.body_len());
        Self {
            head,
            body: Some(body),
            direct: None,
            is_read_large: false,
            exchange,
            position,
            left,
            is_over: false,
            framing: Framing::default(),
            pace,
            url,
            range,
            _on_cancel: on_cancel,
            token: None,
        }
    }

    /// Tells how the body ends.
    pub(super) fn framed(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// An empty body that no server sent.
    pub(super) fn hollow(request: &Request, cancel: &CancelToken) -> Self {
        let head = Head {
            status: 200,
            url: request.url().to_owned(),
            headers: HeaderMap::new(),
            start: 0,
            body_len: Some(0),
            total: None,
        };
        let body = ureq::Body::builder().data(Vec::new()).into_reader();
        let on_cancel = cancel.on_cancel(|_| ());
        let pace = Pace::new(0, Duration::MAX);
        Self::new(head, body, Arc::default(), on_cancel, pace, request.url().to_owned(), None)
    }

    /// Holds on to the token that cancels this body: a token that nobody holds hears nothing from above.
    pub(crate) fn keep(&mut self, token: CancelToken) {
        self.token = Some(token);
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Offset in the resource of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads what there is; blocks until a byte is there, for the silence limit at most. 0 says that the body is complete,
    /// or `buf` empty.
    pub(crate) fn read_chunk(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if self.is_over || buf.is_empty() {
            return Ok(0);
        }
        if self.left == Some(0) {
            self.release();
            return Ok(0);
        }
        match self.read_some(buf) {
            Ok(got) => {
                self.is_over |= got == 0;
                Ok(got)
            }
            Err(error) => {
                self.is_over = true;
                let error = self.exchange.cancelled().unwrap_or(error).with_url(self.url.clone());
                Err(match self.range {
                    Some(range) => error.with_range(range),
                    None => error,
                })
            }
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        // What lies behind the announced bytes is nobody's.
        let most = self
            .left
            .map_or(buf.len(), |left| usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len())));
        let began = Instant::now();
        let got = self.read_body(&mut buf[..most])?;
        if got > 0 && self.pace.is_trickle(got, began.elapsed()) {
            return Err(Error::new(ErrorKind::Silent, "the server sends too slowly to go on with it"));
        }
        if let Some(cancelled) = self.exchange.cancelled() {
            return Err(cancelled);
        }
        self.position += got as u64;
        let Some(left) = self.left else { return Ok(got) };
        let left = left.saturating_sub(got as u64);
        self.left = Some(left);
        if got == 0 && left > 0 {
            return Err(Error::new(ErrorKind::Disconnected, format!("the body ended {left} bytes early")));
        }
        if left == 0 && got > 0 {
            self.release();
        }
        Ok(got)
    }

    /// Reads by ureq what it has buffered or has to decode, and the rest from the socket where nothing is to be decoded and
    /// the buffer is worth it.
    fn read_body(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if self.direct.is_none() {
            let Some(body) = &mut self.body else { return Ok(0) };
            self.is_read_large |= buf.len() >= LARGE;
            self.exchange.allow_direct(self.framing.by_length && self.is_read_large);
            let result = body.read(buf);
            self.direct = self.exchange.direct();
            if self.direct.is_none() {
                return result.map_err(|error| describe(ureq::Error::from(error)));
            }
        }
        let Some(socket) = &self.direct else { return Ok(0) };
        read_into(socket, buf).map_err(describe_io)
    }

    /// Ends the body, and lets go of its connection: into stock, if it can serve others. That does not block where a length
    /// frames the body; else the end may not have been sent, and the connection is closed.
    fn release(&mut self) {
        self.is_over = true;
        let Some(mut body) = self.body.take() else { return };
        if self.direct.take().is_none() {
            if self.framing.by_length {
                // ureq lets go of the connection when a read returns nothing. What comes of it does not matter: all bytes
                // are there.
                drop(body.read(&mut [0]));
            }
        } else if self.framing.keeps_alive {
            self.exchange.note_served();
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("head", &self.head).finish_non_exhaustive()
    }
}
