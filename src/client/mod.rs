//! One HTTP exchange: a request, its redirects, a valid head, an open body. Knows nothing of scheduling.
//!
//! ureq speaks HTTP; what surrounds it is here: the connections ([transport]), the names ([resolve]), the rules for what
//! an answer may be, and the [body] that never ends early in silence.

mod body;
mod range;
mod request;
mod resolve;
pub(crate) mod retry;
mod transport;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use ureq::http::{self, HeaderMap, HeaderName, HeaderValue, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Body, Timeout};
use url::Url;

use self::range::{ContentRange, check_partial};
use self::request::parse_header;
use self::resolve::{CachingResolver, Lookups};
use self::transport::{Counters, Dial, Exchange, Watch};
use crate::cancel::{CancelGuard, CancelToken};
use crate::config::ClientConfig;
use crate::error::{Error, ErrorKind};

pub(crate) use body::Response;
pub use range::ByteRange;
pub(crate) use request::Request;
pub use request::{Head, Validator};

/// A redirect's body is read to its end, to keep the connection, if it is not longer than this.
const SMALL_BODY: u64 = 64 * 1024;

/// Makes exchanges over a stock of connections that are kept alive. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    agent: Agent,
    lookups: Arc<Lookups>,
    counters: Arc<Counters>,
    headers: HeaderMap,
    max_redirects: u32,
    /// Every request is answered at once with nothing, for benches of what is around it.
    hollow: bool,
}

/// What a client has done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientStats {
    pub(crate) requests: u64,
    pub(crate) dialled: u64,
}

/// An answer that was not looked at yet.
struct Answer {
    response: http::Response<Body>,
    exchange: Arc<Exchange>,
    on_cancel: CancelGuard,
}

impl HttpClient {
    /// Starts no thread and opens nothing.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let (name, value) = parse_header(name, value).map_err(|error| {
                Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::headers: {error}"))
            })?;
            headers.append(name, value);
        }
        if HeaderValue::from_str(&config.user_agent).is_err() {
            let why = "ClientConfig::user_agent has characters that HTTP does not allow";
            return Err(Error::new(ErrorKind::InvalidConfig, why));
        }
        let counters = Arc::new(Counters::default());
        let lookups = Lookups::new(config.resolve_cache, config.resolve_timeout);
        let dial = Dial { counters: Arc::clone(&counters), connect_timeout: config.connect_timeout };
        let connector = dial.chain(RustlsConnector::default()).chain(Watch);
        let resolver = CachingResolver(Arc::clone(&lookups));
        let agent = Agent::with_parts(agent_config(config)?, connector, resolver);
        let max_redirects = config.max_redirects;
        let hollow = false;
        Ok(Self(Arc::new(Shared { agent, lookups, counters, headers, max_redirects, hollow })))
    }

    /// As [`new`](Self::new), with nothing behind it: every answer is an empty body, and there at once.
    pub(crate) fn hollow(config: &ClientConfig) -> Result<Self, Error> {
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
        }
    }

    /// Sends `request` and follows where it leads. Blocks until a valid head is there, an error, or a cancel.
    pub(crate) fn open(&self, request: &Request, cancel: &CancelToken) -> Result<Response, Error> {
        if self.0.hollow {
            return Ok(Response::hollow(request, cancel));
        }
        self.follow(request, cancel).map_err(|error| {
            let error = error.with_url(request.url());
            match request.range {
                Some(range) => error.with_range(range),
                None => error,
            }
        })
    }

    fn follow(&self, request: &Request, cancel: &CancelToken) -> Result<Response, Error> {
        let mut url = request.url.clone();
        let mut visited = vec![url.clone()];
        loop {
            let mut answer = self.send(request, &url, cancel)?;
            let Some(next) = redirect(&url, &answer.response)? else {
                return accept(request, &url, answer);
            };
            drain(&mut answer.response);
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
            visited.push(next.clone());
            url = next;
        }
    }

    /// One request and the head of its answer. A kept-alive connection that turns out to be gone is replaced.
    fn send(&self, request: &Request, url: &Url, cancel: &CancelToken) -> Result<Answer, Error> {
        let first = self.send_once(request, url, cancel, false);
        match first {
            Err((_, exchange)) if exchange.was_stale() => {
                self.send_once(request, url, cancel, true).map_err(|(error, _)| error)
            }
            other => other.map_err(|(error, _)| error),
        }
    }

    fn send_once(
        &self,
        request: &Request,
        url: &Url,
        cancel: &CancelToken,
        freshly: bool,
    ) -> Result<Answer, (Error, Arc<Exchange>)> {
        let exchange = Arc::new(Exchange::default());
        let on_cancel = cancel.on_cancel({
            let (exchange, lookups) = (Arc::clone(&exchange), Arc::clone(&self.0.lookups));
            move |reason| {
                exchange.abort(reason);
                lookups.wake_all();
            }
        });
        if let Some(cancelled) = exchange.cancelled() {
            return Err((cancelled, exchange));
        }
        self.0.counters.requests.fetch_add(1, Ordering::Relaxed);
        let sent = self.request(request, url).and_then(|request| {
            exchange.enter(|| {
                if freshly {
                    // An idle age of zero drops this origin's idle connections, and dials.
                    let request =
                        self.0.agent.configure_request(request).max_idle_age(Duration::ZERO).build();
                    self.0.agent.run(request)
                } else {
                    self.0.agent.run(request)
                }
            })
        });
        match (sent, exchange.cancelled()) {
            (_, Some(cancelled)) => Err((cancelled, exchange)),
            (Err(error), None) => Err((describe_for(url, error), exchange)),
            (Ok(response), None) => Ok(Answer { response, exchange, on_cancel }),
        }
    }

    fn request(&self, request: &Request, url: &Url) -> Result<http::Request<()>, ureq::Error> {
        let mut sent = http::Request::get(&url[..url::Position::AfterQuery]);
        let Some(headers) = sent.headers_mut() else {
            return sent.body(()).map_err(ureq::Error::Http);
        };
        headers.extend(self.0.headers.clone());
        headers.extend(request.open_headers.clone());
        if url.origin() == request.url.origin() {
            headers.extend(request.headers.clone());
        }
        if let Some(range) = request.range {
            let value = HeaderValue::try_from(format!("bytes={range}"))
                .map_err(|error| ureq::Error::Http(error.into()))?;
            headers.insert(header::RANGE, value);
            if let Some(validator) = &request.if_range {
                let value = HeaderValue::from_str(validator.as_str())
                    .map_err(|error| ureq::Error::Http(error.into()))?;
                headers.insert(header::IF_RANGE, value);
            }
        }
        sent.body(()).map_err(ureq::Error::Http)
    }
}

fn agent_config(config: &ClientConfig) -> Result<ureq::config::Config, Error> {
    let builder = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(config.user_agent.as_str())
        // The offsets of an encoded body mean nothing.
        .accept_encoding("identity")
        .timeout_per_read(Some(config.inactivity_timeout))
        .timeout_per_write(Some(config.inactivity_timeout))
        .timeout_connect(Some(config.resolve_timeout + config.connect_timeout))
        .max_response_header_size(config.max_head)
        .input_buffer_size(64 * 1024)
        .output_buffer_size(16 * 1024)
        .max_idle_connections(config.max_idle)
        .max_idle_connections_per_host(config.max_idle_per_origin)
        .max_idle_age(config.max_idle_age);
    if config.extra_roots.is_empty() {
        return Ok(builder.build());
    }
    let mut roots: Vec<Certificate<'static>> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect();
    for pem in &config.extra_roots {
        let root = Certificate::from_pem(pem).map_err(|cause| {
            Error::new(ErrorKind::InvalidConfig, "ClientConfig::extra_roots holds no certificate in PEM")
                .with_cause(cause)
        })?;
        roots.push(root);
    }
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).build();
    Ok(builder.tls_config(tls).build())
}

/// Where an answer redirects to, if it does.
fn redirect(from: &Url, response: &http::Response<Body>) -> Result<Option<Url>, Error> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = text(response.headers(), &header::LOCATION);
    let Some(location) = location else {
        return Err(Error::new(ErrorKind::Redirect, format!("{from} redirects but does not say where to")));
    };
    let to = from.join(location).map_err(|cause| {
        Error::new(ErrorKind::Redirect, format!("{from} redirects to what is no URL: {location:?}"))
            .with_cause(cause)
    })?;
    if !request::is_streamable(&to) {
        let why = format!("{from} redirects to {to}, and only http and https are streamed");
        return Err(Error::new(ErrorKind::UnsupportedScheme, why));
    }
    Ok(Some(to))
}

/// Reads a small body to its end, so that the connection can be used again.
fn drain(response: &mut http::Response<Body>) {
    let is_small = response.body().content_length().is_some_and(|len| len <= SMALL_BODY);
    if is_small {
        // Whether it worked does not matter: a connection that is not drained is closed.
        drop(io::copy(&mut response.body_mut().as_reader().take(SMALL_BODY + 1), &mut io::sink()));
    }
}

/// Holds an answer against what was asked.
fn accept(request: &Request, url: &Url, mut answer: Answer) -> Result<Response, Error> {
    let status = answer.response.status().as_u16();
    let headers = answer.response.headers();
    let content_range = text(headers, &header::CONTENT_RANGE);
    let body_len = text(headers, &header::CONTENT_LENGTH).and_then(|len| len.trim().parse().ok());
    if status == 416 {
        if let Some(ContentRange::Unsatisfied { total: 0 }) = content_range.and_then(ContentRange::parse) {
            return Err(Error::new(ErrorKind::Empty, "the resource has no bytes"));
        }
    }
    if !matches!(status, 200 | 206) {
        let error = refusal(status, headers);
        drain(&mut answer.response);
        return Err(error);
    }
    let encoding =
        text(headers, &header::CONTENT_ENCODING).map(str::trim).filter(|encoding| !encoding.is_empty());
    if let Some(encoding) = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        let why = format!("the body is encoded as {encoding}, although that was not asked for");
        return Err(Error::new(ErrorKind::Encoded, why));
    }
    let (start, body_len, total) = match (status, request.range) {
        (206, None) => {
            let why = "the answer is partial, although the whole was asked for";
            return Err(Error::new(ErrorKind::WrongRange, why));
        }
        (206, Some(asked)) => {
            let (range, total) = check_partial(asked, content_range, body_len)
                .map_err(|why| Error::new(ErrorKind::WrongRange, why))?;
            (range.start, Some(range.len()), total)
        }
        _ => (0, body_len, body_len),
    };
    let Answer { response, exchange, on_cancel } = answer;
    let (parts, body) = response.into_parts();
    let head = Head { status, url: url.to_string(), headers: parts.headers, start, body_len, total };
    let asked = request.url().to_owned();
    Ok(Response::new(head, body.into_reader(), exchange, on_cancel, asked, request.range))
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

/// ureq's error as ours. Those that began as ours come back as they were.
fn describe(error: ureq::Error) -> Error {
    let (kind, what) = match &error {
        ureq::Error::Io(_) => {
            let ureq::Error::Io(io) = error else { unreachable!("just matched") };
            return describe_io(io);
        }
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            (ErrorKind::ConnectTimedOut, "the connection was not there in time")
        }
        ureq::Error::Timeout(_) => (ErrorKind::Silent, "the server fell silent"),
        ureq::Error::HostNotFound => (ErrorKind::HostNotFound, "the host was not found"),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) | ureq::Error::TlsRequired => {
            (ErrorKind::Tls, "the TLS handshake failed")
        }
        ureq::Error::BadUri(_) => (ErrorKind::InvalidUrl, "the URL can't be asked for"),
        ureq::Error::LargeResponseHeader(..) => (ErrorKind::Protocol, "the head of the answer is too large"),
        _ => (ErrorKind::Protocol, "the answer is not valid HTTP"),
    };
    Error::new(kind, what).with_cause(error)
}

fn describe_io(error: io::Error) -> Error {
    let ours = error.get_ref().is_some_and(|inner| inner.is::<Error>());
    if ours {
        return Error::from(error);
    }
    let (kind, what) = match error.kind() {
        // What rustls makes of a certificate or of bytes that are no TLS.
        io::ErrorKind::InvalidData => (ErrorKind::Tls, "TLS failed"),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => (ErrorKind::Silent, "the server fell silent"),
        _ => (ErrorKind::Disconnected, "the connection broke"),
    };
    Error::new(kind, what).with_cause(error)
}

fn describe_for(url: &Url, error: ureq::Error) -> Error {
    let in_handshake = matches!(&error, ureq::Error::Io(io) if io.kind() == io::ErrorKind::UnexpectedEof);
    let error = describe(error);
    if in_handshake && url.scheme() == "https" && error.kind() == ErrorKind::Disconnected {
        // A break after the handshake is reported as ours, with another kind.
        return Error::new(ErrorKind::Tls, "the server hung up during the TLS handshake").with_cause(error);
    }
    error
}

impl Error {
    pub(super) fn from_ureq(error: ureq::Error) -> Self {
        describe(error)
    }
}
