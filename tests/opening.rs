//! Opening a file requests its beginning and its end in parallel. Both stay stored.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use support::content::assert_pattern;
use support::{Answer, Content, Log, Origin, Request};
use windway::config::ReadAhead;
use windway::{Downloader, DownloaderConfig, FileConfig, Stream};

const LEN: u64 = 100_000_000;

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

fn read_at(stream: &mut Stream, position: u64, len: usize) {
    let mut bytes = vec![0; len];
    stream.seek(SeekFrom::Start(position)).unwrap();
    stream.read_exact(&mut bytes).unwrap();
    assert_pattern(position, &bytes);
}

/// Answers the first request after the suffix request has arrived, so that the first one has to wait.
fn slow_origin(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Origin {
    let (has_come, changed) = (Mutex::new(false), Condvar::new());
    Origin::start(move |request| {
        if request.suffix().is_some() {
            *has_come.lock().unwrap() = true;
            changed.notify_all();
        } else if request.number == 0 {
            let limit = Duration::from_secs(60);
            let waited = changed.wait_timeout_while(has_come.lock().unwrap(), limit, |has_come| !*has_come);
            assert!(!waited.unwrap().1.timed_out(), "no suffix request has come");
        }
        answer(request)
    })
}

/// Blocks until the bytes of the suffix request are stored, or those of another request.
fn wait_for_end(stream: &Stream) {
    stream.handle().wait_range(LEN - 160..LEN, None).unwrap();
}

#[test]
fn the_end_is_requested_before_the_beginning_arrives() {
    let content = Content::pattern(LEN);
    let origin = slow_origin(move |request| Answer::file(request, &content));
    let mut stream = downloader().open(&origin.url("/a.mp3")).unwrap();
    read_at(&mut stream, 0, 4096);
}

/// As symphonia opens an MP3: the first bytes, a tag at the end, the first bytes again.
#[test]
fn reading_the_end_and_the_beginning_again_takes_no_more_requests() {
    let content = Content::pattern(LEN);
    let origin = slow_origin(move |request| Answer::file(request, &content));
    let mut stream = downloader().open(&origin.url("/a.mp3")).unwrap();
    read_at(&mut stream, 0, 4096);
    wait_for_end(&stream);
    read_at(&mut stream, LEN - 160, 160);
    read_at(&mut stream, 0, 200_000);
    // What follows the opening is prefetched.
    let waited_for = |request: &&Request| {
        request.range().is_none_or(|(first, _)| !(256 << 10..=LEN - 14_000).contains(&first))
    };
    let log = origin.log();
    assert_eq!((log.requests.iter().filter(waited_for).count(), log.suffixes.len()), (1, 1), "{log:?}");
}

#[test]
fn a_far_seek_takes_the_connection_of_the_suffix_request() {
    let starts_at = |request: &&Request, at: u64| request.range().is_some_and(|(first, _)| first == at);
    let was_hedged = |log: &Log| log.requests.iter().filter(|request| starts_at(request, 0)).count() > 1;
    // An opening that waits for a second, on a busy machine, is hedged over the connection of the suffix request.
    let log = (0..10).map(|_| log_of_far_seek()).find(|log| !was_hedged(log)).expect("an opening in time");
    let seek = log.requests.iter().find(|request| starts_at(request, LEN / 2));
    assert!(seek.is_some_and(|seek| seek.connection < 2), "{log:?}");
}

fn log_of_far_seek() -> Log {
    let content = Content::pattern(LEN);
    let origin = slow_origin(move |request| Answer::file(request, &content));
    let mut stream = downloader().open(&origin.url("/a.mp3")).unwrap();
    wait_for_end(&stream);
    read_at(&mut stream, LEN / 2, 4096);
    origin.log()
}

#[test]
fn the_beginning_and_the_end_stay_stored_wherever_the_window_moves() {
    let content = Content::pattern(LEN);
    // Or else the suffix request may be left out, and the end is stored only as far as it was read.
    let origin = slow_origin(move |request| Answer::file(request, &content));
    let mut config = FileConfig::default();
    config.behind = 20_000;
    config.read_ahead = ReadAhead::Bytes(150_000);
    let mut stream = downloader().open_with(&origin.url("/a.mp3"), config).unwrap();
    stream.handle().wait_range(0..256 << 10, None).unwrap();
    wait_for_end(&stream);
    for position in [LEN / 2, LEN / 4] {
        read_at(&mut stream, position, 2_000_000);
    }
    let buffered = stream.handle().buffered();
    assert!(buffered.first().is_some_and(|first| first.start == 0 && first.end >= 256 << 10), "{buffered:?}");
    assert!(buffered.last().is_some_and(|last| last.end == LEN), "{buffered:?}");
    let bytes: u64 = buffered.iter().map(|range| range.end - range.start).sum();
    assert!(bytes < 2 << 20, "{buffered:?}");
    let before = origin.log().requests.len();
    read_at(&mut stream, 0, 100_000);
    read_at(&mut stream, LEN - 10_000, 10_000);
    let requests = origin.log().requests.split_off(before);
    let kept = [0..256 << 10, LEN - 10_000..LEN];
    let is_new = |request: &Request| {
        request.range().is_some_and(|(first, _)| !kept.iter().any(|kept| kept.contains(&first)))
    };
    assert!(requests.iter().all(is_new), "{requests:?}");
}

#[test]
fn a_refused_suffix_request_is_no_error_and_is_not_repeated() {
    let answers: [fn(&Content) -> Answer; 5] = [
        Answer::whole,
        |_| Answer::status(416),
        |_| Answer::status(400),
        |content| Answer::whole(content).partial(0..1000),
        |content| Answer::whole(content).chunked(),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let content = Content::pattern(LEN);
        let origin = slow_origin(move |request| match request.suffix() {
            Some(_) => answer(&content),
            None => Answer::file(request, &content),
        });
        let downloader = downloader();
        let mut first = downloader.open(&origin.url("/a.mp3")).unwrap();
        wait_for_end(&first);
        read_at(&mut first, LEN - 160, 160);
        let mut second = downloader.open(&origin.url("/b.mp3")).unwrap();
        read_at(&mut second, LEN - 160, 160);
        assert_eq!(origin.log().suffixes.len(), 1, "{number}");
    }
}

#[test]
fn an_end_that_breaks_off_is_fetched_like_any_other_piece() {
    let answers: [fn(Answer) -> Answer; 4] = [
        |answer| answer.close_after(1000),
        |answer| answer.reset_after(0),
        |answer| answer.close_in_head(10),
        |_| Answer::status(503),
    ];
    for answer in answers {
        let content = Content::pattern(LEN);
        let origin = slow_origin(move |request| match request.suffix() {
            Some(_) => answer(Answer::file(request, &content)),
            None => Answer::file(request, &content),
        });
        let mut stream = downloader().open(&origin.url("/a.mp3")).unwrap();
        read_at(&mut stream, LEN - 160, 160);
        read_at(&mut stream, 0, 4096);
    }
}

#[test]
fn the_end_of_another_version_is_not_joined_to_the_beginning() {
    for header in [("ETag", "\"other\""), ("Content-Range", "bytes 99986177-100000000/100000001")] {
        let (content, other) = (Content::pattern(LEN), Content::bytes(vec![7; 20_000]));
        let origin = slow_origin(move |request| match request.suffix() {
            Some(suffix) => Answer::whole(&other)
                .partial(0..suffix)
                .header("Content-Range", &format!("bytes {}-{}/{LEN}", LEN - suffix, LEN - 1))
                .header(header.0, header.1),
            None => Answer::file(request, &content),
        });
        let mut stream = downloader().open(&origin.url("/a.mp3")).unwrap();
        read_at(&mut stream, LEN - 160, 160);
        read_at(&mut stream, 0, 4096);
        assert_eq!(stream.len(), Some(LEN));
    }
}

#[test]
fn no_suffix_request_is_sent_on_a_metered_network() {
    let downloader = Downloader::new(DownloaderConfig::new().metered(true)).unwrap();
    assert!(downloader.is_metered());
    let origin = Origin::serving(Content::pattern(LEN));
    let mut stream = downloader.open(&origin.url("/a.mp3")).unwrap();
    read_at(&mut stream, LEN - 160, 160);
    assert!(origin.log().suffixes.is_empty());
    downloader.set_metered(false);
    let content = Content::pattern(LEN);
    let origin = slow_origin(move |request| Answer::file(request, &content));
    drop(downloader.open(&origin.url("/a.mp3")).unwrap());
}

/// The index of this MP4 lies behind 5.7 MB of audio, as its first bytes tell.
#[test]
fn a_metered_network_is_spared_what_the_first_bytes_tell() {
    const AUDIO: u64 = 5_700_000;
    let head = [&b"\0\0\0\x10ftypM4A \0\0\0\0"[..], &(AUDIO as u32).to_be_bytes(), b"mdat"].concat();
    for is_metered in [false, true] {
        let origin = Origin::serving(Content::padded(&head[..], AUDIO + 100_000, &[1][..]));
        let downloader = Downloader::new(DownloaderConfig::new().metered(is_metered)).unwrap();
        let mut stream = downloader.open(&origin.url("/a.m4a")).unwrap();
        stream.read_exact(&mut [0; 70_000]).unwrap();
        // What follows the opening is prefetched in any case.
        let begins = |request: &Request, at: u64| request.range().is_some_and(|(first, _)| first == at);
        origin.wait_until("read-ahead", |log| log.requests.iter().any(|request| begins(request, 256 << 10)));
        let index = 16 + AUDIO - (64 << 10);
        let asks_index = |log: &Log| log.requests.iter().any(|request| begins(request, index));
        if is_metered {
            // Its request would be planned before the read-ahead's.
            assert!(!asks_index(&origin.log()));
        } else {
            origin.wait_until("the index", asks_index);
        }
    }
}

#[test]
fn a_server_without_ranges_gets_one_suffix_request_at_most() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |_| Answer::whole(&content));
    let downloader = downloader();
    for path in ["/a.mp3", "/b.mp3", "/c.mp3"] {
        let mut all = Vec::new();
        downloader.open(&origin.url(path)).unwrap().read_to_end(&mut all).unwrap();
        assert_pattern(0, &all);
        assert_eq!(all.len(), 1_000_000);
    }
    assert!(origin.log().suffixes.len() <= 1);
}

#[test]
fn a_file_shorter_than_its_suffix_is_whole() {
    let origin = Origin::serving(Content::pattern(5_000));
    for path in ["/a.mp3", "/b.mp3"] {
        let mut all = Vec::new();
        downloader().open(&origin.url(path)).unwrap().read_to_end(&mut all).unwrap();
        assert_pattern(0, &all);
        assert_eq!(all.len(), 5_000);
    }
}
