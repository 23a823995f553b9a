//! Where origins offer HTTP/3: alternative services (RFC 7838), and which of them don't work at present. Time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::origin::Origin;

/// Most origins that are remembered. When it is reached, the one that expires first is forgotten.
const MAX_ORIGINS: usize = 1024;

/// RFC 7838, section 3.1: an alternative is fresh for a day if its field does not say otherwise.
const DEFAULT_AGE: Duration = Duration::from_secs(24 * 3600);

/// Longest time for which an alternative is remembered. Clients of RFC 7838 may use less than `ma`.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// First and longest time for which an alternative that did not work is not tried. The time doubles with each failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

/// Where an origin offers HTTP/3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alternative {
    /// Host to connect to, if it is not the origin's. The certificate must be the origin's all the same.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

/// The fields of responses, as far as they matter here.
#[derive(Debug, Default)]
pub(crate) struct Alternatives {
    advertised: HashMap<Origin, Advertised>,
    /// By host and port of the QUIC server.
    broken: HashMap<Origin, Broken>,
}

#[derive(Debug)]
struct Advertised {
    alternative: Alternative,
    until: Instant,
    /// It stays valid on another network.
    is_persistent: bool,
}

#[derive(Debug)]
struct Broken {
    failures: u32,
    until: Instant,
}

/// What an `Alt-Svc` field says about HTTP/3.
#[derive(Debug, PartialEq, Eq)]
enum Field {
    Clear,
    Offer {
        alternative: Alternative,
        max_age: Duration,
        is_persistent: bool,
    },
    /// Alternatives of other protocols only.
    Other,
}

impl Alternatives {
    /// Records the `Alt-Svc` field of a response of `origin`, which had been stored by caches for `age`. Only call it for
    /// responses over validated TLS: section 2.1 requires "reasonable assurances" that the origin controls the alternative.
    pub(crate) fn handle_field(&mut self, origin: &Origin, value: &str, age: Duration, now: Instant) {
        match parse(value) {
            Field::Offer { alternative, max_age, is_persistent } => {
                // Section 3.1: it counts from when the response was made, which a cache may have kept for a while.
                let left = max_age.saturating_sub(age).min(MAX_AGE);
                if left.is_zero() {
                    return drop(self.advertised.remove(origin));
                }
                let entry = Advertised { alternative, until: now + left, is_persistent };
                self.advertised.insert(origin.clone(), entry);
                cap(&mut self.advertised, |entry| entry.until);
            }
            // Section 3: a field replaces all alternatives of the origin that were advertised before.
            Field::Clear | Field::Other => drop(self.advertised.remove(origin)),
        }
    }

    /// The alternative of `origin` at `now`, also if it is broken.
    pub(crate) fn get(&self, origin: &Origin, now: Instant) -> Option<&Alternative> {
        let advertised = self.advertised.get(origin).filter(|advertised| now < advertised.until)?;
        Some(&advertised.alternative)
    }

    /// True if QUIC to `target` has failed lately.
    pub(crate) fn is_broken(&self, target: &Origin, now: Instant) -> bool {
        self.broken.get(target).is_some_and(|broken| now < broken.until)
    }

    /// Records that no QUIC handshake with `target` succeeded, while TCP worked.
    pub(crate) fn handle_broken(&mut self, target: &Origin, now: Instant) {
        let failures = self.broken.get(target).map_or(0, |broken| broken.failures);
        // Several requests that fail together count once.
        if !self.is_broken(target, now) {
            // At most 2^16, or the shift would overflow. The maximum is reached before.
            let wait = BACK_OFF.0.saturating_mul(1 << failures.min(16)).min(BACK_OFF.1);
            let broken = Broken { failures: failures + 1, until: now + wait };
            self.broken.insert(target.clone(), broken);
            cap(&mut self.broken, |broken| broken.until);
        }
    }

    /// Records that `target`, an alternative of `origin` or its own server, is not responsible for it.
    pub(crate) fn handle_misdirected(&mut self, origin: &Origin, target: &Origin, now: Instant) {
        // Section 6: the entry has to go. The next response brings it again, mostly, so it counts as one that does not work, too.
        self.advertised.remove(origin);
        self.handle_broken(target, now);
    }

    /// Records that a handshake with `target` succeeded.
    pub(crate) fn handle_works(&mut self, target: &Origin) {
        self.broken.remove(target);
    }

    /// Forgets what another network can't be expected to share. Section 2.2: alternatives without `persist` are forgotten.
    pub(crate) fn handle_network_changed(&mut self) {
        self.broken.clear();
        // Section 2.2: an alternative may have been chosen for the network that the client had.
        self.advertised.retain(|_, advertised| advertised.is_persistent);
    }
}

fn cap<T>(map: &mut HashMap<Origin, T>, until: impl Fn(&T) -> Instant) {
    if map.len() > MAX_ORIGINS {
        let first = map.iter().min_by_key(|(_, entry)| until(entry)).map(|(origin, _)| origin.clone());
        first.map(|origin| map.remove(&origin));
    }
}

/// The first alternative of `value` that is HTTP/3: they are in the order of the server's preference.
fn parse(value: &str) -> Field {
    // Section 3: `clear` is alone, and case-sensitive.
    if value.trim() == "clear" {
        return Field::Clear;
    }
    elements(value, ',').iter().find_map(|element| offer(element)).unwrap_or(Field::Other)
}

fn offer(element: &str) -> Option<Field> {
    let parts = elements(element, ';');
    let (protocol, authority) = parts.first()?.split_once('=')?;
    // RFC 9114, section 3.1.1. The drafts before it had names of their own, such as `h3-29`, and are not spoken here.
    if protocol.trim() != "h3" {
        return None;
    }
    let authority = unquote(authority.trim())?;
    // From the right: an IPv6 address has colons of its own.
    let (host, port) = authority.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let (mut max_age, mut is_persistent) = (DEFAULT_AGE, false);
    for parameter in &parts[1..] {
        // Section 3.1: unknown parameters are ignored.
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim();
        let value = unquote(value).unwrap_or_else(|| value.to_owned());
        match name.trim() {
            // Without a readable age nothing shows for how long the entry holds: it is passed over.
            "ma" => max_age = Duration::from_secs(value.parse().ok()?),
            // Section 3.1: other values than 1 are ignored.
            "persist" => is_persistent = value == "1",
            _ => {}
        }
    }
    let host = Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty());
    let alternative = Alternative { host, port };
    Some(Field::Offer { alternative, max_age, is_persistent })
}

/// The parts of `text` between `separator`s that are not in a quoted string.
fn elements(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(|char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match char {
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            '"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        char == separator && !is_quoted
    })
    .map(str::trim)
    .collect()
}

/// The text of a quoted string (RFC 9110, section 5.6.4).
fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        plain.push(if char == '\\' { chars.next()? } else { char });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn origin(host: &str) -> Origin {
        Origin::new(true, host, 443)
    }

    fn port(known: &Alternatives, now: Instant) -> Option<u16> {
        known.get(&origin("a"), now).map(|alternative| alternative.port)
    }

    fn learn(known: &mut Alternatives, value: &str, now: Instant) {
        known.handle_field(&origin("a"), value, Duration::ZERO, now);
    }

    #[test]
    fn the_first_offer_of_http_3_is_used() {
        for (value, expected) in [
            ("h3=\":443\"", Some((None, 443, DEFAULT_AGE))),
            ("h3=\":443\"; ma=3600", Some((None, 443, 3600 * SECOND))),
            ("h3-29=\":1\", h2=\":2\", h3=\":3\";ma=5;persist=1, h3=\":4\"", Some((None, 3, 5 * SECOND))),
            ("h3=\"Other.example:8443\"; ma=\"7\"", Some((Some("other.example"), 8443, 7 * SECOND))),
            ("h3=\"[::1]:8443\"", Some((Some("[::1]"), 8443, DEFAULT_AGE))),
            ("x=\"a,h3=\\\":1\\\"\", h3=\":2\"; y=\";ma=1\"", Some((None, 2, DEFAULT_AGE))),
            ("h3=\":443\"; ma=x, h3=\":5\"", Some((None, 5, DEFAULT_AGE))),
            ("h3=:443", None),
            ("h3=\":0\"", None),
            ("h3=\":65536\"", None),
            ("h3=\"443\"", None),
            ("h2=\":443\"", None),
            ("H3=\":443\"", None),
            ("", None),
            (",;=\"", None),
        ] {
            let parsed = match parse(value) {
                Field::Offer { alternative, max_age, .. } => {
                    Some((alternative.host, alternative.port, max_age))
                }
                _ => None,
            };
            let expected = expected.map(|(host, port, age)| (host.map(str::to_owned), port, age));
            assert_eq!(parsed, expected, "{value}");
        }
        assert_eq!(parse(" clear "), Field::Clear);
    }

    #[test]
    fn an_alternative_lives_for_its_age() {
        let (mut known, now) = (Alternatives::default(), Instant::now());
        learn(&mut known, "h3=\":7\"; ma=60", now);
        assert_eq!(port(&known, now + 59 * SECOND), Some(7));
        assert_eq!(port(&known, now + 60 * SECOND), None);
        // RFC 7838, section 3.1: the time in caches counts.
        known.handle_field(&origin("a"), "h3=\":7\"; ma=60", 50 * SECOND, now);
        assert_eq!(port(&known, now + 11 * SECOND), None);
        learn(&mut known, "h3=\":7\"; ma=18446744073709551615", now);
        assert_eq!(port(&known, now + MAX_AGE), None);
    }

    #[test]
    fn a_later_field_replaces_an_earlier_one() {
        for value in ["clear", "h2=\":443\"", "h3=\":7\"; ma=0"] {
            let (mut known, now) = (Alternatives::default(), Instant::now());
            learn(&mut known, "h3=\":7\"", now);
            learn(&mut known, "h3=\":8\"", now);
            assert_eq!(port(&known, now), Some(8));
            learn(&mut known, value, now);
            assert_eq!(port(&known, now), None, "{value}");
        }
    }

    #[test]
    fn what_is_broken_is_tried_again_later_and_later() {
        let (mut known, mut now, target) = (Alternatives::default(), Instant::now(), origin("a"));
        for wait in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            known.handle_broken(&target, now);
            // A second request of the same moment.
            known.handle_broken(&target, now);
            assert!(known.is_broken(&target, now + wait * SECOND - SECOND));
            now += wait * SECOND;
            assert!(!known.is_broken(&target, now));
        }
        known.handle_works(&target);
        known.handle_broken(&target, now);
        assert!(!known.is_broken(&target, now + 30 * SECOND));
    }

    #[test]
    fn another_network_is_another_chance() {
        let (mut known, now) = (Alternatives::default(), Instant::now());
        learn(&mut known, "h3=\":7\"; persist=1", now);
        known.handle_field(&origin("b"), "h3=\":7\"", Duration::ZERO, now);
        known.handle_broken(&origin("a"), now);
        known.handle_network_changed();
        assert!(!known.is_broken(&origin("a"), now));
        assert_eq!(port(&known, now), Some(7));
        assert_eq!(known.get(&origin("b"), now), None);
    }

    #[test]
    fn memory_has_a_limit() {
        let (mut known, now) = (Alternatives::default(), Instant::now());
        for index in 0..3 * MAX_ORIGINS {
            let origin = origin(&format!("host{index}"));
            known.handle_field(&origin, "h3=\":7\"", Duration::ZERO, now + SECOND * index as u32);
            known.handle_broken(&origin, now);
        }
        assert_eq!((known.advertised.len(), known.broken.len()), (MAX_ORIGINS, MAX_ORIGINS));
    }

    proptest! {
        #[test]
        fn any_field_is_parsed_without_a_panic(value in "[h3=\":;,ma\\\\ clear0-9\u{e9}]{0,60}") {
            let now = Instant::now();
            let mut known = Alternatives::default();
            learn(&mut known, &value, now);
            prop_assert!(known.get(&origin("a"), now).is_none_or(|alternative| alternative.port > 0));
        }
    }
}
