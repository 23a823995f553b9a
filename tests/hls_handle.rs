//! Calls of a handle that can't do what they are asked for.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::thread;
use std::time::Duration;

use presentation::{FRAMES, SEGMENT, Site, all, downloader, extinf, open, play, site, ts};
use windway::downloader::CancelReason;
use windway::event::Event;
use windway::hls::{Discontinuity, Hls, HlsConfig};
use windway::stream::{Phase, TryRead};
use windway::{Downloader, ErrorKind, Stream};

#[test]
fn a_presentation_with_an_end_has_no_live_edge_and_plays_on() {
    let origin = site(3).serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    assert_eq!(hls.handle().go_live().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..3 * FRAMES).collect())]);
}

#[test]
fn a_start_behind_the_end_is_an_error() {
    let origin = site(3).serve();
    let config = HlsConfig::new().start(Duration::from_secs(5000));
    let error = downloader().open_hls(&origin.url("/ts.m3u8"), config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfWindow);
    assert!(error.to_string().contains("5000s"), "{error}");
}

#[test]
fn the_opening_of_a_host_that_refuses_connections_is_not_retried() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let downloader = downloader();
    let events = downloader.subscribe();
    let url = format!("http://127.0.0.1:{port}/l.m3u8");
    let error = downloader.open_hls(&url, HlsConfig::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    drop(downloader);
    let mut starts = 0;
    while let Some(event) = events.recv() {
        starts += u32::from(matches!(event, Event::Started { .. }));
        assert!(!matches!(event, Event::Retrying { .. }), "{event:?}");
    }
    assert_eq!(starts, 1);
}

#[test]
fn a_handle_moves_no_reader_after_the_presentation() {
    let origin = site(3).serve();
    for is_dropped in [true, false] {
        let hls = open(&origin, "/ts.m3u8", |_| ());
        let handle = hls.handle();
        if is_dropped {
            drop(hls);
        } else {
            handle.cancel();
        }
        assert!(handle.last_error().is_none());
        let cancelled = ErrorKind::Cancelled(CancelReason::Peer);
        assert_eq!(handle.seek(Duration::ZERO).unwrap_err().kind(), cancelled);
        assert_eq!(handle.go_live().unwrap_err().kind(), cancelled);
        assert_eq!(handle.select_rendition(0).unwrap_err().kind(), cancelled);
        assert_eq!(handle.phase(), Phase::Closed);
    }
}

#[test]
fn progress_is_what_the_handle_returns_in_one_look() {
    let origin = site(3).serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; 5000]).unwrap();
    support::poll_until("all segments", || handle.phase() == Phase::Complete);
    let progress = handle.progress();
    let stream = &progress.stream;
    assert_eq!((stream.position, stream.len), (handle.position(), handle.duration()));
    assert!(stream.position > Duration::ZERO, "{progress:?}");
    assert_eq!((stream.buffered_ahead, stream.phase), (handle.buffered(), Phase::Complete));
    // What was read is kept.
    let [stored] = &stream.buffered[..] else { panic!("{progress:?}") };
    let near = |time: Duration, seconds: f64| (time.as_secs_f64() - seconds).abs() < 0.03;
    assert!(stored.start.is_zero() && near(stored.end, 3.0 * SEGMENT), "{progress:?}");
    assert!(near(stream.position + stream.buffered_ahead, 3.0 * SEGMENT), "{progress:?}");
    assert_eq!((stream.stalls, stream.stalled), (handle.stats().stalls, handle.stats().stalled));
    assert!(stream.last_error.is_none() && stream.starving.is_none());
    assert_eq!((progress.level, progress.playing_level, progress.rendition), (0, 0, 0));
    assert_eq!((progress.latency, progress.seekable), (None, handle.seekable()));
}

#[test]
fn a_presentation_that_was_read_whole_has_ended_until_a_seek() {
    let origin = site(3).serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    let handle = hls.handle();
    let mut watch = handle.watch(Duration::from_millis(1));
    for _ in 0..2 {
        let mut section = hls.next_section().unwrap().unwrap();
        section.read_exact(&mut [0; 5000]).unwrap();
        support::poll_until("all segments", || handle.phase() == Phase::Complete);
        all(&mut section);
        assert_eq!(handle.phase(), Phase::Ended, "its last section has ended");
        assert!(hls.next_section().unwrap().is_none());
        assert_eq!(handle.phase(), Phase::Ended);
        assert_eq!(handle.progress().stream.phase, Phase::Ended);
        assert!(watch.next().is_some(), "a seek may follow");
        hls.seek(Duration::ZERO).unwrap();
        assert_ne!(handle.phase(), Phase::Ended);
    }
    drop(hls);
    assert_eq!(handle.phase(), Phase::Closed);
}

#[test]
fn a_stream_goes_on_after_a_seek_from_its_end() {
    let origin = site(3).serve();
    for buffer in [120, 1] {
        let hls = open(&origin, "/ts.m3u8", |config| config.buffer = Duration::from_secs(buffer));
        let source = hls.into_source().unwrap();
        let handle = source.handle().clone();
        let mut stream = Stream::new(source);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let len = bytes.len();
        assert_eq!(stream.len(), Some(len as u64));
        for polls in [false, true] {
            handle.seek(Duration::ZERO).unwrap();
            assert_eq!(stream.len(), None, "bytes follow");
            let mut again = Vec::new();
            if polls {
                let mut buf = [0; 1000];
                loop {
                    match stream.try_read(&mut buf).unwrap() {
                        TryRead::Bytes(got) => again.extend_from_slice(&buf[..got]),
                        TryRead::Pending(_) => std::thread::yield_now(),
                        _ => break,
                    }
                }
            } else {
                stream.read_to_end(&mut again).unwrap();
            }
            assert!(again == bytes, "{} bytes of {len}", again.len());
            assert_eq!(stream.handle().phase(), Phase::Ended);
        }
    }
}

#[test]
fn what_is_buffered_behind_a_missing_segment_is_a_range_of_its_own() {
    let origin = site(4).without("/1.ts").serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    let handle = hls.handle();
    let _section = hls.next_section().unwrap().unwrap();
    support::poll_until("all segments", || handle.phase() == Phase::Complete);
    let buffered = handle.progress().stream.buffered;
    let rounded = |time: Duration| (time.as_secs_f64() / SEGMENT).round() as u64;
    let segments: Vec<_> = buffered.iter().map(|range| (rounded(range.start), rounded(range.end))).collect();
    assert_eq!(segments, [(0, 1), (2, 4)], "{buffered:?}");
}

#[test]
fn progress_of_a_live_presentation_has_no_length_and_a_distance_from_live() {
    let list: String = (0..3).map(|index| extinf(&format!("{index}.ts"))).collect();
    let live = format!("#EXTM3U\n#EXT-X-TARGETDURATION:3\n{list}");
    let origin = (0..3).fold(Site::default().with("/live.m3u8", live), |site, index| {
        site.with(&format!("/{index}.ts"), ts(index))
    });
    let origin = origin.serve();
    let mut hls = open(&origin, "/live.m3u8", |config| config.start = Some(Duration::ZERO));
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; 5000]).unwrap();
    let progress = handle.progress();
    assert_eq!(progress.stream.len, None);
    let latency = progress.latency.unwrap().as_secs_f64();
    assert!((latency + progress.stream.position.as_secs_f64() - 3.0 * SEGMENT).abs() < 0.03, "{progress:?}");
}

#[test]
fn a_watch_shows_at_once_that_its_presentation_has_ended() {
    const LONG: Duration = Duration::from_secs(3600);
    type End = fn(Hls, &Downloader) -> Option<Hls>;
    let ends: [(&str, End); 3] = [
        ("dropped", |_hls, _| None),
        ("cancelled", |hls, _| {
            hls.handle().cancel();
            Some(hls)
        }),
        ("stopped", |hls, downloader| {
            downloader.stop();
            Some(hls)
        }),
    ];
    let origin = site(3).serve();
    for (case, end) in ends {
        let downloader = downloader();
        let hls = downloader.open_hls(&origin.url("/ts.m3u8"), HlsConfig::default()).unwrap();
        let mut watch = hls.handle().watch(LONG);
        assert_ne!(watch.next().unwrap().stream.phase, Phase::Closed, "{case}");
        let rest = thread::spawn(move || watch.map(|progress| progress.stream.phase).collect::<Vec<_>>());
        let _hls = end(hls, &downloader);
        assert_eq!(support::in_time(case, move || rest.join().unwrap()), [Phase::Closed], "{case}");
    }
}
