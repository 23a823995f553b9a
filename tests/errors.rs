//! Errors of opening: each has its kind, the URL and the cause.

use std::error::Error as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::{Answer, Content, Origin};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority, SafeUrl};

fn open(url: &str) -> Error {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let error = downloader.open(url).unwrap_err();
    assert_eq!(
        error.url().map(|found| found.expose().trim_end_matches('/')),
        Some(url.trim_end_matches('/')),
        "{error:?}"
    );
    error
}

fn open_error(answer: Answer) -> Error {
    let origin = Origin::start(move |_| answer.clone());
    open(&origin.url("/track"))
}

#[test]
fn an_error_about_time_says_which_limit_was_met() {
    let content = Content::pattern(3_000_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match &*request.path {
            "/head" => answer.latency_until_released(),
            "/slow-head" => answer.stall_in_head(20),
            "/chunked" => answer.chunked().stall_after(100_000),
            "/body" => answer.stall_after(100_000),
            _ => answer.chunks_of(1, Duration::from_millis(10)),
        }
    });
    let mut config = DownloaderConfig::default();
    config.max_retries = 0;
    config.client.silence_timeout = Duration::from_millis(350);
    config.client.min_rate = 10_000;
    let downloader = Downloader::new(config).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    for (path, wanted) in [
        ("/head", "read timed out: no data for 350ms (http://"),
        ("/slow-head", "read timed out: no data for 350ms (http://"),
        ("/body", "read timed out: no data for 350ms (http://"),
        ("/chunked", "read timed out: no data for 350ms (http://"),
        ("/slow", "the body is too slow: less than 10000 bytes a second over 350ms (http://"),
    ] {
        let opened = peer.execute(Fetch::get(&origin.url(path)).unwrap());
        let read = opened.and_then(|response| response.bytes(3_000_000).map(drop));
        let error = read.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Silent, "{path}: {error:?}");
        assert!(error.to_string().starts_with(wanted), "{path}: {error}");
        // It would name another limit, or none.
        assert!(error.source().is_none(), "{path}: {error:?}");
    }
}

#[test]
fn a_refused_connection_is_refused() {
    // Bound, so that no other program gets the port, but not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let error = open(&format!("http://{address}/track"));
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.source().is_some() && error.is_retryable());
}

#[test]
fn a_retry_after_beyond_the_limit_ends_the_opening() {
    let error = open_error(Answer::status(503).header("Retry-After", "3600"));
    assert_eq!((error.status(), error.retry_after()), (Some(503), Some(Duration::from_secs(3600))));
}

#[test]
fn a_redirect_with_an_unescaped_target_is_followed() {
    let origin = Origin::start(|request| match request.path.as_str() {
        "/track" => Answer::redirect(302, "/st\u{FC}ck.mp3"),
        _ => Answer::status(410),
    });
    assert_eq!(open(&origin.url("/track")).status(), Some(410));
    assert_eq!(origin.log().requests[1].path, "/st%C3%BCck.mp3");
}

#[test]
fn a_host_that_does_not_exist_is_not_found() {
    // Without a name server the lookup may take long.
    let mut config = DownloaderConfig::default();
    config.client.resolve_timeout = Duration::from_secs(60);
    let mut file = FileConfig::default();
    file.read_timeout = None;
    let downloader = Downloader::new(config).unwrap();
    let error = downloader.open_with("http://nowhere.invalid/track", file).unwrap_err();
    assert_eq!(error.url(), Some(&SafeUrl::from("http://nowhere.invalid/track")));
    assert_eq!(error.kind(), ErrorKind::HostNotFound);
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}

#[test]
fn a_server_without_tls_fails_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Answers every connection until the process ends: the opening and the suffix request use one each, in any order.
    thread::spawn(move || {
        let answer = |mut socket: TcpStream| {
            // Fails if the client has closed the connection.
            drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
            socket
        };
        listener.incoming().filter_map(Result::ok).map(answer).collect::<Vec<_>>()
    });
    let error = open(&format!("https://{address}/track"));
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.source().is_some() && !error.is_retryable());
}

#[test]
fn a_refusing_status_is_kept_in_the_error() {
    for status in [401, 403, 404, 410] {
        let error = open_error(Answer::status(status));
        assert_eq!((error.kind(), error.status()), (ErrorKind::Status(status), Some(status)));
        assert!(!error.is_retryable());
    }
}

#[test]
fn an_html_page_with_status_200_is_not_media() {
    let page = Content::bytes(*b"<!DOCTYPE html><title>Log in</title>");
    for (content_type, content) in [
        ("text/html; charset=utf-8", page.clone()),
        ("application/octet-stream", page),
        ("text/html", Content::pattern(1_000_000)),
    ] {
        let answer = Answer::whole(&content).header("Content-Type", content_type);
        assert_eq!(open_error(answer).kind(), ErrorKind::NotMedia, "{content_type}");
        let origin = Origin::start({
            move |request| Answer::file(request, &content).header("Content-Type", content_type)
        });
        assert_eq!(open(&origin.url("/track")).kind(), ErrorKind::NotMedia, "206 {content_type}");
    }
}

#[test]
fn audio_with_a_wrong_content_type_is_opened() {
    let mut bytes = b"fLaC".to_vec();
    Content::pattern(1000).append(&mut bytes, 0..1000);
    let content = Content::bytes(bytes);
    let origin =
        Origin::start(move |request| Answer::file(request, &content).header("Content-Type", "text/plain"));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    assert_eq!(downloader.open(&origin.url("/track")).unwrap().len(), Some(1004));
}

#[test]
fn an_empty_file_is_an_error() {
    assert_eq!(open_error(Answer::whole(&Content::pattern(0))).kind(), ErrorKind::Empty);
    let unsatisfied = Answer::status(416).header("Content-Range", "bytes */0");
    assert_eq!(open_error(unsatisfied).kind(), ErrorKind::Empty);
    assert_eq!(open_error(Answer::whole(&Content::pattern(0)).chunked()).kind(), ErrorKind::Empty);
}

#[test]
fn redirects_without_a_valid_target_fail() {
    let circle = open_error(Answer::redirect(302, "/track"));
    assert_eq!(circle.kind(), ErrorKind::Redirect);
    let origin = Origin::start(|request| Answer::redirect(302, &format!("{}x", request.path)));
    assert_eq!(open(&origin.url("/")).kind(), ErrorKind::Redirect);
    assert_eq!(origin.log().requests.len(), 11);
    assert_eq!(open_error(Answer::status(301)).kind(), ErrorKind::Redirect);
    assert_eq!(open_error(Answer::redirect(307, "file:///etc/passwd")).kind(), ErrorKind::UnsupportedScheme);
}

#[test]
fn invalid_urls_and_other_schemes_are_refused() {
    for (url, kind) in [
        ("file:///etc/passwd", ErrorKind::UnsupportedScheme),
        ("ftp://host/track", ErrorKind::UnsupportedScheme),
        ("track.flac", ErrorKind::InvalidUrl),
        ("http://", ErrorKind::InvalidUrl),
        ("http://host:99999/", ErrorKind::InvalidUrl),
        ("", ErrorKind::InvalidUrl),
    ] {
        assert_eq!(open(url).kind(), kind, "{url}");
    }
}

#[test]
fn a_response_that_is_not_http_is_a_protocol_error() {
    let error = open_error(Answer::raw(*b"220 mail.example ESMTP\r\n\r\n"));
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[test]
fn an_encoded_body_is_refused() {
    let gzip = Answer::whole(&Content::pattern(1000)).header("Content-Encoding", "gzip");
    assert_eq!(open_error(gzip).kind(), ErrorKind::Encoded);
}

#[test]
fn a_response_with_another_range_is_refused() {
    let content = Content::pattern(1_000_000);
    for range in ["bytes 100-262243/1000000", "items 0-262143/1000000", "bytes 278076-278075/278076"] {
        let answer = Answer::whole(&content).partial(0..262_144).header("Content-Range", range);
        assert_eq!(open_error(answer).kind(), ErrorKind::WrongRange, "{range}");
    }
}

#[test]
fn a_limit_may_be_the_longest_duration() {
    let origin = Origin::serving(Content::pattern(400_000));
    let mut config = DownloaderConfig::default();
    let forever = Duration::MAX;
    config.client.resolve_timeout = forever;
    config.client.resolve_cache = forever;
    config.client.connect_timeout = forever;
    config.client.silence_timeout = forever;
    config.client.max_idle_age = forever;
    config.prefetch_delay = Duration::ZERO;
    config.aging_threshold = forever;
    config.soft_timeout = forever;
    config.hang_timeout = forever;
    let downloader = Downloader::new(config).unwrap();
    let events = downloader.subscribe();
    let mut config = FileConfig::default();
    config.read_timeout = Some(forever);
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    stream.handle().wait_range(0..400_000, Some(forever)).unwrap();
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    assert_eq!(body.len(), 400_000);
    assert!(events.recv_timeout(forever).is_some());
}
