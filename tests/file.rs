//! A stream reads like a local file of the same bytes.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::peers::{Collect, List};
use support::{Answer, Content, Origin, Request};
use windway::config::{ReadAhead, StorageConfig};
use windway::downloader::Validator;
use windway::event::Event;
use windway::stream::{Pending, Phase, TryRead};
use windway::{ByteRange, Downloader, DownloaderConfig, ErrorKind, Fetch, FileConfig, Priority, Stream};

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

fn small_window() -> FileConfig {
    let mut config = FileConfig::default();
    config.behind = 20_000;
    config.read_ahead = ReadAhead::Bytes(150_000);
    config
}

fn stored_in(storage: StorageConfig) -> FileConfig {
    let mut config = FileConfig::default();
    config.storage = storage;
    config.read_ahead = ReadAhead::Whole;
    config
}

/// Compares a stream with a local file of the same bytes.
fn compare(
    len: u64,
    config: FileConfig,
    answer: impl Fn(&Request, &Content) -> Answer + Send + Sync + 'static,
) {
    let content = Content::pattern(len);
    let origin = Origin::start(move |request| answer(request, &content));
    let downloader = downloader();
    support::steps::compare(len, 48, || downloader.open_with(&origin.url("/file"), config.clone()).unwrap());
}

#[test]
fn it_is_as_a_file_from_a_good_server() {
    compare(700_001, FileConfig::default(), Answer::file);
}

/// After a slow beginning the pieces are small. Each arrives together with its head, and still has to show that the network is
/// fast now.
#[test]
fn a_network_that_is_faster_again_is_used() {
    const LEN: u64 = 12_000_000;
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        let start = request.range().map_or(0, |(start, _)| start);
        if start < 150_000 && request.suffix().is_none() {
            answer.rate(30_000).close_after(50_000)
        } else {
            answer
        }
    });
    let config = FileConfig::new().read_ahead(ReadAhead::Whole).storage(StorageConfig::WholeMemory);
    let stream = downloader().open_with(&origin.url("/a"), config).unwrap();
    // No reader takes the bytes as they come.
    stream.handle().wait_range(0..LEN, Some(support::PATIENCE)).unwrap();
    // In pieces of 64 KiB it would be 183.
    let requests = origin.log().requests.len();
    assert!(requests < 100, "{requests} requests");
}

#[test]
fn it_is_as_a_file_with_a_small_window() {
    compare(700_001, small_window(), Answer::file);
}

#[test]
fn it_is_as_a_file_whole_in_memory() {
    compare(700_001, stored_in(StorageConfig::WholeMemory), Answer::file);
}

#[test]
fn it_is_as_a_file_in_a_temporary_file() {
    compare(700_001, stored_in(StorageConfig::TempFile(None)), Answer::file);
}

#[test]
fn it_is_as_a_file_in_a_small_window_of_a_temporary_file() {
    let mut config = small_window();
    config.storage = StorageConfig::WindowedTempFile(None);
    compare(700_001, config, Answer::file);
}

#[test]
fn it_is_as_a_file_for_two_readers_over_a_network_that_fails() {
    for storage in [
        StorageConfig::Memory,
        StorageConfig::WholeMemory,
        StorageConfig::TempFile(None),
        StorageConfig::WindowedTempFile(None),
    ] {
        let content = Content::pattern(700_001);
        let origin = Origin::start(move |request| {
            let answer = Answer::file(request, &content);
            match request.number % 5 {
                1 => answer.close_after(30_000),
                3 => answer.reset_after(1_000),
                4 => Answer::status(503).header("Retry-After", "0"),
                _ => answer,
            }
        });
        let mut config = small_window();
        config.storage = storage;
        let mut first = downloader().open_with(&origin.url("/a"), config).unwrap();
        let mut second = first.reader();
        let mut buf = vec![0; 20_000];
        for step in 0..60_u64 {
            // One reader reads in sequence, the other one seeks to and fro.
            first.read_exact(&mut buf[..10_000]).unwrap();
            assert_pattern(step * 10_000, &buf[..10_000]);
            let at = step * 131_071 % 680_000;
            second.seek(SeekFrom::Start(at)).unwrap();
            second.read_exact(&mut buf).unwrap();
            assert_pattern(at, &buf);
        }
    }
}

#[test]
fn waiting_for_more_than_the_window_is_refused() {
    let origin = Origin::serving(Content::pattern(5_000_000));
    let stream = downloader().open_with(&origin.url("/a"), small_window()).unwrap();
    let error = stream.handle().wait_buffered(1_000_000, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn waiting_for_more_than_is_left_ends_at_the_end() {
    const LEN: u64 = 70_000;
    let content = Content::pattern(LEN);
    let answer = move |request: &Request| match request.path.as_str() {
        "/ranges" => Answer::file(request, &content),
        "/whole" => Answer::whole(&content),
        _ => Answer::whole(&content).chunked(),
    };
    let origin = Origin::start(answer);
    let downloader = downloader();
    for path in ["/ranges", "/whole", "/chunked"] {
        for storage in [StorageConfig::Memory, StorageConfig::WholeMemory, StorageConfig::TempFile(None)] {
            let config = FileConfig::new().storage(storage);
            let stream = downloader.open_with(&origin.url(path), config).unwrap();
            let handle = stream.handle();
            handle.wait_range(100..u64::MAX, Some(support::PATIENCE)).unwrap();
            handle.wait_buffered(u64::MAX, Some(support::PATIENCE)).unwrap();
            assert_eq!(handle.buffered_ahead(), LEN, "{path}");
            handle.wait_range(LEN + 1..u64::MAX, Some(support::PATIENCE)).unwrap();
        }
    }
}

/// Only bytes that the file has count as more than the window.
#[test]
fn waiting_for_more_than_the_window_is_refused_once_the_body_is_longer() {
    let content = Content::pattern(5_000_000);
    let origin = Origin::start(move |_| Answer::whole(&content).chunked());
    let stream = downloader().open_with(&origin.url("/a"), small_window()).unwrap();
    let error = stream.handle().wait_buffered(u64::MAX, Some(support::PATIENCE)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn it_is_as_a_file_from_a_server_that_breaks_off() {
    compare(400_000, small_window(), |request, content| {
        let answer = Answer::file(request, content);
        match request.number % 3 {
            0 => answer.reset_after(30_001),
            1 => answer.close_after(50_000),
            _ => answer,
        }
    });
}

#[test]
fn it_is_as_a_file_from_a_server_without_ranges() {
    compare(400_000, stored_in(StorageConfig::WholeMemory), |_, content| Answer::whole(content));
}

#[test]
fn it_is_as_a_file_from_a_server_without_ranges_with_a_small_window() {
    compare(400_000, small_window(), |_, content| Answer::whole(content));
}

#[test]
fn it_is_as_a_file_from_a_server_that_sends_no_length() {
    compare(400_000, stored_in(StorageConfig::TempFile(None)), |_, content| Answer::whole(content).chunked());
}

#[test]
fn a_file_whose_total_length_is_never_sent_is_read_to_its_end() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        let (first, last) = request.range().unwrap();
        if first >= content.len() {
            return answer.without_header("Content-Range");
        }
        let last = last.unwrap_or(u64::MAX).min(content.len() - 1);
        answer.header("Content-Range", &format!("bytes {first}-{last}/*"))
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    assert_eq!(stream.len(), None);
    assert_whole(&mut stream, 1_000_000);
    assert_eq!(stream.len(), Some(1_000_000));
}

#[test]
fn a_body_that_always_ends_early_times_out_and_is_not_requested_forever() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |_| Answer::whole(&content).close_after(100_000));
    let mut config = FileConfig::default();
    // Also the limit of the opening, which must not reach it on a busy machine.
    config.read_timeout = Some(Duration::from_secs(3));
    let mut stream = downloader().open_with(&origin.url("/a"), config).unwrap();
    let mut all = Vec::new();
    let error = windway::Error::from(stream.read_to_end(&mut all).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(all.len(), 100_000);
    assert_pattern(0, &all);
}

#[test]
fn it_is_as_a_file_of_one_byte() {
    compare(1, FileConfig::default(), Answer::file);
}

#[test]
fn opening_and_reading_the_first_bytes_is_one_request() {
    let origin = Origin::serving(Content::pattern(100_000_000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut buf = [0; 4096];
    stream.read_exact(&mut buf).unwrap();
    assert_pattern(0, &buf);
    let requests = origin.log().requests;
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].method.as_str(), requests[0].header("range")), ("GET", Some("bytes=0-262143")));
}

#[test]
fn a_far_seek_sends_one_urgent_request() {
    let origin = Origin::serving(Content::pattern(100_000_000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut buf = [0; 4096];
    stream.seek(SeekFrom::Start(50_000_000)).unwrap();
    stream.read_exact(&mut buf).unwrap();
    assert_pattern(50_000_000, &buf);
    let requests = origin.log().requests;
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range(), Some((50_000_000, Some(50_065_535))));
}

#[test]
fn reading_slower_than_the_network_never_blocks_after_the_start() {
    let origin = Origin::serving(Content::pattern(3_000_000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    let mut buf = vec![0; 10_000];
    let mut position = 0;
    loop {
        // The reader is slower than the network, so the bytes that it reads next have arrived.
        handle.wait_buffered(65_536, Some(Duration::from_secs(60))).unwrap();
        let stalls = handle.stats().stalls;
        let got = stream.read(&mut buf).unwrap() as u64;
        assert_eq!(handle.stats().stalls, stalls, "the read at {position} waited");
        if got == 0 {
            break;
        }
        position += got;
    }
    assert_eq!(position, 3_000_000);
}

#[test]
fn a_read_returns_the_bytes_that_are_there() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(1000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut buf = vec![0; 100_000];
    let mut got = 0;
    while got < 1000 {
        got += stream.read(&mut buf[got..]).unwrap();
    }
    assert_eq!(got, 1000);
    assert_pattern(0, &buf[..got]);
}

#[test]
fn many_backward_seeks_read_the_right_bytes() {
    let origin = Origin::serving(Content::pattern(30_000_000));
    let downloader = downloader();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    let mut buf = vec![0; 50_000];
    for round in (0..200_u64).rev() {
        stream.seek(SeekFrom::Start(round * 140_001)).unwrap();
        stream.read_exact(&mut buf).unwrap();
        assert_pattern(round * 140_001, &buf);
    }
}

#[test]
fn a_file_beyond_four_gigabytes_is_read_anywhere() {
    let len = (5 << 32) + 77;
    let origin = Origin::serving(Content::pattern(len));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut buf = vec![0; 1000];
    for position in [len - 1000, (1 << 32) - 500, 3 << 32] {
        stream.seek(SeekFrom::Start(position)).unwrap();
        stream.read_exact(&mut buf).unwrap();
        assert_pattern(position, &buf);
    }
}

#[test]
fn two_streams_of_different_priority_are_both_read() {
    let origin = Origin::serving(Content::pattern(2_000_000));
    let downloader = downloader();
    let mut preload = FileConfig::default();
    preload.priority = Priority::Low;
    let mut first = downloader.open(&origin.url("/a")).unwrap();
    let mut second = downloader.open_later(&origin.url("/b"), preload).unwrap();
    for stream in [&mut first, &mut second] {
        assert_whole(stream, 2_000_000);
    }
}

#[test]
fn parts_of_a_changed_file_are_never_joined() {
    let origin = Origin::start(move |request| {
        // From the second request on there is another file of the same length.
        let answer = Answer::file(request, &Content::pattern(10_000_000));
        if request.number == 0 { answer } else { answer.header("ETag", "\"v2\"") }
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut all = Vec::new();
    let error = windway::Error::from(stream.read_to_end(&mut all).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert_pattern(0, &all);
}

#[test]
fn interrupting_releases_a_read_and_stored_bytes_are_still_served() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(1000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    handle.wait_buffered(1000, None).unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let error = stream.read_to_end(&mut all).unwrap_err();
        stream.rewind().unwrap();
        let mut first = [0; 1000];
        stream.read_exact(&mut first).unwrap();
        (windway::Error::from(error).kind(), all.len(), first)
    });
    handle.interrupt();
    let (kind, len, first) = reader.join().unwrap();
    assert_eq!((kind, len), (ErrorKind::Interrupted, 1000));
    assert_pattern(0, &first);
}

#[test]
fn a_read_tries_often_while_a_server_that_was_there_can_not_be_reached() {
    let content = Content::pattern(3_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).rate(1_000_000));
    let mut stream = downloader().open_with(&origin.url("/a"), small_window()).unwrap();
    // Until the opening is over, which is given up sooner.
    stream.read_exact(&mut vec![0; 600_000]).unwrap();
    let events = stream.handle().subscribe();
    origin.stop_listening();
    let handle = stream.handle();
    let reader = std::thread::spawn(move || stream.read_to_end(&mut Vec::new()).map(drop));
    let mut after = Vec::new();
    while after.len() < 8 {
        if let Event::Retrying { error, after: delay, .. } = events.recv().unwrap() {
            after.extend((error.kind() == ErrorKind::Refused).then_some(delay));
        }
    }
    assert!(after.iter().all(|after| *after <= Duration::from_millis(1500)), "{after:?}");
    handle.cancel();
    reader.join().unwrap().unwrap_err();
}

#[test]
fn cancelling_releases_a_read_for_good() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(1000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    let reader = std::thread::spawn(move || stream.read_to_end(&mut Vec::new()).unwrap_err());
    origin.wait_until("request", |log| log.sent >= 1000);
    handle.cancel();
    let error = windway::Error::from(reader.join().unwrap());
    assert!(error.is_cancelled(), "{error:?}");
}

#[test]
fn a_try_read_requests_bytes_and_gets_them_later() {
    let origin = Origin::serving(Content::pattern(1_000_000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    let mut buf = [0; 1000];
    stream.seek(SeekFrom::Start(900_000)).unwrap();
    assert_eq!(stream.try_read(&mut buf).unwrap(), TryRead::Pending(Pending::Fetching));
    handle.wait_range(900_000..901_000, None).unwrap();
    assert_eq!(stream.try_read(&mut buf).unwrap(), TryRead::Bytes(1000));
    assert_pattern(900_000, &buf);
    assert_eq!(handle.position(), 901_000);
    stream.seek(SeekFrom::End(0)).unwrap();
    assert_eq!(stream.try_read(&mut buf).unwrap(), TryRead::End);
    assert_eq!(stream.try_read(&mut []).unwrap(), TryRead::Bytes(0));
    handle.cancel();
    stream.seek(SeekFrom::Start(500_000)).unwrap();
    assert!(stream.try_read(&mut buf).unwrap_err().is_cancelled());
}

#[test]
fn waiting_for_bytes_to_be_buffered_fetches_them() {
    const LEN: u64 = 3_000_000;
    for ranges in [true, false] {
        let content = Content::pattern(LEN);
        let handler = move |request: &support::Request| match ranges {
            true => Answer::file(request, &content),
            false => Answer::whole(&content),
        };
        let origin = Origin::start(handler);
        let mut config = FileConfig::default();
        config.read_ahead = ReadAhead::Bytes(100_000);
        config.storage = StorageConfig::WholeMemory;
        let mut stream = downloader().open_with(&origin.url("/a"), config).unwrap();
        let handle = stream.handle();
        handle.wait_buffered(1_000_000, None).unwrap();
        handle.wait_range(2_000_000..2_500_000, None).unwrap();
        handle.wait_range(0..LEN + 1, None).unwrap();
        assert_eq!(handle.phase(), Phase::Complete);
        assert_whole(&mut stream, LEN);
    }
}

#[test]
fn what_a_read_has_returned_is_stored() {
    const LEN: u64 = 8_000_000;
    let origin = Origin::serving(Content::pattern(LEN));
    for storage in
        [StorageConfig::Memory, StorageConfig::TempFile(None), StorageConfig::WindowedTempFile(None)]
    {
        let is_in_memory = storage == StorageConfig::Memory;
        let mut stream =
            downloader().open_with(&origin.url("/a"), FileConfig::new().storage(storage)).unwrap();
        let mut again = stream.reader();
        // Larger than what is received by way of a chunk.
        let mut buf = vec![0; 64 * 1024];
        let mut position = 0;
        while position < LEN {
            let got = stream.read(&mut buf).unwrap();
            assert_pattern(position, &buf[..got]);
            position += got as u64;
            let back = position.min(100_000);
            again.seek(SeekFrom::Start(position - back)).unwrap();
            let mut behind = vec![0; back as usize];
            if is_in_memory {
                assert_eq!(again.try_read(&mut behind).unwrap(), TryRead::Bytes(back as usize));
            } else {
                again.read_exact(&mut behind).unwrap();
            }
            assert_pattern(position - back, &behind);
        }
    }
}

/// Polls for bytes that are not there yet, as an audio callback does.
fn try_read_all(stream: &mut windway::Stream) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), [0; 1000]);
    loop {
        match stream.try_read(&mut buf).unwrap() {
            TryRead::Bytes(got) => all.extend_from_slice(&buf[..got]),
            TryRead::Pending(_) => std::thread::yield_now(),
            TryRead::End => return all,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_try_read_loads_blocks_from_disk() {
    // The last blocks of a temporary file stay in memory.
    const LEN: u64 = 12_000_000;
    let origin = Origin::serving(Content::pattern(LEN));
    for storage in [StorageConfig::TempFile(None), StorageConfig::WindowedTempFile(None)] {
        let mut config = FileConfig::default();
        config.storage = storage;
        config.behind = LEN;
        let mut stream = downloader().open_with(&origin.url("/a"), config).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.rewind().unwrap();
        assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::Pending(Pending::OnDisk));
        let all = try_read_all(&mut stream);
        assert_eq!(all.len() as u64, LEN);
        assert_pattern(0, &all);
        // Stored bytes stay readable after a cancel.
        stream.handle().cancel();
        stream.rewind().unwrap();
        assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::Pending(Pending::OnDisk));
        assert_eq!(try_read_all(&mut stream).len() as u64, LEN);
        stream.rewind().unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
    }
}

#[test]
fn blocks_on_disk_are_loaded_while_all_workers_are_busy() {
    let content = Content::pattern(4_000_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/silent" => Answer::status(200).latency_until_released(),
        _ => Answer::file(request, &content),
    });
    let downloader = support::peers::downloader(|config| {
        config.max_concurrent = 2;
        config.reserved = 0;
    });
    let mut stream =
        downloader.open_with(&origin.url("/a"), stored_in(StorageConfig::TempFile(None))).unwrap();
    stream.handle().wait_buffered(4_000_000, None).unwrap();
    let busy = List::default();
    let peer = downloader.register(busy.clone(), Priority::High).unwrap();
    let (ends, _end) = std::sync::mpsc::channel();
    for _ in 0..2 {
        let fetch = windway::Fetch::get(&origin.url("/silent")).unwrap().priority(Priority::High);
        busy.put(fetch, Collect::new(0, &ends));
    }
    peer.wake(Priority::High);
    let silent = |log: &support::Log| log.requests.iter().filter(|request| request.path == "/silent").count();
    origin.wait_until("request on each worker", |log| silent(log) == 2);
    assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::Pending(Pending::OnDisk));
    let all = try_read_all(&mut stream);
    assert_eq!(all.len(), 4_000_000);
    assert_pattern(0, &all);
    assert_eq!(downloader.stats().busy_workers, 2);
    drop(origin);
}

#[test]
fn two_readers_of_one_file_have_windows_of_their_own() {
    let origin = Origin::serving(Content::pattern(3_000_000));
    let mut first = downloader().open_with(&origin.url("/a"), small_window()).unwrap();
    let mut second = first.handle().reader().unwrap();
    second.seek(SeekFrom::Start(2_000_000)).unwrap();
    let (mut a, mut b) = (vec![0; 30_000], vec![0; 30_000]);
    for step in 0..30 {
        first.read_exact(&mut a).unwrap();
        second.read_exact(&mut b).unwrap();
        assert_pattern(step * 30_000, &a);
        assert_pattern(2_000_000 + step * 30_000, &b);
    }
    drop(first);
    second.read_exact(&mut b).unwrap();
    assert_pattern(2_900_000, &b);
}

#[test]
fn a_handle_reports_the_state_of_its_stream() {
    let origin = Origin::serving(Content::pattern(300_000));
    let mut config = FileConfig::default();
    config.storage = StorageConfig::WholeMemory;
    let mut stream = downloader().open_with(&origin.url("/a"), config).unwrap();
    let handle = stream.handle();
    let events = handle.subscribe();
    assert_ne!(handle.phase(), Phase::Opening);
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(handle.phase(), Phase::Ended);
    assert_eq!((handle.buffered().len(), handle.buffered_ahead()), (1, 0));
    stream.seek(SeekFrom::Start(100_000)).unwrap();
    assert_eq!(handle.buffered_ahead(), 200_000);
    // The end is published shortly after the last byte is stored.
    assert!(std::iter::from_fn(|| events.recv()).any(|event| event.is_end()));
    assert_eq!(handle.set_read_ahead(ReadAhead::Bytes(0)).unwrap_err().kind(), ErrorKind::InvalidConfig);
    handle.set_read_ahead(ReadAhead::Bytes(100_000)).unwrap();
    drop(stream);
    assert!(handle.reader().is_none() && handle.subscribe().is_closed());
}

#[test]
fn a_network_outage_loses_no_byte() {
    let (content, is_over) = (Content::pattern(60_000_000), Arc::new(AtomicBool::new(false)));
    let ends = Arc::clone(&is_over);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        let first = request.range().map_or(0, |(first, _)| first);
        // Or else the system could hold all that is read below before the outage begins.
        if ends.load(Ordering::SeqCst) {
            answer
        } else {
            answer.stall_after(550_000_u64.saturating_sub(first))
        }
    });
    let mut config = DownloaderConfig::default();
    config.client.silence_timeout = Duration::from_millis(200);
    config.client.connect_timeout = Duration::from_millis(200);
    let downloader = Downloader::new(config).unwrap();
    let mut options = small_window();
    options.read_timeout = None;
    let mut stream = downloader.open_with(&origin.url("/a"), options).unwrap();
    let handle = stream.handle();
    let mut buf = vec![0; 500_000];
    stream.read_exact(&mut buf).unwrap();
    // Open connections end, and no new one can be opened.
    origin.stop_listening();
    let events = handle.subscribe();
    let reader = std::thread::spawn(move || {
        stream.read_exact(&mut buf).unwrap();
        buf
    });
    let mut failures =
        std::iter::from_fn(|| events.recv()).filter(|event| matches!(event, Event::Retrying { .. }));
    // At least two attempts fail.
    assert!(failures.by_ref().take(2).count() == 2);
    is_over.store(true, Ordering::SeqCst);
    origin.listen_again();
    assert_pattern(500_000, &reader.join().unwrap());
}

/// As an audio callback that asks again every few milliseconds.
#[test]
fn repeated_try_reads_respect_the_delay_between_attempts() {
    let content = Content::pattern(600_000);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::file(request, &content).close_after(90_000),
        _ => Answer::status(503).header("Retry-After", "3600"),
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    stream.read_exact(&mut [0; 90_000]).unwrap();
    origin.wait_until("second request", |log| log.requests.len() > 1);
    for _ in 0..10_000 {
        let nothing = TryRead::Pending(Pending::Retrying);
        assert!(
            [nothing, TryRead::Pending(Pending::Fetching)].contains(&stream.try_read(&mut [0; 10]).unwrap())
        );
    }
    // The opening, the prefetch that failed, and one request for the waiting reader.
    assert!(origin.log().requests.len() <= 3, "{:?}", origin.log().requests);
}

#[test]
fn repeated_try_reads_of_a_missing_part_return_the_error_each_time_and_request_it_once() {
    let content = Content::pattern(600_000);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::file(request, &content),
        _ => Answer::status(404),
    });
    let downloader = downloader();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    stream.seek(SeekFrom::Start(500_000)).unwrap();
    let is_gone = |stream: &mut windway::Stream| match stream.try_read(&mut [0; 10]) {
        Ok(pending) => assert_eq!(pending, TryRead::Pending(Pending::Fetching)),
        Err(error) => assert_eq!(error.status(), Some(404)),
    };
    is_gone(&mut stream);
    origin.wait_until("second request", |log| log.requests.len() > 1);
    (0..1000).for_each(|_| is_gone(&mut stream));
    assert!(origin.log().requests.len() <= 4, "{:?}", origin.log().requests);
}

#[test]
fn bytes_on_disk_are_readable_after_an_interrupt() {
    let origin = Origin::serving(Content::pattern(1_000_000));
    let mut config = FileConfig::default();
    config.storage = StorageConfig::TempFile(None);
    let downloader = downloader();
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    stream.handle().wait_buffered(1_000_000, None).unwrap();
    stream.handle().interrupt();
    assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::Pending(Pending::OnDisk));
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 10);
}

#[test]
fn the_last_block_of_the_longest_file_is_stored_and_evicted() {
    let content = Content::pattern(u64::MAX);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let mut config = FileConfig::default();
    config.read_ahead = ReadAhead::Bytes(300_000);
    let downloader = downloader();
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    stream.handle().wait_range(u64::MAX - 67_000..u64::MAX, None).unwrap();
    let mut start = vec![0; 600_000];
    stream.read_exact(&mut start).unwrap();
    assert_pattern(0, &start);
}

/// Only the overlap of 64 bytes shows that a range belongs to the file, and no response but perhaps the last contains the length.
#[test]
fn a_file_without_a_length_or_a_validator_is_read_to_its_end() {
    for tells_at_last in [false, true] {
        let content = Content::pattern(600_000);
        let origin = Origin::start(move |request| {
            let answer = Answer::file(request, &content).without_header("ETag");
            match request.range() {
                Some((first, last)) if first < 600_000 => {
                    let last = last.unwrap_or(u64::MAX).min(599_999);
                    let total = if tells_at_last && last == 599_999 { "600000" } else { "*" };
                    answer.header("Content-Range", &format!("bytes {first}-{last}/{total}"))
                }
                _ => answer,
            }
        });
        let mut body = Vec::new();
        let downloader = downloader();
        let mut stream = downloader.open(&origin.url("/a")).unwrap();
        stream.read_to_end(&mut body).unwrap();
        assert_eq!((body.len(), stream.len()), (600_000, Some(600_000)));
        assert_pattern(0, &body);
        assert!(origin.log().requests.len() < 12, "{:?}", origin.log().requests);
    }
}

#[test]
fn a_changed_file_without_a_validator_is_not_read_after_a_seek_either() {
    let (old, new) = (Content::pattern(5_000_000), Content::bytes(vec![7; 5_000_000]));
    let origin = Origin::start(move |request| {
        let content = if request.number == 0 { &old } else { &new };
        Answer::file(request, content).without_header("ETag")
    });
    let downloader = downloader();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    let kind = |result: io::Result<()>| windway::Error::from(result.unwrap_err()).kind();
    assert_eq!(kind(stream.read_exact(&mut [0; 300_000])), ErrorKind::Changed);
    stream.seek(SeekFrom::Start(3_000_000)).unwrap();
    assert_eq!(kind(stream.read_exact(&mut [0; 10])), ErrorKind::Changed);
    let mut start = [0; 1000];
    stream.rewind().unwrap();
    stream.read_exact(&mut start).unwrap();
    assert_pattern(0, &start);
}

#[test]
fn a_sequential_run_takes_few_connections() {
    let content = Content::pattern(12_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).rate(6_000_000));
    let downloader = downloader();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert!(downloader.stats().connections_dialled <= 4, "{:?}", downloader.stats());
}

#[test]
fn one_wrong_200_neither_truncates_a_file_nor_makes_it_unusable() {
    for ending in [Answer::chunked, |answer: Answer| answer] {
        let content = Content::pattern(1_000_000);
        let busy = Content::bytes(vec![b'x'; 500]);
        let origin = Origin::start(move |request| match request.range() {
            _ if request.number == 1 => ending(Answer::whole(&busy)),
            Some((first, last)) if first < 1_000_000 => {
                let last = last.unwrap_or(u64::MAX).min(999_999);
                let range = format!("bytes {first}-{last}/*");
                Answer::file(request, &content).without_header("ETag").header("Content-Range", &range)
            }
            _ => Answer::file(request, &content).without_header("ETag"),
        });
        let downloader = downloader();
        let mut stream = downloader.open(&origin.url("/a")).unwrap();
        let mut body = Vec::new();
        while let Err(error) = stream.read_to_end(&mut body) {
            assert_eq!(windway::Error::from(error).kind(), ErrorKind::Changed);
        }
        assert_eq!((body.len(), stream.len()), (1_000_000, Some(1_000_000)));
        assert_pattern(0, &body);
    }
}

#[test]
fn a_download_from_a_server_without_ranges_survives_a_break() {
    let content = Content::pattern(3_000_000);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::whole(&content).close_after(1_000_000),
        _ => Answer::whole(&content),
    });
    let mut config = FileConfig::default();
    config.storage = StorageConfig::WholeMemory;
    config.read_ahead = ReadAhead::Whole;
    let downloader = downloader();
    let _stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    origin.wait_until("all", |log| log.sent >= 4_000_000);
}

#[test]
fn a_read_continues_after_the_login_to_a_network() {
    let content = Content::pattern(1_000_000);
    // Those of the part that is read: the opening and what is prefetched beside it come in any order.
    let parts = AtomicUsize::new(0);
    let origin = Origin::start(move |request| match request.range() {
        _ if request.path == "/login" => login_page(),
        Some((600_000.., _)) => match parts.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => login_page(),
            2 => Answer::redirect(302, "/login"),
            _ => Answer::file(request, &content),
        },
        _ => Answer::file(request, &content),
    });
    let downloader = downloader();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    let events = stream.handle().subscribe();
    stream.seek(SeekFrom::Start(700_000)).unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    assert_pattern(700_000, &some);
    // So a player can tell its user to log in.
    let pages: Vec<Duration> = std::iter::from_fn(|| events.try_recv())
        .filter_map(|event| match event {
            Event::Retrying { error, after, .. } if error.kind() == ErrorKind::NotMedia => Some(after),
            _ => None,
        })
        .collect();
    assert!(
        !pages.is_empty() && pages.iter().all(|after| *after <= Duration::from_millis(1500)),
        "{pages:?}"
    );
}

/// What a network that wants a login answers to each request.
fn login_page() -> Answer {
    let page = Content::bytes(b"<!doctype html><html>Log in to the Wi-Fi of this hotel</html>".to_vec());
    Answer::whole(&page).header("Content-Type", "text/html")
}

/// The page of a login is a file, too: its server knows ranges, and refuses those behind its end.
#[test]
fn a_page_of_a_login_that_is_shorter_than_the_offset_does_not_make_the_file_sequential() {
    let unsatisfied = |total: &str| Answer::status(416).header("Content-Range", &format!("bytes */{total}"));
    let portal = Origin::start(|_| Answer::status(416));
    let login = portal.url("/login");
    let content = Content::pattern(1_000_000);
    let parts = AtomicUsize::new(0);
    let origin = Origin::start(move |request| match request.range() {
        _ if request.path == "/login" => unsatisfied("2817"),
        Some((600_000.., _)) => match parts.fetch_add(1, Ordering::SeqCst) {
            0 => unsatisfied("2817"),
            1 => Answer::redirect(302, "/login"),
            2 | 3 => Answer::redirect(302, &login),
            _ => Answer::file(request, &content),
        },
        _ => Answer::file(request, &content),
    });
    let downloader = downloader();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    stream.seek(SeekFrom::Start(700_000)).unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    assert_pattern(700_000, &some);
    let requests = origin.log().requests;
    assert!(requests.iter().all(|request| request.range().is_some()), "{requests:?}");
    assert!(!portal.log().requests.is_empty());
}

#[test]
fn a_read_that_waits_for_the_login_to_a_network_can_be_interrupted() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| match request.range() {
        Some((600_000.., _)) => login_page(),
        _ => Answer::file(request, &content),
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let (handle, events) = (stream.handle(), stream.handle().subscribe());
    let is_page =
        |event: &Event| matches!(event, Event::Retrying { error, .. } if error.kind() == ErrorKind::NotMedia);
    let interrupts = thread::spawn(move || {
        assert!(std::iter::from_fn(|| events.recv()).any(|event| is_page(&event)));
        handle.interrupt();
    });
    stream.seek(SeekFrom::Start(700_000)).unwrap();
    let error = windway::Error::from(stream.read(&mut [0; 1000]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error:?}");
    interrupts.join().unwrap();
    assert_eq!(stream.handle().last_error().map(|error| error.kind()), Some(ErrorKind::NotMedia));
    // What is stored can be read.
    stream.handle().resume();
    stream.seek(SeekFrom::Start(0)).unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
}

#[test]
fn a_file_opened_later_is_fetched_without_a_read() {
    let origin = Origin::serving(Content::pattern(1_000_000));
    let downloader = downloader();
    let mut config = FileConfig::default();
    config.priority = Priority::Low;
    let mut stream = downloader.open_later(&origin.url("/a"), config).unwrap();
    origin.wait_until("the opening", |log| log.sent >= 262_144);
    assert_eq!(origin.log().requests.len(), 1);
    assert_whole(&mut stream, 1_000_000);
}

#[test]
fn a_download_needs_no_reader_and_survives_an_outage() {
    let content = Content::pattern(3_000_000);
    let origin = Origin::start(move |request| match request.number {
        // More failures than prefetching tolerates, and no fetch is retried.
        1..6 => Answer::status(500),
        _ => Answer::file(request, &content),
    });
    let mut config = DownloaderConfig::default();
    config.max_retries = 0;
    let downloader = Downloader::new(config).unwrap();
    let mut config = FileConfig::default();
    config.storage = StorageConfig::TempFile(None);
    config.read_ahead = ReadAhead::Whole;
    let stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    origin.wait_until("all", |log| log.sent >= 3_000_000);
    drop(stream);
}

#[test]
fn a_server_that_ignores_a_range_now_and_then_stays_seekable() {
    let content = Content::pattern(5_000_000);
    let origin = Origin::start(move |request| match request.number % 3 {
        2 => Answer::whole(&content).header("ETag", &content.etag()),
        _ => Answer::file(request, &content),
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    assert_whole(&mut stream, 5_000_000);
    assert!(stream.is_seekable());
}

#[test]
fn a_server_that_stops_serving_ranges_is_read_sequentially() {
    let content = Content::pattern(2_000_000);
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::file(request, &content),
        _ => Answer::whole(&content).header("ETag", &content.etag()),
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    stream.seek(SeekFrom::Start(1_500_000)).unwrap();
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    assert_pattern(1_500_000, &body);
    assert_eq!((body.len(), stream.is_seekable()), (500_000, false));
}

/// Reads `len` bytes from `offset` on as fast as they arrive: from a near server that is faster than a hand-over between threads.
fn read_fast(stream: &mut windway::Stream, offset: u64, len: u64) {
    let mut bytes = vec![0; 64 * 1024];
    let mut at = offset;
    while at < offset + len {
        let most = bytes.len().min((offset + len - at) as usize);
        let got = stream.read(&mut bytes[..most]).unwrap();
        assert!(got > 0, "the end came at {at}");
        assert_pattern(at, &bytes[..got]);
        at += got as u64;
    }
}

#[test]
fn a_streaming_reader_that_stops_is_prefetched_for() {
    let origin = Origin::serving(Content::pattern(64 << 20));
    let downloader = downloader();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    read_fast(&mut stream, 0, 20_000_000);
    stream.handle().wait_range(20_000_000..28_000_000, None).unwrap();
    read_fast(&mut stream, 20_000_000, 20_000_000);
    // While its reader drives a body that is half read.
    drop(stream);
    downloader.stop();
    assert_eq!(downloader.stats().busy_workers, 0);
}

#[test]
fn a_streaming_reader_that_stops_gets_no_more_than_its_read_ahead() {
    const READ_AHEAD: u64 = 4 << 20;
    let origin = Origin::serving(Content::pattern(256 << 20));
    let downloader = downloader();
    let events = downloader.subscribe();
    let mut config = FileConfig::default();
    config.read_ahead = ReadAhead::Bytes(READ_AHEAD);
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    read_fast(&mut stream, 0, 40_000_000);
    let mut running = 0;
    loop {
        let event = events.recv().unwrap();
        running += i32::from(matches!(event, Event::Enqueued { .. })) - i32::from(event.is_end());
        let buffered = stream.handle().buffered().last().map_or(0, |range| range.end);
        // Prefetching continues when half of the read-ahead is used up.
        if running == 0 && buffered >= 40_000_000 + READ_AHEAD / 2 {
            break;
        }
    }
    let fetched = stream.handle().stats().bytes_fetched;
    assert!(fetched <= 40_000_000 + READ_AHEAD + 1_000_000, "{fetched}");
    read_fast(&mut stream, 40_000_000, 20_000_000);
}

#[test]
fn a_streaming_reader_waits_for_a_silent_or_broken_body() {
    const SILENT: u64 = 41_000_000;
    let content = Content::pattern(64 << 20);
    let origin = Origin::start(move |request| match request.range() {
        Some((first, _)) if request.number == 6 => {
            Answer::file(request, &content).reset_after(first % 300_000)
        }
        Some((first, Some(last))) if last >= SILENT => {
            Answer::file(request, &content).stall_after(SILENT.saturating_sub(first))
        }
        _ => Answer::file(request, &content),
    });
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    read_fast(&mut stream, 0, 40_000_000);
    let handle = stream.handle();
    let reader = std::thread::spawn(move || {
        let error = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err();
        (stream, windway::Error::from(error).kind())
    });
    handle.wait_range(40_000_000..SILENT, None).unwrap();
    handle.interrupt();
    let (mut stream, kind) = reader.join().unwrap();
    assert_eq!(kind, ErrorKind::Interrupted);
    handle.cancel();
    handle.resume();
    let error = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err();
    assert!(windway::Error::from(error).is_cancelled());
}

#[test]
fn two_streaming_readers_of_one_file_get_its_bytes() {
    let origin = Origin::serving(Content::pattern(64 << 20));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut second = stream.reader();
    let other = std::thread::spawn(move || {
        second.seek(SeekFrom::Start(30_000_001)).unwrap();
        read_fast(&mut second, 30_000_001, 30_000_000);
    });
    read_fast(&mut stream, 0, 60_000_000);
    other.join().unwrap();
}

#[test]
fn a_seek_before_the_first_read_does_not_wait_for_the_opening() {
    let content = Content::pattern(5_000_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        if request.range().is_some_and(|(first, _)| first == 0) {
            answer.latency_until_released()
        } else {
            answer
        }
    });
    let mut stream = downloader().open_later(&origin.url("/a"), FileConfig::default()).unwrap();
    stream.seek(SeekFrom::Start(3_000_000)).unwrap();
    let mut some = vec![0; 50_000];
    stream.read_exact(&mut some).unwrap();
    assert_pattern(3_000_000, &some);
    origin.release();
}

#[test]
fn a_failed_request_beside_the_opening_is_harmless() {
    let serves = |content: Content| move |request: &Request| Answer::file(request, &content);
    let whole = |content: Content| move |_: &Request| Answer::whole(&content);
    let fails = |content: Content| {
        move |request: &Request| match request.number {
            1 => Answer::status(503),
            _ => Answer::file(request, &content).latency(Duration::from_millis(20)),
        }
    };
    let lies = |content: Content| {
        move |request: &Request| match request.range() {
            Some((0, _)) => {
                Answer::whole(&content).header("ETag", &content.etag()).latency(Duration::from_millis(20))
            }
            _ => Answer::file(request, &content),
        }
    };
    let content = || Content::pattern(2_000_000);
    let origins = [
        Origin::start(lies(content())),
        Origin::start(serves(content())),
        Origin::start(whole(content())),
        Origin::start(fails(content())),
        Origin::start_single_connection(serves(content())),
    ];
    for (number, origin) in origins.iter().enumerate() {
        for (position, rest) in [(1_500_000, 500_000), (2_000_000, 0), (9_000_000, 0)] {
            let mut stream = downloader().open_later(&origin.url("/a"), FileConfig::default()).unwrap();
            stream.seek(SeekFrom::Start(position)).unwrap();
            let mut body = Vec::new();
            stream.read_to_end(&mut body).unwrap_or_else(|error| panic!("{number}, {position}: {error}"));
            assert_eq!(body.len(), rest, "{number}, {position}");
            assert_pattern(position, &body);
            stream.seek(SeekFrom::Start(0)).unwrap();
            body.clear();
            stream.read_to_end(&mut body).unwrap();
            assert_eq!(body.len(), 2_000_000);
            assert_pattern(0, &body);
        }
    }
}

#[test]
fn a_window_moves_with_a_reader_of_small_steps() {
    const BEHIND: u64 = 256 << 10;
    let origin = Origin::serving(Content::pattern(64 << 20));
    let mut config = FileConfig::default();
    config.read_ahead = ReadAhead::Bytes(4 << 20);
    config.behind = BEHIND;
    let mut stream = downloader().open_with(&origin.url("/a"), config).unwrap();
    for at in (0..8 << 20).step_by(4096) {
        stream.read_exact(&mut [0; 4096]).unwrap();
        let buffered = stream.handle().buffered();
        let begin = buffered.iter().find(|range| range.contains(&at)).map_or(at, |range| range.start);
        assert!(at - begin <= BEHIND + (512 << 10), "{} behind at {at}", at - begin);
    }
}

#[test]
fn a_seek_in_a_resource_that_is_no_media_file_returns_the_error() {
    let page = "<!DOCTYPE html><html><body>Nothing here but a page, and a rather long one.</body></html>";
    let page = Answer::whole(&Content::bytes(page.as_bytes())).header("Content-Type", "text/html");
    let answers = [400, 403, 404, 410].map(|status| (Answer::status(status), ErrorKind::Status(status)));
    for (answer, kind) in answers.into_iter().chain([(page, ErrorKind::NotMedia)]) {
        let origin = Origin::start(move |_| answer.clone());
        for _ in 0..10 {
            let mut stream = downloader().open_later(&origin.url("/a"), FileConfig::default()).unwrap();
            stream.seek(SeekFrom::Start(3_000_000)).unwrap();
            let error = stream.read(&mut [0; 100]).unwrap_err();
            assert_eq!(windway::Error::from(error).kind(), kind);
        }
        // The opening, a piece beside it, and the whole where a range was refused. Twice, if that has failed in the background
        // before the read begins: a call that blocks tries again.
        assert!(
            origin.log().requests.len() <= 10 * 6,
            "{} requests for {kind:?}",
            origin.log().requests.len()
        );
    }
}

/// Reads at 2 MiB and then at 4 MiB, where ranges are refused: `times` of them, or all. Returns the origin and how many were.
fn read_where_ranges_are_refused(times: usize) -> (Origin, usize) {
    let content = Content::pattern(8 << 20);
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let origin = Origin::start(move |request| match request.range() {
        Some((start, _)) if start >= 4 << 20 && count.fetch_add(1, Ordering::Relaxed) < times => {
            Answer::status(404)
        }
        _ => Answer::file(request, &content),
    });
    let mut config = small_window();
    config.storage = StorageConfig::WholeMemory;
    let mut stream = downloader().open_with(&origin.url("/a"), config).unwrap();
    for position in [2 << 20, 4 << 20] {
        stream.seek(SeekFrom::Start(position)).unwrap();
        let mut bytes = [0; 100_000];
        stream.read_exact(&mut bytes).unwrap();
        assert_pattern(position, &bytes);
    }
    (origin, refused.load(Ordering::Relaxed))
}

/// As a network does that answers with its login page for a moment, or a server of a CDN that does not have the file yet.
#[test]
fn a_range_that_is_refused_once_does_not_bring_the_file_from_its_start() {
    let (origin, _) = read_where_ranges_are_refused(1);
    let requests = origin.log().requests;
    assert!(requests.iter().all(|request| request.header("range").is_some()), "{requests:#?}");
}

#[test]
fn a_server_that_serves_no_more_ranges_is_read_in_one_body() {
    let (_origin, refused) = read_where_ranges_are_refused(usize::MAX);
    // What the read needs, twice, and at most as much ahead of it.
    assert!((2..=4).contains(&refused), "{refused} refused");
}

/// As when a user drags a slider, or a decoder bisects: a few bytes at each position.
#[test]
fn ten_far_seeks_take_few_requests_and_connections() {
    let content = Content::pattern(1 << 30);
    // The latency makes it worth reading the rest of a piece to keep its connection.
    let origin =
        Origin::start(move |request| Answer::file(request, &content).latency(Duration::from_millis(10)));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut buf = [0; 4096];
    for step in 0..10 {
        let position = (1 << 30) / 16 * (step * 7 % 10);
        stream.seek(SeekFrom::Start(position)).unwrap();
        stream.read_exact(&mut buf).unwrap();
        assert_pattern(position, &buf);
    }
    let log = origin.log();
    assert!(log.requests.len() + log.suffixes.len() <= 15 && log.connections <= 6, "{log:?}");
}

#[test]
fn a_handle_shows_the_response_head_by_which_a_program_continues_later() {
    let content = Content::pattern(1 << 20);
    let origin = Origin::serving(content.clone());
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let stream = downloader.open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    drop(stream);
    let head = handle.response_head().unwrap();
    assert_eq!((head.status(), head.total()), (206, Some(1 << 20)));
    let validator = head.validator().unwrap();
    assert_eq!(validator, Validator::ETag(content.etag()));
    let rest = Fetch::get(&origin.url("/a")).unwrap().range(ByteRange::from_start(5000)).if_range(validator);
    let response = downloader.register((), Priority::High).unwrap().execute(rest).unwrap();
    assert_eq!(response.head().start(), 5000);
    assert!(Stream::from_bytes("abc").handle().response_head().is_none());
}
