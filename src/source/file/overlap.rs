//! Stored bytes that are requested again before a piece, because nothing but they can prove that the piece belongs to
//! them.

use crate::error::{Error, ErrorKind};

/// Stored bytes, and where they lie.
pub(crate) struct Overlap {
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Overlap {
    /// Compares the bytes received at `offset` with those stored. Returns what lies behind the overlap, and whether all of the
    /// overlap has been received.
    pub(crate) fn compare<'a>(&self, offset: u64, bytes: &'a [u8]) -> Result<(u64, &'a [u8], bool), Error> {
        let there =
            &self.bytes[usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.bytes.len())..];
        let known = there.len().min(bytes.len());
        if there[..known] != bytes[..known] {
            let why = format!("the file changed while it was read: other bytes at {offset}");
            return Err(Error::new(ErrorKind::Changed, why));
        }
        Ok((offset + known as u64, &bytes[known..], known == there.len()))
    }
}
