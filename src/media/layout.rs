//! Which bytes a decoder reads next of a file, as far as the first ones tell, so that they can be fetched before it asks.
//!
//! What symphonia 0.6.1 and FFmpeg 5.1 read of local files of 4 minutes, up to the first packet, and after a seek to 60 %. The
//! first is recorded by `cargo bench --bench first_sample -- --reads`; it reads blocks of 1 to 32 KiB that double. FFmpeg
//! reads blocks of 32 KiB. Sizes are of what is read in one place; `+` goes on elsewhere.
//!
//! | | symphonia opens | symphonia seeks | FFmpeg opens | FFmpeg seeks |
//! |---|---|---|---|---|
//! | first of all | the last 160 bytes (tags) | | in ADTS the last 128 + 32 | |
//! | MP3 with Xing, VBRI | ID3v2 tag with its picture, 3 KiB | 7 KiB at the mean bit rate's place | tag, 64 KiB | all up to the place |
//! | MP3 without | tag, 15 KiB | 3 KiB at that place | tag, 64 KiB | all up to the place |
//! | FLAC | metadata with its picture, 31 KiB | 31 KiB | metadata, 160 KiB | the last 31 KiB + 4 × 160 KiB near the place |
//! | FLAC without a seek table | the same | 8 halvings of 31 MB, 1 to 15 KiB each | the same | the same |
//! | Ogg | headers with their picture + the last 65,307 bytes + 31 KiB behind the headers | 5 halvings of 6 MB, 63 KiB each | the same three | the last 112 KiB + 20 steps, 32 to 96 KiB each |
//! | MP4, index last | 1 KiB + `moov` and 64 KiB before it + 1 KiB | 1 KiB | 32 KiB + `moov` + 32 KiB | 32 KiB |
//! | MP4, index first | `moov`, 1 KiB | 1 KiB | `moov`, 32 KiB | 32 KiB |
//! | fragmented MP4 | 3 KiB | all up to the place | each `moof`, 32 KiB each | 32 KiB |
//! | the same with `sidx` | 3 KiB | all up to the place | 32 KiB + the last 4 bytes + 32 KiB | 32 KiB + 32 KiB |
//! | WAV | 7 KiB | 7 KiB | 288 KiB | 32 KiB |
//! | AIFF | 1 KiB + the last 64 KiB + 7 KiB | 7 KiB | 256 KiB | 32 KiB |
//! | ADTS | 63 KiB at the start and at each quarter | all up to the place | 32 KiB | all up to the place |
//! | Matroska | attachments with their picture + Cues + 1 KiB | a cluster, 128 KiB | attachments, 32 KiB | Cues + 32 KiB |
//!
//! How a decoder bisects is in [`bisected`](mod@super::bisected).
//!
//! Everything here is untrusted: a file may claim anything of itself. What comes out is bounded by [`MAX_RANGES`] and
//! [`MAX_BYTES`].

use std::ops::Range;

use super::FirstBytes;
use super::ebml::{self, Element};

/// Maximum number of ranges: each may cost a request before the decoder has asked for a byte of it.
pub(crate) const MAX_RANGES: usize = 4;

/// Maximum number of bytes in all ranges together. The index of ten hours of AAC has 6 MB. A file that lies about its sizes
/// costs no more than this.
pub(crate) const MAX_BYTES: u64 = 8 << 20;

/// What a decoder reads of the audio itself before its first packet.
const AUDIO: u64 = 32 * 1024;

/// Bytes after which symphonia's blocks, which begin with 1 KiB and double, have grown to their largest size of 32 KiB.
const PROBE: u64 = 63 * 1024;

/// Distance before its destination from which symphonia reads on: a shorter skip forward is read, not sought.
const SKIP: u64 = 64 * 1024;

/// Bytes that are fetched of something whose size is not known or not plausible.
const GLANCE: u64 = 64 * 1024;

/// Maximum size of Cues with all that follows them up to the end of the file.
const CUES: u64 = 1 << 20;

/// The largest page of Ogg (RFC 3533, section 6): 27 + 255 + 255 × 255. The last one contains the duration.
pub(super) const OGG_PAGE: u64 = 65_307;

/// What symphonia looks through behind the sound of an AIFF file, if only to find that it is the end.
pub(super) const AIFF_END: u64 = SKIP;

/// Steps of a walk from element to element. No file has so many before its audio.
const MAX_STEPS: usize = 128;

/// The ranges that are read next, the most urgent first. None if the first bytes tell nothing, or too few of them are here.
///
/// ```text
/// first  the file's first bytes, as many as there are; the more, the more they tell
/// len    bytes in the file
/// ```
pub(crate) fn upcoming(first: &[u8], len: u64) -> Vec<Range<u64>> {
    let mut ranges = Ranges { len, left: MAX_BYTES, list: Vec::new() };
    let start = id3_end(first);
    if start > 0 {
        ranges.add_head(start);
    }
    // Nothing is known of what follows a tag that ends behind these bytes.
    let bytes = tail(first, start);
    match bytes {
        [b'f', b'L', b'a', b'C', ..] => ranges.add_head(start.saturating_add(flac_head(bytes))),
        [b'O', b'g', b'g', b'S', ..] => {
            ranges.add(len.saturating_sub(OGG_PAGE)..len);
            ranges.add_head(ogg_head(bytes));
        }
        [b'R', b'I', b'F', b'F', ..] | [b'R', b'F', b'6', b'4', ..] if bytes.get(8..12) == Some(b"WAVE") => {
            ranges.add_head(chunk_start(bytes, b"data", u32::from_le_bytes));
        }
        [b'F', b'O', b'R', b'M', ..] if matches!(bytes.get(8..12), Some(b"AIFF" | b"AIFC")) => {
            ranges.add(len.saturating_sub(AIFF_END)..len);
            ranges.add_head(chunk_start(bytes, b"SSND", u32::from_be_bytes));
        }
        [0x1a, 0x45, 0xdf, 0xa3, ..] => ranges.add_matroska(bytes),
        // The syncword of ADTS with layer 0 (ISO 13818-7, section 6.2).
        [0xff, second, ..] if second & 0xf6 == 0xf0 => {
            // ADTS has no index and no bit rate. symphonia looks at the start and at each quarter to estimate the duration
            // (table above).
            (1..4)
                .for_each(|quarter| ranges.add(len / 4 * quarter..(len / 4 * quarter).saturating_add(PROBE)));
        }
        _ => ranges.add_mp4(bytes),
    }
    ranges.list
}

/// What was found, within the bounds.
struct Ranges {
    /// Bytes in the file.
    len: u64,
    /// Bytes that may still be added.
    left: u64,
    list: Vec<Range<u64>>,
}

impl Ranges {
    fn add(&mut self, range: Range<u64>) {
        let end = range.end.min(self.len).min(range.start.saturating_add(self.left));
        if range.start < end && self.list.len() < MAX_RANGES {
            self.left -= end - range.start;
            self.list.push(range.start..end);
        }
    }

    /// Adds all before the audio, and its start. A head that is longer than the bound is left to the reader.
    fn add_head(&mut self, audio: u64) {
        if audio.saturating_add(AUDIO) <= self.left {
            self.add(0..audio + AUDIO);
        }
    }

    /// Adds what begins at `start` behind the first bytes, and `before` bytes before it: all up to the end if that is no more
    /// than `most`, else a glance.
    fn add_rest(&mut self, start: u64, before: u64, most: u64) {
        let rest = self.len.saturating_sub(start);
        // What lies within the first bytes has been fetched with the opening.
        if start >= FirstBytes::MOST as u64 && rest > 0 {
            let end = start.saturating_add(if rest <= most { rest } else { GLANCE });
            self.add(start.saturating_sub(before)..end);
        }
    }

    /// Walks over the boxes (ISO 14496-12, section 4.2) up to the index.
    fn add_mp4(&mut self, bytes: &[u8]) {
        let known = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"];
        if !bytes.get(4..8).is_some_and(|name| known.iter().any(|known| name == *known)) {
            return;
        }
        let (mut start, mut is_behind_audio) = (0, false);
        for _ in 0..MAX_STEPS {
            let Some((name, size)) = box_header(tail(bytes, start)) else {
                // What follows the audio is the index.
                // Less what lies before the index, so that both together stay within the bound.
                let most = if is_behind_audio { self.left - SKIP } else { GLANCE };
                return self.add_rest(start, SKIP, most);
            };
            match name {
                b"moov" if size.saturating_add(AUDIO) <= self.left => {
                    return self.add(start..start.saturating_add(size + AUDIO));
                }
                // A large index is left to the reader. With a fragment first there is no index of the whole file to fetch.
                b"moov" | b"moof" => return,
                _ => is_behind_audio = name == b"mdat",
            }
            start = start.saturating_add(size);
        }
    }

    /// Adds the Cues, which the SeekHead points to (RFC 9559, section 5.1.1), and all before the first cluster.
    fn add_matroska(&mut self, bytes: &[u8]) {
        let segment = Element::read(bytes, 0).and_then(|header| Element::read(bytes, header.end()));
        let Some(segment) = segment.filter(|element| element.id == ebml::SEGMENT) else { return };
        let mut at = segment.body;
        for _ in 0..MAX_STEPS {
            let Some(element) = Element::read(bytes, at).filter(|element| element.id != ebml::CLUSTER) else {
                break;
            };
            // Cues mostly lie behind all clusters. The seek head has their position, counted from the content of the segment
            // (RFC 9559, sections 5.1.1 and 16).
            if let Some(cues) = ebml::seek_position(bytes, &element, ebml::CUES) {
                self.add_rest(segment.body.saturating_add(cues), 0, CUES);
            }
            at = element.end();
        }
        self.add_head(at);
    }
}

/// The bytes from `at` on. None if that is behind them.
pub(super) fn tail(bytes: &[u8], at: u64) -> &[u8] {
    usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default()
}

/// The end of the ID3v2 tag that `bytes` begin with, 0 if there is none.
pub(super) fn id3_end(bytes: &[u8]) -> u64 {
    match *bytes {
        [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] => {
            // Section 6.2 of ID3v2.4: the highest bit of each byte is 0, so that the size never looks like the sync word of a
            // frame.
            let size = [a, b, c, d].iter().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f));
            // ID3v2.4, section 3.1: a footer of 10 bytes is not counted.
            10 + size + if flags & 0x10 == 0 { 0 } else { 10 }
        }
        _ => 0,
    }
}

/// Where the frames begin, at least (RFC 9639, section 8.1).
pub(super) fn flac_head(bytes: &[u8]) -> u64 {
    let mut at = 4_u64;
    loop {
        let Some([kind, size @ ..]) = tail(bytes, at).first_chunk::<4>() else { return at };
        at += 4 + size.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
        if kind & 0x80 != 0 {
            return at;
        }
    }
}

/// Where the body of a RIFF or AIFF chunk begins, at least.
fn chunk_start(bytes: &[u8], id: &[u8; 4], size_of: fn([u8; 4]) -> u32) -> u64 {
    let mut at = 12_u64;
    loop {
        let Some([a, b, c, d, size @ ..]) = tail(bytes, at).first_chunk::<8>() else { return at };
        at += 8;
        if [*a, *b, *c, *d] == *id {
            return at;
        }
        let size = u64::from(size_of(*size));
        // RIFF and IFF pad chunks to even lengths, and do not count the padding in the size.
        at += size + size % 2;
    }
}

/// The name of a box, and its size with the header. A size that can't be is none.
fn box_header(bytes: &[u8]) -> Option<(&[u8; 4], u64)> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_first_chunk::<4>()?;
    let size = match u32::from_be_bytes(*size) {
        // ISO 14496-12, section 4.2: 0 is the last box, which goes on to the end of the file.
        0 => u64::MAX,
        // 1 is a size of 64 bits, which follows the name.
        1 => u64::from_be_bytes(*rest.first_chunk()?),
        size => size.into(),
    };
    // A size includes its own header of 8 bytes. A smaller one would make the walk stand in place.
    (size >= 8).then_some((name, size))
}

/// Where the comments of the second packet end, at least, which have the picture. 0 if that is not known.
pub(super) fn ogg_head(bytes: &[u8]) -> u64 {
    let packets = ogg_packets(bytes);
    let names = [&b"\x03vorbis"[..], b"OpusTags"];
    let Some((start, name)) =
        names.iter().find_map(|name| Some((packets.windows(name.len()).position(|w| w == *name)?, name)))
    else {
        return 0;
    };
    let mut at = (start + name.len()) as u64;
    let field = |at: u64| tail(&packets, at).first_chunk().map(|field| u64::from(u32::from_le_bytes(*field)));
    // The vendor's name, the number of comments, and each of them.
    let Some(vendor) = field(at) else { return 0 };
    at += 4 + vendor;
    let Some(count) = field(at) else { return 0 };
    at += 4;
    for _ in 0..count {
        let Some(comment) = field(at) else { break };
        at += 4 + comment;
    }
    // RFC 3533, section 6: each 255 bytes cost a byte in the table of segments, and each page of at most 255 segments has 27
    // bytes of header. Two pages more than are full: the first one, which has the first packet alone, and the last one.
    at + at / 255 + 27 * (at / (255 * 255) + 2)
}

/// The bodies of the pages that `bytes` consist of.
fn ogg_packets(bytes: &[u8]) -> Vec<u8> {
    let (mut packets, mut rest) = (Vec::new(), bytes);
    while let [b'O', b'g', b'g', b'S', ..] = rest {
        let Some(segments) = rest.get(26).and_then(|count| rest.get(27..27 + usize::from(*count))) else {
            break;
        };
        let len: usize = segments.iter().map(|segment| usize::from(*segment)).sum();
        let body = &rest[27 + segments.len()..];
        packets.extend_from_slice(&body[..len.min(body.len())]);
        rest = body.get(len..).unwrap_or_default();
    }
    packets
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests;
