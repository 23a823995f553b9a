//! Resolves host names, and caches the results.
//!
//! `getaddrinfo` can't be interrupted, so lookups run on a few detached threads that own only the cache and end when the queue
//! is empty. A thread that waits for a lookup returns with its result, at its time limit, or after a cancel.
//!
//! [`LookupQueue`] decides which name is looked up next, [`NameCache`] which results are used. A slow lookup makes room for
//! another one, and no thread watches for that: a thread that waits for a queued name wakes when the next lookup becomes slow, and
//! starts the lookup thread itself. In the same way it repeats a lookup that has no result yet.

mod lookup_queue;
mod name_cache;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::lookup_queue::{LookupQueue, Start};
use self::name_cache::NameCache;
use crate::client::exchange::Exchange;
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;
use crate::origin::Origin;
use crate::thread;

/// Maximum number of addresses of one name that are tried. Each costs a thread and a socket until one answers.
const MAX_ADDRESSES: usize = 16;

/// How long a request waits for a new lookup of a name whose addresses are known from an earlier one: then it uses those. The value that
/// RFC 8767, section 5 recommends for the client response timer.
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// Resolves a name. Blocks without a limit.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The cache, and the lookups that fill it.
pub(crate) struct Lookups {
    state: Mutex<State>,
    /// Waiting threads block here. Notified after each result, by `outdate`, and by `wake_all` after a cancel or a change of
    /// network.
    changed: Condvar,
    /// Longest time for which a request waits for a lookup.
    limit: Duration,
    look_up: Box<LookUp>,
}

#[derive(Debug)]
struct State {
    cache: NameCache,
    queue: LookupQueue,
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
        let state = State { cache: NameCache::new(max_age), queue: LookupQueue::default() };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Arc::new(Self { state, changed, limit, look_up: Box::new(look_up) })
    }

    /// Uses `addresses` for `host`, without a lookup.
    #[cfg(test)]
    pub(crate) fn preset(&self, host: &str, addresses: &[IpAddr]) {
        self.state.lock().cache.handle_result(host, Ok(addresses.to_vec()), Instant::now());
    }

    /// Wakes all waiting threads, which check whether they were cancelled.
    pub(crate) fn wake_all(&self) {
        // Under the lock: a thread between its check and its wait would miss the notification.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Marks all results as outdated, after a change of network. They are only used if a new lookup has not succeeded after
    /// [`STALE_AFTER`].
    pub(crate) fn outdate(&self) {
        let mut state = self.state.lock();
        state.cache.handle_network_change();
        // Running lookups may hang on the old network or return addresses of it, so names that threads wait for are looked up again
        // beside them.
        state.queue.handle_network_change();
        // The waiting threads start the new lookups.
        self.changed.notify_all();
    }

    /// Records that `address` did not accept a connection, or did not answer on it, while another address of the host did.
    pub(crate) fn record_unresponsive(&self, address: IpAddr) {
        self.state.lock().cache.handle_unresponsive(address, Instant::now());
    }

    /// Addresses of `origin`, in the order in which to try them. Blocks until they are known, for at most the limit. A cancel
    /// of `exchange` ends the wait.
    pub(crate) fn addresses(
        self: &Arc<Self>,
        origin: &Origin,
        exchange: &Exchange,
    ) -> Result<Vec<SocketAddr>, Error> {
        let addresses = self.resolve(&origin.host, Some(exchange))?;
        let ordered = self.state.lock().cache.order(&addresses, Instant::now());
        let tried = ordered.into_iter().take(MAX_ADDRESSES);
        Ok(tried.map(|address| SocketAddr::new(address, origin.port)).collect())
    }

    /// The addresses of `host`. Blocks until they are known, for at most the limit.
    fn resolve(self: &Arc<Self>, host: &str, exchange: Option<&Exchange>) -> Result<Vec<IpAddr>, Error> {
        // An IP address needs no lookup. IPv6 addresses are in brackets (RFC 3986, section 3.2.2).
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let mut state = self.state.lock();
        if let Some(addresses) = state.cache.fresh(host, Instant::now()) {
            return Ok(addresses.to_vec());
        }
        state.queue.begin_wait(host);
        let answer = self.wait_for(&mut state, host, exchange);
        state.queue.end_wait(host);
        answer
    }

    fn wait_for(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        host: &str,
        exchange: Option<&Exchange>,
    ) -> Result<Vec<IpAddr>, Error> {
        let began = Instant::now();
        // Outdated addresses are better than a long wait, and than none.
        let known = state.cache.last_addresses(host).map(<[IpAddr]>::to_vec);
        let until = began + if known.is_some() { self.limit.min(STALE_AFTER) } else { self.limit };
        loop {
            if let Some(cancelled) = exchange.and_then(Exchange::cancelled) {
                return Err(cancelled);
            }
            // Only a result that is newer than this wait: `resolve` has already rejected an older one.
            if let Some(result) = state.cache.result_since(host, began) {
                return result;
            }
            if Instant::now() >= until {
                return known.ok_or_else(|| {
                    Error::new(
                        ErrorKind::ConnectTimedOut,
                        format!("looking up the name {host} timed out after {:?}", self.limit),
                    )
                });
            }
            let now = Instant::now();
            state.queue.request(host, now);
            let again = self.start(state)?;
            // The lookup that has just started may itself have to be repeated.
            let repeat = state.queue.request(host, now);
            let wake = [again, repeat].into_iter().flatten().fold(until, Instant::min);
            self.changed.wait_until(state, wake);
        }
    }

    /// Starts the lookups that may run now. If names are left in the queue, returns when to call this again.
    fn start(self: &Arc<Self>, state: &mut State) -> Result<Option<Instant>, Error> {
        loop {
            let (host, id) = match state.queue.poll_start(Instant::now()) {
                Start::Name(host, id) => (host, id),
                Start::At(at) => return Ok(Some(at)),
                Start::Nothing => return Ok(None),
            };
            let (lookups, first) = (Arc::clone(self), host.clone());
            if let Err(error) = thread::start("lookup", move || lookups.run(first, id)) {
                if state.queue.handle_not_started(host) {
                    // A running lookup thread takes it from the queue.
                    return Ok(None);
                }
                return Err(error);
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
            if state.queue.handle_end(id, answer.is_ok()) {
                state.cache.handle_result(&host, answer, Instant::now());
            }
            next = match state.queue.poll_start(Instant::now()) {
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

#[cfg(test)]
mod tests;
