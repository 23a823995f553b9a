//! Resolves host names, and caches the results.
//!
//! `getaddrinfo` can't be interrupted, so lookups run on a few detached threads that own only the cache and end when the queue
//! is empty. A thread that waits for a lookup returns with its result, at its time limit, or after a cancel.
//!
//! A name that hangs must not delay the others: a slow lookup no longer counts against the limit of lookups that run at once.
//! No thread watches for that: a thread that waits for a queued name wakes when the next lookup becomes slow, and starts the
//! lookup thread itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::client::exchange::Exchange;
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;
use crate::origin::Origin;

/// Maximum number of concurrent lookups that are not slow.
const MAX_PROMPT: usize = 4;

/// Maximum number of concurrent lookups, including slow ones. A hung name server costs at most this many threads.
const MAX_THREADS: usize = 32;

/// A lookup that has run for this long is slow. Most name servers answer within 100 ms.
const SLOW: Duration = Duration::from_millis(500);

/// Maximum number of cached hosts. When it is reached, the cache is emptied: that is simpler than keeping an order of use, and a
/// player meets a few dozen.
const MAX_HOSTS: usize = 1024;

/// Maximum number of addresses of one name that are tried. Each costs a thread and a socket until one answers.
const MAX_ADDRESSES: usize = 16;

/// Resolves a name. Blocks without a limit.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The cache, and the lookups that fill it.
pub(crate) struct Lookups {
    state: Mutex<State>,
    /// Waiting threads block here. Notified after each result, by `outdate`, and by `wake_all` after a cancel or a change of
    /// network.
    changed: Condvar,
    /// Time for which a result is used before the name is looked up again.
    max_age: Duration,
    /// Longest time for which a request waits for a lookup.
    limit: Duration,
    look_up: Box<LookUp>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<String, Known>,
    /// Names that wait for a thread.
    queue: VecDeque<String>,
    /// Running lookups, one for each thread.
    running: Vec<Running>,
    /// Number of lookups started so far, which is the id of the last one.
    started: u64,
    /// Names in `queue`, and names whose lookup runs on the current network.
    pending: HashSet<String>,
    /// Number of threads that wait for each name. Never zero.
    waiters: HashMap<String, usize>,
    /// Number of the current network. Grows with each change; results of lookups that started before are not used.
    network: u64,
    /// Addresses that accepted a connection but did not answer on it, and when that was noticed.
    unresponsive: HashMap<IpAddr, Instant>,
}

/// A running lookup.
#[derive(Debug)]
struct Running {
    id: u64,
    began: Instant,
    network: u64,
}

/// What may start now.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// A lookup of this name. It counts as running from now on, under this id.
    Name(String, u64),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until a lookup ends or a name is queued.
    Nothing,
}

#[derive(Debug)]
struct Known {
    /// Addresses of the last successful lookup. Empty if there was none.
    addresses: Vec<IpAddr>,
    /// Error of the last lookup. `None` if it succeeded.
    failure: Option<Error>,
    /// End of the last lookup, successful or not.
    at: Instant,
    /// The result is from another network.
    is_outdated: bool,
}

impl Lookups {
    pub(crate) fn new(max_age: Duration, limit: Duration) -> Arc<Self> {
        let look_up = |host: &str| {
            // `getaddrinfo` orders the addresses by RFC 6724. The port does not matter for that.
            let addresses = (host, 0).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        };
        Self::with(max_age, limit, look_up)
    }

    fn with(
        max_age: Duration,
        limit: Duration,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { state, changed, max_age, limit, look_up: Box::new(look_up) })
    }

    /// Uses `addresses` for `host`, without a lookup.
    #[cfg(test)]
    pub(crate) fn preset(&self, host: &str, addresses: &[IpAddr]) {
        self.state.lock().learn(host.into(), Ok(addresses.to_vec()));
    }

    /// Wakes all waiting threads, which check whether they were cancelled.
    pub(crate) fn wake_all(&self) {
        // Under the lock: a thread between its check and its wait would miss the notification.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Marks all results as outdated, after a change of network. They are only used if a new lookup does not succeed in time.
    /// Running lookups may hang on the old network or return addresses of it, so names that threads wait for are looked up
    /// again in parallel.
    pub(crate) fn outdate(&self) {
        let mut state = self.state.lock();
        state.change_network();
        // The waiting threads start the new lookups.
        self.changed.notify_all();
    }

    /// Records that `address` accepted a connection but did not answer on it, while another address of the host did.
    pub(crate) fn record_unresponsive(&self, address: IpAddr) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let max_age = self.max_age;
        state.unresponsive.retain(|_, since| now.saturating_duration_since(*since) < max_age);
        if state.unresponsive.len() < MAX_HOSTS {
            state.unresponsive.insert(address, now);
        }
    }

    /// Addresses of `origin`, in the order in which to try them. Blocks until they are known, for at most the limit. A cancel
    /// of `exchange` ends the wait.
    pub(crate) fn addresses(
        self: &Arc<Self>,
        origin: &Origin,
        exchange: &Exchange,
    ) -> Result<Vec<SocketAddr>, Error> {
        let mut addresses = interleave(&self.resolve(&origin.host, Some(exchange))?);
        self.order(&mut addresses);
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, origin.port)).collect())
    }

    /// Moves unresponsive addresses to the end. They are remembered as long as a lookup result.
    fn order(&self, addresses: &mut [IpAddr]) {
        let state = self.state.lock();
        let is_unresponsive = |address: &IpAddr| {
            state.unresponsive.get(address).is_some_and(|since| since.elapsed() < self.max_age)
        };
        // Stable: the order of the lookup stays within both groups.
        addresses.sort_by_key(is_unresponsive);
    }

    /// The addresses of `host`. Blocks until they are known, for at most the limit.
    fn resolve(self: &Arc<Self>, host: &str, exchange: Option<&Exchange>) -> Result<Vec<IpAddr>, Error> {
        // An IP address needs no lookup. IPv6 addresses are in brackets (RFC 3986, section 3.2.2).
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let mut state = self.state.lock();
        if let Some(known) = state.known.get(host) {
            // A failure is not reused: the next request looks the name up again.
            if known.failure.is_none() && !known.is_outdated && known.at.elapsed() < self.max_age {
                return Ok(known.addresses.clone());
            }
        }
        state.begin_wait(host);
        let answer = self.wait_for(&mut state, host, exchange);
        state.end_wait(host);
        answer
    }

    fn wait_for(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        host: &str,
        exchange: Option<&Exchange>,
    ) -> Result<Vec<IpAddr>, Error> {
        let asked = Instant::now();
        let until = asked + self.limit;
        loop {
            if let Some(cancelled) = exchange.and_then(Exchange::cancelled) {
                return Err(cancelled);
            }
            let known = state.known.get(host);
            // Only a result that is newer than this wait: `resolve` has already rejected an older one.
            if let Some(known) = known.filter(|known| known.at >= asked && !known.is_outdated) {
                return known.answer();
            }
            if asked.elapsed() >= self.limit {
                // Outdated addresses are better than none.
                return match known {
                    Some(known) if !known.addresses.is_empty() => Ok(known.addresses.clone()),
                    _ => Err(Error::new(
                        ErrorKind::ConnectTimedOut,
                        format!("looking up the name {host} timed out after {:?}", self.limit),
                    )),
                };
            }
            state.request(host);
            let again = self.start(state)?;
            self.changed.wait_until(state, again.map_or(until, |again| again.min(until)));
        }
    }

    /// Starts the lookups that may run now. If names are left in the queue, returns when to call this again.
    fn start(self: &Arc<Self>, state: &mut State) -> Result<Option<Instant>, Error> {
        loop {
            let (host, id) = match state.poll_start(Instant::now()) {
                Start::Name(host, id) => (host, id),
                Start::At(at) => return Ok(Some(at)),
                Start::Nothing => return Ok(None),
            };
            let (lookups, first) = (Arc::clone(self), host.clone());
            let spawned =
                thread::Builder::new().name("windway-lookup".into()).spawn(move || lookups.run(first, id));
            if let Err(error) = spawned {
                // `poll_start` has already counted it as running.
                state.running.pop();
                if state.running.is_empty() {
                    state.pending.remove(&host);
                    let why = "can't start a thread for a name lookup";
                    return Err(Error::new(ErrorKind::Io(error.kind()), why).with_cause(error));
                }
                // A running lookup thread takes it from the queue.
                state.queue.push_front(host);
                return Ok(None);
            }
        }
    }

    /// Main function of a lookup thread.
    fn run(&self, first: String, id: u64) {
        let mut next = Some((first, id));
        while let Some((host, id)) = next {
            // Without this, a panic would leave its entry in `running` forever.
            let answer = contain("a name lookup", || (self.look_up)(&host))
                .unwrap_or_else(|panic| Err(io::Error::other(panic.to_string())));
            let mut state = self.state.lock();
            state.end(&host, id, answer);
            next = match state.poll_start(Instant::now()) {
                Start::Name(host, id) => Some((host, id)),
                Start::At(_) | Start::Nothing => None,
            };
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    fn begin_wait(&mut self, host: &str) {
        *self.waiters.entry(host.to_owned()).or_default() += 1;
    }

    fn end_wait(&mut self, host: &str) {
        let Some(waiters) = self.waiters.get_mut(host) else { return };
        *waiters -= 1;
        if *waiters == 0 {
            self.waiters.remove(host);
        }
    }

    /// Queues a lookup of `host`, unless one is queued or running.
    fn request(&mut self, host: &str) {
        if self.pending.insert(host.to_owned()) {
            self.queue.push_back(host.to_owned());
        }
    }

    /// The next name to look up, if a lookup may start now.
    fn poll_start(&mut self, now: Instant) -> Start {
        // Names for which no thread waits any more are not looked up.
        while self.queue.front().is_some_and(|host| !self.waiters.contains_key(host)) {
            if let Some(given_up) = self.queue.pop_front() {
                self.pending.remove(&given_up);
            }
        }
        if self.queue.is_empty() || self.running.len() >= MAX_THREADS {
            return Start::Nothing;
        }
        let slow_at = self.running.iter().map(|running| running.began + SLOW).filter(|at| *at > now);
        if slow_at.clone().count() >= MAX_PROMPT {
            return slow_at.min().map_or(Start::Nothing, Start::At);
        }
        let Some(host) = self.queue.pop_front() else { return Start::Nothing };
        self.started += 1;
        self.running.push(Running { id: self.started, began: now, network: self.network });
        Start::Name(host, self.started)
    }

    /// Records the result of a lookup.
    fn end(&mut self, host: &str, id: u64, answer: io::Result<Vec<IpAddr>>) {
        let at = self.running.iter().position(|running| running.id == id);
        let Some(running) = at.map(|at| self.running.remove(at)) else { return };
        if running.network == self.network {
            self.pending.remove(host);
            self.learn(host.to_owned(), answer);
        }
    }

    fn change_network(&mut self) {
        self.network += 1;
        self.unresponsive.clear();
        self.known.values_mut().for_each(|known| known.is_outdated = true);
        let queued = self.queue.iter().cloned().collect();
        // Running lookups are no longer pending, so that the waiting threads request them again.
        self.pending = queued;
    }

    fn learn(&mut self, host: String, answer: io::Result<Vec<IpAddr>>) {
        if self.known.len() >= MAX_HOSTS && !self.known.contains_key(&host) {
            self.known.clear();
        }
        let at = Instant::now();
        let failed = |cause: Option<io::Error>| {
            let error = Error::new(ErrorKind::HostNotFound, format!("the host {host} was not found"));
            Some(match cause {
                Some(cause) => error.with_cause(cause),
                None => error,
            })
        };
        let (addresses, failure) = match answer {
            Ok(addresses) if addresses.is_empty() => (Vec::new(), failed(None)),
            Ok(addresses) => (addresses, None),
            Err(error) => (Vec::new(), failed(Some(error))),
        };
        let unknown = Known { addresses: Vec::new(), failure: None, at, is_outdated: false };
        let known = self.known.entry(host).or_insert(unknown);
        known.at = at;
        known.is_outdated = false;
        known.failure = failure;
        // After a failure the addresses of an earlier lookup stay: they often still work.
        if known.failure.is_none() {
            known.addresses = addresses;
        }
    }
}

impl Known {
    fn answer(&self) -> Result<Vec<IpAddr>, Error> {
        match &self.failure {
            Some(error) if self.addresses.is_empty() => Err(error.clone()),
            _ => Ok(self.addresses.clone()),
        }
    }
}

/// Alternates the address families, beginning with that of the first address (RFC 8305, section 4), so that a broken family
/// costs only one attempt.
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (a, b): (Vec<&IpAddr>, Vec<&IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(addresses.len());
    for index in 0..a.len().max(b.len()) {
        ordered.extend(a.get(index).copied().copied());
        ordered.extend(b.get(index).copied().copied());
    }
    ordered
}

#[cfg(test)]
mod tests;
