//! All options, with their defaults and effects.
//!
//! The options are plain structs. Each field has a setter of the same name, so one expression makes a configuration; the
//! fields can also be changed in place. Options are checked once, when they are first used, and the error names the wrong
//! field. Durations of more than one year are reduced to one year.
//!
//! ```
//! use std::time::Duration;
//! use windway::config::ReadAhead;
//! use windway::{ClientConfig, DownloaderConfig, FileConfig};
//!
//! let client = ClientConfig::new().user_agent("my-player/1.0").connect_timeout(Duration::from_secs(3));
//! let downloader = DownloaderConfig::new().client(client).max_concurrent(4);
//! let file = FileConfig::new().read_ahead(ReadAhead::Bytes(4 << 20)).read_timeout(None);
//! # assert_eq!((downloader.max_concurrent, file.read_timeout), (4, None));
//! ```

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::{HeaderName, HeaderValue};

#[cfg(feature = "cache")]
use crate::cache::CacheUse;
use crate::error::{Error, ErrorKind};
use crate::event::Hang;
use crate::foreign::Foreign;
use crate::safe_url::SafeUrl;
use crate::types::Priority;

pub use crate::hook::{Hook, RequestHook, RequestKind};

/// What `ClientConfig::user_agent` is by default.
pub(crate) const DEFAULT_USER_AGENT: &str = concat!("windway/", env!("CARGO_PKG_VERSION"));

/// Maximum of `max_concurrent`. Each worker is a thread: more concurrent fetches need another design.
const MAX_WORKERS: usize = 1024;

/// Upper bound of all durations: adding a very large one to an `Instant` overflows, and sockets refuse it.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The default of [`DownloaderConfig::hang_timeout`]. Longer than the sum that `checked` computes for the default client: 45 s.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// Margin between the longest silence that the client's limits allow and `hang_timeout`.
const HANG_MARGIN: Duration = Duration::from_secs(10);

/// Defines `new`, and for each field a setter of the same name. Those after `into` also convert their argument.
macro_rules! setters {
    ($config:ident { $($field:ident: $type:ty,)* } into { $($from:ident: $target:ty,)* }) => {
        impl $config {
            /// The default options.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*

            $(
                #[doc = concat!("Sets [`", stringify!($from), "`](Self#structfield.", stringify!($from), ").")]
                #[must_use]
                pub fn $from(mut self, $from: impl Into<$target>) -> Self {
                    self.$from = $from.into();
                    self
                }
            )*
        }
    };
}

fn bound<const N: usize>(limits: [&mut Duration; N]) {
    limits.into_iter().for_each(|limit| *limit = YEAR.min(*limit));
}

/// Options of HTTP requests and connections. Part of [`DownloaderConfig`].
///
/// ```
/// use std::time::Duration;
///
/// let client = windway::ClientConfig::new().user_agent("my-player/1.0").connect_timeout(Duration::from_secs(3));
/// let downloader = windway::Downloader::new(windway::DownloaderConfig::new().client(client))?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Value of the `User-Agent` header. Default: `windway/` and the version.
    pub user_agent: String,
    /// Headers sent with every request, to every origin: put no secret here. [`Fetch::header`](crate::Fetch::header)
    /// lists the names that are refused. Default: none.
    pub default_headers: Vec<(String, String)>,
    /// Maximum duration of a DNS lookup. Default: 5 s.
    pub resolve_timeout: Duration,
    /// How long the result of a DNS lookup is reused. Default: 60 s.
    pub resolve_cache: Duration,
    /// Maximum duration of connecting, including the TLS handshake. Default: 10 s.
    pub connect_timeout: Duration,
    /// Maximum time without a byte while the response head or the body is read. It does not limit the whole transfer.
    /// Default: 10 s.
    pub silence_timeout: Duration,
    /// Minimum rate of a body in bytes per second, measured over `silence_timeout` while a read waits for bytes. A
    /// slower body fails with [`ErrorKind::Silent`]. 0 turns the check off. Default: 128, a tenth of the slowest speech
    /// codec.
    pub min_rate: u64,
    /// Credentials by origin. Each is sent as `Authorization` with every request to that origin, and to no other. A
    /// user and a password in a URL do the same for the URL's origin. Default: none.
    pub auth: Vec<(String, Auth)>,
    /// Proxy through which all connections go, by one of its URLs: `http://user:password@host:port` and `https://..` ask it for
    /// `CONNECT` tunnels, `socks5://..` (or `socks5h://..`, which is the same here) speaks SOCKS 5. The proxy looks the names
    /// of hosts up. Hosts in `no_proxy` are reached directly. Default: none.
    /// [`proxy_from_env`](Self::proxy_from_env) takes both fields from the environment.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy, each as in the variable `NO_PROXY`: `host` and `.host` stand for the host and
    /// all below it, `192.168.0.0/16` and `fd00::/8` for networks, `*` for all. Names are compared, not looked up.
    /// Default: none.
    pub no_proxy: Vec<String>,
    /// Maximum number of redirects for one request. With one more it fails with [`ErrorKind::Redirect`]. Default: 10.
    pub max_redirects: u32,
    /// Maximum size of a response head in bytes. Default: 64 KiB.
    pub max_head: usize,
    /// Maximum number of idle connections for each origin. Default: 8. More are kept for two seconds where more were in use at
    /// once; none with 0.
    pub max_idle_per_origin: usize,
    /// Maximum number of idle connections over all origins. Default: 32. More are kept for two seconds where more were in use
    /// at once; none with 0.
    pub max_idle: usize,
    /// How long an idle connection is kept open. Default: 45 s, less than common servers keep theirs.
    pub max_idle_age: Duration,
    /// Certificates trusted in addition to the public roots, as PEM; each entry may contain several. A certificate may be a CA
    /// certificate, or the server's own, such as `openssl req -x509` makes. Names and dates are still checked. Default: none.
    pub extra_roots: Vec<Vec<u8>>,
    /// Which certificate authorities are trusted beside `extra_roots`. Default: [`Roots::BuiltIn`].
    pub roots: Roots,
    /// Certificates of the client, by origin, for servers that authenticate it (mutual TLS). Each is only shown to its own origin, if that
    /// asks for it. Default: none.
    pub client_certificates: Vec<(String, ClientCertificate)>,
    /// Keeps cookies. Default: none; then cookies are ignored.
    pub cookies: Option<Cookies>,
    /// Which origins are requested over HTTP/3. Default: none.
    #[cfg(feature = "http3")]
    pub http3: Http3,
}

setters!(ClientConfig {
    resolve_timeout: Duration,
    resolve_cache: Duration,
    connect_timeout: Duration,
    silence_timeout: Duration,
    min_rate: u64,
    max_redirects: u32,
    max_head: usize,
    max_idle_per_origin: usize,
    max_idle: usize,
    max_idle_age: Duration,
    roots: Roots,
} into {
    user_agent: String,
    default_headers: Vec<(String, String)>,
    auth: Vec<(String, Auth)>,
    proxy: Option<String>,
    no_proxy: Vec<String>,
    extra_roots: Vec<Vec<u8>>,
    client_certificates: Vec<(String, ClientCertificate)>,
    cookies: Option<Cookies>,
});

impl ClientConfig {
    /// Sets `proxy` and `no_proxy` from the environment, as curl reads it: from `https_proxy`, else `all_proxy`, else
    /// `http_proxy`, and from `no_proxy`; in lower case, else in upper case. Without this call windway reads no variable.
    /// `HTTP_PROXY` in upper case is not read: a CGI program gets the request header `Proxy` in it (httpoxy, CVE-2016-5385).
    ///
    /// ```
    /// let client = windway::ClientConfig::new().proxy_from_env();
    /// ```
    #[must_use]
    pub fn proxy_from_env(self) -> Self {
        self.proxy_from(|name| std::env::var(name).ok())
    }

    fn proxy_from(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"];
        self.proxy = names.into_iter().find_map(set).map(|proxy| match proxy.contains("://") {
            true => proxy,
            // curl(1): a proxy without a scheme is one of HTTP.
            false => format!("http://{proxy}"),
        });
        let excluded = ["no_proxy", "NO_PROXY"].into_iter().find_map(set).unwrap_or_default();
        // curl accepts blanks between the hosts too.
        let excluded = excluded.split([',', ' ']).map(str::trim).filter(|host| !host.is_empty());
        self.no_proxy = excluded.map(str::to_owned).collect();
        self
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            user_agent: DEFAULT_USER_AGENT.into(),
            default_headers: Vec::new(),
            resolve_timeout: Duration::from_secs(5),
            resolve_cache: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(10),
            min_rate: 128,
            auth: Vec::new(),
            proxy: None,
            no_proxy: Vec::new(),
            max_redirects: 10,
            max_head: 64 * 1024,
            max_idle_per_origin: 8,
            max_idle: 32,
            max_idle_age: Duration::from_secs(45),
            extra_roots: Vec::new(),
            roots: Roots::BuiltIn,
            client_certificates: Vec::new(),
            cookies: None,
            #[cfg(feature = "http3")]
            http3: Http3::default(),
        }
    }
}

// By hand, because headers and credentials must not be shown; and without `..`, so a new field can't be forgotten here.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user_agent,
            default_headers,
            resolve_timeout,
            resolve_cache,
            connect_timeout,
            silence_timeout,
            min_rate,
            auth,
            proxy,
            no_proxy,
            max_redirects,
            max_head,
            max_idle_per_origin,
            max_idle,
            max_idle_age,
            extra_roots,
            roots,
            client_certificates,
            cookies,
            #[cfg(feature = "http3")]
            http3,
        } = self;
        let client_certificates: Vec<SafeUrl> =
            client_certificates.iter().map(|(origin, _)| SafeUrl::from(origin.as_str())).collect();
        let auth: Vec<(SafeUrl, &Auth)> =
            auth.iter().map(|(origin, auth)| (SafeUrl::from(origin.as_str()), auth)).collect();
        let mut shown = f.debug_struct("ClientConfig");
        #[cfg(feature = "http3")]
        shown.field("http3", http3);
        shown
            .field("user_agent", user_agent)
            .field("default_headers", &HeaderNames(default_headers))
            .field("resolve_timeout", resolve_timeout)
            .field("resolve_cache", resolve_cache)
            .field("connect_timeout", connect_timeout)
            .field("silence_timeout", silence_timeout)
            .field("min_rate", min_rate)
            .field("auth", &auth)
            .field("proxy", &proxy.as_deref().map(SafeUrl::from))
            .field("no_proxy", no_proxy)
            .field("max_redirects", max_redirects)
            .field("max_head", max_head)
            .field("max_idle_per_origin", max_idle_per_origin)
            .field("max_idle", max_idle)
            .field("max_idle_age", max_idle_age)
            .field("extra_roots", &format_args!("{} certificates", extra_roots.len()))
            .field("roots", roots)
            .field("client_certificates", &client_certificates)
            .field("cookies", cookies)
            .finish()
    }
}

#[cfg(feature = "http3")]
impl ClientConfig {
    /// Sets [`http3`](Self#structfield.http3).
    #[must_use]
    pub fn http3(mut self, http3: Http3) -> Self {
        self.http3 = http3;
        self
    }
}

/// Which origins are requested over HTTP/3. Needs the feature `http3`. [Its guide](crate::guide::http3) says when TCP is used all
/// the same.
///
/// Requests to an `http` URL, and all requests of a client with a proxy, use TCP.
///
/// ```
/// use windway::ClientConfig;
/// use windway::config::Http3;
///
/// let config = ClientConfig::new().http3(Http3::Always(vec!["https://media.example.com".into()]));
/// ```
#[cfg(feature = "http3")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Http3 {
    /// None: all requests use TCP.
    #[default]
    Off,
    /// Those that advertise it in an `Alt-Svc` field (RFC 7838), from the second request on. Origins with private addresses
    /// use TCP: on a fast local network it is faster.
    Advertised,
    /// Those that advertise it, and these origins at once, also with private addresses. An origin that does not answer over
    /// QUIC in time is requested over TCP.
    Always(Vec<String>),
}

/// Shows the names of headers without their values.
struct HeaderNames<'a>(&'a [(String, String)]);

impl fmt::Debug for HeaderNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A text that is not a header name may contain a secret: "Authorization: Bearer ..".
        let shown = |name: &str| match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => name.to_string(),
            Err(_) => "…".to_owned(),
        };
        f.debug_list().entries(self.0.iter().map(|(name, _)| shown(name))).finish()
    }
}

/// Shows URLs without their secrets.
struct SafeUrls<'a>(&'a [String]);

impl fmt::Debug for SafeUrls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|url| SafeUrl::from(url.as_str()))).finish()
    }
}

/// Credentials for the `Authorization` header.
///
/// ```
/// use windway::config::Auth;
/// use windway::ClientConfig;
///
/// let auth = Auth::Bearer("token".into());
/// let config = ClientConfig::new().auth([("https://example.com".into(), auth)]);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// A user and a password (RFC 7617).
    Basic {
        /// The user name. It must not contain a colon.
        user: String,
        /// The password.
        password: String,
    },
    /// A token (RFC 6750).
    Bearer(String),
}

impl Auth {
    /// Value of the `Authorization` header, or `None` if HTTP does not allow it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            // RFC 7617, section 2: the first colon ends the user.
            Self::Basic { user, .. } if user.contains(':') => return None,
            Self::Basic { user, password } => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
            }
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        // Hides the value in every `Debug` output.
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

/// Which certificate authorities are trusted, beside [`ClientConfig::extra_roots`].
///
/// ```
/// use windway::ClientConfig;
/// use windway::config::Roots;
///
/// // A server at home: its certificate, and no other.
/// let pem = b"-----BEGIN CERTIFICATE-----..".to_vec();
/// let client = ClientConfig::new().roots(Roots::ExtraOnly).extra_roots([pem]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Mozilla's, which are part of the program: the same on every system.
    #[default]
    BuiltIn,
    /// Those of the operating system, which also checks the certificates by its own rules. They include what a company or a
    /// user has added. On Android the application has to initialise the crate `rustls-platform-verifier` first. Needs the
    /// feature `platform-roots`.
    #[cfg(feature = "platform-roots")]
    Platform,
    /// None: only `extra_roots`, which must not be empty. This pins the servers to them.
    ExtraOnly,
}

/// A certificate with its private key, by which a server authenticates a client (mutual TLS). `Debug` shows nothing of it.
///
/// ```no_run
/// use windway::ClientConfig;
/// use windway::config::ClientCertificate;
///
/// let certificate = ClientCertificate::from_pem(std::fs::read("me.crt")?, std::fs::read("me.key")?);
/// let client = ClientConfig::new().client_certificates([("https://home.example".into(), certificate)]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct ClientCertificate {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl ClientCertificate {
    /// `chain` has the client's certificate first, then those of the authorities between it and the root. `key` is its private
    /// key. Both are PEM, and are checked when the downloader is made.
    pub fn from_pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { chain: chain.into(), key: key.into() }
    }

    pub(crate) fn expose_chain(&self) -> &[u8] {
        &self.chain
    }

    pub(crate) fn expose_key(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

/// Keeps cookies (RFC 6265) for a client, for example in a crate made for that: windway has no jar of its own.
///
/// The methods run on worker threads, several at once, and must not block. The [crate's documentation](crate) lists the calls
/// that they may make.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use windway::ClientConfig;
/// use windway::config::{CookieJar, Cookies};
///
/// /// Keeps the last cookie of each URL. A real jar knows domains, paths and dates.
/// #[derive(Default)]
/// struct Last(Mutex<HashMap<String, String>>);
///
/// impl CookieJar for Last {
///     fn cookies(&self, url: &str) -> Option<String> {
///         self.0.lock().unwrap().get(url).cloned()
///     }
///
///     fn store(&self, url: &str, set_cookie: &str) {
///         let pair = set_cookie.split(';').next().unwrap_or_default();
///         self.0.lock().unwrap().insert(url.into(), pair.into());
///     }
/// }
///
/// let client = ClientConfig::new().cookies(Cookies::new(Last::default()));
/// ```
pub trait CookieJar: Send + Sync {
    /// Value of the header `Cookie` of a request to `url`: pairs such as `a=1; b=2`. It is called for each request, also for
    /// those that follow a redirect, and its result is sent to no other URL. `None` sends no such header. A header `Cookie` of
    /// the request itself goes before it.
    fn cookies(&self, url: &str) -> Option<String>;

    /// Takes the value of a header `Set-Cookie` of a response from `url`, also from a redirect or an error. A jar has to check
    /// whether `url` may set it (RFC 6265, section 5.3).
    fn store(&self, url: &str, set_cookie: &str);
}

/// A [`CookieJar`], as a configuration holds it. `Debug` shows no cookie.
///
/// ```
/// # struct Jar;
/// # impl windway::config::CookieJar for Jar {
/// #     fn cookies(&self, _: &str) -> Option<String> { None }
/// #     fn store(&self, _: &str, _: &str) {}
/// # }
/// let client = windway::ClientConfig::new().cookies(windway::config::Cookies::new(Jar));
/// ```
#[derive(Clone)]
pub struct Cookies(Arc<Foreign<Box<dyn CookieJar>>>);

impl Cookies {
    /// Keeps `jar`.
    pub fn new(jar: impl CookieJar + 'static) -> Self {
        Self(Arc::new(Foreign::new(Box::new(jar))))
    }

    /// Value of the header `Cookie` for a request to `url`. A panic of the jar sends none.
    pub(crate) fn header(&self, url: &str) -> Option<HeaderValue> {
        let cookies = self.0.call_shared("CookieJar::cookies", |jar| jar.cookies(url)).ok().flatten()?;
        let mut value = HeaderValue::from_str(&cookies)
            .map_err(|_| log::warn!("CookieJar::cookies returned what HTTP does not allow in a header"))
            .ok()?;
        // Hides the value in every `Debug` output.
        value.set_sensitive(true);
        Some(value)
    }

    pub(crate) fn store(&self, url: &str, set_cookie: &str) {
        // A panic was logged, and there is nothing to undo.
        let _ = self.0.call_shared("CookieJar::store", |jar| jar.store(url, set_cookie));
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies")
    }
}

/// Options of a [`Downloader`](crate::Downloader): its workers, limits and retries.
///
/// ```
/// use windway::{Downloader, DownloaderConfig};
///
/// let downloader = Downloader::new(DownloaderConfig::new().max_concurrent(8).reserved(2))?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloaderConfig {
    /// Options of HTTP requests and connections.
    pub client: ClientConfig,
    /// Number of worker threads, which is the maximum number of fetches that run at once, apart from those of blocked reads:
    /// while all workers are busy, a read or a wait for bytes that blocks runs its fetch on its own thread. At most 1024. Default: 6.
    pub max_concurrent: usize,
    /// Number of workers that run urgent fetches only. Must be less than `max_concurrent`; with one worker it counts as
    /// 0. Default: 1.
    pub reserved: usize,
    /// Maximum number of prefetches from one origin, running or preempted. Urgent fetches are not limited. Default: 4.
    pub max_per_origin: usize,
    /// Maximum number of preempted prefetches that keep their connection open. Beyond it the connection is closed, and
    /// the fetch continues from its offset on another one. 0 keeps none. Default: `None`, twice `max_concurrent`.
    pub max_preempted: Option<usize>,
    /// Delay after the last urgent fetch starts before a prefetch may start. Default: zero.
    pub prefetch_delay: Duration,
    /// A prefetch that has waited this long goes before urgent work on the next free worker that is not reserved, and is not
    /// preempted for one second or 256 KiB, so prefetches do not starve. The time counts from when it was queued, or from its
    /// last turn of that length. `prefetch_delay` does not hold it up; it may preempt other prefetches, but never urgent
    /// work. At most half of the workers that are not reserved, but at least one, are protected in this way at the same
    /// time. Between two such turns, urgent work that waits is served. Default: 10 s.
    pub aging_threshold: Duration,
    /// Maximum number of submitted fetches of one peer that have no response yet. `execute` and `batch` block while the
    /// limit is reached. Default: 32.
    pub peer_capacity: usize,
    /// Maximum number of response bodies that callers, and sinks that detached them, hold open. Beyond it `execute` and
    /// detaching fail with [`ErrorKind::TooManyOpenBodies`], and a [`Batch`](crate::downloader::Batch) sends no more requests until
    /// a body is closed. Requests that a batch has already sent may exceed the limit by up to `peer_capacity`. Default:
    /// 64.
    pub max_open_bodies: usize,
    /// Maximum number of retries of a fetch. The count starts again when an attempt has received 64 KiB, or new bytes
    /// over at least one second. A fetch can override it. Default: 5.
    pub max_retries: u32,
    /// Publishes [`Event::Slow`](crate::event::Event::Slow) once when a fetch has run this long. The fetch is not interrupted.
    /// Default: 2 s.
    pub soft_timeout: Duration,
    /// A fetch on a worker that makes no progress for this long is reported as stalled, by an
    /// [`Event::Hang`](crate::event::Event::Hang) and an error in the log. Default: 60 s, more than the client's limits let
    /// one request take without a byte.
    ///
    /// A value of 60 s or more is raised, if necessary, to the sum of `resolve_timeout`, `connect_timeout`, twice
    /// `silence_timeout` (the first on a pooled connection that is dead) and 10 s. A smaller value is not changed;
    /// then a request that may still be answered can be reported. A chain of redirects counts as no progress until its
    /// last response head.
    pub hang_timeout: Duration,
    /// What happens to a stalled fetch, in addition to the report. Default: nothing.
    pub hang_policy: HangPolicy,
    /// Number of events stored for each subscriber. A subscriber that is slower loses the oldest ones. Default: 1024.
    pub event_capacity: usize,
    /// The network is paid for by the byte: nothing is fetched on a guess. A file is opened without a second request for its
    /// last bytes, what its first bytes tell of an index or a last page is left to the reader, and so is the next place of
    /// a reader that bisects. Reads, and the read-ahead that [`FileConfig::read_ahead`] limits, stay as they are.
    /// [`Downloader::set_metered`](crate::Downloader::set_metered) changes it later. Default: false.
    pub metered: bool,
    /// Memory in bytes for what all streams with [`StorageConfig::Memory`] buffer together. While their windows (`behind`
    /// and the read-ahead) fit, each has its own. Beyond it, streams that are read go before those that are not, and high
    /// priority before low; the others get equal shares and drop what they hold beyond. Each stream keeps its first 256
    /// KiB, the end of its file and the blocks around its reader in any case. Default: 256 MiB.
    ///
    /// Outside of it, because what they hold can't be dropped and fetched again:
    ///
    /// - [`StorageConfig::WholeMemory`] keeps all of its file, which is what it is chosen for.
    /// - A [`Radio`](crate::Radio) keeps `behind` and `ahead` bytes of its [`RadioConfig`]: a station sends nothing twice.
    /// - An HLS stream keeps what its own limits allow, which are a time and a number of bytes: segments of a live playlist
    ///   are gone after a while, and a minute of audio is 1 MiB or two.
    pub max_buffered: u64,
}

setters!(DownloaderConfig {
    client: ClientConfig,
    max_concurrent: usize,
    reserved: usize,
    max_per_origin: usize,
    prefetch_delay: Duration,
    aging_threshold: Duration,
    peer_capacity: usize,
    max_open_bodies: usize,
    max_retries: u32,
    soft_timeout: Duration,
    hang_timeout: Duration,
    hang_policy: HangPolicy,
    event_capacity: usize,
    metered: bool,
    max_buffered: u64,
} into {
    max_preempted: Option<usize>,
});

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
            metered: false,
            max_buffered: 256 << 20,
        }
    }
}

/// What happens to a stalled fetch, in addition to the report.
///
/// ```
/// use windway::DownloaderConfig;
/// use windway::config::HangPolicy;
///
/// let config = DownloaderConfig::new().hang_policy(HangPolicy::CancelStalled);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum HangPolicy {
    /// Nothing: the stall is only reported.
    #[default]
    Report,
    /// A stalled fetch fails with [`ErrorKind::Stalled`], which frees its worker.
    CancelStalled,
    /// Calls a function. [`HangPolicy::on_hang`] makes this variant.
    Call(OnHang),
}

impl HangPolicy {
    /// Calls `on_hang` once for each stall, on the watchdog's thread. A panic in it is caught and logged.
    ///
    /// ```
    /// let policy = windway::config::HangPolicy::on_hang(|hang| eprintln!("{hang}"));
    /// let config = windway::DownloaderConfig::new().hang_policy(policy);
    /// ```
    pub fn on_hang(on_hang: impl Fn(&Hang) + Send + Sync + 'static) -> Self {
        Self::Call(OnHang(Arc::new(Foreign::new(Box::new(on_hang)))))
    }
}

/// Function that is called for each stall. See [`HangPolicy::on_hang`].
///
/// ```
/// use windway::config::{HangPolicy, OnHang};
///
/// let policy = HangPolicy::on_hang(|hang| eprintln!("{hang}"));
/// assert!(matches!(policy, HangPolicy::Call(OnHang { .. })));
/// ```
#[derive(Clone)]
pub struct OnHang(Arc<Foreign<CallOnHang>>);

type CallOnHang = Box<dyn Fn(&Hang) + Send + Sync>;

impl OnHang {
    pub(crate) fn call(&self, hang: &Hang) {
        // `call_shared` logs a panic. The watchdog has nothing to undo.
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
            silence_timeout,
            max_idle_age,
            ..
        } = &mut self.client;
        bound([resolve_timeout, resolve_cache, connect_timeout, silence_timeout, max_idle_age]);
        if self.hang_timeout >= HANG_TIMEOUT {
            // Twice: the first request may use a pooled connection that is dead.
            let silence = *resolve_timeout + *connect_timeout + 2 * *silence_timeout;
            self.hang_timeout = self.hang_timeout.max(silence + HANG_MARGIN);
        }
        Ok(self)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |field: &str, why: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("DownloaderConfig::{field} {why}")))
        };
        if self.max_concurrent == 0 {
            return wrong("max_concurrent", "is 0: no fetch would ever run");
        }
        if self.max_concurrent > MAX_WORKERS {
            return wrong("max_concurrent", "is more than 1024, the maximum number of threads");
        }
        // A single worker is never reserved, whatever the option says: see `effective_reserved`.
        if self.reserved >= self.max_concurrent && self.max_concurrent > 1 {
            return wrong("reserved", "is not less than max_concurrent: no prefetch would ever run");
        }
        if self.peer_capacity == 0 {
            return wrong("peer_capacity", "is 0: no fetch could be submitted");
        }
        if self.max_per_origin == 0 {
            return wrong("max_per_origin", "is 0: no prefetch would ever run");
        }
        if self.hang_timeout.is_zero() {
            return wrong("hang_timeout", "is zero: every fetch would be reported as stalled");
        }
        if self.max_open_bodies == 0 {
            return wrong("max_open_bodies", "is 0: execute could return no response");
        }
        let client = &self.client;
        if [client.silence_timeout, client.connect_timeout, client.resolve_timeout].contains(&Duration::ZERO)
        {
            return wrong("client", "has a timeout of zero: every request would fail");
        }
        if client.max_head == 0 {
            return wrong("client", "has a max_head of 0: every response head would be too large");
        }
        Ok(())
    }

    /// `max_preempted`, or its default of twice `max_concurrent`.
    pub(crate) fn effective_max_preempted(&self) -> usize {
        self.max_preempted.unwrap_or(self.max_concurrent.saturating_mul(2))
    }

    /// `reserved`, but always leaves one worker for prefetches: a single worker has to run everything.
    pub(crate) fn effective_reserved(&self) -> usize {
        self.reserved.min(self.max_concurrent - 1)
    }
}

/// Options of a [`Stream`](crate::Stream).
///
/// ```no_run
/// use windway::config::StorageConfig;
/// use windway::{Downloader, FileConfig};
///
/// let config = FileConfig::new().storage(StorageConfig::TempFile(None)).server_pools(false);
/// let stream = Downloader::global()?.open_with("https://example.com/a.flac", config)?;
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct FileConfig {
    /// Priority relative to other streams: `Low` for a preload. Default: `High`.
    pub priority: Priority,
    /// Where the bytes are stored. Default: [`StorageConfig::Memory`], a window around the reader.
    pub storage: StorageConfig,
    /// How far ahead of the reader to fetch. Default: 16 MiB.
    pub read_ahead: ReadAhead,
    /// Number of bytes kept behind the reader. Only used with windowed storage. Default: 1 MiB.
    pub behind: u64,
    /// A read that makes no progress for this long fails with [`ErrorKind::TimedOut`]. The next read tries again.
    /// `None` waits forever. Default: 30 s.
    pub read_timeout: Option<Duration>,
    /// Maximum time of retrying what a read waits for without receiving a byte; with [`ReadAhead::Whole`] also what no read
    /// waits for. Then the stream ends with [`ErrorKind::GaveUp`]: blocked and later reads return it, and only stored bytes can
    /// still be read. It ends before that if the next attempt would start after the limit; an attempt that has started is not
    /// interrupted. The time in which no read waits does not count. Default: `None`, no limit.
    pub give_up: Option<Duration>,
    /// Headers sent to the URL's origin, and to no other. [`Fetch::header`](crate::Fetch::header) lists the names that
    /// are refused. Default: none.
    pub headers: Vec<(String, String)>,
    /// Other URLs of the same file, in the order in which to try them if its own can't be had: its host is down, or it
    /// answers with an error. The one that worked last is tried first from then on. One is passed over if
    /// it has another version, or shows by no ETag or date that it has the same, and `headers` are only sent to one of the URL's own origin. Default: none.
    pub mirrors: Vec<String>,
    /// Gives each request headers, and fresh URLs in place of those that expire. Default: none.
    pub hook: Option<Hook>,
    /// Whether to accept that several servers behind the URL send different ETags for the same file. windway checks it:
    /// length and date must agree, and either an earlier ETag comes back, or 4 KiB agree at the start of the file and
    /// where the bytes are joined. If false, another ETag always fails with [`ErrorKind::Changed`]. Default: true.
    pub server_pools: bool,
    /// Persistent cache that keeps what is fetched, and serves it to later streams, also in other processes. Blocks that the
    /// cache has taken need no memory and are not counted for `behind`; `storage` takes what the cache does not. If the cache
    /// fails, the stream goes on without it: see [`Event::CacheOff`](crate::event::Event::CacheOff). Needs the feature
    /// `cache`. Default: none.
    #[cfg(feature = "cache")]
    pub cache: Option<CacheUse>,
}

#[cfg(feature = "cache")]
impl FileConfig {
    /// Sets [`cache`](Self#structfield.cache). A [`Cache`](crate::cache::Cache) will do.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<Option<CacheUse>>) -> Self {
        self.cache = cache.into();
        self
    }
}

setters!(FileConfig {
    priority: Priority,
    storage: StorageConfig,
    read_ahead: ReadAhead,
    behind: u64,
    server_pools: bool,
} into {
    read_timeout: Option<Duration>,
    give_up: Option<Duration>,
    headers: Vec<(String, String)>,
    mirrors: Vec<String>,
    hook: Option<Hook>,
});

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            priority: Priority::High,
            storage: StorageConfig::Memory,
            read_ahead: ReadAhead::Bytes(16 << 20),
            behind: 1 << 20,
            read_timeout: Some(Duration::from_secs(30)),
            give_up: None,
            headers: Vec::new(),
            mirrors: Vec::new(),
            hook: None,
            server_pools: true,
            #[cfg(feature = "cache")]
            cache: None,
        }
    }
}

impl FileConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        self.read_timeout = self.read_timeout.map(|limit| limit.min(YEAR));
        self.give_up = self.give_up.map(|limit| limit.min(YEAR));
        Ok(self)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.read_ahead == ReadAhead::Bytes(0) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "FileConfig::read_ahead is 0 bytes: nothing could be read",
            ));
        }
        if self.read_timeout == Some(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "FileConfig::read_timeout is zero: every read that waits would fail",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for FileConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            priority,
            storage,
            read_ahead,
            behind,
            read_timeout,
            give_up,
            headers,
            mirrors,
            hook,
            server_pools,
            #[cfg(feature = "cache")]
            cache,
        } = self;
        let mut shown = f.debug_struct("FileConfig");
        shown
            .field("priority", priority)
            .field("storage", storage)
            .field("read_ahead", read_ahead)
            .field("behind", behind)
            .field("read_timeout", read_timeout)
            .field("give_up", give_up)
            .field("headers", &HeaderNames(headers))
            .field("mirrors", &SafeUrls(mirrors))
            .field("hook", hook)
            .field("server_pools", server_pools);
        #[cfg(feature = "cache")]
        shown.field("cache", cache);
        shown.finish()
    }
}

/// Options of a [`Radio`](crate::Radio).
///
/// ```
/// use windway::config::AfterPause;
/// use windway::RadioConfig;
///
/// let config = RadioConfig::new().ahead(512 * 1024).after_pause(AfterPause::Continue);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RadioConfig {
    /// Number of bytes kept behind the reader, to seek back to. Default: 1 MiB.
    pub behind: u64,
    /// Maximum number of bytes stored ahead of the reader. While they are stored, windway reads nothing, so TCP flow
    /// control slows the server down. Default: 4 MiB.
    pub ahead: u64,
    /// A read that gets no byte for this long fails with [`ErrorKind::TimedOut`]. The next read tries again. The radio
    /// keeps reconnecting in the meantime. `None` waits forever. Default: 30 s.
    pub read_timeout: Option<Duration>,
    /// Maximum time of reconnecting without receiving a byte of audio. Then the radio ends with the last error. It ends
    /// before that if the next attempt would start after the limit. Default: `None`, no limit.
    pub give_up: Option<Duration>,
    /// Grace period in which a 404 is retried: Icecast answers 404 while its source is offline. It starts when the
    /// audio breaks off. During the first 2 min after that, the delay between two attempts is 1.5 s at most. If no
    /// audio was received before, a 404 ends the radio at once. Default: 2 min.
    pub source_away: Duration,
    /// Minimum rate of the audio in bytes per second. A connection that is slower for a whole `audio_rate_window`, while
    /// the reader waits for bytes, is replaced. Use a value below the station's bitrate; 0 turns the check off. The limit
    /// [`ClientConfig::min_rate`] applies to a station too. Default: 1000.
    pub min_audio_rate: u64,
    /// Duration over which `min_audio_rate` is measured. Default: 10 s.
    pub audio_rate_window: Duration,
    /// What the reader gets after a long pause. Default: [`AfterPause::LiveEdge`].
    pub after_pause: AfterPause,
    /// Minimum length of a long pause: the time in which nothing is read while `ahead` bytes are stored. Default: 10 s.
    pub pause_limit: Duration,
    /// What `read` does at a discontinuity. Default: [`OnDiscontinuity::Continue`].
    pub on_discontinuity: OnDiscontinuity,
    /// Headers sent to the URL's origin, and to no other. [`Fetch::header`](crate::Fetch::header) lists the names that
    /// are refused. Default: none.
    pub headers: Vec<(String, String)>,
    /// Other URLs of the same station, in the order in which to try them if its own can't be had: its host is down, or it
    /// answers with an error. The one that worked last is tried first from then on. `headers` are
    /// only sent to one of the URL's own origin. Default: none.
    pub mirrors: Vec<String>,
    /// Gives each request headers, and fresh URLs in place of those that expire. Default: none.
    pub hook: Option<Hook>,
    /// Number of events stored for each subscriber. A subscriber that is slower loses the oldest ones. Default: 256.
    pub event_capacity: usize,
}

setters!(RadioConfig {
    behind: u64,
    ahead: u64,
    source_away: Duration,
    min_audio_rate: u64,
    audio_rate_window: Duration,
    after_pause: AfterPause,
    pause_limit: Duration,
    on_discontinuity: OnDiscontinuity,
    event_capacity: usize,
} into {
    read_timeout: Option<Duration>,
    give_up: Option<Duration>,
    headers: Vec<(String, String)>,
    mirrors: Vec<String>,
    hook: Option<Hook>,
});

impl Default for RadioConfig {
    fn default() -> Self {
        Self {
            behind: 1 << 20,
            ahead: 4 << 20,
            read_timeout: Some(Duration::from_secs(30)),
            give_up: None,
            source_away: Duration::from_secs(120),
            min_audio_rate: 1000,
            audio_rate_window: Duration::from_secs(10),
            after_pause: AfterPause::LiveEdge,
            pause_limit: Duration::from_secs(10),
            on_discontinuity: OnDiscontinuity::Continue,
            headers: Vec::new(),
            mirrors: Vec::new(),
            hook: None,
            event_capacity: 256,
        }
    }
}

impl RadioConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        self.read_timeout = self.read_timeout.map(|limit| limit.min(YEAR));
        self.give_up = self.give_up.map(|limit| limit.min(YEAR));
        bound([&mut self.source_away, &mut self.audio_rate_window, &mut self.pause_limit]);
        Ok(self)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |field: &str, why: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("RadioConfig::{field} {why}")))
        };
        if self.ahead == 0 {
            return wrong("ahead", "is 0 bytes: nothing could be read");
        }
        if self.read_timeout == Some(Duration::ZERO) {
            return wrong("read_timeout", "is zero: every read that waits would fail");
        }
        if self.audio_rate_window.is_zero() && self.min_audio_rate > 0 {
            return wrong("audio_rate_window", "is zero: no rate can be measured");
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
            min_audio_rate,
            audio_rate_window,
            after_pause,
            pause_limit,
            on_discontinuity,
            headers,
            mirrors,
            hook,
            event_capacity,
        } = self;
        f.debug_struct("RadioConfig")
            .field("behind", behind)
            .field("ahead", ahead)
            .field("read_timeout", read_timeout)
            .field("give_up", give_up)
            .field("source_away", source_away)
            .field("min_audio_rate", min_audio_rate)
            .field("audio_rate_window", audio_rate_window)
            .field("after_pause", after_pause)
            .field("pause_limit", pause_limit)
            .field("on_discontinuity", on_discontinuity)
            .field("headers", &HeaderNames(headers))
            .field("mirrors", &SafeUrls(mirrors))
            .field("hook", hook)
            .field("event_capacity", event_capacity)
            .finish()
    }
}

/// What a radio's reader gets after a pause that was longer than the buffer.
///
/// ```
/// use windway::RadioConfig;
/// use windway::config::AfterPause;
///
/// let config = RadioConfig::new().after_pause(AfterPause::Continue);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterPause {
    /// What the station sends at that time. The connection is closed during the pause, and the bytes stored ahead are
    /// skipped. If the first call after the pause is a seek instead of a read, they are kept.
    LiveEdge,
    /// The audio from where it paused: first the buffer, then the rest of the old connection if the server kept it
    /// open.
    Continue,
}

/// What a radio's `read` does at a discontinuity: where one connection's audio ends and another's begins.
///
/// ```
/// use windway::RadioConfig;
/// use windway::config::OnDiscontinuity;
///
/// let config = RadioConfig::new().on_discontinuity(OnDiscontinuity::EndOfStream);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDiscontinuity {
    /// Continues: the cut frame is followed by the audio of the new connection. For MP3 and AAC: their frames are
    /// independent, so a decoder searches for the next one.
    Continue,
    /// Returns 0, as at the end of a file, until
    /// [`RadioHandle::pass_discontinuity`](crate::radio::RadioHandle::pass_discontinuity) is called. For Ogg, FLAC and other
    /// formats that begin with headers: each connection is read as a separate file by a new decoder.
    EndOfStream,
}

/// Where a stream's bytes are stored.
///
/// ```
/// use windway::FileConfig;
/// use windway::config::StorageConfig;
///
/// let config = FileConfig::new().storage(StorageConfig::TempFile(None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageConfig {
    /// In memory: a window around the reader, of `behind` and the read-ahead.
    Memory,
    /// In memory: all bytes that were fetched.
    WholeMemory,
    /// In an unnamed temporary file: all bytes that were fetched. The file is deleted with the stream, also after a
    /// crash. `None` is the system's directory for temporary files. The last blocks stay in memory for a while, at most 8 MiB for
    /// all temporary files of the process.
    TempFile(Option<PathBuf>),
    /// As [`TempFile`](Self::TempFile), but only a window around the reader: for small disks, or hours of audio.
    WindowedTempFile(Option<PathBuf>),
}

impl StorageConfig {
    /// True if only a window around the reader is kept.
    pub(crate) fn is_windowed(&self) -> bool {
        matches!(self, Self::Memory | Self::WindowedTempFile(_))
    }
}

/// How far ahead of the reader to fetch.
///
/// ```
/// use windway::FileConfig;
/// use windway::config::{ReadAhead, StorageConfig};
///
/// let download = FileConfig::new().read_ahead(ReadAhead::Whole).storage(StorageConfig::TempFile(None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAhead {
    /// Prefetches up to this many bytes. After a seek the target grows with the bytes read, and is full after 256 KiB;
    /// from the start of the file it grows 256 times as fast. It is no more than lasts the reader for a minute, at the
    /// rate at which it reads, or 256 KiB. For a streaming reader more bytes are requested at once; bytes that it does
    /// not reach are not fetched.
    Bytes(u64),
    /// Prefetches up to the end of the file, then the gaps that seeks left, even if nothing is read: a download.
    /// Transient errors are retried. A permanent error stops the download until the next blocking call, which returns
    /// it. With windowed storage this is the same as 16 MiB.
    Whole,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_wrong_field() {
        let config = DownloaderConfig { max_concurrent: 0, ..Default::default() };
        let error = config.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("max_concurrent"));
        let config = DownloaderConfig { reserved: 6, ..Default::default() };
        assert!(config.check().unwrap_err().to_string().contains("reserved"));
        assert!(DownloaderConfig::default().check().is_ok());
    }

    #[test]
    fn a_proxy_of_the_environment_is_taken_as_curl_takes_it() {
        for (variables, proxy, no_proxy) in [
            (&[][..], None, &[][..]),
            (&[("HTTP_PROXY", "http://evil")], None, &[]),
            (&[("http_proxy", "a:1"), ("ALL_PROXY", "socks5://b")], Some("socks5://b"), &[]),
            (&[("http_proxy", "a:1"), ("https_proxy", " ")], Some("http://a:1"), &[]),
            (
                &[("HTTPS_PROXY", "https://a"), ("https_proxy", "http://b"), ("NO_PROXY", "x, .y z")],
                Some("http://b"),
                &["x", ".y", "z"],
            ),
        ] {
            let client = ClientConfig::new().proxy_from(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            });
            assert_eq!(client.proxy.as_deref(), proxy, "{variables:?}");
            assert_eq!(client.no_proxy, no_proxy, "{variables:?}");
        }
    }

    #[test]
    fn a_radio_with_zero_ahead_is_refused() {
        let config = RadioConfig { ahead: 0, ..Default::default() };
        assert!(config.check().unwrap_err().to_string().contains("RadioConfig::ahead"));
        assert!(RadioConfig::default().check().is_ok());
    }

    #[test]
    fn the_default_hang_timeout_is_longer_than_one_request_without_a_byte() {
        for seconds in [1, 10, 30, 300] {
            let silence_timeout = Duration::from_secs(seconds);
            let client = ClientConfig { silence_timeout, ..Default::default() };
            let config = DownloaderConfig { client, ..Default::default() }.checked().unwrap();
            let ClientConfig { resolve_timeout, connect_timeout, .. } = config.client;
            let longest = resolve_timeout + connect_timeout + 2 * silence_timeout;
            assert!(config.hang_timeout > longest, "{:?} for {longest:?}", config.hang_timeout);
        }
        let sooner = DownloaderConfig { hang_timeout: Duration::from_secs(5), ..Default::default() };
        assert_eq!(sooner.checked().unwrap().hang_timeout, Duration::from_secs(5));
    }

    #[test]
    fn a_single_worker_is_not_reserved() {
        let config = DownloaderConfig { max_concurrent: 1, ..Default::default() };
        assert!(config.check().is_ok());
        assert_eq!(config.effective_reserved(), 0);
    }
}
