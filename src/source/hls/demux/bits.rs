//! Reads numbers of any count of bits, the highest first.

#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits that were read.
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A number of up to 32 bits.
    pub(super) fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for at in self.at..self.at + count {
            let byte = self.bytes.get(at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - at % 8) & 1);
        }
        self.at += count;
        Some(value)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        let at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len().saturating_mul(8))?;
        self.at = at;
        Some(())
    }

    /// Bits that were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Adds `len` bytes to `out`, wherever in a byte they begin.
    pub(super) fn copy(&mut self, len: usize, out: &mut Vec<u8>) -> Option<()> {
        let (begin, shift) = (self.at / 8, self.at % 8);
        self.skip(len.checked_mul(8)?)?;
        if shift == 0 {
            out.extend_from_slice(&self.bytes[begin..begin + len]);
        } else {
            // One byte more: the last one is shared with what follows. `skip` has shown that it is there.
            let pairs = self.bytes[begin..=begin + len].windows(2);
            out.extend(pairs.map(|pair| pair[0] << shift | pair[1] >> (8 - shift)));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_are_read_wherever_they_begin() {
        let mut bits = Bits::new(&[0b1010_0000, 0b0001_1111, 0b1000_0000]);
        assert_eq!((bits.take(3), bits.flag(), bits.position()), (Some(5), Some(false), 4));
        let mut out = Vec::new();
        assert_eq!((bits.copy(1, &mut out), out.as_slice()), (Some(()), &[1][..]));
        assert_eq!((bits.copy(2, &mut out), bits.position()), (None, 12));
        assert_eq!((bits.skip(4), bits.copy(1, &mut out), bits.flag()), (Some(()), Some(()), None));
        assert_eq!(out, [1, 0x80]);
        assert_eq!((bits.skip(1), bits.skip(usize::MAX), bits.skip(0)), (None, None, Some(())));
    }
}
