//! Running prefetches make room for urgent work.

use super::*;

/// Two workers that run the prefetches 1 and 2, while the urgent 3 is queued.
fn with_both_workers_prefetching(now: Instant) -> Schedule {
    let mut schedule = new(2, 0);
    let peer = schedule.handle_registered(Priority::High);
    for number in [1, 2] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
        schedule.poll_assignment(now).unwrap();
    }
    schedule.handle_submitted(peer, fetch_info(3, Priority::High), now);
    schedule
}

#[test]
fn urgent_work_preempts_a_prefetch_and_in_time_aborts_the_most_silent_one() {
    let now = Instant::now();
    let mut schedule = with_both_workers_prefetching(now);
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
fn if_an_abort_takes_effect_late_another_prefetch_makes_room() {
    let start = Instant::now();
    let mut schedule = with_both_workers_prefetching(start);
    assert_eq!(schedule.poll_preemptions(start), 1);
    let mut now = start + PREEMPTION_LIMIT;
    assert_eq!(schedule.poll_abort(now, 0, |worker| worker), Some(0));
    assert_eq!(schedule.poll_preemptions(now), 0);
    // The sink of this fetch blocks, so its worker stays busy.
    assert_eq!(schedule.next_deadline(now), Some(now + PREEMPTION_LIMIT));
    now += PREEMPTION_LIMIT;
    assert_eq!(schedule.poll_preemptions(now), 1);
    assert_eq!(schedule.next_deadline(now), Some(now + PREEMPTION_LIMIT));
    now += PREEMPTION_LIMIT;
    assert_eq!(schedule.poll_abort(now, 0, |worker| worker), Some(1));
    assert_eq!(schedule.poll_abort(now, 0, |worker| worker), None);
    schedule.handle_preempted(1, AT_CHUNK, now);
    assert_eq!(schedule.poll_assignment(now), Some((1, run(3))));
}

#[test]
fn a_preempted_prefetch_continues_before_new_work_of_its_class() {
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

/// Prefetch 1 runs on worker 0, prefetch 2 on worker 1. The body of one of them may stay open.
fn with_two_prefetches_running(now: Instant) -> Schedule {
    let mut schedule = Schedule::new(Limits { max_preempted: 1, ..limits(2, 0) });
    let peer = schedule.handle_registered(Priority::High);
    for number in [1, 2] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::Low), now);
        schedule.poll_assignment(now).unwrap();
    }
    schedule
}

#[test]
fn only_some_preempted_bodies_stay_open_and_all_continue() {
    let now = Instant::now();
    let mut schedule = with_two_prefetches_running(now);
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
    let now = Instant::now();
    let mut schedule = with_two_prefetches_running(now);
    assert_eq!(schedule.handle_preempted(0, AT_CHUNK, now), Requeued::Kept);
    schedule.promote(request(1), Priority::High, now);
    schedule.promote(request(1), Priority::Low, now);
    assert_eq!(schedule.handle_preempted(1, AT_CHUNK, now), Requeued::Aborted);
    assert_eq!(served(&mut schedule).len(), 2);
    assert_eq!(schedule.counts().preempted, 0);
}
