//! Other places of a file or a station: mirrors, and fresh URLs in place of those that expire. What is stored is kept, and bytes of
//! two versions are never joined.

use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use support::content::assert_pattern;
use support::peers::downloader;
use support::{Answer, Content, Origin, Request, Station};
use windway::config::{Hook, ReadAhead, RequestHook, RequestKind, StorageConfig};
use windway::{Error, ErrorKind, FileConfig, RadioConfig, Stream};

const LEN: u64 = 3_000_000;

/// A short read-ahead, so that each seek causes a request.
fn config(mirrors: &[&Origin]) -> FileConfig {
    let mirrors: Vec<String> = mirrors.iter().map(|origin| origin.url("/a")).collect();
    FileConfig::new().read_ahead(ReadAhead::Bytes(64 * 1024)).mirrors(mirrors)
}

fn read_at(stream: &mut Stream, position: u64) {
    stream.seek(SeekFrom::Start(position)).unwrap();
    let mut buf = [0; 1000];
    stream.read_exact(&mut buf).unwrap();
    assert_pattern(position, &buf);
}

fn serve(request: &Request) -> Answer {
    Answer::file(request, &Content::pattern(LEN))
}

/// Serves the opening only.
fn serve_once(request: &Request) -> Answer {
    if request.again == 0 { serve(request).close_after(64 * 1024) } else { Answer::status(404) }
}

#[test]
fn a_file_goes_on_at_a_mirror_and_remembers_it() {
    let (own, gone, mirror) =
        (Origin::start(serve_once), Origin::start(|_| Answer::status(404)), Origin::start(serve));
    let config = config(&[&gone, &mirror]).headers([("x-secret".into(), "1".into())]);
    let mut stream = downloader(|_| ()).open_with(&own.url("/a"), config).unwrap();
    read_at(&mut stream, 0);
    read_at(&mut stream, 1_000_000);
    let refused = own.log().requests.len();
    read_at(&mut stream, 2_000_000);
    read_at(&mut stream, 1_500_000);
    assert_eq!(own.log().requests.len(), refused, "it was asked again, although the mirror answers");
    assert!(gone.log().requests.len() <= refused);
    // Headers are of the URL's own origin.
    assert!(own.log().requests.iter().all(|request| request.header("x-secret").is_some()));
    assert!(mirror.log().requests.iter().all(|request| request.header("x-secret").is_none()));
}

#[test]
fn a_file_is_opened_at_a_mirror_if_its_own_host_is_down() {
    let (own, mirror) = (Origin::start(serve), Origin::start(serve));
    let url = own.url("/a");
    drop(own);
    let downloader = downloader(|config| config.max_retries = 0);
    let mut stream = downloader.open_with(&url, config(&[&mirror])).unwrap();
    for position in [0, 2_000_000, 1_000_000] {
        read_at(&mut stream, position);
    }
}

#[test]
fn a_mirror_with_another_version_is_passed_over() {
    let own = Origin::start(serve_once);
    let other = Origin::start(|request| Answer::file(request, &Content::pattern(LEN - 1)));
    let page = Origin::start(|request| {
        Answer::file(request, &Content::pattern(LEN)).header("Content-Type", "text/html")
    });
    let retagged =
        Origin::start(|request| serve(request).without_header("ETag").header("ETag", "\"another version\""));
    let mirror = Origin::start(serve);
    let downloader = downloader(|config| config.max_retries = 0);
    let config = config(&[&other, &page, &retagged, &mirror]);
    let mut stream = downloader.open_with(&own.url("/a"), config).unwrap();
    read_at(&mut stream, 0);
    for position in [1_000_000, 2_000_000] {
        read_at(&mut stream, position);
    }
    assert!(!mirror.log().requests.is_empty());
}

#[test]
fn without_a_mirror_that_has_the_same_version_the_read_fails() {
    let own = Origin::start(serve_once);
    let other = Origin::start(|request| Answer::file(request, &Content::pattern(LEN - 1)));
    let downloader = downloader(|config| config.max_retries = 0);
    let mut stream = downloader.open_with(&own.url("/a"), config(&[&other])).unwrap();
    read_at(&mut stream, 0);
    stream.seek(SeekFrom::Start(1_000_000)).unwrap();
    let error = Error::from(stream.read(&mut [0; 100]).unwrap_err());
    assert!(matches!(error.kind(), ErrorKind::Status(404) | ErrorKind::Changed), "{error:?}");
}

/// Signs URLs with the number of the last token.
struct Account {
    token: Arc<AtomicU32>,
    /// URLs that were renewed before their time.
    renewed: Arc<Mutex<Vec<String>>>,
    renews: bool,
}

impl Account {
    fn sign(&self, url: &str) -> String {
        format!("{}?token={}", url.split('?').next().unwrap(), self.token.load(Ordering::SeqCst))
    }
}

impl RequestHook for Account {
    fn headers(&self, kind: RequestKind, _: &str) -> Vec<(String, String)> {
        assert_eq!(kind, RequestKind::File);
        vec![("x-token".into(), self.token.load(Ordering::SeqCst).to_string())]
    }

    fn fresh_url(&self, _: RequestKind, url: &str, status: u16) -> Option<String> {
        assert_eq!(status, 403);
        Some(self.sign(url))
    }

    fn renewed_url(&self, _: RequestKind, url: &str) -> Option<String> {
        if self.renews && self.sign(url) != url {
            self.renewed.lock().unwrap().push(url.to_owned());
        }
        self.renews.then(|| self.sign(url))
    }
}

/// An origin that accepts the last token only, in the URL and in a header.
fn signed(token: &Arc<AtomicU32>, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Origin {
    let token = Arc::clone(token);
    Origin::start(move |request| {
        let valid = token.load(Ordering::SeqCst).to_string();
        let is_signed = request.path.ends_with(&format!("?token={valid}"));
        let has_header = request.header("x-token") == Some(valid.as_str());
        if is_signed && has_header { answer(request) } else { Answer::status(403) }
    })
}

#[test]
fn a_url_that_expires_is_replaced_and_what_is_stored_is_kept() {
    for renews in [false, true] {
        let token = Arc::new(AtomicU32::new(1));
        let origin = signed(&token, serve);
        let renewed = Arc::new(Mutex::new(Vec::new()));
        let account = Account { token: Arc::clone(&token), renewed: Arc::clone(&renewed), renews };
        let config = config(&[]).hook(Hook::new(account)).storage(StorageConfig::WholeMemory);
        let url = origin.url("/a?token=1");
        let mut stream = downloader(|_| ()).open_with(&url, config).unwrap();
        read_at(&mut stream, 0);
        for next in 2..5 {
            token.store(next, Ordering::SeqCst);
            read_at(&mut stream, u64::from(next) * 500_000);
        }
        let requests = origin.log().requests.len();
        for stored in [0, 1_500_000] {
            read_at(&mut stream, stored);
            let has_byte = |request: &Request| {
                request
                    .range()
                    .is_some_and(|(first, last)| first <= stored && last.is_none_or(|last| last >= stored))
            };
            assert!(
                !origin.log().requests[requests..].iter().any(has_byte),
                "a stored byte was fetched again"
            );
        }
        let refused =
            origin.log().requests.iter().filter(|request| !request.path.contains("token=4")).count();
        assert!(refused >= 3);
        assert_eq!(renewed.lock().unwrap().is_empty(), !renews);
        let shown = format!("{:?} {:?}", stream.handle(), stream);
        assert!(!shown.contains("token=4"), "{shown}");
    }
}

#[test]
fn a_fresh_url_of_another_version_is_an_error() {
    let token = Arc::new(AtomicU32::new(1));
    let origin = signed(&token, |request| {
        let len = if request.path.ends_with("token=1") { LEN } else { LEN - 1 };
        Answer::file(request, &Content::pattern(len))
    });
    let account = Account { token: Arc::clone(&token), renewed: Arc::default(), renews: false };
    let config = config(&[]).hook(Hook::new(account));
    let mut stream = downloader(|_| ()).open_with(&origin.url("/a?token=1"), config).unwrap();
    read_at(&mut stream, 0);
    token.store(2, Ordering::SeqCst);
    stream.seek(SeekFrom::Start(2_000_000)).unwrap();
    let error = Error::from(stream.read(&mut [0; 100]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
}

/// Answers challenges, in the manner of digest authentication: by the nonce and the path.
#[derive(Clone, Default)]
struct Challenged(Arc<Mutex<Option<String>>>);

/// What a client has to send for the nonce and the path.
fn credentials(nonce: &str, path: &str) -> String {
    format!("Digest nonce=\"{nonce}\", uri=\"{path}\"")
}

impl RequestHook for Challenged {
    fn headers(&self, _: RequestKind, url: &str) -> Vec<(String, String)> {
        let nonce = self.0.lock().unwrap();
        let path = &url[url.rfind('/').unwrap()..];
        nonce.iter().map(|nonce| ("authorization".into(), credentials(nonce, path))).collect()
    }

    fn challenged(&self, _: RequestKind, _: &str, challenge: &str) {
        let nonce = challenge.split('"').nth(1).unwrap();
        *self.0.lock().unwrap() = Some(nonce.to_owned());
    }

    fn fresh_url(&self, _: RequestKind, url: &str, status: u16) -> Option<String> {
        (status == 401).then(|| url.to_owned())
    }
}

#[test]
fn a_hook_answers_the_challenges_of_a_server() {
    // The nonce expires now and then.
    let nonce = Arc::new(AtomicU32::new(1));
    let (current, refused) = (Arc::clone(&nonce), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&refused);
    let origin = Origin::start(move |request| {
        let nonce = current.load(Ordering::SeqCst).to_string();
        if request.header("authorization") == Some(&credentials(&nonce, &request.path)) {
            return serve(request);
        }
        count.fetch_add(1, Ordering::SeqCst);
        Answer::status(401).header("WWW-Authenticate", &format!("Digest nonce=\"{nonce}\", qop=\"auth\""))
    });
    let config = config(&[]).hook(Hook::new(Challenged::default())).storage(StorageConfig::WholeMemory);
    let mut stream = downloader(|_| ()).open_with(&origin.url("/a?b=c"), config).unwrap();
    read_at(&mut stream, 0);
    for expired in 2..5 {
        nonce.store(expired, Ordering::SeqCst);
        read_at(&mut stream, u64::from(expired) * 500_000);
    }
    assert!(refused.load(Ordering::SeqCst) >= 4);

    let error = windway::open(&origin.url("/a")).unwrap_err();
    assert!(error.to_string().starts_with("the server sent status 401 and asks for Digest ("), "{error}");
    assert_eq!(error.challenge(), Some("Digest nonce=\"4\", qop=\"auth\""));
}

#[test]
fn a_radio_connects_to_a_mirror_of_its_station() {
    let own = Origin::start(|_| Answer::status(503));
    let mirror = Origin::start(|request| {
        let station = Station { audio: Content::endless(), interval: 1000, every: 100, titles: Vec::new() };
        Answer::station(request, &station)
    });
    let config = RadioConfig::new().mirrors([mirror.url("/live")]);
    let mut radio = downloader(|_| ()).open_radio(&own.url("/live"), config).unwrap();
    let mut buf = [0; 5000];
    radio.read_exact(&mut buf).unwrap();
    assert_pattern(0, &buf);
}

#[test]
fn a_mirror_that_can_not_be_requested_is_an_invalid_configuration() {
    for mirror in ["ftp://host/a", "no URL"] {
        let config = FileConfig::new().mirrors([mirror.to_owned()]);
        let error = downloader(|_| ()).open_with("http://127.0.0.1:9/a", config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("mirrors"), "{error}");
    }
}
