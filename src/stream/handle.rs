//! [`StreamHandle`]: what another thread may ask of a stream.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::cursor::{Cursor, FinalState};
use super::open_source::{OpenSource, locate};
use crate::cancel::CancelReason;
use crate::client::ResponseHead;
use crate::config::ReadAhead;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::event::Subscriber;
use crate::media::MediaInfo;
use crate::phase::Phase;
use crate::source::progress::{Progress, Starving};
use crate::source::{Source, StreamStats};
use crate::types::{ByteRange, Priority};
use crate::watch::{Look, Watch};

/// Observes and controls a [`Stream`](crate::Stream) from other threads. Cheap to clone. Only [`wait_buffered`](Self::wait_buffered)
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
    pub(super) source: Weak<OpenSource>,
    pub(super) cursor: Arc<Cursor>,
}

impl StreamHandle {
    /// `None` once the stream was dropped, even if another stream still reads its source.
    pub(super) fn open_source(&self) -> Option<Arc<OpenSource>> {
        if self.cursor.final_state.lock().is_some() { None } else { self.source.upgrade() }
    }

    /// The source. `None` once the stream was dropped.
    fn source(&self) -> Option<Arc<dyn Source>> {
        // Without the `OpenSource`: a handle that kept it during a blocking call would keep the drop of the stream from closing
        // the source.
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
    /// [`ErrorKind::Interrupted`]; [`ErrorKind::InvalidInput`] if `bytes`, without those past the end of the file, are more than
    /// windowed storage keeps ahead of a reader. While the length is not known, it waits for as many as are kept before that.
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
        // Dropped: what is left is how the last read ended.
        let source = self.source().map_or(Phase::Idle, |source| source.phase());
        // After the source: a drop records it before it takes the source away.
        source.after(self.cursor.reads.lock().last())
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
        // Copied, so that the source is not asked under the lock.
        let (failure, last) = {
            let reads = self.cursor.reads.lock();
            (reads.failure().cloned(), reads.last_error().cloned())
        };
        failure.or_else(|| self.ask(|source| source.last_error(), |last| Some(last.error.clone()))?).or(last)
    }

    /// Measured bandwidth of the stream's transfers, in bytes a second; of all transfers of its downloader until the stream has
    /// enough of its own. `None` until enough was transferred.
    pub fn bandwidth(&self) -> Option<f64> {
        self.ask(|source| source.bandwidth(), |last| Some(last.bandwidth)).flatten()
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

    /// What a user interface shows, at this moment. Does not block.
    pub fn progress(&self) -> Progress {
        let (position, buffered, stats) = (self.position(), self.buffered(), self.stats());
        // Of the same list, so that the two figures agree.
        let ahead = buffered.iter().find(|range| range.contains(&position));
        Progress {
            position,
            len: self.len(),
            buffered_ahead: ahead.map_or(0, |range| range.end - position),
            buffered,
            bandwidth: self.bandwidth(),
            phase: self.phase(),
            stalls: stats.stalls,
            stalled: stats.stalled,
            starving: self.starving(),
            last_error: self.last_error(),
        }
    }

    /// Returns the [`progress`](Self::progress) now, and again after each `every`. The last one is that of a stream that was
    /// dropped or cancelled, or whose downloader has stopped: it comes at once. The iterator blocks the thread that uses it; no
    /// other thread wakes for it.
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
    pub fn watch(&self, every: Duration) -> Watch<Progress> {
        let handle = self.clone();
        let look = move || {
            // Before the look: it shows a drop that comes in between.
            let is_dropped = handle.open_source().is_none();
            let progress = handle.progress();
            Look { is_last: is_dropped || progress.phase == Phase::Closed, progress }
        };
        let ending = Arc::clone(&self.cursor.ending);
        let on_cancel = self.source().and_then(|source| source.on_cancel(Box::new(move || ending.signal())));
        Watch::new(look, every, &self.cursor.ending, on_cancel)
    }

    /// As [`Stream::starving`](crate::Stream::starving). `None` once the stream was dropped.
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

    /// Makes blocked reads and waits of this stream, of all its handles too, fail with [`ErrorKind::Interrupted`]. Until
    /// [`resume`](Self::resume) none blocks: it fails instead. Stored bytes are still returned. That error is not
    /// [cancelled](Error::is_cancelled): the stream can go on. Other [readers](crate::Stream::reader) of the file are not
    /// interrupted, unless they share a source that [has no readers](crate::stream::Source::reader) of its own.
    pub fn interrupt(&self) {
        if let Some(source) = self.source() {
            source.interrupt();
        }
    }

    /// Allows the reads of this stream to block again.
    pub fn resume(&self) {
        if let Some(source) = self.source() {
            source.resume();
        }
    }

    /// Stops the stream's transfers permanently, for all its readers. Reads that would block fail with [`ErrorKind::Cancelled`]. Stored
    /// bytes are still returned, so a thread that reads goes on until it has read them: a player also ends its own loop.
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
