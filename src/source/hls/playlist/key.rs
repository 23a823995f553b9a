//! Keys (`EXT-X-KEY` and `EXT-X-SESSION-KEY`, sections 4.4.4.4 and 4.4.6.5).

use std::fmt;

use super::attributes::Attributes;
use super::error::PlaylistProblem;
use super::uri::Uri;
use super::values::parse_hex;

/// A key of a segment (`EXT-X-KEY`). `Debug` shows no IV.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Key {
    /// How the content is encrypted.
    pub method: KeyMethod,
    /// Where the key is.
    pub uri: Uri,
    /// Initialization vector, as a number in network byte order.
    pub iv: Option<u128>,
    /// What `uri` leads to. `identity` is the key itself.
    pub format: Box<str>,
}

/// How a segment is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyMethod {
    /// The whole segment, with AES-128 in CBC mode.
    Aes128,
    /// The audio frames, with AES-128 in CBC mode.
    SampleAes,
    /// The audio frames, by Common Encryption with AES-128 in CTR mode.
    SampleAesCtr,
    /// The whole segment, with AES-256 in GCM mode.
    Aes256Gcm,
    /// A method that windway does not know.
    Other(Box<str>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, uri, iv: _, format } = self;
        f.debug_struct("Key")
            .field("method", method)
            .field("uri", uri)
            .field("format", format)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// `None` for the method `NONE`.
    pub(super) fn parse(attributes: &Attributes<'_>) -> Result<Option<Self>, PlaylistProblem> {
        let method = match attributes.required("METHOD")? {
            "NONE" => return Ok(None),
            "AES-128" => KeyMethod::Aes128,
            "SAMPLE-AES" => KeyMethod::SampleAes,
            "SAMPLE-AES-CTR" => KeyMethod::SampleAesCtr,
            "AES-256-GCM" => KeyMethod::Aes256Gcm,
            // Kept, although section 6.3.1 ignores tags with unknown values: without its key, the segment would pass for one
            // that is not encrypted.
            other => KeyMethod::Other(other.into()),
        };
        Ok(Some(Self {
            method,
            uri: Uri::new(attributes.required("URI")?),
            iv: attributes.parsed("IV", parse_hex)?,
            // Section 4.4.4.4: without KEYFORMAT it is `identity`.
            format: attributes.text("KEYFORMAT").unwrap_or_else(|| "identity".into()),
        }))
    }

    /// True if the key itself is at the URI: 16 or 32 bytes.
    pub fn is_identity(&self) -> bool {
        &*self.format == "identity"
    }
}
