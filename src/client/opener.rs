//! From a request to a response that answers it: redirects, remembered targets, stale connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::StatusCode;

use super::acceptance;
use super::body::Body;
use super::exchange::Over;
use super::h1::body::H1Body;
use super::hedge;
use super::hedge_policy::Hedging;
use super::min_rate::MinRateMonitor;
use super::request::Request;
use super::response::Response;
use super::sender::{Answer, Sender};
use super::{redirect, representation};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind};
use crate::safe_url::HttpUrl;
use crate::types::ByteRange;

/// Opens responses.
#[derive(Debug)]
pub(super) struct Opener {
    pub(super) sender: Arc<Sender>,
    max_redirects: u32,
    /// What makes a body a trickle: bytes a second, over a while.
    min_rate: (u64, Duration),
}

impl Opener {
    /// `min_rate` is in bytes a second, over a while.
    pub(super) fn new(sender: Sender, max_redirects: u32, min_rate: (u64, Duration)) -> Self {
        Self { sender: Arc::new(sender), max_redirects, min_rate }
    }

    /// Sends `request` and follows where it leads. Blocks until a valid head is there, an error, or a cancel. With
    /// `hedging`, a connection that gives no head for too long is not waited for alone: see [hedge].
    ///
    /// A request with a remembered target goes there first, and at once to its own URL if the target does not serve it:
    /// that URL may lead to another target by now. The error is that of the request's own URL then.
    pub(super) fn open(
        &self,
        request: &Request,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Box<Response>, Error> {
        if let Some(range) = request.range.filter(ByteRange::is_empty) {
            let why = format!("the range from {} to {} is empty", range.start, range.end);
            return Err(Error::new(ErrorKind::InvalidInput, why).with_url(request.url()));
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
        log::debug!("a 200 may be the requested range; requesting the whole resource instead");
        let mut whole = request.clone();
        whole.set_whole();
        let response = self.open_as_asked(&whole, cancel, hedging)?;
        response.ok_or_else(|| {
            Error::new(
                ErrorKind::Protocol,
                "the response is neither the requested range nor the whole resource",
            )
        })
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
            Err(error) if redirect::is_targets_own(&error) => (None, error),
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
            let Some(next) = redirect::target(&url, answer.response.status(), answer.response.headers())?
            else {
                let response = self.accept(request, &url, answer)?;
                return Ok(response.map(|mut response| {
                    response.add_lost(lost);
                    response
                }));
            };
            answer.drain();
            if let Some((_, error)) = failed.filter(|(target, _)| **target == next) {
                return Err(error.clone());
            }
            visited.push(url);
            if visited.contains(&next) {
                return Err(Error::new(ErrorKind::Redirect, format!("redirect loop: back to {next}")));
            }
            if visited.len() > self.max_redirects as usize {
                let why = format!("more than {} redirects, the last one to {next}", self.max_redirects);
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
        let first = hedge::send(&self.sender, request, url, cancel, hedging, request.over);
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
        self.sender.pool.forget(url.origin());
        let lost = began.elapsed();
        let again = hedge::send(&self.sender, request, url, cancel, hedging, Over::New);
        again.map(|answer| Answer { lost: answer.lost + lost, ..answer }).map_err(|(error, _)| error)
    }

    /// Holds an answer against what was asked. `None` if it does not tell whether it is the range or the whole.
    fn accept(
        &self,
        request: &Request,
        url: &HttpUrl,
        mut answer: Answer,
    ) -> Result<Option<Box<Response>>, Error> {
        let (status, version) = (answer.response.status(), answer.response.version());
        let accepted = match acceptance::accept(request, status, version, answer.response.headers()) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Ok(None),
            Err(error) => {
                if !status.is_success() {
                    answer.drain();
                }
                if matches!(status.as_u16(), 429 | 503) {
                    // Its own connection is idle by then, and goes with the others.
                    drop(answer);
                    // Some servers serve a few connections of a client, the oldest mostly, and refuse the others: one of
                    // ours that is idle may hold the place of the one that asks.
                    self.sender.pool.note_refused(url.origin());
                }
                return Err(error);
            }
        };
        let Answer { response, exchange, on_cancel, .. } = answer;
        let (parts, body) = response.into_parts();
        let head = accepted.head(request, url, status, parts.headers);
        let (min_rate, window) = self.min_rate;
        let min_rate = MinRateMonitor::new(min_rate, request.held().unwrap_or(window));
        let body = Body::Http1(H1Body::new(body.into_reader(), &exchange, accepted.framing));
        Ok(Some(Box::new(Response::new(head, body, exchange, on_cancel, min_rate, request))))
    }
}
