//! The body of an answer, read by blocking: every break is an error, and an end is the end.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::BodyReader;
use ureq::http::HeaderMap;

use super::exchange::Exchange;
use super::head::{Head, ResponseHead};
use super::hedge::Hedging;
use super::min_rate::MinRateMonitor;
use super::request::Request;
use super::silence::{Rest, SilenceHedge};
use super::{HttpClient, describe, describe_io};
use crate::bandwidth::{ReadMeter, Sample};
use crate::cancel::{CancelGuard, CancelToken};
use crate::client::h1::transport::{Tcp, timed_out};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::types::ByteRange;

/// Who has such a buffer reads into it by a system call of its own; what goes into smaller ones is buffered by ureq.
const LARGE: usize = 16 * 1024;

/// A body of fewer bytes is short.
const SHORT: u64 = 16 * 1024;

/// So long a brief read waits. The system may make a few of its ticks of it.
pub(crate) const BRIEF: Duration = Duration::from_millis(1);

/// An answer with its body open.
pub(crate) struct Response {
    head: ResponseHead,
    /// Owns the connection. `None` once it was let go of.
    body: Option<BodyReader<'static>>,
    /// Where the rest of the body comes from, once ureq has given out what it had buffered: straight into the asker's
    /// buffer, for a body that nothing but a length frames. Moved here from where ureq reads; nobody else reads it.
    direct: Option<Tcp>,
    /// While the last read was a brief one: the limit that the socket has for others.
    limit: Option<Option<Duration>>,
    /// It was read into a large buffer once. A small one since is the rest of such a one.
    is_read_large: bool,
    exchange: Arc<Exchange>,
    /// Offset in the resource of the next byte.
    position: u64,
    /// Bytes to come, if announced.
    left: Option<u64>,
    is_over: bool,
    framing: Framing,
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
    silence: Option<SilenceHedge>,
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
        head: ResponseHead,
        body: BodyReader<'static>,
        exchange: Arc<Exchange>,
        on_cancel: CancelGuard,
        min_rate: MinRateMonitor,
        url: HttpUrl,
        range: Option<ByteRange>,
    ) -> Self {
        let (position, left) = (head.start(), head.body_len());
        Self {
            head,
            body: Some(body),
            direct: None,
            limit: None,
            is_read_large: false,
            exchange,
            position,
            left,
            is_over: false,
            framing: Framing::default(),
            min_rate,
            meter: ReadMeter::default(),
            sample: None,
            url,
            range,
            _on_cancel: on_cancel,
            lost: Duration::ZERO,
            silence: None,
            token: None,
        }
    }

    /// Tells how the body ends.
    pub(super) fn framed(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
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
        let body = ureq::Body::builder().data(Vec::new()).into_reader();
        let on_cancel = cancel.on_cancel(|_| ());
        let min_rate = MinRateMonitor::new(0, Duration::MAX);
        Self::new(head, body, Arc::default(), on_cancel, min_rate, request.url().clone(), None)
    }

    /// Holds on to the token that cancels this body: a token that nobody holds hears nothing from above.
    pub(crate) fn keep(&mut self, token: CancelToken) {
        self.token = Some(token);
    }

    /// True if it is worth a watch for silence: most shorter ones come in one piece with their heads.
    pub(crate) fn is_long(&self) -> bool {
        self.head.body_len().is_some_and(|len| len > SHORT)
    }

    /// Requests the rest over a new connection beside this one while it is silent and its reader waits. To be called once
    /// a continuation has begun with this body, which holds on to its token.
    pub(crate) fn hedge(&mut self, client: &HttpClient, hedging: &Hedging, request: &Request, rest: Rest) {
        self.silence = SilenceHedge::watch(client, hedging, request, rest, self, &self.exchange);
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
        self.read(buf, false)
            .map(|got| got.unwrap_or_else(|| unreachable!("only brief reads come to nothing")))
    }

    /// As [`read_chunk`](Self::read_chunk), but blocks for a moment only: `None` if nothing came. To be used where
    /// [`can_be_brief`](Self::can_be_brief).
    pub(crate) fn read_briefly(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        self.read(buf, true)
    }

    /// True if the next read is one of the socket itself, whose limit can be changed for it.
    pub(crate) fn can_be_brief(&self) -> bool {
        self.direct.is_some()
    }

    fn read(&mut self, buf: &mut [u8], is_brief: bool) -> Result<Option<usize>, Error> {
        if self.is_over || buf.is_empty() {
            return Ok(Some(0));
        }
        if self.left == Some(0) {
            self.release();
            return Ok(Some(0));
        }
        match self.limit_reads(is_brief).and_then(|()| self.read_watched(buf, is_brief)) {
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

    /// Gives the socket the limit of brief reads, or its own one back.
    fn limit_reads(&mut self, is_brief: bool) -> Result<(), Error> {
        let Some(tcp) = &mut self.direct else { return Ok(()) };
        match (is_brief, self.limit) {
            (true, None) => {
                self.limit = Some(tcp.read_timeout());
                tcp.set_read_timeout(Some(BRIEF)).map_err(describe_io)
            }
            (false, Some(limit)) => {
                tcp.set_read_timeout(limit).map_err(describe_io)?;
                self.limit = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_watched(&mut self, buf: &mut [u8], is_brief: bool) -> Result<Option<usize>, Error> {
        let Some(silence) = self.silence.as_ref().filter(|_| !is_brief) else { return self.read_some(buf) };
        silence.begin_wait(self.position, Instant::now());
        let result = self.read_some(buf);
        if let Some(silence) = &self.silence {
            silence.end_wait(result.is_ok());
        }
        result
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        // What lies behind the announced bytes is nobody's.
        let most = self
            .left
            .map_or(buf.len(), |left| usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len())));
        let began = Instant::now();
        let read = self.read_body(&mut buf[..most]);
        let ended = Instant::now();
        self.sample = match &read {
            Ok(got) => self.meter.handle_read(began, ended, got.unwrap_or(0)),
            // So long nothing came: that is what the network gave.
            Err(error) if error.kind() == ErrorKind::Silent => self.meter.handle_read(began, ended, 0),
            Err(_) => None,
        };
        let Some(got) = read? else { return Ok(None) };
        if got > 0 && self.min_rate.is_below(got, ended - began) {
            return Err(Error::new(ErrorKind::Silent, "the server sends too slowly to go on with it"));
        }
        if let Some(cancelled) = self.exchange.cancelled() {
            return Err(cancelled);
        }
        self.position += got as u64;
        let Some(left) = self.left else { return Ok(Some(got)) };
        let left = left.saturating_sub(got as u64);
        self.left = Some(left);
        if got == 0 && left > 0 {
            return Err(Error::new(ErrorKind::Disconnected, format!("the body ended {left} bytes early")));
        }
        if left == 0 && got > 0 {
            self.release();
        }
        Ok(Some(got))
    }

    /// Reads by ureq what it has buffered or has to decode, and the rest from the socket where nothing is to be decoded and
    /// the buffer is worth it.
    fn read_body(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        if self.direct.is_none() {
            let Some(body) = &mut self.body else { return Ok(Some(0)) };
            self.is_read_large |= buf.len() >= LARGE;
            self.exchange.allow_direct(self.framing.by_length && self.is_read_large);
            let result = body.read(buf);
            self.direct = self.exchange.take_lent();
            if self.direct.is_none() {
                return result.map(Some).map_err(|error| describe(ureq::Error::from(error)));
            }
        }
        let Some(tcp) = &mut self.direct else { return Ok(Some(0)) };
        match tcp.read_unbuffered(buf) {
            Err(error) if timed_out(&error) && self.limit.is_some() => Ok(None),
            result => result.map(Some).map_err(describe_io),
        }
    }

    /// Ends the body, and lets go of its connection: into stock, if it can serve others. That does not block where a length
    /// frames the body; else the end may not have been sent, and the connection is closed.
    fn release(&mut self) {
        self.is_over = true;
        let has_its_limit = self.limit_reads(false).is_ok();
        let Some(mut body) = self.body.take() else { return };
        match self.direct.take() {
            Some(tcp) if self.framing.keeps_alive && has_its_limit => self.exchange.give_back(tcp),
            Some(_) => {}
            None if self.framing.by_length => {
                // ureq lets go of the connection when a read returns nothing. What comes of it does not matter: all bytes
                // are there.
                drop(body.read(&mut [0]));
            }
            None => {}
        }
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
    use std::io::Write;
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
