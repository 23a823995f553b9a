//! What demuxers must do whatever the input is, shown with a small muxer.

use std::time::Duration;

use super::*;
use crate::media::AudioCodec;
use support::mux::{self, Entry, Random, Ts, aac_frames, adts, fragment, id3};

const SECOND: MediaTime = 1_000_000_000;

/// Frames of a segment that comes in pieces of this size.
pub(super) fn demux(mut demuxer: Demuxer, bytes: &[u8], piece: usize) -> Result<Output, Error> {
    let mut output = Output::default();
    for piece in bytes.chunks(piece) {
        demuxer.push(piece, &mut output)?;
    }
    demuxer.finish(&mut output)?;
    Ok(output)
}

pub(super) fn frames(bytes: &[u8]) -> Output {
    demux(Demuxer::new(0), bytes, 1000).unwrap()
}

pub(super) fn adts_frames(first: u64, count: u64) -> Vec<Vec<u8>> {
    aac_frames(first, count).iter().map(|frame| adts(frame, 3)).collect()
}

fn aac_ts(frames: &[Vec<u8>], time: u64) -> Vec<u8> {
    Ts::new(0x0f).segment(frames, time, 1920.0)
}

/// A segment: its name, its initialization section, its bytes, and the frames in it.
pub(super) type Sample = (&'static str, Option<Vec<u8>>, Vec<u8>, Vec<Vec<u8>>);

/// A segment of each kind.
pub(super) fn samples() -> Vec<Sample> {
    samples_of(40)
}

/// With so many frames of AAC, and half as many of MP3 and AC-3.
pub(super) fn samples_of(count: u64) -> Vec<Sample> {
    let raw = aac_frames(0, count);
    let aac = adts_frames(0, count);
    let (mp3, ac3) = (mux::mp3_frames(0, count / 2), mux::ac3_frames(0, count / 2));
    let latm = latm_elements(&raw, 3, &|| mux::LatmConfig::lc(0));
    let mut video = Ts::new(0x0f);
    video.has_video = true;
    vec![
        ("ADTS", None, [id3(900_000), aac.concat()].concat(), aac.clone()),
        ("MP3", None, [id3(900_000), mp3.concat()].concat(), mp3.clone()),
        ("AC-3", None, [id3(900_000), ac3.concat()].concat(), ac3.clone()),
        ("TS with ADTS", None, aac_ts(&aac, 900_000), aac.clone()),
        ("TS with video", None, video.segment(&aac, 900_000, 1920.0), aac.clone()),
        ("TS with MP3", None, Ts::new(0x03).segment(&mp3, 900_000, 2351.02), mp3),
        ("TS with LATM", None, Ts::new(0x11).segment(&latm, 900_000, 1920.0), aac.clone()),
        ("TS with AC-3", None, Ts::new(0x81).segment(&ac3, 900_000, 2880.0), ac3),
        ("MP4", Some(mux::init(&Entry::Aac(3), 48_000, 0)), fragment(&raw, 480_000), aac.clone()),
        (
            "MP4 with its init",
            None,
            [mux::init(&Entry::Aac(3), 48_000, 0), fragment(&raw, 480_000)].concat(),
            aac,
        ),
        ("MP4 with FLAC", Some(mux::init(&Entry::Flac, 44_100, 0)), fragment(&raw, 441_000), raw.clone()),
        ("MP4 with ALAC", Some(mux::init(&Entry::Alac, 48_000, 0)), fragment(&raw, 480_000), raw),
    ]
}

pub(super) fn demuxer(init: Option<&[u8]>) -> Demuxer {
    init.map_or_else(|| Demuxer::new(0), |init| Demuxer::with_init(init, 0).unwrap())
}

#[test]
fn each_container_gives_its_frames_and_times() {
    for (name, init, bytes, wanted) in samples() {
        let output = demux(demuxer(init.as_deref()), &bytes, 1 << 20).unwrap();
        assert!(output.data == wanted.concat(), "{name}: the bytes");
        let lens: Vec<usize> = output.frames.iter().map(|frame| frame.len).collect();
        assert_eq!(lens, wanted.iter().map(Vec::len).collect::<Vec<_>>(), "{name}");
        assert_eq!(output.frames[0].time, Some(10 * SECOND), "{name}");
        let mut time = 10 * SECOND;
        for frame in &output.frames {
            // A tick of 90 kHz is 11.1 µs.
            assert!((frame.time.unwrap() - time).abs() < 11_200, "{name}: {:?} for {time}", frame.time);
            time += frame.duration.as_nanos() as MediaTime;
        }
    }
}

#[test]
fn the_result_does_not_depend_on_the_chunks() {
    let mut random = Random(7);
    for (name, init, bytes, _) in samples() {
        let whole = demux(demuxer(init.as_deref()), &bytes, 1 << 20).unwrap();
        for piece in [1, 2, 3, 187, 188, 189] {
            assert!(
                demux(demuxer(init.as_deref()), &bytes, piece).unwrap() == whole,
                "{name} in pieces of {piece}"
            );
        }
        for _ in 0..20 {
            let (mut demuxer, mut output, mut rest) =
                (demuxer(init.as_deref()), Output::default(), &bytes[..]);
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(1 + random.below(rest.len().min(700)));
                demuxer.push(piece, &mut output).unwrap();
                rest = more;
            }
            demuxer.finish(&mut output).unwrap();
            assert!(output == whole, "{name}");
        }
    }
}

#[test]
fn times_continue_over_the_rollover_of_33_bits() {
    let output = frames(&aac_ts(&adts_frames(0, 400), (1 << 33) - 90_000));
    let times: Vec<MediaTime> = output.frames.iter().map(|frame| frame.time.unwrap()).collect();
    assert!(times.is_sorted());
    let span = Duration::from_nanos((times[399] - times[0]) as u64);
    assert!(span.abs_diff(Duration::from_secs_f64(399.0 * 1024.0 / 48_000.0)) < Duration::from_micros(12));
}

#[test]
fn a_lost_packet_costs_two_frames_at_most() {
    let wanted = adts_frames(0, 40);
    let bytes = aac_ts(&wanted, 0);
    for lost in 2..bytes.len() / 188 {
        let cut = [&bytes[..lost * 188], &bytes[(lost + 1) * 188..]].concat();
        let output = frames(&cut);
        let intact = intact(&output, &wanted);
        // A lost start of a PES packet takes the whole packet with it: four frames, and the end of the one before.
        assert!(intact >= 35, "packet {lost}: {intact} frames");
        assert_eq!(output.frames.len(), intact, "packet {lost}: damaged frames came out");
        assert!(output.frames.iter().rev().take(4).all(|frame| frame.time.is_some()));
    }
}

#[test]
fn a_packet_without_a_payload_may_announce_that_the_counter_jumps() {
    let wanted = adts_frames(0, 40);
    let bytes = aac_ts(&wanted, 0);
    let (before, behind) = bytes.split_at(10 * 188);
    let is_audio = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) == mux::AUDIO_PID;
    assert!(is_audio(behind) && behind[1] & 0x40 == 0, "the middle of a PES packet");
    // An adaptation field with the discontinuity_indicator, and no payload. The counter of what follows is that of this packet
    // and one.
    let mut announcement = vec![0xff; 188];
    announcement[..6].copy_from_slice(&[0x47, behind[1], behind[2], 0x20 | (behind[3] + 6) & 15, 183, 0x80]);
    let mut behind = behind.to_vec();
    behind.chunks_mut(188).filter(|packet| is_audio(packet)).for_each(|packet| {
        packet[3] = packet[3] & 0xf0 | (packet[3] + 7) & 15;
    });
    let output = frames(&[before, &announcement, &behind].concat());
    assert_eq!(intact(&output, &wanted), 40);
}

#[test]
fn a_lost_byte_or_a_cut_costs_frames_but_not_the_rest() {
    let wanted = adts_frames(0, 40);
    let bytes = aac_ts(&wanted, 0);
    for lost in [377, 400, 5000, bytes.len() - 1] {
        let cut = [&bytes[..lost], &bytes[lost + 1..]].concat();
        assert!(intact(&frames(&cut), &wanted) >= 34, "without byte {lost}");
    }
    let output = frames(&bytes[..bytes.len() - 300]);
    assert!(intact(&output, &wanted) == output.frames.len());
    // A second copy of the tables is all that a start in the middle needs.
    let late = frames(&[&bytes[188 * 20 + 77..], &bytes].concat());
    assert!(intact(&late, &wanted) >= 39);
}

/// Frames of `output` that are frames of `wanted`.
fn intact(output: &Output, wanted: &[Vec<u8>]) -> usize {
    let mut at = 0;
    let found = output.frames.iter().filter(|frame| {
        let bytes = &output.data[at..at + frame.len];
        at += frame.len;
        wanted.iter().any(|wanted| wanted == bytes)
    });
    found.count()
}

#[test]
fn junk_before_the_first_packet_or_frame_is_skipped() {
    let wanted = adts_frames(0, 40);
    let junk = vec![0x11; 1234];
    for bytes in [aac_ts(&wanted, 0), wanted.concat()] {
        assert_eq!(frames(&[&junk[..], &bytes].concat()).data, wanted.concat());
    }
}

#[test]
fn tags_between_frames_are_skipped() {
    let wanted = adts_frames(0, 20);
    let bytes =
        [id3(0), wanted[..10].concat(), id3(5), wanted[10..].concat(), b"TAG of an old kind".to_vec()];
    assert_eq!(frames(&bytes.concat()).data, wanted.concat());
}

#[test]
fn a_frame_that_is_cut_off_is_dropped() {
    for (name, init, bytes, wanted) in samples() {
        let cut = &bytes[..bytes.len() * 2 / 3];
        let output = demux(demuxer(init.as_deref()), cut, 1 << 20).unwrap();
        assert!(output.frames.len() < wanted.len(), "{name}");
        assert!(wanted.concat().starts_with(&output.data), "{name}");
    }
}

#[test]
fn a_frame_that_two_segments_share_is_put_together() {
    for stream in [adts_frames(0, 20), mux::mp3_frames(0, 20), mux::ac3_frames(0, 20)] {
        let bytes = stream.concat();
        for cut in [
            stream[..7].concat().len() + 100,
            stream[..10].concat().len() + 1,
            stream[..10].concat().len() + 13,
        ] {
            let (first, second) = (frames(&bytes[..cut]), frames(&bytes[cut..]));
            let (frame, joined) = join(&first.tail, &second.head).expect("the two halves fit");
            assert_eq!(frame.len, joined.len());
            assert!([first.data, joined, second.data].concat() == bytes, "cut at {cut}");
        }
        // What is not cut has neither.
        let whole = frames(&bytes);
        assert!(whole.head.is_empty() && whole.tail.is_empty());
    }
}

#[test]
fn a_table_for_seeking_is_no_audio() {
    let mut table = mux::mp3_frames(99, 1).remove(0);
    table[36..40].copy_from_slice(b"Info");
    let wanted = mux::mp3_frames(0, 10);
    assert_eq!(frames(&[table, wanted.concat()].concat()).data, wanted.concat());
}

#[test]
fn encoder_delay_moves_the_time_of_mp4() {
    let init = mux::init(&Entry::Aac(3), 48_000, 1024);
    let output = demux(demuxer(Some(&init)), &fragment(&aac_frames(0, 3), 0), 100).unwrap();
    let times: Vec<_> = output.frames.iter().map(|frame| frame.time).collect();
    assert_eq!(times, [Some(-21_333_334), Some(0), Some(21_333_333)]);
}

/// An initialization section of AAC whose edit list has a duration, in seconds.
fn edited(seconds: u64) -> Vec<u8> {
    let mut init = mux::init(&Entry::Aac(3), 48_000, 1024);
    let at = init.windows(4).position(|window| window == b"elst").unwrap() + 12;
    init[at..at + 8].copy_from_slice(&(seconds * 1000).to_be_bytes());
    let movie = mux::mp4_box(b"mvhd", &[&[0; 12][..], &1000_u32.to_be_bytes(), &[0; 84]].concat());
    let moov = init.windows(4).position(|window| window == b"moov").unwrap();
    let size = init.len() - (moov - 4) + movie.len();
    init[moov - 4..moov].copy_from_slice(&(size as u32).to_be_bytes());
    init.splice(moov + 4..moov + 4, movie);
    init
}

#[test]
fn padding_is_what_lies_behind_the_duration_of_the_edit_list() {
    // 96 000 samples behind the first 1024, in 95 frames of 1024; the movie counts in milliseconds.
    let padding = |seconds, frames| {
        let init = edited(seconds);
        demux(demuxer(Some(&init)), &fragment(&aac_frames(0, frames), 0), 100).unwrap().padding
    };
    let samples = |count: u64| Duration::from_nanos(nanoseconds(count, 48_000));
    assert_eq!(padding(2, 95), samples(95 * 1024 - 1024 - 96_000 - 48));
    assert_eq!(padding(2, 94), Duration::ZERO, "a segment before the last one");
    assert_eq!(padding(1, 95), Duration::ZERO, "the edit list is of the first fragment");
    assert_eq!(padding(0, 95), Duration::ZERO, "it has no duration");
    assert_eq!(padding(u64::MAX / 1000, 95), Duration::ZERO);
}

#[test]
fn opus_is_never_trimmed_by_its_head_and_its_delay_moves_the_time() {
    // 312 samples, with and without an edit list. A section may begin anywhere, and then a decoder must drop nothing.
    for start in [0, 312] {
        let init = mux::init(&Entry::Opus, 48_000, start);
        // Frames of 20 ms.
        let packets: Vec<_> = (0..3).map(|number| vec![31 << 3, number]).collect();
        let output = demux(demuxer(Some(&init)), &fragment(&packets, 0), 100).unwrap();
        let format = &output.frames[0].format;
        assert_eq!((format.codec, format.sample_rate, format.channels), (AudioCodec::Opus, 48_000, 2));
        let head = format.head.as_deref().unwrap();
        assert_eq!(&head[28..40], b"OpusHead\x01\x02\0\0", "no samples to skip");
        assert_eq!(output.frames[0].time, Some(-6_500_000), "edit list at {start}");
    }
}

#[test]
fn flac_has_a_head_that_promises_no_length() {
    let init = mux::init(&Entry::Flac, 44_100, 0);
    let output = demux(demuxer(Some(&init)), &fragment(&aac_frames(0, 3), 0), 100).unwrap();
    let format = &output.frames[0].format;
    assert_eq!((format.codec, format.sample_rate, format.channels), (AudioCodec::Flac, 44_100, 2));
    let head = format.head.as_deref().unwrap();
    assert_eq!((&head[..8], head.len()), (&b"fLaC\x80\0\0\x22"[..], 42));
    assert_eq!((head[21] & 0x0f, &head[22..42]), (0, &[0; 20][..]));
}

#[test]
fn what_is_not_supported_has_a_typed_error() {
    let kind = |result: Result<Output, Error>| result.unwrap_err().kind();
    assert_eq!(
        Demuxer::with_init(&mux::init(&Entry::Dts, 48_000, 0), 0).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    for bytes in [&b""[..], b"WEBVTT\n", b"<html>", &[0x47; 10]] {
        assert_eq!(kind(demux(Demuxer::new(0), bytes, 10)), ErrorKind::Unsupported, "{bytes:?}");
    }
    assert_eq!(kind(demux(Demuxer::new(0), &fragment(&aac_frames(0, 3), 0), 100)), ErrorKind::Unsupported);
}

/// Elements of LATM with a configuration in every tenth one, from the number `first` on.
fn latm_elements(raw: &[Vec<u8>], first: usize, config: &dyn Fn() -> mux::LatmConfig) -> Vec<Vec<u8>> {
    let element = |(at, raw): (usize, &Vec<u8>)| {
        let config = (at % 10 == 0).then(config);
        mux::loas(config.as_ref(), std::slice::from_ref(raw))
    };
    raw.iter().enumerate().map(|(at, raw)| element((at + first, raw))).collect()
}

#[test]
fn latm_gives_the_frames_of_adts_also_before_the_first_configuration() {
    let raw = aac_frames(0, 40);
    for version in [0, 1] {
        for first in [0, 1, 7] {
            let elements = latm_elements(&raw, first, &|| mux::LatmConfig::lc(version));
            let output = frames(&Ts::new(0x11).segment(&elements, 900_000, 1920.0));
            let wanted = frames(&aac_ts(&adts_frames(0, 40), 900_000));
            assert!(output.data == adts_frames(0, 40).concat(), "version {version}, from {first} on");
            assert_eq!(output.frames, wanted.frames);
            let mislabelled = frames(&Ts::new(0x0f).segment(&elements, 900_000, 1920.0));
            assert!(mislabelled == output, "tables that say ADTS");
        }
    }
}

#[test]
fn elements_of_latm_may_contain_several_frames_and_other_data() {
    let raw = aac_frames(0, 40);
    for version in [0, 1] {
        let mut config = mux::LatmConfig::lc(version);
        (config.frames, config.other_bits, config.has_checksum) = (4, 700, true);
        let elements: Vec<_> = raw.chunks(4).map(|raw| mux::loas(Some(&config), raw)).collect();
        let mut ts = Ts::new(0x11);
        ts.frames_per_pes = 1;
        let output = frames(&ts.segment(&elements, 900_000, 4.0 * 1920.0));
        assert!(output.data == adts_frames(0, 40).concat(), "version {version}");
        let last = output.frames[39].time.unwrap() - 10 * SECOND;
        assert!((last - 39 * 1024 * SECOND / 48_000).abs() < 11_200, "{last}");
    }
}

#[test]
fn a_configuration_of_latm_may_change_and_tells_of_high_efficiency() {
    let raw = aac_frames(0, 20);
    let mut elements = latm_elements(&raw[..10], 0, &|| mux::LatmConfig::lc(1));
    let mut high = mux::LatmConfig::lc(1);
    // SBR at 48 kHz over LC at 24 kHz, stereo.
    high.audio = vec![0x2b, 0x11, 0x88, 0x00];
    elements.extend(latm_elements(&raw[10..], 0, &|| high.clone()));
    let output = frames(&Ts::new(0x11).segment(&elements, 0, 1920.0));
    let formats: Vec<_> =
        output.frames.iter().map(|frame| (frame.format.codec, frame.format.sample_rate)).collect();
    assert_eq!(formats[..10], [(AudioCodec::Aac, 48_000); 10]);
    assert_eq!(formats[10..], [(AudioCodec::HeAac, 24_000); 10]);
}

#[test]
fn latm_that_is_not_supported_is_named() {
    let raw = aac_frames(0, 4);
    let message = |elements: &[Vec<u8>]| {
        let segment = Ts::new(0x11).segment(elements, 0, 1920.0);
        let error = demux(Demuxer::new(0), &segment, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        error.to_string()
    };
    let with = |change: &dyn Fn(&mut mux::LatmConfig)| {
        let mut config = mux::LatmConfig::lc(1);
        change(&mut config);
        message(&latm_elements(&raw, 0, &|| config.clone()))
    };
    // xHE-AAC.
    let text = with(&|config| config.audio = vec![0xf9, 0x46, 0x40]);
    assert!(text.contains("object type 42"), "{text}");
    let text = with(&|config| config.layers = 2);
    assert!(text.contains("layers"), "{text}");
    let text = message(&latm_elements(&raw, 1, &|| mux::LatmConfig::lc(0)));
    assert!(text.contains("no configuration"), "{text}");
}

#[test]
fn lost_packets_of_latm_cost_frames_but_no_wrong_ones_come_out() {
    let wanted = adts_frames(0, 40);
    let elements = latm_elements(&aac_frames(0, 40), 0, &|| mux::LatmConfig::lc(0));
    let bytes = Ts::new(0x11).segment(&elements, 0, 1920.0);
    for lost in 2..bytes.len() / 188 {
        let output = frames(&[&bytes[..lost * 188], &bytes[(lost + 1) * 188..]].concat());
        let intact = intact(&output, &wanted);
        assert!(intact >= 35, "packet {lost}: {intact} frames");
        assert_eq!(output.frames.len(), intact, "packet {lost}: damaged frames came out");
    }
}

#[test]
fn tables_may_be_in_the_initialization_section_alone() {
    let mut ts = Ts::new(0x0f);
    let init = ts.tables();
    let wanted = adts_frames(0, 20);
    let segment = ts.segment(&wanted, 0, 1920.0);
    let output = demux(demuxer(Some(&init)), &segment[2 * 188..], 1000).unwrap();
    assert_eq!(output.data, wanted.concat());
}
