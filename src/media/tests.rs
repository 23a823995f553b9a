use proptest::prelude::*;

use super::AudioCodec::*;
use super::{ContainerFormat as In, *};

fn kinds(info: &MediaInfo) -> (Option<ContainerFormat>, Option<AudioCodec>) {
    (info.container.map(|(container, _)| container), info.codec.map(|(codec, _)| codec))
}

fn chunk(id: &[u8; 4], size: [u8; 4], body: &[u8]) -> Vec<u8> {
    [id, &size[..], body].concat()
}

fn wav(format: &[u8]) -> Vec<u8> {
    let junk = chunk(b"JUNK", 3u32.to_le_bytes(), &[0; 4]);
    let fmt = chunk(b"fmt ", (format.len() as u32).to_le_bytes(), format);
    [b"RIFF\xff\xff\xff\xffWAVE", &junk[..], &fmt].concat()
}

fn wav_with_tag(tag: u16) -> Vec<u8> {
    wav(&[&tag.to_le_bytes()[..], &[0; 14]].concat())
}

fn aifc(codec: &[u8; 4]) -> Vec<u8> {
    let version = chunk(b"FVER", 4u32.to_be_bytes(), &[0; 4]);
    let common = chunk(b"COMM", 22u32.to_be_bytes(), &[&[0; 18], &codec[..]].concat());
    [b"FORM\0\0\xff\xffAIFC", &version[..], &common].concat()
}

fn caf(codec: &[u8; 4]) -> Vec<u8> {
    [&b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20"[..], &[0; 8], &codec[..]].concat()
}

fn ogg(packet: &[u8]) -> Vec<u8> {
    [b"OggS\0\x02", &[0; 20][..], &[2, packet.len() as u8, 0], packet].concat()
}

fn matroska(doc_type: &[u8], codec: &[u8]) -> Vec<u8> {
    let doc_type = [&[0x42, 0x82, 0x80 | doc_type.len() as u8], doc_type].concat();
    let codec = [&[0x86, 0x80 | codec.len() as u8], codec].concat();
    [&[0x1a, 0x45, 0xdf, 0xa3, 0x9f][..], &doc_type, &[0x18, 0x53, 0x80, 0x67, 0xff], &codec].concat()
}

fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes(), &name[..], body].concat()
}

fn esds(object_type: u8, config: &[u8]) -> Vec<u8> {
    let tagged = |tag: u8, body: &[u8]| [&[tag, 0x80, 0x80, 0x80, body.len() as u8], body].concat();
    let config = [&[object_type][..], &[0; 12], &tagged(5, config)].concat();
    let stream = [&[0, 1, 0][..], &tagged(4, &config)].concat();
    boxed(b"esds", &[&[0; 4][..], &tagged(3, &stream)].concat())
}

/// An MP4 with one track whose sample entry is `name`, with `inside` it.
fn mp4(name: &[u8; 4], inside: &[u8], behind_tracks: &[u8]) -> Vec<u8> {
    let entry = boxed(name, &[&[0; 28], inside].concat());
    let samples = boxed(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1], &entry[..]].concat());
    let media = boxed(b"mdia", &boxed(b"minf", &boxed(b"stbl", &samples)));
    let tracks = [boxed(b"trak", &[]), boxed(b"trak", &media), behind_tracks.to_vec()].concat();
    [boxed(b"ftyp", b"M4A \0\0\x02\0M4A isom"), boxed(b"free", &[7; 9]), boxed(b"moov", &tracks)].concat()
}

fn repeated(frame: &[u8], len: usize, times: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(len, 0x55);
    frame.repeat(times)
}

/// 128 kbit/s at 44.1 kHz.
fn mp3(frames: usize) -> Vec<u8> {
    repeated(&[0xff, 0xfb, 0x90, 0x44], 417, frames)
}

fn adts(frames: usize) -> Vec<u8> {
    repeated(&[0xff, 0xf1, 0x50, 0x80, 0x19, 0x1f, 0xfc], 200, frames)
}

fn transport_stream() -> Vec<u8> {
    repeated(&[0x47, 0x40, 0, 0x10], 188, 4)
}

/// A transport stream whose tables name one stream of this type, behind one of video.
fn transport_stream_of(kind: u8) -> Vec<u8> {
    let packet = |identifier: u8, section: &[u8]| {
        let len = section.len() as u8 + 4;
        let head = [0x47, 0x40, identifier, 0x30, 1, 0, 0, 0, 0xb0, len];
        let mut packet = [&head[..], section].concat();
        packet.resize(188, 0xff);
        packet
    };
    let programs = packet(0, &[0, 1, 0xc1, 0, 0, 0, 0, 0xe0, 0x10, 0, 1, 0xe0, 0x20]);
    let map = packet(
        0x20,
        &[0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 2, 9, 9, 0x1b, 0xe1, 0, 0xf0, 1, 9, kind, 0xe1, 1, 0xf0, 0],
    );
    [programs, map, transport_stream()].concat()
}

fn tagged(audio: &[u8]) -> Vec<u8> {
    [&b"ID3\x04\0\0\0\0\x01\x48"[..], &[0; 200], audio].concat()
}

fn samples() -> Vec<(Vec<u8>, In, Option<AudioCodec>)> {
    let extensible = [&[0xfe, 0xff][..], &[0; 22], &[1, 0], &[0; 14]].concat();
    let wave = boxed(b"wave", &[boxed(b"frma", b"mp4a"), esds(0x40, &[0x12, 0x10])].concat());
    let mut quicktime = mp4(b"mp4a", &[&[0; 16], &wave[..]].concat(), &[]);
    let version = quicktime.windows(4).position(|name| name == b"mp4a").unwrap() + 4 + 9;
    quicktime[version] = 1;
    vec![
        (mp3(3), In::Mp3, Some(Mp3)),
        (tagged(&mp3(3)), In::Mp3, Some(Mp3)),
        (repeated(&[0xff, 0xf3, 0x40, 0xc4], 104, 3), In::Mp3, Some(Mp3)),
        (repeated(&[0xff, 0xfd, 0x80, 0x04], 417, 3), In::Mp3, Some(Mp2)),
        (adts(3), In::Adts, Some(Aac)),
        (tagged(&adts(3)), In::Adts, Some(Aac)),
        (b"fLaC\0\0\0\x22".to_vec(), In::Flac, Some(Flac)),
        (tagged(b"fLaC\0\0\0\x22"), In::Flac, Some(Flac)),
        (ogg(b"OpusHead\x01"), In::Ogg, Some(Opus)),
        (ogg(b"\x01vorbis\0\0"), In::Ogg, Some(Vorbis)),
        (ogg(b"\x7fFLAC\x01\0"), In::Ogg, Some(Flac)),
        (ogg(b"Speex   1.2"), In::Ogg, None),
        (wav_with_tag(1), In::Wav, Some(Pcm)),
        (wav_with_tag(0x11), In::Wav, Some(Adpcm)),
        (wav_with_tag(2), In::Wav, Some(Adpcm)),
        (wav_with_tag(0x55), In::Wav, Some(Mp3)),
        (wav_with_tag(0x160), In::Wav, None),
        (wav(&extensible), In::Wav, Some(Pcm)),
        (b"FORM\0\0\0\0AIFF".to_vec(), In::Aiff, Some(Pcm)),
        (aifc(b"sowt"), In::Aiff, Some(Pcm)),
        (aifc(b"ima4"), In::Aiff, Some(Adpcm)),
        (caf(b"lpcm"), In::Caf, Some(Pcm)),
        (caf(b"alac"), In::Caf, Some(Alac)),
        (caf(b"aach"), In::Caf, Some(HeAac)),
        (matroska(b"webm", b"A_OPUS"), In::WebM, Some(Opus)),
        (matroska(b"matroska", b"A_FLAC"), In::Matroska, Some(Flac)),
        (matroska(b"matroska", b"A_AAC"), In::Matroska, Some(Aac)),
        (matroska(b"matroska", b"A_PCM/INT/LIT"), In::Matroska, Some(Pcm)),
        (transport_stream(), In::MpegTs, None),
        (transport_stream_of(0x0f), In::MpegTs, Some(Aac)),
        (transport_stream_of(0x04), In::MpegTs, Some(Mp3)),
        (transport_stream_of(0x81), In::MpegTs, None),
        (mp4(b"mp4a", &esds(0x40, &[0x12, 0x10]), &[]), In::Mp4, Some(Aac)),
        (mp4(b"mp4a", &esds(0x40, &[0x2b, 0x92, 0x08, 0]), &[]), In::Mp4, Some(HeAac)),
        (mp4(b"mp4a", &esds(0x40, &[0x13, 0x90, 0x56, 0xe5, 0xa0]), &[]), In::Mp4, Some(HeAac)),
        (mp4(b"mp4a", &esds(0x6b, &[]), &[]), In::Mp4, Some(Mp3)),
        (quicktime, In::Mp4, Some(Aac)),
        (mp4(b"alac", &[], &[]), In::Mp4, Some(Alac)),
        (mp4(b"fLaC", &[], &[]), In::Mp4, Some(Flac)),
        (mp4(b"Opus", &[], &[]), In::Mp4, Some(Opus)),
        (mp4(b"sowt", &[], &[]), In::Mp4, Some(Pcm)),
        (mp4(b"ms\0\x11", &[], &[]), In::Mp4, Some(Adpcm)),
        (mp4(b"alac", &[], &boxed(b"mvex", &[])), In::FragmentedMp4, Some(Alac)),
        (boxed(b"styp", b"msdh\0\0\0\0"), In::FragmentedMp4, None),
        (boxed(b"ftyp", b"iso6\0\0\0\0cmfc"), In::FragmentedMp4, None),
        (boxed(b"ftyp", b"isom\0\0\x02\0isomiso2"), In::Mp4, None),
    ]
}

#[test]
fn the_first_bytes_tell_every_format() {
    for (bytes, container, codec) in samples() {
        let info = MediaInfo::detect(None, "", &bytes);
        assert_eq!(kinds(&info), (Some(container), codec), "{:02x?}", &bytes[..bytes.len().min(48)]);
        assert_eq!(info.container, Some((container, HintSource::MagicBytes)));
    }
}

#[test]
fn the_first_bytes_overrule_a_wrong_content_type_and_extension() {
    for (bytes, container, codec) in samples() {
        for content_type in ["text/html", "application/octet-stream", "image/png"] {
            let info = MediaInfo::detect(Some(content_type), "http://host/file.txt", &bytes);
            assert_eq!(kinds(&info), (Some(container), codec));
        }
    }
    let info = MediaInfo::detect(Some("audio/mpeg"), "http://host/a.mp3", &ogg(b"OpusHead"));
    assert_eq!(kinds(&info), (Some(In::Ogg), Some(Opus)));
    let info = MediaInfo::detect(Some("audio/ogg; codecs=opus"), "http://host/a.opus", &ogg(b"\x01vorbis"));
    assert_eq!(info.codec, Some((Vorbis, HintSource::MagicBytes)));
}

#[test]
fn a_weaker_hint_adds_what_a_stronger_one_leaves_open() {
    let info = MediaInfo::detect(Some("audio/aacp"), "", &adts(3));
    assert_eq!(info.container, Some((In::Adts, HintSource::MagicBytes)));
    assert_eq!(info.codec, Some((HeAac, HintSource::ContentType)));

    let fragment = boxed(b"moof", &[]);
    let info = MediaInfo::detect(Some("video/mp4; foo=1; Codecs=\"avc1.4d401e, mp4a.40.29\""), "", &fragment);
    assert_eq!(kinds(&info), (Some(In::FragmentedMp4), Some(HeAac)));

    let info = MediaInfo::detect(Some("audio/ogg"), "http://host/a.opus?x=.mp3", &[]);
    assert_eq!(info.codec, Some((Opus, HintSource::Extension)));
    assert_eq!(info.container, Some((In::Ogg, HintSource::ContentType)));
}

#[test]
fn a_weaker_hint_that_contradicts_is_left_out() {
    let info = MediaInfo::detect(Some("audio/wav"), "http://host/a.mp3", &[]);
    assert_eq!(kinds(&info), (Some(In::Wav), None));
    let info = MediaInfo::detect(Some("audio/alac"), "http://host/a.mp3", &[]);
    assert_eq!(kinds(&info), (None, Some(Alac)));
}

#[test]
fn content_types_are_known_whatever_their_case_and_parameters() {
    let cases = [
        ("audio/mpeg", Some(In::Mp3), Some(Mp3)),
        (" Audio/MPEG ; charset=utf-8", Some(In::Mp3), Some(Mp3)),
        ("audio/aac", Some(In::Adts), Some(Aac)),
        ("audio/x-m4a", Some(In::Mp4), None),
        ("audio/mp4; codecs=\"mp4a.40.5\"", Some(In::Mp4), Some(HeAac)),
        ("audio/mp4; codecs=alac", Some(In::Mp4), Some(Alac)),
        ("audio/webm;codecs=\"opus\"", Some(In::WebM), Some(Opus)),
        ("audio/flac", Some(In::Flac), Some(Flac)),
        ("audio/wav; codecs=1", Some(In::Wav), Some(Pcm)),
        ("audio/l16;rate=44100", None, Some(Pcm)),
        ("application/octet-stream", None, None),
        ("", None, None),
        (";;codecs", None, None),
    ];
    for (content_type, container, codec) in cases {
        let info = MediaInfo::detect(Some(content_type), "", &[]);
        assert_eq!(kinds(&info), (container, codec), "{content_type}");
        assert_eq!(info.container, container.map(|container| (container, HintSource::ContentType)));
    }
}

#[test]
fn a_stream_joined_in_the_middle_of_a_frame_is_recognised() {
    for (stream, container) in [(mp3(8), In::Mp3), (adts(8), In::Adts)] {
        let info = MediaInfo::detect(None, "", &stream[77..]);
        assert_eq!(kinds(&info).0, Some(container));
        assert!(!looks_like_no_media(Some("text/html"), &stream[77..]));
    }
}

#[test]
fn one_frame_in_the_middle_of_something_is_no_proof() {
    let one = [&[1; 50][..], &mp3(1), &[1; 5000]].concat();
    assert_eq!(sniff::sniff(&one), None);
    let at_start = [&mp3(1)[..], &[1; 5000]].concat();
    assert_eq!(sniff::sniff(&at_start), None);
}

#[test]
fn a_tag_longer_than_the_first_bytes_is_audio_of_the_kind_that_the_server_says() {
    let tag = b"ID3\x03\0\0\0\x7f\x7f\x7fTIT2";
    assert_eq!(kinds(&MediaInfo::detect(None, "", tag)).1, Some(Mp3));
    assert_eq!(kinds(&MediaInfo::detect(Some("audio/flac"), "", tag)).1, Some(Flac));
    assert_eq!(kinds(&MediaInfo::detect(Some("text/html"), "http://host/a.aac", tag)).1, Some(Aac));
    assert!(!looks_like_no_media(Some("text/html"), tag));
}

#[test]
fn the_extension_tells_what_else_is_read() {
    let of = |name: &str| foreseen(&format!("http://host/{name}?a=b.mp4"));
    let (end, places) = (|name: &&str| of(name).end, |name: &&str| of(name).places);
    assert!(["a.m4a", "a.mka", "a.webm"].iter().all(|name| (end(name), places(name)) == (1, 1)));
    assert!(["a.ogg", "a.OPUS"].iter().all(|name| (end(name), places(name)) == (65_307, 0)));
    assert!(["a.mp3", "a.flac", "a.wav", "a", ""].iter().all(|name| (end(name), places(name)) == (0, 0)));
    assert_eq!((of("a.aiff").end, of("a.aac").places), (65_536, 2));
}

#[test]
fn a_text_is_a_page_by_its_type() {
    for content_type in [
        "text/html",
        "Text/HTML; charset=utf-8",
        "text/xml",
        "application/json",
        "application/problem+json",
        "application/xhtml+xml",
        "application/dash+xml",
    ] {
        assert!(looks_like_no_media(Some(content_type), b""), "{content_type}");
        assert!(looks_like_no_media(Some(content_type), b"no such file"), "{content_type}");
        assert!(!looks_like_no_media(Some(content_type), b"fLaC\0\0\0\x22"), "{content_type}");
    }
}

#[test]
fn a_page_is_a_page_by_its_first_bytes_whatever_its_type() {
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("<html>".bytes().flat_map(|byte| [byte, 0])).collect();
    for page in [
        &b"<!DOCTYPE html><html>"[..],
        b"<!doctype HTML PUBLIC",
        b"<HTML>",
        b"\r\n\t  <html lang=en>",
        b"\xef\xbb\xbf\n<Html>",
        b"<?xml version=\"1.0\"?><Error><Code>AccessDenied",
        &utf16,
    ] {
        for content_type in
            [None, Some("application/octet-stream"), Some("audio/mpeg"), Some("binary/octet-stream")]
        {
            assert!(looks_like_no_media(content_type, page), "{content_type:?} {}", page.escape_ascii());
        }
    }
}

#[test]
fn what_is_not_known_for_a_page_is_accepted() {
    for content_type in
        [None, Some("application/octet-stream"), Some("audio/mpeg"), Some("video/mp4"), Some("")]
    {
        for bytes in [&b""[..], b"\0", b"<", b"<htm", b"\xff", b"some unknown format", &[0; 600]] {
            assert!(!looks_like_no_media(content_type, bytes), "{content_type:?} {}", bytes.escape_ascii());
        }
    }
}

#[test]
fn a_playlist_is_no_audio() {
    for content_type in
        ["audio/x-mpegurl", "Audio/MPEGurl; charset=utf-8", "application/vnd.apple.mpegurl", "audio/x-scpls"]
    {
        assert!(looks_like_no_media(Some(content_type), b"http://host/a.mp3\n"), "{content_type}");
        assert!(looks_like_no_media(Some(content_type), b""), "{content_type}");
        assert!(!looks_like_no_media(Some(content_type), &mp3(3)), "{content_type}");
    }
    for bytes in
        [&b"#EXTM3U\n#EXT-X-VERSION:3"[..], b"\xef\xbb\xbf#EXTM3U", b"[playlist]\nFile1=", b"\n[Playlist]"]
    {
        for content_type in [None, Some("audio/mpeg"), Some("text/plain")] {
            assert!(looks_like_no_media(content_type, bytes));
        }
    }
}

#[test]
fn a_plain_text_is_a_page_if_it_reads_as_one() {
    assert!(looks_like_no_media(Some("text/plain"), b"not found"));
    assert!(!looks_like_no_media(Some("text/plain"), b"fLaC\0\0"));
    assert!(!looks_like_no_media(Some("text/plain"), b"\x00\xFE raw"));
}

/// Guesses, and checks what holds whatever the bytes are.
fn look_at(bytes: &[u8]) {
    let info = MediaInfo::detect(Some("audio/mpeg"), "http://host/a.mp3", bytes);
    assert!(info.container.is_some());
}

#[test]
fn a_sample_cut_anywhere_is_no_reason_to_panic_or_to_call_it_a_page() {
    for (bytes, ..) in samples() {
        for len in 0..bytes.len() {
            look_at(&bytes[..len]);
            assert!(!looks_like_no_media(None, &bytes[..len]));
        }
    }
}

#[test]
fn a_pile_of_empty_tags_is_passed_without_a_deep_stack() {
    let mut bytes = b"ID3\x04\0\0\0\0\0\0".repeat(200_000);
    bytes.extend_from_slice(b"fLaC");
    assert_eq!(kinds(&MediaInfo::detect(None, "", &bytes)).1, Some(Flac));
}

#[test]
fn a_container_is_known_again_by_its_extension() {
    assert_eq!(MediaInfo::default().extension(), None);
    for (bytes, container, _) in samples() {
        let info = MediaInfo::detect(None, &format!("http://host/a.{}", container.extension()), &[]);
        assert!(info.container.is_some_and(|(found, _)| found.agrees_with(container)), "{container}");
        assert_eq!(MediaInfo::detect(None, "", &bytes).extension(), Some(container.extension()));
    }
}

proptest! {
    #[test]
    fn no_bytes_and_no_text_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600), content_type in ".{0,40}", url in ".{0,40}"
    ) {
        look_at(&bytes);
        MediaInfo::detect(Some(&content_type), &url, &bytes);
        looks_like_no_media(Some(&content_type), &bytes);
    }

    #[test]
    fn nor_do_samples_with_wrong_bytes(
        which in any::<prop::sample::Index>(),
        errors in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (mut bytes, ..) = which.get(&samples()).clone();
        for (at, byte) in errors {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        look_at(&bytes);
    }
}
