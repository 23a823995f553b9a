//! The sources of a reader's bytes: files over HTTP, radio, local files, memory, and sources of users.
//!
//! ```text
//!   Stream ──── position, result of the last read
//!     │ read_at(position), len, phase, interrupt ..
//!     ▼
//!   dyn Source ─┬─ FileReader ── one reader of an HTTP file: plan ─▶ downloader ─▶ storage
//!               ├─ LocalFile ─── a file of this machine, named by the application
//!               ├─ Memory ────── bytes of the application
//!               └─ of a user ─── for example one that decrypts another source
//! ```
//!
//! A [`Source`] answers reads at any position; the [`Stream`](crate::Stream) above it keeps the position. A source over
//! HTTP decides what to fetch next and keeps the received bytes in [storage](crate::storage). The
//! [downloader](crate::downloader) runs the fetches.
//!
//! A [radio] is not behind `Source`: after a long pause its reads continue at the live edge, so a read may move the
//! position.

pub(crate) mod consumption;
pub(crate) mod file;
#[cfg(feature = "hls")]
pub(crate) mod hls;
pub(crate) mod local;
pub(crate) mod memory;
pub(crate) mod opening;
pub(crate) mod opening_limit;
pub(crate) mod prefetch;
pub(crate) mod progress;
pub(crate) mod radio;
#[cfg(feature = "cache")]
pub(crate) mod stored;
pub(crate) mod wait;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::CancelGuard;
use crate::client::ResponseHead;
use crate::config::ReadAhead;
use crate::error::{Error, ErrorKind};
use crate::event::Subscriber;
use crate::media::MediaInfo;
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::types::Priority;

/// Where a [`Stream`](crate::Stream) gets its bytes from.
///
/// Only [`read_at`](Self::read_at) and [`len`](Self::len) are required. All other methods have a default, and so will every
/// method that is added later. The defaults describe a source that has all its bytes: it is seekable and complete, and no call
/// blocks. A source that wraps another one returns it from [`inner`](Self::inner); then the defaults ask the wrapped source.
///
/// Methods take `&self`, because handles call them from other threads while a read is blocked. But of `read_at`,
/// [`try_read_at`](Self::try_read_at) and [`wait_len`](Self::wait_len), a stream makes one call at a time.
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
/// use std::sync::Arc;
/// use windway::stream::Source;
/// use windway::{Error, Stream};
///
/// /// Decrypts what another source reads.
/// struct Decrypted {
///     inner: Arc<dyn Source>,
///     key: [u8; 4],
/// }
///
/// impl Source for Decrypted {
///     fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
///         let got = self.inner.read_at(position, buf)?;
///         for (offset, byte) in (position..).zip(&mut buf[..got]) {
///             *byte ^= self.key[(offset % 4) as usize];
///         }
///         Ok(got)
///     }
///
///     fn len(&self) -> Option<u64> {
///         self.inner.len()
///     }
///
///     fn inner(&self) -> Option<&dyn Source> {
///         Some(&*self.inner)
///     }
/// }
///
/// // A stream over HTTP works the same: `windway::open(url)?.into_source()`.
/// let encrypted = Stream::from_bytes([b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1]).into_source();
/// let mut stream = Stream::new(Decrypted { inner: encrypted, key: [1, 2, 3, 4] });
/// let mut text = String::new();
/// stream.seek(SeekFrom::Start(1))?;
/// stream.read_to_string(&mut text)?;
/// assert_eq!(text, "ello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// `Stream::is_empty` exists; a source needs none.
#[allow(clippy::len_without_is_empty)]
pub trait Source: Send + Sync + 'static {
    /// Reads bytes at `position` into `buf`. Blocks until at least one byte is available, and returns how many bytes
    /// were read. 0 means that `position` is at the end or past it. `buf` is never empty.
    ///
    /// # Errors
    ///
    /// Any. The stream returns the error inside an [`io::Error`](std::io::Error) and stays usable: the next read calls
    /// this method again.
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error>;

    /// Length in bytes. `None` if it is not known yet, or if there is no end. Never blocks.
    fn len(&self) -> Option<u64>;

    /// The source that this one wraps. The defaults of all other methods forward to it, except for
    /// [`reader`](Self::reader). Its positions have to be the same as this source's. Default: `None`.
    fn inner(&self) -> Option<&dyn Source> {
        None
    }

    /// Reads bytes that are available without blocking. If there are none, it requests them and returns
    /// [`TryRead::Pending`]. `buf` is never empty.
    ///
    /// The default calls [`read_at`](Self::read_at) if the wrapped source, if any, has the byte at `position`. Storage
    /// on disk may then block for a disk read.
    ///
    /// # Errors
    ///
    /// The same as for `read_at`.
    fn try_read_at(&self, position: u64, buf: &mut [u8]) -> Result<TryRead, Error> {
        if let Some(inner) = self.inner().filter(|inner| !inner.is_buffered(position)) {
            // Only for its answer: the byte has not passed through `read_at` of this source.
            let answer = inner.try_read_at(position, &mut [0])?;
            if !matches!(answer, TryRead::Bytes(_)) {
                return Ok(answer);
            }
        }
        let got = self.read_at(position, buf)?;
        Ok(if got == 0 { TryRead::End } else { TryRead::Bytes(got) })
    }

    /// Blocks until the length is known.
    ///
    /// # Errors
    ///
    /// The default returns [`ErrorKind::InvalidInput`] if the length is not known.
    fn wait_len(&self) -> Result<u64, Error> {
        match self.inner() {
            Some(inner) => inner.wait_len(),
            None => self.len().ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, "can't seek from the end: the length is not known")
            }),
        }
    }

    /// True if a seek costs no more than a request. Decoders search for an index only in such a source. Default: true.
    fn is_seekable(&self) -> bool {
        self.inner().is_none_or(|inner| inner.is_seekable())
    }

    /// True if there is no end. Default: false.
    fn is_live(&self) -> bool {
        self.inner().is_some_and(|inner| inner.is_live())
    }

    /// The URL that the bytes come from, without its user and password. Default: `None`.
    fn url(&self) -> Option<SafeUrl> {
        self.inner()?.url()
    }

    /// The phase, without regard to what the last read returned: the stream adds [`Phase::Ended`] and the
    /// [`Phase::Failed`] of a read. Default: [`Phase::Complete`].
    fn phase(&self) -> Phase {
        self.inner().map_or(Phase::Complete, |inner| inner.phase())
    }

    /// The error that stopped fetching, or that is being retried. Default: `None`.
    fn last_error(&self) -> Option<Error> {
        self.inner()?.last_error()
    }

    /// Publishes that a read of a stream failed at `position`. The stream calls this after its handles report the
    /// failure, and not for reads that were interrupted or cancelled. Default: does nothing.
    fn report_failure(&self, position: u64, error: &Error) {
        if let Some(inner) = self.inner() {
            inner.report_failure(position, error);
        }
    }

    /// Ranges of the bytes that can be read without blocking, in ascending order. Default: all bytes up to the length;
    /// none if the length is not known.
    fn buffered(&self) -> Vec<Range<u64>> {
        match self.inner() {
            Some(inner) => inner.buffered(),
            None => self.len().filter(|len| *len > 0).map(|len| 0..len).into_iter().collect(),
        }
    }

    /// True if the byte at `position` can be read without blocking.
    fn is_buffered(&self, position: u64) -> bool {
        match self.inner() {
            Some(inner) => inner.is_buffered(position),
            None => self.buffered().iter().any(|range| range.contains(&position)),
        }
    }

    /// Blocks until all bytes of `range` are buffered, or those up to the end. `None` waits forever.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] after `timeout`, and the errors of [`read_at`](Self::read_at). The default returns `Ok`.
    fn wait_buffered(&self, range: Range<u64>, timeout: Option<Duration>) -> Result<(), Error> {
        self.inner().map_or(Ok(()), |inner| inner.wait_buffered(range, timeout))
    }

    /// Makes the blocked calls of this reader fail with [`ErrorKind::Interrupted`]. Until [`resume`](Self::resume) no call
    /// blocks: it fails instead. What another [`reader`](Self::reader) returned has its own. Default: does nothing, because no
    /// call blocks.
    fn interrupt(&self) {
        if let Some(inner) = self.inner() {
            inner.interrupt();
        }
    }

    /// Allows the calls of this reader to block again. Default: does nothing.
    fn resume(&self) {
        if let Some(inner) = self.inner() {
            inner.resume();
        }
    }

    /// Stops all transfers permanently, for all readers. Calls that would block fail with [`ErrorKind::Cancelled`]. Available bytes
    /// can still be read. Default: does nothing, because nothing is transferred.
    fn cancel(&self) {
        if let Some(inner) = self.inner() {
            inner.cancel();
        }
    }

    /// Runs `hook` when the transfers are stopped permanently: by [`cancel`](Self::cancel), or because the downloader stops. If
    /// they are already, runs `hook` now. The hook does not block. The drop of the returned guard removes it. Default: `None`,
    /// because nothing is transferred.
    fn on_cancel(&self, hook: Box<dyn FnOnce() + Send>) -> Option<CancelGuard> {
        self.inner()?.on_cancel(hook)
    }

    /// Counters since the source was opened. Default: all are 0.
    fn stats(&self) -> StreamStats {
        self.inner().map_or_else(StreamStats::default, |inner| inner.stats())
    }

    /// The kind of media, as far as it is known. Never blocks. Default: unknown.
    fn media_info(&self) -> MediaInfo {
        self.inner().map_or_else(MediaInfo::default, |inner| inner.media_info())
    }

    /// Head of the first response that was accepted. Default: `None`.
    fn response_head(&self) -> Option<ResponseHead> {
        self.inner()?.response_head()
    }

    /// Measured bandwidth in bytes a second. Default: `None`.
    fn bandwidth(&self) -> Option<f64> {
        self.inner()?.bandwidth()
    }

    /// Changes the priority relative to other sources. Default: does nothing.
    fn set_priority(&self, priority: Priority) {
        if let Some(inner) = self.inner() {
            inner.set_priority(priority);
        }
    }

    /// Changes how far ahead of the reader to fetch. Default: does nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for 0 bytes.
    fn set_read_ahead(&self, read_ahead: ReadAhead) -> Result<(), Error> {
        self.inner().map_or(Ok(()), |inner| inner.set_read_ahead(read_ahead))
    }

    /// Subscribes to the events of the source's fetches. Default: `None`, because nothing is fetched.
    fn subscribe(&self) -> Option<Subscriber> {
        self.inner()?.subscribe()
    }

    /// The source of another reader, which shares the stored bytes with this one and has a prefetch target of its own.
    /// Default: `None`. Then the readers share this source, their calls of `read_at` may overlap, and an interrupt of one of them
    /// is for all. A source that wraps another one avoids that if it wraps the other one's `reader` here.
    fn reader(&self) -> Option<Arc<dyn Source>> {
        None
    }

    /// The last stream of this source is being dropped: release what other threads may be blocked on, and what handles
    /// of the stream should not keep alive. A handle may still be in a call. Default: does nothing.
    fn close(&self) {
        if let Some(inner) = self.inner() {
            inner.close();
        }
    }
}

/// Result of a read that does not block.
///
/// ```
/// use windway::Stream;
/// use windway::stream::TryRead;
///
/// let mut buf = [0; 3];
/// let mut stream = Stream::from_bytes("abc");
/// assert_eq!(stream.try_read(&mut buf)?, TryRead::Bytes(3));
/// assert_eq!(stream.try_read(&mut buf)?, TryRead::End);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRead {
    /// Number of bytes that were read.
    Bytes(usize),
    /// No bytes are available yet, with the reason.
    Pending(Pending),
    /// The end of the file.
    End,
}

/// The reason why no bytes are available yet.
///
/// ```no_run
/// use windway::stream::{Pending, TryRead};
///
/// # let mut stream = windway::open("https://example.com/episode.mp3")?;
/// let mut buf = [0; 1024];
/// match stream.try_read(&mut buf)? {
///     TryRead::Bytes(count) => println!("{count} bytes"),
///     TryRead::Pending(Pending::Retrying) => println!("reconnecting"),
///     TryRead::Pending(_) => println!("buffering"),
///     _ => println!("the end"),
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pending {
    /// The bytes were requested and have not arrived yet.
    Fetching,
    /// The request failed and is being retried.
    Retrying,
    /// The bytes are stored on disk and are being loaded into memory. [`Read::read`](std::io::Read::read) reads them at
    /// once.
    OnDisk,
}

/// Counters of a stream.
///
/// ```no_run
/// # let stream = windway::open("https://example.com/episode.mp3")?;
/// let stats = stream.handle().stats();
/// println!("{} stalls of {:?} in total, {} requests", stats.stalls, stats.stalled, stats.requests);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Requests that got a response.
    pub requests: u64,
    /// Bytes of response bodies received.
    pub bytes_fetched: u64,
    /// Bytes that arrived when no reader needed them any more.
    pub bytes_dropped: u64,
    /// Bytes returned to readers.
    pub bytes_read: u64,
    /// Reads that blocked.
    pub stalls: u64,
    /// Total time that reads were blocked.
    pub stalled: Duration,
    /// Times that [`Stream::try_read`](crate::Stream::try_read) of this stream found no bytes. Calls in a row count once.
    pub starvations: u64,
    /// Total time of these, from the first call that found none to the next one that found some.
    pub starved: Duration,
}
