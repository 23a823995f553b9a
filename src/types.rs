//! The types that every part of windway names: ranges of bytes, priorities, ids. Imports nothing of windway.

use std::fmt;
use std::num::NonZeroU64;

/// How urgent something is: a peer beside other peers, a fetch beside the others of its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Nobody waits for it yet.
    Low,
    /// Somebody waits for it: it is *urgent*.
    #[default]
    High,
}

impl Priority {
    pub(crate) const BOTH: [Self; 2] = [Self::High, Self::Low];

    /// 0 for `High`: what is served first comes first.
    pub(crate) fn rank(self) -> usize {
        match self {
            Self::High => 0,
            Self::Low => 1,
        }
    }
}

/// Names one fetch in every event about it. Unique and increasing within a downloader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(NonZeroU64);

impl RequestId {
    pub(crate) fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The id as a number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

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

    /// True if there is no byte in it. No such range can be asked for: that fails with
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
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
