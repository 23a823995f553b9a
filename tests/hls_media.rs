//! HLS: what precedes the presentation is told, and nothing of it moves the times.
#![cfg(feature = "hls")]

#[path = "support/mux.rs"]
mod mux;
#[path = "support/presentation.rs"]
mod presentation;
mod support;

use std::time::Duration;

use mux::{Entry, aac_frames, fragment};
use presentation::{FRAMES, Site, all, extinf, numbers, open, vod};
use windway::hls::Discontinuity;

/// Segments of AAC whose first `delay` samples are encoder delay, by an edit list.
fn delayed(delay: i64, count: u64) -> Site {
    let lines: String = (0..count).map(|index| extinf(&format!("{index}.m4s"))).collect();
    let list = vod(&format!("#EXT-X-MAP:URI=\"init.mp4\"\n{lines}"));
    let site =
        Site::default().with("/list.m3u8", list).with("/init.mp4", mux::init(&Entry::Aac(3), 48_000, delay));
    (0..count).fold(site, |site, index| {
        let bytes = fragment(&aac_frames(index * FRAMES, FRAMES), index * FRAMES * 1024);
        site.with(&format!("/{index}.m4s"), bytes)
    })
}

fn samples(count: u64) -> Duration {
    Duration::from_nanos(count * 1_000_000_000 / 48_000)
}

#[test]
fn encoder_delay_is_to_be_skipped_and_moves_no_time() {
    for delay in [0, 1024, 2112] {
        let origin = delayed(delay, 4).serve();
        let delay = delay as u64;
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        assert_eq!((info.start, info.discontinuity), (Duration::ZERO, Discontinuity::Start));
        assert!(info.skip.abs_diff(samples(delay)) < Duration::from_nanos(10), "{delay}: {:?}", info.skip);
        let bytes = all(&mut section);
        assert_eq!(numbers(&bytes), (0..4 * FRAMES).collect::<Vec<_>>(), "{delay}");
        let mut offset = 0;
        for index in 0..4 * FRAMES {
            let wanted = samples((index * 1024).saturating_sub(delay));
            let time = section.time_of(offset).unwrap();
            assert!(time.abs_diff(wanted) < Duration::from_nanos(10), "{delay}: frame {index} at {time:?}");
            let at = offset as usize;
            let frame = &bytes[at..];
            offset += u64::from(frame[3] & 3) << 11 | u64::from(frame[4]) << 3 | u64::from(frame[5] >> 5);
        }
        let end = samples(4 * FRAMES * 1024 - delay);
        assert!(hls.handle().position().abs_diff(end) < Duration::from_nanos(10), "{delay}");
    }
}

#[test]
fn a_seek_to_the_start_skips_the_encoder_delay_too() {
    let origin = delayed(1024, 4).serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    all(&mut hls.next_section().unwrap().unwrap());
    for target in [Duration::from_millis(15), Duration::ZERO, Duration::from_secs(3)] {
        hls.seek(target).unwrap();
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        // The frame that begins the segment, and its time.
        let first = numbers(&all(&mut section))[0];
        let skipped = target + samples(1024) - samples(first * 1024);
        assert!(info.skip.abs_diff(skipped) < Duration::from_nanos(100), "{target:?}: {:?}", info.skip);
    }
}
