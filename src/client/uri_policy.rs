//! Whether a playlist may send its reader to a URL.

use url::{Host, Url};

use super::net::private::is_private as is_private_address;
use crate::error::{Error, ErrorKind};

/// Where the URIs of a playlist may lead. A playlist is input from a stranger: without limits it could make the reader
/// request addresses of its own network, or drop the encryption that the user chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UriPolicy {
    /// An https playlist may name http resources.
    pub(crate) allow_http: bool,
    /// A playlist from a public host may name private addresses.
    pub(crate) allow_private: bool,
}

impl UriPolicy {
    /// Resolves `uri` against the URL of its playlist, after redirects.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`]; [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::Forbidden`].
    #[cfg(any(feature = "hls", feature = "queue", test))]
    pub(crate) fn resolve(self, playlist: &Url, uri: &str) -> Result<Url, Error> {
        let url = playlist.join(uri).map_err(|cause| {
            Error::new(ErrorKind::InvalidUrl, "the playlist contains an invalid URI").with_cause(cause)
        })?;
        self.check(playlist, &url)?;
        Ok(url)
    }

    /// Refuses `url`, which the playlist at `playlist` names, or to which `playlist` redirects.
    pub(crate) fn check(self, playlist: &Url, url: &Url) -> Result<(), Error> {
        let refused = |kind, why: &str| Err(Error::new(kind, why).with_url(url.as_str()));
        if !matches!(url.scheme(), "http" | "https") {
            return refused(ErrorKind::UnsupportedScheme, "a playlist may name http and https URLs only");
        }
        if playlist.scheme() == "https" && url.scheme() == "http" && !self.allow_http {
            return refused(ErrorKind::Forbidden, "an https playlist may not lead to http URLs");
        }
        if is_private(url) && !is_private(playlist) && !self.allow_private {
            return refused(ErrorKind::Forbidden, "a public playlist may not lead to private addresses");
        }
        Ok(())
    }
}

/// True for addresses that only this machine or its network can reach.
fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            // Names are not looked up here: one that resolves to a private address is refused when the connection is made. A dot at
            // the end only marks the name as complete (RFC 1034, section 3.1).
            let name = name.trim_end_matches('.');
            // RFC 6761, section 6.3: `localhost` is the loopback address. RFC 6762, section 3: `.local` is the local link.
            name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local")
        }
        Some(Host::Ipv4(address)) => is_private_address(address.into()),
        Some(Host::Ipv6(address)) => is_private_address(address.into()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(policy: UriPolicy, playlist: &str, uri: &str) -> Result<String, ErrorKind> {
        let playlist = Url::parse(playlist).unwrap();
        policy.resolve(&playlist, uri).map(String::from).map_err(|error| error.kind())
    }

    #[test]
    fn relative_uris_refer_to_the_playlist() {
        let policy = UriPolicy::default();
        let from = |uri| resolve(policy, "http://host/a/b/list.m3u8?t=1", uri).unwrap();
        assert_eq!(from("0.ts"), "http://host/a/b/0.ts");
        assert_eq!(from("../0.ts?x=2"), "http://host/a/0.ts?x=2");
        assert_eq!(from("//other/0.ts"), "http://other/0.ts");
    }

    #[test]
    fn a_playlist_leads_to_http_only_and_never_to_less_privacy() {
        let strict = UriPolicy::default();
        let loose = UriPolicy { allow_http: true, allow_private: true };
        let cases = [
            ("https://host/l", "http://host/a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "https://host/a", Ok(()), true),
            ("http://host/l", "file:///etc/passwd", Err(ErrorKind::UnsupportedScheme), false),
            ("http://host/l", "data:text/plain,x", Err(ErrorKind::UnsupportedScheme), false),
            ("http://host/l", "http://127.0.0.1/a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "http://0/a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "http://[::ffff:10.0.0.1]/a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "http://[fd00::1]/a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "http://[fe80::1]/a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "http://169.254.169.254/a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "http://LOCALHOST./a", Err(ErrorKind::Forbidden), true),
            ("http://host/l", "http://100.64.0.1/a", Err(ErrorKind::Forbidden), true),
            ("http://192.168.1.2/l", "http://127.0.0.1/a", Ok(()), true),
            ("http://host/l", "http://8.8.8.8/a", Ok(()), true),
        ];
        for (playlist, uri, wanted, is_allowed) in cases {
            assert_eq!(resolve(strict, playlist, uri).map(drop), wanted, "{uri}");
            assert_eq!(resolve(loose, playlist, uri).is_ok(), is_allowed, "{uri}");
        }
    }
}
