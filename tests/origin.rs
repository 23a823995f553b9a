//! The scripted server misbehaves exactly as configured, byte for byte. The other tests depend on that.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{Answer, Content, Origin, Request};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: origin\r\n\r\n";

fn ask(origin: &Origin) -> TcpStream {
    let mut socket = TcpStream::connect(origin.address()).unwrap();
    socket.write_all(REQUEST).unwrap();
    socket
}

/// All bytes until the connection ends, and the error that ended it.
fn rest(mut socket: TcpStream) -> (String, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).err().map(|error| error.kind());
    (String::from_utf8(bytes).unwrap(), end)
}

fn answered_with(answer: Answer) -> (String, Option<ErrorKind>) {
    let origin = Origin::start(move |_| answer.clone());
    rest(ask(&origin))
}

fn digits() -> Answer {
    Answer::whole(&Content::bytes(*b"0123456789"))
}

const HEAD: &str = "HTTP/1.1 200 whatever\r\nContent-Length: 10\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 whatever\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_response_head_is_closed_or_reset_at_any_byte() {
    assert_eq!(answered_with(digits().close_in_head(12)), ("HTTP/1.1 200".into(), None));
    assert_eq!(answered_with(digits().close_in_head(0)), (String::new(), None));
    let reset = Some(ErrorKind::ConnectionReset);
    assert_eq!(answered_with(digits().reset_in_head(12)), ("HTTP/1.1 200".into(), reset));
    assert_eq!(answered_with(digits().reset_after(3)), (format!("{HEAD}012"), reset));
}

#[test]
fn a_stalled_response_head_continues_when_it_is_released() {
    let origin = Origin::start(|_| digits().stall_in_head(12));
    let mut socket = ask(&origin);
    let mut bytes = [0; 12];
    socket.read_exact(&mut bytes).unwrap();
    origin.release();
    assert_eq!(rest(socket), (HEAD[12..].to_owned() + "0123456789", None));
}

#[test]
fn a_split_response_head_is_sent_in_two_segments() {
    let origin = Origin::start(|_| digits().split_head(2).icy().close_when_idle());
    assert_eq!(rest(ask(&origin)).0, "ICY 200 OK\r\nContent-Length: 10\r\n\r\n0123456789");
    // A late reader gets both segments at once.
    assert!((0..100).any(|_| ask(&origin).read(&mut [0; 100]).unwrap() == 2));
}

#[test]
fn chunks_are_paced_end_with_trailers_and_can_be_cut() {
    let few = digits().chunks_of(4, Duration::from_millis(1)).close_when_idle();
    let whole = few.clone().trailers(&[("X-Sum", "45"), ("X-End", "")]);
    let expected = format!("{CHUNKED}4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\nX-Sum: 45\r\nX-End: \r\n\r\n");
    assert_eq!(answered_with(whole), (expected, None));
    let cut = few.clone().cut_chunk_after(5);
    assert_eq!(answered_with(cut), (format!("{CHUNKED}4\r\n0123\r\n2\r\n4"), None));
    assert_eq!(answered_with(few.cut_chunk_after(0)), (format!("{CHUNKED}1\r\n"), None));
}

#[test]
fn bytes_beyond_the_content_length_are_sent() {
    let more = digits().extra_bytes(3).close_when_idle();
    assert_eq!(answered_with(more.clone()), (format!("{HEAD}0123456789xxx"), None));
    assert_eq!(answered_with(more.chunked()), (format!("{CHUNKED}a\r\n0123456789\r\n0\r\n\r\nxxx"), None));
}

#[test]
fn a_chunk_beyond_the_range_is_sent() {
    let more = digits().extra_chunk(3).close_when_idle();
    let expected = format!("{CHUNKED}a\r\n0123456789\r\n3\r\nxxx\r\n0\r\n\r\n");
    assert_eq!(answered_with(more), (expected, None));
}

#[test]
fn raw_bytes_are_sent_unchanged_at_any_speed() {
    assert_eq!(answered_with(Answer::raw("no head")), ("no head".into(), None));
    let slow = Answer::raw("no head").chunks_of(2, Duration::from_millis(1));
    assert_eq!(answered_with(slow), ("no head".into(), None));
}

#[test]
fn an_invalid_range_is_ignored() {
    let range_of = |range: &str| {
        let headers = vec![("range".into(), range.into())];
        let path = String::new();
        let method = String::new();
        Request { connection: 0, on_connection: 0, number: 0, again: 0, method, path, headers }.range()
    };
    assert_eq!(range_of("bytes=5-9"), Some((5, Some(9))));
    assert_eq!(range_of("bytes=5-"), Some((5, None)));
    for senseless in ["bytes=9-5", "bytes=a-5", "items=5-9", "5-9"] {
        assert_eq!(range_of(senseless), None, "{senseless}");
    }
}

#[test]
fn interim_responses_are_sent_before_the_response_head() {
    let (text, _) = answered_with(digits().interim(100).interim(103).close_when_idle());
    let statuses: Vec<_> = text.split("\r\n").filter(|line| line.starts_with("HTTP/")).collect();
    assert_eq!(statuses, ["HTTP/1.1 100 whatever", "HTTP/1.1 103 Early Hints", "HTTP/1.1 200 whatever"]);
}

#[test]
fn a_kept_connection_of_http_1_0_serves_another_request() {
    let origin = Origin::start(|request| {
        let answer = digits().keep_alive_http10();
        if request.on_connection == 0 { answer } else { answer.close_when_idle() }
    });
    let mut socket = ask(&origin);
    socket.write_all(REQUEST).unwrap();
    let answer = "HTTP/1.0 200 whatever\r\nConnection: keep-alive\r\nContent-Length: 10\r\n\r\n0123456789";
    assert_eq!(rest(socket), (answer.repeat(2), None));
}

#[test]
fn connections_in_the_black_hole_get_nothing_and_new_connections_work() {
    let origin = Origin::start(|request| match request.connection {
        0 => digits().stall_after(5),
        _ => digits().close_when_idle(),
    });
    let silent = ask(&origin);
    let idle = TcpStream::connect(origin.address()).unwrap();
    origin.wait_until("both connections", |log| log.connections == 2 && log.sent == 5);
    origin.black_hole();
    origin.release();
    (&idle).write_all(REQUEST).unwrap();
    assert_eq!(rest(ask(&origin)), (format!("{HEAD}0123456789"), None));
    origin.wait_until("closed connection", |log| log.open == 2);
    drop(origin);
    assert_eq!(rest(silent).0, format!("{HEAD}01234"));
    assert_eq!(rest(idle).0, "");
}
