//! A presentation: opening it, its sections, and its end.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::config::HlsConfig;
use super::handle::HlsHandle;
use super::opening::open;
use super::peer::fetches::HlsPeer;
use super::peer::requests::Loaded;
use super::peer::{hint, live, requests};
use super::reader::Section;
use super::shared::Shared;
use super::state::State;
use crate::client::{PreconnectGuard, Request};
use crate::downloader::{Downloader, Epoch, PeerHandle};
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::foreign::{contain, in_callback};
use crate::source::opening::Opening;
use crate::source::opening_limit::OpeningLimit;
use crate::thread;
use crate::types::Priority;

impl Downloader {
    /// Opens an HLS presentation. Blocks until its playlists are there: the one at `url`, and that of the chosen variant; at most
    /// for [`HlsConfig::read_timeout`] without progress, which bytes of any of them are. A host that can't be reached is an error at
    /// once. To cancel it meanwhile, and to show its progress, use [`open_hls_later`](Self::open_hls_later).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::InvalidConfig`], which names the field;
    /// [`ErrorKind::InvalidPlaylist`]; [`ErrorKind::Unsupported`] if no variant has audio that can be played;
    /// [`ErrorKind::Forbidden`]; [`ErrorKind::OutOfWindow`] if [`HlsConfig::start`] is behind the end; [`ErrorKind::TimedOut`]; the
    /// errors of [`PeerHandle::execute`].
    pub fn open_hls(&self, url: &str, config: HlsConfig) -> Result<Hls, Error> {
        Hls::open(self, url, config)
    }

    /// Opens an HLS presentation like [`open_hls`](Self::open_hls), but does not block: a thread, `windway-hls-open`, loads the playlists
    /// and then the first segments. The first call of [`Hls::next_section`] waits for that, with no other limit of time than those of
    /// the opening. [`HlsHandle::cancel`] ends it, whatever it waits for, and so does the drop of the [`Hls`].
    ///
    /// Meanwhile the phase is [`Phase::Opening`](crate::stream::Phase::Opening), and nothing is known of the presentation: it has
    /// no levels, its kind is [`HlsKind::Vod`](super::HlsKind::Vod), and what moves the reader fails with
    /// [`ErrorKind::OutOfWindow`]. `last_error` is that of a playlist that is being retried. `set_quality` and `set_priority` count, from
    /// the first segment on if the playlist of a level is not being loaded yet. If the opening fails, each call returns its error, the
    /// phase is [`Phase::Failed`](crate::stream::Phase::Failed), and the presentation has to be opened again.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use windway::Downloader;
    /// use windway::hls::HlsConfig;
    ///
    /// # fn play(section: windway::hls::Section) {}
    /// let mut hls = Downloader::global()?.open_hls_later("https://example.com/radio.m3u8", HlsConfig::default())?;
    /// let handle = hls.handle();
    /// std::thread::spawn(move || {
    ///     while let Ok(Some(section)) = hls.next_section() {
    ///         play(section);
    ///     }
    /// });
    /// for progress in handle.watch(Duration::from_millis(200)) {
    ///     println!("{:?}", progress.stream.phase); // a button calls handle.cancel()
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::InvalidConfig`], which names the field;
    /// [`ErrorKind::Cancelled`] once the downloader has stopped; [`ErrorKind::Io`] if the thread can't be started.
    pub fn open_hls_later(&self, url: &str, config: HlsConfig) -> Result<Hls, Error> {
        Hls::open_later(self, url, config)
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
    pub(super) shared: Arc<Shared>,
    /// Opens it in the background. Returns the threads of a live stream.
    opener: Option<JoinHandle<Threads>>,
    /// Of a live stream. Taken by `drop`, which joins them.
    threads: Threads,
    /// Keeps a connection to the origin ready, so that a seek costs one round trip.
    _ready: Option<PreconnectGuard>,
    /// Last, so that the downloader ends after the thread.
    peer: PeerHandle,
}

type Threads = Vec<JoinHandle<()>>;

impl Hls {
    fn open(downloader: &Downloader, url: &str, config: HlsConfig) -> Result<Self, Error> {
        Error::check_may_block("open_hls")?;
        config.check()?;
        let request = Request::get(url)?.headers("HlsConfig::headers", &config.headers)?;
        let shared = Arc::new(Shared::new(request, config));
        let peer = downloader.register(HlsPeer(Arc::clone(&shared)), shared.config.priority)?;
        // While the playlists load, a connection is opened for what the first segment needs beside itself.
        let ready = peer.waker().keep_preconnected(&shared.request);
        let state = load(&shared, &peer, |epoch| open::open(&shared, &peer, epoch))?;
        Self::start(shared, state, ready, peer)
    }

    fn open_later(downloader: &Downloader, url: &str, config: HlsConfig) -> Result<Self, Error> {
        config.check()?;
        let request = Request::get(url)?.headers("HlsConfig::headers", &config.headers)?;
        let shared = Arc::new(Shared::new(request, config));
        let peer = downloader.register(HlsPeer(Arc::clone(&shared)), shared.config.priority)?;
        shared.link.set_peer(peer.token());
        let ready = peer.waker().keep_preconnected(&shared.request);
        let mut hls = Self { shared, opener: None, threads: Vec::new(), _ready: ready, peer };
        let (shared, peer) = (Arc::clone(&hls.shared), hls.peer.clone());
        hls.opener = Some(thread::start("hls-open", move || open_in_background(&shared, &peer))?);
        Ok(hls)
    }

    /// Opens a presentation from the cache. `None` if that would send a request first.
    #[cfg(feature = "cache")]
    pub(crate) fn open_cached(
        downloader: &Downloader,
        request: Request,
        config: HlsConfig,
    ) -> Result<Option<Self>, Error> {
        if config.cache.is_none() {
            return Ok(None);
        }
        config.check()?;
        let request = request.headers("HlsConfig::headers", &config.headers)?;
        let shared = Arc::new(Shared::new(request, config));
        let peer = downloader.register(HlsPeer(Arc::clone(&shared)), shared.config.priority)?;
        let Some(state) = super::cached::open(&shared, &peer, &peer.epoch()) else { return Ok(None) };
        let ready = peer.waker().keep_preconnected(&shared.request);
        Self::start(shared, state, ready, peer).map(Some)
    }

    /// Makes a presentation of an opening that has shown an HLS playlist. Blocks like [`Downloader::open_hls`].
    pub(crate) fn adopt(opening: Opening, config: HlsConfig) -> Result<Self, Error> {
        config.check()?;
        let request = opening.request.clone().headers("HlsConfig::headers", &config.headers)?;
        let shared = Arc::new(Shared::new(request, config));
        let (peer, role) = (opening.peer.clone(), opening.role.clone());
        let ready = peer.waker().keep_preconnected(&shared.request);
        // The response headers are there already, so the first reload comes later by what they took.
        let began = Instant::now();
        let (head, bytes) = opening.read_document(requests::MOST_PLAYLIST)?;
        let from = requests::final_url(&shared, &head, shared.request.url().expose())?;
        shared.note_peer(head.peer());
        let bytes = requests::gunzip(bytes)?;
        #[cfg(feature = "cache")]
        if let Some(store) = &shared.store {
            let sent = requests::sent_request(&peer.waker(), &shared.request);
            store.keep_list((shared.request.url().expose(), &from), &bytes, &head, &sent);
        }
        // Assigned before the playlists are read: this peer loads the keys that they name.
        role.assign(HlsPeer(Arc::clone(&shared)));
        peer.set_priority(shared.config.priority);
        // The limit of the opening has ended, and its configuration is the file's.
        let first = Loaded::new(&head, bytes, from, began);
        let state = load(&shared, &peer, |epoch| open::open_loaded(&shared, &peer, epoch, first))?;
        Self::start(shared, state, ready, peer)
    }

    fn start(
        shared: Arc<Shared>,
        state: State,
        ready: Option<PreconnectGuard>,
        peer: PeerHandle,
    ) -> Result<Self, Error> {
        // Made before the threads: if the second one does not start, its drop joins the first.
        let mut hls = Self { shared, opener: None, threads: Vec::new(), _ready: ready, peer };
        begin(&hls.shared, &hls.peer, state, &mut hls.threads)?;
        Ok(hls)
    }

    /// Blocks until the next section begins. `None` at the end of the presentation; after a seek there are sections again.
    ///
    /// It may be called before the last section was read to its end, to open the next decoder in advance. If the last section was
    /// dropped before its end, this is its rest ([`Discontinuity::Reopened`](super::Discontinuity::Reopened)). One of which
    /// nothing was read is skipped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] after [`HlsConfig::read_timeout`], with the error that is being retried as its cause;
    /// [`ErrorKind::Interrupted`]; [`ErrorKind::Cancelled`]; the error that has stopped fetching, once: the next call tries
    /// again, up to 1.5 s after that error, or as late as the server has asked for. Errors that may pass are retried, and stop
    /// nothing.
    pub fn next_section(&mut self) -> Result<Option<Section>, Error> {
        let section = self.shared.next_section()?;
        Ok(section.map(|(id, info)| Section {
            shared: Arc::clone(&self.shared),
            id,
            info,
            is_begun: false,
            alive: Arc::default(),
        }))
    }

    /// As [`next_section`](Self::next_section), without blocking: `None` if it has not begun yet.
    pub(super) fn try_next_section(&mut self) -> Result<Option<Option<Section>>, Error> {
        let begun = self.shared.try_next_section()?;
        Ok(begun.map(|next| {
            next.map(|(id, info)| Section {
                shared: Arc::clone(&self.shared),
                id,
                info,
                is_begun: false,
                alive: Arc::default(),
            })
        }))
    }

    /// Changes the priority among the streams of the downloader: see [`HlsConfig::priority`].
    pub fn set_priority(&self, priority: Priority) {
        self.peer.set_priority(priority);
        self.shared.set_priority(priority);
    }

    /// A handle for other threads.
    pub fn handle(&self) -> HlsHandle {
        HlsHandle { shared: Arc::clone(&self.shared) }
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

/// Loads what is needed to start by `open`, which ends when its epoch is cancelled: after [`HlsConfig::read_timeout`] without bytes.
/// The peer is not cancelled then: that would count as a cancel by the application.
fn load(
    shared: &Shared,
    peer: &PeerHandle,
    open: impl FnOnce(&Epoch) -> Result<State, Error>,
) -> Result<State, Error> {
    let epoch = peer.epoch();
    let limit = OpeningLimit::of_epoch(peer, &epoch, shared.config.read_timeout);
    limit.end(open(&epoch)).map_err(|error| shared.locate(error))
}

/// Starts to fetch, and the threads of a live stream.
fn begin(shared: &Arc<Shared>, peer: &PeerHandle, state: State, threads: &mut Threads) -> Result<(), Error> {
    state.check_start().map_err(|error| shared.locate(error))?;
    let (is_live, has_parts) = (state.is_live(), state.has_parts());
    shared.start(state, peer.waker(), peer.epoch().child_as_peer());
    if is_live {
        threads.push(live::start(shared, peer)?);
    }
    if is_live && has_parts {
        threads.push(hint::start(shared, peer)?);
    }
    Ok(())
}

/// The thread `windway-hls-open`.
fn open_in_background(shared: &Arc<Shared>, peer: &PeerHandle) -> Threads {
    let mut threads = Vec::new();
    let opened = contain("the opening of a presentation", || {
        let state = load(shared, peer, |epoch| open::open(shared, peer, epoch))?;
        begin(shared, peer, state, &mut threads)
    });
    // The caller learns it from its next call.
    if let Err(error) = opened.unwrap_or_else(|panic| Err(panic.into())) {
        shared.fail_opening(error);
    }
    threads
}

impl Drop for Hls {
    /// Ends all transfers, and blocks until the threads of an opening or a live stream have ended. In a callback it does not wait.
    fn drop(&mut self) {
        self.shared.cancel();
        self.shared.with(State::drop_unread);
        self.peer.cancel();
        self.shared.link.keep_totals();
        // A callback may run on one of these threads, which would wait for itself.
        if in_callback() {
            return;
        }
        // Its panics are contained, so there is always a result.
        let started = self.opener.take().and_then(|opener| opener.join().ok());
        for thread in self.threads.drain(..).chain(started.into_iter().flatten()) {
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::config::DownloaderConfig;
    use crate::phase::Phase;

    #[test]
    fn a_live_stream_whose_thread_can_not_be_started_has_failed() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut socket, _) = server.accept().unwrap();
            assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
            let list = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na\n";
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len()).unwrap();
        });
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let shared = Arc::new(Shared::new(Request::get(&url).unwrap(), HlsConfig::default()));
        let peer = downloader.register(HlsPeer(Arc::clone(&shared)), Priority::High).unwrap();
        let _refusal = thread::refuse("hls");
        assert!(open_in_background(&shared, &peer).is_empty());
        let error = shared.next_section().unwrap_err();
        assert!(error.to_string().contains("windway-hls could not be started"), "{error}");
        assert_eq!((shared.phase(), shared.last_error().is_some()), (Phase::Failed, true));
        assert!(shared.with(|_| ()).is_none(), "nothing is fetched");
    }
}
