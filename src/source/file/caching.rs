//! A file and its entry in the persistent cache: opens the file from it, fills it, and holds it against the server's answers.
//!
//! ```text
//!   open ── fresh entry ──▶ Confirmed                      no request for what is stored
//!     │ ─── stale entry ──▶ Unconfirmed ── same ──▶ Confirmed    played meanwhile
//!     │                          └── changed ──▶ the stream ends, the entry is removed
//!     └── none, or one that must not be used unasked: the first response's representation names the entry
//! ```
//!
//! An unconfirmed file is confirmed by the response of the first piece that it needs. If it needs none, a request for the last of its
//! stored bytes is sent. Its body is only read if its head has no validator to compare: then the bytes have to be the same.
//!
//! The file of a download has an entry, too, beside it. It is opened by the first response only.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::backing::Backing;
use super::cached::Cached;
use super::mode::{Info, Mode};
use super::shared::{OVERLAP, Shared};
use super::state::State;
use crate::cache::{CacheUse, Entry, Exchange, Header, KeyDigest, Use, key_digest};
use crate::client::representation::{self, Likeness};
use crate::client::{ResponseHead, StoredHead};
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::media::FirstBytes;
use crate::source::stored::{SentRequest, header_of, with_exchange};
use crate::types::{ByteRange, Priority};

impl Shared {
    /// Opens the file from its entry, if there is one that may be used before a request, with the file's first byte.
    pub(super) fn open_from_cache(self: &Arc<Self>) {
        let Some(Backing::Cache(uses)) = &self.backing else { return };
        let key = self.cache_key(uses);
        let Some((entry, usable)) = uses.cache.store().lookup(&key, "", SystemTime::now()) else { return };
        let header = entry.header();
        let is_whole = entry.stored().iter().map(|range| range.end - range.start).sum::<u64>() == header.len;
        // A request for the missing bytes would bring all the others as well, so the entry would save nothing.
        if !header.has_ranges && !is_whole {
            return;
        }
        // The first bytes show the media type, and that the stored blocks can be read. Without them the file is opened as
        // usual.
        let mut first = vec![0; FirstBytes::MOST.min(header.len as usize)];
        if !entry.read(0, 0, &mut first) {
            return;
        }
        self.attach(&entry);
        let mut state = self.state.lock();
        state.mode = Mode::Ranged(Info::stored(self.request.url().into(), header));
        state.add_first(0, &first);
        state.cached = Cached::Unconfirmed { entry, is_fresh: usable == Use::Fresh };
    }

    /// The key of the file's entry.
    fn cache_key(&self, uses: &CacheUse) -> KeyDigest {
        uses.key.unwrap_or_else(|| uses.cache.key_of(self.request.url().expose_text())).0
    }

    fn attach(self: &Arc<Self>, entry: &Arc<Entry>) {
        // Weak: the resource owns this callback, and `Shared` owns the resource.
        let weak = Arc::downgrade(self);
        let on_failure = move |error| {
            if let Some(shared) = weak.upgrade() {
                shared.leave_backing(error);
            }
        };
        self.resource.attach(Arc::clone(entry), Box::new(on_failure));
        self.set_kept(true);
    }

    /// Records whether an entry keeps what is fetched.
    fn set_kept(&self, is_kept: bool) {
        self.state.lock().limits.set_kept(is_kept);
        self.request_memory();
    }

    /// Takes in the head of an accepted response, before its first byte is stored.
    pub(super) fn handle_cache_head(self: &Arc<Self>, head: &ResponseHead) {
        let Some(backing) = &self.backing else { return };
        // One after another: a piece beside the opening must not store a byte before the entry is attached.
        let _attaching = self.attaching.lock();
        // Taken out, since opening an entry is file I/O, which the state's lock must not cover. `_attaching` keeps others out.
        let cached = std::mem::take(&mut self.state.lock().cached);
        let cached = match cached {
            Cached::Unconfirmed { entry, .. } if confirms(entry.header(), head) => {
                entry.set_stamp(self.exchange(head, |exchange| exchange.stamp(SystemTime::now())));
                Cached::Confirmed(entry)
            }
            Cached::Unknown => self.enter(backing, head),
            known => known,
        };
        self.state.lock().cached = cached;
    }

    /// The entry for the representation of `head`.
    fn enter(self: &Arc<Self>, backing: &Backing, head: &ResponseHead) -> Cached {
        let entered = match backing {
            Backing::Cache(uses) => self.enter_cache(uses, head),
            Backing::Part(part) => {
                // Without the query: a link that has expired is replaced by one with another token.
                let url = self.request.url().expose_text();
                let name = url.split(['?', '#']).next().unwrap_or(url);
                let header = self.header(key_digest(name), "", head).map(|header| proved_by(head, header));
                header.map(|header| part.enter(header)).transpose()
            }
        };
        match entered {
            Ok(Some(entry)) => {
                self.attach(&entry);
                Cached::Confirmed(entry)
            }
            Ok(None) => Cached::Off,
            Err(error) => {
                let why = format!("the file to store it in can't be opened: {error}");
                self.leave_backing(Error::new(ErrorKind::Storage, why).with_cause(error));
                Cached::Off
            }
        }
    }

    fn enter_cache(&self, uses: &CacheUse, head: &ResponseHead) -> io::Result<Option<Arc<Entry>>> {
        let policy = uses.cache.policy();
        let (refusal, stamp) =
            self.exchange(head, |exchange| (exchange.refusal(policy), exchange.stamp(SystemTime::now())));
        let header = self.header(self.cache_key(uses), &uses.label, head);
        let Some(header) = header.filter(|_| refusal.is_none()) else {
            log::debug!("{} is not cached: {}", self.url(), refusal.unwrap_or("no length, or too long"));
            return Ok(None);
        };
        uses.cache.store().enter(header, stamp).map(Some)
    }

    /// What an entry records of the representation of `head`. `None` if its length is not known, or too long.
    fn header(&self, key: KeyDigest, label: &str, head: &ResponseHead) -> Option<Header> {
        header_of(head, head.total()?, key, label)
    }

    fn exchange<T>(&self, head: &ResponseHead, look: impl FnOnce(&Exchange<'_>) -> T) -> T {
        let waker = self.link.get().map(|link| &link.waker);
        let added = waker.map(|waker| waker.header_names(&self.request)).unwrap_or_default();
        let has_secret =
            |request: &crate::client::Request| waker.is_some_and(|waker| waker.is_authorized(request));
        // Credentials may belong to the origin of the URL, or to the one that a redirect leads to.
        let is_authorized = has_secret(&self.request) || has_secret(&self.request(Some(head.url())));
        with_exchange(head, &SentRequest { added, is_authorized }, look)
    }

    /// Removes the entry of a file that has changed on the server. If the file was opened from it, none of its bytes are served
    /// any more.
    pub(super) fn handle_changed(&self, error: &Error) {
        let Some(backing) = &self.backing else { return };
        let (entry, was_opened_from) = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut state.cached, Cached::Off) {
                Cached::Unconfirmed { entry, .. } => {
                    // Its reader has got bytes of the old version, and must not get any of the new one after them.
                    state.mode.make_unusable();
                    state.waits.end(error.clone());
                    (entry, true)
                }
                Cached::Confirmed(entry) => (entry, false),
                Cached::Unknown | Cached::Off => return,
            }
        };
        if was_opened_from {
            self.resource.detach();
            self.set_kept(false);
        }
        match backing {
            Backing::Cache(uses) => uses.cache.store().remove_outdated(&entry),
            Backing::Part(part) => part.forget(),
        }
    }

    /// Removes what the cache has of other versions, now that the first bytes have shown that this one is media.
    pub(super) fn evict_other_versions(&self) {
        let Some(Backing::Cache(uses)) = &self.backing else { return };
        let entry = match &self.state.lock().cached {
            Cached::Confirmed(entry) => Arc::clone(entry),
            _ => return,
        };
        uses.cache.store().evict_others(&entry);
    }

    /// Forgets the entry of a response that was no media. The next one names another entry.
    pub(super) fn leave_entry(&self) {
        if self.backing.is_some() {
            self.state.lock().cached = Cached::Unknown;
            self.resource.detach();
            self.set_kept(false);
        }
    }

    /// Reports that nothing more of the file is stored in its entry. Ends a download.
    fn leave_backing(&self, error: Error) {
        let error = error.with_url(self.url());
        let Some(Backing::Cache(_)) = &self.backing else {
            if self.cancel_reason().is_some() {
                // The files of a download that was cancelled are closed, and its last bytes have nowhere to go.
                return;
            }
            // A temporary file would be on the same disk, which may be full. What is stored is kept for the next download.
            let given_up = self.state.lock().give_up(error);
            return self.finish_given_up(given_up, u64::MAX);
        };
        self.set_kept(false);
        log::warn!("the rest of the file is not cached: {error}");
        if let Some(link) = self.link.get() {
            link.waker.publish(&Event::CacheOff { error });
        }
    }
}

/// The header without a date that does not prove the version of bytes: within a minute a file can change and keep it (RFC 9110,
/// section 8.8.2.2).
fn proved_by(head: &ResponseHead, header: Header) -> Header {
    if head.strong_validator().is_some() { header } else { Header { last_modified: String::new(), ..header } }
}

/// True if a response has the validator of the entry, or the length where that has none. Nothing in it contradicts.
fn confirms(stored: &Header, head: &ResponseHead) -> bool {
    let field = |name: &str| head.header(name).unwrap_or_default();
    if stored.etag.is_empty() {
        return field("last-modified") == stored.last_modified && head.total() == Some(stored.len);
    }
    // A weak comparison (RFC 9110, section 8.8.3.2): some servers call a tag weak at times.
    field("etag").trim_start_matches("W/") == stored.etag
}

impl State {
    /// True if a request is to be sent whose answer only confirms the entry.
    pub(super) fn needs_confirmation(&self) -> bool {
        // While a piece is in flight its response confirms the entry, so no request is spent on it.
        let is_stale = matches!(self.cached, Cached::Unconfirmed { is_fresh: false, .. });
        is_stale && !self.was_asked_to_confirm && self.pieces.is_empty()
    }

    /// True until a response has shown that the entry from which the file was opened is the server's version.
    pub(super) fn is_unconfirmed(&self) -> bool {
        matches!(self.cached, Cached::Unconfirmed { .. })
    }

    /// Holds the head of an answer against the entry. False if it proves nothing.
    fn confirm(&mut self, head: &ResponseHead) -> Result<bool, Error> {
        self.stats.requests += 1;
        let Some(info) = self.mode.info() else { return Ok(false) };
        match info.representation.compare(head) {
            Likeness::Confirmed | Likeness::Unconfirmed => Ok(true),
            // A login page, for example. It shows nothing about the file.
            Likeness::HtmlPage => Ok(false),
            Likeness::OtherTag(_) => Err(representation::changed(head, "entity tag")),
            Likeness::Changed(what) => Err(representation::changed(head, what)),
        }
    }
}

impl Info {
    /// What an entry of the cache contains about a file.
    fn stored(url: crate::safe_url::SafeUrl, header: &Header) -> Self {
        let head = ResponseHead::stored(StoredHead {
            url,
            len: header.len,
            fields: [
                ("etag", header.etag.as_str()),
                ("last-modified", &header.last_modified),
                ("date", &header.date),
                ("content-type", &header.media_type),
            ],
        });
        Self::of(&head)
    }
}

/// The sink of a request that only confirms the entry.
pub(super) struct ConfirmSink {
    shared: Arc<Shared>,
    /// Position of the first byte to compare.
    start: u64,
    /// The stored bytes.
    stored: Vec<u8>,
    /// The received ones, if the response head alone does not confirm the entry.
    received: Vec<u8>,
}

impl ConfirmSink {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let last = shared.resource.with_ranges(|ranges| ranges.iter().last()).unwrap_or_default();
        let start = last.start.max(last.end.saturating_sub(OVERLAP));
        let mut stored = vec![0; (last.end - start) as usize];
        // Fewer if they were evicted meanwhile. Then there is nothing to compare but the heads.
        let got = shared.resource.read_at(start, &mut stored).unwrap_or(0);
        stored.truncate(got);
        Self { shared, start, stored, received: Vec::new() }
    }

    /// What to request.
    pub(super) fn range(&self) -> ByteRange {
        // At least one byte: an empty range can't be requested.
        ByteRange::new(self.start, self.start + self.stored.len().max(1) as u64)
    }

    /// Fails if the bytes received are not those that are stored.
    fn compare(&self) -> Result<(), Error> {
        if self.received.len() != self.stored.len() || self.received == self.stored {
            return Ok(());
        }
        let why = format!("the file changed since it was stored: other bytes from {} on", self.start);
        Err(Error::new(ErrorKind::Changed, why).with_url(self.shared.url()))
    }
}

impl Sink for ConfirmSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        let shared = &self.shared;
        let accepted = shared.state.lock().confirm(head);
        match accepted {
            Ok(true) => {
                shared.handle_cache_head(head);
                // The server sends no validator any more, or another kind of one. Without a look at the bytes, the entry
                // would be played forever, whatever the server has by now.
                if shared.state.lock().is_unconfirmed() && head.is_partial() && head.start() == self.start {
                    return Ok(Flow::Stream);
                }
            }
            Ok(false) => {}
            Err(error) => shared.handle_changed(&error),
        }
        // The error ends the fetch without its body. `finish` passes over this kind.
        Err(Error::new(ErrorKind::Refusal, "the head was all that was asked for"))
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        self.received.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        if let Err(error) = self.compare() {
            self.shared.handle_changed(&error);
        }
        match &outcome {
            // RFC 9110, section 15.5.17: the range begins behind the end. The file had these bytes once.
            Outcome::Failed(error) if error.status() == Some(416) => {
                let why = "the file changed since it was stored: it is shorter now";
                self.shared.handle_changed(&Error::new(ErrorKind::Changed, why).with_url(self.shared.url()));
            }
            Outcome::Failed(error) if error.kind() != ErrorKind::Refusal => {
                log::debug!("{} is played from the cache, unconfirmed: {error}", self.shared.url());
            }
            _ => {}
        }
        self.shared.resource.notify();
        self.shared.replan(Priority::Low);
    }
}
