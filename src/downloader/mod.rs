//! Fetches with priorities, on a fixed number of threads: the only owner of HTTP in a process.
//!
//! A program that only reads files or radios needs [`Downloader`] alone. One that has its own protocol or its own storage
//! [registers](Downloader::register) a peer:
//!
//! - *By itself*: [`PeerHandle::execute`] and [`PeerHandle::batch`] block until response heads arrive. The caller reads the
//!   bodies. This work is always urgent.
//! - *When asked*: after [`PeerHandle::wake`], the downloader calls [`Peer::next_fetch`] each time a worker is free. So
//!   what is fetched is decided as late as possible. A worker writes the body into the fetch's [`Sink`].
//!
//! # Threads
//!
//! | thread | count | what it does | what it waits for |
//! |---|---|---|---|
//! | `windway-scheduler` | 1 | applies the schedule's deadlines | its signal, with the schedule's next deadline |
//! | `windway-watchdog` | 1 | reports a fetch that is stalled on a worker; ends jobs that are cancelled while they wait, whose user code must hold up neither a caller nor the schedule | its signal, with the next time to look |
//! | `windway-fetch-N` | `max_concurrent` | asks peers, runs fetches, writes into sinks | the queue of tasks; the network, with a limit |
//!
//! Callers, workers and the scheduler thread share one schedule behind a combiner. A thread posts its message and, if no
//! other thread holds the schedule, applies all posted messages itself: it moves submissions from the peers' channels into
//! the queues and gives the workers their tasks. So a fetch costs two thread switches, to the worker and back, and a worker
//! that is done gets its next task without another one.
//!
//! ```text
//!  execute ──▶ peer's channel ─┐                     ┌─▶ task 1 ─▶ windway-fetch-1 ─┐
//!  wake ───────────────────────┼─▶ posted ─▶ apply ──┼─▶ task 2 ─▶ windway-fetch-2 ─┼─▶ sink or caller
//!  cancel, promote, drop ──────┘      ▲              └─▶ signal ─▶ windway-scheduler│
//!                                     └────────── finished, answered, retry ────────┘
//! ```
//!
//! User code runs on these threads, and on callers' threads within `execute`, a read, a cancel or a drop. It is called
//! without a lock. The [crate's documentation](crate) lists what it may call.

mod batch;
mod bodies;
mod budget;
mod credits;
mod epoch;
mod fetch;
mod handle;
mod origins;
mod pacer;
mod peer;
mod peer_handle;
mod rate_limiter;
mod reply;
mod response;
mod rules;
mod runtime;
mod schedule;
mod shared_budget;
mod sink;
mod stats;
mod waker;

use crate::types::Priority;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use self::handle::Handle;
use self::shared_budget::SharedBudget;
use self::stats::PeerStats;
use crate::client::{HttpClient, Request};
use crate::config::DownloaderConfig;
use crate::downloader::runtime::core::Core;
use crate::downloader::runtime::message::Channel;
use crate::downloader::runtime::task::PeerEntry;
use crate::error::{Error, ErrorKind};
use crate::event::Subscriber;
use crate::foreign::Foreign;
use crate::safe_url::HttpUrl;

pub use self::stats::Totals;
pub use crate::buffer::Buffer;
pub use crate::cancel::{CancelGuard, CancelReason};
#[cfg(feature = "http3")]
pub use crate::client::Http3Stats;
pub use crate::client::{ResponseHead, Validator};
pub(crate) use crate::downloader::runtime::handoff::{Driven, Handoff};
pub(crate) use crate::downloader::runtime::lend::{Lent, LentInterrupter};
pub(crate) use crate::downloader::runtime::own_thread::enter_own_thread;
pub use crate::types::RequestId;
pub use batch::Batch;
pub use epoch::Epoch;
pub use fetch::Fetch;
pub(crate) use origins::BesideOpening;
pub use peer::{Next, Peer};
pub use peer_handle::PeerHandle;
pub use response::Response;
pub(crate) use rules::OtherTags;
pub(crate) use shared_budget::{BudgetShare, Buffering};
pub use sink::{Flow, Outcome, Sink};
pub use waker::Waker;

/// Opens streams and radios, and runs all fetches of a process. Make one, clone it, and share it.
///
/// [`new`](Self::new) starts no thread; the first stream, radio or peer does. The threads end with [`stop`](Self::stop), or
/// when the last handle is dropped: the downloader, its clones, its peers' handles, streams, radios and open responses.
///
/// ```no_run
/// use windway::{Downloader, DownloaderConfig};
///
/// let downloader = Downloader::new(DownloaderConfig::new().max_concurrent(4))?;
/// let stream = downloader.open("https://example.com/a.flac")?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct Downloader(Arc<Handle>);

/// Numbers of a downloader: what runs and waits now, and totals since its start. From [`Downloader::stats`].
///
/// ```
/// let downloader = windway::Downloader::new(windway::DownloaderConfig::default())?;
/// assert_eq!(downloader.stats().busy_workers, 0);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Queued fetches, and peers that have not been asked since they were woken, by class of (peer, fetch): High/High,
    /// High/Low, Low/High, Low/Low.
    pub queued: [usize; 4],
    /// Prefetches that are blocked on the origin limit, `max_per_origin`.
    pub blocked: usize,
    /// Fetches that wait for their next attempt.
    pub retrying: usize,
    /// Preempted prefetches that keep their connection. Also counted in `queued`.
    pub preempted: usize,
    /// Workers that run a fetch.
    pub busy_workers: usize,
    /// Workers that run nothing.
    pub idle_workers: usize,
    /// Response bodies that callers and sinks hold open.
    pub open_bodies: usize,
    /// Registered peers.
    pub peers: usize,
    /// Requests sent, including redirects and retries.
    pub requests: u64,
    /// Connections opened, including preconnected ones.
    pub connections_dialled: u64,
    /// Connections that were preconnected: opened before a request needed them.
    pub connections_preconnected: u64,
    /// Idle connections: kept alive, or preconnected.
    pub connections_idle: usize,
    /// Connections over HTTP/3, and their streams.
    #[cfg(feature = "http3")]
    pub http3: Http3Stats,
    /// Numbers of fetches by outcome, of responses and of bytes.
    pub totals: Totals,
}

/// The downloader that [`Downloader::global`] shares.
struct Global {
    /// Options that the program has set. `None` stands for the defaults.
    config: Option<DownloaderConfig>,
    /// The options can't be set any more.
    is_used: bool,
    handle: Weak<Handle>,
}

static GLOBAL: Mutex<Global> = Mutex::new(Global { config: None, is_used: false, handle: Weak::new() });

impl Downloader {
    /// A new downloader. Starts no thread and opens no connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`], naming the field.
    pub fn new(config: DownloaderConfig) -> Result<Self, Error> {
        let config = config.checked()?;
        let client = HttpClient::new(&config.client)?;
        Ok(Self::over(client, config))
    }

    /// A downloader without a network: it answers every fetch at once, with an empty body. For tests and benches of what is
    /// around the network.
    #[cfg(any(test, feature = "bench"))]
    #[doc(hidden)]
    pub fn without_network(config: DownloaderConfig) -> Result<Self, Error> {
        let config = config.checked()?;
        let client = HttpClient::without_network(&config.client)?;
        Ok(Self::over(client, config))
    }

    fn over(client: HttpClient, config: DownloaderConfig) -> Self {
        let budget = Arc::new(SharedBudget::new(config.max_buffered));
        let core = Arc::new(Core::new(config, client));
        Self(Arc::new(Handle::new(core, budget)))
    }

    /// Adds a stream to those that share the memory for buffered bytes.
    pub(crate) fn join_budget(&self, stream: Weak<dyn Buffering>) -> BudgetShare {
        self.0.budget.join(stream)
    }

    /// The downloader that the whole process shares, which [`open`](crate::open()) uses. It is made by the first call, and
    /// again if its last handle was dropped or it was stopped. It has default options, or those of
    /// [`configure_global`](Self::configure_global).
    ///
    /// It ends with its last handle, stream and peer, and what was set on it ends too: its connections, its subscriptions,
    /// [`preconnect`](Self::preconnect), [`set_metered`](Self::set_metered). A player that opens one stream after another
    /// keeps a handle for as long as it runs:
    ///
    /// ```no_run
    /// # fn play(stream: windway::Stream) {}
    /// let downloader = windway::Downloader::global()?;
    /// downloader.set_metered(true);
    /// for url in ["https://example.com/1.mp3", "https://example.com/2.mp3"] {
    ///     play(downloader.open(url)?); // the second track uses the connection of the first
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// [`stop`](Self::stop) ends the streams of all parts of the program that share it, but no stream that is opened later.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn global() -> Result<Self, Error> {
        // Declared before the lock, so that it is dropped after it: the drop of the last handle joins threads.
        let stopped;
        let mut global = GLOBAL.lock();
        global.is_used = true;
        match global.handle.upgrade() {
            Some(handle) if !handle.core.root.is_cancelled() => return Ok(Self(handle)),
            handle => stopped = handle,
        }
        let downloader = Self::new(global.config.clone().unwrap_or_default())?;
        global.handle = Arc::downgrade(&downloader.0);
        drop(global);
        // Without the lock: the drop may be that of the last handle, which joins threads, and a callback on one of them may
        // call `global`.
        drop(stopped);
        Ok(downloader)
    }

    /// Sets the options of the [`global`](Self::global) downloader, before its first use. The last call counts.
    ///
    /// ```no_run
    /// use windway::{Downloader, DownloaderConfig};
    ///
    /// Downloader::configure_global(DownloaderConfig::new().max_concurrent(12))?;
    /// let stream = windway::open("https://example.com/a.flac")?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`], naming the field; [`ErrorKind::InvalidInput`] once `global` was called, also by
    /// [`open`](crate::open()).
    pub fn configure_global(config: DownloaderConfig) -> Result<(), Error> {
        // Finds what is wrong with the options here, and not in `global`.
        drop(Self::new(config.clone())?);
        let mut global = GLOBAL.lock();
        if global.is_used {
            let why = "the global downloader was used before it was configured";
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        let replaced = global.config.replace(config);
        drop(global);
        // Outside of the lock: it may hold a callback.
        drop(replaced);
        Ok(())
    }

    /// Adds a peer. `()` is a peer that fetches by `execute` and `batch` only. The first peer starts the threads.
    ///
    /// ```no_run
    /// use windway::{Downloader, Fetch, Priority};
    ///
    /// let peer = Downloader::global()?.register((), Priority::High)?;
    /// let cover = peer.execute(Fetch::get("https://example.com/cover.jpg")?)?.bytes(8 << 20)?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`] once the downloader has stopped; [`ErrorKind::Io`] if a thread can't be started.
    pub fn register(&self, peer: impl Peer + 'static, priority: Priority) -> Result<PeerHandle, Error> {
        self.0.start()?;
        let core = &self.0.core;
        let token = core.root.child(CancelReason::Peer);
        let stats = Arc::new(PeerStats::new(core.config.event_capacity, &core.pacer));
        let channel = Arc::new(Channel::default());
        let sender = Arc::downgrade(&channel);
        let entry = Arc::new(PeerEntry {
            peer: Mutex::new(Foreign::new(Box::new(peer))),
            token: token.clone(),
            stats: Arc::clone(&stats),
        });
        match core.register(entry, channel, priority) {
            Some(key) => Ok(PeerHandle::new(Arc::clone(&self.0), key, token, stats, sender)),
            None => Err(Error::cancelled(CancelReason::Shutdown)),
        }
    }

    /// Cancels all fetches, wakes all blocked threads, and blocks until the downloader's threads have ended, also if another
    /// call has stopped it and still waits. In a callback it does not wait for the threads, because the callback may run on
    /// one of them; a later call outside of callbacks does.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Keeps this number of connections to the origin of `url` ready, with TCP and TLS established, for as long as the origin
    /// is used. Does not block. Does nothing if a proxy is configured.
    ///
    /// ```no_run
    /// let downloader = windway::Downloader::global()?;
    /// downloader.preconnect("https://cdn.example.com/", 2)?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] and [`ErrorKind::UnsupportedScheme`].
    pub fn preconnect(&self, url: &str, connections: usize) -> Result<(), Error> {
        let request = Request::get(url)?;
        self.0.core.client.preconnect(&request, connections);
        Ok(())
    }

    /// Blocks until every connection that is being preconnected is ready or has failed. For tests and benches.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    pub fn await_preconnects(&self) {
        self.0.core.client.await_preconnects();
    }

    /// Lets blocked readers wait for a worker, instead of running their own fetches. To compare pools of other sizes.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    pub fn without_lending(self) -> Self {
        self.0.core.never_lends.store(true, std::sync::atomic::Ordering::Relaxed);
        self
    }

    /// Call this when the network has changed, for example after sleep or a change of Wi-Fi. Closes idle connections and
    /// repeats DNS lookups. Running fetches continue, and detect by themselves whether their connection still works.
    pub fn network_changed(&self) {
        self.0.core.client.network_changed();
    }

    /// Sets whether the network is metered, from now on: see [`DownloaderConfig::metered`].
    pub fn set_metered(&self, metered: bool) {
        self.0.core.set_metered(metered);
    }

    /// True if the network is metered.
    pub fn is_metered(&self) -> bool {
        self.0.core.is_metered()
    }

    /// Sets how many bytes a second all fetches together may read, from now on, or `None` for no limit: see
    /// [`DownloaderConfig::max_bandwidth`]. It also applies to fetches that run.
    ///
    /// ```no_run
    /// let downloader = windway::Downloader::global()?;
    /// downloader.set_max_bandwidth(500_000)?; // while a call is on
    /// downloader.set_max_bandwidth(None)?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for 0, with which nothing would ever arrive.
    pub fn set_max_bandwidth(&self, bytes_per_second: impl Into<Option<u64>>) -> Result<(), Error> {
        let limit = bytes_per_second.into();
        let rate = limit.and_then(NonZeroU64::new);
        if limit.is_some() && rate.is_none() {
            let why = "set_max_bandwidth: the limit is 0, and no byte would ever arrive";
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        self.0.core.pacer.set_limit(rate);
        Ok(())
    }

    /// The limit of [`set_max_bandwidth`](Self::set_max_bandwidth) or [`DownloaderConfig::max_bandwidth`], in bytes a second.
    pub fn max_bandwidth(&self) -> Option<u64> {
        self.0.core.pacer.limit().map(NonZeroU64::get)
    }

    /// Subscribes to the events of all fetches, from now on.
    pub fn subscribe(&self) -> Subscriber {
        self.0.core.stats.bus.subscribe()
    }

    /// Bandwidth of all transfers together, in bytes a second, over the last seconds in which one of them waited for the network.
    /// `None` until enough was transferred. Time in which a reader holds a body back does not count, nor do the bytes of a
    /// [`Radio`](crate::Radio), which arrive at the rate of the station.
    ///
    /// A slow server lowers the result: see [`bandwidth_of`](Self::bandwidth_of).
    pub fn bandwidth(&self) -> Option<f64> {
        self.0.core.stats.bandwidth()
    }

    /// As [`bandwidth`](Self::bandwidth), for the origin of `url` alone: its scheme, host and port. After a redirect the bytes
    /// count for the origin of the target. Kept for the 64 origins that sent bytes last. `None` for other origins, and if
    /// `url` is not a URL.
    pub fn bandwidth_of(&self, url: &str) -> Option<f64> {
        let url = HttpUrl::of(&url.into())?;
        self.0.core.stats.bandwidth_of(url.origin())
    }

    /// Numbers of what runs and waits now, and totals.
    pub fn stats(&self) -> Stats {
        let core = &self.0.core;
        let counts = core.counts();
        let client = core.client.stats();
        Stats {
            queued: counts.queued,
            blocked: counts.blocked,
            retrying: counts.retrying,
            preempted: counts.preempted,
            busy_workers: counts.running,
            idle_workers: counts.idle,
            open_bodies: core.bodies.count(),
            peers: counts.peers,
            requests: client.requests,
            connections_dialled: client.dialled,
            connections_preconnected: client.preconnected,
            connections_idle: client.idle,
            #[cfg(feature = "http3")]
            http3: core.client.http3_stats(),
            totals: core.stats.totals(),
        }
    }
}

impl fmt::Debug for Downloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downloader").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
