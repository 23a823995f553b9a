//! The persistent cache where origins, other programs and the file system do what they should not: never a wrong byte, never a
//! hang, and an error only where there is one.
#![cfg(all(feature = "cache", unix))]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use support::content::{assert_pattern, read_all};
use support::dice::Dice;
use support::{Answer, Content, Origin, Request, in_time};
use windway::cache::{Cache, CacheConfig, CacheKey};
use windway::config::ReadAhead;
use windway::event::Event;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Stream};

const LEN: u64 = 900_001;

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

/// A directory of a cache.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// As another process opens it.
    fn open(&self) -> Cache {
        open(self.0.path(), CacheConfig::new())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("windway-cache-1")
    }

    /// The files of all entries.
    fn files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.root()).unwrap().map(|entry| entry.unwrap().path());
        let folders = folders.filter(|folder| folder.file_name().unwrap().len() == 2);
        folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect()
    }
}

fn open(path: &Path, config: CacheConfig) -> Cache {
    Cache::open(path, config.keep_free(0)).unwrap()
}

fn config(cache: &Cache) -> FileConfig {
    FileConfig::new().read_ahead(ReadAhead::Whole).cache(cache.clone())
}

/// Reads all of it, as a new process does. Panics if a byte is not the pattern's.
fn play(url: &str, cache: &Cache) -> Result<u64, Error> {
    read_all(&mut downloader().open_with(url, config(cache))?)
}

fn fresh(request: &Request, content: &Content) -> Answer {
    Answer::file(request, content).header("Cache-Control", "max-age=3600")
}

fn serving(answer: impl Fn(&Request, &Content) -> Answer + Send + Sync + 'static) -> Origin {
    let content = Content::pattern(LEN);
    Origin::start(move |request| answer(request, &content))
}

/// Reads parts at random. Panics if a byte is not the pattern's.
fn read_at_random(stream: &mut Stream, dice: &mut Dice, times: usize) -> Result<(), Error> {
    for _ in 0..times {
        let at = dice.roll(LEN);
        stream.seek(SeekFrom::Start(at)).map_err(Error::from)?;
        let mut buf = vec![0; (dice.roll(200_000) + 1).min(LEN - at) as usize];
        stream.read_exact(&mut buf).map_err(Error::from)?;
        assert_pattern(at, &buf);
    }
    Ok(())
}

#[test]
fn threads_that_open_one_url_at_once_share_one_entry() {
    for is_damaged in [false, true] {
        let (place, origin) = (Place::new(), serving(fresh));
        let (cache, downloader, url) = (place.open(), downloader(), origin.url("/a"));
        if is_damaged {
            assert_eq!(play(&url, &cache).unwrap(), LEN);
            File::options()
                .write(true)
                .open(&place.files()[0])
                .unwrap()
                .write_all_at(b"damaged", 50)
                .unwrap();
        }
        let events = downloader.subscribe();
        thread::scope(|scope| {
            for seed in 0..64 {
                let (downloader, url, cache) = (&downloader, &url, &cache);
                scope.spawn(move || {
                    let mut stream = downloader.open_with(url, config(cache)).unwrap();
                    read_at_random(&mut stream, &mut Dice(seed), 5).unwrap();
                    stream.rewind().unwrap();
                    assert_eq!(read_all(&mut stream).unwrap(), LEN);
                });
            }
        });
        drop(downloader);
        let off = events.into_iter().find(|event| matches!(event, Event::CacheOff { .. }));
        assert!(off.is_none(), "{off:?}");
        let entries = cache.entries().unwrap();
        assert_eq!((place.files().len(), entries.len(), entries[0].stored), (1, 1, LEN));
    }
}

#[test]
fn streams_of_an_entry_that_another_process_removes_again_and_again_read_right() {
    let (place, origin) = (Place::new(), serving(fresh));
    let (cache, other, downloader) = (place.open(), place.open(), downloader());
    let (url, is_over) = (origin.url("/a"), AtomicBool::new(false));
    let events = downloader.subscribe();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..20)
            .map(|seed| {
                let (downloader, url, cache) = (&downloader, &url, &cache);
                scope.spawn(move || {
                    let mut dice = Dice(seed);
                    for _ in 0..5 {
                        let mut stream = downloader.open_with(url, config(cache)).unwrap();
                        read_at_random(&mut stream, &mut dice, 10).unwrap();
                    }
                })
            })
            .collect();
        let clearing = scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(Ordering::Relaxed) {
                other.clear().unwrap();
                cache.remove(&cache.key_of(&url)).unwrap();
                rounds += 1;
            }
            rounds
        });
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        assert!(clearing.join().unwrap() > 0);
    });
    drop(downloader);
    let off = events.into_iter().find(|event| matches!(event, Event::CacheOff { .. }));
    assert!(off.is_none(), "{off:?}");
    // What is stored from now on is kept.
    assert_eq!(play(&url, &cache).unwrap(), LEN);
    assert_eq!(place.open().entries().unwrap()[0].stored, LEN);
}

#[test]
fn entries_that_are_damaged_anywhere_are_never_served_wrong() {
    const FILES: u64 = 250;
    const SMALL: u64 = 3000;
    let origin = Origin::start(|request| fresh(request, &Content::pattern(SMALL)));
    let (place, downloader) = (Place::new(), downloader());
    let play = |number: u64, cache: &Cache, downloader: &Downloader| -> Result<u64, Error> {
        let url = origin.url(&format!("/{number}"));
        read_all(&mut downloader.open_with(&url, FileConfig::new().cache(cache.clone()))?)
    };
    let cache = place.open();
    let mut dice = Dice(5);
    for round in 0..4 {
        for number in 0..FILES {
            assert_eq!(play(number, &cache, &downloader).unwrap(), SMALL);
        }
        let files = place.files();
        assert_eq!(files.len() as u64, FILES, "round {round}");
        for path in &files {
            let mut bytes = fs::read(path).unwrap();
            // Header and stamp, slots, data, anything.
            let (from, to) = [(0, 4096), (4096, 4128), (8192, bytes.len() as u64), (0, bytes.len() as u64)]
                [dice.roll(4) as usize];
            match dice.roll(8) {
                0 => bytes.truncate(dice.roll(bytes.len() as u64) as usize),
                1 => bytes.extend_from_slice(&[9; 5000]),
                2 => {
                    // The file of another entry, or a name that no entry has.
                    let other = &files[dice.roll(FILES) as usize];
                    bytes = fs::read(other).unwrap_or_default();
                }
                3 => bytes[from as usize..to as usize].fill(0),
                4 => {
                    let name = path.file_name().unwrap().to_str().unwrap();
                    let flipped = if name.ends_with('0') { '1' } else { '0' };
                    let name = format!("{}{flipped}", &name[..48]);
                    fs::rename(path, path.with_file_name(name)).unwrap();
                    continue;
                }
                _ => {
                    for _ in 0..=dice.roll(3) {
                        bytes[(from + dice.roll(to - from)) as usize] ^= 1 << dice.roll(8);
                    }
                }
            }
            fs::write(path, bytes).unwrap();
        }
        // Without a network each of them plays right or does not open.
        let offline = Downloader::new(DownloaderConfig::new().max_retries(0)).unwrap();
        let other = place.open();
        assert!(other.entries().unwrap().iter().all(|entry| entry.stored <= entry.len));
        origin.stop_listening();
        let played = (0..FILES).filter(|number| play(*number, &other, &offline).is_ok()).count();
        origin.listen_again();
        assert!(played < FILES as usize, "nothing was damaged");
        // One by one each name is looked for, and the damaged files are replaced.
        for number in 0..FILES {
            assert_eq!(play(number, &other, &downloader).unwrap(), SMALL);
        }
        place.files().into_iter().for_each(|path| fs::remove_file(path).unwrap());
    }
}

#[test]
fn a_file_that_is_truncated_while_it_is_read_is_fetched_again() {
    for len in [0, 5000, 8192, 300_000, 700_000] {
        let (place, origin) = (Place::new(), serving(fresh));
        let url = origin.url("/a");
        let config = |cache: &Cache| config(cache).read_ahead(ReadAhead::Bytes(1));
        let cache = place.open();
        let mut stream = downloader().open_with(&url, config(&cache)).unwrap();
        // Not its end: something is left to be written.
        let mut buf = vec![0; 750_000];
        stream.read_exact(&mut buf).unwrap();
        assert_pattern(0, &buf);
        stream.handle().wait_range(0..750_000, None).unwrap();
        let file = File::options().write(true).open(&place.files()[0]).unwrap();
        file.set_len(len).unwrap();
        let case = format!("truncated to {len}");
        in_time(&case, move || {
            for _ in 0..2 {
                stream.rewind().unwrap();
                assert_eq!(read_all(&mut stream).unwrap(), LEN);
            }
            drop(stream);
        });
        drop(cache);
        let cache = place.open();
        assert_eq!(in_time(&case, move || play(&url, &cache)).unwrap(), LEN);
    }
}

/// A user who reads the text knows what to do.
#[test]
fn a_directory_that_can_not_be_opened_is_an_error_that_names_it_and_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let path = file.join("cache");
    let error = Cache::open(&path, CacheConfig::new()).unwrap_err();
    let (text, reason) = (error.to_string(), std::error::Error::source(&error).unwrap().to_string());
    assert!(text.contains(path.to_str().unwrap()) && text.contains(&reason), "{text}");
}

#[test]
fn a_directory_that_is_removed_or_replaced_while_it_is_used_is_one_event_and_the_streams_go_on() {
    for is_linked in [false, true] {
        let (place, origin) = (Place::new(), serving(fresh));
        let (cache, downloader) = (place.open(), downloader());
        let events = downloader.subscribe();
        let mut played = downloader.open_with(&origin.url("/a"), config(&cache)).unwrap();
        played.read_exact(&mut [0; 1000]).unwrap();
        let elsewhere = Place::new();
        fs::remove_dir_all(place.root()).unwrap();
        if is_linked {
            symlink(elsewhere.0.path(), place.root()).unwrap();
        }
        assert_eq!(read_all_again(&mut played).unwrap(), LEN);
        for name in ["/a", "/b"] {
            let mut stream = downloader.open_with(&origin.url(name), config(&cache)).unwrap();
            assert_eq!(read_all(&mut stream).unwrap(), LEN);
        }
        assert!(cache.pin(&CacheKey::named("x")).is_err() || is_linked || !place.root().exists());
        drop(cache.entries());
        drop(cache.clear());
        drop((played, downloader));
        let off = events.into_iter().filter(|event| matches!(event, Event::CacheOff { .. })).count();
        assert!(off <= 3, "{off} events of three streams");
        assert_eq!(fs::read_dir(elsewhere.0.path()).unwrap().count(), 0);
    }
}

#[test]
#[ignore = "needs a full disk: WINDWAY_FULL is an empty tmpfs of 1 to 1.5 MB"]
fn a_full_disk_is_one_event_a_stream_while_nothing_can_be_evicted() {
    let directory = PathBuf::from(std::env::var("WINDWAY_FULL").unwrap());
    let origin = serving(fresh);
    let cache = open(&directory, CacheConfig::new());
    let played = |name: &str| {
        let downloader = downloader();
        let events = downloader.subscribe();
        let mut stream = downloader.open_with(&origin.url(name), config(&cache)).unwrap();
        assert_eq!(read_all(&mut stream).unwrap(), LEN);
        drop((stream, downloader));
        events.into_iter().filter(|event| matches!(event, Event::CacheOff { .. })).count()
    };
    // Each of them makes room for itself, unless the other one is in use.
    assert_eq!(["/b", "/a"].map(played), [0, 0]);
    let held = downloader().open_with(&origin.url("/a"), config(&cache)).unwrap();
    assert_eq!(["/c", "/d"].map(played), [1, 1]);
    drop(held);
    let before = origin.log().requests.len();
    assert_eq!((played("/a"), origin.log().requests.len()), (0, before));
    cache.clear().unwrap();
    assert_eq!(["/e", "/e"].map(played), [0, 0]);
}

fn read_all_again(stream: &mut Stream) -> Result<u64, Error> {
    stream.rewind().map_err(Error::from)?;
    read_all(stream)
}

#[test]
fn what_the_server_answers_instead_of_a_confirmation_ends_the_stream_only_if_it_shows_a_change() {
    type Make = fn(&Request, &Content) -> Answer;
    let cases: [(&str, Make, bool); 7] = [
        ("a shorter file", |request, _| Answer::file(request, &Content::pattern(LEN / 2)), true),
        ("a longer file", |request, _| Answer::file(request, &Content::pattern(LEN + 1)), true),
        (
            "another length",
            |_, content| {
                let range = format!("bytes {}-{}/{}", LEN - 64, LEN - 1, LEN + 7);
                Answer::whole(content).partial(LEN - 64..LEN).header("Content-Range", &range)
            },
            true,
        ),
        (
            "304",
            |_, _| Answer::status(304).header("ETag", "\"2\"").header("Cache-Control", "no-store"),
            false,
        ),
        ("another part", |_, content| Answer::whole(content).partial(0..64), false),
        ("500", |_, _| Answer::status(500), false),
        (
            "a page",
            |_, _| {
                let page = b"<!doctype html><html><body>Log in, please.</body></html>";
                Answer::whole(&Content::bytes(&page[..])).header("Content-Type", "text/html")
            },
            false,
        ),
    ];
    for (name, answer, is_changed) in cases {
        let (place, is_new) = (Place::new(), Arc::new(AtomicBool::new(false)));
        let served = Arc::clone(&is_new);
        let origin = serving(move |request, content| match served.load(Ordering::SeqCst) {
            false => Answer::file(request, content),
            true => answer(request, content),
        });
        let url = origin.url("/a");
        assert_eq!(play(&url, &place.open()).unwrap(), LEN);
        is_new.store(true, Ordering::SeqCst);
        let downloader = Downloader::new(DownloaderConfig::new().max_retries(0)).unwrap();
        let events = downloader.subscribe();
        let mut stream = downloader.open_with(&url, config(&place.open())).unwrap();
        in_time(name, move || {
            // The confirmation is the only request.
            let is_end = |event: &Event| event.is_end();
            assert!(std::iter::from_fn(|| events.recv()).any(|event| is_end(&event)));
        });
        downloader.stop();
        let ended = read_all(&mut stream);
        drop(stream);
        let left = place.open().entries().unwrap().len();
        assert_eq!((ended.is_err(), left), (is_changed, usize::from(!is_changed)), "{name}: {ended:?}");
    }
}

#[test]
fn an_answer_that_varies_with_a_default_header_of_the_client_is_not_stored() {
    for (vary, is_stored) in [("X-Me", false), ("User-Agent", true)] {
        let place = Place::new();
        let origin = serving(move |request, content| fresh(request, content).header("Vary", vary));
        let mut config = DownloaderConfig::default();
        config.client.default_headers = vec![("X-Me".to_owned(), "5".to_owned())];
        let downloader = Downloader::new(config).unwrap();
        let config = FileConfig::new().read_ahead(ReadAhead::Whole).cache(place.open());
        let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
        assert_eq!(read_all(&mut stream).unwrap(), LEN);
        drop(stream);
        assert_eq!(place.files().len(), usize::from(is_stored), "{vary}");
    }
}

/// The bytes of one version of the file.
fn version(number: u64) -> Vec<u8> {
    (0..LEN).map(|at| ((at + number * 7).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

const VERSIONS: u64 = 3;

/// How the server names its versions.
#[derive(Clone, Copy, Debug)]
enum Naming {
    Strong,
    /// Long before the response.
    Modified,
    WeakAndModified,
}

fn date(seconds: u64) -> String {
    httpdate(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// As RFC 9110, section 5.6.7, for the year 2020.
fn httpdate(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - 1_577_836_800;
    let (day, rest) = (since / 86_400, since % 86_400);
    assert!(day < 31);
    let names = ["Wed", "Thu", "Fri", "Sat", "Sun", "Mon", "Tue"];
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{}, {:02} Jan 2020 {hour:02}:{minute:02}:{second:02} GMT", names[day as usize % 7], day + 1)
}

#[test]
fn a_file_that_changes_between_any_two_requests_is_never_served_in_parts_of_two_versions() {
    let versions: Arc<Vec<Content>> =
        Arc::new((0..VERSIONS).map(|number| Content::bytes(version(number))).collect());
    let bytes: Vec<Vec<u8>> = (0..VERSIONS).map(version).collect();
    let controls = [
        "",
        "max-age=3600",
        "no-cache",
        "max-age=0, must-revalidate",
        "max-age=-5",
        "max-age=99999999999999999999999",
        "max-age=\"60\"",
        "max-age=5, max-age=7",
        "private, max-age=9",
        ",,=,max-age",
        "no-store=x",
        "public",
    ];
    for naming in [Naming::Strong, Naming::Modified, Naming::WeakAndModified] {
        let (place, current) = (Place::new(), Arc::new(AtomicUsize::new(0)));
        let dice = Arc::new(Mutex::new(Dice(naming as u64)));
        let (served, rolled, contents) = (Arc::clone(&current), Arc::clone(&dice), Arc::clone(&versions));
        let origin = Origin::start(move |request| {
            let mut dice = rolled.lock().unwrap();
            if dice.roll(5) == 0 {
                served.store(dice.roll(VERSIONS) as usize, Ordering::SeqCst);
            }
            let number = served.load(Ordering::SeqCst);
            let answer = Answer::file(request, &contents[number]).without_header("ETag");
            let answer = answer.header("Cache-Control", controls[dice.roll(controls.len() as u64) as usize]);
            let modified = date(1_577_836_800 + number as u64);
            let answer = match naming {
                Naming::Strong => answer.header("ETag", &format!("\"{number}\"")),
                Naming::Modified => answer.header("Last-Modified", &modified),
                Naming::WeakAndModified => {
                    answer.header("ETag", &format!("W/\"{number}\"")).header("Last-Modified", &modified)
                }
            };
            let now = ["", &date(1_577_836_800 + 86_400 * 9)][dice.roll(2) as usize].to_owned();
            let answer = if now.is_empty() { answer } else { answer.header("Date", &now) };
            match dice.roll(4) {
                0 => answer.header("Age", "99999999999999999999999"),
                1 => answer.header("Age", "-1"),
                _ => answer,
            }
        });
        let bytes = bytes.clone();
        in_time(&format!("{naming:?}"), move || {
            let mut dice = Dice(99);
            for round in 0..60 {
                let cache = place.open();
                let config =
                    FileConfig::new().read_ahead(ReadAhead::Bytes(dice.roll(400_000) + 1)).cache(cache);
                let downloader = downloader();
                let Ok(mut stream) = downloader.open_with(&origin.url("/a"), config) else { continue };
                let mut possible: Vec<usize> = (0..VERSIONS as usize).collect();
                for _ in 0..6 {
                    let at = dice.roll(LEN) as usize;
                    let mut buf = vec![0; (dice.roll(200_000) as usize + 1).min(LEN as usize - at)];
                    stream.seek(SeekFrom::Start(at as u64)).unwrap();
                    if let Err(error) = stream.read_exact(&mut buf) {
                        let kind = Error::from(error).kind();
                        assert!(matches!(kind, ErrorKind::Changed), "{naming:?}: {kind:?}");
                        break;
                    }
                    possible.retain(|number| bytes[*number][at..at + buf.len()] == buf[..]);
                    assert!(!possible.is_empty(), "{naming:?}, round {round}: bytes of two versions");
                }
            }
        });
    }
}

#[test]
fn a_change_within_the_second_of_its_date_is_not_spliced() {
    // The two versions are the same where parts of them meet, so that no comparison there shows it.
    let old = version(0);
    let mut new = old.clone();
    new[..200_000].fill(7);
    new[600_000..700_000].fill(7);
    let contents = [Content::bytes(old.clone()), Content::bytes(new.clone())];
    let is_new = Arc::new(AtomicBool::new(false));
    let served = Arc::clone(&is_new);
    let origin = Origin::start(move |request| {
        let is_new = served.load(Ordering::SeqCst);
        Answer::file(request, &contents[usize::from(is_new)])
            .without_header("ETag")
            .header("Last-Modified", &date(1_577_836_800))
            // The first response comes within the second.
            .header("Date", &date(1_577_836_800 + if is_new { 90_000 } else { 0 }))
    });
    let place = Place::new();
    {
        let config = config(&place.open()).read_ahead(ReadAhead::Bytes(1));
        let mut stream = downloader().open_with(&origin.url("/a"), config).unwrap();
        stream.read_exact(&mut vec![0; 300_000]).unwrap();
    }
    is_new.store(true, Ordering::SeqCst);
    let mut stream = downloader().open_with(&origin.url("/a"), config(&place.open())).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).map_err(Error::from) {
        Ok(_) => assert!(bytes == new || bytes == old, "bytes of two versions"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Changed),
    }
}
