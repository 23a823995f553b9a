//! What is known of a file's entry in the persistent cache. See [`caching`](super::caching).

use std::sync::Arc;

use crate::cache::Entry;

/// The file's entry.
#[derive(Debug, Default)]
pub(super) enum Cached {
    /// No response was accepted yet, and the file was not opened from the cache.
    #[default]
    Unknown,
    /// The file is not stored: it is not allowed, or the cache failed.
    Off,
    /// A response has shown that the entry is the server's version.
    Confirmed(Arc<Entry>),
    /// The file was opened from the entry, and no response has shown yet that it is the server's version. A fresh one is not
    /// requested.
    Unconfirmed { entry: Arc<Entry>, is_fresh: bool },
}
