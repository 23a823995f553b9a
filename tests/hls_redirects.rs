//! Redirects of everything that HLS requests: where relative URIs lead then, chains, loops, and what may not be followed.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use presentation::{FRAMES, Site, downloader, extinf, open, play, site, ts, vod};
use support::{Answer, Content, Origin};
use windway::hls::{Discontinuity, HlsConfig, Quality};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind};

fn text(text: &str) -> Answer {
    Answer::whole(&Content::bytes(text.as_bytes().to_vec()))
}

fn all_of(count: u64) -> [(Discontinuity, Vec<u64>); 1] {
    [(Discontinuity::Start, (0..count * FRAMES).collect())]
}

/// Redirects every path three times: within the origin, to another origin, and there once more, into another folder.
fn chained(site: Site) -> (Origin, Origin) {
    let far = Origin::start(move |request| match request.path.strip_prefix("/first/") {
        Some(path) => Answer::redirect(308, &format!("../second/{path}")),
        None => {
            let path = request.path.strip_prefix("/second").unwrap();
            let plain = support::Request { path: path.to_owned(), ..request.clone() };
            site.answer(&plain)
        }
    });
    let to = far.url("/first");
    let near = Origin::start(move |request| match request.path.strip_prefix("/again") {
        Some(path) => Answer::redirect(307, &format!("{to}{path}")),
        None => Answer::redirect(301, &format!("/again{}", request.path)),
    });
    (near, far)
}

#[test]
fn a_chain_of_redirects_is_followed_for_every_kind_and_relative_uris_follow_its_end() {
    let levels = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmp4.m3u8\n";
    for path in ["/ts.m3u8", "/mp4.m3u8", "/ranges.m3u8", "/all.m3u8"] {
        let (near, far) = chained(site(3).with("/all.m3u8", levels));
        assert_eq!(play(&mut open(&near, path, |_| ())), all_of(3), "{path}");
        let own = near.log().requests;
        assert_eq!(own.len(), 2, "the rest is relative to where the playlist came from: {own:?}");
        assert!(far.log().requests.iter().filter(|request| request.path.starts_with("/first/")).count() == 1);
    }
}

#[test]
fn segments_that_are_redirected_one_by_one_are_played() {
    let (near, _far) = chained(site(3));
    let list: String = (0..3).map(|index| extinf(&near.url(&format!("/{index}.ts")))).collect();
    let map = format!("#EXT-X-MAP:URI=\"{}\"\n", near.url("/init.mp4"));
    let mp4: String = (0..3).map(|index| extinf(&near.url(&format!("/{index}.m4s")))).collect();
    let lists = Site::default().with("/ts", vod(&list)).with("/mp4", vod(&format!("{map}{mp4}"))).serve();
    for path in ["/ts", "/mp4"] {
        assert_eq!(play(&mut open(&lists, path, |_| ())), all_of(3), "{path}");
    }
}

#[test]
fn a_redirect_that_loops_is_a_failure_of_what_it_is_for() {
    let levels = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nts.m3u8\n";
    let encrypted = vod(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"loop\"\n{}", extinf("0.ts")));
    let without_init = vod(&format!("#EXT-X-MAP:URI=\"loop\"\n{}", extinf("0.m4s")));
    let lines: String = ["0.ts", "loop", "2.ts"].map(extinf).concat();
    let site =
        site(3).with("/all.m3u8", levels).with("/key.m3u8", encrypted).with("/init.m3u8", without_init);
    let site = site.with("/segment.m3u8", vod(&lines));
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/loop" => Answer::redirect(302, "/pool"),
        "/pool" => Answer::redirect(302, "/loop"),
        "/low.m3u8" => Answer::redirect(302, "/low.m3u8"),
        _ => site.answer(request),
    });
    // Another level is played.
    let mut hls = open(&origin, "/all.m3u8", |config| config.quality = Quality::Fixed(0));
    assert_eq!(play(&mut hls), all_of(3));
    let frames: Vec<u64> =
        play(&mut open(&origin, "/segment.m3u8", |_| ())).into_iter().flat_map(|section| section.1).collect();
    assert!(frames.iter().copied().eq((0..FRAMES).chain(2 * FRAMES..3 * FRAMES)), "one segment is skipped");
    for path in ["/loop", "/key.m3u8", "/init.m3u8"] {
        let before = origin.log().requests.len();
        assert_eq!(refusal_at_once(&downloader(), &origin.url(path)).kind(), ErrorKind::Redirect, "{path}");
        assert!(origin.log().requests.len() - before < 60, "{path}");
    }
}

/// The error with which playing ends. Nothing may be played before.
fn refusal_at_once(downloader: &Downloader, url: &str) -> Error {
    let opened = downloader.open_hls(url, HlsConfig::default());
    opened.and_then(|mut hls| hls.next_section().map(drop)).expect_err(url)
}

/// A live playlist that each request finds in another folder.
#[test]
fn a_redirect_that_changes_with_each_reload_changes_where_relative_uris_lead() {
    let turn = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |request| {
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["live.m3u8"] => {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                Answer::redirect(302, &format!("/at{turn}/list.m3u8"))
            }
            [folder, "list.m3u8"] => {
                let first = folder[2..].parse::<usize>().unwrap().min(2);
                let lines: String = (first..first + 4).map(|index| extinf(&format!("{index}.ts"))).collect();
                let end = if first == 2 { "#EXT-X-ENDLIST\n" } else { "" };
                text(&format!(
                    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n{lines}{end}"
                ))
            }
            [folder, name] => {
                // Each folder has the segments of its playlist only.
                let first = folder[2..].parse::<u64>().unwrap().min(2);
                let index = name.strip_suffix(".ts").unwrap().parse::<u64>().unwrap();
                if (first..first + 4).contains(&index) {
                    Answer::whole(&Content::bytes(ts(index)))
                } else {
                    Answer::status(404)
                }
            }
            _ => Answer::status(404),
        }
    });
    let mut hls = open(&origin, "/live.m3u8", |config| config.start = Some(std::time::Duration::ZERO));
    let frames: Vec<u64> = play(&mut hls).into_iter().flat_map(|section| section.1).collect();
    let first = frames[0];
    assert!(frames.iter().copied().eq(first..6 * FRAMES), "each frame once, from {first} on");
    let misses = origin.log().requests.iter().filter(|request| request.path.contains("/live/")).count();
    assert_eq!(misses, 0);
}

#[test]
fn a_redirect_to_a_target_that_has_expired_is_asked_for_again() {
    for status in [401, 403, 404, 410] {
        let own = site(4);
        let origin = Origin::start(move |request| match request.path.as_str() {
            "/ts.m3u8" => own.answer(request),
            path if path.starts_with("/new") => {
                let plain = support::Request { path: path[4..].to_owned(), ..request.clone() };
                own.answer(&plain)
            }
            path if path.starts_with("/old") => Answer::status(status),
            path if request.again == 0 => Answer::redirect(302, &format!("/old{path}")),
            path => Answer::redirect(302, &format!("/new{path}")),
        });
        assert_eq!(play(&mut open(&origin, "/ts.m3u8", |_| ())), all_of(4), "{status}");
    }
}

#[test]
fn https_is_not_left_for_http_unless_that_is_allowed() {
    let plain = site(3).serve();
    let to = plain.url("");
    let levels = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmoved.m3u8\n";
    let encrypted = vod(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"moved\"\n{}", extinf("0.ts")));
    let init = vod(&format!("#EXT-X-MAP:URI=\"init.mp4\"\n{}", extinf("0.m4s")));
    let segments: String = (0..3).map(|index| extinf(&format!("{index}.ts"))).collect();
    let lists = Site::default().with("/all.m3u8", levels).with("/key.m3u8", encrypted);
    let lists = lists.with("/init.m3u8", init).with("/segments.m3u8", vod(&segments));
    let secure = Origin::start_tls(move |request| match request.path.as_str() {
        "/moved.m3u8" | "/first.m3u8" => Answer::redirect(302, &format!("{to}/ts.m3u8")),
        path if lists.0.contains_key(path) => lists.answer(request),
        path => Answer::redirect(302, &format!("{to}{path}")),
    });
    let mut config = DownloaderConfig::default();
    config.max_retries = 0;
    config.client.extra_roots.push(secure.root_pem());
    let downloader = Downloader::new(config).unwrap();
    for path in ["/first.m3u8", "/all.m3u8", "/key.m3u8", "/init.m3u8", "/segments.m3u8"] {
        let kind = refusal_at_once(&downloader, &secure.url(path)).kind();
        assert_eq!(kind, ErrorKind::Forbidden, "{path}");
        assert!(plain.log().requests.is_empty(), "{path}: nothing is requested over http");
    }
    for path in ["/first.m3u8", "/all.m3u8", "/segments.m3u8"] {
        let mut config = HlsConfig::default();
        config.allow_http = true;
        let mut hls = downloader.open_hls(&secure.url(path), config).unwrap();
        assert_eq!(play(&mut hls), all_of(3), "{path}");
    }
}

#[test]
fn redirects_to_other_schemes_and_without_a_target_are_typed_errors() {
    for target in ["file:///etc/passwd", "ftp://host/a", "data:,x", "", "http://", "//"] {
        let origin = Origin::start(move |_| Answer::redirect(302, target));
        let error = refusal_at_once(&downloader(), &origin.url("/list.m3u8"));
        let kind = error.kind();
        assert!(
            matches!(
                kind,
                ErrorKind::Redirect
                    | ErrorKind::UnsupportedScheme
                    | ErrorKind::InvalidUrl
                    | ErrorKind::Forbidden
            ),
            "{target:?}: {error}"
        );
        assert!(origin.log().requests.len() < 20, "{target:?}");
    }
}
