//! Prefetches of one origin are limited.

use super::*;

#[test]
fn an_origin_has_limited_prefetches_and_other_origins_overtake() {
    let mut schedule = Schedule::new(Limits { max_per_origin: 1, ..limits(4, 0) });
    let [a, b] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
    let now = Instant::now();
    for number in [1, 2, 3] {
        schedule.handle_submitted(a, fetch_info(number, Priority::Low), now);
    }
    let elsewhere = FetchInfo { origin: Origin(7), ..fetch_info(4, Priority::Low) };
    schedule.handle_submitted(b, elsewhere, now);
    schedule.handle_submitted(b, fetch_info(5, Priority::High), now);
    let mut order = Vec::new();
    while let Some((worker, assignment)) = schedule.poll_assignment(now) {
        order.push((worker, assignment));
    }
    assert_eq!(order.iter().map(|(_, assignment)| *assignment).collect::<Vec<_>>(), [run(5), run(1), run(4)]);
    assert_eq!(schedule.counts().blocked, 2);
    schedule.handle_finished(order[1].0, now);
    assert_eq!(schedule.poll_assignment(now).unwrap().1, run(2));
    schedule.promote(request(3), Priority::High, now);
    assert_eq!(schedule.poll_assignment(now).unwrap().1, run(3));
    assert_eq!(schedule.counts().blocked, 0);
}

#[test]
fn a_peer_with_a_blocked_prefetch_is_asked_for_urgent_work_only() {
    let mut schedule = Schedule::new(Limits { max_per_origin: 1, ..limits(4, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_woken(peer, Priority::Low, now);
    let mut admissions = Vec::new();
    let mut first = 0;
    for number in [1, 2] {
        let (worker, _) = schedule.poll_assignment(now).unwrap();
        first = if number == 1 { worker } else { first };
        let answer = Answer::Fetch { fetch_info: fetch_info(number, Priority::Low), more: true };
        admissions.push(schedule.handle_answered(worker, answer, now));
    }
    assert_eq!(admissions, [Admission::Run { protected: false }, Admission::Waits]);
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_finished(first, now);
    assert_eq!(schedule.poll_assignment(now).unwrap().1, run(2));
    assert!(matches!(schedule.poll_assignment(now).unwrap().1, Assignment::Ask { .. }));
}

#[test]
fn a_peer_is_asked_again_whatever_ends_the_block_of_its_prefetch() {
    for promoted in [false, true] {
        let mut schedule = Schedule::new(Limits { max_per_origin: 1, ..limits(4, 0) });
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        schedule.handle_woken(peer, Priority::Low, now);
        for number in [1, 2] {
            let (worker, _) = schedule.poll_assignment(now).unwrap();
            let answer = Answer::Fetch { fetch_info: fetch_info(number, Priority::Low), more: true };
            schedule.handle_answered(worker, answer, now);
        }
        assert_eq!(schedule.poll_assignment(now), None);
        if promoted {
            schedule.promote(request(2), Priority::High, now);
            assert_eq!(schedule.poll_assignment(now).unwrap().1, run(2));
        } else {
            assert!(schedule.handle_cancelled(request(2), now));
        }
        assert!(matches!(schedule.poll_assignment(now).unwrap().1, Assignment::Ask { .. }));
    }
}

#[test]
fn a_blocked_prefetch_is_not_forgotten_when_the_one_before_it_is_cancelled() {
    let mut schedule = Schedule::new(Limits { max_per_origin: 1, ..limits(2, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    for number in [1, 2, 3] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
    }
    let (first, _) = schedule.poll_assignment(now).unwrap();
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_finished(first, now);
    assert!(schedule.handle_cancelled(request(2), now));
    assert_eq!(schedule.poll_assignment(now).map(|(_, assignment)| assignment), Some(run(3)));
}

#[test]
fn the_connection_of_a_single_connection_origin_goes_to_urgent_work() {
    let mut schedule = new(3, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    let elsewhere = FetchInfo { origin: Origin(7), ..fetch_info(2, Priority::Low) };
    for fetch_info in [fetch_info(1, Priority::Low), elsewhere, fetch_info(3, Priority::High)] {
        schedule.handle_submitted(peer, fetch_info, now);
    }
    let assigned: Vec<_> = std::iter::from_fn(|| schedule.poll_assignment(now)).collect();
    assert_eq!(assigned, [(0, run(3)), (1, run(1)), (2, run(2))]);
    assert_eq!(schedule.poll_abort(now, 0, |worker| worker), None);
    schedule.handle_single_connection(Origin(0));
    assert_eq!(schedule.poll_abort(now, 0, |worker| worker), Some(1));
    assert_eq!(schedule.poll_abort(now, 0, |worker| worker), None);
    assert_eq!((schedule.poll_reserved(), schedule.poll_reserved()), (Some(Origin(0)), None));
    // At a chunk that came before the abort: its body must not stay open.
    assert_eq!(schedule.handle_preempted(1, AT_CHUNK, now), Requeued::Aborted);
    assert_eq!((schedule.poll_assignment(now), schedule.counts().blocked), (None, 1));
    schedule.handle_finished(0, now);
    assert_eq!(schedule.poll_assignment(now), Some((0, run(1))));
}

/// It was promoted after it had claimed the preemption. The urgent fetch on the other worker gets no answer while its body is open.
#[test]
fn an_urgent_fetch_that_is_preempted_keeps_no_body_of_a_reserved_origin() {
    let now = Instant::now();
    let mut schedule = new(2, 0);
    let peer = schedule.handle_registered(Priority::High);
    for (number, priority) in [(1, Priority::Low), (2, Priority::High)] {
        schedule.handle_submitted(peer, fetch_info(number, priority), now);
        schedule.poll_assignment(now).unwrap();
    }
    schedule.handle_single_connection(Origin(0));
    schedule.promote(request(1), Priority::High, now);
    assert_eq!((schedule.poll_assignment(now), schedule.poll_reserved()), (None, Some(Origin(0))));
    let worker = schedule.workers.find(request(1)).unwrap().0;
    assert_eq!(schedule.handle_preempted(worker, AT_CHUNK, now), Requeued::Aborted);
    assert_eq!(schedule.counts().preempted, 0);
}
