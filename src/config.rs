//! Every knob, its default and its consequence.
//!
//! Plain structs: take the default, change what you need. They are checked once, where they are first used, with an
//! error that names the field. A limit of more than a year is one of a year.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::{HeaderName, HeaderValue};

use crate::error::{Error, ErrorKind};
use crate::event::Hang;
use crate::foreign::Foreign;
use crate::safe_url::SafeUrl;
use crate::types::Priority;

/// Most worker threads. One that has as many fetches at once needs another kind of library.
const MOST_WORKERS: usize = 1024;

/// The longest limit: clocks and sockets take no more than some.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The default of [`DownloaderConfig::hang_timeout`].
const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// How much longer than what is within the client's limits a standstill is.
const HANG_MARGIN: Duration = Duration::from_secs(10);

fn bound<const N: usize>(limits: [&mut Duration; N]) {
    limits.into_iter().for_each(|limit| *limit = YEAR.min(*limit));
}

/// How HTTP exchanges are made. Part of [`DownloaderConfig`].
///
/// ```
/// use std::time::Duration;
///
/// let mut config = windway::DownloaderConfig::default();
/// config.client.user_agent = "my-player/1.0".into();
/// config.client.connect_timeout = Duration::from_secs(3);
/// let downloader = windway::Downloader::new(config)?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// What the `User-Agent` header says. Default: `windway/` and the version.
    pub user_agent: String,
    /// Headers sent with every request, to every origin: put no secret here. [`Fetch::header`](crate::Fetch::header) says
    /// which are refused. Default: none.
    pub headers: Vec<(String, String)>,
    /// Limit on looking up a name. Default: 5 s.
    pub resolve_timeout: Duration,
    /// How long a looked-up address is used before it is looked up again. Default: 60 s.
    pub resolve_cache: Duration,
    /// Limit on connecting, TLS handshake included. Default: 10 s.
    pub connect_timeout: Duration,
    /// Limit on silence: between any two reads of head or body, never over a whole transfer. Default: 10 s.
    pub inactivity_timeout: Duration,
    /// A body that brings fewer bytes a second than this while it is waited for, over an `inactivity_timeout`, counts as
    /// silent. 0 takes any trickle. Default: 128, a tenth of the slowest speech codec.
    pub min_rate: u64,
    /// What an origin, and no other, gets as `Authorization`, by any URL of it. A user and password in an URL do the same
    /// for that URL's origin. Default: none.
    pub auth: Vec<(String, Auth)>,
    /// An HTTP proxy, `http://user:password@host:port`, whose tunnels all connections go through. None is taken from the
    /// environment. Default: none.
    pub proxy: Option<String>,
    /// Redirects followed for one request before it fails. Default: 10.
    pub max_redirects: u32,
    /// Largest head of a response, in bytes. Default: 64 KiB.
    pub max_head: usize,
    /// Idle connections kept for each origin. Default: 8.
    pub max_idle_per_origin: usize,
    /// Idle connections kept over all origins. Default: 32.
    pub max_idle: usize,
    /// How long an idle connection is kept. Default: 45 s, less than common servers wait.
    pub max_idle_age: Duration,
    /// Certificates trusted besides the web's roots, in PEM, one or more in each: of an authority, or of a server itself, as
    /// `openssl req -x509` makes one. Names and dates are checked all the same. Default: none.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            user_agent: concat!("windway/", env!("CARGO_PKG_VERSION")).into(),
            headers: Vec::new(),
            resolve_timeout: Duration::from_secs(5),
            resolve_cache: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            inactivity_timeout: Duration::from_secs(10),
            min_rate: 128,
            auth: Vec::new(),
            proxy: None,
            max_redirects: 10,
            max_head: 64 * 1024,
            max_idle_per_origin: 8,
            max_idle: 32,
            max_idle_age: Duration::from_secs(45),
            extra_roots: Vec::new(),
        }
    }
}

// By hand, as for all that holds headers, and without `..`: a new field can't be forgotten here.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user_agent,
            headers,
            resolve_timeout,
            resolve_cache,
            connect_timeout,
            inactivity_timeout,
            min_rate,
            auth,
            proxy,
            max_redirects,
            max_head,
            max_idle_per_origin,
            max_idle,
            max_idle_age,
            extra_roots,
        } = self;
        let auth: Vec<(SafeUrl, &Auth)> =
            auth.iter().map(|(origin, auth)| (SafeUrl::from(origin.as_str()), auth)).collect();
        f.debug_struct("ClientConfig")
            .field("user_agent", user_agent)
            .field("headers", &HeaderNames(headers))
            .field("resolve_timeout", resolve_timeout)
            .field("resolve_cache", resolve_cache)
            .field("connect_timeout", connect_timeout)
            .field("inactivity_timeout", inactivity_timeout)
            .field("min_rate", min_rate)
            .field("auth", &auth)
            .field("proxy", &proxy.as_deref().map(SafeUrl::from))
            .field("max_redirects", max_redirects)
            .field("max_head", max_head)
            .field("max_idle_per_origin", max_idle_per_origin)
            .field("max_idle", max_idle)
            .field("max_idle_age", max_idle_age)
            .field("extra_roots", &format_args!("{} certificates", extra_roots.len()))
            .finish()
    }
}

/// Shows the names of headers, and not their values.
struct HeaderNames<'a>(&'a [(String, String)]);

impl fmt::Debug for HeaderNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is no name may be a secret: "Authorization: Bearer ..".
        let shown = |name: &str| match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => name.to_string(),
            Err(_) => "…".to_owned(),
        };
        f.debug_list().entries(self.0.iter().map(|(name, _)| shown(name))).finish()
    }
}

/// What shows a server who asks.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// A user and a password (RFC 7617).
    Basic {
        /// The user; has no colon in it.
        user: String,
        /// The password.
        password: String,
    },
    /// A token (RFC 6750).
    Bearer(String),
}

impl Auth {
    /// The header's value, or `None` if HTTP does not allow it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { user, .. } if user.contains(':') => return None,
            Self::Basic { user, password } => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
            }
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// How a [`Downloader`](crate::Downloader) shares its workers out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloaderConfig {
    /// How HTTP exchanges are made.
    pub client: ClientConfig,
    /// Worker threads, and so exchanges that run at once; 1024 at most. Default: 6.
    pub max_concurrent: usize,
    /// How many of the workers take awaited fetches only; less than `max_concurrent`. Default: 1.
    pub reserved: usize,
    /// Low fetches of one origin, running and set aside; awaited ones pass this limit. Default: 4.
    pub max_per_origin: usize,
    /// Prefetches that were interrupted for urgent work and keep their connection open until they go on; beyond it the
    /// connection is closed, and the fetch goes on from its offset on another one. 0 keeps none.
    /// Default: `None`, twice `max_concurrent`.
    pub max_preempted: Option<usize>,
    /// Low work begins so long after the last awaited fetch was begun. Default: zero.
    pub prefetch_delay: Duration,
    /// A prefetch that has waited so long runs before urgent work, for a second or 256 KiB. At most half of the workers that are
    /// not reserved, but at least one, are taken in this way at once, and between two such turns urgent work that waits is
    /// served. Default: 10 s.
    pub aging_threshold: Duration,
    /// Accepted fetches of one peer that have no answer yet; `execute` and `batch` block beyond it. Default: 32.
    pub peer_capacity: usize,
    /// Response bodies open in the hands of callers and sinks that detached them. Beyond it `execute` and detaching fail with
    /// [`ErrorKind::TooManyOpenBodies`], and a [`Batch`](crate::Batch) sends no more until one is closed; what it has sent may
    /// exceed the limit by `peer_capacity`. Default: 64.
    pub max_open_bodies: usize,
    /// How often a failed fetch is tried again without 64 KiB, or a second, of new bytes in between, unless it says otherwise.
    /// Default: 5.
    pub max_retries: u32,
    /// A fetch that runs for so long is told as [`Event::Slow`](crate::Event::Slow), once, and goes on. Default: 2 s.
    pub soft_timeout: Duration,
    /// A fetch on a worker that gives no sign of life for so long stands still: an [`Event::Hang`](crate::Event::Hang) and
    /// an error in the log. Default: 60 s, more than the client's limits let one request take without a byte.
    ///
    /// From 60 s on it is kept longer than that: `resolve_timeout`, `connect_timeout` and twice `inactivity_timeout` (first on
    /// a connection that was kept alive, and is dead) and 10 s. A shorter one is taken as it is, and then a request that may
    /// still be answered can be reported. A chain of redirects gives no sign of life before its last head.
    pub hang_timeout: Duration,
    /// What happens when something stands still, besides. Default: nothing.
    pub hang_policy: HangPolicy,
    /// Events a subscriber may lag behind before it loses the oldest. Default: 1024.
    pub event_capacity: usize,
}

impl Default for DownloaderConfig {
    fn default() -> Self {
        Self {
            client: ClientConfig::default(),
            max_concurrent: 6,
            reserved: 1,
            max_per_origin: 4,
            max_preempted: None,
            prefetch_delay: Duration::ZERO,
            aging_threshold: Duration::from_secs(10),
            peer_capacity: 32,
            max_open_bodies: 64,
            max_retries: 5,
            soft_timeout: Duration::from_secs(2),
            hang_timeout: HANG_TIMEOUT,
            hang_policy: HangPolicy::Report,
            event_capacity: 1024,
        }
    }
}

/// What happens when something stands still, besides its being told.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum HangPolicy {
    /// Nothing.
    #[default]
    Report,
    /// A fetch that stands still fails with [`ErrorKind::Stalled`], and its worker is free.
    CancelStalled,
    /// This is called; [`HangPolicy::on_hang`] makes one.
    Call(OnHang),
}

impl HangPolicy {
    /// Calls `on_hang` for each standstill, on the watchdog's thread. A panic in it is caught.
    ///
    /// ```
    /// let mut config = windway::DownloaderConfig::default();
    /// config.hang_policy = windway::HangPolicy::on_hang(|hang| eprintln!("{hang}"));
    /// ```
    pub fn on_hang(on_hang: impl Fn(&Hang) + Send + Sync + 'static) -> Self {
        Self::Call(OnHang(Arc::new(Foreign::new(Box::new(on_hang)))))
    }
}

/// What is called for each standstill. See [`HangPolicy::on_hang`].
#[derive(Clone)]
pub struct OnHang(Arc<Foreign<CallOnHang>>);

type CallOnHang = Box<dyn Fn(&Hang) + Send + Sync>;

impl OnHang {
    pub(crate) fn call(&self, hang: &Hang) {
        // A panic is logged, and changes nothing.
        let _ = self.0.call_shared("on_hang", |on_hang| on_hang(hang));
    }
}

impl fmt::Debug for OnHang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnHang")
    }
}

impl DownloaderConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        bound([
            &mut self.prefetch_delay,
            &mut self.aging_threshold,
            &mut self.soft_timeout,
            &mut self.hang_timeout,
        ]);
        let ClientConfig {
            resolve_timeout,
            resolve_cache,
            connect_timeout,
            inactivity_timeout,
            max_idle_age,
            ..
        } = &mut self.client;
        bound([resolve_timeout, resolve_cache, connect_timeout, inactivity_timeout, max_idle_age]);
        if self.hang_timeout >= HANG_TIMEOUT {
            let silence = *resolve_timeout + *connect_timeout + 2 * *inactivity_timeout;
            self.hang_timeout = self.hang_timeout.max(silence + HANG_MARGIN);
        }
        Ok(self)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |field: &str, why: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("DownloaderConfig::{field} {why}")))
        };
        if self.max_concurrent == 0 {
            return wrong("max_concurrent", "is 0, and nothing would ever run");
        }
        if self.max_concurrent > MOST_WORKERS {
            return wrong("max_concurrent", "is more than 1024, and each is a thread");
        }
        if self.reserved >= self.max_concurrent && self.max_concurrent > 1 {
            return wrong("reserved", "leaves no worker for anything but awaited fetches");
        }
        if self.peer_capacity == 0 {
            return wrong("peer_capacity", "is 0, and nothing could be submitted");
        }
        if self.max_per_origin == 0 {
            return wrong("max_per_origin", "is 0, and no Low work would ever run");
        }
        if self.hang_timeout.is_zero() {
            return wrong("hang_timeout", "is zero, and every fetch would stand still");
        }
        if self.max_open_bodies == 0 {
            return wrong("max_open_bodies", "is 0, and execute could return nothing");
        }
        let client = &self.client;
        if [client.inactivity_timeout, client.connect_timeout, client.resolve_timeout]
            .contains(&Duration::ZERO)
        {
            return wrong("client", "has a timeout of zero, and nothing would ever arrive");
        }
        if client.max_head == 0 {
            return wrong("client", "has a max_head of 0, and every response head would be too large");
        }
        Ok(())
    }

    /// See `max_preempted`.
    pub(crate) fn effective_max_preempted(&self) -> usize {
        self.max_preempted.unwrap_or(self.max_concurrent.saturating_mul(2))
    }

    /// The reserved workers that are really there: a lone worker has to serve everybody.
    pub(crate) fn effective_reserved(&self) -> usize {
        self.reserved.min(self.max_concurrent - 1)
    }
}

/// How a file is streamed.
#[derive(Clone)]
#[non_exhaustive]
pub struct FileConfig {
    /// The stream's importance beside other streams: `Low` for a preload. Default: `High`.
    pub priority: Priority,
    /// Where the bytes are kept. Default: [`StorageConfig::Memory`], what surrounds the reader.
    pub storage: StorageConfig,
    /// How far ahead of the reader to fetch. Default: 16 MiB.
    pub read_ahead: ReadAhead,
    /// How many bytes behind the reader stay stored, where storage is windowed. Default: 1 MiB.
    pub behind: u64,
    /// A read that makes no progress for so long fails with [`ErrorKind::TimedOut`], and may be tried again.
    /// `None` waits for ever. Default: 30 s.
    pub read_timeout: Option<Duration>,
    /// Headers sent to the URL's origin, and to no other. [`Fetch::header`](crate::Fetch::header) says which are refused.
    /// Default: none.
    pub headers: Vec<(String, String)>,
    /// Reads on where several servers behind the URL give the same file different entity tags. That takes proof: length and date
    /// agree, an earlier tag comes back, and 4 KiB agree at the file's beginning and where the bytes are joined. False: another
    /// tag always fails with [`ErrorKind::Changed`]. Default: true.
    pub server_pools: bool,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            priority: Priority::High,
            storage: StorageConfig::Memory,
            read_ahead: ReadAhead::Bytes(16 << 20),
            behind: 1 << 20,
            read_timeout: Some(Duration::from_secs(30)),
            headers: Vec::new(),
            server_pools: true,
        }
    }
}

impl FileConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        self.read_timeout = self.read_timeout.map(|limit| limit.min(YEAR));
        Ok(self)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.read_ahead == ReadAhead::Bytes(0) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "FileConfig::read_ahead is 0 bytes, and nothing could be read",
            ));
        }
        if self.read_timeout == Some(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "FileConfig::read_timeout is zero, and nothing would be there in time",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for FileConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, storage, read_ahead, behind, read_timeout, headers, server_pools } = self;
        f.debug_struct("FileConfig")
            .field("priority", priority)
            .field("storage", storage)
            .field("read_ahead", read_ahead)
            .field("behind", behind)
            .field("read_timeout", read_timeout)
            .field("headers", &HeaderNames(headers))
            .field("server_pools", server_pools)
            .finish()
    }
}

/// How a radio is received.
///
/// ```
/// use windway::{AfterPause, RadioConfig};
///
/// let mut config = RadioConfig::default();
/// config.ahead = 512 * 1024;
/// config.after_pause = AfterPause::Continue;
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RadioConfig {
    /// How many bytes behind the reader can still be sought. Default: 1 MiB.
    pub behind: u64,
    /// How many bytes are stored ahead of the reader; while so many are, the server is held back. Default: 4 MiB.
    pub ahead: u64,
    /// A read that gets no byte for so long fails with [`ErrorKind::TimedOut`], and may be tried again. The radio goes on
    /// reconnecting all the same. `None` waits for ever. Default: 30 s.
    pub read_timeout: Option<Duration>,
    /// For how long to reconnect without hearing a byte of audio, before the radio ends with the last error. It ends early
    /// rather than late: when the next attempt would come after that. Default: `None`, for ever.
    pub give_up: Option<Duration>,
    /// For how long a 404 is no answer, but a station whose source is away: Icecast says so until its source is back. Like
    /// every station that was heard less than 2 min ago, it is asked again after 1.5 s at most.
    /// Counts from the break on, and only where audio had been heard; else a 404 ends the radio at once. Default: 2 min.
    pub source_away: Duration,
    /// Bytes a second; a connection that brings less for a whole `rate_window`, while the reader waits for each of them,
    /// is given up for a new one. Something below the station's rate, or zero for never. Default: 1000.
    pub min_rate: u32,
    /// Over how long the rate is held against `min_rate`. Default: 10 s.
    pub rate_window: Duration,
    /// What is read after a long pause. Default: [`AfterPause::LiveEdge`].
    pub after_pause: AfterPause,
    /// What a long pause is: so long nothing was read although all of `ahead` is stored. Default: 10 s.
    pub pause_limit: Duration,
    /// What `read` does where one connection's audio ends and another's begins. Default: [`OnDiscontinuity::Continue`].
    pub on_discontinuity: OnDiscontinuity,
    /// Headers sent to the URL's origin, and to no other. [`Fetch::header`](crate::Fetch::header) says which are refused.
    /// Default: none.
    pub headers: Vec<(String, String)>,
    /// Events a subscriber may lag behind before it loses the oldest. Default: 256.
    pub event_capacity: usize,
}

impl Default for RadioConfig {
    fn default() -> Self {
        Self {
            behind: 1 << 20,
            ahead: 4 << 20,
            read_timeout: Some(Duration::from_secs(30)),
            give_up: None,
            source_away: Duration::from_secs(120),
            min_rate: 1000,
            rate_window: Duration::from_secs(10),
            after_pause: AfterPause::LiveEdge,
            pause_limit: Duration::from_secs(10),
            on_discontinuity: OnDiscontinuity::Continue,
            headers: Vec::new(),
            event_capacity: 256,
        }
    }
}

impl RadioConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        self.read_timeout = self.read_timeout.map(|limit| limit.min(YEAR));
        self.give_up = self.give_up.map(|limit| limit.min(YEAR));
        bound([&mut self.source_away, &mut self.rate_window, &mut self.pause_limit]);
        Ok(self)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |field: &str, why: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("RadioConfig::{field} {why}")))
        };
        if self.ahead == 0 {
            return wrong("ahead", "is 0 bytes, and nothing could be read");
        }
        if self.read_timeout == Some(Duration::ZERO) {
            return wrong("read_timeout", "is zero, and nothing would be there in time");
        }
        if self.rate_window.is_zero() && self.min_rate > 0 {
            return wrong("rate_window", "is zero, and no rate can be told");
        }
        Ok(())
    }
}

impl fmt::Debug for RadioConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            behind,
            ahead,
            read_timeout,
            give_up,
            source_away,
            min_rate,
            rate_window,
            after_pause,
            pause_limit,
            on_discontinuity,
            headers,
            event_capacity,
        } = self;
        f.debug_struct("RadioConfig")
            .field("behind", behind)
            .field("ahead", ahead)
            .field("read_timeout", read_timeout)
            .field("give_up", give_up)
            .field("source_away", source_away)
            .field("min_rate", min_rate)
            .field("rate_window", rate_window)
            .field("after_pause", after_pause)
            .field("pause_limit", pause_limit)
            .field("on_discontinuity", on_discontinuity)
            .field("headers", &HeaderNames(headers))
            .field("event_capacity", event_capacity)
            .finish()
    }
}

/// What a radio's reader gets after a long pause: one that outlasted the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterPause {
    /// What the station sends then. The connection is let go during the pause, and what was stored ahead is skipped;
    /// a seek instead of a read keeps it.
    LiveEdge,
    /// What follows where it paused: the buffer, and then what the old connection brings, if the server still holds it.
    Continue,
}

/// What a radio's `read` does at a discontinuity: where one connection's audio ends and another's begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDiscontinuity {
    /// Nothing: the cut frame is followed by what the new connection brings. For MP3 and AAC, whose frames stand alone: a
    /// decoder looks for the next one.
    Continue,
    /// It returns 0 there, as at the end of a file, until [`RadioHandle::pass_discontinuity`](crate::RadioHandle::pass_discontinuity). For
    /// Ogg, FLAC and all that begins with headers: each connection is read as a file of its own, by a decoder of its own.
    EndOfStream,
}

/// Where a stream's bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageConfig {
    /// In memory, a window around the reader: `behind` plus the read-ahead.
    Memory,
    /// In memory, all that was fetched.
    WholeMemory,
    /// In an unnamed temporary file, all that was fetched; it is gone when the stream is, also after a crash. `None`
    /// is the system's directory for such files.
    TempFile(Option<PathBuf>),
    /// As [`TempFile`](Self::TempFile), but a window around the reader only: on a small disk, or for hours of audio.
    WindowedTempFile(Option<PathBuf>),
}

impl StorageConfig {
    /// True if only what surrounds the reader is kept.
    pub(crate) fn is_windowed(&self) -> bool {
        matches!(self, Self::Memory | Self::WindowedTempFile(_))
    }
}

/// How far ahead of the reader to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAhead {
    /// So many bytes, once 256 KiB were read in sequence. Before that as many as were read, after a jump, and 256 times as
    /// many from the file's start on. A reader that takes bytes as fast as they come has more asked for at once; what it
    /// does not come for is not fetched.
    Bytes(u64),
    /// To the end, and then what seeks left out, whether anybody reads or not: a download. It outlasts what passes; what
    /// does not ends it until somebody waits, and is told to who does. Windowed storage takes it as 16 MiB.
    Whole,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senseless_value_is_named() {
        let config = DownloaderConfig { max_concurrent: 0, ..Default::default() };
        let error = config.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("max_concurrent"));
        let config = DownloaderConfig { reserved: 6, ..Default::default() };
        assert!(config.check().unwrap_err().to_string().contains("reserved"));
        assert!(DownloaderConfig::default().check().is_ok());
    }

    #[test]
    fn a_radio_without_room_is_refused() {
        let config = RadioConfig { ahead: 0, ..Default::default() };
        assert!(config.check().unwrap_err().to_string().contains("RadioConfig::ahead"));
        assert!(RadioConfig::default().check().is_ok());
    }

    #[test]
    fn the_default_hang_timeout_outlasts_what_one_request_may_take_in_silence() {
        for seconds in [1, 10, 30, 300] {
            let inactivity_timeout = Duration::from_secs(seconds);
            let client = ClientConfig { inactivity_timeout, ..Default::default() };
            let config = DownloaderConfig { client, ..Default::default() }.checked().unwrap();
            let ClientConfig { resolve_timeout, connect_timeout, .. } = config.client;
            let longest = resolve_timeout + connect_timeout + 2 * inactivity_timeout;
            assert!(config.hang_timeout > longest, "{:?} for {longest:?}", config.hang_timeout);
        }
        let sooner = DownloaderConfig { hang_timeout: Duration::from_secs(5), ..Default::default() };
        assert_eq!(sooner.checked().unwrap().hang_timeout, Duration::from_secs(5));
    }

    #[test]
    fn a_lone_worker_is_not_reserved() {
        let config = DownloaderConfig { max_concurrent: 1, ..Default::default() };
        assert!(config.check().is_ok());
        assert_eq!(config.effective_reserved(), 0);
    }
}
