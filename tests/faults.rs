//! What servers do wrong, one test for each trap: plain and over TLS, into a file's reader, into a sink, and into a
//! caller's hands. Every byte that is delivered is checked by its offset; what can't be delivered is an error that names
//! the trap. No trap leads to more than a bounded number of requests.

mod support;

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use support::content::assert_pattern;
use support::peers::{List, collect};
use support::{Answer, Asked, Content, Origin};
use windway::{
    Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Outcome, Priority, StorageConfig,
};

const LEN: u64 = 400_000;

/// What comes of a trap.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// All bytes, and the right ones.
    Right,
    /// An error of one of these kinds.
    Fails(&'static [ErrorKind]),
    /// Either: it depends on what was under way.
    RightOr(&'static [ErrorKind]),
}

use Expect::{Fails, Right, RightOr};

/// How the bytes are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    File,
    WholeFile,
    Sink,
    Caller,
}

/// A server in which something is wrong.
struct Trap {
    name: &'static str,
    answer: fn(&Asked, &Content) -> Answer,
    /// For the reader of a file, which asks for pieces.
    file: Expect,
    /// For one fetch of all.
    fetch: Expect,
}

fn config(origin: &Origin) -> DownloaderConfig {
    let mut config = DownloaderConfig::default();
    config.client.inactivity_timeout = Duration::from_millis(300);
    config.client.min_rate = 5_000;
    config.max_retries = 2;
    if origin.url("").starts_with("https") {
        config.client.extra_roots.push(origin.root_pem());
    }
    config
}

fn check(trap: &Trap) {
    // Side by side: most of the time is spent waiting for limits.
    std::thread::scope(|scope| {
        for tls in [false, true] {
            for way in [Way::File, Way::WholeFile, Way::Sink, Way::Caller] {
                scope.spawn(move || check_one(trap, tls, way));
            }
        }
    });
}

fn check_one(trap: &Trap, tls: bool, way: Way) {
    let (content, answer) = (Content::pattern(LEN), trap.answer);
    let handler = move |asked: &Asked| answer(asked, &content);
    let origin = if tls { Origin::start_tls(handler) } else { Origin::start(handler) };
    let downloader = Downloader::new(config(&origin)).unwrap();
    let url = origin.url("/track.flac");
    let came = match way {
        Way::File | Way::WholeFile => read_file(&downloader, &url, way == Way::WholeFile),
        Way::Sink => read_into_sink(&downloader, &url),
        Way::Caller => read_by_caller(&downloader, &url),
    };
    let expected = if matches!(way, Way::File | Way::WholeFile) { trap.file } else { trap.fetch };
    let is_as_expected = match (&came, expected) {
        (Ok(()), Right | RightOr(_)) => true,
        (Err(error), Fails(kinds) | RightOr(kinds)) => kinds.contains(&error.kind()),
        _ => false,
    };
    let trap = format!("{}, {way:?}, {}", trap.name, if tls { "TLS" } else { "plain" });
    assert!(is_as_expected, "{trap}: {came:?} instead of {expected:?}");
    let asked = origin.log().asked;
    assert!(asked.len() < 60, "{trap}: {} requests", asked.len());
    assert!(asked.iter().all(|asked| asked.method == "GET"), "{trap}");
}

/// Reads in the middle, at the beginning, and then all.
fn read_file(downloader: &Downloader, url: &str, whole: bool) -> Result<(), Error> {
    let mut config = FileConfig::default();
    config.read_timeout = Some(Duration::from_secs(2));
    if whole {
        config.storage = StorageConfig::WholeMemory;
    }
    let mut stream = downloader.open_with(url, config)?;
    let mut buf = [0; 3000];
    for at in [LEN - 50_000, 0] {
        stream.seek(SeekFrom::Start(at))?;
        stream.read_exact(&mut buf)?;
        assert_pattern(at, &buf);
    }
    let mut at = 3000;
    loop {
        let got = stream.read(&mut buf)?;
        if got == 0 {
            assert_eq!(at, LEN, "a wrong end");
            return Ok(());
        }
        assert_pattern(at, &buf[..got]);
        at += got as u64;
    }
}

fn read_into_sink(downloader: &Downloader, url: &str) -> Result<(), Error> {
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High)?;
    let (sink, end) = collect(0);
    list.put(Fetch::get(url)?, sink);
    peer.wake(Priority::High);
    let got = end.recv().unwrap();
    assert_pattern(0, &got.bytes);
    match got.outcome {
        Outcome::Done => {
            assert_eq!(got.bytes.len() as u64, LEN, "a wrong end");
            Ok(())
        }
        Outcome::Failed(error) => Err(error),
        Outcome::Cancelled(reason) => panic!("cancelled {reason}"),
    }
}

fn read_by_caller(downloader: &Downloader, url: &str) -> Result<(), Error> {
    let peer = downloader.register((), Priority::High)?;
    let mut response = peer.execute(Fetch::get(url)?)?;
    let mut body = Vec::new();
    let read = response.read_to_end(&mut body);
    assert_pattern(0, &body);
    read?;
    assert_eq!(body.len() as u64, LEN, "a wrong end");
    Ok(())
}

/// One test for each trap. Where the fetch of all comes to something else than the file's pieces, that stands behind it.
macro_rules! traps {
    ($($name:ident: $file:expr, $fetch:expr, $answer:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check(&Trap { name: stringify!($name), answer: $answer, file: $file, fetch: $fetch });
            }
        )*
    };
}

const WRONG_RANGE: &[ErrorKind] = &[ErrorKind::WrongRange];
const CHANGED: &[ErrorKind] = &[ErrorKind::Changed];
const BROKEN: &[ErrorKind] = &[ErrorKind::Disconnected, ErrorKind::TimedOut];
const BROKEN_OR_SILENT: &[ErrorKind] = &[ErrorKind::Disconnected, ErrorKind::TimedOut, ErrorKind::Silent];
const SILENT: &[ErrorKind] = &[ErrorKind::Silent, ErrorKind::TimedOut];
const NO_HTTP: &[ErrorKind] = &[ErrorKind::Protocol];

fn file(asked: &Asked, content: &Content) -> Answer {
    Answer::file(asked, content)
}

fn is_first(asked: &Asked) -> bool {
    asked.number == 0
}

/// The answer, with another `Content-Range` where it has one.
fn with_range(asked: &Asked, content: &Content, range: &str) -> Answer {
    let answer = file(asked, content);
    if asked.range().is_some() { answer.header("Content-Range", range) } else { answer }
}

/// A good answer after the first, which has this status.
fn once(asked: &Asked, content: &Content, status: u16) -> Answer {
    if is_first(asked) { Answer::status(status).header("Retry-After", "0") } else { file(asked, content) }
}

fn page() -> Content {
    Content::bytes(
        &b"<!DOCTYPE html><html><head><title>Please log in</title></head><body>no</body></html>"[..],
    )
}

traps! {
    a_good_server: Right, Right, file;

    // Ranges.
    a_range_answered_by_200: Right, Right, |_, content| Answer::whole(content);
    another_start: Fails(WRONG_RANGE), Right, |asked, content| {
        asked.range().map_or_else(|| file(asked, content), |(first, _)| file(asked, content).partial(first + 1..LEN))
    };
    another_unit: Fails(WRONG_RANGE), Right, |asked, content| with_range(asked, content, "items 0-10/11");
    an_absurd_range: Fails(WRONG_RANGE), Right, |asked, content| with_range(asked, content, "bytes 278076-278075/278076");
    a_partial_answer_without_its_range: Fails(WRONG_RANGE), Right, |asked, content| file(asked, content).without_header("Content-Range");
    a_partial_answer_to_no_range: Right, Fails(WRONG_RANGE), |asked, content| {
        if asked.range().is_some() { file(asked, content) } else { Answer::whole(content).partial(0..LEN) }
    };
    a_changed_total: Fails(CHANGED), Right, |asked, content| match asked.range() {
        Some((first, Some(last))) if !is_first(asked) => {
            let end = LEN.min(last + 1);
            let range = format!("bytes {first}-{}/{}", end - 1, LEN + 7);
            file(asked, content).header("Content-Range", &range)
        }
        _ => file(asked, content),
    };
    an_unknown_total: Right, Right, |asked, content| match asked.range() {
        Some((first, Some(last))) if first < LEN => {
            let range = format!("bytes {first}-{}/*", LEN.min(last + 1) - 1);
            file(asked, content).header("Content-Range", &range)
        }
        _ => file(asked, content),
    };
    a_shorter_end: Right, Right, |asked, content| match asked.range() {
        Some((first, Some(last))) if first + 10_000 < last.min(LEN) => {
            file(asked, content).partial(first..first + 10_000)
        }
        _ => file(asked, content),
    };
    a_partial_answer_without_bytes: Fails(&[ErrorKind::WrongRange, ErrorKind::TimedOut, ErrorKind::Disconnected]), Right, |asked, content| {
        match asked.range() {
            Some(_) if !is_first(asked) => file(asked, content).close_after(0),
            _ => file(asked, content),
        }
    };
    a_416_where_there_are_bytes: Fails(&[ErrorKind::Status(416)]), Right, |asked, content| {
        if asked.range().is_some_and(|(first, _)| first > 0) { Answer::status(416) } else { file(asked, content) }
    };
    a_416_that_tells_the_length: Fails(&[ErrorKind::Status(416)]), Right, |asked, content| {
        let range = format!("bytes */{LEN}");
        if asked.range().is_some_and(|(first, _)| first > 0) {
            Answer::status(416).header("Content-Range", &range)
        } else {
            file(asked, content)
        }
    };

    // Lengths and framing.
    no_length: Right, Right, |_, content| Answer::whole(content).no_length();
    chunked: Right, Right, |asked, content| file(asked, content).chunked();
    chunked_with_trailers: Right, Right, |asked, content| file(asked, content).trailers(&[("x-sum", "7")]);
    chunked_and_cut_short: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).cut_chunk_after(100_000) } else { file(asked, content) }
    };
    chunked_and_always_cut_short: Fails(BROKEN), Fails(BROKEN), |_, content| Answer::whole(content).cut_chunk_after(100_000);
    closed_before_the_length: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).close_after(100_000) } else { file(asked, content) }
    };
    always_closed_before_the_length: Fails(BROKEN), Fails(BROKEN), |_, content| Answer::whole(content).close_after(100_000);
    a_reset_where_the_close_is_the_end: Fails(BROKEN), Fails(BROKEN), |_, content| Answer::whole(content).no_length().reset_after(100_000);
    more_bytes_than_the_length: Right, Right, |asked, content| file(asked, content).extra_bytes(100);
    a_lying_length: Fails(BROKEN_OR_SILENT), Fails(BROKEN_OR_SILENT), |_, content| {
        Answer::whole(content).header("Content-Length", "4611686018427387904")
    };
    a_negative_length: Fails(NO_HTTP), Fails(NO_HTTP), |_, content| Answer::whole(content).header("Content-Length", "-5");
    two_lengths: Fails(NO_HTTP), Fails(NO_HTTP), |_, _| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n12345")
    };

    // Connections.
    a_reset_in_the_head: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).reset_in_head(20) } else { file(asked, content) }
    };
    a_close_in_the_head: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).close_in_head(20) } else { file(asked, content) }
    };
    a_close_before_the_head: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).close_in_head(0) } else { file(asked, content) }
    };
    a_reset_in_the_body: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).reset_after(50_000) } else { file(asked, content) }
    };
    silence_before_the_head: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).stall_in_head(0) } else { file(asked, content) }
    };
    silence_in_the_head: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).stall_in_head(30) } else { file(asked, content) }
    };
    silence_in_the_body: Right, Right, |asked, content| {
        if asked.number % 2 == 0 { file(asked, content).stall_after(50_000) } else { file(asked, content) }
    };
    nothing_but_silence: Fails(SILENT), Fails(SILENT), |asked, content| file(asked, content).stall_in_head(0);
    a_trickle: Right, Right, |asked, content| {
        let answer = file(asked, content);
        if asked.number % 2 == 0 { answer.trickle(1, Duration::from_millis(10)) } else { answer }
    };
    closed_between_two_requests: Right, Right, |asked, content| file(asked, content).close_when_idle();
    http_1_0: Right, Right, |asked, content| file(asked, content).http10();
    http_1_0_kept_alive: Right, Right, |asked, content| file(asked, content).keep_alive_http10();
    icy_200_ok: Right, Right, |_, content| Answer::whole(content).icy();
    icy_200_ok_split_in_its_protocol: Right, Right, |_, content| Answer::whole(content).icy().split_head(2);
    a_head_split_over_packets: Right, Right, |asked, content| file(asked, content).split_head(7);
    informational_answers_first: Right, Right, |asked, content| file(asked, content).interim(103).interim(100);

    // Representations.
    an_encoded_body: Fails(&[ErrorKind::Encoded]), Fails(&[ErrorKind::Encoded]), |asked, content| {
        file(asked, content).header("Content-Encoding", "gzip")
    };
    another_tag: Fails(CHANGED), Right, |asked, content| {
        file(asked, content).header("ETag", &format!("\"{}\"", asked.number))
    };
    another_date: Fails(CHANGED), Right, |asked, content| {
        let date = format!("Sun, {:02} Nov 1994 08:49:37 GMT", asked.number % 28 + 1);
        file(asked, content).without_header("ETag").header("Last-Modified", &date)
    };
    a_weak_tag: Right, Right, |asked, content| {
        let answer = file(asked, content).header("ETag", "W/\"same\"");
        if asked.number % 2 == 0 { answer.close_after(100_000) } else { answer }
    };
    another_tag_after_a_break: Fails(CHANGED), Fails(CHANGED), |asked, content| {
        let answer = file(asked, content).header("ETag", &format!("\"{}\"", asked.number));
        if is_first(asked) { answer.close_after(100_000) } else { answer }
    };
    a_page_with_200: Fails(&[ErrorKind::NotMedia]), RightOr(&[]), |asked, content| {
        let _ = content; // Whatever was asked for.
        let answer = Answer::whole(&page()).header("Content-Type", "text/html");
        if asked.range().is_some() { answer } else { file(asked, content) }
    };
    a_page_with_206: Fails(&[ErrorKind::NotMedia]), Right, |asked, content| match asked.range() {
        Some(_) => file(asked, &page()).header("Content-Type", "text/html"),
        None => file(asked, content),
    };
    an_empty_file: Fails(&[ErrorKind::Empty]), Right, |asked, content| {
        if asked.range().is_some() { file(asked, &Content::bytes(&b""[..])) } else { file(asked, content) }
    };

    // Redirects.
    moved_301: Right, Right, |asked, content| redirected(asked, content, 301, "/real");
    found_302: Right, Right, |asked, content| redirected(asked, content, 302, "/real");
    see_other_303: Right, Right, |asked, content| redirected(asked, content, 303, "real");
    temporary_307: Right, Right, |asked, content| redirected(asked, content, 307, "/real?q=1");
    permanent_308: Right, Right, |asked, content| redirected(asked, content, 308, "./real#part");
    redirected_in_a_circle: Fails(&[ErrorKind::Redirect]), Fails(&[ErrorKind::Redirect]), |asked, _| {
        Answer::redirect(302, if asked.path == "/a" { "/b" } else { "/a" })
    };
    redirected_too_often: Fails(&[ErrorKind::Redirect]), Fails(&[ErrorKind::Redirect]), |asked, _| {
        Answer::redirect(302, &format!("/{}", asked.number))
    };
    redirected_to_a_disk: Fails(&[ErrorKind::UnsupportedScheme]), Fails(&[ErrorKind::UnsupportedScheme]), |_, _| {
        Answer::redirect(302, "file:///etc/passwd")
    };
    redirected_nowhere: Fails(&[ErrorKind::Redirect]), Fails(&[ErrorKind::Redirect]), |_, _| Answer::status(302);

    // Statuses.
    busy_408_once: Right, Right, |asked, content| once(asked, content, 408);
    busy_425_once: Right, Right, |asked, content| once(asked, content, 425);
    busy_429_once: Right, Right, |asked, content| once(asked, content, 429);
    busy_500_once: Right, Right, |asked, content| once(asked, content, 500);
    busy_502_once: Right, Right, |asked, content| once(asked, content, 502);
    busy_503_once: Right, Right, |asked, content| once(asked, content, 503);
    busy_504_once: Right, Right, |asked, content| once(asked, content, 504);
    busy_for_ever: Fails(&[ErrorKind::Status(503), ErrorKind::TimedOut]), Fails(&[ErrorKind::Status(503)]), |_, _| Answer::status(503);
    forbidden: Fails(&[ErrorKind::Status(403)]), Fails(&[ErrorKind::Status(403)]), |_, _| Answer::status(403);
    a_status_that_answers_nothing: Fails(NO_HTTP), Fails(NO_HTTP), |_, _| Answer::status(204);
    not_modified_though_nobody_asked: Fails(NO_HTTP), Fails(NO_HTTP), |_, _| Answer::status(304);

    // Heads.
    a_head_too_large: Fails(NO_HTTP), Fails(NO_HTTP), |asked, content| {
        file(asked, content).header("X-Large", &"x".repeat(200_000))
    };
    too_many_headers: Fails(NO_HTTP), Fails(NO_HTTP), |asked, content| {
        (0..2000).fold(file(asked, content), |answer, number| answer.header(&format!("X-{number}"), "y"))
    };
    no_status_line: Fails(NO_HTTP), Fails(NO_HTTP), |_, _| Answer::raw("Content-Length: 5\r\n\r\n12345");
    binary_garbage: Fails(NO_HTTP), Fails(NO_HTTP), |_, _| Answer::raw((0..=255).rev().cycle().take(5000).collect::<Vec<u8>>());
    nothing_at_all: Fails(BROKEN), Fails(BROKEN), |_, _| Answer::raw("");
}

/// What lies at `to`, behind a redirect.
fn redirected(asked: &Asked, content: &Content, status: u16, to: &str) -> Answer {
    if asked.path.starts_with("/real") { file(asked, content) } else { Answer::redirect(status, to) }
}

#[test]
fn a_redirect_to_another_origin_leaves_headers_behind() {
    for tls in [false, true] {
        let content = Content::pattern(LEN);
        // From https to http and the other way round.
        let other = if tls {
            Origin::serving(content.clone())
        } else {
            let content = content.clone();
            Origin::start_tls(move |asked| Answer::file(asked, &content))
        };
        let elsewhere = other.url("/b");
        let handler = move |_: &Asked| Answer::redirect(302, &elsewhere);
        let origin = if tls { Origin::start_tls(handler) } else { Origin::start(handler) };
        let mut config = config(&origin);
        config.client.extra_roots = [&origin, &other]
            .into_iter()
            .filter(|origin| origin.url("").starts_with("https"))
            .map(Origin::root_pem)
            .collect();
        let downloader = Downloader::new(config).unwrap();
        let mut options = FileConfig::default();
        options.headers.push(("Authorization".into(), "Bearer secret".into()));
        options.headers.push(("X-Secret".into(), "7".into()));
        let mut stream = downloader.open_with(&origin.url("/a"), options).unwrap();
        let mut body = Vec::new();
        stream.read_to_end(&mut body).unwrap();
        assert_pattern(0, &body);
        assert_eq!(origin.log().asked[0].header("x-secret"), Some("7"));
        assert!(
            other.log().asked.iter().all(|asked| {
                asked.header("x-secret").is_none() && asked.header("authorization").is_none()
            })
        );
    }
}

#[test]
fn a_tls_end_without_its_close_is_a_break() {
    let content = Content::pattern(LEN);
    let origin = Origin::start_tls(move |_| {
        Answer::whole(&content).no_length().close_after(100_000).without_close_notify()
    });
    let downloader = Downloader::new(config(&origin)).unwrap();
    for came in
        [read_by_caller(&downloader, &origin.url("/a")), read_into_sink(&downloader, &origin.url("/a"))]
    {
        assert_eq!(came.unwrap_err().kind(), ErrorKind::Disconnected);
    }
}

#[test]
fn a_file_of_one_byte_is_one() {
    let content = Content::pattern(1);
    let origin = Origin::start(move |asked| Answer::file(asked, &content));
    let mut body = Vec::new();
    let downloader = Downloader::new(config(&origin)).unwrap();
    downloader.open(&origin.url("/a")).unwrap().read_to_end(&mut body).unwrap();
    assert_eq!(body.len(), 1);
    assert_pattern(0, &body);
}
