//! What kind of media it is: from the content type, the URL's extension and the first bytes.
//!
//! Hints for choosing a decoder, and the means to tell an error page from audio. Servers often name the wrong type or none,
//! so the bytes have the last word. Nothing here checks that the rest of a file is in order.

mod mp4;
mod names;
mod sniff;
mod ts;

use std::fmt;

/// How audio is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AudioCodec {
    /// MPEG-1 and 2 Audio Layer III.
    Mp3,
    /// MPEG-1 and 2 Audio Layer II.
    Mp2,
    /// Advanced Audio Coding, low complexity. HE-AAC that does not say what it is looks the same.
    Aac,
    /// High-efficiency AAC: with spectral band replication, with or without parametric stereo.
    HeAac,
    /// Apple Lossless.
    Alac,
    /// Free Lossless Audio Codec.
    Flac,
    /// Vorbis.
    Vorbis,
    /// Opus.
    Opus,
    /// Samples as they are, G.711's companded ones included.
    Pcm,
    /// Adaptive differential PCM: IMA or Microsoft.
    Adpcm,
}

/// What the coded audio is packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerFormat {
    /// Frames of MP3 or MP2 one after another, maybe behind a tag.
    Mp3,
    /// AAC frames one after another, each with an ADTS header.
    Adts,
    /// MPEG-4 or QuickTime with one index, also with an `.m4a` name.
    Mp4,
    /// MPEG-4 in fragments, each with an index of its own.
    FragmentedMp4,
    /// MPEG transport stream.
    MpegTs,
    /// Ogg.
    Ogg,
    /// FLAC's own.
    Flac,
    /// RIFF/WAVE, also with 64-bit sizes.
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

/// What one source of knowledge says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Guess {
    codec: Option<AudioCodec>,
    container: Option<ContainerFormat>,
}

/// A container whose codec is open.
fn guess_of(container: ContainerFormat) -> Guess {
    Guess { container: Some(container), codec: None }
}

/// A codec in its container.
fn guess_both(container: ContainerFormat, codec: AudioCodec) -> Guess {
    Guess { container: Some(container), codec: Some(codec) }
}

impl MediaInfo {
    /// Guesses from what is there: the `Content-Type` header, the URL, and as many of the first bytes as there are; a few
    /// KiB are plenty, and none is fine. The bytes overrule the content type, and that the extension. A weaker source adds
    /// what a stronger one leaves open, as long as it does not contradict it.
    pub fn detect(content_type: Option<&str>, url: &str, first: &[u8]) -> Self {
        let mut info = Self::default();
        info.add(sniff::sniff(first).unwrap_or_default(), HintSource::MagicBytes);
        info.add(content_type.map(names::from_content_type).unwrap_or_default(), HintSource::ContentType);
        info.add(names::from_url(url), HintSource::Extension);
        if info.container.is_none() && sniff::starts_with_id3(first) {
            // A tag longer than what is here, and nobody knows what follows: it mostly is this.
            info.add(guess_of(ContainerFormat::Mp3), HintSource::MagicBytes);
        }
        if let (None, Some((container, source))) = (info.codec, info.container) {
            info.codec = container.usual_codec().map(|codec| (codec, source));
        }
        info
    }

    /// What a file of this container is called in the end, without the dot: what decoders take for a hint.
    pub fn extension(&self) -> Option<&'static str> {
        self.container.map(|(container, _)| container.extension())
    }

    /// Takes from `guess` what is still missing, if it is about the same thing.
    fn add(&mut self, guess: Guess, source: HintSource) {
        let other_container = matches!((self.container, guess.container),
            (Some((known, _)), Some(new)) if !known.agrees_with(new));
        let other_codec = matches!((self.codec, guess.codec), (Some((known, _)), Some(new)) if known != new);
        if !other_container && !other_codec {
            self.container = self.container.or(guess.container.map(|container| (container, source)));
            self.codec = self.codec.or(guess.codec.map(|codec| (codec, source)));
        }
    }
}

impl ContainerFormat {
    /// The extension that its files mostly have, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Adts => "aac",
            Self::Mp4 | Self::FragmentedMp4 => "m4a",
            Self::MpegTs => "ts",
            Self::Ogg => "ogg",
            Self::Flac => "flac",
            Self::Wav => "wav",
            Self::Aiff => "aiff",
            Self::Caf => "caf",
            Self::Matroska => "mkv",
            Self::WebM => "webm",
        }
    }

    /// True for the same format, or for two where one is a special case of the other.
    fn agrees_with(self, other: Self) -> bool {
        let family = |format| match format {
            Self::FragmentedMp4 => Self::Mp4,
            Self::WebM => Self::Matroska,
            other => other,
        };
        family(self) == family(other)
    }

    /// The codec that is in it unless something says otherwise.
    fn usual_codec(self) -> Option<AudioCodec> {
        match self {
            Self::Mp3 => Some(AudioCodec::Mp3),
            Self::Adts => Some(AudioCodec::Aac),
            Self::Flac => Some(AudioCodec::Flac),
            _ => None,
        }
    }
}

impl fmt::Display for AudioCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mp3 => "MP3",
            Self::Mp2 => "MP2",
            Self::Aac => "AAC",
            Self::HeAac => "HE-AAC",
            Self::Alac => "ALAC",
            Self::Flac => "FLAC",
            Self::Vorbis => "Vorbis",
            Self::Opus => "Opus",
            Self::Pcm => "PCM",
            Self::Adpcm => "ADPCM",
        })
    }
}

impl fmt::Display for ContainerFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mp3 => "MP3",
            Self::Adts => "ADTS",
            Self::Mp4 => "MP4",
            Self::FragmentedMp4 => "fragmented MP4",
            Self::MpegTs => "MPEG-TS",
            Self::Ogg => "Ogg",
            Self::Flac => "FLAC",
            Self::Wav => "WAV",
            Self::Aiff => "AIFF",
            Self::Caf => "CAF",
            Self::Matroska => "Matroska",
            Self::WebM => "WebM",
        })
    }
}

/// The first bytes of something, as many as may tell what it is.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes(Vec<u8>);

impl FirstBytes {
    /// An index at the front of an MP4 names its codec, and a radio joined between two frames shows three of them.
    const MOST: usize = 16 * 1024;

    /// Keeps what of `bytes`, which lie at `offset`, comes next.
    pub(crate) fn add(&mut self, offset: u64, bytes: &[u8]) {
        if offset == self.0.len() as u64 {
            let room = Self::MOST.saturating_sub(self.0.len()).min(bytes.len());
            self.0.extend_from_slice(&bytes[..room]);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// True if this is a page, a list or a message, not media: magic bytes of audio overrule the content type.
pub(crate) fn looks_like_page(content_type: Option<&str>, first: &[u8]) -> bool {
    if sniff::sniff(first).is_some() {
        return false;
    }
    let essence = content_type.map(names::essence).unwrap_or_default();
    // What many servers call a file they do not know: only what reads as text is one.
    let is_plain = essence == "text/plain";
    let is_text = (is_plain && reads_as_text(first))
        || (essence.starts_with("text/") && !is_plain)
        || ["/json", "+json", "/xml", "+xml", "/javascript"].iter().any(|end| essence.ends_with(end))
        || essence.contains("mpegurl")
        || essence.ends_with("scpls");
    is_text || sniff::starts_with_markup(first) || sniff::starts_with_playlist(first)
}

fn reads_as_text(first: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    // The last character may be cut.
    let is_utf8 = std::str::from_utf8(first).map_or_else(|error| error.error_len().is_none(), |_| true);
    !first.is_empty() && is_utf8 && !first.iter().any(is_control)
}

#[cfg(test)]
mod tests;
