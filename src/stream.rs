//! Files, as values to read: [`Stream`] (`Read + Seek + Send + Sync`), and [`StreamHandle`] for use from other threads.
//!
//! Both are the same types for every [`Source`]: they keep the position and the result of the last read, and ask the
//! source for everything else.

mod progress;
mod starvation;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::progress::Look;
use self::starvation::Starvation;
use crate::cancel::CancelReason;
use crate::client::{Request, ResponseHead};
use crate::config::{FileConfig, RadioConfig, ReadAhead};
use crate::downloader::Downloader;
use crate::error::{Error, ErrorKind};
use crate::event::Subscriber;
use crate::media::MediaInfo;
use crate::phase::Reads;
use crate::safe_url::SafeUrl;
use crate::source::file::{FileReader, HttpFile};
use crate::source::local::LocalFile;
use crate::source::memory::Memory;
use crate::source::radio::Radio;
use crate::types::{ByteRange, Priority};

pub use self::progress::{Progress, Watch};
pub use self::starvation::Starving;
pub use crate::phase::Phase;
pub use crate::source::{Pending, Source, StreamStats, TryRead};

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

/// The source of one stream, or of several that share it. The last of them closes it.
struct OpenSource {
    source: Arc<dyn Source>,
    /// `Stream::into_source` has given it to the caller, who closes it.
    is_given_away: AtomicBool,
}

impl Drop for OpenSource {
    fn drop(&mut self) {
        if !*self.is_given_away.get_mut() {
            self.source.close();
        }
    }
}

/// Position and read state of a stream. Written by the stream only; its handles read it.
#[derive(Debug, Default)]
struct Cursor {
    position: AtomicU64,
    reads: Mutex<Reads>,
    starvation: Mutex<Starvation>,
    /// Set when the stream is dropped.
    final_state: Mutex<Option<FinalState>>,
}

/// What handles return after the stream was dropped. So they need not keep the source, which may hold many bytes.
#[derive(Clone, Debug)]
struct FinalState {
    len: Option<u64>,
    url: Option<SafeUrl>,
    error: Option<Error>,
    stats: StreamStats,
    media: MediaInfo,
    head: Option<ResponseHead>,
    rate: Option<f64>,
}

impl Cursor {
    fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// `stats` of the source, with those of this stream's `try_read`.
    fn complete(&self, stats: StreamStats) -> StreamStats {
        let starvation = self.starvation.lock();
        StreamStats { starvations: starvation.count(), starved: starvation.total(Instant::now()), ..stats }
    }
}

impl FinalState {
    fn of(source: &dyn Source) -> Self {
        Self {
            len: source.len(),
            url: source.url(),
            error: source.last_error(),
            stats: source.stats(),
            media: source.media_info(),
            head: source.response_head(),
            rate: source.rate(),
        }
    }
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

/// Opens `url` with the process's downloader and default options.
///
/// Blocks until the first bytes arrive, or at most for [`read_timeout`](crate::FileConfig::read_timeout), 30 s, without progress.
/// To cancel it meanwhile, use [`Downloader::open_later`]. Sends a request for the first 256 KiB, and beside it, over a second
/// connection, one for the last KiB of the file, which many decoders read first.
///
/// A host that can't be reached fails at once: [`ErrorKind::HostNotFound`], [`ErrorKind::Refused`],
/// [`ErrorKind::Unreachable`] and [`ErrorKind::ConnectTimedOut`] are not retried here. Other errors that are
/// [retryable](Error::is_retryable) are.
///
/// # Errors
///
/// The reason why opening failed, with the URL: [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`],
/// [`ErrorKind::HostNotFound`], [`ErrorKind::Refused`], [`ErrorKind::Tls`], [`ErrorKind::Status`],
/// [`ErrorKind::NotMedia`], [`ErrorKind::Empty`], [`ErrorKind::Redirect`], [`ErrorKind::TimedOut`] and the like.
///
/// ```no_run
/// let stream = windway::open("https://example.com/episode.mp3")?;
/// println!("{:?} bytes", stream.len());
/// # Ok::<(), windway::Error>(())
/// ```
pub fn open(url: &str) -> Result<Stream, Error> {
    Downloader::global()?.open(url)
}

impl Downloader {
    /// Opens `url` with default options, like [`open`].
    ///
    /// # Errors
    ///
    /// The same as for [`open`].
    pub fn open(&self, url: &str) -> Result<Stream, Error> {
        self.open_with(url, FileConfig::default())
    }

    /// Opens `url`. Blocks until the first bytes arrive: see [`open`].
    ///
    /// # Errors
    ///
    /// The same as for [`open`], and [`ErrorKind::InvalidConfig`], which names the field.
    pub fn open_with(&self, url: &str, config: FileConfig) -> Result<Stream, Error> {
        HttpFile::open(self, Request::get(url)?, config).map(FileReader::new).map(Stream::new)
    }

    /// Opens `url` like [`open_with`](Self::open_with), but does not block. The first bytes are fetched in the
    /// background. If that fails, the first read retries, and returns the error if the retry fails too. Length, seekability
    /// and media info are unknown before the first bytes: [`StreamHandle::wait_buffered`]`(1, ..)` waits for them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`], [`ErrorKind::InvalidConfig`].
    pub fn open_later(&self, url: &str, config: FileConfig) -> Result<Stream, Error> {
        HttpFile::open_later(self, Request::get(url)?, config).map(FileReader::new).map(Stream::new)
    }

    /// Opens the station at `url`. Does not block: the radio's thread connects, and the first read returns the error if
    /// that fails.
    ///
    /// ```no_run
    /// use windway::{Downloader, RadioConfig};
    ///
    /// let radio = Downloader::global()?.open_radio("http://example.com:8000/stream", RadioConfig::default())?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::InvalidConfig`], which names the
    /// field; [`ErrorKind::Cancelled`] once the downloader has stopped; [`ErrorKind::Io`] if a thread can't be started.
    pub fn open_radio(&self, url: &str, config: RadioConfig) -> Result<Radio, Error> {
        Radio::open(self, url, config)
    }
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
    /// [`open`] refuses `file:` URLs. `read` and `try_read` read from the disk, and block for as long as it takes.
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
    /// window. It shares the stored bytes.
    pub fn reader(&self) -> Self {
        match self.source().reader() {
            Some(source) => Self::from_source(source),
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
    /// [`FileConfig::read_timeout`] does not apply here.
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
        *self.cursor.final_state.lock() = Some(FinalState::of(self.source()));
        self.cursor.reads.lock().drop_reader();
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

fn locate(error: Error, url: Option<SafeUrl>) -> Error {
    match url {
        Some(url) => error.with_url(url),
        None => error,
    }
}

/// Observes and controls a [`Stream`] from other threads. Cheap to clone. Only [`wait_buffered`](Self::wait_buffered)
/// and [`wait_range`](Self::wait_range) block.
///
/// After the stream was dropped, the handle still returns its position, length, counters and last error as they were
/// then. Nothing is buffered any more, waiting fails with [`ErrorKind::Cancelled`], and other calls do nothing.
///
/// ```no_run
/// use std::io::Read;
///
/// let mut stream = windway::open("https://example.com/episode.mp3")?;
/// let handle = stream.handle();
/// let decoder = std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
/// println!("{:?}, {} bytes ahead", handle.phase(), handle.buffered_ahead());
/// handle.cancel(); // ends a blocked read
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct StreamHandle {
    source: Weak<OpenSource>,
    cursor: Arc<Cursor>,
}

impl StreamHandle {
    /// `None` once the stream was dropped, even if another stream still reads its source.
    fn open_source(&self) -> Option<Arc<OpenSource>> {
        if self.cursor.final_state.lock().is_some() { None } else { self.source.upgrade() }
    }

    /// Without the `OpenSource`: a handle that kept it during a blocking call would prevent the stream's drop from closing the
    /// source.
    fn source(&self) -> Option<Arc<dyn Source>> {
        self.open_source().map(|open| Arc::clone(&open.source))
    }

    /// Asks the source, or the final state after the stream was dropped.
    fn ask<T>(
        &self,
        source: impl FnOnce(&dyn Source) -> T,
        final_state: impl FnOnce(&FinalState) -> Option<T>,
    ) -> Option<T> {
        match self.source() {
            Some(open) => Some(source(&*open)),
            None => self.cursor.final_state.lock().as_ref().and_then(final_state),
        }
    }

    /// Position of the next byte to be read.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// Length in bytes, if known.
    pub fn len(&self) -> Option<u64> {
        self.ask(|source| source.len(), |last| Some(last.len)).flatten()
    }

    /// True if the source is known to have no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Ranges of the bytes that are stored and can be read at once, in ascending order.
    pub fn buffered(&self) -> Vec<Range<u64>> {
        self.source().map(|source| source.buffered()).unwrap_or_default()
    }

    /// Number of stored bytes from the stream's position on, up to the first that is not stored.
    pub fn buffered_ahead(&self) -> u64 {
        let position = self.position();
        let ranges = self.buffered().into_iter();
        ranges.filter(|range| range.contains(&position)).map(|range| range.end - position).sum()
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
        let position = self.position();
        self.wait_range(position..position.saturating_add(bytes), timeout)
    }

    /// Blocks like [`wait_buffered`](Self::wait_buffered), for bytes anywhere in the file. Does not wait for bytes past
    /// the end of the file, and returns at once for an empty range.
    ///
    /// # Errors
    ///
    /// The same as for [`wait_buffered`](Self::wait_buffered).
    pub fn wait_range(&self, range: Range<u64>, timeout: Option<Duration>) -> Result<(), Error> {
        match self.source() {
            Some(source) => source.wait_buffered(range, timeout),
            None => {
                let url = self.cursor.final_state.lock().as_ref().and_then(|last| last.url.clone());
                let error = Error::cancelled(CancelReason::Peer);
                Err(locate(error, url).with_range(ByteRange::from_start(range.start)))
            }
        }
    }

    /// The current phase of the stream.
    pub fn phase(&self) -> Phase {
        let last = self.cursor.reads.lock().last();
        match self.source() {
            Some(source) => source.phase().after(last),
            // Dropped: what is left is how the last read ended.
            None => Phase::Idle.after(last),
        }
    }

    /// The most recent error. The first of these that exists: the error of the last read; the error that stopped
    /// fetching, or that is being retried; the error of any earlier read. Interrupting and cancelling do not count as
    /// errors.
    ///
    /// ```no_run
    /// # let stream = windway::open("https://example.com/episode.mp3")?;
    /// let handle = stream.handle();
    /// match handle.phase() {
    ///     windway::stream::Phase::Ended => println!("over"),
    ///     windway::stream::Phase::Failed => println!("stopped: {:?}", handle.last_error()),
    ///     _ => {}
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn last_error(&self) -> Option<Error> {
        let (failure, last) = {
            let reads = self.cursor.reads.lock();
            (reads.failure().cloned(), reads.last_error().cloned())
        };
        failure.or_else(|| self.ask(|source| source.last_error(), |last| Some(last.error.clone()))?).or(last)
    }

    /// Measured rate of the downloader over all its transfers, in bytes a second. `None` until enough was transferred.
    pub fn rate(&self) -> Option<f64> {
        self.ask(|source| source.rate(), |last| Some(last.rate)).flatten()
    }

    /// Changes the stream's priority relative to other streams. Also applies to fetches that are already queued.
    pub fn set_priority(&self, priority: Priority) {
        if let Some(source) = self.source() {
            source.set_priority(priority);
        }
    }

    /// Changes how far ahead of its readers the source fetches, from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for 0 bytes.
    pub fn set_read_ahead(&self, read_ahead: ReadAhead) -> Result<(), Error> {
        self.source().map_or(Ok(()), |source| source.set_read_ahead(read_ahead))
    }

    /// Subscribes to the events of the stream's fetches, from now on. The subscription
    /// [is closed](Subscriber::is_closed) if the source fetches nothing, and once the stream was dropped.
    pub fn subscribe(&self) -> Subscriber {
        self.source().and_then(|source| source.subscribe()).unwrap_or_else(Subscriber::closed)
    }

    /// Adds another reader of the same source; see [`Stream::reader`]. `None` once the stream was dropped.
    pub fn reader(&self) -> Option<Stream> {
        let open = self.open_source()?;
        Some(open.source.reader().map_or_else(|| Stream::over(Arc::clone(&open)), Stream::from_source))
    }

    /// What a user interface shows, at this moment. Does not block.
    pub fn progress(&self) -> Progress {
        let (position, buffered, stats) = (self.position(), self.buffered(), self.stats());
        let ahead = buffered.iter().find(|range| range.contains(&position));
        Progress {
            position,
            len: self.len(),
            buffered_ahead: ahead.map_or(0, |range| range.end - position),
            buffered,
            rate: self.rate(),
            phase: self.phase(),
            stalls: stats.stalls,
            stalled: stats.stalled,
            starving: self.starving(),
            last_error: self.last_error(),
        }
    }

    /// Returns the [`progress`](Self::progress) now, and again after each `every`. The last one is that of a stream that was
    /// dropped or cancelled. The iterator sleeps on the thread that uses it; no other thread wakes for it.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// let stream = windway::open("https://example.com/episode.mp3")?;
    /// let handle = stream.handle();
    /// std::thread::spawn(move || {
    ///     for progress in handle.watch(Duration::from_millis(200)) {
    ///         println!("{:?} at {}", progress.phase, progress.position);
    ///     }
    /// });
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn watch(&self, every: Duration) -> Watch {
        let handle = self.clone();
        let look = move || {
            // Before the look: it shows a drop that comes in between.
            let is_dropped = handle.open_source().is_none();
            let progress = handle.progress();
            Look { is_last: is_dropped || progress.phase == Phase::Closed, progress }
        };
        Watch::new(look, every)
    }

    /// As [`Stream::starving`]. `None` once the stream was dropped.
    pub fn starving(&self) -> Option<Starving> {
        self.open_source()?;
        self.cursor.starvation.lock().current(Instant::now())
    }

    /// Counters of the stream since it was opened.
    pub fn stats(&self) -> StreamStats {
        let stats = self.ask(|source| source.stats(), |last| Some(last.stats.clone()));
        self.cursor.complete(stats.unwrap_or_default())
    }

    /// The kind of media, as far as it can be detected from the response headers, the URL and the first bytes. Uses up
    /// to 16 KiB of them, as they arrive.
    pub fn media_info(&self) -> MediaInfo {
        self.ask(|source| source.media_info(), |last| Some(last.media.clone())).unwrap_or_default()
    }

    /// Head of the response that the file was opened with: status, header fields, and the
    /// [validator](crate::downloader::ResponseHead::validator). All bytes of the stream are of the version that it names. `None`
    /// before the first response, and for sources that are not files over HTTP. Of a file that was opened from the cache it has
    /// only the fields that the cache stores: `ETag`, `Last-Modified`, `Date` and `Content-Type`.
    ///
    /// A program can store the validator and continue later, in another process, where it stopped:
    ///
    /// ```no_run
    /// use windway::{ByteRange, Downloader, Fetch, Priority};
    ///
    /// let stream = windway::open("https://example.com/a.flac")?;
    /// let validator = stream.handle().response_head().and_then(|head| head.validator());
    /// // Later:
    /// let mut rest = Fetch::get("https://example.com/a.flac")?.range(ByteRange::from_start(5000));
    /// if let Some(validator) = validator {
    ///     rest = rest.if_range(validator);
    /// }
    /// let response = Downloader::global()?.register((), Priority::High)?.execute(rest)?;
    /// // Not 5000 if the file has changed: then the response is all of the new version.
    /// println!("continues at byte {}", response.head().start());
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn response_head(&self) -> Option<ResponseHead> {
        self.ask(|source| source.response_head(), |last| Some(last.head.clone())).flatten()
    }

    /// Makes blocked reads fail with [`ErrorKind::Interrupted`]. Until [`resume`](Self::resume) no read blocks: it
    /// fails instead. Stored bytes are still returned.
    pub fn interrupt(&self) {
        if let Some(source) = self.source() {
            source.interrupt();
        }
    }

    /// Allows reads to block again.
    pub fn resume(&self) {
        if let Some(source) = self.source() {
            source.resume();
        }
    }

    /// Stops the stream's transfers permanently. Reads that would block fail with [`ErrorKind::Cancelled`]. Stored
    /// bytes are still returned.
    pub fn cancel(&self) {
        if let Some(source) = self.source() {
            source.cancel();
        }
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.ask(|source| source.url(), |last| Some(last.url.clone())).flatten();
        f.debug_struct("StreamHandle").field("url", &url).finish_non_exhaustive()
    }
}
