//! What `Debug` of a configuration shows of headers and URLs.

use std::fmt;

use ureq::http::HeaderName;

use crate::safe_url::SafeUrl;

/// Shows the names of headers without their values.
pub(super) struct HeaderNames<'a>(pub(super) &'a [(String, String)]);

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
pub(super) struct SafeUrls<'a>(pub(super) &'a [String]);

impl fmt::Debug for SafeUrls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|url| SafeUrl::from(url.as_str()))).finish()
    }
}
