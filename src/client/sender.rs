//! Sends one request over one connection, up to the response head. Redirects, checks and retries are left to others.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::{self, HeaderMap, HeaderValue, header};

use super::acceptance::codings;
use super::alarm::Alarms;
use super::exchange::Exchange;
use super::pool::ConnectionPool;
use super::request::Request;
use super::stats::Counters;
use crate::cancel::{CancelGuard, CancelToken};
use crate::client::h1::error::describe;
use crate::client::net::dns::Lookups;
use crate::error::Error;
use crate::origin::Origin;
use crate::safe_url::HttpUrl;

/// Longest body of a redirect or an error, in bytes, that is drained so that the connection can be reused. It fits into the
/// input buffer, so most of it has arrived with the head.
const SMALL_BODY: u64 = 64 * 1024;

/// Minimum and maximum of the time for which draining waits. The minimum is the pause of a busy server between two writes; the
/// maximum is less than a new connection costs on a slow mobile link.
const DRAIN_LIMITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// A whole response head may take this many times the silence limit. A server that sends a byte now and then never reaches the
/// silence limit, and would block a worker forever; a head in three packets, each lost once, still arrives in time.
pub(super) const HEAD_PATIENCE: u32 = 3;

/// Sends requests. Shared with the threads of hedged requests.
pub(super) struct Sender {
    pub(super) agent: Agent,
    pub(super) pool: Arc<ConnectionPool>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) counters: Arc<Counters>,
    /// Runs the checks of requests that wait too long.
    pub(super) alarms: Arc<Alarms>,
    /// Header fields of every request.
    pub(super) headers: HeaderMap,
    /// `Authorization` value of each origin. No other origin gets it.
    pub(super) auth: Vec<(Origin, HeaderValue)>,
}

/// A response that was not checked yet.
pub(super) struct Answer {
    pub(super) response: http::Response<ureq::Body>,
    pub(super) exchange: Arc<Exchange>,
    pub(super) on_cancel: CancelGuard,
    /// When the request that was answered was sent.
    pub(super) sent: Instant,
    /// Time spent waiting for other connections before that.
    pub(super) lost: Duration,
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
        // `abort_on` runs the hook at once if the token was cancelled before.
        if let Some(cancelled) = exchange.cancelled() {
            return Err((cancelled, exchange));
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let run = |sent| exchange.enter(|| self.agent.run(self.with_limits(request, sent)));
        let result = self.request(request, url).and_then(run);
        match (result, exchange.cancelled()) {
            // First: a cancel shuts the socket down, so ureq's error is only a consequence.
            (_, Some(cancelled)) => Err((cancelled, exchange)),
            (Err(error), None) => Err((describe(error), exchange)),
            (Ok(response), None) if exchange.note_head() => {
                Ok(Box::new(Answer { response, exchange, on_cancel, sent: now, lost: Duration::ZERO }))
            }
            (Ok(_), None) => Err((Error::superseded(), exchange)),
        }
    }

    /// Aborts `exchange` when `cancel` is cancelled, also while it waits for a lookup or a connect.
    pub(super) fn abort_on(&self, cancel: &CancelToken, exchange: &Arc<Exchange>) -> CancelGuard {
        let (exchange, lookups) = (Arc::clone(exchange), Arc::clone(&self.lookups));
        cancel.on_cancel(move |reason| {
            exchange.abort(reason);
            lookups.wake_all();
        })
    }

    /// Sets the silence limit of a long poll.
    fn with_limits(&self, request: &Request, sent: http::Request<()>) -> http::Request<()> {
        let Some(limit) = request.held() else { return sent };
        let limits = self.agent.configure_request(sent).timeout_per_read(Some(limit));
        limits.timeout_recv_response(Some(limit.saturating_mul(HEAD_PATIENCE))).build()
    }

    /// The HTTP request that is sent to `url` for `request`. Secrets are only sent to their origin (RFC 9110, section 15.4).
    fn request(&self, request: &Request, url: &HttpUrl) -> Result<http::Request<()>, ureq::Error> {
        let uri = url.expose_uri().ok_or_else(|| ureq::Error::BadUri("too long".into()))?;
        let mut sent = http::Request::new(());
        *sent.uri_mut() = uri.clone();
        let headers = sent.headers_mut();
        *headers = self.headers.clone();
        if !request.open_headers.is_empty() {
            headers.extend(request.open_headers.clone());
        }
        if request.accepts_gzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let origin = url.origin();
        let secrets = self.auth.iter().find(|(secret_of, _)| secret_of == origin);
        if let Some((_, authorization)) = secrets {
            // Compared with the origin of this hop: after a redirect to another origin the credentials are not sent.
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if !request.headers.is_empty() && origin == request.url.origin() {
            // The request's own fields replace the defaults of the same name.
            request.headers.keys().for_each(|name| drop(headers.remove(name)));
            headers.extend(request.headers.clone());
        }
        let asked = request.range.map(|range| format!("bytes={range}"));
        if let Some(asked) = asked.or_else(|| request.suffix.map(|suffix| format!("bytes=-{suffix}"))) {
            let value = HeaderValue::try_from(asked).map_err(|error| ureq::Error::Http(error.into()))?;
            headers.insert(header::RANGE, value);
            if let Some(validator) = &request.if_range {
                let value = HeaderValue::from_str(validator.as_str())
                    .map_err(|error| ureq::Error::Http(error.into()))?;
                headers.insert(header::IF_RANGE, value);
            }
        }
        Ok(sent)
    }
}

impl Answer {
    /// Drains a small body, so that the connection can be reused. Waits about as long as the head took, since a new connection
    /// only costs a few round trips.
    pub(super) fn drain(&mut self) {
        let has_codings = !codings(self.response.headers()).is_empty();
        let is_small = self.response.body().content_length().map_or(has_codings, |len| len <= SMALL_BODY);
        if is_small {
            let limit = self.exchange.ttfb().unwrap_or_default().clamp(DRAIN_LIMITS.0, DRAIN_LIMITS.1);
            self.exchange.read_until(Instant::now() + limit);
            // The result does not matter: a connection that is not drained is closed.
            let body = &mut self.response.body_mut().as_reader();
            // One byte more, so that the end of a body of the maximum length is read too: that makes ureq release the
            // connection.
            drop(io::copy(&mut body.take(SMALL_BODY + 1), &mut io::sink()));
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold secrets.
        f.debug_struct("Sender").field("pool", &self.pool).finish_non_exhaustive()
    }
}
