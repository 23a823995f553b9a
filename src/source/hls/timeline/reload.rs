//! When to load a live playlist again (section 6.3.4).

use std::time::{Duration, Instant};

use crate::client::retry::Absence;
use crate::source::hls::playlist::MediaPlaylist;

/// After this many target durations without a change the server misbehaves (section 6.3.4): another variant is tried.
const STALE: f64 = 1.5;

/// After this many target durations it is an error (as in Media3).
const STUCK: f64 = 3.5;

/// Shortest interval between two loads: a playlist whose durations are 0 would be loaded without a pause.
const LEAST: Duration = Duration::from_millis(100);

/// Longest interval: live segments have seconds. One that is said to last for years must not end the reloads.
const MOST: Duration = Duration::from_secs(120);

/// Longest delay between two attempts while the server can't be reached, of any request: a reader that waits goes on this soon after
/// it is back.
pub(crate) const LONGEST_DELAY: Duration = Absence::MAX_DELAY;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reload {
    /// When the last load began.
    began: Instant,
    /// When the last load that brought something began.
    changed: Instant,
    /// When that load ended.
    changed_by: Instant,
    /// Since when the playlist should have changed: since `changed_by`, if a load has shown that it has not.
    unchanged_since: Instant,
    /// When the next load is due, if the last one has failed because the server can't be reached.
    retry_at: Option<Instant>,
}

impl Reload {
    /// The playlist was loaded from `began` to `ended`, and is loaded again from `now` on: before, no changes were looked for.
    pub(crate) fn after((began, ended): (Instant, Instant), now: Instant) -> Self {
        Self { began, changed: began, changed_by: ended, unchanged_since: now, retry_at: None }
    }

    /// A load from `began` to `ended` has brought a playlist.
    pub(crate) fn handle_loaded(&mut self, (began, ended): (Instant, Instant), has_changed: bool) {
        self.began = began;
        let was_out = self.retry_at.take().is_some();
        // What the server has done in an outage is not known.
        if has_changed || was_out {
            (self.changed, self.changed_by) = (began, ended);
        }
        self.unchanged_since = self.changed_by;
    }

    /// A load that began at `began` has failed. `retry_at` is when it is tried again if the server may be back at any time.
    pub(crate) fn handle_failed(&mut self, began: Instant, retry_at: Option<Instant>) {
        (self.began, self.retry_at) = (began, retry_at);
    }

    /// True if the last load has failed because the server can't be reached.
    pub(crate) fn is_out(&self) -> bool {
        self.retry_at.is_some()
    }

    /// True if the next load may be held by the server until the playlist has changed: not after it has failed to do so.
    pub(crate) fn may_block(&self, list: &MediaPlaylist) -> bool {
        list.server_control.can_block_reload && self.began == self.changed
    }

    /// True if an update may leave out what the last version contains: that must not be too old (section 6.3.7).
    pub(crate) fn may_skip(&self, now: Instant, list: &MediaPlaylist) -> bool {
        let age = now.saturating_duration_since(self.changed);
        list.server_control.can_skip_until.is_some_and(|until| age < until / 2)
    }

    /// When the next load is due.
    pub(crate) fn due(&self, list: &MediaPlaylist) -> Instant {
        if let Some(retry_at) = self.retry_at {
            return retry_at;
        }
        if self.may_block(list) {
            // The server decides when it answers. One that answers at once, and always with a change, must not be asked in a loop.
            return self.began + LEAST;
        }
        let step = list.part_target.unwrap_or_else(|| target(list));
        let wait = if self.began == self.changed {
            list.part_target.or(list.segments.last().map(|segment| segment.duration)).unwrap_or(step)
        } else {
            step / 2
        };
        // From the beginning of the last load: else the delays of the network would add up.
        self.began + wait.clamp(LEAST, MOST)
    }

    /// The playlist should have changed.
    pub(crate) fn is_stale(&self, list: &MediaPlaylist) -> bool {
        self.unchanged_for() >= target(list).mul_f64(STALE)
    }

    /// It will not change any more.
    pub(crate) fn is_stuck(&self, list: &MediaPlaylist) -> bool {
        self.unchanged_for() >= Self::stuck_after(list)
    }

    /// From the end of one load to the beginning of another: a load may last for as long as the network is broken, and its response
    /// may show how the playlist was at any time of that.
    fn unchanged_for(&self) -> Duration {
        self.began.saturating_duration_since(self.unchanged_since)
    }

    /// For how long the playlist may stay as it is.
    pub(crate) fn stuck_after(list: &MediaPlaylist) -> Duration {
        target(list).mul_f64(STUCK)
    }
}

/// The target duration. Some servers announce less than their segments last, or 0.
fn target(list: &MediaPlaylist) -> Duration {
    let longest = list.segments.iter().map(|segment| segment.duration).max().unwrap_or_default();
    list.target_duration.max(longest).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::hls::playlist::Playlist;

    #[test]
    fn s6_3_4_a_changed_list_is_loaded_after_a_segment_and_an_unchanged_one_after_half_a_target() {
        let text = b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:5,\na\n";
        let Ok(Playlist::Media(list)) = Playlist::parse(text, "http://host/l") else { panic!("a list") };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reload = Reload::after((start, start), start);
        assert_eq!(reload.due(&list), at(5));
        reload.handle_loaded((at(5), at(5)), false);
        assert_eq!(reload.due(&list), at(8));
        reload.handle_loaded((at(8), at(8)), false);
        for (seconds, is_stale, is_stuck) in
            [(8, false, false), (9, true, false), (20, true, false), (21, true, true)]
        {
            reload.handle_loaded((at(seconds), at(seconds)), false);
            assert_eq!((reload.is_stale(&list), reload.is_stuck(&list)), (is_stale, is_stuck), "{seconds} s");
        }
        reload.handle_loaded((at(22), at(22)), true);
        assert_eq!(reload.due(&list), at(27));
        assert!(!reload.is_stale(&list));
    }

    #[test]
    fn an_outage_is_no_playlist_that_does_not_change() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let list = parse("#EXT-X-TARGETDURATION:10\n#EXTINF:10,\na\n");
        let mut reload = Reload::after((start, start), start);
        reload.handle_failed(at(10), Some(at(13)));
        assert_eq!((reload.due(&list), reload.is_out()), (at(13), true));
        reload.handle_failed(at(40), Some(at(41)));
        assert!(reload.is_stuck(&list));
        reload.handle_loaded((at(41), at(41)), false);
        assert!(!reload.is_stuck(&list));
        reload.handle_loaded((at(76), at(76)), false);
        assert!(reload.is_stuck(&list));
        reload.handle_failed(at(77), None);
        assert_eq!(reload.due(&list), at(82));
    }

    #[test]
    fn a_load_in_an_outage_is_due_when_its_delay_is_over_whatever_the_playlist_says() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for lines in ["#EXT-X-TARGETDURATION:0\n", "#EXT-X-TARGETDURATION:60\n#EXTINF:60,\na\n"] {
            let (list, mut reload) = (parse(lines), Reload::after((start, start), start));
            // The load itself has taken seconds, in which it was tried several times.
            reload.handle_failed(at(1), Some(at(9)));
            assert_eq!(reload.due(&list), at(9));
            reload.handle_loaded((at(9), at(9)), true);
            assert!(!reload.is_out() && reload.due(&list) <= at(69));
        }
    }

    #[test]
    fn s6_3_4_a_variant_that_is_used_long_after_its_load_is_loaded_at_once_and_may_fail_as_long_as_any_other()
    {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let list = parse("#EXT-X-TARGETDURATION:10\n#EXTINF:10,\na\n");
        let mut reload = Reload::after((start, start), at(60));
        assert_eq!(reload.due(&list), at(10));
        for (seconds, is_stale, is_stuck) in [(60, false, false), (75, true, false), (95, true, true)] {
            reload.handle_failed(at(seconds), None);
            assert_eq!((reload.is_stale(&list), reload.is_stuck(&list)), (is_stale, is_stuck), "{seconds} s");
        }
        // A load that brings the same shows that the playlist has not changed in all that time.
        let mut reload = Reload::after((start, start), at(60));
        reload.handle_loaded((at(65), at(65)), false);
        assert!(reload.is_stuck(&list));
    }

    #[test]
    fn a_response_that_a_broken_network_has_delayed_does_not_show_a_playlist_that_does_not_change() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let list = parse("#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na\n");
        for has_changed in [true, false] {
            let mut reload = Reload::after((start, start), start);
            // It may show how the playlist was when it was requested, or when the network was back.
            reload.handle_loaded((at(4), at(34)), has_changed);
            assert!(!reload.is_stale(&list) && !reload.is_stuck(&list));
            if has_changed {
                reload.handle_loaded((at(34), at(34)), false);
                assert!(!reload.is_stale(&list) && !reload.is_stuck(&list));
            }
        }
    }

    fn parse(lines: &str) -> MediaPlaylist {
        let text = format!("#EXTM3U\n{lines}");
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/l") else {
            panic!("a list")
        };
        list
    }

    #[test]
    fn a_target_duration_that_is_too_short_makes_no_playlist_stale() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for target in [0, 1] {
            let list = parse(&format!("#EXT-X-TARGETDURATION:{target}\n#EXTINF:6,\na\n#EXTINF:5,\nb\n"));
            let mut reload = Reload::after((start, start), start);
            assert_eq!(reload.due(&list), at(5000));
            reload.handle_loaded((at(5000), at(5000)), false);
            assert_eq!(reload.due(&list), at(8000));
            for (millis, is_stale, is_stuck) in
                [(8999, false, false), (9000, true, false), (20_999, true, false), (21_000, true, true)]
            {
                reload.handle_loaded((at(millis), at(millis)), false);
                assert_eq!(
                    (reload.is_stale(&list), reload.is_stuck(&list)),
                    (is_stale, is_stuck),
                    "{millis} ms"
                );
            }
        }
        let empty = parse("#EXT-X-TARGETDURATION:0\n");
        assert!(!Reload::after((start, start), start).is_stuck(&empty));
    }

    #[test]
    fn no_playlist_is_loaded_without_a_pause_or_never_again() {
        let start = Instant::now();
        let holds = "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n";
        for duration in ["0", "0.001", "1000000000", "18446744073709551615"] {
            for head in ["", holds] {
                let list =
                    parse(&format!("{head}#EXT-X-TARGETDURATION:{duration}\n#EXTINF:{duration},\na\n"));
                let mut reload = Reload::after((start, start), start);
                for has_changed in [true, false, true] {
                    let wait = reload.due(&list) - reload.began;
                    assert!((LEAST..=MOST).contains(&wait), "{duration} {head} {wait:?}");
                    reload.handle_loaded((start, start), has_changed);
                }
            }
        }
    }
}
