//! Options of a cache, and what names an entry in it.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::format::{KeyDigest, key_digest, key_name};
use super::freshness::Policy;

/// Query fields by which common CDNs sign a URL for a while: the file behind it is the same with others.
///
/// For [`CacheConfig::ignore_query`]:
///
/// ```
/// use windway::cache::{CacheConfig, SIGNING_FIELDS};
///
/// let config = CacheConfig::new().ignore_query(SIGNING_FIELDS.map(String::from));
/// assert!(config.ignore_query.contains(&"Signature".into()));
/// ```
pub const SIGNING_FIELDS: [&str; 15] = [
    // Amazon CloudFront.
    "Expires",
    "Signature",
    "Key-Pair-Id",
    "Policy",
    // Amazon S3.
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    // Akamai.
    "hdnts",
    "hdnea",
    "token",
    "exp",
];

/// Options of a [`Cache`](super::Cache).
///
/// ```no_run
/// use windway::cache::{Cache, CacheConfig};
///
/// let cache = Cache::open("/home/me/.cache/player", CacheConfig::new().max_bytes(2 << 30))?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheConfig {
    /// Maximum size of the cache on disk, in bytes, over all processes that share it. Beyond it the entries that were used
    /// longest ago are removed. Each process may exceed it by a sixteenth. Default: 1 GiB.
    pub max_bytes: u64,
    /// Free bytes to leave on the file system: entries are removed, and nothing is stored, while there are fewer. Looked at
    /// when the cache is opened, and each time a sixteenth of `max_bytes` was written. Default: 256 MiB.
    pub keep_free: u64,
    /// Maximum time since a server has confirmed a stale entry for which it is played without waiting for the server, which is
    /// also how long it can be played offline. `None` is no limit. Default: 30 days.
    pub max_age: Option<Duration>,
    /// Names of query fields that do not belong to an entry's key, such as [`SIGNING_FIELDS`]. Two URLs that differ in
    /// nothing else share an entry, if the server gives both the same validator and length. Default: none.
    pub ignore_query: Vec<String>,
    /// Stores responses with `Cache-Control: no-store`, too. Default: false.
    pub keep_no_store: bool,
    /// Stores responses to requests with `Authorization`, too, if they are not `public`. Default: false.
    pub keep_authorized: bool,
    /// Stores responses with neither a strong entity tag nor a strong `Last-Modified`, too: one that is a minute older than the
    /// response's `Date`. Only their length, and a weak `Last-Modified`, show whether they have changed. Default: false.
    pub keep_unvalidated: bool,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            keep_free: 256 << 20,
            max_age: Some(Duration::from_secs(30 * 24 * 3600)),
            ignore_query: Vec::new(),
            keep_no_store: false,
            keep_authorized: false,
            keep_unvalidated: false,
        }
    }
}

/// Defines a setter for each field.
macro_rules! setters {
    ($($field:ident: $type:ty,)*) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field.into();
                self
            }
        )*
    };
}

impl CacheConfig {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        max_bytes: u64,
        keep_free: u64,
        max_age: impl Into<Option<Duration>>,
        ignore_query: impl Into<Vec<String>>,
        keep_no_store: bool,
        keep_authorized: bool,
        keep_unvalidated: bool,
    }

    pub(crate) fn policy(&self) -> Policy {
        let Self { keep_no_store, keep_authorized, keep_unvalidated, .. } = *self;
        Policy { keep_no_store, keep_authorized, keep_unvalidated }
    }

    /// The part of a URL that names an entry: without user, password and fragment, and without the ignored query fields.
    pub(crate) fn key_of(&self, url: &str) -> CacheKey {
        // No URL, so no request will be made for it. The key is needed before that shows.
        let Ok(mut url) = Url::parse(url) else { return CacheKey::of("url", url) };
        url.set_fragment(None);
        // These fail for URLs without a host, which are not requested.
        let _ = (url.set_username(""), url.set_password(None));
        let is_ignored = |name: &str| self.ignore_query.iter().any(|ignored| ignored == name);
        if url.query_pairs().any(|(name, _)| is_ignored(&name)) {
            let query = url.query().unwrap_or_default().split('&').filter(|field| {
                let name = url::form_urlencoded::parse(field.as_bytes()).next();
                name.is_none_or(|(name, _)| !is_ignored(&name))
            });
            let query = query.collect::<Vec<_>>().join("&");
            url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
        }
        CacheKey::of("url", url.as_str())
    }
}

/// Names what is stored of one URL, or under one name of the application. Holds a digest, and neither of them.
///
/// ```
/// use windway::cache::CacheKey;
///
/// let key = CacheKey::named("episode 17");
/// assert_eq!(key, CacheKey::named("episode 17"));
/// assert_eq!(key.to_string().len(), 32);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(pub(crate) KeyDigest);

impl CacheKey {
    /// The key for a name that the application chooses, for a resource that has several URLs. The caller guarantees that no
    /// two files have the same one: of two with the same validator and length the bytes are taken for equal.
    pub fn named(name: &str) -> Self {
        Self::of("name", name)
    }

    fn of(kind: &str, text: &str) -> Self {
        Self(key_digest(&format!("{kind}:{text}")))
    }
}

/// The first half of the digest in hexadecimal digits, as in the names of files.
impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_name(&self.0))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_url_without_what_names_no_other_file() {
        let config = CacheConfig::new().ignore_query(["Signature".to_owned(), "exp".to_owned()]);
        let key = |url| config.key_of(url);
        let plain = key("https://host/a?id=5");
        for same in [
            "https://host/a?id=5#t=10",
            "https://me:secret@host:443/a?id=5",
            "https://host/a?Signature=x%20y&id=5&exp=99",
        ] {
            assert_eq!(key(same), plain, "{same}");
        }
        for other in ["https://host/a?id=6", "http://host/a?id=5", "https://host/a?id=5&signature=x"] {
            assert_ne!(key(other), plain, "{other}");
        }
        assert_eq!(key("https://host/b?exp=1"), key("https://host/b"));
        assert_ne!(CacheKey::named("https://host/b"), key("https://host/b"));
    }
}
