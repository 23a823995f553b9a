//! Sizes of segments: they show what the levels need, which the playlist may name wrong.

use super::State;
use super::queued_segment::QueuedSegment;
use crate::abr::Bitrates;
use crate::source::hls::config::Quality;
use crate::source::hls::playlist::Segment;

impl State {
    /// The playlist of a variant has arrived.
    pub(super) fn handle_listed_sizes(&mut self, variant: usize) {
        let Some(level) = self.level_of(variant) else { return };
        let Some(timeline) = &self.timelines[variant] else { return };
        let segments = timeline.list.segments.iter().filter(|segment| !segment.is_gap);
        let sizes = segments.filter_map(|segment| Some((listed_size(segment)?, segment.duration)));
        self.bitrates.handle_list(level, sizes);
    }

    /// A segment has arrived, or was abandoned and its size is known.
    pub(super) fn handle_size(&mut self, id: u64) {
        let Some(queued) = self.queued(id) else { return };
        // How long a hinted part is shows when the playlist lists it.
        if queued.is_hinted() || std::mem::replace(&mut queued.is_counted, true) {
            return;
        }
        let (variant, duration) = (queued.variant, queued.segment.duration);
        let size = queued.announced_size().unwrap_or(queued.received);
        if let Some(level) = self.level_of(variant) {
            self.bitrates.handle_segment(level, size, duration);
        }
    }

    /// What the levels are expected to need. A segment that arrives and is larger than expected counts: it may be abandoned, and then the
    /// lower level is chosen by it. But it may not arrive as a whole, so it is not recorded yet.
    pub(super) fn expected_bitrates(&self) -> Bitrates {
        let mut bitrates = self.bitrates.clone();
        // One without frames may be an error page.
        let arriving = self.fetching().filter(|queued| queued.has_frames && !queued.is_counted);
        for queued in arriving {
            let (duration, level) = (queued.segment.duration, self.level_of(queued.variant));
            let Some((level, size)) = level.zip(queued.announced_size()) else { continue };
            if size as f64 * 8.0 > self.bitrates.get(level) as f64 * duration.as_secs_f64() {
                bitrates.handle_segment(level, size, duration);
            }
        }
        bitrates
    }

    /// The user may have limited the levels.
    pub(super) fn limit_levels(&mut self) {
        let highest = *self.config.quality.allowed_levels(self.bitrates.named()).end();
        self.bitrates.allow_up_to(highest);
    }

    /// The best level that needs no more than this one, which a rule has chosen. An application may have its reasons for a level.
    pub(super) fn best_level(&self, level: usize) -> usize {
        match self.config.quality {
            Quality::Auto(_) => self.bitrates.best(level),
            Quality::Fixed(_) | Quality::Custom(_) => level,
        }
    }

    /// The level of a variant, if it is one of the rendition that is played.
    fn level_of(&self, variant: usize) -> Option<usize> {
        let variant = &self.ladder.variants[variant];
        (variant.rendition == self.rendition).then_some(variant.level)
    }
}

impl QueuedSegment {
    /// Bytes of it, if the server or the playlist says so.
    pub(super) fn announced_size(&self) -> Option<u64> {
        let of_server = self.arriving.and_then(|arriving| arriving.len);
        // A server without ranges sends the whole resource.
        range_size(&self.segment).or(of_server)
    }
}

/// Bytes of a segment as its playlist lists it: exact for a byte range, and up to 10 % wrong for a bitrate (section 4.4.4.8).
fn listed_size(segment: &Segment) -> Option<u64> {
    let by_bitrate = || Some((segment.bitrate? as f64 * segment.duration.as_secs_f64() / 8.0) as u64);
    range_size(segment).or_else(by_bitrate)
}

fn range_size(segment: &Segment) -> Option<u64> {
    let range = segment.byte_range.filter(|range| range.end != u64::MAX)?;
    Some(range.end.saturating_sub(range.start))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use url::Url;

    use super::*;
    use crate::abr::{AbrConfig, Estimator, share};
    use crate::client::UriPolicy;
    use crate::error::{Error, ErrorKind};
    use crate::source::hls::config::HlsConfig;
    use crate::source::hls::ladder::levels::Ladder;
    use crate::source::hls::playlist::Playlist;
    use crate::source::hls::state::tests::frames;
    use crate::source::hls::state::{Hinted, Planned};
    use crate::source::hls::timeline::Timeline;
    use crate::types::Priority;

    /// A player of two levels. A segment of the first one needs 96 kB, or 128 kbit/s.
    fn state(segments: &str) -> State {
        let url = Url::parse("http://host/l").unwrap();
        let parse = |text: &str| Playlist::parse(text.as_bytes(), url.as_str()).unwrap();
        let ladder =
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1280000\na\n#EXT-X-STREAM-INF:BANDWIDTH=2560000\nb\n";
        let Playlist::Multivariant(list) = parse(ladder) else { panic!("a ladder") };
        let ladder = Ladder::new(&list, &url, UriPolicy::default(), None).unwrap();
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n{segments}#EXT-X-ENDLIST\n");
        let Playlist::Media(list) = parse(&text) else { panic!("a media playlist") };
        let first = (0, Timeline::new(list, url, Duration::ZERO));
        State::new(HlsConfig::default(), ladder, None, first, Estimator::default())
    }

    fn bitrates(state: &State) -> [u64; 2] {
        [0, 1].map(|level| state.bitrates.get(level))
    }

    #[test]
    fn what_a_playlist_lists_of_sizes_counts_before_a_segment_arrives() {
        let ranges = "#EXTINF:6,\n#EXT-X-BYTERANGE:96000@0\na\n".repeat(40);
        let rates = format!("#EXT-X-BITRATE:128\n{}", "#EXTINF:6,\na\n".repeat(40));
        for segments in [ranges, rates] {
            let [first, second] = bitrates(&state(&segments));
            assert!((128_000..140_000).contains(&first), "{first}");
            assert!((256_000..280_000).contains(&second), "{second}");
        }
        assert_eq!(bitrates(&state("#EXTINF:6,\na\n")), [1_280_000, 2_560_000]);
    }

    #[test]
    fn a_level_above_the_limit_of_the_user_is_not_played_although_it_needs_less() {
        let mut state = state("#EXTINF:6,\na\n");
        state.bitrates.handle_segment(0, 150_000, Duration::from_secs(600));
        state.bitrates.handle_segment(1, 96_000, Duration::from_secs(600));
        assert_eq!([0, 1].map(|level| state.best_level(level)), [1, 1]);
        let limited = AbrConfig { at_most: Some(1_280_000), ..AbrConfig::default() };
        state.set_quality(Quality::Auto(limited), Instant::now());
        assert_eq!(state.best_level(0), 0);
        state.set_quality(Quality::Auto(AbrConfig::default()), Instant::now());
        assert_eq!(state.best_level(0), 1);
    }

    #[test]
    fn sizes_that_no_network_carries_leave_other_streams_their_part() {
        for segments in [
            "#EXT-X-BITRATE:18446744073709551\n#EXTINF:6,\na\n",
            "#EXTINF:6,\n#EXT-X-BYTERANGE:9223372036854775807@0\na\n",
            "#EXTINF:6,\na\n",
        ] {
            let mut state = state(&segments.repeat(2));
            let now = Instant::now();
            let Some(Planned::Segment { id, .. }) = state.plan(now, Priority::High) else {
                panic!("a segment")
            };
            state.handle_segment_head(id, Some(u64::MAX), now);
            state.handle_segment_complete(id);
            let demand = state.demand();
            assert!(demand.least > 1e12, "{demand:?}");
            assert_eq!(share(5e6, demand.rank, &[demand]), 2.5e6, "{segments}");
        }
    }

    #[test]
    fn a_size_counts_once_when_the_segment_is_whole_and_a_large_one_for_the_rule_before() {
        // Larger than named, and smaller.
        for (size, is_larger) in [(4_000_000, true), (96_000, false)] {
            let mut state = state(&"#EXTINF:6,\na\n".repeat(9));
            let now = Instant::now();
            let Some(Planned::Segment { id, .. }) = state.plan(now, Priority::High) else {
                panic!("a segment")
            };
            let named = bitrates(&state);
            state.handle_segment_head(id, Some(size), now);
            assert_eq!(state.expected_bitrates().get(0), named[0], "it may be anything");
            state.handle_frames(id, &mut frames(0, 0, 0..1)).unwrap();
            assert_eq!(state.expected_bitrates().get(0) > named[0], is_larger);
            assert_eq!(bitrates(&state), named);
            state.handle_segment_bytes(id, size, now);
            state.handle_segment_complete(id);
            let whole = bitrates(&state);
            assert_eq!(whole[0].cmp(&named[0]).is_gt(), is_larger, "{whole:?}");
            assert_ne!(whole, named);
            assert_eq!(state.expected_bitrates().get(0), whole[0]);
        }
    }

    #[test]
    fn what_is_not_accepted_as_a_segment_shows_nothing_of_its_bitrate() {
        // A login page, and a segment that breaks off.
        for has_frames in [false, true] {
            let mut state = state(&"#EXTINF:6,\na\n".repeat(9));
            let now = Instant::now();
            let named = bitrates(&state);
            let Some(Planned::Segment { id, .. }) = state.plan(now, Priority::High) else {
                panic!("a segment")
            };
            state.handle_segment_head(id, Some(40_000_000), now);
            if has_frames {
                state.handle_frames(id, &mut frames(0, 0, 0..1)).unwrap();
            }
            state.handle_segment_bytes(id, 1000, now);
            state.handle_segment_failed(id, Error::new(ErrorKind::Unsupported, "no segment"), now);
            assert_eq!(bitrates(&state), named, "{has_frames}");
            assert_eq!(state.expected_bitrates().named(), named);
            assert_eq!(state.expected_bitrates().get(0), named[0]);
        }
    }

    #[test]
    fn the_size_of_a_hinted_part_counts_by_what_the_playlist_lists_of_it() {
        let url = Url::parse("http://host/l").unwrap();
        let list = |parts: &str| {
            let text = format!(
                "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PART-INF:PART-TARGET=1\n#EXTINF:4,\na\n{parts}\
                #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"next\"\n"
            );
            let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), url.as_str()) else {
                panic!("a media playlist")
            };
            list
        };
        let timeline = Timeline::new(list(""), url.clone(), Duration::ZERO);
        let mut state = State::new(
            HlsConfig::default(),
            Ladder::single(url.clone()),
            None,
            (0, timeline),
            Estimator::default(),
        );
        let now = Instant::now();
        let Some(Planned::Segment { id, .. }) = state.plan(now, Priority::High) else { panic!("a segment") };
        state.handle_frames(id, &mut frames(0, 0, 0..4)).unwrap();
        state.handle_segment_complete(id);
        let Some(Hinted::Part(part)) = state.poll_hint(now) else { panic!("a part") };
        state.handle_hint_answered(part.id);
        state.handle_segment_bytes(part.id, 8_000, now);
        state.handle_frames(part.id, &mut frames(0, 2, 0..1)).unwrap();
        state.handle_segment_complete(part.id);
        assert_eq!(state.bitrates.get(0), 0, "how long it is is not known");
        let listed = list("#EXT-X-PART:DURATION=0.5,URI=\"next\"\n");
        state.handle_playlist(0, listed, url);
        assert_eq!(state.bitrates.get(0), 128_000);
    }
}
