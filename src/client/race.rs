//! A second way for a request whose connection may be dead: after a change of network (sleep, Wi-Fi, a NAT that forgot)
//! a connection that was kept alive swallows what is sent, and says nothing.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use url::Url;

use super::exchange::Exchange;
use super::request::Request;
use super::{Answer, HttpClient};
use crate::cancel::{CancelReason, CancelToken};
use crate::error::Error;

/// What an attempt came to.
type Attempt = Result<Answer, (Error, Arc<Exchange>)>;

/// The same request over a new connection, on a thread of its own, if it comes to that. The first head wins.
pub(super) struct Race {
    client: HttpClient,
    request: Request,
    url: Url,
    /// Below the request's own.
    cancel: CancelToken,
    rival: Mutex<Option<JoinHandle<Attempt>>>,
}

impl Race {
    pub(super) fn new(client: &HttpClient, request: &Request, url: &Url, cancel: &CancelToken) -> Arc<Self> {
        Arc::new(Self {
            client: client.clone(),
            request: request.clone(),
            url: url.clone(),
            cancel: cancel.child(CancelReason::Fetch),
            rival: Mutex::default(),
        })
    }

    /// Begins it, against the current exchange of this thread.
    pub(super) fn begin(self: &Arc<Self>) {
        let Some(first) = Exchange::current().filter(|_| self.rival.lock().is_none()) else { return };
        log::debug!("{} gives no head; racing it over a new connection", self.url);
        let race = Arc::clone(self);
        let named = thread::Builder::new().name("windway-race".into());
        let rival = named.spawn(move || {
            let attempt = race.client.send_once(&race.request, &race.url, &race.cancel, Exchange::freshly());
            if attempt.is_ok() {
                first.outrun();
            }
            attempt
        });
        match rival {
            Ok(rival) => *self.rival.lock() = Some(rival),
            Err(error) => log::warn!("no thread to race with: {error}"),
        }
    }

    /// Ends it: the winner's answer, or the failure of both. Blocks until its thread has ended.
    pub(super) fn end(&self, first: Attempt, cancel: &CancelToken) -> Attempt {
        let Some(rival) = self.rival.lock().take() else { return first };
        let has_won = matches!(&first, Ok(answer) if !answer.exchange.was_outrun());
        if has_won {
            self.cancel.cancel();
        }
        let Ok(second) = rival.join() else { return first };
        match second {
            Ok(mut answer) if !has_won => {
                // Its body outlives this race, and is cancelled with the request.
                answer.on_cancel = self.client.abort_on(cancel, &answer.exchange);
                Ok(answer)
            }
            Err(failure) if first.is_err() => Err(failure),
            _ => first,
        }
    }
}
