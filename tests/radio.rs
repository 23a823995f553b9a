//! Radio: exact audio, exact title positions, and no end but the one that the station means.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::decoding::{Decoding, LiveSource};
use support::{Answer, Content, Origin, Request, Station, poll_until};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::io::MediaSource;
use windway::config::{AfterPause, OnDiscontinuity};
use windway::radio::{RadioEvent, RadioHandle};
use windway::stream::Phase;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Radio, RadioConfig};

const TITLES: [&str; 3] = ["One - First", "It's; the 'second'", "Drei - Größer"];

/// Time limit of waits, reached only by a hang.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

fn downloader() -> Downloader {
    downloader_with(|_| ())
}

fn downloader_with(change: impl FnOnce(&mut DownloaderConfig)) -> Downloader {
    let mut config = DownloaderConfig::default();
    change(&mut config);
    Downloader::new(config).unwrap()
}

fn config(change: impl FnOnce(&mut RadioConfig)) -> RadioConfig {
    let mut config = RadioConfig::default();
    config.read_timeout = PATIENCE;
    change(&mut config);
    config
}

/// A station that plays the pattern.
fn station(interval: u64, every: u64) -> Station {
    Station { audio: Content::endless(), interval, every, titles: TITLES.to_vec() }
}

fn open(downloader: &Downloader, origin: &Origin, change: impl FnOnce(&mut RadioConfig)) -> Radio {
    downloader.open_radio(&origin.url("/live"), config(change)).unwrap()
}

/// A radio of a station whose responses are made by `answer`.
fn tune(
    answer: impl Fn(&Request, &Station) -> Answer + Send + Sync + 'static,
    change: impl FnOnce(&mut RadioConfig),
) -> (Radio, Origin) {
    let station = station(1000, 100);
    let origin = Origin::start(move |request| answer(request, &station));
    let radio = open(&downloader(), &origin, change);
    (radio, origin)
}

fn read_exactly(radio: &mut Radio, len: usize) -> Vec<u8> {
    let mut audio = vec![0; len];
    radio.read_exact(&mut audio).unwrap();
    audio
}

/// Reads to the next error.
fn read_to_error(radio: &mut Radio) -> (Vec<u8>, Error) {
    let mut audio = Vec::new();
    let error = radio.read_to_end(&mut audio).unwrap_err();
    (audio, Error::from(error))
}

/// Blocks until `look` returns something for an event.
fn await_event<T>(
    events: &windway::event::Subscriber<RadioEvent>,
    mut look: impl FnMut(RadioEvent) -> Option<T>,
) -> T {
    loop {
        let event = events.recv_timeout(PATIENCE.unwrap()).expect("an event in time");
        if let Some(found) = look(event) {
            return found;
        }
    }
}

fn discontinuity(event: RadioEvent) -> Option<u64> {
    match event {
        RadioEvent::Discontinuity { position } => Some(position),
        _ => None,
    }
}

fn playing(handle: &RadioHandle) -> Option<String> {
    handle.now_playing().and_then(|playing| playing.title)
}

#[test]
fn audio_and_title_positions_are_exact_at_any_interval() {
    for (interval, every) in [(1, 200), (7, 60), (255, 3), (1000, 2), (8192, 1), (16_000, 2), (65_537, 1)] {
        let station = station(interval, every);
        let origin = Origin::start(move |request| Answer::station(request, &station));
        let mut radio = open(&downloader(), &origin, |config| config.ahead = 10 * interval * every);
        let events = radio.handle().subscribe();
        let len = 4 * interval * every;
        assert_pattern(0, &read_exactly(&mut radio, len as usize));
        let places: Vec<_> = (0..4).map(|round| (round * every + 1) * interval).collect();
        for (index, place) in places.into_iter().enumerate() {
            let (position, title) = await_event(&events, |event| match event {
                RadioEvent::Title { position, title, .. } => Some((position, title)),
                _ => None,
            });
            assert_eq!(position, place, "interval {interval}, every {every}");
            assert_eq!(title.as_deref(), Some(TITLES[index % 3]));
        }
    }
}

#[test]
fn now_playing_is_the_title_at_the_reader() {
    let station = station(1000, 3);
    let origin = Origin::start(move |request| Answer::station(request, &station));
    let mut radio = open(&downloader(), &origin, |config| config.ahead = 200_000);
    let handle = radio.handle();
    // The audio is stored before it is read.
    handle.wait_buffered(100_000, PATIENCE).unwrap();
    assert_eq!(playing(&handle), None);
    read_exactly(&mut radio, 999);
    assert_eq!(playing(&handle), None);
    read_exactly(&mut radio, 1);
    assert_eq!(playing(&handle).as_deref(), Some(TITLES[0]));
    read_exactly(&mut radio, 2999);
    assert_eq!(playing(&handle).as_deref(), Some(TITLES[0]));
    read_exactly(&mut radio, 1);
    assert_eq!(playing(&handle).as_deref(), Some(TITLES[1]));
    let later = handle.title_at(7000).unwrap();
    assert_eq!((later.position, later.title.as_deref()), (7000, Some(TITLES[2])));
    assert_eq!(handle.info().unwrap().name.as_deref(), Some("Scripted"));
    assert_eq!(origin.log().requests[0].header("icy-metadata"), Some("1"));
    assert!(radio.is_live());
}

#[test]
fn the_icy_status_line_of_shoutcast_is_understood() {
    let (mut radio, _origin) = tune(|request, station| Answer::station(request, station).icy(), |_| ());
    assert_pattern(0, &read_exactly(&mut radio, 100_000));
    assert_eq!(radio.handle().info().unwrap().metadata_interval.map(usize::from), Some(1000));
    assert!(playing(&radio.handle()).is_some());
}

/// Response heads of servers that send a metadata block after each 1000 bytes.
const HEADS: [(&str, &str); 7] = [
    (
        "SHOUTcast 1.9",
        "ICY 200 OK\r\nicy-notice1:<BR>This stream requires <a href=\"http://www.winamp.com/\">Winamp</a><BR>\r\n\
         icy-notice2:SHOUTcast Distributed Network Audio Server/Linux v1.9.8<BR>\r\nicy-name:Scripted\r\n\
         icy-genre:Jazz\r\nicy-url:http://host/\r\ncontent-type:audio/mpeg\r\nicy-pub:1\r\nicy-metaint:1000\r\n\
         icy-br:128\r\n\r\n",
    ),
    (
        "SHOUTcast 2",
        "ICY 200 OK\r\nicy-notice1: <BR>This stream requires <a href=\"http://www.winamp.com\">Winamp</a><BR>\r\n\
         icy-notice2: SHOUTcast DNAS/posix(linux x64) v2.6.1.777<BR>\r\nAccess-Control-Allow-Origin:*\r\n\
         Cache-Control:no-cache,no-store,must-revalidate,max-age=0\r\nConnection: close\r\nicy-name: Scripted\r\n\
         icy-genre: Jazz\r\nicy-br: 128\r\nicy-sr: 44100\r\nicy-url: http://host/\r\nicy-pub: 1\r\n\
         content-type: audio/mpeg\r\nicy-metaint: 1000\r\nX-Clacks-Overhead:GNU Terry Pratchett\r\n\r\n",
    ),
    (
        "SHOUTcast 2, to a browser",
        "HTTP/1.0 200 OK\r\nServer: Ultravox/2.1 SHOUTcast v2.6.1.777/posix(linux x64)\r\n\
         Access-Control-Allow-Origin: *\r\nicy-name:Scripted\r\nicy-genre:Jazz\r\nicy-br:128\r\nicy-pub:1\r\n\
         Content-Type: audio/mpeg\r\nicy-url:http://host/\r\nicy-metaint:1000\r\n\r\n",
    ),
    (
        "Icecast-kh",
        "HTTP/1.0 200 OK\r\nContent-Type: audio/mpeg\r\nicy-br:128\r\n\
         ice-audio-info: ice-samplerate=44100;ice-bitrate=128;ice-channels=2\r\nicy-description:Unspecified\r\n\
         icy-genre:Jazz\r\nicy-name:Scripted\r\nicy-pub:1\r\nicy-url:http://host/\r\n\
         Server: Icecast 2.4.0-kh15\r\nCache-Control: no-cache, no-store\r\nExpires: Mon, 26 Jul 1997 05:00:00 GMT\r\n\
         Pragma: no-cache\r\nAccess-Control-Allow-Origin: *\r\nicy-metaint:1000\r\n\r\n",
    ),
    (
        "no word of its type",
        "ICY 200 OK\r\nicy-name:Scripted\r\nicy-genre:Jazz\r\nicy-br:128\r\nicy-pub:1\r\nicy-url:http://host/\r\nicy-metaint:1000\r\n\r\n",
    ),
    (
        "odd spaces and lines",
        "ICY  200  OK\r\n icy-name : Scripted \r\nICY-GENRE :Jazz\r\nno header at all\r\nicy-br :  128\r\nicy-pub:1\r\n\
         icy-url:http://host/\r\nicy-metaint :1000\r\nx y: z\r\n\r\n",
    ),
    (
        "line ends without a CR",
        "ICY 200 OK\nicy-name:Scripted\nicy-genre:Jazz\nicy-br:128\nicy-pub:1\nicy-url:http://host/\nicy-metaint:1000\n\n",
    ),
];

#[test]
fn response_heads_of_real_servers_are_understood_also_over_tls() {
    let mut body = Vec::new();
    Content::icy(&Content::endless(), 1000, 10, &TITLES).append(&mut body, 0..200_000);
    let answers = HEADS.map(|(_, head)| Answer::raw([head.as_bytes(), &body].concat()));
    let answer = move |request: &Request| answers[request.path[2..].parse::<usize>().unwrap()].clone();
    let tls = Origin::start_tls(answer.clone());
    let trusting = downloader_with(|config| config.client.extra_roots.push(tls.root_pem()));
    for origin in [Origin::start(answer), tls] {
        for (number, (server, _)) in HEADS.iter().enumerate() {
            // SHOUTcast serves its stream at this path, and an HTML page for browsers at the root.
            let url = origin.url(&format!("/;{number}"));
            let mut radio = trusting.open_radio(&url, config(|_| ())).unwrap();
            assert_pattern(0, &read_exactly(&mut radio, 150_000));
            let info = radio.handle().info().unwrap();
            assert_eq!(info.name.as_deref(), Some("Scripted"), "{server}");
            assert_eq!(info.genre.as_deref(), Some("Jazz"), "{server}");
            assert_eq!(info.url, Some("http://host/".into()), "{server}");
            assert_eq!((info.bitrate, info.public), (Some(128), Some(true)), "{server}");
            assert!(playing(&radio.handle()).is_some(), "{server}");
        }
    }
}

/// As AzuraCast does: a redirect from a short name to the stream, which is sent over TLS in chunks.
#[test]
fn a_station_behind_a_redirect_to_tls_has_titles() {
    let station = station(1000, 100);
    let tls = Origin::start_tls(move |request| Answer::station(request, &station).chunked());
    let to = tls.url("/listen/scripted/radio.mp3");
    let origin = Origin::start(move |_| Answer::redirect(302, &to));
    let trusting = downloader_with(|config| config.client.extra_roots.push(tls.root_pem()));
    let mut radio = open(&trusting, &origin, |_| ());
    assert_pattern(0, &read_exactly(&mut radio, 100_000));
    assert!(playing(&radio.handle()).is_some());
}

/// SHOUTcast answers 401 while it has no source, and 400 while it is full.
#[test]
fn shoutcast_without_a_source_is_retried() {
    let (mut radio, origin) = tune(
        |request, station| match request.number {
            0 => Answer::station(request, station).icy().close_after(40_000),
            1 => Answer::raw("ICY 401 Service Unavailable\r\nicy-notice1:<BR>SHOUTcast\r\n\r\n"),
            2 => Answer::raw("ICY 400 Server Full\r\n\r\n"),
            _ => Answer::station(request, station).icy(),
        },
        |_| (),
    );
    read_exactly(&mut radio, 100_000);
    assert_eq!(origin.log().requests.len(), 4);
}

#[test]
fn a_station_without_titles_is_all_audio() {
    let station = station(0, 1);
    let origin = Origin::start(move |request| Answer::station(request, &station).chunked());
    let mut radio = open(&downloader(), &origin, |_| ());
    assert_pattern(0, &read_exactly(&mut radio, 300_000));
    assert_eq!(radio.handle().info().unwrap().metadata_interval, None);
}

#[test]
fn titles_are_requested_from_another_host_without_the_users_headers() {
    let station = station(1000, 100);
    let cdn = Origin::start(move |request| Answer::station(request, &station));
    let to = cdn.url("/edge");
    let origin = Origin::start(move |_| Answer::redirect(302, &to));
    let mut radio = open(&downloader(), &origin, |config| {
        config.headers = vec![("x-secret".into(), "7".into())];
    });
    assert_pattern(0, &read_exactly(&mut radio, 5000));
    assert!(playing(&radio.handle()).is_some());
    assert_eq!(origin.log().requests[0].header("x-secret"), Some("7"));
    let requests = cdn.log().requests;
    assert_eq!((requests[0].header("x-secret"), requests[0].header("icy-metadata")), (None, Some("1")));
}

/// Three breaks of different kinds. After each the audio begins again, at the position that is published.
#[test]
fn a_lost_connection_is_followed_by_a_discontinuity_and_more_audio() {
    let (mut radio, origin) = tune(
        |request, station| {
            let answer = Answer::station(request, station);
            match request.number {
                0 => answer.close_after(40_000),
                1 => answer.cut_chunk_after(30_000),
                2 => answer.reset_after(20_000),
                _ => answer,
            }
        },
        |_| (),
    );
    let events = radio.handle().subscribe();
    let audio = read_exactly(&mut radio, 200_000);
    let mut from = 0;
    for _ in 0..3 {
        let discontinuity = await_event(&events, discontinuity);
        assert_pattern(0, &audio[from..discontinuity as usize]);
        from = discontinuity as usize;
    }
    assert_pattern(0, &audio[from..]);
    assert!(from < 90_000, "{from}");
    assert_eq!(radio.handle().stats().connections, 4);
    assert_eq!(origin.log().requests.len(), 4);
}

/// What the station played when the old connection ended says nothing of the audio of the new one.
#[test]
fn the_title_of_a_new_connection_is_unknown_until_it_announces_one() {
    let (mut radio, _origin) = tune(
        |request, station| match request.number {
            0 => Answer::station(request, station).close_after(40_000),
            _ => Answer::station(request, station),
        },
        |_| (),
    );
    let handle = radio.handle();
    let events = handle.subscribe();
    // Before the reader gets there, so that it can look around at the discontinuity.
    let cut = await_event(&events, discontinuity);
    read_exactly(&mut radio, cut as usize - 1);
    assert_eq!(playing(&handle).as_deref(), Some(TITLES[0]), "the old connection's up to its last byte");
    read_exactly(&mut radio, 1);
    assert_eq!(handle.now_playing(), None);
    read_exactly(&mut radio, 999);
    assert_eq!(handle.now_playing(), None);
    // The station announces what it announced before: a recorder learns from which byte on that is known.
    let again = await_event(&events, |event| match event {
        RadioEvent::Title { position, title, .. } => Some((position, title)),
        _ => None,
    });
    assert_eq!(again, (cut + 1000, Some(TITLES[0].to_owned())));
    read_exactly(&mut radio, 1);
    assert_eq!(playing(&handle).as_deref(), Some(TITLES[0]));
    let titles =
        [0, 999, 1000, cut - 1, cut, cut + 999, cut + 1000].map(|position| handle.title_at(position));
    assert_eq!(titles.map(|title| title.is_some()), [false, false, true, true, false, false, true]);
}

#[test]
fn the_end_of_a_stations_body_does_not_end_a_radio() {
    let answer = || Answer::whole(&Content::pattern(50_000)).header("icy-name", "Scripted");
    let (mut radio, origin) = tune(move |_, _| answer(), |_| ());
    let audio = read_exactly(&mut radio, 150_000);
    audio.chunks(50_000).for_each(|part| assert_pattern(0, part));
    assert!(origin.log().requests.len() >= 3);
}

#[test]
fn a_silent_connection_is_replaced_while_the_buffer_plays() {
    let station = station(1000, 100);
    let origin = Origin::start(move |request| {
        let answer = Answer::station(request, &station);
        if request.number == 0 { answer.stall_after(60_000) } else { answer }
    });
    let downloader = downloader_with(|config| config.client.silence_timeout = Duration::from_millis(200));
    let mut radio = open(&downloader, &origin, |_| ());
    let events = radio.handle().subscribe();
    let error = await_event(&events, |event| match event {
        RadioEvent::Reconnecting { error, .. } => Some(error),
        _ => None,
    });
    assert_eq!(error.kind(), ErrorKind::Silent);
    let discontinuity = await_event(&events, discontinuity) as usize;
    let audio = read_exactly(&mut radio, discontinuity + 100_000);
    assert_pattern(0, &audio[..discontinuity]);
    assert_pattern(0, &audio[discontinuity..]);
}

#[test]
fn a_connection_below_the_minimum_rate_is_replaced_when_the_reader_stalls() {
    let (mut radio, origin) = tune(
        |request, station| {
            let answer = Answer::station(request, station);
            if request.number == 0 { answer.chunks_of(100, Duration::from_millis(20)) } else { answer }
        },
        |config| {
            config.min_audio_rate = 50_000;
            config.audio_rate_window = Duration::from_millis(200);
        },
    );
    let events = radio.handle().subscribe();
    // No reader waits, so the connection may be slow.
    radio.handle().wait_buffered(2000, PATIENCE).unwrap();
    assert_eq!(origin.log().requests.len(), 1);
    read_exactly(&mut radio, 200_000);
    let error = await_event(&events, |event| match event {
        RadioEvent::Reconnecting { error, .. } => Some(error),
        _ => None,
    });
    assert!(error.to_string().contains("bytes a second"), "{error}");
    assert_eq!(origin.log().requests.len(), 2);
}

#[test]
fn titles_do_not_count_for_the_minimum_rate() {
    let (mut radio, origin) = tune(
        |request, usual| {
            // A title behind each byte: 250,000 bytes a second at most, of which 49 in 50 are no audio.
            let titles = station(1, 1);
            match request.number {
                0 => Answer::station(request, &titles).chunks_of(5000, Duration::from_millis(20)),
                _ => Answer::station(request, usual),
            }
        },
        |config| {
            config.min_audio_rate = 50_000;
            config.audio_rate_window = Duration::from_millis(200);
        },
    );
    read_exactly(&mut radio, 200_000);
    assert!(origin.log().requests.len() >= 2);
}

/// A permanent error is returned after the stored audio, and by every later read.
fn ends_after_the_buffer(answer: Answer, change: impl FnOnce(&mut RadioConfig)) -> Error {
    let (mut radio, _origin) = tune(
        move |request, station| match request.number {
            0 => Answer::station(request, station).close_after(40_000),
            _ => answer.clone(),
        },
        change,
    );
    let handle = radio.handle();
    let events = handle.subscribe();
    let ended = await_event(&events, |event| match event {
        RadioEvent::Ended { error, .. } => Some(error),
        _ => None,
    });
    assert!(events.recv().is_none());
    let (audio, error) = read_to_error(&mut radio);
    assert!(audio.len() > 38_000, "{}", audio.len());
    assert_pattern(0, &audio);
    assert_eq!(error.kind(), ended.kind());
    assert_eq!(read_to_error(&mut radio).1.kind(), ended.kind());
    assert!(handle.subscribe().recv().is_none());
    error
}

#[test]
fn a_permanent_status_ends_a_radio_after_the_buffered_audio() {
    for status in [400, 401, 410] {
        let error = ends_after_the_buffer(Answer::status(status), |_| ());
        assert_eq!(error.kind(), ErrorKind::Status(status));
        assert!(error.url().is_some_and(|url| url.expose().ends_with("/live")));
    }
}

#[test]
fn a_403_or_404_without_a_grace_period_ends_a_radio_after_the_buffered_audio() {
    for status in [403, 404] {
        let answer = Answer::status(status);
        let error = ends_after_the_buffer(answer, |config| config.source_away = Duration::ZERO);
        assert_eq!(error.kind(), ErrorKind::Status(status));
    }
}

/// What a network that wants a login answers to each request.
fn login_page() -> Answer {
    let page = Content::bytes(b"<!DOCTYPE html><html>Log in to the Wi-Fi of this hotel</html>".to_vec());
    Answer::whole(&page).header("Content-Type", "text/html")
}

#[test]
fn an_html_page_without_a_grace_period_ends_a_radio_after_the_buffered_audio() {
    let error = ends_after_the_buffer(login_page(), |config| config.source_away = Duration::ZERO);
    assert_eq!(error.kind(), ErrorKind::NotMedia);
}

#[test]
fn a_station_is_received_again_after_the_login_to_a_network() {
    let (mut radio, origin) = tune(
        |request, station| match (&*request.path, request.number) {
            ("/login", _) => login_page(),
            (_, 1) => login_page(),
            (_, 2) => Answer::redirect(302, "/login"),
            // `/login` was the request with number 3.
            (_, 0) => Answer::station(request, station).close_after(40_000),
            _ => Answer::station(request, station),
        },
        |_| (),
    );
    let events = radio.handle().subscribe();
    read_exactly(&mut radio, 100_000);
    assert_eq!(origin.log().requests.len(), 5);
    let errors = std::iter::from_fn(|| events.try_recv()).filter_map(|event| match event {
        RadioEvent::Reconnecting { error, .. } => Some(error.kind()),
        _ => None,
    });
    let page = ErrorKind::NotMedia;
    assert_eq!(errors.collect::<Vec<_>>(), [ErrorKind::Disconnected, page, page]);
}

#[test]
fn a_missing_station_is_an_error_at_once() {
    let page = Content::bytes(b"#EXTM3U\nhttp://host/stream\n".to_vec());
    for (answer, kind) in [
        (Answer::status(404), ErrorKind::Status(404)),
        (Answer::whole(&page).header("Content-Type", "audio/x-mpegurl"), ErrorKind::NotMedia),
        (Answer::whole(&page).header("Content-Type", "audio/mpeg"), ErrorKind::NotMedia),
    ] {
        let (mut radio, origin) = tune(move |_, _| answer.clone(), |_| ());
        let (audio, error) = read_to_error(&mut radio);
        assert_eq!((audio.len(), error.kind()), (0, kind));
        assert!(kind != ErrorKind::NotMedia || error.to_string().contains("a playlist"), "{error}");
        assert_eq!(origin.log().requests.len(), 1);
    }
}

/// Icecast answers 404 while a station's source is away, and 403 while the station has all the listeners that it may have.
#[test]
fn a_station_that_is_away_or_full_for_a_while_is_received_again() {
    let (mut radio, origin) = tune(
        |request, station| match request.number {
            0 => Answer::station(request, station).close_after(40_000),
            1 => Answer::status(403),
            2 => Answer::status(404),
            _ => Answer::station(request, station),
        },
        |_| (),
    );
    let events = radio.handle().subscribe();
    read_exactly(&mut radio, 100_000);
    assert_eq!(origin.log().requests.len(), 4);
    let reconnecting = std::iter::from_fn(|| events.try_recv()).filter_map(|event| match event {
        RadioEvent::Reconnecting { error, .. } => Some(error),
        _ => None,
    });
    // Also where the station has just ended its response: several radios may play.
    assert!(reconnecting.map(|error| error.url().is_some()).collect::<Vec<_>>() == [true; 3]);
}

#[test]
fn retry_after_is_respected_between_connections() {
    let (mut radio, _origin) = tune(
        |request, station| match request.number {
            0 => Answer::status(503).header("Retry-After", "1"),
            1 => Answer::status(500),
            _ => Answer::station(request, station),
        },
        |_| (),
    );
    let events = radio.handle().subscribe();
    assert_pattern(0, &read_exactly(&mut radio, 100_000));
    let mut waits = Vec::new();
    await_event(&events, |event| match event {
        RadioEvent::Reconnecting { error, after } => {
            waits.push((error.status(), after));
            None
        }
        RadioEvent::Connected { position, .. } => Some(position),
        _ => None,
    });
    assert_eq!(waits[0], (Some(503), Duration::from_secs(1)));
    assert_eq!(waits[1].0, Some(500));
    assert!(waits[1].1 <= Duration::from_millis(500));
}

#[test]
fn a_radio_gives_up_after_the_configured_time() {
    let origin = Origin::start(|_| Answer::status(500));
    let mut radio = open(&downloader(), &origin, |config| {
        config.give_up = Some(Duration::from_millis(100));
    });
    assert_eq!(read_to_error(&mut radio).1.kind(), ErrorKind::Status(500));
}

/// Flow control slows the server while its audio is not read, and no byte is lost.
#[test]
fn a_paused_reader_slows_the_server_down() {
    const SYSTEM_BUFFERS: u64 = 24 << 20;
    let ahead = 1 << 20;
    let (mut radio, origin) = tune(Answer::station, |config| {
        config.ahead = ahead;
        config.after_pause = AfterPause::Continue;
    });
    let handle = radio.handle();
    handle.wait_buffered(ahead - 32 * 1024, PATIENCE).unwrap();
    // Meanwhile a file of a hundred megabytes is read. The station would have sent as much without flow control.
    let elsewhere = Origin::serving(Content::pattern(100_000_000));
    let mut file = downloader().open(&elsewhere.url("/file")).unwrap();
    assert_eq!(std::io::copy(&mut file, &mut std::io::sink()).unwrap(), 100_000_000);
    assert!(handle.buffered_ahead() <= ahead);
    let sent = origin.log().sent;
    assert!(sent < ahead + SYSTEM_BUFFERS, "{sent}");
    let mut read = 0;
    while read < 2 * SYSTEM_BUFFERS {
        let part = read_exactly(&mut radio, 1 << 20);
        assert_pattern(read, &part);
        assert!(handle.buffered_ahead() <= ahead);
        read += part.len() as u64;
    }
    assert_eq!(origin.log().requests.len(), 1);
}

#[test]
fn a_long_pause_continues_at_the_live_edge() {
    let (mut radio, origin) = tune(Answer::station, |config| {
        config.ahead = 100_000;
        config.pause_limit = Duration::from_millis(500);
    });
    let handle = radio.handle();
    let events = handle.subscribe();
    assert_pattern(0, &read_exactly(&mut radio, 1000));
    let paused = |event| match event {
        RadioEvent::Paused { position } => Some(position),
        _ => None,
    };
    assert_eq!(await_event(&events, paused), 1000);
    origin.wait_until("closed connection", |log| log.open == 0);
    let edge = handle.window().end;

    // The first byte of another connection, at the published position.
    assert_pattern(0, &read_exactly(&mut radio, 50_000));
    let skipped = await_event(&events, |event| match event {
        RadioEvent::Skipped { from, to } => Some((from, to)),
        _ => None,
    });
    assert_eq!(skipped, (1000, edge));
    assert_eq!(await_event(&events, discontinuity), edge);
    assert_eq!(handle.position(), edge + 50_000);

    // A seek reads the stored audio instead.
    await_event(&events, paused);
    let from = handle.position();
    radio.seek(SeekFrom::Current(-40_000)).unwrap();
    assert_pattern(10_000, &read_exactly(&mut radio, 100_000));
    assert_eq!(handle.position(), from + 60_000);
}

#[test]
fn a_reader_that_goes_live_skips_what_is_stored() {
    // No title lies where the window gets full: what is received at once is stored at once there, so that the edge stays.
    let station = station(70_000, 1);
    let origin = Origin::start(move |request| Answer::station(request, &station));
    let mut radio = open(&downloader(), &origin, |config| config.ahead = 100_000);
    let handle = radio.handle();
    let events = handle.subscribe();
    assert_pattern(0, &read_exactly(&mut radio, 1000));
    // Full: the server is slowed down, so its next byte is an old one.
    handle.wait_buffered(75_000, PATIENCE).unwrap();
    poll_until("the receiver waits for room", || handle.phase() == Phase::Idle);
    let edge = handle.window().end;
    handle.go_live();
    assert_pattern(0, &read_exactly(&mut radio, 50_000));
    let skipped = await_event(&events, |event| match event {
        RadioEvent::Skipped { from, to } => Some((from, to)),
        _ => None,
    });
    assert_eq!(skipped, (1000, edge));
    assert_eq!(await_event(&events, discontinuity), edge, "another connection begins there");
    assert_eq!(handle.position(), edge + 50_000);
    let titles = [edge - 1, edge, edge + 49_999].map(|position| handle.title_at(position).is_some());
    assert_eq!(titles, [true, false, false], "the old title is not that of the new connection");
    origin.wait_until("the old connection is closed", |log| log.open == 1);

    // A seek reads the stored audio instead.
    handle.go_live();
    radio.seek(SeekFrom::Current(-40_000)).unwrap();
    assert_pattern(10_000, &read_exactly(&mut radio, 30_000));
}

#[test]
fn a_reader_that_is_live_keeps_its_connection() {
    let (mut radio, origin) =
        tune(|request, station| Answer::station(request, station).stall_after(50_000), |_| ());
    let handle = radio.handle();
    let events = handle.subscribe();
    assert_pattern(0, &read_exactly(&mut radio, 1000));
    handle.wait_buffered(40_000, PATIENCE).unwrap();
    handle.go_live();
    let reader = std::thread::spawn(move || (read_to_error(&mut radio).1, radio));
    let (from, to) = await_event(&events, |event| match event {
        RadioEvent::Skipped { from, to } => Some((from, to)),
        _ => None,
    });
    assert!(from == 1000 && to > 40_000, "{from} {to}");
    poll_until("it waits for the next byte", || handle.phase() == Phase::Stalled);
    handle.go_live();
    assert_eq!(origin.log().requests.len(), 1);
    handle.cancel();
    let (error, mut radio) = reader.join().unwrap();
    assert!(error.is_cancelled());
    // What is stored can still be read: there is no live edge any more.
    radio.seek(SeekFrom::Start(1000)).unwrap();
    handle.go_live();
    assert_pattern(1000, &read_exactly(&mut radio, 30_000));
}

#[test]
fn a_reader_that_has_read_all_skips_nothing_to_go_live() {
    let (radio, origin) =
        tune(|request, station| Answer::station(request, station).stall_after(50_000), |_| ());
    let handle = radio.handle();
    let events = handle.subscribe();
    let read_all = |mut radio: Radio, end: &dyn Fn()| {
        let reader = std::thread::spawn(move || (read_to_error(&mut radio).0, radio));
        poll_until("it waits for the next byte", || {
            handle.phase() == Phase::Stalled && handle.position() > 40_000
        });
        end();
        reader.join().unwrap().1
    };
    let radio = read_all(radio, &|| handle.interrupt());
    handle.resume();
    handle.go_live();
    read_all(radio, &|| handle.cancel());
    let skipped =
        std::iter::from_fn(|| events.try_recv()).find(|event| matches!(event, RadioEvent::Skipped { .. }));
    assert_eq!(skipped.map(|event| format!("{event:?}")), None);
    assert_eq!(origin.log().requests.len(), 1);
}

#[test]
fn a_long_pause_continues_where_it_was_if_configured() {
    let (mut radio, origin) = tune(Answer::station, |config| {
        config.ahead = 100_000;
        config.pause_limit = Duration::ZERO;
        config.after_pause = AfterPause::Continue;
    });
    radio.handle().wait_buffered(70_000, PATIENCE).unwrap();
    assert_pattern(0, &read_exactly(&mut radio, 5_000_000));
    assert_eq!(origin.log().requests.len(), 1);
}

#[test]
fn a_seek_moves_within_the_window_only() {
    let (mut radio, _origin) = tune(Answer::station, |config| {
        config.behind = 200_000;
        config.ahead = 300_000;
    });
    let handle = radio.handle();
    read_exactly(&mut radio, 1_000_000);
    handle.wait_buffered(225_000, PATIENCE).unwrap();
    let window = handle.window();
    assert!(window.start <= 800_000 && window.start > 400_000, "{window:?}");
    assert!(window.end >= 1_225_000 && window.end <= 1_300_000, "{window:?}");
    for target in [window.start, 900_000, window.start] {
        assert_eq!(radio.seek(SeekFrom::Start(target)).unwrap(), target);
        assert_pattern(target, &read_exactly(&mut radio, 20_000));
    }
    assert_eq!(radio.seek(SeekFrom::Current(1000)).unwrap(), window.start + 21_000);
    assert_eq!(handle.window().start, window.start);

    for target in [
        SeekFrom::Start(0),
        SeekFrom::Start(window.start - 1),
        SeekFrom::Start(2_000_000),
        SeekFrom::Current(i64::MIN),
    ] {
        let error = Error::from(radio.seek(target).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::OutOfWindow, "{target:?}");
        let kept = error.range().unwrap();
        assert_eq!(kept.start, window.start);
        assert!(kept.end >= window.end);
    }
    let error = Error::from(radio.seek(SeekFrom::End(0)).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(radio.stream_position().unwrap(), window.start + 21_000);
    assert_pattern(window.start + 21_000, &read_exactly(&mut radio, 2_000_000));
}

/// A seek to bytes that are about to be evicted is refused or served, but never with wrong bytes.
#[test]
fn a_window_that_moves_on_never_serves_a_wrong_byte() {
    let (mut radio, _origin) = tune(Answer::station, |config| {
        config.behind = 100_000;
        config.ahead = 100_000;
    });
    let mut position = 0_u64;
    let mut served = 0;
    for round in 0..2000_u64 {
        let part = read_exactly(&mut radio, 10_000);
        assert_pattern(position, &part);
        position += part.len() as u64;
        let back = position.saturating_sub(round * 7919 % 130_000);
        if radio.seek(SeekFrom::Start(back)).is_ok() {
            assert_pattern(back, &read_exactly(&mut radio, 1000));
            served += 1;
            radio.seek(SeekFrom::Start(position)).unwrap();
        }
    }
    assert!(served > 100, "{served}");
}

fn silent_radio(origin: &Origin, downloader: &Downloader) -> Radio {
    open(downloader, origin, |config| config.read_timeout = None)
}

fn silent_origin() -> Origin {
    let audio = Content::pattern(100_000);
    Origin::start(move |_| Answer::whole(&audio).no_length().stall_after(1000))
}

#[test]
fn an_interrupt_ends_a_read_and_the_radio_continues() {
    let origin = silent_origin();
    let downloader = downloader();
    let mut radio = silent_radio(&origin, &downloader);
    let handle = radio.handle();
    handle.wait_buffered(1000, None).unwrap();
    let reader = std::thread::spawn(move || {
        let (audio, error) = read_to_error(&mut radio);
        assert_eq!((audio.len(), error.kind()), (1000, ErrorKind::Interrupted));
        // No read waits until it is resumed, and stored audio is served.
        assert_eq!(read_to_error(&mut radio).1.kind(), ErrorKind::Interrupted);
        radio.seek(SeekFrom::Start(0)).unwrap();
        assert_pattern(0, &read_exactly(&mut radio, 1000));
        radio
    });
    handle.interrupt();
    let mut radio = reader.join().unwrap();
    handle.resume();
    origin.release();
    assert_pattern(1000, &read_exactly(&mut radio, 1000));
}

#[test]
fn a_cancelled_radio_serves_its_stored_audio_and_ends() {
    let origin = silent_origin();
    let downloader = downloader();
    let mut radio = silent_radio(&origin, &downloader);
    let handle = radio.handle();
    handle.wait_buffered(1000, None).unwrap();
    handle.cancel();
    let (audio, error) = read_to_error(&mut radio);
    assert_eq!(audio.len(), 1000);
    assert!(error.is_cancelled(), "{error:?}");
    origin.wait_until("closed connection", |log| log.open == 0);
}

#[test]
fn a_read_that_times_out_names_the_cause_and_the_radio_continues() {
    let is_there = Arc::new(AtomicBool::new(false));
    let station = station(1000, 100);
    let there = Arc::clone(&is_there);
    let origin = Origin::start(move |request| {
        if there.load(Ordering::Acquire) { Answer::station(request, &station) } else { Answer::status(502) }
    });
    let mut radio =
        open(&downloader(), &origin, |config| config.read_timeout = Some(Duration::from_millis(300)));
    origin.wait_until("answer", |log| log.requests.len() == 2);
    let (_, error) = read_to_error(&mut radio);
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("502")));
    is_there.store(true, Ordering::Release);
    let mut audio = [0; 1000];
    while let Err(error) = radio.read_exact(&mut audio) {
        assert_eq!(Error::from(error).kind(), ErrorKind::TimedOut);
    }
    assert_pattern(0, &audio);
}

/// With timeouts of an hour, so that only the drop can end the radio.
#[test]
fn a_drop_returns_at_once_whatever_the_thread_does() {
    let downloader = downloader_with(|config| {
        config.client.silence_timeout = Duration::from_secs(3600);
        config.client.connect_timeout = Duration::from_secs(3600);
    });
    let station = station(1000, 100);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/head" => Answer::status(200).latency_until_released(),
        "/body" => Answer::station(request, &station).stall_after(5000),
        "/full" => Answer::station(request, &station),
        _ => Answer::status(503).header("Retry-After", "3600"),
    });
    for path in ["/head", "/body", "/full", "/away"] {
        for _ in 0..50 {
            let before = origin.log().requests.len();
            let radio = downloader.open_radio(&origin.url(path), RadioConfig::default()).unwrap();
            let handle = radio.handle();
            match path {
                "/body" => handle.wait_buffered(4000, PATIENCE).unwrap(),
                "/full" => handle.wait_buffered(4_000_000, PATIENCE).unwrap(),
                _ => origin.wait_until("request", |log| log.requests.len() > before),
            }
            drop(radio);
            // Waits of its handles end, and none waits for more than the window can hold.
            let ended = handle.wait_buffered(4_161_536, None);
            assert!(ended.map_or_else(|error| error.is_cancelled(), |()| path == "/full"));
            assert_eq!(handle.wait_buffered(4_161_537, None).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert!(matches!(handle.subscribe().last(), Some(RadioEvent::Ended { .. })));
        }
    }
    // The connection of a response that was read to its end is in the pool.
    drop(downloader);
    origin.wait_until("closed connection", |log| log.open == 0);
}

#[test]
fn stopping_the_downloader_ends_the_radio() {
    let origin = silent_origin();
    let downloader = downloader();
    let mut radio = silent_radio(&origin, &downloader);
    radio.handle().wait_buffered(1000, None).unwrap();
    downloader.stop();
    let (audio, error) = read_to_error(&mut radio);
    assert_eq!(
        (audio.len(), error.kind()),
        (1000, ErrorKind::Cancelled(windway::downloader::CancelReason::Shutdown))
    );
}

#[test]
fn a_password_in_a_url_is_sent_and_not_shown() {
    let station = station(1000, 100);
    let origin = Origin::start(move |request| Answer::station(request, &station).close_after(10_000));
    let url = origin.url("/live").replace("//", "//user:secret@");
    let mut radio = downloader().open_radio(&url, config(|_| ())).unwrap();
    assert_eq!(radio.handle().url(), radio.url());
    read_exactly(&mut radio, 20_000);
    let requests = origin.log().requests;
    let sent = |number: usize| requests[number].header("authorization").is_some();
    assert!(sent(0) && sent(1));
    let shown = format!("{radio:?} {:?} {:?}", radio.handle(), radio.seek(SeekFrom::End(0)));
    assert!(shown.contains("/live") && !shown.contains("secret"), "{shown}");
}

#[test]
fn invalid_input_is_refused_at_once() {
    let downloader = downloader();
    let kind = |url: &str, change: fn(&mut RadioConfig)| {
        downloader.open_radio(url, config(change)).unwrap_err().kind()
    };
    assert_eq!(kind("nonsense", |_| ()), ErrorKind::InvalidUrl);
    assert_eq!(kind("icy://host/", |_| ()), ErrorKind::UnsupportedScheme);
    assert_eq!(kind("http://host/", |config| config.ahead = 0), ErrorKind::InvalidConfig);
    assert_eq!(downloader.stats().peers, 0);
}

const OGG: &[u8] = include_bytes!("data/track.ogg");
const FLAC: &[u8] = include_bytes!("data/track.flac");
const MP3: &[u8] = include_bytes!("data/track.mp3");

/// A station that plays a track from its start on each connection, up to the next of `cuts`, and answers 410 after the last.
fn cut_station(track: &'static [u8], cuts: &[usize]) -> Origin {
    let (content, cuts) = (Content::bytes(track), cuts.to_vec());
    Origin::start(move |request| {
        let answer = Answer::whole(&content).no_length();
        match cuts.get(request.number) {
            Some(cut) => answer.close_after(*cut as u64),
            None => Answer::status(410),
        }
    })
}

/// All samples of a source, up to its end or to the cut.
fn decode<'s>(source: Box<dyn MediaSource + 's>) -> Result<Vec<f32>, SymphoniaError> {
    let is_cut = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    let mut decoding = match Decoding::try_open(source) {
        Ok(decoding) => decoding,
        Err(SymphoniaError::IoError(error)) if is_cut(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    loop {
        match decoding.samples() {
            Ok(Some(samples)) => all.extend(samples),
            Ok(None) => return Ok(all),
            Err(SymphoniaError::IoError(error)) if is_cut(&error) => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

/// Cuts within headers, within and between pages and frames, and no cut.
#[test]
fn each_connection_is_decoded_as_its_own_file_if_reads_end_at_discontinuities() {
    // In parallel: most of the time is delays before new connections.
    std::thread::scope(|scope| {
        scope.spawn(|| decode_between_cuts(OGG, [20_000, 2000, 30_000, OGG.len(), 100]));
        scope.spawn(|| decode_between_cuts(FLAC, [20_000, 100, 100_000, FLAC.len(), 100]));
        scope.spawn(|| decode_between_cuts(MP3, [20_000, 8_300, 50_000, MP3.len(), 100]));
    });
}

fn decode_between_cuts(track: &'static [u8], cuts: [usize; 5]) {
    let origin = cut_station(track, &cuts);
    let mut radio =
        open(&downloader(), &origin, |config| config.on_discontinuity = OnDiscontinuity::EndOfStream);
    for (number, cut) in cuts.iter().enumerate().take(cuts.len() - 1) {
        // Cut headers may be an error, also for the file.
        let heard = decode(Box::new(LiveSource(&mut radio))).unwrap_or_default();
        let expected = decode(Box::new(Cursor::new(&track[..*cut]))).unwrap_or_default();
        assert!(heard == expected, "{} samples, not {}, up to {cut}", heard.len(), expected.len());
        assert_eq!(radio.handle().position(), cuts[..=number].iter().sum::<usize>() as u64);
        assert!(radio.handle().pass_discontinuity());
    }
    // The end of the radio is an error and not another discontinuity.
    assert!(matches!(decode(Box::new(LiveSource(&mut radio))), Err(SymphoniaError::IoError(_))));
}

/// A new Ogg stream begins on each connection, as at each title of chained Ogg, which decoders support.
#[test]
fn a_decoder_of_chained_ogg_plays_across_discontinuities() {
    const CUTS: &[usize] = &[20_000, 10_100, 30_000, OGG.len()];
    let origin = cut_station(OGG, CUTS);
    let radio = open(&downloader(), &origin, |_| ());
    let mut decoding = Decoding::open(Box::new(LiveSource(radio)));
    let mut heard = Vec::new();
    let end = loop {
        match decoding.samples() {
            Ok(samples) => heard.extend(samples.expect("no end without an error")),
            Err(SymphoniaError::ResetRequired) => decoding.reset().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, SymphoniaError::IoError(_)), "{end}");
    let expected: Vec<f32> =
        CUTS.iter().flat_map(|cut| decode(Box::new(Cursor::new(&OGG[..*cut]))).unwrap()).collect();
    assert!(heard == expected, "{} samples, not {}", heard.len(), expected.len());
}

#[test]
fn reads_end_at_each_discontinuity_until_it_is_passed() {
    const CUTS: &[usize] = &[30_000, 1000, 50_000];
    let origin = cut_station(FLAC, CUTS);
    let mut radio =
        open(&downloader(), &origin, |config| config.on_discontinuity = OnDiscontinuity::EndOfStream);
    let handle = radio.handle();
    let read_part = |radio: &mut Radio, expected: &[u8]| {
        let mut audio = Vec::new();
        radio.read_to_end(&mut audio).unwrap();
        assert!(audio == expected, "{} bytes, not {}, or others", audio.len(), expected.len());
        assert_eq!(radio.read(&mut [0; 10]).unwrap(), 0);
    };
    assert!(!handle.pass_discontinuity());
    read_part(&mut radio, &FLAC[..30_000]);
    assert!(handle.pass_discontinuity());
    assert!(!handle.pass_discontinuity());
    read_part(&mut radio, &FLAC[..1000]);
    assert_eq!(handle.position(), 31_000);

    // Across both discontinuities again. A seek to the current position changes nothing. A seek to a discontinuity passes it.
    assert_eq!(radio.seek(SeekFrom::Start(29_990)).unwrap(), 29_990);
    read_part(&mut radio, &FLAC[29_990..30_000]);
    let nowhere = SeekFrom::Current(0);
    assert_eq!(radio.seek(nowhere).unwrap(), 30_000);
    read_part(&mut radio, &[]);
    radio.seek(SeekFrom::Start(30_000)).unwrap();
    read_part(&mut radio, &FLAC[..1000]);
    assert!(handle.pass_discontinuity());
    let (audio, error) = read_to_error(&mut radio);
    assert!(audio == FLAC[..50_000], "{} bytes, or others", audio.len());
    assert_eq!(error.kind(), ErrorKind::Status(410));
}

#[test]
fn a_read_ends_at_the_discontinuity_after_a_pause() {
    let (mut radio, _origin) = tune(Answer::station, |config| {
        config.ahead = 100_000;
        config.pause_limit = Duration::from_millis(500);
        config.on_discontinuity = OnDiscontinuity::EndOfStream;
    });
    let events = radio.handle().subscribe();
    assert_pattern(0, &read_exactly(&mut radio, 1000));
    await_event(&events, |event| matches!(event, RadioEvent::Paused { .. }).then_some(()));
    assert_eq!(radio.read(&mut [0; 1000]).unwrap(), 0);
    assert!(radio.handle().pass_discontinuity());
    assert_pattern(0, &read_exactly(&mut radio, 50_000));
}

#[test]
fn a_file_with_unrequested_titles_in_it_is_refused_with_advice() {
    type Handler = Box<dyn Fn(&Request) -> Answer + Send + Sync>;
    let audio = Content::pattern(1 << 40);
    let station = Content::icy(&audio, 16_000, 2, &["Artist - Title"]);
    let endless = |content: &Content| Answer::whole(content).no_length().header("icy-metaint", "16000");
    let short = Content::bytes({
        let mut bytes = Vec::new();
        station.append(&mut bytes, 0..300_000);
        bytes
    });
    let answers: [(&str, Handler); 3] = [
        ("a station", Box::new(move |_| endless(&station))),
        ("a recording", {
            let short = short.clone();
            Box::new(move |_| Answer::whole(&short).header("Icy-MetaInt", "16000"))
        }),
        // The positions of the titles in a part cannot even be known.
        ("a part", Box::new(move |request| Answer::file(request, &short).header("icy-metaint", "16000"))),
    ];
    for (what, answer) in answers {
        let origin = Origin::start(answer);
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let error = downloader.open(&origin.url("/live")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encoded, "{what}: {error:?}");
        assert!(error.to_string().contains("Radio"), "{what}: {error}");
    }
}

#[test]
fn a_file_with_requested_titles_or_without_an_interval_is_read() {
    let content = Content::pattern(300_000);
    for (interval, asks) in [("0", false), ("none", false), ("16000", true)] {
        let content = content.clone();
        let origin =
            Origin::start(move |request| Answer::file(request, &content).header("icy-metaint", interval));
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let mut config = FileConfig::default();
        if asks {
            config.headers.push(("Icy-MetaData".into(), "1".into()));
        }
        let mut stream = downloader.open_with(&origin.url("/file"), config).unwrap();
        assert_whole(&mut stream, 300_000);
    }
}
