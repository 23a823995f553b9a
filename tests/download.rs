//! Downloads to named files: whole or not there, continued after any end, and played meanwhile from the same bytes.
#![cfg(feature = "cache")]

use std::error::Error as _;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use support::content::assert_pattern;
use support::dice::Dice;
use support::{Answer, Content, Origin, Request, poll_until};
use windway::config::{Hook, RequestHook, RequestKind};
use windway::download::{Download, DownloadConfig, DownloadPhase, discard, open_stored};
use windway::event::Event;
use windway::stream::Phase;
use windway::{ByteRange, Downloader, DownloaderConfig, Error, ErrorKind};

const LEN: u64 = 1_500_001;
const CHILD: &str = "WINDWAY_DOWNLOAD_CHILD";

fn sha256(path: &Path) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, &fs::read(path).unwrap());
    digest.as_ref().try_into().unwrap()
}

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("a.flac")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // On Windows a temporary file has a name, and some file systems keep a removed file until it is closed.
        names.retain(|name| !(cfg!(windows) && (name.starts_with(".tmp") || name.contains(".removed-"))));
        names.sort();
        names
    }

    /// Fails unless the file, and nothing else, is there.
    fn check(&self) {
        let bytes = fs::read(self.path()).unwrap();
        assert_eq!(bytes.len() as u64, LEN);
        assert_pattern(0, &bytes);
        assert_eq!(self.names(), ["a.flac"]);
    }
}

fn serving(answer: impl Fn(&Request, &Content) -> Answer + Send + Sync + 'static) -> Origin {
    let content = Content::pattern(LEN);
    Origin::start(move |request| answer(request, &content))
}

/// Serves everything up to the middle, and falls silent there, until the test lets it go on.
fn stalling() -> (Origin, Arc<AtomicUsize>) {
    let goes_on = Arc::new(AtomicUsize::new(0));
    let may_go_on = Arc::clone(&goes_on);
    let origin = serving(move |request, content| {
        let answer = Answer::file(request, content);
        let start = request.range().map_or(0, |(start, _)| start);
        if may_go_on.load(Ordering::SeqCst) == 0 && request.suffix().is_none() {
            return answer.stall_after((LEN / 2).saturating_sub(start));
        }
        answer
    });
    (origin, goes_on)
}

fn start(url: &str, place: &Place, config: DownloadConfig) -> Result<Download, Error> {
    downloader().download(url, place.path(), config)
}

#[test]
fn a_file_is_there_when_it_is_whole_and_nothing_beside_it() {
    let (place, origin) = (Place::new(), serving(Answer::file));
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    assert_eq!(download.wait().unwrap(), LEN);
    place.check();
    let progress = download.progress();
    assert_eq!((progress.phase, progress.stored, progress.len), (DownloadPhase::Done, LEN, Some(LEN)));
    // It is still played from the file.
    let mut bytes = Vec::new();
    download.stream().unwrap().read_to_end(&mut bytes).unwrap();
    assert_pattern(0, &bytes);
}

#[test]
fn an_interrupted_download_goes_on_with_what_is_missing() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    assert_eq!(place.names(), ["a.flac.part", "a.flac.part.meta"]);
    goes_on.store(1, Ordering::SeqCst);
    let before = origin.log().requests.len();
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    assert_eq!(download.wait().unwrap(), LEN);
    place.check();
    let starts: Vec<u64> =
        origin.log().requests[before..].iter().filter_map(Request::range).map(|at| at.0).collect();
    // The opening shows which version it is. Then it goes on in the block that was not whole.
    assert!(starts.iter().skip(1).all(|start| *start >= LEN / 2 - 262_144), "{starts:?}");
}

#[test]
fn what_is_stored_of_a_file_is_played_without_a_network() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    let requests = origin.log().requests.len();
    let mut stream = open_stored(place.path()).unwrap();
    let handle = stream.handle();
    assert_eq!((stream.len(), handle.phase()), (Some(LEN), Phase::Idle));
    assert_eq!(handle.media_info().extension(), Some("flac"));
    let buffered = handle.buffered();
    assert_eq!(buffered[0].start, 0);
    let stored = buffered[0].end;
    assert!((LEN / 2 - 262_144..LEN).contains(&stored), "{buffered:?}");
    let mut bytes = vec![0; stored as usize];
    stream.read_exact(&mut bytes).unwrap();
    assert_pattern(0, &bytes);
    // An honest error, and no end.
    let error = Error::from(stream.read(&mut [0; 10]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::NotCached);
    let next = buffered.get(1).map_or(LEN, |next| next.start);
    assert_eq!(error.range(), Some(ByteRange::new(stored, next)));
    assert_eq!(handle.wait_range(0..stored + 1, None).unwrap_err().kind(), ErrorKind::NotCached);
    handle.wait_range(0..stored, None).unwrap();
    stream.rewind().unwrap();
    stream.read_exact(&mut bytes[..1000]).unwrap();
    assert_pattern(0, &bytes[..1000]);
    assert_eq!(origin.log().requests.len(), requests, "nothing is requested");
    // The network is back. On Windows the files are shared by the stream.
    if cfg!(windows) {
        drop(stream);
    } else {
        goes_on.store(1, Ordering::SeqCst);
        start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap().wait().unwrap();
        stream.seek(SeekFrom::Start(1000)).unwrap();
        stream.read_exact(&mut bytes[..1000]).unwrap();
        assert_pattern(1000, &bytes[..1000]);
        place.check();
        let mut whole = open_stored(place.path()).unwrap();
        assert_eq!(whole.read_to_end(&mut bytes).unwrap() as u64, LEN);
    }
}

#[test]
#[cfg(unix)]
fn what_is_stored_is_opened_also_while_its_download_ends() {
    let (place, (origin, _goes_on)) = (Place::new(), stalling());
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    let [meta, part] = ["a.flac.part.meta", "a.flac.part"].map(|name| place.0.path().join(name));
    let left = fs::read(&meta).unwrap();
    for _ in 0..3000 {
        let barrier = std::sync::Barrier::new(2);
        let opened = std::thread::scope(|scope| {
            // As a download does it.
            scope.spawn(|| {
                barrier.wait();
                fs::rename(&part, place.path()).unwrap();
                fs::remove_file(&meta).unwrap();
            });
            barrier.wait();
            open_stored(place.path())
        });
        opened.unwrap();
        fs::write(&meta, &left).unwrap();
        fs::rename(place.path(), &part).unwrap();
    }
}

#[test]
fn damaged_bytes_are_missing_to_a_stream_of_what_is_stored() {
    let (place, (origin, _goes_on)) = (Place::new(), stalling());
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    let part = place.0.path().join("a.flac.part");
    let mut file = fs::OpenOptions::new().write(true).open(part).unwrap();
    file.seek(SeekFrom::Start(300_000)).unwrap();
    file.write_all(b"damage").unwrap();
    let mut stream = open_stored(place.path()).unwrap();
    let mut bytes = Vec::new();
    let error = Error::from(stream.read_to_end(&mut bytes).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::NotCached);
    assert!(bytes.len() <= 300_000);
    assert_pattern(0, &bytes);
}

#[test]
fn what_is_left_of_a_download_is_discarded() {
    let (place, (origin, _goes_on)) = (Place::new(), stalling());
    let half = || {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
        download
    };
    let running = half();
    let error = discard(place.path()).unwrap_err();
    let why = error.source().unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!((error.kind(), why.kind()), (ErrorKind::Storage, std::io::ErrorKind::WouldBlock));
    let mut playing = running.stream().unwrap();
    running.discard().unwrap();
    assert!(place.names().is_empty(), "{:?}", place.names());
    playing.read_exact(&mut [0; 1000]).unwrap_or_else(|error| assert!(Error::from(error).is_cancelled()));
    drop(half());
    assert_eq!(place.names().len(), 2);
    fs::write(place.path(), "of the user").unwrap();
    discard(place.path()).unwrap();
    assert_eq!(place.names(), ["a.flac"]);
    // Nothing is left to do.
    discard(place.path()).unwrap();
    discard(place.0.path().join("nowhere/a.flac")).unwrap();
    // Nothing is left of one in a directory where no file can be made either.
    discard(place.path().join("b.flac")).unwrap();
    assert_eq!(place.names(), ["a.flac"]);
    fs::remove_file(place.path()).unwrap();
    let missing = open_stored(place.path()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Storage);
    // That of another program stays.
    fs::write(place.0.path().join("a.flac.part"), "precious").unwrap();
    assert!(discard(place.path()).is_err() && open_stored(place.path()).is_err());
    assert_eq!(place.names(), ["a.flac.part"]);
}

#[test]
fn a_handle_discards_a_download_that_another_thread_waits_for() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    let handle = download.handle();
    let observer = handle.clone();
    let observing = std::thread::spawn(move || observer.wait());
    let waiting = std::thread::spawn(move || (download.wait(), download));
    poll_until("half of the file", || handle.progress().stored >= LEN / 2);
    handle.discard().unwrap();
    assert!(place.names().is_empty(), "{:?}", place.names());
    let (ended, download) = support::in_time("the wait", move || waiting.join().unwrap());
    assert!(ended.unwrap_err().is_cancelled());
    assert!(support::in_time("the handle", move || observing.join().unwrap()).unwrap_err().is_cancelled());
    drop(download);
    assert!(handle.wait().unwrap_err().is_cancelled(), "how it has ended is known to its handles");

    // What a dropped download has left.
    let dropped = {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
        download.handle()
    };
    assert_eq!(place.names().len(), 2);
    dropped.discard().unwrap();
    assert!(place.names().is_empty(), "{:?}", place.names());

    // A file that is whole stays.
    goes_on.store(1, Ordering::SeqCst);
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    let done = download.handle();
    assert_eq!(done.wait().unwrap(), LEN);
    drop(download);
    assert_eq!(done.wait().unwrap(), LEN);
    done.discard().unwrap();
    place.check();
}

#[test]
fn a_cancel_while_the_file_is_checked_ends_the_fetch_of_a_damaged_block() {
    const BIG: u64 = 64 << 20;
    /// The beginning of the block that is damaged.
    const DAMAGED: u64 = BIG / 4;
    let (place, content) = (Place::new(), Content::pattern(BIG));
    let is_second = Arc::new(AtomicUsize::new(0));
    let second = Arc::clone(&is_second);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        let start = request.range().map_or(0, |(start, _)| start);
        match second.load(Ordering::SeqCst) {
            0 => answer.stall_after((BIG / 2).saturating_sub(start)),
            // The opening and what is missing. Not the block that turns out to be damaged.
            _ if start == 0 || start > BIG / 2 - 1_000_000 => answer,
            _ => answer.latency_until_released(),
        }
    });
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= BIG / 2);
    }
    is_second.store(1, Ordering::SeqCst);
    let mut part = fs::OpenOptions::new().write(true).open(place.0.path().join("a.flac.part")).unwrap();
    part.seek(SeekFrom::Start(DAMAGED + 100)).unwrap();
    part.write_all(b"damaged").unwrap();
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    let is_held = |request: &Request| request.range().is_some_and(|(start, _)| start == DAMAGED);
    // If the check is over before it is seen, this cancels a fetch, which ends in any case.
    poll_until("check or request", || {
        download.progress().phase == DownloadPhase::Finishing || origin.log().requests.iter().any(is_held)
    });
    download.cancel();
    let ended =
        support::in_time("the cancelled download", move || download.wait().map_err(|error| error.kind()));
    assert!(matches!(ended, Err(ErrorKind::Cancelled(_))), "{ended:?}");
}

#[test]
#[ignore = "a process that another test starts"]
fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (path, url) = argument.split_once('|').unwrap();
    drop(downloader().download(url, path, DownloadConfig::new()).and_then(|download| download.wait()));
}

#[test]
fn a_download_of_a_killed_process_goes_on() {
    let place = Place::new();
    let origin = serving(|request, content| Answer::file(request, content).rate(3_000_000));
    let mut rounds = 0;
    while !place.path().exists() && rounds < 5 {
        let argument = format!("{}|{}", place.path().display(), origin.url("/a"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored"]).env(CHILD, argument).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let part = place.0.path().join("a.flac.part");
        let len = || fs::metadata(&part).map_or(0, |metadata| metadata.len());
        let before = len();
        poll_until("byte of the child", || len() > before || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        rounds += 1;
    }
    if !place.path().exists() {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        assert_eq!(download.wait().unwrap(), LEN);
    }
    place.check();
}

#[test]
fn a_file_that_is_there_is_kept_unless_it_is_to_be_replaced() {
    let (place, origin) = (Place::new(), serving(Answer::file));
    fs::write(place.path(), "precious").unwrap();
    let error = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap_err();
    assert_eq!((error.kind(), place.names()), (ErrorKind::Storage, vec!["a.flac".to_owned()]));
    assert_eq!(
        start(&origin.url("/a"), &place, DownloadConfig::new().overwrite(true)).unwrap().wait().unwrap(),
        LEN
    );
    place.check();
    // One that comes while it is fetched.
    fs::remove_file(place.path()).unwrap();
    let (origin, goes_on) = stalling();
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    poll_until("half of the file", || download.progress().stored >= LEN / 2);
    fs::write(place.path(), "precious").unwrap();
    goes_on.store(1, Ordering::SeqCst);
    origin.release();
    assert_eq!(download.wait().unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(fs::read(place.path()).unwrap(), b"precious");
    assert_eq!(download.progress().phase, DownloadPhase::Failed);
}

#[test]
fn a_file_of_another_program_is_left_alone() {
    let (place, origin) = (Place::new(), serving(Answer::file));
    fs::write(place.0.path().join("a.flac.part"), "a browser's").unwrap();
    assert_eq!(
        start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap_err().kind(),
        ErrorKind::Storage
    );
}

#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_the_meta_file_is_not_followed() {
    let (place, origin) = (Place::new(), serving(Answer::file));
    let target = place.0.path().join("target");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, place.0.path().join("a.flac.part.meta")).unwrap();
    assert!(start(&origin.url("/a"), &place, DownloadConfig::new()).is_err());
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn two_downloads_do_not_write_one_file() {
    let (place, (origin, _)) = (Place::new(), stalling());
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    assert_eq!(
        start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap_err().kind(),
        ErrorKind::Storage
    );
    drop(download);
    assert!(start(&origin.url("/a"), &place, DownloadConfig::new()).is_ok());
}

#[test]
fn a_file_that_has_changed_is_fetched_from_the_start() {
    // Between two runs, and during one.
    for is_running in [false, true] {
        let (place, version) = (Place::new(), Arc::new(AtomicUsize::new(1)));
        let served = Arc::clone(&version);
        let origin = Origin::start(move |request| {
            if served.load(Ordering::SeqCst) == 1 {
                let old = Content::bytes(vec![0; LEN as usize]);
                let start = request.range().map_or(0, |(start, _)| start);
                let answer = Answer::file(request, &old).header("ETag", "\"old\"");
                return answer.reset_after((LEN / 2).saturating_sub(start));
            }
            Answer::file(request, &Content::pattern(LEN))
        });
        let mut download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("third of the file", || download.progress().stored >= LEN / 3);
        if !is_running {
            drop(download);
            version.store(2, Ordering::SeqCst);
            download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        }
        version.store(2, Ordering::SeqCst);
        assert_eq!(download.wait().unwrap(), LEN);
        place.check();
    }
}

#[test]
fn a_file_that_has_changed_under_the_same_validator_is_fetched_from_the_start() {
    let (place, version) = (Place::new(), Arc::new(AtomicUsize::new(1)));
    let served = Arc::clone(&version);
    let origin = serving(move |_, content| {
        let old = Content::bytes(vec![0; LEN as usize]);
        match served.load(Ordering::SeqCst) {
            1 => Answer::whole(&old).stall_after(LEN / 2),
            _ => Answer::whole(content),
        }
        .header("ETag", "\"1\"")
    });
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("third of the file", || download.progress().stored >= LEN / 3);
    }
    version.store(2, Ordering::SeqCst);
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    assert_eq!(download.wait().unwrap(), LEN);
    place.check();
}

#[test]
fn servers_without_ranges_validators_or_lengths_serve_downloads_too() {
    type Make = fn(&Request, &Content) -> Answer;
    let cases: [(&str, Make); 4] = [
        ("no ranges", |_, content| Answer::whole(content).header("ETag", "\"1\"")),
        ("nothing", |_, content| Answer::whole(content)),
        ("no validator", |request, content| Answer::file(request, content).without_header("ETag")),
        ("chunked", |_, content| Answer::whole(content).chunked()),
    ];
    for (what, answer) in cases {
        let (place, origin) = (Place::new(), serving(answer));
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        assert_eq!(download.wait().unwrap(), LEN, "{what}");
        place.check();
    }
}

#[test]
fn a_wrong_digest_is_an_error_and_leaves_nothing() {
    let (place, origin) = (Place::new(), serving(Answer::file));
    let wrong = DownloadConfig::new().sha256([7; 32]);
    let error = start(&origin.url("/a"), &place, wrong).unwrap().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDigest);
    assert!(place.names().is_empty(), "{:?}", place.names());
    assert_eq!(start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap().wait().unwrap(), LEN);
    let digest = sha256(&place.path());
    fs::remove_file(place.path()).unwrap();
    let right = DownloadConfig::new().sha256(digest);
    assert_eq!(start(&origin.url("/a"), &place, right).unwrap().wait().unwrap(), LEN);
    place.check();
}

/// Names the URL with a token that is good, and counts how often it was asked.
struct Tokens(Arc<AtomicUsize>);

impl RequestHook for Tokens {
    fn fresh_url(&self, kind: RequestKind, url: &str, status: u16) -> Option<String> {
        assert_eq!((kind, status), (RequestKind::File, 403));
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        Some(format!("{}?token={number}", url.split('?').next()?))
    }
}

#[test]
fn a_link_that_expires_meanwhile_is_renewed() {
    // Each token is good for one response, which breaks.
    let origin = serving(|request, content| {
        if request.again > 0 {
            Answer::status(403)
        } else {
            Answer::file(request, content).close_after(400_000)
        }
    });
    let (place, renewed) = (Place::new(), Arc::new(AtomicUsize::new(0)));
    let config = DownloadConfig::new().hook(Hook::new(Tokens(Arc::clone(&renewed))));
    assert_eq!(start(&origin.url("/a?token=old"), &place, config).unwrap().wait().unwrap(), LEN);
    place.check();
    assert!(renewed.load(Ordering::SeqCst) >= 3);
}

#[test]
fn a_download_goes_on_at_a_mirror() {
    let own = serving(|request, content| {
        if request.again > 0 {
            Answer::status(404)
        } else {
            Answer::file(request, content).close_after(400_000)
        }
    });
    let (place, mirror) = (Place::new(), serving(Answer::file));
    let config = DownloadConfig::new().mirrors([mirror.url("/b")]);
    assert!(!format!("{config:?}").contains("127.0.0.1"));
    assert_eq!(start(&own.url("/a"), &place, config).unwrap().wait().unwrap(), LEN);
    place.check();
    assert!(mirror.log().sent >= LEN - 400_000);
}

#[test]
fn damaged_parts_are_fetched_again() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    let part = place.0.path().join("a.flac.part");
    let mut bytes = fs::read(&part).unwrap();
    bytes[300_000] ^= 1;
    fs::write(&part, bytes).unwrap();
    goes_on.store(1, Ordering::SeqCst);
    assert_eq!(start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap().wait().unwrap(), LEN);
    place.check();
}

#[test]
fn it_is_played_meanwhile_without_a_second_transfer() {
    let (place, origin) = (Place::new(), serving(Answer::file));
    let downloader = downloader();
    let download = downloader.download(&origin.url("/a"), place.path(), DownloadConfig::new()).unwrap();
    let mut stream = download.stream().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_pattern(0, &bytes);
    assert_eq!((bytes.len() as u64, download.wait().unwrap()), (LEN, LEN));
    place.check();
    // The suffix request may bring the end once more.
    let fetched = stream.handle().stats().bytes_fetched;
    assert!((LEN..LEN + 20_000).contains(&fetched), "{fetched} bytes were fetched");
}

#[test]
fn a_download_without_its_server_is_retrying() {
    let place = Place::new();
    let is_down = Arc::new(AtomicBool::new(true));
    let origin = serving({
        let is_down = Arc::clone(&is_down);
        move |request, content| match is_down.load(Ordering::SeqCst) {
            true => Answer::status(503),
            false => Answer::file(request, content),
        }
    });
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    poll_until("a retry", || download.progress().phase == DownloadPhase::Retrying);
    let progress = download.progress();
    assert_eq!(progress.last_error.and_then(|error| error.status()), Some(503));
    download.pause();
    assert_eq!(download.progress().phase, DownloadPhase::Paused);
    download.resume();
    is_down.store(false, Ordering::SeqCst);
    assert_eq!(download.wait().unwrap(), LEN);
    let progress = download.progress();
    assert_eq!(progress.phase, DownloadPhase::Done);
    assert!(progress.last_error.is_none());
    place.check();
}

/// Nothing of this process has shown yet that the URL leads to the file. The first delays are short whatever their limit is.
#[test]
fn a_continued_download_dials_a_server_that_is_gone_every_second_and_a_half() {
    let (place, (origin, _)) = (Place::new(), stalling());
    {
        let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    origin.stop_listening();
    let downloader = downloader();
    let events = downloader.subscribe();
    let _download = downloader.download(&origin.url("/a"), place.path(), DownloadConfig::new()).unwrap();
    let delays = events.filter_map(|event| match event {
        Event::Retrying { after, .. } => Some(after),
        _ => None,
    });
    for after in delays.take(9) {
        assert!(after <= Duration::from_millis(1500), "{after:?}");
    }
}

#[test]
fn a_paused_download_asks_for_nothing_and_goes_on_where_it_was() {
    let place = Place::new();
    let origin = serving(|request, content| Answer::file(request, content).rate(400_000));
    let downloader = downloader();
    let download = downloader.download(&origin.url("/a"), place.path(), DownloadConfig::new()).unwrap();
    poll_until("beginning of the file", || download.progress().stored > 100_000);
    download.pause();
    assert_eq!(download.progress().phase, DownloadPhase::Paused);
    // What is on its way ends.
    poll_until("idle worker", || downloader.stats().busy_workers == 0);
    assert!(download.progress().stored < LEN, "all of it came");
    let requests = origin.log().requests.len();
    download.resume();
    assert_eq!(download.wait().unwrap(), LEN);
    assert!(origin.log().requests.len() > requests);
    place.check();
}

#[test]
fn a_handle_watches_and_cancels_a_download_of_another_thread() {
    let (place, (origin, _)) = (Place::new(), stalling());
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    let handle = download.handle();
    let observer = handle.clone();
    let (looked, looks) = mpsc::channel();
    let watching = std::thread::spawn(move || {
        // An hour: only the end of the download can end the wait.
        let mut watch = observer.watch(Duration::from_secs(3600));
        looked.send(watch.next().unwrap()).unwrap();
        watch.map(|progress| progress.phase).collect::<Vec<_>>()
    });
    assert!(!looks.recv().unwrap().phase.is_over());
    poll_until("half of the file", || handle.progress().stored >= LEN / 2);
    handle.pause();
    assert_eq!(download.progress().phase, DownloadPhase::Paused);
    handle.resume();
    handle.cancel();
    let seen = support::in_time("the watch", move || watching.join().unwrap());
    assert_eq!(seen, [DownloadPhase::Cancelled]);
    assert!(download.wait().unwrap_err().is_cancelled());
}

#[test]
fn a_handle_neither_keeps_a_download_running_nor_forgets_how_it_ended() {
    let (place, (origin, goes_on)) = (Place::new(), stalling());
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    let cancelled = download.handle();
    drop(download);
    assert_eq!(cancelled.progress().phase, DownloadPhase::Cancelled);
    assert_eq!(cancelled.watch(Duration::from_secs(3600)).count(), 1);
    goes_on.store(1, Ordering::SeqCst);
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    let done = download.handle();
    download.wait().unwrap();
    drop(download);
    let last = done.progress();
    assert_eq!((last.phase, last.stored, last.len), (DownloadPhase::Done, LEN, Some(LEN)));
    // Nothing to do.
    done.cancel();
    done.pause();
    done.resume();
}

#[test]
fn the_stored_bytes_do_not_become_fewer_by_a_cancel() {
    let (place, (origin, _)) = (Place::new(), stalling());
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    poll_until("half of the file", || download.progress().stored >= LEN / 2);
    let before = download.progress().stored;
    download.cancel();
    assert!(download.wait().unwrap_err().is_cancelled());
    assert!(download.progress().stored >= before, "{:?}, {before} before", download.progress());
}

#[test]
fn what_can_not_be_had_fails_with_its_reason() {
    let place = Place::new();
    let origin = Origin::start(|_| Answer::status(404));
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    assert_eq!(download.wait().unwrap_err().kind(), ErrorKind::Status(404));
    assert!(download.stream().is_err());
    let error = start("ftp://host/a", &Place::new(), DownloadConfig::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedScheme);
    let (origin, _) = stalling();
    let place = Place::new();
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    download.cancel();
    assert!(download.wait().unwrap_err().is_cancelled());
    assert_eq!(download.progress().phase, DownloadPhase::Cancelled);
    assert!(download.progress().last_error.is_none());
}

#[test]
fn a_download_that_stored_nothing_leaves_nothing() {
    let page = Content::bytes(*b"<!DOCTYPE html><html><body>Log in</body></html>");
    let origin =
        Origin::start(move |request| Answer::file(request, &page).header("Content-Type", "text/html"));
    let place = Place::new();
    let download = start(&origin.url("/a"), &place, DownloadConfig::new()).unwrap();
    assert_eq!(download.wait().unwrap_err().kind(), ErrorKind::NotMedia);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn the_path_of_a_directory_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    for overwrite in [false, true] {
        let config = DownloadConfig::new().overwrite(overwrite);
        let error = start("http://127.0.0.1:9/a", &place, config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        let source = error.source().unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(source.kind(), std::io::ErrorKind::InvalidInput, "{error:?}");
    }
}

/// A user who reads the text knows what to do.
#[test]
fn what_can_not_be_opened_is_an_error_that_names_the_path_and_the_reason() {
    let (place, (origin, _)) = (Place::new(), stalling());
    let folder = place.0.path();
    let (url, file) = (origin.url("/a"), |name: &str| folder.join(name));
    fs::create_dir(file("folder")).unwrap();
    fs::write(file("there"), "precious").unwrap();
    fs::write(file("foreign.part"), "a browser's").unwrap();
    let downloader = downloader();
    let error = |name: &str| {
        let error = downloader.download(&url, file(name), DownloadConfig::new()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&file(name).display().to_string()), "{text}");
        (error.source().unwrap().to_string(), text)
    };
    let running = downloader.download(&url, file("running"), DownloadConfig::new()).unwrap();
    let mut texts = Vec::new();
    for name in ["missing/a", "folder", "there", "foreign", "running"] {
        let (reason, text) = error(name);
        assert!(text.contains(&reason), "{text:?} without {reason:?}");
        texts.push(text.replace(name, ""));
    }
    drop(running);
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 5, "{texts:?}");
}

#[test]
fn many_downloads_run_at_once() {
    let origin = serving(Answer::file);
    let (downloader, place) = (downloader(), tempfile::tempdir().unwrap());
    let downloads: Vec<Download> = (0..20)
        .map(|number| {
            let path = place.path().join(number.to_string());
            downloader.download(&origin.url(&format!("/{number}")), path, DownloadConfig::new()).unwrap()
        })
        .collect();
    for (number, download) in downloads.iter().enumerate() {
        assert_eq!(download.wait().unwrap(), LEN);
        assert_pattern(0, &fs::read(place.path().join(number.to_string())).unwrap());
    }
    // Windows keeps the names of some files until they are closed.
    drop(downloads);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 20);
}

#[test]
fn playing_goes_before_downloads() {
    let origin = serving(|request, content| {
        let answer = Answer::file(request, content);
        if request.path == "/played" { answer } else { answer.stall_after(70_000) }
    });
    let downloader = Downloader::new(DownloaderConfig::new().max_concurrent(2).reserved(0)).unwrap();
    let place = tempfile::tempdir().unwrap();
    let downloads: Vec<Download> = (0..6)
        .map(|number| {
            let path = place.path().join(number.to_string());
            downloader.download(&origin.url(&format!("/{number}")), path, DownloadConfig::new()).unwrap()
        })
        .collect();
    poll_until("stored byte", || downloads.iter().any(|download| download.progress().stored > 0));
    // All workers wait for servers that send nothing.
    let mut bytes = Vec::new();
    downloader.open(&origin.url("/played")).unwrap().read_to_end(&mut bytes).unwrap();
    assert_pattern(0, &bytes);
    assert!(downloads.iter().all(|download| download.progress().phase == DownloadPhase::Fetching));
}

#[test]
fn no_url_is_written_beside_the_file() {
    let (place, (origin, _)) = (Place::new(), stalling());
    let url = format!("{}?token=hush", origin.url("/secret-name"));
    {
        let download = start(&url, &place, DownloadConfig::new()).unwrap();
        poll_until("half of the file", || download.progress().stored >= LEN / 2);
    }
    let meta = fs::read(place.0.path().join("a.flac.part.meta")).unwrap();
    let text = String::from_utf8_lossy(&meta);
    for secret in ["secret", "token", "hush", "127.0.0.1", "http"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// Kills one process after the other while it downloads, from servers with and without ranges and lengths, which change the file
/// now and then. What gets its name is a whole version.
fn kill(kills: usize) {
    let versions: [Vec<u8>; 2] = [
        (0..LEN).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect(),
        (0..LEN + 500).map(|at| (at.wrapping_mul(0xD134_2543_DE82_EF95) >> 56) as u8).collect(),
    ];
    let contents = versions.clone().map(Content::bytes);
    let current = Arc::new(AtomicUsize::new(0));
    let served = Arc::clone(&current);
    let origin = Origin::start(move |request| {
        let number = served.load(Ordering::SeqCst);
        let content = &contents[number];
        let answer = match request.path.as_str() {
            "/ranges" => Answer::file(request, content),
            "/whole" => Answer::whole(content),
            _ => Answer::whole(content).chunked(),
        };
        answer.header("ETag", &format!("\"{number}\"")).rate(50_000_000)
    });
    let (directory, mut dice, mut whole) = (tempfile::tempdir().unwrap(), Dice(kills as u64), 0);
    for round in 0..kills {
        let name = ["ranges", "whole", "chunked"][round % 3];
        let path = directory.path().join(name);
        let argument = format!("{}|{}", path.display(), origin.url(&format!("/{name}")));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored"]).env(CHILD, argument).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        // At any point of its life.
        std::thread::sleep(Duration::from_micros(dice.roll(100_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        if let Ok(bytes) = fs::read(&path) {
            assert!(versions.contains(&bytes), "round {round}: a mixture of {} bytes", bytes.len());
            fs::remove_file(&path).unwrap();
            whole += 1;
        }
        if dice.roll(8) == 0 {
            current.fetch_xor(1, Ordering::SeqCst);
        }
    }
    println!("{whole} files were whole after {kills} kills");
    for name in ["ranges", "whole", "chunked"] {
        let path = directory.path().join(name);
        let url = origin.url(&format!("/{name}"));
        downloader().download(&url, &path, DownloadConfig::new()).unwrap().wait().unwrap();
        assert!(fs::read(&path).unwrap() == versions[current.load(Ordering::SeqCst)], "{name}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn downloads_of_processes_that_are_killed_are_whole_or_not_there() {
    kill(30);
}

#[test]
#[ignore = "takes a minute"]
fn downloads_of_a_thousand_processes_that_are_killed_are_whole_or_not_there() {
    kill(1000);
}

#[cfg(feature = "queue")]
#[test]
fn a_track_is_downloaded_by_the_rules_of_its_list() {
    use windway::queue::{ListRules, Playlist};

    let place = Place::new();
    let plain = serving(Answer::file);
    let target = plain.url("/17.mp3");
    let content = Content::pattern(LEN);
    let origin = Origin::start_tls(move |request| match &*request.path {
        "/moved" => Answer::redirect(302, &target),
        _ => Answer::file(request, &content),
    });
    let mut config = DownloaderConfig::default();
    config.client.extra_roots.push(origin.root_pem());
    let downloader = Downloader::new(config).unwrap();
    let list =
        Playlist::parse(b"#EXTM3U\n/moved\n/file\n", &origin.url("/list.m3u"), ListRules::default()).unwrap();
    let secret = DownloadConfig::new().headers([("X-Token".to_owned(), "secret".to_owned())]);
    let download =
        |track| downloader.download_track(&list.tracks()[track], place.path(), secret.clone()).unwrap();

    assert_eq!(download(0).wait().unwrap_err().kind(), ErrorKind::Forbidden, "https leads to http");
    assert!(plain.log().requests.is_empty(), "a redirect is checked before it is followed");
    assert_eq!(download(1).wait().unwrap(), LEN);
    place.check();
    let asked = origin.log().requests;
    assert!(asked.iter().all(|request| request.header("x-token").is_none()), "the list got no headers");
}

#[cfg(feature = "queue")]
#[test]
fn a_track_that_a_closure_opens_is_not_downloaded() {
    let place = Place::new();
    let track = windway::queue::Track::opened_by(|| unreachable!());
    let refused = downloader().download_track(&track, place.path(), DownloadConfig::new());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(place.names().is_empty());
}
