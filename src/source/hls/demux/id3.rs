//! ID3 tags at the beginning of packed audio (section 3.1.3, and the ID3v2.4 structure).

use super::smpb::Smpb;

/// Bytes of a tag's header (ID3v2.4.0, section 3.1).
pub(super) const HEADER: usize = 10;

/// Owner of the private frame that holds the time (section 3.1.3).
const OWNER: &[u8] = b"com.apple.streaming.transportStreamTimestamp\0";

/// Bytes of a comment that are looked at: `iTunSMPB` has about 120 letters, in two bytes each.
const LONGEST_COMMENT: usize = 512;

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
    let mut private = frames(tag).filter(|(kind, _)| kind == b"PRIV");
    let time = private.find_map(|(_, body)| body.strip_prefix(OWNER))?;
    let time: [u8; 8] = time.get(..8)?.try_into().ok()?;
    // Section 3.1.3: 33 bits, the upper 31 are 0.
    Some(u64::from_be_bytes(time) & ((1 << 33) - 1))
}

/// What an encoder has added to the audio, from a whole tag.
pub(super) fn smpb(tag: &[u8]) -> Option<Smpb> {
    frames(tag).find_map(|(kind, body)| {
        // An encoding, of a comment also a language, the name, and the text (ID3v2.4.0 frames, sections 4.2.6 and 4.10).
        let text = match &kind {
            b"COMM" => body.get(4..)?,
            b"TXXX" => body.get(1..)?,
            _ => return None,
        };
        // In every encoding these are the same letters, with 0 or a byte order mark in between.
        let text: Vec<u8> =
            text.iter().take(LONGEST_COMMENT).copied().filter(|byte| matches!(byte, b' '..=b'~')).collect();
        Smpb::parse(text.strip_prefix(Smpb::NAME)?)
    })
}

/// The frames of a whole tag: identifier and body.
fn frames(tag: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let is_v4 = tag.get(3).is_some_and(|major| *major >= 4);
    let mut rest = tag.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        // Padding consists of zeros, and passes for frames without a name and without a body.
        let (head, behind) = rest.split_at_checked(HEADER)?;
        let size: [u8; 4] = head[4..8].try_into().ok()?;
        // ID3v2.3 writes a plain number here, and so do some writers of ID3v2.4. Both agree below 128 bytes.
        let size = synchsafe(&size).filter(|_| is_v4).unwrap_or(u32::from_be_bytes(size) as usize);
        let (body, behind) = behind.split_at_checked(size)?;
        rest = behind;
        Some(([head[0], head[1], head[2], head[3]], body))
    })
}

/// Four bytes of seven bits each.
fn synchsafe(bytes: &[u8]) -> Option<usize> {
    if bytes.iter().any(|byte| *byte >= 0x80) {
        return None;
    }
    Some(bytes.iter().fold(0, |sum, byte| sum << 7 | usize::from(*byte)))
}
