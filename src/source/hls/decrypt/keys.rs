//! Which key decrypts a segment, and with which initialization vector.

use crate::error::{Error, ErrorKind};
use crate::source::hls::playlist::{Key, KeyMethod};

/// The key to use, of those that the playlist offers for a segment. `None` if the segment is not encrypted.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] if there are keys, but none that can be used (section 6.3.6).
pub(crate) fn choose_key(keys: &[Key]) -> Result<Option<&Key>, Error> {
    // Not SAMPLE-AES-CTR, which section 4.4.4.4 leaves to Common Encryption (ISO 23001-7): the demuxer does not read its boxes.
    let is_usable = |key: &&Key| {
        key.is_identity()
            && matches!(key.method, KeyMethod::Aes128 | KeyMethod::SampleAes | KeyMethod::Aes256Gcm)
    };
    match keys.iter().find(is_usable) {
        Some(key) if cfg!(feature = "hls-aes") => Ok(Some(key)),
        Some(_) => {
            Err(Error::new(ErrorKind::Unsupported, "the segments are encrypted: enable the feature hls-aes"))
        }
        None if keys.is_empty() => Ok(None),
        None => {
            let methods: Vec<String> = keys.iter().map(|key| format!("{:?}", key.method)).collect();
            let why = format!("the encryption is not supported: {}", methods.join(", "));
            Err(Error::new(ErrorKind::Unsupported, why))
        }
    }
}

/// The initialization vector of a segment: explicit, or its media sequence number (section 5.2).
pub(crate) fn iv_of(key: &Key, sequence: u64) -> [u8; 16] {
    key.iv.unwrap_or(u128::from(sequence)).to_be_bytes()
}
