use super::lookup_queue::{MAX_PROMPT, MAX_THREADS};
use super::*;
use crossbeam_channel::{Receiver, Sender};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

fn lookups() -> Arc<Lookups> {
    Lookups::new(Duration::from_secs(60), Duration::from_secs(5))
}

#[test]
fn an_address_needs_no_lookup() {
    let lookups = lookups();
    assert_eq!(lookups.resolve("127.0.0.1", None).unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(lookups.resolve("[::1]", None).unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(lookups.state.lock().queue.started(), 0);
}

#[test]
fn a_name_is_looked_up_once() {
    let lookups = lookups();
    let first = lookups.resolve("localhost", None).unwrap();
    assert!(first.iter().all(IpAddr::is_loopback) && !first.is_empty());
    lookups.resolve("localhost", None).unwrap();
    assert_eq!(lookups.state.lock().queue.started(), 1);
}

#[test]
fn a_lookup_that_panics_fails_and_costs_no_thread() {
    let limit = Duration::from_secs(60);
    let lookups = Lookups::with(limit, limit, |host: &str| match host {
        "good" => Ok(vec![IpAddr::from([192, 0, 2, 7])]),
        _ => panic!("as the test wants"),
    });
    for number in 0..2 * MAX_THREADS {
        let error = lookups.resolve(&format!("bad{number}"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostNotFound);
    }
    assert_eq!(lookups.resolve("good", None).unwrap(), [IpAddr::from([192, 0, 2, 7])]);
    assert!(lookups.state.lock().queue.is_idle());
}

#[test]
fn a_lookup_without_a_thread_fails_and_the_next_one_succeeds() {
    let limit = Duration::from_secs(60);
    let lookups = Lookups::with(limit, limit, |_: &str| Ok(vec![IpAddr::from([192, 0, 2, 7])]));
    let refusal = thread::refuse("lookup");
    let error = lookups.resolve("one.test", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io(io::ErrorKind::ResourceBusy), "{error:?}");
    drop(refusal);
    assert_eq!(lookups.resolve("one.test", None).unwrap().len(), 1);
}

#[test]
fn a_cancelled_waiter_is_released() {
    let lookups = lookups();
    let exchange = Exchange::default();
    exchange.abort(crate::cancel::CancelReason::Fetch);
    assert!(lookups.resolve("localhost", Some(&exchange)).unwrap_err().is_cancelled());
}

/// Lookups of names that begin with "hang" report their start and then hang until the sender is dropped.
fn hanging(limit: Duration) -> (Arc<Lookups>, Sender<()>, Receiver<()>) {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let (begin, begun) = crossbeam_channel::unbounded();
    let lookups = Lookups::with(Duration::from_secs(60), limit, move |host| {
        if host.starts_with("hang") {
            begin.send(()).unwrap_or_default();
            released.recv().unwrap_or_default();
        }
        Ok(vec![IpAddr::from([192, 0, 2, 1])])
    });
    (lookups, release, begun)
}

/// Resolves `host` on another thread.
fn resolve_on_thread(lookups: &Arc<Lookups>, host: &str) -> JoinHandle<Result<Vec<IpAddr>, Error>> {
    let (lookups, host) = (Arc::clone(lookups), host.to_owned());
    std::thread::spawn(move || lookups.resolve(&host, None))
}

#[test]
fn names_that_hang_do_not_delay_other_names() {
    const LONG: Duration = Duration::from_secs(3600);
    let (lookups, release, begun) = hanging(LONG);
    let hanging: Vec<_> = (0..6).map(|name| resolve_on_thread(&lookups, &format!("hang{name}"))).collect();
    begun.iter().take(MAX_PROMPT).for_each(drop);
    assert_eq!(lookups.resolve("other", None).unwrap().len(), 1);
    drop(release);
    hanging.into_iter().for_each(|asked| drop(asked.join().unwrap().unwrap()));
    let state = lookups.state.lock();
    assert!(state.queue.is_idle(), "{state:?}");
}

#[test]
fn a_name_that_was_known_before_does_not_wait_for_a_lookup_that_hangs() {
    const LONG: Duration = Duration::from_secs(3600);
    let (lookups, release, begun) = hanging(LONG);
    let known = [IpAddr::from([192, 0, 2, 7])];
    lookups.preset("hang", &known);
    lookups.outdate();
    assert_eq!(lookups.resolve("hang", None).unwrap(), known);
    // Its lookup has started all the same.
    begun.recv().unwrap();
    drop(release);
}

/// The system repeats a lost query only after 5 s, which is also the default of the limit.
#[test]
fn a_lookup_whose_query_was_lost_is_repeated() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let (address, calls) = (IpAddr::from([192, 0, 2, 1]), AtomicUsize::new(0));
    let lookups = Lookups::with(Duration::from_secs(60), Duration::from_secs(20), move |_| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            released.recv().unwrap_or_default();
            return Err(io::Error::other("no name server answered"));
        }
        Ok(vec![address])
    });
    assert_eq!(lookups.resolve("host", None).unwrap(), [address]);
    drop(release);
    // What the first one says then is not used.
    let mut state = lookups.state.lock();
    while !state.queue.is_idle() {
        lookups.changed.wait(&mut state);
    }
    drop(state);
    assert_eq!(lookups.resolve("host", None).unwrap(), [address]);
    assert_eq!(lookups.state.lock().queue.started(), 2);
}
