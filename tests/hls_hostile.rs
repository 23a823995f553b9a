//! HLS against servers and playlists that mean harm: no hang, no panic, no memory without a limit.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use presentation::{FRAMES, Site, downloader, extinf, numbers, open, play, site, ts, vod};
use support::{Answer, Content, Origin};
use windway::ErrorKind;
use windway::hls::{HlsConfig, Playlist};

fn text(text: &str) -> Answer {
    Answer::whole(&Content::bytes(text.as_bytes().to_vec()))
}

fn refused(origin: &Origin, path: &str) -> ErrorKind {
    let mut config = HlsConfig::default();
    config.read_timeout = Some(Duration::from_secs(60));
    match downloader().open_hls(&origin.url(path), config) {
        Err(error) => error.kind(),
        Ok(mut hls) => loop {
            match hls.next_section() {
                Err(error) => break error.kind(),
                Ok(Some(_)) => {}
                Ok(None) => panic!("{path} is played"),
            }
        },
    }
}

#[test]
fn a_playlist_of_100_mb_is_refused() {
    let origin = Origin::serving(Content::pattern(100 << 20));
    assert_eq!(refused(&origin, "/list.m3u8"), ErrorKind::TooLarge);
}

#[test]
fn a_playlist_of_10_million_lines_is_refused() {
    let origin = Site::default().with("/list.m3u8", format!("#EXTM3U{}", "\n".repeat(10_000_000))).serve();
    assert_eq!(refused(&origin, "/list.m3u8"), ErrorKind::InvalidPlaylist);
}

#[test]
fn playlists_that_lead_to_themselves_end() {
    let master =
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nloop.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nmaster.m3u8\n";
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => text(master),
        _ => Answer::redirect(302, "/loop.m3u8"),
    });
    let kind = refused(&origin, "/master.m3u8");
    assert!(matches!(kind, ErrorKind::Redirect | ErrorKind::InvalidPlaylist), "{kind:?}");
    assert!(origin.log().requests.len() < 20);
}

#[test]
fn huge_numbers_are_played_or_refused() {
    let huge = u64::MAX;
    let live = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:{huge}\n#EXT-X-PART-INF:PART-TARGET={huge}\n\
         #EXT-X-SERVER-CONTROL:HOLD-BACK={huge},PART-HOLD-BACK={huge},CAN-SKIP-UNTIL={huge},CAN-BLOCK-RELOAD=YES\n\
         #EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-DISCONTINUITY-SEQUENCE:{huge}\n#EXT-X-START:TIME-OFFSET=-{huge}\n\
         #EXTINF:{huge},\n0.ts\n#EXT-X-PROGRAM-DATE-TIME:9999-12-31T23:59:59Z\n#EXTINF:{huge}.999999999,\n1.ts\n\
         #EXT-X-PART:DURATION={huge},URI=\"2.ts\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"2.ts\",BYTERANGE-START={huge}\n",
        huge - 3
    );
    let origin = site(3).with("/live.m3u8", live).serve();
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let handle = hls.handle();
    let section = hls.next_section();
    assert!(section.is_ok(), "{section:?}");
    let (_, _, _) = (handle.duration(), handle.latency(), handle.seekable());
    assert!(handle.seek(Duration::MAX).is_err());
    // A seek may succeed or not; it must not panic.
    let _ = handle.seek(handle.seekable().end);
    let _ = hls.next_section();
    for line in ["#EXT-X-BYTERANGE:18446744073709551615@1", "#EXT-X-MEDIA-SEQUENCE:18446744073709551615"] {
        let list = vod(&format!("{line}\n{}", extinf("0.ts")));
        let origin = site(1).with("/list.m3u8", list).serve();
        assert_eq!(refused(&origin, "/list.m3u8"), ErrorKind::InvalidPlaylist, "{line}");
    }
}

#[test]
fn strange_tags_are_ignored_or_refused() {
    let long = "A".repeat(1 << 20);
    let quotes = "\"".repeat(10_001);
    let braces = "{$".repeat(10_000);
    for tag in [
        long.as_str(),
        "#EXT-X-",
        "#EXTINF",
        "#EXT-X-KEY:",
        &quotes,
        &braces,
        "#EXTM3U",
        "#\0\u{1}",
        "\u{feff}#EXTM3U",
    ] {
        let list = vod(&format!("#{tag}\n{}", extinf("0.ts")));
        // Either is well; this must not panic.
        let _ = Playlist::parse(list.as_bytes(), "http://host/l");
        let _ = Playlist::parse(format!("#EXTM3U\n#EXT-X-MEDIA:{tag}\n").as_bytes(), "http://host/l");
    }
}

#[test]
fn a_playlist_of_a_million_empty_segments_ends() {
    let mut text = String::from("#EXTM3U\n#EXT-X-TARGETDURATION:1\n");
    (0..300_000).for_each(|_| text.push_str("#EXT-X-GAP\n#EXTINF:0,\na\n"));
    text.push_str(&extinf("0.ts"));
    text.push_str("#EXT-X-ENDLIST\n");
    let origin = site(1).with("/list.m3u8", text).serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    let sections = play(&mut hls);
    assert_eq!(sections.last().unwrap().1, (0..FRAMES).collect::<Vec<_>>());
}

#[test]
fn a_segment_without_an_end_is_given_up_and_memory_is_limited() {
    let frames = presentation::segment_frames(0).concat();
    let endless = frames.repeat((40 << 20) / frames.len());
    let own = site(3);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/1.ts" => Answer::whole(&Content::bytes(endless.clone())),
        _ => own.answer(request),
    });
    let mut hls = open(&origin, "/ts.m3u8", |config| config.buffer_bytes = 1 << 20);
    let sections = play(&mut hls);
    assert!(sections[0].1.starts_with(&(0..FRAMES).collect::<Vec<_>>()));
    let last = sections.last().unwrap();
    assert!(
        last.1.ends_with(&(2 * FRAMES..3 * FRAMES).collect::<Vec<_>>()),
        "the segment behind it is played"
    );
}

#[test]
fn segments_that_are_something_else_are_skipped() {
    let bodies: [Vec<u8>; 6] = [
        Vec::new(),
        vec![0x47; 188 * 1000],
        vec![0; 100_000],
        b"<html>not found</html>".to_vec(),
        // A box that is longer than any file, and one that announces a billion samples.
        [&u32::MAX.to_be_bytes()[..], b"moof", &[0; 1000]].concat(),
        [&ts(0)[..1000], &[0xff; 5000]].concat(),
    ];
    for (index, body) in bodies.into_iter().enumerate() {
        let origin = site(3).with("/1.ts", body).serve();
        let mut hls = open(&origin, "/ts.m3u8", |_| ());
        let frames: Vec<u64> = play(&mut hls).into_iter().flat_map(|section| section.1).collect();
        assert!(frames.starts_with(&(0..FRAMES).collect::<Vec<_>>()), "{index}");
        assert!(frames.ends_with(&(2 * FRAMES..3 * FRAMES).collect::<Vec<_>>()), "{index}");
        assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{index}");
    }
}

#[test]
fn a_server_that_stalls_in_a_segment_is_left_for_another() {
    let good = site(4).serve();
    let own = site(4);
    let other = good.url("/ts.m3u8");
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => text(&format!(
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{other}\n"
        )),
        "/2.ts" => own.answer(request).stall_after(1000),
        _ => own.answer(request),
    });
    let mut config = windway::DownloaderConfig::default();
    config.max_retries = 0;
    config.client.silence_timeout = Duration::from_millis(300);
    let downloader = windway::Downloader::new(config).unwrap();
    let mut hls = downloader.open_hls(&origin.url("/master.m3u8"), HlsConfig::default()).unwrap();
    let mut bytes = Vec::new();
    while let Some(mut section) = hls.next_section().unwrap() {
        bytes.extend(presentation::all(&mut section));
    }
    assert_eq!(numbers(&bytes), (0..4 * FRAMES).collect::<Vec<_>>());
}

#[test]
fn a_live_playlist_that_always_starts_again_is_not_loaded_without_pause() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let own = site(3);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/live.m3u8" => {
            let turn = counted.fetch_add(1, Ordering::Relaxed);
            let lines: String = (0..3).map(|index| extinf(&format!("{index}.ts?{turn}"))).collect();
            text(&format!(
                "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:{}\n{lines}",
                1000 - turn * 10
            ))
        }
        _ => own.answer(request),
    });
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    assert!(hls.next_section().unwrap().is_some());
    assert!(requests.load(Ordering::Relaxed) <= 2);
}

#[test]
fn keys_of_a_wrong_length_are_typed_errors() {
    for len in [0, 15, 17, 10_000] {
        let lines: String = (0..8).map(|index| extinf(&format!("{index}.ts"))).collect();
        let list = vod(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n{lines}"));
        let origin = site(8).with("/list.m3u8", list).with("/key", vec![7; len]).serve();
        let kind = refused(&origin, "/list.m3u8");
        assert!(matches!(kind, ErrorKind::Unsupported | ErrorKind::InvalidPlaylist), "{len}: {kind:?}");
        assert!(origin.log().requests.len() < 20, "{len}");
    }
}

#[test]
fn a_multivariant_playlist_without_anything_to_play_is_a_typed_error() {
    let other = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"avc1.66.30,ac-4\"\nts.m3u8\n";
    let nothing = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"x\",URI=\"ts.m3u8\"\n";
    for list in [other, nothing] {
        let origin = site(2).with("/all.m3u8", list).serve();
        let kind = refused(&origin, "/all.m3u8");
        assert!(matches!(kind, ErrorKind::Unsupported | ErrorKind::InvalidPlaylist), "{kind:?}");
    }
    // A group that does not exist: the variant has the audio itself. Codecs of the video only: so it may have.
    for attributes in ["AUDIO=\"none\"", "CODECS=\"avc1.66.30\""] {
        let list = format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,{attributes}\nts.m3u8\n");
        let origin = site(2).with("/all.m3u8", list).serve();
        let sections = play(&mut open(&origin, "/all.m3u8", |_| ()));
        assert_eq!(sections[0].1, (0..2 * FRAMES).collect::<Vec<_>>(), "{attributes}");
    }
}

#[test]
fn segments_that_are_said_to_have_no_length_are_played() {
    for duration in [":0,", ":0.000,", ":,", ""] {
        let lines: String = (0..3).map(|index| format!("#EXTINF{duration}\n{index}.ts\n")).collect();
        let list = format!("#EXTM3U\n#EXT-X-TARGETDURATION:0\n{lines}#EXT-X-ENDLIST\n");
        let origin = site(3).with("/list.m3u8", list).serve();
        let sections = play(&mut open(&origin, "/list.m3u8", |_| ()));
        let frames: Vec<u64> = sections.into_iter().flat_map(|section| section.1).collect();
        assert!(frames.iter().copied().eq(0..3 * FRAMES), "{duration}");
    }
}

#[test]
fn a_start_outside_of_the_presentation_is_its_beginning_or_its_end() {
    let lines: String = (0..3).map(|index| extinf(&format!("{index}.ts"))).collect();
    for (offset, first) in [("-3.9", 1), ("-1000000", 0), ("-0", 2), ("0", 0), ("2.1", 1), ("1000000", 2)] {
        let list = vod(&format!("#EXT-X-START:TIME-OFFSET={offset}\n{lines}"));
        let origin = site(3).with("/list.m3u8", list).serve();
        let sections = play(&mut open(&origin, "/list.m3u8", |_| ()));
        let frames: Vec<u64> = sections.into_iter().flat_map(|section| section.1).collect();
        assert!(frames.iter().copied().eq(first * FRAMES..3 * FRAMES), "{offset}");
    }
}

#[test]
fn a_rendition_whose_playlist_is_missing_does_not_end_a_presentation_with_muxed_audio() {
    let missing = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"en\",DEFAULT=YES,URI=\"missing.m3u8\"\n";
    let muxed = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"b\",NAME=\"en\",DEFAULT=YES\n";
    let with_group = "#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO=\"a\"\nts.m3u8\n";
    let without = "#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"b\"\nts.m3u8\n";
    for lines in [[missing, with_group, "", ""], [missing, muxed, with_group, without]] {
        let list = format!("#EXTM3U\n{}", lines.concat());
        let origin = site(3).with("/all.m3u8", list).serve();
        let mut config = HlsConfig::default();
        config.read_timeout = Some(Duration::from_secs(60));
        let opened = downloader().open_hls(&origin.url("/all.m3u8"), config);
        let mut hls = opened.unwrap();
        assert_eq!(play(&mut hls)[0].1, (0..3 * FRAMES).collect::<Vec<_>>());
    }
}

#[test]
fn another_rendition_is_opened_in_place_of_one_that_is_refused_in_the_same_language_first() {
    let other = [
        ("Deutsch", "de", "ts.m3u8", "NO"),
        ("Francais", "fr", "ts.m3u8", "NO"),
        ("English 2", "en", "ts.m3u8", "NO"),
    ];
    for (uri, others, expected) in [
        ("missing.m3u8", &other[..], 3),
        ("ftp://host/refused.m3u8", &other[..], 3),
        ("missing.m3u8", &other[..2], 1),
    ] {
        let mut list = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO=\"a\"\nmissing2.m3u8\n".to_owned();
        let renditions = [("English", "en", uri, "YES")].into_iter().chain(others.iter().copied());
        for (name, language, uri, default) in renditions {
            list += &format!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"{name}\",LANGUAGE=\"{language}\",DEFAULT={default},URI=\"{uri}\"\n"
            );
        }
        let origin = site(3).with("/all.m3u8", list).serve();
        let mut hls = open(&origin, "/all.m3u8", |_| ());
        assert_eq!(hls.handle().rendition(), expected, "{uri}");
        assert_eq!(play(&mut hls)[0].1, (0..3 * FRAMES).collect::<Vec<_>>());
    }
}
