//! HTTP/3 (RFC 9114) over QUIC (RFC 9000), without an async runtime.
#![allow(dead_code, reason = "the connection that uses these modules comes next")]

mod code;
mod control;
mod frame;
mod qpack;
mod response;
mod tables;
