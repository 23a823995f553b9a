//! Opens a URL of any kind: a file, a station, an HLS playlist or a list of tracks.

mod config;
mod kind;

use crate::client::Request;
use crate::downloader::Downloader;
use crate::error::{Error, ErrorKind};
use crate::media::Document;
use crate::source::file::{self, FileReader};
#[cfg(feature = "hls")]
use crate::source::hls::Hls;
use crate::source::opening::Opening;
use crate::source::radio::Radio;
use crate::stream::Stream;

pub use self::config::OpenConfig;
use self::kind::Kind;

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
}

/// Opens `url`, whatever it leads to, with the process's downloader and default options.
///
/// See [`Downloader::open_any`].
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
    /// | a list of tracks: M3U, PLS, XSPF, ASX, a podcast's feed | `Media::Playlist`, or [`ErrorKind::Unsupported`] without the feature `queue` |
    /// | a manifest of MPEG-DASH or Smooth Streaming | [`ErrorKind::Unsupported`], which names it |
    /// | a web page or another text | [`ErrorKind::NotMedia`] |
    ///
    /// If you know that `url` leads to a file, [`open`](Self::open) is faster for some formats: it requests the end of the
    /// file beside its beginning.
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
        let request = Request::get(url)?.headers("OpenConfig::headers", &config.headers)?;
        let mut opening = Opening::send(self, request, config.file.read_timeout)?;
        let kind = opening.read_first(kind::decide)?;
        let url = opening.request.url().clone();
        become_kind(opening, kind, config).map_err(|error| error.with_url(&url))
    }
}

fn become_kind(opening: Opening, kind: Kind, config: OpenConfig) -> Result<Media, Error> {
    match kind {
        Kind::File => {
            let file = file::adopt(opening, config.file)?;
            Ok(Media::File(Stream::new(FileReader::new(file))))
        }
        Kind::Radio => Radio::adopt(opening, config.radio).map(Media::Radio),
        Kind::Document(document) => open_document(opening, document, config),
    }
}

fn open_document(opening: Opening, document: Document, config: OpenConfig) -> Result<Media, Error> {
    let unsupported = |what: &str| Err(Error::new(ErrorKind::Unsupported, what));
    match document {
        #[cfg(feature = "hls")]
        Document::Hls => Hls::adopt(opening, config.hls).map(Media::Hls),
        #[cfg(not(feature = "hls"))]
        Document::Hls => unsupported("the response is an HLS playlist, which needs the feature hls"),
        Document::List(_) => unsupported("the response is a list of tracks, which needs the feature queue"),
        Document::Dash => unsupported("the response is a manifest of MPEG-DASH, which windway does not play"),
        Document::SmoothStreaming => {
            unsupported("the response is a manifest of Smooth Streaming, which windway does not play")
        }
        Document::Page => {
            let content_type = opening.head().content_type().unwrap_or("none");
            let why =
                format!("the response is a web page or a text, not media (content type: {content_type})");
            Err(Error::new(ErrorKind::NotMedia, why))
        }
    }
}
