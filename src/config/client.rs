//! `ClientConfig`: requests and connections.

use std::fmt;
use std::time::Duration;

use super::auth::Auth;
use super::client_certificate::ClientCertificate;
use super::cookies::Cookies;
#[cfg(feature = "http3")]
use super::http3::{EarlyData, Http3};
use super::roots::Roots;
use super::shown::HeaderNames;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::safe_url::SafeUrl;

/// What `ClientConfig::user_agent` is by default.
pub(crate) const DEFAULT_USER_AGENT: &str = concat!("windway/", env!("CARGO_PKG_VERSION"));

/// Options of HTTP requests and connections. Part of [`DownloaderConfig`](crate::DownloaderConfig).
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
    /// Maximum duration of a DNS lookup. It is repeated in parallel after 2 and 4 s without a result: a query may have been lost. A
    /// name that was looked up before is tried at its old addresses after 1.8 s already.
    /// Default: 5 s.
    pub resolve_timeout: Duration,
    /// How long the result of a DNS lookup is reused. Default: 60 s.
    pub resolve_cache: Duration,
    /// Maximum duration of connecting, including the TLS handshake. Default: 10 s.
    pub connect_timeout: Duration,
    /// Maximum time without a byte while the response head or the body is read. It does not limit the whole transfer.
    /// Default: 10 s.
    pub silence_timeout: Duration,
    /// Minimum rate of a body in bytes per second, measured over `silence_timeout` while a read waits for bytes. A
    /// slower body fails with [`ErrorKind::Silent`]. 0 turns the check off. Default: 128, an eighth of the
    /// slowest MP3 (8 kbit/s).
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
    /// Maximum size of a response head in bytes. Over HTTP/1.1 never more than 1 MiB, whatever this says: each connection has a
    /// buffer of this size, if it is larger than the default. Default: 64 KiB.
    pub max_head: usize,
    /// Maximum number of idle connections for each origin. Default: 8. Where more are in use at once, one for each open stream of
    /// the origin is kept, and others for two seconds; none with 0.
    pub max_idle_per_origin: usize,
    /// Maximum number of idle connections over all origins. Default: 32. Where more are in use at once, one for each open stream
    /// is kept, up to 128, and others for two seconds; none with 0.
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
    /// Which requests are sent before the handshake of a QUIC connection is complete. Default: those without header fields of the
    /// program.
    #[cfg(feature = "http3")]
    pub early_data: EarlyData,
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
            // As long as the system's resolver waits for one name server (resolv.conf(5)).
            resolve_timeout: Duration::from_secs(5),
            // `getaddrinfo` does not return the TTL of a record, so the time is fixed.
            resolve_cache: Duration::from_secs(60),
            // A lost SYN is sent again after 1, 3 and 7 s (RFC 6298, sections 2.1 and 5.5), so three more of them fit.
            connect_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(10),
            min_rate: 128,
            auth: Vec::new(),
            proxy: None,
            no_proxy: Vec::new(),
            // As many as ureq and reqwest follow by default.
            max_redirects: 10,
            max_head: 64 * 1024,
            max_idle_per_origin: 8,
            max_idle: 32,
            // nginx closes an idle connection after 75 s, and a load balancer of AWS after 60 s. A request over one that the server
            // is about to close is lost, and has to be sent again.
            max_idle_age: Duration::from_secs(45),
            extra_roots: Vec::new(),
            roots: Roots::BuiltIn,
            client_certificates: Vec::new(),
            cookies: None,
            #[cfg(feature = "http3")]
            http3: Http3::default(),
            #[cfg(feature = "http3")]
            early_data: EarlyData::default(),
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
            #[cfg(feature = "http3")]
            early_data,
        } = self;
        let client_certificates: Vec<SafeUrl> =
            client_certificates.iter().map(|(origin, _)| SafeUrl::from(origin.as_str())).collect();
        let auth: Vec<(SafeUrl, &Auth)> =
            auth.iter().map(|(origin, auth)| (SafeUrl::from(origin.as_str()), auth)).collect();
        let mut shown = f.debug_struct("ClientConfig");
        #[cfg(feature = "http3")]
        shown.field("http3", http3).field("early_data", early_data);
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

    /// Sets [`early_data`](Self#structfield.early_data).
    #[must_use]
    pub fn early_data(mut self, early_data: EarlyData) -> Self {
        self.early_data = early_data;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
