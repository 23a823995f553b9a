//! Media playlists (sections 4.4.3 to 4.4.5).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attributes::{
    Attributes, RangeText, parse_hex, parse_rounded, parse_seconds, parse_signed_seconds,
};
use super::date_time::parse_date_time;
use super::error::{PlaylistError, PlaylistProblem};
use super::lines::{Kind, Line, Lines, kind_of};
use super::uri::Uri;
use super::variables::Variables;
use super::{Context, Start};
use crate::types::ByteRange;

/// A list of segments.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MediaPlaylist {
    /// Value of `EXT-X-VERSION`; 1 if it is missing.
    pub version: u64,
    /// Upper limit of segment durations, rounded. Some servers exceed it.
    pub target_duration: Duration,
    /// Media sequence number of the first segment.
    pub media_sequence: u64,
    /// Discontinuity sequence number of the first segment.
    pub discontinuity_sequence: u64,
    /// Segments, oldest first.
    pub segments: Vec<Segment>,
    /// Parts of the segment that is not complete yet.
    pub parts: Vec<Part>,
    /// No more segments will be added.
    pub is_ended: bool,
    /// Whether the server may change the playlist.
    pub playlist_type: Option<PlaylistType>,
    /// Each segment is one I-frame of a video.
    pub is_i_frames_only: bool,
    /// Where playback should start.
    pub start: Option<Start>,
    /// Each segment can be decoded without others.
    pub has_independent_segments: bool,
    /// Upper limit of part durations. Present in low-latency playlists.
    pub part_target: Option<Duration>,
    /// What the server offers for reloading.
    pub server_control: ServerControl,
    /// Resources that the server will complete next.
    pub preload_hints: Vec<PreloadHint>,
    /// States of the other renditions' playlists.
    pub rendition_reports: Vec<RenditionReport>,
    /// Date ranges for the application.
    pub date_ranges: Vec<DateRange>,
}

/// Whether the server may change a playlist (section 4.4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaylistType {
    /// Segments are added and none is removed.
    Event,
    /// Nothing changes.
    Vod,
}

/// One segment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Segment {
    /// Where the segment is.
    pub uri: Uri,
    /// How long it plays.
    pub duration: Duration,
    /// The part of the resource that is the segment. `None` for the whole.
    pub byte_range: Option<ByteRange>,
    /// Discontinuity sequence number: segments with the same number belong to one timeline.
    pub discontinuity_sequence: u64,
    /// Keys of different formats for the same content. Empty if the segment is not encrypted.
    pub keys: Arc<[Key]>,
    /// Initialization section.
    pub map: Option<Arc<Map>>,
    /// When the segment begins, if the playlist gives it for this segment.
    pub date_time: Option<SystemTime>,
    /// The segment is missing and must not be loaded.
    pub is_gap: bool,
    /// Approximate rate in bits per second.
    pub bitrate: Option<u64>,
    /// Title.
    pub title: Option<Box<str>>,
    /// Parts of the segment, if the playlist still lists them.
    pub parts: Vec<Part>,
}

/// A part of a segment (`EXT-X-PART`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Part {
    /// Where the part is.
    pub uri: Uri,
    /// How long it plays.
    pub duration: Duration,
    /// The part of the resource. `None` for the whole.
    pub byte_range: Option<ByteRange>,
    /// It can be decoded without the parts before.
    pub is_independent: bool,
    /// The part is missing and must not be loaded.
    pub is_gap: bool,
}

/// A key of a segment (`EXT-X-KEY`). `Debug` shows no IV.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Key {
    /// How the content is encrypted.
    pub method: KeyMethod,
    /// Where the key is.
    pub uri: Uri,
    /// Initialization vector, as a number in network byte order.
    pub iv: Option<u128>,
    /// What `uri` leads to. `identity` is the key itself.
    pub format: Box<str>,
}

/// How a segment is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyMethod {
    /// The whole segment, with AES-128 in CBC mode.
    Aes128,
    /// The audio frames, with AES-128 in CBC mode.
    SampleAes,
    /// The audio frames, by Common Encryption with AES-128 in CTR mode.
    SampleAesCtr,
    /// The whole segment, with AES-256 in GCM mode.
    Aes256Gcm,
    /// A method that windway does not know.
    Other(Box<str>),
}

/// An initialization section (`EXT-X-MAP`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Map {
    /// Where it is.
    pub uri: Uri,
    /// The part of the resource. `None` for the whole.
    pub byte_range: Option<ByteRange>,
    /// Keys of different formats. Empty if it is not encrypted.
    pub keys: Arc<[Key]>,
}

/// What the server offers (`EXT-X-SERVER-CONTROL`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerControl {
    /// Segments that are older than this may be left out of an update.
    pub can_skip_until: Option<Duration>,
    /// The server can hold a request until the playlist has changed.
    pub can_block_reload: bool,
    /// Distance from the end at which playback should start.
    pub hold_back: Option<Duration>,
    /// The same for low latency.
    pub part_hold_back: Option<Duration>,
}

/// A resource that will be complete soon (`EXT-X-PRELOAD-HINT`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PreloadHint {
    /// It is an initialization section and not a part.
    pub is_map: bool,
    /// Where it is.
    pub uri: Uri,
    /// Its bytes. `None` for the whole; the end may be open.
    pub byte_range: Option<ByteRange>,
}

/// The state of another rendition (`EXT-X-RENDITION-REPORT`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RenditionReport {
    /// Its media playlist.
    pub uri: Uri,
    /// Media sequence number of its last segment.
    pub last_sequence: Option<u64>,
    /// Index of its last part.
    pub last_part: Option<u64>,
}

/// A date range with attributes for the application (`EXT-X-DATERANGE`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DateRange {
    /// Name of the range.
    pub id: Box<str>,
    /// Class of the range.
    pub class: Option<Box<str>>,
    /// When it begins.
    pub start: Option<SystemTime>,
    /// How long it is.
    pub duration: Option<Duration>,
    /// All attributes, also those above.
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { method, uri, iv: _, format } = self;
        f.debug_struct("Key")
            .field("method", method)
            .field("uri", uri)
            .field("format", format)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// `None` for the method `NONE`.
    pub(super) fn parse(attributes: &Attributes<'_>) -> Result<Option<Self>, PlaylistProblem> {
        let method = match attributes.required("METHOD")? {
            "NONE" => return Ok(None),
            "AES-128" => KeyMethod::Aes128,
            "SAMPLE-AES" => KeyMethod::SampleAes,
            "SAMPLE-AES-CTR" => KeyMethod::SampleAesCtr,
            "AES-256-GCM" => KeyMethod::Aes256Gcm,
            other => KeyMethod::Other(other.into()),
        };
        Ok(Some(Self {
            method,
            uri: Uri::new(attributes.required("URI")?),
            iv: attributes.parsed("IV", parse_hex)?,
            format: attributes.text("KEYFORMAT").unwrap_or_else(|| "identity".into()),
        }))
    }

    /// True if the key itself is at the URI: 16 or 32 bytes.
    pub fn is_identity(&self) -> bool {
        &*self.format == "identity"
    }
}

impl MediaPlaylist {
    /// Duration of all segments.
    pub fn duration(&self) -> Duration {
        self.segments.iter().map(|segment| segment.duration).sum()
    }

    /// Media sequence number after that of the last segment.
    pub fn end_sequence(&self) -> u64 {
        self.media_sequence.saturating_add(self.segments.len() as u64)
    }

    /// The segment with this media sequence number.
    pub fn segment(&self, sequence: u64) -> Option<&Segment> {
        let index = sequence.checked_sub(self.media_sequence)?;
        self.segments.get(usize::try_from(index).ok()?)
    }
}

pub(super) fn parse_number(text: &str, what: &'static str) -> Result<u64, PlaylistProblem> {
    text.trim().parse().map_err(|_| PlaylistProblem::InvalidValue(what))
}

/// `None` if the offset is not a number: then there is no preference.
pub(super) fn parse_start(text: &str, variables: &mut Variables) -> Result<Option<Start>, PlaylistProblem> {
    let attributes = Attributes::parse(text, variables)?;
    let (offset, is_from_end) = parse_signed_seconds(attributes.required("TIME-OFFSET")?)
        .ok_or(PlaylistProblem::InvalidValue("TIME-OFFSET"))?;
    Ok(Some(Start { offset, is_from_end, is_precise: attributes.is_yes("PRECISE") }))
}

pub(super) fn parse(lines: &mut Lines<'_>, context: Context<'_>) -> Result<MediaPlaylist, PlaylistError> {
    let mut parser = Parser::default();
    while let Some(line) = lines.next()? {
        parser.handle(line, context).map_err(|problem| lines.error(problem))?;
    }
    parser.finish().map_err(|problem| lines.error(problem))
}

#[derive(Default)]
struct Parser {
    list: MediaPlaylist,
    variables: Variables,
    has_target: bool,
    /// What applies to all segments from here on.
    keys: Arc<[Key]>,
    map: Option<Arc<Map>>,
    discontinuity_sequence: u64,
    bitrate: Option<u64>,
    /// What applies to the next segment.
    next: NextSegment,
    /// The last byte range of a segment and of a part: the next one may continue it.
    last_range: Option<(Uri, u64)>,
    last_part_range: Option<(Uri, u64)>,
}

#[derive(Default)]
struct NextSegment {
    duration: Option<Duration>,
    title: Option<Box<str>>,
    range: Option<RangeText>,
    date_time: Option<SystemTime>,
    is_gap: bool,
    parts: Vec<Part>,
}

impl Parser {
    fn handle(&mut self, line: Line<'_>, context: Context<'_>) -> Result<(), PlaylistProblem> {
        let (tag, value) = match line {
            Line::Uri(uri) => return self.handle_uri(uri),
            Line::Tag(tag, value) => (tag, value),
        };
        if kind_of(tag) == Kind::Multivariant {
            return Err(PlaylistProblem::MixedKinds);
        }
        match tag {
            "EXTINF" => self.handle_duration(value),
            "EXT-X-BYTERANGE" => self.handle_range(value),
            "EXT-X-DISCONTINUITY" => self.handle_discontinuity(),
            "EXT-X-KEY" => self.handle_key(value),
            "EXT-X-MAP" => self.handle_map(value),
            "EXT-X-PROGRAM-DATE-TIME" => {
                // A date that can't be read is as good as none: nothing depends on it but the display of dates.
                self.next.date_time = parse_date_time(value);
                Ok(())
            }
            "EXT-X-GAP" => {
                self.next.is_gap = true;
                Ok(())
            }
            "EXT-X-BITRATE" => {
                self.bitrate = parse_rounded(value).and_then(|rate| rate.checked_mul(1000));
                Ok(())
            }
            "EXT-X-PART" => self.handle_part(value),
            "EXT-X-DATERANGE" => self.handle_date_range(value),
            "EXT-X-SKIP" => self.handle_skip(value, context.previous),
            "EXT-X-PRELOAD-HINT" => self.handle_hint(value),
            "EXT-X-RENDITION-REPORT" => self.handle_report(value),
            "EXT-X-DEFINE" => self.variables.define(value, context.variables, context.url),
            _ => self.handle_header(tag, value),
        }
    }

    /// Tags about the whole playlist.
    fn handle_header(&mut self, tag: &str, value: &str) -> Result<(), PlaylistProblem> {
        match tag {
            "EXT-X-VERSION" => self.list.version = parse_number(value, "version")?,
            "EXT-X-INDEPENDENT-SEGMENTS" => self.list.has_independent_segments = true,
            "EXT-X-START" => self.list.start = parse_start(value, &mut self.variables)?,
            "EXT-X-TARGETDURATION" => {
                // Section 4.4.3.1 wants an integer. Some servers write a fraction.
                self.list.target_duration =
                    parse_seconds(value).ok_or(PlaylistProblem::InvalidValue("target duration"))?;
                self.has_target = true;
            }
            "EXT-X-MEDIA-SEQUENCE" => {
                self.check_before_first_segment()?;
                self.list.media_sequence = parse_number(value, "media sequence number")?;
            }
            "EXT-X-DISCONTINUITY-SEQUENCE" => {
                self.check_before_first_segment()?;
                self.discontinuity_sequence = parse_number(value, "discontinuity sequence number")?;
                self.list.discontinuity_sequence = self.discontinuity_sequence;
            }
            "EXT-X-ENDLIST" => self.list.is_ended = true,
            "EXT-X-PLAYLIST-TYPE" => {
                self.list.playlist_type = match value.trim() {
                    "EVENT" => Some(PlaylistType::Event),
                    "VOD" => Some(PlaylistType::Vod),
                    _ => return Err(PlaylistProblem::InvalidValue("playlist type")),
                };
            }
            "EXT-X-I-FRAMES-ONLY" => self.list.is_i_frames_only = true,
            "EXT-X-PART-INF" => {
                let attributes = Attributes::parse(value, &mut self.variables)?;
                attributes.required("PART-TARGET")?;
                self.list.part_target = attributes.seconds("PART-TARGET")?;
            }
            "EXT-X-SERVER-CONTROL" => {
                let attributes = Attributes::parse(value, &mut self.variables)?;
                self.list.server_control = ServerControl {
                    can_skip_until: attributes.seconds("CAN-SKIP-UNTIL")?,
                    can_block_reload: attributes.is_yes("CAN-BLOCK-RELOAD"),
                    hold_back: attributes.seconds("HOLD-BACK")?,
                    part_hold_back: attributes.seconds("PART-HOLD-BACK")?,
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn check_before_first_segment(&self) -> Result<(), PlaylistProblem> {
        // Sections 4.4.3.2 and 4.4.3.3: later, the segments before would have been numbered wrong.
        if self.list.segments.is_empty() { Ok(()) } else { Err(PlaylistProblem::AfterFirstSegment) }
    }

    fn handle_duration(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let (duration, title) = value.split_once(',').unwrap_or((value, ""));
        let duration = parse_seconds(duration).ok_or(PlaylistProblem::InvalidValue("duration"))?;
        self.next.duration = Some(duration);
        let title = title.trim();
        self.next.title = if title.is_empty() { None } else { Some(title.into()) };
        Ok(())
    }

    fn handle_range(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        self.next.range = Some(RangeText::parse(value).ok_or(PlaylistProblem::InvalidValue("byte range"))?);
        Ok(())
    }

    fn handle_discontinuity(&mut self) -> Result<(), PlaylistProblem> {
        let next = self.discontinuity_sequence.checked_add(1);
        self.discontinuity_sequence = next.ok_or(PlaylistProblem::Overflow)?;
        Ok(())
    }

    fn handle_key(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let Some(key) = Key::parse(&attributes)? else {
            self.keys = Arc::default();
            return Ok(());
        };
        // Section 4.4.4.4: a key holds until the next one of the same format.
        let others = self.keys.iter().filter(|known| known.format != key.format).cloned();
        self.keys = others.chain([key.clone()]).collect();
        Ok(())
    }

    fn handle_map(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let byte_range = match attributes.parsed("BYTERANGE", RangeText::parse)? {
            Some(range) => Some(range.at(range.offset.unwrap_or(0))?),
            None => None,
        };
        // Section 4.4.4.5: the media sequence number can't be the IV of what belongs to many segments.
        let needs_iv = |key: &Key| key.method == KeyMethod::Aes128 && key.is_identity() && key.iv.is_none();
        if self.keys.iter().any(needs_iv) {
            return Err(PlaylistProblem::MapWithoutIv);
        }
        let uri = Uri::new(attributes.required("URI")?);
        self.map = Some(Arc::new(Map { uri, byte_range, keys: Arc::clone(&self.keys) }));
        Ok(())
    }

    fn handle_part(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let uri = Uri::new(attributes.required("URI")?);
        attributes.required("DURATION")?;
        let range = attributes.parsed("BYTERANGE", RangeText::parse)?;
        let byte_range = continue_range(range, &uri, &mut self.last_part_range)?;
        self.next.parts.push(Part {
            uri,
            duration: attributes.seconds("DURATION")?.unwrap_or_default(),
            byte_range,
            is_independent: attributes.is_yes("INDEPENDENT"),
            is_gap: attributes.is_yes("GAP"),
        });
        Ok(())
    }

    fn handle_date_range(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let text = |(name, value, _): (&str, &str, bool)| (name.into(), value.into());
        self.list.date_ranges.push(DateRange {
            id: attributes.required("ID")?.into(),
            class: attributes.text("CLASS"),
            start: attributes.get("START-DATE").and_then(parse_date_time),
            duration: attributes.seconds("DURATION")?,
            attributes: attributes.iter().map(text).collect(),
        });
        Ok(())
    }

    /// Takes skipped segments from the previous version (section 6.3.7).
    fn handle_skip(&mut self, value: &str, previous: Option<&MediaPlaylist>) -> Result<(), PlaylistProblem> {
        self.check_before_first_segment()?;
        let attributes = Attributes::parse(value, &mut self.variables)?;
        attributes.required("SKIPPED-SEGMENTS")?;
        let count = attributes.number("SKIPPED-SEGMENTS")?.unwrap_or_default();
        let end = self.list.media_sequence.checked_add(count).ok_or(PlaylistProblem::Overflow)?;
        let previous = previous.ok_or(PlaylistProblem::Unmergeable)?;
        let from = self.list.media_sequence.checked_sub(previous.media_sequence);
        let range = from.zip(end.checked_sub(previous.media_sequence));
        let range = range.and_then(|(from, to)| Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?));
        let skipped = range.and_then(|range| previous.segments.get(range));
        self.list.segments = skipped.ok_or(PlaylistProblem::Unmergeable)?.to_vec();
        if let Some(last) = self.list.segments.last() {
            // The tags of skipped segments are skipped as well: what they set still holds.
            self.keys = Arc::clone(&last.keys);
            self.map.clone_from(&last.map);
            self.discontinuity_sequence = last.discontinuity_sequence;
            self.bitrate = last.bitrate;
            self.last_range = last.byte_range.map(|range| (last.uri.clone(), range.end));
        }
        Ok(())
    }

    fn handle_hint(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let is_map = match attributes.required("TYPE")? {
            "PART" => false,
            "MAP" => true,
            _ => return Ok(()),
        };
        let uri = Uri::new(attributes.required("URI")?);
        let start = attributes.number("BYTERANGE-START")?;
        let len = attributes.number("BYTERANGE-LENGTH")?;
        let from = start.unwrap_or(0);
        let end = match len {
            Some(len) => from.checked_add(len).ok_or(PlaylistProblem::Overflow)?,
            None => u64::MAX,
        };
        let byte_range = (start.is_some() || len.is_some()).then_some(ByteRange::new(from, end));
        // Section 4.4.5.3: of each type only the first one counts.
        if !self.list.preload_hints.iter().any(|hint| hint.is_map == is_map) {
            self.list.preload_hints.push(PreloadHint { is_map, uri, byte_range });
        }
        Ok(())
    }

    fn handle_report(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        self.list.rendition_reports.push(RenditionReport {
            uri: Uri::new(attributes.required("URI")?),
            last_sequence: attributes.number("LAST-MSN")?,
            last_part: attributes.number("LAST-PART")?,
        });
        Ok(())
    }

    fn handle_uri(&mut self, uri: &str) -> Result<(), PlaylistProblem> {
        let uri = Uri::new(self.variables.replace(uri)?);
        let next = std::mem::take(&mut self.next);
        let byte_range = continue_range(next.range, &uri, &mut self.last_range)?;
        self.list.segments.push(Segment {
            uri,
            duration: next.duration.ok_or(PlaylistProblem::UriWithoutTag)?,
            byte_range,
            discontinuity_sequence: self.discontinuity_sequence,
            keys: Arc::clone(&self.keys),
            map: self.map.clone(),
            date_time: next.date_time,
            is_gap: next.is_gap,
            bitrate: self.bitrate.filter(|_| byte_range.is_none()),
            title: next.title,
            parts: next.parts,
        });
        let len = self.list.segments.len() as u64;
        self.list.media_sequence.checked_add(len).ok_or(PlaylistProblem::Overflow)?;
        Ok(())
    }

    fn finish(mut self) -> Result<MediaPlaylist, PlaylistProblem> {
        if self.next.duration.is_some() {
            return Err(PlaylistProblem::NoUri);
        }
        if !self.has_target {
            // Section 4.4.3.1 requires the tag. Where it is missing the longest segment gives its value.
            let durations = self.list.segments.iter().map(|segment| segment.duration);
            self.list.target_duration = durations.max().unwrap_or_default();
        }
        self.list.version = self.list.version.max(1);
        self.list.parts = self.next.parts;
        Ok(self.list)
    }
}

/// Completes a byte range without an offset: it begins where the last range of the same resource ended (section 4.4.4.2).
fn continue_range(
    range: Option<RangeText>,
    uri: &Uri,
    last: &mut Option<(Uri, u64)>,
) -> Result<Option<ByteRange>, PlaylistProblem> {
    let Some(range) = range else {
        *last = None;
        return Ok(None);
    };
    let before = last.as_ref().filter(|(resource, _)| resource == uri).map(|(_, end)| *end);
    let range = range.at(range.offset.or(before).ok_or(PlaylistProblem::NoOffset)?)?;
    *last = Some((uri.clone(), range.end));
    Ok(Some(range))
}
