//! How one stream uses a cache.

use super::config::CacheKey;
use super::handle::Cache;

/// How a stream uses a cache: for [`FileConfig::cache`](crate::FileConfig::cache), and `HlsConfig::cache` with the feature `hls`.
///
/// ```no_run
/// use windway::FileConfig;
/// use windway::cache::{Cache, CacheConfig, CacheKey, CacheUse};
///
/// let cache = Cache::open("/home/me/.cache/player", CacheConfig::new())?;
/// let by_url = FileConfig::new().cache(cache.clone());
/// let named = CacheUse::of(&cache).key(CacheKey::named("episode 17")).label("Episode 17");
/// let by_name = FileConfig::new().cache(named);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheUse {
    /// The cache.
    pub cache: Cache,
    /// Key of the entry. Default: `None`, [`Cache::key_of`] the URL.
    pub key: Option<CacheKey>,
    /// Text that [`Cache::entries`] shows, at most 512 bytes. It is stored as it is. Default: none.
    pub label: String,
}

impl CacheUse {
    /// Uses `cache` with the URL for a key and without a label.
    #[must_use]
    pub fn of(cache: &Cache) -> Self {
        Self { cache: cache.clone(), key: None, label: String::new() }
    }

    /// Sets [`key`](Self#structfield.key).
    #[must_use]
    pub fn key(mut self, key: impl Into<Option<CacheKey>>) -> Self {
        self.key = key.into();
        self
    }

    /// Sets [`label`](Self#structfield.label).
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }
}

impl From<Cache> for Option<CacheUse> {
    fn from(cache: Cache) -> Self {
        Some(CacheUse::of(&cache))
    }
}
