//! Combines the hints of the content type, the extension and the first bytes.

use super::kinds::{AudioCodec, ContainerFormat, Guess, guess_of};
use super::{names, sniff};

/// Source of a hint, weakest first.
///
/// ```
/// use windway::media::HintSource;
///
/// assert!(HintSource::MagicBytes > HintSource::Extension);
/// ```
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

/// Detected container and codec.
///
/// ```
/// use windway::media::{ContainerFormat, HintSource, MediaInfo};
///
/// let info = MediaInfo::detect(Some("audio/mpeg"), "http://host/track.mp3", b"fLaC\0\0\0\x22");
/// assert_eq!(info.container, Some((ContainerFormat::Flac, HintSource::MagicBytes)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaInfo {
    /// The codec, and the source of the hint.
    pub codec: Option<(AudioCodec, HintSource)>,
    /// The container, and the source of the hint.
    pub container: Option<(ContainerFormat, HintSource)>,
}

impl MediaInfo {
    /// Guesses from what is there: the `Content-Type` header, the URL, and as many of the first bytes as there are; a few
    /// KiB are plenty, and none is fine. The bytes overrule the content type, and that the extension. A weaker source adds
    /// what a stronger one leaves open, as long as it does not contradict it.
    pub fn detect(content_type: Option<&str>, url: &str, first: &[u8]) -> Self {
        let content_type = content_type.map(names::from_content_type).unwrap_or_default();
        Self::combine(first, content_type, names::from_url(url))
    }

    /// Guesses like [`detect`](Self::detect) for a local file, of which there are only the extension and the bytes.
    pub(crate) fn of_local_file(extension: Option<&str>, first: &[u8]) -> Self {
        let extension = extension.map(|extension| names::from_extension(&extension.to_ascii_lowercase()));
        Self::combine(first, Guess::default(), extension.unwrap_or_default())
    }

    fn combine(first: &[u8], content_type: Guess, extension: Guess) -> Self {
        let mut info = Self::default();
        info.add(sniff::sniff(first).unwrap_or_default(), HintSource::MagicBytes);
        info.add(content_type, HintSource::ContentType);
        info.add(extension, HintSource::Extension);
        if info.container.is_none() && sniff::starts_with_id3(first) {
            // The tag is longer than the bytes that are here, and no other source has named the container: it mostly is MP3.
            info.add(guess_of(ContainerFormat::Mp3), HintSource::MagicBytes);
        }
        if let (None, Some((container, source))) = (info.codec, info.container) {
            info.codec = container.usual_codec().map(|codec| (codec, source));
        }
        info
    }

    /// Usual file extension of the container, without the dot. Decoders accept it as a hint.
    pub fn extension(&self) -> Option<&'static str> {
        self.container.map(|(container, _)| container.extension())
    }

    /// Media type of the container, for an API of the system that asks for one, such as Android's `MediaFormat`. What was detected,
    /// and not what the server calls it.
    ///
    /// ```
    /// let info = windway::media::MediaInfo::detect(Some("text/plain"), "http://host/track", b"fLaC\0\0\0\x22");
    /// assert_eq!(info.mime(), Some("audio/flac"));
    /// ```
    pub fn mime(&self) -> Option<&'static str> {
        self.container.map(|(container, _)| container.mime())
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
