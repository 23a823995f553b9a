//! Calls of a handle that can't do what they are asked for.
#![cfg(feature = "hls")]

#[path = "support/mux.rs"]
mod mux;
#[path = "support/presentation.rs"]
mod presentation;
mod support;

use std::time::Duration;

use presentation::{FRAMES, downloader, open, play, site};
use windway::ErrorKind;
use windway::downloader::CancelReason;
use windway::hls::{Discontinuity, HlsConfig};
use windway::stream::Phase;

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
