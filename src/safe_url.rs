//! URLs whose `Display` and `Debug` show no secret. All code that stores a URL, or an invalid one, uses these types.
//!
//! Signed queries and passwords reach logs through `{}` and `{:?}` of whatever holds the URL. So the types here have no
//! `Deref`, no `AsRef<str>` and no `Into<String>`: only `expose` returns the real text, which is easy to search for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use ureq::http::Uri;
use url::{ParseError, Position, Url};

use crate::origin::Origin;

/// Maximum length of a query field's name that is shown. A longer one may be a value.
const MAX_NAME_LEN: usize = 32;

/// A URL, or a text that is not a valid URL, whose `Display` and `Debug` show no secret.
///
/// `Display` and `Debug` leave out the user and the password, the values of the query and the fragment. Names of query
/// fields, host and path are shown. Of a text that is not a valid URL only the scheme is shown: the rest may be a password.
///
/// ```
/// use windway::SafeUrl;
///
/// let url = SafeUrl::from("https://me:secret@host/a.mp3?token=1234&e=99#x");
/// assert_eq!(url.to_string(), "https://host/a.mp3?token=…&e=…#…");
/// assert_eq!(format!("{url:?}"), "\"https://host/a.mp3?token=…&e=…#…\"");
/// assert_eq!(url.expose(), "https://me:secret@host/a.mp3?token=1234&e=99#x");
/// assert_eq!(SafeUrl::from("http://me:secret@").to_string(), "http://…");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SafeUrl(Text);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Text {
    Http(HttpUrl),
    /// A URL with another scheme.
    Url(Arc<Url>),
    /// Not a URL.
    Other(Arc<str>),
}

/// An absolute URL with the scheme `http` or `https`: one that can be requested. Shows as much as [`SafeUrl`] does. Cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct HttpUrl(Arc<Parts>);

struct Parts {
    text: Box<str>,
    origin: Origin,
    /// The URI that is requested. `None` if it is longer than ureq allows.
    uri: Option<Uri>,
    /// It names a user or a password.
    has_userinfo: bool,
    /// The parsed URL. Parsed when it is first needed; sending a request does not need it.
    url: OnceLock<Url>,
}

impl SafeUrl {
    /// The whole text, with all its secrets. Do not log it.
    pub fn expose(&self) -> &str {
        match &self.0 {
            Text::Http(url) => &url.0.text,
            Text::Url(url) => url.as_str(),
            Text::Other(text) => text,
        }
    }

    pub(crate) fn parsed(text: &str) -> Result<Self, ParseError> {
        match HttpUrl::of_canonical(text) {
            Some(url) => Ok(Self(Text::Http(url))),
            None => Url::parse(text).map(Self::of),
        }
    }

    fn of(url: Url) -> Self {
        Self(match HttpUrl::of_parsed(url) {
            Ok(url) => Text::Http(url),
            Err(other) => Text::Url(Arc::new(other)),
        })
    }
}

impl From<&str> for SafeUrl {
    fn from(text: &str) -> Self {
        Self::parsed(text).unwrap_or_else(|_| Self(Text::Other(text.into())))
    }
}

impl From<String> for SafeUrl {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&Self> for SafeUrl {
    fn from(url: &Self) -> Self {
        url.clone()
    }
}

impl From<&HttpUrl> for SafeUrl {
    fn from(url: &HttpUrl) -> Self {
        Self(Text::Http(url.clone()))
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Text::Http(url) => redact(url.expose(), f),
            Text::Url(url) => redact(url, f),
            Text::Other(text) => {
                // A text such as "user:password@host" has no scheme.
                let scheme = text.split_once("://").map(|(scheme, _)| scheme);
                let scheme = scheme.filter(|scheme| is_scheme(scheme)).map(|scheme| (scheme, "://"));
                let (scheme, colon) = scheme.unwrap_or_default();
                write!(f, "{scheme}{colon}…")
            }
        }
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl HttpUrl {
    /// `None` if `url` can't be requested.
    pub(crate) fn of(url: &SafeUrl) -> Option<Self> {
        match &url.0 {
            Text::Http(url) => Some(url.clone()),
            _ => None,
        }
    }

    fn of_canonical(text: &str) -> Option<Self> {
        let origin = Origin::of_canonical(text)?;
        let uri = text.parse().ok();
        // The host of a canonical URL follows its scheme.
        let (has_userinfo, url) = (false, OnceLock::new());
        Some(Self(Arc::new(Parts { text: text.into(), origin, uri, has_userinfo, url })))
    }

    /// Returns the URL as the error if it can't be requested.
    fn of_parsed(url: Url) -> Result<Self, Url> {
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(url),
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(url) };
        let origin = Origin::new(is_tls, host, port);
        // A fragment is not sent (RFC 9110, section 7.1).
        let uri = url[..Position::AfterQuery].parse().ok();
        let has_userinfo = !url.username().is_empty() || url.password().is_some();
        Ok(Self(Arc::new(Parts { text: url.as_str().into(), origin, uri, has_userinfo, url: url.into() })))
    }

    /// Resolves `reference` against this URL (RFC 3986, section 5).
    pub(crate) fn join(&self, reference: &str) -> Result<SafeUrl, ParseError> {
        self.expose().join(reference).map(SafeUrl::of)
    }

    /// The same URL after `change`, which keeps the scheme and the host.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Url)) -> Self {
        let mut url = self.expose().clone();
        change(&mut url);
        Self::of_parsed(url).unwrap_or_else(|_| unreachable!("scheme and host are as they were"))
    }

    /// The whole URL, with all its secrets. Do not log it.
    pub(crate) fn expose(&self) -> &Url {
        self.0.url.get_or_init(|| {
            Url::parse(&self.0.text).unwrap_or_else(|_| unreachable!("a canonical URL is a valid one"))
        })
    }

    /// The text of the whole URL, with all its secrets. Do not log it.
    pub(crate) fn expose_text(&self) -> &str {
        &self.0.text
    }

    /// The URI that is requested, with all its secrets. `None` if the URL is longer than ureq allows.
    pub(crate) fn expose_uri(&self) -> Option<&Uri> {
        self.0.uri.as_ref()
    }

    /// True if it names a user or a password.
    pub(crate) fn has_userinfo(&self) -> bool {
        self.0.has_userinfo
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }
}

impl PartialEq for HttpUrl {
    fn eq(&self, other: &Self) -> bool {
        // Clones are the usual case, and signed URLs are long.
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for HttpUrl {}

impl Hash for HttpUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact(self.expose(), f)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn redact(url: &Url, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if !url.has_authority() {
        // "user:password" parses as a URL with the scheme "user".
        let is_known = matches!(url.scheme(), "about" | "blob" | "data" | "file" | "javascript" | "mailto");
        return if is_known { write!(f, "{}:…", url.scheme()) } else { f.write_str("…") };
    }
    // From the host on: the user and the password are before it (RFC 3986, section 3.2.1).
    write!(f, "{}://{}", url.scheme(), &url[Position::BeforeHost..Position::AfterPath])?;
    if let Some(query) = url.query() {
        f.write_str("?")?;
        redact_query(query, f)?;
    }
    if url.fragment().is_some() {
        f.write_str("#…")?;
    }
    Ok(())
}

fn redact_query(query: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, field) in query.split('&').enumerate() {
        if index > 0 {
            f.write_str("&")?;
        }
        match field.split_once('=') {
            // Without a value the name may be the secret, for example in "c2VjcmV0==", which is base64.
            Some((name, value)) if is_name(name) && value.bytes().any(|byte| byte != b'=') => {
                write!(f, "{name}=…")?;
            }
            _ if field.is_empty() => {}
            _ => f.write_str("…")?,
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME_LEN && name.bytes().all(is_usual)
}

/// True for a scheme (RFC 3986, section 3.1) of at most 8 characters.
fn is_scheme(text: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    // A longer text may be a secret that stands where a scheme is expected.
    text.len() <= 8
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(is_usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        SafeUrl::from(text).to_string()
    }

    #[test]
    fn host_path_and_names_are_shown_but_no_values() {
        for (text, expected) in [
            ("http://host", "http://host/"),
            ("https://u:p@host:8443/a/b.mp3?token=s&e=1#f", "https://host:8443/a/b.mp3?token=…&e=…#…"),
            ("http://[::1]:80/a?x[0]=1&y=", "http://[::1]/a?x[0]=…&…"),
            ("http://host/?s3cr3t", "http://host/?…"),
            ("http://host/?c2VjcmV0==", "http://host/?…"),
            ("http://host/?", "http://host/?"),
            ("ftp://u:p@host/a?b=c", "ftp://host/a?b=…"),
            ("file:///etc/passwd", "file:///etc/passwd"),
            ("data:text/plain,secret", "data:…"),
            ("user:password@host/stream", "…"),
            ("user:password/with@host", "…"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn of_an_invalid_url_only_the_scheme_is_shown() {
        for (text, expected) in [
            ("http://user:pass@", "http://…"),
            ("http://user:pa?ss@host:99999/", "http://…"),
            ("http://user:pa/ss@host/", "http://…"),
            ("password", "…"),
            ("/a?token=secret", "…"),
            ("", "…"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
            assert_eq!(SafeUrl::from(text).expose(), text);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |text: &str| HttpUrl::of(&text.into()).map(|url| url.origin().clone());
        assert_eq!(of("http://Host/a"), of("http://host:80/b?c"));
        assert_eq!(of("http://host/a"), of("http://user:pw@host:80/#c"));
        assert_ne!(of("http://host/"), of("https://host/"));
        assert_ne!(of("http://host/"), of("http://host:8080/"));
        assert_eq!(of("ftp://host/"), None);
    }

    #[test]
    fn a_url_is_requested_without_its_fragment() {
        let uri =
            |text: &str| HttpUrl::of(&text.into()).and_then(|url| url.expose_uri().map(ToString::to_string));
        assert_eq!(uri("http://host/a?b#c").as_deref(), Some("http://host/a?b"));
        assert_eq!(uri("http://host/a?b").as_deref(), Some("http://host/a?b"));
        assert_eq!(uri("http://host").as_deref(), Some("http://host/"));
        assert_eq!(uri(&format!("http://host/{}", "a".repeat(70_000))), None);
    }

    proptest! {
        #[test]
        fn no_password_value_or_fragment_is_shown(secret in "[A-Z]{8,16}", name in "[a-z]{1,8}", port in any::<u32>()) {
            for text in [
                format!("http://user:{secret}@host:{port}/a?b=c"),
                format!("http://{secret}@host:{port}/a"),
                format!("http://host:{port}/a?{name}={secret}&x={secret}"),
                format!("http://host:{port}/a?{secret}#{secret}"),
                format!("//user:{secret}@host:{port}/"),
                format!("user:{secret}@host:{port}/"),
            ] {
                prop_assert!(!shown(&text).to_lowercase().contains(&secret.to_lowercase()), "{}", text);
            }
        }
    }
}
