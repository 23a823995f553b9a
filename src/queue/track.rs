//! A track: where it is, and what its list says of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::client::{Request, UriPolicy};
use crate::error::{Error, ErrorKind};
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::stream::Stream;

use super::list::Entry;

/// A track of a [`Queue`](super::Queue) or of a [`Playlist`](super::Playlist). Cheap to clone.
///
/// ```
/// use windway::Stream;
/// use windway::queue::Track;
///
/// let remote = Track::new("https://example.com/1.flac")?.titled("One");
/// let local = Track::opened_by(|| Stream::open_file("2.flac")).titled("Two");
/// assert_eq!(remote.title(), Some("One"));
/// assert!(local.url().is_none());
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct Track {
    place: Place,
    title: Option<Arc<str>>,
    duration: Option<Duration>,
    guid: Option<Arc<str>>,
    published: Option<SystemTime>,
    media_type: Option<Arc<str>>,
    byte_len: Option<u64>,
}

#[derive(Clone)]
enum Place {
    Url(Remote),
    Opener(Arc<Open>),
}

type Open = dyn Fn() -> Result<Stream, Error> + Send + Sync;

/// A URL, and how far its source is trusted.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) url: HttpUrl,
    /// Where redirects may lead. `None` for a URL of the application.
    pub(crate) policy: Option<UriPolicy>,
    /// A playlist from a public address has named it: no name may lead to a private address.
    pub(crate) is_public_only: bool,
    /// The headers that the application has configured may be sent there.
    pub(crate) gets_headers: bool,
    /// Playlists that led to it, one in the other.
    pub(crate) depth: u32,
}

impl Track {
    /// The track at `url`, which the application knows: a redirect from it may lead anywhere.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`],
    /// [`ErrorKind::UnsupportedScheme`].
    pub fn new(url: &str) -> Result<Self, Error> {
        let url = HttpUrl::parse(url)?;
        let remote = Remote { url, policy: None, is_public_only: false, gets_headers: true, depth: 0 };
        Ok(Self::at(Place::Url(remote)))
    }

    /// A track that `open` opens when its turn comes, for example a local file. It is not opened before, and may be opened
    /// several times.
    ///
    /// `open` runs in [`Queue::next`](super::Queue::next), and may block as long as that may. A skip of the track ends the reads of its
    /// stream, and not those of another [reader](Stream::reader) of the same file.
    pub fn opened_by(open: impl Fn() -> Result<Stream, Error> + Send + Sync + 'static) -> Self {
        Self::at(Place::Opener(Arc::new(open)))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            title: None,
            duration: None,
            guid: None,
            published: None,
            media_type: None,
            byte_len: None,
        }
    }

    /// The track of a list that `entry` describes and that `remote` leads to.
    pub(super) fn of_entry(remote: Remote, entry: Entry) -> Self {
        Self {
            place: Place::Url(remote),
            title: entry.title.map(Arc::from),
            duration: entry.duration,
            guid: entry.id.map(Arc::from),
            published: entry.published,
            media_type: entry.media_type.map(Arc::from),
            byte_len: entry.len,
        }
    }

    /// Sets the title.
    #[must_use]
    pub fn titled(mut self, title: &str) -> Self {
        self.title = Some(title.into());
        self
    }

    /// The title, from the playlist or from [`titled`](Self::titled).
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The duration that the playlist says. It may be wrong.
    pub fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// What identifies the track in its list, also when its URL changes: `guid` of RSS, `id` of Atom, `identifier` of XSPF. Use
    /// it with the URL of the list as the [`CacheKey`](crate::cache::CacheKey) of an episode, and to remember where its listener
    /// was: with the URL that the user has subscribed to, and not with [`Playlist::url`](super::Playlist::url), which a redirect
    /// changes. `None` if the list has none.
    ///
    /// ```
    /// # use windway::queue::{ListRules, Playlist};
    /// let feed = br#"<rss><channel><item><guid>17</guid><enclosure url="/a.mp3?token=4711"/></item></channel></rss>"#;
    /// let feed = Playlist::parse(feed, "https://example.com/feed", ListRules::default())?;
    /// assert_eq!(feed.tracks()[0].guid(), Some("17"));
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn guid(&self) -> Option<&str> {
        self.guid.as_deref()
    }

    /// When the episode was published, as its feed says: `pubDate` of RSS, `published` of Atom or else `updated`. `None` for other
    /// lists.
    ///
    /// ```
    /// # use windway::queue::{ListRules, Playlist};
    /// let feed = br#"<rss><channel>
    ///     <item><pubDate>Mon, 6 Nov 2023 06:00:00 +0100</pubDate><enclosure url="/1.mp3" type="audio/mpeg" length="48000000"/></item>
    ///     <item><pubDate>Mon, 13 Nov 2023 06:00:00 +0100</pubDate><enclosure url="/2.mp3" type="audio/mpeg" length="0"/></item>
    /// </channel></rss>"#;
    /// let feed = Playlist::parse(feed, "https://example.com/feed", ListRules::default())?;
    /// let newest = feed.tracks().iter().max_by_key(|track| track.published()).unwrap();
    /// assert_eq!(newest.url().unwrap().expose(), "https://example.com/2.mp3");
    /// assert_eq!((newest.media_type(), newest.byte_len()), (Some("audio/mpeg"), None));
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn published(&self) -> Option<SystemTime> {
        self.published
    }

    /// The content type that a feed says. The response may have another one, and
    /// [`media_info`](crate::StreamHandle::media_info) looks at the bytes.
    pub fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }

    /// Length of the file in bytes that a feed says, for example to ask before a download. It may be wrong.
    pub fn byte_len(&self) -> Option<u64> {
        self.byte_len
    }

    /// The URL. `None` for a track that a closure opens.
    ///
    /// [`SafeUrl::expose`](crate::SafeUrl::expose) is its whole text. Where it is opened or downloaded by that text, a redirect from
    /// it may lead anywhere. The rules of its list apply in [`Downloader::open_track`](crate::Downloader::open_track) and
    /// `Downloader::download_track`.
    pub fn url(&self) -> Option<SafeUrl> {
        self.as_remote().map(|remote| SafeUrl::from(&remote.url))
    }

    pub(crate) fn as_remote(&self) -> Option<&Remote> {
        match &self.place {
            Place::Url(remote) => Some(remote),
            Place::Opener(_) => None,
        }
    }

    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a track that a closure opens.
    pub(crate) fn require_remote(&self) -> Result<&Remote, Error> {
        let why = "the track has no URL: a closure opens it";
        self.as_remote().ok_or_else(|| Error::new(ErrorKind::InvalidInput, why))
    }

    /// Opens a track that has a closure for that.
    pub(super) fn open(&self) -> Option<Result<Stream, Error>> {
        match &self.place {
            Place::Url(_) => None,
            Place::Opener(open) => Some(open()),
        }
    }
}

impl Remote {
    /// The request for the track, without the headers of the application.
    pub(crate) fn request(&self) -> Result<Request, Error> {
        let request = Request::get(self.url.expose_text())?;
        let request = if self.is_public_only { request.public_only() } else { request };
        Ok(match self.policy {
            Some(policy) => request.confine(policy),
            None => request,
        })
    }
}

impl fmt::Debug for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Track")
            .field("url", &self.url())
            .field("title", &self.title)
            .field("duration", &self.duration)
            .finish()
    }
}
