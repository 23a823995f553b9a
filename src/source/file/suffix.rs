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

use crate::cancel::CancelToken;
use crate::client::ResponseHead;
use crate::types::RequestId;

/// Bytes that are requested. With their response head they fit into the first flight of a new connection: ten segments
/// of 1,448 bytes (RFC 6928), less a head of 600 bytes.
pub(crate) const SUFFIX: u64 = 13_824;

/// How far the suffix request of a file has come.
#[derive(Debug, Default)]
pub(crate) enum Suffix {
    /// It is not wanted, or over.
    #[default]
    Off,
    /// It is to be sent once the opening was.
    Due,
    /// It was sent.
    Running(Running),
    /// All its bytes have arrived. They are stored once the opening has shown what the file is.
    Held(Tail),
    /// Its bytes are being copied into storage.
    Storing,
}

#[derive(Debug)]
pub(crate) struct Running {
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
        matches!(self, Self::Due)
    }

    /// True while it may still bring bytes, over a connection that other requests can use afterwards.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    pub(crate) fn begin(&mut self, token: CancelToken) {
        *self = Self::Running(Running { token, request: None, is_urgent: false });
    }

    /// The bytes that it is about to store, of a file of `len` bytes. `is_shown` if the opening has shown what the file
    /// is. Before that held bytes are not: the opening may have been given up.
    pub(crate) fn range(&self, len: Option<u64>, is_shown: bool) -> Option<Range<u64>> {
        let is_coming = match self {
            Self::Running(_) | Self::Storing => true,
            Self::Held(_) => is_shown,
            Self::Off | Self::Due => false,
        };
        let len = len.filter(|_| is_coming)?;
        Some(len.saturating_sub(SUFFIX)..len)
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
                // Its id may not be known yet. Then the next look raises it.
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

    pub(crate) fn take_held(&mut self) -> Option<Tail> {
        match std::mem::take(self) {
            Self::Held(tail) => Some(tail),
            other => {
                *self = other;
                None
            }
        }
    }
    /// Records that the bytes are stored.
    pub(crate) fn stored(&mut self) {
        if let Self::Storing = self {
            *self = Self::Off;
        }
    }
}
