//! Keys and initialization sections that servers hold back, cut, replace, swell or change.
#![cfg(feature = "hls-aes")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::time::{Duration, Instant};

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockEncryptMut, KeyIvInit};
use presentation::{FRAMES, Site, extinf, mp4, numbers, segment_frames, site, ts, vod};
use support::mux::{self, Entry};
use support::{Answer, Content, Origin, Request};
use windway::hls::{Discontinuity, Hls, HlsConfig, Section};
use windway::media::AudioCodec;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind};

const KEY: [u8; 16] = [7; 16];

/// Turns a good answer into another one.
type Lie = fn(Answer) -> Answer;

fn encrypt(plain: &[u8]) -> Vec<u8> {
    let cipher = cbc::Encryptor::<aes::Aes128>::new(&KEY.into(), &5_u128.to_be_bytes().into());
    cipher.encrypt_padded_vec_mut::<Pkcs7>(plain)
}

/// Four encrypted segments.
fn encrypted() -> Site {
    let lines: String = (0..4).map(|index| extinf(&format!("{index}.ts"))).collect();
    let list = vod(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV=0x05\n{lines}"));
    let site = Site::default().with("/list.m3u8", list).with("/key", KEY);
    (0..4).fold(site, |site, index| site.with(&format!("/{index}.ts"), encrypt(&ts(index))))
}

/// Gives up silent servers after 300 ms.
fn impatient() -> Downloader {
    let mut config = DownloaderConfig::default();
    config.max_retries = 0;
    config.client.silence_timeout = Duration::from_millis(300);
    Downloader::new(config).unwrap()
}

fn open(origin: &Origin) -> Result<Hls, Error> {
    let mut config = HlsConfig::default();
    config.read_timeout = Some(Duration::from_secs(5));
    impatient().open_hls(&origin.url("/list.m3u8"), config)
}

/// What is played up to the end or an error: the frames of all sections, and the error.
fn play(mut hls: Hls) -> (Vec<u64>, Option<Error>) {
    let mut frames = Vec::new();
    loop {
        match hls.next_section() {
            Ok(Some(mut section)) => {
                let mut bytes = Vec::new();
                let read = section.read_to_end(&mut bytes);
                frames.extend(numbers(&bytes));
                if let Err(error) = read {
                    return (frames, Some(error.into()));
                }
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// As `play`, over so many errors: a silent server is an outage, in which reads end at their timeout.
fn play_on(mut hls: Hls, most: usize) -> (Vec<u64>, usize) {
    let (mut bytes, mut errors, mut section) = (Vec::new(), 0, None);
    while errors < most {
        let mut chunk = [0; 4096];
        match section.as_mut().map(|section: &mut Section| section.read(&mut chunk)) {
            None => match hls.next_section() {
                Ok(Some(next)) => section = Some(next),
                Ok(None) => break,
                Err(_) => errors += 1,
            },
            Some(Ok(0)) => section = None,
            Some(Ok(got)) => bytes.extend_from_slice(&chunk[..got]),
            Some(Err(_)) => errors += 1,
        }
    }
    (numbers(&bytes), errors)
}

/// `site`, but for one path.
fn serve(
    site: Site,
    path: &'static str,
    answer: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> Origin {
    Origin::start(move |request| {
        let good = site.answer(request);
        if request.path == path { answer(request, good) } else { good }
    })
}

fn everything() -> Vec<u64> {
    (0..4 * FRAMES).collect()
}

#[test]
fn a_key_that_is_not_one_is_a_typed_error_and_nothing_is_played() {
    let page = b"<html>log in</html>".to_vec();
    let pages = [
        vec![7; 15],
        vec![7; 17],
        page.clone(),
        page.repeat(1000),
        b"<html>16</html>\n".to_vec(),
        Vec::new(),
    ];
    for body in pages {
        let len = body.len();
        let origin = encrypted().with("/key", body).serve();
        let (frames, error) = play(open(&origin).unwrap());
        assert!(frames.is_empty(), "{len} bytes");
        let error = error.unwrap_or_else(|| panic!("{len} bytes: nothing is said"));
        assert!(matches!(error.kind(), ErrorKind::Unsupported), "{len} bytes: {error}");
        assert!(origin.log().requests.len() < 20, "{len} bytes");
    }
}

#[test]
fn a_key_of_200_mb_is_not_downloaded() {
    let origin = serve(encrypted(), "/key", |_, _| Answer::whole(&Content::pattern(200 << 20)));
    let (frames, error) = play(open(&origin).unwrap());
    assert!(frames.is_empty());
    assert_eq!(error.unwrap().kind(), ErrorKind::TooLarge);
}

#[test]
fn a_key_that_is_refused_once_or_comes_slowly_costs_no_frame() {
    for status in [401, 403, 404, 410, 429, 500, 503] {
        let origin =
            serve(
                encrypted(),
                "/key",
                move |request, good| {
                    if request.again == 0 { Answer::status(status) } else { good }
                },
            );
        let (frames, error) = play(open(&origin).unwrap());
        assert_eq!(frames, everything(), "{status}: {error:?}");
    }
    let drip = serve(encrypted(), "/key", |_, good| good.chunks_of(1, Duration::from_millis(50)));
    let hls = presentation::open(&drip, "/list.m3u8", |_| ());
    let (frames, error) = play(hls);
    assert_eq!(frames, everything(), "{error:?}");
}

#[test]
fn a_key_server_that_hangs_is_an_error_in_time_or_another_level() {
    let hanging: [Lie; 3] =
        [|good| good.stall_in_head(0), |good| good.stall_in_head(20), |good| good.stall_after(8)];
    for hang in hanging {
        let origin = serve(encrypted(), "/key", move |_, good| hang(good));
        let began = Instant::now();
        let (frames, error) = play(open(&origin).unwrap());
        assert!(frames.is_empty());
        let kind = error.unwrap().kind();
        assert!(matches!(kind, ErrorKind::TimedOut | ErrorKind::Silent), "{kind:?}");
        assert!(began.elapsed() < support::PATIENCE);
        let levels =
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nsealed.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nts.m3u8\n";
        let lines: String = (0..4).map(|index| extinf(&format!("{index}.ts"))).collect();
        let sealed = vod(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV=0x05\n{lines}"));
        let both = site(4).with("/list.m3u8", levels).with("/sealed.m3u8", sealed).with("/key", KEY);
        let origin = serve(both, "/key", move |_, good| hang(good));
        let mut config = HlsConfig::default();
        config.quality = windway::hls::Quality::Fixed(0);
        let hls = impatient().open_hls(&origin.url("/list.m3u8"), config).unwrap();
        // The first time it may be the network.
        let (frames, errors) = play_on(hls, 3);
        assert!(errors <= 1 && frames == everything(), "{errors} errors, {} frames", frames.len());
    }
}

/// A presentation of fragments, each with the initialization section `inits` names.
fn fragments(inits: &[&str]) -> Site {
    let mut lines = String::new();
    let mut site = Site::default().with("/init.mp4", mux::init(&Entry::Aac(3), 48_000, 0));
    for (index, init) in inits.iter().enumerate() {
        lines.push_str(&format!("#EXT-X-MAP:URI=\"{init}\"\n{}", extinf(&format!("{index}.m4s"))));
        site = site.with(&format!("/{index}.m4s"), mp4(index as u64));
    }
    site.with("/list.m3u8", vod(&lines))
}

#[test]
fn an_initialization_section_that_can_not_be_had_skips_its_segments_only() {
    let lies: [(&str, Lie); 6] = [
        ("hangs", |good| good.stall_in_head(0)),
        ("hangs in the body", |good| good.stall_after(100)),
        ("100 MB", |_| Answer::whole(&Content::pattern(100 << 20))),
        ("a page", |_| Answer::whole(&Content::bytes(b"<html></html>".to_vec()))),
        ("empty", |_| Answer::whole(&Content::bytes(Vec::new()))),
        ("missing", |_| Answer::status(404)),
    ];
    for (what, lie) in lies {
        let site = fragments(&["init.mp4", "init.mp4", "bad.mp4", "init.mp4"]);
        let site = site.with("/bad.mp4", mux::init(&Entry::Aac(3), 48_000, 0));
        let origin = serve(site, "/bad.mp4", move |_, good| lie(good));
        let mut config = HlsConfig::default();
        // A server that hangs is asked again until then.
        let limit = if what.starts_with("hangs") { 2 } else { 20 };
        config.read_timeout = Some(Duration::from_secs(limit));
        let hls = impatient().open_hls(&origin.url("/list.m3u8"), config).unwrap();
        let (frames, errors) = play_on(hls, 3);
        assert!(frames.starts_with(&(0..2 * FRAMES).collect::<Vec<_>>()), "{what}");
        if !what.starts_with("hangs") {
            assert_eq!(errors, 0, "{what}");
            assert!(frames.iter().copied().eq((0..2 * FRAMES).chain(3 * FRAMES..4 * FRAMES)), "{what}");
        }
    }
}

#[test]
fn an_initialization_section_with_another_format_begins_a_section() {
    // The core codec at 44.1 kHz, and FLAC.
    let site = fragments(&["init.mp4", "other.mp4", "init.mp4", "flac.mp4"]);
    let site = site.with("/other.mp4", mux::init(&Entry::Aac(4), 48_000, 0));
    let origin = site.with("/flac.mp4", mux::init(&Entry::Flac, 48_000, 0)).serve();
    let mut hls = open(&origin).unwrap();
    let mut sections = Vec::new();
    while let Some(mut section) = hls.next_section().unwrap() {
        let info = section.info().clone();
        let len = presentation::all(&mut section).len();
        sections.push((info.discontinuity, info.codec, info.sample_rate, len > 0));
    }
    let format = Discontinuity::Format;
    assert_eq!(
        sections,
        [
            (Discontinuity::Start, AudioCodec::Aac, 48_000, true),
            (format, AudioCodec::Aac, 44_100, true),
            (format, AudioCodec::Aac, 48_000, true),
            (format, AudioCodec::Flac, 44_100, true),
        ]
    );
}

#[test]
fn an_encrypted_initialization_section_serves_clear_segments() {
    let lines: String = (0..3).map(|index| extinf(&format!("{index}.m4s"))).collect();
    let list = vod(&format!(
        "#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV=0x05\n#EXT-X-MAP:URI=\"init\"\n#EXT-X-KEY:METHOD=NONE\n{lines}"
    ));
    let init = encrypt(&mux::init(&Entry::Aac(3), 48_000, 0));
    let site = site(3).with("/list.m3u8", list).with("/init", init).with("/key", KEY);
    let origin = site.serve();
    let (frames, error) = play(open(&origin).unwrap());
    assert!(frames.iter().copied().eq(0..3 * FRAMES), "{error:?}");
    // And the other way round.
    let lines: String = (0..3).map(|index| extinf(&index.to_string())).collect();
    let list =
        vod(&format!("#EXT-X-MAP:URI=\"init\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV=0x05\n{lines}"));
    let site = Site::default().with("/list.m3u8", list).with("/init", mux::init(&Entry::Aac(3), 48_000, 0));
    let site = (0..3).fold(site, |site, index| site.with(&format!("/{index}"), encrypt(&mp4(index))));
    let origin = site.with("/key", KEY).serve();
    let (frames, error) = play(open(&origin).unwrap());
    assert!(frames.iter().copied().eq(0..3 * FRAMES), "{error:?}");
    assert_eq!(segment_frames(0).len() as u64, FRAMES);
}

#[test]
fn a_silent_key_holds_no_segment_that_has_another_one() {
    let key = |index: u64| format!("#EXT-X-KEY:METHOD=AES-128,URI=\"k{index}\",IV=0x05\n");
    let lines: String = (0..4).map(|index| key(index) + &extinf(&format!("{index}.ts"))).collect();
    let site = (0..4).fold(encrypted().with("/list.m3u8", vod(&lines)), |site, index| {
        site.with(&format!("/k{index}"), KEY)
    });
    let origin = serve(site, "/k0", |_, good| good.latency_until_released());
    let hls = presentation::open(&origin, "/list.m3u8", |_| ());
    let reading = std::thread::spawn(|| play(hls));
    origin.wait_until("all segments", |log| {
        (1..4).all(|index| log.requests.iter().any(|request| request.path == format!("/{index}.ts")))
    });
    origin.release();
    let (frames, error) = support::in_time("playing", move || reading.join().unwrap());
    assert_eq!(frames, everything(), "{error:?}");
}
