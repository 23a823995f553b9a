//! Downloads where the directory, the server or another program does what it should not.
#![cfg(feature = "cache")]

use std::fs;
use std::io::{Read, Seek, SeekFrom};
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use support::content::assert_pattern;
use support::dice::Dice;
use support::{Answer, Content, Origin, Request, in_time};
use windway::download::{Download, DownloadConfig, DownloadPhase};
use windway::event::Event;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind};

const LEN: u64 = 1_500_001;

/// A directory, and the path of a download in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn of(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // On Windows a temporary file has a name, and some file systems keep a removed file until it is closed.
        names.retain(|name| !(cfg!(windows) && (name.starts_with(".tmp") || name.contains(".removed-"))));
        names.sort();
        names
    }

    /// Fails unless the whole file, and nothing else, is there.
    fn check(&self, len: u64) {
        let bytes = fs::read(self.of("a")).unwrap();
        assert_eq!(bytes.len() as u64, len);
        assert_pattern(0, &bytes);
        assert_eq!(self.names(), ["a"]);
    }

    fn download(&self, url: &str) -> Result<Download, Error> {
        self.start(url, "a", DownloadConfig::new())
    }

    fn start(&self, url: &str, name: &str, config: DownloadConfig) -> Result<Download, Error> {
        Downloader::new(DownloaderConfig::default()).unwrap().download(url, self.of(name), config)
    }
}

fn serving(len: u64, answer: impl Fn(&Request, &Content) -> Answer + Send + Sync + 'static) -> Origin {
    let content = Content::pattern(len);
    Origin::start(move |request| answer(request, &content))
}

/// Serves everything up to the middle, and falls silent there, until the number is not 0.
fn stalling() -> (Origin, Arc<AtomicUsize>) {
    let goes_on = Arc::new(AtomicUsize::new(0));
    let may_go_on = Arc::clone(&goes_on);
    let origin = serving(LEN, move |request, content| {
        let start = request.range().map_or(0, |(start, _)| start);
        let answer = Answer::file(request, content);
        let is_held = may_go_on.load(Ordering::SeqCst) == 0 && request.suffix().is_none();
        if is_held { answer.stall_after((LEN / 2).saturating_sub(start)) } else { answer }
    });
    (origin, goes_on)
}

fn wait_until(what: &str, ready: impl Fn() -> bool + Send + Sync) {
    let began = std::time::Instant::now();
    while !ready() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Leaves half of the file.
fn leave_half(place: &Place, origin: &Origin) {
    let download = place.download(&origin.url("/a")).unwrap();
    wait_until("half of the file", || download.progress().stored >= LEN / 2);
}

fn io_kind(error: &Error) -> Option<std::io::ErrorKind> {
    std::error::Error::source(error)?.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

#[test]
fn a_part_meta_of_another_program_is_left_alone() {
    let origin = serving(LEN, Answer::file);
    for has_part in [false, true] {
        let place = Place::new();
        fs::write(place.of("a.part.meta"), "precious").unwrap();
        if has_part {
            fs::write(place.of("a.part"), "precious, too").unwrap();
        }
        let error = place.download(&origin.url("/a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert_eq!(io_kind(&error), Some(std::io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read(place.of("a.part.meta")).unwrap(), b"precious");
        assert!(!has_part || fs::read(place.of("a.part")).unwrap() == b"precious, too");
    }
}

#[test]
fn a_part_meta_that_a_crash_has_emptied_begins_from_the_start() {
    // Empty, or zeros: its length reached the disk before its bytes did. Or of another version of windway.
    let newer = [&b"windwayC"[..], &[9; 100]].concat();
    for left in [vec![], vec![0; 4096], newer] {
        let (place, (origin, goes_on)) = (Place::new(), stalling());
        leave_half(&place, &origin);
        fs::write(place.of("a.part.meta"), left).unwrap();
        goes_on.store(1, Ordering::SeqCst);
        assert_eq!(place.download(&origin.url("/a")).unwrap().wait().unwrap(), LEN);
        place.check(LEN);
    }
}

#[test]
fn a_download_that_got_no_byte_leaves_no_file() {
    let place = Place::new();
    assert_eq!(place.download("ftp://host/a").unwrap_err().kind(), ErrorKind::UnsupportedScheme);
    assert!(place.names().is_empty(), "{:?}", place.names());
    let origin = Origin::start(|_| Answer::status(404));
    let download = place.download(&origin.url("/a")).unwrap();
    assert_eq!(download.wait().unwrap_err().kind(), ErrorKind::Status(404));
    drop(download);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_path_that_can_not_be_a_file_is_refused_at_once() {
    let (place, origin) = (Place::new(), serving(LEN, Answer::file));
    fs::create_dir(place.of("directory")).unwrap();
    let overwrite = DownloadConfig::new().overwrite(true);
    // Also if it may be replaced: a rename can't replace a directory.
    for name in ["directory", "directory/", "new/", "missing/a", &"n".repeat(250), ".."] {
        for config in [DownloadConfig::new(), overwrite.clone()] {
            let error = place.start(&origin.url("/a"), name, config).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Storage, "{name}");
        }
    }
    assert_eq!(place.names(), ["directory"]);
    assert_eq!(fs::read_dir(place.of("directory")).unwrap().count(), 0);
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    for path in ["", "/"] {
        let error = downloader.download(&origin.url("/a"), path, overwrite.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{path}");
    }
    assert!(origin.log().requests.is_empty());
}

// On Windows not every user may make links. The tests of `cache::sys` make one where they can.
#[cfg(unix)]
#[test]
fn a_link_at_the_path_is_replaced_and_not_followed() {
    let (place, origin) = (Place::new(), serving(LEN, Answer::file));
    fs::write(place.of("target"), "precious").unwrap();
    symlink(place.of("target"), place.of("a")).unwrap();
    assert_eq!(place.download(&origin.url("/a")).unwrap_err().kind(), ErrorKind::Storage);
    let overwrite = DownloadConfig::new().overwrite(true);
    assert_eq!(place.start(&origin.url("/a"), "a", overwrite).unwrap().wait().unwrap(), LEN);
    assert_eq!(fs::read(place.of("target")).unwrap(), b"precious");
    assert!(fs::symlink_metadata(place.of("a")).unwrap().is_file());
    assert_pattern(0, &fs::read(place.of("a")).unwrap());
}

#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_the_part_is_not_followed() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    leave_half(&place, &origin);
    fs::write(place.of("target"), "precious").unwrap();
    fs::remove_file(place.of("a.part")).unwrap();
    symlink(place.of("target"), place.of("a.part")).unwrap();
    goes_on.store(1, Ordering::SeqCst);
    let download = place.download(&origin.url("/a")).unwrap();
    assert_eq!(in_time("a link", move || download.wait()).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(fs::read(place.of("target")).unwrap(), b"precious");
    assert_eq!(place.names(), ["a.part", "a.part.meta", "target"]);
}

// Windows removes no directory in which a file is open.
#[cfg(unix)]
#[test]
fn a_directory_that_is_removed_meanwhile_is_an_error() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    fs::create_dir(place.of("music")).unwrap();
    let download = place.start(&origin.url("/a"), "music/a", DownloadConfig::new()).unwrap();
    wait_until("half of the file", || download.progress().stored >= LEN / 2);
    fs::remove_dir_all(place.of("music")).unwrap();
    goes_on.store(1, Ordering::SeqCst);
    origin.release();
    let ended = in_time("a download without its directory", move || download.wait());
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Storage);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_part_that_is_replaced_meanwhile_never_gets_the_name() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    let download = place.download(&origin.url("/a")).unwrap();
    wait_until("half of the file", || download.progress().stored >= LEN / 2);
    fs::rename(place.of("a.part"), place.of("moved")).unwrap();
    fs::write(place.of("a.part"), "of another program").unwrap();
    goes_on.store(1, Ordering::SeqCst);
    origin.release();
    assert_eq!(in_time("a replaced part", move || download.wait()).unwrap_err().kind(), ErrorKind::Storage);
    assert!(!place.of("a").exists());
    assert_eq!(fs::read(place.of("a.part")).unwrap(), b"of another program");
}

#[test]
fn a_whole_part_without_its_name_gets_it_without_a_second_transfer() {
    // As after a crash between the last byte and the renaming.
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    let download = place.download(&origin.url("/a")).unwrap();
    wait_until("half of the file", || download.progress().stored >= LEN / 2);
    fs::write(place.of("a"), "in the way").unwrap();
    goes_on.store(1, Ordering::SeqCst);
    origin.release();
    assert_eq!(download.wait().unwrap_err().kind(), ErrorKind::Storage);
    drop(download);
    fs::remove_file(place.of("a")).unwrap();
    let before = origin.log().sent;
    assert_eq!(place.download(&origin.url("/a")).unwrap().wait().unwrap(), LEN);
    place.check(LEN);
    let sent = origin.log().sent - before;
    assert!(sent < LEN / 2, "{sent} bytes were sent again");
}

#[test]
fn a_link_with_another_token_goes_on_with_what_is_there() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    {
        let download = place.download(&origin.url("/a?token=old")).unwrap();
        wait_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    goes_on.store(1, Ordering::SeqCst);
    let before = origin.log().requests.len();
    assert_eq!(place.download(&origin.url("/a?token=new")).unwrap().wait().unwrap(), LEN);
    place.check(LEN);
    let log = origin.log();
    let starts: Vec<u64> = log.requests[before..].iter().filter_map(Request::range).map(|at| at.0).collect();
    assert!(starts.iter().skip(1).all(|start| *start >= LEN / 2 - 262_144), "{starts:?}");
}

#[test]
fn another_file_to_the_same_path_begins_from_the_start() {
    // The same length and the same tag, which are of another resource (RFC 9110, section 8.8.3).
    let (place, (origin, _)) = (Place::new(), stalling());
    leave_half(&place, &origin);
    let tag = Content::pattern(LEN).etag();
    let other = Origin::start(move |request| {
        Answer::file(request, &Content::bytes(vec![7; LEN as usize])).header("ETag", &tag)
    });
    assert_eq!(place.download(&other.url("/b")).unwrap().wait().unwrap(), LEN);
    assert!(fs::read(place.of("a")).unwrap().iter().all(|byte| *byte == 7));
}

#[test]
fn a_file_of_one_byte_is_a_file_and_one_without_is_an_error() {
    type Make = fn(&Request, &Content) -> Answer;
    let servers: [Make; 4] = [
        Answer::file,
        |_, content| Answer::whole(content),
        |_, content| Answer::whole(content).chunked(),
        |_, content| Answer::whole(content).no_length(),
    ];
    for len in [0, 1] {
        for (number, answer) in servers.into_iter().enumerate() {
            let (place, origin) = (Place::new(), serving(len, answer));
            let download = place.download(&origin.url("/a")).unwrap();
            let ended = in_time("a tiny file", move || download.wait());
            if len == 0 {
                assert_eq!(ended.unwrap_err().kind(), ErrorKind::Empty, "server {number}");
                assert!(place.names().is_empty(), "{:?}", place.names());
            } else {
                assert_eq!(ended.unwrap(), len, "server {number}");
                place.check(len);
            }
        }
    }
}

#[test]
fn bytes_behind_the_announced_length_are_no_part_of_the_file() {
    let origin = serving(LEN, |_, content| Answer::whole(content).extra_bytes(100_000));
    let place = Place::new();
    assert_eq!(place.download(&origin.url("/a")).unwrap().wait().unwrap(), LEN);
    place.check(LEN);
}

#[test]
fn a_server_that_announces_more_than_it_has_is_reported_and_can_be_cancelled() {
    // It has half of what it announces, and closes there, or answers 416.
    type Make = fn(&Request, &Content) -> Answer;
    let servers: [Make; 2] = [
        |_, content| Answer::whole(content).close_after(LEN / 2),
        |request, content| match request.range() {
            Some((start, _)) if start >= LEN / 2 => Answer::status(416),
            range => {
                let start = range.map_or(0, |(start, _)| start);
                Answer::file(request, content).close_after((LEN / 2).saturating_sub(start))
            }
        },
    ];
    for answer in servers {
        let (place, origin) = (Place::new(), serving(LEN, answer));
        let download = place.download(&origin.url("/a")).unwrap();
        wait_until("an error", || download.progress().last_error.is_some());
        download.cancel();
        let ended = in_time("a server without the rest", move || download.wait());
        assert!(ended.is_err() && !place.of("a").exists());
    }
}

#[test]
fn a_body_without_a_length_waits_while_it_is_paused() {
    const BIG: u64 = 64 << 20;
    let (place, origin) = (Place::new(), serving(BIG, |_, content| Answer::whole(content).chunked()));
    let download = place.download(&origin.url("/a")).unwrap();
    // Often, since the pause has to come while bytes do.
    for round in 0..40 {
        wait_until("more bytes", || download.progress().stored > round * BIG / 50);
        download.pause();
        let phase = download.progress().phase;
        assert!(matches!(phase, DownloadPhase::Paused | DownloadPhase::Finishing), "{phase:?}");
        std::thread::yield_now();
        download.resume();
    }
    assert_eq!(in_time("a resumed body", move || download.wait()).unwrap(), BIG);
    place.check(BIG);
}

#[test]
fn a_paused_download_of_a_long_file_soon_receives_nothing() {
    const BIG: u64 = 256 << 20;
    let (place, origin) =
        (Place::new(), serving(BIG, |request, content| Answer::file(request, content).rate(40_000_000)));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let download = downloader.download(&origin.url("/a"), place.of("a"), DownloadConfig::new()).unwrap();
    wait_until("4 MB", || download.progress().stored > 4_000_000);
    download.pause();
    wait_until("the end of what is on its way", || downloader.stats().busy_workers == 0);
    let stored = download.progress().stored;
    // Less than the piece that was on its way, which has 64 MiB.
    assert!(stored < 32 << 20, "{stored} bytes came");
}

#[test]
fn a_paused_download_is_cancelled_and_dropped() {
    for is_dropped in [false, true] {
        let (place, (origin, _)) = (Place::new(), stalling());
        let download = place.download(&origin.url("/a")).unwrap();
        wait_until("half of the file", || download.progress().stored >= LEN / 2);
        download.pause();
        if !is_dropped {
            download.cancel();
            assert!(download.wait().unwrap_err().is_cancelled());
        }
        in_time("the drop", move || drop(download));
        assert_eq!(place.names(), ["a.part", "a.part.meta"]);
    }
}

#[test]
fn a_file_that_changes_while_it_is_paused_is_fetched_from_the_start() {
    let (place, version) = (Place::new(), Arc::new(AtomicUsize::new(1)));
    let served = Arc::clone(&version);
    let origin = serving(LEN, move |request, content| {
        let start = request.range().map_or(0, |(start, _)| start);
        let old = Content::bytes(vec![0; LEN as usize]);
        match served.load(Ordering::SeqCst) {
            1 => Answer::file(request, &old)
                .header("ETag", "\"old\"")
                .reset_after((LEN / 2).saturating_sub(start)),
            _ => Answer::file(request, content),
        }
    });
    let download = place.download(&origin.url("/a")).unwrap();
    let mut stream = download.stream().unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    wait_until("half of the file", || download.progress().stored >= LEN / 2 - 100_000);
    download.pause();
    version.store(2, Ordering::SeqCst);
    download.resume();
    assert_eq!(in_time("a changed file", move || download.wait()).unwrap(), LEN);
    place.check(LEN);
    // It had bytes of the old version.
    assert!(in_time("its stream", move || stream.read_to_end(&mut Vec::new())).is_err());
}

#[test]
fn two_processes_or_two_names_of_one_path_do_not_write_one_file() {
    let (place, (origin, _)) = (Place::new(), stalling());
    let download = place.download(&origin.url("/a")).unwrap();
    wait_until("half of the file", || download.progress().stored >= LEN / 2);
    // Another name of the same file. That of another process is the same: the lock is on the open file.
    let error = place.start(&origin.url("/a"), "./a", DownloadConfig::new()).unwrap_err();
    assert_eq!((error.kind(), io_kind(&error)), (ErrorKind::Storage, Some(std::io::ErrorKind::WouldBlock)));
    let meta = fs::metadata(place.of("a.part.meta")).unwrap();
    assert!(meta.len() > 0);
    #[cfg(unix)]
    assert_eq!(meta.nlink(), 1);
    download.cancel();
}

#[test]
#[ignore = "needs a full disk: WINDWAY_FULL is an empty directory on a tmpfs of 300 kB to 1.4 MB"]
fn a_full_disk_is_an_error_and_keeps_what_was_fetched() {
    let directory = PathBuf::from(std::env::var("WINDWAY_FULL").unwrap());
    let origin = serving(LEN, Answer::file);
    let start = || {
        Downloader::new(DownloaderConfig::default()).unwrap().download(
            &origin.url("/a"),
            directory.join("a"),
            DownloadConfig::new(),
        )
    };
    let download = start().unwrap();
    let ended = in_time("a full disk", move || download.wait());
    let error = ended.unwrap_err();
    assert_eq!((error.kind(), io_kind(&error)), (ErrorKind::Storage, Some(std::io::ErrorKind::StorageFull)));
    assert!(error.to_string().contains(directory.join("a.part").to_str().unwrap()), "{error}");
    let kept = fs::metadata(directory.join("a.part")).unwrap().len();
    assert!(kept > 200_000, "{kept} bytes are kept");
    println!("{error}; {kept} bytes are kept");
    // Again: what is there is continued, and not lost.
    let download = start().unwrap();
    let ended = in_time("a disk that is still full", move || download.wait());
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Storage);
    assert!(fs::metadata(directory.join("a.part")).unwrap().len() >= kept);
}

#[test]
fn a_mirror_goes_on_with_what_a_dead_server_has_left() {
    let (place, (origin, _)) = (Place::new(), stalling());
    leave_half(&place, &origin);
    let url = origin.url("/a");
    origin.stop_listening();
    drop(origin);
    let mirror = serving(LEN, Answer::file);
    let config = DownloadConfig::new().mirrors([mirror.url("/b")]);
    let download = place.start(&url, "a", config).unwrap();
    assert_eq!(in_time("the mirror", move || download.wait()).unwrap(), LEN);
    place.check(LEN);
    let starts: Vec<u64> = mirror.log().requests.iter().filter_map(Request::range).map(|at| at.0).collect();
    assert!(starts.iter().all(|start| *start == 0 || *start >= LEN / 2 - 262_144), "{starts:?}");
}

#[test]
#[ignore = "needs a full disk, as the one above"]
fn a_full_disk_ends_the_download_of_a_body_without_a_length() {
    let directory = PathBuf::from(std::env::var("WINDWAY_FULL").unwrap());
    let origin = serving(LEN, |_, content| Answer::whole(content).chunked());
    for round in 0..5 {
        let path = directory.join(format!("chunked {round}"));
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let download = downloader.download(&origin.url("/a"), path, DownloadConfig::new()).unwrap();
        let ended = in_time("a full disk", move || download.wait());
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Storage);
    }
    let left: Vec<_> = fs::read_dir(&directory).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_change_within_the_second_of_its_date_begins_from_the_start() {
    // The second version has the same length and date, and the same bytes but for some that an interrupted download has.
    let new: Vec<u8> = {
        let mut bytes = Vec::new();
        Content::pattern(LEN).append(&mut bytes, 0..LEN);
        bytes
    };
    let mut old = new.clone();
    old[100_000..200_000].fill(7);
    let contents = [Content::bytes(old), Content::bytes(new)];
    let is_new = Arc::new(AtomicUsize::new(0));
    let served = Arc::clone(&is_new);
    let origin = Origin::start(move |request| {
        let (version, start) = (served.load(Ordering::SeqCst), request.range().map_or(0, |(start, _)| start));
        let dates = ["Wed, 01 Jan 2020 00:00:00 GMT", "Wed, 01 Jan 2020 09:00:00 GMT"];
        let answer = Answer::file(request, &contents[version]).without_header("ETag");
        let answer = answer.header("Last-Modified", dates[0]).header("Date", dates[version]);
        let is_held = version == 0 && request.suffix().is_none();
        if is_held { answer.stall_after((LEN / 2).saturating_sub(start)) } else { answer }
    });
    let place = Place::new();
    leave_half(&place, &origin);
    is_new.store(1, Ordering::SeqCst);
    assert_eq!(place.download(&origin.url("/a")).unwrap().wait().unwrap(), LEN);
    place.check(LEN);
}

/// A file of one version, each with other bytes.
fn version(number: u64, len: u64) -> Content {
    Content::bytes(
        (0..len)
            .map(|at| ((at + number * 7).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect::<Vec<_>>(),
    )
}

fn bytes_of(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    content.append(&mut bytes, 0..content.len());
    bytes
}

#[test]
fn a_server_that_changes_at_random_never_makes_a_mixture() {
    // The last one has another length.
    let versions: Vec<Content> = (0..4).map(|number| version(number, LEN + number / 3 * 1000)).collect();
    let whole: Vec<Vec<u8>> = versions.iter().map(bytes_of).collect();
    for tagged in [true, false] {
        let (contents, dice) =
            (versions.clone(), Arc::new(std::sync::Mutex::new(Dice(7 + u64::from(tagged)))));
        let current = Arc::new(AtomicUsize::new(0));
        let (rolled, served) = (Arc::clone(&dice), Arc::clone(&current));
        let origin = Origin::start(move |request| {
            let mut dice = rolled.lock().unwrap();
            if dice.roll(6) == 0 {
                served.store(dice.roll(4) as usize, Ordering::SeqCst);
            }
            let number = served.load(Ordering::SeqCst);
            let mut answer =
                Answer::file(request, &contents[number]).header("ETag", &format!("\"{number}\""));
            if !tagged {
                let date = format!("Wed, 01 Jan 2020 00:00:0{number} GMT");
                answer = answer.without_header("ETag").header("Last-Modified", &date);
                answer = answer.header("Date", "Thu, 02 Jan 2020 00:00:00 GMT");
            }
            match dice.roll(4) {
                0 => answer.close_after(dice.roll(600_000)),
                1 => answer.reset_after(dice.roll(600_000)),
                _ => answer,
            }
        });
        let mut done = 0;
        for round in 0..12 {
            let place = Place::new();
            // Two runs are interrupted, and the third goes on with what they have left. Each may be whole before.
            for _ in 0..2 {
                let Ok(download) = place.download(&origin.url("/a")) else { break };
                let least = dice.lock().unwrap().roll(LEN);
                wait_until("bytes", || {
                    let progress = download.progress();
                    progress.stored > least
                        || progress.last_error.is_some()
                        || progress.phase == DownloadPhase::Done
                });
            }
            if !place.of("a").exists() {
                let download = place.download(&origin.url("/a")).unwrap();
                match in_time(&format!("round {round}"), move || download.wait()) {
                    Ok(_) => done += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
                        continue;
                    }
                }
            }
            assert!(whole.contains(&fs::read(place.of("a")).unwrap()), "round {round}: a mixture");
        }
        assert!(done > 0);
    }
}

#[test]
fn a_download_that_is_paused_resumed_and_played_at_random_gets_the_right_bytes() {
    let dice = Arc::new(std::sync::Mutex::new(Dice(3)));
    let rolled = Arc::clone(&dice);
    let origin = serving(LEN, move |request, content| {
        let mut dice = rolled.lock().unwrap();
        let answer = match dice.roll(6) {
            // A server without ranges now and then.
            0 => Answer::whole(content).header("ETag", &content.etag()),
            _ => Answer::file(request, content),
        };
        match dice.roll(4) {
            0 => answer.close_after(dice.roll(500_000)),
            1 => answer.chunks_of(20_000, Duration::from_millis(1)),
            _ => answer,
        }
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (downloader, origin, place) = (&downloader, &origin, &place);
            scope.spawn(move || {
                let mut dice = Dice(100 + number);
                let name = format!("file {number}");
                let mut runs = 0;
                loop {
                    let url = origin.url(&format!("/{number}"));
                    let download = downloader.download(&url, place.of(&name), DownloadConfig::new()).unwrap();
                    for _ in 0..dice.roll(12) {
                        match dice.roll(4) {
                            0 => download.pause(),
                            1 => download.resume(),
                            _ => {
                                let Ok(mut stream) = download.stream() else { break };
                                let at = dice.roll(LEN);
                                let mut buf = vec![0; (dice.roll(100_000) + 1).min(LEN - at) as usize];
                                stream.seek(SeekFrom::Start(at)).unwrap();
                                stream.read_exact(&mut buf).unwrap();
                                assert_pattern(at, &buf);
                            }
                        }
                    }
                    runs += 1;
                    if runs < 3 && dice.roll(2) == 0 {
                        download.cancel();
                        match download.wait() {
                            Ok(_) => break,
                            Err(error) => assert!(error.is_cancelled(), "{error}"),
                        }
                        continue;
                    }
                    download.resume();
                    assert_eq!(download.wait().unwrap(), LEN);
                    break;
                }
                assert_pattern(0, &fs::read(place.of(&name)).unwrap());
            });
        }
    });
    assert_eq!(place.names().len(), 12, "{:?}", place.names());
}

#[test]
fn a_download_that_has_ended_leaves_its_path_to_the_next_one() {
    let origin = serving(LEN, |request, content| {
        Answer::file(request, content).chunks_of(16_000, Duration::from_millis(2))
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let (place, events) = (Place::new(), downloader.subscribe());
    for round in 0..50 {
        let download = downloader.download(&origin.url("/a"), place.of("a"), DownloadConfig::new());
        let download = download.unwrap_or_else(|error| panic!("round {round}: {error}"));
        // Also while a player holds its stream.
        let stream = (round % 2 == 0).then(|| download.stream().unwrap());
        wait_until("a byte", || download.progress().stored > 0);
        if round % 3 == 0 {
            drop(download);
        } else {
            download.cancel();
            assert!(download.wait().unwrap_err().is_cancelled());
        }
        if let Some(mut stream) = stream {
            let ended = stream.read_to_end(&mut Vec::new()).map_err(Error::from);
            assert!(ended.unwrap_err().is_cancelled());
            let next = downloader.download(&origin.url("/a"), place.of("a"), DownloadConfig::new());
            drop(next.unwrap_or_else(|error| panic!("round {round}, with a stream: {error}")));
            drop(stream);
        }
    }
    // A cancel is no failure, whatever the transfer was about to write.
    let is_failure = |event: &Event| matches!(event, Event::Failed { .. } | Event::StreamFailed { .. });
    let failure = std::iter::from_fn(|| events.try_recv()).find(is_failure);
    assert!(failure.is_none(), "{failure:?}");
}

#[test]
fn a_name_that_the_server_suggests_is_not_used() {
    for name in ["b", "../b", "/tmp/windway-test-b", "..", "a.part.meta"] {
        let disposition = format!("attachment; filename=\"{name}\"");
        let origin = serving(LEN, move |request, content| {
            Answer::file(request, content).header("Content-Disposition", &disposition)
        });
        let place = Place::new();
        assert_eq!(place.download(&origin.url("/c")).unwrap().wait().unwrap(), LEN);
        place.check(LEN);
    }
}

#[test]
fn what_is_damaged_anywhere_in_an_interrupted_download_is_fetched_again() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    leave_half(&place, &origin);
    goes_on.store(1, Ordering::SeqCst);
    let left = ["a.part", "a.part.meta"].map(|name| (name, fs::read(place.of(name)).unwrap()));
    let mut dice = Dice(11);
    for round in 0..40 {
        for (name, bytes) in &left {
            let (mut bytes, len) = (bytes.clone(), bytes.len() as u64);
            for _ in 0..dice.roll(3) {
                // Behind the first 8 bytes, which show whose file it is.
                bytes[(8 + dice.roll(len - 8)) as usize] ^= 1 << dice.roll(8);
            }
            if dice.roll(6) == 0 {
                bytes.truncate((8 + dice.roll(len - 8)) as usize);
            }
            fs::write(place.of(name), bytes).unwrap();
        }
        let download = place.download(&origin.url("/a")).unwrap();
        assert_eq!(in_time(&format!("round {round}"), move || download.wait()).unwrap(), LEN);
        place.check(LEN);
        fs::remove_file(place.of("a")).unwrap();
    }
}

#[test]
fn an_encoded_body_is_refused() {
    let origin =
        serving(LEN, |request, content| Answer::file(request, content).header("Content-Encoding", "gzip"));
    let place = Place::new();
    let ended = place.download(&origin.url("/a")).unwrap().wait();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Encoded);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_digest_that_differs_because_of_the_last_byte_is_wrong() {
    let right = bytes_of(&Content::pattern(LEN));
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let place = Place::new();
    let sum: [u8; 32] = digest(&SHA256, &right).as_ref().try_into().unwrap();
    for (bytes, is_right) in [(wrong, false), (right, true)] {
        let origin = Origin::serving(Content::bytes(bytes));
        let download = place.start(&origin.url("/a"), "a", DownloadConfig::new().sha256(sum)).unwrap();
        match download.wait() {
            Ok(_) => assert!(is_right),
            Err(error) => assert!(!is_right && error.kind() == ErrorKind::WrongDigest, "{error}"),
        }
    }
    place.check(LEN);
}

#[cfg(unix)]
#[test]
fn names_may_have_any_characters_and_as_many_bytes_as_the_file_system_allows() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let origin = serving(LEN, Answer::file);
    let place = Place::new();
    let long = "ü".repeat(122) + "x";
    let names: [&[u8]; 6] =
        ["Füße – 音楽.flac".as_bytes(), long.as_bytes(), b" ", b"a\nb", b"-rf", b"\xFF\xFE.mp3"];
    for name in names {
        let path = place.0.path().join(OsStr::from_bytes(name));
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let download = downloader.download(&origin.url("/a"), &path, DownloadConfig::new()).unwrap();
        assert_eq!(download.wait().unwrap(), LEN);
        assert_pattern(0, &fs::read(&path).unwrap());
        fs::remove_file(&path).unwrap();
    }
    assert!(place.names().is_empty());
}

#[test]
fn a_part_that_another_program_truncates_is_an_error_and_never_zeros() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    let download = place.download(&origin.url("/a")).unwrap();
    wait_until("half of the file", || download.progress().stored >= LEN / 2);
    let part = place.of("a.part");
    wait_until("a part", || fs::metadata(&part).unwrap().len() > 400_000);
    fs::OpenOptions::new().write(true).open(&part).unwrap().set_len(100_000).unwrap();
    goes_on.store(1, Ordering::SeqCst);
    origin.release();
    let ended = in_time("a truncated part", move || download.wait());
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(place.download(&origin.url("/a")).unwrap().wait().unwrap(), LEN);
    place.check(LEN);
}

#[test]
fn a_server_that_contradicts_itself_about_the_length_makes_no_wrong_file() {
    type Wrong = fn(Answer, u64) -> Answer;
    let wrong: [Wrong; 4] = [
        |answer, start| answer.header("Content-Range", &format!("bytes {start}-{}/{}", LEN - 1, LEN + 5)),
        |answer, start| answer.header("Content-Range", &format!("bytes {start}-{}/{}", LEN - 6, LEN - 5)),
        |answer, start| answer.header("Content-Range", &format!("bytes {}-{}/{LEN}", start + 1, LEN)),
        |answer, _| answer.with_status(416),
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        let (place, is_wrong) = (Place::new(), Arc::new(AtomicUsize::new(0)));
        let lies = Arc::clone(&is_wrong);
        let origin = serving(LEN, move |request, content| {
            let start = request.range().map_or(0, |(start, _)| start);
            let answer = Answer::file(request, content);
            match lies.load(Ordering::SeqCst) {
                0 => answer.close_after((LEN / 2).saturating_sub(start)),
                1 if start > 0 => wrong(answer, start),
                _ => answer,
            }
        });
        let download = place.download(&origin.url("/a")).unwrap();
        wait_until("half of the file", || download.progress().stored >= LEN / 2 - 100);
        is_wrong.store(1, Ordering::SeqCst);
        wait_until("an error, or the end", || {
            download.progress().last_error.is_some() || download.progress().phase == DownloadPhase::Done
        });
        is_wrong.store(2, Ordering::SeqCst);
        let ended = in_time(&format!("server {number}"), move || download.wait());
        if ended.is_err() {
            assert!(!place.of("a").exists(), "server {number}");
            assert_eq!(place.download(&origin.url("/a")).unwrap().wait().unwrap(), LEN);
        }
        place.check(LEN);
    }
}
