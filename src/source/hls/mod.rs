//! HTTP Live Streaming (draft-pantos-hls-rfc8216bis-22): audio on demand and live, as elementary frames for a decoder.
//!
//! ```text
//!   reader                          workers                           windway-hls (live only)
//!  Section::read ◀─ sections ◀─ slots ◀─ pipeline: decrypt, demux      loads the playlist again
//!      │                          ▲           ▲                              │
//!      └─ room, seek ──▶ State::plan ──▶ segment, key, init, playlist ◀── timeline
//! ```
//!
//! [`State`](state) is a plain machine behind one lock. Workers ask it for the next fetch and report what has come; readers
//! block until it has bytes for them.

#[cfg(feature = "cache")]
mod cached;
mod config;
#[cfg(feature = "hls-aes")]
mod decrypt;
pub(crate) mod demux;
mod directives;
mod event;
mod fetches;
mod group;
mod hint;
mod hook;
mod joined;
mod json;
mod levels;
mod live;
mod open;
mod pipeline;
pub(crate) mod playlist;
mod preload;
mod recognize;
mod reload;
mod requests;
mod section;
mod segment_sink;
mod shared;
mod sinks;
mod start;
mod state;
mod steering;
mod timeline;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::fetches::HlsPeer;
use self::playlist::PlaylistType;
use self::requests::Loaded;
use self::shared::Shared;
use self::state::State;
use crate::cancel::CancelReason;
use crate::client::{PreconnectGuard, Request};
use crate::downloader::{Downloader, PeerHandle};
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::event::Subscriber;
use crate::foreign::in_callback;
use crate::safe_url::SafeUrl;
use crate::source::opening::Opening;
use crate::types::Priority;

pub use self::config::{HlsConfig, MakeAbr, Quality};
pub use self::event::HlsEvent;
pub use self::hook::{Hook, RequestHook, RequestKind};
pub use self::joined::HlsSource;
pub use self::levels::{LevelInfo, RenditionInfo};
pub use self::recognize::is_hls;
pub use self::section::{Discontinuity, SectionInfo};

impl Downloader {
    /// Opens an HLS presentation. Blocks until its playlists are there: the one at `url`, and that of the chosen variant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::InvalidConfig`], which names the field;
    /// [`ErrorKind::InvalidPlaylist`]; [`ErrorKind::Unsupported`] if no variant has audio that can be played;
    /// [`ErrorKind::Forbidden`]; the errors of [`PeerHandle::execute`].
    pub fn open_hls(&self, url: &str, config: HlsConfig) -> Result<Hls, Error> {
        Hls::open(self, url, config)
    }
}

/// An HLS presentation: audio on demand, or live.
///
/// The audio comes in [sections](Section), each for one decoder. Most presentations have one; a new one begins where the
/// codec changes, after a seek, and where audio is missing. Dropping it ends everything, also the reading of sections.
///
/// ```no_run
/// use std::io::Read;
/// use windway::hls::HlsConfig;
///
/// # fn play(section: windway::hls::Section) -> std::io::Result<()> { Ok(()) }
/// let downloader = windway::Downloader::global()?;
/// let mut hls = downloader.open_hls("https://example.com/radio.m3u8", HlsConfig::default())?;
/// while let Some(section) = hls.next_section()? {
///     println!("{} at {:?}", section.info().codec, section.info().start);
///     play(section)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Hls {
    shared: Arc<Shared>,
    /// Of a live stream. Taken by `drop`, which joins them.
    threads: Vec<JoinHandle<()>>,
    /// Keeps a connection to the origin ready, so that a seek costs one round trip.
    _ready: Option<PreconnectGuard>,
    /// Last, so that the downloader ends after the thread.
    peer: PeerHandle,
}

/// What a presentation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HlsKind {
    /// It has an end, and all of it can be sought to.
    Vod,
    /// Live, and all of it can be sought to.
    Event,
    /// Live: the oldest segments are removed.
    Live,
    /// Live, with parts of segments that are fetched before the segment is complete.
    LowLatency,
}

impl Hls {
    fn open(downloader: &Downloader, url: &str, config: HlsConfig) -> Result<Self, Error> {
        Error::check_may_block("open_hls")?;
        config.check()?;
        let request = Request::get(url)?.headers("HlsConfig::headers", &config.headers)?;
        let shared = Arc::new(Shared::new(request, config));
        let peer = downloader.register(HlsPeer(Arc::clone(&shared)), shared.config.priority)?;
        // While the playlists load, a connection is opened for what the first segment needs beside itself.
        let ready = peer.waker().keep_preconnected(&shared.request);
        let state = open::open(&shared, &peer)?;
        Self::start(shared, state, ready, peer)
    }

    /// Makes a presentation of an opening that has shown an HLS playlist. Blocks like [`Downloader::open_hls`].
    pub(crate) fn adopt(opening: Opening, config: HlsConfig) -> Result<Self, Error> {
        config.check()?;
        let request = opening.request.clone().headers("HlsConfig::headers", &config.headers)?;
        let shared = Arc::new(Shared::new(request, config));
        let from = requests::final_url(&shared, opening.head(), shared.request.url().expose())?;
        shared.note_peer(opening.head().peer());
        let (peer, role) = (opening.peer.clone(), opening.role.clone());
        let ready = peer.waker().keep_preconnected(&shared.request);
        let head = opening.head().clone();
        let bytes = requests::gunzip(opening.read_document(requests::MOST_PLAYLIST)?)?;
        #[cfg(feature = "cache")]
        if let Some(store) = &shared.store {
            let asked = requests::asked(&peer.waker(), &shared.request);
            store.keep_list((shared.request.url().expose(), &from), &bytes, &head, &asked);
        }
        role.assign(HlsPeer(Arc::clone(&shared)));
        peer.set_priority(shared.config.priority);
        let state = open::open_loaded(&shared, &peer, Loaded::new(&head, bytes, from))?;
        Self::start(shared, state, ready, peer)
    }

    fn start(
        shared: Arc<Shared>,
        state: State,
        ready: Option<PreconnectGuard>,
        peer: PeerHandle,
    ) -> Result<Self, Error> {
        let (is_live, has_parts) = (state.is_live(), state.has_parts());
        shared.start(state, peer.waker(), peer.epoch().child_as(CancelReason::Fetch));
        let mut hls = Self { shared, threads: Vec::new(), _ready: ready, peer };
        if is_live {
            hls.threads.push(live::start(&hls.shared, &hls.peer)?);
        }
        if is_live && has_parts {
            hls.threads.push(hint::start(&hls.shared, &hls.peer)?);
        }
        Ok(hls)
    }

    /// Blocks until the next section begins. `None` at the end of the presentation; after a seek there are sections again.
    ///
    /// It may be called before the last section was read to its end, to open the next decoder in advance.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] after [`HlsConfig::read_timeout`]; [`ErrorKind::Interrupted`]; [`ErrorKind::Cancelled`]; the
    /// error that has stopped fetching, once: the next call tries again.
    pub fn next_section(&mut self) -> Result<Option<Section>, Error> {
        let section = self.shared.next_section()?;
        Ok(section.map(|(id, info)| Section { shared: Arc::clone(&self.shared), id, info }))
    }

    /// Changes the priority among the streams of the downloader: see [`HlsConfig::priority`].
    pub fn set_priority(&self, priority: Priority) {
        self.peer.set_priority(priority);
        self.shared.change(|state| state.set_priority(priority));
    }

    /// A handle for other threads.
    pub fn handle(&self) -> HlsHandle {
        HlsHandle { shared: Arc::clone(&self.shared) }
    }

    /// All sections as one run of bytes, for a [`Stream`](crate::stream::Stream). Blocks until the first section begins.
    ///
    /// It fits presentations whose sections one decoder can read, as most on demand are. Where the codec, the rate or the
    /// channels change, reads fail with [`ErrorKind::Unsupported`].
    ///
    /// # Errors
    ///
    /// Those of [`next_section`](Self::next_section); [`ErrorKind::Empty`] if there is no audio.
    pub fn into_source(self) -> Result<HlsSource, Error> {
        HlsSource::new(self)
    }

    /// As [`HlsHandle::seek`].
    ///
    /// # Errors
    ///
    /// Those of [`HlsHandle::seek`].
    pub fn seek(&mut self, target: Duration) -> Result<Duration, Error> {
        self.shared.seek(target)
    }
}

impl Drop for Hls {
    /// Ends all transfers, and blocks until the threads of a live stream have ended. In a callback it does not wait.
    fn drop(&mut self) {
        self.shared.cancel();
        self.peer.cancel();
        if in_callback() {
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of a live stream panicked");
            }
        }
    }
}

impl fmt::Debug for Hls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hls").field("url", &self.handle().url()).finish_non_exhaustive()
    }
}

/// The audio for one decoder, as elementary frames: ADTS, MP3, AC-3, or FLAC with its head. Opus comes in pages of Ogg.
///
/// `read` blocks until at least one byte is there. It returns 0 at the end of the section, and after a seek.
pub struct Section {
    shared: Arc<Shared>,
    id: u64,
    info: SectionInfo,
}

impl Section {
    /// What the section is.
    pub fn info(&self) -> &SectionInfo {
        &self.info
    }

    /// Number of bytes that were read.
    pub fn position(&self) -> u64 {
        self.look(|section| section.position()).unwrap_or_default()
    }

    /// Presentation time of the frame that the byte at `offset` of the section belongs to. `None` if that byte has not
    /// arrived yet, if it was read more than a minute ago, and after a seek.
    pub fn time_of(&self, offset: u64) -> Option<Duration> {
        self.look(|section| section.time_of(offset)).flatten()
    }

    fn look<T>(&self, look: impl FnOnce(&section::SectionBuffer) -> T) -> Option<T> {
        self.shared.with(|state| state.section(self.id).map(look)).flatten()
    }
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        Ok(self.shared.read(self.id, buf)?)
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.shared.with(|state| state.drop_section(self.id));
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("id", &self.id).field("info", &self.info).finish_non_exhaustive()
    }
}

/// Observes and controls an [`Hls`] from other threads. Cheap to clone. No call blocks.
#[derive(Clone)]
pub struct HlsHandle {
    shared: Arc<Shared>,
}

impl HlsHandle {
    /// The requested URL, without its user and password.
    pub fn url(&self) -> SafeUrl {
        self.shared.request.url().into()
    }

    /// What the presentation is. A live one becomes [`HlsKind::Vod`] when it ends.
    pub fn kind(&self) -> HlsKind {
        let kind = self.timeline(|timeline| match (timeline.list.is_ended, timeline.list.playlist_type) {
            (true, _) => HlsKind::Vod,
            (false, Some(PlaylistType::Event)) => HlsKind::Event,
            (false, _) if timeline.list.part_target.is_some() => HlsKind::LowLatency,
            (false, _) => HlsKind::Live,
        });
        kind.unwrap_or(HlsKind::Vod)
    }

    /// Duration of a presentation that has an end.
    pub fn duration(&self) -> Option<Duration> {
        self.timeline(|timeline| timeline.list.is_ended.then(|| timeline.end())).flatten()
    }

    /// Presentation times that can be sought to. Of a live stream they move on.
    pub fn seekable(&self) -> Range<Duration> {
        self.shared.with(|state| state.seekable()).unwrap_or_default()
    }

    /// Presentation time up to which audio was read. The listener hears it a little later.
    pub fn position(&self) -> Duration {
        self.shared.with(|state| state.reader_time()).unwrap_or_default()
    }

    /// Audio that is fetched ahead of the reader.
    pub fn buffered(&self) -> Duration {
        self.shared.with(|state| state.buffered()).unwrap_or_default()
    }

    /// Throughput of the network in bits per second, as the choice of the level expects it. `None` before the first segment.
    /// An application may keep it for [`AbrConfig::throughput`](crate::abr::AbrConfig::throughput) of the next session.
    pub fn throughput(&self) -> Option<u64> {
        self.shared.with(|state| state.throughput()).flatten()
    }

    /// Bytes of audio that were fetched and will not be played, because a segment of a higher level has replaced them, or
    /// because such a segment came too late.
    pub fn wasted(&self) -> u64 {
        self.shared.with(|state| state.wasted()).unwrap_or_default()
    }

    /// Number of calls that were blocked because no audio was there, and their total time. That for the first section counts.
    pub fn stalls(&self) -> (u64, Duration) {
        self.shared.stalls()
    }

    /// Distance of the reader from the end of a live playlist. `None` for a presentation that has ended.
    pub fn latency(&self) -> Option<Duration> {
        let position = self.position();
        self.timeline(|timeline| (!timeline.list.is_ended).then(|| timeline.edge().saturating_sub(position)))
            .flatten()
    }

    /// The versions of the audio, by ascending rate.
    pub fn levels(&self) -> Vec<LevelInfo> {
        self.shared.with(|state| state.levels().to_vec()).unwrap_or_default()
    }

    /// Index of the level that is being fetched.
    pub fn level(&self) -> usize {
        self.shared.with(|state| state.level()).unwrap_or_default()
    }

    /// The alternative versions of the audio, such as languages, in the order of the playlist. Empty if there is only one.
    pub fn renditions(&self) -> Vec<RenditionInfo> {
        self.shared.with(|state| state.renditions().to_vec()).unwrap_or_default()
    }

    /// Index of the rendition that is played. 0 if there is only one.
    pub fn rendition(&self) -> usize {
        self.shared.with(|state| state.rendition()).unwrap_or_default()
    }

    /// Continues with another of the [`renditions`](Self::renditions) where the reader is. As with a seek, sections end, also
    /// the one being read; [`Hls::next_section`] returns the one of the new rendition. [`levels`](Self::levels) are those of
    /// the new rendition from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if there is no such rendition, or none of its playlists can be played.
    pub fn select_rendition(&self, rendition: usize) -> Result<(), Error> {
        self.shared.select_rendition(rendition)
    }

    /// Changes how the level is chosen, from the next segment on that is not requested yet.
    pub fn set_quality(&self, quality: Quality) {
        self.shared.change(|state| state.set_quality(quality, Instant::now()));
    }

    /// Continues at `target`, and returns the start of the segment there. Sections end, also the one being read;
    /// [`Hls::next_section`] returns the one at the target, whose [`skip`](SectionInfo::skip) is the rest of the way.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`] if the target is not in [`seekable`](Self::seekable).
    pub fn seek(&self, target: Duration) -> Result<Duration, Error> {
        self.shared.seek(target)
    }

    /// Continues a live stream at its edge. Does nothing else than [`seek`](Self::seek) to the end of
    /// [`seekable`](Self::seekable).
    ///
    /// # Errors
    ///
    /// Those of [`seek`](Self::seek).
    pub fn go_live(&self) -> Result<Duration, Error> {
        self.shared.seek(self.seekable().end)
    }

    /// Subscribes to the events from now on. The subscription ends with the presentation.
    pub fn subscribe(&self) -> Subscriber<HlsEvent> {
        self.shared.subscribe()
    }

    /// Makes blocked calls fail with [`ErrorKind::Interrupted`]. Until [`resume`](Self::resume) no call blocks: it fails
    /// instead. Fetching continues.
    pub fn interrupt(&self) {
        self.shared.interrupt();
    }

    /// Allows calls to block again.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Ends all transfers permanently. Calls that would block fail with [`ErrorKind::Cancelled`]; fetched audio can still
    /// be read.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    fn timeline<T>(&self, look: impl FnOnce(&timeline::Timeline) -> T) -> Option<T> {
        self.shared.with(|state| state.timeline().map(look)).flatten()
    }
}

impl fmt::Debug for HlsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HlsHandle").field("url", &self.url()).finish_non_exhaustive()
    }
}
