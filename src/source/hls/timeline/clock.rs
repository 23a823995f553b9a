//! Presentation times of frames.

use std::time::Duration;

use crate::source::hls::demux::{Frame, MediaTime};

/// 33 bits at 90 kHz, in nanoseconds: times of MPEG-TS (ISO 13818-1, 2.4.3.7) and of packed audio (section 3.1.3) start again
/// after this span.
const ROLLOVER: MediaTime = ((1_i128 << 33) * 100_000 / 9) as MediaTime;

/// A frame that is further from its segment's place in the playlist than this has a time of another epoch. It is the
/// length of the longest usual segments: durations in a playlist are wrong by less.
const PLAUSIBLE: MediaTime = 10_000_000_000;

/// After a seek a time must not be further from the place in the playlist than the segment is long, or than this: it was sought by
/// that place. What wrong durations add up to would lead into another segment.
const SOUGHT: MediaTime = 2_000_000_000;

/// A segment whose time is no further than this from the end of the last one continues it, wherever the playlist has it.
const CONTINUED: MediaTime = 500_000_000;

/// Gives frames their presentation times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    anchor: Option<Anchor>,
    /// End of the last frame.
    next: Option<Duration>,
    /// End of the frames with times of their own since the last seek. Unlike `next` it outlasts a gap.
    played: Option<Duration>,
    /// Segment of the last frame.
    segment: Option<u64>,
    /// Duration of the segment that is placed, as the playlist gives it.
    length: Duration,
    /// Decoded audio that precedes the presentation, if the first segment names it. The playlist counts it.
    delay: Duration,
    /// How much of it the next frame has.
    before: Duration,
    /// How much later the last segment has ended than the playlist says. Negative if it was earlier.
    late: MediaTime,
}

/// A media time whose presentation time is known.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    discontinuity_sequence: u64,
    media: MediaTime,
    presentation: Duration,
}

impl Anchor {
    /// Time from the anchor to a presentation time.
    fn expected(&self, start: Duration) -> MediaTime {
        nanoseconds(start) - nanoseconds(self.presentation)
    }

    /// Time from the anchor to a media time that belongs near the presentation time `start`.
    fn passed(&self, media: MediaTime, start: Duration) -> MediaTime {
        // Saturating: times of a hostile segment may be anything.
        let passed = media.saturating_sub(self.media);
        let distance = self.expected(start).saturating_sub(passed);
        // The nearest time, over any number of rollovers.
        let rollovers = distance.saturating_add(ROLLOVER / 2).div_euclid(ROLLOVER).saturating_mul(ROLLOVER);
        passed.saturating_add(rollovers)
    }

    /// That time, if it is within `limit` of `start`.
    fn passed_near(&self, media: MediaTime, start: Duration, limit: MediaTime) -> Option<MediaTime> {
        let passed = self.passed(media, start);
        let distance = passed.saturating_sub(self.expected(start)).saturating_abs();
        (distance < limit).then_some(passed)
    }
}

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    At(Duration),
    /// It was played already, from a segment of another level.
    Duplicate,
}

impl Clock {
    /// Another place of the presentation follows, also one that was played before.
    pub(crate) fn seek(&mut self) {
        (self.next, self.segment, self.played) = (None, None, None);
        (self.before, self.late) = (Duration::ZERO, 0);
    }

    /// The next frame does not follow the last one: audio up to `end` is left out. It is a later one: what comes after a gap may
    /// be of another level, whose live playlist need not agree about the time, and nothing is played twice.
    pub(crate) fn skip(&mut self, end: Duration) {
        self.next = None;
        self.segment = None;
        // What was left out may have had wrong times. They must not keep all that follows from being played.
        let latest = end.saturating_add(Duration::from_nanos(PLAUSIBLE as u64));
        self.played = self.played.map(|played| played.min(latest));
    }

    /// All frames that end after `time` were dropped: others take their place.
    pub(crate) fn drop_from(&mut self, time: Duration) {
        (self.next, self.segment) = (Some(time), None);
        self.played = self.played.map(|played| played.min(time));
    }

    /// The last frame, which has no time of its own, follows one that has: it was played as well.
    pub(crate) fn handle_shared(&mut self) {
        self.played = self.played.and(self.next);
    }

    /// The next frame follows the last one, whatever its time is.
    pub(crate) fn follow(&mut self) {
        self.anchor = None;
    }

    /// A frame at the start of the presentation follows, and so much of the decoded audio precedes the time 0.
    pub(crate) fn begin(&mut self, delay: Duration) {
        if self.next.is_none() {
            (self.delay, self.before) = (delay, delay);
        }
    }

    /// A segment is placed that the playlist gives this duration.
    pub(crate) fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// All frames of a segment were placed, which the playlist ends at `end`.
    pub(crate) fn end_segment(&mut self, end: Duration) {
        if let Some(next) = self.next {
            self.late = nanoseconds(next) - nanoseconds(end);
        }
    }

    /// Presentation time of a place in the playlist behind the last segment.
    pub(crate) fn presentation_time(&self, place: Duration) -> Duration {
        shift(place, self.late)
    }

    /// Presentation time of a media time close to `start`, as the frames that were placed have it. `None` before the first one
    /// of the discontinuity.
    pub(crate) fn time_of(&self, media: MediaTime, start: Duration, discontinuity: u64) -> Option<Duration> {
        let anchor = self.anchor.filter(|anchor| anchor.discontinuity_sequence == discontinuity)?;
        Some(shift(anchor.presentation, anchor.passed(media, start)))
    }

    /// True if the last frame that was to be placed is one of this segment.
    pub(crate) fn is_placing(&self, segment: u64) -> bool {
        self.segment == Some(segment)
    }

    /// Places a frame of the segment `segment`, which the playlist starts at `start`.
    pub(crate) fn place(
        &mut self,
        segment: u64,
        start: Duration,
        discontinuity: u64,
        frame: &Frame,
    ) -> Placement {
        let is_first = self.segment.replace(segment) != Some(segment);
        let start = start.saturating_sub(self.delay);
        let length = MediaTime::try_from(frame.duration.as_nanos()).unwrap_or(MediaTime::MAX);
        let (time, end) = match frame.time {
            Some(media) => {
                let (anchor, passed) = self.by_media_time(media, start, discontinuity, is_first);
                (shift(anchor, passed), shift(anchor, passed.saturating_add(length)))
            }
            // Without times of its own a segment follows the one before.
            None => {
                let time = self.next.unwrap_or(start.max(self.played.unwrap_or_default()));
                (time, time.saturating_add(frame.duration.saturating_sub(self.before)))
            }
        };
        // Half a frame: the times of two encodings differ by roundings.
        let is_played = self.played.is_some_and(|played| time.saturating_add(frame.duration / 2) < played);
        if is_played {
            return Placement::Duplicate;
        }
        self.next = Some(end);
        self.before = self.before.saturating_sub(frame.duration);
        if frame.time.is_some() {
            self.played = self.next;
        }
        Placement::At(time)
    }

    /// A presentation time, and the way from there to that of this media time.
    fn by_media_time(
        &mut self,
        media: MediaTime,
        start: Duration,
        discontinuity: u64,
        is_first: bool,
    ) -> (Duration, MediaTime) {
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.discontinuity_sequence == discontinuity) {
            let passed = if is_first {
                self.plausible(anchor, media, start)
            } else {
                // From the last frame on: a segment may be longer than what is plausible of its beginning.
                Some(anchor.passed(media, self.next.unwrap_or(start)))
            };
            if let Some(passed) = passed {
                return (anchor.presentation, passed);
            }
        }
        // The first frame of a discontinuity, or times that jump without one: they follow what was played.
        let follows = self.next.filter(|next| next.abs_diff(start) < Duration::from_nanos(PLAUSIBLE as u64));
        // Not before what was played: these are other frames, whatever the playlist says.
        let presentation = follows.unwrap_or(start.max(self.played.unwrap_or_default()));
        // Encoder delay lies before the media time 0. Nothing lies before the presentation; in its middle the delay is played.
        let passed = match nanoseconds(self.before) {
            _ if !presentation.is_zero() => 0,
            0 => media.min(0),
            before => -before,
        };
        let media = media.saturating_sub(passed);
        self.anchor = Some(Anchor { discontinuity_sequence: discontinuity, media, presentation });
        (presentation, passed)
    }

    /// Time from the anchor to the first frame of a segment, if its media time can be believed.
    fn plausible(&self, anchor: Anchor, media: MediaTime, start: Duration) -> Option<MediaTime> {
        let is_sought = self.next.is_none() && self.played.is_none();
        let limit = if is_sought { nanoseconds(self.length).clamp(SOUGHT, PLAUSIBLE) } else { PLAUSIBLE };
        let continued = || anchor.passed_near(media, self.next?, CONTINUED);
        anchor.passed_near(media, start, limit).or_else(continued)
    }
}

fn nanoseconds(time: Duration) -> MediaTime {
    // A quarter, so that sums of several times do not overflow.
    MediaTime::try_from(time.as_nanos()).unwrap_or(MediaTime::MAX / 4)
}

fn shift(time: Duration, by: MediaTime) -> Duration {
    let by_abs = Duration::from_nanos(by.unsigned_abs());
    if by < 0 { time.saturating_sub(by_abs) } else { time.saturating_add(by_abs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::AudioCodec;
    use crate::source::hls::demux::Format;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn frame(time: Option<MediaTime>) -> Frame {
        let format = Format { codec: AudioCodec::Aac, sample_rate: 48_000, channels: 2, head: None };
        Frame { time, duration: Duration::from_millis(20), len: 1, format }
    }

    #[test]
    fn media_times_place_frames_over_rollovers_and_wrong_durations() {
        let mut clock = Clock::default();
        let at = |time: u64| Placement::At(Duration::from_millis(time));
        let ms = 1_000_000;
        let end = ROLLOVER - 20 * ms;
        assert_eq!(clock.place(0, seconds(50), 0, &frame(Some(end))), at(50_000));
        // The playlist is 100 ms off.
        assert_eq!(clock.place(1, Duration::from_millis(50_120), 0, &frame(Some(0))), at(50_020));
        assert_eq!(clock.place(1, Duration::from_millis(50_120), 0, &frame(Some(20 * ms))), at(50_040));
        // Another discontinuity follows what was played, whatever its times are.
        assert_eq!(clock.place(2, Duration::from_millis(50_150), 1, &frame(Some(5000 * ms))), at(50_060));
        // No time at all.
        assert_eq!(clock.place(3, Duration::from_millis(50_150), 1, &frame(None)), at(50_080));
    }

    #[test]
    fn encoder_delay_lies_before_the_presentation() {
        let mut clock = Clock::default();
        let ms = 1_000_000;
        let places =
            [-30 * ms, -10 * ms, 10 * ms].map(|time| clock.place(0, seconds(0), 0, &frame(Some(time))));
        assert_eq!(places, [0, 0, 10].map(|time| Placement::At(Duration::from_millis(time))));
        // In the middle it is played: the frames that follow need it.
        let places = [-20 * ms, 0].map(|time| clock.place(1, seconds(2), 1, &frame(Some(time))));
        assert_eq!(places, [30, 50].map(|time| Placement::At(Duration::from_millis(time))));
    }

    #[test]
    fn frames_that_were_played_are_duplicates() {
        let mut clock = Clock::default();
        let ms = 1_000_000;
        assert_eq!(clock.place(0, seconds(0), 0, &frame(Some(0))), Placement::At(seconds(0)));
        assert_eq!(clock.place(1, seconds(0), 0, &frame(Some(0))), Placement::Duplicate);
        assert_eq!(
            clock.place(1, seconds(0), 0, &frame(Some(21 * ms))),
            Placement::At(Duration::from_millis(21))
        );
        // A gap does not make them new ones; a seek does.
        clock.skip(seconds(1));
        assert_eq!(clock.place(2, seconds(0), 0, &frame(Some(0))), Placement::Duplicate);
        // Times that were far off are forgotten.
        assert!(matches!(clock.place(2, seconds(0), 0, &frame(Some(5_000_000 * ms))), Placement::At(_)));
        clock.skip(seconds(1));
        assert!(matches!(clock.place(3, seconds(12), 0, &frame(Some(12_000 * ms))), Placement::At(_)));
        clock.seek();
        assert_eq!(clock.place(2, seconds(0), 0, &frame(Some(0))), Placement::At(seconds(0)));
    }
}
