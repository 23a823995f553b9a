//! Connections as ureq sees them: taken from stock or opened, aborted from any thread, watched for how they end, and put
//! back into stock.
//!
//! ```text
//!  agent.run ─▶ Connect: from stock? ── no ──▶ Dial ─▶ a proxy's tunnel ─▶ rustls, for https
//!                  │                             │
//!                  ▼                             ▼
//!               Watched ◀────────────────────────┘
//! ```
//!
//! ureq's own pool holds nothing: what it would keep it drops, and a connection that is dropped while it is fit for
//! another request goes back into windway's stock, where those opened ahead lie too.
//!
//! The rest of a long body that is plain bytes of a known length does not pass ureq: once its buffer is empty, whoever reads
//! the body reads from the socket, and says when all has come. ureq owns the connection all the while.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use ureq::Timeout;
use ureq::unversioned::transport::{
    Buffers, ChainedConnector, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout,
    RustlsConnector, Transport, time,
};

use super::exchange::{Exchange, Over};
use super::shoutcast::Beginning;
use super::stock::Origin;
use super::transport::{Dial, carry};
use super::warm::Keeper;
use crate::cancel::CancelReason;
use crate::error::{Error, ErrorKind};

/// Opens connections: TCP, a proxy's tunnel if one is set, TLS for https.
pub(super) type Opener =
    ChainedConnector<(), ChainedConnector<(), Dial, ConnectProxyConnector>, RustlsConnector>;

/// A connection that serves nobody.
pub(super) struct Connection {
    transport: Box<dyn Transport>,
    socket: Arc<TcpStream>,
    /// Requests it has served, the current one included.
    requests: u64,
    /// The network that it was opened on.
    pub(super) network: u64,
}

impl Connection {
    /// A connection that was just opened for the current exchange; complete, or to a proxy that is to be told where to.
    pub(super) fn new(
        transport: Box<dyn Transport>,
        network: u64,
        is_complete: bool,
    ) -> Result<Self, ureq::Error> {
        let socket = Exchange::current().and_then(|exchange| exchange.socket(is_complete));
        let Some(socket) = socket else { return Err(carry(cancelled_in_handshake())) };
        Ok(Self { transport, socket, requests: 0, network })
    }

    /// Lets go of the exchange that it was opened for.
    pub(super) fn unbind(&self, exchange: &Exchange) {
        exchange.unbind(&self.socket);
    }

    /// True if it has served a request.
    pub(super) fn is_proven(&self) -> bool {
        self.requests > 0
    }

    /// Judged by hang-up: nothing is sent.
    pub(super) fn is_open(&mut self) -> bool {
        self.transport.is_open()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}

fn cancelled_in_handshake() -> Error {
    let cancelled = Exchange::current().and_then(|exchange| exchange.cancelled());
    cancelled.unwrap_or_else(|| Error::cancelled(CancelReason::Fetch))
}

/// What ureq asks for connections.
#[derive(Debug)]
pub(super) struct Connect(pub(super) Arc<Keeper>);

impl Connector<()> for Connect {
    type Out = Watched;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Watched>, ureq::Error> {
        let keeper = &self.0;
        let origin = Origin::of(details.uri).ok_or(ureq::Error::ConnectionFailed)?;
        let exchange = Exchange::current();
        let ready = match exchange.as_ref().map(|exchange| exchange.over).unwrap_or_default() {
            Over::Any => keeper.checkout(&origin, |_| true),
            Over::New => None,
            Over::Proven => {
                let proven = keeper.checkout(&origin, Connection::is_proven);
                Some(proven.ok_or(ureq::Error::ConnectionFailed)?)
            }
        };
        let connection = match ready {
            Some(ready) => {
                exchange.iter().for_each(|exchange| exchange.note_connected());
                ready
            }
            None => keeper.open(details)?,
        };
        Ok(Some(Watched {
            connection: Some(connection),
            keeper: Arc::clone(keeper),
            origin,
            exchange: None,
            is_fit: false,
            beginning: Beginning::default(),
            has_waited: false,
        }))
    }
}

/// A connection bound to the request that uses it, whose breaks no layer above can take for ends.
pub(super) struct Watched {
    /// `None` only while it is dropped.
    connection: Option<Connection>,
    keeper: Arc<Keeper>,
    origin: Origin,
    /// Whom it serves: from the sending of a request until it is idle again.
    exchange: Option<Arc<Exchange>>,
    /// It has served its request and can serve another one.
    is_fit: bool,
    /// How its answer begins.
    beginning: Beginning,
    /// There was a wait for more of a body whose rest may be read from the socket: it has set the limit on silence.
    has_waited: bool,
}

impl Watched {
    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().unwrap_or_else(|| unreachable!("there until the drop"))
    }

    fn unbind(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        if let Some(connection) = &self.connection {
            exchange.unbind(&connection.socket);
        }
    }

    /// What really happened: a cancel shows as an end, and ureq takes a reset or an abort for a clean end.
    fn explain<R>(&self, result: Result<R, ureq::Error>) -> Result<R, ureq::Error> {
        if let Some(cancelled) = self.exchange.as_ref().and_then(|exchange| exchange.cancelled()) {
            return Err(carry(cancelled));
        }
        result.map_err(|error| match error {
            ureq::Error::Io(io) if is_break(&io) => {
                carry(Error::new(ErrorKind::Disconnected, "the connection broke").with_cause(io))
            }
            other => other,
        })
    }

    /// True if the body's reader is to take the rest from the socket, without a copy in between.
    fn leaves_the_rest(&mut self) -> bool {
        let Some(exchange) = self.exchange.clone().filter(|exchange| exchange.allows_direct()) else {
            return false;
        };
        let is_empty = self.buffers().input().is_empty() && self.beginning.is_over();
        let is_ready = self.has_waited && is_empty && !self.is_tls();
        self.has_waited = true;
        if is_ready {
            exchange.begin_direct();
        }
        is_ready
    }
}

/// Waits for the beginning of an answer. Patience may end before the limit, and then something else is tried beside the
/// wait.
fn await_beginning(
    transport: &mut dyn Transport,
    exchange: Option<&Exchange>,
    timeout: NextTimeout,
) -> Result<bool, ureq::Error> {
    let waiting = exchange.filter(|exchange| !exchange.is_answered());
    let Some((exchange, patience)) = waiting.and_then(|waiting| Some((waiting, waiting.patience.as_ref()?)))
    else {
        return transport.await_input(timeout);
    };
    let step = if exchange.is_reused() { patience.limit } else { patience.limit / 2 };
    let mut left = *timeout.for_read().after;
    let mut wait = |after| transport.await_input(NextTimeout { per_read: Some(after), ..timeout });
    while step < left {
        match wait(time::Duration::Exact(step)) {
            Err(error) if is_timeout(&error) => left -= step,
            result => return result,
        }
        if (patience.at_end)() {
            break;
        }
    }
    wait(time::Duration::Exact(left))
}

fn is_timeout(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(reason) => *reason != Timeout::Connect,
        ureq::Error::Io(io) => matches!(io.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock),
        _ => false,
    }
}

fn is_break(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

impl Transport for Watched {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection().transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.exchange.is_none() {
            let connection = self.connection();
            connection.requests += 1;
            let (socket, reused) = (Arc::clone(&connection.socket), connection.requests > 1);
            if let Some(exchange) = Exchange::current() {
                exchange.bind(&socket, reused)?;
                self.exchange = Some(exchange);
            }
        }
        self.beginning.expect();
        let result = self.connection().transport.transmit_output(amount, timeout);
        self.explain(result)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if self.leaves_the_rest() {
            // Who reads the body asks the exchange, and does not look at this.
            return Err(carry(Error::new(ErrorKind::Protocol, "the rest is read from the socket")));
        }
        let Self { connection, exchange, beginning, .. } = self;
        let connection = connection.as_mut().unwrap_or_else(|| unreachable!("there until the drop"));
        let result = beginning.await_input(&mut connection.transport, timeout, |transport| {
            await_beginning(transport, exchange.as_deref(), timeout)
        });
        if let (Ok(true), Some(exchange)) = (&result, &self.exchange) {
            if exchange.note_answer() && !exchange.is_reused() {
                self.keeper.note_answered(&self.origin);
            }
        }
        self.explain(result)
    }

    /// Asked once its request is served, before it would go into ureq's pool. Whether it is open is looked at when it is
    /// taken out of stock.
    fn is_open(&mut self) -> bool {
        self.unbind();
        self.is_fit = true;
        true
    }

    fn is_tls(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.transport.is_tls())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.was_served()) {
            self.is_open();
        }
        self.unbind();
        if let Some(connection) = self.connection.take().filter(|_| self.is_fit) {
            self.keeper.put_back(&self.origin, connection);
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("connection", &self.connection).finish_non_exhaustive()
    }
}
