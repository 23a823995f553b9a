//! An HTTP/3 origin on quinn-proto: one thread for the packets, and one for each request. What it answers is a handler of the
//! test: the [gateway] to the scripted origin, or bytes of any kind.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test uses a part of it")]

#[path = "../../../src/client/h3/code.rs"]
mod code;
#[path = "../../../src/client/h3/frame.rs"]
pub mod frame;
pub mod gateway;
mod parameters;
#[path = "../../../src/client/h3/qpack.rs"]
pub mod qpack;
pub mod relay;
mod server;
#[path = "../../../src/client/h3/tables.rs"]
mod tables;

pub use gateway::Gateway;
pub use relay::Relay;
pub use server::{Gone, Options, Pieces, Reply, Request, Server};

use std::net::UdpSocket;

use socket2::{Domain, Socket, Type};
use windway::config::Http3;
use windway::{ClientConfig, Downloader};

/// A UDP socket on loopback, and a TCP socket that keeps its port and does not listen: connections over TCP are refused, and no
/// server of another test gets them.
pub fn bind() -> (UdpSocket, Socket) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
        let address = udp.local_addr().expect("a bound socket has an address");
        let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Fails if a server has that port for TCP.
        if tcp.bind(&address.into()).is_ok() {
            return (udp, tcp);
        }
    }
}

/// Sends the requests to `servers` over HTTP/3, and trusts their certificates.
pub fn over_http3(mut config: ClientConfig, servers: &[&Server]) -> ClientConfig {
    config.extra_roots.extend(servers.iter().map(|server| server.root_pem()));
    let origins = servers.iter().map(|server| server.url("/")).collect();
    config.http3(Http3::Always(origins))
}

/// The frames of a response head.
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let section = qpack::encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let mut frame = Vec::new();
    frame::put_frame(&mut frame, frame::HEADERS, &section);
    frame
}

/// A DATA frame.
pub fn data(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::put_frame(&mut frame, frame::DATA, bytes);
    frame
}

/// Checks that the `fetches` of `downloader` went over one connection to `server`, with one request each. On a busy machine some
/// are hedged: each request more may have opened a connection more.
pub fn assert_shared(server: &Server, downloader: &Downloader, fetches: usize) {
    let requests = downloader.stats().requests as usize;
    let (seen, connections) = (server.requests(), server.connections());
    assert!((fetches..=requests).contains(&seen), "{seen} requests of {requests} for {fetches} fetches");
    assert!(connections <= 1 + requests - fetches, "{connections} connections, {requests} requests");
}
