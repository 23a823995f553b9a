//! Small types that all modules use: byte ranges, priorities, ids. Imports no other module.

use std::fmt;
use std::num::NonZeroU64;

/// How urgent a peer is relative to other peers, and a fetch relative to the other fetches of its peer.
///
/// The schedule serves the classes (peer, fetch) in this order: High/High, High/Low, Low/High, Low/Low. One type has both
/// meanings, because both answer the same question: is a reader blocked on these bytes?
///
/// ```
/// use windway::Priority;
///
/// assert!(Priority::High > Priority::Low);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    // First, because the derived order makes a later variant the greater one.
    /// No reader is blocked on the bytes. A fetch is a *prefetch*.
    Low,
    /// A reader is blocked on the bytes. A fetch is *urgent*.
    #[default]
    High,
}

impl Priority {
    pub(crate) const BOTH: [Self; 2] = [Self::High, Self::Low];

    /// 0 for `High`, which is served first.
    pub(crate) fn rank(self) -> usize {
        match self {
            Self::High => 0,
            Self::Low => 1,
        }
    }
}

/// Identifies a fetch in all its events. Unique and increasing within a downloader.
///
/// ```no_run
/// # let peer = windway::Downloader::global()?.register((), Default::default())?;
/// let response = peer.execute(windway::Fetch::get("https://example.com/a.flac")?)?;
/// println!("fetch {}", response.request_id());
/// # Ok::<(), windway::Error>(())
/// ```
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

/// A half-open range of bytes of a resource: `start` is included, `end` is not.
///
/// It is displayed like in HTTP, with an inclusive last byte (RFC 9110, section 14.1.2).
///
/// ```
/// use windway::ByteRange;
///
/// assert_eq!(ByteRange::new(0, 100).to_string(), "0-99");
/// assert_eq!(ByteRange::from_start(500).to_string(), "500-");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// Position of the first byte.
    pub start: u64,
    /// Position after the last byte. `u64::MAX` stands for the end of the resource.
    // Not an `Option`: `min` and comparisons treat an open end like any other, and no resource is that long.
    pub end: u64,
}

impl ByteRange {
    /// The bytes from `start` up to `end`, which is not included.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// The bytes from `start` to the end of the resource.
    pub const fn from_start(start: u64) -> Self {
        Self { start, end: u64::MAX }
    }

    /// Number of bytes. Very large if the end is open.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True if the range has no bytes. A fetch of such a range fails with
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
            // Saturating: an empty range at 0 has no last byte, and an error message must not panic.
            write!(f, "{}-{}", self.start, self.end.saturating_sub(1))
        }
    }
}

/// A number as HTTP writes it (RFC 9110, section 8.6): digits, and nothing else. `None` also for one beyond 64 bits.
pub(crate) fn digits(text: &str) -> Option<u64> {
    // `str::parse` accepts a plus sign as well.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
