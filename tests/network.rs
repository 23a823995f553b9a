//! The network changes, swallows and holds back: connections that die in silence, hosts and names that never answer. What
//! waits for them goes on over others, and nothing is left behind.

mod support;

use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use support::content::assert_pattern;
use support::peers::downloader;
use support::{Answer, Content, Origin};
use windway::{Fetch, PeerHandle, Priority};

/// Longer than any test: what has to wait for it hangs.
const NEVER: Duration = Duration::from_secs(3600);

fn get(origin: &Origin, path: &str) -> Fetch {
    Fetch::get(&origin.url(path)).unwrap()
}

fn read_all(peer: &PeerHandle, fetch: Fetch) -> Vec<u8> {
    let mut body = Vec::new();
    std::io::Read::read_to_end(&mut peer.execute(fetch).unwrap(), &mut body).unwrap();
    body
}

/// An address at which nobody accepts and the queue is full: a connect to it hangs.
struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    _first: TcpStream,
}

impl BlackHole {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        Self { address, _listener: listener, _first: TcpStream::connect(address).unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

#[test]
fn idle_connections_are_closed_at_their_age_though_nobody_asks_for_anything() {
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| config.client.max_idle_age = Duration::from_millis(300));
    let peer = downloader.register((), Priority::High).unwrap();
    read_all(&peer, get(&origin, "/a"));
    downloader.warm(&origin.url("/"), 2).unwrap();
    origin.wait_until("its connections", |log| log.connections >= 2);
    origin.wait_until("the end of all", |log| log.open == 0);
    // Served again, by a new one, which ends as well.
    let before = origin.log().connections;
    read_all(&peer, get(&origin, "/a"));
    origin.wait_until("the end of all, once more", |log| log.connections > before && log.open == 0);
}

#[test]
fn what_failed_before_the_network_changed_is_tried_again() {
    let origin = Origin::serving(Content::pattern(1000));
    origin.stop_listening();
    let downloader = downloader(|_| ());
    let _peer = downloader.register((), Priority::High).unwrap();
    downloader.warm(&origin.url("/"), 1).unwrap();
    downloader.settle();
    assert_eq!(downloader.stats().connections_idle, 0);
    origin.listen_again();
    downloader.network_changed();
    origin.wait_until("a connection opened ahead", |log| log.connections == 1);
}

#[test]
fn origins_that_never_accept_hold_up_no_connection_to_others() {
    let holes: Vec<BlackHole> = (0..3).map(|_| BlackHole::new()).collect();
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = downloader(|config| config.client.connect_timeout = NEVER);
    let _peer = downloader.register((), Priority::High).unwrap();
    holes.iter().for_each(|hole| downloader.warm(&hole.url(), 2).unwrap());
    downloader.warm(&origin.url("/"), 1).unwrap();
    origin.wait_until("a connection opened ahead", |log| log.connections == 1);
}

#[test]
fn an_idle_connection_does_not_hold_the_place_of_the_one_that_a_server_would_serve() {
    let content = Content::pattern(50_000_000);
    let origin = Origin::start_for_oldest(move |asked| Answer::file(asked, &content).rate(4_000_000));
    let downloader = downloader(|config| config.max_retries = 3);
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    for seek in [0, 40_000_000, 10_000_000, 30_000_000, 20_000_000, 45_000_000] {
        let mut bytes = vec![0; 100_000];
        stream.seek(SeekFrom::Start(seek)).unwrap();
        stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("at {seek}: {error}"));
        assert_pattern(seek, &bytes);
    }
}
