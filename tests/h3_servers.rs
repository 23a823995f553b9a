//! HTTP/3 with a server of another project: aioquic, as `pip install aioquic` brings it.
//!
//! `WINDWAY_PYTHON=venv/bin/python cargo test --all-features --test h3_servers -- --ignored`. Needs `openssl` too.
#![cfg(all(unix, feature = "http3"))]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::in_time;
use windway::config::Http3;
use windway::{ByteRange, ClientConfig, Downloader, DownloaderConfig, Fetch, Priority};

const LEN: u64 = 1_000_000;

/// As in `tests/data/http3_server.py`.
fn byte(at: u64) -> u8 {
    ((at * 31 + at / 251) % 256) as u8
}

fn assert_bytes(start: u64, bytes: &[u8]) {
    for (at, found) in (start..).zip(bytes) {
        assert_eq!(*found, byte(at), "byte {at}");
    }
}

struct Aioquic {
    process: Child,
    url: String,
    root: Vec<u8>,
}

impl Aioquic {
    fn start(directory: &Path) -> Self {
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status()
            .expect("openssl");
        assert!(made.success());
        let port = {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
            socket.local_addr().expect("a bound socket has an address").port()
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/http3_server.py");
        let python = std::env::var("WINDWAY_PYTHON").unwrap_or_else(|_| "python3".into());
        let mut process = Command::new(python)
            .arg(script)
            .arg(&certificate)
            .arg(&key)
            .args([port.to_string(), LEN.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python with aioquic");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready");
        let root = fs::read(certificate).expect("the certificate");
        Self { process, url: format!("https://127.0.0.1:{port}/file.flac"), root }
    }
}

impl Drop for Aioquic {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs aioquic"]
fn ranges_and_a_whole_file_of_aioquic_are_right() {
    let directory = tempfile::tempdir().unwrap();
    let server = Aioquic::start(directory.path());
    let client = ClientConfig::new().extra_roots([server.root.clone()]);
    let config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![server.url.clone()])));
    let downloader = Downloader::new(config).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    let mut random = 7_u64;
    for _ in 0..3000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442);
        let start = (random >> 20) % (LEN - 1);
        let end = start + 1 + (random >> 40) % 20_000.min(LEN - start);
        let fetch = Fetch::get(&server.url).unwrap().range(ByteRange::new(start, end));
        let mut response = peer.execute(fetch).unwrap();
        // A quarter is abandoned.
        let mut body = vec![0; if random % 4 == 0 { 1 } else { (end - start) as usize }];
        response.read_exact(&mut body).unwrap();
        assert_bytes(start, &body);
    }
    let url = server.url.clone();
    in_time("a file", move || {
        let mut stream = downloader.open(&url).unwrap();
        let mut all = Vec::new();
        stream.seek(SeekFrom::Start(LEN / 2)).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        stream.seek(SeekFrom::Start(0)).unwrap();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, LEN);
        assert_bytes(0, &all);
        // All of it over one connection.
        assert_eq!(downloader.stats().connections_dialled, 1);
    });
}
