//! A URI as a playlist contains it.

use std::fmt;

use crate::safe_url::SafeUrl;

/// A URI as a playlist contains it, often relative. `Debug` and `Display` show no value of a query, no user and no password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uri(Box<str>);

impl Uri {
    pub(crate) fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The whole text, with its secrets if it has any. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text without query and fragment.
    pub(crate) fn path(&self) -> &str {
        self.0.split(['?', '#']).next().unwrap_or_default()
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 3986, section 4.2: a reference to another host needs no scheme, and may have a user and a password all the same.
        if self.0.starts_with("//") {
            let shown = SafeUrl::from(format!("http:{}", self.0)).to_string();
            return f.write_str(shown.strip_prefix("http:").unwrap_or(&shown));
        }
        if self.0.contains("://") {
            return SafeUrl::from(&*self.0).fmt(f);
        }
        let is_shortened = self.path().len() < self.0.len();
        write!(f, "{}{}", self.path(), if is_shortened { "?…" } else { "" })
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_is_shown() {
        assert_eq!(format!("{:?}", Uri::new("a.ts?token=secret")), "\"a.ts?…\"");
        assert!(!format!("{}", Uri::new("http://u:pw@h/a.ts?token=secret")).contains("secret"));
        assert_eq!(Uri::new("//u:pw@h/a.ts?token=secret").to_string(), "//h/a.ts?token=…");
    }
}
