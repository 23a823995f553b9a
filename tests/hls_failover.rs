//! HLS where something is broken: playing goes on while any server, variant or URL has the audio.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use presentation::{FRAMES, Site, all, downloader, extinf, numbers, open, play, site, ts, vod};
use support::mux;
use support::{Answer, Content, Origin};
use windway::ErrorKind;
use windway::hls::{Discontinuity, HlsConfig, HlsEvent, Hook, Quality, RequestHook, RequestKind};

fn lines(count: u64) -> String {
    (0..count).map(|index| extinf(&format!("{index}.ts"))).collect()
}

fn text(text: &str) -> Answer {
    Answer::whole(&Content::bytes(text.as_bytes().to_vec()))
}

fn everything(count: u64) -> [(Discontinuity, Vec<u64>); 1] {
    [(Discontinuity::Start, (0..count * FRAMES).collect())]
}

fn events(events: &windway::event::Subscriber<HlsEvent>) -> Vec<HlsEvent> {
    std::iter::from_fn(|| events.try_recv()).collect()
}

#[test]
fn a_server_that_fails_is_replaced_by_a_redundant_one() {
    let bad_answers: [fn() -> Answer; 3] =
        [|| Answer::status(503), || Answer::status(200).close_in_head(5), || Answer::status(404)];
    for bad in bad_answers {
        let good = site(10).serve();
        let own = site(10);
        let other = good.url("/ts.m3u8");
        let origin = Origin::start(move |request| match request.path.as_str() {
            "/master.m3u8" => text(&format!(
                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{other}\n"
            )),
            "/3.ts" | "/4.ts" => bad(),
            _ => own.answer(request),
        });
        let mut hls = open(&origin, "/master.m3u8", |_| ());
        let handle = hls.handle();
        assert_eq!(handle.levels().len(), 1, "redundant variants are one level");
        let subscriber = handle.subscribe();
        assert_eq!(play(&mut hls), everything(10));
        let is_change = |event: &HlsEvent| matches!(event, HlsEvent::ServerChanged { .. });
        assert_eq!(events(&subscriber).iter().filter(|event| is_change(event)).count(), 1);
        assert!(
            origin.log().requests.iter().all(|request| request.path != "/9.ts"),
            "the server that works is kept"
        );
    }
}

#[test]
fn a_playlist_that_can_not_be_had_is_replaced_by_a_redundant_one() {
    let good = site(3).serve();
    let master = format!(
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nnothing.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{}\n",
        good.url("/ts.m3u8")
    );
    let origin = Site::default().with("/master.m3u8", master).serve();
    let mut hls = open(&origin, "/master.m3u8", |_| ());
    assert_eq!(play(&mut hls), everything(3));
}

#[test]
fn an_opening_tries_the_next_variant_while_the_server_of_the_first_one_is_silent() {
    let own = site(3);
    let lines: String = ["silent", "silent-too", "ts", "silent-as-well"]
        .iter()
        .map(|name| format!("#EXT-X-STREAM-INF:BANDWIDTH=9\n{name}.m3u8\n"))
        .collect();
    let master = format!("#EXTM3U\n{lines}");
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => text(&master),
        "/silent.m3u8" | "/silent-too.m3u8" => text("").latency_until_released(),
        _ => own.answer(request),
    });
    // Shorter than the time after which the client gives up a silent connection.
    let mut hls = open(&origin, "/master.m3u8", |config| config.read_timeout = Some(Duration::from_secs(4)));
    let mut paths: Vec<String> = origin.log().requests.iter().map(|request| request.path.clone()).collect();
    // A silent request may be hedged.
    paths.dedup();
    assert_eq!(paths[..4], ["/master.m3u8", "/silent.m3u8", "/silent-too.m3u8", "/ts.m3u8"]);
    assert_eq!(play(&mut hls), everything(3));
}

#[test]
fn an_opening_fails_once_all_variants_were_silent_for_its_limit() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n0.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9\n1.m3u8\n";
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => text(master),
        _ => text("").latency_until_released(),
    });
    let mut config = HlsConfig::default();
    config.read_timeout = Some(Duration::from_secs(1));
    let error = downloader().open_hls(&origin.url("/master.m3u8"), config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let requests = origin.log().requests;
    assert!(["/0.m3u8", "/1.m3u8"].iter().all(|path| requests.iter().any(|request| request.path == *path)));
}

#[test]
fn s7_content_steering_moves_a_player_to_another_pathway() {
    let second = site(12).serve();
    let own = site(12);
    let other = second.url("/ts.m3u8");
    let (is_asked, asked_for) = (Mutex::new(false), Condvar::new());
    let origin = Origin::start(move |request| match request.path.split('?').next().unwrap_or_default() {
        "/master.m3u8" => text(&format!(
            "#EXTM3U\n#EXT-X-CONTENT-STEERING:SERVER-URI=\"steer?x=1\",PATHWAY-ID=\"A\"\n\
             #EXT-X-STREAM-INF:BANDWIDTH=9,PATHWAY-ID=\"B\"\n{other}\n#EXT-X-STREAM-INF:BANDWIDTH=9,PATHWAY-ID=\"A\"\nts.m3u8\n"
        )),
        "/steer" => {
            *is_asked.lock().unwrap() = true;
            asked_for.notify_all();
            text(r#"{"VERSION":1,"TTL":300,"PATHWAY-PRIORITY":["B","A"]}"#)
        }
        // The rest of this pathway waits for the manifest, which playing does not do.
        path if path.ends_with(".ts") && !matches!(path, "/0.ts" | "/1.ts" | "/2.ts") => {
            drop(asked_for.wait_while(is_asked.lock().unwrap(), |is_asked| !*is_asked).unwrap());
            own.answer(request).latency(Duration::from_millis(100))
        }
        _ => own.answer(request),
    });
    let mut hls = open(&origin, "/master.m3u8", |config| config.buffer = Duration::from_secs(4));
    let subscriber = hls.handle().subscribe();
    assert_eq!(play(&mut hls), everything(12));
    let requests = origin.log().requests;
    let steering: Vec<&str> = requests
        .iter()
        .map(|request| request.path.as_str())
        .filter(|path| path.starts_with("/steer"))
        .collect();
    assert!(steering[0].starts_with("/steer?x=1&_HLS_pathway=%22A%22"), "{steering:?}");
    assert_eq!(steering.len(), 1, "its TTL has not passed");
    assert!(
        second.log().requests.iter().any(|request| request.path == "/11.ts"),
        "the end came from the other pathway"
    );
    assert!(events(&subscriber).iter().any(|event| matches!(event, HlsEvent::ServerChanged { .. })));
}

#[test]
fn s7_2_a_steering_server_that_fails_changes_nothing() {
    for answer in ["<html>", "{\"VERSION\":2}", ""] {
        let own = site(3);
        let origin = Origin::start(move |request| match request.path.split('?').next().unwrap_or_default() {
            "/master.m3u8" => text(
                "#EXTM3U\n#EXT-X-CONTENT-STEERING:SERVER-URI=\"steer\"\n#EXT-X-STREAM-INF:BANDWIDTH=9\nts.m3u8\n",
            ),
            "/steer" if answer.is_empty() => Answer::status(410),
            "/steer" => text(answer),
            _ => own.answer(request),
        });
        let mut hls = open(&origin, "/master.m3u8", |_| ());
        assert_eq!(play(&mut hls), everything(3));
    }
}

#[test]
fn a_server_in_trouble_is_waited_for_and_no_sample_is_lost() {
    let own = site(6);
    let failures = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |request| match request.path.as_str() {
        // Two attempts of the downloader, twice.
        "/2.ts" if failures.fetch_add(1, Ordering::Relaxed) < 4 => Answer::status(500),
        _ => own.answer(request),
    });
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    assert_eq!(play(&mut hls), everything(6));
}

#[test]
fn a_segment_is_skipped_only_if_no_variant_has_it_however_lately_these_failed() {
    // Each segment is bad on one of two servers, in turn.
    let serve = |bad: u64, other: Option<String>| {
        let own = site(8);
        Origin::start(move |request| match (request.path.as_str(), &other) {
            ("/master.m3u8", Some(other)) => text(&format!(
                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{other}\n"
            )),
            (path, _) if (0..8).any(|index| index % 2 == bad && path == format!("/{index}.ts")) => {
                text("<html>sorry</html>")
            }
            _ => own.answer(request),
        })
    };
    let second = serve(1, None);
    let origin = serve(0, Some(second.url("/ts.m3u8")));
    let mut hls = open(&origin, "/master.m3u8", |_| ());
    assert_eq!(play(&mut hls), everything(8));
}

#[test]
fn a_segment_that_is_missing_for_good_costs_one_reload() {
    let mut own = site(6);
    own.0.remove("/2.ts");
    let origin = own.serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    let sections = play(&mut hls);
    assert_eq!(sections.len(), 2, "the rest is played");
    let count = |path: &str| origin.log().requests.iter().filter(|request| request.path == path).count();
    assert_eq!((count("/ts.m3u8"), count("/2.ts")), (2, 2));
}

/// Gives tokens to what asks for them, and one header to keys.
struct Tokens;

impl RequestHook for Tokens {
    fn headers(&self, kind: RequestKind, _: &str) -> Vec<(String, String)> {
        let name = format!("{kind:?}").to_lowercase();
        vec![("x-kind".into(), name)]
    }

    fn fresh_url(&self, _: RequestKind, url: &str, status: u16) -> Option<String> {
        assert_eq!(status, 403);
        Some(format!("{url}?token"))
    }
}

#[test]
fn an_application_gives_headers_by_kind_and_fresh_urls() {
    let own = site(4);
    let origin = Origin::start(move |request| match request.path.split_once('?') {
        None => Answer::status(403),
        Some(_) => own.answer(request),
    });
    let mut hls = open(&origin, "/mp4.m3u8", |config| config.hook = Some(Hook::new(Tokens)));
    assert_eq!(play(&mut hls), everything(4));
    for request in &origin.log().requests {
        let kind = match request.path.split('?').next().unwrap_or_default() {
            "/mp4.m3u8" => "playlist",
            "/init.mp4" => "initializationsection",
            _ => "segment",
        };
        assert_eq!(request.header("x-kind"), Some(kind), "{}", request.path);
    }
}

/// Panics in each method.
struct Broken;

impl RequestHook for Broken {
    fn headers(&self, _: RequestKind, _: &str) -> Vec<(String, String)> {
        panic!("as the test wants")
    }

    fn fresh_url(&self, _: RequestKind, _: &str, _: u16) -> Option<String> {
        panic!("as the test wants")
    }
}

#[test]
fn a_hook_that_panics_is_as_none() {
    let mut own = site(3);
    let gone = AtomicBool::new(true);
    let first = own.0.remove("/0.ts").unwrap();
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/0.ts" if gone.swap(false, Ordering::Relaxed) => Answer::status(403),
        "/0.ts" => Answer::file(request, &first),
        _ => own.answer(request),
    });
    let mut hls = open(&origin, "/ts.m3u8", |config| config.hook = Some(Hook::new(Broken)));
    assert_eq!(play(&mut hls), everything(3));
}

/// A presentation in two languages. The frames of the second one have other numbers.
fn languages(count: u64) -> Site {
    let other: String = (0..count).map(|index| extinf(&format!("de{index}.ts"))).collect();
    let master = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"English\",LANGUAGE=\"en\",DEFAULT=YES,URI=\"ts.m3u8\"\n\
                  #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"Deutsch\",LANGUAGE=\"de\",URI=\"de.m3u8\"\n\
                  #EXT-X-STREAM-INF:BANDWIDTH=9,AUDIO=\"g\"\nvideo.m3u8\n";
    let mut site = site(count).with("/master.m3u8", master).with("/de.m3u8", vod(&other));
    for index in 0..count {
        let frames: Vec<Vec<u8>> = mux::aac_frames(1_000_000 + index * FRAMES, FRAMES)
            .iter()
            .map(|frame| mux::adts(frame, 3))
            .collect();
        let bytes = mux::Ts::new(0x0f).segment(&frames, 900_000 + index * FRAMES * 1920, 1920.0);
        site = site.with(&format!("/de{index}.ts"), bytes);
    }
    site
}

#[test]
fn another_rendition_is_selected_while_playing() {
    let origin = languages(10).serve();
    let mut hls = open(&origin, "/master.m3u8", |_| ());
    let handle = hls.handle();
    let names: Vec<String> = handle.renditions().iter().map(|rendition| rendition.name.to_string()).collect();
    assert_eq!((names, handle.rendition()), (vec!["English".to_owned(), "Deutsch".to_owned()], 0));
    let mut section = hls.next_section().unwrap().unwrap();
    let mut bytes = vec![0; 60_000];
    std::io::Read::read_exact(&mut section, &mut bytes).unwrap();
    let position = handle.position();
    handle.select_rendition(1).unwrap();
    assert_eq!(all(&mut section), b"", "the section of the old rendition ends");
    let mut section = hls.next_section().unwrap().unwrap();
    let info = section.info().clone();
    assert_eq!((info.discontinuity, handle.rendition()), (Discontinuity::Rendition, 1));
    assert_eq!(info.start + info.skip, position);
    let frames = numbers(&all(&mut section));
    assert!(frames[0] >= 1_000_000 && frames.last() == Some(&(1_000_000 + 10 * FRAMES - 1)));
    assert!(frames.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(handle.select_rendition(2).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_rendition_that_can_not_be_had_is_an_error_and_the_old_one_still_plays() {
    let mut site = languages(4);
    site.0.remove("/de.m3u8");
    let origin = site.serve();
    let mut hls = open(&origin, "/master.m3u8", |_| ());
    let handle = hls.handle();
    handle.select_rendition(1).unwrap();
    assert_eq!(hls.next_section().unwrap_err().kind(), ErrorKind::Status(404));
    handle.select_rendition(0).unwrap();
    let mut section = hls.next_section().unwrap().unwrap();
    assert_eq!(numbers(&all(&mut section)), (0..4 * FRAMES).collect::<Vec<_>>());
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn playlists_may_be_compressed_and_segments_may_not() {
    let compressed =
        |bytes: Vec<u8>| Answer::whole(&Content::bytes(bytes)).header("Content-Encoding", "gzip");
    let own = site(4);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => compressed(gzip("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nlist.m3u8\n")),
        "/list.m3u8" => compressed(gzip(&vod(&lines(4)))),
        "/2.ts" => compressed(ts(2)),
        _ => own.answer(request),
    });
    let mut hls = open(&origin, "/master.m3u8", |_| ());
    let subscriber = hls.handle().subscribe();
    assert_eq!(play(&mut hls).len(), 2);
    let skipped = events(&subscriber).into_iter().find_map(|event| match event {
        HlsEvent::Skipped { error, .. } => Some(error.kind()),
        _ => None,
    });
    assert_eq!(skipped, Some(ErrorKind::Encoded));
    for request in &origin.log().requests {
        let wanted = if request.path.ends_with("m3u8") { "gzip" } else { "identity" };
        assert_eq!(request.header("accept-encoding"), Some(wanted), "{}", request.path);
    }
}

#[test]
fn a_compressed_playlist_is_limited_by_its_text() {
    let bomb = gzip(&" ".repeat(17 << 20));
    let origin = Origin::start(move |_| {
        Answer::whole(&Content::bytes(bomb.clone())).header("Content-Encoding", "gzip")
    });
    let error = downloader().open_hls(&origin.url("/list.m3u8"), HlsConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn all_levels_of_a_dead_server_are_left_together() {
    let good = site(6).serve();
    let own = site(6);
    let list = |host: &str| {
        format!(
            "#EXT-X-STREAM-INF:BANDWIDTH=1\n{host}/ts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n{host}/mp4.m3u8\n"
        )
    };
    let master = format!("#EXTM3U\n{}{}", list(""), list(good.url("").trim_end_matches('/')));
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => text(&master),
        path if path.ends_with(".m3u8") || path.starts_with("/0") => own.answer(request),
        _ => Answer::status(200).close_in_head(5),
    });
    let mut hls = open(&origin, "/master.m3u8", |config| config.quality = Quality::Fixed(0));
    assert_eq!(play(&mut hls), everything(6));
    assert!(
        origin.log().requests.iter().all(|request| request.path != "/mp4.m3u8"),
        "nothing more is asked of it"
    );
}

#[cfg(feature = "hls-aes")]
#[test]
fn session_keys_are_loaded_beside_the_first_media_playlist() {
    use aes::cipher::block_padding::Pkcs7;
    use aes::cipher::{BlockEncryptMut, KeyIvInit};

    let key = "METHOD=AES-128,URI=\"key\",IV=0x01";
    let master = format!("#EXTM3U\n#EXT-X-SESSION-KEY:{key}\n#EXT-X-STREAM-INF:BANDWIDTH=9\nlist.m3u8\n");
    let list = vod(&format!("#EXT-X-KEY:{key}\n{}", extinf("0.ts")));
    let cipher = cbc::Encryptor::<aes::Aes128>::new(&[7; 16].into(), &1_u128.to_be_bytes().into());
    let segment = cipher.encrypt_padded_vec_mut::<Pkcs7>(&ts(0));
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => text(&master),
        "/list.m3u8" => text(&list).latency_until_released(),
        "/key" => Answer::whole(&Content::bytes(vec![7; 16])),
        _ => Answer::whole(&Content::bytes(segment.clone())),
    });
    let url = origin.url("/master.m3u8");
    let opened = std::thread::spawn(move || downloader().open_hls(&url, HlsConfig::default()));
    origin.wait_until("the key before the playlist", |log| {
        log.requests.iter().any(|request| request.path == "/key")
    });
    origin.release();
    let mut hls = opened.join().unwrap().unwrap();
    assert_eq!(play(&mut hls), everything(1));
    assert_eq!(origin.log().requests.iter().filter(|request| request.path == "/key").count(), 1);
}

/// Has the first of two keys.
#[cfg(feature = "hls-aes")]
struct FirstKey;

#[cfg(feature = "hls-aes")]
impl windway::hls::RequestHook for FirstKey {
    fn key(&self, url: &str) -> Option<Vec<u8>> {
        url.ends_with("/first").then(|| vec![7; 16])
    }
}

#[cfg(feature = "hls-aes")]
#[test]
fn a_key_of_the_application_does_not_hold_up_the_other_session_keys() {
    let key = |name: &str| format!("#EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"{name}\",IV=0x01\n");
    let master =
        format!("#EXTM3U\n{}{}#EXT-X-STREAM-INF:BANDWIDTH=9\nlist.m3u8\n", key("first"), key("second"));
    let list = vod(&extinf("0.ts"));
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/master.m3u8" => text(&master),
        "/list.m3u8" => text(&list).latency_until_released(),
        "/second" => Answer::whole(&Content::bytes(vec![8; 16])),
        _ => Answer::whole(&Content::bytes(ts(0))),
    });
    let url = origin.url("/master.m3u8");
    let config = HlsConfig::new().hook(windway::hls::Hook::new(FirstKey));
    let opened = std::thread::spawn(move || downloader().open_hls(&url, config));
    origin.wait_until("the second key before the playlist", |log| {
        log.requests.iter().any(|request| request.path == "/second")
    });
    origin.release();
    assert_eq!(play(&mut opened.join().unwrap().unwrap()), everything(1));
    assert!(origin.log().requests.iter().all(|request| request.path != "/first"));
}

#[test]
fn a_fresh_url_of_a_playlist_is_used_at_once() {
    let low = site(8);
    let high = vod(&(0..8).map(|index| extinf(&format!("{index}.ts?high"))).collect::<String>());
    let master =
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=99\nhigh.m3u8\n";
    let origin = Origin::start(move |request| match request.path.split_once('?') {
        None if request.path == "/master.m3u8" => text(master),
        None if request.path == "/high.m3u8" => Answer::status(403),
        Some(("/high.m3u8", _)) => text(&high),
        _ => low.answer(request),
    });
    let change = |config: &mut HlsConfig| {
        (config.quality, config.buffer) = (Quality::Fixed(0), Duration::from_secs(1));
        config.hook = Some(Hook::new(Tokens));
    };
    let mut hls = open(&origin, "/master.m3u8", change);
    hls.handle().set_quality(Quality::Fixed(1));
    origin.wait_until("the playlist by its fresh URL", |log| {
        log.requests.iter().any(|request| request.path == "/high.m3u8?token")
    });
    assert_eq!(play(&mut hls), everything(8));
    assert!(origin.log().requests.iter().any(|request| request.path.ends_with("?high")));
}
