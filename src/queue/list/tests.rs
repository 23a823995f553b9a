use super::*;
use proptest::prelude::*;

fn parse(format: ListFormat, text: &str) -> List {
    List::parse(format, text.as_bytes()).unwrap()
}

/// Line, location, title and seconds of each entry.
fn entries(list: &List) -> Vec<(usize, &str, &str, f64)> {
    let seconds = |entry: &Entry| entry.duration.map_or(0.0, |duration| duration.as_secs_f64());
    let title =
        |entry: &'_ Entry| -> &'static str { Box::leak(entry.title.clone().unwrap_or_default().into()) };
    list.entries.iter().map(|entry| (entry.line, &*entry.location, title(entry), seconds(entry))).collect()
}

#[test]
fn m3u_has_a_location_a_line() {
    let text = "#EXTM3U x-tvg-url=\"http://h\"\r\n#PLAYLIST: Mix \r\n\r\n#EXTINF:123,Artist - Title\r\nhttp://h/1.mp3\r\n\
                #EXTGRP:x\r\n#EXTINF:-1 tvg-name=\"a,b\" group=\"c\", News, all day\r\n../2.mp3\r\n3 und 4.mp3";
    let list = parse(ListFormat::M3u, text);
    assert_eq!(list.title.as_deref(), Some("Mix"));
    assert_eq!(
        entries(&list),
        [
            (5, "http://h/1.mp3", "Artist - Title", 123.0),
            (8, "../2.mp3", "News, all day", 0.0),
            (9, "3 und 4.mp3", "", 0.0)
        ]
    );
    assert_eq!(entries(&parse(ListFormat::M3u, "a\rb\r")), [(1, "a", "", 0.0), (2, "b", "", 0.0)]);
    let latin = List::parse(ListFormat::M3u, b"#EXTINF:1,M\xfcnchen\nM\xfcnchen.mp3").unwrap();
    assert_eq!(entries(&latin), [(2, "München.mp3", "München", 1.0)]);
    let marked = List::parse(ListFormat::M3u, b"\xef\xbb\xbf#EXTM3U\nM\xc3\xbcnchen.mp3").unwrap();
    assert_eq!(entries(&marked), [(2, "München.mp3", "", 0.0)]);
}

#[test]
fn pls_has_numbers() {
    let text = "[playlist]\nNumberOfEntries=2\nTitle2=Two\nfile2 = http://h/2\nFile1=http://h/1?a=b\nLength1=90\nLength2=-1\n\
                Title9=none\nVersion=2\nFile=x\nFileA=y\nFile99999999999=z";
    let expected = [(5, "http://h/1?a=b", "", 90.0), (4, "http://h/2", "Two", 0.0)];
    assert_eq!(entries(&parse(ListFormat::Pls, text)), expected);
    let reference = "[Reference]\r\nRef1=http://h/a?MSWMExt=.asf\r\n";
    assert_eq!(entries(&parse(ListFormat::Pls, reference)), [(2, "http://h/a?MSWMExt=.asf", "", 0.0)]);
    let old = "[playlist]\rFile1=http://h/1\rTitle1=One\rLength1=90\r";
    assert_eq!(entries(&parse(ListFormat::Pls, old)), [(2, "http://h/1", "One", 90.0)]);
}

#[test]
fn xspf_has_locations_as_text() {
    let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<x:playlist version=\"1\" xmlns:x=\"http://xspf.org/ns/0/\">\n\
        <x:title>My &amp; mix</x:title><x:location>http://h/list.xspf</x:location>\n<x:trackList>\n\
        <x:track><x:title>One</x:title>\n<x:location> http://h/1?a=1&amp;b=2 </x:location>\n<x:location>http://m/1</x:location>\
        <x:duration>1500</x:duration></x:track>\n<x:track/><x:track><x:location><![CDATA[2.mp3]]></x:location>\
        <x:meta rel=\"x\"><x:title>not this</x:title></x:meta></x:track></x:trackList></x:playlist>";
    let list = parse(ListFormat::Xspf, text);
    assert_eq!(list.title.as_deref(), Some("My & mix"));
    let found = entries(&list);
    assert_eq!(found[0], (6, "http://h/1?a=1&b=2", "One", 1.5));
    assert_eq!((found[1].1, found.len()), ("2.mp3", 2));
}

#[test]
fn asx_is_read_though_it_is_not_well_formed() {
    let text = "<ASX VERSION=\"3.0\"><Title>Show\n<entry>\n<Ref HREF=\"http://h/1?a=1&b=2\" />\n<ref href='http://mirror/1'/>\
        <TITLE>One</title><Duration value=\"00:01:30.5\"/></Entry><ENTRYREF href=http://h/next.asx></ASX>";
    let list = parse(ListFormat::Asx, text);
    assert_eq!(entries(&list), [(3, "http://h/1?a=1&b=2", "One", 90.5), (4, "http://h/next.asx", "", 0.0)]);
}

#[test]
fn of_several_places_of_a_track_the_first_one_counts_that_can_be_requested() {
    let text = "<asx><entry><ref href=\"mms://h/1\"/>\n<ref href=\"HTTP://h/1\"/><ref href=\"http://mirror/1\"/></entry>\
        <entry><ref href=\"1.mp3\"/><ref href=\"http://h/2\"/></entry><entry><ref href=\"rtsp://h/3\"/></entry></asx>";
    assert_eq!(
        entries(&parse(ListFormat::Asx, text)),
        [(2, "HTTP://h/1", "", 0.0), (2, "1.mp3", "", 0.0), (2, "rtsp://h/3", "", 0.0)]
    );
    let text = "<playlist><trackList><track><location>file:///1</location>\n<location>http://h/1</location>\
        <location>http://mirror/1</location></track></trackList></playlist>";
    assert_eq!(entries(&parse(ListFormat::Xspf, text)), [(2, "http://h/1", "", 0.0)]);
}

#[test]
fn elements_that_nobody_closes_end_with_those_around_them() {
    let text = "<asx version=\"3.0\">\n<entryref href=\"http://h/list.asx\">\n<entry><ref href=\"http://h/1\"><title>One</entry>\n\
        <entry><title>Two</title></abstract><ref href=\"http://h/2\"></entry>\n<entryref href=\"a.asx\"><entryref href=\"b.asx\">\n</asx>";
    let list = parse(ListFormat::Asx, text);
    assert_eq!(
        entries(&list),
        [
            (2, "http://h/list.asx", "", 0.0),
            (3, "http://h/1", "One", 0.0),
            (4, "http://h/2", "Two", 0.0),
            (5, "a.asx", "", 0.0),
            (5, "b.asx", "", 0.0)
        ]
    );
    // Elements that are left open are no nesting.
    let many: String =
        (0..100).map(|at| format!("<entry><ref href='{at}'><param name='a'></entry>")).collect();
    assert_eq!(parse(ListFormat::Asx, &format!("<asx>{many}</asx>")).entries.len(), 100);
}

#[test]
fn feeds_have_enclosures() {
    let rss = "<?xml version=\"1.0\"?><rss><channel><title>Cast</title><image><title>Logo</title></image>\n\
        <item><title>Episode &#x31; &eacute;</title><enclosure url=\"https://h/1.mp3?a=1&amp;b=2\" type=\"audio/mpeg\"/>\
        <itunes:duration>1:02:03</itunes:duration></item>\n<item><title>Text only</title><link>http://h</link></item>\n\
        <item><enclosure url=\"2.mp3\"></enclosure></item></channel></rss>";
    let list = parse(ListFormat::Feed, rss);
    assert_eq!(list.title.as_deref(), Some("Cast"));
    assert_eq!(
        entries(&list),
        [(2, "https://h/1.mp3?a=1&b=2", "Episode 1 &eacute;", 3723.0), (4, "2.mp3", "", 0.0)]
    );
    let atom = "<feed xmlns=\"http://www.w3.org/2005/Atom\"><title>Cast</title><entry><link href=\"http://h/page\"/>\
        <link rel=\"enclosure\" href=\"http://h/1.ogg\"/></entry></feed>";
    assert_eq!(entries(&parse(ListFormat::Feed, atom)), [(1, "http://h/1.ogg", "", 0.0)]);
}

#[test]
fn a_picture_is_no_episode() {
    let rss = "<rss><channel><item><enclosure url='1.jpg' type='Image/jpeg'/><enclosure url='1.mp3' type='audio/mpeg'/></item>\
        <item><title>Text</title><enclosure url='2.jpg' type='image/png'/></item></channel></rss>";
    assert_eq!(entries(&parse(ListFormat::Feed, rss)), [(1, "1.mp3", "", 0.0)]);
}

#[test]
fn episodes_have_the_date_the_type_and_the_length_that_their_feed_says() {
    let facts = |text: &str| -> Vec<(Option<u64>, Option<String>, Option<u64>)> {
        let seconds = |date: SystemTime| date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let entries = parse(ListFormat::Feed, text).entries.into_iter();
        entries.map(|entry| (entry.published.map(seconds), entry.media_type, entry.len)).collect()
    };
    // The date of the channel, and that of an element inside, are others. A length of 0 is not known.
    let rss = "<rss><channel><pubDate>Thu, 1 Jan 1970 00:00:09 GMT</pubDate>
        <item><source><pubDate>Thu, 1 Jan 1970 00:00:08 GMT</pubDate></source>
        <enclosure url='1' length=' 5000000000 ' type='audio/mpeg'/><pubDate>Thu, 1 Jan 1970 00:00:07 GMT</pubDate></item>
        <item><enclosure url='2' length='0' type=''/><dc:date>1970-01-01T00:00:06Z</dc:date></item>
        <item><pubDate>soon</pubDate><enclosure url='3' length='many'/></item></channel></rss>";
    assert_eq!(
        facts(rss),
        [
            (Some(7), Some("audio/mpeg".into()), Some(5_000_000_000)),
            (Some(6), None, None),
            (None, None, None)
        ]
    );
    // The first place counts, with its type and length.
    let atom = "<feed><updated>1970-01-01T00:00:09Z</updated><entry><updated>1970-01-01T00:00:08Z</updated>
        <published>1970-01-01T00:00:07Z</published><link rel='enclosure' href='1' type='audio/ogg' length='5'/>
        <link rel='enclosure' href='2' type='audio/mpeg' length='6'/></entry>
        <entry><link rel='enclosure' href='3'/><updated>1970-01-01T00:00:06Z</updated></entry></feed>";
    assert_eq!(facts(atom), [(Some(7), Some("audio/ogg".into()), Some(5)), (Some(6), None, None)]);
}

#[test]
fn what_is_cut_or_too_much_is_read_as_far_as_it_goes_or_an_error_with_its_line() {
    let cut =
        "<rss><channel>\n<item><enclosure url=\"1.mp3\"/></item>\n<item><enclosure url=\"2.mp3\"/><title>T";
    assert_eq!(entries(&parse(ListFormat::Feed, cut)).len(), 2);
    let broken = List::parse(ListFormat::Feed, b"<rss>\n\n<!-- never closed").unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::InvalidPlaylist);
    assert!(broken.to_string().starts_with("line 3: "), "{broken}");
    let deep = List::parse(ListFormat::Xspf, "<a>".repeat(1000).as_bytes()).unwrap_err();
    assert_eq!(deep.kind(), ErrorKind::InvalidPlaylist);
    let most = "a\n".repeat(MOST_TRACKS);
    assert_eq!(parse(ListFormat::M3u, &most).entries.len(), MOST_TRACKS);
    let many = List::parse(ListFormat::M3u, format!("{most}b\n").as_bytes()).unwrap_err();
    assert_eq!(many.kind(), ErrorKind::TooLarge);
    assert!(many.to_string().starts_with("line 100001: "), "{many}");
    let numbers: String = (0..=MOST_TRACKS).map(|number| format!("File{number}=a\n")).collect();
    assert_eq!(List::parse(ListFormat::Pls, numbers.as_bytes()).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn a_document_type_with_declarations_in_it_is_passed_over() {
    let text = "<?xml version=\"1.0\"?>\n<!DOCTYPE rss [<!ENTITY % lat PUBLIC \"-//x\" \"http://h/x.ent\">\n%lat;\n]>\n\
                <rss><channel><item><enclosure url=\"http://h/1.mp3\"/></item></channel></rss>";
    assert_eq!(parse(ListFormat::Feed, text).entries[0].location, "http://h/1.mp3");
}

/// "Billion laughs".
#[test]
fn entities_of_a_document_are_not_expanded() {
    let text = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\"><!ENTITY f SYSTEM \"file:///etc/passwd\">]>\
        <playlist><trackList><track><title>&b;&f;</title><location>1</location></track></trackList></playlist>";
    assert_eq!(entries(&parse(ListFormat::Xspf, text)), [(1, "1", "&b;&f;", 0.0)]);
}

const FORMATS: [ListFormat; 5] =
    [ListFormat::M3u, ListFormat::Pls, ListFormat::Xspf, ListFormat::Asx, ListFormat::Feed];

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(format in 0..5_usize, bytes in any::<Vec<u8>>()) {
        // An error is as good as a list.
        let _ = List::parse(FORMATS[format], &bytes);
    }

    #[test]
    fn no_tags_make_a_parser_panic(
        format in 0..5_usize,
        parts in proptest::collection::vec(
            "(</?(item|entry|track|rss|asx|title|duration|location|a:link|enclosure|ref)( (url|href|rel|value)=['\"]?[a-z:0-9&;]{0,5}['\"]?)?/?>|<!\\[CDATA\\[|\\]\\]>|<!--|-->|&[a-z#0-9]{0,3};?|[a-z\n]{0,4}|#EXTINF:|File1=|,|\")",
            0..30,
        ),
    ) {
        let text = parts.concat();
        if let Ok(list) = List::parse(FORMATS[format], text.as_bytes()) {
            let lines = text.split('\n').count();
            for entry in list.entries {
                prop_assert!(!entry.location.is_empty());
                prop_assert!((1..=lines).contains(&entry.line), "{} of {lines}", entry.line);
            }
        }
    }

    #[test]
    fn m3u_gives_back_what_was_written(locations in proptest::collection::vec("[a-z/:.]{1,20}", 0..20), crlf in any::<bool>()) {
        let end = if crlf { "\r\n" } else { "\n" };
        let text: String = locations.iter().map(|location| format!("#EXTINF:5,t{end}{location}{end}")).collect();
        let list = parse(ListFormat::M3u, &text);
        let found: Vec<(usize, &str)> = list.entries.iter().map(|entry| (entry.line, &*entry.location)).collect();
        let written: Vec<(usize, &str)> = locations.iter().enumerate().map(|(at, location)| (2 * at + 2, &**location)).collect();
        prop_assert_eq!(found, written);
    }
}

#[test]
fn tracks_are_identified_as_their_list_does() {
    let ids = |format, text: &str| -> Vec<Option<String>> {
        parse(format, text).entries.into_iter().map(|entry| entry.id).collect()
    };
    let rss = "<rss><channel><item><guid isPermaLink='false'> 17 </guid><enclosure url='http://h/1'/></item>
        <item><enclosure url='http://h/2'/></item></channel></rss>";
    assert_eq!(ids(ListFormat::Feed, rss), [Some("17".to_owned()), None]);
    // The `id` of the feed, and that of the feed from which an entry was copied, are others.
    let atom = "<feed><id>feed</id><entry><source><id>other</id></source><id>urn:1</id>
        <link rel='enclosure' href='http://h/1'/></entry></feed>";
    assert_eq!(ids(ListFormat::Feed, atom), [Some("urn:1".to_owned())]);
    let xspf = "<playlist><trackList><track><location>http://h/1</location><identifier>a</identifier></track></trackList></playlist>";
    assert_eq!(ids(ListFormat::Xspf, xspf), [Some("a".to_owned())]);
}
