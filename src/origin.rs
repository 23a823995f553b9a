//! The origin of a URL: scheme, host and port (RFC 6454, section 4). Also recognises URLs in canonical form.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Scheme, host and port of an http or https URL. Cheap to clone and to hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Hash of the other fields. Stored because each fetch looks its origin up several times.
    key: u64,
    pub(crate) is_tls: bool,
    pub(crate) port: u16,
    /// Host in lower case. An IPv6 address is in brackets.
    pub(crate) host: Arc<str>,
}

impl Origin {
    pub(crate) fn new(is_tls: bool, host: &str, port: u16) -> Self {
        // With std's fixed keys, not random ones: the key is compared with those of other origins and of other maps.
        let mut hasher = DefaultHasher::new();
        (is_tls, host, port).hash(&mut hasher);
        Self { key: hasher.finish(), is_tls, port, host: host.into() }
    }

    /// The origin of `text`, if it is an http or https URL that a URL parser would not change. `None` for all others, and also
    /// for canonical URLs that this check does not recognise.
    ///
    /// Parsing takes four times as long as this check, and most URLs are in canonical form.
    pub(crate) fn of_canonical(text: &str) -> Option<Self> {
        let (is_tls, rest) = match text.strip_prefix("http://") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("https://")?),
        };
        // Without a path a parser adds one: `http://host` becomes `http://host/` (WHATWG URL, section 4.4).
        // By their bytes: a search for a character takes longer in texts as short as these.
        let (authority, path) = rest.split_at(rest.bytes().position(|byte| byte == b'/')?);
        let default = if is_tls { 443 } else { 80 };
        let (host, port) = match authority.bytes().position(|byte| byte == b':') {
            // A parser removes the port that is the scheme's default.
            Some(at) => (&authority[..at], parse_port(&authority[at + 1..]).filter(|port| *port != default)?),
            None => (authority, default),
        };
        (is_canonical_host(host) && is_canonical_path(path)).then(|| Self::new(is_tls, host, port))
    }

    /// Host and port, as a `CONNECT` request and errors name them.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A hash of the origin: equal origins have equal keys.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }
}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.key);
    }
}

/// Parses a port in canonical form, without leading zeros.
fn parse_port(text: &str) -> Option<u16> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_canonical)
}

fn is_canonical_host(host: &str) -> bool {
    let bytes = host.as_bytes();
    let is_usual = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    // `xn--` begins a label in Punycode (RFC 5890, section 2.3.2.1), which a parser decodes and may refuse.
    if bytes.is_empty() || !bytes.iter().all(is_usual) || bytes.windows(4).any(|label| label == b"xn--") {
        return false;
    }
    // WHATWG URL, "ends in a number": such a host is parsed as an IPv4 address, in one of several notations.
    let rooted = bytes.strip_suffix(b".").unwrap_or(bytes);
    let last = &rooted[rooted.iter().rposition(|byte| *byte == b'.').map_or(0, |dot| dot + 1)..];
    if last.first().is_some_and(u8::is_ascii_digit) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    !last.is_empty()
}

/// True for a path and query without anything that a parser would escape, resolve or cut off.
fn is_canonical_path(path: &str) -> bool {
    let mut before = [0; 2];
    path.bytes().all(|byte| {
        let is_fine = match byte {
            // A dot after a slash may begin the segment "." or "..", which a parser resolves.
            b'.' => before[1] != b'/',
            // "%2e" is an escaped dot, which a parser resolves too.
            b'e' | b'E' => before != *b"%2",
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'~' | b'!' | b'$' | b'&' => true,
            b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'%' | b'?' => true,
            _ => false,
        };
        before = [before[1], byte];
        is_fine
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use url::Url;

    #[test]
    fn usual_urls_are_recognised_without_a_parse() {
        for (text, host, port) in [
            ("http://host/", "host", 80),
            ("https://cdn-7.example.com/a/b.mp3?token=x%20y&e=9", "cdn-7.example.com", 443),
            ("http://127.0.0.1:8080/some/path/a.mp3", "127.0.0.1", 8080),
        ] {
            let origin = Origin::of_canonical(text).unwrap();
            assert_eq!((&*origin.host, origin.port), (host, port));
            assert_eq!(origin.is_tls, text.starts_with("https"));
        }
    }

    #[test]
    fn urls_that_a_parser_would_change_or_refuse_are_not_recognised() {
        for text in [
            "http://host",
            "HTTP://host/",
            "http://Host/",
            "http://host:80/",
            "http://host:080/",
            "http://host:99999/",
            "http://host:/",
            "http://user@host/",
            "http://127.1/",
            "http://0x7f.0.0.1/",
            "http://127.0.0.01/",
            "http://host/a/../b",
            "http://host/a/%2E%2e/b",
            "http://host/a b",
            "http://host/a#b",
            "http://host/a\\b",
            "http:///a",
            "http://./",
            "http://xn--a/",
            "ftp://host/",
            "/a",
        ] {
            assert_eq!(Origin::of_canonical(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_parser_does_not_change_a_canonical_url(
            text in "https?://[a-z0-9.:x-]{1,16}(/[a-z0-9.%2eE?=&'~^|`{}\\[\\]\"@:;,-]{0,6}){0,4}",
        ) {
            if let Some(origin) = Origin::of_canonical(&text) {
                let url = Url::parse(&text).unwrap();
                prop_assert_eq!(url.as_str(), &text);
                prop_assert_eq!(url.host_str(), Some(&*origin.host));
                prop_assert_eq!(url.port_or_known_default(), Some(origin.port));
            }
        }

        #[test]
        fn equal_origins_have_equal_keys(host in "[a-z]{1,2}", port in 1..4_u16) {
            let (one, other) = (Origin::new(false, &host, port), Origin::new(false, &host, port));
            prop_assert_eq!(one.key(), other.key());
            prop_assert_eq!(one, other);
        }
    }
}
