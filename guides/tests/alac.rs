//! symphonia decodes ALAC of HLS to the samples of the source. windway's own tests have no decoder for ALAC.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::FormatOptions;
use symphonia::core::formats::probe::Hint;
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_codecs, get_probe};
use windway::hls::{HlsConfig, Section};
use windway::media::AudioCodec;
use windway::{Downloader, DownloaderConfig};

const ALAC: &[u8] = include_bytes!("../../tests/data/alac.mp4");
const WAV: &[u8] = include_bytes!("../../tests/data/track.wav");

/// The boxes at the top level: kind, begin, length.
fn boxes() -> Vec<(&'static [u8], usize, usize)> {
    let mut boxes = Vec::new();
    let mut at = 0;
    while at < ALAC.len() {
        let len = u32::from_be_bytes(ALAC[at..at + 4].try_into().unwrap()) as usize;
        boxes.push((&ALAC[at + 4..at + 8], at, len));
        at += len;
    }
    boxes
}

/// A playlist of the fragments of the file, as byte ranges.
fn playlist() -> String {
    let boxes = boxes();
    let init = boxes.iter().find(|(kind, ..)| *kind == b"moof").unwrap().1;
    let mut list =
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"a.mp4\",BYTERANGE=\"{init}@0\"\n");
    for pair in boxes.windows(2).filter(|pair| pair[0].0 == b"moof") {
        let (_, begin, len) = pair[0];
        write!(list, "#EXTINF:0.5,\n#EXT-X-BYTERANGE:{}@{begin}\na.mp4\n", len + pair[1].2).unwrap();
    }
    list + "#EXT-X-ENDLIST\n"
}

fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.m3u8", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(move || serve_connection(connection.unwrap()));
        }
    });
    url
}

/// `None` when the client has closed the connection.
fn serve_connection(mut wire: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(wire.try_clone().ok()?).lines();
    loop {
        let is_list = lines.next()?.ok()?.contains("m3u8");
        let mut range = None;
        loop {
            let line = lines.next()?.ok()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            range = line.strip_prefix("range: bytes=").map(str::to_owned).or(range);
        }
        let content = if is_list { playlist().into_bytes() } else { ALAC.to_vec() };
        let (first, end) = match range.as_deref().and_then(|range| range.split_once('-')) {
            Some((first, last)) => {
                let first: usize = first.parse().unwrap();
                (first, last.parse().map_or(content.len(), |last: usize| content.len().min(last + 1)))
            }
            None => (0, content.len()),
        };
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let part = &content[first..end];
        let range = format!("Content-Range: bytes {first}-{}/{}\r\n", end - 1, content.len());
        write!(wire, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}\r\n", part.len()).ok()?;
        wire.write_all(part).ok()?;
    }
}

fn decode(section: Section) -> Vec<i16> {
    let stream = MediaSourceStream::new(Box::new(section), Default::default());
    let mut format = get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .unwrap();
    let parameters = format.tracks()[0].codec_params.as_ref().unwrap().audio().unwrap();
    let mut decoder = get_codecs().make_audio_decoder(parameters, &AudioDecoderOptions::default()).unwrap();
    let mut all = Vec::new();
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            // A stream has no length, so symphonia's reader of Matroska finds its end in place of another element.
            Err(SymphoniaError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => return all,
            other => panic!("{other:?}"),
        };
        let mut samples: Vec<i16> = Vec::new();
        decoder.decode(&packet).unwrap().copy_to_vec_interleaved(&mut samples);
        all.extend(samples);
    }
}

#[test]
fn symphonia_decodes_alac_of_hls_to_the_samples_of_the_source() {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut hls = downloader.open_hls(&serve(), HlsConfig::default()).unwrap();
    let section = hls.next_section().unwrap().unwrap();
    assert_eq!(section.info().codec, AudioCodec::Alac);
    let decoded = decode(section);
    assert!(hls.next_section().unwrap().is_none());
    // 1.5 s at 22.05 kHz, mono, behind the header of 44 bytes.
    let wanted: Vec<i16> = WAV[44..]
        .chunks_exact(2)
        .take(33_075)
        .map(|sample| i16::from_le_bytes([sample[0], sample[1]]))
        .collect();
    assert_eq!(decoded.len(), wanted.len());
    assert!(decoded == wanted, "other samples");
}
