//! A section that is dropped before its end: the next one continues it.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::time::Duration;

use presentation::{FRAMES, all, downloader, extinf, numbers, open, site, vod};
use support::mux::{aac_frames, adts};
use windway::hls::{Discontinuity, HlsConfig};
use windway::stream::Phase;

/// Bytes of at least two frames, and of the beginning of another one.
const READ: usize = 1000;

#[test]
fn a_section_that_is_dropped_is_continued_and_the_position_stays() {
    let origin = site(12).serve();
    for path in ["/ts.m3u8", "/mp4.m3u8"] {
        let mut hls = open(&origin, path, |config| config.buffer = Duration::from_secs(4));
        let handle = hls.handle();
        let (mut played, mut sections) = (Vec::new(), 0);
        for _ in 0..20 {
            let mut section = hls.next_section().unwrap().unwrap();
            sections += 1;
            let reason = if sections == 1 { Discontinuity::Start } else { Discontinuity::Reopened };
            assert_eq!(section.info().discontinuity, reason);
            let mut bytes = vec![0; READ];
            section.read_exact(&mut bytes).unwrap();
            let whole = (1..=bytes.len()).rev().find(|len| is_whole(&bytes[..*len])).unwrap_or(0);
            played.extend(numbers(&bytes[..whole]));
            let position = handle.position();
            drop(section);
            assert_eq!(handle.position(), position);
            assert_ne!(handle.phase(), Phase::Complete, "the rest is not fetched at once");
        }
        played.extend(numbers(&all(&mut hls.next_section().unwrap().unwrap())));
        assert!(hls.next_section().unwrap().is_none());
        // The frames of which only the beginning was read are lost with their decoders.
        let lost = 12 * FRAMES - played.len() as u64;
        assert!(lost <= 20 && played.windows(2).all(|pair| pair[1] - pair[0] <= 2), "{played:?}");
        assert_eq!(played.last(), Some(&(12 * FRAMES - 1)));
    }
}

#[test]
fn a_section_of_which_nothing_was_read_is_skipped() {
    let other: Vec<Vec<u8>> = aac_frames(0, FRAMES).iter().map(|frame| adts(frame, 4)).collect();
    let lines = format!(
        "{}#EXT-X-DISCONTINUITY
{}",
        extinf("0.ts"),
        extinf("other.aac")
    );
    let site = site(1).with("/other.aac", other.concat()).with("/list.m3u8", vod(&lines));
    let origin = site.serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    drop(hls.next_section().unwrap().unwrap());
    let mut section = hls.next_section().unwrap().unwrap();
    assert_eq!(section.info().discontinuity, Discontinuity::Format);
    assert_eq!(numbers(&all(&mut section)), (0..FRAMES).collect::<Vec<_>>());
    assert!(hls.next_section().unwrap().is_none());
}

fn is_whole(mut bytes: &[u8]) -> bool {
    while bytes.len() >= 7 {
        let len = usize::from(bytes[3] & 3) << 11 | usize::from(bytes[4]) << 3 | usize::from(bytes[5] >> 5);
        let Some(rest) = bytes.get(len..) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

#[test]
fn the_position_outlives_the_presentation_and_its_section() {
    let origin = site(12).serve();
    let mut hls = downloader().open_hls(&origin.url("/ts.m3u8"), HlsConfig::default()).unwrap();
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; READ]).unwrap();
    let position = handle.position();
    drop(hls);
    drop(section);
    assert_eq!(handle.position(), position);
}
