//! The log at the level `debug` tells the story of a playback: a line for each response, with its bytes, and one for each end. Alone in
//! its process, which has one logger.

mod support;

use std::io::{Read, Seek, SeekFrom};
use std::sync::Mutex;

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

#[test]
fn each_request_of_a_playback_has_a_line_for_its_response_and_one_for_its_end() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
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
