//! `Auth`: credentials.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::HeaderValue;

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
