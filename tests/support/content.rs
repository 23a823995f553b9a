//! Bodies whose every byte follows from its offset.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Content(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// So many bytes of the pattern; costs no memory, whatever the length.
    Pattern(u64),
    Bytes(Arc<[u8]>),
}

/// Bytes after which the pattern begins again: a prime, so that no block or piece size hides a misplaced byte.
const PERIOD: u64 = 1_048_583;

impl Content {
    pub fn pattern(len: u64) -> Self {
        Self(Kind::Pattern(len))
    }

    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }

    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Pattern(len) => *len,
            Kind::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// A strong entity tag.
    pub fn etag(&self) -> String {
        format!("\"v1-{}\"", self.len())
    }

    pub fn append(&self, out: &mut Vec<u8>, part: Range<u64>) {
        match &self.0 {
            Kind::Bytes(bytes) => out.extend_from_slice(&bytes[part.start as usize..part.end as usize]),
            Kind::Pattern(_) => {
                let mut at = part.start;
                while at < part.end {
                    let from = (at % PERIOD) as usize;
                    let take = (part.end - at).min(PERIOD - from as u64) as usize;
                    out.extend_from_slice(&period()[from..from + take]);
                    at += take as u64;
                }
            }
        }
    }
}

/// The pattern's byte at `offset`.
fn byte_at(offset: u64) -> u8 {
    period()[(offset % PERIOD) as usize]
}

/// Panics at the first byte that is not the pattern's.
pub fn assert_pattern(offset: u64, bytes: &[u8]) {
    let wrong = bytes.iter().enumerate().find(|(index, byte)| **byte != byte_at(offset + *index as u64));
    if let Some((index, byte)) = wrong {
        let at = offset + index as u64;
        panic!("byte {at} is {byte}, not {}; read from {offset}", byte_at(at));
    }
}

fn period() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        // splitmix64 (Steele, Lea, Flood, 2014), one byte of each number.
        (0..PERIOD)
            .map(|index| {
                let mut z = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                (z >> 56) as u8
            })
            .collect()
    })
}
