//! One HTTP exchange: a request, its redirects, a valid response head, an open body. Knows nothing of scheduling.
//!
//! ```text
//!  HttpClient::open ─▶ opener: redirects, remembered targets, stale connections; acceptance: does it answer the request?
//!                        └▶ hedge: the same request over another connection, after a delay
//!                             └▶ sender: one request over one connection, by ureq (h1)
//!                                  └▶ pool: idle and preconnected connections ─▶ net, tls: new ones
//!  Response::read_chunk ─▶ body ─▶ h1: ureq, or the socket     silence, rest: what goes on with a body that falls silent
//! ```
//!
//! Upper parts use lower ones, never the other way round. The [body](response) never ends early without an error, and a [continuation] says how a
//! broken one goes on.

mod acceptance;
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
mod opener;
mod pool;
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

use std::sync::Arc;
use std::time::Instant;

use self::alarm::AtDeadline;
use self::opener::Opener;
use self::sender::Sender;
use crate::cancel::CancelToken;
use crate::config::ClientConfig;
use crate::error::Error;

pub(crate) use self::alarm::Alarm;
pub(crate) use self::body::BRIEF;
pub(crate) use self::pool::PreconnectGuard;
pub(crate) use self::response::Response;
pub(crate) use continuation::Continuation;
pub(crate) use hedge_policy::{Hedging, Urgency};

pub use head::{ResponseHead, Validator};
pub(crate) use request::Request;
pub(crate) use rest::Rest;
pub(crate) use stats::ClientStats;

/// Makes exchanges over connections that are kept alive. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    opener: Arc<Opener>,
    /// Every request is answered at once with nothing, for benches of what is around it.
    has_no_network: bool,
}

impl HttpClient {
    /// Starts no thread and opens nothing.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let min_rate = (config.min_rate, config.silence_timeout);
        let opener = Opener::new(setup::sender(config)?, config.max_redirects, min_rate);
        Ok(Self { opener: Arc::new(opener), has_no_network: false })
    }

    /// As [`new`](Self::new), with nothing behind it: every answer is an empty body, and there at once.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn without_network(config: &ClientConfig) -> Result<Self, Error> {
        Ok(Self { has_no_network: true, ..Self::new(config)? })
    }

    fn sender(&self) -> &Sender {
        &self.opener.sender
    }

    pub(crate) fn stats(&self) -> ClientStats {
        self.sender().counters.stats(self.sender().pool.idle())
    }

    /// Keeps a connection to where `request` goes ready while the result lives.
    pub(crate) fn keep_preconnected(&self, request: &Request) -> Option<PreconnectGuard> {
        (!self.has_no_network).then(|| self.sender().pool.keep_preconnected(request.origin()))
    }

    /// True if where `request` goes is known to answer one connection at a time.
    pub(crate) fn is_single_connection(&self, request: &Request) -> bool {
        self.sender().pool.is_single_connection(request.origin())
    }

    /// Opens connections to where `request` goes until so many are ready, in the background, and again as they are used.
    pub(crate) fn preconnect(&self, request: &Request, ready: usize) {
        if !self.has_no_network {
            self.sender().pool.want(request.origin(), ready);
        }
    }

    /// Lets go of all connections that serve nobody, and of the addresses that were looked up.
    pub(crate) fn network_changed(&self) {
        self.sender().lookups.outdate();
        self.sender().pool.change_network();
    }

    /// Blocks until every connection that is being preconnected is ready or has failed.
    #[cfg(feature = "bench")]
    pub(crate) fn await_preconnects(&self) {
        self.sender().pool.await_preconnects();
    }

    /// Closes what serves nobody, and opens nothing ahead any more. Does not block.
    pub(crate) fn close(&self) {
        self.sender().pool.close();
        self.sender().alarms.close();
    }

    /// Looks again at requests that were not urgent when they could have been hedged.
    pub(crate) fn recheck_urgency(&self) {
        self.sender().alarms.recheck();
    }

    /// Calls `call` at `at`, and may call it again, until the result is dropped. `call` must not block.
    pub(crate) fn call_at(&self, at: Instant, call: impl Fn() + Send + Sync + 'static) -> Alarm {
        self.sender().alarms.set(at, Arc::new(AtDeadline(call)))
    }

    /// Blocks until the threads that `close` ends have ended.
    pub(crate) fn await_closed(&self) {
        self.sender().pool.await_closed();
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
        if self.has_no_network {
            return Ok(Box::new(Response::hollow(request, cancel)));
        }
        self.opener.open(request, cancel, hedging)
    }

    /// Requests the rest of `body` over a new connection beside it while it is silent and its reader waits. To be called once
    /// a continuation has begun with this body, which holds on to its token. Does nothing for a body that can't be resumed.
    pub(crate) fn hedge_body(&self, body: &mut Response, hedging: &Hedging, request: &Request, rest: Rest) {
        rest::hedge_body(&self.opener, body, hedging, request, rest);
    }
}
