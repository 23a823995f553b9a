//! HTTP/3 with servers of other projects: aioquic, as `pip install aioquic` brings it, Caddy and the example server of ngtcp2, as
//! Debian has them (`apt-get install caddy ngtcp2-server`). All need `openssl` too.
//!
//! `WINDWAY_PYTHON=venv/bin/python cargo test --all-features --test h3_servers -- --ignored`, or the name of one.
#![cfg(all(unix, feature = "http3"))]

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
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

/// A directory with a certificate, its key and `file.flac`.
struct Site {
    directory: tempfile::TempDir,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("file.flac"), (0..LEN).map(byte).collect::<Vec<u8>>())
            .expect("a file");
        let port = {
            // A server may listen on both.
            let tcp = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
            let address = tcp.local_addr().expect("a bound socket has an address");
            UdpSocket::bind(address).expect("the same port for UDP");
            address.port()
        };
        let site = Self { directory, port };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(site.key())
            .arg("-out")
            .arg(site.certificate())
            .stderr(Stdio::null())
            .status()
            .expect("openssl");
        assert!(made.success());
        site
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn key(&self) -> PathBuf {
        self.path().join("key.pem")
    }

    fn certificate(&self) -> PathBuf {
        self.path().join("certificate.pem")
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/file.flac", self.port)
    }

    fn downloader(&self) -> Downloader {
        let client =
            ClientConfig::new().extra_roots([fs::read(self.certificate()).expect("the certificate")]);
        let config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![self.url()])));
        Downloader::new(config).expect("a valid configuration")
    }
}

/// A server that runs until it is dropped.
struct Server(Child);

impl Server {
    fn aioquic(site: &Site) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/http3_server.py");
        let python = std::env::var("WINDWAY_PYTHON").unwrap_or_else(|_| "python3".into());
        let mut command = Command::new(python);
        command.arg(script).arg(site.certificate()).arg(site.key());
        command.args([site.port.to_string(), LEN.to_string()]).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python with aioquic");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready");
        Self(process)
    }

    fn caddy(site: &Site) -> Self {
        let config = format!(
            "{{\n admin off\n auto_https off\n default_sni 127.0.0.1\n}}\nhttps://127.0.0.1:{port} {{\n tls {certificate} {key}\n \
             root * {root}\n file_server\n}}\n",
            port = site.port,
            certificate = site.certificate().display(),
            key = site.key().display(),
            root = site.path().display(),
        );
        let file = site.path().join("Caddyfile");
        fs::write(&file, config).expect("a file");
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file).stderr(Stdio::piped());
        // Where it may store what it likes.
        command
            .env("XDG_DATA_HOME", site.path())
            .env("XDG_CONFIG_HOME", site.path())
            .env("HOME", site.path());
        let mut process = command.spawn().expect("caddy");
        let mut log = BufReader::new(process.stderr.take().expect("piped"));
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains("serving initial configuration") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("a log"), 0, "caddy ended:\n{all}");
            all += &line;
        }
        // It must not block on its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self(process)
    }

    /// It does not say when it is ready: the first packets of the client may be lost, and are repeated.
    fn ngtcp2(site: &Site) -> Self {
        let mut command = Command::new("/usr/sbin/gtlsserver");
        command.arg("--quiet").arg(format!("--htdocs={}", site.path().display()));
        command.args(["127.0.0.1", &site.port.to_string()]).arg(site.key()).arg(site.certificate());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("gtlsserver"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// 3,000 ranges, of which a quarter is abandoned, and the file in one stream: all of it over one connection.
fn read_ranges_and_file(site: &Site) {
    let (downloader, url) = (site.downloader(), site.url());
    let peer = downloader.register((), Priority::High).unwrap();
    let mut random = 7_u64;
    for _ in 0..3000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442);
        let start = (random >> 20) % (LEN - 1);
        let end = start + 1 + (random >> 40) % 20_000.min(LEN - start);
        let fetch = Fetch::get(&url).unwrap().range(ByteRange::new(start, end));
        let mut response = peer.execute(fetch).unwrap();
        let mut body = vec![0; if random % 4 == 0 { 1 } else { (end - start) as usize }];
        response.read_exact(&mut body).unwrap();
        assert_bytes(start, &body);
    }
    in_time("a file", move || {
        let mut stream = downloader.open(&url).unwrap();
        let mut all = Vec::new();
        stream.seek(SeekFrom::Start(LEN / 2)).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        stream.seek(SeekFrom::Start(0)).unwrap();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, LEN);
        assert_bytes(0, &all);
        let stats = downloader.stats();
        assert_eq!((stats.connections_dialled, stats.http3.connections_ready), (1, 1));
    });
}

#[test]
#[ignore = "needs aioquic"]
fn ranges_and_a_whole_file_of_aioquic_are_right() {
    let site = Site::new();
    let _server = Server::aioquic(&site);
    read_ranges_and_file(&site);
}

#[test]
#[ignore = "needs caddy"]
fn ranges_and_a_whole_file_of_caddy_are_right() {
    let site = Site::new();
    let _server = Server::caddy(&site);
    read_ranges_and_file(&site);
}

/// The example server of ngtcp2 has no ranges: it sends the whole file, of which parts are read.
#[test]
#[ignore = "needs gtlsserver of ngtcp2"]
fn whole_files_of_ngtcp2_are_right() {
    let site = Site::new();
    let _server = Server::ngtcp2(&site);
    let (downloader, url) = (site.downloader(), site.url());
    let peer = downloader.register((), Priority::High).unwrap();
    let mut random = 7_u64;
    for _ in 0..3000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442);
        let len = 1 + (random >> 40) % if random % 16 == 0 { LEN } else { 20_000 };
        let mut response = peer.execute(Fetch::get(&url).unwrap()).unwrap();
        assert_eq!(response.head().total(), Some(LEN));
        let mut body = vec![0; len as usize];
        response.read_exact(&mut body).unwrap();
        assert_bytes(0, &body);
    }
    in_time("a file", move || {
        let mut stream = downloader.open(&url).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, LEN);
        assert_bytes(0, &all);
    });
}
