//! Prefetches that have waited long go first, and are protected.

use super::*;

#[test]
fn the_prefetches_of_a_peer_that_is_woken_for_urgent_work_all_the_time_age() {
    let mut schedule = Schedule::new(Limits { aging_threshold: Duration::from_secs(1), ..limits(1, 0) });
    let [busy, other] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
    let start = Instant::now();
    // An urgent fetch has the worker, and more of them wait all the time.
    schedule.handle_submitted(other, fetch_info(1, Priority::High), start);
    assert_eq!(schedule.poll_assignment(start), Some((0, run(1))));
    schedule.handle_woken(busy, Priority::Low, start);
    for number in 2..6 {
        schedule.handle_submitted(other, fetch_info(number, Priority::High), start);
    }
    schedule.handle_woken(busy, Priority::High, start + Duration::from_millis(500));
    let aged = start + Duration::from_secs(1);
    schedule.handle_finished(0, aged);
    assert_eq!(
        schedule.poll_assignment(aged),
        Some((0, Assignment::Ask { peer: busy, admissible: Priority::Low }))
    );
    let answer = Answer::Fetch { fetch_info: fetch_info(9, Priority::Low), more: true };
    assert_eq!(schedule.handle_answered(0, answer, aged), Admission::Run { protected: true });
}

#[test]
fn a_prefetch_that_has_aged_goes_first_and_is_protected() {
    for workers in [1, 2, 3] {
        let mut schedule = new(workers, usize::from(workers > 1));
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        schedule.handle_submitted(peer, fetch_info(1, Priority::Low), now);
        let mut number = 1;
        let mut turn = |at: Instant| {
            // Endless urgent work: there is always more of it than workers.
            while schedule.counts().queued[0] < 5 {
                number += 1;
                schedule.handle_submitted(peer, fetch_info(number, Priority::High), at);
            }
            let (worker, assignment) = schedule.poll_assignment(at).unwrap();
            let asked = schedule.poll_preemptions(at);
            if matches!(assignment, Assignment::Run { protected: false, .. }) {
                schedule.handle_finished(worker, at);
            }
            (assignment, asked)
        };
        for _ in 0..100 {
            assert_ne!(turn(now).0, run(1));
        }
        let aged = now + Duration::from_secs(10);
        let (assignment, asked) = turn(aged);
        assert_eq!(assignment, Assignment::Run { request: request(1), protected: true });
        // Its worker knows whether it had its share of bytes; what is silent is left alone for the whole turn.
        assert_eq!(asked, 1);
        let full_turn = aged + PROTECTED;
        assert_eq!(schedule.poll_abort(full_turn, 0, |worker| worker), None);
        assert_eq!(schedule.poll_preemptions(full_turn), 1);
        assert!(schedule.poll_abort(full_turn + PREEMPTION_LIMIT, 0, |worker| worker).is_some());
    }
}

#[test]
fn between_two_protected_turns_waiting_urgent_work_is_served() {
    let mut schedule = Schedule::new(Limits { aging_threshold: Duration::ZERO, ..limits(1, 0) });
    let peer = schedule.handle_registered(Priority::Low);
    let now = Instant::now();
    for number in 1..=3 {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
        schedule.handle_submitted(peer, fetch_info(10 + number, Priority::High), now);
    }
    assert_eq!(served(&mut schedule), [1, 11, 2, 12, 3, 13]);
}

#[test]
fn what_a_peer_gives_is_protected_if_its_pull_had_aged() {
    let mut schedule = Schedule::new(Limits { aging_threshold: Duration::ZERO, ..limits(1, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_woken(peer, Priority::Low, now);
    schedule.handle_submitted(peer, fetch_info(2, Priority::High), now);
    let (worker, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::Low });
    let answer = Answer::Fetch { fetch_info: fetch_info(1, Priority::Low), more: false };
    assert_eq!(schedule.handle_answered(worker, answer, now), Admission::Run { protected: true });
}

#[test]
fn half_of_the_unreserved_workers_are_protected_at_once_but_at_least_one() {
    for (workers, reserved, most) in [(1, 0, 1), (2, 1, 1), (4, 0, 2), (6, 1, 2), (9, 1, 4)] {
        let mut schedule =
            Schedule::new(Limits { aging_threshold: Duration::ZERO, ..limits(workers, reserved) });
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        for number in 1..20 {
            schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
        }
        let assigned: Vec<_> = std::iter::from_fn(|| schedule.poll_assignment(now)).collect();
        let is_protected = |(_, assignment): &&(WorkerId, Assignment)| {
            matches!(assignment, Assignment::Run { protected: true, .. })
        };
        assert_eq!(assigned.len(), workers - reserved);
        assert_eq!(assigned.iter().filter(is_protected).count(), most);
    }
}

#[test]
fn a_prefetch_that_had_no_full_turn_keeps_its_age() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let start = Instant::now();
    schedule.handle_submitted(peer, fetch_info(1, Priority::Low), start);
    let mut now = start;
    // Urgent work comes again and again before the prefetch has got anywhere.
    for number in 2..200 {
        let (_, assignment) = schedule.poll_assignment(now).unwrap();
        if assignment == (Assignment::Run { request: request(1), protected: true }) {
            return assert!(now >= start + Duration::from_secs(10));
        }
        assert_eq!(assignment, run(1));
        now += Duration::from_millis(100);
        schedule.handle_submitted(peer, fetch_info(number, Priority::High), now);
        assert_eq!(schedule.poll_preemptions(now), 1);
        let how = Preemption { has_body: false, had_share: false };
        schedule.handle_preempted(0, how, now);
        assert_eq!(schedule.poll_assignment(now).unwrap().1, run(number));
        schedule.handle_finished(0, now);
    }
    panic!("it never had a turn of its own");
}

#[test]
fn aged_work_preempts_a_prefetch_but_aborts_none() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_submitted(peer, fetch_info(1, Priority::Low), now);
    schedule.poll_assignment(now).unwrap();
    schedule.handle_submitted(peer, fetch_info(2, Priority::Low), now);
    assert_eq!(schedule.poll_preemptions(now), 0);
    let aged = now + Duration::from_secs(10);
    assert_eq!(schedule.next_deadline(now), Some(aged));
    assert_eq!(schedule.poll_assignment(aged), None);
    assert_eq!(schedule.poll_preemptions(aged), 1);
    assert_eq!(schedule.poll_abort(aged + 10 * PROTECTED, 0, |worker| worker), None);
    schedule.handle_preempted(0, AT_CHUNK, aged);
    let assigned = schedule.poll_assignment(aged).map(|(_, assignment)| assignment);
    assert_eq!(assigned, Some(Assignment::Run { request: request(2), protected: true }));
}

#[test]
fn urgent_work_that_waited_through_a_protected_turn_goes_before_the_next_one() {
    let mut schedule = Schedule::new(Limits { aging_threshold: Duration::ZERO, ..limits(2, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_submitted(peer, fetch_info(1, Priority::Low), now);
    let protected = Assignment::Run { request: request(1), protected: true };
    assert_eq!(schedule.poll_assignment(now), Some((0, protected)));
    // This is served between the two turns, but those behind it wait through the first one.
    for number in [2, 3, 4] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::High), now);
    }
    assert_eq!(schedule.poll_assignment(now), Some((1, run(2))));
    schedule.handle_submitted(peer, fetch_info(5, Priority::Low), now);
    assert_eq!((schedule.poll_assignment(now), schedule.poll_preemptions(now)), (None, 2));
    schedule.handle_finished(0, now);
    assert_eq!(schedule.poll_assignment(now), Some((0, run(3))));
    // Then it is the prefetch's turn again, so that neither starves.
    schedule.handle_finished(0, now);
    let protected = Assignment::Run { request: request(5), protected: true };
    assert_eq!(schedule.poll_assignment(now), Some((0, protected)));
}
