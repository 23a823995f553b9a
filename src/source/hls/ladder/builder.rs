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
        let order = builder.order(language);
        let first = order.first().copied().unwrap_or(0);
        for rendition in 0..builder.renditions.len().max(1) {
            builder.add_rendition(rendition, rendition == first);
        }
        builder.finish(order)
    }
}

/// A playlist with the audio of a variant.
struct Found {
    info: LevelInfo,
    variant: VariantStream,
    content: Content,
}

impl Found {
    /// Another variant has the same playlist: they differ in their video only. The cheapest one names the rate and the codecs.
    fn merge(&mut self, variant: &Variant, content: Content) {
        let info = &mut self.info;
        if info.bandwidth == 0 || (1..info.bandwidth).contains(&variant.bandwidth) {
            (info.bandwidth, info.codecs) = (variant.bandwidth, variant.codecs.clone());
        }
        self.content = self.content.min(content);
    }
}

/// What segments have beside the audio. Video is many times the bytes of the audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Audio,
    Unknown,
    Video,
}

impl Content {
    /// Of the variant's own segments.
    fn of(variant: &Variant) -> Self {
        let is_other = |codec: &str| {
            let codec = codec.to_ascii_lowercase();
            // ISO 14496-30: two kinds of subtitles.
            !is_audio(&codec) && !codec.starts_with("stpp") && codec != "wvtt"
        };
        if variant.resolution.is_some() || variant.codecs.iter().any(|codec| is_other(codec)) {
            Self::Video
        } else if variant.codecs.is_empty() {
            Self::Unknown
        } else {
            Self::Audio
        }
    }
}

/// What renditions of several groups have in common if they are the same one: name, language and channels.
type Identity<'a> = (&'a str, Option<&'a str>, u32);

struct Builder<'a> {
    base: &'a Url,
    policy: UriPolicy,
    /// Variants with audio that may be supported.
    playable: Vec<&'a Variant>,
    groups: HashMap<&'a str, HashMap<Identity<'a>, &'a Rendition>>,
    renditions: Vec<&'a Rendition>,
    found: Vec<Found>,
    refused: Error,
    /// That is because of a URI of the first rendition.
    is_refused: bool,
}

impl<'a> Builder<'a> {
    fn new(list: &'a MultivariantPlaylist, base: &'a Url, policy: UriPolicy) -> Self {
        let mut groups: HashMap<&str, HashMap<_, &Rendition>> = HashMap::new();
        let mut renditions: Vec<&Rendition> = Vec::new();
        // A group that no playable variant refers to is not offered.
        let playable = playable(list);
        let used: HashSet<&str> = playable.iter().filter_map(|variant| variant.audio.as_deref()).collect();
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
        Self { playable, base, policy, groups, renditions, found: Vec::new(), refused, is_refused: false }
    }

    /// The renditions, the one to play first. Section 4.4.6.1: the user's language, else the default, else what may be selected
    /// automatically. Behind it those that may take its place, in its own language first.
    fn order(&self, language: Option<&str>) -> Vec<usize> {
        let best = self.ranked(language);
        let first = best.first().map(|first| self.renditions[*first]);
        match first.and_then(|first| first.language.as_deref()) {
            Some(language) => {
                let alike = self.ranked(Some(language)).into_iter().filter(|index| *index != best[0]);
                best.iter().take(1).copied().chain(alike).collect()
            }
            None => best,
        }
    }

    fn ranked(&self, language: Option<&str>) -> Vec<usize> {
        let distance = |rendition: &Rendition| {
            let spoken = rendition.language.as_deref().unwrap_or_default();
            match language {
                Some(wanted) if spoken.eq_ignore_ascii_case(wanted) => 0,
                // Another region is better than another language.
                Some(wanted) if !spoken.is_empty() && primary(spoken) == primary(wanted) => 1,
                _ => 2,
            }
        };
        // Of several in one language, what symphonia has a decoder for, and what the author has marked: a commentary or a description
        // for the blind often is not. Of several that are marked alike, stereo: not all decoders mix more channels down.
        let decodable = self.decodable();
        let key = |rendition: &Rendition| {
            let unmarked = (!self.is_default(rendition), !rendition.is_autoselect);
            (distance(rendition), !decodable.contains(&identity(rendition)), unmarked, channels(rendition))
        };
        let mut ranked: Vec<usize> = (0..self.renditions.len()).collect();
        ranked.sort_by_cached_key(|index| key(self.renditions[*index]));
        ranked
    }

    /// Section 4.4.6.1.1: what is the default in one group is the default in each. Some packagers mark it in one group only.
    fn is_default(&self, rendition: &Rendition) -> bool {
        let is_same =
            |other: &&Rendition| other.name == rendition.name && other.language == rendition.language;
        self.renditions.iter().copied().filter(is_same).any(|other| other.is_default)
    }

    /// Renditions of variants that have other codecs than AC-3 and E-AC-3. Collected once: a hostile list has 100,000 variants.
    fn decodable(&self) -> HashSet<Identity<'a>> {
        let variants = self.playable.iter().filter(|variant| !is_dolby(&variant.codecs));
        let groups: HashSet<&str> = variants.filter_map(|variant| variant.audio.as_deref()).collect();
        groups
            .into_iter()
            .filter_map(|group| self.groups.get(group))
            .flat_map(HashMap::keys)
            .copied()
            .collect()
    }

    fn add_rendition(&mut self, index: usize, is_first: bool) {
        let mut known: HashMap<Url, usize> = HashMap::new();
        for variant in self.playable.clone() {
            if self.found.len() == MOST_VARIANTS {
                break;
            }
            let Some((uri, rendition)) = self.playlist_of(variant, index, is_first) else { continue };
            let url = match self.policy.resolve(self.base, uri.expose()) {
                Ok(url) => url,
                Err(error) => {
                    // The reason that counts is that of the first rendition.
                    if is_first || !self.is_refused {
                        (self.refused, self.is_refused) = (error, is_first);
                    }
                    continue;
                }
            };
            let has_own_playlist = rendition.is_some_and(|rendition| rendition.uri.is_some());
            let content = if has_own_playlist { Content::Audio } else { Content::of(variant) };
            if let Some(known) = known.get(&url) {
                self.found[*known].merge(variant, content);
                continue;
            }
            known.insert(url.clone(), self.found.len());
            let (info, variant) = level_and_variant(variant, rendition, index, url);
            self.found.push(Found { info, variant, content });
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

    /// True if a variant shows that the playlist is that of a video. In the playlist of a radio some variants may lack codecs, too.
    fn has_video(&self) -> bool {
        self.found.iter().any(|found| match found.content {
            Content::Audio => false,
            Content::Unknown => found.info.bandwidth > MOST_OF_AUDIO,
            Content::Video => true,
        })
    }

    /// Of each rendition that has something better, drops the rest.
    fn prefer(&mut self, is_better: fn(&Found) -> bool) {
        let better = self.found.iter().filter(|found| is_better(found));
        let has_better: HashSet<usize> = better.map(|found| found.variant.rendition).collect();
        self.found.retain(|found| is_better(found) || !has_better.contains(&found.variant.rendition));
    }

    fn finish(mut self, order: Vec<usize>) -> Result<Ladder, Error> {
        let has_video = self.has_video();
        self.prefer(|found| found.content < Content::Video);
        if has_video {
            self.prefer(|found| found.content == Content::Audio);
        }
        // Symphonia has no decoder for them, and a switch to what can't be decoded would end the sound.
        self.prefer(|found| !is_dolby(&found.info.codecs));
        // A level of unknown rate has no place among others: it might be the highest, and would be played as the lowest.
        self.prefer(|found| found.info.bandwidth > 0);
        let Self { renditions, found, refused, base, .. } = self;
        let mut levels: Vec<Vec<LevelInfo>> = vec![Vec::new(); renditions.len().max(1)];
        let mut variants: Vec<VariantStream> = Vec::with_capacity(found.len());
        let mut by_rate: Vec<Found> = found;
        // Stable: variants of one level keep the order of the playlist, which is that of preference.
        by_rate.sort_by_key(|found| (found.variant.rendition, found.info.bandwidth));
        for Found { info, mut variant, .. } in by_rate {
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
        let preferred = order.first().copied();
        let order = if order.is_empty() { vec![0] } else { order };
        let order: Vec<usize> = order.into_iter().filter(|index| !levels[*index].is_empty()).collect();
        let Some(first) = order.first().copied() else {
            return Err(refused.with_url(base.as_str()));
        };
        let left_out = preferred.filter(|preferred| *preferred != first);
        let left_out = left_out.map(|index| (renditions[index].name.clone(), refused));
        let renditions = renditions.into_iter().map(rendition_info).collect();
        Ok(Ladder { renditions, levels, variants, first, order, left_out })
    }
}

/// Bitrate of audio without codecs in the playlist, at most: AAC or MP3 of 320 kbit/s, and MPEG-TS around it.
const MOST_OF_AUDIO: u64 = 400_000;

/// Audio renditions, at most. Real playlists have a few dozen languages.
const MOST_RENDITIONS: usize = 256;

fn identity(rendition: &Rendition) -> Identity<'_> {
    // Surround sound has the name of the stereo version. It is not a better quality of it, so the two are not switched by rate.
    (&rendition.name, rendition.language.as_deref(), channels(rendition))
}

/// Number of channels, and 2 for mono: its mix is the same, at rates that the others do not have.
fn channels(rendition: &Rendition) -> u32 {
    // Section 4.4.6.1: the number comes first, before a slash.
    let count =
        rendition.channels.as_deref().and_then(|channels| channels.split('/').next()?.trim().parse().ok());
    count.unwrap_or(2).max(2)
}

fn primary(tag: &str) -> String {
    tag.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

/// True if two playlists have the same audio: their variants have equal attributes, or the same stable id.
fn is_redundant(known: &VariantStream, level: &LevelInfo, variant: &VariantStream, info: &LevelInfo) -> bool {
    let has_stable_name = known.stable[0].is_some() && known.stable[0] == variant.stable[0];
    has_stable_name || level == info
}

fn level_and_variant(
    variant: &Variant,
    rendition: Option<&Rendition>,
    index: usize,
    url: Url,
) -> (LevelInfo, VariantStream) {
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
        is_stale: false,
        is_stuck: false,
        asked_at: None,
        last_load: None,
        last_change: None,
        is_refreshed: false,
    };
    (info, variant)
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

fn playable(list: &MultivariantPlaylist) -> Vec<&Variant> {
    // Limited here, too: each one is looked at for each rendition.
    let those = |is_playable: fn(&Variant) -> bool| -> Vec<&Variant> {
        list.variants.iter().filter(|variant| is_playable(variant)).take(MOST_VARIANTS).collect()
    };
    let playable = those(may_have_audio);
    // Some packagers name the codec of the video only. The segments decide.
    if playable.is_empty() { those(names_no_audio) } else { playable }
}

/// True if the codecs, in the notation of RFC 6381, contain audio that the demuxers read.
fn may_have_audio(variant: &Variant) -> bool {
    let mut codecs = variant.codecs.iter();
    codecs.any(|codec| is_supported(&codec.to_ascii_lowercase()))
        // Without codecs nothing is known, and the segments decide; as where only those of the video are named, which has a group of
        // audio renditions.
        || variant.codecs.is_empty()
        || (variant.audio.is_some() && names_no_audio(variant))
}

fn names_no_audio(variant: &Variant) -> bool {
    !variant.codecs.iter().any(|codec| is_audio(&codec.to_ascii_lowercase()))
}

/// True for the codec of some audio, supported or not. `codec` is in lower case.
fn is_audio(codec: &str) -> bool {
    // Beside those that are supported: xHE-AAC, AC-4, DTS, MPEG-H, Vorbis, IAMF.
    const OTHERS: [&str; 7] = ["mp4a", "ac-4", "dts", "mha", "mhm", "vorbis", "iamf"];
    is_supported(codec) || OTHERS.iter().any(|other| codec.starts_with(other))
}

/// True if all audio that is named is AC-3 or E-AC-3.
fn is_dolby(codecs: &[Box<str>]) -> bool {
    let audio = || codecs.iter().map(|codec| codec.to_ascii_lowercase()).filter(|codec| is_audio(codec));
    audio().count() > 0 && audio().all(|codec| matches!(&*codec, "ac-3" | "ec-3"))
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
        let unknown = "#EXT-X-STREAM-INF:PROGRAM-ID=1\na\n#EXT-X-STREAM-INF:BANDWIDTH=0\nb\n";
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
        assert!(!is_supported("mp4a.40.42") && !is_supported("mp4a.40.x"));
    }

    /// All renditions, each with its number.
    fn offered(text: &str) -> Vec<(usize, u64, String)> {
        let url = "http://host/list.m3u8";
        let Ok(Playlist::Multivariant(list)) = Playlist::parse(format!("#EXTM3U\n{text}").as_bytes(), url)
        else {
            panic!("a multivariant playlist")
        };
        let ladder = Ladder::new(&list, &Url::parse(url).unwrap(), UriPolicy::default(), None).unwrap();
        let rate = |variant: &VariantStream| ladder.levels(variant.rendition)[variant.level].bandwidth;
        let name = |variant: &VariantStream| variant.url.path()[1..].to_owned();
        ladder.variants.iter().map(|variant| (variant.rendition, rate(variant), name(variant))).collect()
    }

    #[test]
    fn what_has_audio_only_is_better_than_what_may_have_video() {
        let audio = "#EXT-X-STREAM-INF:BANDWIDTH=64,CODECS=\"mp4a.40.5\"\na\n";
        let unknown = "#EXT-X-STREAM-INF:BANDWIDTH=200\nu\n#EXT-X-STREAM-INF:BANDWIDTH=400\nw\n";
        let video = "#EXT-X-STREAM-INF:BANDWIDTH=300,CODECS=\"avc1.4d,mp4a.40.2\"\nv\n\
                     #EXT-X-STREAM-INF:BANDWIDTH=500,RESOLUTION=1x1\nx\n";
        let names =
            |text: String| -> Vec<String> { choose(&text, None).into_iter().map(|(_, path)| path).collect() };
        assert_eq!(names(format!("{video}{unknown}{audio}")), ["/a"]);
        assert_eq!(names(format!("{video}{unknown}")), ["/u", "/w"]);
        assert_eq!(names(video.to_owned()), ["/v", "/x"]);
    }

    #[test]
    fn variants_without_codecs_are_quality_levels_of_a_radio_beside_one_that_has_them() {
        let radio = "#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.5\"\na\n\
                     #EXT-X-STREAM-INF:BANDWIDTH=128000\nb\n#EXT-X-STREAM-INF:BANDWIDTH=350000\nc\n";
        assert_eq!(
            choose(radio, None),
            [(64_000, "/a".into()), (128_000, "/b".into()), (350_000, "/c".into())]
        );
        // Section 9.4, the example: the fastest is video, and so are the others.
        for video in ["BANDWIDTH=1280000", "BANDWIDTH=200000,RESOLUTION=1x1"] {
            let text = format!("{radio}#EXT-X-STREAM-INF:{video}\nv\n");
            assert_eq!(choose(&text, None), [(64_000, "/a".into())], "{video}");
        }
    }

    #[test]
    fn surround_sound_that_few_can_decode_does_not_begin_beside_stereo() {
        let media = |group: &str, is_default: &str, channels: u32, codec: &str| {
            format!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{group}\",NAME=\"{group}\",LANGUAGE=\"en\",DEFAULT={is_default},\
                 CHANNELS=\"{channels}\",URI=\"{group}\"\n\
                 #EXT-X-STREAM-INF:BANDWIDTH=9,CODECS=\"avc1.4,{codec}\",AUDIO=\"{group}\"\nv{group}\n"
            )
        };
        let text = media("six", "YES", 6, "ec-3") + &media("two", "NO", 2, "mp4a.40.2");
        assert_eq!(choose(&text, None), [(9, "/two".into())]);
        assert_eq!(offered(&text).len(), 2, "the user can choose it");
        let text = media("six", "YES", 6, "ec-3") + &media("atmos", "NO", 16, "ec-3");
        assert_eq!(choose(&text, None), [(9, "/six".into())]);
        // Of AAC the author's mark counts, but not between two versions with the same name.
        let text = media("six", "YES", 6, "mp4a.40.2") + &media("two", "NO", 2, "mp4a.40.2");
        assert_eq!(choose(&text, None), [(9, "/six".into())]);
        let text = text.replace("NAME=\"six\"", "NAME=\"two\"");
        assert_eq!(choose(&text, None), [(9, "/two".into())]);
    }

    #[test]
    fn languages_of_variants_with_video_are_offered_beside_a_variant_with_audio_only() {
        let text = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"d\",LANGUAGE=\"de\",DEFAULT=YES,URI=\"de\"\n\
                    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"e\",LANGUAGE=\"en\",URI=\"en\"\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=64,CODECS=\"mp4a.40.2\"\na\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=640,CODECS=\"avc1.4,mp4a.40.2\",RESOLUTION=1x1,AUDIO=\"g\"\nv\n";
        assert_eq!(offered(text), [(0, 64, "a".into()), (0, 640, "de".into()), (1, 640, "en".into())]);
        // The first language is in the segments of the video.
        let text = text.replace(",URI=\"de\"", "");
        assert_eq!(offered(&text), [(0, 64, "a".into()), (1, 640, "en".into())]);
    }

    #[test]
    fn codecs_that_name_the_video_only_say_nothing_of_the_audio() {
        let group = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"d\",URI=\"de\"\n\
                     #EXT-X-STREAM-INF:BANDWIDTH=640,CODECS=\"avc1.66.30\",RESOLUTION=1x1,AUDIO=\"g\"\nv\n\
                     #EXT-X-STREAM-INF:BANDWIDTH=64,CODECS=\"avc1.66.30,ac-4\",AUDIO=\"g\"\nx\n";
        assert_eq!(choose(group, None), [(640, "/de".into())]);
        let muxed = "#EXT-X-STREAM-INF:BANDWIDTH=640,CODECS=\"avc1.66.30\"\nv\n";
        assert_eq!(choose(muxed, None), [(640, "/v".into())]);
        assert_eq!(
            choose(&format!("{muxed}#EXT-X-STREAM-INF:BANDWIDTH=700\nu\n"), None),
            [(700, "/u".into())]
        );
    }

    #[test]
    fn versions_with_surround_sound_are_renditions_of_their_own() {
        let media = |group: &str, channels: &str| {
            format!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{group}\",NAME=\"e\",DEFAULT=YES,URI=\"{group}\"{channels}\n\
                 #EXT-X-STREAM-INF:BANDWIDTH=9,CODECS=\"avc1.4,mp4a.40.2\",AUDIO=\"{group}\"\nv{group}\n"
            )
        };
        let text = [
            media("six", ",CHANNELS=\"6\""),
            media("mono", ",CHANNELS=\"1\""),
            media("two", ",CHANNELS=\"2/-/BINAURAL\""),
            media("none", ""),
            media("atmos", ",CHANNELS=\"16/JOC\""),
        ]
        .concat();
        let names = |rendition: usize| -> Vec<String> {
            offered(&text).into_iter().filter(|found| found.0 == rendition).map(|found| found.2).collect()
        };
        assert_eq!((names(0), names(2)), (vec!["six".to_owned()], vec!["atmos".to_owned()]));
        assert_eq!(names(1), ["mono", "two", "none"]);
        assert_eq!(choose(&text, None)[0].1, "/mono", "few decoders mix channels down");
    }

    #[test]
    fn codecs_that_few_can_decode_are_played_only_where_there_are_no_others() {
        let dolby = "#EXT-X-STREAM-INF:BANDWIDTH=300,CODECS=\"ec-3\"\nb\n#EXT-X-STREAM-INF:BANDWIDTH=200,CODECS=\"ac-3\"\na\n";
        assert_eq!(choose(dolby, None).len(), 2);
        let both = format!("{dolby}#EXT-X-STREAM-INF:BANDWIDTH=100,CODECS=\"mp4a.40.2\"\nc\n");
        assert_eq!(choose(&both, None), [(100, "/c".into())]);
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
        for index in 0..300 {
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
        text.extend((0..10_000).map(|index| media("other", index)));
        text.push_str(&variant("first", 0));
        text.extend((0..20_000).map(|index| variant("other", index)));
        assert_eq!(choose(&text, None), [(9, "/r".into())]);
    }
}
