//! HLS as ffmpeg writes it: the bytes are those of ffmpeg's own elementary stream, and the samples those of the source.
//!
//! `cargo test --test hls_ffmpeg --features hls-aes -- --ignored`. Needs `ffmpeg`, and `nginx` for the live stream.
#![cfg(feature = "hls")]

use std::fs;
use std::io::{Cursor, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::Origin;
use support::decoding::Decoding;
use support::ffmpeg::{Folder, left, list_fragments};
use windway::hls::{Discontinuity, Hls, HlsConfig};
use windway::media::AudioCodec;
use windway::{Downloader, DownloaderConfig};

fn open(origin: &Origin, path: &str) -> Hls {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    downloader.open_hls(&origin.url(path), HlsConfig::default()).unwrap()
}

/// The only section, whole.
fn play(folder: &Folder, path: &str) -> (AudioCodec, Vec<u8>) {
    let origin = folder.serve();
    let mut hls = open(&origin, path);
    let mut section = hls.next_section().unwrap().unwrap();
    assert_eq!(section.info().discontinuity, Discontinuity::Start);
    let mut bytes = Vec::new();
    section.read_to_end(&mut bytes).unwrap();
    assert!(hls.next_section().unwrap().is_none(), "{path}: one section");
    let position = hls.handle().position();
    assert!(
        position.abs_diff(Duration::from_secs(20)) < Duration::from_millis(300),
        "{path}: ends at {position:?}"
    );
    (section.info().codec, bytes)
}

fn samples(bytes: Vec<u8>) -> Vec<f32> {
    let mut decoding = Decoding::open(Box::new(Cursor::new(bytes)));
    let mut all = Vec::new();
    while let Some(samples) = decoding.samples().unwrap() {
        all.extend(samples);
    }
    all
}

#[test]
#[ignore = "needs ffmpeg"]
fn elementary_streams_are_those_of_ffmpeg() {
    let folder = Folder::new();
    let list = "-f hls -hls_time 3 -hls_playlist_type vod";
    fs::write(folder.path().join("key"), [7; 16]).unwrap();
    fs::write(folder.path().join("keyinfo"), "key\nkey\n").unwrap();
    let sets: [(&str, String, &str); 8] = [
        ("aac-ts", format!("-c:a aac -b:a 128k {list}"), "adts"),
        (
            "aac-mp4",
            format!("-c:a aac -b:a 128k {list} -hls_segment_type fmp4 -hls_fmp4_init_filename aac.mp4"),
            "adts",
        ),
        (
            "aac-one",
            format!("-c:a aac -b:a 128k {list} -hls_segment_type fmp4 -hls_flags single_file"),
            "adts",
        ),
        ("mp3-ts", format!("-c:a libmp3lame -b:a 128k {list}"), "mp3"),
        ("ac3-ts", format!("-c:a ac3 -b:a 192k {list}"), "ac3"),
        (
            "eac3-mp4",
            format!("-c:a eac3 -b:a 192k {list} -hls_segment_type fmp4 -hls_fmp4_init_filename eac3.mp4"),
            "eac3",
        ),
        (
            "mp3-mp4",
            format!(
                "-c:a libmp3lame -b:a 128k {list} -hls_segment_type fmp4 -hls_fmp4_init_filename mp3.mp4"
            ),
            "mp3",
        ),
        ("aac-crypt", format!("-c:a aac -b:a 128k {list} -hls_key_info_file keyinfo"), "adts"),
    ];
    for (name, arguments, format) in sets {
        if name == "aac-crypt" && !cfg!(feature = "hls-aes") {
            continue;
        }
        folder.ffmpeg(&format!("{arguments} {name}.m3u8"));
        folder.convert(
            &format!("{name}.m3u8"),
            &format!("-c copy -f {format} -write_xing 0 -id3v2_version 0 {name}.raw"),
        );
        let wanted = folder.read(&format!("{name}.raw"));
        let (codec, bytes) = play(&folder, &format!("/{name}.m3u8"));
        assert!(bytes.len() > 100_000, "{name}: {codec} {} bytes", bytes.len());
        assert!(bytes == wanted, "{name}: {} bytes instead of {}", bytes.len(), wanted.len());
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn flac_is_decoded_to_the_samples_of_the_source() {
    let folder = Folder::new();
    folder.ffmpeg("-c:a flac -strict -2 -sample_fmt s16 -f hls -hls_time 3 -hls_playlist_type vod -hls_segment_type fmp4 flac.m3u8");
    folder.ffmpeg("-c:a flac -sample_fmt s16 whole.flac");
    let (codec, bytes) = play(&folder, "/flac.m3u8");
    assert_eq!(codec, AudioCodec::Flac);
    let wanted = samples(folder.read("whole.flac"));
    assert_eq!(wanted.len(), 20 * 44_100 * 2);
    assert!(samples(bytes) == wanted, "other samples");
}

#[test]
#[ignore = "needs ffmpeg"]
fn symphonia_decodes_sections_as_it_decodes_the_whole() {
    let folder = Folder::new();
    // Without noise substitution, for which a decoder draws random numbers.
    folder.ffmpeg("-c:a aac -b:a 128k -aac_pns 0 -f hls -hls_time 3 -hls_playlist_type vod aac.m3u8");
    folder.convert("aac.m3u8", "-c copy -f adts aac.raw");
    let (_, bytes) = play(&folder, "/aac.m3u8");
    let decoded = samples(bytes);
    assert!(decoded.len() > 19 * 44_100 * 2 && decoded == samples(folder.read("aac.raw")));
    // From the middle: the same packets, but for the first one, which overlaps with the one before.
    let origin = folder.serve();
    let mut hls = open(&origin, "/aac.m3u8");
    hls.seek(Duration::from_secs(10)).unwrap();
    let mut section = hls.next_section().unwrap().unwrap();
    let mut bytes = Vec::new();
    section.read_to_end(&mut bytes).unwrap();
    let rest = samples(bytes);
    assert!(decoded.ends_with(&rest[2048 * 2..]), "the rest after a seek");
}

#[test]
#[ignore = "needs ffmpeg"]
fn opus_in_ogg_has_the_packets_of_ffmpeg() {
    let folder = Folder::new();
    folder.ffmpeg("-c:a libopus -ar 48000 -b:a 96k -f hls -hls_time 3 -hls_playlist_type vod -hls_segment_type fmp4 opus.m3u8");
    let (codec, bytes) = play(&folder, "/opus.m3u8");
    assert_eq!(codec, AudioCodec::Opus);
    fs::write(folder.path().join("played.ogg"), bytes).unwrap();
    let wanted = folder.packets("opus.m3u8");
    assert!(wanted.len() >= 1000 && folder.packets("played.ogg") == wanted);
}

#[test]
#[ignore = "needs ffmpeg"]
fn alac_in_matroska_has_the_packets_of_ffmpeg_and_the_samples_of_the_source() {
    let folder = Folder::new();
    for (rate, channels, format) in [(44_100, 2, "s16p"), (96_000, 1, "s32p"), (48_000, 6, "s16p")] {
        let encode = format!("-ar {rate} -ac {channels} -sample_fmt {format} -c:a alac");
        folder.ffmpeg(&format!(
            "{encode} -f hls -hls_time 3 -hls_playlist_type vod -hls_segment_type fmp4 alac.m3u8"
        ));
        let (codec, bytes) = play(&folder, "/alac.m3u8");
        assert_eq!(codec, AudioCodec::Alac);
        fs::write(folder.path().join("played.mkv"), bytes).unwrap();
        let packets = folder.packets("alac.m3u8");
        assert!(packets.len() >= 200 && folder.packets("played.mkv") == packets, "{rate} Hz: other packets");
        folder.ffmpeg(&format!("{encode} whole.m4a"));
        for (from, to) in [("played.mkv", "played.raw"), ("whole.m4a", "whole.raw")] {
            folder.convert(from, &format!("-y -f s32le {to}"));
        }
        let (played, whole) = (folder.read("played.raw"), folder.read("whole.raw"));
        assert_eq!(whole.len(), 20 * rate * channels * 4);
        assert!(played == whole, "{rate} Hz, {channels} channels: {} bytes of {}", played.len(), whole.len());
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn latm_of_ffmpeg_gives_the_frames_that_its_encoder_made() {
    let folder = Folder::new();
    for (rate, channels) in [(44_100, 2), (8000, 1), (96_000, 2), (48_000, 6)] {
        let encode = format!("-ar {rate} -ac {channels} -c:a aac -b:a 128k");
        folder.ffmpeg(&format!("{encode} -f adts whole.aac"));
        let whole = folder.read("whole.aac");
        // The configuration is in every twentieth element, so segments begin without one, and shorter ones have none at all. ffmpeg's
        // muxer of HLS writes the type of ADTS into the tables.
        for muxer in [
            "-f segment -segment_time 3 -segment_format mpegts -segment_format_options mpegts_flags=latm \
             -segment_list latm.m3u8",
            "-f hls -hls_time 7 -hls_playlist_type vod -hls_segment_filename latm%d.ts -hls_ts_options mpegts_flags=latm",
        ] {
            let out = if muxer.starts_with("-f hls") { "latm.m3u8" } else { "latm%d.ts" };
            folder.ffmpeg(&format!("{encode} {muxer} {out}"));
            let (codec, bytes) = play(&folder, "/latm.m3u8");
            assert_eq!(codec, AudioCodec::Aac);
            assert!(
                bytes == whole,
                "{rate} Hz, {channels}, {muxer}: {} bytes of {}",
                bytes.len(),
                whole.len()
            );
        }
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn no_frame_is_lost_or_doubled_at_any_rate_and_segment_length() {
    let folder = Folder::new();
    let aac = [8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000]
        .map(|rate| (format!("-c:a aac -ar {rate}"), "adts"));
    let mp3 = [8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]
        .map(|rate| (format!("-c:a libmp3lame -ar {rate}"), "mp3"));
    let ac3 = [32_000, 44_100, 48_000].map(|rate| (format!("-c:a ac3 -ar {rate}"), "ac3"));
    let eac3 = [32_000, 44_100, 48_000].map(|rate| (format!("-c:a eac3 -ar {rate}"), "eac3"));
    let kinds = aac.into_iter().chain(mp3).chain(ac3).chain(eac3);
    for (index, (encode, format)) in kinds.enumerate() {
        let (channels, seconds) = (1 + index % 2, ["0.7", "2", "9.9"][index % 3]);
        let encode = format!("{encode} -ac {channels}");
        folder.ffmpeg(&format!("{encode} -write_xing 0 -id3v2_version 0 -f {format} whole.raw"));
        let whole = folder.read("whole.raw");
        for container in ["mpegts", "fmp4"] {
            if container == "fmp4"
                && format == "mp3"
                && (encode.contains(" 8000") || encode.contains(" 11025"))
            {
                // MP4 has no MPEG 2.5.
                continue;
            }
            folder.ffmpeg(&format!(
                "{encode} -f hls -hls_time {seconds} -hls_playlist_type vod -hls_segment_type {container} list.m3u8"
            ));
            let (_, bytes) = play(&folder, "/list.m3u8");
            assert!(bytes == whole, "{encode}, {container}, {seconds} s: {} of {}", bytes.len(), whole.len());
        }
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn no_option_of_its_muxer_changes_a_byte() {
    let flags = [
        "single_file",
        "round_durations",
        "split_by_time",
        "program_date_time",
        "temp_file",
        "discont_start",
        "independent_segments",
    ];
    let kinds = ["mpegts", "fmp4"];
    let of_flag = |flag: &str| kinds.map(|kind| format!("-hls_segment_type {kind} -hls_flags {flag}"));
    let mut options: Vec<String> = flags.into_iter().flat_map(of_flag).collect();
    // The shorter time of two counts.
    options.extend(kinds.map(|kind| format!("-hls_segment_type {kind} -hls_time 0.1")));
    options.extend(["-hls_time 60".into(), "-hls_segment_size 40000".into()]);
    if cfg!(feature = "hls-aes") {
        options
            .extend(["", "-hls_flags single_file"].map(|flag| format!("-hls_key_info_file keyinfo {flag}")));
    }
    for (encode, format) in [("-c:a aac -b:a 128k", "adts"), ("-c:a libmp3lame -b:a 128k", "mp3")] {
        for options in &options {
            let folder = Folder::new();
            fs::write(folder.path().join("key"), [7; 16]).unwrap();
            fs::write(folder.path().join("keyinfo"), "key\nkey\n").unwrap();
            folder.ffmpeg(&format!("{encode} -f hls -hls_time 3 -hls_playlist_type vod {options} list.m3u8"));
            folder.ffmpeg(&format!("{encode} -write_xing 0 -id3v2_version 0 -f {format} whole.raw"));
            let (_, bytes) = play(&folder, "/list.m3u8");
            let whole = folder.read("whole.raw");
            assert!(bytes == whole, "{encode}, {options}: {} of {}", bytes.len(), whole.len());
        }
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn surround_and_flac_of_any_rate_are_those_of_the_source() {
    let hls = "-f hls -hls_time 3 -hls_playlist_type vod";
    for (codec, format) in [("aac", "adts"), ("ac3", "ac3"), ("eac3", "eac3")] {
        for (channels, container) in [(1, "mpegts"), (6, "mpegts"), (6, "fmp4")] {
            let folder = Folder::new();
            let encode = format!("-c:a {codec} -ar 48000 -ac {channels}");
            folder.ffmpeg(&format!("{encode} {hls} -hls_segment_type {container} list.m3u8"));
            folder.ffmpeg(&format!("{encode} -f {format} whole.raw"));
            assert!(play(&folder, "/list.m3u8").1 == folder.read("whole.raw"), "{encode} {container}");
        }
    }
    for rate in [8000, 22_050, 44_100, 96_000] {
        for (format, channels) in [("s16", 1), ("s32", 2), ("s16", 6)] {
            let folder = Folder::new();
            let encode = format!("-strict -2 -c:a flac -ar {rate} -ac {channels} -sample_fmt {format}");
            folder.ffmpeg(&format!("{encode} {hls} -hls_segment_type fmp4 list.m3u8"));
            folder.ffmpeg(&format!("{encode} whole.flac"));
            let wanted = samples(folder.read("whole.flac"));
            assert_eq!(wanted.len(), 20 * rate * channels);
            assert!(samples(play(&folder, "/list.m3u8").1) == wanted, "{encode}: other samples");
        }
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn what_is_left_behind_skip_is_what_the_presentation_has_at_that_time() {
    let folder = Folder::new();
    // A decoder of AAC needs the frame before. One of Opus comes close after a while.
    for (encode, name, rate, settled, error) in [
        ("-c:a aac -b:a 128k -aac_pns 0", "played.aac", 44_100, 2048, 1e-6),
        ("-c:a libopus -ar 48000 -b:a 128k", "played.ogg", 48_000, 24_000, 0.02),
        ("-c:a alac", "played.mkv", 44_100, 0, 0.0),
    ] {
        folder.ffmpeg(&format!(
            "{encode} -f hls -hls_time 3 -hls_playlist_type vod -hls_segment_type fmp4 list.m3u8"
        ));
        // This muxer writes the encoder delay into an edit list. The other one does not.
        folder.ffmpeg(&format!(
            "{encode} -movflags +frag_keyframe+delay_moov+default_base_moof -frag_duration 3000000 whole.mp4"
        ));
        list_fragments(&folder, "whole.mp4", "ranges.m3u8");
        // ffmpeg obeys an edit list only if there are no fragments.
        folder.ffmpeg(&format!("{encode} unfragmented.mp4"));
        for (list, source) in [("list.m3u8", "list.m3u8"), ("ranges.m3u8", "unfragmented.mp4")] {
            let whole = left(&folder, source);
            let origin = folder.serve();
            let mut hls = open(&origin, &format!("/{list}"));
            for target in [0.0, 0.013, 7.31, 13.0] {
                let target = Duration::from_secs_f64(target);
                if !target.is_zero() {
                    hls.seek(target).unwrap();
                }
                let mut section = hls.next_section().unwrap().unwrap();
                let mut bytes = Vec::new();
                section.read_to_end(&mut bytes).unwrap();
                fs::write(folder.path().join(name), bytes).unwrap();
                let played = left(&folder, name);
                let at = |time: Duration| (time.as_secs_f64() * f64::from(rate)).round() as usize;
                let skip = section.info().skip;
                let (played, wanted) = (&played[at(skip)..], &whole[at(target)..]);
                let settled = if target.is_zero() { 0 } else { settled };
                let len = played.len().min(wanted.len());
                let of = format!("{encode}, {list} at {target:?}, skip {skip:?}");
                assert!(len + 2048 > wanted.len(), "{of}: {len} samples of {}", wanted.len());
                let off =
                    (settled..len).map(|index| (played[index] - wanted[index]).abs()).fold(0.0, f32::max);
                assert!(off <= error, "{of}: {off}");
            }
        }
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn what_is_left_between_skip_and_padding_is_as_long_as_the_source() {
    let folder = Folder::new();
    let hls = "-f hls -hls_time 3 -hls_playlist_type vod -hls_segment_type fmp4 list.m3u8";
    // This muxer writes the encoder delay into an edit list. The one of HLS does not.
    let edited = "-movflags +frag_keyframe+delay_moov+default_base_moof -frag_duration 3000000 whole.mp4";
    let packed = "-f segment -segment_time 3 -segment_format mp3 -segment_list list.m3u8 part%d.mp3";
    // The delay that nothing tells of, in samples.
    for (encode, muxer, name, rate, untold) in [
        ("-c:a aac -b:a 128k", hls, "played.aac", 44_100, 1024),
        ("-c:a aac -b:a 128k", edited, "played.aac", 44_100, 0),
        ("-c:a aac -ar 22050", hls, "played.aac", 22_050, 1024),
        ("-c:a libopus -ar 48000 -b:a 128k", hls, "played.ogg", 48_000, 0),
        ("-c:a libopus -ar 48000 -b:a 128k", edited, "played.ogg", 48_000, 0),
        ("-c:a libmp3lame -b:a 128k", hls, "played.mp3", 44_100, 1105),
        ("-c:a libmp3lame -b:a 128k", packed, "played.mp3", 44_100, 0),
        ("-c:a flac -strict -2", hls, "played.flac", 44_100, 0),
        ("-c:a alac", hls, "played.mkv", 44_100, 0),
    ] {
        folder.ffmpeg(&format!("{encode} {muxer}"));
        if muxer == edited {
            list_fragments(&folder, "whole.mp4", "list.m3u8");
        }
        let origin = folder.serve();
        let mut hls = open(&origin, "/list.m3u8");
        let mut section = hls.next_section().unwrap().unwrap();
        assert!(section.padding().is_none_or(|padding| padding < Duration::from_millis(50)));
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).unwrap();
        let (skip, padding) = (section.info().skip, section.padding().unwrap());
        fs::write(folder.path().join(name), bytes).unwrap();
        let count = |time: Duration| (time.as_secs_f64() * f64::from(rate)).round() as usize;
        let decoded = left(&folder, name).len();
        let is_exact = matches!(name, "played.flac" | "played.mkv");
        assert_eq!(padding.is_zero(), is_exact, "{encode}, {muxer}: {padding:?}");
        let rest = decoded - count(skip) - count(padding);
        assert_eq!(rest, 20 * rate as usize + untold, "{encode}, {muxer}: {decoded}, {skip:?}, {padding:?}");
    }
}

/// A program that runs until this is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
        Self(command.spawn().expect("the program is installed"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asks again and again, with a short wait in between.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// nginx, which serves the folder on the port. With gzip for playlists, if nginx has it.
fn nginx(folder: &Path, port: u16) -> Running {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {what};"))
        .join(" ");
    let configuration = format!(
        "daemon off; master_process off; user root; pid nginx.pid; error_log error.log;
         events {{}}
         http {{ {temporary} access_log off;
             types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; }}
             gzip on; gzip_min_length 1; gzip_types application/vnd.apple.mpegurl;
             server {{ listen 127.0.0.1:{port}; root {}; }} }}",
        folder.display()
    );
    fs::write(folder.join("nginx.conf"), configuration).unwrap();
    let server = Running::start(
        Command::new("nginx")
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stderr(Stdio::null()),
    );
    wait_until("nginx takes connections", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    server
}

#[test]
#[ignore = "needs ffmpeg and nginx"]
fn a_live_stream_of_ffmpeg_behind_nginx_loses_no_byte() {
    let folder = Folder::new();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let _server = nginx(folder.path(), port);
    let outputs = "-t 15 -c:a aac -b:a 96k -f hls -hls_time 1 -hls_list_size 5 \
                   -hls_flags delete_segments+program_date_time live.m3u8 -t 15 -c:a aac -b:a 96k -bitexact -f adts whole.aac";
    let mut encoder = Running::start(
        Command::new("ffmpeg")
            .args([
                "-v",
                "error",
                "-re",
                "-f",
                "lavfi",
                "-i",
                "sine=frequency=440:sample_rate=44100",
                "-bitexact",
            ])
            .args(outputs.split_whitespace())
            .current_dir(folder.path()),
    );
    let list = || fs::read_to_string(folder.path().join("live.m3u8")).unwrap_or_default();
    wait_until("the playlist has four segments", || list().matches("#EXTINF").count() >= 4);

    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let url = format!("http://127.0.0.1:{port}/live.m3u8");
    let mut hls = downloader.open_hls(&url, HlsConfig::default()).unwrap();
    let mut section = hls.next_section().unwrap().unwrap();
    assert!(section.info().date_time.is_some());
    let mut played = Vec::new();
    section.read_to_end(&mut played).unwrap();
    let next = hls.next_section().unwrap();
    assert!(next.is_none(), "one section: {next:?}");
    assert!(encoder.0.wait().unwrap().success());
    let whole = folder.read("whole.aac");
    assert!(
        played.len() > whole.len() / 2 && whole.ends_with(&played),
        "{} of {}",
        played.len(),
        whole.len()
    );
}
