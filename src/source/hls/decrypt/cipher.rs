//! A key, ready to use.

use std::sync::Arc;

use crate::source::hls::playlist::KeyMethod;

/// A key that was fetched, ready to decrypt one resource.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Cipher {
    pub(crate) method: KeyMethod,
    pub(crate) key: Arc<[u8]>,
    pub(crate) iv: [u8; 16],
}
