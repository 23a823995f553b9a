//! Multivariant playlists (section 4.4.6).

use std::collections::BTreeMap;

use super::attributes::Attributes;
use super::context::Context;
use super::define::define;
use super::error::{PlaylistError, PlaylistProblem};
use super::key::Key;
use super::lines::{Line, Lines};
use super::start::{Start, parse_start};
use super::uri::Uri;
use super::values::{parse_number, parse_rounded};
use super::variables::Variables;

/// A list of variants and renditions.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MultivariantPlaylist {
    /// Value of `EXT-X-VERSION`; 1 if it is missing.
    pub version: u64,
    /// Variants in the order of the playlist. I-frame variants are left out: they have no audio. So are variants that
    /// require an attribute which windway does not know.
    pub variants: Vec<Variant>,
    /// Renditions in the order of the playlist.
    pub renditions: Vec<Rendition>,
    /// Keys that the media playlists will use, for loading in advance.
    pub session_keys: Vec<Key>,
    /// Data for the application.
    pub session_data: Vec<SessionData>,
    /// The server that chooses between pathways.
    pub steering: Option<ContentSteering>,
    /// Where playback should start.
    pub start: Option<Start>,
    /// Each segment can be decoded without others.
    pub has_independent_segments: bool,
    /// Variables that media playlists may import.
    pub variables: BTreeMap<String, String>,
}

/// One version of the presentation (`EXT-X-STREAM-INF`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Variant {
    /// The media playlist.
    pub uri: Uri,
    /// Peak rate in bits per second, renditions included; the average rate if the playlist gives no other; 0 if it gives none.
    pub bandwidth: u64,
    /// Average rate in bits per second.
    pub average_bandwidth: Option<u64>,
    /// How much the author prefers this variant. Higher is better.
    pub score: Option<f64>,
    /// Codecs as RFC 6381 names them, such as `mp4a.40.2`.
    pub codecs: Vec<Box<str>>,
    /// Width and height of the video. `None` for audio.
    pub resolution: Option<(u64, u64)>,
    /// Group of the audio renditions that belong to this variant.
    pub audio: Option<Box<str>>,
    /// Name that is the same for this variant in every version of the playlist.
    pub stable_id: Option<Box<str>>,
    /// The content steering pathway, `.` by default.
    pub pathway: Box<str>,
    /// `NAME`, which is not in the draft any more.
    pub name: Option<Box<str>>,
}

/// An alternative version of one part of the content, such as a language (`EXT-X-MEDIA`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rendition {
    /// What it contains.
    pub media_type: MediaType,
    /// The media playlist. `None` if the rendition is part of the variants' own segments.
    pub uri: Option<Uri>,
    /// Variants refer to a group of renditions by this name.
    pub group: Box<str>,
    /// Name to show, in the language of `language`.
    pub name: Box<str>,
    /// Language as RFC 5646 writes it.
    pub language: Option<Box<str>>,
    /// To be played if the user has no preference.
    pub is_default: bool,
    /// May be chosen by the user's language without being asked for.
    pub is_autoselect: bool,
    /// For example `2` or `6/-/BINAURAL`.
    pub channels: Option<Box<str>>,
    /// Uniform type identifiers, separated by commas.
    pub characteristics: Option<Box<str>>,
    /// Name that is the same for this rendition in every version of the playlist.
    pub stable_id: Option<Box<str>>,
}

/// What a rendition contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaType {
    /// Audio.
    Audio,
    /// Video.
    Video,
    /// Subtitles.
    Subtitles,
    /// Closed captions inside of the video.
    ClosedCaptions,
}

/// Data for the application (`EXT-X-SESSION-DATA`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionData {
    /// Name, usually a reversed domain name.
    pub id: Box<str>,
    /// The data. `None` if it has to be loaded from `uri`.
    pub value: Option<Box<str>>,
    /// Where the data is.
    pub uri: Option<Uri>,
    /// Language of the data.
    pub language: Option<Box<str>>,
}

/// The server that selects the pathway for clients (section 7).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContentSteering {
    /// The steering manifest.
    pub server: Uri,
    /// Pathway to start with.
    pub pathway: Option<Box<str>>,
}

impl MultivariantPlaylist {
    /// Audio renditions of all groups.
    pub fn audio_renditions(&self) -> impl Iterator<Item = &Rendition> {
        self.renditions.iter().filter(|rendition| rendition.media_type == MediaType::Audio)
    }

    /// Audio renditions of the variant's group.
    pub fn audio_of(&self, variant: &Variant) -> impl Iterator<Item = &Rendition> {
        let group = variant.audio.clone();
        self.renditions.iter().filter(move |rendition| {
            rendition.media_type == MediaType::Audio && Some(&rendition.group) == group.as_ref()
        })
    }
}

pub(super) fn parse(
    lines: &mut Lines<'_>,
    context: Context<'_>,
) -> Result<MultivariantPlaylist, PlaylistError> {
    let mut parser = Parser { variables: Variables::default(), pending: None, list: Default::default() };
    // Section 4.4.1.2: without the tag the version is 1.
    parser.list.version = 1;
    while let Some(line) = lines.next()? {
        lines.check(parser.handle(line, context))?;
    }
    let left_out = lines.finish();
    if parser.list.variants.is_empty() {
        let no_uri = parser.pending.is_some().then(|| lines.error(PlaylistProblem::NoUri));
        left_out.or(no_uri).map_or(Ok(()), Err)?;
    }
    parser.list.variables = parser.variables.into_values();
    Ok(parser.list)
}

struct Parser {
    variables: Variables,
    /// A variant that waits for its URI line.
    pending: Option<Pending>,
    list: MultivariantPlaylist,
}

enum Pending {
    Variant(Box<Variant>),
    /// It has a requirement that windway does not know.
    Unusable,
}

impl Parser {
    fn handle(&mut self, line: Line<'_>, context: Context<'_>) -> Result<(), PlaylistProblem> {
        let (tag, value) = match line {
            Line::Uri(uri) => return self.handle_uri(uri),
            Line::Tag(tag, value) => (tag, value),
        };
        let value = &*value;
        match tag {
            "EXT-X-VERSION" => self.list.version = parse_number(value, "version")?,
            "EXT-X-INDEPENDENT-SEGMENTS" => self.list.has_independent_segments = true,
            "EXT-X-START" => self.list.start = Some(parse_start(value, &mut self.variables)?),
            "EXT-X-DEFINE" => define(&mut self.variables, value, context.variables, context.url)?,
            "EXTINF" => return Err(PlaylistProblem::MixedKinds),
            "EXT-X-STREAM-INF" => return self.handle_variant(value),
            "EXT-X-MEDIA" => return self.handle_rendition(value),
            "EXT-X-SESSION-KEY" => {
                let attributes = Attributes::parse(value, &mut self.variables)?;
                self.list.session_keys.extend(Key::parse(&attributes)?);
            }
            "EXT-X-SESSION-DATA" => {
                let attributes = Attributes::parse(value, &mut self.variables)?;
                self.list.session_data.push(SessionData {
                    id: attributes.required("DATA-ID")?.into(),
                    value: attributes.text("VALUE"),
                    uri: attributes.get("URI").map(Uri::new),
                    language: attributes.text("LANGUAGE"),
                });
            }
            "EXT-X-CONTENT-STEERING" => {
                let attributes = Attributes::parse(value, &mut self.variables)?;
                let server = Uri::new(attributes.required("SERVER-URI")?);
                self.list.steering = Some(ContentSteering { server, pathway: attributes.text("PATHWAY-ID") });
            }
            // I-frame and image variants, which have no audio, and tags of media playlists: see `Lines::kind`.
            _ => {}
        }
        Ok(())
    }

    fn handle_uri(&mut self, uri: &str) -> Result<(), PlaylistProblem> {
        let uri = Uri::new(self.variables.replace(uri)?);
        match self.pending.take() {
            Some(Pending::Variant(variant)) => self.list.variants.push(Variant { uri, ..*variant }),
            // Without a tag nothing is known of it. Some lists repeat the URI of a rendition like this.
            Some(Pending::Unusable) | None => {}
        }
        Ok(())
    }

    fn handle_variant(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        // Until all of the tag is read: the URI after a broken one has no variant.
        let before = self.pending.replace(Pending::Unusable);
        let attributes = Attributes::parse(value, &mut self.variables)?;
        // The layout of the video does not matter here.
        if attributes.unknown_requirement(&["REQ-VIDEO-LAYOUT"]).is_some() {
            return Ok(());
        }
        let average_bandwidth = attributes.optional("AVERAGE-BANDWIDTH", parse_rounded);
        // Section 4.4.6.2 requires the rate. Some servers leave it out where a variant has only audio.
        let bandwidth = attributes.optional("BANDWIDTH", parse_rounded).or(average_bandwidth);
        self.pending = Some(Pending::Variant(Box::new(Variant {
            // Set by `handle_uri`, from the next line.
            uri: Uri::new(""),
            bandwidth: bandwidth.unwrap_or(0),
            average_bandwidth,
            // `parse` also accepts `inf` and `nan`.
            score: attributes
                .optional("SCORE", |value| value.parse().ok().filter(|score: &f64| score.is_finite())),
            codecs: split_codecs(attributes.get("CODECS").unwrap_or_default()),
            resolution: attributes.optional("RESOLUTION", parse_resolution),
            audio: attributes.text("AUDIO"),
            stable_id: attributes.text("STABLE-VARIANT-ID"),
            // Section 4.4.6.2: the pathway of variants without the attribute.
            pathway: attributes.text("PATHWAY-ID").unwrap_or_else(|| ".".into()),
            name: attributes.text("NAME"),
        })));
        if before.is_some() { Err(PlaylistProblem::NoUri) } else { Ok(()) }
    }

    fn handle_rendition(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let media_type = match attributes.required("TYPE")? {
            "AUDIO" => MediaType::Audio,
            "VIDEO" => MediaType::Video,
            "SUBTITLES" => MediaType::Subtitles,
            "CLOSED-CAPTIONS" => MediaType::ClosedCaptions,
            // Section 6.3.1: what is not recognised is ignored.
            _ => return Ok(()),
        };
        self.list.renditions.push(Rendition {
            media_type,
            uri: attributes.get("URI").map(Uri::new),
            group: attributes.required("GROUP-ID")?.into(),
            name: attributes.required("NAME")?.into(),
            language: attributes.text("LANGUAGE"),
            is_default: attributes.is_yes("DEFAULT"),
            is_autoselect: attributes.is_yes("AUTOSELECT"),
            channels: attributes.text("CHANNELS"),
            characteristics: attributes.text("CHARACTERISTICS"),
            stable_id: attributes.text("STABLE-RENDITION-ID"),
        });
        Ok(())
    }
}

fn split_codecs(text: &str) -> Vec<Box<str>> {
    text.split(',').map(str::trim).filter(|codec| !codec.is_empty()).map(Box::from).collect()
}

fn parse_resolution(text: &str) -> Option<(u64, u64)> {
    let (width, height) = text.split_once(['x', 'X'])?;
    Some((width.parse().ok()?, height.parse().ok()?))
}
