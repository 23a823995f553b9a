//! Radio: what a user interface shows of it, in one look and at an interval.

use std::io::Read;
use std::thread;
use std::time::Duration;

use support::{Answer, Content, Origin, Station};
use windway::stream::Phase;
use windway::{Downloader, DownloaderConfig, ErrorKind, Radio, RadioConfig};

/// Time limit of waits, reached only by a hang.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

const LONG: Duration = Duration::from_secs(3600);

fn station() -> Station {
    Station { audio: Content::endless(), interval: 1000, every: 1, titles: vec!["One", "Two"] }
}

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

fn open(downloader: &Downloader, origin: &Origin) -> Radio {
    let mut config = RadioConfig::default();
    config.read_timeout = PATIENCE;
    config.ahead = 100_000;
    downloader.open_radio(&origin.url("/live"), config).unwrap()
}

#[test]
fn progress_is_what_the_handle_returns_in_one_look() {
    let station = station();
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::station(request, &station).close_after(50_000),
        _ => Answer::station(request, &station),
    });
    let mut radio = open(&downloader(), &origin);
    let handle = radio.handle();
    radio.read_exact(&mut [0; 1500]).unwrap();
    handle.wait_buffered(60_000, PATIENCE).unwrap();
    let progress = handle.progress();
    let stream = &progress.stream;
    assert_eq!((stream.position, stream.len), (1500, None));
    let [stored] = &stream.buffered[..] else { panic!("{progress:?}") };
    assert!(stored.contains(&1500) && stored.end - 1500 == stream.buffered_ahead, "{progress:?}");
    assert!(stream.buffered_ahead >= 60_000, "{progress:?}");
    assert_eq!((stream.stalls, stream.stalled), (handle.stats().stalls, handle.stats().stalled));
    assert_eq!(progress.title, handle.now_playing());
    assert_eq!(progress.title.unwrap().title.as_deref(), Some("One"));
    assert_eq!((progress.reconnects, handle.stats().connections), (1, 2));
    assert!(progress.elapsed > Duration::ZERO && stream.starving.is_none());
}

#[test]
fn progress_shows_why_a_radio_ended_and_the_length_of_a_file() {
    let content = Content::pattern(20_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/live" => Answer::status(403),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader();
    let mut refused = open(&downloader, &origin);
    refused.read_exact(&mut [0; 10]).unwrap_err();
    let progress = refused.handle().progress();
    assert_eq!(progress.stream.phase, Phase::Failed);
    assert_eq!(progress.stream.last_error.unwrap().kind(), ErrorKind::Status(403));
    let mut file = downloader.open_radio(&origin.url("/file"), RadioConfig::default()).unwrap();
    file.read_to_end(&mut Vec::new()).unwrap();
    let stream = file.handle().progress().stream;
    assert_eq!((stream.len, stream.position, stream.phase), (Some(20_000), 20_000, Phase::Ended));
}

#[test]
fn a_watch_shows_at_once_that_its_radio_has_ended() {
    type End = fn(Radio, &Downloader) -> Option<Radio>;
    let ends: [(&str, End); 3] = [
        ("dropped", |_radio, _| None),
        ("cancelled", |radio, _| {
            radio.handle().cancel();
            Some(radio)
        }),
        ("stopped", |radio, downloader| {
            downloader.stop();
            Some(radio)
        }),
    ];
    let station = station();
    let origin = Origin::start(move |request| Answer::station(request, &station));
    for (case, end) in ends {
        let downloader = downloader();
        let radio = open(&downloader, &origin);
        let mut watch = radio.handle().watch(LONG);
        assert_ne!(watch.next().unwrap().stream.phase, Phase::Closed, "{case}");
        let rest = thread::spawn(move || watch.map(|progress| progress.stream.phase).collect::<Vec<_>>());
        let _radio = end(radio, &downloader);
        assert_eq!(support::in_time(case, move || rest.join().unwrap()), [Phase::Closed], "{case}");
    }
}

#[test]
fn a_watch_without_an_interval_returns_the_state_of_each_call() {
    let station = station();
    let origin = Origin::start(move |request| Answer::station(request, &station));
    let mut radio = open(&downloader(), &origin);
    let mut watch = radio.handle().watch(Duration::ZERO);
    for position in [0, 700, 1400] {
        assert_eq!(watch.next().unwrap().stream.position, position);
        radio.read_exact(&mut [0; 700]).unwrap();
    }
    drop(radio);
    let last = watch.next().unwrap().stream;
    assert_eq!((last.position, last.phase, last.buffered.len()), (2100, Phase::Closed, 0));
    assert!(watch.next().is_none());
}
