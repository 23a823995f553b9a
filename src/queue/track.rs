//! A track: where it is, and what its list says of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Request, UriPolicy};
use crate::error::{Error, ErrorKind};
use crate::safe_url::{HttpUrl, SafeUrl};
use crate::stream::Stream;

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
        Ok(Self::remote(
            Remote { url, policy: None, is_public_only: false, gets_headers: true, depth: 0 },
            None,
            None,
        ))
    }

    /// A track that `open` opens when its turn comes, for example a local file. It is not opened before, and may be opened
    /// several times.
    ///
    /// `open` runs in [`Queue::next`](super::Queue::next), and may block as long as that may.
    pub fn opened_by(open: impl Fn() -> Result<Stream, Error> + Send + Sync + 'static) -> Self {
        Self { place: Place::Opener(Arc::new(open)), title: None, duration: None, guid: None }
    }

    pub(super) fn remote(remote: Remote, title: Option<String>, duration: Option<Duration>) -> Self {
        Self { place: Place::Url(remote), title: title.map(Arc::from), duration, guid: None }
    }

    pub(super) fn identified(mut self, guid: Option<String>) -> Self {
        self.guid = guid.map(Arc::from);
        self
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
