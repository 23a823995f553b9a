//! From a multivariant playlist to a ladder: which variants have audio that can be played, and which of them have the same.

use std::collections::{HashMap, HashSet};

use url::Url;

use super::levels::{Ladder, LevelInfo, MOST_VARIANTS, RenditionInfo, VariantStream};
use crate::client::UriPolicy;
use crate::error::{Error, ErrorKind};
use crate::source::hls::playlist::{MultivariantPlaylist, Rendition, Uri, Variant};

impl Ladder {
    /// The ladder of a multivariant playlist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if no variant has audio that can be played; the error of the last URI if none is allowed.
    pub(crate) fn new(
        list: &MultivariantPlaylist,
        base: &Url,
        policy: UriPolicy,
        language: Option<&str>,
    ) -> Result<Self, Error> {
        let mut builder = Builder::new(list, base, policy);
        let first = builder.first_rendition(language);
        for rendition in 0..builder.renditions.len().max(1) {
            builder.add_rendition(rendition, rendition == first);
        }
        builder.finish(first)
    }
}

/// A playlist with the audio of a variant.
struct Found {
    info: LevelInfo,
    variant: VariantStream,
}

struct Builder<'a> {
    list: &'a MultivariantPlaylist,
    base: &'a Url,
    policy: UriPolicy,
    /// By group, name and language.
    groups: HashMap<&'a str, HashMap<(&'a str, Option<&'a str>), &'a Rendition>>,
    renditions: Vec<&'a Rendition>,
    found: Vec<Found>,
    refused: Error,
}

impl<'a> Builder<'a> {
    fn new(list: &'a MultivariantPlaylist, base: &'a Url, policy: UriPolicy) -> Self {
        let mut groups: HashMap<&str, HashMap<_, &Rendition>> = HashMap::new();
        let mut renditions: Vec<&Rendition> = Vec::new();
        // A group that no playable variant refers to is not offered.
        let used: HashSet<&str> = playable(list).filter_map(|variant| variant.audio.as_deref()).collect();
        for rendition in list.audio_renditions().filter(|rendition| used.contains(&&*rendition.group)) {
            groups.entry(&rendition.group).or_default().entry(identity(rendition)).or_insert(rendition);
            // Section 4.4.6.1.1: a rendition has the same name in each group.
            if renditions.len() < MOST_RENDITIONS
                && !renditions.iter().any(|known| identity(known) == identity(rendition))
            {
                renditions.push(rendition);
            }
        }
        // Sixteen codecs show what there is, and keep the error to one line.
        let mut codecs: Vec<&str> =
            list.variants.iter().flat_map(|variant| &variant.codecs).map(|codec| &**codec).take(16).collect();
        codecs.sort_unstable();
        codecs.dedup();
        let why = format!("no variant has audio that is supported: {}", codecs.join(", "));
        let refused = Error::new(ErrorKind::Unsupported, why);
        Self { list, base, policy, groups, renditions, found: Vec::new(), refused }
    }

    /// Section 4.4.6.1: the user's language, else the default, else what may be selected automatically.
    fn first_rendition(&self, language: Option<&str>) -> usize {
        let distance = |rendition: &Rendition| {
            let spoken = rendition.language.as_deref().unwrap_or_default();
            match language {
                Some(wanted) if spoken.eq_ignore_ascii_case(wanted) => 0,
                // Another region is better than another language.
                Some(wanted) if !spoken.is_empty() && primary(spoken) == primary(wanted) => 1,
                _ => 2,
            }
        };
        // Of several in one language, what the author has marked: a commentary or a description for the blind often is not.
        let key =
            |rendition: &Rendition| (distance(rendition), !rendition.is_default, !rendition.is_autoselect);
        (0..self.renditions.len()).min_by_key(|index| key(self.renditions[*index])).unwrap_or(0)
    }

    fn add_rendition(&mut self, index: usize, is_first: bool) {
        let has_audio_only = playable(self.list).any(|variant| variant.resolution.is_none());
        let mut known: HashMap<Url, usize> = HashMap::new();
        for variant in playable(self.list) {
            // The segments of a variant with a resolution have its video, too: many times the bytes of the audio.
            if (variant.resolution.is_some() && has_audio_only) || self.found.len() == MOST_VARIANTS {
                continue;
            }
            let Some((uri, rendition)) = self.playlist_of(variant, index, is_first) else { continue };
            let url = match self.policy.resolve(self.base, uri.expose()) {
                Ok(url) => url,
                Err(error) => {
                    self.refused = error;
                    continue;
                }
            };
            // Variants that differ in their video only share a rendition of the audio. The cheapest one names its rate.
            if let Some(known) = known.get(&url) {
                let info = &mut self.found[*known].info;
                let rates = [info.bandwidth, variant.bandwidth];
                info.bandwidth = rates.into_iter().filter(|rate| *rate > 0).min().unwrap_or(0);
                continue;
            }
            known.insert(url.clone(), self.found.len());
            self.found.push(found(variant, rendition, index, url));
        }
    }

    /// The playlist with this rendition of the variant's audio: its own, or that of the rendition.
    fn playlist_of(
        &self,
        variant: &'a Variant,
        index: usize,
        is_first: bool,
    ) -> Option<(&'a Uri, Option<&'a Rendition>)> {
        let group = variant.audio.as_deref().and_then(|group| self.groups.get(group));
        let (Some(group), Some(wanted)) = (group, self.renditions.get(index)) else {
            // A variant without a group has one version of the audio, whose language is unknown.
            return is_first.then_some((&variant.uri, None));
        };
        let rendition = *group.get(&identity(wanted))?;
        // A rendition without a URI is in the segments of the variant.
        Some((rendition.uri.as_ref().unwrap_or(&variant.uri), Some(rendition)))
    }

    /// A level of unknown rate has no place among others: it might be the highest, and would be played as the lowest.
    fn drop_unknown_rates(&mut self) {
        let is_known: HashSet<usize> = self
            .found
            .iter()
            .filter(|found| found.info.bandwidth > 0)
            .map(|found| found.variant.rendition)
            .collect();
        self.found.retain(|found| found.info.bandwidth > 0 || !is_known.contains(&found.variant.rendition));
    }

    fn finish(mut self, first: usize) -> Result<Ladder, Error> {
        self.drop_unknown_rates();
        let Self { renditions, found, refused, base, .. } = self;
        let mut levels: Vec<Vec<LevelInfo>> = vec![Vec::new(); renditions.len().max(1)];
        let mut variants: Vec<VariantStream> = Vec::with_capacity(found.len());
        let mut by_rate: Vec<Found> = found;
        // Stable: variants of one level keep the order of the playlist, which is that of preference.
        by_rate.sort_by_key(|found| (found.variant.rendition, found.info.bandwidth));
        for Found { info, mut variant } in by_rate {
            let levels = &mut levels[variant.rendition];
            let mut twin = variants.iter().rev().take_while(|known| known.rendition == variant.rendition);
            let twin = twin.find(|known| is_redundant(known, &levels[known.level], &variant, &info));
            variant.level = match twin {
                Some(twin) => twin.level,
                None => {
                    levels.push(info);
                    levels.len() - 1
                }
            };
            variants.push(variant);
        }
        if levels[first].is_empty() {
            return Err(refused.with_url(base.as_str()));
        }
        let renditions = renditions.into_iter().map(rendition_info).collect();
        Ok(Ladder { renditions, levels, variants, first })
    }
}

/// Audio renditions, at most. Real playlists have a few dozen languages.
const MOST_RENDITIONS: usize = 256;

/// What renditions of several groups have in common if they are the same one.
fn identity(rendition: &Rendition) -> (&str, Option<&str>) {
    (&rendition.name, rendition.language.as_deref())
}

fn primary(tag: &str) -> String {
    tag.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

/// True if two playlists have the same audio: their variants have equal attributes, or the same stable id.
fn is_redundant(known: &VariantStream, level: &LevelInfo, variant: &VariantStream, info: &LevelInfo) -> bool {
    let has_stable_name = known.stable[0].is_some() && known.stable[0] == variant.stable[0];
    has_stable_name || level == info
}

fn found(variant: &Variant, rendition: Option<&Rendition>, index: usize, url: Url) -> Found {
    let info = LevelInfo {
        bandwidth: variant.bandwidth,
        codecs: variant.codecs.clone(),
        name: rendition.map(|rendition| rendition.name.clone()).or_else(|| variant.name.clone()),
        language: rendition.and_then(|rendition| rendition.language.clone()),
    };
    let variant = VariantStream {
        level: 0,
        rendition: index,
        url,
        pathway: variant.pathway.clone(),
        stable: [variant.stable_id.clone(), rendition.and_then(|rendition| rendition.stable_id.clone())],
        excluded_until: None,
        last_load: None,
        is_refreshed: false,
    };
    Found { info, variant }
}

fn rendition_info(rendition: &Rendition) -> RenditionInfo {
    RenditionInfo {
        name: rendition.name.clone(),
        language: rendition.language.clone(),
        is_default: rendition.is_default,
        channels: rendition.channels.clone(),
        characteristics: rendition.characteristics.clone(),
    }
}

fn playable(list: &MultivariantPlaylist) -> impl Iterator<Item = &Variant> {
    // Limited here, too: each one is looked at for each rendition.
    list.variants.iter().filter(|variant| may_have_audio(&variant.codecs)).take(MOST_VARIANTS)
}

/// True if the codecs, in the notation of RFC 6381, contain audio that the demuxers read.
fn may_have_audio(codecs: &[Box<str>]) -> bool {
    // Without codecs nothing is known, and the segments decide.
    codecs.is_empty() || codecs.iter().any(|codec| is_supported(&codec.to_ascii_lowercase()))
}

/// True for audio that the demuxers read. `codec` is in lower case.
fn is_supported(codec: &str) -> bool {
    // RFC 6381, section 3.3: `mp4a.40` is followed by the object type (audioObjectType, ISO 14496-3) in decimal: 2 is AAC-LC, 5
    // and 29 are HE-AAC, 34 is MP3. As a number, because some packagers write `mp4a.40.02`.
    if let Some(object_type) = codec.strip_prefix("mp4a.40.") {
        return matches!(object_type.parse(), Ok(2_u8 | 5 | 29 | 34));
    }
    // Without an object type the segments decide.
    const AUDIO: [&str; 8] = ["mp4a", "mp4a.40", "mp3", "ac-3", "ec-3", "alac", "flac", "opus"];
    // objectTypeIndication (ISO 14496-1, 7.2.6.6): 0x66 to 0x68 are AAC of MPEG-2, 0x69 and 0x6b are MP3.
    codec.starts_with("mp4a.6") || AUDIO.contains(&codec)
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
        let ladder = Ladder::new(&list, &Url::parse(url).unwrap(), UriPolicy::default(), language).unwrap();
        let variants = ladder.variants.iter().filter(|variant| variant.rendition == ladder.first);
        let levels = ladder.levels(ladder.first);
        variants.map(|variant| (levels[variant.level].bandwidth, variant.url.path().to_owned())).collect()
    }

    #[test]
    fn a_level_of_unknown_rate_is_played_where_it_is_the_only_one() {
        let unknown = "#EXT-X-STREAM-INF:CODECS=\"mp4a.40.2\"\na\n#EXT-X-STREAM-INF:BANDWIDTH=0\nb\n";
        assert_eq!(choose(unknown, None).len(), 2);
        let known = "#EXT-X-STREAM-INF:BANDWIDTH=5\nc\n#EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=4\nd\n";
        let text = format!("{unknown}{known}");
        assert_eq!(choose(&text, None), [(4, "/d".into()), (5, "/c".into())]);
        // Beside video: only its own audio is wanted.
        let video = format!("#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=1x1\nv\n{unknown}");
        assert_eq!(choose(&video, None).len(), 2);
        let shared = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"n\",URI=\"r\"\n#EXT-X-STREAM-INF:AUDIO=\"g\"\na\n\
                      #EXT-X-STREAM-INF:BANDWIDTH=7,AUDIO=\"g\"\nb\n";
        assert_eq!(choose(shared, None), [(7, "/r".into())]);
    }

    #[test]
    fn levels_are_audio_that_can_be_played_by_ascending_rate() {
        let text = "#EXT-X-STREAM-INF:BANDWIDTH=300,CODECS=\"fLaC\"\nc\n#EXT-X-STREAM-INF:BANDWIDTH=100,CODECS=\"mp4a.40.5\"\na\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=200,CODECS=\"alac\"\nb\n#EXT-X-STREAM-INF:BANDWIDTH=50,CODECS=\"mp4a.40.2,avc1\",RESOLUTION=1x1\nv\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=20,CODECS=\"avc1\"\nw\n";
        assert_eq!(choose(text, None), [(100, "/a".into()), (200, "/b".into()), (300, "/c".into())]);
    }

    #[test]
    fn an_object_type_may_have_a_zero_in_front_or_be_missing() {
        for codec in ["mp4a.40.02", "mp4a.40.05", "mp4a.40", "mp4a", "MP4A.40.2", "mp4a.66", "mp4a.6B"] {
            let text = format!("#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"{codec}\"\na\n");
            assert_eq!(choose(&text, None).len(), 1, "{codec}");
        }
        // xHE-AAC, and a type that is none.
        assert!(!may_have_audio(&["mp4a.40.42".into(), "mp4a.40.x".into()]));
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

    #[test]
    fn s6_2_4_variants_that_say_the_same_are_redundant_variants_of_one_level() {
        let text = "#EXT-X-STREAM-INF:BANDWIDTH=100,PATHWAY-ID=\"A\",STABLE-VARIANT-ID=\"lo\"\nlo-a\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=200,PATHWAY-ID=\"A\"\nhi-a\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=110,PATHWAY-ID=\"B\",STABLE-VARIANT-ID=\"lo\"\nlo-b\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=200,PATHWAY-ID=\"B\"\nhi-b\n";
        assert_eq!(
            choose(text, None),
            [(100, "/lo-a".into()), (100, "/lo-b".into()), (200, "/hi-a".into()), (200, "/hi-b".into())]
        );
    }

    #[test]
    fn of_several_renditions_that_speak_the_language_the_best_is_chosen() {
        let text = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"a\",LANGUAGE=\"pt-PT\",URI=\"pt-pt\",DEFAULT=YES\n\
                    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"b\",LANGUAGE=\"pt-BR\",URI=\"pt-br\"\n\
                    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"c\",LANGUAGE=\"en\",URI=\"described\"\n\
                    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"d\",LANGUAGE=\"en\",URI=\"en\",AUTOSELECT=YES\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=9,AUDIO=\"g\"\nv\n";
        for (language, uri) in [("pt-br", "/pt-br"), ("pt", "/pt-pt"), ("pt-AO", "/pt-pt"), ("en-GB", "/en")]
        {
            assert_eq!(choose(text, Some(language)), [(9, uri.to_owned())], "{language}");
        }
    }

    #[test]
    fn a_hostile_list_makes_no_product_of_variants_and_renditions() {
        let mut text = String::new();
        for index in 0..3000 {
            text.push_str(&format!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"{index}\",URI=\"r{index}\"\n\
                 #EXT-X-STREAM-INF:BANDWIDTH={index},AUDIO=\"g\"\nv{index}\n"
            ));
        }
        assert!(choose(&text, None).len() <= MOST_VARIANTS);
    }

    /// Without an index the last of these would be looked for for hours: for each rendition, by each variant, in the whole group.
    #[test]
    fn a_hostile_list_takes_no_time_of_variants_by_renditions() {
        let media = |group: &str, index: usize| {
            format!("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{group}\",NAME=\"{group}{index}\",URI=\"r\"\n")
        };
        let variant = |group: &str, index: usize| {
            format!("#EXT-X-STREAM-INF:BANDWIDTH=9,AUDIO=\"{group}\"\nv{index}\n")
        };
        let mut text: String = (0..MOST_RENDITIONS).map(|index| media("first", index)).collect();
        text.extend((0..50_000).map(|index| media("other", index)));
        text.push_str(&variant("first", 0));
        text.extend((0..100_000).map(|index| variant("other", index)));
        assert_eq!(choose(&text, None), [(9, "/r".into())]);
    }
}
