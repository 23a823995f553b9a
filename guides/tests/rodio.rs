//! rodio decodes a stream from a slow server to the same samples as the file itself, also after seeks.

use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rodio::{Decoder, Source};
use windway::{Downloader, DownloaderConfig};

const TRACKS: [(&str, &[u8]); 4] = [
    ("flac", include_bytes!("../../tests/data/track.flac")),
    ("mp3", include_bytes!("../../tests/data/track.mp3")),
    ("ogg", include_bytes!("../../tests/data/track.ogg")),
    ("wav", include_bytes!("../../tests/data/track.wav")),
];

/// Answers requests for ranges of `content`, each after 5 ms.
fn serve(content: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/track", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(move || serve_connection(connection.unwrap(), content));
        }
    });
    url
}

/// `None` when the client has closed the connection.
fn serve_connection(mut wire: TcpStream, content: &[u8]) -> Option<()> {
    let mut lines = BufReader::new(wire.try_clone().ok()?).lines();
    loop {
        let mut range = None;
        loop {
            let line = lines.next()?.ok()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            range = line.strip_prefix("range: bytes=").map(str::to_owned).or(range);
        }
        thread::sleep(Duration::from_millis(5));
        let len = content.len();
        let (first, end) = match range.as_deref().and_then(|range| range.split_once('-')) {
            Some(("", last)) => (len - last.parse::<usize>().unwrap().min(len), len),
            Some((first, last)) => {
                (first.parse().unwrap(), last.parse().map_or(len, |last: usize| len.min(last + 1)))
            }
            None => (0, len),
        };
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let part = end - first;
        let range = format!("Content-Range: bytes {first}-{}/{len}\r\n", end - 1);
        write!(wire, "HTTP/1.1 {status}\r\nContent-Length: {part}\r\nETag: \"1\"\r\n{range}\r\n").ok()?;
        wire.write_all(&content[first..end]).ok()?;
    }
}

fn streamed(content: &'static [u8]) -> Decoder<windway::Stream> {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let stream = downloader.open(&serve(content)).unwrap();
    let len = content.len() as u64;
    Decoder::builder().with_data(stream).with_byte_len(len).with_seekable(true).build().unwrap()
}

fn local(content: &'static [u8]) -> Decoder<Cursor<&'static [u8]>> {
    let len = content.len() as u64;
    Decoder::builder().with_data(Cursor::new(content)).with_byte_len(len).with_seekable(true).build().unwrap()
}

#[test]
fn whole_tracks_sound_the_same() {
    for (name, content) in TRACKS {
        let streamed: Vec<f32> = streamed(content).collect();
        assert!(streamed.len() > 50_000, "{name}");
        assert!(streamed == local(content).collect::<Vec<f32>>(), "{name}");
    }
}

#[test]
fn tracks_sound_the_same_after_seeks() {
    for (name, content) in TRACKS {
        let (mut streamed, mut local) = (streamed(content), local(content));
        for seconds in [2.0, 0.5, 3.0] {
            let to = Duration::from_secs_f64(seconds);
            streamed.try_seek(to).unwrap();
            local.try_seek(to).unwrap();
            let some = |decoder: &mut dyn Iterator<Item = f32>| decoder.take(20_000).collect::<Vec<_>>();
            assert!(some(&mut streamed) == some(&mut local), "{name} from {seconds} s on");
        }
    }
}
