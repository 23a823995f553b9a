//! The measured rate is that of the network. A caller that pauses a body does not lower it, and a caller that reads late what
//! has arrived meanwhile does not raise it.

use std::io::Read;
use std::thread;
use std::time::Duration;

use support::content::assert_pattern;
use support::peers::{List, collect, downloader};
use support::{Answer, Content, Origin, Station};
use windway::config::ReadAhead;
use windway::downloader::{Outcome, PeerHandle};
use windway::{Downloader, Fetch, Priority, RadioConfig};

const RATE: f64 = 4e6;

/// How long a reader pauses: much longer than the transfers beside it take.
const HELD_BACK: Duration = Duration::from_secs(3);

fn serve(rate: f64, len: u64) -> Origin {
    let content = Content::pattern(len);
    Origin::start(move |request| Answer::file(request, &content).rate(rate as u64))
}

/// Fetches the whole file into a sink. Returns the peer, which has measured the rate.
fn transfer(downloader: &Downloader, origin: &Origin) -> PeerHandle {
    let list = List::default();
    let (sink, end) = collect(0);
    list.put(Fetch::get(&origin.url("/a")).unwrap(), sink);
    let peer = downloader.register(list, Priority::High).unwrap();
    peer.wake(Priority::High);
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
    peer
}

/// Checks measured rates, each beside the expected one. Leaves room for a busy machine: a pause that counted would change the rate
/// by far more. Measures again up to four times, because on a very busy machine the origin sends in bursts, and a thread that loses
/// its core within a read seems to have waited for what it reads. A fault shows each time.
fn assert_near(measure: impl Fn() -> Vec<(Option<f64>, f64)>) {
    let is_near = |(rate, expected): &(Option<f64>, f64)| {
        rate.is_some_and(|rate| rate > expected / 2.5 && rate < expected * 2.5)
    };
    let mut rates = Vec::new();
    for _ in 0..5 {
        rates = measure();
        if rates.iter().all(is_near) {
            return;
        }
    }
    panic!("measured and expected: {rates:?}");
}

#[test]
fn a_body_that_its_caller_pauses_does_not_lower_the_rate() {
    assert_near(|| {
        let origin = serve(RATE, 2_000_000);
        let downloader = downloader(|_| ());
        let peer = downloader.register((), Priority::High).unwrap();
        let mut held = peer.execute(Fetch::get(&origin.url("/held")).unwrap()).unwrap();
        held.read_exact(&mut [0; 1000]).unwrap();
        let other = transfer(&downloader, &origin);
        thread::sleep(HELD_BACK);
        let mut rest = Vec::new();
        held.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 1_999_000);
        assert_pattern(1000, &rest);
        transfer(&downloader, &origin);
        vec![(other.bandwidth(), RATE), (downloader.bandwidth(), RATE)]
    });
}

#[test]
fn a_caller_that_reads_slower_than_the_network_does_not_lower_the_rate() {
    let origin = serve(RATE, 2_000_000);
    let peer = downloader(|_| ()).register((), Priority::High).unwrap();
    let mut response = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let mut buf = vec![0; 80_000];
    for _ in 0..10 {
        response.read_exact(&mut buf).unwrap();
        thread::sleep(Duration::from_millis(400));
    }
    // The caller read a twentieth of the rate. On a busy machine the origin sends in bursts, which are faster than its rate, and
    // late, which is slower.
    assert!(peer.bandwidth().is_none_or(|rate| rate > RATE / 8.0), "{:?}", peer.bandwidth());
    assert_eq!(peer.totals().bytes, 800_000);
}

#[test]
fn a_caller_that_reads_without_pauses_measures_the_rate() {
    assert_near(|| {
        let origin = serve(RATE, 2_000_000);
        let peer = downloader(|_| ()).register((), Priority::High).unwrap();
        let mut response = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
        response.read_to_end(&mut Vec::new()).unwrap();
        vec![(peer.bandwidth(), RATE)]
    });
}

#[test]
fn a_radio_does_not_lower_the_rate_of_parallel_transfers() {
    assert_near(|| {
        let station =
            Station { audio: Content::endless(), interval: 16_000, every: 1, titles: vec!["Artist - Title"] };
        // 128 kbit/s.
        let radio_origin = Origin::start(move |request| Answer::station(request, &station).rate(16_000));
        let origin = serve(RATE, 2_000_000);
        let downloader = downloader(|_| ());
        let mut radio = downloader.open_radio(&radio_origin.url("/live"), RadioConfig::default()).unwrap();
        radio.read_exact(&mut [0; 1000]).unwrap();
        transfer(&downloader, &origin);
        radio.read_exact(&mut vec![0; 48_000]).unwrap();
        vec![(downloader.bandwidth(), RATE), (downloader.bandwidth_of(&origin.url("/other")), RATE)]
    });
}

#[test]
fn a_file_that_its_reader_pauses_does_not_lower_the_rate() {
    assert_near(|| {
        let content = Content::pattern(4_000_000);
        let origin = Origin::start(move |_| Answer::whole(&content).rate(RATE as u64));
        let downloader = downloader(|_| ());
        let mut config = windway::FileConfig::default();
        config.read_ahead = ReadAhead::Bytes(64 * 1024);
        let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
        let mut buf = vec![0; 500_000];
        stream.read_exact(&mut buf).unwrap();
        thread::sleep(HELD_BACK);
        stream.read_exact(&mut buf).unwrap();
        let before = downloader.bandwidth();
        stream.read_to_end(&mut Vec::new()).unwrap();
        vec![(before, RATE), (downloader.bandwidth(), RATE)]
    });
}

#[test]
fn a_rate_is_measured_for_each_origin() {
    assert_near(|| {
        let (fast, slow) = (serve(RATE, 2_000_000), serve(RATE / 10.0, 200_000));
        let downloader = downloader(|_| ());
        assert_eq!(downloader.bandwidth_of(&fast.url("/")), None);
        let peers = [&fast, &slow].map(|origin| transfer(&downloader, origin));
        assert_eq!(downloader.bandwidth_of("no url"), None);
        vec![
            (downloader.bandwidth_of(&fast.url("/whatever?x=1")), RATE),
            (downloader.bandwidth_of(&slow.url("/")), RATE / 10.0),
            (peers[0].bandwidth(), RATE),
            (peers[1].bandwidth(), RATE / 10.0),
        ]
    });
}

#[test]
fn after_a_redirect_the_rate_belongs_to_the_origin_that_sent_the_bytes() {
    assert_near(|| {
        let target = serve(RATE, 2_000_000);
        let to = target.url("/there");
        let origin = Origin::start(move |_| Answer::redirect(302, &to));
        let downloader = downloader(|_| ());
        transfer(&downloader, &origin);
        assert_eq!(downloader.bandwidth_of(&origin.url("/")), None);
        vec![(downloader.bandwidth_of(&target.url("/")), RATE)]
    });
}
