//! HLS: what precedes the presentation is told, and nothing of it moves the times.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;
use std::time::Duration;

use presentation::{FRAMES, Site, all, extinf, numbers, open, segment_frames, ticks, vod};
use support::mux::{self, Entry, aac_frames, fragment, id3, mp3_frames};
use windway::Stream;
use windway::hls::{Discontinuity, Section};

/// Segments of AAC whose first `delay` samples are encoder delay, by an edit list.
fn delayed(delay: i64, count: u64) -> Site {
    let lines: String = (0..count).map(|index| extinf(&format!("{index}.m4s"))).collect();
    let list = vod(&format!("#EXT-X-MAP:URI=\"init.mp4\"\n{lines}"));
    let site =
        Site::default().with("/list.m3u8", list).with("/init.mp4", mux::init(&Entry::Aac(3), 48_000, delay));
    (0..count).fold(site, |site, index| {
        let bytes = fragment(&aac_frames(index * FRAMES, FRAMES), index * FRAMES * 1024);
        site.with(&format!("/{index}.m4s"), bytes)
    })
}

fn samples(count: u64) -> Duration {
    Duration::from_nanos(count * 1_000_000_000 / 48_000)
}

#[test]
fn encoder_delay_is_to_be_skipped_and_moves_no_time() {
    for delay in [0, 1024, 2112] {
        let origin = delayed(delay, 4).serve();
        let delay = delay as u64;
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        assert_eq!((info.start, info.discontinuity), (Duration::ZERO, Discontinuity::Start));
        assert!(info.skip.abs_diff(samples(delay)) < Duration::from_nanos(10), "{delay}: {:?}", info.skip);
        let bytes = all(&mut section);
        assert_eq!(numbers(&bytes), (0..4 * FRAMES).collect::<Vec<_>>(), "{delay}");
        let mut offset = 0;
        for index in 0..4 * FRAMES {
            let wanted = samples((index * 1024).saturating_sub(delay));
            let time = section.time_of(offset).unwrap();
            assert!(time.abs_diff(wanted) < Duration::from_nanos(10), "{delay}: frame {index} at {time:?}");
            let at = offset as usize;
            let frame = &bytes[at..];
            offset += u64::from(frame[3] & 3) << 11 | u64::from(frame[4]) << 3 | u64::from(frame[5] >> 5);
        }
        let end = samples(4 * FRAMES * 1024 - delay);
        assert!(hls.handle().position().abs_diff(end) < Duration::from_nanos(10), "{delay}");
    }
}

#[test]
fn a_seek_to_the_start_skips_the_encoder_delay_too() {
    let origin = delayed(1024, 4).serve();
    let mut hls = open(&origin, "/list.m3u8", |_| ());
    all(&mut hls.next_section().unwrap().unwrap());
    for target in [Duration::from_millis(15), Duration::ZERO, Duration::from_secs(3)] {
        hls.seek(target).unwrap();
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        // The frame that begins the segment, and its time.
        let first = numbers(&all(&mut section))[0];
        let skipped = target + samples(1024) - samples(first * 1024);
        assert!(info.skip.abs_diff(skipped) < Duration::from_nanos(100), "{target:?}: {:?}", info.skip);
    }
}

fn at_rate(count: u64, rate: u64) -> Duration {
    Duration::from_nanos(count * 1_000_000_000 / rate)
}

/// A tick of 90 kHz.
const TICK: Duration = Duration::from_nanos(11_112);

/// Frames of MP3 in a segment, and samples of each.
const MP3: (u64, u64) = (60, 1152);

/// A frame in which LAME says what it has added to so many frames.
fn lame(frames: u64) -> Vec<u8> {
    let mut table = mp3_frames(99, 1).remove(0);
    table[36..44].copy_from_slice(b"Info\0\0\0\x01");
    table[44..48].copy_from_slice(&(frames as u32).to_be_bytes());
    table[48..57].copy_from_slice(b"LAME3.100");
    table[69..72].copy_from_slice(&(576_u32 << 12 | 1578).to_be_bytes()[1..]);
    table
}

#[test]
fn times_of_mp3_are_those_of_the_source() {
    let (frames, samples) = MP3;
    for has_times in [true, false] {
        let lines: String = (0..3)
            .map(|index| format!("#EXTINF:{:.6},\n{index}.mp3\n", (frames * samples) as f64 / 44_100.0))
            .collect();
        let site = (0..3).fold(Site::default().with("/list.m3u8", vod(&lines)), |site, index| {
            let time = id3(900_000 + (index * frames * samples * 90_000).div_ceil(44_100));
            let tag = if has_times { time } else { Vec::new() };
            // The first segment says it of all of them.
            let table = if index == 0 { lame(3 * frames) } else { Vec::new() };
            let audio = mp3_frames(index * frames, frames).concat();
            site.with(&format!("/{index}.mp3"), [tag, table, audio].concat())
        });
        let origin = site.serve();
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        assert_eq!((info.start, info.skip), (Duration::ZERO, at_rate(1105, 44_100)));
        let bytes = all(&mut section);
        assert_eq!(bytes.len() as u64, 3 * frames * 417);
        for index in 0..3 * frames {
            let time = section.time_of(index * 417).unwrap();
            let wanted = at_rate((index * samples).saturating_sub(1105), 44_100);
            assert!(time.abs_diff(wanted) <= TICK, "{has_times}: frame {index} at {time:?}, not {wanted:?}");
        }
        assert_eq!(section.padding(), Some(at_rate(1578 - 529, 44_100)), "{has_times}");
        let end = at_rate(3 * frames * samples - 1105, 44_100);
        assert!(hls.handle().position().abs_diff(end) <= TICK, "{has_times}");
        for (target, first) in [(2.0, frames), (0.01, 0), (3.2, 2 * frames)] {
            let target = Duration::from_secs_f64(target);
            hls.seek(target).unwrap();
            let section = hls.next_section().unwrap().unwrap();
            // Without the decoded audio before the target nothing but what is to be skipped precedes it.
            let begin = at_rate(first * samples, 44_100);
            let skipped = target + at_rate(1105, 44_100) - begin;
            let skip = section.info().skip;
            assert!(skip.abs_diff(skipped) <= 2 * TICK, "{has_times}, {target:?}: {skip:?}, not {skipped:?}");
        }
    }
}

/// What an encoder of AAC says it has added: 2112 samples, and 500 behind all the others of three segments.
fn smpb() -> String {
    let samples = 3 * FRAMES * 1024 - 2112 - 500;
    format!(" 00000000 00000840 000001F4 {samples:016X} 00000000 00000000 00000000 00000000 00000000")
}

fn check_smpb(section: &mut Section, of: &str) {
    let info = section.info().clone();
    assert_eq!(info.start, Duration::ZERO, "{of}");
    assert!(info.skip.abs_diff(samples(2112)) < Duration::from_nanos(10), "{of}: {:?}", info.skip);
    let bytes = all(section);
    let mut offset = 0;
    for index in 0..3 * FRAMES {
        let wanted = samples((index * 1024).saturating_sub(2112));
        let time = section.time_of(offset).unwrap();
        assert!(time.abs_diff(wanted) <= TICK, "{of}: frame {index} at {time:?}, not {wanted:?}");
        let frame = &bytes[offset as usize..];
        offset += u64::from(frame[3] & 3) << 11 | u64::from(frame[4]) << 3 | u64::from(frame[5] >> 5);
    }
    let padding = section.padding().unwrap();
    assert_eq!(section.handle().padding(), Some(padding));
    assert!(padding.abs_diff(samples(500)) < Duration::from_nanos(30), "{of}: {padding:?}");
}

#[test]
fn a_comment_of_packed_audio_says_what_the_encoder_has_added() {
    let latin = |text: &str| text.bytes().collect::<Vec<_>>();
    let utf16 = |text: &str| text.bytes().flat_map(|byte| [byte, 0]).collect::<Vec<_>>();
    let comment =
        |encoding: u8, name: Vec<u8>, text: Vec<u8>| [&[encoding][..], b"eng", &name, &text].concat();
    let mark = |text: Vec<u8>| [&[0xff, 0xfe][..], &text].concat();
    let frames = [
        (b"COMM", comment(0, latin("iTunSMPB\0"), latin(&smpb()))),
        (b"COMM", comment(3, latin("iTunSMPB\0"), latin(&smpb()))),
        (b"COMM", comment(1, mark(utf16("iTunSMPB\0")), mark(utf16(&smpb())))),
        (b"TXXX", [&[0][..], b"iTunSMPB\0", smpb().as_bytes()].concat()),
    ];
    for (kind, body) in frames {
        let lines: String = (0..3).map(|index| extinf(&format!("{index}.aac"))).collect();
        let site = (0..3).fold(Site::default().with("/list.m3u8", vod(&lines)), |site, index| {
            let mut tag = id3(ticks(index));
            if index == 0 {
                let sizes = [body.len() >> 7, body.len() & 127].map(|bits| bits as u8);
                tag.extend([&kind[..], &[0, 0], &sizes, &[0, 0], &body].concat());
                let len = tag.len() - 10;
                tag[8..10].copy_from_slice(&[(len >> 7) as u8, (len & 127) as u8]);
            }
            site.with(&format!("/{index}.aac"), [tag, segment_frames(index).concat()].concat())
        });
        let origin = site.serve();
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        check_smpb(&mut hls.next_section().unwrap().unwrap(), &format!("{kind:?} {}", body[0]));
    }
}

/// As [`delayed`], without an edit list: metadata say what the encoder has added.
fn commented(is_full_box: bool) -> Site {
    let full =
        |kind: &[u8; 4], skipped: usize, body: &[u8]| mux::mp4_box(kind, &[&vec![0; skipped], body].concat());
    let entry = [
        full(b"mean", 4, b"com.apple.iTunes"),
        full(b"name", 4, b"iTunSMPB"),
        full(b"data", 8, smpb().as_bytes()),
    ];
    let other = [full(b"name", 4, b"iTunNORM"), full(b"data", 8, b" 00000000")].concat();
    let list = [mux::mp4_box(b"----", &other), mux::mp4_box(b"----", &entry.concat())].concat();
    let meta = full(b"meta", if is_full_box { 4 } else { 0 }, &mux::mp4_box(b"ilst", &list));
    let udta = mux::mp4_box(b"udta", &meta);
    let mut init = mux::init(&Entry::Aac(3), 48_000, 0);
    let moov = init.windows(4).position(|window| window == b"moov").unwrap();
    let size = init.len() - (moov - 4) + udta.len();
    init[moov - 4..moov].copy_from_slice(&(size as u32).to_be_bytes());
    init.extend(udta);
    delayed(0, 3).with("/init.mp4", init)
}

#[test]
fn metadata_of_mp4_say_what_the_encoder_has_added() {
    for is_full_box in [true, false] {
        let origin = commented(is_full_box).serve();
        let mut hls = open(&origin, "/list.m3u8", |_| ());
        check_smpb(&mut hls.next_section().unwrap().unwrap(), &format!("{is_full_box}"));
        hls.seek(Duration::from_secs(3)).unwrap();
        let mut section = hls.next_section().unwrap().unwrap();
        let skip = section.info().skip;
        let first = numbers(&all(&mut section))[0];
        let skipped = Duration::from_secs(3) + samples(2112) - samples(first * 1024);
        assert!(skip.abs_diff(skipped) < Duration::from_nanos(100), "{skip:?}");
    }
}

#[test]
fn a_stream_of_all_sections_says_what_was_added_at_its_ends() {
    let origin = commented(true).serve();
    let source =
        open(&origin, "/list.m3u8", |config| config.buffer = Duration::from_secs(1)).into_source().unwrap();
    let handle = source.handle().clone();
    assert!(source.info().skip.abs_diff(samples(2112)) < Duration::from_nanos(10));
    assert_eq!(handle.padding(), None, "the end has not arrived");
    Stream::new(source).read_to_end(&mut Vec::new()).unwrap();
    assert!(handle.padding().unwrap().abs_diff(samples(500)) < Duration::from_nanos(30));
}
