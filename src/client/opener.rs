//! From a request to a response that answers it: redirects, remembered targets, stale connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptance;
use super::exchange::Over;
use super::failover::{self, HasHead};
use super::head::ResponseHead;
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
    /// Minimum rate of a body in bytes a second, and the window over which it is measured.
    min_rate: (u64, Duration),
}

/// Why redirects led to no response.
struct Unfollowed {
    error: Error,
    /// The target that sent the error, if it is another URL than the first, and the request to it was sent more than once. Many
    /// signed URLs are valid for one request, and the one before may have used this up without an answer.
    repeated: Option<Box<HttpUrl>>,
}

impl From<Error> for Unfollowed {
    fn from(error: Error) -> Self {
        Self { error, repeated: None }
    }
}

impl HasHead for Box<Response> {
    fn head(&self) -> &ResponseHead {
        Response::head(self)
    }
}

impl Opener {
    /// `min_rate`: bytes a second, and the window over which the rate is measured.
    pub(super) fn new(sender: Sender, max_redirects: u32, min_rate: (u64, Duration)) -> Self {
        Self { sender: Arc::new(sender), max_redirects, min_rate }
    }

    /// Sends `request` and follows redirects. Blocks until a valid response head arrives, the request fails or is cancelled.
    /// With `hedging`, a request whose connection stays silent for too long is hedged: see [hedge].
    ///
    /// A request with a remembered redirect target goes there first. If the target fails, the request goes to its own URL at
    /// once, since that may redirect elsewhere by now; if that fails too, its error is returned.
    pub(super) fn open(
        &self,
        request: &Request,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Box<Response>, Error> {
        // A header can't express it: both positions of a range are inclusive (RFC 9110, section 14.1.2).
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

    /// Requests the whole resource, after a response that did not show whether it was the requested range or the whole.
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

    /// `None` if the response does not show whether it is the requested range or the whole resource.
    fn open_as_asked(
        &self,
        request: &Request,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Option<Box<Response>>, Error> {
        match &request.alternates {
            Some(alternates) => failover::open(alternates, request, |request, url| {
                self.open_at(request, url, cancel, hedging)
            }),
            None => self.open_at(request, &request.url, cancel, hedging),
        }
    }

    /// Sends `request` to its remembered target, or else to `url`.
    fn open_at(
        &self,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Option<Box<Response>>, Error> {
        let Some(target) = request.remembered_target().filter(|target| *target != url) else {
            return self.follow(request, url, None, cancel, hedging);
        };
        let (page, error) = match self.follow(request, target, None, cancel, hedging) {
            Err(error) if redirect::is_targets_own(&error) => (None, error),
            // If the signature of the target's URL has expired, many servers send an HTML page with status 200.
            Ok(Some(response)) if representation::is_html(response.head()) => {
                let error = representation::html_page(response.head());
                (Some(response), error)
            }
            result => return result,
        };
        log::debug!("the remembered target on {} failed: {error}", target.origin().host);
        let failed = Some((target, &error));
        match (self.follow(request, url, failed, cancel, hedging), page) {
            // The original URL still redirects to the page, so the page is what it serves.
            (Err(error), Some(page)) if error.kind() == ErrorKind::NotMedia => Ok(Some(page)),
            (result, _) => result,
        }
    }

    /// Follows redirects from `start`. `failed` is a target that has just failed: it is not requested again, and if `start`
    /// still redirects there, its error is returned.
    ///
    /// If a target refuses a request that was sent to it more than once, `start` is requested once more.
    fn follow(
        &self,
        request: &Request,
        start: &HttpUrl,
        failed: Option<(&HttpUrl, &Error)>,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Option<Box<Response>>, Error> {
        let (target, error) = match self.follow_once(request, start, failed, cancel, hedging) {
            Err(Unfollowed { error, repeated: Some(target) }) if redirect::is_targets_own(&error) => {
                (target, error)
            }
            followed => return followed.map_err(|unfollowed| unfollowed.error),
        };
        log::debug!("a repeated request to {target} was refused; requesting the redirect again: {error}");
        let failed = Some((&*target, &error));
        let followed = self.follow_once(request, start, failed, cancel, hedging);
        followed.map_err(|unfollowed| unfollowed.error)
    }

    fn follow_once(
        &self,
        request: &Request,
        start: &HttpUrl,
        failed: Option<(&HttpUrl, &Error)>,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Option<Box<Response>>, Unfollowed> {
        let mut url = start.clone();
        let mut request = request.clone();
        // URLs that were already requested. Stays empty, without an allocation, for most requests.
        let mut visited = Vec::new();
        let mut waited_before = Duration::ZERO;
        loop {
            let mut answer = self.send(&request, &url, cancel, hedging)?;
            waited_before += answer.waited_before;
            let Some(next) = redirect::target(&url, answer.head.status, &answer.head.headers)? else {
                let is_repeated = answer.is_repeated && !visited.is_empty();
                let first = visited.first().unwrap_or(&url);
                let response = self.accept(&request, first, &url, answer).map_err(|error| {
                    let repeated = is_repeated.then(|| Box::new(url));
                    Unfollowed { error, repeated }
                })?;
                return Ok(response.map(|mut response| {
                    response.add_waited_before(waited_before);
                    response
                }));
            };
            request = request.redirected_from(answer.exchange.reached());
            answer.discard_rest();
            request.check_redirect(&url, &next)?;
            if let Some((_, error)) = failed.filter(|(target, _)| **target == next) {
                return Err(error.clone().into());
            }
            // Before the comparison: a URL may redirect to itself.
            visited.push(url);
            self.check_visits(&visited, &next)?;
            url = next;
        }
    }

    /// Fails if `next` closes a loop of the `visited` URLs, or is one redirect too many.
    fn check_visits(&self, visited: &[HttpUrl], next: &HttpUrl) -> Result<(), Error> {
        if visited.contains(next) {
            return Err(Error::new(ErrorKind::Redirect, format!("redirect loop: back to {next}")));
        }
        // The first URL is among them, and was no redirect.
        if visited.len() > self.max_redirects as usize {
            let why = format!("more than {} redirects, the last one to {next}", self.max_redirects);
            return Err(Error::new(ErrorKind::Redirect, why));
        }
        Ok(())
    }

    /// Sends one request and returns its response. Repeats it once over a new connection if the pooled one turns out to be
    /// closed, or to answer an earlier request.
    fn send(
        &self,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        hedging: Option<&Hedging>,
    ) -> Result<Box<Answer>, Error> {
        let began = Instant::now();
        let first = hedge::send(&self.sender, request, url, cancel, hedging, request.over, began);
        let is_stale = match &first {
            Err((error, exchange)) => exchange.was_stale(error),
            // It was sent before the request arrived.
            Ok(answer) => {
                answer.is_on_reused_connection()
                    && acceptance::is_of_other_request(request, answer.head.status, &answer.head.headers)
            }
        };
        if !is_stale {
            return first.map_err(|(error, _)| error);
        }
        let exchange = match &first {
            Ok(answer) => &answer.exchange,
            Err((_, exchange)) => exchange,
        };
        let over = exchange.silent_since().map_or(Over::New, |(bound, ..)| Over::After(bound));
        drop(first);
        // The other idle connections of this origin may be closed as well.
        self.sender.pool.forget(url.origin());
        let waited_before = began.elapsed();
        let again = hedge::send(&self.sender, request, url, cancel, hedging, over, Instant::now());
        let again = again.map_err(|(error, _)| error)?;
        let waited_before = again.waited_before + waited_before;
        Ok(Box::new(Answer { waited_before, is_repeated: true, ..*again }))
    }

    /// Checks a response from `url` against its request, which went to `first` before any redirect. `None` if it does not show
    /// whether it is the requested range or the whole resource.
    fn accept(
        &self,
        request: &Request,
        first: &HttpUrl,
        url: &HttpUrl,
        mut answer: Box<Answer>,
    ) -> Result<Option<Box<Response>>, Error> {
        let (status, version) = (answer.head.status, answer.head.version);
        let accepted = match acceptance::accept(request, status, version, &answer.head.headers) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Ok(None),
            Err(error) => {
                let intercepted = acceptance::intercepted(request, first, url, status, &answer.head.headers);
                // A success may have a long body: its connection is closed instead.
                if !status.is_success() {
                    answer.discard_rest();
                }
                if matches!(status.as_u16(), 429 | 503) {
                    // Returns its own connection to the pool first, so that it is closed with the others.
                    drop(answer);
                    // Some servers serve only a few connections of each client, usually the oldest, and refuse the others: one
                    // of our idle connections may occupy the slot that this request needs.
                    self.sender.pool.record_refused(url.origin());
                }
                return Err(intercepted.unwrap_or(error));
            }
        };
        let Answer { head, mut body, exchange, on_cancel, .. } = *answer;
        let head = accepted.head(request, url, status, head.headers, exchange.reached());
        let (min_rate, window) = self.min_rate;
        let min_rate = MinRateMonitor::new(min_rate, request.held().unwrap_or(window));
        body.set_framing(accepted.framing);
        Ok(Some(Box::new(Response::new(head, body, exchange, on_cancel, min_rate, request))))
    }
}
