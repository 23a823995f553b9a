//! rodio decodes a stream to the same samples as a file on the disk.

mod support;

use std::io::Cursor;
use std::time::Duration;

use rodio::{Decoder, Source};
use support::{Answer, Content, Origin};
use windway::{Downloader, DownloaderConfig};

const TRACKS: [(&str, &[u8]); 4] = [
    ("flac", include_bytes!("data/track.flac")),
    ("mp3", include_bytes!("data/track.mp3")),
    ("ogg", include_bytes!("data/track.ogg")),
    ("wav", include_bytes!("data/track.wav")),
];

fn samples(decoder: impl Iterator<Item = f32>) -> Vec<f32> {
    decoder.collect()
}

/// A decoder over a stream of this track from a slow network.
fn streamed(origin: &Origin, len: u64) -> Decoder<windway::Stream> {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let stream = downloader.open(&origin.url("/track")).unwrap();
    Decoder::builder().with_data(stream).with_byte_len(len).with_seekable(true).build().unwrap()
}

fn on_disk(bytes: &'static [u8]) -> Decoder<Cursor<&'static [u8]>> {
    let len = bytes.len() as u64;
    Decoder::builder().with_data(Cursor::new(bytes)).with_byte_len(len).with_seekable(true).build().unwrap()
}

#[test]
fn whole_tracks_sound_the_same() {
    for (name, bytes) in TRACKS {
        let content = Content::bytes(bytes);
        let origin = Origin::start(move |asked| {
            Answer::file(asked, &content).latency(Duration::from_millis(5)).rate(500_000)
        });
        let streamed = samples(streamed(&origin, bytes.len() as u64));
        assert!(streamed.len() > 50_000, "{name}");
        assert!(streamed == samples(on_disk(bytes)), "{name}");
    }
}

#[test]
fn tracks_that_are_sought_sound_the_same() {
    for (name, bytes) in TRACKS {
        let content = Content::bytes(bytes);
        let origin = Origin::start(move |asked| Answer::file(asked, &content).rate(2_000_000));
        let (mut streamed, mut there) = (streamed(&origin, bytes.len() as u64), on_disk(bytes));
        for seconds in [2.0, 0.5, 3.0] {
            let to = Duration::from_secs_f64(seconds);
            streamed.try_seek(to).unwrap();
            there.try_seek(to).unwrap();
            let some = |decoder: &mut dyn Iterator<Item = f32>| samples(decoder.take(20_000));
            assert!(some(&mut streamed) == some(&mut there), "{name} from {seconds} s on");
        }
    }
}
