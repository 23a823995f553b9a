//! What a segment needs besides its own bytes: keys and initialization sections, which other segments share.

use std::sync::Arc;
use std::time::Instant;

use url::Url;

use crate::client::UriPolicy;
use crate::error::Error;
use crate::source::hls::decrypt::{choose_key, iv_of};
use crate::source::hls::hook::RequestKind;
use crate::source::hls::playlist::{Key, KeyMethod, Segment};
use crate::types::{ByteRange, Priority, RequestId};

/// What a segment needs besides its own bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) key: Option<KeyUse>,
    pub(crate) init: Option<ResourceKey>,
}

/// A key, and how one resource uses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyUse {
    pub(crate) url: Url,
    pub(crate) method: KeyMethod,
    pub(crate) iv: [u8; 16],
}

/// A resource that segments share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ResourceKey {
    pub(crate) kind: RequestKind,
    pub(crate) url: Url,
    pub(crate) range: Option<ByteRange>,
    /// How it is encrypted: the same bytes under another key are another resource.
    pub(crate) key: Option<Box<KeyUse>>,
}

/// A resource that was requested.
#[derive(Debug)]
pub(crate) enum Loadable {
    Fetching(Loading),
    /// Never shown: it may be a key.
    Ready(Secret),
}

/// A resource that is being fetched.
#[derive(Debug)]
pub(crate) struct Loading {
    /// When its last bytes have arrived, or when it was requested.
    pub(super) last: Instant,
    pub(super) priority: Priority,
    /// Its request, once the downloader has taken it.
    pub(super) request: Option<RequestId>,
}

impl Loading {
    pub(super) fn new(now: Instant, priority: Priority) -> Self {
        Self { last: now, priority, request: None }
    }
}

/// Bytes that may be a key, so `Debug` shows their number only.
pub(crate) struct Secret(pub(crate) Arc<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl ResourceKey {
    pub(crate) fn of_key(url: Url) -> Self {
        Self { kind: RequestKind::Key, url, range: None, key: None }
    }
}

impl Needs {
    pub(crate) fn resources(&self) -> impl Iterator<Item = ResourceKey> {
        let key_of = |key: &KeyUse| ResourceKey::of_key(key.url.clone());
        let init_key = self.init.as_ref().and_then(|init| init.key.as_deref().map(key_of));
        // In the order of requests: the initialization section is read before the segment, and its key before both.
        init_key.into_iter().chain(self.init.clone()).chain(self.key.as_ref().map(key_of))
    }
}

pub(crate) fn needs_of(
    segment: &Segment,
    sequence: u64,
    base: &Url,
    policy: UriPolicy,
) -> Result<Needs, Error> {
    let key_use = |keys: &[Key]| -> Result<Option<KeyUse>, Error> {
        let Some(key) = choose_key(keys)? else { return Ok(None) };
        let url = policy.resolve(base, key.uri.expose())?;
        Ok(Some(KeyUse { url, method: key.method.clone(), iv: iv_of(key, sequence) }))
    };
    let init = match &segment.map {
        Some(map) => {
            // SAMPLE-AES encrypts frames, and an initialization section has none (section 4.4.4.4).
            let key = key_use(&map.keys)?.filter(|key| key.method != KeyMethod::SampleAes).map(Box::new);
            Some(ResourceKey {
                kind: RequestKind::InitializationSection,
                url: policy.resolve(base, map.uri.expose())?,
                range: map.byte_range,
                key,
            })
        }
        None => None,
    };
    Ok(Needs { key: key_use(&segment.keys)?, init })
}

/// A body that arrived before the key or the initialization section that it needs.
#[derive(Debug)]
pub(crate) struct Undemuxed {
    /// Where it came from, for the error of a segment that can't be read.
    pub(crate) url: Url,
    pub(crate) raw: Vec<u8>,
    pub(crate) position: u64,
}
