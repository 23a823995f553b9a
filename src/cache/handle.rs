//! The handle of a cache that a program holds, and what it shows of the entries.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::config::{CacheConfig, CacheKey};
use super::directory::Found;
use super::entry::EntryFile;
use super::format::Header;
use super::freshness::Policy;
use super::store::{Store, files, storage_error, time};
use crate::error::{Error, ErrorKind};
use crate::thread;

/// Maximum of `max_bytes`: sums of sizes must not overflow.
const MAX_BYTES: u64 = 1 << 60;

/// A directory of cached media. Cheap to clone: all clones are one cache.
///
/// ```no_run
/// use windway::cache::{Cache, CacheConfig};
/// use windway::{Downloader, FileConfig};
///
/// let cache = Cache::open("/home/me/.cache/player", CacheConfig::new().max_bytes(2 << 30))?;
/// let config = FileConfig::new().cache(cache);
/// let stream = Downloader::global()?.open_with("https://example.com/a.flac", config)?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct Cache(Arc<Store>);

/// What a cache holds of one version of one file.
///
/// ```no_run
/// # let cache = windway::cache::Cache::open("/tmp/cache", Default::default())?;
/// for entry in cache.entries()? {
///     println!("{}: {} of {} bytes of {}", entry.label, entry.stored, entry.len, entry.media_type);
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheEntry {
    /// Its key, for [`Cache::pin`] and [`Cache::remove`].
    pub key: CacheKey,
    /// The label that the stream gave that stored it first. Empty if it gave none.
    pub label: String,
    /// The content type of the response. Empty if it had none.
    pub media_type: String,
    /// Bytes in the whole file.
    pub len: u64,
    /// Bytes of it that are stored.
    pub stored: u64,
    /// Bytes on disk.
    pub on_disk: u64,
    /// When it was stored first.
    pub stored_at: SystemTime,
    /// When the server has confirmed it last.
    pub validated_at: SystemTime,
    /// When it was read or written last, exact to a minute.
    pub used_at: SystemTime,
    /// It is never evicted.
    pub is_pinned: bool,
}

impl Cache {
    /// Opens the cache in the directory `path`, or makes one. Everything is stored in a directory of windway's in it, which
    /// carries the version of its format; so `path` may hold other files, too. The entries are counted by a thread of their
    /// own, `windway-cache`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`]; [`ErrorKind::Storage`] if the directory can't be made or opened, is a symbolic link, or
    /// belongs to another user. On Windows also if `path` is not in the profile of the user, see [the module](super): its source
    /// is then a [`std::io::Error`] of the kind `PermissionDenied`.
    pub fn open(path: impl AsRef<Path>, config: CacheConfig) -> Result<Self, Error> {
        if config.max_bytes == 0 || config.max_bytes > MAX_BYTES {
            let why = "CacheConfig::max_bytes is 0, or more than 2^60";
            return Err(Error::new(ErrorKind::InvalidConfig, why));
        }
        let path = path.as_ref();
        let store = Store::open(path, config).map_err(|error| {
            let why = format!("the directory of the cache can't be opened: {}: {error}", path.display());
            storage_error(&why, error)
        })?;
        let store = Arc::new(store);
        let scanned = Arc::clone(&store);
        // Without it a write scans the directory, once as much is written as may be without a scan.
        let spawned = thread::start("cache", move || scanned.count());
        if let Err(error) = spawned {
            log::debug!("the entries of the cache are counted later: {error:?}");
        }
        Ok(Self(store))
    }

    /// The key under which the file behind `url` is stored, unless the stream gives another one.
    pub fn key_of(&self, url: &str) -> CacheKey {
        self.0.config.key_of(url)
    }

    /// All entries, in no particular order. Reads the beginning of each file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`].
    pub fn entries(&self) -> Result<Vec<CacheEntry>, Error> {
        let pins = self.0.directory.pins().map_err(unreadable)?;
        let found = self.0.directory.scan(SystemTime::now()).map_err(unreadable)?;
        Ok(found.iter().filter_map(|found| self.describe(found, &pins)).collect())
    }

    fn describe(&self, found: &Found, pins: &[String]) -> Option<CacheEntry> {
        let file = Arc::new(self.0.directory.open_entry(&found.name).ok()??);
        // `ok()??`: another process may have removed it since the scan. Then there is nothing to describe, and no error to report.
        let core = EntryFile::open(files(&file, &Header::read(&*file)?))?;
        let (header, stamp) = (core.header(), core.stamp());
        let key = CacheKey(header.key);
        Some(CacheEntry {
            key,
            label: header.label.clone(),
            media_type: header.media_type.clone(),
            len: header.len,
            stored: core.stored().iter().map(|range| range.end - range.start).sum(),
            on_disk: found.bytes,
            stored_at: time(header.stored_at),
            validated_at: time(stamp.validated_at),
            used_at: time(found.used_at),
            is_pinned: pins.contains(&key.to_string()),
        })
    }

    /// Bytes on disk. Waits for the first count after opening; later it adds what this process has written.
    pub fn size(&self) -> u64 {
        self.0.used()
    }

    /// Keeps what is stored under `key`, now and later, from being evicted, and waits until it is on the disk. It still counts
    /// for `max_bytes`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`].
    pub fn pin(&self, key: &CacheKey) -> Result<(), Error> {
        let pin = || {
            // First: from here on no process evicts the entries that are synced below.
            self.0.directory.pin(&key.0)?;
            for name in self.0.directory.find(&key.0) {
                if let Some(file) = self.0.directory.open_entry(&name)? {
                    file.sync_data()?;
                    self.0.directory.sync(&name)?;
                }
            }
            Ok(())
        };
        pin().map_err(|error| storage_error("an entry of the cache can't be pinned", error))
    }

    /// Allows what is stored under `key` to be evicted again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`].
    pub fn unpin(&self, key: &CacheKey) -> Result<(), Error> {
        let unpinned = self.0.directory.unpin(&key.0);
        unpinned.map_err(|error| storage_error("an entry of the cache can't be unpinned", error))
    }

    /// Removes what is stored under `key`. Streams that play it go on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`].
    pub fn remove(&self, key: &CacheKey) -> Result<(), Error> {
        self.remove_all(&self.0.directory.find(&key.0))
    }

    /// Removes all entries, also pinned ones. Streams that play one go on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`].
    pub fn clear(&self) -> Result<(), Error> {
        let found = self.0.directory.scan(SystemTime::now()).map_err(unreadable)?;
        let names: Vec<String> = found.into_iter().map(|found| found.name).collect();
        self.remove_all(&names)
    }

    fn remove_all(&self, names: &[String]) -> Result<(), Error> {
        let removed = names.iter().try_for_each(|name| self.0.remove_entry(name));
        // Also after an error: some of the entries may be gone.
        self.0.forget_usage();
        removed.map_err(|error| storage_error("an entry of the cache can't be removed", error))
    }

    pub(crate) fn policy(&self) -> Policy {
        self.0.config.policy()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.0
    }
}

fn unreadable(error: std::io::Error) -> Error {
    storage_error("the directory of the cache can't be read", error)
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("config", &self.0.config).finish_non_exhaustive()
    }
}
