//! Heads of real files where they are short, else made here, and heads that lie.

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// The first bytes of a Matroska file of FFmpeg 5.1 that has 5,843,994 bytes, and its Cues in the last 976.
const MATROSKA: &[u8] = b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\
    \x42\x82\x88matroska\x42\x87\x81\x04\x42\x85\x81\x02\x18\x53\x80\x67\x01\0\0\0\0\x59\x2b\xe6\
    \x11\x4d\x9b\x74\xc1\xbf\x84\x03\xf5\x87\x19\x4d\xbb\x8b\x53\xab\x84\x15\x49\xa9\x66\x53\xac\x81\xa1\
    \x4d\xbb\x8b\x53\xab\x84\x16\x54\xae\x6b\x53\xac\x81\xf1\x4d\xbb\x8c\x53\xab\x84\x12\x54\xc3\x67\x53\xac\x82\
    \x01\x42\x4d\xbb\x8d\x53\xab\x84\x1c\x53\xbb\x6b\x53\xac\x83\x59\x28\x16";

fn mp4_box(name: &[u8; 4], size: u32) -> Vec<u8> {
    [&size.to_be_bytes()[..], name].concat()
}

/// A box whose body is here.
fn full_box(name: &[u8; 4], size: u32) -> Vec<u8> {
    let mut bytes = mp4_box(name, size);
    bytes.resize(size as usize, 0);
    bytes
}

fn id3(size: u32) -> Vec<u8> {
    let size = [21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8);
    [&b"ID3\x03\0\0"[..], &size].concat()
}

#[test]
fn the_size_of_the_audio_says_where_the_index_is() {
    let len = 5_811_360;
    let head = [full_box(b"ftyp", 28), full_box(b"free", 8), mp4_box(b"mdat", 5_703_633)].concat();
    assert_eq!(upcoming(&head, len), [5_703_669 - SKIP..len]);
    // In 64 bits.
    let size = 5_703_633_u64.to_be_bytes();
    let head = [&full_box(b"ftyp", 28)[..], &mp4_box(b"mdat", 1), &size].concat();
    assert_eq!(upcoming(&head, len), [5_703_661 - SKIP..len]);
    // More follows than an index is plausible to have, so its header is looked at.
    assert_eq!(upcoming(&head, len + MAX_BYTES), [5_703_661 - SKIP..5_703_661 + GLANCE]);
    // Something else than audio is large: only a glance at what follows.
    let head = [full_box(b"ftyp", 28), mp4_box(b"free", 100_000)].concat();
    assert_eq!(upcoming(&head, len), [100_028 - SKIP..100_028 + GLANCE]);
}

#[test]
fn an_index_at_the_front_is_fetched_whole() {
    let head = [full_box(b"ftyp", 28), mp4_box(b"moov", 2_000_000)].concat();
    assert_eq!(upcoming(&head, 100 * MIB), [28..2_000_028 + AUDIO]);
    let fragmented = [full_box(b"ftyp", 28), full_box(b"sidx", 52), mp4_box(b"moof", 1000)].concat();
    assert_eq!(upcoming(&fragmented, 100 * MIB), []);
}

#[test]
fn a_box_to_the_end_has_nothing_behind_it() {
    let head = [full_box(b"ftyp", 28), mp4_box(b"mdat", 0)].concat();
    assert_eq!(upcoming(&head, 100 * MIB), []);
}

#[test]
fn a_picture_before_the_audio_is_fetched_to_its_end() {
    assert_eq!(upcoming(&id3(302_379), 6 * MIB), [0..302_389 + AUDIO]);
    let flac = [&b"fLaC\0\0\0\x22"[..], &[0; 34], b"\x86\x04\x9d\0"].concat();
    assert_eq!(upcoming(&flac, 30 * MIB), [0..46 + 0x04_9d00 + AUDIO]);
    let behind_tag = [&id3(20)[..], &[0; 20], &flac].concat();
    assert_eq!(upcoming(&behind_tag, 30 * MIB)[1], 0..30 + 46 + 0x04_9d00 + AUDIO);
    let riff = [&b"RIFF\0\0\0\0WAVELIST"[..], &300_001_u32.to_le_bytes()].concat();
    assert_eq!(upcoming(&riff, 30 * MIB), [0..20 + 300_002 + AUDIO]);
}

#[test]
fn ogg_tells_its_length_in_its_last_page_and_its_picture_in_the_second() {
    let page = |segments: u8, body: &[u8]| {
        let mut page = b"OggS".to_vec();
        page.resize(26, 0);
        page.push(segments);
        page.extend(std::iter::repeat_n(255, usize::from(segments)));
        page.extend(body);
        page
    };
    let first = page(1, &[&b"\x01vorbis"[..], &[0; 248]].concat());
    let comments =
        [&b"\x03vorbis\x04\0\0\0abcd\x01\0\0\0"[..], &403_000_u32.to_le_bytes(), &[b'A'; 3000]].concat();
    let head = [first, page(255, &comments)].concat();
    let len = 6 * MIB;
    let ranges = upcoming(&head, len);
    assert_eq!(ranges[0], len - OGG_PAGE..len);
    // Three bytes of a thousand are what pages cost.
    let end = ranges[1].end - AUDIO;
    assert!((404_500..406_000).contains(&end), "{end}");
    // Shorter than a page: the whole.
    assert_eq!(upcoming(&head[..40], 1000)[0], 0..1000);
}

#[test]
fn aiff_is_read_at_its_end_too() {
    let head = [&b"FORM\0\0\0\0AIFFCOMM"[..], &18_u32.to_be_bytes(), &[0; 18], b"SSND\x02\0\0\0"].concat();
    assert_eq!(upcoming(&head, 40 * MIB), [40 * MIB - SKIP..40 * MIB, 0..46 + AUDIO]);
}

#[test]
fn adts_is_probed_at_each_quarter() {
    let starts: Vec<u64> = upcoming(b"\xff\xf1\x50\x80", 5_841_520).iter().map(|range| range.start).collect();
    assert_eq!(starts, [1_460_380, 2_920_760, 4_381_140]);
}

#[test]
fn matroska_says_where_its_cues_are() {
    assert_eq!(upcoming(MATROSKA, 5_843_994)[0], 5_843_994 - 976..5_843_994);
    // Far from the end, nothing says how long they are.
    let ranges = upcoming(MATROSKA, 50 * MIB);
    assert_eq!(ranges[0], 5_843_018..5_843_018 + GLANCE);
    let attachments = [MATROSKA, b"\x19\x41\xa4\x69\x10\x04\xa0\0"].concat();
    assert_eq!(upcoming(&attachments, 50 * MIB)[1].end, attachments.len() as u64 + 0x4_a000 + AUDIO);
}

#[test]
fn what_is_no_media_is_not_looked_into() {
    for bytes in [&b""[..], b"\xff", b"\xff\xfb\x90\x64", b"ID", b"<!doctype html>", &[0; 64]] {
        assert_eq!(upcoming(bytes, 100 * MIB), [], "{bytes:?}");
    }
}

/// Starts of all containers, which the hostile bytes follow.
fn starts() -> impl Strategy<Value = Vec<u8>> {
    let starts: Vec<Vec<u8>> = vec![
        id3(100),
        b"fLaC".to_vec(),
        [&b"OggS"[..], &[0; 22], b"\x01\xff\x03vorbis"].concat(),
        b"RIFF\0\0\0\0WAVE".to_vec(),
        b"FORM\0\0\0\0AIFF".to_vec(),
        full_box(b"ftyp", 28),
        [full_box(b"ftyp", 28), mp4_box(b"mdat", 1), vec![0xff; 8]].concat(),
        MATROSKA.to_vec(),
        MATROSKA[..41].to_vec(),
        b"\xff\xf1".to_vec(),
    ];
    proptest::sample::select(starts)
}

proptest! {
    #[test]
    fn whatever_a_file_claims_the_answer_is_bounded(
        start in starts(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        // Sizes are made of these, mostly.
        rest in proptest::collection::vec(prop_oneof![Just(0_u8), Just(0xff), Just(0x80), any::<u8>()], 0..300),
        len in prop_oneof![0..1000_u64, 0..100 * MIB, u64::MAX - 1000..=u64::MAX],
    ) {
        let mut bytes = [start, rest].concat();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let ranges = upcoming(&bytes, len);
        prop_assert!(ranges.len() <= MAX_RANGES);
        prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len));
        prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= MAX_BYTES);
    }
}
