//! The target of a redirect is remembered, and replaced when it fails. And servers that refuse ranges, but serve the whole file.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::peers::downloader;
use support::{Answer, Content, Origin, Request};
use windway::config::{CookieJar, Cookies, ReadAhead};
use windway::{ErrorKind, Fetch, FileConfig, Priority, Stream};

const LEN: u64 = 3_000_000;

/// Reads `len` bytes at `position`, and checks them.
fn read_at(stream: &mut Stream, position: u64, len: usize) {
    stream.seek(SeekFrom::Start(position)).unwrap();
    let mut buf = vec![0; len];
    stream.read_exact(&mut buf).unwrap();
    assert_pattern(position, &buf);
}

/// The error of a read at `position`.
fn error_at(stream: &mut Stream, position: u64) -> windway::Error {
    stream.seek(SeekFrom::Start(position)).unwrap();
    windway::Error::from(stream.read(&mut [0; 100]).unwrap_err())
}

/// A short read-ahead, so that each seek causes a request.
fn short_config() -> FileConfig {
    let mut config = FileConfig::default();
    config.read_ahead = ReadAhead::Bytes(64 * 1024);
    config
}

fn paths(origin: &Origin) -> Vec<String> {
    origin.log().requests.into_iter().map(|request| request.path).collect()
}

#[test]
fn a_new_redirect_target_is_requested_first_from_then_on() {
    for status in [400, 401, 403, 404, 410] {
        assert_leaves_target(&format!("status {status}"), move || Answer::status(status));
    }
    assert_leaves_target("a page", login);
}

/// The first target answers with `expired` from its second request on. The original URL redirects to another target then.
fn assert_leaves_target(how: &str, expired: impl Fn() -> Answer + Send + Sync + 'static) {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/song" if request.again == 0 => Answer::redirect(302, "/signed1"),
        "/song" => Answer::redirect(302, "/signed2"),
        "/signed1" if request.again > 0 => expired(),
        _ => Answer::file(request, &content),
    });
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    for position in [1_000_000, 1_500_000, 2_000_000, 2_500_000] {
        read_at(&mut stream, position, 1000);
    }
    let paths = paths(&origin);
    let count = |path: &str| paths.iter().filter(|request| *request == path).count();
    // The opening, and the request that finds the target expired. Two parallel pieces may both find that.
    assert!(count("/signed1") <= 3, "{how}: {paths:?}");
    assert!(count("/song") <= 3, "{how}: {paths:?}");
    assert!(count("/signed2") >= 4, "{how}: {paths:?}");
}

#[test]
fn an_html_page_at_the_new_redirect_target_is_not_taken_for_the_file() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/song" => Answer::redirect(302, "/signed"),
        "/signed" if (1..4).contains(&request.again) => login(),
        _ => Answer::file(request, &content),
    });
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    read_at(&mut stream, 2_000_000, 1000);
    assert!(paths(&origin).iter().filter(|path| *path == "/signed").count() >= 4);
}

/// As of a script that takes each part for the whole file.
#[test]
fn a_total_length_that_ends_with_each_part_is_ignored() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match request.range() {
            Some((first, last)) if first < LEN => {
                let end = last.map_or(LEN, |last| LEN.min(last + 1));
                answer.header("Content-Range", &format!("bytes {first}-{}/{end}", end - 1))
            }
            _ => answer,
        }
    });
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    assert_eq!((body.len() as u64, stream.len()), (LEN, Some(LEN)));
    assert_pattern(0, &body);
}

/// An HTML page in place of the file.
fn login() -> Answer {
    Answer::raw(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 19\r\nConnection: close\r\n\r\n<html>Log in</html>",
    )
}

/// `/song` redirects to a first target until that is dead, and from then on to a second one.
struct Moving {
    origin: Origin,
    first: Origin,
    second: Origin,
    is_dead: Arc<AtomicBool>,
}

impl Moving {
    /// `dead` is what the first target makes of its answers once it is dead.
    fn start(dead: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Self {
        let content = Content::pattern(LEN);
        let is_dead = Arc::new(AtomicBool::new(false));
        let first = {
            let (content, is_dead) = (content.clone(), Arc::clone(&is_dead));
            Origin::start(move |request| {
                let answer = Answer::file(request, &content);
                if is_dead.load(Ordering::Acquire) { dead(answer) } else { answer }
            })
        };
        let second = Origin::serving(content);
        let targets = [first.url("/a"), second.url("/b")];
        let leads = Arc::clone(&is_dead);
        let origin = Origin::start(move |_| {
            Answer::redirect(302, &targets[usize::from(leads.load(Ordering::Acquire))])
        });
        Self { origin, first, second, is_dead }
    }
}

/// The failure of a target that has served before.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// It does not listen any more.
    Refuses,
    /// It accepts, and sends no response head.
    IsSilent,
    Breaks,
    Has(u16),
}

/// A connection that is closed without an answer looks like one that was closed while it was idle, so the request is sent again.
/// But the server may have got the first one.
#[test]
fn a_target_that_serves_one_request_and_does_not_answer_it_is_replaced() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/song" => Answer::redirect(302, &format!("/once-{}", request.again)),
        "/once-0" if request.again == 0 => Answer::file(request, &content).reset_in_head(0),
        _ if request.again > 0 => Answer::status(403),
        _ => Answer::file(request, &content),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let mut body = Vec::new();
    peer.execute(Fetch::get(&origin.url("/song")).unwrap()).unwrap().read_to_end(&mut body).unwrap();
    assert_pattern(0, &body);
    assert_eq!(paths(&origin), ["/song", "/once-0", "/once-0", "/song", "/once-1"]);
}

#[test]
fn a_target_that_refuses_a_repeated_request_is_not_asked_a_third_time() {
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/song" => Answer::redirect(302, "/once"),
        _ if request.again > 0 => Answer::status(403),
        _ => Answer::status(403).reset_in_head(0),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let error = peer.execute(Fetch::get(&origin.url("/song")).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status(403));
    assert_eq!(paths(&origin), ["/song", "/once", "/once", "/song"]);
}

#[test]
fn a_dead_redirect_target_is_replaced_at_once_by_the_current_one() {
    for death in
        [Death::Refuses, Death::IsSilent, Death::Breaks, Death::Has(500), Death::Has(502), Death::Has(503)]
    {
        let moving = Moving::start(move |answer| match death {
            Death::IsSilent => answer.latency_until_released(),
            Death::Has(status) => Answer::status(status).header("Retry-After", "30"),
            Death::Refuses | Death::Breaks => answer.close_in_head(0),
        });
        let Moving { origin, first, second, is_dead } = moving;
        let downloader = downloader(|config| config.client.silence_timeout = Duration::from_millis(500));
        let mut config = short_config();
        // Neither a retry nor a timeout may help.
        config.read_timeout = Some(Duration::from_secs(20));
        let mut stream = downloader.open_with(&origin.url("/song"), config).unwrap();
        read_at(&mut stream, 0, 1000);
        is_dead.store(true, Ordering::Release);
        if matches!(death, Death::Refuses) {
            first.stop_listening();
        }
        for position in [1_000_000, 1_500_000, 2_000_000] {
            read_at(&mut stream, position, 1000);
        }
        let (request, log) = (first.log().requests.len(), second.log().requests.len());
        assert!(log >= 3, "{death:?}: {log}");
        // Replaced after the first failure: one request for each running piece, and one in place of each stale connection.
        assert!(request <= 6, "{death:?}: {request}");
        assert!(origin.log().requests.len() <= 4, "{death:?}: {:?}", origin.log().requests);
    }
}

#[test]
fn a_redirect_target_whose_bodies_fall_silent_is_replaced() {
    let Moving { origin, is_dead, first: _first, second: _second } =
        Moving::start(|answer| answer.stall_after(0));
    let downloader = downloader(|config| config.client.silence_timeout = Duration::from_millis(300));
    let mut stream = downloader.open_with(&origin.url("/song"), short_config()).unwrap();
    is_dead.store(true, Ordering::Release);
    read_at(&mut stream, 1_000_000, 200_000);
    read_at(&mut stream, 2_000_000, 200_000);
}

#[test]
fn the_error_of_the_original_url_is_returned_if_it_fails_after_its_target() {
    let content = Content::pattern(LEN);
    let target = Origin::serving(content);
    let to = target.url("/a");
    let origin =
        Origin::start(
            move |request| {
                if request.again == 0 { Answer::redirect(302, &to) } else { Answer::status(404) }
            },
        );
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    read_at(&mut stream, 0, 1000);
    target.stop_listening();
    let error = error_at(&mut stream, 2_000_000);
    assert_eq!(error.status(), Some(404), "{error:?}");
}

#[test]
fn a_dead_redirect_target_is_not_requested_twice_in_a_row() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/song" => Answer::redirect(302, "/target"),
        "/target" if request.again > 0 => Answer::status(403),
        _ => Answer::file(request, &content),
    });
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    read_at(&mut stream, 0, 1000);
    let error = error_at(&mut stream, 2_000_000);
    assert_eq!(error.status(), Some(403), "{error:?}");
    let paths = paths(&origin);
    assert!(!paths.windows(3).any(|three| three == ["/target", "/target", "/target"]), "{paths:?}");
}

#[test]
fn an_html_page_is_not_remembered_as_a_redirect_target() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/song" if request.again == 1 => Answer::redirect(302, "/login"),
        "/song" => Answer::redirect(302, &format!("/signed{}", request.again)),
        "/login" => Answer::whole(&Content::bytes(&b"<!DOCTYPE html><html></html>"[..]))
            .header("Content-Type", "text/html"),
        "/signed0" if request.again > 0 => Answer::status(403),
        _ => Answer::file(request, &content),
    });
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    read_at(&mut stream, 0, 1000);
    // It waits until the page has gone.
    read_at(&mut stream, 1_000_000, 1000);
    assert_eq!(origin.log().requests.iter().filter(|request| request.path == "/login").count(), 1);
}

/// Answers `status` to ranges from a byte on, and serves the whole file.
fn refuses_ranges(request: &Request, content: &Content, from: u64, status: u16) -> Answer {
    match request.range() {
        Some((first, _)) if first >= from => Answer::status(status),
        Some(_) => Answer::file(request, content),
        None => Answer::whole(content).header("ETag", &content.etag()),
    }
}

#[test]
fn a_file_whose_ranges_are_refused_is_read_by_one_request_for_the_whole() {
    for from in [0, 1] {
        for status in [400, 403, 404, 405, 406, 416] {
            let content = Content::pattern(LEN);
            let origin = Origin::start(move |request| refuses_ranges(request, &content, from, status));
            let mut stream =
                downloader(|_| ()).open_with(&origin.url("/song"), FileConfig::default()).unwrap();
            let mut body = Vec::new();
            stream.read_to_end(&mut body).unwrap_or_else(|error| panic!("{from} {status}: {error:?}"));
            assert_eq!(body.len() as u64, LEN, "{from} {status}");
            assert_pattern(0, &body);
            // Back, and forward from there.
            read_at(&mut stream, 500_000, 1000);
        }
    }
}

#[test]
fn a_seek_whose_range_is_refused_is_served_from_the_whole() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| refuses_ranges(request, &content, 1, 403));
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    read_at(&mut stream, 2_000_000, 1000);
    read_at(&mut stream, 100, 1000);
}

#[test]
fn a_forbidden_file_fails_with_its_status_after_one_more_request() {
    for status in [400, 401, 403, 404, 410] {
        let origin = Origin::start(move |_| Answer::status(status));
        let error = downloader(|_| ()).open(&origin.url("/song")).unwrap_err();
        assert_eq!(error.status(), Some(status), "{error:?}");
        assert!(origin.log().requests.len() <= 2, "{status}: {:?}", origin.log().requests);
    }
    // The same for a file that is forbidden later.
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        if request.number == 0 { Answer::file(request, &content) } else { Answer::status(403) }
    });
    let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), short_config()).unwrap();
    let error = error_at(&mut stream, 2_000_000);
    assert_eq!(error.status(), Some(403), "{error:?}");
    assert!(origin.log().requests.len() <= 4, "{:?}", origin.log().requests);
}

#[test]
fn a_whole_file_transformed_by_a_proxy_is_read() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |_| Answer::whole(&content).with_status(203));
    let downloader = downloader(|_| ());
    let mut stream = downloader.open(&origin.url("/song")).unwrap();
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    assert_eq!(body.len() as u64, LEN);
    assert_pattern(0, &body);
    let peer = downloader.register((), Priority::High).unwrap();
    let mut response = peer.execute(Fetch::get(&origin.url("/song")).unwrap()).unwrap();
    assert!(!response.head().is_partial());
    assert_eq!((response.head().status(), response.head().total()), (203, Some(LEN)));
    assert_whole(&mut response, LEN);
}

#[test]
fn a_truncated_transformed_file_has_not_ended() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |_| Answer::whole(&content).with_status(203).close_after(1000));
    let downloader = downloader(|config| config.max_retries = 0);
    let peer = downloader.register((), Priority::High).unwrap();
    let mut response = peer.execute(Fetch::get(&origin.url("/song")).unwrap()).unwrap();
    let error = windway::Error::from(response.read_to_end(&mut Vec::new()).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[test]
fn a_broken_body_whose_rest_is_refused_continues_from_the_whole() {
    // Held, so that it is not hedged on a busy machine: the requests are counted.
    let get = |origin: &Origin| Fetch::get(&origin.url("/song")).unwrap().held(Duration::from_secs(60));
    for status in [403, 416] {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |request| {
            let answer = refuses_ranges(request, &content, 0, status);
            if request.number == 0 { answer.close_after(1_000_000) } else { answer }
        });
        let peer = downloader(|_| ()).register((), Priority::High).unwrap();
        let mut response = peer.execute(get(&origin)).unwrap();
        assert_whole(&mut response, LEN);
        assert_eq!(origin.log().requests.len(), 3);
    }
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::file(request, &content).close_after(1_000_000),
        _ => Answer::status(403),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let mut response = peer.execute(get(&origin)).unwrap();
    let error = windway::Error::from(response.read_to_end(&mut Vec::new()).unwrap_err());
    assert_eq!((error.status(), origin.log().requests.len()), (Some(403), 3));
}

/// Keeps one cookie for each host and port.
#[derive(Clone, Default)]
struct Jar(Arc<Mutex<HashMap<String, String>>>);

fn authority(url: &str) -> String {
    url.split('/').nth(2).unwrap().to_owned()
}

impl CookieJar for Jar {
    fn cookies(&self, url: &str) -> Option<String> {
        self.0.lock().unwrap().get(&authority(url)).cloned()
    }

    fn store(&self, url: &str, set_cookie: &str) {
        self.0.lock().unwrap().insert(authority(url), set_cookie.split(';').next().unwrap().to_owned());
    }
}

#[test]
fn a_jar_gets_the_cookies_of_redirects_and_gives_each_to_its_own_url() {
    let other = Origin::start(|request| {
        Answer::file(request, &Content::pattern(LEN)).header("Set-Cookie", "other=1; Path=/")
    });
    let target = other.url("/content");
    let login = Origin::start(move |request| match request.path.as_str() {
        "/login" => Answer::redirect(302, "/song").header("Set-Cookie", "session=secret; HttpOnly"),
        _ => Answer::redirect(302, &target),
    });
    let jar = Jar::default();
    let downloader = downloader(|config| config.client.cookies = Some(Cookies::new(jar.clone())));
    let mut stream = downloader.open_with(&login.url("/login"), short_config()).unwrap();
    read_at(&mut stream, 0, 1000);
    read_at(&mut stream, 1_500_000, 1000);
    // The suffix request goes beside the opening one, so either may be the first at an origin.
    let cookies = |origin: &Origin| -> Vec<Option<String>> {
        let log = origin.log();
        let requests = log.suffixes.iter().chain(&log.requests);
        requests.map(|request| request.header("cookie").map(str::to_owned)).collect()
    };
    let at_login = cookies(&login);
    assert!(
        at_login.contains(&None) && at_login.contains(&Some("session=secret".to_owned())),
        "{at_login:?}"
    );
    let sent = cookies(&other);
    assert!(sent.contains(&None), "{sent:?}");
    assert_eq!(sent.last().unwrap().as_deref(), Some("other=1"), "{sent:?}");
    assert!(!sent.iter().flatten().any(|cookie| cookie.contains("secret")), "{sent:?}");
    let shown = format!("{downloader:?} {:?}", stream.handle());
    assert!(!shown.contains("secret"), "{shown}");
}

/// Without a jar no cookie is kept, as before.
#[test]
fn cookies_are_ignored_without_a_jar_and_a_jar_that_panics_sends_none() {
    struct Panicking;

    impl CookieJar for Panicking {
        fn cookies(&self, _: &str) -> Option<String> {
            panic!("no cookie today")
        }

        fn store(&self, _: &str, _: &str) {
            panic!("no cookie today")
        }
    }

    for jar in [None, Some(Cookies::new(Panicking))] {
        let origin = Origin::start(|request| {
            Answer::file(request, &Content::pattern(LEN)).header("Set-Cookie", "a=1")
        });
        let downloader = downloader(|config| config.client.cookies = jar);
        let mut stream = downloader.open_with(&origin.url("/a"), short_config()).unwrap();
        read_at(&mut stream, 0, 1000);
        read_at(&mut stream, 1_500_000, 1000);
        assert!(origin.log().requests.iter().all(|request| request.header("cookie").is_none()));
    }
}
