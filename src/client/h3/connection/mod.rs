//! One QUIC connection (RFC 9000) that speaks HTTP/3: its streams, its packets, its deadlines.
//!
//! ```text
//!  worker: send, head, read ─▶ lock ─▶ quinn-proto ─▶ packets ─▶ socket
//!     ▲ condvar of the request          ▲
//!     └──────── windway-quic: packets and deadlines ──┘
//! ```
//!
//! Callers send their packets themselves, under the lock of the connection. The thread of `driver.rs` receives, and wakes the
//! requests whose streams have become readable; the caller of the only request receives itself while it waits. `armed.rs` says
//! which thread keeps the deadlines, and `receiver.rs` which one receives.
//!
//! `lock` says which thread may use a connection, and `request_stream` what the thread of a request does with it. What happens
//! under the lock is in `state`, `packets` and `receiving` (the socket), `lifecycle` (from the handshake to the end),
//! `unidirectional` (control streams), `exchange` (requests on their streams) and `request`. Without I/O: `credit` (which request
//! may open a stream) and `path` (when a silent path is dead).

mod credit;
mod exchange;
mod lifecycle;
mod lock;
mod packets;
mod path;
mod receiving;
mod request;
mod request_stream;
mod state;
mod unidirectional;

pub(super) use self::lock::{Connection, Turn};
pub(crate) use self::request_stream::StreamHandle;
pub(super) use self::request_stream::{Readiness, RequestStream};
