//! Connections: preconnected, pooled, silently dead, broken; proxies and credentials.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::peers::{At, Calling, List, NEVER, collect, downloader, get, patient_downloader, read_all};
use support::{Answer, Content, Origin, Request, in_time};
use windway::config::{Auth, ReadAhead};
use windway::downloader::Outcome;
use windway::event::{Event, Subscriber};
use windway::{
    ByteRange, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority, RadioConfig,
    Response,
};

#[test]
fn a_preconnected_connection_saves_the_handshake_and_is_replaced() {
    for origin in [
        Origin::serving(Content::pattern(1000)),
        Origin::start_tls(|request| Answer::file(request, &Content::pattern(1000))),
    ] {
        let downloader = downloader(|config| {
            if origin.url("").starts_with("https") {
                config.client.extra_roots.push(origin.root_pem());
            }
        });
        let peer = downloader.register((), Priority::High).unwrap();
        downloader.preconnect(&origin.url("/"), 2).unwrap();
        downloader.await_preconnects();
        assert_eq!(downloader.stats().connections_idle, 2);
        let mut response = peer.execute(get(&origin, "/a")).unwrap();
        assert!(origin.log().requests[0].connection < 2);
        // The connection that serves the request is replaced.
        origin.wait_until("a third connection", |log| log.connections == 3);
        response.read_to_end(&mut Vec::new()).unwrap();
        downloader.await_preconnects();
        let stats = downloader.stats();
        assert!(stats.connections_preconnected >= 2 && stats.connections_idle >= 2, "{stats:?}");
        downloader.stop();
        assert_eq!(downloader.stats().connections_idle, 0);
    }
}

/// Longer than the buffer of a connection: the rest is read from the socket.
const LONG: usize = 1_000_000;

/// Reads in large buffers to the end, or to an error.
fn read_long(response: &mut Response) -> (Vec<u8>, Result<(), Error>) {
    let (mut body, mut buf) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match response.read_chunk(&mut buf) {
            Ok(0) => return (body, Ok(())),
            Ok(got) => body.extend_from_slice(&buf[..got]),
            Err(error) => return (body, Err(error)),
        }
    }
}

fn connections_for_two(handler: impl Fn(&support::Request) -> Answer + Send + Sync + 'static) -> usize {
    let origin = Origin::start(handler);
    let downloader = downloader(|config| config.max_retries = 0);
    let peer = downloader.register((), Priority::High).unwrap();
    for _ in 0..2 {
        let (body, end) = read_long(&mut peer.execute(get(&origin, "/a")).unwrap());
        assert_eq!((body.len(), end.is_ok()), (LONG, true));
        assert_pattern(0, &body);
    }
    origin.log().connections
}

#[test]
fn a_connection_is_reused_after_a_long_body_if_both_sides_keep_it() {
    let long = || Answer::whole(&Content::pattern(LONG as u64));
    assert_eq!(connections_for_two(move |_| long()), 1);
    assert_eq!(connections_for_two(move |_| long().chunked()), 1);
    assert_eq!(connections_for_two(move |_| long().http10().keep_alive_http10()), 1);
    assert_eq!(connections_for_two(move |_| long().http10()), 2);
    assert_eq!(connections_for_two(move |_| long().header("Connection", "close")), 2);
    assert_eq!(connections_for_two(move |_| long().no_length()), 2);
    // Bytes beyond the length belong to no response. They must not be read as the next one.
    assert_eq!(connections_for_two(move |_| long().extra_bytes(100)), 2);
}

/// Answers each request of a connection with the same 100 bytes as a chunked part, in one write.
fn serve_chunked_parts(socket: &TcpStream, end: &str) {
    let fields = "Content-Range: bytes 0-99/1000\r\nTransfer-Encoding: chunked";
    let answer = format!("HTTP/1.1 206 Partial\r\n{fields}\r\n\r\n64\r\n{}{end}", "a".repeat(100));
    let heads = BufReader::new(socket).lines().map_while(Result::ok).filter(String::is_empty);
    // Fails once the client has closed the connection.
    heads.map_while(|_| { socket }.write_all(answer.as_bytes()).ok()).for_each(drop);
}

#[test]
fn a_connection_is_reused_after_a_chunked_part_whose_end_has_arrived() {
    // The second has one byte more than its range, and the end of the third does not come.
    for (end, connections) in [("\r\n0\r\n\r\n", 1), ("\r\n1\r\nb\r\n0\r\n\r\n", 3), ("\r\n", 3)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve_chunked_parts(&socket, end));
            }
        });
        let peer = downloader(|_| ()).register((), Priority::High).unwrap();
        for _ in 0..3 {
            let part = Fetch::get(&url).unwrap().range(ByteRange::new(0, 100));
            assert_eq!(read_all(&peer, part), [b'a'; 100]);
        }
        assert_eq!(accepted.load(Ordering::SeqCst), connections, "{end:?}");
    }
}

#[test]
fn a_content_length_repeated_in_one_field_is_accepted() {
    const LEN: u64 = 1_000_000;
    for (sent, is_whole) in [(LEN, true), (600_000, false)] {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |_| {
            let answer = Answer::whole(&content).header("Content-Length", &format!("{LEN}, {LEN}"));
            if sent == LEN { answer } else { answer.close_after(sent) }
        });
        let peer = downloader(|config| config.max_retries = 0).register((), Priority::High).unwrap();
        let (body, end) = read_long(&mut peer.execute(get(&origin, "/a")).unwrap());
        assert_eq!((body.len() as u64, end.is_ok()), (sent, is_whole));
        assert_pattern(0, &body);
    }
}

#[test]
fn a_long_body_that_falls_silent_or_breaks_ends_with_a_typed_error() {
    let long = || Answer::whole(&Content::pattern(LONG as u64));
    let silent = Origin::start(move |_| long().stall_after(500_000));
    let closed = Origin::start(move |_| long().close_after(500_000));
    let reset = Origin::start(move |_| long().reset_after(500_000));
    let kinds = [ErrorKind::Silent, ErrorKind::Disconnected, ErrorKind::Disconnected];
    for (origin, kind) in [silent, closed, reset].iter().zip(kinds) {
        let downloader = downloader(|config| {
            config.max_retries = 0;
            config.client.silence_timeout = Duration::from_millis(200);
        });
        let peer = downloader.register((), Priority::High).unwrap();
        let (body, end) = read_long(&mut peer.execute(get(origin, "/a")).unwrap());
        assert_eq!(end.unwrap_err().kind(), kind);
        assert_pattern(0, &body);
    }
}

#[test]
fn a_short_body_that_came_with_its_head_holds_no_connection() {
    const WORKERS: usize = 2;
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| config.max_concurrent = WORKERS);
    let peer = downloader.register((), Priority::High).unwrap();
    let responses: Vec<_> = peer.batch((0..20).map(|_| get(&origin, "/a")).collect::<Vec<_>>()).collect();
    assert!(origin.log().connections <= WORKERS, "{}", origin.log().connections);
    for response in responses {
        let mut response = response.unwrap();
        assert_eq!(response.head().body_len(), Some(1000));
        let (mut body, mut part) = (Vec::new(), [0; 300]);
        loop {
            match response.read_chunk(&mut part).unwrap() {
                0 => break,
                got => body.extend_from_slice(&part[..got]),
            }
        }
        assert_eq!(body.len(), 1000);
        assert_pattern(0, &body);
    }
    assert_eq!(downloader.stats().open_bodies, 0);
}

#[test]
fn a_dead_preconnected_connection_is_replaced_without_an_error() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| config.max_retries = 0);
    let peer = downloader.register((), Priority::High).unwrap();
    downloader.preconnect(&origin.url("/"), 1).unwrap();
    downloader.await_preconnects();
    origin.stop_listening();
    origin.wait_until("its end", |log| log.open == 0);
    origin.listen_again();
    assert_eq!(read_all(&peer, get(&origin, "/a")).len(), 1000);
}

#[test]
fn preconnecting_to_a_server_that_is_down_opens_nothing() {
    let origin = Origin::serving(Content::pattern(1000));
    origin.stop_listening();
    let downloader = downloader(|_| ());
    downloader.preconnect(&origin.url("/"), 4).unwrap();
    // Ends the threads that open connections, and waits for them.
    downloader.stop();
    assert_eq!(downloader.stats().connections_idle, 0);
}

#[test]
fn a_file_keeps_one_connection_preconnected_for_seeks() {
    let origin = Origin::serving(Content::pattern(100_000_000));
    let downloader = downloader(|_| ());
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    origin.wait_until("a second connection", |log| log.connections >= 2);
    downloader.await_preconnects();
    for seek in 1..10 {
        let mut bytes = [0; 4096];
        stream.seek(SeekFrom::Start(seek * 10_000_000)).unwrap();
        stream.read_exact(&mut bytes).unwrap();
        assert_pattern(seek * 10_000_000, &bytes);
    }
    assert!(origin.log().connections <= 12, "{}", origin.log().connections);
}

#[test]
fn an_urgent_request_on_a_silently_dead_connection_is_hedged() {
    for tls in [false, true] {
        let content = Content::pattern(1000);
        let handler = move |request: &support::Request| Answer::file(request, &content);
        let origin = if tls { Origin::start_tls(handler) } else { Origin::start(handler) };
        let downloader = patient_downloader(&origin);
        let peer = downloader.register((), Priority::High).unwrap();
        read_all(&peer, get(&origin, "/first"));
        origin.black_hole();
        assert_pattern(0, &read_all(&peer, get(&origin, "/second")));
    }
}

#[test]
fn a_slow_response_head_wins_over_its_hedged_request_if_it_arrives_first() {
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| {
        let answer = Answer::file(request, &content);
        match (request.number, request.connection) {
            (1, _) => answer.latency_until_requests(3),
            (_, 0) => answer,
            _ => answer.latency_until_released(),
        }
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    read_all(&peer, get(&origin, "/first"));
    assert_pattern(0, &read_all(&peer, get(&origin, "/second")));
    assert_eq!(origin.log().requests.len(), 3);
}

#[test]
fn a_connection_is_reused_after_a_304() {
    for length in [None, Some("500000")] {
        let origin = Origin::start(move |_| {
            let answer = Answer::whole(&Content::bytes(Vec::new())).with_status(304);
            // That of the body that is not sent (RFC 9110, section 8.6).
            length.map_or(answer.clone(), |length| answer.header("Content-Length", length))
        });
        let peer = downloader(|_| ()).register((), Priority::High).unwrap();
        for _ in 0..3 {
            let fetch = get(&origin, "/a").if_none_match("\"a\"").unwrap();
            assert_eq!(peer.execute(fetch).unwrap_err().status(), Some(304));
        }
        let log = origin.log();
        assert_eq!((log.connections, log.requests.len()), (1, 3), "{length:?}");
    }
}

/// The server lets other connections wait for as long as one is kept alive.
#[test]
fn a_server_that_serves_one_connection_at_a_time_is_detected() {
    let content = Content::pattern(8_000_000);
    let origin = Origin::start_single_connection(move |request| Answer::file(request, &content));
    let downloader = downloader(|config| config.client.silence_timeout = NEVER);
    let read = |path: &str| {
        let mut bytes = Vec::new();
        downloader.open(&origin.url(path)).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 8_000_000);
        assert_pattern(0, &bytes);
    };
    (0..8).for_each(|file| read(&format!("/{file}")));
    // One that serves, one preconnected, and two that were left waiting, because one alone may be chance. A hedged request may
    // still run when the second is detected.
    let dialled = downloader.stats().connections_dialled;
    assert!(dialled <= 5, "{dialled} connections");
    assert!(origin.log().requests.iter().all(|request| request.connection == 0));
}

/// Lets the downloader learn that `origin` serves one connection at a time.
fn learn_single_connection(downloader: &Downloader, origin: &Origin) {
    for file in 0..8 {
        let mut stream = downloader.open(&origin.url(&format!("/{file}"))).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn an_urgent_fetch_gets_the_connection_of_a_prefetch_from_a_server_that_serves_one() {
    let content = Content::pattern(8_000_000);
    let origin = Origin::start_single_connection(move |request| {
        let answer = Answer::file(request, &content);
        if request.path == "/slow" && request.again == 0 { answer.stall_after(20_000) } else { answer }
    });
    let downloader = downloader(|config| config.client.silence_timeout = NEVER);
    learn_single_connection(&downloader, &origin);
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (sink, end) = collect(0);
    list.put(get(&origin, "/slow"), sink);
    peer.wake(Priority::Low);
    origin.wait_until("the prefetch", |log| log.requests.iter().any(|request| request.path == "/slow"));
    assert_pattern(0, &read_all(&peer, get(&origin, "/urgent")));
    let end = end.recv().unwrap();
    assert!(matches!(end.outcome, Outcome::Done));
    assert_pattern(0, &end.bytes);
}

/// A preempted prefetch keeps its body open. The server answers no other connection before that one is closed.
#[test]
fn an_urgent_fetch_gets_the_connection_of_a_preempted_prefetch_from_a_server_that_serves_one() {
    let (content, endless) = (Content::pattern(8_000_000), Content::endless());
    let single = Origin::start_single_connection(move |request| {
        Answer::file(request, if request.path == "/endless" { &endless } else { &content })
    });
    let [held, other] =
        [(); 2].map(|()| Origin::start(|_| Answer::whole(&Content::pattern(1)).latency_until_released()));
    in_time("the urgent fetch", move || {
        let downloader = downloader(|config| {
            config.client.silence_timeout = NEVER;
            config.max_concurrent = 2;
        });
        learn_single_connection(&downloader, &single);
        let list = List::default();
        let prefetching = downloader.register(list.clone(), Priority::High).unwrap();
        let events = prefetching.subscribe();
        list.put(get(&single, "/endless"), Calling::new(At::Write, |_, _| ()));
        prefetching.wake(Priority::Low);
        // At a chunk: one that waits for its response head is aborted, and has no body to keep.
        await_event(&events, |event| matches!(event, Event::FirstByte { .. }));
        let peer = downloader.register((), Priority::High).unwrap();
        let executes = |origin: &Origin, path: &str| {
            let (peer, fetch) = (peer.clone(), get(origin, path));
            thread::spawn(move || peer.execute(fetch).unwrap().read_to_end(&mut Vec::new()).unwrap())
        };
        let waiting = [executes(&held, "/"), executes(&other, "/")];
        await_event(&events, |event| matches!(event, Event::Preempted { .. }));
        // It gets the worker of a fetch that ends, before the prefetch continues.
        let enqueued = peer.subscribe();
        let urgent = executes(&single, "/urgent");
        await_event(&enqueued, |event| matches!(event, Event::Enqueued { .. }));
        other.release();
        assert_eq!(urgent.join().unwrap(), 8_000_000);
        held.release();
        waiting.into_iter().for_each(|waiting| assert_eq!(waiting.join().unwrap(), 1));
    });
}

fn await_event(events: &Subscriber, wanted: fn(&Event) -> bool) {
    assert!(std::iter::from_fn(|| events.recv()).any(|event| wanted(&event)));
}

/// As when a server restarts: the idle connection is closed, and the new one breaks.
#[test]
fn a_hedged_request_that_finds_no_connection_does_not_change_the_error() {
    let content = Content::pattern(200_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/a" => Answer::file(request, &content).rate(500_000).close_when_idle(),
        _ if request.again == 0 => {
            Answer::file(request, &content).latency(Duration::from_millis(1500)).reset_in_head(0)
        }
        _ => Answer::file(request, &content),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let first = peer.execute(get(&origin, "/a")).unwrap();
    let (other, fetch) = (peer.clone(), get(&origin, "/b"));
    let second = thread::spawn(move || read_all(&other, fetch));
    origin.wait_until("second request", |log| log.requests.len() == 2);
    drop(read_long(&mut { first }));
    assert_pattern(0, &second.join().unwrap());
}

#[test]
fn a_network_change_closes_idle_connections() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = patient_downloader(&origin);
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    read_all(&peer, get(&origin, "/first"));
    origin.black_hole();
    downloader.network_changed();
    assert_eq!(downloader.stats().connections_idle, 0);
    // A prefetch, so it is not hedged.
    let (sink, end) = collect(0);
    list.put(get(&origin, "/second"), sink);
    peer.wake(Priority::Low);
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
}

#[test]
fn an_expired_redirect_target_is_replaced_by_the_original_url() {
    for status in [401, 403, 404, 410] {
        let content = Content::pattern(5_000_000);
        let origin = Origin::start(move |request| match request.path.as_str() {
            "/song" if request.number == 0 => Answer::redirect(302, "/signed1"),
            "/song" => Answer::redirect(302, "/signed2"),
            "/signed1" if request.number > 1 => Answer::status(status),
            _ => Answer::file(request, &content),
        });
        let mut config = FileConfig::default();
        config.headers.push(("X-Key".into(), "7".into()));
        let mut stream = downloader(|_| ()).open_with(&origin.url("/song"), config).unwrap();
        assert_whole(&mut stream, 5_000_000);
        let requests = origin.log().requests;
        assert!(requests.iter().any(|request| request.path == "/signed2"));
        assert!(requests.iter().all(|request| request.header("x-key") == Some("7")));
    }
}

#[test]
fn a_user_and_a_password_in_a_url_are_sent_and_never_shown() {
    let content = Content::pattern(1000);
    let other = Origin::serving(content.clone());
    let elsewhere = other.url("/b");
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/away" => Answer::redirect(302, &elsewhere),
        "/no" => Answer::status(404),
        _ => Answer::file(request, &content),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let url = |path: &str| origin.url(path).replace("http://", "http://me:se%20cret@");
    read_all(&peer, Fetch::get(&url("/a")).unwrap());
    // "me:se cret", in Base64.
    let basic = Some("Basic bWU6c2UgY3JldA==");
    assert_eq!(origin.log().requests[0].header("authorization"), basic);
    read_all(&peer, Fetch::get(&url("/away")).unwrap());
    assert_eq!(origin.log().requests[1].header("authorization"), basic);
    assert_eq!(other.log().requests[0].header("authorization"), None);
    let error = peer.execute(Fetch::get(&url("/no")).unwrap()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("cret"), "{error:?}");
    let error = downloader(|_| ()).open(&url("/no")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("cret"), "{error:?}");
}

#[test]
fn credentials_of_one_origin_are_sent_to_no_other() {
    let content = Content::pattern(1000);
    let other = Origin::serving(content.clone());
    let elsewhere = other.url("/b");
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/away" => Answer::redirect(307, &elsewhere),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader(|config| {
        config.client.auth.push((origin.url("/"), Auth::Bearer("token".into())));
    });
    let peer = downloader.register((), Priority::High).unwrap();
    read_all(&peer, get(&origin, "/away"));
    assert_eq!(origin.log().requests[0].header("authorization"), Some("Bearer token"));
    assert_eq!(other.log().requests[0].header("authorization"), None);
}

/// A proxy for one tunnel after another. Returns its URL. Ends with its last client.
fn proxy() -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let proxy = thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut lines = BufReader::new(client.try_clone().unwrap());
        loop {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let target = head[0].split(' ').nth(1).unwrap().to_owned();
        let mut server = TcpStream::connect(target).unwrap();
        let mut back = client.try_clone().unwrap();
        back.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        let mut answers = server.try_clone().unwrap();
        let down = thread::spawn(move || std::io::copy(&mut answers, &mut back));
        // Either end may close first.
        drop(std::io::copy(&mut lines, &mut server));
        drop(server.shutdown(std::net::Shutdown::Both));
        drop(down.join());
        head
    });
    (url, proxy)
}

#[test]
fn a_configured_proxy_is_used() {
    let origin = Origin::serving(Content::pattern(100_000));
    let (url, proxy) = proxy();
    let downloader = downloader(|config| config.client.proxy = Some(url));
    let peer = downloader.register((), Priority::High).unwrap();
    for _ in 0..3 {
        assert_pattern(0, &read_all(&peer, get(&origin, "/a")));
    }
    drop((peer, downloader));
    let head = proxy.join().unwrap();
    assert_eq!(head[0], format!("CONNECT {} HTTP/1.1", origin.address()));
    assert_eq!(origin.log().connections, 1);
}

#[test]
fn an_invalid_proxy_or_authorization_is_refused_by_name() {
    let fails = |change: fn(&mut windway::DownloaderConfig)| {
        let mut config = windway::DownloaderConfig::default();
        change(&mut config);
        Downloader::new(config).unwrap_err()
    };
    let error = fails(|config| config.client.proxy = Some("socks4://127.0.0.1:1".into()));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("proxy"), "{error}");
    let error = fails(|config| config.client.auth.push(("nowhere".into(), Auth::Bearer("a".into()))));
    assert!(error.to_string().contains("auth"), "{error}");
    let error = fails(|config| {
        config.client.auth.push(("http://host/".into(), Auth::Bearer("two\nlines".into())));
    });
    assert!(error.to_string().contains("auth"), "{error}");
}

#[test]
fn a_body_below_the_minimum_rate_counts_as_silent() {
    let content = Content::pattern(100_000);
    let origin =
        Origin::start(move |request| Answer::file(request, &content).chunks_of(1, Duration::from_millis(10)));
    let downloader = downloader(|config| {
        config.client.min_rate = 10_000;
        config.client.silence_timeout = Duration::from_millis(200);
        config.max_retries = 0;
    });
    let peer = downloader.register((), Priority::High).unwrap();
    let mut response = peer.execute(get(&origin, "/a")).unwrap();
    let error = windway::Error::from(response.read_to_end(&mut Vec::new()).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Silent);
    // The next read returns the same error.
    let again = windway::Error::from(response.read(&mut [0; 10]).unwrap_err());
    assert_eq!(again.kind(), ErrorKind::Silent);
}

#[test]
fn a_body_read_by_its_caller_continues_where_it_broke() {
    for ranges in [true, false] {
        let content = Content::pattern(500_000);
        let origin = Origin::start(move |request| {
            let answer = if ranges { Answer::file(request, &content) } else { Answer::whole(&content) };
            match (ranges, request.number) {
                (true, ..5) => answer.close_after(60_000),
                (false, ..5) => answer.reset_after(60_000 * (request.number as u64 + 1)),
                _ => answer,
            }
        });
        let peer = downloader(|_| ()).register((), Priority::High).unwrap();
        let mut response = peer.execute(get(&origin, "/a").range(ByteRange::from_start(0))).unwrap();
        let mut body = Vec::new();
        response.read_to_end(&mut body).unwrap();
        assert_eq!((body.len(), response.position()), (500_000, 500_000));
        assert_pattern(0, &body);
        assert_eq!(response.head().start(), 0);
        assert_eq!(peer.totals().completed, 1);
    }
}

#[test]
fn parts_of_a_changed_body_are_never_joined() {
    // Another ETag; another date; no validator, but other bytes where the parts overlap.
    for validator in ["ETag", "Last-Modified", "nothing"] {
        let origin = Origin::start(move |request| {
            let old: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
            let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
            let content = Content::bytes(if request.number == 0 { old } else { new });
            let answer = Answer::file(request, &content).without_header("ETag");
            let date = format!("Sun, 0{} Nov 1994 08:49:37 GMT", request.number + 1);
            let answer = match validator {
                "ETag" => answer.header("ETag", &format!("\"{}\"", request.number)),
                "Last-Modified" => answer.header("Last-Modified", &date),
                _ => answer,
            };
            if request.number == 0 { answer.close_after(60_000) } else { answer }
        });
        let peer = downloader(|_| ()).register((), Priority::High).unwrap();
        let mut body = Vec::new();
        let mut response = peer.execute(get(&origin, "/a")).unwrap();
        let error = windway::Error::from(response.read_to_end(&mut body).unwrap_err());
        assert_eq!((error.kind(), body.len()), (ErrorKind::Changed, 60_000), "{validator}");
    }
}

/// As a captive portal sends it.
#[test]
fn an_html_page_in_place_of_the_rest_is_not_a_change() {
    let content = Content::pattern(100_000);
    let page = Content::bytes(b"<html>log in</html>".to_vec());
    let origin = Origin::start(move |request| match request.number {
        0 => Answer::file(request, &content).close_after(60_000),
        _ => Answer::whole(&page).header("Content-Type", "text/html; charset=utf-8"),
    });
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let mut body = Vec::new();
    let mut response = peer.execute(get(&origin, "/a")).unwrap();
    let error = windway::Error::from(response.read_to_end(&mut body).unwrap_err());
    assert_eq!((error.kind(), body.len()), (ErrorKind::NotMedia, 60_000));
}

#[test]
fn pieces_of_a_file_without_a_validator_are_compared_where_they_overlap() {
    let origin = Origin::start(|request| {
        let old: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
        let content = Content::bytes(if request.number == 0 { old } else { new });
        Answer::file(request, &content).without_header("ETag").header("Content-Type", "audio/flac")
    });
    let mut stream = downloader(|_| ()).open(&origin.url("/a")).unwrap();
    let mut body = Vec::new();
    let error = windway::Error::from(stream.read_to_end(&mut body).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(body.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
}

#[test]
fn a_gap_of_a_file_without_a_validator_is_compared_with_what_is_stored_behind_it() {
    let is_new = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let is_new = Arc::clone(&is_new);
        move |request| {
            let byte = if is_new.load(Ordering::SeqCst) { 2 } else { 1 };
            Answer::file(request, &Content::bytes(vec![byte; 2_000_000])).without_header("ETag")
        }
    });
    let config = FileConfig::new().read_ahead(ReadAhead::Bytes(1));
    let mut stream = downloader(|_| ()).open_with(&origin.url("/a"), config).unwrap();
    stream.seek(SeekFrom::Start(1_200_000)).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    is_new.store(true, Ordering::SeqCst);
    stream.seek(SeekFrom::Start(1_100_000)).unwrap();
    let mut body = Vec::new();
    let error = windway::Error::from(stream.read_to_end(&mut body).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(body.iter().all(|byte| *byte == 2), "bytes of one version only");
}

fn start(is_tls: bool, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Origin {
    if is_tls { Origin::start_tls(handler) } else { Origin::start(handler) }
}

/// Without a silence timeout: a caller that waits for such a body would wait forever.
#[test]
fn a_redirect_or_an_error_whose_body_never_arrives_blocks_no_caller() {
    let slow = |answer: Answer, path: &str| match path.as_bytes()[1] {
        b'n' => answer.stall_after(0),
        b'c' => answer.chunked().stall_after(3),
        _ => answer.chunks_of(1, Duration::from_secs(2)),
    };
    for is_tls in [false, true] {
        let origin = start(is_tls, move |request| match request.path.as_str() {
            "/real" => Answer::file(request, &Content::pattern(50_000)),
            path if path.ends_with("redirect") => slow(Answer::redirect(302, "/real"), path),
            path => slow(Answer::status(404), path),
        });
        let downloader = downloader(|config| {
            config.client.silence_timeout = NEVER;
            if origin.url("").starts_with("https") {
                config.client.extra_roots.push(origin.root_pem());
            }
        });
        let peer = downloader.register((), Priority::High).unwrap();
        let kinds = ["/never", "/chunked", "/dripping"];
        // More fetches than workers.
        let redirects = kinds.iter().cycle().take(20).map(|kind| get(&origin, &format!("{kind}-redirect")));
        let refusals = kinds.iter().cycle().take(20).map(|kind| get(&origin, kind));
        let fetches: Vec<Fetch> = redirects.chain(refusals).collect();
        let answers = in_time("a batch", move || peer.batch(fetches));
        for (number, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(response) => assert_eq!((number < 20, response.head().body_len()), (true, Some(50_000))),
                Err(error) => assert_eq!((number < 20, error.status()), (false, Some(404)), "{error:?}"),
            }
        }
    }
}

#[test]
fn a_connection_is_reused_after_a_redirect_or_an_error_with_a_short_body() {
    let plain: fn(Answer) -> Answer = |answer| answer;
    for framed in [plain, |answer| answer.chunked(), |answer| answer.split_head(20)] {
        let origin = Origin::start(move |request| match request.path.as_str() {
            "/real" => Answer::file(request, &Content::pattern(50_000)),
            "/redirect" => framed(Answer::redirect(302, "/real")),
            _ => framed(Answer::status(404)),
        });
        let peer = downloader(|_| ()).register((), Priority::High).unwrap();
        for _ in 0..3 {
            assert_eq!(read_all(&peer, get(&origin, "/redirect")).len(), 50_000);
            assert_eq!(peer.execute(get(&origin, "/gone")).unwrap_err().status(), Some(404));
        }
        assert_eq!(origin.log().connections, 1);
    }
}

#[test]
fn garbage_on_a_reused_connection_is_retried_on_a_new_one() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n".as_slice();
    let timed_out = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for stray in [&b"stray bytes\r\n\r\n"[..], b"\0", head, timed_out, b"HTTP/1.1 abc\r\n\r\n"] {
        for is_tls in [false, true] {
            let origin = start(is_tls, move |request| match request.on_connection {
                0 => Answer::file(request, &Content::pattern(5_000)),
                _ => Answer::raw(stray),
            });
            let downloader = downloader(|config| {
                config.max_retries = 0;
                if is_tls {
                    config.client.extra_roots.push(origin.root_pem());
                }
            });
            let peer = downloader.register((), Priority::High).unwrap();
            for _ in 0..3 {
                let body = read_all(&peer, get(&origin, "/a"));
                assert_eq!(body.len(), 5_000);
                assert_pattern(0, &body);
            }
            assert_eq!((origin.log().connections, origin.log().requests.len()), (3, 5));
        }
    }
}

/// As if an earlier request of the connection had been answered twice, or so late that another one was sent meanwhile.
#[test]
fn an_answer_to_another_request_on_a_reused_connection_is_retried_on_a_new_one() {
    let whole = || Answer::whole(&Content::pattern(5_000));
    let refusal = |range| Answer::status(416).header("Content-Range", range);
    let part = Some(ByteRange::new(100, 200));
    let cases = [
        (part, whole().partial(0..100)),
        (part, whole().partial(100..300)),
        (part, refusal("bytes */5000")),
        (part, Answer::status(304)),
        // As long as the requested part: it may be that.
        (part, Answer::whole(&Content::pattern(100))),
        (None, whole().partial(0..100)),
        (None, refusal("bytes */50")),
    ];
    for (case, (range, late)) in cases.into_iter().enumerate() {
        for is_tls in [false, true] {
            let late = late.clone();
            let origin = start(is_tls, move |request| match request.on_connection {
                0 => Answer::file(request, &Content::pattern(5_000)),
                _ => late.clone(),
            });
            let downloader = downloader(|config| {
                config.max_retries = 0;
                if is_tls {
                    config.client.extra_roots.push(origin.root_pem());
                }
            });
            let peer = downloader.register((), Priority::High).unwrap();
            let fetch = || match range {
                Some(range) => get(&origin, "/a").range(range),
                None => get(&origin, "/a"),
            };
            for _ in 0..3 {
                let body = read_all(&peer, fetch());
                assert_eq!(body.len() as u64, range.map_or(5_000, |range| range.len()), "{case}");
                assert_pattern(range.map_or(0, |range| range.start), &body);
            }
            let log = origin.log();
            assert_eq!((log.connections, log.requests.len()), (3, 5), "{case}");
        }
    }
}

/// Its length and its first bytes are known by then.
#[test]
fn an_answer_about_another_resource_on_a_reused_connection_does_not_end_a_file() {
    let other = |request: &Request, case| match case {
        0 => Answer::file(request, &Content::pattern(990_000)),
        1 => Answer::whole(&Content::pattern(900)),
        _ => Answer::status(416),
    };
    for case in 0..3 {
        let is_late = |request: &Request| {
            request.on_connection > 0 && request.range().is_some_and(|(start, _)| start > 0)
        };
        let origin = Origin::start(move |request| match is_late(request) {
            true => other(request, case),
            false => Answer::file(request, &Content::pattern(1_000_000)),
        });
        let config = FileConfig::new().read_ahead(ReadAhead::Bytes(1));
        let mut stream = downloader(|_| ()).open_with(&origin.url("/a"), config).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        for at in [900_000, 500_000, 300_000] {
            let mut bytes = [0; 1000];
            stream.seek(SeekFrom::Start(at)).unwrap();
            stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{case}: {error:?}"));
            assert_pattern(at, &bytes);
        }
        assert!(origin.log().requests.iter().any(is_late), "{case}");
    }
}

#[test]
fn garbage_on_a_new_connection_is_an_error_at_once() {
    let origin = Origin::start(|_| Answer::raw(b"stray bytes\r\n\r\n"));
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    assert_eq!(peer.execute(get(&origin, "/a")).unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(origin.log().requests.len(), 1);
}

#[test]
fn bytes_after_a_body_are_never_the_response_to_the_next_request() {
    let mut both = Vec::new();
    Content::pattern(5_000).append(&mut both, 0..5_000);
    both.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nWRONG");
    let len = both.len() as u64;
    let both = Content::bytes(both);
    // The second part arrives with the body, or when the connection is idle.
    for (is_tls, part) in [(false, 10_000), (true, 10_000), (false, 5_000), (true, 5_000)] {
        let both = both.clone();
        let origin = start(is_tls, move |request| match request.number {
            0 => Answer::whole(&both)
                .header("Content-Length", "5000")
                .chunks_of(part, Duration::from_millis(100)),
            _ => Answer::file(request, &Content::pattern(7_000)),
        });
        let downloader = downloader(|config| {
            if origin.url("").starts_with("https") {
                config.client.extra_roots.push(origin.root_pem());
            }
        });
        let peer = downloader.register((), Priority::High).unwrap();
        assert_eq!(read_all(&peer, get(&origin, "/a")).len(), 5_000);
        origin.wait_until("the second part", |log| log.sent == len);
        let body = read_all(&peer, get(&origin, "/b"));
        assert_eq!(body.len(), 7_000);
        assert_pattern(0, &body);
        assert_eq!(origin.log().connections, 2);
    }
}

#[test]
fn the_first_field_of_a_request_is_the_host_of_its_url() {
    let other = Origin::serving(Content::pattern(10));
    let target = other.url("/b");
    let origin = Origin::start(move |_| Answer::redirect(302, &target));
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    assert_eq!(read_all(&peer, get(&origin, "/a")).len(), 10);
    // RFC 9110, section 7.2.
    for origin in [&origin, &other] {
        let host = origin.address().to_string();
        assert_eq!(origin.log().requests[0].headers[0], ("host".to_owned(), host));
    }
}

#[test]
fn a_multipart_body_is_refused() {
    let parts =
        b"--x\r\nContent-Type: audio/flac\r\nContent-Range: bytes 0-9/50000\r\n\r\n0123456789\r\n--x--\r\n";
    for content_type in ["multipart/byteranges; boundary=x", "Multipart/ByteRanges;boundary=x"] {
        for (status, range) in [(206, None), (206, Some("bytes 0-84/50000")), (200, None)] {
            let origin = Origin::start(move |_| {
                let answer = Answer::whole(&Content::bytes(parts.to_vec()))
                    .with_status(status)
                    .header("Content-Type", content_type);
                match range {
                    Some(range) => answer.header("Content-Range", range),
                    None => answer,
                }
            });
            let downloader = downloader(|config| config.max_retries = 0);
            let peer = downloader.register((), Priority::High).unwrap();
            let fetch = get(&origin, "/a").range(ByteRange::new(0, parts.len() as u64));
            let error = peer.execute(fetch).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongRange, "{status}, {range:?}: {error:?}");
            assert!(error.to_string().contains("multipart/byteranges"), "{error}");
            let error = downloader.open(&origin.url("/a")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongRange, "{status}, {range:?}: {error:?}");
        }
    }
}

#[test]
fn headers_that_windway_sets_itself_are_refused_by_name() {
    let downloader = downloader(|_| ());
    for name in [
        "Range",
        "If-Range",
        "Host",
        "Accept-Encoding",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "TE",
        "Upgrade",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Expect",
        "Trailer",
        "If-None-Match",
        "If-Modified-Since",
        "HTTP2-Settings",
    ] {
        for name in [name.to_owned(), name.to_ascii_lowercase()] {
            let says_so = |kind: ErrorKind, error: Error| {
                assert_eq!(error.kind(), kind, "{name}");
                let text = error.to_string().to_ascii_lowercase();
                assert!(text.contains(&name.to_ascii_lowercase()), "{error}");
            };
            let headers = || vec![(name.clone(), "1".to_owned())];
            let fetch = Fetch::get("http://127.0.0.1/").unwrap();
            says_so(ErrorKind::InvalidInput, fetch.header(&name, "1").unwrap_err());
            let mut config = FileConfig::default();
            config.headers = headers();
            let error = downloader.open_with("http://127.0.0.1/", config).unwrap_err();
            says_so(ErrorKind::InvalidConfig, error);
            let mut config = RadioConfig::default();
            config.headers = headers();
            says_so(
                ErrorKind::InvalidConfig,
                downloader.open_radio("http://127.0.0.1/", config).unwrap_err(),
            );
            let mut config = DownloaderConfig::default();
            config.client.default_headers = headers();
            says_so(ErrorKind::InvalidConfig, Downloader::new(config).unwrap_err());
        }
    }
    // All other fields are sent.
    for name in
        ["Accept", "Authorization", "Cookie", "Referer", "Origin", "User-Agent", "X-Token", "If-Match"]
    {
        assert!(Fetch::get("http://127.0.0.1/").unwrap().header(name, "1").is_ok(), "{name}");
    }
}

/// RFC 9110, section 15.2, and RFC 9112, section 5.2.
#[test]
fn interim_responses_and_folded_headers_are_understood() {
    let interim = "HTTP/1.1 100 Continue\r\nServer: x\r\nX-Note: a\r\n\t folded\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>;\r\n rel=preload\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nX-Folded: one\r\n  two\r\n\tthree\r\nX-Next: \r\n \r\n four\r\nContent-Length: 10\r\n\r\n\
        \r\n\r\n 23456";
    let lone = answer.replace("\r\n", "\n").replace("\n\n\n\n 23456", "\n\n0123456789");
    for (before, answer) in [
        ("", answer),
        (interim, answer),
        (hints, answer),
        (&[interim, hints, interim, "HTTP/1.1 102 Processing\r\n\r\n"].concat(), answer),
        (&interim.replace("\r\n", "\n"), &lone),
    ] {
        let bytes = [before, answer].concat();
        let body = bytes[bytes.len() - 10..].to_owned();
        for slice in [1, 7, 1 << 20] {
            for is_tls in [false, true] {
                let bytes = bytes.clone();
                let origin = start(is_tls, move |_| {
                    Answer::raw(bytes.as_bytes()).chunks_of(slice, Duration::from_micros(1))
                });
                let downloader = downloader(|config| {
                    config.max_retries = 0;
                    if origin.url("").starts_with("https") {
                        config.client.extra_roots.push(origin.root_pem());
                    }
                });
                let peer = downloader.register((), Priority::High).unwrap();
                let mut response = peer.execute(get(&origin, "/a")).unwrap();
                let folded = response.head().header("x-folded").unwrap();
                assert_eq!(folded.split_ascii_whitespace().collect::<Vec<_>>(), ["one", "two", "three"]);
                assert_eq!(response.head().header("x-next").map(str::trim), Some("four"));
                let mut got = Vec::new();
                response.read_to_end(&mut got).unwrap();
                assert_eq!(got, body.as_bytes());
            }
        }
    }
}
