//! MP4 and QuickTime: boxes in boxes (ISO 14496-12), of which the first bytes have some.

use super::fourcc::quicktime_codec;
use super::kinds::AudioCodec::{self, Aac, HeAac, Mp3};
use super::kinds::ContainerFormat::{FragmentedMp4, Mp4};
use super::kinds::Guess;

/// A box: its name, and as much of its content as there is.
type Entry<'a> = (&'a [u8; 4], &'a [u8]);

/// The boxes that these bytes consist of, up to the first that makes no sense. The last may be cut short.
struct Boxes<'a>(&'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (size, rest) = self.0.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_first_chunk::<4>()?;
        let (len, body) = match u32::from_be_bytes(*size) {
            // ISO 14496-12, section 4.2: 0 is the last box, which goes on to the end of the file.
            0 => (u64::MAX, rest),
            // 1 is a size of 64 bits, which follows the name.
            1 => {
                let (size, rest) = rest.split_first_chunk::<8>()?;
                (u64::from_be_bytes(*size).checked_sub(16)?, rest)
            }
            size => (u64::from(size).checked_sub(8)?, rest),
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(body.len());
        let (body, rest) = body.split_at(len);
        self.0 = rest;
        Some((name, body))
    }
}

/// What `bytes`, the first of a resource, are, if they are MP4 or QuickTime.
pub(super) fn sniff(bytes: &[u8]) -> Option<Guess> {
    // The first box is small, or its size is in 64 bits: so this is no text that has a name in it by chance.
    if *bytes.first()? != 0 {
        return None;
    }
    let (first, _) = Boxes(bytes).next()?;
    let known = [b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"mdat", b"free", b"skip", b"wide", b"pnot"];
    if !known.contains(&first) {
        return None;
    }
    let container = if is_fragmented(bytes) { FragmentedMp4 } else { Mp4 };
    Some(Guess { container: Some(container), codec: codec(bytes) })
}

/// True if the file consists of fragments, as far as the first boxes show.
fn is_fragmented(bytes: &[u8]) -> bool {
    // Brands of DASH (ISO 23009-1) and CMAF (ISO 23000-19).
    let promised = |brands: &[u8]| {
        brands.chunks_exact(4).any(|brand| {
            matches!(brand, b"dash" | b"msdh" | b"msix" | b"cmfc" | b"cmf2" | b"cmff" | b"cmfl" | b"cmfs")
        })
    };
    Boxes(bytes).any(|(name, body)| match name {
        // ISO 14496-12, section 8.8.1: `mvex` announces fragments.
        b"moov" => Boxes(body).any(|(name, _)| name == b"mvex"),
        // A fragment, or what comes right before one.
        b"moof" | b"styp" | b"sidx" => true,
        b"ftyp" => promised(body),
        _ => false,
    })
}

/// The codec of the first track with a sound that is known here.
fn codec(bytes: &[u8]) -> Option<AudioCodec> {
    let index = child(bytes, b"moov")?;
    Boxes(index).filter(|(name, _)| *name == b"trak").find_map(|(_, track)| {
        let path = [b"mdia", b"minf", b"stbl", b"stsd"];
        let samples = path.into_iter().try_fold(track, |inside, name| child(inside, name))?;
        // ISO 14496-12, section 8.5.2: version, flags and the number of entries, 8 bytes, come before the first entry. They
        // are no box, and would be read as the size and the name of one.
        let (name, entry) = Boxes(samples.get(8..)?).next()?;
        sample_codec(name, entry)
    })
}

fn child<'a>(inside: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    Boxes(inside).find(|(found, _)| *found == name).map(|(_, body)| body)
}

fn sample_codec(name: &[u8; 4], entry: &[u8]) -> Option<AudioCodec> {
    if name != b"mp4a" {
        return quicktime_codec(name);
    }
    // QuickTime's later versions of the entry are longer.
    let fields = match entry.get(8..10)? {
        // Version 1 adds four numbers of 32 bits, version 2 adds 36 bytes (QuickTime File Format, "Sound Sample Descriptions").
        [0, 1] => 28 + 16,
        [0, 2] => 28 + 36,
        _ => 28,
    };
    let inside = entry.get(fields..)?;
    // QuickTime wraps it in a `wave` box (QuickTime File Format, "siDecompressionParam atom").
    let described = child(inside, b"esds").or_else(|| child(child(inside, b"wave")?, b"esds"))?;
    // `esds` is a full box (ISO 14496-14): 4 bytes of version and flags come first.
    stream_codec(described.get(4..)?)
}

/// The codec by an ES descriptor (ISO 14496-1, section 7.2.6.5).
fn stream_codec(bytes: &[u8]) -> Option<AudioCodec> {
    let stream = descriptor(bytes, 0x03)?;
    let flags = *stream.get(2)?;
    let mut at = 3;
    // The flags name optional fields before the next descriptor: the id of another stream, a URL with its length, the id of
    // a clock.
    if flags & 0x80 != 0 {
        at += 2;
    }
    if flags & 0x40 != 0 {
        at += 1 + usize::from(*stream.get(at)?);
    }
    if flags & 0x20 != 0 {
        at += 2;
    }
    let config = descriptor(stream.get(at..)?, 0x04)?;
    match config.first()? {
        // objectTypeIndication (ISO 14496-1, section 7.2.6.6.2): 0x40 is MPEG-4 audio, 0x66 to 0x68 are AAC of MPEG-2, 0x69 and
        // 0x6b MP3.
        // Behind 13 bytes of fixed fields: this type, the stream's type, and the sizes and rates of the decoder's buffer.
        0x40 => Some(aac_profile(descriptor(config.get(13..)?, 0x05)?)),
        0x66..=0x68 => Some(Aac),
        0x69 | 0x6b => Some(Mp3),
        _ => None,
    }
}

/// The content of the descriptor at the start of `bytes`, as much of it as there is, if it is one with this `tag`.
fn descriptor(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (found, mut rest) = bytes.split_first()?;
    if *found != tag {
        return None;
    }
    let mut len = 0;
    // ISO 14496-1, section 8.3.3: a length has at most four bytes of 7 bits; the highest bit says that another follows.
    for _ in 0..4 {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(&rest[..len.min(rest.len())])
}

/// The profile by an AudioSpecificConfig (ISO 14496-3, section 1.6.2.1), where it is spelled out.
fn aac_profile(config: &[u8]) -> AudioCodec {
    let object_type = config.first().map_or(0, |byte| byte >> 3);
    // ISO 14496-3, section 1.6.2.1: 11 bits of syncExtensionType, 0x2b7, and the object type 5 are the bytes 0x56 and 0xe5;
    // the next bit announces spectral band replication. It stands at the end, for players that don't know it to overlook.
    let is_extended = matches!(config, [_, _, 0x56, 0xe5, flags, ..] if flags & 0x80 != 0);
    match object_type {
        // audioObjectType of ISO 14496-3: 5 is spectral band replication, 29 adds parametric stereo.
        5 | 29 => HeAac,
        _ if is_extended => HeAac,
        _ => Aac,
    }
}
