//! HTTP/1 by ureq: its connector and transport, and heads that ureq does not accept.

pub(crate) mod agent;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod connector;
pub(crate) mod error;
pub(crate) mod head;
pub(crate) mod lending;
pub(crate) mod status_line;
pub(crate) mod transport;
