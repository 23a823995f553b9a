//! The faults of `tests/faults.rs` over HTTP/3: the same traps behind a gateway, read in the same ways.
#![cfg(feature = "http3")]

#[path = "faults.rs"]
mod faults;
