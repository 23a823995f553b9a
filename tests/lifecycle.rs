//! Nothing is left behind: no thread, no descriptor, no waiter.

mod support;

use std::io::Read;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use support::content::assert_pattern;
use support::{Answer, Content, Origin, Station};
use windway::{Downloader, DownloaderConfig, ErrorKind, FileConfig, Radio, RadioConfig};

/// Tests here count the process's threads and descriptors: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Threads of a downloader with default options and a linear stream or a radio.
#[cfg(target_os = "linux")]
const ONE_DOWNLOADER: usize = 9;

/// Names of windway's threads in this process, and the number of its descriptors.
#[cfg(target_os = "linux")]
fn census() -> (Vec<String>, usize) {
    let names = std::fs::read_dir("/proc/self/task").unwrap();
    let names = names.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let ours = names.filter(|name| name.starts_with("windway")).collect();
    (ours, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

#[test]
#[cfg(target_os = "linux")]
fn a_thousand_streams_leave_nothing_behind() {
    let _alone = alone();
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |asked| match asked.path.as_str() {
        "/ranged" => Answer::file(asked, &content),
        "/linear" => Answer::whole(&content),
        _ => Answer::file(asked, &content).stall_after(10_000),
    });
    let (threads, _) = census();
    assert!(threads.is_empty(), "{threads:?}");
    // The first ones make what stays: the lookup of a name, say.
    let mut open = 0;
    for round in 0..1000 {
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let path = ["/ranged", "/linear", "/silent"][round % 3];
        let mut stream = downloader.open(&origin.url(path)).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        match round % 2 {
            0 => drop(downloader),
            _ => downloader.stop(),
        }
        drop(stream);
        // The kernel lists a thread for a moment after it was joined. What were left behind would pile up.
        let (threads, _) = census();
        assert!(threads.len() <= ONE_DOWNLOADER, "{threads:?} after stream {round}");
        if round == 10 {
            origin.wait_until("closed connection", |log| log.open == 0);
            open = census().1;
        }
    }
    origin.wait_until("closed connection", |log| log.open == 0);
    assert_eq!(census().1, open);
}

#[test]
#[cfg(target_os = "linux")]
fn radios_leave_nothing_behind() {
    let _alone = alone();
    let station =
        Station { audio: Content::endless(), interval: 8192, every: 2, titles: vec!["One", "Another"] };
    let origin = Origin::start(move |asked| match asked.path.as_str() {
        "/live" => Answer::station(asked, &station),
        "/breaking" => Answer::station(asked, &station).close_after(10_000),
        "/silent" => Answer::station(asked, &station).stall_after(10_000),
        _ => Answer::status(404),
    });
    let mut open = 0;
    for round in 0..300 {
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let path = ["/live", "/breaking", "/silent", "/gone"][round % 4];
        let mut radio = Radio::open(&downloader, &origin.url(path), RadioConfig::default()).unwrap();
        let handle = radio.handle();
        let heard = radio.read_exact(&mut [0; 5000]);
        assert_eq!(heard.is_ok(), path != "/gone", "{heard:?}");
        match round % 3 {
            0 => drop(downloader),
            1 => downloader.stop(),
            _ => handle.cancel(),
        }
        drop(radio);
        let (threads, _) = census();
        assert!(threads.len() <= ONE_DOWNLOADER, "{threads:?} after radio {round}");
        if round == 10 {
            origin.wait_until("closed connection", |log| log.open == 0);
            open = census().1;
        }
    }
    origin.wait_until("closed connection", |log| log.open == 0);
    assert_eq!(census().1, open);
}

#[test]
fn stopping_releases_a_reader() {
    let _alone = alone();
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |asked| Answer::file(asked, &content).stall_after(10_000));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let error = stream.read_to_end(&mut all).unwrap_err();
        (windway::Error::from(error), all)
    });
    origin.wait_until("bytes", |log| log.sent >= 10_000);
    downloader.stop();
    let (error, all) = reader.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled(windway::CancelReason::Shutdown));
    assert_pattern(0, &all);
    assert!(downloader.open(&origin.url("/a")).unwrap_err().is_cancelled());
}

#[test]
fn a_dead_server_is_an_error_and_the_stream_goes_on_when_it_is_back() {
    let _alone = alone();
    let content = Content::pattern(3_000_000);
    let origin = Origin::start(move |asked| Answer::file(asked, &content));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut config = FileConfig::default();
    config.read_timeout = Some(Duration::from_millis(300));
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    let mut all = vec![0; 200_000];
    stream.read_exact(&mut all).unwrap();

    origin.stop_listening();
    let mut buf = vec![0; 100_000];
    let error = loop {
        match stream.read(&mut buf) {
            Ok(got) => all.extend_from_slice(&buf[..got]),
            Err(error) => break windway::Error::from(error),
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.url(), Some(origin.url("/a").as_str()));
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");

    origin.listen_again();
    while all.len() < 3_000_000 {
        match stream.read(&mut buf) {
            Ok(got) => all.extend_from_slice(&buf[..got]),
            // Its next attempt may be further off than the read's patience.
            Err(error) => assert_eq!(windway::Error::from(error).kind(), ErrorKind::TimedOut),
        }
    }
    assert_pattern(0, &all);
}

#[test]
fn the_process_wide_downloader_ends_with_its_last_stream() {
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(100_000));
    for _ in 0..3 {
        let mut first = windway::open(&origin.url("/a")).unwrap();
        let second = windway::open(&origin.url("/b")).unwrap();
        drop(second);
        let mut all = Vec::new();
        first.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 100_000);
        drop(first);
        #[cfg(target_os = "linux")]
        assert!(census().0.len() <= ONE_DOWNLOADER);
    }
}
