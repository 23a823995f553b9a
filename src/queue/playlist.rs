//! A list of tracks: read from its text, with each entry checked.

use std::borrow::Cow;

use crate::client::UriPolicy;
use crate::config::setters::setters;
use crate::error::{Error, ErrorKind};
use crate::media::{self, Detected, Document, ListFormat};
use crate::safe_url::{HttpUrl, SafeUrl};

use super::list::List;
use super::track::{Remote, Track};

/// Maximum length of the URLs of all tracks in bytes. A relative entry of one letter takes as much memory as the URL of its list,
/// which may have 64 KiB. The URLs of 100,000 tracks are rarely longer than 200 bytes each.
const MOST_URLS: usize = 64 << 20;

/// A list of tracks: M3U, PLS, XSPF, ASX, or the enclosures of a podcast's feed (RSS, Atom).
///
/// A playlist is input from a stranger. Its entries may name http and https URLs only, and never a local file. Those of an
/// https list may not name http URLs, and those of a public host no private addresses, unless [`ListRules`] allow it.
/// Redirects from an entry are held to the same rules, and so are host names that resolve to private addresses, if the list
/// itself was opened by windway from a public address. An entry that violates them is left out, and
/// [`refused`](Self::refused) says why.
///
/// ```
/// use windway::queue::{ListRules, Playlist};
///
/// let text = b"#EXTM3U\n#EXTINF:180,One\n1.mp3\nfile:///etc/passwd\n";
/// let playlist = Playlist::parse(text, "https://example.com/music/list.m3u", ListRules::default())?;
/// assert_eq!(playlist.tracks()[0].title(), Some("One"));
/// assert_eq!(playlist.tracks()[0].url().unwrap().expose(), "https://example.com/music/1.mp3");
/// assert!(playlist.refused()[0].to_string().starts_with("line 4: "));
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Playlist {
    url: HttpUrl,
    title: Option<String>,
    tracks: Vec<Track>,
    refused: Vec<Error>,
}

/// Where the entries of a [`Playlist`] may lead.
///
/// ```
/// use windway::queue::ListRules;
///
/// let rules = ListRules::new().allow_private(true); // the lists of a server at home that is reached by a public name
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListRules {
    /// Allows an https list to name http URLs. Default: false.
    pub allow_http: bool,
    /// Allows a list from a public host to name private addresses. Default: false.
    pub allow_private: bool,
}

setters!(ListRules {
    allow_http: bool,
    allow_private: bool,
} into {});

impl ListRules {
    pub(crate) fn policy(self) -> UriPolicy {
        UriPolicy { allow_http: self.allow_http, allow_private: self.allow_private }
    }
}

/// Where a list came from.
pub(crate) struct ListOrigin {
    /// Where redirects led.
    pub(crate) url: HttpUrl,
    /// The address that sent it is one of the public internet.
    pub(crate) is_public: bool,
    /// Playlists that led to it.
    pub(crate) depth: u32,
    /// The URL that the application gave, with its user and password, if the list came from its origin. Then tracks there get
    /// the application's headers too.
    pub(crate) given: Option<HttpUrl>,
}

impl ListOrigin {
    /// An entry of the list, which leads to `target`.
    fn remote(&self, target: HttpUrl, rules: ListRules) -> Remote {
        // A list names any URL it likes, so credentials go to its own origin only.
        let given = self.given.as_ref().filter(|given| given.origin() == target.origin());
        Remote {
            policy: Some(rules.policy()),
            is_public_only: self.is_public && !rules.allow_private,
            gets_headers: given.is_some(),
            depth: self.depth + 1,
            url: given.map_or(target.clone(), |given| with_user_of(given, &target)),
        }
    }
}

impl Playlist {
    /// Reads a list that came from `url`, to which relative entries refer. The format is detected. Sends no request.
    ///
    /// Of a local list pass `http://local.invalid/`: entries may then name http and https URLs, and relative ones, which are paths on the
    /// disk, lead to a host that does not exist (RFC 6761, section 6.4). [`ListRules::allow_private`] lets it name servers at home.
    ///
    /// ```
    /// use windway::queue::{ListRules, Playlist};
    ///
    /// let text = b"#EXTM3U\nhttp://example.com/1.mp3\nMusic/2.mp3\n"; // std::fs::read("list.m3u")?
    /// let list = Playlist::parse(text, "http://local.invalid/", ListRules::default())?;
    /// let is_local = |track: &windway::queue::Track| track.url().is_some_and(|url| url.expose().starts_with("http://local.invalid/"));
    /// let tracks: Vec<_> = list.into_tracks().into_iter().filter(|track| !is_local(track)).collect();
    /// assert_eq!(tracks[0].url().unwrap().expose(), "http://example.com/1.mp3");
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] and [`ErrorKind::UnsupportedScheme`] for `url`; [`ErrorKind::Unsupported`] for a playlist of
    /// HLS; [`ErrorKind::InvalidPlaylist`] for another text, for a list other than a feed that has no tracks, and with the line
    /// if the list violates its format; [`ErrorKind::TooLarge`] for more than 100,000 tracks, or for more than 64 MiB of URLs; the
    /// error of the first entry if all are refused.
    pub fn parse(text: &[u8], url: &str, rules: ListRules) -> Result<Self, Error> {
        let url = HttpUrl::parse(url)?;
        let format = detect(text).map_err(|error| error.with_url(&url))?;
        // Only the application knows which address it was loaded from.
        Self::read(format, text, ListOrigin { url, is_public: false, depth: 0, given: None }, rules)
    }

    pub(crate) fn read(
        format: ListFormat,
        text: &[u8],
        origin: ListOrigin,
        rules: ListRules,
    ) -> Result<Self, Error> {
        let url = origin.url.clone();
        let list = List::parse(format, text).map_err(|error| error.with_url(&url))?;
        let (mut tracks, mut refused) = (Vec::with_capacity(list.entries.len()), Vec::new());
        let mut bytes = 0;
        for entry in list.entries {
            match resolve(&url, &entry.location, rules) {
                Ok(target) => {
                    let remote = origin.remote(target, rules);
                    bytes += remote.url.expose_text().len();
                    if bytes > MOST_URLS {
                        let why = format!(
                            "line {}: the URLs of the tracks have more than {MOST_URLS} bytes",
                            entry.line
                        );
                        return Err(Error::new(ErrorKind::TooLarge, why).with_url(&url));
                    }
                    tracks.push(Track::of_entry(remote, entry));
                }
                Err(error) => refused.push(at_line(entry.line, error)),
            }
        }
        match refused.first() {
            // The first refusal explains more than "no tracks".
            Some(first) if tracks.is_empty() => Err(first.clone()),
            // The episodes of a podcast may be yet to come. Other lists are nothing without their tracks.
            None if tracks.is_empty() && format != ListFormat::Feed => {
                Err(Error::new(ErrorKind::InvalidPlaylist, "the list has no tracks").with_url(&url))
            }
            _ => Ok(Self { url, title: list.title, tracks, refused }),
        }
    }

    /// The URL that the list came from, after redirects.
    pub fn url(&self) -> SafeUrl {
        SafeUrl::from(&self.url)
    }

    /// The title of the list, or of the podcast.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The tracks, in the order of the list. At least one, but for a feed without episodes. Most podcasts begin with the
    /// newest episode: sort by [`Track::published`] to be sure.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The tracks, by value.
    pub fn into_tracks(self) -> Vec<Track> {
        self.tracks
    }

    /// Why entries were left out, in the order of the list. Each error begins with the line:
    /// [`ErrorKind::UnsupportedScheme`], [`ErrorKind::Forbidden`] or [`ErrorKind::InvalidUrl`].
    pub fn refused(&self) -> &[Error] {
        &self.refused
    }
}

fn detect(text: &[u8]) -> Result<ListFormat, Error> {
    match media::detect(None, text, true) {
        Detected::Document(Document::List(format)) => Ok(format),
        Detected::Document(Document::Hls) => Err(Error::new(
            ErrorKind::Unsupported,
            "the text is a playlist of HLS: its entries are no tracks",
        )),
        // Many lists of files lack the line `#EXTM3U`.
        Detected::Media if media::is_text(text) && !media::is_markup(&media::decode(text)) => {
            Ok(ListFormat::M3u)
        }
        _ => Err(Error::new(ErrorKind::InvalidPlaylist, "the text is no list of tracks")),
    }
}

fn resolve(list: &HttpUrl, location: &str, rules: ListRules) -> Result<HttpUrl, Error> {
    // Winamp's name for the scheme, which other players know as well.
    let icy = location.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case("icy://"));
    let location = icy.map_or(location.into(), |icy| Cow::from(format!("http://{}", &location[icy.len()..])));
    let url = rules.policy().resolve(list.expose(), &location)?;
    HttpUrl::parse(url.as_str())
}

/// `url` with the user and the password of `given`, unless it has its own.
fn with_user_of(given: &HttpUrl, url: &HttpUrl) -> HttpUrl {
    let (given, has_own) = (given.expose(), !url.expose().username().is_empty());
    if has_own || (given.username().is_empty() && given.password().is_none()) {
        return url.clone();
    }
    url.edit(|url| {
        // This only fails for URLs without a host, which http does not allow.
        let is_set = url.set_username(given.username()).and_then(|()| url.set_password(given.password()));
        debug_assert!(is_set.is_ok());
    })
}

/// `error`, which is about the entry at `line`.
fn at_line(line: usize, error: Error) -> Error {
    let located = Error::new(error.kind(), format!("line {line}: {}", error.detail()));
    let located = match error.url() {
        Some(url) => located.with_url(url),
        None => located,
    };
    located.with_cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PUBLIC: &str = "https://example.com/a/list.m3u?token=secret";

    fn parse(text: &str, rules: ListRules) -> Result<Playlist, Error> {
        Playlist::parse(text.as_bytes(), PUBLIC, rules)
    }

    fn rules(allow_http: bool, allow_private: bool) -> ListRules {
        ListRules { allow_http, allow_private }
    }

    #[test]
    fn entries_lead_to_http_only_and_never_to_less_privacy() {
        for (entry, kind, is_allowed) in [
            ("file:///etc/passwd", ErrorKind::UnsupportedScheme, false),
            ("C:\\Music\\1.mp3", ErrorKind::UnsupportedScheme, false),
            ("mms://host/1", ErrorKind::UnsupportedScheme, false),
            ("javascript:alert(1)", ErrorKind::UnsupportedScheme, false),
            ("data:audio/mpeg;base64,AAAA", ErrorKind::UnsupportedScheme, false),
            ("http://example.com/1", ErrorKind::Forbidden, true),
            ("https://127.0.0.1/1", ErrorKind::Forbidden, true),
            ("https://localhost/1", ErrorKind::Forbidden, true),
            ("//169.254.169.254/latest", ErrorKind::Forbidden, true),
            ("\\\\10.0.0.1\\share\\1.mp3", ErrorKind::Forbidden, true),
            ("https://[::1]/1", ErrorKind::Forbidden, true),
            ("https://", ErrorKind::InvalidUrl, false),
        ] {
            let error = parse(&format!("#EXTM3U\n{entry}\n"), ListRules::default()).unwrap_err();
            assert_eq!(error.kind(), kind, "{entry}");
            assert!(error.to_string().starts_with("line 2: "), "{error}");
            let list = parse(&format!("#EXTM3U\n/ok\n{entry}\n"), ListRules::default()).unwrap();
            assert_eq!((list.tracks().len(), list.refused().len()), (1, 1), "{entry}");
            assert_eq!(parse(&format!("{entry}\n"), rules(true, true)).is_ok(), is_allowed, "{entry}");
        }
    }

    #[test]
    fn the_scheme_of_shoutcast_is_that_of_http() {
        let text = "[playlist]\nFile1=icy://h:8000/a\nFile2=ICY://127.0.0.1/b\n";
        let list = parse(text, rules(true, false)).unwrap();
        assert_eq!(list.tracks()[0].url().unwrap().expose(), "http://h:8000/a");
        assert_eq!(list.refused()[0].kind(), ErrorKind::Forbidden);
        assert_eq!(parse(text, ListRules::default()).unwrap_err().kind(), ErrorKind::Forbidden);
    }

    #[test]
    fn neither_shows_a_secret() {
        let list =
            parse("1.mp3?key=hidden\nfile:///a?key=hidden\nhttp://me:hidden@h/1\n", ListRules::default())
                .unwrap();
        let shown = format!("{list:?} {} {}", list.refused()[0], list.refused()[1]);
        assert!(!shown.contains("hidden") && !shown.contains("secret"), "{shown}");
        assert!(list.tracks()[0].url().unwrap().expose().contains("hidden"));
    }

    #[test]
    fn a_text_that_is_no_list_is_named() {
        let kind = |text: &str| parse(text, ListRules::default()).unwrap_err().kind();
        assert_eq!(kind("#EXTM3U\n#EXT-X-TARGETDURATION:4\n"), ErrorKind::Unsupported);
        assert_eq!(kind("<!doctype html><a href=\"http://h\">"), ErrorKind::InvalidPlaylist);
        assert_eq!(kind("#EXTM3U\n"), ErrorKind::InvalidPlaylist);
        assert_eq!(kind(""), ErrorKind::InvalidPlaylist);
        assert_eq!(kind("<asx></asx>"), ErrorKind::InvalidPlaylist);
        assert_eq!(kind("{\"version\": 1}"), ErrorKind::InvalidPlaylist);
        assert_eq!(kind("<html5><a href=\"http://h\">"), ErrorKind::InvalidPlaylist);
        assert_eq!(parse("dir/1.mp3\n", ListRules::default()).unwrap().tracks().len(), 1);
    }

    #[test]
    fn short_entries_of_a_list_with_a_long_url_can_not_fill_the_memory() {
        let url = format!("https://example.com/{}/list.m3u", "a".repeat(60_000));
        // Not the list itself, which would be printed.
        let tracks = |entries: usize| {
            let list = Playlist::parse("a\n".repeat(entries).as_bytes(), &url, ListRules::default());
            list.map(|list| list.tracks().len())
        };
        assert_eq!(tracks(100).unwrap(), 100);
        let error = tracks(1200).unwrap_err();
        assert_eq!((error.kind(), error.to_string().starts_with("line 1119: ")), (ErrorKind::TooLarge, true));
    }

    #[test]
    fn headers_are_for_the_lists_own_origin() {
        let given = HttpUrl::parse("https://me:pw@example.com/list.m3u").unwrap();
        let text = b"1.mp3\nhttps://other.com/2.mp3\n";
        let read = |gets: bool| {
            let url = HttpUrl::parse(PUBLIC).unwrap();
            let origin = ListOrigin { url, is_public: true, depth: 2, given: gets.then(|| given.clone()) };
            Playlist::read(ListFormat::M3u, text, origin, ListRules::default()).unwrap()
        };
        let gets = |list: &Playlist| -> Vec<bool> {
            list.tracks().iter().map(|track| track.as_remote().unwrap().gets_headers).collect()
        };
        assert_eq!((gets(&read(true)), gets(&read(false))), (vec![true, false], vec![false, false]));
        let list = read(true);
        let url = |index: usize| list.tracks()[index].url().unwrap().expose().to_owned();
        assert_eq!((&*url(0), &*url(1)), ("https://me:pw@example.com/a/1.mp3", "https://other.com/2.mp3"));
        assert_eq!(list.tracks()[0].as_remote().unwrap().depth, 3);
        assert!(list.tracks()[0].as_remote().unwrap().is_public_only);
    }

    proptest! {
        #[test]
        fn whatever_a_list_says_its_tracks_are_public_and_encrypted(text in "(#EXTM3U\n)?([a-zA-Z:/.\\\\0-9@\\[\\]]{0,20}\n){0,5}") {
            let Ok(list) = parse(&text, ListRules::default()) else { return Ok(()) };
            for track in list.tracks() {
                let url = url::Url::parse(track.url().unwrap().expose()).unwrap();
                prop_assert_eq!(url.scheme(), "https");
                prop_assert!(ListRules::default().policy().check(&url::Url::parse(PUBLIC).unwrap(), &url).is_ok());
            }
        }
    }
}
