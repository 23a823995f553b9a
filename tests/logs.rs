//! The log at the level `debug` tells the story of a playback: a line for each response, with its bytes, and one for each end. Alone in
//! its process, which has one logger.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::{Answer, Content, Origin, in_time};
use windway::{Downloader, DownloaderConfig, ErrorKind, Fetch, Priority};

/// Makes the logger panic on the threads of hedged requests.
static PANICS: AtomicBool = AtomicBool::new(false);

struct Lines(Mutex<Vec<(log::Level, String)>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("windway")
    }

    fn log(&self, record: &log::Record<'_>) {
        let is_hedged = thread::current().name() == Some("windway-hedged");
        assert!(!is_hedged || !PANICS.load(Ordering::Relaxed), "as the test wants");
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// All tests in one: they share the logger of the process.
#[test]
fn the_log_tells_the_story_of_a_playback() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    each_request_of_a_playback_has_a_line_for_its_response_and_one_for_its_end();
    an_opening_that_cannot_reach_its_server_has_one_line_with_the_reason();
    a_body_from_a_server_without_ranges_that_breaks_has_a_line_with_the_reason();
    a_logger_that_panics_in_a_hedged_request_does_not_hold_the_first_one();
    #[cfg(feature = "hls")]
    a_playlist_has_one_line_for_all_that_is_left_out_of_it();
}

fn take_lines() -> Vec<String> {
    std::mem::take(&mut *LINES.0.lock().unwrap()).into_iter().map(|(_, line)| line).collect()
}

fn an_opening_that_cannot_reach_its_server_has_one_line_with_the_reason() {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    // Nothing listens at the port of an origin that is gone.
    let url = Origin::start(|_| Answer::status(200)).url("/a");
    downloader.open(&url).unwrap_err();
    downloader.stop();
    let lines = take_lines();
    // The second request is that for the end of the file. It may have begun before the first one has failed.
    let of_opening: Vec<&String> = lines.iter().filter(|line| line.starts_with("#1 ")).collect();
    assert!(of_opening.len() == 1 && of_opening[0].contains("failed at 0 bytes: "), "{lines:#?}");
}

fn a_body_from_a_server_without_ranges_that_breaks_has_a_line_with_the_reason() {
    let (content, other) = (Content::pattern(1_000_000), Content::bytes(vec![7; 1_000_000]));
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::whole(&content).close_after(400_000),
        // Another version of the file.
        _ => Answer::whole(&other),
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap_err();
    drop(stream);
    downloader.stop();
    let lines = take_lines();
    // The request for the end of the file may be superseded. The two bodies have failed, and nothing else ended them.
    let is_ended_by_drop =
        |line: &String| ["no longer needed", "or peer was closed"].iter().any(|end| line.contains(end));
    assert!(!lines.iter().any(is_ended_by_drop), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("failed at 400000 bytes: ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("bytes: the file changed")), "{lines:#?}");
}

fn a_logger_that_panics_in_a_hedged_request_does_not_hold_the_first_one() {
    // The first request fails after it was hedged.
    let origin = Origin::start(|_| Answer::status(200).latency(Duration::from_secs(2)).reset_in_head(0));
    PANICS.store(true, Ordering::Relaxed);
    let error = in_time("the first request", move || {
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        peer.execute(Fetch::get(&origin.url("/a")).unwrap().max_retries(0)).unwrap_err()
    });
    PANICS.store(false, Ordering::Relaxed);
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    let lines = take_lines();
    assert!(lines.iter().any(|line| line.contains("hedging it over another connection")), "{lines:#?}");
}

fn each_request_of_a_playback_has_a_line_for_its_response_and_one_for_its_end() {
    let content = Content::pattern(8_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut stream = downloader.open(&origin.url("/episode?token=secret")).unwrap();
    let mut bytes = vec![0; 1_000_000];
    stream.read_exact(&mut bytes).unwrap();
    stream.seek(SeekFrom::Start(6_000_000)).unwrap();
    stream.read_exact(&mut bytes).unwrap();
    drop(stream);
    downloader.stop();

    let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
    assert!(lines.iter().all(|(level, _)| *level <= log::Level::Debug), "{lines:#?}");
    assert!(lines.iter().all(|(_, line)| !line.contains("secret") && !line.contains('\n')), "{lines:#?}");
    // A request that is cancelled before its response head arrives has no line for it, but one for its end.
    let responses = lines.iter().filter(|(_, line)| line.contains(": 206 after ")).count();
    let log = origin.log();
    assert!((2..=log.requests.len() + log.suffixes.len()).contains(&responses), "{lines:#?}");
    assert!(
        lines.iter().any(|(_, line)| line.contains("/episode") && line.contains(" of 8000000")),
        "{lines:#?}"
    );
    let is_end = |line: &str| line.contains(" is complete: ") || line.contains(" is cancelled at ");
    assert!(lines.iter().filter(|(_, line)| is_end(line)).count() >= responses, "{lines:#?}");
}

#[cfg(feature = "hls")]
fn a_playlist_has_one_line_for_all_that_is_left_out_of_it() {
    use windway::hls::Playlist;

    let broken = "#EXT-X-DATERANGE:X-TITLE=\"no id\"\n".repeat(1_000);
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n{broken}#EXTINF:6,\na.ts\n");
    for _ in 0..3 {
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/a.m3u8") else {
            panic!("a media playlist")
        };
        assert_eq!(list.segments.len(), 1);
        let lines = take_lines();
        assert!(
            matches!(&lines[..], [line] if line.contains("1000") && line.contains("line 3")),
            "{lines:#?}"
        );
    }
}
