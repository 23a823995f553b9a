//! Bodies that fall silent in mid-flow: while a reader waits, the rest is requested over a new connection beside it, and
//! whichever speaks first goes on.
//!
//! A body on a connection that died without a word (a change of network, a NAT that forgot) would be waited for up to the
//! limit on silence. So the first part of each wait ends after a delay, which costs nothing while the body flows. From then
//! on the thread that reads is blocked for the rest of the wait, and an [alarm](super::alarm) decides; the request runs on a
//! thread of its own. The head of a response that goes on with the body shuts down the silent connection, which ends the
//! read with an error, and its reader finds what to go on with. If the silent one speaks first, the other is cancelled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::alarm::{Alarm, Alarms, Call};
use super::exchange::Exchange;
use super::hedge_policy::{Hedging, Urgency};
use super::silence_watch::{OnSilence, SilenceWatch};
use crate::cancel::{CancelReason, CancelToken};
use crate::error::Error;

/// New connections beside one that is silent, one after another. Each waits twice as long for the one before, so the last one
/// begins after seven delays, which is about the limit on silence.
const MAX_HEDGES: u32 = 3;

/// Watches the reads of one body, which goes on with an `R`. Its drop ends what it has begun.
pub(super) struct SilenceHedge<R: Send + 'static>(Arc<Shared<R>>);

/// See [`Successor::open`].
type Open<R> = dyn Fn(u64, &CancelToken) -> Result<Option<R>, Error> + Send + Sync;

/// What goes on with a silent body, and how.
pub(super) struct Successor<R> {
    /// Requests what comes from a position on, under a token. `None` if what came can't go on with the body. Blocks for the
    /// limits of a request.
    pub(super) open: Box<Open<R>>,
    /// Called with the beginning of the silence when an opened one goes on with the body.
    pub(super) handle_win: Box<dyn Fn(Instant) + Send + Sync>,
    /// A live stream: its reader becomes urgent without a word when its buffer runs low.
    pub(super) is_live: bool,
}

struct Shared<R> {
    alarms: Arc<Alarms>,
    delay: Duration,
    urgency: Arc<dyn Urgency>,
    successor: Successor<R>,
    /// What cancels the body.
    token: CancelToken,
    exchange: Arc<Exchange>,
    /// Offset in the resource of the byte that is waited for.
    position: AtomicU64,
    /// The wait that goes on, or the one before it, has lasted for the delay.
    was_silent: AtomicBool,
    state: Mutex<State<R>>,
}

struct State<R> {
    /// Since when a read has been waiting, if that is longer than the delay.
    since: Option<Instant>,
    /// Set during a silence.
    alarm: Option<Alarm>,
    begun: u32,
    /// The silence at which the next one may begin, beyond the first.
    next_at: Duration,
    hedges: Vec<Hedged>,
    /// Nothing is begun any more, and nothing wins.
    is_over: bool,
    winner: Option<(u32, R)>,
}

/// The request for the rest, on a thread.
struct Hedged {
    number: u32,
    token: CancelToken,
    thread: JoinHandle<()>,
}

impl<R: Send + 'static> SilenceHedge<R> {
    /// Watches the body behind `exchange`, which `token` cancels.
    pub(super) fn watch(
        alarms: &Arc<Alarms>,
        hedging: &Hedging,
        successor: Successor<R>,
        token: CancelToken,
        exchange: &Arc<Exchange>,
    ) -> Self {
        let state = State {
            since: None,
            alarm: None,
            begun: 0,
            next_at: Duration::ZERO,
            hedges: Vec::new(),
            is_over: false,
            winner: None,
        };
        let shared = Arc::new(Shared {
            alarms: Arc::clone(alarms),
            delay: hedging.delay,
            urgency: Arc::clone(&hedging.urgency),
            successor,
            token,
            exchange: Arc::clone(exchange),
            position: AtomicU64::new(0),
            was_silent: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        // Weak, for the watch is part of the exchange.
        let then = Arc::downgrade(&shared) as Weak<dyn OnSilence>;
        exchange.watch(SilenceWatch { after: hedging.delay, then });
        Self(shared)
    }

    /// A read begins to wait for the byte at `position`.
    pub(super) fn begin_wait(&self, position: u64) {
        self.0.position.store(position, Ordering::Relaxed);
    }

    /// The read has ended. If it brought bytes, the silence is over.
    pub(super) fn end_wait(&self, has_moved: bool) {
        // Set by this very thread, in the read.
        if has_moved && self.0.was_silent.swap(false, Ordering::Relaxed) {
            self.0.stop(false);
        }
    }

    /// What to go on with, if it was faster.
    pub(super) fn take_winner(&self) -> Option<R> {
        self.0.stop(true);
        self.0.state.lock().winner.take().map(|(_, winner)| winner)
    }
}

impl<R: Send + 'static> Drop for SilenceHedge<R> {
    fn drop(&mut self) {
        self.0.stop(true);
        let unused = self.0.state.lock().winner.take();
        drop(unused);
    }
}

impl<R: Send + 'static> OnSilence for Shared<R> {
    fn handle_silence(self: Arc<Self>, since: Instant) {
        self.was_silent.store(true, Ordering::Relaxed);
        let alarm = {
            let mut state = self.state.lock();
            state.since = Some(since);
            state.alarm.take()
        };
        // Outside the lock: its call may be waiting for the lock.
        drop(alarm);
        let alarm = self.alarms.set(since + self.delay, Arc::clone(&self) as _);
        self.state.lock().alarm = Some(alarm);
    }
}

impl<R: Send + 'static> Call for Shared<R> {
    fn call(self: Arc<Self>, now: Instant) -> Option<Instant> {
        self.poll(now)
    }
}

impl<R: Send + 'static> Shared<R> {
    /// Asks beside the silent connection if it is time. Returns when to look again.
    fn poll(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        if !self.urgency.is_urgent() {
            // Looked at again when it becomes so; but no call reports that the buffer of a live stream runs low.
            return self.successor.is_live.then(|| now + self.delay);
        }
        let mut state = self.state.lock();
        let since = state.since?;
        if state.is_over || state.winner.is_some() || state.begun == MAX_HEDGES {
            return None;
        }
        let at = since + state.next_at.max(self.delay);
        if now < at {
            return Some(at);
        }
        let silence = now.saturating_duration_since(since);
        self.begin(&mut state, since);
        let pause = self.delay * 2_u32.pow(state.begun);
        state.begun += 1;
        state.next_at = silence + pause;
        Some(now + pause)
    }

    fn begin(self: &Arc<Self>, state: &mut State<R>, since: Instant) {
        let position = self.position.load(Ordering::Relaxed);
        log::debug!("a body is silent at byte {position}; the rest is requested beside it");
        let token = self.token.child(CancelReason::Fetch);
        let (shared, own, number) = (Arc::clone(self), token.clone(), state.begun);
        let named = thread::Builder::new().name("windway-hedged".into());
        match named.spawn(move || shared.ask(number, position, &own, since)) {
            Ok(thread) => state.hedges.push(Hedged { number, token, thread }),
            Err(error) => log::warn!("no thread to hedge with: {error}"),
        }
    }

    /// Asks for what comes from `position` on. Blocks for the limits of a request.
    fn ask(&self, number: u32, position: u64, token: &CancelToken, since: Instant) {
        let opened = match (self.successor.open)(position, token) {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => return log::debug!("nothing beside the silent connection: {error}"),
        };
        let mut state = self.state.lock();
        if state.is_over || state.winner.is_some() {
            drop(state);
            // Outside the lock: its drop closes a connection.
            return drop(opened);
        }
        state.winner = Some((number, opened));
        drop(state);
        (self.successor.handle_win)(since);
        self.exchange.break_off();
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
        let alarm = state.alarm.take();
        let winner = state.winner.as_ref().map(|(number, _)| *number);
        drop(state);
        drop(alarm);
        for Hedged { number, token, thread } in hedges {
            // The winner's token is that of its body.
            if winner != Some(number) {
                token.cancel();
            }
            if thread.join().is_err() {
                log::error!("a hedged request panicked");
            }
        }
        let mut state = self.state.lock();
        state.is_over = is_over;
        if !is_over {
            (state.since, state.begun, state.next_at) = (None, 0, Duration::ZERO);
        }
    }
}
