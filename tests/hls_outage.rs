//! A server that can't be reached for a while: readers wait until the read timeout, and then audio goes on where it stopped.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use presentation::{FRAMES, Site, extinf, open, play, site, ts};
use support::{Answer, Origin, poll_until};
use windway::hls::{Discontinuity, HlsConfig, HlsHandle};
use windway::stream::Phase;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind};

/// Serves `answer`, but closes each connection without an answer while the flag is set. Counts what it has not answered.
struct Failing {
    origin: Origin,
    is_out: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
}

impl Failing {
    fn start(answer: impl Fn(&support::Request) -> Answer + Send + Sync + 'static) -> Self {
        let (is_out, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (flag, count) = (Arc::clone(&is_out), Arc::clone(&failed));
        let origin = Origin::start(move |request| {
            if flag.load(Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
                return answer(request).close_in_head(0);
            }
            answer(request)
        });
        Self { origin, is_out, failed }
    }

    fn set_out(&self, is_out: bool) {
        self.is_out.store(is_out, Ordering::Relaxed);
    }

    /// Waits until so many requests have failed, and the handle shows why.
    fn wait_for_failures(&self, count: usize, handle: &HlsHandle) {
        poll_until("failed requests", || self.failed.load(Ordering::Relaxed) >= count);
        poll_until("the error", || {
            let is_retryable = handle.last_error().is_some_and(|error| error.is_retryable());
            is_retryable && handle.phase() == Phase::Retrying
        });
    }
}

#[test]
fn a_read_waits_for_a_server_that_is_out_and_no_frame_is_lost() {
    let site = site(8);
    let failing = Failing::start(move |request| site.answer(request));
    let mut hls = open(&failing.origin, "/ts.m3u8", |config| config.buffer = Duration::from_secs(3));
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; 1]).unwrap();
    failing.set_out(true);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut rest = Vec::new();
            section.read_to_end(&mut rest).map(|_| rest)
        });
        // Several pauses, each after two attempts of the downloader.
        failing.wait_for_failures(8, &handle);
        failing.set_out(false);
        let rest = reader.join().unwrap().expect("the server is back");
        let frames: Vec<u8> = (0..8).flat_map(presentation::segment_frames).flatten().collect();
        assert!(rest == frames[1..]);
    });
    assert!(handle.last_error().is_none());
}

/// The downloader retries a request without an end, and so the load itself never fails.
#[test]
fn a_live_playlist_that_can_not_be_loaded_again_is_shown_while_what_is_buffered_plays() {
    let list: String = (0..3).map(|index| extinf(&format!("{index}.ts"))).collect();
    let live = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n{list}");
    let site = (0..3).fold(Site::default().with("/live.m3u8", live), |site, index| {
        site.with(&format!("/{index}.ts"), ts(index))
    });
    let failing = Failing::start(move |request| site.answer(request));
    let mut config = DownloaderConfig::default();
    config.max_retries = u32::MAX;
    let downloader = Downloader::new(config).unwrap();
    let config = HlsConfig::new().start(Duration::ZERO);
    let mut hls = downloader.open_hls(&failing.origin.url("/live.m3u8"), config).unwrap();
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    poll_until("all segments", || handle.buffered().as_secs_f64() > 2.9 * presentation::SEGMENT);
    failing.set_out(true);
    failing.wait_for_failures(1, &handle);
    section.read_exact(&mut [0; 5000]).unwrap();
    let progress = handle.progress();
    assert!(progress.stream.last_error.is_some() && progress.stream.phase == Phase::Retrying);
    failing.set_out(false);
    poll_until("the playlist", || handle.last_error().is_none() && handle.phase() != Phase::Retrying);
}

#[test]
fn a_read_in_an_outage_ends_at_the_read_timeout_with_its_cause_and_the_next_one_goes_on() {
    let site = site(8);
    let failing = Failing::start(move |request| site.answer(request));
    let mut hls = open(&failing.origin, "/ts.m3u8", |config| {
        config.buffer = Duration::from_secs(3);
        config.read_timeout = Some(Duration::from_secs(1));
    });
    let mut section = hls.next_section().unwrap().unwrap();
    failing.set_out(true);
    let mut bytes = Vec::new();
    let error = Error::from(section.read_to_end(&mut bytes).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert!(error.cause().is_some_and(Error::is_retryable), "{error:?}");
    failing.set_out(false);
    while let Err(error) = section.read_to_end(&mut bytes) {
        assert_eq!(Error::from(error).kind(), ErrorKind::TimedOut, "a busy machine");
    }
    assert_eq!(presentation::numbers(&bytes), (0..8 * FRAMES).collect::<Vec<_>>());
}

#[test]
fn an_error_that_is_permanent_ends_a_read_at_once() {
    let levels = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0.m3u8\n";
    let lines: String = (0..2).map(|index| presentation::extinf(&format!("{index}.ts"))).collect();
    let origin = Site::default().with("/all.m3u8", levels).with("/0.m3u8", presentation::vod(&lines)).serve();
    let mut hls = open(&origin, "/all.m3u8", |config| config.read_timeout = None);
    assert_eq!(hls.next_section().unwrap_err().kind(), ErrorKind::Status(404));
}

#[test]
fn a_live_stream_goes_on_after_an_outage_that_is_longer_than_its_playlist_may_stay_as_it_is() {
    let requests = AtomicUsize::new(0);
    let failing = Failing::start(move |request| {
        if request.path != "/live.m3u8" {
            let index = request.path.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            return Answer::whole(&support::Content::bytes(ts(index)));
        }
        let end = (3 + requests.fetch_add(1, Ordering::Relaxed)).min(12);
        let lines: String = (0..end).map(|index| format!("#EXTINF:0.2,\n{index}.ts\n")).collect();
        let ended = if end == 12 { "#EXT-X-ENDLIST\n" } else { "" };
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:0\n{lines}{ended}");
        Answer::whole(&support::Content::bytes(text.into_bytes()))
    });
    let mut hls = open(&failing.origin, "/live.m3u8", |_| ());
    let handle = hls.handle();
    failing.set_out(true);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || play(&mut hls));
        failing.wait_for_failures(10, &handle);
        failing.set_out(false);
        let played = reader.join().unwrap();
        assert_eq!(played.len(), 1, "{played:?}");
        let (reason, frames) = &played[0];
        assert_eq!(*reason, Discontinuity::Start);
        assert_eq!(frames.last(), Some(&(12 * FRAMES - 1)));
        assert!(frames.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{frames:?}");
    });
}

#[test]
fn each_attempt_in_an_outage_takes_one_connection_and_what_waits_goes_on() {
    let site = site(8);
    let failing = Failing::start(move |request| site.answer(request));
    let mut hls = open(&failing.origin, "/ts.m3u8", |config| config.buffer = Duration::from_secs(3));
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; 1]).unwrap();
    failing.set_out(true);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut rest = Vec::new();
            section.read_to_end(&mut rest).map(|_| rest)
        });
        failing.wait_for_failures(4, &handle);
        let counts = || (failing.origin.log().connections, failing.failed.load(Ordering::Relaxed));
        let before = counts();
        failing.wait_for_failures(before.1 + 4, &handle);
        let after = counts();
        // One may be open that has not failed yet.
        assert!(
            after.0 - before.0 <= after.1 - before.1 + 2,
            "connections and failures: {before:?}, {after:?}"
        );
        failing.set_out(false);
        assert!(reader.join().unwrap().is_ok());
    });
}
