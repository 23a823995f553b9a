//! Results of name lookups, and addresses that did not respond. Does no I/O and reads no clock.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// Maximum number of cached hosts.
const MAX_HOSTS: usize = 1024;

#[derive(Debug)]
pub(super) struct NameCache {
    /// Time for which a result is used before the name is looked up again, and for which an address counts as unresponsive.
    max_age: Duration,
    known: HashMap<String, Known>,
    /// Addresses that did not accept a connection or did not answer on it, and when that was noticed.
    unresponsive: HashMap<IpAddr, Instant>,
}

#[derive(Debug)]
struct Known {
    /// Addresses of the last successful lookup. Empty if there was none.
    addresses: Vec<IpAddr>,
    /// Error of the last lookup. `None` if it succeeded.
    failure: Option<Error>,
    /// End of the last lookup, successful or not.
    at: Instant,
    /// The result is from another network.
    is_outdated: bool,
}

impl NameCache {
    pub(super) fn new(max_age: Duration) -> Self {
        Self { max_age, known: HashMap::new(), unresponsive: HashMap::new() }
    }

    /// The addresses of `host`, if no new lookup is needed.
    pub(super) fn fresh(&self, host: &str, now: Instant) -> Option<&[IpAddr]> {
        let known = self.known.get(host)?;
        let age = now.saturating_duration_since(known.at);
        // A failure is not reused: the next request looks the name up again.
        let is_fresh = known.failure.is_none() && !known.is_outdated && age < self.max_age;
        is_fresh.then_some(&known.addresses)
    }

    /// The result of a lookup that ended after `since`.
    pub(super) fn result_since(&self, host: &str, since: Instant) -> Option<Result<Vec<IpAddr>, Error>> {
        let known = self.known.get(host).filter(|known| known.at >= since && !known.is_outdated)?;
        Some(known.answer())
    }

    /// Addresses of an earlier lookup, however old, and of whichever network.
    pub(super) fn last_addresses(&self, host: &str) -> Option<&[IpAddr]> {
        self.known.get(host).map(|known| &*known.addresses).filter(|addresses| !addresses.is_empty())
    }

    pub(super) fn handle_result(&mut self, host: &str, answer: io::Result<Vec<IpAddr>>, now: Instant) {
        if self.known.len() >= MAX_HOSTS && !self.known.contains_key(host) {
            // All of it: that is simpler than an order of use, and a player meets a few dozen hosts.
            self.known.clear();
        }
        let (addresses, failure) = match answer {
            Ok(addresses) if addresses.is_empty() => (addresses, Some(not_found(host, "has no address"))),
            Ok(addresses) => (addresses, None),
            // The standard library does not say whether the name does not exist or no name server answered. The cause has the text of
            // the system.
            Err(error) => (Vec::new(), Some(not_found(host, "could not be looked up").with_cause(error))),
        };
        let unknown = Known { addresses: Vec::new(), failure: None, at: now, is_outdated: false };
        let known = self.known.entry(host.to_owned()).or_insert(unknown);
        known.at = now;
        known.is_outdated = false;
        known.failure = failure;
        // After a failure the addresses of an earlier lookup stay: they often still work.
        if known.failure.is_none() {
            known.addresses = addresses;
        }
    }

    pub(super) fn handle_unresponsive(&mut self, address: IpAddr, now: Instant) {
        let max_age = self.max_age;
        self.unresponsive.retain(|_, since| now.saturating_duration_since(*since) < max_age);
        // Full of young ones, it takes no more: one that is forgotten costs another attempt, and no more than that.
        if self.unresponsive.len() < MAX_HOSTS {
            self.unresponsive.insert(address, now);
        }
    }

    /// No result is fresh any more.
    pub(super) fn handle_network_change(&mut self) {
        // An address that did not respond may do so on the new network.
        self.unresponsive.clear();
        self.known.values_mut().for_each(|known| known.is_outdated = true);
    }

    /// The order in which to try `addresses`: families alternate, and unresponsive ones come last.
    pub(super) fn order(&self, addresses: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        let mut ordered = interleave(addresses);
        let is_unresponsive = |address: &IpAddr| {
            let since = self.unresponsive.get(address);
            since.is_some_and(|since| now.saturating_duration_since(*since) < self.max_age)
        };
        // Stable: the order of the lookup stays within both groups.
        ordered.sort_by_key(is_unresponsive);
        ordered
    }
}

impl Known {
    fn answer(&self) -> Result<Vec<IpAddr>, Error> {
        match &self.failure {
            Some(error) if self.addresses.is_empty() => Err(error.clone()),
            _ => Ok(self.addresses.clone()),
        }
    }
}

fn not_found(host: &str, why: &str) -> Error {
    Error::new(ErrorKind::HostNotFound, format!("the host {host} {why}"))
}

/// Alternates the address families, beginning with that of the first address.
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (a, b): (Vec<&IpAddr>, Vec<&IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(addresses.len());
    // RFC 8305, section 4: one of each in turn, so that a broken family costs only one attempt.
    for index in 0..a.len().max(b.len()) {
        ordered.extend(a.get(index).copied().copied());
        ordered.extend(b.get(index).copied().copied());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(60);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn no_server() -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no name server"))
    }

    #[test]
    fn the_last_addresses_are_used_while_a_lookup_fails() {
        let (mut cache, now) = (NameCache::new(MAX_AGE), Instant::now());
        cache.handle_result("host", Ok(vec![address(7)]), now);
        cache.handle_result("host", no_server(), now);
        assert_eq!(cache.result_since("host", now).unwrap().unwrap(), [address(7)]);
        cache.handle_result("other", no_server(), now);
        let error = cache.result_since("other", now).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostNotFound);
        // It may exist: that no name server answered does not show the contrary.
        assert!(!error.to_string().contains("not found"), "{error}");
        assert_eq!((cache.fresh("host", now), cache.fresh("other", now)), (None, None));
    }

    #[test]
    fn a_result_is_fresh_until_it_is_old_or_the_network_changes() {
        let (mut cache, now) = (NameCache::new(MAX_AGE), Instant::now());
        cache.handle_result("host", Ok(vec![address(1)]), now);
        assert_eq!(cache.fresh("host", now), Some(&[address(1)][..]));
        assert_eq!(cache.fresh("host", now + MAX_AGE), None);
        cache.handle_network_change();
        assert_eq!(cache.fresh("host", now), None);
        assert!(cache.result_since("host", now).is_none());
        assert_eq!(cache.last_addresses("host"), Some(&[address(1)][..]));
    }

    #[test]
    fn an_unresponsive_address_comes_last_until_the_network_changes() {
        let (mut cache, now) = (NameCache::new(MAX_AGE), Instant::now());
        let [first, second, third] = [1, 2, 3].map(address);
        cache.handle_unresponsive(first, now);
        assert_eq!(cache.order(&[first, second, third], now), [second, third, first]);
        assert_eq!(cache.order(&[first, second, third], now + MAX_AGE), [first, second, third]);
        cache.handle_network_change();
        assert_eq!(cache.order(&[first, second, third], now), [first, second, third]);
    }

    #[test]
    fn address_families_alternate() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let given = ["::1", "::2", "127.0.0.1"].map(parse);
        assert_eq!(interleave(&given), ["::1", "127.0.0.1", "::2"].map(parse));
    }
}
