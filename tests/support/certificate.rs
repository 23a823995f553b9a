//! X.509 certificates for test servers, signed by P-256 keys. Just enough of RFC 5280 and DER (X.690) to be valid.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const GENERALIZED_TIME: u8 = 0x18;
const UTC_TIME: u8 = 0x17;
/// `BOOLEAN TRUE`.
const TRUE: &[u8] = &[0x01, 0x01, 0xFF];

const ECDSA_WITH_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
const PRIME256V1: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 0x13];

/// A private key.
pub struct Key {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

impl Key {
    pub fn generate() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
        let pkcs8 = pkcs8.expect("random bytes").as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random);
        Self { pair: pair.expect("the key that was just made"), pkcs8 }
    }

    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

/// What a certificate says.
pub struct Certificate<'a> {
    pub subject: &'a str,
    pub issuer: &'a str,
    /// Host names and IP addresses. No extension if empty.
    pub alternative_names: &'a [&'a str],
    pub is_authority: bool,
    /// Valid from 2000 to the end of this year.
    pub last_year: i32,
}

impl<'a> Certificate<'a> {
    /// That of a root, which signs itself.
    pub fn of_root(name: &'a str) -> Self {
        Self { subject: name, issuer: name, alternative_names: &[], is_authority: true, last_year: 2099 }
    }
}

impl Certificate<'_> {
    /// The certificate of `key` in DER, signed by `signer`.
    pub fn sign(&self, key: &Key, signer: &Key) -> Vec<u8> {
        let algorithm = tlv(SEQUENCE, &[&tlv(OID, &[ECDSA_WITH_SHA256])]);
        let body = tlv(
            SEQUENCE,
            &[
                // Version 3.
                &tlv(0xA0, &[&tlv(INTEGER, &[&[2]])]),
                &tlv(INTEGER, &[&serial(key)]),
                &algorithm,
                &name(self.issuer),
                &tlv(SEQUENCE, &[&time(2000, "0101000000Z"), &time(self.last_year, "1231235959Z")]),
                &name(self.subject),
                &public_key(key),
                &tlv(0xA3, &[&tlv(SEQUENCE, &[&self.constraints(), &self.names()])]),
            ],
        );
        let signature = signer.pair.sign(&SystemRandom::new(), &body).expect("random bytes");
        tlv(SEQUENCE, &[&body, &algorithm, &tlv(BIT_STRING, &[&[0], signature.as_ref()])])
    }

    fn constraints(&self) -> Vec<u8> {
        let authority = if self.is_authority { TRUE } else { &[] };
        let value = tlv(OCTET_STRING, &[&tlv(SEQUENCE, &[authority])]);
        tlv(SEQUENCE, &[&tlv(OID, &[BASIC_CONSTRAINTS]), TRUE, &value])
    }

    fn names(&self) -> Vec<u8> {
        if self.alternative_names.is_empty() {
            return Vec::new();
        }
        // RFC 5280, 4.2.1.6: an address is [7], a host name [2].
        let name = |name: &&str| match name.parse() {
            Ok(IpAddr::V4(address)) => tlv(0x87, &[&address.octets()]),
            Ok(IpAddr::V6(address)) => tlv(0x87, &[&address.octets()]),
            Err(_) => tlv(0x82, &[name.as_bytes()]),
        };
        let names: Vec<u8> = self.alternative_names.iter().flat_map(name).collect();
        let value = tlv(OCTET_STRING, &[&tlv(SEQUENCE, &[&names])]);
        tlv(SEQUENCE, &[&tlv(OID, &[SUBJECT_ALT_NAME]), &value])
    }
}

pub fn pem(certificate: &[u8]) -> String {
    pem_of("CERTIFICATE", certificate)
}

/// As [`pem`], for another kind of content.
pub fn pem_of(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Differs from key to key. The first byte keeps it positive.
fn serial(key: &Key) -> Vec<u8> {
    [&[1], &key.pair.public_key().as_ref()[1..9]].concat()
}

fn name(common_name: &str) -> Vec<u8> {
    let name = tlv(SEQUENCE, &[&tlv(OID, &[COMMON_NAME]), &tlv(UTF8_STRING, &[common_name.as_bytes()])]);
    tlv(SEQUENCE, &[&tlv(SET, &[&name])])
}

fn public_key(key: &Key) -> Vec<u8> {
    let algorithm = tlv(SEQUENCE, &[&tlv(OID, &[EC_PUBLIC_KEY]), &tlv(OID, &[PRIME256V1])]);
    tlv(SEQUENCE, &[&algorithm, &tlv(BIT_STRING, &[&[0], key.pair.public_key().as_ref()])])
}

/// RFC 5280, 4.1.2.5: two digits of the year up to 2049, four from then on.
fn time(year: i32, rest: &str) -> Vec<u8> {
    if year < 2050 {
        tlv(UTC_TIME, &[format!("{:02}{rest}", year % 100).as_bytes()])
    } else {
        tlv(GENERALIZED_TIME, &[format!("{year}{rest}").as_bytes()])
    }
}

/// Tag, length and the concatenated parts.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let mut element = vec![tag];
    match value.len() {
        len @ 0..128 => element.push(len as u8),
        len @ 128..256 => element.extend([0x81, len as u8]),
        len => {
            let len = u16::try_from(len).expect("a short certificate");
            element.push(0x82);
            element.extend(len.to_be_bytes());
        }
    }
    element.extend(value);
    element
}
