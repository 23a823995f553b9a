//! Parses media playlists (sections 4.4.3 to 4.4.5).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attributes::Attributes;
use super::context::Context;
use super::date_time::parse_date_time;
use super::define::define;
use super::error::{PlaylistError, PlaylistProblem};
use super::key::{Key, KeyMethod};
use super::lines::{Line, Lines};
use super::media::{
    DateRange, Map, MediaPlaylist, Part, PlaylistType, PreloadHint, RenditionReport, Segment, ServerControl,
};
use super::start::parse_start;
use super::uri::Uri;
use super::values::{RangeText, parse_number, parse_rounded, parse_seconds};
use super::variables::Variables;
use crate::types::ByteRange;

/// Keys of one segment, at most: one for each format, of which there are five in use. Each segment may have a list of its own.
const MOST_KEYS: usize = 16;

/// Duration of a segment, at least. Version 2 of the format rounds to whole seconds. At a time that no segment has, nothing would be
/// played.
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) fn parse(lines: &mut Lines<'_>, context: Context<'_>) -> Result<MediaPlaylist, PlaylistError> {
    let mut parser = Parser::default();
    while let Some(line) = lines.next()? {
        lines.check(parser.handle(line, context))?;
    }
    let left_out = lines.finish();
    parser.check_update(context.previous).map_err(|problem| lines.error(problem))?;
    let list = parser.finish().map_err(|problem| lines.error(problem))?;
    match left_out {
        // Nothing but such lines.
        Some(error) if error.problem == PlaylistProblem::UriWithoutTag && list.is_empty() => Err(error),
        _ => Ok(list),
    }
}

#[derive(Default)]
struct Parser {
    list: MediaPlaylist,
    variables: Variables,
    /// Its first segments are those of the previous version.
    is_update: bool,
    /// A segment has a duration that is not 0.
    has_duration: bool,
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
        let value = &*value;
        match tag {
            "EXT-X-STREAM-INF" => Err(PlaylistProblem::MixedKinds),
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
                // Section 4.4.4.8: in kilobits per second.
                self.bitrate = parse_rounded(value).and_then(|rate| rate.checked_mul(1000));
                Ok(())
            }
            "EXT-X-PART" => self.handle_part(value),
            "EXT-X-DATERANGE" => self.handle_date_range(value),
            "EXT-X-SKIP" => self.handle_skip(value, context.previous),
            "EXT-X-PRELOAD-HINT" => self.handle_hint(value),
            "EXT-X-RENDITION-REPORT" => self.handle_report(value),
            "EXT-X-DEFINE" => define(&mut self.variables, value, context.variables, context.url),
            _ => self.handle_header(tag, value),
        }
    }

    /// Tags about the whole playlist.
    fn handle_header(&mut self, tag: &str, value: &str) -> Result<(), PlaylistProblem> {
        match tag {
            "EXT-X-VERSION" => self.list.version = parse_number(value, "version")?,
            "EXT-X-INDEPENDENT-SEGMENTS" => self.list.has_independent_segments = true,
            "EXT-X-START" => self.list.start = Some(parse_start(value, &mut self.variables)?),
            "EXT-X-TARGETDURATION" => {
                // Section 4.4.3.1 wants an integer. Some servers write a fraction.
                self.list.target_duration =
                    parse_seconds(value).ok_or(PlaylistProblem::InvalidValue("target duration"))?;
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
                    // Section 6.3.1 asks to ignore what is not recognised. Without the tag the server may change the playlist
                    // in any way (section 4.4.3.5), so a reader that assumes nothing of it is right for an unknown type too.
                    _ => None,
                };
            }
            "EXT-X-I-FRAMES-ONLY" => self.list.is_i_frames_only = true,
            "EXT-X-PART-INF" => {
                let attributes = Attributes::parse(value, &mut self.variables)?;
                attributes.required("PART-TARGET")?;
                self.list.part_target = attributes.seconds("PART-TARGET")?;
            }
            "EXT-X-SERVER-CONTROL" => self.handle_server_control(value)?,
            // Tags of multivariant playlists: see `Lines::kind`.
            _ => {}
        }
        Ok(())
    }

    fn handle_server_control(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        self.list.server_control = ServerControl {
            can_skip_until: attributes.seconds("CAN-SKIP-UNTIL")?,
            can_block_reload: attributes.is_yes("CAN-BLOCK-RELOAD"),
            hold_back: attributes.seconds("HOLD-BACK")?,
            part_hold_back: attributes.seconds("PART-HOLD-BACK")?,
        };
        Ok(())
    }

    fn check_before_first_segment(&self) -> Result<(), PlaylistProblem> {
        // Sections 4.4.3.2 and 4.4.3.3: later, the segments before would have been numbered wrong.
        if self.list.segments.is_empty() { Ok(()) } else { Err(PlaylistProblem::AfterFirstSegment) }
    }

    fn handle_duration(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let (duration, title) = value.split_once(',').unwrap_or((value, ""));
        // Lists of tracks write -1 for a stream, which has no end. It must not be loaded as if it were a segment. They have no target
        // duration. Where there is one, a radio writes -1 for what it does not know.
        if duration.trim_start().starts_with('-') && self.list.target_duration.is_zero() {
            return Err(PlaylistProblem::InvalidValue("duration"));
        }
        // Section 4.4.4.1 requires the duration. Other players guess one where it can't be read, and play the segment.
        let duration = parse_seconds(duration).unwrap_or(self.list.target_duration);
        self.has_duration |= !duration.is_zero();
        self.next.duration = Some(duration.max(SHORTEST));
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
            // METHOD=NONE: what follows is not encrypted, whatever the formats of the keys before.
            self.keys = Arc::default();
            return Ok(());
        };
        // Section 4.4.4.4: a key holds until the next one of the same format.
        let others = self.keys.iter().filter(|known| known.format != key.format).cloned();
        let keys: Arc<[Key]> = others.chain([key.clone()]).collect();
        if keys.len() > MOST_KEYS {
            return Err(PlaylistProblem::TooManyKeys(MOST_KEYS));
        }
        self.keys = keys;
        Ok(())
    }

    fn handle_map(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let byte_range = match attributes.parsed("BYTERANGE", RangeText::parse)? {
            // No range precedes it that it could continue.
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
        // Section 6.2.5.1: date ranges are left out for `_HLS_skip=v2` only, which is never asked for. So all are here.
        attributes.required("SKIPPED-SEGMENTS")?;
        let count = attributes.number("SKIPPED-SEGMENTS")?.unwrap_or_default();
        let end = self.list.media_sequence.checked_add(count).ok_or(PlaylistProblem::Overflow)?;
        let previous = previous.ok_or(PlaylistProblem::Unmergeable)?;
        let from = self.list.media_sequence.checked_sub(previous.media_sequence);
        let range = from.zip(end.checked_sub(previous.media_sequence));
        let range = range.and_then(|(from, to)| Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?));
        let skipped = range.and_then(|range| previous.segments.get(range));
        self.list.segments = skipped.ok_or(PlaylistProblem::Unmergeable)?.to_vec();
        self.is_update = true;
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

    /// Segments of an update that were known before must still have their numbers. If it skips more or fewer than it leaves out,
    /// all behind would be played under wrong ones: twice, or not at all.
    fn check_update(&self, previous: Option<&MediaPlaylist>) -> Result<(), PlaylistProblem> {
        let Some(previous) = previous.filter(|_| self.is_update) else { return Ok(()) };
        let mut numbered = self.list.segments.iter().zip(self.list.media_sequence..);
        // A query that changes is a token.
        let is_known = |(segment, number): (&Segment, u64)| {
            previous.segment(number).is_none_or(|known| known.uri.path() == segment.uri.path())
        };
        if numbered.all(is_known) { Ok(()) } else { Err(PlaylistProblem::Unmergeable) }
    }

    fn handle_hint(&mut self, value: &str) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(value, &mut self.variables)?;
        let is_map = match attributes.required("TYPE")? {
            "PART" => false,
            "MAP" => true,
            // Section 6.3.1: a tag with an unknown enumerated value is ignored.
            _ => return Ok(()),
        };
        let uri = Uri::new(attributes.required("URI")?);
        let start = attributes.number("BYTERANGE-START")?;
        let len = attributes.number("BYTERANGE-LENGTH")?;
        let from = start.unwrap_or(0);
        let end = match len {
            Some(len) => from.checked_add(len).ok_or(PlaylistProblem::Overflow)?,
            // Section 4.4.5.3: without a length it goes to the end of the resource.
            None => u64::MAX,
        };
        let byte_range = (start.is_some() || len.is_some()).then_some(ByteRange::new(from, end));
        // Section 6.3.8: of each type only the first one counts.
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
        let duration = self.next.duration.ok_or(PlaylistProblem::UriWithoutTag)?;
        let uri = Uri::new(self.variables.replace(uri)?);
        let next = std::mem::take(&mut self.next);
        let byte_range = continue_range(next.range, &uri, &mut self.last_range)?;
        self.list.segments.push(Segment {
            uri,
            duration,
            byte_range,
            discontinuity_sequence: self.discontinuity_sequence,
            keys: Arc::clone(&self.keys),
            map: self.map.clone(),
            date_time: next.date_time,
            is_gap: next.is_gap,
            // Section 4.4.4.8: it does not apply to a segment with a byte range.
            bitrate: self.bitrate.filter(|_| byte_range.is_none()),
            title: next.title,
            parts: next.parts,
        });
        let len = self.list.segments.len() as u64;
        self.list.media_sequence.checked_add(len).ok_or(PlaylistProblem::Overflow)?;
        Ok(())
    }

    fn finish(mut self) -> Result<MediaPlaylist, PlaylistProblem> {
        // Some playlists end with the tag of a segment that is not there yet, or that was cut off.
        if self.next.duration.is_some() && self.list.segments.is_empty() {
            return Err(PlaylistProblem::NoUri);
        }
        if self.list.target_duration.is_zero() {
            // Section 4.4.3.1 requires the tag. Where it is missing or 0, the longest segment gives its value.
            let durations = self.list.segments.iter().map(|segment| segment.duration);
            self.list.target_duration = durations.max().unwrap_or_default();
        }
        if !self.has_duration {
            // Some servers write 0 for what they do not know.
            let unknown = self.list.segments.iter_mut().filter(|segment| segment.duration == SHORTEST);
            unknown.for_each(|segment| segment.duration = self.list.target_duration);
        }
        // The numbers of the next segment, and of the one after it, are used as well.
        let after = self.list.media_sequence.checked_add(self.list.segments.len() as u64 + 1);
        after.ok_or(PlaylistProblem::Overflow)?;
        self.list.version = self.list.version.max(1);
        // What was read of the next segment, whose URI is not there yet.
        self.list.incomplete = Some(Box::new(Segment {
            uri: Uri::new(""),
            duration: Duration::ZERO,
            byte_range: None,
            discontinuity_sequence: self.discontinuity_sequence,
            keys: self.keys,
            map: self.map,
            date_time: self.next.date_time,
            is_gap: self.next.is_gap,
            bitrate: self.bitrate,
            title: None,
            parts: Vec::new(),
        }));
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
        // Section 4.4.4.2: only the range directly before can be continued.
        *last = None;
        return Ok(None);
    };
    let before = last.as_ref().filter(|(resource, _)| resource == uri).map(|(_, end)| *end);
    let range = range.at(range.offset.or(before).ok_or(PlaylistProblem::NoOffset)?)?;
    *last = Some((uri.clone(), range.end));
    Ok(Some(range))
}
