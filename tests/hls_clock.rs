//! HLS: times of presentations whose media times start anywhere and start again, and whose playlists are wrong about durations.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::time::Duration;

use presentation::{FRAMES, SEGMENT, Site, all, numbers, open, segment_frames, vod};
use support::mux::{Random, Ts, id3};
use windway::hls::{Discontinuity, Hls, Quality, Section};

/// Media times start again after so many units of 90 kHz.
const ROLLOVER: u64 = 1 << 33;

/// Units of 90 kHz of a segment.
const TICKS: u64 = FRAMES * 1920;

/// A level whose first frame has a media time.
#[derive(Clone, Copy, Debug)]
struct Level {
    extension: &'static str,
    first: u64,
}

impl Level {
    fn bytes(self, index: u64) -> Vec<u8> {
        let (time, frames) = ((self.first + index * TICKS) % ROLLOVER, segment_frames(index));
        match self.extension {
            "ts" => Ts::new(0x0f).segment(&frames, time, 1920.0),
            _ => [id3(time), frames.concat()].concat(),
        }
    }
}

/// A presentation of these levels, whose playlists say that segments have this multiple of their duration.
fn levels(levels: &[Level], count: u64, factor: f64) -> Site {
    let mut site = Site::default();
    let mut master = String::from("#EXTM3U\n");
    for (number, level) in levels.iter().enumerate() {
        master.push_str(&format!(
            "#EXT-X-STREAM-INF:BANDWIDTH={},CODECS=\"mp4a.40.2\"\n{number}.m3u8\n",
            (number + 1) * 64_000
        ));
        let mut lines = String::new();
        for index in 0..count {
            let name = format!("{number}-{index}.{}", level.extension);
            lines.push_str(&format!("#EXTINF:{:.6},\n{name}\n", SEGMENT * factor));
            site = site.with(&format!("/{name}"), level.bytes(index));
        }
        site = site.with(&format!("/{number}.m3u8"), vod(&lines));
    }
    site.with("/all.m3u8", master)
}

/// Numbers of the frames of a section, and how far the time of one of them is from where it belongs, at most.
fn timed(section: &mut Section) -> (Vec<u64>, f64) {
    let bytes = all(section);
    let numbers = numbers(&bytes);
    let mut worst = 0.0_f64;
    let offsets = frame_ends(&bytes);
    for (number, offset) in numbers.iter().zip([0].iter().chain(&offsets)) {
        let time = section.time_of(*offset).unwrap().as_secs_f64();
        worst = worst.max((time - *number as f64 * 1024.0 / 48_000.0).abs());
    }
    (numbers, worst)
}

/// Where the frames end that are whole.
fn frame_ends(bytes: &[u8]) -> Vec<u64> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 7) {
        at += usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
        if at > bytes.len() {
            break;
        }
        ends.push(at as u64);
    }
    ends
}

/// Seeks to the target: the first frame that comes, and the section.
fn seek(hls: &mut Hls, target: Duration) -> (u64, Section) {
    hls.seek(target).unwrap();
    let mut section = hls.next_section().unwrap().unwrap();
    assert_eq!(section.info().discontinuity, Discontinuity::Seek);
    let mut head = vec![0; 15];
    section.read_exact(&mut head).unwrap();
    (u64::from_be_bytes(head[7..15].try_into().unwrap()), section)
}

/// Levels that start at the same media time, before the wrap; at times apart from each other; and one that never wraps.
fn wrapping() -> Vec<[Level; 2]> {
    let before = |segments: f64| ROLLOVER - (segments * TICKS as f64) as u64;
    let mut pairs = Vec::new();
    for extensions in [["ts", "ts"], ["aac", "aac"], ["ts", "aac"], ["aac", "ts"]] {
        for firsts in [
            [before(4.5), before(4.5)],
            [before(4.0), before(4.0)],
            [before(4.5), before(30.0)],
            [900_000, before(2.5)],
        ] {
            pairs.push([0, 1].map(|level| Level { extension: extensions[level], first: firsts[level] }));
        }
    }
    pairs
}

#[test]
fn a_rollover_of_the_media_time_loses_no_frame_and_moves_no_time() {
    for pair in wrapping() {
        let origin = levels(&pair, 8, 1.0).serve();
        for level in 0..2 {
            let mut hls = open(&origin, "/all.m3u8", |config| config.quality = Quality::Fixed(level));
            let (played, error) = timed(&mut hls.next_section().unwrap().unwrap());
            assert_eq!(played, (0..8 * FRAMES).collect::<Vec<_>>(), "{pair:?}");
            assert!(error < 0.001, "{pair:?}: {error}");
            assert!(hls.next_section().unwrap().is_none());
            assert!((hls.handle().position().as_secs_f64() - 8.0 * SEGMENT).abs() < 0.001);
        }
    }
}

#[test]
fn a_change_of_level_at_any_segment_around_a_rollover_loses_no_frame() {
    for pair in wrapping() {
        let origin = levels(&pair, 8, 1.0).serve();
        let mut changes = 0;
        for at in 0..5 {
            let mut hls = open(&origin, "/all.m3u8", |config| {
                config.quality = Quality::Fixed(0);
                config.buffer = Duration::from_millis(1);
            });
            let mut section = hls.next_section().unwrap().unwrap();
            let mut bytes = Vec::new();
            while frame_ends(&bytes).len() as u64 <= at * FRAMES {
                let mut chunk = [0; 300];
                let got = section.read(&mut chunk).unwrap();
                bytes.extend_from_slice(&chunk[..got]);
            }
            let before = origin.log().requests.len();
            hls.handle().set_quality(Quality::Fixed(1));
            origin.wait_until("the playlist of the other level", |log| {
                log.requests[before..].iter().any(|request| request.path == "/1.m3u8")
            });
            bytes.extend(all(&mut section));
            changes += origin.log().requests[before..]
                .iter()
                .filter(|request| request.path.starts_with("/1-"))
                .count()
                .min(1);
            assert_eq!(numbers(&bytes), (0..8 * FRAMES).collect::<Vec<_>>(), "{pair:?} at {at}");
            assert!(hls.next_section().unwrap().is_none());
            assert!(
                (hls.handle().position().as_secs_f64() - 8.0 * SEGMENT).abs() < 0.001,
                "{pair:?} at {at}"
            );
        }
        assert!(changes > 0, "the other level was fetched");
    }
}

#[test]
fn seeks_over_a_rollover_land_on_their_segment() {
    let mut random = Random(3);
    for pair in wrapping() {
        let origin = levels(&pair, 8, 1.0).serve();
        let mut hls = open(&origin, "/all.m3u8", |config| config.quality = Quality::Fixed(0));
        drop(hls.next_section().unwrap().unwrap());
        for round in 0..20 {
            // A change of level with each third one.
            hls.handle().set_quality(Quality::Fixed(round / 3 % 2));
            let target = Duration::from_millis(random.below((8.0 * SEGMENT * 1000.0) as usize - 1) as u64);
            let (first, section) = seek(&mut hls, target);
            let info = section.info();
            assert_eq!(info.start + info.skip, target, "{pair:?}");
            assert_eq!(first % FRAMES, 0);
            assert!(
                (first as f64 * 1024.0 / 48_000.0 - info.start.as_secs_f64()).abs() < 0.001,
                "{pair:?} {info:?}"
            );
        }
        let (_, mut section) = seek(&mut hls, Duration::from_secs(5));
        let rest = all(&mut section).len();
        assert!(rest > 0 && hls.next_section().unwrap().is_none());
    }
}

/// Segments of 16 s. Those behind the rollover are further from it than any jump that is believed.
#[test]
fn long_segments_lose_no_frame_behind_a_rollover() {
    let first = ROLLOVER - 4 * TICKS;
    let mut site = Site::default();
    for extension in ["ts", "aac"] {
        let level = Level { extension, first };
        let mut lines = String::new();
        for index in 0..3 {
            let bytes: Vec<u8> = match extension {
                "ts" => {
                    let frames: Vec<Vec<u8>> = (index * 8..index * 8 + 8).flat_map(segment_frames).collect();
                    Ts::new(0x0f).segment(&frames, (first + index * 8 * TICKS) % ROLLOVER, 1920.0)
                }
                _ => {
                    let rest = (index * 8 + 1..index * 8 + 8).flat_map(segment_frames).flatten();
                    level.bytes(index * 8).into_iter().chain(rest).collect()
                }
            };
            lines.push_str(&format!("#EXTINF:{:.6},\n{index}.{extension}\n", 8.0 * SEGMENT));
            site = site.with(&format!("/{index}.{extension}"), bytes);
        }
        site = site.with(&format!("/{extension}.m3u8"), vod(&lines).replace("DURATION:3", "DURATION:17"));
    }
    let origin = site.serve();
    for path in ["/ts.m3u8", "/aac.m3u8"] {
        let mut hls = open(&origin, path, |_| ());
        let (played, error) = timed(&mut hls.next_section().unwrap().unwrap());
        assert_eq!(played, (0..24 * FRAMES).collect::<Vec<_>>(), "{path}: {} frames", played.len());
        assert!(error < 0.001, "{path}: {error}");
        assert!(hls.next_section().unwrap().is_none());
    }
}

#[test]
fn wrong_durations_in_the_playlist_lose_no_frame_and_end_where_the_audio_ends() {
    for extension in ["ts", "aac"] {
        for factor in [0.5, 0.75, 1.25, 1.5] {
            let origin = levels(&[Level { extension, first: 900_000 }], 20, factor).serve();
            let mut hls = open(&origin, "/all.m3u8", |_| ());
            let (played, error) = timed(&mut hls.next_section().unwrap().unwrap());
            assert!(error < 0.001, "{extension} x{factor}: {error}");
            let position = hls.handle().position().as_secs_f64();
            assert!((position - 20.0 * SEGMENT).abs() < 0.001, "{extension} x{factor}: {position}");
            assert_eq!(played, (0..20 * FRAMES).collect::<Vec<_>>(), "{extension} x{factor}");
            assert!(hls.next_section().unwrap().is_none());
            let mut random = Random(9);
            for _ in 0..20 {
                let end = hls.handle().seekable().end;
                let target = Duration::from_millis(random.below(end.as_millis() as usize - 1) as u64);
                let (first, section) = seek(&mut hls, target);
                let info = section.info();
                // The place that the playlist gives, and the segment there: not another one, by what the wrong durations add up to.
                let (off, limit) =
                    (info.start.abs_diff(target).as_secs_f64(), 2.0 * (SEGMENT * factor).max(2.0));
                assert!(off <= limit, "{extension} x{factor}: {target:?} {info:?}");
                assert_eq!(
                    (first % FRAMES, (info.start + info.skip).max(target)),
                    (0, info.start + info.skip)
                );
            }
        }
    }
}

#[test]
fn a_seek_lands_before_its_target_where_the_durations_in_the_playlist_add_up_to_something_else() {
    for extension in ["ts", "aac"] {
        // Up to a second and a half at the end.
        for factor in [0.965, 0.99, 1.01, 1.035] {
            let origin = levels(&[Level { extension, first: 900_000 }], 20, factor).serve();
            let mut hls = open(&origin, "/all.m3u8", |_| ());
            let _first = timed(&mut hls.next_section().unwrap().unwrap());
            let mut random = Random(5);
            for _ in 0..30 {
                let target =
                    Duration::from_millis(random.below((19.9 * SEGMENT * factor * 1000.0) as usize) as u64);
                let (first, section) = seek(&mut hls, target);
                let info = section.info();
                let what = format!("{extension} x{factor}: {target:?} {info:?}");
                let time = first as f64 * 1024.0 / 48_000.0;
                assert!((time - info.start.as_secs_f64()).abs() < 0.001, "{what}");
                // Half a frame.
                assert!(info.start <= target + Duration::from_millis(11), "{what}");
                assert!(target.saturating_sub(info.start).as_secs_f64() <= 2.0 * SEGMENT, "{what}");
            }
        }
    }
}
