//! Connections over HTTP/3 as a pool: what is ready, what is in use, and what is kept for urgent fetches.
#![cfg(feature = "http3")]

#[path = "support/h3/mod.rs"]
mod h3;

use std::sync::{Arc, Condvar, Mutex};

use h3::{Options, Reply, Server, data, head, over_http3};
use quinn_proto::{TransportConfig, VarInt};
use support::in_time;
use support::peers::{List, collect};
use windway::downloader::Outcome;
use windway::event::Event;
use windway::{ClientConfig, Downloader, DownloaderConfig, Fetch, Priority};

/// A gate that opens once.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

/// A server that allows `streams` requests at a time. Its answers to `/low` wait for the gate.
fn serve(streams: u32) -> (Server, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let own = Arc::clone(&gate);
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(streams));
    let options = Options { transport, ..Options::default() };
    let server = Server::start_with(options, move |request, reply: Reply| {
        // The client may be gone.
        let _ = reply.send(head(&[(":status", "200"), ("content-length", "2")]));
        if request.path() == "/low" {
            own.pass();
        }
        let _ = reply.send(data(b"ok"));
        let _ = reply.finish();
    });
    (server, gate)
}

fn downloader(server: &Server) -> Downloader {
    let mut config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), &[server]));
    (config.max_concurrent, config.max_per_origin) = (8, 8);
    Downloader::new(config).unwrap()
}

/// Prefetches `/low` so many times on a server that allows so many streams, and reads another file meanwhile. Returns how many
/// requests the server had by then.
fn read_beside_prefetches(prefetches: usize, streams: u32) -> usize {
    let (server, gate) = serve(streams);
    let downloader = downloader(&server);
    let events = downloader.subscribe();
    let list = List::default();
    let mut ends = Vec::new();
    for _ in 0..prefetches {
        let (sink, end) = collect(0);
        list.put(Fetch::get(&server.url("/low")).unwrap(), sink);
        ends.push(end);
    }
    let low = downloader.register(list, Priority::Low).unwrap();
    low.wake(Priority::Low);
    let mut started = 0;
    while started < prefetches {
        started += usize::from(matches!(events.recv(), Some(Event::Started { .. })));
    }
    server.wait_until("prefetch", |server| server.requests() > 0);
    let high = downloader.register((), Priority::High).unwrap();
    let response = high.execute(Fetch::get(&server.url("/high")).unwrap()).unwrap();
    assert_eq!(response.bytes(10).unwrap(), b"ok");
    let requests = server.requests();
    let stats = downloader.stats().http3;
    assert_eq!(stats.connections_ready, 1, "{stats:?}");
    assert!(stats.streams_in_use >= 1, "{stats:?}");
    assert!(stats.streams_in_use + stats.stream_credit <= streams as usize + 1, "{stats:?}");
    gate.open();
    for end in ends {
        assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    }
    assert_eq!((server.connections(), server.requests()), (1, prefetches + 1));
    requests
}

#[test]
fn an_urgent_fetch_gets_a_stream_that_prefetches_leave() {
    // Of five streams the prefetches get three; the other three of them wait.
    let requests = in_time("reserve", || read_beside_prefetches(6, 5));
    assert!(requests <= 4, "{requests} requests");
}

#[test]
fn prefetches_run_where_the_server_allows_fewer_streams_than_the_reserve() {
    let requests = in_time("few streams", || read_beside_prefetches(4, 2));
    assert_eq!(requests, 2);
}

#[test]
fn idle_connections_have_a_limit_over_all_origins() {
    in_time("idle connections", || {
        let servers: Vec<Server> = (0..5).map(|_| serve(100).0).collect();
        let mut client = over_http3(ClientConfig::new(), &servers.iter().collect::<Vec<_>>());
        client.max_idle = 2;
        let downloader = Downloader::new(DownloaderConfig::new().client(client)).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        let get = |server: &Server| {
            let response = peer.execute(Fetch::get(&server.url("/")).unwrap()).unwrap();
            assert_eq!(response.bytes(10).unwrap(), b"ok");
        };
        servers.iter().for_each(get);
        for closed in &servers[..3] {
            closed.wait_until("end of the connection", |server| server.lost() == 1);
        }
        assert_eq!(downloader.stats().connections_idle, 2);
        // The last ones are used again, and those before are opened again.
        servers[3..].iter().chain(&servers[..1]).for_each(get);
        let connections: Vec<usize> = servers.iter().map(Server::connections).collect();
        assert_eq!(connections, [2, 1, 1, 1, 1]);
    });
}
