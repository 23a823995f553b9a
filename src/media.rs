//! What kind of media it is: from the content type, the URL's extension and the first bytes.
//!
//! Hints for choosing a decoder, and the means to tell an error page from audio. Nothing here reads further than the
//! bytes it is given.

use url::Url;

/// How audio is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AudioCodec {
    /// MPEG-1 and 2 Audio Layer III.
    Mp3,
    /// Advanced Audio Coding, low complexity or not told which.
    Aac,
    /// High-efficiency AAC.
    HeAac,
    /// Apple Lossless.
    Alac,
    /// Free Lossless Audio Codec.
    Flac,
    /// Vorbis.
    Vorbis,
    /// Opus.
    Opus,
    /// Samples as they are.
    Pcm,
    /// Adaptive differential PCM.
    Adpcm,
}

/// What the coded audio is packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerFormat {
    /// MP3 frames one after another, maybe with tags.
    Mp3,
    /// AAC frames one after another.
    Adts,
    /// MPEG-4, also with an `.m4a` name.
    Mp4,
    /// MPEG-4 in fragments.
    FragmentedMp4,
    /// MPEG transport stream.
    MpegTs,
    /// Ogg.
    Ogg,
    /// FLAC's own.
    Flac,
    /// RIFF/WAVE.
    Wav,
    /// AIFF and AIFF-C.
    Aiff,
    /// Core Audio Format.
    Caf,
    /// Matroska.
    Matroska,
    /// WebM.
    WebM,
}

/// Where a guess comes from, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HintSource {
    /// The extension in the URL's path.
    Extension,
    /// The `Content-Type` header.
    ContentType,
    /// The file's first bytes.
    MagicBytes,
}

/// What kind of media a source seems to be.
///
/// ```
/// use windway::{ContainerFormat, HintSource, MediaInfo};
///
/// let info = MediaInfo::detect(Some("audio/mpeg"), "http://host/track.mp3", b"fLaC\0\0\0\x22");
/// assert_eq!(info.container, Some((ContainerFormat::Flac, HintSource::MagicBytes)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaInfo {
    /// The codec, and what tells it.
    pub codec: Option<(AudioCodec, HintSource)>,
    /// The container, and what tells it.
    pub container: Option<(ContainerFormat, HintSource)>,
}

type Guess = (Option<AudioCodec>, Option<ContainerFormat>);

impl MediaInfo {
    /// Guesses from what is there; the strongest source wins. `first` is as many of the first bytes as there are.
    pub fn detect(content_type: Option<&str>, url: &str, first: &[u8]) -> Self {
        let mut info = Self::default();
        let guesses = [
            (from_magic(first), HintSource::MagicBytes),
            (content_type.map(from_content_type).unwrap_or_default(), HintSource::ContentType),
            (from_extension(url), HintSource::Extension),
        ];
        for ((codec, container), source) in guesses {
            // A weaker source may name the codec only of the container that a stronger one found.
            let agrees = info.container.is_none()
                || container.is_none()
                || info.container.map(|(c, _)| c) == container;
            if agrees {
                info.codec = info.codec.or(codec.map(|codec| (codec, source)));
            }
            info.container = info.container.or(container.map(|container| (container, source)));
        }
        info
    }
}

fn from_content_type(value: &str) -> Guess {
    use {AudioCodec as Codec, ContainerFormat as Container};
    let mime = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let codecs = value.to_ascii_lowercase();
    match mime.as_str() {
        "audio/mpeg" | "audio/mp3" | "audio/x-mp3" | "audio/mpeg3" => {
            (Some(Codec::Mp3), Some(Container::Mp3))
        }
        "audio/aac" | "audio/x-aac" => (Some(Codec::Aac), Some(Container::Adts)),
        "audio/aacp" => (Some(Codec::HeAac), Some(Container::Adts)),
        "audio/mp4" | "audio/x-m4a" | "audio/m4a" | "video/mp4" => {
            let codec = if codecs.contains("alac") { Some(Codec::Alac) } else { None };
            (codec, Some(Container::Mp4))
        }
        "audio/flac" | "audio/x-flac" => (Some(Codec::Flac), Some(Container::Flac)),
        "audio/ogg" | "application/ogg" | "audio/vorbis" | "audio/opus" => {
            let codec = ["opus", "vorbis", "flac"].iter().position(|codec| codecs.contains(codec));
            let codec = codec.map(|index| [Codec::Opus, Codec::Vorbis, Codec::Flac][index]);
            (codec, Some(Container::Ogg))
        }
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => (None, Some(Container::Wav)),
        "audio/aiff" | "audio/x-aiff" => (None, Some(Container::Aiff)),
        "audio/x-caf" => (None, Some(Container::Caf)),
        "audio/x-matroska" | "video/x-matroska" => (None, Some(Container::Matroska)),
        "audio/webm" | "video/webm" => (None, Some(Container::WebM)),
        "video/mp2t" => (None, Some(Container::MpegTs)),
        _ => (None, None),
    }
}

fn from_extension(url: &str) -> Guess {
    use {AudioCodec as Codec, ContainerFormat as Container};
    let Ok(url) = Url::parse(url) else { return (None, None) };
    let Some((_, extension)) = url.path().rsplit_once('.') else { return (None, None) };
    match extension.to_ascii_lowercase().as_str() {
        "mp3" => (Some(Codec::Mp3), Some(Container::Mp3)),
        "aac" | "adts" => (Some(Codec::Aac), Some(Container::Adts)),
        "m4a" | "m4b" | "mp4" => (None, Some(Container::Mp4)),
        "m4s" | "cmfa" => (None, Some(Container::FragmentedMp4)),
        "flac" => (Some(Codec::Flac), Some(Container::Flac)),
        "ogg" | "oga" => (None, Some(Container::Ogg)),
        "opus" => (Some(Codec::Opus), Some(Container::Ogg)),
        "wav" | "wave" => (None, Some(Container::Wav)),
        "aif" | "aiff" | "aifc" => (None, Some(Container::Aiff)),
        "caf" => (None, Some(Container::Caf)),
        "mka" | "mkv" => (None, Some(Container::Matroska)),
        "webm" => (None, Some(Container::WebM)),
        "ts" => (None, Some(Container::MpegTs)),
        _ => (None, None),
    }
}

fn from_magic(first: &[u8]) -> Guess {
    use {AudioCodec as Codec, ContainerFormat as Container};
    let at = |offset: usize, magic: &[u8]| first.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let has = |magic: &[u8]| first.windows(magic.len()).any(|window| window == magic);
    if at(0, b"fLaC") {
        return (Some(Codec::Flac), Some(Container::Flac));
    }
    if at(0, b"OggS") {
        let codecs =
            [(&b"OpusHead"[..], Codec::Opus), (b"\x01vorbis", Codec::Vorbis), (b"\x7fFLAC", Codec::Flac)];
        let codec = codecs.iter().find(|(magic, _)| has(magic)).map(|(_, codec)| *codec);
        return (codec, Some(Container::Ogg));
    }
    if at(0, b"RIFF") && at(8, b"WAVE") {
        return (wave_codec(first), Some(Container::Wav));
    }
    if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        return (at(8, b"AIFF").then_some(Codec::Pcm), Some(Container::Aiff));
    }
    if at(0, b"caff") {
        return (None, Some(Container::Caf));
    }
    if at(4, b"styp")
        || at(4, b"moof")
        || (at(4, b"ftyp") && (at(8, b"iso5") || at(8, b"iso6") || at(8, b"dash")))
    {
        return (None, Some(Container::FragmentedMp4));
    }
    if at(4, b"ftyp") {
        return (None, Some(Container::Mp4));
    }
    if at(0, &[0x1A, 0x45, 0xDF, 0xA3]) {
        return (None, Some(if has(b"webm") { Container::WebM } else { Container::Matroska }));
    }
    if at(0, b"ID3") {
        return (None, Some(Container::Mp3));
    }
    match first {
        // Sync word with layer 0 is ADTS; with layer III it is MP3 (ISO 13818-7, 11172-3).
        [0xFF, second, ..] if second & 0xF6 == 0xF0 => (Some(Codec::Aac), Some(Container::Adts)),
        [0xFF, second, ..] if second & 0xE6 == 0xE2 => (Some(Codec::Mp3), Some(Container::Mp3)),
        [0x47, ..]
            if first.get(188).is_none_or(|sync| *sync == 0x47)
                && first.get(3).is_some_and(|flags| flags & 0x30 != 0) =>
        {
            (None, Some(Container::MpegTs))
        }
        _ => (None, None),
    }
}

/// The codec of a WAVE file whose format chunk comes first, as it mostly does.
fn wave_codec(first: &[u8]) -> Option<AudioCodec> {
    let format = first.get(20..22).filter(|_| first.get(12..16) == Some(b"fmt "))?;
    match u16::from_le_bytes([format[0], format[1]]) {
        1 | 3 | 0xFFFE => Some(AudioCodec::Pcm),
        2 | 0x11 => Some(AudioCodec::Adpcm),
        0x55 => Some(AudioCodec::Mp3),
        _ => None,
    }
}

/// True if this is a page, a list or a message, not media: magic bytes of audio overrule the content type.
pub(crate) fn looks_like_page(content_type: Option<&str>, first: &[u8]) -> bool {
    if from_magic(first) != (None, None) {
        return false;
    }
    let mime =
        content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // What many servers call a file they do not know: only what reads as text is one.
    let is_plain = mime == "text/plain";
    let is_text = (is_plain && reads_as_text(first))
        || (mime.starts_with("text/") && !is_plain)
        || mime.ends_with("/json")
        || mime.ends_with("+json")
        || mime.ends_with("/xml")
        || mime.ends_with("+xml")
        || mime.contains("mpegurl")
        || mime == "audio/x-scpls";
    is_text || begins_like_page(first)
}

fn reads_as_text(first: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    // The last character may be cut.
    let is_utf8 = std::str::from_utf8(first).map_or_else(|error| error.error_len().is_none(), |_| true);
    !first.is_empty() && is_utf8 && !first.iter().any(is_control)
}

fn begins_like_page(first: &[u8]) -> bool {
    let text = first.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(first).trim_ascii_start();
    let begins = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    let tags: [&[u8]; 7] =
        [b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"#EXTM3U", b"[playlist]"];
    tags.into_iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn magic(first: &[u8]) -> MediaInfo {
        MediaInfo::detect(None, "http://host/", first)
    }

    #[test]
    fn first_bytes_tell_the_container() {
        let cases: [(&[u8], ContainerFormat); 10] = [
            (b"fLaC\0", ContainerFormat::Flac),
            (b"OggS\0\x02", ContainerFormat::Ogg),
            (b"RIFF\x24\0\0\0WAVEfmt ", ContainerFormat::Wav),
            (b"FORM\0\0\0\0AIFFCOMM", ContainerFormat::Aiff),
            (b"\0\0\0\x20ftypM4A ", ContainerFormat::Mp4),
            (b"\0\0\0\x18styp", ContainerFormat::FragmentedMp4),
            (b"\x1A\x45\xDF\xA3....webm", ContainerFormat::WebM),
            (b"ID3\x04", ContainerFormat::Mp3),
            (b"\xFF\xFB\x90", ContainerFormat::Mp3),
            (b"\xFF\xF1\x50", ContainerFormat::Adts),
        ];
        for (first, container) in cases {
            assert_eq!(magic(first).container, Some((container, HintSource::MagicBytes)), "{first:?}");
        }
    }

    #[test]
    fn a_weaker_source_names_the_codec_of_the_same_container_only() {
        let info = MediaInfo::detect(Some("audio/ogg; codecs=opus"), "http://host/a", b"OggS");
        assert_eq!(info.codec, Some((AudioCodec::Opus, HintSource::ContentType)));
        let info = MediaInfo::detect(Some("audio/mpeg"), "http://host/a", b"OggS");
        assert_eq!(info.codec, None);
    }

    #[test]
    fn the_extension_is_the_last_resort() {
        let info =
            MediaInfo::detect(Some("application/octet-stream"), "https://host/a.b/c.FLAC?token=x.mp3", b"");
        assert_eq!(info.codec, Some((AudioCodec::Flac, HintSource::Extension)));
    }

    #[test]
    fn pages_are_told_from_media() {
        assert!(looks_like_page(Some("text/html; charset=utf-8"), b"hello"));
        assert!(looks_like_page(None, b"\xEF\xBB\xBF \r\n<!DOCTYPE html><html>"));
        assert!(looks_like_page(Some("application/octet-stream"), b"<HTML>"));
        assert!(looks_like_page(Some("audio/x-mpegurl"), b"http://host/a.mp3"));
        assert!(looks_like_page(Some("text/plain"), b"not found"));
        assert!(!looks_like_page(Some("text/plain"), b"fLaC\0\0"));
        assert!(!looks_like_page(Some("text/plain"), b"\x00\xFE raw"));
        assert!(!looks_like_page(Some("application/octet-stream"), b"\x00\x01\x02"));
        assert!(!looks_like_page(None, b""));
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(content_type in ".{0,40}", url in ".{0,40}", first in any::<Vec<u8>>()) {
            MediaInfo::detect(Some(&content_type), &url, &first);
            looks_like_page(Some(&content_type), &first);
        }
    }
}
