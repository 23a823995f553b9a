//! EBML: elements in elements (RFC 8794), of which the first bytes of a Matroska file have some (RFC 9559).

/// Ids of elements (RFC 9559, section 5.1), with the marker bits of their length.
pub(super) const SEGMENT: u32 = 0x1853_8067;
const SEEK_HEAD: u32 = 0x114d_9b74;
pub(super) const CLUSTER: u32 = 0x1f43_b675;
pub(super) const CUES: u32 = 0x1c53_bb6b;
const SEEK: u32 = 0x4dbb;
const SEEK_ID: u32 = 0x53ab;
const SEEK_POSITION: u32 = 0x53ac;

/// An element whose header is here. Its body may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// With its length marker, as the specification writes it.
    pub(super) id: u32,
    /// Where the body begins.
    pub(super) body: u64,
    /// `u64::MAX` for one whose size is unknown: it goes on to the end.
    size: u64,
}

impl Element {
    /// The element that begins at `at` in `bytes`.
    pub(super) fn read(bytes: &[u8], at: u64) -> Option<Self> {
        let rest = bytes.get(usize::try_from(at).ok()?..)?;
        // RFC 8794, sections 11.2.4 and 11.2.5: unless a header says otherwise, an id has 4 bytes at most, and a size 8.
        let id_len = vint_len(rest, 4)?;
        let id = number(&rest[..id_len]);
        let rest = &rest[id_len..];
        let size_len = vint_len(rest, 8)?;
        // RFC 8794, section 4: the marker bit gives the length of the number, and is no part of it. Only an id is written
        // with its marker.
        let values = u64::MAX >> (64 - 7 * size_len);
        let size = number(&rest[..size_len]) & values;
        // RFC 8794, section 6.2: all value bits set mean an unknown size, as in a live recording.
        let size = if size == values { u64::MAX } else { size };
        Some(Self { id: u32::try_from(id).ok()?, body: at + (id_len + size_len) as u64, size })
    }

    /// One past the last byte.
    pub(super) fn end(&self) -> u64 {
        self.body.saturating_add(self.size)
    }

    /// The elements in this one whose headers are here.
    fn children<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Self> + use<'a> {
        let (mut at, end) = (self.body, self.end());
        std::iter::from_fn(move || {
            // Each one is at least 2 bytes long, so this ends.
            let child = Self::read(bytes, at).filter(|_| at < end)?;
            at = child.end();
            Some(child)
        })
    }

    /// The number that the body is, if it is here.
    fn value(&self, bytes: &[u8]) -> Option<u64> {
        let start = usize::try_from(self.body).ok()?;
        // RFC 8794, section 7.2: an unsigned integer has 8 bytes at most.
        let len = usize::try_from(self.size).ok().filter(|len| *len <= 8)?;
        Some(number(bytes.get(start..start + len)?))
    }
}

/// The position of the element `id`, counted from the segment's body, if `element` is a SeekHead that contains it.
pub(super) fn seek_position(bytes: &[u8], element: &Element, id: u32) -> Option<u64> {
    let child = |of: &Element, id: u32| of.children(bytes).find(|child| child.id == id)?.value(bytes);
    let is_of = |seek: &Element| child(seek, SEEK_ID) == Some(id.into());
    let mut seeks = element.children(bytes).filter(|child| element.id == SEEK_HEAD && child.id == SEEK);
    child(&seeks.find(is_of)?, SEEK_POSITION)
}

/// Length of the variable-size number that `bytes` begin with: the number of zero bits before its marker, and one
/// (RFC 8794, section 4).
fn vint_len(bytes: &[u8], most: usize) -> Option<usize> {
    let len = bytes.first()?.leading_zeros() as usize + 1;
    (len <= most && len <= bytes.len()).then_some(len)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
