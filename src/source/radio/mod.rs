//! Radio: audio streams without an end, with titles in their metadata.
//!
//! ```text
//!   reader                                     windway-radio
//!  Radio::read ◀── window of audio ◀── icy ◀── body ◀── execute ──▶ downloader
//!      │               titles      ◀────┘        │ failed
//!      └─ room, end of a pause ─▶ flow control   └──▶ reconnect: when, or never
//! ```
//!
//! Each radio has its own thread that reads the body: the body never ends, so it would occupy a worker forever. The
//! thread stops reading while the window is full, so TCP flow control slows the server down.

mod description;
mod event;
mod icy;
mod playlist;
mod progress;
mod receiver;
mod reconnect;
mod shared;
mod titles;
mod window;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::shared::Shared;
use crate::cancel::CancelGuard;
use crate::client::Request;
use crate::config::{RadioConfig, RequestKind};
use crate::downloader::{Downloader, Epoch, PeerHandle, Response};
use crate::error::Error;
use crate::event::Subscriber;
use crate::foreign::in_callback;
use crate::media::MediaInfo;
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::source::opening::Opening;
use crate::types::Priority;
use crate::watch::{Ending, Look, Watch};
#[cfg(doc)]
use crate::{config::OnDiscontinuity, error::ErrorKind};

pub use self::event::RadioEvent;
pub use self::icy::RadioInfo;
pub(crate) use self::icy::is_station_header;
pub use self::progress::RadioProgress;
pub use self::shared::RadioStats;
pub use self::titles::Title;

/// A station over HTTP, Icecast or SHOUTcast: audio without an end, and its titles.
///
/// `read` blocks until at least one byte is stored, and returns the bytes that are available. It never returns
/// [`io::ErrorKind::Interrupted`]. It returns 0 at a discontinuity, with [`OnDiscontinuity::EndOfStream`], and at the
/// end of a file: of a body whose length was announced, by a server that does not call itself a station. A connection
/// that breaks, stalls, ends or is too slow for the reader is replaced, for up to [`RadioConfig::give_up`]. Meanwhile
/// the reader continues with the stored bytes.
///
/// If a radio ends permanently (it is cancelled or refused, or it is not audio), each `read` after the stored bytes
/// returns that error.
///
/// Positions count bytes of audio since the radio's start. `seek` moves within the [window](RadioHandle::window) of
/// stored bytes, and never blocks.
///
/// ```no_run
/// use std::io::Read;
/// use windway::{Downloader, DownloaderConfig, Radio, RadioConfig};
///
/// let downloader = Downloader::new(DownloaderConfig::default())?;
/// let mut radio = downloader.open_radio("http://example.com:8000/stream", RadioConfig::default())?;
/// let handle = radio.handle();
/// let mut audio = vec![0; 64 * 1024];
/// radio.read_exact(&mut audio)?;
/// let playing = handle.now_playing().and_then(|playing| playing.title);
/// println!("{}", playing.as_deref().unwrap_or("no title"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Discontinuities
///
/// The audio of two connections does not join: the first one ends inside a frame, and the second one begins at any
/// byte. A [`RadioEvent::Discontinuity`] gives the position. MP3 and AAC decoders continue, because they search for the
/// next frame. Formats that begin with headers (Ogg, FLAC) begin with them again and need a new decoder. With
/// [`OnDiscontinuity::EndOfStream`] each connection is read like a file that was truncated:
///
/// ```no_run
/// # use std::io::{self, Read};
/// use windway::config::OnDiscontinuity;
/// use windway::{Downloader, Radio, RadioConfig};
///
/// # fn play(part: impl Read) -> io::Result<()> { Ok(()) }
/// let mut config = RadioConfig::default();
/// config.on_discontinuity = OnDiscontinuity::EndOfStream;
/// let downloader = Downloader::global()?;
/// let mut radio = downloader.open_radio("http://example.com:8000/stream.ogg", config)?;
/// loop {
///     // Makes a decoder, for symphonia with `MediaSourceStream::new(Box::new(&mut radio), ..)`, and plays it to its end.
///     play(&mut radio)?;
///     radio.handle().pass_discontinuity();
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A decoder may report the truncated end as an error, usually of kind [`io::ErrorKind::UnexpectedEof`], which the
/// radio itself never returns. It may report truncated headers as damaged. In both cases make the next decoder: it
/// continues after the discontinuity, once that was reached.
///
/// Ogg also chains streams within one connection, at each title: symphonia then returns `ResetRequired`, and its new
/// tracks need new decoders. A player that handles this can continue over discontinuities in Ogg. FLAC frames are
/// numbered: symphonia 0.6 plays no frame of a new connection until its number reaches that of the old connection's
/// end.
pub struct Radio {
    shared: Arc<Shared>,
    /// Taken by `drop`, which joins it.
    thread: Option<JoinHandle<()>>,
    _on_cancel: CancelGuard,
    /// Last, so that the downloader ends after the thread.
    peer: PeerHandle,
}

impl Radio {
    /// See [`Downloader::open_radio`].
    pub(crate) fn open(downloader: &Downloader, url: &str, config: RadioConfig) -> Result<Self, Error> {
        let config = config.checked()?;
        let request = Request::get(url)?;
        let peer = downloader.register((), Priority::High)?;
        let epoch = peer.epoch().child_as_peer();
        Self::start(request, config, epoch, peer, None)
    }

    /// Makes a radio of an opening that has shown a station, and goes on with its response. Does not block.
    pub(crate) fn adopt(opening: Opening, config: RadioConfig) -> Result<Self, Error> {
        let config = config.checked()?;
        let Opening { request, peer, epoch, mut response, first, limit, .. } = opening;
        limit.end(Ok(()))?;
        // What was read to recognise the station is its first audio.
        response.unread(&first);
        Self::start(request, config, epoch, peer, Some((response, first)))
    }

    fn start(
        request: Request,
        config: RadioConfig,
        epoch: Epoch,
        peer: PeerHandle,
        first: Option<(Response, Vec<u8>)>,
    ) -> Result<Self, Error> {
        // Asks for titles in the audio, as far apart as `icy-metaint` of the answer says (ICY has no RFC). Also sent to the
        // hosts that the station redirects to.
        let request =
            request.open_header("icy-metadata", "1").headers("RadioConfig::headers", &config.headers)?;
        let (hook, mirrors) = (config.hook.as_ref(), &config.mirrors);
        let request = request.alternates("RadioConfig", RequestKind::Station, hook, mirrors)?;
        let shared = Arc::new(Shared::new(request, config, epoch, peer.waker())?);
        // Weak: the epoch is a part of `Shared`, which a strong reference would keep alive through itself.
        let weak = Arc::downgrade(&shared);
        let on_cancel =
            shared.epoch.token().wake_on_cancel(move || weak.upgrade().is_some_and(|shared| shared.notify()));
        let first = first.map(|(response, bytes)| {
            // Here, and not by the thread only: handles describe the station as soon as there are any.
            let info = RadioInfo::from_headers(response.head().headers());
            shared.describe(response.head(), &info, info.audio_of(&bytes));
            response
        });
        let thread = receiver::start(&shared, &peer, first)?;
        Ok(Self { shared, thread: Some(thread), _on_cancel: on_cancel, peer })
    }

    /// Always true: a station has no end, and whether a body is a file's may show only at its end.
    pub fn is_live(&self) -> bool {
        true
    }

    /// The requested URL, without its user and password.
    pub fn url(&self) -> SafeUrl {
        self.shared.url()
    }

    /// A handle for other threads. It does not keep the radio receiving.
    pub fn handle(&self) -> RadioHandle {
        RadioHandle { shared: Arc::clone(&self.shared) }
    }
}

impl Read for Radio {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.shared.read(buf)?)
    }
}

impl Seek for Radio {
    /// Moves the reader within the stored window. Never blocks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`] if the target is not stored, with the window in [`Error::range`];
    /// [`ErrorKind::InvalidInput`] for [`SeekFrom::End`]. The position then stays as it was.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        Ok(self.shared.seek(to)?)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.shared.position())
    }
}

impl Drop for Radio {
    /// Stops the radio's thread and blocks until it has ended. In a callback it does not wait for the thread.
    fn drop(&mut self) {
        // Before the join: it wakes the thread from its read of the socket, which would block until the next byte.
        self.peer.cancel();
        // The radio's thread may be waiting for this very callback.
        if in_callback() {
            return;
        }
        let joined = self.thread.take().map(JoinHandle::join);
        if joined.is_some_and(|joined| joined.is_err()) {
            log::error!("a radio's thread panicked");
        }
        self.shared.close();
    }
}

impl fmt::Debug for Radio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Radio")
            .field("url", &self.url())
            .field("window", &self.shared.try_window())
            .finish_non_exhaustive()
    }
}

/// Observes and controls a [`Radio`] from other threads. Cheap to clone. Only [`wait_buffered`](Self::wait_buffered)
/// blocks.
///
/// ```no_run
/// use windway::radio::RadioEvent;
/// use windway::{Downloader, Radio, RadioConfig};
///
/// let downloader = Downloader::global()?;
/// let radio = downloader.open_radio("http://example.com:8000/stream", RadioConfig::default())?;
/// let events = radio.handle().subscribe();
/// std::thread::spawn(move || {
///     for event in events {
///         if let RadioEvent::Title { position, title, .. } = event {
///             println!("from byte {position} on: {title:?}");
///         }
///     }
/// });
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct RadioHandle {
    shared: Arc<Shared>,
}

impl RadioHandle {
    /// The requested URL, without its user and password.
    pub fn url(&self) -> SafeUrl {
        self.shared.url()
    }

    /// Position of the next byte to be read, in bytes of audio since the radio's start.
    pub fn position(&self) -> u64 {
        self.shared.position()
    }

    /// Range of the stored bytes, behind and ahead of the reader. `seek` can go to any of them.
    pub fn window(&self) -> Range<u64> {
        self.shared.window()
    }

    /// Ranges of the bytes that are stored and can be read at once: the [`window`](Self::window), unless it is empty.
    pub fn buffered(&self) -> Vec<Range<u64>> {
        self.shared.buffered()
    }

    /// Number of stored bytes from the radio's position on.
    pub fn buffered_ahead(&self) -> u64 {
        self.shared.buffered_ahead()
    }

    /// The current phase of the radio. [`Phase::Closed`] after it was dropped or cancelled; [`Phase::Failed`] after it
    /// has ended for another reason, or if its last read failed.
    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// The most recent error. The first of these that exists: the error of the last read; the error that ended the
    /// radio, or because of which it reconnects; the error of any earlier read. Interrupting and cancelling do not
    /// count as errors.
    pub fn last_error(&self) -> Option<Error> {
        self.shared.last_error()
    }

    /// Blocks until `bytes` are stored ahead of the reader.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if `bytes` is more than [`RadioConfig::ahead`] minus 32 KiB (minus a quarter of
    /// `ahead`, if that is less than 32 KiB), because that last part may stay empty; [`ErrorKind::TimedOut`] after
    /// `timeout`; the error that ended the radio; [`ErrorKind::Interrupted`].
    pub fn wait_buffered(&self, bytes: u64, timeout: Option<Duration>) -> Result<(), Error> {
        self.shared.wait_buffered(bytes, timeout)
    }

    /// Lets the reader continue live: its next read returns what is received from now on, and what is stored before that is skipped.
    /// If the buffer was full since the connection began, as after a pause, the connection is replaced, because the server goes on with
    /// older audio there: [`RadioEvent::Discontinuity`] gives the position. [`RadioEvent::Skipped`] says what was skipped, if
    /// anything was. A `seek` before the next read cancels the skip. Does nothing after the end. Does not block.
    ///
    /// Make a new decoder, or reset the old one: it has read ahead.
    ///
    /// ```no_run
    /// # fn reset_decoder() {}
    /// let radio = windway::Downloader::global()?.open_radio("http://example.com:8000/", Default::default())?;
    /// let handle = radio.handle();
    /// // The user has pressed "live" after a pause.
    /// handle.go_live();
    /// reset_decoder();
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn go_live(&self) {
        self.shared.go_live();
    }

    /// The station's description of itself, from its response headers. `None` before the first response.
    pub fn info(&self) -> Option<RadioInfo> {
        self.shared.info()
    }

    /// The kind of media, as far as it can be detected from the response headers, the URL and the first bytes.
    pub fn media_info(&self) -> MediaInfo {
        self.shared.media_info()
    }

    /// The title that applies to the byte at `position`. Titles are kept for the window, and at most the last 1024. `None` from the
    /// first byte of a connection on, until its first title.
    pub fn title_at(&self, position: u64) -> Option<Title> {
        self.shared.title_at(position)
    }

    /// The title at the reader's position; `None` if it is unknown, as of the first bytes of a connection. The listener hears it a
    /// little later: the decoder and the output buffer audio.
    pub fn now_playing(&self) -> Option<Title> {
        self.shared.now_playing()
    }

    /// Subscribes to the radio's events. The first subscriber also gets the events since the radio's start, up to
    /// [`RadioConfig::event_capacity`]; later ones get new events only. The subscription ends with the radio.
    pub fn subscribe(&self) -> Subscriber<RadioEvent> {
        self.shared.subscribe()
    }

    /// Counters of the radio since it was opened.
    pub fn stats(&self) -> RadioStats {
        self.shared.stats()
    }

    /// What a user interface shows, at this moment. Does not block.
    pub fn progress(&self) -> RadioProgress {
        self.shared.progress()
    }

    /// Returns the [`progress`](Self::progress) now, and again after each `every`. The last one is that of a radio that was dropped or
    /// cancelled, or whose downloader has stopped: it comes at once. The iterator blocks the thread that uses it; no other
    /// thread wakes for it.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use windway::{Downloader, RadioConfig};
    ///
    /// let downloader = Downloader::global()?;
    /// let radio = downloader.open_radio("http://example.com:8000/stream", RadioConfig::default())?;
    /// let handle = radio.handle();
    /// std::thread::spawn(move || {
    ///     for progress in handle.watch(Duration::from_millis(200)) {
    ///         let title = progress.title.and_then(|playing| playing.title);
    ///         println!("{:?}: {title:?}, {} bytes ahead", progress.stream.phase, progress.stream.buffered_ahead);
    ///     }
    /// });
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn watch(&self, every: Duration) -> Watch<RadioProgress> {
        let shared = Arc::clone(&self.shared);
        let look = move || {
            let progress = shared.progress();
            Look { is_last: progress.stream.phase == Phase::Closed, progress }
        };
        let ending = Arc::<Ending>::default();
        let signals = Arc::clone(&ending);
        let on_cancel = self.shared.epoch.on_cancel(move || signals.signal());
        Watch::new(look, every, &ending, Some(on_cancel))
    }

    /// Lets reads continue after the discontinuity at which they return 0: see [`OnDiscontinuity::EndOfStream`]. False
    /// if the reader is at no discontinuity. A seek to a discontinuity passes it.
    pub fn pass_discontinuity(&self) -> bool {
        self.shared.pass_discontinuity()
    }

    /// Makes blocked reads fail with [`ErrorKind::Interrupted`]. Until [`resume`](Self::resume) no read blocks: it
    /// fails instead. Stored bytes are still returned, and the radio continues to receive. That error is not
    /// [cancelled](Error::is_cancelled): the radio can go on.
    pub fn interrupt(&self) {
        self.shared.interrupt();
    }

    /// Allows reads to block again.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Stops the radio permanently. Reads that would block fail with [`ErrorKind::Cancelled`]. Stored bytes are still
    /// returned.
    pub fn cancel(&self) {
        self.shared.epoch.cancel();
    }
}

impl fmt::Debug for RadioHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RadioHandle").field("url", &self.shared.url()).finish_non_exhaustive()
    }
}
