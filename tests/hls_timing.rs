//! HLS: the times of frames are those of the source's samples, measured by the decoded samples themselves.
//!
//! `cargo test --test hls_timing --features hls -- --ignored`. Needs `ffmpeg`.
#![cfg(feature = "hls")]

use std::fs;
use std::io::Read;
use std::time::Duration;

use support::Origin;
use support::ffmpeg::{Folder, left, list_fragments};
use windway::hls::{Hls, HlsConfig, Section};
use windway::{Downloader, DownloaderConfig};

fn open(origin: &Origin, path: &str) -> Hls {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    downloader.open_hls(&origin.url(path), HlsConfig::default()).unwrap()
}

/// Samples by which `played` is behind `source`: where they look most like each other behind this sample.
fn lag(source: &[f32], played: &[f32], at: usize) -> i64 {
    const WINDOW: usize = 2048;
    let window = &source[at..at + WINDOW];
    let likeness = |lag: i64| -> f32 {
        let from = usize::try_from(at as i64 + lag).ok();
        let other = from.and_then(|from| played.get(from..from + WINDOW));
        other.map_or(f32::MIN, |other| window.iter().zip(other).map(|(a, b)| a * b).sum())
    };
    (-2500..2500).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap()
}

/// Reads a section, and decodes it.
fn decode(folder: &Folder, section: &mut Section, name: &str) -> (usize, Vec<f32>) {
    let mut bytes = Vec::new();
    section.read_to_end(&mut bytes).unwrap();
    fs::write(folder.path().join(name), &bytes).unwrap();
    (bytes.len(), left(folder, name))
}

#[test]
#[ignore = "needs ffmpeg"]
fn times_of_frames_are_those_of_the_samples_in_the_source() {
    let folder = Folder::new();
    let ts = "-f hls -hls_time 3 -hls_playlist_type vod list.m3u8";
    let mp4 = "-f hls -hls_time 3 -hls_playlist_type vod -hls_segment_type fmp4 list.m3u8";
    // This muxer writes the encoder delay into an edit list. The one of HLS does not.
    let edited = "-movflags +frag_keyframe+delay_moov+default_base_moof -frag_duration 3000000 whole.mp4";
    let adts = "-f segment -segment_time 3 -segment_format adts -segment_list list.m3u8 part%d.aac";
    let mp3 = "-f segment -segment_time 3 -segment_format mp3 -segment_list list.m3u8 part%d.mp3";
    let (aac, opus, lame) =
        ("-c:a aac -b:a 160k", "-c:a libopus -ar 48000 -b:a 160k", "-c:a libmp3lame -b:a 192k");
    // Samples of a frame, and the delay that nothing tells of.
    for (encode, muxer, name, rate, frame, untold) in [
        (aac, ts, "played.aac", 44_100, 1024, 1024),
        (aac, mp4, "played.aac", 44_100, 1024, 1024),
        (aac, edited, "played.aac", 44_100, 1024, 0),
        (aac, adts, "played.aac", 44_100, 1024, 1024),
        (opus, mp4, "played.ogg", 48_000, 960, 0),
        (opus, edited, "played.ogg", 48_000, 960, 0),
        (lame, ts, "played.mp3", 44_100, 1152, 1105),
        (lame, mp4, "played.mp3", 44_100, 1152, 1105),
        (lame, edited, "played.mp3", 44_100, 1152, 0),
        (lame, mp3, "played.mp3", 44_100, 1152, 0),
        ("-c:a ac3 -b:a 192k", ts, "played.ac3", 44_100, 1536, 256),
    ] {
        let of = format!("{encode} {muxer}");
        folder.noise(&format!("-ar {rate} -f f32le source.raw"));
        let source = folder.left_of("source.raw");
        folder.noise(&of);
        if muxer == edited {
            list_fragments(&folder, "whole.mp4", "list.m3u8");
        }
        let origin = folder.serve();
        let mut hls = open(&origin, "/list.m3u8");
        let at = |time: Duration| time.as_secs_f64() * f64::from(rate);
        let mut section = hls.next_section().unwrap().unwrap();
        let (len, played) = decode(&folder, &mut section, name);
        // Those that begin before the source have the time 0.
        let mut times: Vec<_> = (0..len as u64).filter_map(|offset| section.time_of(offset)).collect();
        times.dedup();
        let frames = played.len() / frame;
        assert!(times.len() + 1 >= frames, "{of}: {} times of {frames} frames", times.len());
        let behind = lag(&source, &played, source.len() / 2);
        let skip = at(section.info().skip).round() as i64;
        assert_eq!(behind, skip + untold, "{of}: {skip}");
        for (index, time) in (0..frames).rev().zip(times.iter().rev()) {
            let wanted = ((index * frame) as i64 - behind + untold).max(0) as f64;
            assert!(
                (at(*time) - wanted).abs() <= 1.0,
                "{of}: frame {index} at {time:?}, not at sample {wanted}"
            );
        }
        for target in [7.31, 18.7] {
            hls.seek(Duration::from_secs_f64(target)).unwrap();
            let mut section = hls.next_section().unwrap().unwrap();
            let (_, played) = decode(&folder, &mut section, name);
            let rest = &source[(target * f64::from(rate)).round() as usize..];
            let skip = at(section.info().skip).round() as usize;
            let behind = lag(rest, &played[skip..], rest.len() / 2);
            assert!(behind.abs_diff(untold) <= 1, "{of}: {behind} samples after a seek to {target}");
        }
    }
}
