//! A connection from its handshake to its end: the events of quinn-proto, GOAWAY, violations, closing.

use std::time::Instant;

use quinn_proto::{ConnectionError, Dir, Event, StreamEvent, VarInt};

use super::state::{State, not_processed, varint};
use crate::client::h3::code::{Code, Violation};
use crate::client::h3::control::{Control, UniStream};
use crate::client::h3::limits::Limits;
use crate::client::h3::parameters::idle_limit;
use crate::error::{Error, ErrorKind};

impl State {
    pub(super) fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => self.handle_connected(now),
            Event::ConnectionLost { reason } => {
                let error = describe(&reason, self.is_ready);
                self.end(error.with_cause(reason));
            }
            Event::Stream(StreamEvent::Readable { id }) => match self.by_stream.get(&id) {
                Some(key) => self.handle_readable(*key),
                None => self.read_unidirectional(id, now),
            },
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(id) = self.quic.streams().accept(Dir::Uni) {
                    self.unidirectional.insert(id, UniStream::default());
                    self.read_unidirectional(id, now);
                }
            }
            Event::Stream(StreamEvent::Writable { id }) => match self.by_stream.get(&id).copied() {
                Some(key) => self.write(key),
                None => self.write_control(),
            },
            Event::Stream(StreamEvent::Available { dir }) => match dir {
                Dir::Uni => self.open_control(),
                Dir::Bi => self.notify_all(),
            },
            // The server may stop reading a request that it has answered (RFC 9114, section 4.1.1). It has no other reason to be
            // heard: there is no bidirectional stream of a server, since none is allowed.
            Event::Stream(_) | Event::HandshakeDataReady => {}
            Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    pub(super) fn handle_connected(&mut self, now: Instant) {
        self.is_ready = true;
        let parameters = self.quic.crypto_session().transport_parameters().ok().flatten();
        if let Some(idle) = parameters.and_then(|parameters| idle_limit(&parameters)) {
            // RFC 9000, section 10.1: the shorter limit of both sides counts.
            self.ping_interval = self.ping_interval.min(Limits::keep_alive_within(idle));
        }
        for request in self.requests.values_mut().filter(|request| !request.is_early) {
            request.began = now;
        }
        let is_rejected = self.quic.has_0rtt() && !self.quic.accepted_0rtt();
        if is_rejected {
            // RFC 9001, section 4.6.2: the server has dropped all that was sent, and all streams begin again.
            self.by_stream.clear();
            self.credit.clear();
            self.unidirectional.clear();
            // It has dropped the settings too: `open_control` sends them again below.
            (self.control, self.own_control) = (Control::default(), None);
            for request in self.requests.values_mut() {
                request.begin_again();
                request.undecided = (!request.is_urgent).then(|| self.undecided.add());
            }
        }
        self.open_control();
        self.notify_all();
        self.close_if_unused(now);
    }

    /// RFC 9114, section 5.2: requests on streams from `first` on were not processed, and may be sent over another connection.
    pub(super) fn handle_goaway(&mut self, first: u64, now: Instant) {
        self.is_retired = true;
        for request in self.requests.values_mut() {
            // One without a stream was not even sent.
            let is_refused = request.stream.is_none_or(|id| VarInt::from(id).into_inner() >= first);
            if is_refused && request.head.is_none() {
                request.error.get_or_insert_with(not_processed);
                request.notify();
            }
        }
        self.close_if_unused(now);
    }

    pub(super) fn handle_violation(&mut self, violation: Violation, now: Instant) {
        // RFC 9114, section 8: it ends all requests, also those whose responses are valid so far. These may be repeated.
        let why = "the server broke a rule of HTTP/3, so the connection was closed";
        let error = Error::new(ErrorKind::Disconnected, why).with_cause(violation);
        self.close(now, violation.code, violation.why, error);
    }

    pub(super) fn close_if_unused(&mut self, now: Instant) {
        // Of released ones only the end of the stream is missing, which may never come.
        if self.is_retired && self.open_requests().next().is_none() {
            self.close(
                now,
                Code::NO_ERROR,
                "",
                Error::new(ErrorKind::Disconnected, "the connection was replaced"),
            );
        }
    }

    pub(super) fn close(&mut self, now: Instant, code: Code, why: &'static str, error: Error) {
        if self.over.is_none() {
            self.quic.close(now, varint(code), why.as_bytes().into());
            // Flushed here: once the connection is over, nothing else sends the CONNECTION_CLOSE.
            self.flush(now);
            self.end(error);
        }
    }

    /// Ends the connection: its requests fail with `error`.
    pub(super) fn end(&mut self, error: Error) {
        self.over.get_or_insert(error);
        self.notify_all();
    }

    pub(super) fn notify_all(&self) {
        for request in self.requests.values() {
            request.notify();
        }
    }
}

/// What the end of a connection means for its requests.
fn describe(reason: &ConnectionError, is_ready: bool) -> Error {
    let (kind, what) = match reason {
        // Found by this side, so the reason is that of rustls, such as what is wrong with the certificate. RFC 9001, section
        // 4.8: TLS alerts are the codes from 0x100 to 0x1ff.
        ConnectionError::TransportError(error) if is_crypto(u64::from(error.code)) => {
            let why = format!("the TLS handshake failed: {}", error.reason);
            return Error::new(ErrorKind::Tls, why);
        }
        // As with a violation of HTTP/3, the responses may have been valid.
        ConnectionError::TransportError(_) if is_ready => {
            (ErrorKind::Disconnected, "the server broke a rule of QUIC, so the connection was closed")
        }
        ConnectionError::TransportError(_) => (ErrorKind::Protocol, "the server does not speak valid QUIC"),
        ConnectionError::VersionMismatch => {
            (ErrorKind::Protocol, "the server speaks no common version of QUIC")
        }
        ConnectionError::ConnectionClosed(close) if is_crypto(u64::from(close.error_code)) => {
            (ErrorKind::Tls, "the server refused the TLS handshake")
        }
        ConnectionError::TimedOut if !is_ready => (ErrorKind::ConnectTimedOut, "connecting timed out"),
        _ => (ErrorKind::Disconnected, "the connection broke"),
    };
    Error::new(kind, what)
}

fn is_crypto(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}
