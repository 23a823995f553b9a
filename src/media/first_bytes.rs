//! The first bytes of a resource.

/// The first bytes of something, as many as may show what it is.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes(Vec<u8>);

impl FirstBytes {
    /// An index at the front of an MP4 names its codec, and a radio joined between two frames shows three of them.
    pub(crate) const MOST: usize = 16 * 1024;

    /// Keeps what of `bytes`, which lie at `offset`, comes next.
    pub(crate) fn add(&mut self, offset: u64, bytes: &[u8]) {
        if offset == self.0.len() as u64 {
            let room = Self::MOST.saturating_sub(self.0.len()).min(bytes.len());
            self.0.extend_from_slice(&bytes[..room]);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}
