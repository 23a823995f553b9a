//! Radio: streams without an end, that say what is playing.
//!
//! ```text
//!   reader                                     windway-radio
//!  Radio::read ◀── window of audio ◀── icy ◀── body ◀── execute ──▶ downloader
//!      │               titles      ◀────┘        │ failed
//!      └─ room, back from a pause ──▶ gate       └──▶ reconnect: when, or never
//! ```
//!
//! A thread of the radio's own reads the body, for it never ends and would hold a worker for ever. It stops reading while
//! the window is full, so TCP holds the server back.

mod event;
mod icy;
mod playlist;
mod receiver;
mod reconnect;
mod shared;
mod titles;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::shared::Shared;
use crate::cancel::{CancelGuard, CancelReason};
use crate::client::Request;
use crate::config::RadioConfig;
use crate::downloader::{Downloader, PeerHandle};
use crate::error::Error;
use crate::event::Subscriber;
use crate::foreign::in_callback;
use crate::media::MediaInfo;
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::types::Priority;
#[cfg(doc)]
use crate::{config::OnDiscontinuity, error::ErrorKind};

pub use self::event::RadioEvent;
pub use self::icy::RadioInfo;
pub use self::shared::RadioStats;
pub use self::titles::Title;

/// A station over HTTP, Icecast or SHOUTcast: audio without an end, and the titles in between.
///
/// `read` blocks until at least one byte is there and returns what there is; it never returns
/// [`io::ErrorKind::Interrupted`], and 0 only at a discontinuity where that is asked for. A connection that breaks, falls silent,
/// ends or starves the reader is replaced, for as long as [`RadioConfig::give_up`] says, while what is stored plays on.
///
/// What ends a radio for good (it is cancelled, refused, no audio) is the error of each `read` after the stored bytes.
///
/// Positions count bytes of audio since the radio's start. `seek` moves within the [window](RadioHandle::window) of what is
/// stored, and never blocks.
///
/// ```no_run
/// use std::io::Read;
/// use windway::{Downloader, DownloaderConfig, Radio, RadioConfig};
///
/// let downloader = Downloader::new(DownloaderConfig::default())?;
/// let mut radio = Radio::open(&downloader, "http://example.com:8000/stream", RadioConfig::default())?;
/// let handle = radio.handle();
/// let mut audio = vec![0; 64 * 1024];
/// radio.read_exact(&mut audio)?;
/// let playing = handle.now_playing().and_then(|playing| playing.title);
/// println!("{}", playing.as_deref().unwrap_or("no title"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Seams
///
/// Two connections do not join: the last frame of the one is cut, and the other begins anywhere. A
/// [`RadioEvent::Discontinuity`] tells where that is. MP3 and AAC are played on: their decoders look for the next frame.
/// What begins with headers (Ogg, FLAC) begins with them again, and wants a new decoder. With [`OnDiscontinuity::EndOfStream`] each
/// connection is read like a file, and ends as one that was cut:
///
/// ```no_run
/// # use std::io::{self, Read};
/// use windway::{OnDiscontinuity, Downloader, Radio, RadioConfig};
///
/// # fn play(part: impl Read) -> io::Result<()> { Ok(()) }
/// let mut config = RadioConfig::default();
/// config.on_discontinuity = OnDiscontinuity::EndOfStream;
/// let downloader = Downloader::global()?;
/// let mut radio = Radio::open(&downloader, "http://example.com:8000/stream.ogg", config)?;
/// loop {
///     // Makes a decoder, for symphonia with `MediaSourceStream::new(Box::new(&mut radio), ..)`, and plays it to its end.
///     play(&mut radio)?;
///     radio.handle().pass_discontinuity();
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A decoder may report a cut end as an error, of kind [`io::ErrorKind::UnexpectedEof`] mostly, which none of the radio's own
/// errors is, and cut headers as damaged: the next one goes on, behind the discontinuity once that was reached.
///
/// Ogg chains streams within one connection too, at each title: symphonia then returns `ResetRequired`, and its new tracks
/// want new decoders. Whoever handles that may play Ogg on. FLAC's frames are numbered: symphonia 0.6 plays none of a new
/// connection until their numbers are those of the old one's end.
pub struct Radio {
    shared: Arc<Shared>,
    /// Taken by the drop.
    thread: Option<JoinHandle<()>>,
    _on_cancel: CancelGuard,
    /// Last, so that the downloader ends after the thread.
    peer: PeerHandle,
}

impl Radio {
    /// Tunes in to `url`. Does not block: the connection is made by the radio's thread, and what it fails of comes from the
    /// first read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::InvalidConfig`], naming the field;
    /// [`ErrorKind::Cancelled`] once the downloader has stopped; [`ErrorKind::Io`] if a thread can't be started.
    pub fn open(downloader: &Downloader, url: &str, config: RadioConfig) -> Result<Self, Error> {
        let config = config.checked()?;
        // To the station's other hosts too, where it redirects to one.
        let request = Request::get(url)?
            .open_header("icy-metadata", "1")
            .headers("RadioConfig::headers", &config.headers)?;
        let peer = downloader.register((), Priority::High)?;
        let epoch = peer.epoch().child_as(CancelReason::Fetch);
        let shared = Arc::new(Shared::new(request, config, epoch)?);
        let weak = Arc::downgrade(&shared);
        let on_cancel = shared.epoch.on_cancel(move |_| {
            if let Some(shared) = weak.upgrade() {
                shared.notify();
            }
        });
        let thread = receiver::start(&shared, &peer)?;
        Ok(Self { shared, thread: Some(thread), _on_cancel: on_cancel, peer })
    }

    /// True: a radio has no end.
    pub fn is_live(&self) -> bool {
        true
    }

    /// The URL that was asked for, without a user and password that were in it.
    pub fn url(&self) -> SafeUrl {
        self.shared.url()
    }

    /// What another thread may ask of this radio. Does not keep it playing.
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
    /// Fails with [`ErrorKind::OutOfWindow`] where nothing is stored, with the window in [`Error::range`], and with
    /// [`ErrorKind::InvalidInput`] for [`SeekFrom::End`]. Does not move then.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        Ok(self.shared.seek(to)?)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.shared.position())
    }
}

impl Drop for Radio {
    /// Ends the radio's thread, wherever it waits, and blocks until it has ended; in a callback it does not wait for that.
    fn drop(&mut self) {
        self.peer.cancel();
        if in_callback() {
            return;
        }
        let joined = self.thread.take().map(JoinHandle::join);
        if joined.is_some_and(|joined| joined.is_err()) {
            log::error!("the thread of a radio had panicked");
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

/// Lent to a decoder up to the next discontinuity: see [`OnDiscontinuity`].
#[cfg(feature = "symphonia")]
impl symphonia_core::io::MediaSource for &mut Radio {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
}

#[cfg(feature = "symphonia")]
impl symphonia_core::io::MediaSource for Radio {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
}

/// What another thread may ask of a [`Radio`]. Cheap to clone. Only [`wait_buffered`](Self::wait_buffered) blocks.
///
/// ```no_run
/// use windway::{Downloader, Radio, RadioConfig, RadioEvent};
///
/// let downloader = Downloader::global()?;
/// let radio = Radio::open(&downloader, "http://example.com:8000/stream", RadioConfig::default())?;
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
    /// The next byte to be read, counted in audio since the radio's start.
    pub fn position(&self) -> u64 {
        self.shared.position()
    }

    /// The bytes that are stored, behind the reader and ahead of it: where `seek` can go.
    pub fn window(&self) -> Range<u64> {
        self.shared.window()
    }

    /// How many bytes are stored ahead of the reader.
    pub fn buffered(&self) -> u64 {
        self.shared.buffered()
    }

    /// What the radio is at just now. [`Phase::Closed`] once it was dropped or cancelled; [`Phase::Failed`] once it has ended
    /// for another reason, or when its last read failed.
    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// What went wrong last: what the last read failed of; else what the radio has ended with, or what it reconnects for; else
    /// what any earlier read failed of. Interrupting and cancelling are no errors here.
    pub fn last_error(&self) -> Option<Error> {
        self.shared.last_error()
    }

    /// Blocks until `bytes` are stored ahead of the reader.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for more than [`RadioConfig::ahead`] less 32 KiB, or a quarter of it where that is less,
    /// which may stay empty; [`ErrorKind::TimedOut`] after `timeout`; what ended the radio; [`ErrorKind::Interrupted`].
    pub fn wait_buffered(&self, bytes: u64, timeout: Option<Duration>) -> Result<(), Error> {
        self.shared.wait_buffered(bytes, timeout)
    }

    /// What the station says of itself; `None` before the first answer.
    pub fn info(&self) -> Option<RadioInfo> {
        self.shared.info()
    }

    /// What kind of media it is, as far as the header, the URL and the first bytes tell.
    pub fn media_info(&self) -> MediaInfo {
        self.shared.media_info()
    }

    /// The title of the byte at `position`. Those of the window are kept, the last 1024 at most.
    pub fn title_at(&self, position: u64) -> Option<Title> {
        self.shared.title_at(position)
    }

    /// The title at the reader's position: what is to be shown, but for what the decoder holds.
    pub fn now_playing(&self) -> Option<Title> {
        self.shared.now_playing()
    }

    /// What happens to the radio. The first subscriber gets all from its start on, as far as
    /// [`RadioConfig::event_capacity`] holds it; later ones get what happens from now on. Ends with the radio.
    pub fn subscribe(&self) -> Subscriber<RadioEvent> {
        self.shared.subscribe()
    }

    /// What the radio has done so far.
    pub fn stats(&self) -> RadioStats {
        self.shared.stats()
    }

    /// Lets reads go on behind the discontinuity that they end at: see [`OnDiscontinuity::EndOfStream`]. False if the reader is at
    /// none. A seek passes the discontinuity that it goes to.
    pub fn pass_discontinuity(&self) -> bool {
        self.shared.pass_discontinuity()
    }

    /// Releases the reads that wait, which fail with [`ErrorKind::Interrupted`]; until [`resume`](Self::resume) none waits.
    /// Stored bytes are still served, and the radio goes on receiving.
    pub fn interrupt(&self) {
        self.shared.interrupt();
    }

    /// Lets reads wait again.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Ends the radio for good. Reads that would wait fail with [`ErrorKind::Cancelled`]; stored bytes are still served.
    pub fn cancel(&self) {
        self.shared.epoch.cancel();
    }
}

impl fmt::Debug for RadioHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RadioHandle").field("url", &self.shared.url()).finish_non_exhaustive()
    }
}
