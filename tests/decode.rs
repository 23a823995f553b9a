//! A decoder makes the same samples of a file over HTTP as of the local file.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::decoding::{Decoding, Source, decode_with_seeks};
use support::{Answer, Content, Origin, Request};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::io::MediaSource;
use windway::config::StorageConfig;
use windway::media::{AudioCodec, ContainerFormat, HintSource};
use windway::{Downloader, DownloaderConfig, ErrorKind, FileConfig};

const TRACKS: [(&str, &[u8]); 5] = [
    ("flac", include_bytes!("data/track.flac")),
    ("ogg", include_bytes!("data/track.ogg")),
    ("mp3", include_bytes!("data/track.mp3")),
    ("wav", include_bytes!("data/track.wav")),
    ("m4a", include_bytes!("data/track.m4a")),
];

fn expected(track: &'static [u8]) -> Vec<Vec<f32>> {
    decode_with_seeks(Box::new(Cursor::new(track)))
}

fn check(
    answer: impl Fn(&Request, &Content) -> Answer + Send + Sync + Copy + 'static,
    config: FileConfig,
    most: usize,
) {
    for (name, track) in TRACKS {
        let content = Content::bytes(track);
        let origin = Origin::start(move |request| answer(request, &content));
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let stream = downloader.open_with(&origin.url(&format!("/track.{name}")), config.clone()).unwrap();
        let decoded = decode_with_seeks(Box::new(Source { stream, most }));
        let expected = expected(track);
        assert!(expected.iter().map(Vec::len).sum::<usize>() > 20_000, "{name} has no audio");
        assert!(decoded == expected, "{name} was decoded to something else");
    }
}

fn with(storage: StorageConfig) -> FileConfig {
    let mut config = FileConfig::default();
    config.storage = storage;
    config
}

#[test]
fn a_track_is_recognised_by_its_bytes_whatever_the_server_says() {
    let kinds = [
        (ContainerFormat::Flac, Some(AudioCodec::Flac)),
        (ContainerFormat::Ogg, Some(AudioCodec::Vorbis)),
        (ContainerFormat::Mp3, Some(AudioCodec::Mp3)),
        (ContainerFormat::Wav, Some(AudioCodec::Pcm)),
        // Its index, which names the codec, is at its end.
        (ContainerFormat::Mp4, None),
    ];
    for ((_, track), (container, codec)) in TRACKS.into_iter().zip(kinds) {
        let content = Content::bytes(track);
        let origin = Origin::start(move |request| {
            Answer::file(request, &content).header("Content-Type", "audio/x-caf")
        });
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let mut stream = downloader.open(&origin.url("/track.aiff")).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        let info = stream.handle().media_info();
        assert_eq!(info.container, Some((container, HintSource::MagicBytes)));
        assert_eq!(info.codec, codec.map(|codec| (codec, HintSource::MagicBytes)));
    }
}

#[test]
fn samples_are_those_of_the_file() {
    check(Answer::file, FileConfig::default(), usize::MAX);
}

#[test]
fn samples_are_those_of_the_file_from_a_temporary_file_in_odd_reads() {
    check(Answer::file, with(StorageConfig::TempFile(None)), 97);
}

#[test]
fn samples_are_those_of_the_file_from_a_server_without_ranges() {
    check(|_, content| Answer::whole(content), with(StorageConfig::WholeMemory), 1000);
}

#[test]
fn samples_are_those_of_the_file_from_a_server_that_breaks_off() {
    let breaking = |request: &Request, content: &Content| {
        let answer = Answer::file(request, content);
        if request.number % 2 == 0 { answer.reset_after(20_011) } else { answer.close_after(9973) }
    };
    check(breaking, FileConfig::default(), usize::MAX);
}

#[test]
fn samples_are_those_of_the_file_from_a_slow_server() {
    check(|request, content| Answer::file(request, content).rate(1_000_000), FileConfig::default(), 4096);
}

/// A source that hides its length at first, so that the probe does not look for tags at the end, which a silent server never sends.
struct Unmeasured {
    source: Source,
    has_len: Arc<AtomicBool>,
}

impl Read for Unmeasured {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.read(buf)
    }
}

impl Seek for Unmeasured {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.source.seek(to)
    }
}

impl MediaSource for Unmeasured {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        self.has_len.load(Ordering::Acquire).then(|| self.source.byte_len()).flatten()
    }
}

/// The server falls silent within a packet and the read times out. After a seek the samples are those of the file.
#[test]
fn a_decoder_continues_after_a_timeout_and_a_seek() {
    for (name, track) in [TRACKS[0], TRACKS[2]] {
        let content = Content::bytes(track);
        let silent_at = track.len() as u64 / 2;
        let is_silent = Arc::new(AtomicBool::new(true));
        let silent = Arc::clone(&is_silent);
        // Until the server is back, it sends nothing beyond the middle.
        let origin = Origin::start(move |request| {
            let answer = Answer::file(request, &content);
            let start = request.range().map_or(0, |(first, _)| first);
            if silent.load(Ordering::Acquire) {
                answer.stall_after(silent_at.saturating_sub(start))
            } else {
                answer
            }
        });
        let mut config = DownloaderConfig::default();
        config.client.silence_timeout = Duration::from_millis(400);
        let downloader = Downloader::new(config).unwrap();
        let mut file = FileConfig::default();
        // It holds for the opening too, which takes its time on a busy machine.
        file.read_timeout = Some(Duration::from_secs(2));
        let stream = downloader.open_with(&origin.url("/track"), file).unwrap();

        let source = Source { stream, most: usize::MAX };
        let has_len = Arc::new(AtomicBool::new(false));
        let mut decoding = Decoding::open(Box::new(Unmeasured { source, has_len: Arc::clone(&has_len) }));
        has_len.store(true, Ordering::Release);
        let Err(SymphoniaError::IoError(error)) = decoding.packets(usize::MAX) else {
            panic!("{name}: not an I/O error");
        };
        assert_eq!(windway::Error::from(error).kind(), ErrorKind::TimedOut, "{name}");

        is_silent.store(false, Ordering::Release);
        let sought = |decoding: &mut Decoding| loop {
            match decoding.seek(1.0).and_then(|()| decoding.packets(usize::MAX)) {
                Ok(samples) => break samples,
                // The fetch over the silent connection may still run. A player would try again, too.
                Err(SymphoniaError::IoError(error)) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => panic!("{name}: {error}"),
            }
        };
        let mut on_disk = Decoding::open(Box::new(Cursor::new(track)));
        assert!(sought(&mut decoding) == sought(&mut on_disk), "{name} was decoded to something else");
    }
}

#[test]
fn an_index_at_the_end_of_a_large_file_costs_little_more_than_itself() {
    const PADDING: u64 = 200_000_000;
    let track = TRACKS[4].1;
    let index = track.windows(4).position(|name| name == b"moov").unwrap() - 4;
    // An empty box between the audio and its index.
    let mut front = track[..index].to_vec();
    front.extend_from_slice(&(PADDING as u32 + 8).to_be_bytes());
    front.extend_from_slice(b"free");
    let content = Content::padded(front, PADDING, &track[index..]);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let stream = downloader.open(&origin.url("/track.m4a")).unwrap();
    let handle = stream.handle();
    let mut decoding = Decoding::open(Box::new(Source { stream, most: usize::MAX }));
    let first = decoding.samples().unwrap().unwrap();
    let fetched = handle.stats().bytes_fetched;
    assert!(fetched <= (track.len() - index) as u64 + (1 << 20), "{fetched} bytes up to the first sample");
    let mut expected = Decoding::open(Box::new(Cursor::new(track)));
    assert!(first == expected.samples().unwrap().unwrap());
}
