//! HLS used by several threads at once: no hang, no panic, and what is played last is what was sought last.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use presentation::{FRAMES, numbers, open, site};
use support::Origin;
use support::low_latency::LowLatency;
use windway::ErrorKind;
use windway::hls::{Hls, HlsHandle, Quality};
use windway::stream::Phase;

/// Without the last frame if it is not whole: a seek of another thread ends a section wherever its reader is.
fn whole_frames(bytes: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(header) = bytes.get(end..end + 7) {
        let len =
            usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5);
        if len == 0 || end + len > bytes.len() {
            break;
        }
        end += len;
    }
    &bytes[..end]
}

/// Reads until `is_over`, over all errors, and then to the end. Frames of one section must follow each other.
fn read_on(hls: &mut Hls, is_over: &AtomicBool) -> Vec<u64> {
    let mut last = Vec::new();
    loop {
        let mut section = match hls.next_section() {
            Ok(Some(section)) => section,
            Ok(None) if is_over.load(Ordering::Relaxed) => return last,
            Ok(None) => continue,
            Err(error) if error.is_cancelled() => return last,
            Err(_) => continue,
        };
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match section.read(&mut chunk) {
                Ok(0) => break,
                Ok(got) => bytes.extend_from_slice(&chunk[..got]),
                Err(error) => {
                    if windway::Error::from(error).is_cancelled() {
                        break;
                    }
                }
            }
        }
        let frames = numbers(whole_frames(&bytes));
        assert!(frames.windows(2).all(|pair| pair[1] == pair[0] + 1), "{frames:?}");
        last = frames;
    }
}

/// Lets `acts` run on threads of their own while the presentation is read.
fn at_once(mut hls: Hls, acts: &[fn(&HlsHandle, u64)]) -> Vec<u64> {
    let (handle, is_over) = (hls.handle(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let actors: Vec<_> = acts
            .iter()
            .map(|act| {
                let handle = handle.clone();
                scope.spawn(move || (0..200).for_each(|turn| act(&handle, turn)))
            })
            .collect();
        let reader = scope.spawn(|| read_on(&mut hls, &is_over));
        actors.into_iter().for_each(|actor| actor.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    })
}

fn levels() -> Origin {
    let lines = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000\naac.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=128000\nts.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=256000\nmp4.m3u8\n";
    site(20).with("/all.m3u8", lines).serve()
}

fn seek(handle: &HlsHandle, turn: u64) {
    let sought = handle.seek(Duration::from_millis(turn * 7919 % 40_000));
    assert!(sought.is_ok() || handle.phase() == Phase::Closed, "{sought:?}");
}

fn choose(handle: &HlsHandle, turn: u64) {
    handle.set_quality(Quality::Fixed((turn % 4) as usize));
    if turn % 3 == 0 {
        let dropped = handle.drop_buffered();
        assert!(dropped.is_ok() || handle.phase() == Phase::Closed, "{dropped:?}");
    }
}

fn watch(handle: &HlsHandle, _: u64) {
    let _ = (handle.position(), handle.buffered(), handle.seekable(), handle.phase(), handle.last_error());
}

#[test]
fn handles_of_two_threads_seek_and_choose_levels_at_once() {
    for acts in [&[seek as fn(&HlsHandle, u64), seek][..], &[seek, choose, watch], &[choose, choose, seek]] {
        let origin = levels();
        let hls = open(&origin, "/all.m3u8", |_| ());
        // What is read after the last seek is everything from there on.
        let last = support::in_time("all acts", move || at_once(hls, acts));
        assert_eq!(last.last(), Some(&(20 * FRAMES - 1)));
    }
}

#[test]
fn a_cancel_beside_reads_seeks_and_choices_ends_all() {
    for round in 0..20 {
        let origin = levels();
        let mut hls = open(&origin, "/all.m3u8", |_| ());
        let handle = hls.handle();
        support::in_time("the end of the reader", move || {
            std::thread::scope(|scope| {
                scope.spawn(|| read_on(&mut hls, &AtomicBool::new(true)));
                for act in [seek, choose, watch] {
                    let handle = handle.clone();
                    scope.spawn(move || (0..round * 5).for_each(|turn| act(&handle, turn)));
                }
                handle.cancel();
            });
        });
    }
}

#[test]
fn a_live_stream_is_sought_and_paused_by_two_threads() {
    let live = LowLatency { has_hints: true, ..LowLatency::new(26, 50, 10) };
    let origin = Origin::start(move |request| live.answer(request));
    let hls = open(&origin, "/live.m3u8", |_| ());
    let go_live: fn(&HlsHandle, u64) = |handle, _| {
        // The stream may have ended.
        if let Err(error) = handle.go_live() {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    };
    let pause: fn(&HlsHandle, u64) = |handle, turn| {
        if turn % 2 == 0 { handle.interrupt() } else { handle.resume() }
    };
    let last = support::in_time("all acts", move || at_once(hls, &[go_live, pause, watch]));
    assert_eq!(last.last(), Some(&499));
}
