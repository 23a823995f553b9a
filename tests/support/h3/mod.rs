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

use windway::ClientConfig;
use windway::config::Http3;

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
