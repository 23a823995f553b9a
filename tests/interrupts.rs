//! An interrupt ends the blocked calls of its own reader. The other readers of the file wait on.

use std::io::{Read, Seek, SeekFrom};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::content::assert_pattern;
use support::dice::Dice;
use support::peers::downloader;
use support::{Answer, Content, Origin};
use windway::config::StorageConfig;
#[cfg(feature = "cache")]
use windway::download::DownloadConfig;
use windway::{Error, ErrorKind, FileConfig, Stream, StreamHandle};

const LEN: u64 = 100_000;

/// Bytes that a server sends before it stalls.
const SENT: u64 = 20_000;

/// A server that stalls until it is released, with each of the ways in which a file is read.
fn stalled(is_ranged: bool) -> Origin {
    let content = Content::pattern(LEN);
    Origin::start(move |request| {
        if is_ranged {
            Answer::file(request, &content).stall_after(SENT)
        } else {
            Answer::whole(&content).no_length().stall_after(SENT)
        }
    })
}

/// Readers of one file, each of which blocks.
fn readers(origin: &Origin, storage: StorageConfig) -> [Stream; 2] {
    let downloader = downloader(|config| config.client.silence_timeout = Duration::from_secs(3600));
    let stream = downloader.open_with(&origin.url("/a"), FileConfig::new().storage(storage)).unwrap();
    [stream.reader(), stream]
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    Error::from(result.map(drop).unwrap_err()).kind()
}

/// Reads on a new thread behind what the server has sent.
fn read(mut stream: Stream) -> JoinHandle<std::io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = vec![0; LEN as usize];
        stream.read_exact(&mut bytes).map(|()| bytes)
    })
}

fn assert_only_the_first_is_interrupted(origin: &Origin, [first, second]: [Stream; 2]) {
    let handle = first.handle();
    let clone = handle.clone();
    let (first, second) = (read(first), read(second));
    clone.interrupt();
    assert_eq!(kind(support::in_time("the read", move || first.join().unwrap())), ErrorKind::Interrupted);
    // The second reader may not have begun to wait before: the interrupt lasts.
    origin.release();
    assert_pattern(0, &second.join().unwrap().unwrap());
}

#[test]
fn an_interrupt_ends_the_reads_of_its_reader_alone() {
    for is_ranged in [true, false] {
        for storage in [StorageConfig::Memory, StorageConfig::WholeMemory, StorageConfig::TempFile(None)] {
            let origin = stalled(is_ranged);
            let readers = readers(&origin, storage);
            assert_only_the_first_is_interrupted(&origin, readers);
        }
    }
}

#[cfg(feature = "cache")]
#[test]
fn an_interrupt_ends_the_reads_of_its_stream_of_a_download_alone() {
    let (origin, dir) = (stalled(true), tempfile::tempdir().unwrap());
    let downloader = downloader(|config| config.client.silence_timeout = Duration::from_secs(3600));
    let download =
        downloader.download(&origin.url("/a"), dir.path().join("a"), DownloadConfig::new()).unwrap();
    let stream = download.stream().unwrap();
    assert_only_the_first_is_interrupted(&origin, [stream.reader(), stream]);
    download.wait().unwrap();
}

#[test]
fn an_interrupt_ends_the_waits_for_bytes_of_its_reader_alone() {
    let origin = stalled(true);
    let [first, second] = readers(&origin, StorageConfig::Memory);
    let wait = |handle: StreamHandle| thread::spawn(move || handle.wait_range(0..LEN, None));
    let waits = [wait(first.handle()), wait(second.handle())];
    first.handle().interrupt();
    let [interrupted, other] = waits;
    assert_eq!(interrupted.join().unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
    origin.release();
    other.join().unwrap().unwrap();
}

#[test]
fn an_interrupt_ends_the_wait_for_the_length_of_its_reader_alone() {
    let origin = stalled(false);
    let seek = |mut stream: Stream| thread::spawn(move || stream.seek(SeekFrom::End(0)));
    let [first, second] = readers(&origin, StorageConfig::Memory);
    let handle = first.handle();
    let (first, second) = (seek(first), seek(second));
    handle.interrupt();
    assert_eq!(kind(first.join().unwrap()), ErrorKind::Interrupted);
    origin.release();
    assert_eq!(second.join().unwrap().unwrap(), LEN);
}

#[test]
fn a_read_that_does_not_block_sees_the_interrupt_of_its_reader_alone() {
    let origin = stalled(true);
    let [mut first, mut second] = readers(&origin, StorageConfig::Memory);
    let mut buf = vec![0; SENT as usize];
    for stream in [&mut first, &mut second] {
        stream.read_exact(&mut buf).unwrap();
    }
    first.handle().interrupt();
    assert_eq!(first.try_read(&mut buf).unwrap_err().kind(), ErrorKind::Interrupted);
    second.try_read(&mut buf).unwrap();
    first.handle().resume();
    first.try_read(&mut buf).unwrap();
}

#[test]
fn a_cancel_ends_the_reads_of_all_readers() {
    let origin = stalled(true);
    let [first, second] = readers(&origin, StorageConfig::Memory);
    let handle = first.handle();
    let reads = [read(first), read(second)];
    handle.cancel();
    for read in reads {
        assert!(matches!(kind(read.join().unwrap()), ErrorKind::Cancelled(_)));
    }
}

/// Whenever the interrupt comes: before the read, while it blocks, or with a resume right behind it.
#[test]
fn no_interrupt_is_lost_or_reaches_another_reader() {
    let origin = stalled(true);
    let [mut first, second] = readers(&origin, StorageConfig::Memory);
    first.seek(SeekFrom::Start(SENT)).unwrap();
    let handle = first.handle();
    let second = read(second);
    let (begin, begins) = mpsc::sync_channel(0);
    let (end, ends) = mpsc::channel();
    let reader = thread::spawn(move || {
        for () in begins {
            end.send(kind(first.read(&mut [0; 10]))).unwrap();
        }
    });
    let mut dice = Dice(17);
    for _ in 0..500 {
        begin.send(()).unwrap();
        for _ in 0..dice.roll(200) {
            std::hint::spin_loop();
        }
        let is_resumed_at_once = dice.roll(2) == 0;
        let ended = loop {
            handle.interrupt();
            if !is_resumed_at_once {
                break ends.recv_timeout(support::PATIENCE).unwrap();
            }
            handle.resume();
            // The read may have begun only after the resume.
            thread::yield_now();
            if let Ok(ended) = ends.try_recv() {
                break ended;
            }
        };
        assert_eq!(ended, ErrorKind::Interrupted);
        handle.resume();
    }
    drop(begin);
    reader.join().unwrap();
    origin.release();
    assert_pattern(0, &second.join().unwrap().unwrap());
}
