//! Bodies of responses, whatever brings them. What reads them knows of no socket.

use std::time::Duration;

use super::h1::body::H1Body;
use crate::error::Error;

/// How long a brief read waits. The system may make a few of its ticks of it.
pub(crate) const BRIEF: Duration = Duration::from_millis(1);

/// The bytes of a response, and what they come over.
#[expect(clippy::large_enum_variant, reason = "a response has one, and lies in a box of its own")]
pub(super) enum Body {
    Http1(H1Body),
    /// All bytes have come, or none will: nothing is held any more.
    Closed,
}

impl Body {
    /// Reads what there is. Blocks until a byte is there, for the silence limit at most. 0 is the end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Http1(body) => body.read(buf),
            Self::Closed => Ok(0),
        }
    }

    /// As [`read`](Self::read), but blocks for a moment only: `None` if nothing came. Only where
    /// [`can_be_brief`](Self::can_be_brief).
    pub(super) fn read_briefly(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        match self {
            Self::Http1(body) => body.read_briefly(buf, BRIEF),
            Self::Closed => Ok(Some(0)),
        }
    }

    /// True if the next read can be a brief one.
    pub(super) fn can_be_brief(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_direct(),
            Self::Closed => false,
        }
    }

    /// Lets what it came over serve other requests, if it can. Called when all bytes have come. Does not block.
    pub(super) fn finish(&mut self) {
        match std::mem::replace(self, Self::Closed) {
            Self::Http1(body) => body.finish(),
            Self::Closed => {}
        }
    }
}
