//! The persistent cache, through whole streams and a scripted origin.
#![cfg(feature = "cache")]

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use support::content::{assert_pattern, read_all};
use support::steps::{run, steps, temp_file};
use support::{Answer, Content, Origin, Request, poll_until};
use windway::cache::{Cache, CacheConfig, CacheEntry, CacheKey, CacheUse, SIGNING_FIELDS};
use windway::config::{Hook, ReadAhead, RequestHook, RequestKind, StorageConfig};
use windway::event::Event;
use windway::stream::{Pending, Phase, TryRead};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Media, OpenConfig, Stream};

const LEN: u64 = 900_001;

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

/// A directory, and what is opened there.
struct Place {
    directory: tempfile::TempDir,
    config: CacheConfig,
}

impl Place {
    fn new(config: CacheConfig) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), config: config.keep_free(0) }
    }

    /// As another process opens it.
    fn open(&self) -> Cache {
        Cache::open(self.directory.path(), self.config.clone()).unwrap()
    }

    fn entries(&self) -> Vec<CacheEntry> {
        self.open().entries().unwrap()
    }

    /// The files of all entries.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.directory.path().join("windway-cache-1")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path),
                }
            }
        }
        files.retain(|file| file.file_name().unwrap().len() == 49);
        files
    }
}

fn place() -> Place {
    Place::new(CacheConfig::new())
}

fn config(cache: &Cache) -> FileConfig {
    FileConfig::new().read_ahead(ReadAhead::Whole).cache(cache.clone())
}

/// Reads all of it, as a new process with a connection of its own does.
fn play(url: &str, cache: &Cache) -> Result<u64, Error> {
    play_with(&downloader(), url, config(cache))
}

fn play_with(downloader: &Downloader, url: &str, config: FileConfig) -> Result<u64, Error> {
    let mut stream = downloader.open_with(url, config)?;
    read_all(&mut stream)
}

fn fresh(request: &Request, content: &Content) -> Answer {
    Answer::file(request, content)
        .header("Cache-Control", "max-age=3600")
        .header("Content-Type", "audio/flac")
}

fn serving(answer: impl Fn(&Request, &Content) -> Answer + Send + Sync + 'static) -> Origin {
    let content = Content::pattern(LEN);
    Origin::start(move |request| answer(request, &content))
}

/// A server whose answers depend on the returned flag, which is false at first.
fn switched(
    answer: impl Fn(bool, &Request, &Content) -> Answer + Send + Sync + 'static,
) -> (Origin, Arc<AtomicBool>) {
    let flag = Arc::new(AtomicBool::new(false));
    let read = Arc::clone(&flag);
    (serving(move |request, content| answer(read.load(Ordering::SeqCst), request, content)), flag)
}

/// Stores the file's first 300,000 bytes, and little more.
fn read_start(url: &str, place: &Place) {
    let config = config(&place.open()).read_ahead(ReadAhead::Bytes(1));
    let mut stream = downloader().open_with(url, config).unwrap();
    stream.read_exact(&mut [0; 300_000]).unwrap();
}

fn requests(origin: &Origin) -> usize {
    origin.log().requests.len()
}

#[test]
fn what_was_played_is_played_again_without_a_request_and_without_a_network() {
    let (place, origin) = (place(), serving(fresh));
    let url = origin.url("/a.flac");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    let before = requests(&origin);
    origin.stop_listening();
    let downloader = downloader();
    let mut stream = downloader.open_with(&url, config(&place.open())).unwrap();
    assert_eq!(stream.handle().phase(), Phase::Complete);
    assert_eq!(stream.len(), Some(LEN));
    assert_eq!(stream.handle().media_info().extension(), Some("flac"));
    assert_eq!(read_all(&mut stream).unwrap(), LEN);
    assert_eq!((requests(&origin), downloader.stats().requests), (before, 0));
}

#[test]
fn what_was_played_is_opened_as_media_of_any_kind_without_a_network() {
    let (place, origin) = (place(), serving(fresh));
    let url = origin.url("/a.flac");
    let open = || downloader().open_any_with(&url, OpenConfig::new().file(config(&place.open())));
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    let before = requests(&origin);
    origin.stop_listening();
    let mut opened = vec![open().unwrap()];
    #[cfg(feature = "queue")]
    {
        let list = windway::queue::Playlist::parse(url.as_bytes(), &origin.url("/list"), Default::default());
        let config = OpenConfig::new().file(config(&place.open()));
        opened.push(downloader().open_track(&list.unwrap().tracks()[0], config).unwrap());
    }
    for media in opened {
        let Media::File(mut stream) = media else { panic!("not a file") };
        assert_eq!(stream.handle().phase(), Phase::Complete);
        assert_eq!(read_all(&mut stream).unwrap(), LEN);
    }
    assert_eq!(requests(&origin), before);
}

#[test]
fn only_what_is_missing_is_fetched() {
    let (place, origin) = (place(), serving(fresh));
    let url = origin.url("/a");
    read_start(&url, &place);
    let stored = place.entries()[0].stored;
    assert!((262_144..LEN).contains(&stored), "{stored} bytes are stored");
    let sent = || {
        origin.log().requests.iter().filter_map(Request::range).map(|(first, _)| first).collect::<Vec<_>>()
    };
    let before = sent().len();
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    assert!(sent()[before..].iter().all(|first| *first >= 262_144), "{:?}", sent());
    assert_eq!(place.entries()[0].stored, LEN);
}

#[test]
fn a_stale_entry_plays_at_once_and_is_confirmed_meanwhile() {
    let place = place();
    let (origin, is_held) = switched(|is_held, request, content| {
        let answer = Answer::file(request, content);
        if is_held { answer.latency_until_released() } else { answer }
    });
    let url = origin.url("/a");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    let before = requests(&origin);
    is_held.store(true, Ordering::SeqCst);
    let downloader = downloader();
    let mut stream = downloader.open_with(&url, config(&place.open())).unwrap();
    // The server has not said anything.
    assert_eq!(read_all(&mut stream).unwrap(), LEN);
    origin.wait_until("the request that confirms", |log| log.requests.len() > before);
    assert_eq!(origin.log().requests[before].range(), Some((LEN - 64, Some(LEN - 1))));
    origin.release();
    drop(stream);
    drop(downloader);
    // Offline it plays as well.
    origin.stop_listening();
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
}

#[test]
fn what_one_stream_stores_another_one_that_was_open_before_reads() {
    let place = place();
    let origin = serving(fresh);
    let (url, cache, downloader) = (origin.url("/a"), place.open(), downloader());
    let little = || config(&cache).read_ahead(ReadAhead::Bytes(1));
    let mut early = downloader.open_with(&url, little()).unwrap();
    early.read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(play(&url, &cache).unwrap(), LEN);
    let before = requests(&origin);
    early.rewind().unwrap();
    assert_eq!(read_all(&mut early).unwrap(), LEN);
    assert_eq!(requests(&origin), before);
}

#[test]
fn a_changed_file_ends_the_stream_and_the_next_one_plays_the_new_version() {
    for control in ["", "max-age=3600"] {
        let place = place();
        let (origin, is_new) = switched(move |is_new, request, content| {
            let tag = if is_new { "\"2\"" } else { "\"1\"" };
            Answer::file(request, content).header("ETag", tag).header("Cache-Control", control)
        });
        let url = origin.url("/a");
        read_start(&url, &place);
        is_new.store(true, Ordering::SeqCst);
        let error = play(&url, &place.open()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert!(place.entries().is_empty());
        assert_eq!(play(&url, &place.open()).unwrap(), LEN);
        assert_eq!(place.entries()[0].stored, LEN);
    }
}

#[test]
fn a_stale_file_that_is_whole_and_has_changed_serves_no_byte_after_the_answer() {
    let place = place();
    let (origin, is_new) = switched(|is_new, request, content| {
        let answer = Answer::file(request, content);
        let tagged = |tag| answer.header("ETag", tag);
        if is_new { tagged("\"2\"").latency_until_released() } else { tagged("\"1\"") }
    });
    let url = origin.url("/a");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    is_new.store(true, Ordering::SeqCst);
    let mut stream = downloader().open_with(&url, config(&place.open())).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    origin.release();
    poll_until("failure", || stream.handle().phase() == Phase::Failed);
    assert_eq!(Error::from(stream.read(&mut [0; 1000]).unwrap_err()).kind(), ErrorKind::Changed);
}

/// Plays an entry that was stored with a tag and a date. By now the server has other bytes, if `is_other`, and answers as
/// `answer` makes it. Returns the entries that are left.
fn entries_after(is_other: bool, answer: fn(Answer) -> Answer) -> usize {
    let place = place();
    let other = Content::bytes(vec![7; LEN as usize]);
    let (origin, is_new) = switched(move |is_new, request, content| {
        let date = "Sat, 21 Nov 2020 10:00:00 GMT";
        let dated =
            |content| Answer::file(request, content).header("ETag", "\"1\"").header("Last-Modified", date);
        match is_new {
            true => answer(dated(if is_other { &other } else { content })),
            false => dated(content),
        }
    });
    let url = origin.url("/a");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    is_new.store(true, Ordering::SeqCst);
    let downloader = downloader();
    let stream = downloader.open_with(&url, config(&place.open())).unwrap();
    poll_until("answer", || stream.handle().stats().requests == 1);
    poll_until("end", || downloader.stats().busy_workers == 0);
    // Waits for the sink of the answer.
    downloader.stop();
    place.entries().len()
}

#[test]
fn an_entry_whose_version_the_server_does_not_name_any_more_is_compared_with_its_bytes() {
    let unnamed: [fn(Answer) -> Answer; 2] = [
        |answer| answer.without_header("ETag"),
        |answer| answer.without_header("ETag").without_header("Last-Modified"),
    ];
    for answer in unnamed {
        assert_eq!((entries_after(false, answer), entries_after(true, answer)), (1, 0));
    }
}

#[test]
fn what_must_not_be_stored_is_not() {
    type Case = (&'static str, fn(&Request, &Content) -> Answer, &'static [(&'static str, &'static str)]);
    let cases: [Case; 6] = [
        ("no-store", |request, content| fresh(request, content).header("Cache-Control", "no-store"), &[]),
        ("authorised", fresh, &[("Authorization", "Bearer secret")]),
        ("no validator", |request, content| fresh(request, content).without_header("ETag"), &[]),
        ("weak tag", |request, content| fresh(request, content).header("ETag", "W/\"1\""), &[]),
        ("Vary: *", |request, content| fresh(request, content).header("Vary", "*"), &[]),
        ("varies", |request, content| fresh(request, content).header("Vary", "X-Me"), &[("X-Me", "5")]),
    ];
    for (what, answer, headers) in cases {
        let (place, origin) = (place(), serving(answer));
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let config = config(&place.open()).headers(headers);
        assert_eq!(play_with(&downloader(), &origin.url("/a"), config).unwrap(), LEN, "{what}");
        assert!(place.files().is_empty(), "{what}");
    }
    // Credentials in the URL are credentials, too.
    let (place, origin) = (place(), serving(fresh));
    let url = origin.url("/a").replace("http://", "http://me:secret@");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    assert!(place.files().is_empty());
    let place = Place::new(CacheConfig::new().keep_authorized(true));
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    assert_eq!(place.files().len(), 1);
}

/// Gives each request this header field.
struct Giving(&'static str);

impl RequestHook for Giving {
    fn headers(&self, _: RequestKind, _: &str) -> Vec<(String, String)> {
        vec![(self.0.into(), "5".into())]
    }
}

#[test]
fn a_hook_prevents_storing_by_what_it_sends_only() {
    type Case = (fn(&Request, &Content) -> Answer, &'static str, bool);
    let cases: [Case; 4] = [
        (fresh, "X-Me", true),
        (fresh, "Authorization", false),
        (|request, content| fresh(request, content).header("Vary", "X-Me"), "X-Me", false),
        (|request, content| fresh(request, content).header("Vary", "X-You"), "X-Me", true),
    ];
    for (answer, name, is_stored) in cases {
        let (place, origin) = (place(), serving(answer));
        let config = config(&place.open()).hook(Hook::new(Giving(name)));
        assert_eq!(play_with(&downloader(), &origin.url("/a"), config).unwrap(), LEN);
        assert_eq!(!place.files().is_empty(), is_stored, "{name}");
    }
}

#[test]
fn what_has_to_be_confirmed_is_not_played_before() {
    let (place, origin) =
        (place(), serving(|request, content| fresh(request, content).header("Cache-Control", "no-cache")));
    let url = origin.url("/a");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    let before = requests(&origin);
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    // The opening says that it is the same; the rest is there.
    assert!(requests(&origin) > before && place.entries()[0].stored == LEN);
    let downloader = Downloader::new(DownloaderConfig::new().max_retries(0)).unwrap();
    origin.stop_listening();
    assert!(downloader.open_with(&url, config(&place.open())).is_err());
    // As one that was not confirmed for too long.
    let place = Place::new(CacheConfig::new().max_age(Duration::ZERO));
    origin.listen_again();
    let url = origin.url("/b");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
}

#[test]
fn a_cache_without_room_is_an_event_and_the_stream_goes_on() {
    for storage in [StorageConfig::Memory, StorageConfig::TempFile(None)] {
        // The last one has to leave more free than any disk has.
        for (max_bytes, keep_free) in [(1, 0), (300_000, 0), (1 << 30, 1 << 59)] {
            let mut place = Place::new(CacheConfig::new().max_bytes(max_bytes));
            place.config.keep_free = keep_free;
            let origin = serving(fresh);
            let (downloader, cache) = (downloader(), place.open());
            let events = downloader.subscribe();
            let config = config(&cache).storage(storage.clone());
            assert_eq!(play_with(&downloader, &origin.url("/a"), config).unwrap(), LEN);
            drop(downloader);
            let off: Vec<Event> =
                events.into_iter().filter(|event| matches!(event, Event::CacheOff { .. })).collect();
            let [Event::CacheOff { error }] = &off[..] else { panic!("{off:?}") };
            assert_eq!(error.kind(), ErrorKind::Storage);
            let (size, entries) = (cache.size(), cache.entries());
            assert!(size <= max_bytes + max_bytes / 16, "{size} bytes: {entries:?}");
        }
    }
}

#[test]
fn damaged_entries_are_fetched_again() {
    let (place, origin) = (place(), serving(fresh));
    let url = origin.url("/a");
    let play = || assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    play();
    let file = place.files().pop().unwrap();
    let whole = fs::read(&file).unwrap();
    for at in [3, 100, 4000, 4096 + 5, 4096 + 40, 8192, 8192 + 262_144, 8192 + 700_000] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, damaged).unwrap();
        play();
        assert!(fs::read(place.files().pop().unwrap()).unwrap()[8192..] == whole[8192..], "{at}");
    }
    for len in [0, 10, 4096, 5000, 10_000, 400_000] {
        fs::write(&file, &whole[..len]).unwrap();
        play();
    }
    fs::write(&file, vec![0xFF; whole.len()]).unwrap();
    play();
    fs::remove_file(&file).unwrap();
    play();
}

#[test]
fn nothing_that_identifies_the_media_is_written_down() {
    let (place, origin) = (place(), serving(fresh));
    let url = format!("{}?token=hush-hush", origin.url("/secret-name.flac"));
    let headers = [("X-Key".to_owned(), "my-header-value".to_owned())];
    let config = config(&place.open()).headers(headers);
    assert_eq!(play_with(&downloader(), &url, config).unwrap(), LEN);
    let file = place.files().pop().unwrap();
    // Bodies are stored as they are.
    let written = String::from_utf8_lossy(&fs::read(&file).unwrap()[..8192]).into_owned();
    let all = format!("{written}{}", file.display());
    let host = origin.address().to_string();
    for secret in ["secret-name", "token", "hush", "my-header", "X-Key", "http", &host, "127.0.0.1"] {
        assert!(!all.contains(secret), "{secret} is in the cache");
    }
    assert!(!format!("{:?}", place.open()).contains("hush"));
}

#[test]
fn urls_that_differ_in_their_signature_share_an_entry_if_they_are_told_to() {
    let signing = SIGNING_FIELDS.map(String::from);
    let (place, origin) = (Place::new(CacheConfig::new().ignore_query(signing)), serving(fresh));
    let url = |signature: u32| format!("{}?id=5&Signature={signature}", origin.url("/a"));
    assert_eq!(play(&url(1), &place.open()).unwrap(), LEN);
    let before = requests(&origin);
    assert_eq!(play(&url(2), &place.open()).unwrap(), LEN);
    assert_eq!((requests(&origin), place.files().len()), (before, 1));
    let named = || CacheUse::of(&place.open()).key(CacheKey::named("episode 17")).label("Episode 17");
    let config = || FileConfig::new().read_ahead(ReadAhead::Whole).cache(named());
    assert_eq!(play_with(&downloader(), &origin.url("/x"), config()).unwrap(), LEN);
    let before = requests(&origin);
    assert_eq!(play_with(&downloader(), &origin.url("/y"), config()).unwrap(), LEN);
    assert_eq!(requests(&origin), before);
    assert!(place.entries().iter().any(|entry| entry.label == "Episode 17"));
}

#[test]
fn entries_are_listed_pinned_evicted_and_removed() {
    let place = Place::new(CacheConfig::new().max_bytes(3 * LEN));
    let origin = serving(fresh);
    let cache = place.open();
    let url = |name: &str| origin.url(&format!("/{name}"));
    assert_eq!(play(&url("pinned"), &cache).unwrap(), LEN);
    let pinned = cache.key_of(&url("pinned"));
    cache.pin(&pinned).unwrap();
    for name in ["b", "c", "d", "e"] {
        assert_eq!(play(&url(name), &cache).unwrap(), LEN);
    }
    assert!(cache.size() <= 3 * LEN, "{} bytes", cache.size());
    let entries = cache.entries().unwrap();
    let has = |name: &str| entries.iter().any(|entry| entry.key == cache.key_of(&url(name)));
    assert!(has("pinned") && has("e") && !has("b"), "{entries:?}");
    let entry = entries.iter().find(|entry| entry.key == pinned).unwrap();
    assert!(entry.is_pinned && entry.len == LEN && entry.stored == LEN && entry.on_disk >= LEN);
    assert_eq!(entry.media_type, "audio/flac");
    cache.unpin(&pinned).unwrap();
    cache.remove(&pinned).unwrap();
    assert!(cache.entries().unwrap().iter().all(|entry| entry.key != pinned));
    // One of them is played meanwhile.
    let mut stream = downloader().open_with(&url("e"), config(&cache)).unwrap();
    cache.clear().unwrap();
    assert!(place.files().is_empty());
    assert_eq!(read_all(&mut stream).unwrap(), LEN);
}

#[test]
fn a_server_without_ranges_fills_the_cache_too() {
    let (place, origin) = (
        place(),
        serving(|_, content| {
            Answer::whole(content).header("ETag", "\"1\"").header("Cache-Control", "max-age=3600")
        }),
    );
    let url = origin.url("/a");
    {
        let mut stream = downloader().open_with(&url, FileConfig::new().cache(place.open())).unwrap();
        stream.read_exact(&mut [0; 200_000]).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    }
    let before = requests(&origin);
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    assert_eq!(requests(&origin), before);
}

#[test]
fn a_server_that_calls_two_versions_by_one_name_is_found_out_by_its_bytes() {
    let place = place();
    let (origin, is_new) = switched(|is_new, _, content| {
        let old = Content::bytes(vec![0; LEN as usize]);
        let answer = if is_new { Answer::whole(content) } else { Answer::whole(&old).stall_after(LEN / 2) };
        answer.header("ETag", "\"1\"")
    });
    let url = origin.url("/a");
    {
        let mut stream = downloader().open_with(&url, FileConfig::new().cache(place.open())).unwrap();
        stream.read_exact(&mut [0; 300_000]).unwrap();
    }
    is_new.store(true, Ordering::SeqCst);
    // The server has no ranges, so all of it comes once more, and is held against what is stored.
    let mut stream = downloader().open_with(&url, config(&place.open())).unwrap();
    let ended = std::io::copy(&mut stream, &mut std::io::sink()).map_err(Error::from);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Changed);
    drop(stream);
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
}

#[test]
fn a_login_page_does_not_get_into_the_entry_of_the_file() {
    let place = place();
    let has_shown = Mutex::new(false);
    let origin = serving(move |request, content| {
        if !std::mem::replace(&mut *has_shown.lock().unwrap(), true) {
            let page = Content::bytes(
                &b"<!doctype html><html><body>Log in, please, and pay for the Wi-Fi.</body></html>"[..],
            );
            return Answer::whole(&page).header("ETag", "\"page\"");
        }
        fresh(request, content)
    });
    let url = origin.url("/a");
    let mut stream = downloader().open_later(&url, config(&place.open())).unwrap();
    while read_all_or_again(&mut stream) {}
    drop(stream);
    origin.stop_listening();
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
}

#[test]
fn a_login_page_does_not_take_the_place_of_a_stored_file() {
    let place = place();
    let (origin, is_portal) = switched(|is_portal, request, content| {
        if is_portal {
            let page = Content::bytes(
                &b"<!doctype html><html><body>Log in, please, and pay for it.</body></html>"[..],
            );
            return Answer::whole(&page).header("ETag", "\"page\"");
        }
        fresh(request, content).header("Cache-Control", "no-cache")
    });
    let url = origin.url("/a");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    is_portal.store(true, Ordering::SeqCst);
    assert_eq!(play(&url, &place.open()).unwrap_err().kind(), ErrorKind::NotMedia);
    assert!(place.entries().iter().any(|entry| entry.stored == LEN));
    is_portal.store(false, Ordering::SeqCst);
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    assert_eq!((place.files().len(), place.entries()[0].stored), (1, LEN));
}

/// False once all was read. True if it was no media.
fn read_all_or_again(stream: &mut Stream) -> bool {
    match read_all(stream) {
        Ok(len) => len != LEN,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotMedia, "{error}");
            true
        }
    }
}

#[test]
fn what_the_cache_keeps_has_no_window() {
    let (place, len) = (place(), 20 << 20);
    let content = Content::pattern(len);
    let origin = Origin::start(move |request| fresh(request, &content));
    // In memory it would be 16 MiB ahead and 1 MiB behind the reader.
    let stream = downloader().open_with(&origin.url("/a"), config(&place.open())).unwrap();
    stream.handle().wait_range(0..len, None).unwrap();
    assert!(stream.handle().buffered() == std::slice::from_ref(&(0..len)));
    drop(stream);
    assert_eq!(place.entries()[0].stored, len);
    // Without room the window is there again.
    let place = Place::new(CacheConfig::new().max_bytes(4 << 20));
    let config = config(&place.open()).read_ahead(ReadAhead::Bytes(1 << 20)).behind(1 << 20);
    let mut stream = downloader().open_with(&origin.url("/b"), config).unwrap();
    assert_eq!(read_all(&mut stream).unwrap(), len);
    let held: u64 = stream.handle().buffered().iter().map(|range| range.end - range.start).sum();
    // In the cache 4 MiB, in the window 1 MiB, and up to 8 MiB that waited for the disk when the cache was full.
    assert!(held < 15 << 20, "{held} bytes are held");
}

#[test]
fn a_cached_file_is_read_without_waiting_for_the_disk() {
    let (place, origin) = (place(), serving(fresh));
    let url = origin.url("/a");
    assert_eq!(play(&url, &place.open()).unwrap(), LEN);
    origin.stop_listening();
    let mut stream = downloader().open_with(&url, config(&place.open())).unwrap();
    let (mut buf, mut offset) = (vec![0; 10_000], 0);
    poll_until("end of the file", || match stream.try_read(&mut buf).unwrap() {
        TryRead::Bytes(got) => {
            assert_pattern(offset, &buf[..got]);
            offset += got as u64;
            false
        }
        TryRead::End => true,
        TryRead::Pending(pending) => {
            assert_eq!(pending, Pending::OnDisk);
            false
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(offset, LEN);
}

#[test]
fn streams_of_one_process_share_an_entry() {
    let (place, origin) = (place(), serving(fresh));
    let (cache, downloader) = (place.open(), downloader());
    let url = origin.url("/a");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(play_with(&downloader, &url, config(&cache)).unwrap(), LEN));
        }
    });
    assert_eq!((place.files().len(), place.entries()[0].stored), (1, LEN));
}

#[test]
fn a_cached_stream_is_as_a_file() {
    let (place, origin) = (place(), serving(Answer::file));
    let downloader = downloader();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let count = AtomicUsize::new(0);
    let result = runner.run(&steps(LEN as i64), |steps| {
        let cache = place.open();
        let mut config = config(&cache);
        match count.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => cache.clear().unwrap(),
            1 => (config.behind, config.read_ahead) = (20_000, ReadAhead::Bytes(150_000)),
            2 => config.storage = StorageConfig::TempFile(None),
            _ => {}
        }
        let mut file = temp_file(LEN);
        let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
        for step in &steps {
            let (expected, found) = (run(&mut file, step), run(&mut stream, step));
            prop_assert!(expected == found, "after {step:?}: {:?} instead of {:?}", found.0, expected.0);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn a_directory_that_can_not_be_used_is_an_error_of_the_call() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let open = |path: &Path, config| Cache::open(path, config).map(drop).map_err(|error| error.kind());
    assert_eq!(open(&file, CacheConfig::new()), Err(ErrorKind::Storage));
    assert_eq!(open(directory.path(), CacheConfig::new().max_bytes(0)), Err(ErrorKind::InvalidConfig));
}
