//! URLs of an unknown kind: one request, whose response is read on as what it turns out to be.

use std::io::{Read, Seek, SeekFrom};
use std::thread;
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::{Answer, Content, Origin, Request, Station, poll_until};
use windway::config::StorageConfig;
use windway::radio::RadioEvent;
use windway::stream::Phase;
use windway::{
    CancelHandle, Downloader, DownloaderConfig, Error, ErrorKind, Media, OpenConfig, Radio, RadioConfig,
    Stream,
};

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

fn file(media: Media) -> Stream {
    match media {
        Media::File(stream) => stream,
        other => panic!("not a file: {other:?}"),
    }
}

fn radio(media: Media) -> Radio {
    match media {
        Media::Radio(radio) => radio,
        other => panic!("not a radio: {other:?}"),
    }
}

fn error(media: Result<Media, windway::Error>) -> windway::Error {
    media.expect_err("it opened")
}

/// All requests, those of a suffix too.
fn requests(origin: &Origin) -> usize {
    let log = origin.log();
    log.requests.len() + log.suffixes.len()
}

/// All of the pattern from here to its end.
fn read_pattern(stream: &mut Stream, len: u64) {
    let position = stream.stream_position().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, len - position);
    assert_pattern(position, &bytes);
}

#[test]
fn a_short_file_takes_one_request() {
    for len in [1, 63, 64, 5000, 16 * 1024, 200_000] {
        let origin = Origin::serving(Content::pattern(len));
        let mut stream = file(downloader().open_any(&origin.url("/a")).unwrap());
        assert_eq!(stream.len(), Some(len));
        read_pattern(&mut stream, len);
        assert_eq!(requests(&origin), 1, "{len}");
        assert_eq!(stream.handle().phase(), Phase::Ended);
    }
}

#[test]
fn a_long_file_goes_on_behind_its_opening_and_can_be_sought_in() {
    const LEN: u64 = 3_000_000;
    let origin = Origin::serving(Content::pattern(LEN));
    for storage in [StorageConfig::Memory, StorageConfig::TempFile(None)] {
        origin.forget();
        let mut config = OpenConfig::default();
        config.file = config.file.storage(storage);
        let mut stream = file(downloader().open_any_with(&origin.url("/a.mp3"), config).unwrap());
        assert!(stream.is_seekable());
        read_pattern(&mut stream, LEN);
        let log = origin.log();
        let first = |request: &&Request| request.range().is_none_or(|(first, _)| first < 256 << 10);
        assert_eq!(log.requests.iter().filter(first).count(), 1, "{log:?}");
        stream.seek(SeekFrom::Start(LEN / 2)).unwrap();
        read_pattern(&mut stream, LEN);
    }
}

#[test]
fn a_file_of_a_server_without_ranges_is_read_on_from_the_same_response() {
    const LEN: u64 = 1_000_000;
    let content = Content::pattern(LEN);
    for answer in [Answer::whole, |content: &Content| Answer::whole(content).chunked()] {
        let content = content.clone();
        let origin = Origin::start(move |_| answer(&content));
        let mut stream = file(downloader().open_any(&origin.url("/a")).unwrap());
        assert!(!stream.is_seekable());
        read_pattern(&mut stream, LEN);
        assert_eq!(requests(&origin), 1);
    }
}

#[test]
fn a_body_that_breaks_goes_on() {
    const LEN: u64 = 200_000;
    for at in [10, 100, 20_000, 150_000] {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |request| {
            let answer = Answer::file(request, &content);
            if request.number == 0 { answer.reset_after(at) } else { answer }
        });
        let mut stream = file(downloader().open_any(&origin.url("/a")).unwrap());
        read_pattern(&mut stream, LEN);
    }
}

/// Whatever a server does: the right bytes, or an error. Nothing hangs, and nothing is left behind.
#[test]
fn faults_of_the_first_response_end_in_right_bytes_or_an_error() {
    type Fault = fn(&Request, &Content) -> Answer;
    let faults: [(&str, Fault); 21] = [
        ("closed in the head", |request, content| Answer::file(request, content).close_in_head(30)),
        ("reset in the head", |request, content| Answer::file(request, content).reset_in_head(0)),
        ("stalled in the head", |request, content| Answer::file(request, content).stall_in_head(20)),
        ("reset at once", |request, content| Answer::file(request, content).reset_after(0)),
        ("closed in the first bytes", |request, content| Answer::file(request, content).close_after(40)),
        ("closed behind them", |request, content| Answer::file(request, content).close_after(5_000)),
        ("stalled in the first bytes", |request, content| Answer::file(request, content).stall_after(40)),
        ("stalled behind them", |request, content| Answer::file(request, content).stall_after(20_000)),
        ("a cut chunk", |_, content| Answer::whole(content).cut_chunk_after(20_000)),
        ("more than announced", |request, content| Answer::file(request, content).extra_bytes(100)),
        ("a part without its range", |_, content| Answer::whole(content).with_status(206)),
        ("another part", |_, content| Answer::whole(content).partial(500..90_000)),
        ("less than asked for", |_, content| Answer::whole(content).partial(0..10)),
        ("no part at all", |_, content| {
            Answer::whole(content).partial(0..10).header("Content-Range", "bytes 5-1/3")
        }),
        ("a range of an encoded body", |request, content| {
            Answer::file(request, content).header("Content-Encoding", "gzip")
        }),
        ("no response", |_, _| Answer::raw(&b"garbage garbage garbage garbage\r\n\r\n"[..])),
        ("nothing", |_, _| Answer::raw(&b""[..])),
        ("a redirect to itself", |request, _| Answer::redirect(302, &request.path)),
        ("a redirect to a file", |_, _| Answer::redirect(302, "file:///etc/passwd")),
        ("no content", |_, content| Answer::whole(content).with_status(204)),
        ("titles that never come", |_, content| {
            Answer::whole(content).no_length().header("icy-metaint", "99999999999999999999")
        }),
    ];
    std::thread::scope(|scope| {
        for (name, fault) in faults {
            for lasts in [false, true] {
                scope.spawn(move || check_fault(name, fault, lasts));
            }
        }
    });
}

/// Opens a file whose first response, or each response, has a fault. Bytes that are read are right.
fn check_fault(name: &str, fault: fn(&Request, &Content) -> Answer, lasts: bool) {
    const LEN: u64 = 100_000;
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        if lasts || request.number == 0 { fault(request, &content) } else { Answer::file(request, &content) }
    });
    let mut config = DownloaderConfig::default();
    config.client.silence_timeout = Duration::from_millis(200);
    config.max_retries = 2;
    let downloader = Downloader::new(config).unwrap();
    let mut options = OpenConfig::default();
    options.file.read_timeout = Some(Duration::from_secs(1));
    let opened = downloader.open_any_with(&origin.url("/a"), options);
    let mut bytes = Vec::new();
    match opened {
        Ok(Media::File(mut stream)) => match stream.read_to_end(&mut bytes) {
            Ok(_) => assert_eq!(bytes.len() as u64, LEN, "{name}"),
            // What was read up to the error is in the buffer.
            // A busy machine may be slower than the limits.
            Err(error) => assert!(lasts || Error::from(error).is_timeout(), "{name}"),
        },
        Ok(Media::Radio(mut radio)) => {
            bytes.resize(50_000, 0);
            radio.read_exact(&mut bytes).unwrap();
        }
        Ok(other) => panic!("{name}: {other:?}"),
        Err(error) => assert!(!error.is_cancelled(), "{name}: {error}"),
    }
    assert_pattern(0, &bytes);
    let stats = downloader.stats();
    assert_eq!((stats.peers, stats.open_bodies), (0, 0), "{name}");
}

#[test]
fn a_range_that_is_refused_is_asked_for_no_more() {
    for status in [400, 403, 416] {
        let content = Content::pattern(50_000);
        let origin = Origin::start(move |request| match request.range() {
            Some(_) => Answer::status(status),
            None => Answer::whole(&content),
        });
        let mut stream = file(downloader().open_any(&origin.url("/a")).unwrap());
        read_pattern(&mut stream, 50_000);
        assert_eq!(requests(&origin), 2, "{status}");
    }
}

/// Sends 20,000 bytes, and brings the rest over no other connection either.
fn stalling(content: Content) -> Origin {
    Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match request.range() {
            Some((1.., _)) => answer.latency_until_released(),
            _ => answer.stall_after(20_000),
        }
    })
}

#[test]
fn a_cancel_ends_an_opening_whose_body_stalls() {
    let content = Content::pattern(200_000);
    let origin = stalling(content);
    let mut stream = file(downloader().open_any(&origin.url("/a")).unwrap());
    let mut bytes = [0; 20_000];
    stream.read_exact(&mut bytes).unwrap();
    let handle = stream.handle();
    let reader = std::thread::spawn(move || stream.read(&mut [0; 1]).map_err(windway::Error::from));
    poll_until("stall", || handle.phase() == Phase::Stalled);
    handle.cancel();
    assert!(reader.join().unwrap().unwrap_err().is_cancelled());
    origin.wait_until("the connection was closed", |log| log.open == 0);
}

#[test]
fn a_drop_ends_an_opening_whose_body_stalls() {
    let content = Content::pattern(200_000);
    let origin = stalling(content);
    let downloader = downloader();
    drop(downloader.open_any(&origin.url("/a")).unwrap());
    origin.wait_until("the connection was closed", |log| log.open == 0);
    assert_eq!(downloader.stats().peers, 0);
    assert_eq!(downloader.stats().open_bodies, 0);
}

#[test]
fn a_station_is_a_radio_with_titles_and_one_connection() {
    let audio = Content::pattern(200_000);
    let station = Station { audio, interval: 4000, every: 1, titles: vec!["One", "Two"] };
    let origin = Origin::start(move |request| Answer::station(request, &station));
    let mut radio = radio(downloader().open_any(&origin.url("/listen")).unwrap());
    let handle = radio.handle();
    let mut bytes = vec![0; 100_000];
    radio.read_exact(&mut bytes).unwrap();
    assert_pattern(0, &bytes);
    assert!(handle.now_playing().and_then(|title| title.title).is_some());
    assert_eq!(handle.info().unwrap().name.as_deref(), Some("Scripted"));
    assert_eq!(requests(&origin), 1);
}

/// The response was judged, so there is nothing to wait for.
#[test]
fn a_station_is_described_at_once() {
    let station = Station { audio: Content::endless(), interval: 4000, every: 1, titles: vec!["One"] };
    let origin = Origin::start(move |request| Answer::station(request, &station));
    for _ in 0..20 {
        let radio = radio(downloader().open_any(&origin.url("/listen")).unwrap());
        let handle = radio.handle();
        assert_eq!(handle.info().expect("it is known").name.as_deref(), Some("Scripted"));
        assert_eq!(handle.media_info().extension(), Some("mp3"));
    }
}

#[test]
fn a_station_that_breaks_is_connected_to_again_without_a_range() {
    let audio = Content::pattern(200_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::whole(&audio).no_length().icy().header("icy-name", "Scripted");
        if request.number == 0 { answer.reset_after(50_000) } else { answer.stall_after(60_000) }
    });
    let mut radio = radio(downloader().open_any(&origin.url("/listen")).unwrap());
    let mut bytes = vec![0; 100_000];
    radio.read_exact(&mut bytes).unwrap();
    let log = origin.log();
    assert_eq!(log.requests.len(), 2);
    assert_eq!(log.requests[1].header("range"), None);
    assert_eq!(log.requests[1].header("icy-metadata"), Some("1"));
}

#[test]
fn a_stations_bytes_do_not_count_for_the_bandwidth() {
    let audio = Content::pattern(2_000_000);
    let origin = Origin::start(move |_| {
        Answer::whole(&audio).no_length().header("icy-name", "Scripted").stall_after(1_900_000)
    });
    let downloader = downloader();
    let mut radio = radio(downloader.open_any(&origin.url("/listen")).unwrap());
    radio.read_exact(&mut vec![0; 1_900_000]).unwrap();
    assert_eq!(downloader.bandwidth(), None);
}

#[test]
fn documents_that_are_no_media_are_named() {
    for (content_type, body, kind, text) in [
        ("application/dash+xml", "<?xml version=\"1.0\"?><MPD></MPD>", ErrorKind::Unsupported, "MPEG-DASH"),
        ("text/xml", "<SmoothStreamingMedia/>", ErrorKind::Unsupported, "Smooth Streaming"),
        ("text/html", "<!doctype html><title>Login</title>", ErrorKind::NotMedia, "text/html"),
        ("application/json", "{\"error\":\"no\"}", ErrorKind::NotMedia, "application/json"),
    ] {
        let content = Content::bytes(body.as_bytes().to_vec());
        let origin = Origin::start(move |request| {
            Answer::file(request, &content).header("Content-Type", content_type)
        });
        let downloader = downloader();
        let error = error(downloader.open_any(&origin.url("/a?token=secret")));
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text) && !error.to_string().contains("secret"), "{error}");
        assert!(error.url().is_some(), "{error}");
        assert_eq!(requests(&origin), 1);
        assert_eq!(downloader.stats().peers, 0);
    }
}

#[test]
fn what_is_not_there_fails_at_once() {
    let origin = Origin::start(|request| match &*request.path {
        "/404" => Answer::status(404),
        "/401" => Answer::status(401),
        "/empty" => Answer::whole(&Content::bytes(&b""[..])),
        _ => Answer::status(503).header("Retry-After", "3600"),
    });
    for (path, kind) in [
        ("/404", ErrorKind::Status(404)),
        ("/401", ErrorKind::Status(401)),
        ("/empty", ErrorKind::Empty),
        ("/503", ErrorKind::Status(503)),
    ] {
        origin.forget();
        assert_eq!(error(downloader().open_any(&origin.url(path))).kind(), kind);
        assert_eq!(requests(&origin), 1, "{path}");
    }
    let url = origin.url("/a");
    drop(origin);
    assert_eq!(error(downloader().open_any(&url)).kind(), ErrorKind::Refused);
    assert_eq!(error(downloader().open_any("no url")).kind(), ErrorKind::InvalidUrl);
    assert_eq!(error(downloader().open_any("file:///etc/passwd")).kind(), ErrorKind::UnsupportedScheme);
}

#[test]
fn headers_go_with_every_request_to_the_urls_origin_only() {
    let elsewhere = Origin::serving(Content::pattern(1_000_000));
    let to = elsewhere.url("/b");
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| match &*request.path {
        "/moved" => Answer::redirect(302, &to),
        _ => Answer::file(request, &content),
    });
    let mut config = OpenConfig::default();
    config.headers = vec![("x-key".into(), "secret".into())];
    assert!(!format!("{config:?}").contains("secret"));
    for path in ["/a", "/moved"] {
        let mut stream = file(downloader().open_any_with(&origin.url(path), config.clone()).unwrap());
        read_pattern(&mut stream, 1_000_000);
    }
    assert!(origin.log().requests.iter().all(|request| request.header("x-key") == Some("secret")));
    assert!(origin.log().requests.len() > 2);
    assert!(elsewhere.log().requests.iter().all(|request| request.header("x-key").is_none()));
}

#[test]
fn a_file_opened_as_a_radio_ends() {
    let origin = Origin::serving(Content::pattern(150_000));
    let mut radio = downloader().open_radio(&origin.url("/a.mp3"), RadioConfig::default()).unwrap();
    let (handle, events) = (radio.handle(), radio.handle().subscribe());
    assert_whole(&mut radio, 150_000);
    assert_eq!(radio.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(handle.phase(), Phase::Ended);
    assert!(handle.last_error().is_none());
    handle.wait_buffered(1, Some(Duration::from_secs(60))).unwrap();
    let last = events.into_iter().last();
    assert!(matches!(last, Some(RadioEvent::Complete { position: 150_000 })), "{last:?}");
    assert_eq!(requests(&origin), 1);
    radio.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(radio.read(&mut [0; 10]).unwrap(), 10);
}

#[test]
fn what_is_no_media_is_an_error_that_names_it() {
    let list = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n0.aac\n#EXT-X-ENDLIST\n";
    let feed = "<rss><channel><item><enclosure url=\"1.mp3\"/></item></channel></rss>";
    let files: [(&str, &[u8], &[&str]); 5] = [
        ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", &["a JPEG image"]),
        ("application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", &["a PDF document"]),
        ("application/zip", b"PK\x03\x04\x14\0\0\0", &["a ZIP archive"]),
        ("application/vnd.apple.mpegurl", list.as_bytes(), &["an HLS playlist", "open_hls or open_any"]),
        ("application/rss+xml", feed.as_bytes(), &["a podcast's feed", "open_any"]),
    ];
    for (content_type, bytes, texts) in files {
        let origin = Origin::start(move |request| {
            Answer::file(request, &Content::bytes(bytes)).header("Content-Type", content_type)
        });
        let mut errors = vec![downloader().open(&origin.url("/a")).expect_err("it opened")];
        if texts.len() == 1 {
            errors.push(error(downloader().open_any(&origin.url("/a"))));
        }
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::NotMedia, "{error}");
            texts.iter().for_each(|text| assert!(error.to_string().contains(text), "{error}"));
        }
    }
}

#[test]
fn a_silent_server_ends_the_opening_after_the_read_timeout() {
    type Silence = fn(Answer) -> Answer;
    let silences: [Silence; 3] =
        [Answer::latency_until_released, |answer| answer.stall_after(0), |answer| answer.stall_after(20)];
    let mut config = OpenConfig::default();
    config.file = config.file.read_timeout(Duration::from_millis(200));
    for silence in silences {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| silence(Answer::file(request, &content)));
        let url = origin.url("/a");
        let results = [
            downloader().open_any_with(&url, config.clone()),
            #[cfg(feature = "queue")]
            downloader().open_track(&windway::queue::Track::new(&url).unwrap(), config.clone()),
        ];
        for result in results {
            let error = error(result);
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            assert_eq!(error.url().unwrap().expose(), url);
            assert!(error.to_string().contains("no data for 200ms"), "{error}");
        }
    }
}

#[cfg(feature = "queue")]
#[test]
fn a_list_that_falls_silent_ends_the_opening_after_the_read_timeout() {
    let list = format!("#EXTM3U\n{}", "#EXTINF:1,One\nhttp://example.com/1.mp3\n".repeat(1000));
    let content = Content::bytes(list.into_bytes());
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(20_000));
    let mut config = OpenConfig::default();
    config.file = config.file.read_timeout(Duration::from_millis(200));
    let error = error(downloader().open_any_with(&origin.url("/a"), config));
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

#[cfg(feature = "hls")]
#[test]
fn a_silent_playlist_ends_the_opening_of_hls_after_the_read_timeout() {
    let list = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\n/media.m3u8\n";
    let origin = Origin::start(move |request| match &*request.path {
        "/a" => Answer::file(request, &Content::bytes(list.as_bytes())),
        _ => Answer::status(404).latency_until_released(),
    });
    let hls = windway::hls::HlsConfig::new().read_timeout(Duration::from_millis(200));
    let any = downloader().open_any_with(&origin.url("/a"), OpenConfig::new().hls(hls.clone()));
    let mut errors = vec![error(any)];
    for path in ["/a", "/media.m3u8"] {
        errors.push(downloader().open_hls(&origin.url(path), hls.clone()).expect_err("it opened"));
    }
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(error.url().is_some());
    }
}

/// Fails unless a cancel ends an opening that waits for `origin`, and a later one too.
fn check_cancel(origin: &Origin, is_waiting: impl Fn() -> bool) {
    let (cancel, downloader) = (CancelHandle::new(), downloader());
    let config = OpenConfig::new().cancel(cancel.clone());
    let opener = {
        let (downloader, config, url) = (downloader.clone(), config.clone(), origin.url("/a"));
        thread::spawn(move || downloader.open_any_with(&url, config))
    };
    poll_until("the opening that waits", is_waiting);
    cancel.cancel();
    let result = support::in_time("the cancelled opening", move || opener.join().unwrap());
    let cancelled = error(result);
    assert!(cancelled.is_cancelled(), "{cancelled:?}");
    let before = requests(origin);
    assert!(error(downloader.open_any_with(&origin.url("/a"), config)).is_cancelled());
    assert_eq!(requests(origin), before);
    // Not the downloader, which others use.
    file(downloader.open_any(&Origin::serving(Content::pattern(1000)).url("/b")).unwrap());
}

#[test]
fn a_cancel_ends_an_opening_whatever_it_waits_for() {
    type Silence = fn(Answer) -> Answer;
    let content = Content::pattern(100_000);
    let silences: [Silence; 3] =
        [Answer::latency_until_released, |answer| answer.stall_after(0), |answer| answer.stall_after(20)];
    for silence in silences {
        let content = content.clone();
        let origin = Origin::start(move |request| silence(Answer::file(request, &content)));
        check_cancel(&origin, || requests(&origin) == 1);
    }
    // A delay between two attempts.
    let busy = Origin::start(|_| Answer::status(503).header("Retry-After", "20"));
    check_cancel(&busy, || requests(&busy) == 1);
}

#[cfg(all(feature = "queue", feature = "hls"))]
#[test]
fn a_cancel_ends_the_opening_of_what_a_list_leads_to() {
    for list in [
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\n/next\n",
        "#EXTM3U\n#EXTINF:1,One\n/next\n",
    ] {
        let origin = Origin::start(move |request| match &*request.path {
            "/a" => Answer::file(request, &Content::bytes(list.as_bytes())),
            _ => Answer::status(404).latency_until_released(),
        });
        check_cancel(&origin, || origin.log().requests.iter().any(|request| request.path == "/next"));
    }
}

#[test]
fn a_cancel_after_the_opening_leaves_alone_what_it_has_returned() {
    let content = Content::pattern(2_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let cancel = CancelHandle::new();
    let media = downloader().open_any_with(&origin.url("/a"), OpenConfig::new().cancel(cancel.clone()));
    cancel.cancel();
    read_pattern(&mut file(media.unwrap()), 2_000_000);
}

#[test]
fn a_station_that_announces_a_length_is_connected_to_again() {
    let content = Content::pattern(50_000);
    let origin = Origin::start(move |_| Answer::whole(&content).header("icy-name", "Scripted"));
    let mut radio = downloader().open_radio(&origin.url("/a"), RadioConfig::default()).unwrap();
    radio.read_exact(&mut vec![0; 120_000]).unwrap();
    assert!(requests(&origin) >= 3);
}

#[cfg(feature = "hls")]
#[test]
fn an_hls_playlist_is_a_presentation_and_is_requested_once() {
    let playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n0.aac\n#EXT-X-ENDLIST\n";
    for content_type in ["application/vnd.apple.mpegurl", "text/plain"] {
        let origin = Origin::start(move |request| match &*request.path {
            "/dir/a.m3u8" => {
                let content = Content::bytes(playlist.as_bytes());
                Answer::file(request, &content).header("Content-Type", content_type)
            }
            "/a" => Answer::redirect(302, "/dir/a.m3u8"),
            // A segment that failed would have the playlist loaded again.
            _ => Answer::status(404).latency_until_released(),
        });
        let Media::Hls(hls) = downloader().open_any(&origin.url("/a")).unwrap() else { panic!("no HLS") };
        assert_eq!(hls.handle().duration(), Some(Duration::from_secs(4)));
        let lists = |origin: &Origin| {
            origin.log().requests.iter().filter(|request| request.path.ends_with(".m3u8")).count()
        };
        origin.wait_until("the segment was requested", |log| {
            log.requests.iter().any(|request| request.path == "/dir/0.aac")
        });
        assert_eq!(lists(&origin), 1);
    }
}

/// The rest of a long playlist is requested without a range, and that request may be redirected.
#[cfg(feature = "hls")]
#[test]
fn segments_of_a_long_playlist_are_those_of_the_url_that_has_sent_it() {
    let comments = "#\n".repeat(200_000);
    let list = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{comments}#EXTINF:4,\n0.aac\n#EXT-X-ENDLIST\n");
    let list = Content::bytes(list.into_bytes());
    let long = list.clone();
    let elsewhere = Origin::start(move |request| match &*request.path {
        "/other/a.m3u8" => Answer::file(request, &long),
        _ => Answer::status(404).latency_until_released(),
    });
    let to = elsewhere.url("/other/a.m3u8");
    let origin = Origin::start(move |request| match request.header("range") {
        Some(_) => Answer::file(request, &list),
        None => Answer::redirect(302, &to),
    });
    let Media::Hls(_hls) = downloader().open_any(&origin.url("/dir/a.m3u8")).unwrap() else {
        panic!("no HLS")
    };
    elsewhere.wait_until("the segment was requested", |log| {
        log.requests.iter().any(|request| request.path == "/other/0.aac")
    });
}

#[cfg(feature = "queue")]
mod lists {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use windway::queue::{Playlist, Track};

    fn playlist(media: Media) -> Playlist {
        match media {
            Media::Playlist(playlist) => playlist,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// Serves `list` at `/dir/list`, and a file everywhere else.
    fn serving(content_type: &'static str, list: &str) -> Origin {
        let (list, content) = (Content::bytes(list.as_bytes().to_vec()), Content::pattern(50_000));
        Origin::start(move |request| match &*request.path {
            "/dir/list" => Answer::file(request, &list).header("Content-Type", content_type),
            _ => Answer::file(request, &content),
        })
    }

    #[test]
    fn a_list_of_several_tracks_is_a_playlist_by_one_request() {
        for (content_type, list) in [
            ("audio/x-mpegurl", "#EXTM3U\n#EXTINF:5,One\n1.mp3\n#EXTINF:6,Two\n/2.mp3\n"),
            ("application/vnd.apple.mpegurl", "#EXTM3U\n#EXTINF:5,One\n1.mp3\n#EXTINF:6,Two\n/2.mp3\n"),
            ("text/plain", "[playlist]\nFile1=1.mp3\nTitle1=One\nFile2=/2.mp3\nTitle2=Two\n"),
            (
                "application/xspf+xml",
                "<?xml version=\"1.0\"?><playlist><trackList><track><title>One</title><location>1.mp3</location></track>\
                 <track><location>/2.mp3</location><title>Two</title></track></trackList></playlist>",
            ),
            (
                "video/x-ms-asf",
                "<asx><entry><title>One</title><ref href=\"1.mp3\"/></entry>\
                 <entry><ref href=\"/2.mp3\"/><title>Two</title></entry></asx>",
            ),
            (
                "application/rss+xml",
                "<rss><channel><item><title>One</title><enclosure url=\"1.mp3\"/></item>\
                 <item><title>Two</title><enclosure url=\"/2.mp3\"/></item></channel></rss>",
            ),
        ] {
            let origin = serving(content_type, list);
            let downloader = downloader();
            let list = playlist(downloader.open_any(&origin.url("/dir/list")).unwrap());
            let titles: Vec<_> = list.tracks().iter().map(Track::title).collect();
            assert_eq!(titles, [Some("One"), Some("Two")], "{content_type}");
            let urls: Vec<String> =
                list.tracks().iter().map(|track| track.url().unwrap().expose().to_owned()).collect();
            assert_eq!(urls, [origin.url("/dir/1.mp3"), origin.url("/2.mp3")]);
            assert_eq!(requests(&origin), 1);
            let mut stream = file(downloader.open_track(&list.tracks()[0], OpenConfig::default()).unwrap());
            read_pattern(&mut stream, 50_000);
        }
    }

    #[test]
    fn a_list_of_one_track_is_followed() {
        let origin = serving("audio/x-scpls", "[playlist]\nFile1=1.mp3\nNumberOfEntries=1\n");
        let mut stream = file(downloader().open_any(&origin.url("/dir/list")).unwrap());
        read_pattern(&mut stream, 50_000);
        assert_eq!(requests(&origin), 2);
    }

    #[test]
    fn a_feed_is_a_playlist_however_many_episodes_it_has() {
        let item = "<item><title>One</title><guid>17</guid><enclosure url=\"1.mp3\"/></item>";
        for (items, guids) in [(item, &[Some("17")][..]), ("", &[])] {
            let feed = format!("<rss><channel><title>Podcast</title>{items}</channel></rss>");
            let origin = serving("application/rss+xml", &feed);
            let list = playlist(downloader().open_any(&origin.url("/dir/list")).unwrap());
            assert_eq!(list.title(), Some("Podcast"));
            assert_eq!(list.tracks().iter().map(Track::guid).collect::<Vec<_>>(), guids);
            assert_eq!(requests(&origin), 1);
        }
    }

    #[test]
    fn a_long_list_is_read_to_its_end_and_a_longer_one_is_refused() {
        let list: String = (0..40_000).map(|number| format!("{number}.mp3\n")).collect();
        let origin = serving("audio/x-mpegurl", &list);
        let list = playlist(downloader().open_any(&origin.url("/dir/list")).unwrap());
        assert_eq!(list.tracks().len(), 40_000);
        let origin = serving("audio/x-mpegurl", &"#\n".repeat(9 << 20));
        let error = error(downloader().open_any(&origin.url("/dir/list")));
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    /// The rest of a long list is requested without a range, and that request may be redirected.
    #[test]
    fn entries_of_a_long_list_refer_to_the_url_that_has_sent_them() {
        let list: String = (0..40_000).map(|number| format!("{number}.mp3\n")).collect();
        let list = Content::bytes(list.into_bytes());
        let content = Content::pattern(50_000);
        let other = list.clone();
        let elsewhere = Origin::start(move |request| match &*request.path {
            "/other/list" => Answer::file(request, &other).header("Content-Type", "audio/x-mpegurl"),
            _ => Answer::file(request, &content),
        });
        let to = elsewhere.url("/other/list");
        let origin = Origin::start(move |request| match request.header("range") {
            Some(_) => Answer::file(request, &list).header("Content-Type", "audio/x-mpegurl"),
            None => Answer::redirect(302, &to),
        });
        let mut config = OpenConfig::default();
        config.headers = vec![("x-key".into(), "secret".into())];
        let downloader = downloader();
        let list = playlist(downloader.open_any_with(&origin.url("/dir/list"), config.clone()).unwrap());
        let first = &list.tracks()[0];
        assert_eq!(first.url().unwrap().expose(), elsewhere.url("/other/0.mp3"));
        read_pattern(&mut file(downloader.open_track(first, config).unwrap()), 50_000);
        assert!(elsewhere.log().requests.iter().all(|request| request.header("x-key").is_none()));
    }

    #[test]
    fn lists_that_lead_to_lists_end() {
        for (loops, is_followed) in [(5, true), (6, false), (usize::MAX, false)] {
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            let content = Content::pattern(50_000);
            let origin = Origin::start(move |request| {
                if counted.fetch_add(1, Ordering::Relaxed) < loops {
                    return Answer::whole(&Content::bytes(&b"#EXTM3U\nnext.m3u\n"[..]));
                }
                Answer::file(request, &content)
            });
            let opened = downloader().open_any(&origin.url("/list.m3u"));
            if is_followed {
                read_pattern(&mut file(opened.unwrap()), 50_000);
            } else {
                assert_eq!(error(opened).kind(), ErrorKind::InvalidPlaylist);
                assert_eq!(count.load(Ordering::Relaxed), 6);
            }
        }
    }

    #[test]
    fn an_entry_is_not_followed_to_a_file_or_to_less_privacy() {
        let plain = Origin::serving(Content::pattern(1000));
        let to = plain.url("/1.mp3");
        let list = Content::bytes(format!("#EXTM3U\n{to}\n").into_bytes());
        let local = Content::bytes(&b"#EXTM3U\nfile:///etc/passwd\n"[..]);
        let moved = Content::bytes(&b"#EXTM3U\nmoved\n"[..]);
        let origin = Origin::start_tls(move |request| match &*request.path {
            "/plain.m3u" => Answer::whole(&list),
            "/local.m3u" => Answer::whole(&local),
            "/moved.m3u" => Answer::whole(&moved),
            _ => Answer::redirect(302, &to),
        });
        let mut config = DownloaderConfig::default();
        config.client.extra_roots.push(origin.root_pem());
        let downloader = Downloader::new(config).unwrap();
        let open = |path: &str| downloader.open_any(&origin.url(path));
        let plainly = error(open("/plain.m3u"));
        assert_eq!(plainly.kind(), ErrorKind::Forbidden);
        assert!(plainly.to_string().starts_with("line 2: "), "{plainly}");
        assert_eq!(error(open("/local.m3u")).kind(), ErrorKind::UnsupportedScheme);
        assert_eq!(error(open("/moved.m3u")).kind(), ErrorKind::Forbidden);
        assert_eq!(requests(&plain), 0, "a redirect is checked before it is followed");
        // A list is held to it as well, which is not asked of a file that the user names.
        file(open("/file").unwrap());
        let mut loose = OpenConfig::default();
        loose.lists.allow_http = true;
        for path in ["/plain.m3u", "/moved.m3u"] {
            file(downloader.open_any_with(&origin.url(path), loose.clone()).unwrap());
        }
    }

    #[test]
    fn what_is_secret_goes_to_the_origin_of_the_url_only() {
        let elsewhere = Origin::serving(Content::pattern(50_000));
        let list = format!("own.mp3\n{}\n", elsewhere.url("/other.mp3"));
        let origin = serving("audio/x-mpegurl", &list);
        let mut config = OpenConfig::default();
        config.headers = vec![("x-key".into(), "secret".into())];
        config.file.headers = vec![("x-file".into(), "secret".into())];
        let url = origin.url("/dir/list").replace("http://", "http://me:pw@");
        let downloader = downloader();
        let list = playlist(downloader.open_any_with(&url, config.clone()).unwrap());
        for track in list.tracks() {
            let mut stream = file(downloader.open_track(track, config.clone()).unwrap());
            read_pattern(&mut stream, 50_000);
        }
        for request in origin.log().requests {
            assert_eq!(request.header("x-key"), Some("secret"));
            assert!(request.header("authorization").is_some(), "{request:?}");
        }
        let log = elsewhere.log();
        assert!(!log.requests.is_empty());
        for name in ["x-key", "x-file", "authorization"] {
            assert!(log.requests.iter().all(|request| request.header(name).is_none()), "{name}");
        }
        let shown = format!("{list:?}");
        assert!(!shown.contains("pw") && !shown.contains("secret"), "{shown}");
    }

    /// Mirrors and a key of the cache name one resource: another one must not be played in its place.
    #[test]
    fn what_the_options_name_of_a_list_is_not_played_as_its_track() {
        let origin = Origin::start(|request| match &*request.path {
            "/list" => Answer::whole(&Content::bytes(&b"#EXTM3U\n/gone\n"[..])),
            "/gone" if request.number == 1 => Answer::file(request, &Content::pattern(3_000_000)),
            "/gone" => Answer::status(404),
            _ => Answer::file(request, &Content::bytes(vec![7; 3_000_000])),
        });
        let mut config = OpenConfig::default();
        config.file.mirrors = vec![origin.url("/other")];
        config.file.read_timeout = Some(Duration::from_secs(1));
        let mut gone = file(downloader().open_any_with(&origin.url("/list"), config).unwrap());
        let mut bytes = Vec::new();
        let read = gone.read_to_end(&mut bytes);
        assert!(origin.log().requests.iter().all(|request| request.path != "/other"), "{read:?}");
    }

    #[cfg(feature = "cache")]
    #[test]
    fn tracks_of_lists_do_not_share_the_key_of_a_list() {
        use windway::FileConfig;
        use windway::cache::{Cache, CacheConfig, CacheKey, CacheUse};

        let turn = Arc::new(AtomicUsize::new(0));
        let origin = Origin::start(move |request| match &*request.path {
            "/list" => {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                Answer::whole(&Content::bytes(format!("#EXTM3U\n/{turn}\n").into_bytes()))
            }
            path => {
                let content = Content::bytes(vec![path.as_bytes()[1]; 1_000_000]);
                Answer::file(request, &content).header("Cache-Control", "max-age=3600")
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), CacheConfig::new().keep_free(0)).unwrap();
        let mut config = OpenConfig::default();
        config.file = FileConfig::new().cache(CacheUse::of(&cache).key(CacheKey::named("list")));
        for byte in [b'0', b'1'] {
            let media = downloader().open_any_with(&origin.url("/list"), config.clone()).unwrap();
            let mut bytes = Vec::new();
            file(media).read_to_end(&mut bytes).unwrap();
            assert!(bytes.len() == 1_000_000 && bytes.iter().all(|own| *own == byte), "{byte}");
        }
        let entries = cache.entries().unwrap();
        assert!(entries.iter().all(|entry| entry.key != CacheKey::named("list")), "{entries:?}");
    }

    #[test]
    fn a_station_in_a_list_is_a_radio() {
        let audio = Content::pattern(100_000);
        let station = Station { audio, interval: 4000, every: 1, titles: vec!["One"] };
        let origin = Origin::start(move |request| match &*request.path {
            "/listen.pls" => Answer::whole(&Content::bytes(&b"[playlist]\nFile1=/stream\n"[..])),
            _ => Answer::station(request, &station),
        });
        let mut radio = radio(downloader().open_any(&origin.url("/listen.pls")).unwrap());
        radio.read_exact(&mut [0; 10_000]).unwrap();
        assert_eq!(requests(&origin), 2);
    }
}

#[cfg(not(feature = "queue"))]
#[test]
fn a_list_without_the_feature_is_an_error_that_names_it() {
    let origin = Origin::serving(Content::bytes(&b"#EXTM3U\nhttp://h/a\n"[..]));
    let error = error(downloader().open_any(&origin.url("/a")));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("feature queue"), "{error}");
}

/// The first request is sent whatever is cached: only its response tells what the URL leads to.
#[cfg(feature = "cache")]
#[test]
fn a_file_is_kept_in_the_cache_and_what_is_cached_of_it_is_not_requested_again() {
    use windway::FileConfig;
    use windway::cache::{Cache, CacheConfig};

    const LEN: u64 = 1_000_000;
    let directory = tempfile::tempdir().unwrap();
    let origin = {
        let content = Content::pattern(LEN);
        Origin::start(move |request| Answer::file(request, &content).header("Cache-Control", "max-age=3600"))
    };
    let cache = Cache::open(directory.path(), CacheConfig::new().keep_free(0)).unwrap();
    let mut config = OpenConfig::default();
    config.file = FileConfig::new().cache(cache);
    for round in 0..2 {
        origin.forget();
        let mut stream = file(downloader().open_any_with(&origin.url("/a"), config.clone()).unwrap());
        read_pattern(&mut stream, LEN);
        let requests = requests(&origin);
        assert!(if round == 0 { requests > 1 } else { requests == 0 }, "{requests} in round {round}");
    }
}
