//! Looks names up, and remembers.
//!
//! `getaddrinfo` can't be interrupted, so lookups run on a few detached threads that hold nothing but the cache and end
//! when there is nothing left to look up. Whoever waits for one is released by the answer, its limit, or a cancel.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::exchange::{Exchange, Over};
use super::transport::carry;
use super::warm::Keeper;
use crate::error::{Error, ErrorKind};

/// Lookups at once.
const MAX_THREADS: usize = 4;

/// Hosts remembered; the cache is emptied beyond it.
const MAX_HOSTS: usize = 1024;

/// The cache, and the lookups that fill it.
#[derive(Debug)]
pub(super) struct Lookups {
    state: Mutex<State>,
    /// Notified by each answer, and by `wake_all` after a cancel.
    changed: Condvar,
    /// How long an answer is used before the name is looked up again.
    max_age: Duration,
    limit: Duration,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<String, Known>,
    /// Names that no thread has taken up.
    queue: VecDeque<String>,
    /// Names in `queue` or on a thread.
    pending: HashSet<String>,
    threads: usize,
}

#[derive(Debug)]
struct Known {
    /// The last good answer; empty if there never was one.
    addresses: Vec<IpAddr>,
    /// The last answer, if it was a failure.
    failure: Option<Error>,
    /// When the last answer came, good or not.
    at: Instant,
}

impl Lookups {
    pub(super) fn new(max_age: Duration, limit: Duration) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), max_age, limit })
    }

    /// Lets every waiter look again whether it was cancelled.
    pub(super) fn wake_all(&self) {
        // Under the lock, so that nobody is between the look and the wait.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Forgets what was found out so far, except as the last good answer.
    pub(super) fn outdate(&self) {
        let mut state = self.state.lock();
        let long_ago = Instant::now().checked_sub(self.max_age);
        for known in state.known.values_mut() {
            known.at = long_ago.unwrap_or(known.at);
        }
    }

    /// The addresses of `host`. Blocks until they are known, for the limit at most.
    fn resolve(self: &Arc<Self>, host: &str, exchange: Option<&Exchange>) -> Result<Vec<IpAddr>, Error> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let asked = Instant::now();
        let mut state = self.state.lock();
        if let Some(known) = state.known.get(host) {
            if known.failure.is_none() && known.at.elapsed() < self.max_age {
                return Ok(known.addresses.clone());
            }
        }
        self.request(&mut state, host)?;
        loop {
            if let Some(cancelled) = exchange.and_then(Exchange::cancelled) {
                return Err(cancelled);
            }
            let answer = state.known.get(host).filter(|known| known.at >= asked);
            let timed_out = asked.elapsed() >= self.limit;
            match (answer, timed_out) {
                (Some(known), _) => return known.answer(),
                // The last good answer is better than none.
                (None, true) => {
                    return match state.known.get(host) {
                        Some(known) if !known.addresses.is_empty() => Ok(known.addresses.clone()),
                        _ => Err(Error::new(
                            ErrorKind::ConnectTimedOut,
                            format!("the name {host} was not found in time"),
                        )),
                    };
                }
                (None, false) => {
                    self.changed.wait_until(&mut state, asked + self.limit);
                }
            }
        }
    }

    /// Sees to it that `host` is being looked up.
    fn request(self: &Arc<Self>, state: &mut State, host: &str) -> Result<(), Error> {
        if !state.pending.insert(host.to_owned()) {
            return Ok(());
        }
        state.queue.push_back(host.to_owned());
        if state.threads == MAX_THREADS {
            return Ok(());
        }
        let lookups = Arc::clone(self);
        let spawned = thread::Builder::new().name("windway-lookup".into()).spawn(move || lookups.run());
        match spawned {
            Ok(_detached) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                state.queue.clear();
                state.pending.clear();
                let kind = ErrorKind::Io(error.kind());
                return Err(
                    Error::new(kind, "a thread for a name lookup could not be started").with_cause(error)
                );
            }
            // Those that run will get to it.
            Err(_) => {}
        }
        Ok(())
    }

    /// A lookup thread.
    fn run(&self) {
        let mut state = self.state.lock();
        while let Some(host) = state.queue.pop_front() {
            drop(state);
            let answer = (host.as_str(), 0).to_socket_addrs();
            let answer = answer.map(|addresses| addresses.map(|address| address.ip()).collect());
            state = self.state.lock();
            state.pending.remove(&host);
            state.learn(host, answer);
            self.changed.notify_all();
        }
        state.threads -= 1;
    }
}

impl State {
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
        let known = self.known.entry(host).or_insert(Known { addresses: Vec::new(), failure: None, at });
        known.at = at;
        known.failure = failure;
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

/// ureq's way to the lookups.
#[derive(Debug)]
pub(super) struct CachingResolver {
    lookups: Arc<Lookups>,
    /// Where a connection that is ready spares the lookup.
    stock: Option<Arc<Keeper>>,
}

impl CachingResolver {
    pub(super) fn new(lookups: &Arc<Lookups>) -> Self {
        Self { lookups: Arc::clone(lookups), stock: None }
    }

    /// Looks nothing up, and finds no address, where a connection of `stock` is ready.
    pub(super) fn beside(lookups: &Arc<Lookups>, stock: &Arc<Keeper>) -> Self {
        Self { stock: Some(Arc::clone(stock)), ..Self::new(lookups) }
    }
}

impl Resolver for CachingResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let exchange = Exchange::current();
        let is_new = exchange.as_ref().is_some_and(|exchange| exchange.over == Over::New);
        if self.stock.as_ref().is_some_and(|stock| !is_new && stock.is_ready(uri)) {
            return Ok(self.empty());
        }
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let addresses = self.lookups.resolve(host, exchange.as_deref()).map_err(carry)?;
        let mut resolved = self.empty();
        for address in interleave(&addresses).into_iter().take(16) {
            resolved.push(SocketAddr::new(address, port));
        }
        Ok(resolved)
    }
}

/// The families by turns, beginning with that of the first address, so that one dead family costs one attempt.
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
mod tests {
    use super::*;

    fn lookups() -> Arc<Lookups> {
        Lookups::new(Duration::from_secs(60), Duration::from_secs(5))
    }

    #[test]
    fn an_address_needs_no_lookup() {
        let lookups = lookups();
        assert_eq!(lookups.resolve("127.0.0.1", None).unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(lookups.resolve("[::1]", None).unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(lookups.state.lock().threads, 0);
    }

    #[test]
    fn a_name_is_looked_up_once() {
        let lookups = lookups();
        let first = lookups.resolve("localhost", None).unwrap();
        assert!(first.iter().all(IpAddr::is_loopback) && !first.is_empty());
        let at = lookups.state.lock().known["localhost"].at;
        lookups.resolve("localhost", None).unwrap();
        assert_eq!(lookups.state.lock().known["localhost"].at, at);
    }

    #[test]
    fn the_last_good_answer_is_used_while_a_lookup_fails() {
        let mut state = State::default();
        let good: IpAddr = "192.0.2.7".parse().unwrap();
        state.learn("host".into(), Ok(vec![good]));
        state.learn("host".into(), Err(io::Error::other("no name server")));
        assert_eq!(state.known["host"].answer().unwrap(), [good]);
        state.learn("other".into(), Err(io::Error::other("no name server")));
        assert_eq!(state.known["other"].answer().unwrap_err().kind(), ErrorKind::HostNotFound);
    }

    #[test]
    fn a_cancelled_waiter_is_released() {
        let lookups = lookups();
        let exchange = Exchange::default();
        exchange.abort(crate::CancelReason::Fetch);
        assert!(lookups.resolve("localhost", Some(&exchange)).unwrap_err().is_cancelled());
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let given = ["::1", "::2", "127.0.0.1"].map(parse);
        assert_eq!(interleave(&given), ["::1", "127.0.0.1", "::2"].map(parse));
    }
}
