//! How a broken body continues: never beyond the end that its first response promised, never short of it, and never with bytes of
//! another representation. Every delivered byte is compared with the right one.

use std::io::Read;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use support::content::assert_pattern;
use support::peers::{Collect, List, downloader};
use support::{Answer, Content, Origin, Request};
use windway::config::{ReadAhead, StorageConfig};
use windway::downloader::Outcome;
use windway::{ByteRange, Downloader, Error, ErrorKind, Fetch, FileConfig, Priority};

const LEN: u64 = 400_000;

/// The reader of a fetched body.
const READERS: [Reader; 2] = [by_caller, by_sink];

type Reader = fn(&Downloader, Fetch, u64) -> (Vec<u8>, Result<(), Error>);

fn fetch(origin: &Origin) -> Fetch {
    Fetch::get(&origin.url("/a.flac")).unwrap()
}

/// Reads a body on this thread. Checks that its bytes are the pattern from `start` on.
fn by_caller(downloader: &Downloader, fetch: Fetch, start: u64) -> (Vec<u8>, Result<(), Error>) {
    let peer = downloader.register((), Priority::High).unwrap();
    let mut body = Vec::new();
    let result = peer.execute(fetch).and_then(|mut response| {
        assert_eq!(response.position(), start);
        let read = response.read_to_end(&mut body).map(drop).map_err(Error::from);
        assert_eq!(response.position(), start + body.len() as u64);
        read
    });
    assert_pattern(start, &body);
    (body, result)
}

/// Reads a body by a sink, with the same checks.
fn by_sink(downloader: &Downloader, fetch: Fetch, start: u64) -> (Vec<u8>, Result<(), Error>) {
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (ends, end) = mpsc::channel();
    list.put(fetch, Collect::new(start, &ends));
    peer.wake(Priority::High);
    let got = end.recv().unwrap();
    assert_pattern(start, &got.bytes);
    let result = match got.outcome {
        Outcome::Done => Ok(()),
        Outcome::Failed(error) => Err(error),
        outcome => panic!("{outcome:?}"),
    };
    (got.bytes, result)
}

fn config() -> FileConfig {
    let mut config = FileConfig::default();
    config.storage = StorageConfig::WholeMemory;
    config
}

/// Reads a file from its start to its end. Checks that its bytes are the pattern.
fn read_file(downloader: &Downloader, origin: &Origin, config: FileConfig) -> Result<u64, Error> {
    let mut stream = downloader.open_with(&origin.url("/a.flac"), config)?;
    let (mut at, mut buf) = (0, vec![0; 10_000]);
    loop {
        let got = stream.read(&mut buf)?;
        assert_pattern(at, &buf[..got]);
        at += got as u64;
        if got == 0 {
            return Ok(at);
        }
    }
}

/// The requested range, clipped to a file of `len` bytes.
fn part(request: &Request, len: u64) -> Range<u64> {
    let (first, last) = request.range().unwrap_or((0, None));
    first..last.map_or(len, |last| len.min(last + 1))
}

fn kind(result: Result<impl Sized, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A `Content-Range` that leaves the length open.
fn without_total(answer: Answer, part: &Range<u64>) -> Answer {
    answer.header("Content-Range", &format!("bytes {}-{}/*", part.start, part.end - 1))
}

// The first response's promise.

#[test]
fn a_resumed_range_answered_by_the_whole_ends_at_its_promised_end() {
    for read in READERS {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| match request.number {
            0 => Answer::file(request, &content).close_after(50),
            _ => Answer::whole(&content).header("ETag", &content.etag()),
        });
        let downloader = downloader(|_| ());
        let (bytes, result) = read(&downloader, fetch(&origin).range(ByteRange::new(100, 200)), 100);
        assert!(matches!(kind(result), None | Some(ErrorKind::RangeIgnored)));
        assert_eq!(bytes.len(), 100);
    }
}

#[test]
fn a_resumed_range_that_ends_too_early_is_resumed_again() {
    for read in READERS {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| match request.number {
            0 => Answer::file(request, &content).close_after(50),
            1 => Answer::file(request, &content).partial(part(request, 160)),
            _ => Answer::file(request, &content),
        });
        let downloader = downloader(|_| ());
        let (bytes, result) = read(&downloader, fetch(&origin).range(ByteRange::new(100, 200)), 100);
        assert_eq!((bytes.len(), kind(result)), (100, None));
        assert_eq!(origin.log().requests.len(), 3);
    }
}

#[test]
fn a_resumed_range_that_always_ends_too_early_is_truncated() {
    for read in READERS {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| match request.number {
            0 => Answer::file(request, &content).close_after(50),
            _ => Answer::file(request, &content).partial(part(request, 160)),
        });
        let downloader = downloader(|config| config.max_retries = 2);
        let (bytes, result) = read(&downloader, fetch(&origin).range(ByteRange::new(100, 200)), 100);
        assert_eq!((bytes.len(), kind(result)), (60, Some(ErrorKind::Truncated)));
        assert_eq!(origin.log().requests.len(), 3);
    }
}

#[test]
fn a_body_that_breaks_repeatedly_is_delivered_whole_and_once() {
    for read in READERS {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |request| match request.number {
            0..5 => Answer::file(request, &content).reset_after(70_000),
            _ => Answer::file(request, &content),
        });
        let (bytes, result) = read(&downloader(|_| ()), fetch(&origin), 0);
        assert_eq!((bytes.len() as u64, kind(result)), (LEN, None));
    }
}

#[test]
fn a_first_part_that_is_shorter_than_requested_reports_its_range() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| {
        let end = if request.path == "/short" { 150 } else { 1000 };
        Answer::file(request, &content).partial(part(request, end))
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    for (path, request, len, is_short) in [
        ("/short", ByteRange::new(100, 200), 50, true),
        ("/short", ByteRange::from_start(100), 50, true),
        ("/whole", ByteRange::new(100, 200), 100, false),
        ("/whole", ByteRange::new(900, 2000), 100, false),
        ("/whole", ByteRange::from_start(900), 100, false),
    ] {
        let mut response = peer.execute(Fetch::get(&origin.url(path)).unwrap().range(request)).unwrap();
        assert_eq!(response.head().is_shorter_than_asked(), is_short, "{path} {request}");
        let mut body = Vec::new();
        response.read_to_end(&mut body).unwrap();
        assert_eq!(body.len(), len);
        assert_pattern(request.start, &body);
    }
}

#[test]
fn a_file_continues_after_parts_that_are_shorter_than_requested() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let asked_for = part(request, LEN);
        let end = asked_for.end.min(asked_for.start + 30_000);
        Answer::file(request, &content).partial(asked_for.start..end)
    });
    assert_eq!(read_file(&downloader(|_| ()), &origin, config()).unwrap(), LEN);
}

#[test]
fn a_body_without_a_length_continues_to_the_end_that_a_later_response_names() {
    for read in READERS {
        for tells_total in [true, false] {
            let content = Content::pattern(1000);
            let origin = Origin::start(move |request| {
                if request.number == 0 {
                    return Answer::whole(&content).chunked().cut_chunk_after(300);
                }
                // The first two parts are too short.
                let part = part(request, [500, 800, 1000, 1000][request.number - 1]);
                let answer = Answer::file(request, &content).without_header("ETag").partial(part.clone());
                if tells_total { answer } else { without_total(answer, &part) }
            });
            let (bytes, result) = read(&downloader(|_| ()), fetch(&origin), 0);
            assert_eq!((bytes.len(), kind(result)), (1000, None), "tells the total: {tells_total}");
        }
    }
}

#[test]
fn a_total_that_changes_between_two_resumptions_is_a_change() {
    for read in READERS {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| {
            let part = part(request, 1000);
            let answer = Answer::file(request, &content);
            let total = |total: u64| format!("bytes {}-{}/{total}", part.start, part.end - 1);
            match request.number {
                0 => without_total(answer, &part).close_after(100),
                1 => answer.header("Content-Range", &total(1000)).close_after(100),
                _ => answer.header("Content-Range", &total(1001)),
            }
        });
        let whole = fetch(&origin).range(ByteRange::from_start(0));
        let (bytes, result) = read(&downloader(|_| ()), whole, 0);
        assert_eq!(kind(result), Some(ErrorKind::Changed));
        assert!(bytes.len() < 200);
    }
}

#[test]
fn a_resumed_part_beyond_the_promised_end_is_refused() {
    for read in READERS {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| match request.number {
            0 => without_total(Answer::file(request, &content), &(100..200)).close_after(50),
            _ => {
                let part = part(request, 1000).start..300;
                without_total(Answer::file(request, &content).partial(part.clone()), &part)
            }
        });
        let (bytes, result) = read(&downloader(|_| ()), fetch(&origin).range(ByteRange::new(100, 200)), 100);
        assert_eq!((bytes.len(), kind(result)), (50, Some(ErrorKind::WrongRange)));
    }
}

#[test]
fn a_416_within_a_piece_does_not_end_a_file() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let part = part(request, LEN);
        match request.number {
            0 => without_total(Answer::file(request, &content), &part).close_after(100_000),
            _ => Answer::status(416),
        }
    });
    let result = read_file(&downloader(|_| ()), &origin, config());
    assert_eq!(kind(result), Some(ErrorKind::Status(416)));
}

#[test]
fn a_416_that_reports_more_bytes_does_not_end_a_file() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let part = part(request, LEN);
        match part.start {
            0 => without_total(Answer::file(request, &content), &part),
            _ => Answer::status(416).header("Content-Range", &format!("bytes */{LEN}")),
        }
    });
    // The whole file is requested instead.
    assert_eq!(read_file(&downloader(|_| ()), &origin, config()).unwrap(), LEN);
}

// Waits between attempts.

#[test]
fn attempts_that_receive_one_byte_each_are_counted_as_failures() {
    for read in READERS {
        let content = Content::pattern(1000);
        let origin = Origin::start(move |request| {
            // One byte more than in the attempt before.
            let new = request.number as u64 + 1 - part(request, 1000).start;
            Answer::file(request, &content).close_after(new)
        });
        let downloader = downloader(|config| config.max_retries = 3);
        let (bytes, result) = read(&downloader, fetch(&origin), 0);
        assert_eq!((bytes.len(), kind(result)), (4, Some(ErrorKind::Disconnected)));
        assert_eq!(origin.log().requests.len(), 4);
    }
}

#[test]
fn attempts_that_receive_one_byte_each_without_ranges_are_not_repeated_forever() {
    let content = Content::pattern(LEN);
    let origin =
        Origin::start(move |request| Answer::whole(&content).close_after(70_000 + request.number as u64));
    let mut config = config();
    config.read_timeout = Some(Duration::from_millis(1500));
    let result = read_file(&downloader(|_| ()), &origin, config);
    assert_eq!(kind(result), Some(ErrorKind::TimedOut));
    // At once, then after at most 0.25, 0.5, 1 and 2 s, half as long on average. A reader waits 1.5 s for each byte.
    let requests = origin.log().requests.len();
    assert!(requests < 40, "{requests} requests");
}

#[test]
fn a_lost_connection_does_not_end_a_body_that_was_longer_before() {
    let content = Content::pattern(LEN);
    for announces in [false, true] {
        let content = content.clone();
        let origin = Origin::start(move |request| match request.number {
            0 if announces => Answer::whole(&content).close_after(200_000),
            0 => Answer::whole(&content).cut_chunk_after(200_000),
            // Without a length this looks like the end.
            1 => Answer::whole(&content).no_length().close_after(100_000),
            _ => Answer::whole(&content).no_length(),
        });
        let end = read_file(&downloader(|_| ()), &origin, config()).unwrap();
        assert_eq!((end, origin.log().requests.len()), (LEN, 3), "announces: {announces}");
    }
}

#[test]
fn a_complete_body_that_is_shorter_than_before_is_a_change() {
    let (content, shorter) = (Content::pattern(LEN), Content::pattern(100_000));
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::whole(&content).cut_chunk_after(200_000),
        _ => Answer::whole(&shorter).chunked(),
    });
    let result = read_file(&downloader(|_| ()), &origin, config());
    assert_eq!(kind(result), Some(ErrorKind::Changed));
}

// Parts that are called the whole.

#[test]
fn a_whole_file_labelled_as_a_part_is_the_whole() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match request.range() {
        Some(_) => Answer::file(request, &content),
        None => Answer::whole(&content).partial(0..LEN).close_after(if request.number == 0 {
            70_000
        } else {
            LEN
        }),
    });
    for read in READERS {
        let (body, result) = read(&downloader(|_| ()), fetch(&origin), 0);
        result.unwrap();
        assert_eq!(body.len() as u64, LEN);
    }
}

/// The response of a script that sends 200 in place of 206.
fn forgetful(request: &Request, content: &Content) -> Answer {
    Answer::file(request, content).with_status(200).without_header("Accept-Ranges").without_header("ETag")
}

#[test]
fn a_part_with_status_200_and_its_range_is_a_part() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| forgetful(request, &content));
    assert_eq!(read_file(&downloader(|_| ()), &origin, config()).unwrap(), LEN);
    for read in READERS {
        let range = ByteRange::new(1000, 301_000);
        let (bytes, result) = read(&downloader(|_| ()), fetch(&origin).range(range), 1000);
        assert_eq!((bytes.len(), kind(result)), (300_000, None));
    }
}

#[test]
fn a_part_with_status_200_is_never_the_end_of_a_file() {
    for tells_length in [true, false] {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |request| {
            let answer = forgetful(request, &content).without_header("Content-Range");
            if tells_length { answer } else { answer.chunked() }
        });
        let read = read_file(&downloader(|_| ()), &origin, config());
        assert_eq!(read.unwrap(), LEN, "tells the length: {tells_length}");
    }
}

#[test]
fn a_part_with_status_200_and_nothing_else_is_not_taken_for_the_beginning() {
    for read in READERS {
        let content = Content::pattern(LEN);
        let origin =
            Origin::start(move |request| forgetful(request, &content).without_header("Content-Range"));
        // The whole file is sent instead.
        let range = ByteRange::new(1000, 301_000);
        let (bytes, result) = read(&downloader(|_| ()), fetch(&origin).range(range), 0);
        assert_eq!((bytes.len() as u64, kind(result)), (LEN, None));
    }
}

#[test]
fn a_file_without_ranges_as_long_as_the_opening_ends_where_it_ends() {
    for tells_length in [true, false] {
        let content = Content::pattern(256 * 1024);
        let origin = Origin::start(move |_| {
            let answer = Answer::whole(&content);
            if tells_length { answer } else { answer.chunked() }
        });
        assert_eq!(read_file(&downloader(|_| ()), &origin, config()).unwrap(), 256 * 1024);
        assert!(origin.log().requests.len() <= 3);
    }
}

#[test]
fn a_whole_file_with_a_content_range_is_the_whole() {
    for read in READERS {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |request| {
            let part = part(request, LEN);
            let range = format!("bytes {}-{}/{LEN}", part.start, part.end - 1);
            Answer::whole(&content).header("Content-Range", &range)
        });
        let range = ByteRange::new(1000, 301_000);
        let (bytes, result) = read(&downloader(|_| ()), fetch(&origin).range(range), 0);
        assert_eq!((bytes.len() as u64, kind(result)), (LEN, None));
    }
}

// Other bytes.

/// Other bytes from `from` on.
fn changed_from(from: u64, len: u64) -> Content {
    let mut bytes = Vec::new();
    Content::pattern(len).append(&mut bytes, 0..len);
    bytes[from as usize..].iter_mut().for_each(|byte| *byte = !*byte);
    Content::bytes(bytes)
}

#[test]
fn different_bytes_after_a_break_are_detected_whatever_the_validators_say() {
    for read in READERS {
        for keeps_tag in [true, false] {
            let (content, changed) = (Content::pattern(LEN), changed_from(0, LEN));
            let origin = Origin::start(move |request| match request.number {
                0 => Answer::file(request, &content).close_after(100_000),
                _ if keeps_tag => Answer::file(request, &changed).header("ETag", &content.etag()),
                _ => Answer::file(request, &changed).without_header("ETag"),
            });
            let (bytes, result) = read(&downloader(|_| ()), fetch(&origin), 0);
            assert_eq!((bytes.len(), kind(result)), (100_000, Some(ErrorKind::Changed)));
        }
    }
}

#[test]
fn a_piece_without_a_validator_is_compared_with_the_bytes_before_it() {
    let (content, changed) = (Content::pattern(LEN), changed_from(0, LEN));
    let origin = Origin::start(move |request| match part(request, LEN).start {
        0 => Answer::file(request, &content),
        _ => Answer::file(request, &changed).without_header("ETag"),
    });
    let result = read_file(&downloader(|_| ()), &origin, config());
    assert_eq!(kind(result), Some(ErrorKind::Changed));
}

#[test]
fn pieces_without_validators_are_joined_if_their_bytes_agree() {
    let content = Content::pattern(2_000_000);
    let origin = Origin::start(move |request| match part(request, 2_000_000).start {
        0 => Answer::file(request, &content),
        _ => Answer::file(request, &content).without_header("ETag"),
    });
    assert_eq!(read_file(&downloader(|_| ()), &origin, config()).unwrap(), 2_000_000);
}

const CHANGED_ON: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[test]
fn a_date_that_may_be_of_two_versions_does_not_join_pieces() {
    let (content, changed) = (Content::pattern(LEN), changed_from(0, LEN));
    let origin = Origin::start(move |request| {
        let content = if part(request, LEN).start == 0 { &content } else { &changed };
        // Last changed within the second in which it was sent, so the date is weak.
        let answer = Answer::file(request, content).without_header("ETag");
        answer.header("Last-Modified", CHANGED_ON).header("Date", CHANGED_ON)
    });
    let result = read_file(&downloader(|_| ()), &origin, config());
    assert_eq!(kind(result), Some(ErrorKind::Changed));
}

#[test]
fn a_body_read_again_is_compared_where_only_its_end_is_stored() {
    // Windowed storage has evicted the first block before the body breaks.
    let (content, changed) = (Content::pattern(LEN), changed_from(262_144, LEN));
    let origin = Origin::start(move |request| match request.number {
        // No chunk begins at the start of a storage block.
        0 => Answer::whole(&content).chunks_of(30_007, Duration::from_millis(1)).close_after(265_000),
        _ => Answer::whole(&changed).chunks_of(30_007, Duration::from_millis(1)),
    });
    let mut config = FileConfig::default();
    config.storage = StorageConfig::Memory;
    config.behind = 1000;
    config.read_ahead = ReadAhead::Bytes(64 * 1024);
    let result = read_file(&downloader(|_| ()), &origin, config);
    assert_eq!(kind(result), Some(ErrorKind::Changed));
}

// Servers behind one name.

/// One of two servers that send different ETags and the same date for the file.
fn server(request: &Request, content: &Content, number: usize) -> Answer {
    let tag = ["\"a-1\"", "\"b-1\""][number % 2];
    Answer::file(request, content).header("ETag", tag).header("Last-Modified", CHANGED_ON)
}

const POOL_LEN: u64 = 3_000_000;

#[test]
fn a_file_behind_servers_with_different_tags_is_read_to_its_end() {
    for by_connection in [true, false] {
        for breaks in [true, false] {
            let content = Content::pattern(POOL_LEN);
            let origin = Origin::start(move |request| {
                let number = if by_connection { request.connection } else { request.number };
                let answer = server(request, &content, number);
                if breaks && request.number % 5 == 0 { answer.close_after(100_000) } else { answer }
            });
            let read = read_file(&downloader(|_| ()), &origin, config());
            assert_eq!(read.unwrap(), POOL_LEN, "by connection: {by_connection}, breaks: {breaks}");
            let requests = origin.log().requests.len();
            assert!(requests < 80, "{requests} requests");
        }
    }
}

#[test]
fn a_file_without_ranges_behind_servers_with_different_tags_is_read_to_its_end() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let tag = ["\"a-1\"", "\"b-1\""][request.number % 2];
        let answer = Answer::whole(&content).header("ETag", tag).header("Last-Modified", CHANGED_ON);
        if request.number < 4 { answer.close_after(100_000 * (request.number as u64 + 1)) } else { answer }
    });
    assert_eq!(read_file(&downloader(|_| ()), &origin, config()).unwrap(), LEN);
}

#[test]
fn servers_with_different_tags_are_a_change_where_pools_are_switched_off() {
    let content = Content::pattern(POOL_LEN);
    let origin = Origin::start(move |request| server(request, &content, request.number).close_after(100_000));
    let mut config = config();
    config.server_pools = false;
    assert_eq!(kind(read_file(&downloader(|_| ()), &origin, config)), Some(ErrorKind::Changed));
}

#[test]
fn a_tag_that_changes_and_stays_is_a_change() {
    for breaks_after in [1000, 100_000, u64::MAX] {
        // The bytes that can be compared are the same.
        let (content, changed) = (Content::pattern(POOL_LEN), changed_from(300_000, POOL_LEN));
        let origin = Origin::start(move |request| match request.number {
            0 => server(request, &content, 0).close_after(breaks_after),
            _ => server(request, &changed, 1),
        });
        let result = read_file(&downloader(|_| ()), &origin, config());
        assert_eq!(kind(result), Some(ErrorKind::Changed));
        assert!(origin.log().requests.len() < 20);
    }
}

#[test]
fn a_tag_of_its_own_for_each_response_is_a_change_after_a_few_requests() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let tag = format!("\"{}\"", request.number);
        server(request, &content, 0).header("ETag", &tag)
    });
    let result = read_file(&downloader(|_| ()), &origin, config());
    assert_eq!(kind(result), Some(ErrorKind::Changed));
    let requests = origin.log().requests.len();
    assert!(requests < 60, "{requests} requests");
}

#[test]
fn servers_with_other_bytes_are_a_change_whatever_their_date() {
    for from in [0, 260_000] {
        for by_connection in [true, false] {
            let (content, changed) = (Content::pattern(POOL_LEN), changed_from(from, POOL_LEN));
            let opened_over = OnceLock::new();
            let origin = Origin::start(move |request| {
                // The opening may use the second connection. The first server answers it in any case.
                if request.number == 0 {
                    let _ = opened_over.set(request.connection);
                }
                let number = match opened_over.get() {
                    _ if !by_connection => request.number,
                    Some(first) => request.connection.abs_diff(*first),
                    None => 1,
                };
                server(request, if number % 2 == 0 { &content } else { &changed }, number)
            });
            let result = read_file(&downloader(|_| ()), &origin, config());
            // Or one server sent all bytes.
            assert!(matches!(kind(result), None | Some(ErrorKind::Changed)), "from {from}");
        }
    }
}

// Ranges that make no sense.

#[test]
fn an_empty_range_is_not_requested() {
    for read in READERS {
        let origin = Origin::serving(Content::pattern(1000));
        for range in [
            ByteRange::new(0, 0),
            ByteRange::new(5, 5),
            ByteRange::new(9, 5),
            ByteRange::from_start(u64::MAX),
        ] {
            let (_, result) = read(&downloader(|_| ()), fetch(&origin).range(range), range.start);
            assert_eq!(kind(result), Some(ErrorKind::InvalidInput), "{range:?}");
        }
        assert_eq!(origin.log().requests.len(), 0);
    }
}
