//! Boxes of MP4 (ISO 14496-12, section 4.2), and the numbers in them.

/// Reads big-endian numbers.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of up to eight bytes.
    pub(super) fn number(&mut self, len: usize) -> Option<u64> {
        Some(self.take(len)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.number(4).map(|number| number as u32)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|number| number as u16)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.number(1).map(|number| number as u8)
    }

    /// Version and flags of a full box.
    pub(super) fn version(&mut self) -> Option<(u8, u32)> {
        Some((self.u8()?, self.number(3)? as u32))
    }
}

/// The boxes that `bytes` consist of. Ends at the first one that is cut off.
pub(super) fn boxes(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut reader = Reader(bytes);
    std::iter::from_fn(move || {
        let whole = reader.0.len() as u64;
        let size = reader.u32()?;
        let kind = reader.take(4)?.try_into().ok()?;
        // Section 4.2: 0 is a box that goes on to the end, 1 one whose size follows in eight bytes.
        let (size, header) = match size {
            0 => (whole, 8),
            1 => (reader.number(8)?, 16),
            size => (u64::from(size), 8),
        };
        let body = usize::try_from(size.checked_sub(header)?).ok()?;
        Some((kind, reader.take(body)?))
    })
}

/// The first box at the end of this path.
pub(super) fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |inside, wanted| {
        boxes(inside).find(|(kind, _)| kind == *wanted).map(|(_, body)| body)
    })
}
