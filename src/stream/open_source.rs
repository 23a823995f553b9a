//! The source that a stream reads, until its last stream is dropped.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::Error;
use crate::safe_url::SafeUrl;
use crate::source::Source;

/// The source of one stream, or of several that share it. The last of them closes it.
pub(super) struct OpenSource {
    pub(super) source: Arc<dyn Source>,
    /// `Stream::into_source` has given it to the caller, which closes it.
    pub(super) is_given_away: AtomicBool,
}

impl Drop for OpenSource {
    fn drop(&mut self) {
        if !*self.is_given_away.get_mut() {
            self.source.close();
        }
    }
}

/// `error` with the URL of its source, if it has one.
pub(super) fn locate(error: Error, url: Option<SafeUrl>) -> Error {
    match url {
        Some(url) => error.with_url(url),
        None => error,
    }
}
