//! How a decoder bisects a file that has no index, as far as the first bytes show it.
//!
//! symphonia 0.6.1 halves what lies between the start of the audio and the end of the file: in Ogg up to two of the largest
//! pages, in FLAC up to 16 KiB. At each place it reads up to the next page and all of that, or up to the next frame, in blocks
//! that begin with 1 KiB and double.

use std::ops::Range;

use super::layout::{flac_head, id3_end, ogg_head, tail};

/// Maximum distance from where the first bytes say that the audio begins to where it does: codebooks of Vorbis, padding, the
/// packets after a picture.
const UNKNOWN_HEAD: u64 = 64 * 1024;

/// Bytes that a decoder reads in one place: blocks of 1 to 8, 16 or 32 KiB, which double. The first value is cut to what a new
/// connection delivers in its first flight (RFC 6928: ten segments of 1,448 bytes), less a response head of 600 bytes: the
/// rest would come a round trip later, and hold the connection until then.
const LOOKS: [u64; 3] = [13_824, 31 * 1024, 63 * 1024];

/// What is read at each place, if the frames' size is not known.
const USUAL_LOOK: u64 = LOOKS[1];

/// A file that a decoder bisects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bisected {
    /// Where the decoder looks first. Empty if the file has a table, and only the gaps between its entries are bisected.
    pub(crate) first: Range<u64>,
    /// Bytes that it reads in each place.
    pub(crate) look: u64,
}

/// How a decoder bisects the file of `len` bytes that begins with `first`. `None` if it does not, as far as `first` shows.
pub(crate) fn bisected(first: &[u8], len: u64) -> Option<Bisected> {
    let start = id3_end(first);
    let bytes = tail(first, start);
    match bytes {
        [b'f', b'L', b'a', b'C', ..] => {
            let has_table = has_seektable(bytes);
            let head = start.saturating_add(flac_head(bytes));
            let first = if has_table { 0..0 } else { first_place(head, len) };
            Some(Bisected { first, look: max_flac_frame(bytes).map_or(USUAL_LOOK, look) })
        }
        [b'O', b'g', b'g', b'S', ..] => {
            // Up to the next page, and all of that; later pages may be larger.
            let look = ogg_page(bytes).map_or(LOOKS[2], |page| look(page * 5 / 2));
            Some(Bisected { first: first_place(ogg_head(bytes), len), look })
        }
        _ => None,
    }
}

/// The middle of what lies between the head, which has `head` bytes at least, and the end.
fn first_place(head: u64, len: u64) -> Range<u64> {
    // As symphonia 0.6 halves: the decoder's first jump has to land inside of the range that is fetched for it.
    let middle = |head: u64| (head.saturating_add(len) / 2).min(len);
    middle(head.saturating_sub(UNKNOWN_HEAD))..middle(head.saturating_add(UNKNOWN_HEAD))
}

/// What a decoder reads that needs `bytes`.
fn look(bytes: u64) -> u64 {
    match bytes {
        // Few frames are as large as the largest one, and few places lie right behind the beginning of one.
        0..=0x4000 => LOOKS[0],
        0x4001..=0x8000 => LOOKS[1],
        _ => LOOKS[2],
    }
}

/// The largest frame, from STREAMINFO (RFC 9639, section 8.2): the first block, in which 0 is unknown.
fn max_flac_frame(bytes: &[u8]) -> Option<u64> {
    // Behind the signature, the header of the block, and two block sizes of 16 bits with a frame size of 24 bits.
    let size = tail(bytes, 4 + 4 + 7).first_chunk::<3>()?;
    let size = size.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
    (size > 0).then_some(size)
}

/// True if a block before the frames is a seek table (RFC 9639, section 8.5) that is not empty.
fn has_seektable(bytes: &[u8]) -> bool {
    let mut at = 4_u64;
    while let Some([kind, size @ ..]) = tail(bytes, at).first_chunk::<4>() {
        let size = size.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
        // RFC 9639, section 8.1: the highest bit marks the last block, the others are its type. 3 is a seek table.
        if kind & 0x7f == 3 && size > 0 {
            return true;
        }
        if kind & 0x80 != 0 {
            return false;
        }
        at += 4 + size;
    }
    false
}

/// The size of a page of audio: of the last one whose header is there (RFC 3533, section 6).
fn ogg_page(bytes: &[u8]) -> Option<u64> {
    let (mut at, mut pages, mut last) = (0_u64, 0, None);
    while let [b'O', b'g', b'g', b'S', rest @ ..] = tail(bytes, at) {
        // RFC 3533, section 6: byte 26 of the header counts the segments, and their sizes follow; four bytes are matched above.
        let Some(segments) = rest.get(22).and_then(|count| rest.get(23..23 + usize::from(*count))) else {
            break;
        };
        let body: u64 = segments.iter().map(|segment| u64::from(*segment)).sum();
        let page = 27 + segments.len() as u64 + body;
        // RFC 7845, section 3, and Vorbis alike: no audio is on the first page, nor on the one where the comments begin.
        last = Some(page).filter(|_| pages >= 2);
        pages += 1;
        at += page;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 30_000_000;

    /// STREAMINFO with a largest frame, and further blocks of a kind and a size.
    fn flac(max_frame: u32, blocks: &[(u8, u32)]) -> Vec<u8> {
        let mut info = [0; 34];
        info[7..10].copy_from_slice(&max_frame.to_be_bytes()[1..]);
        let mut bytes = [&b"fLaC\0\0\0\x22"[..], &info].concat();
        for (kind, size) in blocks {
            bytes.push(*kind);
            bytes.extend_from_slice(&size.to_be_bytes()[1..]);
            bytes.resize(bytes.len() + *size as usize, 0);
        }
        bytes
    }

    fn page(body: usize) -> Vec<u8> {
        let mut segments = vec![255; body / 255];
        segments.push((body % 255) as u8);
        [&b"OggS\0\0"[..], &[0; 20], &[segments.len() as u8], &segments, &vec![0; body]].concat()
    }

    #[test]
    fn flac_without_a_table_is_halved_from_its_first_frame_on() {
        let bytes = flac(9_000, &[(4, 100), (0x81, 1000)]);
        let Bisected { first, look } = bisected(&bytes, LEN).unwrap();
        assert!(first.contains(&((bytes.len() as u64 + LEN) / 2)), "{first:?}");
        assert!(first.end - first.start <= UNKNOWN_HEAD);
        assert_eq!(look, LOOKS[0]);
        let Bisected { first, .. } = bisected(&flac(9_000, &[(3, 18), (0x81, 1000)]), LEN).unwrap();
        assert!(first.is_empty());
    }

    #[test]
    fn a_picture_moves_the_first_frame() {
        let picture = 300_000;
        let mut bytes = flac(0, &[(6, picture), (0x81, 8192)]);
        let middle = (bytes.len() as u64 + LEN) / 2;
        bytes.truncate(16 * 1024);
        let Bisected { first, look } = bisected(&bytes, LEN).unwrap();
        assert!(first.contains(&middle), "{first:?}, {middle}");
        assert_eq!(look, USUAL_LOOK);
    }

    #[test]
    fn a_look_at_ogg_is_as_long_as_its_pages() {
        let ogg = |body| [page(30), page(4000), page(body)].concat();
        let looks = [4000, 12_000, 26_000].map(|body| bisected(&ogg(body), LEN).unwrap().look);
        assert_eq!(looks, LOOKS);
        let Bisected { first, look } = bisected(&ogg(4000)[..3000], LEN).unwrap();
        assert!(first.contains(&((4106 + LEN) / 2)));
        assert_eq!(look, LOOKS[2]);
        assert_eq!(bisected(b"RIFF\0\0\0\0WAVE", LEN), None);
    }
}
