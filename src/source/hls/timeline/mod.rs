//! Presentation time: of the segments of a playlist, and of the frames in them; and the rules for live playlists that depend on
//! time. No I/O, no clock.

pub(crate) mod clock;
pub(crate) mod directives;
pub(crate) mod reload;
pub(crate) mod start;

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::playlist::{MediaPlaylist, Part, Segment};

/// A media playlist on the time axis of the presentation.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    pub(crate) list: Arc<MediaPlaylist>,
    /// Where the playlist came from, after redirects.
    pub(crate) url: Url,
    /// The playlist that came after it seemed to be that of a server that has started again.
    pub(crate) seems_restarted: bool,
    /// It begins with the presentation: it had an end, or a type, when it was loaded first. Else it is a window.
    is_whole: bool,
    /// Start of each segment, and the end of the last one.
    starts: Vec<Duration>,
}

impl Timeline {
    /// The first segment starts at `start`.
    pub(crate) fn new(list: MediaPlaylist, url: Url, start: Duration) -> Self {
        let mut starts = Vec::with_capacity(list.segments.len() + 1);
        let mut at = start;
        starts.push(at);
        for segment in &list.segments {
            // Saturating: the durations of a hostile playlist may be anything.
            at = at.saturating_add(segment.duration);
            starts.push(at);
        }
        let is_whole = list.is_ended || list.playlist_type.is_some();
        Self { list: Arc::new(list), url, seems_restarted: false, is_whole, starts }
    }

    /// How another version of this playlist relates to it.
    pub(crate) fn compare(&self, list: &MediaPlaylist) -> Version {
        let own = &self.list;
        // A server that starts again, or can't write, may list nothing for a while. What it lists then shows whether its numbers go on.
        let is_empty = |list: &MediaPlaylist| list.segments.is_empty() && list.parts.is_empty();
        if is_empty(list) && !list.is_ended && !is_empty(own) {
            return Version::Older;
        }
        let is_behind = list.end_sequence() < own.end_sequence() || list.media_sequence < own.media_sequence;
        if is_behind && !own.is_ended {
            // A cache may send an old version. Other resources under the same numbers are another playlist; a query that
            // changes is a token.
            let is_same = |segment: &Segment, sequence: u64| {
                own.segment(sequence).is_none_or(|known| known.uri.path() == segment.uri.path())
            };
            let mut numbered = list.segments.iter().zip(list.media_sequence..);
            let has_common = list.end_sequence() > own.media_sequence;
            if !(has_common && numbered.all(|(segment, sequence)| is_same(segment, sequence))) {
                return Version::Restarted;
            }
            // No old version has an end: the server has taken back segments, or shows those again that had left the window. One that
            // has newer segments comes from a server with a longer window.
            return if list.is_ended || list.end_sequence() > own.end_sequence() {
                Version::Newer { has_changed: true }
            } else {
                Version::Older
            };
        }
        let has_changed = list.end_sequence() > own.end_sequence()
            || list.is_ended != own.is_ended
            || list.parts.len() != own.parts.len();
        Version::Newer { has_changed }
    }

    /// The next version of this playlist: segments that both have keep their times.
    pub(crate) fn update(&self, mut list: MediaPlaylist, url: Url) -> Self {
        self.drop_earlier(&mut list);
        let start = self.start_of(list.media_sequence);
        let start = start.or_else(|| self.start_by_date(&list)).unwrap_or_else(|| self.start_by_count(&list));
        Self { is_whole: self.is_whole, ..Self::new(list, url, start) }
    }

    /// Leaves out segments that precede the first one of this version: they might have to start before the presentation does.
    fn drop_earlier(&self, list: &mut MediaPlaylist) {
        let earlier = self.list.media_sequence.saturating_sub(list.media_sequence);
        let Ok(earlier) = usize::try_from(earlier) else { return };
        // With nothing in common their times are found in another way.
        if (1..list.segments.len()).contains(&earlier) {
            list.segments.drain(..earlier);
            list.media_sequence = self.list.media_sequence;
            list.discontinuity_sequence = list.segments[0].discontinuity_sequence;
        }
    }

    /// The start of a version that has no segment in common with this one. Section 6.2.2: each segment that was missed in between
    /// has a number, and the known ones show about how long it is.
    fn start_by_count(&self, list: &MediaPlaylist) -> Duration {
        let missed = list.media_sequence.saturating_sub(self.list.end_sequence());
        let missed = u32::try_from(missed).ok().and_then(|missed| self.segment_length().checked_mul(missed));
        // Else the server numbers its segments in another way. Nothing is known but that the new ones are later.
        self.end().saturating_add(missed.filter(|missed| *missed <= MOST_MISSED).unwrap_or_default())
    }

    /// The playlist of another level, loaded so much `later` than this one. A finished playlist begins where this one does, and a
    /// live one ends where this one would by then, unless their dates differ.
    pub(crate) fn other(&self, list: MediaPlaylist, url: Url, later: Duration) -> Self {
        // Section 6.3.2: media sequence numbers of different playlists can't be compared. So the dates decide.
        let start = self.start_by_date(&list).unwrap_or_else(|| {
            // A live playlist that has ended meanwhile has a window, too.
            let is_whole = self.is_whole || list.media_sequence == self.list.media_sequence;
            if list.is_ended && is_whole || list.playlist_type.is_some() {
                return self.starts[0];
            }
            self.start_of_live(&list, later)
        });
        Self { is_whole: self.is_whole, ..Self::new(list, url, start) }
    }

    /// Start of a live playlist without dates, which was loaded so much `later` than this one.
    fn start_of_live(&self, list: &MediaPlaylist, later: Duration) -> Duration {
        // Section 4.4.3.1: segments are longer than the target duration by what is rounded.
        let limit = self.list.target_duration.max(list.target_duration).saturating_add(ROUNDED);
        // After an outage this one lacks what was added meanwhile. The server may have added nothing, too.
        let unchanged = self.end().saturating_sub(list.duration());
        let grown = self.end().saturating_add(self.added_in(later)).saturating_sub(list.duration());
        // One that has ended may have done so long before the end of this one.
        let earliest = if list.is_ended { Duration::ZERO } else { unchanged.saturating_sub(limit) };
        let is_plausible = |start: &Duration| (earliest..=grown.saturating_add(limit)).contains(start);
        let is_behind = list.media_sequence > self.list.end_sequence();
        let by_first =
            if is_behind { Some(self.start_by_count(list)) } else { self.start_of(list.media_sequence) };
        // Its first segments may have left the window of this one.
        let by_end = || self.start_of(list.end_sequence())?.checked_sub(list.duration());
        let by_number = by_first.or_else(by_end);
        // Its last segment may be newer or older than ours, so the ends alone would be wrong by a segment now and then. Most
        // servers number the segments of all levels alike: numbers that agree with the ends within a segment are believed.
        by_number.filter(is_plausible).unwrap_or(grown)
    }

    /// What a live server adds to this playlist in this time: whole segments.
    fn added_in(&self, time: Duration) -> Duration {
        let length = self.segment_length();
        let segments = time.as_nanos().checked_div(length.as_nanos()).unwrap_or(0);
        u32::try_from(segments).ok().and_then(|segments| length.checked_mul(segments)).unwrap_or_default()
    }

    /// Length of a segment of this playlist, on average.
    fn segment_length(&self) -> Duration {
        self.list.duration() / u32::try_from(self.list.segments.len()).unwrap_or(u32::MAX).max(1)
    }

    fn start_by_date(&self, list: &MediaPlaylist) -> Option<Duration> {
        let (own, other) = (self.list.date_time_at(0)?, list.date_time_at(0)?);
        match other.duration_since(own) {
            Ok(later) => self.starts[0].checked_add(later),
            Err(earlier) => self.starts[0].checked_sub(earlier.duration()),
        }
    }

    pub(crate) fn start(&self) -> Duration {
        self.starts[0]
    }

    /// Duration of the first segment.
    pub(crate) fn first_length(&self) -> Duration {
        self.list.segments.first().map_or(Duration::ZERO, |segment| segment.duration)
    }

    pub(crate) fn end(&self) -> Duration {
        self.starts.last().copied().unwrap_or_default()
    }

    /// Start of the segment with this media sequence number, or the end of the last one.
    pub(crate) fn start_of(&self, sequence: u64) -> Option<Duration> {
        let index = sequence.checked_sub(self.list.media_sequence)?;
        self.starts.get(usize::try_from(index).ok()?).copied()
    }

    pub(crate) fn segment(&self, sequence: u64) -> Option<&Segment> {
        self.list.segment(sequence)
    }

    /// End of the last part: the live edge.
    pub(crate) fn edge(&self) -> Duration {
        self.list.parts.iter().fold(self.end(), |edge, part| edge.saturating_add(part.duration))
    }

    /// What to fetch at this position. A segment is fetched as a whole if none of its parts was fetched. The last one, which is
    /// not complete yet, is fetched in parts (section 3.2).
    pub(crate) fn segment_at(&self, at: PlaylistPosition) -> Option<TimedSegment> {
        let whole = self.list.segment(at.sequence);
        let start = self.start_of(at.sequence)?;
        let after = PlaylistPosition { sequence: at.sequence + 1, part: 0 };
        let parts = match whole {
            // Old segments lose their parts. What of the segment was played already is dropped by its time.
            Some(segment) if at.part == 0 || segment.parts.is_empty() => {
                return Some(TimedSegment {
                    segment: Segment { parts: Vec::new(), ..segment.clone() },
                    start,
                    next: after,
                });
            }
            // This recurses only once: `after` is the beginning of a segment.
            Some(segment) if at.part >= segment.parts.len() => return self.segment_at(after),
            Some(segment) => &segment.parts,
            None => &self.list.parts,
        };
        let part = parts.get(at.part)?;
        let start = parts[..at.part].iter().fold(start, |start, part| start.saturating_add(part.duration));
        // A part has the key and the initialization section of its segment, not those of the one before: they may have changed.
        let parent = whole.or(self.list.incomplete.as_deref())?;
        let segment = Segment {
            uri: part.uri.clone(),
            duration: part.duration,
            byte_range: part.byte_range,
            is_gap: part.is_gap,
            parts: Vec::new(),
            ..parent.clone()
        };
        Some(TimedSegment { segment, start, next: PlaylistPosition { part: at.part + 1, ..at } })
    }

    /// The position after the last part of a complete segment is the beginning of the next segment. Other positions stay.
    pub(crate) fn normalize(&self, position: PlaylistPosition) -> PlaylistPosition {
        let is_behind = |segment: &Segment| position.part > 0 && position.part >= segment.parts.len();
        if self.list.segment(position.sequence).is_some_and(is_behind) {
            return PlaylistPosition { sequence: position.sequence + 1, part: 0 };
        }
        position
    }

    /// The position that plays at `time`: within a segment the part, if the playlist lists its parts.
    pub(crate) fn position_at(&self, time: Duration) -> PlaylistPosition {
        let is_incomplete = time >= self.end() && !self.list.parts.is_empty();
        let sequence = if is_incomplete { self.list.end_sequence() } else { self.sequence_at(time) };
        let parts = self.segment(sequence).map_or(&self.list.parts, |segment| &segment.parts);
        let mut end = self.start_of(sequence).unwrap_or_default();
        let is_over = |part: &&Part| {
            end = end.saturating_add(part.duration);
            end <= time
        };
        let part = parts.iter().take_while(is_over).count();
        PlaylistPosition { sequence, part: part.min(parts.len().saturating_sub(1)) }
    }

    /// Media sequence number of the segment that plays at `time`, or of the last one if `time` is after the end.
    pub(crate) fn sequence_at(&self, time: Duration) -> u64 {
        let index = self.starts.partition_point(|start| *start <= time).saturating_sub(1);
        self.list.media_sequence + index.min(self.list.segments.len().saturating_sub(1)) as u64
    }

    /// The position to continue with at `time`, after segments of another level. Their borders need not be the same. If a segment
    /// has parts, only those that are missing are fetched. Of any other segment the frames that were played are dropped by their
    /// times, unless next to nothing of it is missing: then it is skipped.
    pub(crate) fn position_from(&self, time: Duration) -> PlaylistPosition {
        let at = self.position_at(time);
        let (Some(start), Some(end)) = (self.start_of(at.sequence), self.start_of(at.sequence + 1)) else {
            return at;
        };
        // Parts have exact durations.
        let rounding = if at.part > 0 { Duration::ZERO } else { ((end - start) / 10).min(ROUNDED) };
        // `EXTINF` may be rounded, so a segment of which next to nothing is missing was played.
        let is_played = time > start && end.saturating_sub(time) <= rounding;
        if is_played { PlaylistPosition { sequence: at.sequence + 1, part: 0 } } else { at }
    }
}

/// Longest pause of a listener that is believed by the numbers of segments alone.
const MOST_MISSED: Duration = Duration::from_secs(24 * 3600);

/// Version 2 of the format has durations in whole seconds (section 4.4.4.1), and so are target durations.
pub(crate) const ROUNDED: Duration = Duration::from_millis(500);

/// Where to continue in a playlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlaylistPosition {
    /// Media sequence number.
    pub(crate) sequence: u64,
    /// Number of parts of the segment that precede the position.
    pub(crate) part: usize,
}

/// A segment or a part, and when it plays.
#[derive(Clone, Debug)]
pub(crate) struct TimedSegment {
    /// The segment; or the part, as if it were one.
    pub(crate) segment: Segment,
    /// Presentation time at which it starts.
    pub(crate) start: Duration,
    /// Position of what follows it.
    pub(crate) next: PlaylistPosition,
}

/// How one version of a playlist relates to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Newer {
        has_changed: bool,
    },
    Older,
    /// Numbers start again.
    Restarted,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::hls::playlist::Playlist;

    fn list(text: &str) -> MediaPlaylist {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n{text}\n");
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        list
    }

    fn url() -> Url {
        Url::parse("http://host/l").unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn segments_are_found_by_time() {
        let timeline = Timeline::new(
            list("#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:6,\na\n#EXTINF:4,\nb\n#EXTINF:6,\nc"),
            url(),
            seconds(10),
        );
        let at = |time| timeline.sequence_at(seconds(time));
        assert_eq!((at(0), at(10), at(15), at(16), at(20), at(99)), (7, 7, 7, 8, 9, 9));
        assert_eq!((timeline.start(), timeline.end()), (seconds(10), seconds(26)));
        assert_eq!(
            (timeline.start_of(8), timeline.start_of(10), timeline.start_of(11)),
            (Some(seconds(16)), Some(seconds(26)), None)
        );
        let from = |time: f64| timeline.position_from(Duration::from_secs_f64(time)).sequence;
        assert_eq!((from(16.0), from(17.0), from(19.0), from(19.7), from(26.0)), (8, 8, 8, 9, 10));
    }

    #[test]
    fn s6_2_2_a_segment_that_is_not_complete_comes_in_parts() {
        let part = |uri: &str| format!("#EXT-X-PART:DURATION=1,URI=\"{uri}\"\n");
        let text = format!("#EXTINF:2,\na\n{}{}#EXTINF:2,\nb\n{}", part("b0"), part("b1"), part("c0"));
        let timeline = Timeline::new(list(&text), url(), seconds(0));
        assert_eq!((timeline.end(), timeline.edge()), (seconds(4), seconds(5)));
        let position = |sequence, part| PlaylistPosition { sequence, part };
        // A change of level within a segment.
        let from = |time| timeline.position_from(seconds(time));
        assert_eq!(
            (from(1), from(2), from(3), from(4)),
            (position(0, 0), position(1, 0), position(1, 1), position(2, 0))
        );
        let timed = |sequence, part| {
            let timed = timeline.segment_at(position(sequence, part))?;
            Some((timed.segment.uri.expose().to_owned(), timed.start.as_secs(), timed.next))
        };
        assert_eq!(timed(0, 0), Some(("a".into(), 0, position(1, 0))));
        assert_eq!(timed(0, 1), Some(("a".into(), 0, position(1, 0))));
        assert_eq!(timed(1, 0), Some(("b".into(), 2, position(2, 0))));
        assert_eq!(timed(1, 1), Some(("b1".into(), 3, position(1, 2))));
        assert_eq!(timed(1, 2), Some(("c0".into(), 4, position(2, 1))));
        assert_eq!(timed(2, 0), Some(("c0".into(), 4, position(2, 1))));
        assert_eq!(timed(2, 1), None);
        let at = |millis| timeline.position_at(Duration::from_millis(millis));
        assert_eq!(
            (at(0), at(2500), at(3000), at(4500)),
            (position(0, 0), position(1, 0), position(1, 1), position(2, 0))
        );
    }

    #[test]
    fn an_update_keeps_the_times_of_common_segments() {
        let old =
            Timeline::new(list("#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:6,\na\n#EXTINF:4,\nb"), url(), seconds(0));
        let new = old.update(list("#EXT-X-MEDIA-SEQUENCE:8\n#EXTINF:4,\nb\n#EXTINF:6,\nc"), url());
        assert_eq!((new.start(), new.end()), (seconds(6), seconds(16)));
        let later = old.update(list("#EXT-X-MEDIA-SEQUENCE:99\n#EXTINF:4,\nz"), url());
        // 90 segments of five seconds were missed.
        assert_eq!(later.start(), seconds(10 + 450));
        let numbered_anew = old.update(list("#EXT-X-MEDIA-SEQUENCE:1700000000\n#EXTINF:4,\nz"), url());
        assert_eq!(numbered_anew.start(), seconds(10));
    }

    #[test]
    fn s6_3_4_versions_are_told_apart() {
        let old =
            Timeline::new(list("#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:6,\na?1\n#EXTINF:4,\nb"), url(), seconds(0));
        let compare = |text: &str| old.compare(&list(text));
        assert_eq!(
            compare("#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:6,\na?2\n#EXTINF:4,\nb"),
            Version::Newer { has_changed: false }
        );
        assert_eq!(
            compare("#EXT-X-MEDIA-SEQUENCE:8\n#EXTINF:4,\nb\n#EXTINF:4,\nc"),
            Version::Newer { has_changed: true }
        );
        assert_eq!(compare("#EXT-X-MEDIA-SEQUENCE:6\n#EXTINF:6,\nz\n#EXTINF:6,\na?3"), Version::Older);
        assert_eq!(compare("#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:6,\na"), Version::Restarted);
        assert_eq!(compare("#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:6,\nx"), Version::Restarted);
        assert_eq!((compare(""), compare("#EXT-X-MEDIA-SEQUENCE:9")), (Version::Older, Version::Older));
        // A low-latency stream that has only begun.
        let begun =
            "#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-PART:DURATION=1,URI=\"p\"";
        let begun = Timeline::new(list(begun), url(), seconds(0));
        assert_eq!(begun.compare(&list("")), Version::Older);
    }

    #[test]
    fn s6_3_2_levels_are_aligned_by_date_else_by_their_end() {
        let dated = |second: u64| {
            format!("#EXTINF:6,\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:{second:02}Z\na\n#EXTINF:6,\nb")
        };
        let own = Timeline::new(list(&dated(10)), url(), seconds(100));
        assert_eq!(own.other(list(&dated(16)), url(), Duration::ZERO).start(), seconds(106));
        assert_eq!(own.other(list(&dated(4)), url(), Duration::ZERO).start(), seconds(94));
        assert_eq!(own.other(list("#EXTINF:4,\na"), url(), Duration::ZERO).start(), seconds(108));
        assert_eq!(
            own.other(list("#EXTINF:4,\na\n#EXT-X-ENDLIST"), url(), Duration::ZERO).start(),
            seconds(100)
        );
    }

    #[test]
    fn s6_3_2_a_level_that_is_loaded_after_an_outage_is_aligned_with_what_was_added_meanwhile() {
        let live = |segments: std::ops::Range<u64>| {
            let listed: String = segments.clone().map(|number| format!("#EXTINF:6,\n{number}\n")).collect();
            list(&format!("#EXT-X-MEDIA-SEQUENCE:{}\n{listed}", segments.start))
        };
        let own = Timeline::new(live(10..20), url(), seconds(0));
        let start = |segments, later| own.other(live(segments), url(), seconds(later)).start();
        let ended = |segments| MediaPlaylist { is_ended: true, ..live(segments) };
        assert_eq!(own.other(ended(18..28), url(), seconds(50)).start(), seconds(48));
        // Eight segments and a bit, or so long that all of the window is new.
        assert_eq!((start(18..28, 50), start(40..50, 185)), (seconds(48), seconds(180)));
        // The encoder was down, or numbers each level in another way.
        assert_eq!((start(10..20, 50), start(500..510, 50)), (seconds(0), seconds(48)));
    }

    #[test]
    fn s6_3_2_a_level_that_is_newer_by_a_segment_longer_than_the_target_duration_is_aligned_by_its_numbers() {
        let own = Timeline::new(list("#EXTINF:6.4,\na\n#EXTINF:6.4,\nb"), url(), seconds(0));
        let newer = list("#EXT-X-MEDIA-SEQUENCE:1\n#EXTINF:6.4,\nb\n#EXTINF:6.4,\nc");
        assert_eq!(own.other(newer, url(), Duration::ZERO).start(), Duration::from_millis(6400));
    }
}
