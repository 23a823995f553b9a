//! Packets of a connection: from its socket to quinn-proto, and back.

use std::io;
use std::time::Instant;

use quinn_proto::DatagramEvent;

use super::path::{PATH_SILENCE, Step};
use super::request::Request;
use super::state::State;
use crate::client::h3::code::Code;
use crate::client::h3::socket::{Buffers, Received};
use crate::error::{Error, ErrorKind};

/// Batches of packets that are received in a turn, so that one connection can't keep the thread from the others.
const BATCHES: usize = 8;

impl State {
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let own = self.keep_alive_due().into_iter().chain(self.receiver.deadline());
        self.quic.poll_timeout().into_iter().chain(own).min()
    }

    /// When the thread looks at the connection, which has just taken a turn.
    pub(super) fn deadline_of_thread(&mut self) -> Option<Instant> {
        self.receiver.next_look(Instant::now()).into_iter().chain(self.deadline()).min()
    }

    /// When the next PING is due that keeps the connection alive.
    fn keep_alive_due(&self) -> Option<Instant> {
        // RFC 9114, section 5.1: also while a response is outstanding, which its reader may leave alone for minutes.
        let is_outstanding = |request: &Request| request.stream.is_some() && !request.is_complete;
        let is_needed = self.is_ready && (self.is_kept_alive || self.open_requests().any(is_outstanding));
        let heard = self.path.heard().filter(|_| is_needed)?;
        Some(self.last_sent.map_or(heard, |sent| sent.max(heard)) + self.ping_interval)
    }

    /// Receives what has arrived, and keeps the deadlines. True if more may have arrived.
    pub(super) fn receive(&mut self, buffers: &mut Buffers) -> bool {
        (0..BATCHES).all(|_| self.receive_some(buffers))
    }

    /// Receives a batch of packets, and keeps the deadlines. True if more may have arrived.
    pub(super) fn receive_some(&mut self, buffers: &mut Buffers) -> bool {
        let now = Instant::now();
        let received = self.receive_batch(buffers, now);
        self.advance(now);
        match received {
            Ok(has_more) => has_more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // An ICMP error on some systems. It is no proof: RFC 9000, section 14.2.1.
            Err(error) => {
                log::debug!("receiving on a UDP socket failed: {error}");
                // Windows: each ICMP error is returned once, and what has arrived since is not reported again.
                error.kind() == io::ErrorKind::ConnectionReset
            }
        }
    }

    /// Receives some packets and passes them to quinn-proto. True if more may be there.
    fn receive_batch(&mut self, buffers: &mut Buffers, now: Instant) -> io::Result<bool> {
        let Self { socket, endpoint, quic, handle, .. } = self;
        let (mut reply, mut has_received) = (Vec::new(), false);
        let result = socket.receive(buffers, |received| {
            has_received = true;
            for datagram in received.datagrams() {
                let Received { from, to, ecn, .. } = received;
                match endpoint.handle(now, from, to, ecn, datagram, &mut reply) {
                    Some(DatagramEvent::ConnectionEvent(of, event)) if of == *handle => {
                        quic.handle_event(event)
                    }
                    // Packets of no connection: no reply is owed to them.
                    _ => reply.clear(),
                }
            }
        });
        // A server that has begun again answers each packet with a stateless reset, and if its key is another one, nothing shows
        // that this is one (RFC 9000, section 10.3.3). Such packets, and those of anybody else, are no sign of the server.
        if has_received && (self.take_in_frames() || !self.is_ready) {
            self.path.handle_packets(now);
        }
        result
    }

    /// True if frames have arrived since the last call, in packets that the server has protected. Counts those of which a live
    /// path brings one at least: data, or the acknowledgement of a PING.
    fn take_in_frames(&mut self) -> bool {
        let frames = self.quic.stats().frame_rx;
        let frames = frames.acks + frames.stream;
        std::mem::replace(&mut self.frames, frames) != frames
    }

    /// Receives without the thread. True if something came.
    pub(super) fn receive_late(&mut self, now: Instant) -> bool {
        self.receive(&mut Buffers::default());
        self.path.has_heard_since(now)
    }

    /// Keeps the deadlines that are due, and sends what that causes.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.quic.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.quic.handle_timeout(now);
        }
        if self.keep_alive_due().is_some_and(|due| due <= now) {
            self.quic.ping();
            self.last_sent = Some(now);
        }
        self.pump(now);
    }

    /// Passes on the events of the connection, and sends its packets. Does nothing once it is over: what has arrived can still be
    /// read then.
    pub(super) fn pump(&mut self, now: Instant) {
        if self.over.is_some() {
            return;
        }
        loop {
            self.exchange_endpoint_events();
            let Some(event) = self.quic.poll() else { break };
            self.handle_event(event, now);
        }
        self.flush(now);
        self.exchange_endpoint_events();
    }

    pub(super) fn exchange_endpoint_events(&mut self) {
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
    }

    pub(super) fn flush(&mut self, now: Instant) {
        let most = self.socket.max_datagrams();
        loop {
            let transmit = self.unsent.take().or_else(|| {
                self.out.clear();
                self.quic.poll_transmit(now, most, &mut self.out)
            });
            let Some(transmit) = transmit else { return };
            match self.socket.send(&transmit, &self.out) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Kept, since `poll_transmit` returns each packet once. The thread sends it when the socket is writable.
                    self.unsent = Some(transmit);
                    return;
                }
                // No network at the moment, for example. QUIC treats the packet as lost.
                Err(error) => log::debug!("a QUIC packet was not sent: {error}"),
            }
        }
    }

    /// Tests the path if no packet has come for too long while a reader waits. Returns when to call it again.
    pub(super) fn watch_path(&mut self, now: Instant) -> Instant {
        match self.path.poll(now, self.quic.rtt()) {
            Step::Wait(until) => until,
            Step::Ping(until) => {
                self.quic.ping();
                self.pump(now);
                until
            }
            // The answer may be in the socket, if the thread had no time to run.
            Step::Dead(_) if self.receive_late(now) => now + PATH_SILENCE,
            Step::Dead(silence) => {
                let why = format!("no packet came for {silence:?}, also none to a PING");
                self.close(now, Code::NO_ERROR, "", Error::new(ErrorKind::Disconnected, why));
                now
            }
        }
    }
}
