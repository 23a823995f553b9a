//! Where a file is kept beyond the stream.

use std::sync::Arc;

use crate::cache::{CacheUse, PartFile};

/// Where a file is kept beyond the stream.
#[derive(Debug)]
pub(super) enum Backing {
    /// An entry of a cache.
    Cache(CacheUse),
    /// A file that the application has named.
    Part(Arc<PartFile>),
}
