//! What servers do wrong, one test for each trap: plain and over TLS, read by a file, a sink and a caller, as a whole and in part.
//! Every delivered byte is checked by its offset. Bytes that cannot be delivered are an error that names the trap. No trap causes a
//! hang or an unbounded number of requests.

// `tests/h3_faults.rs` is this file over HTTP/3.
#[cfg(feature = "http3")]
#[path = "support/h3/mod.rs"]
mod h3;

use std::error::Error as _;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::content::assert_pattern;
use support::peers::{Collect, List};
use support::{Answer, Content, Origin, Request};
use windway::config::StorageConfig;
use windway::downloader::Outcome;
use windway::{ByteRange, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority};

const LEN: u64 = 400_000;

/// The range that fetches of a part request.
const PART: Range<u64> = 1000..301_000;

/// A case that takes longer hangs. No case takes as long on a busy machine.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Silence timeout of a trap that is silent.
const SILENCE: Duration = Duration::from_millis(200);

/// Limit of requests to one origin for each fetch. A client that repeats requests in a circle sends more before it gives up.
const MAX_ASKED: usize = 40;

/// The result of a trap.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// All bytes are delivered, and are the right ones.
    Right,
    /// An error of one of these kinds, or a read that timed out because of one.
    Fails(&'static [ErrorKind]),
    /// The same with an HTTP status.
    Status(u16),
    /// Not tried: several results are right, or it takes too long.
    Untried,
}

impl Expect {
    /// The read timeout of a case. If nothing else ends it, it is short.
    fn patience(self) -> Duration {
        Duration::from_millis(if self.ends_at_a_limit() { 500 } else { 30_000 })
    }

    /// True if only a limit ends the case. That limit is short then. In all other cases it leaves time for a busy machine.
    fn ends_at_a_limit(self) -> bool {
        let passes = |kind: ErrorKind| Error::new(kind, "").is_retryable();
        match self {
            // A page in the middle of a file is that of a network that wants a login, and may pass.
            Fails([ErrorKind::Changed, ErrorKind::NotMedia]) => true,
            Fails(kinds) => kinds.iter().any(|kind| passes(*kind)),
            Status(status) => passes(ErrorKind::Status(status)),
            Right | Untried => false,
        }
    }

    /// True if the silence timeout may end the case.
    fn may_be_silent(self) -> bool {
        matches!(self, Fails(kinds) if kinds.contains(&ErrorKind::Silent))
    }
}

use Expect::{Fails, Right, Status, Untried};

/// The way in which the bytes are requested.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// By a file that is read with seeks and keeps a window in memory.
    Window,
    /// The same with the whole file in memory.
    Whole,
    Sink,
    Caller,
    SinkOfPart,
    CallerOfPart,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::Window, Self::Whole, Self::Sink, Self::Caller, Self::SinkOfPart, Self::CallerOfPart];
}

/// A server with one fault.
#[derive(Clone, Copy)]
struct Trap {
    name: &'static str,
    answer: fn(&Request, &Content) -> Answer,
    /// For a file, which requests pieces; for one fetch of the whole; for one fetch of a part. A missing entry equals the one
    /// before it.
    expect: &'static [Expect],
}

impl Trap {
    fn expect(&self, way: Way) -> Expect {
        let column = match way {
            Way::Window | Way::Whole => 0,
            Way::Sink | Way::Caller => 1,
            Way::SinkOfPart | Way::CallerOfPart => 2,
        };
        self.expect[column.min(self.expect.len() - 1)]
    }
}

fn config(origins: &[&Origin], expected: Expect) -> DownloaderConfig {
    let mut config = DownloaderConfig::default();
    // Long where silence is no part of the trap: a delay of a busy machine must not count as silence.
    config.client.silence_timeout = if expected.may_be_silent() { SILENCE } else { 50 * SILENCE };
    config.client.min_rate = 5_000;
    config.max_retries = if expected.ends_at_a_limit() { 1 } else { 8 };
    let with_tls = origins.iter().filter(|origin| origin.url("").starts_with("https"));
    config.client.extra_roots = with_tls.map(|origin| origin.root_pem()).collect();
    config
}

fn start(tls: bool, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Origin {
    if tls { Origin::start_tls(handler) } else { Origin::start(handler) }
}

/// What carries the requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Plain,
    Tls,
    #[cfg(feature = "http3")]
    Http3,
}

impl Transport {
    /// Those of this test program.
    fn all() -> &'static [Self] {
        #[cfg(feature = "http3")]
        if module_path!().starts_with("h3_faults") {
            return &[Self::Http3];
        }
        &[Self::Plain, Self::Tls]
    }
}

/// Traps that are silent, but only now and then, so that all bytes can be delivered.
const SILENT_NOW_AND_THEN: &[&str] = &[
    "a_body_below_the_minimum_rate",
    "silence_before_the_response_head",
    "silence_in_the_body",
    "silence_in_the_response_head",
];

/// Traps in the syntax of HTTP/1, which HTTP/3 does not have.
#[cfg(feature = "http3")]
const OF_HTTP1: &[&str] = &[
    "a_body_encoded_for_the_transfer",
    "a_chunk_extension_forever",
    "a_chunk_extension_of_a_fetch_forever",
    "a_chunk_of_an_absurd_length",
    "a_chunk_of_an_invalid_length",
    "a_chunk_of_an_overflowing_length",
    "a_header_without_a_colon",
    "binary_garbage",
    "chunked_and_of_a_shorter_length",
    "http_1_0_with_a_false_transfer_encoding",
    "icy_200_ok",
    "icy_200_ok_cut_in_its_protocol_version",
    "icy_200_ok_split_after_its_protocol_version",
    "icy_200_ok_split_in_its_end",
    "icy_200_ok_split_in_its_protocol_version",
    "icy_200_ok_split_in_its_status",
    "icy_200_ok_without_a_length",
    // ureq accepts a hundred.
    "too_many_headers",
    "trailers_forever",
    "trailers_of_a_fetch_forever",
];

fn check(trap: Trap) {
    check_over(trap, Transport::all());
}

fn check_over(trap: Trap, transports: &[Transport]) {
    let mut cases = Cases::default();
    for &transport in transports {
        #[cfg(feature = "http3")]
        if transport == Transport::Http3 && OF_HTTP1.contains(&trap.name) {
            continue;
        }
        for way in Way::ALL {
            let name = format!("{}, {way:?}, {transport:?}", trap.name);
            cases.start(name, move || check_one(trap, transport, way));
        }
    }
    cases.end();
}

/// Cases run in parallel: most of their time is spent waiting for limits.
#[derive(Default)]
struct Cases(Vec<(String, thread::JoinHandle<()>, mpsc::Receiver<()>)>);

impl Cases {
    /// Starts a case on a thread of its name, which a panic message shows.
    fn start(&mut self, name: String, case: impl FnOnce() + Send + 'static) {
        let (alive, ended) = mpsc::channel();
        let run = move || {
            let _alive = alive;
            case();
        };
        self.0.push((name.clone(), thread::Builder::new().name(name).spawn(run).unwrap(), ended));
    }

    /// Panics with the names of the cases that failed, or of the first that hangs.
    fn end(self) {
        let mut failed = Vec::new();
        for (name, thread, ended) in self.0 {
            let hangs = ended.recv_timeout(WATCHDOG) == Err(mpsc::RecvTimeoutError::Timeout);
            assert!(!hangs, "{name}: hangs");
            if thread.join().is_err() {
                failed.push(name);
            }
        }
        assert!(failed.is_empty(), "{failed:?}");
    }
}

fn check_one(trap: Trap, transport: Transport, way: Way) {
    let expected = trap.expect(way);
    if !matches!(expected, Untried) {
        assert_ends(expected, |patience| fall_into(&trap, transport, way, expected, patience));
    }
}

/// Checks the result of `run`, which gets its read timeout, and the requests to its origin.
fn assert_ends(expected: Expect, run: impl Fn(Duration) -> (Result<(), Error>, Origin)) {
    let mut patience = expected.patience();
    let (mut result, mut origin) = run(patience);
    // With more time, and an origin without a past.
    for _ in 1..5 {
        if is_expected(&result, expected) || !is_of_busy_machine(&result, &origin) {
            break;
        }
        patience *= 2;
        (result, origin) = run(patience);
    }
    assert_result(&result, expected);
    assert_few_valid_requests(&origin, 1);
}

/// True if the trap may not have been reached: the read timed out before, or another request was sent beside the first one and
/// answered in its place.
fn is_of_busy_machine(result: &Result<(), Error>, origin: &Origin) -> bool {
    let requests = origin.log().requests;
    let is_repeated = requests.iter().skip(1).any(|request| request.range() == requests[0].range());
    is_repeated || result.as_ref().is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

/// Fetches from a new origin that sets the trap.
fn fall_into(
    trap: &Trap,
    transport: Transport,
    way: Way,
    expected: Expect,
    patience: Duration,
) -> (Result<(), Error>, Origin) {
    let (content, answer) = (Content::pattern(LEN), trap.answer);
    let origin = start(transport == Transport::Tls, move |request| answer(request, &content));
    let (mut config, url) = (config(&[&origin], expected), origin.url("/track.flac"));
    if SILENT_NOW_AND_THEN.contains(&trap.name) {
        config.client.silence_timeout = SILENCE;
    }
    #[cfg(feature = "http3")]
    let gateway = (transport == Transport::Http3).then(|| h3::Gateway::start(origin.address()));
    #[cfg(feature = "http3")]
    let (config, url) = match &gateway {
        Some(gateway) => {
            let mut client = h3::over_http3(config.client.clone(), &[&gateway.0]);
            if SILENT_NOW_AND_THEN.contains(&trap.name) {
                // Three more threads take part in each request.
                client.silence_timeout *= 10;
            }
            (config.client(client), gateway.url("/track.flac"))
        }
        None => (config, url),
    };
    let downloader = Downloader::new(config).unwrap();
    (fetch(&downloader, &url, way, patience, &[]), origin)
}

fn assert_result(result: &Result<(), Error>, expected: Expect) {
    assert!(is_expected(result, expected), "{result:?} instead of {expected:?}");
}

fn is_expected(result: &Result<(), Error>, expected: Expect) -> bool {
    let failed_of =
        |kind| result.as_ref().is_err_and(|error| error.kind() == kind || cause_of(error).kind() == kind);
    match expected {
        Right => result.is_ok(),
        Fails(kinds) => kinds.iter().any(|kind| failed_of(*kind)),
        Status(status) => failed_of(ErrorKind::Status(status)),
        Untried => true,
    }
}

/// The cause of a read that timed out; any other error itself.
fn cause_of(error: &Error) -> &Error {
    error
        .source()
        .filter(|_| error.kind() == ErrorKind::TimedOut)
        .and_then(|cause| cause.downcast_ref())
        .unwrap_or(error)
}

/// Checks that there is no HEAD, no invalid range, and no unbounded number of requests for this number of fetches.
fn assert_few_valid_requests(origin: &Origin, fetches: usize) {
    let requests = origin.log().requests;
    assert!(requests.len() < fetches * MAX_ASKED, "{} requests", requests.len());
    for request in requests {
        assert_eq!(request.method, "GET");
        assert_eq!(request.header("range").is_some(), request.range().is_some(), "{request:?}");
    }
}

/// Fetches `url` in one way, with headers.
fn fetch(
    downloader: &Downloader,
    url: &str,
    way: Way,
    patience: Duration,
    headers: &[(&str, &str)],
) -> Result<(), Error> {
    let all = headers.iter().try_fold(Fetch::get(url)?, |fetch, (name, value)| fetch.header(name, value))?;
    let range = ByteRange::new(PART.start, PART.end);
    match way {
        Way::Window | Way::Whole => read_file(downloader, url, file_config(way, patience, headers)),
        Way::Sink => read_into_sink(downloader, all, 0..LEN),
        Way::Caller => read_by_caller(downloader, all, 0..LEN),
        Way::SinkOfPart => read_into_sink(downloader, all.range(range), PART),
        Way::CallerOfPart => read_by_caller(downloader, all.range(range), PART),
    }
}

fn file_config(way: Way, patience: Duration, headers: &[(&str, &str)]) -> FileConfig {
    let mut config = FileConfig::default();
    config.read_timeout = Some(patience);
    if way == Way::Whole {
        config.storage = StorageConfig::WholeMemory;
    }
    config.headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    config
}

/// Reads near the end, at the beginning, and then everything.
fn read_file(downloader: &Downloader, url: &str, config: FileConfig) -> Result<(), Error> {
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

fn read_into_sink(downloader: &Downloader, fetch: Fetch, wanted: Range<u64>) -> Result<(), Error> {
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High)?;
    let (ends, end) = mpsc::channel();
    // A server without ranges sends the whole file.
    let sink = Collect::from_first(&ends);
    list.put(fetch, sink);
    peer.wake(Priority::High);
    let got = end.recv().unwrap();
    let start = got.start.unwrap_or(wanted.start);
    assert_pattern(start, &got.bytes);
    match got.outcome {
        Outcome::Done => {
            assert_covers(start, &got.bytes, wanted);
            Ok(())
        }
        Outcome::Failed(error) => Err(error),
        outcome => panic!("{outcome:?}"),
    }
}

fn read_by_caller(downloader: &Downloader, fetch: Fetch, wanted: Range<u64>) -> Result<(), Error> {
    let peer = downloader.register((), Priority::High)?;
    let mut response = peer.execute(fetch)?;
    let start = response.position();
    let mut body = Vec::new();
    let read = response.read_to_end(&mut body);
    assert_pattern(start, &body);
    read?;
    assert_covers(start, &body, wanted);
    Ok(())
}

/// Checks that exactly the wanted part was delivered, or the whole file.
fn assert_covers(start: u64, bytes: &[u8], wanted: Range<u64>) {
    let delivered = start..start + bytes.len() as u64;
    let is_whole = delivered.start == 0 && delivered.end >= wanted.end && delivered.end <= LEN;
    assert!(delivered == wanted || is_whole, "{delivered:?} instead of {wanted:?}");
}

/// One test for each trap.
macro_rules! traps {
    ($($(#[$attribute:meta])* $name:ident: $expect:tt, $answer:expr;)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                check(Trap { name: stringify!($name), answer: $answer, expect: &$expect });
            }
        )*
    };
}

const WRONG_RANGE: Expect = Fails(&[ErrorKind::WrongRange]);
const CHANGED: Expect = Fails(&[ErrorKind::Changed]);
const BROKEN: Expect = Fails(&[ErrorKind::Disconnected]);
const SILENT: Expect = Fails(&[ErrorKind::Silent]);
/// The response head never ends. The read timeout may end before the limit of a silent body.
const SILENT_OR_LATE: Expect = Fails(&[ErrorKind::Silent, ErrorKind::Protocol, ErrorKind::TimedOut]);
const NO_HTTP: Expect = Fails(&[ErrorKind::Protocol]);
const ENCODED: Expect = Fails(&[ErrorKind::Encoded]);
const NOT_MEDIA: Expect = Fails(&[ErrorKind::NotMedia]);
const PAGE: Expect = Fails(&[ErrorKind::Changed, ErrorKind::NotMedia]);
const EMPTY: Expect = Fails(&[ErrorKind::Empty]);
const REDIRECT: Expect = Fails(&[ErrorKind::Redirect]);
const NO_SCHEME: Expect = Fails(&[ErrorKind::UnsupportedScheme]);

fn file(request: &Request, content: &Content) -> Answer {
    Answer::file(request, content)
}

fn is_first(request: &Request) -> bool {
    request.number == 0
}

/// The trap in the first and the third response. All others are good.
fn now_and_then(request: &Request, content: &Content, trap: impl FnOnce(Answer) -> Answer) -> Answer {
    let answer = file(request, content);
    if matches!(request.number, 0 | 2) { trap(answer) } else { answer }
}

/// The requested range, clipped to the file. `None` if there is none within it.
fn part(request: &Request) -> Option<Range<u64>> {
    let (first, last) = request.range()?;
    let end = last.map_or(LEN, |last| LEN.min(last + 1));
    (first < end).then_some(first..end)
}

/// A good response with another `Content-Range`, if it has one.
fn with_range(request: &Request, content: &Content, range: impl FnOnce(Range<u64>) -> String) -> Answer {
    let answer = file(request, content);
    match part(request) {
        Some(part) => answer.header("Content-Range", &range(part)),
        None => answer,
    }
}

/// This status first, then good responses.
fn once(request: &Request, content: &Content, status: u16) -> Answer {
    if is_first(request) { busy(status) } else { file(request, content) }
}

fn busy(status: u16) -> Answer {
    Answer::status(status).header("Retry-After", "0")
}

/// `answer` for every range that does not begin at 0.
fn refused(request: &Request, content: &Content, answer: Answer) -> Answer {
    if request.range().is_some_and(|(first, _)| first > 0) { answer } else { file(request, content) }
}

const PAGE_TEXT: &str =
    "<!DOCTYPE html><html><head><title>Please log in</title></head><body>no</body></html>";

fn page() -> Content {
    Content::bytes(PAGE_TEXT.as_bytes())
}

/// Longer than the file.
fn long_page() -> Content {
    Content::bytes(PAGE_TEXT.repeat(10_000).into_bytes())
}

/// A file of the same length with other bytes.
fn other() -> Content {
    Content::bytes(vec![b'?'; LEN as usize])
}

/// The file behind a redirect to `to`.
fn redirected(request: &Request, content: &Content, status: u16, to: &str) -> Answer {
    if request.path.starts_with("/real") { file(request, content) } else { Answer::redirect(status, to) }
}

/// The file behind a redirect to a target that serves one request and then answers with this status.
fn expiring(request: &Request, content: &Content, status: u16) -> Answer {
    if request.path == "/track.flac" {
        return Answer::redirect(302, &format!("/real-{}", request.number));
    }
    if request.again == 0 { file(request, content) } else { Answer::status(status) }
}

traps! {
    a_good_server: [Right], file;

    // Ranges.
    a_range_answered_by_200: [Right], |_, content| Answer::whole(content);
    a_range_answered_by_200_now_and_then: [Right], |request, content| {
        if request.number % 2 == 1 { Answer::whole(content) } else { file(request, content) }
    };
    a_range_answered_by_200_that_breaks_behind_it: [Untried, Untried, Right], |request, content| {
        if is_first(request) {
            Answer::whole(content).close_after(PART.end + 50_000)
        } else {
            file(request, content)
        }
    };
    an_earlier_start: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| match part(request) {
        Some(part) if part.start > 0 => file(request, content).partial(part.start - 1..part.end - 1),
        _ => file(request, content),
    };
    a_later_start: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| match part(request) {
        Some(part) => file(request, content).partial(part.start + 1..part.end),
        None => file(request, content),
    };
    a_later_end: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| match part(request) {
        Some(part) if part.end < LEN => file(request, content).partial(part.start..part.end + 1),
        _ => file(request, content),
    };
    a_shorter_end: [Right, Right, Untried], |request, content| match part(request) {
        Some(part) => file(request, content).partial(part.start..part.end.min(part.start + 30_000)),
        _ => file(request, content),
    };
    another_unit: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| {
        with_range(request, content, |part| format!("items {}-{}/{LEN}", part.start, part.end - 1))
    };
    an_absurd_range: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| {
        with_range(request, content, |_| "bytes 278076-278075/278076".into())
    };
    an_unsatisfied_range: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| {
        with_range(request, content, |_| "bytes */400000".into())
    };
    a_range_of_another_length_than_the_body: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| {
        with_range(request, content, |part| format!("bytes {}-{}/{LEN}", part.start, part.end - 2))
    };
    a_partial_response_without_its_range: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| {
        file(request, content).without_header("Content-Range")
    };
    a_partial_response_to_no_range: [Right, WRONG_RANGE, Right], |request, content| {
        if request.range().is_some() { file(request, content) } else { Answer::whole(content).partial(0..LEN / 2) }
    };
    all_bytes_in_a_partial_response_to_no_range: [Right], |request, content| {
        if request.range().is_some() { file(request, content) } else { Answer::whole(content).partial(0..LEN) }
    };
    all_bytes_in_a_partial_response_without_its_length_to_no_range: [Right], |request, content| {
        let whole = Answer::whole(content).partial(0..LEN);
        if request.range().is_some() { file(request, content) } else { whole.no_length() }
    };
    parts_of_several_ranges: [WRONG_RANGE], |request, content| {
        let answer = file(request, content).without_header("Content-Range");
        answer.header("Content-Type", "multipart/byteranges; boundary=THIS")
    };
    a_changed_total: [CHANGED, Right], |request, content| {
        if is_first(request) { return file(request, content) }
        with_range(request, content, |part| format!("bytes {}-{}/{}", part.start, part.end - 1, LEN + 7))
    };
    a_changed_total_after_a_break: [CHANGED], |request, content| {
        if is_first(request) { return file(request, content).close_after(100_000) }
        with_range(request, content, |part| format!("bytes {}-{}/{}", part.start, part.end - 1, LEN + 7))
    };
    an_unknown_total: [Right], |request, content| {
        with_range(request, content, |part| format!("bytes {}-{}/*", part.start, part.end - 1))
    };
    an_unknown_total_and_a_bare_416_at_the_end: [Right], |request, content| match part(request) {
        None if request.range().is_some() => Answer::status(416),
        _ => with_range(request, content, |part| format!("bytes {}-{}/*", part.start, part.end - 1)),
    };
    a_wrong_total: [CHANGED, Right], |request, content| {
        with_range(request, content, |part| format!("bytes {}-{}/{}", part.start, part.end - 1, 1_u64 << 62))
    };
    a_partial_response_without_bytes: [BROKEN, Right, BROKEN], |request, content| match part(request) {
        Some(part) if part.start > 0 => file(request, content).close_after(0),
        _ => file(request, content),
    };
    a_partial_response_of_length_0: [WRONG_RANGE, Right, WRONG_RANGE], |request, content| match part(request) {
        Some(part) if part.start > 0 => file(request, content).header("Content-Length", "0").close_after(0),
        _ => file(request, content),
    };
    a_416_for_an_existing_range: [Right, Right, Status(416)], |request, content| {
        refused(request, content, Answer::status(416))
    };
    a_416_with_the_length: [Right, Right, WRONG_RANGE], |request, content| {
        refused(request, content, Answer::status(416).header("Content-Range", &format!("bytes */{LEN}")))
    };

    // Lengths and framing.
    no_length: [Right], |_, content| Answer::whole(content).no_length();
    no_length_of_a_part: [Right], |request, content| file(request, content).no_length();
    chunked: [Right], |request, content| file(request, content).chunked();
    chunked_without_ranges: [Right], |_, content| Answer::whole(content).chunked();
    chunked_with_trailers: [Right], |request, content| file(request, content).trailers(&[("x-sum", "7")]);
    chunked_and_cut_short: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.cut_chunk_after(100_000))
    };
    chunked_and_cut_at_the_end: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.cut_chunk_after(LEN))
    };
    chunked_and_always_cut_short: [BROKEN], |_, content| Answer::whole(content).cut_chunk_after(100_000);
    chunked_and_of_a_length: [Right], |request, content| {
        let len = part(request).map_or(LEN, |part| part.end - part.start);
        file(request, content).chunked().header("Content-Length", &len.to_string())
    };
    chunked_and_of_a_shorter_length: [Right], |_, content| {
        Answer::whole(content).chunked().header("Content-Length", "1000")
    };
    chunked_and_longer_than_the_range: [Right], |request, content| match part(request) {
        Some(_) => file(request, content).extra_chunk(1000),
        None => file(request, content),
    };
    no_length_and_longer_than_the_range: [Right], |request, content| match part(request) {
        Some(_) => file(request, content).no_length().extra_bytes(1000),
        None => file(request, content),
    };
    a_chunk_of_an_invalid_length: [NO_HTTP], |_, _| {
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\nbytes\r\n")
    };
    a_chunk_of_an_absurd_length: [BROKEN], |_, _| {
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n")
    };
    a_chunk_of_an_overflowing_length: [NO_HTTP], |_, _| {
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n")
    };
    trailers_forever: [SILENT_OR_LATE, Untried], |_, _| in_chunks("0\r\n", "X-Sum: 7\r\n");
    trailers_of_a_fetch_forever: [Untried, SILENT], |_, _| in_chunks("0\r\n", "X-Sum: 7\r\n");
    a_chunk_extension_forever: [SILENT_OR_LATE, Untried], |_, _| in_chunks("5;", "x");
    a_chunk_extension_of_a_fetch_forever: [Untried, SILENT], |_, _| in_chunks("5;", "x");
    closed_before_the_length: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.close_after(100_000))
    };
    always_closed_before_the_length: [BROKEN], |_, content| Answer::whole(content).close_after(100_000);
    a_reset_where_the_close_is_the_end: [BROKEN], |_, content| {
        Answer::whole(content).no_length().reset_after(100_000)
    };
    a_reset_now_and_then_where_the_close_is_the_end: [Right], |request, content| {
        let answer = Answer::whole(content).no_length();
        if request.number % 2 == 0 { answer.reset_after(100_000) } else { answer }
    };
    a_reset_behind_the_last_byte: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.no_length().reset_after(LEN))
    };
    more_bytes_than_the_length: [Right], |request, content| file(request, content).extra_bytes(100);
    many_more_bytes_than_the_length: [Right], |request, content| file(request, content).extra_bytes(200_000);
    a_wrong_length: [SILENT, SILENT, Untried], |_, content| {
        Answer::whole(content).header("Content-Length", &(1_u64 << 62).to_string())
    };
    a_wrong_length_and_a_close: [BROKEN, BROKEN, Untried], |_, content| {
        Answer::whole(content).header("Content-Length", &(1_u64 << 62).to_string()).close_when_idle()
    };
    a_negative_length: [NO_HTTP], |_, content| Answer::whole(content).header("Content-Length", "-5");
    an_overflowing_length: [NO_HTTP], |_, content| {
        Answer::whole(content).header("Content-Length", "99999999999999999999")
    };
    two_lengths: [NO_HTTP], |_, _| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n12345")
    };

    // Connections.
    a_reset_before_the_response_head: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.reset_in_head(0))
    };
    a_reset_in_the_response_head: [Right], |request, content| now_and_then(request, content, |answer| answer.reset_in_head(20));
    a_reset_in_every_response_head: [BROKEN], |request, content| file(request, content).reset_in_head(20);
    a_close_before_the_response_head: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.close_in_head(0))
    };
    a_close_in_the_protocol_version: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.close_in_head(2))
    };
    a_close_in_the_response_head: [Right], |request, content| now_and_then(request, content, |answer| answer.close_in_head(20));
    a_close_in_every_response_head: [BROKEN], |request, content| file(request, content).close_in_head(20);
    a_close_without_a_byte: [BROKEN], |_, _| Answer::raw("");
    a_reset_in_the_body: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.reset_after(50_000))
    };
    silence_before_the_response_head: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.stall_in_head(0))
    };
    silence_in_the_response_head: [Right], |request, content| now_and_then(request, content, |answer| answer.stall_in_head(30));
    silence_in_the_body: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.stall_after(50_000))
    };
    silence_before_every_response_head: [SILENT], |request, content| file(request, content).stall_in_head(0);
    silence_in_every_response_head: [SILENT], |request, content| file(request, content).stall_in_head(30);
    silence_after_every_response_head: [SILENT], |request, content| file(request, content).stall_after(0);
    a_body_below_the_minimum_rate: [Right], |request, content| now_and_then(request, content, |answer| answer.chunks_of(1, CHUNK_DELAY));
    a_body_always_below_the_minimum_rate: [SILENT], |_, content| Answer::whole(content).chunks_of(1, CHUNK_DELAY);
    a_response_head_byte_by_byte: [SILENT_OR_LATE, Untried], |_, _| byte_by_byte();
    a_response_head_of_a_fetch_byte_by_byte: [Untried, SILENT_OR_LATE], |_, _| byte_by_byte();
    interim_responses_forever: [SILENT_OR_LATE, Untried], |_, _| endless_hints();
    interim_responses_forever_to_a_fetch: [Untried, SILENT_OR_LATE], |_, _| endless_hints();
    closed_between_two_requests: [Right], |request, content| file(request, content).close_when_idle();
    http_1_0: [Right], |request, content| file(request, content).http10();
    http_1_0_in_chunks: [Right], |request, content| file(request, content).chunked().http10();
    http_1_0_in_chunks_kept_alive: [Right], |request, content| file(request, content).chunked().keep_alive_http10();
    http_1_0_with_a_false_transfer_encoding: [NO_HTTP], |request, content| {
        file(request, content).http10().header("Transfer-Encoding", "chunked")
    };
    http_1_0_without_a_length: [Right], |_, content| Answer::whole(content).no_length().http10();
    http_1_0_kept_alive: [Right], |request, content| file(request, content).keep_alive_http10();
    http_1_0_kept_alive_and_closed: [Right], |request, content| {
        file(request, content).keep_alive_http10().close_when_idle()
    };
    icy_200_ok: [Right], |_, content| Answer::whole(content).icy();
    icy_200_ok_without_a_length: [Right], |_, content| Answer::whole(content).no_length().icy();
    icy_200_ok_split_in_its_protocol_version: [Right], |_, content| Answer::whole(content).icy().split_head(2);
    icy_200_ok_split_after_its_protocol_version: [Right], |_, content| Answer::whole(content).icy().split_head(3);
    icy_200_ok_split_in_its_status: [Right], |_, content| Answer::whole(content).icy().split_head(5);
    icy_200_ok_split_in_its_end: [Right], |_, content| Answer::whole(content).icy().split_head(11);
    icy_200_ok_cut_in_its_protocol_version: [Right], |request, content| {
        let answer = Answer::whole(content).icy();
        if request.number % 2 == 0 { answer.close_in_head(2) } else { answer }
    };
    icy_200_ok_always_cut_in_its_protocol_version: [BROKEN], |_, content| {
        Answer::whole(content).icy().close_in_head(2)
    };
    a_response_head_split_over_packets: [Right], |request, content| file(request, content).split_head(7);
    // One byte before its end: 23 bytes of status line, 24 of Content-Length, an empty line.
    a_response_head_split_in_its_end: [Right], |_, content| Answer::whole(content).split_head(48);
    interim_responses_first: [Right], |request, content| file(request, content).interim(103).interim(100);
    unknown_interim_responses: [Right], |request, content| {
        file(request, content).interim(102).interim(199)
    };
    many_interim_responses: [Right], |request, content| {
        (0..20).fold(file(request, content), |answer, _| answer.interim(103))
    };

    // Representations.
    an_encoded_body: [ENCODED], |request, content| file(request, content).header("Content-Encoding", "gzip");
    an_encoded_html_page_that_is_called_audio: [ENCODED], |_, _| {
        Answer::whole(&page()).header("Content-Encoding", "br").header("Content-Type", "audio/flac")
    };
    an_encoded_body_in_mid_stream: [ENCODED], |request, content| {
        if is_first(request) {
            file(request, content).close_after(100_000)
        } else {
            file(request, content).header("Content-Encoding", "gzip")
        }
    };
    a_body_encoded_for_the_transfer: [Fails(&[ErrorKind::Encoded, ErrorKind::Protocol])], |_, content| {
        Answer::whole(content).chunked().header("Transfer-Encoding", "gzip")
    };
    another_tag: [CHANGED, Right], |request, content| {
        file(request, content).header("ETag", &format!("\"{}\"", request.number))
    };
    another_tag_after_a_break: [CHANGED], |request, content| {
        let answer = file(request, content).header("ETag", &format!("\"{}\"", request.number));
        if is_first(request) { answer.close_after(100_000) } else { answer }
    };
    another_date: [CHANGED, Right], |request, content| dated(request, content);
    another_date_after_a_break: [CHANGED], |request, content| {
        let answer = dated(request, content);
        if is_first(request) { answer.close_after(100_000) } else { answer }
    };
    another_whole_after_a_break: [CHANGED], |request, content| {
        if is_first(request) { return Answer::whole(content).close_after(100_000) }
        Answer::whole(&Content::pattern(LEN + 1))
    };
    other_bytes_after_a_break_without_a_validator: [Untried, CHANGED], |request, content| {
        if is_first(request) { Answer::whole(content).close_after(100_000) } else { Answer::whole(&other()) }
    };
    other_bytes_of_a_file_without_ranges_after_a_break: [CHANGED, Untried], |request, content| {
        if is_first(request) { Answer::whole(content).close_after(100_000) } else { Answer::whole(&other()) }
    };
    other_bytes_of_a_part_after_a_break_without_a_validator: [Untried, CHANGED], |request, content| {
        let answer = if is_first(request) {
            file(request, content).close_after(100_000)
        } else {
            file(request, &other())
        };
        answer.without_header("ETag")
    };
    a_weak_tag: [Right], |request, content| {
        now_and_then(request, content, |answer| answer.close_after(100_000)).header("ETag", "W/\"same\"")
    };
    another_weak_tag_of_the_same_bytes: [Right], |request, content| {
        let answer = now_and_then(request, content, |answer| answer.close_after(100_000));
        answer.header("ETag", &format!("W/\"{}\"", request.number))
    };
    another_weak_tag_of_other_bytes: [Untried, CHANGED], |request, content| {
        let answer = if is_first(request) {
            file(request, content).close_after(100_000)
        } else {
            file(request, &other())
        };
        answer.header("ETag", &format!("W/\"{}\"", request.number))
    };
    an_html_page_with_200: [NOT_MEDIA, Untried], |_, _| Answer::whole(&page()).header("Content-Type", "text/html");
    an_html_page_with_200_without_its_type: [NOT_MEDIA, Untried], |_, _| Answer::whole(&page());
    an_html_page_with_200_that_is_called_audio: [NOT_MEDIA, Untried], |_, _| {
        Answer::whole(&page()).header("Content-Type", "audio/flac")
    };
    an_html_page_without_length: [NOT_MEDIA, Untried], |_, _| {
        Answer::whole(&page()).chunked().header("Content-Type", "text/html")
    };
    an_html_page_with_206: [NOT_MEDIA, Untried], |request, _| {
        file(request, &page()).header("Content-Type", "text/html")
    };
    an_html_page_in_mid_stream: [PAGE, Right, Untried], |request, content| {
        if is_first(request) { return file(request, content) }
        Answer::whole(&page()).header("Content-Type", "text/html")
    };
    an_html_page_without_length_in_mid_stream: [PAGE, Right, Untried], |request, content| {
        if is_first(request) { return file(request, content) }
        Answer::whole(&page()).chunked().header("Content-Type", "text/html")
    };
    a_long_html_page_without_length_in_mid_stream: [PAGE, Right, Untried], |request, content| {
        if is_first(request) { return file(request, content) }
        Answer::whole(&long_page()).chunked().header("Content-Type", "text/html")
    };
    an_html_page_after_a_break: [PAGE], |request, content| {
        if is_first(request) { return file(request, content).close_after(100_000) }
        Answer::whole(&page()).header("Content-Type", "text/html")
    };
    an_html_page_without_length_after_a_break: [Untried, PAGE], |request, content| {
        if is_first(request) { return file(request, content).close_after(100_000) }
        Answer::whole(&page()).chunked().header("Content-Type", "text/html")
    };
    an_empty_file: [EMPTY, Untried, EMPTY], |request, _| match request.range() {
        Some(_) => Answer::status(416).header("Content-Range", "bytes */0"),
        None => Answer::whole(&Content::pattern(0)),
    };
    an_empty_file_with_a_bare_416: [EMPTY, Untried, Status(416)], |request, _| {
        match request.range() {
            Some(_) => Answer::status(416),
            None => Answer::whole(&Content::pattern(0)),
        }
    };
    an_empty_file_with_200: [EMPTY, Untried], |_, _| Answer::whole(&Content::pattern(0));
    an_empty_file_without_length: [EMPTY, Untried], |_, _| Answer::whole(&Content::pattern(0)).no_length();
    an_empty_file_in_chunks: [EMPTY, Untried], |_, _| Answer::whole(&Content::pattern(0)).chunked();

    // Redirects.
    moved_301: [Right], |request, content| redirected(request, content, 301, "/real");
    found_302: [Right], |request, content| redirected(request, content, 302, "/real");
    see_other_303: [Right], |request, content| redirected(request, content, 303, "real");
    temporary_307: [Right], |request, content| redirected(request, content, 307, "/real?q=1");
    permanent_308: [Right], |request, content| redirected(request, content, 308, "./real#part");
    redirected_to_a_host_of_the_same_scheme: [Right], |request, content| {
        redirected(request, content, 302, &format!("//{}/real", request.header("host").unwrap_or_default()))
    };
    redirected_with_a_long_body: [Right], |request, content| match request.path.as_str() {
        "/real" => file(request, content),
        _ => Answer::whole(content).with_status(302).header("Location", "/real"),
    };
    redirected_ten_times: [Right], |request, content| redirects(request, content, 10);
    redirected_eleven_times: [REDIRECT], |request, content| redirects(request, content, 11);
    redirected_forever: [REDIRECT], |request, _| Answer::redirect(302, &format!("/{}", request.number));
    redirected_in_a_circle: [REDIRECT], |request, _| {
        Answer::redirect(302, if request.path == "/a" { "/b" } else { "/a" })
    };
    redirected_to_itself: [REDIRECT], |request, _| Answer::redirect(307, &request.path);
    redirected_to_a_local_file: [NO_SCHEME], |_, _| Answer::redirect(302, "file:///etc/passwd");
    redirected_to_an_invalid_url: [REDIRECT], |_, _| Answer::redirect(302, "http://[");
    redirected_without_a_location: [REDIRECT], |_, _| Answer::status(302);
    redirected_to_a_target_that_expires_with_401: [Right], |request, content| expiring(request, content, 401);
    redirected_to_a_target_that_expires_with_403: [Right], |request, content| expiring(request, content, 403);
    redirected_to_a_target_that_expires_with_404: [Right], |request, content| expiring(request, content, 404);
    redirected_to_a_target_that_expires_with_410: [Right], |request, content| expiring(request, content, 410);
    redirected_to_a_target_that_breaks_and_expires: [Right], |request, content| {
        let answer = expiring(request, content, 403);
        if request.number < 4 { answer.close_after(50_000) } else { answer }
    };
    redirected_to_a_target_that_is_gone_later: [Status(410), Right], |request, content| match request.path.as_str() {
        "/real" if request.again > 0 => Answer::status(410),
        _ => redirected(request, content, 302, "/real"),
    };
    redirected_to_a_target_that_is_gone_after_a_break: [Status(404)], |request, content| match request.path.as_str() {
        "/real" if request.again > 0 => Answer::status(404),
        "/real" => file(request, content).close_after(50_000),
        _ => redirected(request, content, 302, "/real"),
    };

    // Statuses.
    busy_408_once: [Right], |request, content| once(request, content, 408);
    busy_425_once: [Right], |request, content| once(request, content, 425);
    busy_429_once: [Right], |request, content| once(request, content, 429);
    busy_500_once: [Right], |request, content| once(request, content, 500);
    busy_502_once: [Right], |request, content| once(request, content, 502);
    busy_503_once: [Right], |request, content| once(request, content, 503);
    busy_504_once: [Right], |request, content| once(request, content, 504);
    busy_once_without_retry_after: [Right], |request, content| {
        if is_first(request) { Answer::status(503) } else { file(request, content) }
    };
    busy_in_mid_stream: [Right], |request, content| match request.number {
        0 => file(request, content).close_after(100_000),
        1 => busy(503),
        _ => file(request, content),
    };
    busy_408_forever: [Status(408)], |_, _| Answer::status(408);
    busy_425_forever: [Status(425)], |_, _| Answer::status(425);
    busy_429_forever: [Status(429)], |_, _| Answer::status(429);
    busy_500_forever: [Status(500)], |_, _| Answer::status(500);
    busy_502_forever: [Status(502)], |_, _| Answer::status(502);
    busy_503_forever: [Status(503)], |_, _| Answer::status(503);
    busy_504_forever: [Status(504)], |_, _| Answer::status(504);
    busy_forever_without_a_delay: [Status(503)], |_, _| busy(503);
    busy_forever_in_mid_stream: [Status(503)], |request, content| {
        if is_first(request) { file(request, content).close_after(100_000) } else { Answer::status(503) }
    };
    busy_forever_in_mid_stream_without_a_delay: [Untried, Status(503)], |request, content| {
        if is_first(request) { file(request, content).close_after(100_000) } else { busy(503) }
    };
    busy_forever_in_mid_file_without_a_delay: [Status(503), Untried], |request, content| {
        if is_first(request) { file(request, content).close_after(100_000) } else { busy(503) }
    };
    busy_until_tomorrow: [Status(503), Untried], |_, _| Answer::status(503).header("Retry-After", "86400");
    unauthorized: [Status(401)], |_, _| Answer::status(401).header("WWW-Authenticate", "Basic");
    forbidden: [Status(403)], |_, _| Answer::status(403);
    not_found: [Status(404)], |_, _| Answer::status(404);
    not_found_with_an_html_page: [Status(404)], |_, _| {
        Answer::whole(&page()).with_status(404).header("Content-Type", "text/html")
    };
    gone: [Status(410)], |_, _| Answer::status(410);
    a_status_without_a_body: [NO_HTTP], |_, _| Answer::status(204);
    not_modified_without_a_condition: [NO_HTTP], |_, _| Answer::status(304);
    another_protocol_without_an_upgrade_request: [NO_HTTP], |_, _| Answer::status(101);

    // Response heads.
    a_response_head_too_large: [NO_HTTP], |request, content| {
        file(request, content).header("X-Large", &"x".repeat(200_000))
    };
    too_many_headers: [NO_HTTP], |request, content| {
        (0..500).fold(file(request, content), |answer, number| answer.header(&format!("X-{number}"), "y"))
    };
    no_status_line: [NO_HTTP], |_, _| Answer::raw("Content-Length: 5\r\n\r\n12345");
    no_status: [NO_HTTP], |_, _| Answer::raw("HTTP/1.1 OK\r\nContent-Length: 5\r\n\r\n12345");
    a_status_out_of_range: [NO_HTTP], |_, _| Answer::raw("HTTP/1.1 9999 OK\r\nContent-Length: 5\r\n\r\n12345");
    a_header_without_a_colon: [NO_HTTP], |_, _| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length 5\r\n\r\n12345")
    };
    binary_garbage: [NO_HTTP], |_, _| Answer::raw((0..=255).rev().cycle().take(5000).collect::<Vec<u8>>());
    audio_without_a_response_head: [NO_HTTP], |_, content| {
        let mut bytes = Vec::new();
        content.append(&mut bytes, 0..LEN);
        Answer::raw(bytes)
    };
}

/// Delay between two bytes.
const CHUNK_DELAY: Duration = Duration::from_millis(50);

fn byte_by_byte() -> Answer {
    Answer::raw(format!("HTTP/1.1 200 OK\r\nX-Long: {}", "y".repeat(60_000))).chunks_of(1, CHUNK_DELAY)
}

fn endless_hints() -> Answer {
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";
    Answer::raw(hints.repeat(100_000)).chunks_of(hints.len() as u64, CHUNK_DELAY)
}

/// A chunked body that begins with `start`, and goes on with `framing` forever: bytes arrive, but none of the body.
fn in_chunks(start: &str, framing: &str) -> Answer {
    let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{start}");
    Answer::raw(format!("{head}{}", framing.repeat(100_000))).chunks_of(64, CHUNK_DELAY)
}

/// The file without an ETag, and with a new date in each response.
fn dated(request: &Request, content: &Content) -> Answer {
    let date = format!("Sun, {:02} Nov 1994 08:49:37 GMT", request.number % 28 + 1);
    file(request, content).without_header("ETag").header("Last-Modified", &date)
}

/// The file behind `hops` redirects.
fn redirects(request: &Request, content: &Content, hops: u32) -> Answer {
    let at = request.path.trim_start_matches('/').parse().unwrap_or(0);
    if at == hops { file(request, content) } else { Answer::redirect(302, &format!("/{}", at + 1)) }
}

#[test]
fn a_tls_connection_that_ends_without_close_notify() {
    check_over(
        Trap {
            name: "a_tls_connection_that_ends_without_close_notify",
            answer: |_, content| {
                Answer::whole(content).no_length().close_after(100_000).without_close_notify()
            },
            expect: &[BROKEN],
        },
        &[Transport::Tls],
    );
}

#[test]
fn a_tls_connection_that_ends_without_close_notify_now_and_then() {
    check_over(
        Trap {
            name: "a_tls_connection_that_ends_without_close_notify_now_and_then",
            answer: |request, content| {
                let answer = Answer::whole(content).no_length().without_close_notify();
                if request.number % 2 == 0 { answer.close_after(100_000) } else { answer.chunked() }
            },
            expect: &[Right],
        },
        &[Transport::Tls],
    );
}

#[test]
fn a_part_over_tls_that_ends_without_close_notify() {
    check_over(
        Trap {
            name: "a_part_over_tls_that_ends_without_close_notify",
            answer: |request, content| file(request, content).no_length().without_close_notify(),
            expect: &[Right, Untried, Right],
        },
        &[Transport::Tls],
    );
}

#[test]
fn a_redirect_to_another_origin_drops_the_callers_headers() {
    let mut cases = Cases::default();
    for (from_tls, to_tls) in [(false, false), (false, true), (true, false), (true, true)] {
        for way in Way::ALL {
            let name = format!("TLS: {from_tls}, redirected to TLS: {to_tls}, {way:?}");
            cases.start(name, move || redirect_elsewhere(from_tls, to_tls, way));
        }
    }
    cases.end();
}

fn redirect_elsewhere(from_tls: bool, to_tls: bool, way: Way) {
    let content = Content::pattern(LEN);
    let other =
        start(to_tls, move |request| now_and_then(request, &content, |answer| answer.close_after(50_000)));
    let elsewhere = other.url("/b");
    let origin = start(from_tls, move |_| Answer::redirect(302, &elsewhere));
    let downloader = Downloader::new(config(&[&origin, &other], Right)).unwrap();
    let secrets = [("Authorization", "Bearer secret"), ("Cookie", "id=secret"), ("X-Secret", "secret")];
    let url = origin.url("/a");
    let result = fetch(&downloader, &url, way, Right.patience(), &secrets);
    assert_result(&result, Right);
    for (name, _) in secrets {
        let name = name.to_ascii_lowercase();
        assert!(origin.log().requests[0].header(&name).is_some_and(|value| value.ends_with("secret")));
        assert!(
            other.log().requests.iter().all(|request| request.header(&name).is_none()),
            "{name} went along"
        );
    }
    assert!(other.log().requests.len() > 1);
    assert_few_valid_requests(&origin, 1);
    assert_few_valid_requests(&other, 1);
}

#[test]
fn a_file_of_one_byte() {
    let mut cases = Cases::default();
    for tls in [false, true] {
        for way in Way::ALL {
            cases.start(format!("TLS: {tls}, {way:?}"), move || {
                let content = Content::pattern(1);
                let origin = start(tls, move |request| Answer::file(request, &content));
                let downloader = Downloader::new(config(&[&origin], Right)).unwrap();
                read_at(&downloader, &origin.url("/a"), way, 0..1, 1);
                assert_few_valid_requests(&origin, 1);
            });
        }
    }
    cases.end();
}

#[test]
fn a_file_beyond_four_gigabytes() {
    let mut cases = Cases::default();
    for tls in [false, true] {
        for way in [Way::Window, Way::Whole, Way::SinkOfPart, Way::CallerOfPart] {
            cases.start(format!("TLS: {tls}, {way:?}"), move || {
                let content = Content::pattern(5 << 30);
                let origin = start(tls, move |request| {
                    now_and_then(request, &content, |answer| answer.close_after(10_000))
                });
                let downloader = Downloader::new(config(&[&origin], Right)).unwrap();
                for at in [(1 << 31) - 5000, (1 << 32) - 5000, (5 << 30) - 20_000] {
                    read_at(&downloader, &origin.url("/a"), way, at..at + 20_000, 5 << 30);
                }
                assert_few_valid_requests(&origin, 1);
            });
        }
    }
    cases.end();
}

/// Reads a part of a file of `len` bytes.
fn read_at(downloader: &Downloader, url: &str, way: Way, part: Range<u64>, len: u64) {
    let fetch = Fetch::get(url).unwrap();
    let ranged = || Fetch::get(url).unwrap().range(ByteRange::new(part.start, part.end));
    match way {
        Way::Sink => read_into_sink(downloader, fetch, part).unwrap(),
        Way::Caller => read_by_caller(downloader, fetch, part).unwrap(),
        Way::SinkOfPart => read_into_sink(downloader, ranged(), part.clone()).unwrap(),
        Way::CallerOfPart => read_by_caller(downloader, ranged(), part.clone()).unwrap(),
        Way::Window | Way::Whole => {
            let mut stream = downloader.open_with(url, file_config(way, Right.patience(), &[])).unwrap();
            assert_eq!(stream.seek(SeekFrom::End(0)).unwrap(), len);
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            stream.seek(SeekFrom::Start(part.start)).unwrap();
            let mut bytes = vec![0; (part.end - part.start) as usize];
            stream.read_exact(&mut bytes).unwrap();
            assert_pattern(part.start, &bytes);
        }
    }
}

#[test]
fn responses_without_a_byte_do_not_keep_a_read_waiting() {
    let without_bytes: fn(&Request, &Content) -> Answer = |request, content| match part(request) {
        Some(part) if part.start > 0 => file(request, content).close_after(0),
        _ => file(request, content),
    };
    let without_new_bytes: fn(&Request, &Content) -> Answer =
        |_, content| Answer::whole(content).close_after(100_000);
    let mut cases = Cases::default();
    for (name, answer) in [("parts", without_bytes), ("wholes that end early", without_new_bytes)] {
        cases.start(name.into(), move || {
            let content = Content::pattern(LEN);
            let origin = Origin::start(move |request| answer(request, &content));
            let downloader = Downloader::new(config(&[&origin], BROKEN)).unwrap();
            let mut config = file_config(Way::Window, BROKEN.patience(), &[]);
            // Longer than any delay between two attempts, which is 8 s at most.
            config.read_timeout = Some(Duration::from_secs(9));
            assert_result(&read_file(&downloader, &origin.url("/a"), config), BROKEN);
            assert_few_valid_requests(&origin, 1);
        });
    }
    cases.end();
}

#[test]
fn a_wrong_length_with_temporary_file_storage() {
    assert_ends(SILENT, |patience| {
        let content = Content::pattern(LEN);
        let lying = |answer: Answer| answer.header("Content-Length", &(1_u64 << 62).to_string());
        let origin = Origin::start(move |_| lying(Answer::whole(&content)));
        let downloader = Downloader::new(config(&[&origin], SILENT)).unwrap();
        let mut config = file_config(Way::Whole, patience, &[]);
        config.storage = StorageConfig::TempFile(None);
        (read_file(&downloader, &origin.url("/a"), config), origin)
    });
}
