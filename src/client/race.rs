//! A second way for a request whose connection may be dead, or not be looked at: after a change of network (sleep, Wi-Fi,
//! a NAT that forgot) a connection that was kept alive swallows what is sent, and says nothing; and a server that answers
//! one connection at a time leaves a new one waiting for as long as another is kept alive.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::exchange::{Exchange, Over};
use super::request::Request;
use super::{Answer, HttpClient, origin_of};
use crate::cancel::{CancelReason, CancelToken};
use crate::error::Error;
use crate::safe_url::HttpUrl;

/// What an attempt came to.
type Attempt = Result<Answer, (Error, Arc<Exchange>)>;

/// The same request over another connection, on a thread of its own, if it comes to that. The first head wins.
pub(super) struct Race {
    client: HttpClient,
    request: Request,
    url: HttpUrl,
    /// Below the request's own.
    cancel: CancelToken,
    rival: Mutex<Option<JoinHandle<Attempt>>>,
}

impl Race {
    pub(super) fn new(
        client: &HttpClient,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            client: client.clone(),
            request: request.clone(),
            url: url.clone(),
            cancel: cancel.child(CancelReason::Fetch),
            rival: Mutex::default(),
        })
    }

    /// Begins it, against the current exchange of this thread. False if there may be something to race with later.
    pub(super) fn begin(self: &Arc<Self>) -> bool {
        let Some(first) = Exchange::current() else { return true };
        // Another new connection would fare no better than this one.
        let is_new = !first.is_reused();
        if self.rival.lock().as_ref().is_some_and(|rival| !rival.is_finished()) {
            return !is_new;
        }
        let origin = origin_of(&self.url);
        let keeper = &self.client.0.keeper;
        if is_new && !origin.as_ref().is_some_and(|origin| keeper.has_proven(origin)) {
            return false;
        }
        log::debug!("{} gives no head; racing it over another connection", self.url);
        let race = Arc::clone(self);
        let named = thread::Builder::new().name("windway-race".into());
        let rival = named.spawn(move || {
            let exchange = Exchange::over(if is_new { Over::Proven } else { Over::New });
            let attempt = race.client.send_once(&race.request, &race.url, &race.cancel, exchange);
            if attempt.is_ok() && first.outrun() && is_new {
                origin.iter().for_each(|origin| race.client.0.keeper.note_unanswered(origin));
            }
            attempt
        });
        match rival {
            Ok(rival) => *self.rival.lock() = Some(rival),
            Err(error) => log::warn!("no thread to race with: {error}"),
        }
        !is_new
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
            // One that found nothing to go over says nothing of the server.
            Err(failure) if first.is_err() && failure.1.over == Over::New => Err(failure),
            _ => first,
        }
    }
}
