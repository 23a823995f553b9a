//! Which media playlists can be played, and at which rates.

use std::time::Instant;

use url::Url;

use super::playlist::{MultivariantPlaylist, Rendition, Uri, Variant};
use super::policy::UriPolicy;
use crate::error::{Error, ErrorKind};

/// One version of the audio, with its own media playlist.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelInfo {
    /// Peak rate in bits per second, as the playlist gives it. 0 if there is only a media playlist.
    pub bandwidth: u64,
    /// Codecs as RFC 6381 names them.
    pub codecs: Vec<Box<str>>,
    /// Name of the rendition or of the variant.
    pub name: Option<Box<str>>,
    /// Language of the rendition.
    pub language: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct Level {
    pub(super) info: LevelInfo,
    pub(super) url: Url,
    /// It failed, and is not used before this time.
    pub(super) excluded_until: Option<Instant>,
}

impl Level {
    pub(super) fn single(url: Url) -> Self {
        let info = LevelInfo { bandwidth: 0, codecs: Vec::new(), name: None, language: None };
        Self { info, url, excluded_until: None }
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.excluded_until.is_none_or(|until| until <= now)
    }
}

/// The levels of a multivariant playlist, by ascending rate.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] if no variant has audio that can be played; the error of the last URI if none is allowed.
pub(super) fn levels(
    list: &MultivariantPlaylist,
    base: &Url,
    policy: UriPolicy,
    language: Option<&str>,
) -> Result<Vec<Level>, Error> {
    let mut levels: Vec<Level> = Vec::new();
    let mut refused = Error::new(ErrorKind::Unsupported, "no variant has audio that is supported");
    let has_audio_only = playable(list).any(|variant| variant.resolution.is_none());
    for variant in playable(list).filter(|variant| variant.resolution.is_none() || !has_audio_only) {
        let (uri, rendition) = audio_playlist(list, variant, language);
        let url = match policy.resolve(base, uri) {
            Ok(url) => url,
            Err(error) => {
                refused = error;
                continue;
            }
        };
        // Variants that differ in their video only share a rendition of the audio. The cheapest one names its rate.
        if let Some(known) = levels.iter_mut().find(|level| level.url == url) {
            known.info.bandwidth = known.info.bandwidth.min(variant.bandwidth);
            continue;
        }
        let info = LevelInfo {
            bandwidth: variant.bandwidth,
            codecs: variant.codecs.clone(),
            name: rendition.map(|rendition| rendition.name.clone()).or_else(|| variant.name.clone()),
            language: rendition.and_then(|rendition| rendition.language.clone()),
        };
        levels.push(Level { info, url, excluded_until: None });
    }
    levels.sort_by_key(|level| level.info.bandwidth);
    if levels.is_empty() { Err(refused.with_url(base.as_str())) } else { Ok(levels) }
}

fn playable(list: &MultivariantPlaylist) -> impl Iterator<Item = &Variant> {
    list.variants.iter().filter(|variant| may_have_audio(&variant.codecs))
}

/// Without codecs nothing is known, and the segments decide.
fn may_have_audio(codecs: &[Box<str>]) -> bool {
    const AUDIO: [&str; 9] =
        ["mp4a.40.2", "mp4a.40.5", "mp4a.40.29", "mp4a.40.34", "mp4a.6", "mp3", "ac-3", "ec-3", "flac"];
    let is_supported = |codec: &str| {
        AUDIO.iter().any(|known| codec == *known || (*known == "mp4a.6" && codec.starts_with(known)))
    };
    codecs.is_empty() || codecs.iter().any(|codec| is_supported(&codec.to_ascii_lowercase()))
}

/// The media playlist with the audio of a variant: its own, or that of a rendition.
fn audio_playlist<'a>(
    list: &'a MultivariantPlaylist,
    variant: &'a Variant,
    language: Option<&str>,
) -> (&'a Uri, Option<&'a Rendition>) {
    let speaks = |rendition: &&Rendition| {
        let spoken = rendition.language.as_deref().unwrap_or_default();
        language.is_some_and(|wanted| {
            let primary = |tag: &str| tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
            !spoken.is_empty() && primary(spoken) == primary(wanted)
        })
    };
    let renditions: Vec<&Rendition> = list.audio_of(variant).collect();
    // Section 4.4.6.1: the user's language, else the default, else what may be selected automatically.
    let chosen = renditions.iter().copied().find(speaks);
    let chosen = chosen.or_else(|| renditions.iter().copied().find(|rendition| rendition.is_default));
    let chosen = chosen.or_else(|| renditions.iter().copied().find(|rendition| rendition.is_autoselect));
    let chosen = chosen.or_else(|| renditions.first().copied());
    // A rendition without a URI is in the segments of the variant.
    (chosen.and_then(|rendition| rendition.uri.as_ref()).unwrap_or(&variant.uri), chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::hls::playlist::Playlist;

    fn choose(text: &str, language: Option<&str>) -> Vec<(u64, String)> {
        let url = "http://host/list.m3u8";
        let Ok(Playlist::Multivariant(list)) = Playlist::parse(format!("#EXTM3U\n{text}").as_bytes(), url)
        else {
            panic!("a multivariant playlist")
        };
        let levels = levels(&list, &Url::parse(url).unwrap(), UriPolicy::default(), language).unwrap();
        levels.into_iter().map(|level| (level.info.bandwidth, level.url.path().to_owned())).collect()
    }

    #[test]
    fn levels_are_audio_that_can_be_played_by_ascending_rate() {
        let text = "#EXT-X-STREAM-INF:BANDWIDTH=300,CODECS=\"fLaC\"\nc\n#EXT-X-STREAM-INF:BANDWIDTH=100,CODECS=\"mp4a.40.5\"\na\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=200,CODECS=\"opus\"\nb\n#EXT-X-STREAM-INF:BANDWIDTH=50,CODECS=\"mp4a.40.2,avc1\",RESOLUTION=1x1\nv\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=20,CODECS=\"avc1\"\nw\n";
        assert_eq!(choose(text, None), [(100, "/a".into()), (300, "/c".into())]);
    }

    #[test]
    fn a_rendition_is_chosen_by_language_or_default() {
        let text = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"d\",LANGUAGE=\"de-AT\",URI=\"de\"\n\
                    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"e\",LANGUAGE=\"en\",DEFAULT=YES,URI=\"en\"\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=9,AUDIO=\"g\",RESOLUTION=2x2\nv2\n#EXT-X-STREAM-INF:BANDWIDTH=5,AUDIO=\"g\",RESOLUTION=1x1\nv1\n";
        assert_eq!(choose(text, None), [(5, "/en".into())]);
        assert_eq!(choose(text, Some("de")), [(5, "/de".into())]);
        assert_eq!(choose(text, Some("fr")), [(5, "/en".into())]);
    }
}
