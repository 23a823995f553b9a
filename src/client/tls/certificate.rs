//! Reads the validity and the name of a certificate (RFC 5280, section 4.1) that is trusted without a chain.
//!
//! rustls checks chains, and refuses a CA certificate as a server's. A certificate that is trusted itself is compared byte for
//! byte; this module reads what is left to check.

use std::net::IpAddr;

/// The parts of a certificate that windway checks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certificate<'a> {
    /// Beginning of the validity, in seconds since 1970.
    pub(crate) not_before: i64,
    /// Last second of the validity, in seconds since 1970.
    pub(crate) not_after: i64,
    /// Last common name of the subject, if it is text.
    pub(crate) common_name: Option<&'a str>,
    /// It has the extension subjectAltName. Then the common name must be ignored.
    pub(crate) has_alternative_names: bool,
}

/// Tags of DER: those of universal types (X.690, section 8), with the bit for constructed ones.
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Context-specific tags of the version and the extensions of a certificate.
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;

/// Object identifiers in DER: id-at-commonName (2.5.4.3) and id-ce-subjectAltName (2.5.29.17).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1D, 0x11];

impl<'a> Certificate<'a> {
    /// Parses a certificate in DER. `None` if it is not one.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let body = Der(Der(Der(der).take(SEQUENCE)?).take(SEQUENCE)?);
        let mut fields = body;
        // RFC 5280, section 4.1.2.1: version 1 is the default, and then the field is missing.
        fields.take_if(VERSION);
        fields.take(INTEGER)?;
        let [_signature, _issuer, validity, subject, _key] = fields.take_array(SEQUENCE)?;
        let (not_before, not_after) = {
            let mut times = Der(validity);
            (times.take_time()?, times.take_time()?)
        };
        let mut has_alternative_names = false;
        // RFC 5280, section 4.1: up to two unique identifiers may stand between the key and the extensions.
        while !fields.0.is_empty() {
            let (tag, content) = fields.take_any()?;
            if tag == EXTENSIONS {
                has_alternative_names = has_extension(Der(Der(content).take(SEQUENCE)?), ALTERNATIVE_NAME)?;
            }
        }
        Some(Self { not_before, not_after, common_name: common_name(Der(subject))?, has_alternative_names })
    }

    /// True if the certificate has no alternative names and its common name is `name`.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        // RFC 2818, section 3.1, deprecates common names, but plain `openssl req -x509` makes no others. It also makes them void
        // beside alternative names.
        let Some(common_name) = self.common_name.filter(|_| !self.has_alternative_names) else {
            return false;
        };
        // A dot at the end is the root of the name space: both are the same name (RFC 1034, section 3.1).
        let name = name.strip_suffix('.').unwrap_or(name);
        let common_name = common_name.strip_suffix('.').unwrap_or(common_name);
        // Compared as addresses: one IPv6 address has several texts.
        match (common_name.parse::<IpAddr>(), name.parse::<IpAddr>()) {
            (Ok(a), Ok(b)) => a == b,
            (Err(_), Err(_)) => common_name.eq_ignore_ascii_case(name),
            _ => false,
        }
    }
}

/// The last common name, which is the most specific one.
fn common_name(mut subject: Der<'_>) -> Option<Option<&str>> {
    let mut found = None;
    while !subject.0.is_empty() {
        let mut attributes = Der(subject.take(SET)?);
        while !attributes.0.is_empty() {
            let mut attribute = Der(attributes.take(SEQUENCE)?);
            if attribute.take(OBJECT_ID)? == COMMON_NAME {
                let (tag, content) = attribute.take_any()?;
                let is_text = matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING);
                // One of another type, such as UTF-16, is no name, and hides the ones before it.
                found = std::str::from_utf8(content).ok().filter(|_| is_text);
            }
        }
    }
    Some(found)
}

fn has_extension(mut extensions: Der<'_>, wanted: &[u8]) -> Option<bool> {
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.take(SEQUENCE)?);
        let id = extension.take(OBJECT_ID)?;
        // RFC 5280, section 4.1: `critical` is false by default, and then it is missing.
        extension.take_if(BOOLEAN);
        if id == wanted {
            return Some(true);
        }
    }
    Some(false)
}

/// The unread rest of DER-encoded data (X.690).
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and the content of the next element.
    fn take_any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let len = if first < 0x80 {
            usize::from(first)
        } else {
            // At most two length bytes: no real certificate has more than 64 KiB.
            let (bytes, after) =
                rest.split_at_checked(usize::from(first & 0x7F)).filter(|_| first <= 0x82)?;
            rest = after;
            bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.take_any().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// As `take`, but does not consume an element with another tag.
    fn take_if(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.take(tag) } else { None }
    }

    fn take_array<const N: usize>(&mut self, tag: u8) -> Option<[&'a [u8]; N]> {
        let mut contents = [[].as_slice(); N];
        for content in &mut contents {
            *content = self.take(tag)?;
        }
        Some(contents)
    }

    /// Reads a time, in seconds since 1970.
    fn take_time(&mut self) -> Option<i64> {
        let (tag, text) = self.take_any()?;
        // RFC 5280, section 4.1.2.5: both forms have seconds, and end with Z.
        let text = text.strip_suffix(b"Z")?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                // RFC 5280, section 4.1.2.5.1: two-digit years are 1950 to 2049.
                let year = number(year)?;
                (year + if year < 50 { 2000 } else { 1900 }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (number(year)?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 {
            return None;
        }
        let mut parts = rest.chunks(2).map(number);
        let mut part = |least: i64, most: i64| parts.next()?.filter(|part| (least..=most).contains(part));
        let (month, day) = (part(1, 12)?, part(1, 31)?);
        // 60 is a leap second: a certificate that is valid until one would otherwise be refused as unreadable.
        let (hour, minute, second) = (part(0, 23)?, part(0, 59)?, part(0, 60)?);
        Some(((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Days from 1 January 1970 to a date of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years are counted from March, so that the leap day is the last day of a year.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From March and from August on, five months have 153 days. 719,468 is the number of days from 1 March of the year 0 to 1
    // January 1970.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    /// `openssl req -x509 -days 20000 -subj "/C=XX/O=windway/CN=radio.local"`
    const PLAIN: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBwjCCAWegAwIBAgIUOGGUbN59YPVxmwa3jXMnl1Ke6XAwCgYIKoZIzj0EAwIw
NTELMAkGA1UEBhMCWFgxEDAOBgNVBAoMB3dpbmR3YXkxFDASBgNVBAMMC3JhZGlv
LmxvY2FsMCAXDTI2MTEyNDE3MzUwOFoYDzIwODEwODI3MTczNTA4WjA1MQswCQYD
VQQGEwJYWDEQMA4GA1UECgwHd2luZHdheTEUMBIGA1UEAwwLcmFkaW8ubG9jYWww
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASIMuye7nRl7djJUvl6rlYQMEjb/0AE
6Q/hOuGZRAauu7T9tMfVBtMpPJPlc7MdWLFXt680XTHm4K7ytyL8X9MMo1MwUTAd
BgNVHQ4EFgQUQctjwR6VQBOBrEJf+ICbIPMrpfEwHwYDVR0jBBgwFoAUQctjwR6V
QBOBrEJf+ICbIPMrpfEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBG
AiEAwO6Zx4RAQCsIsLt9M1tD0bOUnpuhxKFVXN62r576McQCIQDLWug3XIdGz8nr
6Ihm8uHgH/DGKBqRTVB3Kcjn5YBFBw==
-----END CERTIFICATE-----
";

    /// As that, with `-days 30 -subj "/CN=localhost" -addext "subjectAltName=DNS:localhost,IP:127.0.0.1"`
    const WITH_ALTERNATIVE_NAMES: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBmTCCAT+gAwIBAgIUDAvDYCFXFUoUeAXvOG/IYCnt0JIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTI2MTEyNDE3MzUwOFoXDTI2MTIyNDE3
MzUwOFowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAECRzrmaKDkhPvWI1kbIQVEr+vVnunQrqqvdOCzfsh6f1EVGS9Fl4J48Wq
OK8ChYA8YskSoD5KZgr9IGF7iug9gqNvMG0wHQYDVR0OBBYEFMC7oVfKeVOmNRuR
wdCnfmwQnPuXMB8GA1UdIwQYMBaAFMC7oVfKeVOmNRuRwdCnfmwQnPuXMA8GA1Ud
EwEB/wQFMAMBAf8wGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAoGCCqGSM49
BAMCA0gAMEUCIDoDpn4pQ/4kLAJZbzQME0PN3a2cv1/zZ+QDtPIim8waAiEA6gy7
FrFblw0jM3knQJ8Q/x/QqmcL/cxHiTv/57zR2U0=
-----END CERTIFICATE-----
";

    fn der(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).unwrap()
    }

    #[test]
    fn certificates_from_openssl_are_parsed() {
        assert_eq!(
            Certificate::parse(&der(PLAIN)).unwrap(),
            Certificate {
                not_before: 1_795_541_708,
                not_after: 3_523_541_708,
                common_name: Some("radio.local"),
                has_alternative_names: false,
            }
        );
        assert_eq!(
            Certificate::parse(&der(WITH_ALTERNATIVE_NAMES)).unwrap(),
            Certificate {
                not_before: 1_795_541_708,
                not_after: 1_798_133_708,
                common_name: Some("localhost"),
                has_alternative_names: true,
            }
        );
    }

    #[test]
    fn a_common_name_counts_only_without_alternative_names_and_as_a_whole() {
        let named = |common_name, has_alternative_names, name: &str| {
            let certificate = Certificate {
                not_before: 0,
                not_after: 0,
                common_name: Some(common_name),
                has_alternative_names,
            };
            certificate.is_named(name)
        };
        assert!(named("radio.local", false, "Radio.LOCAL") && named("radio.local", false, "radio.local."));
        assert!(named("127.0.0.1", false, "127.0.0.1") && named("::1", false, "0:0::1"));
        for (common_name, name) in [
            ("radio.local", "a.radio.local"),
            ("*.local", "radio.local"),
            ("127.0.0.1", "127.0.0.10"),
            ("", "a"),
        ] {
            assert!(!named(common_name, false, name), "{common_name} for {name}");
        }
        assert!(!named("radio.local", true, "radio.local"));
    }

    #[test]
    fn dates_are_counted_as_the_calendar_does() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2100, 3, 1), 47_541),
            ((9999, 12, 31), 2_932_896),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn invalid_times_are_refused() {
        let time =
            |tag: u8, text: &str| Der(&[&[tag, text.len() as u8], text.as_bytes()].concat()).take_time();
        assert_eq!(time(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(time(GENERALIZED_TIME, "19700101000001Z"), Some(1));
        for text in
            ["", "Z", "7001010000Z", "700101000000", "701301000000Z", "700100000000Z", "7001010000+0Z"]
        {
            assert_eq!(time(UTC_TIME, text), None, "{text}");
        }
        assert_eq!(time(INTEGER, "700101000000Z"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            Certificate::parse(&bytes);
        }

        #[test]
        fn no_cut_or_damaged_certificate_makes_it_panic(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), is_cut in any::<bool>(),
        ) {
            let mut bytes = der(WITH_ALTERNATIVE_NAMES).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            Certificate::parse(if is_cut { &bytes[..at] } else { &bytes });
        }
    }
}
