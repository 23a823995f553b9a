//! Requests, and which URLs may answer them after redirects.

use std::time::{Duration, Instant};

use url::Url;

use crate::client::UriPolicy;
use crate::client::{Request, ResponseHead};
#[cfg(feature = "cache")]
use crate::downloader::Waker;
use crate::downloader::{Fetch, Outcome, PeerHandle, Response};
use crate::error::{Error, ErrorKind};
use crate::media;
use crate::safe_url::HttpUrl;
use crate::source::hls::hook::RequestKind;
use crate::source::hls::opening::first_bytes::{FirstBytes, WINDOW};
use crate::source::hls::playlist::{Context, MOST_BYTES, MediaPlaylist, Playlist};
use crate::source::hls::shared::Shared;
use crate::source::hls::timeline::reload::LONGEST_DELAY;
#[cfg(feature = "cache")]
use crate::source::stored::SentRequest;
use crate::types::digits;

/// Bytes of a playlist, at most, before and after its decompression: more would not be parsed.
pub(crate) const MOST_PLAYLIST: usize = MOST_BYTES;

/// A request for `url`, with the user's headers if it goes to the origin that they are for.
pub(crate) fn request(shared: &Shared, kind: RequestKind, url: &Url) -> Result<Request, Error> {
    // Redirects are checked before they are followed: the request itself could do harm in a private network.
    let mut request = Request::get(url.as_str())?.confine(policy(shared));
    if url.origin() == shared.request.url().expose().origin() {
        request = request.headers("HlsConfig::headers", &shared.config.headers)?;
    }
    if let Some(hook) = &shared.config.hook {
        request = request.headers("RequestHook::headers", &hook.headers(kind, url))?;
    }
    if matches!(kind, RequestKind::Playlist | RequestKind::Steering) {
        request = request.accept_gzip();
    }
    Ok(match (shared.config.allow_private, shared.is_from_public()) {
        (true, _) | (false, Some(false)) => request,
        (false, Some(true)) => request.public_only(),
        // The first request: the caller has chosen its host, but not where that redirects to.
        (false, None) => request.no_descent(),
    })
}

/// The URL of a response after redirects. These may lead only to where the playlist may.
pub(crate) fn final_url(shared: &Shared, head: &ResponseHead, requested: &Url) -> Result<Url, Error> {
    let url = HttpUrl::of(head.url()).map_or_else(|| requested.clone(), |url| url.expose().clone());
    policy(shared).check(requested, &url)?;
    Ok(url)
}

pub(crate) fn policy(shared: &Shared) -> UriPolicy {
    UriPolicy { allow_http: shared.config.allow_http, allow_private: shared.config.allow_private }
}

/// A playlist as it was loaded.
pub(crate) struct Loaded {
    pub(crate) bytes: Vec<u8>,
    /// After redirects.
    pub(crate) url: Url,
    /// How long it was in a cache.
    pub(crate) age: Duration,
    /// When it was requested.
    pub(crate) began: Instant,
    /// What its arrival has shown of a slow network, in bits per second.
    pub(crate) throughput: Option<f64>,
}

impl Loaded {
    pub(crate) fn new(head: &ResponseHead, bytes: Vec<u8>, url: Url, began: Instant) -> Self {
        // RFC 9111, section 5.1: seconds. What is no number counts as absent.
        let age = head.header("age").and_then(|age| digits(age.trim())).map(Duration::from_secs);
        Self { bytes, url, age: age.unwrap_or_default(), began, throughput: None }
    }

    /// From the program's own cache: how old it is does not matter, because the server confirms it before anything is played, and
    /// it has an end, so it is not loaded again.
    #[cfg(feature = "cache")]
    pub(crate) fn stored(bytes: Vec<u8>, url: Url) -> Self {
        Self { bytes, url, age: Duration::ZERO, began: Instant::now(), throughput: None }
    }
}

/// Fetches a playlist on this thread, by the rules that `set` gives. Blocks.
pub(crate) fn load(
    shared: &Shared,
    peer: &PeerHandle,
    url: &Url,
    set: impl FnOnce(Fetch) -> Fetch,
) -> Result<Loaded, Error> {
    let request = request(shared, RequestKind::Playlist, url)?;
    #[cfg(feature = "cache")]
    let sent = sent_request(&peer.waker(), &request);
    let began = Instant::now();
    let mut response = peer.execute(set(Fetch::new(request).max_retry_delay(LONGEST_DELAY)))?;
    let throughput = begin_body(&mut response)?;
    let from = final_url(shared, response.head(), url)?;
    shared.note_peer(response.head().peer());
    let head = response.head().clone();
    let text = gunzip(response.bytes(MOST_PLAYLIST)?)?;
    #[cfg(feature = "cache")]
    if let Some(store) = &shared.store {
        store.keep_list((url, &from), &text, &head, &sent);
    }
    Ok(Loaded { throughput, ..Loaded::new(&head, text, from, began) })
}

/// Reads the first bytes, and puts them back. Returns what their arrival has shown of a slow network, in bits per second.
///
/// # Errors
///
/// [`ErrorKind::InvalidPlaylist`] if they are those of audio or video, whose length would only show that it is too large for a
/// playlist.
fn begin_body(response: &mut Response) -> Result<Option<f64>, Error> {
    let (mut bytes, mut len) = ([0; WINDOW], 0);
    let mut first = FirstBytes::default();
    while len < WINDOW {
        let got = response.read_chunk(&mut bytes[len..])?;
        if got == 0 {
            break;
        }
        first.handle_read(got, Instant::now());
        // By the first of them, because a station would take its time for the others.
        if len == 0 && media::is_known(&bytes[..got]) {
            let why = "the response is audio or video, not a playlist; open it with open or open_any";
            return Err(Error::new(ErrorKind::InvalidPlaylist, why).with_url(response.head().url()));
        }
        len += got;
    }
    response.unread(&bytes[..len]);
    Ok(first.throughput())
}

/// What is known of a request whose response may be stored.
#[cfg(feature = "cache")]
pub(crate) fn sent_request(waker: &Waker, request: &Request) -> SentRequest {
    SentRequest { added: waker.header_names(request), is_authorized: waker.is_authorized(request) }
}

/// Decompresses gzip.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] if it has more than [`MOST_PLAYLIST`] bytes; [`ErrorKind::Truncated`] if it is damaged.
pub(crate) fn gunzip(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    use std::io::Read;

    // By its first bytes (RFC 1952, section 2.3.1), because some servers send no `Content-Encoding`.
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    // RFC 1952, 2.2: several members in one body are one text.
    let mut decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice()).take(MOST_PLAYLIST as u64 + 1);
    decoder.read_to_end(&mut plain).map_err(|cause| {
        Error::new(ErrorKind::Truncated, "the compressed playlist is damaged").with_cause(cause)
    })?;
    if plain.len() > MOST_PLAYLIST {
        let why = format!("the playlist has more than {MOST_PLAYLIST} bytes after its decompression");
        return Err(Error::new(ErrorKind::TooLarge, why));
    }
    Ok(plain)
}

/// Parses a media playlist.
pub(crate) fn parse_media(
    shared: &Shared,
    bytes: &[u8],
    url: &Url,
    previous: Option<&MediaPlaylist>,
) -> Result<MediaPlaylist, Error> {
    let variables = shared.variables();
    match Playlist::parse_in(bytes, Context { url, variables, previous }) {
        Ok(Playlist::Media(list)) => Ok(list),
        Ok(Playlist::Multivariant(_)) => {
            let why = "a multivariant playlist names another one as a media playlist";
            Err(Error::new(ErrorKind::InvalidPlaylist, why).with_url(url.as_str()))
        }
        Err(error) => Err(Error::from(error).with_url(url.as_str())),
    }
}

/// Adds `bytes`, unless there are more than `most`.
pub(crate) fn collect(bytes: &mut Vec<u8>, more: &[u8], most: usize) -> Result<(), Error> {
    if bytes.len() + more.len() > most {
        return Err(Error::new(ErrorKind::TooLarge, format!("the body is longer than {most} bytes")));
    }
    bytes.extend_from_slice(more);
    Ok(())
}

/// The error of a fetch that has not brought its whole body.
pub(crate) fn outcome_error(outcome: Outcome) -> Option<Error> {
    match outcome {
        Outcome::Done => None,
        Outcome::Failed(error) => Some(error),
        Outcome::Cancelled(reason) => Some(Error::cancelled(reason)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::source::hls::config::HlsConfig;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_playlist_is_limited_by_its_length_after_decompression() {
        let bomb = gzip(&vec![b'#'; MOST_PLAYLIST + 1]);
        assert!(bomb.len() < MOST_PLAYLIST / 100);
        assert_eq!(gunzip(bomb).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(gunzip(gzip(b"#EXTM3U")).unwrap(), b"#EXTM3U");
        assert_eq!(gunzip(b"#EXTM3U".to_vec()).unwrap(), b"#EXTM3U");
        assert_eq!(gunzip([gzip(b"#EXT"), gzip(b"M3U")].concat()).unwrap(), b"#EXTM3U");
    }

    #[test]
    fn damaged_gzip_is_an_error() {
        let good = gzip(b"#EXTM3U");
        let mut changed = good.clone();
        changed[12] ^= 1;
        for bytes in [good[..good.len() - 3].to_vec(), changed] {
            assert_eq!(gunzip(bytes).unwrap_err().kind(), ErrorKind::Truncated);
        }
    }

    #[test]
    fn what_a_public_playlist_names_is_fetched_from_public_addresses_only() {
        let url = Url::parse("http://host/a.ts").unwrap();
        let is_limited = |allow_private, peer: [u8; 4]| {
            let config = HlsConfig { allow_private, ..HlsConfig::default() };
            let shared = Shared::new(Request::get("http://host/l").unwrap(), config);
            shared.note_peer(Some(peer.into()));
            request(&shared, RequestKind::Segment, &url).unwrap().is_public_only()
        };
        assert!(is_limited(false, [8, 8, 8, 8]));
        assert!(!is_limited(false, [10, 0, 0, 1]) && !is_limited(true, [8, 8, 8, 8]));
    }
}
