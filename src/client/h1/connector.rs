//! ureq's view of our connections: taken from the pool or opened, aborted from any thread, checked for how they end, and
//! returned to the pool.
//!
//! ```text
//!  agent.run ─▶ Connect: from the pool? no ──▶ Dialer: TCP ─▶ a proxy's tunnel ─▶ TLS, for https
//!                  │                             │
//!                  ▼                             ▼
//!               BoundConnection ◀────────────────┘
//! ```
//!
//! ureq's own pool is empty: ureq drops each connection after its request, and a dropped connection that can be reused returns
//! to windway's pool, which also has the preconnected ones.
//!
//! The rest of a long body of known length, without TLS, is not read through ureq: once ureq's buffer is empty, the TCP
//! connection moves to the reader of the body, and returns when the body is complete. Only a [`Link::Direct`] can be moved.

use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport, time,
};

use super::connection::{Connection, Link};
use super::lending::Back;
use super::status_line::HeadTranslator;
use super::transport::{carry, timed_out};
use crate::client::exchange::{Exchange, Over};
use crate::client::pool::ConnectionPool;
use crate::client::silence_watch::SilenceWatch;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// A resolver for ureq that returns no addresses: most requests use a pooled connection, and for the others the dialer resolves
/// the name.
#[derive(Debug)]
pub(crate) struct NoAddresses;

impl Resolver for NoAddresses {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// The connector of ureq: takes connections from the pool, or opens them.
#[derive(Debug)]
pub(crate) struct Connect(pub(crate) Arc<ConnectionPool>);

impl Connector<()> for Connect {
    type Out = BoundConnection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<BoundConnection>, ureq::Error> {
        let pool = &self.0;
        // Only an exchange with an origin calls ureq, so these errors never happen.
        let exchange = Exchange::current().ok_or(ureq::Error::ConnectionFailed)?;
        let origin = exchange.origin.clone().ok_or(ureq::Error::ConnectionFailed)?;
        // The address of a proxy does not show where the origin is.
        let began = Instant::now();
        let may_serve =
            |connection: &Connection| exchange.may_reach(connection.peer()) || pool.is_proxied(&origin);
        let ready = match exchange.over {
            Over::Any => pool.checkout(&origin, may_serve),
            Over::New | Over::After(_) => None,
            Over::Proven => {
                let proven =
                    pool.checkout(&origin, |connection| connection.is_proven() && may_serve(connection));
                Some(proven.ok_or(ureq::Error::ConnectionFailed)?)
            }
        };
        let connection = match ready {
            Some(ready) => {
                exchange.record_pooled();
                ready
            }
            None => {
                let opened = pool.open(&origin, &exchange, details.config, details.timeout);
                // A dial that was ended from here shows nothing of the host.
                if opened.is_err() && exchange.check().is_ok() {
                    pool.record_failed(&origin, began);
                }
                opened?
            }
        };
        Ok(Some(BoundConnection {
            connection: Some(connection),
            pool: Arc::clone(pool),
            origin,
            exchange: Some(exchange),
            began,
            is_sent: false,
            is_fit: false,
            translator: HeadTranslator::default(),
            body_wait: BodyWait::default(),
        }))
    }
}

/// A connection bound to the request that uses it. Turns breaks into errors that ureq can't mistake for the end of a body.
pub(crate) struct BoundConnection {
    /// `None` only while it is dropped.
    connection: Option<Box<Connection>>,
    pool: Arc<ConnectionPool>,
    origin: Origin,
    /// The request that it serves. `None` once it is idle again.
    exchange: Option<Arc<Exchange>>,
    /// When its request began to look for a connection.
    began: Instant,
    /// At least the beginning of the request was sent.
    is_sent: bool,
    /// It has served its request and can be reused.
    is_fit: bool,
    /// Translates the response head if ureq would not accept it.
    translator: HeadTranslator,
    body_wait: BodyWait,
}

/// Limits a read of the body in which nothing but framing arrives: extensions of a chunk, or trailers. ureq waits again after each of
/// their bytes, so the silence limit of each wait would never be reached.
#[derive(Default)]
struct BodyWait {
    /// Number of the read, and when it waited first.
    read: Option<(usize, Instant)>,
}

impl BodyWait {
    /// What the waits of the same read have left of `timeout`.
    fn limit(&mut self, read: usize, timeout: NextTimeout) -> NextTimeout {
        let timeout = timeout.for_read();
        match self.read {
            Some((same, since)) if same == read => {
                let left = timeout.not_zero().map(|limit| limit.saturating_sub(since.elapsed()));
                left.map_or(timeout, |left| NextTimeout {
                    after: time::Duration::Exact(left),
                    per_read: None,
                    ..timeout
                })
            }
            _ => {
                self.read = Some((read, Instant::now()));
                timeout
            }
        }
    }
}

impl BoundConnection {
    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().unwrap_or_else(|| unreachable!("set until the drop"))
    }

    fn unbind(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        if let Some(connection) = &self.connection {
            exchange.unbind(&connection.handle);
        }
    }

    /// Finds the real cause of an error: a cancel looks like an end, and ureq takes a reset or an abort for a clean end.
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

    /// Moves the TCP connection to the reader of the body, if the link is direct and the reader accepts it. The reader then
    /// reads the rest without a copy in between.
    fn lend(&mut self, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let Some(exchange) = self.exchange.as_ref().filter(|exchange| exchange.lending.is_allowed()) else {
            return Ok(());
        };
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let Link::Direct(tcp) = &mut connection.link else { return Ok(()) };
        // What is in either buffer comes before what the socket has.
        if !tcp.buffers().input().is_empty() || !self.translator.is_over() {
            return Ok(());
        }
        // Now, because only ureq knows the limit: the reader of the body reads beside it.
        tcp.limit_reads(timeout)?;
        // Lazy buffers allocate nothing until they are used.
        let lent = std::mem::replace(&mut connection.link, Link::Lent(LazyBuffers::new(1, 1)));
        if let Link::Direct(tcp) = lent {
            exchange.lending.lend(tcp);
        }
        Ok(())
    }

    /// Takes the TCP connection back from the body, if all of that was read.
    fn take_back(&mut self) {
        let returned = self.exchange.as_ref().and_then(|exchange| exchange.lending.take_back());
        let (Some(back), Some(connection)) = (returned, &mut self.connection) else { return };
        if let Back::Lent(tcp) = back {
            connection.link = Link::Direct(tcp);
        }
        // Bytes behind the body would be taken for the next response.
        self.is_fit = self.translator.is_over() && connection.link.buffers().input().is_empty();
    }
}

/// Waits for more bytes of a body whose silences are watched.
fn await_body(
    transport: &mut dyn Transport,
    timeout: NextTimeout,
    silence: &SilenceWatch,
) -> Result<bool, ureq::Error> {
    let timeout = timeout.for_read();
    let limit = timeout.not_zero().map(|limit| *limit);
    let is_timeout = |error: &ureq::Error| match error {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(error) => timed_out(error),
        _ => false,
    };
    silence.wait(limit, is_timeout, |limit| {
        let after = limit.map_or(time::Duration::NotHappening, time::Duration::Exact);
        transport.await_input(NextTimeout { after, per_read: None, ..timeout })
    })
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

impl Transport for BoundConnection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection().link.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !std::mem::replace(&mut self.is_sent, true) {
            let connection = self.connection();
            // Counted at the first byte of the request, not when it is answered: a request that was sent may have changed the
            // connection's state.
            connection.requests += 1;
            let (handle, reused) = (connection.handle.clone(), connection.requests > 1);
            if let Some(exchange) = &self.exchange {
                exchange.bind(&handle, reused).map_err(carry)?;
                exchange.record_sent();
            }
        }
        self.translator.expect();
        let result =
            self.connection().link.transport().and_then(|link| link.transmit_output(amount, timeout));
        self.explain(result)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let (timeout, read) = match &self.exchange {
            Some(exchange) => (exchange.limit(timeout), exchange.body_read()),
            None => (timeout, 0),
        };
        self.lend(timeout)?;
        let timeout = if read > 0 { self.body_wait.limit(read, timeout) } else { timeout };
        if timeout.after.is_zero() {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        let Self { connection, pool, origin, exchange, translator, .. } = self;
        let connection = connection.as_mut().unwrap_or_else(|| unreachable!("set until the drop"));
        let transport = connection.link.transport()?;
        let silence = exchange.as_ref().and_then(|exchange| exchange.silence());
        let result = match silence.filter(|_| translator.is_over()) {
            Some(silence) => await_body(transport, timeout, silence),
            None => translator.await_input(transport, timeout, |transport| {
                let received = transport.await_input(timeout)?;
                // At the first byte, not at the end of the head: a whole head may take long, and a response that has begun
                // counts as an answer.
                if let Some(exchange) = exchange.as_ref().filter(|_| received) {
                    if exchange.record_answer() && !exchange.is_reused() {
                        pool.record_answered(origin);
                    }
                }
                Ok(received)
            }),
        };
        if let Some(exchange) = exchange.as_ref().filter(|_| silence.is_none()) {
            exchange.record_behind_head(translator.behind_head());
        }
        self.explain(result)
    }

    /// ureq calls this when the request is served, before it would pool the connection.
    fn is_open(&mut self) -> bool {
        self.unbind();
        // Our pool checks whether it is open when it is taken out, which may be much later.
        self.is_fit = true;
        true
    }

    fn is_tls(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.link.is_tls())
    }
}

impl Drop for BoundConnection {
    fn drop(&mut self) {
        // First the socket, then the binding, then the pool: a late cancel must not shut down the connection of the next
        // request.
        self.take_back();
        if self.exchange.as_ref().is_some_and(|exchange| exchange.is_unanswered()) {
            self.pool.record_failed(&self.origin, self.began);
        }
        self.unbind();
        if let Some(connection) = self.connection.take().filter(|_| self.is_fit) {
            self.pool.put_back(&self.origin, connection);
        }
    }
}

impl fmt::Debug for BoundConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundConnection").field("connection", &self.connection).finish_non_exhaustive()
    }
}
