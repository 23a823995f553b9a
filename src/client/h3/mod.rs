//! HTTP/3 (RFC 9114) over QUIC (RFC 9000), without an async runtime: quinn-proto is the protocol, this module has its sockets,
//! its thread and its callers.
//!
//! ```text
//!  Sender::send ─▶ Http3: which origin has HTTP/3? QUIC, and TCP beside it   alternatives: Alt-Svc, what is broken
//!                    └▶ connection: streams, packets, deadlines ─▶ driver: the thread windway-quic ─▶ socket
//!                         └▶ response ─▶ frame, qpack      control: the server's streams
//! ```
//!
//! A connection serves all requests to its origin at once, so there is one for each origin, in a map, and none in the pool.

mod alternatives;
mod armed;
pub(super) mod body;
mod code;
mod connection;
mod control;
mod driver;
mod frame;
pub(super) mod keep_alive;
mod limits;
mod parameters;
mod poller;
mod qpack;
mod receiver;
mod response;
mod socket;
mod tables;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, IdleTimeout, TransportConfig, VarInt};
use ureq::http::{self, HeaderMap, StatusCode, header};

use self::alternatives::Alternatives;
use self::body::H3Body;
use self::connection::{Connection, Readiness, RequestStream};
use self::driver::Driver;
use self::limits::WINDOWS;
use self::response::Head;
use super::exchange::{Exchange, Over};
use super::net::dns::Lookups;
use super::net::private::is_private;
use super::pool::ConnectionPool;
use super::stats::{Counters, Http3Stats};
use super::tls::Tls;
use crate::config::EarlyData;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::thread;
use crate::types::digits;

pub(super) use self::connection::StreamHandle;
pub(super) use self::limits::Limits;

/// Head start of QUIC before a TCP connection is opened beside it: the second one if a packet has come. These are curl's.
const HEAD_START: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(200));

/// Unidirectional streams that a server may open: three, and some of unknown types.
const MAX_UNIDIRECTIONAL: u32 = 16;

/// Header fields of requests that say nothing about the user. RFC 8470: what is sent before the handshake is complete may be
/// replayed by an attacker, so nothing else goes with it, unless the program allows it.
const PLAIN: [header::HeaderName; 6] = [
    header::HOST,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::USER_AGENT,
    header::RANGE,
    header::IF_RANGE,
];

/// Header fields that show who the user is. A proxy's are not among them: with a proxy, requests use TCP.
const CREDENTIALS: [header::HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// Which origins are requested over HTTP/3.
#[derive(Clone, Debug)]
pub(super) enum Policy {
    /// Origins that advertise it, and have public addresses.
    Advertised,
    /// Also these origins, without an advertisement.
    Always(Vec<Origin>),
}

/// What a request over HTTP/3 led to.
pub(super) enum Sent {
    Answered(http::response::Parts, H3Body),
    UseTcp(Quic),
}

/// What came of QUIC before TCP is used.
pub(super) enum Quic {
    Unused,
    /// There was no connection in time. With the error if the handshake failed.
    Unreachable(Option<Error>),
    /// This connection, which had not worked before, failed with the request.
    Failed(Arc<Connection>, Error),
    /// This connection has answered no request yet, and one has waited for so long that it is hedged.
    Unanswered(Arc<Connection>),
}

/// Where a request goes.
enum Route {
    /// Over this connection, which may still be in its handshake. True if its target is broken.
    Quic(Arc<Connection>, bool),
    Tcp(Quic),
}

/// Sends requests over HTTP/3.
pub(super) struct Http3 {
    policy: Policy,
    early_data: EarlyData,
    limits: Limits,
    tls: Arc<Tls>,
    lookups: Arc<Lookups>,
    pool: Arc<ConnectionPool>,
    counters: Arc<Counters>,
    /// Made at the first use.
    engine: OnceLock<Engine>,
    state: Mutex<State>,
}

struct Engine {
    driver: Arc<Driver>,
    /// By the origin, where that has a certificate of the client of its own; all other origins share the one of `None`.
    configs: Mutex<HashMap<Option<Origin>, ClientConfig>>,
}

#[derive(Default)]
struct State {
    alternatives: Alternatives,
    /// The connection for new requests to each origin.
    connections: HashMap<Origin, Known>,
    /// How many ask for the connection to an origin to be kept alive.
    kept_alive: HashMap<Origin, usize>,
    is_closed: bool,
    /// This machine could not begin the last connection, and that was logged.
    is_failing: bool,
}

/// A connection, and the host and port that it leads to.
struct Known {
    target: Origin,
    connection: Arc<Connection>,
}

impl State {
    /// Removes the connections that were used longest ago, so that `most` are idle once the one to `origin` is.
    fn take_idle(&mut self, origin: &Origin, most: usize) -> Vec<Known> {
        let Self { connections, kept_alive, .. } = self;
        let others =
            connections.iter().filter(|(other, _)| *other != origin && !kept_alive.contains_key(other));
        let mut idle: Vec<(Instant, Origin)> = others
            .filter_map(|(other, known)| Some((known.connection.idle_since()?, other.clone())))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate((idle.len() + 1).saturating_sub(most));
        idle.iter().filter_map(|(_, origin)| connections.remove(origin)).collect()
    }

    /// The connection to `target` that `exchange` may use.
    fn known(&self, origin: &Origin, target: &Origin, exchange: &Exchange) -> Option<Arc<Connection>> {
        let Known { target: led_to, connection } = self.connections.get(origin)?;
        let is_new_enough = match exchange.over {
            Over::Any => true,
            // One that is being opened is new. When a path dies, all requests on it want a new connection at the same time.
            Over::New => connection.is_opening(),
            Over::After(time) => connection.is_opening() || connection.began > time,
            Over::Proven => false,
        };
        let may_use = is_new_enough && exchange.may_reach(connection.peer);
        (may_use && led_to == target && connection.is_open()).then(|| Arc::clone(connection))
    }

    /// The connection to `target` if its handshake is complete, it has answered no request, and it has been silent for as long as
    /// the attempt that `exchange` hedges.
    fn unanswered(&self, origin: &Origin, target: &Origin, exchange: &Exchange) -> Option<Arc<Connection>> {
        let Known { target: led_to, connection } = self.connections.get(origin)?;
        // Another one that has just become ready had no time to answer, and shows nothing about the server.
        let is_silent = connection.is_silent_since(exchange.hedged_since()?);
        (led_to == target && is_silent).then(|| Arc::clone(connection))
    }
}

/// True for the error of a server, or of the path to it, that may not matter over TCP. A held request waits for silence on
/// purpose.
fn is_failure(error: &Error, is_held: bool) -> bool {
    match error.kind() {
        ErrorKind::Disconnected | ErrorKind::Protocol => true,
        ErrorKind::Silent => !is_held,
        _ => false,
    }
}

/// State of the TCP connection that is opened beside QUIC: 0 until it is known, then one of the constants below.
#[derive(Default)]
struct TcpAttempt(AtomicU8);

const TCP_OPEN: u8 = 1;
const TCP_FAILED: u8 = 2;

impl Http3 {
    pub(super) fn new(
        policy: Policy,
        early_data: EarlyData,
        limits: Limits,
        tls: Arc<Tls>,
        lookups: Arc<Lookups>,
        pool: Arc<ConnectionPool>,
        counters: Arc<Counters>,
    ) -> Self {
        let (engine, state) = (OnceLock::new(), Mutex::default());
        Self { policy, early_data, limits, tls, lookups, pool, counters, engine, state }
    }

    /// Sends `request` as `exchange` if its origin has HTTP/3. Blocks until the response head arrives, the request fails or is
    /// aborted, or until it is clear that TCP must be used.
    pub(super) fn send(
        &self,
        request: &http::Request<()>,
        silence: Option<Duration>,
        exchange: &Arc<Exchange>,
    ) -> Result<Sent, Error> {
        let Some(origin) = exchange.origin.as_ref().filter(|origin| origin.is_tls) else {
            return Ok(Sent::UseTcp(Quic::Unused));
        };
        // A proven connection is one of the pool.
        if exchange.over == Over::Proven {
            return Ok(Sent::UseTcp(self.unanswered(origin, exchange)));
        }
        match self.route(origin, exchange)? {
            Route::Quic(connection, is_broken) => {
                self.send_over(connection, is_broken, request, silence, origin, exchange)
            }
            Route::Tcp(quic) => {
                // The next hedged request gets a new connection: TCP may be no better.
                if let Quic::Unanswered(connection) = &quic {
                    connection.retire();
                }
                Ok(Sent::UseTcp(quic))
            }
        }
    }

    /// What the connection to `origin` shows about QUIC while `exchange` uses TCP.
    fn unanswered(&self, origin: &Origin, exchange: &Exchange) -> Quic {
        let state = self.state.lock();
        let target = self.target(&state, origin, Instant::now());
        let unanswered = target.and_then(|target| state.unanswered(origin, &target, exchange));
        unanswered.map_or(Quic::Unused, Quic::Unanswered)
    }

    /// Sends `request` over `connection`, whose target may be broken.
    fn send_over(
        &self,
        connection: Arc<Connection>,
        is_broken: bool,
        request: &http::Request<()>,
        silence: Option<Duration>,
        origin: &Origin,
        exchange: &Arc<Exchange>,
    ) -> Result<Sent, Error> {
        let (is_held, silence) = (silence.is_some(), silence.unwrap_or(self.limits.silence));
        let may_be_early = may_be_early(self.early_data, request.headers());
        let head = headers_frame(request, origin);
        let mut stream = enter(&connection, exchange)?;
        // As long as no packet comes back, TCP is tried beside it as well: all requests are GETs, so both may be answered.
        let sent_early = if may_be_early { stream.send_early(&head) } else { None };
        if let Err(unreachable) = self.await_ready(&stream, origin, is_broken) {
            exchange.unbind_stream();
            return Ok(Sent::UseTcp(unreachable));
        }
        // A connection without a response proves nothing about the server, however old it is.
        let is_reused = connection.load().1 > 0;
        exchange.bind_stream(is_reused, sent_early)?;
        let answer = match await_head(&mut stream, &head, silence, exchange) {
            Ok(answer) => answer,
            // A server may complete handshakes and yet not serve HTTP/3. Over TCP it may still work.
            Err(error) if !is_reused && is_failure(&error, is_held) => {
                exchange.unbind_stream();
                return Ok(Sent::UseTcp(Quic::Failed(connection, error)));
            }
            Err(error) => return Err(error),
        };
        // RFC 9110, section 15.5.20: another connection may lead to a server that is responsible.
        if answer.status == StatusCode::MISDIRECTED_REQUEST {
            self.record_misdirected(origin, &connection);
            exchange.unbind_stream();
            return Ok(Sent::UseTcp(Quic::Unused));
        }
        exchange.record_answer();
        self.record_works(origin);
        self.record_head(origin, &answer.headers);
        Ok(Sent::Answered(parts(answer), H3Body::new(stream, Arc::clone(exchange), silence)))
    }

    /// Learns from the `Alt-Svc` fields of a response of `origin` over TLS, whose certificate was valid.
    pub(super) fn record_head(&self, origin: &Origin, headers: &HeaderMap) {
        let mut values =
            headers.get_all(header::ALT_SVC).iter().filter_map(|value| value.to_str().ok()).peekable();
        if !origin.is_tls || values.peek().is_none() {
            return;
        }
        // RFC 9110, section 5.3: several lines are one list.
        let value = values.collect::<Vec<_>>().join(",");
        let age = headers.get(header::AGE).and_then(|age| digits(age.to_str().ok()?.trim()));
        let age = Duration::from_secs(age.unwrap_or(0));
        self.state.lock().alternatives.handle_field(origin, &value, age, Instant::now());
    }

    /// Records that TCP to `origin` worked after [`Sent::UseTcp`]: if QUIC had not, it is not tried again for a while.
    pub(super) fn record_tcp_worked(&self, origin: &Origin, quic: &Quic) {
        match quic {
            Quic::Unused => return,
            // Another request was answered since.
            Quic::Failed(connection, _) | Quic::Unanswered(connection) if connection.load().1 > 0 => return,
            // The handshake of a connection that was not there in time may succeed after all.
            Quic::Unreachable(_) | Quic::Failed(..) | Quic::Unanswered(_) => {}
        }
        let is_marked = {
            let (mut state, now) = (self.state.lock(), Instant::now());
            let target = self.target(&state, origin, now);
            target.inspect(|target| state.alternatives.handle_broken(target, now)).is_some()
        };
        if is_marked {
            log::debug!("{} could not be used over HTTP/3 in time", origin.host);
        }
        // Else later requests would use it although its target is broken.
        if let Quic::Failed(connection, _) | Quic::Unanswered(connection) = quic {
            connection.retire();
        }
    }

    /// Records that the server of `connection` is not responsible for `origin`.
    fn record_misdirected(&self, origin: &Origin, connection: &Connection) {
        log::debug!("{} is not responsible for {}", connection.peer, origin.host);
        connection.retire();
        let (mut state, now) = (self.state.lock(), Instant::now());
        if let Some(target) = self.target(&state, origin, now) {
            state.alternatives.handle_misdirected(origin, &target, now);
        }
    }

    fn record_works(&self, origin: &Origin) {
        let mut state = self.state.lock();
        if let Some(known) = state.connections.get(origin) {
            let target = known.target.clone();
            state.alternatives.handle_works(&target);
        }
    }

    /// Begins a connection to `origin`, so that it is ready for requests. False if the origin is not reached over HTTP/3.
    /// Blocks for a lookup of the name.
    pub(super) fn preconnect(&self, origin: &Origin) -> bool {
        if !self.is_wanted(origin) {
            return false;
        }
        let exchange = Exchange::to(origin, Over::Any, super::exchange::Reach::Any);
        match self.route(origin, &exchange) {
            Ok(Route::Quic(connection, _)) => connection.is_open(),
            Ok(Route::Tcp(_)) => false,
            Err(error) => {
                log::debug!("preconnecting to {} over HTTP/3 failed: {error}", origin.host);
                false
            }
        }
    }

    /// As [`preconnect`](Self::preconnect), on a thread of its own. False if the thread can't be started.
    pub(super) fn preconnect_beside(self: &Arc<Self>, origin: &Origin) -> bool {
        let has_connection =
            || self.state.lock().connections.get(origin).is_some_and(|known| known.connection.is_open());
        if has_connection() {
            return true;
        }
        let (own, origin) = (Arc::clone(self), origin.clone());
        thread::start("dial", move || own.preconnect(&origin)).is_ok()
    }

    /// True if requests to `origin` go over HTTP/3 at present.
    pub(super) fn is_wanted(&self, origin: &Origin) -> bool {
        let (state, now) = (self.state.lock(), Instant::now());
        let is_usable = |target: &Origin| !state.alternatives.is_broken(target, now);
        origin.is_tls && !state.is_closed && self.target(&state, origin, now).as_ref().is_some_and(is_usable)
    }

    /// How the connections are used.
    pub(super) fn stats(&self) -> Http3Stats {
        let mut stats = Http3Stats::default();
        for usage in self.connections().iter().filter_map(|connection| connection.usage()) {
            stats.connections_ready += 1;
            stats.streams_in_use += usage.in_use;
            stats.streams_awaited += usage.waiting;
            stats.stream_credit += usage.left;
        }
        stats
    }

    /// Checks again whether requests that wait for a stream have become urgent.
    pub(super) fn recheck_urgency(&self) {
        self.connections().iter().for_each(|connection| connection.recheck_urgency());
    }

    /// All connections, also those that only finish the requests that they have.
    fn connections(&self) -> Vec<Arc<Connection>> {
        self.engine.get().map(|engine| engine.driver.connections()).unwrap_or_default()
    }

    /// Connections without a request.
    pub(super) fn idle(&self) -> usize {
        let is_idle = |connection: &&Arc<Connection>| connection.is_open() && connection.load().0 == 0;
        self.connections().iter().filter(is_idle).count()
    }

    /// Forgets what belongs to the old network, and shows the servers the new address.
    pub(super) fn handle_network_changed(&self) {
        self.state.lock().alternatives.handle_network_changed();
        self.connections().iter().for_each(|connection| connection.handle_network_changed());
    }

    /// Closes all connections.
    pub(super) fn close(&self) {
        {
            // No connection begins from now on.
            let mut state = self.state.lock();
            state.is_closed = true;
            state.connections.clear();
        }
        self.connections().iter().for_each(|connection| connection.close());
    }

    /// Blocks until the thread has ended. Call [`close`](Self::close) before.
    pub(super) fn await_closed(&self) {
        if let Some(engine) = self.engine.get() {
            engine.driver.await_ended();
        }
    }

    fn is_named(&self, origin: &Origin) -> bool {
        matches!(&self.policy, Policy::Always(origins) if origins.contains(origin))
    }

    /// Where a connection for `origin` leads at present, also if that is broken. `None` if its requests do not go over HTTP/3.
    fn target(&self, state: &State, origin: &Origin, now: Instant) -> Option<Origin> {
        match state.alternatives.get(origin, now) {
            Some(alternative) => {
                let host = alternative.host.as_deref().unwrap_or(&origin.host);
                Some(Origin::new(true, host, alternative.port))
            }
            None => self.is_named(origin).then(|| origin.clone()),
        }
    }

    /// Where a request to `origin` goes. Fails if the name of the origin itself can't be looked up.
    fn route(&self, origin: &Origin, exchange: &Exchange) -> Result<Route, Error> {
        let now = Instant::now();
        let target = {
            let state = self.state.lock();
            let Some(target) = self.target(&state, origin, now).filter(|_| !state.is_closed) else {
                return Ok(Route::Tcp(Quic::Unused));
            };
            let is_broken = state.alternatives.is_broken(&target, now);
            // Also while it is broken: the handshake may have succeeded after all.
            if let Some(known) = state.known(origin, &target, exchange) {
                return Ok(Route::Quic(known, is_broken));
            }
            // A server may complete handshakes and never answer over HTTP/3. A hedged request on another connection of that kind
            // would show nothing new.
            if let Some(unanswered) = state.unanswered(origin, &target, exchange) {
                return Ok(Route::Tcp(Quic::Unanswered(unanswered)));
            }
            if is_broken {
                return Ok(Route::Tcp(Quic::Unused));
            }
            target
        };
        self.open(origin, target, exchange)
    }

    /// Opens a connection to `target` for `origin`.
    fn open(&self, origin: &Origin, target: Origin, exchange: &Exchange) -> Result<Route, Error> {
        let prepared = self.engine().and_then(|engine| Ok((engine, self.config(engine, origin)?)));
        let (engine, config) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(self.unusable(origin, &error)),
        };
        let is_own_host = target.host == origin.host;
        let addresses = match self.lookups.addresses(&target, exchange) {
            Ok(addresses) => addresses,
            // TCP needs the same name.
            Err(error) if is_own_host => return Err(error),
            Err(error) => return Ok(self.unusable(origin, &error)),
        };
        // A server names its alternative, so that must not lead into a private network. A named origin is the application's choice.
        let may_be_private = is_own_host && self.is_named(origin);
        let may_reach = |address: &SocketAddr| {
            exchange.may_reach(*address) && (may_be_private || !is_private(address.ip()))
        };
        let address = exchange.order(&addresses).into_iter().find(may_reach);
        let Some(address) = address else { return Ok(Route::Tcp(Quic::Unused)) };
        let begun = self.begin(&engine.driver, config, origin, target, exchange, address);
        Ok(begun.map_or_else(|error| self.unusable(origin, &error), |begun| Route::Quic(begun, false)))
    }

    /// RFC 7838, section 2.4: without its alternative, an origin is used as if it had none. If TCP works, QUIC is tried again after
    /// a while, as after other failures.
    fn unusable(&self, origin: &Origin, error: &Error) -> Route {
        // Its threads, its descriptors or its cryptography. Each request meets that, so it is logged once.
        let is_local = matches!(error.kind(), ErrorKind::Io(_) | ErrorKind::Tls);
        let is_new = is_local && !std::mem::replace(&mut self.state.lock().is_failing, true);
        let level = if is_new { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "no QUIC connection to {}: {error:?}", origin.host);
        Route::Tcp(Quic::Unreachable(None))
    }

    /// Begins a connection, unless another request has done that meanwhile.
    fn begin(
        &self,
        driver: &Arc<Driver>,
        config: ClientConfig,
        origin: &Origin,
        target: Origin,
        exchange: &Exchange,
        address: SocketAddr,
    ) -> Result<Arc<Connection>, Error> {
        // RFC 9114, section 3.1: the certificate is that of the origin, also at an alternative. It has no brackets.
        let name = origin.host.trim_matches(['[', ']']);
        let mut state = self.state.lock();
        // Another thread may have begun one since the state was looked at.
        if let Some(known) = state.known(origin, &target, exchange) {
            return Ok(known);
        }
        if state.is_closed {
            return Err(Error::new(ErrorKind::Disconnected, "the client was closed"));
        }
        let wakes = (driver.waker(), driver.pollers());
        let connection = Connection::begin(wakes, config, address, name, &self.limits)?;
        driver.add(&connection)?;
        state.is_failing = false;
        self.counters.dialled.fetch_add(1, Ordering::Relaxed);
        connection.keep_alive(state.kept_alive.contains_key(origin));
        let known = Known { target, connection: Arc::clone(&connection) };
        let replaced = state.connections.insert(origin.clone(), known);
        state.connections.retain(|_, known| known.connection.is_open());
        let idle = state.take_idle(origin, self.limits.max_idle);
        drop(state);
        replaced.iter().chain(&idle).for_each(|unused| unused.connection.retire());
        Ok(connection)
    }

    fn engine(&self) -> Result<&Engine, Error> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let driver = Driver::new()?;
        // Another thread may have made one meanwhile. Then this one, which has no connection, is dropped.
        Ok(self.engine.get_or_init(|| Engine { driver, configs: Mutex::default() }))
    }

    /// The configuration of connections to `origin`, with the tickets and the tokens for the next ones.
    fn config(&self, engine: &Engine, origin: &Origin) -> Result<ClientConfig, Error> {
        let key = self.tls.has_identity(origin).then(|| origin.clone());
        let mut configs = engine.configs.lock();
        if let Some(config) = configs.get(&key) {
            return Ok(config.clone());
        }
        let made = self.make_config(origin)?;
        configs.insert(key, made.clone());
        Ok(made)
    }

    fn make_config(&self, origin: &Origin) -> Result<ClientConfig, Error> {
        // RFC 9114, section 3.2: the server has to select HTTP/3 by ALPN.
        let mut tls = self.tls.client_config(origin, &[b"h3"])?;
        // Only requests with harmless headers are sent early: see `PLAIN`.
        tls.enable_early_data = true;
        let tls = QuicClientConfig::try_from(tls).map_err(|cause| {
            Error::new(ErrorKind::Tls, "the installed provider of cryptography can't do QUIC")
                .with_cause(cause)
        })?;
        let mut transport = TransportConfig::default();
        transport
            // RFC 9114, section 6.1: only the client opens bidirectional streams.
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNIDIRECTIONAL))
            .stream_receive_window(VarInt::from_u32(WINDOWS.0))
            .receive_window(VarInt::from_u32(WINDOWS.1))
            .max_idle_timeout(IdleTimeout::try_from(self.limits.idle).ok())
            // HTTP/3 itself needs no DATAGRAM frames (RFC 9221), so the server may send none.
            .datagram_receive_buffer_size(None);
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        Ok(config)
    }

    /// Blocks until the handshake of the connection of `stream` is complete. Fails if TCP was faster, or QUIC does not work.
    fn await_ready(&self, stream: &RequestStream, origin: &Origin, is_broken: bool) -> Result<(), Quic> {
        let began = Instant::now();
        let wait = |until: Instant, is_decided: &dyn Fn() -> bool| stream.await_ready(until, is_decided);
        // While it is broken, nothing waits for a handshake.
        let first = if is_broken { began } else { began + HEAD_START.0 };
        let mut readiness = wait(first, &|| false);
        if matches!(readiness, Ok(Readiness::NotYet { has_packet: true })) && !is_broken {
            readiness = wait(began + HEAD_START.1, &|| false);
        }
        if matches!(readiness, Ok(Readiness::NotYet { .. })) && !is_broken {
            let attempt = Arc::new(TcpAttempt::default());
            self.open_tcp_beside(origin, &attempt, stream.connection());
            readiness = wait(began + self.limits.connect, &|| attempt.0.load(Ordering::Acquire) == TCP_OPEN);
        }
        match readiness {
            Ok(Readiness::Ready) => Ok(()),
            Ok(Readiness::NotYet { .. }) => Err(Quic::Unreachable(None)),
            Err(error) => {
                log::debug!("no QUIC connection to {}: {error}", origin.host);
                Err(Quic::Unreachable(Some(error)))
            }
        }
    }

    /// Opens a TCP connection for the pool, and wakes the requests of `connection` once it is known whether that works.
    fn open_tcp_beside(&self, origin: &Origin, attempt: &Arc<TcpAttempt>, connection: &Arc<Connection>) {
        let (attempt, connection) = (Arc::clone(attempt), Arc::clone(connection));
        self.pool.open_beside(origin, move |is_open| {
            attempt.0.store(if is_open { TCP_OPEN } else { TCP_FAILED }, Ordering::Release);
            RequestStream::notify_all(&connection);
        });
    }
}

/// A request on `connection`, which an abort of `exchange` ends.
fn enter(connection: &Arc<Connection>, exchange: &Exchange) -> Result<RequestStream, Error> {
    let stream = RequestStream::enter(connection, exchange.urgency());
    exchange.hold_stream(stream.handle())?;
    Ok(stream)
}

/// Sends the request whose HEADERS frame is `head`, unless it was sent early. Blocks until the response head arrives.
fn await_head(
    stream: &mut RequestStream,
    head: &[u8],
    silence: Duration,
    exchange: &Exchange,
) -> Result<Head, Error> {
    let (answer, was_early) = stream.send(head, silence)?;
    if !was_early || answer.status != StatusCode::TOO_EARLY {
        return Ok(answer);
    }
    // RFC 8470, section 5.2: the server wants the request after the handshake.
    *stream = enter(stream.connection(), exchange)?;
    exchange.bind_stream(exchange.is_reused(), None)?;
    stream.send(head, silence).map(|(answer, _)| answer)
}

/// True if a request with these header fields may be sent before the handshake is complete.
fn may_be_early(allowed: EarlyData, headers: &HeaderMap) -> bool {
    match allowed {
        EarlyData::Plain => headers.keys().all(|name| PLAIN.contains(name)),
        EarlyData::Headers => !headers.keys().any(|name| CREDENTIALS.contains(name)),
        EarlyData::Credentials => true,
    }
}

/// The HEADERS frame of a request (RFC 9114, section 4.3.1).
fn headers_frame(request: &http::Request<()>, origin: &Origin) -> Vec<u8> {
    let uri = request.uri();
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or(&origin.host);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // RFC 9114, section 4.3: these precede all other fields.
    let pseudo: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", authority.as_bytes()),
        (b":path", path.as_bytes()),
    ];
    // RFC 9114, section 4.3.1: `:authority` stands for `Host`.
    let fields = request.headers().iter().filter(|(name, _)| *name != header::HOST);
    let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let section = qpack::encode(pseudo.into_iter().chain(fields));
    let mut out = Vec::with_capacity(section.len() + 8);
    frame::put_frame(&mut out, frame::HEADERS, &section);
    out
}

fn parts(head: Head) -> http::response::Parts {
    let mut response = http::Response::new(());
    *response.version_mut() = http::Version::HTTP_3;
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response.into_parts().0
}

impl fmt::Debug for Http3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http3").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};

    use super::*;
    use crate::client::exchange::Reach;
    use crate::client::setup;
    use crate::config::ClientConfig;
    use crate::safe_url::HttpUrl;

    #[test]
    fn a_request_names_its_host_in_the_authority_only() {
        let origin = HttpUrl::parse("https://one.test:4433/a").unwrap().origin().clone();
        let mut request = http::Request::new(());
        *request.uri_mut() = "https://one.test:4433/a".parse().unwrap();
        let frame = headers_frame(&request, &origin);
        request.headers_mut().insert(header::HOST, "one.test:4433".parse().unwrap());
        assert_eq!(headers_frame(&request, &origin), frame);
    }

    /// An origin of HTTP/3 whose socket never answers.
    fn silent_origin() -> (UdpSocket, Arc<Http3>, Origin) {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        let url = format!("https://one.test:{port}/");
        let config = ClientConfig::new().http3(crate::config::Http3::Always(vec![url]));
        let sender = setup::sender(&config).unwrap();
        sender.lookups.preset("one.test", &[Ipv4Addr::LOCALHOST.into()]);
        (silent, sender.http3.clone().unwrap(), Origin::new(true, "one.test", port))
    }

    fn connect() -> (UdpSocket, Arc<Http3>, Origin, Arc<Connection>) {
        let (silent, http3, origin) = silent_origin();
        let any = Exchange::to(&origin, Over::Any, Reach::Any);
        let Ok(Route::Quic(connection, _)) = http3.route(&origin, &any) else { panic!("a connection") };
        (silent, http3, origin, connection)
    }

    #[test]
    fn quic_without_a_thread_is_tried_again_once_it_is_due() {
        let (_silent, http3, origin) = silent_origin();
        let any = Exchange::to(&origin, Over::Any, Reach::Any);
        let refusal = thread::refuse("quic");
        for _ in 0..2 {
            assert!(matches!(http3.route(&origin, &any), Ok(Route::Tcp(Quic::Unreachable(None)))));
            assert!(http3.state.lock().is_failing, "it was logged");
        }
        // TCP works, so requests keep to it for a while.
        http3.record_tcp_worked(&origin, &Quic::Unreachable(None));
        drop(refusal);
        assert!(matches!(http3.route(&origin, &any), Ok(Route::Tcp(Quic::Unused))));
        http3.handle_network_changed();
        assert!(matches!(http3.route(&origin, &any), Ok(Route::Quic(..))));
        assert!(!http3.state.lock().is_failing);
        http3.close();
        http3.await_closed();
    }

    #[test]
    fn only_a_target_that_was_silent_as_long_as_the_hedged_attempt_is_unanswered() {
        let (_silent, http3, origin, connection) = connect();
        let before = Instant::now();
        let _waits = RequestStream::preset_silent(&connection);
        let is_unanswered = |since| {
            let over = [Over::Proven, Over::After(since)];
            let hedged = over.map(|over| Exchange::to(&origin, over, Reach::Any).hedging(since));
            let routed = matches!(http3.route(&origin, &hedged[1]), Ok(Route::Tcp(Quic::Unanswered(_))));
            (matches!(http3.unanswered(&origin, &hedged[0]), Quic::Unanswered(_)), routed)
        };
        assert_eq!(is_unanswered(Instant::now()), (true, true));
        // The attempt that is hedged was sent before the request of this connection.
        assert_eq!(is_unanswered(before), (false, false));
        http3.close();
        http3.await_closed();
    }

    #[test]
    fn the_silence_of_one_target_says_nothing_about_the_next_one() {
        let (_silent, http3, origin, connection) = connect();
        let _waits = RequestStream::preset_silent(&connection);
        let headers = HeaderMap::from_iter([(header::ALT_SVC, "h3=\":9\"".parse().unwrap())]);
        http3.record_head(&origin, &headers);
        let hedged = Exchange::to(&origin, Over::Proven, Reach::Any).hedging(Instant::now());
        assert!(matches!(http3.unanswered(&origin, &hedged), Quic::Unused));
        http3.close();
        http3.await_closed();
    }

    #[test]
    fn a_hedged_request_goes_to_another_address() {
        let config =
            ClientConfig::new().http3(crate::config::Http3::Always(vec!["https://two.test:9/".into()]));
        let sender = setup::sender(&config).unwrap();
        let addresses = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
        sender.lookups.preset("two.test", &addresses);
        let http3 = sender.http3.as_ref().unwrap();
        let origin = Origin::new(true, "two.test", 9);
        let unresponsive = SocketAddr::new(addresses[0], 9);
        let hedged = Exchange::to(&origin, Over::New, Reach::Any).away_from(vec![unresponsive]);
        let Ok(Route::Quic(connection, _)) = http3.route(&origin, &hedged) else { panic!("a connection") };
        assert_eq!(connection.peer, SocketAddr::new(addresses[1], 9));
        http3.close();
        http3.await_closed();
    }
}
