use super::*;
use crossbeam_channel::{Receiver, Sender};

fn lookups() -> Arc<Lookups> {
    Lookups::new(Duration::from_secs(60), Duration::from_secs(5))
}

#[test]
fn an_address_needs_no_lookup() {
    let lookups = lookups();
    assert_eq!(lookups.resolve("127.0.0.1", None).unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(lookups.resolve("[::1]", None).unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(lookups.state.lock().started, 0);
}

#[test]
fn a_name_is_looked_up_once() {
    let lookups = lookups();
    let first = lookups.resolve("localhost", None).unwrap();
    assert!(first.iter().all(IpAddr::is_loopback) && !first.is_empty());
    let at = lookups.state.lock().known["localhost"].at;
    lookups.resolve("localhost", None).unwrap();
    assert_eq!(lookups.state.lock().known["localhost"].at, at);
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
    assert!(lookups.state.lock().pending.is_empty());
}

#[test]
fn the_last_addresses_are_used_while_a_lookup_fails() {
    let mut state = State::default();
    let good: IpAddr = "192.0.2.7".parse().unwrap();
    state.learn("host".into(), Ok(vec![good]));
    state.learn("host".into(), Err(io::Error::other("no name server")));
    assert_eq!(state.known["host"].answer().unwrap(), [good]);
    state.learn("other".into(), Err(io::Error::other("no name server")));
    assert_eq!(state.known["other"].answer().unwrap_err().kind(), ErrorKind::HostNotFound);
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
fn resolve_on_thread(lookups: &Arc<Lookups>, host: &str) -> thread::JoinHandle<Result<Vec<IpAddr>, Error>> {
    let (lookups, host) = (Arc::clone(lookups), host.to_owned());
    thread::spawn(move || lookups.resolve(&host, None))
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
    assert!(state.pending.is_empty() && state.waiters.is_empty(), "{state:?}");
}

#[test]
fn lookup_threads_are_limited_and_abandoned_names_need_none() {
    let now = Instant::now();
    let mut state = State::default();
    for name in 0..100 {
        let host = name.to_string();
        state.begin_wait(&host);
        state.request(&host);
    }
    let started = |state: &mut State, now| {
        std::iter::from_fn(|| match state.poll_start(now) {
            Start::Name(host, _) => Some(host),
            Start::At(at) => {
                assert_eq!(at, now + SLOW);
                None
            }
            Start::Nothing => None,
        })
        .count()
    };
    let counts: Vec<usize> = (0..10).map(|step| started(&mut state, now + step * SLOW)).collect();
    assert_eq!(counts, [4, 4, 4, 4, 4, 4, 4, 4, 0, 0]);
    assert_eq!(state.running.len(), MAX_THREADS);
    (0..100).for_each(|name| state.end_wait(&name.to_string()));
    let id = state.running[0].id;
    state.end("0", id, Ok(Vec::new()));
    assert_eq!(state.poll_start(now + 20 * SLOW), Start::Nothing);
    assert!(state.queue.is_empty());
}

#[test]
fn a_hanging_lookup_of_the_old_network_is_not_waited_for() {
    let now = Instant::now();
    let mut state = State::default();
    state.begin_wait("host");
    state.request("host");
    let Start::Name(_, old) = state.poll_start(now) else { panic!("nothing is running") };
    state.request("host");
    assert_eq!(state.poll_start(now), Start::Nothing);
    state.change_network();
    state.request("host");
    let Start::Name(_, new) = state.poll_start(now) else { panic!("the old one is waited for") };
    let [first, second] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
    state.end("host", new, Ok(vec![second]));
    state.end("host", old, Ok(vec![first]));
    assert_eq!(state.known["host"].answer().unwrap(), [second]);
}

#[test]
fn an_unresponsive_address_comes_last_until_the_network_changes() {
    let lookups = lookups();
    let [first, second, third] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
    lookups.record_unresponsive(first);
    let order = |lookups: &Lookups| {
        let mut addresses = [first, second, third];
        lookups.order(&mut addresses);
        addresses
    };
    assert_eq!(order(&lookups), [second, third, first]);
    lookups.outdate();
    assert_eq!(order(&lookups), [first, second, third]);
}

#[test]
fn address_families_alternate() {
    let parse = |text: &str| text.parse::<IpAddr>().unwrap();
    let given = ["::1", "::2", "127.0.0.1"].map(parse);
    assert_eq!(interleave(&given), ["::1", "127.0.0.1", "::2"].map(parse));
}
