//! A cap on the bandwidth of a downloader: all ways to read a body keep to it, it is no failure, and urgent work goes first.
//!
//! That a rate is not exceeded is a lower bound of a time, which a busy machine only makes longer.

use std::io::Read;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use support::content::assert_pattern;
use support::peers::{Got, List, collect, downloader, get, read_all};
use support::{Answer, Content, Origin, Station, in_time};
use windway::downloader::{Outcome, PeerHandle};
use windway::event::{Event, Subscriber};
use windway::{ByteRange, Downloader, DownloaderConfig, Error, ErrorKind, Priority, RadioConfig};

/// Bytes a second.
const RATE: u64 = 200_000;

/// What is read at once after a pause.
const BURST: u64 = RATE / 4;

/// So slow that what is not read at once is never read.
const STOPPED: u64 = 1;

/// What is read at once at that rate.
const LEAST_BURST: u64 = 16 * 1024;

fn capped(rate: u64) -> Downloader {
    downloader(|config| config.max_bandwidth = Some(rate))
}

fn serve(len: u64) -> Origin {
    let content = Content::pattern(len);
    Origin::start(move |request| Answer::file(request, &content))
}

/// Panics if `work`, which reads `bytes` bytes, is faster than the cap.
fn assert_capped(what: &str, bytes: u64, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    let (took, least) = (began.elapsed(), Duration::from_secs_f64((bytes - BURST) as f64 / RATE as f64));
    assert!(took >= least, "{what}: {bytes} bytes in {took:?}, allowed after {least:?}");
}

/// Prefetches `path` into a sink.
fn prefetch(downloader: &Downloader, origin: &Origin, path: &str) -> (PeerHandle, Receiver<Got>) {
    let list = List::default();
    let (sink, end) = collect(0);
    list.put(get(origin, path), sink);
    let peer = downloader.register(list, Priority::Low).unwrap();
    peer.wake(Priority::Low);
    (peer, end)
}

/// Blocks until this many response heads have arrived. What follows is held back.
fn await_heads(events: &Subscriber, heads: usize) {
    let is_head = |event: &Event| matches!(event, Event::FirstByte { .. });
    assert_eq!(std::iter::from_fn(|| events.recv()).filter(is_head).take(heads).count(), heads);
}

fn kind_of(error: &std::io::Error) -> ErrorKind {
    error.get_ref().and_then(|error| error.downcast_ref::<Error>()).expect("an error of windway").kind()
}

#[test]
fn every_way_to_read_keeps_to_the_cap() {
    const LEN: u64 = 150_000;
    let origin = serve(LEN);
    let peer_of = |downloader: &Downloader| downloader.register((), Priority::High).unwrap();
    let downloader = capped(RATE);
    assert_capped("a response", LEN, || drop(read_all(&peer_of(&downloader), get(&origin, "/a"))));
    let downloader = capped(RATE);
    assert_capped("a prefetch", LEN, || {
        prefetch(&downloader, &origin, "/b").1.recv().unwrap().assert_done(0..LEN);
    });
    let downloader = capped(RATE);
    assert_capped("a stream", LEN, || {
        let mut bytes = Vec::new();
        downloader.open(&origin.url("/c")).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, LEN);
        assert_pattern(0, &bytes);
    });
    let station =
        Station { audio: Content::endless(), interval: 16_000, every: 1, titles: vec!["Artist - Title"] };
    let station = Origin::start(move |request| Answer::station(request, &station));
    let downloader = capped(RATE);
    assert_capped("a radio", LEN, || {
        let mut radio = downloader.open_radio(&station.url("/live"), RadioConfig::default()).unwrap();
        radio.read_exact(&mut vec![0; LEN as usize]).unwrap();
    });
}

#[test]
fn all_fetches_together_keep_to_the_cap() {
    const LEN: u64 = 50_000;
    let origin = serve(LEN);
    let downloader = capped(RATE);
    assert_capped("six fetches", 6 * LEN, || {
        let prefetches: Vec<_> =
            (0..3).map(|n| prefetch(&downloader, &origin, &format!("/prefetch-{n}"))).collect();
        thread::scope(|scope| {
            for n in 0..3 {
                let (downloader, origin) = (&downloader, &origin);
                scope.spawn(move || {
                    let peer = downloader.register((), Priority::High).unwrap();
                    assert_pattern(0, &read_all(&peer, get(origin, &format!("/{n}"))));
                });
            }
        });
        prefetches.iter().for_each(|(_, end)| end.recv().unwrap().assert_done(0..LEN));
    });
}

#[test]
fn a_fetch_that_the_cap_holds_back_is_cancelled_at_once() {
    let origin = serve(10 * LEAST_BURST);
    in_time("cancels", move || {
        // A response whose peer is dropped by its epoch, which ends the read on another thread.
        let downloader = capped(STOPPED);
        let peer = downloader.register((), Priority::High).unwrap();
        let epoch = peer.epoch();
        let mut response = peer.execute(get(&origin, "/response").epoch(&epoch)).unwrap();
        response.read_exact(&mut vec![0; LEAST_BURST as usize]).unwrap();
        let reader = thread::spawn(move || response.read(&mut [0]).unwrap_err());
        epoch.cancel();
        assert!(matches!(kind_of(&reader.join().unwrap()), ErrorKind::Cancelled(_)));

        let downloader = capped(STOPPED);
        let events = downloader.subscribe();
        let (peer, end) = prefetch(&downloader, &origin, "/prefetch");
        await_heads(&events, 1);
        drop(peer);
        assert!(matches!(end.recv().unwrap().outcome, Outcome::Cancelled(_)));

        let downloader = capped(STOPPED);
        let mut stream = downloader.open(&origin.url("/stream")).unwrap();
        let handle = stream.handle();
        stream.read_exact(&mut vec![0; LEAST_BURST as usize / 4]).unwrap();
        let reader = thread::spawn(move || stream.read_to_end(&mut Vec::new()).unwrap_err());
        handle.cancel();
        assert!(matches!(kind_of(&reader.join().unwrap()), ErrorKind::Cancelled(_)));

        let downloader = capped(STOPPED);
        let events = downloader.subscribe();
        let (_peer, end) = prefetch(&downloader, &origin, "/stopped");
        await_heads(&events, 1);
        downloader.stop();
        assert!(matches!(end.recv().unwrap().outcome, Outcome::Cancelled(_)));
    });
}

#[test]
fn a_new_cap_also_applies_to_fetches_that_wait() {
    const LEN: u64 = 5 * LEAST_BURST;
    let origin = serve(LEN);
    in_time("a new cap", move || {
        let downloader = capped(STOPPED);
        assert_eq!(downloader.max_bandwidth(), Some(STOPPED));
        let events = downloader.subscribe();
        let (_peer, end) = prefetch(&downloader, &origin, "/a");
        await_heads(&events, 1);
        downloader.set_max_bandwidth(None).unwrap();
        end.recv().unwrap().assert_done(0..LEN);
        assert_eq!(downloader.max_bandwidth(), None);

        downloader.set_max_bandwidth(STOPPED).unwrap();
        let (_peer, end) = prefetch(&downloader, &origin, "/b");
        await_heads(&events, 1);
        downloader.set_max_bandwidth(10_000_000).unwrap();
        end.recv().unwrap().assert_done(0..LEN);
        assert_eq!(origin.log().requests.len(), 2);
    });
}

#[test]
fn a_cap_of_zero_is_refused() {
    let error = Downloader::new(DownloaderConfig::new().max_bandwidth(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("max_bandwidth"), "{error}");
    let downloader = capped(RATE);
    assert_eq!(downloader.set_max_bandwidth(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(downloader.max_bandwidth(), Some(RATE));
}

#[test]
fn prefetches_leave_bytes_and_workers_to_urgent_work() {
    const LEN: u64 = 5 * LEAST_BURST;
    /// Less than the half of a burst that prefetches leave.
    const SMALL: u64 = 5000;
    let (large, small) = (Content::pattern(LEN), Content::pattern(SMALL));
    let origin = Origin::start(move |request| {
        Answer::file(request, if request.path.starts_with("/urgent") { &small } else { &large })
    });
    in_time("urgent work", move || {
        let downloader = downloader(|config| {
            config.max_bandwidth = Some(STOPPED);
            config.max_concurrent = 3;
            config.reserved = 0;
        });
        let events = downloader.subscribe();
        let prefetches: Vec<_> =
            (0..3).map(|n| prefetch(&downloader, &origin, &format!("/prefetch-{n}"))).collect();
        // Now they hold all workers, and wait for bytes that do not come.
        await_heads(&events, 3);
        let list = List::default();
        let (sink, end) = collect(0);
        list.put(get(&origin, "/urgent").priority(Priority::High), sink);
        let peer = downloader.register(list, Priority::High).unwrap();
        peer.wake(Priority::High);
        end.recv().unwrap().assert_done(0..SMALL);

        downloader.set_max_bandwidth(None).unwrap();
        prefetches.iter().for_each(|(_, end)| end.recv().unwrap().assert_done(0..LEN));
    });
}

#[test]
fn a_prefetch_that_becomes_urgent_goes_first() {
    const LEN: u64 = 10 * LEAST_BURST;
    let origin = serve(LEN);
    in_time("a promotion", move || {
        let downloader = capped(STOPPED);
        let list = List::default();
        let (sink, end) = collect(0);
        list.put(get(&origin, "/a").range(ByteRange::new(0, LEAST_BURST / 2 + 1000)), sink);
        let peer = downloader.register(list, Priority::High).unwrap();
        let events = peer.subscribe();
        peer.wake(Priority::Low);
        let request = std::iter::from_fn(|| events.recv()).find_map(|event| match event {
            Event::FirstByte { request, .. } => Some(request),
            _ => None,
        });
        // More than the half of a burst that a prefetch gets.
        peer.promote(request.unwrap(), Priority::High);
        assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    });
}

#[test]
fn a_body_that_the_cap_holds_back_is_not_silent() {
    // At this rate, the last bytes wait for two seconds.
    const LEN: u64 = LEAST_BURST + 1024;
    let origin = serve(LEN);
    let downloader = downloader(|config| {
        config.max_bandwidth = Some(512);
        config.client.silence_timeout = Duration::from_secs(1);
        config.client.min_rate = 1000;
        config.max_retries = 0;
    });
    let peer = downloader.register((), Priority::High).unwrap();
    assert_pattern(0, &read_all(&peer, get(&origin, "/response")));
    downloader.set_max_bandwidth(None).unwrap();
    downloader.set_max_bandwidth(512).unwrap();
    let mut stream = downloader.open(&origin.url("/stream")).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, LEN);
    assert_eq!(origin.log().requests.len(), 2, "no request was hedged or repeated");
    assert_eq!(downloader.stats().totals.retries, 0);
}

#[test]
fn the_cap_is_the_bandwidth_that_is_measured() {
    const LEN: u64 = 400_000;
    let origin = serve(LEN);
    let downloader = capped(RATE);
    let (peer, end) = prefetch(&downloader, &origin, "/a");
    end.recv().unwrap().assert_done(0..LEN);
    let origin_url = origin.url("/");
    for rate in [downloader.bandwidth(), peer.bandwidth(), downloader.bandwidth_of(&origin_url)] {
        let rate = rate.expect("enough was transferred");
        // A busy machine may have made it lower, but not nearly as low as one that counts no bytes while the cap holds them back.
        assert!(rate <= RATE as f64 && rate > RATE as f64 / 4.0, "{rate}");
    }
    // The bound is known at once, the bandwidth beyond it is measured.
    downloader.set_max_bandwidth(1000).unwrap();
    assert_eq!(downloader.bandwidth(), Some(1000.0));
}
