//! Hedged requests: when a request has waited too long for its response head, the same request is sent over another
//! connection beside it, and the first head wins (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013).
//!
//! After a change of network (sleep, Wi-Fi, a NAT that forgot) a pooled connection swallows what is sent and says nothing.
//! Some servers accept a connection and never answer on it; some answer one connection at a time, and leave a new one
//! waiting for as long as another is kept alive.
//!
//! ```text
//!  request ──▶ first connection ········ silent ·········▶ superseded: its socket is shut down
//!                      │ alarm after `delay`                     ▲
//!                      └──▶ windway-hedge: another ──▶ head ─────┘
//! ```
//!
//! The request's own thread may be blocked in a connect, a handshake or a read; so an [alarm](super::alarm) decides, each
//! hedged request runs on a thread of its own, and the request's thread joins them all before it returns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::alarm::Call;
use super::exchange::{Exchange, Over};
use super::request::Request;
use super::{Answer, HttpClient};
use crate::cancel::{CancelReason, CancelToken};
use crate::error::Error;
use crate::safe_url::HttpUrl;

/// New connections for one request, beside its first one. Each waits twice as long for the one before.
const MAX_NEW: u32 = 3;

/// Whether somebody waits for what is requested. Changes while it is under way.
pub(crate) trait Urgency: Send + Sync {
    fn is_urgent(&self) -> bool;
}

/// How a request is hedged.
#[derive(Clone)]
pub(crate) struct Hedging {
    /// How long its connection may be silent before another one is tried.
    pub(crate) delay: Duration,
    pub(crate) urgency: Arc<dyn Urgency>,
}

/// Decides when a request is sent once more, and over what. Reads no clock.
#[derive(Debug)]
struct HedgePolicy {
    delay: Duration,
    /// It was sent over a proven connection beside the first one.
    over_proven: bool,
    /// How many new connections it was sent over beside the first one.
    over_new: u32,
    /// The silence at which the next of those may follow.
    new_at: Duration,
}

/// What is known of a request that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// How long its connection has been silent.
    silence: Duration,
    /// Its connection has answered another request before.
    is_reused: bool,
    /// Its connection is reused or was opened ahead: it may have died before the request was sent.
    is_pooled: bool,
    is_urgent: bool,
    /// A connection is idle that has answered before.
    has_proven: bool,
    /// The origin answers one connection at a time.
    is_single_connection: bool,
}

impl HedgePolicy {
    fn new(delay: Duration) -> Self {
        Self { delay, over_proven: false, over_new: 0, new_at: delay }
    }

    /// Over what to send the request once more now, if so.
    fn poll(&mut self, waiting: Waiting) -> Option<Over> {
        if self.may_use_proven(waiting) && waiting.has_proven && waiting.silence >= self.delay / 2 {
            self.over_proven = true;
            return Some(Over::Proven);
        }
        if self.new_at(waiting).is_some_and(|at| waiting.silence >= at) {
            // After this one, however late it is: it has to have its time.
            self.new_at = waiting.silence + self.delay * 2_u32.pow(self.over_new);
            self.over_new += 1;
            return Some(Over::New);
        }
        None
    }

    /// The silence at which to decide again. `None` if nothing follows unless the request becomes urgent.
    fn next_silence(&self, waiting: Waiting) -> Option<Duration> {
        // A proven connection may become idle at any time.
        let half = (self.delay / 2).max(Duration::from_millis(1));
        let steps = u32::try_from(waiting.silence.as_nanos() / half.as_nanos()).unwrap_or(u32::MAX);
        let proven = self.may_use_proven(waiting).then(|| half.saturating_mul(steps.saturating_add(1)));
        proven.into_iter().chain(self.new_at(waiting)).min()
    }

    /// One that has answered before tells a server that answers one at a time from one that is gone.
    fn may_use_proven(&self, waiting: Waiting) -> bool {
        !self.over_proven && !waiting.is_reused
    }

    fn new_at(&self, waiting: Waiting) -> Option<Duration> {
        // Bulk on a new connection has no reason to suspect it, and one more request may be what a slow server lacks least.
        let most = match (waiting.is_urgent, waiting.is_pooled) {
            (true, _) => MAX_NEW,
            (false, true) => 1,
            (false, false) => 0,
        };
        // Another new one would wait for the same connection to be closed.
        let is_useless = waiting.is_single_connection && !waiting.is_reused;
        (self.over_new < most && !is_useless).then_some(self.new_at)
    }
}

/// What an attempt came to.
pub(super) type Attempt = Result<Answer, (Error, Arc<Exchange>)>;

/// A request that may be hedged, from its sending to its head.
pub(super) struct Hedge {
    client: HttpClient,
    request: Request,
    url: HttpUrl,
    urgency: Arc<dyn Urgency>,
    /// The request's own.
    cancel: CancelToken,
    first: Arc<Exchange>,
    began: Instant,
    state: Mutex<State>,
    /// Notified when a hedged request has ended.
    ended: Condvar,
}

struct State {
    policy: HedgePolicy,
    /// Cancels the hedged requests, and lies below the request's own. Made with the first of them.
    hedged: Option<CancelToken>,
    hedges: Vec<Hedged>,
    /// Addresses whose connections gave no head.
    mute: Vec<SocketAddr>,
    /// Of those, the ones that have not ended.
    running: usize,
    /// The request has its head, or has failed: nothing is begun any more, and nothing wins.
    is_over: bool,
    winner: Option<Answer>,
    /// The server's refusal of a connection more.
    refusal: Option<Answer>,
    failure: Option<(Error, Arc<Exchange>)>,
}

/// The request on another connection.
struct Hedged {
    exchange: Arc<Exchange>,
    thread: JoinHandle<()>,
}

impl Hedge {
    pub(super) fn new(
        client: &HttpClient,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        hedging: &Hedging,
        first: &Arc<Exchange>,
    ) -> Arc<Self> {
        let state = State {
            policy: HedgePolicy::new(hedging.delay),
            hedged: None,
            hedges: Vec::new(),
            mute: Vec::new(),
            running: 0,
            is_over: false,
            winner: None,
            refusal: None,
            failure: None,
        };
        Arc::new(Self {
            client: client.clone(),
            request: request.clone(),
            url: url.clone(),
            urgency: Arc::clone(&hedging.urgency),
            cancel: cancel.clone(),
            first: Arc::clone(first),
            began: Instant::now(),
            state: Mutex::new(state),
            ended: Condvar::new(),
        })
    }

    /// When the first request was about to be sent.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Sends the request once more if it is time. Returns when to look again.
    fn poll(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        if state.is_over || state.winner.is_some() {
            return None;
        }
        let Some((since, is_reused, is_pooled)) = self.first.silent_since() else {
            // No connection yet. To the addresses that are tried another one would be tried as well.
            return Some(now + state.policy.delay);
        };
        let origin = self.url.origin();
        let pool = &self.client.0.pool;
        let waiting = Waiting {
            silence: now.saturating_duration_since(since),
            is_reused,
            is_pooled,
            is_urgent: self.urgency.is_urgent(),
            has_proven: pool.has_proven(origin),
            is_single_connection: pool.is_single_connection(origin),
        };
        if let Some(over) = state.policy.poll(waiting) {
            self.begin(&mut state, over);
        }
        Some(since + state.policy.next_silence(waiting)?)
    }

    fn begin(self: &Arc<Self>, state: &mut State, over: Over) {
        log::debug!("{} waits for its response head; hedging it over another connection", self.url);
        let last = state.hedges.last().map_or(&self.first, |hedged| &hedged.exchange);
        state.mute.extend(last.peer());
        let exchange = Arc::new(Exchange::to(self.url.origin(), over).away_from(state.mute.clone()));
        let token = state.hedged.get_or_insert_with(|| self.cancel.child(CancelReason::Fetch)).clone();
        let (hedge, own) = (Arc::clone(self), Arc::clone(&exchange));
        let named = thread::Builder::new().name("windway-hedged".into());
        let spawned = named.spawn(move || {
            let attempt = hedge.client.send_once(&hedge.request, &hedge.url, &token, &own);
            hedge.end_hedged(&own, attempt);
        });
        match spawned {
            Ok(thread) => {
                state.running += 1;
                state.hedges.push(Hedged { exchange, thread });
            }
            Err(error) => log::warn!("no thread to hedge with: {error}"),
        }
    }

    /// Takes what a hedged request came to.
    fn end_hedged(&self, exchange: &Arc<Exchange>, attempt: Attempt) {
        let mut state = self.state.lock();
        let (mut has_won, mut is_to_decide) = (false, false);
        match attempt {
            // A server that limits connections refuses the second one: that is no answer to the first.
            Ok(answer) if is_refusal(&answer) => state.refusal = Some(answer),
            Ok(answer) if !state.is_over && state.winner.is_none() && self.first.supersede() => {
                has_won = true;
                state.winner = Some(answer);
                let others = state.hedges.iter().filter(|other| !Arc::ptr_eq(&other.exchange, exchange));
                for other in others {
                    other.exchange.supersede();
                }
            }
            // Too late.
            Ok(answer) => drop(answer),
            // One that found no connection to go over says nothing of the server.
            Err(failure) if exchange.over == Over::New => state.failure = Some(failure),
            // Another request took the connection first. It will be idle again, and nothing else may ever answer: an origin
            // that serves one connection at a time leaves new ones waiting.
            Err((_, unused)) if !unused.was_connected() => {
                state.policy.over_proven = false;
                is_to_decide = true;
            }
            Err(_) => {}
        }
        if has_won {
            self.note_win(exchange, &state.mute);
        }
        state.running -= 1;
        self.ended.notify_all();
        drop(state);
        if is_to_decide {
            self.client.recheck_urgency();
        }
    }

    /// What it says of the other connections that one was silent while another answered.
    fn note_win(&self, exchange: &Exchange, mute: &[SocketAddr]) {
        let origin = self.url.origin();
        let pool = &self.client.0.pool;
        if exchange.over == Over::Proven {
            return pool.note_unanswered(origin);
        }
        // Those that lay idle beside the silent one are as dead, wherever the path broke.
        pool.forget_older(origin, self.began);
        let Some(good) = exchange.peer() else { return };
        for mute in mute.iter().filter(|mute| mute.ip() != good.ip()) {
            self.client.0.lookups.note_mute(mute.ip());
        }
    }

    /// Ends it: the winner's answer, or the failure of all. Blocks until its threads have ended.
    pub(super) fn end(&self, first: Attempt, cancel: &CancelToken) -> Attempt {
        let mut state = self.state.lock();
        if first.is_err() {
            while state.running > 0 && state.winner.is_none() {
                self.ended.wait(&mut state);
            }
        }
        state.is_over = true;
        let hedges = std::mem::take(&mut state.hedges);
        let (winner, refusal) = (state.winner.take(), state.refusal.take());
        let (failure, hedged) = (state.failure.take(), state.hedged.take());
        drop(state);
        if hedges.is_empty() {
            return first;
        }
        if winner.is_none() {
            hedged.iter().for_each(CancelToken::cancel);
        }
        for Hedged { exchange, thread } in hedges {
            // The winner's body outlives this, and is cancelled with the request.
            exchange.supersede();
            if thread.join().is_err() {
                log::error!("a hedged request panicked");
            }
        }
        let Err(failed) = first else { return first };
        match winner.or(refusal) {
            Some(mut answer) => {
                answer.on_cancel = self.client.abort_on(cancel, &answer.exchange);
                answer.lost = answer.sent.saturating_duration_since(self.began);
                Ok(answer)
            }
            None => Err(failure.unwrap_or(failed)),
        }
    }
}

impl Call for Hedge {
    fn call(self: Arc<Self>, now: Instant) -> Option<Instant> {
        self.poll(now)
    }
}

/// Servers, and what stands before them, answer a connection too many in these ways.
fn is_refusal(answer: &Answer) -> bool {
    matches!(answer.response.status().as_u16(), 403 | 429 | 500..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpListener};

    const DELAY: Duration = Duration::from_secs(1);

    fn waiting(silence_ms: u64) -> Waiting {
        Waiting {
            silence: Duration::from_millis(silence_ms),
            is_reused: true,
            is_pooled: true,
            is_urgent: true,
            has_proven: true,
            is_single_connection: false,
        }
    }

    /// Runs it for a minute. What is sent, and at which silence in milliseconds.
    fn run(change: impl Fn(Waiting) -> Waiting) -> Vec<(u128, Over)> {
        let mut policy = HedgePolicy::new(DELAY);
        let (mut sent, mut now) = (Vec::new(), Some(DELAY / 2));
        while let Some(silence) = now.filter(|now| *now < 60 * DELAY) {
            let waiting = change(Waiting { silence, ..waiting(0) });
            sent.extend(policy.poll(waiting).map(|over| (silence.as_millis(), over)));
            let next = policy.next_silence(waiting);
            assert!(next.is_none_or(|next| next > silence), "{next:?} after {silence:?}");
            now = next;
        }
        sent
    }

    struct Urgent;

    impl Urgency for Urgent {
        fn is_urgent(&self) -> bool {
            true
        }
    }

    /// Two addresses of one host, the first of which accepts and never answers.
    #[test]
    fn another_address_of_the_host_is_tried_first() {
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = mute.local_addr().unwrap().port();
        let good = TcpListener::bind(("127.0.0.2", port)).unwrap();
        let server = thread::spawn(move || {
            for socket in good.incoming().take(2) {
                let mut socket = socket.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                socket.write_all(answer).unwrap();
            }
        });
        let client = HttpClient::new(&ClientConfig::default()).unwrap();
        let [first, second] = [1, 2].map(|last| IpAddr::from([127, 0, 0, last]));
        client.0.lookups.preset("two.test", &[first, second]);
        let request = Request::get(&format!("http://two.test:{port}/")).unwrap();
        let token = CancelToken::new(CancelReason::Fetch);
        let hedging = Hedging { delay: Duration::from_millis(100), urgency: Arc::new(Urgent) };
        let mut body = [0; 2];
        let mut response = client.open(&request, &token, Some(&hedging)).unwrap();
        assert_eq!(response.read_chunk(&mut body).unwrap(), 2);
        let lost = response.lost();
        assert!(lost >= hedging.delay, "{lost:?}");
        // The next connection goes to the one that answered.
        let response = client.open(&request, &token, None).unwrap();
        assert_eq!(response.lost(), Duration::ZERO);
        drop(response);
        server.join().unwrap();
        client.close();
    }

    #[test]
    fn an_urgent_request_gets_new_connections_at_growing_intervals() {
        let new = [(1000, Over::New), (2000, Over::New), (4000, Over::New)];
        assert_eq!(run(|it| it), new);
        let fresh = |it| Waiting { is_reused: false, is_pooled: false, has_proven: false, ..it };
        assert_eq!(run(fresh), new);
    }

    #[test]
    fn a_connection_that_never_answered_is_held_against_a_proven_one_first() {
        let ahead = |it| Waiting { is_reused: false, ..it };
        let sent = run(ahead);
        assert_eq!(sent[..2], [(500, Over::Proven), (1000, Over::New)]);
        // One that becomes idle later is found.
        let later = |it: Waiting| Waiting { has_proven: it.silence > 7 * DELAY, ..ahead(it) };
        assert_eq!(run(later).last(), Some(&(7500, Over::Proven)));
    }

    #[test]
    fn where_one_connection_is_served_at_a_time_no_new_one_is_opened_beside_a_new_one() {
        let single_connection = |it| Waiting { is_reused: false, is_single_connection: true, ..it };
        assert_eq!(run(single_connection), [(500, Over::Proven)]);
        assert_eq!(run(|it| Waiting { is_single_connection: true, ..it }).len(), 3);
    }

    #[test]
    fn bulk_is_hedged_once_and_only_where_its_connection_may_have_died_before() {
        assert_eq!(run(|it| Waiting { is_urgent: false, ..it }), [(1000, Over::New)]);
        let fresh =
            |it| Waiting { is_urgent: false, is_reused: false, is_pooled: false, has_proven: false, ..it };
        assert_eq!(run(fresh), []);
        let mut policy = HedgePolicy::new(DELAY);
        assert_eq!(policy.poll(fresh(waiting(5000))), None);
        // Somebody has come to wait for it.
        let urgent = Waiting { is_urgent: true, ..fresh(waiting(5000)) };
        assert_eq!(policy.poll(urgent), Some(Over::New));
        assert_eq!(policy.poll(urgent), None);
        assert_eq!(policy.new_at(urgent), Some(6 * DELAY));
    }
}
