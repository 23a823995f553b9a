//! ID3 tags at the beginning of packed audio (section 3.1.3, and the ID3v2.4 structure).

/// Bytes of a tag's header (ID3v2.4.0, section 3.1).
pub(super) const HEADER: usize = 10;

/// Owner of the private frame that holds the time (section 3.1.3).
const OWNER: &[u8] = b"com.apple.streaming.transportStreamTimestamp\0";

/// Bytes of the tag that `bytes` begin with, header included.
pub(super) fn tag_len(bytes: &[u8]) -> Option<usize> {
    let [b'I', b'D', b'3', major, _, flags, size @ ..] = bytes.get(..HEADER)? else { return None };
    let size = synchsafe(size)?;
    // Older versions have no footer, and another meaning of this bit.
    let footer = if *major == 4 && flags & 0x10 != 0 { HEADER } else { 0 };
    Some(HEADER + size + footer)
}

/// The time of the first sample, in units of 90 kHz, from a whole tag.
pub(super) fn timestamp(tag: &[u8]) -> Option<u64> {
    let is_v4 = tag.get(3)? >= &4;
    let mut frames = tag.get(HEADER..)?;
    // Padding consists of zeros, and passes for frames without a name and without a body.
    while let Some((head, rest)) = frames.split_at_checked(HEADER) {
        let size: [u8; 4] = head[4..8].try_into().ok()?;
        // ID3v2.3 writes a plain number here, and so do some writers of ID3v2.4. Both agree below 128 bytes.
        let size = synchsafe(&size).filter(|_| is_v4).unwrap_or(u32::from_be_bytes(size) as usize);
        let body = rest.get(..size)?;
        if &head[..4] == b"PRIV" {
            if let Some(time) = body.strip_prefix(OWNER) {
                let time: [u8; 8] = time.get(..8)?.try_into().ok()?;
                // Section 3.1.3: 33 bits, the upper 31 are 0.
                return Some(u64::from_be_bytes(time) & ((1 << 33) - 1));
            }
        }
        frames = &rest[size..];
    }
    None
}

/// Four bytes of seven bits each.
fn synchsafe(bytes: &[u8]) -> Option<usize> {
    if bytes.iter().any(|byte| *byte >= 0x80) {
        return None;
    }
    Some(bytes.iter().fold(0, |sum, byte| sum << 7 | usize::from(*byte)))
}
