//! No thread, no descriptor and no blocked thread is left after the end of streams, radios and downloaders.

use std::io::Read;
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use support::content::assert_pattern;
use support::peers::{At, Calling, List, collect, downloader};
use support::{Answer, Content, Origin, PATIENCE, Station, in_time, poll_until};
use windway::config::ReadAhead;
use windway::downloader::{Next, Outcome, Peer};
use windway::event::Event;
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority, RadioConfig};

/// The tests count threads and descriptors of the process, so they run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Threads of a downloader with default options: workers, scheduler, watchdog, one for hedging, one for idle connections, and one
/// of a sequential stream or a radio.
#[cfg(target_os = "linux")]
const ONE_DOWNLOADER: usize = 11;

/// Names of windway's threads in this process, and the number of its descriptors.
#[cfg(target_os = "linux")]
fn census() -> (Vec<String>, usize) {
    let names = std::fs::read_dir("/proc/self/task").unwrap();
    let names = names.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let ours = names.filter(|name| name.starts_with("windway")).collect();
    (ours, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Blocks until windway has no thread in this process. The kernel lists a thread for a moment after it was joined, and a
/// downloader whose last owner was one of its own threads ends by itself a moment later.
#[cfg(target_os = "linux")]
fn await_no_threads() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (threads, _) = census();
        if threads.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{threads:?}");
        std::thread::yield_now();
    }
}

/// Runs all rounds. Checks that threads do not accumulate, that none is left at the end, and that the last round leaves no more
/// descriptors than the eleventh: the first rounds start what stays, such as a DNS lookup.
#[cfg(target_os = "linux")]
fn assert_leaves_nothing(origin: &Origin, rounds: usize, run: impl Fn(usize)) {
    let descriptors = || {
        origin.wait_until("closed connection", |log| log.open == 0);
        census().1
    };
    let mut before = 0;
    await_no_threads();
    for round in 0..rounds {
        run(round);
        // Some of them may have ended already. Leaked threads would accumulate.
        let (threads, _) = census();
        assert!(threads.len() <= ONE_DOWNLOADER, "{threads:?} after round {round}");
        if round == 10 {
            before = descriptors();
        }
    }
    await_no_threads();
    // What an earlier test has left may have been open at the eleventh round, or may be closed only now.
    poll_until("as few descriptors as before", || descriptors() <= before);
}

#[test]
#[cfg(target_os = "linux")]
fn a_thousand_streams_leave_no_thread_and_no_descriptor() {
    let _alone = alone();
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/ranged" => Answer::file(request, &content),
        "/sequential" => Answer::whole(&content),
        _ => Answer::file(request, &content).stall_after(10_000),
    });
    assert_leaves_nothing(&origin, 1000, |round| {
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let path = ["/ranged", "/sequential", "/silent"][round % 3];
        let mut stream = downloader.open(&origin.url(path)).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        match round % 2 {
            0 => drop(downloader),
            _ => downloader.stop(),
        }
        drop(stream);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn handles_and_watches_keep_no_thread() {
    let _alone = alone();
    let station = Station { audio: Content::endless(), interval: 8192, every: 2, titles: vec!["One"] };
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/live" => Answer::station(request, &station),
        _ => Answer::file(request, &Content::pattern(1_000_000)),
    });
    let new = || Downloader::new(DownloaderConfig::default()).unwrap();
    let every = Duration::from_secs(3600);

    let mut stream = new().open(&origin.url("/a")).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    let kept = (stream.handle(), stream.handle().watch(every), stream.handle().subscribe());
    drop(stream);
    await_no_threads();
    drop(kept);

    let mut radio = new().open_radio(&origin.url("/live"), RadioConfig::default()).unwrap();
    radio.read_exact(&mut [0; 1000]).unwrap();
    let kept = (radio.handle(), radio.handle().watch(every), radio.handle().subscribe());
    drop(radio);
    await_no_threads();
    drop(kept);
}

#[test]
#[cfg(all(target_os = "linux", feature = "cache"))]
fn the_handle_of_a_download_keeps_no_thread() {
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(1_000_000));
    let directory = tempfile::tempdir().unwrap();
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let download = downloader.download(&origin.url("/a"), directory.path().join("a"), Default::default());
    let download = download.unwrap();
    download.wait().unwrap();
    let kept = (download.handle(), download.handle().watch(Duration::from_secs(3600)));
    drop((download, downloader));
    await_no_threads();
    drop(kept);
}

#[test]
#[cfg(all(target_os = "linux", feature = "hls"))]
fn the_handle_of_a_presentation_keeps_no_thread() {
    let _alone = alone();
    let playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n0.ts\n#EXT-X-ENDLIST\n";
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/a.m3u8" => Answer::file(request, &Content::bytes(playlist.as_bytes())),
        _ => Answer::status(404),
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let hls = downloader.open_hls(&origin.url("/a.m3u8"), Default::default()).unwrap();
    let kept = (hls.handle(), hls.handle().watch(Duration::from_secs(3600)), hls.handle().subscribe());
    drop((hls, downloader));
    await_no_threads();
    drop(kept);
}

#[test]
#[cfg(all(target_os = "linux", feature = "queue"))]
fn the_handle_of_a_queue_keeps_its_list_and_no_thread() {
    use windway::queue::{Queue, QueueConfig, Track};

    let _alone = alone();
    let origin = Origin::serving(Content::pattern(1_000_000));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut queue = Queue::new(&downloader, QueueConfig::new());
    let handle = queue.handle();
    let track = || Track::new(&origin.url("/a")).unwrap();
    let first = handle.push(track());
    let mut playing = queue.next().unwrap().unwrap();
    playing.stream.read_exact(&mut [0; 1000]).unwrap();
    let watch = handle.current_stream().unwrap().watch(Duration::from_secs(3600));
    drop((playing, queue, downloader));
    await_no_threads();
    // The list is left, and nothing is fetched of it.
    let second = handle.push(track());
    assert!(handle.skip_to(second));
    handle.skip();
    assert_eq!(handle.tracks().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first, second]);
    assert!(handle.current_stream().is_none() && handle.subscribe().is_closed());
    assert_eq!(handle.remove(first).and_then(|track| track.url()), track().url());
    await_no_threads();
    drop((watch, handle));
}

#[test]
#[cfg(target_os = "linux")]
fn radios_leave_no_thread_and_no_descriptor() {
    let _alone = alone();
    let station =
        Station { audio: Content::endless(), interval: 8192, every: 2, titles: vec!["One", "Another"] };
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/live" => Answer::station(request, &station),
        "/breaking" => Answer::station(request, &station).close_after(10_000),
        "/silent" => Answer::station(request, &station).stall_after(10_000),
        _ => Answer::status(404),
    });
    assert_leaves_nothing(&origin, 300, |round| {
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let path = ["/live", "/breaking", "/silent", "/gone"][round % 4];
        let mut radio = downloader.open_radio(&origin.url(path), RadioConfig::default()).unwrap();
        let handle = radio.handle();
        let heard = radio.read_exact(&mut [0; 5000]);
        assert_eq!(heard.is_ok(), path != "/gone", "{heard:?}");
        match round % 3 {
            0 => drop(downloader),
            1 => downloader.stop(),
            _ => handle.cancel(),
        }
        drop(radio);
    });
}

#[test]
fn stop_ends_a_blocked_read() {
    let _alone = alone();
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(10_000));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut stream = downloader.open(&origin.url("/a")).unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let error = stream.read_to_end(&mut all).unwrap_err();
        (windway::Error::from(error), all)
    });
    origin.wait_until("bytes", |log| log.sent >= 10_000);
    downloader.stop();
    let (error, all) = reader.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled(windway::downloader::CancelReason::Shutdown));
    assert_pattern(0, &all);
    assert!(downloader.open(&origin.url("/a")).unwrap_err().is_cancelled());
}

#[test]
fn a_read_fails_while_the_server_is_down_and_continues_when_it_is_back() {
    let _alone = alone();
    let content = Content::pattern(3_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let mut config = FileConfig::default();
    config.read_timeout = Some(Duration::from_millis(300));
    // Or the rest may have arrived before the server is down.
    config.read_ahead = ReadAhead::Bytes(300_000);
    let mut stream = downloader.open_with(&origin.url("/a"), config).unwrap();
    let mut all = vec![0; 200_000];
    stream.read_exact(&mut all).unwrap();

    origin.stop_listening();
    let mut buf = vec![0; 100_000];
    let error = loop {
        match stream.read(&mut buf) {
            Ok(0) => panic!("the file ended while its server was down"),
            Ok(got) => all.extend_from_slice(&buf[..got]),
            Err(error) => break windway::Error::from(error),
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.url(), Some(&origin.url("/a").into()));
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");

    origin.listen_again();
    while all.len() < 3_000_000 {
        match stream.read(&mut buf) {
            Ok(got) => all.extend_from_slice(&buf[..got]),
            // The next attempt may start later than `read_timeout`.
            Err(error) => assert_eq!(windway::Error::from(error).kind(), ErrorKind::TimedOut),
        }
    }
    assert_pattern(0, &all);
}

#[test]
fn the_global_downloader_ends_with_its_last_stream() {
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(100_000));
    for _ in 0..3 {
        let mut first = windway::open(&origin.url("/a")).unwrap();
        let second = windway::open(&origin.url("/b")).unwrap();
        drop(second);
        let mut all = Vec::new();
        first.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 100_000);
        drop(first);
        #[cfg(target_os = "linux")]
        assert!(census().0.len() <= ONE_DOWNLOADER);
    }
}

/// Panics when it is dropped.
#[derive(Debug)]
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("as the test wants");
        }
    }
}

impl std::fmt::Display for PanicsWhenDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a cause whose drop panics")
    }
}

impl std::error::Error for PanicsWhenDropped {}

fn one_worker() -> Downloader {
    downloader(|config| config.max_concurrent = 1)
}

/// Checks that the one worker still works, and that the downloader ends.
fn assert_unharmed(downloader: Downloader, origin: &Origin) {
    let url = origin.url("/after");
    in_time("the worker", move || {
        let list = List::default();
        let peer = downloader.register(list.clone(), Priority::High).unwrap();
        let (sink, end) = collect(0);
        list.put(Fetch::get(&url).unwrap(), sink);
        peer.wake(Priority::High);
        assert!(matches!(end.recv().unwrap().outcome, Outcome::Done));
        peer.execute(Fetch::get(&url).unwrap()).unwrap().read_to_end(&mut Vec::new()).unwrap();
        downloader.stop();
        // Each fetch that was accepted has ended once.
        let totals = downloader.stats().totals;
        assert_eq!((downloader.stats().busy_workers, totals.completed >= 2), (0, true));
    });
}

#[test]
fn a_peer_whose_drop_panics_costs_no_worker() {
    /// Asked once. Its handle is dropped before it answers, so the worker drops the peer.
    struct Fragile(mpsc::Sender<()>, mpsc::Receiver<()>, PanicsWhenDropped);
    impl Peer for Fragile {
        fn next_fetch(&mut self, _: Priority) -> Next {
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
            let _ = &self.2; // Keeps it alive.
            Next::Wait
        }
    }
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = one_worker();
    let (asked, is_asked) = mpsc::channel();
    let (go, going) = mpsc::channel();
    let peer = downloader.register(Fragile(asked, going, PanicsWhenDropped), Priority::High).unwrap();
    peer.wake(Priority::High);
    is_asked.recv().unwrap();
    drop(peer);
    go.send(()).unwrap();
    // And a peer that the drop of its handle frees, on this thread.
    let (asked, _) = mpsc::channel();
    let (_, going) = mpsc::channel();
    drop(downloader.register(Fragile(asked, going, PanicsWhenDropped), Priority::High).unwrap());
    assert_unharmed(downloader, &origin);
}

#[test]
fn a_closure_whose_drop_panics_costs_no_worker_and_ends_its_fetch_once() {
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = one_worker();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let events = downloader.subscribe();
    let fragile = PanicsWhenDropped;
    let fetch = Fetch::get(&origin.url("/a")).unwrap().validate(move |_| {
        let _ = &fragile; // Keeps it alive.
        Ok(())
    });
    let (sink, end) = collect(0);
    list.put(fetch, sink);
    peer.wake(Priority::High);
    let got = in_time("the end", move || (end.recv().unwrap(), end.recv().is_err()));
    assert!(matches!(got.0.outcome, Outcome::Done) && got.1, "{got:?}");
    // On the caller's thread in place of the worker, with a refusal.
    let fragile = PanicsWhenDropped;
    let fetch = Fetch::get(&origin.url("/a")).unwrap().validate(move |_| {
        let _ = &fragile; // Keeps it alive.
        Err(Error::new(ErrorKind::Refusal, "not this one").with_cause(PanicsWhenDropped))
    });
    let executes = peer.clone();
    let kind = in_time("execute", move || executes.execute(fetch).unwrap_err().kind());
    assert_eq!(kind, ErrorKind::Refusal);
    let ended = std::iter::from_fn(|| events.try_recv()).filter(Event::is_end).count();
    assert_eq!(ended, 2);
    drop(peer);
    assert_unharmed(downloader, &origin);
}

#[test]
fn a_callback_whose_panic_payload_panics_costs_no_worker_and_ends_its_fetch_once() {
    let _alone = alone();
    let content = Content::pattern(1000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/busy" => Answer::status(503).header("Retry-After", "0"),
        _ => Answer::file(request, &content),
    });
    let downloader = one_worker();
    let events = downloader.subscribe();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (end, ended) = mpsc::channel();
    let all = At::ALL;
    for at in all {
        let path = if at == At::Retrying { "/busy" } else { "/a" };
        let end = end.clone();
        let breaks = Calling::new(at, move |called, _| {
            if matches!(called, At::Detached | At::Finish) {
                end.send(()).unwrap();
            }
            if called == at {
                std::panic::panic_any(PanicsWhenDropped);
            }
        });
        list.put(Fetch::get(&origin.url(path)).unwrap(), breaks);
    }
    drop(end);
    // Each once: after a fetch that ends in `accepted` the peer is asked again.
    peer.wake(Priority::High);
    in_time("all ends", move || all.iter().for_each(|_| ended.recv().unwrap()));
    let mut published = 0;
    let ids = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(30)));
    let ids: Vec<_> = ids
        .inspect(|event| published += usize::from(event.is_end()))
        .filter(Event::is_end)
        .filter_map(|event| event.request())
        .take(all.len())
        .collect();
    assert!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1), "{ids:?}");
    drop(peer);
    assert_unharmed(downloader, &origin);
}

#[test]
fn the_global_downloader_is_made_again_after_it_was_stopped() {
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(1000));
    let shared = Downloader::global().unwrap();
    let mut stopped = windway::open(&origin.url("/a")).unwrap();
    shared.stop();
    // While handles of the stopped one are alive.
    let mut all = Vec::new();
    windway::open(&origin.url("/b")).unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 1000);
    assert!(shared.open(&origin.url("/c")).unwrap_err().is_cancelled());
    drop(stopped.read_to_end(&mut all));
}

#[test]
fn a_fetch_with_a_validator_ends_after_the_downloader_was_stopped() {
    let _alone = alone();
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    downloader.stop();
    // Closures are dropped by the watchdog thread. It has ended, so the caller's thread has to drop this one.
    let validated = || Fetch::get("http://127.0.0.1:1/").unwrap().validate(|_| Ok(()));
    let (ends, end) = mpsc::channel();
    std::thread::spawn(move || {
        let answers = std::iter::once(peer.execute(validated())).chain(peer.batch(vec![validated()]));
        answers.for_each(|answer| ends.send(answer.map(drop)).unwrap());
    });
    for _ in 0..2 {
        let error = end.recv_timeout(Duration::from_secs(60)).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled(windway::downloader::CancelReason::Shutdown));
    }
}

#[test]
fn a_second_stop_waits_like_the_first() {
    /// Occupies its worker until it is released.
    struct Slow(mpsc::Sender<()>, mpsc::Receiver<()>);
    impl Peer for Slow {
        fn next_fetch(&mut self, _: Priority) -> Next {
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
            Next::Wait
        }
    }
    let _alone = alone();
    let downloader = one_worker();
    let (asked, is_asked) = mpsc::channel();
    let (go, going) = mpsc::channel();
    let peer = downloader.register(Slow(asked, going), Priority::High).unwrap();
    peer.wake(Priority::High);
    is_asked.recv().unwrap();
    let (stopped, is_stopped) = mpsc::channel();
    for _ in 0..2 {
        let (downloader, stopped) = (downloader.clone(), stopped.clone());
        std::thread::spawn(move || {
            downloader.stop();
            stopped.send(()).unwrap();
        });
    }
    // Gives a second stop that does not wait the time to return.
    assert!(
        is_stopped.recv_timeout(Duration::from_millis(300)).is_err(),
        "it returned while a worker was busy"
    );
    go.send(()).unwrap();
    for _ in 0..2 {
        is_stopped.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}

#[test]
fn a_worker_whose_thread_was_blocked_before_the_stop_is_free_afterwards() {
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(1000));
    let downloader = one_worker();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let (ends, ended) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let blocks = Calling::new(At::Finish, move |called, _| {
        if called == At::Finish {
            ends.send(()).unwrap();
            may_go.recv().unwrap();
        }
    });
    list.put(Fetch::get(&origin.url("/a")).unwrap(), blocks);
    peer.wake(Priority::High);
    in_time("the end", move || ended.recv().unwrap());
    // The peer is to be asked again, and no thread is left for that.
    peer.wake(Priority::High);
    poll_until("a peer that waits for the blocked thread", || {
        let stats = downloader.stats();
        stats.busy_workers == 1 && stats.queued.iter().sum::<usize>() == 1
    });
    let (stops, stopped) = mpsc::channel();
    let stopping = downloader.clone();
    std::thread::spawn(move || {
        stopping.stop();
        stops.send(()).unwrap();
    });
    // From here on the downloader has stopped.
    poll_until("the stop", || downloader.register((), Priority::High).is_err());
    go.send(()).unwrap();
    in_time("the stop", move || stopped.recv().unwrap());
    assert_eq!(downloader.stats().busy_workers, 0);
}

/// A blocked subscriber of a peer returns when the peer is gone, whatever other peers do and however long the limits are.
#[test]
fn the_events_of_a_peer_end_with_the_peer() {
    let _alone = alone();
    let origin = Origin::start(|request| match request.path.as_str() {
        "/" => Answer::whole(&Content::pattern(1000)),
        _ => Answer::whole(&Content::pattern(100_000)).stall_after(1000),
    });
    let downloader = downloader(|config| {
        config.soft_timeout = Duration::from_secs(3600);
        config.hang_timeout = Duration::from_secs(3600);
    });
    let other = downloader.register((), Priority::High).unwrap();
    let open = other.execute(Fetch::get(&origin.url("/stalled")).unwrap()).unwrap();
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High).unwrap();
    let events = peer.subscribe();
    drop(peer.execute(Fetch::get(&origin.url("/")).unwrap()).unwrap());
    let (sink, end) = collect(0);
    list.put(Fetch::get(&origin.url("/stalled?pulled")).unwrap(), sink);
    peer.wake(Priority::High);
    origin.wait_until("the pulled fetch", |log| log.requests.len() == 3);
    drop(peer);
    assert!(matches!(end.recv().unwrap().outcome, Outcome::Cancelled(_)));
    let (done, released) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        while events.recv().is_some() {}
        done.send(()).unwrap();
    });
    released.recv_timeout(Duration::from_secs(60)).expect("the events have ended");
    waiter.join().unwrap();
    drop(open);
}

#[test]
fn a_cancelled_stream_that_is_still_held_requests_nothing() {
    let _alone = alone();
    let origin = Origin::start(|request| {
        let answer = Answer::file(request, &Content::pattern(4 << 20));
        if request.path == "/held" { answer.rate(2_000_000) } else { answer }
    });
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    // In the middle of a piece, and before the first one.
    for is_begun in [true, false] {
        let mut held = downloader.open_later(&origin.url("/held"), FileConfig::new()).unwrap();
        if is_begun {
            held.read_exact(&mut [0; 1000]).unwrap();
        }
        held.handle().cancel();
        assert!(Error::from(held.read_to_end(&mut Vec::new()).unwrap_err()).is_cancelled());
        let before = downloader.stats().totals.cancelled;
        // Meanwhile other streams are played.
        let mut bytes = Vec::new();
        downloader.open(&origin.url("/played")).unwrap().read_to_end(&mut bytes).unwrap();
        assert_pattern(0, &bytes);
        let more = downloader.stats().totals.cancelled - before;
        assert!(more < 10, "{more} fetches were cancelled meanwhile");
    }
}
