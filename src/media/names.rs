//! What content types and extensions say.

use url::Url;

use super::kinds::{AudioCodec, ContainerFormat, Guess, guess_both, guess_of};
use super::layout;

/// The type itself, in lower case, without its parameters.
pub(super) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The names in use, registered (IANA's audio types) or not.
pub(super) fn from_content_type(content_type: &str) -> Guess {
    let guess = from_essence(&essence(content_type));
    Guess { codec: codecs_parameter(content_type).or(guess.codec), ..guess }
}

fn from_essence(essence: &str) -> Guess {
    use AudioCodec::{Alac, Flac, HeAac, Mp3, Opus, Pcm, Vorbis};
    use ContainerFormat as In;
    match essence {
        // RFC 3003: all layers of MPEG audio, so the codec stays open.
        "audio/mpeg" | "audio/x-mpeg" | "audio/mpg" => guess_of(In::Mp3),
        "audio/mp3" | "audio/x-mp3" | "audio/mpeg3" => guess_both(In::Mp3, Mp3),
        "audio/aac" | "audio/x-aac" | "audio/aac-adts" | "audio/vnd.dlna.adts" => guess_of(In::Adts),
        "audio/aacp" | "audio/x-aacp" => guess_both(In::Adts, HeAac),
        "audio/flac" | "audio/x-flac" | "application/flac" => guess_both(In::Flac, Flac),
        "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "video/mp4" | "application/mp4" | "audio/x-m4b"
        | "video/quicktime" | "video/iso.segment" | "audio/iso.segment" => guess_of(In::Mp4),
        "audio/alac" => Guess { container: None, codec: Some(Alac) },
        "video/mp2t" | "audio/mp2t" => guess_of(In::MpegTs),
        "audio/ogg" | "application/ogg" | "video/ogg" | "audio/x-ogg" => guess_of(In::Ogg),
        "audio/opus" | "audio/x-opus" => guess_both(In::Ogg, Opus),
        "audio/vorbis" | "audio/x-vorbis" | "audio/x-vorbis+ogg" => guess_both(In::Ogg, Vorbis),
        "audio/wav" | "audio/wave" | "audio/x-wav" | "audio/vnd.wave" | "audio/x-pn-wav" => guess_of(In::Wav),
        "audio/aiff" | "audio/x-aiff" => guess_of(In::Aiff),
        "audio/x-caf" | "audio/caf" => guess_of(In::Caf),
        "audio/matroska" | "audio/x-matroska" | "video/matroska" | "video/x-matroska" => {
            guess_of(In::Matroska)
        }
        "audio/webm" | "video/webm" => guess_of(In::WebM),
        "audio/l8" | "audio/l16" | "audio/l24" | "audio/basic" | "audio/pcm" | "audio/pcma"
        | "audio/pcmu" => Guess { container: None, codec: Some(Pcm) },
        _ => Guess::default(),
    }
}

/// The first codec of sound in a `codecs` parameter (RFC 6381), as in `audio/mp4; codecs="avc1.4d401e, mp4a.40.2"`.
fn codecs_parameter(content_type: &str) -> Option<AudioCodec> {
    let list = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("codecs").then_some(value)
    })?;
    list.split(',')
        .find_map(|name| from_codec_name(name.trim_matches(|c: char| c.is_whitespace() || c == '"')))
}

fn from_codec_name(name: &str) -> Option<AudioCodec> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        // RFC 6381, section 3.3: `mp4a.` with the objectTypeIndication in hexadecimal, then the audio object type in decimal.
        "mp4a.40.5" | "mp4a.40.05" | "mp4a.40.29" => Some(AudioCodec::HeAac),
        "mp4a.40.2" | "mp4a.40.02" | "mp4a.67" | "mp4a" => Some(AudioCodec::Aac),
        "mp4a.40.34" | "mp4a.69" | "mp4a.6b" | "mp3" | ".mp3" => Some(AudioCodec::Mp3),
        "alac" => Some(AudioCodec::Alac),
        "flac" => Some(AudioCodec::Flac),
        "vorbis" => Some(AudioCodec::Vorbis),
        "opus" => Some(AudioCodec::Opus),
        // WAVE format tags (RFC 2361).
        "1" | "3" | "6" | "7" => Some(AudioCodec::Pcm),
        "2" | "11" => Some(AudioCodec::Adpcm),
        "55" => Some(AudioCodec::Mp3),
        _ => None,
    }
}

/// What decoders read of a file before they play it, besides its beginning and the tags at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foreseen {
    /// Bytes at the end that are read in any case. 1 if it may be an index, whose size is not known.
    pub(crate) end: u64,
    /// Other places that are requested as soon as the first bytes tell where they are.
    pub(crate) places: usize,
}

/// What decoders will read of the file that `url` names, as recorded in [`layout`].
pub(crate) fn foreseen(url: &str) -> Foreseen {
    use ContainerFormat::{Adts, Aiff, Matroska, Mp4, Ogg, WebM};
    match from_url(url).container {
        Some(Ogg) => Foreseen { end: layout::OGG_PAGE, places: 0 },
        Some(Aiff) => Foreseen { end: layout::AIFF_END, places: 0 },
        // An index that does not lie at the front.
        Some(Mp4 | Matroska | WebM) => Foreseen { end: 1, places: 1 },
        // Three quarters, of which one goes over the connection of the suffix request.
        Some(Adts) => Foreseen { end: 0, places: 2 },
        _ => Foreseen::default(),
    }
}

/// The format that the extension of the last part of the URL's path stands for.
pub(super) fn from_url(url: &str) -> Guess {
    extension(url).map(|extension| from_extension(&extension)).unwrap_or_default()
}

fn extension(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let (_, extension) = url.path_segments()?.next_back()?.rsplit_once('.')?;
    Some(extension.to_ascii_lowercase())
}

/// `extension` is in lower case.
pub(super) fn from_extension(extension: &str) -> Guess {
    use AudioCodec::{Flac, Mp2, Mp3, Opus};
    use ContainerFormat as In;
    match extension {
        "mp3" => guess_both(In::Mp3, Mp3),
        "mp2" => guess_both(In::Mp3, Mp2),
        "mpga" => guess_of(In::Mp3),
        "aac" | "adts" => guess_of(In::Adts),
        "flac" => guess_both(In::Flac, Flac),
        "mp4" | "m4a" | "m4b" | "m4p" | "m4r" | "m4v" | "mov" | "3gp" => guess_of(In::Mp4),
        "m4s" | "cmfa" | "cmfv" => guess_of(In::FragmentedMp4),
        "ts" => guess_of(In::MpegTs),
        "ogg" | "oga" | "ogv" | "spx" => guess_of(In::Ogg),
        "opus" => guess_both(In::Ogg, Opus),
        "wav" | "wave" | "bwf" => guess_of(In::Wav),
        "aif" | "aiff" | "aifc" => guess_of(In::Aiff),
        "caf" => guess_of(In::Caf),
        "mka" | "mkv" | "mk3d" => guess_of(In::Matroska),
        "webm" | "weba" => guess_of(In::WebM),
        _ => Guess::default(),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_of_each_container_names_it() {
        use ContainerFormat::{
            Adts, Aiff, Caf, Flac, FragmentedMp4, Matroska, Mp3, Mp4, MpegTs, Ogg, Wav, WebM,
        };
        for container in [Mp3, Adts, Mp4, FragmentedMp4, MpegTs, Ogg, Flac, Wav, Aiff, Caf, Matroska, WebM] {
            let named = from_content_type(container.mime()).container;
            assert!(named.is_some_and(|named| named.agrees_with(container)), "{container:?}: {named:?}");
        }
    }

    #[test]
    fn the_extension_is_the_paths_and_not_the_hosts() {
        assert_eq!(extension("http://host/dir.d/a.FLAC?b=c.mp3#d.ogg").as_deref(), Some("flac"));
        assert_eq!(extension("http://host/a.tar.wav").as_deref(), Some("wav"));
        for none in ["http://radio.aac", "http://radio.mp3?x", "http://host/stream", "http://host/a.mp3/", ""]
        {
            assert_eq!(extension(none), None, "{none}");
        }
    }
}
