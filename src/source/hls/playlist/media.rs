//! Media playlists (sections 4.4.3 to 4.4.5).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::key::Key;
use super::start::Start;
use super::uri::Uri;
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
    /// What is known of that segment: its key, its initialization section and its discontinuity. It has no URI and no duration yet.
    pub(crate) incomplete: Option<Box<Segment>>,
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
    /// URI of the segment.
    pub uri: Uri,
    /// How long it plays, not less than 1 ms. The target duration, if the playlist does not say it: it can't be read, is negative, or is
    /// 0 as that of all segments.
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
    /// URI of the part.
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

/// An initialization section (`EXT-X-MAP`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Map {
    /// URI of the resource.
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
    /// URI of the resource.
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

impl MediaPlaylist {
    /// Duration of all segments.
    pub fn duration(&self) -> Duration {
        self.segments.iter().map(|segment| segment.duration).sum()
    }

    /// True if there is nothing to play in it.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.parts.is_empty()
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

    /// When the segment at `index` of [`segments`](Self::segments) begins. `None` if no segment has a date, or there is no such
    /// segment.
    pub fn date_time_at(&self, index: usize) -> Option<SystemTime> {
        // Section 4.4.4.6: dates are extrapolated, backwards too, by the durations of the segments between.
        let dated = |(at, segment): (usize, &Segment)| segment.date_time.map(|date| (at, date));
        let between =
            |segments: &[Segment]| segments.iter().map(|segment| segment.duration).sum::<Duration>();
        let before = self.segments.get(..=index)?.iter().enumerate().rev().find_map(dated);
        if let Some((at, date)) = before {
            return date.checked_add(between(&self.segments[at..index]));
        }
        let (at, date) = self.segments.iter().enumerate().skip(index).find_map(dated)?;
        date.checked_sub(between(&self.segments[index..at]))
    }
}
