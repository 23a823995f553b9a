//! Bodies that fall silent in mid-flow: while a reader waits, the rest is requested over a new connection beside it, and
//! whichever speaks first goes on.
//!
//! A body on a connection that died without a word (a change of network, a NAT that forgot) would be waited for up to the
//! limit on silence. The thread that reads it is blocked in the read, so an [alarm](super::alarm) looks at how long that has
//! lasted; the request runs on a thread of its own. The head of a response that goes on with the body shuts down the silent
//! connection, which ends the read with an error, and its reader finds what to go on with. If the silent one speaks first,
//! the other is cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::HttpClient;
use super::alarm::{Alarm, Call};
use super::continuation::Continuation;
use super::exchange::{Exchange, Over};
use super::hedge::Hedging;
use super::request::Request;
use super::response::Response;
use crate::cancel::{CancelReason, CancelToken};
use crate::error::Error;

/// New connections beside one that is silent, one after another.
const MAX_HEDGES: u32 = 3;

/// Watches the reads of one body. Its drop ends what it has begun.
pub(super) struct SilenceHedge {
    shared: Arc<Shared>,
    alarm: Alarm,
}

struct Shared {
    client: HttpClient,
    hedging: Hedging,
    /// Asks for what the body brings.
    request: Request,
    rest: Rest,
    /// What cancels the body.
    token: CancelToken,
    exchange: Arc<Exchange>,
    base: Instant,
    /// Since when a read has been waiting, in nanoseconds after `base`; `NOBODY` while none is.
    since: AtomicU64,
    /// Offset in the resource of the byte that it waits for.
    position: AtomicU64,
    /// The alarm found no read waiting: the next read sets it again.
    is_held_back: AtomicBool,
    /// `state` has hedges.
    is_hedged: AtomicBool,
    state: Mutex<State>,
}

/// What can go on with a silent body.
pub(crate) enum Rest {
    /// The bytes that have not come. As it was when the body began.
    Continuation(Continuation),
    /// What is sent now: a live stream of this content type. It does not join.
    Live(Option<String>),
}

/// No read waits.
const NOBODY: u64 = u64::MAX;

#[derive(Default)]
struct State {
    begun: u32,
    /// The silence at which the next one may begin, beyond the first.
    next_at: Duration,
    hedges: Vec<Hedged>,
    /// Nothing is begun any more, and nothing wins.
    is_over: bool,
    winner: Option<(u32, Box<Response>)>,
}

/// The request for the rest, on a thread.
struct Hedged {
    number: u32,
    token: CancelToken,
    thread: JoinHandle<()>,
}

impl SilenceHedge {
    /// `None` for a body that can't be resumed, or is too short.
    pub(super) fn watch(
        client: &HttpClient,
        hedging: &Hedging,
        request: &Request,
        rest: Rest,
        body: &Response,
        exchange: &Arc<Exchange>,
    ) -> Option<Self> {
        if let Rest::Continuation(continuation) = &rest {
            if !body.is_long() || !continuation.can_resume(body.head()) {
                return None;
            }
        }
        let shared = Arc::new(Shared {
            client: client.clone(),
            hedging: hedging.clone(),
            request: request.clone(),
            rest,
            token: body.token()?.clone(),
            exchange: Arc::clone(exchange),
            base: Instant::now(),
            since: AtomicU64::new(NOBODY),
            position: AtomicU64::new(0),
            is_held_back: AtomicBool::new(false),
            is_hedged: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let alarm = client.0.alarms.set(shared.base + hedging.delay, Arc::clone(&shared) as _);
        Some(Self { shared, alarm })
    }

    /// A read begins to wait at `now` for the byte at `position`.
    pub(super) fn begin_wait(&self, position: u64, now: Instant) {
        let shared = &self.shared;
        shared.position.store(position, Ordering::Relaxed);
        let since = now.saturating_duration_since(shared.base).as_nanos();
        // Before the look at `is_held_back`: whoever parks looks here afterwards, so that one of the two sees the other.
        shared.since.store(since as u64, Ordering::SeqCst);
        if shared.is_held_back.load(Ordering::SeqCst) && shared.is_held_back.swap(false, Ordering::SeqCst) {
            self.alarm.set_at(now + shared.hedging.delay);
        }
    }

    /// The read has ended. If it brought bytes, the silence is over.
    pub(super) fn end_wait(&self, has_moved: bool) {
        self.shared.since.store(NOBODY, Ordering::SeqCst);
        if has_moved && self.shared.is_hedged.load(Ordering::Acquire) {
            self.shared.stop(false);
        }
    }

    /// The response to go on with, if it was faster.
    pub(super) fn take_winner(&self) -> Option<Box<Response>> {
        self.shared.stop(true);
        self.shared.state.lock().winner.take().map(|(_, winner)| winner)
    }
}

impl Drop for SilenceHedge {
    fn drop(&mut self) {
        self.shared.stop(true);
        let unused = self.shared.state.lock().winner.take();
        drop(unused);
    }
}

impl Call for Shared {
    fn call(self: Arc<Self>, now: Instant) -> Option<Instant> {
        self.poll(now)
    }
}

impl Shared {
    /// Asks beside the silent connection if it is time. Returns when to look again.
    fn poll(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        if !self.hedging.urgency.is_urgent() {
            // Looked at again when it becomes so; but nobody tells that the buffer of a live stream runs low. It does while
            // a read waits.
            let is_live = matches!(self.rest, Rest::Live(_)) && self.waiting_since().is_some();
            self.is_held_back.store(matches!(self.rest, Rest::Live(_)) && !is_live, Ordering::SeqCst);
            return is_live.then(|| now + self.hedging.delay);
        }
        let Some(since) = self.waiting_since() else {
            self.is_held_back.store(true, Ordering::SeqCst);
            // Looked at once more: a read that began just before has not seen it.
            let since = self.waiting_since()?;
            self.is_held_back.store(false, Ordering::SeqCst);
            return Some(since + self.hedging.delay);
        };
        let mut state = self.state.lock();
        if state.is_over || state.winner.is_some() || state.begun == MAX_HEDGES {
            return None;
        }
        let at = since + state.next_at.max(self.hedging.delay);
        if now < at {
            return Some(at);
        }
        let silence = now.saturating_duration_since(since);
        self.begin(&mut state, since);
        let pause = self.hedging.delay * 2_u32.pow(state.begun);
        state.begun += 1;
        state.next_at = silence + pause;
        Some(now + pause)
    }

    fn waiting_since(&self) -> Option<Instant> {
        let since = self.since.load(Ordering::SeqCst);
        (since != NOBODY).then(|| self.base + Duration::from_nanos(since))
    }

    fn begin(self: &Arc<Self>, state: &mut State, since: Instant) {
        let position = self.position.load(Ordering::Relaxed);
        log::debug!("{} is silent at byte {position}; the rest is requested beside it", self.request.url());
        let token = self.token.child(CancelReason::Fetch);
        let (shared, own, number) = (Arc::clone(self), token.clone(), state.begun);
        let named = thread::Builder::new().name("windway-hedged".into());
        match named.spawn(move || shared.ask(number, position, own, since)) {
            Ok(thread) => {
                state.hedges.push(Hedged { number, token, thread });
                self.is_hedged.store(true, Ordering::Release);
            }
            Err(error) => log::warn!("no thread to hedge with: {error}"),
        }
    }

    /// Asks for what comes from `position` on. Blocks for the limits of a request.
    fn ask(&self, number: u32, position: u64, token: CancelToken, since: Instant) {
        let mut response = match self.open(position, &token) {
            Ok(Some(response)) => response,
            Ok(None) => return,
            Err(error) => return log::debug!("nothing beside the silent connection: {error}"),
        };
        response.keep(token);
        let mut state = self.state.lock();
        if state.is_over || state.winner.is_some() {
            drop(state);
            // Outside the lock: its drop closes a connection.
            return drop(response);
        }
        state.winner = Some((number, response));
        drop(state);
        // Those that lay idle beside the silent one are as dead.
        self.client.0.pool.forget_older(self.request.origin(), since);
        self.exchange.break_off();
    }

    /// `None` if what came can't go on with the body.
    fn open(&self, position: u64, token: &CancelToken) -> Result<Option<Box<Response>>, Error> {
        let mut request = self.request.clone().over(Over::New);
        let continuation = match &self.rest {
            Rest::Continuation(continuation) => continuation.at(position),
            Rest::Live(content_type) => {
                let response = self.client.open(&request, token, None)?;
                // A login page is none of a station's.
                let is_same = response.head().content_type() == content_type.as_deref();
                return Ok(Some(response).filter(|_| is_same));
            }
        };
        let Some(continuation) = continuation else { return Ok(None) };
        let Some(range) = continuation.range() else { return Ok(None) };
        request.set_range(range);
        if let Some(validator) = continuation.if_range() {
            request.set_if_range(validator.clone());
        }
        let response = self.client.open(&request, token, None)?;
        continuation.check(response.head())?;
        // A whole body would bring again all that has come.
        Ok(Some(response).filter(|response| response.head().is_partial()))
    }

    /// Ends what was begun, but for what has won; for good, or until the next silence.
    fn stop(&self, for_good: bool) {
        let mut state = self.state.lock();
        state.is_over |= for_good;
        if state.winner.is_some() && !for_good {
            // The read that comes next ends with an error, and this is what goes on.
            return;
        }
        let is_over = std::mem::replace(&mut state.is_over, true);
        let hedges = std::mem::take(&mut state.hedges);
        let winner = state.winner.as_ref().map(|(number, _)| *number);
        drop(state);
        for Hedged { number, token, thread } in hedges {
            // The winner's token is that of its body.
            if winner != Some(number) {
                token.cancel();
            }
            if thread.join().is_err() {
                log::error!("a hedged request panicked");
            }
        }
        self.is_hedged.store(false, Ordering::Release);
        let mut state = self.state.lock();
        state.is_over = is_over;
        if !is_over {
            (state.begun, state.next_at) = (0, Duration::ZERO);
        }
    }
}
