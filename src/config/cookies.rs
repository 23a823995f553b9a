//! `CookieJar` and `Cookies`.

use std::fmt;
use std::sync::Arc;

use ureq::http::HeaderValue;

use crate::foreign::Foreign;

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

    /// Value of the header `Cookie` for a request to `url`.
    pub(crate) fn header(&self, url: &str) -> Option<HeaderValue> {
        // A panic of the jar is logged already. Without cookies the request may still be served.
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
