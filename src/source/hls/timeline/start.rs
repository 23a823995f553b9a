//! Where playing starts.

use std::time::Duration;

use super::Timeline;
use crate::source::hls::config::HlsConfig;
use crate::source::hls::playlist::MediaPlaylist;

/// Where to start: the caller's wish, then the playlist's (section 4.4.2.2), then the beginning or the live edge.
pub(crate) fn start_of(timeline: &Timeline, config: &HlsConfig) -> Duration {
    let list = &timeline.list;
    let end = timeline.edge();
    let live_edge = end.saturating_sub(hold_back(list, config)).max(timeline.start());
    let start = match (config.start, list.start) {
        (Some(start), _) => start,
        (None, Some(start)) if start.is_from_end => end.saturating_sub(start.offset),
        (None, Some(start)) => timeline.start() + start.offset,
        (None, None) if list.is_ended => timeline.start(),
        (None, None) => return live_edge,
    };
    let latest = match (list.is_ended, config.start) {
        // Section 6.3.3: a live stream must not start closer to its end than that.
        (false, _) => live_edge,
        (true, Some(_)) => end,
        // Section 4.4.2.2: an offset beyond the end is the end. There nothing would be played, so the last segment is.
        (true, None) => timeline.start_of(timeline.sequence_at(end)).unwrap_or(end),
    };
    start.clamp(timeline.start(), latest.max(timeline.start()))
}

/// Distance from the end of a live stream (section 4.4.3.8).
pub(crate) fn hold_back(list: &MediaPlaylist, config: &HlsConfig) -> Duration {
    let control = list.server_control;
    let for_parts = list.part_target.and(control.part_hold_back);
    // Section 4.4.3.8: without HOLD-BACK it is three target durations.
    config.hold_back.or(for_parts).or(control.hold_back).unwrap_or(list.target_duration * 3)
}
