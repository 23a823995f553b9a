//! A response and its body, for blocking reads. A body that ends early is always an error.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::HeaderMap;

use super::body::Body;
use super::exchange::Exchange;
use super::head::{Head, ResponseHead};
use super::min_rate::MinRateMonitor;
use super::request::Request;
use super::silence::SilenceHedge;
use crate::bandwidth::{ReadMeter, Sample};
use crate::cancel::{CancelGuard, CancelStage, CancelToken};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::types::ByteRange;

/// A body of fewer bytes is short: a server sends about 14 KiB before it waits for an acknowledgement (10 segments, RFC 6928).
const SHORT: u64 = 16 * 1024;

/// A response whose body is open.
pub(crate) struct Response {
    head: ResponseHead,
    body: Body,
    exchange: Arc<Exchange>,
    /// Position of the next byte in the resource.
    position: u64,
    /// Bytes that have not arrived yet, if the length was announced.
    left: Option<u64>,
    is_over: bool,
    min_rate: MinRateMonitor,
    meter: ReadMeter,
    /// When the request was sent, or earlier. `None` once the body is complete.
    sent: Option<Instant>,
    /// Bandwidth sample of the last read, until it is taken.
    sample: Option<Sample>,
    url: HttpUrl,
    range: Option<ByteRange>,
    _on_cancel: CancelGuard,
    /// Time spent waiting for other connections before the request that was answered was sent.
    waited_before: Duration,
    /// Requests the rest of this body while it is silent.
    silence: Option<SilenceHedge<Box<Response>>>,
    /// Token that cancels this body, if the body has to keep it alive.
    token: Option<CancelToken>,
}

impl Response {
    /// A response to `request`. Dropping `on_cancel` ends the cancellation of its exchange.
    pub(super) fn new(
        head: ResponseHead,
        body: Body,
        exchange: Arc<Exchange>,
        on_cancel: CancelGuard,
        min_rate: MinRateMonitor,
        request: &Request,
    ) -> Self {
        let (position, left) = (head.start(), head.body_len());
        let sent = exchange.silent_since().map(|(bound, ..)| bound);
        Self {
            sent,
            head,
            body,
            exchange,
            position,
            left,
            is_over: false,
            min_rate,
            meter: ReadMeter::default(),
            sample: None,
            url: request.url().clone(),
            range: request.byte_range(),
            _on_cancel: on_cancel,
            waited_before: Duration::ZERO,
            silence: None,
            token: None,
        }
    }

    /// Adds time spent waiting for other connections.
    pub(super) fn add_waited_before(&mut self, waited_before: Duration) {
        self.waited_before += waited_before;
    }

    /// Time spent waiting for connections that did not answer, before the request that was answered was sent. It must not count
    /// as TTFB: each hedge would start later than the one before.
    pub(crate) fn waited_before(&self) -> Duration {
        self.waited_before
    }

    /// An empty response without a server.
    pub(super) fn hollow(request: &Request, cancel: &CancelToken) -> Self {
        let head = ResponseHead::new(Head {
            peer: None,
            status: 200,
            url: SafeUrl::from(request.url()),
            headers: HeaderMap::new(),
            start: 0,
            body_len: Some(0),
            total: None,
            is_partial: false,
            requested: None,
        });
        let on_cancel = cancel.on_cancel(CancelStage::Abort, |_| ());
        Self::new(
            head,
            Body::Closed,
            Arc::default(),
            on_cancel,
            MinRateMonitor::new(0, Duration::MAX),
            request,
        )
    }

    /// Keeps the token that cancels this body alive: a dropped token no longer gets the cancels of its parent.
    pub(crate) fn keep(&mut self, token: CancelToken) {
        self.token = Some(token);
    }

    /// Takes a short body out of its connection, which then serves other requests, if all of it came along with the head. Does
    /// not block.
    pub(crate) fn take_arrived(&mut self) -> Result<(), Error> {
        match self.left.filter(|left| *left <= SHORT) {
            Some(left) => self.body.take_arrived(left as usize),
            None => Ok(()),
        }
    }

    /// True if silences of the body are worth watching. Most shorter bodies arrive together with their heads.
    pub(crate) fn is_long(&self) -> bool {
        self.head.body_len().is_some_and(|len| len > SHORT)
    }

    /// Watches the silences of the body with the hedge that `watch` makes for its exchange.
    pub(super) fn watch_silence(&mut self, watch: impl FnOnce(&Arc<Exchange>) -> SilenceHedge<Box<Self>>) {
        self.silence = Some(watch(&self.exchange));
    }

    /// Call it after a read has failed. Returns the response that continues this body, if a hedged request was faster.
    pub(crate) fn take_winner(&mut self) -> Option<Box<Self>> {
        self.silence.take()?.take_winner()
    }

    /// The token passed to [`keep`](Self::keep).
    pub(crate) fn token(&self) -> Option<&CancelToken> {
        self.token.as_ref()
    }

    pub(crate) fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// Position of the next byte in the resource.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Position of the body's end in the resource, if announced.
    pub(crate) fn end(&self) -> Option<u64> {
        Some(self.position + self.left?)
    }

    /// Takes the bandwidth sample of the last read, if it gave one.
    pub(crate) fn take_sample(&mut self) -> Option<Sample> {
        self.sample.take()
    }

    /// When the last read ended. The time of the call if there was none.
    pub(crate) fn last_read_at(&self) -> Instant {
        self.meter.last_read_at().unwrap_or_else(Instant::now)
    }

    /// Records that the bytes of the last read are stored. Time before this call was spent in the sink, not in the network.
    pub(crate) fn note_stored(&mut self) {
        self.meter.handle_stored(Instant::now());
    }

    /// Records that `max_bandwidth` has held the next read back since `began`.
    pub(crate) fn note_paced(&mut self, began: Instant) {
        self.meter.handle_paced(began);
    }

    /// The origin that sends the body, after redirects.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.exchange.origin.as_ref()
    }

    /// Reads the available bytes. Blocks until at least one byte arrives, for at most the silence limit. 0 means that the body
    /// is complete, or that `buf` is empty.
    pub(crate) fn read_chunk(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if let Some(silence) = &self.silence {
            silence.begin_wait(self.position);
        }
        // Only blocking reads are watched: a brief one ends before any silence.
        let result = self.read(buf, |body, buf| body.read(buf).map(Some));
        if let Some(silence) = &self.silence {
            silence.end_wait(result.is_ok());
        }
        result.map(|got| got.unwrap_or_else(|| unreachable!("only brief reads return `None`")))
    }

    /// As [`read_chunk`](Self::read_chunk), but blocks for at most [`BRIEF`](super::body::BRIEF): `None` if nothing arrived.
    /// Only call it if [`can_be_brief`](Self::can_be_brief) is true.
    pub(crate) fn read_briefly(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        self.read(buf, Body::read_briefly)
    }

    /// True if the next read can be brief.
    pub(crate) fn can_be_brief(&self) -> bool {
        self.body.can_be_brief()
    }

    fn read(
        &mut self,
        buf: &mut [u8],
        read: impl FnOnce(&mut Body, &mut [u8]) -> Result<Option<usize>, Error>,
    ) -> Result<Option<usize>, Error> {
        // After an error, too: the connection may be anywhere in the body, so nothing more of it is read.
        if self.is_over || buf.is_empty() {
            return Ok(Some(0));
        }
        // Without a read, which would block: the server sends nothing more.
        if self.left == Some(0) {
            self.finish();
            return Ok(Some(0));
        }
        match self.read_some(buf, read) {
            Ok(got) => {
                self.is_over |= got == Some(0);
                Ok(got)
            }
            Err(error) => {
                self.is_over = true;
                // A cancel shuts the socket down, so the read fails with another error. Return the cancel.
                let error = self.exchange.cancelled().unwrap_or(error).with_url(&self.url);
                Err(match self.range {
                    Some(range) => error.with_range(range),
                    None => error,
                })
            }
        }
    }

    fn read_some(
        &mut self,
        buf: &mut [u8],
        read: impl FnOnce(&mut Body, &mut [u8]) -> Result<Option<usize>, Error>,
    ) -> Result<Option<usize>, Error> {
        // Bytes after the announced length do not belong to this body.
        let most = self
            .left
            .map_or(buf.len(), |left| usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len())));
        let Some(got) = self.measure(|body| read(body, &mut buf[..most]))? else { return Ok(None) };
        self.position += got as u64;
        let Some(left) = self.left else { return Ok(Some(got)) };
        let left = left.saturating_sub(got as u64);
        self.left = Some(left);
        if got == 0 && left > 0 {
            return Err(Error::new(
                ErrorKind::Disconnected,
                format!("the connection was closed {left} bytes before the end of the body"),
            ));
        }
        // Now, not at the next read, which may never come: the connection can serve others.
        if left == 0 && got > 0 {
            self.finish();
        }
        Ok(Some(got))
    }

    /// Reads, and measures the read: for the bandwidth, and against the minimum rate.
    fn measure(
        &mut self,
        read: impl FnOnce(&mut Body) -> Result<Option<usize>, Error>,
    ) -> Result<Option<usize>, Error> {
        let began = Instant::now();
        let read = read(&mut self.body);
        let ended = Instant::now();
        self.sample = match &read {
            Ok(got) => self.meter.handle_read(began, ended, got.unwrap_or(0)),
            // A read that timed out is a sample too: no bytes in that time.
            Err(error) if error.kind() == ErrorKind::Silent => self.meter.handle_read(began, ended, 0),
            Err(_) => None,
        };
        let Some(got) = read? else { return Ok(None) };
        // Not at the end: a complete body is never too slow.
        if got > 0 && self.min_rate.is_below(got, ended - began) {
            return Err(Error::new(ErrorKind::Silent, self.min_rate.to_string()));
        }
        // No bytes after a cancel, even if they had already arrived.
        match self.exchange.cancelled() {
            Some(cancelled) => Err(cancelled),
            None => Ok(Some(got)),
        }
    }

    /// Ends the body, which is complete, and releases its connection.
    fn finish(&mut self) {
        self.is_over = true;
        if let Some(sent) = self.sent.take() {
            self.sample = self.sample.take().or_else(|| self.meter.handle_end(sent));
        }
        self.body.finish();
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelReason;
    use crate::client::HttpClient;
    use crate::config::ClientConfig;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    const LEN: usize = 1_000_000;

    fn read_head(mut socket: &TcpStream) -> Vec<u8> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        head
    }

    /// Serves one connection as an origin, or as a proxy that plays the origin at the end of its tunnel.
    fn serve(listener: &TcpListener) {
        let (mut socket, _) = listener.accept().unwrap();
        if read_head(&socket).starts_with(b"CONNECT") {
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            read_head(&socket);
        }
        socket.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").as_bytes()).unwrap();
        socket.write_all(&vec![7; LEN]).unwrap();
    }

    #[test]
    fn only_a_direct_connection_is_read_without_ureq() {
        for is_proxied in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let server = thread::spawn(move || serve(&listener));
            let proxy = is_proxied.then(|| url.clone());
            let config = ClientConfig { proxy, ..ClientConfig::default() };
            let client = HttpClient::new(&config).unwrap();
            let cancel = CancelToken::new(CancelReason::Fetch);
            let mut response = client.open(&Request::get(&url).unwrap(), &cancel, None).unwrap();
            let (mut buf, mut total, mut was_direct) = (vec![0; 64 * 1024], 0, false);
            loop {
                let got = response.read_chunk(&mut buf).unwrap();
                if got == 0 {
                    break;
                }
                assert!(buf[..got].iter().all(|byte| *byte == 7));
                total += got;
                was_direct |= response.can_be_brief();
            }
            assert_eq!((total, was_direct), (LEN, !is_proxied));
            server.join().unwrap();
            client.close();
        }
    }
}
