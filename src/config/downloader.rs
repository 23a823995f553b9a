//! `DownloaderConfig`: workers, limits and retries.

use std::time::Duration;

use super::client::ClientConfig;
#[cfg(doc)]
use super::file::FileConfig;
use super::hang_policy::HangPolicy;
use super::limits::bound;
#[cfg(doc)]
use super::radio::RadioConfig;
#[cfg(doc)]
use super::storage::StorageConfig;
use crate::error::{Error, ErrorKind};

/// Maximum of `max_concurrent`. Each worker is a thread: more concurrent fetches need another design.
const MAX_WORKERS: usize = 1024;

/// The default of [`DownloaderConfig::hang_timeout`]. Longer than the sum that `checked` computes for the default client: 45 s.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// Margin between the longest silence that the client's limits allow and `hang_timeout`.
const HANG_MARGIN: Duration = Duration::from_secs(10);

/// Options of a [`Downloader`](crate::Downloader): its workers, limits and retries.
///
/// ```
/// use windway::{Downloader, DownloaderConfig};
///
/// let downloader = Downloader::new(DownloaderConfig::new().max_concurrent(8).reserved(2))?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloaderConfig {
    /// Options of HTTP requests and connections.
    pub client: ClientConfig,
    /// Number of worker threads, which is the maximum number of fetches that run at once, apart from those of blocked reads:
    /// while all workers are busy, a read or a wait for bytes that blocks runs its fetch on its own thread. At most 1024. Default: 6.
    pub max_concurrent: usize,
    /// Number of workers that run urgent fetches only. Must be less than `max_concurrent`; with one worker it counts as
    /// 0. Default: 1.
    pub reserved: usize,
    /// Maximum number of prefetches from one origin, running or preempted. Urgent fetches are not limited. Default: 4.
    pub max_per_origin: usize,
    /// Maximum number of preempted prefetches that keep their connection open. Beyond it the connection is closed, and
    /// the fetch continues from its offset on another one. 0 keeps none. Default: `None`, twice `max_concurrent`.
    pub max_preempted: Option<usize>,
    /// Delay after the last urgent fetch starts before a prefetch may start. Default: zero.
    pub prefetch_delay: Duration,
    /// A prefetch that has waited this long goes before urgent work on the next free worker that is not reserved, and is not
    /// preempted for one second or 256 KiB, so prefetches do not starve. The time counts from when it was queued, or from its
    /// last turn of that length. `prefetch_delay` does not hold it up; it may preempt other prefetches, but never urgent
    /// work. At most half of the workers that are not reserved, but at least one, are protected in this way at the same
    /// time. Between two such turns, urgent work that waits is served. Default: 10 s.
    pub aging_threshold: Duration,
    /// Maximum number of submitted fetches of one peer that have no response yet. `execute` and `batch` block while the
    /// limit is reached. Default: 32.
    pub peer_capacity: usize,
    /// Maximum number of response bodies that callers, and sinks that detached them, hold open. Beyond it `execute` and
    /// detaching fail with [`ErrorKind::TooManyOpenBodies`], and a [`Batch`](crate::downloader::Batch) sends no more requests until
    /// a body is closed. Requests that a batch has already sent may exceed the limit by up to `peer_capacity`. Default:
    /// 64.
    pub max_open_bodies: usize,
    /// Maximum number of retries of a fetch. The count starts again when an attempt has received 64 KiB, or new bytes
    /// over at least one second. A fetch can override it. Default: 5.
    pub max_retries: u32,
    /// Publishes [`Event::Slow`](crate::event::Event::Slow) once when a fetch has run this long. The fetch is not interrupted.
    /// Default: 2 s.
    pub soft_timeout: Duration,
    /// A fetch on a worker that makes no progress for this long is reported as stalled, by an
    /// [`Event::Hang`](crate::event::Event::Hang) and an error in the log. Default: 60 s, more than the client's limits let
    /// one request take without a byte.
    ///
    /// A value of 60 s or more is raised, if necessary, to the sum of `resolve_timeout`, `connect_timeout`, twice
    /// `silence_timeout` (the first on a pooled connection that is dead) and 10 s. A smaller value is not changed;
    /// then a request that may still be answered can be reported. A chain of redirects counts as no progress until its
    /// last response head.
    pub hang_timeout: Duration,
    /// What happens to a stalled fetch, in addition to the report. Default: nothing.
    pub hang_policy: HangPolicy,
    /// Number of events stored for each subscriber. A subscriber that is slower loses the oldest ones. Default: 1024.
    pub event_capacity: usize,
    /// The network is paid for by the byte: nothing is fetched on a guess. A file is opened without a second request for its
    /// last bytes. An index or a last page that its first bytes show is not prefetched, and neither is the next place of a reader
    /// that bisects. Reads, and the read-ahead that [`FileConfig::read_ahead`] limits, stay as they are.
    /// [`Downloader::set_metered`](crate::Downloader::set_metered) changes it later. Default: false.
    pub metered: bool,
    /// Maximum number of bytes a second that all fetches together read from the network, on average: over any time, a quarter
    /// of a second's worth more, or 16 KiB if that is more. Urgent fetches go first, and prefetches get what they leave. Counted
    /// are the bytes of bodies, as they are read; the system receives some more ahead for each connection, and TLS and headers
    /// come on top. Audio that is played while it arrives needs its bitrate (a FLAC has 100,000 to 200,000 bytes a second) and some
    /// more to fill its buffer. [`Downloader::set_max_bandwidth`](crate::Downloader::set_max_bandwidth) changes it later.
    /// Default: `None`, no limit.
    ///
    /// A read that is held back is not silent: no timeout of the client and no report of a stall counts that time, while
    /// [`Event::Slow`](crate::event::Event::Slow) and the read timeout of a stream do. What is measured as the
    /// [bandwidth](crate::Downloader::bandwidth) is what the limit leaves, so adaptive streams choose a bitrate that fits it.
    pub max_bandwidth: Option<u64>,
    /// Memory in bytes for what all streams with [`StorageConfig::Memory`] buffer together. While their windows (`behind`
    /// and the read-ahead) fit, each has its own. Beyond it, streams that are read go before those that are not, and high
    /// priority before low; the others get equal shares and drop what they hold beyond. Each stream keeps its first 256
    /// KiB, the end of its file and the blocks around its reader in any case. Default: 256 MiB.
    ///
    /// Outside of it, because what they hold can't be dropped and fetched again:
    ///
    /// - [`StorageConfig::WholeMemory`] keeps all of its file, which is what it is chosen for.
    /// - A [`Radio`](crate::Radio) keeps `behind` and `ahead` bytes of its [`RadioConfig`]: a station sends nothing twice.
    /// - An HLS stream keeps what its own limits allow, which are a time and a number of bytes: segments of a live playlist
    ///   are gone after a while, and a minute of audio is 1 MiB or two.
    pub max_buffered: u64,
}

setters!(DownloaderConfig {
    client: ClientConfig,
    max_concurrent: usize,
    reserved: usize,
    max_per_origin: usize,
    prefetch_delay: Duration,
    aging_threshold: Duration,
    peer_capacity: usize,
    max_open_bodies: usize,
    max_retries: u32,
    soft_timeout: Duration,
    hang_timeout: Duration,
    hang_policy: HangPolicy,
    event_capacity: usize,
    metered: bool,
    max_buffered: u64,
} into {
    max_preempted: Option<usize>,
    max_bandwidth: Option<u64>,
});

impl Default for DownloaderConfig {
    fn default() -> Self {
        Self {
            client: ClientConfig::default(),
            // One of the six is reserved for urgent work, and four may prefetch from one origin. That leaves one for the
            // prefetches of another.
            max_concurrent: 6,
            reserved: 1,
            max_per_origin: 4,
            max_preempted: None,
            prefetch_delay: Duration::ZERO,
            aging_threshold: Duration::from_secs(10),
            peer_capacity: 32,
            max_open_bodies: 64,
            max_retries: 5,
            soft_timeout: Duration::from_secs(2),
            hang_timeout: HANG_TIMEOUT,
            hang_policy: HangPolicy::Report,
            event_capacity: 1024,
            metered: false,
            max_bandwidth: None,
            // The full windows of 15 streams, each of 16 MiB ahead of the reader and 1 MiB behind it.
            max_buffered: 256 << 20,
        }
    }
}

impl DownloaderConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        bound([
            &mut self.prefetch_delay,
            &mut self.aging_threshold,
            &mut self.soft_timeout,
            &mut self.hang_timeout,
        ]);
        let ClientConfig {
            resolve_timeout,
            resolve_cache,
            connect_timeout,
            silence_timeout,
            max_idle_age,
            ..
        } = &mut self.client;
        bound([resolve_timeout, resolve_cache, connect_timeout, silence_timeout, max_idle_age]);
        if self.hang_timeout >= HANG_TIMEOUT {
            // Twice: the first request may use a pooled connection that is dead.
            let silence = *resolve_timeout + *connect_timeout + 2 * *silence_timeout;
            self.hang_timeout = self.hang_timeout.max(silence + HANG_MARGIN);
        }
        Ok(self)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |field: &str, why: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("DownloaderConfig::{field} {why}")))
        };
        if self.max_concurrent == 0 {
            return wrong("max_concurrent", "is 0: no fetch would ever run");
        }
        if self.max_concurrent > MAX_WORKERS {
            return wrong("max_concurrent", "is more than 1024, the maximum number of threads");
        }
        // A single worker is never reserved, whatever the option says: see `effective_reserved`.
        if self.reserved >= self.max_concurrent && self.max_concurrent > 1 {
            return wrong("reserved", "is not less than max_concurrent: no prefetch would ever run");
        }
        if self.peer_capacity == 0 {
            return wrong("peer_capacity", "is 0: no fetch could be submitted");
        }
        if self.max_per_origin == 0 {
            return wrong("max_per_origin", "is 0: no prefetch would ever run");
        }
        if self.max_bandwidth == Some(0) {
            return wrong("max_bandwidth", "is 0: no byte would ever arrive");
        }
        if self.hang_timeout.is_zero() {
            return wrong("hang_timeout", "is zero: every fetch would be reported as stalled");
        }
        if self.max_open_bodies == 0 {
            return wrong("max_open_bodies", "is 0: execute could return no response");
        }
        let client = &self.client;
        if [client.silence_timeout, client.connect_timeout, client.resolve_timeout].contains(&Duration::ZERO)
        {
            return wrong("client", "has a timeout of zero: every request would fail");
        }
        if client.max_head == 0 {
            return wrong("client", "has a max_head of 0: every response head would be too large");
        }
        Ok(())
    }

    /// `max_preempted`, or its default of twice `max_concurrent`.
    pub(crate) fn effective_max_preempted(&self) -> usize {
        self.max_preempted.unwrap_or(self.max_concurrent.saturating_mul(2))
    }

    /// `reserved`, but always leaves one worker for prefetches.
    pub(crate) fn effective_reserved(&self) -> usize {
        // Without a worker for prefetches their streams would starve; a single worker has to run everything.
        self.reserved.min(self.max_concurrent - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_wrong_field() {
        let config = DownloaderConfig { max_concurrent: 0, ..Default::default() };
        let error = config.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("max_concurrent"));
        let config = DownloaderConfig { reserved: 6, ..Default::default() };
        assert!(config.check().unwrap_err().to_string().contains("reserved"));
        assert!(DownloaderConfig::default().check().is_ok());
    }

    #[test]
    fn the_default_hang_timeout_is_longer_than_one_request_without_a_byte() {
        for seconds in [1, 10, 30, 300] {
            let silence_timeout = Duration::from_secs(seconds);
            let client = ClientConfig { silence_timeout, ..Default::default() };
            let config = DownloaderConfig { client, ..Default::default() }.checked().unwrap();
            let ClientConfig { resolve_timeout, connect_timeout, .. } = config.client;
            let longest = resolve_timeout + connect_timeout + 2 * silence_timeout;
            assert!(config.hang_timeout > longest, "{:?} for {longest:?}", config.hang_timeout);
        }
        let sooner = DownloaderConfig { hang_timeout: Duration::from_secs(5), ..Default::default() };
        assert_eq!(sooner.checked().unwrap().hang_timeout, Duration::from_secs(5));
    }

    #[test]
    fn a_single_worker_is_not_reserved() {
        let config = DownloaderConfig { max_concurrent: 1, ..Default::default() };
        assert!(config.check().is_ok());
        assert_eq!(config.effective_reserved(), 0);
    }
}
