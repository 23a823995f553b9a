//! `StorageConfig`: where bytes are stored.

use std::path::PathBuf;

/// Where a stream's bytes are stored.
///
/// ```
/// use windway::FileConfig;
/// use windway::config::StorageConfig;
///
/// let config = FileConfig::new().storage(StorageConfig::TempFile(None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageConfig {
    /// In memory: a window around the reader, of `behind` and the read-ahead.
    Memory,
    /// In memory: all bytes that were fetched.
    WholeMemory,
    /// In an unnamed temporary file: all bytes that were fetched. The file is deleted with the stream, also after a
    /// crash. From 32 MiB on a thread closes it, so that the drop of the stream does not take long. `None` is the system's directory
    /// for temporary files. The last blocks stay in memory for a while, at most 8 MiB for all temporary files of the process.
    TempFile(Option<PathBuf>),
    /// As [`TempFile`](Self::TempFile), but only a window around the reader: for small disks, or hours of audio.
    WindowedTempFile(Option<PathBuf>),
}

impl StorageConfig {
    /// True if only a window around the reader is kept.
    pub(crate) fn is_windowed(&self) -> bool {
        matches!(self, Self::Memory | Self::WindowedTempFile(_))
    }
}
