//! A file on a server that means harm: it lies in its heads, and the file lies about itself. Whatever it sends, a read returns
//! the right bytes or an error, and returns.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::mux::Random;
use support::{Answer, Content, Origin, Request, in_time};
use windway::config::ReadAhead;
use windway::event::Event;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Stream};

const LEN: usize = 1_500_000;

/// Number of servers for each start of a file. The variable `WINDWAY_SERVERS` raises it.
const SERVERS: u64 = 6;

/// Jumps and reads of a reader.
const READS: usize = 12;

fn mp4_box(name: &[u8; 4], size: u32, rest: &[u8]) -> Vec<u8> {
    [&size.to_be_bytes(), &name[..], rest].concat()
}

fn flac_block(kind: u8, size: u32, rest: &[u8]) -> Vec<u8> {
    [&[kind], &size.to_be_bytes()[1..], rest].concat()
}

/// Starts of files that lie: sizes that overflow, tables that point behind the end, elements without an end.
fn starts() -> Vec<(&'static str, Vec<u8>)> {
    let ftyp = mp4_box(b"ftyp", 16, b"M4A \0\0\0\0");
    let seek_point = [&[0xff; 7][..], &[0; 1], &[0xff; 8], &[0x10, 0]].concat();
    let streaminfo = flac_block(0, 34, &[0xff; 34]);
    let matroska = b"\x1a\x45\xdf\xa3\x84\x42\x82\x81m\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff";
    let cues = b"\x11\x4d\x9b\x74\x92\x4d\xbb\x8f\x53\xab\x84\x1c\x53\xbb\x6b\x53\xac\x88";
    let ogg_page = [&b"OggS"[..], &[0; 22], &[255], &[255; 255]].concat();
    vec![
        ("mdat of 2^64 bytes", [&ftyp[..], &mp4_box(b"mdat", 1, &[0xff; 8])].concat()),
        ("mdat of 4 GB", [&ftyp[..], &mp4_box(b"mdat", u32::MAX, &[])].concat()),
        ("moov of 4 GB", [&ftyp[..], &mp4_box(b"moov", u32::MAX, &[])].concat()),
        ("Cues behind the end", [&matroska[..], cues, &[0xff; 8]].concat()),
        ("elements without an end", [&matroska[..], b"\x11\x4d\x9b\x74\xff\x4d\xbb\xff"].concat()),
        (
            "a seek table behind the end",
            [b"fLaC", &streaminfo[..], &flac_block(0x83, 18, &seek_point)].concat(),
        ),
        ("blocks of 16 MB", [b"fLaC", &streaminfo[..], &flac_block(6, 0x00ff_ffff, &[])].concat()),
        ("comments of 4 GB", [&ogg_page[..], b"\x03vorbis\xff\xff\xff\xff\xff\xff\xff\xff"].concat()),
        ("a tag of 256 MB", b"ID3\x04\0\x10\x7f\x7f\x7f\x7f".to_vec()),
        ("a chunk of 4 GB", b"FORM\xff\xff\xff\xffAIFFCOMM\xff\xff\xff\xff".to_vec()),
        ("ADTS", b"\xff\xf1\x50\x80".to_vec()),
    ]
}

/// The bytes of a file, which differ everywhere.
fn file(start: &[u8]) -> Vec<u8> {
    let mut bytes = start.to_vec();
    let mut random = Random(7);
    bytes.extend(random.bytes(LEN - start.len()));
    bytes
}

/// An answer that is wrong in one way. No lie brings wrong bytes under a right head: nothing could tell.
fn lie(request: &Request, content: &Content, random: &mut Random) -> Answer {
    let honest = Answer::file(request, content);
    let len = content.len();
    let range = |first: u64, last: u64, len: &str| format!("bytes {first}-{last}/{len}");
    let (first, last) =
        request.range().map_or((0, len - 1), |(first, last)| (first, last.unwrap_or(len - 1)));
    let (first, last) = (first.min(len - 1), last.min(len - 1));
    match random.below(20) {
        // Other bytes than those that were asked for, and said so.
        0 => Answer::whole(content).header("ETag", &content.etag()).partial(0..len.min(100_000)),
        1 => honest.partial(len - 1000..len),
        2 => honest.header("Content-Range", &range(last, first, "0")),
        3 => honest.header("Content-Range", "bytes */1500000"),
        4 => honest.header("Content-Range", &range(0, u64::MAX, "18446744073709551615")),
        5 => honest.header("Content-Range", "bytes 99999999999999999999999-1/2"),
        // Other lengths.
        6 => honest.header("Content-Range", &range(first, last, "1500001")),
        7 => honest.header("Content-Range", &range(first, last, "*")),
        8 => Answer::whole(content).no_length(),
        9 => honest.close_after(random.next() % 60_000),
        10 => honest.extra_bytes(5000),
        // The whole.
        11 | 12 => Answer::whole(content).header("ETag", &content.etag()),
        13 => Answer::whole(content),
        // Another version, which has the same bytes.
        14 => honest.header("ETag", "\"other\""),
        15 => honest.without_header("ETag"),
        16 => honest.header("Content-Encoding", "gzip"),
        17 => honest.header("Content-Type", "multipart/byteranges; boundary=a"),
        18 => Answer::status([404, 416, 429, 500, 503][random.below(5)]),
        _ => Answer::redirect(302, "/a"),
    }
}

fn config() -> FileConfig {
    // Long enough for some retries, and no longer: most of the time of this test is spent in them.
    FileConfig::new().read_timeout(Duration::from_millis(300)).read_ahead(ReadAhead::Bytes(300_000))
}

/// Where a reader goes next: as decoders do, to the start, to the end, in halves, and anywhere.
fn jump(from: u64, random: &mut Random) -> u64 {
    let len = LEN as u64;
    match random.below(6) {
        0 => 0,
        1 => len - 160,
        2 => (from + len) / 2,
        3 => from / 2,
        4 => from,
        _ => random.next() % (len + 10),
    }
}

/// Reads here and there. Returns the number of bytes that were right; panics at a wrong one.
fn read_about(stream: &mut Stream, bytes: &[u8], random: &mut Random) -> Result<usize, Error> {
    let (mut position, mut right) = (0, 0);
    let mut buf = vec![0; 40_000];
    for _ in 0..READS {
        position = jump(position, random);
        stream.seek(SeekFrom::Start(position))?;
        for _ in 0..1 + random.below(3) {
            let size = 1 + random.below(buf.len());
            let got = match stream.read(&mut buf[..size]).map_err(Error::from) {
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::Changed => return Err(error),
                Err(_) => break,
            };
            let at = position as usize;
            assert!(got > 0 || at >= bytes.len(), "the file ended at {at}");
            assert_eq!(
                Some(&buf[..got]),
                bytes.get(at.min(bytes.len())..at.min(bytes.len()) + got),
                "at {at}"
            );
            position += got as u64;
            right += got;
        }
    }
    Ok(right)
}

/// One server, which lies in each third answer or so, and one reader.
fn meet(start: &[u8], seed: u64) -> usize {
    let bytes = file(start);
    let content = Content::bytes(bytes.clone());
    let lies = Mutex::new(Random(seed));
    let origin = Origin::start(move |request| {
        let mut random = lies.lock().unwrap();
        let is_honest = request.number == 0 && seed % 4 != 0;
        if is_honest || random.below(3) > 0 {
            Answer::file(request, &content)
        } else {
            lie(request, &content, &mut random)
        }
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let Ok(mut stream) = downloader.open_with(&origin.url("/a"), config()) else { return 0 };
    let mut random = Random(seed + 1000);
    read_about(&mut stream, &bytes, &mut random).unwrap_or(0)
}

#[test]
fn a_server_that_lies_gives_right_bytes_or_errors() {
    let count = std::env::var("WINDWAY_SERVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(SERVERS);
    let readers = starts().into_iter().map(|(name, start)| {
        std::thread::spawn(move || {
            let met = (0..count).map(|seed| {
                let start = start.clone();
                in_time(&format!("{name}, seed {seed}"), move || meet(&start, seed))
            });
            (name, met.filter(|right| *right > 0).count())
        })
    });
    let readers: Vec<_> = readers.collect();
    for reader in readers {
        let (name, served) = reader.join().unwrap();
        assert!(served as u64 >= count / 4, "{name}: only {served} of {count} servers gave a byte");
    }
}

#[test]
fn a_server_that_answers_each_prefetch_with_one_byte_is_not_asked_without_end() {
    const OPENING: u64 = 256 * 1024;
    let content = Content::bytes(file(b"\xff\xf1\x50\x80"));
    let bytes = file(b"\xff\xf1\x50\x80");
    let times = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&times);
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let opened = Arc::clone(&gate);
    let origin = Origin::start(move |request| match request.range() {
        Some((first, _)) if first >= OPENING => {
            drop(opened.lock().unwrap());
            asked.lock().unwrap().push(Instant::now());
            Answer::file(request, &content).partial(first..first + 1)
        }
        // Its full answer may come at any time, and would end the pauses.
        _ if request.suffix().is_some() => Answer::status(404),
        _ => Answer::file(request, &content),
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let events = downloader.subscribe();
    let config = FileConfig::new().read_ahead(ReadAhead::Bytes(300_000));
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    let mut start = vec![0; OPENING as usize];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(start, bytes[..OPENING as usize]);
    // The opening, which is a full answer, has ended.
    while !matches!(events.recv(), Some(Event::Completed { .. })) {}
    drop(closed);
    // No reader waits, so these are prefetches.
    origin.wait_until("prefetches", |_| times.lock().unwrap().len() >= 30);
    let times = times.lock().unwrap().clone();
    // Free are the first 16. Then each waits for 10 ms or more, and one beside them may be on its way.
    let pauses = times[29] - times[18];
    assert!(pauses >= 9 * Duration::from_millis(10), "{pauses:?}");
    // A reader waits for no pause yet.
    let mut next = [0; 60];
    stream.read_exact(&mut next).unwrap();
    assert_eq!(next, bytes[OPENING as usize..][..60]);
}

#[test]
fn a_server_that_answers_each_urgent_range_with_one_byte_is_not_asked_without_end() {
    const OPENING: u64 = 64 * 1024;
    let whole = file(b"\xff\xf1\x50\x80");
    let content = Content::bytes(whole.clone());
    let times = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&times);
    let origin = Origin::start(move |request| match request.range() {
        Some((first, _)) if first >= OPENING => {
            asked.lock().unwrap().push(Instant::now());
            Answer::file(request, &content).partial(first..first + 1)
        }
        // As above.
        _ if request.suffix().is_some() => Answer::status(404),
        _ => Answer::file(request, &content).partial(0..OPENING),
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let config = FileConfig::new().read_ahead(ReadAhead::Bytes(1));
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    let mut got = vec![0; OPENING as usize + 90];
    stream.read_exact(&mut got).unwrap();
    assert!(got == whole[..got.len()]);
    let times = times.lock().unwrap();
    // Free are the first 64. Then each waits for 10 ms or more.
    let pauses = times[89] - times[69];
    assert!(pauses >= 20 * Duration::from_millis(10), "{pauses:?}");
}
