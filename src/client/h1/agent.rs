//! Sends a request over HTTP/1, up to the response head.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;
use ureq::http::{Request, response};

use super::body::H1Body;
use super::connector::{Connect, NoAddresses};
use super::error::describe;
use super::head;
use crate::client::exchange::Exchange;
use crate::client::pool::ConnectionPool;
use crate::error::Error;

/// Sends requests by ureq, over connections of the pool.
pub(crate) struct Http1 {
    agent: Agent,
    /// Silence limit of requests without one of their own.
    silence: Duration,
}

impl Http1 {
    /// `silence` is the silence limit that `config` has.
    pub(crate) fn new(config: Config, silence: Duration, pool: &Arc<ConnectionPool>) -> Self {
        Self { agent: Agent::with_parts(config, Connect(Arc::clone(pool)), NoAddresses), silence }
    }

    /// Sends `request` as `exchange`. Blocks until a response head arrives, the request fails or `exchange` is aborted.
    /// `silence` replaces the client's silence limit.
    pub(crate) fn send(
        &self,
        request: Request<()>,
        silence: Option<Duration>,
        exchange: &Arc<Exchange>,
    ) -> Result<(response::Parts, Box<H1Body>), Error> {
        // A held request (a long poll) has a limit of its own: its server keeps it open on purpose, and sends nothing
        // meanwhile.
        let request = match silence {
            Some(silence) => {
                let limits = self.agent.configure_request(request).timeout_per_read(Some(silence));
                limits.timeout_recv_response(Some(head::limit(silence))).build()
            }
            None => request,
        };
        // ureq gives its connector nothing but the URL, so the connector finds the exchange by the thread that runs this.
        let silence = silence.unwrap_or(self.silence);
        let sent = exchange.enter(|| self.agent.run(request));
        let (head, body) = sent.map_err(|error| describe(error, silence))?.into_parts();
        Ok((head, H1Body::new(body.into_reader(), exchange, silence)))
    }
}
