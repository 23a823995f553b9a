//! Seeks inside of what is buffered: nothing is fetched again.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::time::{Duration, Instant};

use presentation::{FRAMES, SEGMENT, all, downloader, numbers, open, play, segment_frames, site};
use support::link::{Link, LinkConfig};
use support::mux::Random;
use support::{Origin, poll_until};
use windway::hls::{Discontinuity, Hls, HlsConfig, HlsHandle, Quality, Section};
use windway::stream::Phase;

const BUFFER: Duration = Duration::from_secs(60);

/// Blocks until the buffer is full.
fn settle(handle: &HlsHandle) {
    poll_until("the buffer is full", || handle.buffered() >= BUFFER);
}

/// Blocks until nothing more is fetched for a buffer of this length. A seek would cancel what is fetched, and request it again.
fn finish_fetching(handle: &HlsHandle, buffer: Duration) {
    poll_until("nothing more is fetched", || match handle.phase() {
        Phase::Complete => true,
        Phase::Idle => handle.buffered() >= buffer,
        _ => false,
    });
}

/// Reads frames up to about this presentation time.
fn read_to(section: &mut Section, handle: &HlsHandle, time: Duration) {
    while handle.position() < time {
        section.read_exact(&mut [0; 300]).unwrap();
    }
}

/// Seeks, and reads the first frame. Returns the section, and the number of the frame.
fn seek(hls: &mut Hls, target: Duration) -> (Section, u64) {
    let landed = hls.seek(target).unwrap();
    let mut section = hls.next_section().unwrap().unwrap();
    let info = section.info().clone();
    assert_eq!(info.discontinuity, Discontinuity::Seek);
    assert_eq!(info.start + info.skip, target);
    assert_eq!(section.handle().time_at(info.skip), target, "no encoder delay");
    assert_eq!(section.handle().time_at(Duration::MAX), Duration::MAX);
    assert!(landed.abs_diff(info.start) < Duration::from_millis(1), "{landed:?} {info:?}");
    let mut head = [0; 15];
    section.read_exact(&mut head).unwrap();
    let first = u64::from_be_bytes(head[7..15].try_into().unwrap());
    assert_eq!(first, (info.start.as_secs_f64() / SEGMENT).round() as u64 * FRAMES);
    (section, first)
}

#[test]
fn seeks_inside_of_the_buffer_request_nothing_again() {
    let origin = site(100).serve();
    for path in ["/ts.m3u8", "/mp4.m3u8"] {
        let mut hls = open(&origin, path, |config| config.buffer = BUFFER);
        let handle = hls.handle();
        let mut section = hls.next_section().unwrap().unwrap();
        read_to(&mut section, &handle, Duration::from_secs(20));
        settle(&handle);
        let mut at = 20.0;
        let mut random = Random(7);
        for step in [5.0, -5.0, -5.0, 10.0, 30.0, -5.0, 5.0, -9.0] {
            at += step + random.below(900) as f64 / 1000.0;
            let (next, _) = seek(&mut hls, Duration::from_secs_f64(at));
            let mut old = std::mem::replace(&mut section, next);
            assert_eq!(old.read(&mut [0; 9]).unwrap(), 0, "the section before the seek ends");
        }
        let (mut section, first) = seek(&mut hls, Duration::from_secs_f64(at));
        let mut bytes = segment_frames(first / FRAMES)[0][..15].to_vec();
        bytes.extend(all(&mut section));
        assert_eq!(numbers(&bytes), (first..100 * FRAMES).collect::<Vec<_>>(), "{path}");
        assert!(hls.next_section().unwrap().is_none());
        // A seek forward makes room for segments behind the buffer, which are requested for the first time.
        let again: Vec<String> = origin
            .log()
            .requests
            .into_iter()
            .filter(|request| request.again > 0)
            .map(|request| request.path)
            .collect();
        assert!(again.is_empty(), "{path}: {again:?}");
    }
}

#[test]
fn a_section_is_over_once_it_was_sought_away_from_or_dropped_and_not_at_its_own_end() {
    let origin = site(3).serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    let first = section.handle();
    section.read_exact(&mut [0; 300]).unwrap();
    assert!(!first.is_over());
    handle.seek(Duration::from_secs(3)).unwrap();
    assert!(first.is_over(), "before the decoder reads again");
    drop(section);
    // A drop hands out the rest, under another handle.
    let mut dropped = hls.next_section().unwrap().unwrap();
    dropped.read_exact(&mut [0; 300]).unwrap();
    let second = dropped.handle();
    assert!(!second.is_over());
    drop(dropped);
    let mut rest = hls.next_section().unwrap().unwrap();
    assert_eq!(rest.info().discontinuity, Discontinuity::Reopened);
    let third = rest.handle();
    assert!(first.is_over() && second.is_over() && !third.is_over());
    all(&mut rest);
    assert!(hls.next_section().unwrap().is_none());
    handle.cancel();
    assert!(!third.is_over(), "what a decoder has read of it is to be played");
    drop(rest);
    assert!(third.is_over());
}

#[test]
fn twenty_seeks_to_and_fro_through_a_presentation_request_each_segment_once() {
    const SEGMENTS: u64 = 60;
    const BUFFER: Duration = Duration::from_secs(20);
    for path in ["/ts.m3u8", "/mp4.m3u8", "/aac.m3u8"] {
        let origin = site(SEGMENTS).serve();
        // The presentation is much longer.
        let mut hls = open(&origin, path, |config| config.buffer = BUFFER);
        let handle = hls.handle();
        let mut random = Random(11);
        finish_fetching(&handle, BUFFER);
        for _ in 0..20 {
            let target = random.below((SEGMENT * (SEGMENTS - 1) as f64 * 1000.0) as usize) as f64 / 1000.0;
            seek(&mut hls, Duration::from_secs_f64(target));
            finish_fetching(&handle, BUFFER);
        }
        hls.seek(Duration::ZERO).unwrap();
        let played: Vec<u64> = play(&mut hls).into_iter().flat_map(|(_, numbers)| numbers).collect();
        assert_eq!(played, (0..SEGMENTS * FRAMES).collect::<Vec<_>>(), "{path}");
        let requests = origin.log().requests;
        let again: Vec<&String> =
            requests.iter().filter(|request| request.again > 0).map(|request| &request.path).collect();
        assert!(again.is_empty(), "{path}: {again:?}");
        assert!(requests.len() as u64 <= SEGMENTS + 3, "{path}: {} requests", requests.len());
        let buffered = handle.progress().stream.buffered;
        assert_eq!(buffered.len(), 1, "all of it is there: {buffered:?}");
    }
}

#[test]
fn a_level_that_is_chosen_by_hand_is_heard_within_a_segment_and_no_frame_is_lost() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nmp4.m3u8\n";
    let origin = site(60).with("/all.m3u8", master).serve();
    let mut hls = open(&origin, "/all.m3u8", |config| {
        config.buffer = BUFFER;
        config.quality = Quality::Fixed(0);
    });
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    let mut bytes = vec![0; 30_000];
    section.read_exact(&mut bytes).unwrap();
    settle(&handle);
    let position = handle.position();
    handle.set_quality(Quality::Fixed(1));
    let from = handle.drop_buffered().unwrap();
    assert!(from > position && from < position + Duration::from_secs(4), "{position:?} {from:?}");
    let mut byte = [0];
    while handle.playing_level() == 0 {
        section.read_exact(&mut byte).unwrap();
        bytes.extend(byte);
    }
    assert!(handle.position().abs_diff(from) < Duration::from_millis(50), "{:?} {from:?}", handle.position());
    bytes.extend(all(&mut section));
    assert_eq!(numbers(&bytes), (0..60 * FRAMES).collect::<Vec<_>>());
    assert!(hls.next_section().unwrap().is_none());
    assert!(handle.stats().bytes_dropped > 0);
    handle.cancel();
    assert!(handle.drop_buffered().unwrap_err().is_cancelled());
}

#[test]
#[ignore = "measures real time"]
fn twenty_seeks_of_five_seconds_in_a_buffer_of_a_minute() {
    const RTT: Duration = Duration::from_millis(40);
    let own = site(300);
    let origin = Origin::start(move |request| own.answer(request));
    let link = Link::start(origin.address(), LinkConfig::with_rtt(RTT));
    let mut config = HlsConfig::default();
    config.buffer = BUFFER;
    let mut hls = downloader().open_hls(&link.url("/mp4.m3u8"), config).unwrap();
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    read_to(&mut section, &handle, Duration::from_secs(30));
    settle(&handle);
    let before = handle.stats();
    let mut times: Vec<Duration> = (0..20)
        .map(|round| {
            let step = if round % 2 == 0 { -5.0 } else { 5.0 };
            let target = Duration::from_secs_f64(30.0 + f64::min(step, 0.0));
            let began = Instant::now();
            section = seek(&mut hls, target).0;
            let took = began.elapsed();
            settle(&handle);
            took
        })
        .collect();
    let after = handle.stats();
    times.sort_unstable();
    println!(
        "20 seeks at {RTT:?}: median {:.2?}, at most {:.2?}, {} requests, {} KiB",
        times[10],
        times[19],
        after.requests - before.requests,
        (after.bytes_fetched - before.bytes_fetched) / 1024,
    );
}
