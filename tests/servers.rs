//! Files of real servers are read, sought and decoded like local files.
//!
//! Each test starts a server of its own, as root or not, with a configuration in a temporary directory. The tests need servers that
//! must be installed, so they run on demand: `cargo test --test servers -- --ignored`. If a server is missing, its tests fail and
//! name the Debian package.
#![cfg(unix)]

use std::fs::{self, File, Permissions};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use support::Content;
use support::content::{assert_pattern, assert_whole};
use support::daemon::{Daemon, program, run};
use support::decoding::{Decoding, LiveSource, Source, decode_with_seeks};
use symphonia::core::errors::Error as SymphoniaError;
use tempfile::TempDir;
use windway::config::{OnDiscontinuity, StorageConfig};
use windway::downloader::PeerHandle;
use windway::event::Subscriber;
use windway::media::ContainerFormat;
use windway::radio::RadioEvent;
use windway::{
    ByteRange, Downloader, DownloaderConfig, ErrorKind, Fetch, FileConfig, Priority, Radio, RadioConfig,
    Stream,
};

/// Time limit of waits for a server, reached only by a hang.
const PATIENCE: Duration = Duration::from_secs(60);

const TRACKS: [(&str, &[u8]); 2] =
    [("track.flac", include_bytes!("data/track.flac")), ("track.mp3", include_bytes!("data/track.mp3"))];

/// Length of `pattern.bin`.
const PATTERN: u64 = 20_000_000;

/// Directives with which nginx compresses every response.
const COMPRESSING: &str = "gzip on; gzip_types *; gzip_min_length 0;";

/// A running server, with the served files in `www`.
struct Server {
    daemon: Daemon,
    scheme: &'static str,
    downloader: Downloader,
}

impl Server {
    /// Starts the process that `configure` returns for a directory and a port.
    fn start(package: &str, configure: impl FnOnce(&Path, u16) -> Command) -> Self {
        let daemon = Daemon::start(package, directory_to_serve(), configure);
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        Self { daemon, scheme: "http", downloader }
    }

    fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}/{path}", self.scheme, self.daemon.port.number)
    }

    fn open(&self, path: &str, storage: &StorageConfig) -> Stream {
        let mut config = FileConfig::default();
        config.storage = storage.clone();
        self.downloader.open_with(&self.url(path), config).unwrap()
    }
}

/// A directory that any user may read, with the served files in `www`, whose dates are an hour ago.
fn directory_to_serve() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let www = directory.path().join("www");
    fs::create_dir(&www).unwrap();
    let mut pattern = Vec::new();
    Content::pattern(PATTERN).append(&mut pattern, 0..PATTERN);
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for (name, content) in TRACKS.into_iter().chain([("pattern.bin", &*pattern)]) {
        let mut file = File::create(www.join(name)).unwrap();
        file.write_all(content).unwrap();
        file.set_modified(hour_ago).unwrap();
    }
    directory
}

/// nginx with `directives` in its `server` block, and `listen` behind the port of its `listen` directive.
fn nginx_listening(listen: &str, directives: &str) -> Server {
    Server::start("nginx-light", |directory, port| {
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {what};"))
            .join(" ");
        // A single process, so that killing it ends the server.
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;
             events {{}}
             http {{
                 {temporary}
                 access_log access.log;
                 types {{ audio/flac flac; audio/mpeg mp3; }}
                 default_type application/octet-stream;
                 server {{ listen 127.0.0.1:{port} {listen}; root www; {directives} }}
             }}"
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = program("nginx");
        command.arg("-p").arg(directory).arg("-c").arg(file);
        command
    })
}

fn nginx(directives: &str) -> Server {
    nginx_listening("", directives)
}

/// Path of a server's certificate within its directory.
const CERTIFICATE: &str = "trusted.pem";

fn with_its_certificate(server: Server) -> (Server, Vec<Vec<u8>>) {
    let certificate = fs::read(server.daemon.directory.path().join(CERTIFICATE)).unwrap();
    (server, vec![certificate])
}

/// nginx with TLS, and a downloader that trusts its certificate.
fn nginx_with_tls() -> Server {
    let keys = tempfile::tempdir().unwrap();
    let (key, certificate) = (keys.path().join("key.pem"), keys.path().join("certificate.pem"));
    let mut openssl = program("openssl");
    openssl.args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(' '));
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let made = run(openssl, "openssl", Command::output);
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));

    let directives =
        format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display());
    let mut server = nginx_listening("ssl", &directives);
    let certificate = fs::read(&certificate).unwrap();
    fs::write(server.daemon.directory.path().join(CERTIFICATE), &certificate).unwrap();
    let mut config = DownloaderConfig::default();
    config.client.extra_roots.push(certificate);
    server.scheme = "https";
    server.downloader = Downloader::new(config).unwrap();
    server
}

/// squid, which opens tunnels to any port.
fn squid() -> Server {
    Server::start("squid", |directory, port| {
        // The user matters only to root: squid does not run as root, and then it writes no files.
        let configuration = format!(
            "http_port 127.0.0.1:{port}
             http_access allow localhost
             cache deny all
             access_log none
             cache_log /dev/null
             pid_filename none
             cache_effective_user proxy
             cache_effective_group proxy
             shutdown_lifetime 0 seconds"
        );
        let file = directory.join("squid.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = program("squid");
        // A single process, so that killing it ends the server.
        command.arg("-N").arg("-d").arg("1").arg("-f").arg(file);
        command
    })
}

/// microsocks, a SOCKS 5 proxy.
fn microsocks() -> Server {
    let mut server = Server::start("microsocks", |_, port| {
        let mut command = program("microsocks");
        command.args(["-i", "127.0.0.1", "-u", "user", "-P", "pass", "-p"]).arg(port.to_string());
        command
    });
    server.scheme = "socks5";
    server
}

/// Makes the server's downloader use the proxy at this URL from now on.
fn put_behind(server: &mut Server, proxy: &str, trusted: Vec<Vec<u8>>) {
    let mut config = DownloaderConfig::default();
    config.client.proxy = Some(proxy.to_owned());
    config.client.extra_roots = trusted;
    server.downloader = Downloader::new(config).unwrap();
}

fn apache() -> Server {
    Server::start("apache2-bin", |directory, port| {
        let modules = ["mpm_event", "authz_core", "mime"]
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .concat();
        let root = directory.display();
        // The user matters only to root: Apache serves nothing as root.
        let configuration = format!(
            "ServerName localhost
             ServerRoot {root}
             DefaultRuntimeDir {root}
             PidFile {root}/apache.pid
             ErrorLog {root}/error.log
             CustomLog {root}/access.log \"%r: %>s, %O bytes\"
             Listen 127.0.0.1:{port}
             {modules}
             User www-data
             Group www-data
             TypesConfig /dev/null
             AddType audio/flac .flac
             AddType audio/mpeg .mp3
             DocumentRoot {root}/www"
        );
        let file = directory.join("apache.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = program("apache2");
        // A single process, so that killing it ends the server.
        command.arg("-X").arg("-f").arg(file);
        command
    })
}

fn lighttpd() -> Server {
    Server::start("lighttpd", |directory, port| {
        let root = directory.display();
        let configuration = format!(
            "server.modules = (\"mod_accesslog\")
             server.bind = \"127.0.0.1\"
             server.port = {port}
             server.document-root = \"{root}/www\"
             server.errorlog = \"{root}/error.log\"
             accesslog.filename = \"{root}/access.log\"
             mimetype.assign = (\".flac\" => \"audio/flac\", \".mp3\" => \"audio/mpeg\")\n"
        );
        let file = directory.join("lighttpd.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = program("lighttpd");
        command.arg("-D").arg("-f").arg(file);
        command
    })
}

/// Icecast, with a mount for sources that know the password.
fn icecast() -> Server {
    Server::start("icecast2", |directory, port| {
        let logs = directory.join("logs");
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, Permissions::from_mode(0o777)).unwrap();
        // The owner matters only to root: Icecast does not run as root. Without a burst all audio is live.
        let configuration = format!(
            "<icecast>
               <limits><burst-size>0</burst-size></limits>
               <authentication><source-password>secret</source-password></authentication>
               <hostname>localhost</hostname>
               <listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket>
               <paths>
                 <logdir>{logs}</logdir><webroot>/usr/share/icecast2/web</webroot>
                 <adminroot>/usr/share/icecast2/admin</adminroot>
               </paths>
               <logging><accesslog>access.log</accesslog><errorlog>-</errorlog><loglevel>3</loglevel></logging>
               <security><changeowner><user>nobody</user><group>nogroup</group></changeowner></security>
             </icecast>",
            logs = logs.display()
        );
        let file = directory.join("icecast.xml");
        fs::write(&file, configuration).unwrap();
        let mut command = program("icecast2");
        command.arg("-c").arg(file);
        command
    })
}

/// Format in which an encoder sends a track to Icecast.
#[derive(Clone, Copy, Debug)]
struct Programme {
    track: &'static str,
    content_type: &'static str,
    /// ffmpeg's options for the output.
    options: &'static str,
}

const MP3: Programme = Programme {
    track: "track.mp3",
    content_type: "audio/mpeg",
    options: "-c:a copy -f mp3 -write_xing 0 -id3v2_version 0",
};

/// An ffmpeg that sends to the mount `live` of Icecast in real time. Its drop kills it.
struct LiveEncoder(Child);

impl LiveEncoder {
    fn start(server: &Server, programme: Programme) -> Self {
        let mut ffmpeg = program("ffmpeg");
        ffmpeg.args(["-v", "error", "-re", "-stream_loop", "-1", "-i"]);
        ffmpeg.arg(server.daemon.directory.path().join("www").join(programme.track));
        ffmpeg.args(programme.options.split(' '));
        ffmpeg.args(["-content_type", programme.content_type, "-ice_name", "Live from the test"]);
        ffmpeg.arg(format!("icecast://source:secret@127.0.0.1:{}/live", server.daemon.port.number));
        ffmpeg.stdin(Stdio::null());
        Self(run(ffmpeg, "ffmpeg", Command::spawn))
    }
}

impl Drop for LiveEncoder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn python() -> Server {
    Server::start("python3", |directory, port| {
        let mut command = program("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        command.arg(directory.join("www")).arg(port.to_string());
        command
    })
}

/// Reads the tracks and the pattern as a whole, and the pattern at 100 positions, around its end and beyond it.
fn assert_read_as_from_disk(server: &Server, storage: &StorageConfig) {
    for (name, track) in TRACKS {
        let mut all = Vec::new();
        server.open(name, storage).read_to_end(&mut all).unwrap();
        assert!(all == track, "{name} was read as something else");
    }
    let mut stream = server.open("pattern.bin", storage);
    assert_eq!(stream.len(), Some(PATTERN));
    assert_whole(&mut stream, PATTERN);

    // A new stream, which has nothing stored.
    let mut stream = server.open("pattern.bin", storage);
    for (position, len) in places() {
        let mut part = vec![0; len];
        stream.seek(SeekFrom::Start(position)).unwrap();
        stream.read_exact(&mut part).unwrap();
        assert_pattern(position, &part);
    }
    let mut last = [0; 2];
    assert_eq!(stream.seek(SeekFrom::End(-1)).unwrap(), PATTERN - 1);
    assert_eq!(stream.read(&mut last).unwrap(), 1);
    assert_pattern(PATTERN - 1, &last[..1]);
    assert_eq!(stream.read(&mut last).unwrap(), 0);
    stream.seek(SeekFrom::Start(PATTERN + 1000)).unwrap();
    assert_eq!(stream.read(&mut last).unwrap(), 0);
}

/// A hundred parts of the pattern, the same ones each time.
fn places() -> impl Iterator<Item = (u64, usize)> {
    // xorshift64 (Marsaglia, 2003).
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    std::iter::repeat_with(move || {
        let position = next(PATTERN);
        (position, (next(100_000) + 1).min(PATTERN - position) as usize)
    })
    .take(100)
}

fn assert_decoded_as_from_disk(server: &Server) {
    for (name, track) in TRACKS {
        let stream = server.open(name, &StorageConfig::Memory);
        let decoded = decode_with_seeks(Box::new(Source { stream, most: usize::MAX }));
        let expected = decode_with_seeks(Box::new(Cursor::new(track)));
        assert!(expected.iter().map(Vec::len).sum::<usize>() > 20_000, "{name} has no audio");
        assert!(decoded == expected, "{name} was decoded to something else");
    }
}

/// Reads and decodes all files of a server that serves ranges.
fn assert_as_from_disk(server: &Server) {
    assert_read_as_from_disk(server, &StorageConfig::Memory);
    assert_decoded_as_from_disk(server);
    assert!(server.open("pattern.bin", &StorageConfig::Memory).is_seekable());
}

#[test]
#[ignore = "needs nginx"]
fn nginx_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&nginx(""));
}

#[test]
#[ignore = "needs nginx"]
fn nginx_that_closes_connections_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&nginx("keepalive_requests 2;"));
}

/// The close of a connection races with the next request on it.
#[test]
#[ignore = "needs nginx"]
fn nginx_without_keep_alive_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&nginx("keepalive_timeout 1ms;"));
}

#[test]
#[ignore = "needs nginx"]
fn nginx_that_limits_the_rate_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&nginx("limit_rate 2m;"));
}

#[test]
#[ignore = "needs nginx"]
fn nginx_that_compresses_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&nginx(COMPRESSING));
}

/// windway does not request compression: offsets in the decoded bytes are not those in the sent ones.
#[test]
#[ignore = "needs nginx"]
fn nginx_that_sends_compressed_bytes_is_refused() {
    let server = nginx("add_header Content-Encoding gzip;");
    let error = server.downloader.open(&server.url("pattern.bin")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encoded);
}

#[test]
#[ignore = "needs nginx and openssl"]
fn nginx_with_tls_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&nginx_with_tls());
}

#[test]
#[ignore = "needs nginx and openssl"]
fn nginx_with_an_unknown_certificate_is_refused() {
    let server = nginx_with_tls();
    let trusting_nobody_else = Downloader::new(DownloaderConfig::default()).unwrap();
    let error = trusting_nobody_else.open(&server.url("track.flac")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
}

#[test]
#[ignore = "needs nginx, openssl and squid"]
fn squid_passes_the_bytes_of_the_disk() {
    assert_proxy_passes_the_bytes(&squid().url(""));
}

#[test]
#[ignore = "needs nginx, openssl and microsocks"]
fn microsocks_passes_the_bytes_of_the_disk() {
    let proxy = microsocks();
    assert_proxy_passes_the_bytes(&proxy.url("").replace("://", "://user:pass@"));
    let mut server = nginx("");
    put_behind(&mut server, &proxy.url("").replace("://", "://user:wrong@"), Vec::new());
    let error = server.downloader.open(&server.url("track.flac")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error:?}");
}

fn assert_proxy_passes_the_bytes(proxy: &str) {
    for (mut server, trusted) in [(nginx(""), Vec::new()), with_its_certificate(nginx_with_tls())] {
        put_behind(&mut server, proxy, trusted);
        assert_as_from_disk(&server);
        let peer = server.downloader.register((), Priority::High).unwrap();
        // With reads of any length, over connections that are reused.
        for len in [1_000, 16 * 1024, 300_000] {
            let mut response = peer.execute(Fetch::get(&server.url("pattern.bin")).unwrap()).unwrap();
            let (mut buf, mut at) = (vec![0; len], 0);
            loop {
                let got = response.read(&mut buf).unwrap();
                if got == 0 {
                    break;
                }
                assert_pattern(at, &buf[..got]);
                at += got as u64;
            }
            assert_eq!(at, PATTERN);
        }
    }
}

#[test]
#[ignore = "needs apache2"]
fn apache_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&apache());
}

/// Apache sends a weak entity tag as long as the file could change within the same second, and a strong one of the same file
/// later.
#[test]
#[ignore = "needs apache2"]
fn apache_serves_the_bytes_of_a_file_just_written() {
    let mut server = apache();
    let file =
        File::options().append(true).open(server.daemon.directory.path().join("www/pattern.bin")).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
    let mut stream = server.open("pattern.bin", &StorageConfig::Memory);
    let peer = server.downloader.register((), Priority::High).unwrap();
    let url = server.url("pattern.bin");
    server.daemon.wait_until("calls the entity tag strong", || {
        let answer = peer.execute(Fetch::get(&url).unwrap().range(ByteRange::new(0, 1))).unwrap();
        answer.head().header("etag").is_some_and(|tag| tag.starts_with('"'))
    });
    assert_whole(&mut stream, PATTERN);
}

#[test]
#[ignore = "needs lighttpd"]
fn lighttpd_serves_the_bytes_of_the_disk() {
    assert_as_from_disk(&lighttpd());
}

/// It has no ranges: a seek backwards requests the file again, and a seek forwards reads up to the target.
#[test]
#[ignore = "needs python3"]
fn python_serves_the_bytes_of_the_disk() {
    let server = python();
    assert_read_as_from_disk(&server, &StorageConfig::Memory);
    assert_decoded_as_from_disk(&server);
    assert!(!server.open("pattern.bin", &StorageConfig::Memory).is_seekable());
}

#[test]
#[ignore = "needs python3"]
fn python_sends_the_file_once_if_all_of_it_is_stored() {
    let server = python();
    assert_read_as_from_disk(&server, &StorageConfig::WholeMemory);
}

/// Playing time of each of the three parts.
const PART: f64 = 20.0;

/// Longest time from the return of the encoder to its audio. The only figure of a clock that a test asserts, because a listener
/// notices it.
const RETURN: Duration = Duration::from_secs(3);

/// Samples of a decoder, and their rate.
type Heard = mpsc::Receiver<Vec<f32>>;

/// Plays until there were `seconds` of sound that is `is_so`, after as much other sound as a buffer can hold.
fn hear(heard: &Heard, seconds: f64, mut is_so: impl FnMut() -> bool) {
    let (mut left, mut other) = (seconds, 30.0);
    while left > 0.0 {
        let samples = heard.recv_timeout(PATIENCE).unwrap();
        let is_sound = samples.iter().any(|sample| sample.abs() > 0.001);
        let time = if is_sound && is_so() { &mut left } else { &mut other };
        *time -= samples.len() as f64 / 22_050.0;
        assert!(other > 0.0, "half a minute of something else");
    }
}

/// The encoder is killed and started again twice. Icecast answers 404 in between. Takes a minute, the playing time.
#[test]
#[ignore = "needs icecast2 and ffmpeg"]
fn icecast_is_received_again_whenever_its_source_returns() {
    let mut server = icecast();
    let (url, admin) = (server.url("live"), server.url("admin/metadata"));
    let peer = server.downloader.register((), Priority::High).unwrap();
    let mut encoder = Some(LiveEncoder::start(&server, MP3));
    server.daemon.wait_until("has a source", || peer.execute(Fetch::get(&url).unwrap()).is_ok());

    let radio = server.downloader.open_radio(&url, RadioConfig::default()).unwrap();
    let handle = radio.handle();
    let events = handle.subscribe();
    let (decoder, heard) = decode_all(radio);
    let titles = [
        ["Künstler - Stück 1", "It's; a 'test';"],
        ["Künstler - Stück 2", "Künstler - ';StreamUrl"],
        ["Künstler - Stück 3", "'"],
    ];
    let (mut received, mut discontinuities) = (Vec::new(), 0);
    let mut note = |event| match event {
        RadioEvent::Title { title, .. } => received.extend(title),
        RadioEvent::Discontinuity { .. } => discontinuities += 1,
        _ => {}
    };
    for part in titles {
        let is_first = encoder.is_some();
        let encoder = encoder.take().unwrap_or_else(|| {
            // Offline for so long that the radio waits before its next attempt.
            await_attempts(5, &events, &mut note);
            while heard.try_recv().is_ok() {}
            LiveEncoder::start(&server, MP3)
        });
        server.daemon.wait_until("takes a title", || announce(&peer, &admin, part[0]));
        let back = Instant::now();
        hear(&heard, 0.1, || true);
        let waited = back.elapsed();
        println!("heard {waited:.2?} after the source was there");
        assert!(is_first || waited < RETURN, "{waited:?}");
        for title in part {
            assert!(announce(&peer, &admin, title));
            let is_playing = || handle.now_playing().is_some_and(|now| now.title.as_deref() == Some(title));
            hear(&heard, PART / part.len() as f64, is_playing);
        }
        drop(encoder);
    }
    handle.cancel();
    let end = decoder.join().unwrap();
    assert!(matches!(end, SymphoniaError::IoError(_)), "{end}");

    assert_eq!(handle.stats().connections, 3);
    assert_eq!(handle.info().unwrap().name.as_deref(), Some("Live from the test"));
    events.into_iter().for_each(note);
    assert_eq!(discontinuities, 2);
    assert_eq!(received, titles.concat());
}

/// Decodes a radio until it ends. Returns the thread, which returns the error of the end, and the samples.
fn decode_all(radio: Radio) -> (thread::JoinHandle<SymphoniaError>, mpsc::Receiver<Vec<f32>>) {
    let (decoded, heard) = mpsc::channel();
    let decoder = thread::spawn(move || {
        let mut decoding = Decoding::open(Box::new(LiveSource(radio)));
        loop {
            match decoding.packets(1) {
                // Fails if the test has ended.
                Ok(samples) => drop(decoded.send(samples)),
                Err(error) => break error,
            }
        }
    });
    (decoder, heard)
}

/// Waits until the radio has tried this often to reconnect. Passes all events to `note`.
fn await_attempts(attempts: usize, events: &Subscriber<RadioEvent>, mut note: impl FnMut(RadioEvent)) {
    let mut request = 0;
    while request < attempts {
        let event = events.recv_timeout(PATIENCE).expect("an attempt in time");
        request += usize::from(matches!(event, RadioEvent::Reconnecting { .. }));
        note(event);
    }
}

/// Ogg needs headers, which Icecast sends to each listener first.
#[test]
#[ignore = "needs icecast2 and ffmpeg"]
fn icecast_with_ogg_is_decoded_again_whenever_its_source_returns() {
    for (options, content_type) in
        [("-c:a libvorbis -f ogg", "audio/ogg"), ("-c:a flac -f ogg -page_duration 200000", "audio/ogg")]
    {
        let programme = Programme { track: "track.flac", content_type, options };
        for on_discontinuity in [OnDiscontinuity::EndOfStream, OnDiscontinuity::Continue] {
            hear_ogg(programme, on_discontinuity);
        }
    }
}

fn hear_ogg(programme: Programme, on_discontinuity: OnDiscontinuity) {
    let mut server = icecast();
    let url = server.url("live");
    let peer = server.downloader.register((), Priority::High).unwrap();
    let mut encoder = Some(LiveEncoder::start(&server, programme));
    server.daemon.wait_until("has a source", || peer.execute(Fetch::get(&url).unwrap()).is_ok());
    let mut config = RadioConfig::default();
    config.on_discontinuity = on_discontinuity;
    let mut radio = server.downloader.open_radio(&url, config).unwrap();
    let handle = radio.handle();
    let events = handle.subscribe();
    let (decoded, heard) = mpsc::channel();
    let decoder = thread::spawn(move || {
        let mut decoders = 0;
        loop {
            match Decoding::try_open(Box::new(LiveSource(&mut radio))) {
                Ok(mut decoding) => {
                    decoders += 1;
                    decoders += decode_streams(&mut decoding, &decoded);
                }
                Err(error) => println!("{programme:?}, {on_discontinuity:?}: {error}"),
            }
            if !radio.handle().pass_discontinuity() && radio.read(&mut [0]).is_err() {
                break decoders;
            }
        }
    });
    for _ in 0..3 {
        let encoder = encoder.take().unwrap_or_else(|| LiveEncoder::start(&server, programme));
        hear(&heard, 3.0, || true);
        drop(encoder);
        while !matches!(
            events.recv_timeout(PATIENCE).expect("an event in time"),
            RadioEvent::Reconnecting { .. }
        ) {}
        while heard.try_recv().is_ok() {}
    }
    handle.cancel();
    assert!(decoder.join().unwrap() >= 3, "{programme:?}, {on_discontinuity:?}");
    assert_eq!(handle.stats().connections, 3);
    assert_eq!(handle.media_info().container.map(|(container, _)| container), Some(ContainerFormat::Ogg));
}

/// Decodes one Ogg stream after another, to the end. Returns how many followed the first one.
fn decode_streams(decoding: &mut Decoding<'_>, decoded: &mpsc::Sender<Vec<f32>>) -> usize {
    let mut more = 0;
    loop {
        match decoding.samples() {
            // Fails if the test has ended.
            Ok(Some(samples)) => drop(decoded.send(samples)),
            Err(SymphoniaError::ResetRequired) => {
                decoding.reset().unwrap();
                more += 1;
            }
            Err(SymphoniaError::DecodeError(error)) => println!("{error}"),
            Ok(None) | Err(_) => return more,
        }
    }
}

/// Sets the title of the source at Icecast. False while it has no source.
fn announce(peer: &PeerHandle, admin: &str, title: &str) -> bool {
    let title: String = title.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let url = format!("{admin}?mount=/live&mode=updinfo&charset=UTF-8&song={title}");
    // source:secret
    let fetch = Fetch::get(&url).unwrap().header("Authorization", "Basic c291cmNlOnNlY3JldA==").unwrap();
    let mut answer = String::new();
    peer.execute(fetch).is_ok_and(|mut response| response.read_to_string(&mut answer).is_ok())
        && answer.contains("successful")
}
