//! Content steering (section 7): a server names the pathway that clients use. Pure.

use std::time::{Duration, Instant};

use url::Url;

use super::json::Json;
use crate::error::{Error, ErrorKind};

/// Reload interval while no manifest has given one (section 7.1).
const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// Shortest and longest interval between two loads of the manifest. Its TTL is clamped to them: one of 0 would make a request of
/// each wake-up, and one of a century would overflow a clock.
const TTL: (u64, u64) = (10, 24 * 3600);

/// Clones of pathways in one manifest, at most. Each is a copy of all variants of its base.
const MOST_CLONES: usize = 32;

/// When to ask the steering server, and what it has answered.
#[derive(Debug)]
pub(crate) struct Steering {
    url: Url,
    /// When the manifest is loaded next. `None` while it is being loaded, and once the server wants no more requests.
    due: Option<Instant>,
    ttl: Duration,
    /// Pathways, the best one first.
    priority: Vec<Box<str>>,
}

/// A steering manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    ttl: Duration,
    reload: Option<String>,
    priority: Vec<Box<str>>,
    pub(crate) clones: Vec<PathwayClone>,
}

/// A pathway that is like another one, on other servers (section 7.1.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PathwayClone {
    pub(crate) base: Box<str>,
    pub(crate) id: Box<str>,
    host: Option<String>,
    parameters: Vec<(String, String)>,
    /// URIs by `STABLE-VARIANT-ID`, and by `STABLE-RENDITION-ID`.
    uris: [Vec<(String, String)>; 2],
}

impl Steering {
    /// Until the first manifest is there, `pathway` is used.
    pub(crate) fn new(url: Url, pathway: Box<str>, now: Instant) -> Self {
        // It is due at once, but requested after the first segments: see `State::plan_media`.
        Self { url, due: Some(now), ttl: DEFAULT_TTL, priority: vec![pathway] }
    }

    /// The manifest to load now, if it is due.
    pub(crate) fn poll(&mut self, now: Instant, pathway: &str, throughput: Option<f64>) -> Option<Url> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        let mut url = self.url.clone();
        // Section 7.2: in quotes, and in the order of UTF-8.
        url.query_pairs_mut().append_pair("_HLS_pathway", &format!("\"{pathway}\""));
        if let Some(throughput) = throughput.filter(|rate| rate.is_finite()) {
            url.query_pairs_mut().append_pair("_HLS_throughput", &format!("{throughput:.0}"));
        }
        Some(url)
    }

    /// A manifest has arrived from `url`.
    pub(crate) fn handle_manifest(&mut self, manifest: &Manifest, reload: Option<Url>, now: Instant) {
        self.ttl = manifest.ttl;
        self.due = now.checked_add(self.ttl);
        self.url = reload.unwrap_or_else(|| self.url.clone());
        // With an empty order all pathways would be equal, and the one in use would be as good as one that failed.
        if !manifest.priority.is_empty() {
            self.priority.clone_from(&manifest.priority);
        }
    }

    /// It can't be loaded or read.
    pub(crate) fn handle_failed(&mut self, error: &Error, now: Instant) {
        // Section 7.2: after 410 there are no more requests; after 429 `Retry-After` gives the time.
        let wait = match error.status() {
            Some(410) => None,
            // Clamped like a TTL: `Retry-After: 0` with each answer would make a request of each call too.
            Some(429) => {
                let (shortest, longest) = (Duration::from_secs(TTL.0), Duration::from_secs(TTL.1));
                Some(error.retry_after().map_or(self.ttl, |after| after.clamp(shortest, longest)))
            }
            _ => Some(self.ttl),
        };
        self.due = wait.and_then(|wait| now.checked_add(wait));
    }

    /// Place of a pathway in the order of preference. Those that are not named are the last resort.
    pub(crate) fn rank(&self, pathway: &str) -> usize {
        self.priority.iter().position(|known| &**known == pathway).unwrap_or(self.priority.len())
    }
}

impl Manifest {
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPlaylist`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |why: &str| Error::new(ErrorKind::InvalidPlaylist, why);
        let json = std::str::from_utf8(bytes).ok().and_then(Json::parse);
        let json = json.ok_or_else(|| invalid("the steering manifest is not JSON"))?;
        if json.get("VERSION").and_then(Json::number) != Some(1.0) {
            return Err(invalid("the steering manifest is not of version 1"));
        }
        let ttl = json.get("TTL").and_then(Json::number).filter(|ttl| *ttl >= 0.0);
        let ttl = ttl.map_or(DEFAULT_TTL, |ttl| Duration::from_secs((ttl as u64).clamp(TTL.0, TTL.1)));
        let list = |name: &str| json.get(name).map_or(&[][..], Json::list);
        Ok(Self {
            ttl,
            reload: json.get("RELOAD-URI").and_then(Json::text).map(str::to_owned),
            priority: list("PATHWAY-PRIORITY").iter().filter_map(Json::text).map(Box::from).collect(),
            clones: list("PATHWAY-CLONES").iter().take(MOST_CLONES).filter_map(PathwayClone::parse).collect(),
        })
    }

    /// Where the next manifest is.
    pub(crate) fn reload(&self, from: &Url) -> Option<Url> {
        from.join(self.reload.as_deref()?).ok()
    }
}

impl PathwayClone {
    fn parse(json: &Json) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Json::text).map(Box::from);
        let replacement = json.get("URI-REPLACEMENT")?;
        let pairs = |name: &str| -> Vec<(String, String)> {
            let texts = replacement.get(name).into_iter().flat_map(Json::texts);
            texts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        Some(Self {
            base: text("BASE-ID")?,
            id: text("ID")?,
            host: replacement
                .get("HOST")
                .and_then(Json::text)
                .filter(|host| !host.is_empty())
                .map(str::to_owned),
            parameters: pairs("PARAMS"),
            uris: [pairs("PER-VARIANT-URIS"), pairs("PER-RENDITION-URIS")],
        })
    }

    /// The URL of the clone of a playlist. `stable` are its stable names. `None` if it is no URL.
    pub(crate) fn apply(&self, url: &Url, stable: &[Option<Box<str>>; 2]) -> Option<Url> {
        // A rendition's own URI is more specific than that of the variants that refer to it.
        for (uris, name) in self.uris.iter().zip(stable).rev() {
            let uri = name.as_deref().and_then(|name| uris.iter().find(|(known, _)| known == name));
            if let Some((_, uri)) = uri {
                return Url::parse(uri).ok();
            }
        }
        let mut url = url.clone();
        if let Some(host) = &self.host {
            let (host, port) = match host.rsplit_once(':') {
                // A colon within brackets is part of an IPv6 address.
                Some((host, port)) if !host.ends_with(':') && !port.contains(']') => (host, Some(port)),
                _ => (host.as_str(), None),
            };
            url.set_host(Some(host)).ok()?;
            if let Some(port) = port {
                url.set_port(Some(port.parse().ok()?)).ok()?;
            }
        }
        let kept: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let is_replaced = |name: &str| self.parameters.iter().any(|(known, _)| known == name);
        if !self.parameters.is_empty() {
            let kept = kept.iter().filter(|(name, _)| !is_replaced(name));
            url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(&self.parameters);
        }
        Some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn s7_1_a_manifest_orders_pathways_and_says_when_to_ask_again() {
        let text = br#"{"VERSION":1,"TTL":20,"RELOAD-URI":"next?s=1","PATHWAY-PRIORITY":["B","A"]}"#;
        let manifest = Manifest::parse(text).unwrap();
        let start = Instant::now();
        let mut steering = Steering::new(url("http://host/steer?x=1"), "A".into(), start);
        assert_eq!((steering.rank("A"), steering.rank("B")), (0, 1));
        let first = steering.poll(start, "A", Some(1_234.5)).unwrap();
        assert_eq!(first.as_str(), "http://host/steer?x=1&_HLS_pathway=%22A%22&_HLS_throughput=1234");
        assert_eq!(steering.poll(start, "A", None), None, "it is being loaded");
        steering.handle_manifest(&manifest, manifest.reload(&first), start);
        assert_eq!((steering.rank("B"), steering.rank("A"), steering.rank("C")), (0, 1, 2));
        assert_eq!(steering.poll(start + Duration::from_secs(19), "B", None), None);
        let next = steering.poll(start + Duration::from_secs(20), "B", None).unwrap();
        assert_eq!(next.as_str(), "http://host/next?s=1&_HLS_pathway=%22B%22");
    }

    #[test]
    fn s7_2_errors_are_retried_after_the_ttl_or_never() {
        let start = Instant::now();
        let mut steering = Steering::new(url("http://host/s"), "A".into(), start);
        let mut again = |status, seconds| {
            steering.poll(start + Duration::from_secs(10_000), "A", None);
            steering.handle_failed(&Error::new(ErrorKind::Status(status), "as asked"), start);
            steering.poll(start + Duration::from_secs(seconds), "A", None).is_some()
        };
        assert!(!again(500, 299) && again(500, 300) && again(429, 300));
        assert!(!again(410, 1_000_000));
    }

    #[test]
    fn a_server_that_asks_for_no_pause_gets_one() {
        let start = Instant::now();
        let mut steering = Steering::new(url("http://host/s"), "A".into(), start);
        steering.poll(start, "A", None).unwrap();
        let refused = Error::new(ErrorKind::Status(429), "as asked").with_retry_after(Duration::ZERO);
        steering.handle_failed(&refused, start);
        assert_eq!(steering.poll(start + Duration::from_secs(9), "A", None), None);
        assert!(steering.poll(start + Duration::from_secs(10), "A", None).is_some());
    }

    #[test]
    fn s7_1_1_clones_replace_hosts_parameters_or_whole_uris() {
        let text = br#"{"VERSION":1,"PATHWAY-CLONES":[{"BASE-ID":"A","ID":"C","URI-REPLACEMENT":{"HOST":"c.example:8080",
            "PARAMS":{"t":"2"},"PER-VARIANT-URIS":{"v":"http://d.example/v"},"PER-RENDITION-URIS":{"r":"http://d.example/r"}}}]}"#;
        let manifest = Manifest::parse(text).unwrap();
        let clone = |stable| manifest.clones[0].apply(&url("http://a.example/x?t=1&u=3"), &stable);
        assert_eq!(clone([None, None]), Some(url("http://c.example:8080/x?u=3&t=2")));
        assert_eq!(clone([Some("v".into()), None]), Some(url("http://d.example/v")));
        assert_eq!(clone([Some("v".into()), Some("r".into())]), Some(url("http://d.example/r")));
    }

    #[test]
    fn what_is_no_manifest_is_a_typed_error() {
        for text in [&b"<html>"[..], b"{}", b"{\"VERSION\":2}", b"\xff"] {
            assert_eq!(Manifest::parse(text).unwrap_err().kind(), ErrorKind::InvalidPlaylist);
        }
    }
}
