//! Presentations of HLS in the persistent cache: what is stored is not requested again, plays without the network, and is never
//! mixed up with another version.
#![cfg(all(feature = "cache", feature = "hls", unix))]

#[path = "support/presentation.rs"]
mod presentation;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use presentation::{FRAMES, Site, downloader, extinf, mp4, packed, play, site, vod};
use support::mux;
use support::{Answer, Origin, Request};
use tempfile::TempDir;
use windway::cache::{Cache, CacheConfig, CacheUse};
use windway::event::Event;
use windway::hls::{Hls, HlsConfig, Quality, Section};
use windway::{Error, ErrorKind, Media, OpenConfig};

const SEGMENTS: u64 = 5;

fn cache(directory: &TempDir) -> Cache {
    Cache::open(directory.path(), CacheConfig::new().keep_free(0)).unwrap()
}

fn config(directory: &TempDir) -> HlsConfig {
    let mut config = HlsConfig::default();
    config.read_timeout = Some(support::PATIENCE);
    config.cache = Some(CacheUse::of(&cache(directory)));
    config
}

/// Opens a presentation as a new program does.
/// Plays each of three levels, which stores what may be stored of it.
fn play_each_level(origin: &Origin, directory: &TempDir) {
    for level in 0..3 {
        let mut config = config(directory);
        config.quality = Quality::Fixed(level);
        let mut hls = downloader().open_hls(&origin.url("/all.m3u8"), config).unwrap();
        assert_eq!(frames(&mut hls), all_frames());
    }
}

fn open(origin: &Origin, path: &str, directory: &TempDir) -> Result<Hls, Error> {
    downloader().open_hls(&origin.url(path), config(directory))
}

/// The numbers of all frames.
fn frames(hls: &mut Hls) -> Vec<u64> {
    play(hls).into_iter().flat_map(|(_, numbers)| numbers).collect()
}

fn all_frames() -> Vec<u64> {
    (0..SEGMENTS * FRAMES).collect()
}

/// Serves `site`; its responses are fresh for an hour, or not at all.
fn serve(site: Site, is_fresh: bool) -> Origin {
    let control = if is_fresh { "max-age=3600" } else { "max-age=0" };
    Origin::start(move |request| site.answer(request).header("Cache-Control", control))
}

fn paths(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.path.as_str()).collect()
}

/// The files of all entries.
fn entry_files(directory: &Path) -> Vec<PathBuf> {
    let children =
        |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let folders = children(&directory.join("windway-cache-1"));
    let folders = folders.iter().filter(|path| path.is_dir() && path.file_name().unwrap().len() == 2);
    folders.flat_map(|folder| children(folder)).collect()
}

/// The warnings of the process.
struct Warnings(Mutex<Vec<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("windway")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_cache_that_cannot_be_used_is_one_event_and_one_line_of_the_log() {
    log::set_logger(&WARNINGS).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let no_room =
        |directory: &TempDir| Cache::open(directory.path(), CacheConfig::new().keep_free(1 << 59)).unwrap();
    let no_folders = |directory: &TempDir| {
        let cache = cache(directory);
        for number in 0..256 {
            fs::write(directory.path().join(format!("windway-cache-1/{number:02x}")), "in the way").unwrap();
        }
        cache
    };
    let opens: [&dyn Fn(&TempDir) -> Cache; 2] = [&no_room, &no_folders];
    for open in opens {
        let directory = tempfile::tempdir().unwrap();
        let origin = serve(site(SEGMENTS), true);
        let downloader = downloader();
        let events = downloader.subscribe();
        let mut config = HlsConfig::default();
        config.cache = Some(CacheUse::of(&open(&directory)));
        let mut hls = downloader.open_hls(&origin.url("/mp4.m3u8"), config).unwrap();
        assert_eq!(frames(&mut hls), all_frames());
        drop((hls, downloader));
        let off: Vec<Event> =
            events.into_iter().filter(|event| matches!(event, Event::CacheOff { .. })).collect();
        let [Event::CacheOff { error }] = &off[..] else { panic!("{off:?}") };
        assert_eq!(error.kind(), ErrorKind::Storage);
        let host = origin.address().to_string();
        let lines: Vec<String> =
            WARNINGS.0.lock().unwrap().iter().filter(|line| line.contains(&host)).cloned().collect();
        assert!(matches!(&lines[..], [line] if line.contains("not cached")), "{lines:?}");
    }
}

#[test]
fn what_was_played_once_plays_again_without_a_request() {
    for path in ["/aac.m3u8", "/ts.m3u8", "/mp4.m3u8", "/ranges.m3u8"] {
        let directory = tempfile::tempdir().unwrap();
        let origin = serve(site(SEGMENTS), true);
        assert_eq!(frames(&mut open(&origin, path, &directory).unwrap()), all_frames(), "{path}");
        let requests = origin.log().requests.len();
        origin.stop_listening();
        assert_eq!(frames(&mut open(&origin, path, &directory).unwrap()), all_frames(), "{path}");
        assert_eq!(origin.log().requests.len(), requests, "{path}");
    }
}

#[test]
fn what_was_played_once_is_opened_as_media_of_any_kind_without_a_network() {
    let directory = TempDir::new().unwrap();
    let origin = serve(site(SEGMENTS), true);
    assert_eq!(frames(&mut open(&origin, "/aac.m3u8", &directory).unwrap()), all_frames());
    origin.stop_listening();
    let config = OpenConfig::new().hls(config(&directory));
    let Media::Hls(mut hls) = downloader().open_any_with(&origin.url("/aac.m3u8"), config).unwrap() else {
        panic!("not HLS")
    };
    assert_eq!(frames(&mut hls), all_frames());
}

#[test]
fn a_stale_presentation_plays_while_its_playlist_is_requested() {
    let directory = tempfile::tempdir().unwrap();
    let site = site(SEGMENTS);
    let origin = Origin::start(move |request| {
        let answer = site.answer(request);
        // Never answered.
        if request.path == "/mp4.m3u8" && request.again > 0 { answer.stall_in_head(0) } else { answer }
    });
    assert_eq!(frames(&mut open(&origin, "/mp4.m3u8", &directory).unwrap()), all_frames());
    let requests = origin.log().requests.len();
    assert_eq!(frames(&mut open(&origin, "/mp4.m3u8", &directory).unwrap()), all_frames());
    assert!(paths(&origin.log().requests[requests..]).iter().all(|path| *path == "/mp4.m3u8"));
}

/// As on a network that shows its login page.
#[test]
fn a_page_in_place_of_a_playlist_confirms_nothing_and_changes_nothing() {
    let lines = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\naac.m3u8\n";
    for path in ["/aac.m3u8", "/all.m3u8"] {
        let directory = tempfile::tempdir().unwrap();
        let site = site(SEGMENTS).with("/all.m3u8", lines);
        let is_captive = Arc::new(AtomicBool::new(false));
        let shows_page = Arc::clone(&is_captive);
        let origin = Origin::start(move |request| {
            if shows_page.load(Ordering::Relaxed) {
                let page = "<!DOCTYPE html><html><title>Log in</title></html>";
                let site = Site::default().with(&request.path, page);
                return site.answer(request).header("Content-Type", "text/html");
            }
            site.answer(request)
        });
        assert_eq!(frames(&mut open(&origin, path, &directory).unwrap()), all_frames(), "{path}");
        is_captive.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let requests = origin.log().requests.len();
            let mut hls = open(&origin, path, &directory).unwrap();
            origin.wait_until("the page", |log| log.requests.len() > requests);
            for _ in 0..3 {
                assert_eq!(frames(&mut hls), all_frames(), "{path}");
                hls.seek(Duration::ZERO).unwrap();
            }
        }
        is_captive.store(false, Ordering::Relaxed);
        assert_eq!(frames(&mut open(&origin, path, &directory).unwrap()), all_frames(), "{path}");
    }
}

/// Each playlist names its resources with a token of its own, and nothing is served without one.
fn signed() -> Origin {
    Origin::start(|request| {
        let given =
            request.path.split_once("?token=").map(|(_, token)| token).filter(|token| !token.is_empty());
        let path = request.path.split('?').next().unwrap();
        let token = format!("secret{}", request.number);
        let segments: String =
            (0..SEGMENTS).map(|index| extinf(&format!("{index}.aac?token={token}"))).collect();
        let list = match (path, given) {
            ("/list.m3u8", _) | ("/inner.m3u8", Some(_)) => vod(&segments),
            ("/all.m3u8", _) => format!(
                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\ninner.m3u8?token={token}\n"
            ),
            (_, Some(_)) => return site(SEGMENTS).answer(request),
            (_, None) => return Answer::status(403),
        };
        let answer = Site::default().with(path, list).answer(request);
        answer.header("ETag", &format!("\"{}\"", request.number))
    })
}

/// Segments are larger than playlists and initialization sections.
fn remove_a_segment(directory: &TempDir) {
    let files = entry_files(directory.path()).into_iter();
    let largest = files.max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    fs::remove_file(largest).unwrap();
}

fn assert_shows_nothing(directory: &TempDir, secrets: [&str; 2]) {
    for file in entry_files(directory.path()) {
        let bytes = fs::read(&file).unwrap();
        for secret in secrets {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }
}

#[test]
fn what_is_missing_is_requested_with_the_urls_of_fresh_playlists() {
    for path in ["/list.m3u8", "/all.m3u8"] {
        let directory = tempfile::tempdir().unwrap();
        let origin = signed();
        assert_eq!(frames(&mut open(&origin, path, &directory).unwrap()), all_frames(), "{path}");
        assert_shows_nothing(&directory, ["secret", "127.0.0.1"]);
        remove_a_segment(&directory);
        let before = origin.log().requests.len();
        assert_eq!(frames(&mut open(&origin, path, &directory).unwrap()), all_frames(), "{path}");
        let requests = origin.log().requests;
        let (lists, mut segments): (Vec<&str>, Vec<&str>) =
            paths(&requests[before..]).into_iter().partition(|path| path.contains(".m3u8"));
        // On a busy machine an answer may take so long that the same request is hedged.
        segments.dedup();
        assert_eq!((lists[0], segments.len()), (path, 1), "{lists:?} {segments:?}");
    }
}

#[test]
fn a_changed_playlist_ends_the_presentation_and_the_new_one_plays() {
    let directory = tempfile::tempdir().unwrap();
    let (old, origin) = (site(SEGMENTS), |request: &Request| request.again);
    let new: String = (0..3).map(|index| extinf(&format!("{index}.aac"))).collect();
    let new = Site::default().with("/aac.m3u8", vod(&new)).with("/0.aac", packed(7));
    let new = new.with("/1.aac", packed(8)).with("/2.aac", packed(9));
    let origin = Origin::start(
        move |request| if origin(request) == 0 { old.answer(request) } else { new.answer(request) },
    );
    assert_eq!(frames(&mut open(&origin, "/aac.m3u8", &directory).unwrap()), all_frames());
    let mut hls = open(&origin, "/aac.m3u8", &directory).unwrap();
    let error = loop {
        // Until the playlist has come.
        match hls.next_section() {
            Ok(Some(mut section)) => match std::io::copy(&mut section, &mut std::io::sink()) {
                Ok(_) => origin.wait_until("the playlist", |log| log.requests.len() > SEGMENTS as usize + 1),
                Err(error) => break Error::from(error),
            },
            Ok(None) => drop(hls.seek(Duration::ZERO)),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Changed);
    // Not even a segment of the same name.
    let expected: Vec<u64> = (7 * FRAMES..10 * FRAMES).collect();
    assert_eq!(frames(&mut open(&origin, "/aac.m3u8", &directory).unwrap()), expected);
}

#[test]
fn a_multivariant_presentation_plays_offline() {
    let directory = tempfile::tempdir().unwrap();
    let lines = "#EXTM3U\n\
        #EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\naac.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=128000,CODECS=\"mp4a.40.2\"\nts.m3u8\n";
    let origin = serve(site(SEGMENTS).with("/all.m3u8", lines), true);
    assert_eq!(frames(&mut open(&origin, "/all.m3u8", &directory).unwrap()), all_frames());
    let requests = origin.log().requests.len();
    origin.stop_listening();
    assert_eq!(frames(&mut open(&origin, "/all.m3u8", &directory).unwrap()), all_frames());
    assert_eq!(origin.log().requests.len(), requests);
}

#[test]
fn what_is_missing_offline_is_an_error_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let origin = serve(site(SEGMENTS), true);
    assert_eq!(frames(&mut open(&origin, "/mp4.m3u8", &directory).unwrap()), all_frames());
    origin.stop_listening();
    remove_a_segment(&directory);
    let mut hls = open(&origin, "/mp4.m3u8", &directory).unwrap();
    let error = loop {
        match hls.next_section() {
            Ok(Some(mut section)) => match std::io::copy(&mut section, &mut std::io::sink()) {
                Ok(_) => {}
                Err(error) => break Error::from(error),
            },
            Ok(None) => panic!("all was played"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotCached, "{error}");
}

/// A presentation of three levels, which is fresh for an hour. Only these segments of each level may be stored, and nothing but
/// the first playlist is served without a token. While it is down it answers nothing.
fn serve_levels(may_store: [u64; 3], is_down: Arc<AtomicBool>) -> Origin {
    Origin::start(answer_levels(may_store, is_down))
}

fn answer_levels(may_store: [u64; 3], is_down: Arc<AtomicBool>) -> impl Fn(&Request) -> Answer + Send + Sync {
    let levels: String = (0..3)
        .map(|level| {
            format!(
                "#EXT-X-STREAM-INF:BANDWIDTH={}000,CODECS=\"mp4a.40.2\"\n{level}/list.m3u8?token=1\n",
                64 * (level + 1)
            )
        })
        .collect();
    let lines: String = (0..SEGMENTS).map(|index| extinf(&format!("{index}.aac?token=1"))).collect();
    let mut site = Site::default().with("/all.m3u8", format!("#EXTM3U\n{levels}"));
    for level in 0..3 {
        site = site.with(&format!("/{level}/list.m3u8"), vod(&lines));
        for index in 0..SEGMENTS {
            site = site.with(&format!("/{level}/{index}.aac"), packed(index));
        }
    }
    move |request| {
        if is_down.load(Ordering::Relaxed) {
            return Answer::status(200).close_in_head(0);
        }
        let (path, has_token) = match request.path.split_once("?token=1") {
            Some((path, _)) => (path, true),
            None => (request.path.as_str(), request.path == "/all.m3u8"),
        };
        if !has_token {
            return Answer::status(403);
        }
        let name = path.trim_start_matches('/').split_once('/');
        let segment = name.and_then(|(level, name)| {
            let index = name.strip_suffix(".aac")?.parse::<u64>().ok()?;
            Some(may_store[level.parse::<usize>().ok()?] >> index & 1)
        });
        let control = if segment == Some(0) { "no-store" } else { "max-age=3600" };
        site.answer(request).header("Cache-Control", control)
    }
}

/// Reads up to the end or an error: the frames, and the error. The section in which that comes can be read on.
fn read_until_error(hls: &mut Hls, section: &mut Option<Section>) -> (Vec<u64>, Option<Error>) {
    let mut bytes = Vec::new();
    let error = loop {
        let mut chunk = [0; 4096];
        match section.as_mut().map(|section| section.read(&mut chunk)) {
            None => match hls.next_section() {
                Ok(Some(next)) => *section = Some(next),
                Ok(None) => break None,
                Err(error) => break Some(error),
            },
            Some(Ok(0)) => *section = None,
            Some(Ok(got)) => bytes.extend_from_slice(&chunk[..got]),
            Some(Err(error)) => break Some(error.into()),
        }
    };
    (presentation::numbers(&bytes), error)
}

#[test]
fn each_segment_plays_offline_from_a_level_that_is_stored() {
    let all = (1 << SEGMENTS) - 1;
    let mut random = mux::Random(7);
    let mut subsets =
        vec![[0b00011, 0, 0b11100], [0b00001, 0b11010, 0b00100], [0, 0, all], [0b10110, 0, 0b00101]];
    subsets.extend((0..6).map(|_| [(); 3].map(|()| random.below(all as usize + 1) as u64)));
    for subset in subsets {
        let directory = tempfile::tempdir().unwrap();
        let origin = serve_levels(subset, Arc::default());
        play_each_level(&origin, &directory);
        origin.stop_listening();
        let mut hls = open(&origin, "/all.m3u8", &directory).unwrap();
        let (played, error) = read_until_error(&mut hls, &mut None);
        let stored = subset[0] | subset[1] | subset[2];
        let hole = u64::from((!stored).trailing_zeros()).min(SEGMENTS);
        assert!(
            played.iter().copied().eq(0..hole * FRAMES),
            "{} frames of {subset:?}: {error:?}",
            played.len()
        );
        assert_eq!(error.is_some(), hole < SEGMENTS, "{subset:?}: {error:?}");
        if let Some(error) = error {
            assert_eq!(error.kind(), ErrorKind::NotCached, "{error}");
            let name = format!("/{hole}.aac");
            assert!(error.url().is_some_and(|url| url.to_string().contains(&name)), "{error}: {name}");
        }
    }
}

#[test]
fn once_the_origin_answers_again_what_is_missing_is_fetched_by_fresh_urls() {
    for subset in [[0b00001, 0, 0b00010], [0, 0b10010, 0b01101], [0b00001, 0b01010, 0b00010]] {
        let (directory, is_down) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
        let origin = serve_levels(subset, Arc::clone(&is_down));
        play_each_level(&origin, &directory);
        is_down.store(true, Ordering::Relaxed);
        let mut hls = open(&origin, "/all.m3u8", &directory).unwrap();
        let mut section = None;
        let (mut played, error) = read_until_error(&mut hls, &mut section);
        let stored = subset[0] | subset[1] | subset[2];
        assert!(error.is_none_or(|error| error.kind() == ErrorKind::NotCached));
        assert_eq!(played.len() as u64, u64::from((!stored).trailing_zeros()).min(SEGMENTS) * FRAMES);
        is_down.store(false, Ordering::Relaxed);
        let (rest, error) = read_until_error(&mut hls, &mut section);
        played.extend(rest);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(played, all_frames());
        let refused =
            origin.log().requests.into_iter().filter(|request| !request.path.contains("token")).count();
        let asked = origin.log().requests.into_iter().filter(|request| request.path == "/all.m3u8").count();
        assert_eq!(refused, asked, "no other URL was requested without its token");
    }
}

#[test]
fn a_level_that_was_played_from_the_cache_is_never_mixed_with_another_version() {
    // The last segment is stored at no level. One of those that were played has changed, or is gone, the last one of them too.
    for (level, status) in [(0, 200), (1, 200), (0, 404), (1, 404), (2, 404)] {
        let (directory, is_down) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
        let is_changed = Arc::new(AtomicBool::new(false));
        let answer = answer_levels([0b00011, 0b01100, 0], Arc::clone(&is_down));
        let has_changed = Arc::clone(&is_changed);
        let origin = Origin::start(move |request| {
            let path = format!("/{level}/list.m3u8");
            if !has_changed.load(Ordering::Relaxed) || request.path != format!("{path}?token=1") {
                return answer(request);
            }
            let lines: String = (0..=SEGMENTS).map(|index| extinf(&format!("{index}.aac?token=1"))).collect();
            if status == 404 {
                Answer::status(404)
            } else {
                Site::default().with(&path, vod(&lines)).answer(request)
            }
        });
        play_each_level(&origin, &directory);
        is_down.store(true, Ordering::Relaxed);
        let mut hls = open(&origin, "/all.m3u8", &directory).unwrap();
        let mut section = None;
        let (mut played, error) = read_until_error(&mut hls, &mut section);
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::NotCached));
        assert_eq!(played.len() as u64, 4 * FRAMES);
        is_changed.store(true, Ordering::Relaxed);
        is_down.store(false, Ordering::Relaxed);
        let (rest, error) = read_until_error(&mut hls, &mut section);
        played.extend(rest);
        let kind = error.map(|error| error.kind());
        if status == 404 {
            assert_eq!((kind, played), (None, all_frames()), "level {level} is gone");
        } else {
            assert_eq!(kind, Some(ErrorKind::Changed), "level {level}: {} frames", played.len());
        }
    }
}

#[test]
fn damaged_entries_are_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let origin = serve(site(SEGMENTS), true);
    for round in 0..40_usize {
        assert_eq!(frames(&mut open(&origin, "/mp4.m3u8", &directory).unwrap()), all_frames());
        let mut files = entry_files(directory.path());
        files.sort();
        let file = &files[round % files.len()];
        let mut bytes = fs::read(file).unwrap();
        match round % 3 {
            0 => bytes.truncate(bytes.len() * 2 / 3),
            kind => {
                let len = bytes.len();
                // In the body, or anywhere.
                let at = if kind == 1 { len - 1 - round } else { round * 7919 % len };
                bytes[at] ^= 1 << (round % 8);
            }
        }
        fs::write(file, bytes).unwrap();
    }
}

#[test]
fn levels_that_differ_in_values_of_queries_only_are_not_mixed_up() {
    for lists in [["low/list.m3u8", "high/list.m3u8"], ["list.m3u8?level=low", "list.m3u8?level=high"]] {
        let directory = tempfile::tempdir().unwrap();
        let origin = Origin::start(move |request| {
            let path = request.path.split('?').next().unwrap();
            let (level, first) = if request.path.contains("high") { ("high", 100) } else { ("low", 0) };
            let [low, high] = lists;
            let bytes = match path.strip_suffix(".aac") {
                Some(index) => packed(first + index.trim_start_matches('/').parse::<u64>().unwrap()),
                None if path == "/all.m3u8" => format!(
                    "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\n{low}\n\
                     #EXT-X-STREAM-INF:BANDWIDTH=128000,CODECS=\"mp4a.40.2\"\n{high}\n"
                )
                .into(),
                None => {
                    let lines = (0..SEGMENTS).map(|index| extinf(&format!("/{index}.aac?level={level}")));
                    vod(&lines.collect::<String>()).into()
                }
            };
            // From a stored multivariant playlist a stored level would be played, whichever is asked for.
            let control = if path == "/all.m3u8" { "no-store" } else { "max-age=3600" };
            Site::default().with(path, bytes).answer(request).header("Cache-Control", control)
        });
        for (level, first) in [(0, 0), (1, 100 * FRAMES)] {
            let mut config = config(&directory);
            config.quality = Quality::Fixed(level);
            let mut hls = downloader().open_hls(&origin.url("/all.m3u8"), config).unwrap();
            let expected: Vec<u64> = (first..first + SEGMENTS * FRAMES).collect();
            assert_eq!(frames(&mut hls), expected, "{lists:?}");
        }
    }
}

#[test]
fn live_streams_are_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let lines = (0..SEGMENTS).map(|index| extinf(&format!("{index}.aac"))).collect::<String>();
    let live = format!("#EXTM3U\n#EXT-X-TARGETDURATION:3\n{lines}");
    let origin = serve(site(SEGMENTS).with("/live.m3u8", live), true);
    let mut hls = open(&origin, "/live.m3u8", &directory).unwrap();
    let mut section = hls.next_section().unwrap().unwrap();
    section.read_exact(&mut [0; 1000]).unwrap();
    drop((section, hls));
    assert!(entry_files(directory.path()).is_empty());
}

#[test]
fn a_presentation_has_one_key_by_which_it_is_pinned_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let origin = serve(site(SEGMENTS), true);
    frames(&mut open(&origin, "/mp4.m3u8", &directory).unwrap());
    let cache = cache(&directory);
    let key = cache.key_of(&origin.url("/mp4.m3u8"));
    cache.pin(&key).unwrap();
    let entries = cache.entries().unwrap();
    // The playlist, the initialization section and the segments.
    assert_eq!(entries.len(), SEGMENTS as usize + 2);
    assert!(entries.iter().all(|entry| entry.key == key && entry.is_pinned && entry.stored == entry.len));
    cache.remove(&key).unwrap();
    assert!(cache.entries().unwrap().is_empty());
}

#[cfg(feature = "hls-aes")]
mod encrypted {
    use aes::cipher::block_padding::Pkcs7;
    use aes::cipher::{BlockEncryptMut, KeyIvInit};
    use windway::hls::{Hook, RequestHook};

    use super::*;

    const KEY: [u8; 16] = [7; 16];

    struct Keys;

    impl RequestHook for Keys {
        fn key(&self, url: &str) -> Option<Vec<u8>> {
            url.ends_with("/key").then(|| KEY.to_vec())
        }
    }

    fn encrypted() -> Site {
        let mut lines =
            String::from("#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV=0x05\n#EXT-X-MAP:URI=\"init.mp4\"\n");
        let encrypt = |plain: &[u8]| {
            let cipher = cbc::Encryptor::<aes::Aes128>::new(&KEY.into(), &5_u128.to_be_bytes().into());
            cipher.encrypt_padded_vec_mut::<Pkcs7>(plain)
        };
        let init = mux::init(&mux::Entry::Aac(3), 48_000, 0);
        let mut site = Site::default().with("/init.mp4", encrypt(&init)).with("/key", KEY);
        for index in 0..SEGMENTS {
            lines.push_str(&extinf(&index.to_string()));
            site = site.with(&format!("/{index}"), encrypt(&mp4(index)));
        }
        site.with("/list.m3u8", vod(&lines))
    }

    #[test]
    fn encrypted_segments_are_stored_as_received_and_play_offline_with_a_key_of_the_application() {
        let directory = tempfile::tempdir().unwrap();
        let origin = serve(encrypted(), true);
        assert_eq!(frames(&mut open(&origin, "/list.m3u8", &directory).unwrap()), all_frames());
        // No frame and no key is on the disk.
        for file in entry_files(directory.path()) {
            let bytes = fs::read(&file).unwrap();
            assert!(!bytes.windows(16).any(|window| window == KEY));
            assert!(!bytes.windows(4).any(|window| window == b"moof" || window == b"moov"));
        }
        origin.stop_listening();
        let mut hls = open(&origin, "/list.m3u8", &directory).unwrap();
        let error = hls.next_section().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotCached, "{error}");
        drop(hls);
        let mut config = config(&directory);
        config.hook = Some(Hook::new(Keys));
        let mut hls = downloader().open_hls(&origin.url("/list.m3u8"), config).unwrap();
        assert_eq!(frames(&mut hls), all_frames());
    }
}

/// How a child finds its origin and its directory.
const CHILD: &str = "WINDWAY_HLS_CACHE_CHILD";

#[test]
#[ignore = "a process that the next test starts"]
fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (directory, url) = argument.split_once('|').unwrap();
    loop {
        let cache = Cache::open(directory, CacheConfig::new().keep_free(0)).unwrap();
        let mut config = HlsConfig::default();
        config.cache = Some(CacheUse::of(&cache));
        let mut hls = downloader().open_hls(url, config).unwrap();
        assert_eq!(frames(&mut hls), all_frames());
        drop(hls);
        // The next round stores it again.
        cache.clear().unwrap();
    }
}

#[test]
fn processes_that_are_killed_leave_no_wrong_frame() {
    let directory = tempfile::tempdir().unwrap();
    let origin = serve(site(SEGMENTS), true);
    let mut random = mux::Random(5);
    for _ in 0..20 {
        let argument = format!("{}|{}", directory.path().display(), origin.url("/mp4.m3u8"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored", "--nocapture"]).env(CHILD, argument);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // At any point of its life.
        let until = Instant::now() + Duration::from_micros(random.below(80_000) as u64);
        thread::sleep(until.saturating_duration_since(Instant::now()));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.code().is_none(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(frames(&mut open(&origin, "/mp4.m3u8", &directory).unwrap()), all_frames());
    }
}
