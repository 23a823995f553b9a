//! The codecs and containers that windway can name, and a guess at both.

use std::fmt;

/// Audio codec.
///
/// ```
/// use windway::media::{AudioCodec, MediaInfo};
///
/// let info = MediaInfo::detect(Some("audio/mpeg"), "http://host/stream", b"");
/// assert!(matches!(info.codec, Some((AudioCodec::Mp3, _))));
/// ```
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
    /// Uncompressed samples, and G.711's companded ones.
    Pcm,
    /// Adaptive differential PCM: IMA or Microsoft.
    Adpcm,
    /// AC-3, also called Dolby Digital.
    Ac3,
    /// Enhanced AC-3, also called Dolby Digital Plus.
    Eac3,
}

/// Container format.
///
/// ```
/// use windway::media::{ContainerFormat, MediaInfo};
///
/// let info = MediaInfo::detect(None, "http://host/track", b"OggS");
/// assert!(matches!(info.container, Some((ContainerFormat::Ogg, _))));
/// ```
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

/// What one source of knowledge says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) codec: Option<AudioCodec>,
    pub(super) container: Option<ContainerFormat>,
}

/// A container whose codec is open.
pub(super) fn guess_of(container: ContainerFormat) -> Guess {
    Guess { container: Some(container), codec: None }
}

/// A codec in its container.
pub(super) fn guess_both(container: ContainerFormat, codec: AudioCodec) -> Guess {
    Guess { container: Some(container), codec: Some(codec) }
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

    /// The media type that its files with audio mostly have: the registered one, where there is one.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg", // RFC 3003
            Self::Adts => "audio/aac",
            Self::Mp4 | Self::FragmentedMp4 => "audio/mp4", // RFC 4337
            Self::MpegTs => "video/mp2t",                   // RFC 3555; there is none for audio alone
            Self::Ogg => "audio/ogg",                       // RFC 5334
            Self::Flac => "audio/flac",                     // RFC 9639
            Self::Wav => "audio/wav", // what all use in place of audio/vnd.wave (RFC 2361)
            Self::Aiff => "audio/aiff",
            Self::Caf => "audio/x-caf",
            Self::Matroska => "audio/matroska", // RFC 9559
            Self::WebM => "audio/webm",
        }
    }

    /// True for the same format, or for two where one is a special case of the other.
    pub(super) fn agrees_with(self, other: Self) -> bool {
        let family = |format| match format {
            Self::FragmentedMp4 => Self::Mp4,
            Self::WebM => Self::Matroska,
            other => other,
        };
        family(self) == family(other)
    }

    /// The codec that is in it unless something says otherwise.
    pub(super) fn usual_codec(self) -> Option<AudioCodec> {
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
            Self::Ac3 => "AC-3",
            Self::Eac3 => "E-AC-3",
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
