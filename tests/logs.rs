//! The log at the level `debug` tells the story of a playback: a line for each response, with its bytes, and one for each end. Alone in
//! its process, which has one logger.

mod support;

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, Once};

use support::{Answer, Content, Origin};
use windway::{Downloader, DownloaderConfig};

struct Lines(Mutex<Vec<(log::Level, String)>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("windway")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

fn start_log() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
    });
}

/// Takes the lines so far that are about playlists, or the others.
fn take_lines(are_of_playlists: bool) -> Vec<(log::Level, String)> {
    let mut lines = LINES.0.lock().unwrap();
    let (wanted, others) = std::mem::take(&mut *lines)
        .into_iter()
        .partition(|(_, line)| line.contains("playlist") == are_of_playlists);
    *lines = others;
    wanted
}

#[cfg(feature = "hls")]
#[test]
fn a_playlist_has_one_line_for_all_that_is_left_out_of_it() {
    use windway::hls::Playlist;

    start_log();
    let broken = "#EXT-X-DATERANGE:X-TITLE=\"no id\"\n".repeat(1_000);
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n{broken}#EXTINF:6,\na.ts\n");
    for _ in 0..3 {
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), "http://host/a.m3u8") else {
            panic!("a media playlist")
        };
        assert_eq!(list.segments.len(), 1);
        let lines = take_lines(true);
        assert!(
            matches!(&lines[..], [(_, line)] if line.contains("1000") && line.contains("line 3")),
            "{lines:#?}"
        );
    }
}

#[test]
fn each_request_of_a_playback_has_a_line_for_its_response_and_one_for_its_end() {
    start_log();
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

    let lines = take_lines(false);
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
