//! Sends one request over one connection, up to the response head. Redirects, checks and retries are left to others.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::http::uri::{Authority, Uri};
use ureq::http::{self, HeaderMap, HeaderValue, header, response};

use super::acceptance::is_short;
use super::alarm::Alarms;
use super::body::Body;
use super::exchange::Exchange;
#[cfg(feature = "http3")]
use super::exchange::Over;
use super::h1::agent::Http1;
#[cfg(feature = "http3")]
use super::h3::{Http3, Quic, Sent};
use super::header_fields::take_userinfo;
use super::hedge_budget::HedgeBudget;
use super::pool::ConnectionPool;
use super::request::Request;
use super::stats::Counters;
use crate::cancel::{CancelGuard, CancelStage, CancelToken};
use crate::client::net::dns::Lookups;
use crate::config::Cookies;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::HttpUrl;

/// Longest body of a redirect or an error, in bytes, that is read to its end so that the connection can be reused. It fits into
/// the input buffer, so most of it has arrived with the head.
const SMALL_BODY: u64 = 64 * 1024;

/// Minimum and maximum of the time for reading the rest of such a body. The minimum is the pause of a busy server between two
/// writes; the maximum is less than a new connection costs on a slow mobile link.
const DISCARD_LIMITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Sends requests. Shared with the threads of hedged requests.
pub(super) struct Sender {
    pub(super) http1: Http1,
    /// `None` if it is not configured, or with a proxy.
    #[cfg(feature = "http3")]
    pub(super) http3: Option<Arc<Http3>>,
    pub(super) pool: Arc<ConnectionPool>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) counters: Arc<Counters>,
    /// Runs the checks of requests that wait too long.
    pub(super) alarms: Arc<Alarms>,
    pub(super) hedge_budget: Mutex<HedgeBudget>,
    /// Header fields of every request. `Host` is without a value, which is that of the request's URL.
    pub(super) headers: HeaderMap,
    /// `Authorization` value of each origin. No other origin gets it.
    pub(super) auth: Vec<(Origin, HeaderValue)>,
    pub(super) cookies: Option<Cookies>,
}

/// A response that was not checked yet.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) body: Body,
    pub(super) exchange: Arc<Exchange>,
    pub(super) on_cancel: CancelGuard,
    /// When the request that was answered was sent.
    pub(super) sent: Instant,
    /// Time spent waiting for other connections before that.
    pub(super) waited_before: Duration,
    /// The request was sent more than once, so the server may have answered another one of them before.
    pub(super) is_repeated: bool,
}

/// Result of one attempt. The exchange of a failed one shows whether its connection was stale.
pub(super) type Attempt = Result<Box<Answer>, (Error, Arc<Exchange>)>;

impl Sender {
    /// Sends `request` to `url` as `exchange`, at `now`. Blocks until a response head arrives, the request fails or is cancelled.
    pub(super) fn send(
        &self,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        exchange: &Arc<Exchange>,
        now: Instant,
    ) -> Attempt {
        let exchange = Arc::clone(exchange);
        let on_cancel = self.abort_on(cancel, &exchange);
        // A cancel after this look aborts the exchange.
        if let Some(reason) = cancel.reason() {
            return Err((Error::cancelled(reason), exchange));
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let result = self.request(request, url).and_then(|sent| self.send_over(sent, request, &exchange));
        if let (Some(jar), Ok((head, _))) = (&self.cookies, &result) {
            // Also of a redirect or an error: a login sets its cookie with the redirect to the content.
            for cookie in head.headers.get_all(header::SET_COOKIE) {
                let cookie = cookie.to_str().ok();
                cookie.into_iter().for_each(|cookie| jar.store(url.expose_text(), cookie));
            }
        }
        let (head, body) = match result {
            Ok(answered) => answered,
            // A cancel shuts the socket down, so the other error is only a consequence.
            Err(error) => return Err((exchange.cancelled().unwrap_or(error), exchange)),
        };
        if let Err(error) = exchange.record_head() {
            return Err((error, exchange));
        }
        Ok(Box::new(Answer {
            head,
            body,
            exchange,
            on_cancel,
            sent: now,
            waited_before: Duration::ZERO,
            is_repeated: false,
        }))
    }

    /// Sends `sent`, which is `request` on the wire, over the protocol that its origin has.
    fn send_over(
        &self,
        sent: http::Request<()>,
        request: &Request,
        exchange: &Arc<Exchange>,
    ) -> Result<(response::Parts, Body), Error> {
        #[cfg(feature = "http3")]
        if let Some(http3) = &self.http3 {
            return self.send_over_http3(http3, sent, request, exchange);
        }
        self.send_over_tcp(sent, request, exchange)
    }

    fn send_over_tcp(
        &self,
        sent: http::Request<()>,
        request: &Request,
        exchange: &Arc<Exchange>,
    ) -> Result<(response::Parts, Body), Error> {
        match self.http1.send(sent, request.held(), exchange) {
            Ok((head, body)) => Ok((head, Body::Http1(body))),
            Err(error) => Err(self.name_proxy(error, exchange)),
        }
    }

    /// Names the proxy in the error of a request that was sent through a tunnel: what is wrong may be the proxy.
    fn name_proxy(&self, error: Error, exchange: &Exchange) -> Error {
        let proxy = exchange.origin.as_ref().and_then(|origin| self.pool.proxy_for(origin));
        // Before that the error is about the tunnel, and names the proxy already.
        match proxy.filter(|_| exchange.is_sent() && exchange.cancelled().is_none()) {
            Some(proxy) => error.through_the_proxy(&proxy),
            None => error,
        }
    }

    /// Over HTTP/3 if the origin is known to have it, and over TCP if it has not, or if QUIC does not work.
    #[cfg(feature = "http3")]
    fn send_over_http3(
        &self,
        http3: &Http3,
        sent: http::Request<()>,
        request: &Request,
        exchange: &Arc<Exchange>,
    ) -> Result<(response::Parts, Body), Error> {
        let quic = match http3.send(&sent, request.held(), exchange)? {
            Sent::Answered(head, body) => return Ok((head, Body::Http3(body))),
            Sent::UseTcp(quic) => quic,
        };
        // An abort looks like a server that has failed.
        exchange.check()?;
        let again = matches!(quic, Quic::Unanswered(_)).then(|| sent.clone());
        let (head, body) = match (self.send_over_tcp(sent, request, exchange), &quic, again) {
            (Ok(answered), ..) => answered,
            // It came further than TCP did.
            (Err(_), Quic::Failed(_, error), _) => return Err(error.clone()),
            // Nothing listens there, so a new QUIC connection is all that is left.
            (Err(error), _, Some(sent)) if error.is_unreachable() && exchange.over != Over::Proven => {
                return match http3.send(&sent, request.held(), exchange)? {
                    Sent::Answered(head, body) => Ok((head, Body::Http3(body))),
                    Sent::UseTcp(Quic::Failed(_, over_quic)) => Err(over_quic),
                    Sent::UseTcp(_) => Err(error),
                };
            }
            // The server may be reached over QUIC only, and then this is what its operator has to know.
            (Err(error), Quic::Unreachable(Some(over_quic)), _) if error.is_unreachable() => {
                return Err(error.and_over_quic(over_quic));
            }
            (Err(error), ..) => return Err(error),
        };
        if let Some(origin) = &exchange.origin {
            // Only now is it known that QUIC was the problem, and not the network.
            http3.record_tcp_worked(origin, &quic);
            // `Alt-Svc` may offer HTTP/3 for the next request (RFC 7838).
            http3.record_head(origin, &head.headers);
        }
        Ok((head, body))
    }

    /// Takes the token for a hedged request to `origin`. If there is none, returns when to ask again.
    pub(super) fn take_hedge(&self, origin: &Origin, is_urgent: bool, now: Instant) -> Result<(), Instant> {
        self.hedge_budget.lock().take(origin, is_urgent, now)
    }

    /// Returns the token of a hedged request to `origin` that was not sent.
    pub(super) fn give_hedge_back(&self, origin: &Origin) {
        self.hedge_budget.lock().give_back(origin);
        self.alarms.recheck();
    }

    /// Records that `origin` answered a request, hedged or not: hedged requests that were refused a token may be sent now.
    pub(super) fn record_answered(&self, origin: &Origin) {
        let ends_pause = self.hedge_budget.lock().record_answer(origin);
        // Not at each answer, for which no alarm has to be called.
        if ends_pause {
            self.alarms.recheck();
        }
    }

    /// Records that a hedged request to `origin` won: others that were refused a token may be sent now.
    pub(super) fn record_hedge_won(&self, origin: &Origin) {
        self.hedge_budget.lock().record_win(origin);
        self.alarms.recheck();
    }

    /// Aborts `exchange` when `cancel` is cancelled, also while it waits for a lookup or a connect.
    pub(super) fn abort_on(&self, cancel: &CancelToken, exchange: &Arc<Exchange>) -> CancelGuard {
        let (exchange, lookups) = (Arc::clone(exchange), Arc::clone(&self.lookups));
        cancel.on_cancel(CancelStage::Abort, move |reason| {
            exchange.abort(reason);
            lookups.wake_all();
        })
    }

    /// The HTTP request that is sent to `url` for `request`.
    fn request(&self, request: &Request, url: &HttpUrl) -> Result<http::Request<()>, Error> {
        // A redirect may have named both (RFC 9110, section 4.2.4): neither belongs into `:authority` (RFC 9114, section 4.3.1).
        let mut plain = url.clone();
        let authorization = take_userinfo(&mut plain);
        // RFC 9110, section 4.1, asks for 8,000 bytes at least; the `http` crate takes 65,534.
        let Some(uri) = plain.expose_uri() else {
            return Err(Error::new(ErrorKind::InvalidUrl, "the URL is too long to be requested"));
        };
        let mut sent = http::Request::new(());
        *sent.uri_mut() = uri.clone();
        let headers = sent.headers_mut();
        *headers = self.headers.clone();
        headers.insert(header::HOST, host(uri)?);
        if !request.open_headers.is_empty() {
            headers.extend(request.open_headers.clone());
        }
        if !request.conditions.is_empty() {
            headers.extend(request.conditions.clone());
        }
        if request.accepts_gzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.add_secrets(headers, request, url);
        if let Some(authorization) = authorization {
            headers.entry(header::AUTHORIZATION).or_insert(authorization);
        }
        add_range(headers, request)?;
        Ok(sent)
    }

    /// Adds the fields that are only sent to their origin (RFC 9110, section 15.4). `url` is that of this hop: after a redirect
    /// to another origin they are not sent.
    fn add_secrets(&self, headers: &mut HeaderMap, request: &Request, url: &HttpUrl) {
        let origin = url.origin();
        if let Some((_, authorization)) = self.auth.iter().find(|(secret_of, _)| secret_of == origin) {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        // The jar decides what may go to this URL.
        if let Some(cookies) = self.cookies.as_ref().and_then(|jar| jar.header(url.expose_text())) {
            headers.insert(header::COOKIE, cookies);
        }
        if !request.headers.is_empty() && origin == request.url.origin() {
            replace(headers, &request.headers);
        }
        if let Some((_, scoped)) = request.scoped.as_ref().filter(|(scope, _)| scope == origin) {
            replace(headers, scoped);
        }
    }
}

/// The value of `Host` (RFC 9110, section 7.2). A URL whose port is the default of its scheme does not name it.
fn host(uri: &Uri) -> Result<HeaderValue, Error> {
    let authority = uri.authority().map_or("", Authority::as_str);
    HeaderValue::from_str(authority).map_err(|cause| {
        Error::new(ErrorKind::InvalidUrl, "HTTP does not allow the host of the URL").with_cause(cause)
    })
}

/// Adds fields in place of those of the same names.
fn replace(headers: &mut HeaderMap, by: &HeaderMap) {
    // `extend` alone would keep both values.
    by.keys().for_each(|name| drop(headers.remove(name)));
    headers.extend(by.clone());
}

fn add_range(headers: &mut HeaderMap, request: &Request) -> Result<(), Error> {
    let range = request.range.map(|range| format!("bytes={range}"));
    let Some(range) = range.or_else(|| request.suffix.map(|suffix| format!("bytes=-{suffix}"))) else {
        return Ok(());
    };
    headers.insert(header::RANGE, HeaderValue::try_from(range).map_err(unsendable)?);
    // RFC 9110, section 13.1.5: If-Range is only allowed beside Range.
    if let Some(validator) = &request.if_range {
        headers.insert(header::IF_RANGE, HeaderValue::from_str(validator.as_str()).map_err(unsendable)?);
    }
    Ok(())
}

/// The error for a value that HTTP does not allow in a header field, such as a validator with a line break.
fn unsendable(cause: header::InvalidHeaderValue) -> Error {
    let why = "HTTP does not allow the value of the range or of its condition";
    Error::new(ErrorKind::InvalidInput, why).with_cause(cause)
}

impl Answer {
    /// True if it may be the answer to an earlier request: its connection has served others, one after the other.
    pub(super) fn is_on_reused_connection(&self) -> bool {
        // Each request over HTTP/3 has a stream of its own.
        matches!(self.body, Body::Http1(_)) && self.exchange.is_reused()
    }

    /// Reads a small body to its end, so that the connection can be reused.
    pub(super) fn discard_rest(&mut self) {
        if is_short(&self.head.headers, SMALL_BODY) {
            // About as long as the head took: a new connection costs no more than a few round trips.
            let limit = self.exchange.ttfb().unwrap_or_default().clamp(DISCARD_LIMITS.0, DISCARD_LIMITS.1);
            self.exchange.read_until(Instant::now() + limit);
            self.body.discard_rest(SMALL_BODY);
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers are left out: they may hold secrets.
        f.debug_struct("Sender").field("pool", &self.pool).finish_non_exhaustive()
    }
}
