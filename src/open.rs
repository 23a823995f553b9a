//! Opens a URL of any kind: a file, a station, an HLS playlist or a list of tracks.

mod config;
mod kind;

use crate::cancel::CancelHandle;
use crate::client::Request;
#[cfg(feature = "queue")]
use crate::client::is_private;
use crate::downloader::Downloader;
use crate::error::{Error, ErrorKind};
use crate::media::Document;
#[cfg(feature = "queue")]
use crate::media::ListFormat;
#[cfg(feature = "queue")]
use crate::queue::{ListOrigin, Playlist, Remote, Track};
#[cfg(feature = "queue")]
use crate::safe_url::HttpUrl;
#[cfg(feature = "cache")]
use crate::source::file::HttpFile;
use crate::source::file::{self, FileReader};
#[cfg(feature = "hls")]
use crate::source::hls::Hls;
use crate::source::opening::Opening;
use crate::source::radio::Radio;
use crate::stream::Stream;

pub use self::config::OpenConfig;
use self::kind::Kind;

/// Maximum number of lists that lead from one to the next. Each costs a request, and a loop of lists would never end.
#[cfg(feature = "queue")]
const MOST_NESTED: u32 = 5;

/// Maximum size of a list in bytes. Feeds of daily podcasts have a few megabytes.
#[cfg(feature = "queue")]
const MOST_LIST: usize = 16 << 20;

/// What a URL leads to.
///
/// ```no_run
/// use windway::Media;
///
/// match windway::open_any("https://example.com/listen")? {
///     Media::File(stream) => println!("{:?} bytes", stream.len()),
///     Media::Radio(radio) => println!("a station: {:?}", radio.handle().info()),
///     _ => println!("something else"),
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Media {
    /// A file with an end.
    File(Stream),
    /// A station, or another body without an end.
    Radio(Radio),
    /// HTTP Live Streaming, on demand or live. Needs the feature `hls`.
    #[cfg(feature = "hls")]
    Hls(Hls),
    /// A list of several tracks, or a feed. Needs the feature `queue`.
    #[cfg(feature = "queue")]
    Playlist(Playlist),
}

/// Opens `url`, whatever it leads to, with the process's downloader and default options.
///
/// See [`Downloader::open_any`].
///
/// ```no_run
/// use windway::Media;
///
/// match windway::open_any("https://example.com/from-the-user")? {
///     Media::File(stream) => println!("a file of {:?} bytes", stream.len()),
///     Media::Radio(radio) => println!("a station: {:?}", radio.handle().info()),
///     _ => println!("a presentation, or a list of tracks"),
/// }
/// # Ok::<(), windway::Error>(())
/// ```
///
/// # Errors
///
/// The same as for [`Downloader::open_any`].
pub fn open_any(url: &str) -> Result<Media, Error> {
    Downloader::global()?.open_any(url)
}

impl Downloader {
    /// Opens `url`, whatever it leads to, with default options: for a URL that a user has pasted.
    ///
    /// Sends one request. The response head and the first bytes decide what it is, and its body is read on as that. An HLS
    /// playlist leads to further requests. Blocks until the first bytes of a file or a station are there, or until an HLS
    /// presentation can be read.
    ///
    /// | response | result |
    /// |---|---|
    /// | audio or video of known length, or with a validator, or chunked | [`Media::File`] |
    /// | audio from a server that calls itself a station, or without any sign of an end | [`Media::Radio`] |
    /// | a playlist of HLS | `Media::Hls`, or [`ErrorKind::Unsupported`] without the feature `hls` |
    /// | a podcast's feed, or a list of several tracks: M3U, PLS, XSPF, ASX | `Media::Playlist`, or [`ErrorKind::Unsupported`] without the feature `queue` |
    /// | a list of one track, but no feed | what that track is; at most five lists lead to it |
    /// | a manifest of MPEG-DASH or Smooth Streaming | [`ErrorKind::Unsupported`], which names it |
    /// | a web page or another text; a picture, a PDF or a ZIP archive, by its content type and first bytes | [`ErrorKind::NotMedia`] |
    ///
    /// The file's [`read_timeout`](crate::FileConfig::read_timeout) limits how long it blocks without progress until it is known
    /// what `url` leads to, and while a list is read; that of `HlsConfig` limits the loading of the playlists behind the first one.
    /// To cancel it earlier, from another thread, call [`open_any_with`](Self::open_any_with) with a
    /// [`CancelHandle`](OpenConfig::cancel).
    ///
    /// If you know that `url` leads to a file, [`open`](Self::open) is faster for some formats, because it requests the end of
    /// the file beside its beginning.
    ///
    /// What the cache of `FileConfig` or `HlsConfig` has of `url` is opened without a request, as `open_with` and `open_hls` open it.
    /// Of HLS that a list of tracks names, the playlist is requested.
    ///
    /// # Errors
    ///
    /// Those in the table, and those of [`open`](Self::open), of `open_hls` and of [`open_radio`](Self::open_radio).
    pub fn open_any(&self, url: &str) -> Result<Media, Error> {
        self.open_any_with(url, OpenConfig::default())
    }

    /// As [`open_any`](Self::open_any).
    ///
    /// # Errors
    ///
    /// Those of [`open_any`](Self::open_any), and [`ErrorKind::InvalidConfig`], which names the field.
    pub fn open_any_with(&self, url: &str, config: OpenConfig) -> Result<Media, Error> {
        Error::check_may_block("open_any")?;
        Target::of(url)?.open(self, config)
    }

    /// Opens a track of a playlist, whatever it is: see [`open_any`](Self::open_any). A [`Queue`](crate::queue::Queue) plays
    /// files only.
    ///
    /// Headers of `config` are sent to a track of the application, and to one on the playlist's own origin if the playlist got
    /// them too.
    ///
    /// ```no_run
    /// use windway::{Downloader, Media, OpenConfig};
    ///
    /// let downloader = Downloader::global()?;
    /// if let Media::Playlist(stations) = downloader.open_any("https://example.com/stations.pls")? {
    ///     let first = stations.tracks().iter().find_map(|track| downloader.open_track(track, OpenConfig::default()).ok());
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`open_any_with`](Self::open_any_with); [`ErrorKind::InvalidInput`] for a track that a closure opens.
    #[cfg(feature = "queue")]
    pub fn open_track(&self, track: &Track, config: OpenConfig) -> Result<Media, Error> {
        Error::check_may_block("open_track")?;
        Target::of_track(track.require_remote()?)?.open(self, config)
    }
}

/// What is to be opened.
struct Target {
    /// Without the headers of the configuration.
    request: Request,
    /// The headers of the configuration may be sent there.
    gets_headers: bool,
    /// The URL as it was given, with its user and password.
    #[cfg(feature = "queue")]
    given: HttpUrl,
    /// Lists that led to it, one in the other.
    #[cfg(feature = "queue")]
    depth: u32,
}

/// What a response has led to.
enum Opened {
    Media(Media),
    /// The one track of a list.
    #[cfg(feature = "queue")]
    Next(Target),
}

impl Target {
    fn of(url: &str) -> Result<Self, Error> {
        Ok(Self {
            request: Request::get(url)?,
            gets_headers: true,
            #[cfg(feature = "queue")]
            given: HttpUrl::parse(url)?,
            #[cfg(feature = "queue")]
            depth: 0,
        })
    }

    #[cfg(feature = "queue")]
    fn of_track(remote: &Remote) -> Result<Self, Error> {
        let Remote { url, gets_headers, depth, .. } = remote;
        Ok(Self {
            request: remote.request()?,
            gets_headers: *gets_headers,
            given: url.clone(),
            depth: *depth,
        })
    }

    fn open(self, downloader: &Downloader, config: OpenConfig) -> Result<Media, Error> {
        // The headers stay in `config`: a list on another origin may lead back to the first one.
        let own = if self.gets_headers { config.clone() } else { config.clone().without_headers() };
        let request = self.request.clone().headers("OpenConfig::headers", &own.headers)?;
        match self.send(downloader, request, own).map_err(|error| error.with_url(self.request.url()))? {
            Opened::Media(media) => Ok(media),
            #[cfg(feature = "queue")]
            // Names of the cache and of mirrors are those of the list, and not of its track.
            Opened::Next(next) => next.open(downloader, config.without_names()),
        }
    }

    fn send(&self, downloader: &Downloader, request: Request, config: OpenConfig) -> Result<Opened, Error> {
        // What the cache has needs no request, which would fail.
        check_cancel(config.cancel.as_ref())?;
        #[cfg(feature = "cache")]
        if let Some(media) = self.open_cached(downloader, &request, &config)? {
            return Ok(Opened::Media(media));
        }
        let cancel = config.cancel.clone();
        let mut opening = Opening::send(downloader, request, config.file.read_timeout, cancel.as_ref())?;
        let on_cancel = opening.on_cancel.take();
        let kind = opening.read_first(kind::decide)?;
        let opened = self.open_as(opening, kind, config)?;
        // Removed before the look: a later cancel leaves alone what is returned.
        drop(on_cancel);
        check_cancel(cancel.as_ref())?;
        Ok(opened)
    }

    /// Opens what is stored and may be used before a request.
    #[cfg(feature = "cache")]
    fn open_cached(
        &self,
        downloader: &Downloader,
        request: &Request,
        config: &OpenConfig,
    ) -> Result<Option<Media>, Error> {
        let cached = HttpFile::open_cached(downloader, request.clone(), config.file.clone())?;
        if let Some(file) = cached {
            return Ok(Some(Media::File(Stream::new(FileReader::new(file)))));
        }
        #[cfg(feature = "hls")]
        // A list may name a private address, which only the response to the first request shows.
        if self.is_of_application() {
            return Ok(Hls::open_cached(downloader, request.clone(), config.hls.clone())?.map(Media::Hls));
        }
        Ok(None)
    }

    /// True if the application has named it, and no list.
    #[cfg(all(feature = "cache", feature = "hls"))]
    fn is_of_application(&self) -> bool {
        #[cfg(feature = "queue")]
        return self.depth == 0;
        #[cfg(not(feature = "queue"))]
        true
    }

    fn open_as(&self, opening: Opening, kind: Kind, config: OpenConfig) -> Result<Opened, Error> {
        let media = match kind {
            Kind::File => Media::File(Stream::new(FileReader::new(file::adopt(opening, config.file)?))),
            Kind::Radio => Media::Radio(Radio::adopt(opening, config.radio)?),
            #[cfg(feature = "hls")]
            Kind::Document(Document::Hls) => Media::Hls(Hls::adopt(opening, config.hls)?),
            #[cfg(feature = "queue")]
            Kind::Document(Document::List(format)) => return self.open_list(opening, format, config),
            Kind::Document(document) => return Err(refusal(document, opening.head().content_type())),
        };
        Ok(Opened::Media(media))
    }

    /// Reads a list. One with a single track is followed, unless it is a feed.
    #[cfg(feature = "queue")]
    fn open_list(&self, opening: Opening, format: ListFormat, config: OpenConfig) -> Result<Opened, Error> {
        if self.depth >= MOST_NESTED {
            let why = format!("lists of tracks are nested deeper than {MOST_NESTED}");
            return Err(Error::new(ErrorKind::InvalidPlaylist, why));
        }
        let requested = opening.request.url().clone();
        let (head, text) = opening.read_document(MOST_LIST)?;
        let url = HttpUrl::of(head.url()).unwrap_or_else(|| requested.clone());
        // A redirect could lead from a public host to a private address, as an entry could.
        config.lists.policy().check(requested.expose(), url.expose())?;
        // A list that a redirect found on another origin speaks for that origin, which the headers are not meant for.
        let gets_headers = self.gets_headers && url.origin() == requested.origin();
        let given = gets_headers.then(|| self.given.clone());
        // Judged by the address that answered, not by the name: a public name may resolve to a private address. Behind a proxy
        // the address is not known.
        let is_public = head.peer().is_some_and(|peer| !is_private(peer));
        let list = Playlist::read(
            format,
            &text,
            ListOrigin { url, is_public, depth: self.depth, given },
            config.lists,
        )?;
        match list.tracks() {
            // A list with refused entries is not one of a single track: the caller is to see the refusals. A feed has a title, and
            // gets more episodes.
            [only] if list.refused().is_empty() && format != ListFormat::Feed => match only.as_remote() {
                Some(remote) => Self::of_track(remote).map(Opened::Next),
                None => Ok(Opened::Media(Media::Playlist(list))),
            },
            _ => Ok(Opened::Media(Media::Playlist(list))),
        }
    }
}

/// # Errors
///
/// [`ErrorKind::Cancelled`] once the handle was cancelled.
fn check_cancel(cancel: Option<&CancelHandle>) -> Result<(), Error> {
    let reason = cancel.and_then(CancelHandle::reason);
    reason.map_or(Ok(()), |reason| Err(Error::cancelled(reason)))
}

/// Why a document is not opened.
fn refusal(document: Document, content_type: Option<&str>) -> Error {
    let unsupported = |what: &str| Error::new(ErrorKind::Unsupported, format!("the response is {what}"));
    match document {
        Document::Hls => unsupported("an HLS playlist, which needs the feature hls"),
        Document::List(_) => unsupported("a list of tracks, which needs the feature queue"),
        Document::Dash => unsupported("a manifest of MPEG-DASH, which windway does not play"),
        Document::SmoothStreaming => {
            unsupported("a manifest of Smooth Streaming, which windway does not play")
        }
        Document::Page | Document::Other(_) => {
            let (what, content_type) = (document.name(), content_type.unwrap_or("none"));
            let why = format!("the response is {what}, not media (content type: {content_type})");
            Error::new(ErrorKind::NotMedia, why)
        }
    }
}
