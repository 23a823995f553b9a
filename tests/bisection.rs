//! Seeks that bisect, as those of symphonia in Ogg and in FLAC without a seek table.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use support::{Answer, Content, Origin, Request};
use windway::{Downloader, DownloaderConfig, Stream};

/// Enough for a measured rate to be that of a network on which a round trip counts.
const RTT: Duration = Duration::from_millis(20);

/// FLAC without a seek table: STREAMINFO, as the last block, whose largest frame has 9,000 bytes.
const HEAD: &[u8] = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\x10\0\x23\x28\x0a\xc4\x42\xf0\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

const LEN: u64 = 30_000_000;

/// The first probe, and the two places of which one is the second.
const PROBE: u64 = (HEAD.len() as u64 + LEN) / 2;
const CANDIDATES: [u64; 2] = [(HEAD.len() as u64 + PROBE) / 2, (PROBE + LEN) / 2];

fn content() -> Content {
    Content::padded(HEAD, LEN - HEAD.len() as u64 - 1, &[1][..])
}

fn brings(request: &Request, position: u64) -> bool {
    request.range().is_some_and(|(first, last)| first <= position && last.is_none_or(|last| position <= last))
}

fn read_at(stream: &mut Stream, position: u64) {
    stream.seek(SeekFrom::Start(position)).unwrap();
    stream.read_exact(&mut [0; 4096]).unwrap();
}

#[test]
fn both_places_of_the_next_jump_are_requested_before_the_probe_has_come() {
    let (come, changed) = (Mutex::new([false; 2]), Condvar::new());
    let content = content();
    let origin = Origin::start_with_rtt(RTT, move |request| {
        let mut come = come.lock().unwrap();
        for (come, candidate) in come.iter_mut().zip(CANDIDATES) {
            *come |= brings(request, candidate);
        }
        changed.notify_all();
        // What is read ahead of the start ends far before the probe, or brings all three.
        if request.range().is_some_and(|(first, _)| first == PROBE) {
            let limit = Duration::from_secs(60);
            let waited = changed.wait_timeout_while(come, limit, |come| come.contains(&false)).unwrap();
            assert!(!waited.1.timed_out(), "a candidate has not been requested");
        }
        Answer::file(request, &content).latency(RTT)
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut stream = downloader.open(&origin.url("/a.flac")).unwrap();
    read_at(&mut stream, PROBE);
    read_at(&mut stream, CANDIDATES[1]);
    // The second probe takes no request of its own.
    let requests = origin.log().requests;
    assert_eq!(requests.iter().filter(|request| brings(request, CANDIDATES[1])).count(), 1, "{requests:?}");
}

#[test]
fn on_a_metered_network_only_the_probes_are_requested() {
    let content = content();
    let origin = Origin::start_with_rtt(RTT, move |request| Answer::file(request, &content).latency(RTT));
    let downloader = Downloader::new(DownloaderConfig::new().metered(true)).unwrap();
    let mut stream = downloader.open(&origin.url("/a.flac")).unwrap();
    read_at(&mut stream, PROBE);
    read_at(&mut stream, CANDIDATES[1]);
    let requests = origin.log().requests;
    assert!(requests.iter().all(|request| !brings(request, CANDIDATES[0])), "{requests:?}");
}
