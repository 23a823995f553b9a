//! Requests that begin, end and are cancelled at random on one connection of HTTP/3, so that its socket passes from one thread to
//! another all the time: the caller of the only request receives itself, and the thread of HTTP/3 does it for several.
//!
//! `WINDWAY_SEED` repeats a run, `WINDWAY_SECONDS` makes it longer.
#![cfg(feature = "http3")]

#[path = "support/h3/mod.rs"]
mod h3;

use std::io::Read;
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use h3::{Gone, Relay, Reply, Request, Server, data, frame, head};
use support::Content;
use support::content::assert_pattern;
use support::dice::Dice;
use windway::config::Http3;
use windway::downloader::{Epoch, PeerHandle};
use windway::{ByteRange, ClientConfig, Downloader, DownloaderConfig, Error, Fetch, Priority};

const LEN: u64 = 3_000_000;

/// Time after which a round counts as one that hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// What the server does wrong, in permille of the requests.
#[derive(Clone, Copy, Debug)]
struct Faults {
    resets: u64,
    closes: u64,
    goaways: u64,
}

/// A number below one of `limits`.
fn one_of<const LIMITS: usize>(dice: &mut Dice, limits: [u64; LIMITS]) -> u64 {
    let limit = limits[dice.roll(LIMITS as u64) as usize];
    dice.roll(limit)
}

/// The bytes that `request` asks for.
fn range(request: &Request) -> (u64, u64) {
    let bounds = request.field("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = bounds.expect("each request has a range");
    (first.parse().expect("a number"), last.parse().map_or(LEN, |last: u64| last + 1))
}

fn answer(request: &Request, reply: &Reply, dice: &mut Dice, faults: Faults) -> Result<(), Gone> {
    let (mut at, end) = range(request);
    let (content_range, len) = (format!("bytes {at}-{}/{LEN}", end - 1), (end - at).to_string());
    if dice.roll(1000) < faults.goaways {
        // RFC 9114, section 5.2: all requests so far are processed, later ones are not.
        let mut goaway = Vec::new();
        frame::put_frame(&mut goaway, frame::GOAWAY, &[0xd0, 0, 0, 0, 0, 0, 0, 0]);
        reply.control(goaway)?;
    }
    let mut fields = vec![(":status", "206"), ("content-range", content_range.as_str()), ("etag", "\"1\"")];
    // Without it only the end of the stream ends the body.
    if dice.roll(4) > 0 {
        fields.push(("content-length", &len));
    }
    let mut bytes = head(&fields);
    let (resets_at, closes_at) = (dice.roll(1000), dice.roll(1000));
    let breaks_at = at + dice.roll(end - at);
    while at < end {
        let until = (at + 1 + one_of(dice, [10, 2_000, 100_000])).min(end);
        let mut piece = Vec::new();
        Content::pattern(LEN).append(&mut piece, at..until);
        bytes.extend(data(&piece));
        if dice.roll(5) == 0 {
            frame::put_frame(&mut bytes, 0x21 + 0x1f * dice.roll(9), &[0; 9]);
        }
        at = until;
        // In two parts, anywhere.
        let rest = bytes.split_off(dice.roll(bytes.len() as u64 + 1) as usize);
        reply.send(std::mem::replace(&mut bytes, rest))?;
        if at > breaks_at && resets_at < faults.resets {
            return reply.reset(0x102);
        }
        if at > breaks_at && closes_at < faults.closes {
            return if dice.roll(2) == 0 { reply.close_connection(0x100) } else { reply.forget_connection() };
        }
    }
    reply.send(bytes)?;
    reply.finish()
}

/// One request: read whole, in part, or until another thread cancels it.
fn request(
    peer: &PeerHandle,
    url: &str,
    dice: &mut Dice,
    cancels: &mpsc::Sender<Epoch>,
) -> Result<u64, Error> {
    let start = dice.roll(LEN - 1);
    let end = (start + 1 + one_of(dice, [100, 10_000, 1_000_000])).min(LEN);
    let epoch = peer.epoch();
    let fetch = Fetch::get(url)?.range(ByteRange::new(start, end)).epoch(&epoch);
    if dice.roll(4) == 0 {
        cancels.send(epoch).expect("the canceller lives as long");
    }
    let mut response = peer.execute(fetch)?;
    let most = if dice.roll(3) == 0 { dice.roll(end - start) } else { u64::MAX };
    let (mut at, mut buf) = (start, vec![0; 1 + dice.roll(60_000) as usize]);
    while at - start < most {
        let got = response.read(&mut buf)? as u64;
        assert_pattern(at, &buf[..got as usize]);
        at += got;
        if got == 0 {
            assert_eq!(at, end, "a body that ends elsewhere");
            break;
        }
        // A reader that leaves the socket to others.
        (0..dice.roll(20)).for_each(|_| thread::yield_now());
    }
    Ok(at - start)
}

fn downloader(server: &Server, relay: &Relay) -> Downloader {
    let client = ClientConfig::new().extra_roots([server.root_pem()]);
    let mut config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![relay.url("/")])));
    (config.max_retries, config.max_concurrent, config.max_per_origin) = (20, 64, 64);
    (config.peer_capacity, config.max_open_bodies) = (64, 64);
    Downloader::new(config).unwrap()
}

/// Some phases, each with another number of threads that request at once.
fn round(seed: u64, faults: Faults, until: Instant) -> u64 {
    let mut dice = Dice(seed);
    let shared = Mutex::new(Dice(seed ^ 1));
    let server = Server::start(move |request, reply| {
        let mut dice = Dice(shared.lock().unwrap().roll(u64::MAX));
        // The client may be gone.
        let _ = answer(&request, &reply, &mut dice, faults);
    });
    let relay = Relay::start(server.address());
    let downloader = downloader(&server, &relay);
    let mut bytes = 0;
    while Instant::now() < until {
        relay.set_loss([0, 0, 10, 50][dice.roll(4) as usize]);
        relay.set_disorder([0, 0, 20, 100][dice.roll(4) as usize]);
        if dice.roll(4) == 0 {
            relay.change_address();
        }
        let threads = [1, 1, 2, 2, 3, 8, 32][dice.roll(7) as usize];
        let (cancels, cancelled) = mpsc::channel::<Epoch>();
        let (start, url) = (Barrier::new(threads), relay.url("/"));
        thread::scope(|scope| {
            let readers: Vec<_> = (0..threads)
                .map(|_| {
                    let (mut dice, cancels) = (Dice(dice.roll(u64::MAX)), cancels.clone());
                    let (downloader, start, url) = (&downloader, &start, &url);
                    scope.spawn(move || {
                        let peer = downloader.register((), Priority::High).unwrap();
                        start.wait();
                        let results = (0..dice.roll(30)).map(|_| request(&peer, url, &mut dice, &cancels));
                        results
                            .map(|result| match result {
                                Err(error) if error.is_cancelled() => 0,
                                result => result.expect("bytes, or a cancel"),
                            })
                            .sum::<u64>()
                    })
                })
                .collect();
            drop(cancels);
            let mut dice = Dice(dice.roll(u64::MAX));
            scope.spawn(move || {
                for epoch in cancelled {
                    (0..dice.roll(2000)).for_each(|_| thread::yield_now());
                    epoch.cancel();
                }
            });
            bytes += readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>();
        });
    }
    // Nothing is left open.
    support::poll_until("free streams", || downloader.stats().http3.streams_in_use == 0);
    downloader.stop();
    bytes
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn soak(name: &str, faults: Faults) {
    let seed = number("WINDWAY_SEED", u64::from(std::process::id()));
    let time = Duration::from_secs(number("WINDWAY_SECONDS", 2));
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(round(seed, faults, Instant::now() + time)));
    let bytes = result.recv_timeout(time + LIMIT);
    let bytes = bytes.unwrap_or_else(|error| panic!("{name}, WINDWAY_SEED={seed}: {error}"));
    println!("{name}, WINDWAY_SEED={seed}: {bytes} bytes");
}

#[test]
fn a_socket_that_passes_from_thread_to_thread_loses_no_byte() {
    soak("good server", Faults { resets: 0, closes: 0, goaways: 0 });
}

#[test]
fn a_server_that_breaks_streams_and_connections_costs_no_byte() {
    soak("bad server", Faults { resets: 60, closes: 15, goaways: 15 });
}

#[test]
fn a_stop_ends_requests_in_each_state() {
    let seed = number("WINDWAY_SEED", u64::from(std::process::id()));
    support::in_time(&format!("stops, WINDWAY_SEED={seed}"), move || {
        let mut dice = Dice(seed);
        for _ in 0..20 * number("WINDWAY_SECONDS", 2) {
            // Silent before the head, within the body, or never.
            let server = Server::start(move |request, reply| {
                let silence = request.path().len() as u64 % 3;
                if silence > 0 {
                    let _ = reply.send(
                        [head(&[(":status", "206"), ("content-range", "bytes 0-9/10")]), data(b"first")]
                            .concat(),
                    );
                }
                if silence > 1 {
                    let _ = reply.send_last(data(b"other"));
                }
                reply.await_stop();
            });
            let relay = Relay::start(server.address());
            let downloader = downloader(&server, &relay);
            thread::scope(|scope| {
                for _ in 0..1 + dice.roll(6) {
                    let (mut dice, downloader, relay) = (Dice(dice.roll(u64::MAX)), &downloader, &relay);
                    scope.spawn(move || {
                        let request = |path: &str| {
                            let peer = downloader.register((), Priority::High)?;
                            let fetch = Fetch::get(&relay.url(path))?.range(ByteRange::new(0, 10));
                            std::io::copy(&mut peer.execute(fetch)?, &mut std::io::sink())?;
                            Ok::<(), Error>(())
                        };
                        // Until the downloader is stopped.
                        while request(["/", "/1", "/22"][dice.roll(3) as usize]).is_ok() {}
                    });
                }
                (0..dice.roll(3000)).for_each(|_| thread::yield_now());
                downloader.stop();
            });
        }
    });
}
