//! What the schedule decides, case by case.

use super::*;

fn request(number: u64) -> RequestId {
    RequestId::new(number).unwrap()
}

fn limits(workers: usize, reserved: usize) -> Limits {
    Limits {
        workers,
        reserved,
        max_per_origin: usize::MAX,
        prefetch_delay: Duration::ZERO,
        aging_threshold: Duration::from_secs(10),
        max_preempted: usize::MAX,
    }
}

fn new(workers: usize, reserved: usize) -> Schedule {
    Schedule::new(limits(workers, reserved))
}

/// At a chunk, long before a full turn.
const AT_CHUNK: Preemption = Preemption { has_body: true, had_share: false };

fn fetch_info(number: u64, priority: Priority) -> FetchInfo {
    FetchInfo { request: request(number), priority, origin: Origin(0) }
}

fn run(number: u64) -> Assignment {
    Assignment::Run { request: request(number), protected: false }
}

/// Polls all with one worker that is done at once.
fn served(schedule: &mut Schedule) -> Vec<u64> {
    let now = Instant::now();
    let mut order = Vec::new();
    while let Some((worker, assignment)) = schedule.poll_assignment(now) {
        if let Assignment::Run { request, .. } = assignment {
            order.push(request.get());
        }
        schedule.handle_finished(worker, now);
    }
    order
}

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
fn a_reserved_worker_takes_awaited_work_only() {
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
fn a_peer_is_asked_once_a_wake_and_not_again_after_wait() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_woken(peer, Priority::Low, now);
    schedule.handle_woken(peer, Priority::Low, now);
    let (worker, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::Low });
    schedule.handle_answered(worker, Answer::Wait, now);
    assert_eq!(schedule.poll_assignment(now), None);
}

#[test]
fn a_wake_during_the_question_is_kept() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_woken(peer, Priority::Low, now);
    let (worker, _) = schedule.poll_assignment(now).unwrap();
    schedule.handle_woken(peer, Priority::High, now);
    schedule.handle_answered(worker, Answer::Wait, now);
    let (_, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::Low });
}

#[test]
fn a_peer_with_more_is_asked_again_and_one_that_panicked_is_not() {
    let mut schedule = new(2, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_woken(peer, Priority::High, now);
    let (first, _) = schedule.poll_assignment(now).unwrap();
    let answer = Answer::Fetch { fetch_info: fetch_info(1, Priority::Low), more: true };
    schedule.handle_answered(first, answer, now);
    let (second, assignment) = schedule.poll_assignment(now).unwrap();
    assert!(matches!(assignment, Assignment::Ask { .. }) && first != second);
    schedule.handle_answered(second, Answer::Gone, now);
    schedule.handle_woken(peer, Priority::High, now);
    assert_eq!(schedule.poll_assignment(now), None);
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

#[test]
fn what_a_peer_leaves_behind_is_returned_when_it_goes() {
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
fn awaited_work_makes_a_low_body_yield_and_evicts_the_most_silent_one_in_time() {
    let mut schedule = new(2, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    for number in [1, 2] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
        schedule.poll_assignment(now).unwrap();
    }
    schedule.handle_submitted(peer, fetch_info(3, Priority::High), now);
    assert_eq!(schedule.poll_assignment(now), None);
    assert_eq!(schedule.poll_preemptions(now), 1);
    let limit = now + PREEMPTION_LIMIT;
    assert_eq!(schedule.next_deadline(now), Some(limit));
    assert_eq!(schedule.poll_abort(now, 0, |worker| worker), None);
    assert_eq!(schedule.poll_abort(limit, 1, |worker| worker), None);
    let moved = |worker| std::cmp::Reverse(worker);
    assert_eq!(schedule.poll_abort(limit, 0, moved), Some(1));
    assert_eq!(schedule.poll_abort(limit, 0, moved), None);
    assert_eq!(schedule.poll_preemptions(limit), 0);
    assert_eq!(schedule.handle_preempted(1, AT_CHUNK, limit), Requeued::Kept);
    assert_eq!(schedule.poll_assignment(limit), Some((1, run(3))));
}

#[test]
fn what_was_set_aside_goes_on_before_new_work_of_its_class() {
    let mut schedule = new(1, 0);
    let [a, b] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
    let now = Instant::now();
    schedule.handle_submitted(a, fetch_info(2, Priority::Low), now);
    schedule.poll_assignment(now).unwrap();
    schedule.handle_submitted(b, fetch_info(3, Priority::Low), now);
    schedule.handle_submitted(a, fetch_info(4, Priority::Low), now);
    schedule.handle_submitted(b, fetch_info(1, Priority::High), now);
    assert_eq!(schedule.poll_preemptions(now), 1);
    assert_eq!(schedule.handle_preempted(0, AT_CHUNK, now), Requeued::Kept);
    assert_eq!(schedule.counts().preempted, 1);
    assert_eq!(served(&mut schedule), [1, 2, 3, 4]);
    assert_eq!(schedule.counts().preempted, 0);
}

#[test]
fn low_work_that_has_waited_too_long_comes_first_and_is_protected() {
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
fn low_work_waits_for_awaited_work_to_go_quiet_once_a_spell() {
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
fn an_origin_has_so_many_low_fetches_and_others_overtake() {
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
fn a_peer_whose_origin_is_full_is_asked_for_awaited_work_only() {
    let mut schedule = Schedule::new(Limits { max_per_origin: 1, ..limits(4, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_woken(peer, Priority::Low, now);
    let mut fates = Vec::new();
    let mut first = 0;
    for number in [1, 2] {
        let (worker, _) = schedule.poll_assignment(now).unwrap();
        first = if number == 1 { worker } else { first };
        let answer = Answer::Fetch { fetch_info: fetch_info(number, Priority::Low), more: true };
        fates.push(schedule.handle_answered(worker, answer, now));
    }
    assert_eq!(fates, [Admission::Run { protected: false }, Admission::Waits]);
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_finished(first, now);
    assert_eq!(schedule.poll_assignment(now).unwrap().1, run(2));
    assert!(matches!(schedule.poll_assignment(now).unwrap().1, Assignment::Ask { .. }));
}

#[test]
fn a_peer_is_asked_again_wherever_what_it_had_parked_went() {
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
fn what_waits_for_an_origin_is_not_forgotten_when_the_one_before_it_is_cancelled() {
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
fn between_two_grants_to_aged_work_waiting_urgent_work_is_served() {
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
fn so_many_preempted_bodies_keep_their_connection_and_all_go_on() {
    let mut schedule = Schedule::new(Limits { max_preempted: 1, ..limits(2, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    for number in [1, 2] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
        schedule.poll_assignment(now).unwrap();
    }
    assert_eq!(schedule.handle_preempted(0, AT_CHUNK, now), Requeued::Kept);
    assert_eq!(schedule.handle_preempted(1, AT_CHUNK, now), Requeued::Aborted);
    assert_eq!(schedule.counts().preempted, 1);
    let mut order = served(&mut schedule);
    order.sort();
    assert_eq!(order, [1, 2]);
    assert_eq!(schedule.counts().preempted, 0);
}

#[test]
fn a_preempted_body_that_is_promoted_and_demoted_goes_on_counting() {
    let mut schedule = Schedule::new(Limits { max_preempted: 1, ..limits(2, 0) });
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    for number in [1, 2] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
        schedule.poll_assignment(now).unwrap();
    }
    assert_eq!(schedule.handle_preempted(0, AT_CHUNK, now), Requeued::Kept);
    schedule.promote(request(1), Priority::High, now);
    schedule.promote(request(1), Priority::Low, now);
    assert_eq!(schedule.handle_preempted(1, AT_CHUNK, now), Requeued::Aborted);
    assert_eq!(served(&mut schedule).len(), 2);
    assert_eq!(schedule.counts().preempted, 0);
}

#[test]
fn a_low_answer_to_a_question_for_urgent_work_waits_for_an_unreserved_worker() {
    let mut schedule = new(2, 1);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_submitted(peer, fetch_info(1, Priority::Low), now);
    let (unreserved, _) = schedule.poll_assignment(now).unwrap();
    schedule.handle_woken(peer, Priority::High, now);
    let (reserved, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::High });
    let answer = Answer::Fetch { fetch_info: fetch_info(2, Priority::Low), more: false };
    assert_eq!(schedule.handle_answered(reserved, answer, now), Admission::Waits);
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_submitted(peer, fetch_info(3, Priority::High), now);
    assert_eq!(schedule.poll_assignment(now), Some((reserved, run(3))));
    schedule.handle_finished(unreserved, now);
    assert_eq!(schedule.poll_assignment(now), Some((unreserved, run(2))));
}

#[test]
fn a_cancelled_peer_is_not_asked() {
    for asks in [false, true] {
        let mut schedule = new(1, 0);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        schedule.handle_woken(peer, Priority::High, now);
        let asked = if asks { schedule.poll_assignment(now) } else { None };
        schedule.handle_peer_cancelled(peer);
        if let Some((worker, _)) = asked {
            let answer = Answer::Ended { why: Fruitless::Cancelled, more: true };
            schedule.handle_answered(worker, answer, now);
        }
        schedule.handle_woken(peer, Priority::High, now);
        assert_eq!(schedule.poll_assignment(now), None);
        assert_eq!(schedule.next_deadline(now), None);
    }
}

/// How often a peer is asked within a minute all of whose fetches end so, on a worker or before.
fn asked_in_a_minute(why: Fruitless, on_worker: bool) -> u64 {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let start = Instant::now();
    let (mut now, mut asked) = (start, 0);
    schedule.handle_woken(peer, Priority::Low, now);
    while now < start + Duration::from_secs(60) {
        while let Some((worker, _)) = schedule.poll_assignment(now) {
            asked += 1;
            if on_worker {
                let answer = Answer::Fetch { fetch_info: fetch_info(asked, Priority::Low), more: true };
                schedule.handle_answered(worker, answer, now);
                schedule.handle_fruitless(worker, why, now);
            } else {
                schedule.handle_answered(worker, Answer::Ended { why, more: true }, now);
            }
        }
        now = schedule.next_deadline(now).unwrap();
    }
    // A wake is heeded at once.
    schedule.handle_woken(peer, Priority::Low, now);
    assert!(schedule.poll_assignment(now).is_some());
    assert_eq!(schedule.next_deadline(now), None);
    asked
}

#[test]
fn a_peer_that_wakes_itself_and_has_nothing_is_asked_less_and_less_often() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let start = Instant::now();
    let mut now = start;
    schedule.handle_woken(peer, Priority::High, now);
    let mut asked = 0;
    while now < start + Duration::from_secs(60) {
        while let Some((worker, _)) = schedule.poll_assignment(now) {
            asked += 1;
            assert!(asked < 10_000, "asked without end");
            schedule.handle_woken(peer, Priority::High, now);
            schedule.handle_answered(worker, Answer::Wait, now);
        }
        now = schedule.next_deadline(now).unwrap();
    }
    assert!((1024..2000).contains(&asked), "{asked}");
    // A wake from outside cuts the pause short, and it is asked for urgent work still.
    schedule.handle_woken(peer, Priority::Low, now);
    assert!(schedule.poll_assignment(now).is_some());
}

#[test]
fn a_peer_whose_fetches_bring_nothing_is_asked_less_and_less_often() {
    for on_worker in [false, true] {
        let cancelled = asked_in_a_minute(Fruitless::Cancelled, on_worker);
        assert!((1024..2000).contains(&cancelled), "{cancelled}");
        let failed = asked_in_a_minute(Fruitless::Failed, on_worker);
        assert!((16..300).contains(&failed), "{failed}");
    }
}
