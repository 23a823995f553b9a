//! Error codes of HTTP/3 (RFC 9114, section 8.1) and of QPACK (RFC 9204, section 6), and what a peer did wrong.

use std::fmt;

/// An error code, as it is sent in RESET_STREAM, STOP_SENDING or CONNECTION_CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    pub(crate) const NO_ERROR: Self = Self(0x100);
    pub(crate) const STREAM_CREATION_ERROR: Self = Self(0x103);
    pub(crate) const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    pub(crate) const FRAME_UNEXPECTED: Self = Self(0x105);
    pub(crate) const FRAME_ERROR: Self = Self(0x106);
    pub(crate) const EXCESSIVE_LOAD: Self = Self(0x107);
    pub(crate) const ID_ERROR: Self = Self(0x108);
    pub(crate) const SETTINGS_ERROR: Self = Self(0x109);
    pub(crate) const MISSING_SETTINGS: Self = Self(0x10a);
    pub(crate) const REQUEST_CANCELLED: Self = Self(0x10c);
    pub(crate) const MESSAGE_ERROR: Self = Self(0x10e);
    pub(crate) const QPACK_DECOMPRESSION_FAILED: Self = Self(0x200);
    pub(crate) const QPACK_ENCODER_STREAM_ERROR: Self = Self(0x201);
    pub(crate) const QPACK_DECODER_STREAM_ERROR: Self = Self(0x202);
}

/// A rule that the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: Code,
    pub(crate) why: &'static str,
}

impl Violation {
    pub(crate) const fn new(code: Code, why: &'static str) -> Self {
        Self { code, why }
    }

    /// True if it ends the connection.
    pub(crate) fn ends_connection(&self) -> bool {
        // RFC 9114, section 4.1.2: a malformed message is an error of its stream alone. Section 4.2.2: so is a response whose head
        // is larger than the client accepts.
        !matches!(self.code, Code::MESSAGE_ERROR | Code::EXCESSIVE_LOAD)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP/3 error {:#x})", self.why, self.code.0)
    }
}

impl std::error::Error for Violation {}
