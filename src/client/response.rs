//! A response and its body, read by blocking: every break is an error, and an end is the end.

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
use crate::cancel::{CancelGuard, CancelToken};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::types::ByteRange;

/// A body of fewer bytes is short: a server sends about this much (10 segments, RFC 6928) before it waits for an acknowledgement.
const SHORT: u64 = 16 * 1024;

/// A response with its body open.
pub(crate) struct Response {
    head: ResponseHead,
    body: Body,
    exchange: Arc<Exchange>,
    /// Offset in the resource of the next byte.
    position: u64,
    /// Bytes to come, if announced.
    left: Option<u64>,
    is_over: bool,
    min_rate: MinRateMonitor,
    meter: ReadMeter,
    /// What the last read showed of the network, until it is taken.
    sample: Option<Sample>,
    url: HttpUrl,
    range: Option<ByteRange>,
    _on_cancel: CancelGuard,
    /// How long other connections had been waited for before its own request was sent.
    lost: Duration,
    /// Asks for the rest beside this body while it is silent.
    silence: Option<SilenceHedge<Box<Response>>>,
    /// What cancels this body, if nobody else holds on to it.
    token: Option<CancelToken>,
}

impl Response {
    /// An answer to `request` with this head, whose exchange ends with `on_cancel`.
    pub(super) fn new(
        head: ResponseHead,
        body: Body,
        exchange: Arc<Exchange>,
        on_cancel: CancelGuard,
        min_rate: MinRateMonitor,
        request: &Request,
    ) -> Self {
        let (position, left) = (head.start(), head.body_len());
        Self {
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
            lost: Duration::ZERO,
            silence: None,
            token: None,
        }
    }

    /// Adds time in which other connections had been waited for.
    pub(super) fn add_lost(&mut self, lost: Duration) {
        self.lost += lost;
    }

    /// How long other connections, which did not answer, had been waited for before the request was sent that did: no part
    /// of the time that a request takes.
    pub(crate) fn lost(&self) -> Duration {
        self.lost
    }

    /// An empty body that no server sent.
    pub(super) fn hollow(request: &Request, cancel: &CancelToken) -> Self {
        let head = ResponseHead::new(Head {
            status: 200,
            url: SafeUrl::from(request.url()),
            headers: HeaderMap::new(),
            start: 0,
            body_len: Some(0),
            total: None,
            is_partial: false,
            asked: None,
        });
        let on_cancel = cancel.on_cancel(|_| ());
        Self::new(
            head,
            Body::Closed,
            Arc::default(),
            on_cancel,
            MinRateMonitor::new(0, Duration::MAX),
            request,
        )
    }

    /// Holds on to the token that cancels this body: a token that nobody holds hears nothing from above.
    pub(crate) fn keep(&mut self, token: CancelToken) {
        self.token = Some(token);
    }

    /// True if it is worth a watch for silence: most shorter ones come in one piece with their heads.
    pub(crate) fn is_long(&self) -> bool {
        self.head.body_len().is_some_and(|len| len > SHORT)
    }

    /// Has its silences watched by what `watch` makes of its exchange.
    pub(super) fn watch_silence(&mut self, watch: impl FnOnce(&Arc<Exchange>) -> SilenceHedge<Box<Self>>) {
        self.silence = Some(watch(&self.exchange));
    }

    /// After a read has failed: the body that goes on with this one, if it was requested beside it and was faster.
    pub(crate) fn take_winner(&mut self) -> Option<Box<Self>> {
        self.silence.take()?.take_winner()
    }

    /// The token that was to be held on to.
    pub(crate) fn token(&self) -> Option<&CancelToken> {
        self.token.as_ref()
    }

    pub(crate) fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// Offset in the resource of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Offset in the resource of its end, if announced.
    pub(crate) fn end(&self) -> Option<u64> {
        Some(self.position + self.left?)
    }

    /// What the last read showed of the network, if anything, and if nobody has taken it.
    pub(crate) fn take_sample(&mut self) -> Option<Sample> {
        self.sample.take()
    }

    /// Notes that what the last read brought was stored, and that nobody has held the body back by now.
    pub(crate) fn note_stored(&mut self) {
        self.meter.handle_stored(Instant::now());
    }

    /// Where the bytes come from, after redirects.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.exchange.origin.as_ref()
    }

    /// Reads what there is; blocks until a byte is there, for the silence limit at most. 0 says that the body is complete,
    /// or `buf` empty.
    pub(crate) fn read_chunk(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if let Some(silence) = &self.silence {
            silence.begin_wait(self.position);
        }
        let result = self.read(buf, |body, buf| body.read(buf).map(Some));
        if let Some(silence) = &self.silence {
            silence.end_wait(result.is_ok());
        }
        result.map(|got| got.unwrap_or_else(|| unreachable!("only brief reads come to nothing")))
    }

    /// As [`read_chunk`](Self::read_chunk), but blocks for a moment only: `None` if nothing came. To be used where
    /// [`can_be_brief`](Self::can_be_brief).
    pub(crate) fn read_briefly(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        self.read(buf, Body::read_briefly)
    }

    /// True if the next read can be a brief one.
    pub(crate) fn can_be_brief(&self) -> bool {
        self.body.can_be_brief()
    }

    fn read(
        &mut self,
        buf: &mut [u8],
        read: impl FnOnce(&mut Body, &mut [u8]) -> Result<Option<usize>, Error>,
    ) -> Result<Option<usize>, Error> {
        if self.is_over || buf.is_empty() {
            return Ok(Some(0));
        }
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
        // What lies behind the announced bytes is nobody's.
        let most = self
            .left
            .map_or(buf.len(), |left| usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len())));
        let began = Instant::now();
        let read = read(&mut self.body, &mut buf[..most]);
        let ended = Instant::now();
        self.sample = match &read {
            Ok(got) => self.meter.handle_read(began, ended, got.unwrap_or(0)),
            // So long nothing came: that is what the network gave.
            Err(error) if error.kind() == ErrorKind::Silent => self.meter.handle_read(began, ended, 0),
            Err(_) => None,
        };
        let Some(got) = read? else { return Ok(None) };
        if got > 0 && self.min_rate.is_below(got, ended - began) {
            return Err(Error::new(ErrorKind::Silent, "the body came more slowly than the minimum rate"));
        }
        if let Some(cancelled) = self.exchange.cancelled() {
            return Err(cancelled);
        }
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
        if left == 0 && got > 0 {
            self.finish();
        }
        Ok(Some(got))
    }

    /// Ends the body, all of which has come.
    fn finish(&mut self) {
        self.is_over = true;
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

    /// An origin, and a proxy that is the origin's own end of its tunnels.
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
    fn only_a_connection_with_nothing_in_between_is_read_past_ureq() {
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
