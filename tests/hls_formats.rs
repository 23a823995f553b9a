//! HLS: discontinuities at which the codec, the rate and the media times change, and changes of the level there; and renditions
//! with borders of their own.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use presentation::{Site, all, extinf, open, vod};
use support::Origin;
use support::mux::{AAC, Entry, Ts, aac_frames, ac3_frames, adts, fragment, init, mp3_frames};
use windway::hls::{Discontinuity, Quality};
use windway::media::AudioCodec;
use windway::{Error, ErrorKind};

/// What the segments of a presentation are, one after the other.
const CODECS: [AudioCodec; 8] = [
    AudioCodec::Aac,
    AudioCodec::Mp3,
    AudioCodec::Flac,
    AudioCodec::Opus,
    AudioCodec::Ac3,
    AudioCodec::Mp3,
    AudioCodec::Aac,
    AudioCodec::Opus,
];

/// Frames of a segment of about two seconds, and its bytes, with a time in units of 90 kHz.
fn encoded(index: u64, time: u64) -> (Vec<Vec<u8>>, Vec<u8>) {
    let first = index * 1000;
    let ts = |kind: u8, frames: &[Vec<u8>], ticks: f64| Ts::new(kind).segment(frames, time, ticks);
    match CODECS[index as usize] {
        AudioCodec::Mp3 => {
            let frames = mp3_frames(first, 76);
            (frames.clone(), ts(0x03, &frames, 1152.0 * 90_000.0 / 44_100.0))
        }
        AudioCodec::Ac3 => {
            let frames = ac3_frames(first, 62);
            (frames.clone(), ts(0x81, &frames, 2880.0))
        }
        AudioCodec::Flac => {
            let frames = aac_frames(first, 86);
            (frames.clone(), fragment(&frames, time * 441 / 900))
        }
        AudioCodec::Opus => {
            let frames: Vec<Vec<u8>> =
                aac_frames(first, 94).iter().map(|rest| [&[31 << 3][..], rest].concat()).collect();
            (frames.clone(), fragment(&frames, time * 48 / 90))
        }
        // Of another rate the second time.
        _ => {
            let rate = if index == 0 { 3 } else { 4 };
            let frames: Vec<Vec<u8>> = aac_frames(first, 94).iter().map(|frame| adts(frame, rate)).collect();
            (frames.clone(), ts(0x0f, &frames, 1920.0))
        }
    }
}

/// Two levels of the same codecs, each with media times of its own for each segment.
fn formats() -> Site {
    let mut site = Site::default()
        .with("/Flac", init(&Entry::Flac, 44_100, 0))
        .with("/Opus", init(&Entry::Opus, 48_000, 0));
    let mut master = String::from("#EXTM3U\n");
    for level in 0..2_u64 {
        let mut lines = String::new();
        for (index, codec) in (0..).zip(CODECS) {
            let time = (level * 7_000_000_000 + index * 1_234_567_891) % (1 << 33);
            site = site.with(&format!("/{level}-{index}"), encoded(index, time).1);
            if matches!(codec, AudioCodec::Flac | AudioCodec::Opus) {
                lines.push_str(&format!("#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"{codec:?}\"\n"));
            } else {
                lines.push_str("#EXT-X-DISCONTINUITY\n");
            }
            lines.push_str(&extinf(&format!("{level}-{index}")));
        }
        master.push_str(&format!("#EXT-X-STREAM-INF:BANDWIDTH={}\n{level}.m3u8\n", level + 1));
        site = site.with(&format!("/{level}.m3u8"), vod(&lines));
    }
    site.with("/all.m3u8", master)
}

/// True if these frames are in the bytes, one after the other, and each once.
fn has_frames(bytes: &[u8], frames: &[Vec<u8>]) -> bool {
    // Its last bytes are random: frames of MP3 begin alike, and those of Opus with the header of a page.
    let find = |bytes: &[u8], frame: &[u8]| {
        let end = &frame[frame.len() - 24..];
        bytes.windows(24).position(|window| window == end)
    };
    let mut rest = bytes;
    frames.iter().all(|frame| {
        let Some(at) = find(rest, frame) else { return false };
        rest = &rest[at + 24..];
        find(rest, frame).is_none()
    })
}

#[test]
fn each_codec_follows_each_other_at_a_discontinuity_with_times_of_its_own() {
    let origin = formats().serve();
    // The level changes while this segment is read, or not at all.
    for changes_at in 0..=CODECS.len() {
        let mut hls = open(&origin, "/all.m3u8", |config| {
            config.quality = Quality::Fixed(0);
            config.buffer = Duration::from_millis(1);
        });
        let mut end = Duration::ZERO;
        for (index, codec) in CODECS.into_iter().enumerate() {
            let mut section = hls.next_section().unwrap().unwrap();
            let info = section.info().clone();
            let expected = if index == 0 { Discontinuity::Start } else { Discontinuity::Format };
            assert_eq!((info.codec, info.discontinuity), (codec, expected), "{index} of {changes_at}");
            // Times abut, but for the rounding of a tick.
            assert!(
                info.start.abs_diff(end) < Duration::from_millis(1),
                "{index} of {changes_at}: {info:?} {end:?}"
            );
            if index == changes_at {
                let before = origin.log().requests.len();
                hls.handle().set_quality(Quality::Fixed(1));
                origin.wait_until("the other playlist", |log| {
                    log.requests[before..].iter().any(|request| request.path == "/1.m3u8")
                });
            }
            let bytes = all(&mut section);
            let frames = encoded(index as u64, 0).0;
            assert!(has_frames(&bytes, &frames), "{index} {codec:?} of {changes_at}: {} bytes", bytes.len());
            end = hls.handle().position();
        }
        assert!(hls.next_section().unwrap().is_none());
    }
}

/// A rendition in segments of so many frames each.
fn rendition(name: &str, frames: u64, first: u64, mut site: Site) -> Site {
    let mut lines = String::new();
    for index in 0..(FRAMES_OF_ALL / frames) {
        let numbered: Vec<Vec<u8>> =
            aac_frames(first + index * frames, frames).iter().map(|frame| adts(frame, 3)).collect();
        let bytes = Ts::new(0x0f).segment(&numbered, 900_000 + index * frames * 1920, 1920.0);
        lines.push_str(&format!("#EXTINF:{:.6},\n{name}{index}\n", frames as f64 * 1024.0 / 48_000.0));
        site = site.with(&format!("/{name}{index}"), bytes);
    }
    let target = (frames as f64 * 1024.0 / 48_000.0).ceil();
    let list = format!("#EXTM3U\n#EXT-X-TARGETDURATION:{target}\n{lines}#EXT-X-ENDLIST\n");
    site.with(&format!("/{name}.m3u8"), list)
}

/// 32 s.
const FRAMES_OF_ALL: u64 = 1500;

const OTHER: u64 = 1_000_000;

/// A presentation in two languages with different borders.
fn languages() -> Site {
    let site = rendition("de", 100, 0, Site::default());
    let site = rendition("en", 375, OTHER, site);
    let master = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"de\",LANGUAGE=\"de\",URI=\"de.m3u8\",DEFAULT=YES\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"en\",LANGUAGE=\"en\",URI=\"en.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=9,CODECS=\"mp4a.40.2\",AUDIO=\"g\"\nde.m3u8\n";
    site.with("/all.m3u8", master)
}

#[test]
fn a_rendition_that_is_selected_offline_plays_once_the_server_is_back() {
    let is_down = Arc::new(AtomicBool::new(false));
    let (site, down) = (languages(), Arc::clone(&is_down));
    let origin = Origin::start(move |request| {
        let answer = site.answer(request);
        if down.load(Ordering::Relaxed) { answer.close_in_head(0) } else { answer }
    });
    let frames_of = |count| aac_frames(0, count).iter().map(|frame| frame.len() + 7).sum::<usize>();
    // Selected while offline, and another one or the same one again before the server is back.
    for selected in [&[1][..], &[1, 0, 1], &[1, 0]] {
        is_down.store(false, Ordering::Relaxed);
        let mut hls = open(&origin, "/all.m3u8", |config| {
            config.buffer = Duration::from_secs(1);
            config.read_timeout = Some(Duration::from_millis(500));
            // Too few for a segment to be kept: the first rendition would go on with it when it is selected again.
            config.buffer_bytes = frames_of(200);
        });
        let handle = hls.handle();
        let mut section = hls.next_section().unwrap().unwrap();
        section.read_exact(&mut vec![0; frames_of(150)]).unwrap();
        let at = handle.position();
        is_down.store(true, Ordering::Relaxed);
        for rendition in selected {
            handle.select_rendition(*rendition).unwrap();
            let error = hls.next_section().map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(error.cause().is_some_and(Error::is_retryable), "{error:?}");
        }
        is_down.store(false, Ordering::Relaxed);
        // The next attempt comes after a pause, in which calls time out.
        let mut section = loop {
            match hls.next_section() {
                Ok(section) => break section.unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
            }
        };
        let info = section.info().clone();
        assert_eq!(info.discontinuity, Discontinuity::Rendition, "{selected:?}");
        assert!((info.start + info.skip).abs_diff(at) < Duration::from_millis(1), "{at:?} {info:?}");
        let frames = presentation::numbers(&all(&mut section));
        let is_other = selected.last() == Some(&1);
        assert_eq!(
            frames.last(),
            Some(&(FRAMES_OF_ALL - 1 + if is_other { OTHER } else { 0 })),
            "{selected:?}"
        );
        assert!(frames.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert!(hls.next_section().unwrap().is_none());
    }
}

#[test]
fn a_rendition_with_other_borders_continues_where_the_reader_is() {
    let origin = languages().serve();
    let length = |frames: u64| frames as f64 * 1024.0 / 48_000.0;
    // In the middle of a segment, at a border, near the end and at the end.
    for read in [1, 50, 100, 374, 375, 376, 1000, 1450, 1499] {
        let mut hls = open(&origin, "/all.m3u8", |_| ());
        let handle = hls.handle();
        let mut section = hls.next_section().unwrap().unwrap();
        let bytes: usize = aac_frames(0, read).iter().map(|frame| frame.len() + 7).sum();
        section.read_exact(&mut vec![0; bytes]).unwrap();
        let at = handle.position().as_secs_f64();
        assert!((at - length(read)).abs() < 0.03, "{at}");
        handle.select_rendition(1).unwrap();
        assert_eq!(section.read(&mut [0; 9]).unwrap(), 0);
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        assert_eq!(info.discontinuity, Discontinuity::Rendition);
        assert!(((info.start + info.skip).as_secs_f64() - at).abs() < 0.001, "{at}: {info:?}");
        let frames = presentation::numbers(&all(&mut section));
        let first = (info.start.as_secs_f64() / length(1)).round() as u64;
        assert!(frames.iter().copied().eq(OTHER + first..OTHER + FRAMES_OF_ALL), "after {read}: {info:?}");
        assert!(info.skip.as_secs_f64() < length(375), "no segment is fetched for nothing: {info:?}");
        assert!(hls.next_section().unwrap().is_none());
    }
}

/// Two levels of one codec, in samples as long as those of AAC, whose encoders have added samples at the beginning. The second one
/// is of other frames.
fn with_delay(entry: &Entry, delay: i64) -> Site {
    let name = |level: u64, index: u64| format!("{level}-{index}");
    let mut site = Site::default().with("/init", init(entry, 48_000, delay));
    let mut master = String::from("#EXTM3U\n");
    for level in 0..2 {
        let mut lines = String::from("#EXT-X-MAP:URI=\"init\"\n");
        for index in 0..JOINED {
            let frames: Vec<Vec<u8>> = delayed_frames(entry, level * OTHER + index * 50);
            lines.push_str(&format!(
                "#EXTINF:{:.6},\n{}\n",
                (50 * AAC) as f64 / 48_000.0,
                name(level, index)
            ));
            site = site.with(&format!("/{}", name(level, index)), fragment(&frames, index * 50 * AAC));
        }
        master.push_str(&format!("#EXT-X-STREAM-INF:BANDWIDTH={}\n{level}.m3u8\n", level + 1));
        site = site.with(&format!("/{level}.m3u8"), vod(&lines));
    }
    site.with("/all.m3u8", master)
}

/// Segments of a level with a delay.
const JOINED: u64 = 6;

fn delayed_frames(entry: &Entry, first: u64) -> Vec<Vec<u8>> {
    let head: &[u8] = if matches!(entry, Entry::Opus) { &[31 << 3] } else { &[] };
    aac_frames(first, 50).iter().map(|rest| [head, rest].concat()).collect()
}

#[test]
fn levels_with_encoder_delay_are_joined_without_a_frame_less_or_more() {
    // The delay of an edit list, and the pre-skip of Opus, which is in its sample entry.
    for (entry, delay, skip) in
        [(Entry::Aac(3), 1024, 1024), (Entry::Aac(3), 2112, 2112), (Entry::Opus, 0, 312)]
    {
        let origin = with_delay(&entry, delay).serve();
        let mut changed = 0;
        for at in 0..JOINED - 2 {
            let mut hls = open(&origin, "/all.m3u8", |config| {
                config.quality = Quality::Fixed(0);
                config.buffer = Duration::from_millis(1);
            });
            let mut section = hls.next_section().unwrap().unwrap();
            let skipped = section.info().skip.as_secs_f64();
            assert!((skipped - f64::from(skip) / 48_000.0).abs() < 0.000_03, "{:?}", section.info());
            let handle = section.handle();
            assert_eq!(
                handle.time_at(section.info().skip),
                Duration::ZERO,
                "the delay lies before the presentation"
            );
            let later = handle.time_at(section.info().skip + Duration::from_secs(1));
            assert_eq!(later, Duration::from_secs(1));
            let half = delayed_frames(&entry, 0).concat().len() / 2;
            let mut bytes = vec![0; at as usize * 2 * half + half];
            section.read_exact(&mut bytes).unwrap();
            let before = origin.log().requests.len();
            hls.handle().set_quality(Quality::Fixed(1));
            origin.wait_until("the other playlist", |log| {
                log.requests[before..].iter().any(|request| request.path == "/1.m3u8")
            });
            bytes.extend(all(&mut section));
            assert!(hls.next_section().unwrap().is_none(), "one section");
            // Each segment of one of the two levels.
            let mut levels = Vec::new();
            let mut expected = Vec::new();
            for index in 0..JOINED {
                let of = |level: u64| delayed_frames(&entry, level * OTHER + index * 50);
                let level = u64::from(!has_frames(&bytes, &of(0)));
                levels.push(level);
                expected.extend(of(level));
            }
            assert!(has_frames(&bytes, &expected), "{levels:?} at {at}, delay {skip}");
            assert!(levels.is_sorted(), "{levels:?}");
            changed += levels[JOINED as usize - 1];
            let end = (JOINED * 50 * AAC - skip as u64) as f64 / 48_000.0;
            assert!(
                (hls.handle().position().as_secs_f64() - end).abs() < 0.000_1,
                "{:?}",
                hls.handle().position()
            );
        }
        assert!(changed > 0, "the other level was played");
    }
}
