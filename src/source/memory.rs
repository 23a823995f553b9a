//! Bytes in memory as a source. Reads never block.

use super::Source;
use crate::error::Error;
use crate::media::{FirstBytes, MediaInfo};

/// Bytes of the application.
pub(crate) struct Memory<B>(B);

impl<B: AsRef<[u8]> + Send + Sync + 'static> Memory<B> {
    pub(crate) fn new(bytes: B) -> Self {
        Self(bytes)
    }
}

impl<B: AsRef<[u8]> + Send + Sync + 'static> Source for Memory<B> {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let bytes = self.0.as_ref();
        let rest = usize::try_from(position).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
        let got = rest.len().min(buf.len());
        buf[..got].copy_from_slice(&rest[..got]);
        Ok(got)
    }

    fn len(&self) -> Option<u64> {
        Some(self.0.as_ref().len() as u64)
    }

    fn media_info(&self) -> MediaInfo {
        let bytes = self.0.as_ref();
        MediaInfo::of_local_file(None, &bytes[..bytes.len().min(FirstBytes::MOST)])
    }
}
