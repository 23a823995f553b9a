//! The value that callers read: `Read + Seek + Send + Sync`, and what another thread may ask of it.

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

/// A file on a server, read as if it lay on the disk.
///
/// `read` blocks until at least one byte is there and returns what there is; it never returns
/// [`io::ErrorKind::Interrupted`]. After an error the stream is as usable as before, and its position is exact; a decoder
/// above it may have lost what it had buffered, so seek before going on. `seek` does no I/O and never blocks, but for
/// [`SeekFrom::End`] while the length is unknown; the next read decides what to fetch.
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
    /// How many of the file's failures `try_read` has told of.
    failures: u64,
    /// What it failed of last.
    failed: Option<Failed>,
}

/// Where a stream is. Written by it only; its handles look at it.
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

/// How long `try_read` repeats a failure before it asks again: it may be called at any rate.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Failed {
    position: u64,
    at: Instant,
    error: Error,
}

/// Opens `url` with the process's downloader and default options.
///
/// Blocks until the first head came. Sends one request.
///
/// # Errors
///
/// What the opening failed of, with the URL: [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`],
/// [`ErrorKind::HostNotFound`], [`ErrorKind::Refused`], [`ErrorKind::Tls`], [`ErrorKind::Status`],
/// [`ErrorKind::NotMedia`], [`ErrorKind::Empty`], [`ErrorKind::Redirect`], [`ErrorKind::TimedOut`] and the like.
pub fn open(url: &str) -> Result<Stream, Error> {
    Downloader::global()?.open(url)
}

impl Downloader {
    /// Opens `url` with default options. Blocks until the first head came.
    ///
    /// # Errors
    ///
    /// As [`open`].
    pub fn open(&self, url: &str) -> Result<Stream, Error> {
        self.open_with(url, FileConfig::default())
    }

    /// Opens `url`. Blocks until the first head came.
    ///
    /// # Errors
    ///
    /// As [`open`]; [`ErrorKind::InvalidConfig`], naming the field.
    pub fn open_with(&self, url: &str, config: FileConfig) -> Result<Stream, Error> {
        HttpFile::open(self, url, config, true).map(Stream::new)
    }

    /// As [`open_with`](Self::open_with), but does not block: the first bytes are fetched in the background, and what that
    /// fails of comes from the first read, which tries again.
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

    /// Another reader of the same file, at its beginning: with a position and a window of its own, and the same bytes.
    pub fn reader(&self) -> Self {
        let reader = self.shared().add_reader();
        Self::new((Arc::clone(&self.file), reader))
    }

    /// Reads what is stored and never waits: for audio callbacks. Where nothing is stored it is asked for, as if a read
    /// waited. Takes no lock that is held during I/O. What lies in a temporary file is [`Pending::OnDisk`](crate::Pending::OnDisk)
    /// until a thread of storage's own has loaded it into memory: from then on, what follows is loaded ahead of the reader.
    /// The first such read starts that thread, one for the process, which ends with the last stream that made one.
    ///
    /// # Errors
    ///
    /// What a read would fail of that waits: [`ErrorKind::Cancelled`], [`ErrorKind::Interrupted`],
    /// [`ErrorKind::Storage`], what the fetch failed of for good. That is told for a second, however often this is called, and then it is tried again. What may pass is
    /// [`Pending::Retrying`](crate::Pending::Retrying), for as long as it lasts: [`FileConfig::read_timeout`] does not count here.
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

    /// Notes that a read has failed, for the phase, and tells of it.
    fn note_failure(&self, position: u64, error: &Error) {
        let is_failure = self.cursor.reads.lock().fail(error);
        if is_failure {
            self.shared().report(error.clone(), position);
        }
    }

    fn shared(&self) -> &Shared {
        self.file.shared()
    }

    /// Bytes in the file, if the server told, or the end was seen.
    pub fn len(&self) -> Option<u64> {
        self.shared().len()
    }

    /// True if the file is known to have no bytes. One that opened has some.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// True if any byte can be had at the cost of one request. Without it seeking works too, at the cost of reading all
    /// that lies before.
    pub fn is_seekable(&self) -> bool {
        self.shared().is_ranged()
    }

    /// True for a source without an end. Files have one.
    pub fn is_live(&self) -> bool {
        false
    }

    /// The URL that was asked for, without a user and password that were in it.
    pub fn url(&self) -> SafeUrl {
        self.shared().url()
    }

    /// Gives the stream another priority beside other streams, for what is queued too.
    pub fn set_priority(&self, priority: Priority) {
        self.file.peer().set_priority(priority);
    }

    /// What another thread may ask of this stream. Does not keep its transfers alive.
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
        // Decoders seek to where they are, to ask where that is.
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

/// What another thread may ask of a [`Stream`]. Cheap to clone. Only [`wait_buffered`](Self::wait_buffered) and
/// [`wait_range`](Self::wait_range) block.
#[derive(Clone)]
pub struct StreamHandle {
    file: Weak<HttpFile>,
    shared: Arc<Shared>,
    cursor: Arc<Cursor>,
}

impl StreamHandle {
    /// The stream's position.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// Bytes in the file, if known.
    pub fn len(&self) -> Option<u64> {
        self.shared.len()
    }

    /// True if the file is known to have no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The bytes that are stored and can be read at once, in order.
    pub fn buffered(&self) -> Vec<Range<u64>> {
        self.shared.buffered()
    }

    /// Blocks until `bytes` are stored from the stream's position on, or all up to the end of the file. They are asked for as
    /// what a read waits for is, also where they are more than the read-ahead.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] after `timeout`; what ended the stream's transfers; [`ErrorKind::Interrupted`];
    /// [`ErrorKind::InvalidInput`] for more than windowed storage keeps ahead of a reader.
    pub fn wait_buffered(&self, bytes: u64, timeout: Option<Duration>) -> Result<(), Error> {
        self.shared.wait_buffered(self.position(), bytes, timeout)
    }

    /// As [`wait_buffered`](Self::wait_buffered), for bytes anywhere in the file. What lies behind its end, and an empty range,
    /// is not waited for.
    ///
    /// # Errors
    ///
    /// As [`wait_buffered`](Self::wait_buffered).
    pub fn wait_range(&self, range: Range<u64>, timeout: Option<Duration>) -> Result<(), Error> {
        self.shared.wait_buffered(range.start, range.end.saturating_sub(range.start), timeout)
    }

    /// What the stream is at just now.
    pub fn phase(&self) -> Phase {
        let reads = self.cursor.reads.lock().last();
        self.shared.phase(reads)
    }

    /// What went wrong last: what the last read failed of; else why nothing is fetched, or what was asked for could not be had
    /// and is asked for again; else what any earlier read failed of, for good. Interrupting and cancelling are no errors here.
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

    /// Bytes a second that the downloader achieves, all its transfers together. `None` until enough was transferred.
    pub fn rate(&self) -> Option<f64> {
        self.shared.rate()
    }

    /// Gives the stream another priority beside other streams, for what is queued too.
    pub fn set_priority(&self, priority: Priority) {
        if let Some(file) = self.file.upgrade() {
            file.peer().set_priority(priority);
        }
    }

    /// Changes how far ahead of its readers the file is fetched, from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for 0 bytes.
    pub fn set_read_ahead(&self, read_ahead: ReadAhead) -> Result<(), Error> {
        self.shared.set_read_ahead(read_ahead)
    }

    /// The events of the stream's fetches, from now on. `None` once the stream is gone.
    pub fn subscribe(&self) -> Option<Subscriber> {
        self.file.upgrade().map(|file| file.peer().subscribe())
    }

    /// Another reader of the same file; see [`Stream::reader`]. `None` once the stream is gone.
    pub fn reader(&self) -> Option<Stream> {
        let file = self.file.upgrade()?;
        let reader = file.shared().add_reader();
        Some(Stream::new((file, reader)))
    }

    /// What the stream has done so far.
    pub fn stats(&self) -> StreamStats {
        self.shared.stats()
    }

    /// What kind of media it is, as far as the header, the URL and the first bytes tell: up to 16 KiB of them, as they come.
    pub fn media_info(&self) -> MediaInfo {
        self.shared.media_info()
    }

    /// Releases the reads that wait, which fail with [`ErrorKind::Interrupted`]; until [`resume`](Self::resume) none waits.
    /// Stored bytes are still served.
    pub fn interrupt(&self) {
        self.shared.interrupt();
    }

    /// Lets reads wait again.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Ends the stream's transfers for good. Reads that would wait fail with [`ErrorKind::Cancelled`]; stored bytes are
    /// still served.
    pub fn cancel(&self) {
        self.shared.cancel();
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").field("url", &self.shared.url()).finish_non_exhaustive()
    }
}
