//! Openings of HLS in the background: shown, cancelled whatever they wait for, and as good as those that are waited for.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use presentation::{FRAMES, downloader, play, site};
use support::{Answer, Origin, in_time};
use windway::downloader::CancelReason;
use windway::hls::{Discontinuity, Hls, HlsConfig, HlsKind, Quality};
use windway::stream::Phase;
use windway::{Downloader, DownloaderConfig, ErrorKind, Priority, Stream};

const LEVELS: &str = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\n/ts.m3u8\n";

/// Serves a presentation of three segments, and answers requests for `silent` only when it is released.
fn with_silent(silent: &'static str) -> Origin {
    let site = site(3).with("/levels.m3u8", LEVELS);
    Origin::start(move |request| match &*request.path {
        path if path == silent => site.answer(request).latency_until_released(),
        _ => site.answer(request),
    })
}

fn open_later(url: &str) -> Hls {
    downloader().open_hls_later(url, HlsConfig::new()).unwrap()
}

/// Fails unless a cancel ends the call for the first section, which waits.
fn check_cancel(mut hls: Hls, phase: Phase, wait: impl FnOnce()) {
    let handle = hls.handle();
    let mut watch = handle.watch(Duration::from_secs(3600));
    assert_eq!(watch.next().map(|progress| progress.stream.phase), Some(Phase::Opening));
    let player = thread::spawn(move || hls.next_section().map(drop));
    wait();
    support::poll_until("the phase", || handle.phase() == phase);
    handle.cancel();
    let result = in_time("the cancelled opening", move || player.join().unwrap());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled(CancelReason::Peer));
    assert!(handle.last_error().is_none());
    // At once, and not after an hour.
    let last = in_time("the last progress", move || watch.map(|progress| progress.stream.phase).last());
    assert_eq!(last, Some(Phase::Closed));
}

#[test]
fn a_cancel_ends_an_opening_in_each_of_its_phases() {
    for (silent, phase) in
        [("/levels.m3u8", Phase::Opening), ("/ts.m3u8", Phase::Opening), ("/0.ts", Phase::Stalled)]
    {
        let origin = with_silent(silent);
        check_cancel(open_later(&origin.url("/levels.m3u8")), phase, || {
            origin.wait_until("the request", |log| log.requests.iter().any(|request| request.path == silent));
        });
    }
    // A delay between two attempts.
    let busy = Origin::start(|_| Answer::status(503).header("Retry-After", "20"));
    check_cancel(open_later(&busy.url("/a")), Phase::Opening, || {
        busy.wait_until("the request", |log| log.requests.len() == 1);
    });
    // A handshake: the system accepts the connection, and nothing answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/a", listener.local_addr().unwrap());
    let mut socket = None;
    check_cancel(open_later(&url), Phase::Opening, || socket = listener.accept().ok());
    drop(socket);
}

#[test]
fn what_was_opened_in_the_background_plays_as_any_other() {
    let origin = with_silent("/ts.m3u8");
    let mut hls = open_later(&origin.url("/levels.m3u8"));
    let handle = hls.handle();
    assert_eq!((handle.phase(), handle.kind(), handle.levels().len()), (Phase::Opening, HlsKind::Vod, 0));
    assert_eq!(handle.seek(Duration::ZERO).unwrap_err().kind(), ErrorKind::OutOfWindow);
    handle.interrupt();
    assert_eq!(hls.next_section().map(drop).unwrap_err().kind(), ErrorKind::Interrupted);
    handle.resume();
    let player = thread::spawn(move || (play(&mut hls), hls));
    origin.wait_until("the playlist", |log| log.requests.iter().any(|request| request.path == "/ts.m3u8"));
    origin.release();
    let (played, hls) = in_time("the presentation", move || player.join().unwrap());
    assert_eq!(played, [(Discontinuity::Start, (0..3 * FRAMES).collect())]);
    assert_eq!((handle.phase(), handle.levels().len()), (Phase::Ended, 1));
    handle.seek(Duration::ZERO).unwrap();
    drop(hls);
    assert_eq!(handle.phase(), Phase::Closed);
}

#[test]
fn a_failed_opening_is_the_error_of_each_call() {
    let origin = Origin::start(|_| Answer::status(404));
    let mut hls = open_later(&origin.url("/a"));
    let handle = hls.handle();
    for _ in 0..2 {
        let error = hls.next_section().map(drop).unwrap_err();
        assert_eq!((error.status(), error.url().is_some()), (Some(404), true));
    }
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(404)));
    assert_eq!(handle.progress().stream.last_error.unwrap().status(), Some(404));
    assert_eq!(handle.seek(Duration::ZERO).unwrap_err().status(), Some(404));
    assert_eq!(hls.into_source().map(Stream::new).map(drop).unwrap_err().status(), Some(404));
    assert_eq!((handle.phase(), origin.log().requests.len()), (Phase::Closed, 1));
}

#[test]
fn a_drop_and_the_end_of_the_downloader_end_an_opening() {
    let origin = with_silent("/levels.m3u8");
    for stops in [false, true] {
        let downloader = downloader();
        let mut hls = downloader.open_hls_later(&origin.url("/levels.m3u8"), HlsConfig::new()).unwrap();
        let handle = hls.handle();
        if stops {
            downloader.stop();
            let error = in_time("the end", move || hls.next_section().map(drop).unwrap_err());
            assert_eq!(error.kind(), ErrorKind::Cancelled(CancelReason::Shutdown));
        } else {
            in_time("the drop", move || drop(hls));
        }
        assert_eq!(handle.phase(), Phase::Closed);
    }
}

#[test]
fn an_opening_without_an_answer_fails_by_the_read_timeout() {
    let origin = with_silent("/ts.m3u8");
    let config = HlsConfig::new().read_timeout(Some(Duration::from_millis(300)));
    let mut hls = downloader().open_hls_later(&origin.url("/levels.m3u8"), config).unwrap();
    let handle = hls.handle();
    let mut watch = handle.watch(Duration::from_secs(3600));
    for _ in 0..2 {
        let (result, back) = in_time("the limit", move || (hls.next_section().map(drop), hls));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        hls = back;
    }
    assert_eq!((handle.phase(), handle.last_error().unwrap().kind()), (Phase::Failed, ErrorKind::TimedOut));
    assert_eq!(watch.next().map(|progress| progress.stream.phase), Some(Phase::Failed), "it is not closed");
    drop(hls);
    assert_eq!(watch.last().map(|progress| progress.stream.phase), Some(Phase::Closed));
}

#[test]
fn what_is_retried_is_shown_while_it_is_being_opened() {
    let site = site(3).with("/levels.m3u8", LEVELS);
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let origin = Origin::start(move |request| match down.load(Ordering::Acquire) {
        true => Answer::status(503),
        false => site.answer(request),
    });
    let mut config = DownloaderConfig::default();
    config.max_retries = 100;
    let downloader = Downloader::new(config).unwrap();
    let mut hls = downloader.open_hls_later(&origin.url("/levels.m3u8"), HlsConfig::new()).unwrap();
    let handle = hls.handle();
    support::poll_until("the error", || handle.last_error().is_some());
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Opening, Some(503)));
    assert_eq!(handle.progress().stream.last_error.unwrap().status(), Some(503));
    is_down.store(false, Ordering::Release);
    let hls = in_time("the opening", move || {
        hls.next_section().unwrap();
        hls
    });
    assert!(handle.last_error().is_none());
    drop(hls);
}

#[test]
fn what_is_chosen_while_it_is_being_opened_counts() {
    let levels = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\n/ts.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=128000,CODECS=\"mp4a.40.2\"\n/aac.m3u8\n";
    let site = site(3).with("/two.m3u8", levels);
    let origin = Origin::start(move |request| match &*request.path {
        "/two.m3u8" => site.answer(request).latency_until_released(),
        _ => site.answer(request),
    });
    let config = HlsConfig::new().quality(Quality::Fixed(0));
    let mut hls = downloader().open_hls_later(&origin.url("/two.m3u8"), config).unwrap();
    let handle = hls.handle();
    handle.set_quality(Quality::Fixed(0));
    handle.set_quality(Quality::Fixed(1));
    hls.set_priority(Priority::Low);
    origin.release();
    in_time("the presentation", move || play(&mut hls));
    assert_eq!(handle.playing_level(), 1);
    let requested = |path: &str| origin.log().requests.iter().any(|request| request.path.contains(path));
    assert!(requested("/0.aac") && !requested("ts"), "{:?}", origin.log());
}
