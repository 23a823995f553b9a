//! Playlists, initialization sections and segments of one presentation in the cache.
//!
//! All of them have the key of the presentation, so that they are pinned and removed together, and a *part* each. That of a
//! playlist is a digest of its URL without the values of queries. That of a segment is a digest of its playlist's URL and text, its
//! own URL, all without these values, and its range: where the playlist changes nothing of the old one is served, and levels whose
//! segments differ in such values only are kept apart by their playlists.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use url::Url;

use super::strip::{is_multivariant, is_on_demand, strip_playlist, strip_url};
use crate::cache::{CacheKey, CacheUse, Entry, Header, KeyDigest, Policy, Use, key_digest};
use crate::client::ResponseHead;
use crate::error::{Error, ErrorKind};
use crate::source::hls::playlist::is_playlist;
use crate::source::stored::{SentRequest, header_of, with_exchange};
use crate::types::ByteRange;

/// Bytes of a segment that is stored, at most: it is read whole before it is played.
const MOST: u64 = 64 << 20;

/// What the cache has of a presentation.
#[derive(Debug)]
pub(crate) struct HlsStore {
    uses: CacheUse,
    key: KeyDigest,
    /// Digests of the texts of playlists on demand, by URL. What others name is neither stored nor served.
    lists: Mutex<HashMap<String, String>>,
    /// The multivariant playlist names playlists that differ in values of queries only. Nothing shows which of them a stored
    /// resource is of, so nothing is stored or served.
    is_mixed_up: AtomicBool,
    /// Storing has failed: nothing more is stored.
    pub(super) is_full: AtomicBool,
}

/// A resource of a presentation, and what is known of the request for it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    name: String,
    sent: SentRequest,
}

/// Stores a body while it arrives.
#[derive(Debug)]
pub(crate) struct Recorder {
    entry: Arc<Entry>,
}

/// What a playlist from the network is to the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is the same.
    Same,
    Changed,
}

impl HlsStore {
    pub(crate) fn new(uses: CacheUse, url: &Url) -> Self {
        let key = uses.key.unwrap_or_else(|| uses.cache.key_of(url.as_str())).0;
        Self {
            uses,
            key,
            lists: Mutex::default(),
            is_mixed_up: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        }
    }

    /// The playlist of this URL, if it may be used before the server is asked.
    pub(crate) fn list(&self, url: &Url) -> Option<(Vec<u8>, Use)> {
        let (text, usable) = self.lookup(&list_name(url))?;
        self.note_list(url, &text);
        Some((text, usable))
    }

    fn lookup(&self, name: &str) -> Option<(Vec<u8>, Use)> {
        let (entry, usable) = self.uses.cache.store().lookup(&self.key, name, SystemTime::now())?;
        // The length is read from a file: a damaged one could ask for any amount of memory.
        let bytes = if entry.header().len <= MOST { entry.read_all() } else { None };
        Some((bytes?, usable))
    }

    fn note_list(&self, url: &Url, stripped: &[u8]) {
        let text = digest(&["text", &String::from_utf8_lossy(stripped)]);
        self.lists.lock().insert(strip_url(url), text);
    }

    /// A playlist has come from the network. Stores it if it is on demand.
    pub(crate) fn keep_list(
        &self,
        (url, from): (&Url, &Url),
        text: &[u8],
        head: &ResponseHead,
        sent: &SentRequest,
    ) -> Kept {
        if !is_playlist(text) {
            // A network may show its login page, which says nothing of the presentation.
            return Kept::Same;
        }
        let stripped = strip_playlist(text);
        if stripped.is_none() && is_multivariant(text) {
            self.is_mixed_up.store(true, Ordering::Relaxed);
        }
        let is_mixed_up = self.is_mixed_up.load(Ordering::Relaxed);
        let Some(stripped) = stripped.filter(|stripped| !is_mixed_up && is_on_demand(stripped)) else {
            self.lists.lock().remove(&strip_url(url));
            // No playlist like this one is ever stored, so what is stored is another one.
            return Kept::Changed;
        };
        self.note_list(url, stripped.as_bytes());
        let name = list_name(url);
        let store = self.uses.cache.store();
        let known = store.newest(&self.key, &name);
        let known = known.map(|entry| (entry.read_all().as_deref() == Some(stripped.as_bytes()), entry));
        // None is known if another process has removed it meanwhile, which says nothing of the server.
        let is_same = known.as_ref().is_none_or(|(is_same, _)| *is_same);
        if let Some((false, entry)) = known {
            // The new one may have the same validator: some servers make texts for each request.
            store.remove_outdated(&entry);
        }
        // URIs are relative to where the playlist came from, which is stored nowhere.
        if strip_url(url) == strip_url(from) {
            let written = self.write_list(&name, &stripped, head, sent);
            if let Err(error) = written {
                log::debug!("a playlist is not cached: {error}");
            }
        }
        if is_same { Kept::Same } else { Kept::Changed }
    }

    fn write_list(
        &self,
        name: &str,
        text: &str,
        head: &ResponseHead,
        sent: &SentRequest,
    ) -> Result<(), Error> {
        let recorder = self.enter(name, head, text.len() as u64, sent, self.uses.cache.policy())?;
        let Some(recorder) = recorder else { return Ok(()) };
        recorder.write(0, text.as_bytes())?;
        recorder.finish(self);
        Ok(())
    }

    /// A resource that the playlist at `list` names. `None` if nothing of that is stored.
    pub(crate) fn part(
        &self,
        list: &Url,
        url: &Url,
        range: Option<ByteRange>,
        sent: SentRequest,
    ) -> Option<Part> {
        let list = strip_url(list);
        let lists = self.lists.lock();
        let text = lists.get(&list)?;
        let range = range.map(|range| range.to_string()).unwrap_or_default();
        Some(Part { name: digest(&["resource", &list, text, &strip_url(url), &range]), sent })
    }

    /// The bytes of a resource, if all of them are stored.
    pub(crate) fn read(&self, part: &Part) -> Option<Vec<u8>> {
        self.lookup(&part.name).map(|(bytes, _)| bytes)
    }

    /// True if all bytes of a resource are stored, as far as that is known without reading them.
    pub(crate) fn has(&self, part: &Part) -> bool {
        let found = self.uses.cache.store().lookup(&self.key, &part.name, SystemTime::now());
        found.is_some_and(|(entry, _)| {
            let stored: u64 = entry.stored().iter().map(|range| range.end - range.start).sum();
            stored == entry.header().len
        })
    }

    /// Begins to store a resource. `None` if it may not be stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`].
    pub(super) fn record(&self, part: &Part, head: &ResponseHead) -> Result<Option<Recorder>, Error> {
        let Some(len) = head.body_len().filter(|len| *len <= MOST && !self.is_full.load(Ordering::Relaxed))
        else {
            return Ok(None);
        };
        // Also without a validator: its name has a digest of the text of its playlist, which does not change on demand (section
        // 6.2.1). Another text names other parts.
        let policy = Policy { keep_unvalidated: true, ..self.uses.cache.policy() };
        self.enter(&part.name, head, len, &part.sent, policy)
    }

    fn enter(
        &self,
        name: &str,
        head: &ResponseHead,
        len: u64,
        sent: &SentRequest,
        policy: Policy,
    ) -> Result<Option<Recorder>, Error> {
        let (refusal, stamp) = with_exchange(head, sent, |exchange| {
            (exchange.refusal(policy), exchange.stamp(SystemTime::now()))
        });
        let header = header_of(head, len, self.key, &self.uses.label).filter(|_| refusal.is_none());
        let Some(header) = header.map(|header| Header { part: name.to_owned(), ..header }) else {
            log::debug!("{} is not cached: {}", head.url(), refusal.unwrap_or("no length, or too long"));
            return Ok(None);
        };
        let entry = self.uses.cache.store().enter(header, stamp).map_err(|cause| {
            Error::new(ErrorKind::Storage, "an entry of the cache can't be opened").with_cause(cause)
        })?;
        Ok(Some(Recorder { entry }))
    }
}

impl Recorder {
    /// Stores bytes, `offset` bytes behind the first one of the body.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let room = self.entry.header().len.saturating_sub(offset);
        let len = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        self.entry.write_at(offset, &bytes[..len])
    }

    /// The whole body has arrived: other versions are removed.
    pub(super) fn finish(&self, store: &HlsStore) {
        store.uses.cache.store().evict_others(&self.entry);
    }
}

fn list_name(url: &Url) -> String {
    digest(&["playlist", &strip_url(url)])
}

/// The name of a part.
fn digest(texts: &[&str]) -> String {
    // No URL contains a line feed, so different texts stay different.
    CacheKey(key_digest(&texts.join("\n"))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, CacheConfig};

    #[test]
    fn what_is_no_playlist_changes_nothing_of_what_is_known_of_one() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), CacheConfig::default()).unwrap();
        let url = Url::parse("http://host/l").unwrap();
        let store = HlsStore::new(CacheUse::of(&cache), &url);
        let head = ResponseHead::for_tests(200, 0..100, Some(100));
        let sent = SentRequest::default();
        let list = b"\n#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\na\n#EXT-X-ENDLIST\n";
        let is_known = || store.part(&url, &url, None, sent.clone()).is_some();
        store.keep_list((&url, &url), list, &head, &sent);
        assert!(is_known());
        store.keep_list((&url, &url), b"<!DOCTYPE html><html>Log in</html>", &head, &sent);
        assert!(is_known(), "a network shows its login page");
        store.keep_list((&url, &url), b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\na\n", &head, &sent);
        assert!(!is_known(), "it is live");
    }
}
