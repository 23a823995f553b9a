//! One test for each rule of the draft that the parser is responsible for, named after the section.

use std::time::{Duration, SystemTime};

use super::*;
use crate::types::ByteRange;

const URL: &str = "http://host/a/list.m3u8?token=7&empty=";

fn parse(text: &str) -> Result<Playlist, PlaylistError> {
    Playlist::parse(text.as_bytes(), URL)
}

/// A media playlist: a head, and then these lines.
fn media(lines: &str) -> Result<MediaPlaylist, PlaylistError> {
    match parse(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n{lines}\n"))? {
        Playlist::Media(playlist) => Ok(playlist),
        Playlist::Multivariant(_) => panic!("a media playlist"),
    }
}

fn multivariant(lines: &str) -> Result<MultivariantPlaylist, PlaylistError> {
    match parse(&format!("#EXTM3U\n{lines}\n"))? {
        Playlist::Multivariant(playlist) => Ok(playlist),
        Playlist::Media(_) => panic!("a multivariant playlist"),
    }
}

fn problem<T: std::fmt::Debug>(result: Result<T, PlaylistError>) -> (usize, String, PlaylistProblem) {
    let error = result.unwrap_err();
    (error.line, error.tag, error.problem)
}

fn wrong(line: usize, tag: &str, problem: PlaylistProblem) -> (usize, String, PlaylistProblem) {
    (line, tag.to_owned(), problem)
}

#[test]
fn s4_1_a_byte_order_mark_and_blank_lines_before_the_head_are_accepted() {
    for before in ["\u{feff}", "\n\r\n", "\u{feff}\n"] {
        let text = format!("{before}#EXTM3U\r\n#EXT-X-TARGETDURATION:6\r\n#EXTINF:6,\r\n0.ts\r\n");
        let Ok(Playlist::Media(playlist)) = parse(&text) else { panic!("{before:?}") };
        assert_eq!(playlist.segments[0].uri.expose(), "0.ts");
    }
}

#[test]
fn s4_1_what_does_not_begin_with_the_head_is_no_playlist() {
    for text in ["", "#EXTM3U8\n", "#EXTINF:1,\na\n", "x#EXTM3U\n"] {
        assert_eq!(problem(parse(text)), wrong(0, "", PlaylistProblem::NotAPlaylist), "{text}");
    }
    let page = problem(parse("\n<!DOCTYPE html><html>Log in"));
    assert_eq!(page, wrong(0, "", PlaylistProblem::Markup));
    assert_eq!(problem(parse("#EXTM3U\n#EXT-X-VERSION:7\n")), wrong(0, "", PlaylistProblem::UnknownKind));
    assert_eq!(problem(parse("#EXTM3U\na.mp3\n")), wrong(2, "", PlaylistProblem::UriWithoutTag));
}

#[test]
fn s4_1_only_lines_that_matter_have_to_be_utf8() {
    let text = b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n# \xff\n#X-\xff:1\n#EXTINF:6,\n0.ts\n";
    assert!(Playlist::parse(text, URL).is_ok());
    let text = b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n\xff.ts\n";
    assert_eq!(problem(Playlist::parse(text, URL)), wrong(4, "", PlaylistProblem::NotUtf8));
}

#[test]
fn s4_1_segments_and_variants_do_not_mix() {
    let mixed = media("#EXTINF:6,\n0.ts\n#EXT-X-STREAM-INF:BANDWIDTH=1\nb.m3u8");
    assert_eq!(problem(mixed), wrong(5, "EXT-X-STREAM-INF", PlaylistProblem::MixedKinds));
    let mixed = multivariant("#EXT-X-STREAM-INF:BANDWIDTH=1\nb.m3u8\n#EXTINF:6,\n0.ts");
    assert_eq!(problem(mixed), wrong(4, "EXTINF", PlaylistProblem::MixedKinds));
}

#[test]
fn s4_1_other_tags_of_the_wrong_kind_are_ignored() {
    let list = multivariant(
        "#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-ALLOW-CACHE:YES\n#EXT-X-DISCONTINUITY\n\
         #EXT-X-STREAM-INF:BANDWIDTH=1\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\nb.m3u8\n#EXT-X-ENDLIST",
    );
    assert_eq!(rates(&list.unwrap()), [1]);
    for first in ["", "#EXT-X-SESSION-DATA:DATA-ID=\"x\",VALUE=\"y\"\n"] {
        let text = format!(
            "#EXTM3U\n{first}#EXT-X-TARGETDURATION:6\n#EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"k\"\n#EXTINF:6,\n0.ts\n"
        );
        let Ok(Playlist::Media(list)) = parse(&text) else { panic!("{first}") };
        assert_eq!((list.segments.len(), list.segments[0].keys.len()), (1, 0));
    }
}

#[test]
fn s4_1_lines_may_end_with_a_carriage_return_alone() {
    let Ok(Playlist::Media(list)) =
        parse("#EXTM3U\r#EXT-X-TARGETDURATION:6\r\r#EXTINF:6,\r0.ts\r#EXTINF:5,\r1.ts")
    else {
        panic!("a media playlist")
    };
    let uris: Vec<_> = list.segments.iter().map(|segment| segment.uri.expose()).collect();
    assert_eq!((list.target_duration, &uris[..]), (Duration::from_secs(6), &["0.ts", "1.ts"][..]));
    assert_eq!(problem(parse("#EXTM3U\r#EXT-X-MEDIA-SEQUENCE:x\r")).0, 2);
    // A template or a shell has added the last one.
    for end in ["\n", "\r\n", "\n\n"] {
        let text = format!("#EXTM3U\r#EXT-X-TARGETDURATION:6\r#EXTINF:6,\r0.ts{end}");
        assert!(matches!(parse(&text), Ok(Playlist::Media(list)) if list.segments.len() == 1), "{end:?}");
    }
}

#[test]
fn s4_4_1_1_what_follows_the_head_on_its_line_is_ignored() {
    let Ok(Playlist::Media(list)) = parse("#EXTM3U x-tvg-url=\"http://h\"\n#EXTINF:6,\n0.ts\n") else {
        panic!("a media playlist")
    };
    assert_eq!(list.segments.len(), 1);
    assert_eq!(problem(parse("#EXTM3U x\n#EXT-X-MEDIA-SEQUENCE:x\n")).0, 2);
}

#[test]
fn s4_4_4_1_a_line_that_no_duration_precedes_is_no_segment() {
    let list = media("junk\n#EXTINF:6,\n0.ts\njunk\n#EXT-X-DISCONTINUITY\n#EXTINF:6,\n1.ts").unwrap();
    let uris: Vec<_> = list.segments.iter().map(|segment| segment.uri.expose()).collect();
    assert_eq!((&uris[..], list.segments[1].discontinuity_sequence), (&["0.ts", "1.ts"][..], 1));
    assert_eq!(problem(media("0.ts\n1.ts")), wrong(3, "", PlaylistProblem::UriWithoutTag));
}

#[test]
fn s4_4_4_1_a_duration_that_ends_the_playlist_has_no_segment() {
    let list = media("#EXTINF:6,\n0.ts\n#EXTINF:6,").unwrap();
    assert_eq!(list.segments.len(), 1);
    assert_eq!(problem(media("#EXTINF:6,")).2, PlaylistProblem::NoUri);
}

#[test]
fn s4_4_4_1_a_segment_of_unknown_duration_is_as_long_as_the_target_duration() {
    for duration in ["", ":", ":,title", ":x,", ":1e1,", ": ,", ":-1,", ":-0.5,"] {
        let list = media(&format!("#EXTINF{duration}\n0.ts")).expect(duration);
        assert_eq!(list.segments[0].duration, Duration::from_secs(6), "{duration}");
    }
    // What follows the first comma is the title, also where a locale has written one for the point.
    let list = media("#EXTINF: 5,76,\n0.ts").unwrap();
    assert_eq!(
        (list.segments[0].duration, list.segments[0].title.as_deref()),
        (Duration::from_secs(5), Some("76,"))
    );
    // Lists of tracks write -1 for a stream, which has no end, and no target duration.
    for head in ["", "#EXT-X-VERSION:3\n", "#EXT-X-MEDIA-SEQUENCE:0\n"] {
        let text = format!("#EXTM3U\n{head}#EXTINF:-1,Radio\nhttp://host/stream");
        assert_eq!(problem(parse(&text)).2, PlaylistProblem::InvalidValue("duration"), "{head}");
    }
}

#[test]
fn s4_4_4_1_a_duration_of_zero_is_unknown_where_all_are_zero() {
    let durations = |text: &str| -> Vec<Duration> {
        media(text).unwrap().segments.iter().map(|segment| segment.duration).collect()
    };
    assert_eq!(durations("#EXTINF:0,\n0.ts\n#EXTINF:0.000,\n1.ts"), [Duration::from_secs(6); 2]);
    // Rounded: the last one is often short.
    assert_eq!(
        durations("#EXTINF:5,\n0.ts\n#EXTINF:0,\n1.ts"),
        [Duration::from_secs(5), Duration::from_millis(1)]
    );
}

#[test]
fn s4_4_3_1_a_target_duration_of_zero_is_as_good_as_none() {
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:0\n#EXTINF:4,\n0.ts\n#EXTINF:3,\n1.ts\n";
    let Ok(Playlist::Media(list)) = parse(text) else { panic!("a media playlist") };
    assert_eq!(list.target_duration, Duration::from_secs(4));
}

#[test]
fn s4_2_numbers_have_64_bits_and_are_checked() {
    // The number after the last one is used as well.
    let max = media("#EXT-X-MEDIA-SEQUENCE:18446744073709551614").unwrap();
    assert_eq!(max.media_sequence, u64::MAX - 1);
    let cases = [
        (
            "#EXT-X-MEDIA-SEQUENCE:18446744073709551616",
            3,
            PlaylistProblem::InvalidValue("media sequence number"),
        ),
        ("#EXT-X-MEDIA-SEQUENCE:18446744073709551615\n#EXTINF:1,\na", 5, PlaylistProblem::Overflow),
        ("#EXT-X-MEDIA-SEQUENCE:18446744073709551614\n#EXTINF:1,\na", 5, PlaylistProblem::Overflow),
        ("#EXT-X-MEDIA-SEQUENCE:18446744073709551615", 3, PlaylistProblem::Overflow),
        (
            "#EXT-X-DISCONTINUITY-SEQUENCE:18446744073709551615\n#EXT-X-DISCONTINUITY",
            4,
            PlaylistProblem::Overflow,
        ),
        ("#EXTINF:1,\n#EXT-X-BYTERANGE:2@18446744073709551615\na", 5, PlaylistProblem::Overflow),
        ("#EXT-X-MAP:URI=\"i\",BYTERANGE=\"2@18446744073709551615\"", 3, PlaylistProblem::Overflow),
    ];
    for (lines, line, wanted) in cases {
        let (at, _, problem) = problem(media(lines));
        assert_eq!((at, problem), (line, wanted), "{lines}");
    }
}

#[test]
fn s4_3_variables_are_replaced_where_the_draft_says() {
    let list = media(
        "#EXT-X-DEFINE:NAME=\"a\",VALUE=\"x/y\"\n#EXT-X-DEFINE:NAME=\"b\",VALUE=\"{$a}/z\"\n\
         #EXT-X-DEFINE:QUERYPARAM=\"token\"\n#EXT-X-MAP:URI=\"{$a}.mp4\"\n#EXTINF:6,{$a}\n{$b}?t={$token}",
    )
    .unwrap();
    let segment = &list.segments[0];
    assert_eq!(segment.uri.expose(), "x/y/z?t=7");
    assert_eq!(segment.map.as_ref().unwrap().uri.expose(), "x/y.mp4");
    assert_eq!(segment.title.as_deref(), Some("{$a}"));
}

#[test]
fn s4_4_2_3_undefined_and_double_variables_are_errors() {
    let undefined = |name: &str| PlaylistProblem::UndefinedVariable(name.to_owned());
    let cases = [
        ("#EXTINF:6,\n{$no}", "", undefined("no")),
        ("#EXT-X-DEFINE:IMPORT=\"no\"", "EXT-X-DEFINE", undefined("no")),
        ("#EXT-X-DEFINE:QUERYPARAM=\"no\"", "EXT-X-DEFINE", undefined("no")),
        ("#EXT-X-DEFINE:QUERYPARAM=\"empty\"", "EXT-X-DEFINE", undefined("empty")),
        ("#EXT-X-DEFINE:NAME=\"a\"", "EXT-X-DEFINE", PlaylistProblem::MissingAttribute("VALUE")),
        (
            "#EXT-X-DEFINE:NAME=\"a\",VALUE=\"1\"\n#EXT-X-DEFINE:NAME=\"a\",VALUE=\"1\"",
            "EXT-X-DEFINE",
            PlaylistProblem::DuplicateVariable("a".into()),
        ),
    ];
    for (lines, tag, wanted) in cases {
        let (_, at, problem) = problem(media(lines));
        assert_eq!((at.as_str(), problem), (tag, wanted), "{lines}");
    }
}

#[test]
fn s4_4_2_3_a_media_playlist_imports_variables_of_its_multivariant_playlist() {
    let url = Url::parse(URL).unwrap();
    let variables = BTreeMap::from([("host".to_owned(), "cdn".to_owned())]);
    let text = b"#EXTM3U\n#EXT-X-DEFINE:IMPORT=\"host\"\n#EXTINF:6,\n//{$host}/0.ts\n";
    let context = Context { url: &url, variables: &variables, previous: None };
    let Ok(Playlist::Media(list)) = Playlist::parse_in(text, context) else { panic!("a media playlist") };
    assert_eq!(list.segments[0].uri.expose(), "//cdn/0.ts");
}

#[test]
fn s4_3_variables_do_not_expand_without_limit() {
    let mut lines = String::from("#EXT-X-DEFINE:NAME=\"v0\",VALUE=\"0123456789\"\n");
    for level in 1..20 {
        let before = format!("{{$v{}}}", level - 1);
        lines.push_str(&format!("#EXT-X-DEFINE:NAME=\"v{level}\",VALUE=\"{}\"\n", before.repeat(10)));
    }
    assert!(matches!(problem(media(&lines)).2, PlaylistProblem::ExpandsTooFar(_)));
}

#[test]
fn s4_4_2_2_start_counts_from_either_end() {
    let start = media("#EXT-X-START:TIME-OFFSET=-18.5,PRECISE=YES").unwrap().start.unwrap();
    assert_eq!(start.offset, Duration::from_millis(18_500));
    assert!(start.is_from_end && start.is_precise);
    let start = media("#EXT-X-START:TIME-OFFSET=3").unwrap().start.unwrap();
    assert!(!start.is_from_end && !start.is_precise);
}

#[test]
fn s4_4_3_1_longer_segments_and_fractional_targets_are_accepted() {
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:5.5\n#EXTINF:9.009,\n0.ts\n";
    let Ok(Playlist::Media(list)) = parse(text) else { panic!() };
    assert_eq!(list.target_duration, Duration::from_millis(5500));
    assert_eq!(list.segments[0].duration, Duration::from_millis(9009));
}

#[test]
fn s4_4_3_2_numbers_must_stand_before_the_first_segment() {
    for tag in ["EXT-X-MEDIA-SEQUENCE", "EXT-X-DISCONTINUITY-SEQUENCE"] {
        let late = media(&format!("#EXTINF:6,\n0.ts\n#{tag}:5"));
        assert_eq!(problem(late), wrong(5, tag, PlaylistProblem::AfterFirstSegment));
    }
}

#[test]
fn s4_4_3_8_server_control_is_read() {
    let list = media(
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=36,HOLD-BACK=18,PART-HOLD-BACK=3.0\n\
         #EXT-X-PART-INF:PART-TARGET=1.0",
    )
    .unwrap();
    let control = list.server_control;
    assert!(control.can_block_reload);
    assert_eq!(control.can_skip_until, Some(Duration::from_secs(36)));
    assert_eq!(control.part_hold_back, Some(Duration::from_secs(3)));
    assert_eq!(list.part_target, Some(Duration::from_secs(1)));
}

#[test]
fn s4_4_4_2_a_range_without_offset_continues_the_one_before() {
    let list = media(
        "#EXTINF:6,\n#EXT-X-BYTERANGE:10@5\na.ts\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:6,\n#EXT-X-BYTERANGE:7\na.ts\n\
         #EXTINF:6,\nb.ts",
    )
    .unwrap();
    let ranges: Vec<_> = list.segments.iter().map(|segment| segment.byte_range).collect();
    assert_eq!(ranges, [Some(ByteRange::new(5, 15)), Some(ByteRange::new(15, 22)), None]);
    for lines in [
        "#EXTINF:6,\n#EXT-X-BYTERANGE:7\na.ts",
        "#EXTINF:6,\n#EXT-X-BYTERANGE:7@0\na.ts\n#EXTINF:6,\n#EXT-X-BYTERANGE:7\nb.ts",
        "#EXTINF:6,\n#EXT-X-BYTERANGE:7@0\na.ts\n#EXTINF:6,\na.ts\n#EXTINF:6,\n#EXT-X-BYTERANGE:7\na.ts",
    ] {
        assert_eq!(problem(media(lines)).2, PlaylistProblem::NoOffset, "{lines}");
    }
}

#[test]
fn s4_4_4_3_discontinuities_are_counted() {
    let list = media(
        "#EXT-X-DISCONTINUITY-SEQUENCE:7\n#EXTINF:6,\n0\n#EXT-X-DISCONTINUITY\n#EXTINF:6,\n1\n#EXTINF:6,\n2",
    )
    .unwrap();
    let numbers: Vec<_> = list.segments.iter().map(|segment| segment.discontinuity_sequence).collect();
    assert_eq!(numbers, [7, 8, 8]);
}

#[test]
fn s4_4_4_4_a_key_holds_until_the_next_one_of_its_format() {
    let list = media(
        "#EXTINF:6,\n0\n#EXT-X-KEY:METHOD=AES-128,URI=\"k1\",IV=0x01\n\
         #EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"d\",KEYFORMAT=\"com.example\"\n#EXTINF:6,\n1\n\
         #EXT-X-KEY:METHOD=AES-128,URI=\"k2\"\n#EXTINF:6,\n2\n#EXT-X-KEY:METHOD=NONE\n#EXTINF:6,\n3",
    )
    .unwrap();
    let keys = |index: usize| -> Vec<&str> {
        list.segments[index].keys.iter().map(|key| key.uri.expose()).collect()
    };
    assert_eq!(keys(0), [""; 0]);
    assert_eq!(keys(1), ["k1", "d"]);
    assert_eq!(keys(2), ["d", "k2"]);
    assert_eq!(keys(3), [""; 0]);
    assert_eq!(list.segments[1].keys[0].iv, Some(1));
    assert_eq!(list.segments[2].keys[1].iv, None);
    assert!(!format!("{:?}", list.segments[1].keys[0]).contains("iv"));
}

#[test]
fn s4_4_4_4_a_key_needs_method_and_uri() {
    let missing = |name| PlaylistProblem::MissingAttribute(name);
    assert_eq!(problem(media("#EXT-X-KEY:URI=\"k\"")), wrong(3, "EXT-X-KEY", missing("METHOD")));
    assert_eq!(problem(media("#EXT-X-KEY:METHOD=AES-128")), wrong(3, "EXT-X-KEY", missing("URI")));
    assert!(media("#EXT-X-KEY:METHOD=NONE").is_ok());
}

#[test]
fn s4_4_4_5_a_map_holds_until_the_next_one_and_keeps_its_key() {
    let list = media(
        "#EXT-X-KEY:METHOD=AES-128,URI=\"k\",IV=0x1\n#EXT-X-MAP:URI=\"i0\",BYTERANGE=\"720@0\"\n#EXT-X-KEY:METHOD=NONE\n\
         #EXTINF:6,\n0\n#EXTINF:6,\n1\n#EXT-X-MAP:URI=\"i1\"\n#EXTINF:6,\n2",
    )
    .unwrap();
    let map = |index: usize| list.segments[index].map.as_ref().unwrap();
    assert_eq!((map(0).uri.expose(), map(1).uri.expose(), map(2).uri.expose()), ("i0", "i0", "i1"));
    assert_eq!(map(0).byte_range, Some(ByteRange::new(0, 720)));
    assert_eq!((map(0).keys.len(), list.segments[0].keys.len(), map(2).keys.len()), (1, 0, 0));
}

#[test]
fn s4_4_4_5_an_encrypted_map_needs_an_iv() {
    let lines = "#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n#EXT-X-MAP:URI=\"i\"";
    assert_eq!(problem(media(lines)), wrong(4, "EXT-X-MAP", PlaylistProblem::MapWithoutIv));
}

#[test]
fn s4_4_4_6_dates_are_extrapolated_both_ways() {
    let list = media(
        "#EXTINF:4,\n0\n#EXTINF:6,\n#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:01:00Z\n1\n#EXTINF:5,\n2\n#EXTINF:5,\n3",
    )
    .unwrap();
    let at = |index| {
        list.date_time_at(index).map(|date| date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    };
    assert_eq!((at(0), at(1), at(2), at(3), at(4)), (Some(56), Some(60), Some(66), Some(71), None));
}

#[test]
fn s4_4_4_7_gaps_are_marked() {
    let list = media("#EXTINF:4,\n#EXT-X-GAP\n0\n#EXTINF:4,\n1").unwrap();
    assert!(list.segments[0].is_gap && !list.segments[1].is_gap);
}

#[test]
fn s4_4_4_9_parts_belong_to_the_segment_after_them() {
    let list = media(
        "#EXT-X-PART:DURATION=1,URI=\"0.0\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=1,URI=\"0.1\",GAP=YES\n#EXTINF:2,\n0\n\
         #EXT-X-PART:DURATION=1,URI=\"1\",BYTERANGE=\"5@0\"\n#EXT-X-PART:DURATION=1,URI=\"1\",BYTERANGE=\"6\"\n\
         #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"1\",BYTERANGE-START=11\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"x\"\n\
         #EXT-X-RENDITION-REPORT:URI=\"../b\",LAST-MSN=1,LAST-PART=1",
    )
    .unwrap();
    let [first, second] = &list.segments[0].parts[..] else { panic!("two parts") };
    assert!(first.is_independent && !first.is_gap && second.is_gap);
    assert_eq!(list.parts[1].byte_range, Some(ByteRange::new(5, 11)));
    assert_eq!(list.preload_hints.len(), 1);
    assert_eq!(list.preload_hints[0].byte_range, Some(ByteRange::from_start(11)));
    assert_eq!(
        (list.rendition_reports[0].last_sequence, list.rendition_reports[0].last_part),
        (Some(1), Some(1))
    );
}

#[test]
fn s4_4_6_1_renditions_are_found_by_their_group() {
    let list = multivariant(
        "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"Deutsch\",LANGUAGE=\"de\",DEFAULT=YES,URI=\"de.m3u8\"\n\
         #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"English\",LANGUAGE=\"en\"\n\
         #EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"g\",NAME=\"x\",URI=\"s.m3u8\"\n#EXT-X-MEDIA:TYPE=NEW,GROUP-ID=\"g\"\n\
         #EXT-X-STREAM-INF:BANDWIDTH=128000.7,AVERAGE-BANDWIDTH=1,CODECS=\"mp4a.40.2, avc1.4d401e\",AUDIO=\"g\",\
         RESOLUTION=640x360,SCORE=2.5\nv.m3u8",
    )
    .unwrap();
    let variant = &list.variants[0];
    assert_eq!(
        (variant.bandwidth, variant.resolution, variant.score),
        (128_000, Some((640, 360)), Some(2.5))
    );
    assert_eq!(variant.codecs, ["mp4a.40.2".into(), "avc1.4d401e".into()]);
    let audio: Vec<_> = list.audio_of(variant).map(|rendition| &*rendition.name).collect();
    assert_eq!(audio, ["Deutsch", "English"]);
}

#[test]
fn s4_4_6_2_a_variant_needs_a_uri() {
    let twice = multivariant("#EXT-X-STREAM-INF:BANDWIDTH=1\n#EXT-X-STREAM-INF:BANDWIDTH=2\nv").unwrap();
    assert_eq!(rates(&twice), [2]);
    let none =
        multivariant("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"n\"\n#EXT-X-STREAM-INF:BANDWIDTH=1");
    assert_eq!(problem(none).2, PlaylistProblem::NoUri);
}

#[test]
fn s4_4_6_2_a_variant_without_a_rate_has_its_average_rate_or_none() {
    let list = "#EXT-X-STREAM-INF:CODECS=\"mp4a.40.2\"\na\n#EXT-X-STREAM-INF:BANDWIDTH=x,AVERAGE-BANDWIDTH=2\nb\n\
                #EXT-X-STREAM-INF:BANDWIDTH=3,AVERAGE-BANDWIDTH=x,SCORE=x,RESOLUTION=full\nc";
    assert_eq!(rates(&multivariant(list).unwrap()), [0, 2, 3]);
}

fn rates(list: &MultivariantPlaylist) -> Vec<u64> {
    list.variants.iter().map(|variant| variant.bandwidth).collect()
}

#[test]
fn s6_3_1_a_broken_tag_that_playing_does_without_is_left_out() {
    for tag in [
        "EXT-X-VERSION:NaN",
        "EXT-X-TARGETDURATION:NaN",
        "EXT-X-START:PRECISE=YES",
        "EXT-X-PART-INF:",
        "EXT-X-SERVER-CONTROL:HOLD-BACK=-1",
        "EXT-X-DATERANGE:X-CUSTOM=\"no id\"",
        "EXT-X-DATERANGE:ID=\"a\",ID=\"b\"",
        "EXT-X-PRELOAD-HINT:TYPE=PART",
        "EXT-X-RENDITION-REPORT:LAST-MSN=1",
    ] {
        let list = media(&format!("#{tag}\n#EXTINF:6,\n0.ts")).expect(tag);
        assert_eq!(list.segments.len(), 1, "{tag}");
        assert!(
            list.date_ranges.is_empty() && list.preload_hints.is_empty() && list.rendition_reports.is_empty()
        );
    }
    for tag in [
        "EXT-X-MEDIA:TYPE=SUBTITLES,NAME=\"no group\"",
        "EXT-X-SESSION-DATA:VALUE=\"no id\"",
        "EXT-X-SESSION-KEY:METHOD=AES-128",
        "EXT-X-CONTENT-STEERING:PATHWAY-ID=\"no server\"",
        "EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"never closed\nbroken",
        "EXT-X-STREAM-INF:BANDWIDTH=1,BANDWIDTH=2\nbroken",
        "EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"n\",URI=\"a\"\na",
    ] {
        let list = multivariant(&format!("#{tag}\n#EXT-X-STREAM-INF:BANDWIDTH=7\nv")).expect(tag);
        assert_eq!((rates(&list), list.variants[0].uri.expose()), (vec![7], "v"), "{tag}");
    }
    // With nothing left the first of them is the reason.
    let broken = "#EXT-X-STREAM-INF:BANDWIDTH=\"\na\n#EXT-X-STREAM-INF:BANDWIDTH=1,BANDWIDTH=2\nb";
    assert_eq!(problem(multivariant(broken)), wrong(2, "EXT-X-STREAM-INF", PlaylistProblem::AttributeSyntax));
}

#[test]
fn names_of_a_hostile_playlist_are_shown_in_part_and_on_one_line() {
    let name = format!("\u{1b}[2J\r{}", "x".repeat(1_000_000));
    for lines in [
        format!("#EXT-X-KEY:{name}=1,{name}=2"),
        format!("#EXTINF:6,\n{{${name}}}"),
        format!("#EXT-X-DEFINE:QUERYPARAM=\"{name}\""),
    ] {
        let shown = media(&lines).unwrap_err().to_string();
        assert!(shown.len() < 300 && !shown.contains(char::is_control), "{shown:.300}");
        assert!(shown.contains("xxx"), "{shown}");
    }
}

#[test]
fn s4_4_4_4_keys_of_endless_formats_take_no_memory_of_keys_by_segments() {
    let key = |index: usize| {
        format!("#EXT-X-KEY:METHOD=AES-128,URI=\"k\",KEYFORMAT=\"f{index}\"\n#EXTINF:6,\n{index}.ts\n")
    };
    let lines: String = (0..5_000).map(key).collect();
    assert_eq!(problem(media(&lines)).2, PlaylistProblem::TooManyKeys(16));
    let lines: String = (0..5_000).map(|index| key(index % 16)).collect();
    assert_eq!(media(&lines).unwrap().segments[4_999].keys.len(), 16);
}

#[test]
fn s4_1_names_and_titles_in_another_encoding_lose_letters() {
    let text = b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,Caf\xe9\n0.ts\n";
    let Ok(Playlist::Media(list)) = Playlist::parse(text, URL) else { panic!("a media playlist") };
    assert_eq!(list.segments[0].title.as_deref(), Some("Caf\u{fffd}"));
    let text = b"#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"Fran\xe7ais\",URI=\"r\"\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv\n";
    let Ok(Playlist::Multivariant(list)) = Playlist::parse(text, URL) else {
        panic!("a multivariant playlist")
    };
    assert_eq!(&*list.renditions[0].name, "Fran\u{fffd}ais");
}

#[test]
fn s4_4_6_3_i_frame_variants_are_no_variants_to_play() {
    let list =
        multivariant("#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i\"\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv");
    assert_eq!(list.unwrap().variants.len(), 1);
}

#[test]
fn s4_4_3_5_an_unknown_playlist_type_counts_as_none() {
    let list = media("#EXT-X-PLAYLIST-TYPE:LOOP\n#EXTINF:6,\n0.ts").expect("the rest is a playlist");
    assert_eq!((list.playlist_type, list.segments.len()), (None, 1));
    let list = media("#EXT-X-PLAYLIST-TYPE:EVENT\n#EXTINF:6,\n0.ts").expect("a playlist");
    assert_eq!(list.playlist_type, Some(PlaylistType::Event));
}

#[test]
fn s4_2_a_variant_with_an_unknown_requirement_is_not_used() {
    let list = multivariant(
        "#EXT-X-STREAM-INF:BANDWIDTH=1,REQ-NEW=1\na\n#EXT-X-STREAM-INF:BANDWIDTH=2,REQ-VIDEO-LAYOUT=\"CH-STEREO\"\nb",
    );
    let list = list.unwrap();
    assert_eq!(list.variants.iter().map(|variant| variant.bandwidth).collect::<Vec<_>>(), [2]);
}

#[test]
fn s4_4_6_4_session_tags_are_read() {
    let list = multivariant(
        "#EXT-X-SESSION-DATA:DATA-ID=\"com.example.t\",VALUE=\"v\",LANGUAGE=\"de\"\n\
         #EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"k\"\n#EXT-X-SESSION-KEY:METHOD=NONE\n\
         #EXT-X-CONTENT-STEERING:SERVER-URI=\"/steer\",PATHWAY-ID=\"A\"\n#EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID=\"A\"\nv",
    )
    .unwrap();
    assert_eq!(list.session_data[0].value.as_deref(), Some("v"));
    assert_eq!(list.session_keys.len(), 1);
    assert_eq!(list.steering.unwrap().server.expose(), "/steer");
    assert_eq!(&*list.variants[0].pathway, "A");
}

#[test]
fn s6_3_7_an_update_takes_skipped_segments_from_the_previous_version() {
    let url = Url::parse(URL).unwrap();
    let variables = BTreeMap::new();
    let old = media(
        "#EXT-X-MEDIA-SEQUENCE:10\n#EXT-X-MAP:URI=\"i\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n#EXTINF:6,\n10\n\
         #EXT-X-DISCONTINUITY\n#EXTINF:6,\n11\n#EXTINF:6,\n12",
    )
    .unwrap();
    let update = |text: &str, previous: Option<&MediaPlaylist>| {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n{text}\n");
        Playlist::parse_in(text.as_bytes(), Context { url: &url, variables: &variables, previous })
    };
    let text = "#EXT-X-MEDIA-SEQUENCE:11\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n#EXTINF:6,\n13";
    let Ok(Playlist::Media(new)) = update(text, Some(&old)) else { panic!("merged") };
    let uris: Vec<_> = new.segments.iter().map(|segment| segment.uri.expose()).collect();
    assert_eq!(uris, ["11", "12", "13"]);
    let last = &new.segments[2];
    assert_eq!((last.discontinuity_sequence, last.keys.len(), last.map.is_some()), (1, 1, true));
    for (text, previous) in [
        (text, None),
        ("#EXT-X-MEDIA-SEQUENCE:9\n#EXT-X-SKIP:SKIPPED-SEGMENTS=2", Some(&old)),
        ("#EXT-X-MEDIA-SEQUENCE:11\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3", Some(&old)),
        ("#EXT-X-MEDIA-SEQUENCE:11\n#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n#EXTINF:6,\n13", Some(&old)),
    ] {
        assert_eq!(problem(update(text, previous)).2, PlaylistProblem::Unmergeable, "{text}");
    }
}

#[test]
fn long_lists_are_refused_by_a_limit_that_the_error_names() {
    let bytes = vec![b'#'; lines::MOST_BYTES + 1];
    let error = Playlist::parse(&bytes, URL).unwrap_err();
    assert_eq!(error.problem, PlaylistProblem::TooLarge(lines::MOST_BYTES));
    let text = format!("#EXTM3U{}", "\n".repeat(lines::MOST_LINES + 1));
    let error = parse(&text).unwrap_err();
    assert_eq!(error.problem, PlaylistProblem::TooManyLines(lines::MOST_LINES));
    assert!(error.to_string().contains("1000000 lines"));
    let attributes = (0..65).map(|number| format!("X-{number}=1")).collect::<Vec<_>>().join(",");
    let problem = problem(media(&format!("#EXT-X-KEY:{attributes}"))).2;
    assert_eq!(problem, PlaylistProblem::TooManyAttributes(64));
}

#[test]
fn no_text_makes_the_parser_panic() {
    // Pieces of playlists in every order: more of the parser is reached than with random bytes.
    let pieces = [
        "#EXTM3U",
        "\n",
        "#EXTINF:",
        "1,",
        "\"",
        "=",
        "0x",
        "{$",
        "}",
        "@",
        "18446744073709551615",
        "#EXT-X-KEY:METHOD=",
        "AES-128",
        ",URI=\"k\"",
        "#EXT-X-BYTERANGE:",
        "#EXT-X-SKIP:SKIPPED-SEGMENTS=",
        "\u{feff}",
        "é",
        "-",
        ":",
        "T",
        "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T",
        "#EXT-X-MEDIA-SEQUENCE:",
        "#EXT-X-STREAM-INF:BANDWIDTH=",
        "a.ts",
    ];
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut text = String::from("#EXTM3U\n");
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        drop(parse(&text));
    }
}

#[test]
fn a_segment_takes_little_memory() {
    let size = size_of::<Segment>();
    assert!(size <= 200, "{size} bytes");
}
