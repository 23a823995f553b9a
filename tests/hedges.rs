//! Hedged requests of many requests at once: their budget.

use std::thread;
use std::time::Duration;

use support::content::assert_pattern;
use support::peers::{downloader, get, read_all};
use support::{Answer, Content, Origin};
use windway::{Downloader, Priority};

/// Requests that wait at once, each for a blocked reader.
const WAITING: usize = 32;
/// Maximum number of hedged requests: eight, and what the budget earns in the time of a test, also on a busy machine.
const MOST_HEDGES: usize = WAITING / 2;

fn wide_downloader() -> Downloader {
    downloader(|config| {
        config.max_concurrent = 2 * WAITING;
        config.peer_capacity = 2 * WAITING;
        config.client.silence_timeout = support::peers::NEVER;
        config.max_retries = 0;
    })
}

/// Sends `WAITING` urgent requests at once and reads their bodies.
fn read_at_once(downloader: &Downloader, origin: &Origin, path: &str) {
    let peer = downloader.register((), Priority::High).unwrap();
    thread::scope(|scope| {
        for _ in 0..WAITING {
            scope.spawn(|| assert_pattern(0, &read_all(&peer, get(origin, path))));
        }
    });
}

#[test]
fn many_requests_to_a_slow_server_are_not_all_sent_again() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| {
        // Longer than the shortest delay of a hedged request.
        Answer::file(request, &content).latency(Duration::from_millis(1800))
    });
    read_at_once(&wide_downloader(), &origin, "/a");
    let sent = origin.log().requests.len();
    assert!(sent <= WAITING + MOST_HEDGES, "{sent} requests");
}

/// A server whose bodies fall silent for longer than the delay of a hedged request.
fn silent_bodies() -> Origin {
    let content = Content::pattern(1_000_000);
    Origin::start(move |request| {
        let is_rest = request.header("range").is_some();
        let answer = Answer::file(request, &content);
        if is_rest {
            answer.latency_until_released()
        } else {
            answer.chunks_of(600_000, Duration::from_millis(1800))
        }
    })
}

#[test]
fn many_bodies_that_fall_silent_are_not_all_requested_again() {
    let origin = silent_bodies();
    read_at_once(&wide_downloader(), &origin, "/a");
    let sent = origin.log().requests.len();
    assert!(sent <= WAITING + MOST_HEDGES, "{sent} requests");
}

/// As on a link that is slower than the media, where TCP repairs losses behind a full queue.
#[test]
fn a_body_whose_connection_goes_on_after_each_silence_gets_fewer_hedged_requests() {
    let content = Content::pattern(300_000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match request.header("range") {
            Some(_) => answer.latency_until_released(),
            // Two silences, each longer than the delay of a hedged request, and shorter than twice that.
            None => answer.chunks_of(100_000, Duration::from_millis(1500)),
        }
    });
    let peer = wide_downloader().register((), Priority::High).unwrap();
    assert_pattern(0, &read_all(&peer, get(&origin, "/a")));
    assert_eq!(origin.log().requests.len(), 2, "the request, and one hedged request in the first silence");
}

/// As podcasts, whose feeds name hosts that count downloads and redirect to one network of servers.
#[test]
fn the_silent_bodies_of_a_server_have_one_budget_wherever_their_redirects_begin() {
    let origin = silent_bodies();
    let target = origin.url("/a");
    let redirecting = || {
        let target = target.clone();
        Origin::start(move |_| Answer::redirect(302, &target))
    };
    let redirecting: Vec<_> = (0..8).map(|_| redirecting()).collect();
    let peer = wide_downloader().register((), Priority::High).unwrap();
    thread::scope(|scope| {
        for index in 0..WAITING {
            let (peer, from) = (&peer, &redirecting[index % redirecting.len()]);
            scope.spawn(move || assert_pattern(0, &read_all(peer, get(from, "/"))));
        }
    });
    let sent = origin.log().requests.len();
    assert!(sent <= WAITING + MOST_HEDGES, "{sent} requests");
}

#[test]
fn many_requests_on_dead_connections_are_all_sent_again() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| {
        let is_first = request.path == "/first";
        // All at once, so that each gets a connection of its own.
        let latency = Duration::from_millis(if is_first { 300 } else { 0 });
        Answer::file(request, &content).latency(latency)
    });
    let downloader = wide_downloader();
    read_at_once(&downloader, &origin, "/first");
    origin.black_hole();
    read_at_once(&downloader, &origin, "/second");
}
