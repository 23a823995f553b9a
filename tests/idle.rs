//! No thread of windway wakes while nothing changes. These tests have a process of their own and run one after another, because
//! they look at all threads of the process.
#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use support::peers::{Collect, List, downloader};
use support::{Answer, Content, Origin, Station};
use windway::downloader::PeerHandle;
use windway::event::{Event, Subscriber};
use windway::{Fetch, Priority, RadioConfig};

static ALONE: Mutex<()> = Mutex::new(());

/// Number of wake-ups so far of each thread whose name begins with `prefix`.
fn wakes_of(prefix: &str) -> HashMap<String, u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    status
        .filter(|status| field(status, "Name:").is_some_and(|name| name.starts_with(prefix)))
        .filter_map(|status| {
            let wakes = field(&status, "voluntary_ctxt_switches:")?.parse().ok()?;
            Some((field(&status, "Pid:")?, wakes))
        })
        .collect()
}

/// Counts wake-ups in two seconds in which nothing happens. Repeats that a few times, because on a busy machine earlier work may
/// take its time to settle. A thread that keeps waking is seen each time.
fn assert_still(events: &Subscriber) {
    let mut restless = Vec::new();
    for _ in 0..5 {
        while events.try_recv().is_some() {}
        let before = wakes_of("windway");
        let event = events.recv_timeout(Duration::from_secs(2));
        assert!(event.is_none(), "{event:?}");
        let woken = |(thread, wakes): (String, u64)| {
            let woken = wakes - before.get(&thread).copied().unwrap_or(0);
            // Once a second at most.
            (woken > 2).then_some((thread, woken))
        };
        restless = wakes_of("windway").into_iter().filter_map(woken).collect();
        if restless.is_empty() {
            return;
        }
    }
    panic!("threads that woke more than once a second, and how often in two: {restless:?}");
}

#[test]
fn a_steady_urgent_body_wakes_only_its_reader() {
    let _alone = ALONE.lock().unwrap_or_else(|panicked| panicked.into_inner());
    let content = Content::pattern(600_000);
    // It lasts three seconds.
    let origin = Origin::start(move |request| {
        Answer::file(request, &content).chunks_of(4000, Duration::from_millis(20))
    });
    let downloader = downloader(|_| ());
    let peer = downloader.register((), Priority::High).unwrap();
    let mut body = peer.execute(Fetch::get(&origin.url("/a")).unwrap()).unwrap();
    let mut buf = vec![0; 100_000];
    // In this time the thread learns that the response head has arrived.
    body.read_exact(&mut buf).unwrap();
    let woken = || wakes_of("windway-hedge").values().sum::<u64>();
    let before = woken();
    buf.resize(500_000, 0);
    body.read_exact(&mut buf).unwrap();
    let woken = woken().saturating_sub(before);
    assert!(woken <= 1, "{woken} times in two and a half seconds");
}

#[test]
fn no_thread_wakes_while_nothing_changes() {
    let _alone = ALONE.lock().unwrap_or_else(|panicked| panicked.into_inner());
    let content = Content::pattern(1_000_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(1000));
    let downloader = downloader(|config| {
        config.max_per_origin = 100;
        // A report of a slow fetch would wake the subscriber.
        config.soft_timeout = Duration::from_secs(3600);
    });
    let events = downloader.subscribe();
    let _idle: Vec<PeerHandle> = (0..100).map(|_| downloader.register((), Priority::High).unwrap()).collect();
    assert_still(&events);

    // All workers are stalled, and a thousand peers with work are queued behind them.
    let (ends, _end) = mpsc::channel();
    let prefetches: Vec<PeerHandle> = (0..1000)
        .map(|_| {
            let list = List::default();
            list.put(Fetch::get(&origin.url("/prefetch")).unwrap(), Collect::new(0, &ends));
            let peer = downloader.register(list, Priority::High).unwrap();
            peer.wake(Priority::Low);
            peer
        })
        .collect();
    let unreserved = 5;
    origin.wait_until("prefetches on all workers", |log| log.sent == unreserved * 1000);
    // The events of what was sent may still be on their way.
    let heads = std::iter::from_fn(|| events.recv()).filter(|event| matches!(event, Event::FirstByte { .. }));
    assert_eq!(heads.take(unreserved as usize).count(), unreserved as usize);
    let queued: usize = downloader.stats().queued.iter().sum();
    // Peers whose fetches run may have more to give, and are queued for that, too.
    assert!(queued + unreserved as usize >= prefetches.len(), "{queued}");
    assert_still(&events);
    origin.release();
}

#[test]
fn a_watch_wakes_no_thread_but_its_own() {
    let _alone = ALONE.lock().unwrap_or_else(|panicked| panicked.into_inner());
    let station = Station { audio: Content::endless(), interval: 1000, every: 1, titles: vec!["One", "Two"] };
    let origin = Origin::start(move |request| Answer::station(request, &station));
    // A report of a slow fetch would wake the subscriber.
    let downloader = downloader(|config| config.soft_timeout = Duration::from_secs(3600));
    let events = downloader.subscribe();
    let config = RadioConfig::default();
    let ahead = config.ahead;
    let radio = downloader.open_radio(&origin.url("/live"), config).unwrap();
    let handle = radio.handle();
    // Nothing is read, so nothing changes once the window is full.
    handle.wait_buffered(ahead - 32 * 1024, None).unwrap();
    let mut watch = handle.watch(Duration::from_secs(3600));
    watch.next();
    // Its name is one that is looked at.
    let waiting = thread::Builder::new().name("windway-watch".into()).spawn(move || watch.count()).unwrap();
    assert_still(&events);
    drop(radio);
    assert_eq!(waiting.join().unwrap(), 1);
}
