//! Which addresses only this machine or its network can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// True for addresses that are not part of the public internet (the registries of RFC 6890).
pub(crate) fn is_private(address: IpAddr) -> bool {
    // An IPv4 address that is mapped to IPv6 is reached over IPv4.
    match address.to_canonical() {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        // RFC 1122, section 3.2.1.3: this host on this network.
        || first == 0
        // RFC 6598: shared address space of carriers.
        || (first == 100 && (64..128).contains(&second))
        // RFC 6890: protocol assignments. RFC 2544: benchmarks.
        || (first, second, third) == (192, 0, 0)
        || (first == 198 && matches!(second, 18 | 19))
        // RFC 1112: reserved, with the broadcast address.
        || first >= 240
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // RFC 6052: a translator connects to the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // RFC 8215: translators of a local network.
        [0x64, 0xff9b, 1, ..] => true,
        // RFC 3056: 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        [first, ..] => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                // RFC 4193: unique local. RFC 4291, 2.5.6 and 2.5.7: link-local and site-local.
                || (first & 0xfe00) == 0xfc00
                || (first & 0xff80) == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_its_network_are_private() {
        let private = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.170",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:c0a8:0001::1",
        ];
        let public = [
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        for address in private {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in public {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }
}
