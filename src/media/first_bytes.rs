//! The first bytes of a resource.

/// The first bytes of something, as many as may show what it is.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes {
    bytes: Vec<u8>,
    /// No more are added.
    is_over: bool,
}

impl FirstBytes {
    /// An index at the front of an MP4 names its codec, and a radio joined between two frames shows three of them.
    pub(crate) const MOST: usize = 16 * 1024;

    /// Keeps what of `bytes`, which lie at `offset`, comes next.
    pub(crate) fn add(&mut self, offset: u64, bytes: &[u8]) {
        // Bytes after a gap are passed over: the gap may be filled later, by a request that was sent before.
        if offset == self.bytes.len() as u64 && !self.is_over {
            let room = Self::MOST.saturating_sub(self.bytes.len()).min(bytes.len());
            self.bytes.extend_from_slice(&bytes[..room]);
        }
    }

    /// True if there are as many as are kept.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= Self::MOST
    }

    /// Frees all but the first `len`. No more are added then.
    pub(crate) fn shrink(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.bytes.shrink_to_fit();
        self.is_over = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}
