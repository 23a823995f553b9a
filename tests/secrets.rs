//! No error, event, log line or `Debug` shows a password, a signed query, a token or a header value.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use support::{Answer, Content, Origin, Request, Station};
use windway::config::Auth;
use windway::downloader::{Next, Outcome, Sink};
use windway::media::MediaInfo;
use windway::radio::RadioEvent;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority, RadioConfig};

/// Part of each secret. Hosts, paths and names may be shown.
const SECRET: &str = "S3CR3T";
/// `user:S3CR3T-password` in base64.
const BASIC: &str = "dXNlcjpTM0NSM1QtcGFzc3dvcmQ";

/// Lines of the log so far.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // At `Trace` ureq logs all bytes that it sends. Only the level can prevent that.
        metadata.target().starts_with("windway") || metadata.level() <= log::Level::Debug
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.lock().unwrap().push(format!("{}: {}", record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}

fn install_log() {
    static LOGGER: Lines = Lines;
    // Another test of this process may have installed it already.
    drop(log::set_logger(&LOGGER));
    log::set_max_level(log::LevelFilter::Trace);
}

#[track_caller]
fn assert_clean(text: &str) {
    let shown = text.contains(SECRET) || text.to_uppercase().contains(SECRET) || text.contains(BASIC);
    assert!(!shown, "a secret is shown: {text}");
}

#[track_caller]
fn assert_debug_clean(value: &impl Debug) {
    assert_clean(&format!("{value:?}"));
    assert_clean(&format!("{value:#?}"));
}

/// Checks all texts of an error and of its causes.
#[track_caller]
fn assert_error_clean(error: &Error) {
    assert_clean(&format!("{error}\n{error:#}"));
    assert_debug_clean(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        assert_clean(&format!("{error}\n{error:#}\n{error:?}\n{error:#?}"));
        cause = error.source();
    }
    let io = io::Error::from(error.clone());
    assert_clean(&format!("{io}\n{io:?}\n{io:#?}"));
    assert_error_is_ours(&io);
}

fn assert_error_is_ours(io: &io::Error) {
    assert!(io.get_ref().is_some_and(|inner| inner.is::<Error>()));
}

/// A URL of `origin` with a secret in each part that may contain one.
fn secret_url(origin: &Origin, path: &str) -> String {
    with_secrets(&origin.url(path))
}

fn with_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    format!("{scheme}://user:{SECRET}-password@{rest}?token={SECRET}-1&e=1&{SECRET}-2#{SECRET}-3")
}

fn config(change: impl FnOnce(&mut DownloaderConfig)) -> DownloaderConfig {
    let mut config = DownloaderConfig::default();
    config.max_retries = 1;
    config.client.connect_timeout = Duration::from_secs(5);
    config.client.default_headers.push(("x-everywhere".into(), format!("{SECRET}-header")));
    let token = Auth::Bearer(format!("{SECRET}-bearer"));
    config.client.auth.push((format!("http://user:{SECRET}@example.com/?a={SECRET}"), token));
    change(&mut config);
    config
}

fn file_config() -> FileConfig {
    let mut config = FileConfig::default();
    config.headers.push(("x-key".into(), format!("{SECRET}-key")));
    config
}

/// For a file that can't be read: its reads end soon, although the network is retried for longer.
fn failing_file_config() -> FileConfig {
    let mut config = file_config();
    config.read_timeout = Some(Duration::from_millis(500));
    config
}

fn radio_config() -> RadioConfig {
    let mut config = RadioConfig::default();
    config.headers.push(("x-key".into(), format!("{SECRET}-key")));
    config.give_up = Some(Duration::ZERO);
    config
}

/// Fetches `url` in all ways, and checks what the failures show. Returns their kinds.
#[track_caller]
fn assert_failures_clean(downloader: &Downloader, url: &str) -> Vec<ErrorKind> {
    assert_fetches_clean(downloader, url, failing_file_config())
}

#[track_caller]
fn assert_fetches_clean(downloader: &Downloader, url: &str, file: FileConfig) -> Vec<ErrorKind> {
    let mut kinds = Vec::new();
    let mut note = |error: Error| {
        assert_error_clean(&error);
        kinds.push(error.kind());
    };
    let events = downloader.subscribe();
    match downloader.open_with(url, file) {
        Err(error) => note(error),
        Ok(mut stream) => {
            assert_debug_clean(&stream);
            let handle = stream.handle();
            let fetches = handle.subscribe();
            if let Err(error) = io::copy(&mut stream, &mut io::sink()) {
                assert_clean(&format!("{error} {error:?}"));
                note(Error::from(error));
            }
            assert_debug_clean(&handle);
            drop(stream);
            std::iter::from_fn(|| fetches.try_recv()).for_each(|event| assert_debug_clean(&event));
        }
    }
    match Fetch::get(url) {
        Err(error) => note(error),
        Ok(fetch) => {
            let fetch = fetch.header("x-key", &format!("{SECRET}-key")).unwrap();
            assert_debug_clean(&fetch);
            let peer = downloader.register((), Priority::High).unwrap();
            match peer.execute(fetch) {
                Err(error) => note(error),
                Ok(mut response) => {
                    assert_debug_clean(&response);
                    assert_debug_clean(response.head());
                    if let Err(error) = response.read_to_end(&mut Vec::new()) {
                        note(Error::from(error));
                    }
                }
            }
        }
    }
    kinds.extend(assert_radio_clean(downloader, url));
    while let Some(event) = events.try_recv() {
        assert_debug_clean(&event);
    }
    assert_debug_clean(downloader);
    kinds
}

/// As `assert_failures_clean`, for a radio alone, of which 50,000 bytes are read.
#[track_caller]
fn assert_radio_clean(downloader: &Downloader, url: &str) -> Option<ErrorKind> {
    let mut kind = None;
    let mut note = |error: Error| {
        assert_error_clean(&error);
        kind = Some(error.kind());
    };
    match downloader.open_radio(url, radio_config()) {
        Err(error) => note(error),
        Ok(mut radio) => {
            let handle = radio.handle();
            let events = handle.subscribe();
            if let Err(error) = io::copy(&mut radio.by_ref().take(50_000), &mut io::sink()) {
                note(Error::from(error));
            }
            assert_debug_clean(&(&radio, &handle));
            assert_debug_clean(&(handle.info(), handle.now_playing(), handle.media_info(), handle.stats()));
            drop(radio);
            events.for_each(|event| {
                assert_debug_clean(&event);
                if let RadioEvent::Ended { error, .. } | RadioEvent::Reconnecting { error, .. } = event {
                    assert_error_clean(&error);
                }
            });
        }
    }
    kind
}

/// As `assert_failures_clean`, for a server with these responses. Each way has to fail, and at least one with `kind`.
#[track_caller]
fn assert_answers_clean(kind: ErrorKind, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
    let origin = Origin::start(answer);
    let downloader = Downloader::new(config(|config| {
        config.client.silence_timeout = Duration::from_millis(300);
        config.client.max_redirects = 3;
        config.max_retries = 0;
    }))
    .unwrap();
    let kinds = assert_failures_clean(&downloader, &secret_url(&origin, "/track"));
    assert!(kinds.contains(&kind), "{kinds:?}");
}

fn assert_log_clean() {
    let lines = LINES.lock().unwrap();
    assert!(!lines.is_empty());
    lines.iter().for_each(|line| assert_clean(line));
}

#[test]
fn an_invalid_url_shows_nothing_of_its_text() {
    install_log();
    let downloader = Downloader::new(config(|_| ())).unwrap();
    for text in [
        format!("http://user:{SECRET}@"),
        format!("http://user:{SECRET}@host:99999/a?b={SECRET}"),
        format!("http://user:pa?{SECRET}@host:x/"),
        format!("http://user:pa/{SECRET}@host/"),
        format!("user:{SECRET}@host/a"),
        format!("{SECRET}@host/a"),
        format!("//user:{SECRET}@host/a"),
        format!("ftp://user:{SECRET}@host/a?b={SECRET}"),
        format!("data:text/plain,{SECRET}"),
        format!("{SECRET}:x@host"),
        SECRET.to_owned(),
    ] {
        assert_failures_clean(&downloader, &text);
        downloader.preconnect(&text, 1).inspect_err(assert_error_clean).unwrap_err();
    }
    assert_log_clean_if_any();
}

fn assert_log_clean_if_any() {
    LINES.lock().unwrap().iter().for_each(|line| assert_clean(line));
}

#[test]
fn errors_of_servers_show_no_secret() {
    install_log();
    let to = |location: String| move |_: &Request| Answer::redirect(302, &location);
    let secrets = format!("user:{SECRET}@127.0.0.1:9/x?token={SECRET}#{SECRET}");
    assert_answers_clean(ErrorKind::Redirect, to(format!("/track?token={SECRET}-4")));
    assert_answers_clean(ErrorKind::Redirect, |request| {
        Answer::redirect(302, &format!("/track?token={SECRET}-{}", request.number))
    });
    assert_answers_clean(ErrorKind::UnsupportedScheme, to(format!("ftp://{secrets}")));
    assert_answers_clean(ErrorKind::UnsupportedScheme, to(format!("data:{SECRET}")));
    assert_answers_clean(ErrorKind::Redirect, to(format!("http://user:{SECRET}@host:99999/")));
    assert_answers_clean(ErrorKind::Redirect, |_| {
        Answer::status(302).header("Set-Cookie", &format!("session={SECRET}"))
    });
    for status in [401, 403, 404, 410, 416, 500, 503] {
        assert_answers_clean(ErrorKind::Status(status), move |_| {
            let secret = format!("id={SECRET}");
            Answer::status(status).header("Set-Cookie", &secret).header("Location", &secret)
        });
    }
    let content = Content::pattern(600_000);
    let file = content.clone();
    assert_answers_clean(ErrorKind::WrongRange, move |request| match request.range() {
        Some(_) => Answer::whole(&file).partial(7..9).header("Set-Cookie", &format!("session={SECRET}")),
        None => Answer::status(410),
    });
    let file = content.clone();
    assert_answers_clean(ErrorKind::Changed, move |request| match request.range() {
        Some((0, _)) => Answer::file(request, &file),
        Some(_) => Answer::file(request, &file).header("ETag", &format!("\"{SECRET}\"")),
        None => Answer::status(410),
    });
    assert_answers_clean(ErrorKind::Silent, |_| Answer::status(200).latency_until_released());
    let page = Content::bytes(
        format!("<!DOCTYPE html><a href=\"http://user:{SECRET}@h/\">{SECRET}</a>").into_bytes(),
    );
    assert_answers_clean(ErrorKind::NotMedia, move |_| {
        Answer::whole(&page).header("Content-Type", "text/html").header("Set-Cookie", &format!("a={SECRET}"))
    });
    let list =
        Content::bytes(format!("#EXTM3U\nhttp://user:{SECRET}@host/live?token={SECRET}\n").into_bytes());
    assert_answers_clean(ErrorKind::NotMedia, move |_| {
        Answer::whole(&list).header("Content-Type", "audio/x-mpegurl")
    });
    for garbage in [
        format!("{SECRET}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{SECRET}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {SECRET}\0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {SECRET}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", SECRET.repeat(20_000)),
        format!("HTTP/1.1 302 Found\r\nLocation: http://{SECRET}:\u{1}\r\n\r\n"),
    ] {
        let origin = Origin::start(move |_| Answer::raw(garbage.clone().into_bytes()));
        let downloader = Downloader::new(config(|config| config.max_retries = 0)).unwrap();
        assert_failures_clean(&downloader, &secret_url(&origin, "/track"));
    }
    assert_log_clean();
}

/// A server that answers every request with the bytes of `answer`, HTTP or not. Returns its address.
fn answering(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            drop(client.read(&mut [0; 1024]));
            drop(client.write_all(answer.as_bytes()));
        }
    });
    address
}

#[test]
fn errors_of_the_network_show_no_secret() {
    install_log();
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("127.0.0.1:{}", listener.local_addr().unwrap().port())
    };
    let downloader = Downloader::new(config(|_| ())).unwrap();
    let kinds = assert_failures_clean(&downloader, &with_secrets(&format!("http://{refused}/a")));
    assert!(kinds.contains(&ErrorKind::Refused), "{kinds:?}");
    let kinds = assert_failures_clean(&downloader, &with_secrets("http://nowhere.invalid/a"));
    assert!(!kinds.is_empty());

    let tls = Origin::start_tls(|_| Answer::status(404));
    let kinds = assert_failures_clean(&downloader, &secret_url(&tls, "/a"));
    assert!(kinds.contains(&ErrorKind::Tls), "{kinds:?}");
    let plain = Origin::start(|_| Answer::status(404));
    let no_tls = answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".into());
    let kinds = assert_failures_clean(&downloader, &with_secrets(&format!("https://{no_tls}/a")));
    assert!(kinds.contains(&ErrorKind::Tls), "{kinds:?}");

    let proxy = |url: &str| {
        let url = url.to_owned();
        Downloader::new(config(move |config| config.client.proxy = Some(url)))
    };
    let through = proxy(&format!("http://user:{SECRET}-password@{refused}")).unwrap();
    assert!(!assert_failures_clean(&through, &secret_url(&plain, "/a")).is_empty());
    let address = answering(format!(
        "HTTP/1.1 407 {SECRET}\r\nProxy-Authenticate: {SECRET}\r\nContent-Length: 6\r\n\r\n{SECRET}"
    ));
    let through = proxy(&format!("http://user:{SECRET}-password@{address}")).unwrap();
    assert!(!assert_failures_clean(&through, &secret_url(&plain, "/a")).is_empty());
    for text in [
        format!("http://user:{SECRET}@"),
        format!("http://user:{SECRET}@host:99999"),
        format!("https://user:{SECRET}@host:1"),
        format!("socks5://user:{SECRET}@host:1"),
        SECRET.to_owned(),
    ] {
        if let Err(error) = proxy(&text) {
            assert_error_clean(&error);
        }
    }
    assert_log_clean();
}

#[test]
fn configurations_show_no_secret() {
    install_log();
    let wrong = |change: &dyn Fn(&mut DownloaderConfig)| {
        let error = Downloader::new(config(|config| change(config))).unwrap_err();
        assert_error_clean(&error);
    };
    wrong(&|config| config.client.default_headers.push(("x".into(), format!("{SECRET}\n"))));
    wrong(&|config| config.client.default_headers.push((format!("Authorization: {SECRET}"), "x".into())));
    wrong(&|config| config.client.user_agent = format!("{SECRET}\n"));
    wrong(&|config| config.client.auth.push((format!("http://u:{SECRET}@"), Auth::Bearer(SECRET.into()))));
    wrong(&|config| config.client.auth.push(("http://host".into(), Auth::Bearer(format!("{SECRET}\n")))));
    let password = || Auth::Basic { user: format!("{SECRET}:"), password: SECRET.into() };
    wrong(&|config| config.client.auth.push(("http://host".into(), password())));

    let downloader = Downloader::new(config(|_| ())).unwrap();
    let origin = Origin::serving(Content::pattern(1000));
    for (name, value) in
        [("x-key".to_owned(), format!("{SECRET}\n")), (format!("Bearer {SECRET}"), "x".into())]
    {
        let header = || (name.clone(), value.clone());
        let mut file = file_config();
        file.headers.push(header());
        let url = secret_url(&origin, "/a");
        assert_error_clean(&downloader.open_with(&url, file.clone()).unwrap_err());
        let mut radio = radio_config();
        radio.headers.push(header());
        assert_error_clean(&downloader.open_radio(&url, radio.clone()).unwrap_err());
        let error = Fetch::get(&url).unwrap().header(&name, &value).unwrap_err();
        assert_error_clean(&error);
        assert_debug_clean(&(file, radio));
    }
    let mut with_roots = config(|config| {
        config.client.proxy = Some(format!("http://user:{SECRET}@host:1"));
        config.client.extra_roots.push(vec![7; 1 << 10]);
    });
    assert_debug_clean(&with_roots);
    assert_debug_clean(&with_roots.client);
    let shown = format!("{with_roots:?}");
    assert!(shown.contains("x-everywhere") && shown.contains("host:1"), "{shown}");
    // The text of an invalid value may be long, and helps no reader.
    with_roots.client.extra_roots = vec![vec![7; 1 << 20]];
    assert!(format!("{with_roots:?}").len() < 4000);
    with_roots.client.proxy = Some(SECRET.into());
    with_roots.client.auth.push((SECRET.into(), Auth::Bearer(SECRET.into())));
    assert_debug_clean(&with_roots);
    let shown = format!("{:?}", file_config());
    assert!(shown.contains("x-key"), "{shown}");
}

struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: Outcome) {}
}

#[test]
fn successful_fetches_show_no_secret() {
    install_log();
    let content = Content::pattern(300_000);
    let station = Station {
        audio: Content::endless(),
        interval: 1000,
        every: 2,
        titles: vec!["a", "b';StreamUrl='http://user:S3CR3T@host/?id=S3CR3T"],
    };
    let origin = Origin::start(move |request| {
        let path = request.path.split('?').next().unwrap_or_default();
        match path {
            "/moved" => Answer::redirect(302, &format!("/track.mp3?signature={SECRET}-5")),
            "/live" => {
                let url = format!("http://user:{SECRET}@host/?id={SECRET}");
                Answer::station(request, &station).header("icy-url", &url)
            }
            _ => Answer::file(request, &content).header("Set-Cookie", &format!("session={SECRET}")),
        }
    });
    let downloader = Downloader::new(config(|_| ())).unwrap();
    assert_eq!(assert_fetches_clean(&downloader, &secret_url(&origin, "/moved"), file_config()), []);
    assert_eq!(assert_radio_clean(&downloader, &secret_url(&origin, "/live")), None);

    let mut stream = downloader.open_with(&secret_url(&origin, "/moved"), file_config()).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    let handle = stream.handle();
    assert_debug_clean(&(&stream, &handle, handle.stats(), handle.media_info(), handle.phase()));
    handle.cancel();
    let error = Error::from(
        io::copy(&mut stream, &mut io::sink())
            .err()
            .unwrap_or_else(|| io::Error::from(Error::new(ErrorKind::Empty, "all of it had come"))),
    );
    assert_error_clean(&error);

    let peer = downloader.register((), Priority::High).unwrap();
    let fetch = || Fetch::get(&secret_url(&origin, "/moved")).unwrap().header("x", SECRET).unwrap();
    let response = peer.execute(fetch()).unwrap();
    assert_debug_clean(&(response.head(), response.head().validator(), &response));
    assert_debug_clean(&(&peer, peer.waker(), peer.totals(), downloader.stats(), peer.epoch(), &downloader));
    assert_debug_clean(&Next::fetch(fetch(), Box::new(Nowhere)));
    assert_debug_clean(&MediaInfo::detect(Some(SECRET), &secret_url(&origin, "/a"), SECRET.as_bytes()));
    peer.cancel();
    assert_error_clean(&peer.execute(fetch()).unwrap_err());
    downloader.stop();
    assert_log_clean();
}
