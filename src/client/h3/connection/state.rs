//! What the lock of a connection protects.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Condvar;
use quinn_proto::{ConnectionHandle, Endpoint, StreamId, Transmit, VarInt};

use super::credit::Credit;
use super::path::PathWatch;
use super::request::{Request, UndecidedCount};
use crate::client::h3::armed::Armed;
use crate::client::h3::code::Code;
use crate::client::h3::control::{Control, UniStream};
use crate::client::h3::limits::{Limits, WINDOWS};
use crate::client::h3::poller::{Poller, Pollers};
use crate::client::h3::receiver::Receiver;
use crate::client::h3::socket::Socket;
use crate::client::urgency::Urgency;
use crate::error::{Error, ErrorKind};

/// What the lock of a connection protects.
pub(super) struct State {
    pub(super) endpoint: Endpoint,
    pub(super) handle: ConnectionHandle,
    pub(super) quic: quinn_proto::Connection,
    pub(super) socket: Socket,
    /// Contents of the packet that is sent, or of `unsent`.
    pub(super) out: Vec<u8>,
    /// A packet that did not fit into the socket's buffer.
    pub(super) unsent: Option<Transmit>,
    pub(super) armed: Armed<Instant>,
    pub(super) receiver: Receiver<Instant>,
    /// Of the caller that has received last, while no thread receives ([`Receiver::Unpolled`]).
    pub(super) poller: Option<Poller>,
    pub(super) pollers: Arc<Pollers>,
    /// More packets may be in the socket than a caller has received. It is not polled for those.
    pub(super) has_unread: bool,
    pub(super) requests: HashMap<u64, Request>,
    /// The requests that have a stream.
    pub(super) by_stream: HashMap<StreamId, u64>,
    pub(super) credit: Credit<StreamId>,
    /// Receive window of the connection in bytes. Only grows.
    pub(super) window: u64,
    pub(super) undecided: UndecidedCount,
    pub(super) next_request: u64,
    pub(super) control: Control,
    pub(super) unidirectional: HashMap<StreamId, UniStream>,
    /// This client's control stream, and what is left to write to it. `None` until it is opened.
    pub(super) own_control: Option<(StreamId, Vec<u8>)>,
    /// Maximum size of a response head in bytes.
    pub(super) max_head: usize,
    /// The handshake is complete.
    pub(super) is_ready: bool,
    /// Responses that were received.
    pub(super) served: u64,
    /// When a request ended last, or when it began.
    pub(super) used: Instant,
    /// The server accepts no new requests, or another connection has taken its place.
    pub(super) is_retired: bool,
    /// Why the connection is over. Set once.
    pub(super) over: Option<Error>,
    pub(super) path: PathWatch,
    /// Frames that have arrived, as far as `packets.rs` counts them. Only grows.
    pub(super) frames: u64,
    /// Time without a packet after which a PING keeps the connection alive, if it is needed.
    pub(super) ping_interval: Duration,
    /// It is needed, also without a request.
    pub(super) is_kept_alive: bool,
    /// When the last of these PINGs, or the last request, was sent.
    pub(super) last_sent: Option<Instant>,
}

/// How the streams of a connection are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Streams of requests that are open.
    pub(crate) in_use: usize,
    /// Requests that wait for a stream.
    pub(crate) waiting: usize,
    /// Streams that the server still allows, as far as they are counted.
    pub(crate) left: usize,
}

impl State {
    pub(super) fn add_request(
        &mut self,
        is_urgent: bool,
        urgency: Option<&Arc<dyn Urgency>>,
    ) -> (u64, Arc<Condvar>) {
        let (key, mut request) = (self.next_request, Request::new(self.max_head, is_urgent, urgency));
        request.undecided = (!is_urgent).then(|| self.undecided.add());
        if self.is_retired {
            request.error = Some(not_processed());
        }
        let changed = Arc::clone(&request.changed);
        self.next_request += 1;
        self.requests.insert(key, request);
        (key, changed)
    }

    pub(super) fn new(
        endpoint: Endpoint,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        socket: Socket,
        pollers: Arc<Pollers>,
        limits: &Limits,
        now: Instant,
    ) -> Self {
        Self {
            endpoint,
            handle,
            quic,
            socket,
            out: Vec::new(),
            unsent: None,
            armed: Armed::new(),
            receiver: Receiver::new(),
            poller: None,
            pollers,
            has_unread: false,
            requests: HashMap::new(),
            by_stream: HashMap::new(),
            credit: Credit::new(),
            window: WINDOWS.1.into(),
            undecided: UndecidedCount::default(),
            next_request: 0,
            control: Control::default(),
            unidirectional: HashMap::new(),
            own_control: None,
            max_head: limits.max_head,
            is_ready: false,
            served: 0,
            used: now,
            is_retired: false,
            over: None,
            path: PathWatch::new(now),
            frames: 0,
            ping_interval: limits.keep_alive(),
            is_kept_alive: false,
            last_sent: None,
        }
    }
}

/// The error of a request that the server has not processed and will not process on this connection.
pub(super) fn not_processed() -> Error {
    let why = "the server closes the connection and has not processed the request";
    Error::new(ErrorKind::Disconnected, why)
}

pub(super) fn varint(code: Code) -> VarInt {
    VarInt::from_u32(code.0)
}
