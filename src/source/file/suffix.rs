//! The suffix request: the last bytes of a file, requested beside its opening.
//!
//! Decoders look at a file's end before they play its beginning: for a tag, the last page, an index. With the suffix
//! request those bytes arrive together with the first ones, over a second connection, which then serves the first seek.
//!
//! ```text
//!   Off ◀── metered, one connection, no ranges ── open ──▶ Due ──▶ Running ──▶ Held ──▶ Storing ──▶ Off
//!                                                                     │ refused, failed, another version
//!                                                                     └──▶ Off: fetched as other pieces are
//! ```
//!
//! It is a prefetch and never an error. An answer other than a 206 is closed at its head, and the origin is remembered.

use std::ops::Range;

use super::network::Network;
use crate::cancel::CancelToken;
use crate::client::ResponseHead;
use crate::types::RequestId;

/// Bytes that are requested. With their response head they fit into the first flight of a new connection: ten segments
/// of 1,448 bytes (RFC 6928), less a head of 600 bytes.
const SUFFIX: u64 = 13_824;

/// Bytes that are requested where more would hold up the opening: a tag of ID3v1 has 128 bytes, the footer of an APE tag 32.
const TAGS: u64 = 512;

/// How many bytes of a file to request, of which decoders read the last `foreseen` ones, and otherwise tags.
pub(crate) fn size(network: Network, foreseen: u64) -> u64 {
    let least = if foreseen > 0 || network.can_share_opening(SUFFIX) { SUFFIX } else { TAGS };
    least.max(foreseen)
}

/// State of the suffix request of a file.
#[derive(Debug, Default)]
pub(crate) enum Suffix {
    /// None is wanted, or it has ended.
    #[default]
    Off,
    /// It is to be sent after the opening, for this many bytes.
    Due(u64),
    /// It was sent.
    Running(Running),
    /// All its bytes have arrived. They are stored once the opening has shown what the file is.
    Held(Tail),
    /// This many bytes of it are being copied into storage.
    Storing(u64),
}

#[derive(Debug)]
pub(crate) struct Running {
    bytes: u64,
    token: CancelToken,
    /// Known once the downloader has accepted it.
    request: Option<RequestId>,
    /// A reader is blocked on its bytes, and its priority was raised.
    is_urgent: bool,
}

/// The last bytes of a file, and the response head that they came with.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) head: ResponseHead,
    pub(crate) bytes: Vec<u8>,
}

impl Suffix {
    pub(crate) fn is_due(&self) -> bool {
        matches!(self, Self::Due(_))
    }

    /// True while it may still bring bytes, over a connection that other requests can use afterwards.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Records that it is sent, if it is due. Returns the number of bytes to request.
    pub(crate) fn begin(&mut self, token: CancelToken) -> Option<u64> {
        let Self::Due(bytes) = *self else { return None };
        *self = Self::Running(Running { bytes, token, request: None, is_urgent: false });
        Some(bytes)
    }

    /// The bytes that it is about to store, of a file of `len` bytes. `is_shown` if the opening has shown what the file
    /// is. Before that held bytes are not: the opening may have been given up.
    pub(crate) fn range(&self, len: Option<u64>, is_shown: bool) -> Option<Range<u64>> {
        let bytes = match self {
            Self::Running(Running { bytes, .. }) | Self::Storing(bytes) => *bytes,
            Self::Held(tail) if is_shown => tail.bytes.len() as u64,
            Self::Off | Self::Due(_) | Self::Held(_) => return None,
        };
        len.map(|len| len.saturating_sub(bytes)..len)
    }

    /// Gives it up. Returns the token of a request that is running.
    pub(crate) fn give_up(&mut self) -> Option<CancelToken> {
        match std::mem::take(self) {
            Self::Running(running) => Some(running.token),
            _ => None,
        }
    }

    /// Records that a reader is blocked on its bytes. Returns the request whose priority is to be raised.
    pub(crate) fn promote(&mut self) -> Option<RequestId> {
        match self {
            Self::Running(running) if !running.is_urgent => {
                // Its id may not be known yet. Then its sink calls this again when it is.
                running.is_urgent = running.request.is_some();
                running.request
            }
            _ => None,
        }
    }

    pub(crate) fn accepted(&mut self, request: RequestId) {
        if let Self::Running(running) = self {
            running.request = Some(request);
        }
    }

    pub(crate) fn hold(&mut self, tail: Tail) {
        if self.is_running() {
            *self = Self::Held(tail);
        }
    }

    /// Takes the bytes, which are to be stored at once.
    pub(crate) fn take_held(&mut self) -> Option<Tail> {
        match std::mem::take(self) {
            Self::Held(tail) => {
                // Not yet stored, but on their way: otherwise the plan would request them again.
                *self = Self::Storing(tail.bytes.len() as u64);
                Some(tail)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Records that the bytes are stored, or of no use.
    pub(crate) fn stored(&mut self) {
        if let Self::Storing(_) = self {
            *self = Self::Off;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn network(bandwidth: f64, ttfb_ms: u64) -> Network {
        Network {
            bandwidth: Some(bandwidth),
            ttfb: Some(Duration::from_millis(ttfb_ms)),
            ..Network::default()
        }
    }

    #[test]
    fn where_it_would_hold_up_the_opening_only_tags_are_requested() {
        // 60 kB/s: 13.8 kB take longer than a later round trip.
        let narrow = network(60e3, 40);
        assert_eq!((size(narrow, 0), size(narrow, 1), size(narrow, 65_307)), (TAGS, SUFFIX, 65_307));
        for wide in [Network::default(), network(2.5e6, 40), network(600e3, 100), network(20e6, 1)] {
            assert_eq!(size(wide, 0), SUFFIX, "{wide:?}");
        }
    }
}
