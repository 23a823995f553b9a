//! A stream reads the same from every source: over HTTP, a local file, memory, and what a user implements.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use support::content::assert_pattern;
use support::decoding::decode_with_seeks;
use support::{Answer, Content, Origin};
use windway::config::ReadAhead;
use windway::media::{ContainerFormat, HintSource};
use windway::stream::{Phase, Source, StreamStats, TryRead};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Priority, Stream};

const LEN: u64 = 700_001;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
const TRACK: &[u8] = include_bytes!("data/track.flac");

fn pattern(len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Content::pattern(len).append(&mut bytes, 0..len);
    bytes
}

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

/// Implements only the required methods, and counts how often it was closed.
struct InMemory {
    bytes: Vec<u8>,
    closed: Arc<AtomicUsize>,
}

impl InMemory {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, closed: Arc::default() }
    }
}

impl Source for InMemory {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let start = self.bytes.len().min(usize::try_from(position).unwrap_or(usize::MAX));
        // Short reads are allowed.
        let got = buf.len().min(self.bytes.len() - start).min(1000);
        buf[..got].copy_from_slice(&self.bytes[start..start + got]);
        Ok(got)
    }

    fn len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn close(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Decrypts with a key stream that depends on the position, as a block cipher in counter mode does.
struct Decrypted(Arc<dyn Source>);

fn apply_key(position: u64, bytes: &mut [u8]) {
    for (offset, byte) in (position..).zip(bytes) {
        *byte ^= (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
}

fn encrypt(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    apply_key(0, &mut bytes);
    bytes
}

impl Source for Decrypted {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let got = self.0.read_at(position, buf)?;
        apply_key(position, &mut buf[..got]);
        Ok(got)
    }

    fn len(&self) -> Option<u64> {
        self.0.len()
    }

    fn inner(&self) -> Option<&dyn Source> {
        Some(&*self.0)
    }
}

/// A source that has 1000 bytes. A read beyond them waits for an interrupt.
struct Stalls {
    interrupts: mpsc::SyncSender<()>,
    interrupted: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl Source for Stalls {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        if position < 1000 {
            let got = buf.len().min((1000 - position) as usize);
            buf[..got].fill(7);
            return Ok(got);
        }
        self.interrupted.lock().unwrap().recv().unwrap();
        Err(Error::new(ErrorKind::Interrupted, "interrupted"))
    }

    fn len(&self) -> Option<u64> {
        None
    }

    fn interrupt(&self) {
        let _ = self.interrupts.try_send(());
    }
}

fn compare(open: impl Fn() -> Stream) {
    support::steps::compare(LEN, 48, open);
}

/// A named file that holds `bytes`.
fn local_file(bytes: &[u8], extension: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(extension).tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn memory_is_as_a_file() {
    let bytes: Arc<[u8]> = pattern(LEN).into();
    compare(|| Stream::from_bytes(Arc::clone(&bytes)));
}

#[test]
fn a_local_file_is_as_a_file() {
    let file = local_file(&pattern(LEN), "");
    compare(|| Stream::open_file(file.path()).unwrap());
}

#[test]
fn a_users_source_is_as_a_file() {
    compare(|| Stream::new(InMemory::new(pattern(LEN))));
}

#[test]
fn a_decrypting_wrapper_is_as_a_file() {
    let encrypted: Arc<[u8]> = encrypt(&pattern(LEN)).into();
    compare(|| Stream::new(Decrypted(Stream::from_bytes(Arc::clone(&encrypted)).into_source())));
}

#[test]
fn a_decrypting_wrapper_over_http_is_as_a_file() {
    let origin = Origin::serving(Content::bytes(encrypt(&pattern(LEN))));
    let downloader = downloader();
    compare(|| Stream::new(Decrypted(downloader.open(&origin.url("/file")).unwrap().into_source())));
}

#[test]
fn a_decoder_plays_every_source() {
    let expected = decode_with_seeks(Box::new(std::io::Cursor::new(TRACK)));
    let file = local_file(TRACK, ".flac");
    let origin = Origin::serving(Content::bytes(encrypt(TRACK)));
    let downloader = downloader();
    let streams = [
        Stream::from_bytes(TRACK),
        Stream::open_file(file.path()).unwrap(),
        Stream::new(InMemory::new(TRACK.to_vec())),
        Stream::new(Decrypted(downloader.open(&origin.url("/track")).unwrap().into_source())),
    ];
    for stream in streams {
        assert!(
            decode_with_seeks(Box::new(support::decoding::Source { stream, most: usize::MAX })) == expected
        );
    }
}

#[test]
fn the_defaults_describe_a_source_that_has_all_its_bytes() {
    let mut stream = Stream::new(InMemory::new(pattern(LEN)));
    let handle = stream.handle();
    assert!(stream.is_seekable() && !stream.is_live() && stream.url().is_none());
    assert_eq!((stream.len(), handle.phase()), (Some(LEN), Phase::Complete));
    assert_eq!(handle.buffered(), std::iter::once(0..LEN).collect::<Vec<_>>());
    handle.wait_range(0..LEN, PATIENCE).unwrap();
    handle.set_priority(Priority::Low);
    handle.set_read_ahead(ReadAhead::Whole).unwrap();
    assert!(handle.last_error().is_none() && handle.bandwidth().is_none() && handle.subscribe().is_closed());
    assert_eq!(handle.stats(), StreamStats::default());
    handle.interrupt();
    handle.cancel();
    assert_eq!(stream.seek(SeekFrom::End(-5)).unwrap(), LEN - 5);
    assert_eq!(handle.position(), LEN - 5);
    assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::Bytes(5));
    assert_eq!((stream.read(&mut [0; 10]).unwrap(), handle.phase()), (0, Phase::Ended));
    assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), TryRead::End);
}

#[test]
fn a_source_without_a_length_has_no_seek_from_the_end() {
    let (interrupts, interrupted) = mpsc::sync_channel(1);
    let mut stream = Stream::new(Stalls { interrupts, interrupted: interrupted.into() });
    let error = Error::from(stream.seek(SeekFrom::End(0)).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!((stream.stream_position().unwrap(), stream.handle().buffered()), (0, vec![]));
}

#[test]
fn a_handle_interrupts_a_users_source() {
    let (interrupts, interrupted) = mpsc::sync_channel(1);
    let mut stream = Stream::new(Stalls { interrupts, interrupted: interrupted.into() });
    stream.read_exact(&mut [0; 1000]).unwrap();
    let handle = stream.handle();
    let reader = thread::spawn(move || Error::from(stream.read(&mut [0; 10]).unwrap_err()).kind());
    handle.interrupt();
    assert_eq!(reader.join().unwrap(), ErrorKind::Interrupted);
    assert_eq!((handle.position(), handle.phase()), (1000, Phase::Closed));
}

#[test]
fn a_source_is_closed_once_by_its_last_reader() {
    let source = InMemory::new(pattern(10));
    let closed = Arc::clone(&source.closed);
    let first = Stream::new(source);
    let handle = first.handle();
    let mut second = handle.reader().unwrap();
    let third = second.reader();
    drop((first, third));
    assert_eq!((closed.load(Ordering::Relaxed), handle.phase()), (0, Phase::Closed));
    assert!(handle.reader().is_none() && handle.buffered().is_empty());
    second.seek(SeekFrom::Start(3)).unwrap();
    second.read_exact(&mut [0; 7]).unwrap();
    // The new owner of the source closes it, or reads it through another stream.
    let source = second.into_source();
    assert_eq!(closed.load(Ordering::Relaxed), 0);
    drop(Stream::from_source(source));
    assert_eq!(closed.load(Ordering::Relaxed), 1);
}

#[test]
fn handles_keep_no_bytes_of_a_dropped_stream() {
    let bytes: Arc<[u8]> = pattern(100).into();
    let mut stream = Stream::from_bytes(Arc::clone(&bytes));
    stream.seek(SeekFrom::Start(40)).unwrap();
    let handle = stream.handle();
    drop(stream);
    assert_eq!(Arc::strong_count(&bytes), 1);
    assert_eq!((handle.position(), handle.len(), handle.phase()), (40, Some(100), Phase::Closed));
    assert!(handle.wait_buffered(1, None).unwrap_err().is_cancelled());
}

#[test]
fn a_wrapper_passes_on_what_it_does_not_implement() {
    let content = encrypt(&pattern(LEN));
    let content = Content::bytes(content);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(300_000));
    let stream = downloader().open_with(&origin.url("/file"), FileConfig::default()).unwrap();
    let url = stream.url();
    let mut stream = Stream::new(Decrypted(stream.into_source()));
    let handle = stream.handle();
    assert_eq!((stream.url(), handle.len()), (url, Some(LEN)));
    handle.wait_range(0..1000, PATIENCE).unwrap();
    let mut bytes = [0; 1000];
    assert_eq!(stream.try_read(&mut bytes).unwrap(), TryRead::Bytes(1000));
    assert_pattern(0, &bytes);
    let events = handle.subscribe();
    stream.seek(SeekFrom::Start(400_000)).unwrap();
    assert!(matches!(stream.try_read(&mut bytes).unwrap(), TryRead::Pending(_)));
    // Of the fetch that this requests. Once the stream is closed, there may be none any more.
    assert!(events.recv_timeout(support::PATIENCE).is_some());
    let waiter = thread::spawn(move || handle.wait_range(0..LEN, None).unwrap_err().is_cancelled());
    // Closing the wrapper closes the file below it, which ends the wait.
    drop(stream);
    assert!(waiter.join().unwrap());
    events.for_each(drop);
}

#[test]
fn a_failure_of_the_inner_source_is_one_of_its_wrapper() {
    let content = Content::bytes(encrypt(&pattern(LEN)));
    let origin = Origin::start(move |request| match request.range() {
        Some((0, _)) => Answer::file(request, &content),
        _ => Answer::status(403),
    });
    let mut config = FileConfig::default();
    config.read_ahead = ReadAhead::Bytes(1);
    let stream = downloader().open_with(&origin.url("/file"), config).unwrap();
    let mut stream = Stream::new(Decrypted(stream.into_source()));
    stream.seek(SeekFrom::Start(600_000)).unwrap();
    assert_eq!(Error::from(stream.read(&mut [0; 10]).unwrap_err()).status(), Some(403));
    let handle = stream.handle();
    assert_eq!((handle.phase(), handle.last_error().unwrap().status()), (Phase::Failed, Some(403)));
}

#[test]
fn the_kind_of_a_local_file_is_recognised_by_its_bytes_and_its_extension() {
    let container = |stream: Stream| stream.handle().media_info().container;
    let by_bytes = Some((ContainerFormat::Flac, HintSource::MagicBytes));
    assert_eq!(container(Stream::open_file(local_file(TRACK, ".ogg").path()).unwrap()), by_bytes);
    assert_eq!(container(Stream::from_bytes(TRACK)), by_bytes);
    let by_name = Some((ContainerFormat::Wav, HintSource::Extension));
    assert_eq!(container(Stream::open_file(local_file(&[0; 100], ".WAV").path()).unwrap()), by_name);
}

#[test]
fn the_error_of_a_local_file_names_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let error = Stream::open_file(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = Stream::open_file(folder.path().join("missing.mp3")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io(std::io::ErrorKind::NotFound));
    assert!(error.to_string().contains("missing.mp3"), "{error}");
}

#[test]
fn no_url_opens_a_local_file() {
    let file = local_file(TRACK, ".flac");
    let url = format!("file://{}", file.path().display());
    assert_eq!(downloader().open(&url).unwrap_err().kind(), ErrorKind::UnsupportedScheme);
    let origin = Origin::start(move |_| Answer::redirect(302, &url));
    let error = downloader().open(&origin.url("/track")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedScheme);
}
