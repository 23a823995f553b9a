//! [`Stream`]: `Read + Seek` over a source.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cursor::{Cursor, FinalState};
use super::handle::StreamHandle;
use super::open_source::{OpenSource, locate};
use crate::error::{Error, ErrorKind};
use crate::safe_url::SafeUrl;
use crate::source::local::LocalFile;
use crate::source::memory::Memory;
use crate::source::progress::Starving;
#[cfg(doc)]
use crate::source::{Pending, StreamStats};
use crate::source::{Source, TryRead};
use crate::types::Priority;

/// Maximum position in a file: that of `lseek`.
const MAX_POSITION: u64 = i64::MAX as u64;

/// A file on a server, a local file, bytes in memory, or any other [`Source`], read like a local file.
///
/// `read` blocks until at least one byte is available, and returns the bytes that are. It never returns
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
    source: Arc<OpenSource>,
    cursor: Arc<Cursor>,
    /// The last error of `try_read`.
    failed: Option<Failed>,
}

/// Time for which `try_read` repeats an error before it sends a new request. Callers may poll at any rate, and not every call
/// may cause a request.
const REPEAT_ERROR: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Failed {
    position: u64,
    at: Instant,
    error: Error,
}

impl Stream {
    /// A stream at position 0 of `source`. Does not block.
    ///
    /// ```
    /// use std::io::Read;
    /// use windway::stream::Source;
    /// use windway::{Error, Stream};
    ///
    /// struct Zeros(u64);
    ///
    /// impl Source for Zeros {
    ///     fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
    ///         let got = self.0.saturating_sub(position).min(buf.len() as u64) as usize;
    ///         buf[..got].fill(0);
    ///         Ok(got)
    ///     }
    ///
    ///     fn len(&self) -> Option<u64> {
    ///         Some(self.0)
    ///     }
    /// }
    ///
    /// let mut bytes = Vec::new();
    /// Stream::new(Zeros(100)).read_to_end(&mut bytes)?;
    /// assert_eq!(bytes, [0; 100]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(source: impl Source) -> Self {
        Self::from_source(Arc::new(source))
    }

    /// A stream at position 0 of `source`, like [`new`](Self::new).
    pub fn from_source(source: Arc<dyn Source>) -> Self {
        Self::over(Arc::new(OpenSource { source, is_given_away: AtomicBool::new(false) }))
    }

    /// Opens a file of this machine.
    ///
    /// Only the application can name a local file: a URL, a redirect or a playlist never leads to one.
    /// [`open`](crate::open()) refuses `file:` URLs. `read` and `try_read` read from the disk, and block for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the file can't be opened; [`ErrorKind::InvalidInput`] if `path` is not a regular file.
    ///
    /// ```no_run
    /// let stream = windway::Stream::open_file("music/track.flac")?;
    /// println!("{:?} bytes of {:?}", stream.len(), stream.handle().media_info().extension());
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        LocalFile::open(path.as_ref()).map(Self::new)
    }

    /// A stream over bytes in memory, for example a `Vec<u8>`, an `Arc<[u8]>` or the result of `include_bytes!`. They are
    /// not copied, and are dropped with the last stream that reads them. Reads never block.
    ///
    /// ```
    /// use std::io::Read;
    ///
    /// let mut text = String::new();
    /// windway::Stream::from_bytes("hello").read_to_string(&mut text)?;
    /// assert_eq!(text, "hello");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::new(Memory::new(bytes))
    }

    fn over(source: Arc<OpenSource>) -> Self {
        Self { source, cursor: Arc::default(), failed: None }
    }

    /// Adds another reader of the same source, at position 0. It has its own position and, of a file on a server, its own
    /// window. It shares the stored bytes. An [interrupt](StreamHandle::interrupt) of one reader leaves the others; a
    /// [cancel](StreamHandle::cancel) is for all.
    pub fn reader(&self) -> Self {
        match self.source().reader() {
            Some(source) => Self::from_source(source),
            // A source that makes no readers has no position either, so it can be shared.
            None => Self::over(Arc::clone(&self.source)),
        }
    }

    /// The stream's source, for example for another source that wraps it. From then on the handles of this stream behave as
    /// after a drop. The caller becomes responsible for [`Source::close`]: only a stream that is made from the returned source
    /// calls it.
    pub fn into_source(self) -> Arc<dyn Source> {
        // Relaxed: only the drop of the last `Arc` reads it, which happens after this store.
        self.source.is_given_away.store(true, Ordering::Relaxed);
        Arc::clone(&self.source.source)
    }

    /// Reads stored bytes without blocking. For a thread that has other work while bytes are missing, such as an event loop or the
    /// frame of a game. An audio callback needs more than that: this call takes short locks and may allocate, so decode on a thread
    /// of its own and hand the samples over ([`guide::audio_callback`](crate::guide::audio_callback)).
    ///
    /// Bytes that are not stored are fetched as urgently as for a blocked read. Takes no lock that is held during I/O.
    /// Bytes in a temporary file are [`Pending::OnDisk`] until the disk thread has loaded them
    /// into memory; after that, the next bytes are loaded ahead of the reader. The first such read starts the disk
    /// thread. There is one for the process, and it ends with the last stream that needed it.
    ///
    /// A thread that may block calls [`Read::read`] instead: it needs no polling, and its errors come at once. Calls in a row
    /// that find no bytes are a starvation: [`starving`](Self::starving) returns why and for how long, and
    /// [`StreamStats::starvations`] counts them.
    ///
    /// # Errors
    ///
    /// The same as for a blocking read: [`ErrorKind::Cancelled`], [`ErrorKind::Interrupted`], [`ErrorKind::Storage`],
    /// and permanent errors of the fetch. The error is repeated for one second; then the request is retried. A
    /// transient error is [`Pending::Retrying`] for as long as it lasts:
    /// [`FileConfig::read_timeout`](crate::FileConfig::read_timeout) does not apply here.
    pub fn try_read(&mut self, buf: &mut [u8]) -> Result<TryRead, Error> {
        if buf.is_empty() {
            return Ok(TryRead::Bytes(0));
        }
        let position = self.cursor.position();
        let repeats = |failed: &&Failed| failed.position == position && failed.at.elapsed() < REPEAT_ERROR;
        // Stored bytes can be read whatever failed before.
        if let Some(failed) = self.failed.as_ref().filter(repeats) {
            if !self.source().is_buffered(position) {
                return Err(failed.error.clone());
            }
        }
        self.cursor.reads.lock().begin();
        let read = self.source().try_read_at(position, buf).inspect_err(|error| {
            self.record_failure(position, error);
            // An interrupt ends with `resume`: repeating its error would delay the next read.
            let is_lasting = error.kind() != ErrorKind::Interrupted;
            self.failed = is_lasting.then(|| Failed { position, at: Instant::now(), error: error.clone() });
            self.cursor.starvation.lock().handle_end(Instant::now());
        })?;
        match read {
            TryRead::Bytes(got) => self.cursor.position.store(position + got as u64, Ordering::Relaxed),
            TryRead::End => self.cursor.reads.lock().end(),
            TryRead::Pending(reason) => {
                self.cursor.starvation.lock().handle_pending(reason, Instant::now());
                return Ok(read);
            }
        }
        self.cursor.starvation.lock().handle_end(Instant::now());
        Ok(read)
    }

    /// Why [`try_read`](Self::try_read) finds no bytes, and for how long. `None` if its last call found some, or the end.
    pub fn starving(&self) -> Option<Starving> {
        self.cursor.starvation.lock().current(Instant::now())
    }

    /// Records for the phase that a read failed, and publishes the failure.
    fn record_failure(&self, position: u64, error: &Error) {
        let is_failure = self.cursor.reads.lock().fail(error);
        // After it was recorded: a subscriber may ask a handle for the phase.
        if is_failure {
            self.source().report_failure(position, error);
        }
    }

    fn source(&self) -> &dyn Source {
        &*self.source.source
    }

    /// Length in bytes. `None` until the server has announced it or the end was reached.
    pub fn len(&self) -> Option<u64> {
        self.source().len()
    }

    /// True if the source is known to have no bytes. A URL that opened successfully has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// True if a seek costs no more than one request. False for a server without ranges: there seeking works too, but
    /// all bytes before the target have to be read.
    pub fn is_seekable(&self) -> bool {
        self.source().is_seekable()
    }

    /// True for a source without an end. False for files and memory.
    pub fn is_live(&self) -> bool {
        self.source().is_live()
    }

    /// The requested URL, without its user and password. `None` for a source that has no URL, such as a local file.
    pub fn url(&self) -> Option<SafeUrl> {
        self.source().url()
    }

    /// Changes the stream's priority relative to other streams. Also applies to fetches that are already queued.
    pub fn set_priority(&self, priority: Priority) {
        self.source().set_priority(priority);
    }

    /// A handle for other threads. It keeps neither the stream's transfers nor its bytes alive.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle { source: Arc::downgrade(&self.source), cursor: Arc::clone(&self.cursor) }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let position = self.cursor.position();
        self.cursor.reads.lock().begin();
        // Without the lock of `reads`: handles ask for the phase while this blocks.
        let read = self.source().read_at(position, buf);
        let got = read.inspect_err(|error| self.record_failure(position, error))?;
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
                let len = self.source().wait_len();
                len.inspect_err(|error| self.record_failure(self.cursor.position(), error))?
                    .checked_add_signed(by)
            }
        };
        let Some(position) = target.filter(|position| *position <= MAX_POSITION) else {
            let why = format!("can't seek to {to:?}: before the start, or too far");
            return Err(locate(Error::new(ErrorKind::InvalidInput, why), self.url()).into());
        };
        // Decoders seek to the current position to learn it. That begins no new read.
        if self.cursor.position.swap(position, Ordering::Relaxed) != position {
            self.cursor.reads.lock().begin();
            self.cursor.starvation.lock().handle_end(Instant::now());
        }
        Ok(position)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.cursor.position())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cursor.starvation.lock().handle_end(Instant::now());
        // Before the source is dropped: a handle that finds no source returns this.
        self.cursor.end(FinalState::of(self.source()));
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

impl StreamHandle {
    /// Adds another reader of the same source; see [`Stream::reader`]. `None` once the stream was dropped.
    pub fn reader(&self) -> Option<Stream> {
        let open = self.open_source()?;
        Some(open.source.reader().map_or_else(|| Stream::over(Arc::clone(&open)), Stream::from_source))
    }
}
