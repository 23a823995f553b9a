//! Finds the container of a segment by its first bytes: names and content types are often wrong.

use super::headers::Family;
use super::id3;

/// Bytes of a packet of MPEG-TS (ISO 13818-1, 2.4.3.2).
pub(super) const PACKET: usize = 188;

/// Bytes that decide: three packets, because a single 0x47 is found anywhere.
const DECISIVE: usize = 3 * PACKET;

/// Bytes in which the first packet is searched.
const LONGEST_JUNK: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Ts,
    Mp4,
    Packed,
}

/// `None` if more bytes are needed, or at the end if it is none of these. Decides by the same bytes however they arrive.
pub(super) fn sniff(bytes: &[u8], is_end: bool) -> Option<Container> {
    if bytes.len() < DECISIVE && !is_end {
        return None;
    }
    let first = &bytes[..bytes.len().min(DECISIVE)];
    if let Some(container) = sniff_start(first) {
        return Some(container);
    }
    // Junk, or the rest of a packet, before the first whole packet; or junk before the first frame.
    if bytes.len() < LONGEST_JUNK && !is_end {
        return None;
    }
    let searched = &bytes[..bytes.len().min(LONGEST_JUNK)];
    let has_packets = (1..searched.len()).any(|at| is_ts(&searched[at..], 4));
    if has_packets {
        return Some(Container::Ts);
    }
    let has_frame = (0..searched.len()).any(|at| begins_with_frames(&searched[at..]));
    has_frame.then_some(Container::Packed)
}

fn sniff_start(first: &[u8]) -> Option<Container> {
    if id3::tag_len(first).is_some() {
        return Some(Container::Packed);
    }
    if is_ts(first, 1) {
        return Some(Container::Ts);
    }
    const BOXES: [&[u8]; 12] = [
        b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"ssix", b"emsg", b"prft", b"free", b"skip",
        b"uuid",
    ];
    if first.get(4..8).is_some_and(|kind| BOXES.contains(&kind)) {
        return Some(Container::Mp4);
    }
    begins_with_frame(first).then_some(Container::Packed)
}

/// True for packets at the right distances: up to three, at least `least`.
fn is_ts(bytes: &[u8], least: usize) -> bool {
    let starts = bytes.iter().step_by(PACKET).take(least.max(3));
    let count = starts.clone().count();
    count >= least && starts.into_iter().all(|byte| *byte == 0x47)
}

fn begins_with_frame(bytes: &[u8]) -> bool {
    [Family::Adts, Family::Mpeg, Family::Ac3].into_iter().any(|family| family.parse(bytes).is_some())
}

/// Two consecutive frames.
fn begins_with_frames(bytes: &[u8]) -> bool {
    [Family::Adts, Family::Mpeg, Family::Ac3].into_iter().any(|family| {
        let header = family.parse(bytes);
        header.and_then(|header| family.parse(bytes.get(header.len..)?)).is_some()
    })
}
