//! The link in front of the scripted origin: its arithmetic in virtual time, and a relay that is never faster.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::content::assert_pattern;
use support::link::{Bottleneck, INITIAL_WINDOW, Link, LinkConfig, SEGMENT, SlowStart, transfer_time};
use support::{Content, Origin};

const RTT: Duration = Duration::from_millis(40);
const MIB: u64 = 1 << 20;

#[test]
fn a_window_doubles_each_round_trip() {
    let unlimited = LinkConfig::with_rtt(RTT);
    let trips = |bytes| transfer_time(unlimited, bytes).div_duration_f64(RTT);
    // 10, 30, 70 segments are sent in one, two, three flights.
    for (flights, segments) in [(1.0, 1), (2.0, 3), (3.0, 7), (4.0, 15), (8.0, 255)] {
        assert_eq!(trips(segments * INITIAL_WINDOW), flights - 0.5, "{segments} windows");
        assert_eq!(
            trips(segments * INITIAL_WINDOW + 1),
            flights + 0.5,
            "a byte more than {segments} windows"
        );
    }
}

#[test]
fn a_long_transfer_takes_its_slow_start_and_its_bytes_at_the_rate() {
    for mbit in [10.0, 100.0, 1000.0] {
        for rtt in [10, 40, 100].map(Duration::from_millis) {
            let config = LinkConfig::with_rate(rtt, mbit);
            let time = transfer_time(config, 64 * MIB);
            let least = Duration::from_secs_f64((64 * MIB) as f64 / config.rate) + rtt / 2;
            // The window grows to the 8,600 segments of 1000 Mbit/s and 100 ms in ten round trips.
            assert!(time >= least && time <= least + 10 * rtt, "{mbit} Mbit/s, {rtt:?}: {time:?}");
        }
    }
}

#[test]
fn a_full_queue_ends_slow_start() {
    let config = LinkConfig::with_rate(RTT, 10.0);
    let mut bottleneck = Bottleneck::new(config);
    assert_eq!(bottleneck.room_at(INITIAL_WINDOW), Duration::ZERO);
    let left_at = bottleneck.send(config.queue, Duration::ZERO);
    assert!(left_at.abs_diff(RTT) < Duration::from_micros(1), "{left_at:?}");
    let drained = Duration::from_secs_f64(INITIAL_WINDOW as f64 / config.rate);
    let room_at = bottleneck.room_at(INITIAL_WINDOW);
    assert!(room_at.abs_diff(drained) < Duration::from_micros(1), "{room_at:?}");

    let mut window = SlowStart::new(RTT);
    window.handle_sent(INITIAL_WINDOW, Duration::ZERO);
    window.handle_full_queue();
    // From then on it grows by a segment for each window.
    window.handle_acknowledged(INITIAL_WINDOW / 2);
    assert_eq!(window.room(RTT), INITIAL_WINDOW / 2);
    window.handle_acknowledged(INITIAL_WINDOW / 2);
    assert_eq!(window.room(RTT), INITIAL_WINDOW + SEGMENT);
}

#[test]
fn an_unused_window_does_not_grow_and_an_idle_one_shrinks() {
    let mut window = SlowStart::new(RTT);
    let mut now = Duration::ZERO;
    let mut exchange = |window: &mut SlowStart, bytes| {
        window.handle_sent(bytes, now);
        now += RTT;
        window.handle_acknowledged(bytes);
        (window.room(now), now)
    };
    assert_eq!(exchange(&mut window, INITIAL_WINDOW).0, 2 * INITIAL_WINDOW);
    assert_eq!(exchange(&mut window, INITIAL_WINDOW / 2).0, 2 * INITIAL_WINDOW);
    let (room, now) = exchange(&mut window, 2 * INITIAL_WINDOW);
    assert_eq!(room, 4 * INITIAL_WINDOW);
    let timeout = RTT + Duration::from_millis(200);
    assert_eq!(window.room(now - RTT + timeout), 2 * INITIAL_WINDOW);
    assert_eq!(window.room(now + 100 * timeout), INITIAL_WINDOW);
}

#[test]
fn connections_share_the_bottleneck() {
    let config = LinkConfig::with_rate(RTT, 10.0);
    let mut bottleneck = Bottleneck::new(config);
    let second = |bytes: u64| Duration::from_secs_f64(bytes as f64 / config.rate);
    bottleneck.send(10_000, Duration::ZERO);
    // The bytes of the second connection queue behind those of the first. After a pause the queue is empty.
    assert_eq!(bottleneck.send(5_000, Duration::ZERO), second(10_000) + second(5_000));
    assert_eq!(bottleneck.send(5_000, Duration::from_secs(1)), Duration::from_secs(1) + second(5_000));
}

fn get(socket: &mut TcpStream, len: usize) -> Vec<u8> {
    socket.write_all(b"GET /a HTTP/1.1\r\nHost: origin\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let mut buf = [0; 64 * 1024];
    let mut head = None;
    while head.is_none_or(|head| bytes.len() < head + len) {
        let got = socket.read(&mut buf).unwrap();
        assert_ne!(got, 0, "the end came too early");
        bytes.extend_from_slice(&buf[..got]);
        head = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
    }
    bytes.split_off(head.unwrap())
}

#[test]
fn a_relay_is_never_faster_than_its_arithmetic_and_changes_no_byte() {
    let origin = Origin::serving(Content::pattern(MIB));
    let config = LinkConfig::with_rate(RTT, 100.0);
    let link = Link::start(origin.address(), config);
    let began = Instant::now();
    let mut socket = TcpStream::connect(link.address()).unwrap();
    assert_pattern(0, &get(&mut socket, MIB as usize));
    // The handshake's round trip, and half of one for the request.
    assert!(began.elapsed() >= RTT + RTT / 2 + transfer_time(config, MIB));
    // The connection is reused, so there is no second handshake.
    assert_pattern(0, &get(&mut socket, MIB as usize));
    assert_eq!((link.connections(), origin.log().connections), (1, 1));
    assert!(link.delivered() > 2 * MIB);
    drop(socket);
    origin.wait_until("the end of its connection", |log| log.open == 0);
}

#[test]
fn a_relay_that_is_dropped_ends_its_connections() {
    let origin = Origin::serving(Content::pattern(1 << 40));
    let link = Link::start(origin.address(), LinkConfig::with_rate(RTT, 1.0));
    let mut socket = TcpStream::connect(link.address()).unwrap();
    get(&mut socket, 1);
    drop(link);
    drop(socket.read_to_end(&mut Vec::new()));
    origin.wait_until("the end of its connection", |log| log.open == 0);
}
