//! A stream over HTTP/3 can't be distinguished from a file on disk, also over a path that loses packets.
#![cfg(feature = "http3")]

#[path = "support/h3/mod.rs"]
mod h3;

use h3::{Gateway, Relay};
use support::{Answer, Content, Origin, in_time};
use windway::config::{Http3, StorageConfig};
use windway::{ClientConfig, Downloader, DownloaderConfig, FileConfig};

const LEN: u64 = 600_000;

/// Compares random reads and seeks with those of a file, over a path that loses so many packets of each thousand.
fn compare(storage: StorageConfig, loss: u64) {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let gateway = Gateway::start(origin.address());
    let relay = Relay::start(gateway.0.address());
    relay.set_loss(loss);
    let client = ClientConfig::new().extra_roots([gateway.0.root_pem()]);
    let config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![relay.url("/")])));
    let downloader = Downloader::new(config).unwrap();
    let mut config = FileConfig::new();
    config.storage = storage;
    support::steps::compare(LEN, 10, || downloader.open_with(&relay.url("/file"), config.clone()).unwrap());
    assert_eq!(gateway.0.connections(), 1);
}

#[test]
fn a_stream_in_memory_is_indistinguishable_from_a_file() {
    in_time("memory", || compare(StorageConfig::WholeMemory, 0));
}

#[test]
fn a_stream_of_a_window_is_indistinguishable_from_a_file() {
    in_time("window", || compare(FileConfig::new().storage, 0));
}

#[test]
fn a_stream_over_a_path_that_loses_packets_is_indistinguishable_from_a_file() {
    in_time("loss", || compare(StorageConfig::WholeMemory, 20));
}
