//! [`Stream`], which callers read (`Read + Seek + Send + Sync`), and [`StreamHandle`], for use from other threads.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::{FileConfig, ReadAhead};
use crate::downloader::Downloader;
use crate::error::{Error, ErrorKind};
use crate::event::Subscriber;
use crate::media::MediaInfo;
use crate::phase::{Phase, Reads};
use crate::safe_url::SafeUrl;
use crate::source::file::{HttpFile, ReaderId, Shared, StreamStats, TryRead};
use crate::types::Priority;

/// Positions that a file can have: what `lseek` takes.
const MAX_POSITION: u64 = i64::MAX as u64;

/// A file on a server that is read like a local file.
///
/// `read` blocks until at least one byte is stored, and returns the bytes that are available. It never returns
/// [`io::ErrorKind::Interrupted`]. After an error the stream stays usable and its position is exact. A decoder above it
/// may have lost its own buffer, so seek before you continue. `seek` does no I/O and does not block, except for
/// [`SeekFrom::End`] while the length is unknown. The next read decides what to fetch.
///
/// ```no_run
/// use std::io::{Read, Seek, SeekFrom};
///
/// let mut stream = windway::open("https://example.com/episode.mp3")?;
/// let mut tag = [0; 128];
/// stream.seek(SeekFrom::End(-128))?;
/// stream.read_exact(&mut tag)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stream {
    file: Arc<HttpFile>,
    reader: ReaderId,
    cursor: Arc<Cursor>,
    /// Number of the file's failures that `try_read` has returned.
    failures: u64,
    /// The last error of `try_read`.
    failed: Option<Failed>,
}

/// Position and read state of a stream. Written by the stream only; its handles read it.
#[derive(Debug, Default)]
struct Cursor {
    position: AtomicU64,
    reads: Mutex<Reads>,
}

impl Cursor {
    fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }
}

/// How long `try_read` repeats an error before it sends a new request. Callers may poll it at any rate, and each
/// call must not cause a request.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Failed {
    position: u64,
    at: Instant,
    error: Error,
}

/// Opens `url` with the process's downloader and default options.
///
/// Blocks until the response headers arrive. Sends one request.
///
/// # Errors
///
/// The reason why opening failed, with the URL: [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`],
/// [`ErrorKind::HostNotFound`], [`ErrorKind::Refused`], [`ErrorKind::Tls`], [`ErrorKind::Status`],
/// [`ErrorKind::NotMedia`], [`ErrorKind::Empty`], [`ErrorKind::Redirect`], [`ErrorKind::TimedOut`] and the like.
pub fn open(url: &str) -> Result<Stream, Error> {
    Downloader::global()?.open(url)
}

impl Downloader {
    /// Opens `url` with default options. Blocks until the response headers arrive.
    ///
    /// # Errors
    ///
    /// The same as for [`open`].
    pub fn open(&self, url: &str) -> Result<Stream, Error> {
        self.open_with(url, FileConfig::default())
    }

    /// Opens `url`. Blocks until the response headers arrive.
    ///
    /// # Errors
    ///
    /// The same as for [`open`], and [`ErrorKind::InvalidConfig`], which names the field.
    pub fn open_with(&self, url: &str, config: FileConfig) -> Result<Stream, Error> {
        HttpFile::open(self, url, config, true).map(Stream::new)
    }

    /// Opens `url` like [`open_with`](Self::open_with), but does not block. The first bytes are fetched in the
    /// background. If that fails, the first read retries, and returns the error if the retry fails too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`], [`ErrorKind::InvalidConfig`].
    pub fn open_later(&self, url: &str, config: FileConfig) -> Result<Stream, Error> {
        HttpFile::open(self, url, config, false).map(Stream::new)
    }
}

impl Stream {
    fn new((file, reader): (Arc<HttpFile>, ReaderId)) -> Self {
        Self { file, reader, cursor: Arc::default(), failures: 0, failed: None }
    }

    /// Adds another reader of the same file, at position 0. It has its own position and window, and shares the stored
    /// bytes.
    pub fn reader(&self) -> Self {
        let reader = self.shared().add_reader();
        Self::new((Arc::clone(&self.file), reader))
    }

    /// Reads stored bytes without blocking. Meant for audio callbacks.
    ///
    /// Bytes that are not stored are fetched as urgently as for a blocked read. Takes no lock that is held during I/O.
    /// Bytes in a temporary file are [`Pending::OnDisk`](crate::Pending::OnDisk) until the disk thread has loaded them
    /// into memory; after that, the next bytes are loaded ahead of the reader. The first such read starts the disk
    /// thread. There is one for the process, and it ends with the last stream that needed it.
    ///
    /// # Errors
    ///
    /// The same as for a blocking read: [`ErrorKind::Cancelled`], [`ErrorKind::Interrupted`], [`ErrorKind::Storage`],
    /// and permanent errors of the fetch. The error is repeated for one second; then the request is retried. A
    /// transient error is [`Pending::Retrying`](crate::Pending::Retrying) for as long as it lasts:
    /// [`FileConfig::read_timeout`] does not apply here.
    pub fn try_read(&mut self, buf: &mut [u8]) -> Result<TryRead, Error> {
        let position = self.cursor.position();
        let repeats = |failed: &&Failed| failed.position == position && failed.at.elapsed() < ASK_AGAIN;
        if let Some(failed) = self.failed.as_ref().filter(repeats) {
            if !self.shared().is_stored(position) {
                return Err(failed.error.clone());
            }
        }
        if !buf.is_empty() {
            self.cursor.reads.lock().begin();
        }
        let read = self.file.shared().try_read(self.reader, position, buf, &mut self.failures);
        let read = read.inspect_err(|error| {
            self.note_failure(position, error);
            let is_lasting = error.kind() != ErrorKind::Interrupted;
            self.failed = is_lasting.then(|| Failed { position, at: Instant::now(), error: error.clone() });
        })?;
        match read {
            TryRead::Bytes(got) => self.cursor.position.store(position + got as u64, Ordering::Relaxed),
            TryRead::End => self.cursor.reads.lock().end(),
            TryRead::Pending(_) => {}
        }
        Ok(read)
    }

    /// Records for the phase that a read failed, and publishes the failure.
    fn note_failure(&self, position: u64, error: &Error) {
        let is_failure = self.cursor.reads.lock().fail(error);
        if is_failure {
            self.shared().report(error.clone(), position);
        }
    }

    fn shared(&self) -> &Shared {
        self.file.shared()
    }

    /// Length of the file in bytes. `None` until the server has announced it or the end was reached.
    pub fn len(&self) -> Option<u64> {
        self.shared().len()
    }

    /// True if the file is known to have no bytes. A file that opened successfully has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// True if the server serves ranges, so that a seek costs one request. Without ranges seeking works too, but all
    /// bytes before the target have to be read.
    pub fn is_seekable(&self) -> bool {
        self.shared().is_ranged()
    }

    /// True for a source without an end. Always false: files have an end.
    pub fn is_live(&self) -> bool {
        false
    }

    /// The requested URL, without its user and password.
    pub fn url(&self) -> SafeUrl {
        self.shared().url()
    }

    /// Changes the stream's priority relative to other streams. Also applies to fetches that are already queued.
    pub fn set_priority(&self, priority: Priority) {
        self.file.peer().set_priority(priority);
    }

    /// A handle for other threads. It does not keep the stream's transfers alive.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle {
            file: Arc::downgrade(&self.file),
            shared: Arc::clone(self.file.shared()),
            cursor: Arc::clone(&self.cursor),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let position = self.cursor.position();
        self.cursor.reads.lock().begin();
        let read = self.shared().read(self.reader, position, buf);
        let got = read.inspect_err(|error| self.note_failure(position, error))?;
        if got == 0 {
            self.cursor.reads.lock().end();
        }
        self.cursor.position.store(position + got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

impl Seek for Stream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.cursor.position().checked_add_signed(by),
            SeekFrom::End(by) => {
                let len = self.shared().await_len(self.reader);
                len.inspect_err(|error| self.note_failure(self.cursor.position(), error))?
                    .checked_add_signed(by)
            }
        };
        let Some(position) = target.filter(|position| *position <= MAX_POSITION) else {
            let why = format!("can't seek to {to:?}: before the start, or too far");
            return Err(Error::new(ErrorKind::InvalidInput, why).with_url(self.url()).into());
        };
        // Decoders seek to the current position to learn it. That begins no new read.
        if self.cursor.position.swap(position, Ordering::Relaxed) != position {
            self.cursor.reads.lock().begin();
        }
        Ok(position)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.cursor.position())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cursor.reads.lock().drop_reader();
        self.shared().remove_reader(self.reader);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("url", &self.url())
            .field("position", &self.cursor.position())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "symphonia")]
impl symphonia_core::io::MediaSource for Stream {
    fn is_seekable(&self) -> bool {
        Stream::is_seekable(self)
    }

    fn byte_len(&self) -> Option<u64> {
        self.len()
    }
}

/// Observes and controls a [`Stream`] from other threads. Cheap to clone. Only [`wait_buffered`](Self::wait_buffered)
/// and [`wait_range`](Self::wait_range) block.
#[derive(Clone)]
pub struct StreamHandle {
    file: Weak<HttpFile>,
    shared: Arc<Shared>,
    cursor: Arc<Cursor>,
}

impl StreamHandle {
    /// Position of the next byte to be read.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// Length of the file in bytes, if known.
    pub fn len(&self) -> Option<u64> {
        self.shared.len()
    }

    /// True if the file is known to have no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Ranges of the bytes that are stored and can be read at once, in ascending order.
    pub fn buffered(&self) -> Vec<Range<u64>> {
        self.shared.buffered()
    }

    /// Blocks until `bytes` are stored from the stream's position on, or all bytes up to the end of the file. They are
    /// fetched urgently, as for a blocked read, even if they are more than the read-ahead.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] after `timeout`; the error that ended the stream's transfers;
    /// [`ErrorKind::Interrupted`]; [`ErrorKind::InvalidInput`] if `bytes` is more than windowed storage keeps ahead of
    /// a reader.
    pub fn wait_buffered(&self, bytes: u64, timeout: Option<Duration>) -> Result<(), Error> {
        self.shared.wait_buffered(self.position(), bytes, timeout)
    }

    /// Blocks like [`wait_buffered`](Self::wait_buffered), for bytes anywhere in the file. Does not wait for bytes past
    /// the end of the file, and returns at once for an empty range.
    ///
    /// # Errors
    ///
    /// The same as for [`wait_buffered`](Self::wait_buffered).
    pub fn wait_range(&self, range: Range<u64>, timeout: Option<Duration>) -> Result<(), Error> {
        self.shared.wait_buffered(range.start, range.end.saturating_sub(range.start), timeout)
    }

    /// The current phase of the stream.
    pub fn phase(&self) -> Phase {
        let reads = self.cursor.reads.lock().last();
        self.shared.phase(reads)
    }

    /// The most recent error. The first of these that exists: the error of the last read; the error that stopped
    /// fetching, or that is being retried; the error of any earlier read. Interrupting and cancelling do not count as
    /// errors.
    ///
    /// ```no_run
    /// # let stream = windway::open("https://example.com/episode.mp3")?;
    /// let handle = stream.handle();
    /// match handle.phase() {
    ///     windway::Phase::Ended => println!("over"),
    ///     windway::Phase::Failed => println!("stopped: {:?}", handle.last_error()),
    ///     _ => {}
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn last_error(&self) -> Option<Error> {
        let (failure, last) = {
            let reads = self.cursor.reads.lock();
            (reads.failure().cloned(), reads.last_error().cloned())
        };
        failure.or_else(|| self.shared.transient_error()).or(last)
    }

    /// Measured rate of the downloader over all its transfers, in bytes a second. `None` until enough was transferred.
    pub fn rate(&self) -> Option<f64> {
        self.shared.rate()
    }

    /// Changes the stream's priority relative to other streams. Also applies to fetches that are already queued.
    pub fn set_priority(&self, priority: Priority) {
        if let Some(file) = self.file.upgrade() {
            file.peer().set_priority(priority);
        }
    }

    /// Changes how far ahead of its readers the file is prefetched, from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for 0 bytes.
    pub fn set_read_ahead(&self, read_ahead: ReadAhead) -> Result<(), Error> {
        self.shared.set_read_ahead(read_ahead)
    }

    /// Subscribes to the events of the stream's fetches, from now on. `None` once the stream was dropped.
    pub fn subscribe(&self) -> Option<Subscriber> {
        self.file.upgrade().map(|file| file.peer().subscribe())
    }

    /// Adds another reader of the same file; see [`Stream::reader`]. `None` once the stream was dropped.
    pub fn reader(&self) -> Option<Stream> {
        let file = self.file.upgrade()?;
        let reader = file.shared().add_reader();
        Some(Stream::new((file, reader)))
    }

    /// Counters of the stream since it was opened.
    pub fn stats(&self) -> StreamStats {
        self.shared.stats()
    }

    /// The kind of media, as far as it can be detected from the response headers, the URL and the first bytes. Uses up
    /// to 16 KiB of them, as they arrive.
    pub fn media_info(&self) -> MediaInfo {
        self.shared.media_info()
    }

    /// Makes blocked reads fail with [`ErrorKind::Interrupted`]. Until [`resume`](Self::resume) no read blocks: it
    /// fails instead. Stored bytes are still returned.
    pub fn interrupt(&self) {
        self.shared.interrupt();
    }

    /// Allows reads to block again.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Stops the stream's transfers permanently. Reads that would block fail with [`ErrorKind::Cancelled`]. Stored
    /// bytes are still returned.
    pub fn cancel(&self) {
        self.shared.cancel();
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").field("url", &self.shared.url()).finish_non_exhaustive()
    }
}
