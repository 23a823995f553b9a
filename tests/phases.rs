//! A player can distinguish a stream that ended, one that failed, and one that was closed.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::{Answer, Content, Origin, Request, Station, in_time};
use windway::config::{ReadAhead, StorageConfig};
use windway::event::{Event, Subscriber};
use windway::radio::RadioEvent;
use windway::stream::{Pending, Phase, TryRead};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Radio, RadioConfig, Stream};

const LEN: u64 = 1 << 20;

/// Time limit of waits, reached only by a hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn downloader() -> Downloader {
    let mut config = DownloaderConfig::default();
    config.max_retries = 0;
    Downloader::new(config).unwrap()
}

fn open(
    answer: impl Fn(&Request, &Content) -> Answer + Send + Sync + 'static,
    change: impl FnOnce(&mut FileConfig),
) -> (Stream, Origin) {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| answer(request, &content));
    let mut config = FileConfig::default();
    config.read_timeout = Some(PATIENCE);
    change(&mut config);
    (downloader().open_with(&origin.url("/a"), config).unwrap(), origin)
}

/// Blocks until a failure is published. Returns its position and error.
fn await_failure(events: &Subscriber) -> (u64, Error) {
    while let Some(event) = events.recv_timeout(PATIENCE) {
        if let Event::StreamFailed { position, error } = event {
            return (position, error);
        }
    }
    panic!("no failure was published");
}

fn count_failures(events: &Subscriber) -> usize {
    let is_failure = |event: &Event| matches!(event, Event::StreamFailed { .. });
    std::iter::from_fn(|| events.try_recv()).filter(is_failure).count()
}

/// Serves the first piece of a file, and answers with this status to all others.
fn refused_beyond_the_start(status: u16) -> impl Fn(&Request, &Content) -> Answer {
    move |request, content| match request.range() {
        Some((0, _)) => Answer::file(request, content),
        _ => Answer::status(status),
    }
}

#[test]
fn a_reader_at_the_end_has_ended_until_it_seeks() {
    let (mut stream, _origin) = open(Answer::file, |_| ());
    let handle = stream.handle();
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert_eq!(handle.phase(), Phase::Ended);
    // A seek to the same position changes nothing.
    stream.seek(SeekFrom::Start(LEN)).unwrap();
    assert_eq!((stream.read(&mut []).unwrap(), handle.phase()), (0, Phase::Ended));
    stream.seek(SeekFrom::Start(5)).unwrap();
    assert_eq!(handle.phase(), Phase::Complete);
    stream.seek(SeekFrom::End(3)).unwrap();
    assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::End);
    assert_eq!(handle.phase(), Phase::Ended);
    assert!(handle.last_error().is_none());
    // Another reader of the same file has not ended.
    let other = stream.reader();
    assert_eq!((other.handle().phase(), handle.phase()), (Phase::Complete, Phase::Ended));
    // A decoder drops the stream at its end. The handle still knows that it was the end.
    drop(stream);
    assert_eq!((other.handle().phase(), handle.phase()), (Phase::Complete, Phase::Ended));
    drop(other);
    assert_eq!(handle.phase(), Phase::Ended);
}

#[test]
fn a_403_fails_a_stream_with_its_error_and_position() {
    let (mut stream, _origin) = open(refused_beyond_the_start(403), |_| ());
    let handle = stream.handle();
    let events = handle.subscribe();
    stream.seek(SeekFrom::Start(900_000)).unwrap();
    let error = Error::from(stream.read_exact(&mut [0; 10]).unwrap_err());
    assert_eq!(error.status(), Some(403));
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(403)));
    let (position, failure) = await_failure(&events);
    assert_eq!((position, failure.status(), failure.url()), (900_000, Some(403), error.url()));
    assert_eq!(count_failures(&events), 0);
    // The next read of a part that is not stored fails again, and publishes it again.
    stream.seek(SeekFrom::Start(900_000)).unwrap();
    assert_eq!(handle.phase(), Phase::Failed);
    stream.read_exact(&mut [0; 10]).unwrap_err();
    assert_eq!(await_failure(&events).0, 900_000);
    drop(stream);
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(403)));
}

#[test]
fn a_download_without_a_reader_fails_with_its_position() {
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let answer = move |request: &Request, content: &Content| match request.range() {
        _ if request.number > 0 && down.load(Ordering::Acquire) => Answer::status(403),
        _ => Answer::file(request, content),
    };
    let (mut stream, _origin) = open(answer, |config| {
        config.storage = StorageConfig::WholeMemory;
        config.read_ahead = ReadAhead::Bytes(1);
    });
    let handle = stream.handle();
    let events = handle.subscribe();
    handle.set_read_ahead(ReadAhead::Whole).unwrap();
    let (position, error) = await_failure(&events);
    assert_eq!(error.status(), Some(403));
    assert_eq!(handle.buffered().first().map(|stored| stored.end), Some(position));
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(403)));
    // Reading stored bytes changes nothing. A wait requests the rest again.
    stream.read_exact(&mut [0; 100]).unwrap();
    assert_eq!(handle.phase(), Phase::Failed);
    is_down.store(false, Ordering::Release);
    handle.wait_range(0..LEN, Some(PATIENCE)).unwrap();
    assert_eq!(handle.phase(), Phase::Complete);
}

#[test]
fn a_wait_that_fails_leaves_the_stream_failed() {
    let refuses = |request: &Request, content: &Content| match request.range() {
        Some((0, _)) => Answer::file(request, content),
        _ => Answer::status(403),
    };
    let (stream, _origin) = open(refuses, |_| ());
    let handle = stream.handle();
    let events = handle.subscribe();
    assert_eq!(handle.wait_range(900_000..900_010, Some(PATIENCE)).unwrap_err().status(), Some(403));
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(403)));
    assert_eq!(await_failure(&events).1.status(), Some(403));
}

#[test]
fn a_read_after_a_timed_out_one_retries() {
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = Arc::clone(&is_silent);
    let answer = move |request: &Request, content: &Content| match request.range() {
        Some((first, _)) if first > 0 && silent.load(Ordering::Acquire) => Answer::status(503),
        _ => Answer::file(request, content),
    };
    // Also the limit of the opening, which must not reach it on a busy machine.
    let (mut stream, _origin) = open(answer, |config| config.read_timeout = Some(Duration::from_secs(2)));
    let handle = stream.handle();
    let events = handle.subscribe();
    stream.seek(SeekFrom::Start(900_000)).unwrap();
    let error = Error::from(stream.read(&mut [0; 10]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!((handle.phase(), handle.last_error().unwrap().kind()), (Phase::Failed, ErrorKind::TimedOut));
    assert_eq!(await_failure(&events).1.kind(), ErrorKind::TimedOut);
    is_silent.store(false, Ordering::Release);
    let mut got = 0;
    // Repeated, because a slow machine may exceed the read timeout.
    while got == 0 {
        got = stream.read(&mut [0; 10]).unwrap_or(0);
    }
    assert!(matches!(handle.phase(), Phase::Fetching | Phase::Idle), "{:?}", handle.phase());
    assert_eq!(handle.last_error().unwrap().kind(), ErrorKind::TimedOut);
}

#[test]
fn a_failure_that_try_read_repeats_is_published_once() {
    let (mut stream, _origin) = open(refused_beyond_the_start(403), |_| ());
    let handle = stream.handle();
    let events = handle.subscribe();
    stream.seek(SeekFrom::Start(900_000)).unwrap();
    assert!(matches!(stream.try_read(&mut [0; 10]), Ok(TryRead::Pending(_))));
    assert_eq!(handle.wait_range(900_000..900_010, Some(PATIENCE)).unwrap_err().status(), Some(403));
    stream.try_read(&mut [0; 10]).unwrap_err();
    assert_eq!(handle.phase(), Phase::Failed);
    assert!(count_failures(&events) > 0);
    stream.try_read(&mut [0; 10]).unwrap_err();
    assert_eq!((handle.phase(), count_failures(&events)), (Phase::Failed, 0));
}

#[test]
fn an_interrupted_stream_has_not_failed_and_a_cancelled_one_is_closed() {
    // Beyond the start nothing arrives, or a read could return it.
    let stalls = |request: &Request, content: &Content| match request.range() {
        Some((0, _)) => Answer::file(request, content),
        _ => Answer::file(request, content).stall_after(0),
    };
    let (mut stream, _origin) = open(stalls, |_| ());
    let handle = stream.handle();
    let events = handle.subscribe();
    stream.seek(SeekFrom::Start(900_000)).unwrap();
    handle.interrupt();
    stream.read(&mut [0; 10]).unwrap_err();
    handle.resume();
    assert_ne!(handle.phase(), Phase::Failed);
    handle.cancel();
    stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(handle.phase(), Phase::Closed);
    assert!(handle.last_error().is_none() && count_failures(&events) == 0);
}

#[test]
fn a_downloader_that_stops_closes_its_streams() {
    let content = Content::pattern(LEN);
    let origin = Origin::serving(content);
    let downloader = downloader();
    let stream = downloader.open(&origin.url("/a")).unwrap();
    let station = Station { audio: Content::endless(), interval: 0, every: 1, titles: Vec::new() };
    let live = Origin::start(move |request| Answer::station(request, &station));
    let mut radio = downloader.open_radio(&live.url("/live"), RadioConfig::default()).unwrap();
    radio.read_exact(&mut [0; 1000]).unwrap();
    downloader.stop();
    assert_eq!((stream.handle().phase(), radio.handle().phase()), (Phase::Closed, Phase::Closed));
}

#[test]
fn a_missing_file_opened_in_the_background_has_failed() {
    let origin = Origin::start(|_| Answer::status(404));
    let downloader = downloader();
    let events = downloader.subscribe();
    let stream = downloader.open_later(&origin.url("/a"), FileConfig::default()).unwrap();
    let (position, error) = await_failure(&events);
    assert_eq!((position, error.status()), (0, Some(404)));
    assert_eq!(
        (stream.handle().phase(), stream.handle().last_error().unwrap().status()),
        (Phase::Failed, Some(404))
    );
}

#[test]
fn a_sequential_body_that_is_missing_after_a_break_has_failed() {
    let answer = |request: &Request, content: &Content| match request.number {
        0 => Answer::whole(content).close_after(400_000),
        _ => Answer::status(410),
    };
    let (mut stream, _origin) = open(answer, |_| ());
    let handle = stream.handle();
    let events = handle.subscribe();
    let error = Error::from(std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err());
    assert_eq!(error.status(), Some(410));
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(410)));
    let failed_of =
        std::iter::from_fn(|| Some(await_failure(&events).1.status())).find(|status| *status == Some(410));
    assert!(failed_of.is_some());
}

/// Reads to the next failure.
fn next_failure(radio: &mut Radio) -> Error {
    Error::from(std::io::copy(radio, &mut std::io::sink()).unwrap_err())
}

#[test]
fn a_radio_distinguishes_failed_from_closed() {
    let station = Station { audio: Content::endless(), interval: 0, every: 1, titles: Vec::new() };
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::station(request, &station).stall_after(100_000),
        _ => Answer::status(410),
    });
    let mut config = DownloaderConfig::default();
    config.client.silence_timeout = Duration::from_secs(1);
    let downloader = Downloader::new(config).unwrap();
    let mut config = RadioConfig::default();
    config.read_timeout = Some(Duration::from_millis(50));
    let mut radio = downloader.open_radio(&origin.url("/live"), config).unwrap();
    let handle = radio.handle();
    let events = handle.subscribe();
    assert!(matches!(handle.phase(), Phase::Opening | Phase::Fetching | Phase::Stalled));
    let mut last = next_failure(&mut radio);
    assert_eq!((handle.phase(), last.kind()), (Phase::Failed, ErrorKind::TimedOut));
    assert_eq!(handle.last_error().unwrap().kind(), ErrorKind::TimedOut);
    while last.status() != Some(410) {
        last = next_failure(&mut radio);
    }
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(410)));
    drop(radio);
    assert_eq!(handle.phase(), Phase::Closed);
    let events: Vec<_> = events.collect();
    let read_failed = |event: &RadioEvent| matches!(event, RadioEvent::ReadFailed { error, .. } if error.kind() == ErrorKind::TimedOut);
    assert!(events.iter().any(read_failed), "{events:?}");
    let is_end =
        |event: &RadioEvent| matches!(event, RadioEvent::Ended { error, .. } if error.status() == Some(410));
    assert!(events.last().is_some_and(is_end), "{events:?}");
}

#[test]
fn progress_is_what_the_handle_says_also_after_the_drop() {
    let origin = Origin::serving(Content::pattern(100_000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    stream.read_exact(&mut [0; 40_000]).unwrap();
    handle.wait_range(0..100_000, None).unwrap();
    let progress = handle.progress();
    assert_eq!((progress.position, progress.len, progress.buffered_ahead), (40_000, Some(100_000), 60_000));
    assert_eq!((progress.buffered.first(), progress.buffered.len()), (Some(&(0..100_000)), 1));
    assert_eq!(progress.phase, Phase::Complete);
    assert_eq!((progress.stalls, progress.starving), (handle.stats().stalls, None));
    assert!(progress.last_error.is_none());
    let mut watch = handle.watch(Duration::ZERO);
    assert_eq!(watch.next().unwrap().position, 40_000);
    stream.read_exact(&mut [0; 10_000]).unwrap();
    assert_eq!(watch.next().unwrap().position, 50_000);
    drop(stream);
    let last = watch.next().unwrap();
    assert_eq!((last.position, last.len, last.phase), (50_000, Some(100_000), Phase::Closed));
    assert!(last.buffered.is_empty() && watch.next().is_none());
}

#[test]
fn a_watch_shows_at_once_that_its_stream_has_ended() {
    const LONG: Duration = Duration::from_secs(3600);
    type End = fn(Stream, &Downloader) -> Option<Stream>;
    let ends: [(&str, End); 4] = [
        ("dropped", |_stream, _| None),
        ("cancelled", |stream, _| {
            stream.handle().cancel();
            Some(stream)
        }),
        ("cancelled by another reader", |stream, _| {
            stream.reader().handle().cancel();
            Some(stream)
        }),
        ("stopped", |stream, downloader| {
            downloader.stop();
            Some(stream)
        }),
    ];
    let origin = Origin::serving(Content::pattern(100_000));
    for (case, end) in ends {
        let downloader = downloader();
        let stream = downloader.open(&origin.url("/a")).unwrap();
        let mut watch = stream.handle().watch(LONG);
        assert_ne!(watch.next().unwrap().phase, Phase::Closed, "{case}");
        let rest = thread::spawn(move || watch.map(|progress| progress.phase).collect::<Vec<_>>());
        let _stream = end(stream, &downloader);
        assert_eq!(in_time(case, move || rest.join().unwrap()), [Phase::Closed], "{case}");
    }
}

#[test]
fn a_try_read_that_finds_nothing_is_counted_and_says_why() {
    let content = Content::pattern(100_000);
    let origin = Origin::start(move |request| match request.range() {
        // Nor does another connection bring the rest.
        Some((1.., _)) => Answer::file(request, &content).latency_until_released(),
        _ => Answer::file(request, &content).stall_after(50_000),
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    stream.read_exact(&mut [0; 50_000]).unwrap();
    assert_eq!((stream.starving(), handle.stats().starvations), (None, 0));
    for _ in 0..3 {
        assert!(matches!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::Pending(_)));
    }
    let starving = stream.starving().unwrap();
    assert_eq!(starving.reason, Pending::Fetching);
    assert_eq!(handle.progress().starving.map(|starving| starving.reason), Some(Pending::Fetching));
    assert_eq!(handle.stats().starvations, 1);
    stream.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(stream.starving(), None);
    assert!(matches!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::Bytes(10)));
    let stats = handle.stats();
    assert!(stats.starvations == 1 && stats.starved >= starving.duration);
    drop(stream);
    let last = handle.stats();
    assert_eq!((last.starvations, last.starved), (stats.starvations, stats.starved));
}

/// Gives a file up at its first failure: any delay before the next attempt is too long.
fn given_up_at_once(config: &mut FileConfig) {
    config.give_up = Some(Duration::ZERO);
}

#[test]
fn a_file_that_is_given_up_has_ended_but_for_its_stored_bytes() {
    let (mut stream, origin) = open(refused_beyond_the_start(503), given_up_at_once);
    // The end of the file would cancel the opening before its bytes are stored.
    stream.read_exact(&mut [0; 100]).unwrap();
    let handle = stream.handle();
    let events = handle.subscribe();
    for position in [900_000, 800_000] {
        stream.seek(SeekFrom::Start(position)).unwrap();
        let error = Error::from(stream.read(&mut [0; 10]).unwrap_err());
        assert_eq!((error.kind(), error.status()), (ErrorKind::GaveUp, Some(503)), "{error:?}");
        assert!(error.is_timeout() && !error.is_retryable());
        // It was given up before the limit, and does not claim that this time has passed.
        assert!(error.to_string().contains("the next attempt would start more than 0ns after"), "{error}");
        assert_eq!(await_failure(&events).0, position);
        assert_eq!(handle.phase(), Phase::Failed);
    }
    let requests = origin.log().requests.len();
    assert_eq!(stream.try_read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::GaveUp);
    handle.wait_range(700_000..700_001, Some(PATIENCE)).unwrap_err();
    stream.rewind().unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    drop(stream);
    assert_eq!(handle.last_error().unwrap().kind(), ErrorKind::GaveUp);
    assert_eq!(origin.log().requests.len(), requests);
}

#[test]
fn an_opening_in_the_background_of_an_unreachable_host_is_given_up_too() {
    let origin = Origin::start(|_| Answer::status(404));
    origin.stop_listening();
    let mut config = FileConfig::default();
    given_up_at_once(&mut config);
    let mut stream = downloader().open_later(&origin.url("/a"), config).unwrap();
    let error = Error::from(stream.read(&mut [0; 10]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::GaveUp, "{error:?}");
    assert_eq!(error.cause().map(Error::kind), Some(ErrorKind::Refused), "{error:?}");
    assert_eq!(stream.handle().phase(), Phase::Failed);
}

#[test]
fn a_file_without_ranges_is_given_up_too() {
    let breaks = |request: &Request, content: &Content| match request.number {
        0 => Answer::whole(content).close_after(300_000),
        _ => Answer::status(503),
    };
    let (mut stream, _origin) = open(breaks, given_up_at_once);
    let error = Error::from(std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::GaveUp, "{error:?}");
    assert_eq!(stream.handle().phase(), Phase::Failed);
}

#[test]
fn a_download_without_a_reader_is_given_up_and_published() {
    let (stream, _origin) = open(refused_beyond_the_start(503), |config| {
        config.storage = StorageConfig::WholeMemory;
        config.read_ahead = ReadAhead::Bytes(1);
        given_up_at_once(config);
    });
    let handle = stream.handle();
    let events = handle.subscribe();
    handle.set_read_ahead(ReadAhead::Whole).unwrap();
    let (position, error) = await_failure(&events);
    assert_eq!((error.kind(), error.status()), (ErrorKind::GaveUp, Some(503)), "{error:?}");
    assert_eq!(handle.buffered().first().map(|stored| stored.end), Some(position));
    assert_eq!(handle.phase(), Phase::Failed);
}
