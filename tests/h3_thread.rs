//! The thread of HTTP/3 ends with its downloader. In a process of its own, because the threads of the process are counted.
#![cfg(all(target_os = "linux", feature = "http3"))]

#[path = "support/h3/mod.rs"]
mod h3;

use std::fs;

use h3::{Server, data, head, over_http3};
use support::in_time;
use windway::{ClientConfig, Downloader, DownloaderConfig, Fetch, Priority};

/// Threads of this process that receive QUIC packets for windway.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread that ends meanwhile has no name any more.
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim() == "windway-quic").count()
}

#[test]
fn the_thread_begins_with_the_first_connection_and_ends_with_the_downloader() {
    in_time("thread", || {
        let server = Server::start(|_, reply| {
            reply.send(head(&[(":status", "200"), ("content-length", "2")])).unwrap();
            reply.send(data(b"h3")).unwrap();
            reply.finish().unwrap();
        });
        let client = over_http3(ClientConfig::new(), &[&server]);
        let downloader = Downloader::new(DownloaderConfig::new().client(client)).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        assert_eq!(threads(), 0, "nothing was requested yet");
        let response = peer.execute(Fetch::get(&server.url("/")).unwrap()).unwrap();
        assert_eq!(response.bytes(10).unwrap(), b"h3");
        // It gives itself its name, and may not have run yet: the caller of the only request receives itself.
        support::poll_until("the thread", || threads() == 1);
        downloader.stop();
        assert_eq!(threads(), 0, "`stop` waits for the thread");
    });
}
