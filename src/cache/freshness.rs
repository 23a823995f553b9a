//! What may be stored, and for how long it is used without asking (RFC 9111). Pure: header fields and times in, a decision out.
//!
//! windway's cache is a private one: it belongs to one user. There are no heuristics: a response without `max-age` and
//! `Expires` is stale at once, which means that it is played and validated by its first request.
//!
//! | response | what happens |
//! |---|---|
//! | `no-store` | not stored, unless [`keep_no_store`](Policy::keep_no_store) |
//! | answer to a request with `Authorization`, without `public` | not stored, unless [`keep_authorized`](Policy::keep_authorized) |
//! | neither strong `ETag` nor a `Last-Modified` of a minute before `Date` | not stored, unless [`keep_unvalidated`](Policy::keep_unvalidated) |
//! | `Vary: *`, or a field that the application or its hook sends, or `Cookie`, `Authorization` | not stored: the answer is for one request |
//! | `Vary` with other fields | stored: windway sends the same ones, or none, with every request of a program |
//! | `private` | stored |
//! | `max-age`, else `Expires` less `Date`, less `Age` | fresh for this long; `s-maxage` is for shared caches |
//! | `no-cache` | used only after the server has confirmed it |
//! | `must-revalidate` | the same once it is stale |

use std::time::{Duration, SystemTime};

use super::format::Stamp;

/// What the application allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) keep_no_store: bool,
    pub(crate) keep_authorized: bool,
    pub(crate) keep_unvalidated: bool,
}

/// What a response and its request say about storing it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange<'a> {
    /// All `Cache-Control` fields, joined by commas.
    pub(crate) cache_control: &'a str,
    /// All `Vary` fields, joined by commas.
    pub(crate) vary: &'a str,
    pub(crate) expires: Option<&'a str>,
    pub(crate) date: Option<&'a str>,
    pub(crate) age: Option<&'a str>,
    /// A strong entity tag, or a date of the last change that is strong as well: parts that were stored at different times may only
    /// be joined by one of these (RFC 9110, section 15.3.7.3).
    pub(crate) has_validator: bool,
    /// The request had `Authorization`.
    pub(crate) is_authorized: bool,
    /// Names, in lower case, of header fields that the application has added to the request.
    pub(crate) added: &'a [String],
}

/// How an entry may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It is played without a request.
    Fresh,
    /// It is played at once, and validated meanwhile.
    Stale,
    /// It is played only after the server has confirmed it.
    Confirmed,
}

impl Exchange<'_> {
    /// Why the response may not be stored.
    pub(crate) fn refusal(&self, policy: Policy) -> Option<&'static str> {
        if self.directive("no-store").is_some() && !policy.keep_no_store {
            return Some("no-store");
        }
        let is_public = self.directive("public").is_some();
        // RFC 9111, section 3.5, asks this of shared caches only. Here it keeps the media of an account off the disk unless the
        // application asks for them.
        if self.is_authorized && !is_public && !policy.keep_authorized {
            return Some("an answer to a request with Authorization");
        }
        if !self.has_validator && !policy.keep_unvalidated {
            return Some("neither a strong entity tag nor a strong date");
        }
        let is_ours = |name: &str| {
            name == "*"
                || ["cookie", "authorization"].contains(&name)
                || self.added.iter().any(|added| added == name)
        };
        // RFC 9111, section 4.1: a stored response is for requests with the same values of these fields, and values are not
        // stored.
        list(self.vary).any(|name| is_ours(&name.to_ascii_lowercase())).then_some("Vary")
    }

    /// For how long the response is fresh, from `now` on.
    pub(crate) fn stamp(&self, now: SystemTime) -> Stamp {
        // It may be stored, and is validated before each use (RFC 9111, section 5.2.2.4).
        let is_unusable = self.directive("no-cache").is_some();
        let fresh_for = self.lifetime().saturating_sub(self.current_age(now));
        Stamp {
            validated_at: seconds(now),
            fresh_for: if is_unusable { 0 } else { fresh_for },
            must_revalidate: is_unusable || self.directive("must-revalidate").is_some(),
        }
    }

    /// RFC 9111, section 4.2.1.
    fn lifetime(&self) -> u64 {
        if let Some(max_age) = self.directive("max-age") {
            // One that is no number makes the response stale.
            // RFC 9111, section 5.2: the value may be quoted.
            return delta_seconds(max_age.trim_matches('"')).unwrap_or(0);
        }
        let Some(expires) = self.expires.and_then(parse_date) else { return 0 };
        // Without a `Date` of the server's clock nothing says how long this is from now: stale at once.
        let date = self.date.and_then(parse_date).unwrap_or(expires);
        expires.duration_since(date).map_or(0, |fresh| fresh.as_secs())
    }

    /// RFC 9111, section 4.2.3.
    fn current_age(&self, now: SystemTime) -> u64 {
        // RFC 9111, section 5.1: of several the first counts, and one that is no number is ignored.
        let age = self.age.and_then(|age| list(age).next()).and_then(delta_seconds).unwrap_or(0);
        let apparent = self.date.and_then(parse_date).and_then(|date| now.duration_since(date).ok());
        apparent.map_or(0, |apparent| apparent.as_secs()).max(age)
    }

    /// The value of a directive. Of one that came several times the first is taken.
    fn directive(&self, name: &str) -> Option<&str> {
        // RFC 9111, section 4.2.1: of contradicting directives the first occurrence is used.
        list(self.cache_control).find_map(|directive| {
            let (found, value) = directive.split_once('=').unwrap_or((directive, ""));
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Stamp {
    /// How the entry may be used at `now`. `max_age` limits how long ago it was confirmed.
    pub(crate) fn usable(&self, now: SystemTime, max_age: Option<Duration>) -> Use {
        // The clock was set back, so the age is not known.
        let Some(age) = seconds(now).checked_sub(self.validated_at) else { return Use::Confirmed };
        if age < self.fresh_for {
            return Use::Fresh;
        }
        let is_too_old = max_age.is_some_and(|max_age| age > max_age.as_secs());
        if self.must_revalidate || is_too_old { Use::Confirmed } else { Use::Stale }
    }
}

fn parse_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// A number of seconds (RFC 9111, section 1.2.2). `None` if the text is no number.
fn delta_seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // One that is too large to represent counts as the largest one.
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The members of a list (RFC 9110, section 5.6.1).
fn list(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    // RFC 9110, section 5.6.4: a comma in a quoted string is a part of it, and a backslash takes the next character literally.
    let members = text.split(move |c| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match c {
            _ if was_escaped => {}
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == ',' && !is_quoted
    });
    members.map(str::trim).filter(|member| !member.is_empty())
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const HOUR_LATER: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

    fn at(seconds_later: u64) -> SystemTime {
        parse_date(DATE).unwrap() + Duration::from_secs(seconds_later)
    }

    fn exchange(cache_control: &str) -> Exchange<'_> {
        Exchange { cache_control, date: Some(DATE), has_validator: true, ..Exchange::default() }
    }

    #[test]
    fn freshness_is_what_the_server_says_and_no_more() {
        let fresh_for = |exchange: Exchange<'_>, later| exchange.stamp(at(later)).fresh_for;
        assert_eq!(fresh_for(exchange("max-age=600"), 0), 600);
        assert_eq!(fresh_for(exchange("public, Max-Age=600"), 100), 500);
        assert_eq!(fresh_for(exchange("max-age=600"), 1000), 0);
        assert_eq!(fresh_for(Exchange { age: Some("450"), ..exchange("max-age=600") }, 100), 150);
        // For shared caches.
        assert_eq!(fresh_for(exchange("s-maxage=600"), 0), 0);
        assert_eq!(fresh_for(exchange("max-age=soon"), 0), 0);
        let expires = |expires| Exchange { expires: Some(expires), ..exchange("") };
        assert_eq!(fresh_for(expires(HOUR_LATER), 0), 3600);
        assert_eq!(fresh_for(expires(HOUR_LATER), 600), 3000);
        assert_eq!((fresh_for(expires("0"), 0), fresh_for(expires(DATE), 0)), (0, 0));
        let both = Exchange { expires: Some(HOUR_LATER), ..exchange("max-age=5") };
        assert_eq!(fresh_for(both, 0), 5);
        assert_eq!(fresh_for(exchange(""), 0), 0);
    }

    #[test]
    fn numbers_out_of_bounds_and_none_are_read_as_the_standard_says() {
        let fresh_for = |exchange: Exchange<'_>| exchange.stamp(at(0)).fresh_for;
        let huge = "99999999999999999999999";
        // RFC 9111, section 1.2.2: too much to represent is as much as can be represented.
        assert!(fresh_for(exchange(&format!("max-age={huge}"))) >= 1 << 31);
        let aged = |age| Exchange { age: Some(age), ..exchange("max-age=600") };
        assert_eq!(fresh_for(aged(huge)), 0);
        // Section 5.1: the first of several, and none that is no number.
        assert_eq!(fresh_for(aged("450, 20")), 150);
        for none in ["-1", "soon", "", "+5"] {
            assert_eq!(fresh_for(aged(none)), 600, "{none}");
        }
        for none in ["-5", "+5", "0x10", "5.5", "", "\"", "5 5"] {
            assert_eq!(fresh_for(exchange(&format!("max-age={none}"))), 0, "{none}");
        }
        assert_eq!(fresh_for(exchange("max-age=\"60\"")), 60);
        // Of contradicting ones the first counts.
        assert_eq!(fresh_for(exchange("max-age=5, max-age=600")), 5);
    }

    #[test]
    fn a_comma_in_a_quoted_text_separates_nothing() {
        let quoted = exchange("private=\"a, max-age=600, no-store, b\"");
        assert_eq!((quoted.stamp(at(0)).fresh_for, quoted.refusal(Policy::default())), (0, None));
        assert_eq!(exchange("x=\"a\\\"b, \", max-age=600").stamp(at(0)).fresh_for, 600);
        // One without an end: what follows may belong to it.
        assert_eq!(exchange("x=\"a, max-age=600").stamp(at(0)).fresh_for, 0);
    }

    #[test]
    fn a_stale_entry_is_used_unless_the_server_or_the_application_forbids_it() {
        let hour = Some(Duration::from_secs(3600));
        let usable = |control, later, max_age| exchange(control).stamp(at(0)).usable(at(later), max_age);
        assert_eq!(usable("max-age=600", 599, hour), Use::Fresh);
        assert_eq!(usable("max-age=600", 600, hour), Use::Stale);
        assert_eq!(usable("max-age=600", 3601, hour), Use::Confirmed);
        assert_eq!(usable("max-age=7200", 3601, hour), Use::Fresh);
        assert_eq!(usable("max-age=600", 1 << 39, None), Use::Stale);
        assert_eq!(usable("", 0, hour), Use::Stale);
        assert_eq!(usable("no-cache, max-age=600", 0, hour), Use::Confirmed);
        assert_eq!(usable("max-age=600, must-revalidate", 0, hour), Use::Fresh);
        assert_eq!(usable("max-age=600, must-revalidate", 600, hour), Use::Confirmed);
        let stamp = exchange("max-age=600").stamp(at(100));
        assert_eq!(stamp.usable(at(99), None), Use::Confirmed);
    }

    #[test]
    fn what_is_not_for_a_cache_is_not_stored_unless_the_application_wants_it() {
        let refusal = |exchange: Exchange<'_>| exchange.refusal(Policy::default());
        let anything = Policy { keep_no_store: true, keep_authorized: true, keep_unvalidated: true };
        for (exchange, is_for_good) in [
            (exchange("max-age=5, No-Store"), false),
            (Exchange { is_authorized: true, ..exchange("private") }, false),
            (Exchange { has_validator: false, ..exchange("") }, false),
            (Exchange { vary: "Accept-Encoding, *", ..exchange("") }, true),
            (Exchange { vary: "Cookie", ..exchange("") }, true),
            (Exchange { vary: "X-Player", added: &["x-player".into()], ..exchange("") }, true),
        ] {
            assert!(refusal(exchange.clone()).is_some(), "{exchange:?}");
            assert_eq!(exchange.refusal(anything).is_some(), is_for_good, "{exchange:?}");
        }
        for exchange in [
            exchange("private"),
            exchange("no-cache"),
            Exchange { is_authorized: true, ..exchange("public") },
            Exchange { vary: "Accept-Encoding, Origin, User-Agent", ..exchange("") },
        ] {
            assert_eq!(refusal(exchange.clone()), None, "{exchange:?}");
        }
    }
}
