//! Round trips and connections of opening and seeking, compared with the same requests made with plain ureq.
//!
//! `cargo bench --bench open_and_seek`. The origin takes a round trip for a connection, one more for its TLS handshake,
//! and one for each answer.

mod measure;

use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use measure::Quantiles;
use support::{Answer, Content, Origin, Request};
use windway::{Downloader, DownloaderConfig, FileConfig};

const LEN: u64 = 1 << 30;
const TIMES: usize = 5;

fn main() {
    for rtt in [0, 20, 80].map(Duration::from_millis) {
        for tls in [false, true] {
            let name = format!("{:<5} rtt {rtt:>5.0?}", if tls { "https" } else { "http" });
            by_windway(&name, rtt, tls);
            by_hand(&name, rtt, tls);
        }
    }
}

fn origin(rtt: Duration, tls: bool) -> Origin {
    let content = Content::pattern(LEN);
    let handler = move |request: &Request| Answer::file(request, &content).latency(rtt);
    if tls { Origin::start_tls_with_rtt(rtt, handler) } else { Origin::start_with_rtt(rtt, handler) }
}

fn print(name: &str, what: &str, times: Vec<Duration>, rtt: Duration, connections: usize) {
    let middle = Quantiles::new(times).at(0.5);
    let trips =
        if rtt.is_zero() { String::new() } else { format!("{:5.2} RTT", middle.div_duration_f64(rtt)) };
    println!("{name}  {what:<28} {middle:>9.1?}  {trips:<10} {connections:>3} connections");
}

fn read_at(stream: &mut (impl Read + Seek), at: u64) {
    stream.seek(SeekFrom::Start(at)).expect("a seek");
    stream.read_exact(&mut [0; 4096]).expect("bytes");
}

fn by_windway(name: &str, rtt: Duration, tls: bool) {
    let mut figures: [Vec<Duration>; 5] = Default::default();
    let mut connections = [0; 5];
    // Waits for the preconnected connection and its round trip at the server: the bench measures what it saves.
    let settle = |downloader: &Downloader| {
        downloader.await_preconnects();
        std::thread::sleep(rtt);
    };
    for _ in 0..TIMES {
        let origin = origin(rtt, tls);
        let mut config = DownloaderConfig::default();
        if tls {
            config.client.extra_roots.push(origin.root_pem());
        }
        let downloader = Downloader::new(config).expect("sound options");
        let mut dialled = 0;
        let mut note = |index: usize, began: Instant| {
            figures[index].push(began.elapsed());
            let now = origin.log().connections;
            connections[index] = now - std::mem::replace(&mut dialled, now);
        };
        let began = Instant::now();
        let mut stream = downloader.open(&origin.url("/a")).expect("a stream");
        stream.read_exact(&mut [0; 4096]).expect("bytes");
        note(0, began);
        settle(&downloader);
        let began = Instant::now();
        let second = downloader.open_with(&origin.url("/b"), FileConfig::default());
        second.expect("a stream").read_exact(&mut [0; 4096]).expect("bytes");
        note(1, began);
        settle(&downloader);
        let began = Instant::now();
        read_at(&mut stream, 150 * 1024);
        note(2, began);
        settle(&downloader);
        let began = Instant::now();
        read_at(&mut stream, LEN / 2);
        note(3, began);
        let began = Instant::now();
        for step in 0..10 {
            read_at(&mut stream, LEN / 16 * (step * 7 % 10));
        }
        let ten = began.elapsed();
        note(4, Instant::now() - ten / 10);
    }
    let whats =
        ["open cold, first 4 KiB", "open warm, first 4 KiB", "near seek", "far seek", "ten far seeks, each"];
    for ((what, times), connections) in whats.iter().zip(figures).zip(connections) {
        print(name, what, times, rtt, connections);
    }
}

fn by_hand(name: &str, rtt: Duration, tls: bool) {
    let (mut open, mut seek) = (Vec::new(), Vec::new());
    let mut connections = 0;
    for _ in 0..TIMES {
        let origin = origin(rtt, tls);
        let mut config = ureq::Agent::config_builder();
        if tls {
            let root = ureq::tls::Certificate::from_pem(&origin.root_pem()).expect("a certificate");
            let roots = ureq::tls::RootCerts::Specific(std::sync::Arc::new(vec![root]));
            config = config.tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build());
        }
        let agent = ureq::Agent::new_with_config(config.build());
        let get = |at: u64| {
            let began = Instant::now();
            let call = agent.get(origin.url("/a")).header("Range", format!("bytes={at}-"));
            let mut response = call.call().expect("an answer");
            response.body_mut().as_reader().read_exact(&mut [0; 4096]).expect("bytes");
            began.elapsed()
        };
        open.push(get(0));
        let ten: Duration = (0..10).map(|step| get(LEN / 16 * (step * 7 % 10))).sum();
        seek.push(ten / 10);
        connections = origin.log().connections;
    }
    print(name, "plain ureq: open", open, rtt, 1);
    print(name, "plain ureq: ten seeks, each", seek, rtt, connections - 1);
}
