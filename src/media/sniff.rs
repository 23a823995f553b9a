//! What the first bytes give away. Every look at them takes care that they may end anywhere.

use super::fourcc::quicktime_codec;
use super::kinds::AudioCodec::{self, Adpcm, Alac, Flac, HeAac, Mp2, Mp3, Opus, Pcm, Vorbis};
use super::kinds::{ContainerFormat as In, Guess, guess_both, guess_of};
use super::{mp4, ts};

/// Maximum distance to the first whole frame of a station that was joined in mid-frame. A frame of ADTS has 8 KiB at most.
const SCAN: usize = 16 * 1024;

/// What `bytes`, the first of a resource, are; `None` if they are not known for audio. An empty guess is audio of a
/// kind that shows only further on.
pub(super) fn sniff(bytes: &[u8]) -> Option<Guess> {
    let untagged = behind_id3(bytes);
    if let Some(guess) = signature(untagged).or_else(|| frames(untagged)) {
        return Some(guess);
    }
    starts_with_id3(bytes).then(Guess::default)
}

/// True if `bytes`, the first of a resource, are those of audio or video.
#[cfg(feature = "hls")]
pub(crate) fn is_known(bytes: &[u8]) -> bool {
    sniff(bytes).is_some()
}

/// True for a tag of ID3v2, which comes before MP3 mostly and before AAC and FLAC sometimes.
pub(super) fn starts_with_id3(bytes: &[u8]) -> bool {
    id3_len(bytes).is_some()
}

/// The bytes after all ID3v2 tags at the start; none if the tags are longer than what is here.
fn behind_id3(mut bytes: &[u8]) -> &[u8] {
    while let Some(len) = id3_len(bytes) {
        bytes = bytes.get(len..).unwrap_or_default();
    }
    bytes
}

/// The length of the tag (ID3v2.4, section 3.1), its header included.
fn id3_len(bytes: &[u8]) -> Option<usize> {
    let [b'I', b'D', b'3', major, minor, flags, size @ ..] = bytes.first_chunk::<10>()? else { return None };
    // ID3v2.4, section 3.1: no version byte is 0xff, and no size byte has its highest bit set. So three letters of text are no
    // tag.
    if *major == 0xff || *minor == 0xff || size.iter().any(|byte| byte & 0x80 != 0) {
        return None;
    }
    let body = size.iter().fold(0, |sum, &byte| sum << 7 | usize::from(byte));
    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
    Some(10 + body + footer)
}

/// Formats that begin with a name of theirs.
fn signature(bytes: &[u8]) -> Option<Guess> {
    match bytes.first_chunk::<4>()? {
        b"fLaC" => Some(guess_both(In::Flac, Flac)),
        b"OggS" => Some(Guess { container: Some(In::Ogg), codec: ogg_codec(bytes) }),
        // RF64 and BW64 are WAVE with sizes of 64 bits (EBU Tech 3306, ITU-R BS.2088).
        b"RIFF" | b"RF64" | b"BW64" if bytes.get(8..12) == Some(b"WAVE") => {
            Some(Guess { container: Some(In::Wav), codec: wav_codec(bytes) })
        }
        b"FORM" if bytes.get(8..12) == Some(b"AIFF") => Some(guess_both(In::Aiff, Pcm)),
        b"FORM" if bytes.get(8..12) == Some(b"AIFC") => {
            Some(Guess { container: Some(In::Aiff), codec: aifc_codec(bytes) })
        }
        // With the version of the format, 1: the name alone could be the beginning of a text.
        b"caff" if bytes.get(4..6) == Some(&[0, 1]) => {
            Some(Guess { container: Some(In::Caf), codec: caf_codec(bytes) })
        }
        // The header of EBML (RFC 8794), in which Matroska and WebM are written.
        [0x1a, 0x45, 0xdf, 0xa3] => Some(matroska(bytes)),
        [0x47, ..] if ts::is_transport_stream(bytes) => {
            Some(Guess { container: Some(In::MpegTs), codec: ts::codec(bytes) })
        }
        _ => mp4::sniff(bytes),
    }
}

/// The codec of the first packet of the first page (RFC 3533, section 6).
fn ogg_codec(bytes: &[u8]) -> Option<AudioCodec> {
    let segments = usize::from(*bytes.get(26)?);
    let packet = bytes.get(27 + segments..)?;
    let starts = [(&b"OpusHead"[..], Opus), (b"\x01vorbis", Vorbis), (b"\x7fFLAC", Flac)];
    starts.into_iter().find(|(start, _)| packet.starts_with(start)).map(|(_, codec)| codec)
}

/// The body of the chunk `id` of a RIFF or AIFF file, as much of it as there is.
fn chunk<'a>(bytes: &'a [u8], id: &[u8; 4], size_of: fn([u8; 4]) -> u32) -> Option<&'a [u8]> {
    let mut rest = bytes.get(12..)?;
    loop {
        let (header, body) = rest.split_first_chunk::<8>()?;
        let [a, b, c, d, size @ ..] = *header;
        let size = size_of(size) as usize;
        if [a, b, c, d] == *id {
            return Some(&body[..size.min(body.len())]);
        }
        // RIFF and IFF pad chunks to even lengths, and do not count the padding in the size.
        rest = body.get(size.checked_add(size % 2)?..)?;
    }
}

fn wav_codec(bytes: &[u8]) -> Option<AudioCodec> {
    let format = chunk(bytes, b"fmt ", u32::from_le_bytes)?;
    let tag = |at: usize| Some(u16::from_le_bytes([*format.get(at)?, *format.get(at + 1)?]));
    // An extensible format has its tag at the start of a GUID.
    match if tag(0)? == 0xfffe { tag(24)? } else { tag(0)? } {
        0x01 | 0x03 | 0x06 | 0x07 => Some(Pcm),
        0x02 | 0x11 => Some(Adpcm),
        0x50 => Some(Mp2),
        0x55 => Some(Mp3),
        _ => None,
    }
}

fn aifc_codec(bytes: &[u8]) -> Option<AudioCodec> {
    // AIFF-C: channels, frames, bits of a sample and a rate of 80 bits, 18 bytes, come before the name of the compression.
    quicktime_codec(chunk(bytes, b"COMM", u32::from_be_bytes)?.get(18..22)?)
}

/// The `desc` chunk has to come first, and has the format after the sample rate.
fn caf_codec(bytes: &[u8]) -> Option<AudioCodec> {
    if bytes.get(8..12)? != b"desc" {
        return None;
    }
    // The file's header has 8 bytes, the chunk's 12, and the sample rate 8.
    quicktime_codec(bytes.get(28..32)?)
}

fn matroska(bytes: &[u8]) -> Guess {
    // DocType of the EBML header (RFC 8794, section 11.2.6), with its id and its size of 4: other elements may contain the
    // word.
    let head = &bytes[..bytes.len().min(64)];
    let is_webm = head.windows(7).any(|window| window == b"\x42\x82\x84webm");
    let container = if is_webm { In::WebM } else { In::Matroska };
    Guess { container: Some(container), codec: matroska_codec(bytes) }
}

/// The first CodecID element that names sound.
fn matroska_codec(bytes: &[u8]) -> Option<AudioCodec> {
    // Searched, and not parsed, since elements of any size may come before, and nothing else looks like it. `CodecID` is the
    // element 0x86, and a size below 127 is one byte with its highest bit set (RFC 8794, section 4).
    let found = bytes.windows(4).position(|w| w[0] == 0x86 && w[1] & 0x80 != 0 && &w[2..] == b"A_")?;
    let len = usize::from(bytes[found + 1] & 0x7f);
    let name = &bytes[found + 2..];
    let name = &name[..len.min(name.len())];
    match name {
        b"A_OPUS" => Some(Opus),
        b"A_VORBIS" => Some(Vorbis),
        b"A_FLAC" => Some(Flac),
        b"A_ALAC" => Some(Alac),
        b"A_MPEG/L3" => Some(Mp3),
        b"A_MPEG/L2" => Some(Mp2),
        _ if name.starts_with(b"A_PCM/") => Some(Pcm),
        _ if name.starts_with(b"A_AAC") && name.ends_with(b"SBR") => Some(HeAac),
        _ if name.starts_with(b"A_AAC") => Some(AudioCodec::Aac),
        _ => None,
    }
}

/// One frame of a stream that has nothing but frames.
#[derive(Clone, Copy)]
struct Frame {
    guess: Guess,
    len: usize,
    /// What stays the same from frame to frame.
    constant: [u8; 2],
}

/// MPEG audio and ADTS: frames with a header each, from the first byte or, where a radio was joined, a bit later.
fn frames(bytes: &[u8]) -> Option<Guess> {
    // At the start one header is enough if the second frame is not here yet: a file begins with a frame.
    if let Some(first) = frame(bytes).filter(|first| followed(bytes, *first, 1, true)) {
        return Some(first.guess);
    }
    // Inside of a frame any bytes can look like a header, so here two more frames have to follow.
    (1..bytes.len().min(SCAN)).find_map(|start| {
        let bytes = &bytes[start..];
        frame(bytes).filter(|first| followed(bytes, *first, 2, false)).map(|first| first.guess)
    })
}

/// True if `more` frames of the same kind follow the `first` one in `bytes`.
fn followed(bytes: &[u8], first: Frame, more: usize, believe: bool) -> bool {
    let mut at = first.len;
    for _ in 0..more {
        match bytes.get(at..).filter(|rest| rest.len() >= 6) {
            None => return believe,
            Some(rest) => match frame(rest) {
                Some(next) if next.constant == first.constant && next.guess == first.guess => at += next.len,
                _ => return false,
            },
        }
    }
    true
}

fn frame(bytes: &[u8]) -> Option<Frame> {
    if *bytes.first()? != 0xff {
        return None;
    }
    mpeg_frame(bytes).or_else(|| adts_frame(bytes))
}

/// The header of MPEG audio, layers II and III (ISO 11172-3, section 2.4.1.3; ISO 13818-3).
fn mpeg_frame(bytes: &[u8]) -> Option<Frame> {
    // Bit rates in kbit/s by the four bits of the header. The indices 0 (free format) and 15 (forbidden) are left out.
    const LAYER_2: [usize; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
    const LAYER_3: [usize; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const LOW_RATE: [usize; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    let [_, b, c, _] = *bytes.first_chunk::<4>()?;
    if b & 0xe0 != 0xe0 {
        return None;
    }
    let (slowdown, is_first) = match b >> 3 & 3 {
        // The version: 0 is MPEG 2.5, 2 is MPEG 2, 3 is MPEG 1; 1 is reserved.
        0 => (4, false),
        2 => (2, false),
        3 => (1, true),
        _ => return None,
    };
    // The number of the layer counts down: 1 is layer III, and 2 is layer II.
    let (codec, samples, rates) = match (b >> 1 & 3, is_first) {
        (1, true) => (Mp3, 1152, LAYER_3),
        (1, false) => (Mp3, 576, LOW_RATE),
        (2, true) => (Mp2, 1152, LAYER_2),
        (2, false) => (Mp2, 1152, LOW_RATE),
        // Layer I, 3, is out of use, and the byte order mark of a text in UTF-16 looks like it.
        _ => return None,
    };
    let kilobits = *rates.get(usize::from(c >> 4).checked_sub(1)?)?;
    // The fourth index is reserved.
    let hertz = *[44_100, 48_000, 32_000].get(usize::from(c >> 2 & 3))? / slowdown;
    let padding = usize::from(c >> 1 & 1);
    Some(Frame {
        guess: guess_both(In::Mp3, codec),
        len: samples / 8 * kilobits * 1000 / hertz + padding,
        // Version, layer and sample rate. The bit rate, the padding and the checksum bit may change.
        constant: [b & 0xfe, c & 0x0c],
    })
}

/// The header of ADTS (ISO 13818-7, section 6.2).
fn adts_frame(bytes: &[u8]) -> Option<Frame> {
    let [_, b, c, d, e, f] = *bytes.first_chunk::<6>()?;
    let len = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
    // Layer 0, a known sample rate (samplingFrequencyIndex of ISO 14496-3: 13 and more are reserved), and no frame shorter than its header.
    if b & 0xf6 != 0xf0 || c >> 2 & 0xf > 12 || len < 7 {
        return None;
    }
    // The codec stays open, since HE-AAC has the same header as AAC.
    Some(Frame { guess: guess_of(In::Adts), len, constant: [b, c] })
}

/// True for HTML and XML.
pub(super) fn starts_with_markup(bytes: &[u8]) -> bool {
    const STARTS: [&str; 11] = [
        "<!doctype",
        "<html",
        "<head",
        "<body",
        "<title",
        "<script",
        "<meta",
        "<!--",
        "<?xml",
        "<error",
        "<svg",
    ];
    starts_with_any(bytes, &STARTS)
}

/// True for M3U with its header (HLS included), and PLS.
pub(super) fn starts_with_playlist(bytes: &[u8]) -> bool {
    starts_with_any(bytes, &["#extm3u", "[playlist]"])
}

/// Compares the text that `bytes` start with, whatever its case, its encoding and the white space before it.
fn starts_with_any(bytes: &[u8], starts: &[&str]) -> bool {
    let text = start_of_text(bytes);
    starts.iter().any(|start| text.starts_with(start.as_bytes()))
}

/// The first letters in lower case, without byte order mark and white space.
fn start_of_text(bytes: &[u8]) -> Vec<u8> {
    let (text, is_wide) = match bytes {
        [0xef, 0xbb, 0xbf, text @ ..] => (text, false),
        [0xff, 0xfe, text @ ..] | [0xfe, 0xff, text @ ..] => (text, true),
        text => (text, false),
    };
    // In UTF-16, Latin letters are themselves with a zero beside them, on either side.
    let letters = text.iter().filter(|&&byte| !is_wide || byte != 0);
    letters.skip_while(|byte| byte.is_ascii_whitespace()).take(16).map(u8::to_ascii_lowercase).collect()
}
