//! Bodies that become silent: while the reader waits, the rest is also requested over a new connection, and the connection that
//! delivers first continues the body.
//!
//! If a connection dies without an error (a change of network, an expired NAT entry), its reader would wait for the whole
//! silence limit. So the first part of each wait ends after a delay, which costs nothing while bytes arrive. Then the reading
//! thread is blocked for the rest of the wait, an [alarm](super::alarm) decides when to hedge, and the hedged request runs on a
//! thread of its own. When the head of a response that can continue the body arrives, the silent connection is shut down; its
//! read fails, and the reader takes the new response. If the silent connection delivers first, the hedged request is cancelled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::alarm::{Alarm, Alarms, Call, Next};
use super::exchange::Exchange;
use super::hedge_backoff::HedgeBackoff;
use super::hedge_policy::Hedging;
use super::sender::Sender;
use super::silence_watch::{OnSilence, SilenceWatch};
use super::urgency::Urgency;
use crate::cancel::{CancelReason, CancelToken};
use crate::error::Error;
use crate::origin::Origin;
use crate::thread;

/// Maximum number of hedged requests in one silence. The pauses between them double, so the last one starts after four delays. Each
/// delay is longer after a silence in which the body's own connection was [faster](super::hedge_backoff).
const MAX_HEDGES: u32 = 3;

/// Watches the reads of one body, which an `R` can continue. Dropping it cancels its hedged requests and waits for their
/// threads.
pub(super) struct SilenceHedge<R: Send + 'static>(Arc<Shared<R>>);

/// See [`Successor::open`].
type Open<R> = dyn Fn(u64, &CancelToken) -> Result<Option<R>, Error> + Send + Sync;

/// How to continue a silent body.
pub(super) struct Successor<R> {
    /// Requests the bytes from a position on, under a token. `None` if the response can't continue the body. Blocks like a
    /// request.
    pub(super) open: Box<Open<R>>,
    pub(super) budget: OriginBudget,
    /// The body is a live stream: it becomes urgent without a notification when its buffer runs low.
    pub(super) is_live: bool,
}

/// The budget for hedged requests of the origin that sends a body.
pub(super) struct OriginBudget {
    pub(super) sender: Arc<Sender>,
    pub(super) origin: Origin,
}

impl OriginBudget {
    /// Takes the token for a hedged request. If there is none, returns when to ask again.
    fn take(&self, now: Instant) -> Result<(), Instant> {
        // A reader waits for these bytes, so it is urgent.
        self.sender.take_hedge(&self.origin, true, now)
    }

    /// Records that a hedged request won. The silence began at `since`.
    fn record_win(&self, since: Instant) {
        self.sender.record_hedge_won(&self.origin);
        // The connections that were idle in that time used the same broken path: close them.
        self.sender.pool.forget_older(&self.origin, since);
    }
}

struct Shared<R> {
    alarms: Arc<Alarms>,
    delay: Duration,
    urgency: Arc<dyn Urgency>,
    successor: Successor<R>,
    /// Token that cancels the body.
    token: CancelToken,
    exchange: Arc<Exchange>,
    /// Position in the resource of the byte that the reader waits for.
    position: AtomicU64,
    /// The current wait, or the one before it, has lasted longer than the delay.
    was_silent: AtomicBool,
    state: Mutex<State<R>>,
}

struct State<R> {
    /// Start of the current wait, if it has lasted longer than the delay.
    since: Option<Instant>,
    /// Set during a silence only.
    alarm: Option<Alarm>,
    begun: u32,
    /// Silence after which the next hedged request may start.
    next_at: Duration,
    hedges: Vec<Hedged>,
    backoff: HedgeBackoff,
    /// No hedged request starts or wins any more.
    is_over: bool,
    winner: Option<(u32, R)>,
}

/// A hedged request for the rest, on a thread of its own.
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
            backoff: HedgeBackoff::default(),
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
        // Weak, because the exchange owns the watch and `shared` owns the exchange: an `Arc` would leak both.
        let then = Arc::downgrade(&shared) as Weak<dyn OnSilence>;
        exchange.watch(SilenceWatch { after: hedging.delay, then });
        Self(shared)
    }

    /// Records that a read begins to wait for the byte at `position`.
    pub(super) fn begin_wait(&self, position: u64) {
        self.0.position.store(position, Ordering::Relaxed);
    }

    /// Records that the read has ended. If it returned bytes, the silence is over.
    pub(super) fn end_wait(&self, has_moved: bool) {
        // Relaxed is enough: the same thread sets it, during the read.
        if has_moved && self.0.was_silent.swap(false, Ordering::Relaxed) {
            self.0.stop(false);
        }
    }

    /// The response that continues the body, if a hedged request was faster.
    pub(super) fn take_winner(&self) -> Option<R> {
        self.0.stop(true);
        self.0.state.lock().winner.take().map(|(_, winner)| winner)
    }
}

impl<R: Send + 'static> Drop for SilenceHedge<R> {
    fn drop(&mut self) {
        self.0.stop(true);
        let unused = self.0.state.lock().winner.take();
        // Without the lock, since this may close a connection.
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
        // Without the lock: dropping an alarm locks the alarms, and a running call waits for our lock.
        drop(alarm);
        let alarm = self.alarms.set(since + self.delay, Arc::clone(&self) as _);
        self.state.lock().alarm = Some(alarm);
    }
}

impl<R: Send + 'static> Call for Shared<R> {
    fn call(self: Arc<Self>, now: Instant) -> Next {
        self.poll(now)
    }
}

impl<R: Send + 'static> Shared<R> {
    /// Starts a hedged request if one is due. Returns when to check again.
    fn poll(self: &Arc<Self>, now: Instant) -> Next {
        if !self.urgency.is_urgent() {
            // A recheck follows when the fetch becomes urgent. Nothing reports that the buffer of a live stream runs low, so
            // poll that.
            return self.successor.is_live.then(|| now + self.delay).into();
        }
        let mut state = self.state.lock();
        let Some(since) = state.since else { return Next::Recheck };
        if state.is_over || state.winner.is_some() || state.begun == MAX_HEDGES {
            return Next::Recheck;
        }
        let delay = state.backoff.delay(self.delay, now);
        let at = since + state.next_at.max(delay);
        if now < at {
            return Next::At(at);
        }
        let budget = &self.successor.budget;
        if let Err(at) = budget.take(now) {
            return Next::AtOrRecheck(at);
        }
        let silence = now.saturating_duration_since(since);
        if let Err(error) = self.begin(&mut state, since) {
            state.next_at = silence + delay;
            drop(state);
            // Without the lock: it sets alarms, whose calls take it.
            budget.sender.give_hedge_back(&budget.origin);
            log::warn!("can't start a thread for a hedged request: {error}");
            return Next::At(now + delay);
        }
        let pause = delay * 2_u32.pow(state.begun);
        state.begun += 1;
        state.next_at = silence + pause;
        Next::At(now + pause)
    }

    /// Fails if no thread can be started.
    fn begin(self: &Arc<Self>, state: &mut State<R>, since: Instant) -> Result<(), Error> {
        // The thread that writes it is blocked in a silent read, so it does not change meanwhile.
        let position = self.position.load(Ordering::Relaxed);
        let token = self.token.child(CancelReason::Fetch);
        let (shared, own, number) = (Arc::clone(self), token.clone(), state.begun);
        let thread = thread::start("hedged", move || shared.request_rest(number, position, &own, since))?;
        state.hedges.push(Hedged { number, token, thread });
        Ok(())
    }

    /// Requests the bytes from `position` on. Blocks like a request.
    fn request_rest(&self, number: u32, position: u64, token: &CancelToken, since: Instant) {
        let opened = match (self.successor.open)(position, token) {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => {
                return log::debug!("a hedged request for the rest of a silent body failed: {error}");
            }
        };
        let mut state = self.state.lock();
        if state.is_over || state.winner.is_some() {
            drop(state);
            // Without the lock: the drop closes a connection.
            return drop(opened);
        }
        state.winner = Some((number, opened));
        drop(state);
        // Without the lock: the reader, which `break_off` wakes, takes the winner under it.
        self.successor.budget.record_win(since);
        self.exchange.break_off();
    }

    /// Cancels and joins the hedged requests, except the winner's body. `for_good`: none starts any more; otherwise the next
    /// silence may start new ones.
    fn stop(&self, for_good: bool) {
        let mut state = self.state.lock();
        state.is_over |= for_good;
        if state.winner.is_some() && !for_good {
            // The next read fails, and the winner continues the body.
            return;
        }
        // Set while the threads are joined, so that none of them wins in that time.
        let is_over = std::mem::replace(&mut state.is_over, true);
        let hedges = std::mem::take(&mut state.hedges);
        let alarm = state.alarm.take();
        let winner = state.winner.as_ref().map(|(number, _)| *number);
        drop(state);
        // Without the lock, which the call of an alarm takes.
        drop(alarm);
        for Hedged { number, token, thread } in hedges {
            // The winner's token is its body's token: cancelling it would end the body.
            if winner != Some(number) {
                token.cancel();
            }
            if thread.join().is_err() {
                log::error!("a hedged request panicked");
            }
        }
        let mut state = self.state.lock();
        state.is_over = is_over;
        if is_over {
            return;
        }
        if state.begun > 0 {
            state.backoff.handle_lost(Instant::now());
        }
        (state.since, state.begun, state.next_at) = (None, 0, Duration::ZERO);
        drop(state);
        let OriginBudget { sender, origin } = &self.successor.budget;
        sender.record_answered(origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::HttpClient;
    use crate::config::ClientConfig;

    struct Always;

    impl Urgency for Always {
        fn is_urgent(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_hedge_without_a_thread_is_due_again_later() {
        let client = HttpClient::new(&ClientConfig::default()).unwrap();
        let sender = Arc::clone(&client.opener.sender);
        let (opens, opened) = crossbeam_channel::unbounded();
        let open = move |_: u64, _: &CancelToken| {
            opens.send(()).unwrap_or_default();
            Ok(None::<()>)
        };
        let budget =
            OriginBudget { sender: Arc::clone(&sender), origin: Origin::new(false, "host.test", 80) };
        let successor = Successor { open: Box::new(open), budget, is_live: false };
        let delay = Duration::from_secs(3600);
        let hedging = Hedging { delay, urgency: Arc::new(Always) };
        let token = CancelToken::new(CancelReason::Fetch);
        let hedge =
            SilenceHedge::watch(&sender.alarms, &hedging, successor, token, &Arc::new(Exchange::default()));
        hedge.begin_wait(0);
        let since = Instant::now();
        Arc::clone(&hedge.0).handle_silence(since);
        let refusal = thread::refuse("hedged");
        let due = since + delay;
        assert_eq!(hedge.0.poll(due), Next::At(due + delay));
        drop(refusal);
        assert_eq!(hedge.0.poll(due + delay), Next::At(due + 2 * delay));
        opened.recv().unwrap();
        hedge.end_wait(true);
    }

    #[test]
    fn bytes_after_a_silence_without_a_hedge_end_the_pause_of_the_hedges_of_their_origin() {
        let client = HttpClient::new(&ClientConfig::default()).unwrap();
        let (sender, now) = (Arc::clone(&client.opener.sender), Instant::now());
        let origin = Origin::new(false, "host.test", 80);
        while sender.take_hedge(&origin, true, now).is_ok() {}
        // Its bucket is full again by then, but it has answered nothing.
        let later = now + Duration::from_secs(20);
        assert!(sender.take_hedge(&origin, true, later).is_err());
        let successor = Successor {
            open: Box::new(|_, _| Ok(None::<()>)),
            budget: OriginBudget { sender: Arc::clone(&sender), origin: origin.clone() },
            is_live: false,
        };
        let hedging = Hedging { delay: Duration::from_secs(3600), urgency: Arc::new(Always) };
        let token = CancelToken::new(CancelReason::Fetch);
        let hedge =
            SilenceHedge::watch(&sender.alarms, &hedging, successor, token, &Arc::new(Exchange::default()));
        hedge.begin_wait(0);
        Arc::clone(&hedge.0).handle_silence(now);
        hedge.end_wait(true);
        assert_eq!(sender.take_hedge(&origin, true, later), Ok(()));
    }
}
