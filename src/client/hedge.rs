//! Hedged requests: when a request has waited too long for its response head, the same request is also sent over another
//! connection, and the first head wins (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013).
//!
//! After a change of network (sleep, Wi-Fi, an expired NAT entry) a pooled connection accepts bytes but never delivers them or
//! fails. Some servers accept a connection and never answer on it; some serve one connection at a time, and let a new one wait
//! as long as another is kept alive.
//!
//! ```text
//!  request ──▶ first connection ········ silent ·········▶ superseded: its socket is shut down
//!                      │ alarm after `delay`                     ▲
//!                      └──▶ windway-hedge: another ──▶ head ─────┘
//! ```
//!
//! The thread of the request may be blocked in a connect, a handshake or a read. So an [alarm](super::alarm) decides when to
//! hedge, each hedged request runs on a thread of its own, and the request's thread joins them all before it returns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::alarm::{Call, Next};
use super::exchange::{Exchange, Over};
use super::hedge_policy::{HedgePolicy, Hedging, Waiting};
use super::request::Request;
use super::sender::{Answer, Attempt, Sender};
use super::urgency::Urgency;
use crate::cancel::{CancelReason, CancelToken};
use crate::error::Error;
use crate::foreign::contain;
use crate::safe_url::HttpUrl;
use crate::thread;

/// Sends `request` to `url` at `now`, hedged if `hedging` is set. Blocks until a response head arrives, all attempts fail, or a
/// cancel.
pub(super) fn send(
    sender: &Arc<Sender>,
    request: &Request,
    url: &HttpUrl,
    cancel: &CancelToken,
    hedging: Option<&Hedging>,
    over: Over,
    now: Instant,
) -> Attempt {
    let exchange = Exchange::to(url.origin(), over, request.reach);
    let exchange = Arc::new(exchange.with_urgency(hedging.map(|hedging| &hedging.urgency)));
    let Some(hedging) = hedging else { return sender.send(request, url, cancel, &exchange, now) };
    let hedge = Hedge::new(sender, request, url, cancel, hedging, &exchange, now);
    // At half of the delay a proven connection may be tried: see `HedgePolicy::poll`.
    let alarm = sender.alarms.set(now + hedging.delay / 2, Arc::clone(&hedge) as _);
    let first = sender.send(request, url, cancel, &exchange, now);
    let attempt = hedge.end(first, cancel);
    // After `end`: a call that is running has seen `is_over` by then, or its thread has been joined.
    drop(alarm);
    attempt
}

/// A request that may be hedged, from sending it until its response head.
struct Hedge {
    sender: Arc<Sender>,
    request: Request,
    url: HttpUrl,
    urgency: Arc<dyn Urgency>,
    /// The token of the request.
    cancel: CancelToken,
    first: Arc<Exchange>,
    began: Instant,
    state: Mutex<State>,
    /// Notified when a hedged request has ended; the request's thread waits here.
    ended: Condvar,
}

struct State {
    policy: HedgePolicy,
    /// Cancels the hedged requests. A child of the request's token, made with the first of them.
    hedged: Option<CancelToken>,
    hedges: Vec<Hedged>,
    /// Addresses whose connections did not answer.
    unresponsive: Vec<SocketAddr>,
    /// Number of `hedges` that have not ended.
    running: usize,
    /// The request has its head, or has failed: no hedged request starts or wins any more.
    is_over: bool,
    winner: Option<Box<Answer>>,
    /// A response by which the server refused another connection.
    refusal: Option<Box<Answer>>,
    failure: Option<(Error, Arc<Exchange>)>,
}

/// A hedged request.
struct Hedged {
    exchange: Arc<Exchange>,
    thread: JoinHandle<()>,
}

impl Hedge {
    fn new(
        sender: &Arc<Sender>,
        request: &Request,
        url: &HttpUrl,
        cancel: &CancelToken,
        hedging: &Hedging,
        first: &Arc<Exchange>,
        now: Instant,
    ) -> Arc<Self> {
        let state = State {
            policy: HedgePolicy::new(hedging.delay),
            hedged: None,
            hedges: Vec::new(),
            unresponsive: Vec::new(),
            running: 0,
            is_over: false,
            winner: None,
            refusal: None,
            failure: None,
        };
        Arc::new(Self {
            sender: Arc::clone(sender),
            request: request.clone(),
            url: url.clone(),
            urgency: Arc::clone(&hedging.urgency),
            cancel: cancel.clone(),
            first: Arc::clone(first),
            began: now,
            state: Mutex::new(state),
            ended: Condvar::new(),
        })
    }

    /// Sends a hedged request if one is due. Returns when to check again.
    fn poll(self: &Arc<Self>, now: Instant) -> Next {
        let mut state = self.state.lock();
        if state.is_over || state.winner.is_some() {
            return Next::Recheck;
        }
        let Some((since, is_reused, is_pooled)) = self.first.silent_since() else {
            // No connection yet: happy eyeballs already tries all addresses, and another connection would try the same ones.
            return Next::At(now + state.policy.delay);
        };
        let origin = self.url.origin();
        let pool = &self.sender.pool;
        let waiting = Waiting {
            silence: now.saturating_duration_since(since),
            is_reused,
            is_pooled,
            is_urgent: self.urgency.is_urgent(),
            has_proven: pool.has_proven(origin),
            is_single_connection: pool.is_single_connection(origin),
        };
        if state.policy.due(waiting).is_some() {
            if let Err(at) = self.sender.take_hedge(origin, waiting.is_urgent, now) {
                return Next::AtOrRecheck(at);
            }
        }
        let begun = state.policy.poll(waiting).map(|over| self.begin(&mut state, over, since));
        let next = state.policy.next_silence(waiting);
        drop(state);
        match begun {
            Some(Ok(())) => {
                log::debug!("{} waits for its response head; hedging it over another connection", self.url);
            }
            // The first attempt continues without a hedge.
            Some(Err(error)) => {
                self.sender.give_hedge_back(origin);
                log::warn!("can't start a thread for a hedged request: {error}");
            }
            None => {}
        }
        next.map(|next| since + next).into()
    }

    /// Hedges the first attempt, which was sent at `since`. Fails if no thread can be started.
    fn begin(self: &Arc<Self>, state: &mut State, over: Over, since: Instant) -> Result<(), Error> {
        let last = state.hedges.last().map_or(&self.first, |hedged| &hedged.exchange);
        state.unresponsive.extend(last.peer());
        // A connection that was begun since for another request is as good as a new one.
        let over = match (over, last.silent_since()) {
            (Over::New, Some((since, ..))) => Over::After(since),
            (over, _) => over,
        };
        let exchange = Exchange::to(self.url.origin(), over, self.request.reach);
        let exchange = Arc::new(exchange.away_from(state.unresponsive.clone()).hedging(since));
        let token = state.hedged.get_or_insert_with(|| self.cancel.child(CancelReason::Fetch)).clone();
        let (hedge, own) = (Arc::clone(self), Arc::clone(&exchange));
        // Under the lock, so that `end` finds every thread that was started, and joins it.
        let thread = thread::start("hedged", move || {
            let send = || hedge.sender.send(&hedge.request, &hedge.url, &token, &own, Instant::now());
            // A logger or a dependency may panic in it. Then it has ended too, and the request's thread waits for that.
            let attempt = contain("a hedged request", send).ok();
            hedge.end_hedged(&own, attempt);
        })?;
        state.running += 1;
        state.hedges.push(Hedged { exchange, thread });
        Ok(())
    }

    /// Takes the result of a hedged request, `None` if it panicked.
    fn end_hedged(&self, exchange: &Arc<Exchange>, attempt: Option<Attempt>) {
        let mut state = self.state.lock();
        let (mut has_won, mut is_to_decide) = (false, false);
        match attempt {
            // A server that limits connections refuses the second one. The first attempt may still succeed.
            Some(Ok(answer)) if is_refusal(&answer) => state.refusal = Some(answer),
            Some(Ok(answer)) if !state.is_over && state.winner.is_none() && self.first.supersede() => {
                has_won = true;
                state.winner = Some(answer);
                let others = state.hedges.iter().filter(|other| !Arc::ptr_eq(&other.exchange, exchange));
                for other in others {
                    other.exchange.supersede();
                }
            }
            // Another attempt won.
            Some(Ok(answer)) => drop(answer),
            // The error of a new connection is the server's. That of a pooled one may only mean that it was dead.
            Some(Err(failure)) if exchange.over != Over::Proven => state.failure = Some(failure),
            // Another request took the pooled connection first. Try it again when it is idle: if the origin serves one
            // connection at a time, no new connection is ever answered.
            Some(Err((_, unused))) if !unused.was_connected() => {
                state.policy.handle_proven_taken();
                is_to_decide = true;
            }
            Some(Err(_)) | None => {}
        }
        state.running -= 1;
        self.ended.notify_all();
        let won_over = has_won.then(|| state.unresponsive.clone());
        drop(state);
        // Last, and without the lock: it logs, and a logger may panic.
        if let Some(unresponsive) = won_over {
            self.record_win(exchange, &unresponsive);
        }
        if is_to_decide {
            self.sender.give_hedge_back(self.url.origin());
        }
    }

    /// Records what the win of one connection shows about the silent ones.
    fn record_win(&self, exchange: &Exchange, unresponsive: &[SocketAddr]) {
        let origin = self.url.origin();
        let pool = &self.sender.pool;
        self.sender.record_hedge_won(origin);
        if exchange.over == Over::Proven {
            return pool.record_unanswered(origin);
        }
        // The connections that were idle in that time used the same broken path: close them.
        pool.forget_older(origin, self.began);
        let Some(good) = exchange.peer() else { return };
        for unresponsive in unresponsive.iter().filter(|unresponsive| unresponsive.ip() != good.ip()) {
            self.sender.lookups.record_unresponsive(unresponsive.ip());
        }
    }

    /// Ends the hedge. Returns the response of the winner, or the error if all attempts failed. Blocks until all its threads
    /// have ended.
    fn end(&self, first: Attempt, cancel: &CancelToken) -> Attempt {
        let mut state = self.state.lock();
        // A response on the first connection is the answer. If it failed, a hedged request may still succeed.
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
        // The winner has recorded it.
        if first.is_ok() || refusal.is_some() {
            self.sender.record_answered(self.url.origin());
        }
        if hedges.is_empty() {
            return first;
        }
        // A cancel would also abort the winner, whose exchange belongs to this token until `on_cancel` is replaced below.
        if winner.is_none() {
            hedged.iter().for_each(CancelToken::cancel);
        }
        for Hedged { exchange, thread } in hedges {
            // `supersede` does not touch the winner: its head is complete. Its body is cancelled with the request.
            exchange.supersede();
            if thread.join().is_err() {
                log::error!("a hedged request panicked");
            }
        }
        let failed = match first {
            Ok(mut answer) => {
                answer.is_repeated = true;
                return Ok(answer);
            }
            Err(failed) => failed,
        };
        match winner.or(refusal) {
            Some(mut answer) => {
                answer.is_repeated = true;
                answer.on_cancel = self.sender.abort_on(cancel, &answer.exchange);
                answer.waited_before = answer.sent.saturating_duration_since(self.began);
                Ok(answer)
            }
            None => Err(failure.unwrap_or(failed)),
        }
    }
}

impl Call for Hedge {
    fn call(self: Arc<Self>, now: Instant) -> Next {
        self.poll(now)
    }
}

/// True for the statuses by which servers and the proxies in front of them refuse one connection too many.
fn is_refusal(answer: &Answer) -> bool {
    matches!(answer.head.status.as_u16(), 403 | 429 | 500..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::HttpClient;
    use crate::config::ClientConfig;
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// A request that becomes urgent when the test sets it.
    #[derive(Default)]
    struct WhenSet(AtomicBool);

    impl Urgency for WhenSet {
        fn is_urgent(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn answer(mut socket: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            // A hedged request that lost hangs up.
            if !matches!(socket.read(&mut byte), Ok(1)) {
                return;
            }
            head.extend(byte);
        }
        // Fails if it lost in the meantime.
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }

    #[test]
    fn an_address_that_refused_is_tried_last() {
        let good = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = good.local_addr().unwrap().port();
        std::thread::spawn(move || good.incoming().flatten().for_each(answer));
        let client = HttpClient::new(&ClientConfig::default()).unwrap();
        let lookups = Arc::clone(&client.opener.sender.lookups);
        let [first, second] = [1, 2].map(|last| IpAddr::from([127, 0, 0, last]));
        lookups.preset("two.test", &[first, second]);
        let request = Request::get(&format!("http://two.test:{port}/")).unwrap();
        client.open(&request, &CancelToken::new(CancelReason::Fetch), None).unwrap();
        let ordered = lookups.addresses(request.origin(), &Exchange::default()).unwrap();
        assert_eq!(ordered.iter().map(SocketAddr::ip).collect::<Vec<_>>(), [second, first]);
    }

    #[test]
    fn an_answer_to_a_request_without_a_hedge_ends_the_pause_of_the_hedges_of_its_origin() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = Request::get(&format!("http://{}/", server.local_addr().unwrap())).unwrap();
        std::thread::spawn(move || server.incoming().flatten().for_each(answer));
        let client = HttpClient::new(&ClientConfig::default()).unwrap();
        let (sender, now) = (&client.opener.sender, Instant::now());
        while sender.take_hedge(request.origin(), true, now).is_ok() {}
        // Its bucket is full again by then, but it has answered nothing.
        let later = now + Duration::from_secs(20);
        assert!(sender.take_hedge(request.origin(), true, later).is_err());
        let hedging = Hedging { delay: Duration::from_secs(3600), urgency: Arc::new(WhenSet::default()) };
        client.open(&request, &CancelToken::new(CancelReason::Fetch), Some(&hedging)).unwrap();
        assert_eq!(sender.take_hedge(request.origin(), true, later), Ok(()));
    }

    /// A host with two addresses, of which the first accepts one connection and never answers on it.
    #[test]
    fn another_address_of_the_host_is_tried_first() {
        let unresponsive = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = unresponsive.local_addr().unwrap().port();
        let good = TcpListener::bind(("127.0.0.2", port)).unwrap();
        std::thread::spawn(move || good.incoming().flatten().for_each(answer));
        let client = HttpClient::new(&ClientConfig::default()).unwrap();
        let lookups = Arc::clone(&client.opener.sender.lookups);
        let [first, second] = [1, 2].map(|last| IpAddr::from([127, 0, 0, last]));
        // The first attempt sees only this address: with both, happy eyeballs would take the other one on a busy machine.
        lookups.preset("two.test", &[first]);
        let urgency = Arc::new(WhenSet::default());
        let hedging = Hedging { delay: Duration::from_millis(10), urgency: Arc::clone(&urgency) as _ };
        let waiting = client.clone();
        let request = Request::get(&format!("http://two.test:{port}/")).unwrap();
        let origin = request.origin().clone();
        let asking = std::thread::spawn(move || {
            let token = CancelToken::new(CancelReason::Fetch);
            let mut response = waiting.open(&request, &token, Some(&hedging)).unwrap();
            let mut body = [0; 2];
            assert_eq!(response.read_chunk(&mut body).unwrap(), 2);
            assert!(response.waited_before() >= hedging.delay);
        });
        let _silent = unresponsive.accept().unwrap();
        lookups.preset("two.test", &[first, second]);
        urgency.0.store(true, Ordering::SeqCst);
        client.recheck_urgency();
        asking.join().unwrap();
        // The next connection uses the address that answered.
        let order = lookups.addresses(&origin, &Exchange::default()).unwrap();
        assert_eq!(order.iter().map(SocketAddr::ip).collect::<Vec<_>>(), [second, first]);
        client.close();
    }
}
