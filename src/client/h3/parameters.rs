//! What quinn-proto does not show of the server's transport parameters (RFC 9000, section 18). Pure.

use std::time::Duration;

use quinn_proto::transport_parameters::TransportParameters;

use super::frame::integer;

/// The parameter max_idle_timeout, in milliseconds (RFC 9000, section 18.2).
const MAX_IDLE_TIMEOUT: u64 = 0x01;

/// Time without a packet after which the server ends a connection. `None` if it has no limit.
pub(super) fn idle_limit(parameters: &TransportParameters) -> Option<Duration> {
    let mut encoded = Vec::new();
    parameters.write(&mut encoded);
    find_idle_limit(&encoded)
}

fn find_idle_limit(mut encoded: &[u8]) -> Option<Duration> {
    loop {
        let (id, len) = take_integer(&mut encoded).zip(take_integer(&mut encoded))?;
        let (value, rest) = encoded.split_at_checked(usize::try_from(len).ok()?)?;
        if id == MAX_IDLE_TIMEOUT {
            let (limit, _) = integer(value)?;
            // RFC 9000, section 18.2: 0 is the same as no parameter.
            return (limit > 0).then(|| Duration::from_millis(limit));
        }
        encoded = rest;
    }
}

fn take_integer(bytes: &mut &[u8]) -> Option<u64> {
    let (value, len) = integer(bytes)?;
    *bytes = &bytes[len..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_limit_is_found_behind_other_parameters() {
        let limit = |encoded: &[u8]| find_idle_limit(encoded).map(|limit| limit.as_millis());
        assert_eq!(limit(&[0x04, 1, 9, 0x01, 2, 0x45, 0xdc]), Some(1500));
        assert_eq!(limit(&[0x40, 0x01, 1, 10]), Some(10));
        assert_eq!(limit(&[0x01, 1, 0]), None);
        for broken in [&[][..], &[0x01], &[0x01, 2, 0x45], &[0x01, 0], &[0x04, 0x3f, 0], &[0x04, 1, 9]] {
            assert_eq!(limit(broken), None, "{broken:?}");
        }
    }
}
