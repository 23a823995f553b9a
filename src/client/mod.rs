//! One HTTP exchange: a request, its redirects, a valid head, an open body. Knows nothing of scheduling.
//!
//! ureq speaks HTTP/1 ([h1]). What surrounds it is here: idle connections ([pool]), names and sockets ([net]), TLS ([tls]),
//! hedged requests ([hedge]), the rules for what a response may be, and the [body](response) that never ends early without
//! an error.

mod alarm;
mod body;
mod continuation;
mod exchange;
mod h1;
mod head;
mod hedge;
mod hedge_policy;
mod min_rate;
mod net;
mod pool;
mod range;
pub(crate) mod representation;
mod request;
mod response;
mod rest;
pub(crate) mod retry;
mod silence;
mod silence_watch;
mod tls;

use crate::types::ByteRange;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ureq::Agent;
use ureq::http::{self, HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};

use self::alarm::{Alarms, AtDeadline};
use self::body::Body;
use self::exchange::{Exchange, Over};
use self::head::Head;
use self::hedge::{Attempt, Hedge};
use self::min_rate::MinRateMonitor;
use self::pool::ConnectionPool;
use self::range::{ContentRange, Meaning, check_partial, check_suffix, read_200};
use self::request::parse_headers;
use self::tls::Tls;
use crate::cancel::{CancelGuard, CancelToken};
use crate::client::h1::body::{Framing, H1Body};
use crate::client::h1::connector::{Connect, NoAddresses};
use crate::client::h1::error::describe;
use crate::client::h1::proxy::HttpProxy;
use crate::client::h1::transport::Counters;
use crate::client::net::dial::Dialer;
use crate::client::net::dns::Lookups;
use crate::config::{Auth, ClientConfig};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::{HttpUrl, SafeUrl};

pub(crate) use self::alarm::Alarm;
pub(crate) use self::body::BRIEF;
pub(crate) use self::pool::PreconnectGuard;
pub(crate) use self::response::Response;
pub(crate) use continuation::Continuation;
pub(crate) use hedge_policy::{Hedging, Urgency};

pub use head::{ResponseHead, Validator};
pub(crate) use request::Request;
pub(crate) use rest::Rest;

/// A redirect's body is read to its end, to keep the connection, if it is not longer than this.
const SMALL_BODY: u64 = 64 * 1024;

/// The least and the most that its end is waited for. The least is what a busy server takes between two writes; the most is
/// less than a new connection costs on a slow mobile link.
const DRAIN_LIMITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// So many times the limit on silence a head may take, however it comes.
const HEAD_PATIENCE: u32 = 3;

/// Makes exchanges over a stock of connections that are kept alive. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    agent: Agent,
    pool: Arc<ConnectionPool>,
    lookups: Arc<Lookups>,
    counters: Arc<Counters>,
    /// What a request does that waits for too long.
    alarms: Arc<Alarms>,
    headers: HeaderMap,
    /// What each origin, and no other, gets as `Authorization`.
    auth: Vec<(Origin, HeaderValue)>,
    max_redirects: u32,
    /// What makes a body a trickle: bytes a second, over a while.
    min_rate: (u64, Duration),
    /// Every request is answered at once with nothing, for benches of what is around it.
    hollow: bool,
}

/// What a client has done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientStats {
    pub(crate) requests: u64,
    pub(crate) dialled: u64,
    pub(crate) preconnected: u64,
    pub(crate) idle: usize,
}

/// An answer that was not looked at yet.
struct Answer {
    response: http::Response<ureq::Body>,
    exchange: Arc<Exchange>,
    on_cancel: CancelGuard,
    /// When its own request was sent.
    sent: Instant,
    /// How long other connections had been waited for before that.
    lost: Duration,
}

impl HttpClient {
    /// Starts no thread and opens nothing.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let user_agent = HeaderValue::from_str(&config.user_agent).map_err(|_| {
            let why = "ClientConfig::user_agent has characters that HTTP does not allow";
            Error::new(ErrorKind::InvalidConfig, why)
        })?;
        let counters = Arc::new(Counters::default());
        let lookups = Lookups::new(config.resolve_cache, config.resolve_timeout);
        let proxy = proxy(config)?;
        let dialer = Dialer {
            lookups: Arc::clone(&lookups),
            counters: Arc::clone(&counters),
            connect_timeout: config.connect_timeout,
            proxy: proxy.as_ref().map(|proxy| HttpProxy::new(proxy, &config.user_agent)),
            tls: Tls::new(&config.extra_roots)?,
        };
        let limits = pool::idle::Limits {
            per_origin: config.max_idle_per_origin,
            over_all: config.max_idle,
            max_age: config.max_idle_age,
        };
        let options = agent_config(config, proxy);
        let pool = ConnectionPool::new(dialer, options.clone(), limits);
        let agent = Agent::with_parts(options, Connect(Arc::clone(&pool)), NoAddresses);
        Ok(Self(Arc::new(Shared {
            agent,
            pool,
            lookups,
            counters,
            alarms: Arc::default(),
            headers: default_headers(config, user_agent)?,
            auth: authorizations(config)?,
            max_redirects: config.max_redirects,
            min_rate: (config.min_rate, config.silence_timeout),
            hollow: false,
        })))
    }

    /// As [`new`](Self::new), with nothing behind it: every answer is an empty body, and there at once.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn without_network(config: &ClientConfig) -> Result<Self, Error> {
        let mut client = Self::new(config)?;
        if let Some(shared) = Arc::get_mut(&mut client.0) {
            shared.hollow = true;
        }
        Ok(client)
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let counters = &self.0.counters;
        ClientStats {
            requests: counters.requests.load(Ordering::Relaxed),
            dialled: counters.dialled.load(Ordering::Relaxed),
            preconnected: counters.preconnected.load(Ordering::Relaxed),
            idle: self.0.pool.idle(),
        }
    }

    /// Keeps a connection to where `request` goes ready while the result lives.
    pub(crate) fn keep_preconnected(&self, request: &Request) -> Option<PreconnectGuard> {
        (!self.0.hollow).then(|| self.0.pool.keep_preconnected(request.origin()))
    }

    /// True if where `request` goes is known to answer one connection at a time.
    pub(crate) fn is_single_connection(&self, request: &Request) -> bool {
        self.0.pool.is_single_connection(request.origin())
    }

    /// Opens connections to where `request` goes until so many are ready, in the background, and again as they are used.
    pub(crate) fn preconnect(&self, request: &Request, ready: usize) {
        if !self.0.hollow {
            self.0.pool.want(request.origin(), ready);
        }
    }

    /// Lets go of all connections that serve nobody, and of the addresses that were looked up.
    pub(crate) fn network_changed(&self) {
        self.0.lookups.outdate();
        self.0.pool.change_network();
    }

    /// Blocks until every connection that is being preconnected is ready or has failed.
    #[cfg(feature = "bench")]
    pub(crate) fn await_preconnects(&self) {
        self.0.pool.await_preconnects();
    }

    /// Closes what serves nobody, and opens nothing ahead any more. Does not block.
    pub(crate) fn close(&self) {
        self.0.pool.close();
        self.0.alarms.close();
    }

    /// Looks again at requests that were not urgent when they could have been hedged.
    pub(crate) fn recheck_urgency(&self) {
        self.0.alarms.recheck();
    }

    /// Calls `call` at `at`, and may call it again, until the result is dropped. `call` must not block.
    pub(crate) fn call_at(&self, at: Instant, call: impl Fn() + Send + Sync + 'static) -> Alarm {
        self.0.alarms.set(at, Arc::new(AtDeadline(call)))
    }

    /// Blocks until the threads have ended that `close` has told to.
    pub(crate) fn await_closed(&self) {
        self.0.pool.await_closed();
    }

    /// Sends `request` and follows where it leads. Blocks until a valid head is there, an error, or a cancel. With
    /// `hedging`, a connection that gives no head for too long is not waited for alone: see [hedge].
    ///
    /// A request with a remembered target goes there first, and at once to its own URL if the target does not serve it:
    /// that URL may lead to another target by now. The error is that of the request's own URL then.
    pub(crate) fn open(
        &self,
        request: &Request,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Box<Response>, Error> {
        if let Some(range) = request.range.filter(ByteRange::is_empty) {
            let why = format!("a range of {} bytes to {} has no byte in it", range.start, range.end);
            return Err(Error::new(ErrorKind::InvalidInput, why).with_url(request.url()));
        }
        if self.0.hollow {
            return Ok(Box::new(Response::hollow(request, cancel)));
        }
        let answered = self.open_as_asked(request, cancel, hedging).and_then(|response| match response {
            Some(response) => Ok(response),
            None => {
                request.check_whole_allowed()?;
                self.open_whole(request, cancel, hedging)
            }
        });
        answered.map_err(|error| {
            let error = error.with_url(request.url());
            match request.range {
                Some(range) => error.with_range(range),
                None => error,
            }
        })
    }

    /// Asks without a range, after an answer that did not tell whether it was the part or the whole: what comes now is the
    /// whole.
    fn open_whole(
        &self,
        request: &Request,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Box<Response>, Error> {
        log::debug!("a 200 may be the range that was asked for: the whole is asked for instead");
        let mut whole = request.clone();
        whole.set_whole();
        let response = self.open_as_asked(&whole, cancel, hedging)?;
        response.ok_or_else(|| Error::new(ErrorKind::Protocol, "the answer is neither a part nor the whole"))
    }

    /// `None` if the answer does not tell whether it is the range that was asked for or the whole.
    fn open_as_asked(
        &self,
        request: &Request,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Option<Box<Response>>, Error> {
        let Some(target) = request.remembered_target() else {
            return self.follow(request, &request.url, None, cancel, hedging);
        };
        let (page, error) = match self.follow(request, target, None, cancel, hedging) {
            Err(error) if is_targets_own(&error) => (None, error),
            // Where a signature has expired, many answer a page and call it 200.
            Ok(Some(response)) if representation::is_html(response.head()) => {
                let error = representation::html_page(response.head());
                (Some(response), error)
            }
            result => return result,
        };
        log::debug!("the remembered target on {} failed: {error}", target.origin().host);
        let failed = Some((target, &error));
        match (self.follow(request, &request.url, failed, cancel, hedging), page) {
            // The original URL still leads to the page: that is what it serves.
            (Err(error), Some(page)) if error.kind() == ErrorKind::NotMedia => Ok(Some(page)),
            (result, _) => result,
        }
    }

    /// Follows where `start` leads. `failed` is a target that has just failed: it is not asked again, and its error is the
    /// answer if `start` still leads there.
    fn follow(
        &self,
        request: &Request,
        start: &HttpUrl,
        failed: Option<(&HttpUrl, &Error)>,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Option<Box<Response>>, Error> {
        let mut url = start.clone();
        // Where it was before. Most answers are no redirects, and need no list.
        let mut visited = Vec::new();
        let mut lost = Duration::ZERO;
        loop {
            let mut answer = self.send(request, &url, cancel, hedging)?;
            lost += answer.lost;
            let Some(next) = redirect(&url, &answer.response)? else {
                let response = self.accept(request, &url, answer)?;
                return Ok(response.map(|mut response| {
                    response.add_lost(lost);
                    response
                }));
            };
            drain(&mut answer);
            if let Some((_, error)) = failed.filter(|(target, _)| **target == next) {
                return Err(error.clone());
            }
            visited.push(url);
            if visited.contains(&next) {
                return Err(Error::new(
                    ErrorKind::Redirect,
                    format!("redirected in a circle, back to {next}"),
                ));
            }
            if visited.len() > self.0.max_redirects as usize {
                let why = format!("redirected more than {} times, last to {next}", self.0.max_redirects);
                return Err(Error::new(ErrorKind::Redirect, why));
            }
            url = next;
        }
    }

    /// One request and the head of its answer. A kept-alive connection that turns out to be gone is replaced.
    fn send(
        &self,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Answer, Error> {
        let began = Instant::now();
        let first = self.send_hedged(request, url, cancel, hedging, request.over);
        let is_stale = match &first {
            Err((error, exchange)) => exchange.was_stale(error),
            // RFC 9110, 15.5.9: what a server sends that closes an idle connection. The request crossed it.
            Ok(answer) => {
                answer.response.status() == StatusCode::REQUEST_TIMEOUT && answer.exchange.is_reused()
            }
        };
        if !is_stale {
            return first.map_err(|(error, _)| error);
        }
        drop(first);
        // Those that lie beside it may be gone as well.
        self.0.pool.forget(url.origin());
        let lost = began.elapsed();
        let again = self.send_hedged(request, url, cancel, hedging, Over::New);
        again.map(|answer| Answer { lost: answer.lost + lost, ..answer }).map_err(|(error, _)| error)
    }

    fn send_hedged(
        &self,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
        over: Over,
    ) -> Attempt {
        let exchange = Arc::new(Exchange::to(url.origin(), over));
        let Some(hedging) = hedging else { return self.send_once(request, url, cancel, &exchange) };
        let hedge = Hedge::new(self, request, url, cancel, hedging, &exchange);
        let alarm = self.0.alarms.set(hedge.began() + hedging.delay / 2, Arc::clone(&hedge) as _);
        let first = self.send_once(request, url, cancel, &exchange);
        let attempt = hedge.end(first, cancel);
        drop(alarm);
        attempt
    }

    fn send_once(
        &self,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        exchange: &Arc<Exchange>,
    ) -> Attempt {
        let exchange = Arc::clone(exchange);
        let sent = Instant::now();
        let on_cancel = self.abort_on(cancel, &exchange);
        if let Some(cancelled) = exchange.cancelled() {
            return Err((cancelled, exchange));
        }
        self.0.counters.requests.fetch_add(1, Ordering::Relaxed);
        let run = |sent| exchange.enter(|| self.0.agent.run(self.with_limits(request, sent)));
        let result = self.request(request, url).and_then(run);
        match (result, exchange.cancelled()) {
            (_, Some(cancelled)) => Err((cancelled, exchange)),
            (Err(error), None) => Err((describe(error), exchange)),
            (Ok(response), None) if exchange.note_head() => {
                Ok(Answer { response, exchange, on_cancel, sent, lost: Duration::ZERO })
            }
            (Ok(_), None) => Err((Error::superseded(), exchange)),
        }
    }

    fn abort_on(&self, cancel: &CancelToken, exchange: &Arc<Exchange>) -> CancelGuard {
        let (exchange, lookups) = (Arc::clone(exchange), Arc::clone(&self.0.lookups));
        cancel.on_cancel(move |reason| {
            exchange.abort(reason);
            lookups.wake_all();
        })
    }

    /// Gives a long poll its own limit on silence.
    fn with_limits(&self, request: &Request, sent: http::Request<()>) -> http::Request<()> {
        let Some(limit) = request.held() else { return sent };
        let limits = self.0.agent.configure_request(sent).timeout_per_read(Some(limit));
        limits.timeout_recv_response(Some(limit.saturating_mul(HEAD_PATIENCE))).build()
    }

    fn request(&self, request: &Request, url: &HttpUrl) -> Result<http::Request<()>, ureq::Error> {
        let uri = url.expose_uri().ok_or_else(|| ureq::Error::BadUri("too long".into()))?;
        let mut sent = http::Request::new(());
        *sent.uri_mut() = uri.clone();
        let headers = sent.headers_mut();
        *headers = self.0.headers.clone();
        if !request.open_headers.is_empty() {
            headers.extend(request.open_headers.clone());
        }
        let origin = url.origin();
        let secrets = self.0.auth.iter().find(|(secret_of, _)| secret_of == origin);
        if let Some((_, authorization)) = secrets {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if !request.headers.is_empty() && origin == request.url.origin() {
            // A name that is in both is the request's.
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

    /// Holds an answer against what was asked. `None` if it does not tell whether it is the range or the whole.
    fn accept(
        &self,
        request: &Request,
        url: &HttpUrl,
        mut answer: Answer,
    ) -> Result<Option<Box<Response>>, Error> {
        let status = answer.response.status().as_u16();
        let headers = answer.response.headers();
        let content_range = text(headers, &header::CONTENT_RANGE);
        let codings = codings(headers);
        // Where a body comes in chunks, a length beside it means nothing (RFC 9112, section 6.3).
        let length = text(headers, &header::CONTENT_LENGTH).filter(|_| codings.is_empty());
        let body_len = length.and_then(parse_len);
        if status == 416 {
            if let Some(error) = contradiction(request.range, content_range) {
                drain(&mut answer);
                return Err(error);
            }
        }
        // RFC 9110, 15.3.4: a 203 is the 200 of an origin, transformed by a proxy on the way.
        if !matches!(status, 200 | 203 | 206) {
            let error = refusal(status, headers);
            drain(&mut answer);
            if matches!(status, 429 | 503) {
                // Its own connection is idle by then, and goes with the others.
                drop(answer);
                // Some servers serve a few connections of a client, the oldest mostly, and refuse the others: one of ours
                // that is idle may hold the place of the one that asks.
                self.0.pool.note_refused(url.origin());
            }
            return Err(error);
        }
        let encoding =
            text(headers, &header::CONTENT_ENCODING).map(str::trim).filter(|encoding| !encoding.is_empty());
        if let Some(encoding) = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            let why = format!("the body is encoded as {encoding}, although that was not asked for");
            return Err(Error::new(ErrorKind::Encoded, why));
        }
        if let Some(coding) = codings.iter().find(|coding| !coding.eq_ignore_ascii_case("chunked")) {
            let why =
                format!("the body is encoded as {coding} for its transfer, although that was not asked for");
            return Err(Error::new(ErrorKind::Encoded, why));
        }
        let content_type = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        // RFC 9110, 15.3.7.2: an answer to several ranges. Boundaries and headers are no content.
        if media_type.eq_ignore_ascii_case("multipart/byteranges") {
            let why = "the body is in several parts (multipart/byteranges), although one range was asked for";
            return Err(Error::new(ErrorKind::WrongRange, why));
        }
        let framing = Framing {
            by_length: body_len.is_some(),
            keeps_alive: keeps_alive(answer.response.version(), headers),
        };
        let (part, total) = match (status, request.range) {
            (206, None) if request.suffix.is_some() => {
                let suffix = request.suffix.unwrap_or_default();
                let (range, total) = check_suffix(suffix, content_range, body_len)
                    .map_err(|why| Error::new(ErrorKind::WrongRange, why))?;
                (Some(range), total)
            }
            // Caches and scripts that slice everything call the whole a part, from its first byte to its last.
            (206, None) => match check_partial(ByteRange::from_start(0), content_range, body_len) {
                Ok((range, Some(total))) if range.end == total => (None, Some(total)),
                _ => {
                    let why = "the answer is partial, although the whole was asked for";
                    return Err(Error::new(ErrorKind::WrongRange, why));
                }
            },
            (206, Some(asked)) => {
                let (range, total) = check_partial(asked, content_range, body_len)
                    .map_err(|why| Error::new(ErrorKind::WrongRange, why))?;
                (Some(range), request.believe(total))
            }
            (_, Some(asked)) => match read_200(asked, content_range, body_len) {
                Meaning::Whole => (None, body_len),
                Meaning::Part { range, total } => (Some(range), request.believe(total)),
                Meaning::Unclear => return Ok(None),
            },
            _ => (None, body_len),
        };
        let Answer { response, exchange, on_cancel, .. } = answer;
        let (parts, body) = response.into_parts();
        let head = ResponseHead::new(Head {
            status,
            url: SafeUrl::from(url),
            headers: parts.headers,
            start: part.map_or(0, |part| part.start),
            body_len: part.map_or(body_len.or(total), |part| Some(part.len())),
            total,
            is_partial: part.is_some(),
            asked: request.range,
        });
        let (min_rate, window) = self.0.min_rate;
        let min_rate = MinRateMonitor::new(min_rate, request.held().unwrap_or(window));
        let body = Body::Http1(H1Body::new(body.into_reader(), &exchange, framing));
        Ok(Some(Box::new(Response::new(head, body, exchange, on_cancel, min_rate, request))))
    }
}

/// What is wrong with a 416 that tells the length (RFC 9110, section 15.5.17), if it is not that the range begins behind it.
fn contradiction(asked: Option<ByteRange>, content_range: Option<&str>) -> Option<Error> {
    let Some(ContentRange::Unsatisfied { total }) = content_range.and_then(ContentRange::parse) else {
        return None;
    };
    if total == 0 {
        return Some(Error::new(ErrorKind::Empty, "the resource has no bytes"));
    }
    let asked = asked.filter(|asked| asked.start < total)?;
    let why = format!("the server refuses the range {asked} of a resource that it says has {total} bytes");
    Some(Error::new(ErrorKind::WrongRange, why).with_cause(Error::new(ErrorKind::Status(416), "status 416")))
}

/// A length that is told more than once in one header is that length (RFC 9110, section 8.6).
fn parse_len(value: &str) -> Option<u64> {
    let mut lens = value.split(',').map(|len| len.trim().parse().ok());
    let first = lens.next()??;
    lens.all(|len| len == Some(first)).then_some(first)
}

/// What goes with every request. All that ureq would add by itself is here: it would make each value anew.
fn default_headers(config: &ClientConfig, user_agent: HeaderValue) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    // The offsets of an encoded body mean nothing.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::USER_AGENT, user_agent);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    // Those of a configuration replace ours: each of its names takes the place of the same name here.
    headers.extend(parse_headers("ClientConfig::default_headers", &config.default_headers)?);
    Ok(headers)
}

fn agent_config(config: &ClientConfig, proxy: Option<ureq::Proxy>) -> ureq::config::Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // With one set, ureq looks no origin's name up. The tunnel is opened here.
        .proxy(proxy)
        .timeout_per_read(Some(config.silence_timeout))
        // A head that comes a byte at a time is no sign of life.
        .timeout_recv_response(Some(config.silence_timeout.saturating_mul(HEAD_PATIENCE)))
        .timeout_per_write(Some(config.silence_timeout))
        .timeout_connect(Some(config.resolve_timeout + config.connect_timeout))
        .max_response_header_size(config.max_head)
        .input_buffer_size(64 * 1024)
        .output_buffer_size(16 * 1024)
        // What would go into ureq's pool goes into our stock.
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .build()
}

fn authorizations(config: &ClientConfig) -> Result<Vec<(Origin, HeaderValue)>, Error> {
    let authorize = |(origin, auth): &(String, Auth)| {
        let wrong = |why: &str| Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::auth {why}"));
        let url = HttpUrl::parse(origin).map_err(|cause| wrong("names no origin").with_cause(cause))?;
        let value = auth.header().ok_or_else(|| wrong("has characters that HTTP does not allow"))?;
        Ok((url.origin().clone(), value))
    };
    config.auth.iter().map(authorize).collect()
}

/// The proxy, if one is set; none is taken from the environment.
fn proxy(config: &ClientConfig) -> Result<Option<ureq::Proxy>, Error> {
    let Some(url) = &config.proxy else { return Ok(None) };
    let wrong = |why: &str| Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::proxy {why}"));
    if !url.starts_with("http://") {
        return Err(wrong("is no http:// URL"));
    }
    ureq::Proxy::new(url).map(Some).map_err(|cause| wrong("can't be used").with_cause(cause))
}

/// True if this error of a remembered target may be the target's alone, so that the original URL has to be asked: it is
/// gone, its signature has expired, its host is down or overloaded. Else the original URL would say the same.
fn is_targets_own(error: &Error) -> bool {
    match error.kind() {
        // 408, 425 and 429 ask for patience, and 416 is about the bytes. An expired signature is a 400 with some stores.
        ErrorKind::Status(408 | 416 | 425 | 429) => false,
        ErrorKind::Status(_)
        | ErrorKind::HostNotFound
        | ErrorKind::ConnectTimedOut
        | ErrorKind::Refused
        | ErrorKind::Unreachable
        | ErrorKind::Tls
        | ErrorKind::Silent
        | ErrorKind::Disconnected
        | ErrorKind::Protocol
        | ErrorKind::Redirect
        | ErrorKind::UnsupportedScheme
        | ErrorKind::WrongRange
        | ErrorKind::Encoded => true,
        _ => false,
    }
}

/// Where an answer redirects to, if it does.
fn redirect(from: &HttpUrl, response: &http::Response<ureq::Body>) -> Result<Option<HttpUrl>, Error> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    // Many send what should be escaped as it is.
    let location = response.headers().get(header::LOCATION).map(|value| value.as_bytes());
    let Some(location) = location.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return Err(Error::new(ErrorKind::Redirect, format!("{from} redirects but does not say where to")));
    };
    let to = from.join(location).map_err(|cause| {
        let location = SafeUrl::from(location);
        Error::new(ErrorKind::Redirect, format!("{from} redirects to what is no URL: {location}"))
            .with_cause(cause)
    })?;
    let Some(target) = HttpUrl::of(&to) else {
        let why = format!("{from} redirects to {to}, and only http and https are streamed");
        return Err(Error::new(ErrorKind::UnsupportedScheme, why));
    };
    Ok(Some(target))
}

/// Reads a small body to its end, so that the connection can be used again, if it comes about as fast as the head did. A new
/// connection costs a few round trips: to wait for longer is worth nothing.
fn drain(answer: &mut Answer) {
    let has_codings = !codings(answer.response.headers()).is_empty();
    let is_small = answer.response.body().content_length().map_or(has_codings, |len| len <= SMALL_BODY);
    if is_small {
        let limit = answer.exchange.ttfb().unwrap_or_default().clamp(DRAIN_LIMITS.0, DRAIN_LIMITS.1);
        answer.exchange.read_until(Instant::now() + limit);
        // Whether it worked does not matter: a connection that is not drained is closed.
        let body = &mut answer.response.body_mut().as_reader();
        drop(io::copy(&mut body.take(SMALL_BODY + 1), &mut io::sink()));
    }
}

/// How a body is encoded for its transfer.
fn codings(headers: &HeaderMap) -> Vec<&str> {
    let values =
        headers.get_all(header::TRANSFER_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let codings = values.flat_map(|value| value.split(',')).map(str::trim);
    codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).collect()
}

/// True if the connection serves other requests after this answer (RFC 9112, section 9.3).
fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let mut options = options.flat_map(|value| value.split(',')).map(str::trim);
    match version {
        Version::HTTP_11 => !options.any(|option| option.eq_ignore_ascii_case("close")),
        _ => options.any(|option| option.eq_ignore_ascii_case("keep-alive")),
    }
}

fn refusal(status: u16, headers: &HeaderMap) -> Error {
    if status < 400 {
        return Error::new(
            ErrorKind::Protocol,
            format!("the server answered with status {status}, which is no answer"),
        );
    }
    let error = Error::new(ErrorKind::Status(status), format!("the server answered with status {status}"));
    let retry_after = text(headers, &header::RETRY_AFTER)
        .and_then(|value| retry::parse_retry_after(value, SystemTime::now()));
    match retry_after {
        Some(after) => error.with_retry_after(after),
        None => error,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
