//! Which work goes first, and what waits where.

use super::*;

#[test]
fn classes_are_served_in_their_order() {
    let mut schedule = new(1, 0);
    let low = schedule.handle_registered(Priority::Low);
    let high = schedule.handle_registered(Priority::High);
    schedule.handle_submitted(low, fetch_info(4, Priority::Low), Instant::now());
    schedule.handle_submitted(low, fetch_info(3, Priority::High), Instant::now());
    schedule.handle_submitted(high, fetch_info(2, Priority::Low), Instant::now());
    schedule.handle_submitted(high, fetch_info(1, Priority::High), Instant::now());
    assert_eq!(served(&mut schedule), [1, 2, 3, 4]);
}

#[test]
fn peers_take_turns_and_each_is_first_in_first_out() {
    let mut schedule = new(1, 0);
    let [a, b] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
    for number in [1, 3, 5] {
        schedule.handle_submitted(a, fetch_info(number, Priority::High), Instant::now());
    }
    for number in [2, 4] {
        schedule.handle_submitted(b, fetch_info(number, Priority::High), Instant::now());
    }
    assert_eq!(served(&mut schedule), [1, 2, 3, 4, 5]);
}

#[test]
fn a_live_priority_moves_what_is_queued() {
    let mut schedule = new(1, 0);
    let [a, b] = [(); 2].map(|()| schedule.handle_registered(Priority::Low));
    schedule.handle_submitted(a, fetch_info(2, Priority::High), Instant::now());
    schedule.handle_submitted(b, fetch_info(1, Priority::High), Instant::now());
    schedule.set_priority(b, Priority::High);
    assert_eq!(schedule.counts().queued, [1, 0, 1, 0]);
    assert_eq!(served(&mut schedule), [1, 2]);
}

#[test]
fn a_promotion_goes_to_the_front_and_a_demotion_to_the_back() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    schedule.handle_submitted(peer, fetch_info(2, Priority::High), Instant::now());
    schedule.handle_submitted(peer, fetch_info(1, Priority::Low), Instant::now());
    schedule.handle_submitted(peer, fetch_info(3, Priority::Low), Instant::now());
    schedule.handle_submitted(peer, fetch_info(4, Priority::High), Instant::now());
    schedule.promote(request(1), Priority::High, Instant::now());
    schedule.promote(request(4), Priority::Low, Instant::now());
    assert_eq!(served(&mut schedule), [1, 2, 3, 4]);
}

#[test]
fn a_reserved_worker_runs_urgent_work_only() {
    let mut schedule = new(2, 1);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    for number in [1, 2] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), Instant::now());
    }
    assert!(schedule.poll_assignment(now).is_some());
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_submitted(peer, fetch_info(3, Priority::High), Instant::now());
    let (_, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, run(3));
}

#[test]
fn a_retry_waits_for_its_time_and_holds_no_worker() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    schedule.handle_submitted(peer, fetch_info(1, Priority::High), Instant::now());
    let (worker, _) = schedule.poll_assignment(now).unwrap();
    assert!(schedule.handle_retry(worker, later, now));
    assert_eq!(schedule.next_deadline(now), Some(later));
    schedule.handle_submitted(peer, fetch_info(2, Priority::High), Instant::now());
    let (worker, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, run(2));
    schedule.handle_finished(worker, now);
    assert_eq!(schedule.poll_assignment(now), None);
    let (_, assignment) = schedule.poll_assignment(later).unwrap();
    assert_eq!(assignment, run(1));
}

/// A schedule whose only fetch was tried at `now`, could not connect, and is retried after 8 s.
fn unreachable(now: Instant) -> Schedule {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    schedule.handle_submitted(peer, fetch_info(1, Priority::High), now);
    let (worker, _) = schedule.poll_assignment(now).unwrap();
    assert!(schedule.handle_retry(worker, now + Duration::from_secs(8), now));
    schedule.start_on_answer(request(1), now + Duration::from_millis(500));
    assert!(schedule.has_unreachable());
    schedule
}

#[test]
fn a_fetch_that_could_not_connect_is_tried_when_its_origin_answers_another_one() {
    let now = Instant::now();
    let at = |millis| now + Duration::from_millis(millis);
    let mut schedule = unreachable(now);
    schedule.handle_answer(Origin(1), at(1000));
    assert_eq!(schedule.poll_assignment(at(1000)), None, "another origin");
    schedule.handle_answer(Origin(0), at(2000));
    let (worker, assignment) = schedule.poll_assignment(at(2000)).unwrap();
    assert_eq!((assignment, schedule.has_unreachable()), (run(1), false));
    // Another failure, of which an answer says nothing.
    assert!(schedule.handle_retry(worker, at(9000), at(2000)));
    schedule.handle_answer(Origin(0), at(3000));
    assert_eq!(schedule.next_deadline(at(3000)), Some(at(9000)));
}

#[test]
fn answers_make_no_storm_of_retries() {
    let now = Instant::now();
    let at = |millis| now + Duration::from_millis(millis);
    let mut schedule = unreachable(now);
    schedule.handle_answer(Origin(0), at(1));
    assert_eq!(schedule.poll_assignment(at(499)), None);
    assert!(schedule.poll_assignment(at(500)).is_some());
    // Its own time has come before any answer, or it was cancelled: nothing is left.
    for is_cancelled in [false, true] {
        let mut schedule = unreachable(now);
        match is_cancelled {
            true => assert!(schedule.handle_cancelled(request(1), now)),
            false => assert!(schedule.poll_assignment(at(8000)).is_some()),
        }
        assert!(!schedule.has_unreachable());
    }
}

#[test]
fn an_unregistered_peer_gets_back_the_fetches_that_waited() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_submitted(peer, fetch_info(1, Priority::High), Instant::now());
    let (worker, _) = schedule.poll_assignment(now).unwrap();
    schedule.handle_submitted(peer, fetch_info(2, Priority::Low), Instant::now());
    schedule.handle_woken(peer, Priority::Low, now);
    schedule.handle_retry(worker, now, now);
    let mut orphans = schedule.handle_unregistered(peer, now);
    orphans.sort();
    assert_eq!(orphans, [request(1), request(2)]);
    assert_eq!(schedule.counts(), Counts { idle: 1, ..Counts::default() });
    assert!(!schedule.handle_submitted(peer, fetch_info(3, Priority::High), Instant::now()));
}

#[test]
fn prefetches_wait_once_until_urgent_work_pauses() {
    let throttle = Duration::from_millis(100);
    let mut schedule = Schedule::new(Limits { prefetch_delay: throttle, ..limits(4, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_submitted(peer, fetch_info(1, Priority::High), now);
    for number in [2, 3] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
    }
    assert_eq!(schedule.poll_assignment(now).unwrap().1, run(1));
    assert_eq!(schedule.poll_assignment(now), None);
    let quiet = now + throttle;
    assert_eq!(schedule.next_deadline(now), Some(quiet));
    assert_eq!(schedule.poll_assignment(quiet).unwrap().1, run(2));
    assert_eq!(schedule.poll_assignment(quiet).unwrap().1, run(3));
}

#[test]
fn only_where_nothing_waits_an_urgent_fetch_runs_at_once() {
    let now = Instant::now();
    let mut schedule = new(2, 0);
    let (peer, other) =
        (schedule.handle_registered(Priority::Low), schedule.handle_registered(Priority::High));
    assert_eq!(schedule.try_run(peer, fetch_info(1, Priority::Low), now), None);
    let worker = schedule.try_run(peer, fetch_info(1, Priority::High), now).unwrap();
    // What a peer with high priority prefetches goes before urgent work of one with low priority.
    schedule.handle_submitted(other, fetch_info(2, Priority::Low), now);
    assert_eq!(schedule.try_run(peer, fetch_info(3, Priority::High), now), None);
    schedule.handle_submitted(peer, fetch_info(3, Priority::High), now);
    assert_eq!(served(&mut schedule), [2, 3]);
    schedule.handle_finished(worker, now);
    assert_eq!(schedule.counts().idle, 2);
    schedule.handle_unregistered(peer, now);
    assert_eq!(schedule.try_run(peer, fetch_info(4, Priority::High), now), None);
}
