//! The proxy of a client: which hosts are reached through it, and tunnels through it by HTTP or SOCKS.
//!
//! Every connection through a proxy is a tunnel to one origin, also for http, and is pooled as a connection to that origin. So a
//! proxy never sees a request in plain text unless the origin speaks http, and never gets a header that is meant for the origin.

mod connect;
mod no_proxy;
mod socks;
mod tunnel;

use std::fmt;

use percent_encoding::percent_decode_str;
use ureq::Timeout;
use url::Url;

use self::connect::HttpProxy;
use self::no_proxy::NoProxy;
use self::tunnel::Tunnel;
use super::h1::transport::{Carrier, HandshakeLimit, carry};
use crate::config::ClientConfig;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// The registered port of SOCKS (RFC 1928, section 3).
const SOCKS_PORT: u16 = 1080;

/// The proxy through which a client opens its connections.
pub(super) struct Proxy {
    /// Of the proxy itself. TLS, if the connection to the proxy is encrypted.
    origin: Origin,
    protocol: Protocol,
    excluded: NoProxy,
}

enum Protocol {
    Http(HttpProxy),
    Socks(Option<socks::Credentials>),
}

impl Proxy {
    /// The configured proxy. `None` if there is none.
    pub(super) fn new(config: &ClientConfig) -> Result<Option<Self>, Error> {
        let wrong = |field: &str, why: &str| {
            Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::{field} {why}"))
        };
        let Some(text) = &config.proxy else { return Ok(None) };
        // Without the cause: it may quote the password.
        let url = Url::parse(text).map_err(|_| wrong("proxy", "is not a URL"))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        // `Url` makes the hosts of http and https URLs lower case, but not those of other schemes.
        let host = host.ok_or_else(|| wrong("proxy", "names no host"))?.to_ascii_lowercase();
        let port = url.port_or_known_default().unwrap_or(SOCKS_PORT);
        let origin = Origin::new(url.scheme() == "https", &host, port);
        let credentials = credentials(&url);
        let protocol = match url.scheme() {
            "http" | "https" => {
                Protocol::Http(HttpProxy::new(&origin, credentials.as_ref(), &config.user_agent))
            }
            "socks5" | "socks5h" => {
                // RFC 1929, section 2: the length of each is one byte.
                let is_long = |(user, password): &socks::Credentials| user.len().max(password.len()) > 255;
                if credentials.as_ref().is_some_and(is_long) {
                    return Err(wrong("proxy", "has a user or a password that is too long for SOCKS"));
                }
                Protocol::Socks(credentials)
            }
            _ => return Err(wrong("proxy", "is not an http, https or socks5 URL")),
        };
        let excluded = NoProxy::new(&config.no_proxy);
        let excluded =
            excluded.ok_or_else(|| wrong("no_proxy", "has an entry that is neither a host nor a network"))?;
        Ok(Some(Self { origin, protocol, excluded }))
    }

    /// True if connections to `origin` go through this proxy.
    pub(super) fn serves(&self, origin: &Origin) -> bool {
        !self.excluded.contains(&origin.host)
    }

    /// Host and port, without credentials.
    pub(super) fn name(&self) -> String {
        self.origin.authority()
    }

    /// The origin of the proxy itself.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Requests a tunnel to `origin` over `carrier`, a new connection to this proxy. Blocks until the proxy answers, for at
    /// most `limit`.
    pub(super) fn open<T: Carrier>(
        &self,
        mut carrier: T,
        origin: &Origin,
        limit: HandshakeLimit,
    ) -> Result<Tunnel<T>, ureq::Error> {
        let name = self.name();
        let opened = match &self.protocol {
            Protocol::Http(http) => http.open(&mut carrier, origin, limit),
            Protocol::Socks(credentials) => {
                socks::open(&mut carrier, &name, credentials.as_ref(), origin, limit)
            }
        };
        match opened {
            Ok(()) => Ok(Tunnel::new(carrier)),
            Err(ureq::Error::Timeout(Timeout::Connect)) => {
                let (to, limit) = (origin.authority(), limit.whole());
                let why = format!("the proxy {name} did not open a tunnel to {to} within {limit:?}");
                Err(carry(Error::new(ErrorKind::ConnectTimedOut, why)))
            }
            Err(error) => Err(error),
        }
    }
}

/// User and password of a URL.
fn credentials(url: &Url) -> Option<socks::Credentials> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((plain(url.username()), plain(url.password().unwrap_or_default())))
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the protocol, which has the credentials.
        f.debug_struct("Proxy")
            .field("origin", &self.origin)
            .field("excluded", &self.excluded)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(proxy: &str) -> Result<Proxy, Error> {
        Proxy::new(&ClientConfig::new().proxy(proxy.to_owned())).map(Option::unwrap)
    }

    #[test]
    fn the_scheme_of_a_proxy_decides_its_protocol_and_port() {
        for (text, is_tls, host, port, is_socks) in [
            ("http://proxy.test:3128", false, "proxy.test", 3128, false),
            ("https://Proxy.test/", true, "proxy.test", 443, false),
            ("socks5://127.0.0.1", false, "127.0.0.1", 1080, true),
            ("socks5h://[::1]:9050", false, "[::1]", 9050, true),
        ] {
            let proxy = parse(text).unwrap();
            assert_eq!(proxy.origin, Origin::new(is_tls, host, port), "{text}");
            assert_eq!(matches!(proxy.protocol, Protocol::Socks(_)), is_socks, "{text}");
        }
    }

    #[test]
    fn a_wrong_proxy_is_an_error_that_shows_no_secret() {
        let long = format!("socks5://{}:secret@host", "a".repeat(256));
        for text in
            ["proxy.test:3128", "ftp://u:secret@host", "socks4://u:secret@host", "http://u:secret@", &long]
        {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("ClientConfig::proxy") && !shown.contains("secret"), "{shown}");
        }
        let config = ClientConfig::new().proxy("http://host".to_owned()).no_proxy(["a b".to_owned()]);
        assert!(Proxy::new(&config).unwrap_err().to_string().contains("no_proxy"));
    }
}
