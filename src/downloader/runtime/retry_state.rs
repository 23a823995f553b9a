//! The request of a fetch, and the state needed to retry it until its whole body has arrived.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use super::one_shot::OneShot;
use crate::cancel::CancelToken;
use crate::client::retry::{self, Backoff};
use crate::client::{self, Continuation, Hedging, HttpClient, Request, ResponseHead, Rest, Urgency};
use crate::downloader::rules::{OtherTags, Rules, Validate};
use crate::error::{Error, ErrorKind};

/// A body that has delivered this many bytes was not silent all the time.
const FLOWED: u64 = 64 * 1024;

/// See [`hedge_delay`].
const SHORTEST_HEDGE_DELAY: Duration = Duration::from_secs(1);

/// What a fetch requests, over all its attempts, and the client that sends it. Needs nothing else of the downloader: so an open
/// body goes on by itself wherever it is read.
pub(crate) struct RetryState {
    client: HttpClient,
    request: Request,
    validate: Option<Validate>,
    max_retries: u32,
    /// No range was asked for: if the rest is refused, the whole may not be.
    asks_for_whole: bool,
    backoff: Backoff,
    /// True if the last attempt delivered a byte.
    flowed: bool,
    /// How far it has come, and what it has to come to.
    continuation: Continuation,
    /// Silent bodies in a row that another one went on with, and where the last one did. Each next one is given twice the
    /// time: a server that pauses is not asked again and again.
    silent: (u32, u64),
    /// Of a live stream: whether its reader runs out of it.
    redial: Option<Arc<dyn Urgency>>,
    /// See [`Fetch::fail_fast`](crate::Fetch::fail_fast).
    patience: Option<Duration>,
}

impl RetryState {
    /// `max_retries` counts unless the rules have their own number.
    pub(crate) fn new(client: HttpClient, request: Request, rules: Rules, max_retries: u32) -> Self {
        let Rules { validate, max_retries: own, other_tags, omits_if_range, redial, patience, measured: _ } =
            rules;
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
            backoff: Backoff::default(),
            flowed: false,
            silent: (0, 0),
            redial,
            patience,
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

    /// Asks for what has not come yet. Blocks until a head is there that goes on with what came.
    pub(crate) fn open(
        &mut self,
        token: &CancelToken,
        control: &Arc<Control>,
    ) -> Result<Box<client::Response>, Error> {
        self.flowed = false;
        if let Some(range) = self.continuation.range() {
            self.request.set_range(range);
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
        let delay = hedge_delay(control) * 2_u32.pow(self.silent.0.min(5));
        let (urgency, rest) = match &self.redial {
            Some(urgency) => (Arc::clone(urgency), Rest::Live(body.head().content_type().map(str::to_owned))),
            None => {
                let mut continuation = self.continuation.clone();
                // Where the tags of a pool's members are judged, the silent body is not given up for such a one.
                continuation.refuse_other_tags();
                (Arc::clone(control) as _, Rest::Continuation(continuation))
            }
        };
        self.client.hedge_body(body, &Hedging { delay, urgency }, &self.request, rest);
    }

    /// Goes on with the body that was faster than the silent one before it.
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

    /// Goes on with another connection of a live stream, which does not join.
    pub(crate) fn go_live(&mut self, body: &mut client::Response, control: &Arc<Control>) {
        let come = self.continuation.offset().unwrap_or_default();
        let count = self.silent.0;
        self.silent = (if come >= FLOWED { 1 } else { count + 1 }, 0);
        self.continuation = Continuation::new(None);
        self.continuation.begin(body.head());
        self.hedge(body, control);
    }

    /// True if the server refuses the rest of a body that broke: some refuse every range, and serve those that ask for none.
    /// What has come already comes once more then, and is compared as far as it is remembered.
    fn is_refused_rest(&self, error: &Error) -> bool {
        let is_refusal = matches!(error.status(), Some(400..=499)) && !error.is_retryable();
        is_refusal && self.asks_for_whole && self.continuation.offset().is_some()
    }

    /// Looks at a head before its body is read: is it still the same resource, does the asker want it?
    fn accept(&mut self, head: &ResponseHead) -> Result<(), Error> {
        self.continuation.check(head)?;
        self.request.check_range(head)?;
        if let Some(validate) = &self.validate {
            validate.call_shared("validate", |validate| validate(head))??;
        }
        Ok(())
    }

    /// Notes that the body behind `head` is taken: it is what later attempts go on with. A head that was refused is not, or
    /// the next attempt would request what no caller wanted.
    pub(crate) fn begin(&mut self, head: &ResponseHead) {
        self.continuation.begin(head);
        self.request.adopt_target(head.url());
    }

    /// Offset of the next new byte, once a body was taken.
    pub(crate) fn offset(&self) -> Option<u64> {
        self.continuation.offset()
    }

    /// True if all bytes have come that the first response promised, whatever the body that is read now has left.
    pub(crate) fn is_complete(&self) -> bool {
        self.continuation.is_complete()
    }

    /// True if the end that the body has come to may be the end of the range that was asked for, and not of the whole that it
    /// called itself.
    pub(crate) fn is_doubtful_end(&self) -> bool {
        self.continuation.is_doubtful_end()
    }

    /// Notes that a body has ended, at `at`. Fails if not all has come that was promised.
    pub(crate) fn check_end(&self, at: u64) -> Result<(), Error> {
        self.continuation.check_end(at).map_err(|error| error.with_url(self.request.url()))
    }

    /// Takes bytes that came from `at` on. Returns the new ones among them, and where they lie.
    pub(crate) fn take<'a>(&mut self, at: u64, bytes: &'a [u8]) -> Result<(u64, &'a [u8]), Error> {
        let offset = self.continuation.offset().unwrap_or(at);
        let new = self.continuation.take(at, bytes).map_err(|error| error.with_url(self.request.url()))?;
        if !new.is_empty() {
            self.backoff.handle_bytes(new.len() as u64, Instant::now());
            self.flowed = true;
        }
        Ok((offset, new))
    }

    /// How long to wait before the next attempt, or `None` if `error` ends the fetch: the only place where that is decided.
    /// `token` is the fetch's. `waits_for_room` says that other bodies may be closed meanwhile, which helps if too many are open.
    pub(crate) fn plan_retry(
        &mut self,
        error: &Error,
        token: &CancelToken,
        waits_for_room: bool,
    ) -> Option<Duration> {
        let lacks_room = error.kind() == ErrorKind::TooManyOpenBodies && waits_for_room;
        if token.is_cancelled() || !(error.is_retryable() || lacks_room) || self.fails_fast(error) {
            return None;
        }
        // A node that gives heads, but no bytes behind them, is as dead as one that gives none; and one that fell silent
        // would cost a whole silence limit more.
        if !self.flowed || error.kind() == ErrorKind::Silent {
            self.request.forget_target();
        }
        self.backoff.handle_failure(error, self.max_retries, retry::random())
    }

    /// True if the caller would rather have the error than wait.
    fn fails_fast(&self, error: &Error) -> bool {
        let Some(patience) = self.patience.filter(|_| self.continuation.offset().is_none()) else {
            return false;
        };
        error.is_unreachable() || error.retry_after().is_some_and(|asked| asked > patience)
    }

    /// Its body is a live stream, which can't be continued: see [`Fetch::redial`](crate::Fetch::redial).
    pub(crate) fn make_live(&mut self, urgency: Arc<dyn Urgency>) {
        self.max_retries = 0;
        self.redial = Some(urgency);
    }

    /// Fails with the first error that may pass: the reader of the body retries by itself.
    pub(crate) fn without_retries(mut self) -> Self {
        // The sink has gone that could have judged.
        self.continuation.refuse_other_tags();
        Self { max_retries: 0, ..self }
    }
}

/// How long a request waits for its head before it is hedged. Four times the usual: of the requests that would have been
/// answered, few are sent twice.
fn hedge_delay(control: &Control) -> Duration {
    let [_, all] = &control.all_stats;
    let ttfb = all.ttfb().unwrap_or_default();
    SHORTEST_HEDGE_DELAY.max(4 * ttfb)
}

/// Blocks until `after` has passed or `token` is cancelled.
pub(crate) fn pause(token: &CancelToken, after: Duration) {
    let cancelled = Arc::new(OneShot::default());
    let _on_cancel = token.on_cancel({
        let cancelled = Arc::clone(&cancelled);
        move |_| cancelled.put(())
    });
    cancelled.take_until(Some(Instant::now() + after));
}
