//! Byte ranges: asked for in `Range`, answered in `Content-Range`.

use std::fmt;

/// A half-open range of bytes of a resource: `start` is in it, `end` is not.
///
/// Displayed as HTTP writes it, with the last byte included: `0-99` is `ByteRange::new(0, 100)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// One past the last byte; `u64::MAX` is the end of the resource, wherever that is.
    pub end: u64,
}

impl ByteRange {
    /// The bytes from `start` up to, not including, `end`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// The bytes from `start` to the end of the resource.
    pub const fn from_start(start: u64) -> Self {
        Self { start, end: u64::MAX }
    }

    /// How many bytes; saturated where the end is open.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True if there is no byte in it.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end == u64::MAX {
            write!(f, "{}-", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end.saturating_sub(1))
        }
    }
}
