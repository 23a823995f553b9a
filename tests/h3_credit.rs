//! What it costs to open request streams, in virtual time: two endpoints of quinn-proto, and a link with a round trip of 40 ms.
//! The table of the guide comes from here.
#![cfg(feature = "http3")]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    ServerConfig, StreamEvent, StreamId, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use support::Identity;

const RTT: Duration = Duration::from_millis(40);

/// One end of the link.
struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    /// Packets on their way to it, in order.
    arriving: VecDeque<(Instant, Vec<u8>)>,
    /// The other end.
    peer: SocketAddr,
}

impl Side {
    fn new(endpoint: Endpoint, peer: SocketAddr) -> Self {
        Self { endpoint, connection: None, arriving: VecDeque::new(), peer }
    }

    fn quic(&mut self) -> &mut Connection {
        &mut self.connection.as_mut().expect("a connection").1
    }

    /// When it has something to do next.
    fn next(&mut self) -> Option<Instant> {
        let timeout = self.connection.as_mut().and_then(|(_, quic)| quic.poll_timeout());
        timeout.into_iter().chain(self.arriving.front().map(|(due, _)| *due)).min()
    }

    /// Takes what has arrived at `now`. Returns the events.
    fn receive(&mut self, now: Instant) -> Vec<Event> {
        while self.arriving.front().is_some_and(|(due, _)| *due <= now) {
            let (_, bytes) = self.arriving.pop_front().expect("looked at above");
            let mut reply = Vec::new();
            match self.endpoint.handle(now, self.peer, None, None, bytes[..].into(), &mut reply) {
                Some(DatagramEvent::ConnectionEvent(_, event)) => self.quic().handle_event(event),
                Some(DatagramEvent::NewConnection(incoming)) => {
                    let accepted = self.endpoint.accept(incoming, now, &mut reply, None);
                    self.connection = Some(accepted.expect("a connection"));
                }
                _ => {}
            }
        }
        let Some((handle, quic)) = &mut self.connection else { return Vec::new() };
        if quic.poll_timeout().is_some_and(|due| due <= now) {
            quic.handle_timeout(now);
        }
        let mut events = Vec::new();
        loop {
            while let Some(event) = quic.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    quic.handle_event(event);
                }
            }
            let Some(event) = quic.poll() else { return events };
            events.push(event);
        }
    }

    /// Sends what it has to say at `now`. The packets arrive at `other` half a round trip later.
    fn send(&mut self, now: Instant, other: &mut Side) {
        let Some((_, quic)) = &mut self.connection else { return };
        let mut out = Vec::new();
        while quic.poll_transmit(now, 1, &mut out).is_some() {
            other.arriving.push_back((now + RTT / 2, std::mem::take(&mut out)));
        }
    }
}

struct Run {
    client: Side,
    server: Side,
    now: Instant,
    /// Requests that are not sent yet.
    unsent: usize,
    /// Streams that were opened ahead.
    ahead: Vec<StreamId>,
    /// When the server had each request.
    delivered: Vec<Instant>,
}

impl Run {
    /// A connection whose handshake is complete, to a server that allows `allowed` streams at a time.
    fn new(allowed: u32) -> Self {
        let address = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let identity = Identity::new();
        let mut tls = identity.server_config();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let tls = QuicServerConfig::try_from(tls).expect("a provider that can do QUIC");
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(allowed));
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        // Seeded: quinn skips a packet number now and then, at random, which the other end acknowledges at once, in place of after
        // 25 ms (RFC 9000, section 13.2.1).
        let mut seeded = EndpointConfig::default();
        seeded.rng_seed(Some([0; 32]));
        let seeded = Arc::new(seeded);
        let endpoint = |config| Endpoint::new(Arc::clone(&seeded), config, true, None);
        let server = Side::new(endpoint(Some(Arc::new(config))), address(1));
        let mut client = Side::new(endpoint(None), address(2));
        let tls = QuicClientConfig::try_from(client_tls(&identity)).expect("as above");
        let now = Instant::now();
        let config = ClientConfig::new(Arc::new(tls));
        client.connection =
            Some(client.endpoint.connect(now, config, address(2), "127.0.0.1").expect("a connection"));
        let (ahead, delivered) = (Vec::new(), Vec::new());
        let mut run = Self { client, server, now, unsent: 0, ahead, delivered };
        run.send();
        while run.client.quic().is_handshaking() {
            run.step();
        }
        // Until nothing of the handshake is on its way.
        let rest = run.now + RTT * 10;
        while run.client.next().into_iter().chain(run.server.next()).min().is_some_and(|next| next < rest) {
            run.step();
        }
        run
    }

    fn send(&mut self) {
        self.client.send(self.now, &mut self.server);
        self.server.send(self.now, &mut self.client);
    }

    /// Jumps to the next time at which something happens.
    fn step(&mut self) {
        let next = self.client.next().into_iter().chain(self.server.next()).min();
        self.now = self.now.max(next.expect("a connection always has a deadline"));
        for event in self.server.receive(self.now) {
            if let Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) = event {
                while let Some(id) = self.server.quic().streams().accept(Dir::Bi) {
                    self.answer(id);
                }
            }
        }
        for event in self.client.receive(self.now) {
            if let Event::Stream(StreamEvent::Readable { id }) = event {
                read(self.client.quic(), id);
            }
        }
        self.request();
        self.send();
    }

    /// The server reads a request and answers it.
    fn answer(&mut self, id: StreamId) {
        read(self.server.quic(), id);
        self.delivered.push(self.now);
        self.server.quic().send_stream(id).write(&[0; 100]).expect("a small answer");
        self.server.quic().send_stream(id).finish().expect("an open stream");
    }

    /// Sends the requests that get a stream.
    fn request(&mut self) {
        while self.unsent > 0 {
            let ahead = (!self.ahead.is_empty()).then(|| self.ahead.remove(0));
            let quic = self.client.quic();
            let Some(id) = ahead.or_else(|| quic.streams().open(Dir::Bi)) else { return };
            quic.send_stream(id).write(&[0; 50]).expect("a small request");
            quic.send_stream(id).finish().expect("an open stream");
            self.unsent -= 1;
        }
    }
}

/// Trusts `identity` alone.
fn client_tls(identity: &Identity) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(identity.root_pem.as_bytes()).expect("a certificate");
    roots.add(root).expect("a valid root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("a provider that can do TLS 1.3");
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls
}

/// Reads what there is.
fn read(quic: &mut Connection, id: StreamId) {
    let mut receiver = quic.recv_stream(id);
    let Ok(mut chunks) = receiver.read(true) else { return };
    while let Ok(Some(_)) = chunks.next(usize::MAX) {}
    // What it would send is sent after each step.
    let _ = chunks.finalize();
}

/// Time in round trips until the last of `requests` at once has been delivered, with `ahead` streams opened ahead.
fn delivery(requests: usize, allowed: u32, ahead: usize) -> f64 {
    let mut run = Run::new(allowed);
    while run.ahead.len() < ahead {
        let Some(id) = run.client.quic().streams().open(Dir::Bi) else { break };
        run.ahead.push(id);
    }
    let began = run.now;
    run.unsent = requests;
    run.request();
    run.send();
    while run.delivered.len() < requests {
        run.step();
    }
    (*run.delivered.last().expect("a request") - began).as_secs_f64() / RTT.as_secs_f64()
}

#[test]
fn streams_that_are_opened_ahead_save_no_time() {
    let mut table = String::new();
    for (requests, allowed) in [(1, 100), (16, 100), (64, 100), (16, 8)] {
        write!(table, "| {requests} | {allowed} |").expect("a string");
        let times = [0, 8, 32].map(|ahead| delivery(requests, allowed, ahead));
        for time in times {
            write!(table, " {time:.2} |").expect("a string");
            assert!((time - times[0]).abs() < 0.005, "{requests} requests, {allowed} streams: {times:?}");
            // Beyond the credit: an answer, its acknowledgement, more credit, and the request.
            let expected = if requests <= allowed as usize { 0.5..0.55 } else { 2.5..3.5 };
            assert!(expected.contains(&time), "{requests}, {allowed}: {times:?}");
        }
        table.push('\n');
    }
    let guide = include_str!("../src/guide/http3.md");
    assert!(guide.contains(&table), "the table of the guide should be\n{table}");
}
