//! The body of an answer, read by blocking: every break is an error, and an end is the end.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::BodyReader;
use ureq::http::HeaderMap;

use super::exchange::Exchange;
use super::pace::Pace;
use super::request::{Head, Request};
use super::{ByteRange, describe};
use crate::cancel::{CancelGuard, CancelToken};
use crate::error::{Error, ErrorKind};

/// An answer with its body open.
pub(crate) struct Response {
    head: Head,
    body: BodyReader<'static>,
    exchange: Arc<Exchange>,
    /// Offset in the resource of the next byte.
    position: u64,
    /// Bytes to come, if announced.
    left: Option<u64>,
    is_over: bool,
    /// The connection can be used again after the announced bytes: they are all that was sent.
    pub(super) is_framed_by_length: bool,
    pace: Pace,
    url: String,
    range: Option<ByteRange>,
    _on_cancel: CancelGuard,
    /// What cancels this body, if nobody else holds on to it.
    token: Option<CancelToken>,
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
            body,
            exchange,
            position,
            left,
            is_over: false,
            is_framed_by_length: false,
            pace,
            url,
            range,
            _on_cancel: on_cancel,
            token: None,
        }
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
        let got = self.body.read(&mut buf[..most]).map_err(|error| describe(ureq::Error::from(error)))?;
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

    /// Ends the body. Its connection goes back into stock, which ureq gives back when a read returns nothing. That does not
    /// block where a length frames the body; else the end may not have been sent, and the connection is closed.
    fn release(&mut self) {
        self.is_over = true;
        if self.is_framed_by_length {
            // What comes of it does not matter: all bytes are there.
            drop(self.body.read(&mut [0]));
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("head", &self.head).finish_non_exhaustive()
    }
}
