//! Which hosts are reached without the proxy. Pure.

use std::net::IpAddr;

/// The hosts of [`ClientConfig::no_proxy`](crate::ClientConfig::no_proxy). There is no standard: each entry means what most
/// programs take it for.
#[derive(Debug, Default)]
pub(crate) struct NoProxy(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    All,
    /// The host of this name, and all below it. In lower case.
    Name(String),
    /// The addresses that have these first bits in common with the address.
    Network(IpAddr, u8),
}

impl NoProxy {
    /// `None` if one of `entries` is neither a host nor a network.
    pub(crate) fn new(entries: &[String]) -> Option<Self> {
        entries.iter().map(|entry| Entry::parse(entry)).collect::<Option<_>>().map(Self)
    }

    /// True if `host` is reached directly. `host` is in lower case, and an IPv6 address is in brackets.
    pub(crate) fn contains(&self, host: &str) -> bool {
        let bare = host.trim_matches(['[', ']']);
        let address = bare.parse().ok();
        self.0.iter().any(|entry| entry.contains(bare.trim_end_matches('.'), address))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address = address.trim_matches(['[', ']']).parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= len_of(address))?;
            return Some(Self::network(address, bits));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Some(Self::network(address, len_of(address)));
        }
        // `*.host` is not in curl's syntax, but users write it.
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name.trim_matches('.').to_ascii_lowercase();
        let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (!name.is_empty() && name.bytes().all(is_in_name)).then_some(Self::Name(name))
    }

    /// In the form in which the addresses of hosts are compared with it.
    fn network(address: IpAddr, bits: u8) -> Self {
        // RFC 4291, section 2.5.5.2: an IPv4 address is mapped behind 96 bits. A shorter prefix is no IPv4 network.
        match (address.to_canonical(), bits.checked_sub(96)) {
            (mapped @ IpAddr::V4(_), Some(bits)) if address.is_ipv6() => Self::Network(mapped, bits),
            _ => Self::Network(address, bits),
        }
    }

    fn contains(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => {
                // `example.com` stands for `www.example.com` as well, but not for `myexample.com`.
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Network(network, bits) => {
                address.is_some_and(|address| is_in_network(address.to_canonical(), *network, *bits))
            }
        }
    }
}

/// Bits in an address.
fn len_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differ = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(entry: &str, host: &str) -> bool {
        NoProxy::new(&[entry.to_owned()]).unwrap().contains(host)
    }

    #[test]
    fn a_name_stands_for_the_host_and_all_below_it() {
        for entry in ["home.test", ".home.test", "*.home.test", " Home.Test. "] {
            for host in ["home.test", "nas.home.test", "a.b.home.test", "home.test."] {
                assert!(contains(entry, host), "{entry}: {host}");
            }
            for host in ["athome.test", "home.test.evil", "test", "127.0.0.1"] {
                assert!(!contains(entry, host), "{entry}: {host}");
            }
        }
        assert!(contains("*", "any.test") && contains("*", "[::1]"));
    }

    #[test]
    fn a_network_stands_for_the_addresses_in_it() {
        for (entry, host, is_in) in [
            ("192.168.0.0/16", "192.168.7.1", true),
            ("192.168.0.0/16", "192.169.0.1", false),
            ("192.168.0.0/16", "host.test", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "[2001:db8::1]", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.11", false),
            ("127.0.0.1", "[::ffff:127.0.0.1]", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("fd00::/8", "[fd12::1]", true),
            ("fd00::/8", "[fe80::1]", false),
            ("[::1]", "[::1]", true),
        ] {
            assert_eq!(contains(entry, host), is_in, "{entry}: {host}");
        }
    }

    #[test]
    fn what_is_neither_a_host_nor_a_network_is_refused() {
        for entry in ["", ".", "10.0.0.0/33", "10.0.0/8", "::/129", "a b", "http://host", "host:80"] {
            assert!(NoProxy::new(&[entry.to_owned()]).is_none(), "{entry}");
        }
    }
}
