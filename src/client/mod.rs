//! One HTTP exchange: a request, its redirects, a valid response head, an open body. Knows nothing of scheduling.
//!
//! ```text
//!  HttpClient::open ─▶ opener: redirects, remembered targets, stale connections; acceptance: does it answer the request?
//!                        │    failover, alternates: mirrors, fresh URLs
//!                        └▶ hedge: the same request over another connection, after a delay
//!                             └▶ sender: one request over one connection, by ureq (h1)
//!                                  └▶ pool: idle and preconnected connections ─▶ net, proxy, tls: new ones
//!  Response::read_chunk ─▶ body ─▶ h1: ureq, or the socket     silence, rest: hedged requests for a silent body
//! ```
//!
//! Upper parts use lower ones, never the other way round. A [response] whose body ends early returns an error, and a
//! [continuation] decides how the next attempt resumes the body.

mod acceptance;
mod alarm;
mod alternates;
mod body;
mod continuation;
mod exchange;
mod failover;
mod h1;
#[cfg(feature = "http3")]
mod h3;
mod head;
mod header_fields;
mod hedge;
mod hedge_backoff;
mod hedge_budget;
mod hedge_policy;
mod min_rate;
mod net;
mod opener;
mod pool;
mod preconnect;
mod proxy;
mod range;
mod redirect;
pub(crate) mod representation;
mod request;
mod response;
mod rest;
pub(crate) mod retry;
mod sender;
mod setup;
mod silence;
mod silence_watch;
mod stats;
mod tls;
mod urgency;
mod uri_policy;

use std::sync::Arc;
use std::time::Instant;

use self::alarm::AtDeadline;
#[cfg(feature = "http3")]
use self::h3::Http3;
#[cfg(feature = "http3")]
use self::h3::keep_alive::KeepAlive;
use self::opener::Opener;
use self::sender::Sender;
use crate::cancel::CancelToken;
use crate::config::ClientConfig;
use crate::error::Error;

pub(crate) use self::alarm::Alarm;
pub(crate) use self::body::BRIEF;
#[cfg(any(feature = "hls", feature = "queue"))]
pub(crate) use self::net::private::is_private;
pub(crate) use self::preconnect::PreconnectGuard;
pub(crate) use self::response::Response;
pub(crate) use continuation::Continuation;
pub(crate) use hedge_policy::Hedging;
pub(crate) use urgency::Urgency;

#[cfg(feature = "cache")]
pub(crate) use head::StoredHead;
pub use head::{ResponseHead, Validator};
pub(crate) use request::Request;
pub(crate) use rest::Rest;
pub(crate) use stats::ClientStats;
#[cfg(feature = "http3")]
pub use stats::Http3Stats;
#[cfg(any(feature = "hls", feature = "queue"))]
pub(crate) use uri_policy::UriPolicy;

/// Sends requests over a pool of kept-alive connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    opener: Arc<Opener>,
    /// Every request returns an empty body at once, without I/O. For tests and benches of the layers above.
    has_no_network: bool,
}

impl HttpClient {
    /// Starts no thread and opens no connection.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let min_rate = (config.min_rate, config.silence_timeout);
        let opener = Opener::new(setup::sender(config)?, config.max_redirects, min_rate);
        Ok(Self { opener: Arc::new(opener), has_no_network: false })
    }

    /// As [`new`](Self::new), but without a network: every request returns an empty body at once.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn without_network(config: &ClientConfig) -> Result<Self, Error> {
        Ok(Self { has_no_network: true, ..Self::new(config)? })
    }

    fn sender(&self) -> &Sender {
        &self.opener.sender
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let idle = self.sender().pool.idle();
        #[cfg(feature = "http3")]
        let idle = idle + self.sender().http3.as_ref().map_or(0, |http3| http3.idle());
        self.sender().counters.stats(idle)
    }

    /// How the connections over HTTP/3 are used.
    #[cfg(feature = "http3")]
    pub(crate) fn http3_stats(&self) -> Http3Stats {
        self.sender().http3.as_ref().map_or_else(Http3Stats::default, |http3| http3.stats())
    }

    /// Keeps this many connections to the origin of `request` ready until the guard is dropped. `None` without a network.
    pub(crate) fn keep_preconnected(&self, request: &Request, ready: usize) -> Option<PreconnectGuard> {
        if self.has_no_network {
            return None;
        }
        #[cfg(feature = "http3")]
        if let Some(http3) = self.wanted_http3(request) {
            let guard = KeepAlive::new(http3, request.origin());
            if http3.preconnect_beside(request.origin()) {
                return Some(PreconnectGuard::of_quic(guard, ready));
            }
        }
        let guard = self.sender().pool.keep_preconnected(request.origin(), ready);
        Some(PreconnectGuard::of_pool(guard, ready))
    }

    /// True if the origin of `request` is known to serve one connection at a time.
    pub(crate) fn is_single_connection(&self, request: &Request) -> bool {
        !self.has_no_network && self.sender().pool.is_single_connection(request.origin())
    }

    /// Names, in lower case, of the header fields of `request` whose values the application chooses.
    #[cfg(feature = "cache")]
    pub(crate) fn header_names(&self, request: &Request) -> Vec<String> {
        use ureq::http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};

        // These are in every request, and the same ones for as long as the program and the URL do not change.
        let fixed = [HOST, ACCEPT, ACCEPT_ENCODING, USER_AGENT];
        let defaults = self.sender().headers.keys().filter(|name| !fixed.contains(name));
        defaults.map(|name| name.as_str().to_owned()).chain(request.header_names()).collect()
    }

    /// True if `request` may go out with `Authorization`.
    #[cfg(feature = "cache")]
    pub(crate) fn is_authorized(&self, request: &Request) -> bool {
        let Sender { headers, auth, .. } = self.sender();
        request.has_authorization()
            || headers.contains_key(ureq::http::header::AUTHORIZATION)
            || auth.iter().any(|(origin, _)| origin == request.origin())
    }

    /// Preconnects to the origin of `request` in the background until `ready` connections are idle, and again whenever one is
    /// used.
    pub(crate) fn preconnect(&self, request: &Request, ready: usize) {
        if !self.has_no_network && !self.preconnects_quic(request) {
            self.sender().pool.want(request.origin(), ready);
        }
    }

    /// Begins a QUIC connection to the origin of `request` in the background if its requests go over HTTP/3. False if not.
    fn preconnects_quic(&self, request: &Request) -> bool {
        #[cfg(feature = "http3")]
        if let Some(http3) = self.wanted_http3(request) {
            return http3.preconnect_beside(request.origin());
        }
        let _ = request; // For HTTP/3 only.
        false
    }

    /// HTTP/3, if `request` goes over it.
    #[cfg(feature = "http3")]
    fn wanted_http3(&self, request: &Request) -> Option<&Arc<Http3>> {
        self.sender().http3.as_ref().filter(|http3| http3.is_wanted(request.origin()))
    }

    /// Closes all idle connections and forgets the resolved addresses: both may be wrong on the new network.
    pub(crate) fn network_changed(&self) {
        self.sender().lookups.outdate();
        self.sender().pool.change_network();
        #[cfg(feature = "http3")]
        self.sender().http3.iter().for_each(|http3| http3.handle_network_changed());
    }

    /// Blocks until every connection that is being preconnected is ready or has failed.
    #[cfg(feature = "bench")]
    pub(crate) fn await_preconnects(&self) {
        self.sender().pool.await_preconnects();
    }

    /// Closes the idle connections and stops preconnecting. Blocks only until the alarm thread has ended, which it does at
    /// once.
    pub(crate) fn close(&self) {
        self.sender().pool.close();
        #[cfg(feature = "http3")]
        self.sender().http3.iter().for_each(|http3| http3.close());
        self.sender().alarms.close();
    }

    /// Checks again whether requests that were due to be hedged, or wait for a stream, but were not urgent, are urgent now.
    pub(crate) fn recheck_urgency(&self) {
        self.sender().alarms.recheck();
        #[cfg(feature = "http3")]
        self.sender().http3.iter().for_each(|http3| http3.recheck_urgency());
    }

    /// Calls `call` with the time, at `at` and at each time that it returns, and maybe again after the last one, until the
    /// returned alarm is dropped. `call` must not block.
    pub(crate) fn call_at(
        &self,
        at: Instant,
        call: impl Fn(Instant) -> Option<Instant> + Send + Sync + 'static,
    ) -> Alarm {
        self.sender().alarms.set(at, Arc::new(AtDeadline(call)))
    }

    /// Blocks until the threads that [`close`](Self::close) stopped have ended.
    pub(crate) fn await_closed(&self) {
        self.sender().pool.await_closed();
        #[cfg(feature = "http3")]
        self.sender().http3.iter().for_each(|http3| http3.await_closed());
    }

    /// Sends `request` and follows redirects. Blocks until a valid response head arrives, the request fails or is cancelled.
    /// With `hedging`, a request whose connection stays silent for too long is hedged: see [hedge].
    ///
    /// A request with a remembered redirect target goes there first. If the target fails, the request goes to its own URL at
    /// once, since that may redirect elsewhere by now; if that fails too, its error is returned.
    pub(crate) fn open(
        &self,
        request: &Request,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Box<Response>, Error> {
        if self.has_no_network {
            return Ok(Box::new(Response::hollow(request, cancel)));
        }
        self.opener.open(request, cancel, hedging)
    }

    /// From now on, while `body` is silent and its reader waits, requests the rest over a new connection. Call this after the
    /// continuation has begun with this body and the body keeps its token. Does nothing if the body can't be resumed.
    pub(crate) fn hedge_body(&self, body: &mut Response, hedging: &Hedging, request: &Request, rest: Rest) {
        rest::hedge_body(&self.opener, body, hedging, request, rest);
    }
}

#[cfg(all(test, feature = "hls"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpListener};

    use super::*;
    use crate::cancel::CancelReason;
    use crate::error::ErrorKind;

    /// Serves one connection, and any number of requests on it.
    fn serve() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while matches!(socket.read(&mut byte), Ok(1)) {
                head.extend(byte);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    // The test may have hung up.
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            }
        });
        port
    }

    #[test]
    fn a_name_that_resolves_to_a_private_address_is_refused_where_only_public_ones_are_allowed() {
        let port = serve();
        let client = HttpClient::new(&ClientConfig::default()).unwrap();
        client.sender().lookups.preset("intranet.test", &[IpAddr::from([127, 0, 0, 1])]);
        let request = Request::get(&format!("http://intranet.test:{port}/")).unwrap();
        let token = CancelToken::new(CancelReason::Fetch);
        let refused = |request: &Request| client.open(request, &token, None).map(drop).unwrap_err().kind();
        assert_eq!(refused(&request.clone().public_only()), ErrorKind::Forbidden);
        // It is also refused over a connection that an allowed request has opened.
        let mut response = client.open(&request, &token, None).unwrap();
        assert_eq!(response.head().peer(), Some(IpAddr::from([127, 0, 0, 1])));
        let mut body = [0; 8];
        while response.read_chunk(&mut body).unwrap() > 0 {}
        drop(response);
        assert_eq!(client.stats().idle, 1);
        assert_eq!(refused(&request.public_only()), ErrorKind::Forbidden);
        let literal = Request::get(&format!("http://127.0.0.1:{port}/")).unwrap();
        assert_eq!(refused(&literal.public_only()), ErrorKind::Forbidden);
        client.close();
    }

    #[test]
    fn a_redirect_of_a_public_server_leads_to_public_addresses_only() {
        let request = Request::get("http://host/").unwrap().no_descent();
        let from = |address: [u8; 4]| request.redirected_from(Some(IpAddr::from(address)));
        assert!(from([8, 8, 8, 8]).is_public_only());
        assert!(!from([192, 168, 1, 1]).is_public_only());
        assert!(from([8, 8, 8, 8]).redirected_from(Some(IpAddr::from([192, 168, 1, 1]))).is_public_only());
    }
}
