//! Readers that are blocked while all workers are busy run their fetches themselves.

use std::io::{Read, Seek, SeekFrom};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::peers::downloader;
use support::{Answer, Content, Log, Origin, Request};
use windway::event::Event;
use windway::{Downloader, Error, ErrorKind, Fetch, FileConfig, Priority, Stream, StreamHandle};

const LEN: u64 = 100_000;

/// A downloader with one worker, which is busy with a request whose response head does not arrive.
struct Busy {
    origin: Origin,
    downloader: Downloader,
    blocker: JoinHandle<()>,
}

fn busy() -> Busy {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match request.path.as_str() {
            "/blocker" | "/held" => answer.latency_until_released(),
            "/chunks" => answer.chunks_of(10_000, Duration::from_millis(1)),
            _ => answer,
        }
    });
    let downloader = downloader(|config| {
        config.max_concurrent = 1;
        // No silence timeout may end the fetches of these tests.
        config.client.silence_timeout = Duration::from_secs(3600);
    });
    let peer = downloader.register((), Priority::High).unwrap();
    let fetch = Fetch::get(&origin.url("/blocker")).unwrap();
    let blocker = thread::spawn(move || drop(peer.execute(fetch).unwrap()));
    origin.wait_until("the blocker", |log| log.requests.len() == 1);
    Busy { origin, downloader, blocker }
}

impl Busy {
    fn open_later(&self, path: &str, config: FileConfig) -> Stream {
        self.downloader.open_later(&self.origin.url(path), config).unwrap()
    }

    /// Reads `path`, whose response head does not arrive, on a new thread. Returns once that thread drives its own fetch.
    fn drive(&self, path: &str) -> (StreamHandle, JoinHandle<ErrorKind>) {
        let stream = self.open_later(path, FileConfig::default());
        let handle = stream.handle();
        let reader = read(stream);
        self.origin.wait_until("the reader's request", |log| log.requests.len() == 2);
        (handle, reader)
    }

    fn end(self) {
        self.origin.release();
        self.blocker.join().unwrap();
    }
}

/// Reads on a new thread, which returns the error.
fn read(mut stream: Stream) -> JoinHandle<ErrorKind> {
    thread::spawn(move || {
        let error = stream.read(&mut [0; 100]).unwrap_err();
        error.get_ref().and_then(|error| error.downcast_ref::<Error>()).unwrap().kind()
    })
}

#[test]
fn readers_do_not_wait_for_a_worker() {
    let busy = busy();
    let streams: Vec<_> = (0..10).map(|number| busy.origin.url(&format!("/{number}"))).collect();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|url| {
            let downloader = busy.downloader.clone();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                downloader.open(&url).unwrap().read_to_end(&mut bytes).unwrap();
                support::content::assert_pattern(0, &bytes);
                bytes.len() as u64
            })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), LEN);
    }
    assert_eq!(busy.downloader.stats().busy_workers, 1);
    busy.end();
}

#[test]
fn a_wait_for_bytes_runs_its_fetch() {
    let busy = busy();
    let stream = busy.open_later("/file", FileConfig::default());
    stream.handle().wait_range(0..LEN, Some(Duration::from_secs(30))).unwrap();
    assert_eq!(busy.downloader.stats().busy_workers, 1);
    busy.end();
}

#[test]
fn the_time_limit_of_a_wait_for_bytes_holds_for_what_it_runs_itself() {
    let busy = busy();
    let stream = busy.open_later("/held", FileConfig::default());
    let error = stream.handle().wait_range(0..LEN, Some(Duration::from_millis(100))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    busy.end();
}

#[test]
fn a_body_handed_back_by_its_reader_keeps_its_connection() {
    let busy = busy();
    let mut stream = busy.downloader.open(&busy.origin.url("/chunks")).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, LEN);
    // One request of the busy worker, and one for the whole file.
    assert_eq!(busy.origin.log().requests.len(), 2);
    busy.end();
}

#[test]
fn an_interrupt_ends_a_fetch_that_its_reader_drives() {
    let busy = busy();
    let (handle, reader) = busy.drive("/held");
    handle.interrupt();
    assert_eq!(reader.join().unwrap(), ErrorKind::Interrupted);
    busy.end();
}

#[test]
fn an_interrupt_aborts_no_fetch_that_another_reader_drives() {
    let far = |request: &Request| request.range().is_some_and(|(start, _)| start >= 1_000_000);
    let content = Content::pattern(6_000_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        if far(request) || request.path == "/blocker" { answer.latency_until_released() } else { answer }
    });
    let downloader = downloader(|config| {
        config.max_concurrent = 1;
        config.client.silence_timeout = Duration::from_secs(3600);
    });
    let stream = downloader.open(&origin.url("/file")).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    let fetch = Fetch::get(&origin.url("/blocker")).unwrap();
    let blocker = thread::spawn(move || drop(peer.execute(fetch).unwrap()));
    origin.wait_until("the blocker", |log| log.requests.iter().any(|request| request.path == "/blocker"));
    let mut readers = [stream.reader(), stream];
    for (reader, position) in readers.iter_mut().zip([2_000_000, 4_000_000]) {
        reader.seek(SeekFrom::Start(position)).unwrap();
    }
    let handle = readers[0].handle();
    let [interrupted, mut other] = readers;
    let interrupted = read(interrupted);
    let far_requests = move |log: &Log| log.requests.iter().filter(|request| far(request)).count();
    origin.wait_until("the first reader's request", |log| far_requests(log) == 1);
    let other = thread::spawn(move || {
        let mut bytes = [0; 1000];
        other.read_exact(&mut bytes).map(|()| bytes)
    });
    origin.wait_until("the second reader's request", |log| far_requests(log) == 2);
    handle.interrupt();
    assert_eq!(interrupted.join().unwrap(), ErrorKind::Interrupted);
    origin.release();
    support::content::assert_pattern(4_000_000, &other.join().unwrap().unwrap());
    blocker.join().unwrap();
    let log = origin.log();
    let of_the_other = |request: &&Request| request.range().is_some_and(|(start, _)| start == 4_000_000);
    assert_eq!(log.requests.iter().filter(of_the_other).count(), 1);
}

#[test]
fn a_cancel_ends_a_fetch_that_its_reader_drives() {
    let busy = busy();
    let (handle, reader) = busy.drive("/held");
    handle.cancel();
    assert!(matches!(reader.join().unwrap(), ErrorKind::Cancelled(_)));
    busy.end();
}

#[test]
fn a_stop_ends_a_fetch_that_its_reader_drives() {
    let busy = busy();
    let stream = busy.open_later("/held", FileConfig::default());
    let reader = read(stream);
    busy.origin.wait_until("the reader's request", |log| log.requests.len() == 2);
    busy.downloader.stop();
    assert!(matches!(reader.join().unwrap(), ErrorKind::Cancelled(_)));
    assert!(busy.blocker.join().is_err());
}

#[test]
fn the_read_timeout_holds_for_a_fetch_that_its_reader_drives() {
    let busy = busy();
    let config = FileConfig::default().read_timeout(Some(Duration::from_millis(100)));
    let reader = read(busy.open_later("/held", config));
    // The timeouts of the client would let the read wait for an hour.
    assert_eq!(reader.join().unwrap(), ErrorKind::TimedOut);
    busy.end();
}

#[test]
fn a_body_that_no_reader_waits_for_is_preempted_by_urgent_work() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        // At this rate the file takes longer than any test.
        if request.path == "/slow" { answer.chunks_of(100, Duration::from_millis(500)) } else { answer }
    });
    let downloader = downloader(|config| config.max_concurrent = 1);
    let mut stream = downloader.open(&origin.url("/slow")).unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    drop(peer.execute(Fetch::get(&origin.url("/urgent")).unwrap()).unwrap());
    assert!(stream.handle().stats().bytes_fetched < LEN);
}

#[test]
fn a_whole_body_ends_though_no_worker_is_free() {
    let busy = busy();
    for path in ["/file", "/chunks"] {
        let events = busy.downloader.subscribe();
        let mut stream = busy.downloader.open(&busy.origin.url(path)).unwrap();
        support::content::assert_whole(&mut stream, LEN);
        let is_end = |event: &Event| matches!(event, Event::Completed { .. });
        support::in_time(path, move || events.into_iter().find(is_end).unwrap());
    }
    busy.end();
}
