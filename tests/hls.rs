//! HLS: exact frames from every container, over seeks, levels, keys, gaps and a live window.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use presentation::{
    FRAMES, SEGMENT, Site, all, downloader, extinf, mp4, numbers, open, play, segment_frames, site, vod,
};
use support::mux::{self, Entry, Random, Ts, aac_frames, adts, fragment};
use support::{Answer, Content, Origin, Request};
use windway::abr::{Abr, AbrConfig, Running, Snapshot};
use windway::config::{CookieJar, Cookies};
use windway::downloader::CancelReason;
use windway::hls::{Discontinuity, HlsConfig, HlsEvent, HlsKind, MakeAbr, Quality};
use windway::media::AudioCodec;
use windway::stream::{Pending, Phase, TryRead};
use windway::{ClientConfig, Downloader, DownloaderConfig, Error, ErrorKind, Stream};

#[test]
fn every_container_gives_each_frame_once() {
    let origin = site(5).serve();
    for path in ["/aac.m3u8", "/ts.m3u8", "/mp4.m3u8", "/ranges.m3u8"] {
        let mut hls = open(&origin, path, |_| ());
        let handle = hls.handle();
        assert_eq!(handle.kind(), HlsKind::Vod);
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        assert_eq!((info.codec, info.sample_rate, info.channels), (AudioCodec::Aac, 48_000, 2), "{path}");
        assert_eq!((info.start, info.discontinuity), (Duration::ZERO, Discontinuity::Start));
        assert_eq!(numbers(&all(&mut section)), (0..5 * FRAMES).collect::<Vec<_>>(), "{path}");
        assert!(hls.next_section().unwrap().is_none());
        let duration = handle.duration().unwrap().as_secs_f64();
        assert!((duration - 5.0 * SEGMENT).abs() < 0.001);
        assert!((handle.position().as_secs_f64() - duration).abs() < 0.001, "{path}");
    }
    assert!(origin.log().requests.iter().all(|request| request.method == "GET"));
}

#[test]
fn statistics_count_what_was_fetched_and_read() {
    let origin = site(5).serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    let handle = hls.handle();
    let bytes = all(&mut hls.next_section().unwrap().unwrap()).len() as u64;
    assert!(hls.next_section().unwrap().is_none());
    let stats = handle.stats();
    assert!(stats.requests >= 6, "the playlist and 5 segments: {stats:?}");
    assert_eq!((stats.bytes_read, stats.bytes_dropped), (bytes, 0));
    assert!(stats.bytes_fetched > bytes, "segments and the playlist are larger than the audio: {stats:?}");
    assert!(stats.stalls >= 1, "the first section was waited for: {stats:?}");
    drop(hls);
    assert_eq!(handle.stats(), stats, "the counters outlive the presentation");
}

/// Keeps the last cookie of an origin.
#[derive(Clone, Default)]
struct Jar(Arc<Mutex<Option<String>>>);

impl CookieJar for Jar {
    fn cookies(&self, _: &str) -> Option<String> {
        self.0.lock().unwrap().clone()
    }

    fn store(&self, _: &str, set_cookie: &str) {
        *self.0.lock().unwrap() = set_cookie.split(';').next().map(str::to_owned);
    }
}

#[test]
fn cookies_that_a_playlist_sets_are_sent_for_segments() {
    let site = site(3).with("/all.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000\nmp4.m3u8\n");
    let origin = Origin::start(move |request| {
        let answer = site.answer(request);
        let needed = match request.path.as_str() {
            "/all.m3u8" => return answer.header("Set-Cookie", "playlist=1; Path=/"),
            "/mp4.m3u8" => "playlist=1",
            _ => "session=2",
        };
        if request.header("cookie") != Some(needed) {
            return Answer::status(403);
        }
        if needed == "playlist=1" { answer.header("Set-Cookie", "session=2; HttpOnly") } else { answer }
    });
    let client = ClientConfig::new().cookies(Cookies::new(Jar::default()));
    let downloader = Downloader::new(DownloaderConfig::new().client(client).max_retries(0)).unwrap();
    let mut hls = downloader.open_hls(&origin.url("/all.m3u8"), HlsConfig::default()).unwrap();
    let played: Vec<_> = play(&mut hls).into_iter().flat_map(|(_, numbers)| numbers).collect();
    assert_eq!(played, (0..3 * FRAMES).collect::<Vec<_>>());
}

#[test]
fn times_of_bytes_are_exact() {
    let origin = site(4).serve();
    for path in ["/aac.m3u8", "/ts.m3u8", "/mp4.m3u8"] {
        let mut hls = open(&origin, path, |_| ());
        let mut section = hls.next_section().unwrap().unwrap();
        let mut bytes = vec![0; 1];
        section.read_exact(&mut bytes).unwrap();
        bytes.extend(all(&mut section));
        let mut offset = 0;
        for (index, number) in numbers(&bytes).into_iter().enumerate() {
            let frame = adts(&aac_frames(number, 1)[0], 3);
            let time = section.time_of(offset).unwrap().as_secs_f64();
            // One tick of 90 kHz.
            assert!(
                (time - index as f64 * 1024.0 / 48_000.0).abs() < 0.000_012,
                "{path}: frame {index} at {time}"
            );
            offset += frame.len() as u64;
        }
    }
}

#[test]
fn a_seek_lands_on_its_segment_and_says_what_to_drop() {
    let origin = site(20).serve();
    let mut random = Random(11);
    for path in ["/ts.m3u8", "/mp4.m3u8"] {
        let mut hls = open(&origin, path, |_| ());
        let mut old = hls.next_section().unwrap().unwrap();
        let mut byte = [0];
        old.read_exact(&mut byte).unwrap();
        for _ in 0..20 {
            let target = Duration::from_millis(random.below((20.0 * SEGMENT * 1000.0) as usize - 1) as u64);
            let landed = hls.seek(target).unwrap();
            assert_eq!(old.read(&mut byte).unwrap(), 0, "the section before the seek ends");
            let mut section = hls.next_section().unwrap().unwrap();
            let info = section.info().clone();
            assert_eq!(info.discontinuity, Discontinuity::Seek);
            assert!(landed.abs_diff(info.start) < Duration::from_millis(1), "{landed:?} {:?}", info.start);
            assert_eq!(info.start + info.skip, target);
            let index = (info.start.as_secs_f64() / SEGMENT).round() as u64;
            let mut head = vec![0; 15];
            section.read_exact(&mut head).unwrap();
            assert_eq!(
                u64::from_be_bytes(head[7..15].try_into().unwrap()),
                index * FRAMES,
                "{path} at {target:?}"
            );
            old = section;
        }
        assert_eq!(hls.seek(Duration::from_secs(3600)).unwrap_err().kind(), ErrorKind::OutOfWindow);
    }
}

#[test]
fn after_the_end_a_seek_plays_again() {
    let origin = site(3).serve();
    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    assert_eq!(play(&mut hls).len(), 1);
    hls.seek(Duration::ZERO).unwrap();
    assert_eq!(play(&mut hls), [(Discontinuity::Seek, (0..3 * FRAMES).collect())]);
}

#[test]
fn a_multivariant_playlist_leads_to_the_level_that_was_asked_for() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=256000,CODECS=\"mp4a.40.2\"\nhi/list.m3u8\n\
                  #EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\nlo/list.m3u8\n";
    let lines: String = (0..3).map(|index| extinf(&format!("../{index}.ts"))).collect();
    let site =
        site(3).with("/a/master.m3u8", master).with("/a/lo/list.m3u8", vod(&lines.replace("../", "../../")));
    let site = site.with("/a/hi/list.m3u8", vod(&lines.replace("../", "../../")));
    let origin = Origin::start(move |request| match request.path.as_str() {
        // Relative URIs refer to the URL after redirects.
        "/master.m3u8" => Answer::redirect(302, "/a/master.m3u8"),
        _ => site.answer(request),
    });
    for (quality, path) in [(0, "/a/lo/list.m3u8"), (1, "/a/hi/list.m3u8"), (9, "/a/hi/list.m3u8")] {
        let before = origin.log().requests.len();
        let mut hls = open(&origin, "/master.m3u8", |config| config.quality = Quality::Fixed(quality));
        assert_eq!(
            hls.handle().levels().iter().map(|level| level.bandwidth).collect::<Vec<_>>(),
            [64_000, 256_000]
        );
        assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..3 * FRAMES).collect())]);
        let lists = origin.log().requests[before..]
            .iter()
            .filter(|request| request.path.ends_with("list.m3u8"))
            .count();
        assert_eq!(lists, 1, "section 6.3.2: only the list that is played is loaded");
        assert!(origin.log().requests[before..].iter().any(|request| request.path == path));
    }
}

#[test]
fn a_change_of_level_loses_and_repeats_no_frame() {
    let master =
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/ts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n/mp4.m3u8\n";
    let origin = site(60).with("/master.m3u8", master).serve();
    let mut hls = open(&origin, "/master.m3u8", |config| {
        config.quality = Quality::Fixed(0);
        config.buffer = Duration::from_secs(5);
    });
    let handle = hls.handle();
    let mut section = hls.next_section().unwrap().unwrap();
    let mut bytes = vec![0; 30_000];
    section.read_exact(&mut bytes).unwrap();
    handle.set_quality(Quality::Fixed(1));
    // Requested at once, although nothing has room. Until it has arrived, the segments are of the old level.
    origin.wait_until("the playlist", |log| log.requests.iter().any(|request| request.path == "/mp4.m3u8"));
    bytes.extend(all(&mut section));
    assert_eq!(numbers(&bytes), (0..60 * FRAMES).collect::<Vec<_>>());
    assert!(
        origin.log().requests.iter().any(|request| request.path.ends_with(".m4s")),
        "the other level was fetched"
    );
    assert!(hls.next_section().unwrap().is_none());
}

#[test]
fn a_segment_that_would_arrive_too_late_is_replaced_by_a_lower_level() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000\n/ts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=900000\n/mp4.m3u8\n";
    let site = site(4).with("/master.m3u8", master);
    let origin = Origin::start(move |request| match request.path.ends_with(".m4s") {
        // The first bytes come, and the rest would take minutes.
        true => site.answer(request).rate(2000),
        false => site.answer(request),
    });
    let mut hls = open(&origin, "/master.m3u8", |config| {
        let mut abr = AbrConfig::default();
        abr.start = 1_000_000;
        config.quality = Quality::Auto(abr);
    });
    assert_eq!(hls.handle().level(), 1);
    let events = hls.handle().subscribe();
    let sections = play(&mut hls);
    let is_abandoned = |event: &HlsEvent| matches!(event, HlsEvent::Abandoned { level: 1, .. });
    assert!(std::iter::from_fn(|| events.try_recv()).any(|event| is_abandoned(&event)));
    assert_eq!(sections, [(Discontinuity::Start, (0..4 * FRAMES).collect())]);
    assert!(
        origin.log().requests.iter().any(|request| request.path.ends_with("/0.ts")),
        "the lower level was fetched"
    );
    // The network is fast for the other level. All the same the slow one is tried less and less.
    let tried = origin.log().requests.iter().filter(|request| request.path.ends_with(".m4s")).count();
    assert!(tried <= 8, "{tried}");
}

#[test]
fn a_segment_of_which_nothing_arrives_any_more_is_replaced_by_a_lower_level() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000\n/ts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=900000\n/mp4.m3u8\n";
    let site = site(4).with("/master.m3u8", master);
    let origin = Origin::start(move |request| match request.path.ends_with(".m4s") {
        true => site.answer(request).stall_after(2000),
        false => site.answer(request),
    });
    let mut config = DownloaderConfig::default();
    // Only the reader, which waits, can notice it before its own limit.
    config.client.silence_timeout = Duration::from_secs(600);
    let downloader = Downloader::new(config).unwrap();
    let mut config = HlsConfig::default();
    let mut abr = AbrConfig::default();
    abr.start = 1_000_000;
    config.quality = Quality::Auto(abr);
    config.read_timeout = Some(Duration::from_secs(60));
    let mut hls = downloader.open_hls(&origin.url("/master.m3u8"), config).unwrap();
    assert_eq!(hls.handle().level(), 1);
    let events = hls.handle().subscribe();
    assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..4 * FRAMES).collect())]);
    let is_abandoned = |event: &HlsEvent| matches!(event, HlsEvent::Abandoned { level: 1, .. });
    assert!(std::iter::from_fn(|| events.try_recv()).any(|event| is_abandoned(&event)));
}

#[test]
fn a_segment_that_expired_is_fetched_by_the_new_playlist() {
    // Tokens are good for four requests.
    let token = Arc::new(AtomicUsize::new(0));
    let site = site(10);
    let origin = Origin::start(move |request| {
        let current = token.load(Ordering::Relaxed);
        if request.path == "/list.m3u8" {
            let lines: String =
                (0..10).map(|index| extinf(&format!("{index}.ts?t={}", current / 4))).collect();
            return Answer::whole(&Content::bytes(vod(&lines).into_bytes()));
        }
        if !request.path.ends_with(&format!("t={}", current / 4)) {
            return Answer::status(403);
        }
        token.fetch_add(1, Ordering::Relaxed);
        site.answer(request)
    });
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    assert!(play(&mut hls) == [(Discontinuity::Start, (0..10 * FRAMES).collect())], "a frame is missing");
}

#[test]
fn a_bad_segment_is_played_from_another_level_or_skipped() {
    let master =
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/ts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n/mp4.m3u8\n";
    let mut site = site(8).with("/master.m3u8", master).with("/3.ts", *b"<html>not audio</html>");
    site.0.remove("/5.ts");
    let origin = site.clone().serve();
    let mut hls = open(&origin, "/master.m3u8", |config| config.quality = Quality::Fixed(0));
    assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..8 * FRAMES).collect())]);

    let mut hls = open(&origin, "/ts.m3u8", |_| ());
    let sections = play(&mut hls);
    let gap = |sections: &[(Discontinuity, Vec<u64>)], index: usize| match sections[index].0 {
        Discontinuity::Gap(gap) => (gap.as_secs_f64() - SEGMENT).abs() < 0.001,
        _ => false,
    };
    assert!(
        gap(&sections, 1) && gap(&sections, 2),
        "{:?}",
        sections.iter().map(|section| section.0).collect::<Vec<_>>()
    );
    let wanted: Vec<Vec<u64>> = vec![
        (0..3 * FRAMES).collect(),
        (4 * FRAMES..5 * FRAMES).collect(),
        (6 * FRAMES..8 * FRAMES).collect(),
    ];
    assert_eq!(sections.into_iter().map(|section| section.1).collect::<Vec<_>>(), wanted);
}

#[test]
fn a_gap_of_the_playlist_is_not_fetched() {
    let lines = format!("{}#EXT-X-GAP\n{}{}", extinf("0.ts"), extinf("1.ts"), extinf("2.ts"));
    let origin = site(3).with("/gap.m3u8", vod(&lines)).serve();
    let mut hls = open(&origin, "/gap.m3u8", |_| ());
    let sections = play(&mut hls);
    assert_eq!(sections.len(), 2);
    assert!(matches!(sections[1].0, Discontinuity::Gap(_)));
    assert_eq!(sections[1].1, (2 * FRAMES..3 * FRAMES).collect::<Vec<_>>());
    assert!(origin.log().requests.iter().all(|request| request.path != "/1.ts"));
}

#[test]
fn a_discontinuity_ends_a_section_only_if_the_decoder_has_to_change() {
    // The second part begins at another time, in another container; the third has another rate.
    let other: Vec<Vec<u8>> = aac_frames(0, FRAMES).iter().map(|frame| adts(frame, 4)).collect();
    let lines = format!(
        "{}#EXT-X-DISCONTINUITY\n{}#EXT-X-DISCONTINUITY\n{}",
        extinf("0.ts"),
        extinf("9.aac"),
        extinf("other.aac")
    );
    let site = site(10).with("/other.aac", other.concat()).with("/list.m3u8", vod(&lines));
    let origin = site.serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    let sections = play(&mut hls);
    let joined: Vec<u64> = (0..FRAMES).chain(9 * FRAMES..10 * FRAMES).collect();
    assert_eq!(sections, [(Discontinuity::Start, joined), (Discontinuity::Format, (0..FRAMES).collect())]);
}

#[test]
fn segments_that_are_cut_inside_of_frames_are_joined() {
    let frames = mux::mp3_frames(0, 300);
    let bytes = frames.concat();
    let mut site = Site::default();
    let mut lines = String::new();
    for (index, piece) in bytes.chunks(10_000).enumerate() {
        site = site.with(&format!("/{index}.mp3"), piece);
        lines.push_str(&format!("#EXTINF:{:.3},\n{index}.mp3\n", piece.len() as f64 / 16_000.0));
    }
    let origin = site.with("/list.m3u8", vod(&lines)).serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    let mut section = hls.next_section().unwrap().unwrap();
    assert!(all(&mut section) == bytes);
    let end = hls.handle().position().as_secs_f64();
    assert!((end - 300.0 * 1152.0 / 44_100.0).abs() < 0.001, "{end}");
}

#[test]
fn opus_comes_in_pages_of_ogg_that_continue_over_segments() {
    // Packets of one frame of 20 ms.
    let packets = |index: u64| -> Vec<Vec<u8>> {
        aac_frames(index * 10, 10).into_iter().map(|rest| [&[31 << 3][..], &rest].concat()).collect()
    };
    let lines = format!("#EXT-X-MAP:URI=\"opus.mp4\"\n{}{}", extinf("0.opus"), extinf("1.opus"));
    let origin = Site::default()
        .with("/list.m3u8", vod(&lines))
        .with("/opus.mp4", mux::init(&Entry::Opus, 48_000, 0))
        .with("/0.opus", fragment(&packets(0), 0))
        .with("/1.opus", fragment(&packets(1), 10 * 1024))
        .serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    let mut section = hls.next_section().unwrap().unwrap();
    assert_eq!((section.info().codec, section.info().sample_rate), (AudioCodec::Opus, 48_000));
    let bytes = all(&mut section);
    let mut rest = &bytes[..];
    let mut pages = Vec::new();
    while !rest.is_empty() {
        assert!(rest.starts_with(b"OggS\0"));
        let segments = usize::from(rest[26]);
        let len = rest[27..27 + segments].iter().map(|len| usize::from(*len)).sum::<usize>();
        let number = u32::from_le_bytes(rest[18..22].try_into().unwrap());
        let granule = u64::from_le_bytes(rest[6..14].try_into().unwrap());
        pages.push((number, granule, rest[27 + segments..27 + segments + len].to_vec()));
        rest = &rest[27 + segments + len..];
    }
    assert!(pages[0].2.starts_with(b"OpusHead") && pages[1].2.starts_with(b"OpusTags"));
    let audio: Vec<Vec<u8>> = pages[2..].iter().map(|page| page.2.clone()).collect();
    assert!(audio == [packets(0), packets(1)].concat());
    assert!((0..).zip(&pages).all(|(index, page)| page.0 == index));
    assert_eq!(pages[21].1, 20 * 960);
}

#[test]
fn a_presentation_is_read_as_one_stream_of_bytes() {
    // A gap, and FLAC whose sections have a head each.
    let frames = |index: u64| aac_frames(index * 10, 10);
    let flac = format!(
        "#EXT-X-MAP:URI=\"flac.mp4\"\n{}#EXT-X-GAP\n{}{}",
        extinf("0.flac"),
        extinf("1.flac"),
        extinf("2.flac")
    );
    let change = format!("{}#EXT-X-DISCONTINUITY\n{}", extinf("0.ts"), extinf("other.aac"));
    let other: Vec<Vec<u8>> = aac_frames(0, FRAMES).iter().map(|frame| adts(frame, 4)).collect();
    let origin = site(6)
        .with("/flac.m3u8", vod(&flac))
        .with("/flac.mp4", mux::init(&Entry::Flac, 44_100, 0))
        .with("/0.flac", fragment(&frames(0), 0))
        .with("/2.flac", fragment(&frames(2), 20 * 1024))
        .with("/change.m3u8", vod(&change))
        .with("/other.aac", other.concat())
        .serve();
    let stream = |path: &str| Stream::new(open(&origin, path, |_| ()).into_source().unwrap());

    let mut bytes = Vec::new();
    let mut aac = stream("/mp4.m3u8");
    aac.read_to_end(&mut bytes).unwrap();
    assert_eq!(numbers(&bytes), (0..6 * FRAMES).collect::<Vec<_>>());
    assert_eq!(aac.seek(SeekFrom::Current(-1000)).unwrap(), bytes.len() as u64 - 1000);
    let mut again = vec![0; 1000];
    aac.read_exact(&mut again).unwrap();
    assert!(bytes.ends_with(&again));

    bytes.clear();
    stream("/flac.m3u8").read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"fLaC") && bytes[42..] == [frames(0), frames(2)].concat().concat());

    let error = stream("/change.m3u8").read_to_end(&mut bytes).unwrap_err();
    let error = error.get_ref().and_then(|error| error.downcast_ref::<windway::Error>()).unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Segments of which one is answered once the test allows it.
fn gated(
    path: &'static str,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> (Origin, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let own = Arc::clone(&gate);
    let origin = Origin::start(move |request| {
        if request.path == path {
            drop(own.1.wait_while(own.0.lock().unwrap(), |is_open| !*is_open).unwrap());
        }
        answer(request)
    });
    (origin, gate)
}

#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[test]
fn a_stream_of_hls_shows_its_phases_and_is_polled_without_blocking() {
    let own = site(3);
    let (origin, gate) = gated("/1.ts", move |request| own.answer(request));
    let mut stream = Stream::new(open(&origin, "/ts.m3u8", |_| ()).into_source().unwrap());
    let handle = stream.handle();
    let mut first = vec![0; segment_frames(0).concat().len()];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(stream.try_read(&mut [0; 100]).unwrap(), TryRead::Pending(Pending::Fetching));
    assert_eq!(handle.phase(), Phase::Fetching);
    std::thread::scope(|scope| {
        let rest = scope.spawn(|| {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            (stream, rest)
        });
        support::poll_until("stalled read", || handle.phase() == Phase::Stalled);
        gate.open();
        let (stream, rest) = rest.join().unwrap();
        assert_eq!(numbers(&[first, rest].concat()), (0..3 * FRAMES).collect::<Vec<_>>());
        assert_eq!(handle.phase(), Phase::Ended);
        assert!(handle.stats().stalls > 0);
        drop(stream);
        assert_eq!(handle.phase(), Phase::Ended);
    });
}

#[test]
fn a_stream_of_hls_can_be_watched_to_its_cancel() {
    let own = site(3);
    let (origin, gate) = gated("/1.ts", move |request| own.answer(request));
    let mut stream = Stream::new(open(&origin, "/ts.m3u8", |_| ()).into_source().unwrap());
    let handle = stream.handle();
    stream.read_exact(&mut [0; 100]).unwrap();
    let buffered = handle.buffered();
    assert!(buffered.iter().any(|range| range.contains(&100)), "{buffered:?}");
    let watch = handle.watch(Duration::from_secs(600));
    let last = support::in_time("watching", move || {
        let mut phases = watch.map(|progress| progress.phase);
        phases.next();
        handle.cancel();
        phases.last()
    });
    assert_eq!(last, Some(Phase::Closed));
    gate.open();
}

#[test]
fn flac_is_polled_over_the_heads_of_its_sections() {
    let frames = |index: u64| aac_frames(index * 10, 10);
    let lines =
        format!("#EXT-X-MAP:URI=\"i.mp4\"\n{}#EXT-X-GAP\n{}{}", extinf("0"), extinf("1"), extinf("2"));
    let own = Site::default()
        .with("/flac.m3u8", vod(&lines))
        .with("/i.mp4", mux::init(&Entry::Flac, 44_100, 0))
        .with("/0", fragment(&frames(0), 0))
        .with("/2", fragment(&frames(2), 20 * 1024));
    let (origin, gate) = gated("/2", move |request| own.answer(request));
    let mut stream = Stream::new(open(&origin, "/flac.m3u8", |_| ()).into_source().unwrap());
    let (mut bytes, mut buf) = (Vec::new(), [0; 7]);
    loop {
        match stream.try_read(&mut buf).unwrap() {
            TryRead::Bytes(got) => bytes.extend_from_slice(&buf[..got]),
            TryRead::Pending(_) if bytes.len() == 42 + frames(0).concat().len() => gate.open(),
            TryRead::Pending(_) => std::thread::yield_now(),
            _ => break,
        }
    }
    assert!(bytes.starts_with(b"fLaC") && bytes[42..] == [frames(0), frames(2)].concat().concat());
}

#[test]
fn an_application_chooses_the_level_itself() {
    struct Alternating(usize);
    impl Abr for Alternating {
        fn choose(&mut self, _: Instant, snapshot: &Snapshot<'_>) -> usize {
            assert_eq!(snapshot.named, [1, 2]);
            // At most two segments arrive at the same time: the others have shown their sizes.
            assert!(self.0 < 5 || snapshot.bitrates[0] > 1, "{:?}", snapshot.bitrates);
            self.0 += 1;
            self.0 % 2
        }
    }
    let master =
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/ts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n/mp4.m3u8\n";
    let origin = site(60).with("/master.m3u8", master).serve();
    let mut hls = open(&origin, "/master.m3u8", |config| {
        config.quality = Quality::Custom(MakeAbr::new(|| Box::new(Alternating(0))));
    });
    assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..60 * FRAMES).collect())]);
    let requests = origin.log().requests;
    assert!(
        requests.iter().any(|request| request.path.ends_with(".ts"))
            && requests.iter().any(|request| request.path.ends_with(".m4s"))
    );
}

/// Where a rule of an application panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PanicIn {
    Make,
    /// After this many choices.
    Choose(usize),
    Abandon,
}

/// Chooses the highest level, and panics as the test wants.
struct Panicking(PanicIn);

impl Abr for Panicking {
    fn choose(&mut self, _: Instant, snapshot: &Snapshot<'_>) -> usize {
        if let PanicIn::Choose(left) = &mut self.0 {
            *left = left.checked_sub(1).expect("as the test wants");
        }
        snapshot.bitrates.len() - 1
    }

    fn abandon(&mut self, _: Instant, _: &Snapshot<'_>, _: &Running) -> Option<usize> {
        assert!(self.0 != PanicIn::Abandon, "as the test wants");
        None
    }
}

#[test]
fn a_rule_of_an_application_that_panics_is_not_asked_again_and_playing_goes_on() {
    let master =
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/ts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n/mp4.m3u8\n";
    for place in [PanicIn::Make, PanicIn::Choose(0), PanicIn::Choose(1), PanicIn::Choose(5), PanicIn::Abandon]
    {
        let site = site(20).with("/master.m3u8", master);
        let origin = Origin::start(move |request| match request.path.ends_with("/1.m4s") {
            // For seconds, so that it is checked while it arrives.
            true if place == PanicIn::Abandon => site.answer(request).rate(5000),
            _ => site.answer(request),
        });
        let make = MakeAbr::new(move || {
            assert!(place != PanicIn::Make, "as the test wants");
            Box::new(Panicking(place))
        });
        let mut hls = open(&origin, "/master.m3u8", |config| config.quality = Quality::Custom(make));
        assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..20 * FRAMES).collect())], "{place:?}");
    }
}

#[test]
fn flac_is_native_and_begins_with_its_head() {
    let frames = |index: u64| aac_frames(index * 10, 10);
    let lines = format!("#EXT-X-MAP:URI=\"flac.mp4\"\n{}{}", extinf("0.flac"), extinf("1.flac"));
    let origin = Site::default()
        .with("/list.m3u8", vod(&lines))
        .with("/flac.mp4", mux::init(&Entry::Flac, 44_100, 0))
        .with("/0.flac", fragment(&frames(0), 0))
        .with("/1.flac", fragment(&frames(1), 10 * 1024))
        .serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    let mut section = hls.next_section().unwrap().unwrap();
    assert_eq!(section.info().codec, AudioCodec::Flac);
    let bytes = all(&mut section);
    assert!(bytes.starts_with(b"fLaC\x80\0\0\x22"));
    assert!(bytes[42..] == [frames(0), frames(1)].concat().concat());
}

#[test]
fn a_playlist_can_not_lead_to_other_schemes() {
    for uri in ["file:///etc/passwd", "ftp://host/a.ts"] {
        let origin = Site::default().with("/list.m3u8", vod(&extinf(uri))).serve();
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        // The only segment is skipped. Nothing is played, so the reason is an error.
        assert_eq!(hls.next_section().unwrap_err().kind(), ErrorKind::UnsupportedScheme);
        assert!(hls.next_section().unwrap().is_none());
        assert_eq!(origin.log().requests.len(), 1);
    }
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nfile:///etc/passwd\n";
    let origin = Site::default().with("/master.m3u8", master).serve();
    let error = downloader().open_hls(&origin.url("/master.m3u8"), HlsConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedScheme);
}

#[test]
fn headers_go_to_the_origin_of_the_playlist_only() {
    let other = site(2).serve();
    let lines = format!("{}{}", extinf("0.ts"), extinf(&other.url("/1.ts")));
    let origin = site(2).with("/list.m3u8", vod(&lines)).serve();
    let mut hls =
        open(&origin, "/list.m3u8", |config| config.headers = vec![("x-token".into(), "secret".into())]);
    play(&mut hls);
    assert!(origin.log().requests.iter().all(|request| request.header("x-token") == Some("secret")));
    assert!(other.log().requests.iter().all(|request| request.header("x-token").is_none()));
    assert_eq!(other.log().requests.len(), 1);
}

#[test]
fn what_is_no_playlist_has_a_typed_error() {
    let origin = Site::default().with("/page", *b"<html></html>").serve();
    let kind =
        |path: &str| downloader().open_hls(&origin.url(path), HlsConfig::default()).unwrap_err().kind();
    assert_eq!(kind("/page"), ErrorKind::InvalidPlaylist);
    assert_eq!(kind("/nothing"), ErrorKind::Status(404));
}

#[test]
fn audio_in_place_of_a_playlist_is_an_error_that_says_so_whatever_its_length() {
    for len in [1000, 20 << 20] {
        let mut song = b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64".to_vec();
        song.resize(len, 0);
        let origin = Site::default().with("/song", song).serve();
        let error = downloader().open_hls(&origin.url("/song"), HlsConfig::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPlaylist, "{error}");
        assert!(error.to_string().contains("audio"), "{error}");
    }
}

#[test]
fn a_blocked_read_ends_by_interrupt_cancel_and_drop() {
    let lines: String = (0..3).map(|index| extinf(&format!("{index}.ts"))).collect();
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/list.m3u8" => Answer::whole(&Content::bytes(vod(&lines).into_bytes())),
        _ => Answer::status(200).latency_until_released(),
    });
    for end in 0..3 {
        let hls = open(&origin, "/list.m3u8", |_| ());
        let handle = hls.handle();
        let hls = Arc::new(Mutex::new(hls));
        let reader = Arc::clone(&hls);
        let before = origin.log().requests.len();
        let thread = std::thread::spawn(move || reader.lock().unwrap().next_section().map(drop));
        origin.wait_until("the segment", |log| log.requests.len() > before);
        match end {
            0 => handle.interrupt(),
            _ => handle.cancel(),
        }
        let kind = thread.join().unwrap().unwrap_err().kind();
        let wanted = if end == 0 { ErrorKind::Interrupted } else { ErrorKind::Cancelled(CancelReason::Peer) };
        assert_eq!(kind, wanted);
    }
}

/// A live stream: its window moves by a segment with each request for the playlist.
struct Live {
    first: usize,
    window: usize,
    end: usize,
    head: &'static str,
}

impl Live {
    fn playlist(&self, request: usize) -> String {
        let start = (self.first + request).min(self.end - self.window);
        let mut text =
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n{}#EXT-X-MEDIA-SEQUENCE:{start}\n", self.head);
        (start..start + self.window).for_each(|index| text.push_str(&format!("#EXTINF:0.2,\n{index}.ts\n")));
        if start + self.window == self.end {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        text
    }
}

/// Ten frames, 0.2133 s.
fn short_ts(index: u64) -> Vec<u8> {
    let frames: Vec<Vec<u8>> = aac_frames(index * 10, 10).iter().map(|frame| adts(frame, 3)).collect();
    Ts::new(0x0f).segment(&frames, 900_000 + index * 19_200, 1920.0)
}

fn live_site(count: u64) -> Site {
    (0..count).fold(Site::default(), |site, index| site.with(&format!("/{index}.ts"), short_ts(index)))
}

#[test]
fn a_live_stream_plays_each_segment_once_until_it_ends() {
    let live = Live { first: 3, window: 20, end: 40, head: "" };
    let site = live_site(40);
    let requests = AtomicUsize::new(0);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/live.m3u8" => {
            let text = live.playlist(requests.fetch_add(1, Ordering::Relaxed));
            Answer::whole(&Content::bytes(text.into_bytes()))
        }
        _ => site.answer(request),
    });
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let handle = hls.handle();
    assert_eq!(handle.kind(), HlsKind::Live);
    // Three target durations before the end: 3 s of 0.2 s each.
    assert!(handle.latency().unwrap().abs_diff(Duration::from_secs(3)) < Duration::from_millis(201));
    let sections = play(&mut hls);
    assert_eq!(sections, [(Discontinuity::Start, (80..400).collect())]);
    assert_eq!(handle.kind(), HlsKind::Vod);
}

#[test]
fn a_live_playlist_that_can_not_be_read_any_more_is_returned_as_such() {
    let live = Live { first: 0, window: 5, end: 100, head: "" };
    let site = live_site(5);
    let origin = Origin::start(move |request| match (request.path.as_str(), request.again) {
        // Less than its segments last, as some servers announce.
        ("/live.m3u8", 0) => {
            let text = live.playlist(0).replace("TARGETDURATION:1", "TARGETDURATION:0");
            Answer::whole(&Content::bytes(text.into_bytes()))
        }
        ("/live.m3u8", _) => Answer::whole(&Content::bytes(b"<html>Log in to the Wi-Fi</html>".to_vec())),
        _ => site.answer(request),
    });
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let error = loop {
        match hls.next_section() {
            Ok(Some(mut section)) => {
                if let Err(error) = std::io::copy(&mut section, &mut std::io::sink()) {
                    break Error::from(error);
                }
            }
            Ok(None) => panic!("a live stream has ended"),
            Err(error) => break error,
        }
    };
    // And not as one that has not changed.
    assert_eq!(error.kind(), ErrorKind::InvalidPlaylist, "{error}");
    assert!(error.url().is_some_and(|url| url.to_string().ends_with("/live.m3u8")), "{error}");
}

/// A live stream whose window begins at the first of these segments, and at the second once its last segment was requested.
fn jumping(windows: [usize; 2]) -> Origin {
    const WINDOW: usize = 5;
    let site = live_site(100);
    let last = format!("/{}.ts", windows[0] + WINDOW - 1);
    let (is_requested, requested) = (Mutex::new(false), Condvar::new());
    Origin::start(move |request| {
        if request.path == last {
            *is_requested.lock().unwrap() = true;
            requested.notify_all();
        }
        if request.path != "/live.m3u8" {
            return site.answer(request);
        }
        if request.again > 0 {
            let waited = requested.wait_while(is_requested.lock().unwrap(), |is_requested| !*is_requested);
            drop(waited.unwrap());
        }
        let live = Live { first: windows[request.again.min(1)], window: WINDOW, end: 100, head: "" };
        Answer::whole(&Content::bytes(live.playlist(0).into_bytes()))
    })
}

#[test]
fn a_live_stream_is_played_to_its_end_if_another_level_ends_later() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/0.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n/1.m3u8\n";
    let site = live_site(40).with("/master.m3u8", master);
    let origin = Origin::start(move |request| {
        let end = match (request.path.as_str(), request.again) {
            ("/0.m3u8", _) => 40,
            // Its first versions list half of the segments, and are not the last ones.
            ("/1.m3u8", 0 | 1) => 41,
            ("/1.m3u8", _) => 40,
            _ => return site.answer(request),
        };
        let window = if end == 40 { 40 } else { 20 };
        Answer::whole(&Content::bytes(Live { first: 0, window, end, head: "" }.playlist(0).into_bytes()))
    });
    // The level that has not ended is opened; then the other one is chosen, and the first one again.
    let mut hls = open(&origin, "/master.m3u8", |config| {
        config.quality = Quality::Fixed(1);
        config.start = Some(Duration::ZERO);
        config.buffer = Duration::from_secs(1);
    });
    let handle = hls.handle();
    assert_eq!(handle.kind(), HlsKind::Live);
    let mut section = hls.next_section().unwrap().unwrap();
    handle.set_quality(Quality::Fixed(0));
    let mut bytes = Vec::new();
    let mut frame = [0; 512];
    while handle.kind() == HlsKind::Live {
        let got = section.read(&mut frame).unwrap();
        assert_ne!(got, 0, "more follows");
        bytes.extend_from_slice(&frame[..got]);
    }
    handle.set_quality(Quality::Fixed(1));
    bytes.extend(all(&mut section));
    assert_eq!(numbers(&bytes), (0..400).collect::<Vec<_>>());
    assert!(hls.next_section().unwrap().is_none());
}

#[test]
fn a_reader_that_falls_out_of_the_window_continues_near_the_edge() {
    let origin = jumping([0, 80]);
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let first = numbers(&all(&mut hls.next_section().unwrap().unwrap()));
    assert_eq!(first, (0..50).collect::<Vec<_>>());
    let section = hls.next_section().unwrap().unwrap();
    assert!(matches!(section.info().discontinuity, Discontinuity::Behind(_)), "{:?}", section.info());
}

#[test]
fn a_server_that_starts_again_is_followed() {
    let origin = jumping([80, 0]);
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let first = numbers(&all(&mut hls.next_section().unwrap().unwrap()));
    assert_eq!(first, (800..850).collect::<Vec<_>>());
    let section = hls.next_section().unwrap().unwrap();
    assert_eq!(section.info().discontinuity, Discontinuity::Reset);
}

#[cfg(feature = "hls-aes")]
mod encrypted {
    use aes::cipher::block_padding::Pkcs7;
    use aes::cipher::{BlockEncryptMut, KeyIvInit};

    use super::*;

    fn encrypt(key: [u8; 16], iv: u128, plain: &[u8]) -> Vec<u8> {
        let cipher = cbc::Encryptor::<aes::Aes128>::new(&key.into(), &iv.to_be_bytes().into());
        cipher.encrypt_padded_vec_mut::<Pkcs7>(plain)
    }

    #[test]
    fn rotating_keys_with_implied_and_explicit_ivs_and_an_encrypted_init() {
        let mut lines =
            String::from("#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-KEY:METHOD=AES-128,URI=\"k/map\",IV=0x99\n");
        lines.push_str("#EXT-X-MAP:URI=\"init\"\n");
        let init = encrypt([99; 16], 0x99, &mux::init(&Entry::Aac(3), 48_000, 0));
        let mut site = Site::default().with("/init", init).with("/k/map", [99; 16]);
        for index in 0..6_u64 {
            let key = [index as u8; 16];
            site = site.with(&format!("/k/{index}"), key);
            // The media sequence number, or a value of the playlist.
            let (iv, text) =
                if index % 2 == 0 { (u128::from(7 + index), String::new()) } else { (5, ",IV=0x05".into()) };
            lines.push_str(&format!(
                "#EXT-X-KEY:METHOD=AES-128,URI=\"k/{index}\"{text}\n{}",
                extinf(&index.to_string())
            ));
            site = site.with(&format!("/{index}"), encrypt(key, iv, &mp4(index)));
        }
        let origin = site.with("/list.m3u8", vod(&lines)).serve();
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..6 * FRAMES).collect())]);
        let keys = origin.log().requests.iter().filter(|request| request.path.starts_with("/k/")).count();
        assert_eq!(keys, 7, "each key is fetched once");
    }

    #[test]
    fn parts_of_a_segment_that_is_not_complete_have_its_key_and_not_that_of_the_segment_before() {
        const PART: u64 = 10;
        let bytes = |part: u64| fragment(&aac_frames(part * PART, PART), part * PART * 1024);
        let key = |segment: u64| [segment as u8 + 1; 16];
        let mut site = Site::default();
        for segment in 0..8_u64 {
            // Also where the initialization section changes its key with each segment.
            let init = encrypt(key(segment), 3, &mux::init(&Entry::Aac(3), 48_000, 0));
            site = site.with(&format!("/k{segment}"), key(segment)).with(&format!("/i{segment}"), init);
            let parts = [segment * 2, segment * 2 + 1].map(bytes);
            site = site.with(&format!("/{segment}"), encrypt(key(segment), 3, &parts.concat()));
            for (index, part) in (segment * 2..).zip(&parts) {
                site = site.with(&format!("/p{index}"), encrypt(key(segment), 3, part));
            }
        }
        let seconds = PART as f64 * 1024.0 / 48_000.0;
        // A part more in each version, from none of the first segment that is complete on.
        let list = move |count: u64| {
            let mut text = format!(
                "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-PART-INF:PART-TARGET={seconds:.6}\n#EXT-X-SERVER-CONTROL:PART-HOLD-BACK=1\n"
            );
            for part in 0..count {
                let segment = part / 2;
                if part % 2 == 0 {
                    text.push_str(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"k{segment}\",IV=0x03\n#EXT-X-MAP:URI=\"i{segment}\"\n"));
                }
                text.push_str(&format!("#EXT-X-PART:DURATION={seconds:.6},URI=\"p{part}\"\n"));
                if part % 2 == 1 {
                    text.push_str(&format!("#EXTINF:{:.6},\n{segment}\n", 2.0 * seconds));
                }
            }
            text + if count == 16 { "#EXT-X-ENDLIST\n" } else { "" }
        };
        for first in [1, 5] {
            let site = site.clone();
            let origin = Origin::start(move |request| match request.path.as_str() {
                "/live.m3u8" => {
                    let text = list((first + request.again as u64).min(16));
                    Answer::whole(&Content::bytes(text.into_bytes()))
                }
                _ => site.answer(request),
            });
            let mut hls = open(&origin, "/live.m3u8", |config| config.start = Some(Duration::ZERO));
            assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..16 * PART).collect())], "from {first} on");
            let asked = origin.log().requests.iter().filter(|request| request.path.starts_with("/p")).count();
            assert!(asked > 0, "parts were played");
        }
    }

    #[test]
    fn ranges_of_one_file_are_decrypted_each_by_its_own_iv() {
        let key = [4; 16];
        let mut whole = Vec::new();
        let mut lines = String::new();
        // The same key for all, in a tag that is repeated for the sake of its IV, also where that is the one before last.
        let mut add = |tag: &str, plain: &[u8], iv: u128| {
            let bytes = encrypt(key, iv, plain);
            let (len, offset) = (bytes.len(), whole.len());
            whole.extend(bytes);
            lines.push_str(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV={iv:#x}\n"));
            lines.push_str(&tag.replace("PLACE", &format!("{len}@{offset}")));
        };
        add("#EXT-X-MAP:URI=\"whole\",BYTERANGE=\"PLACE\"\n", &mux::init(&Entry::Aac(3), 48_000, 0), 1);
        for index in 0..6_u64 {
            let tag = format!("#EXT-X-BYTERANGE:PLACE\n{}", extinf("whole"));
            add(&tag, &mp4(index), [u128::MAX, 0, 1][index as usize % 3]);
        }
        let origin =
            Site::default().with("/whole", whole).with("/key", key).with("/list.m3u8", vod(&lines)).serve();
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..6 * FRAMES).collect())]);
        for target in [9, 1, 5] {
            hls.seek(Duration::from_secs(target)).unwrap();
            let first = target / 2;
            assert_eq!(play(&mut hls), [(Discontinuity::Seek, (first * FRAMES..6 * FRAMES).collect())]);
        }
    }

    #[test]
    fn segments_sealed_by_aes_256_gcm_are_opened_and_changed_ones_are_not_played() {
        use aes_gcm::aead::AeadInPlace;
        use aes_gcm::{AesGcm, KeyInit as _};

        let cipher = AesGcm::<aes::Aes256, aes::cipher::consts::U16>::new(&[7; 32].into());
        let seal = |plain: &[u8]| {
            let mut text = plain.to_vec();
            let tag = cipher.encrypt_in_place_detached(&[9; 16].into(), b"", &mut text).unwrap();
            [&[9; 16][..], &text, &tag].concat()
        };
        let mut lines = String::from("#EXT-X-KEY:METHOD=AES-256-GCM,URI=\"key\"\n#EXT-X-MAP:URI=\"init\"\n");
        let init = seal(&mux::init(&Entry::Aac(3), 48_000, 0));
        let mut site = Site::default().with("/key", [7; 32]).with("/init", init);
        for index in 0..3 {
            let mut bytes = seal(&mp4(index));
            if index == 1 {
                bytes[500] ^= 1;
            }
            site = site.with(&format!("/{index}"), bytes);
            lines.push_str(&extinf(&index.to_string()));
        }
        let origin = site.with("/list.m3u8", vod(&lines)).serve();
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        let frames: Vec<Vec<u64>> = play(&mut hls).into_iter().map(|section| section.1).collect();
        assert_eq!(frames, [(0..FRAMES).collect::<Vec<_>>(), (2 * FRAMES..3 * FRAMES).collect()]);
    }

    /// Encrypts what SAMPLE-AES encrypts of a frame with a clear part of this length.
    fn encrypt_frame(frame: &mut [u8], clear: usize) {
        let mut cipher = cbc::Encryptor::<aes::Aes128>::new(&[7; 16].into(), &[9; 16].into());
        frame[clear..].chunks_exact_mut(16).for_each(|block| cipher.encrypt_block_mut(block.into()));
    }

    #[test]
    fn frames_of_sample_aes_are_decrypted() {
        let ac3 = mux::ac3_frames(0, 50);
        let aac = segment_frames(0);
        let encrypted = |frames: &[Vec<u8>], clear: usize| {
            let mut frames = frames.to_vec();
            frames.iter_mut().for_each(|frame| encrypt_frame(frame, clear));
            frames
        };
        let key = "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"key\",IV=0x09090909090909090909090909090909\n";
        let segments = [
            ("aac.ts", Ts::new(0xcf).segment(&encrypted(&aac, 23), 0, 1920.0), aac.clone()),
            ("ac3.ts", Ts::new(0xc1).segment(&encrypted(&ac3, 16), 0, 2880.0), ac3),
            ("aac.aac", encrypted(&aac, 23).concat(), aac),
        ];
        for (name, bytes, frames) in segments {
            let list = vod(&format!("{key}{}", extinf(name)));
            let site = Site::default()
                .with("/list.m3u8", list)
                .with("/key", [7; 16])
                .with(&format!("/{name}"), bytes);
            let origin = site.serve();
            let mut hls = open(&origin, "/list.m3u8", |_| ());
            assert!(all(&mut hls.next_section().unwrap().unwrap()) == frames.concat(), "{name}");
        }
    }

    #[test]
    fn a_method_that_is_not_supported_is_a_typed_error_or_another_level() {
        let master =
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/drm.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n/ts.m3u8\n";
        let drm = "#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"skd://x\",KEYFORMAT=\"com.example\"\n";
        let lines: String = (0..3).map(|index| extinf(&format!("{index}.ts"))).collect();
        let site = site(3).with("/master.m3u8", master).with("/drm.m3u8", vod(&format!("{drm}{lines}")));
        let origin = site.serve();
        let mut hls = open(&origin, "/master.m3u8", |config| config.quality = Quality::Fixed(0));
        assert_eq!(play(&mut hls), [(Discontinuity::Start, (0..3 * FRAMES).collect())]);
    }
}
