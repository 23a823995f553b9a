//! HLS: live playlists that are not what section 6.2.2 asks for. No frame is lost or doubled for it.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use presentation::{Site, open, play};
use support::mux::{Ts, aac_frames, adts};
use support::{Answer, Content, Origin};
use windway::hls::{Discontinuity, Quality};

/// Frames of a segment: 0.2133 s.
const SHORT: u64 = 10;

/// Segments that a window shows.
const WINDOW: u64 = 12;

/// Segments of a whole stream.
const END: u64 = 30;

fn segment(index: u64) -> Vec<u8> {
    let frames: Vec<Vec<u8>> = aac_frames(index * SHORT, SHORT).iter().map(|frame| adts(frame, 3)).collect();
    Ts::new(0x0f).segment(&frames, 900_000 + index * SHORT * 1920, 1920.0)
}

/// The playlist of the segments from `start` to `end`.
fn window(start: u64, end: u64) -> String {
    let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{start}\n");
    (start..end).for_each(|index| text.push_str(&format!("#EXTINF:0.213333,\n{index}.ts\n")));
    text
}

/// The playlist of version `version`: each has one segment more, and the last one the end.
fn version(version: u64) -> String {
    let end = (WINDOW + version).min(END);
    let text = window(end - WINDOW, end);
    text + if end == END { "#EXT-X-ENDLIST\n" } else { "" }
}

/// Serves these playlists, by the number of the request.
fn serve(list: impl Fn(u64) -> String + Send + Sync + 'static) -> Origin {
    let site =
        (0..100).fold(Site::default(), |site, index| site.with(&format!("/{index}.ts"), segment(index)));
    Origin::start(move |request| match request.path.as_str() {
        "/live.m3u8" => Answer::whole(&Content::bytes(list(request.again as u64).into_bytes())),
        _ => site.answer(request),
    })
}

/// Plays from the beginning of the first window: the reasons of all sections, and the numbers of all frames.
fn played(origin: &Origin) -> (Vec<Discontinuity>, Vec<u64>) {
    let mut hls = open(origin, "/live.m3u8", |config| config.hold_back = Some(Duration::from_millis(2560)));
    let sections = play(&mut hls);
    let reasons = sections.iter().map(|section| section.0).collect();
    (reasons, sections.into_iter().flat_map(|section| section.1).collect())
}

fn everything() -> (Vec<Discontinuity>, Vec<u64>) {
    (vec![Discontinuity::Start], (0..END * SHORT).collect())
}

#[test]
fn an_edge_that_is_a_version_behind_costs_no_frame() {
    // Each fifth answer is that of the version before, or of three before.
    for behind in [1, 3] {
        let origin = serve(move |request| version(if request % 5 == 4 { request - behind } else { request }));
        assert_eq!(played(&origin), everything(), "{behind} behind");
    }
}

#[test]
fn versions_without_a_segment_cost_no_frame() {
    let origin = serve(|request| match request {
        // A server that has started again, or whose disk is full.
        3..6 => "#EXTM3U\n#EXT-X-TARGETDURATION:1\n".to_owned(),
        _ => version(request),
    });
    assert_eq!(played(&origin), everything());
}

#[test]
fn two_edges_that_take_turns_cost_no_frame() {
    for behind in [1, 2, 4] {
        let origin = serve(move |request| {
            version(if request % 2 == 0 { request } else { request.saturating_sub(behind) })
        });
        assert_eq!(played(&origin), everything(), "{behind} behind");
    }
}

#[test]
fn an_end_with_fewer_segments_ends_the_stream() {
    // The last version has the last three segments only, as some servers write it.
    let origin = serve(|request| match WINDOW + request {
        end if end < END => version(request),
        _ => window(END - 3, END) + "#EXT-X-ENDLIST\n",
    });
    assert_eq!(played(&origin), everything());
    // An end that takes back the last segment, which was or was not played: it ends all the same.
    let origin = serve(|request| match WINDOW + request {
        end if end < END => version(request),
        _ => window(END - WINDOW, END - 2) + "#EXT-X-ENDLIST\n",
    });
    let (reasons, frames) = played(&origin);
    assert_eq!(reasons, [Discontinuity::Start]);
    assert!(
        frames.len() as u64 >= (END - 2) * SHORT && frames.len() as u64 <= (END - 1) * SHORT,
        "{}",
        frames.len()
    );
    assert!(frames.iter().copied().eq(0..frames.len() as u64));
    // An end without any segment.
    let origin = serve(|request| match WINDOW + request {
        end if end < END => version(request),
        end => {
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-ENDLIST\n", end - 1)
        }
    });
    let (reasons, frames) = played(&origin);
    assert_eq!(reasons, [Discontinuity::Start]);
    assert!(frames.iter().copied().eq(0..(END - 1) * SHORT), "{}", frames.len());
}

#[test]
fn an_end_with_all_segments_since_the_beginning_ends_the_stream() {
    // The stream has begun at segment 10, and is a recording at last.
    let origin = serve(|request| match 10 + WINDOW + request {
        end if end < END => window(10 + request, end),
        _ => window(0, END) + "#EXT-X-ENDLIST\n",
    });
    let expected: Vec<u64> = (10 * SHORT..END * SHORT).collect();
    assert_eq!(played(&origin), (vec![Discontinuity::Start], expected));
}

#[test]
fn an_edge_with_a_longer_window_costs_no_frame() {
    // From the third request on, or every second time.
    for is_other in [|request| request > 2, |request| request % 2 == 1] {
        let origin = serve(move |request| {
            let end = (20 + WINDOW + request).min(20 + END);
            let len = if is_other(request) { 30 } else { WINDOW };
            window(end - len, end) + if end == 20 + END { "#EXT-X-ENDLIST\n" } else { "" }
        });
        let expected: Vec<u64> = (20 * SHORT..(20 + END) * SHORT).collect();
        assert_eq!(played(&origin), (vec![Discontinuity::Start], expected));
    }
}

#[test]
fn a_discontinuity_without_its_sequence_number_costs_no_frame() {
    // A break before each fifth segment, whose number the playlist never gives: once it leaves the window, all numbers change.
    let origin = serve(|request| {
        (0..END / 5).fold(version(request), |text, part| {
            let line = format!("#EXTINF:0.213333,\n{}.ts\n", part * 5);
            text.replace(&line, &format!("#EXT-X-DISCONTINUITY\n{line}"))
        })
    });
    assert_eq!(played(&origin), everything());
}

#[test]
fn a_gap_at_the_edge_that_is_filled_later_or_never_costs_nothing_else() {
    // The newest segment is always marked as missing, and there in the next version.
    let origin = serve(|request| {
        let end = (WINDOW + request).min(END);
        let last = format!("#EXTINF:0.213333,\n{}.ts\n", end - 1);
        if end == END {
            version(request)
        } else {
            version(request).replace(&last, &format!("#EXT-X-GAP\n{last}"))
        }
    });
    let (_, frames) = played(&origin);
    assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "no frame comes twice");
    assert_eq!(frames.last(), Some(&(END * SHORT - 1)));
    // Segment 20 is missing for ever.
    let origin = serve(|request| {
        version(request).replace("#EXTINF:0.213333,\n20.ts", "#EXT-X-GAP\n#EXTINF:0.213333,\n20.ts")
    });
    let (reasons, frames) = played(&origin);
    assert!(matches!(reasons[..], [Discontinuity::Start, Discontinuity::Gap(_)]), "{reasons:?}");
    assert_eq!(frames, (0..20 * SHORT).chain(21 * SHORT..END * SHORT).collect::<Vec<_>>());
}

#[test]
fn a_sequence_that_starts_again_is_one_reset() {
    // From the eighth request on the numbers begin at 0 again, with segments that were not there before.
    let origin = serve(|request| match request {
        0..8 => version(request),
        _ => {
            let end = (request - 4).min(12);
            let text = window(50, 50 + end).replace("SEQUENCE:50", "SEQUENCE:0");
            text + if end == 12 { "#EXT-X-ENDLIST\n" } else { "" }
        }
    });
    let (reasons, frames) = played(&origin);
    assert_eq!(reasons, [Discontinuity::Start, Discontinuity::Reset], "{} frames", frames.len());
    assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "no frame comes twice");
    let (old, new): (Vec<u64>, Vec<u64>) = frames.iter().partition(|frame| **frame < 50 * SHORT);
    assert_eq!(old, (0..(WINDOW + 7) * SHORT).collect::<Vec<_>>());
    assert_eq!(new.last(), Some(&(62 * SHORT - 1)));
    assert!(new.iter().copied().eq(new[0]..62 * SHORT));
}

#[test]
fn durations_that_are_wrong_by_half_lose_no_frame_of_a_live_stream() {
    for duration in ["0.106667", "0.16", "0.266667", "0.32"] {
        // It starts nearer to the edge if they are said to be longer.
        assert!(first_frame_of_all(duration) < 6 * SHORT, "{duration}");
    }
}

#[test]
fn durations_that_a_radio_does_not_know_lose_no_frame_of_a_live_stream() {
    // They count as one second, so it starts three segments before the edge.
    assert_eq!(first_frame_of_all("-1"), (WINDOW - 3) * SHORT);
}

/// Plays a live stream with this duration of each segment to its end: the number of the first frame.
fn first_frame_of_all(duration: &'static str) -> u64 {
    let origin = serve(move |request| version(request).replace("0.213333", duration));
    let (reasons, frames) = played(&origin);
    assert_eq!(reasons, [Discontinuity::Start], "{duration}");
    assert!(frames.iter().copied().eq(frames[0]..END * SHORT), "{duration}: {}", frames.len());
    frames[0]
}

#[test]
fn a_listener_who_pauses_beyond_the_window_continues_in_order() {
    // From the pause on the window moves with each request.
    let pause = Arc::new(Mutex::new(None));
    let paused = Arc::clone(&pause);
    let origin = serve(move |_| {
        let mut paused = paused.lock().unwrap();
        let moved = paused.as_mut().map_or(0, |moved: &mut u64| {
            *moved += 1;
            *moved
        });
        let end = (WINDOW + 3 * moved).min(90);
        window(end - WINDOW, end) + if end == 90 { "#EXT-X-ENDLIST\n" } else { "" }
    });
    let mut hls = open(&origin, "/live.m3u8", |config| {
        config.hold_back = Some(Duration::from_millis(2560));
        config.buffer = Duration::from_millis(500);
    });
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; 100]).unwrap();
    *pause.lock().unwrap() = Some(0);
    let before = origin.log().requests.len();
    origin.wait_until("the window moves on", |log| {
        log.requests[before..].iter().filter(|request| request.path == "/live.m3u8").count() > 12
    });
    let position = hls.handle().position();
    assert!(position < Duration::from_secs(1) && hls.handle().latency().unwrap() > Duration::from_secs(4));
    let mut frames = presentation::numbers(&presentation::all(&mut section)[first_frame_rest()..]);
    let sections = play(&mut hls);
    // The window moves faster than it is played, so it may happen again.
    let is_behind = |section: &(Discontinuity, Vec<u64>)| matches!(section.0, Discontinuity::Behind(_));
    assert!(!sections.is_empty() && sections.iter().all(is_behind), "{sections:?}");
    frames.extend(sections.into_iter().flat_map(|section| section.1));
    assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{frames:?}");
    assert_eq!(frames.last(), Some(&(90 * SHORT - 1)));
}

#[test]
fn a_listener_who_pauses_beyond_the_window_learns_it_also_where_another_level_goes_on() {
    let is_later = Arc::new(AtomicBool::new(false));
    let later = Arc::clone(&is_later);
    let levels = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n1.m3u8\n";
    let site = (0..100).fold(Site::default().with("/all.m3u8", levels), |site, index| {
        site.with(&format!("/{index}.ts"), segment(index))
    });
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/0.m3u8" | "/1.m3u8" => {
            let end = if later.load(Ordering::Relaxed) { 90 } else { WINDOW };
            // Its clock goes faster than the one of the listener: the dates say how much has gone.
            let seconds = (end - WINDOW) as f64 * 0.213333;
            let date = format!("#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:{seconds:06.3}Z\n#EXTINF");
            let text = window(end - WINDOW, end).replacen("#EXTINF", &date, 1)
                + if end == 90 { "#EXT-X-ENDLIST\n" } else { "" };
            Answer::whole(&Content::bytes(text.into_bytes()))
        }
        _ => site.answer(request),
    });
    let mut hls = open(&origin, "/all.m3u8", |config| {
        config.hold_back = Some(Duration::from_millis(2560));
        config.buffer = Duration::from_millis(500);
        config.quality = Quality::Fixed(0);
    });
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; 100]).unwrap();
    is_later.store(true, Ordering::Relaxed);
    hls.handle().set_quality(Quality::Fixed(1));
    let before = presentation::numbers(&presentation::all(&mut section)[first_frame_rest()..]);
    let end = section.info().start + FRAME * (before.len() as u32 + 1);
    let mut section = hls.next_section().unwrap().expect("a section behind the jump");
    let Discontinuity::Behind(missing) = section.info().discontinuity else { panic!("{:?}", section.info()) };
    // The times are rounded to 90 kHz.
    assert!(section.info().start.abs_diff(end + missing) < Duration::from_millis(1), "{:?}", section.info());
    let after = presentation::numbers(&presentation::all(&mut section));
    assert!(before.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{before:?}");
    assert!(after.into_iter().eq((90 - WINDOW) * SHORT..90 * SHORT));
    assert!(hls.next_section().unwrap().is_none());
}

/// Duration of a frame.
const FRAME: Duration = Duration::from_nanos(1_024_000_000 / 48);

/// Bytes of the first frame behind those that were read of it.
fn first_frame_rest() -> usize {
    aac_frames(0, 1)[0].len() + 7 - 100
}
