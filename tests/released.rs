//! After its stream is dropped, a handle keeps the statistics and none of the bytes.
//!
//! Unit tests of the storage show that blocks are freed: the storage can count them.

use std::io::Read;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::{Content, Origin, Station};
use windway::config::{ReadAhead, StorageConfig};
use windway::radio::RadioEvent;
use windway::stream::Phase;
use windway::{Downloader, DownloaderConfig, ErrorKind, FileConfig, RadioConfig};

const LEN: u64 = 4 << 20;
const STREAMS: usize = 8;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// Number of temporary files that this process has open.
fn open_temporary_files() -> usize {
    let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return 0 };
    let target = |file: std::fs::DirEntry| std::fs::read_link(file.path()).ok();
    let is_gone = |path: &std::path::PathBuf| path.to_string_lossy().ends_with("(deleted)");
    files.flatten().filter_map(target).filter(is_gone).count()
}

#[test]
fn handles_keep_statistics_and_no_bytes() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let open = |storage: StorageConfig| {
        let mut config = FileConfig::default();
        config.storage = storage;
        config.read_ahead = ReadAhead::Whole;
        downloader.open_with(&origin.url("/a.mp3"), config).unwrap()
    };
    let mut handles = Vec::new();
    for storage in [StorageConfig::WholeMemory, StorageConfig::TempFile(None)] {
        let streams: Vec<_> = (0..STREAMS).map(|_| open(storage.clone())).collect();
        handles.extend(streams.iter().map(windway::Stream::handle));
        for stream in &streams {
            stream.handle().wait_range(0..LEN, PATIENCE).unwrap();
            assert_eq!(stream.handle().phase(), Phase::Complete);
        }
        let has_files = cfg!(target_os = "linux") && storage != StorageConfig::WholeMemory;
        assert!(!has_files || open_temporary_files() >= STREAMS);
        drop(streams);
    }
    assert_eq!(open_temporary_files(), 0);
    for handle in &handles {
        assert_eq!(handle.buffered(), []);
        assert_eq!((handle.len(), handle.stats().bytes_fetched), (Some(LEN), LEN));
        assert_eq!(handle.media_info().extension(), Some("mp3"));
        let error = handle.wait_range(0..LEN, PATIENCE).unwrap_err();
        assert!(error.is_cancelled(), "{error:?}");
    }
}

#[test]
fn radio_handles_keep_no_audio() {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let station = Station { audio: Content::endless(), interval: 1000, every: 100, titles: vec!["a", "b"] };
    let origin = Origin::start(move |request| support::Answer::station(request, &station));
    let mut handles = Vec::new();
    for _ in 0..STREAMS {
        let mut radio = downloader.open_radio(&origin.url("/live"), RadioConfig::default()).unwrap();
        radio.read_exact(&mut [0; 200_000]).unwrap();
        let handle = radio.handle();
        handle.wait_buffered(3 << 20, PATIENCE).unwrap();
        handles.push(handle);
        drop(radio);
    }
    drop(origin);
    for handle in &handles {
        assert_eq!(
            (handle.position(), handle.buffered_ahead(), handle.window()),
            (200_000, 0, 200_000..200_000)
        );
        assert!(handle.now_playing().is_some() && handle.stats().bytes_received > 3 << 20);
        assert!(handle.wait_buffered(1, PATIENCE).unwrap_err().is_cancelled());
        assert!(matches!(handle.subscribe().last(), Some(RadioEvent::Ended { .. })));
    }
}

#[test]
fn dropping_the_stream_ends_every_wait_on_its_handle() {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| support::Answer::file(request, &content).stall_after(100_000));
    let mut stream = downloader.open(&origin.url("/stalls")).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    let handle = stream.handle();
    let (begins, begun) = mpsc::channel();
    let waiter = thread::spawn(move || {
        begins.send(()).unwrap();
        handle.wait_range(0..LEN, None)
    });
    begun.recv().unwrap();
    drop(stream);
    let error = waiter.join().unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Cancelled(_)), "{error:?}");
}
