//! `FileConfig`: a stream of one URL.

use std::fmt;
use std::time::Duration;

use super::limits::YEAR;
use super::read_ahead::ReadAhead;
use super::shown::{HeaderNames, SafeUrls};
use super::storage::StorageConfig;
#[cfg(feature = "cache")]
use crate::cache::CacheUse;
use crate::error::{Error, ErrorKind};
use crate::hook::Hook;
use crate::types::Priority;

/// Options of a [`Stream`](crate::Stream).
///
/// ```no_run
/// use windway::config::StorageConfig;
/// use windway::{Downloader, FileConfig};
///
/// let config = FileConfig::new().storage(StorageConfig::TempFile(None)).server_pools(false);
/// let stream = Downloader::global()?.open_with("https://example.com/a.flac", config)?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct FileConfig {
    /// Priority relative to other streams: `Low` for a preload. Default: `High`.
    pub priority: Priority,
    /// Where the bytes are stored. Default: [`StorageConfig::Memory`], a window around the reader.
    pub storage: StorageConfig,
    /// How far ahead of the reader to fetch. Default: 16 MiB, and no more than lasts the reader for a minute.
    pub read_ahead: ReadAhead,
    /// Number of bytes kept behind the reader. Only used with windowed storage. Default: 1 MiB.
    pub behind: u64,
    /// A read that makes no progress for this long fails with [`ErrorKind::TimedOut`]. The next read tries again.
    /// `None` waits forever. Default: 30 s.
    pub read_timeout: Option<Duration>,
    /// Maximum time of retrying what a read waits for without receiving a byte; with [`ReadAhead::Whole`] also what no read
    /// waits for. Then the stream ends with [`ErrorKind::GaveUp`]: blocked and later reads return it, and only stored bytes can
    /// still be read. It ends before that if the next attempt would start after the limit; an attempt that has started is not
    /// interrupted. The time in which no read waits does not count. Default: `None`, no limit.
    pub give_up: Option<Duration>,
    /// Headers sent to the URL's origin, and to no other. [`Fetch::header`](crate::Fetch::header) lists the names that
    /// are refused. Default: none.
    pub headers: Vec<(String, String)>,
    /// Other URLs of the same file, in the order in which to try them if its own fails: its host is down, or it
    /// answers with an error. The one that worked last is tried first from then on. One is passed over if
    /// it has another version, or shows by no ETag or date that it has the same. `headers` are only sent to one of the URL's own
    /// origin. Default: none.
    pub mirrors: Vec<String>,
    /// Gives each request headers, and fresh URLs in place of those that expire. Default: none.
    pub hook: Option<Hook>,
    /// Whether to accept that several servers behind the URL send different ETags for the same file. windway checks it:
    /// length and date must agree, and either an earlier ETag comes back, or 4 KiB agree at the start of the file and
    /// where the bytes are joined. If false, another ETag always fails with [`ErrorKind::Changed`]. Default: true.
    pub server_pools: bool,
    /// Persistent cache that keeps what is fetched, and serves it to later streams, also in other processes. Blocks that the
    /// cache has taken need no memory and are not counted for `behind`; `storage` takes what the cache does not. If the cache
    /// fails, the stream goes on without it: see [`Event::CacheOff`](crate::event::Event::CacheOff). Needs the feature
    /// `cache`. Default: none.
    #[cfg(feature = "cache")]
    pub cache: Option<CacheUse>,
}

#[cfg(feature = "cache")]
impl FileConfig {
    /// Sets [`cache`](Self#structfield.cache). A [`Cache`](crate::cache::Cache) will do.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<Option<CacheUse>>) -> Self {
        self.cache = cache.into();
        self
    }
}

setters!(FileConfig {
    priority: Priority,
    storage: StorageConfig,
    read_ahead: ReadAhead,
    behind: u64,
    server_pools: bool,
} into {
    read_timeout: Option<Duration>,
    give_up: Option<Duration>,
    headers: Vec<(String, String)>,
    mirrors: Vec<String>,
    hook: Option<Hook>,
});

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            priority: Priority::High,
            storage: StorageConfig::Memory,
            // A minute of uncompressed stereo at 44.1 kHz has 10 MiB. Most readers take less, and for them a minute is the
            // limit.
            read_ahead: ReadAhead::Bytes(16 << 20),
            behind: 1 << 20,
            read_timeout: Some(Duration::from_secs(30)),
            give_up: None,
            headers: Vec::new(),
            mirrors: Vec::new(),
            hook: None,
            server_pools: true,
            #[cfg(feature = "cache")]
            cache: None,
        }
    }
}

impl FileConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        self.read_timeout = self.read_timeout.map(|limit| limit.min(YEAR));
        self.give_up = self.give_up.map(|limit| limit.min(YEAR));
        Ok(self)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.read_ahead == ReadAhead::Bytes(0) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "FileConfig::read_ahead is 0 bytes: nothing could be read",
            ));
        }
        if self.read_timeout == Some(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "FileConfig::read_timeout is zero: every read that waits would fail",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for FileConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            priority,
            storage,
            read_ahead,
            behind,
            read_timeout,
            give_up,
            headers,
            mirrors,
            hook,
            server_pools,
            #[cfg(feature = "cache")]
            cache,
        } = self;
        let mut shown = f.debug_struct("FileConfig");
        shown
            .field("priority", priority)
            .field("storage", storage)
            .field("read_ahead", read_ahead)
            .field("behind", behind)
            .field("read_timeout", read_timeout)
            .field("give_up", give_up)
            .field("headers", &HeaderNames(headers))
            .field("mirrors", &SafeUrls(mirrors))
            .field("hook", hook)
            .field("server_pools", server_pools);
        #[cfg(feature = "cache")]
        shown.field("cache", cache);
        shown.finish()
    }
}
