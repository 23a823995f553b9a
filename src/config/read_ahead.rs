//! `ReadAhead`: how far ahead of the reader to fetch.

/// How far ahead of the reader to fetch.
///
/// ```
/// use windway::FileConfig;
/// use windway::config::{ReadAhead, StorageConfig};
///
/// let download = FileConfig::new().read_ahead(ReadAhead::Whole).storage(StorageConfig::TempFile(None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAhead {
    /// Prefetches up to this many bytes. After a seek the target grows with the bytes read, and is full after 256 KiB;
    /// from the start of the file it grows 256 times as fast. It is no more than lasts the reader for a minute, at the
    /// rate at which it reads, or 256 KiB. For a streaming reader more bytes are requested at once; bytes that it does
    /// not reach are not fetched.
    Bytes(u64),
    /// Prefetches up to the end of the file, then the gaps that seeks left, even if nothing is read: a download.
    /// Transient errors are retried. A permanent error stops the download until the next blocking call, which returns
    /// it. With windowed storage this is the same as 16 MiB, unless the file has a
    /// [cache](crate::FileConfig#structfield.cache), which takes all of it.
    Whole,
}
