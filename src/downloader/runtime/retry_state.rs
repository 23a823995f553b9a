//! The request of a fetch, and the state needed to retry it until its whole body has arrived.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use super::one_shot::OneShot;
use crate::cancel::CancelToken;
use crate::client::retry::{self, Absence, Backoff};
use crate::client::{self, Continuation, Hedging, HttpClient, Request, ResponseHead, Rest, Urgency};
use crate::downloader::rules::{OnRetry, OtherTags, Rules, Validate};
use crate::error::{Error, ErrorKind};

/// A body that has delivered this many bytes since the last one fell silent counts as flowing again. A connection brings them
/// within a few round trips. As many reset the retries.
const FLOWED: u64 = 64 * 1024;

/// Minimum delay of a hedged request. A server whose usual TTFB is not known yet may need this long for a response head, for
/// example to wake a disk. See [`hedge_delay`].
const SHORTEST_HEDGE_DELAY: Duration = Duration::from_secs(1);

/// What a fetch requests, over all its attempts, and the client that sends it. Needs nothing else of the downloader, so an open
/// body can be continued on any thread that reads it.
pub(crate) struct RetryState {
    client: HttpClient,
    request: Request,
    validate: Option<Validate>,
    max_retries: u32,
    /// See [`Fetch::max_retry_delay`](crate::Fetch::max_retry_delay).
    max_retry_delay: Option<Duration>,
    /// The fetch has no range. So a server that refuses the rest of a broken body may still send the whole again.
    asks_for_whole: bool,
    backoff: Backoff,
    /// True if the last attempt delivered a byte.
    flowed: bool,
    /// Position of the next byte, and the end that the body has to reach.
    continuation: Continuation,
    /// Number of bodies in a row that fell silent and were replaced by a hedged one, and the position of the last replacement.
    /// Each doubles the delay of the next hedge: a server that only pauses must not get one request after another.
    silent: (u32, u64),
    /// Of a live stream: whether its reader is about to run out of bytes.
    redial: Option<Arc<dyn Urgency>>,
    /// See [`Fetch::fail_fast`](crate::Fetch::fail_fast).
    wait_limit: Option<Duration>,
    /// See [`Fetch::was_available`](crate::Fetch::was_available).
    was_available: bool,
    /// See [`Fetch::dials_often`](crate::Fetch::dials_often).
    dials_often: bool,
    absence: Absence,
    /// See [`Fetch::on_retry`](crate::Fetch::on_retry).
    on_retry: Option<OnRetry>,
}

impl RetryState {
    /// `max_retries` counts unless the rules have their own number.
    pub(crate) fn new(client: HttpClient, request: Request, rules: Rules, max_retries: u32) -> Self {
        let Rules {
            validate,
            max_retries: own,
            max_retry_delay,
            other_tags,
            omits_if_range,
            redial,
            wait_limit,
            was_available,
            in_outage,
            dials_often,
            on_retry,
            measured: _,
        } = rules;
        let mut continuation = Continuation::new(request.byte_range());
        if other_tags != OtherTags::Change {
            continuation.tolerate_other_tags();
        }
        if omits_if_range {
            continuation.omit_if_range();
        }
        Self {
            client,
            asks_for_whole: request.byte_range().is_none(),
            continuation,
            request,
            validate,
            max_retries: own.unwrap_or(max_retries),
            max_retry_delay,
            backoff: if in_outage { Backoff::in_outage() } else { Backoff::default() },
            flowed: false,
            silent: (0, 0),
            redial,
            wait_limit,
            was_available,
            dials_often,
            absence: Absence::default(),
            on_retry,
        }
    }

    /// True if it holds a user's closure, whose drop is a call of the user's code.
    pub(crate) fn is_foreign(&self) -> bool {
        self.validate.is_some()
    }

    fn is_held(&self) -> bool {
        self.request.held().is_some()
    }

    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// Requests the bytes that have not arrived. Blocks until a response head arrives that continues them.
    pub(crate) fn open(
        &mut self,
        token: &CancelToken,
        control: &Arc<Control>,
    ) -> Result<Box<client::Response>, Error> {
        self.flowed = false;
        if let Some(range) = self.continuation.range() {
            self.request.set_range(range);
            self.request.forget_conditions();
            // RFC 9110, 13.1.5: if the resource has changed, the server sends the whole of it, with status 200.
            if let Some(validator) = self.continuation.if_range() {
                self.request.set_if_range(validator.clone());
            }
        }
        let hedging = Hedging { delay: hedge_delay(control), urgency: Arc::clone(control) as _ };
        // The server of a long poll is silent on purpose.
        let hedging = Some(&hedging).filter(|_| !self.is_held());
        let opened = self.client.open(&self.request, token, hedging);
        let body = match opened {
            Err(error) if self.is_refused_rest(&error) => {
                self.request.set_whole();
                self.client.open(&self.request, token, hedging)?
            }
            opened => opened?,
        };
        self.accept(body.head())?;
        Ok(body)
    }

    /// Requests the rest of `body` beside it when it falls silent while a reader waits.
    pub(crate) fn hedge(&self, body: &mut client::Response, control: &Arc<Control>) {
        if self.is_held() || (self.redial.is_none() && !body.is_long()) {
            return;
        }
        // At most 32 times: about the silence limit, after which the body fails anyway.
        let delay = hedge_delay(control) * 2_u32.pow(self.silent.0.min(5));
        let (urgency, rest) = match &self.redial {
            Some(urgency) => (Arc::clone(urgency), Rest::Live(body.head().content_type().map(str::to_owned))),
            None => {
                let mut continuation = self.continuation.clone();
                // Only the sink may accept another entity tag, and it can't be called while the silent body may still go on.
                continuation.refuse_other_tags();
                (Arc::clone(control) as _, Rest::Continuation(continuation))
            }
        };
        self.client.hedge_body(body, &Hedging { delay, urgency }, &self.request, rest);
    }

    /// Continues with the hedged body, which was faster than the silent one before it.
    pub(crate) fn go_on(&mut self, body: &mut client::Response, control: &Arc<Control>) -> Result<(), Error> {
        self.accept(body.head())?;
        let offset = self.continuation.offset().unwrap_or_default();
        let (count, last) = self.silent;
        let has_flowed = offset.saturating_sub(last) >= FLOWED;
        self.silent = (if has_flowed { 1 } else { count + 1 }, offset);
        self.continuation.begin(body.head());
        self.hedge(body, control);
        Ok(())
    }

    /// Continues with another connection of a live stream. Its bytes do not follow those of the connection before it.
    pub(crate) fn go_live(&mut self, body: &mut client::Response, control: &Arc<Control>) {
        let come = self.continuation.offset().unwrap_or_default();
        let count = self.silent.0;
        self.silent = (if come >= FLOWED { 1 } else { count + 1 }, 0);
        // A new one: the bytes of the new connection begin anywhere in the audio, so there is nothing to compare.
        self.continuation = Continuation::new(None);
        self.continuation.begin(body.head());
        self.hedge(body, control);
    }

    /// True if the server refuses the rest of a broken body. Some servers refuse every range, and answer the same request without
    /// one. They send all bytes again then; the last 64 of those that had arrived are compared.
    fn is_refused_rest(&self, error: &Error) -> bool {
        // RFC 9110, 14.2 lets a server ignore `Range`, and 15.5.17 lets it refuse one. Some refuse by 400, 403 or 404.
        let is_refusal = matches!(error.status(), Some(400..=499)) && !error.is_retryable();
        is_refusal && self.asks_for_whole && self.continuation.offset().is_some()
    }

    /// Fails if the body behind `head` is of another resource, of another range, or refused by the caller.
    fn accept(&mut self, head: &ResponseHead) -> Result<(), Error> {
        self.continuation.check(head)?;
        self.request.check_range(head)?;
        if let Some(validate) = &self.validate {
            validate.call_shared("validate", |validate| validate(head))??;
        }
        Ok(())
    }

    /// The body behind `head` was accepted: later attempts continue it. Not to be called for a refused one.
    pub(crate) fn begin(&mut self, head: &ResponseHead) {
        // After a refused head the next attempt would request the rest of what the caller refused.
        self.continuation.begin(head);
        self.request.adopt_target(head.url());
    }

    /// Position of the next byte that has not arrived. `None` until a body was accepted.
    pub(crate) fn offset(&self) -> Option<u64> {
        self.continuation.offset()
    }

    /// True if all bytes have arrived that the first response announced. The body that is read now may have more.
    pub(crate) fn is_complete(&self) -> bool {
        self.continuation.is_complete()
    }

    /// True if the server has sent a part that ends before the requested range does.
    pub(crate) fn is_short_part(&self) -> bool {
        self.continuation.is_short_part()
    }

    /// True if the body may have ended with the requested range, although its response announced the whole resource.
    pub(crate) fn is_doubtful_end(&self) -> bool {
        self.continuation.is_doubtful_end()
    }

    /// A body has ended at the position `at`. Fails if bytes are missing that the first response announced.
    pub(crate) fn check_end(&self, at: u64) -> Result<(), Error> {
        self.continuation.check_end(at).map_err(|error| error.with_url(self.request.url()))
    }

    /// Takes `bytes`, which arrived by `now` from the position `at` on. Returns the new ones among them, and their position.
    pub(crate) fn take<'a>(
        &mut self,
        at: u64,
        bytes: &'a [u8],
        now: Instant,
    ) -> Result<(u64, &'a [u8]), Error> {
        let offset = self.continuation.offset().unwrap_or(at);
        let new = self.continuation.take(at, bytes).map_err(|error| error.with_url(self.request.url()))?;
        if !new.is_empty() {
            self.backoff.handle_bytes(new.len() as u64, now);
            self.flowed = true;
            self.absence.handle_bytes();
        }
        Ok((offset, new))
    }

    /// How long to wait before the next attempt, or `None` if `error` ends the fetch: the only place where that is decided.
    /// `token` is the fetch's. `waits_for_room` means that other bodies may be closed meanwhile, which helps if too many are open.
    pub(crate) fn plan_retry(
        &mut self,
        error: &Error,
        token: &CancelToken,
        waits_for_room: bool,
    ) -> Option<Duration> {
        let lacks_room = error.kind() == ErrorKind::TooManyOpenBodies && waits_for_room;
        let absent = self.handle_absence(error, Instant::now());
        let may_pass = error.is_retryable() || lacks_room || absent.is_some();
        if token.is_cancelled() || !may_pass || self.fails_fast(error) {
            return None;
        }
        // The target of a redirect that sends response heads but no bodies, or that fell silent, may be a broken node of a CDN.
        // The original URL may lead to another one.
        if !self.flowed || error.kind() == ErrorKind::Silent {
            self.request.forget_target();
        }
        let after = self.backoff.handle_failure(error, self.max_retries, retry::random())?;
        if let Some(on_retry) = &self.on_retry {
            on_retry(error);
        }
        // RFC 9110, section 10.2.3: a `Retry-After` is honoured, also if a listener waits.
        let limits =
            [self.max_retry_delay, absent].into_iter().flatten().filter(|_| error.retry_after().is_none());
        Some(limits.fold(after, Duration::min))
    }

    /// Records a failure at `now`. Returns the longest delay, if the resource or its server is likely to come back.
    fn handle_absence(&mut self, error: &Error, now: Instant) -> Option<Duration> {
        // As for a radio: a network that wants a login answers with its page, or with a redirect to it, which the rules of a list may
        // forbid.
        let is_page = matches!(error.kind(), ErrorKind::NotMedia | ErrorKind::Forbidden);
        // RFC 9110, sections 15.6.3 to 15.6.5: a server that is being restarted, or a proxy whose server is away.
        let is_down = matches!(error.status(), Some(502..=504));
        let is_mute = matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Silent) && !self.flowed;
        let is_absent = if error.is_unreachable() {
            self.was_available || self.dials_often
        } else {
            self.was_available && (is_page || is_down || is_mute)
        };
        let lasted = is_absent.then(|| self.absence.handle_failure(now))?;
        let is_brief = self.was_available && lasted < Absence::BRIEF;
        (is_brief || error.is_retryable()).then(|| Absence::max_delay(lasted))
    }

    /// True if the caller prefers the error to a wait.
    fn fails_fast(&self, error: &Error) -> bool {
        // Once a body has begun, the caller has its response, and waits for the rest as for that of any other.
        let Some(wait_limit) = self.wait_limit.filter(|_| self.continuation.offset().is_none()) else {
            return false;
        };
        error.is_unreachable() || error.retry_after().is_some_and(|asked| asked > wait_limit)
    }

    /// Its body is a live stream, which can't be continued: see [`Fetch::redial`](crate::Fetch::redial).
    pub(crate) fn make_live(&mut self, urgency: Arc<dyn Urgency>) {
        self.max_retries = 0;
        self.redial = Some(urgency);
    }

    /// Fails with the first transient error: the owner of the detached body retries by itself.
    pub(crate) fn without_retries(mut self) -> Self {
        // The sink that could have accepted another entity tag is consumed.
        self.continuation.refuse_other_tags();
        Self { max_retries: 0, ..self }
    }
}

/// Delay after which a request without a response head is hedged: four times the usual TTFB.
fn hedge_delay(control: &Control) -> Duration {
    let [_, all] = &control.all_stats;
    let ttfb = all.ttfb().unwrap_or_default();
    // A shorter delay would send many requests twice whose answers are only a little late.
    SHORTEST_HEDGE_DELAY.max(4 * ttfb)
}

/// Blocks until `after` has passed or `token` is cancelled.
pub(crate) fn pause(token: &CancelToken, after: Duration) {
    let cancelled = Arc::new(OneShot::default());
    let _on_cancel = token.wake_on_cancel({
        let cancelled = Arc::clone(&cancelled);
        move || cancelled.put(())
    });
    cancelled.take_until(Some(Instant::now() + after));
}
